use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::net as blocking;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use bgp_proto::types::{Asn, NextHop, PeerId, RouterId, Source};
use bgp_proto::wire::{AttrEdit, Origin};
use tempfile::TempDir;
use tokio::io::DuplexStream;

use super::*;
use crate::ctl::Cursor;
use crate::ctl::bird::{
    Acted, Action, BfdRow, BgpDetails, BgpRoute, Details, Directions, Established, IgpMetric,
    Interface, Kind, Phase, ProtocolId, Rank, Recovery, RecoveryOf, Route, RouteQuery, Status, Via,
    Wait, reader_name,
};

mod generated;
#[path = "../../../../tests/support/calico_readers.rs"]
mod readers;

/// A node with everything that readers have trouble with.
struct Node {
    networks: u32,
    pages: AtomicUsize,
    recovering: bool,
    is_decided: bool,
}

const PAGE: u32 = 500;

impl Node {
    fn new(networks: u32) -> Arc<Self> {
        Arc::new(Node { networks, ..Node::empty() })
    }

    fn empty() -> Self {
        Node { networks: 0, pages: AtomicUsize::new(0), recovering: true, is_decided: true }
    }

    fn sessions() -> Vec<(String, IpAddr, Phase, &'static str, Option<&'static str>)> {
        let ip = |text: &str| text.parse().unwrap();
        vec![
            ("Global_10_0_0_9".into(), ip("10.0.0.9"), Phase::Start, "Connect", None),
            (
                "Global_10_0_0_9_port_1790".into(),
                ip("10.0.0.9"),
                Phase::Start,
                "Active",
                Some("Socket: Connection refused"),
            ),
            ("Local_Workload_10_65_1_7".into(), ip("10.65.1.7"), Phase::Up, "Established", None),
            ("Mesh_10_0_0_2".into(), ip("10.0.0.2"), Phase::Up, "Established", None),
            ("Mesh_10_0_0_3".into(), ip("10.0.0.3"), Phase::Start, "Passive", None),
            (
                "Node_10_0_0_4".into(),
                ip("10.0.0.4"),
                Phase::Start,
                "Idle",
                Some("Received: Administrative shutdown"),
            ),
        ]
    }

    fn own(name: &str, kind: Kind, phase: Phase) -> Protocol {
        Protocol {
            id: ProtocolId::Own(Source::Static),
            name: name.into(),
            kind,
            phase,
            since: SystemTime::now(),
            word: "",
            error: None,
        }
    }

    /// The paths of network `n`.
    fn paths(n: u32) -> Vec<Route> {
        let prefix = format!("10.{}.{}.0/24", 64 + n / 256 % 128, n % 256).parse().unwrap();
        let bgp = |name: &str, from: &str, via: Via, rank, metric| {
            let from: IpAddr = from.parse().unwrap();
            let mut attrs = AttrEdit::originate(Origin::Igp);
            attrs.set_local_pref(100);
            Route {
                prefix,
                via,
                protocol: reader_name(name, from).into(),
                kind: Kind::Bgp,
                since: SystemTime::now(),
                from: Some(from),
                rank,
                preference: 100,
                bgp: Some(BgpRoute {
                    long_lived_stale: false,
                    metric,
                    next_hop: Some(NextHop::from(from)),
                    attrs: attrs.into_bytes().into(),
                }),
            }
        };
        let gateway = |ip: &str| (ip.parse().unwrap(), "eth0".to_owned());
        let own = |via, protocol: &str, kind, preference| Route {
            protocol: protocol.into(),
            kind,
            from: None,
            preference,
            bgp: None,
            ..bgp("Mesh_1", "10.0.0.1", via, Rank::Best, IgpMetric::Known(0))
        };
        match n % 6 {
            0 => vec![own(Via::Blackhole, "static1", Kind::Static, 200)],
            1 => vec![own(Via::Device("cali12ab34cd56e".into()), "kernel1", Kind::Kernel, 10)],
            2 => {
                let ways = vec![gateway("10.0.0.2"), gateway("10.0.0.3")];
                vec![own(Via::Gateways(ways), "kernel1", Kind::Kernel, 10)]
            }
            3 => {
                let via = |ip| Via::Gateways(vec![gateway(ip)]);
                vec![
                    bgp(
                        "Mesh_10_0_0_2",
                        "10.0.0.2",
                        via("10.0.0.2"),
                        Rank::Best,
                        IgpMetric::Known(0),
                    ),
                    bgp(
                        "Mesh_10_0_0_3",
                        "10.0.0.3",
                        via("10.0.0.3"),
                        Rank::Other,
                        IgpMetric::Known(0),
                    ),
                ]
            }
            4 => {
                let via = Via::Gateways(vec![gateway("10.0.0.99")]);
                let best = Rank::BestNotInstalled;
                vec![bgp("Local_Workload_10_65_1_7", "10.65.1.7", via, best, IgpMetric::Unknown)]
            }
            _ => {
                let gone = IgpMetric::Unresolvable;
                vec![bgp("Global_10_0_0_9", "10.0.0.9", Via::Unreachable, Rank::Best, gone)]
            }
        }
    }
}

