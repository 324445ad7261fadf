//! Answers to control clients: one page for each request.

use std::sync::Arc;
use std::time::SystemTime;

use bgp_proto::session::State;
use bgp_proto::types::{FamilyMap, Prefix, Time, off_interface};

use super::bfd::BfdView;
use super::contested::contested;
use super::debugging::Debugging;
use super::draining::DrainView;
use super::events::EventsView;
use super::explain::explain;
use super::liveness::LivenessView;
use super::orders::{DrainOrder, Orders};
use super::overview::OverviewView;
use super::policies;
use super::probe::Prober;
use super::rates::RateHistory;
use super::readiness::ReadinessView;
use super::rehearsed::Rehearsals;
use super::routes::{Listed, RoutesView};
use super::sources::{PAGE, Sources, is_stopping, vrf_text};
use super::steering::Steering;
use super::unconfirmed::unconfirmed;
use crate::config::{Config, DynamicPeers};
use crate::ctl;
use crate::ctl::item::{self, FibCounts, Health, PerFamily, Status, Stopping};
use crate::ctl::{
    Backend, Cursor, Lookup, Names, Page, PeerFacts, Refusal, Request, RouteSelection, StopMode,
    WallClock, rfc3339,
};
use crate::daemon::Stop;
use crate::daemon::drains::Drained;
use crate::daemon::registry::Record;
use crate::kernel::FibCounters;
use crate::logging::Log;
use crate::mrt::Recorder;
use crate::net::SessionCounters;
use crate::node::SessionOrigin;
use crate::version;

/// Maximum length of the reason for a drain, in octets; the same as of a shutdown communication.
const REASON_LEN_MAX: usize = 255;

/// The view for control clients, and their commands.
pub(in crate::daemon) struct ControlView {
    pub(super) sources: Sources,
    pub(super) liveness: LivenessView,
    pub(super) readiness: ReadinessView,
    pub(super) bfd: BfdView,
    pub(super) orders: Orders,
    pub(super) steering: Steering,
    pub(super) drains: DrainView,
    pub(super) events: EventsView,
    /// As events: the messages of peers that are debugged.
    pub(super) messages: EventsView,
    pub(super) debugging: Debugging,
    pub(super) overview: OverviewView,
    pub(super) rates: RateHistory,
    pub(super) prober: Prober,
    pub(super) rehearsals: Rehearsals,
    pub(super) recorder: Recorder,
    pub(super) stations: crate::bmp::Statuses,
    pub(super) log: Log,
    pub(super) session_counters: SessionCounters,
}

impl ControlView {
    /// The view of the VRF that the selection names.
    fn routes_in(&self, select: &RouteSelection) -> Result<RoutesView, Refusal> {
        Ok(RoutesView { sources: self.sources.in_vrf(select.vrf.as_deref())? })
    }

