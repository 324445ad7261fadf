//! From received attributes to canonical ones.
//!
//! Nearly every UPDATE has its attributes in canonical order and form already, apart from NEXT_HOP
//! and MP_*; then the canonical form is a few runs of the received octets. Otherwise it is written
//! attribute by attribute.
use std::ops::Range;

use super::rules::canonical_flags;
use super::walk::CodeSet;
use crate::wire::SegmentKind;
use crate::wire::as_path::{AsPath, push_segment};
use crate::wire::attr_table::{attr, flag};
use crate::wire::attrs::Attr;

/// Maximum number of runs: one more than the gaps that NEXT_HOP, MP_REACH_NLRI, MP_UNREACH_NLRI and
/// a dropped attribute leave.
const RUNS_MAX: usize = 5;

/// How to write the canonical form of one UPDATE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canonical<'a> {
    four_octet_as: bool,
    /// Types that are part of it.
    kept: CodeSet,
    /// The received bytes that are canonical as they are.
    runs: [(u16, u16); RUNS_MAX],
    runs_len: u8,
    /// Whether the runs are the whole canonical form.
    runs_suffice: bool,
    /// Highest type kept so far.
    highest: u8,
    /// AS4_PATH, and how many ASes of AS_PATH precede it.
    as4_path: Option<(&'a [u8], u32)>,
    /// AS4_AGGREGATOR.
    aggregator: Option<&'a [u8]>,
}

impl<'a> Canonical<'a> {
    pub(super) fn new(four_octet_as: bool) -> Self {
        Canonical {
            four_octet_as,
            kept: CodeSet::default(),
            runs: [(0, 0); RUNS_MAX],
            runs_len: 0,
            runs_suffice: true,
            highest: 0,
            as4_path: None,
            aggregator: None,
        }
    }

    /// Adds the first occurrence of a type; `range` is its position among the received attributes.
    #[inline]
    pub(super) fn keep(&mut self, attr: Attr<'_>, range: Range<usize>) {
        self.kept.insert(attr.code);
        let flags = canonical_flags(attr);
        let long = attr.value.len() > 255;
        let canonical_flags = if long { flags | flag::EXTENDED_LENGTH } else { flags };
        let verbatim = attr.flags == canonical_flags
            && (attr.code > self.highest || self.runs_len == 0)
            && match attr.code {
                attr::AS_PATH | attr::AGGREGATOR => self.four_octet_as,
                attr::COMMUNITIES => is_set::<4>(attr.value),
                attr::EXTENDED_COMMUNITIES => is_set::<8>(attr.value),
                attr::LARGE_COMMUNITIES => is_set::<12>(attr.value),
                _ => true,
            };
        self.highest = self.highest.max(attr.code);
        self.runs_suffice = self.runs_suffice && verbatim && self.extend_runs(range).is_some();
    }

    /// Attributes are at most 65535 octets in all, so that positions fit; `None` if there are too
    /// many runs.
    fn extend_runs(&mut self, range: Range<usize>) -> Option<()> {
        let (start, end) = (u16::try_from(range.start).ok()?, u16::try_from(range.end).ok()?);
        if let Some((_, last_end)) = self.runs.get_mut(usize::from(self.runs_len).wrapping_sub(1))
            && *last_end == start
        {
            *last_end = end;
            return Some(());
        }
        *self.runs.get_mut(usize::from(self.runs_len))? = (start, end);
        self.runs_len += 1;
        Some(())
    }

    /// AS_PATH is to be completed from AS4_PATH: the first `leading` ASes of AS_PATH, then `value`.
    pub(super) fn set_as4_path(&mut self, value: &'a [u8], leading: u32) {
        self.as4_path = Some((value, leading));
    }

    /// AGGREGATOR is to be replaced by the value of AS4_AGGREGATOR.
    pub(super) fn set_aggregator(&mut self, value: Option<&'a [u8]>) {
        self.aggregator = value;
    }

    /// Appends the canonical form of `attrs`, the received attributes.
    pub(super) fn write(&self, attrs: &[u8], out: &mut Vec<u8>) {
        if self.runs_suffice {
            for (start, end) in self.runs.iter().take(usize::from(self.runs_len)) {
                let run = attrs.get(usize::from(*start)..usize::from(*end));
                out.extend_from_slice(run.unwrap_or_default());
            }
        } else {
            self.rewrite(attrs, out);
        }
    }

    fn rewrite(&self, attrs: &[u8], out: &mut Vec<u8>) {
        // Position of the first occurrence of each type, plus one.
        let mut positions = [0u16; 256];
        let mut rest = attrs;
        while let Some((attr, after)) = Attr::split(rest) {
            let slot = &mut positions[usize::from(attr.code)];
            if *slot == 0 {
                *slot = u16::try_from(attrs.len() - rest.len() + 1).unwrap_or(0);
            }
            rest = after;
        }
        for code in self.kept.iter() {
            let position = usize::from(positions[usize::from(code)]);
            let received = position.checked_sub(1).and_then(|at| attrs.get(at..));
            if let Some((attr, _)) = received.and_then(Attr::split) {
                self.push(attr, out);
            }
        }
    }

