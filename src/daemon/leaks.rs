//! Routes of one VRF in another, where a policy imports them (`import-vrf`).
//!
//! A task takes what the tables offer, a page at a time, evaluates the policies, and gives the result
//! to the importing tables as local routes. It takes the next page only when they have taken the last
//! one: nothing queues up, and a route that changes meanwhile is taken once. What is imported is not
//! offered on, so that there are no loops.
//!
//! If several VRFs have a route to one prefix, the first one in the importing VRF's list has it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bgp_proto::policy::Source;
use bgp_proto::table::{LocalRoute, Offered};
use bgp_proto::types::Prefix;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::config::{Config, ImportVrf};
use crate::engine::Handle;
use crate::event_names::LIMIT_WARNING;
use crate::supervise::{self, Ending};

/// Destinations that are taken at once.
const PAGE: usize = 256;
/// How long a table may take for a page before the next one is taken anyway.
const TAKEN_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks whether a table has decided on what it was given.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A VRF; `None`: the default VRF.
type Vrf = Option<Arc<str>>;

/// How the default VRF is called where it is named.
const DEFAULT: &str = "default";

/// Whether routes wait to be imported. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct OffersWait(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    news: Notify,
    /// How often something began to wait, and up to which of those everything is done.
    begun: AtomicU64,
    done: AtomicU64,
}

impl OffersWait {
    /// Something waits.
    pub(super) fn begin(&self) {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        self.0.news.notify_one();
    }

    /// Whether something that waited has not reached the importing tables.
    pub(super) fn is_pending(&self) -> bool {
        self.0.begun.load(Ordering::Acquire) != self.0.done.load(Ordering::Acquire)
    }
}

/// The imports that have reached their `prefixes-max`: what they lack, by importing VRF and source.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct FullImports(Arc<Mutex<BTreeMap<(Vrf, Vrf), String>>>);

impl FullImports {
    /// A text for each.
    pub(super) fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One is full. It is reported if it was not before.
    fn insert(&self, to: &Vrf, from: &Vrf, max: u32) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry((to.clone(), from.clone()));
        if let std::collections::btree_map::Entry::Vacant(vacant) = entry {
            let [to, from] = [to, from].map(|vrf| vrf.as_deref().unwrap_or(DEFAULT));
            let text = format!(
                "VRF {to} imports no more than {max} prefixes from VRF {from} (prefixes-max); \
                 narrow the policy, or raise the limit"
            );
            warn!(event = LIMIT_WARNING, vrf = to, "{text}");
            vacant.insert(text);
        }
    }

    fn remove(&self, to: &Vrf, from: &Vrf) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(to.clone(), from.clone())).is_some()
    }
}

/// The tables that exist, and what each imports.
#[derive(Clone, Default)]
struct Wish {
    tables: BTreeMap<Vrf, Handle>,
    imports: BTreeMap<Vrf, Vec<ImportVrf>>,
}

impl Wish {
    /// The imports of a VRF from another.
    fn of<'a>(&'a self, to: &Vrf, from: &Vrf) -> Option<(usize, &'a ImportVrf)> {
        let mut all = self.imports.get(to)?.iter().enumerate();
        all.find(|(_, import)| import.from == *from)
    }

    fn importers(&self, from: &Vrf) -> Vec<Vrf> {
        let imports = |to: &&Vrf| self.of(to, from).is_some();
        self.imports.keys().filter(imports).cloned().collect()
    }

    fn is_same(&self, other: &Wish) -> bool {
        self.imports == other.imports
            && self.tables.len() == other.tables.len()
            && self.tables.keys().all(|vrf| self.has_same(other, vrf))
    }

    /// Whether a table is there, and the same as in `other`.
    fn has_same(&self, other: &Wish, vrf: &Vrf) -> bool {
        let pair = self.tables.get(vrf).zip(other.tables.get(vrf));
        pair.is_some_and(|(own, other)| own.is_same(other))
    }
}

