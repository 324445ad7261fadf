//! Prefixes, canonical by construction: bits beyond the length are always zero.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Family, ParseError};

/// An IPv4 prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix4 {
    addr: u32,
    len: u8,
}

impl Prefix4 {
    /// The prefix of `len` bits that holds `addr`; lengths above 32 count as 32.
    pub const fn new(addr: Ipv4Addr, len: u8) -> Self {
        Self::from_bits(addr.to_bits(), len)
    }

    /// As [`Prefix4::new`], from a number in host order.
    pub const fn from_bits(addr: u32, len: u8) -> Self {
        let len = if len > 32 { 32 } else { len };
        Prefix4 { addr: addr & Self::mask(len), len }
    }

    /// From the parts of a prefix.
    pub(crate) const fn from_parts(addr: u32, len: u8) -> Self {
        debug_assert!(len <= 32 && addr & !Self::mask(len) == 0);
        Prefix4 { addr, len }
    }

    const fn mask(len: u8) -> u32 {
        if len == 0 { 0 } else { u32::MAX << (32 - len as u32) }
    }

    /// The network address.
    pub const fn addr(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.addr)
    }

    /// The network address as a number in host order.
    pub const fn bits(self) -> u32 {
        self.addr
    }

    /// Length in bits, 0-32.
    pub const fn len(self) -> u8 {
        self.len
    }

    /// Whether this is the default route.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether `other` is this prefix or a more specific one.
    pub const fn contains(self, other: Prefix4) -> bool {
        other.len >= self.len && other.addr & Self::mask(self.len) == self.addr
    }
}

/// An IPv6 prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix6 {
    addr: u128,
    len: u8,
}

impl Prefix6 {
    /// The prefix of `len` bits that holds `addr`; lengths above 128 count as 128.
    pub const fn new(addr: Ipv6Addr, len: u8) -> Self {
        Self::from_bits(addr.to_bits(), len)
    }

    /// As [`Prefix6::new`], from a number in host order.
    pub const fn from_bits(addr: u128, len: u8) -> Self {
        let len = if len > 128 { 128 } else { len };
        Prefix6 { addr: addr & Self::mask(len), len }
    }

    /// From the parts of a prefix.
    pub(crate) const fn from_parts(addr: u128, len: u8) -> Self {
        debug_assert!(len <= 128 && addr & !Self::mask(len) == 0);
        Prefix6 { addr, len }
    }

    const fn mask(len: u8) -> u128 {
        if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
    }

    /// The network address.
    pub const fn addr(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.addr)
    }

    /// The network address as a number in host order.
    pub const fn bits(self) -> u128 {
        self.addr
    }

    /// Length in bits, 0-128.
    pub const fn len(self) -> u8 {
        self.len
    }

    /// Whether this is the default route.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether `other` is this prefix or a more specific one.
    pub const fn contains(self, other: Prefix6) -> bool {
        other.len >= self.len && other.addr & Self::mask(self.len) == self.addr
    }
}

/// A prefix of either family. IPv4 sorts before IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// IPv4.
    V4(Prefix4),
    /// IPv6.
    V6(Prefix6),
}

impl Prefix {
    /// The prefix of `len` bits that holds `addr`; longer lengths than the family allows count as
    /// its longest.
    pub const fn new(addr: IpAddr, len: u8) -> Self {
        match addr {
            IpAddr::V4(a) => Prefix::V4(Prefix4::new(a, len)),
            IpAddr::V6(a) => Prefix::V6(Prefix6::new(a, len)),
        }
    }

    /// The prefix that holds `addr` alone.
    pub const fn host(addr: IpAddr) -> Self {
        Prefix::new(addr, 128)
    }

    /// The family.
    pub const fn family(self) -> Family {
        match self {
            Prefix::V4(_) => Family::Ipv4,
            Prefix::V6(_) => Family::Ipv6,
        }
    }

