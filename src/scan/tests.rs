//! Tests how often each byte is searched, and what verdicts report. The tests in `tests/` check
//! which lines are returned.

extern crate std;

use alloc::vec::Vec;
use alloc::{format, vec};
use core::ops::Range;

use super::{Delimiter, InvalidDelimiter, Kind, Scanner, Terminator, Unterminated, Verdict};

/// A method that advances a scanner by one verdict.
type Scan = fn(&mut Scanner, &[u8]) -> Option<Verdict>;

/// Feeds `stream` to the scanner in pieces of `size` bytes. Returns how often each byte was
/// searched, and the verdicts.
fn searches_of_each(
    stream: &[u8],
    size: usize,
    mut scanner: Scanner,
    scan: Scan,
) -> (Vec<usize>, Vec<Verdict>) {
    let mut counts = vec![0; stream.len()];
    let mut verdicts = Vec::new();
    for end in (0..=stream.len()).step_by(size) {
        loop {
            let start = scanner.offset() as usize;
            let verdict = scan(&mut scanner, &stream[start..end]);
            for searched in scanner.searches.drain(..) {
                counts[start + searched.start..start + searched.end].iter_mut().for_each(|count| *count += 1);
            }
            match verdict {
                Some(verdict) => verdicts.push(verdict),
                None => break,
            }
        }
    }
    (counts, verdicts)
}

/// Takes at most `most` lines in one pass. Returns their contents and the number of bytes they
/// take.
fn pass(scanner: &mut Scanner, bytes: &[u8], most: usize) -> (Vec<Range<usize>>, usize) {
    let Some(mut lines) = scanner.lines(bytes, 0) else { return (Vec::new(), 0) };
    let mut contents = Vec::new();
    while contents.len() < most {
        match lines.next() {
            Some(content) => contents.push(content),
            None => break,
        }
    }
    scanner.end_lines(&lines);
    (contents, lines.taken())
}

fn delimiters() -> Vec<Delimiter> {
    vec![
        Delimiter::Newline,
        Delimiter::Lf,
        Delimiter::CrLf,
        Delimiter::Byte(b'a'),
        Delimiter::any_of(b"\r\n").unwrap(),
        Delimiter::any_of(b"abc\n").unwrap(),
        Delimiter::sequence(b"\n").unwrap(),
        Delimiter::sequence(b"aab").unwrap(),
        Delimiter::sequence(&[b'a'; 64]).unwrap(),
    ]
}

/// Returns a stream without a terminator, streams full of bytes that may begin a terminator, and
/// streams of short lines.
fn streams() -> Vec<Vec<u8>> {
    [&b"x"[..], b"\rx", b"\r", b"aax", b"aab", b"ab\r\r\n", b"\n", b"line\r\n"]
        .into_iter()
        .map(|repeated| repeated.iter().copied().cycle().take(64 * 63).collect())
        .collect()
}

#[test]
fn bytes_are_searched_at_most_terminator_length_times() {
    let whole: Scan = Scanner::scan;
    let pieces: Scan = |scanner, bytes| scanner.scan_piece(bytes, 100);
    // Finds all terminated lines in one pass, then scans the remaining bytes.
    let lines: Scan = |scanner, bytes| {
        let offset = scanner.offset();
        match pass(scanner, bytes, usize::MAX) {
            (_, 0) => scanner.scan(bytes),
            (_, consumed) => {
                Some(Verdict { kind: Kind::Line, content: 0..0, terminator: None, consumed, offset })
            }
        }
    };
    let line: Scan = |scanner, bytes| {
        let offset = scanner.offset();
        match scanner.scan_line(bytes) {
            None => scanner.scan(bytes),
            Some((content, consumed)) => {
                Some(Verdict { kind: Kind::Line, content: 0..content, terminator: None, consumed, offset })
            }
        }
    };
    for delimiter in delimiters() {
        for stream in streams() {
            // Limits that are never, sometimes and always exceeded.
            for (limit, scan) in [
                (usize::MAX, whole),
                (10, whole),
                (0, whole),
                (0, pieces),
                (usize::MAX, lines),
                (10, lines),
                (0, lines),
                (usize::MAX, line),
                (10, line),
                (0, line),
            ] {
                for size in [1, 3, 64] {
                    let scanner = Scanner::new(delimiter.clone(), limit, Unterminated::Report);
                    let (counts, _) = searches_of_each(&stream, size, scanner, scan);
                    let most = counts.iter().max().unwrap();
                    let case = format!("{delimiter:?}, limit {limit}, pieces of {size}, {:?}", &stream[..6]);
                    assert!(*most <= delimiter.max_terminator_length(), "searched {most} times: {case}");
                    assert!(
                        counts.iter().all(|count| *count > 0) || size == 3,
                        "a byte was never searched: {case}"
                    );
                }
            }
        }
    }
}

#[test]
fn verdicts_name_the_terminator() {
    for (delimiter, stream, expected) in [
        (Delimiter::Newline, &b"a\n"[..], Terminator::Lf),
        (Delimiter::Newline, b"a\r\n", Terminator::CrLf),
        (Delimiter::Lf, b"a\r\n", Terminator::Lf),
        (Delimiter::CrLf, b"a\r\n", Terminator::CrLf),
        (Delimiter::Byte(b'\n'), b"a\n", Terminator::Byte(b'\n')),
        (Delimiter::any_of(b";\n").unwrap(), b"a\n", Terminator::Byte(b'\n')),
        (Delimiter::sequence(b"end").unwrap(), b"aend", Terminator::Sequence { length: 3 }),
    ] {
        let verdict = Scanner::new(delimiter.clone(), 9, Unterminated::Report).scan(stream).unwrap();
        assert_eq!((verdict.terminator, verdict.consumed), (Some(expected), stream.len()), "{delimiter:?}");
    }
}

