use memchr::memchr;

/// The positions of `byte` in `bytes` at or after `from`, in ascending order.
///
/// Positions that are far apart are found by `memchr`. Each call of `memchr` has a fixed cost, so
/// positions that are close together are found 64 bytes at a time, with one bit for each match.
#[derive(Clone, Copy)]
pub(super) struct Positions<'a> {
    pub(super) bytes: &'a [u8],
    byte: u8,
    /// The number of bytes searched. At most `bytes.len()`.
    searched: usize,
    /// Matches in the last 64 bytes searched that were not returned yet, one bit each.
    matches: u64,
    /// Whether to compare the next block instead of calling `memchr`.
    is_dense: bool,
}

const BLOCK: usize = 64;

/// Positions with a smaller distance are dense.
const DENSE: usize = 48;

impl<'a> Positions<'a> {
    pub(super) fn new(byte: u8, bytes: &'a [u8], from: usize) -> Self {
        Self { bytes, byte, searched: from, matches: 0, is_dense: true }
    }
}

impl Iterator for Positions<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.matches == 0 {
            let rest = &self.bytes[self.searched..];
            match rest.first_chunk() {
                Some(block) if self.is_dense => {
                    self.searched += BLOCK;
                    self.matches = matches(block, self.byte);
                    self.is_dense = self.matches != 0;
                }
                _ => {
                    let Some(gap) = memchr(self.byte, rest) else {
                        self.searched = self.bytes.len();
                        return None;
                    };
                    self.is_dense = gap < DENSE;
                    self.searched += gap + 1;
                    return Some(self.searched - 1);
                }
            }
        }
        let at = self.searched - BLOCK + self.matches.trailing_zeros() as usize;
        self.matches &= self.matches - 1;
        Some(at)
    }
}

/// Byte `i` has bit `i / 8` set.
const ROWS: [u8; BLOCK] = {
    let mut rows = [0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        rows[i] = 1 << (i / 8);
        i += 1;
    }
    rows
};

/// Returns one bit for each byte of `block` that equals `byte`. Written so that compilers compare
/// 16 bytes with one instruction.
#[inline]
fn matches(block: &[u8; BLOCK], byte: u8) -> u64 {
    let mut equal = [0; BLOCK];
    for (i, equal) in equal.iter_mut().enumerate() {
        *equal = if block[i] == byte { ROWS[i] } else { 0 };
    }
    let mut rows = [0; BLOCK / 8];
    for (row, eight) in rows.iter_mut().zip(equal.chunks_exact(8)) {
        *row = eight.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    }
    // The rows have no bit in common. In their union, bit `i` of byte `j` stands for byte `8 * i +
    // j`.
    let [a, b, c, d, e, f, g, h] = rows;
    transposed(((a | c) | (e | g)) | ((b | d) | (f | h)))
}

/// Moves bit `i` of byte `j` to bit `j` of byte `i` (Warren, Hacker's Delight, 7-3).
#[inline]
fn transposed(mut bits: u64) -> u64 {
    for (distance, mask) in
        [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)]
    {
        let differ = (bits ^ (bits >> distance)) & mask;
        bits ^= differ ^ (differ << distance);
    }
    bits
}

/// Returns whether `bytes` contains `byte`. Faster than `memchr` for up to 256 bytes, because a
/// call of `memchr` has a fixed cost.
#[inline]
pub(super) fn contains(byte: u8, bytes: &[u8]) -> bool {
    // Without an early exit, compilers compare 16 bytes with one instruction.
    let any = |bytes: &[u8]| bytes.iter().fold(false, |any, at| any | (*at == byte));
    let all = u64::from(byte) * 0x0101_0101_0101_0101;
    let any_of_eight = |bytes: &[u8; 8]| {
        let differs = u64::from_le_bytes(*bytes) ^ all;
        differs.wrapping_sub(0x0101_0101_0101_0101) & !differs & 0x8080_8080_8080_8080
    };
    match bytes.last_chunk() {
        Some(last) if bytes.len() < 32 => {
            let eights = bytes.chunks_exact(8).filter_map(|eight| eight.first_chunk());
            eights.fold(any_of_eight(last), |any, eight| any | any_of_eight(eight)) != 0
        }
        // The last 32 bytes may overlap the bytes before them.
        Some(_) if bytes.len() <= 256 => any(&bytes[..bytes.len() & !31]) | any(&bytes[bytes.len() - 32..]),
        Some(_) => memchr(byte, bytes).is_some(),
        None => bytes.contains(&byte),
    }
}

#[cfg(test)]
mod tests {
    use super::{Positions, contains};
    use alloc::vec::Vec;

    /// Covers dense, sparse and changing density, every tail length, and bytes that differ from the
    /// searched byte in one bit.
    #[test]
    fn positions_match_a_naive_search() {
        for byte in [b'\n', 0, 0x7f, 0x80, 0xff] {
            for every in [1, 2, 7, 31, 47, 48, 63, 64, 65, 129, 1000] {
                for length in (0..300).chain([1000, 1023, 4096]) {
                    let other = |i: usize| byte ^ [1, 0x80, 0xff, 0x7f][i % 4];
                    let dense_from = length / 2;
                    let bytes: Vec<u8> = (0..length)
                        .map(|i| if i % every == 0 || i > dense_from && i % 3 == 0 { byte } else { other(i) })
                        .collect();
                    let expected: Vec<usize> = (0..length).filter(|&i| bytes[i] == byte).collect();
                    for from in [0, 1, length / 2, length] {
                        let expected = expected.iter().copied().filter(|at| *at >= from);
                        assert!(
                            Positions::new(byte, &bytes, from.min(length)).eq(expected),
                            "{byte} {every} {length} {from}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn contains_finds_every_position() {
        for length in (0..300).chain([1000]) {
            let mut bytes = alloc::vec![b'x'; length];
            assert!(!contains(b'\n', &bytes), "{length}");
            for at in 0..length {
                bytes[at] = b'\n';
                assert!(contains(b'\n', &bytes), "{at} of {length}");
                bytes[at] = 0x8a;
            }
        }
    }
}
