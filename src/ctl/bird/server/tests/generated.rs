//! Calico's readers parse every reply, for arbitrary sessions and routes.

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::ctl::bird::BfdRow;

/// A backend with generated data.
#[derive(Clone, Debug)]
struct Generated {
    family: Family,
    recovery: Option<Recovery>,
    sessions: Vec<(Protocol, IpAddr)>,
    routes: Vec<Route>,
}

impl Backend for Generated {
    async fn bfd_sessions(&self, _: Family) -> Option<Vec<BfdRow>> {
        None
    }

    async fn status(&self, _: Family) -> Result<Status, String> {
        let now = SystemTime::now();
        let router_id = [10, 0, 0, 1].into();
        let drained = Some("Drained since 2026-11-23T05:12:45Z (0013 of 1011)".to_owned());
        Ok(Status { router_id, started: now, configured: now, recovery: self.recovery, drained })
    }
    async fn protocols(&self, _: Family) -> Result<Vec<Protocol>, String> {
        Ok(self.sessions.iter().map(|(protocol, _)| protocol.clone()).collect())
    }
    async fn details(&self, _: Family, protocols: &[Protocol]) -> Result<Vec<Details>, String> {
        let wait = Wait { left: Duration::from_secs(3), of: Duration::from_secs(5) };
        let details = |protocol: &Protocol| {
            let found = self.sessions.iter().find(|(of, _)| of.name == protocol.name).unwrap();
            let is_up = protocol.phase == Phase::Up;
            let session = is_up.then(|| Established {
                neighbor_id: RouterId(7),
                capabilities: vec!["refresh"],
                session: vec!["external"],
                source: found.1,
                limit: Some((1, 2)),
                hold: wait,
                keepalive: wait,
            });
            Details {
                description: Some("Connection to BGP peer".to_owned()),
                preference: 100,
                input_filter: "ACCEPT".into(),
                output_filter: "(unnamed)".into(),
                recovery: self.recovery.map(|_| RecoveryOf::PendingWaiting),
                imported: u64::MAX,
                exported: 0,
                preferred: 1,
                changes: Directions::default(),
                bgp: Some(BgpDetails {
                    neighbor: found.1,
                    neighbor_asn: u32::MAX,
                    restarting: (!is_up).then_some(Duration::from_secs(90)),
                    error_wait: (!is_up).then_some(wait),
                    connect_delay: (!is_up).then_some(wait),
                    session,
                }),
            }
        };
        Ok(protocols.iter().map(details).collect())
    }
    async fn routes(
        &self,
        _: Family,
        _: &RouteQuery,
        cursor: Option<&Cursor>,
    ) -> Result<RoutePage, String> {
        // Pages of one route each, so that the paths of a prefix may be spread over several.
        let at = match cursor {
            Some(Cursor::Index(at)) => *at as usize,
            _ => 0,
        };
        let next = (at + 1 < self.routes.len()).then_some(Cursor::Index(at as u32 + 1));
        let routes = self.routes.get(at).cloned().into_iter().collect();
        Ok(RoutePage { routes, networks: 1, next })
    }
    async fn interfaces(&self, _: Family) -> Vec<Interface> {
        Vec::new()
    }
    async fn act(&self, _: &Protocol, _: Action) -> Acted {
        Acted::Done
    }
    async fn configuration(&self) -> String {
        String::new()
    }
    async fn configure(&self, _: Configure) -> Result<(), String> {
        Ok(())
    }
}

fn address(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::Ipv4 => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
        Family::Ipv6 => any::<[u16; 8]>().prop_map(IpAddr::from).boxed(),
    }
}

/// Names as they follow from Calico's objects or from a configuration.
fn name(family: Family) -> BoxedStrategy<(String, IpAddr)> {
    let kinds = prop::sample::select(vec!["Mesh_", "Global_", "Node_", "Local_Workload_"]);
    let calico = (kinds, address(family), prop::option::of(any::<u16>())).prop_map(
        |(kind, address, port)| {
            let port = port.map(|port| format!("_port_{port}")).unwrap_or_default();
            let name = format!("{kind}{address}{port}").replace(['.', ':'], "_");
            (name, address)
        },
    );
    let own = ("[!-~]{1,200}", address(family));
    prop_oneof![4 => calico, 1 => own].boxed()
}

fn session(family: Family) -> impl Strategy<Value = (Protocol, IpAddr)> {
    let waiting = ["Idle", "Connect", "Active", "Passive", "OpenSent", "OpenConfirm"];
    let word = prop_oneof![Just("Established"), prop::sample::select(waiting.to_vec())];
    // A peer's message may be any text (RFC 9003).
    let error = prop::option::of("\\PC{0,40}|(Socket: |Received: )[ -~\n\r\t\u{1b}]{0,40}");
    (name(family), word, error, 0..200_000u64).prop_map(|((name, address), word, error, age)| {
        let is_up = word == "Established";
        let protocol = Protocol {
            id: ProtocolId::Peer(PeerId(0)),
            name: name.into(),
            kind: Kind::Bgp,
            phase: if is_up { Phase::Up } else { Phase::Start },
            since: SystemTime::now() - Duration::from_secs(age),
            word,
            error: error.filter(|_| !is_up),
        };
        (protocol, address)
    })
}

