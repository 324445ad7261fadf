//! The state shared by the tables of the two families.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bgp_proto::types::{Family, Prefix, Time};

use super::groups::{Groups, Move};
use super::phase::Phase;
use super::refused::{Part, RETRY_MAX, RETRY_MIN, RefusedParts, Target};
use crate::kernel::NextHopForm;
use crate::kernel::fib::view::{FibCounters, FibState};
use crate::kernel::spec::{SpecId, Specs};

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    /// The routing table.
    pub(super) table: u32,
    pub(super) specs: Specs,
    pub(super) groups: Groups,
    failures: BTreeMap<SpecId, Failure>,
    pub(super) refused: RefusedParts,
    pub(super) errors: Vec<String>,
    pub(super) counters: FibCounters,
    pub(super) phase: Phase,
    /// The owner has submitted all the routes that it knows.
    pub(super) startup_ended: bool,
    /// Submissions are ignored: everything is being withdrawn for good.
    pub(super) closed: bool,
    /// Flips with every dump; the entries of installed routes that a dump contains get its value.
    pub(super) round: bool,
    /// A dump is needed.
    pub(super) resync_wanted: bool,
    /// The last dump contained every route.
    pub(super) picture_is_complete: bool,
    /// Changed routes over which next hops may be resolved.
    pub(super) direct: Direct,
    /// Routes whose place has become held by another.
    pub(super) held: Held,
}

/// A content that the kernel refuses, not because of one of its parts.
#[derive(Debug)]
struct Failure {
    /// A retry is in progress.
    trying: bool,
    delay: Duration,
    retry_at: Option<Time>,
}

/// Changes of routes with [`Recursion::Direct`](bgp_proto::types::Recursion::Direct).
#[derive(Debug, Default)]
pub(crate) struct Direct {
    pub(crate) prefixes: Vec<Prefix>,
    /// More routes changed than `prefixes` has.
    pub(crate) all: bool,
}

impl Direct {
    /// Above this number, re-evaluating every next hop is cheaper than remembering what changed.
    const PREFIXES_MAX: usize = 10_000;

    pub(super) fn add(&mut self, prefix: Prefix) {
        if self.prefixes.len() < Self::PREFIXES_MAX {
            self.prefixes.push(prefix);
        } else {
            self.all = true;
        }
    }
}

/// Routes whose place has become held by another since the last report.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) routes: usize,
    /// One of them, and what holds its place.
    pub(super) example: Option<(Prefix, String)>,
}

impl Shared {
    pub(super) fn new(table: u32, protocol: u8, form: NextHopForm) -> Shared {
        Shared {
            table,
            specs: Specs::default(),
            groups: Groups::new(table, protocol, form),
            failures: BTreeMap::new(),
            refused: RefusedParts::default(),
            errors: Vec::new(),
            counters: FibCounters::default(),
            phase: Phase::Unread,
            startup_ended: false,
            closed: false,
            round: false,
            resync_wanted: false,
            picture_is_complete: false,
            direct: Direct::default(),
            held: Held::default(),
        }
    }

    pub(super) fn release(&mut self, id: SpecId) {
        self.specs.release(id);
        self.tidy();
    }

    /// Forgets the state of contents that are no longer used. To be called after anything that may
    /// release a content.
    pub(super) fn tidy(&mut self) {
        while let Some(id) = self.specs.take_freed() {
            self.failures.remove(&id);
            self.refused.forget(&mut self.specs, id);
            self.groups.forget(&mut self.specs, id);
            self.specs.recycle(id);
        }
        self.groups.handle_unused(self.specs.take_unused_objects());
    }

    /// What to write for a prefix that wants this content: its form over a group if it has one,
    /// else [`Shared::target`].
    pub(super) fn written(&self, prefix: Prefix, wanted: SpecId) -> Target {
        match self.groups.form(wanted) {
            Some(form) => Target::Spec(form),
            None => self.target(prefix, wanted),
        }
    }

    /// Whether the kernel does not distinguish between two contents.
    pub(super) fn are_same_route(&self, a: SpecId, b: SpecId) -> bool {
        a == b || (self.groups.are_used() && self.specs.get(a).is_same_route(self.specs.get(b)))
    }

    /// Whether unwanted next-hop objects may be deleted: the kernel would delete routes together
    /// with them, so all of our routes have to be known.
    pub(super) fn deletes_objects(&self) -> bool {
        self.phase == Phase::Settled && self.picture_is_complete && !self.resync_wanted
    }

    /// Gives contents other hops, and their group as well, if nothing else has to be done for
    /// that: no route has to be written. Returns whether it did.
    pub(super) fn move_contents(&mut self, ids: &BTreeSet<SpecId>, to: &Move) -> bool {
        let is_simple = |id: &SpecId| {
            !self.refused.reduces(*id) && !self.specs.has(&self.specs.get(*id).with_hops(to.hops()))
        };
        if !ids.iter().all(is_simple) || !self.groups.repoint(ids, to) {
            return false;
        }
        ids.iter().for_each(|id| self.specs.move_to(*id, to.hops()));
        true
    }

