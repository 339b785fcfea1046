//! What a command is told of its connection, in its environment.

use std::ffi::OsString;

use lineframe::{Connection, Peer};
use tokio::net::TcpStream;

use crate::address::Address;

/// All that a child may be told of its connection, or may have inherited from a server around this one.
pub(super) const VARIABLES: [&str; 17] = [
    "PROTO",
    "TCPLOCALHOST",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
    "TCPINTERFACE",
    "UNIXLOCALPATH",
    "UNIXLOCALUID",
    "UNIXLOCALGID",
    "UNIXLOCALPID",
    "UNIXREMOTEPATH",
    "UNIXREMOTEEUID",
    "UNIXREMOTEEGID",
    "UNIXREMOTEPID",
];

/// What ucspi-tcp's tcpserver and ucspi-unix's unixserver tell, but for names that would have to be looked up.
pub(super) fn environment(connection: &Connection, local: &Address) -> Vec<(&'static str, OsString)> {
    let mut variables = Vec::new();
    let mut tell = |variable, value: &dyn ToString| variables.push((variable, value.to_string().into()));
    match connection.peer() {
        Peer::Tcp(remote) => {
            tell("PROTO", &"TCP");
            tell("TCPREMOTEIP", &remote.ip().to_canonical());
            tell("TCPREMOTEPORT", &remote.port());
            let io = connection.io().downcast_ref::<TcpStream>();
            if let Some(local) = io.and_then(|io| io.local_addr().ok()) {
                tell("TCPLOCALIP", &local.ip().to_canonical());
                tell("TCPLOCALPORT", &local.port());
            }
        }
        #[cfg(unix)]
        Peer::Unix { pid, uid, gid } => {
            tell("PROTO", &"UNIX");
            tell("UNIXREMOTEEUID", &uid);
            tell("UNIXREMOTEEGID", &gid);
            if let Some(pid) = pid {
                tell("UNIXREMOTEPID", &pid);
            }
            tell("UNIXLOCALPID", &std::process::id());
            tell("UNIXLOCALUID", &rustix::process::getuid().as_raw());
            tell("UNIXLOCALGID", &rustix::process::getgid().as_raw());
            let path = match local {
                Address::Unix(path) => path.into(),
                other => other.to_string().into(),
            };
            variables.push(("UNIXLOCALPATH", path));
        }
        // A stream of another kind is not told of.
        _ => _ = local,
    }
    variables
}
