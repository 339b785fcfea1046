//! Formats a log record as text or JSON.

use std::fmt::{Debug, Write as _};
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::Format;
use crate::show;

/// A formatted event.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) level: Level,
    /// Value of the field `reason`, or the message if there is none.
    pub(super) reason: String,
    /// Number of earlier records with the same level and reason that were not written.
    pub(super) suppressed: u64,
    format: Format,
    /// The line without the field `suppressed` and without its end.
    text: String,
}

impl Record {
    pub(super) fn new(event: &Event<'_>, format: Format) -> Self {
        let mut fields = Fields::default();
        event.record(&mut fields);
        Self::of(*event.metadata().level(), fields, format)
    }

    /// Creates a record that reports lost records.
    pub(super) fn of_lost(count: u64, format: Format) -> Self {
        let message = format!("{} lost", show::counted(count, "record"));
        let fields = Fields { message, others: vec![("lost", count.into())], ..Fields::default() };
        Self::of(Level::WARN, fields, format)
    }

    fn of(level: Level, fields: Fields, format: Format) -> Self {
        let Fields { message, reason, suppressed, others } = fields;
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let mut text = match format {
            Format::Text => format!("{time} {level:>5} {message}"),
            Format::Json => {
                let message = Value::from(message.as_str());
                format!(r#"{{"timestamp":"{time}","level":"{level}","message":{message}"#)
            }
        };
        for (name, value) in others {
            _ = match (format, value) {
                (Format::Text, Value::String(value)) if is_bare(&value) => write!(text, " {name}={value}"),
                (Format::Text, value) => write!(text, " {name}={value}"),
                (Format::Json, value) => write!(text, r#","{name}":{value}"#),
            };
        }
        Self { level, reason: reason.unwrap_or(message), suppressed, format, text }
    }

    /// Returns the complete line with its LF.
    pub(super) fn into_line(self) -> String {
        let Self { suppressed, format, mut text, .. } = self;
        _ = match (format, suppressed) {
            (_, 0) => Ok(()),
            (Format::Text, _) => write!(text, " suppressed={suppressed}"),
            (Format::Json, _) => write!(text, r#","suppressed":{suppressed}"#),
        };
        text.push_str(match format {
            Format::Text => "\n",
            Format::Json => "}\n",
        });
        text
    }
}

/// Returns whether logfmt writes the value without quotes. Quoted values escape `"` and `\`.
fn is_bare(value: &str) -> bool {
    !value.is_empty() && !value.contains([' ', '=', '"'])
}

#[derive(Default)]
struct Fields {
    message: String,
    reason: Option<String>,
    suppressed: u64,
    others: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "suppressed" => self.suppressed = value,
            name => self.others.push((name, value.into())),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = show::escaped(value.as_bytes());
        match field.name() {
            "message" => self.message = value,
            name => {
                if name == "reason" {
                    self.reason = Some(value.clone());
                }
                self.others.push((name, value.into()));
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format, value: &str) -> String {
        let fields = Fields { message: "m".into(), others: vec![("k", value.into())], ..Fields::default() };
        let line = Record::of(Level::WARN, fields, format).into_line();
        match format {
            Format::Text => line.split_once(" WARN ").unwrap().1.to_owned(),
            Format::Json => line,
        }
    }

    #[test]
    fn values_cannot_forge_fields() {
        for (value, expected) in [
            ("hello", "m k=hello\n"),
            (r"\x1b[31mred", "m k=\\x1b[31mred\n"),
            ("", "m k=\"\"\n"),
            ("x peer=9.9.9.9:1", "m k=\"x peer=9.9.9.9:1\"\n"),
            ("a=b", "m k=\"a=b\"\n"),
            ("a\" k=\"b", "m k=\"a\\\" k=\\\"b\"\n"),
            (r#"a\" k=b"#, "m k=\"a\\\\\\\" k=b\"\n"),
        ] {
            assert_eq!(line(Format::Text, value), expected);
            let object: Value = serde_json::from_str(&line(Format::Json, value)).unwrap();
            assert_eq!(object["k"], value);
        }
    }

    #[test]
    fn suppressed_is_the_last_field() {
        for (format, end) in
            [(Format::Text, " k=v suppressed=7\n"), (Format::Json, "\"k\":\"v\",\"suppressed\":7}\n")]
        {
            let others = vec![("k", "v".into())];
            let fields = Fields { message: "m".into(), suppressed: 7, others, ..Fields::default() };
            let line = Record::of(Level::WARN, fields, format).into_line();
            assert!(line.ends_with(end), "{line}");
        }
    }
}
