//! No packet is lost when a node changes from BIRD to margay and back, when cluster routes change
//! owners, when a virtual machine migrates, and when a node restarts without etcd. The change-over
//! is run for each release of Calico, with the objects that such a cluster has.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::calico::{BirdNode, Cluster, MargayNode, POOL, Packets, Pod, Priorities, Writes};
use interop::daemon::Daemon;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, Lab};
use interop::speaker::Kind;
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::json;

/// Change-overs that run at once: they mostly wait.
const PARALLEL: usize = 4;
/// How long etcd stays down after a node's restart; `CHANGEOVER_AWAY_SECS` sets another time, such
/// as ten minutes.
const AWAY: Duration = Duration::from_secs(15);
/// How long a node is down that returns within its restart time of 120 s; `CHANGEOVER_RETURN_SECS`
/// sets another time.
const RETURN: Duration = Duration::from_secs(40);

/// How long margay keeps its routes for a Felix that becomes their owner and has not written its
/// own.
const FELIX_HAS: Duration = Duration::from_secs(10);

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    None,
    IpipAlways,
    /// Both nodes in one subnet: no tunnel.
    IpipCrossSubnet,
    /// CrossSubnet, with each node in a subnet of its own.
    IpipBeyondSubnet,
    Vxlan,
}

/// A cluster as one release of Calico has it.
#[derive(Clone, Copy, Debug)]
struct Set {
    release: &'static str,
    carrier: Carrier,
    /// `FelixConfiguration.programClusterRoutes` and `BGPConfiguration.programClusterRoutes`.
    felix: Option<&'static str>,
    bgp: Option<&'static str>,
    writes: Writes,
}

const fn set(release: &'static str, carrier: Carrier, writes: Writes) -> Set {
    Set { release, carrier, felix: None, bgp: None, writes }
}

impl Set {
    fn priorities(&self) -> Priorities {
        match self.release {
            "v3.0.12" | "v3.28.2" | "v3.31.7" => Priorities::None,
            _ => Priorities::Mirrored,
        }
    }

    fn is_tunnelled(&self) -> bool {
        matches!(self.carrier, Carrier::IpipAlways | Carrier::IpipBeyondSubnet)
    }

    /// The next hop of Felix's route to another node's block, in ip(8)'s syntax.
    fn way(&self, to: &Host) -> String {
        // A second link of that name carries packets unencapsulated: this kernel has no IPIP.
        let through = if self.is_tunnelled() { " dev tunl0 onlink" } else { "" };
        format!("via {}{through}", to.v4())
    }

    /// Which routes BIRD writes by the configuration that confd generates.
    fn birds(&self) -> Writes {
        match (self.writes, self.carrier) {
            (Writes::Bird, Carrier::IpipAlways) => Writes::BirdThroughTunnel,
            (Writes::Bird, Carrier::IpipCrossSubnet) => Writes::BirdBeyond(24),
            (Writes::Bird, Carrier::IpipBeyondSubnet) => Writes::BirdBeyond(32),
            (writes, _) => writes,
        }
    }

    /// The protocol by which ip(8) shows the routes' owner.
    fn owner(&self) -> &'static str {
        if self.writes == Writes::Felix { "proto 80" } else { "proto bird" }
    }
}

/// Each release with its defaults, and one with its switches changed.
const SETS: &[Set] = &[
    // Older than the releases that margay knows: treated as the oldest of them.
    set("v3.0.12", Carrier::None, Writes::Bird),
    set("v3.0.12", Carrier::IpipAlways, Writes::Bird),
    set("v3.28.2", Carrier::None, Writes::Bird),
    set("v3.28.2", Carrier::IpipAlways, Writes::Bird),
    set("v3.28.2", Carrier::IpipCrossSubnet, Writes::Bird),
    set("v3.28.2", Carrier::IpipBeyondSubnet, Writes::Bird),
    set("v3.28.2", Carrier::Vxlan, Writes::Felix),
    set("v3.31.7", Carrier::None, Writes::Bird),
    set("v3.31.7", Carrier::IpipAlways, Writes::Bird),
    set("v3.31.7", Carrier::IpipCrossSubnet, Writes::Bird),
    set("v3.31.7", Carrier::Vxlan, Writes::Felix),
    set("v3.32.1", Carrier::None, Writes::Bird),
    set("v3.32.1", Carrier::IpipAlways, Writes::Bird),
    set("v3.32.1", Carrier::IpipCrossSubnet, Writes::Bird),
    set("v3.32.1", Carrier::IpipBeyondSubnet, Writes::Bird),
    set("v3.32.1", Carrier::Vxlan, Writes::Felix),
    Set {
        felix: Some("Enabled"),
        bgp: Some("Disabled"),
        ..set("v3.32.1", Carrier::None, Writes::Felix)
    },
    set("v3.33.0", Carrier::None, Writes::Bird),
    set("v3.33.0", Carrier::IpipAlways, Writes::Felix),
    set("v3.33.0", Carrier::IpipCrossSubnet, Writes::Felix),
    set("v3.33.0", Carrier::Vxlan, Writes::Felix),
];

