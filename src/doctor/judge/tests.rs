//! Tests with hand-made facts: a node with a session, a block and a pool, and one fault at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::bird::{Protocol, Protocols, Status, Table};
use super::super::facts::{Facts, Host, Need, Objects, Seat, SourceSeen, Speaker, Wanted};
use super::super::files::{Files, Service};
use super::super::finding::{Report, Severity, Verdict};
use super::super::firewall::{Firewall, Shut, Traffic};
use super::super::processes::{BgpSocket, Process, Role};
use super::judge;
use crate::calico::config::Converter;
use crate::calico::model::{decode, decode_etcd};
use crate::calico::{Plan, Settings, Snapshot, Touched, resolve};
use crate::config::{
    CalicoLimits, ControlSettings, HostSettings, LogFormat, LogLevel, LogSettings,
};
use crate::datastore::Lacking;
use crate::kernel::{Link, LinkTraits, Picture, SeenKind, SeenRoute, ViewGateway};
use bgp_proto::types::{Family, Prefix};

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec})
}

fn node(name: &str, address: &str) -> Value {
    object("Node", name, &json!({"bgp": {"ipv4Address": address}}))
}

/// The plan of node a for a mesh of a and b in v3.32.1, with more objects.
fn wanted(more: &[Value]) -> Wanted {
    let mut snapshot = Snapshot::default();
    let base = [
        node("a", "10.0.0.1/24"),
        node("b", "10.0.0.2/24"),
        object("IPPool", "pods", &json!({"cidr": "10.65.0.0/16"})),
        object("ClusterInformation", "default", &json!({"calicoVersion": "v3.32.1"})),
    ];
    for object in base.iter().chain(more) {
        snapshot.apply(decode(object.clone()).unwrap().unwrap());
    }
    let key = "/calico/ipam/v2/host/a/ipv4/block/10.65.1.0-26";
    snapshot.apply(decode_etcd(key, b"{}").unwrap());
    running(resolve(&snapshot, &Settings::new("a")))
}

