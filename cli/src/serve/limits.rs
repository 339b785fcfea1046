//! Options for the server's limits, with the same names as in the library.

use std::time::Duration;

use clap::ArgAction;
use clap::builder::{BoolishValueParser, RangedU64ValueParser};
use lineframe::{Bind, Keepalive, ServerBuilder};

use crate::descriptors;
use crate::units::{self, Limit};

/// Default of the library.
const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct Limits {
    /// Maximum number of open connections, over all addresses. Further clients wait [default:
    /// 10000, or fewer if the hard limit for open files (ulimit -Hn) is low: 64 less than the
    /// limit, divided by 6 with a command]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_connections: Option<usize>,

    /// Maximum number of open connections per IP address. Further ones are closed
    #[arg(long, value_name = "N|none", default_value = "none", value_parser = units::limit(str::parse::<usize>))]
    max_connections_per_ip: Limit<usize>,

    /// Prefix length of IPv6 addresses that count as the same address
    #[arg(long, value_name = "BITS", default_value = "64", value_parser = RangedU64ValueParser::<u8>::new().range(0..=128))]
    per_ip_prefix: u8,

    /// Maximum number of bad lines per connection. The next one closes the connection
    #[arg(long, value_name = "N|none", default_value = "100", value_parser = units::limit(str::parse::<u64>))]
    max_bad_lines: Limit<u64>,

    /// Stop reading from a client while more bytes of its replies are unsent
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = units::size)]
    max_unsent: usize,

    /// Close a connection on which no line begins for this long
    #[arg(long, value_name = "DURATION|none", default_value = "5m", value_parser = units::limit(units::duration))]
    pub(super) idle_timeout: Limit<Duration>,

    /// Time limit for a line, from its first to its last byte
    #[arg(long, value_name = "DURATION|none", default_value = "30s", value_parser = units::limit(units::duration))]
    line_timeout: Limit<Duration>,

    /// Time limit for a client to accept pending replies
    #[arg(long, value_name = "DURATION|none", default_value = "30s", value_parser = units::limit(units::duration))]
    write_timeout: Limit<Duration>,

    /// Time limit for connections to finish after a signal. Then they are closed
    #[arg(long, value_name = "DURATION|none", default_value = "10s", value_parser = units::limit(units::duration))]
    drain_timeout: Limit<Duration>,

    /// How long to read and discard input after the last reply, because a reset could destroy that
    /// reply
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = units::duration)]
    linger_timeout: Duration,

    /// Probe a TCP client after this much silence, then every 10s; the third failed probe closes
    /// the connection
    #[arg(long, value_name = "DURATION|none", default_value = "60s", value_parser = units::limit(units::duration))]
    keepalive: Limit<Duration>,

    /// Maximum number of connections that wait to be accepted
    #[arg(long, value_name = "N", default_value = "1024")]
    backlog: u32,

    /// Permissions of Unix sockets, as an octal mode such as 600 [default: set by the umask]
    #[cfg(unix)]
    #[arg(long, value_parser = mode)]
    mode: Option<u32>,

    /// Refuse HTTP and TLS clients, such as a browser tricked into connecting to this port
    #[arg(
        long, value_name = "on|off", default_value = "on", action = ArgAction::Set,
        value_parser = BoolishValueParser::new(), hide_possible_values = true
    )]
    refuse_http_and_tls: bool,
}

impl Limits {
    /// Applies the limits; `descriptors` is the number that each connection uses.
    pub(super) fn apply(&self, server: ServerBuilder, descriptors: u64) -> ServerBuilder {
        let most = || descriptors::connections(descriptors::raise(), descriptors, DEFAULT_MAX_CONNECTIONS);
        server
            .max_connections(self.max_connections.unwrap_or_else(most))
            .max_connections_per_ip(self.max_connections_per_ip.0)
            .per_ip_prefix(self.per_ip_prefix)
            .keepalive(self.keepalive.0.map(|idle| Keepalive::new().idle(idle)))
            .max_bad_lines(self.max_bad_lines.0)
            .max_unsent(self.max_unsent)
            .idle_timeout(self.idle_timeout.0)
            .line_timeout(self.line_timeout.0)
            .write_timeout(self.write_timeout.0)
            .drain_timeout(self.drain_timeout.0)
            .linger_timeout(self.linger_timeout)
            .refuse_http_and_tls(self.refuse_http_and_tls)
    }

    pub(super) fn bind(&self) -> Bind {
        let bind = Bind::new().backlog(self.backlog);
        #[cfg(unix)]
        if let Some(mode) = self.mode {
            return bind.mode(mode);
        }
        bind
    }
}

#[cfg(unix)]
fn mode(text: &str) -> Result<u32, &'static str> {
    // `from_str_radix` accepts a leading plus sign.
    match (text.len(), u32::from_str_radix(text, 8)) {
        (3, Ok(mode)) if !text.starts_with('+') => Ok(mode),
        _ => Err("write a mode as three octal digits, such as 600"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn defaults_match_the_library() {
        let Alone { limits } = Alone::parse_from(["alone"]);
        let seconds = |n| Limit(Some(Duration::from_secs(n)));
        assert_eq!((limits.max_connections, limits.max_connections_per_ip), (None, Limit(None)));
        assert_eq!((limits.max_bad_lines, limits.max_unsent), (Limit(Some(100)), 64 * 1024));
        assert_eq!((limits.idle_timeout, limits.line_timeout), (seconds(300), seconds(30)));
        assert_eq!((limits.write_timeout, limits.drain_timeout), (seconds(30), seconds(10)));
        assert_eq!((limits.per_ip_prefix, limits.keepalive), (64, seconds(60)));
        assert_eq!((limits.linger_timeout, limits.backlog), (Duration::from_secs(2), 1024));
    }
}
