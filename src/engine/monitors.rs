//! Pages for monitoring stations (RFC 7854), and how much of the table's time they may take.
//!
//! A station asks for a page and is answered when there is something to send. While the table has other work,
//! it encodes pages in a twentieth of its time at most: what changes meanwhile is sent once, and later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bgp_proto::bmp::DownReason;
use bgp_proto::table::{Mirrored, MonitorId, MonitorPage, MonitorParams, Table, Work};
use bgp_proto::types::{PeerId, SessionId};
use tokio::sync::oneshot;

use super::flow::Counted;
use super::{Handle, Input};

/// About how many octets a page has.
const PAGE_OCTETS: usize = 256 * 1024;
/// While the table has other work, a page is followed by this many times its duration without pages.
const PAUSE_FACTOR: u32 = 19;
/// Most octets of mirrored messages of all peers that wait for the table; more are lost.
const MIRRORED_MAX: usize = 1 << 20;
/// A message besides its octets.
const MIRRORED_OCTETS: usize = 128;

impl Handle {
    /// Begins a monitor.
    pub fn monitor_begin(&self, monitor: MonitorId, params: Arc<MonitorParams>) {
        self.send(Input::MonitorBegin { monitor, params });
    }

    /// The statistics of everything that a monitor knows are due.
    pub fn monitor_statistics(&self, monitor: MonitorId) {
        self.send(Input::MonitorStatistics(monitor));
    }

    /// The next page of a monitor, once there is one; `None` if the thread has ended.
    pub async fn monitor_page(&self, monitor: MonitorId) -> Option<MonitorPage> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::MonitorPage { monitor, reply });
        self.answered(answer).await
    }

    /// Ends a monitor.
    pub fn monitor_end(&self, monitor: MonitorId) {
        self.send(Input::MonitorEnd(monitor));
    }

    /// Whether some station is sent messages that are treated as erroneous.
    pub fn is_mirroring(&self) -> bool {
        self.mirror.is_asked.load(Ordering::Relaxed)
    }

    /// A message of a peer was treated as erroneous. It is dropped if too many of them wait for the table.
    /// `before`: what became of the message before it.
    pub fn mirror(
        &self,
        peer: PeerId,
        session: SessionId,
        message: Arc<[u8]>,
        before: Accepted,
    ) -> Accepted {
        let octets = message.len() + MIRRORED_OCTETS;
        if self.mirror.waiting.load(Ordering::Relaxed) + octets > MIRRORED_MAX {
            return Accepted::Lost;
        }
        if before == Accepted::Lost {
            self.mirror_lost(peer, session);
        }
        let counted = Counted::new(octets, &self.mirror.waiting);
        let message = Mirrored::Erroneous(message);
        self.send(Input::Mirrored { peer, session, message, counted });
        Accepted::Sent
    }

    /// Messages of a peer were dropped: before the next one that is not, or at the end of the session.
    pub fn mirror_lost(&self, peer: PeerId, session: SessionId) {
        let counted = Counted::new(MIRRORED_OCTETS, &self.mirror.waiting);
        self.send(Input::Mirrored { peer, session, message: Mirrored::Lost, counted });
    }

    /// Why a session is about to end: precedes [`Handle::peer_down`].
    pub fn peer_closing(&self, peer: PeerId, session: SessionId, reason: DownReason) {
        self.inbox.put(Input::PeerClosing { peer, session, reason });
    }
}

/// What became of a message that is to be mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accepted {
    /// It goes to the table.
    #[default]
    Sent,
    /// It was dropped.
    Lost,
}

/// What peers' tasks know of mirroring.
#[derive(Default)]
pub(super) struct Mirror {
    /// Whether the table would send messages to some station.
    is_asked: AtomicBool,
    /// Octets of messages on their way to the table.
    waiting: Arc<AtomicUsize>,
}

impl Mirror {
    pub(super) fn ask(&self, is_asked: bool) {
        self.is_asked.store(is_asked, Ordering::Relaxed);
    }
}

