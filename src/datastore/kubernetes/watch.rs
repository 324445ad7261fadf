//! One watch, from its request to its end.

use std::pin::pin;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use super::api::{Answer, Dial};
use super::body::Lines;
use super::failure::Failure;
use super::heartbeat::{Beat, Mark};
use super::kind::{Follow, Goes, Next};
use super::known::is_older;
use super::past::Past;
use super::resource::Resource;
use crate::calico::model::Fault;

/// Requested duration of a watch, at random.
const LASTS: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(1200)];
/// How much longer the server may take to end the watch.
const LATE_MAX: Duration = Duration::from_secs(30);
/// After this long without the head of the response, a probe checks whether the server answers at
/// all: a proxy may hold back the head until the first event.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// After this long without an event or bookmark, a probe checks the history of the server.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// The same without an event of a Node, bookmarks or not: if the store is restored under a running
/// server, its watch cache stays as it was and bookmarks go on. Every kubelet writes its Node's
/// status every five minutes.
const NODES_SILENCE_MAX: Duration = Duration::from_secs(600);
/// Pause between two watches.
const PAUSE: Duration = Duration::from_millis(250);
/// A watch that ends within this time without an event has failed.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Minimum interval between lists of one of Calico's kinds because its watch ended before its
/// time: its CRD may have been replaced.
const EARLY_INTERVAL: Duration = Duration::from_secs(600);

/// A line of a watch.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bookmark {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

