//! Tests against a simulated etcd, in simulated time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::config::TlsFiles;
use super::super::store::Answer;
use super::*;
use crate::calico::model::{Decoded, ObjectId};
use crate::datastore::{Change, Receiver, outbox};

/// Members of one etcd.
#[derive(Clone, Default)]
struct World {
    inner: Arc<Mutex<Inner>>,
    /// Notified when anything changes.
    changed: Arc<Notify>,
}

struct Inner {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    revision: i64,
    compacted: i64,
    /// Key, value and revision of every change.
    history: Vec<(i64, Vec<u8>, Option<Vec<u8>>)>,
    /// By endpoint.
    members: BTreeMap<String, Member>,
    /// Connections of an earlier epoch are broken.
    epoch: u32,
    /// Maximum octets in a page.
    page_max: usize,
    /// Steps to take after the next answers to requests for keys, last element first.
    after_answer: Vec<Step>,
    attempts: Vec<(String, Instant)>,
    pages: Vec<Page>,
    progress_asked: usize,
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            values: BTreeMap::new(),
            revision: 1,
            compacted: 0,
            history: Vec::new(),
            members: BTreeMap::new(),
            epoch: 0,
            page_max: usize::MAX,
            after_answer: Vec::new(),
            attempts: Vec::new(),
            pages: Vec::new(),
            progress_asked: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Member {
    #[default]
    Up,
    Refusing,
    Frozen,
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Withdraw(u8),
    Compact,
    Break,
    Member(usize, Member),
    /// Restores the state of some changes ago: the revision goes back, and a different history
    /// follows.
    Restore(usize),
    Wait(u16),
}

fn key(name: u8) -> String {
    // Spread over all ranges.
    let plural = PLURALS[usize::from(name) % PLURALS.len()];
    format!("{RESOURCES}{plural}/n{name}")
}

fn value(number: u8) -> Vec<u8> {
    format!("{{\"metadata\":{{\"name\":\"x\",\"labels\":{{\"v\":\"{number}\"}}}}}}").into_bytes()
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn step(&self, step: &Step) {
        self.lock().apply(step);
        self.changed.notify_waiters();
    }
}

impl Inner {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Put(name, number) => self.write(key(name).into_bytes(), Some(value(number))),
            Step::Withdraw(name) => self.write(key(name).into_bytes(), None),
            Step::Compact => self.compacted = self.revision,
            Step::Break => self.epoch += 1,
            Step::Member(number, state) => {
                let member = self.members.values_mut().nth(number).unwrap();
                *member = state;
            }
            Step::Restore(back) => {
                let kept = self.history.len().saturating_sub(back);
                self.history.truncate(kept);
                self.revision = self.history.last().map_or(1, |(revision, ..)| *revision);
                self.compacted = self.compacted.min(self.revision);
                self.values.clear();
                for (_, key, value) in &self.history {
                    match value {
                        Some(value) => drop(self.values.insert(key.clone(), value.clone())),
                        None => drop(self.values.remove(key)),
                    }
                }
                self.epoch += 1;
            }
            Step::Wait(_) => {}
        }
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.revision += 1;
        match &value {
            Some(value) => drop(self.values.insert(key.clone(), value.clone())),
            None => drop(self.values.remove(&key)),
        }
        self.history.push((self.revision, key, value));
    }

    fn values_at(&self, revision: i64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut values = BTreeMap::new();
        for (_, key, value) in self.history.iter().filter(|(r, ..)| *r <= revision) {
            match value {
                Some(value) => drop(values.insert(key.clone(), value.clone())),
                None => drop(values.remove(key)),
            }
        }
        values
    }
}

impl Connect for World {
    type Store = Session;

    async fn connect(&mut self, endpoint: &str) -> Result<Session, Error> {
        let now = Instant::now();
        self.lock().attempts.push((endpoint.to_owned(), now));
        let epoch = self.lock().epoch;
        let session =
            Session { world: self.clone(), endpoint: endpoint.to_owned(), epoch, watch: None };
        session.reach().await?;
        Ok(session)
    }
}

struct Session {
    world: World,
    endpoint: String,
    epoch: u32,
    watch: Option<Watch>,
}

struct Watch {
    ranges: Vec<Range>,
    next: i64,
    begun: usize,
    asked: bool,
}

impl Session {
    async fn reach(&self) -> Result<(), Error> {
        loop {
            // Registered before the check, so that no change in between is missed.
            let changed = self.world.changed.notified();
            {
                let inner = self.world.lock();
                match inner.members[&self.endpoint] {
                    Member::Refusing => return Err(Error::Failed("connection refused".into())),
                    Member::Up if inner.epoch != self.epoch => {
                        return Err(Error::Failed("connection reset".into()));
                    }
                    Member::Up => return Ok(()),
                    Member::Frozen => {}
                }
            }
            changed.await;
        }
    }
}

