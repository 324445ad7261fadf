//! Follows one kind: a list, a watch from its version, further watches from where the last one
//! ended, and another list in any doubt.
//!
//! In doubt means: the server no longer has the version (410), or its version went back; there is
//! a new connection, as the server may have been restored from a backup meanwhile; a watch ended
//! before its time. Small kinds are listed then; for kinds with thousands of objects one object is
//! probed ([`super::past`]).

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

/// Minimum interval between two lists of a kind.
const LIST_INTERVAL: Duration = Duration::from_millis(500);
/// Deletions of Calico's kinds are held until this long after the last of them.
const HOLD: Duration = Duration::from_secs(3);
/// The same after the kind was not served: its objects may be created again one by one.
const HOLD_AFTER_MISSING: Duration = Duration::from_secs(30);
/// Longest time that deletions are held while others follow.
const HOLD_MAX: Duration = Duration::from_secs(30);
/// A watch that lasted this long resets the backoff.
const GOOD_AFTER: Duration = Duration::from_secs(60);
/// Interval, at random, of the lists that only find what watches missed.
const RESYNC: [Duration; 2] = [Duration::from_secs(6 * 3600), Duration::from_secs(12 * 3600)];
/// Failures in a row that soon pass, such as 429 or a watch that ends at once, before a kind is
/// reported as unreadable.
const PATIENCE: u32 = 3;
/// Number of "Too large resource version" failures after which the next list is read from etcd.
const TOO_LARGE_MAX: u32 = 3;
/// How long BGP waits for a refused kind that only services or passwords depend on. A server that
/// has just started refuses some requests wrongly.
const EXCUSED_AFTER: Duration = Duration::from_secs(5);

/// Follows one resource.
pub(super) struct Follow<'a, D> {
    pub(super) api: &'a Api<D>,
    pub(super) hub: &'a Hub,
    pub(super) resource: Resource,
    /// Where it is listed and watched.
    pub(super) place: Place,
    /// The same with all parameters, before the server refused any.
    original: Place,
    /// The own node's name.
    pub(super) node: String,
    /// With `USE_POD_CIDR` the own Node is followed as a resource of its own.
    pub(super) is_own_apart: bool,
    pub(super) affinities: Option<Affinities>,
    own: OwnNode,
    /// The last version received.
    pub(super) version: Option<String>,
    /// The connection on which it was listed last.
    pub(super) epoch: Option<Epoch>,
    next: Next,
    failures: u32,
    /// The name of the last failure, and how many of these came in a row.
    last_failure: (&'static str, u32),
    too_large: u32,
    last_list: Option<Instant>,
    hold: Option<Hold>,
    /// The next list, if it confirms the held deletions, releases them.
    is_confirming: bool,
    was_missing: bool,
    resync_at: Option<Instant>,
    /// The next list only serves to find what watches missed.
    is_resync: bool,
    /// When an early end of a watch last caused a list.
    pub(super) early_list: Option<Instant>,
    refused_since: Option<Instant>,
    /// The last event, for kinds that are not listed after every doubt.
    pub(super) anchor: Anchor,
    /// What was last seen of each Node.
    pub(super) marks: Marks,
    /// The known objects are not current until a probe is answered.
    pub(super) is_in_doubt: bool,
    /// A watch was cut off by the loss of its connection or stream.
    was_lost: bool,
}

/// The next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    List(From),
    Watch,
}

/// When held deletions arrived, and how long after the last of them they are released.
#[derive(Clone, Copy, Debug)]
struct Hold {
    first: Instant,
    last: Instant,
    quiet: Duration,
}

/// Whose block affinities are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfBlocks {
    OwnNode,
    AllNodes,
}

