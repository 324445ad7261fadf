//! Our link-local addresses beside global ones on sessions with neighbours on a link: when one changes,
//! routes are advertised with the new one (RFC 2545 §3).

use std::net::Ipv6Addr;

use bgp_proto::types::PeerId;

use super::Daemon;
use super::registry::Record;
use crate::kernel::Link;

/// The link-local addresses at the last check.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<(u32, Ipv6Addr)>);

impl Known {
    /// Whether an interface has another one than at the last check.
    fn differ(&mut self, links: &[Link]) -> bool {
        let fresh: Vec<(u32, Ipv6Addr)> =
            links.iter().filter_map(|link| Some((link.index, link.link_local()?))).collect();
        let differ = fresh != self.0;
        self.0 = fresh;
        differ
    }
}

impl Daemon {
    /// Links or addresses have changed.
    pub(super) fn review_link_locals(&mut self, links: &[Link]) {
        if self.link_locals.differ(links) {
            for record in self.peers.registry().all() {
                self.tell_link_local_of(&record);
            }
        }
    }

    /// A session came up. An address that changed while it did was not seen by
    /// [`Daemon::review_link_locals`].
    pub(super) fn tell_link_local(&self, peer: PeerId) {
        if let Some(record) = self.peers.registry().get(peer) {
            self.tell_link_local_of(&record);
        }
    }

    /// The table compares it with what it knows.
    fn tell_link_local_of(&self, record: &Record) {
        // Before the snapshot, which is a copy: on a route reflector most peers are far away, and the
        // interfaces of containers come and go.
        if !record.session.is_single_hop() {
            return;
        }
        let snapshot = record.handle.snapshot();
        if let (Some(negotiated), Some(session)) = (snapshot.negotiated, snapshot.session) {
            let beside = &record.place.beside;
            let found = beside(negotiated.local_addr, negotiated.remote_addr);
            record.place.table.peer_link_local(record.id, session, found.link_local);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LinkTraits;

    #[test]
    fn only_another_link_local_address_counts() {
        let link = |addresses: &[&str]| Link {
            index: 3,
            name: "eth0".into(),
            up: true,
            running: true,
            traits: LinkTraits::default(),
            mtu: 1500,
            addresses: addresses.iter().map(|a| (a.parse().unwrap(), 64)).collect(),
        };
        let mut known = Known::default();
        assert!(known.differ(&[link(&["fe80::1"])]));
        assert!(!known.differ(&[link(&["fe80::1", "2001:db8::1"])]));
        assert!(known.differ(&[link(&["fe80::2", "2001:db8::1"])]));
        assert!(known.differ(&[link(&["2001:db8::1"])]));
    }
}
