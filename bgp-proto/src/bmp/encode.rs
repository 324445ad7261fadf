//! Writing messages.

use std::net::IpAddr;

use super::peer_header::push_address;
use super::{COMMON_HEADER_LEN, PeerHeader, VERSION};
use crate::types::{AfiSafi, Family};

pub(super) const ROUTE_MONITORING: u8 = 0;
pub(super) const STATISTICS: u8 = 1;
pub(super) const PEER_DOWN: u8 = 2;
pub(super) const PEER_UP: u8 = 3;
pub(super) const INITIATION: u8 = 4;
pub(super) const TERMINATION: u8 = 5;
pub(super) const ROUTE_MIRRORING: u8 = 6;

/// TLVs of Initiation and Peer Up (RFC 7854 §4.4, RFC 9069 §5.2, RFC 9736).
pub(super) const TLV_STRING: u16 = 0;
pub(super) const TLV_SYS_DESCR: u16 = 1;
pub(super) const TLV_SYS_NAME: u16 = 2;
pub(super) const TLV_TABLE_NAME: u16 = 3;
/// TLVs of Route Mirroring (RFC 7854 §4.7).
pub(super) const MIRRORED_MESSAGE: u16 = 0;
pub(super) const MIRRORED_INFORMATION: u16 = 1;
/// Information: the message was treated as erroneous.
const ERRORED_PDU: u16 = 0;
/// Information: messages were lost.
const MESSAGES_LOST: u16 = 1;

/// Longest value of a text TLV that is written, in octets: RFC 1213 has 255 for sysDescr and sysName.
const TEXT_MAX: usize = 255;

/// A message that is being written; its length is known at the end.
#[must_use = "its length is written at the end"]
struct Open(usize);

impl Open {
    fn begin(out: &mut Vec<u8>, kind: u8) -> Open {
        let start = out.len();
        out.extend_from_slice(&[VERSION, 0, 0, 0, 0, kind]);
        Open(start)
    }

    fn end(self, out: &mut [u8]) {
        let len = u32::try_from(out.len() - self.0).unwrap_or(u32::MAX);
        if let Some(field) = out.get_mut(self.0 + 1..self.0 + COMMON_HEADER_LEN - 1) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// The two sides of a session, for Peer Up.
#[derive(Clone, Copy, Debug)]
pub struct PeerUp<'a> {
    /// Our address on the connection; the unspecified one for the Loc-RIB.
    pub local: IpAddr,
    /// Our port, 0 if it is not known.
    pub local_port: u16,
    /// The peer's port, 0 if it is not known.
    pub remote_port: u16,
    /// The OPEN that we sent, with its header.
    pub sent: &'a [u8],
    /// The OPEN that we received, with its header.
    pub received: &'a [u8],
    /// The name of the VRF or table (RFC 9069 §5.2.1); required for the Loc-RIB.
    pub table_name: Option<&'a str>,
}

/// Why a session ended (RFC 7854 §4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// 1: we sent this NOTIFICATION, a message with its header.
    LocalNotification(Vec<u8>),
    /// 2: we closed the session without one, on this event of RFC 4271 §8.1; 0 if none fits.
    LocalEvent(u16),
    /// 3: the peer sent this NOTIFICATION.
    RemoteNotification(Vec<u8>),
    /// 4: the connection ended without one.
    RemoteClosed,
    /// 5: the peer goes on, and this station is sent nothing about it any more.
    NotMonitored,
    /// 6: the system, here the table, goes away (RFC 9069 §5.3); with the table's name.
    TableGone(String),
}

impl DownReason {
    /// Octets that it holds.
    pub(crate) fn octets(&self) -> u64 {
        let held = match self {
            DownReason::LocalNotification(message) | DownReason::RemoteNotification(message) => {
                message.capacity()
            }
            DownReason::TableGone(name) => name.capacity(),
            DownReason::LocalEvent(_) | DownReason::RemoteClosed | DownReason::NotMonitored => 0,
        };
        held as u64
    }
}

/// A statistic (RFC 7854 §4.8, RFC 8671 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// A counter of 32 bits by its type.
    Counter(u16, u32),
    /// A gauge of 64 bits by its type.
    Gauge(u16, u64),
    /// A gauge of 64 bits of an address family, by its type.
    FamilyGauge(u16, Family, u64),
}

/// Why monitoring ends (RFC 7854 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminationReason {
    /// 0: administratively closed.
    AdministrativelyClosed = 0,
    /// 1: unspecified.
    Unspecified = 1,
    /// 2: out of resources.
    OutOfResources = 2,
    /// 3: another connection of the same station is served.
    RedundantConnection = 3,
    /// 4: permanently administratively closed: it should not come back.
    PermanentlyClosed = 4,
}

/// Appends an Initiation.
pub fn encode_initiation(out: &mut Vec<u8>, sys_descr: &str, sys_name: &str, text: &str) {
    let open = Open::begin(out, INITIATION);
    push_text(out, TLV_SYS_DESCR, sys_descr);
    push_text(out, TLV_SYS_NAME, sys_name);
    if !text.is_empty() {
        push_text(out, TLV_STRING, text);
    }
    open.end(out);
}

