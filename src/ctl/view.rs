//! Converts views of the table and of sessions to items of an answer.

use std::time::{Duration, SystemTime};

use bgp_proto::rib::{NextHopState, Over};
use bgp_proto::session::{self, Negotiated, PeerConfig, RemoteAsn, State, Stats};
use bgp_proto::table::{
    self, DestinationView, ExportCounts, GroupView, ImportCounts, NextHopView, PathView,
    PeerCounts, PeerRoutes,
};
use bgp_proto::types::{Family, FamilyMap, FibChange, FibKind, Hop, PeerId, Time, off_interface};
use bgp_proto::wire::{AsPath, AttrView, Origin, SegmentKind};

use super::item::{
    self, AsPathPart, Explanation, Gateway, Group, LastError, Messages, Path, Peer, PerFamily,
    PrefixCounts, Resolution, Retained, RetainedPhase, Route, Timers,
};
use super::rfc3339;

/// Names of peers and interfaces, which views identify by numbers.
pub trait Names {
    /// The name of a peer; `None` if it was removed.
    fn peer(&self, peer: PeerId) -> Option<String>;
    /// The name of an interface; `None` if it does not exist.
    fn interface(&self, index: u32) -> Option<String>;
}

/// Converts [`Time`] to wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// The wall-clock time of [`Time::ZERO`].
    pub zero: SystemTime,
    /// The current time.
    pub now: Time,
}

impl WallClock {
    fn text(&self, at: Time) -> String {
        rfc3339(self.zero + Duration::from_micros(at.as_micros()))
    }
}

/// Everything about a peer that its item is made of.
#[derive(Clone, Copy, Debug)]
pub struct PeerFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its description.
    pub description: Option<&'a str>,
    /// Whether it was accepted from a range.
    pub dynamic: bool,
    /// The interface of a peer by interface.
    pub interface: Option<&'a str>,
    /// Session parameters.
    pub config: &'a PeerConfig,
    /// Routing parameters.
    pub routes: &'a PeerRoutes,
    /// FSM state.
    pub state: State,
    /// When it was entered.
    pub since: Time,
    /// When its timers expire.
    pub timers: session::Timers,
    /// The negotiated parameters, while the session is established.
    pub negotiated: Option<&'a Negotiated>,
    /// Message counters.
    pub stats: &'a Stats,
    /// Prefix counters.
    pub counts: &'a PeerCounts,
    /// The last failure.
    pub last_error: Option<&'a session::LastError>,
    /// The last failure of BGP.
    pub last_bgp_error: Option<&'a session::LastError>,
    /// State of its BFD session; `None`: BFD is not configured.
    pub bfd: Option<bgp_proto::bfd::State>,
}

