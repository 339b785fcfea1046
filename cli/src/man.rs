//! Manual pages, made from the arguments themselves.

use clap_mangen::Man;

use crate::failure::Failure;
use crate::show::print_all;

/// Print the manual page of lineframe or of one of its commands.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Arguments {
    /// The command; without one, the page about them all
    command: Option<String>,
}

const HELP: &str = "\
Examples:
  lineframe man | man -l -
  lineframe man serve > /usr/local/share/man/man1/lineframe-serve.1";

pub(crate) fn run(Arguments { command }: Arguments) -> Result<(), Failure> {
    // Of `lineframe help` there is no page to refer to.
    let mut all = crate::command().disable_help_subcommand(true);
    // Gives each command its full name.
    all.build();
    let about = match &command {
        None => &all,
        Some(name) => all.find_subcommand(name).ok_or_else(|| {
            Failure::usage(format_args!("there is no command {name:?}: see lineframe --help"))
        })?,
    };
    let mut page = Vec::new();
    Man::new(about.clone())
        .render(&mut page)
        .map_err(|error| Failure::other("cannot make the page", error))?;
    print_all(&page)
}