/// Appends a Termination.
pub fn encode_termination(out: &mut Vec<u8>, reason: TerminationReason, text: &str) {
    let open = Open::begin(out, TERMINATION);
    push_tlv(out, 1, &(reason as u16).to_be_bytes());
    if !text.is_empty() {
        push_text(out, 0, text);
    }
    open.end(out);
}

/// Appends a Peer Up.
pub fn encode_peer_up(out: &mut Vec<u8>, header: &PeerHeader, up: &PeerUp<'_>) {
    let open = begin_of_peer(out, PEER_UP, header);
    push_address(out, up.local);
    out.extend_from_slice(&up.local_port.to_be_bytes());
    out.extend_from_slice(&up.remote_port.to_be_bytes());
    out.extend_from_slice(up.sent);
    out.extend_from_slice(up.received);
    if let Some(name) = up.table_name {
        push_text(out, TLV_TABLE_NAME, name);
    }
    open.end(out);
}

/// Appends a Peer Down.
pub fn encode_peer_down(out: &mut Vec<u8>, header: &PeerHeader, reason: &DownReason) {
    let open = begin_of_peer(out, PEER_DOWN, header);
    match reason {
        DownReason::LocalNotification(message) => {
            out.push(1);
            out.extend_from_slice(message);
        }
        DownReason::LocalEvent(event) => {
            out.push(2);
            out.extend_from_slice(&event.to_be_bytes());
        }
        DownReason::RemoteNotification(message) => {
            out.push(3);
            out.extend_from_slice(message);
        }
        DownReason::RemoteClosed => out.push(4),
        DownReason::NotMonitored => out.push(5),
        DownReason::TableGone(name) => {
            out.push(6);
            push_text(out, TLV_TABLE_NAME, name);
        }
    }
    open.end(out);
}

/// Appends a Route Monitoring message with one UPDATE, given with its header.
#[inline]
pub fn encode_route_monitoring(out: &mut Vec<u8>, header: &PeerHeader, update: &[u8]) {
    let open = begin_of_peer(out, ROUTE_MONITORING, header);
    out.extend_from_slice(update);
    open.end(out);
}

/// Appends the End-of-RIB of a family: the initial state is complete (RFC 7854 §5).
pub fn encode_end_of_rib(out: &mut Vec<u8>, header: &PeerHeader, family: Family) {
    let open = begin_of_peer(out, ROUTE_MONITORING, header);
    crate::wire::encode_end_of_rib(out, family);
    open.end(out);
}

/// Appends a Route Mirroring message: a message of the peer, with its header, that was treated as
/// erroneous (RFC 7854 §4.7).
pub fn encode_mirrored(out: &mut Vec<u8>, header: &PeerHeader, message: &[u8]) {
    let open = begin_of_peer(out, ROUTE_MIRRORING, header);
    push_tlv(out, MIRRORED_INFORMATION, &ERRORED_PDU.to_be_bytes());
    push_tlv(out, MIRRORED_MESSAGE, message);
    open.end(out);
}

/// Appends a Route Mirroring message that says that messages of the peer were lost (RFC 7854 §4.7).
pub fn encode_mirrored_lost(out: &mut Vec<u8>, header: &PeerHeader) {
    let open = begin_of_peer(out, ROUTE_MIRRORING, header);
    push_tlv(out, MIRRORED_INFORMATION, &MESSAGES_LOST.to_be_bytes());
    open.end(out);
}

/// Appends a Statistics Report.
pub fn encode_statistics(out: &mut Vec<u8>, header: &PeerHeader, stats: &[Stat]) {
    let open = begin_of_peer(out, STATISTICS, header);
    out.extend_from_slice(&u32::try_from(stats.len()).unwrap_or(u32::MAX).to_be_bytes());
    for stat in stats {
        match *stat {
            Stat::Counter(kind, value) => push_tlv(out, kind, &value.to_be_bytes()),
            Stat::Gauge(kind, value) => push_tlv(out, kind, &value.to_be_bytes()),
            Stat::FamilyGauge(kind, family, value) => {
                let AfiSafi { afi, safi } = family.afi_safi();
                let ([a, b], [c, d, e, f, g, h, i, j]) = (afi.to_be_bytes(), value.to_be_bytes());
                push_tlv(out, kind, &[a, b, safi, c, d, e, f, g, h, i, j]);
            }
        }
    }
    open.end(out);
}

#[inline]
fn begin_of_peer(out: &mut Vec<u8>, kind: u8, header: &PeerHeader) -> Open {
    let open = Open::begin(out, kind);
    header.encode(out);
    open
}

/// The length of a TLV has two octets: what is longer is cut.
fn push_tlv(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// UTF-8 (RFC 7854 §4.4), cut between characters.
fn push_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    let text = text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default();
    push_tlv(out, kind, text.as_bytes());
}
