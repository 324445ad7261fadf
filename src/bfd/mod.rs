//! BFD sessions over real sockets, on a separate thread so that routes and connections cannot delay
//! them.
//!
//! ```text
//!  daemon ──want──▶ [ thread: Sessions ⟷ sockets 3784 (RFC 5881), 4784 (RFC 5883) ] ──Status──▶ daemon
//! ```
//!
//! Here: which sessions exist (one for each [`Target`], shared by all its owners), the sockets, the
//! timer wheel, the kernel-side filter. Not here: the protocol ([`bgp_proto::bfd`]), and the
//! consequences of a session that goes down, which are up to the daemon.
//!
//! Invariants. Requests of the daemon and reports to it are states, not queues: a later one
//! replaces an earlier one, and [`Status::failures`] counts what happened in between. Handling a
//! packet takes no lock that another thread holds for long. The thread reads all waiting packets
//! before it lets a detection time expire, and waits a moment if it was late (`delay`), so that its
//! own delay does not count as a failure of a peer. It has a real-time priority where that is permitted
//! (`priority`), and therefore rests after every turn, however much there is to do.

mod delay;
mod filter;
mod priority;
mod sender;
mod sessions;
mod sockets;
mod thread;
mod wheel;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bgp_proto::bfd::{Cause, Config, Diag, Discard, State};
use bgp_proto::types::{PeerId, Time};
use tokio::sync::{Notify, oneshot};

use crate::engine::Clock;
use crate::supervise;

pub use priority::Scheduling;
pub use sessions::Entered;

/// The name of the thread, and of the part for the supervisor.
const PART: &str = "bfd";

/// The peer on whose behalf a session runs.
pub type Owner = PeerId;

/// How far away the peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hops {
    /// On a common link: UDP port 3784, TTL 255 in both directions (RFC 5881).
    Single,
    /// Any number of hops away: UDP port 4784 (RFC 5883).
    Multi {
        /// Least TTL of packets without our discriminator, 0-255.
        ttl_min: u8,
    },
}

impl Hops {
    fn is_single(self) -> bool {
        self == Hops::Single
    }

    /// The destination port of packets.
    fn port(self) -> u16 {
        match self {
            Hops::Single => 3784,
            Hops::Multi { .. } => 4784,
        }
    }
}

/// The family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// The device of a VRF. One that was made again has another index, and is another VRF.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VrfDevice {
    /// The kernel's index.
    pub index: NonZeroU32,
    /// Its name.
    pub name: Arc<str>,
}

/// A UDP port on which packets are received: one for each kind of session, family and VRF.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    number: u16,
    family: Family,
    vrf: Option<VrfDevice>,
}

impl Port {
    /// Whether it carries sessions over a single hop.
    fn is_single_hop(&self) -> bool {
        self.number == Hops::Single.port()
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UDP port {} ({})", self.number, self.family.name())?;
        self.vrf.iter().try_for_each(|vrf| write!(f, " in VRF {}", vrf.name))
    }
}

/// The key of a session (RFC 5881 §3, RFC 5883 §4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The peer's address.
    pub peer: IpAddr,
    /// Our address; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// Index of the interface, for link-local addresses; `None`: the routing table decides.
    pub interface: Option<NonZeroU32>,
    /// How far away the peer is.
    pub hops: Hops,
    /// The VRF in which the session runs; `None`: the default VRF.
    pub vrf: Option<VrfDevice>,
    /// The interface to which the sending socket is bound; `None`: the routing table decides.
    pub device: Option<Arc<str>>,
}

impl Target {
    fn family(&self) -> Family {
        match self.peer {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The port on which its packets arrive.
    fn port(&self) -> Port {
        Port { number: self.hops.port(), family: self.family(), vrf: self.vrf.clone() }
    }

    /// Sorts before every other target with this peer.
    fn first_with(peer: IpAddr) -> Target {
        Target { peer, local: None, interface: None, hops: Hops::Single, vrf: None, device: None }
    }

    fn takes_from(&self, arrival: &sessions::Arrival) -> bool {
        let vrf = self.vrf.as_ref().map(|vrf| vrf.index);
        // In a VRF, the kernel gives its device as the scope of link-local sources.
        let is_scope = |index: NonZeroU32| {
            [0, index.get()].contains(&arrival.scope)
                || vrf.is_some_and(|vrf| arrival.scope == vrf.get())
        };
        self.peer == arrival.source
            && self.hops.is_single() == arrival.is_single_hop
            && vrf == arrival.vrf
            && self.interface.is_none_or(is_scope)
    }
}

/// A session that an owner requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The peer, and how to reach it.
    pub target: Target,
    /// Timers, role and authentication.
    pub config: Config,
}

/// Why a session last left Up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// The cause.
    pub cause: Cause,
    /// The diagnostic that is sent to the peer.
    pub diag: Diag,
    /// When the session left Up.
    pub at: Time,
}