/// A peer as an item.
pub fn peer(facts: &PeerFacts<'_>, clock: &WallClock) -> Peer {
    let PeerFacts { config, routes, negotiated, counts, .. } = *facts;
    let sum = |map: &FamilyMap<u32>| map.0.iter().fold(0u32, |sum, n| sum.saturating_add(*n));
    let families = negotiated.map_or(config.families, |n| n.families);
    Peer {
        name: facts.name.to_owned(),
        description: facts.description.map(str::to_owned),
        address: off_interface(config.address).0,
        interface: facts.interface.map(str::to_owned),
        vrf: config.vrf.as_deref().map(str::to_owned),
        port: config.port,
        remote_asn: negotiated
            .map(|n| n.peer_asn)
            .or(config.remote_asn.exactly())
            .map_or(0, |asn| asn.0),
        remote_asn_accepted: match config.remote_asn {
            RemoteAsn::Exactly(_) => None,
            accepted => Some(accepted.to_string()),
        },
        local_asn: config.local_asn.0,
        peer_type: negotiated.map_or(config.peer_type(), |n| n.peer_type),
        dynamic: facts.dynamic,
        vantage: facts.routes.vantage.as_deref().map(str::to_owned),
        state: state_name(facts.state).to_owned(),
        since: clock.text(facts.since),
        state_seconds: clock.now.since(facts.since).as_secs(),
        families: families.iter().collect(),
        router_id: negotiated.map(|n| n.peer_router_id.to_string()),
        local_address: negotiated.map(|n| off_interface(n.local_addr).0),
        prefixes_received: sum(&counts.received),
        prefixes_accepted: sum(&counts.accepted),
        prefixes_advertised: sum(&counts.advertised),
        prefixes: per_family(|family| PrefixCounts {
            received: counts.received[family],
            accepted: counts.accepted[family],
            advertised: counts.advertised[family],
        }),
        // Set by the caller.
        events: None,
        tcp_ao: None,
        shutdown: None,
        drained: None,
        unacknowledged: None,
        stale_seconds: counts.restarting.map(|until| until.since(clock.now).as_secs()),
        retained: per_family(|family| {
            counts.retained[family].map(|retained| retained_routes(&retained, clock.now))
        }),
        long_lived_stale_time: per_family(|family| {
            let negotiated = negotiated.filter(|n| n.long_lived.is_some())?;
            Some(negotiated.long_lived_stale_times()[family].as_secs())
        }),
        prefixes_max: routes.limits.prefixes_max,
        object: None,
        filters: Vec::new(),
        import: routes.import.policy.name.to_string(),
        export: routes.export.policy.name.to_string(),
        hold_time: negotiated.map_or(config.hold_time, |n| n.hold_time).as_secs(),
        keepalive_time: negotiated
            .map(|n| n.keepalive_time)
            .or(config.keepalive_time)
            .map(|t| t.as_secs()),
        timers: timers(facts.timers, clock.now),
        capabilities: negotiated.map(|n| n.peer_capabilities.names()).unwrap_or_default(),
        capabilities_sent: negotiated.map(|n| n.local_capabilities.names()).unwrap_or_default(),
        group: Family::ALL.into_iter().find_map(|family| counts.group[family]),
        groups: per_family(|family| counts.group[family]),
        messages: messages(facts.stats, counts),
        bfd: facts.bfd.map(|state| state.to_string()),
        bfd_strict: config.bfd_mode == session::BfdMode::Strict,
        last_error: facts.last_error.map(|error| last_error(error, clock)),
        last_bgp_error: facts.last_bgp_error.map(|error| last_error(error, clock)),
        passive: config.passive.is_passive(),
        flaps: facts
            .stats
            .established_transitions
            .saturating_sub(u64::from(facts.state == State::Established)),
    }
}

fn last_error(error: &session::LastError, clock: &WallClock) -> LastError {
    LastError {
        at: clock.text(error.at),
        direction: match error.origin {
            session::Origin::Sent => "sent",
            session::Origin::Received => "received",
            session::Origin::Local => "local",
        }
        .to_owned(),
        code: error.code.map(|c| c.code),
        subcode: error.code.map(|c| c.subcode),
        text: error.text.clone(),
    }
}

fn timers(timers: session::Timers, now: Time) -> Timers {
    let left = |at: Option<Time>| at.map(|at| at.since(now).as_secs());
    Timers {
        hold: left(timers.hold),
        keepalive: left(timers.keepalive),
        connect_retry: left(timers.retry),
        idle_hold: left(timers.idle_hold),
    }
}

/// The name of a state as in RFC 4271 §8.2.2.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Idle => "Idle",
        State::Connect => "Connect",
        State::Active => "Active",
        State::OpenSent => "OpenSent",
        State::OpenConfirm => "OpenConfirm",
        State::Established => "Established",
    }
}

fn retained_routes(retained: &table::Retained, now: Time) -> Retained {
    Retained {
        phase: match retained.phase {
            table::RetainedPhase::Restart => RetainedPhase::Restart,
            table::RetainedPhase::LongLived => RetainedPhase::LongLived,
        },
        paths: retained.paths,
        seconds: retained.until.since(now).as_secs(),
    }
}

fn per_family<T>(of: impl Fn(Family) -> T) -> PerFamily<T> {
    PerFamily { ipv4: of(Family::Ipv4), ipv6: of(Family::Ipv6) }
}