/// The task, and what it is told. Without any import it does not exist.
pub(super) struct Leaks {
    wait: OffersWait,
    full: FullImports,
    /// What the task was told last.
    told: Wish,
    task: Option<(watch::Sender<Wish>, JoinHandle<()>)>,
}

impl Drop for Leaks {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Leaks {
    pub(super) fn new(wait: OffersWait, full: FullImports) -> Leaks {
        Leaks { wait, full, told: Wish::default(), task: None }
    }

    /// Nothing is imported or withdrawn any more: the ends of sessions of one VRF withdraw nothing from
    /// another.
    pub(super) fn stop(&self) {
        self.task.iter().for_each(|(_, task)| task.abort());
    }

    /// Whether routes have not reached the tables that import them.
    pub(super) fn is_pending(&self) -> bool {
        self.task.is_some() && self.wait.is_pending()
    }

    /// The imports of the configuration apply to the tables that exist.
    pub(super) fn follow<'a>(
        &mut self,
        config: &Config,
        default: &Handle,
        vrfs: impl Iterator<Item = (&'a Arc<str>, &'a Handle)>,
    ) {
        let own = config.vrfs.iter().map(|vrf| (Some(Arc::clone(&vrf.name)), vrf.import.clone()));
        let all = own.chain([(None, config.bgp.import.clone())]);
        let imports: BTreeMap<_, _> = all.filter(|(_, imports)| !imports.is_empty()).collect();
        if self.task.is_none() && imports.is_empty() {
            return;
        }
        let there = vrfs.map(|(name, table)| (Some(Arc::clone(name)), table.clone()));
        let tables = there.chain([(None, default.clone())]).collect();
        let wish = Wish { tables, imports };
        // Links come and go more often than VRFs, and every route is offered again.
        if wish.is_same(&self.told) {
            return;
        }
        self.told = wish.clone();
        let (wait, full) = (self.wait.clone(), self.full.clone());
        let (sender, _) = self.task.get_or_insert_with(|| {
            let (sender, wishes) = watch::channel(Wish::default());
            let task = supervise::task("leaks", Ending::Allowed, run(wishes, wait, full));
            (sender, tokio::spawn(task))
        });
        sender.send_replace(wish);
        self.wait.begin();
    }
}

/// What to do with an offer in an importing table.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing.
    Leave,
    /// Give the table this route.
    Set(LocalRoute),
    /// Withdraw the route. The other VRFs may have one.
    Withdraw,
    /// Nothing: as many prefixes are imported as may be.
    Full,
}

/// The routes that one table has from others: from which VRF, and how many from each.
#[derive(Debug, Default)]
struct Held(BTreeMap<Prefix, Vrf>, BTreeMap<Vrf, u32>);

impl Held {
    fn count(&self, from: &Vrf) -> u32 {
        self.1.get(from).copied().unwrap_or_default()
    }

    fn insert(&mut self, prefix: Prefix, from: &Vrf) {
        self.remove(&prefix);
        self.0.insert(prefix, from.clone());
        *self.1.entry(from.clone()).or_default() += 1;
    }

    fn remove(&mut self, prefix: &Prefix) {
        let count = self.0.remove(prefix).and_then(|from| self.1.get_mut(&from));
        count.into_iter().for_each(|count| *count -= 1);
    }

    /// Decides about a route of `from`, which has `max` prefixes here at most; `rank` is the position of a
    /// VRF in the list of imports.
    fn decide(
        &mut self,
        prefix: Prefix,
        from: &Vrf,
        route: Option<LocalRoute>,
        max: u32,
        rank: impl Fn(&Vrf) -> Option<usize>,
    ) -> Step {
        let holder = self.0.get(&prefix);
        match route {
            Some(route) => {
                let is_behind =
                    |holder: &Vrf| rank(holder).is_some_and(|first| Some(first) < rank(from));
                if holder.is_some_and(is_behind) {
                    return Step::Leave;
                }
                if holder != Some(from) && self.count(from) >= max {
                    return Step::Full;
                }
                self.insert(prefix, from);
                Step::Set(route)
            }
            None if holder == Some(from) => {
                self.remove(&prefix);
                Step::Withdraw
            }
            None => Step::Leave,
        }
    }

