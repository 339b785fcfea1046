//! The command `man`: manual pages generated from the argument definitions.

use clap_mangen::Man;

use crate::failure::Failure;
use crate::show::print_all;

/// Print the manual page of lineframe or of one of its commands
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Arguments {
    /// Command to print the page of [default: overview of all commands]
    command: Option<String>,
}

const HELP: &str = "\
Examples:
  lineframe man | man -l -
  lineframe man serve > /usr/local/share/man/man1/lineframe-serve.1";

pub(crate) fn run(Arguments { command }: Arguments) -> Result<(), Failure> {
    // Omit references to `lineframe help`, which has no page.
    let mut all = crate::command().disable_help_subcommand(true);
    // Sets the full name of each command.
    all.build();
    let about = match &command {
        None => &all,
        Some(name) => all.find_subcommand(name).ok_or_else(|| {
            Failure::usage(format_args!("no command {name:?}; run lineframe --help for a list"))
        })?,
    };
    let mut page = Vec::new();
    Man::new(about.clone())
        .render(&mut page)
        .map_err(|error| Failure::other("cannot generate the manual page", error))?;
    print_all(&page)
}
