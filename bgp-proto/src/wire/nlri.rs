//! NLRI: prefixes with or without path identifiers (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3).
use crate::types::{Family, PathId, Prefix, Prefix4, Prefix6};

/// A validated run of NLRI: iterating cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nlri<'a> {
    family: Family,
    add_path: bool,
    bytes: &'a [u8],
    has_unroutable: bool,
}

/// Why NLRI do not parse: a length beyond the family's, or one that overruns the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prefix is longer than its family allows, or overruns the field")]
pub struct NlriError;

/// Octets that hold `len` bits.
const fn octets(len: u8) -> usize {
    (len as usize).div_ceil(8)
}

impl<'a> Nlri<'a> {
    /// Checks every length; ≤ 5 ns per prefix. Bits beyond a prefix's length are irrelevant
    /// (RFC 4271 §4.3) and masked by the iterators.
    pub fn parse(family: Family, add_path: bool, bytes: &'a [u8]) -> Result<Self, NlriError> {
        let max_len = family.max_len();
        let mut has_unroutable = false;
        let mut rest = bytes;
        while !rest.is_empty() {
            if add_path {
                rest = rest.get(4..).ok_or(NlriError)?;
            }
            let (len, after) = rest.split_first().ok_or(NlriError)?;
            if *len > max_len {
                return Err(NlriError);
            }
            has_unroutable |= is_unroutable(family, *len, after);
            rest = after.get(octets(*len)..).ok_or(NlriError)?;
        }
        Ok(Nlri { family, add_path, bytes, has_unroutable })
    }

    /// An empty run.
    pub(super) const fn empty(family: Family) -> Self {
        Nlri { family, add_path: false, bytes: &[], has_unroutable: false }
    }

    /// A run that was validated before.
    pub(super) const fn validated(family: Family, add_path: bool, bytes: &'a [u8]) -> Self {
        Nlri { family, add_path, bytes, has_unroutable: false }
    }

    /// The last `octets` of it, which begin with a prefix.
    pub(crate) fn last_octets(self, octets: u32) -> Self {
        let before = self.bytes.len().saturating_sub(octets as usize);
        Nlri { bytes: self.bytes.get(before..).unwrap_or_default(), ..self }
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether each prefix is preceded by a path identifier.
    pub fn has_path_ids(&self) -> bool {
        self.add_path
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there are no prefixes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether some prefix is one that is never routed: see [`Nlri::routable`].
    pub fn has_unroutable(&self) -> bool {
        self.has_unroutable
    }

    /// The runs that are left without prefixes that are never routed: multicast and loopback of
    /// both families, IPv6 link-local. Such prefixes are semantically incorrect but well-formed, so
    /// that each of them is ignored and the rest of the UPDATE is used (RFC 4271 §6.3).
    pub fn routable(self) -> impl Iterator<Item = Nlri<'a>> {
        let Nlri { family, add_path, bytes, .. } = self;
        let mut cursor = Cursor { rest: bytes, add_path };
        let mut start = bytes;
        std::iter::from_fn(move || {
            loop {
                let before = cursor.rest;
                let found = cursor.take();
                if let Some((_, len, octets)) = found
                    && !is_unroutable(family, len, octets)
                {
                    continue;
                }
                let run = start.get(..start.len() - before.len()).unwrap_or_default();
                start = cursor.rest;
                match (run.is_empty(), found) {
                    (false, _) => return Some(Nlri::validated(family, add_path, run)),
                    (true, None) => return None,
                    (true, Some(_)) => {}
                }
            }
        })
    }

    /// Number of prefixes. Iterates over all of them.
    pub fn count(&self) -> usize {
        let mut cursor = Cursor { rest: self.bytes, add_path: self.add_path };
        let mut count = 0;
        while cursor.take().is_some() {
            count += 1;
        }
        count
    }

    /// Prefixes in order of appearance; the identifier is 0 without ADD-PATH.
    pub fn iter(&self) -> NlriIter<'a> {
        NlriIter { family: self.family, cursor: self.cursor(self.family) }
    }

