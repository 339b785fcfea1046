//! A naive implementation of the framing contract. It works on all bytes of a stream and examines
//! each line from its start. It shares no code with the codec. The exhaustive tests, the property
//! tests and the fuzz targets compare the codec with it.

/// The content of a good line or block, or the fault of a bad one.
pub type Item = Result<Vec<u8>, Bad>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    TooLong(Vec<u8>),
    Unterminated(Vec<u8>),
    BareTerminator(Vec<u8>),
    Incomplete(Vec<u8>, usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Newline,
    Lf,
    CrLf,
    Byte(u8),
    AnyOf(Vec<u8>),
    Sequence(Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Model {
    pub kind: Kind,
    pub max_length: usize,
    /// `true` if an unterminated last line is returned as a line.
    pub deliver: bool,
}

/// The request of a reader after an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Lines,
    Expect(usize),
    Skip(usize),
}

impl Model {
    // region: items
    /// Returns the length of the first line's content, and of its terminator.
    pub fn first_line(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let of = |wanted: &[u8]| {
            // Compares byte by byte, because libFuzzer intercepts `memcmp`, which took 40 % of the
            // time of a fuzz target.
            let is_here = |window: &[u8]| window.iter().eq(wanted);
            bytes.windows(wanted.len()).position(is_here).map(|at| (at, wanted.len()))
        };
        match &self.kind {
            Kind::Newline => of(b"\n").map(|(at, _)| match bytes[..at].last() {
                Some(b'\r') => (at - 1, 2),
                _ => (at, 1),
            }),
            Kind::Lf => of(b"\n"),
            Kind::CrLf => of(b"\r\n"),
            Kind::Byte(byte) => of(&[*byte]),
            Kind::AnyOf(set) => bytes.iter().position(|byte| set.contains(byte)).map(|at| (at, 1)),
            Kind::Sequence(sequence) => of(sequence),
        }
    }

    fn judge(&self, line: &[u8], terminated: bool) -> Item {
        if line.len() > self.max_length {
            Err(Bad::TooLong(line[..self.max_length].to_vec()))
        } else if !terminated && !self.deliver {
            Err(Bad::Unterminated(line.to_vec()))
        } else if self.kind == Kind::CrLf && line.iter().any(|byte| b"\r\n".contains(byte)) {
            Err(Bad::BareTerminator(line.to_vec()))
        } else {
            Ok(line.to_vec())
        }
    }

    /// Returns the first item of the rest of a stream, and the number of bytes it takes.
    pub fn first_item(&self, bytes: &[u8]) -> Option<(Item, usize)> {
        match self.first_line(bytes) {
            Some((content, terminator)) => Some((self.judge(&bytes[..content], true), content + terminator)),
            None if bytes.is_empty() => None,
            None => Some((self.judge(bytes, false), bytes.len())),
        }
    }
    // endregion

    /// Returns all items of a stream.
    pub fn items(&self, bytes: &[u8]) -> Vec<Item> {
        self.items_asked(bytes, |_| Ask::Lines)
    }

    /// Returns all items of a stream. `ask(n)` returns what the reader requests after its n-th
    /// item.
    pub fn items_asked(&self, mut bytes: &[u8], mut ask: impl FnMut(usize) -> Ask) -> Vec<Item> {
        let mut items = Vec::new();
        while let Some((item, taken)) = self.first_item(bytes) {
            items.push(item);
            bytes = &bytes[taken..];
            loop {
                match ask(items.len()) {
                    Ask::Lines => break,
                    Ask::Skip(count) => {
                        bytes = &bytes[count.min(bytes.len())..];
                        break;
                    }
                    Ask::Expect(count) if count <= bytes.len() => {
                        items.push(Ok(bytes[..count].to_vec()));
                        bytes = &bytes[count..];
                    }
                    Ask::Expect(count) => {
                        items.push(Err(Bad::Incomplete(bytes.to_vec(), count)));
                        bytes = &[];
                    }
                }
            }
        }
        items
    }

    /// Returns how many items the codec must return after these bytes, before more arrive: the
    /// terminated lines, plus one for a last line that is certainly over the limit.
    pub fn prompt(&self, mut bytes: &[u8]) -> usize {
        let mut items = 0;
        while let Some((content, terminator)) = self.first_line(bytes) {
            bytes = &bytes[content + terminator..];
            items += 1;
        }
        let longest_terminator = match &self.kind {
            Kind::Newline | Kind::CrLf => 2,
            Kind::Sequence(sequence) => sequence.len(),
            _ => 1,
        };
        items + usize::from(bytes.len() > self.max_length.saturating_add(longest_terminator - 1))
    }
}
