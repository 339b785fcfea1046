use super::model::{Kind, Model};

/// The bytes of an input that were not read yet. `None`: there are too few.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A number of bytes: small, around the sizes of reads, or close to the largest there is.
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
            // Two letters: such a sequence overlaps itself.
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

/// Bytes to be fed: up to 31, many times over or once.
pub fn chunk(input: &mut Input) -> Option<Vec<u8>> {
    let header = input.byte()?;
    let times = [1, 1, 1, 1, 2, 16, 64, 512][usize::from(header >> 5)];
    Some(input.bytes(usize::from(header & 31))?.repeat(times))
}