impl Backend for Node {
    async fn bfd_sessions(&self, _: Family) -> Option<Vec<BfdRow>> {
        None
    }

    async fn status(&self, _: Family) -> Result<Status, String> {
        let now = SystemTime::now();
        let timer = Wait { left: Duration::from_secs(236), of: Duration::from_secs(240) };
        Ok(Status {
            router_id: [10, 0, 0, 1].into(),
            started: now,
            configured: now,
            recovery: self.recovering.then_some(Recovery { waiting: 2, timer }),
            drained: None,
        })
    }

    async fn protocols(&self, _: Family) -> Result<Vec<Protocol>, String> {
        if !self.is_decided {
            return Err("waiting for etcd".into());
        }
        let own = [
            Node::own("static1", Kind::Static, Phase::Up),
            Node::own("kernel1", Kind::Kernel, Phase::Wait),
        ];
        let session = |(name, _, phase, word, error): (String, _, _, _, Option<&str>)| Protocol {
            id: ProtocolId::Peer(PeerId(0)),
            kind: Kind::Bgp,
            phase,
            word,
            error: error.map(str::to_owned),
            ..Node::own(&name, Kind::Bgp, phase)
        };
        Ok(own.into_iter().chain(Node::sessions().into_iter().map(session)).collect())
    }

    async fn details(&self, _: Family, protocols: &[Protocol]) -> Result<Vec<Details>, String> {
        let wait = Wait { left: Duration::from_secs(3), of: Duration::from_secs(5) };
        let details = |protocol: &Protocol| {
            let sessions = Node::sessions();
            let session = sessions.iter().find(|(name, ..)| *name == *protocol.name);
            let established = Established {
                neighbor_id: RouterId(1),
                capabilities: vec!["refresh", "AS4"],
                session: vec!["internal", "multihop", "AS4"],
                source: [10, 0, 0, 1].into(),
                limit: Some((3, 1000)),
                hold: wait,
                keepalive: wait,
            };
            Details {
                description: session.map(|_| "Connection to BGP peer".to_owned()),
                preference: 100,
                input_filter: "ACCEPT".into(),
                output_filter: "REJECT".into(),
                recovery: session.map(|_| RecoveryOf::Pending),
                imported: 1,
                exported: 2,
                preferred: 1,
                changes: Directions::default(),
                bgp: session.map(|(_, neighbor, phase, ..)| BgpDetails {
                    neighbor: *neighbor,
                    neighbor_asn: Asn(64512).0,
                    restarting: Some(Duration::from_secs(90)),
                    error_wait: None,
                    connect_delay: Some(wait),
                    session: (*phase == Phase::Up).then_some(established),
                }),
            }
        };
        Ok(protocols.iter().map(details).collect())
    }

