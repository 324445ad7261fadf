//! What monitoring stations are sent of a table (RFC 7854, RFC 9069).
//!
//! A monitor is one connection to one station. It holds no routes and no messages, only what it has not
//! been sent: for each RIB and family a position up to which the initial state was sent, destinations that
//! changed before that position, and prefixes that were withdrawn. Those of the Adj-RIBs-Out are held once for an
//! update group (`marks.rs`). The host takes pages of encoded messages
//! when the station has room ([`Table::monitor_page`]); a route that changed ten times meanwhile is sent
//! once, as it is then.
//!
//! Invariants:
//! - Sent pages, in order, add up to the RIBs as soon as nothing is left to send: a withdrawal precedes what
//!   was announced after it, Peer Up precedes routes, and End-of-RIB follows the initial state of a family.
//! - What a monitor holds is bounded by [`MonitorParams::octets_max`]. Beyond it, or when the table has to
//!   shed memory, the monitor is evicted: everything is freed, and the host ends the connection. It is never
//!   continued, since what was lost cannot be known. A new monitor begins with the initial state, during which
//!   only changes of what was sent already are held, so that it always gets to the end of it.
//! - A destination in a set of changes has a path, so that monitors keep no destination from being freed.
//! - Nothing is held for a peer whose session is down: Peer Down withdraws its routes.
//!
//! The Adj-RIB-Out before the policy (RFC 8671 §5.2) is not kept anywhere: it is the path that a member's group
//! chooses, unless the member announced it or the rules before the export policy withhold it (well-known
//! communities, roles, reflection, stale routes, drains), with the attributes and the next hop that the policy is
//! shown. Whatever may change it makes the group evaluate the destination again, which is what is noted; an
//! evaluation that changes nothing there, such as that of a new policy, sends the route again. Families for which we
//! send ADD-PATH are left out, since a path has no identifier before it is advertised.
//!
//! The Adj-RIB-In of a session is what was announced in it: stale paths of the session before (RFC 4724) are
//! left out until they are announced again.

mod advertised;
mod feed;
mod marks;
mod mirror;
mod page;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Table;
use crate::bmp::{DownReason, PeerHeader, Rib};
use crate::rib::{DestId, Destinations};
use crate::types::{Family, FamilyMap, PeerId, Prefix, SessionId};
use feed::Feed;
use marks::{GroupMarks, OWED_OCTETS, Owed};

use mirror::Mirror;
pub use mirror::{Mirrored, Mirroring};

/// What is held for each peer that a station knows.
const PEER_OCTETS: u64 = 512;

/// Names a monitor. The host chooses numbers, and uses none again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorId(pub u64);

/// Whose Adj-RIBs a monitor is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitoredPeers {
    /// All peers.
    All,
    /// Those of these names.
    Named(BTreeSet<Arc<str>>),
}

impl MonitoredPeers {
    pub(super) fn includes(&self, name: &str) -> bool {
        match self {
            MonitoredPeers::All => true,
            MonitoredPeers::Named(names) => names.contains(name),
        }
    }
}

/// What a monitor is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorParams {
    /// The RIBs.
    pub ribs: BTreeSet<Rib>,
    /// Whose Adj-RIBs, and whose Peer Up and Peer Down.
    pub peers: MonitoredPeers,
    /// Which messages it is sent as they were received.
    pub mirror: Mirroring,
    /// Most octets that may be held for it, besides 512 for each peer that it knows.
    pub octets_max: u64,
    /// The Unix time of [`Time::ZERO`](crate::types::Time::ZERO), in seconds.
    pub zero: u32,
    /// The instance: 0 for the default one.
    pub distinguisher: u64,
    /// The name of the table or VRF (RFC 9069 §5.2.1).
    pub table_name: Arc<str>,
}

/// Encoded messages for a station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorPage {
    /// Complete messages, in order.
    pub octets: Vec<u8>,
    /// What follows.
    pub end: PageEnd,
}

/// What follows a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// More, at once.
    More,
    /// Nothing until something changes.
    UpToDate,
    /// The monitor is no more: the connection has to end.
    Evicted,
}

/// What a monitor holds and has been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorCounts {
    /// Octets held for it.
    pub octets: u64,
    /// Messages encoded for it.
    pub messages: u64,
    /// Peers that it was sent a Peer Up of.
    pub peers: u32,
    /// Routes that fit no message.
    pub left_out: u64,
}

/// All monitors of a table.
#[derive(Default)]
pub(super) struct Monitors {
    by_id: BTreeMap<MonitorId, Monitor>,
    /// Why sessions are about to end, as the host says; only while there are monitors.
    closing: BTreeMap<PeerId, (SessionId, DownReason)>,
}

