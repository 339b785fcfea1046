//! Runs the cases of `conformance.json` through the codec and the scanner. Readers in other
//! languages can run the same file.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use bytes::{Bytes, BytesMut};
use lineframe::scan::{self, Scanner};
use lineframe::{Delimiter, EncodeError, LineCodec, LineError, Unterminated};
use serde::Deserialize;
use tokio_util::codec::{Decoder, Encoder};

/// Known failures of line readers that are visible in the items. Each has at least one case.
const HAZARDS: [&str; 18] = [
    "A1", "A2", "A4", "A6", "A7", "A8", "A9", "A10", "A11", "A12", "A13", "B1", "B2", "B3", "B4", "B7",
    "B20", "B24",
];

/// Inputs up to this length are cut in every possible way.
const SHORT: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: serde_json::Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    #[serde(default)]
    hazards: Vec<String>,
    #[serde(default)]
    config: Config,
    input: Option<Data>,
    #[serde(default)]
    cuts: Cuts,
    #[serde(default)]
    ask: Vec<Ask>,
    #[serde(default)]
    expected: Vec<Item>,
    by: Option<Vec<Option<usize>>>,
    encode: Option<Vec<Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    delimiter: Ends,
    max_length: usize,
    without_max_length: bool,
    max_encoded_length: Option<usize>,
    max_block_length: Option<usize>,
    unterminated: AtEof,
    write_crlf: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ends {
    Newline,
    Lf,
    #[serde(rename = "crlf")]
    CrLf,
    Byte(Data),
    AnyOf(Data),
    Sequence(Data),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AtEof {
    Report,
    Deliver,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Cuts {
    Named(AllCuts),
    Listed(Vec<Cut>),
}

#[derive(Deserialize)]
enum AllCuts {
    #[serde(rename = "all")]
    All,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Cut {
    At(Vec<usize>),
    Every { every: usize },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    after: usize,
    expect_bytes: Option<usize>,
    skip_bytes: Option<u64>,
    #[serde(default)]
    refused: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged, deny_unknown_fields)]
enum Item {
    Line { line: Data },
    TooLong { too_long: Data },
    Unterminated { unterminated: Data },
    BareTerminator { bare_terminator: Data },
    Block { block: Data },
    Incomplete { incomplete: Data, expected: usize },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    line: Data,
    expected_bytes: Option<Data>,
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Refused {
    ContainsTerminator(usize),
    TooLong { length: usize, max_length: usize },
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(try_from = "Notation")]
struct Data(Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Notation {
    Whole(String),
    Pieces(Vec<Piece>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Once(String),
    Repeated { repeat: String, times: usize },
}

impl TryFrom<Notation> for Data {
    type Error = String;

    fn try_from(notation: Notation) -> Result<Self, String> {
        let pieces = match notation {
            Notation::Whole(hex) => vec![Piece::Once(hex)],
            Notation::Pieces(pieces) => pieces,
        };
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Once(hex) => bytes.extend(unhex(&hex)?),
                Piece::Repeated { repeat, times } => bytes.extend(unhex(&repeat)?.repeat(times)),
            }
        }
        Ok(Self(bytes))
    }
}

fn unhex(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        _ => Err(format!("not hexadecimal: {hex}")),
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "`{}`", bytes[..bytes.len().min(80)].escape_ascii())?;
        if bytes.len() > 80 { write!(f, ".. of {} bytes", bytes.len()) } else { Ok(()) }
    }
}

impl From<&[u8]> for Data {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            delimiter: Ends::Newline,
            max_length: 65_536,
            without_max_length: false,
            max_encoded_length: None,
            max_block_length: None,
            unterminated: AtEof::Report,
            write_crlf: false,
        }
    }
}

impl Default for Cuts {
    fn default() -> Self {
        Self::Named(AllCuts::All)
    }
}

impl Config {
    fn delimiter(&self) -> Delimiter {
        match &self.delimiter {
            Ends::Newline => Delimiter::Newline,
            Ends::Lf => Delimiter::Lf,
            Ends::CrLf => Delimiter::CrLf,
            Ends::Byte(Data(bytes)) => match bytes[..] {
                [byte] => Delimiter::Byte(byte),
                _ => panic!("not one byte: {bytes:?}"),
            },
            Ends::AnyOf(Data(set)) => Delimiter::any_of(set).unwrap(),
            Ends::Sequence(Data(sequence)) => Delimiter::sequence(sequence).unwrap(),
        }
    }

