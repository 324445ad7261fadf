//! Answers to control clients and scrapes about BFD.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use bgp_proto::bfd::{Discard, State};
use bgp_proto::types::{Family, PeerId, Prefix, Time};

use super::sources::{Sources, is_stopping};
use crate::bfd::{Entered, Handle, Hops};
use crate::ctl::bird::BfdRow;
use crate::ctl::item::BfdSession;
use crate::ctl::{Page, Refusal};
use crate::daemon::bfd::reason;
use crate::daemon::bfd_status::Statuses;
use crate::http::BfdMetrics;
use crate::kernel::Link;

/// How long a scrape waits for the BFD thread.
const VIEW_WAIT: Duration = Duration::from_secs(1);

/// The view of BFD sessions.
#[derive(Clone)]
pub(super) struct BfdView {
    pub(super) sources: Sources,
    pub(super) handle: Handle,
    pub(super) statuses: Statuses,
}

impl BfdView {
    /// The state of a peer's session; Down if the session is so new that there is no status yet.
    pub(super) fn state(&self, peer: PeerId) -> State {
        self.statuses.get(peer).map_or(State::Down, |status| status.state)
    }

    pub(super) async fn sessions(&self) -> Result<Page, Refusal> {
        let view = self.handle.view().await.ok_or_else(is_stopping)?;
        let now = self.sources.now();
        Page::last(view.sessions.iter().map(|session| self.item(session, now)))
    }

    /// The sessions with addresses of a family, as shown to BIRD's clients, in order of address;
    /// `None` if there are no sessions in any family.
    pub(super) async fn rows(&self, family: Family) -> Option<Vec<BfdRow>> {
        let view = self.handle.view().await.filter(|view| !view.sessions.is_empty())?;
        let links = self.sources.kernel.links();
        let of_family =
            |entered: &&Entered| entered.target.peer.is_ipv4() == (family == Family::Ipv4);
        let row = |entered: &Entered| {
            let Entered { target, snapshot, .. } = entered;
            let vrf = target.vrf.as_ref().map(|vrf| vrf.index.get());
            let table = vrf.and_then(|vrf| links.iter().find(|link| link.index == vrf)?.traits.vrf);
            let is_there = |link: &&Link| vrf.is_none() || link.traits.vrf == table;
            let leads_there = |link: &&Link| match target.interface {
                Some(index) => link.index == index.get(),
                None => link.addresses.iter().any(|(own, length)| {
                    Prefix::new(*own, *length).contains(Prefix::host(target.peer))
                }),
            };
            let mut there = links.iter().filter(|_| target.hops == Hops::Single).filter(is_there);
            let link = there.find(leads_there);
            BfdRow {
                address: target.peer,
                interface: link.map(|link| link.name.clone()),
                state: snapshot.state,
                since: self.sources.wall(snapshot.since),
                interval: snapshot.tx_interval,
                timeout: snapshot.detection_time,
            }
        };
        let mut rows: Vec<BfdRow> = view.sessions.iter().filter(of_family).map(row).collect();
        rows.sort_by_key(|row| row.address);
        Some(rows)
    }

    /// Sessions by state, without the states that no session is in; `None` if the thread does not answer
    /// in time.
    pub(super) async fn states(&self) -> Option<BTreeMap<String, u64>> {
        let view = tokio::time::timeout(VIEW_WAIT, self.handle.view()).await.ok()??;
        let mut states = BTreeMap::new();
        for session in &view.sessions {
            *states.entry(session.snapshot.state.to_string()).or_default() += 1;
        }
        Some(states)
    }

    /// The metrics of BFD; `None` if there are no sessions and there was no failure.
    pub(super) async fn metrics(&self) -> Option<BfdMetrics> {
        let view = tokio::time::timeout(VIEW_WAIT, self.handle.view()).await.ok()??;
        if view.sessions.is_empty() && view.failures == 0 {
            return None;
        }
        let mut sessions: BTreeMap<String, u64> =
            State::ALL.iter().map(|state| (state.to_string(), 0)).collect();
        for session in &view.sessions {
            *sessions.entry(session.snapshot.state.to_string()).or_default() += 1;
        }
        let named = |(reason, count): (Discard, u64)| (reason.name().to_owned(), count);
        Some(BfdMetrics {
            sessions,
            failures: view.failures,
            discards: view.discards.into_iter().map(named).collect(),
            overflows: view.overflows,
        })
    }

    fn item(&self, entered: &Entered, now: Time) -> BfdSession {
        let Entered { target, owners, snapshot, status, fault } = entered;
        let names = owners.iter().filter_map(|owner| self.sources.registry.get(*owner));
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        BfdSession {
            peers: names.map(|record| record.name.to_string()).collect(),
            address: target.peer.to_string(),
            local_address: target.local.map(|local| local.to_string()),
            interface: target.interface.map(NonZeroU32::get),
            vrf: target.vrf.as_ref().map(|vrf| vrf.name.to_string()),
            multihop: target.hops != Hops::Single,
            state: snapshot.state.to_string(),
            state_seconds: now.since(snapshot.since).as_secs(),
            diagnostic: snapshot.diag.to_string(),
            remote_state: snapshot.remote_state.to_string(),
            remote_diagnostic: snapshot.remote_diag.to_string(),
            local_discriminator: snapshot.local_discr.get(),
            remote_discriminator: snapshot.remote_discr.map(NonZeroU32::get),
            desired_min_tx_us: micros(snapshot.desired_min_tx),
            required_min_rx_us: micros(snapshot.required_min_rx),
            multiplier: snapshot.multiplier,
            remote_min_tx_us: micros(snapshot.remote_min_tx),
            remote_min_rx_us: micros(snapshot.remote_min_rx),
            remote_multiplier: snapshot.remote_multiplier,
            tx_interval_us: micros(snapshot.tx_interval),
            detection_time_us: micros(snapshot.detection_time),
            jitter_us: micros(snapshot.stats.jitter),
            gap_max_us: micros(snapshot.stats.gap_max),
            packets_sent: snapshot.stats.sent,
            packets_received: snapshot.stats.received,
            packets_discarded: snapshot.stats.discarded,
            ups: snapshot.stats.ups,
            failures: status.failures,
            last_down: status.last_down.map(|_| reason(status).to_owned()),
            last_down_seconds: status.last_down.map(|down| now.since(down.at).as_secs()),
            error: fault.clone(),
        }
    }
}