/// Stations that wait for a page: one request of each at most.
pub(super) struct Waiting {
    replies: BTreeMap<MonitorId, oneshot::Sender<MonitorPage>>,
    /// While the table has other work: not before.
    not_before: Instant,
    /// The one that was answered last.
    last: MonitorId,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Waiting { replies: BTreeMap::new(), not_before: Instant::now(), last: MonitorId(0) }
    }

    pub(super) fn insert(&mut self, monitor: MonitorId, reply: oneshot::Sender<MonitorPage>) {
        self.replies.insert(monitor, reply);
    }

    pub(super) fn remove(&mut self, monitor: MonitorId) {
        self.replies.remove(&monitor);
    }

    /// Answers one of those for which there is something, each in its turn. Returns whether others
    /// are left that may be answered at once.
    pub(super) fn answer(&mut self, table: &mut Table, budget: Work, is_busy: bool) -> bool {
        if self.replies.is_empty() || is_busy && Instant::now() < self.not_before {
            return false;
        }
        let ready: Vec<MonitorId> =
            self.replies.keys().copied().filter(|id| table.has_monitor_page(*id)).collect();
        let next = ready.iter().find(|id| **id > self.last).or(ready.first()).copied();
        let Some(id) = next else { return false };
        let Some(reply) = self.replies.remove(&id) else { return false };
        let began = Instant::now();
        // The station may have gone meanwhile; its monitor ends, too.
        let _ = reply.send(table.monitor_page(id, PAGE_OCTETS, budget, unix_secs()));
        self.last = id;
        self.not_before = Instant::now() + began.elapsed() * PAUSE_FACTOR;
        ready.len() > 1
    }
}

/// The present Unix time in seconds.
pub(super) fn unix_secs() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::task::Waker;

    use bgp_proto::bmp::Rib;
    use bgp_proto::policy::Source;
    use bgp_proto::table::{LocalRoute, Mirroring, MonitoredPeers, TableConfig};
    use bgp_proto::types::{Asn, RouterId, Time};

    use super::*;

    const STATION: MonitorId = MonitorId(7);

    fn ask(waiting: &mut Waiting) -> oneshot::Receiver<MonitorPage> {
        let (reply, answer) = oneshot::channel();
        waiting.insert(STATION, reply);
        answer
    }

    #[test]
    fn a_busy_table_pauses_between_pages_and_an_idle_one_does_not() {
        let config = Arc::new(TableConfig::new(Asn(65000), RouterId(1)));
        let mut table = Table::new(config, 1, Waker::noop().clone());
        let params = MonitorParams {
            ribs: BTreeSet::from([Rib::LocRib]),
            peers: MonitoredPeers::All,
            mirror: Mirroring::Nothing,
            octets_max: 1 << 20,
            zero: 0,
            distinguisher: 0,
            table_name: "global".into(),
        };
        table.monitor_begin(STATION, Arc::new(params));
        let mut waiting = Waiting::new();
        let mut first = ask(&mut waiting);
        assert!(!waiting.answer(&mut table, Work::TURN, true));
        assert!(!first.try_recv().unwrap().octets.is_empty());
        assert!(waiting.not_before > Instant::now() - Duration::from_secs(1));

        let mut second = ask(&mut waiting);
        assert!(!waiting.answer(&mut table, Work::TURN, false));
        assert!(second.try_recv().is_err(), "there is nothing to send");
        let prefix = "192.0.2.0/24".parse().unwrap();
        table.handle_local(Time::ZERO, prefix, Source::Static, Some(LocalRoute::default()));
        let _ = table.turn(Time::ZERO, Work::TURN);
        waiting.not_before = Instant::now() + Duration::from_secs(3600);
        assert!(!waiting.answer(&mut table, Work::TURN, true));
        assert!(second.try_recv().is_err(), "the table has other work");
        assert!(!waiting.answer(&mut table, Work::TURN, false));
        assert!(!second.try_recv().unwrap().octets.is_empty());
    }
}