#[test]
fn good_lines_take_one_search() {
    let scanner = || Scanner::new(Delimiter::Newline, 3, Unterminated::Report);
    let searches = |scanner: &mut Scanner| core::mem::take(&mut scanner.searches);
    let mut good = scanner();
    assert_eq!(good.scan_line(b"abc\r\ndef"), Some((3, 5)));
    assert_eq!((searches(&mut good), good.offset()), (ranges(&[(0, 5)]), 5));
    // Other lines are left to `scan`, which does not search the same bytes again.
    for (rest, end) in [(&b"def"[..], 3), (b"defg", 4), (b"de\r", 3), (b"long line", 5)] {
        let mut scanner = scanner();
        assert_eq!((scanner.scan_line(rest), scanner.offset()), (None, 0));
        assert_eq!(searches(&mut scanner), ranges(&[(0, end)]));
        let verdict = scanner.scan(rest);
        let again = if rest.len() > end { ranges(&[(end, rest.len())]) } else { Vec::new() };
        assert_eq!(searches(&mut scanner), again);
        assert_eq!(verdict.map(|verdict| verdict.kind), (rest.len() > 4).then_some(Kind::TooLong));
        // `scan_line` refuses a line whose search has begun.
        assert_eq!(scanner.scan_line(b"x\n"), None);
        assert_eq!(searches(&mut scanner), []);
    }
}

fn ranges(bounds: &[(usize, usize)]) -> Vec<Range<usize>> {
    bounds.iter().map(|(start, end)| *start..*end).collect()
}

#[test]
fn delimiters_with_equal_bytes_are_equal() {
    let delimiters: Vec<_> = delimiters().into_iter().zip(delimiters()).collect();
    for (i, (a, _)) in delimiters.iter().enumerate() {
        for (j, (_, b)) in delimiters.iter().enumerate() {
            assert_eq!(a == b, i == j, "{a:?} {b:?}");
        }
    }
}

#[test]
fn lines_searches_each_byte_once() {
    let mut scanner = Scanner::new(Delimiter::Newline, 3, Unterminated::Report);
    let searches = |scanner: &mut Scanner| core::mem::take(&mut scanner.searches);
    let (contents, taken) = pass(&mut scanner, b"ab\r\n\nlonger\nef", usize::MAX);
    assert_eq!((taken, scanner.offset()), (12, 12));
    assert_eq!(contents, ranges(&[(0, 2), (4, 4), (5, 11)]));
    assert_eq!(searches(&mut scanner), ranges(&[(0, 14)]));
    // The bytes after the last terminator are not searched again. `lines` refuses a line whose
    // search has begun.
    assert!(scanner.scan(b"ef").is_none());
    assert!(scanner.lines(b"ef\n", 0).is_none());
    assert_eq!(searches(&mut scanner), []);
    assert!(scanner.scan(b"ef\n").is_some());
    assert_eq!(searches(&mut scanner), ranges(&[(2, 3)]));
    // A pass that stops early has not searched the bytes after its last line.
    assert_eq!(pass(&mut scanner, b"a\nb\nc", 2).1, 4);
    assert_eq!((searches(&mut scanner), scanner.offset()), (ranges(&[(0, 4)]), 19));
}

#[test]
fn skipped_bytes_are_not_retained() {
    let scanner = Scanner::new(Delimiter::Newline, 2, Unterminated::Report);
    let (_, verdicts) = searches_of_each(b"abcdefgh\r\nz\n", 1, scanner, Scanner::scan);
    let kinds: Vec<_> =
        verdicts.iter().map(|verdict| (verdict.kind, verdict.offset, verdict.consumed)).collect();
    assert_eq!(kinds[0], (Kind::TooLong, 0, 4));
    // Each verdict consumes one byte, except that the CR waits for its LF.
    assert!(
        kinds[1..5].iter().all(|(kind, _, consumed)| *kind == Kind::Piece && *consumed == 1),
        "{kinds:?}"
    );
    assert_eq!(kinds[5..], [(Kind::Piece, 8, 2), (Kind::Line, 10, 2)]);
}

#[test]
fn arbitrary_slices_never_panic() {
    // Reach every state with a short stream, then scan every other short slice.
    for delimiter in delimiters() {
        for limit in [0, 1, 3, usize::MAX] {
            for first in [&b""[..], b"a", b"aa", b"ab\r", b"xxxxxxxx", b"\r\r\r\r\r\r", b"a\nb\r"] {
                for second in [&b""[..], b"\n", b"\r", b"\r\n", b"aab", b"x\n", b"xxxx"] {
                    for scan in [
                        Scanner::scan as Scan,
                        Scanner::scan_eof,
                        |s, b| s.scan_piece(b, 2),
                        |s, b| s.scan_piece_eof(b, 0),
                    ] {
                        let mut scanner = Scanner::new(delimiter.clone(), limit, Unterminated::Deliver);
                        _ = scanner.scan(first);
                        let mut left = second;
                        while let Some(verdict) = scan(&mut scanner, left) {
                            assert!((1..=left.len()).contains(&verdict.consumed), "{verdict:?}");
                            assert!(verdict.content.end <= verdict.consumed, "{verdict:?}");
                            left = &left[verdict.consumed..];
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn empty_and_overlong_delimiters_are_refused() {
    assert_eq!(Delimiter::any_of(b""), Err(InvalidDelimiter::Empty));
    assert_eq!(Delimiter::sequence(b""), Err(InvalidDelimiter::Empty));
    assert!(Delimiter::sequence(&[b'a'; 64]).is_ok());
    assert_eq!(Delimiter::sequence(&[b'a'; 65]), Err(InvalidDelimiter::TooLong { length: 65 }));
}