    async fn status(&self) -> Result<Page, Refusal> {
        let totals = self.sources.ask(|table, _| table.totals()).await?;
        let peers = self.sources.registry.all();
        let established = peers.iter().filter(|r| r.handle.state() == State::Established).count();
        let clock = self.sources.table.clock();
        let kernel = self.sources.kernel.counters();
        let state = self.sources.state();
        let config = &state.config;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let problems = state.listen_fault.iter().chain(&state.problems).cloned();
        let problems = problems.chain(self.recorder.faults());
        let problems = problems.chain(self.sources.vrfs.full_imports().texts()).collect();
        let http = config.host.http.as_ref().map(|http| item::HttpStatus {
            listen: http.listen.to_string(),
            error: state.http_fault.clone(),
        });
        let node = state.node_status();
        let liveness = state.node.as_ref().map(|node| &node.liveness);
        let contested = match &node {
            Some(node) => Some(contested(&self.sources, node).await),
            None => None,
        };
        let status = Status {
            version: version::VERSION.into(),
            commit: Some(version::COMMIT.into()),
            asn: config.bgp.identity.asn.0,
            router_id: config.bgp.identity.router_id.to_string(),
            cluster_id: config.bgp.cluster_id.to_string(),
            config: Some(state.described.clone()),
            config_read: Some(rfc3339(clock.wall(state.read_at))),
            started: rfc3339(clock.wall(self.sources.started)),
            uptime_seconds: clock.now().since(self.sources.started).as_secs(),
            peers: count(peers.len()),
            peers_established: count(established),
            ranges: self.ranges(config),
            refused_connections: self.refused_connections(),
            drained: self.drains.of_all(),
            peers_drained: count(self.drains.records().len()),
            announced: count(self.sources.announcements.len()),
            destinations: PerFamily {
                ipv4: totals.destinations.0[0],
                ipv6: totals.destinations.0[1],
            },
            paths: PerFamily { ipv4: totals.paths.0[0], ipv6: totals.paths.0[1] },
            attribute_sets: totals.attribute_sets,
            next_hops: totals.next_hops,
            groups: totals.groups,
            fib: fib_counts(config.fib.enabled, &kernel),
            queues: self.queues().await?,
            vrfs: self.vrfs(config).await?,
            problems,
            held_back: state.held_back.clone(),
            reload_refused: state.reload_refused.as_ref().map(|refused| item::ReloadRefused {
                at: rfc3339(clock.wall(refused.at)),
                text: refused.text.clone(),
            }),
            reload_unconfirmed: state
                .unconfirmed
                .map(|condition| unconfirmed(condition, state.undo_fault.clone())),
            http,
            calico: node.zip(contested).map(|(node, contested)| {
                super::calico::describe(&node, liveness, &state.parting, contested)
            }),
            not_ready: self.readiness.not_ready(),
            log_level: Some(self.log.level()),
        };
        Page::last([status])
    }

    fn ranges(&self, config: &Config) -> Vec<item::Range> {
        let range = |range: &DynamicPeers| {
            let vrf = range.session.vrf.as_ref();
            let peers = self.sources.registry.members(vrf, range.prefix);
            item::Range {
                name: range.name.as_deref().map(str::to_owned),
                prefix: range.prefix,
                vrf: vrf.map(|vrf| vrf.to_string()),
                peers: u32::try_from(peers).unwrap_or(u32::MAX),
                peers_max: range.peers_max,
            }
        };
        config.dynamic.iter().map(range).collect()
    }

    fn refused_connections(&self) -> Vec<item::RefusedConnections> {
        let names = self.sources.names();
        let refused = self.session_counters.refused_callers().into_iter().map(|caller| {
            let (address, interface) = off_interface(caller.from);
            item::RefusedConnections {
                address,
                interface: interface.and_then(|index| names.interface(index.get())),
                reason: caller.why.text().to_owned(),
                count: caller.count,
                seconds: caller.at.elapsed().as_secs(),
            }
        });
        refused.collect()
    }

    async fn vrfs(&self, config: &Config) -> Result<Vec<item::VrfStatus>, Refusal> {
        let mut all = Vec::new();
        for vrf in &config.vrfs {
            let name = vrf.name.to_string();
            let mut status = item::VrfStatus { name, ..item::VrfStatus::default() };
            if let Some(shown) = self.sources.vrfs.get(&vrf.name) {
                let totals = shown.table.ask(|table, _| table.totals()).await;
                let totals = totals.ok_or_else(is_stopping)?;
                let both = |counts: FamilyMap<u32>| {
                    let FamilyMap([ipv4, ipv6]) = counts;
                    PerFamily { ipv4, ipv6 }
                };
                status.table = Some(shown.routes_in);
                status.destinations = both(totals.destinations);
                status.paths = both(totals.paths);
                status.groups = totals.groups;
                status.fib = fib_counts(config.fib.enabled, &shown.kernel.counters());
            }
            all.push(status);
        }
        Ok(all)
    }

    async fn queues(&self) -> Result<item::Queues, Refusal> {
        let mut all = of_queues(&self.sources.table).await.ok_or_else(is_stopping)?;
        for (_, shown) in self.sources.vrfs.all() {
            let there = of_queues(&shown.table).await.unwrap_or_default();
            all.received_octets += there.received_octets;
            all.update_log_octets += there.update_log_octets;
            all.evictions += there.evictions;
        }
        Ok(all)
    }