    /// As [`Nlri::iter`], without the enum, for loops that know the family. Nothing if this is not
    /// IPv4.
    pub fn iter4(&self) -> NlriIter4<'a> {
        NlriIter4 { cursor: self.cursor(Family::Ipv4) }
    }

    /// As [`Nlri::iter4`] for IPv6.
    pub fn iter6(&self) -> NlriIter6<'a> {
        NlriIter6 { cursor: self.cursor(Family::Ipv6) }
    }

    fn cursor(&self, wanted: Family) -> Cursor<'a> {
        let rest = if self.family == wanted { self.bytes } else { &[] };
        Cursor { rest, add_path: self.add_path }
    }

    /// Appends one prefix, with `path_id` if there is one.
    #[inline]
    pub fn push(out: &mut Vec<u8>, path_id: Option<PathId>, prefix: Prefix) {
        if let Some(id) = path_id {
            out.extend_from_slice(&id.0.to_be_bytes());
        }
        // Whole addresses are copied and then cut, because a copy of fixed length is a store or
        // two.
        let end = out.len() + 1 + octets(prefix.len());
        match prefix {
            Prefix::V4(p) => {
                let [a, b, c, d] = p.bits().to_be_bytes();
                out.extend_from_slice(&[p.len(), a, b, c, d]);
            }
            Prefix::V6(p) => {
                out.push(p.len());
                out.extend_from_slice(&p.bits().to_be_bytes());
            }
        }
        out.truncate(end);
    }

    /// Octets that [`Nlri::push`] appends.
    pub(super) fn encoded_len(add_path: bool, prefix: Prefix) -> usize {
        if add_path { 5 + octets(prefix.len()) } else { 1 + octets(prefix.len()) }
    }
}

/// Whether a prefix of this length that begins with these octets can be the destination of no
/// unicast packet that a router forwards.
#[inline]
fn is_unroutable(family: Family, len: u8, octets: &[u8]) -> bool {
    match (family, octets) {
        (Family::Ipv4, [0xE0..=0xEF, ..]) => len >= 4,
        (Family::Ipv4, [127, ..]) => len >= 8,
        (Family::Ipv6, [0xFF, ..]) => len >= 8,
        (Family::Ipv6, [0xFE, 0x80..=0xBF, ..]) => len >= 10,
        (Family::Ipv6, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, ..]) => len == 128,
        _ => false,
    }
}

/// Iterates over validated bytes. On other bytes it stops early instead of failing.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    rest: &'a [u8],
    add_path: bool,
}

impl<'a> Cursor<'a> {
    /// The next prefix: its identifier, its length, and everything from its first octet on.
    #[inline(always)]
    fn take(&mut self) -> Option<(PathId, u8, &'a [u8])> {
        let mut rest = self.rest;
        let mut id = PathId(0);
        if self.add_path {
            let (bytes, after) = rest.split_first_chunk::<4>()?;
            id = PathId(u32::from_be_bytes(*bytes));
            rest = after;
        }
        let (len, after) = rest.split_first()?;
        self.rest = after.get(octets(*len)..)?;
        Some((id, *len, after))
    }
}

/// The first `N` octets, zeros where the input is shorter. `Prefix4` and `Prefix6` mask what lies
/// beyond the prefix's length, so reading into the following prefix is harmless.
#[inline(always)]
fn lead<const N: usize>(bytes: &[u8]) -> [u8; N] {
    match bytes.first_chunk::<N>() {
        Some(whole) => *whole,
        None => {
            let mut out = [0; N];
            for (to, from) in out.iter_mut().zip(bytes) {
                *to = *from;
            }
            out
        }
    }
}

/// Iterator over [`Nlri`].
#[derive(Clone, Debug)]
pub struct NlriIter<'a> {
    family: Family,
    cursor: Cursor<'a>,
}