    /// What to write for a prefix that wants this content, with inline hops.
    pub(super) fn target(&self, prefix: Prefix, wanted: SpecId) -> Target {
        if self.refused.is_empty() {
            Target::Spec(wanted)
        } else {
            self.refused.target(prefix, wanted)
        }
    }

    /// Assigns a group to a content, once the kernel has been read.
    pub(super) fn claim(&mut self, wanted: SpecId, installed: Option<SpecId>) {
        if self.phase != Phase::Unread {
            self.groups.claim(&mut self.specs, wanted, installed);
        }
    }

    /// The parts left out of a content that is otherwise written, and why.
    pub(super) fn left_out(&self, wanted: SpecId) -> Vec<(Part, String)> {
        if self.groups.form(wanted).is_some() {
            return self.groups.left_out(wanted);
        }
        let parts = self.refused.left_out(&self.specs, wanted).into_iter();
        parts.map(|(part, error)| (part, self.error_text(error).unwrap_or_default())).collect()
    }

    /// The contents for which another content is to be written than at the last call.
    pub(super) fn take_unsettled(&mut self) -> BTreeSet<SpecId> {
        let mut unsettled = self.refused.take_unsettled();
        for id in self.groups.take_unsettled() {
            // Results of trials are about inline hops, which are not written for this content.
            if self.groups.form(id).is_some() {
                self.refused.forget(&mut self.specs, id);
            }
            unsettled.insert(id);
        }
        self.tidy();
        unsettled
    }

    /// The kernel accepted `taken` for a prefix that wants `wanted`: continues a trial with it.
    pub(super) fn note_taken(&mut self, prefix: Prefix, wanted: SpecId, taken: SpecId, now: Time) {
        if self.refused.is_empty() {
            return;
        }
        self.refused.handle_taken(&mut self.specs, prefix, (wanted, taken), now);
        self.tidy();
    }

    /// Updates the counters after a change of an entry's state.
    pub(super) fn count(
        &mut self,
        family: Family,
        before: Option<FibState>,
        after: Option<FibState>,
    ) {
        if before == after {
            return;
        }
        let installed = &mut self.counters.installed_by_family[family];
        *installed += u64::from(after == Some(FibState::Installed));
        *installed -= u64::from(before == Some(FibState::Installed));
        if let Some(counter) = before.map(|state| self.counter(state)) {
            *counter = counter.saturating_sub(1);
        }
        if let Some(counter) = after.map(|state| self.counter(state)) {
            *counter += 1;
        }
    }

    fn counter(&mut self, state: FibState) -> &mut u64 {
        match state {
            FibState::Installed => &mut self.counters.installed,
            FibState::Pending => &mut self.counters.pending,
            FibState::Failed => &mut self.counters.failed,
            FibState::Foreign => &mut self.counters.foreign,
        }
    }

    /// The index of an error text. The kernel has a fixed set of texts; if there are too many, the
    /// last one stands for the rest.
    pub(super) fn error(&mut self, text: &str) -> u16 {
        const ERRORS_MAX: usize = 512;
        let at = self.errors.iter().position(|known| known == text).unwrap_or_else(|| {
            if self.errors.len() < ERRORS_MAX {
                self.errors.push(text.to_owned());
            }
            self.errors.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// The error text of an index.
    pub(super) fn error_text(&self, error: u16) -> Option<String> {
        self.errors.get(usize::from(error)).cloned()
    }

    /// Records that the kernel refuses this content; returns whether that is new.
    pub(super) fn note_failure(&mut self, id: SpecId, now: Time) -> bool {
        let news = !self.failures.contains_key(&id);
        let failure = self.failures.entry(id).or_insert(Failure {
            trying: false,
            delay: RETRY_MIN,
            retry_at: Some(now + RETRY_MIN),
        });
        if failure.trying {
            failure.trying = false;
            failure.delay = (failure.delay * 2).min(RETRY_MAX);
            failure.retry_at = Some(now + failure.delay);
        }
        news
    }

    /// Begins the retries of the contents whose retry time is selected; returns these contents.
    pub(super) fn begin_retries(&mut self, selects: impl Fn(Time) -> bool) -> BTreeSet<SpecId> {
        let due = self.failures.iter_mut().filter(|(_, f)| f.retry_at.is_some_and(&selects));
        let due = due.map(|(id, failure)| {
            failure.trying = true;
            failure.retry_at = None;
            *id
        });
        due.collect()
    }

    /// Resets the wait of a content to the shortest.
    pub(super) fn forgive(&mut self, id: SpecId) {
        if let Some(failure) = self.failures.get_mut(&id) {
            failure.delay = RETRY_MIN;
        }
    }

    pub(super) fn forget_failures(&mut self, ids: &BTreeSet<SpecId>) {
        self.failures.retain(|id, _| !ids.contains(id));
    }

    /// When the next retry is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        let failures = self.failures.values().filter_map(|failure| failure.retry_at);
        failures.chain(self.refused.deadline()).chain(self.groups.deadline()).min()
    }
}
