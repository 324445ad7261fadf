//! Views of next hops.

use std::net::IpAddr;

use super::Table;
use crate::rib::NextHopState;
use crate::types::PeerId;

/// An address that paths have as their next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHopView {
    /// The address; a link-local one carries its interface.
    pub addr: IpAddr,
    /// How it is reached, as last reported.
    pub state: NextHopState,
    /// Number of paths through it, unusable ones included.
    pub paths: u32,
    /// The peer whose address it is.
    pub peer: Option<PeerId>,
}

impl Table {
    /// The addresses that paths have as next hops, in their order: at most `limit` after `after`, and
    /// whether there are more.
    pub fn next_hops(&self, after: Option<IpAddr>, limit: usize) -> (Vec<NextHopView>, bool) {
        let hops = &self.loc_rib.hops;
        let mut used = hops.used(after);
        let view = |(addr, state, paths): (IpAddr, &NextHopState, u32)| NextHopView {
            addr,
            state: state.clone(),
            paths,
            peer: hops.neighbors().at(addr).peer(),
        };
        let views = used.by_ref().take(limit).map(view).collect();
        (views, used.next().is_some())
    }
}