impl<D: Dial> Follow<'_, D> {
    /// Watches until the watch ends or something else has to be done first.
    ///
    /// A watch on another connection, or after one was cut off, is not trusted: small kinds are
    /// listed again; for large ones the next watch begins at the anchor, and a probe has to
    /// confirm it before the known objects count as current.
    pub(super) async fn watch(&mut self) -> Result<(), Failure> {
        let [least, most] = LASTS;
        let lasts = self.api.random.between(least, most);
        let Some(mut answer) = self.begin(lasts).await? else { return Ok(()) };
        let begun = Instant::now();
        if self.is_anew(answer.epoch) {
            drop(answer);
            if self.is_small() || self.anchor.version().is_none() {
                self.list_soon().await;
            } else {
                // The next watch begins at the anchor.
                self.is_in_doubt = true;
            }
            return Ok(());
        }
        if self.is_in_doubt {
            match self.probe().await? {
                Past::Same => {}
                Past::Differs => return Err(Failure::WentBack),
                Past::Unknown => {
                    drop(answer);
                    self.list_soon().await;
                    return Ok(());
                }
            }
        }
        self.set_in_force();
        let events = self.read(&mut answer, begun + lasts + LATE_MAX).await;
        let lasted = begun.elapsed();
        self.note_watched(lasted);
        let Ended { events, goes } = events?;
        if goes == Goes::Ends {
            return Ok(());
        }
        if lasted < AT_ONCE && events == 0 {
            return Err(Failure::EndedAtOnce);
        }
        let is_early = lasted < lasts.mul_f64(0.9);
        let is_due = self.early_list.is_none_or(|last| last.elapsed() >= EARLY_INTERVAL);
        if is_early && is_due && self.resource.is_calico() {
            debug!(resource = %self.resource, "the watch ended before its time: listing");
            self.early_list = Some(Instant::now());
            self.set_next(Next::List(self.not_older()));
        }
        sleep(PAUSE).await;
        Ok(())
    }

    /// Sends the request; returns the response once its head has arrived. `None`: the next step has
    /// been set to a list.
    async fn begin(&mut self, lasts: Duration) -> Result<Option<Answer>, Failure> {
        let anchor = self.anchor.version().filter(|_| self.is_in_doubt);
        let version = anchor.or(self.version.as_deref()).unwrap_or_default().to_owned();
        let request = self.place.watch(&version, lasts);
        let api = self.api;
        let mut asked = std::pin::pin!(api.request(&request, None));
        let answer = loop {
            // Concurrently, because the request may be what makes the connection.
            let late = async {
                sleep(HEAD_MAX).await;
                self.probe().await
            };
            tokio::select! {
                answer = asked.as_mut() => break answer?,
                past = late => {
                    if past? == Past::Differs {
                        return Err(Failure::WentBack);
                    }
                    if self.note_answer() {
                        // The request may never be answered.
                        self.set_next(Next::List(self.not_older()));
                        return Ok(None);
                    }
                }
            }
        };
        if answer.code == 200 { Ok(Some(answer)) } else { Err(answer.failure().await) }
    }

    /// Reads events until the end.
    async fn read(&mut self, answer: &mut Answer, until: Instant) -> Result<Ended, Failure> {
        let mut lines = Lines::default();
        let mut events = 0usize;
        let mut heard = Instant::now();
        let is_nodes = self.resource == Resource::Nodes;
        let silence_max = if is_nodes { NODES_SILENCE_MAX } else { SILENCE_MAX };
        // Reset when it fires, not with each event; when it fires early, nothing is due yet.
        let mut alarm = pin!(sleep_until(until.min(heard + silence_max)));
        loop {
            if let Some(due) = self.due()
                && due < alarm.deadline()
            {
                alarm.as_mut().reset(due);
            }
            let next = answer.next_until(alarm.as_mut()).await;
            let is_alarm = next.is_none();
            let mut now = Instant::now();
            match next.transpose()? {
                Some(None) => return Ok(Ended { events, goes: Goes::On }),
                Some(Some(octets)) => {
                    lines.push(&octets, |line| {
                        events += 1;
                        if self.event(line)? == News::Object || !is_nodes {
                            heard = now;
                        }
                        Ok(())
                    })?;
                    self.hub.heard(None);
                }
                None if now >= until => return Ok(Ended { events, goes: Goes::On }),
                None if now >= heard + silence_max => {
                    if self.probe().await? == Past::Differs {
                        return Err(Failure::WentBack);
                    }
                    // Unknown: the event of the change is on its way.
                    now = Instant::now();
                    heard = now;
                }
                None => {}
            }
            // Checked after events too, as they may arrive without a pause.
            if self.due().is_some_and(|due| due <= now) && self.act(now) == Goes::Ends {
                return Ok(Ended { events, goes: Goes::Ends });
            }
            if is_alarm {
                alarm.as_mut().reset(until.min(heard + silence_max));
            }
        }
    }

    /// Processes a heartbeat; `false`: the line is not one.
    fn beat(&mut self, line: &[u8], beat: &Beat<'_>, mark: Mark) -> Result<bool, Failure> {
        if !self.marks.has(mark) {
            return Ok(false);
        }
        self.note_version(beat.object.version())?;
        self.anchor.set(line, beat.object.version());
        Ok(true)
    }

    /// Processes an event.
    fn event(&mut self, line: &[u8]) -> Result<News, Failure> {
        let is_of_others = |beat: &Beat<'_>| beat.object.name() != self.node;
        let is_nodes = self.resource == Resource::Nodes;
        let beat = is_nodes.then(|| Beat::read(line)).flatten().filter(is_of_others);
        let mark = beat.as_ref().map(|beat| self.marks.mark(&beat.object));
        if let Some((beat, mark)) = beat.as_ref().zip(mark)
            && self.beat(line, beat, mark)?
        {
            return Ok(News::Object);
        }
        let event: Event<'_> =
            serde_json::from_slice(line).map_err(|_| Failure::not_kubernetes("a watch", line))?;
        let octets = event.object.get().as_bytes();
        match event.kind {
            "ADDED" | "MODIFIED" => match self.decode(octets) {
                Ok(Some(object)) => {
                    self.note_version(&object.version)?;
                    if !self.is_small() {
                        self.anchor.set(line, &object.version);
                    }
                    self.hub.put(&self.resource, object);
                    if let Some(mark) = mark {
                        self.marks.set(mark);
                    }
                }
                // The object may have concerned us before.
                Ok(None) => self.forget(octets)?,
                Err(fault) => self.skip(octets, &fault)?,
            },
            "DELETED" => {
                self.anchor.clear();
                self.forget(octets)?;
            }
            "BOOKMARK" => {
                self.note_version(&version_of(octets))?;
                return Ok(News::Bookmark);
            }
            "ERROR" => return Err(Failure::of_error_event(octets)),
            other => debug!(resource = %self.resource, "an event of type {other} is skipped"),
        }
        self.note_absence();
        Ok(News::Object)
    }

    /// Deletes an object if it is known.
    fn forget(&mut self, object: &[u8]) -> Result<(), Failure> {
        self.note_version(&version_of(object))?;
        match self.identify(object) {
            Ok(id) => {
                self.marks.forget(&id.name);
                let deletion = self.deletion();
                self.hub.delete(&self.resource, &id, deletion);
                if self.hub.with(&self.resource, |known| known.held()) > 0 {
                    self.note_deletion();
                }
                Ok(())
            }
            Err(fault) => self.skip(object, &fault),
        }
    }

    fn skip(&mut self, object: &[u8], fault: &Fault) -> Result<(), Failure> {
        debug!(resource = %self.resource, "an event is skipped: {fault}");
        self.note_version(&version_of(object))
    }

    fn note_version(&mut self, version: &str) -> Result<(), Failure> {
        let known = self.version.get_or_insert_default();
        if is_older(version, known) {
            return Err(Failure::WentBack);
        }
        if !version.is_empty() {
            version.clone_into(known);
        }
        Ok(())
    }
}

/// What an event was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Object,
    /// The version alone.
    Bookmark,
}

/// How a watch ended.
struct Ended {
    events: usize,
    /// `On`: another watch follows; `Ends`: the next step has been set.
    goes: Goes,
}

fn version_of(object: &[u8]) -> String {
    let read: Option<Bookmark> = serde_json::from_slice(object).ok();
    read.unwrap_or_default().metadata.resource_version
}
