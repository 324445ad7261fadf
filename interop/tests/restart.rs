//! margay as the restarting speaker (RFC 4724, RFC 8538), with real daemons as helpers, and many
//! margays that restart at once. GRACEFUL_SHUTDOWN (RFC 8326) from a neighbour.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::daemon::Daemon;
use interop::frr::Frr;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Margay};
use interop::matrix::{Case, PEER_AS, SUBJECT_AS, neighbor, peer_prefix, subject_prefix};
use interop::speaker::{Config, Family, Kind, Origin, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, holds_for, wait_until};

/// Announced before the restart, and not after it.
const GONE: &str = "203.0.113.0/25";

fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, kinds, &[], test)
}

/// How margay ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Terminated,
    Killed,
}

/// The helper retains margay's routes until margay's End-of-RIB, and then removes those that were
/// not announced again; margay's kernel keeps the helper's route all the time.
fn restarts(helper: Kind, end: End) -> Result<()> {
    let name = format!("restart-{helper:?}-{}", if end == End::Killed { "kill" } else { "term" });
    run(&name, &[helper], |lab| {
        let (host, helper_host) = (lab.host("a")?, lab.host("b")?);
        let case = Case::ebgp(helper).graceful_restart().hold_time(30);
        let (config, helper_config) = case.configs(&host, &helper_host);
        let with_gone = Config {
            origins: [config.origins.clone(), vec![Origin::plain(GONE)]].concat(),
            ..config.clone()
        };
        let mut margay = Margay::start(&host, &with_gone)?;
        let peer = helper.start(&helper_host, &helper_config)?;
        let kept = subject_prefix(Family::V4);
        wait_paths(peer.as_ref(), kept, 1)?;
        wait_paths(peer.as_ref(), GONE, 1)?;
        kernel::wait_gateways(&host, peer_prefix(Family::V4), &[helper_host.v4().to_string()])?;
        let (own, theirs) = (RouteMonitor::start(&host)?, RouteMonitor::start(&helper_host)?);
        match end {
            End::Terminated => {
                margay.daemon().signal("TERM")?;
                margay.daemon().wait(Duration::from_secs(10))?;
            }
            End::Killed => margay.daemon().crash()?,
        }
        holds_for(Duration::from_secs(2), "the helper's routes of margay", || {
            ensure!(peer.paths(kept)?.len() == 1 && peer.paths(GONE)?.len() == 1, "dropped");
            Ok(())
        })?;
        let margay = Margay::start(&host, &config)?;
        wait_established(&margay, helper_host.v4())?;
        // End-of-RIB removes what was not announced again, long before any timer expires.
        wait_until(Duration::from_secs(15), "the stale route to go", || {
            ensure!(peer.paths(GONE)?.is_empty(), "still there");
            Ok(())
        })?;
        ensure!(peer.paths(kept)?.len() == 1, "the route was dropped in the end");
        let (own, theirs) = (own.changes()?, theirs.changes()?);
        ensure!(!own.contains(&format!("Deleted {}", peer_prefix(Family::V4))), "{own}");
        ensure!(!theirs.contains(&format!("Deleted {kept}")), "{theirs}");
        Ok(())
    })
}

macro_rules! restarts {
    ($($name:ident: $helper:ident, $end:ident;)*) => {
        $(#[test]
        #[ignore = "needs root and the helper"]
        fn $name() -> Result<()> {
            restarts(Kind::$helper, End::$end)
        })*
    };
}

restarts! {
    bird2_helps_a_terminated_margay: Bird2, Terminated;
    bird2_helps_a_killed_margay: Bird2, Killed;
    frr_helps_a_terminated_margay: Frr, Terminated;
    frr_helps_a_killed_margay: Frr, Killed;
    gobgp_helps_a_terminated_margay: Gobgp, Terminated;
    gobgp_helps_a_killed_margay: Gobgp, Killed;
}

/// Waits until the kernel has a route that FRR wrote for BGP.
fn wait_in_zebra(host: &Host, prefix: &str) -> Result<()> {
    wait_until(PATIENCE, "FRR's kernel route", || {
        let routes = kernel::routes(host, Family::V4, "186")?;
        ensure!(routes.iter().any(|route| route.prefix == prefix), "{routes:?}");
        Ok(())
    })
}

