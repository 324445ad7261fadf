//! Messages and changes of state (RFC 6396 §4.4, RFC 8050 §3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::header::{BGP4MP_ET, Open};
use super::reader::{Fields, push_address};
use super::{Header, MrtError, Record, Stamp};
use crate::types::{Asn, Family};

const STATE_CHANGE: u16 = 0;
const MESSAGE: u16 = 1;
const MESSAGE_AS4: u16 = 4;
const STATE_CHANGE_AS4: u16 = 5;
const MESSAGE_LOCAL: u16 = 6;
const MESSAGE_AS4_LOCAL: u16 = 7;
const MESSAGE_ADDPATH: u16 = 8;
const MESSAGE_AS4_ADDPATH: u16 = 9;
const MESSAGE_LOCAL_ADDPATH: u16 = 10;
const MESSAGE_AS4_LOCAL_ADDPATH: u16 = 11;

/// The number in place of one that has more than two octets (RFC 6793 §9).
const AS_TRANS: u16 = Asn::TRANS.0 as u16;

/// The session that a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The peer's AS.
    pub peer_asn: Asn,
    /// Our AS.
    pub local_asn: Asn,
    /// The index of the interface, 0 if it is not known (RFC 6396 §4.4.1).
    pub interface: u16,
    /// The peer's address.
    pub peer: IpAddr,
    /// Our address. Written as the unspecified address if it is of another family than the peer's.
    pub local: IpAddr,
}

/// A message on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageOf<'a> {
    /// When it was received or sent.
    pub at: Stamp,
    /// The session.
    pub session: Session,
    /// Whether we sent it (`_LOCAL`).
    pub is_local: bool,
    /// Whether AS_PATH and AGGREGATOR have AS numbers of four octets (`_AS4`).
    pub has_as4: bool,
    /// Whether prefixes have path identifiers (`_ADDPATH`, RFC 8050).
    pub has_path_ids: bool,
    /// The message with its header.
    pub message: &'a [u8],
}

/// A change of state on a session. States have the numbers of RFC 6396 §4.4.1: 1 Idle, 2 Connect, 3 Active,
/// 4 OpenSent, 5 OpenConfirm, 6 Established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// When it happened.
    pub at: Stamp,
    /// The session. Our address is the unspecified one if there is no connection.
    pub session: Session,
    /// The state before.
    pub old: u16,
    /// The state after.
    pub new: u16,
}

/// Appends a BGP4MP_ET record of one of the MESSAGE subtypes.
pub fn encode_message(out: &mut Vec<u8>, message: &MessageOf<'_>) {
    let subtype = match (message.has_as4, message.is_local, message.has_path_ids) {
        (true, false, false) => MESSAGE_AS4,
        (true, true, false) => MESSAGE_AS4_LOCAL,
        (true, false, true) => MESSAGE_AS4_ADDPATH,
        (true, true, true) => MESSAGE_AS4_LOCAL_ADDPATH,
        (false, false, false) => MESSAGE,
        (false, true, false) => MESSAGE_LOCAL,
        (false, false, true) => MESSAGE_ADDPATH,
        (false, true, true) => MESSAGE_LOCAL_ADDPATH,
    };
    let record = begin(out, message.at, subtype, message.has_as4, &message.session);
    out.extend_from_slice(message.message);
    record.end(out);
}

/// Appends a BGP4MP_ET record of the subtype STATE_CHANGE_AS4.
pub fn encode_state_change(out: &mut Vec<u8>, change: &StateChange) {
    let record = begin(out, change.at, STATE_CHANGE_AS4, true, &change.session);
    out.extend_from_slice(&change.old.to_be_bytes());
    out.extend_from_slice(&change.new.to_be_bytes());
    record.end(out);
}

fn begin(out: &mut Vec<u8>, at: Stamp, subtype: u16, has_as4: bool, session: &Session) -> Open {
    let record = Open::begin(out, at.secs, BGP4MP_ET, subtype);
    out.extend_from_slice(&at.micros.to_be_bytes());
    for asn in [session.peer_asn, session.local_asn] {
        if has_as4 {
            out.extend_from_slice(&asn.0.to_be_bytes());
        } else {
            // RFC 6793 §4.2.2: a number that does not fit is AS_TRANS on such a session.
            let short = u16::try_from(asn.0).unwrap_or(AS_TRANS);
            out.extend_from_slice(&short.to_be_bytes());
        }
    }
    out.extend_from_slice(&session.interface.to_be_bytes());
    let (family, local): (Family, IpAddr) = match (session.peer, session.local) {
        (IpAddr::V4(_), IpAddr::V6(_)) => (Family::Ipv4, Ipv4Addr::UNSPECIFIED.into()),
        (IpAddr::V6(_), IpAddr::V4(_)) => (Family::Ipv6, Ipv6Addr::UNSPECIFIED.into()),
        (IpAddr::V4(_), local) => (Family::Ipv4, local),
        (IpAddr::V6(_), local) => (Family::Ipv6, local),
    };
    out.extend_from_slice(&family.afi_safi().afi.to_be_bytes());
    push_address(out, session.peer);
    push_address(out, local);
    record
}

pub(super) fn decode<'a>(header: Header, body: &'a [u8]) -> Result<Record<'a>, MrtError> {
    let Header { kind, subtype, .. } = header;
    let mut fields = Fields(body);
    let micros = if kind == BGP4MP_ET { fields.u32()? } else { 0 };
    if micros >= 1_000_000 {
        return Err(MrtError::Micros(micros));
    }
    let at = Stamp { secs: header.secs, micros };
    let has_as4 = match subtype {
        STATE_CHANGE | MESSAGE | MESSAGE_LOCAL | MESSAGE_ADDPATH | MESSAGE_LOCAL_ADDPATH => false,
        STATE_CHANGE_AS4
        | MESSAGE_AS4
        | MESSAGE_AS4_LOCAL
        | MESSAGE_AS4_ADDPATH
        | MESSAGE_AS4_LOCAL_ADDPATH => true,
        _ => return Ok(Record::Other { kind, subtype }),
    };
    let session = session(&mut fields, has_as4)?;
    if matches!(subtype, STATE_CHANGE | STATE_CHANGE_AS4) {
        let (old, new) = (fields.u16()?, fields.u16()?);
        return Ok(Record::StateChange(StateChange { at, session, old, new }));
    }
    Ok(Record::Message(MessageOf {
        at,
        session,
        is_local: matches!(
            subtype,
            MESSAGE_LOCAL | MESSAGE_AS4_LOCAL | MESSAGE_LOCAL_ADDPATH | MESSAGE_AS4_LOCAL_ADDPATH
        ),
        has_as4,
        has_path_ids: subtype >= MESSAGE_ADDPATH,
        message: fields.0,
    }))
}

fn session(fields: &mut Fields<'_>, has_as4: bool) -> Result<Session, MrtError> {
    let asn = |fields: &mut Fields<'_>| {
        if has_as4 { fields.u32() } else { fields.u16().map(u32::from) }.map(Asn)
    };
    let (peer_asn, local_asn) = (asn(fields)?, asn(fields)?);
    let interface = fields.u16()?;
    let family = match fields.u16()? {
        1 => Family::Ipv4,
        2 => Family::Ipv6,
        other => return Err(MrtError::Afi(other)),
    };
    let (peer, local) = (fields.address(family)?, fields.address(family)?);
    Ok(Session { peer_asn, local_asn, interface, peer, local })
}
