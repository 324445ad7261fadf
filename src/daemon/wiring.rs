//! The adapters between the table's thread and the kernel's.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bgp_proto::types::{FibRoute, Prefix};
use tokio::sync::{Notify, mpsc};

use crate::engine::{Event, Handle, Sink};
use crate::fib::{Fib, FibEvent, Link};

use crate::net::Recovery;

use super::next_hops::NextHops;
use super::redistribution::Redistribution;

/// Takes the table's results to the kernel and to the daemon.
pub(super) struct Outputs {
    pub(super) fib: Fib,
    pub(super) next_hops: NextHops,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Sink for Outputs {
    fn fib(&mut self, changes: Vec<(Prefix, Option<FibRoute>)>) {
        self.fib.submit(changes);
    }

    fn track(&mut self, addr: IpAddr) {
        self.next_hops.track(addr, &self.fib);
    }

    fn untrack(&mut self, addr: IpAddr) {
        self.next_hops.untrack(addr, &self.fib);
    }

    fn event(&mut self, event: Event) {
        // An error means that the daemon is on its way out.
        let _ = self.events.send(event);
    }
}

/// Where the kernel's news go; the table's handle exists only after the kernel's thread.
pub(super) type LateHandle = Arc<OnceLock<Handle>>;

/// What the kernel's news concern besides the table itself.
pub(super) struct FibNews {
    pub(super) table: LateHandle,
    pub(super) routes: Redistribution,
    pub(super) next_hops: NextHops,
    /// Told when links or addresses changed.
    pub(super) links: Arc<Notify>,
    /// Told what the kernel still forwarded.
    pub(super) recovery: Recovery,
    /// Whether the kernel's routes are ours to write.
    pub(super) writes: bool,
    /// Told when the kernel was read for the first time.
    pub(super) synchronised: Arc<Notify>,
}

impl FibNews {
    /// Takes the kernel's news to the table.
    pub(super) fn handle(&self, event: FibEvent) {
        if let FibEvent::Synchronised { adopted } = event {
            // A reflector that writes nothing has nothing to lose.
            if self.writes && adopted == 0 {
                self.recovery.forwarding_lost();
            }
            self.synchronised.notify_one();
        }
        let Some(table) = self.table.get() else { return };
        match event {
            FibEvent::NextHop { addr, state } => self.next_hops.handle_report(addr, state, table),
            FibEvent::Learned { route } => self.routes.handle_learned(route, table),
            FibEvent::Forgotten { prefix, connected } => {
                self.routes.handle_forgotten(prefix, connected, table);
            }
            FibEvent::LinksChanged | FibEvent::Synchronised { .. } => self.links.notify_one(),
        }
    }
}

/// Our address of the other family on the interface that has `address`: the first that a router
/// beyond the link can send to.
pub(super) fn beside(links: &[Link], address: IpAddr) -> Option<IpAddr> {
    let has = |link: &&Link| link.addresses.iter().any(|(own, _)| *own == address);
    let addresses = links.iter().find(has)?.addresses.iter().map(|(own, _)| *own);
    addresses.filter(|own| own.is_ipv4() != address.is_ipv4()).find(|own| match own {
        IpAddr::V4(own) => !own.is_loopback() && !own.is_link_local(),
        IpAddr::V6(own) => !own.is_loopback() && !own.is_unicast_link_local(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::LinkTraits;

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
    fn the_other_address_is_on_the_same_interface_and_reaches_beyond_it() {
        let links = [
            link(&["127.0.0.1", "::1"]),
            link(&["192.0.2.1", "fe80::1", "2001:db8::1", "2001:db8::2"]),
            link(&["198.51.100.1", "2001:db8:1::1"]),
        ];
        let find =
            |address: &str| beside(&links, address.parse().unwrap()).map(|found| found.to_string());
        assert_eq!(find("192.0.2.1").as_deref(), Some("2001:db8::1"));
        assert_eq!(find("2001:db8:1::1").as_deref(), Some("198.51.100.1"));
        assert_eq!(find("127.0.0.1"), None, "nobody can send to ::1");
        assert_eq!(find("203.0.113.1"), None);
    }
}
