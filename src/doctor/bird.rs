//! Parses replies of BIRD 1.6 and margay: protocols, routes and exported prefixes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::policy::Source;
use bgp_proto::types::{Asn, Prefix};

/// Reply codes (`doc/reply_codes` of BIRD).
const PROTOCOL: u16 = 1002;
const PROTOCOL_DETAILS: u16 = 1006;
const ROUTE: u16 = 1007;
const ROUTE_TYPE: u16 = 1008;
const ROUTE_ATTRIBUTES: u16 = 1012;
const VERSION: u16 = 1000;
const GRACEFUL_RESTART: u16 = 24;

/// Maximum number of paths read from a table.
pub(super) const PATHS_MAX: usize = 1_000_000;

/// The reply to `show status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Such as `1.6.8` or `v0.3.3+birdv1.6.8`.
    pub(super) version: String,
    /// Whether it still waits for neighbours to send their routes again.
    pub(super) is_recovering: bool,
}

impl Status {
    /// Parses a line of the reply.
    pub(super) fn take(&mut self, code: u16, text: &str) {
        match code {
            VERSION => {
                if let Some(version) = text.strip_prefix("BIRD ") {
                    version.trim().clone_into(&mut self.version);
                }
            }
            GRACEFUL_RESTART => self.is_recovering = true,
            _ => {}
        }
    }
}

/// A protocol of BIRD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Protocol {
    /// Its name.
    pub(super) name: String,
    /// Such as `BGP`, `Static` or `OSPF`.
    pub(super) kind: String,
    /// BGP only: the state of the session; empty: it is disabled.
    pub(super) state: String,
    /// BGP only: the last error.
    pub(super) error: Option<String>,
    /// BGP only: the neighbour's address.
    pub(super) neighbor: Option<IpAddr>,
    /// BGP only: the neighbour's AS.
    pub(super) remote_asn: Option<Asn>,
    /// Established sessions only: the neighbour's capabilities.
    pub(super) capabilities: BTreeSet<String>,
    /// Established sessions only: the type and properties, such as `internal`.
    pub(super) session: BTreeSet<String>,
    /// Established sessions only: our address.
    pub(super) source: Option<IpAddr>,
}

impl Protocol {
    /// Whether it is an established session.
    pub(super) fn is_established(&self) -> bool {
        self.state == "Established"
    }

    /// Whether it is an established iBGP session.
    pub(super) fn is_internal(&self) -> bool {
        self.session.contains("internal")
    }

    /// Whether the neighbour is a route reflector client of ours.
    pub(super) fn is_client(&self) -> bool {
        self.session.contains("route-reflector")
    }
}

/// The answer to `show protocols all`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Protocols(pub(super) Vec<Protocol>);

impl Protocols {
    /// Parses a line of the reply.
    pub(super) fn take(&mut self, code: u16, text: &str) {
        match code {
            PROTOCOL => {
                let mut words = text.split_whitespace();
                let (Some(name), Some(kind)) = (words.next(), words.next()) else { return };
                let (name, kind) = (name.to_owned(), kind.to_owned());
                self.0.push(Protocol { name, kind, ..Protocol::default() });
            }
            PROTOCOL_DETAILS => {
                if let Some(protocol) = self.0.last_mut() {
                    detail(protocol, text);
                }
            }
            _ => {}
        }
    }
}

fn detail(protocol: &mut Protocol, text: &str) {
    let Some((key, value)) = text.trim().split_once(':') else { return };
    let value = value.trim();
    let words = || value.split_whitespace().map(str::to_owned).collect();
    match key {
        "BGP state" => value.clone_into(&mut protocol.state),
        "Neighbor address" => {
            // A link-local address is followed by `%` and the interface.
            let address = value.split('%').next().unwrap_or(value);
            protocol.neighbor = address.parse().ok();
        }
        "Neighbor AS" => protocol.remote_asn = value.parse().ok().map(Asn),
        "Neighbor caps" => protocol.capabilities = words(),
        "Session" => protocol.session = words(),
        "Source address" => protocol.source = value.parse().ok(),
        "Last error" => protocol.error = Some(value.to_owned()),
        _ => {}
    }
}

/// What a path does with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// Sends them to these gateways on these interfaces.
    Gateways(Vec<(IpAddr, String)>),
    /// Delivers them directly on this interface.
    Device(String),
    /// Drops them silently.
    Blackhole,
    /// Drops them with an ICMP error.
    Unreachable,
}

