//! Parts of a route that the kernel refuses whatever the prefix: a leg, or the source address. They
//! are left out, the rest is written, and they are retried with one route at a time.
//!
//! The kernel does not say which of several legs it refused. A trial finds out: it writes the route
//! of one prefix with more and more legs, while the other prefixes keep what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::{FibKind, Hop, Prefix, Time};

use crate::kernel::spec::{RouteSpec, SpecId, Specs};

/// First and longest wait before something that the kernel refused is retried; it doubles.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(1);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(60);

/// A part of a route that the kernel can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// One leg. Its weight does not matter, and is 1 here.
    Leg(Hop),
    /// The source address.
    Source(IpAddr),
}

impl Part {
    fn leg(hop: &Hop) -> Part {
        Part::Leg(Hop { weight: 1, ..*hop })
    }
}

/// A part that the kernel refused.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    error: u16,
    delay: Duration,
    /// `None` while a trial finds out whether it is still refused.
    retry_at: Option<Time>,
}

/// A content that the kernel does not accept as a whole.
#[derive(Debug)]
struct Reduced {
    /// The content that is written instead; `None`: nothing is left to write.
    to: Option<SpecId>,
    /// The reason if nothing is left.
    error: u16,
    trial: Option<Trial>,
    /// All of its parts, refused or not.
    parts: Vec<Part>,
    /// When the next trial is due, after one that ended without a result.
    again: Option<Time>,
}

/// A search for the parts that the kernel refuses, with the route of one prefix.
#[derive(Debug)]
struct Trial {
    prefix: Prefix,
    /// The content that the kernel accepts.
    accepted: RouteSpec,
    /// Parts that remain to be tried, the next one last.
    rest: Vec<Part>,
    /// The part that is being tried.
    testing: Part,
    /// The content that is being written.
    test: SpecId,
    asks: Asks,
}

/// The question that a trial puts to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// Does it accept `accepted` with the part? It has just accepted `accepted` alone.
    Part,
    /// The same, but it accepted `accepted` a while ago. The kernel may have a route that it would
    /// no longer accept, so that a refusal does not yet mean that the part is the reason.
    PartOnTrust,
    /// Does it still accept `accepted`, after it refused `accepted` with the part?
    Accepted,
}

/// What is to be written for a wanted content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Spec(SpecId),
    /// Nothing: the kernel accepts no part of it, for this reason.
    Nothing(u16),
}

/// Refused parts, and the contents that are written without them.
#[derive(Debug, Default)]
pub(super) struct RefusedParts {
    parts: BTreeMap<Part, Refusal>,
    reduced: BTreeMap<SpecId, Reduced>,
    /// The keys of `reduced` by the parts that the contents have, refused or not.
    having: BTreeMap<Part, BTreeSet<SpecId>>,
    /// Contents for which another content is to be written than before.
    unsettled: BTreeSet<SpecId>,
}

impl RefusedParts {
    /// Whether no part of any content is refused, the usual case.
    pub(super) fn is_empty(&self) -> bool {
        self.reduced.is_empty() && self.parts.is_empty()
    }

    /// Whether a content is written without some of its parts, or under trial.
    pub(super) fn reduces(&self, wanted: SpecId) -> bool {
        self.reduced.contains_key(&wanted)
    }

    /// The number of parts that the kernel refuses.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Leaves out known refused parts of a content that is about to be written.
    pub(super) fn prepare(&mut self, specs: &mut Specs, wanted: SpecId) {
        if self.parts.is_empty() || self.reduced.contains_key(&wanted) {
            return;
        }
        let spec = specs.get(wanted);
        let known = parts_of(spec).find_map(|part| self.parts.get(&part));
        if let Some(error) = known.map(|refusal| refusal.error) {
            self.reduce(specs, wanted, error);
        }
    }

    /// What to write for a prefix that wants this content.
    pub(super) fn target(&self, prefix: Prefix, wanted: SpecId) -> Target {
        let Some(reduced) = self.reduced.get(&wanted) else { return Target::Spec(wanted) };
        match (&reduced.trial, reduced.to) {
            (Some(trial), _) if trial.prefix == prefix => Target::Spec(trial.test),
            (_, Some(to)) => Target::Spec(to),
            (_, None) => Target::Nothing(reduced.error),
        }
    }

