//! Starting, stopping, reloading and crashing: what neighbours and the kernel see of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Margay};
use interop::matrix::{Case, PEER_AS, SUBJECT_AS, neighbor};
use interop::speaker::{Config, Kind, Origin, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, holds_for, wait_until};

const PEER_ROUTE: &str = "198.51.100.0/24";
const OWN_ROUTE: &str = "192.0.2.0/24";

/// Runs a test with margay as the subject and BIRD 2 as its neighbour.
fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &[], test)
}

/// margay and BIRD with graceful restart on both sides, and their routes exchanged.
fn graceful_pair(lab: &mut Lab) -> Result<(Host, Margay, Host, Bird2)> {
    let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
    let case = Case::ebgp(Kind::Bird2).graceful_restart().hold_time(30);
    let (config, bird_config) = case.configs(&host, &bird_host);
    let margay = Margay::start(&host, &config)?;
    let bird = Bird2::start(&bird_host, &bird_config)?;
    wait_paths(&margay, PEER_ROUTE, 1)?;
    wait_paths(&bird, OWN_ROUTE, 1)?;
    kernel::wait_gateways(&host, PEER_ROUTE, &[bird_host.v4().to_string()])?;
    Ok((host, margay, bird_host, bird))
}

/// SIGTERM: exit 0, no NOTIFICATION, the neighbour retains our routes, and the kernel keeps its
/// own; after the next start everything is adopted without a gap.
#[test]
#[ignore = "needs root and BIRD 2"]
fn sigterm_is_a_graceful_stop() -> Result<()> {
    run("life-sigterm", |lab| {
        let (host, mut margay, bird_host, bird) = graceful_pair(lab)?;
        let monitor = RouteMonitor::start(&host)?;
        margay.daemon().signal("TERM")?;
        let status = margay.daemon().wait(Duration::from_secs(10))?;
        ensure!(status.code() == Some(0), "margay ended with {status}");
        wait_until(PATIENCE, "BIRD to help", || {
            let session = bird.session(host.v4())?;
            ensure!(session.contains("graceful restart active"), "{session}");
            Ok(())
        })?;
        ensure!(bird.paths(OWN_ROUTE)?.len() == 1, "BIRD dropped our route");
        ensure!(kernel::route(&host, PEER_ROUTE)?.is_some(), "the kernel's route is gone");
        margay.restart()?;
        wait_established(&margay, bird_host.v4())?;
        wait_paths(&margay, PEER_ROUTE, 1)?;
        wait_until(PATIENCE, "BIRD's help to end", || {
            let session = bird.session(host.v4())?;
            ensure!(!session.contains("graceful restart active"), "{session}");
            Ok(())
        })?;
        ensure!(bird.paths(OWN_ROUTE)?.len() == 1, "BIRD dropped our route in the end");
        holds_for(Duration::from_secs(2), "the kernel's route", || {
            ensure!(kernel::route(&host, PEER_ROUTE)?.is_some(), "gone");
            Ok(())
        })?;
        let changes = monitor.changes()?;
        ensure!(!changes.contains(&format!("Deleted {PEER_ROUTE}")), "{changes}");
        Ok(())
    })
}

/// `stop --graceful` is the same as SIGTERM.
#[test]
#[ignore = "needs root and BIRD 2"]
fn stop_graceful_keeps_routes() -> Result<()> {
    run("life-graceful", |lab| {
        let (host, mut margay, _, bird) = graceful_pair(lab)?;
        margay.control().text(&["stop", "--graceful"])?;
        let status = margay.daemon().wait(Duration::from_secs(10))?;
        ensure!(status.code() == Some(0), "margay ended with {status}");
        let session = bird.session(host.v4())?;
        ensure!(session.contains("graceful restart active"), "{session}");
        ensure!(bird.paths(OWN_ROUTE)?.len() == 1, "BIRD dropped our route");
        ensure!(kernel::route(&host, PEER_ROUTE)?.is_some(), "the kernel's route is gone");
        Ok(())
    })
}

/// `stop --shutdown`: Cease 6/2, routes gone at the neighbour and in the kernel.
#[test]
#[ignore = "needs root and BIRD 2"]
fn stop_shutdown_removes_routes() -> Result<()> {
    run("life-shutdown", |lab| {
        let (host, mut margay, _, bird) = graceful_pair(lab)?;
        ensure!(kernel::route(&host, OWN_ROUTE)?.is_some(), "no blackhole for {OWN_ROUTE}");
        margay.control().text(&["stop", "--shutdown"])?;
        let status = margay.daemon().wait(Duration::from_secs(10))?;
        ensure!(status.code() == Some(0), "margay ended with {status}");
        bird.expect_last_error(host.v4(), "Received: Administrative shutdown")?;
        wait_paths(&bird, OWN_ROUTE, 0)?;
        for prefix in [PEER_ROUTE, OWN_ROUTE] {
            ensure!(kernel::route(&host, prefix)?.is_none(), "{prefix} is still in the kernel");
        }
        Ok(())
    })
}