const PROGRAMS: &[&str] = &["etcd", "etcdctl", "openssl", "python3", "runsvdir", "sv"];

fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, kinds, PROGRAMS, test)
}

fn seconds(variable: &str) -> Result<Option<Duration>> {
    let text = std::env::var(variable).ok();
    Ok(text.map(|text| text.parse()).transpose()?.map(Duration::from_secs))
}

/// Writes the objects of a set.
fn put(cluster: &Cluster, set: &Set) -> Result<()> {
    let information = json!({"calicoVersion": set.release, "datastoreReady": true});
    cluster.put("clusterinformations", "ClusterInformation", "default", &information)?;
    let pool = match set.carrier {
        Carrier::None => json!({"cidr": POOL, "ipipMode": "Never"}),
        Carrier::IpipAlways => json!({"cidr": POOL, "ipipMode": "Always"}),
        Carrier::IpipCrossSubnet | Carrier::IpipBeyondSubnet => {
            json!({"cidr": POOL, "ipipMode": "CrossSubnet"})
        }
        Carrier::Vxlan => json!({"cidr": POOL, "vxlanMode": "Always"}),
    };
    cluster.put("ippools", "IPPool", "pods", &pool)?;
    if let Some(owner) = set.felix {
        let spec = json!({"programClusterRoutes": owner});
        cluster.put("felixconfigurations", "FelixConfiguration", "default", &spec)?;
    }
    if let Some(owner) = set.bgp {
        let spec = json!({"programClusterRoutes": owner});
        cluster.put("bgpconfigurations", "BGPConfiguration", "default", &spec)?;
    }
    Ok(())
}

/// Creates both ends of the tunnel: on each node a second link named tunl0, with an address from
/// the node's own block.
fn make_tunnels(lab: &Lab, [a, b]: [&Host; 2]) -> Result<()> {
    for (host, address) in [(a, "10.65.1.1"), (b, "10.65.2.1")] {
        lab.link(host, "tunl0")?;
        host.run("ip", &["addr", "add", &format!("{address}/32"), "dev", "tunl0"])?;
    }
    Ok(())
}

/// Writes Felix's route to another node's block.
fn write_felixs_route(set: &Set, host: &Host, (other, block): (&Host, &str)) -> Result<()> {
    host.shell(&format!("ip route replace {block} {} proto 80", set.way(other))).map(drop)
}

/// The kernel routes to exactly this prefix, whoever owns them, one a line.
fn route_of(host: &Host, prefix: &str) -> Result<String> {
    Ok(host.run("ip", &["route", "show", prefix])?.trim().to_owned())
}

