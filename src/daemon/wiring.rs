//! The table thread and the kernel thread, and the adapters between them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bgp_proto::types::{FibChange, Prefix};
use tokio::sync::{Notify, mpsc};

use crate::config::Config;
use crate::engine::{Clock, Engine, Event, Handle, Sink};
use crate::kernel::{Fib, FibConfig, FibEvent, Link, NextHopForm, ResolveOver, RouteDefaults};
use crate::net::{FindOtherAddresses, OtherAddresses, RestartState};

use super::Error;
use super::leaks::OffersWait;
use super::next_hops::NextHops;
use super::redistribution::Redistribution;

/// The two threads, connected to each other, and what they report to the daemon.
pub(super) struct Threads {
    pub(super) engine: Engine,
    pub(super) fib: Fib,
    pub(super) redistribution: Redistribution,
    pub(super) next_hops: NextHops,
    /// Updated after the first dump: whether the kernel still had routes of ours.
    pub(super) recovery: RestartState,
    /// Notified after the first dump of the kernel's routes.
    pub(super) synchronised: Arc<Notify>,
    /// Closes the way from the table to the kernel.
    pub(super) gate: KernelGate,
}

/// What the threads of all VRFs report to.
#[derive(Clone)]
pub(super) struct Reports {
    pub(super) clock: Clock,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Notified when links or addresses have changed.
    pub(super) links: Arc<Notify>,
    /// Told when routes wait to be imported into other VRFs.
    pub(super) offers: OffersWait,
}

impl Reports {
    pub(super) fn new(events: mpsc::UnboundedSender<Event>) -> Reports {
        let (links, offers) = (Arc::new(Notify::new()), OffersWait::default());
        Reports { clock: Clock::start(), events, links, offers }
    }
}

/// Whether the table's changes reach the kernel. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct KernelGate(Arc<AtomicBool>);

impl KernelGate {
    /// From here on the table's decisions no longer change the kernel's routes.
    pub(super) fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Threads {
    /// Starts both threads for the VRF whose routing table is `routes_in`; `seed` is for the table's
    /// random choices.
    ///
    /// # Errors
    /// The kernel cannot be used, or a thread cannot be created.
    pub(super) fn start(
        config: &Config,
        routes_in: u32,
        seed: u64,
        reports: &Reports,
    ) -> Result<Threads, Error> {
        let table = LateHandle::default();
        let (redistribution, next_hops) = (Redistribution::default(), NextHops::default());
        let synchronised = Arc::new(Notify::new());
        let recovery = RestartState::begin();
        let news = KernelEvents {
            table: Arc::clone(&table),
            routes: redistribution.clone(),
            next_hops: next_hops.clone(),
            links: Arc::clone(&reports.links),
            recovery: recovery.clone(),
            writes: config.fib.enabled,
            synchronised: Arc::clone(&synchronised),
        };
        let settings = FibConfig {
            enabled: config.fib.enabled,
            table: routes_in,
            protocol: config.fib.protocol,
            defaults: RouteDefaults {
                metric: config.fib.metric,
                source_v4: config.fib.source_v4,
                source_v6: config.fib.source_v6,
            },
            resolve_over: if config.fib.resolve_over_bgp {
                ResolveOver::Direct
            } else {
                ResolveOver::Kernel
            },
            next_hops: if config.fib.next_hop_objects {
                NextHopForm::Objects
            } else {
                NextHopForm::Inline
            },
        };
        let fib = Fib::start(settings, move |event| news.handle(event))?;
        next_hops.also_tell(fib.resolutions());
        let gate = KernelGate::default();
        let outputs = Outputs {
            fib: fib.clone(),
            next_hops: next_hops.clone(),
            events: reports.events.clone(),
            gate: gate.clone(),
            offers: reports.offers.clone(),
        };
        let engine = Engine::start(Arc::clone(&config.table), seed, reports.clock, outputs)?;
        // Cannot fail: it is set only here.
        let _ = table.set(engine.handle().clone());
        Ok(Threads { engine, fib, redistribution, next_hops, recovery, synchronised, gate })
    }
}

/// Finds our other addresses on a connection's interface, among the links of `fib` for which
/// `is_there` holds.
pub(super) fn find_beside(
    fib: Fib,
    is_there: impl Fn(&Link) -> bool + Send + Sync + 'static,
) -> FindOtherAddresses {
    Arc::new(move |ours, peers| {
        let links = fib.links();
        beside(links.iter().filter(|link| is_there(link)), ours, peers)
    })
}

/// Passes the table's results on to the kernel and to the daemon.
struct Outputs {
    fib: Fib,
    next_hops: NextHops,
    events: mpsc::UnboundedSender<Event>,
    gate: KernelGate,
    offers: OffersWait,
}

impl Sink for Outputs {
    fn offers(&mut self) {
        self.offers.begin();
    }

    fn fib(&mut self, changes: Vec<(Prefix, FibChange)>) {
        if !self.gate.is_closed() {
            self.fib.submit(changes);
        }
    }

