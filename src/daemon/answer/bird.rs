//! Answers to clients of BIRD's control protocol: sessions, routes and interfaces of one family,
//! as a BIRD of that family would show them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Negotiated, PassiveMode, State};
use bgp_proto::table::{
    DestinationView, ExportCounts, ImportCounts, PathView, PeerCounts, RetainedPhase, RouteFilter,
    Table,
};
use bgp_proto::types::{
    Community, Family, FibKind, NextHop, PeerId, PeerType, Prefix, Source, Time, off_interface,
};
use bgp_proto::wire::{AttrView, Capabilities};
use tracing::warn;

use super::bfd::BfdView;
use super::draining::DrainView;
use super::liveness::LivenessView;
use super::orders::Orders;
use super::sources::{PAGE, Sources, is_in_table};
use super::steering::{Obstacle, Steering};
use crate::config::Document;
use crate::ctl::bird::{
    self, Acted, Action, Backend, BfdRow, BgpDetails, BgpRoute, ChangeCounts, Configure, Details,
    Directions, Established, IgpMetric, Interface, Kind, Phase, Protocol, ProtocolId, Rank,
    Recovery, RecoveryOf, Route, RoutePage, RouteQuery, Status, Target, Via, Wait, reader_name,
};
use crate::ctl::{Cursor, Direction, Lasts, Names, PeerAction, RoutesOnReset};
use crate::daemon::awaiting::Awaits;
use crate::daemon::registry::Record;
use crate::daemon::startup::Startup;
use crate::kernel::{FibState, LearnedKind};
use crate::net::PeerSnapshot;

/// The description of every session in Calico's configuration of BIRD.
const DESCRIPTION: &str = "Connection to BGP peer";

/// The protocols besides sessions, in BIRD's order.
const OWN: [(ProtocolId, &str, Kind); 5] = [
    (ProtocolId::Own(Source::Static), "static1", Kind::Static),
    (ProtocolId::Own(Source::Announced), "announced1", Kind::Static),
    (ProtocolId::Own(Source::Kernel), "kernel1", Kind::Kernel),
    (ProtocolId::Device, "device1", Kind::Device),
    (ProtocolId::Own(Source::Direct), "direct1", Kind::Direct),
];

/// The view for clients of BIRD's control protocol, and their commands.
pub(in crate::daemon) struct BirdView {
    pub(super) sources: Sources,
    pub(super) liveness: LivenessView,
    pub(super) orders: Orders,
    pub(super) bfd: BfdView,
    pub(super) steering: Steering,
    pub(super) drains: DrainView,
    /// The configuration file, if there is one.
    pub(super) file: Option<PathBuf>,
}

impl Backend for BirdView {
    async fn status(&self, family: Family) -> Result<Status, String> {
        let stuck = self.liveness.not_alive().await;
        if !stuck.is_empty() {
            return Err(format!("Daemon is not alive: {}", stuck.join("; ")));
        }
        let state = self.sources.state();
        let recovery = state.startup.as_ref().and_then(|startup| self.recovery(startup, family));
        Ok(Status {
            router_id: Ipv4Addr::from(state.config.bgp.identity.router_id.0),
            started: self.sources.wall(self.sources.started),
            configured: self.sources.wall(state.read_at),
            recovery,
            drained: self.drains.of_all().map(|drained| {
                let reason = drained.reason.map_or(String::new(), |reason| format!(" ({reason})"));
                format!("Drained since {}{reason}", drained.since)
            }),
        })
    }

    async fn protocols(&self, family: Family) -> Result<Vec<Protocol>, String> {
        // Sessions are unknown until the first plan. If none were shown, probes would consider the
        // node ready.
        let state = self.sources.state();
        let node = state.node_status();
        if let Some(waiting) = node.filter(|node| !node.in_force).and_then(|n| n.waiting_for()) {
            return Err(waiting);
        }
        let startup = state.startup.as_ref();
        let recovering = startup.is_some_and(|startup| self.recovery(startup, family).is_some());
        let has_statics =
            state.config.originate.iter().any(|route| route.prefix.family() == family);
        let announced = self.sources.announcements.all();
        let has_announced =
            announced.iter().any(|((vrf, prefix), _)| vrf.is_none() && prefix.family() == family);
        let own = OWN.iter().filter(|(id, ..)| match id {
            ProtocolId::Own(Source::Static) => has_statics,
            ProtocolId::Own(Source::Announced) => has_announced,
            _ => true,
        });
        let own = own.map(|(id, name, kind)| Protocol {
            id: *id,
            name: Arc::from(*name),
            kind: *kind,
            // As BIRD during graceful restart: routes of an earlier run are still in the kernel.
            phase: match (kind, recovering) {
                (Kind::Kernel, true) => Phase::Wait,
                _ => Phase::Up,
            },
            since: self.sources.wall(self.sources.started),
            word: "",
            error: None,
        });
        let mut sessions: Vec<Protocol> = self
            .sources
            .registry
            .all()
            .iter()
            .filter(|record| is_of(record.address, family))
            .map(|record| self.session(record))
            .collect();
        sessions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(own.chain(sessions).collect())
    }

