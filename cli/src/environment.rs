//! Options from the environment: `--max-length` is `LINEFRAME_MAX_LENGTH` as well, and so is every other. Flags win.

use clap::builder::{FalseyValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Command};

use crate::show;

const PREFIX: &str = "LINEFRAME_";

/// Gives every option of every subcommand its variable.
pub(crate) fn with_variables(command: Command) -> Command {
    command.mut_subcommands(|subcommand| subcommand.mut_args(with_variable))
}

fn with_variable(arg: Arg) -> Arg {
    let Some(name) = arg.get_long() else { return arg };
    let variable = format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"));
    let arg = arg.env(variable).hide_env(true);
    match arg.get_action() {
        // 0, no, off, false and nothing are off, whatever else is on.
        ArgAction::SetTrue => arg.value_parser(FalseyValueParser::new()),
        ArgAction::Count => arg.value_parser(count),
        _ => arg,
    }
}

/// How often the flag is given: a number, or as for a flag that is given once.
fn count(text: &str) -> Result<u8, clap::Error> {
    match text.parse() {
        Ok(count) => Ok(count),
        Err(_) => FalseyValueParser::new().parse_ref(&Command::new(""), None, text.as_ref()).map(u8::from),
    }
}

/// Names the variables that are set: where arguments are wrong, it may be one of these that is.
pub(crate) fn note_variables() {
    let mut names: Vec<_> = std::env::vars_os()
        .map(|(name, _)| show::escaped(name.as_encoded_bytes()))
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    names.sort();
    if !names.is_empty() {
        show::note(format_args!("\nFrom the environment: {}", names.join(", ")));
    }
}
