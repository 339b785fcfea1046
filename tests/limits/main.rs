//! Every limit of a server, just within and just over. Limits on counts and sizes are tested over
//! real sockets, timeouts over in-memory streams with a paused clock.
#![cfg(unix)]

#[path = "../served/mod.rs"]
mod served;

mod addresses;
mod defaults;
mod durations;
mod hostile;
mod sizes;
mod sockets;
mod stalls;

use addresses::*;
use durations::*;
use sizes::*;
use sockets::*;

type Tests = &'static [fn()];

/// The methods of `ServerBuilder` and the tests of each.
const TESTED: &[(&str, Tests)] = &[
    ("codec", &[max_length, max_length_of_replies]),
    (
        "max_connections",
        &[max_connections, max_connections_of_all_listeners, max_connections_of_an_idle_listener],
    ),
    (
        "max_connections_per_ip",
        &[
            max_connections_per_ip,
            addresses_are_counted_before_the_handshake,
            reported_addresses_are_counted_after_the_handshake,
            trusted_proxies_are_not_counted,
        ],
    ),
    ("per_ip_prefix", &[per_ip_prefix]),
    ("max_handshakes", &[max_handshakes]),
    (
        "max_bad_lines",
        &[max_bad_lines_sent_one_by_one, max_bad_lines_in_one_write, max_bad_lines_in_one_write_with_reply],
    ),
    ("max_unsent", &[max_unsent_blocks_writing, max_unsent_blocks_reading]),
    ("tcp_nodelay", &[tcp_nodelay]),
    ("keepalive", &[keepalive]),
    ("refuse_http_and_tls", &[refuse_http_and_tls]),
    ("idle_timeout", &[idle_timeout, idle_timeout_applies_to_bodies]),
    ("line_timeout", &[line_timeout, line_timeout_applies_to_long_lines, line_timeout_applies_to_blocks]),
    (
        "write_timeout",
        &[
            write_timeout,
            write_timeout_restarts_with_each_byte_taken,
            write_timeout_applies_below_max_unsent,
            write_timeout_applies_to_the_last_flush,
        ],
    ),
    ("handshake", &[handshake_timeout]),
    ("on_error", &[on_error]),
    ("handshake_timeout", &[handshake_timeout]),
    ("drain_timeout", &[drain_timeout]),
    ("linger_timeout", &[linger_timeout]),
];

#[test]
fn every_limit_is_tested() {
    let source = include_str!("../../src/server/builder.rs");
    let methods: Vec<&str> = source
        .split("pub fn ")
        .skip(1)
        .filter_map(|method| {
            let (name, parameters) = method.split_at(method.find(['(', '<'])?);
            let parameters = &parameters[parameters.find('(')?..];
            parameters.starts_with("(mut self").then_some(name)
        })
        .collect();
    let tested: Vec<&str> = TESTED.iter().map(|(name, _)| *name).collect();
    assert!(methods.len() > 10, "{methods:?}");
    for method in &methods {
        assert!(tested.contains(method), "no test of `ServerBuilder::{method}`");
    }
    for name in tested {
        assert!(methods.contains(&name), "`ServerBuilder` has no `{name}`");
    }
}