    fn track(&mut self, addr: IpAddr) {
        self.next_hops.track(addr, &self.fib);
    }

    fn untrack(&mut self, addr: IpAddr) {
        self.next_hops.untrack(addr, &self.fib);
    }

    fn event(&mut self, event: Event) {
        // An error means that the daemon is stopping.
        let _ = self.events.send(event);
    }
}

/// The table's handle, which exists only after the kernel thread has started.
type LateHandle = Arc<OnceLock<Handle>>;

/// Passes the kernel's events on to the table and to the daemon.
struct KernelEvents {
    table: LateHandle,
    routes: Redistribution,
    next_hops: NextHops,
    /// Notified when links or addresses have changed.
    links: Arc<Notify>,
    /// Updated after the first dump: whether the kernel still had routes of ours.
    recovery: RestartState,
    /// Whether we install routes in the kernel.
    writes: bool,
    /// Notified after the first dump of the kernel's routes.
    synchronised: Arc<Notify>,
}

impl KernelEvents {
    /// Handles one event of the kernel thread.
    fn handle(&self, event: FibEvent) {
        if let FibEvent::Synchronised { adopted } = event {
            // A route reflector that installs no routes has no forwarding state to lose.
            if self.writes && adopted == 0 {
                self.recovery.forwarding_lost();
            }
            self.synchronised.notify_one();
        }
        if matches!(event, FibEvent::LinksChanged | FibEvent::Synchronised { .. }) {
            // The first reading may be done before the table exists.
            self.links.notify_one();
        }
        let Some(table) = self.table.get() else { return };
        match event {
            FibEvent::NextHop { addr, state } => self.next_hops.handle_report(addr, state, table),
            FibEvent::Learned { route } => self.routes.handle_learned(route, table),
            FibEvent::Forgotten { prefix, connected } => {
                self.routes.handle_forgotten(prefix, connected, table);
            }
            FibEvent::LinksChanged | FibEvent::Synchronised { .. } => {}
        }
    }
}

/// Our other addresses on the interface that has `ours`. Of the other family: the first one that is
/// neither loopback nor link-local.
pub(super) fn beside<'a>(
    mut links: impl Iterator<Item = &'a Link>,
    ours: IpAddr,
    peers: IpAddr,
) -> OtherAddresses {
    let has = |link: &&Link| link.own_addresses().any(|own| own == ours);
    let Some(link) = links.find(has) else { return OtherAddresses::default() };
    let addresses = || link.addresses.iter().map(|(own, _)| *own);
    let other_family =
        addresses().filter(|own| own.is_ipv4() != ours.is_ipv4()).find(|own| match own {
            IpAddr::V4(own) => !own.is_loopback() && !own.is_link_local(),
            IpAddr::V6(own) => !own.is_loopback() && !own.is_unicast_link_local(),
        });
    let covers_peer = |(own, len): &(IpAddr, u8)| Prefix::new(*own, *len).contains_addr(peers);
    OtherAddresses {
        other_family,
        // On a session between link-local addresses, ours is the next hop already.
        link_local: link.link_local().filter(|_| link.addresses.iter().any(covers_peer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LinkTraits;

    fn link(addresses: &[&str]) -> Link {
        Link {
            index: 1,
            name: "eth0".into(),
            up: true,
            running: true,
            traits: LinkTraits::default(),
            mtu: 1500,
            addresses: addresses.iter().map(|a| (a.parse().unwrap(), 24)).collect(),
        }
    }

    #[test]
    fn the_other_address_is_on_the_same_interface_and_not_link_local() {
        let links = [
            link(&["127.0.0.1", "::1"]),
            link(&["192.0.2.1", "fe80::1", "2001:db8::1", "2001:db8::2"]),
            link(&["198.51.100.1", "2001:db8:1::1"]),
        ];
        let find = |address: &str| {
            let found =
                beside(links.iter(), address.parse().unwrap(), IpAddr::from([192, 0, 2, 9]));
            found.other_family.map(|found| found.to_string())
        };
        assert_eq!(find("192.0.2.1").as_deref(), Some("2001:db8::1"));
        assert_eq!(find("2001:db8:1::1").as_deref(), Some("198.51.100.1"));
        assert_eq!(find("127.0.0.1"), None, "::1 is no next hop");
        assert_eq!(find("203.0.113.1"), None);
    }

    #[test]
    fn the_link_local_address_is_for_neighbours_on_the_link() {
        let links = [link(&["fe80::7", "2001:db8::1"]), link(&["2001:db8:1::1"])];
        let find = |ours: &str, peers: &str| {
            let found = beside(links.iter(), ours.parse().unwrap(), peers.parse().unwrap());
            found.link_local.map(|found| found.to_string())
        };
        assert_eq!(find("2001:db8::1", "2001:db8::2").as_deref(), Some("fe80::7"));
        assert_eq!(find("2001:db8::1", "2001:dead::2"), None, "behind a router");
        assert_eq!(find("2001:db8:1::1", "2001:db8:1::2"), None, "the link has none");
    }
}
