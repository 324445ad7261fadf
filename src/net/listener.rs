//! Listening sockets, and the directory that says whose connection an accepted one is.
//!
//! Accepting never waits for anybody: a known peer's task gets the connection through its bounded
//! queue, the rest of the world is closed at once with a reset, and running out of descriptors
//! pauses accepting until there are some again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bgp_proto::session::AuthKey;
use bgp_proto::types::{Family, Prefix};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::handle::{PeerCommand, PeerHandle};
use super::sockopt;
use crate::supervise::{self, Ending};

/// Connections that the kernel completes while we are busy.
const BACKLOG: i32 = 4096;
/// Pause after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// One line per this time about connections from strangers.
const STRANGER_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", self.remedy())]
pub struct Unbound {
    /// Which.
    pub address: SocketAddr,
    source: io::Error,
    /// Where the system lacks the address's family: the other one is listened on alike, so that
    /// nobody misses this one.
    covered: bool,
}

impl Unbound {
    /// Whether it may pass by itself: an address that is configured later, a family that the system
    /// gets later. Everything else needs somebody to act.
    pub fn may_pass(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrNotAvailable || self.lacks_family()
    }

    /// Whether it is no fault: "every address" was asked for, and the system has one family only.
    pub fn is_harmless(&self) -> bool {
        self.covered && self.lacks_family()
    }

    fn lacks_family(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EAFNOSUPPORT)
    }

    fn remedy(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there: stop it, or change bgp.listen"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => {
                "no interface has this address; it is tried again when one has"
            }
            _ if self.lacks_family() => {
                "the system has no such address family; it is tried again in case it comes"
            }
            _ => "check bgp.listen",
        }
    }
}

/// A connection from an address that lies in a range of dynamic peers.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// From where.
    pub from: IpAddr,
}

#[derive(Default)]
struct Known {
    peers: HashMap<IpAddr, PeerHandle>,
    ranges: Vec<Prefix>,
}

/// Who may connect: shared between the accepting tasks and the daemon that changes it.
#[derive(Clone, Default)]
pub struct Directory {
    known: Arc<RwLock<Known>>,
}

impl Directory {
    /// The peer at `address` exists.
    pub fn insert(&self, address: IpAddr, peer: PeerHandle) {
        self.write(|known| known.peers.insert(address, peer));
    }

    /// The peer at `address` is gone, unless another took its place.
    pub fn remove(&self, address: IpAddr, id: bgp_proto::types::PeerId) {
        self.write(|known| {
            if known.peers.get(&address).is_some_and(|peer| peer.id == id) {
                known.peers.remove(&address);
            }
        });
    }

    /// Connections from these ranges may become dynamic peers.
    pub fn set_ranges(&self, ranges: Vec<Prefix>) {
        self.write(|known| known.ranges = ranges);
    }

