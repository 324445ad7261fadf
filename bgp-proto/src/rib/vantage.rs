//! Vantages: groups of routers at one place, such as a zone or a rack, and the cost from one to
//! another. A group of reflector clients is sent the best path as seen from its vantage (RFC 9107
//! in spirit: the interior cost is configured, not computed from an IGP).

use std::sync::Arc;

/// Identifies a vantage while a peer or the table of costs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VantageId(pub(crate) u16);

/// A vantage with its costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vantage {
    pub(crate) id: VantageId,
    pub(crate) name: Arc<str>,
    /// Cost to places that are not in `costs`, and to paths whose place is not known.
    pub(crate) default_cost: u32,
    /// By [`VantageId`].
    pub(crate) costs: Vec<u32>,
}

impl Vantage {
    /// The cost to a place.
    #[inline]
    pub(crate) fn cost_to(&self, place: Option<VantageId>) -> u32 {
        let stated = place.and_then(|place| self.costs.get(usize::from(place.0)));
        stated.copied().unwrap_or(self.default_cost)
    }
}