    /// The contents for which another content is to be written than at the last call.
    pub(super) fn take_unsettled(&mut self) -> BTreeSet<SpecId> {
        std::mem::take(&mut self.unsettled)
    }

    /// The parts left out of a content that is otherwise written, with the indexes of the reasons.
    pub(super) fn left_out(&self, specs: &Specs, wanted: SpecId) -> Vec<(Part, u16)> {
        match self.reduced.get(&wanted) {
            Some(Reduced { to: Some(_), .. }) => {}
            _ => return Vec::new(),
        }
        let parts = parts_of(specs.get(wanted));
        parts.filter_map(|part| Some((part, self.parts.get(&part)?.error))).collect()
    }

    /// Forgets a content that is no longer in use, or is written as a whole again.
    pub(super) fn forget(&mut self, specs: &mut Specs, wanted: SpecId) {
        if let Some(Reduced { to, trial, parts, .. }) = self.reduced.remove(&wanted) {
            parts.iter().for_each(|part| self.forget_having(part, wanted));
            to.into_iter().for_each(|to| specs.release(to));
            trial.into_iter().for_each(|trial| self.end_trial(specs, trial));
        }
        if self.reduced.is_empty() {
            self.parts.clear();
        }
    }

    /// The kernel refused `refused`, written for a prefix that wants `wanted`, because of one of
    /// its parts: changes what is to be written for the prefix. Returns the part if it is newly
    /// refused.
    pub(super) fn handle_refused(
        &mut self,
        specs: &mut Specs,
        prefix: Prefix,
        (wanted, refused): (SpecId, SpecId),
        about: About,
        error: u16,
        now: Time,
    ) -> Option<Part> {
        let tried = self.reduced.get(&wanted).and_then(|reduced| reduced.trial.as_ref());
        if tried.is_some_and(|trial| trial.prefix == prefix && trial.test == refused) {
            return self.handle_test_refused(specs, wanted, error, now);
        }
        let searched = tried.is_some();
        if self.target(prefix, wanted) != Target::Spec(refused) {
            return None; // It was sent before the content was reduced further.
        }
        let spec = Arc::clone(specs.get(refused));
        let suspects: Vec<Part> = match about {
            About::Source => spec.source.map(Part::Source).into_iter().collect(),
            About::Legs => parts_of(&spec).filter(|p| matches!(p, Part::Leg(_))).collect(),
        };
        if let [part] = suspects[..] {
            let news = self.note(part, error, now);
            self.reduce(specs, wanted, error);
            return news.then_some(part);
        }
        // One trial per content: two prefixes would replace each other's trial without an end.
        if searched {
            return None;
        }
        // Every part is tried, beginning with the first leg; the source address is last.
        let nothing = nothing_of(&spec);
        self.begin_trial(specs, prefix, wanted, nothing, error);
        None
    }

    /// The kernel accepted a content for a prefix.
    pub(super) fn handle_taken(
        &mut self,
        specs: &mut Specs,
        prefix: Prefix,
        (wanted, taken): (SpecId, SpecId),
        now: Time,
    ) {
        let reduced = self.reduced.get_mut(&wanted);
        let Some(trial) = reduced.and_then(|reduced| reduced.trial.as_mut()) else {
            return;
        };
        if trial.prefix != prefix || trial.test != taken {
            return;
        }
        let part = trial.testing;
        match trial.asks {
            Asks::Part | Asks::PartOnTrust => {
                trial.accepted = RouteSpec::clone(specs.get(taken));
                self.accept(specs, part, wanted);
            }
            Asks::Accepted => {
                let error = reduced_error(&self.reduced, wanted);
                self.note(part, error, now);
            }
        }
        self.next_step(specs, wanted);
    }

    /// Whether a trial uses this prefix: its route is written to get an answer, even if the kernel
    /// has it already.
    pub(super) fn asks(&self, prefix: Prefix, wanted: SpecId) -> bool {
        let trial = self.reduced.get(&wanted).and_then(|reduced| reduced.trial.as_ref());
        trial.is_some_and(|trial| trial.prefix == prefix)
    }

