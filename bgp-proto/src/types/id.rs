//! Identifiers: never a bare `u32`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseError;

/// An autonomous system number, four octets (RFC 6793). Text form: asplain; asdot is parsed too.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// AS_TRANS, which stands for a four-octet number on a two-octet session (RFC 6793 §9).
    pub const TRANS: Asn = Asn(23456);

    /// Whether the number may name a real peer: not 0 (RFC 7607) and not AS_TRANS.
    pub fn is_usable(self) -> bool {
        self.0 != 0 && self != Asn::TRANS
    }

    pub(crate) fn fits_two_octets(self) -> bool {
        self.0 <= u32::from(u16::MAX)
    }

    /// Where there is room for two octets: the number, or AS_TRANS if it does not fit.
    pub(crate) fn two_octets(self) -> [u8; 2] {
        let asn = if self.fits_two_octets() { self } else { Asn::TRANS };
        let [_, _, high, low] = asn.0.to_be_bytes();
        [high, low]
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Asn {
    type Err = ParseError;

    /// Parses `64512` (asplain) and `1.10` (asdot, RFC 5396).
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong =
            || ParseError(format!("\"{s}\" is not an AS number (0-4294967295 or high.low)"));
        if let Some((high, low)) = s.split_once('.') {
            let high: u16 = high.parse().map_err(|_| wrong())?;
            let low: u16 = low.parse().map_err(|_| wrong())?;
            return Ok(Asn(u32::from(high) << 16 | u32::from(low)));
        }
        s.parse().map(Asn).map_err(|_| wrong())
    }
}

macro_rules! dotted_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Ipv4Addr::from(self.0).fmt(f)
            }
        }

        impl From<Ipv4Addr> for $name {
            fn from(addr: Ipv4Addr) -> Self {
                $name(u32::from(addr))
            }
        }

        impl FromStr for $name {
            type Err = std::net::AddrParseError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse::<Ipv4Addr>().map(Self::from)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Ipv4Addr::deserialize(d).map(Self::from)
            }
        }
    };
}

dotted_id! {
    /// A BGP Identifier (RFC 6286): any non-zero number, written as an IPv4 address.
    RouterId
}
dotted_id! {
    /// A route reflection cluster (RFC 4456 §8), written as an IPv4 address.
    ClusterId
}

/// A path identifier (RFC 7911). Opaque; 0 is legal, and stands for "none" on sessions without
/// ADD-PATH.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PathId(pub u32);

/// A peer's index, given by the host: small, dense, reused only after the table has removed the
/// peer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PeerId(pub u32);

impl PeerId {
    /// The index as a `usize`, for slabs.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One established session of one peer. The host draws it from one process-wide counter, so that no
/// two sessions ever have the same number; inputs that name an earlier session are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a peer is in our own AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerType {
    /// iBGP: the peer's AS is ours.
    Internal,
    /// eBGP: another AS.
    External,
}

impl PeerType {
    /// The type of a peer in the AS `remote`, on a session on which our AS is `local`.
    pub fn of(local: Asn, remote: Asn) -> Self {
        if local == remote { PeerType::Internal } else { PeerType::External }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers_parse_in_both_notations() {
        assert_eq!("64512".parse(), Ok(Asn(64512)));
        assert_eq!("1.10".parse(), Ok(Asn(65546)));
        for bad in ["", "-1", "4294967296", "1.65536", "1.2.3", "x"] {
            assert!(bad.parse::<Asn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn identifiers_print_as_addresses() {
        let id: RouterId = "10.0.0.1".parse().unwrap();
        assert_eq!(id, RouterId(0x0a00_0001));
        assert_eq!(id.to_string(), "10.0.0.1");
    }
}