impl NlriIter<'_> {
    /// Octets of the prefixes to come.
    #[inline]
    pub(crate) fn octets_left(&self) -> u32 {
        self.cursor.rest.len() as u32
    }
}

impl Iterator for NlriIter<'_> {
    type Item = (PathId, Prefix);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let (id, len, bytes) = self.cursor.take()?;
        Some((
            id,
            match self.family {
                Family::Ipv4 => {
                    Prefix::V4(Prefix4::from_bits(u32::from_be_bytes(lead(bytes)), len))
                }
                Family::Ipv6 => {
                    Prefix::V6(Prefix6::from_bits(u128::from_be_bytes(lead(bytes)), len))
                }
            },
        ))
    }
}

/// Iterator over IPv4 [`Nlri`].
#[derive(Clone, Debug)]
pub struct NlriIter4<'a> {
    cursor: Cursor<'a>,
}

impl Iterator for NlriIter4<'_> {
    type Item = (PathId, Prefix4);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (id, len, bytes) = self.cursor.take()?;
        Some((id, Prefix4::from_bits(u32::from_be_bytes(lead(bytes)), len)))
    }
}

/// Iterator over IPv6 [`Nlri`].
#[derive(Clone, Debug)]
pub struct NlriIter6<'a> {
    cursor: Cursor<'a>,
}

