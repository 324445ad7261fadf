//! Services weighted by their endpoints: what a ToR makes of the bandwidth that Calico nodes announce.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::cpu_time::CpuTime;
use interop::daemon::Daemon;
use interop::frr::Frr;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control, control_section};
use interop::matrix::config;
use interop::speaker::{Config, Kind};
use interop::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

const NODE_AS: u32 = 64512;
const TOR_AS: u32 = 65001;
const SERVICE: &str = "10.96.0.7";
const FLOWS: u64 = 100_000;
/// Ready endpoints of the three nodes.
const ENDPOINTS: [u64; 3] = [1, 2, 5];

/// Sends a datagram for each of 100,000 flows, which differ in both ports, and waits between portions
/// of it so that no queue on the way overflows.
const SENDER: &str = "
import socket, sys, time
for source in range(20000, 20500):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('0.0.0.0', source))
    for port in range(1000, 1200):
        s.sendto(b'x', (sys.argv[1], port))
    s.close()
    time.sleep(0.001)
";

/// A Calico node that runs margay on objects in files.
struct Node {
    host: Host,
    control: Control,
    daemon: Daemon,
}

impl Node {
    /// Starts margay with these objects beside those of the node, each in a file of its name.
    fn start(host: &Host, tor: &Host, objects: &[(String, Value)]) -> Result<Self> {
        let object = |kind: &str, name: &str, spec: Value| {
            json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name},
                "spec": spec})
        };
        let address = json!({"ipv4Address": format!("{}/24", host.v4())});
        let ranges = json!({"nodeToNodeMeshEnabled": false, "asNumber": NODE_AS,
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]});
        let peer = json!({"peerIP": tor.v4().to_string(), "asNumber": TOR_AS});
        let folder = host.file("objects");
        fs::create_dir_all(&folder)?;
        for (name, object) in [
            ("node", object("Node", host.name(), json!({"bgp": address}))),
            ("default", object("BGPConfiguration", "default", ranges)),
            ("tor", object("BGPPeer", "tor", peer)),
        ] {
            put(host, name, &object)?;
        }
        objects.iter().try_for_each(|(name, object)| put(host, name, object))?;
        let text = format!(
            "[calico]\nnode = \"{}\"\ndatastore = \"file\"\npath = {folder:?}\nstate-file = \"none\"\n\
             bird-sockets = \"none\"\nendpoint-status = {:?}\nendpoint-weights = \"transitive\"\n{}",
            host.name(),
            host.file("status"),
            control_section(host)
        );
        let (daemon, control) = margay::start_text(host, &text)?;
        host.shell(
            "nft -f - << 'END'\ntable ip count {\n chain in {\n type filter hook prerouting priority 0;\n \
             ip daddr 10.96.0.7 counter drop\n }\n}\nEND",
        )?;
        Ok(Node { host: host.clone(), control, daemon })
    }

    /// Packets for the service that arrived.
    fn count(&self) -> Result<u64> {
        let text = self.host.run("nft", &["list", "chain", "ip", "count", "in"])?;
        let after = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        after.context("no counter")?.parse().context(text.clone())
    }
}

/// A service with policy Local.
fn service(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "clusterIP": address, "externalTrafficPolicy": "Local"}})
}

/// Its EndpointSlice, with so many ready endpoints on each node, and one on each that is not.
fn slice(name: &str, nodes: &[Host], ready: &[u64]) -> Value {
    let mut endpoints = Vec::new();
    for (at, (node, count)) in nodes.iter().zip(ready).enumerate() {
        for number in 0..=*count {
            endpoints.push(json!({"addresses": [format!("10.65.{at}.{}", number + 1)],
                "nodeName": node.name(), "conditions": {"ready": number < *count}}));
        }
    }
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints})
}

/// The service `web` and its endpoints.
fn web(nodes: &[Host], ready: [u64; 3]) -> [(String, Value); 2] {
    [
        ("service".to_owned(), service("web", SERVICE)),
        ("slice".to_owned(), slice("web", nodes, &ready)),
    ]
}

