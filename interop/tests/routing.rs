//! Margay between several neighbours: reflection, ranges, multipath, redistribution, long messages.

use std::time::Duration;

use anyhow::{Result, ensure};
use interop::bird2::Bird2;
use interop::bird16::Bird16;
use interop::exabgp::Exabgp;
use interop::gobgp::Gobgp;
use interop::kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Margay};
use interop::matrix::{PEER_AS, SUBJECT_AS, config, neighbor};
use interop::speaker::{Family, Kind, Neighbor, Origin, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, holds_for, wait_until};

/// Runs a test with margay as the subject and these daemons as its neighbours.
fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, kinds, &[], test)
}

/// Two BIRDs of Calico's version as clients of a margay that reflects: each has the other's route
/// with its next hop unchanged, and neither receives its own.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn reflects_between_bird16_clients() -> Result<()> {
    run("rr-bird16", &[Kind::Bird16], |lab| {
        let host = lab.host("a")?;
        let clients = [lab.host("b")?, lab.host("c")?];
        let prefixes = ["10.65.0.64/26", "10.65.0.128/26"];
        let peers: Vec<(&Host, u32)> = clients.iter().map(|c| (c, SUBJECT_AS)).collect();
        let mut own = config(&host, SUBJECT_AS, &peers, &[]);
        for n in &mut own.neighbors {
            n.reflector_client = true;
        }
        let margay = Margay::start(&host, &own)?;
        let mut running = Vec::new();
        for (client, prefix) in clients.iter().zip(prefixes) {
            let one = config(client, SUBJECT_AS, &[(&host, SUBJECT_AS)], &[prefix]);
            running.push(Bird16::start(client, &one)?);
        }
        for (index, bird) in running.iter().enumerate() {
            let other = 1 - index;
            let path = wait_paths(bird, prefixes[other], 1)?.remove(0);
            let next_hop = clients[other].v4().to_string();
            ensure!(path.next_hop == Some(next_hop.clone()), "{path:?}");
            ensure!(path.as_path.is_empty(), "{path:?}");
            kernel::wait_gateways(&clients[index], prefixes[other], &[next_hop])?;
            ensure!(bird.paths(prefixes[index])?.is_empty(), "a client received its own route");
        }
        wait_paths(&margay, prefixes[0], 1)?;
        kernel::wait_gateways(&host, prefixes[0], &[clients[0].v4().to_string()])
    })
}

const CLIENT_ROUTE: &str = "10.65.0.64/26";
const FAR_ROUTE: &str = "10.65.0.128/26";
const TOR_ROUTE: &str = "198.51.100.0/24";

/// Two reflectors that are not clients of each other, each with a client of its own; the near one
/// also has a neighbour in another AS.
struct TwoReflectors {
    near: Host,
    client: Host,
    tor: Host,
    far_control: margay::Control,
    client_bird: Bird2,
    far_client_bird: Bird2,
    tor_bird: Bird2,
    _reflectors: [interop::daemon::Daemon; 2],
}

impl TwoReflectors {
    fn start(lab: &mut Lab, clusters: [&str; 2]) -> Result<Self> {
        let (near, far) = (lab.host("a")?, lab.host("b")?);
        let (client, far_client, tor) = (lab.host("c")?, lab.host("d")?, lab.host("e")?);
        let reflector = |of: &Host, peers: &[(&Host, u32)], own_client: &Host, cluster: &str| {
            let mut own = config(of, SUBJECT_AS, peers, &[]);
            for n in &mut own.neighbors {
                n.reflector_client = n.address == own_client.v4();
            }
            let text = margay::render(of, &own);
            let head = format!("[bgp]\ncluster-id = \"{cluster}\"\n");
            margay::start_text(of, &text.replacen("[bgp]\n", &head, 1))
        };
        let near_peers = [(&far, SUBJECT_AS), (&client, SUBJECT_AS), (&tor, PEER_AS)];
        let far_peers = [(&near, SUBJECT_AS), (&far_client, SUBJECT_AS)];
        let (near_daemon, _) = reflector(&near, &near_peers, &client, clusters[0])?;
        let (far_daemon, far_control) = reflector(&far, &far_peers, &far_client, clusters[1])?;
        let bird = |of: &Host, asn: u32, reflector: &Host, route: &str| {
            Bird2::start(of, &config(of, asn, &[(reflector, SUBJECT_AS)], &[route]))
        };
        Ok(Self {
            client_bird: bird(&client, SUBJECT_AS, &near, CLIENT_ROUTE)?,
            far_client_bird: bird(&far_client, SUBJECT_AS, &far, FAR_ROUTE)?,
            tor_bird: bird(&tor, PEER_AS, &near, TOR_ROUTE)?,
            near,
            client,
            tor,
            far_control,
            _reflectors: [near_daemon, far_daemon],
        })
    }

