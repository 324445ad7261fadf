//! What the import of a peer's routes needs of the peer.

use std::sync::Arc;

use crate::policy::{Prepared, RouteRef, Source};
use crate::rib::{AttrId, LocRib, NextHopId, SourceId};
use crate::session::Negotiated;
use crate::table::PeerRoutes;
use crate::types::Prefix;

/// What import needs to know about the sender.
pub(in crate::table) struct ImportContext {
    pub(in crate::table) source: SourceId,
    pub(in crate::table) routes: Arc<PeerRoutes>,
    pub(in crate::table) session: Arc<Negotiated>,
    /// The import policy.
    pub(in crate::table) policy: Arc<Prepared>,
}

impl ImportContext {
    /// A received route as the import policy sees it.
    #[inline]
    pub(in crate::table) fn route<'a>(
        &self,
        loc_rib: &'a LocRib,
        prefix: Prefix,
        (attrs, hop): (AttrId, NextHopId),
    ) -> RouteRef<'a> {
        RouteRef {
            prefix,
            attrs: loc_rib.attrs.view(attrs),
            next_hop: loc_rib.hops.hop(hop),
            source: Source::Bgp,
            interface: loc_rib.hops.interface(hop),
            metric: None,
            peer_type: Some(self.session.peer_type),
            shared_bandwidth: None,
        }
    }
}
