//! Environment variables that describe the connection to the command.

use std::ffi::OsString;

use lineframe::{Connection, Peer};
use tokio::net::TcpStream;

use crate::address::Address;

/// All variables that describe a connection. They are removed from the inherited environment,
/// because this server may itself run under tcpserver or unixserver.
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

/// Returns the variables that ucspi-tcp's tcpserver and ucspi-unix's unixserver set, except those
/// that need a name lookup.
pub(super) fn environment(connection: &Connection, local: &Address) -> Vec<(&'static str, OsString)> {
    let mut variables = Vec::new();
    let mut set = |variable, value: &dyn ToString| variables.push((variable, value.to_string().into()));
    match connection.peer() {
        Peer::Tcp(remote) => {
            set("PROTO", &"TCP");
            set("TCPREMOTEIP", &remote.ip().to_canonical());
            set("TCPREMOTEPORT", &remote.port());
            let io = connection.io().downcast_ref::<TcpStream>();
            if let Some(local) = io.and_then(|io| io.local_addr().ok()) {
                set("TCPLOCALIP", &local.ip().to_canonical());
                set("TCPLOCALPORT", &local.port());
            }
        }
        #[cfg(unix)]
        Peer::Unix { pid, uid, gid } => {
            set("PROTO", &"UNIX");
            set("UNIXREMOTEEUID", &uid);
            set("UNIXREMOTEEGID", &gid);
            if let Some(pid) = pid {
                set("UNIXREMOTEPID", &pid);
            }
            set("UNIXLOCALPID", &std::process::id());
            set("UNIXLOCALUID", &rustix::process::getuid().as_raw());
            set("UNIXLOCALGID", &rustix::process::getgid().as_raw());
            let path = match local {
                Address::Unix(path) => path.into(),
                other => other.to_string().into(),
            };
            variables.push(("UNIXLOCALPATH", path));
        }
        // Other kinds of streams have no variables.
        _ => _ = local,
    }
    variables
}