    async fn routes(
        &self,
        _: Family,
        query: &RouteQuery,
        cursor: Option<&Cursor>,
    ) -> Result<RoutePage, String> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        if query.target != Target::All {
            // The table filters by protocol; here only static1 has a route to that network.
            let is_there = query.target == Target::Exact("10.64.0.0/24".parse().unwrap());
            let is_asked = query.protocol.as_deref().is_none_or(|name| name == "static1");
            let routes = if is_there && is_asked { Node::paths(0) } else { Vec::new() };
            return Ok(RoutePage { networks: routes.len() as u64, routes, next: None });
        }
        let first = match cursor {
            Some(Cursor::Index(index)) => *index,
            _ => 0,
        };
        let end = (first + PAGE).min(self.networks);
        Ok(RoutePage {
            routes: (first..end).flat_map(Node::paths).collect(),
            networks: u64::from(end - first),
            next: (end < self.networks).then_some(Cursor::Index(end)),
        })
    }

    async fn interfaces(&self, _: Family) -> Vec<Interface> {
        let eth0 = Interface {
            index: 3,
            name: "eth0".into(),
            admin_up: true,
            link_up: true,
            loopback: false,
            broadcast: true,
            multicast: true,
            mtu: 1500,
            addresses: vec![([10, 0, 0, 1].into(), 24)],
        };
        let lo = Interface {
            index: 1,
            name: "lo".into(),
            loopback: true,
            broadcast: false,
            multicast: false,
            mtu: 65536,
            addresses: vec![([127, 0, 0, 1].into(), 8), ([10, 0, 0, 2].into(), 32)],
            ..eth0.clone()
        };
        let v1 = Interface { index: 2, name: "v1".into(), addresses: Vec::new(), ..eth0.clone() };
        vec![lo, v1, eth0]
    }

    async fn act(&self, protocol: &Protocol, action: Action) -> Acted {
        match (action, protocol.phase) {
            (Action::Disable, Phase::Down) => Acted::AlreadyDisabled,
            (Action::Enable, Phase::Start | Phase::Up) => Acted::AlreadyEnabled,
            (Action::Reload { .. }, Phase::Start) => Acted::NotUp,
            (Action::Reload { import: true, .. }, _) if &*protocol.name == "Mesh_10_0_0_2" => {
                Acted::ReloadFailed
            }
            _ => Acted::Done,
        }
    }

    async fn configuration(&self) -> String {
        "/etc/margay.toml".into()
    }

    async fn configure(&self, how: Configure) -> Result<(), String> {
        match how {
            Configure::Apply => Ok(()),
            Configure::Check => {
                Err("/etc/margay.toml:3:1: bgp.asn: 0 is no AS\nanother line".into())
            }
        }
    }
}

/// Everything that one client receives for these commands.
async fn conversation<B: Backend>(node: &Arc<B>, commands: &str) -> String {
    let (client, server) = tokio::io::duplex(1 << 16);
    let task = tokio::spawn(serve(Arc::clone(node), server, Waits::default()));
    let (mut reader, mut writer) = tokio::io::split(client);
    writer.write_all(commands.as_bytes()).await.unwrap();
    writer.shutdown().await.unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).await.unwrap();
    task.await.unwrap();
    answer
}

async fn serve<B: Backend>(node: Arc<B>, stream: DuplexStream, waits: Waits) {
    let (reader, writer) = tokio::io::split(stream);
    let (_place, heard) = ClientSlots::new(1).take();
    let mut client = Client::new(writer, Family::Ipv4, &*node, waits, heard);
    let _ = client.serve(BufReader::new(reader)).await;
}

#[tokio::test]
async fn every_reader_parses_the_sessions() {
    let node = Node::new(0);
    let answer = conversation(&node, "show protocols\n").await;
    let sessions = readers::sessions(&answer, ".").unwrap();
    let names: Vec<&str> = sessions.iter().map(|session| session.name.as_str()).collect();
    let wanted = [
        "Global_10_0_0_9",
        "Global_10_0_0_9_port_1790",
        "Mesh_10_0_0_2",
        "Mesh_10_0_0_3",
        "Node_10_0_0_4",
    ];
    assert_eq!(names, wanted, "local workloads are not Calico's sessions");
    assert_eq!(sessions[1].info, "Active Socket: Connection refused");
    assert_eq!(
        (sessions[2].info.as_str(), sessions[2].peer_ip.as_str()),
        ("Established", "10.0.0.2")
    );
    assert_eq!((sessions[3].info.as_str(), sessions[3].state.as_str()), ("Passive", "start"));
    for session in &sessions {
        let command = format!("show protocols all {}\n", session.name);
        let (state, address) = readers::details(&conversation(&node, &command).await).unwrap();
        assert!(session.info.starts_with(&state), "{session:?} {state}");
        assert_eq!(address, session.peer_ip.replace(".port.1790", ""));
    }
}

#[tokio::test]
async fn every_reader_parses_the_status() {
    let answer = conversation(&Node::new(0), "show status\n").await;
    assert_eq!(readers::is_restarting(&answer), Ok(true));
    let agent = readers::agent(&answer);
    assert!(agent.ready);
    assert_eq!(
        (agent.version.as_str(), agent.router_id.as_str()),
        ("v0.3.3+birdv1.6.8", "10.0.0.1")
    );
    assert_eq!(agent.last_boot.len(), "2026-11-23 05:12:45".len());
    let done = Arc::new(Node { recovering: false, ..Node::empty() });
    assert_eq!(readers::is_restarting(&conversation(&done, "show status\n").await), Ok(false));
}

