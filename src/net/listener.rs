//! Listening sockets, and the directory that maps an accepted connection to its peer.
//!
//! Accepting never waits for a peer: a known peer's task gets the connection through its bounded
//! queue, connections from unknown addresses are reset at once, and when descriptors run out,
//! accepting pauses until some are free.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use bgp_proto::session::{KeyChain, PeerConfig};
use bgp_proto::types::{Family, Prefix, address_of, off_interface};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::admission::{Refusal, examine};
use super::handle::PeerHandle;
use super::key_chains::{ChainEntries, InstalledChains, SignedAttempts, unix_now};
use super::keys::{self, Installed, KeyFault, Md5Entries};
use super::refusal_log::RefusalLog;
use super::session_counters::SessionCounters;
use super::sockopt::{self, AoDelete, KeptHeaders};
use crate::supervise::{self, Ending};

/// Connections that the kernel may complete before we accept them.
const BACKLOG: i32 = 4096;
/// Pause after accepting failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}: {source}; {}", self.place(), self.remedy())]
pub struct Unbound {
    /// The address.
    pub address: SocketAddr,
    /// The VRF; `None`: the default VRF.
    pub vrf: Option<Arc<str>>,
    source: io::Error,
    /// The unspecified addresses of both families were requested, so that on a system with one
    /// family this one is not missed.
    covered: bool,
}

impl Unbound {
    /// Whether the problem may go away by itself: an address may be configured later, or a family
    /// become available. Any other problem needs the operator.
    pub fn may_pass(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrNotAvailable || self.lacks_family()
    }

    /// Whether it is no fault: all addresses were requested, and the system has only one family.
    pub fn is_harmless(&self) -> bool {
        self.covered && self.lacks_family()
    }

    fn lacks_family(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EAFNOSUPPORT)
    }

    fn place(&self) -> String {
        self.vrf.as_ref().map_or_else(String::new, |vrf| format!(" in VRF {vrf}"))
    }

    fn remedy(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there: stop it, or listen elsewhere (bgp.listen, or listen \
                 of the VRF)"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => {
                "no interface has this address; it is tried again when one has"
            }
            _ if self.lacks_family() => {
                "the system has no such address family; it is tried again in case it comes"
            }
            _ => "check bgp.listen, or listen of the VRF",
        }
    }
}

/// A connection from an address that lies in a range of dynamic peers.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The address that it comes from.
    pub from: IpAddr,
    /// The VRF in which it was accepted; `None`: the default VRF.
    pub vrf: Option<Arc<str>>,
}

#[derive(Default)]
struct Known {
    peers: HashMap<IpAddr, Neighbor>,
    /// The longest prefix first.
    ranges: Vec<(Prefix, Arc<PeerConfig>)>,
    /// The configured VRFs, which are other ones.
    vrfs: BTreeSet<Arc<str>>,
    /// The listening sockets.
    sockets: Vec<(Family, Weak<TcpListener>)>,
}

/// A peer, and the parameters that its connections must satisfy.
#[derive(Clone)]
struct Neighbor {
    peer: PeerHandle,
    config: Arc<PeerConfig>,
}

/// The peers and ranges that may connect. Clones share it: the accepting tasks, and the daemon that
/// changes it.
#[derive(Clone, Default)]
pub struct Directory {
    known: Arc<RwLock<Known>>,
}

impl Directory {
    /// Adds a peer at the address in its parameters.
    pub fn insert(&self, config: &Arc<PeerConfig>, peer: PeerHandle) {
        let neighbor = Neighbor { peer, config: Arc::clone(config) };
        self.write(|known| known.peers.insert(config.address, neighbor));
    }

    /// Replaces the parameters of a peer, unless another one has its address.
    pub fn set_config(&self, config: &Arc<PeerConfig>, id: bgp_proto::types::PeerId) {
        self.write(|known| {
            if let Some(known) = known.peers.get_mut(&config.address).filter(|k| k.peer.id == id) {
                known.config = Arc::clone(config);
            }
        });
    }

    /// Removes the peer at `address`, unless another has replaced it.
    pub fn remove(&self, address: IpAddr, id: bgp_proto::types::PeerId) {
        self.write(|known| {
            if known.peers.get(&address).is_some_and(|known| known.peer.id == id) {
                known.peers.remove(&address);
            }
        });
    }