/// With the N bit on both sides (RFC 8538 §2), a session that margay closes with a NOTIFICATION, to
/// change a parameter, is a restart too: the helper retains the routes.
#[test]
#[ignore = "needs root, BIRD 2 and FRR"]
fn a_notification_is_a_restart_with_the_n_bit_on_both_sides() -> Result<()> {
    run("restart-n", &[Kind::Frr], |lab| {
        let (host, helper_host) = (lab.host("a")?, lab.host("b")?);
        let case = Case::ebgp(Kind::Frr).graceful_restart().hold_time(30);
        let (mut config, helper_config) = case.configs(&host, &helper_host);
        let frr = Frr::start(&helper_host, &helper_config)?;
        let line = "bgp graceful-restart notification";
        let router = format!("router bgp {PEER_AS}");
        wait_until(PATIENCE, "bgpd", || {
            frr.ask(&["configure terminal", &router, line, "end", "clear bgp *"])
        })?;
        let mut margay = Margay::start(&host, &config)?;
        let kept = subject_prefix(Family::V4);
        wait_established(&margay, helper_host.v4())?;
        wait_paths(&frr, kept, 1)?;
        wait_in_zebra(&helper_host, kept)?;
        let monitor = RouteMonitor::start(&helper_host)?;
        config.neighbors[0].add_path = true;
        margay.reconfigure(&config)?;
        wait_until(PATIENCE, "the changed session", || {
            let peer = margay.control().peer(helper_host.v4())?;
            ensure!(peer["state"] == "Established", "{peer}");
            // The session is that of a new peer: the end of the old one is only in the log.
            let log = margay.daemon().output();
            ensure!(log.contains("session closed: Other Configuration Change"), "{log}");
            ensure!(log.matches("session established").count() == 2, "{log}");
            Ok(())
        })?;
        wait_paths(&frr, kept, 1)?;
        thread::sleep(Duration::from_secs(2));
        let was_deleted = monitor.changes()?.contains(&format!("Deleted {kept}"));
        ensure!(!was_deleted, "the helper did not keep {kept}");
        wait_in_zebra(&helper_host, kept)
    })
}

/// A node of a cluster with two reflectors.
struct Node {
    host: Host,
    text: String,
    prefix: String,
    daemon: Option<Daemon>,
}

impl Node {
    fn start(&mut self) -> Result<()> {
        let command = margay::run_command_of(&self.host, &margay::binary()?, &self.text)?;
        self.daemon = Some(Daemon::start(command, &self.host.file("margay.log"))?);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("not started")?;
        daemon.signal("TERM")?;
        let status = daemon.wait(Duration::from_secs(20))?;
        ensure!(status.code() == Some(0), "{status}: {}", daemon.output());
        Ok(())
    }
}

/// The configuration of one of `hosts`; the first two are reflectors, all others their clients.
fn node_config(hosts: &[Host], at: usize, prefix: &str) -> String {
    const REFLECTORS: usize = 2;
    let host = &hosts[at];
    let mut text = format!(
        "[bgp]\nasn = 64512\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:1790\"]\n",
        host.router_id()
    );
    // The two reflectors are one cluster (RFC 4456 §7).
    text += if at < REFLECTORS { "cluster-id = \"10.99.0.1\"\n\n" } else { "\n" };
    for (other, peer) in hosts.iter().enumerate() {
        let is_client = at < REFLECTORS && other >= REFLECTORS;
        if other == at || (at >= REFLECTORS && other >= REFLECTORS) {
            continue;
        }
        text += &format!(
            "[[bgp.peers]]\naddress = \"{}\"\nport = 1790\nremote-asn = 64512\n\
             connect-retry-time = 2\nroute-reflector-client = {is_client}\n\n",
            peer.v4()
        );
    }
    text + &format!("[[originate]]\nprefix = \"{prefix}\"\n\n{}", margay::control_section(host))
}

