use memchr::memchr2;

/// Looks at the first bytes of a connection: a peer that speaks HTTP or TLS must not have its
/// headers or its handshake taken for lines.
///
/// ```text
/// Watching  -- a line end that ends no request line | the first item --> Off
/// Watching  -- a request line | a TLS record ---------------------------> Refused
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sniff {
    /// Not asked for, or the peer has passed.
    Off,
    /// Nothing was handed out yet, and the first `searched` bytes hold no line end.
    Watching {
        searched: u32,
    },
    Refused,
}

const HTTP: &str = "error: HTTP is not spoken here";
const TLS: &str = "error: TLS is not spoken here";

impl Sniff {
    pub(super) const START: Self = Self::Watching { searched: 0 };

    /// Judges all bytes received so far. `is_too_long`: the codec will report the first line as too
    /// long before its end arrives. Returns what the peer is told if it is refused, once.
    ///
    /// CR and LF both end the request line, whatever the codec's delimiter is.
    pub(super) fn judge(&mut self, bytes: &[u8], is_too_long: bool) -> Option<&'static str> {
        let Self::Watching { searched } = self else { return None };
        let start = *searched as usize;
        let refusal = match bytes {
            [] | [0x16] => return None,
            // A TLS record: handshake, version 3.x (RFC 8446, section 5.1).
            [0x16, 0x03, ..] => Some(TLS),
            _ => match memchr2(b'\r', b'\n', &bytes[start..]) {
                Some(end) => is_request_line(&bytes[..start + end]).then_some(HTTP),
                // A request's target has no limit: what may become a request is refused.
                None if is_too_long => begins_request_line(bytes).then_some(HTTP),
                None => {
                    // Longer input is searched again.
                    *searched = bytes.len().try_into().unwrap_or(u32::MAX);
                    return None;
                }
            },
        };
        *self = if refusal.is_some() { Self::Refused } else { Self::Off };
        refusal
    }

    /// The first item has been handed out.
    #[inline]
    pub(super) fn pass(&mut self) {
        if let Self::Watching { .. } = self {
            *self = Self::Off;
        }
    }

    /// Bytes that were searched are skipped.
    pub(super) fn restart(&mut self) {
        if let Self::Watching { searched } = self {
            *searched = 0;
        }
    }
}

/// `method SP request-target SP HTTP-version` (RFC 9112, section 3).
fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    begins_request_line(line)
        && words
            .nth(2)
            .and_then(|version| version.strip_prefix(b"HTTP/"))
            .is_some_and(|version| version.first().is_some_and(u8::is_ascii_digit))
}

/// Whether a request line may start with `bytes`, which must reach into its target.
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
            (b"GET / HTTP/1.1", Sniff::Watching { searched: 14 }),
            (&[b'x'; 1 << 17], Sniff::Watching { searched: 1 << 17 }),
            (b"\x16", Sniff::START),
            (b"", Sniff::START),
            (b"\x16\x04\n", Sniff::Off),
            (b"get / HTTP/1.1\n", Sniff::Off),
            (b"GET key\n", Sniff::Off),
            (b"SET a HTTP\n", Sniff::Off),
            (b"A  HTTP/1\n", Sniff::Off),
            (b"A B C HTTP/1.1\n", Sniff::Off),
            (b"GET / HTTP\n", Sniff::Off),
        ] {
            let mut sniff = Sniff::START;
            let said = sniff.judge(bytes, false);
            assert_eq!(
                (sniff, said.is_some()),
                (expected, expected == Sniff::Refused),
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }
    #[test]
    fn the_beginning_of_a_request_is_recognised() {
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
            assert_eq!(sniff.judge(bytes, true).is_some(), expected, "{:?}", bytes.escape_ascii());
        }
    }
}
