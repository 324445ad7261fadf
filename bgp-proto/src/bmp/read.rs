//! Reading messages, as a station does.

use std::net::IpAddr;

use thiserror::Error;

use super::encode::{
    INITIATION, PEER_DOWN, PEER_UP, ROUTE_MIRRORING, ROUTE_MONITORING, STATISTICS, TERMINATION,
};
use super::peer_header::address_of;
use super::{COMMON_HEADER_LEN, MESSAGE_MAX, PEER_HEADER_LEN, PeerHeader, PeerKind, VERSION};
use crate::wire::{EXTENDED_MAX_LEN, MessageType, split_frame};

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BmpError {
    /// Another version than 3.
    #[error("version {0}")]
    Version(u8),
    /// The header's length is less than a header or more than [`MESSAGE_MAX`].
    #[error("a message of {0} octets")]
    Len(u32),
    /// A field extends beyond the end of the message.
    #[error("the message ends within a field")]
    Short,
    /// An unknown type of message.
    #[error("message type {0}")]
    Kind(u8),
    /// An unknown type of peer.
    #[error("peer type {0}")]
    PeerKind(u8),
    /// AS numbers of two octets, which are not read.
    #[error("AS_PATH with numbers of two octets")]
    TwoOctetAs,
    /// A filtered Loc-RIB, which is not read.
    #[error("a filtered Loc-RIB")]
    Filtered,
    /// A BGP message within is not the expected one.
    #[error("a BGP message within is damaged or of another type")]
    Inner,
    /// An unknown reason.
    #[error("reason {0}")]
    Reason(u8),
}

/// A TLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Type.
    pub kind: u16,
    /// Value.
    pub value: &'a [u8],
}

