//! Our OPEN times their OPEN: what the session may do.

use std::net::IpAddr;
use std::time::Duration;

use crate::types::{Asn, Family, FamilySet, PeerType, RouterId};
use crate::wire::{Capabilities, GracefulRestart, UpdateContext};

/// The result of a negotiation; constant for the life of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's BGP Identifier.
    pub peer_router_id: RouterId,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// Our AS on this session.
    pub local_asn: Asn,
    /// iBGP or eBGP.
    pub peer_type: PeerType,
    /// Our address on the connection.
    pub local_addr: IpAddr,
    /// The peer's address on the connection.
    pub remote_addr: IpAddr,
    /// Families that both offered.
    pub families: FamilySet,
    /// Four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Families on which we receive path identifiers.
    pub add_path_rx: FamilySet,
    /// Families on which we send path identifiers.
    pub add_path_tx: FamilySet,
    /// IPv4 may be sent with an IPv6 next hop (RFC 8950).
    pub ipv4_over_ipv6: bool,
    /// Longest UPDATE that we may send, in octets: 4096 or 65535.
    pub tx_max_len: usize,
    /// Longest UPDATE that we must accept.
    pub rx_max_len: usize,
    /// The peer answers ROUTE-REFRESH requests.
    pub route_refresh: bool,
    /// Both sides do RFC 7313.
    pub enhanced_refresh: bool,
    /// Negotiated hold time; zero turns both timers off.
    pub hold_time: Duration,
    /// Interval between KEEPALIVEs before jitter.
    pub keepalive_time: Duration,
    /// The peer's capability 64, if it sent one and we offered ours.
    pub graceful_restart: Option<GracefulRestart>,
    /// Everything the peer offered, for people.
    pub peer_capabilities: Capabilities,
}

impl Negotiated {
    /// What reading an UPDATE needs.
    pub fn update_context(&self, enforce_first_as: bool, reject_as_sets: bool) -> UpdateContext {
        UpdateContext {
            four_octet_as: self.four_octet_as,
            families: self.families,
            add_path: self.add_path_rx,
            ipv4_over_ipv6: self.ipv4_over_ipv6,
            peer_type: self.peer_type,
            peer_asn: self.peer_asn,
            enforce_first_as,
            reject_as_sets,
        }
    }

    /// Families whose routes are kept if the connection is lost (RFC 4724 §4.2).
    pub fn restart_families(&self) -> FamilySet {
        self.graceful_restart
            .iter()
            .flat_map(|gr| &gr.families)
            .filter_map(|f| Family::try_from(f.family).ok())
            .collect::<FamilySet>()
            .intersection(self.families)
    }
}