/// BIRD, margay, margay again, BIRD. Returns how many packets were sent; fails if one was lost.
fn change_over(lab: &mut Lab, set: &Set) -> Result<u32> {
    let cluster = Cluster::start(lab)?;
    put(&cluster, set)?;
    let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
    let (of_a, of_b) = ("10.65.1.0/26", "10.65.2.0/26");
    if set.is_tunnelled() {
        make_tunnels(lab, [&a, &b])?;
    }
    if set.carrier == Carrier::IpipBeyondSubnet {
        for host in [&a, &b] {
            // No other node is in a network of one address.
            let bgp = json!({"ipv4Address": format!("{}/32", host.v4())});
            cluster.put_node(host, &json!({"rack": "r1"}), &bgp)?;
        }
    }
    if set.writes == Writes::Felix {
        write_felixs_route(set, &a, (&b, of_b))?;
        write_felixs_route(set, &b, (&a, of_a))?;
    }
    let _na = MargayNode::from_environment(&a, &cluster)?;
    let start_bird = || {
        let bird = BirdNode::start_with(&b, &[&a], &[of_b], set.birds(), set.priorities())?;
        bird.wait_session(&a)?;
        anyhow::Ok(bird)
    };
    let mut bird = start_bird()?;
    for (host, prefix, to) in [(&a, of_b, &b), (&b, of_a, &a)] {
        wait_until(PATIENCE, "the first route", || {
            let route = route_of(host, prefix)?;
            ensure!(route.contains(&format!("via {}", to.v4())), "{route}");
            Ok(())
        })?;
    }
    let (pod_a, pod_b) = (Pod::start(&a, "x", "10.65.1.7")?, Pod::start(&b, "y", "10.65.2.7")?);
    let both = [Packets::start(&pod_a, &pod_b)?, Packets::start(&pod_b, &pod_a)?];

    bird.daemon().crash()?;
    let mut nb = MargayNode::from_environment(&b, &cluster)?;
    nb.wait_session(&a)?;
    let has_route = |owner: &str| -> Result<()> {
        let route = route_of(&b, of_a)?;
        ensure!(route.lines().count() == 1 && route.contains(owner), "{route}");
        ensure!(route.contains("dev tunl0") == set.is_tunnelled(), "{route}");
        Ok(())
    };
    let settled = |nb: &MargayNode| {
        wait_until(PATIENCE, "the routes of the node", || {
            has_route(set.owner())?;
            let status = nb.status()?.to_string();
            ensure!(status.contains(set.release), "{status}");
            Ok(())
        })
    };
    settled(&nb)?;
    holds_for(Duration::from_secs(2), "the routes to stay", || settled(&nb))?;
    // margay to margay, by a graceful stop.
    nb.daemon().signal("TERM")?;
    nb.daemon().wait(PATIENCE)?;
    nb.restart()?;
    nb.wait_session(&a)?;
    settled(&nb)?;
    // And back.
    nb.daemon().signal("TERM")?;
    nb.daemon().wait(PATIENCE)?;
    let _bird = start_bird()?;
    // BIRD compares its routes with the kernel's every two seconds.
    holds_for(Duration::from_secs(5), "the routes under BIRD", || has_route(set.owner()))?;
    end(both)
}

/// Stops all senders and returns how many packets were sent; fails if one was lost.
fn end(packets: impl IntoIterator<Item = Packets>) -> Result<u32> {
    let mut all: Vec<Packets> = packets.into_iter().collect();
    all.iter_mut().map(Packets::end).sum()
}

