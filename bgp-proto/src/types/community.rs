//! Communities of all three kinds and their text forms.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::{Asn, ParseError};

/// A standard community (RFC 1997). Text form `64512:100`; well-known ones also by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Not to be advertised outside the AS (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xFFFF_FF01);
    /// Not to be advertised to any peer (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xFFFF_FF02);
    /// Not to be advertised to any external peer (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xFFFF_FF03);
    /// Not to be advertised to bilateral peers (RFC 3765).
    pub const NO_PEER: Community = Community(0xFFFF_FF04);
    /// Planned maintenance (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xFFFF_0000);
    /// Retained by long-lived graceful restart (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xFFFF_0006);
    /// Not to be retained (RFC 9494).
    pub const NO_LLGR: Community = Community(0xFFFF_0007);
    /// Discard traffic (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xFFFF_029A);

    /// The name, if it is well known.
    pub fn name(self) -> Option<&'static str> {
        Community::NAMES.iter().find(|(_, known)| *known == self).map(|(name, _)| *name)
    }

    const NAMES: [(&'static str, Community); 8] = [
        ("no-export", Community::NO_EXPORT),
        ("no-advertise", Community::NO_ADVERTISE),
        ("no-export-subconfed", Community::NO_EXPORT_SUBCONFED),
        ("no-peer", Community::NO_PEER),
        ("graceful-shutdown", Community::GRACEFUL_SHUTDOWN),
        ("llgr-stale", Community::LLGR_STALE),
        ("no-llgr", Community::NO_LLGR),
        ("blackhole", Community::BLACKHOLE),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xFFFF)
    }
}

impl FromStr for Community {
    type Err = ParseError;

    /// Parses `high:low` (both 0-65535) or a well-known name such as `no-export`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Some((_, known)) = Community::NAMES.iter().find(|(name, _)| *name == s) {
            return Ok(*known);
        }
        let parts = s
            .split_once(':')
            .and_then(|(high, low)| Some((high.parse::<u16>().ok()?, low.parse::<u16>().ok()?)));
        match parts {
            Some((high, low)) => Ok(Community(u32::from(high) << 16 | u32::from(low))),
            None => Err(ParseError(format!(
                "\"{s}\" is not a community (as:value or a well-known name)"
            ))),
        }
    }
}

/// A large community (RFC 8092). Text form `64512:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global administrator: an AS number.
    pub global: u32,
    /// Local data part 1.
    pub local1: u32,
    /// Local data part 2.
    pub local2: u32,
}

impl LargeCommunity {
    /// The twelve octets on the wire.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut out = [0; 12];
        out[..4].copy_from_slice(&self.global.to_be_bytes());
        out[4..8].copy_from_slice(&self.local1.to_be_bytes());
        out[8..].copy_from_slice(&self.local2.to_be_bytes());
        out
    }
}

impl From<[u8; 12]> for LargeCommunity {
    fn from(b: [u8; 12]) -> Self {
        LargeCommunity {
            global: u32::from_be_bytes([b[0], b[1], b[2], b[3]]),
            local1: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
            local2: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
        }
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut parts = s.split(':').map(|p| p.parse::<u32>().ok());
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(global)), Some(Some(local1)), Some(Some(local2)), None) => {
                Ok(LargeCommunity { global, local1, local2 })
            }
            _ => Err(ParseError(format!("\"{s}\" is not a large community (as:value:value)"))),
        }
    }
}

/// An extended community (RFC 4360), eight octets.
///
/// Text forms: `rt:64512:100`, `ro:64512:100` (also `ro:192.0.2.1:5`), and `0x` with sixteen hex
/// digits for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtCommunity(pub [u8; 8]);

impl ExtCommunity {
    /// Whether it may cross an AS border: the 0x40 bit of the type is clear (RFC 4360 §2).
    pub fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }

    /// The octets per second of a Link Bandwidth community (draft-ietf-idr-link-bandwidth), transitive
    /// or not, at least 1. `None`: it is another one, or what it holds is no bandwidth.
    pub fn link_bandwidth(self) -> Option<u64> {
        let [0x00 | 0x40, 0x04, _, _, value @ ..] = self.0 else { return None };
        let octets = f32::from_be_bytes(value);
        (octets.is_finite() && octets >= 1.0).then_some(octets as u64)
    }
}

impl ExtCommunity {
    /// A Link Bandwidth community (draft-ietf-idr-link-bandwidth): who attaches it, and octets per second.
    /// The format has room for a two-octet AS number and a float of 32 bits: a larger AS number is
    /// sent as AS_TRANS (RFC 6793), and of the bandwidth the first 24 bits are exact.
    pub fn of_link_bandwidth(asn: Asn, octets: u64, scope: BandwidthScope) -> Self {
        let kind = match scope {
            BandwidthScope::Transitive => 0x00,
            BandwidthScope::NonTransitive => 0x40,
        };
        let [high, low] = asn.two_octets();
        let [a, b, c, d] = (octets as f32).to_be_bytes();
        ExtCommunity([kind, 0x04, high, low, a, b, c, d])
    }

    /// Whether it is a Link Bandwidth community of either type, whatever it holds.
    pub fn is_link_bandwidth(self) -> bool {
        matches!(self.0, [0x00 | 0x40, 0x04, ..])
    }

    /// The same with its bandwidth multiplied, at least 1 octet per second; one that holds no
    /// bandwidth is unchanged.
    #[must_use]
    pub fn scaled_link_bandwidth(self, percent: u16) -> Self {
        let Some(octets) = self.link_bandwidth() else { return self };
        let [kind, sub, high, low, ..] = self.0;
        let scaled = (octets as f64 * f64::from(percent) / 100.0).max(1.0) as f32;
        let [a, b, c, d] = scaled.min(f32::MAX).to_be_bytes();
        ExtCommunity([kind, sub, high, low, a, b, c, d])
    }
}

