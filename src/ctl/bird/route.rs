//! `show route` and `show interfaces`.

use std::fmt::Write as _;
use std::net::IpAddr;

use bgp_proto::types::{Community, ExtCommunity, NextHop, Prefix};
use bgp_proto::wire::{AsPath, AttrView, Origin, SegmentKind};

use super::command::Detail;
use super::model::{BgpRoute, IgpMetric, Interface, Kind, Rank, Route, Via};
use super::reply::{
    INTERFACE, INTERFACE_ADDRESS, INTERFACE_FLAGS, INTERFACE_HEADING, INTERFACE_SUMMARY, ROUTE,
    ROUTE_ATTRIBUTES, ROUTE_TYPE, Reply,
};
use super::when::Clock;

/// Formats the routes of one reply: the prefix is written once for all its paths.
#[derive(Debug, Default)]
pub(super) struct Routes {
    prefix: Option<Prefix>,
}

impl Routes {
    /// Adds one path: a line per gateway and, with [`Detail::All`], its attributes.
    pub(super) fn route(
        &mut self,
        reply: &mut Reply,
        route: &Route,
        detail: Detail,
        clock: &Clock,
    ) {
        let since = clock.short(route.since);
        let tail = |gateway: Option<IpAddr>| {
            let from = route.from.filter(|from| Some(*from) != gateway);
            let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
            let rank = match route.rank {
                Rank::Best => " *",
                Rank::BestNotInstalled => " !",
                Rank::Other => "",
            };
            format!("[{} {since}{from}]{rank}{}", route.protocol, info(route))
        };
        let mut line = |via: &str, gateway| {
            let shown = self.prefix.replace(route.prefix);
            let prefix =
                if shown == Some(route.prefix) { String::new() } else { route.prefix.to_string() };
            reply.line(ROUTE, format_args!("{prefix:<18} {via} {}", tail(gateway)));
        };
        match &route.via {
            Via::Blackhole => line("blackhole", None),
            Via::Unreachable => line("unreachable", None),
            Via::Device(interface) => line(&format!("dev {interface}"), None),
            Via::Gateways(gateways) => {
                for (gateway, interface) in gateways {
                    line(&format!("via {gateway} on {interface}"), Some(*gateway));
                }
            }
        }
        if detail == Detail::All {
            let kind = match route.kind {
                Kind::Static => "static",
                Kind::Kernel => "inherit",
                Kind::Device | Kind::Direct => "device",
                Kind::Bgp => "BGP",
            };
            reply.line(ROUTE_TYPE, format_args!("\tType: {kind} unicast univ"));
            if let Some(bgp) = &route.bgp {
                attributes(reply, bgp);
            }
        }
    }
}

/// The preference and, for BGP routes, the metric, AS and origin.
fn info(route: &Route) -> String {
    let mut info = format!(" ({}", route.preference);
    let Some(bgp) = &route.bgp else { return info + ")" };
    if bgp.long_lived_stale {
        info.push('s');
    }
    // Writing to a String cannot fail.
    let _ = match bgp.metric {
        IgpMetric::Known(metric) => write!(info, "/{metric}"),
        IgpMetric::Unknown => write!(info, "/?"),
        IgpMetric::Unresolvable => write!(info, "/-"),
    };
    info.push_str(") [");
    let attrs = AttrView::new(&bgp.attrs);
    if let Some(asn) = attrs.as_path().asns().last() {
        let _ = write!(info, "AS{asn}");
    }
    info.push(match attrs.origin() {
        Origin::Igp => 'i',
        Origin::Egp => 'e',
        Origin::Incomplete => '?',
    });
    info.push(']');
    info
}

fn attributes(reply: &mut Reply, route: &BgpRoute) {
    let attrs = AttrView::new(&route.attrs);
    let mut line = |name: &str, value: &str| {
        reply.line(ROUTE_ATTRIBUTES, format_args!("\tBGP.{name}: {value}"));
    };
    let origin = match attrs.origin() {
        Origin::Igp => "IGP",
        Origin::Egp => "EGP",
        Origin::Incomplete => "Incomplete",
    };
    line("origin", origin);
    line("as_path", &as_path(attrs.as_path()));
    match route.next_hop {
        Some(NextHop::V6Both { global, link_local }) => {
            line("next_hop", &format!("{global} {link_local}"));
        }
        Some(hop) => line("next_hop", &hop.to_string()),
        None => {}
    }
    if let Some(med) = attrs.med() {
        line("med", &med.to_string());
    }
    if let Some(preference) = attrs.local_pref() {
        line("local_pref", &preference.to_string());
    }
    if attrs.atomic_aggregate() {
        line("atomic_aggr", "");
    }
    if let Some((asn, address)) = attrs.aggregator() {
        line("aggregator", &format!("{address} AS{asn}"));
    }
    let mut list = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            line(name, &values.join(" "));
        }
    };
    let pair = |c: Community| format!("({},{})", c.0 >> 16, c.0 & 0xFFFF);
    list("community", attrs.communities().map(pair).collect());
    list("originator_id", attrs.originator_id().iter().map(ToString::to_string).collect());
    list("cluster_list", attrs.cluster_list().map(|id| id.to_string()).collect());
    list("ext_community", attrs.ext_communities().map(ext_community).collect());
    let triple =
        |c: bgp_proto::types::LargeCommunity| format!("({}, {}, {})", c.global, c.local1, c.local2);
    list("large_community", attrs.large_communities().map(triple).collect());
}