/// Runs [`change_over`] for each of [`SETS`]; `CHANGEOVER_ONLY` selects sets by a part of their
/// name.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_node_of_every_release_changes_over_without_losing_a_packet() -> Result<()> {
    let only = std::env::var("CHANGEOVER_ONLY").ok();
    let named = |set: &Set| format!("{}-{:?}-{:?}", set.release, set.carrier, set.writes);
    let wanted = |set: &&Set| only.as_ref().is_none_or(|only| named(set).contains(only.as_str()));
    let sets = Mutex::new(SETS.iter().filter(wanted));
    let faults = Mutex::new(Vec::new());
    let next = || sets.lock().expect("no holder panics").next();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(set) = next() {
                    let name = named(set);
                    let result = run(&format!("co-{name}"), &[Kind::Bird16], |lab| {
                        let sent = change_over(lab, set)
                            .map_err(|e| anyhow::anyhow!("{name}: {e:#}\n{}", lab.logs()))?;
                        println!("{name}: 0 of {sent} packets lost");
                        Ok(())
                    });
                    if let Err(error) = result {
                        faults.lock().expect("no holder panics").push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no holder panicked");
    ensure!(faults.is_empty(), "{} sets: {}", faults.len(), faults.join("\n"));
    Ok(())
}

/// Runs the commands for leaving BIRD in `docs/src/leaving-bird.md`, verbatim, on services that runsvdir supervises.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn bird_is_left_as_documented() -> Result<()> {
    run("calico-leave", &[Kind::Bird16], |lab| {
        let page = include_str!("../../docs/src/leaving-bird.md");
        let commands = page
            .split("```sh\n")
            .filter_map(|block| block.split_once("```"))
            .map(|(block, _)| block)
            .find(|block| block.contains("sv once bird bird6"))
            .context("the page does not say how BIRD is left")?;
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let _na = MargayNode::from_environment(&a, &cluster)?;
        // Creates the files that a running BIRD leaves.
        let mut bird = BirdNode::start(&b, &[&a], &["10.65.2.0/26"])?;
        bird.wait_session(&a)?;
        bird.daemon().crash()?;

        let services = b.file("services");
        let folder = services.display().to_string();
        let path = |suffix: &str| b.file(suffix).display().to_string();
        let program = interop::bird16::program("bird");
        let run_bird = format!(
            "exec {program} -R -f -c {} -s {} -P {}",
            path("bird.conf"),
            path("bird.ctl"),
            path("bird.pid")
        );
        let idle = "exec sleep 1000".to_owned();
        for (name, run) in [("bird", &run_bird), ("bird6", &idle), ("confd", &idle)] {
            let service = services.join(name);
            std::fs::create_dir_all(&service)?;
            std::fs::write(service.join("run"), format!("#!/bin/sh\n{run}\n"))?;
            b.run("chmod", &["+x", &service.join("run").display().to_string()])?;
        }
        let _supervisor = b.daemon("runsvdir", "runsvdir", &["-P", &folder])?;
        let state = |name: &str| {
            // `sv status` fails for a service that is down.
            b.shell(&format!("sv status {folder}/{name} || true"))
        };
        wait_until(PATIENCE, "the services", || {
            for name in ["bird", "bird6", "confd"] {
                let state = state(name)?;
                ensure!(state.starts_with("run"), "{state}");
            }
            Ok(())
        })?;
        bird.wait_session(&a)?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        let (pod_a, pod_b) = (Pod::start(&a, "x", "10.65.1.7")?, Pod::start(&b, "y", "10.65.2.7")?);
        let mut packets = Packets::start(&pod_a, &pod_b)?;
        let monitors = [RouteMonitor::start(&a)?, RouteMonitor::start(&b)?];

        b.shell(&commands.replace("/etc/service/enabled", &folder))?;
        wait_until(PATIENCE, "all three to be down", || {
            for name in ["bird", "bird6", "confd"] {
                let state = state(name)?;
                ensure!(state.starts_with("down"), "{state}");
            }
            Ok(())
        })?;
        // Without `sv once`, runsv would restart the service within a second.
        holds_for(Duration::from_secs(3), "BIRD to stay down", || {
            let state = state("bird")?;
            ensure!(state.starts_with("down"), "{state}");
            Ok(())
        })?;
        let nb = MargayNode::from_environment(&b, &cluster)?;
        nb.wait_session(&a)?;
        let sent = packets.end()?;
        for (host, monitor) in [&a, &b].iter().zip(&monitors) {
            let changes = monitor.changes()?;
            ensure!(!changes.contains("Deleted 10.65."), "{}: {changes}", host.name());
        }
        println!("0 of {sent} packets lost");
        Ok(())
    })
}

/// Cluster routes change owners, and back, while packets flow. From the change of the object until
/// the new owner's first route, the old owner's routes stay in the kernel.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn cluster_routes_change_owners_without_losing_a_packet() -> Result<()> {
    let owners = |bgp, felix| Set {
        bgp: Some(bgp),
        felix: Some(felix),
        ..set("v3.33.0", Carrier::None, Writes::Bird)
    };
    run("calico-owners", &[], |lab| {
        change_owners(lab, &owners("Enabled", "Disabled"), &owners("Disabled", "Enabled"), 1024)
    })
}

/// The same for a pool with IPIP, by the classes of pools that both objects name since v3.33.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn tunnel_routes_change_owners_without_losing_a_packet() -> Result<()> {
    let owners = |bgp, felix| Set {
        bgp: Some(bgp),
        felix: Some(felix),
        ..set("v3.33.0", Carrier::IpipAlways, Writes::Bird)
    };
    run("calico-tunnels", &[], |lab| {
        let felixs = owners("EnabledNoEncapOnly", "EnabledIPIPOnly");
        change_owners(lab, &owners("Enabled", "Disabled"), &felixs, 0)
    })
}