    async fn details(
        &self,
        family: Family,
        protocols: &[Protocol],
    ) -> Result<Vec<Details>, String> {
        let ids: Vec<ProtocolId> = protocols.iter().map(|protocol| protocol.id).collect();
        let registry = &self.sources.registry;
        let record = |id: &ProtocolId| match id {
            ProtocolId::Peer(peer) => registry.get(*peer),
            ProtocolId::Own(_) | ProtocolId::Device => None,
        };
        let records: Vec<Arc<Record>> = ids.iter().filter_map(record).collect();
        // Of peers in VRFs, the table of the VRF has the numbers.
        let counts = self.sources.counts(&records).await.ok_or("the daemon is stopping")?;
        let mut counts: BTreeMap<PeerId, PeerCounts> =
            records.iter().map(|record| record.id).zip(counts).collect();
        let own = move |table: &Table, _| {
            let of = |id: &ProtocolId| match id {
                ProtocolId::Own(source) => table.local_counts(family, *source),
                ProtocolId::Device | ProtocolId::Peer(_) => (0, 0),
            };
            ids.iter().map(|id| (*id, of(id))).collect::<Vec<_>>()
        };
        let own = self.sources.ask(own).await.map_err(|refusal| refusal.text)?;
        let numbers: Vec<Numbers> = own
            .into_iter()
            .map(|(id, own)| match id {
                ProtocolId::Peer(peer) => {
                    Numbers::Peer(Box::new(counts.remove(&peer).unwrap_or_default()))
                }
                ProtocolId::Own(_) | ProtocolId::Device => Numbers::Own(own),
            })
            .collect();
        let startup = self.sources.state().startup.clone();
        let details = protocols.iter().zip(&numbers).map(|(protocol, numbers)| match numbers {
            Numbers::Own(counts) => self.own_details(family, protocol, *counts),
            Numbers::Peer(counts) => self.peer_details(protocol, counts, startup.as_ref()),
        });
        Ok(details.collect())
    }

    async fn routes(
        &self,
        family: Family,
        query: &RouteQuery,
        cursor: Option<&Cursor>,
    ) -> Result<RoutePage, String> {
        let Some(filter) = self.filter(family, query) else { return Ok(RoutePage::default()) };
        let from = match cursor {
            Some(Cursor::Index(index)) => *index,
            _ => 0,
        };
        let target = query.target;
        let page = self
            .sources
            .ask(move |table, now| {
                let views = match target {
                    Target::All => table.view(&filter, from, PAGE, now),
                    Target::Exact(prefix) => {
                        table.view(&RouteFilter { exact: Some(prefix), ..filter }, 0, 1, now)
                    }
                    Target::For(wanted) => {
                        // The longest destination that covers it, whether or not the filter matches
                        // its paths.
                        let any = RouteFilter { family: Some(family), ..RouteFilter::default() };
                        let exact = |filter: &RouteFilter, prefix| {
                            let filter = RouteFilter { exact: Some(prefix), ..filter.clone() };
                            table.view(&filter, 0, 1, now).0
                        };
                        let is_there = |prefix: &Prefix| {
                            let found = exact(&any, *prefix);
                            found.iter().any(|view| view.paths.iter().any(is_in_table))
                        };
                        let mut covering =
                            (0..=wanted.len()).rev().map(|len| Prefix::new(wanted.addr(), len));
                        let found = covering.find(is_there).map(|prefix| exact(&filter, prefix));
                        (found.unwrap_or_default(), None)
                    }
                };
                (views, now)
            })
            .await;
        let ((views, next), now) = page.map_err(|refusal| refusal.text)?;
        let names = Shown { sources: &self.sources, names: self.sources.names(), now };
        let mut page = RoutePage { next: next.map(Cursor::Index), ..RoutePage::default() };
        for view in &views {
            let before = page.routes.len();
            names.routes(view, query, &mut page.routes);
            page.networks += u64::from(page.routes.len() > before);
        }
        Ok(page)
    }

