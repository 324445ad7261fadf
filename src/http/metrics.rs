//! Numbers as Prometheus reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::session::{Origin, State, Stats};
use bgp_proto::table::{GroupView, PeerCounts, Totals};
use bgp_proto::types::{Asn, Family};
use bgp_proto::wire::Code;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Everything that a scrape shows.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot {
    /// Every peer.
    pub peers: Vec<PeerMetrics>,
    /// Sizes of the table.
    pub totals: Totals,
    /// The update groups.
    pub groups: Vec<GroupView>,
    /// The kernel's routes of ours; `None` if none are written.
    pub fib: Option<FibMetrics>,
    /// On a Calico node: what is known about its objects.
    pub calico: Option<CalicoMetrics>,
    /// Whether nothing is missing for being ready.
    pub ready: bool,
}

/// What is known about a Calico node's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalicoMetrics {
    /// Whether a plan is in force.
    pub in_force: bool,
    /// Problems by kind of object.
    pub problems: BTreeMap<String, u64>,
    /// Sources, and whether what is known of each is current.
    pub sources: Vec<(String, bool)>,
    /// Plans worked out.
    pub plans: u64,
    /// Microseconds that this took in all.
    pub planning_micros: u64,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub remote_asn: Asn,
    /// FSM state.
    pub state: State,
    /// Seconds since it was entered.
    pub state_seconds: u64,
    /// Message counters.
    pub stats: Stats,
    /// Prefix counters.
    pub counts: PeerCounts,
    /// Direction and code of the last failure.
    pub last_error: Option<(Origin, Option<Code>)>,
}

/// The kernel's routes of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FibMetrics {
    /// In the kernel as wanted.
    pub installed: u64,
    /// Not written yet.
    pub pending: u64,
    /// Refused by the kernel.
    pub failed: u64,
    /// Giving way to somebody else's.
    pub foreign: u64,
    /// Route messages sent to the kernel.
    pub writes: u64,
    /// Batches of them.
    pub batches: u64,
    /// Messages that the kernel refused.
    pub errors: u64,
    /// Full readings of the kernel.
    pub resyncs: u64,
}

const STATES: [(State, &str); 6] = [
    (State::Idle, "Idle"),
    (State::Connect, "Connect"),
    (State::Active, "Active"),
    (State::OpenSent, "OpenSent"),
    (State::OpenConfirm, "OpenConfirm"),
    (State::Established, "Established"),
];

impl MetricsSnapshot {
    /// The text exposition format, with the usual metrics of the process.
    pub fn render(&self) -> String {
        let mut families = Families::default();
        families.gauge(
            "margay_build_info",
            "1, with the version.",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1,
        );
        families.gauge(
            "margay_ready",
            "Whether margay is ready to serve.",
            &[],
            u64::from(self.ready),
        );
        self.collect_peers(&mut families);
        self.collect_table(&mut families);
        if let Some(fib) = &self.fib {
            collect_fib(fib, &mut families);
        }
        if let Some(calico) = &self.calico {
            collect_calico(calico, &mut families);
        }
        let mut all = families.into_vec();
        all.extend(ProcessCollector::for_self().collect());
        // The encoder fails for families without a name or without metrics; ours have both.
        TextEncoder::new().encode_to_string(&all).unwrap_or_default()
    }

    fn collect_peers(&self, families: &mut Families) {
        for (state, name) in STATES {
            let count = self.peers.iter().filter(|p| p.state == state).count() as u64;
            families.gauge("margay_peers", "Peers by FSM state.", &[("state", name)], count);
        }
        for peer in &self.peers {
            let (address, asn) = (peer.address.to_string(), peer.remote_asn.to_string());
            let name = [("peer", peer.name.as_str())];
            families.gauge(
                "margay_peer_up",
                "Whether the session is established.",
                &[name[0], ("address", &address), ("remote_asn", &asn)],
                u64::from(peer.state == State::Established),
            );
            families.gauge(
                "margay_peer_state",
                "FSM state: 0 Idle, 1 Connect, 2 Active, 3 OpenSent, 4 OpenConfirm, 5 Established.",
                &name,
                STATES.iter().position(|(s, _)| *s == peer.state).unwrap_or_default() as u64,
            );
            families.gauge(
                "margay_peer_state_seconds",
                "Seconds since the FSM state was entered.",
                &name,
                peer.state_seconds,
            );
            if let Some((origin, code)) = &peer.last_error {
                collect_last_error(&peer.name, *origin, *code, families);
            }
            collect_prefixes(&peer.name, &peer.counts, families);
            collect_messages(&peer.name, &peer.stats, families);
        }
    }