    /// The near reflector advertises a route from another AS without reflecting it, so that it
    /// reaches every speaker whatever the clusters are.
    fn far_client_hears_the_tor(&self) -> Result<()> {
        let path = wait_paths(&self.far_client_bird, TOR_ROUTE, 1)?.remove(0);
        ensure!(path.next_hop == Some(self.tor.v4().to_string()), "{path:?}");
        ensure!(path.as_path == [PEER_AS], "{path:?}");
        Ok(())
    }
}

/// Reflectors in different clusters: every route reaches every speaker, with its next hop and both
/// cluster ids. The other AS receives no attributes of reflection.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn reflectors_of_two_clusters_reach_every_speaker() -> Result<()> {
    run("rr-two", &[Kind::Bird2], |lab| {
        let all = TwoReflectors::start(lab, ["10.0.0.1", "10.0.0.2"])?;
        all.far_client_hears_the_tor()?;
        let path = wait_paths(&all.far_client_bird, CLIENT_ROUTE, 1)?.remove(0);
        ensure!(path.next_hop == Some(all.client.v4().to_string()), "{path:?}");
        let shown = all.far_client_bird.ask(&format!("show route {CLIENT_ROUTE} all"))?;
        ensure!(shown.contains("BGP.cluster_list: 10.0.0.2 10.0.0.1"), "{shown}");
        let originator = format!("BGP.originator_id: {}", all.client.router_id());
        ensure!(shown.contains(&originator), "{shown}");
        wait_paths(&all.client_bird, FAR_ROUTE, 1)?;
        for route in [CLIENT_ROUTE, FAR_ROUTE] {
            let path = wait_paths(&all.tor_bird, route, 1)?.remove(0);
            ensure!(path.next_hop == Some(all.near.v4().to_string()), "{path:?}");
            ensure!(path.as_path == [SUBJECT_AS], "{path:?}");
            let shown = all.tor_bird.ask(&format!("show route {route} all"))?;
            ensure!(!shown.contains("cluster_list") && !shown.contains("originator"), "{shown}");
        }
        Ok(())
    })
}

/// Reflectors of one cluster: what one has reflected is unusable at the other, which says why.
/// Clients of such a pair have sessions with both.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn reflectors_of_one_cluster_refuse_each_others_reflections() -> Result<()> {
    run("rr-one", &[Kind::Bird2], |lab| {
        let all = TwoReflectors::start(lab, ["10.0.0.1", "10.0.0.1"])?;
        all.far_client_hears_the_tor()?;
        interop::wait::wait_until(interop::wait::PATIENCE, "the refused route", || {
            let explained = all.far_control.json(&["explain", CLIENT_ROUTE])?;
            let why = explained["paths"][0]["unusable"].to_string();
            ensure!(why.contains("CLUSTER_LIST"), "{explained}");
            Ok(())
        })?;
        ensure!(all.far_control.paths(CLIENT_ROUTE)?.is_empty(), "refused, and in the table");
        holds_for(Duration::from_secs(1), "no second reflection", || {
            ensure!(all.far_client_bird.paths(CLIENT_ROUTE)?.is_empty(), "it was reflected again");
            Ok(())
        })
    })
}

