//! The command `completions`: shell completions generated from the argument definitions.

use clap_complete::Shell;

use crate::failure::Failure;
use crate::show::print_all;

/// Print a shell script that completes commands and options
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Arguments {
    /// Shell that will load the script
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
