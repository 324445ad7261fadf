//! Interfaces and our addresses on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{Family, Prefix};

use super::message::{AddressMessage, LinkMessage};
use super::{Link, LinkTraits};
use crate::counts::Counts;

/// The effect of a link or address event on routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEffect {
    /// Nothing relevant changed.
    Unchanged,
    /// Something changed, but no routes were lost.
    Changed,
    /// The interface lost its carrier: the kernel deleted the next-hop objects over it, and with
    /// them their routes, without an event.
    CarrierLost,
    /// The kernel may have deleted routes over this interface without an event.
    RoutesLost,
}

/// Where packets of an interface are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    /// By the default rules: main, and tables before it.
    Default,
    /// In the table of a VRF only.
    Vrf(u32),
}

/// The state of a leg (one next hop of a route), given its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// Packets go out.
    Usable,
    /// The interface has no carrier, but the kernel still sends packets to it.
    Down,
    /// The kernel skips the leg.
    Dead,
}

/// All interfaces and addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<u32, LinkMessage>,
    addresses: BTreeMap<(IpAddr, u32), AddressMessage>,
    /// The addresses of each network.
    networks: BTreeMap<Prefix, BTreeSet<(IpAddr, u32)>>,
    /// Number of addresses per interface and family.
    on: Counts<(u32, Family)>,
}

impl Links {
    /// RTM_NEWLINK.
    pub(super) fn handle_link(&mut self, link: LinkMessage) -> LinkEffect {
        let (up, running, master) = (link.up, link.running, link.master);
        match self.links.insert(link.index, link.clone()) {
            Some(before) if before == link => LinkEffect::Unchanged,
            // An interface that enters or leaves a VRF loses its routes (addrconf and fib flush).
            Some(before) if (before.up && !up) || before.master != master => LinkEffect::RoutesLost,
            Some(before) if before.running && !running => LinkEffect::CarrierLost,
            _ => LinkEffect::Changed,
        }
    }

    /// RTM_DELLINK.
    pub(super) fn handle_link_gone(&mut self, ifindex: u32) -> LinkEffect {
        match self.links.remove(&ifindex) {
            Some(_) => LinkEffect::RoutesLost,
            None => LinkEffect::Unchanged,
        }
    }

    /// RTM_NEWADDR.
    pub(super) fn handle_address(&mut self, address: AddressMessage) -> LinkEffect {
        let key = (address.local, address.ifindex);
        if self.is_ignored(address.ifindex) {
            return LinkEffect::Unchanged;
        }
        let before = self.addresses.insert(key, address);
        if before == Some(address) {
            return LinkEffect::Unchanged;
        }
        if let Some(before) = before {
            self.forget_network(before.network, key);
        } else {
            self.on.add((address.ifindex, address.network.family()));
        }
        self.networks.entry(address.network).or_default().insert(key);
        LinkEffect::Changed
    }

    /// RTM_DELADDR. With the last address of a family on an interface, the kernel deletes the
    /// interface's routes of that family.
    pub(super) fn handle_address_gone(&mut self, address: &AddressMessage) -> LinkEffect {
        let key = (address.local, address.ifindex);
        match self.addresses.remove(&key) {
            Some(known) => {
                self.forget_network(known.network, key);
                let family = (address.ifindex, address.network.family());
                self.on.remove(family);
                if self.on.has(&family) { LinkEffect::Changed } else { LinkEffect::RoutesLost }
            }
            None => LinkEffect::Unchanged,
        }
    }

    fn forget_network(&mut self, network: Prefix, key: (IpAddr, u32)) {
        if let Some(addresses) = self.networks.get_mut(&network) {
            addresses.remove(&key);
            if addresses.is_empty() {
                self.networks.remove(&network);
            }
        }
    }

    /// Whether addresses and routes of the interface are ignored: kube-proxy assigns every service
    /// address of a cluster to its own interface, and changes thousands at a time.
    pub(super) fn is_ignored(&self, ifindex: u32) -> bool {
        self.name(ifindex).is_some_and(|name| name.starts_with("kube-ipvs"))
    }