    async fn interfaces(&self, family: Family) -> Vec<Interface> {
        let links = self.sources.kernel.links();
        let mut interfaces: Vec<Interface> = links
            .iter()
            .map(|link| Interface {
                index: link.index,
                name: link.name.clone(),
                admin_up: link.up,
                link_up: link.running,
                loopback: link.traits.loopback,
                broadcast: link.traits.broadcast,
                multicast: link.traits.multicast,
                mtu: link.mtu,
                addresses: link
                    .addresses
                    .iter()
                    .filter(|(address, _)| is_of(*address, family))
                    .copied()
                    .collect(),
            })
            .collect();
        interfaces.sort_by_key(|interface| interface.index);
        interfaces
    }

    async fn bfd_sessions(&self, family: Family) -> Option<Vec<BfdRow>> {
        self.bfd.rows(family).await
    }

    async fn act(&self, protocol: &Protocol, action: Action) -> Acted {
        let record = match protocol.id {
            ProtocolId::Peer(id) => self.sources.registry.get(id),
            _ => None,
        };
        let Some(record) = record.filter(|record| !record.leaves()) else {
            return Acted::NotASession;
        };
        let action = match action {
            Action::Enable => PeerAction::Start,
            Action::Disable => PeerAction::Stop { message: String::new(), lasts: Lasts::Run },
            Action::Restart => {
                PeerAction::Reset { message: String::new(), routes: RoutesOnReset::Withdraw }
            }
            Action::Reload { import: true, export: true } => PeerAction::Refresh(Direction::Both),
            Action::Reload { import: true, .. } => PeerAction::Refresh(Direction::In),
            Action::Reload { .. } => PeerAction::Refresh(Direction::Out),
        };
        let obstacle = match self.steering.obstacle(&action, &record) {
            // BIRD also restarts a session that is not up.
            Some(Obstacle::NotEstablished(_)) if action.is_reset() => None,
            obstacle => obstacle,
        };
        match obstacle {
            Some(Obstacle::NotShutDown) => return Acted::AlreadyEnabled,
            Some(Obstacle::ShutDown) => return Acted::AlreadyDisabled,
            Some(Obstacle::NoRouteRefresh) => return Acted::ReloadFailed,
            Some(_) => return Acted::NotUp,
            None => {}
        }
        match self.steering.carry_out(&action, &[record], &[], "at BIRD's control socket") {
            Ok(()) => Acted::Done,
            // Only the file that `margay peer stop --keep` wrote can fail.
            Err(why) => {
                warn!(peer = %protocol.name, "{why}");
                Acted::NotASession
            }
        }
    }

    async fn configuration(&self) -> String {
        self.sources.state().described.clone()
    }

    async fn configure(&self, how: Configure) -> Result<(), String> {
        if how == Configure::Apply {
            let reloaded = self.orders.reload().await;
            return reloaded.map_err(|refusal| refusal.text)?.map(drop);
        }
        // Without a file there is nothing to check.
        let Some(path) = self.file.clone() else { return Ok(()) };
        let read = tokio::task::spawn_blocking(move || {
            Document::load(&path).map(drop).map_err(|errors| errors.to_string())
        });
        read.await.map_err(|_| "reading the configuration failed".to_owned())?
    }
}

/// The table's counters for a protocol.
enum Numbers {
    /// Local routes, and how many of them are best.
    Own((u32, u32)),
    Peer(Box<PeerCounts>),
}

impl BirdView {
    /// The recovery state of the sessions of one family. A BIRD knows only its own family: a
    /// neighbour that is missing in one family must not delay readiness in the other.
    fn recovery(&self, startup: &Startup, family: Family) -> Option<Recovery> {
        let is_of_family = |peer| {
            self.sources.registry.get(peer).is_some_and(|record| is_of(record.address, family))
        };
        let waiting = startup.count_of(is_of_family)?;
        let (left, of) = startup.timer(self.sources.now());
        Some(Recovery { waiting, timer: Wait { left, of } })
    }