/// A message without the header of its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKind<'a> {
    /// An UPDATE with its header.
    RouteMonitoring(&'a [u8]),
    /// Statistics.
    Statistics(Vec<Tlv<'a>>),
    /// The reason, and what follows it.
    PeerDown(u8, &'a [u8]),
    /// Our address, both ports, both OPENs with their headers, and TLVs.
    PeerUp {
        /// The monitored router's address.
        local: IpAddr,
        /// Its port and the peer's.
        ports: (u16, u16),
        /// The OPEN that it sent.
        sent: &'a [u8],
        /// The OPEN that it received.
        received: &'a [u8],
        /// TLVs.
        tlvs: Vec<Tlv<'a>>,
    },
    /// TLVs.
    Initiation(Vec<Tlv<'a>>),
    /// TLVs.
    Termination(Vec<Tlv<'a>>),
    /// TLVs.
    RouteMirroring(Vec<Tlv<'a>>),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The peer that it is about; none for Initiation and Termination.
    pub peer: Option<PeerHeader>,
    /// The rest.
    pub kind: MessageKind<'a>,
}

/// Splits the first message from `buf`; `Ok(None)` if it is not complete yet.
///
/// # Errors
/// Another version, or an impossible length: the rest cannot be read.
pub fn split_message(buf: &[u8]) -> Result<Option<&[u8]>, BmpError> {
    let Some([version, a, b, c, d, _]) = buf.first_chunk::<COMMON_HEADER_LEN>() else {
        return Ok(None);
    };
    if *version != VERSION {
        return Err(BmpError::Version(*version));
    }
    let long = u32::from_be_bytes([*a, *b, *c, *d]);
    let len = usize::try_from(long).unwrap_or(usize::MAX);
    if !(COMMON_HEADER_LEN..=MESSAGE_MAX).contains(&len) {
        return Err(BmpError::Len(long));
    }
    Ok(buf.get(..len))
}

impl<'a> Message<'a> {
    /// Decodes one message, as [`split_message`] returns it.
    ///
    /// # Errors
    /// It is none of RFC 7854, or a field is damaged.
    pub fn decode(octets: &'a [u8]) -> Result<Message<'a>, BmpError> {
        let whole = split_message(octets)?.ok_or(BmpError::Short)?;
        let [.., kind] = *whole.first_chunk::<COMMON_HEADER_LEN>().ok_or(BmpError::Short)?;
        let body = whole.get(COMMON_HEADER_LEN..).unwrap_or_default();
        match kind {
            INITIATION => {
                return Ok(Message { peer: None, kind: MessageKind::Initiation(tlvs(body)?) });
            }
            TERMINATION => {
                return Ok(Message { peer: None, kind: MessageKind::Termination(tlvs(body)?) });
            }
            ROUTE_MONITORING | STATISTICS | PEER_DOWN | PEER_UP | ROUTE_MIRRORING => {}
            other => return Err(BmpError::Kind(other)),
        }
        let (header, body) = body.split_first_chunk::<PEER_HEADER_LEN>().ok_or(BmpError::Short)?;
        let peer = PeerHeader::decode(header)?;
        let kind = match kind {
            ROUTE_MONITORING => MessageKind::RouteMonitoring(only(body, MessageType::Update)?),
            STATISTICS => {
                let (_, rest) = body.split_first_chunk::<4>().ok_or(BmpError::Short)?;
                MessageKind::Statistics(tlvs(rest)?)
            }
            PEER_DOWN => {
                let (reason, rest) = body.split_first().ok_or(BmpError::Short)?;
                check_down(*reason, rest)?;
                MessageKind::PeerDown(*reason, rest)
            }
            PEER_UP => peer_up(&peer, body)?,
            _ => MessageKind::RouteMirroring(tlvs(body)?),
        };
        Ok(Message { peer: Some(peer), kind })
    }
}

fn peer_up<'a>(peer: &PeerHeader, body: &'a [u8]) -> Result<MessageKind<'a>, BmpError> {
    let (local, rest) = body.split_first_chunk::<16>().ok_or(BmpError::Short)?;
    let ([a, b, c, d], rest) = rest.split_first_chunk::<4>().ok_or(BmpError::Short)?;
    let (sent, rest) = first(rest, MessageType::Open)?;
    let (received, rest) = first(rest, MessageType::Open)?;
    let is_ipv6 = peer.kind != PeerKind::LocRib && peer.address.is_ipv6();
    Ok(MessageKind::PeerUp {
        local: address_of(local, is_ipv6),
        ports: (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        sent,
        received,
        tlvs: tlvs(rest)?,
    })
}

fn check_down(reason: u8, rest: &[u8]) -> Result<(), BmpError> {
    match reason {
        1 | 3 => only(rest, MessageType::Notification).map(|_| ()),
        2 if rest.len() == 2 => Ok(()),
        4 | 5 if rest.is_empty() => Ok(()),
        6 => tlvs(rest).map(|_| ()),
        2 | 4 | 5 => Err(BmpError::Short),
        other => Err(BmpError::Reason(other)),
    }
}

fn only(octets: &[u8], kind: MessageType) -> Result<&[u8], BmpError> {
    match first(octets, kind)? {
        (message, []) => Ok(message),
        _ => Err(BmpError::Inner),
    }
}

fn first(octets: &[u8], kind: MessageType) -> Result<(&[u8], &[u8]), BmpError> {
    match split_frame(octets, EXTENDED_MAX_LEN) {
        Ok(Some(frame)) if frame.kind == kind => Ok(octets.split_at(frame.bytes.len())),
        _ => Err(BmpError::Inner),
    }
}

fn tlvs(mut rest: &[u8]) -> Result<Vec<Tlv<'_>>, BmpError> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let ([a, b, c, d], after) = rest.split_first_chunk::<4>().ok_or(BmpError::Short)?;
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        let (value, after) = after.split_at_checked(len).ok_or(BmpError::Short)?;
        found.push(Tlv { kind: u16::from_be_bytes([*a, *b]), value });
        rest = after;
    }
    Ok(found)
}
