//! Addresses of neighbours: a route is not advertised to the neighbour that is its next hop (RFC
//! 4271 §5.1.3), so export looks up the neighbour that a next hop belongs to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::SourceId;

/// The neighbours' addresses, as of each one's latest session. One that is down keeps its entry
/// until its id or its address is another neighbour's: it is not a member of any group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbors {
    at: BTreeMap<IpAddr, SourceId>,
    addresses: Vec<Option<IpAddr>>,
}

impl Neighbors {
    /// The neighbour with this address; [`SourceId::NONE`] if there is none.
    pub(crate) fn at(&self, address: IpAddr) -> SourceId {
        self.at.get(&address).copied().unwrap_or(SourceId::NONE)
    }

    /// The address of a neighbour, if no other neighbour owns it.
    pub(crate) fn address_of(&self, source: SourceId) -> Option<IpAddr> {
        let address = self.addresses.get(usize::from(source.0)).copied().flatten()?;
        (self.at(address) == source).then_some(address)
    }

    /// A session of `source` begins. Returns the addresses whose neighbour changed. Of several
    /// sessions with one address, the one that came up first owns it.
    pub(crate) fn set(
        &mut self,
        source: SourceId,
        address: IpAddr,
        is_up: impl Fn(SourceId) -> bool,
    ) -> Vec<IpAddr> {
        let place = usize::from(source.0);
        if self.addresses.len() <= place {
            self.addresses.resize(place + 1, None);
        }
        let mut changed = Vec::new();
        let before = self.addresses[place].replace(address);
        if let Some(left) = before.filter(|before| *before != address && self.at(*before) == source)
        {
            self.at.remove(&left);
            changed.push(left);
        }
        let known = self.at(address);
        if known == SourceId::NONE || known != source && !is_up(known) {
            self.at.insert(address, source);
            changed.push(address);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_session_that_came_up_first() {
        let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let [a, b] = addresses;
        let [one, two] = [SourceId(1), SourceId(2)];
        let mut neighbors = Neighbors::default();
        assert_eq!(neighbors.at(a), SourceId::NONE);
        assert_eq!(neighbors.set(one, a, |_| false), [a]);
        assert!(neighbors.set(one, a, |_| false).is_empty(), "it came back");
        assert!(neighbors.set(two, a, |peer| peer == one).is_empty(), "a second session there");
        assert_eq!(neighbors.at(a), one);
        assert_eq!(neighbors.set(two, a, |_| false), [a], "the first is down");
        assert_eq!(neighbors.at(a), two);
        assert_eq!(neighbors.set(one, b, |_| true), [b], "its old address had a new owner");
        assert_eq!(neighbors.set(two, b, |_| true), [a], "the new address has an owner");
        assert_eq!(addresses.map(|address| neighbors.at(address)), [SourceId::NONE, one]);
    }
}
