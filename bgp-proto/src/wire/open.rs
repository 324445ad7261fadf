//! OPEN (RFC 4271 §4.2, RFC 5492, RFC 9072).
use nom::combinator::rest;
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use super::capability::whole;
use super::frame::{MessageType, begin_message, finish_message};
use super::{Capabilities, Code, Notification};
use crate::types::{Asn, RouterId};

/// The only version there is.
const VERSION: u8 = 4;
/// Optional parameter: capabilities (RFC 5492).
const PARAMETER_CAPABILITIES: u8 = 2;
/// Optional parameter type that announces the extended format (RFC 9072 §2).
const PARAMETER_EXTENDED: u8 = 255;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The real AS: capability 65 if present, else the two-octet field.
    pub asn: Asn,
    /// Seconds as sent; 0 turns both timers off.
    pub hold_time_secs: u16,
    /// BGP Identifier.
    pub router_id: RouterId,
    /// Capabilities.
    pub capabilities: Capabilities,
}

impl Open {
    /// Parses a body. Checks everything that needs no configuration: version (2/1), parameters
    /// (2/0, 2/4), AS 0 and 23456 without capability (2/2), identifier 0 (2/3), hold time 1 or 2
    /// (2/6).
    pub fn decode(body: &[u8]) -> Result<Open, Notification> {
        let malformed = || Notification::new(Code::OPEN_MESSAGE_ERROR);
        let (_, fixed) = fixed_part(body).map_err(|_| malformed())?;
        if fixed.version != VERSION {
            let supported = u16::from(VERSION).to_be_bytes();
            return Err(Notification::with_data(Code::UNSUPPORTED_VERSION, supported));
        }
        let mut capabilities = Capabilities::default();
        for (kind, value) in parameters(fixed.parameters_len, fixed.rest).ok_or_else(malformed)? {
            if kind != PARAMETER_CAPABILITIES {
                return Err(Notification::new(Code::UNSUPPORTED_OPTIONAL_PARAMETER));
            }
            capabilities.decode_parameter(value)?;
        }
        let asn = capabilities.four_octet_as.unwrap_or(Asn(u32::from(fixed.my_as)));
        // 0 in the two-octet field is refused even beside a usable capability (RFC 7607 §2).
        if fixed.my_as == 0 || !asn.is_usable() {
            return Err(Notification::new(Code::BAD_PEER_AS));
        }
        if fixed.router_id == 0 {
            return Err(Notification::new(Code::BAD_BGP_IDENTIFIER));
        }
        if matches!(fixed.hold_time_secs, 1 | 2) {
            return Err(Notification::new(Code::UNACCEPTABLE_HOLD_TIME));
        }
        Ok(Open {
            asn,
            hold_time_secs: fixed.hold_time_secs,
            router_id: RouterId(fixed.router_id),
            capabilities,
        })
    }

    /// Appends the whole message, all capabilities in one parameter; RFC 9072 form only when the
    /// parameters exceed 255 octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin_message(out, MessageType::Open);
        out.push(VERSION);
        out.extend_from_slice(&self.asn.two_octets());
        out.extend_from_slice(&self.hold_time_secs.to_be_bytes());
        out.extend_from_slice(&self.router_id.0.to_be_bytes());
        let mut tlvs = Vec::new();
        self.capabilities.encode(&mut tlvs);
        match (u8::try_from(tlvs.len() + 2), u8::try_from(tlvs.len())) {
            (Ok(_), Ok(0)) => out.push(0),
            (Ok(all), Ok(one)) => out.extend_from_slice(&[all, PARAMETER_CAPABILITIES, one]),
            _ => {
                let all = u16::try_from(tlvs.len() + 3).unwrap_or(u16::MAX).to_be_bytes();
                let one = u16::try_from(tlvs.len()).unwrap_or(u16::MAX).to_be_bytes();
                out.extend_from_slice(&[255, PARAMETER_EXTENDED, all[0], all[1]]);
                out.extend_from_slice(&[PARAMETER_CAPABILITIES, one[0], one[1]]);
            }
        }
        out.extend_from_slice(&tlvs);
        finish_message(out, start);
    }
}

struct Fixed<'a> {
    version: u8,
    my_as: u16,
    hold_time_secs: u16,
    router_id: u32,
    parameters_len: u8,
    rest: &'a [u8],
}

fn fixed_part(input: &[u8]) -> IResult<&[u8], Fixed<'_>> {
    let (input, (version, my_as, hold_time_secs, router_id, parameters_len, rest)) =
        (be_u8, be_u16, be_u16, be_u32, be_u8, rest).parse(input)?;
    Ok((input, Fixed { version, my_as, hold_time_secs, router_id, parameters_len, rest }))
}

type Parameters<'a> = Vec<(u8, &'a [u8])>;

/// The optional parameters in either format; `None` if a length does not fit.
fn parameters(len: u8, bytes: &[u8]) -> Option<Parameters<'_>> {
    match (len, bytes) {
        // RFC 9072 §2: the first length is then ignored, except that 0 means none.
        (1.., [PARAMETER_EXTENDED, extended @ ..]) => {
            let list = whole(extended, length_data(be_u16))?;
            whole(list, many0((be_u8, length_data(be_u16))))
        }
        _ if usize::from(len) == bytes.len() => whole(bytes, many0((be_u8, length_data(be_u8)))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
