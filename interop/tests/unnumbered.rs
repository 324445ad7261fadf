//! Peers by interface: neighbours found by router advertisements, next hops of RFC 8950, and kernel
//! routes over them. The hosts have no address but the link-local ones and a loopback's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::calico::Usage;
use interop::daemon::Daemon;
use interop::frr::Frr;
use interop::gobgp::Gobgp;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::speaker::{Config, Kind};
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::Value;

/// Far below the hold time.
const SOON: Duration = Duration::from_secs(5);

/// A host without addresses on its interfaces: only a loopback address, by which it is reached.
fn unnumbered(lab: &mut Lab, name: &str) -> Result<Host> {
    let host = lab.host(name)?;
    host.run("ip", &["link", "del", "eth0"])?;
    host.run("ip", &["addr", "add", &format!("{}/32", loopback(&host)), "dev", "lo"])?;
    Ok(host)
}

/// In 10.255.0.0/16, which no link has.
fn loopback(host: &Host) -> String {
    host.v4().to_string().replace("10.99.0.", "10.255.0.")
}

/// margay with sessions on all interfaces `u*`, which announces its loopback and `more`.
fn start(host: &Host, asn: u32, more: &str) -> Result<(Daemon, Control)> {
    // A spine that dies is dead: nothing is kept for its restart.
    margay::start_text(host, &config(host, asn, "graceful-restart-time = 0\n", more))
}

fn config(host: &Host, asn: u32, peer: &str, more: &str) -> String {
    format!(
        "[bgp]\nasn = {asn}\nrouter-id = \"{}\"\n\n[[bgp.peers]]\ninterface = \"u*\"\n\
         remote-asn = \"external\"\nrouter-advertisements = true\nimport = \"all\"\nexport = \"all\"\n\
         connect-retry-time = 1\n{peer}\n[[originate]]\nprefix = \"{}/32\"\nkind = \"none\"\n\
         {more}\n{}",
        host.router_id(),
        loopback(host),
        margay::control_section(host)
    )
}

/// The entry of `show peers` with this name.
fn peer(control: &Control, name: &str) -> Result<Value> {
    let peers = control.json(&["show", "peers"])?;
    let found = peers.as_array().into_iter().flatten().find(|peer| peer["name"] == name);
    found.cloned().with_context(|| format!("no peer {name} in {peers}"))
}

fn established(control: &Control, name: &str) -> Result<()> {
    let peer = peer(control, name)?;
    ensure!(peer["state"] == "Established", "{name}: {} {}", peer["state"], peer["last_error"]);
    Ok(())
}

/// The link-local address of an interface.
fn link_local(host: &Host, interface: &str) -> Result<String> {
    let text = host.run("ip", &["-6", "-o", "addr", "show", "dev", interface, "scope", "link"])?;
    let address = text.split_whitespace().find_map(|word| word.strip_suffix("/64"));
    Ok(address.with_context(|| format!("no link-local address in {text}"))?.to_owned())
}

/// What the kernel has for a destination.
fn kernel_route(host: &Host, destination: &str) -> Result<String> {
    host.run("ip", &["route", "show", destination])
}

/// The kernel's route goes over exactly these neighbours and interfaces.
fn routed(host: &Host, destination: &str, over: &[(&str, &str)]) -> Result<()> {
    // With next-hop objects, the gateways are named by the route as it is resolved.
    let route = kernel_route(host, destination)?;
    let vias = route.matches("via inet6").count();
    ensure!(vias == over.len(), "{vias} hops, not {}: {route}", over.len());
    for (gateway, interface) in over {
        let hop = format!("via inet6 {gateway} dev {interface}");
        ensure!(route.contains(&hop), "no \"{hop}\" in {route}");
    }
    Ok(())
}

fn pings(host: &Host, to: &Host) -> Result<()> {
    let source = loopback(host);
    host.run("ping", &["-c", "1", "-W", "1", "-I", &source, &loopback(to)]).map(drop)
}

