//! CPU time of a server that runs on this machine.

use std::time::Duration;

/// Known processes of the server.
pub(super) struct ServerProcesses(Vec<u32>);

impl ServerProcesses {
    pub(super) fn new(ids: Vec<u32>) -> Self {
        Self(ids)
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.0
    }

    /// Returns the CPU time used so far, or `None` if a process cannot be read.
    pub(super) fn cpu(&self) -> Option<Duration> {
        if self.0.is_empty() {
            return None;
        }
        self.0.iter().map(|&id| cpu(id)).sum()
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::listening;

/// Returns no processes: finding them is only implemented on Linux.
#[cfg(not(target_os = "linux"))]
pub(super) fn listening(_: &str) -> Vec<u32> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn cpu(_: u32) -> Option<Duration> {
    None
}

#[cfg(target_os = "linux")]
use linux::cpu;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::fs;
    use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
    use std::time::Duration;

    /// Returns the visible processes that listen on the loopback address `address`.
    pub(in super::super) fn listening(address: &str) -> Vec<u32> {
        match sockets(address) {
            sockets if sockets.is_empty() => Vec::new(),
            sockets => holders(&sockets),
        }
    }

    /// Returns the user and system time of a process, in steps of a hundredth of a second.
    pub(super) fn cpu(id: u32) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Field 2, the command's name in parentheses, may contain any character, even `)`.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Returns the inodes of sockets that listen on a loopback address, from the tables in proc(5).
    /// Any other address may belong to another machine.
    fn sockets(address: &str) -> HashSet<String> {
        const LISTENING: &str = "0A";

        let Ok(mut addresses) = address.to_socket_addrs() else { return HashSet::new() };
        let Some(server) = addresses.find(|address| address.ip().is_loopback()) else {
            return HashSet::new();
        };
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        let rows = tables.iter().flat_map(|table| table.lines().skip(1));
        let inode = |row: &str| {
            let fields: Vec<_> = row.split_whitespace().collect();
            let local = local_address(fields.get(1)?)?;
            let is_it = local.port() == server.port()
                && (local.ip() == server.ip()
                    || local.ip().is_unspecified()
                    || local.ip().to_canonical() == server.ip());
            (is_it && *fields.get(3)? == LISTENING).then(|| fields.get(9).map(|inode| inode.to_string()))?
        };
        rows.filter_map(inode).collect()
    }

    /// Parses `0100007F:1F93`: 32-bit words of the address in native byte order, and the port.
    fn local_address(text: &str) -> Option<SocketAddr> {
        let (ip, port) = text.split_once(':')?;
        let words = ip.as_bytes().chunks(8).map(|word| {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            Some(word.to_ne_bytes())
        });
        let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
        let ip = match <[u8; 4]>::try_from(&bytes[..]) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?),
        };
        Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
    }

    /// Returns the processes that have one of these sockets open.
    fn holders(inodes: &HashSet<String>) -> Vec<u32> {
        let targets: HashSet<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
        let has_one = |id: &u32| {
            let files = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
            files
                .filter_map(|file| fs::read_link(file.path()).ok())
                .any(|target| target.to_str().is_some_and(|target| targets.contains(target)))
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(has_one).collect()
    }
}