/// Neighbours that are not configured one by one, but accepted from a range.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn accepts_neighbours_from_a_range() -> Result<()> {
    run("rr-range", &[Kind::Bird2], |lab| {
        let host = lab.host("a")?;
        let clients = [lab.host("b")?, lab.host("c")?];
        let text = format!(
            "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"10.99.0.1\"\nlisten = [\"0.0.0.0:1790\"]\n\n\
             [[bgp.dynamic-peers]]\nprefix = \"10.99.0.0/28\"\nremote-asn = {SUBJECT_AS}\n\
             password = \"s3cret\"\nroute-reflector-client = true\npeers-max = 10\n\n{}",
            margay::control_section(&host)
        );
        let (_daemon, control) = margay::start_text(&host, &text)?;
        let mut running = Vec::new();
        for (client, prefix) in clients.iter().zip(["10.65.0.64/26", "10.65.0.128/26"]) {
            let mut one = config(client, SUBJECT_AS, &[(&host, SUBJECT_AS)], &[prefix]);
            one.neighbors[0].password = Some("s3cret".to_owned());
            running.push(Bird2::start(client, &one)?);
        }
        wait_paths(&running[0], "10.65.0.128/26", 1)?;
        wait_paths(&running[1], "10.65.0.64/26", 1)?;
        let peers = control.json(&["show", "peers"])?;
        let up = peers.as_array().into_iter().flatten().filter(|p| p["state"] == "Established");
        ensure!(up.count() == 2, "{peers}");
        Ok(())
    })
}

/// Two equal paths from two neighbours: the kernel route uses both, and only one when the other is
/// withdrawn.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn equal_paths_become_multipath() -> Result<()> {
    const PREFIX: &str = "198.51.100.0/24";
    run("ecmp", &[Kind::Bird2], |lab| {
        let host = lab.host("a")?;
        let birds = [lab.host("b")?, lab.host("c")?];
        let peers: Vec<(&Host, u32)> = birds.iter().map(|b| (b, PEER_AS)).collect();
        let margay = Margay::start(&host, &config(&host, SUBJECT_AS, &peers, &[]))?;
        let mut running = Vec::new();
        for bird in &birds {
            let one = config(bird, PEER_AS, &[(&host, SUBJECT_AS)], &[PREFIX]);
            running.push(Bird2::start(bird, &one)?);
        }
        let gateways: Vec<String> = birds.iter().map(|b| b.v4().to_string()).collect();
        kernel::wait_gateways(&host, PREFIX, &gateways)?;
        wait_paths(&margay, PREFIX, 2)?;
        running[1].withdraw(PREFIX)?;
        kernel::wait_gateways(&host, PREFIX, &gateways[..1])
    })
}

/// Two paths with Link Bandwidth communities, of 10 and 40 Gbit/s: the kernel's weights are in
/// proportion, and a path without one makes them equal.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn link_bandwidth_becomes_weights() -> Result<()> {
    const PREFIX: &str = "198.51.100.0/24";
    const LISTED: &str = "bgp_community.add((65001,1))";
    run("weights", &[Kind::Bird2], |lab| {
        let host = lab.host("a")?;
        let birds = [lab.host("b")?, lab.host("c")?];
        let peers: Vec<(&Host, u32)> = birds.iter().map(|b| (b, PEER_AS)).collect();
        let text = margay::render(&host, &config(&host, SUBJECT_AS, &peers, &[]));
        let weighted = "[fib]\nmultipath-weights = \"link-bandwidth\"\n";
        let (_daemon, control) = margay::start_text(&host, &text.replacen("[fib]\n", weighted, 1))?;
        let origin = Origin { communities: vec!["65001:1".to_owned()], ..Origin::plain(PREFIX) };
        let mut running = Vec::new();
        for (bird, octets) in birds.iter().zip([1.25e9_f32, 5e9]) {
            let mut one = config(bird, PEER_AS, &[(&host, SUBJECT_AS)], &[]);
            one.origins.push(origin.clone());
            let started = Bird2::start(bird, &one)?;
            // BIRD sends only transitive ones to external peers.
            let bandwidth =
                format!("bgp_ext_community.add((generic, 0x0004fde9, {:#x}))", octets.to_bits());
            let path = bird.file("bird.conf");
            let text = std::fs::read_to_string(&path)?;
            ensure!(text.contains(LISTED), "{text}");
            bird.write("bird.conf", &text.replace(LISTED, &bandwidth))?;
            started.ask("configure")?;
            running.push(started);
        }
        let wait_weights = |weights: [u64; 2]| {
            wait_until(PATIENCE, "the weights in the kernel", || {
                let text = host.run("ip", &["-j", "route", "show", PREFIX])?;
                let routes: serde_json::Value = serde_json::from_str(&text)?;
                for (bird, weight) in birds.iter().zip(weights) {
                    let mut legs = routes[0]["nexthops"].as_array().into_iter().flatten();
                    let leg = legs.find(|leg| leg["gateway"] == bird.v4().to_string().as_str());
                    ensure!(leg.is_some_and(|leg| leg["weight"] == weight), "{text}");
                }
                Ok(())
            })
        };
        wait_weights([1, 4])?;
        let routes = control.text(&["show", "fib"])?;
        ensure!(routes.contains(PREFIX), "{routes}");
        let path = birds[0].file("bird.conf");
        let text = std::fs::read_to_string(&path)?;
        let kept: Vec<&str> = text.split("bgp_ext_community").collect();
        let (_, rest) = kept[1].split_once(");").unwrap_or_default();
        birds[0].write("bird.conf", &format!("{}{rest}", kept[0]))?;
        running[0].ask("configure")?;
        wait_weights([1, 1])
    })
}