/// A pool changes to VXLAN, whose routes Felix owns, and back.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_pool_changes_its_mode_without_losing_a_packet() -> Result<()> {
    let mode = |carrier, writes| set("v3.28.2", carrier, writes);
    run("calico-mode", &[], |lab| {
        let (plain, vxlan) =
            (mode(Carrier::None, Writes::Bird), mode(Carrier::Vxlan, Writes::Felix));
        change_owners(lab, &plain, &vxlan, 0)
    })
}

/// With `ours` margay owns the routes, with `felixs` Felix, which writes them with this metric.
fn change_owners(lab: &mut Lab, ours: &Set, felixs: &Set, metric: u32) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    put(&cluster, ours)?;
    let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
    if ours.is_tunnelled() {
        make_tunnels(lab, [&a, &b])?;
    }
    let nodes =
        [MargayNode::from_environment(&a, &cluster)?, MargayNode::from_environment(&b, &cluster)?];
    let ways = [(&a, "10.65.2.0/26", &b), (&b, "10.65.1.0/26", &a)];
    for (host, prefix, to) in ways {
        kernel::wait_gateways(host, prefix, &[to.v4().to_string()])?;
    }
    let (pod_a, pod_b) = (Pod::start(&a, "x", "10.65.1.7")?, Pod::start(&b, "y", "10.65.2.7")?);
    let both = [Packets::start(&pod_a, &pod_b)?, Packets::start(&pod_b, &pod_a)?];
    let are = |wanted: &str| -> Result<()> {
        for (host, prefix, _) in ways {
            let route = route_of(host, prefix)?;
            ensure!(route.lines().count() == 1 && route.contains(wanted), "{prefix}: {route}");
        }
        Ok(())
    };
    let sees = |wanted: &str| wait_until(PATIENCE, wanted, || are(wanted));
    // To Felix, which takes three seconds to write its routes.
    put(&cluster, felixs)?;
    std::thread::sleep(Duration::from_secs(3));
    sees("proto bird")?;
    for (host, prefix, to) in ways {
        let way = felixs.way(to);
        host.shell(&format!("ip route replace {prefix} {way} proto 80 metric {metric}"))?;
    }
    sees("proto 80")?;
    std::thread::sleep(Duration::from_secs(1));
    // Back: Felix's routes are moved to another metric, so that margay's can be added beside them,
    // and are deleted afterwards.
    for (host, prefix, to) in ways {
        let way = felixs.way(to);
        host.shell(&format!(
            "ip route append {prefix} {way} proto 80 metric 1025; \
             ip route del {prefix} {way} proto 80 metric {metric}"
        ))?;
    }
    put(&cluster, ours)?;
    for (host, prefix, _) in ways {
        wait_until(PATIENCE, "our route beside Felix's", || {
            let route = route_of(host, prefix)?;
            ensure!(route.contains("proto bird"), "{route}");
            Ok(())
        })?;
        host.shell(&format!("ip route del {prefix} proto 80 metric 1025"))?;
    }
    sees("proto bird")?;
    let sent = end(both)?;
    println!("0 of {sent} packets lost");
    // To a Felix that never writes: margay's routes are removed, but only after [`FELIX_HAS`].
    put(&cluster, felixs)?;
    holds_for(FELIX_HAS - Duration::from_secs(2), "the routes to stay", || are("proto bird"))?;
    for (host, prefix, _) in ways {
        wait_until(PATIENCE, "the route to go", || {
            let route = route_of(host, prefix)?;
            ensure!(route.is_empty(), "{route}");
            Ok(())
        })?;
    }
    drop(nodes);
    Ok(())
}