    /// Replaces the ranges whose connections may become dynamic peers.
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

    /// The parameters of the longest range that contains `address`.
    fn range(&self, address: IpAddr) -> Option<Arc<PeerConfig>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let range = known.ranges.iter().find(|(range, _)| range.contains_addr(address));
        range.map(|(_, config)| Arc::clone(config))
    }

    /// What the listening sockets have received with TCP-AO, and with the keys of `chain` for `address`.
    pub fn signed_attempts(&self, address: IpAddr, chain: &KeyChain) -> SignedAttempts {
        let host = Prefix::host(off_interface(address).0);
        let mut prefixes = vec![host];
        let mut sockets = Vec::new();
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let around = known.ranges.iter().filter(|(range, _)| range.contains(host));
            prefixes.extend(around.map(|(range, _)| *range));
            let of_family = known.sockets.iter().filter(|(family, _)| *family == host.family());
            sockets.extend(of_family.filter_map(|(_, socket)| socket.upgrade()));
        }
        let mut attempts = SignedAttempts::default();
        sockets.iter().for_each(|socket| attempts.add(socket.as_fd(), &prefixes, chain));
        attempts
    }

    fn has_vrfs(&self) -> bool {
        !self.known.read().unwrap_or_else(PoisonError::into_inner).vrfs.is_empty()
    }

    fn has_vrf(&self, name: &str) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).vrfs.contains(name)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Known) -> T) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The keys of every neighbour and range.
#[derive(Clone, Debug, Default)]
pub struct KeyEntries {
    /// Those of TCP MD5. A neighbour with a chain has none here.
    pub md5: Md5Entries,
    /// Those of TCP-AO.
    pub ao: ChainEntries,
}

/// The keys on one socket.
#[derive(Default)]
struct SocketKeys {
    md5: Installed,
    chains: InstalledChains,
}

impl SocketKeys {
    /// Sets the keys. The kernel takes one kind of key for an address, so that a neighbour that changes
    /// from TCP-AO to TCP MD5 gets the new key once the old one is gone.
    fn apply(&mut self, socket: BorrowedFd<'_>, entries: &KeyEntries, delete: AoDelete) {
        let had_chains = self.chains.holds_any();
        self.md5.apply(socket, &entries.md5);
        self.chains.apply(socket, &entries.ao, unix_now(), delete);
        if had_chains && !self.md5.missing(&entries.md5).is_empty() {
            self.md5.apply(socket, &entries.md5);
        }
    }

    fn faults(&self, entries: &KeyEntries) -> Vec<KeyFault> {
        let count = entries.md5.len();
        let missing = self.md5.missing(&entries.md5).into_iter();
        let mut faults: Vec<KeyFault> =
            missing.map(|(prefix, error)| keys::explain(prefix, &error, count)).collect();
        faults.extend(self.chains.faults(&entries.ao));
        faults
    }
}

struct Bound {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    keys: SocketKeys,
    /// The accepting task. Until it is spawned, connections wait in the kernel's queue.
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.task.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The listening sockets of all VRFs, with their addresses. While `tcp_l3mdev_accept` is 1, those of
/// one VRF keep those of another from being bound. Clones share it.
#[derive(Clone, Default)]
struct Siblings(Arc<Mutex<Vec<Sibling>>>);

struct Sibling {
    address: SocketAddr,
    socket: Weak<TcpListener>,
}

impl Siblings {
    fn add(&self, address: SocketAddr, socket: &Arc<TcpListener>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.socket.strong_count() > 0);
        all.push(Sibling { address, socket: Arc::downgrade(socket) });
    }

    /// Those with a socket at an address that excludes this one.
    fn beside(&self, address: SocketAddr) -> Vec<Arc<TcpListener>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let excludes =
            |other: &&Sibling| other.address == address || overlap(other.address, address);
        all.iter().filter(excludes).filter_map(|other| other.socket.upgrade()).collect()
    }
}

/// The listening sockets.
pub struct Listeners {
    /// The VRF to whose device the sockets are bound.
    vrf: Option<Arc<str>>,
    bound: Vec<Bound>,
    siblings: Siblings,
    directory: Directory,
    dynamic: mpsc::Sender<Accepted>,
    keys: KeyEntries,
    session_counters: SessionCounters,
    /// Descriptor numbers from this one on are not used for BGP connections.
    descriptors_max: u64,
}