/// Routes that another program put into the kernel are announced while they are there.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn announces_routes_of_the_kernel() -> Result<()> {
    run("redistribute", &[Kind::Bird2], |lab| {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let own = config(&host, SUBJECT_AS, &[(&bird_host, PEER_AS)], &[]);
        let text = format!(
            "{}\n[[redistribute]]\nfrom = \"kernel\"\nprotocols = [80]\nprefixes = [\"10.65.0.0/16\"]\n",
            margay::render(&host, &own)
        );
        // The kernel has one before margay starts; another comes later.
        let add = |prefix: &str, proto: &str| {
            host.run("ip", &["route", "add", prefix, "dev", "eth0", "proto", proto])
        };
        add("10.65.0.1/32", "80")?;
        let (_daemon, _control) = margay::start_text(&host, &text)?;
        let other = config(&bird_host, PEER_AS, &[(&host, SUBJECT_AS)], &[]);
        let bird = Bird2::start(&bird_host, &other)?;
        wait_paths(&bird, "10.65.0.1/32", 1)?;
        // Another protocol number and another prefix do not match.
        add("10.65.0.3/32", "81")?;
        add("10.66.0.1/32", "80")?;
        add("10.65.0.2/32", "80")?;
        wait_paths(&bird, "10.65.0.2/32", 1)?;
        ensure!(bird.paths("10.65.0.3/32")?.is_empty(), "the wrong protocol was announced");
        ensure!(bird.paths("10.66.0.1/32")?.is_empty(), "the wrong prefix was announced");
        host.run("ip", &["route", "del", "10.65.0.1/32"])?;
        wait_paths(&bird, "10.65.0.1/32", 0)?;
        wait_paths(&bird, "10.65.0.2/32", 1).map(drop)
    })
}