/// A rolling upgrade to v3.33, whose Felix writes tunnel routes. Each calico-node writes its
/// version into ClusterInformation when it starts, while Felix on nodes that are not upgraded yet
/// writes no such routes.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_rolling_upgrade_loses_no_tunnel_route() -> Result<()> {
    run("calico-rolling", &[], |lab| {
        let cluster = Cluster::start(lab)?;
        let of = |release| set(release, Carrier::IpipAlways, Writes::Bird);
        put(&cluster, &of("v3.32.1"))?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        make_tunnels(lab, [&a, &b])?;
        let na = MargayNode::from_environment(&a, &cluster)?;
        let mut nb = MargayNode::from_environment(&b, &cluster)?;
        let ways = [(&a, "10.65.2.0/26", &b), (&b, "10.65.1.0/26", &a)];
        let tunnelled = |(host, prefix, to): (&Host, &str, &Host), by: &str| -> Result<()> {
            let route = route_of(host, prefix)?;
            let through = format!("via {} dev tunl0 proto {by}", to.v4());
            ensure!(route.lines().count() == 1 && route.contains(&through), "{route}");
            Ok(())
        };
        for way in ways {
            wait_until(PATIENCE, "the tunnel route", || tunnelled(way, "bird"))?;
        }
        let (pod_a, pod_b) = (Pod::start(&a, "x", "10.65.1.7")?, Pod::start(&b, "y", "10.65.2.7")?);
        let both = [Packets::start(&pod_a, &pod_b)?, Packets::start(&pod_b, &pod_a)?];
        put(&cluster, &of("v3.33.0"))?;
        let says = |node: &MargayNode, text: &str| -> Result<()> {
            let status = node.status()?.to_string();
            ensure!(status.contains(text), "{status}");
            Ok(())
        };
        for node in [&na, &nb] {
            wait_until(PATIENCE, "a note", || says(node, "v3.33.0 is named by now"))?;
        }
        // Longer than margay keeps routes for an owner that does not write them.
        holds_for(Duration::from_secs(12), "both tunnel routes", || {
            ways.into_iter().try_for_each(|way| tunnelled(way, "bird"))
        })?;
        // The node itself is upgraded: Felix writes its route a little later than margay starts.
        end_gracefully(&mut nb)?;
        nb.restart()?;
        wait_until(PATIENCE, "the new release", || says(&nb, "v3.33.0 (ClusterInformation)"))?;
        nb.wait_session(&a)?;
        holds_for(Duration::from_secs(3), "the tunnel route", || tunnelled(ways[1], "bird"))?;
        b.shell(&format!("ip route add {} via {} dev tunl0 onlink proto 80", ways[1].1, a.v4()))?;
        wait_until(PATIENCE, "Felix's route alone", || tunnelled(ways[1], "80"))?;
        tunnelled(ways[0], "bird")?;
        println!("0 of {} packets lost", end(both)?);
        Ok(())
    })
}

/// The address of the virtual machine, from the first node's block.
const MACHINE: &str = "10.65.1.9";

/// Migrates a virtual machine: for a while its address is on both nodes, with priority on the new
/// one. `starting`, a node whose margay was stopped before, starts meanwhile, is killed within its
/// first second, and starts again.
fn migrate(
    machine: Pod,
    [source, target]: [&Host; 2],
    viewer: &Host,
    starting: Option<&mut MargayNode>,
) -> Result<(Pod, Daemon)> {
    // The target answers from now on; its route is added below.
    let moved = Pod::prepare(target, "vm", MACHINE)?;
    let server = moved.echo()?;
    let route = format!("{MACHINE}/32 dev calivm scope link proto 80 metric");
    target.shell(&format!("ip route add {route} 512"))?;
    if let Some(node) = starting {
        let begin = Instant::now();
        node.restart()?;
        node.daemon().crash()?;
        ensure!(begin.elapsed() < Duration::from_secs(1), "killed after {:?}", begin.elapsed());
        node.restart()?;
    }
    for host in [source, viewer] {
        wait_until(PATIENCE, "the route to the target", || {
            let route = route_of(host, &format!("{MACHINE}/32"))?;
            let wanted = format!("via {}", target.v4());
            let line = route.lines().find(|line| line.contains(&wanted));
            ensure!(line.is_some_and(|line| line.contains("metric 512")), "{route}");
            Ok(())
        })?;
    }
    // The source is gone. The kernel removes its namespace and its route some time later.
    drop(machine);
    let by_source = format!("via {}", source.v4());
    wait_until(PATIENCE, "the source's withdrawal", || {
        for host in [target, viewer] {
            let route = route_of(host, &format!("{MACHINE}/32"))?;
            ensure!(!route.contains(&by_source), "{route}");
        }
        Ok(())
    })?;
    // Felix does this seconds later: the target is an ordinary pod.
    target.shell(&format!("ip route replace {route} 1024; ip route del {route} 512"))?;
    Ok((moved, server))
}

