//! Metrics of sessions: all together by state and kind, and selected peers individually.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::session::RemoteAsn;
use bgp_proto::session::{Origin, State, Stats};
use bgp_proto::table::{PeerCounts, RetainedPhase};
use bgp_proto::types::Family;
use bgp_proto::wire::Code;

use super::families::{Families, Labels};
use crate::metric_names as names;

const STATES: [(State, &str); 6] = [
    (State::Idle, "Idle"),
    (State::Connect, "Connect"),
    (State::Active, "Active"),
    (State::OpenSent, "OpenSent"),
    (State::OpenConfirm, "OpenConfirm"),
    (State::Established, "Established"),
];

/// All sessions together. Counters include those of removed peers.
#[derive(Clone, Debug, Default)]
pub struct SessionMetrics {
    /// Peers by kind and state. Kinds without peers may be absent.
    pub states: BTreeMap<(&'static str, State), u64>,
    /// The traffic of all connections.
    pub traffic: Traffic,
    /// Sessions that ended, by reason, with an entry for every reason.
    pub ends: Vec<(&'static str, u64)>,
    /// Connections that were refused before they were assigned to a peer, by reason.
    pub refusals: Vec<(&'static str, u64)>,
    /// Prefixes by kind and family.
    pub prefixes: BTreeMap<(&'static str, Family), PrefixCounts>,
    /// Peers that have reached the warning threshold of a prefix limit.
    pub near_prefix_limit: u64,
}

/// Current numbers of prefixes (with ADD-PATH: of paths).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Routes in the Adj-RIB-In, including rejected ones.
    pub received: u64,
    /// Those of them that import accepted.
    pub accepted: u64,
    /// Routes in the Adj-RIB-Out.
    pub advertised: u64,
    /// Stale routes of the Adj-RIB-In that are retained for the restart time (RFC 4724).
    pub stale: u64,
    /// Those that are long-lived stale (RFC 9494).
    pub long_lived_stale: u64,
}

impl PrefixCounts {
    /// The numbers of a peer in one family.
    pub fn of(counts: &PeerCounts, family: Family) -> Self {
        let retained = |phase| {
            let retained = counts.retained[family].filter(|retained| retained.phase == phase);
            retained.map_or(0, |retained| u64::from(retained.paths))
        };
        PrefixCounts {
            stale: retained(RetainedPhase::Restart),
            long_lived_stale: retained(RetainedPhase::LongLived),
            received: counts.received[family].into(),
            accepted: counts.accepted[family].into(),
            advertised: counts.advertised[family].into(),
        }
    }

    /// Adds the numbers of another peer.
    pub fn add(&mut self, other: PrefixCounts) {
        let PrefixCounts { received, accepted, advertised, stale, long_lived_stale } = other;
        self.stale += stale;
        self.long_lived_stale += long_lived_stale;
        self.received += received;
        self.accepted += accepted;
        self.advertised += advertised;
    }
}

/// Traffic of one peer, or of all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The session's counters.
    pub stats: Stats,
    /// UPDATEs written.
    pub updates_sent: u64,
    /// Octets written.
    pub octets_sent: u64,
}

impl Traffic {
    /// Adds the traffic of another peer.
    pub fn add(&mut self, other: &Traffic) {
        let Traffic { stats, updates_sent, octets_sent } = *other;
        self.stats += stats;
        self.updates_sent += updates_sent;
        self.octets_sent += octets_sent;
    }

    fn messages(&self) -> [(&'static str, &'static str, u64); 8] {
        let stats = &self.stats;
        [
            ("received", "update", stats.updates_received),
            ("sent", "update", self.updates_sent),
            ("received", "keepalive", stats.keepalives_received),
            ("sent", "keepalive", stats.keepalives_sent),
            ("received", "notification", stats.notifications_received),
            ("sent", "notification", stats.notifications_sent),
            ("received", "route-refresh", stats.refreshes_received),
            ("sent", "route-refresh", stats.refreshes_sent),
        ]
    }
}

impl SessionMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        self.collect_states(families);
        for (reason, count) in &self.ends {
            families.counter(
                names::SESSION_ENDS_TOTAL,
                "Established sessions that ended, by reason. \"received-…\": the peer's \
                 NOTIFICATION ended it. \"connection-lost\": TCP failed or was closed without one.",
                &[("reason", reason)],
                *count,
            );
        }
        for (reason, count) in &self.refusals {
            families.counter(
                names::CONNECTIONS_REFUSED_TOTAL,
                "Connections to us that were refused before their first octet was read, by reason.",
                &[("reason", reason)],
                *count,
            );
        }
        for ((kind, family), prefixes) in &self.prefixes {
            let family = family.to_string();
            let labels = [("kind", *kind), ("family", family.as_str())];
            collect_prefixes(
                [names::PREFIXES_RECEIVED, names::PREFIXES_ACCEPTED, names::PREFIXES_ADVERTISED],
                &labels,
                prefixes,
                families,
            );
            collect_stale(names::PREFIXES_STALE, &labels, prefixes, families);
        }
        families.gauge(
            names::PEERS_NEAR_PREFIX_LIMIT,
            "Peers that hold at least the share of prefixes-max that is warned about \
             (prefixes-warning-percent).",
            &[],
            self.near_prefix_limit,
        );
        for (direction, kind, count) in self.traffic.messages() {
            families.counter(
                names::MESSAGES_TOTAL,
                "BGP messages of all sessions by direction and type.",
                &[("direction", direction), ("type", kind)],
                count,
            );
        }
        self.collect_traffic(families);
    }

