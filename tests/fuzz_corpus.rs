//! The fuzz targets without a fuzzer: their committed corpus, and ten thousand inputs each of a fixed generator.

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

use std::path::Path;

const GENERATED: usize = 10_000;

/// Runs every file of the target's corpus, then inputs that look like its.
fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = corpus.read_dir().expect("a corpus").map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    files.sort();
    for file in files {
        // Names the file where the body panics.
        println!("{}", file.display());
        body(&std::fs::read(&file).unwrap());
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..GENERATED {
        println!("generated input {number}");
        body(&random.input());
    }
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Any bytes in front, where the configuration is; behind them, many that end lines or nearly do.
    fn input(&mut self) -> Vec<u8> {
        const LETTERS: &[u8] = b"ab\r\n\r\n\0";
        let length = 4 + self.below(200);
        (0..length)
            .map(|at| match self.below(if at < 10 { 2 } else { 8 }) {
                0 => self.below(256) as u8,
                1 => self.below(16) as u8,
                _ => LETTERS[self.below(LETTERS.len() as u64) as usize],
            })
            .collect()
    }
}

#[test]
fn decode() {
    replay("decode", bodies::decode::run);
}

#[test]
fn round_trip() {
    replay("round_trip", bodies::round_trip::run);
}

#[test]
fn operations() {
    replay("operations", bodies::operations::run);
}
