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

/// Of each eight bytes of a block another bit.
const ROWS: [u8; BLOCK] = {
    let mut rows = [0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        rows[i] = 1 << (i / 8);
        i += 1;
    }
    rows
};

/// A bit for each byte of `block` that is `byte`. Written so that compilers compare sixteen bytes at a time.
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
    // No two of them have a bit in common. Byte j of all has bit i where byte 8 i + j of the block is `byte`.
    let [a, b, c, d, e, f, g, h] = rows;
    transposed(((a | c) | (e | g)) | ((b | d) | (f | h)))
}

/// Bit i of byte j becomes bit j of byte i: blocks of 1, 2 and 4 bits squared change places (Warren, Hacker's Delight, 7-3).
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

/// Whether `byte` is in `bytes`. Where they are few, a search would cost more to begin than to make.
#[inline]
pub(super) fn holds(byte: u8, bytes: &[u8]) -> bool {
    // Without a way out on the way, so that compilers compare sixteen bytes at a time.
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
        // The last ones are looked at twice rather than one by one.
        Some(_) if bytes.len() <= 256 => any(&bytes[..bytes.len() & !31]) | any(&bytes[bytes.len() - 32..]),
        Some(_) => memchr(byte, bytes).is_some(),
        None => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                let eight =
                    u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
                any_of_eight(&eight.to_le_bytes()) != 0
            }
            _ => bytes.contains(&byte),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Positions, holds};
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
    #[test]
    fn holds_what_is_anywhere_in_it() {
        for length in (0..300).chain([1000]) {
            let mut bytes = alloc::vec![b'x'; length];
            assert!(!holds(b'\n', &bytes), "{length}");
            for at in 0..length {
                bytes[at] = b'\n';
                assert!(holds(b'\n', &bytes), "{at} of {length}");
                bytes[at] = 0x8a;
            }
        }
    }
}
