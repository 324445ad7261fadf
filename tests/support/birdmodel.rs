//! Golden BIRD files as a model that can be compared with a plan.

use std::collections::BTreeSet;
use std::path::Path;

use margay::calico::plan::{FamilyPlan, NextHop, PlannedSession, PoolRoutes, StaticKind};

use super::birdcfg::{Config, Expr, Options, Stmt};

/// The files of one family.
pub struct Golden {
    pub config: Config,
    pub sessions: Vec<GoldenSession>,
}

#[derive(Clone, Debug)]
pub struct GoldenSession {
    pub name: String,
    pub import: Vec<Stmt>,
    pub export: Vec<Stmt>,
    shape: Shape,
}

/// The parameters of a session that both sides have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    name: String,
    neighbor: String,
    port: u16,
    remote_asn: u32,
    local_asn: u32,
    source: Option<String>,
    passive: bool,
    ttl_security: Option<u8>,
    password: Option<Vec<u8>>,
    client: bool,
    cluster_id: Option<String>,
    next_hop: &'static str,
    allow_local_asn: u8,
    restart_time: u64,
    keepalive_time: Option<u64>,
    filters: BTreeSet<String>,
}

impl Golden {
    pub fn read(folder: &Path, bird: &str) -> Golden {
        let texts = ["", "_aggr", "_ipam"].map(|part| {
            let path = folder.join(format!("{bird}{part}.cfg"));
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        });
        let config = Config::parse(texts.iter().map(String::as_str));
        let sessions = config
            .protocols
            .iter()
            .filter(|p| p.kind == "bgp")
            .map(|p| golden_session(&config, &p.name, &p.options))
            .collect();
        Golden { config, sessions }
    }

    fn template(&self, kind: &str) -> Option<&Options> {
        let mut templates = self.config.templates.iter();
        templates.find(|t| t.kind == kind).map(|t| &t.options)
    }

    /// Compares everything except the effect of filters.
    pub fn compare(&self, plan: &FamilyPlan, router_id: Option<String>) {
        let golden: Vec<&Shape> = self.sessions.iter().map(|s| &s.shape).collect();
        let planned: Vec<Shape> = plan.sessions.iter().map(planned_session).collect();
        assert_eq!(planned.iter().collect::<Vec<_>>(), golden, "sessions");
        for (planned, golden) in plan.sessions.iter().zip(&self.sessions) {
            assert_eq!(planned.session.internal, is_internal(&golden.export), "{}", golden.name);
        }
        assert_eq!(plan.enabled, self.template("bgp").is_some(), "enabled");
        if let Some(bgp) = self.template("bgp") {
            assert_eq!(bgp.after(&["local", "as"]).unwrap(), [plan.asn.to_string()]);
        }
        let golden_id = self.config.options.after(&["router", "id"]);
        assert_eq!(router_id.map(|id| vec![id]), golden_id, "router id");
        self.compare_listen(plan);
        self.compare_statics(plan);
        self.compare_interfaces(plan);
        self.compare_blocks(plan);
        self.compare_pools(plan);
    }

    fn compare_listen(&self, plan: &FamilyPlan) {
        let words = self.config.options.after(&["listen", "bgp"]).unwrap_or_default();
        let value = |key: &str| {
            let at = words.iter().position(|w| w == key)?;
            words.get(at + 1).cloned()
        };
        assert_eq!(plan.listen.address.map(|a| a.to_string()), value("address"), "listen");
        let port = value("port").map_or(179, |p| p.parse().unwrap());
        assert_eq!(plan.listen.port, port, "listen");
    }

    fn compare_statics(&self, plan: &FamilyPlan) {
        let golden: Vec<String> = self
            .template("static")
            .map(|t| &t.plain)
            .into_iter()
            .flatten()
            .filter(|option| option.len() > 1)
            .map(|option| {
                let words: Vec<String> = option
                    .iter()
                    .map(|t| match t {
                        super::birdcfg::Token::Word(w) => w.clone(),
                        other => panic!("{other:?} in a static route"),
                    })
                    .collect();
                words.join(" ")
            })
            .collect();
        let planned: Vec<String> = plan
            .statics
            .iter()
            .map(|route| match route.kind {
                StaticKind::Blackhole => format!("route {} blackhole", route.prefix),
                StaticKind::Via => format!("route {} via {}", route.prefix, route.gateway.unwrap()),
            })
            .collect();
        assert_eq!(planned, golden, "statics");
        let has_protocol = self.config.protocols.iter().any(|p| p.kind == "static");
        assert_eq!(has_protocol, !golden.is_empty());
    }