/// A path in BIRD's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The name of the protocol that it is from.
    pub(super) protocol: String,
    /// The source that corresponds to the type of that protocol.
    pub(super) source: Source,
    /// What it does with packets.
    pub(super) via: Via,
    /// Whether BIRD uses it.
    pub(super) is_best: bool,
    /// The preference among protocols.
    pub(super) preference: u16,
    /// The metric of a BGP route's next hop, as BIRD prints it.
    pub(super) igp_metric: String,
    /// The metric of a kernel route; `None`: not shown.
    pub(super) metric: Option<u32>,
    /// BGP's NEXT_HOP.
    pub(super) next_hop: Option<IpAddr>,
    pub(super) local_pref: Option<u32>,
    pub(super) med: Option<u32>,
    pub(super) origin: String,
    pub(super) as_path: Vec<Asn>,
    /// Such as `64512:100`.
    pub(super) communities: Vec<String>,
    /// Such as `64512:1:2`.
    pub(super) large_communities: Vec<String>,
}

/// The reply to `show route all`: paths by prefix, in BIRD's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) paths: BTreeMap<Prefix, Vec<Path>>,
    /// Whether there are more paths than [`PATHS_MAX`].
    pub(super) is_cut: bool,
    count: usize,
    /// The prefix of the last line that had one.
    prefix: Option<Prefix>,
    /// Whether the next line without a prefix is a gateway of the last path: it is until the path's
    /// type was shown.
    is_open: bool,
}

impl Table {
    /// Parses a line of the reply.
    pub(super) fn take(&mut self, code: u16, text: &str) {
        match code {
            ROUTE => self.route(text),
            ROUTE_TYPE => {
                self.is_open = false;
                let kind = text.trim().strip_prefix("Type: ").unwrap_or_default();
                let source = match kind.split_whitespace().next() {
                    Some("BGP") => Source::Bgp,
                    Some("static" | "static-device") => Source::Static,
                    Some("device") => Source::Direct,
                    _ => Source::Kernel,
                };
                if let Some(path) = self.last() {
                    path.source = source;
                }
            }
            ROUTE_ATTRIBUTES => {
                if let Some((key, value)) = text.trim().split_once(':')
                    && let Some(path) = self.last()
                {
                    attribute(path, key, value.trim());
                }
            }
            _ => {}
        }
    }

    fn last(&mut self) -> Option<&mut Path> {
        self.paths.get_mut(&self.prefix?)?.last_mut()
    }

    fn route(&mut self, text: &str) {
        let first = text.split_whitespace().next().unwrap_or_default();
        let has_prefix = !text.starts_with([' ', '\t']);
        let rest = match (has_prefix, first.parse::<Prefix>()) {
            (true, Ok(prefix)) => {
                self.prefix = Some(prefix);
                self.is_open = false;
                text.strip_prefix(first).unwrap_or_default().trim()
            }
            // Not an IP route.
            (true, Err(_)) => {
                self.prefix = None;
                return;
            }
            (false, _) => text.trim(),
        };
        if self.is_open {
            // Another gateway of the same path.
            if let (Some(gateway), Some(path)) = (gateway(rest), self.last())
                && let Via::Gateways(gateways) = &mut path.via
            {
                gateways.push(gateway);
            }
            return;
        }
        let Some(prefix) = self.prefix else { return };
        self.is_cut |= self.count == PATHS_MAX;
        if self.is_cut {
            return;
        }
        if let Some(path) = parse_path(rest) {
            self.count += 1;
            self.is_open = true;
            self.paths.entry(prefix).or_default().push(path);
        }
    }
}

/// Parses `via 10.0.0.1 on eth0 …`.
fn gateway(text: &str) -> Option<(IpAddr, String)> {
    let mut words = text.split_whitespace();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("via"), Some(gateway), Some("on"), Some(interface)) => {
            Some((gateway.parse().ok()?, interface.to_owned()))
        }
        _ => None,
    }
}