#[test]
#[ignore = "needs root"]
fn two_margays_find_each_other_and_route_ipv4_over_link_local_next_hops() -> Result<()> {
    lab::run_margay("unnumbered", &[], &["ping"], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        let (_a, on_a) = start(&a, 65001, "")?;
        wait_until(PATIENCE, "why there is no session", || {
            let text = on_a.text(&["show", "peer", "u1"])?;
            ensure!(
                text.contains("no router advertisement has been received on its interface"),
                "{text}"
            );
            ensure!(text.contains("on u1 port 179"), "{text}");
            Ok(())
        })?;
        let (_b, on_b) = start(&b, 65002, "")?;
        wait_until(SOON, "the session", || established(&on_a, "u1"))?;
        wait_until(SOON, "the session", || established(&on_b, "u1"))?;
        let (of_a, of_b) = (link_local(&a, "u1")?, link_local(&b, "u1")?);
        wait_until(SOON, "the route", || routed(&a, &loopback(&b), &[(&of_b, "u1")]))?;
        wait_until(SOON, "the route", || routed(&b, &loopback(&a), &[(&of_a, "u1")]))?;
        pings(&a, &b)?;
        let shown = peer(&on_a, "u1")?;
        ensure!(shown["address"] == of_b.as_str() && shown["interface"] == "u1", "{shown}");
        ensure!(shown["remote_asn"] == 65002 && shown["peer_type"] == "external", "{shown}");
        let text = on_a.text(&["show", "peers"])?;
        ensure!(text.contains(&format!("{of_b}%u1")), "{text}");
        let text = on_a.text(&["explain", &format!("{}/32", loopback(&b))])?;
        ensure!(text.contains(&format!("{of_b}, resolved to {of_b} u1")), "{text}");
        Ok(())
    })
}

/// Two spines and a leaf. The spines announce 10.1.0.0/24 too.
struct Fabric {
    spines: [Host; 2],
    leaf: Host,
    /// Taken when a spine is to die.
    running: Vec<Option<Daemon>>,
    on_leaf: Control,
    _leaf: Daemon,
}

const SHARED: &str = "[[originate]]\nprefix = \"10.1.0.0/24\"\n";

impl Fabric {
    fn start(lab: &mut Lab) -> Result<Fabric> {
        let spines = [unnumbered(lab, "s1")?, unnumbered(lab, "s2")?];
        let leaf = unnumbered(lab, "l1")?;
        lab.wire((&leaf, "u1"), (&spines[0], "u1"))?;
        lab.wire((&leaf, "u2"), (&spines[1], "u1"))?;
        let mut running = Vec::new();
        for (spine, asn) in spines.iter().zip([65001, 65002]) {
            running.push(Some(start(spine, asn, SHARED)?.0));
        }
        let (_leaf, on_leaf) = start(&leaf, 65011, "")?;
        let fabric = Fabric { spines, leaf, running, on_leaf, _leaf };
        wait_until(PATIENCE, "ECMP", || fabric.balances())?;
        Ok(fabric)
    }

    fn gateway(&self, spine: usize) -> Result<String> {
        link_local(&self.spines[spine], "u1")
    }

    fn balances(&self) -> Result<()> {
        let (first, second) = (self.gateway(0)?, self.gateway(1)?);
        routed(&self.leaf, "10.1.0.0/24", &[(&first, "u1"), (&second, "u2")])
    }

    fn goes_over(&self, spine: usize, interface: &str) -> Result<()> {
        routed(&self.leaf, "10.1.0.0/24", &[(&self.gateway(spine)?, interface)])
    }
}