    fn push(&self, attr: Attr<'_>, out: &mut Vec<u8>) {
        let value = attr.value;
        let attr = Attr { flags: canonical_flags(attr), ..attr };
        match attr.code {
            attr::AS_PATH if !self.four_octet_as => {
                push_built(out, attr, |out| match self.as4_path {
                    Some((four, leading)) => merge_paths(out, value, four, leading),
                    None => push_wide(out, value, u32::MAX),
                });
            }
            attr::AGGREGATOR if !self.four_octet_as => match (self.aggregator, value) {
                (Some(value), _) => Attr { value, ..attr }.push(out),
                (None, [a, b, rest @ ..]) => push_built(out, attr, |out| {
                    out.extend_from_slice(&[0, 0, *a, *b]);
                    out.extend_from_slice(rest);
                }),
                (None, _) => {}
            },
            attr::COMMUNITIES => push_built(out, attr, |out| push_set::<4>(out, value)),
            attr::EXTENDED_COMMUNITIES => push_built(out, attr, |out| push_set::<8>(out, value)),
            attr::LARGE_COMMUNITIES => push_built(out, attr, |out| push_set::<12>(out, value)),
            _ => attr.push(out),
        }
    }
}

/// Appends an attribute whose value `build` appends.
fn push_built(out: &mut Vec<u8>, attr: Attr<'_>, build: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[attr.flags | flag::EXTENDED_LENGTH, attr.code, 0, 0]);
    build(out);
    let len = out.len() - start - 4;
    if let Ok(len) = u8::try_from(len) {
        out.splice(start..start + 4, [attr.flags, attr.code, len]);
    } else {
        // The parser has refused what does not fit into two octets.
        crate::wire::frame::put_u16_at(out, start + 2, len);
    }
}

/// Whether the elements are in ascending order without duplicates.
fn is_set<const N: usize>(value: &[u8]) -> bool {
    value.as_chunks::<N>().0.is_sorted_by(|a, b| a < b)
}

/// Communities are sets: their order means nothing (RFC 1997, RFC 4360 §2), duplicates of large
/// ones are to be dropped (RFC 8092 §5). In one order, equal sets are equal bytes.
fn push_set<const N: usize>(out: &mut Vec<u8>, value: &[u8]) {
    let start = out.len();
    out.extend_from_slice(value);
    let Some(elements) = out.get_mut(start..).map(|tail| tail.as_chunks_mut::<N>().0) else {
        return;
    };
    elements.sort_unstable();
    let mut unique = 0;
    for i in 0..elements.len() {
        if i == 0 || elements[i] != elements[unique - 1] {
            elements[unique] = elements[i];
            unique += 1;
        }
    }
    out.truncate(start + unique * N);
}

/// Appends the first `leading` ASes of a two-octet path, with four octets each. A set counts as one
/// and is not split.
fn push_wide(out: &mut Vec<u8>, path: &[u8], mut leading: u32) {
    let mut rest = path;
    while leading > 0
        && let Some(([kind, count], after)) = rest.split_first_chunk()
        && let Some((numbers, after)) = after.split_at_checked(usize::from(*count) * 2)
    {
        rest = after;
        let numbers = numbers.as_chunks::<2>().0;
        let (used, units) = if *kind == SegmentKind::Sequence as u8 {
            let units = leading.min(u32::from(*count));
            (units as usize, units)
        } else {
            (numbers.len(), 1)
        };
        leading -= units;
        out.extend_from_slice(&[*kind, u8::try_from(used).unwrap_or(u8::MAX)]);
        for [high, low] in numbers.iter().take(used) {
            out.extend_from_slice(&[0, 0, *high, *low]);
        }
    }
}

/// RFC 6793 §4.2.3: the leading ASes of AS_PATH, then AS4_PATH without confederation segments.
/// Where the two meet, sequences are joined if they fit one segment.
fn merge_paths(out: &mut Vec<u8>, path: &[u8], four: &[u8], leading: u32) {
    let start = out.len();
    push_wide(out, path, leading);
    let last = AsPath::new(out.get(start..).unwrap_or_default()).segments().last();
    let mut joint = last
        .filter(|s| s.kind == SegmentKind::Sequence)
        .map(|s| (out.len() - s.as_bytes().len() - 1, s.count()));
    for segment in AsPath::new(four).segments().filter(|s| !s.kind.is_confederation()) {
        match joint.take() {
            Some((at, count))
                if segment.kind == SegmentKind::Sequence
                    && let Ok(sum) = u8::try_from(count + segment.count()) =>
            {
                out[at] = sum;
                out.extend_from_slice(segment.as_bytes());
            }
            _ => push_segment(out, segment.kind, segment.as_bytes()),
        }
    }
}
