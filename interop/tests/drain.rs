//! Drains (RFC 8326): neighbours move to other paths before a router is taken out of service.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::calico::Stream;
use interop::frr::Frr;
use interop::kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Margay};
use interop::matrix::{PEER_AS, SUBJECT_AS, config};
use interop::ping::Ping;
use interop::speaker::{Kind, Path, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, wait_until};

const NEAR: &str = "192.0.2.0/24";
const NEAR_ADDRESS: &str = "192.0.2.1";
const FAR: &str = "198.51.100.0/24";
const FAR_ADDRESS: &str = "198.51.100.1";
/// The prefix that both routers originate, as nodes originate the addresses of services.
const SHARED: &str = "203.0.113.0/25";
const FAR_AS: u32 = 4_200_000_003;
/// The names by which the speakers show the community.
const GRACEFUL_SHUTDOWN: [&str; 3] = ["graceful-shutdown", "65535:0", "gracefulShutdown"];

fn is_marked(path: &Path) -> bool {
    path.communities.iter().any(|c| GRACEFUL_SHUTDOWN.contains(&c.as_str()))
}

/// FRR, two margays of one AS that forward, and a margay behind them that honours RFC 8326 as FRR
/// does.
struct Diamond {
    near_host: Host,
    far_host: Host,
    near: Frr,
    far: Margay,
    hosts: [Host; 2],
    routers: [Margay; 2],
}