fn running(plan: Plan) -> Wanted {
    let host = HostSettings {
        control: ControlSettings::at("/run/margay.sock"),
        http: None,
        log: LogSettings { level: LogLevel::Info, format: LogFormat::Text },
        mrt: None,
        bmp: Vec::new(),
    };
    let mut converter = Converter::new(CalicoLimits::default());
    let config = converter.convert(&plan, &Touched::All, &host);
    let peers = config.map(|config| config.peers).unwrap_or_default();
    Wanted {
        running: peers.into_iter().map(|peer| peer.name).collect(),
        idle: converter.problems().cloned().collect(),
        plan,
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn session(name: &str, neighbor: &str, asn: u32) -> Protocol {
    let mut protocols = Protocols::default();
    let caps = "restart-able AS4 add-path-rx add-path-tx";
    for (code, line) in [
        (1002, format!("{name} BGP      master   up     11:41:46    Established   ")),
        (1006, "BGP state:          Established".to_owned()),
        (1006, format!("  Neighbor address: {neighbor}")),
        (1006, format!("  Neighbor AS:      {asn}")),
        (1006, format!("  Neighbor caps:    {caps}")),
        (1006, "  Session:          internal multihop AS4 add-path-rx add-path-tx".to_owned()),
        (1006, "  Source address:   10.0.0.1".to_owned()),
    ] {
        protocols.take(code, &line);
    }
    protocols.0.remove(0)
}

fn table(lines: &str) -> Table {
    let mut table = Table::default();
    for line in lines.lines() {
        let code = match line.trim() {
            line if line.starts_with("Type:") => 1008,
            line if line.starts_with("BGP.") || line.starts_with("Kernel.") => 1012,
            _ => 1007,
        };
        table.take(code, line);
    }
    table
}

const ROUTES: &str = "\
10.0.0.0/24 dev eth0 [direct1 11:41:42] * (240)
\tType: device unicast univ
10.65.2.0/26 via 10.0.0.2 on eth0 [Mesh_10_0_0_2 11:41:46] * (100/0) [i]
\tType: BGP unicast univ
\tBGP.origin: IGP
\tBGP.next_hop: 10.0.0.2
\tBGP.local_pref: 2147482623
10.65.1.0/26 blackhole [static1 11:41:42] * (200)
\tType: static unicast univ
";

fn via(prefix: &str, protocol: u8, metric: u32, gateway: &str, interface: &str) -> SeenRoute {
    let gateway = ViewGateway {
        via: Some(gateway.parse().unwrap()),
        interface: interface.to_owned(),
        onlink: false,
    };
    SeenRoute {
        prefix: self::prefix(prefix),
        protocol,
        metric,
        kind: SeenKind::Unicast,
        gateways: vec![gateway],
    }
}

fn blackhole(prefix: &str) -> SeenRoute {
    let prefix = self::prefix(prefix);
    SeenRoute { prefix, protocol: 12, metric: 0, kind: SeenKind::Blackhole, gateways: Vec::new() }
}

fn link(name: &str, address: (&str, u8)) -> Link {
    Link {
        index: 1,
        name: name.to_owned(),
        up: true,
        running: true,
        traits: LinkTraits::default(),
        mtu: 1500,
        addresses: vec![(address.0.parse::<IpAddr>().unwrap(), address.1)],
    }
}

fn bird() -> Process {
    Process {
        pid: 7,
        name: "bird".into(),
        program: "bird".into(),
        arguments: vec!["bird".into()],
        sockets: Some(BTreeSet::from([70, 71])),
    }
}

/// A node on which BIRD 1.6 does the same as margay would.
fn facts(more: &[Value]) -> Facts {
    let speaker = Speaker {
        status: Status { version: "v0.3.3+birdv1.6.8".into(), is_recovering: false },
        protocols: vec![session("Mesh_10_0_0_2", "10.0.0.2", 64512)],
        table: table(ROUTES),
        exported: BTreeMap::from([(
            "Mesh_10_0_0_2".to_owned(),
            Ok(BTreeSet::from([prefix("10.65.1.0/26")])),
        )]),
        process: Some(bird()),
    };
    let routes = vec![
        via("10.65.2.0/26", 12, 1024, "10.0.0.2", "eth0"),
        blackhole("10.65.1.0/26"),
        via("0.0.0.0/0", 4, 0, "10.0.0.254", "eth0"),
    ];
    let sockets = [(Role::Listens, 70), (Role::Connects, 71)];
    Facts {
        node: Some("a".into()),
        objects: Objects {
            settings: Ok(()),
            sources: vec![SourceSeen {
                name: "etcd".into(),
                need: Need::Plan,
                objects: Ok(4),
                problems: Vec::new(),
            }],
            rights: Ok(Vec::new()),
            plan: Some(wanted(more)),
        },
        speakers: vec![
            Seat { family: Family::Ipv4, path: "/b.ctl".into(), speaker: Ok(speaker) },
            Seat { family: Family::Ipv6, path: "/b6.ctl".into(), speaker: Err("none".into()) },
        ],
        kernel: Ok(Picture { links: vec![link("eth0", ("10.0.0.1", 24))], routes }),
        host: Host {
            processes: Ok(vec![bird()]),
            sockets: Ok(sockets.map(|(role, inode)| BgpSocket { role, inode }).to_vec()),
            capabilities: ("bird (pid 7)".into(), Ok(u64::MAX)),
            sysctls: BTreeMap::from([("net.ipv4.ip_forward", 1)]),
            firewall: Firewall { listed_by: vec!["nft"], ..Firewall::default() },
            files: Files::default(),
            environment: None,
        },
    }
}

fn speaker(facts: &mut Facts) -> &mut Speaker {
    facts.speakers[0].speaker.as_mut().unwrap()
}

fn routes(facts: &mut Facts) -> &mut Vec<SeenRoute> {
    &mut facts.kernel.as_mut().unwrap().routes
}

/// The findings without notes.
fn lines(report: &Report) -> Vec<String> {
    let heavy = report.findings.iter().filter(|finding| finding.severity != Severity::Note);
    heavy.map(ToString::to_string).collect()
}

#[track_caller]
fn finds(facts: &Facts, severity: Severity, parts: &[&str]) {
    let lines = lines(&judge(facts));
    let [line] = lines.as_slice() else { panic!("not one: {lines:#?}") };
    assert!(line.starts_with(severity.word()), "{line}");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

#[test]
fn nothing_changes_if_bird_does_the_same_as_margay() {
    let report = judge(&facts(&[]));
    assert_eq!(lines(&report), [""; 0]);
    assert_eq!(report.verdict(), Verdict::Unchanged);
    let compared = report.compared;
    assert_eq!((compared.sessions, compared.prefixes, compared.routes), (1, 1, 2));
    assert_eq!(report.release.as_deref(), Some("v3.32.1 (ClusterInformation)"));
}

#[test]
fn new_removed_and_different_sessions_are_changes() {
    let tor = object("BGPPeer", "tor", &json!({"peerIP": "10.0.0.254", "asNumber": 65001}));
    finds(
        &facts(&[tor]),
        Severity::Change,
        &["session Global_10_0_0_254 (BGPPeer/tor)", "is new with 10.0.0.254 AS 65001"],
    );
    let mut gone = facts(&[]);
    speaker(&mut gone).protocols.push(session("Node_10_0_0_9", "10.0.0.9", 65009));
    finds(&gone, Severity::Change, &["session Node_10_0_0_9", "10.0.0.9 AS 65009", "it ends"]);
    let mut other = facts(&[]);
    speaker(&mut other).protocols[0] = session("Mesh_10_0_0_2", "10.0.0.2", 64999);
    finds(&other, Severity::Change, &["(Node/b)", "AS is 64999 today and becomes 64512"]);
    let mut source = facts(&[]);
    speaker(&mut source).protocols[0].source = "10.0.0.77".parse().ok();
    finds(&source, Severity::Change, &["our address is 10.0.0.77 today and becomes 10.0.0.1"]);
}

#[test]
fn a_session_that_is_down_loses_nothing() {
    let mut down = facts(&[]);
    let of_bird = speaker(&mut down);
    of_bird.protocols[0] = Protocol {
        state: "Connect".into(),
        error: Some("Socket: No route to host".into()),
        session: BTreeSet::new(),
        capabilities: BTreeSet::new(),
        source: None,
        ..of_bird.protocols[0].clone()
    };
    of_bird.exported.clear();
    of_bird.table =
        table("10.65.1.0/26 blackhole [static1 11:41:42] * (200)\n\tType: static unicast univ");
    routes(&mut down).retain(|route| route.prefix != prefix("10.65.2.0/26"));
    let report = judge(&down);
    assert_eq!(lines(&report), [""; 0]);
    let notes: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(
        notes.iter().any(|line| line.contains("is Connect today, Socket: No route")),
        "{notes:?}"
    );
}

#[test]
fn what_a_session_needs_is_checked() {
    let secret = json!({"secretKeyRef": {"name": "bgp", "key": "k"}});
    let mesh = object("BGPConfiguration", "default", &json!({"nodeMeshPassword": secret}));
    let report = judge(&facts(&[mesh]));
    let lines = lines(&report);
    assert!(
        lines.iter().any(|l| l.contains("MD5 key cannot be read (key \"k\" of Secret bgp)")),
        "{lines:?}"
    );
    assert_eq!(report.verdict(), Verdict::Unsafe);
    let mut forgetful = facts(&[]);
    speaker(&mut forgetful).protocols[0].capabilities.remove("restart-able");
    finds(&forgetful, Severity::Unsafe, &["does not keep our routes over a restart"]);
    speaker(&mut forgetful).protocols[0].capabilities.insert("restart-aware".into());
    assert_eq!(judge(&forgetful).verdict(), Verdict::Unchanged);
    let mut away = facts(&[]);
    away.kernel.as_mut().unwrap().links[0].addresses.clear();
    finds(&away, Severity::Unsafe, &["10.0.0.1, the node's address, is on no interface", "Node/a"]);
}

#[test]
fn protocols_that_calico_does_not_write_are_unsafe() {
    for (name, kind) in
        [("my_tor", "BGP"), ("ospf1", "OSPF"), ("kernel2", "Kernel"), ("x", "Static")]
    {
        let mut edited = facts(&[]);
        let protocol = Protocol { name: name.into(), kind: kind.into(), ..Protocol::default() };
        speaker(&mut edited).protocols.push(protocol);
        finds(&edited, Severity::Unsafe, &[name, "edited by hand"]);
    }
    let mut plain = facts(&[]);
    for (name, kind) in [("static1", "Static"), ("direct1", "Direct"), ("device1", "Device")] {
        let protocol = Protocol { name: name.into(), kind: kind.into(), ..Protocol::default() };
        speaker(&mut plain).protocols.push(protocol);
    }
    assert_eq!(judge(&plain).verdict(), Verdict::Unchanged);
}

#[test]
fn announcements_are_compared_by_prefix() {
    let mut fewer = facts(&[]);
    let mine = "Mesh_10_0_0_2";
    speaker(&mut fewer).exported.insert(mine.into(), Ok(BTreeSet::new()));
    finds(
        &fewer,
        Severity::Change,
        &["prefix 10.65.1.0/26 (a block of this node's", "is not announced to Mesh_10_0_0_2 today"],
    );
    let mut more = facts(&[]);
    let both = ["10.65.1.0/26", "10.77.0.0/16"].map(prefix);
    speaker(&mut more).exported.insert(mine.into(), Ok(BTreeSet::from(both)));
    finds(
        &more,
        Severity::Change,
        &["prefix 10.77.0.0/16", "would be withdrawn: there is no path"],
    );
    let kernels = "\
10.77.0.0/16 via 10.0.0.9 on eth0 [kernel1 11:41:42] * (10)
\tType: inherit unicast univ
\tKernel.source: 4
\tKernel.metric: 0
";
    speaker(&mut more).table = table(&format!("{ROUTES}{kernels}"));
    finds(
        &more,
        Severity::Change,
        &["prefix 10.77.0.0/16", "would be withdrawn: ", "calico export"],
    );
    let mut unasked = facts(&[]);
    speaker(&mut unasked).exported.clear();
    finds(&unasked, Severity::Unseen, &["with 1 further export policies it was not asked"]);
    let mut unknown = facts(&[]);
    speaker(&mut unknown).exported.insert(mine.into(), Err("it stopped".into()));
    finds(
        &unknown,
        Severity::Unseen,
        &["is not known: it stopped", "show route export Mesh_10_0_0_2"],
    );
}

#[test]
fn kernel_routes_are_compared_by_presence_gateway_and_metric() {
    let mut other = facts(&[]);
    routes(&mut other)[0] = via("10.65.2.0/26", 12, 1024, "10.0.0.254", "eth0");
    finds(
        &other,
        Severity::Change,
        &["route 10.65.2.0/26: is via 10.0.0.254 dev eth0 metric 1024 today, and would be via \
             10.0.0.2 dev eth0 metric 1024"],
    );
    let mut metric = facts(&[]);
    routes(&mut metric)[0].metric = 0;
    finds(&metric, Severity::Change, &["metric 0 today", "metric 1024"]);
    let mut missing = facts(&[]);
    routes(&mut missing).remove(1);
    finds(
        &missing,
        Severity::Change,
        &["route 10.65.1.0/26", "is not in the kernel today", "blackhole"],
    );
    let mut left_over = facts(&[]);
    routes(&mut left_over).push(via("10.99.0.0/16", 12, 0, "10.0.0.2", "eth0"));
    finds(
        &left_over,
        Severity::Change,
        &["route 10.99.0.0/16", "would be removed: no session gives a usable path"],
    );
    // A route that is there stays, with BIRD and with margay.
    let mut taken = facts(&[]);
    routes(&mut taken)[0].protocol = 4;
    assert_eq!(lines(&judge(&taken)), [""; 0]);
}

#[test]
fn routes_use_the_tunnel_of_the_pool() {
    let ipip = object("IPPool", "pods", &json!({"cidr": "10.65.0.0/16", "ipipMode": "Always"}));
    let mut tunnelled = facts(&[ipip]);
    tunnelled.kernel.as_mut().unwrap().links.push(link("tunl0", ("10.65.1.1", 32)));
    finds(&tunnelled, Severity::Change, &["would be via 10.0.0.2 dev tunl0 metric 1024"]);
    routes(&mut tunnelled)[0] = via("10.65.2.0/26", 12, 1024, "10.0.0.2", "tunl0");
    assert_eq!(lines(&judge(&tunnelled)), [""; 0]);
}

#[test]
fn a_neighbour_behind_a_gateway_has_a_route_if_the_gateway_is_connected() {
    let tor = |gateway: &str| {
        let spec = json!({"peerIP": "10.9.9.9", "asNumber": 65001, "reachableBy": gateway});
        lines(&judge(&facts(&[object("BGPPeer", "tor", &spec)])))
    };
    let near = tor("10.0.0.254");
    let wanted = "would be: via 10.0.0.254 dev eth0 metric 0";
    assert!(near.iter().any(|l| l.contains("route 10.9.9.9/32") && l.contains(wanted)), "{near:?}");
    let far = tor("10.8.8.8");
    assert!(!far.iter().any(|l| l.contains("route 10.9.9.9/32")), "{far:?}");
}

#[test]
fn equal_paths_make_a_multipath_route() {
    let second = "\
            via 10.0.0.3 on eth0 [Mesh_10_0_0_3 11:41:46] (100/0) [i]
\tType: BGP unicast univ
\tBGP.origin: IGP
\tBGP.next_hop: 10.0.0.3
\tBGP.local_pref: 2147482623
";
    let mut both = facts(&[node("c", "10.0.0.3/24")]);
    let (first, rest) = ROUTES.split_once("10.65.1.0/26").unwrap();
    let of_bird = speaker(&mut both);
    of_bird.table = table(&format!("{first} {second}10.65.1.0/26{rest}"));
    of_bird.protocols.push(session("Mesh_10_0_0_3", "10.0.0.3", 64512));
    finds(&both, Severity::Change, &["would be via 10.0.0.2 dev eth0, via 10.0.0.3 dev eth0"]);
    let leg = via("10.65.2.0/26", 12, 1024, "10.0.0.3", "eth0").gateways;
    routes(&mut both)[0].gateways.extend(leg);
    assert_eq!(lines(&judge(&both)), [""; 0]);
    // A worse path is not part of it.
    let worse = second.replace("2147482623", "100");
    speaker(&mut both).table = table(&format!("{first} {worse}10.65.1.0/26{rest}"));
    finds(&both, Severity::Change, &["would be via 10.0.0.2 dev eth0 metric 1024"]);
}

#[test]
fn a_next_hop_in_a_block_resolves_through_its_route() {
    let workload = "\
10.66.7.0/24 unreachable [Mesh_10_0_0_2 11:41:46] * (100/-) [i]
\tType: BGP unicast univ
\tBGP.origin: IGP
\tBGP.next_hop: 10.65.2.10
\tBGP.local_pref: 2147482623
";
    let mut nested = facts(&[]);
    speaker(&mut nested).table = table(&format!("{ROUTES}{workload}"));
    let unreachable = SeenRoute { kind: SeenKind::Unreachable, ..blackhole("10.66.7.0/24") };
    routes(&mut nested).push(SeenRoute { metric: 1024, ..unreachable });
    finds(
        &nested,
        Severity::Change,
        &["is unreachable metric 1024 today, and would be via 10.0.0.2 dev eth0 metric 1024"],
    );
    // A path with a next hop in no block is not used.
    let nowhere = workload.replace("10.65.2.10", "10.9.9.9");
    speaker(&mut nested).table = table(&format!("{ROUTES}{nowhere}"));
    finds(&nested, Severity::Change, &["would be removed: no session gives a usable path"]);
}

#[test]
fn pools_whose_routes_have_no_owner_or_two_are_unsafe() {
    let felixs =
        object("BGPConfiguration", "default", &json!({"programClusterRoutes": "Disabled"}));
    let nobodys = lines(&judge(&facts(std::slice::from_ref(&felixs))));
    assert!(nobodys.iter().any(|l| l.contains("nobody writes the kernel routes")), "{nobodys:?}");
    assert!(nobodys.iter().any(|l| l.contains("has none for 10.65.2.0/26")), "{nobodys:?}");
    assert!(
        nobodys.iter().all(|l| l.starts_with("unsafe") || l.contains("10.65.1.0/26")),
        "{nobodys:?}"
    );
    let enabled =
        object("FelixConfiguration", "default", &json!({"programClusterRoutes": "Enabled"}));
    let mut owned = facts(&[felixs, enabled]);
    let written = via("10.65.2.0/26", 80, 0, "10.0.0.2", "eth0");
    routes(&mut owned).push(written.clone());
    let owned = lines(&judge(&owned));
    assert!(owned.iter().any(|l| l.contains("pool whose routes Felix writes")), "{owned:?}");
    assert!(!owned.iter().any(|l| l.starts_with("unsafe")), "{owned:?}");
    let mut two = facts(&[]);
    routes(&mut two).push(written);
    finds(&two, Severity::Unsafe, &["route 10.65.0.0/16", "both Felix and BGP", "10.65.2.0/26"]);
}

#[test]
fn an_unknown_release_is_unsafe() {
    for (version, text) in [("v3.99.0", "is not known"), ("banana", "is not a version")] {
        let said = object("ClusterInformation", "default", &json!({"calicoVersion": version}));
        let lines = lines(&judge(&facts(&[said])));
        let is_said = |line: &String| {
            line.starts_with("unsafe")
                && line.contains(text)
                && line.contains("MARGAY_CALICO_VERSION")
        };
        assert!(lines.iter().any(is_said), "{lines:?}");
    }
}

#[test]
fn unreadable_parts_are_reported_and_the_rest_is_evaluated() {
    let mut away = facts(&[]);
    away.objects.plan = None;
    away.objects.sources[0].objects = Err("connection refused".into());
    routes(&mut away).clear();
    speaker(&mut away).protocols.push(session("my_tor", "10.0.0.9", 1));
    let found = lines(&judge(&away));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().any(|l| l.contains("etcd: cannot be read: connection refused")));
    assert!(found.iter().any(|l| l.contains("my_tor")), "the rest is evaluated");
    let mut silent = facts(&[]);
    silent.speakers[0].speaker = Err("/b.ctl: no such file".into());
    silent.host.processes = Ok(Vec::new());
    silent.host.sockets = Ok(Vec::new());
    finds(&silent, Severity::Unsafe, &["speaker /b.ctl", "nobody can be asked", "no such file"]);
    let mut unknown = facts(&[]);
    let snapshot = Snapshot::default();
    unknown.objects.plan = Some(running(resolve(&snapshot, &Settings::new("ghost"))));
    let found = lines(&judge(&unknown));
    let ghost = found.iter().find(|line| line.contains("Node/ghost"));
    assert!(ghost.is_some_and(|l| l.starts_with("unsafe") && l.contains("--node")), "{found:?}");
    let mut blind = facts(&[]);
    blind.kernel = Err("permission denied".into());
    finds(&blind, Severity::Unsafe, &["the kernel's routes cannot be read: permission denied"]);
    let mut cut = facts(&[]);
    cut.objects.settings = Err("NODENAME is not set".into());
    finds(&cut, Severity::Unsafe, &["datastore settings", "NODENAME is not set"]);
}

#[test]
fn a_node_without_bgp_needs_no_speaker() {
    let mut idle = facts(&[]);
    let plan = Plan::without_bgp("a");
    idle.objects.plan = Some(Wanted { plan, running: BTreeSet::new(), idle: Vec::new() });
    idle.speakers[0].speaker = Err("/b.ctl: no such file".into());
    idle.host.processes = Ok(Vec::new());
    idle.host.sockets = Ok(Vec::new());
    let report = judge(&idle);
    assert_eq!(lines(&report), [""; 0]);
    let said = |finding: &super::super::finding::Finding| finding.text.contains("speaks no BGP");
    assert!(report.findings.iter().any(said), "{report:?}");
}

#[test]
fn missing_permissions_are_unsafe() {
    let mut bound = facts(&[]);
    let right = Lacking {
        verb: "watch",
        resource: "bgppeers.crd.projectcalico.org".into(),
        namespace: String::new(),
        name: String::new(),
        holds_up: true,
    };
    bound.objects.rights = Ok(vec![right]);
    finds(&bound, Severity::Unsafe, &["watch of bgppeers.crd.projectcalico.org is not allowed"]);
    bound.objects.rights = Err("403".into());
    finds(&bound, Severity::Unseen, &["cannot be asked which rights"]);
}

#[test]
fn another_speaker_is_unsafe_once_it_has_a_socket() {
    let bgpd = |sockets: &[u64]| Process {
        pid: 8,
        name: "bgpd".into(),
        program: "bgpd".into(),
        arguments: Vec::new(),
        sockets: Some(sockets.iter().copied().collect()),
    };
    let mut beside = facts(&[]);
    beside.host.processes.as_mut().unwrap().push(bgpd(&[]));
    let report = judge(&beside);
    assert_eq!(report.verdict(), Verdict::Unchanged);
    assert!(
        report.findings.iter().any(|f| f.text.contains("bgpd (pid 8) runs beside")),
        "{report:?}"
    );
    let mut speaks = facts(&[]);
    speaks.host.processes.as_mut().unwrap().push(bgpd(&[80]));
    speaks.host.sockets.as_mut().unwrap().push(BgpSocket { role: Role::Listens, inode: 80 });
    finds(&speaks, Severity::Unsafe, &["bgpd (pid 8) listens at BGP's port"]);
    let mut hidden = facts(&[]);
    hidden.host.sockets.as_mut().unwrap().push(BgpSocket { role: Role::Connects, inode: 99 });
    finds(&hidden, Severity::Unsafe, &["1 sockets at BGP's port", "cannot be seen"]);
    hidden.host.processes.as_mut().unwrap()[0].sockets = None;
    finds(&hidden, Severity::Unseen, &["3 sockets at BGP's port"]);
}

#[test]
fn obstacles_on_the_host_are_reported() {
    let mut bound = facts(&[]);
    bound.host.capabilities.1 = Ok(!(1 << 12));
    finds(&bound, Severity::Unsafe, &["bird (pid 7) lacks CAP_NET_ADMIN"]);
    let mut still = facts(&[]);
    still.host.sysctls.insert("net.ipv4.ip_forward", 0);
    finds(&still, Severity::Unsafe, &["net.ipv4.ip_forward", "sysctl -w net.ipv4.ip_forward=1"]);
    let mut full = facts(&[]);
    full.host.sysctls.insert("net.netfilter.nf_conntrack_count", 96);
    full.host.sysctls.insert("net.netfilter.nf_conntrack_max", 100);
    finds(&full, Severity::Unsafe, &["holds 96 of 100 connections"]);
    full.host.sysctls.insert("net.netfilter.nf_conntrack_max", 0);
    assert_eq!(judge(&full).verdict(), Verdict::Unchanged, "no limit is known");
    let mut dropped = facts(&[]);
    dropped.host.firewall.drops.push("nft: tcp dport 179 drop".into());
    finds(&dropped, Severity::Unsafe, &["a rule drops BGP's port: nft: tcp dport 179 drop"]);
    shut_chains_count_for_what_the_node_sends();
    let mut edited = facts(&[]);
    edited.host.files.foreign.push("bird.cfg: protocol rip x {".into());
    finds(&edited, Severity::Unsafe, &["no template of Calico's writes this"]);
    let mut mounted = facts(&[]);
    mounted.host.files.mounts.push("/etc/calico/confd/templates/x".into());
    finds(&mounted, Severity::Unsafe, &["templates of one's own"]);
    let mut elsewhere = facts(&[]);
    elsewhere.host.environment = Some(("bird (pid 7)".into(), vec!["NODENAME".into()]));
    finds(&elsewhere, Severity::Unseen, &["bird (pid 7) has other values", "NODENAME"]);
}

#[track_caller]
fn shut_chains_count_for_what_the_node_sends() {
    let by = "nft: chain input of table inet t: its policy";
    let shut = |traffic, family| {
        let mut facts = facts(&[]);
        facts.host.firewall.shut.insert(Shut { traffic, family, by: by.into() });
        facts
    };
    let bgp = shut(Traffic::Bgp, Family::Ipv4);
    finds(&bgp, Severity::Unsafe, &["new BGP connections", by, "accept TCP port 179"]);
    // There is no session of that family, and no tunnel.
    for (traffic, family) in [
        (Traffic::Bgp, Family::Ipv6),
        (Traffic::Ipip, Family::Ipv4),
        (Traffic::Vxlan, Family::Ipv4),
    ] {
        assert_eq!(judge(&shut(traffic, family)).verdict(), Verdict::Unchanged, "{traffic:?}");
    }
    for (name, traffic, what) in [
        ("tunl0", Traffic::Ipip, "accept IP protocol 4"),
        ("vxlan.calico", Traffic::Vxlan, "accept UDP port 4789"),
    ] {
        let mut tunnelled = shut(traffic, Family::Ipv4);
        let links = &mut tunnelled.kernel.as_mut().unwrap().links;
        links.push(link(name, ("10.65.1.1", 32)));
        finds(&tunnelled, Severity::Unsafe, &["pods' packets", what]);
    }
}

#[test]
fn services_that_would_start_bird_beside_margay_are_unsafe() {
    let service = |name: &str, runs_margay| Service { name: name.into(), runs_margay };
    let mut before = facts(&[]);
    before.host.files.services = vec![service("bird", false), service("confd", false)];
    assert_eq!(judge(&before).verdict(), Verdict::Unchanged);
    let mut after = before.clone();
    let of_margay = Process { program: "margay".into(), ..bird() };
    speaker(&mut after).process = Some(of_margay);
    finds(
        &after,
        Severity::Unsafe,
        &["services bird, confd would start BIRD", "sv once bird confd"],
    );
    after.host.files.services = vec![service("bird", true), service("bird6", false)];
    assert_eq!(judge(&after).verdict(), Verdict::Unchanged, "as in examples/calico-node");
}

#[test]
fn the_version_and_recovery_of_the_speaker_matter() {
    let mut newer = facts(&[]);
    speaker(&mut newer).status.version = "3.1.2".into();
    finds(&newer, Severity::Unsafe, &["BIRD 3.1.2 answers, and only 1.6 is understood"]);
    let mut recovering = facts(&[]);
    speaker(&mut recovering).status.is_recovering = true;
    finds(&recovering, Severity::Unseen, &["waits for neighbours to send their routes again"]);
}