    fn session(&self, record: &Record) -> Protocol {
        let snapshot = record.handle.snapshot();
        let is_up = snapshot.state == State::Established;
        let error = snapshot.last_error.as_ref().filter(|_| !is_up);
        Protocol {
            id: ProtocolId::Peer(record.id),
            name: Arc::clone(&record.name),
            kind: Kind::Bgp,
            phase: match is_up {
                true => Phase::Up,
                false if record.shutdown.is_set() => Phase::Down,
                false => Phase::Start,
            },
            since: self.sources.wall(snapshot.session_since),
            word: word(snapshot.state, record.session.passive),
            error: error.and_then(bird::last_error),
        }
    }

    fn own_details(
        &self,
        family: Family,
        protocol: &Protocol,
        (imported, preferred): (u32, u32),
    ) -> Details {
        let (imported, preferred) = (u64::from(imported), u64::from(preferred));
        let exported = match protocol.kind {
            Kind::Kernel => self.sources.kernel.counters().installed_by_family[family],
            _ => 0,
        };
        let taken =
            |count| ChangeCounts { received: count, accepted: count, ..ChangeCounts::default() };
        let all = "ACCEPT".to_owned();
        Details {
            description: None,
            preference: match protocol.kind {
                Kind::Static => 200,
                Kind::Kernel => 10,
                Kind::Device | Kind::Direct => 240,
                Kind::Bgp => 100,
            },
            input_filter: all.clone(),
            output_filter: if protocol.kind == Kind::Kernel { all } else { "REJECT".to_owned() },
            recovery: None,
            imported,
            exported,
            preferred,
            changes: Directions {
                import_updates: taken(imported),
                export_updates: taken(exported),
                ..Directions::default()
            },
            bgp: None,
        }
    }

    fn peer_details(
        &self,
        protocol: &Protocol,
        counts: &PeerCounts,
        startup: Option<&Startup>,
    ) -> Details {
        let record = match protocol.id {
            ProtocolId::Peer(id) => self.sources.registry.get(id),
            _ => None,
        };
        let sum = |map: bgp_proto::types::FamilyMap<u32>| map.0.iter().map(|n| u64::from(*n)).sum();
        let (mut imports, mut exports) = (ImportCounts::default(), ExportCounts::default());
        counts.imports.0.into_iter().for_each(|family| imports += family);
        counts.exports.0.into_iter().for_each(|family| exports += family);
        let description = record.as_deref().and_then(|record| record.description.as_deref());
        let owes = startup.and_then(|startup| match protocol.id {
            ProtocolId::Peer(id) => startup.owes(id),
            _ => None,
        });
        Details {
            description: Some(description.unwrap_or(DESCRIPTION).to_owned()),
            preference: 100,
            input_filter: policy(record.as_deref().map(|r| &*r.routes.import.policy.name)),
            output_filter: policy(record.as_deref().map(|r| &*r.routes.export.policy.name)),
            recovery: owes.map(|owes| match owes {
                Awaits::Session => RecoveryOf::Pending,
                Awaits::EndOfRib(_) => RecoveryOf::PendingWaiting,
            }),
            imported: sum(counts.accepted),
            exported: sum(counts.advertised),
            preferred: sum(counts.preferred),
            changes: changes(&imports, &exports),
            bgp: record.map(|record| self.bgp_details(&record, counts)),
        }
    }

    fn bgp_details(&self, record: &Record, counts: &PeerCounts) -> BgpDetails {
        let now = self.sources.now();
        let snapshot = record.handle.snapshot();
        let config = &record.session;
        let wait = |until: Option<Time>, of: Duration| {
            until.map(|until| {
                let left = until.since(now);
                Wait { left, of: of.max(left) }
            })
        };
        let timers = snapshot.timers;
        BgpDetails {
            neighbor: off_interface(record.address).0,
            neighbor_asn: (snapshot.negotiated.as_deref().map(|n| n.peer_asn))
                .or(config.remote_asn.exactly())
                .map_or(0, |asn| asn.0),
            restarting: restart_ends(counts).map(|until| until.since(now)),
            error_wait: wait(timers.idle_hold, config.connect_retry_time),
            connect_delay: wait(timers.retry, config.connect_retry_time),
            session: snapshot
                .negotiated
                .as_deref()
                .map(|negotiated| established(record, negotiated, &snapshot, counts, now)),
        }
    }

