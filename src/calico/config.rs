//! The plan as the daemon's configuration.
//!
//! What BIRD does by default on a Calico node is set here: hold time, restart, ADD-PATH both ways,
//! TTLs. Unchanged parts are shared (`Arc`) between one configuration and the next, so that
//! comparing two is quick.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::policy::{Change, Decision, Match, Policy, PrefixSet, Rule};
use bgp_proto::session::{
    HoldExpiry, LocalIdentity, PassiveMode, PeerConfig, Redial, TransportSecurity,
};
use bgp_proto::table::{
    AddPathSend, ExportParams, ImportParams, NextHopMode, PeerRoutes, ReflectionParams, TableConfig,
};
use bgp_proto::types::{ClusterId, Family, FibKind, Prefix, RouterId};
use bgp_proto::wire::{AddPathMode, Origin};

use super::plan::{
    FamilyPlan, NextHop, Plan, PlannedSession, Problem, Session, SessionKind, StaticKind, Touched,
};
use crate::config::{
    BgpConfig, CalicoLimits, Config, Fallover, FibSettings, HostRoute, HostSettings, Originate,
    PeerEntry, ReadFrom, Redistribute, RedistributeFrom,
};

/// Hold time that BIRD offers.
const HOLD_TIME: Duration = Duration::from_secs(240);

/// TTL of sessions without GTSM, whatever the distance.
const MULTIHOP_TTL: u8 = 64;

/// How long stale routes of a peer that re-established are retained without End-of-RIB.
const STALE_TIME: Duration = Duration::from_secs(180);

/// LOCAL_PREF that BIRD gives a received route that has none.
const LOCAL_PREF_DEFAULT: u32 = 100;

/// Turns plans into configurations. The default sets no limits.
#[derive(Default)]
pub struct Converter {
    limits: CalicoLimits,
    /// Per family, sorted by name.
    peers: [Vec<PeerEntry>; 2],
    /// Our identity on these sessions; `None`: no peers have been built.
    identity: Option<LocalIdentity>,
    /// The last BGP Identifier in force.
    router_id: Option<RouterId>,
    /// Import policies of the plan, each with the one that the daemon runs for it.
    imports: Vec<(Arc<Policy>, Arc<Policy>)>,
    /// See [`Converter::problems`]; by session name.
    problems: BTreeMap<Arc<str>, Problem>,
    /// Peers rebuilt since the last [`Converter::take_touched`].
    touched: Touched,
}

impl Converter {
    /// A converter that has built no configuration yet. `limits` go into each one that it builds.
    pub fn new(limits: CalicoLimits) -> Self {
        Converter { limits, ..Converter::default() }
    }

    /// A converter that goes on from a configuration: parts that stay equal are shared with it, and a
    /// node that loses its address keeps its BGP Identifier.
    pub fn after(config: &Config, limits: CalicoLimits) -> Self {
        let (ipv4, ipv6) =
            config.peers.iter().cloned().partition(|peer| peer.session.address.is_ipv4());
        Converter {
            peers: [ipv4, ipv6],
            router_id: Some(config.bgp.identity.router_id),
            ..Converter::new(limits)
        }
    }

