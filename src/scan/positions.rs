use memchr::memchr;

/// Where `byte` stands in `bytes`, in order. Each byte is looked at once.
///
/// memchr is fastest where there is much between two of them, and costs a call for each. Where they stand close together, 64
/// bytes are looked at together, whatever stands among them.
pub(super) struct Positions<'a> {
    bytes: &'a [u8],
    byte: u8,
    /// So many bytes were looked at.
    looked: usize,
    /// Those found and not given, a bit each, counted from `block`.
    found: u64,
    block: usize,
    is_dense: bool,
}

const BLOCK: usize = 64;

/// Closer together than this, they are dense.
const DENSE: usize = 48;

impl<'a> Positions<'a> {
    pub(super) fn new(byte: u8, bytes: &'a [u8]) -> Self {
        Self { bytes, byte, looked: 0, found: 0, block: 0, is_dense: true }
    }
}

impl Iterator for Positions<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let rest = &self.bytes[self.looked..];
            match rest.first_chunk() {
                Some(block) if self.is_dense => {
                    self.block = self.looked;
                    self.looked += BLOCK;
                    self.found = matches(block, self.byte);
                    self.is_dense = self.found != 0;
                }
                _ => {
                    let Some(gap) = memchr(self.byte, rest) else {
                        self.looked = self.bytes.len();
                        return None;
                    };
                    self.is_dense = gap < DENSE;
                    self.looked += gap + 1;
                    return Some(self.looked - 1);
                }
            }
        }
        let at = self.block + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(at)
    }
}

/// A bit for each byte of `block` that is `byte`, eight at a time in a word.
#[inline]
fn matches(block: &[u8; BLOCK], byte: u8) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let all = u64::from(byte) * 0x0101_0101_0101_0101;
    let mut bits = 0;
    for (i, eight) in block.chunks_exact(8).enumerate() {
        let mut word = [0; 8];
        word.copy_from_slice(eight);
        // 0 where it matches.
        let differs = u64::from_le_bytes(word) ^ all;
        // The high bit of each byte that is 0, and no other: no carry leaves a byte.
        let high = !(((differs & LOW) + LOW) | differs | LOW);
        // Moved to the byte's low bit, and the eight of them brought together.
        bits |= ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::Positions;
    use alloc::vec::Vec;

    /// Dense, sparse, and from one to the other, at every length of the tail; all bytes that could be taken for each other.
    #[test]
    fn finds_what_a_plain_search_finds() {
        for byte in [b'\n', 0, 0x7f, 0x80, 0xff] {
            for every in [1, 2, 7, 31, 47, 48, 63, 64, 65, 129, 1000] {
                for length in (0..300).chain([1000, 1023, 4096]) {
                    let other = |i: usize| byte ^ [1, 0x80, 0xff, 0x7f][i % 4];
                    let dense_from = length / 2;
                    let bytes: Vec<u8> = (0..length)
                        .map(|i| if i % every == 0 || i > dense_from && i % 3 == 0 { byte } else { other(i) })
                        .collect();
                    let expected: Vec<usize> = (0..length).filter(|&i| bytes[i] == byte).collect();
                    assert!(Positions::new(byte, &bytes).eq(expected), "{byte} {every} {length}");
                }
            }
        }
    }
}