impl Iterator for NlriIter6<'_> {
    type Item = (PathId, Prefix6);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (id, len, bytes) = self.cursor.take()?;
        Some((id, Prefix6::from_bits(u128::from_be_bytes(lead(bytes)), len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixes(family: Family, add_path: bool, bytes: &[u8]) -> Result<Vec<String>, NlriError> {
        let nlri = Nlri::parse(family, add_path, bytes)?;
        Ok(nlri
            .iter()
            .map(|(id, p)| if add_path { format!("{p}#{}", id.0) } else { p.to_string() })
            .collect())
    }

    #[test]
    fn bits_beyond_the_length_are_masked() {
        let bytes = [20, 203, 0, 0xff, 0, 24, 203, 0, 113];
        assert_eq!(
            prefixes(Family::Ipv4, false, &bytes).unwrap(),
            ["203.0.240.0/20", "0.0.0.0/0", "203.0.113.0/24"]
        );
    }

    #[test]
    fn lengths_that_cannot_be_are_errors() {
        for (family, bytes) in [
            (Family::Ipv4, &[33, 1, 2, 3, 4, 5][..]),
            (Family::Ipv4, &[24, 203, 0]),
            (Family::Ipv4, &[24, 203, 0, 113, 8]),
            (Family::Ipv6, &[129; 18]),
        ] {
            assert_eq!(Nlri::parse(family, false, bytes), Err(NlriError));
        }
        for cut in 1..5 {
            assert_eq!(Nlri::parse(Family::Ipv4, true, &[0, 0, 0, 1, 8][..cut]), Err(NlriError));
        }
        assert_eq!(prefixes(Family::Ipv4, true, &[0, 0, 0, 1, 8, 10]).unwrap(), ["10.0.0.0/8#1"]);
    }

    #[test]
    fn prefixes_that_are_never_routed_are_left_out_and_split_the_run() {
        let runs = |family, add_path, bytes: &[u8]| {
            let nlri = Nlri::parse(family, add_path, bytes).unwrap();
            let runs: Vec<_> = nlri.routable().map(|run| run.count()).collect();
            (nlri.has_unroutable(), runs)
        };
        let v4 = |bytes: &[u8]| runs(Family::Ipv4, false, bytes);
        assert_eq!(v4(&[8, 10, 8, 224, 8, 11, 8, 12]), (true, vec![1, 2]));
        assert_eq!(v4(&[8, 239, 4, 0xEF, 8, 11]), (true, vec![1]));
        assert_eq!(v4(&[4, 224]), (true, vec![]));
        assert_eq!(v4(&[8, 127, 16, 127, 1, 8, 126]), (true, vec![1]));
        assert_eq!(v4(&[7, 126, 8, 128]), (false, vec![2]), "126/7 covers loopback and more");
        // 128/1 and 192/2 cover multicast and more; 240/4 is used (see the next hops).
        assert_eq!(v4(&[1, 0xE0, 3, 0xE0, 4, 240, 0, 8, 223]), (false, vec![5]));
        assert_eq!(v4(&[]), (false, vec![]));
        let with_ids = [0, 0, 0, 1, 8, 10, 0, 0, 0, 2, 8, 224, 0, 0, 0, 3, 0];
        assert_eq!(runs(Family::Ipv4, true, &with_ids), (true, vec![1, 1]));
        let v6 = |bytes: &[u8]| runs(Family::Ipv6, false, bytes);
        assert_eq!(v6(&[8, 0xFF, 10, 0xFE, 0x80, 16, 0xFE, 0xBF, 7, 0xFC]), (true, vec![1]));
        assert_eq!(v6(&[7, 0xFE, 9, 0xFE, 0x80, 10, 0xFE, 0x00, 0]), (false, vec![4]));
        let last = |len: u8, octet: u8| [&[len][..], &[0; 15], &[octet]].concat();
        assert_eq!(v6(&last(128, 1)), (true, vec![]), "::1");
        assert_eq!(v6(&[last(128, 2), last(127, 1)].concat()), (false, vec![2]));
    }

    fn any_prefix(family: Family) -> BoxedStrategy<Prefix> {
        match family {
            Family::Ipv4 => (any::<u32>(), 0u8..=32)
                .prop_map(|(b, l)| Prefix::V4(Prefix4::from_bits(b, l)))
                .boxed(),
            Family::Ipv6 => (any::<u128>(), 0u8..=128)
                .prop_map(|(b, l)| Prefix::V6(Prefix6::from_bits(b, l)))
                .boxed(),
        }
    }

    fn any_run() -> impl Strategy<Value = (Family, bool, Vec<(PathId, Prefix)>)> {
        (any::<bool>(), any::<bool>()).prop_flat_map(|(six, add_path)| {
            let family = if six { Family::Ipv6 } else { Family::Ipv4 };
            let id = if add_path { any::<u32>().boxed() } else { Just(0).boxed() };
            let one = (id.prop_map(PathId), any_prefix(family));
            (Just(family), Just(add_path), proptest::collection::vec(one, 0..20))
        })
    }

    proptest! {
        #[test]
        fn nlri_survive_the_wire((family, add_path, run) in any_run()) {
            let mut out = Vec::new();
            let mut len = 0;
            for (id, prefix) in &run {
                Nlri::push(&mut out, add_path.then_some(*id), *prefix);
                len += Nlri::encoded_len(add_path, *prefix);
            }
            prop_assert_eq!(out.len(), len);
            let nlri = Nlri::parse(family, add_path, &out).unwrap();
            prop_assert_eq!(nlri.iter().collect::<Vec<_>>(), run.clone());
            prop_assert_eq!(nlri.count(), run.len());
            let typed: Vec<_> = match family {
                Family::Ipv4 => nlri.iter4().map(|(id, p)| (id, Prefix::V4(p))).collect(),
                Family::Ipv6 => nlri.iter6().map(|(id, p)| (id, Prefix::V6(p))).collect(),
            };
            prop_assert_eq!(typed, run);
            prop_assert_eq!(nlri.iter4().count() + nlri.iter6().count(), nlri.count());
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_iterate_to_their_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..80), six: bool, add_path: bool,
        ) {
            let family = if six { Family::Ipv6 } else { Family::Ipv4 };
            if let Ok(nlri) = Nlri::parse(family, add_path, &bytes) {
                let used: usize = nlri.iter().map(|(_, p)| Nlri::encoded_len(add_path, p)).sum();
                prop_assert_eq!(used, bytes.len());
            }
        }
    }
}