    /// The configuration for a plan; `None` if the plan may not be put into force, or if the node
    /// has never had a BGP Identifier. A node that loses the address from which its identifier was
    /// taken keeps the identifier: only its sessions of that family end. `touched` names the
    /// sessions that may differ from those of the previous plan.
    pub fn convert(
        &mut self,
        plan: &Plan,
        touched: &Touched,
        host: &HostSettings,
    ) -> Option<Config> {
        let families = [&plan.families.ipv4, &plan.families.ipv6];
        let planned = families.iter().find_map(|f| f.router_id);
        let Some(router_id) = planned.or(self.router_id).filter(|_| plan.is_complete) else {
            // This plan's changes are not applied, so the next configuration is built from scratch.
            self.identity = None;
            return None;
        };
        let asn = plan.families.ipv4.asn;
        let identity = LocalIdentity { asn, router_id };
        match touched {
            Touched::These(names) if self.identity.as_ref() == Some(&identity) => {
                self.rebuild(families, names, &identity);
                self.touched.extend(touched);
            }
            _ => {
                self.make(families, &identity);
                self.touched = Touched::All;
            }
        }
        self.identity = Some(identity.clone());
        self.router_id = Some(router_id);
        let peers = self.peers.iter().flatten().cloned().collect();
        let cluster_id = plan.cluster_id.unwrap_or(ClusterId(router_id.0));
        let fib = FibSettings::calico();
        let table = TableConfig {
            cluster_id,
            fib_policy: Some(Arc::new(joined_kernel_policy(plan))),
            memory_max: self.limits.memory_max,
            vantages: Arc::clone(&self.limits.vantages),
            ..fib.table_config(&identity)
        };
        let statics = || families.iter().flat_map(|f| &f.statics);
        let originate = statics()
            .filter(|route| route.kind == StaticKind::Blackhole)
            .map(|r| Originate {
                prefix: r.prefix,
                install: Some(FibKind::Blackhole),
                bandwidth: r.community,
            })
            .collect();
        let host_routes = statics()
            .filter_map(|route| {
                Some(HostRoute { destination: route.prefix.addr(), gateway: route.gateway? })
            })
            .collect();
        Some(Config {
            bgp: BgpConfig {
                groups_max: table.groups_max,
                identity,
                cluster_id,
                listen: listen(plan),
                import: Vec::new(),
                memory_max: self.limits.memory_max,
            },
            peers,
            interfaces: Vec::new(),
            dynamic: Vec::new(),
            table: Arc::new(table),
            originate,
            redistribute: redistribute(&plan.families.ipv4),
            vrfs: Vec::new(),
            key_chains: Vec::new(),
            unused_policies: Vec::new(),
            host_routes,
            drain: plan.drain.clone(),
            fib,
            host: host.clone(),
            origin: ReadFrom::default(),
        })
    }

    /// Sessions of the last plan that do not run: those whose password is unavailable, and those
    /// whose address another session has on another port. Differs from BIRD: it runs both of the
    /// latter, and identifies an incoming connection by the address alone.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    /// Which peers may differ between the newest configuration and the one current at the previous
    /// call.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Builds all peers; unchanged parts are shared with the previous ones.
    fn make(&mut self, families: [&FamilyPlan; 2], identity: &LocalIdentity) {
        let before = std::mem::take(&mut self.peers);
        let imports = std::mem::take(&mut self.imports);
        self.problems.clear();
        let old: HashMap<&Arc<str>, &PeerEntry> =
            before.iter().flatten().map(|entry| (&entry.name, entry)).collect();
        for (at, family) in families.into_iter().enumerate() {
            let mut holders: HashMap<IpAddr, Arc<str>> = HashMap::new();
            let running = family.sessions.iter().filter(|p| p.shadowed_by.is_none());
            let mut list = Vec::with_capacity(family.sessions.len());
            for planned in running {
                let session = &planned.session;
                if session.lacks_key() {
                    self.problems.insert(Arc::clone(&session.name), unsigned(session));
                    continue;
                }
                if let Some(holder) = holders.get(&session.neighbor) {
                    self.problems.insert(Arc::clone(&session.name), unserved(session, holder));
                    continue;
                }
                holders.insert(session.neighbor, Arc::clone(&session.name));
                let import = self.import(&planned.import, &imports);
                let entry = peer_entry(planned, import, identity, &self.limits);
                list.push(keeping(old.get(&session.name).copied(), entry));
            }
            if let Some(peers) = self.peers.get_mut(at) {
                *peers = list;
            }
        }
    }

    /// Rebuilds the peers of some sessions. `names` holds all sessions of an address or none, so
    /// that the first of them, which runs, can be identified.
    fn rebuild(
        &mut self,
        families: [&FamilyPlan; 2],
        names: &BTreeSet<Arc<str>>,
        identity: &LocalIdentity,
    ) {
        let mut old: HashMap<Arc<str>, PeerEntry> = HashMap::new();
        for name in names {
            self.problems.remove(name);
            for peers in &mut self.peers {
                if let Ok(at) = peers.binary_search_by(|entry| entry.name.cmp(name)) {
                    old.insert(Arc::clone(name), peers.remove(at));
                }
            }
        }
        // In order of names, as in `make`, so that the same session of an address runs.
        let mut holders: HashMap<IpAddr, Arc<str>> = HashMap::new();
        for name in names {
            let found = families.iter().enumerate().find_map(|(at, family)| {
                let sessions = &family.sessions;
                let found = sessions.binary_search_by(|p| p.session.name.cmp(name)).ok()?;
                Some((at, sessions.get(found)?))
            });
            let Some((at, planned)) = found.filter(|(_, p)| p.shadowed_by.is_none()) else {
                continue;
            };
            let session = &planned.session;
            if session.lacks_key() {
                self.problems.insert(Arc::clone(name), unsigned(session));
                continue;
            }
            if let Some(holder) = holders.get(&session.neighbor) {
                self.problems.insert(Arc::clone(name), unserved(session, holder));
                continue;
            }
            holders.insert(session.neighbor, Arc::clone(name));
            let import = self.import(&planned.import, &[]);
            let entry = peer_entry(planned, import, identity, &self.limits);
            let entry = keeping(old.get(name), entry);
            let Some(peers) = self.peers.get_mut(at) else { continue };
            let (Ok(place) | Err(place)) = peers.binary_search_by(|e| e.name.cmp(name));
            peers.insert(place, entry);
        }
    }

