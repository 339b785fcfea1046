use memchr::memchr2;

/// Whether the first bytes of a connection are looked at, and what came of it: a peer that speaks HTTP or TLS is not to have
/// its headers or its handshake taken for lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Not asked for, or found in order.
    Off,
    /// Nothing was handed over yet, and there is no line end in the first `looked` bytes.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only a server asks for it"))]
    Watching {
        looked: u32,
    },
    Refused,
}

const HTTP: &str = "error: HTTP is not spoken here";
const TLS: &str = "error: TLS is not spoken here";

impl Guard {
    #[cfg(any(feature = "server", test))]
    pub(super) const WATCHING: Self = Self::Watching { looked: 0 };

    /// Looks at all that has come so far. Gives what to say to the peer, once.
    ///
    /// Any CR or LF ends the request line, whatever ends a line for the codec: it is judged before that gets it.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Option<&'static str> {
        let Self::Watching { looked } = self else { return None };
        let said = match bytes {
            [] | [0x16] => return None,
            // A TLS record: handshake, version 3.x (RFC 8446, section 5.1).
            [0x16, 0x03, ..] => Some(TLS),
            _ => match memchr2(b'\r', b'\n', &bytes[*looked as usize..]) {
                Some(end) => is_request_line(&bytes[..*looked as usize + end]).then_some(HTTP),
                None => {
                    // Of more it would look again.
                    *looked = bytes.len().try_into().unwrap_or(u32::MAX);
                    return None;
                }
            },
        };
        *self = if said.is_some() { Self::Refused } else { Self::Off };
        said
    }

    /// Whether a line that begins with `bytes`, and is too long to be judged whole, is to be refused as the beginning of a
    /// request: its target is as long as the peer likes.
    pub(super) fn fears(self, bytes: &[u8]) -> bool {
        matches!(self, Self::Watching { .. }) && begins_request_line(bytes)
    }

    /// The first line has been taken.
    pub(super) fn pass(&mut self) {
        if let Self::Watching { .. } = self {
            *self = Self::Off;
        }
    }

    /// What was looked at is skipped, or some of it.
    pub(super) fn begin_anew(&mut self) {
        if let Self::Watching { looked } = self {
            *looked = 0;
        }
    }

    /// Gives what to say to the peer.
    pub(super) fn refuse(&mut self) -> &'static str {
        *self = Self::Refused;
        HTTP
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

/// Whether a request line may begin like this, at least a part of its target with it.
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
    use super::Guard;

    #[test]
    fn http_and_tls_are_told_from_lines() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Guard::Refused),
            (b"POST /a?b HTTP/1.0\nHost: x", Guard::Refused),
            (b"PRI * HTTP/2.0\r\n", Guard::Refused),
            (b"\x16\x03\x01\x02\x00", Guard::Refused),
            (b"GET / HTTP/1.1\rx", Guard::Refused),
            (b"GET / HTTP/1.1", Guard::Watching { looked: 14 }),
            (&[b'x'; 1 << 17], Guard::Watching { looked: 1 << 17 }),
            (b"\x16", Guard::WATCHING),
            (b"", Guard::WATCHING),
            (b"\x16\x04\n", Guard::Off),
            (b"get / HTTP/1.1\n", Guard::Off),
            (b"GET key\n", Guard::Off),
            (b"SET a HTTP\n", Guard::Off),
            (b"A  HTTP/1\n", Guard::Off),
            (b"A B C HTTP/1.1\n", Guard::Off),
            (b"GET / HTTP\n", Guard::Off),
        ] {
            let mut guard = Guard::WATCHING;
            let said = guard.judge(bytes);
            assert_eq!(
                (guard, said.is_some()),
                (expected, expected == Guard::Refused),
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }
    #[test]
    fn what_may_become_a_request_is_told_from_what_may_not() {
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
            assert_eq!(Guard::WATCHING.fears(bytes), expected, "{:?}", bytes.escape_ascii());
        }
        assert!(!Guard::Off.fears(b"GET /"));
    }
}