    /// A prefix no longer wants a content, or cannot be written: a trial with it ends without a
    /// result, and one with another prefix is due at once.
    pub(super) fn abandon(&mut self, specs: &mut Specs, prefix: Prefix, wanted: SpecId) {
        let Some(reduced) = self.reduced.get_mut(&wanted) else { return };
        let Some(trial) = reduced.trial.take_if(|trial| trial.prefix == prefix) else { return };
        reduced.again = Some(Time::ZERO);
        self.end_trial(specs, trial);
    }

    /// The route of a prefix cannot be written for a reason that has nothing to do with its parts:
    /// a trial with it is due again after a while.
    pub(super) fn postpone(
        &mut self,
        specs: &mut Specs,
        prefix: Prefix,
        wanted: SpecId,
        now: Time,
    ) {
        self.abandon(specs, prefix, wanted);
        if let Some(reduced) = self.reduced.get_mut(&wanted)
            && reduced.again.is_some()
        {
            reduced.again = Some(now + RETRY_MIN);
        }
    }

    /// Makes all refused parts due, because links or addresses changed.
    pub(super) fn retry_all(&mut self) {
        for refusal in self.parts.values_mut() {
            refusal.delay = RETRY_MIN;
            refusal.retry_at = refusal.retry_at.map(|_| Time::ZERO);
        }
    }

