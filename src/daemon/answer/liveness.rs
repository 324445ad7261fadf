//! Whether every part of the daemon still runs: each is probed, and one that does not answer counts
//! as stuck since the first probe that it has not answered.
//!
//! There is no periodic heartbeat: an idle daemon that is not probed is not woken. Session tasks
//! are not probed: a task that is stuck is recognised by a deadline that has passed.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bgp_proto::types::Time;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::sources::Sources;
use crate::ctl::rfc3339;
use crate::datastore::{State, Watcher};
use crate::engine::{Clock, Handle};
use crate::kernel::Stage;
use crate::liveness::Liveness;

/// How long a part may take to answer before it counts as stuck. Longer than the table's longest
/// turn, shorter than the ten seconds of calico-node's probes.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How late a session's timer may be handled.
const TIMER_LATE_MAX: Duration = Duration::from_secs(10);
/// How long a current source that is probed every few seconds may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Most stuck sessions that are named; further ones are only counted.
const SESSIONS_NAMED_MAX: usize = 5;

/// The parts of the daemon that are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The daemon's loop: configuration, adding and removing peers.
    Daemon,
    /// The table thread.
    Table,
    /// The kernel thread: writer and monitor.
    Fib,
    /// The session tasks.
    Sessions,
    /// The task that derives configurations from Calico's objects.
    Plan,
    /// The tasks that follow Calico's objects.
    Datastore,
}

impl Part {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Part::Daemon => "daemon",
            Part::Table => "table",
            Part::Fib => "fib",
            Part::Sessions => "sessions",
            Part::Plan => "plan",
            Part::Datastore => "datastore",
        }
    }
}

/// A part that is stuck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) part: Part,
    /// Which part, and what it has not done, in one line.
    pub(super) text: String,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Completes when the part has answered (true) or has ended (false).
type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// A part, its name, and a function that probes it.
type Query = (Part, String, Box<dyn FnOnce() -> Answer + Send>);

/// Probes that are not answered yet, by the part's name. Clones share them.
#[derive(Clone, Default)]
struct Unanswered {
    queries: Arc<Mutex<BTreeMap<String, Asked>>>,
    /// Notified at every answer.
    answered: Arc<Notify>,
}

struct Asked {
    part: Part,
    since: Time,
    answerer: Answerer,
    waiting: AbortHandle,
}

