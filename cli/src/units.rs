//! Durations and sizes on the command line: value parsers for clap.
//!
//! ```ignore
//! #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "30s")]
//! timeout: Duration,
//! #[arg(long, value_name = "DURATION|none", value_parser = units::limit(units::duration), default_value = "5m")]
//! idle_timeout: Limit<Duration>,
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// Returns `start + after`, at most a year after `start`. Tokio's timers cover about two years.
pub(crate) fn later(start: Instant, after: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start + after.min(YEAR)
}

/// Parses a duration such as `500ms`, `2s`, `3m` or `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| match text.parse::<u64>() {
        Ok(number) => format!("the unit is missing; write {number}s, {number}ms or {number}m"),
        Err(_) => format!("{error}; write a duration as 500ms, 2s, 3m or 1h"),
    })
}

/// Parses a number of bytes: `100`, or with a power of 1024 as `1k`, `64k`, `1M`, `1G`.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => Some(1),
        "k" | "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.zip(digits.parse::<usize>().ok()).and_then(|(factor, n)| n.checked_mul(factor));
    bytes.ok_or_else(|| "write a size as a number of bytes, or as 1k, 64k, 1M or 1G".into())
}

/// A limit that can be disabled. A plain `Option` field means an omitted option to clap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit<T>(pub(crate) Option<T>);

/// Returns a parser that accepts `none`, `off` and every input of `value`.
pub(crate) fn limit<T, E>(value: fn(&str) -> Result<T, E>) -> impl Fn(&str) -> Result<Limit<T>, E> + Clone {
    move |text| match text {
        "none" | "off" => Ok(Limit(None)),
        _ => value(text).map(Some).map(Limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, expected) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("2s", Some(Duration::from_secs(2))),
            ("3m", Some(Duration::from_secs(180))),
            ("1h", Some(Duration::from_secs(3600))),
            ("0s", Some(Duration::ZERO)),
            ("2", None),
            ("", None),
            ("-2s", None),
            ("s", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn size_suffixes_are_powers_of_1024() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("1k", Some(1024)),
            ("64k", Some(65_536)),
            ("1M", Some(1 << 20)),
            ("1G", Some(1 << 30)),
            ("", None),
            ("k", None),
            ("1kB", None),
            ("1m", None),
            ("-1", None),
            ("+1", None),
            ("1.5k", None),
            ("99999999999999999999", None),
            ("99999999999999999G", None),
            ("1世", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn limits_can_be_disabled() {
        for (text, expected) in [
            ("none", Some(Limit(None))),
            ("off", Some(Limit(None))),
            ("1k", Some(Limit(Some(1024)))),
            ("", None),
        ] {
            assert_eq!(limit(size)(text).ok(), expected, "{text}");
        }
    }
}
