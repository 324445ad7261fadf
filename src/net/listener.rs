//! Listening sockets, and the directory that says whose connection an accepted one is.
//!
//! Accepting never waits for anybody: a known peer's task gets the connection through its bounded
//! queue, the rest of the world is closed at once with a reset, and running out of descriptors
//! pauses accepting until there are some again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
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

/// Connections that the kernel completes while we are busy.
const BACKLOG: i32 = 4096;
/// Pause after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// One line per this time about connections from strangers.
const STRANGER_LOG_INTERVAL: Duration = Duration::from_secs(60);

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
}

impl Listeners {
    /// No socket yet. Connections that may become dynamic peers go to `dynamic`, without waiting.
    pub fn new(directory: Directory, dynamic: mpsc::Sender<Accepted>) -> Self {
        Listeners { bound: Vec::new(), directory, dynamic, keys: BTreeMap::new() }
    }

    /// Binds these addresses, with the keys that are set, and closes all others. On an error the
    /// sockets stay as they were. Connections to new ones wait until [`Listeners::accept`].
    pub fn listen(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        self.exchange(addresses, |_| true)
    }

    /// As [`Listeners::listen`], for each address family by itself: where one cannot be had, its
    /// sockets stay as they were, and the other is served all the same.
    ///
    /// # Errors
    /// Of the families that could not be had, in one line.
    pub fn listen_by_family(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        let faults = [SocketAddr::is_ipv4, SocketAddr::is_ipv6].map(|is_of_family| {
            let of_family: Vec<_> = addresses.iter().copied().filter(is_of_family).collect();
            self.exchange(&of_family, is_of_family).err()
        });
        match faults {
            [None, None] => Ok(()),
            [Some(fault), None] | [None, Some(fault)] => Err(fault),
            [Some(v4), Some(v6)] => Err(io::Error::new(v4.kind(), format!("{v4}; {v6}"))),
        }
    }

    /// Binds `addresses`; those of the others that are `replaced` are closed.
    fn exchange(
        &mut self,
        addresses: &[SocketAddr],
        replaced: impl Fn(&SocketAddr) -> bool,
    ) -> io::Result<()> {
        let is_leaving =
            |bound: &&Bound| replaced(&bound.address) && !addresses.contains(&bound.address);
        let mut fresh = Vec::new();
        for &address in addresses {
            if !self.bound.iter().any(|bound| bound.address == address) {
                let in_the_way: Vec<&TcpListener> = self
                    .bound
                    .iter()
                    .filter(|bound| is_leaving(bound) && overlap(bound.address, address))
                    .map(|bound| &*bound.socket)
                    .collect();
                let socket = Arc::new(bind(address, &self.keys, &in_the_way)?);
                info!("listening on {address}");
                fresh.push(Bound { address, socket, task: None });
            }
        }
        self.bound.retain(|bound| !is_leaving(&bound));
        self.bound.extend(fresh);
        Ok(())
    }

    /// Connections are accepted from here on: everybody who may connect is in the directory.
    pub fn accept(&mut self) {
        for bound in self.bound.iter_mut().filter(|bound| bound.task.is_none()) {
            let (socket, directory) = (Arc::clone(&bound.socket), self.directory.clone());
            bound.task = Some(tokio::spawn(accept(socket, directory, self.dynamic.clone())));
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
    let explain = |e: io::Error| {
        let remedy = match e.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there: stop it, or change bgp.listen"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "no interface has this address",
            _ => "check bgp.listen",
        };
        io::Error::new(e.kind(), format!("cannot listen on {address}: {e}; {remedy}"))
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
    opened.and_then(|socket| unshared.map(|()| socket)).map_err(explain)
}

async fn accept(socket: Arc<TcpListener>, directory: Directory, dynamic: mpsc::Sender<Accepted>) {
    let mut log = StrangerLog::default();
    let mut exhausted = false;
    loop {
        match socket.accept().await {
            Ok((stream, from)) => {
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
        // A reset costs us no TIME-WAIT.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        log.note(from, "no peer is configured at this address");
    }
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