impl Listeners {
    /// Without any socket yet. Connections that may become dynamic peers are sent to `dynamic`,
    /// without waiting. A connection whose descriptor is `descriptors_max` or above is closed at
    /// once: the kernel assigns the lowest free number, so this reserves the remaining descriptors
    /// for operators and probes.
    pub fn new(
        directory: Directory,
        dynamic: mpsc::Sender<Accepted>,
        session_counters: SessionCounters,
        descriptors_max: u64,
    ) -> Self {
        let (bound, keys) = (Vec::new(), KeyEntries::default());
        Listeners {
            vrf: None,
            bound,
            siblings: Siblings::default(),
            directory,
            dynamic,
            keys,
            session_counters,
            descriptors_max,
        }
    }

    /// Sets the names of the configured VRFs. Connections that an unbound socket accepts in one of
    /// them are refused.
    pub fn set_vrfs(&self, vrfs: BTreeSet<Arc<str>>) {
        self.directory.write(|known| known.vrfs = vrfs);
    }

    /// Like these, without any socket, for connections in a VRF from the peers in `directory`. The
    /// sockets are bound to the VRF's device, and those of other VRFs may have the same port.
    pub fn in_vrf(&self, vrf: &Arc<str>, directory: Directory) -> Listeners {
        Listeners {
            vrf: Some(Arc::clone(vrf)),
            bound: Vec::new(),
            siblings: self.siblings.clone(),
            directory,
            dynamic: self.dynamic.clone(),
            keys: KeyEntries::default(),
            session_counters: self.session_counters.clone(),
            descriptors_max: self.descriptors_max,
        }
    }

    /// Binds these addresses, with the keys that are set, and closes all others. Connections to new
    /// ones wait until [`Listeners::accept`]. Returns the addresses that cannot be bound yet but
    /// may become available; see [`Listeners::listen_where_possible`] for the sockets that this
    /// keeps open. Keys that the kernel rejects are not an error; see [`Listeners::key_faults`].
    ///
    /// # Errors
    /// An address cannot be bound and will not become available by itself. The sockets are
    /// unchanged.
    pub fn listen(&mut self, addresses: &[SocketAddr]) -> Result<Vec<Unbound>, Unbound> {
        self.exchange(addresses, Unbound::may_pass)
    }

    /// Like [`Listeners::listen`], but tolerates any reason: binds the addresses that can be bound
    /// and returns the others. If an address of a family cannot be bound, existing sockets of that
    /// family stay open.
    pub fn listen_where_possible(&mut self, addresses: &[SocketAddr]) -> Vec<Unbound> {
        self.exchange(addresses, |_| true).unwrap_or_else(|unbound| vec![unbound])
    }