    /// Forgets the routes of VRFs that are not in the list any more; returns their prefixes.
    fn leave(&mut self, is_left: impl Fn(&Vrf) -> bool) -> Vec<Prefix> {
        let left: Vec<Prefix> =
            self.0.iter().filter(|(_, from)| is_left(from)).map(|(prefix, _)| *prefix).collect();
        left.iter().for_each(|prefix| self.remove(prefix));
        left
    }
}

/// What the task knows.
#[derive(Default)]
struct State {
    wish: Wish,
    held: BTreeMap<Vrf, Held>,
    full: FullImports,
}

async fn run(mut wishes: watch::Receiver<Wish>, wait: OffersWait, full: FullImports) {
    let mut state = State { full, ..State::default() };
    loop {
        wait.0.news.notified().await;
        loop {
            let begun = wait.0.begun.load(Ordering::Acquire);
            if is_outdated(&wishes) {
                let wish = wishes.borrow_and_update().clone();
                state.follow(wish, &wishes).await;
            }
            if state.take_all(&wishes).await == Taken::All {
                wait.0.done.store(begun, Ordering::Release);
                break;
            }
        }
    }
}

/// Whether there is a wish that the task has not taken over.
fn is_outdated(wishes: &watch::Receiver<Wish>) -> bool {
    wishes.has_changed().is_ok_and(|has| has)
}

/// Up to where offers were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// No table had more.
    All,
    /// There is another wish.
    Some,
}

impl State {
    /// Takes over what is wanted now: withdraws what is not, and lets the tables offer the rest again.
    async fn follow(&mut self, wish: Wish, wishes: &watch::Receiver<Wish>) {
        // Everything is offered again; what is still full says so again.
        self.full.clear();
        let before = std::mem::replace(&mut self.wish, wish);
        let wish = &self.wish;
        self.held.retain(|to, _| wish.has_same(&before, to));
        for (to, held) in &mut self.held {
            // A table that was replaced takes its routes with it.
            let is_left = |from: &Vrf| wish.of(to, from).is_none() || !wish.has_same(&before, from);
            let left = held.leave(is_left);
            let Some(table) = wish.tables.get(to) else { continue };
            for page in left.chunks(PAGE) {
                for prefix in page {
                    table.local(*prefix, Source::Vrf, None);
                }
                has_taken(table, wishes).await;
            }
        }
        for (from, table) in &wish.tables {
            // Also where only a policy has changed. A route that is the same changes nothing.
            match wish.importers(from)[..] {
                [] if before.importers(from).is_empty() => {}
                [] => table.end_offers(),
                _ => table.begin_offers(),
            }
        }
    }

    /// Takes what the tables offer, until none has anything, which may be never, or there is another
    /// wish.
    async fn take_all(&mut self, wishes: &watch::Receiver<Wish>) -> Taken {
        let sources: Vec<(Vrf, Handle)> = self.wish.tables.clone().into_iter().collect();
        loop {
            let mut is_done = true;
            for (from, table) in &sources {
                if self.wish.importers(from).is_empty() {
                    continue;
                }
                if is_outdated(wishes) {
                    return Taken::Some;
                }
                let offers = table.take_offers(PAGE).await.unwrap_or_default();
                is_done &= offers.is_empty();
                self.import(from, &offers, wishes).await;
            }
            if is_done {
                return Taken::All;
            }
        }
    }