struct Monitor {
    params: Arc<MonitorParams>,
    state: State,
    counts: MonitorCounts,
}

enum State {
    /// What is left to be sent.
    Sending(Box<Sending>),
    Evicted,
}

#[derive(Default)]
struct Sending {
    /// The Loc-RIB, and whether its Peer Up was sent.
    loc_rib: Option<(PeerUpSent, FamilyMap<Feed>)>,
    peers: BTreeMap<PeerId, MonitoredPeer>,
    /// Peers whose session differs from what was sent.
    sessions: BTreeSet<PeerId>,
    /// Peers that may have routes to send.
    pending: BTreeSet<PeerId>,
    /// Peers whose statistics are due.
    statistics: BTreeSet<PeerId>,
    loc_rib_statistics: Due,
    /// The peer whose routes were written last.
    last_peer: PeerId,
    /// Changes of the Adj-RIBs-Out by update group; those of which something may be left to be sent.
    groups: BTreeMap<u32, GroupMarks>,
    ready: BTreeSet<u32>,
    /// The group whose changes were written last.
    last_group: u32,
    /// Peers with messages to mirror, and the octets of all of those.
    mirrors: BTreeSet<PeerId>,
    mirrored_octets: u64,
    /// What comes first in the next page.
    first: First,
    /// Octets held for what was not sent.
    octets: u64,
}

/// What the routes of a page begin with: neither waits for the other for longer than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum First {
    #[default]
    Peers,
    Groups,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerUpSent {
    Pending,
    Sent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Later,
    Now,
}

/// A peer as a station knows it.
struct MonitoredPeer {
    /// The session of which a Peer Up was sent.
    announced: Option<(SessionId, PeerHeader)>,
    /// The session that is up.
    present: Option<SessionId>,
    /// Why the announced session ended.
    reason: Option<DownReason>,
    /// Adj-RIB-In and Adj-RIB-Out, where they are sent.
    received: Option<FamilyMap<Feed>>,
    advertised: Option<FamilyMap<Feed>>,
    /// The group whose marks it is sent, since its initial state was begun.
    group: FamilyMap<Option<u32>>,
    /// Changes of groups that it was in before.
    owed: FamilyMap<VecDeque<Owed>>,
    /// Messages of the session that is up, and of the announced one that has ended.
    mirror: Mirror,
    mirror_before: Mirror,
}

impl MonitoredPeer {
    fn octets(&self) -> u64 {
        let both = [&self.received, &self.advertised].into_iter().flatten();
        let feeds: u64 = both.flat_map(|feeds| &feeds.0).map(Feed::octets).sum();
        let owed: usize = self.owed.0.iter().map(VecDeque::len).sum();
        let reason = self.reason.as_ref().map_or(0, DownReason::octets);
        let mirrored = self.mirror.octets() + self.mirror_before.octets();
        feeds + owed as u64 * OWED_OCTETS + reason + mirrored
    }

    fn is_up_to_date(&self) -> bool {
        let mut both = [&self.received, &self.advertised].into_iter().flatten();
        both.all(|feeds| feeds.0.iter().all(Feed::is_up_to_date))
            && self.owed.0.iter().all(VecDeque::is_empty)
    }
}

impl Sending {
    /// Notes how much more a feed holds.
    fn grew(&mut self, before: u64, after: u64) {
        self.octets = (self.octets + after).saturating_sub(before);
    }

    /// Everything that is held, peers included.
    fn octets_held(&self) -> u64 {
        self.octets + self.peers.len() as u64 * PEER_OCTETS
    }

    fn is_up_to_date(&self) -> bool {
        let has_loc_rib = self.loc_rib.as_ref().is_some_and(|(sent, feeds)| {
            *sent == PeerUpSent::Pending || feeds.0.iter().any(|feed| !feed.is_up_to_date())
        });
        !has_loc_rib
            && self.sessions.is_empty()
            && self.pending.is_empty()
            && self.ready.is_empty()
            && self.mirrors.is_empty()
            && self.statistics.is_empty()
            && self.loc_rib_statistics == Due::Later
    }
}

impl Monitor {
    fn evict(&mut self) {
        self.state = State::Evicted;
        self.counts.octets = 0;
    }

    fn check_bound(&mut self) {
        if let State::Sending(sending) = &self.state {
            self.counts.octets = sending.octets_held();
            if sending.octets > self.params.octets_max {
                self.evict();
            }
        }
    }
}

impl Monitors {
    /// Whether there is any: without, nothing else here is called where routes are processed.
    #[inline(always)]
    pub(super) fn is_watching(&self) -> bool {
        !self.by_id.is_empty()
    }

    /// Octets held for all monitors.
    pub(super) fn octets(&self) -> u64 {
        let closing = self.closing.values().map(|(_, reason)| reason.octets()).sum::<u64>();
        self.by_id.values().map(|monitor| monitor.counts.octets).sum::<u64>() + closing
    }

