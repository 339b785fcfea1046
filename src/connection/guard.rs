use memchr::memchr;

/// Whether the first bytes of a connection are looked at, and what came of it: a peer that speaks HTTP or TLS is not to have
/// its headers or its handshake taken for lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Not asked for, or found in order.
    Off,
    Watching,
    Refused,
}

/// A request line is looked for in so many bytes.
const REQUEST_LINE: usize = 8 * 1024;

impl Guard {
    /// Looks at all that has come so far. Gives what to say to the peer, once.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Option<&'static str> {
        if *self != Self::Watching {
            return None;
        }
        let said = match bytes {
            [] | [0x16] => return None,
            // A TLS record: handshake, version 3.x (RFC 8446, section 5.1).
            [0x16, 0x03, ..] => Some("error: TLS is not spoken here"),
            _ => match memchr(b'\n', &bytes[..bytes.len().min(REQUEST_LINE)]) {
                Some(end) => is_request_line(&bytes[..end]).then_some("error: HTTP is not spoken here"),
                None if bytes.len() < REQUEST_LINE => return None,
                None => None,
            },
        };
        *self = if said.is_some() { Self::Refused } else { Self::Off };
        said
    }
}

/// `method SP request-target SP HTTP-version` (RFC 9112, section 3).
fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && !target.is_empty()
        && version
            .strip_prefix(b"HTTP/")
            .is_some_and(|version| version.first().is_some_and(u8::is_ascii_digit))
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
            (b"GET / HTTP/1.1", Guard::Watching),
            (b"\x16", Guard::Watching),
            (b"", Guard::Watching),
            (b"\x16\x04\n", Guard::Off),
            (b"get / HTTP/1.1\n", Guard::Off),
            (b"GET key\n", Guard::Off),
            (b"SET a HTTP\n", Guard::Off),
            (b"A  HTTP/1\n", Guard::Off),
            (b"A B C HTTP/1.1\n", Guard::Off),
            (&[b'x'; 8192], Guard::Off),
        ] {
            let mut guard = Guard::Watching;
            let said = guard.judge(bytes);
            assert_eq!(
                (guard, said.is_some()),
                (expected, expected == Guard::Refused),
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }
}
