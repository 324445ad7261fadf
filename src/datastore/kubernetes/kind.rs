//! Following one kind: list, watch from there, watch again where the last one ended, and list after
//! any doubt.
//!
//! A doubt is: a version that is not kept any more (410) or went back; a new connection, because the
//! server may have been restored from a backup meanwhile; a watch that ended before its time. Small
//! kinds are listed then; of kinds with thousands of objects one is asked for ([`super::past`]).

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::affinities::Affinities;
use super::api::{Api, Dial, Epoch, Span};
use super::failure::Failure;
use super::heartbeat::{Mark, Marks, Node};
use super::hub::{Hub, OfGroup, Standing};
use super::known::{Deletion, Listing, is_older};
use super::list;
use super::own_node::{self, OwnNode};
use super::pace;
use super::past::Anchor;
use super::resource::{From, Gate, Place, Resource, Size};
use crate::calico::Problem;
use crate::calico::model::{ApiObject, Fault, Kind, ObjectId, decode_api, decode_api_node};

/// Least time between two lists of a kind.
const LIST_INTERVAL: Duration = Duration::from_millis(500);
/// Deletions of Calico's kinds are sent after this long without a further one.
const HOLD: Duration = Duration::from_secs(3);
/// The same where the kind was not served for a while: its objects may come back one by one.
const HOLD_AFTER_MISSING: Duration = Duration::from_secs(30);
/// Within this long all of Calico's CRDs are installed.
const INSTALLING: Duration = Duration::from_secs(5);
/// Deletions are held this long at most while others follow.
const HOLD_MAX: Duration = Duration::from_secs(30);
/// A watch that lasted so long counts as good, and the backoff starts over.
const GOOD_AFTER: Duration = Duration::from_secs(60);
/// Lists that only serve to find what watches missed are this far apart, at random.
const RESYNC: [Duration; 2] = [Duration::from_secs(6 * 3600), Duration::from_secs(12 * 3600)];
/// So many times 429 or a watch that ends at once are no reason to call a kind unreadable.
const PATIENCE: u32 = 3;
/// So many times "too large" before it is believed.
const TOO_LARGE_MAX: u32 = 3;
/// A kind of which only services or passwords depend does not hold up BGP so long after it was
/// refused. A server that just started refuses some requests wrongly.
const EXCUSED_AFTER: Duration = Duration::from_secs(5);

/// One kind that is followed.
pub(super) struct Follow<'a, D> {
    pub(super) api: &'a Api<D>,
    pub(super) hub: &'a Hub,
    pub(super) resource: Resource,
    /// Where it is listed and watched.
    pub(super) place: Place,
    /// The same as long as the server takes every parameter.
    original: Place,
    /// The own node's name.
    pub(super) node: String,
    /// With `USE_POD_CIDR` the own Node is followed by itself.
    pub(super) is_own_apart: bool,
    pub(super) affinities: Option<Affinities>,
    own: OwnNode,
    /// The last version received.
    pub(super) version: Option<String>,
    /// The connection on which it was listed last.
    pub(super) epoch: Option<Epoch>,
    next: Next,
    failures: u32,
    /// The last failure in a word, and how many of it came in a row.
    last_failure: (&'static str, u32),
    too_large: u32,
    last_list: Option<Instant>,
    hold: Option<Hold>,
    /// The held deletions are sent if the next list confirms them.
    is_confirming: bool,
    was_missing: bool,
    resync_at: Option<Instant>,
    /// The next list serves to find what watches missed, and nothing else.
    is_resync: bool,
    /// An early end of a watch was followed by a list then.
    pub(super) early_list: Option<Instant>,
    refused_since: Option<Instant>,
    /// The last event, of kinds that are not listed after every doubt.
    pub(super) anchor: Anchor,
    /// What was last seen of each Node.
    pub(super) marks: Marks,
    /// Nothing is in force before a probe was answered.
    pub(super) is_in_doubt: bool,
    /// A watch was cut off.
    was_lost: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    List(From),
    Watch,
}

/// Since when deletions are held.
#[derive(Clone, Copy, Debug)]
struct Hold {
    first: Instant,
    last: Instant,
    quiet: Duration,
}

impl<'a, D: Dial> Follow<'a, D> {
    pub(super) fn new(
        api: &'a Api<D>,
        hub: &'a Hub,
        resource: Resource,
        place: Place,
        node: &str,
    ) -> Self {
        let affinities =
            (resource == Resource::BlockAffinities).then(|| Affinities::new(&place, node));
        Follow {
            api,
            hub,
            resource,
            original: place.clone(),
            place,
            node: node.to_owned(),
            is_own_apart: false,
            affinities,
            own: OwnNode::default(),
            version: None,
            epoch: None,
            next: Next::List(From::Any),
            failures: 0,
            last_failure: ("", 0),
            too_large: 0,
            last_list: None,
            hold: None,
            is_confirming: false,
            was_missing: false,
            resync_at: None,
            is_resync: false,
            early_list: None,
            refused_since: None,
            anchor: Anchor::default(),
            marks: Marks::default(),
            is_in_doubt: false,
            was_lost: false,
        }
    }

