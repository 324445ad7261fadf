//! AS_PATH values with four-octet numbers (RFC 4271 §4.3, RFC 5065 §3, RFC 6793).
use std::fmt;

use crate::types::Asn;

/// Segment types (RFC 4271 §4.3, RFC 5065).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// AS_SET, 1.
    Set = 1,
    /// AS_SEQUENCE, 2.
    Sequence = 2,
    /// AS_CONFED_SEQUENCE, 3.
    ConfedSequence = 3,
    /// AS_CONFED_SET, 4.
    ConfedSet = 4,
}

impl SegmentKind {
    /// The kind with this code; `None` if there is none.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfedSequence,
            4 => SegmentKind::ConfedSet,
            _ => return None,
        })
    }

    /// Whether the segment belongs to a confederation (RFC 5065).
    pub const fn is_confederation(self) -> bool {
        matches!(self, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
    }
}

/// One AS_PATH segment with four-octet numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsSegment<'a> {
    /// Its kind.
    pub kind: SegmentKind,
    numbers: &'a [u8],
}

impl<'a> AsSegment<'a> {
    /// Maximum number of AS numbers in one segment.
    pub const MAX_COUNT: usize = 255;

    /// Its numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = Asn> + use<'a> {
        self.numbers.as_chunks::<4>().0.iter().map(|b| Asn(u32::from_be_bytes(*b)))
    }

    /// How many numbers there are.
    pub fn count(&self) -> usize {
        self.numbers.len() / 4
    }

    /// The numbers on the wire.
    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.numbers
    }
}

/// An AS_PATH value with four-octet numbers. Reading stops at the first segment that is malformed;
/// validated paths have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsPath<'a>(&'a [u8]);

impl<'a> AsPath<'a> {
    /// Wraps the value of an AS_PATH attribute.
    pub const fn new(value: &'a [u8]) -> Self {
        AsPath(value)
    }

    /// The value.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The segments in order.
    pub fn segments(self) -> impl Iterator<Item = AsSegment<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let ([kind, count], after) = rest.split_first_chunk()?;
            let (numbers, after) = after.split_at_checked(usize::from(*count) * 4)?;
            rest = after;
            Some(AsSegment { kind: SegmentKind::from_code(*kind)?, numbers })
        })
    }

    /// Every number in order, sets included.
    pub fn asns(self) -> impl Iterator<Item = Asn> + use<'a> {
        self.segments().flat_map(|s| s.iter())
    }

    /// Length for the decision process (RFC 4271 §9.1.2.2 a): a set counts one, confederation
    /// segments none.
    pub fn length(self) -> u32 {
        self.segments().fold(0u32, |n, s| match s.kind {
            SegmentKind::Sequence => n.saturating_add(s.count() as u32),
            SegmentKind::Set => n.saturating_add(1),
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => n,
        })
    }

    /// The first number of a leading sequence.
    pub fn first(self) -> Option<Asn> {
        let segment = self.segments().next()?;
        match segment.kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => segment.iter().next(),
            SegmentKind::Set | SegmentKind::ConfedSet => None,
        }
    }

    /// The AS that originated the route: the last number, if the path ends in a sequence.
    pub fn origin(self) -> Option<Asn> {
        let segment = self.segments().last()?;
        match segment.kind {
            SegmentKind::Sequence => segment.iter().last(),
            _ => None,
        }
    }

    /// How often `asn` occurs.
    pub fn count(self, asn: Asn) -> usize {
        self.asns().filter(|a| *a == asn).count()
    }

    /// Whether there is no segment.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for AsPath<'_> {
    /// Sequences as numbers, sets as `{1 2}`, confederation segments as `(1 2)` and `({1 2})`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments().enumerate() {
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfedSequence => ("(", ")"),
                SegmentKind::ConfedSet => ("({", "})"),
            };
            f.write_str(if i == 0 { "" } else { " " })?;
            f.write_str(open)?;
            for (j, asn) in segment.iter().enumerate() {
                f.write_str(if j == 0 { "" } else { " " })?;
                asn.fmt(f)?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

/// Appends one segment with four-octet numbers; `numbers` holds at most 255 of them.
pub(super) fn push_segment(out: &mut Vec<u8>, kind: SegmentKind, numbers: &[u8]) {
    debug_assert!(numbers.len() <= 4 * AsSegment::MAX_COUNT);
    out.push(kind as u8);
    out.push(u8::try_from(numbers.len() / 4).unwrap_or(u8::MAX));
    out.extend_from_slice(numbers);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_follow_the_decision_process() {
        // 65001 65002 {1 2 3} (65100)
        let value = [
            &[2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xea][..],
            &[1, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
            &[3, 1, 0, 0, 0xfe, 0x4c],
        ]
        .concat();
        let path = AsPath::new(&value);
        assert_eq!(path.length(), 3);
        assert_eq!(path.first(), Some(Asn(65001)));
        assert_eq!(path.origin(), None);
        assert_eq!(path.asns().count(), 6);
        assert_eq!(path.count(Asn(2)), 1);
        assert_eq!(path.to_string(), "65001 65002 {1 2 3} (65100)");
        assert_eq!(AsPath::new(&value[10..]).first(), None, "a leading set has no first AS");
    }

    proptest! {
        #[test]
        fn reading_is_total(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let path = AsPath::new(&value);
            prop_assert!(path.asns().count() * 4 <= value.len());
            let _ = (path.length(), path.first(), path.origin(), path.to_string());
        }
    }
}
