//! Options from environment variables: `--max-length` can be set by `LINEFRAME_MAX_LENGTH`.
//!
//! An option on the command line overrides its variable.

use clap::builder::{FalseyValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Command};

use crate::show;

const PREFIX: &str = "LINEFRAME_";

/// Assigns an environment variable to every option of every subcommand.
pub(crate) fn with_variables(command: Command) -> Command {
    command.mut_subcommands(|subcommand| subcommand.mut_args(with_variable))
}

fn with_variable(arg: Arg) -> Arg {
    let Some(name) = arg.get_long() else { return arg };
    let variable = format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"));
    let arg = arg.env(variable).hide_env(true);
    match arg.get_action() {
        // Off if the value is 0, no, off, false or empty; on otherwise.
        ArgAction::SetTrue => arg.value_parser(FalseyValueParser::new()),
        ArgAction::Count => arg.value_parser(count),
        _ => arg,
    }
}

/// Parses the value of a counted flag: a number, or on/off for a flag that is given once.
fn count(text: &str) -> Result<u8, clap::Error> {
    match text.parse() {
        Ok(count) => Ok(count),
        Err(_) => FalseyValueParser::new().parse_ref(&Command::new(""), None, text.as_ref()).map(u8::from),
    }
}

/// Prints which variables are set, because one of them may have caused a usage error.
pub(crate) fn note_variables() {
    let mut names: Vec<_> = std::env::vars_os()
        .map(|(name, _)| show::escaped(name.as_encoded_bytes()))
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    names.sort();
    if !names.is_empty() {
        show::note(format_args!("\nSet by environment variables: {}", names.join(", ")));
    }
}