    /// When the next retry is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        let trials = self.reduced.values().filter_map(|reduced| reduced.again);
        self.parts.values().filter_map(|refusal| refusal.retry_at).chain(trials).min()
    }

    /// The contents that have parts due for a retry and are not under trial.
    pub(super) fn due(&self, now: Time) -> BTreeSet<SpecId> {
        let is_due = |part: &Part| {
            self.parts.get(part).and_then(|refusal| refusal.retry_at).is_some_and(|at| at <= now)
        };
        if self.deadline().is_none_or(|at| at > now) {
            return BTreeSet::new();
        }
        let idle = self.reduced.iter().filter(|(_, reduced)| reduced.trial.is_none());
        let due = idle.filter(|(_, reduced)| {
            reduced.again.is_some_and(|at| at <= now) || reduced.parts.iter().any(is_due)
        });
        due.map(|(id, _)| *id).collect()
    }

    /// Begins a trial of the parts that are due, with the route of a prefix that wants the content.
    pub(super) fn retry(&mut self, specs: &mut Specs, prefix: Prefix, wanted: SpecId, now: Time) {
        let Some(reduced) = self.reduced.get_mut(&wanted) else { return };
        reduced.again = None;
        let spec = Arc::clone(specs.get(wanted));
        let accepted = match reduced.to {
            Some(to) => RouteSpec::clone(specs.get(to)),
            None => nothing_of(&spec),
        };
        let error = reduced.error;
        for part in parts_of(&spec) {
            if let Some(refusal) = self.parts.get_mut(&part)
                && refusal.retry_at.is_some_and(|at| at <= now)
            {
                refusal.retry_at = None;
            }
        }
        self.begin_trial(specs, prefix, wanted, accepted, error);
    }

    /// Forgets parts that are due and that no content has any more.
    pub(super) fn forget_unused(&mut self, now: Time) {
        let having = &self.having;
        self.parts.retain(|part, refusal| {
            having.contains_key(part) || refusal.retry_at.is_some_and(|at| at > now)
        });
    }

    /// Records that a part is refused; returns whether that is new.
    fn note(&mut self, part: Part, error: u16, now: Time) -> bool {
        let news = !self.parts.contains_key(&part);
        let refusal =
            self.parts.entry(part).or_insert(Refusal { error, delay: RETRY_MIN, retry_at: None });
        if !news {
            refusal.delay = (refusal.delay * 2).min(RETRY_MAX);
        }
        refusal.error = error;
        refusal.retry_at = Some(now + refusal.delay);
        news
    }

    /// The kernel refused what a trial wrote.
    fn handle_test_refused(
        &mut self,
        specs: &mut Specs,
        wanted: SpecId,
        error: u16,
        now: Time,
    ) -> Option<Part> {
        let reduced = self.reduced.get_mut(&wanted)?;
        reduced.error = error;
        let trial = reduced.trial.as_mut()?;
        let (part, prefix) = (trial.testing, trial.prefix);
        match trial.asks {
            Asks::Part => {
                let news = self.note(part, error, now);
                self.next_step(specs, wanted);
                news.then_some(part)
            }
            Asks::PartOnTrust => {
                let before = trial.test;
                trial.asks = Asks::Accepted;
                trial.test = specs.intern(trial.accepted.clone());
                specs.release(before);
                None
            }
            Asks::Accepted => {
                let nothing = nothing_of(specs.get(wanted));
                self.begin_trial(specs, prefix, wanted, nothing, error);
                None
            }
        }
    }

    fn begin_trial(
        &mut self,
        specs: &mut Specs,
        prefix: Prefix,
        wanted: SpecId,
        accepted: RouteSpec,
        error: u16,
    ) {
        let known = accepted.hops().to_vec();
        let spec = Arc::clone(specs.get(wanted));
        let waits = |part: &Part| {
            let has = match part {
                Part::Leg(leg) => known.iter().any(|hop| Part::leg(hop) == Part::Leg(*leg)),
                Part::Source(_) => accepted.source.is_some(),
            };
            // A part whose retry is in the future is not tried.
            !has && self.parts.get(part).is_none_or(|refusal| refusal.retry_at.is_none())
        };
        let mut rest: Vec<Part> = parts_of(&spec).filter(waits).collect();
        rest.reverse();
        let Some(testing) = rest.pop() else {
            // Trials of other contents have determined all of them.
            let reduced = self.reduced.get_mut(&wanted);
            if let Some(trial) = reduced.and_then(|reduced| reduced.trial.take()) {
                self.end_trial(specs, trial);
            }
            return self.reduce(specs, wanted, error);
        };
        let test = specs.intern(with(&accepted, &testing, &spec));
        let asks = match accepted.hops() {
            [] => Asks::Part,
            _ => Asks::PartOnTrust,
        };
        let trial = Trial { prefix, accepted, rest, testing, test, asks };
        let reduced = self.reduced_mut(specs, wanted, error);
        if let Some(before) = reduced.trial.replace(trial) {
            self.end_trial(specs, before);
        }
    }

    fn reduced_mut(&mut self, specs: &Specs, wanted: SpecId, error: u16) -> &mut Reduced {
        self.reduced.entry(wanted).or_insert_with(|| {
            let parts: Vec<Part> = parts_of(specs.get(wanted)).collect();
            for part in &parts {
                self.having.entry(*part).or_default().insert(wanted);
            }
            Reduced { to: None, error, trial: None, parts, again: None }
        })
    }

    fn forget_having(&mut self, part: &Part, wanted: SpecId) {
        if let Some(ids) = self.having.get_mut(part) {
            ids.remove(&wanted);
            if ids.is_empty() {
                self.having.remove(part);
            }
        }
    }

    /// Makes the parts that a trial has not determined due again.
    fn end_trial(&mut self, specs: &mut Specs, trial: Trial) {
        for part in trial.rest.into_iter().chain([trial.testing]) {
            if let Some(refusal) = self.parts.get_mut(&part) {
                refusal.retry_at.get_or_insert(Time::ZERO);
            }
        }
        specs.release(trial.test);
    }

    /// Continues a trial with the next part, or ends it.
    fn next_step(&mut self, specs: &mut Specs, wanted: SpecId) {
        let whole = Arc::clone(specs.get(wanted));
        let Some(reduced) = self.reduced.get_mut(&wanted) else { return };
        let Some(trial) = &mut reduced.trial else { return };
        // A source address alone is not a route.
        let rest = trial.rest.last();
        let over = matches!(rest, Some(Part::Source(_))) && trial.accepted.hops().is_empty();
        if let Some(part) = trial.rest.pop_if(|_| !over) {
            let before = trial.test;
            trial.testing = part;
            trial.asks = Asks::Part;
            trial.test = specs.intern(with(&trial.accepted, &part, &whole));
            specs.release(before);
            return;
        }
        if let Some(trial) = reduced.trial.take() {
            self.end_trial(specs, trial);
        }
        self.reduce_again(specs, wanted);
    }

    /// The kernel accepts a part: contents that were written without it get it again.
    fn accept(&mut self, specs: &mut Specs, part: Part, tried_with: SpecId) {
        if self.parts.remove(&part).is_none() {
            return;
        }
        let having = self.having.get(&part).into_iter().flatten().copied();
        let others = having.filter(|id| {
            let waits = self.reduced.get(id).is_some_and(|reduced| reduced.trial.is_none());
            *id != tried_with && waits
        });
        let others: Vec<SpecId> = others.collect();
        others.into_iter().for_each(|id| self.reduce_again(specs, id));
    }

    /// Recomputes what is written for a content.
    fn reduce_again(&mut self, specs: &mut Specs, wanted: SpecId) {
        if let Some(reduced) = self.reduced.get(&wanted) {
            let error = reduced.error;
            self.reduce(specs, wanted, error);
        }
    }

    fn reduce(&mut self, specs: &mut Specs, wanted: SpecId, error: u16) {
        self.unsettled.insert(wanted);
        let spec = Arc::clone(specs.get(wanted));
        let refused = |part: &Part| self.parts.get(part).map(|refusal| refusal.error);
        let mut rest = RouteSpec::clone(&spec);
        let mut reason = None;
        if let FibKind::Unicast(hops) = &mut rest.kind {
            hops.retain(|hop| {
                let error = refused(&Part::leg(hop));
                reason = reason.or(error);
                error.is_none()
            });
            if let [hop] = hops.as_mut_slice() {
                hop.weight = 1;
            }
        }
        if spec.source.is_some_and(|source| refused(&Part::Source(source)).is_some()) {
            rest.source = None;
        }
        if rest == *spec {
            return self.forget(specs, wanted);
        }
        let to = (!rest.hops().is_empty()).then(|| specs.intern(rest));
        let error = reason.unwrap_or(error);
        let reduced = self.reduced_mut(specs, wanted, error);
        reduced.error = error;
        if let Some(before) = std::mem::replace(&mut reduced.to, to) {
            specs.release(before);
        }
    }
}

