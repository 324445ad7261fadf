//! Optimal route reflection by vantage: margay as reflector of clients in two zones.

use anyhow::{Result, ensure};
use interop::bird2::Bird2;
use interop::calico::{Cluster, MargayNode};
use interop::frr::Frr;
use interop::kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{SUBJECT_AS, config};
use interop::speaker::{Kind, Speaker, wait_established};
use interop::wait::{PATIENCE, wait_until};
use serde_json::json;

/// The address of a service, which a node in each zone announces.
const SERVICE: &str = "203.0.113.7/32";

/// Waits until the only path to the service leads to this node.
fn wait_path(client: &dyn Speaker, node: &Host) -> Result<()> {
    let wanted = Some(node.v4().to_string());
    wait_until(PATIENCE, "the path to the service", || {
        let paths = client.paths(SERVICE)?;
        ensure!(paths.len() == 1 && paths[0].next_hop == wanted, "{paths:?}, wanted {wanted:?}");
        Ok(())
    })
}

/// Three nodes that announce the service, and two clients.
struct Clients {
    reflector: Host,
    nodes: [Host; 3],
    clients: [Host; 2],
}

impl Clients {
    fn new(lab: &mut Lab) -> Result<Clients> {
        let reflector = lab.host("rr")?;
        // The last is the best one without vantages: its identifier is the lowest.
        let far = lab.host("node-c")?;
        let nodes = [lab.host("node-a")?, lab.host("node-b")?, far];
        let clients = [lab.host("client-a")?, lab.host("client-b")?];
        Ok(Clients { reflector, nodes, clients })
    }

    /// The reflector's file, with the first client in this zone.
    fn file(&self, zone_of_first: &str) -> String {
        let reflector = &self.reflector;
        let mut text = format!(
            "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:1790\"]\n\n\
             [[bgp.vantages]]\nname = \"zone-a\"\ncosts = {{ zone-b = 10, zone-c = 20 }}\n\n\
             [fib]\nenabled = false\n\n{}\n",
            reflector.router_id(),
            margay::control_section(reflector),
        );
        let zones = ["zone-a", "zone-b", "zone-c", zone_of_first, "zone-b"];
        for (host, zone) in self.nodes.iter().chain(&self.clients).zip(zones) {
            text.push_str(&format!(
                "[[bgp.peers]]\nname = \"{}\"\naddress = \"{}\"\nport = 1790\n\
                 remote-asn = \"internal\"\nconnect-retry-time = 1\n\
                 route-reflector-client = true\nvantage = \"{zone}\"\n\n",
                host.name(),
                host.v4(),
            ));
        }
        text
    }

    /// What the table explains of the service from a zone: the node of the best path, and the
    /// step that put the second behind it.
    fn explained(&self, control: &Control, zone: &str) -> Result<(String, String)> {
        let shown = control.json(&["explain", SERVICE, "--vantage", zone])?;
        ensure!(shown["vantage"] == zone, "{shown}");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(&shown["paths"][0]["peer"]), text(&shown["paths"][1]["reason"])))
    }
}

