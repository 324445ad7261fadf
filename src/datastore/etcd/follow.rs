//! List, watch, and list again after any gap.
//!
//! A broken watch is never resumed at its last revision: after a restore from a backup, revisions
//! restart lower and pass the old ones, and nothing in etcd's answers shows that the history is a
//! different one. A list costs etcd little; because it is compared with [`Known`], consumers see
//! only differences; and random pauses spread the lists of many nodes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::config::{Blocks, EtcdConfig, Timings};
use super::known::{Known, Listing};
use super::store::{Connect, Error, Message, Page, Range, Rest, Store};
use crate::datastore::backoff;
use crate::datastore::{Event, Sender, State};

/// Initial number of keys per page.
const PAGE: usize = 500;

/// Maximum of the random delay before the first attempt after a working connection was lost: many
/// nodes lose one etcd at the same moment.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Where Calico keeps its resources.
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";

/// The kinds of resources that BGP reads.
const PLURALS: [&str; 7] = [
    "ippools",
    "bgpconfigurations",
    "nodes",
    "bgppeers",
    "bgpfilters",
    "clusterinformations",
    "felixconfigurations",
];

/// The ranges of keys that BGP reads.
pub(super) fn ranges(blocks: &Blocks) -> Vec<Range> {
    let mut prefixes: Vec<String> =
        PLURALS.iter().map(|plural| format!("{RESOURCES}{plural}/")).collect();
    match blocks {
        Blocks::Affinities { node } => prefixes.push(format!("/calico/ipam/v2/host/{node}/")),
        Blocks::OfAllNodes => prefixes.push("/calico/ipam/v2/host/".to_owned()),
        Blocks::PodCidrs => {}
    }
    prefixes.iter().map(|prefix| Range::of_prefix(prefix)).collect()
}

/// Follows etcd until the receiver is dropped. `random` supplies the jitter.
pub(super) async fn follow<C: Connect>(
    config: &EtcdConfig,
    connect: C,
    random: impl FnMut() -> u32,
    sender: &Sender,
) {
    let follower = Follower {
        connect,
        random,
        sender,
        timings: config.timings,
        ranges: ranges(&config.blocks),
        known: Known::default(),
        revision: 0,
        was_current: None,
        away_since: None,
        last_reason: None,
        last_list: None,
    };
    tokio::select! {
        () = follower.run(&config.endpoints) => {}
        () = sender.closed() => {}
    }
}

/// Marks a connection that has listed and follows changes.
struct Followed;

struct Follower<'a, C, R> {
    connect: C,
    random: R,
    sender: &'a Sender,
    timings: Timings,
    ranges: Vec<Range>,
    known: Known,
    /// Revision of the last list; 0: none yet.
    revision: i64,
    /// Set once the current connection follows changes.
    was_current: Option<Followed>,
    away_since: Option<Instant>,
    last_reason: Option<Arc<str>>,
    last_list: Option<Instant>,
}

