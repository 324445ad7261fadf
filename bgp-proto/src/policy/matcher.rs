//! Whether a route meets a condition.

use super::{Match, RouteRef};
use crate::types::{Asn, Prefix};
use crate::wire::{AsPath, SegmentKind};

/// LOCAL_PREF of a route that carries none.
const LOCAL_PREF_DEFAULT: u32 = 100;

impl Match {
    /// Whether `route` meets the condition.
    pub fn holds(&self, route: &RouteRef<'_>) -> bool {
        match self {
            Match::Prefix(set) => set.contains(route.prefix),
            Match::Community(any) => route.attrs.communities().any(|c| any.contains(&c)),
            Match::LargeCommunity(any) => route.attrs.large_communities().any(|c| any.contains(&c)),
            Match::ExtCommunity(any) => route.attrs.ext_communities().any(|c| any.contains(&c)),
            Match::AsPathPrefix(wanted) => starts_with(route.attrs.as_path(), wanted),
            Match::AsPathContains(any) => route.attrs.as_path().asns().any(|a| any.contains(&a)),
            Match::AsPathLength(range) => range.contains(&route.attrs.as_path().length()),
            Match::NextHop(any) => {
                route.next_hop.is_some_and(|n| any.contains(Prefix::host(n.off_interface().addr())))
            }
            Match::Source(any) => any.contains(&route.source),
            Match::Interface(globs) => {
                route.interface.is_some_and(|name| globs.iter().any(|g| glob_matches(g, name)))
            }
            Match::PeerType(kind) => route.peer_type == Some(*kind),
            Match::Metric(range) => route.metric.is_some_and(|m| range.contains(&m)),
            Match::LocalPref(range) => {
                range.contains(&route.attrs.local_pref().unwrap_or(LOCAL_PREF_DEFAULT))
            }
            Match::HasLocalPref => route.attrs.local_pref().is_some(),
            Match::Not(inner) => !inner.holds(route),
            Match::Any(any) => any.iter().any(|m| m.holds(route)),
        }
    }

    pub(super) fn looks_at_interface(&self) -> bool {
        match self {
            Match::Interface(_) => true,
            Match::Not(inner) => inner.looks_at_interface(),
            Match::Any(any) => any.iter().any(Match::looks_at_interface),
            _ => false,
        }
    }

    /// Number of list elements that attributes are compared with.
    pub(super) fn list_len(&self) -> usize {
        match self {
            Match::Community(any) => any.len(),
            Match::LargeCommunity(any) => any.len(),
            Match::ExtCommunity(any) => any.len(),
            Match::AsPathContains(any) => any.len(),
            Match::AsPathPrefix(_) | Match::AsPathLength(_) => 1,
            Match::Not(inner) => inner.list_len(),
            Match::Any(any) => any.iter().map(Match::list_len).sum(),
            _ => 0,
        }
    }

    pub(super) fn is_prefix_independent(&self) -> bool {
        match self {
            Match::Prefix(_) | Match::Interface(_) | Match::Metric(_) => false,
            Match::Not(inner) => inner.is_prefix_independent(),
            Match::Any(any) => any.iter().all(Match::is_prefix_independent),
            Match::Community(_)
            | Match::LargeCommunity(_)
            | Match::ExtCommunity(_)
            | Match::AsPathPrefix(_)
            | Match::AsPathContains(_)
            | Match::AsPathLength(_)
            | Match::NextHop(_)
            | Match::Source(_)
            | Match::PeerType(_)
            | Match::LocalPref(_)
            | Match::HasLocalPref => true,
        }
    }
}

/// Whether the path begins with `wanted`; a set counts as one element and matches any of its
/// members, as in BIRD's `[= 1 2 * =]`.
fn starts_with(path: AsPath<'_>, wanted: &[Asn]) -> bool {
    let mut left = wanted.iter();
    for segment in path.segments() {
        match segment.kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => {
                for asn in segment.iter() {
                    match left.next() {
                        None => return true,
                        Some(next) if *next != asn => return false,
                        Some(_) => {}
                    }
                }
            }
            SegmentKind::Set | SegmentKind::ConfedSet => match left.next() {
                None => return true,
                Some(next) if !segment.iter().any(|asn| asn == *next) => return false,
                Some(_) => {}
            },
        }
    }
    left.next().is_none()
}

/// Whether `name` matches `glob`: `*` matches any run of octets, `?` any single one, and every
/// other octet itself.
///
/// Only the last `*` needs to be remembered: if the text after it does not fit here, a longer run
/// for an earlier `*` cannot help. Time is at most the product of the lengths.
pub fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(octet) = name.get(n) {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, n));
                g += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == octet => {
                g += 1;
                n += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    g = after;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|o| *o == b'*'))
}