/// Migrates to another node, back, and there again. During the second migration the node that
/// observes starts, during the third the target.
fn migrates_without_loss(name: &str, release: &'static str) -> Result<()> {
    run(name, &[], |lab| {
        let cluster = Cluster::start(lab)?;
        put(&cluster, &set(release, Carrier::None, Writes::Bird))?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let c = cluster.node(lab, "c", 3)?;
        let mut nodes = Vec::new();
        for host in [&a, &b, &c] {
            nodes.push(MargayNode::from_environment(host, &cluster)?);
        }
        kernel::wait_gateways(&c, "10.65.1.0/26", &[a.v4().to_string()])?;
        kernel::wait_gateways(&a, "10.65.3.0/26", &[c.v4().to_string()])?;
        kernel::wait_gateways(&b, "10.65.3.0/26", &[c.v4().to_string()])?;
        let machine = Pod::start(&a, "vm", MACHINE)?;
        let from = Pod::start(&c, "x", "10.65.3.7")?;
        let mut packets = Packets::start(&from, &machine)?;
        let ordinary = |wanted: &[&str]| {
            wait_until(PATIENCE, "the route to an ordinary pod", || {
                let route = route_of(&c, &format!("{MACHINE}/32"))?;
                let is_right = wanted.iter().all(|part| route.contains(part));
                ensure!(is_right && route.lines().count() == wanted.len().min(1), "{route}");
                Ok(())
            })
        };
        let away = b.v4().to_string();
        let (machine, _first) = migrate(machine, [&a, &b], &c, None)?;
        ordinary(&["metric 1024", &away])?;
        // Back to the node of its block, while the observing node starts.
        end_gracefully(&mut nodes[2])?;
        let (machine, _second) = migrate(machine, [&b, &a], &c, Some(&mut nodes[2]))?;
        ordinary(&[])?;
        // And to the other node again, while the target starts.
        end_gracefully(&mut nodes[1])?;
        let (machine, _third) = migrate(machine, [&a, &b], &c, Some(&mut nodes[1]))?;
        ordinary(&["metric 1024", &away])?;
        std::thread::sleep(Duration::from_secs(1));
        println!("{release}: 0 of {} packets lost in three moves", packets.end()?);
        drop(machine);
        Ok(())
    })
}

fn end_gracefully(node: &mut MargayNode) -> Result<()> {
    node.daemon().signal("TERM")?;
    node.daemon().wait(PATIENCE).map(drop)
}

#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_live_migration_loses_no_packet_3_32() -> Result<()> {
    migrates_without_loss("calico-migration-32", "v3.32.1")
}

#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_live_migration_loses_no_packet_3_33() -> Result<()> {
    migrates_without_loss("calico-migration-33", "v3.33.0")
}

/// A node restarts while etcd is down: it restores its sessions from its state file, within the
/// restart time that its neighbours wait, and no packet is lost.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_node_restarts_while_etcd_is_down() -> Result<()> {
    let away = seconds("CHANGEOVER_AWAY_SECS")?.unwrap_or(AWAY);
    run("calico-away", &[], |lab| {
        let mut cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let state = b.file("objects");
        let line = format!("state-file = \"{}\"", state.display());
        let na = MargayNode::from_environment(&a, &cluster)?;
        let mut nb = MargayNode::from_file(&b, &cluster, &line)?;
        nb.wait_session(&a)?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        kernel::wait_gateways(&b, "10.65.1.0/26", &[a.v4().to_string()])?;
        wait_until(PATIENCE, "the objects to be saved", || Ok(std::fs::metadata(&state)?))?;
        let (pod_a, pod_b) = (Pod::start(&a, "x", "10.65.1.7")?, Pod::start(&b, "y", "10.65.2.7")?);
        let both = [Packets::start(&pod_a, &pod_b)?, Packets::start(&pod_b, &pod_a)?];
        let monitors = [RouteMonitor::start(&a)?, RouteMonitor::start(&b)?];
        cluster.etcd.crash()?;
        let begin = Instant::now();
        nb.daemon().crash()?;
        nb.restart()?;
        nb.wait_session(&a)?;
        let back = begin.elapsed();
        ensure!(back < Duration::from_secs(15), "the session came back after {back:?}");
        let status = nb.status()?.to_string();
        ensure!(status.contains("away") || status.contains("connecting"), "{status}");
        holds_for(away, "the session and the routes", || {
            ensure!(nb.session(&a)?.state == "Established", "{:?}", nb.session(&a)?);
            ensure!(kernel::route(&a, "10.65.2.0/26")?.is_some(), "the neighbour lost the block");
            ensure!(kernel::route(&b, "10.65.1.0/26")?.is_some(), "the route is gone");
            Ok(())
        })?;
        let sessions = [na.sessions(&b), nb.sessions(&a)];
        cluster.etcd.restart()?;
        cluster.put_block(&b, 6)?;
        kernel::wait_gateways(&a, "10.65.6.0/26", &[b.v4().to_string()])?;
        ensure!([na.sessions(&b), nb.sessions(&a)] == sessions, "the list ended a session");
        let sent = end(both)?;
        for (host, monitor) in [&a, &b].iter().zip(&monitors) {
            let changes = monitor.changes()?;
            ensure!(!changes.contains("Deleted 10.65."), "{}: {changes}", host.name());
        }
        println!("session back after {back:?}, etcd away {away:?}, 0 of {sent} packets lost");
        drop(na);
        Ok(())
    })
}