    /// Follows until the future is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let done = match self.next.clone() {
                Next::List(from) => self.list(&from).await,
                Next::Watch if self.api.span == Span::Once => std::future::pending().await,
                Next::Watch => self.watch().await,
            };
            if let Err(failure) = done {
                self.after_failure(failure).await;
            }
        }
    }

    /// Lists, and tells what differs.
    async fn list(&mut self, from: &From) -> Result<(), Failure> {
        if let Some(last) = self.last_list {
            sleep_until(last + LIST_INTERVAL).await;
        }
        self.last_list = Some(Instant::now());
        let permit = self.api.list_permit().await;
        let mut listing = Listing::default();
        let read = if self.affinities.is_some() {
            self.read_affinities(from, &mut listing).await?
        } else {
            self.read_into(&self.place.clone(), from, &mut listing).await?
        };
        drop(permit);
        if *from == From::Newest && self.version.is_some() {
            self.note_newest_list(&read).await?;
        } else {
            self.version = Some(read.version.clone());
        }
        self.epoch = Some(read.epoch);
        self.was_lost = false;
        self.is_in_doubt = false;
        self.anchor.clear();
        self.marks.replace(std::mem::take(&mut listing.marks));
        self.too_large = 0;
        debug!(resource = %self.resource, version = read.version, objects = listing.len(), "listed");
        self.take_list(listing);
        let is_nodes = self.resource == Resource::Nodes;
        self.hub.heard(is_nodes.then(|| read.version.parse().ok()).flatten());
        self.next = Next::Watch;
        let [least, most] = RESYNC;
        self.resync_at = Some(Instant::now() + self.api.random.between(least, most));
        Ok(())
    }

    /// Takes a complete list in.
    fn take_list(&mut self, listing: Listing) {
        let deletion = self.deletion();
        let changes = self.hub.listed(&self.resource, listing, deletion);
        if std::mem::take(&mut self.is_resync) && changes > 0 {
            warn!(
                resource = %self.resource, changes,
                "the API server had not told of changes that its list has: the list of every 6 to 12 \
                 hours found them"
            );
        }
        self.set_in_force();
        let held = self.hub.with(&self.resource, |known| known.held());
        if held == 0 {
            self.hold = None;
        } else if self.is_confirming {
            self.hub.release(&self.resource);
            self.hold = None;
        } else {
            self.note_deletion();
        }
        self.is_confirming = false;
        self.was_missing = false;
    }

    /// After a version that the server did not know: was the store restored from a backup, or is the
    /// server behind?
    ///
    /// With an etcd that is too old for it, a list of what etcd has names a version that this kind
    /// does not reach until it changes; a watch must begin at what the server has at hand.
    async fn note_newest_list(&mut self, read: &list::Read) -> Result<(), Failure> {
        if is_older(&read.version, self.version.as_deref().unwrap_or_default()) {
            let (from, to) = (self.version.as_deref().unwrap_or_default(), &read.version);
            warn!(
                resource = %self.resource, from, to,
                "the Kubernetes API went back to an older version: restored from a backup"
            );
        }
        let at_hand = list::read(self.api, &self.place, &From::Any, |_| {}).await?;
        let is_behind = is_older(&at_hand.version, &read.version);
        let version = if is_behind { &at_hand.version } else { &read.version };
        self.version = Some(version.clone());
        Ok(())
    }

    /// Reads a list of objects that concern us.
    pub(super) async fn read_into(
        &mut self,
        place: &Place,
        from: &From,
        listing: &mut Listing,
    ) -> Result<list::Read, Failure> {
        let api = self.api;
        list::read(api, place, from, |item| match self.decode(item) {
            Ok(Some(object)) => {
                listing.marks.extend(self.mark(item));
                self.hub.list(&self.resource, listing, object);
            }
            Ok(None) => {}
            Err(fault) => listing.faults.push(fault),
        })
        .await
    }

    /// What is to be kept of an item of a list. Of the own Node nothing: what it is depends on more.
    fn mark(&self, item: &[u8]) -> Option<Mark> {
        let node = (self.resource == Resource::Nodes).then(|| Node::read(item)).flatten()?;
        (node.name() != self.node).then(|| self.marks.mark(&node))
    }

    /// Reads an object; `None`: it does not concern us.
    pub(super) fn decode(&mut self, octets: &[u8]) -> Result<Option<ApiObject>, Fault> {
        let object = match self.resource {
            Resource::Nodes => decode_api_node(octets)?,
            _ => decode_api(self.resource.kind(), octets)?,
        };
        if object.decoded.id.kind == Kind::KubernetesNode && object.decoded.id.name == self.node {
            if self.is_own_apart && self.resource == Resource::Nodes {
                return Ok(None);
            }
            let object = self.own.apply(object, Instant::now(), own_node::is_local);
            self.hub.set_note("own-node", self.own.problem());
            return Ok(Some(object));
        }
        let is_foreign = self.affinities.as_ref().is_some_and(|own| !own.concerns(&object.decoded));
        Ok((!is_foreign).then_some(object))
    }

    /// Which object it is.
    pub(super) fn identify(&self, octets: &[u8]) -> Result<ObjectId, Fault> {
        let object = match self.resource {
            Resource::Nodes => decode_api_node(octets)?,
            _ => decode_api(self.resource.kind(), octets)?,
        };
        Ok(object.decoded.id)
    }

    /// The own Node is what the server says it is, however bare.
    pub(super) fn give_up_own(&mut self) {
        if let Some(object) = self.own.give_up() {
            self.hub.put(&self.resource, object);
        }
        self.hub.set_note("own-node", None);
    }

    /// What becomes of objects that the server does not have any more.
    pub(super) fn deletion(&self) -> Deletion {
        if self.resource.is_calico() { Deletion::Held } else { Deletion::Told }
    }

    /// A deletion is held.
    pub(super) fn note_deletion(&mut self) {
        if self.deletion() == Deletion::Told {
            return;
        }
        let now = Instant::now();
        let quiet = if self.was_missing { HOLD_AFTER_MISSING } else { HOLD };
        self.hold = Some(match self.hold {
            Some(hold) => Hold { last: now, ..hold },
            None => Hold { first: now, last: now, quiet },
        });
    }

    fn hold_due(&self) -> Option<Instant> {
        self.hold.map(|hold| (hold.last + hold.quiet).min(hold.first + HOLD_MAX.max(hold.quiet)))
    }

    /// What is due by itself while a watch goes on.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.hold_due(), self.own.due(), self.resync_at].into_iter().flatten().min()
    }

    /// Does what is due; whether the watch goes on.
    pub(super) fn act(&mut self, now: Instant) -> Goes {
        if self.own.due().is_some_and(|due| due <= now) {
            self.give_up_own();
        }
        if self.hold_due().is_some_and(|due| due <= now) {
            self.hold = None;
            let (held, is_emptying) =
                self.hub.with(&self.resource, |known| (known.held(), known.is_emptying()));
            if held > 0 && is_emptying {
                debug!(resource = %self.resource, held, "most objects were deleted: listing");
                self.is_confirming = true;
                self.next = Next::List(self.not_older());
                return Goes::Ends;
            }
            self.hub.release(&self.resource);
        }
        if self.resync_at.is_some_and(|due| due <= now) {
            self.resync_at = None;
            self.is_resync = true;
            self.next = Next::List(self.not_older());
            return Goes::Ends;
        }
        Goes::On
    }

    /// At least what is known.
    pub(super) fn not_older(&self) -> From {
        self.version.clone().map_or(From::Any, From::NotOlderThan)
    }

    pub(super) fn set_in_force(&mut self) {
        self.hub.set_standing(&self.resource, Standing::InForce);
        self.refused_since = None;
        if let Resource::Secret(_) = self.resource {
            self.note_absence();
        } else {
            self.hub.set_problem(&self.resource, None);
        }
    }

    /// Says whether the Secret is there.
    pub(super) fn note_absence(&self) {
        let Resource::Secret(name) = &self.resource else { return };
        let is_absent = self.hub.with(&self.resource, |known| known.len() == 0);
        let text = "there is no Secret of this name: a session that needs it has no password";
        let problem = is_absent.then(|| Problem::new(format!("Secret/{name}"), text));
        self.hub.set_problem(&self.resource, problem);
    }

    /// A watch was in force for so long.
    pub(super) fn note_watched(&mut self, lasted: Duration) {
        if lasted >= GOOD_AFTER {
            self.failures = 0;
        }
    }

    /// Whether a watch goes on where another one was cut off, or on another connection. Whatever the
    /// server before did not know may be known to this one.
    pub(super) fn is_anew(&mut self, epoch: Epoch) -> bool {
        let is_anew = self.was_lost || self.epoch.is_some_and(|known| known != epoch);
        if is_anew {
            self.epoch = Some(epoch);
            self.was_lost = false;
            self.place = self.original.clone();
        }
        is_anew
    }

    pub(super) fn set_next(&mut self, next: Next) {
        self.next = next;
    }

    /// Lists at a moment within a few seconds: every node may have the same reason.
    pub(super) async fn list_soon(&mut self) {
        self.next = Next::List(self.not_older());
        sleep(pace::spread(&self.api.random)).await;
    }

    /// The server answers again, whatever became of the watch that waits for its head; whether that
    /// is news.
    pub(super) fn note_answer(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    pub(super) fn is_small(&self) -> bool {
        self.place.size == Size::Small
    }

    /// Says what failed, waits, and decides what comes next.
    async fn after_failure(&mut self, failure: Failure) {
        self.failures = self.failures.saturating_add(1);
        self.is_resync = false;
        let alike = match self.last_failure {
            (name, count) if name == failure.name() && self.failures > 1 => count.saturating_add(1),
            _ => 1,
        };
        self.last_failure = (failure.name(), alike);
        debug!(resource = %self.resource, failures = self.failures, "{failure}");
        self.decide_next(&failure);
        self.set_failing(&failure);
        let pause = pace::pause(&failure, self.failures, alike, &self.api.random);
        if failure == Failure::NotFound && self.resource.is_calico() {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.group_appears() => {}
            }
            return;
        }
        match self.excused_in() {
            Some(wait) if wait < pause => {
                sleep(wait).await;
                self.hub.excuse(&self.resource);
                sleep(pause - wait).await;
            }
            _ => sleep(pause).await,
        }
    }

    /// Returns when another of Calico's kinds is there after none was. Where all were gone, CRDs are
    /// being installed, one after the other.
    async fn group_appears(&self) {
        let mut group = self.hub.watch_group();
        let mut last = *group.borrow_and_update();
        if last == OfGroup::InForce {
            return std::future::pending().await;
        }
        while group.changed().await.is_ok() {
            let now = *group.borrow_and_update();
            match now {
                OfGroup::InForce if last == OfGroup::Missing => return sleep(INSTALLING).await,
                OfGroup::InForce => return,
                OfGroup::Missing | OfGroup::Unknown => last = now,
            }
        }
    }

    fn decide_next(&mut self, failure: &Failure) {
        match failure {
            Failure::Expired if matches!(self.next, Next::List(_)) => {
                self.next = Next::List(From::Newest);
            }
            Failure::Expired => self.next = Next::List(self.not_older()),
            Failure::WentBack => self.next = Next::List(From::Newest),
            Failure::Lost(_) => self.was_lost = true,
            Failure::VersionTooLarge(_) => {
                self.too_large += 1;
                if self.too_large >= TOO_LARGE_MAX {
                    self.next = Next::List(From::Newest);
                }
            }
            Failure::NotFound => {
                self.hub.with(&self.resource, |known| known.spare());
                self.hold = None;
                self.is_confirming = false;
                self.was_missing = true;
                self.version = None;
                self.next = Next::List(From::Any);
            }
            Failure::Refused(..) => {
                self.place = self.place.plain();
                if let Some(affinities) = &mut self.affinities {
                    affinities.use_no_labels();
                }
                self.next = Next::List(self.not_older());
            }
            _ => {}
        }
    }

    fn set_failing(&mut self, failure: &Failure) {
        let is_refusal = match failure {
            Failure::Forbidden(_) => true,
            Failure::NotFound => !self.resource.is_calico(),
            _ => false,
        };
        if is_refusal && self.resource.gate() == Gate::Yields {
            let object = match &self.resource {
                Resource::Secret(name) => format!("Secret/{name}"),
                other => other.plural().to_owned(),
            };
            let what = match &self.resource {
                Resource::Secret(_) => "sessions that need its password do not get it",
                calico if calico.is_calico() => {
                    "what is known of it stays, or Calico's defaults count"
                }
                _ => "routes to services stay as they were",
            };
            let problem = Problem::new(object, format!("{failure}: {what}"));
            self.hub.set_problem(&self.resource, Some(problem));
            self.hub.set_standing(&self.resource, Standing::Refused);
            self.refused_since.get_or_insert_with(Instant::now);
            return;
        }
        let standing = match failure {
            Failure::NotFound if self.resource.is_calico() => Standing::Missing,
            // These are answered by what comes next.
            Failure::Expired | Failure::WentBack | Failure::Lost(_)
                if self.failures <= PATIENCE =>
            {
                return;
            }
            Failure::Busy(_) | Failure::VersionTooLarge(_) | Failure::EndedAtOnce
                if self.failures <= PATIENCE =>
            {
                return;
            }
            other => Standing::Failing {
                since: Instant::now(),
                cause: other.name(),
                reason: other.to_string().into(),
            },
        };
        self.hub.set_standing(&self.resource, standing);
    }

    /// After how long nothing waits for the kind any more.
    fn excused_in(&self) -> Option<Duration> {
        let at = self.refused_since? + EXCUSED_AFTER;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

/// Whether a watch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    On,
    Ends,
}
