//! Where a server is, as it is written on the command line.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::lookup_host;

use crate::show;

/// `host:port`, `[v6]:port`, `[v6%interface]:port`, the path of a Unix socket (anything with a slash in it), or `@name` in Linux's abstract
/// namespace. What has a scheme (`tls://`) and `sd-listen` are kept for later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(String),
    Unix(PathBuf),
    /// The name without the `@`, never empty.
    Abstract(Vec<u8>),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix('@') {
            return match name.len() {
                0 => Err("the name after the @ is missing".into()),
                _ => Ok(Self::Abstract(name.into())),
            };
        }
        if let Some(scheme) = reserved(text) {
            return Err(format!(
                "{scheme:?} is reserved for a later version; the path of a Unix socket may begin with ./"
            ));
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let digits = text.strip_prefix(':').unwrap_or(text);
        if digits.parse::<u16>().is_ok() && !digits.starts_with('+') {
            return Err(format!(
                "the host is missing: 127.0.0.1:{digits}, or [::]:{digits} for all addresses"
            ));
        }
        let (host, port) =
            text.rsplit_once(':').ok_or("neither host:port, nor a path with a slash in it, nor a @name")?;
        // A number may be parsed with a plus before it.
        if port.starts_with('+') || port.parse::<u16>().is_err() {
            return Err(format!("the port is not a number from 0 to 65535: {port:?}"));
        }
        if let Some(inner) = in_brackets(host) {
            let (address, scope) = inner.split_once('%').unwrap_or((inner, "0"));
            if address.parse::<Ipv6Addr>().is_err() || scope.is_empty() {
                return Err(format!("not an IPv6 address: {host:?}"));
            }
        } else if host.is_empty() || host.contains([':', '[', ']']) {
            return Err("the host is missing, or an IPv6 address without its brackets".into());
        }
        Ok(Self::Tcp(text.into()))
    }
}

fn in_brackets(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// Replaces the name of an interface by its number, because [`SocketAddr`](std::net::SocketAddr)
/// parses `[fe80::1%2]:9` only, not `[fe80::1%eth0]:9`.
pub(crate) async fn with_scope_number(address: &str) -> io::Result<Cow<'_, str>> {
    let scoped = address.rsplit_once(':').and_then(|(host, port)| {
        let host = in_brackets(host)?;
        let (_, scope) = host.split_once('%')?;
        // A number stays as it is.
        scope.parse::<u32>().is_err().then_some((host, scope, port.parse::<u16>().ok()?))
    });
    let Some((host, scope, port)) = scoped else { return Ok(address.into()) };
    // The system knows the names of its interfaces.
    match lookup_host((host, port)).await.ok().and_then(|mut found| found.next()) {
        Some(found) => Ok(found.to_string().into()),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no interface {scope:?}, or the address needs none"),
        )),
    }
}

/// The beginning of `text`, where it has a meaning to come: `tls://`, `sd-listen`.
fn reserved(text: &str) -> Option<&str> {
    if text.split(':').next() == Some("sd-listen") {
        return Some("sd-listen");
    }
    let scheme = text.find("://")?;
    let of_a_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (text.starts_with(|c: char| c.is_ascii_alphabetic()) && text[..scheme].chars().all(of_a_scheme))
        .then(|| &text[..scheme + 3])
}

/// As it was given, but that nothing in it steers a terminal.
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
    fn each_kind_is_known_by_its_look() {
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
    fn it_is_shown_as_it_is_written() {
        for text in ["localhost:8083", "./a.sock", "@a"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("@\x1b".parse::<Address>().unwrap().to_string(), r"@\x1b");
    }
}