/// A planned stop, and a return within the restart time. The node has the lowest address of the
/// mesh, so it waits for its neighbours to dial.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_node_returns_within_its_restart_time_without_losing_a_packet() -> Result<()> {
    let away = seconds("CHANGEOVER_RETURN_SECS")?.unwrap_or(RETURN);
    run("calico-return", &[], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let c = cluster.node(lab, "c", 3)?;
        let mut na = MargayNode::from_environment(&a, &cluster)?;
        let _others = [
            MargayNode::from_environment(&b, &cluster)?,
            MargayNode::from_environment(&c, &cluster)?,
        ];
        for other in [&b, &c] {
            na.wait_session(other)?;
            kernel::wait_gateways(other, "10.65.1.0/26", &[a.v4().to_string()])?;
        }
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        kernel::wait_gateways(&a, "10.65.3.0/26", &[c.v4().to_string()])?;
        let pods = [
            Pod::start(&a, "x", "10.65.1.7")?,
            Pod::start(&b, "y", "10.65.2.7")?,
            Pod::start(&c, "z", "10.65.3.7")?,
        ];
        let packets = [
            Packets::start(&pods[0], &pods[1])?,
            Packets::start(&pods[1], &pods[0])?,
            Packets::start(&pods[2], &pods[0])?,
        ];
        na.daemon().signal("TERM")?;
        na.daemon().wait(PATIENCE)?;
        std::thread::sleep(away);
        na.restart()?;
        let begin = Instant::now();
        for other in [&b, &c] {
            na.wait_session(other)?;
        }
        let back = begin.elapsed();
        ensure!(back < Duration::from_secs(7), "the sessions came back after {back:?}");
        std::thread::sleep(Duration::from_secs(2));
        println!("back after {back:?}, away {away:?}, 0 of {} packets lost", end(packets)?);
        Ok(())
    })
}

/// Three nodes start at once, in every order. A first connection attempt may be refused because the
/// neighbour does not listen yet.
#[test]
#[ignore = "needs root, etcd, openssl and runit"]
fn a_mesh_that_starts_at_once_is_complete_in_two_seconds() -> Result<()> {
    run("calico-together", &[], |lab| {
        let cluster = Cluster::start(lab)?;
        let hosts =
            [cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?, cluster.node(lab, "c", 3)?];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut nodes = Vec::new();
            for at in order {
                nodes.push((at, MargayNode::from_environment(&hosts[at], &cluster)?));
            }
            let begin = Instant::now();
            for (at, node) in &nodes {
                for (_, other) in hosts.iter().enumerate().filter(|(other, _)| other != at) {
                    node.wait_session(other)?;
                }
            }
            let took = begin.elapsed();
            println!("{order:?}: complete after {took:?}");
            ensure!(took < Duration::from_secs(2), "{order:?}: complete after {took:?}");
            for (_, mut node) in nodes {
                node.daemon().crash()?;
            }
        }
        Ok(())
    })
}