    /// Binds `addresses`. Returns those that cannot be bound if the reason is `tolerated`.
    ///
    /// New sockets are collected before anything is closed, so that an error leaves everything as
    /// it was and no port is without a socket in between.
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
                let vrf = self.vrf.as_deref();
                let bound = match bind(address, vrf, &self.keys, &in_the_way) {
                    Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                        let others = self.siblings.beside(address);
                        let others = in_the_way.into_iter().chain(others.iter().map(|o| &**o));
                        bind(address, vrf, &self.keys, &others.collect::<Vec<_>>())
                    }
                    bound => bound,
                };
                match bound {
                    Ok((socket, keys)) => {
                        fresh.push(Bound { address, socket: Arc::new(socket), keys, task: None });
                    }
                    Err(source) => {
                        let covered = address.ip().is_unspecified()
                            && addresses.iter().any(|other| {
                                other.ip().is_unspecified() && other.is_ipv4() != address.is_ipv4()
                            });
                        let vrf = self.vrf.clone();
                        let unbound = Unbound { address, vrf, source, covered };
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
            match &self.vrf {
                Some(vrf) => info!(%vrf, "listening on {} in VRF {vrf}", bound.address),
                None => info!("listening on {}", bound.address),
            }
            self.siblings.add(bound.address, &bound.socket);
            self.bound.push(bound);
        }
        let family = |bound: &Bound| Prefix::host(bound.address.ip()).family();
        let sockets = self.bound.iter().map(|b| (family(b), Arc::downgrade(&b.socket))).collect();
        self.directory.write(|known| known.sockets = sockets);
        Ok(missing)
    }

    /// Starts accepting. The directory must be complete by then: unknown addresses are reset.
    pub fn accept(&mut self) {
        let mut all = std::mem::take(&mut self.bound);
        for bound in all.iter_mut().filter(|bound| bound.task.is_none()) {
            let socket = Arc::clone(&bound.socket);
            let mut door = Door::of(self);
            let accept = async move { door.accept(&socket).await };
            bound.task = Some(tokio::spawn(supervise::task("listener", Ending::Never, accept)));
        }
        self.bound = all;
    }

    /// Sets the keys of TCP MD5 and TCP-AO: changed keys are replaced, keys that are not in `keys` are
    /// deleted, and keys that the kernel rejected before are tried again.
    pub fn set_keys(&mut self, keys: KeyEntries) {
        self.keys = keys;
        for bound in &mut self.bound {
            let entries = of_family(&self.keys, bound.address);
            bound.keys.apply(bound.socket.as_fd(), &entries, AoDelete::Later);
        }
    }

    /// The neighbours and ranges whose key is not on every listening socket of its family.
    pub fn key_faults(&self) -> Vec<KeyFault> {
        let mut faults: Vec<KeyFault> = Vec::new();
        for bound in &self.bound {
            let entries = of_family(&self.keys, bound.address);
            faults.extend(bound.keys.faults(&entries));
        }
        faults.sort_by_key(|fault| fault.prefix);
        faults.dedup_by_key(|fault| fault.prefix);
        faults
    }
}

fn of_family(keys: &KeyEntries, address: SocketAddr) -> KeyEntries {
    fn of<T: Clone>(entries: &BTreeMap<Prefix, T>, family: Family) -> BTreeMap<Prefix, T> {
        let entries = entries.iter().filter(|(prefix, _)| prefix.family() == family);
        entries.map(|(prefix, key)| (*prefix, key.clone())).collect()
    }
    let ours = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    KeyEntries { md5: of(&keys.md5, ours), ao: of(&keys.ao, ours) }
}

/// Whether a socket at one address keeps the other from being bound although they differ: the ports
/// are equal and one of the addresses is unspecified.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Binds `address` beside sockets of ours that will be closed, so that the port is never closed in
/// between.
fn bind(
    address: SocketAddr,
    vrf: Option<&str>,
    keys: &KeyEntries,
    in_the_way: &[&TcpListener],
) -> io::Result<(TcpListener, SocketKeys)> {
    // SO_REUSEPORT is set only while binding. A socket without it, like that of any other BGP
    // speaker, still cannot bind the port.
    let share = |shared: bool| {
        in_the_way.iter().try_for_each(|socket| SockRef::from(*socket).set_reuse_port(shared))
    };
    let open = || -> io::Result<(TcpListener, SocketKeys)> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if let Some(vrf) = vrf {
            socket.bind_device(Some(vrf.as_bytes()))?;
        }
        // A peer with GTSM expects TTL 255 in our SYN-ACK, which the kernel sends before we know
        // whose connection it is.
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(255)?;
        } else {
            socket.set_ttl_v4(255)?;
        }
        socket.set_reuse_port(!in_the_way.is_empty())?;
        socket.bind(&address.into())?;
        // Before `listen`, so that no connection can be established without its key.
        let mut installed = SocketKeys::default();
        installed.apply(socket.as_fd(), &of_family(keys, address), AoDelete::AtOnce);
        // On a kernel without this option, each connection of a peer that needs the SYN is refused.
        // In a VRF, the header of the link is all that says over which interface a SYN came.
        let has_link =
            vrf.is_some() && sockopt::keep_syn(socket.as_fd(), KeptHeaders::FromLink).is_ok();
        if !has_link {
            let _ = sockopt::keep_syn(socket.as_fd(), KeptHeaders::FromNetwork);
        }
        socket.listen(BACKLOG)?;
        socket.set_reuse_port(false)?;
        Ok((TcpListener::from_std(socket.into())?, installed))
    };
    let opened = share(true).and_then(|()| open());
    // Also if binding failed: the sockets that stay must not remain open to sharing.
    let unshared = share(false);
    opened.and_then(|opened| unshared.map(|()| opened))
}