/// Writes an object's file, at once as a whole.
fn put(node: &Host, name: &str, object: &Value) -> Result<()> {
    let fresh = node.write("object.new", &object.to_string())?;
    fs::rename(fresh, node.file("objects").join(format!("{name}.json")))?;
    Ok(())
}

/// The weights of the ToR's kernel route, in the order of the nodes; 0: no leg.
fn weights(tor: &Host, nodes: &[Host]) -> Result<Vec<u64>> {
    let text = tor.run("ip", &["-j", "route", "show", &format!("{SERVICE}/32")])?;
    let routes: Value = serde_json::from_str(&text)?;
    let of_node = |node: &Host| {
        let mut legs = routes[0]["nexthops"].as_array().into_iter().flatten();
        let leg = legs.find(|leg| leg["gateway"] == node.v4().to_string().as_str());
        leg.and_then(|leg| leg["weight"].as_u64()).unwrap_or(0)
    };
    Ok(nodes.iter().map(of_node).collect())
}

fn wait_weights(tor: &Host, nodes: &[Host], wanted: [u64; 3]) -> Result<()> {
    wait_until(PATIENCE, "the weights in the ToR's kernel", || {
        let found = weights(tor, nodes)?;
        ensure!(found == wanted, "{found:?}, not {wanted:?}");
        Ok(())
    })
}

/// The ToR's configuration: a margay that shares traffic by bandwidth.
fn tor_text(tor: &Host, nodes: &[Host]) -> String {
    let mut text = format!(
        "[bgp]\nasn = {TOR_AS}\nrouter-id = \"{}\"\n\n[fib]\nmultipath-weights = \"link-bandwidth\"\n\n{}\n",
        tor.v4(),
        control_section(tor)
    );
    for node in nodes {
        text.push_str(&format!(
            "[[bgp.peers]]\naddress = \"{}\"\nremote-asn = {NODE_AS}\nconnect-retry-time = 1\n\
             import = \"all\"\nexport = \"none\"\n\n",
            node.v4()
        ));
    }
    text
}

/// Sends the flows from the client and compares what each node received with its share.
fn expect_shares(client: &Host, nodes: &[Node], ideal: [u64; 3]) -> Result<()> {
    let before: Vec<u64> = nodes.iter().map(Node::count).collect::<Result<_>>()?;
    client.run("python3", &["-c", SENDER, SERVICE])?;
    let counted: Vec<u64> = wait_until(PATIENCE, "every flow at a node", || {
        let now = nodes.iter().map(Node::count).collect::<Result<Vec<u64>>>()?;
        let counted: Vec<u64> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        ensure!(counted.iter().sum::<u64>() == FLOWS, "{counted:?} of {FLOWS}");
        Ok(counted)
    })?;
    let total: u64 = ideal.iter().sum();
    println!("flows {counted:?}, endpoints {ideal:?}");
    for (count, endpoints) in counted.iter().zip(ideal) {
        let share = FLOWS as f64 * endpoints as f64 / total as f64;
        let off = (*count as f64 - share).abs();
        ensure!(off <= share * 0.03, "{counted:?}: {count} of {share} is more than 3 % off");
    }
    Ok(())
}