    fn unterminated(&self) -> Unterminated {
        match self.unterminated {
            AtEof::Report => Unterminated::Report,
            AtEof::Deliver => Unterminated::Deliver,
        }
    }

    fn max_length(&self) -> usize {
        if self.without_max_length { usize::MAX } else { self.max_length }
    }

    /// Sets only what the case configures, so the test also checks that the codec's defaults are
    /// those of the file.
    fn codec(&self) -> LineCodec {
        let mut builder = LineCodec::builder().delimiter(self.delimiter()).write_crlf(self.write_crlf);
        if self.without_max_length {
            builder = builder.max_length(None);
        } else if self.max_length != Self::default().max_length {
            builder = builder.max_length(self.max_length);
        }
        if let Some(length) = self.max_encoded_length {
            builder = builder.max_encoded_length(length);
        }
        if let Some(length) = self.max_block_length {
            builder = builder.max_block_length(length);
        }
        if let AtEof::Deliver = self.unterminated {
            builder = builder.unterminated(Unterminated::Deliver);
        }
        builder.build()
    }
}

impl Case {
    /// Returns all ways to cut the input. Each one lists the end offsets of its reads.
    fn cuts(&self) -> Vec<Vec<usize>> {
        let length = self.input().len();
        let ends = |cut: &Cut| -> Vec<usize> {
            let inner = match cut {
                Cut::At(offsets) => offsets.clone(),
                Cut::Every { every } => (*every..length).step_by(*every).collect(),
            };
            assert!(
                inner.is_sorted_by(|a, b| a < b) && inner.iter().all(|at| (1..length).contains(at)),
                "{}: no cut of {length} bytes: {inner:?}",
                self.name
            );
            inner.into_iter().chain([length]).collect()
        };
        match &self.cuts {
            Cuts::Listed(cuts) => cuts.iter().map(ends).collect(),
            Cuts::Named(AllCuts::All) if length <= SHORT => (0..1_usize << length.saturating_sub(1))
                // If bit n is set, the input is cut after byte n.
                .map(|bits| ends(&Cut::At((1..length).filter(|at| bits & 1 << (at - 1) != 0).collect())))
                .collect(),
            Cuts::Named(AllCuts::All) => [Cut::At(vec![]), Cut::Every { every: 1 }]
                .into_iter()
                .chain((1..length).map(|at| Cut::At(vec![at])))
                .map(|cut| ends(&cut))
                .collect(),
        }
    }

    fn input(&self) -> &[u8] {
        self.input.as_ref().map_or(&[], |Data(bytes)| bytes)
    }

    /// Compares `items` with the case. `prompt` holds, for each read in `ends`, the number of items
    /// available after it.
    fn differs(&self, ends: &[usize], items: &[Item], prompt: &[usize]) -> Result<(), String> {
        if items != self.expected {
            return Err(format!("expected {:?}\n       got {items:?}", self.expected));
        }
        let by = self.by.iter().flatten().enumerate().filter_map(|(item, by)| Some((item, (*by)?)));
        for (item, by) in by {
            if let Some((end, available)) =
                ends.iter().zip(prompt).find(|(end, available)| by <= **end && **available <= item)
            {
                return Err(format!(
                    "expected item {} by byte {by}\n       got {available} items after byte {end}",
                    item + 1
                ));
            }
        }
        Ok(())
    }
}

/// Reads one stream with the codec and records the items and how many were available after each
/// read.
struct Reading<'a> {
    case: &'a Case,
    codec: &'a mut LineCodec,
    items: Vec<Item>,
    is_block_next: bool,
}