    /// Gives one page of offers to every table that imports from `from`.
    async fn import(
        &mut self,
        from: &Vrf,
        offers: &[(Prefix, Option<Offered>)],
        wishes: &watch::Receiver<Wish>,
    ) {
        let name: Arc<str> = from.clone().unwrap_or_else(|| DEFAULT.into());
        for to in self.wish.importers(from) {
            let (Some(table), Some((_, import))) =
                (self.wish.tables.get(&to), self.wish.of(&to, from))
            else {
                continue;
            };
            let held = self.held.entry(to.clone()).or_default();
            let mut has_changed = false;
            for (prefix, offered) in offers {
                let route = offered.as_ref().and_then(|route| route.import(&import.policy, &name));
                let rank = |vrf: &Vrf| self.wish.of(&to, vrf).map(|(rank, _)| rank);
                let route = match held.decide(*prefix, from, route, import.prefixes_max, rank) {
                    Step::Leave => continue,
                    Step::Full => {
                        self.full.insert(&to, from, import.prefixes_max);
                        continue;
                    }
                    Step::Set(route) => Some(route),
                    Step::Withdraw => {
                        self.wish.offer_again(&to, from, *prefix);
                        None
                    }
                };
                table.local(*prefix, Source::Vrf, route);
                has_changed = true;
            }
            // Well below the limit, so that few changes about it do not have everything offered again.
            let has_room =
                held.count(from) <= import.prefixes_max - import.prefixes_max.div_ceil(10);
            if has_room && self.full.remove(&to, from) {
                self.wish.tables.get(from).into_iter().for_each(Handle::begin_offers);
                let [to, from] = [&to, from].map(|vrf| vrf.as_deref().unwrap_or(DEFAULT));
                info!(event = LIMIT_WARNING, vrf = to, "VRF {to} imports from VRF {from} again");
            }
            if has_changed {
                has_taken(table, wishes).await;
            }
        }
    }
}

impl Wish {
    /// The other VRFs from which `to` imports offer their route to a prefix.
    fn offer_again(&self, to: &Vrf, left: &Vrf, prefix: Prefix) {
        let imports = self.imports.get(to).into_iter().flatten();
        for import in imports.filter(|import| import.from != *left) {
            if let Some(table) = self.tables.get(&import.from) {
                table.offer_again(prefix);
            }
        }
    }
}