/// 100,000 flows through a Linux ToR: each node gets them in proportion to its ready endpoints, and
/// follows their changes; a node without any withdraws.
#[test]
#[ignore = "needs root, nftables and python3"]
fn a_tor_sends_each_node_the_share_of_its_endpoints() -> Result<()> {
    lab::run_margay("weights", &[], &["nft", "python3"], |lab: &mut Lab| {
        let (tor, client) = (lab.host("tor")?, lab.host("client")?);
        let hosts = [lab.host("n1")?, lab.host("n2")?, lab.host("n3")?];
        tor.shell(
            "sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.fib_multipath_hash_policy=1 \
             net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0",
        )?;
        client.run("ip", &["route", "add", "10.96.0.0/12", "via", &tor.v4().to_string()])?;
        let (_tor, routes) = margay::start_text(&tor, &tor_text(&tor, &hosts))?;
        let begin = web(&hosts, ENDPOINTS);
        let mut nodes = Vec::new();
        for host in &hosts {
            nodes.push(Node::start(host, &tor, &begin)?);
        }
        wait_weights(&tor, &hosts, ENDPOINTS)?;
        expect_shares(&client, &nodes, ENDPOINTS)?;
        let shown = nodes[2].control.json(&["show", "routes", &format!("{SERVICE}/32")])?;
        // 5 endpoints of 10 Mbit/s: 6.25e6 octets per second, of AS 64512.
        let community = "0x0004fc004abebc20";
        ensure!(shown.to_string().contains(community), "{shown}");
        let received = routes.json(&["show", "routes", &format!("{SERVICE}/32")])?;
        ensure!(received.to_string().contains(community), "{received}");

        let changed = [3, 0, 4];
        hosts.iter().try_for_each(|host| put(host, "slice", &slice("web", &hosts, &changed)))?;
        wait_weights(&tor, &hosts, changed)?;
        expect_shares(&client, &nodes, changed)
    })
}

/// FRR as ToR reads the same bandwidths, without any setting. Its kernel weights are whole percents of
/// the sum, rounded down, at least 1: shares are up to a percentage point off.
#[test]
#[ignore = "needs root, FRR and nftables"]
fn frr_as_tor_weights_by_the_percentages_of_the_endpoints() -> Result<()> {
    lab::run_margay("weights-frr", &[Kind::Frr], &["nft"], |lab: &mut Lab| {
        let tor = lab.host("tor")?;
        let hosts = [lab.host("n1")?, lab.host("n2")?, lab.host("n3")?];
        let peers: Vec<(&Host, u32)> = hosts.iter().map(|host| (host, NODE_AS)).collect();
        let config = Config { port: 179, ..config(&tor, TOR_AS, &peers, &[]) };
        let mut text = format!(
            "router bgp {TOR_AS}\n bgp router-id {}\n no bgp ebgp-requires-policy\n",
            tor.router_id()
        );
        for host in &hosts {
            text.push_str(&format!(
                " neighbor {0} remote-as {NODE_AS}\n neighbor {0} timers connect 1\n",
                host.v4()
            ));
        }
        let frr = Frr::start_text(&tor, &config, &text)?;
        let begin = web(&hosts, ENDPOINTS);
        let mut nodes = Vec::new();
        for host in &hosts {
            nodes.push(Node::start(host, &tor, &begin)?);
        }
        wait_weights(&tor, &hosts, percents(ENDPOINTS))?;
        let shown = frr.ask(&[&format!("show bgp ipv4 unicast {SERVICE}/32")])?;
        // 5 endpoints of 10 Mbit/s, as an IEEE 754 number of AS 64512.
        ensure!(shown.contains("LB:64512:6250000"), "{shown}");
        // One goes, others change; then only a path changes that need not be the best one.
        for changed in [[3, 0, 4], [3, 0, 9], [12, 0, 9]] {
            hosts
                .iter()
                .try_for_each(|host| put(host, "slice", &slice("web", &hosts, &changed)))?;
            wait_weights(&tor, &hosts, percents(changed))?;
        }
        Ok(())
    })
}

/// FRR's weights for these numbers of endpoints.
fn percents(endpoints: [u64; 3]) -> [u64; 3] {
    let total: u64 = endpoints.iter().sum();
    endpoints.map(|count| count * 100 / total)
}

/// Two routers that announce [`SERVICE`] with these bandwidths to one that shares its traffic.
struct Shared {
    hosts: [Host; 2],
    middle: Host,
    daemons: Vec<Daemon>,
}

/// Octets per second that the two routers announce.
const BANDWIDTHS: [u32; 2] = [2_500_000, 5_000_000];
/// The AS behind the ToR.
const FAR_AS: u32 = 65002;

