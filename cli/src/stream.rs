//! The way to a server.

use lineframe::{AnyIo, Client};

use crate::address::Address;
use crate::failure::Failure;

pub(crate) async fn connect(address: &Address) -> Result<AnyIo, Failure> {
    let connected = match address {
        Address::Tcp(to) => Client::new().connect(to.as_str()).await,
        #[cfg(unix)]
        Address::Unix(path) => Client::new().connect_unix(path).await,
        // As `connect_unix` and unix(7) have it, such a name begins with a NUL.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Address::Abstract(name) => {
            use std::os::unix::ffi::OsStringExt;

            let name = std::ffi::OsString::from_vec([b"\0", &name[..]].concat());
            Client::new().connect_unix(std::path::PathBuf::from(name)).await
        }
        #[allow(unreachable_patterns, reason = "every kind is known on Linux")]
        _ => {
            let why = format!("cannot connect to {address}: this system has no such sockets");
            return Err(Failure::cannot_connect(why));
        }
    };
    connected.map(|connection| connection.into_parts().io).map_err(Failure::cannot_connect)
}
