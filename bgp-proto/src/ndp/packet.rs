//! Router Solicitation and Router Advertisement (RFC 4861 §4.1, §4.2), validated as §6.1 requires.
//!
//! Own code, of which the validation is the larger part: the crates that have these messages decode
//! fields and leave that to the caller.

use std::net::Ipv6Addr;

use crate::types::on_interface6;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
/// Octets before the options.
const SOLICITATION_LEN: usize = 8;
const ADVERTISEMENT_LEN: usize = 16;

/// A Router Solicitation without options. The checksum is left to the kernel.
pub const SOLICITATION: [u8; SOLICITATION_LEN] = [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];

/// A Router Advertisement with Router Lifetime zero: we are a neighbour, and no default router. It
/// leaves every parameter of hosts unspecified. The checksum is left to the kernel.
pub fn advertisement() -> [u8; ADVERTISEMENT_LEN] {
    let mut octets = [0; ADVERTISEMENT_LEN];
    octets[0] = ROUTER_ADVERTISEMENT;
    octets
}

/// A valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks for advertisements.
    Solicitation,
    /// The sender is a router.
    Advertisement {
        /// For how many seconds it is a default router; 0: it is none.
        lifetime: u16,
    },
}

/// Why a packet is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// Neither a solicitation nor an advertisement.
    Type,
    /// A hop limit other than 255: it may come from beyond the link.
    HopLimit,
    /// An ICMPv6 code other than 0.
    Code,
    /// Shorter than its type requires.
    Length,
    /// An option of length zero, or one that ends beyond the packet.
    Option,
    /// An advertisement whose source is not link-local, or a solicitation from `::` with a link-layer
    /// address.
    Source,
    /// Our own packet.
    Own,
}

impl Discard {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Discard; 7] = [
        Discard::Type,
        Discard::HopLimit,
        Discard::Code,
        Discard::Length,
        Discard::Option,
        Discard::Source,
        Discard::Own,
    ];

    /// The reason in metrics and in `margay show peer`.
    pub fn name(self) -> &'static str {
        match self {
            Discard::Type => "type",
            Discard::HopLimit => "hop-limit",
            Discard::Code => "code",
            Discard::Length => "length",
            Discard::Option => "option",
            Discard::Source => "source",
            Discard::Own => "own",
        }
    }
}

/// Decodes the ICMPv6 message `octets`, whose checksum the kernel has verified, from `source`.
///
/// # Errors
/// Why it must be discarded (RFC 4861 §6.1.1, §6.1.2).
pub fn decode(source: Ipv6Addr, hop_limit: u8, octets: &[u8]) -> Result<Message, Discard> {
    let &[kind, code, ..] = octets else { return Err(Discard::Length) };
    let header = match kind {
        ROUTER_SOLICITATION => SOLICITATION_LEN,
        ROUTER_ADVERTISEMENT => ADVERTISEMENT_LEN,
        _ => return Err(Discard::Type),
    };
    if hop_limit != u8::MAX {
        return Err(Discard::HopLimit);
    }
    if code != 0 {
        return Err(Discard::Code);
    }
    let options = octets.get(header..).ok_or(Discard::Length)?;
    let has_source = walk_options(options)?;
    if kind == ROUTER_SOLICITATION {
        let is_forged = source.is_unspecified() && has_source;
        return if is_forged { Err(Discard::Source) } else { Ok(Message::Solicitation) };
    }
    // A host's address in fe80::/64 (RFC 4291 §2.5.6): with other bits it could not be told apart from one
    // of those.
    let is_host = source.to_bits() as u64 != 0 && on_interface6(source, 0) == source;
    if !source.is_unicast_link_local() || !is_host {
        return Err(Discard::Source);
    }
    let lifetime = match octets.get(6..8) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    Ok(Message::Advertisement { lifetime })
}