impl<'a, D: Dial> Follow<'a, D> {
    pub(super) fn new(
        api: &'a Api<D>,
        hub: &'a Hub,
        resource: Resource,
        place: Place,
        blocks: OfBlocks,
        node: &str,
    ) -> Self {
        let is_selected = resource == Resource::BlockAffinities && blocks == OfBlocks::OwnNode;
        let affinities = is_selected.then(|| Affinities::new(&place, node));
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

    /// Lists, and sends what differs. The next step is a watch.
    async fn list(&mut self, from: &From) -> Result<(), Failure> {
        if let Some(last) = self.last_list {
            sleep_until(last + LIST_INTERVAL).await;
        }
        self.last_list = Some(Instant::now());
        let permit = self.api.list_permit().await;
        let mut listing = Listing::default();
        listing.watched = self.version.clone().filter(|_| self.is_resync);
        let read = if self.affinities.is_some() {
            self.read_affinities(from, &mut listing).await?
        } else {
            self.read_into(&self.place.clone(), from, &mut listing).await?
        };
        drop(permit);
        listing.ends_where_watched = listing.watched.as_ref() == Some(&read.version);
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

    /// Processes a complete list.
    fn take_list(&mut self, listing: Listing) {
        let deletion = self.deletion();
        self.is_resync = false;
        let missed = self.hub.listed(&self.resource, listing, deletion);
        if missed > 0 {
            warn!(
                resource = %self.resource, changes = missed,
                "the periodic list (every 6 to 12 hours) found changes that the API server had not \
                 sent as watch events"
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

    /// Processes the version of a list read from etcd because the server did not know ours: either
    /// its store was restored from a backup, or its watch cache is behind.
    ///
    /// If etcd is too old to report the progress of watches, a list from it has a version that the
    /// watch cache of this kind reaches only with its next change; the watch has to begin at the
    /// version of the cache then.
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

    /// Reads a list, and keeps the objects that concern us.
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

    /// The mark of an item of a list; `None` for the own Node, whose content also depends on what
    /// [`OwnNode`] keeps.
    fn mark(&self, item: &[u8]) -> Option<Mark> {
        let node = (self.resource == Resource::Nodes).then(|| Node::read(item)).flatten()?;
        (node.name() != self.node).then(|| self.marks.mark(&node))
    }

    /// Decodes an object; `None`: it does not concern us.
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

    /// The id of an object.
    pub(super) fn identify(&self, octets: &[u8]) -> Result<ObjectId, Fault> {
        let object = match self.resource {
            Resource::Nodes => decode_api_node(octets)?,
            _ => decode_api(self.resource.kind(), octets)?,
        };
        Ok(object.decoded.id)
    }

    /// Uses the own Node as the server has it, without the annotations that were kept.
    pub(super) fn give_up_own(&mut self) {
        if let Some(object) = self.own.give_up() {
            self.hub.put(&self.resource, object);
        }
        self.hub.set_note("own-node", None);
    }

    /// How deletions of this kind are treated.
    pub(super) fn deletion(&self) -> Deletion {
        if self.resource.is_calico() { Deletion::Held } else { Deletion::Told }
    }

    /// A deletion was received: (re)starts the hold, for kinds whose deletions are held.
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

    /// When [`Follow::act`] has something to do during a watch.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.hold_due(), self.own.due(), self.resync_at].into_iter().flatten().min()
    }

    /// Does what is due; returns whether the watch continues.
    pub(super) fn act(&mut self, now: Instant) -> Goes {
        if self.own.due().is_some_and(|due| due <= now) {
            self.give_up_own();
        }
        if self.hold_due().is_some_and(|due| due <= now) {
            self.hold = None;
            let (held, is_emptying) =
                self.hub.with(&self.resource, |known| (known.held(), known.is_emptying()));
            // The deletion of most objects may be that of their CRD: a list shows whether it is.
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

    /// A list at least as recent as what is known.
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

    /// Sets or clears the problem that a Secret does not exist.
    pub(super) fn note_absence(&self) {
        let Resource::Secret(name) = &self.resource else { return };
        let is_absent = self.hub.with(&self.resource, |known| known.len() == 0);
        let text = "there is no Secret of this name: a session that needs it has no password";
        let problem = is_absent.then(|| Problem::new(format!("Secret/{name}"), text));
        self.hub.set_problem(&self.resource, problem);
    }

    /// A watch lasted this long: resets the backoff if that is long enough.
    pub(super) fn note_watched(&mut self, lasted: Duration) {
        if lasted >= GOOD_AFTER {
            self.failures = 0;
        }
    }

    /// Whether a watch continues one that was cut off, or is on another connection. If so,
    /// parameters that the previous server refused are used again: this one may know them.
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

    /// Makes a list the next step, after a random pause: every node may have the same reason to
    /// list.
    pub(super) async fn list_soon(&mut self) {
        self.next = Next::List(self.not_older());
        sleep(pace::spread(&self.api.random)).await;
    }

    /// The server answers again, though the watch still waits for the head of its response. Returns
    /// whether it had failed before.
    pub(super) fn note_answer(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    pub(super) fn is_small(&self) -> bool {
        self.place.size == Size::Small
    }

    /// Decides what comes next, reports the failure, and waits.
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
            if self.hub.installing_until().is_none() {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.group_appears() => {}
                }
            }
            if let Some(until) = self.hub.installing_until() {
                sleep_until(until).await;
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

    /// Returns when another of Calico's kinds can be read after none could.
    async fn group_appears(&self) {
        let mut group = self.hub.watch_group();
        if *group.borrow_and_update() == OfGroup::InForce {
            return std::future::pending().await;
        }
        while group.changed().await.is_ok() {
            if *group.borrow_and_update() == OfGroup::InForce {
                return;
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
            // The next request usually succeeds.
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

    /// The remaining time that BGP waits for the kind; `None`: it was not refused.
    fn excused_in(&self) -> Option<Duration> {
        let at = self.refused_since? + EXCUSED_AFTER;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

/// Whether a watch continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    On,
    Ends,
}
