//! How often each byte is searched. Which lines come out is for `tests/`, through the public API.

extern crate std;

use alloc::vec::Vec;
use alloc::{format, vec};

use super::delimiter::looks;
use super::{Delimiter, InvalidDelimiter, Kind, Scanner, Terminator, Unterminated, Verdict};

/// What a scanner is asked for at each step.
type Ask = fn(&mut Scanner, &[u8]) -> Option<Verdict>;

/// Shows `stream` in pieces of `size` bytes and counts how often each of its bytes was searched.
fn looks_at_each(stream: &[u8], size: usize, mut scanner: Scanner, ask: Ask) -> (Vec<usize>, Vec<Verdict>) {
    let mut looks = vec![0; stream.len()];
    let mut verdicts = Vec::new();
    looks::take();
    for end in (0..=stream.len()).step_by(size) {
        loop {
            let start = scanner.offset() as usize;
            let verdict = ask(&mut scanner, &stream[start..end]);
            for searched in looks::take() {
                looks[start + searched.start..start + searched.end].iter_mut().for_each(|looks| *looks += 1);
            }
            match verdict {
                Some(verdict) => verdicts.push(verdict),
                None => break,
            }
        }
    }
    (looks, verdicts)
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

/// One line without a terminator, lines full of what may begin one, and many short lines.
fn streams() -> Vec<Vec<u8>> {
    [&b"x"[..], b"\rx", b"\r", b"aax", b"aab", b"ab\r\r\n", b"\n", b"line\r\n"]
        .into_iter()
        .map(|repeated| repeated.iter().copied().cycle().take(64 * 63).collect())
        .collect()
}

#[test]
fn no_byte_is_searched_more_often_than_the_terminator_is_long() {
    let whole: Ask = Scanner::scan;
    let pieces: Ask = |scanner, bytes| scanner.scan_piece(bytes, 100);
    // All that have a terminator in one go, and what they leave.
    let lines: Ask = |scanner, bytes| {
        let offset = scanner.offset();
        match scanner.scan_lines(bytes, |_, _, _| true) {
            0 => scanner.scan(bytes),
            consumed => Some(Verdict { kind: Kind::Line, content: 0..0, terminator: None, consumed, offset }),
        }
    };
    // A good one by itself.
    let line: Ask = |scanner, bytes| {
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
            // Limits: never over it, soon skipping, always skipping.
            for (limit, ask) in [
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
                    let (looks, _) = looks_at_each(&stream, size, scanner, ask);
                    let most = looks.iter().max().unwrap();
                    let case = format!("{delimiter:?}, limit {limit}, pieces of {size}, {:?}", &stream[..6]);
                    assert!(*most <= delimiter.max_terminator_length(), "{most} looks, {case}");
                    assert!(
                        looks.iter().all(|looks| *looks > 0) || size == 3,
                        "a byte never searched, {case}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_ended_a_line_is_told() {
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
fn a_good_line_is_told_in_one_search() {
    let scanner = || Scanner::new(Delimiter::Newline, 3, Unterminated::Report);
    let looked = || looks::take().into_iter().map(|looked| (looked.start, looked.end)).collect::<Vec<_>>();
    looked();
    let mut good = scanner();
    assert_eq!(good.scan_line(b"abc\r\ndef"), Some((3, 5)));
    assert_eq!((looked(), good.offset()), (vec![(0, 5)], 5));
    // Not good, or not whole: left to the other, at the line's start, with what the search has found out.
    for (rest, end) in [(&b"def"[..], 3), (b"defg", 4), (b"de\r", 3), (b"long line", 5)] {
        let mut scanner = scanner();
        assert_eq!((scanner.scan_line(rest), scanner.offset()), (None, 0));
        assert_eq!(looked(), [(0, end)]);
        let verdict = scanner.scan(rest);
        assert_eq!(looked(), if rest.len() > end { vec![(end, rest.len())] } else { vec![] });
        assert_eq!(verdict.map(|verdict| verdict.kind), (rest.len() > 4).then_some(Kind::TooLong));
        // Under way.
        assert_eq!(scanner.scan_line(b"x\n"), None);
        assert_eq!(looked(), []);
    }
}

#[test]
fn delimiters_are_equal_where_their_bytes_are() {
    let delimiters: Vec<_> = delimiters().into_iter().zip(delimiters()).collect();
    for (i, (a, _)) in delimiters.iter().enumerate() {
        for (j, (_, b)) in delimiters.iter().enumerate() {
            assert_eq!(a == b, i == j, "{a:?} {b:?}");
        }
    }
}

#[test]
fn whole_lines_are_told_in_one_search() {
    let mut scanner = Scanner::new(Delimiter::Newline, 3, Unterminated::Report);
    let mut told = Vec::new();
    looks::take();
    let taken = scanner.scan_lines(b"ab\r\n\nlonger\nef", |start, end, next| {
        told.push((start, end, next));
        true
    });
    assert_eq!((taken, scanner.offset()), (12, 12));
    assert_eq!(told, [(0, 2, 4), (4, 4, 5), (5, 11, 12)]);
    assert_eq!(looks::take(), core::slice::from_ref(&(0..14)));
    // What it left is known: not searched again, and under way.
    assert!(scanner.scan(b"ef").is_none());
    assert_eq!(scanner.scan_lines(b"ef\n", |_, _, _| unreachable!()), 0);
    assert_eq!(looks::take(), []);
    assert!(scanner.scan(b"ef\n").is_some());
    assert_eq!(looks::take(), core::slice::from_ref(&(2..3)));
    // To the first one that is enough.
    assert_eq!(scanner.scan_lines(b"a\nb\nc", |_, _, next| next < 4), 4);
    assert_eq!((looks::take(), scanner.offset()), (core::slice::from_ref(&(0..4)).to_vec(), 19));
}

#[test]
fn the_rest_of_a_line_over_the_limit_is_given_up_as_it_comes() {
    let scanner = Scanner::new(Delimiter::Newline, 2, Unterminated::Report);
    let (_, verdicts) = looks_at_each(b"abcdefgh\r\nz\n", 1, scanner, Scanner::scan);
    let kinds: Vec<_> =
        verdicts.iter().map(|verdict| (verdict.kind, verdict.offset, verdict.consumed)).collect();
    assert_eq!(kinds[0], (Kind::TooLong, 0, 4));
    // One byte each, but for the CR, which waits for its LF.
    assert!(
        kinds[1..5].iter().all(|(kind, _, consumed)| *kind == Kind::Piece && *consumed == 1),
        "{kinds:?}"
    );
    assert_eq!(kinds[5..], [(Kind::Piece, 8, 2), (Kind::Line, 10, 2)]);
}

#[test]
fn no_number_of_bytes_searched_makes_another_slice_panic() {
    // All states that a short stream leads to, shown every other short slice.
    for delimiter in delimiters() {
        for limit in [0, 1, 3, usize::MAX] {
            for first in [&b""[..], b"a", b"aa", b"ab\r", b"xxxxxxxx", b"\r\r\r\r\r\r", b"a\nb\r"] {
                for second in [&b""[..], b"\n", b"\r", b"\r\n", b"aab", b"x\n", b"xxxx"] {
                    for ask in [
                        Scanner::scan as Ask,
                        Scanner::scan_eof,
                        |s, b| s.scan_piece(b, 2),
                        |s, b| s.scan_piece_eof(b, 0),
                    ] {
                        let mut scanner = Scanner::new(delimiter.clone(), limit, Unterminated::Deliver);
                        _ = scanner.scan(first);
                        let mut left = second;
                        while let Some(verdict) = ask(&mut scanner, left) {
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
fn a_delimiter_of_no_bytes_or_a_sequence_of_more_than_64_is_refused() {
    assert_eq!(Delimiter::any_of(b""), Err(InvalidDelimiter::Empty));
    assert_eq!(Delimiter::sequence(b""), Err(InvalidDelimiter::Empty));
    assert!(Delimiter::sequence(&[b'a'; 64]).is_ok());
    assert_eq!(Delimiter::sequence(&[b'a'; 65]), Err(InvalidDelimiter::TooLong { length: 65 }));
}
