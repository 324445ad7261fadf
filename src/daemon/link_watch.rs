//! Links and addresses that come and go, with the sessions and next hops that use them.
//!
//! Only what something depends on is reported: a Calico node has an interface for each pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{PeerId, Prefix, off_interface};
use tracing::{info, warn};

use super::registry::{Record, Registry};
use crate::event_names::{ADDRESS_ADDED, ADDRESS_REMOVED, LINK_DOWN, LINK_UP};
use crate::kernel::Link;
use crate::plural::counted;

/// Maximum number of peers that one line names.
const NAMES_MAX: usize = 10;

/// Compares the links with those of the last check.
#[derive(Debug, Default)]
pub(super) struct LinkWatch {
    before: Arc<[Link]>,
    /// Reported links, by name, that have not come back.
    down: BTreeSet<String>,
    /// Reported addresses that have not come back.
    removed: BTreeSet<IpAddr>,
}

/// One change of a link or address.
#[derive(Debug, PartialEq, Eq)]
enum Change<'l> {
    /// The link went down, lost its carrier or was removed; the text says which.
    Down(&'l Link, &'static str),
    /// The link has a carrier again.
    Up(&'l str),
    /// An address was removed from a link that still exists.
    Removed(IpAddr, &'l Link),
    /// The address is there again.
    Added(IpAddr, &'l str),
}

/// What uses a link or an address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Users {
    /// The VRF of the link; `None`: the default VRF.
    vrf: Option<Arc<str>>,
    peers: Vec<Arc<str>>,
    next_hops: usize,
}

impl LinkWatch {
    /// Reports what has changed. `ended` are the local addresses of sessions that end because of it;
    /// `vrf_of` returns the VRF of a link, and `next_hops` the next hops in use in a VRF.
    pub(super) fn handle(
        &mut self,
        links: Arc<[Link]>,
        registry: &Registry,
        ended: &BTreeMap<PeerId, IpAddr>,
        (vrf_of, next_hops): (
            impl Fn(&Link) -> Option<Arc<str>>,
            impl Fn(Option<&Arc<str>>) -> BTreeSet<IpAddr>,
        ),
    ) {
        let before = std::mem::replace(&mut self.before, Arc::clone(&links));
        let changes = self.changes(&before, &links);
        let is_lost =
            |change: &Change<'_>| matches!(change, Change::Down(..) | Change::Removed(..));
        let interfaces =
            if changes.iter().any(is_lost) { registry.interfaces() } else { BTreeSet::new() };
        // Links of pods have no address but a link-local one: only peers by interface may use them.
        let may_be_used = |change: &Change<'_>| match change {
            Change::Down(link, _) => {
                interfaces.contains(link.name.as_str()) || addresses(link).next().is_some()
            }
            Change::Removed(..) => true,
            Change::Up(_) | Change::Added(..) => false,
        };
        if !changes.iter().any(may_be_used) {
            changes.into_iter().for_each(|change| self.report(&change, &Users::default()));
            return;
        }
        let records = registry.all();
        let mut known = BTreeMap::new();
        for change in changes {
            let users = match &change {
                Change::Down(link, _) | Change::Removed(_, link) if may_be_used(&change) => {
                    // The same addresses may be in several VRFs.
                    let vrf = vrf_of(link);
                    let there = || next_hops(vrf.as_ref());
                    let next_hops = known.entry(vrf.clone()).or_insert_with(there);
                    users(&change, vrf, &records, ended, next_hops)
                }
                _ => Users::default(),
            };
            self.report(&change, &users);
        }
    }

    fn changes<'l>(&self, before: &'l [Link], now: &'l [Link]) -> Vec<Change<'l>> {
        let by_index: BTreeMap<u32, &Link> = now.iter().map(|link| (link.index, link)).collect();
        let mut changes = Vec::new();
        for link in before {
            let is_lost = match by_index.get(&link.index) {
                None => link.up.then_some("was removed"),
                Some(now) if link.up && !now.up => Some("is down"),
                Some(now) if link.running && !now.running => Some("has no carrier"),
                Some(_) => None,
            };
            changes.extend(is_lost.map(|how| Change::Down(link, how)));
            // A link may have thousands.
            if let Some(now) = by_index.get(&link.index).filter(|n| n.addresses != link.addresses) {
                let left: BTreeSet<IpAddr> = now.addresses.iter().map(|(addr, _)| *addr).collect();
                let gone = addresses(link).map(|(addr, _)| *addr).filter(|a| !left.contains(a));
                changes.extend(gone.map(|addr| Change::Removed(addr, link)));
            }
        }
        for link in now {
            if link.running && self.down.contains(&link.name) {
                changes.push(Change::Up(&link.name));
            }
            let back = link.addresses.iter().filter(|(addr, _)| self.removed.contains(addr));
            changes.extend(back.map(|(addr, _)| Change::Added(*addr, &link.name)));
        }
        changes
    }

    fn report(&mut self, change: &Change<'_>, users: &Users) {
        match change {
            Change::Down(link, how) if !users.is_empty() => {
                self.down.insert(link.name.clone());
                warn!(event = LINK_DOWN, object = %link.name, "{} {how}: {users}", link.name);
            }
            Change::Removed(addr, link) if !users.peers.is_empty() => {
                self.removed.insert(*addr);
                warn!(event = ADDRESS_REMOVED, object = %addr, "{addr} was removed from {}: {users}", link.name);
            }
            Change::Up(name) => {
                self.down.remove(*name);
                info!(event = LINK_UP, object = %name, "{name} is up again");
            }
            Change::Added(addr, link) => {
                self.removed.remove(addr);
                info!(event = ADDRESS_ADDED, object = %addr, "{addr} is on {link} again");
            }
            Change::Down(..) | Change::Removed(..) => {}
        }
    }
}

