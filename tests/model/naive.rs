//! The framing contract once more, as naively as it can be said: over all bytes of a stream at once, looking at each line
//! anew. It shares no code with the codec, and the exhaustive tests, the property tests and the fuzz targets all hold the
//! codec against it.

/// The content of a good line or block, or what is wrong with a bad one.
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
    /// At the end of the stream, hand over a line without terminator.
    pub deliver: bool,
}

/// What the reader asks for behind an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Lines,
    Expect(usize),
    Skip(usize),
}

impl Model {
    // region: items
    /// Length of the first line's content and of the terminator behind it.
    pub fn first_line(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let of = |wanted: &[u8]| {
            // Byte by byte: libFuzzer intercepts `memcmp`, which made up 40 % of a fuzz target.
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

    /// The item at the front of all the bytes that are left of a stream, and how many of them are its own.
    pub fn first_item(&self, bytes: &[u8]) -> Option<(Item, usize)> {
        match self.first_line(bytes) {
            Some((content, terminator)) => Some((self.judge(&bytes[..content], true), content + terminator)),
            None if bytes.is_empty() => None,
            None => Some((self.judge(bytes, false), bytes.len())),
        }
    }
    // endregion

    /// All items of a stream.
    pub fn items(&self, bytes: &[u8]) -> Vec<Item> {
        self.items_asked(bytes, |_| Ask::Lines)
    }

    /// All items of a stream whose reader asks for counted bytes, or for some to be skipped, behind its n-th item.
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

    /// How many items the first bytes of a stream make before more of them come: the terminated lines, and one that is
    /// over the limit whatever comes.
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
