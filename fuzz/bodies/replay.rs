//! Runs the body of a fuzz target without a fuzzer.

const GENERATED: usize = 10_000;

/// Runs `body` with every file of a corpus, then with generated inputs of a similar form.
pub(crate) fn replay(corpus: &str, body: fn(&[u8])) {
    let files = std::fs::read_dir(corpus).expect("a corpus");
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{corpus} is empty");
    files.sort();
    for file in files {
        // If the body panics, the last line printed names the file.
        println!("{}", file.display());
        body(&std::fs::read(&file).unwrap());
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..GENERATED {
        println!("generated input {number}");
        body(&random.input());
    }
}

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Returns an input. The first bytes, which hold the configuration, are arbitrary. Many of the
    /// others are terminators or parts of one.
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