    /// The peer at `address`.
    pub fn peer(&self, address: IpAddr) -> Option<PeerHandle> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).peers.get(&address).cloned()
    }

    fn in_range(&self, address: IpAddr) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.ranges.iter().any(|range| range.contains_addr(address))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Known) -> T) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Bound {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    /// Accepts; until there is one, connections wait in the kernel's queue.
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.task.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The listening sockets.
pub struct Listeners {
    bound: Vec<Bound>,
    directory: Directory,
    dynamic: mpsc::Sender<Accepted>,
    keys: BTreeMap<Prefix, AuthKey>,
    /// Descriptors from this number on are not for connections of BGP.
    descriptors_max: u64,
}

impl Listeners {
    /// No socket yet. Connections that may become dynamic peers go to `dynamic`, without waiting. A
    /// connection whose descriptor would be `descriptors_max` or above is closed at once: the system
    /// gives out the lowest number that is free, so what is left is for operators and probes.
    pub fn new(
        directory: Directory,
        dynamic: mpsc::Sender<Accepted>,
        descriptors_max: u64,
    ) -> Self {
        Listeners { bound: Vec::new(), directory, dynamic, keys: BTreeMap::new(), descriptors_max }
    }

    /// Binds these addresses, with the keys that are set, and closes all others. Connections to new
    /// ones wait until [`Listeners::accept`]. Addresses that may come later are returned; see
    /// [`Listeners::listen_where_possible`] for what that means for others.
    ///
    /// # Errors
    /// One of them cannot be had, and not for now only: the sockets are as they were.
    pub fn listen(&mut self, addresses: &[SocketAddr]) -> Result<Vec<Unbound>, Unbound> {
        self.exchange(addresses, Unbound::may_pass)
    }

    /// As [`Listeners::listen`], whatever the reason: what can be had is bound, the rest returned.
    /// Where an address of a family cannot be had, the sockets that the family has stay beside.
    pub fn listen_where_possible(&mut self, addresses: &[SocketAddr]) -> Vec<Unbound> {
        self.exchange(addresses, |_| true).unwrap_or_else(|unbound| vec![unbound])
    }

    /// Binds `addresses`; those that cannot be had, and that is `tolerated`, are returned.
    fn exchange(
        &mut self,
        addresses: &[SocketAddr],
        tolerated: impl Fn(&Unbound) -> bool,
    ) -> Result<Vec<Unbound>, Unbound> {
        let is_leaving = |bound: &&Bound| !addresses.contains(&bound.address);
        let (mut fresh, mut missing) = (Vec::new(), Vec::new());
        for &address in addresses {
            if !self.bound.iter().any(|bound| bound.address == address) {
                let in_the_way: Vec<&TcpListener> = self
                    .bound
                    .iter()
                    .filter(|bound| is_leaving(bound) && overlap(bound.address, address))
                    .map(|bound| &*bound.socket)
                    .collect();
                match bind(address, &self.keys, &in_the_way) {
                    Ok(socket) => {
                        fresh.push(Bound { address, socket: Arc::new(socket), task: None });
                    }
                    Err(source) => {
                        let covered = address.ip().is_unspecified()
                            && addresses.iter().any(|other| {
                                other.ip().is_unspecified() && other.is_ipv4() != address.is_ipv4()
                            });
                        let unbound = Unbound { address, source, covered };
                        if !tolerated(&unbound) {
                            return Err(unbound);
                        }
                        missing.push(unbound);
                    }
                }
            }
        }
        let is_missed = |bound: &Bound| {
            let is_alike = |m: &Unbound| m.address.is_ipv4() == bound.address.is_ipv4();
            missing.iter().any(|m| is_alike(m) && !m.is_harmless())
        };
        self.bound.retain(|bound| !is_leaving(&bound) || is_missed(bound));
        for bound in fresh {
            info!("listening on {}", bound.address);
            self.bound.push(bound);
        }
        Ok(missing)
    }

    /// Connections are accepted from here on: everybody who may connect is in the directory.
    pub fn accept(&mut self) {
        for bound in self.bound.iter_mut().filter(|bound| bound.task.is_none()) {
            let (socket, directory) = (Arc::clone(&bound.socket), self.directory.clone());
            let accept = accept(socket, directory, self.dynamic.clone(), self.descriptors_max);
            bound.task = Some(tokio::spawn(supervise::task("listener", Ending::Never, accept)));
        }
    }

    /// Sets or deletes the TCP MD5 key for connections from `peers`.
    pub fn set_key(&mut self, peers: Prefix, key: Option<&AuthKey>) -> io::Result<()> {
        match key {
            Some(key) => self.keys.insert(peers, key.clone()),
            None => self.keys.remove(&peers),
        };
        let octets = key.map_or(&[][..], AuthKey::octets);
        self.bound
            .iter()
            .try_for_each(|bound| set_key(&*bound.socket, bound.address, peers, octets))
    }
}

fn set_key(socket: &impl AsFd, address: SocketAddr, peers: Prefix, key: &[u8]) -> io::Result<()> {
    let ours = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    if peers.family() == ours { sockopt::set_md5_key(socket.as_fd(), peers, key) } else { Ok(()) }
}

/// Whether a socket at the one keeps the other from being bound although they differ: the port is the
/// same, and one of them takes connections to every address.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Binds `address` beside sockets of ours that will be closed, so that at no time nobody listens.
fn bind(
    address: SocketAddr,
    keys: &BTreeMap<Prefix, AuthKey>,
    in_the_way: &[&TcpListener],
) -> io::Result<TcpListener> {
    // Only for this moment. Whoever does not ask for sharing, as no speaker of BGP does, is refused.
    let share = |shared: bool| {
        in_the_way.iter().try_for_each(|socket| SockRef::from(*socket).set_reuse_port(shared))
    };
    let open = || -> io::Result<TcpListener> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        // A peer with GTSM must find 255 in our SYN-ACK, sent before we know whose connection it is.
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(255)?;
        } else {
            socket.set_ttl_v4(255)?;
        }
        socket.set_reuse_port(!in_the_way.is_empty())?;
        socket.bind(&address.into())?;
        // Before anybody can connect without one.
        for (range, key) in keys {
            set_key(&socket, address, *range, key.octets())?;
        }
        socket.listen(BACKLOG)?;
        socket.set_reuse_port(false)?;
        TcpListener::from_std(socket.into())
    };
    let opened = share(true).and_then(|()| open());
    // Also where it could not be bound: those that stay must not be open to sharing.
    let unshared = share(false);
    opened.and_then(|socket| unshared.map(|()| socket))
}