/// A kernel route whose gateway is a neighbour is advertised to the others with that next hop, and
/// never to that neighbour, even if it comes up after the route (RFC 4271 §5.1.3).
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn a_route_is_not_advertised_to_its_next_hop() -> Result<()> {
    run("own-next-hop", &[Kind::Bird2], |lab| {
        let host = lab.host("a")?;
        let (near, far) = (lab.host("b")?, lab.host("c")?);
        let own = config(&host, SUBJECT_AS, &[(&near, SUBJECT_AS), (&far, SUBJECT_AS)], &[]);
        let text = format!(
            "{}\n[[redistribute]]\nfrom = \"kernel\"\nprotocols = [80]\nprefixes = [\"10.65.0.0/16\"]\n",
            margay::render(&host, &own)
                .replace("[[bgp.peers]]\n", "[[bgp.peers]]\nnext-hop = \"keep\"\n")
        );
        let via = |prefix: &str, gateway: &Host| {
            let gateway = gateway.v4().to_string();
            host.run("ip", &["route", "replace", prefix, "via", &gateway, "proto", "80"])
        };
        via("10.65.2.0/26", &near)?;
        let (_daemon, control) = margay::start_text(&host, &text)?;
        let peer = |of: &Host| config(of, SUBJECT_AS, &[(&host, SUBJECT_AS)], &[]);
        let far_bird = Bird2::start(&far, &peer(&far))?;
        let path = wait_paths(&far_bird, "10.65.2.0/26", 1)?.remove(0);
        ensure!(path.next_hop == Some(near.v4().to_string()), "{path:?}");
        let near_bird = Bird2::start(&near, &peer(&near))?;
        via("10.65.3.0/26", &far)?;
        wait_paths(&near_bird, "10.65.3.0/26", 1)?;
        ensure!(near_bird.paths("10.65.2.0/26")?.is_empty(), "b received a route through itself");
        ensure!(far_bird.paths("10.65.3.0/26")?.is_empty(), "c received a route through itself");
        let why = control.json(&["explain", "10.65.2.0/26"])?["withheld"].to_string();
        ensure!(why.contains("its next hop is this neighbour"), "{why}");
        // The gateway changes: the route is withdrawn from the one and advertised to the other.
        via("10.65.2.0/26", &far)?;
        wait_paths(&near_bird, "10.65.2.0/26", 1)?;
        wait_paths(&far_bird, "10.65.2.0/26", 0).map(drop)
    })
}

/// Originated prefixes are blackholes in the kernel, and removed when no longer configured.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn originated_prefixes_are_blackholes() -> Result<()> {
    run("blackhole", &[], |lab| {
        let host = lab.host("a")?;
        let mut own = config(&host, SUBJECT_AS, &[], &["10.65.1.0/26", "2001:db8:65::/64"]);
        let mut margay = Margay::start(&host, &own)?;
        for prefix in ["10.65.1.0/26", "2001:db8:65::/64"] {
            kernel::wait_gateways(&host, prefix, &[])?;
            let kind = kernel::route(&host, prefix)?.map(|r| r.kind);
            ensure!(kind.as_deref() == Some("blackhole"), "{prefix} is {kind:?}");
        }
        own.origins.pop();
        margay.reconfigure(&own)?;
        kernel::wait_gone(&host, "2001:db8:65::/64")?;
        ensure!(kernel::route(&host, "10.65.1.0/26")?.is_some(), "the other one went too");
        Ok(())
    })
}

/// RFC 2545 §3: the link-local next hop is sent only to a neighbour on the link. An internal one is
/// assumed not to be on it, as by BIRD.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn an_external_neighbour_on_the_link_gets_both_ipv6_next_hops() -> Result<()> {
    const ROUTE: &str = "2001:db8:65::/64";
    run("rfc2545", &[Kind::Bird2], |lab| {
        let (host, external, internal) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let over_v6 = |of: &Host, asn, peers: &[(&Host, u32)], origins: &[&str]| {
            let mut config = config(of, asn, &[], origins);
            config.neighbors = peers
                .iter()
                .map(|(peer, asn)| Neighbor {
                    families: vec![Family::V6],
                    ..neighbor(peer.v6(), of.v6(), *asn)
                })
                .collect();
            config
        };
        let peers = [(&external, PEER_AS), (&internal, SUBJECT_AS)];
        let _margay = Margay::start(&host, &over_v6(&host, SUBJECT_AS, &peers, &[ROUTE]))?;
        let up = |of: &Host, asn| Bird2::start(of, &over_v6(of, asn, &[(&host, SUBJECT_AS)], &[]));
        let birds = [up(&external, PEER_AS)?, up(&internal, SUBJECT_AS)?];
        for (bird, both) in birds.iter().zip([true, false]) {
            let path = wait_paths(bird, ROUTE, 1)?.remove(0);
            ensure!(path.next_hop == Some(host.v6().to_string()), "{path:?}");
            let shown = bird.ask(&format!("show route {ROUTE} all"))?;
            let next_hop = shown.lines().find(|line| line.contains("BGP.next_hop"));
            ensure!(next_hop.is_some_and(|line| line.contains(" fe80::") == both), "{shown}");
        }
        kernel::wait_gateways(&internal, ROUTE, &[host.v6().to_string()])?;
        // The link-local address changes while the session is up.
        host.run("ip", &["addr", "add", "fe80::77/64", "dev", "eth0", "nodad"])?;
        let own = host.run("ip", &["-6", "-o", "addr", "show", "dev", "eth0", "scope", "link"])?;
        for other in own.split_whitespace().filter(|w| w.ends_with("/64") && *w != "fe80::77/64") {
            host.run("ip", &["addr", "del", other, "dev", "eth0"])?;
        }
        wait_until(PATIENCE, "the new address", || {
            let shown = birds[0].ask(&format!("show route {ROUTE} all"))?;
            ensure!(shown.contains(" fe80::77"), "{shown}");
            Ok(())
        })?;
        ensure!(birds[0].sessions(host.v6())? == 1, "the session was restarted");
        Ok(())
    })
}

