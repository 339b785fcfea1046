//! The recipes of `docs/cookbook.md`, each against a program that it did not grow up with.

#[path = "../included/mod.rs"]
mod included;
mod page;
