//! Hand-written BGP messages: the few that scripted neighbours send and read.
//!
//! Deliberately does not use `bgp-proto`: an error there must not cancel itself out here.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

/// Length of marker, length and type, in octets.
pub const HEADER_LEN: usize = 19;
/// Maximum message length without RFC 8654, in octets.
pub const MESSAGE_MAX: usize = 4096;

/// Type code of OPEN.
pub const OPEN: u8 = 1;
/// Type code of UPDATE.
pub const UPDATE: u8 = 2;
/// Type code of NOTIFICATION.
pub const NOTIFICATION: u8 = 3;
/// Type code of KEEPALIVE.
pub const KEEPALIVE_TYPE: u8 = 4;

/// A whole KEEPALIVE.
pub const KEEPALIVE: [u8; HEADER_LEN] = {
    let mut bytes = [0xff; HEADER_LEN];
    bytes[16] = 0;
    bytes[17] = 19;
    bytes[18] = KEEPALIVE_TYPE;
    bytes
};

/// Hexadecimal digits to octets.
///
/// # Errors
/// When there are other characters or an odd number of digits.
pub fn from_hex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2) && text.is_ascii(), "odd or not ASCII: {text:.40}");
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).context("not hexadecimal"))
        .collect()
}

/// Octets to hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A message with its header.
///
/// # Errors
/// When the body exceeds the range of the length field.
pub fn message(kind: u8, body: &[u8]) -> Result<Vec<u8>> {
    let len = u16::try_from(HEADER_LEN + body.len())?;
    let mut bytes = vec![0xff; 16];
    bytes.extend(len.to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    Ok(bytes)
}

/// An OPEN with 4-octet AS, IPv4 and IPv6 unicast, route refresh, and more capabilities.
///
/// # Errors
/// When the capabilities do not fit.
pub fn open(asn: u32, hold_time: u16, id: Ipv4Addr, more: &[(u8, Vec<u8>)]) -> Result<Vec<u8>> {
    let basic = [(1, vec![0, 1, 0, 1]), (1, vec![0, 2, 0, 1]), (2, Vec::new())];
    open_with(asn, hold_time, id, &[&basic, more].concat())
}

/// An OPEN with 4-octet AS and these capabilities, each with its code and value.
///
/// # Errors
/// When they do not fit.
pub fn open_with(
    asn: u32,
    hold_time: u16,
    id: Ipv4Addr,
    capabilities: &[(u8, Vec<u8>)],
) -> Result<Vec<u8>> {
    const AS_TRANS: u16 = 23456;
    let mut list = vec![65, 4];
    list.extend(asn.to_be_bytes());
    for (code, value) in capabilities {
        list.extend([*code, u8::try_from(value.len())?]);
        list.extend(value);
    }
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes());
    body.extend(hold_time.to_be_bytes());
    body.extend(id.octets());
    body.extend([u8::try_from(list.len() + 2)?, 2, u8::try_from(list.len())?]);
    body.extend(list);
    message(OPEN, &body)
}

/// The R bit (RFC 4724 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Clear: it has not restarted.
    First,
    /// Set: it has restarted.
    Again,
}

/// The graceful restart capability for IPv4 unicast; the time is in seconds, at most 4095. The F
/// bit (forwarding state preserved) is always set.
#[must_use]
pub fn graceful_restart(restart_time: u16, start: Start) -> (u8, Vec<u8>) {
    let flags = match start {
        Start::First => 0,
        Start::Again => 0x8000,
    };
    let head = (flags | (restart_time & 0x0fff)).to_be_bytes();
    (64, vec![head[0], head[1], 0, 1, 1, 0x80])
}

/// The octets of an IPv4 prefix in an NLRI field.
#[must_use]
pub fn nlri(address: Ipv4Addr, len: u8) -> Vec<u8> {
    let octets = usize::from(len).div_ceil(8);
    let mut bytes = vec![len];
    bytes.extend(&address.octets()[..octets.min(4)]);
    bytes
}

/// An UPDATE for IPv4 with origin IGP, a path of one AS, a next hop and optional communities.
///
/// # Errors
/// When it does not fit into one message.
pub fn announcement(
    asn: u32,
    next_hop: Ipv4Addr,
    communities: &[u32],
    prefixes: &[Vec<u8>],
) -> Result<Vec<u8>> {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
    attributes.extend(asn.to_be_bytes());
    attributes.extend([0x40, 3, 4]);
    attributes.extend(next_hop.octets());
    if !communities.is_empty() {
        attributes.extend([0xc0, 8, u8::try_from(communities.len() * 4)?]);
        attributes.extend(communities.iter().flat_map(|c| c.to_be_bytes()));
    }
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len())?.to_be_bytes());
    body.extend(attributes);
    body.extend(prefixes.concat());
    let bytes = message(UPDATE, &body)?;
    ensure!(bytes.len() <= MESSAGE_MAX, "{} octets", bytes.len());
    Ok(bytes)
}

/// An UPDATE that withdraws IPv4 prefixes.
///
/// # Errors
/// When it does not fit into one message.
pub fn withdrawal(prefixes: &[Vec<u8>]) -> Result<Vec<u8>> {
    let withdrawn = prefixes.concat();
    let mut body = u16::try_from(withdrawn.len())?.to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend([0, 0]);
    let bytes = message(UPDATE, &body)?;
    ensure!(bytes.len() <= MESSAGE_MAX, "{} octets", bytes.len());
    Ok(bytes)
}

/// End-of-RIB for IPv4 unicast.
///
/// # Errors
/// Never; the signature matches that of the other messages.
pub fn end_of_rib() -> Result<Vec<u8>> {
    message(UPDATE, &[0, 0, 0, 0])
}

/// Code, subcode and data of a NOTIFICATION in hexadecimal.
///
/// # Errors
/// When it is shorter than that.
pub fn notification(message: &[u8]) -> Result<(u8, u8, Vec<u8>)> {
    let body = message.get(HEADER_LEN..).context("no body")?;
    match body {
        [code, subcode, data @ ..] => Ok((*code, *subcode, data.to_vec())),
        _ => anyhow::bail!("a NOTIFICATION of {} octets", body.len()),
    }
}
