//! Runs the corpus of the fuzz target `arguments` without a fuzzer. The library's targets are in
//! `tests/fuzz_corpus.rs`.

#[path = "../../fuzz/bodies/arguments.rs"]
mod arguments;
#[path = "../../fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn arguments_corpus() {
    replay::replay(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/arguments"), arguments::run);
}
