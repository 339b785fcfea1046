//! Tests of the `lineframe` program as its users run it: a process with pipes, terminals and
//! sockets.
//!
//! The tests use only the built program. Each test has its own free port and temporary directory.
//! Each wait has a limit; when it expires, the test fails and prints the output so far.

// Nearly all tests use Unix sockets, signals or pseudo-terminals.
#![cfg(unix)]

mod bench;
mod connect;
mod connect_history;
mod demo;
mod drain;
mod end_of_input;
mod exec;
mod inspect;
#[cfg(target_os = "linux")]
mod inspect_output;
mod inspect_signals;
mod killed;
mod log;
mod other_clients;
mod processes;
mod send;
mod serve;
mod serve_limits;
mod socket_file;
mod support;
mod usage;