/// Parses `via 10.0.0.1 on eth0 [Mesh_10_0_0_1 05:12:47 from 10.0.0.1] * (100/0) [i]`.
fn parse_path(text: &str) -> Option<Path> {
    let (way, rest) = text.split_once('[')?;
    let (origin, rest) = rest.split_once(']')?;
    let mut words = way.split_whitespace();
    let via = match words.next()? {
        "via" => Via::Gateways(vec![gateway(way)?]),
        "multipath" => Via::Gateways(Vec::new()),
        "dev" => Via::Device(words.next()?.to_owned()),
        "blackhole" => Via::Blackhole,
        _ => Via::Unreachable,
    };
    let (flag, rest) = rest.split_once('(')?;
    let (info, _) = rest.split_once(')')?;
    let (preference, igp_metric) = info.split_once('/').unwrap_or((info, ""));
    Some(Path {
        protocol: origin.split_whitespace().next()?.to_owned(),
        source: Source::Kernel,
        via,
        is_best: !flag.trim().is_empty(),
        // Followed by an s if the path is long-lived stale.
        preference: preference.trim_end_matches('s').parse().ok()?,
        igp_metric: igp_metric.to_owned(),
        metric: None,
        next_hop: None,
        local_pref: None,
        med: None,
        origin: String::new(),
        as_path: Vec::new(),
        communities: Vec::new(),
        large_communities: Vec::new(),
    })
}

fn attribute(path: &mut Path, key: &str, value: &str) {
    match key {
        "Kernel.metric" => path.metric = value.parse().ok(),
        // For IPv6, a link-local address may follow.
        "BGP.next_hop" => {
            path.next_hop = value.split_whitespace().next().and_then(|hop| hop.parse().ok());
        }
        "BGP.local_pref" => path.local_pref = value.parse().ok(),
        "BGP.med" => path.med = value.parse().ok(),
        "BGP.origin" => value.clone_into(&mut path.origin),
        "BGP.as_path" => {
            let is_digit = |c: char| c.is_ascii_digit();
            let numbers = value.split(|c| !is_digit(c)).filter_map(|number| number.parse().ok());
            path.as_path = numbers.map(Asn).collect();
        }
        "BGP.community" => path.communities = tuples(value),
        "BGP.large_community" => path.large_communities = tuples(value),
        _ => {}
    }
}

/// Parses `(64512,100) (64512, 1, 2)`; returns each tuple with colons.
fn tuples(text: &str) -> Vec<String> {
    let tuples = text.split('(').filter_map(|tuple| tuple.split_once(')'));
    tuples
        .map(|(numbers, _)| numbers.split(',').map(str::trim).collect::<Vec<_>>().join(":"))
        .collect()
}

/// The reply to `show route export`: the prefixes only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exported(pub(super) BTreeSet<Prefix>);

