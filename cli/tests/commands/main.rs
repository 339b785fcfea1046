//! The command as its users meet it: as a process, through pipes, terminals and sockets.
//!
//! Nothing here knows how it is built, every test has a world of its own (a free port, a temporary directory), and every
//! wait has an end, at which the test fails with what it has seen until then.

// Unix sockets, signals and pseudo-terminals are part of nearly all of it.
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