    fn compare_interfaces(&self, plan: &FamilyPlan) {
        let words = self.template("direct").unwrap().after(&["interface"]).unwrap();
        let mut globs: Vec<String> = words.into_iter().filter(|w| w != "-" && w != ",").collect();
        assert_eq!(globs.pop().as_deref(), Some("*"));
        assert_eq!(plan.ignored_interfaces, globs);
    }

    fn compare_blocks(&self, plan: &FamilyPlan) {
        let aggr = &self.config.functions["calico_aggr"].body;
        let golden: Vec<String> = aggr.iter().filter_map(exact_net).collect();
        assert_eq!(texts(&plan.aggregates), golden, "aggregates");
        let apply = &self.config.functions["apply_communities"].body;
        let golden: Vec<(String, Vec<String>)> = apply
            .iter()
            .map(|statement| {
                let (net, body) = net_in(statement).expect("net ~ prefix");
                let adds = body.iter().map(|add| match add {
                    Stmt::Call(_, args) => match &args[..] {
                        [Expr::Tuple(t)] => {
                            t.iter().map(u32::to_string).collect::<Vec<_>>().join(":")
                        }
                        other => panic!("{other:?}"),
                    },
                    other => panic!("{other:?}"),
                });
                (net, adds.collect())
            })
            .collect();
        let planned: Vec<(String, Vec<String>)> = plan
            .communities
            .iter()
            .map(|c| (c.prefix.to_string(), c.communities.clone()))
            .collect();
        assert_eq!(planned, golden, "communities");
    }

    /// Pools and ranges, by the statements that confd writes for each.
    fn compare_pools(&self, plan: &FamilyPlan) {
        let nets = |body: &[Stmt], end: &Stmt| -> BTreeSet<String> {
            let of_net = body.iter().filter_map(net_in);
            of_net.filter(|(_, then)| then[..] == [end.clone()]).map(|(net, _)| net).collect()
        };
        let export = &self.config.functions["calico_export_to_bgp_peers"].body;
        let hidden = plan.pools.iter().filter(|p| !p.export).map(|p| p.cidr.to_string());
        assert_eq!(hidden.collect::<BTreeSet<_>>(), nets(export, &Stmt::Reject), "no export");
        let accepted = nets(export, &Stmt::Accept);
        for pool in plan.pools.iter().filter(|p| p.export) {
            assert!(accepted.contains(&pool.cidr.to_string()), "{} is not exported", pool.cidr);
        }
        let kernel = &self.config.filters["calico_kernel_programming"];
        // Ranges of services come before the metric is computed, pools after it.
        let is_metric = |s: &Stmt| matches!(s, Stmt::If(..)) && net_in(s).is_none();
        let split = kernel.iter().position(is_metric).expect("the metric");
        let golden: Vec<String> = kernel[..split].iter().filter_map(net_in).map(|n| n.0).collect();
        assert_eq!(texts(&plan.kernel_reject), golden, "kernel_reject");
        for (net, body) in kernel[split..].iter().filter_map(net_in) {
            let pool = plan.pools.iter().find(|p| p.cidr.to_string() == net);
            let pool = pool.unwrap_or_else(|| panic!("{net} is not a pool of the plan"));
            let expected = match &body[..] {
                [Stmt::Accept] => PoolRoutes::Accept,
                [Stmt::Reject] => PoolRoutes::Reject,
                [Stmt::Assign(..), Stmt::Accept] => PoolRoutes::Tunnel,
                [Stmt::If(..), Stmt::Accept] => PoolRoutes::TunnelCrossSubnet,
                other => panic!("{other:?}"),
            };
            assert_eq!(pool.kernel, expected, "{net}");
        }
        let named = nets_of(&kernel[split..]);
        for pool in plan.pools.iter().filter(|p| !named.contains(&p.cidr.to_string())) {
            assert_eq!(pool.kernel, PoolRoutes::Accept, "{} has no statement", pool.cidr);
        }
    }
}

fn nets_of(body: &[Stmt]) -> BTreeSet<String> {
    body.iter().filter_map(net_in).map(|(net, _)| net).collect()
}