/// Waits until a table has decided on what it was given, is too busy for that, or there is another
/// wish.
async fn has_taken(table: &Handle, wishes: &watch::Receiver<Wish>) {
    // `changed` marks what it returns for as seen, which the task has not.
    let mut wishes = wishes.clone();
    let decided = async {
        while table.ask(|table, _| table.is_decided()).await == Some(false) {
            sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        _ = timeout(TAKEN_MAX, decided) => {}
        _ = wishes.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use bgp_proto::table::{Table, TableConfig};
    use bgp_proto::types::{Asn, FibChange, FibKind, RouterId};

    use super::*;
    use crate::engine::{Clock, Engine, Event, Sink};

    fn route(from: &str) -> Option<LocalRoute> {
        Some(LocalRoute { from: Some(from.into()), ..LocalRoute::default() })
    }

    /// Passes on that offers wait, and nothing else.
    struct Told(OffersWait);

    impl Sink for Told {
        fn fib(&mut self, _: Vec<(Prefix, FibChange)>) {}
        fn track(&mut self, _: IpAddr) {}
        fn untrack(&mut self, _: IpAddr) {}
        fn event(&mut self, _: Event) {}
        fn offers(&mut self) {
            self.0.begin();
        }
    }

    fn config(imports: &str) -> Config {
        let text = format!(
            "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n[[vrfs]]\nname = \"red\"\n[[vrfs]]\n\
             name = \"blue\"\n{imports}"
        );
        Config::parse(std::path::Path::new("m.toml"), &text).unwrap()
    }

    /// The default VRF's, red's and blue's.
    fn three_tables(wait: &OffersWait) -> [Engine; 3] {
        [0, 1, 2].map(|seed| {
            let config = Arc::new(TableConfig::new(Asn(64512), RouterId(1)));
            Engine::start(config, seed, Clock::start(), Told(wait.clone())).unwrap()
        })
    }

    /// Waits until a table has, or has not, a route from the VRF that is named.
    async fn until(table: &Handle, prefix: Prefix, from: Option<&'static str>) {
        let has = move |table: &Table, now| {
            let paths = table.explain(prefix, now).map(|found| found.destination.paths);
            let own = paths.into_iter().flatten().find_map(|path| path.own);
            own.and_then(|own| own.from).as_deref() == from
        };
        let limit = Duration::from_secs(20);
        let waits = async { while table.ask(has).await == Some(false) {} };
        timeout(limit, waits).await.unwrap_or_else(|_| panic!("never from {from:?}"));
    }

    #[tokio::test]
    async fn routes_follow_the_imports_of_the_configuration() {
        let (prefix, wait) = ("203.0.113.0/24".parse().unwrap(), OffersWait::default());
        let engines = three_tables(&wait);
        let [own, red, blue] = engines.each_ref().map(|engine| engine.handle().clone());
        let [red_name, blue_name]: [Arc<str>; 2] = ["red".into(), "blue".into()];
        let mut leaks = Leaks::new(wait, FullImports::default());
        let mut follow = |imports: &str, has_red: bool| {
            let there = [(&red_name, &red), (&blue_name, &blue)];
            let there = there.into_iter().filter(|(name, _)| has_red || ***name != *"red");
            leaks.follow(&config(imports), &own, there);
        };
        let route = || Some(LocalRoute { install: Some(FibKind::Blackhole), ..Default::default() });
        red.local(prefix, Source::Static, route());
        let imports = "import-vrf = [{ vrf = \"red\", policy = \"all\" }]\n";
        follow(imports, true);
        until(&blue, prefix, Some("red")).await;
        until(&own, prefix, None).await;
        // A withdrawal, a policy, a VRF that goes, and an import that goes.
        red.local(prefix, Source::Static, None);
        until(&blue, prefix, None).await;
        red.local(prefix, Source::Static, route());
        until(&blue, prefix, Some("red")).await;
        follow(&imports.replace("all", "none"), true);
        until(&blue, prefix, None).await;
        follow(imports, true);
        until(&blue, prefix, Some("red")).await;
        follow(imports, false);
        until(&blue, prefix, None).await;
        follow(imports, true);
        until(&blue, prefix, Some("red")).await;
        follow("", true);
        until(&blue, prefix, None).await;
        drop(leaks);
        engines.into_iter().for_each(Engine::stop);
    }

    /// Waits until nothing is left to be imported, and nothing has been for a while.
    async fn rest(wait: &OffersWait) {
        let rests = async {
            loop {
                let begun = wait.0.begun.load(Ordering::Acquire);
                sleep(50 * LOOK_AGAIN).await;
                if !wait.is_pending() && begun == wait.0.begun.load(Ordering::Acquire) {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(20), rests).await.expect("it alternates");
    }

    /// An odd circle has no state in which every other VRF has the route: one that depended on the
    /// imports of the next would alternate for ever.
    #[tokio::test]
    async fn imports_in_a_circle_of_three_come_to_rest() {
        let (prefix, wait) = ("203.0.113.0/24".parse().unwrap(), OffersWait::default());
        let engines = three_tables(&wait);
        let tables = engines.each_ref().map(|engine| engine.handle().clone());
        // Each imports from the next.
        let names = [DEFAULT, "red", "blue"];
        let from = |name| format!("import-vrf = [{{ vrf = \"{name}\", policy = \"all\" }}]\n");
        let text = format!(
            "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n{}[[vrfs]]\nname = \"red\"\n{}\
             [[vrfs]]\nname = \"blue\"\n{}",
            from("red"),
            from("blue"),
            from(DEFAULT)
        );
        let config = Config::parse(std::path::Path::new("m.toml"), &text).unwrap();
        let [red_name, blue_name]: [Arc<str>; 2] = ["red".into(), "blue".into()];
        let mut leaks = Leaks::new(wait.clone(), FullImports::default());
        let there = [(&red_name, &tables[1]), (&blue_name, &tables[2])];
        leaks.follow(&config, &tables[0], there.into_iter());
        let own = |at: usize, has: bool| {
            let route = LocalRoute { install: Some(FibKind::Blackhole), ..Default::default() };
            tables[at].local(prefix, Source::Static, has.then_some(route));
        };
        for (at, name) in names.into_iter().enumerate() {
            own(at, true);
            let (importer, third) = ((at + 2) % 3, (at + 1) % 3);
            until(&tables[importer], prefix, Some(name)).await;
            rest(&wait).await;
            until(&tables[importer], prefix, Some(name)).await;
            until(&tables[third], prefix, None).await;
            own(at, false);
            until(&tables[importer], prefix, None).await;
        }
        for turn in 0..20 {
            (0..3).for_each(|at| own(at, turn % (at + 2) != 0));
        }
        (0..3).for_each(|at| own(at, true));
        rest(&wait).await;
        for table in &tables {
            let best = table.ask(move |table, now| {
                table.explain(prefix, now).map(|found| found.destination.paths[0].source)
            });
            assert_eq!(best.await.flatten(), Some(Source::Static));
        }
        drop(leaks);
        engines.into_iter().for_each(Engine::stop);
    }

    #[tokio::test]
    async fn a_table_that_never_rests_does_not_delay_a_configuration() {
        let (prefix, wait) = ("203.0.113.0/24".parse().unwrap(), OffersWait::default());
        let engines = three_tables(&wait);
        let [own, red, blue] = engines.each_ref().map(|engine| engine.handle().clone());
        let [red_name, blue_name]: [Arc<str>; 2] = ["red".into(), "blue".into()];
        let mut leaks = Leaks::new(wait, FullImports::default());
        let mut follow = |imports: &str| {
            let there = [(&red_name, &red), (&blue_name, &blue)].into_iter();
            leaks.follow(&config(imports), &own, there);
        };
        let route = || Some(LocalRoute { install: Some(FibKind::Blackhole), ..Default::default() });
        red.local(prefix, Source::Static, route());
        follow("import-vrf = [{ vrf = \"red\", policy = \"all\" }]\n");
        until(&blue, prefix, Some("red")).await;
        let restless = red.clone();
        let churn = tokio::spawn(async move {
            for turn in 0u32.. {
                for at in 0..512u32 {
                    let text = format!("10.{}.{}.0/24", at >> 8, at & 255);
                    let install = Some(FibKind::Blackhole);
                    let route = LocalRoute { metric: Some(turn), install, ..Default::default() };
                    restless.local(text.parse().unwrap(), Source::Static, Some(route));
                }
                restless.ask(|_, _| ()).await;
            }
        });
        until(&blue, "10.0.0.0/24".parse().unwrap(), Some("red")).await;
        follow("");
        until(&blue, prefix, None).await;
        churn.abort();
        drop(leaks);
        engines.into_iter().for_each(Engine::stop);
    }

    #[test]
    fn the_first_vrf_of_the_list_has_a_prefix() {
        let prefix: Prefix = "203.0.113.0/24".parse().unwrap();
        let [red, green]: [Vrf; 2] = ["red", "green"].map(|name| Some(name.into()));
        let rank = |vrf: &Vrf| [&red, &green].iter().position(|known| *known == vrf);
        let mut held = Held::default();
        let mut decide = |from: &Vrf, route| held.decide(prefix, from, route, 1, rank);
        assert_eq!(decide(&green, None), Step::Leave, "it was never imported");
        assert!(matches!(decide(&green, route("green")), Step::Set(_)));
        assert!(matches!(decide(&red, route("red")), Step::Set(_)), "red precedes green");
        assert_eq!(decide(&green, route("green")), Step::Leave);
        assert_eq!(decide(&green, None), Step::Leave, "it is not green's");
        assert_eq!(decide(&red, None), Step::Withdraw);
        assert!(matches!(decide(&green, route("green")), Step::Set(_)));
        let other: Prefix = "198.51.100.0/24".parse().unwrap();
        assert_eq!(held.decide(other, &green, route("green"), 1, rank), Step::Full);
        assert_eq!(held.decide(prefix, &green, None, 1, rank), Step::Withdraw);
        assert!(matches!(held.decide(other, &green, route("green"), 1, rank), Step::Set(_)));
        assert_eq!(held.leave(|from| *from == green), [other]);
        assert!(held.0.is_empty());
    }
}
