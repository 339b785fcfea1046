//! Completions for shells, made from the arguments themselves.

use clap_complete::Shell;

use crate::failure::Failure;
use crate::show::print_all;

/// Print a script with which a shell completes commands and options.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const HELP: &str = "\
Examples:
  lineframe completions bash > ~/.local/share/bash-completion/completions/lineframe
  lineframe completions zsh  > ~/.zfunc/_lineframe     # in the $fpath
  lineframe completions fish > ~/.config/fish/completions/lineframe.fish";

pub(crate) fn run(Arguments { shell }: Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::command(), "lineframe", &mut script);
    print_all(&script)
}
