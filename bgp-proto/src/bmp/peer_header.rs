//! The header by which a message says which peer, and which of its RIBs, it is about (RFC 7854 §4.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::BmpError;
use crate::types::{Asn, RouterId};

/// Octets of the header.
pub const PEER_HEADER_LEN: usize = 42;

const FLAG_IPV6: u8 = 0x80;
const FLAG_POST_POLICY: u8 = 0x40;
const FLAG_TWO_OCTET_AS: u8 = 0x20;
const FLAG_ADJ_RIB_OUT: u8 = 0x10;
/// Of the type Loc-RIB (RFC 9069 §4.2).
const FLAG_FILTERED: u8 = 0x80;

/// What kind of peer a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKind {
    /// A peer of the default instance, 0.
    Global,
    /// A peer in a VRF with a route distinguisher, 1. Only read.
    Distinguished,
    /// A peer in a VRF without one, 2.
    Local,
    /// The Loc-RIB of an instance, 3 (RFC 9069 §4.1).
    LocRib,
}

/// The RIB that a Route Monitoring message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rib {
    /// Adj-RIB-In before the import policy.
    AdjRibInPre,
    /// Adj-RIB-In after it.
    AdjRibInPost,
    /// Loc-RIB.
    LocRib,
    /// Adj-RIB-Out before the export policy (RFC 8671).
    AdjRibOutPre,
    /// Adj-RIB-Out: what the peer is sent (RFC 8671).
    AdjRibOutPost,
}

/// The per-peer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHeader {
    /// The kind of peer.
    pub kind: PeerKind,
    /// The RIB. In messages that are about none it is [`Rib::AdjRibInPre`], or [`Rib::LocRib`] for that kind.
    pub rib: Rib,
    /// Which instance: 0 for the default one.
    pub distinguisher: u64,
    /// The peer's address; the unspecified one of IPv4 for the Loc-RIB.
    pub address: IpAddr,
    /// The peer's AS; ours for the Loc-RIB.
    pub asn: Asn,
    /// The peer's BGP Identifier; ours for the Loc-RIB.
    pub router_id: RouterId,
    /// When it happened, in seconds of Unix time; 0: not known.
    pub secs: u32,
    /// Microseconds, 0-999999.
    pub micros: u32,
}

impl PeerHeader {
    /// The same for another RIB, received or sent at another time.
    pub fn of(self, rib: Rib, secs: u32) -> PeerHeader {
        PeerHeader { rib, secs, micros: 0, ..self }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            PeerKind::Global => 0,
            PeerKind::Distinguished => 1,
            PeerKind::Local => 2,
            PeerKind::LocRib => 3,
        };
        // RFC 9069 §4.2: the other flags have no meaning for the Loc-RIB. None of ours is filtered.
        let flags = match (self.kind, self.rib) {
            (PeerKind::LocRib, _) | (_, Rib::AdjRibInPre | Rib::LocRib) => 0,
            (_, Rib::AdjRibInPost) => FLAG_POST_POLICY,
            (_, Rib::AdjRibOutPre) => FLAG_ADJ_RIB_OUT,
            (_, Rib::AdjRibOutPost) => FLAG_ADJ_RIB_OUT | FLAG_POST_POLICY,
        };
        let family = match self.address {
            IpAddr::V6(_) if self.kind != PeerKind::LocRib => FLAG_IPV6,
            _ => 0,
        };
        out.extend_from_slice(&[kind, flags | family]);
        out.extend_from_slice(&self.distinguisher.to_be_bytes());
        push_address(out, self.address);
        out.extend_from_slice(&self.asn.0.to_be_bytes());
        out.extend_from_slice(&self.router_id.0.to_be_bytes());
        out.extend_from_slice(&self.secs.to_be_bytes());
        out.extend_from_slice(&self.micros.to_be_bytes());
    }

    pub(super) fn decode(octets: &[u8; PEER_HEADER_LEN]) -> Result<PeerHeader, BmpError> {
        let [kind, flags, d0, d1, d2, d3, d4, d5, d6, d7, rest @ ..] = octets;
        let (address, rest) = rest.split_at(16);
        let numbers = |at: usize| {
            let four = rest.get(at..).and_then(|rest| rest.first_chunk::<4>());
            four.map_or(0, |four| u32::from_be_bytes(*four))
        };
        let kind = match kind {
            0 => PeerKind::Global,
            1 => PeerKind::Distinguished,
            2 => PeerKind::Local,
            3 => PeerKind::LocRib,
            other => return Err(BmpError::PeerKind(*other)),
        };
        let is_loc_rib = kind == PeerKind::LocRib;
        if flags & FLAG_TWO_OCTET_AS != 0 && !is_loc_rib {
            return Err(BmpError::TwoOctetAs);
        }
        if is_loc_rib && flags & FLAG_FILTERED != 0 {
            return Err(BmpError::Filtered);
        }
        let rib = match (is_loc_rib, flags & FLAG_ADJ_RIB_OUT != 0, flags & FLAG_POST_POLICY != 0) {
            (true, _, _) => Rib::LocRib,
            (_, false, false) => Rib::AdjRibInPre,
            (_, false, true) => Rib::AdjRibInPost,
            (_, true, false) => Rib::AdjRibOutPre,
            (_, true, true) => Rib::AdjRibOutPost,
        };
        Ok(PeerHeader {
            kind,
            rib,
            distinguisher: u64::from_be_bytes([*d0, *d1, *d2, *d3, *d4, *d5, *d6, *d7]),
            address: address_of(address, !is_loc_rib && flags & FLAG_IPV6 != 0),
            asn: Asn(numbers(0)),
            router_id: RouterId(numbers(4)),
            secs: numbers(8),
            micros: numbers(12),
        })
    }
}

/// Sixteen octets; an IPv4 address is the last four (RFC 7854 §4.2).
pub(super) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.extend_from_slice(&[0; 12]);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

/// The address in sixteen octets; anything shorter is the unspecified address.
pub(super) fn address_of(octets: &[u8], is_ipv6: bool) -> IpAddr {
    let v6 = octets.first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |all| (*all).into());
    match octets.last_chunk::<4>() {
        Some(v4) if !is_ipv6 => IpAddr::V4(Ipv4Addr::from(*v4)),
        _ => IpAddr::V6(v6),
    }
}