fn messages(stats: &Stats, counts: &PeerCounts) -> Messages {
    let (mut received, mut sent) = (ImportCounts::default(), ExportCounts::default());
    for family in Family::ALL {
        received += counts.imports[family];
        sent += counts.exports[family];
    }
    Messages {
        updates_received: stats.updates_received,
        keepalives_received: stats.keepalives_received,
        keepalives_sent: stats.keepalives_sent,
        notifications_received: stats.notifications_received,
        notifications_sent: stats.notifications_sent,
        refreshes_received: stats.refreshes_received,
        refreshes_sent: stats.refreshes_sent,
        treated_as_withdraw: stats.treated_as_withdraw,
        attributes_discarded: stats.attributes_discarded,
        octets_received: stats.octets_received,
        // Set by the caller: the state machine does not see UPDATEs that are sent.
        updates_sent: 0,
        octets_sent: 0,
        prefixes_received: received.changes() + received.unchanged + received.withdrawn_unknown,
        prefixes_sent: sent.announced + sent.withdrawn,
        established_transitions: stats.established_transitions,
        connect_failures: stats.connect_failures,
    }
}

/// A destination as an item.
pub fn route(view: &DestinationView, names: &impl Names) -> Route {
    Route { prefix: view.prefix, paths: view.paths.iter().map(|p| path(p, names)).collect() }
}

pub(super) fn path(view: &PathView, names: &impl Names) -> Path {
    let attrs = AttrView::new(&view.attrs);
    Path {
        best: view.best,
        multipath: view.multipath,
        stale: view.stale,
        long_lived: view.long_lived,
        source: view.source,
        peer: view.peer.map(|id| peer_name(id, names)),
        vrf: view.own.as_ref().and_then(|own| own.from.as_deref()).map(str::to_owned),
        vantage: view.vantage.as_deref().map(str::to_owned),
        vantage_cost: view.cost,
        path_id: view.path_id.0,
        next_hop: view.next_hop.map(|n| off_interface(n.addr()).0),
        gateway: own_gateway(view).map_or_else(|| gateways(&view.hops, names), |own| vec![own]),
        resolved_by: None,
        bfd: None,
        origin: match attrs.origin() {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        }
        .to_owned(),
        as_path: as_path(attrs.as_path()),
        local_pref: attrs.local_pref(),
        med: attrs.med(),
        communities: attrs.communities().map(|c| c.to_string()).collect(),
        large_communities: attrs.large_communities().map(|c| c.to_string()).collect(),
        extended_communities: attrs.ext_communities().map(|c| c.to_string()).collect(),
        originator_id: attrs.originator_id().map(|id| id.to_string()),
        cluster_list: attrs.cluster_list().map(|id| id.to_string()).collect(),
        age_seconds: view.age_secs,
        unusable: view.unusable.map(|why| why.to_string()),
        igp_metric: view.igp_metric,
        import_rule: view.import_rule.clone(),
        reason: word(&view.reason),
    }
}

/// The name of a peer; `#` and its id if it was removed.
fn peer_name(id: PeerId, names: &impl Names) -> String {
    names.peer(id).unwrap_or_else(|| format!("#{}", id.0))
}

/// The gateway of a learned kernel route, if it has a single hop.
fn own_gateway(view: &PathView) -> Option<Gateway> {
    let own = view.own.as_ref().filter(|own| own.hops.is_empty())?;
    let interface = own.interface.as_deref()?.to_owned();
    Some(Gateway { via: own.next_hop, interface, onlink: false })
}

fn gateways(hops: &[Hop], names: &impl Names) -> Vec<Gateway> {
    let gateway = |hop: &Hop| Gateway {
        via: hop.gateway,
        interface: names.interface(hop.ifindex).unwrap_or_else(|| format!("#{}", hop.ifindex)),
        onlink: hop.onlink,
    };
    hops.iter().map(gateway).collect()
}

fn as_path(path: AsPath<'_>) -> Vec<AsPathPart> {
    let mut parts = Vec::new();
    for segment in path.segments() {
        match segment.kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => {
                parts.extend(segment.iter().map(|asn| AsPathPart::Asn(asn.0)));
            }
            SegmentKind::Set | SegmentKind::ConfedSet => {
                parts.push(AsPathPart::Set(segment.iter().map(|asn| asn.0).collect()));
            }
        }
    }
    parts
}