    fn collect_table(&self, families: &mut Families) {
        let totals = &self.totals;
        for family in Family::ALL {
            let label = family.to_string();
            let labels = [("family", label.as_str())];
            families.gauge(
                "margay_destinations",
                "Destinations in the table.",
                &labels,
                totals.destinations[family].into(),
            );
            families.gauge(
                "margay_paths",
                "Paths in the table.",
                &labels,
                totals.paths[family].into(),
            );
        }
        let attribute_sets = totals.attribute_sets.into();
        families.gauge("margay_attribute_sets", "Distinct attribute sets.", &[], attribute_sets);
        families.gauge("margay_next_hops", "Distinct next hops.", &[], totals.next_hops.into());
        families.gauge("margay_groups", "Update groups.", &[], totals.groups.into());
        for group in &self.groups {
            let (id, family) = (group.id.to_string(), group.family.to_string());
            let labels = [("group", id.as_str()), ("family", family.as_str())];
            families.gauge(
                "margay_group_members",
                "Peers in the update group.",
                &labels,
                group.members.len() as u64,
            );
            families.gauge(
                "margay_group_prefixes",
                "Prefixes that the group advertises.",
                &labels,
                group.prefixes.into(),
            );
            families.gauge(
                "margay_group_log_bytes",
                "Octets in the group's log.",
                &labels,
                group.log_bytes as u64,
            );
            families.counter(
                "margay_group_evictions_total",
                "Members that fell off the group's log.",
                &labels,
                group.evictions,
            );
        }
    }
}

fn collect_last_error(peer: &str, origin: Origin, code: Option<Code>, families: &mut Families) {
    let direction = match origin {
        Origin::Sent => "sent",
        Origin::Received => "received",
        Origin::Local => "local",
    };
    let text = |n: Option<u8>| n.map(|n| n.to_string()).unwrap_or_default();
    let (code, subcode) = (text(code.map(|c| c.code)), text(code.map(|c| c.subcode)));
    families.gauge(
        "margay_peer_last_error_info",
        "1, with the NOTIFICATION code of the last failure.",
        &[("peer", peer), ("direction", direction), ("code", &code), ("subcode", &subcode)],
        1,
    );
}

fn collect_prefixes(peer: &str, counts: &PeerCounts, families: &mut Families) {
    for family in Family::ALL {
        let label = family.to_string();
        for (kind, count) in [
            ("received", counts.received[family]),
            ("accepted", counts.accepted[family]),
            ("advertised", counts.advertised[family]),
        ] {
            families.gauge(
                "margay_peer_prefixes",
                "Prefixes received from the peer, accepted of these, and advertised to it.",
                &[("peer", peer), ("family", &label), ("kind", kind)],
                count.into(),
            );
        }
    }
}

