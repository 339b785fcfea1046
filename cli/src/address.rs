use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server is: `host:port`, `[v6]:port`, or, with a slash in it, the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(String),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let (host, port) = text.rsplit_once(':').ok_or("neither host:port nor a path with a slash in it")?;
        if port.parse::<u16>().is_err() {
            return Err(format!("the port is not a number from 0 to 65535: {port:?}"));
        }
        let is_v6 = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !is_v6) {
            return Err("the host is missing, or an IPv6 address without its brackets".into());
        }
        Ok(Self::Tcp(text.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn a_slash_makes_it_a_unix_socket() {
        for (text, expected) in [
            ("localhost:8083", Ok(Address::Tcp("localhost:8083".into()))),
            ("[::1]:0", Ok(Address::Tcp("[::1]:0".into()))),
            ("./a.sock", Ok(Address::Unix("./a.sock".into()))),
            ("/tmp/a:1", Ok(Address::Unix("/tmp/a:1".into()))),
            ("localhost", Err(())),
            (":8083", Err(())),
            ("::1:8083", Err(())),
            ("localhost:65536", Err(())),
            ("localhost:", Err(())),
        ] {
            assert_eq!(text.parse::<Address>().map_err(drop), expected, "{text}");
        }
    }
}