/// As BIRD 1.6.8 replies to each of the four commands.
#[tokio::test]
async fn sessions_are_disabled_enabled_restarted_and_reloaded() {
    let node = Node::new(0);
    let answer = conversation(
        &node,
        "disable Mesh_10_0_0_3\nenable Mesh_10_0_0_3\nrestart \"Mesh_*\"\nreload Mesh_10_0_0_2\n\
         reload out Mesh_10_0_0_2\nreload Mesh_10_0_0_3\nreload all\nrestart nobody\n\
         disable \"x*\"\ndisable static1\nrestrict\nrestart all\n",
    )
    .await;
    let wanted = "0001 BIRD v0.3.3+birdv1.6.8 ready.\n\
         0009-Mesh_10_0_0_3: disabled\n0000 \n\
         0010-Mesh_10_0_0_3: already enabled\n0000 \n\
         0012-Mesh_10_0_0_2: restarted\n Mesh_10_0_0_3: restarted\n0000 \n\
         8006-Mesh_10_0_0_2: reload failed\n0000 \n\
         0015-Mesh_10_0_0_2: reloading\n0000 \n\
         0000 \n\
         0015-Local_Workload_10_65_1_7: reloading\n8006-Mesh_10_0_0_2: reload failed\n0000 \n\
         9002 nobody is not a protocol\n\
         8003 No protocols match\n\
         8008 static1 is no session\n\
         0016 Access restricted\n\
         8007 Access denied\n";
    assert_eq!(answer, wanted);
}

/// Probes take a reply without sessions to mean that the node waits for none.
#[tokio::test]
async fn before_the_first_plan_no_reader_sees_the_node_as_ready() {
    let node = Arc::new(Node { is_decided: false, ..Node::empty() });
    for command in ["show protocols\n", "show protocols all\n", "show route protocol x\n"] {
        let answer = conversation(&node, command).await;
        assert_eq!(answer, "0001 BIRD v0.3.3+birdv1.6.8 ready.\n8009 waiting for etcd\n");
        assert!(readers::sessions(&answer, ".").is_err(), "{command}");
    }
}

#[tokio::test]
async fn every_reader_parses_the_routes_page_by_page() {
    let node = Node::new(6000);
    let answer = conversation(&node, "show route\n").await;
    let routes = readers::routes(&answer, ".").unwrap();
    // Of six networks, one has two gateways and one two paths.
    assert_eq!(routes.len(), 8000);
    assert_eq!(node.pages.load(Ordering::SeqCst), 12);
    let networks: BTreeSet<&str> = routes.iter().map(|route| route.destination.as_str()).collect();
    assert_eq!(networks.len(), 6000);
    let of = |text: &str| routes.iter().filter(|r| r.destination == text).collect::<Vec<_>>();
    let ecmp = of("10.64.2.0/24");
    assert_eq!(
        ecmp.iter().map(|r| r.gateway.as_str()).collect::<Vec<_>>(),
        ["10.0.0.2", "10.0.0.3"]
    );
    assert!(ecmp.iter().all(|r| r.is_fib), "both gateways are in the kernel");
    let bgp = of("10.64.3.0/24");
    assert_eq!(
        bgp.iter().map(|r| (r.is_fib, r.source)).collect::<Vec<_>>(),
        [(true, "NodeMesh"), (false, "NodeMesh")]
    );
    let workload = of("10.64.4.0/24");
    assert_eq!((workload[0].source, workload[0].peer_ip.as_str()), ("BGPPeer", "10.65.1.7"));
    assert!(!workload[0].is_fib, "the kernel refused it");
}