impl Store for Session {
    async fn get(&mut self, page: &Page) -> Result<Answer, Error> {
        self.reach().await?;
        let mut inner = self.world.lock();
        inner.pages.push(page.clone());
        let revision = page.revision.unwrap_or(inner.revision);
        if revision < inner.compacted {
            return Err(Error::Compacted);
        }
        let range = page.range.start.clone()..page.range.end.clone();
        let all: Vec<_> =
            inner.values_at(revision).range(range).map(|(k, v)| (k.clone(), v.clone())).collect();
        let pairs: Vec<_> = all.iter().take(page.limit).cloned().collect();
        if pairs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > inner.page_max {
            return Err(Error::TooLarge);
        }
        let rest = if pairs.len() < all.len() { Rest::More } else { Rest::Nothing };
        let answer = Answer { revision: inner.revision, pairs, rest };
        if let Some(step) = inner.after_answer.pop() {
            inner.apply(&step);
        }
        Ok(answer)
    }

    async fn watch(&mut self, ranges: &[Range], from: i64) -> Result<(), Error> {
        self.reach().await?;
        self.watch = Some(Watch { ranges: ranges.to_vec(), next: from, begun: 0, asked: false });
        Ok(())
    }

    async fn request_progress(&mut self) -> Result<(), Error> {
        // A frozen member accepts the request but never answers.
        self.world.lock().progress_asked += 1;
        self.watch.as_mut().unwrap().asked = true;
        Ok(())
    }

    async fn message(&mut self) -> Result<Message, Error> {
        loop {
            let changed = Arc::clone(&self.world.changed);
            let changed = changed.notified();
            self.reach().await?;
            let watch = self.watch.as_mut().unwrap();
            {
                let inner = self.world.lock();
                let revision = inner.revision;
                if watch.begun < watch.ranges.len() {
                    watch.begun += 1;
                    return Ok(Message { revision, begun: 1, events: Vec::new() });
                }
                if watch.next <= inner.compacted && watch.next <= revision {
                    return Err(Error::Compacted);
                }
                let is_watched =
                    |key: &[u8]| watch.ranges.iter().any(|r| *r.start <= *key && *key < *r.end);
                let events: Vec<_> = inner
                    .history
                    .iter()
                    .filter(|(revision, key, _)| *revision >= watch.next && is_watched(key))
                    .map(|(_, key, value)| (key.clone(), value.clone()))
                    .collect();
                if !events.is_empty() || std::mem::take(&mut watch.asked) {
                    watch.next = revision + 1;
                    return Ok(Message { revision, begun: 0, events });
                }
            }
            changed.await;
        }
    }
}

/// A consumer and the objects that it has received.
struct Consumer {
    receiver: Receiver,
    known: BTreeMap<ObjectId, Decoded>,
    lists: usize,
    changes: usize,
    states: Vec<State>,
}

impl Consumer {
    fn read(&mut self) {
        while let Some(event) = self.receiver.try_recv() {
            match event {
                Event::Listed(objects) => {
                    self.lists += 1;
                    self.known = objects.into_iter().map(|o| (o.id.clone(), o)).collect();
                }
                Event::Changed(changes) => {
                    self.changes += changes.len();
                    for change in changes {
                        match change {
                            Change::Put(object) => {
                                drop(self.known.insert(object.id.clone(), object))
                            }
                            Change::Withdraw(id) => drop(self.known.remove(&id)),
                        }
                    }
                }
                Event::Problems(problems) => panic!("{problems:?}"),
                Event::State(state) => self.states.push(state),
            }
        }
    }