fn collect_messages(peer: &str, stats: &Stats, families: &mut Families) {
    for (direction, kind, count) in [
        ("received", "update", stats.updates_received),
        ("received", "keepalive", stats.keepalives_received),
        ("sent", "keepalive", stats.keepalives_sent),
        ("received", "notification", stats.notifications_received),
        ("sent", "notification", stats.notifications_sent),
        ("received", "route-refresh", stats.refreshes_received),
        ("sent", "route-refresh", stats.refreshes_sent),
    ] {
        families.counter(
            "margay_peer_messages_total",
            "BGP messages by direction and type.",
            &[("peer", peer), ("direction", direction), ("type", kind)],
            count,
        );
    }
    for (name, help, count) in [
        (
            "margay_peer_received_bytes_total",
            "Octets received from the peer.",
            stats.octets_received,
        ),
        (
            "margay_peer_treated_as_withdraw_total",
            "UPDATEs treated as withdraw (RFC 7606).",
            stats.treated_as_withdraw,
        ),
        (
            "margay_peer_attributes_discarded_total",
            "Attributes discarded (RFC 7606).",
            stats.attributes_discarded,
        ),
        (
            "margay_peer_established_total",
            "Sessions that were established.",
            stats.established_transitions,
        ),
        (
            "margay_peer_connect_failures_total",
            "Failed attempts to connect.",
            stats.connect_failures,
        ),
    ] {
        families.counter(name, help, &[("peer", peer)], count);
    }
}

fn collect_fib(fib: &FibMetrics, families: &mut Families) {
    for (state, count) in [
        ("installed", fib.installed),
        ("pending", fib.pending),
        ("failed", fib.failed),
        ("foreign", fib.foreign),
    ] {
        families.gauge(
            "margay_fib_routes",
            "Our routes by what the kernel did with them.",
            &[("state", state)],
            count,
        );
    }
    for (name, help, count) in [
        ("margay_fib_writes_total", "Route messages sent to the kernel.", fib.writes),
        ("margay_fib_batches_total", "Batches of route messages.", fib.batches),
        ("margay_fib_errors_total", "Route messages that the kernel refused.", fib.errors),
        ("margay_fib_resyncs_total", "Full readings of the kernel's routes.", fib.resyncs),
    ] {
        families.counter(name, help, &[], count);
    }
}

/// Families under construction, by name.
fn collect_calico(calico: &CalicoMetrics, families: &mut Families) {
    families.gauge(
        "margay_calico_in_force",
        "Whether a plan that follows from Calico's objects is in force.",
        &[],
        u64::from(calico.in_force),
    );
    families.gauge(
        "margay_calico_problems",
        "Objects, or parts of them, that cannot be used.",
        &[],
        calico.problems.values().sum(),
    );
    for (kind, count) in &calico.problems {
        families.gauge(
            "margay_calico_kind_problems",
            "Objects, or parts of them, that cannot be used, by kind.",
            &[("kind", kind)],
            *count,
        );
    }
    for (name, is_current) in &calico.sources {
        families.gauge(
            "margay_calico_source_current",
            "Whether what is known of a source is current.",
            &[("source", name)],
            u64::from(*is_current),
        );
    }
    families.counter(
        "margay_calico_plans_total",
        "Plans worked out from Calico's objects.",
        &[],
        calico.plans,
    );
    families.counter(
        "margay_calico_planning_microseconds_total",
        "Microseconds that working plans out took.",
        &[],
        calico.planning_micros,
    );
}

#[derive(Default)]
struct Families(BTreeMap<&'static str, (MetricType, &'static str, Vec<Metric>)>);

impl Families {
    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: u64,
    ) {
        let mut gauge = Gauge::default();
        gauge.set_value(value as f64);
        self.entry(name, help, MetricType::GAUGE, labels).set_gauge(gauge);
    }

    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: u64,
    ) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        self.entry(name, help, MetricType::COUNTER, labels).set_counter(counter);
    }

    fn entry(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        labels: &[(&str, &str)],
    ) -> &mut Metric {
        let label = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let metric = Metric::from_label(labels.iter().map(label).collect());
        let (_, _, metrics) = self.0.entry(name).or_insert_with(|| (kind, help, Vec::new()));
        let index = metrics.len();
        metrics.push(metric);
        &mut metrics[index]
    }

    fn into_vec(self) -> Vec<MetricFamily> {
        let family = |(name, (kind, help, metrics)): (&str, (MetricType, &str, Vec<Metric>))| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        };
        self.0.into_iter().map(family).collect()
    }
}