/// Lines as BIRD 1.6.8 wrote them.
#[tokio::test]
async fn routes_equal_birds_byte_for_byte() {
    let answer = conversation(&Node::new(6), "show route all\n").await;
    let time = |line: &str| {
        let (head, rest) = line.split_once('[').unwrap();
        let (name, rest) = rest.split_once(' ').unwrap();
        format!("{head}[{name} TIME{}", rest.get(8..).unwrap())
    };
    let lines: Vec<String> = answer
        .lines()
        .map(
            |line| {
                if line.contains('[') && !line.contains("BGP") { time(line) } else { line.into() }
            },
        )
        .collect();
    let wanted = "\
0001 BIRD v0.3.3+birdv1.6.8 ready.
1007-10.64.0.0/24       blackhole [static1 TIME] * (200)
1008-\tType: static unicast univ
1007-10.64.1.0/24       dev cali12ab34cd56e [kernel1 TIME] * (10)
1008-\tType: inherit unicast univ
1007-10.64.2.0/24       via 10.0.0.2 on eth0 [kernel1 TIME] * (10)
                    via 10.0.0.3 on eth0 [kernel1 TIME] * (10)
1008-\tType: inherit unicast univ
1007-10.64.3.0/24       via 10.0.0.2 on eth0 [Mesh_10_0_0_2 TIME] * (100/0) [i]
1008-\tType: BGP unicast univ
1012-\tBGP.origin: IGP
 \tBGP.as_path: $
 \tBGP.next_hop: 10.0.0.2
 \tBGP.local_pref: 100
1007-                   via 10.0.0.3 on eth0 [Mesh_10_0_0_3 TIME] (100/0) [i]
1008-\tType: BGP unicast univ
1012-\tBGP.origin: IGP
 \tBGP.as_path: $
 \tBGP.next_hop: 10.0.0.3
 \tBGP.local_pref: 100
1007-10.64.4.0/24       via 10.0.0.99 on eth0 [Node_10_65_1_7 TIME from 10.65.1.7] ! (100/?) [i]
1008-\tType: BGP unicast univ
1012-\tBGP.origin: IGP
 \tBGP.as_path: $
 \tBGP.next_hop: 10.65.1.7
 \tBGP.local_pref: 100
1007-10.64.5.0/24       unreachable [Global_10_0_0_9 TIME from 10.0.0.9] * (100/-) [i]
1008-\tType: BGP unicast univ
1012-\tBGP.origin: IGP
 \tBGP.as_path: $
 \tBGP.next_hop: 10.0.0.9
 \tBGP.local_pref: 100
0000 $";
    let wanted: Vec<String> = wanted.lines().map(|line| line.replace('$', "")).collect();
    assert_eq!(lines, wanted);
}

#[tokio::test]
async fn interfaces_equal_birds() {
    let answer = conversation(&Node::new(0), "show interfaces\nshow interfaces summary\n").await;
    let wanted = "\
0001 BIRD v0.3.3+birdv1.6.8 ready.
1001-lo up (index=1)
1004-\tMultiAccess AdminUp LinkUp Loopback Ignored MTU=65536
1003-\t127.0.0.1/8 (Unselected, scope host)
 \t10.0.0.2/32 (Primary, scope site)
1001-v1 DOWN (index=2)
1004-\tMultiAccess Broadcast Multicast AdminUp LinkUp MTU=1500
1001-eth0 up (index=3)
1004-\tMultiAccess Broadcast Multicast AdminUp LinkUp MTU=1500
1003-\t10.0.0.1/24 (Primary, scope site)
0000 $
2005-interface state address
1005-lo        up    10.0.0.2/32
 v1        DOWN  $
 eth0      up    10.0.0.1/24
0000 $
";
    assert_eq!(answer, wanted.replace('$', ""));
}

#[tokio::test]
async fn commands_are_answered_in_order_with_birds_codes() {
    let commands = "show protocols nosuch\nshow protocols \"x*\"\nshow route for 99.0.0.1\n\
        show route protocol nosuch\nfoo\n\nshow route count\nconfigure\nconfigure check\nrestrict\n\
        configure\nshow protocols all all\n";
    let answer = conversation(&Node::new(6), commands).await;
    let wanted = "\
0001 BIRD v0.3.3+birdv1.6.8 ready.
9002 nosuch is not a protocol
8003 No protocols match
8001 Network not in table
9001 nosuch is not a protocol
9001 syntax error
9001 syntax error
0014 7 of 7 routes for 6 networks
0002-Reading configuration from /etc/margay.toml
0003 Reconfigured
0002-Reading configuration from /etc/margay.toml
8002 /etc/margay.toml:3:1: bgp.asn: 0 is no AS
0016 Access restricted
8007 Access denied
9001 syntax error
";
    assert_eq!(answer, wanted);
}