fn reduced_error(reduced: &BTreeMap<SpecId, Reduced>, wanted: SpecId) -> u16 {
    reduced.get(&wanted).map_or(0, |reduced| reduced.error)
}

/// A content without any of its parts.
fn nothing_of(spec: &RouteSpec) -> RouteSpec {
    RouteSpec { kind: FibKind::Unicast(Vec::new()), source: None, ..spec.clone() }
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Legs,
    Source,
}

/// The parts of a content, legs first.
fn parts_of(spec: &RouteSpec) -> impl Iterator<Item = Part> {
    spec.hops().iter().map(Part::leg).chain(spec.source.map(Part::Source))
}

/// A content with one more part, in the order and with the weights of the whole.
fn with(accepted: &RouteSpec, part: &Part, whole: &RouteSpec) -> RouteSpec {
    let mut spec = accepted.clone();
    match part {
        Part::Leg(_) => {
            if let FibKind::Unicast(hops) = &mut spec.kind {
                let has = |hop: &Hop| hops.iter().any(|h| Part::leg(h) == Part::leg(hop));
                let legs = whole.hops().iter();
                let kept = legs.filter(|hop| Part::leg(hop) == *part || has(hop));
                let mut kept: Vec<Hop> = kept.copied().collect();
                if let [hop] = kept.as_mut_slice() {
                    hop.weight = 1;
                }
                *hops = kept;
            }
        }
        Part::Source(source) => spec.source = Some(*source),
    }
    spec
}
/// The part of the route that is refused whatever the prefix, if the refusal is about one.
pub(super) fn about(refusal: &super::Refused, spec: &RouteSpec) -> Option<About> {
    const EPERM: i32 = 1;
    const ENODEV: i32 = 19;
    const ENETDOWN: i32 = 100;
    const ENETUNREACH: i32 = 101;
    const EHOSTUNREACH: i32 = 113;
    let says = |words: &[&str]| words.iter().any(|word| refusal.text.contains(word));
    // "Invalid prefsrc address" (IPv4), "Invalid source address" (IPv6).
    if spec.source.is_some() && says(&["prefsrc", "source address"]) {
        return Some(About::Source);
    }
    if spec.hops().is_empty() {
        return None;
    }
    match refusal.errno {
        EPERM | ENODEV | ENETDOWN | ENETUNREACH | EHOSTUNREACH => Some(About::Legs),
        // EINVAL has many reasons; the kernel's text tells which: "Nexthop has invalid gateway".
        _ => says(&["exthop", "ateway"]).then_some(About::Legs),
    }
}