/// How far a Link Bandwidth community goes: the two types that draft-ietf-idr-link-bandwidth defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BandwidthScope {
    /// Type 0x00: sent to external peers as well.
    Transitive,
    /// Type 0x40: stays inside the AS; removed from what is advertised to external peers.
    NonTransitive,
}

impl fmt::Display for ExtCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, sub, b @ ..] = self.0;
        let label = match sub {
            0x02 => "rt",
            0x03 => "ro",
            _ => "",
        };
        let low4 = u32::from_be_bytes([b[2], b[3], b[4], b[5]]);
        let high4 = u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        let low2 = u16::from_be_bytes([b[4], b[5]]);
        match (kind, label) {
            (0x00, "rt" | "ro") => {
                write!(f, "{label}:{}:{low4}", u16::from_be_bytes([b[0], b[1]]))
            }
            (0x01, "rt" | "ro") => write!(f, "{label}:{}:{low2}", Ipv4Addr::from(high4)),
            (0x02, "rt" | "ro") => write!(f, "{label}:{high4}:{low2}"),
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl FromStr for ExtCommunity {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse_ext(s).ok_or_else(|| {
            ParseError(format!(
                "\"{s}\" is not an extended community (rt:as:value, ro:as:value or 0x…)"
            ))
        })
    }
}

fn parse_ext(s: &str) -> Option<ExtCommunity> {
    if let Some(hex) = s.strip_prefix("0x") {
        if hex.len() != 16 {
            return None;
        }
        return u64::from_str_radix(hex, 16).ok().map(|v| ExtCommunity(v.to_be_bytes()));
    }
    let (label, rest) = s.split_once(':')?;
    let sub = match label {
        "rt" => 0x02,
        "ro" => 0x03,
        _ => return None,
    };
    let (admin, value) = rest.rsplit_once(':')?;
    let mut out = [0, sub, 0, 0, 0, 0, 0, 0];
    if let Ok(addr) = admin.parse::<Ipv4Addr>() {
        out[0] = 0x01;
        out[2..6].copy_from_slice(&addr.octets());
        out[6..].copy_from_slice(&value.parse::<u16>().ok()?.to_be_bytes());
    } else if let Ok(asn) = admin.parse::<u16>() {
        out[2..4].copy_from_slice(&asn.to_be_bytes());
        out[4..].copy_from_slice(&value.parse::<u32>().ok()?.to_be_bytes());
    } else {
        out[0] = 0x02;
        out[2..6].copy_from_slice(&admin.parse::<u32>().ok()?.to_be_bytes());
        out[6..].copy_from_slice(&value.parse::<u16>().ok()?.to_be_bytes());
    }
    Some(ExtCommunity(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_communities_parse_and_print() {
        let c: Community = "64512:100".parse().unwrap();
        assert_eq!(c, Community(0xFC00_0064));
        assert_eq!(c.to_string(), "64512:100");
        assert_eq!("no-export".parse(), Ok(Community::NO_EXPORT));
        for bad in ["", "1", "65536:1", "1:2:3", "1:-2", "a:b"] {
            assert!(bad.parse::<Community>().is_err(), "{bad}");
        }
    }

    #[test]
    fn large_communities_round_trip() {
        let c: LargeCommunity = "4200000001:1:2".parse().unwrap();
        assert_eq!(LargeCommunity::from(c.to_bytes()), c);
        assert_eq!(c.to_string(), "4200000001:1:2");
        assert!("1:2".parse::<LargeCommunity>().is_err());
        assert!("1:2:3:4".parse::<LargeCommunity>().is_err());
    }

    #[test]
    fn a_link_bandwidth_is_read_of_either_type() {
        let community = |kind, sub, value: f32| {
            let [a, b, c, d] = value.to_be_bytes();
            ExtCommunity([kind, sub, 0xFC, 0x00, a, b, c, d]).link_bandwidth()
        };
        assert_eq!(community(0x40, 0x04, 1.25e9), Some(1_250_000_000));
        assert_eq!(community(0x00, 0x04, 1.25e9), Some(1_250_000_000));
        assert_eq!(community(0x40, 0x04, f32::MAX), Some(u64::MAX));
        for value in [0.0, 0.5, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(community(0x40, 0x04, value), None, "{value}");
        }
        assert_eq!(community(0x40, 0x02, 1.25e9), None);
        assert_eq!(community(0x02, 0x04, 1.25e9), None);
    }

    #[test]
    fn a_link_bandwidth_is_written_of_either_type() {
        let made =
            ExtCommunity::of_link_bandwidth(Asn(64512), 1_250_000, BandwidthScope::NonTransitive);
        assert_eq!(made.to_string(), "0x4004fc0049989680");
        assert!(!made.is_transitive());
        let made =
            ExtCommunity::of_link_bandwidth(Asn(4_200_000_000), 3, BandwidthScope::Transitive);
        assert_eq!(made.to_string(), "0x00045ba040400000");
        assert_eq!((made.is_transitive(), made.link_bandwidth()), (true, Some(3)));
    }

    #[test]
    fn extended_communities_round_trip() {
        for text in ["rt:64512:100", "ro:192.0.2.1:5", "rt:4200000001:7", "0x4004fde800000001"] {
            let c: ExtCommunity = text.parse().unwrap();
            assert_eq!(c.to_string(), text);
        }
        assert!(!"0x4004fde800000001".parse::<ExtCommunity>().unwrap().is_transitive());
        for bad in ["0x12", "rt:1", "xx:1:2", "rt:192.0.2.1:65536"] {
            assert!(bad.parse::<ExtCommunity>().is_err(), "{bad}");
        }
    }
}
