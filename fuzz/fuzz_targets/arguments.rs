#![no_main]
#![allow(dead_code)]
// The parsers of the command line, included from its sources.
#[path = "../../cli/src/address.rs"]
mod address;
#[path = "../bodies/arguments.rs"]
mod arguments;
#[path = "../../cli/src/failure.rs"]
mod failure;
#[path = "../../cli/src/framing.rs"]
mod framing;
#[path = "../../cli/src/show.rs"]
mod show;
#[path = "../../cli/src/units.rs"]
mod units;
libfuzzer_sys::fuzz_target!(|data: &[u8]| arguments::run(data));