impl Reading<'_> {
    fn run(mut self, ends: &[usize]) -> Result<(Vec<Item>, Vec<usize>), String> {
        let mut buffer = BytesMut::new();
        let mut prompt = Vec::new();
        let mut start = 0;
        self.ask()?;
        for &end in ends {
            buffer.extend_from_slice(&self.case.input()[start..end]);
            start = end;
            while let Some(item) = self.codec.decode(&mut buffer).map_err(never)? {
                self.take(item)?;
            }
            prompt.push(self.items.len());
        }
        while let Some(item) = self.codec.decode_eof(&mut buffer).map_err(never)? {
            self.take(item)?;
        }
        match self.codec.decode_eof(&mut buffer).map_err(never)? {
            None if buffer.is_empty() => Ok((self.items, prompt)),
            again => Err(format!("second call at EOF: {again:?}, {} bytes left", buffer.len())),
        }
    }

    fn take(&mut self, item: Result<Bytes, LineError>) -> Result<(), String> {
        let is_block = std::mem::take(&mut self.is_block_next);
        self.items.push(match item {
            Ok(bytes) if is_block => Item::Block { block: bytes[..].into() },
            Ok(bytes) => Item::Line { line: bytes[..].into() },
            Err(LineError::TooLong { prefix, max_length, .. })
                if max_length == self.case.config.max_length() =>
            {
                Item::TooLong { too_long: prefix[..].into() }
            }
            Err(LineError::Unterminated { line, .. }) => Item::Unterminated { unterminated: line[..].into() },
            Err(LineError::BareTerminator { line, .. }) => {
                Item::BareTerminator { bare_terminator: line[..].into() }
            }
            Err(LineError::Incomplete { bytes, expected, .. }) => {
                Item::Incomplete { incomplete: bytes[..].into(), expected }
            }
            Err(other) => return Err(format!("got {other:?}")),
        });
        self.ask()
    }

    /// Makes the requests that the case lists after the current number of items.
    fn ask(&mut self) -> Result<(), String> {
        for ask in self.case.ask.iter().filter(|ask| ask.after == self.items.len()) {
            if let Some(count) = ask.skip_bytes {
                self.codec.skip_bytes(count);
            }
            if let Some(count) = ask.expect_bytes {
                let answer = self.codec.expect_bytes(count);
                if answer.is_err() != ask.refused {
                    return Err(format!("expect_bytes({count}) returned {answer:?}"));
                }
                self.is_block_next |= answer.is_ok();
            }
        }
        Ok(())
    }
}

fn never(error: std::io::Error) -> String {
    format!("the decoder failed: {error}")
}

/// Reads one stream with the scanner, passing slices of the input.
fn scanned(case: &Case, scanner: &mut Scanner, ends: &[usize]) -> Result<(Vec<Item>, Vec<usize>), String> {
    let (mut items, mut prompt) = (Vec::new(), Vec::new());
    let (input, mut start) = (case.input(), 0);
    let length = input.len();
    for (end, eof) in ends.iter().map(|end| (*end, false)).chain([(length, true), (length, true)]) {
        let before = items.len();
        loop {
            let shown = &input[start..end];
            let offset = scanner.offset();
            let Some(verdict) = (if eof { scanner.scan_eof(shown) } else { scanner.scan(shown) }) else {
                break;
            };
            if (offset, verdict.offset) != (start as u64, start as u64) || verdict.content.start != 0 {
                return Err(format!("at {offset} instead of {start}: {verdict:?}"));
            }
            let content = Data::from(&shown[verdict.content]);
            items.extend(match verdict.kind {
                scan::Kind::Line => Some(Item::Line { line: content }),
                scan::Kind::TooLong => Some(Item::TooLong { too_long: content }),
                scan::Kind::BareTerminator => Some(Item::BareTerminator { bare_terminator: content }),
                scan::Kind::Unterminated => Some(Item::Unterminated { unterminated: content }),
                // The skipped rest of a line has no item.
                _ => None,
            });
            start += verdict.consumed;
        }
        if !eof {
            prompt.push(items.len());
        } else if prompt.len() == ends.len() {
            // This is the first call at EOF. A second call must return no item.
            prompt.push(items.len());
        } else if items.len() > before {
            return Err(format!("second call at EOF: {:?}", &items[before..]));
        }
    }
    Ok((items, prompt))
}

fn file() -> File {
    let file: File = serde_json::from_str(include_str!("conformance.json")).unwrap();
    for case in &file.cases {
        let reads = case.input.is_some();
        let asks = case.ask.iter().all(|ask| ask.expect_bytes.is_some() != ask.skip_bytes.is_some());
        let by = case.by.as_ref().is_none_or(|by| by.len() == case.expected.len());
        let never_written = case.expected.is_empty() && case.ask.is_empty() && case.by.is_none();
        assert!(reads != case.encode.is_some() && asks && by && (reads || never_written), "{}", case.name);
    }
    file
}

/// Checks every case and fails with a list of all failed cases, each with its first failing cut.
fn check_all(check: impl Fn(&Case) -> Result<(), String>) {
    let failed: Vec<String> = file()
        .cases
        .iter()
        .filter_map(|case| check(case).err().map(|why| format!("{} ({})\n  {why}", case.name, case.why)))
        .collect();
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}

