//! Address families: the two that margay carries, and any pair of numbers that a peer may name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An (AFI, SAFI) pair as on the wire, known to us or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

/// An address family that margay carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Family {
    /// IPv4 unicast, 1/1.
    #[serde(rename = "ipv4")]
    Ipv4 = 0,
    /// IPv6 unicast, 2/1.
    #[serde(rename = "ipv6")]
    Ipv6 = 1,
}

impl Family {
    /// Every family, in canonical order.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// Position in [`Family::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The pair of numbers on the wire.
    pub const fn afi_safi(self) -> AfiSafi {
        match self {
            Family::Ipv4 => AfiSafi { afi: 1, safi: 1 },
            Family::Ipv6 => AfiSafi { afi: 2, safi: 1 },
        }
    }

    /// Longest prefix length: 32 or 128.
    pub const fn max_len(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

impl TryFrom<AfiSafi> for Family {
    type Error = AfiSafi;

    fn try_from(pair: AfiSafi) -> Result<Self, AfiSafi> {
        Family::ALL.into_iter().find(|f| f.afi_safi() == pair).ok_or(pair)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        })
    }
}

/// A set of families.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FamilySet(u8);

impl FamilySet {
    /// No family.
    pub const EMPTY: FamilySet = FamilySet(0);
    /// Every family that margay carries.
    pub const ALL: FamilySet = FamilySet(0b11);

    /// The set with one member.
    pub const fn only(family: Family) -> Self {
        FamilySet(1 << family as u8)
    }

    /// Whether `family` is in the set.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & (1 << family as u8) != 0
    }

    /// Adds `family`.
    pub fn insert(&mut self, family: Family) {
        self.0 |= 1 << family as u8;
    }

    /// Removes `family`.
    pub fn remove(&mut self, family: Family) {
        self.0 &= !(1 << family as u8);
    }

    /// Families in both sets.
    pub const fn intersection(self, other: FamilySet) -> FamilySet {
        FamilySet(self.0 & other.0)
    }

    /// Whether there is no family in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members in canonical order.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self.contains(*f))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(iter: I) -> Self {
        let mut set = FamilySet::EMPTY;
        iter.into_iter().for_each(|f| set.insert(f));
        set
    }
}

impl fmt::Debug for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyMap<T>(pub [T; 2]);

impl<T> std::ops::Index<Family> for FamilyMap<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        &self.0[family.index()]
    }
}

impl<T> std::ops::IndexMut<Family> for FamilyMap<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        &mut self.0[family.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_map_to_their_numbers_and_back() {
        for family in Family::ALL {
            assert_eq!(Family::try_from(family.afi_safi()), Ok(family));
        }
        assert!(Family::try_from(AfiSafi { afi: 1, safi: 128 }).is_err());
    }

    #[test]
    fn a_set_keeps_canonical_order() {
        let set: FamilySet = [Family::Ipv6, Family::Ipv4].into_iter().collect();
        assert_eq!(set, FamilySet::ALL);
        assert_eq!(set.iter().collect::<Vec<_>>(), Family::ALL);
        assert_eq!(set.intersection(FamilySet::only(Family::Ipv6)).iter().count(), 1);
    }
}