    /// The import policy, preceded by what BIRD does to a route before it runs the filter.
    fn import(
        &mut self,
        plain: &Arc<Policy>,
        before: &[(Arc<Policy>, Arc<Policy>)],
    ) -> Arc<Policy> {
        if let Some((_, made)) = self.imports.iter().find(|(p, _)| Arc::ptr_eq(p, plain)) {
            return Arc::clone(made);
        }
        let made = match before.iter().find(|(p, _)| Arc::ptr_eq(p, plain)) {
            Some((_, made)) => Arc::clone(made),
            None => {
                let mut policy = Policy::clone(plain);
                policy.rules.insert(
                    0,
                    Rule {
                        name: "LOCAL_PREF of routes that come without".to_owned(),
                        matches: vec![Match::Not(Box::new(Match::HasLocalPref))],
                        changes: vec![Change::LocalPref(LOCAL_PREF_DEFAULT)],
                        decision: Decision::Next,
                    },
                );
                Arc::new(policy)
            }
        };
        self.imports.push((Arc::clone(plain), Arc::clone(&made)));
        made
    }
}

/// A session whose MD5 key is unavailable. Differs from BIRD: confd renders it without a password.
fn unsigned(session: &Session) -> Problem {
    let text = "does not run: its password cannot be had, and it never runs without";
    Problem::new(format!("session/{}", session.name), text)
}

/// A session that does not run because another one has its address.
fn unserved(session: &Session, holder: &str) -> Problem {
    let text = format!("does not run: {holder} has the same address");
    Problem::new(format!("session/{}", session.name), text)
}

/// `fresh`, with equal parts shared with the older entry.
fn keeping(old: Option<&PeerEntry>, mut fresh: PeerEntry) -> PeerEntry {
    if let Some(old) = old {
        if old.session == fresh.session {
            fresh.session = Arc::clone(&old.session);
        }
        if old.routes == fresh.routes {
            fresh.routes = Arc::clone(&old.routes);
        }
        if old.bfd == fresh.bfd {
            fresh.bfd.clone_from(&old.bfd);
        }
        if old.name == fresh.name {
            fresh.name = Arc::clone(&old.name);
        }
    }
    fresh
}