#[test]
#[ignore = "needs root"]
fn a_leaf_balances_over_its_spines_and_survives_flaps_and_deaths() -> Result<()> {
    lab::run_margay("fabric", &[], &[], |lab| {
        let mut fabric = Fabric::start(lab)?;
        // Only a link that margay has seen with a carrier can lose it.
        holds_for(Duration::from_secs(1), "ECMP", || fabric.balances())?;
        // A flap: the carrier goes, and comes back.
        fabric.spines[0].run("ip", &["link", "set", "u1", "down"])?;
        wait_until(SOON, "one spine", || fabric.goes_over(1, "u2"))?;
        wait_until(SOON, "the end of the session", || {
            let log = std::fs::read_to_string(fabric.leaf.file("margay.log"))?;
            ensure!(log.contains("u1 has no carrier"), "{log}");
            Ok(())
        })?;
        fabric.spines[0].run("ip", &["link", "set", "u1", "up"])?;
        wait_until(PATIENCE, "both spines again", || fabric.balances())?;
        // A spine dies, and returns.
        if let Some(mut daemon) = fabric.running[1].take() {
            daemon.crash()?;
        }
        wait_until(SOON, "one spine", || fabric.goes_over(0, "u1"))?;
        fabric.running[1] = Some(start(&fabric.spines[1], 65002, SHARED)?.0);
        wait_until(PATIENCE, "both spines again", || fabric.balances())
    })
}

#[test]
#[ignore = "needs root"]
fn a_session_follows_a_renamed_interface_and_ends_with_one_that_no_longer_matches() -> Result<()> {
    lab::run_margay("renamed", &[], &[], |lab| {
        let fabric = Fabric::start(lab)?;
        let since = peer(&fabric.on_leaf, "u1")?["since"].clone();
        // Since Linux 6.3 an interface can be renamed while it is up.
        let rename = |from: &str, to: &str| {
            let script = format!(
                "ip link set {from} name {to} && echo up || {{ ip link set {from} down; ip link set {from} name {to}; ip link set {to} up; }}"
            );
            fabric.leaf.shell(&script)
        };
        let stayed_up = rename("u1", "u9")?.trim() == "up";
        wait_until(PATIENCE, "the peer's new name", || established(&fabric.on_leaf, "u9"))?;
        let renamed = peer(&fabric.on_leaf, "u9")?;
        ensure!(renamed["interface"] == "u9", "{renamed}");
        ensure!(!stayed_up || renamed["since"] == since, "{renamed}, since {since} as u1");
        ensure!(peer(&fabric.on_leaf, "u1").is_err(), "u1 is still a peer");
        wait_until(PATIENCE, "the route", || {
            let (first, second) = (fabric.gateway(0)?, fabric.gateway(1)?);
            routed(&fabric.leaf, "10.1.0.0/24", &[(&first, "u9"), (&second, "u2")])
        })?;
        rename("u9", "x9")?;
        wait_until(SOON, "the end", || fabric.goes_over(1, "u2"))?;
        wait_until(SOON, "no peer", || {
            ensure!(peer(&fabric.on_leaf, "u9").is_err(), "u9 is still a peer");
            Ok(())
        })?;
        fabric.leaf.run("ip", &["link", "del", "x9"])?;
        fabric.goes_over(1, "u2")
    })
}

#[test]
#[ignore = "needs root"]
fn a_neighbour_with_another_address_is_dialled_there() -> Result<()> {
    lab::run_margay("readdressed", &[], &[], |lab| {
        let fabric = Fabric::start(lab)?;
        let spine = &fabric.spines[0];
        let before = fabric.gateway(0)?;
        spine.run("ip", &["addr", "add", "fe80::77/64", "dev", "u1", "nodad"])?;
        spine.run("ip", &["addr", "del", &format!("{before}/64"), "dev", "u1"])?;
        // The spine advertises from the new address at once; the leaf asks for the old one for 5 s.
        wait_until(PATIENCE, "the new neighbour", || {
            let found = peer(&fabric.on_leaf, "u1")?;
            ensure!(found["address"] == "fe80::77", "{}", found["address"]);
            established(&fabric.on_leaf, "u1")
        })?;
        wait_until(SOON, "ECMP", || fabric.balances())
    })
}