impl Shared {
    fn start(lab: &mut Lab) -> Result<Shared> {
        let middle = lab.host("middle")?;
        let hosts = [lab.host("n1")?, lab.host("n2")?];
        let mut daemons = Vec::new();
        for (host, bandwidth) in hosts.iter().zip(BANDWIDTHS) {
            let text = format!(
                "[bgp]\nasn = {NODE_AS}\nrouter-id = \"{}\"\n[[originate]]\nprefix = \"{SERVICE}/32\"\n\
                 [[policy]]\nname = \"share\"\n[[policy.rules]]\nset.link-bandwidth = {bandwidth}\n\
                 then = \"accept\"\n[[bgp.peers]]\naddress = \"{}\"\nremote-asn = {TOR_AS}\n\
                 connect-retry-time = 1\nimport = \"none\"\nexport = \"share\"\n{}",
                host.v4(),
                middle.v4(),
                control_section(host)
            );
            daemons.push(margay::start_text(host, &text)?.0);
        }
        Ok(Shared { hosts, middle, daemons })
    }

    /// One of the two goes, without a restart time.
    fn stop_second(&mut self) -> Result<()> {
        let gone = self.daemons.pop().context("two routers")?;
        Control::of(&self.hosts[1]).text(&["stop", "--shutdown"])?;
        drop(gone);
        Ok(())
    }
}

/// FRR receives the sum of what margay's paths have, and follows it.
#[test]
#[ignore = "needs root and FRR"]
fn frr_receives_the_sum_from_margay() -> Result<()> {
    lab::run_margay("weights-sum", &[Kind::Frr], &[], |lab: &mut Lab| {
        let mut shared = Shared::start(lab)?;
        let (middle, far) = (shared.middle.clone(), lab.host("far")?);
        let text = format!(
            "{}[[bgp.peers]]\naddress = \"{}\"\nremote-asn = {FAR_AS}\nconnect-retry-time = 1\n\
             import = \"none\"\nexport = \"sum\"\n[[policy]]\nname = \"sum\"\n[[policy.rules]]\n\
             set.link-bandwidth = \"cumulative\"\nthen = \"accept\"\n",
            tor_text(&middle, &shared.hosts),
            far.v4()
        );
        let _middle = margay::start_text(&middle, &text)?;
        let config = Config { port: 179, ..config(&far, FAR_AS, &[(&middle, TOR_AS)], &[]) };
        let text = format!(
            "router bgp {FAR_AS}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
             neighbor {} remote-as {TOR_AS}\n",
            far.router_id(),
            middle.v4()
        );
        let frr = Frr::start_text(&far, &config, &text)?;
        let wait_sum = |sum: u32| {
            wait_until(PATIENCE, "the sum at FRR", || {
                let shown = frr.ask(&[&format!("show bgp ipv4 unicast {SERVICE}/32")])?;
                ensure!(shown.contains(&format!("LB:{TOR_AS}:{sum}")), "not {sum}: {shown}");
                Ok(())
            })
        };
        wait_sum(BANDWIDTHS.iter().sum())?;
        shared.stop_second()?;
        wait_sum(BANDWIDTHS[0])
    })
}

