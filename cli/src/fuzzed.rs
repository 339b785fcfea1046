//! The fuzz target `arguments` without a fuzzer, as `tests/fuzz_corpus.rs` of the library has the others.

#[path = "../../fuzz/bodies/arguments.rs"]
mod arguments;
#[path = "../../fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn arguments_corpus() {
    replay::replay(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/arguments"), arguments::run);
}
