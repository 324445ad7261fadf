//! The data shown by `margay show fib` and the metrics.

use std::net::IpAddr;

use bgp_proto::types::{FamilyMap, FibKind, Prefix};
use serde::Serialize;

use super::plan::{Part, Row};
use crate::kernel::{FibConfig, Link};

/// One route, as wanted and as installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FibView {
    /// Destination.
    pub prefix: Prefix,
    /// What the kernel is to do with packets.
    pub kind: ViewKind,
    /// The next hops of a `unicast` route.
    pub gateways: Vec<ViewGateway>,
    /// The kernel's metric (RTA_PRIORITY).
    pub metric: u32,
    /// The routing table.
    pub table: u32,
    /// Our rtm_protocol.
    pub protocol: u8,
    /// Whether it is installed.
    pub state: FibState,
    /// Why the route, or a part of it, is not installed; with the kernel's explanation if it gave
    /// one.
    pub error: Option<String>,
}

/// The kind of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewKind {
    /// Forwarded.
    Unicast,
    /// Dropped silently.
    Blackhole,
    /// Dropped with an ICMP error.
    Unreachable,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViewGateway {
    /// The gateway; `None` on a directly connected network.
    pub via: Option<IpAddr>,
    /// The interface's name, or `#` and its index when it was deleted.
    pub interface: String,
    /// Whether the gateway counts as on the link though it is in no network of the interface.
    pub onlink: bool,
}

/// Whether a route is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FibState {
    /// Installed as wanted.
    Installed,
    /// Not written yet.
    Pending,
    /// The kernel refused it; retried when links or addresses change, and after growing waits.
    Failed,
    /// A route of another process has the same prefix and metric, or the prefix is a connected
    /// network; ours is installed when that is removed.
    Foreign,
}

/// Counters and gauges for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FibCounters {
    /// Routes that are installed as wanted.
    pub installed: u64,
    /// The same by family.
    pub installed_by_family: FamilyMap<u64>,
    /// Routes not written yet.
    pub pending: u64,
    /// Routes that the kernel refuses.
    pub failed: u64,
    /// Routes that are not installed because of a route of another process or a connected network.
    pub foreign: u64,
    /// Next hops and source addresses that the kernel refuses: routes are installed without them.
    pub refused_next_hops: u64,
    /// Our next-hop objects that the kernel has: groups that routes use, and their members.
    pub next_hop_objects: u64,
    /// Requests for routes and next-hop objects sent to the kernel since the start.
    pub writes: u64,
    /// Batches of requests for routes.
    pub batches: u64,
    /// Requests that the kernel refused.
    pub errors: u64,
    /// Full dumps of the kernel's routes, the first one included.
    pub resyncs: u64,
}

/// A row of the plan as `show fib` prints it.
pub(crate) fn render(row: Row, config: &FibConfig, links: &[Link]) -> FibView {
    let name = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("#{index}"), |link| link.name.clone())
    };
    let left_out = row.left_out.iter().map(|(part, reason)| match part {
        Part::Leg(hop) => match hop.gateway {
            Some(via) => format!("without via {via} dev {}: {reason}", name(hop.ifindex)),
            None => format!("without dev {}: {reason}", name(hop.ifindex)),
        },
        Part::Source(source) => format!("without src {source}: {reason}"),
    });
    let keeps = row.keeps.then(|| "the route before stays until then".to_owned());
    let reasons: Vec<String> = row.error.into_iter().chain(left_out).chain(keeps).collect();
    let (kind, hops) = match &row.spec.kind {
        FibKind::Unicast(hops) => (ViewKind::Unicast, hops.as_slice()),
        FibKind::Blackhole => (ViewKind::Blackhole, [].as_slice()),
        FibKind::Unreachable => (ViewKind::Unreachable, [].as_slice()),
    };
    let gateways = hops.iter().map(|hop| ViewGateway {
        via: hop.gateway,
        interface: name(hop.ifindex),
        onlink: hop.onlink,
    });
    FibView {
        prefix: row.prefix,
        kind,
        gateways: gateways.collect(),
        metric: row.spec.metric,
        table: config.table,
        protocol: config.protocol,
        state: row.state,
        error: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bgp_proto::types::Hop;
    use serde_json::json;

    use super::*;
    use crate::kernel::LinkTraits;
    use crate::kernel::spec::RouteSpec;

    fn shown(
        kind: FibKind,
        metric: u32,
        state: FibState,
        error: Option<&str>,
    ) -> serde_json::Value {
        let config = FibConfig::new(100, 77);
        let eth0 = Link {
            index: 2,
            name: "eth0".to_owned(),
            up: true,
            running: true,
            traits: LinkTraits::default(),
            mtu: 1500,
            addresses: Vec::new(),
        };
        let spec = Arc::new(RouteSpec::new(kind, metric));
        let prefix = "10.0.0.0/8".parse().unwrap();
        let error = error.map(str::to_owned);
        let row = Row { prefix, spec, state, error, left_out: Vec::new(), keeps: false };
        serde_json::to_value(render(row, &config, &[eth0])).unwrap()
    }

    /// The keys of `show fib` that scripts rely on, exactly.
    #[test]
    fn a_kernel_route_has_the_promised_keys() {
        let gateway =
            Hop { gateway: Some([10, 0, 0, 1].into()), ifindex: 2, onlink: false, weight: 1 };
        let direct = Hop { gateway: None, ifindex: 9, onlink: true, weight: 1 };
        assert_eq!(
            shown(FibKind::Unicast(vec![gateway, direct]), 20, FibState::Installed, None),
            json!({"prefix": "10.0.0.0/8", "kind": "unicast",
                   "gateways": [{"via": "10.0.0.1", "interface": "eth0", "onlink": false},
                                {"via": null, "interface": "#9", "onlink": true}],
                   "metric": 20, "table": 100, "protocol": 77, "state": "installed",
                   "error": null})
        );
        assert_eq!(
            shown(FibKind::Blackhole, 0, FibState::Failed, Some("no such device")),
            json!({"prefix": "10.0.0.0/8", "kind": "blackhole", "gateways": [], "metric": 0,
                   "table": 100, "protocol": 77, "state": "failed", "error": "no such device"})
        );
        let words = |kind, state| {
            let view = shown(kind, 0, state, None);
            (view["kind"].clone(), view["state"].clone())
        };
        assert_eq!(
            words(FibKind::Unreachable, FibState::Pending),
            ("unreachable".into(), "pending".into())
        );
        assert_eq!(
            words(FibKind::Blackhole, FibState::Foreign),
            ("blackhole".into(), "foreign".into())
        );
    }
}