    async fn groups(&self) -> Result<Page, Refusal> {
        let names = self.sources.names();
        let groups = self.sources.ask(|table, _| table.groups()).await?;
        let mut all: Vec<_> = groups.iter().map(|group| ctl::group(group, &names)).collect();
        for (name, shown) in self.sources.vrfs.all() {
            let groups = shown.table.ask(|table, _| table.groups()).await.unwrap_or_default();
            let vrf = Some(name.to_string());
            let there = groups.iter().map(|group| ctl::group(group, &names));
            all.extend(there.map(|group| item::Group { vrf: vrf.clone(), ..group }));
        }
        Page::last(all)
    }

    async fn peer(&self, record: Arc<Record>) -> Result<Page, Refusal> {
        let events = self.events.of_peer(&record.name);
        let tcp_ao = super::key_chains::tcp_ao(&record);
        let mut items = self.peer_items(vec![record]).await?;
        for item in &mut items {
            item.events = Some(events.clone());
            item.tcp_ao.clone_from(&tcp_ao);
        }
        Page::last(items)
    }

    async fn peer_items(&self, records: Vec<Arc<Record>>) -> Result<Vec<item::Peer>, Refusal> {
        let counts = self.sources.counts(&records).await.ok_or_else(is_stopping)?;
        let clock = WallClock { zero: self.sources.wall(Time::ZERO), now: self.sources.now() };
        let node = self.sources.state().node_status();
        let items = records.iter().zip(&counts).map(|(record, counts)| {
            let snapshot = record.handle.snapshot();
            let facts = PeerFacts {
                name: &record.name,
                description: record.description.as_deref(),
                dynamic: record.is_dynamic(),
                interface: record.interface.as_deref(),
                config: &record.session,
                routes: &record.routes,
                state: snapshot.state,
                since: snapshot.since,
                timers: snapshot.timers,
                negotiated: snapshot.negotiated.as_deref(),
                stats: &snapshot.stats,
                counts,
                last_error: snapshot.last_error.as_ref(),
                last_bgp_error: snapshot.last_bgp_error.as_ref(),
                bfd: record.bfd.is_some().then(|| self.bfd.state(record.id)),
            };
            let mut peer = ctl::peer(&facts, &clock);
            let sent = record.handle.numbers().sent;
            (peer.messages.updates_sent, peer.messages.octets_sent) = (sent.updates, sent.octets);
            peer.shutdown = self.steering.shutdown_of(&record.name);
            peer.unacknowledged = record.handle.unacknowledged().map(|stuck| {
                let retransmissions = stuck.retransmissions.into();
                item::Unacknowledged { segments: stuck.segments, retransmissions }
            });
            peer.drained = self.drains.of(&record.name);
            let origin = node.as_ref().and_then(|status| status.origins.get(&record.name));
            if let Some(SessionOrigin { object, filters }) = origin {
                peer.object = Some(object.to_string());
                peer.filters.clone_from(filters);
            }
            peer
        });
        Ok(items.collect())
    }

    fn is_debugged(&self, peer: &str) -> bool {
        let record = self.sources.registry.find(peer);
        record.is_some_and(|record| self.debugging.is_on(&record.name))
    }

    /// A destination in a VRF, from a vantage, and what a peer is sent of it.
    async fn explain(
        &self,
        asked: (Prefix, Lookup),
        (vantage, vrf, peer): (Option<String>, Option<&str>, Option<&str>),
    ) -> Result<Page, Refusal> {
        let peer = peer.map(|name| self.sources.find(name)).transpose()?;
        let vrf = match &peer {
            Some(peer) => vrf_of_peer(vrf, &peer.name, peer.session.vrf.as_deref())?,
            None => vrf,
        };
        let sources = self.sources.in_vrf(vrf)?;
        explain(&sources, &self.bfd, asked, (vantage, vrf, peer.as_deref())).await
    }

    fn log_level(&self, level: Option<&str>) -> Result<Page, Refusal> {
        let before = match level {
            None => None,
            Some(level) => {
                let before = self.log.set_level(level).map_err(|error| Refusal {
                    kind: ctl::ErrorKind::BadRequest,
                    text: error.to_string(),
                })?;
                Some(before)
            }
        };
        Page::last([item::LogLevel { level: self.log.level(), before }])
    }