fn texts(prefixes: &[bgp_proto::types::Prefix]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

/// `if (net ~ PREFIX) then …`
fn net_in(statement: &Stmt) -> Option<(String, &Vec<Stmt>)> {
    match statement {
        Stmt::If(Expr::Binary("~", left, right), body, _) => match (&**left, &**right) {
            (Expr::Name(net), Expr::Prefix(prefix)) if net == "net" => Some((prefix.clone(), body)),
            _ => None,
        },
        _ => None,
    }
}

/// `if (net = PREFIX) then …`
fn exact_net(statement: &Stmt) -> Option<String> {
    match statement {
        Stmt::If(Expr::Binary("=", left, right), ..) => match (&**left, &**right) {
            (Expr::Name(net), Expr::Prefix(prefix)) if net == "net" => Some(prefix.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn is_internal(export: &[Stmt]) -> bool {
    export.iter().any(|s| {
        *s == Stmt::Call("calico_export_to_bgp_peers".into(), vec![Expr::Name("true".into())])
    })
}

fn golden_session(config: &Config, name: &str, options: &Options) -> GoldenSession {
    let after = |start: &[&str]| options.after(start);
    let first = |start: &[&str]| after(start).and_then(|w| w.first().cloned());
    let neighbor = after(&["neighbor"]).expect("a neighbour");
    let value = |key: &str| {
        let at = neighbor.iter().position(|w| w == key)?;
        neighbor[at + 1].parse::<u32>().ok()
    };
    let template = config.templates.iter().find(|t| t.kind == "bgp").expect("a template");
    let local_asn = first(&["local", "as"])
        .or_else(|| template.options.after(&["local", "as"])?.first().cloned())
        .and_then(|asn| asn.parse().ok())
        .expect("an AS");
    let ttl_security = (first(&["ttl", "security"]).as_deref() == Some("on"))
        .then(|| first(&["multihop"]).map_or(1, |hops| hops.parse().unwrap()));
    let next_hop = match first(&["next", "hop"]).as_deref() {
        None => "auto",
        Some("keep") => "keep",
        Some("self") => "self",
        Some(other) => panic!("next hop {other}"),
    };
    let (import, export) = (&options.filters["import"], &options.filters["export"]);
    let called = |body: &[Stmt]| -> BTreeSet<String> {
        body.iter()
            .filter_map(|s| match s {
                Stmt::Call(name, _) => name.strip_prefix("bgp_").map(str::to_owned),
                _ => None,
            })
            .map(|name| {
                let at = name.rfind("_importFilter").or_else(|| name.rfind("_exportFilter"));
                name[..at.expect("a filter function")].to_owned()
            })
            .collect()
    };
    let shape = Shape {
        name: name.to_owned(),
        neighbor: neighbor[0].clone(),
        port: value("port").map_or(179, |p| p.try_into().unwrap()),
        remote_asn: value("as").expect("an AS"),
        local_asn,
        source: first(&["source", "address"]),
        passive: first(&["passive"]).as_deref() == Some("on"),
        ttl_security,
        password: first(&["password"]).map(String::into_bytes),
        client: after(&["rr", "client"]).is_some(),
        cluster_id: first(&["rr", "cluster", "id"]),
        next_hop,
        allow_local_asn: first(&["allow", "local", "as"]).map_or(0, |n| n.parse().unwrap()),
        restart_time: first(&["graceful", "restart", "time"]).map_or(120, |n| n.parse().unwrap()),
        keepalive_time: first(&["keepalive", "time"]).map(|n| n.parse().unwrap()),
        filters: &called(import) | &called(export),
    };
    GoldenSession { name: name.to_owned(), import: import.clone(), export: export.clone(), shape }
}

fn planned_session(planned: &PlannedSession) -> Shape {
    let session = &planned.session;
    let password = session.password.as_ref().filter(|p| p.found);
    // A key that is not in its Secret is from an earlier step, which `check_keys` checks; BIRD has
    // none.
    assert!(password.is_none() || session.key.is_some());
    assert!(session.password.is_some() || session.key.is_none());
    Shape {
        name: session.name.to_string(),
        neighbor: session.neighbor.to_string(),
        port: session.port,
        remote_asn: session.remote_asn.0,
        local_asn: session.local_asn.0,
        source: session.source_address.map(|a| a.to_string()),
        passive: session.passive,
        ttl_security: session.ttl_security,
        password: session.key.as_ref().filter(|_| password.is_some()).map(|k| k.octets().to_vec()),
        client: session.route_reflector_client,
        cluster_id: session.cluster_id.map(|id| id.to_string()),
        next_hop: match session.next_hop {
            NextHop::Auto => "auto",
            NextHop::Keep => "keep",
            NextHop::SelfAddress => "self",
        },
        allow_local_asn: session.allow_local_asn,
        restart_time: session.graceful_restart_time,
        keepalive_time: session.keepalive_time,
        filters: session.filters.iter().cloned().collect(),
    }
}
