use memchr::memchr2;

/// Checks the first bytes of a connection, so that the headers of an HTTP peer or the handshake of
/// a TLS peer are never read as lines.
///
/// ```text
/// Watching  -- a line that is no request line | the first item with content --> Off
/// Watching  -- a request line | a TLS record ----------------------------------> Refused
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sniff {
    /// The check is disabled, or the peer has passed it.
    Off,
    /// No line with content was returned yet. The first `blank` buffered bytes are CR and LF. The
    /// bytes from `blank` to `searched` contain no line end. Always `blank <= searched`.
    Watching {
        blank: u32,
        searched: u32,
    },
    Refused,
}

const HTTP: &str = "error: HTTP is not supported";
const TLS: &str = "error: TLS is not supported";

impl Sniff {
    pub(super) const START: Self = Self::Watching { blank: 0, searched: 0 };

    /// Checks all bytes received so far. Returns the error line for the peer when the peer is
    /// refused, once.
    ///
    /// `is_too_long` takes the number of blank bytes. It returns whether the codec will report the
    /// first line after them as too long before that line ends.
    ///
    /// CR and LF both end the request line, for every delimiter of the codec. HTTP servers ignore
    /// empty lines before the request line (RFC 9112, section 2.2).
    pub(super) fn judge(
        &mut self,
        bytes: &[u8],
        is_too_long: impl FnOnce(usize) -> bool,
    ) -> Option<&'static str> {
        let Self::Watching { blank, searched } = self else { return None };
        let is_blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        if blank == searched {
            let more = bytes[*blank as usize..].iter().take_while(is_blank).count();
            *blank = blank.saturating_add(more.try_into().unwrap_or(u32::MAX));
            *searched = *blank;
        }
        let (bytes, start) = (&bytes[*blank as usize..], (*searched - *blank) as usize);
        let refusal = match bytes {
            [] | [0x16] => return None,
            // A TLS handshake record, version 3.x (RFC 8446, section 5.1).
            [0x16, 0x03, ..] => Some(TLS),
            _ => match memchr2(b'\r', b'\n', &bytes[start..]) {
                Some(end) => is_request_line(&bytes[..start + end]).then_some(HTTP),
                // The target of a request may have any length, so the start of a request line is
                // refused.
                None if is_too_long(*blank as usize) => begins_request_line(bytes).then_some(HTTP),
                None => {
                    // Saturates at 4 GiB: later bytes are searched again.
                    *searched = blank.saturating_add(bytes.len().try_into().unwrap_or(u32::MAX));
                    return None;
                }
            },
        };
        *self = if refusal.is_some() { Self::Refused } else { Self::Off };
        refusal
    }

    /// Records that an item was returned and that `left` bytes are still buffered.
    #[inline]
    pub(super) fn pass(&mut self, left: usize) {
        if let Self::Watching { blank, searched } = self {
            match (*searched as usize).checked_sub(left).map(|taken| taken as u32) {
                Some(taken) if (1..=*blank).contains(&taken) => {
                    (*blank, *searched) = (*blank - taken, *searched - taken)
                }
                _ => *self = Self::Off,
            }
        }
    }

    /// Starts over, because the codec skips bytes that were searched.
    pub(super) fn restart(&mut self) {
        if let Self::Watching { .. } = self {
            *self = Self::START;
        }
    }
}

/// Returns whether the line is `method SP request-target SP HTTP-version` (RFC 9112, section 3).
fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    begins_request_line(line)
        && words
            .nth(2)
            .and_then(|version| version.strip_prefix(b"HTTP/"))
            .is_some_and(|version| version.first().is_some_and(u8::is_ascii_digit))
}

/// Returns whether a request line may start with `bytes`. They must include the start of the
/// target.
fn begins_request_line(bytes: &[u8]) -> bool {
    let mut words = bytes.split(|byte| *byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return false };
    let (version, more) = (words.next().unwrap_or_default(), words.next());
    let known = version.len().min(b"HTTP/".len());
    !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && !target.is_empty()
        && version[..known] == b"HTTP/"[..known]
        && more.is_none()
}

#[cfg(test)]
mod tests {
    use super::Sniff;

    #[test]
    fn http_and_tls_are_refused() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Sniff::Refused),
            (b"POST /a?b HTTP/1.0\nHost: x", Sniff::Refused),
            (b"PRI * HTTP/2.0\r\n", Sniff::Refused),
            (b"\x16\x03\x01\x02\x00", Sniff::Refused),
            (b"GET / HTTP/1.1\rx", Sniff::Refused),
            (b"\r\nGET / HTTP/1.1\r\n", Sniff::Refused),
            (b"\n\r\n\rGET / HTTP/1.1\n", Sniff::Refused),
            (b"GET / HTTP/1.1", Sniff::Watching { blank: 0, searched: 14 }),
            (b"\r\nGET / HTTP/1.1", Sniff::Watching { blank: 2, searched: 16 }),
            (b"\r\n\r", Sniff::Watching { blank: 3, searched: 3 }),
            (&[b'x'; 1 << 17], Sniff::Watching { blank: 0, searched: 1 << 17 }),
            (b"\x16", Sniff::START),
            (b"", Sniff::START),
            (b"\x16\x04\n", Sniff::Off),
            (b"\n\nhello\n", Sniff::Off),
            (b"get / HTTP/1.1\n", Sniff::Off),
            (b"GET key\n", Sniff::Off),
            (b"SET a HTTP\n", Sniff::Off),
            (b"A  HTTP/1\n", Sniff::Off),
            (b"A B C HTTP/1.1\n", Sniff::Off),
            (b"GET / HTTP\n", Sniff::Off),
        ] {
            let mut sniff = Sniff::START;
            let said = sniff.judge(bytes, |_| false);
            assert_eq!(
                (sniff, said.is_some()),
                (expected, expected == Sniff::Refused),
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }
    #[test]
    fn start_of_http_request_is_refused() {
        for (bytes, expected) in [
            (&b"GET /"[..], true),
            (b"GET /path H", true),
            (b"GET /path HTTP/1", true),
            (b"GET", false),
            (b"GET ", false),
            (b"Get /", false),
            (b"SET key value", false),
            (b"A B HTTP/1.1 C", false),
        ] {
            let mut sniff = Sniff::START;
            assert_eq!(sniff.judge(bytes, |_| true).is_some(), expected, "{:?}", bytes.escape_ascii());
        }
    }
}