    async fn stop_daemon(&self, mode: StopMode, message: Option<String>) -> Result<Page, Refusal> {
        let stop = match mode {
            StopMode::Graceful => Stop::Graceful,
            StopMode::Shutdown => Stop::Shutdown { message },
        };
        self.orders.stop(stop).await?;
        Page::last([Stopping { stopping: mode }])
    }

    async fn drain(&self, order: DrainOrder) -> Result<Page, Refusal> {
        self.orders.drain(order).await?;
        Page::last([self.drains.progress().await?])
    }

    /// The results of both probes.
    async fn health(&self) -> Health {
        Health { not_alive: self.liveness.not_alive().await, not_ready: self.readiness.not_ready() }
    }
}

impl Backend for ControlView {
    async fn page(&self, request: &Request, cursor: Option<&Cursor>) -> Result<Page, Refusal> {
        match request {
            Request::ShowStatus => self.status().await,
            Request::ShowPeers | Request::ShowPeersIn { .. } => {
                if let Request::ShowPeersIn { vrf } = request {
                    self.sources.is_configured(vrf)?;
                }
                let after = match cursor {
                    Some(Cursor::AfterName(name)) => Some(&**name),
                    _ => None,
                };
                let (mut records, more) = self.sources.registry.page(after, PAGE);
                let last = records.last().filter(|_| more).map(|record| Arc::clone(&record.name));
                if let Request::ShowPeersIn { vrf } = request {
                    records.retain(|record| record.session.vrf.as_deref() == Some(vrf));
                }
                Page::new(self.peer_items(records).await?, last.map(Cursor::AfterName))
            }
            Request::ShowPeer { name } => self.peer(self.sources.find(name)?).await,
            Request::Events { peer, last, follow, messages: false } => {
                self.events.page(peer.as_deref(), *last, *follow, cursor).await
            }
            Request::Events { peer, last, follow, messages: true } => {
                let follow = *follow && peer.as_deref().is_none_or(|peer| self.is_debugged(peer));
                self.messages.page(peer.as_deref(), *last, follow, cursor).await
            }
            Request::Debug { peers, seconds } => self.debugging.debug(peers, *seconds),
            Request::ShowDebug => self.debugging.show(),
            Request::ShowRoutes { prefix, select } => {
                let select = RouteSelection { prefix: prefix.or(select.prefix), ..select.clone() };
                self.routes_in(&select)?.page(Listed::Table, &select, cursor).await
            }
            Request::ShowReceived { peer, select } => {
                let record = self.sources.find(peer)?;
                let routes = RoutesView { sources: self.sources.of(&record) };
                routes.page(Listed::Received(record.id), select, cursor).await
            }
            Request::ShowAdvertised { peer, select } => {
                let record = self.sources.find(peer)?;
                let routes = RoutesView { sources: self.sources.of(&record) };
                routes.page(Listed::Advertised(record.id), select, cursor).await
            }
            Request::Dump { vrf, family } => {
                super::dump::page(&self.sources, (vrf.as_deref(), *family), cursor).await
            }
            Request::ShowFib { select } => self.routes_in(select)?.kernel(select, cursor).await,
            Request::ShowNexthops { vrf } => {
                let sources = self.sources.in_vrf(vrf.as_deref())?;
                RoutesView { sources }.next_hops(vrf.as_deref(), cursor).await
            }
            Request::ShowBfd => self.bfd.sessions().await,
            Request::ShowBmp => Page::last(super::bmp::stations(&self.stations).await),
            Request::ShowKeyChains => {
                let (state, records) = (self.sources.state(), self.sources.registry.all());
                Page::last(super::key_chains::keys(&state.config.key_chains, &records))
            }
            Request::ShowOverview => Page::last([self.overview.overview().await]),
            Request::ShowRates => Page::last(self.rates.shown()),
            Request::ShowGroups => self.groups().await,
            Request::Health => Page::last([self.health().await]),
            Request::Explain { prefix, lookup, vantage, vrf, peer } => {
                let place = (vantage.clone(), vrf.as_deref(), peer.as_deref());
                self.explain((*prefix, *lookup), place).await
            }
            Request::LogLevel { level } => self.log_level(level.as_deref()),
            Request::Peer { action, peers, rehearsal } => {
                self.steering.order(action, peers, *rehearsal).await
            }
            Request::Drain { peers, reason, lasts } => {
                let (since, reason) = (SystemTime::now(), checked(reason)?);
                let begin = Some(Drained { since, reason, lasts: *lasts });
                self.drain(DrainOrder { peers: peers.clone(), begin }).await
            }
            Request::Undrain { peers } => {
                self.drain(DrainOrder { peers: peers.clone(), begin: None }).await
            }
            Request::Announce { prefix, options } => self.announce(*prefix, options).await,
            Request::Withdraw { prefix, vrf } => self.withdraw(vrf.as_deref(), *prefix).await,
            Request::ShowAnnounced => self.announced(),
            Request::ShowDrain => Page::last([self.drains.progress().await?]),
            Request::Probe { peer, options } => self.prober.probe(peer, options).await,
            Request::Reload => self.reload().await,
            Request::ReloadDryRun { list } => self.rehearse(*list).await,
            Request::CalicoDryRun { apply, delete, list } => {
                self.forecast(apply, delete, *list).await
            }
            Request::ReloadUnconfirmed { seconds } => self.reload_until(*seconds).await,
            Request::Confirm => self.confirm().await,
            Request::ShowPolicy { name } => policies::show(&self.sources, name).await,
            Request::PolicyTest { policy, prefix, peer, to, route } => {
                let peers = (peer.as_deref(), to.as_deref());
                policies::test(&self.sources, (policy, *prefix), peers, route.as_ref()).await
            }
            Request::ShowConfig => self.configuration(cursor),
            Request::Stop { mode, message } => self.stop_daemon(*mode, message.clone()).await,
        }
    }
}