impl Asked {
    /// How much of `wait` is left at `now`; zero if the part has ended.
    fn left(&self, now: Time, wait: Duration) -> Duration {
        match self.answerer {
            Answerer::Awaited => (self.since + wait).since(now),
            Answerer::Gone => Duration::ZERO,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answerer {
    Awaited,
    /// The part has ended.
    Gone,
}

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Asked>> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops all pending probes, because the parts are different ones from here on.
    fn forget(&self) {
        for (_, asked) in std::mem::take(&mut *self.lock()) {
            asked.waiting.abort();
        }
    }

    /// Probes the parts of `queries` that have no pending probe, and waits until each has
    /// answered or its probe is older than `wait`. Returns those whose probe is.
    async fn probe(&self, queries: Vec<Query>, clock: Clock, wait: Duration) -> Vec<Owed> {
        for (part, name, ask) in queries {
            self.ask(part, name, ask, clock.now());
        }
        let asked_by = clock.now();
        loop {
            let news = self.answered.notified();
            let now = clock.now();
            let left = {
                let unanswered = self.lock();
                // Parts that a concurrent call probed later are left to that call.
                let ours = || unanswered.iter().filter(|(_, asked)| asked.since <= asked_by);
                let left = ours().map(|(_, asked)| asked.left(now, wait)).max();
                match left {
                    Some(left) if left > Duration::ZERO => left,
                    _ => return ours().map(|(name, asked)| Owed::new(name, asked)).collect(),
                }
            };
            // The loop checks whether the time is over.
            let _ = timeout(left, news).await;
        }
    }

    fn ask(&self, part: Part, name: String, ask: impl FnOnce() -> Answer, now: Time) {
        let mut unanswered = self.lock();
        if unanswered.contains_key(&name) {
            return;
        }
        let (all, own, answer) = (self.clone(), name.clone(), ask());
        let waiting = tokio::spawn(async move {
            let is_there = answer.await;
            let mut unanswered = all.lock();
            match unanswered.get_mut(&own) {
                Some(asked) if !is_there => asked.answerer = Answerer::Gone,
                _ => drop(unanswered.remove(&own)),
            }
            drop(unanswered);
            all.answered.notify_waiters();
        });
        let waiting = waiting.abort_handle();
        unanswered.insert(name, Asked { part, since: now, answerer: Answerer::Awaited, waiting });
    }
}

/// A probe without an answer.
struct Owed {
    part: Part,
    name: String,
    since: Time,
    answerer: Answerer,
}

impl Owed {
    fn new(name: &str, asked: &Asked) -> Self {
        let Asked { part, since, answerer, .. } = *asked;
        Owed { part, name: name.to_owned(), since, answerer }
    }
}

/// Probes whether every part still runs. Clones share the pending probes.
#[derive(Clone)]
pub(in crate::daemon) struct LivenessView {
    sources: Sources,
    /// The liveness of the daemon's loop.
    own: Liveness,
    unanswered: Unanswered,
}

impl LivenessView {
    pub(super) fn new(sources: Sources, own: Liveness) -> Self {
        LivenessView { sources, own, unanswered: Unanswered::default() }
    }

    /// Drops all pending probes, because the parts are different ones from here on.
    pub(in crate::daemon) fn forget(&self) {
        self.unanswered.forget();
    }

    /// The parts that are stuck, as texts for operators and probes.
    pub(in crate::daemon) async fn not_alive(&self) -> Vec<String> {
        self.stuck(ANSWER_WAIT).await.iter().map(ToString::to_string).collect()
    }

    /// Probes every part and waits for `wait` at most. Returns the parts that are stuck.
    pub(super) async fn stuck(&self, wait: Duration) -> Vec<Stuck> {
        let clock = self.sources.table.clock();
        let owed = self.unanswered.probe(self.queries(), clock, wait).await;
        let mut stuck: Vec<Stuck> = owed.iter().map(|owed| self.describe(owed)).collect();
        stuck.extend(self.late_sessions());
        stuck.extend(self.silent_sources());
        stuck.sort_by_key(|stuck| stuck.part);
        stuck
    }

    /// The parts that exist; some exist on a Calico node only.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Daemon, Part::Table, Part::Fib, Part::Sessions];
        if self.sources.state().node.is_some() {
            parts.extend([Part::Plan, Part::Datastore]);
        }
        parts
    }

    fn queries(&self) -> Vec<Query> {
        let table = self.sources.table.clone();
        let fib = self.sources.kernel.clone();
        let own = self.own.clone();
        let mut queries: Vec<Query> = vec![
            query(Part::Daemon, "daemon", move || own.ask()),
            query(Part::Fib, "fib", move || fib.ask_liveness()),
            table_query("table".to_owned(), table),
        ];
        for (name, vrf) in self.sources.vrfs.all() {
            let (table, fib) = (vrf.table, vrf.kernel);
            queries
                .push(query(Part::Fib, &format!("fib of VRF {name}"), move || fib.ask_liveness()));
            queries.push(table_query(format!("table of VRF {name}"), table));
        }
        if let Some(node) = &self.sources.state().node {
            let plan = node.liveness.plan.clone();
            queries.push(query(Part::Plan, "calico plan", move || plan.ask()));
            for (name, watcher) in &node.liveness.sources {
                let liveness = watcher.liveness().clone();
                queries.push(query(Part::Datastore, name, move || liveness.ask()));
            }
        }
        queries
    }

    fn describe(&self, owed: &Owed) -> Stuck {
        let clock = self.sources.table.clock();
        let seconds = clock.now().since(owed.since).as_secs();
        let since = rfc3339(clock.wall(owed.since));
        let what = match (owed.answerer, owed.part) {
            (Answerer::Gone, _) => "has ended".to_owned(),
            (_, Part::Fib) if owed.name == "fib" => {
                format!("no answer{}", during(self.sources.kernel.stage()))
            }
            _ => "no answer".to_owned(),
        };
        Stuck {
            part: owed.part,
            text: format!("{}: {what} since {since} ({seconds} s)", owed.name),
        }
    }

    fn late_sessions(&self) -> Vec<Stuck> {
        let clock = self.sources.table.clock();
        let now = clock.now();
        let mut late: Vec<(Time, Arc<str>)> = Vec::new();
        for record in self.sources.registry.all() {
            let due = record.handle.next_deadline();
            if let Some(due) = due.filter(|due| *due + TIMER_LATE_MAX < now) {
                late.push((due, Arc::clone(&record.name)));
            }
        }
        late.sort();
        let text = |(due, name): &(Time, Arc<str>)| {
            let (since, seconds) = (rfc3339(clock.wall(*due)), now.since(*due).as_secs());
            format!("session {name}: a timer has been due since {since} ({seconds} s)")
        };
        let stuck = |text| Stuck { part: Part::Sessions, text };
        let mut named: Vec<Stuck> =
            late.iter().take(SESSIONS_NAMED_MAX).map(|late| stuck(text(late))).collect();
        if late.len() > SESSIONS_NAMED_MAX {
            named.push(stuck(format!("{} more sessions", late.len() - SESSIONS_NAMED_MAX)));
        }
        named
    }

    /// Sources that count as current, and have received nothing for longer than [`SILENCE_MAX`].
    fn silent_sources(&self) -> Vec<Stuck> {
        let state = self.sources.state();
        let (Some(status), Some(node)) = (state.node_status(), &state.node) else {
            return Vec::new();
        };
        let is_current = |name: &str| {
            status
                .sources
                .iter()
                .any(|source| source.name == name && matches!(source.state, State::Current))
        };
        let silence = |watcher: &Watcher| watcher.followed().heard.map(|heard| heard.elapsed());
        let sources = &node.liveness.sources;
        sources
            .iter()
            .filter_map(|(name, watcher)| Some((name, silence(watcher)?)))
            .filter(|(name, silence)| *silence > SILENCE_MAX && is_current(name))
            .map(|(name, silence)| Stuck {
                part: Part::Datastore,
                text: format!("{name}: nothing heard for {} s", silence.as_secs()),
            })
            .collect()
    }
}

/// Whether a table answers; unlike others, it says when it has ended.
fn table_query(name: String, table: Handle) -> Query {
    let ask = move || -> Answer { Box::pin(async move { table.ask(|_, _| ()).await.is_some() }) };
    (Part::Table, name, Box::new(ask))
}

fn query<F>(part: Part, name: &str, ask: impl FnOnce() -> F + Send + 'static) -> Query
where
    F: Future<Output = ()> + Send + 'static,
{
    let ask = move || -> Answer {
        // The probe is sent here, not when the future is first polled.
        let answer = ask();
        Box::pin(async move {
            answer.await;
            true
        })
    };
    (part, name.to_owned(), Box::new(ask))
}

fn during(stage: Stage) -> &'static str {
    match stage {
        Stage::Idle => "",
        Stage::Monitor => " while receiving the kernel's events",
        Stage::Reading => " while reading the kernel's tables",
        Stage::Writing => " while writing routes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(50);

    fn ask_of(name: &str, liveness: &Liveness) -> Query {
        let liveness = liveness.clone();
        query(Part::Datastore, name, move || liveness.ask())
    }

    #[tokio::test]
    async fn a_stuck_part_is_named_with_the_time_of_the_first_probe() {
        let (unanswered, clock) = (Unanswered::default(), Clock::start());
        let (alive, dead) = (Liveness::default(), Liveness::default());
        let own = alive.clone();
        tokio::spawn(async move { own.answer_always().await });
        let queries = || vec![ask_of("alive", &alive), ask_of("dead", &dead)];
        let first = unanswered.probe(queries(), clock, WAIT).await;
        assert_eq!(first.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["dead"]);
        let asked = dead.question();
        // It is known to be stuck: the second call waits only for the others, and does not probe
        // it.
        let again = unanswered.probe(queries(), clock, WAIT).await;
        assert_eq!(again[0].since, first[0].since);
        assert_eq!(dead.question(), asked, "probes of a stuck part do not accumulate");
        // It continues.
        dead.answer(dead.question());
        let own = dead.clone();
        tokio::spawn(async move { own.answer_always().await });
        tokio::time::sleep(WAIT).await;
        assert!(unanswered.probe(queries(), clock, WAIT).await.is_empty());
    }

    #[tokio::test]
    async fn a_part_that_has_ended_stays_stuck() {
        let (unanswered, clock) = (Unanswered::default(), Clock::start());
        let gone = || -> Vec<Query> {
            let ask = || -> Answer { Box::pin(async { false }) };
            vec![(Part::Table, "table".to_owned(), Box::new(ask))]
        };
        for _ in 0..2 {
            let owed = unanswered.probe(gone(), clock, WAIT).await;
            assert!(owed.len() == 1 && owed[0].answerer == Answerer::Gone);
        }
        // Other parts have replaced it.
        unanswered.forget();
        assert!(unanswered.probe(Vec::new(), clock, WAIT).await.is_empty());
    }
}