/// As BIRD 1.6.8 replies in the same situations.
#[tokio::test]
async fn a_query_for_a_network_says_whether_it_exists() {
    let commands = "show route 10.64.0.0/24 count\nshow route 10.64.0.0/24 protocol kernel1\n\
        show route 10.64.0.0/24 protocol kernel1 count\nshow route 10.99.0.0/24 count\n\
        show route 10.99.0.0/24 protocol kernel1\nshow route export Mesh_10_0_0_3\n\
        show route 10.64.0.0/24 export Mesh_10_0_0_3\n";
    let answer = conversation(&Node::new(6), commands).await;
    let wanted = "\
0001 BIRD v0.3.3+birdv1.6.8 ready.
0000 $
0000 $
0000 $
8001 Network not in table
8001 Network not in table
8005 Protocol is down
8005 Protocol is down
";
    assert_eq!(answer, wanted.replace('$', ""));
}

#[tokio::test]
async fn an_unterminated_command_is_ignored() {
    let answer = conversation(&Node::new(0), "show protocols nosuch\nshow status").await;
    assert_eq!(answer, "0001 BIRD v0.3.3+birdv1.6.8 ready.\n9002 nosuch is not a protocol\n");
}

#[tokio::test]
async fn garbage_gets_an_error_or_ends_the_connection() {
    let node = Node::new(0);
    let mut state = 1u64;
    for _ in 0..200 {
        let octets: Vec<u8> = (0..64)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if state >> 60 == 0 { b'\n' } else { (state >> 40) as u8 }
            })
            .collect();
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let task = tokio::spawn(serve(Arc::clone(&node), server, Waits::default()));
        client.write_all(&octets).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        task.await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.lines().skip(1).all(|line| line.starts_with('9')), "{answer}");
    }
    let endless = conversation(&node, &"x".repeat(COMMAND_LEN_MAX)).await;
    assert!(endless.ends_with("9000 Command too long\n"), "{endless}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_after_a_few_pages() {
    let node = Node::new(1_000_000);
    let waits = Waits { write: Duration::from_millis(50), ..Waits::default() };
    let (mut client, server) = tokio::io::duplex(4096);
    let task = tokio::spawn(serve(Arc::clone(&node), server, waits));
    client.write_all(b"show route\n").await.unwrap();
    task.await.unwrap();
    assert!(
        node.pages.load(Ordering::SeqCst) <= 3,
        "no pages are produced for a client that does not read"
    );
}

/// Queries as a probe does: connects, writes before reading the greeting, reads to the end.
fn probe(path: &Path) -> String {
    use std::io::{BufRead, Write};
    let stream = blocking::UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    (&stream).write_all(b"show protocols\n").unwrap();
    let mut answer = String::new();
    for line in std::io::BufReader::new(&stream).lines() {
        let line = line.unwrap();
        answer.push_str(&line);
        answer.push('\n');
        if line.starts_with("0000") {
            break;
        }
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_do_not_block_a_probe() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bird.ctl");
    let server = Server::bind(&path, Family::Ipv4).unwrap();
    let serving = tokio::spawn(server.run(Node::new(0)));
    tokio::task::spawn_blocking(move || {
        let mut crowd = Vec::new();
        for at in 0..1000 {
            crowd.push(blocking::UnixStream::connect(&path).unwrap());
            if at % 100 == 99 {
                let began = Instant::now();
                assert_eq!(readers::sessions(&probe(&path), ".").unwrap().len(), 5);
                assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            }
        }
        // The first connections were closed to make room for later ones.
        let mut gone = 0;
        for stream in &crowd {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut all = Vec::new();
            gone += usize::from(std::io::Read::read_to_end(&mut (&*stream), &mut all).is_ok());
            if gone == 1000 - CLIENTS_MAX {
                break;
            }
        }
        assert_eq!(gone, 1000 - CLIENTS_MAX);
    })
    .await
    .unwrap();
    serving.abort();
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bird.ctl");
    drop(blocking::UnixListener::bind(&path).unwrap());
    let first = Server::bind(&path, Family::Ipv4).unwrap();
    let refused = Server::bind(&path, Family::Ipv4).err().unwrap();
    let wanted = format!(
        "another process is listening on {}; stop it, or set another bird-sockets",
        path.display()
    );
    assert_eq!(refused.to_string(), wanted);
    drop(first);
    assert!(!path.exists());
}
