//! Interfaces and our addresses on them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Link;
use super::message::{AddressMessage, LinkMessage};

/// What a link or address event means for routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEffect {
    /// Nothing that matters changed.
    Unchanged,
    /// Something changed, and routes are what they were.
    Changed,
    /// The kernel may have dropped routes over this interface without a word.
    RoutesLost,
}

/// All interfaces and addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<u32, LinkMessage>,
    addresses: BTreeMap<(IpAddr, u32), AddressMessage>,
}

impl Links {
    /// RTM_NEWLINK.
    pub(super) fn handle_link(&mut self, link: LinkMessage) -> LinkEffect {
        let up = link.up;
        match self.links.insert(link.index, link.clone()) {
            Some(before) if before == link => LinkEffect::Unchanged,
            Some(before) if before.up && !up => LinkEffect::RoutesLost,
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
        match self.addresses.insert(key, address) {
            Some(before) if before == address => LinkEffect::Unchanged,
            _ => LinkEffect::Changed,
        }
    }

    /// RTM_DELADDR. With an interface's last IPv4 address go its routes.
    pub(super) fn handle_address_gone(&mut self, address: &AddressMessage) -> LinkEffect {
        match self.addresses.remove(&(address.local, address.ifindex)) {
            Some(_) => LinkEffect::RoutesLost,
            None => LinkEffect::Unchanged,
        }
    }

    /// Whether the address is one of ours.
    pub(super) fn is_local(&self, addr: IpAddr) -> bool {
        self.addresses.range((addr, 0)..=(addr, u32::MAX)).next().is_some()
    }

    /// Whether the interface is administratively up.
    pub(super) fn is_up(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.up)
    }

    /// Whether the interface is up and has carrier.
    pub(super) fn is_running(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.running)
    }

    /// The interface's name.
    pub(super) fn name(&self, ifindex: u32) -> Option<&str> {
        self.links.get(&ifindex).map(|link| link.name.as_str())
    }

    /// Our addresses, in order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &AddressMessage> {
        self.addresses.values()
    }

    /// What others see, by name.
    pub(super) fn published(&self) -> Arc<[Link]> {
        let mut links: Vec<Link> = self
            .links
            .values()
            .map(|link| Link {
                index: link.index,
                name: link.name.clone(),
                up: link.up,
                running: link.running,
                traits: link.traits,
                mtu: link.mtu,
                addresses: Vec::new(),
            })
            .collect();
        let places: BTreeMap<u32, usize> =
            links.iter().enumerate().map(|(at, link)| (link.index, at)).collect();
        for address in self.addresses.values() {
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
