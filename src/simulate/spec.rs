//! Speakers before they start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::PeerConfig;
use bgp_proto::table::{PeerRoutes, TableConfig};
use bgp_proto::types::{FibKind, Prefix, RouterId};
use serde::Serialize;

/// Routes from elsewhere: prefixes with canonical attributes.
pub type ForeignTable = Arc<[(Prefix, Arc<[u8]>)]>;

/// Why objects cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What a speaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A node.
    Node,
    /// A node with `routeReflectorClusterID`.
    Reflector,
    /// A BGPPeer's address that no node has.
    Peer,
}

/// A speaker before it starts.
pub(super) struct Spec {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    /// Address and network of each family.
    pub(super) address: [Option<(IpAddr, Prefix)>; 2],
    pub(super) table: Arc<TableConfig>,
    /// Interfaces that the FIB policy names.
    pub(super) tunnels: Vec<Arc<str>>,
    pub(super) origins: Vec<(Prefix, Option<FibKind>)>,
    /// Routes of a table from elsewhere that it announces, with canonical attributes.
    pub(super) foreign: ForeignTable,
    /// Those of the origins that are blocks.
    pub(super) blocks: BTreeSet<Prefix>,
    /// Pools whose routes another program writes.
    pub(super) felix: Vec<Prefix>,
    pub(super) peers: Vec<PeerSpec>,
}

impl Spec {
    /// Its address of the family of another one.
    pub(super) fn address_towards(&self, other: IpAddr) -> Option<IpAddr> {
        self.address[usize::from(other.is_ipv6())].map(|(addr, _)| addr)
    }

    pub(super) fn router_id(&self) -> RouterId {
        self.table.router_id
    }
}

/// One end of a session.
pub(super) struct PeerSpec {
    pub(super) address: IpAddr,
    /// Its parameters but for addresses, port and BGP Identifier.
    pub(super) shape: Arc<PeerConfig>,
    pub(super) routes: Arc<PeerRoutes>,
    /// The other end; `None`: nobody answers at the address.
    pub(super) other: Option<End>,
    /// Whether there is to be a session; not with peers that a change has removed.
    pub(super) is_configured: bool,
}

/// The other end of a session.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) speaker: u32,
    pub(super) peer: u32,
    /// Which of the cluster's outcomes the session has, and which of its ends is ours.
    pub(super) outcome: u32,
    pub(super) side: u8,
}
