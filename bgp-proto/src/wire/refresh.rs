//! ROUTE-REFRESH (RFC 2918, RFC 7313).
use nom::Parser;
use nom::number::complete::{be_u8, be_u16};

use super::frame::{HEADER_LEN, MessageType, begin_message, finish_message};
use super::{Code, Notification};
use crate::types::AfiSafi;

/// Message subtype (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// 0, a request.
    Request,
    /// 1, BoRR.
    Begin,
    /// 2, EoRR.
    End,
    /// Anything else: ignored.
    Unknown(u8),
}

impl RefreshKind {
    const fn from_code(code: u8) -> Self {
        match code {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(other),
        }
    }

    const fn code(self) -> u8 {
        match self {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(code) => code,
        }
    }
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family asked for.
    pub family: AfiSafi,
    /// The subtype.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// Parses a whole message (header included, because 7/1 returns it). `enhanced`: both sides
    /// advertised capability 70. Extra octets after subtype 0 (ORF) are tolerated.
    ///
    /// Errors: 7/1 for BoRR and EoRR of a length other than 23 (RFC 7313 §5); 1/2 for a message
    /// without room for its fields, which framing refuses first.
    pub fn decode(message: &[u8], enhanced: bool) -> Result<RouteRefresh, Notification> {
        let body = message.get(HEADER_LEN..).unwrap_or_default();
        let mut fields = (be_u16, be_u8, be_u8);
        let parsed: nom::IResult<_, _> = fields.parse(body);
        let Ok((extra, (afi, subtype, safi))) = parsed else {
            let len = message.get(16..18).unwrap_or_default();
            return Err(Notification::with_data(Code::BAD_MESSAGE_LENGTH, len));
        };
        let kind = RefreshKind::from_code(subtype);
        if enhanced && !extra.is_empty() && matches!(kind, RefreshKind::Begin | RefreshKind::End) {
            return Err(Notification::with_data(Code::ROUTE_REFRESH_BAD_LENGTH, message));
        }
        Ok(RouteRefresh { family: AfiSafi { afi, safi }, kind })
    }

    /// Appends the whole message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin_message(out, MessageType::RouteRefresh);
        let [high, low] = self.family.afi.to_be_bytes();
        out.extend_from_slice(&[high, low, self.kind.code(), self.family.safi]);
        finish_message(out, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(subtype: u8, extra: &[u8]) -> Vec<u8> {
        let mut out = vec![0xFF; 16];
        out.extend([0, 23 + extra.len() as u8, 5, 0, 1, subtype, 1]);
        out.extend(extra);
        out
    }

    #[test]
    fn orf_after_a_request_is_tolerated() {
        let refresh = RouteRefresh::decode(&message(0, &[1, 2, 3]), true).unwrap();
        assert_eq!(refresh.kind, RefreshKind::Request);
    }

    #[test]
    fn markers_of_wrong_length_come_back_whole() {
        for subtype in [1, 2] {
            let bad = message(subtype, &[9]);
            let error = RouteRefresh::decode(&bad, true).unwrap_err();
            assert_eq!(error, Notification::with_data(Code::ROUTE_REFRESH_BAD_LENGTH, bad.clone()));
            assert!(RouteRefresh::decode(&bad, false).is_ok());
        }
        assert!(RouteRefresh::decode(&message(3, &[9]), true).is_ok());
    }

    proptest! {
        #[test]
        fn refreshes_survive_the_wire_and_decoding_is_total(
            afi: u16, safi: u8, subtype: u8,
            noise in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let family = AfiSafi { afi, safi };
            let refresh = RouteRefresh { family, kind: RefreshKind::from_code(subtype) };
            let mut out = Vec::new();
            refresh.encode(&mut out);
            prop_assert_eq!(RouteRefresh::decode(&out, true), Ok(refresh));
            let _ = RouteRefresh::decode(&noise, true);
        }
    }
}
