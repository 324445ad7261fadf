//! Capabilities (RFC 5492): the ones we know, and the ones we carry through.
use super::Notification;
use crate::types::{AfiSafi, Asn, Family, FamilySet};

/// ADD-PATH direction bits (RFC 7911 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddPathMode {
    /// Not at all.
    #[default]
    None,
    /// 1: able to receive.
    Receive,
    /// 2: able to send.
    Send,
    /// 3.
    Both,
}

/// Capability 64 (RFC 4724, RFC 8538).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the speaker has restarted.
    pub restarting: bool,
    /// N bit: NOTIFICATIONs keep routes too (RFC 8538).
    pub notification: bool,
    /// Seconds, 0-4095.
    pub restart_time_secs: u16,
    /// Families with their F bit.
    pub families: Vec<GracefulRestartFamily>,
}

/// One family of capability 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestartFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit: forwarding state was preserved.
    pub forwarding: bool,
}

/// One family of capability 71 (RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit.
    pub forwarding: bool,
    /// Long-lived stale time in seconds, 24 bits.
    pub stale_time_secs: u32,
}

/// The capabilities of one OPEN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// 1: in order of appearance, unknown families included.
    pub multiprotocol: Vec<AfiSafi>,
    /// 2 (128 is accepted as the same on receipt).
    pub route_refresh: bool,
    /// 5: (AFI, SAFI, next-hop AFI).
    pub extended_next_hop: Vec<(AfiSafi, u16)>,
    /// 6.
    pub extended_message: bool,
    /// 9.
    pub role: Option<u8>,
    /// 64.
    pub graceful_restart: Option<GracefulRestart>,
    /// 65.
    pub four_octet_as: Option<Asn>,
    /// 69.
    pub add_path: Vec<(AfiSafi, AddPathMode)>,
    /// 70.
    pub enhanced_refresh: bool,
    /// 71.
    pub long_lived: Vec<LongLivedFamily>,
    /// Every other capability, code and value, in order of appearance.
    pub unknown: Vec<(u8, Vec<u8>)>,
}

impl Capabilities {
    /// The families among `multiprotocol` that margay carries; IPv4 if the capability is absent
    /// (RFC 4760 §8).
    pub fn families(&self) -> FamilySet {
        todo!()
    }

    /// The mode of one family.
    pub fn add_path_mode(&self, family: Family) -> AddPathMode {
        let _ = family;
        todo!()
    }

    /// Whether IPv4 unicast may have an IPv6 next hop (RFC 8950).
    pub fn ipv4_over_ipv6(&self) -> bool {
        todo!()
    }

    /// Short names for people and JSON: "ipv4", "route-refresh", "four-octet-as", "add-path:ipv4:both", …
    pub fn names(&self) -> Vec<String> {
        todo!()
    }

    /// Parses the value of one optional parameter of type 2 into `self`. Error: 2/0.
    pub(super) fn decode_parameter(&mut self, value: &[u8]) -> Result<(), Notification> {
        let _ = value;
        todo!()
    }

    /// Appends every capability as TLVs.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}