/// After SIGKILL the kernel's routes stay. The next start adopts those that the neighbour still
/// announces without touching them, and removes the others.
#[test]
#[ignore = "needs root and BIRD 2"]
fn kernel_routes_are_adopted_after_a_crash() -> Result<()> {
    const GONE: &str = "203.0.113.0/25";
    run("life-crash", |lab| {
        let (host, mut margay, bird_host, mut bird) = graceful_pair(lab)?;
        bird.announce(&Origin::plain(GONE))?;
        kernel::wait_gateways(&host, GONE, &[bird_host.v4().to_string()])?;
        margay.daemon().crash()?;
        ensure!(kernel::route(&host, PEER_ROUTE)?.is_some(), "a crash must not remove routes");
        bird.withdraw(GONE)?;
        let monitor = RouteMonitor::start(&host)?;
        margay.restart()?;
        wait_paths(&margay, PEER_ROUTE, 1)?;
        kernel::wait_gone(&host, GONE)?;
        let changes = monitor.changes()?;
        ensure!(!changes.contains(PEER_ROUTE), "{PEER_ROUTE} was touched: {changes}");
        ensure!(!changes.contains(OWN_ROUTE), "{OWN_ROUTE} was touched: {changes}");
        ensure!(kernel::route(&host, PEER_ROUTE)?.is_some(), "{PEER_ROUTE} was lost");
        Ok(())
    })
}

/// A reflector crashes. One client reconnects before the other: it must not lose the other's routes
/// by an End-of-RIB that is sent before the reflector has received them again (RFC 4724 §4.1).
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_restarted_reflector_waits_for_its_clients() -> Result<()> {
    const FAR_ROUTE: &str = "198.51.101.0/24";
    run("life-reflector", |lab| {
        let (host, near_host, far_host) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let client = |of: &Host| {
            let mut n = neighbor(of.v4(), host.v4(), SUBJECT_AS);
            (n.reflector_client, n.graceful_restart, n.hold_time) = (true, true, 30);
            n
        };
        let config = Config {
            asn: SUBJECT_AS,
            router_id: host.router_id(),
            port: 1790,
            neighbors: vec![client(&near_host), client(&far_host)],
            origins: Vec::new(),
        };
        let bird = |of: &Host, route: &str| {
            let mut n = neighbor(host.v4(), of.v4(), SUBJECT_AS);
            (n.graceful_restart, n.hold_time) = (true, 30);
            let config = Config {
                asn: SUBJECT_AS,
                router_id: of.router_id(),
                port: 1790,
                neighbors: vec![n],
                origins: vec![Origin::plain(route)],
            };
            Bird2::start(of, &config)
        };
        let near = bird(&near_host, PEER_ROUTE)?;
        let far = bird(&far_host, FAR_ROUTE)?;
        let mut margay = Margay::start(&host, &config)?;
        wait_paths(&near, FAR_ROUTE, 1)?;
        wait_paths(&far, PEER_ROUTE, 1)?;
        kernel::wait_gateways(&near_host, FAR_ROUTE, &[far_host.v4().to_string()])?;
        let monitor = RouteMonitor::start(&near_host)?;
        margay.daemon().crash()?;
        lab.cut(&far_host)?;
        margay.restart()?;
        wait_established(&margay, near_host.v4())?;
        holds_for(Duration::from_secs(2), "the far client's route", || {
            ensure!(near.paths(FAR_ROUTE)?.len() == 1, "dropped before the far client was back");
            Ok(())
        })?;
        lab.mend(&far_host)?;
        wait_established(&margay, far_host.v4())?;
        for bird in [&near, &far] {
            wait_until(PATIENCE, "the clients' help to end", || {
                let session = bird.session(host.v4())?;
                ensure!(!session.contains("graceful restart active"), "{session}");
                Ok(())
            })?;
        }
        ensure!(near.paths(FAR_ROUTE)?.len() == 1, "the route was dropped in the end");
        ensure!(far.paths(PEER_ROUTE)?.len() == 1, "the other way: dropped in the end");
        let changes = monitor.changes()?;
        ensure!(!changes.contains(&format!("Deleted {FAR_ROUTE}")), "{changes}");
        Ok(())
    })
}