impl Exported {
    /// Parses a line of the reply.
    pub(super) fn take(&mut self, code: u16, text: &str) {
        let first = text.split_whitespace().next();
        let prefix: Option<Prefix> = first.and_then(|first| first.parse().ok());
        if code == ROUTE && !text.starts_with([' ', '\t']) {
            self.0.extend(prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> impl Iterator<Item = (u16, &'static str)> {
        text.lines().map(|line| {
            let (code, rest) = line.split_at(4);
            (code.parse().unwrap(), rest.strip_prefix('|').unwrap())
        })
    }

    /// As Debian's BIRD 1.6.8 prints it.
    const ROUTES: &str = "\
1007|10.192.0.0/24      dev eth0 [direct1 11:41:42] * (240)
1008|\tType: device unicast univ
1007|10.65.2.0/26       via 10.192.0.3 on eth0 [Mesh_10_192_0_3 11:41:46] * (100/0) [i]
1008|\tType: BGP unicast univ
1012|\tBGP.origin: IGP
1012|\tBGP.as_path: 65001 {7 8}
1012|\tBGP.next_hop: 10.192.0.3
1012|\tBGP.local_pref: 100
1012|\tBGP.community: (64512,100) (65535,65281)
1012|\tBGP.large_community: (64512, 1, 2)
1007|                   unreachable [Global_10_9_9_9 2026-11-29 from 10.9.9.9] (100/-) [AS7i]
1008|\tType: BGP unicast univ
1007|10.65.1.0/26       blackhole [static1 11:41:42] * (200)
1008|\tType: static unicast univ
1007|10.78.0.0/16       multipath [kernel1 11:41:42] ! (10)
1007|\tvia 10.192.0.3 on eth0 weight 1
1007|\tvia 10.192.0.4 on eth0 weight 1
1008|\tType: inherit unicast univ
1012|\tKernel.source: 80
1012|\tKernel.metric: 7";

    #[test]
    fn routes_are_parsed_as_bird_prints_them() {
        let mut table = Table::default();
        lines(ROUTES).for_each(|(code, text)| table.take(code, text));
        let of = |prefix: &str| table.paths[&prefix.parse::<Prefix>().unwrap()].as_slice();
        assert_eq!(of("10.192.0.0/24")[0].via, Via::Device("eth0".into()));
        assert_eq!(of("10.192.0.0/24")[0].source, Source::Direct);
        let [mesh, global] = of("10.65.2.0/26") else { panic!("{table:?}") };
        assert_eq!(
            mesh.via,
            Via::Gateways(vec![("10.192.0.3".parse().unwrap(), "eth0".to_owned())])
        );
        assert!(mesh.is_best && !global.is_best && global.via == Via::Unreachable);
        assert_eq!(
            (mesh.preference, mesh.igp_metric.as_str(), mesh.local_pref),
            (100, "0", Some(100))
        );
        assert_eq!(mesh.as_path, [Asn(65001), Asn(7), Asn(8)]);
        assert_eq!(mesh.communities, ["64512:100", "65535:65281"]);
        assert_eq!(mesh.large_communities, ["64512:1:2"]);
        assert_eq!(global.protocol, "Global_10_9_9_9");
        assert_eq!(of("10.65.1.0/26")[0].via, Via::Blackhole);
        let [kernel] = of("10.78.0.0/16") else { panic!("{table:?}") };
        assert!(matches!(&kernel.via, Via::Gateways(gateways) if gateways.len() == 2));
        assert_eq!((kernel.source, kernel.metric), (Source::Kernel, Some(7)));
        let mut exported = Exported::default();
        lines(ROUTES).for_each(|(code, text)| exported.take(code, text));
        assert_eq!(exported.0.len(), 4);
    }

    /// margay prints one line per gateway of a path.
    #[test]
    fn gateways_of_a_path_may_be_on_separate_lines() {
        let mut table = Table::default();
        let text = "\
1007|10.1.0.0/16        via 10.0.0.1 on eth0 [kernel1 11:41:42] * (10)
1007|                   via 10.0.0.2 on eth0 [kernel1 11:41:42] * (10)
1008|\tType: inherit unicast univ
1007|                   via 10.0.0.3 on eth0 [Mesh_10_0_0_3 11:41:42] (100/0) [i]
1008|\tType: BGP unicast univ";
        lines(text).for_each(|(code, text)| table.take(code, text));
        let paths = &table.paths[&"10.1.0.0/16".parse::<Prefix>().unwrap()];
        assert_eq!(paths.len(), 2);
        assert!(matches!(&paths[0].via, Via::Gateways(gateways) if gateways.len() == 2));
    }

    #[test]
    fn protocols_are_parsed_as_bird_prints_them() {
        let mut protocols = Protocols::default();
        let text = "\
2002|name     proto    table    state  since       info
1002|kernel1  Kernel   master   up     11:41:42    
1006|  Preference:     10
1002|Mesh_10_192_0_3 BGP      master   up     11:41:46    Established   
1006|  Description:    Connection to BGP peer
1006|  BGP state:          Established
1006|    Neighbor address: 10.192.0.3
1006|    Neighbor AS:      64512
1006|    Neighbor caps:    refresh enhanced-refresh restart-able llgr-aware AS4 add-path-rx add-path-tx
1006|    Session:          internal multihop route-reflector AS4 add-path-rx add-path-tx
1006|    Source address:   10.192.0.2
1006|
1002|Global_10_192_0_99 BGP      master   start  11:41:42    Connect       Socket: No route to host
1006|  BGP state:          Connect
1006|    Neighbor address: 10.192.0.99
1006|    Neighbor AS:      64599
1006|    Last error:       Socket: No route to host";
        lines(text).for_each(|(code, text)| protocols.take(code, text));
        let [kernel, mesh, global] = protocols.0.as_slice() else { panic!("{protocols:?}") };
        assert_eq!((kernel.name.as_str(), kernel.kind.as_str()), ("kernel1", "Kernel"));
        assert!(mesh.is_established() && mesh.is_internal() && mesh.is_client());
        assert!(mesh.capabilities.contains("restart-able"));
        assert_eq!(mesh.source, "10.192.0.2".parse().ok());
        assert_eq!(
            (global.remote_asn, global.neighbor),
            (Some(Asn(64599)), "10.192.0.99".parse().ok())
        );
        assert_eq!(global.error.as_deref(), Some("Socket: No route to host"));
        assert!(!global.is_established());
    }

    #[test]
    fn a_recovery_is_detected() {
        let mut status = Status::default();
        for (code, text) in [(1, "BIRD 1.6.8 ready."), (1000, "BIRD 1.6.8"), (13, "Daemon is up")] {
            status.take(code, text);
        }
        assert_eq!(status, Status { version: "1.6.8".into(), is_recovering: false });
        status.take(24, "Graceful restart recovery in progress");
        assert!(status.is_recovering);
    }
}