/// An UPDATE beyond 4096 octets: received from ExaBGP and advertised to BIRD, both of which
/// negotiate RFC 8654; not advertised to `GoBGP`, which does not.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn extended_messages() -> Result<()> {
    const LONG: &str = "198.51.100.0/24";
    const SHORT: &str = "203.0.113.0/24";
    const COMMUNITIES: usize = 500;
    run("extmsg", &[Kind::Exabgp, Kind::Bird2, Kind::Gobgp], |lab| {
        let (host, exa_host) = (lab.host("a")?, lab.host("b")?);
        let (bird_host, go_host) = (lab.host("c")?, lab.host("d")?);
        let peers = [(&exa_host, PEER_AS), (&bird_host, PEER_AS + 1), (&go_host, PEER_AS + 2)];
        let margay = Margay::start(&host, &config(&host, SUBJECT_AS, &peers, &[]))?;
        let up = |h: &Host, asn| config(h, asn, &[(&host, SUBJECT_AS)], &[]);
        let bird = Bird2::start(&bird_host, &up(&bird_host, PEER_AS + 1))?;
        let gobgp = Gobgp::start(&go_host, &up(&go_host, PEER_AS + 2))?;
        let mut exabgp = Exabgp::start(&exa_host, &up(&exa_host, PEER_AS))?;
        for peer in [&exa_host, &bird_host, &go_host] {
            wait_established(&margay, peer.v4())?;
        }
        let large = (0..COMMUNITIES).map(|i| format!("{PEER_AS}:{i}:{i}")).collect();
        let long =
            Origin { prefix: LONG.to_owned(), communities: Vec::new(), large_communities: large };
        exabgp.announce(&long)?;
        let path = wait_paths(&margay, LONG, 1)?.remove(0);
        ensure!(path.large_communities.len() == COMMUNITIES, "{}", path.large_communities.len());
        // BIRD's text ends a long list with "...": it has to count them itself.
        wait_paths(&bird, LONG, 1)?;
        let query = format!("show route {LONG} where bgp_large_community.len = {COMMUNITIES}");
        let all = bird.ask(&query)?;
        ensure!(all.contains(LONG), "{all}");
        exabgp.announce(&Origin::plain(SHORT))?;
        wait_paths(&gobgp, SHORT, 1)?;
        ensure!(gobgp.paths(LONG)?.is_empty(), "6000 octets of attributes in 4096");
        // When the route grows, its short form must be withdrawn from the neighbour that has it.
        let grown = Origin { prefix: SHORT.to_owned(), ..long };
        exabgp.announce(&grown)?;
        wait_paths(&gobgp, SHORT, 0)?;
        holds_for(Duration::from_secs(1), "every session", || {
            for peer in [&exa_host, &bird_host, &go_host] {
                let state = margay.state(peer.v4())?;
                ensure!(state == "Established", "{state} with {}", peer.v4());
            }
            Ok(())
        })
    })
}