async fn accept(
    socket: Arc<TcpListener>,
    directory: Directory,
    dynamic: mpsc::Sender<Accepted>,
    descriptors_max: u64,
) {
    let mut log = StrangerLog::default();
    let mut exhausted = false;
    loop {
        match socket.accept().await {
            Ok((stream, from)) => {
                let descriptor = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
                if descriptor >= descriptors_max {
                    reset(&stream);
                    if !std::mem::replace(&mut exhausted, true) {
                        warn!(
                            "connections are closed for the moment: no file descriptors are left \
                             beside those for operators; raise the limit (ulimit -n, LimitNOFILE=)"
                        );
                    }
                    continue;
                }
                if std::mem::take(&mut exhausted) {
                    info!("accepting connections again");
                }
                admit(stream, from.ip().to_canonical(), &directory, &dynamic, &mut log);
            }
            Err(e) if is_exhaustion(&e) => {
                if !std::mem::replace(&mut exhausted, true) {
                    warn!(
                        "cannot accept connections for the moment: {e}; raise the limit of open \
                         files (ulimit -n) if this comes back"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The connection was gone before it could be accepted.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn is_exhaustion(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn admit(
    stream: TcpStream,
    from: IpAddr,
    directory: &Directory,
    dynamic: &mpsc::Sender<Accepted>,
    log: &mut StrangerLog,
) {
    if let Some(peer) = directory.peer(from) {
        if !peer.send(PeerCommand::Incoming(stream)) {
            log.note(from, "its earlier connections are still being looked at");
        }
    } else if directory.in_range(from) {
        if dynamic.try_send(Accepted { stream, from }).is_err() {
            log.note(from, "too many new dynamic peers at once");
        }
    } else {
        reset(&stream);
        log.note(from, "no peer is configured at this address");
    }
}

/// Closes with a reset, which costs us no TIME-WAIT, when the stream is dropped.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Connections that were closed at once: counted, and said once in a while.
#[derive(Default)]
struct StrangerLog {
    last: Option<Instant>,
    suppressed: u64,
}

impl StrangerLog {
    fn note(&mut self, from: IpAddr, why: &str) {
        if self.last.is_some_and(|last| last.elapsed() < STRANGER_LOG_INTERVAL) {
            self.suppressed += 1;
            return;
        }
        let more = std::mem::take(&mut self.suppressed);
        self.last = Some(Instant::now());
        warn!("connection from {from} closed: {why} ({more} more since the last such line)");
    }
}

#[cfg(test)]
mod tests;