    pub(super) fn evict_all(&mut self) {
        self.closing.clear();
        self.by_id.values_mut().for_each(Monitor::evict);
    }

    /// Paths of a peer were announced, or import changed them.
    #[cold]
    #[inline(never)]
    pub(super) fn announced(&mut self, peer: PeerId, family: Family, dests: &[DestId]) {
        self.received(peer, family, |feed| dests.iter().for_each(|dest| feed.changed(*dest)));
    }

    /// A path of a peer was withdrawn. `is_last`: the peer has no other path there.
    #[cold]
    #[inline(never)]
    pub(super) fn withdrawn(
        &mut self,
        peer: PeerId,
        dest: DestId,
        (prefix, path_id): (Prefix, u32),
        is_last: bool,
    ) {
        self.received(peer, prefix.family(), |feed| {
            feed.withdrawn(dest, prefix, path_id, is_last);
        });
    }

    /// Notes a change of a peer's Adj-RIB-In with every monitor that is sent it.
    fn received(&mut self, peer: PeerId, family: Family, note: impl Fn(&mut Feed)) {
        for monitor in self.by_id.values_mut() {
            let State::Sending(sending) = &mut monitor.state else { continue };
            let Some(known) = sending.peers.get_mut(&peer) else { continue };
            if known.present.is_none() {
                continue;
            }
            let Some(feeds) = &mut known.received else { continue };
            let feed = &mut feeds[family];
            let before = feed.octets();
            note(feed);
            let after = feed.octets();
            if !feed.is_up_to_date() {
                sending.pending.insert(peer);
            }
            sending.grew(before, after);
            monitor.check_bound();
        }
    }

    /// The best path of destinations has changed, come or gone.
    #[cold]
    #[inline(never)]
    pub(super) fn decided(
        &mut self,
        family: Family,
        dests: &Destinations,
        decided: impl Iterator<Item = DestId> + Clone,
    ) {
        for monitor in self.by_id.values_mut() {
            let State::Sending(sending) = &mut monitor.state else { continue };
            let Some((_, feeds)) = &mut sending.loc_rib else { continue };
            let feed = &mut feeds[family];
            let before = feed.octets();
            for dest in decided.clone() {
                match dests.best(dest) {
                    Some(_) => feed.changed(dest),
                    None => feed.withdrawn(dest, dests.prefix(dest), 0, true),
                }
            }
            let after = feed.octets();
            sending.grew(before, after);
            monitor.check_bound();
        }
    }

    pub(super) fn peer_up(&mut self, peer: PeerId, session: SessionId, name: &str) {
        for monitor in self.by_id.values_mut() {
            if !monitor.params.peers.includes(name) || !monitor.params.watches_peers() {
                continue;
            }
            let State::Sending(sending) = &mut monitor.state else { continue };
            sending.begin_peer(peer, session, &monitor.params);
            monitor.check_bound();
        }
    }

    pub(super) fn peer_down(&mut self, peer: PeerId) {
        let closing = self.closing.remove(&peer);
        for monitor in self.by_id.values_mut() {
            let State::Sending(sending) = &mut monitor.state else { continue };
            sending.end_peer(peer, closing.as_ref());
            monitor.check_bound();
        }
    }
}

impl Sending {
    fn begin_peer(&mut self, peer: PeerId, session: SessionId, params: &MonitorParams) {
        self.end_peer(peer, None);
        let known = self.peers.entry(peer).or_insert_with(|| MonitoredPeer {
            announced: None,
            present: None,
            reason: None,
            received: None,
            advertised: None,
            group: FamilyMap::default(),
            owed: FamilyMap::default(),
            mirror: Mirror::default(),
            mirror_before: Mirror::default(),
        });
        known.present = Some(session);
        let is_sent = |ribs: &[Rib]| ribs.iter().any(|rib| params.ribs.contains(rib));
        let begin = MonitorParams::begin_feeds;
        known.received = is_sent(&[Rib::AdjRibInPre, Rib::AdjRibInPost]).then(begin);
        known.advertised = is_sent(&[Rib::AdjRibOutPre, Rib::AdjRibOutPost]).then(begin);
        self.sessions.insert(peer);
        self.pending.insert(peer);
    }