fn peer_entry(
    planned: &PlannedSession,
    import: Arc<Policy>,
    identity: &LocalIdentity,
    limits: &CalicoLimits,
) -> PeerEntry {
    let session: &Session = &planned.session;
    let family = if session.neighbor.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let mut config = PeerConfig {
        port: session.port,
        source_address: session.source_address,
        local_asn: session.local_asn,
        passive: match (session.passive, session.kind) {
            (false, _) => PassiveMode::Active,
            (true, SessionKind::LocalWorkload) => PassiveMode::Passive,
            // Differs from BIRD: a node that restarts does not wait for the other's retry timer.
            (true, _) => PassiveMode::AtStart,
        },
        hold_time: HOLD_TIME,
        // A node that is back is dialled within seconds; the delay between attempts does not grow
        // while it is away.
        redial: Redial::Steady,
        hold_expiry: HoldExpiry::Death,
        keepalive_time: session.keepalive_time.filter(|s| *s > 0).map(Duration::from_secs),
        security: TransportSecurity {
            md5: session.key.clone(),
            ao: None,
            ttl_security_hops: session.ttl_security,
        },
        graceful_restart_time: Some(Duration::from_secs(session.graceful_restart_time)),
        // A path may begin with what the sender's BGPFilter prepended, and AS_SETs are taken.
        enforce_first_as: false,
        reject_as_sets: false,
        multihop_ttl: session.ttl_security.is_none().then_some(MULTIHOP_TTL),
        ..PeerConfig::new(session.neighbor, session.remote_asn, identity)
    };
    config.add_path[family] = AddPathMode::Both;
    let routes = PeerRoutes {
        name: Arc::clone(&session.name),
        import: ImportParams {
            allow_local_asn: session.allow_local_asn,
            // Differs from BIRD: Calico's configuration has no filter for the community, so that a ToR
            // that is drained keeps the traffic of its nodes until it is gone. RFC 8326 §4.2.
            honour_graceful_shutdown: true,
            ..ImportParams::new(import)
        },
        export: ExportParams {
            next_hop: match session.next_hop {
                NextHop::Auto => NextHopMode::ThirdParty,
                NextHop::SelfAddress => NextHopMode::SelfAddress,
                NextHop::Keep => NextHopMode::Keep,
            },
            // Calico's sessions have ADD-PATH: with all paths, the client would choose by itself.
            add_path_send: match session.vantage.is_some() && session.route_reflector_client {
                true => AddPathSend::Best(1),
                false => AddPathSend::All,
            },
            ..ExportParams::new(Arc::clone(&planned.export))
        },
        reflection: ReflectionParams {
            client: session.route_reflector_client,
            cluster_id: session.cluster_id,
        },
        vantage: session.vantage.clone(),
        limits: limits.peers,
        stale_time: STALE_TIME,
    };
    // As in BIRD: Calico configures every neighbour without TTL security as multihop.
    let fallover = Fallover::of(&config);
    let bfd = limits.bfd.as_ref().map(|template| {
        config.bfd_mode = template.mode;
        // Not so for BFD: an external neighbour is a router on the node's link. A node of the cluster
        // may be any number of hops away.
        template.settings(&PeerConfig { multihop_ttl: None, ..config.clone() })
    });
    PeerEntry {
        name: Arc::clone(&session.name),
        description: None,
        session: Arc::new(config),
        routes: Arc::new(routes),
        bfd,
        fallover,
        interface: None,
    }
}