    /// Whether the address is one of ours in this domain.
    pub(super) fn is_local(&self, addr: IpAddr, domain: Domain) -> bool {
        let mut interfaces = self.addresses.range((addr, 0)..=(addr, u32::MAX));
        interfaces.any(|((_, ifindex), _)| self.domain(*ifindex) == domain)
    }

    /// Whether the interface has this address and uses it. One that duplicate address detection has found
    /// elsewhere is the neighbour's.
    pub(super) fn has(&self, addr: IpAddr, ifindex: u32) -> bool {
        self.addresses.get(&(addr, ifindex)).is_some_and(|address| address.usable)
    }

    /// The domain of an interface.
    pub(super) fn domain(&self, ifindex: u32) -> Domain {
        /// Enough for a VLAN on a bridge in a VRF, and one more.
        const DEPTH_MAX: usize = 4;
        let mut at = self.links.get(&ifindex);
        for _ in 0..DEPTH_MAX {
            let Some(link) = at else { break };
            if let Some(table) = link.vrf {
                return Domain::Vrf(table);
            }
            at = link.master.and_then(|master| self.links.get(&master.get()));
        }
        Domain::Default
    }

    /// The domain of a table's routes.
    pub(super) fn domain_of_table(&self, table: u32) -> Domain {
        if self.links.values().any(|link| link.vrf == Some(table)) {
            Domain::Vrf(table)
        } else {
            Domain::Default
        }
    }

    /// Whether the interface is administratively up.
    pub(super) fn is_up(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.up)
    }

    /// The state of a leg over the interface, for a route of the family.
    pub(super) fn leg(&self, ifindex: u32, family: Family) -> Leg {
        let Some(link) = self.links.get(&ifindex) else { return Leg::Dead };
        let [skipped_v4, skipped_v6] = link.skipped_without_carrier;
        let skipped = if family == Family::Ipv4 { skipped_v4 } else { skipped_v6 };
        match (link.up, link.running) {
            (true, true) => Leg::Usable,
            (true, false) if !skipped => Leg::Down,
            _ => Leg::Dead,
        }
    }

    /// The interface's name.
    pub(super) fn name(&self, ifindex: u32) -> Option<&str> {
        self.links.get(&ifindex).map(|link| link.name.as_str())
    }

    /// The networks of our addresses.
    pub(super) fn networks(&self) -> impl Iterator<Item = Prefix> {
        self.networks.keys().copied()
    }

    /// The networks of the addresses on an interface.
    pub(super) fn networks_on(&self, ifindex: u32) -> Vec<Prefix> {
        let on = self.addresses.values().filter(|address| address.ifindex == ifindex);
        on.map(|address| address.network).collect()
    }

    /// Our addresses in a network, in order.
    pub(super) fn addresses_in(&self, network: Prefix) -> impl Iterator<Item = &AddressMessage> {
        let keys = self.networks.get(&network).into_iter().flatten();
        keys.filter_map(|key| self.addresses.get(key))
    }

    /// Number of addresses.
    pub(super) fn count_addresses(&self) -> usize {
        self.addresses.len()
    }

    /// The interfaces with their usable addresses for publication, sorted by name.
    pub(super) fn published(&self) -> Arc<[Link]> {
        let mut links: Vec<Link> = self
            .links
            .values()
            .map(|link| Link {
                index: link.index,
                name: link.name.clone(),
                up: link.up,
                running: link.running,
                traits: LinkTraits {
                    vrf: match self.domain(link.index) {
                        Domain::Default => None,
                        Domain::Vrf(table) => Some(table),
                    },
                    is_vrf: link.vrf.is_some(),
                    ..link.traits
                },
                mtu: link.mtu,
                addresses: Vec::new(),
            })
            .collect();
        let places: BTreeMap<u32, usize> =
            links.iter().enumerate().map(|(at, link)| (link.index, at)).collect();
        for address in self.addresses.values().filter(|address| address.usable) {
            if let Some(link) = places.get(&address.ifindex).and_then(|at| links.get_mut(*at)) {
                link.addresses.push((address.local, address.network.len()));
            }
        }
        links.sort_by(|a, b| a.name.cmp(&b.name));
        links.into()
    }
}

