//! Finds the neighbours on links without addresses of their own, by router advertisements (RFC 4861).
//!
//! The contract with the daemon: it says on which interfaces neighbours are wanted
//! ([`Discovery::follow`]), and is told that something changed ([`Discovery::changed`]); then
//! [`Discovery::neighbor`] is the present answer for an interface. It is state, not a queue: however
//! often a neighbour changes, one answer is kept for each interface.
//!
//! Each interface has a task with sockets of its own, so that a flood on one link delays no other. Once
//! the neighbour is known, its packets come to a socket of their own ([`socket`]): forged packets from
//! other addresses cannot push them out. Who the neighbour is, and when something is sent, is decided by
//! [`bgp_proto::ndp::Link`].

mod link;
mod socket;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bgp_proto::ndp::Stats;
use tokio::sync::{Notify, watch};

use crate::engine::Clock;
use crate::supervise::{self, Ending};

/// An interface on which the neighbour is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The kernel's index.
    pub ifindex: u32,
    /// Its name, for the log.
    pub name: Arc<str>,
    /// Whether router advertisements are sent.
    pub advertises: bool,
    /// Our link-local address on it; `None`: there is none, or the link is down.
    pub local: Option<Ipv6Addr>,
}

/// What is known of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The neighbour's link-local address.
    pub neighbor: Option<Ipv6Addr>,
    /// Why nothing can be received, with what to do about it.
    pub fault: Option<Arc<str>>,
    /// Counters.
    pub stats: Stats,
}

/// The statuses by interface. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Mutex<BTreeMap<u32, Status>>>);

impl Statuses {
    /// The status of an interface; `None`: no neighbour is wanted on it.
    pub fn get(&self, ifindex: u32) -> Option<Status> {
        self.lock().get(&ifindex).cloned()
    }

    /// The sum of all counters.
    pub fn total(&self) -> Stats {
        let mut total = Stats::default();
        for status in self.lock().values() {
            let Stats { advertisements, solicitations, sent, discarded } = status.stats;
            total.advertisements += advertisements;
            total.solicitations += solicitations;
            total.sent += sent;
            total.discarded.iter_mut().zip(discarded).for_each(|(sum, count)| *sum += count);
        }
        total
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Status>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks, one for each interface.
#[derive(Debug)]
pub struct Discovery {
    clock: Clock,
    seed: u64,
    tasks: BTreeMap<u32, Task>,
    statuses: Statuses,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Task {
    wanted: watch::Sender<Wanted>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery {
    /// Without any interface yet; `seed` is for the intervals between packets.
    pub fn new(clock: Clock, seed: u64) -> Discovery {
        Discovery {
            clock,
            seed,
            tasks: BTreeMap::new(),
            statuses: Statuses::default(),
            changed: Arc::default(),
        }
    }

    /// The statuses, which stay up to date.
    pub fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }

    /// Notified when a neighbour or a fault has changed.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The neighbour on an interface.
    pub fn neighbor(&self, ifindex: u32) -> Option<Ipv6Addr> {
        self.statuses.lock().get(&ifindex)?.neighbor
    }

    /// Replaces the interfaces. What is known of those that stay is kept.
    pub fn follow(&mut self, wanted: Vec<Wanted>) {
        let mut before = std::mem::take(&mut self.tasks);
        for wanted in wanted {
            let ifindex = wanted.ifindex;
            let task = match before.remove(&ifindex) {
                Some(task) => {
                    task.wanted.send_if_modified(|known| {
                        let differs = *known != wanted;
                        *known = wanted;
                        differs
                    });
                    task
                }
                None => self.spawn(wanted),
            };
            self.tasks.insert(ifindex, task);
        }
        for (ifindex, task) in before {
            drop(task);
            self.statuses.lock().remove(&ifindex);
        }
    }

    fn spawn(&mut self, wanted: Wanted) -> Task {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.statuses.lock().insert(wanted.ifindex, Status::default());
        let (sender, receiver) = watch::channel(wanted);
        let report = link::Report::new(&self.statuses, &self.changed);
        let runs = link::run(receiver, self.clock, self.seed, report);
        // It ends only with its channel, which this holds.
        let task = tokio::spawn(supervise::task("discovery", Ending::Allowed, runs));
        Task { wanted: sender, task }
    }
}