    fn end_peer(&mut self, peer: PeerId, closing: Option<&(SessionId, DownReason)>) {
        let Some(known) = self.peers.get(&peer) else { return };
        let is_announced = known.announced.is_some_and(|(of, _)| Some(of) == known.present);
        if known.present.is_some() {
            self.end_mirror(peer, is_announced);
        }
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let before = known.octets();
        (known.received, known.advertised) = (None, None);
        for group in std::mem::take(&mut known.group).0.into_iter().flatten() {
            leave(&mut self.groups, &mut self.ready, group, peer, &mut self.octets);
        }
        let owed = std::mem::take(&mut known.owed).0.into_iter().flatten();
        owed.for_each(|owed| marks::release(owed.batch, &mut self.octets));
        let ended = known.present.take();
        if let (Some(session), Some((announced, _))) = (ended, &known.announced)
            && session == *announced
        {
            known.reason = closing.filter(|(of, _)| *of == session).map(|(_, why)| why.clone());
        }
        self.pending.remove(&peer);
        self.statistics.remove(&peer);
        let after = known.octets();
        if known.announced.is_some() {
            self.sessions.insert(peer);
        } else {
            self.sessions.remove(&peer);
            self.peers.remove(&peer);
        }
        self.grew(before, after);
    }
}

/// Removes a member of a group, and the marks of a group without members.
fn leave(
    groups: &mut BTreeMap<u32, GroupMarks>,
    ready: &mut BTreeSet<u32>,
    group: u32,
    peer: PeerId,
    octets: &mut u64,
) {
    let Some(marks) = groups.get_mut(&group) else { return };
    marks.leave(peer);
    if marks.is_empty() {
        ready.remove(&group);
        groups.remove(&group).into_iter().for_each(|marks| marks.clear(octets));
    }
}

impl MonitorParams {
    /// Whether it is sent anything about peers.
    fn watches_peers(&self) -> bool {
        self.mirror == Mirroring::Errors || self.ribs.iter().any(|rib| *rib != Rib::LocRib)
    }

    fn begin_feeds() -> FamilyMap<Feed> {
        FamilyMap(Family::ALL.map(|_| Feed::begin()))
    }
}

impl Table {
    /// Begins a monitor: its pages begin with the initial state.
    pub fn monitor_begin(&mut self, id: MonitorId, params: Arc<MonitorParams>) {
        let mut sending = Box::<Sending>::default();
        if params.ribs.contains(&Rib::LocRib) {
            sending.loc_rib = Some((PeerUpSent::Pending, MonitorParams::begin_feeds()));
        }
        for peer in self.peers.iter().filter(|_| params.watches_peers()) {
            if let (Some(id), Some(session)) = (peer.source.peer(), peer.up)
                && params.peers.includes(&peer.routes.name)
            {
                sending.begin_peer(id, session, &params);
            }
        }
        let counts = MonitorCounts { octets: sending.octets_held(), ..MonitorCounts::default() };
        let state = State::Sending(sending);
        self.monitors.by_id.insert(id, Monitor { params, state, counts });
        // Members may move between groups before the next turn.
        self.adj_ribs_out.watch = self.monitors.watch();
    }

    /// Ends a monitor and frees what it holds.
    pub fn monitor_end(&mut self, id: MonitorId) {
        self.monitors.by_id.remove(&id);
        if !self.monitors.is_watching() {
            self.monitors.closing.clear();
        }
    }

    /// The statistics of all peers that a monitor knows are due (RFC 7854 §4.8).
    pub fn monitor_statistics(&mut self, id: MonitorId) {
        let Some(monitor) = self.monitors.by_id.get_mut(&id) else { return };
        let State::Sending(sending) = &mut monitor.state else { return };
        let announced = sending.peers.iter().filter(|(_, peer)| peer.announced.is_some());
        sending.statistics = announced.map(|(id, _)| *id).collect();
        if sending.loc_rib.is_some() {
            sending.loc_rib_statistics = Due::Now;
        }
    }

    /// Why a session is about to end: for the Peer Down that follows [`Table::peer_down`].
    pub fn note_closing(&mut self, peer: PeerId, session: SessionId, reason: DownReason) {
        if self.monitors.is_watching() && self.peers.get(peer).is_some() {
            self.monitors.closing.insert(peer, (session, reason));
        }
    }

    /// Whether [`Table::monitor_page`] has something to return.
    pub fn has_monitor_page(&self, id: MonitorId) -> bool {
        self.monitors.by_id.get(&id).is_none_or(|monitor| match &monitor.state {
            State::Sending(sending) => !sending.is_up_to_date(),
            State::Evicted => true,
        })
    }

    /// What a monitor holds; `None` if it is evicted or unknown.
    pub fn monitor_counts(&self, id: MonitorId) -> Option<MonitorCounts> {
        let monitor = self.monitors.by_id.get(&id)?;
        let State::Sending(sending) = &monitor.state else { return None };
        let peers = sending.peers.values().filter(|peer| peer.announced.is_some()).count();
        Some(MonitorCounts { peers: u32::try_from(peers).unwrap_or(u32::MAX), ..monitor.counts })
    }
}
