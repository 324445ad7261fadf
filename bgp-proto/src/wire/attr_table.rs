//! The path attributes that margay knows, one row each. Codes, names, flags, checks, log lines and
//! tests all come from here; a new attribute begins with a row.
use std::fmt;

/// Attribute flags (RFC 4271 §4.3).
pub(super) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED_LENGTH: u8 = 0x10;
    /// Optional and Transitive: what decides the category.
    pub(crate) const CATEGORY: u8 = OPTIONAL | TRANSITIVE;
    pub(crate) const WELL_KNOWN: u8 = TRANSITIVE;
    pub(crate) const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;
}

/// What margay knows about one attribute type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttrDef {
    /// Type code.
    pub code: u8,
    /// The name that its RFC gives it: `ONLY_TO_CUSTOMER`.
    pub name: &'static str,
    /// The Optional and Transitive flags that it must have (RFC 4271 §4.3).
    pub category: u8,
    /// Lengths that its value may have.
    pub length: ValueLength,
    /// Sessions on which it is read. On others it is discarded.
    pub scope: AttrScope,
    /// What a wrong length leads to.
    pub malformed: Malformed,
}

/// Lengths of a value, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueLength {
    /// This length.
    Exactly(usize),
    /// A multiple of this; zero is malformed (RFC 7606 §4).
    ListOf(usize),
    /// The length follows from the content, which has a check of its own.
    Structured,
}

/// Sessions on which an attribute is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrScope {
    /// Every session.
    Any,
    /// iBGP (RFC 7606 §7.5, §7.9, §7.10).
    Internal,
    /// None: it needs a configuration that margay does not have.
    Unused,
}

/// What RFC 7606 prescribes for a malformed attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Treat-as-withdraw.
    Withdraw,
    /// Attribute discard.
    Discard,
}

macro_rules! attributes {
    ($($name:ident = $code:literal, $category:ident, $length:expr, $scope:ident, $malformed:ident;)*) => {
        /// Attribute type codes (RFC 4271 §5 and extensions).
        pub mod attr {
            #![allow(missing_docs)]
            $(pub const $name: u8 = $code;)*
        }

        /// Every attribute that margay knows, ascending by code. Others are passed on or ignored by
        /// their flags alone (RFC 4271 §5).
        pub static ATTRIBUTES: &[AttrDef] = &[$(AttrDef {
            code: $code,
            name: stringify!($name),
            category: flag::$category,
            length: $length,
            scope: AttrScope::$scope,
            malformed: Malformed::$malformed,
        }),*];

        /// The row of each code; [`NO_ROW`] where there is none.
        static ROWS: [u8; 256] = {
            let codes: &[u8] = &[$($code),*];
            let mut rows = [NO_ROW; 256];
            let mut row = 0;
            while row < codes.len() {
                rows[codes[row] as usize] = row as u8;
                row += 1;
            }
            rows
        };
    };
}

const NO_ROW: u8 = u8::MAX;

use ValueLength::{Exactly, ListOf, Structured};

attributes! {
    ORIGIN = 1, WELL_KNOWN, Exactly(1), Any, Withdraw;
    AS_PATH = 2, WELL_KNOWN, Structured, Any, Withdraw;
    NEXT_HOP = 3, WELL_KNOWN, Structured, Any, Withdraw;
    MULTI_EXIT_DISC = 4, OPTIONAL, Exactly(4), Any, Withdraw;
    LOCAL_PREF = 5, WELL_KNOWN, Exactly(4), Internal, Withdraw;
    ATOMIC_AGGREGATE = 6, WELL_KNOWN, Exactly(0), Any, Discard;
    AGGREGATOR = 7, OPTIONAL_TRANSITIVE, Structured, Any, Discard;
    COMMUNITIES = 8, OPTIONAL_TRANSITIVE, ListOf(4), Any, Withdraw;
    ORIGINATOR_ID = 9, OPTIONAL, Exactly(4), Internal, Withdraw;
    CLUSTER_LIST = 10, OPTIONAL, ListOf(4), Internal, Withdraw;
    MP_REACH_NLRI = 14, OPTIONAL, Structured, Any, Withdraw;
    MP_UNREACH_NLRI = 15, OPTIONAL, Structured, Any, Withdraw;
    EXTENDED_COMMUNITIES = 16, OPTIONAL_TRANSITIVE, ListOf(8), Any, Withdraw;
    AS4_PATH = 17, OPTIONAL_TRANSITIVE, Structured, Any, Discard;
    AS4_AGGREGATOR = 18, OPTIONAL_TRANSITIVE, Structured, Any, Discard;
    IPV6_EXTENDED_COMMUNITIES = 25, OPTIONAL_TRANSITIVE, ListOf(20), Any, Withdraw;
    // RFC 7311 §3.4: without a configured AIGP session it is never used and never passed on.
    AIGP = 26, OPTIONAL, Structured, Unused, Discard;
    LARGE_COMMUNITIES = 32, OPTIONAL_TRANSITIVE, ListOf(12), Any, Withdraw;
    ONLY_TO_CUSTOMER = 35, OPTIONAL_TRANSITIVE, Exactly(4), Any, Withdraw;
}

impl AttrDef {
    /// The row of a type; `None` if margay does not know it.
    #[inline]
    pub fn of(code: u8) -> Option<&'static AttrDef> {
        ATTRIBUTES.get(usize::from(ROWS[usize::from(code)]))
    }

    /// Whether Optional and Transitive are set as the type prescribes.
    #[inline]
    pub const fn has_flags(&self, flags: u8) -> bool {
        flags & flag::CATEGORY == self.category
    }

    /// Whether a value of the type may have `len` octets.
    #[inline]
    pub const fn has_length(&self, len: usize) -> bool {
        match self.length {
            Exactly(octets) => len == octets,
            ListOf(unit) => len != 0 && len.is_multiple_of(unit),
            Structured => true,
        }
    }
}

/// The category of a known type; Optional Transitive for an unknown one, which is kept as such.
#[inline]
pub(super) fn category(code: u8) -> u8 {
    AttrDef::of(code).map_or(flag::OPTIONAL_TRANSITIVE, |def| def.category)
}

/// How log lines name a type: `ONLY_TO_CUSTOMER (35)`; `50` if margay does not know it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttrName(pub(crate) u8);

impl fmt::Display for AttrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match AttrDef::of(self.0) {
            Some(def) => write!(f, "{} ({})", def.name, def.code),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for AttrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_code_and_no_other() {
        assert!(ATTRIBUTES.is_sorted_by(|a, b| a.code < b.code));
        for code in 0..=u8::MAX {
            let row = ATTRIBUTES.iter().find(|def| def.code == code);
            assert_eq!(AttrDef::of(code), row);
        }
    }

    #[test]
    fn a_type_is_named_with_its_code() {
        assert_eq!(AttrName(attr::ONLY_TO_CUSTOMER).to_string(), "ONLY_TO_CUSTOMER (35)");
        assert_eq!(format!("{:?}", [1, 50].map(AttrName)), "[ORIGIN (1), 50]");
    }

    #[test]
    fn lengths_are_checked_by_kind() {
        let fits = |code, len| AttrDef::of(code).unwrap().has_length(len);
        assert!(fits(attr::ORIGIN, 1) && !fits(attr::ORIGIN, 2));
        assert!(fits(attr::COMMUNITIES, 8) && !fits(attr::COMMUNITIES, 0));
        assert!(!fits(attr::LARGE_COMMUNITIES, 16) && fits(attr::LARGE_COMMUNITIES, 24));
        assert!(fits(attr::AS_PATH, 0));
    }
}
