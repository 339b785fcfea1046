//! Runs the recipes of `docs/cookbook.md` against independent programs, such as Redis and Python's
//! smtplib.
//!
//! If such a program is not installed, its tests print `skipped`. With `LINEFRAME_PEERS=required`
//! they fail. `tests/peers/install` installs all of them. The examples have to be built: by `cargo
//! test`, or by `cargo build --examples && cargo test --test cookbook`.

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