/// The status of a session, as reported to its owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Our state.
    pub state: State,
    /// When this state was entered.
    pub since: Time,
    /// How often it left Up because the path or the peer failed; AdminDown of either side does not
    /// count.
    pub failures: u64,
    /// Why it last left Up; `None`: it never did.
    pub last_down: Option<Down>,
    /// Whether the peer's BFD is independent of its control plane: the C bit of its last packet.
    pub control_plane_independent: bool,
}

/// The state of all sessions, for `show bfd` and the metrics.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The sessions, by target.
    pub sessions: Vec<Entered>,
    /// How often sessions failed since the start, including removed sessions.
    pub failures: u64,
    /// Packets that were dropped, by reason.
    pub discards: BTreeMap<Discard, u64>,
    /// Packets that the kernel dropped because too many arrived for no established session.
    pub overflows: u64,
    /// Problems that keep sessions from working, for the operator.
    pub problems: Vec<String>,
    /// How the kernel schedules the thread; `None`: there was no session yet.
    pub scheduling: Option<Scheduling>,
    /// The greatest delay with which the thread has handled a deadline.
    pub late_max: Duration,
}

/// The running BFD thread.
#[derive(Debug)]
pub struct Bfd {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// A handle to the BFD thread. Clones share it.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The latest request of each owner that the thread has not taken. Bounded by the number of
    /// peers.
    requested: Mutex<BTreeMap<Owner, Option<Wanted>>>,
    /// The latest status for each owner that the daemon has not taken. Bounded likewise.
    statuses: Mutex<BTreeMap<Owner, Option<Status>>>,
    status_changed: Notify,
    /// Callers that wait for a view. Bounded by the number of control clients.
    questions: Mutex<Vec<oneshot::Sender<View>>>,
    stopping: AtomicBool,
    /// Wakes the thread.
    wake: OwnedFd,
}

impl Bfd {
    /// Starts the thread. It sleeps until a session is requested, and opens no socket before that.
    ///
    /// # Errors
    /// A descriptor or the thread cannot be created.
    pub fn start(clock: Clock) -> io::Result<Bfd> {
        let handle = Handle::new()?;
        let worker = thread::Worker::new(handle.clone(), clock)?;
        let guard = supervise::part(PART);
        let thread = std::thread::Builder::new().name(PART.to_owned()).spawn(move || {
            guard.run(|| worker.run());
            guard.finish();
        })?;
        Ok(Bfd { handle, thread })
    }

    /// A handle for requesting sessions.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sends AdminDown to every peer, so that none mistakes our stop for a failure (RFC 5882 §4.2),
    /// and ends the thread.
    pub fn stop(self) {
        self.handle.0.stopping.store(true, Ordering::Release);
        self.handle.wake();
        // A panic of the thread was logged when it happened.
        let _ = self.thread.join();
    }
}

impl Handle {
    fn new() -> io::Result<Handle> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Ok(Handle(Arc::new(Shared {
            requested: Mutex::default(),
            statuses: Mutex::default(),
            status_changed: Notify::new(),
            questions: Mutex::default(),
            stopping: AtomicBool::new(false),
            wake: rustix::event::eventfd(0, flags)?,
        })))
    }

    /// Requests a session for `owner`; `None` requests none. The last request applies.
    pub fn want(&self, owner: Owner, wanted: Option<Wanted>) {
        lock(&self.0.requested).insert(owner, wanted);
        self.wake();
    }

    /// Completes when [`Handle::take_changes`] has something to return.
    pub async fn changed(&self) {
        self.0.status_changed.notified().await;
    }

    /// The statuses that changed since the last call; `None`: the owner has no session any more.
    pub fn take_changes(&self) -> BTreeMap<Owner, Option<Status>> {
        std::mem::take(&mut *lock(&self.0.statuses))
    }

    /// The state of all sessions; `None` if the thread has ended.
    pub async fn view(&self) -> Option<View> {
        let (reply, answer) = oneshot::channel();
        lock(&self.0.questions).push(reply);
        self.wake();
        answer.await.ok()
    }

    fn wake(&self) {
        // An error means that the counter is full, so the thread is being woken already.
        let _ = rustix::io::write(self.0.wake.as_fd(), &1_u64.to_ne_bytes());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