    fn collect_states(&self, families: &mut Families) {
        let mut kinds: Vec<&str> = self.states.keys().map(|(kind, _)| *kind).collect();
        kinds.dedup();
        for kind in kinds {
            for (state, name) in STATES {
                let count = self.states.get(&(kind, state)).copied().unwrap_or_default();
                families.gauge(
                    names::PEERS,
                    "Peers by kind of session and FSM state. Kinds: mesh, global, node and \
                     local-workload on a Calico node; else internal, external, and dynamic for \
                     those accepted from a range.",
                    &[("kind", kind), ("state", name)],
                    count,
                );
            }
        }
    }

    fn collect_traffic(&self, families: &mut Families) {
        let Traffic { stats, octets_sent, .. } = &self.traffic;
        for (name, help, count) in [
            (
                names::RECEIVED_BYTES_TOTAL,
                "Octets of BGP messages received from all peers.",
                stats.octets_received,
            ),
            (names::SENT_BYTES_TOTAL, "Octets of BGP messages written to all peers.", *octets_sent),
            (
                names::TREATED_AS_WITHDRAW_TOTAL,
                "Received UPDATEs with a fault that withdraws their routes (RFC 7606).",
                stats.treated_as_withdraw,
            ),
            (
                names::ATTRIBUTES_DISCARDED_TOTAL,
                "Received attributes that were discarded for a fault (RFC 7606).",
                stats.attributes_discarded,
            ),
            (
                names::SESSIONS_ESTABLISHED_TOTAL,
                "Sessions that were established.",
                stats.established_transitions,
            ),
            (
                names::CONNECT_FAILURES_TOTAL,
                "Attempts to connect to a peer that failed.",
                stats.connect_failures,
            ),
            (
                names::STRAY_CONNECTIONS_TOTAL,
                "Connections from peers' addresses that came to nothing: no OPEN that was accepted, \
                 no session.",
                stats.stray_connections,
            ),
        ] {
            families.counter(name, help, &[], count);
        }
    }
}

fn collect_prefixes(
    [received, accepted, advertised]: [&'static str; 3],
    labels: Labels<'_>,
    counts: &PrefixCounts,
    families: &mut Families,
) {
    for (name, help, count) in [
        (received, "Prefixes received and held, refused ones included.", counts.received),
        (accepted, "Prefixes received and accepted by the import policy.", counts.accepted),
        (advertised, "Prefixes that are advertised to peers at present.", counts.advertised),
    ] {
        families.gauge(name, help, labels, count);
    }
}

fn collect_stale(
    name: &'static str,
    labels: Labels<'_>,
    counts: &PrefixCounts,
    families: &mut Families,
) {
    for (phase, count) in [("restart", counts.stale), ("long-lived", counts.long_lived_stale)] {
        let labels = [labels, &[("phase", phase)]].concat();
        families.gauge(
            name,
            "Prefixes of ended sessions that are retained: for the restart time (RFC 4724), or as \
             long-lived stale (RFC 9494).",
            &labels,
            count,
        );
    }
}

/// One peer with its own series.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    /// Its name.
    pub name: String,
    /// Its VRF; `None`: the default VRF.
    pub vrf: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// The AS that is accepted.
    pub remote_asn: RemoteAsn,
    /// The kind of session.
    pub kind: &'static str,
    /// FSM state.
    pub state: State,
    /// Seconds since that state was entered.
    pub state_seconds: u64,
    /// The traffic of its connections.
    pub traffic: Traffic,
    /// Prefix counters; `None` if the table does not answer.
    pub counts: Option<PeerCounts>,
    /// Its prefix limit per family.
    pub prefixes_max: Option<u32>,
    /// Direction and code of the last failure.
    pub last_error: Option<(Origin, Option<Code>)>,
}