#[test]
#[ignore = "needs root"]
fn a_second_router_on_the_link_takes_over_only_from_a_silent_one() -> Result<()> {
    lab::run_margay("two_routers", &[], &[], |lab| {
        let (first, second) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        let leaf = unnumbered(lab, "c")?;
        leaf.run("ip", &["link", "add", "u1", "type", "bridge"])?;
        for (port, router) in [("p1", &first), ("p2", &second)] {
            lab.wire((&leaf, port), (router, "u1"))?;
            leaf.run("ip", &["link", "set", port, "master", "u1"])?;
        }
        leaf.run("ip", &["link", "set", "u1", "up"])?;
        let (mut on_first, _) = start(&first, 65001, "")?;
        let (_leaf, on_leaf) = start(&leaf, 65011, "")?;
        wait_until(PATIENCE, "the session", || established(&on_leaf, "u1"))?;
        let before = peer(&on_leaf, "u1")?;
        ensure!(before["address"] == link_local(&first, "u1")?.as_str(), "{before}");

        let (_second, on_second) = start(&second, 65002, "")?;
        wait_until(PATIENCE, "the second router", || {
            let found = peer(&on_second, "u1")?;
            ensure!(found["address"].as_str().is_some_and(|a| !a.ends_with("::")), "{found}");
            Ok(())
        })?;
        // Longer than the interval of its advertisements, and the time to answer for.
        holds_for(Duration::from_secs(16), "the session", || {
            let now = peer(&on_leaf, "u1")?;
            ensure!(now["address"] == before["address"], "{now}");
            ensure!(now["since"] == before["since"], "{now}, since {}", before["since"]);
            Ok(())
        })?;
        on_first.crash()?;
        wait_until(PATIENCE, "the session with the other", || {
            let now = peer(&on_leaf, "u1")?;
            ensure!(now["address"] == link_local(&second, "u1")?.as_str(), "{now}");
            established(&on_leaf, "u1")
        })
    })
}

