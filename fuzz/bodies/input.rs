use super::model::{Kind, Model};

/// The unread bytes of an input. Methods return `None` if too few bytes remain.
pub struct Input<'a> {
    pub rest: &'a [u8],
    pub scale: Scale,
}

/// The length of the streams of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Little longer than the input, so that thousands of inputs run per second.
    Small,
    /// Up to many reads of the largest size.
    Giant,
}

impl<'a> Input<'a> {
    pub fn new(rest: &'a [u8], scale: Scale) -> Self {
        Self { rest, scale }
    }

    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Returns 0 to 31 bytes, repeated once or many times.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let times = match self.scale {
            Scale::Small => [1, 1, 1, 1, 1, 2, 4, 16],
            Scale::Giant => [1, 1, 1, 1, 2, 16, 64, 512],
        };
        self.repeated(times)
    }

    /// Returns a chunk like [`chunk`](Self::chunk), but of up to 15 KiB at every scale.
    pub fn long_chunk(&mut self) -> Option<Vec<u8>> {
        self.repeated([1, 1, 1, 1, 2, 16, 64, 512])
    }

    fn repeated(&mut self, times: [usize; 8]) -> Option<Vec<u8>> {
        let header = self.byte()?;
        Some(self.bytes(usize::from(header & 31))?.repeat(times[usize::from(header >> 5)]))
    }

    /// Returns a number of bytes: small, close to the sizes of reads, or close to `usize::MAX`.
    pub fn size(&mut self) -> Option<usize> {
        Some(match self.byte()? {
            byte @ 0..100 => byte.into(),
            byte @ 100..200 => usize::from(byte - 100) * 700,
            byte => usize::MAX - usize::from(255 - byte),
        })
    }

    pub fn model(&mut self) -> Option<Model> {
        Some(Model { kind: self.kind()?, max_length: self.size()?, deliver: self.byte()? & 1 == 1 })
    }

    fn kind(&mut self) -> Option<Kind> {
        Some(match self.byte()? % 8 {
            0 => Kind::Newline,
            1 => Kind::Lf,
            2 => Kind::CrLf,
            3 => Kind::Byte(self.byte()?),
            4 => Kind::AnyOf(b"\r\n".to_vec()),
            5 => {
                let count = 1 + usize::from(self.byte()?) % 6;
                Kind::AnyOf(self.bytes(count)?.to_vec())
            }
            // With only two letters, the sequence often overlaps itself.
            6 => {
                let (count, letters) = (1 + self.byte()? % 8, self.byte()?);
                Kind::Sequence((0..count).map(|at| b'a' + (letters >> at & 1)).collect())
            }
            _ => {
                let count = 1 + usize::from(self.byte()?) % 64;
                Kind::Sequence(self.bytes(count)?.to_vec())
            }
        })
    }
}