/// Every margay of a cluster, reflectors too, is restarted within ten seconds: no kernel loses a
/// route. `MARGAY_RESTART_NODES` sets how many there are, default 8; 100 take some minutes.
#[test]
#[ignore = "needs root, BIRD 2 and FRR"]
fn a_cluster_that_restarts_at_once_loses_no_route() -> Result<()> {
    let count = std::env::var("MARGAY_RESTART_NODES").ok().and_then(|n| n.parse().ok());
    let count: usize = count.unwrap_or(8);
    run("restart-cluster", &[], |lab| {
        let hosts: Vec<Host> =
            (0..count).map(|n| lab.host(&format!("n{n}"))).collect::<Result<_>>()?;
        let mut nodes: Vec<Node> = (0..count)
            .map(|at| {
                let prefix = format!("10.65.{at}.0/24");
                let text = node_config(&hosts, at, &prefix);
                Node { host: hosts[at].clone(), text, prefix, daemon: None }
            })
            .collect();
        nodes.iter_mut().try_for_each(Node::start)?;
        let all_have_all = |nodes: &[Node], limit: Duration| {
            wait_until(limit, "every route in every kernel", || {
                for node in nodes {
                    let routes = kernel::routes(&node.host, Family::V4, kernel::PROTOCOL)?;
                    let here = node.host.name();
                    ensure!(routes.len() == nodes.len(), "{} routes at {here}", routes.len());
                }
                Ok(())
            })
        };
        let patience = PATIENCE + Duration::from_secs(2) * u32::try_from(count)?;
        all_have_all(&nodes, patience)?;
        let monitors: Vec<RouteMonitor> =
            nodes.iter().map(|node| RouteMonitor::start(&node.host)).collect::<Result<_>>()?;
        // Let every start-up complete, so that the second one is tested.
        thread::sleep(Duration::from_secs(5));
        let began = Instant::now();
        let step = Duration::from_secs(10) / u32::try_from(count)?;
        thread::scope(|scope| {
            let restart = |(at, node): (u32, &mut Node)| -> Result<()> {
                thread::sleep((step * at).saturating_sub(began.elapsed()));
                node.stop()?;
                node.start()
            };
            let threads: Vec<_> =
                (0..).zip(&mut nodes).map(|each| scope.spawn(move || restart(each))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow::anyhow!("a restart panicked"))?
            })
        })?;
        // All are back: reflectors reflect, starts are over.
        all_have_all(&nodes, patience)?;
        for node in &nodes {
            let control = margay::Control::of(&node.host);
            wait_until(patience, "the start to be over", || {
                let status = control.json(&["show", "status"])?;
                ensure!(status["not_ready"].is_null(), "{}", status["not_ready"]);
                let peers = control.json(&["show", "peers"])?;
                let peers = peers.as_array().context("no list")?;
                ensure!(peers.iter().all(|p| p["state"] == "Established"), "{peers:?}");
                Ok(())
            })?;
        }
        thread::sleep(Duration::from_secs(3));
        all_have_all(&nodes, patience)?;
        for (node, monitor) in nodes.iter().zip(&monitors) {
            let changes = monitor.changes()?;
            let lost = nodes.iter().find(|n| changes.contains(&format!("Deleted {}", n.prefix)));
            if let Some(lost) = lost {
                let here = node.host.name();
                anyhow::bail!("{} was lost at {here}: {changes}", lost.prefix);
            }
        }
        Ok(())
    })
}

/// A neighbour announces its shutdown: routes move to another one while both still forward. This is
/// the default for external neighbours; `honour-graceful-shutdown = false` turns it off.
#[test]
#[ignore = "needs root, BIRD 2 and FRR"]
fn routes_move_away_from_a_neighbour_in_graceful_shutdown() -> Result<()> {
    const ROUTE: &str = "198.51.100.0/24";
    run("restart-gshut", &[Kind::Bird2], |lab| {
        let (host, first, second) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let peers = [&first, &second].map(|peer| {
            format!(
                "[[bgp.peers]]\naddress = \"{}\"\nport = 1790\nremote-asn = {PEER_AS}\n\
                 import = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\n",
                peer.v4()
            )
        });
        let text = |more: &str| {
            format!(
                "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"10.99.0.1\"\nlisten = [\"0.0.0.0:1790\"]\n\n\
                 {}{more}\n{}\n{}",
                peers[0],
                peers[1],
                margay::control_section(&host)
            )
        };
        let (_daemon, control) = margay::start_text(&host, &text(""))?;
        let bird = |of: &Host, communities: &[&str]| Config {
            asn: PEER_AS,
            router_id: of.router_id(),
            port: 1790,
            neighbors: vec![neighbor(host.v4(), of.v4(), SUBJECT_AS)],
            origins: vec![Origin {
                prefix: ROUTE.to_owned(),
                communities: communities.iter().map(|c| (*c).to_owned()).collect(),
                large_communities: Vec::new(),
            }],
        };
        let mut leaving = Bird2::start(&first, &bird(&first, &[]))?;
        kernel::wait_gateways(&host, ROUTE, &[first.v4().to_string()])?;
        let _staying = Bird2::start(&second, &bird(&second, &[]))?;
        wait_until(PATIENCE, "both paths", || {
            ensure!(control.paths(ROUTE)?.len() == 2, "not yet");
            Ok(())
        })?;
        let both = [first.v4().to_string(), second.v4().to_string()];
        kernel::wait_gateways(&host, ROUTE, &both)?;
        let monitor = RouteMonitor::start(&host)?;
        leaving.reconfigure(&bird(&first, &["65535:0"]))?;
        kernel::wait_gateways(&host, ROUTE, &[second.v4().to_string()])?;
        let paths = control.paths(ROUTE)?;
        ensure!(paths.len() == 2, "its path is removed, not only less preferred: {paths:?}");
        ensure!(paths.iter().any(|path| path["local_pref"] == 0), "{paths:?}");
        leaving.daemon().terminate()?;
        wait_until(PATIENCE, "the path to go", || {
            ensure!(control.paths(ROUTE)?.len() == 1, "not yet");
            Ok(())
        })?;
        let changes = monitor.changes()?;
        ensure!(!changes.contains(&format!("Deleted {ROUTE}")), "there was a gap: {changes}");
        // Without the key it is a community like any other.
        host.write("margay.toml", &text("honour-graceful-shutdown = false\n"))?;
        control.text(&["reload"])?;
        leaving.recover()?;
        kernel::wait_gateways(&host, ROUTE, &both)
    })
}
