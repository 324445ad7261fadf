//! Resynchronisation of a member with the table, and what remains of one that was interrupted.
//!
//! A member that falls off the log during its resynchronisation keeps, in addition to its version,
//! the ranges of destinations that it has read: the next resynchronisation sends it only what has
//! changed there since. Otherwise two slow members that evict each other would start over forever.

use std::ops::Range;

use smallvec::SmallVec;

use crate::rib::Version;

/// Maximum number of ranges kept; beyond it, the shortest is dropped.
const RANGES_MAX: usize = 8;
/// Ranges at least this long end at multiples of [`ALIGNMENT`], so that the ranges of many members
/// share their boundaries.
const ALIGNED_FROM: u32 = 16 * ALIGNMENT;
const ALIGNMENT: u32 = 1 << 10;

/// The marker that a member is sent at the end of its resynchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResyncEnd {
    /// It joined: End-of-RIB.
    EndOfRib,
    /// It requested an enhanced refresh (RFC 7313): BoRR before, EoRR after.
    Refresh,
    /// It fell behind, or requested a plain refresh (RFC 2918).
    Nothing,
}

/// A pass over the table for a member that has an earlier version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resync {
    /// Routes that changed after this are announced.
    pub(crate) announce_since: Version,
    /// Destinations that changed after this and are not advertised are withdrawn.
    pub(crate) withdraw_since: Version,
    /// The version that the member has once the pass is complete.
    pub(crate) covers: Version,
    /// Destinations that earlier, interrupted passes have covered.
    pub(crate) covered: CoveredRanges,
    pub(crate) end: ResyncEnd,
}

/// A member being resynchronised. The group's position cycles through the destinations.
#[derive(Debug)]
pub(crate) struct Resyncing {
    announce_since: Version,
    pub(crate) withdraw_since: Version,
    covered: CoveredRanges,
    pub(crate) end: ResyncEnd,
    /// Where it began; complete when the position returns here.
    start: u32,
    wrapped: bool,
}

/// What a member needs to be sent of the destinations up to `end`.
pub(crate) struct Segment {
    pub(crate) end: u32,
    pub(crate) announce_since: Version,
    pub(crate) withdraw_since: Version,
}

impl Resyncing {
    pub(crate) fn begin(resync: &Resync, start: u32) -> Self {
        Resyncing {
            announce_since: resync.announce_since,
            withdraw_since: resync.withdraw_since,
            covered: resync.covered.aligned(),
            end: resync.end,
            start,
            wrapped: false,
        }
    }

    /// The table shrank to this many destinations.
    pub(crate) fn truncate(&mut self, slots: u32) {
        self.start = self.start.min(slots);
    }

    /// The position goes back to the first destination.
    pub(crate) fn wrap(&mut self) {
        self.wrapped = true;
    }

    pub(crate) fn is_done(&self, at: u32) -> bool {
        self.wrapped && at >= self.start
    }

    /// The segment from `at`, in a table of `slots` slots, up to where the needs change.
    pub(crate) fn segment(&self, at: u32, slots: u32) -> Segment {
        let (covered, covered_end) = self.covered.at(at);
        Segment {
            end: covered_end.min(if self.wrapped { self.start } else { slots }),
            announce_since: self.announce_since.max(covered),
            withdraw_since: self.withdraw_since.max(covered),
        }
    }
}

/// Ranges of destinations, each covered as of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoveredRanges(SmallVec<[(Range<u32>, Version); 1]>);

impl CoveredRanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a range, merged with those that it touches; the oldest version holds for all of it.
    pub(crate) fn add(&mut self, mut run: Range<u32>, mut since: Version) {
        if run.is_empty() {
            return;
        }
        self.0.retain(|(other, version)| {
            let apart = other.end < run.start || run.end < other.start;
            if !apart {
                run = run.start.min(other.start)..run.end.max(other.end);
                since = since.min(*version);
            }
            apart
        });
        self.0.push((run, since));
        if self.0.len() > RANGES_MAX {
            let shortest = self.0.iter().enumerate().min_by_key(|(_, (run, _))| run.len());
            let at = shortest.map_or(0, |(at, _)| at);
            self.0.remove(at);
        }
    }

    pub(crate) fn add_all(&mut self, others: &CoveredRanges) {
        others.0.iter().for_each(|(run, since)| self.add(run.clone(), *since));
    }

    /// The same, with long ranges cut to the alignment.
    pub(crate) fn aligned(&self) -> CoveredRanges {
        let cut = |run: &Range<u32>| match run.len() {
            len if len < ALIGNED_FROM as usize => run.clone(),
            _ => run.start.next_multiple_of(ALIGNMENT)..run.end / ALIGNMENT * ALIGNMENT,
        };
        CoveredRanges(self.0.iter().map(|(run, since)| (cut(run), *since)).collect())
    }

    /// As of which version a destination was covered (0: not at all), and the next destination
    /// for which that may differ.
    pub(crate) fn at(&self, dest: u32) -> (Version, u32) {
        let (mut since, mut end) = (0, u32::MAX);
        for (run, version) in &self.0 {
            if run.contains(&dest) {
                since = *version;
                end = end.min(run.end);
            } else if dest < run.start {
                end = end.min(run.start);
            }
        }
        (since, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_that_touch_become_one_with_the_older_version() {
        let mut covered = CoveredRanges::default();
        covered.add(10..20, 7);
        covered.add(30..40, 9);
        assert_eq!((covered.at(9), covered.at(10), covered.at(20)), ((0, 10), (7, 20), (0, 30)));
        covered.add(20..30, 8);
        assert_eq!((covered.at(25), covered.at(40)), ((7, 40), (0, u32::MAX)));
        covered.add(5..5, 1);
        assert_eq!(covered.at(5), (0, 10), "nothing was covered");
    }

    #[test]
    fn the_shortest_of_too_many_runs_is_dropped() {
        let mut covered = CoveredRanges::default();
        (0..=RANGES_MAX as u32).for_each(|n| covered.add(100 * n..100 * n + 50 - n, 3));
        let last = 100 * RANGES_MAX as u32;
        assert_eq!((covered.at(0).0, covered.at(last).0), (3, 0));
    }

    #[test]
    fn long_runs_are_cut_to_the_alignment_and_short_ones_are_not() {
        let mut covered = CoveredRanges::default();
        covered.add(5..ALIGNED_FROM + 7, 3);
        assert_eq!(covered.aligned().at(5), (0, ALIGNMENT));
        assert_eq!(covered.aligned().at(ALIGNMENT), (3, ALIGNED_FROM));
        let mut short = CoveredRanges::default();
        short.add(5..9, 3);
        assert_eq!(short.aligned(), short);
    }

    proptest! {
        /// What is reported as covered was covered, as of the reported version or a later one.
        #[test]
        fn no_destination_is_reported_newer_than_it_is(
            runs in proptest::collection::vec((0u32..60, 0u32..12, 1u64..9), 0..24),
        ) {
            let mut covered = CoveredRanges::default();
            let mut model = [0; 80];
            for (from, len, since) in runs {
                covered.add(from..from + len, since);
                model[from as usize..(from + len) as usize].iter_mut().for_each(|v| {
                    *v = since.max(*v);
                });
            }
            let mut at = 0;
            while at < 80 {
                let (since, next) = covered.at(at);
                prop_assert!(next > at);
                let run = &model[at as usize..(next.min(80)) as usize];
                prop_assert!(run.iter().all(|known| since <= *known), "{at}..{next} {since} {run:?}");
                at = next;
            }
        }
    }
}