impl Users {
    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.next_hops == 0
    }
}

impl std::fmt::Display for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Users { vrf, peers, next_hops } = self;
        vrf.iter().try_for_each(|vrf| write!(f, "in VRF {vrf}, "))?;
        let (count, hops) = (counted(peers.len(), "peer"), counted(*next_hops, "next hop"));
        let verb = if peers.len() + *next_hops == 1 { "uses" } else { "use" };
        write!(f, "{count} and {hops} {verb} it")?;
        if !peers.is_empty() {
            let more = if peers.len() > NAMES_MAX { ", …" } else { "" };
            let names: Vec<&str> = peers.iter().take(NAMES_MAX).map(|name| &**name).collect();
            write!(f, " ({}{more})", names.join(", "))?;
        }
        Ok(())
    }
}

/// The addresses of a link that are not link-local. Every link has one of those, in the same network.
fn addresses(link: &Link) -> impl Iterator<Item = &(IpAddr, u8)> {
    link.addresses.iter().filter(|(addr, _)| !is_link_local(addr))
}

fn is_link_local(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// The peers and next hops in a VRF that use a link or address that was lost there. `next_hops` are
/// those in use in this VRF.
fn users(
    change: &Change<'_>,
    vrf: Option<Arc<str>>,
    records: &[Arc<Record>],
    ended: &BTreeMap<PeerId, IpAddr>,
    next_hops: &BTreeSet<IpAddr>,
) -> Users {
    let (own, networks, link): (Vec<IpAddr>, Vec<Prefix>, _) = match change {
        Change::Down(link, _) => (
            link.own_addresses().collect(),
            addresses(link).map(|(addr, len)| Prefix::new(*addr, *len)).collect(),
            Some(link),
        ),
        Change::Removed(addr, _) => (vec![*addr], Vec::new(), None),
        Change::Up(_) | Change::Added(..) => return Users::default(),
    };
    let is_on_link = |addr: IpAddr| {
        let ifindex = off_interface(addr).1;
        ifindex.is_some_and(|ifindex| link.is_some_and(|link| link.index == ifindex.get()))
    };
    let is_in_network =
        |addr: &IpAddr| is_on_link(*addr) || networks.iter().any(|net| net.contains_addr(*addr));
    let is_by_interface =
        |record: &Record| link.is_some_and(|l| record.interface.as_deref() == Some(&l.name));
    let uses = |record: &&Arc<Record>| {
        let source = record.session.source_address;
        let is_direct =
            is_by_interface(record) || source.is_some_and(|source| own.contains(&source));
        is_direct || {
            let negotiated = record.handle.snapshot().negotiated;
            let local = negotiated.map(|session| session.local_addr);
            match local.or_else(|| ended.get(&record.id).copied()) {
                Some(local) => own.contains(&local),
                None => source.is_none() && is_in_network(&record.address),
            }
        }
    };
    let is_there = |record: &&Arc<Record>| record.session.vrf == vrf;
    let users = records.iter().filter(is_there).filter(uses);
    let peers = users.map(|record| Arc::clone(&record.name)).collect();
    let next_hops = next_hops.iter().filter(|addr| is_in_network(addr)).count();
    Users { vrf, peers, next_hops }
}

#[cfg(test)]
mod tests {
    use bgp_proto::table::PeerRoutes;
    use bgp_proto::types::on_interface;

    use super::*;
    use crate::config::Fallover;
    use crate::daemon::registry::{Place, Presence};
    use crate::kernel::LinkTraits;
    use crate::net::testing::{config, engine, spawn};
    use crate::net::{AdminShutdown, Lifetime};

    fn link(index: u32, up: bool, running: bool, addresses: &[&str]) -> Link {
        Link {
            index,
            name: format!("eth{index}"),
            up,
            running,
            traits: LinkTraits::default(),
            mtu: 1500,
            addresses: addresses.iter().map(|addr| (addr.parse().unwrap(), 24)).collect(),
        }
    }

    fn changes(watch: &LinkWatch, before: &[Link], now: &[Link]) -> Vec<String> {
        let text = |change: Change<'_>| match change {
            Change::Down(link, how) => format!("{} {how}", link.name),
            Change::Up(name) => format!("{name} up"),
            Change::Removed(addr, link) => format!("{addr} off {}", link.name),
            Change::Added(addr, name) => format!("{addr} on {name}"),
        };
        watch.changes(before, now).into_iter().map(text).collect()
    }

    #[test]
    fn losses_are_found_and_returns_only_of_what_was_reported() {
        let mut watch = LinkWatch::default();
        let good = [link(1, true, true, &["192.0.2.1", "192.0.2.2"])];
        let of = |before: &[Link], now: &[Link]| changes(&LinkWatch::default(), before, now);
        assert_eq!(of(&good, &good), [""; 0]);
        assert_eq!(
            of(&good, &[link(1, false, false, &["192.0.2.1", "192.0.2.2"])]),
            ["eth1 is down"]
        );
        let no_carrier = [link(1, true, false, &["192.0.2.1", "192.0.2.2"])];
        assert_eq!(of(&good, &no_carrier), ["eth1 has no carrier"]);
        assert_eq!(of(&no_carrier, &good), [""; 0], "it was not reported");
        assert_eq!(of(&good, &[]), ["eth1 was removed"]);
        let one = [link(1, true, true, &["192.0.2.2"])];
        assert_eq!(of(&good, &one), ["192.0.2.1 off eth1"]);
        watch.down.insert("eth1".into());
        watch.removed.insert("192.0.2.1".parse().unwrap());
        assert_eq!(changes(&watch, &no_carrier, &good), ["eth1 up", "192.0.2.1 on eth1"]);
    }

    #[tokio::test]
    async fn a_link_with_a_link_local_address_only_is_used_by_its_own_peer() {
        let engine = engine();
        let far = on_interface("fe80::2".parse().unwrap(), 9);
        let (handle, _events) = spawn(&engine, 1, config(far));
        let registry = Registry::default();
        registry.insert(Record {
            id: PeerId(1),
            name: "eth9".into(),
            description: None,
            address: far,
            place: Place::of(engine.handle()),
            session: Arc::new(config(far)),
            routes: Arc::new(PeerRoutes::new("eth9")),
            bfd: None,
            fallover: Fallover::default(),
            lifetime: Lifetime::Configured,
            interface: Some("eth9".into()),
            range: None,
            handle,
            presence: Presence::Stays,
            shutdown: AdminShutdown::default(),
        });
        let mut watch = LinkWatch::default();
        let asked = std::cell::Cell::new(0);
        let mut handle = |links: &[Link]| {
            let next_hops = |_: Option<&Arc<str>>| {
                asked.set(asked.get() + 1);
                BTreeSet::new()
            };
            watch.handle(links.into(), &registry, &BTreeMap::new(), (|_: &Link| None, next_hops));
            watch.down.iter().cloned().collect::<Vec<_>>()
        };
        let links = [7, 9].map(|index| link(index, true, true, &["fe80::1"]));
        assert_eq!(handle(&links), [""; 0]);
        assert_eq!(handle(&links[1..]), [""; 0], "the link of a pod");
        assert_eq!(handle(&[]), ["eth9"]);
        assert_eq!(asked.get(), 1);
        engine.stop();
    }

    #[test]
    fn only_what_is_used_is_reported() {
        let change = |n| link(n, true, true, &["192.0.2.1"]);
        let next_hops = BTreeSet::from(["192.0.2.9", "10.0.0.1"].map(|a| a.parse().unwrap()));
        let on = |index| on_interface("fe80::2".parse().unwrap(), index);
        let next_hops: BTreeSet<IpAddr> = next_hops.into_iter().chain([on(1), on(8)]).collect();
        let pod = link(7, true, true, &["fe80::1"]);
        let unused = users(&Change::Down(&pod, "is down"), None, &[], &BTreeMap::new(), &next_hops);
        assert!(unused.is_empty());
        let eth = change(1);
        let used = users(&Change::Down(&eth, "is down"), None, &[], &BTreeMap::new(), &next_hops);
        assert_eq!(used.to_string(), "0 peers and 2 next hops use it");
        let mut watch = LinkWatch::default();
        watch.report(&Change::Down(&pod, "is down"), &unused);
        assert!(watch.down.is_empty());
        watch.report(&Change::Down(&eth, "is down"), &used);
        assert_eq!(watch.down.len(), 1);
        let peers = (0..11).map(|n| format!("p{n}").into()).collect();
        let text = Users { vrf: None, peers, next_hops: 0 }.to_string();
        let in_vrf = Users { vrf: Some("red".into()), ..Users::default() };
        assert_eq!(in_vrf.to_string(), "in VRF red, 0 peers and 0 next hops use it");
        assert!(text.starts_with("11 peers and 0 next hops use it (p0, p1, "), "{text}");
        assert!(text.ends_with("p9, …)"), "{text}");
    }
}