/// Accepts connections on one listening socket and dispatches them to the peers.
struct Door {
    vrf: Option<Arc<str>>,
    directory: Directory,
    dynamic: mpsc::Sender<Accepted>,
    session_counters: SessionCounters,
    descriptors_max: u64,
    log: RefusalLog,
}

impl Door {
    fn of(listeners: &Listeners) -> Self {
        Door {
            vrf: listeners.vrf.clone(),
            directory: listeners.directory.clone(),
            dynamic: listeners.dynamic.clone(),
            session_counters: listeners.session_counters.clone(),
            descriptors_max: listeners.descriptors_max,
            log: RefusalLog::default(),
        }
    }

    /// Whether a connection was accepted in a configured VRF that is not the socket's: with
    /// `tcp_l3mdev_accept` = 1, an unbound socket accepts connections in all VRFs, where the same
    /// address is another neighbour. Those between link-local addresses are bound to their link, and
    /// all of a process that `ip vrf exec` started to its VRF.
    fn is_of_other_vrf(&self, stream: &TcpStream, from: IpAddr) -> bool {
        if self.vrf.is_some() || off_interface(from).1.is_some() || !self.directory.has_vrfs() {
            return false;
        }
        let Ok(Some(device)) = SockRef::from(stream).device() else { return false };
        std::str::from_utf8(&device).is_ok_and(|device| self.directory.has_vrf(device))
    }

    async fn accept(&mut self, socket: &TcpListener) {
        let mut failures = 0u32;
        loop {
            match socket.accept().await {
                Ok((stream, from)) => {
                    if std::mem::take(&mut failures) > 1 {
                        info!("accepting connections again");
                    }
                    self.admit(stream, address_of(from).to_canonical());
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

    /// Logs once why connections cannot be accepted. Returns whether to pause: a single connection
    /// that was closed before it was accepted is harmless, but an error that repeats at once
    /// is likely to persist.
    fn say(&self, error: &io::Error, failures: u32) -> bool {
        let exhausted = is_exhaustion(error);
        if exhausted && failures == 1 || !exhausted && failures == 2 {
            let remedy = if exhausted {
                "; raise the limit of open files (ulimit -n) if this comes back"
            } else {
                "; tried again five times a second"
            };
            warn!("cannot accept connections for the moment: {error}{remedy}");
        }
        exhausted || failures > 1
    }

    /// The peer that connects from an address. One of Calico may have a link-local address without an
    /// interface: it may be on any.
    fn neighbor(&self, from: IpAddr) -> Option<Neighbor> {
        let known = self.directory.neighbor(from);
        known.or_else(|| self.directory.neighbor(off_interface(from).0))
    }

    /// Gives a connection to its peer, or to the daemon if it comes from a range, or closes it.
    fn admit(&mut self, stream: TcpStream, from: IpAddr) {
        let descriptor = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
        let refusal = if descriptor >= self.descriptors_max {
            (stream, Refusal::Descriptors)
        } else if self.is_of_other_vrf(&stream, from) {
            (stream, Refusal::Stranger)
        } else if let Some(Neighbor { peer, config }) = self.neighbor(from) {
            match examine(&stream, &config) {
                Ok(()) => match peer.connect(stream) {
                    Ok(()) => return,
                    Err(stream) => (stream, Refusal::QueueFull),
                },
                Err(refusal) => (stream, refusal),
            }
        } else if let Some(config) = self.directory.range(from) {
            match examine(&stream, &config) {
                Ok(()) => {
                    match self.dynamic.try_send(Accepted { stream, from, vrf: self.vrf.clone() }) {
                        Ok(()) => return,
                        Err(error) => (error.into_inner().stream, Refusal::RangeBusy),
                    }
                }
                Err(refusal) => (stream, refusal),
            }
        } else {
            (stream, Refusal::Stranger)
        };
        let (stream, why) = refusal;
        if !matches!(why, Refusal::QueueFull | Refusal::RangeBusy) {
            // A reset leaves no socket in TIME-WAIT.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        self.session_counters.connection_refused(from, why);
        self.log.note(from, why, why.text());
    }
}

fn is_exhaustion(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests;