/// The VRF in which a peer's routes are; `asked` is the one that the request names, if any.
fn vrf_of_peer<'a>(
    asked: Option<&str>,
    peer: &str,
    vrf: Option<&'a str>,
) -> Result<Option<&'a str>, Refusal> {
    match asked.filter(|asked| vrf != Some(*asked)) {
        None => Ok(vrf),
        Some(asked) => {
            let of_peer = vrf_text(vrf);
            let text = format!("peer {peer} is in {of_peer}, not in VRF {asked}; leave --vrf out");
            Err(Refusal { kind: ctl::ErrorKind::BadRequest, text })
        }
    }
}

/// What waits for a table and for the peers of one; `None`: it is stopping.
async fn of_queues(table: &crate::engine::Handle) -> Option<item::Queues> {
    let groups = table.ask(|table, _| table.group_counts()).await?;
    Some(item::Queues {
        received_octets: table.waiting_octets() as u64,
        update_log_octets: groups.iter().map(|group| group.log_bytes).sum(),
        evictions: groups.iter().map(|group| group.evictions).sum(),
    })
}

fn fib_counts(enabled: bool, kernel: &FibCounters) -> FibCounts {
    FibCounts {
        enabled,
        installed: kernel.installed,
        pending: kernel.pending,
        failed: kernel.failed,
        foreign: kernel.foreign,
        next_hop_objects: kernel.next_hop_objects,
    }
}

/// A reason stands in lines of the log, of `bird.ctl` and of a small file.
fn checked(reason: &str) -> Result<String, Refusal> {
    if reason.len() > REASON_LEN_MAX || reason.chars().any(char::is_control) {
        let text = format!("a reason is one line of at most {REASON_LEN_MAX} octets");
        return Err(Refusal { kind: ctl::ErrorKind::BadRequest, text });
    }
    Ok(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_not_sought_in_another_vrf_than_its_own() {
        assert_eq!(vrf_of_peer(None, "p", Some("blue")).ok(), Some(Some("blue")));
        assert_eq!(vrf_of_peer(Some("blue"), "p", Some("blue")).ok(), Some(Some("blue")));
        assert_eq!(vrf_of_peer(None, "p", None).ok(), Some(None));
        for (own, text) in [
            (None, "peer p is in the default VRF, not in VRF red; leave --vrf out"),
            (Some("blue"), "peer p is in VRF blue, not in VRF red; leave --vrf out"),
        ] {
            let refusal = vrf_of_peer(Some("red"), "p", own).expect_err("another VRF");
            assert!(matches!(refusal.kind, ctl::ErrorKind::BadRequest));
            assert_eq!(refusal.text, text);
        }
    }
}