impl PartialEq for Links {
    fn eq(&self, other: &Links) -> bool {
        self.links == other.links && self.addresses == other.addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::message::Scope;

    /// kube-proxy changes an address whenever a Service is added or deleted.
    #[test]
    fn service_addresses_of_kube_proxy_change_nothing() {
        let mut links = Links::default();
        for (index, name) in [(1, "eth0"), (2, "kube-ipvs0")] {
            links.handle_link(LinkMessage { index, name: name.into(), ..LinkMessage::default() });
        }
        let address = |ifindex| AddressMessage {
            ifindex,
            local: "10.96.0.1".parse().unwrap(),
            network: "10.96.0.1/32".parse().unwrap(),
            scope: Scope::Wide,
            secondary: false,
            usable: true,
        };
        let before = links.clone();
        assert_eq!(links.handle_address(address(2)), LinkEffect::Unchanged);
        assert_eq!(links.handle_address_gone(&address(2)), LinkEffect::Unchanged);
        assert_eq!(links, before);
        assert_eq!(links.handle_address(address(1)), LinkEffect::Changed);
        assert_eq!(links.handle_address_gone(&address(1)), LinkEffect::RoutesLost);
        assert_eq!(links, before);
    }

    #[test]
    fn an_address_that_another_host_has_or_may_have_is_not_published() {
        let mut links = Links::default();
        links.handle_link(LinkMessage { index: 1, name: "eth0".into(), ..LinkMessage::default() });
        let address = |flags: u8| {
            let mut body = vec![10, 64, flags, 253, 1, 0, 0, 0, 20, 0, 1, 0];
            body.extend("fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
            crate::kernel::message::parse_address(&body).unwrap()
        };
        let mut shown = |flags| {
            let effect = links.handle_address(address(flags));
            let has = links.has("fe80::1".parse().unwrap(), 1);
            (effect, has, links.published()[0].addresses.len())
        };
        // IFA_F_PERMANENT with IFA_F_TENTATIVE, then alone, with both faults, and IFA_F_OPTIMISTIC.
        assert_eq!(shown(0xc0), (LinkEffect::Changed, false, 0));
        assert_eq!(shown(0x80), (LinkEffect::Changed, true, 1));
        assert_eq!(shown(0xc8), (LinkEffect::Changed, false, 0));
        assert_eq!(shown(0xc4), (LinkEffect::Changed, true, 1));
    }

    #[test]
    fn routes_are_lost_with_the_last_address_of_a_family() {
        let mut links = Links::default();
        links.handle_link(LinkMessage { index: 1, name: "eth0".into(), ..LinkMessage::default() });
        let address = |local: &str, network: &str| AddressMessage {
            ifindex: 1,
            local: local.parse().unwrap(),
            network: network.parse().unwrap(),
            scope: Scope::Wide,
            secondary: false,
            usable: true,
        };
        let first = address("10.0.0.1", "10.0.0.0/24");
        let second = address("10.0.0.2", "10.0.0.0/24");
        let other_family = address("2001:db8::1", "2001:db8::/64");
        for known in [first, second, other_family] {
            links.handle_address(known);
        }
        // A repeated event is counted once.
        links.handle_address(AddressMessage { secondary: true, ..second });
        assert_eq!(links.handle_address_gone(&first), LinkEffect::Changed);
        assert_eq!(links.handle_address_gone(&first), LinkEffect::Unchanged);
        assert_eq!(links.handle_address_gone(&second), LinkEffect::RoutesLost);
        assert_eq!(links.handle_address_gone(&other_family), LinkEffect::RoutesLost);
    }
}