/// The kernel prefers the newest of several addresses, and the neighbour knows the one from which router
/// advertisements come.
#[test]
#[ignore = "needs root"]
fn interfaces_with_two_link_local_addresses_have_one_source() -> Result<()> {
    lab::run_margay("two_addresses", &[], &[], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        for (host, own) in [(&a, ["fe80::a:a", "fe80::a:b"]), (&b, ["fe80::b:a", "fe80::b:b"])] {
            host.run("ip", &["link", "set", "u1", "down"])?;
            for address in own {
                host.run("ip", &["addr", "add", &format!("{address}/64"), "dev", "u1"])?;
            }
        }
        let (_a, on_a) = start(&a, 65001, "")?;
        // Only one end dials: the other may not make up for it.
        let passive = config(&b, 65002, "graceful-restart-time = 0\npassive = true\n", "");
        let (_b, on_b) = margay::start_text(&b, &passive)?;
        for host in [&a, &b] {
            host.run("ip", &["link", "set", "u1", "up"])?;
        }
        wait_until(PATIENCE, "the session", || established(&on_a, "u1"))?;
        let since =
            |control: &Control| Ok::<_, anyhow::Error>(peer(control, "u1")?["since"].clone());
        let before = (since(&on_a)?, since(&on_b)?);
        // An address that sorts before those: nothing changes.
        for (host, lower) in [(&a, "fe80::1/64"), (&b, "fe80::2/64")] {
            host.run("ip", &["addr", "add", lower, "dev", "u1", "nodad"])?;
        }
        holds_for(Duration::from_secs(6), "the session", || {
            established(&on_a, "u1")?;
            let now = (since(&on_a)?, since(&on_b)?);
            ensure!(now == before, "{now:?}, not {before:?}");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root"]
fn a_given_source_address_is_used_and_unused_ports_delay_no_start() -> Result<()> {
    lab::run_margay("given_source", &[], &[], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        // A port without a carrier: its other end is down.
        a.run("ip", &["link", "add", "u2", "type", "veth", "peer", "v2"])?;
        a.run("ip", &["link", "set", "u2", "up"])?;
        a.run("ip", &["addr", "add", "fe80::77/64", "dev", "u1", "nodad"])?;
        let given = "graceful-restart-time = 0\nsource-address = \"fe80::77\"\n";
        let (_b, on_b) = start(&b, 65002, "")?;
        let (_a, on_a) = margay::start_text(&a, &config(&a, 65001, given, ""))?;
        wait_until(PATIENCE, "the session", || established(&on_b, "u1"))?;
        let found = peer(&on_b, "u1")?;
        ensure!(found["address"] == "fe80::77", "{found}");
        let shown = on_a.text(&["show", "peer", &format!("{}%u1", link_local(&b, "u1")?)])?;
        ensure!(shown.contains("fe80::77"), "{shown}");
        wait_until(SOON, "the end of the start-up", || {
            let log = std::fs::read_to_string(a.file("margay.log"))?;
            ensure!(log.contains("start-up is complete"), "{log}");
            Ok(())
        })
    })
}

/// A session between margay at `b` and another daemon at `a`, as both are configured.
fn exchanged(a: &Host, b: &Host, on_b: &Control) -> Result<()> {
    wait_until(PATIENCE, "the session", || established(on_b, "u1"))?;
    let gateway = link_local(a, "u1")?;
    wait_until(PATIENCE, "margay's route", || routed(b, &loopback(a), &[(&gateway, "u1")]))?;
    let gateway = link_local(b, "u1")?;
    wait_until(PATIENCE, "the other's route", || {
        let route = kernel_route(a, &loopback(b))?;
        ensure!(route.contains(&format!("via inet6 {gateway} dev u1")), "{route}");
        Ok(())
    })?;
    pings(b, a)
}

/// What a test of another daemon's configuration in text form says about it.
fn said(host: &Host, asn: u32) -> Config {
    Config {
        asn,
        router_id: host.router_id(),
        port: 179,
        neighbors: Vec::new(),
        origins: Vec::new(),
    }
}

#[test]
#[ignore = "needs root and FRR"]
fn frr_by_interface() -> Result<()> {
    lab::run_margay("unnumbered_frr", &[Kind::Frr], &["ping"], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        let text = format!(
            "hostname frr\nrouter bgp 65001\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
             neighbor u1 interface remote-as external\n address-family ipv4 unicast\n  \
             network {}/32\n exit-address-family\n address-family ipv6 unicast\n  \
             neighbor u1 activate\n exit-address-family\n",
            a.router_id(),
            loopback(&a)
        );
        let frr = Frr::start_text(&a, &said(&a, 65001), &text)?;
        let (_b, on_b) = start(&b, 65002, "[[originate]]\nprefix = \"2001:db8:b::/48\"\n")?;
        exchanged(&a, &b, &on_b)?;
        let gateway = link_local(&b, "u1")?;
        wait_until(PATIENCE, "an IPv6 route", || {
            let route = a.run("ip", &["-6", "route", "show", "2001:db8:b::/48"])?;
            ensure!(route.contains(&format!("via {gateway} dev u1")), "{route}");
            Ok(())
        })?;
        let neighbor = frr.json("show bgp neighbors u1 json")?;
        ensure!(neighbor["u1"]["bgpState"] == "Established", "{neighbor}");
        Ok(())
    })
}

/// BFD over link-local addresses with another implementation. When bfdd falls silent while bgpd runs
/// on, BFD alone can end the session.
#[test]
#[ignore = "needs root and FRR"]
fn bfd_with_frr_by_interface() -> Result<()> {
    lab::run_margay("unnumbered_frr_bfd", &[Kind::Frr], &[], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        let text = format!(
            "hostname frr\nrouter bgp 65001\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
             neighbor u1 interface remote-as external\n neighbor u1 bfd\n \
             neighbor u1 bfd profile fast\n",
            a.router_id(),
        );
        let frr = Frr::start_text(&a, &said(&a, 65001), &text)?;
        let fast =
            "bfd\n profile fast\n  receive-interval 100\n  transmit-interval 100\n exit\nexit\n";
        let bfdd = frr.start_bfdd(fast)?;
        let bfd = "bfd = { min-tx = 100, min-rx = 100, multiplier = 3 }\n";
        let (_b, on_b) = margay::start_text(&b, &config(&b, 65002, bfd, ""))?;
        wait_until(PATIENCE, "the session", || established(&on_b, "u1"))?;
        wait_until(PATIENCE, "BFD", || {
            let bfd = peer(&on_b, "u1")?["bfd"].clone();
            ensure!(bfd == "Up", "BFD is {bfd}");
            Ok(())
        })?;
        let sessions = on_b.json(&["show", "bfd"])?;
        ensure!(sessions[0]["address"] == link_local(&a, "u1")?, "{sessions}");
        bfdd.signal("STOP")?;
        wait_until(SOON, "the end of the session by BFD", || {
            let peer = peer(&on_b, "u1")?;
            ensure!(peer["state"] != "Established", "{peer}");
            ensure!(peer.to_string().contains("BFD"), "{peer}");
            Ok(())
        })?;
        bfdd.signal("CONT")?;
        wait_until(PATIENCE, "the session again", || established(&on_b, "u1"))
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn bird_with_router_advertisements_and_a_dynamic_neighbour() -> Result<()> {
    lab::run_margay("unnumbered_bird", &[Kind::Bird2], &["ping"], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        let text = format!(
            "router id {};\nprotocol device {{ scan time 1; }}\n\
             protocol radv {{ interface \"u1\" {{ max ra interval 10; default lifetime 0; }}; }}\n\
             protocol static {{ ipv4; route {}/32 blackhole; }}\n\
             protocol kernel {{ ipv4 {{ export filter {{ if source = RTS_BGP then accept; reject; }}; }}; }}\n\
             protocol bgp n {{ local as 65001; neighbor range fe80::/10 external; \
             interface \"u1\"; strict bind off; \
             ipv4 {{ extended next hop on; import all; export where source = RTS_STATIC; }}; }}\n",
            a.router_id(),
            loopback(&a)
        );
        let _bird = Bird2::start_text(&a, &said(&a, 65001), &text)?;
        let (_b, on_b) = start(&b, 65002, "")?;
        exchanged(&a, &b, &on_b)
    })
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_forged_advertisements_costs_no_session_and_little_cpu() -> Result<()> {
    const SECONDS: u64 = 8;
    lab::run_margay("ra_flood", &[], &[], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        let ((_a, _), (daemon, on_b)) = (start(&a, 65001, "")?, start(&b, 65002, "")?);
        wait_until(PATIENCE, "the session", || established(&on_b, "u1"))?;
        let (before, since) = (Usage::of(daemon.pid())?, peer(&on_b, "u1")?["since"].clone());
        let flood = a.run(
            env!("CARGO_BIN_EXE_forge_ra"),
            &["u1", &link_local(&b, "u1")?, &SECONDS.to_string()],
        )?;
        let used = Usage::of(daemon.pid())?.cpu_millis - before.cpu_millis;
        let sent = flood.trim().parse::<u64>()?;
        let percent = used as f64 / (10 * SECONDS) as f64;
        println!("{} advertisements a second: {percent:.1} % of a core", sent / SECONDS);
        ensure!(sent / SECONDS > 50_000, "only {sent} packets");
        ensure!(percent < 5.0, "{percent} % of a core");
        // Longer than the neighbour has to answer for.
        holds_for(Duration::from_secs(6), "the session", || established(&on_b, "u1"))?;
        let after = peer(&on_b, "u1")?;
        ensure!(after["since"] == since, "the session was restarted: {after}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root"]
fn given_link_local_addresses_need_no_discovery_and_bfd_runs_between_them() -> Result<()> {
    lab::run_margay("link_local", &[], &["ping"], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        // The same addresses on another link, where nobody is: the interface distinguishes them.
        for (host, far) in [(&a, "fe80::b"), (&b, "fe80::a")] {
            let own = if far == "fe80::b" { "fe80::a" } else { "fe80::b" };
            host.run("ip", &["addr", "add", &format!("{own}/64"), "dev", "u1", "nodad"])?;
            host.run("ip", &["link", "add", "u2", "type", "veth", "peer", "v2"])?;
            host.run("ip", &["link", "set", "v2", "up"])?;
            host.run("ip", &["link", "set", "u2", "up"])?;
        }
        let config = |host: &Host, far: &str| {
            format!(
                "[bgp]\nasn = 65001\nrouter-id = \"{}\"\nconnect-retry-time = 1\n\n[[bgp.peers]]\n\
                 interface = \"u*\"\naddress = \"{far}\"\nremote-asn = \"internal\"\nbfd = true\n\n\
                 [[originate]]\nprefix = \"{}/32\"\nkind = \"none\"\n\n{}",
                host.router_id(),
                loopback(host),
                margay::control_section(host)
            )
        };
        let (_a, on_a) = margay::start_text(&a, &config(&a, "fe80::b"))?;
        let (_b, on_b) = margay::start_text(&b, &config(&b, "fe80::a"))?;
        for control in [&on_a, &on_b] {
            wait_until(PATIENCE, "the session", || established(control, "u1"))?;
            wait_until(PATIENCE, "BFD", || {
                let bfd = peer(control, "u1")?["bfd"].clone();
                ensure!(bfd == "Up", "BFD is {bfd}");
                Ok(())
            })?;
            let idle = peer(control, "u2")?;
            ensure!(
                idle["state"] != "Established"
                    && idle["address"] == peer(control, "u1")?["address"]
            );
        }
        // Its link-local address is the last that was added or the first: either is one of b's.
        wait_until(PATIENCE, "the route", || {
            let route = kernel_route(&a, &loopback(&b))?;
            ensure!(route.contains("via inet6 fe80::") && route.contains("dev u1"), "{route}");
            Ok(())
        })?;
        pings(&a, &b)
    })
}

#[test]
#[ignore = "needs root and setpriv"]
fn without_cap_net_raw_the_reason_is_shown() -> Result<()> {
    lab::run_margay("no_raw", &[], &["setpriv"], |lab| {
        let host = unnumbered(lab, "a")?;
        host.run("ip", &["link", "add", "u1", "type", "veth", "peer", "v1"])?;
        host.run("ip", &["link", "set", "u1", "up"])?;
        let path = host.write("margay.toml", &config(&host, 65001, "", ""))?;
        let program = margay::binary()?;
        let (program, path) = (program.to_string_lossy(), path.to_string_lossy());
        let args = [
            "--bounding-set",
            "-net_raw",
            "--inh-caps",
            "-net_raw",
            &program,
            "run",
            "--config",
            &path,
        ];
        let daemon = host.daemon("margay", "setpriv", &args)?;
        let (_daemon, control) = margay::wait_answers(&host, daemon)?;
        wait_until(PATIENCE, "the reason", || {
            let text = control.text(&["show", "peer", "u1"])?;
            ensure!(text.contains("give margay CAP_NET_RAW"), "{text}");
            Ok(())
        })
    })
}

/// `GoBGP` sends no router advertisements, finds its neighbour among those of the kernel, and writes no
/// kernel routes.
#[test]
#[ignore = "needs root and GoBGP"]
fn gobgp_by_interface() -> Result<()> {
    lab::run_margay("unnumbered_gobgp", &[Kind::Gobgp], &["ping"], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        let text = format!(
            "[bgp]\nasn = 65002\nrouter-id = \"{}\"\nconnect-retry-time = 1\n\n[[bgp.peers]]\n\
             interface = \"u1\"\naddress = \"{}\"\nremote-asn = \"external\"\nimport = \"all\"\n\
             export = \"all\"\n\n[[originate]]\nprefix = \"{}/32\"\nkind = \"none\"\n\n{}",
            b.router_id(),
            link_local(&a, "u1")?,
            loopback(&b),
            margay::control_section(&b)
        );
        let (_b, on_b) = margay::start_text(&b, &text)?;
        a.run("ping", &["-c", "1", "-W", "1", &format!("{}%u1", link_local(&b, "u1")?)])?;
        let text = format!(
            "[global.config]\n  as = 65001\n  router-id = \"{}\"\n[[neighbors]]\n  [neighbors.config]\n    \
             neighbor-interface = \"u1\"\n    peer-as = 65002\n  [neighbors.timers.config]\n    \
             connect-retry = 5\n  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      \
             afi-safi-name = \"ipv4-unicast\"\n",
            a.router_id()
        );
        let gobgp = Gobgp::start_text(&a, &said(&a, 65001), &text)?;
        wait_until(PATIENCE, "the session", || established(&on_b, "u1"))?;
        let prefix = format!("{}/32", loopback(&a));
        let own = link_local(&a, "u1")?;
        gobgp.ask(&["global", "rib", "add", &prefix, "nexthop", &own, "-a", "ipv4"])?;
        wait_until(PATIENCE, "margay's route", || routed(&b, &loopback(&a), &[(&own, "u1")]))?;
        let wanted = link_local(&b, "u1")?;
        wait_until(PATIENCE, "GoBGP's route", || {
            let table = gobgp.ask(&["global", "rib", &format!("{}/32", loopback(&b))])?;
            ensure!(table.contains(&wanted), "no {wanted} in {table}");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root"]
fn a_range_accepts_any_as() -> Result<()> {
    lab::run_margay("any_as", &[], &[], |lab| {
        let host = lab.host("a")?;
        let text = format!(
            "[bgp]\nasn = 65001\nrouter-id = \"{}\"\n\n[[bgp.dynamic-peers]]\nprefix = \"10.99.0.0/24\"\n\
             remote-asn = \"any\"\nimport = \"all\"\nexport = \"all\"\n\n{}",
            host.router_id(),
            margay::control_section(&host)
        );
        let (_daemon, control) = margay::start_text(&host, &text)?;
        let mut others = Vec::new();
        for (name, asn, kind) in [("b", 65001, "internal"), ("c", 65003, "external")] {
            let far = lab.host(name)?;
            let text = format!(
                "[bgp]\nasn = {asn}\nrouter-id = \"{}\"\n\n[[bgp.peers]]\naddress = \"{}\"\n\
                 remote-asn = 65001\nimport = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\n\n{}",
                far.router_id(),
                host.v4(),
                margay::control_section(&far)
            );
            others.push(margay::start_text(&far, &text)?);
            wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;
            let found = control.peer(far.v4())?;
            ensure!(found["remote_asn"] == asn && found["peer_type"] == kind, "{found}");
            ensure!(found["remote_asn_accepted"] == "any", "{found}");
        }
        Ok(())
    })
}

/// A planned restart (RFC 4724): the neighbour is found again before the routes of the earlier run count
/// as stale.
#[test]
#[ignore = "needs root"]
fn a_restart_leaves_the_kernels_routes_alone() -> Result<()> {
    lab::run_margay("unnumbered_restart", &[], &[], |lab| {
        let (a, b) = (unnumbered(lab, "a")?, unnumbered(lab, "b")?);
        lab.wire((&a, "u1"), (&b, "u1"))?;
        let _a = margay::start_text(&a, &config(&a, 65001, "", ""))?;
        let (mut daemon, on_b) = margay::start_text(&b, &config(&b, 65002, "", ""))?;
        wait_until(PATIENCE, "the session", || established(&on_b, "u1"))?;
        let gateway = link_local(&a, "u1")?;
        wait_until(PATIENCE, "the route", || routed(&b, &loopback(&a), &[(&gateway, "u1")]))?;
        let monitor = b.daemon("monitor", "ip", &["-o", "monitor", "route"])?;
        daemon.terminate()?;
        routed(&b, &loopback(&a), &[(&gateway, "u1")])?;
        let (_b, on_b) = margay::start_text(&b, &config(&b, 65002, "", ""))?;
        wait_until(PATIENCE, "the end of the start-up", || {
            let log = std::fs::read_to_string(b.file("margay.log"))?;
            ensure!(log.contains("start-up is complete"), "{log}");
            Ok(())
        })?;
        established(&on_b, "u1")?;
        routed(&b, &loopback(&a), &[(&gateway, "u1")])?;
        let events = monitor.output();
        let deleted = format!("Deleted {}", loopback(&a));
        ensure!(!events.contains(&deleted), "{events}");
        Ok(())
    })
}
