//! The recipes of `docs/cookbook.md`, each against a program that it did not grow up with.
//!
//! Where such a program is not installed its tests are said to be skipped; with `LINEFRAME_PEERS=required` they fail.
//! `tests/peers/install` installs all of them. `cargo test` builds the examples; these tests alone are run by `cargo build
//! --examples && cargo test --test cookbook`.

#![cfg(unix)]

#[path = "../example/mod.rs"]
mod example;
#[path = "../included/mod.rs"]
mod included;
mod peer;

mod chat;
mod mcp;
mod memcached;
mod ndjson;
mod page;
mod redis;
mod redis_server;
mod smtp;