    fn reason(&self) -> &str {
        match self.states.last() {
            Some(State::Away { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn is_current(&self) -> bool {
        matches!(self.states.last(), Some(State::Current))
    }
}

fn world(members: usize) -> World {
    let world = World::default();
    let members = (0..members).map(|n| (format!("http://m{n}"), Member::Up)).collect();
    world.lock().members = members;
    world
}

fn follow_world(world: &World) -> (Consumer, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = outbox();
    let config = EtcdConfig {
        endpoints: world.lock().members.keys().cloned().collect(),
        tls: TlsFiles::default(),
        user: None,
        blocks: Blocks::Affinities { node: "me".into() },
        timings: Timings::default(),
    };
    let world = world.clone();
    let task = tokio::spawn(async move {
        // Starts with the first endpoint, with the shortest pauses.
        follow(&config, world, || 0, &sender).await;
    });
    let consumer =
        Consumer { receiver, known: BTreeMap::new(), lists: 0, changes: 0, states: Vec::new() };
    (consumer, task)
}

async fn settle(consumer: &mut Consumer, seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
    consumer.read();
}

/// The objects that a new consumer receives.
async fn fresh(world: &World) -> BTreeMap<ObjectId, Decoded> {
    let (mut consumer, _task) = follow_world(world);
    settle(&mut consumer, 60).await;
    assert!(consumer.is_current());
    consumer.known
}

#[test]
fn the_ranges_are_those_of_bgp() {
    let text = |blocks| -> Vec<String> {
        let name = |r: Range| format!("{}..{}", r.start.escape_ascii(), r.end.escape_ascii());
        ranges(&blocks).into_iter().map(name).collect()
    };
    let own = text(Blocks::Affinities { node: "me".into() });
    assert_eq!(own.len(), 8);
    assert_eq!(own[2], format!("{RESOURCES}nodes/..{RESOURCES}nodes0"));
    assert_eq!(own[7], "/calico/ipam/v2/host/me/../calico/ipam/v2/host/me0");
    assert_eq!(text(Blocks::PodCidrs), own[..7]);
    let all = text(Blocks::OfAllNodes);
    assert_eq!(all[7], "/calico/ipam/v2/host/../calico/ipam/v2/host0");
}

#[tokio::test(start_paused = true)]
async fn a_list_is_of_one_revision_though_keys_change_meanwhile() {
    let world = world(1);
    for n in 0..40 {
        world.step(&Step::Put(n, 1));
    }
    // Pages hold one or two keys.
    world.lock().page_max = 250;
    world.lock().after_answer = vec![Step::Put(0, 9), Step::Withdraw(39), Step::Put(0, 8)];
    let (mut consumer, _task) = follow_world(&world);
    settle(&mut consumer, 1).await;
    assert_eq!(consumer.lists, 1);
    assert_eq!(consumer.known, fresh(&world).await);
    let inner = world.lock();
    let pinned = inner.pages.iter().filter(|p| p.revision == Some(41)).count();
    assert!(pinned > 20, "{pinned} of {}", inner.pages.len());
}

#[tokio::test(start_paused = true)]
async fn changes_are_sent_as_they_happen_and_a_new_list_sends_only_differences() {
    let world = world(1);
    for n in 0..20 {
        world.step(&Step::Put(n, 1));
    }
    let (mut consumer, _task) = follow_world(&world);
    settle(&mut consumer, 1).await;
    assert!(consumer.is_current() && consumer.known.len() == 20);
    world.step(&Step::Withdraw(3));
    settle(&mut consumer, 1).await;
    assert_eq!((consumer.changes, consumer.known.len()), (1, 19));
    world.step(&Step::Member(0, Member::Refusing));
    world.step(&Step::Break);
    world.step(&Step::Put(3, 7));
    settle(&mut consumer, 100).await;
    assert_eq!(consumer.reason(), "http://m0: connection refused");
    assert_eq!((consumer.changes, consumer.known.len()), (1, 19), "the state stays in force");
    let State::Away { since, .. } = consumer.states.last().unwrap() else { unreachable!() };
    let away = Instant::now().into_std().duration_since(*since);
    assert!(away >= Duration::from_secs(99), "{away:?}");
    world.step(&Step::Member(0, Member::Up));
    settle(&mut consumer, 20).await;
    assert!(consumer.is_current());
    assert_eq!((consumer.lists, consumer.changes), (1, 2));
}

/// etcd restarts every few seconds, and each time it is listed and followed again.
#[tokio::test(start_paused = true)]
async fn an_etcd_that_restarts_often_is_followed_again_at_once() {
    let world = world(1);
    let (mut consumer, _task) = follow_world(&world);
    settle(&mut consumer, 1).await;
    for round in 0..12u8 {
        world.step(&Step::Break);
        world.step(&Step::Put(1, 1 + round));
        settle(&mut consumer, 1).await;
        assert!(consumer.is_current(), "round {round}");
        assert_eq!(consumer.changes, usize::from(round) + 1);
        settle(&mut consumer, 3).await;
    }
    // After a long outage, consecutive failures slow the attempts down to one every five seconds.
    world.step(&Step::Member(0, Member::Refusing));
    world.step(&Step::Break);
    settle(&mut consumer, 600).await;
    world.step(&Step::Member(0, Member::Up));
    settle(&mut consumer, 6).await;
    assert!(consumer.is_current());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_member_is_detected_and_the_next_one_used() {
    let world = world(2);
    world.step(&Step::Put(1, 1));
    let (mut consumer, _task) = follow_world(&world);
    settle(&mut consumer, 600).await;
    assert_eq!(world.lock().attempts.len(), 1, "{:?}", consumer.states);
    assert!(world.lock().progress_asked > 100);
    world.step(&Step::Member(0, Member::Frozen));
    world.step(&Step::Put(2, 1));
    settle(&mut consumer, 9).await;
    assert_eq!((consumer.known.len(), consumer.states.len()), (1, 1));
    settle(&mut consumer, 10).await;
    assert_eq!(consumer.known.len(), 2);
    assert!(consumer.is_current());
    // The next one is tried at once, without waiting for the event to be read.
    let took: Vec<String> = world.lock().attempts.iter().map(|(to, _)| to.clone()).collect();
    assert_eq!(took, ["http://m0", "http://m1"]);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_member_does_not_hold_up_the_first_list() {
    let world = world(2);
    world.step(&Step::Member(0, Member::Frozen));
    world.step(&Step::Put(2, 1));
    let (mut consumer, _task) = follow_world(&world);
    settle(&mut consumer, 5).await;
    assert_eq!(consumer.lists, 0);
    settle(&mut consumer, 10).await;
    assert_eq!((consumer.lists, consumer.known.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn compaction_causes_a_new_list_without_loss() {
    let world = world(1);
    world.step(&Step::Put(1, 1));
    world.lock().page_max = 120;
    world.step(&Step::Put(6, 1));
    // Compaction in the middle of a list.
    world.lock().after_answer = vec![Step::Compact, Step::Put(2, 2), Step::Put(3, 3)];
    let (mut consumer, _task) = follow_world(&world);
    settle(&mut consumer, 2).await;
    assert!(consumer.is_current());
    assert_eq!(consumer.known.len(), 4);
    assert!(consumer.states.iter().all(|s| matches!(s, State::Current)));
    assert_eq!(world.lock().attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_at_a_dead_etcd_are_spaced_and_never_end() {
    let world = world(2);
    world.step(&Step::Member(0, Member::Refusing));
    world.step(&Step::Member(1, Member::Refusing));
    let (mut consumer, _task) = follow_world(&world);
    settle(&mut consumer, 3600).await;
    let times: Vec<Instant> = world.lock().attempts.iter().map(|(_, at)| *at).collect();
    let gaps: Vec<u128> = times.windows(2).map(|t| t[1].duration_since(t[0]).as_millis()).collect();
    assert_eq!(gaps[..8], [125, 125, 250, 250, 500, 500, 1000, 1000]);
    assert_eq!(gaps[30..].iter().max(), Some(&2500));
    world.step(&Step::Member(1, Member::Up));
    settle(&mut consumer, 20).await;
    assert!(consumer.is_current());
}

#[tokio::test(start_paused = true)]
async fn without_a_consumer_nothing_is_followed() {
    for state in [Member::Up, Member::Frozen, Member::Refusing] {
        let world = world(1);
        world.step(&Step::Member(0, state));
        let (mut consumer, task) = follow_world(&world);
        settle(&mut consumer, 7).await;
        assert!(!task.is_finished());
        drop(consumer);
        sleep(Duration::from_millis(1)).await;
        assert!(task.is_finished(), "{state:?}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![Just(Member::Up), Just(Member::Refusing), Just(Member::Frozen)];
    prop_oneof![
        8 => (0u8..12, 0u8..4).prop_map(|(name, number)| Step::Put(name, number)),
        3 => (0u8..12).prop_map(Step::Withdraw),
        1 => Just(Step::Compact),
        1 => Just(Step::Break),
        2 => (0usize..2, state).prop_map(|(member, state)| Step::Member(member, state)),
        1 => (0usize..10).prop_map(Step::Restore),
        3 => (0u16..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to etcd: once it has recovered, the consumer knows the same as one that
    /// starts afresh, and has received exactly one list.
    #[test]
    fn after_healing_the_result_equals_a_fresh_start(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let world = world(2);
            world.lock().page_max = 300;
            let (mut consumer, _task) = follow_world(&world);
            for step in &steps {
                if let Step::Wait(hundredths) = step {
                    sleep(Duration::from_millis(u64::from(*hundredths) * 10)).await;
                    consumer.read();
                }
                world.step(step);
            }
            world.step(&Step::Member(0, Member::Up));
            world.step(&Step::Member(1, Member::Up));
            settle(&mut consumer, 60).await;
            prop_assert!(consumer.is_current(), "{:?}", consumer.states);
            prop_assert_eq!(consumer.lists, 1);
            let fresh = fresh(&world).await;
            prop_assert_eq!(consumer.known, fresh);
            Ok(())
        })?;
    }
}
