//! Server addresses on the command line.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::lookup_host;

use crate::show;

/// A server address: `host:port`, `[v6]:port`, `[v6%interface]:port`, the path of a Unix socket
/// (contains a slash), or `@name` in the abstract namespace of Linux. Schemes such as `tls://` and
/// `sd-listen` are reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(String),
    Unix(PathBuf),
    /// Name without the `@`; never empty.
    Abstract(Vec<u8>),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix('@') {
            return match name.len() {
                0 => Err("the name after the @ is missing, such as @lineframe".into()),
                _ => Ok(Self::Abstract(name.into())),
            };
        }
        if let Some(scheme) = reserved(text) {
            return Err(format!(
                "{scheme:?} is reserved for a later version; if this is the path of a Unix socket, put ./ before it"
            ));
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let digits = text.strip_prefix(':').unwrap_or(text);
        if digits.parse::<u16>().is_ok() && !digits.starts_with('+') {
            return Err(format!(
                "the host is missing; write 127.0.0.1:{digits}, or [::]:{digits} for all addresses"
            ));
        }
        let (host, port) =
            text.rsplit_once(':').ok_or("expected host:port, a path that contains a slash, or @name")?;
        // `parse` accepts a leading plus sign.
        if port.starts_with('+') || port.parse::<u16>().is_err() {
            return Err(format!("the port {port:?} is not a number from 0 to 65535"));
        }
        if let Some(inner) = in_brackets(host) {
            let (address, scope) = inner.split_once('%').unwrap_or((inner, "0"));
            if address.parse::<Ipv6Addr>().is_err() || scope.is_empty() {
                return Err(format!("{host:?} is not an IPv6 address"));
            }
        } else if host.is_empty() || host.contains([':', '[', ']']) {
            return Err("the host is missing, or an IPv6 address lacks its brackets: [::1]:8083".into());
        }
        Ok(Self::Tcp(text.into()))
    }
}

fn in_brackets(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// Replaces the name of an interface with its number, because [`SocketAddr`](std::net::SocketAddr)
/// parses `[fe80::1%2]:9`, but not `[fe80::1%eth0]:9`.
pub(crate) async fn with_scope_number(address: &str) -> io::Result<Cow<'_, str>> {
    let scoped = address.rsplit_once(':').and_then(|(host, port)| {
        let host = in_brackets(host)?;
        let (_, scope) = host.split_once('%')?;
        scope.parse::<u32>().is_err().then_some((host, scope, port.parse::<u16>().ok()?))
    });
    let Some((host, scope, port)) = scoped else { return Ok(address.into()) };
    // The resolver of the system knows the names of its interfaces.
    match lookup_host((host, port)).await.ok().and_then(|mut found| found.next()) {
        Some(found) => Ok(found.to_string().into()),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no interface {scope:?}, or the address takes no interface"),
        )),
    }
}

/// Returns the reserved prefix of `text`, such as `tls://` or `sd-listen`.
fn reserved(text: &str) -> Option<&str> {
    if text.split(':').next() == Some("sd-listen") {
        return Some("sd-listen");
    }
    let scheme = text.find("://")?;
    let of_a_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (text.starts_with(|c: char| c.is_ascii_alphabetic()) && text[..scheme].chars().all(of_a_scheme))
        .then(|| &text[..scheme + 3])
}

/// Displays the address as it was typed, with control characters escaped.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(&show::escaped(address.as_bytes())),
            Self::Unix(path) => f.write_str(&show::escaped(path.as_os_str().as_encoded_bytes())),
            Self::Abstract(name) => write!(f, "@{}", show::escaped(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_parsed_by_kind() {
        let unix = |path: &str| Ok(Address::Unix(path.into()));
        for (text, expected) in [
            ("localhost:8083", Ok(Address::Tcp("localhost:8083".into()))),
            ("[::1]:0", Ok(Address::Tcp("[::1]:0".into()))),
            ("[fe80::1%lo]:9", Ok(Address::Tcp("[fe80::1%lo]:9".into()))),
            ("[fe80::1%]:9", Err(())),
            ("[localhost]:9", Err(())),
            ("[::1:9", Err(())),
            ("./a.sock", unix("./a.sock")),
            ("/a/b:1", unix("/a/b:1")),
            ("./tls://a", unix("./tls://a")),
            ("./@a", unix("./@a")),
            ("@a", Ok(Address::Abstract(b"a".into()))),
            ("@/a/b:1", Ok(Address::Abstract(b"/a/b:1".into()))),
            ("localhost", Err(())),
            (":8083", Err(())),
            ("::1:8083", Err(())),
            ("localhost:65536", Err(())),
            ("localhost:", Err(())),
            ("localhost:+80", Err(())),
            ("@", Err(())),
            ("tls://localhost:8083", Err(())),
            ("later+1://a", Err(())),
            ("sd-listen", Err(())),
            ("sd-listen:0", Err(())),
        ] {
            assert_eq!(text.parse::<Address>().map_err(drop), expected, "{text}");
        }
    }

    #[test]
    fn addresses_display_as_typed_and_escaped() {
        for text in ["localhost:8083", "./a.sock", "@a"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("@\x1b".parse::<Address>().unwrap().to_string(), r"@\x1b");
    }
}