    /// The filter for the table; `None` if nothing can match.
    fn filter(&self, family: Family, query: &RouteQuery) -> Option<RouteFilter> {
        let mut filter = RouteFilter { family: Some(family), ..RouteFilter::default() };
        if let Some(name) = &query.protocol {
            match OWN.iter().find(|(_, own, _)| own == name) {
                Some((ProtocolId::Own(source), ..)) => filter.source = Some(*source),
                Some(_) => return None,
                None => filter.received_from = Some(self.sources.registry.find(name)?.id),
            }
        }
        if let Some(name) = &query.export {
            filter.advertised_to = Some(self.sources.registry.find(name)?.id);
        }
        Some(filter)
    }
}

fn is_of(address: IpAddr, family: Family) -> bool {
    address.is_ipv4() == (family == Family::Ipv4)
}

/// BIRD's word for a state; a passive session that waits for its peer is shown as "Passive".
fn word(state: State, passive: PassiveMode) -> &'static str {
    match (state, passive) {
        (State::Idle, _) => "Idle",
        (State::Connect, _) => "Connect",
        (State::Active, PassiveMode::Active) => "Active",
        (State::Active, PassiveMode::Passive | PassiveMode::AtStart) => "Passive",
        (State::OpenSent, _) => "OpenSent",
        (State::OpenConfirm, _) => "OpenConfirm",
        (State::Established, _) => "Established",
    }
}

/// The name of a policy as BIRD shows filters.
fn policy(name: Option<&str>) -> String {
    match name {
        Some("all") => "ACCEPT".to_owned(),
        Some("none") => "REJECT".to_owned(),
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "(unnamed)".to_owned(),
    }
}

fn changes(imports: &ImportCounts, exports: &ExportCounts) -> Directions {
    let rejected = imports.looped + imports.over_limit;
    Directions {
        import_updates: ChangeCounts {
            received: imports.accepted + imports.unchanged + imports.filtered + rejected,
            rejected,
            filtered: imports.filtered,
            ignored: imports.unchanged,
            accepted: imports.accepted,
        },
        import_withdraws: ChangeCounts {
            received: imports.withdrawn + imports.withdrawn_unknown,
            ignored: imports.withdrawn_unknown,
            accepted: imports.withdrawn,
            ..ChangeCounts::default()
        },
        export_updates: ChangeCounts {
            received: exports.announced + exports.withheld,
            filtered: exports.withheld,
            accepted: exports.announced,
            ..ChangeCounts::default()
        },
        export_withdraws: ChangeCounts {
            received: exports.withdrawn,
            accepted: exports.withdrawn,
            ..ChangeCounts::default()
        },
    }
}