impl<C: Connect, R: FnMut() -> u32> Follower<'_, C, R> {
    /// Tries the endpoints in turn, starting with a random one.
    async fn run(mut self, endpoints: &[String]) {
        let start = (self.random)() as usize;
        let mut failures = 0u32;
        for endpoint in endpoints.iter().cycle().skip(start % endpoints.len().max(1)) {
            let error = match self.follow_endpoint(endpoint).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // A connection that listed and followed changes resets the back-off, however short it
            // was: only consecutive failures increase it.
            let was_good = self.was_current.take().is_some();
            failures = if was_good { 0 } else { failures.saturating_add(1) };
            self.report_unavailable(endpoint, &error);
            let Timings { pause, pause_max, .. } = self.timings;
            let random = (self.random)();
            let pause = match failures {
                0 => AT_ONCE.mul_f64(f64::from(random) / f64::from(u32::MAX)),
                _ => backoff::pause(pause, pause_max, failures, endpoints.len(), random),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Lists and watches for as long as the endpoint answers.
    async fn follow_endpoint(&mut self, endpoint: &str) -> Result<Infallible, Error> {
        let connect = self.connect.connect(endpoint);
        let mut store = within(self.timings.answer_max, "connecting", connect).await?;
        loop {
            self.wait_for_list().await;
            match self.list_and_watch(endpoint, &mut store).await {
                Ok(never) => match never {},
                Err(Error::Compacted) => info!(endpoint, "etcd was compacted: listing again"),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until `list_interval` has passed since the last list.
    async fn wait_for_list(&mut self) {
        if let Some(last) = self.last_list {
            sleep_until(last + self.timings.list_interval).await;
        }
        self.last_list = Some(Instant::now());
    }

    async fn list_and_watch(
        &mut self,
        endpoint: &str,
        store: &mut C::Store,
    ) -> Result<Infallible, Error> {
        let (revision, listing) = self.list(store).await?;
        if revision < self.revision {
            info!(endpoint, from = self.revision, to = revision, "etcd's revision went back");
        }
        self.revision = revision;
        for event in self.known.apply(listing) {
            self.sender.send(event);
        }
        self.sender.heard(Some(revision));
        let answer_max = self.timings.answer_max;
        let watch = store.watch(&self.ranges, revision.saturating_add(1));
        within(answer_max, "asking to watch", watch).await?;
        let mut begun = 0;
        while begun < self.ranges.len() {
            let message = within(answer_max, "asking to watch", store.message()).await?;
            begun += message.begun;
            self.apply(message)?;
        }
        self.report_current(endpoint);
        self.watch(store).await
    }

    /// Reads everything at the revision of the first page.
    async fn list(&mut self, store: &mut C::Store) -> Result<(i64, Listing), Error> {
        let mut listing = Listing::default();
        let mut revision = None;
        let mut limit = PAGE;
        for range in &self.ranges {
            let mut page = Page { range: range.clone(), revision, limit };
            loop {
                page.limit = limit;
                let get = within(self.timings.answer_max, "reading keys", store.get(&page));
                let answer = match get.await {
                    // The objects are large: request fewer per page.
                    Err(Error::TooLarge) if limit > 1 => {
                        limit /= 2;
                        continue;
                    }
                    answer => answer?,
                };
                revision.get_or_insert(answer.revision);
                page.revision = revision;
                for (key, value) in &answer.pairs {
                    self.known.list(&mut listing, key, value);
                }
                match (answer.rest, answer.pairs.into_iter().next_back()) {
                    (Rest::More, Some((mut last, _))) => {
                        last.push(0);
                        page.range.start = last;
                    }
                    _ => break,
                }
            }
        }
        Ok((revision.unwrap_or_default(), listing))
    }

    /// Reads messages, and requests one when none arrive.
    async fn watch(&mut self, store: &mut C::Store) -> Result<Infallible, Error> {
        let Timings { ask_after, silence_max, answer_max, .. } = self.timings;
        let mut heard = Instant::now();
        loop {
            match timeout(ask_after, store.message()).await {
                Ok(message) => {
                    heard = Instant::now();
                    self.apply(message?)?;
                }
                Err(_) if heard.elapsed() >= silence_max => {
                    return Err(Error::Silent(silence_max, "watching"));
                }
                Err(_) => {
                    let ask = store.request_progress();
                    within(answer_max, "asking for progress", ask).await?;
                }
            }
        }
    }

    fn apply(&mut self, message: Message) -> Result<(), Error> {
        if message.revision < self.revision {
            let (old, new) = (self.revision, message.revision);
            return Err(Error::Failed(format!("the revision went back from {old} to {new}")));
        }
        for (key, value) in message.events {
            let event = match value {
                Some(value) => self.known.put(&key, &value),
                None => self.known.withdraw(&key),
            };
            event.into_iter().for_each(|event| self.sender.send(event));
        }
        self.sender.heard(Some(message.revision));
        Ok(())
    }

    fn report_current(&mut self, endpoint: &str) {
        self.was_current = Some(Followed);
        self.away_since = None;
        self.last_reason = None;
        debug!(endpoint, revision = self.revision, objects = self.known.len(), "etcd is in sync");
        self.sender.send(Event::State(State::Current));
    }

    fn report_unavailable(&mut self, endpoint: &str, error: &Error) {
        let since = *self.away_since.get_or_insert_with(Instant::now);
        let reason: Arc<str> = format!("{endpoint}: {error}").into();
        if self.last_reason.as_ref() == Some(&reason) {
            debug!(%reason, "etcd is still unavailable");
        } else {
            debug!(%reason, "etcd is unavailable; keeping the last known objects");
        }
        self.last_reason = Some(Arc::clone(&reason));
        self.sender.send(Event::State(State::Away { since: since.into_std(), reason }));
    }
}

/// Limits a wait; the error names what was waited for.
async fn within<T>(
    most: Duration,
    what: &'static str,
    wait: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(most, wait).await.unwrap_or(Err(Error::Silent(most, what)))
}

#[cfg(test)]
mod tests;
