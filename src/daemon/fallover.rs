//! Sessions whose link or local address was removed end at once (fast external fallover).
//!
//! Differs from RFC: RFC 4271 §8 has no such event; it is treated as TcpConnectionFails, only
//! sooner. Graceful restart applies as to any lost connection.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::Close;
use bgp_proto::types::{SessionId, off_interface};

use super::registry::Record;
use crate::config::Fallover as Mode;
use crate::kernel::Link;

/// Our addresses on links that had a carrier at the last check. Only one of these can be lost: an
/// address that was never on such a link (a local route, a link without carrier whose address is
/// reached through another link) says nothing about its session.
///
/// Before the first check the links are unknown: a session that was established by then is
/// taken as evidence that its link had a carrier.
#[derive(Debug, Default)]
pub(super) struct Fallover {
    /// Sorted. None before the first check.
    usable: Option<Vec<IpAddr>>,
}

impl Fallover {
    /// The established sessions to end because their link or address was lost.
    pub(super) fn cut_off(
        &mut self,
        links: &[Link],
        records: impl Iterator<Item = Arc<Record>>,
    ) -> Vec<(Arc<Record>, SessionId, Close)> {
        let lost = self.lost(links);
        if lost.is_empty() {
            return Vec::new();
        }
        let records = records.filter(|record| record.fallover == Mode::Fast);
        records
            .filter_map(|record| {
                let snapshot = record.handle.snapshot();
                let local = snapshot.negotiated?.local_addr;
                let text = lost.contains(&local).then(|| why(links, local))?;
                Some((record, snapshot.session?, Close::Transport { text }))
            })
            .collect()
    }

    /// The addresses that were usable and are not any more.
    fn lost(&mut self, links: &[Link]) -> BTreeSet<IpAddr> {
        let running = links.iter().filter(|link| link.up && link.running);
        let mut usable = addresses(running);
        usable.sort_unstable();
        let before = self.usable.take().unwrap_or_else(|| addresses(links.iter()));
        let is_lost = |addr: &IpAddr| usable.binary_search(addr).is_err();
        let lost = before.into_iter().filter(is_lost).collect();
        self.usable = Some(usable);
        lost
    }
}

/// All addresses of these links.
fn addresses<'a>(links: impl Iterator<Item = &'a Link>) -> Vec<IpAddr> {
    links.flat_map(Link::own_addresses).collect()
}

/// Why packets can no longer be sent from this local address.
fn why(links: &[Link], local: IpAddr) -> String {
    let shown = off_interface(local).0;
    match links.iter().find(|link| link.own_addresses().any(|addr| addr == local)) {
        None => format!("{shown}, the session's local address, was removed"),
        Some(link) if link.up => format!("{} has no carrier", link.name),
        Some(link) => format!("{} is down", link.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LinkTraits;

    fn link(name: &str, up: bool, running: bool, address: &str) -> Link {
        Link {
            index: 3,
            name: name.into(),
            up,
            running,
            traits: LinkTraits::default(),
            mtu: 1500,
            addresses: vec![(address.parse().unwrap(), 24)],
        }
    }

    /// Whether 192.0.2.1 is lost between two checks, and why.
    fn lost(before: &[Link], after: &[Link]) -> Option<String> {
        let local = "192.0.2.1".parse().unwrap();
        let mut fallover = Fallover::default();
        fallover.lost(before);
        fallover.lost(after).contains(&local).then(|| why(after, local))
    }

    #[test]
    fn an_address_needs_a_link_with_a_carrier() {
        let running = [link("eth0", true, true, "192.0.2.1")];
        let no_carrier = link("eth0", true, false, "192.0.2.1");
        assert_eq!(lost(&running, &running), None);
        assert_eq!(
            lost(&running, std::slice::from_ref(&no_carrier)).unwrap(),
            "eth0 has no carrier"
        );
        let down = [link("eth0", false, false, "192.0.2.1")];
        assert_eq!(lost(&running, &down).unwrap(), "eth0 is down");
        let gone = "192.0.2.1, the session's local address, was removed";
        assert_eq!(lost(&running, &[link("eth1", true, true, "192.0.2.9")]).unwrap(), gone);
        assert_eq!(lost(&running, &[]).unwrap(), gone);
        let twice = [no_carrier, link("lo", true, true, "192.0.2.1")];
        assert_eq!(lost(&running, &twice), None, "it is on another link too");
    }

    #[test]
    fn an_address_that_was_not_usable_cannot_be_lost() {
        let elsewhere = [link("eth1", true, true, "192.0.2.9")];
        assert_eq!(lost(&elsewhere, &[link("eth1", true, false, "192.0.2.9")]), None);
        let no_carrier = [link("eth0", true, false, "192.0.2.1")];
        assert_eq!(lost(&no_carrier, &elsewhere), None);
        assert_eq!(lost(&[], &no_carrier), None, "added without a carrier");
    }

    #[test]
    fn a_session_older_than_the_first_check_had_a_carrier() {
        let no_carrier = [link("eth0", true, false, "192.0.2.1")];
        let local = "192.0.2.1".parse().unwrap();
        let mut fallover = Fallover::default();
        assert!(fallover.lost(&no_carrier).contains(&local));
        assert!(fallover.lost(&no_carrier).is_empty(), "only once");
        assert!(Fallover::default().lost(&[link("eth0", true, true, "192.0.2.1")]).is_empty());
    }
}