/// Hold-timer expiry and prefix limits have a reason in `show peers` and at the neighbour.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn session_ends_have_a_reason() -> Result<()> {
    run("reasons", &[Kind::Bird2, Kind::Frr], |lab| {
        let host = lab.host("a")?;
        let (bird_host, frr_host) = (lab.host("b")?, lab.host("c")?);
        let peers = [(&bird_host, PEER_AS), (&frr_host, PEER_AS + 1)];
        let mut own = config(&host, SUBJECT_AS, &peers, &[]);
        own.neighbors[0].hold_time = 6;
        own.neighbors[1].prefixes_max = Some(2);
        let margay = Margay::start(&host, &own)?;
        let mut towards = config(&bird_host, PEER_AS, &[(&host, SUBJECT_AS)], &[]);
        towards.neighbors[0].hold_time = 6;
        let bird = Bird2::start(&bird_host, &towards)?;
        let towards = config(&frr_host, PEER_AS + 1, &[(&host, SUBJECT_AS)], &[]);
        let mut frr = interop::frr::Frr::start(&frr_host, &towards)?;
        for peer in [&bird_host, &frr_host] {
            wait_established(&margay, peer.v4())?;
        }
        for prefix in ["203.0.113.0/26", "203.0.113.64/26", "203.0.113.128/26"] {
            frr.announce(&Origin::plain(prefix))?;
        }
        lab.cut(&bird_host)?;
        interop::wait::wait_until(Duration::from_secs(10), "the prefix limit", || {
            margay.control().expect_last_error(frr_host.v4(), "sent", 6, 1)?;
            let seen = &frr.neighbor(host.v4())?["lastErrorCodeSubcode"];
            ensure!(seen == "0601", "FRR saw {seen}");
            Ok(())
        })?;
        interop::wait::wait_until(Duration::from_secs(12), "the hold timer", || {
            margay.control().expect_last_error(bird_host.v4(), "sent", 4, 0)?;
            bird.expect_last_error(host.v4(), "Hold timer expired")
        })?;
        lab.mend(&bird_host)?;
        wait_established(&margay, bird_host.v4())
    })
}

/// A changed import policy takes effect on routes that are already there, without a new session.
#[test]
#[ignore = "needs root and the daemons of interop/setup.sh peers"]
fn a_changed_import_policy_applies_at_once() -> Result<()> {
    const PREFIX: &str = "198.51.100.0/24";
    run("policy-reload", &[Kind::Bird2], |lab| {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let own = config(&host, SUBJECT_AS, &[(&bird_host, PEER_AS)], &[]);
        let with_policy = |decision: &str| {
            let text = margay::render(&host, &own).replace("import = \"all\"", "import = \"p\"");
            format!(
                "{text}\n[[policy]]\nname = \"p\"\ndefault = \"accept\"\n[[policy.rules]]\n\
                 match.prefixes = [\"198.51.100.0/24\"]\nthen = \"{decision}\"\n"
            )
        };
        let (_daemon, control) = margay::start_text(&host, &with_policy("reject"))?;
        let towards =
            config(&bird_host, PEER_AS, &[(&host, SUBJECT_AS)], &[PREFIX, "203.0.113.0/24"]);
        let bird = Bird2::start(&bird_host, &towards)?;
        kernel::wait_gateways(&host, "203.0.113.0/24", &[bird_host.v4().to_string()])?;
        ensure!(kernel::route(&host, PREFIX)?.is_none(), "the rejected route is in the kernel");
        host.write("margay.toml", &with_policy("accept"))?;
        control.text(&["reload"])?;
        kernel::wait_gateways(&host, PREFIX, &[bird_host.v4().to_string()])?;
        host.write("margay.toml", &with_policy("reject"))?;
        control.text(&["reload"])?;
        kernel::wait_gone(&host, PREFIX)?;
        ensure!(bird.sessions(host.v4())? == 1, "the session was restarted");
        ensure!(kernel::route(&host, "203.0.113.0/24")?.is_some(), "the other route went too");
        Ok(())
    })
}