impl Diamond {
    fn start(lab: &mut Lab) -> Result<Diamond> {
        let (near_host, far_host) = (lab.host("near")?, lab.host("far")?);
        let hosts = [lab.host("a")?, lab.host("b")?];
        near_host.shell(&format!("ip addr add {NEAR_ADDRESS}/32 dev lo"))?;
        far_host.shell(&format!("ip addr add {FAR_ADDRESS}/32 dev lo"))?;
        for host in &hosts {
            // All are on one link, where a router would send ICMP redirects.
            host.shell(
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
                 net.ipv4.conf.eth0.send_redirects=0",
            )?;
        }
        let routers = [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])].map(|(host, other)| {
            let peers = [(&near_host, PEER_AS), (&far_host, FAR_AS), (other, SUBJECT_AS)];
            Margay::start(host, &config(host, SUBJECT_AS, &peers, &[SHARED]))
        });
        let [a, b] = routers;
        let both = [(&hosts[0], SUBJECT_AS), (&hosts[1], SUBJECT_AS)];
        let near = Frr::start(&near_host, &config(&near_host, PEER_AS, &both, &[NEAR]))?;
        let far = Margay::start(&far_host, &config(&far_host, FAR_AS, &both, &[FAR]))?;
        let diamond = Diamond { near_host, far_host, near, far, hosts, routers: [a?, b?] };
        diamond.wait_paths(2)?;
        Ok(diamond)
    }

    fn wait_paths(&self, count: usize) -> Result<()> {
        wait_paths(&self.near, FAR, count)?;
        wait_paths(&self.far, NEAR, count)?;
        wait_paths(&self.near, SHARED, count)?;
        Ok(())
    }

    /// Waits until, at both ends, the paths through the first and the second router are marked so.
    fn wait_marked(&self, marked: [bool; 2]) -> Result<()> {
        let ends: [(&dyn Speaker, &str); 2] = [(&self.near, FAR), (&self.far, NEAR)];
        for (speaker, prefix) in ends {
            wait_until(PATIENCE, "the marks", || {
                let paths = speaker.paths(prefix)?;
                for (host, marked) in self.hosts.iter().zip(marked) {
                    let through = Some(host.v4().to_string());
                    let path = paths.iter().find(|path| path.next_hop == through);
                    let path = path.with_context(|| format!("none through {host:?}: {paths:?}"))?;
                    ensure!(is_marked(path) == marked, "{path:?}");
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Waits until both ends' kernels send through exactly these routers.
    fn wait_through(&self, routers: &[usize]) -> Result<()> {
        let gateways: Vec<String> =
            routers.iter().map(|at| self.hosts[*at].v4().to_string()).collect();
        kernel::wait_gateways(&self.far_host, NEAR, &gateways)?;
        wait_until(PATIENCE, "FRR's kernel routes", || {
            let shown = self.near_host.run("ip", &["route", "show", FAR])?;
            for (at, host) in self.hosts.iter().enumerate() {
                let is_used = shown.contains(&format!("via {} ", host.v4()));
                ensure!(is_used == routers.contains(&at), "{shown}");
            }
            Ok(())
        })
    }
}

/// A router that is drained and then stopped loses no packet of a ping every 5 ms and does not
/// stall a TCP stream, in both directions: first with `drain --wait` and `stop --shutdown`, then
/// with `stop --drain`.
#[test]
#[ignore = "needs root, FRR and python3"]
fn a_drained_router_is_stopped_without_loss() -> Result<()> {
    lab::run_margay("drain-router", &[Kind::Frr], &["python3"], |lab| {
        let mut diamond = Diamond::start(lab)?;
        diamond.wait_marked([false, false])?;
        let mut stream =
            Stream::between((&diamond.near_host, NEAR_ADDRESS), (&diamond.far_host, FAR_ADDRESS))?;
        let ping = Ping::start(&diamond.near_host, NEAR_ADDRESS, FAR_ADDRESS)?;
        let control = diamond.routers[0].control().clone();
        let drained = control.json(&["drain", "--wait", "--timeout", "40s", "--reason", "fan"])?;
        ensure!(drained["told"] == 3 && drained["all"]["reason"] == "fan", "{drained}");
        diamond.wait_marked([true, false])?;
        diamond.wait_through(&[1])?;
        // A drained router withdraws what another one announces too.
        wait_paths(&diamond.near, SHARED, 1)?;
        stream.expect_flow(Duration::from_secs(1))?;
        control.text(&["stop", "--shutdown"])?;
        diamond.routers[0].daemon().wait(PATIENCE)?;
        diamond.wait_paths(1)?;
        stream.expect_flow(Duration::from_secs(1))?;
        // It restarts drained, and is used again when the drain ends.
        diamond.routers[0].restart()?;
        wait_paths(&diamond.near, FAR, 2)?;
        wait_paths(&diamond.far, NEAR, 2)?;
        diamond.wait_marked([true, false])?;
        diamond.wait_through(&[1])?;
        diamond.routers[0].control().text(&["undrain"])?;
        diamond.wait_marked([false, false])?;
        diamond.wait_paths(2)?;
        diamond.wait_through_any(&[0])?;
        let control = diamond.routers[1].control().clone();
        control.text(&["stop", "--drain", "--timeout", "40s"])?;
        diamond.routers[1].daemon().wait(PATIENCE)?;
        diamond.wait_paths(1)?;
        diamond.wait_through(&[0])?;
        stream.expect_flow(Duration::from_secs(1))?;
        let (sent, lost) = ping.finish()?;
        // The last one may be in flight.
        ensure!(lost <= 1, "{lost} of {sent} packets are lost");
        // The drain of `stop --drain` ends with the run.
        diamond.routers[1].restart()?;
        diamond.wait_paths(2)?;
        diamond.wait_marked([false, false])?;
        println!("two routers drained and taken away: {lost} of {sent} packets lost");
        Ok(())
    })
}

impl Diamond {
    /// Waits until both ends' kernels send through at least these routers.
    fn wait_through_any(&self, routers: &[usize]) -> Result<()> {
        for (end, prefix) in [(&self.far_host, NEAR), (&self.near_host, FAR)] {
            wait_until(PATIENCE, "routes through the router that is back", || {
                let shown = end.run("ip", &["route", "show", prefix])?;
                for at in routers {
                    ensure!(shown.contains(&format!("via {} ", self.hosts[*at].v4())), "{shown}");
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Two reflectors with two clients: what the drained one reflects has LOCAL_PREF 0, and its
/// shutdown changes no kernel route.
#[test]
#[ignore = "needs root and python3"]
fn a_drained_reflector_is_stopped_without_loss() -> Result<()> {
    lab::run_margay("drain-reflector", &[], &["python3"], |lab| {
        let hosts = [lab.host("near")?, lab.host("far")?, lab.host("r1")?, lab.host("r2")?];
        let [near, far, r1, r2] = &hosts;
        near.shell(&format!("ip addr add {NEAR_ADDRESS}/32 dev lo"))?;
        far.shell(&format!("ip addr add {FAR_ADDRESS}/32 dev lo"))?;
        let mut reflectors = Vec::new();
        for host in [r1, r2] {
            let mut own = config(host, SUBJECT_AS, &[(near, SUBJECT_AS), (far, SUBJECT_AS)], &[]);
            own.neighbors.iter_mut().for_each(|n| n.reflector_client = true);
            reflectors.push(Margay::start(host, &own)?);
        }
        let both = [(r1, SUBJECT_AS), (r2, SUBJECT_AS)];
        let near_margay = Margay::start(near, &config(near, SUBJECT_AS, &both, &[NEAR]))?;
        let far_margay = Margay::start(far, &config(far, SUBJECT_AS, &both, &[FAR]))?;
        wait_paths(&near_margay, FAR, 2)?;
        wait_paths(&far_margay, NEAR, 2)?;
        kernel::wait_gateways(near, FAR, &[far.v4().to_string()])?;
        kernel::wait_gateways(far, NEAR, &[near.v4().to_string()])?;
        let mut stream = Stream::between((near, NEAR_ADDRESS), (far, FAR_ADDRESS))?;
        let ping = Ping::start(near, NEAR_ADDRESS, FAR_ADDRESS)?;
        let monitor = kernel::RouteMonitor::start(near)?;
        let control = reflectors[0].control().clone();
        control.text(&["drain", "--wait", "--timeout", "20s"])?;
        wait_until(PATIENCE, "LOCAL_PREF 0 from the drained reflector", || {
            let paths = near_margay.control().paths(FAR)?;
            let of = |host: &Host| {
                let name = host.v4().to_string();
                let path = paths
                    .iter()
                    .find(|p| p["peer"].as_str().is_some_and(|peer| peer.contains(&name)));
                path.cloned().with_context(|| format!("no path of {name}: {paths:?}"))
            };
            ensure!(of(r1)?["local_pref"] == 0 && of(r1)?["best"] == false, "{paths:?}");
            ensure!(of(r2)?["local_pref"] == 100 && of(r2)?["best"] == true, "{paths:?}");
            Ok(())
        })?;
        control.text(&["stop", "--shutdown"])?;
        reflectors[0].daemon().wait(PATIENCE)?;
        wait_paths(&near_margay, FAR, 1)?;
        wait_paths(&far_margay, NEAR, 1)?;
        stream.expect_flow(Duration::from_secs(1))?;
        let (sent, lost) = ping.finish()?;
        ensure!(lost <= 1, "{lost} of {sent} packets are lost");
        let changes = monitor.changes()?;
        ensure!(!changes.contains("Deleted 198.51.100.0/24"), "{changes}");
        println!("a reflector drained and taken away: {lost} of {sent} packets lost");
        Ok(())
    })
}

fn margay(host: &Host, control: &margay::Control, args: &[&str]) -> Result<Output> {
    let socket = control.socket().to_string_lossy().into_owned();
    margay::run_to_end(host, &[args, &["--socket", &socket]].concat())
}

/// The error of a command that must fail with exit code 1.
fn refused(host: &Host, control: &margay::Control, args: &[&str]) -> Result<String> {
    let output = margay(host, control, args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{args:?}: {:?} {said}", output.status);
    Ok(said)
}

/// Commands that do not apply change nothing; a drain is shown, and kept over reloads and restarts.
#[test]
#[ignore = "needs root and FRR"]
fn a_drain_is_shown_kept_and_ended_once() -> Result<()> {
    lab::run_margay("drain-orders", &[Kind::Frr], &[], |lab| {
        let (host, frr_host) = (lab.host("a")?, lab.host("b")?);
        let mut own = config(&host, SUBJECT_AS, &[(&frr_host, PEER_AS)], &[FAR]);
        let mut margay_ = Margay::start(&host, &own)?;
        let frr =
            Frr::start(&frr_host, &config(&frr_host, PEER_AS, &[(&host, SUBJECT_AS)], &[NEAR]))?;
        wait_paths(&frr, FAR, 1)?;
        let wait_marked = |marked: bool| {
            wait_until(PATIENCE, "the mark", || {
                let paths = frr.paths(FAR)?;
                ensure!(paths.iter().any(|path| is_marked(path) == marked), "{paths:?}");
                Ok(())
            })
        };
        let (control, peer) = (margay_.control().clone(), frr_host.v4().to_string());
        let refused = |args: &[&str]| refused(&host, &control, args);
        ensure!(refused(&["undrain"])?.contains("no peer is drained"));
        ensure!(refused(&["drain", "nobody"])?.contains("there is no peer \"nobody\""));
        ensure!(refused(&["undrain", &peer])?.contains("is not drained"));
        wait_marked(false)?;
        control.text(&["drain", &peer])?;
        wait_marked(true)?;
        ensure!(refused(&["drain", &peer])?.contains("is drained already"));
        let paths = control.paths(NEAR)?;
        ensure!(paths[0]["local_pref"] == 0, "its own routes are still preferred: {paths:?}");
        control.text(&["undrain", &peer])?;
        wait_marked(false)?;
        control.text(&["drain", "--reason", "bad fan"])?;
        wait_marked(true)?;
        ensure!(refused(&["drain"])?.contains("every peer is drained already"));
        ensure!(refused(&["undrain", &peer])?.contains("but with every peer"));
        let status = control.json(&["show", "status"])?;
        ensure!(status["drained"]["reason"] == "bad fan", "{status}");
        ensure!(status["peers_drained"] == 1, "{status}");
        for what in [&["show", "status"][..], &["show", "peer", &peer], &["show", "drain"]] {
            ensure!(control.text(what)?.contains("bad fan"), "{what:?}");
        }
        ensure!(control.text(&["show", "peers"])?.contains("Established (drained)"));
        // No other path is announced and nothing is forwarded: there is nothing to move.
        let waited = control.json(&["show", "drain"])?;
        ensure!(waited["told"] == 1 && waited["moved"] == 0, "{waited}");
        own.neighbors[0].add_path = true;
        margay_.reconfigure(&own)?;
        wait_established(&margay_, frr_host.v4())?;
        wait_marked(true)?;
        margay_.daemon().crash()?;
        margay_.restart()?;
        wait_established(&margay_, frr_host.v4())?;
        wait_marked(true)?;
        margay_.daemon().crash()?;
        std::fs::write(host.file("margay.drained"), "{")?;
        margay_.restart()?;
        wait_established(&margay_, frr_host.v4())?;
        wait_marked(false)?;
        let status = margay_.control().text(&["show", "status"])?;
        ensure!(status.contains("margay.drained, which names the neighbours"), "{status}");
        margay_.control().text(&["drain"])?;
        wait_marked(true)?;
        // A shutdown takes another second after neighbours were notified.
        let stopping = margay_.control().clone();
        let stop = std::thread::spawn(move || stopping.text(&["stop", "--shutdown"]));
        wait_until(PATIENCE, "a command to be refused by the stopping daemon", || {
            let said = refused(&["drain"])?;
            ensure!(said.contains("the daemon is stopping"), "{said}");
            Ok(())
        })?;
        stop.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?.map(drop)
    })
}