impl PeerMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        let name = [("peer", self.name.as_str())];
        let (address, asn) = (self.address.to_string(), self.remote_asn.to_string());
        families.gauge(
            names::PEER_UP,
            "Whether the session is established.",
            &[name[0], ("address", &address), ("remote_asn", &asn), ("kind", self.kind)],
            u64::from(self.state == State::Established),
        );
        families.gauge(
            names::PEER_STATE,
            "FSM state: 0 Idle, 1 Connect, 2 Active, 3 OpenSent, 4 OpenConfirm, 5 Established.",
            &name,
            STATES.iter().position(|(s, _)| *s == self.state).unwrap_or_default() as u64,
        );
        families.gauge(
            names::PEER_STATE_SECONDS,
            "Seconds since the FSM state was entered.",
            &name,
            self.state_seconds,
        );
        if let Some((origin, code)) = &self.last_error {
            self.collect_last_error(*origin, *code, families);
        }
        if let Some(max) = self.prefixes_max {
            families.gauge(
                names::PEER_PREFIXES_MAX,
                "The peer's prefix limit per family (prefixes-max).",
                &name,
                max.into(),
            );
        }
        if let Some(counts) = &self.counts {
            self.collect_routes(counts, families);
        }
        self.collect_traffic(families);
    }

    fn collect_last_error(&self, origin: Origin, code: Option<Code>, families: &mut Families) {
        let direction = match origin {
            Origin::Sent => "sent",
            Origin::Received => "received",
            Origin::Local => "local",
        };
        let text = |n: Option<u8>| n.map(|n| n.to_string()).unwrap_or_default();
        let (code, subcode) = (text(code.map(|c| c.code)), text(code.map(|c| c.subcode)));
        families.gauge(
            names::PEER_LAST_ERROR_INFO,
            "1, with the NOTIFICATION code of the last failure.",
            &[
                ("peer", &self.name),
                ("direction", direction),
                ("code", &code),
                ("subcode", &subcode),
            ],
            1,
        );
    }

    fn collect_routes(&self, counts: &PeerCounts, families: &mut Families) {
        for family in Family::ALL {
            let label = family.to_string();
            let labels = [("peer", self.name.as_str()), ("family", label.as_str())];
            let prefixes = PrefixCounts::of(counts, family);
            collect_prefixes(
                [
                    names::PEER_PREFIXES_RECEIVED,
                    names::PEER_PREFIXES_ACCEPTED,
                    names::PEER_PREFIXES_ADVERTISED,
                ],
                &labels,
                &prefixes,
                families,
            );
            // Few peers are ever in this state: the others have no such series.
            if counts.retained[family].is_some() {
                collect_stale(names::PEER_PREFIXES_STALE, &labels, &prefixes, families);
            }
            families.counter(
                names::PEER_ROUTE_CHANGES_TOTAL,
                "Announcements and withdrawals by the peer that changed something, refused \
                 announcements included.",
                &labels,
                counts.imports[family].changes(),
            );
        }
    }

    fn collect_traffic(&self, families: &mut Families) {
        let peer = ("peer", self.name.as_str());
        for (direction, kind, count) in self.traffic.messages() {
            families.counter(
                names::PEER_MESSAGES_TOTAL,
                "BGP messages by direction and type.",
                &[peer, ("direction", direction), ("type", kind)],
                count,
            );
        }
        let Traffic { stats, octets_sent, .. } = &self.traffic;
        for (name, help, count) in [
            (
                names::PEER_RECEIVED_BYTES_TOTAL,
                "Octets received from the peer.",
                stats.octets_received,
            ),
            (names::PEER_SENT_BYTES_TOTAL, "Octets written to the peer.", *octets_sent),
            (
                names::PEER_TREATED_AS_WITHDRAW_TOTAL,
                "UPDATEs treated as withdraw (RFC 7606).",
                stats.treated_as_withdraw,
            ),
            (
                names::PEER_ATTRIBUTES_DISCARDED_TOTAL,
                "Attributes discarded (RFC 7606).",
                stats.attributes_discarded,
            ),
            (
                names::PEER_ESTABLISHED_TOTAL,
                "Sessions that were established.",
                stats.established_transitions,
            ),
            (
                names::PEER_CONNECT_FAILURES_TOTAL,
                "Failed attempts to connect.",
                stats.connect_failures,
            ),
            (
                names::PEER_STRAY_CONNECTIONS_TOTAL,
                "Connections from the peer's address that came to nothing.",
                stats.stray_connections,
            ),
        ] {
            families.counter(name, help, &[peer], count);
        }
    }
}