/// Whether there is a Source Link-Layer Address among the options. Unknown ones are ignored.
fn walk_options(mut options: &[u8]) -> Result<bool, Discard> {
    let mut has_source = false;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        if len == 0 {
            return Err(Discard::Option);
        }
        has_source |= kind == SOURCE_LINK_LAYER_ADDRESS;
        options = options.get(len..).ok_or(Discard::Option)?;
    }
    if options.is_empty() { Ok(has_source) } else { Err(Discard::Option) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn ours_are_valid_and_say_that_we_are_no_default_router() {
        let ours = decode(ROUTER, 255, &advertisement());
        assert_eq!(ours, Ok(Message::Advertisement { lifetime: 0 }));
        let unspecified = Ipv6Addr::UNSPECIFIED;
        assert_eq!(decode(unspecified, 255, &SOLICITATION), Ok(Message::Solicitation));
    }

    /// RFC 4861 §6.1.1 and §6.1.2, each rule once.
    #[test]
    fn what_the_rfc_calls_invalid_is_discarded() {
        let with = |at: usize, value: u8| {
            let mut octets = advertisement().to_vec();
            octets[at] = value;
            octets
        };
        let longer = |tail: &[u8]| [&advertisement()[..], tail].concat();
        let with_bits = |first, last| Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last);
        let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let cases = [
            (ROUTER, 254, advertisement().to_vec(), Discard::HopLimit),
            (ROUTER, 255, with(1, 1), Discard::Code),
            (ROUTER, 255, with(0, 135), Discard::Type),
            (ROUTER, 255, advertisement()[..15].to_vec(), Discard::Length),
            (ROUTER, 255, SOLICITATION[..7].to_vec(), Discard::Length),
            (ROUTER, 255, vec![134], Discard::Length),
            (ROUTER, 255, Vec::new(), Discard::Length),
            (ROUTER, 255, longer(&[1, 0, 0, 0, 0, 0, 0, 0]), Discard::Option),
            (ROUTER, 255, longer(&[1, 2, 0, 0, 0, 0, 0, 0]), Discard::Option),
            (ROUTER, 255, longer(&[5]), Discard::Option),
            (global, 255, advertisement().to_vec(), Discard::Source),
            (Ipv6Addr::UNSPECIFIED, 255, advertisement().to_vec(), Discard::Source),
            (with_bits(0xfe90, 1), 255, advertisement().to_vec(), Discard::Source),
            (with_bits(0xfe80, 0), 255, advertisement().to_vec(), Discard::Source),
        ];
        for (source, hop_limit, octets, why) in cases {
            assert_eq!(decode(source, hop_limit, &octets), Err(why), "{octets:?}");
        }
        let source_option = [&SOLICITATION[..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
        let from_nowhere = decode(Ipv6Addr::UNSPECIFIED, 255, &source_option);
        assert_eq!(from_nowhere, Err(Discard::Source));
        assert_eq!(decode(ROUTER, 255, &source_option), Ok(Message::Solicitation));
    }

    #[test]
    fn a_default_router_with_unknown_options_is_a_neighbour_too() {
        let mut octets = advertisement().to_vec();
        octets[6..8].copy_from_slice(&1800u16.to_be_bytes());
        octets.extend([1, 1, 2, 0, 0, 0, 0, 1, 253, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode(ROUTER, 255, &octets), Ok(Message::Advertisement { lifetime: 1800 }));
    }

    proptest! {
        #[test]
        fn every_input_has_one_outcome(
            source: u128, hop_limit in 253u8.., octets in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let source = Ipv6Addr::from_bits(source);
            let outcome = decode(source, hop_limit, &octets);
            if outcome.is_ok() {
                prop_assert_eq!((hop_limit, octets[1]), (255, 0));
            }
            // What follows the options of a valid message makes it invalid or is an option.
            if let (Ok(message), true) = (outcome, source.is_unicast_link_local()) {
                let longer = [&octets[..], &[253, 1, 0, 0, 0, 0, 0, 0]].concat();
                prop_assert_eq!(decode(source, hop_limit, &longer), Ok(message));
            }
        }
    }
}