fn via(family: Family) -> impl Strategy<Value = Via> {
    let interface = "[a-zA-Z0-9._@-]{1,15}";
    prop_oneof![
        prop::collection::vec((address(family), interface), 1..5).prop_map(Via::Gateways),
        interface.prop_map(Via::Device),
        Just(Via::Blackhole),
        Just(Via::Unreachable),
    ]
}

fn route(family: Family) -> impl Strategy<Value = Route> {
    let own = prop::sample::select(vec![
        ("static1", Kind::Static),
        ("kernel1", Kind::Kernel),
        ("direct1", Kind::Direct),
    ]);
    let origin = prop_oneof![
        own.prop_map(|(name, kind)| (name.to_owned(), kind, None)),
        name(family).prop_map(|(name, from)| (reader_name(&name, from), Kind::Bgp, Some(from))),
    ];
    let ranks = vec![Rank::Best, Rank::BestNotInstalled, Rank::Other];
    let metrics = vec![IgpMetric::Known(7), IgpMetric::Unknown, IgpMetric::Unresolvable];
    let of_bgp = (any::<bool>(), prop::sample::select(metrics));
    let target = (address(family), 0..=128u8);
    (target, via(family), origin, prop::sample::select(ranks), of_bgp, any::<u16>()).prop_map(
        move |((at, len), via, (protocol, kind, from), rank, (stale, metric), preference)| {
            let len = if family == Family::Ipv4 { len.min(32) } else { len };
            let bgp = (kind == Kind::Bgp).then(|| BgpRoute {
                long_lived_stale: stale,
                metric,
                next_hop: from.map(NextHop::from),
                attrs: AttrEdit::originate(Origin::Igp).into_bytes().into(),
            });
            let since = SystemTime::now();
            let protocol = protocol.into();
            let prefix = bgp_proto::types::Prefix::new(at, len);
            Route { prefix, via, protocol, kind, since, from, rank, preference, bgp }
        },
    )
}

fn generated() -> impl Strategy<Value = Generated> {
    let family = prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)];
    family.prop_flat_map(|family| {
        let timer = Wait { left: Duration::from_secs(1), of: Duration::from_secs(240) };
        let recovery = prop::option::of(
            any::<u16>().prop_map(move |waiting| Recovery { waiting: waiting.into(), timer }),
        );
        let sessions = prop::collection::vec(session(family), 1..12);
        let routes = prop::collection::vec(route(family), 0..12);
        (recovery, sessions, routes).prop_map(move |(recovery, mut sessions, routes)| {
            sessions.sort_by(|a, b| a.0.name.cmp(&b.0.name));
            sessions.dedup_by(|a, b| a.0.name == b.0.name);
            Generated { family, recovery, sessions, routes }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_reader_parses_every_reply(node in generated()) {
        let separator = if node.family == Family::Ipv4 { "." } else { ":" };
        let node = Arc::new(node);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ask = |command: &str| {
            runtime.block_on(conversation(&node, &format!("{command}\n")))
        };

        let read = readers::sessions(&ask("show protocols"), separator).unwrap();
        let understood = |name: &str| {
            ["Mesh_", "Global_", "Node_"].iter().any(|k| name.len() > k.len() && name.starts_with(k))
        };
        let wanted: Vec<&Protocol> =
            node.sessions.iter().map(|(p, _)| p).filter(|p| understood(&p.name)).collect();
        prop_assert_eq!(read.len(), wanted.len());
        for (read, wanted) in read.iter().zip(&wanted) {
            prop_assert_eq!(read.name.as_str(), &*wanted.name);
            prop_assert_eq!(read.info.split(' ').next(), Some(wanted.word));
            let all = ask(&format!("show protocols all {}", wanted.name));
            // Skip names that contain a comment or string delimiter of BIRD's grammar.
            if !wanted.name.contains(['#', '"']) {
                let (state, address) = readers::details(&all).unwrap();
                let of = node.sessions.iter().find(|(p, _)| p.name == wanted.name).unwrap();
                prop_assert_eq!((state.as_str(), address), (wanted.word, of.1.to_string()));
            }
        }

        let status = ask("show status");
        prop_assert_eq!(readers::is_restarting(&status), Ok(node.recovery.is_some()));
        let agent = readers::agent(&status);
        prop_assert!(agent.ready && agent.router_id == "10.0.0.1", "{:?}", agent);

        let read = readers::routes(&ask("show route"), separator).unwrap();
        let wanted: Vec<(String, bool)> = node.routes.iter().flat_map(|route| {
            let lines = if let Via::Gateways(ways) = &route.via { ways.len() } else { 1 };
            vec![(route.prefix.to_string(), route.rank == Rank::Best); lines]
        }).collect();
        let read: Vec<(String, bool)> =
            read.into_iter().map(|route| (route.destination, route.is_fib)).collect();
        prop_assert_eq!(read, wanted);
    }
}
