//! Processes in this network namespace, and the TCP sockets with BGP's port.
//!
//! Read from `/proc`. Processes in other PID namespaces are not visible there, so that their
//! sockets appear without an owner.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// TCP_LISTEN, as `/proc/net/tcp` shows it.
const LISTEN: &str = "0A";

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Its name, at most 15 bytes.
    pub(super) name: String,
    /// The file name of its program; empty: not accessible.
    pub(super) program: String,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// The inodes of its sockets; `None`: not accessible.
    pub(super) sockets: Option<BTreeSet<u64>>,
}

impl Process {
    /// The process with a PID.
    pub(super) fn of(pid: u32) -> Option<Process> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let name = fs::read_to_string(folder.join("comm")).ok()?.trim().to_owned();
        let program = fs::read_link(folder.join("exe")).ok();
        let program = program.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy());
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        let arguments = arguments.split(|octet| *octet == 0).filter(|text| !text.is_empty());
        Some(Process {
            pid,
            name,
            program: program
                .map(|name| name.trim_end_matches(" (deleted)").to_owned())
                .unwrap_or_default(),
            arguments: arguments.map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
            sockets: sockets(&folder.join("fd")).ok(),
        })
    }

    /// The environment that it was started with.
    pub(super) fn environment(&self) -> io::Result<BTreeMap<String, String>> {
        let octets = fs::read(format!("/proc/{}/environ", self.pid))?;
        let texts = octets.split(|octet| *octet == 0).map(String::from_utf8_lossy);
        Ok(texts
            .filter_map(|text| {
                text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
            })
            .collect())
    }

    /// Whether it is margay, even if started under another name. The name of its file may end with
    /// a version.
    pub(super) fn is_margay(&self) -> bool {
        self.program.starts_with("margay") || self.name.starts_with("margay")
    }

    /// Such as `bird (pid 12)`.
    pub(super) fn describe(&self) -> String {
        let program = match (self.program.as_str(), self.name.as_str()) {
            ("", name) => name.to_owned(),
            (program, name) if program == name => program.to_owned(),
            (program, name) => format!("{program} as {name}"),
        };
        format!("{program} (pid {})", self.pid)
    }
}

fn sockets(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|text| text.strip_suffix(']'));
        inodes.extend(inode.and_then(|text| text.parse::<u64>().ok()));
    }
    Ok(inodes)
}

/// The other processes in this network namespace. Those whose namespace cannot be read are left
/// out.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    let namespace = fs::read_link("/proc/self/ns/net")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let is_here =
            fs::read_link(entry.path().join("ns/net")).is_ok_and(|other| other == namespace);
        if is_here && pid != std::process::id() {
            found.extend(Process::of(pid));
        }
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// Whether a socket is listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is listening.
    Listens,
    /// It is connected or connecting.
    Connects,
}

/// A TCP socket with BGP's port as local or remote port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BgpSocket {
    pub(super) role: Role,
    pub(super) inode: u64,
}

/// The sockets of this network namespace with one of these ports as local or remote port.
pub(super) fn bgp_sockets(ports: &BTreeSet<u16>) -> io::Result<Vec<BgpSocket>> {
    let mut found = parse_sockets(&fs::read_to_string("/proc/self/net/tcp")?, ports);
    // The file does not exist if the kernel lacks IPv6.
    if let Ok(text) = fs::read_to_string("/proc/self/net/tcp6") {
        found.extend(parse_sockets(&text, ports));
    }
    Ok(found)
}

fn parse_sockets(text: &str, ports: &BTreeSet<u16>) -> Vec<BgpSocket> {
    let lines = text.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, remote, state) = (*words.get(1)?, *words.get(2)?, *words.get(3)?);
        let has_port = |end: &str| {
            let port = end.rsplit_once(':').and_then(|(_, p)| u16::from_str_radix(p, 16).ok());
            port.is_some_and(|port| ports.contains(&port))
        };
        let role = if state == LISTEN { Role::Listens } else { Role::Connects };
        let counts = match role {
            Role::Listens => has_port(local),
            Role::Connects => has_port(local) || has_port(remote),
        };
        let inode: u64 = words.get(9)?.parse().ok()?;
        // Without an inode, no process owns it any more, or yet.
        (counts && inode != 0).then_some(BgpSocket { role, inode })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_local_and_remote_port() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
   0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n\
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0\n\
   2: 0200000A:9C40 0300000A:00B3 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0\n\
   3: 0200000A:9C41 0300000A:00B3 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100 0 0 10 0\n\
   4: 0200000A:00B3 0300000A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 14 1 0 100 0 0 10 0\n";
        let found = parse_sockets(text, &BTreeSet::from([179]));
        let inodes: Vec<u64> = found.iter().map(|socket| socket.inode).collect();
        assert_eq!(inodes, [11, 13, 14]);
        assert_eq!(found[0].role, Role::Listens);
        assert_eq!(found[1].role, Role::Connects);
        assert!(parse_sockets("x\n1: a b 0A\n", &BTreeSet::from([179])).is_empty());
    }

    #[test]
    fn this_process_is_found_by_its_pid() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.sockets.is_some() && !own.program.is_empty());
        assert!(own.environment().unwrap().contains_key("PATH"));
        assert!(Process::of(u32::MAX).is_none());
    }
}