/// Each client gets the path of its own zone; without it, the cheapest one of another; a client
/// that moves gets that of its new zone without a new session.
#[test]
#[ignore = "needs root, BIRD 2 and FRR"]
fn clients_are_sent_the_path_of_their_zone() -> Result<()> {
    lab::run_margay("reflect-zones", &[Kind::Bird2, Kind::Frr], &[], |lab| {
        let hosts = Clients::new(lab)?;
        let (_daemon, control) = margay::start_text(&hosts.reflector, &hosts.file("zone-a"))?;
        let towards = [(&hosts.reflector, SUBJECT_AS)];
        let of = |host: &Host, origins: &[&str]| config(host, SUBJECT_AS, &towards, origins);
        let [node_a, node_b, node_c] = &hosts.nodes;
        let mut local = Bird2::start(node_a, &of(node_a, &[SERVICE]))?;
        let _near = Frr::start(node_b, &of(node_b, &[SERVICE]))?;
        let _far = Bird2::start(node_c, &of(node_c, &[SERVICE]))?;
        let [client_a, client_b] = &hosts.clients;
        let at_a = Bird2::start(client_a, &of(client_a, &[]))?;
        let at_b = Frr::start(client_b, &of(client_b, &[]))?;
        wait_established(&at_a, hosts.reflector.v4())?;
        wait_path(&at_a, node_a)?;
        wait_path(&at_b, node_b)?;
        let from_a = hosts.explained(&control, "zone-a")?;
        ensure!(from_a == (node_a.name().to_owned(), "vantage-cost".to_owned()), "{from_a:?}");
        let sessions = at_a.sessions(hosts.reflector.v4())?;

        local.reconfigure(&of(node_a, &[]))?;
        wait_path(&at_a, node_b)?;
        wait_path(&at_b, node_b)?;
        local.reconfigure(&of(node_a, &[SERVICE]))?;
        wait_path(&at_a, node_a)?;

        hosts.reflector.write("margay.toml", &hosts.file("zone-b"))?;
        control.text(&["reload"])?;
        wait_path(&at_a, node_b)?;
        wait_path(&at_b, node_b)?;
        ensure!(at_a.sessions(hosts.reflector.v4())? == sessions, "the session was reset");
        let peer = control.peer(client_a.v4())?;
        ensure!(peer["vantage"] == "zone-b", "{peer}");
        Ok(())
    })
}

/// The same on Calico nodes: the zone is a label of the Node, and a changed label moves a client.
#[test]
#[ignore = "needs root and etcd"]
fn a_label_of_a_calico_node_moves_a_client() -> Result<()> {
    const ZONE: &str = "topology.kubernetes.io/zone";
    lab::run_margay("reflect-labels", &[], &["etcd", "etcdctl"], |lab| {
        let cluster = Cluster::start(lab)?;
        cluster.put(
            "bgpconfigurations",
            "BGPConfiguration",
            "default",
            &json!({"nodeToNodeMeshEnabled": false, "asNumber": 64512}),
        )?;
        let reflector = lab.host("rr")?;
        let id = json!({"routeReflectorClusterID": "244.0.0.1"});
        cluster.put_node(&reflector, &json!({"rr": "true"}), &id)?;
        cluster.put(
            "bgppeers",
            "BGPPeer",
            "reflected",
            &json!({"nodeSelector": "!has(rr)", "peerSelector": "has(rr)"}),
        )?;
        let label =
            |host: &Host, zone: &str| cluster.put_node(host, &json!({ZONE: zone}), &json!({}));
        let hosts = [lab.host("a")?, lab.host("b")?, lab.host("client")?];
        for (host, zone) in hosts.iter().zip(["zone-a", "zone-b", "zone-b"]) {
            label(host, zone)?;
        }
        let [a, b, client] = &hosts;
        // One block with two affinities stands for the address of a service.
        let block = cluster.put_block(a, 9)?;
        cluster.put_block(b, 9)?;
        let lines = format!(
            "vantage-label = \"{ZONE}\"\n\n[[calico.vantages]]\nname = \"zone-a\"\n\
             costs = {{ zone-b = 10 }}\n"
        );
        let _reflector = MargayNode::from_file(&reflector, &cluster, &lines)?;
        let _a = MargayNode::from_environment(a, &cluster)?;
        let _b = MargayNode::from_environment(b, &cluster)?;
        let node = MargayNode::from_environment(client, &cluster)?;
        node.wait_session(&reflector)?;
        kernel::wait_gateways(client, &block, &[b.v4().to_string()])?;
        label(client, "zone-a")?;
        kernel::wait_gateways(client, &block, &[a.v4().to_string()])?;
        ensure!(node.sessions(&reflector) == 1, "the session was reset");
        Ok(())
    })
}
