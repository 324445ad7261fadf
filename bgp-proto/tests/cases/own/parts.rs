//! Messages and their parts.

pub(super) const ROUTE: &str = "203.0.113.0/24";
pub(super) const NLRI: &[u8] = &[24, 203, 0, 113];
pub(super) const ROUTE6: &str = "2001:db8:1::/48";
pub(super) const NLRI6: &[u8] = &[48, 0x20, 1, 0x0d, 0xb8, 0, 1];

pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED: u8 = 0x10;

pub(super) fn message_of_length(len: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF; 16];
    out.extend(len.to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    message_of_length(u16::try_from(19 + body.len()).expect("it fits"), kind, body)
}

/// An OPEN of AS 65001 with these optional parameters.
pub(super) fn open_of(
    version: u8,
    asn: u16,
    hold_time: u16,
    id: [u8; 4],
    parameters: &[u8],
) -> Vec<u8> {
    let mut body = vec![version];
    body.extend(asn.to_be_bytes());
    body.extend(hold_time.to_be_bytes());
    body.extend(id);
    body.push(u8::try_from(parameters.len()).expect("it fits"));
    body.extend(parameters);
    message(1, &body)
}

pub(super) fn open_with(parameters: &[u8]) -> Vec<u8> {
    open_of(4, 65001, 90, [10, 0, 0, 1], parameters)
}

/// Capabilities optional parameter (RFC 5492 §4).
pub(super) fn capabilities(tlvs: &[u8]) -> Vec<u8> {
    let mut out = vec![2, u8::try_from(tlvs.len()).expect("it fits")];
    out.extend(tlvs);
    out
}

pub(super) fn attr(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![flags, code];
    match u8::try_from(value.len()) {
        Ok(len) if flags & EXTENDED == 0 => out.push(len),
        _ => {
            out[0] |= EXTENDED;
            out.extend(u16::try_from(value.len()).expect("it fits").to_be_bytes());
        }
    }
    out.extend(value);
    out
}

pub(super) fn origin() -> Vec<u8> {
    attr(TRANSITIVE, 1, &[0])
}

/// AS_PATH of one segment with four-octet numbers.
pub(super) fn path(segment: u8, numbers: &[u32]) -> Vec<u8> {
    let mut value = vec![segment, u8::try_from(numbers.len()).expect("it fits")];
    numbers.iter().for_each(|n| value.extend(n.to_be_bytes()));
    attr(TRANSITIVE, 2, &value)
}

/// The same with two-octet numbers.
pub(super) fn old_path(numbers: &[u16]) -> Vec<u8> {
    let mut value = vec![2, u8::try_from(numbers.len()).expect("it fits")];
    numbers.iter().for_each(|n| value.extend(n.to_be_bytes()));
    attr(TRANSITIVE, 2, &value)
}

pub(super) fn as_path() -> Vec<u8> {
    path(2, &[65001])
}

pub(super) fn next_hop() -> Vec<u8> {
    attr(TRANSITIVE, 3, &[192, 0, 2, 1])
}

pub(super) fn local_pref() -> Vec<u8> {
    attr(TRANSITIVE, 5, &[0, 0, 0, 100])
}

pub(super) fn update(withdrawn: &[u8], attrs: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    update_of(withdrawn, &attrs.concat(), nlri)
}

pub(super) fn update_of(withdrawn: &[u8], attrs: &[u8], nlri: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).expect("it fits").to_be_bytes();
    let mut body = len(withdrawn).to_vec();
    body.extend(withdrawn);
    body.extend(len(attrs));
    body.extend(attrs);
    body.extend(nlri);
    message(2, &body)
}

/// [`ROUTE`] with the mandatory attributes and one more.
pub(super) fn with(extra: Vec<u8>) -> Vec<u8> {
    update(&[], &[origin(), as_path(), next_hop(), extra], NLRI)
}

/// As [`with`], as an iBGP neighbour sends it.
pub(super) fn with_on_ibgp(extra: Vec<u8>) -> Vec<u8> {
    update(&[], &[origin(), path(2, &[]), next_hop(), local_pref(), extra], NLRI)
}

/// As [`with`], with these for AS_PATH.
pub(super) fn with_path(path: Vec<u8>) -> Vec<u8> {
    update(&[], &[origin(), path, next_hop()], NLRI)
}

/// MP_REACH_NLRI of IPv6.
pub(super) fn mp_reach(next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    mp_reach_of(OPTIONAL, [0, 2], 1, next_hop, nlri)
}

pub(super) fn mp_reach_of(
    flags: u8,
    afi: [u8; 2],
    safi: u8,
    next_hop: &[u8],
    nlri: &[u8],
) -> Vec<u8> {
    let mut value = vec![afi[0], afi[1], safi, u8::try_from(next_hop.len()).expect("it fits")];
    value.extend(next_hop);
    value.push(0);
    value.extend(nlri);
    attr(flags, 14, &value)
}

pub(super) fn mp_unreach(nlri: &[u8]) -> Vec<u8> {
    let mut value = vec![0, 2, 1];
    value.extend(nlri);
    attr(OPTIONAL, 15, &value)
}

pub(super) const GLOBAL: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(super) const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