/// A kernel route of another owner, with another protocol number, is never touched.
#[test]
#[ignore = "needs root and BIRD 2"]
fn foreign_kernel_routes_are_left_alone() -> Result<()> {
    run("life-foreign", |lab| {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        host.run("ip", &["route", "add", "blackhole", PEER_ROUTE, "proto", "static"])?;
        let (config, bird_config) = Case::ebgp(Kind::Bird2).configs(&host, &bird_host);
        let mut margay = Margay::start(&host, &config)?;
        let _bird = Bird2::start(&bird_host, &bird_config)?;
        wait_paths(&margay, PEER_ROUTE, 1)?;
        let foreign = || -> Result<()> {
            let text = host.run("ip", &["route", "show", PEER_ROUTE, "proto", "static"])?;
            ensure!(text.starts_with("blackhole"), "now {text:?}");
            Ok(())
        };
        holds_for(Duration::from_secs(2), "the foreign route", foreign)?;
        margay.control().text(&["stop", "--shutdown"])?;
        margay.daemon().wait(Duration::from_secs(10))?;
        foreign()
    })
}

/// Two neighbours; a change to one of them restarts that session only.
#[test]
#[ignore = "needs root and BIRD 2"]
fn reload_restarts_only_what_changed() -> Result<()> {
    run("life-reload", |lab| {
        let host = lab.host("a")?;
        let birds = [lab.host("b")?, lab.host("c")?];
        let mut config = Config {
            asn: SUBJECT_AS,
            router_id: host.router_id(),
            port: 1790,
            neighbors: birds.iter().map(|b| neighbor(b.v4(), host.v4(), PEER_AS)).collect(),
            origins: vec![Origin::plain(OWN_ROUTE)],
        };
        let mut margay = Margay::start(&host, &config)?;
        let mut running = Vec::new();
        for bird in &birds {
            let bird_config = Config {
                asn: PEER_AS,
                router_id: bird.router_id(),
                port: 1790,
                neighbors: vec![neighbor(host.v4(), bird.v4(), SUBJECT_AS)],
                origins: Vec::new(),
            };
            running.push(Bird2::start(bird, &bird_config)?);
        }
        for (bird, running) in birds.iter().zip(&running) {
            wait_established(&margay, bird.v4())?;
            wait_paths(running, OWN_ROUTE, 1)?;
        }
        // Counted by the neighbours: "since" is in whole seconds, and a session can return sooner.
        let sessions = |running: &[Bird2]| -> Result<[usize; 2]> {
            Ok([running[0].sessions(host.v4())?, running[1].sessions(host.v4())?])
        };
        ensure!(sessions(&running)? == [1, 1], "{:?}", sessions(&running)?);

        // A timer belongs to the OPEN: the next session has it.
        config.neighbors[0].hold_time = 6;
        let said = margay.reconfigure(&config)?;
        ensure!(said.contains("timers changed, session stays"), "{said}");
        holds_for(Duration::from_secs(1), "both sessions", || {
            ensure!(sessions(&running)? == [1, 1], "{:?}", sessions(&running)?);
            let peer = margay.control().peer(birds[0].v4())?;
            ensure!(peer["state"] == "Established" && peer["hold_time"] != 6, "{peer}");
            Ok(())
        })?;

        config.neighbors[0].add_path = true;
        margay.reconfigure(&config)?;
        wait_until(PATIENCE, "the changed session to return", || {
            let peer = margay.control().peer(birds[0].v4())?;
            ensure!(peer["state"] == "Established" && peer["hold_time"] == 6, "{peer}");
            ensure!(sessions(&running)? == [2, 1], "{:?}", sessions(&running)?);
            Ok(())
        })?;

        // One more route, and SIGHUP instead of the command: no session is affected.
        config.origins.push(Origin::plain("192.0.2.128/25"));
        host.write("margay.toml", &margay::render(&host, &config))?;
        margay.daemon().signal("HUP")?;
        for bird in &running {
            wait_paths(bird, "192.0.2.128/25", 1)?;
        }
        ensure!(sessions(&running)? == [2, 1], "{:?}", sessions(&running)?);

        // An invalid file changes nothing, and the error names it.
        host.write("margay.toml", "[bgp]\nasn = \"none\"\n")?;
        let error = margay.control().text(&["reload"]).err().context("the file was accepted")?;
        ensure!(error.to_string().contains("margay.toml:2"), "{error:#}");
        ensure!(sessions(&running)? == [2, 1], "{:?}", sessions(&running)?);
        ensure!(margay.daemon().exited()?.is_none(), "margay has exited");

        // A neighbour that is removed receives Cease 6/3.
        config.neighbors.remove(0);
        margay.reconfigure(&config)?;
        wait_until(PATIENCE, "the removed session to end", || {
            running[0].expect_last_error(host.v4(), "Received: Peer de-configured")
        })?;
        wait_paths(&running[0], OWN_ROUTE, 0)?;
        ensure!(sessions(&running)?[1] == 1, "the other session was disturbed");
        Ok(())
    })
}