/// margay receives the sum that FRR's `set extcommunity bandwidth cumulative` makes of its paths.
#[test]
#[ignore = "needs root and FRR"]
fn margay_receives_the_sum_from_frr() -> Result<()> {
    lab::run_margay("weights-sum-frr", &[Kind::Frr], &[], |lab: &mut Lab| {
        let mut shared = Shared::start(lab)?;
        let (middle, far) = (shared.middle.clone(), lab.host("far")?);
        let neighbors = [(&shared.hosts[0], NODE_AS), (&shared.hosts[1], NODE_AS), (&far, FAR_AS)];
        let config = Config { port: 179, ..config(&middle, TOR_AS, &neighbors, &[]) };
        let mut text = format!(
            "route-map SUM permit 10\n set extcommunity bandwidth cumulative\nrouter bgp {TOR_AS}\n \
             bgp router-id {}\n no bgp ebgp-requires-policy\n",
            middle.router_id()
        );
        for (host, asn) in neighbors {
            text.push_str(&format!(
                " neighbor {0} remote-as {asn}\n neighbor {0} timers connect 1\n",
                host.v4()
            ));
        }
        text.push_str(&format!(
            " address-family ipv4 unicast\n  neighbor {} route-map SUM out\n exit-address-family\n",
            far.v4()
        ));
        let frr = Frr::start_text(&middle, &config, &text)?;
        let text = format!(
            "[bgp]\nasn = {FAR_AS}\nrouter-id = \"{}\"\n[[bgp.peers]]\naddress = \"{}\"\n\
             remote-asn = {TOR_AS}\nconnect-retry-time = 1\nimport = \"all\"\nexport = \"none\"\n{}",
            far.v4(),
            middle.v4(),
            control_section(&far)
        );
        let (_far, control) = margay::start_text(&far, &text)?;
        let wait_sum = |asn: u32, sum: u32| {
            let community = format!("0x0004{asn:04x}{:08x}", (sum as f32).to_bits());
            wait_until(PATIENCE, "the sum at margay", || {
                let shown = control.json(&["show", "routes", &format!("{SERVICE}/32")])?;
                ensure!(shown.to_string().contains(&community), "no {community}: {shown}");
                Ok(())
            })
            .with_context(|| frr.ask(&["show bgp ipv4 unicast"]).unwrap_or_default())
        };
        wait_sum(TOR_AS, BANDWIDTHS.iter().sum())?;
        shared.stop_second()?;
        // Of a single path FRR passes on the community as it is.
        wait_sum(NODE_AS, BANDWIDTHS[0])
    })
}

/// What 100 changed weights a second cost, in files, which are read from the disk at each change.
#[test]
#[ignore = "needs root and nftables"]
fn weights_of_many_services_follow_their_endpoints() -> Result<()> {
    const SERVICES: u64 = 100;
    const SECONDS: u64 = 5;
    lab::run_margay("weights-many", &[], &["nft"], |lab: &mut Lab| {
        let tor = lab.host("tor")?;
        let hosts = [lab.host("n1")?];
        let (_tor, received) = margay::start_text(&tor, &tor_text(&tor, &hosts))?;
        let mut objects = Vec::new();
        for number in 0..SERVICES {
            let name = format!("s{number}");
            objects.push((format!("service-{name}"), service(&name, &format!("10.96.1.{number}"))));
            objects.push((format!("slice-{name}"), slice(&name, &hosts, &[1])));
        }
        let node = Node::start(&hosts[0], &tor, &objects)?;
        let has_bandwidth = |endpoints: u64| {
            wait_until(PATIENCE, "the bandwidths at the ToR", || {
                let octets = (endpoints as f32 * 1_250_000.0).to_bits();
                let community = format!("0x0004fc00{octets:08x}");
                let routes = received.json(&["show", "routes"])?.to_string();
                let found = routes.matches(&community).count() as u64;
                ensure!(found >= SERVICES, "{found} of {SERVICES} have {community}");
                Ok(())
            })
        };
        has_bandwidth(1)?;
        let (begin, before) = (Instant::now(), CpuTime::of(node.daemon.pid())?);
        for change in 0..SECONDS * SERVICES {
            let name = format!("s{}", change % SERVICES);
            let ready = 2 + change / SERVICES;
            put(&hosts[0], &format!("slice-{name}"), &slice(&name, &hosts, &[ready]))?;
            // The pace of the load.
            let next = Duration::from_secs_f64((change + 1) as f64 / SERVICES as f64);
            std::thread::sleep(next.saturating_sub(begin.elapsed()));
        }
        has_bandwidth(1 + SECONDS)?;
        let used = Duration::from_nanos(CpuTime::of(node.daemon.pid())?.since(&before));
        let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
        println!("{SERVICES} changes a second: {:.2} % of a core", share * 100.0);
        Ok(())
    })
}