    /// The network address.
    pub const fn addr(self) -> IpAddr {
        match self {
            Prefix::V4(p) => IpAddr::V4(p.addr()),
            Prefix::V6(p) => IpAddr::V6(p.addr()),
        }
    }

    /// Length in bits.
    pub const fn len(self) -> u8 {
        match self {
            Prefix::V4(p) => p.len(),
            Prefix::V6(p) => p.len(),
        }
    }

    /// Whether this is a default route.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `other` is this prefix or a more specific one of the same family.
    pub fn contains(self, other: Prefix) -> bool {
        match (self, other) {
            (Prefix::V4(a), Prefix::V4(b)) => a.contains(b),
            (Prefix::V6(a), Prefix::V6(b)) => a.contains(b),
            _ => false,
        }
    }

    /// Whether `addr` lies in the prefix.
    pub fn contains_addr(self, addr: IpAddr) -> bool {
        self.contains(Prefix::host(addr))
    }
}

impl From<Prefix4> for Prefix {
    fn from(p: Prefix4) -> Self {
        Prefix::V4(p)
    }
}

impl From<Prefix6> for Prefix {
    fn from(p: Prefix6) -> Self {
        Prefix::V6(p)
    }
}

impl From<IpNetwork> for Prefix {
    fn from(n: IpNetwork) -> Self {
        Prefix::new(n.ip(), n.prefix())
    }
}

impl From<Prefix> for IpNetwork {
    fn from(p: Prefix) -> Self {
        match p {
            Prefix::V4(p) => IpNetwork::V4(
                Ipv4Network::new(p.addr(), p.len()).expect("a Prefix4 is at most 32 bits long"),
            ),
            Prefix::V6(p) => IpNetwork::V6(
                Ipv6Network::new(p.addr(), p.len()).expect("a Prefix6 is at most 128 bits long"),
            ),
        }
    }
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = String::with_capacity(43);
                fmt::Write::write_fmt(&mut text, format_args!("{}/{}", self.addr(), self.len()))?;
                f.pad(&text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
text_form!(Prefix4, Prefix6, Prefix);

impl FromStr for Prefix {
    type Err = ParseError;

    /// Parses `10.0.0.0/8`; an address without a length is a host route. Host bits are refused,
    /// because a prefix with host bits is nearly always a typing error.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let network: IpNetwork = s
            .parse()
            .map_err(|_| ParseError(format!("\"{s}\" is not a prefix (address/length)")))?;
        let prefix = Prefix::from(network);
        if prefix.addr() != network.ip() {
            let wrong = format!("\"{s}\" has host bits set; did you mean {prefix}?");
            return Err(ParseError(wrong));
        }
        Ok(prefix)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_bits_are_masked_by_construction_and_refused_in_text() {
        assert_eq!(Prefix4::new(Ipv4Addr::new(10, 1, 2, 3), 8).addr(), Ipv4Addr::new(10, 0, 0, 0));
        let err = "10.1.2.3/8".parse::<Prefix>().unwrap_err();
        assert!(err.to_string().contains("10.0.0.0/8"), "{err}");
        assert_eq!("10.0.0.1".parse::<Prefix>().unwrap().to_string(), "10.0.0.1/32");
    }

    #[test]
    fn containment_respects_family_and_length() {
        let ten: Prefix = "10.0.0.0/8".parse().unwrap();
        let all4: Prefix = "0.0.0.0/0".parse().unwrap();
        let all6: Prefix = "::/0".parse().unwrap();
        assert!(ten.contains("10.2.0.0/16".parse().unwrap()));
        assert!(!ten.contains(all4));
        assert!(all4.contains(ten) && !all6.contains(ten));
    }

    proptest! {
        #[test]
        fn a_prefix_contains_itself_and_survives_text(bits: u128, len in 0u8..=128) {
            let p = Prefix::V6(Prefix6::from_bits(bits, len));
            prop_assert!(p.contains(p));
            prop_assert_eq!(p.to_string().parse::<Prefix>().unwrap(), p);
        }
    }
}