/// Another process has the port: exit 1 and one line that says so.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_taken_port_is_one_line_and_exit_1() -> Result<()> {
    run("life-port", |lab| {
        let host = lab.host("a")?;
        let text = |suffix: &str| {
            format!(
                "[bgp]\nasn = 64512\nrouter-id = \"10.99.0.1\"\nlisten = [\"10.99.0.1:1790\"]\n\n\
                 [control]\nsocket = \"{}\"\n",
                host.file(suffix).display()
            )
        };
        let (_first, _control) = margay::start_text(&host, &text("margay.sock"))?;
        let second = host.write("second.toml", &text("second.sock"))?;
        let output = margay::run_to_end(&host, &["run", "--config", &second.to_string_lossy()])?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{}: {error}", output.status);
        ensure!(error.contains("10.99.0.1:1790"), "{error}");
        let mentions = error.lines().filter(|l| l.contains("1790")).count();
        ensure!(mentions == 1 && !error.contains("panicked"), "{error}");
        Ok(())
    })
}

/// Fewer descriptors than the configured peers need: exit 1 and one line that says how many.
#[test]
#[ignore = "needs root and BIRD 2"]
fn too_few_descriptors_are_one_line_and_exit_1() -> Result<()> {
    run("life-files", |lab| {
        let host = lab.host("a")?;
        let text = format!(
            "[bgp]\nasn = 64512\nrouter-id = \"10.99.0.1\"\nlisten = [\"10.99.0.1:1790\"]\n\n\
             [[bgp.peers]]\naddress = \"10.99.0.2\"\nremote-asn = 64512\n\n{}",
            margay::control_section(&host)
        );
        let config = host.write("margay.toml", &text)?.to_string_lossy().into_owned();
        let program = margay::binary()?.to_string_lossy().into_owned();
        // The hard limit too: the soft one is raised to it.
        let limited: [&str; 7] =
            ["10", "prlimit", "--nofile=100:100", &program, "run", "--config", &config];
        let output = host.command("timeout").args(limited).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{}: {error}", output.status);
        let mentions = error.lines().filter(|l| l.contains("file descriptors")).count();
        ensure!(mentions == 1 && error.contains("the limit is 100"), "{error}");
        Ok(())
    })
}

/// Without a capability that the configuration needs: exit 1 and one line that names it.
#[test]
#[ignore = "needs root and BIRD 2"]
fn missing_privileges_are_one_line_and_exit_1() -> Result<()> {
    run("life-privileges", |lab| {
        let host = lab.host("a")?;
        let program = margay::binary()?.to_string_lossy().into_owned();
        for (without, port, fib, named) in [
            ("-net_admin", 1790, true, "CAP_NET_ADMIN"),
            ("-net_admin,-net_bind_service", 179, false, "CAP_NET_BIND_SERVICE"),
        ] {
            let text = format!(
                "[bgp]\nasn = 64512\nrouter-id = \"10.99.0.1\"\nlisten = [\"10.99.0.1:{port}\"]\n\n\
                 [fib]\nenabled = {fib}\n\n{}",
                margay::control_section(&host)
            );
            let config = host.write("margay.toml", &text)?.to_string_lossy().into_owned();
            let bounding = format!("--bounding-set={without}");
            let limited: [&str; 8] = [
                "10",
                "setpriv",
                &bounding,
                "--inh-caps=-all",
                &program,
                "run",
                "--config",
                &config,
            ];
            let output = host.command("timeout").args(limited).output()?;
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(1), "{}: {error}", output.status);
            let mentions = error.lines().filter(|l| l.contains(named)).count();
            ensure!(mentions == 1 && !error.contains("panicked"), "{error}");
        }
        Ok(())
    })
}

/// A configuration that does not validate: exit 2, and a line with file, line number and key.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_bad_configuration_is_exit_2_with_its_place() -> Result<()> {
    run("life-bad", |lab| {
        let host = lab.host("a")?;
        let text = "[bgp]\nasn = 64512\nrouter-id = \"10.99.0.1\"\n\n[[bgp.peers]]\n\
                    address = \"10.99.0.2\"\nremote-asn = 64513\nhold-time = 2\nimport = \"all\"\nexport = \"all\"\n";
        let path = host.write("bad.toml", text)?.to_string_lossy().into_owned();
        for command in ["run", "check"] {
            let output = margay::run_to_end(&host, &[command, "--config", &path])?;
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(2), "{command}: {}: {error}", output.status);
            ensure!(error.contains("bad.toml:8") && error.contains("hold-time"), "{error}");
        }
        let good = host.write("good.toml", &text.replace("hold-time = 2", "hold-time = 3"))?;
        let output = margay::run_to_end(&host, &["check", "--config", &good.to_string_lossy()])?;
        ensure!(output.status.code() == Some(0), "{output:?}");
        Ok(())
    })
}
