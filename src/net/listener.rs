//! Listening sockets, and the directory that says whose connection an accepted one is.
//!
//! Accepting never waits for anybody: a known peer's task gets the connection through its bounded
//! queue, the rest of the world is closed at once with a reset, and running out of descriptors
//! pauses accepting until there are some again.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bgp_proto::session::PeerConfig;
use bgp_proto::types::{Family, Prefix};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::admission::{Refusal, examine};
use super::handle::PeerHandle;
use super::keys::{self, Installed, KeyEntries, KeyFault};
use super::refusal_log::RefusalLog;
use super::sockopt;
use super::tally::Tally;
use crate::supervise::{self, Ending};

/// Connections that the kernel completes while we are busy.
const BACKLOG: i32 = 4096;
/// Pause after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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
    /// gets later. Everything else needs the operator.
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
    peers: HashMap<IpAddr, Neighbor>,
    /// The longest first.
    ranges: Vec<(Prefix, Arc<PeerConfig>)>,
}

/// A peer, and what its connections have to show.
#[derive(Clone)]
struct Neighbor {
    peer: PeerHandle,
    config: Arc<PeerConfig>,
}

/// Who may connect: shared between the accepting tasks and the daemon that changes it.
#[derive(Clone, Default)]
pub struct Directory {
    known: Arc<RwLock<Known>>,
}

impl Directory {
    /// The peer exists, at the address that its parameters name.
    pub fn insert(&self, config: &Arc<PeerConfig>, peer: PeerHandle) {
        let neighbor = Neighbor { peer, config: Arc::clone(config) };
        self.write(|known| known.peers.insert(config.address, neighbor));
    }

    /// The peer at `address` was removed, unless another took its place.
    pub fn remove(&self, address: IpAddr, id: bgp_proto::types::PeerId) {
        self.write(|known| {
            if known.peers.get(&address).is_some_and(|known| known.peer.id == id) {
                known.peers.remove(&address);
            }
        });
    }

    /// Connections from these ranges may become dynamic peers.
    pub fn set_ranges(&self, mut ranges: Vec<(Prefix, Arc<PeerConfig>)>) {
        ranges.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self.write(|known| known.ranges = ranges);
    }

    /// The peer at `address`.
    pub fn peer(&self, address: IpAddr) -> Option<PeerHandle> {
        self.neighbor(address).map(|neighbor| neighbor.peer)
    }

    fn neighbor(&self, address: IpAddr) -> Option<Neighbor> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).peers.get(&address).cloned()
    }

    /// What a connection from the range around `address` has to show.
    fn range(&self, address: IpAddr) -> Option<Arc<PeerConfig>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let range = known.ranges.iter().find(|(range, _)| range.contains_addr(address));
        range.map(|(_, config)| Arc::clone(config))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Known) -> T) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Bound {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    keys: Installed,
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
    keys: KeyEntries,
    tally: Tally,
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
        tally: Tally,
        descriptors_max: u64,
    ) -> Self {
        let (bound, keys) = (Vec::new(), KeyEntries::new());
        Listeners { bound, directory, dynamic, keys, tally, descriptors_max }
    }

    /// Binds these addresses, with the keys that are set, and closes all others. Connections to new
    /// ones wait until [`Listeners::accept`]. Addresses that may come later are returned; see
    /// [`Listeners::listen_where_possible`] for what that means for others. Keys that the kernel does
    /// not take are no error: [`Listeners::key_faults`].
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
                    Ok((socket, keys)) => {
                        fresh.push(Bound { address, socket: Arc::new(socket), keys, task: None });
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
            let socket = Arc::clone(&bound.socket);
            let mut door =
                Door::new(&self.directory, &self.dynamic, &self.tally, self.descriptors_max);
            let accept = async move { door.accept(&socket).await };
            bound.task = Some(tokio::spawn(supervise::task("listener", Ending::Never, accept)));
        }
    }

    /// Sets the TCP MD5 keys: those that stay are replaced in place, those that nobody wants go.
    /// What the kernel refused before is tried again.
    pub fn set_keys(&mut self, keys: KeyEntries) {
        self.keys = keys;
        for bound in &mut self.bound {
            let entries = of_family(&self.keys, bound.address);
            bound.keys.apply(bound.socket.as_fd(), &entries);
        }
    }

    /// Who has a key that is not on every listening socket of its family.
    pub fn key_faults(&self) -> Vec<KeyFault> {
        let mut faults: Vec<KeyFault> = Vec::new();
        for bound in &self.bound {
            let entries = of_family(&self.keys, bound.address);
            let missing = bound.keys.missing(&entries);
            faults.extend(
                missing.into_iter().map(|(prefix, e)| keys::explain(prefix, &e, entries.len())),
            );
        }
        faults.sort_by_key(|fault| fault.prefix);
        faults.dedup_by_key(|fault| fault.prefix);
        faults
    }
}

