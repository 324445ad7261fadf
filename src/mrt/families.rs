//! The families whose prefixes an UPDATE has.
//!
//! A record says of the message as a whole whether prefixes have path identifiers (RFC 8050 §3), and a session
//! has ADD-PATH in each family for itself (RFC 7911 §4). So the octets are looked at, also those of an UPDATE that is
//! malformed: it is recorded as it was received.

use bgp_proto::types::{Family, FamilySet};
use bgp_proto::wire::{AttrView, attr};

/// The families of which an UPDATE, given without its header, withdraws or announces prefixes. Of what is malformed,
/// the part before the fault counts. None has the End-of-RIB of IPv4.
pub(super) fn of_update(body: &[u8]) -> FamilySet {
    let mut families = FamilySet::EMPTY;
    let Some((withdrawn, rest)) = split_counted(body) else { return families };
    if !withdrawn.is_empty() {
        families.insert(Family::Ipv4);
    }
    let Some((attributes, announced)) = split_counted(rest) else { return families };
    if !announced.is_empty() {
        families.insert(Family::Ipv4);
    }
    for found in AttrView::new(attributes).iter() {
        if !matches!(found.code, attr::MP_REACH_NLRI | attr::MP_UNREACH_NLRI) {
            continue;
        }
        let Some(([a, b, safi], _)) = found.value.split_first_chunk::<3>() else { continue };
        let afi = u16::from_be_bytes([*a, *b]);
        let named = Family::ALL.into_iter().find(|family| {
            let of = family.afi_safi();
            (of.afi, of.safi) == (afi, *safi)
        });
        named.into_iter().for_each(|family| families.insert(family));
    }
    families
}

/// Octets whose number precedes them, in two octets, and what follows; `None` if there are fewer.
fn split_counted(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*count)))
}