/// The word as which a unit variant of an enum is serialised.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A next hop as an item; `by` is the kernel route that decides how it is reached.
pub fn next_hop(view: &NextHopView, by: Option<&str>, names: &impl Names) -> item::NextHop {
    let (address, interface) = off_interface(view.addr);
    let (state, hops, metric) = match &view.state {
        NextHopState::Local => (Resolution::Local, &[][..], None),
        NextHopState::Unreachable => (Resolution::Unresolved, &[][..], None),
        NextHopState::Via { hops, metric, over: Over::Default, .. } => {
            (Resolution::DefaultRoute, &hops[..], Some(*metric))
        }
        NextHopState::Via { hops, metric, connected: true, .. } => {
            (Resolution::Connected, &hops[..], Some(*metric))
        }
        NextHopState::Via { hops, metric, .. } => (Resolution::Recursive, &hops[..], Some(*metric)),
    };
    let reason = match (state, by) {
        (Resolution::Connected | Resolution::Recursive, _) => None,
        (Resolution::Local, _) => Some("it is an address of this machine".to_owned()),
        (Resolution::DefaultRoute, _) => {
            Some("only the default route covers it (fib.resolve-via-default)".to_owned())
        }
        (Resolution::Unresolved, Some(by)) => Some(format!("{by}: not usable")),
        (Resolution::Unresolved, None) => {
            Some("no kernel route covers it, apart from margay's own".to_owned())
        }
    };
    item::NextHop {
        address,
        interface: interface
            .map(|index| names.interface(index.get()).unwrap_or_else(|| format!("#{index}"))),
        vrf: None,
        state,
        gateways: gateways(hops, names),
        metric,
        resolved_by: by.map(str::to_owned),
        paths: view.paths,
        peer: view.peer.map(|id| peer_name(id, names)),
        reason,
    }
}

/// An update group as an item.
pub fn group(view: &GroupView, names: &impl Names) -> Group {
    Group {
        id: view.id,
        family: view.family,
        vrf: None,
        members: view.members.iter().map(|id| peer_name(*id, names)).collect(),
        vantage: view.vantage.as_deref().map(str::to_owned),
        alone_because: view.alone_because.clone(),
        log_bytes: view.log_bytes as u64,
        prefixes: view.prefixes,
        evictions: view.evictions,
    }
}

/// An explanation as an item. The caller adds the state of the kernel's route (`state`, `error` and
/// others).
pub fn explanation(view: &bgp_proto::table::Explanation, names: &impl Names) -> Explanation {
    let Route { prefix, paths } = route(&view.destination, names);
    let asked: Option<(_, &[Hop])> = match &view.fib {
        FibChange::Install(FibKind::Unicast(hops)) => Some(("unicast", hops)),
        FibChange::Install(FibKind::Blackhole) => Some(("blackhole", &[])),
        FibChange::Install(FibKind::Unreachable) => Some(("unreachable", &[])),
        FibChange::Keep => Some(("kept until another process installs one", &[])),
        FibChange::Withdraw => None,
    };
    let fib = asked.map(|(kind, hops)| {
        let gateways = gateways(hops, names);
        item::ExplainedFib {
            kind: kind.to_owned(),
            gateways,
            metric: None,
            table: None,
            state: None,
            error: None,
        }
    });
    let advertised = view.advertised.iter().map(|told| item::Advertised {
        peer: peer_name(told.peer, names),
        path_id: told.path_id.map(|id| id.0),
        next_hop: off_interface(told.next_hop.addr()).0,
    });
    let withheld = view.withheld.iter().map(|withheld| item::Withheld {
        peer: peer_name(withheld.peer, names),
        rule: withheld.rule.clone(),
    });
    Explanation {
        objects: Vec::new(),
        vantage: None,
        prefix,
        paths,
        fib,
        fib_absent: None,
        advertised: advertised.collect(),
        withheld: withheld.collect(),
        kernel: None,
        peer: None,
    }
}

#[cfg(test)]
mod tests;