fn of_family(keys: &KeyEntries, address: SocketAddr) -> KeyEntries {
    let ours = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let entries = keys.iter().filter(|(prefix, _)| prefix.family() == ours);
    entries.map(|(prefix, key)| (*prefix, key.clone())).collect()
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
    keys: &KeyEntries,
    in_the_way: &[&TcpListener],
) -> io::Result<(TcpListener, Installed)> {
    // Only for this moment. Whoever does not ask for sharing, as no speaker of BGP does, is refused.
    let share = |shared: bool| {
        in_the_way.iter().try_for_each(|socket| SockRef::from(*socket).set_reuse_port(shared))
    };
    let open = || -> io::Result<(TcpListener, Installed)> {
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
        let mut installed = Installed::default();
        installed.apply(socket.as_fd(), &of_family(keys, address));
        // Where there is no such option, peers that must show something are refused one by one.
        let _ = sockopt::keep_syn(socket.as_fd());
        socket.listen(BACKLOG)?;
        socket.set_reuse_port(false)?;
        Ok((TcpListener::from_std(socket.into())?, installed))
    };
    let opened = share(true).and_then(|()| open());
    // Also where it could not be bound: those that stay must not be open to sharing.
    let unshared = share(false);
    opened.and_then(|opened| unshared.map(|()| opened))
}

/// One listening socket's way to the peers.
struct Door {
    directory: Directory,
    dynamic: mpsc::Sender<Accepted>,
    tally: Tally,
    descriptors_max: u64,
    log: RefusalLog,
}

impl Door {
    fn new(
        directory: &Directory,
        dynamic: &mpsc::Sender<Accepted>,
        tally: &Tally,
        descriptors_max: u64,
    ) -> Self {
        let (directory, dynamic, tally) = (directory.clone(), dynamic.clone(), tally.clone());
        Door { directory, dynamic, tally, descriptors_max, log: RefusalLog::default() }
    }

    async fn accept(&mut self, socket: &TcpListener) {
        let mut failures = 0u32;
        loop {
            match socket.accept().await {
                Ok((stream, from)) => {
                    if std::mem::take(&mut failures) > 1 {
                        info!("accepting connections again");
                    }
                    self.admit(stream, from.ip().to_canonical());
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if self.say(&error, failures) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Says what keeps us from accepting, once. Returns whether to pause: a connection that was closed
    /// before it could be accepted is nothing, but what comes again at once stays for a while.
    fn say(&self, error: &io::Error, failures: u32) -> bool {
        let exhausted = is_exhaustion(error);
        if exhausted && failures == 1 || !exhausted && failures == 2 {
            let remedy = match exhausted {
                true => "; raise the limit of open files (ulimit -n) if this comes back",
                false => "; tried again five times a second",
            };
            warn!("cannot accept connections for the moment: {error}{remedy}");
        }
        exhausted || failures > 1
    }

    /// Hands a connection to whom it belongs, or closes it.
    fn admit(&mut self, stream: TcpStream, from: IpAddr) {
        let descriptor = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
        let refusal = if descriptor >= self.descriptors_max {
            (stream, Refusal::Descriptors)
        } else if let Some(Neighbor { peer, config }) = self.directory.neighbor(from) {
            match examine(&stream, &config) {
                Ok(()) => match peer.connect(stream) {
                    Ok(()) => return,
                    Err(stream) => (stream, Refusal::QueueFull),
                },
                Err(refusal) => (stream, refusal),
            }
        } else if let Some(config) = self.directory.range(from) {
            match examine(&stream, &config) {
                Ok(()) => match self.dynamic.try_send(Accepted { stream, from }) {
                    Ok(()) => return,
                    Err(error) => (error.into_inner().stream, Refusal::RangeBusy),
                },
                Err(refusal) => (stream, refusal),
            }
        } else {
            (stream, Refusal::Stranger)
        };
        let (stream, why) = refusal;
        if !matches!(why, Refusal::QueueFull | Refusal::RangeBusy) {
            // A reset costs us no TIME-WAIT.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        self.tally.connection_refused(why);
        self.log.note(from, why, why.text());
    }
}

fn is_exhaustion(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests;