/// Checks every cut of a case with the same codec or scanner, so that state left by one stream is
/// noticed in the next.
fn check_cuts(case: &Case, mut read: impl FnMut(&[usize]) -> Result<(), String>) -> Result<(), String> {
    case.cuts().iter().try_for_each(|ends| {
        read(ends).map_err(|why| format!("   reads end at {:?}\n  {why}", &ends[..ends.len().min(20)]))
    })
}

#[test]
fn codec_returns_expected_items_for_every_cut() {
    check_all(|case| {
        if case.input.is_none() {
            return Ok(());
        }
        let mut codec = case.config.codec();
        let terminator = codec.delimiter().written().to_vec();
        check_cuts(case, |ends| {
            let reading = Reading { case, codec: &mut codec, items: Vec::new(), is_block_next: false };
            let (items, prompt) = reading.run(ends)?;
            case.differs(ends, &items, &prompt)?;
            // The next stream starts with an empty line.
            match codec.decode(&mut BytesMut::from(&terminator[..])) {
                Ok(Some(Ok(line))) if line.is_empty() => Ok(()),
                other => Err(format!("the next stream began with {other:?}")),
            }
        })
    });
}

#[test]
fn scanner_returns_expected_items_for_every_cut() {
    check_all(|case| {
        if case.input.is_none() || !case.ask.is_empty() {
            return Ok(());
        }
        let mut scanner =
            Scanner::new(case.config.delimiter(), case.config.max_length(), case.config.unterminated());
        check_cuts(case, |ends| {
            let (items, prompt) = scanned(case, &mut scanner, ends)?;
            case.differs(ends, &items, &prompt)
        })
    });
}

#[test]
fn encoder_writes_expected_bytes_and_they_decode() {
    check_all(|case| {
        let Some(lines) = &case.encode else { return Ok(()) };
        let mut codec = case.config.codec();
        let mut out = BytesMut::new();
        let mut accepted = Vec::new();
        for Written { line, expected_bytes, refused } in lines {
            let before = out.len();
            let wrote = codec.encode(Bytes::from(line.0.clone()), &mut out);
            let got = match wrote.map_err(|error| error.downcast()) {
                Ok(()) => Ok(Data::from(&out[before..])),
                Err(Ok(EncodeError::ContainsTerminator { at, .. })) => Err(Refused::ContainsTerminator(at)),
                Err(Ok(EncodeError::TooLong { length, max_length, .. })) => {
                    Err(Refused::TooLong { length, max_length })
                }
                Err(other) => return Err(format!("{line:?}: got {other:?}")),
            };
            let expected = match (expected_bytes, refused) {
                (Some(bytes), None) => Ok(bytes.clone()),
                (None, Some(refused)) => Err(*refused),
                _ => return Err(format!("{line:?}: is it written or refused?")),
            };
            if got != expected {
                return Err(format!("{line:?}\n  expected {expected:?}\n       got {got:?}"));
            }
            if got.is_err() && out.len() != before {
                return Err(format!("{line:?} was refused and {} bytes written", out.len() - before));
            }
            accepted.extend(got.is_ok().then_some(line));
        }
        // The encoder may accept lines longer than the decoder's limit.
        codec.set_max_length(usize::MAX);
        for line in accepted {
            match codec.decode(&mut out) {
                Ok(Some(Ok(back))) if back == line.0 => {}
                back => return Err(format!("{line:?} was read back as {back:?}")),
            }
        }
        if out.is_empty() { Ok(()) } else { Err(format!("{} bytes too many were written", out.len())) }
    });
}

#[test]
fn every_case_is_described_and_every_hazard_covered() {
    let file = file();
    let mut names = HashSet::new();
    for case in &file.cases {
        let is_kebab = case.name.split('-').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        assert!(is_kebab && names.insert(&case.name), "a name twice, or not in kebab-case: {}", case.name);
        assert!(case.why.ends_with('.'), "{}: {}", case.name, case.why);
    }
    let covered: BTreeSet<&str> =
        file.cases.iter().flat_map(|case| &case.hazards).map(String::as_str).collect();
    let explained: BTreeSet<&str> =
        file.format["hazard_ids"].as_object().unwrap().keys().map(String::as_str).collect();
    let all = BTreeSet::from(HAZARDS);
    assert_eq!(covered, all, "hazards that have cases, and those that are to have them");
    assert_eq!(explained, all, "hazards that `format` explains");
}
