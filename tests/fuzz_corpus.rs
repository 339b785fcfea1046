//! Runs the fuzz targets without a fuzzer: over the committed corpus, and over 10,000 inputs each
//! from a generator with a fixed seed.

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;
#[path = "../fuzz/bodies/replay.rs"]
mod replay;

fn replay(target: &str, body: fn(&[u8])) {
    replay::replay(&format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR")), body);
}

#[test]
fn decode() {
    replay("decode", bodies::decode::run_each_codec);
}

#[test]
fn giant() {
    replay("giant", bodies::giant::run);
}

#[test]
fn round_trip() {
    replay("round_trip", bodies::round_trip::run);
}

#[test]
fn operations() {
    replay("operations", bodies::operations::run);
}

#[test]
fn differential() {
    replay("differential", bodies::differential::run);
}

#[test]
fn connection() {
    replay("connection", bodies::connection::run);
}