fn as_path(path: AsPath<'_>) -> String {
    let segment = |segment: bgp_proto::wire::AsSegment<'_>| {
        let numbers: Vec<String> = segment.iter().map(|asn| asn.to_string()).collect();
        let numbers = numbers.join(" ");
        match segment.kind {
            SegmentKind::Sequence => numbers,
            SegmentKind::Set => format!("{{{numbers}}}"),
            SegmentKind::ConfedSequence => format!("({numbers})"),
            SegmentKind::ConfedSet => format!("({{{numbers}}})"),
        }
    };
    path.segments().map(segment).collect::<Vec<_>>().join(" ")
}

/// A kind and two numbers; how the six octets divide depends on the kind (RFC 4360 §3,
/// RFC 5668 §2).
fn ext_community(community: ExtCommunity) -> String {
    let [kind, sub, a, b, c, d, e, f] = community.0;
    let kind_word = match sub {
        2 => "rt",
        3 => "ro",
        _ => {
            let high = u32::from_be_bytes([kind, sub, a, b]);
            let low = u32::from_be_bytes([c, d, e, f]);
            return format!("(generic, {high:#x}, {low:#x})");
        }
    };
    let short = u16::from_be_bytes;
    match kind & 0x3F {
        0 => format!("({kind_word}, {}, {})", short([a, b]), u32::from_be_bytes([c, d, e, f])),
        1 => format!("({kind_word}, {a}.{b}.{c}.{d}, {})", short([e, f])),
        2 => format!("({kind_word}, {}, {})", u32::from_be_bytes([a, b, c, d]), short([e, f])),
        _ => {
            let high = u32::from_be_bytes([kind, sub, a, b]);
            let low = u32::from_be_bytes([c, d, e, f]);
            format!("(generic, {high:#x}, {low:#x})")
        }
    }
}

/// `show interfaces`.
pub(super) fn interfaces(reply: &mut Reply, interfaces: &[Interface]) {
    for i in interfaces {
        // BIRD's definition of up: administratively up, with carrier and an address.
        let up = i.admin_up && i.link_up && !i.addresses.is_empty();
        let state = if up { "up" } else { "DOWN" };
        reply.line(INTERFACE, format_args!("{} {state} (index={})", i.name, i.index));
        let flag = |on: bool, text: &'static str| if on { text } else { "" };
        let kind = if i.broadcast || i.loopback { "MultiAccess" } else { "PtP" };
        reply.line(
            INTERFACE_FLAGS,
            format_args!(
                "\t{kind}{}{} Admin{} Link{}{} MTU={}",
                flag(i.broadcast, " Broadcast"),
                flag(i.multicast, " Multicast"),
                if i.admin_up { "Up" } else { "Down" },
                if i.link_up { "Up" } else { "Down" },
                flag(i.loopback, " Loopback Ignored"),
                i.mtu
            ),
        );
        let primary = primary_address(i);
        for (address, length) in &i.addresses {
            let chosen =
                if Some((*address, *length)) == primary { "Primary" } else { "Unselected" };
            reply.line(
                INTERFACE_ADDRESS,
                format_args!("\t{address}/{length} ({chosen}, scope {})", scope(*address)),
            );
        }
    }
}

/// `show interfaces summary`.
pub(super) fn interfaces_summary(reply: &mut Reply, interfaces: &[Interface]) {
    reply.line(INTERFACE_HEADING, format_args!("interface state address"));
    for i in interfaces {
        let up = i.admin_up && i.link_up && !i.addresses.is_empty();
        let address = primary_address(i).map(|(a, len)| format!("{a}/{len}")).unwrap_or_default();
        reply.line(
            INTERFACE_SUMMARY,
            format_args!("{:<9} {:<5} {address}", i.name, if up { "up" } else { "DOWN" }),
        );
    }
}

/// The first address that other hosts can reach, else the first address.
fn primary_address(interface: &Interface) -> Option<(IpAddr, u8)> {
    let addresses = &interface.addresses;
    let reachable =
        addresses.iter().find(|(address, _)| !matches!(scope(*address), "host" | "link"));
    reachable.or(addresses.first()).copied()
}

/// The scope of an address, in BIRD's words.
fn scope(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(a) if a.is_loopback() => "host",
        IpAddr::V4(a) if a.is_link_local() => "link",
        IpAddr::V4(a) if a.is_private() => "site",
        IpAddr::V6(a) if a.is_loopback() => "host",
        IpAddr::V6(a) if a.is_unicast_link_local() => "link",
        IpAddr::V6(a) if a.is_unique_local() => "site",
        _ => "univ",
    }
}