/// The capabilities of a neighbour, in BIRD's words and order.
fn offered(theirs: &Capabilities) -> Vec<&'static str> {
    let restart = theirs
        .graceful_restart
        .as_ref()
        .map(|restart| if restart.families.is_empty() { "restart-aware" } else { "restart-able" });
    let long_lived = theirs
        .long_lived
        .as_ref()
        .map(|families| if families.is_empty() { "llgr-aware" } else { "llgr-able" });
    let receives = |mode: bgp_proto::wire::AddPathMode| mode.receives();
    let sends = |mode: bgp_proto::wire::AddPathMode| mode.sends();
    let any = |has: &dyn Fn(bgp_proto::wire::AddPathMode) -> bool| {
        Family::ALL.into_iter().any(|family| has(theirs.add_path_mode(family)))
    };
    let flag = |on: bool, word: &'static str| on.then_some(word);
    [
        flag(theirs.route_refresh, "refresh"),
        flag(theirs.enhanced_refresh, "enhanced-refresh"),
        restart,
        long_lived,
        flag(theirs.four_octet_as.is_some(), "AS4"),
        flag(any(&receives), "add-path-rx"),
        flag(any(&sends), "add-path-tx"),
        flag(theirs.extended_message, "ext-messages"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The end of the restart time of a peer that is down. BIRD has a timer of its own for long-lived
/// stale routes, which it shows per channel.
fn restart_ends(counts: &PeerCounts) -> Option<Time> {
    counts.restarting?;
    let retained = counts.retained.0.iter().flatten();
    retained.filter(|r| r.phase == RetainedPhase::Restart).map(|r| r.until).max()
}

fn established(
    record: &Record,
    negotiated: &Negotiated,
    snapshot: &PeerSnapshot,
    counts: &PeerCounts,
    now: Time,
) -> Established {
    let flag = |on: bool, word: &'static str| on.then_some(word);
    let internal = negotiated.peer_type == PeerType::Internal;
    let session = [
        Some(if internal { "internal" } else { "external" }),
        flag(internal || record.session.multihop_ttl.is_some(), "multihop"),
        flag(record.routes.reflection.client, "route-reflector"),
        flag(negotiated.four_octet_as, "AS4"),
        flag(!negotiated.add_path_rx.is_empty(), "add-path-rx"),
        flag(!negotiated.add_path_tx.is_empty(), "add-path-tx"),
        flag(negotiated.tx_max_len > bgp_proto::wire::MAX_LEN, "ext-messages"),
    ];
    let held: u64 = counts.received.0.iter().map(|n| u64::from(*n)).sum();
    let timer = |until: Option<Time>, of: Duration| Wait {
        left: until.map(|until| until.since(now)).unwrap_or_default(),
        of,
    };
    Established {
        neighbor_id: negotiated.peer_router_id,
        capabilities: offered(&negotiated.peer_capabilities),
        session: session.into_iter().flatten().collect(),
        source: off_interface(negotiated.local_addr).0,
        limit: record.routes.limits.prefixes_max.map(|limit| (held, limit)),
        hold: timer(snapshot.timers.hold, negotiated.hold_time),
        keepalive: timer(snapshot.timers.keepalive, negotiated.keepalive_time),
    }
}

/// Converts the table's views to BIRD's routes.
struct Shown<'a, N> {
    sources: &'a Sources,
    names: N,
    now: Time,
}

impl<N: Names> Shown<'_, N> {
    fn routes(&self, view: &DestinationView, query: &RouteQuery, out: &mut Vec<Route>) {
        let has_best = view.paths.iter().any(|path| path.best);
        // BIRD's first route of a network is its best one even if its next hop is unreachable.
        let whole = query.protocol.is_none() && query.export.is_none();
        for (at, path) in view.paths.iter().filter(|path| is_in_table(path)).enumerate() {
            let is_best = path.best || !has_best && whole && at == 0;
            if is_best || !query.primary {
                out.push(self.route(view.prefix, path, is_best));
            }
        }
    }

    fn route(&self, prefix: Prefix, path: &PathView, is_best: bool) -> Route {
        let sender = path.peer.and_then(|id| self.sources.registry.get(id));
        let (protocol, kind) = match (path.source, &sender) {
            (Source::Bgp, Some(record)) => {
                let address = off_interface(record.address).0;
                (reader_name(&record.name, address).into(), Kind::Bgp)
            }
            // The peer was removed since the page was made; clients cannot parse a route without a
            // session name.
            (Source::Bgp, None) => {
                let address = path.next_hop.map_or(IpAddr::from([0; 4]), NextHop::addr);
                (reader_name("", off_interface(address).0).into(), Kind::Bgp)
            }
            (Source::Static, _) => ("static1".into(), Kind::Static),
            (Source::Announced, _) => ("announced1".into(), Kind::Static),
            (Source::Kernel, _) => ("kernel1".into(), Kind::Kernel),
            (Source::Direct, _) => ("direct1".into(), Kind::Direct),
            (Source::Vrf, _) => ("pipe1".into(), Kind::Static),
        };
        // Ages are in whole seconds. Subtracted from a whole second, they give the same time for a
        // route in every answer.
        let second = self.now.as_secs().saturating_sub(path.age_secs);
        Route {
            prefix,
            via: self.via(prefix, path),
            protocol,
            kind,
            since: self.sources.wall(Time::ZERO + Duration::from_secs(second)),
            from: sender.map(|record| off_interface(record.address).0),
            rank: match is_best {
                false => Rank::Other,
                true if self.is_failed(prefix) => Rank::BestNotInstalled,
                true => Rank::Best,
            },
            preference: path.preference,
            bgp: (path.source == Source::Bgp).then(|| BgpRoute {
                long_lived_stale: AttrView::new(&path.attrs)
                    .communities()
                    .any(|community| community == Community::LLGR_STALE),
                metric: match (path.hops.is_empty(), path.igp_metric) {
                    (true, _) => IgpMetric::Unresolvable,
                    (false, Some(0)) => IgpMetric::Known(0),
                    (false, _) => IgpMetric::Unknown,
                },
                next_hop: path.next_hop.map(NextHop::off_interface),
                attrs: Arc::clone(&path.attrs),
            }),
        }
    }

    fn is_failed(&self, prefix: Prefix) -> bool {
        let kernel = &self.sources.kernel;
        kernel.counters().failed > 0
            && kernel.lookup(prefix).is_some_and(|route| route.state == FibState::Failed)
    }

    fn via(&self, prefix: Prefix, path: &PathView) -> Via {
        let name = |index: u32| self.names.interface(index).unwrap_or_else(|| format!("if{index}"));
        let gateways = |hops: &[bgp_proto::types::Hop]| {
            let next_hop = path.next_hop.map(|hop| hop.off_interface().addr());
            let gateways: Vec<(IpAddr, String)> = hops
                .iter()
                .filter_map(|hop| Some((hop.gateway.or(next_hop)?, name(hop.ifindex))))
                .collect();
            if gateways.is_empty() { Via::Unreachable } else { Via::Gateways(gateways) }
        };
        let Some(own) = &path.own else { return gateways(&path.hops) };
        // The learned kernel route has more detail than the table keeps.
        let learned = own.install.is_none().then(|| self.sources.learned(prefix, path.source));
        if let Some(learned) = learned.flatten() {
            match learned.kind {
                LearnedKind::Blackhole => return Via::Blackhole,
                LearnedKind::Unreachable => return Via::Unreachable,
                LearnedKind::Unicast if learned.hops.len() > 1 => return gateways(&learned.hops),
                LearnedKind::Unicast | LearnedKind::Direct => {}
            }
        }
        match (&own.install, own.next_hop, &own.interface) {
            (Some(FibKind::Unicast(hops)), ..) => gateways(hops),
            (Some(FibKind::Blackhole), ..) => Via::Blackhole,
            (Some(FibKind::Unreachable), ..) => Via::Unreachable,
            (None, Some(gateway), Some(interface)) => {
                Via::Gateways(vec![(gateway, interface.to_string())])
            }
            (None, None, Some(interface)) => Via::Device(interface.to_string()),
            (None, _, None) if !own.hops.is_empty() => gateways(&own.hops),
            (None, _, None) => Via::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use bgp_proto::table::Retained;
    use bgp_proto::types::Asn;
    use bgp_proto::wire::{AddPathMode, GracefulRestart, GracefulRestartFamily, LongLivedFamily};

    use super::*;

    #[test]
    fn the_restart_timer_does_not_count_the_long_lived_time() {
        let at = |secs| Time::ZERO + std::time::Duration::from_secs(secs);
        let retained = |phase, secs| Some(Retained { phase, paths: 1, until: at(secs) });
        let mut counts = PeerCounts { restarting: Some(at(1120)), ..PeerCounts::default() };
        counts.retained[Family::Ipv4] = retained(RetainedPhase::Restart, 120);
        counts.retained[Family::Ipv6] = retained(RetainedPhase::LongLived, 1120);
        assert_eq!(restart_ends(&counts), Some(at(120)));
        counts.retained[Family::Ipv4] = None;
        assert_eq!(restart_ends(&counts), None);
        counts.retained[Family::Ipv4] = retained(RetainedPhase::Restart, 120);
        assert_eq!(restart_ends(&PeerCounts { restarting: None, ..counts }), None, "it is back");
    }

    /// The capabilities of BIRD in Calico's mesh, with an empty capability 71 (LLGR).
    #[test]
    fn capabilities_are_shown_in_birds_words() {
        let family = Family::Ipv4.afi_safi();
        let restart = GracefulRestart {
            restarting: false,
            notification: false,
            restart_time_secs: 120,
            families: vec![GracefulRestartFamily { family, forwarding: true }],
        };
        let mut bird = Capabilities {
            route_refresh: true,
            enhanced_refresh: true,
            graceful_restart: Some(restart),
            long_lived: Some(Vec::new()),
            four_octet_as: Some(Asn(64512)),
            add_path: vec![(family, AddPathMode::Both)],
            ..Capabilities::default()
        };
        assert_eq!(
            offered(&bird).join(" "),
            "refresh enhanced-refresh restart-able llgr-aware AS4 add-path-rx add-path-tx"
        );
        let kept = LongLivedFamily { family, forwarding: false, stale_time_secs: 60 };
        bird.long_lived = Some(vec![kept]);
        assert!(offered(&bird).contains(&"llgr-able"));
        bird.long_lived = None;
        assert!(offered(&bird).iter().all(|word| !word.starts_with("llgr")));
    }
}