fn listen(plan: &Plan) -> Vec<SocketAddr> {
    let families = [
        (&plan.families.ipv4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (&plan.families.ipv6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ];
    families
        .into_iter()
        .filter(|(family, _)| family.enabled)
        .map(|(family, any)| {
            SocketAddr::new(family.listen.address.unwrap_or(any), family.listen.port)
        })
        .collect()
}

/// All routes that other programs wrote into the kernel, and the networks of our interfaces. The
/// export policies decide which of them are announced.
fn redistribute(family: &FamilyPlan) -> Vec<Redistribute> {
    let excluded = family.ignored_interfaces.iter().map(|glob| format!("-{glob}"));
    let all = Redistribute {
        from: RedistributeFrom::Kernel,
        protocols: Vec::new(),
        interfaces: Vec::new(),
        prefixes: Vec::new(),
        origin: Origin::Igp,
        policy: None,
    };
    let connected = Redistribute {
        from: RedistributeFrom::Connected,
        interfaces: excluded.chain(["*".to_owned()]).collect(),
        ..all.clone()
    };
    vec![all, connected]
}

/// The kernel policies of both families as one.
fn joined_kernel_policy(plan: &Plan) -> Policy {
    let mut rules = Vec::new();
    for (policy, everything) in [
        (&plan.families.ipv4.kernel, Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
        (&plan.families.ipv6.kernel, Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0)),
    ] {
        let of_family = || Match::Prefix(PrefixSet::covering([everything]));
        for rule in &policy.rules {
            let mut rule = rule.clone();
            if !rule.matches.iter().any(|m| matches!(m, Match::Prefix(_))) {
                rule.matches.insert(0, of_family());
            }
            rules.push(rule);
        }
        rules.push(Rule {
            name: "everything else".to_owned(),
            matches: vec![of_family()],
            changes: Vec::new(),
            decision: policy.default,
        });
    }
    Policy { name: "calico kernel".into(), rules, default: Decision::Reject }
}

#[cfg(test)]
mod tests {
    use bgp_proto::table::{AddPathSend, Drain, PeerLimits, RouteLimits};
    use bgp_proto::types::Asn;
    use serde_json::json;

    use super::*;
    use crate::calico::model::{Kind, ObjectId, decode};
    use crate::calico::{Resolver, Settings};
    use crate::config::{ControlSettings, LogFormat, LogLevel, LogSettings};

    fn host() -> HostSettings {
        HostSettings {
            control: ControlSettings::at("/run/margay/test.sock"),
            http: None,
            log: LogSettings { level: LogLevel::Info, format: LogFormat::Text },
            mrt: None,
            bmp: Vec::new(),
        }
    }

    fn convert(resolver: &mut Resolver, converter: &mut Converter) -> Option<Config> {
        let plan = resolver.plan();
        converter.convert(&plan, &resolver.take_touched(), &host())
    }

    fn apply(resolver: &mut Resolver, object: serde_json::Value) {
        resolver.apply(decode(object).unwrap().unwrap());
    }

    fn node(name: &str, address: &str) -> serde_json::Value {
        json!({
            "kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
            "spec": {"bgp": {"ipv4Address": address, "ipv6Address": "fd00::1/64"}},
        })
    }

    /// A label that changes is a change of that peer's routing parameters only.
    #[test]
    fn a_label_of_a_node_is_its_vantage() {
        let label = "topology.kubernetes.io/zone".to_owned();
        let mut resolver =
            Resolver::new(Settings { vantage_label: Some(label.clone()), ..Settings::new("a") });
        let mut converter = Converter::default();
        let mut reflector = node("a", "10.0.0.1/24");
        reflector["spec"]["bgp"]["routeReflectorClusterID"] = json!("244.0.0.1");
        apply(&mut resolver, reflector);
        let clients = json!({"kind": "BGPPeer", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "clients"}, "spec": {"node": "a", "peerSelector": "has(client)"}});
        apply(&mut resolver, clients);
        let mut of_zone = |zone: &str| {
            let mut client = node("b", "10.0.0.2/24");
            client["metadata"]["labels"] = json!({"client": "", label.clone(): zone});
            apply(&mut resolver, client);
            convert(&mut resolver, &mut converter).unwrap().peers.remove(0)
        };
        let (before, after, without) = (of_zone("x"), of_zone("y"), of_zone(""));
        let vantage = |peer: &PeerEntry| peer.routes.vantage.clone();
        let vantages = [&before, &after, &without].map(vantage);
        assert_eq!(vantages, [Some("x".into()), Some("y".into()), None]);
        assert_eq!(before.session, after.session);
        assert_eq!(after.routes.export.add_path_send, AddPathSend::Best(1));
        assert_eq!(without.routes.export.add_path_send, AddPathSend::All);
    }

    #[test]
    fn peers_of_the_mesh_are_shared_when_others_are_added() {
        let mut resolver = Resolver::new(Settings::new("a"));
        let mut converter = Converter::default();
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        apply(&mut resolver, node("b", "10.0.0.2/24"));
        let first = convert(&mut resolver, &mut converter).unwrap();
        assert_eq!(first.peers.len(), 1, "the other family has our own address");
        let session = &first.peers[0].session;
        assert_eq!(session.multihop_ttl, Some(64));
        assert_eq!(session.hold_time, HOLD_TIME);
        assert_eq!(session.add_path[Family::Ipv4], AddPathMode::Both);
        assert_eq!(session.passive, PassiveMode::AtStart);
        assert_eq!(first.bgp.listen.len(), 2);

        apply(&mut resolver, node("c", "10.0.0.3/24"));
        let second = convert(&mut resolver, &mut converter).unwrap();
        assert_eq!(second.peers.len(), 2);
        assert!(Arc::ptr_eq(&first.peers[0].session, &second.peers[0].session));
        assert!(Arc::ptr_eq(&first.peers[0].routes, &second.peers[0].routes));
        let (b, c) = (&second.peers[0].routes, &second.peers[1].routes);
        assert!(Arc::ptr_eq(&b.import.policy, &c.import.policy));
        assert!(Arc::ptr_eq(&b.export.policy, &c.export.policy));
    }

    /// The parameters common to all of Calico's sessions: the values of BIRD on a Calico node,
    /// where they differ from margay's defaults.
    fn of_calico(address: &str, asn: u32, identity: &LocalIdentity) -> PeerConfig {
        let address: IpAddr = address.parse().unwrap();
        let mut config = PeerConfig {
            hold_time: Duration::from_secs(240),
            // A dead node's routes are withdrawn at once, and one that is back is dialled within
            // seconds.
            hold_expiry: HoldExpiry::Death,
            redial: Redial::Steady,
            enforce_first_as: false,
            reject_as_sets: false,
            multihop_ttl: Some(64),
            ..PeerConfig::new(address, Asn(asn), identity)
        };
        let family = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        config.add_path[family] = AddPathMode::Both;
        config
    }

    /// What is exchanged over such a session, with the policies of `same`.
    fn routes_of_calico(next_hop: NextHopMode, same: &PeerRoutes) -> PeerRoutes {
        PeerRoutes {
            name: Arc::clone(&same.name),
            import: ImportParams {
                policy: Arc::clone(&same.import.policy),
                allow_local_asn: 0,
                limits: RouteLimits::default(),
                honour_graceful_shutdown: true,
                drain: Drain::Off,
            },
            export: ExportParams {
                policy: Arc::clone(&same.export.policy),
                next_hop,
                add_path_send: AddPathSend::All,
                drain: Drain::Off,
            },
            reflection: ReflectionParams { client: false, cluster_id: None },
            vantage: None,
            limits: CalicoLimits::default().peers,
            stale_time: Duration::from_secs(180),
        }
    }

    /// Whole values are compared, so that defaults are checked too.
    #[test]
    fn sessions_are_set_as_a_calico_node_needs_them() {
        let mut resolver = Resolver::new(Settings::new("a"));
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        apply(&mut resolver, node("b", "10.0.0.2/24"));
        let near = json!({"peerIP": "192.0.2.1", "asNumber": 65001, "ttlSecurity": 1,
            "keepaliveTime": "10s", "maxRestartTime": "90s", "nextHopMode": "Self"});
        let six = json!({"peerIP": "[fd00::9]:1790", "asNumber": 64512, "keepaliveTime": "0s",
            "sourceAddress": "None", "nextHopMode": "Keep"});
        for (name, spec) in [("near", near), ("six", six)] {
            let object = json!({"kind": "BGPPeer", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": name}, "spec": spec});
            apply(&mut resolver, object);
        }
        let config = convert(&mut resolver, &mut Converter::default()).unwrap();
        let identity = &config.bgp.identity;
        let mesh = PeerConfig {
            source_address: "10.0.0.1".parse().ok(),
            passive: PassiveMode::AtStart,
            graceful_restart_time: Some(Duration::from_secs(120)),
            ..of_calico("10.0.0.2", 64512, identity)
        };
        let near = PeerConfig {
            source_address: "10.0.0.1".parse().ok(),
            keepalive_time: Some(Duration::from_secs(10)),
            graceful_restart_time: Some(Duration::from_secs(90)),
            // GTSM determines how many hops away the neighbour may be.
            multihop_ttl: None,
            security: TransportSecurity {
                ttl_security_hops: Some(1),
                ..TransportSecurity::default()
            },
            ..of_calico("192.0.2.1", 65001, identity)
        };
        let six = PeerConfig { port: 1790, ..of_calico("fd00::9", 64512, identity) };
        let rows = [
            ("Mesh_10_0_0_2", NextHopMode::ThirdParty, mesh),
            ("Global_192_0_2_1", NextHopMode::SelfAddress, near),
            ("Global_fd00__9_port_1790", NextHopMode::Keep, six),
        ];
        assert_eq!(config.peers.len(), rows.len());
        for (name, next_hop, session) in rows {
            let peer = config.peers.iter().find(|peer| &*peer.name == name).unwrap();
            assert_eq!(*peer.session, session, "{name}");
            assert_eq!(*peer.routes, routes_of_calico(next_hop, &peer.routes), "{name}");
            assert_eq!(peer.bfd, None, "{name}: no Calico object can ask for it");
        }
    }

    #[test]
    fn limits_hold_for_every_session_that_follows_from_the_objects() {
        let peers = PeerLimits {
            prefixes_max: Some(100),
            prefixes_warning_percent: 50,
            memory_max: Some(1 << 20),
        };
        let mut converter = Converter::new(CalicoLimits {
            memory_max: Some(8 << 20),
            peers,
            ..CalicoLimits::default()
        });
        let mut resolver = Resolver::new(Settings::new("a"));
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        apply(&mut resolver, node("b", "10.0.0.2/24"));
        let first = convert(&mut resolver, &mut converter).unwrap();
        assert_eq!((first.bgp.memory_max, first.table.memory_max), (Some(8 << 20), Some(8 << 20)));
        // A peer that is added later is built by `rebuild`.
        apply(&mut resolver, node("c", "10.0.0.3/24"));
        let second = convert(&mut resolver, &mut converter).unwrap();
        assert_eq!((first.peers.len(), second.peers.len()), (1, 2));
        for PeerEntry { routes, .. } in first.peers.iter().chain(&second.peers) {
            assert_eq!(routes.limits, peers);
        }
    }

    /// A process starts before it knows its plan.
    #[test]
    fn the_first_plan_needs_no_restart() {
        let mut resolver = Resolver::new(Settings::new("a"));
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        let planned = convert(&mut resolver, &mut Converter::default()).unwrap();
        let begun = Config::idle(planned.host.clone());
        assert_eq!(begun.changes_to(&planned).restart_needed, Vec::<&str>::new());
    }

    #[test]
    fn a_plan_without_the_node_is_not_put_into_force() {
        let mut resolver = Resolver::new(Settings::new("a"));
        apply(&mut resolver, node("b", "10.0.0.2/24"));
        let mut converter = Converter::default();
        assert_eq!(convert(&mut resolver, &mut converter), None);
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        assert_eq!(convert(&mut resolver, &mut converter).unwrap().peers.len(), 1);
    }

    #[test]
    fn a_node_that_loses_its_address_ends_sessions_and_keeps_running() {
        let mut resolver = Resolver::new(Settings::new("a"));
        let mut converter = Converter::default();
        let key = "/calico/ipam/v2/host/a/ipv4/block/10.65.1.0-26";
        let block = crate::calico::model::decode_etcd(key, br#"{"state":"confirmed"}"#).unwrap();
        resolver.apply(block);
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        apply(&mut resolver, node("b", "10.0.0.2/24"));
        let before = convert(&mut resolver, &mut converter).unwrap();
        assert_eq!(before.peers.len(), 1);
        let lost = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
                          "metadata": {"name": "a"}, "spec": {}});
        apply(&mut resolver, lost);
        let after = convert(&mut resolver, &mut converter).unwrap();
        assert!(after.peers.is_empty(), "{:?}", after.peers);
        assert_eq!(after.bgp.identity, before.bgp.identity);
        assert_eq!((after.originate.len(), &after.originate), (1, &before.originate));
        // A process that starts now has never had an identifier.
        assert_eq!(Converter::default().convert(&resolver.plan(), &Touched::All, &host()), None);
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        assert_eq!(convert(&mut resolver, &mut converter).unwrap(), before);
    }

    #[test]
    fn one_of_several_sessions_with_one_address_runs_and_another_takes_over() {
        let peer = |name: &str, ip: &str| {
            json!({"kind": "BGPPeer", "apiVersion": "projectcalico.org/v3",
                   "metadata": {"name": name}, "spec": {"peerIP": ip, "asNumber": 65001}})
        };
        let mut resolver = Resolver::new(Settings::new("a"));
        let mut converter = Converter::default();
        apply(&mut resolver, node("a", "10.0.0.1/24"));
        apply(&mut resolver, node("b", "10.0.0.2/24"));
        apply(&mut resolver, peer("x", "10.0.0.2:1790"));
        let step = |resolver: &mut Resolver, converter: &mut Converter| {
            let config = convert(resolver, converter).unwrap();
            let fresh = Converter::default().convert(&resolver.plan(), &Touched::All, &host());
            assert_eq!(fresh.as_ref(), Some(&config), "updated and built from scratch");
            let names: Vec<String> = config.peers.iter().map(|p| p.name.to_string()).collect();
            (names, converter.problems().map(|p| p.object.clone()).collect::<Vec<_>>())
        };
        let first = (
            vec!["Global_10_0_0_2_port_1790".to_owned()],
            vec!["session/Mesh_10_0_0_2".to_owned()],
        );
        assert_eq!(step(&mut resolver, &mut converter), first);
        apply(&mut resolver, peer("y", "10.0.0.9"));
        let (names, problems) = step(&mut resolver, &mut converter);
        assert_eq!((names.len(), &problems), (2, &first.1));
        resolver.withdraw(&ObjectId::new(Kind::BgpPeer, "x"));
        let (names, problems) = step(&mut resolver, &mut converter);
        assert_eq!(names, ["Global_10_0_0_9", "Mesh_10_0_0_2"]);
        assert!(problems.is_empty());
        resolver.withdraw(&ObjectId::new(Kind::Node, "b"));
        assert_eq!(step(&mut resolver, &mut converter).0, ["Global_10_0_0_9"]);
    }
}
