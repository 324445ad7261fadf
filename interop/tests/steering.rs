//! `margay peer`: what operators do with single sessions, as BIRD 2 sees it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use interop::bird2::Bird2;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Margay};
use interop::matrix::{Case, PEER_AS, SUBJECT_AS};
use interop::speaker::{Config, Kind, Neighbor, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, holds_for, wait_until};

const PEER_ROUTE: &str = "198.51.100.0/24";
const OWN_ROUTE: &str = "192.0.2.0/24";

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &[], test)
}

/// margay and BIRD 2, and their routes exchanged.
struct Pair {
    host: Host,
    bird_host: Host,
    margay: Margay,
    bird: Bird2,
    config: Config,
}

impl Pair {
    fn start(lab: &mut Lab, case: &Case) -> Result<Pair> {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let (config, bird_config) = case.configs(&host, &bird_host);
        let margay = Margay::start(&host, &config)?;
        let bird = Bird2::start(&bird_host, &bird_config)?;
        let pair = Pair { host, bird_host, margay, bird, config };
        pair.wait_exchanged()?;
        Ok(pair)
    }

    fn wait_exchanged(&self) -> Result<()> {
        wait_established(&self.margay, self.bird_host.v4())?;
        wait_paths(&self.margay, PEER_ROUTE, 1)?;
        wait_paths(&self.bird, OWN_ROUTE, 1).map(drop)
    }

    /// `margay peer ORDER BIRD MORE`, which must succeed.
    fn steer(&self, order: &str, more: &[&str]) -> Result<String> {
        let address = self.bird_host.v4().to_string();
        self.margay.control().text(&[&["peer", order, &address], more].concat())
    }

    /// The same, which must fail; returns the error.
    fn refused(&self, order: &str, more: &[&str]) -> Result<String> {
        match self.steer(order, more) {
            Ok(answer) => bail!("peer {order} {more:?} was not refused: {answer}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// Whether BIRD received a NOTIFICATION that it logs with this text.
    fn was_told(&self, text: &str) -> bool {
        self.bird.log().lines().any(|line| line.contains("Received: ") && line.contains(text))
    }

    fn peer(&self) -> Result<serde_json::Value> {
        self.margay.control().peer(self.bird_host.v4())
    }

    /// Idle, shown as stopped, and staying so.
    fn ensure_stopped(&self) -> Result<()> {
        let is_stopped = || -> Result<()> {
            let peer = self.peer()?;
            ensure!(peer["state"] == "Idle" && !peer["shutdown"].is_null(), "{peer}");
            ensure!(self.bird.state(self.host.v4())? != "Established", "BIRD has a session");
            Ok(())
        };
        wait_until(PATIENCE, "the session to end", is_stopped)?;
        // The retry timers of both sides are 1 s.
        holds_for(Duration::from_secs(3), "the session to stay down", is_stopped)
    }
}

fn case() -> Case {
    Case::ebgp(Kind::Bird2).hold_time(30)
}

/// The neighbour receives the reason; neither a reload nor the neighbour's attempts restore the
/// session.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_stopped_peer_stays_stopped_until_it_is_started() -> Result<()> {
    run("steer-stop", |lab| {
        let mut pair = Pair::start(lab, &case())?;
        let rehearsed = pair.steer("stop", &["--dry-run"])?;
        ensure!(rehearsed.contains("dry run: Cease 6/2: 1 route from it"), "{rehearsed}");
        ensure!(pair.peer()?["state"] == "Established", "the dry run stopped it");
        pair.steer("stop", &["--message", "moving rack 7"])?;
        pair.ensure_stopped()?;
        wait_paths(&pair.bird, OWN_ROUTE, 0)?;
        ensure!(pair.was_told("Administrative shutdown"), "{}", pair.bird.log());
        ensure!(pair.was_told("moving rack 7"), "{}", pair.bird.log());
        let shown =
            pair.margay.control().text(&["show", "peer", &pair.bird_host.v4().to_string()])?;
        ensure!(shown.contains("moving rack 7"), "{shown}");
        let again = pair.refused("stop", &[])?;
        ensure!(again.contains("nothing was done") && again.contains("is shut down"), "{again}");
        for order in ["reset", "refresh", "retry"] {
            let refused = pair.refused(order, &[])?;
            ensure!(refused.contains("start it first"), "{order}: {refused}");
        }
        // Another capability creates another session, and another task.
        let mut config = pair.config.clone();
        config.neighbors.iter_mut().for_each(|n: &mut Neighbor| n.add_path = true);
        pair.margay.reconfigure(&config)?;
        pair.ensure_stopped()?;
        pair.steer("start", &[])?;
        pair.wait_exchanged()?;
        ensure!(pair.peer()?["shutdown"].is_null(), "{}", pair.peer()?);
        let refused = pair.refused("start", &[])?;
        ensure!(refused.contains("it is not shut down"), "{refused}");
        Ok(())
    })
}

/// Commands for peers do not wait for a reload: one that replaces the session at that moment loses no stop
/// and no start.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_stop_during_a_reload_is_not_lost() -> Result<()> {
    run("steer-race", |lab| {
        let mut pair = Pair::start(lab, &case())?;
        for round in 0..12 {
            let mut config = pair.config.clone();
            config.neighbors.iter_mut().for_each(|n: &mut Neighbor| n.add_path = round % 2 == 0);
            let order = if round % 2 == 0 { "stop" } else { "start" };
            std::thread::scope(|scope| -> Result<()> {
                let control = pair.margay.control().clone();
                let address = pair.bird_host.v4().to_string();
                // While a session is replaced there is no such peer, and the command is refused.
                let steered = scope.spawn(move || {
                    wait_until(PATIENCE, "the peer to be there", || {
                        control.text(&["peer", order, &address])
                    })
                });
                pair.margay.reconfigure(&config)?;
                steered.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?.map(drop)
            })?;
            let is_stopped = order == "stop";
            wait_until(PATIENCE, "what the command asked for", || {
                let peer = pair.peer()?;
                let is_idle = peer["state"] == "Idle";
                ensure!(
                    is_idle == is_stopped && peer["shutdown"].is_null() != is_stopped,
                    "{peer}"
                );
                Ok(())
            })?;
        }
        wait_established(&pair.margay, pair.bird_host.v4())
    })
}

/// `--keep` retains a stop over restarts of margay; without it a restart starts every peer.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_stop_is_kept_over_a_restart_where_asked() -> Result<()> {
    run("steer-keep", |lab| {
        let mut pair = Pair::start(lab, &case())?;
        pair.steer("stop", &["--keep", "--message", "bad optics"])?;
        pair.ensure_stopped()?;
        restart(&mut pair.margay)?;
        pair.ensure_stopped()?;
        ensure!(pair.peer()?["shutdown"]["message"] == "bad optics", "{}", pair.peer()?);
        pair.steer("start", &[])?;
        pair.wait_exchanged()?;
        restart(&mut pair.margay)?;
        pair.wait_exchanged()?;
        pair.steer("stop", &[])?;
        pair.ensure_stopped()?;
        restart(&mut pair.margay)?;
        pair.wait_exchanged()
    })
}

/// How long the kernel was without BIRD's route, in seconds, by the lines of `ip -ts monitor`.
fn longest_gap(changes: &str) -> Result<f64> {
    let (mut gone, mut longest) = (None, 0.0_f64);
    for line in changes.lines().filter(|line| line.contains(PEER_ROUTE)) {
        let stamp = line.trim_start_matches('[').split(']').next().unwrap_or_default();
        let second: f64 =
            stamp.rsplit(':').next().unwrap_or_default().parse().context(stamp.to_owned())?;
        if line.contains("Deleted") {
            gone = Some(second);
        } else if let Some(since) = gone.take() {
            longest = longest.max((second - since).rem_euclid(60.0));
        }
    }
    ensure!(gone.is_none(), "the kernel has lost the route: {changes}");
    Ok(longest)
}

fn restart(margay: &mut Margay) -> Result<()> {
    margay.daemon().signal("TERM")?;
    margay.daemon().wait(Duration::from_secs(10))?;
    margay.restart()
}

/// A reset removes routes on both sides; a graceful one on neither.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_reset_keeps_routes_only_where_asked() -> Result<()> {
    run("steer-reset", |lab| {
        let pair = Pair::start(lab, &case().graceful_restart())?;
        let gateway = [pair.bird_host.v4().to_string()];
        kernel::wait_gateways(&pair.host, PEER_ROUTE, &gateway)?;
        let sessions = || pair.bird.sessions(pair.host.v4());
        let wait_other_session = |before: usize| -> Result<()> {
            wait_until(PATIENCE, "another session", || {
                ensure!(sessions()? > before, "no other session came");
                Ok(())
            })?;
            pair.wait_exchanged()
        };
        // For how long the kernel was without the peer's route.
        let reset = |how: &[&str]| -> Result<f64> {
            let (before, monitor) = (sessions()?, RouteMonitor::start(&pair.host)?);
            pair.steer("reset", how)?;
            wait_other_session(before)?;
            longest_gap(&monitor.changes()?)
        };
        // BIRD did not restart, so its OPEN preserves nothing (RFC 4724 §4.2, the F bit): what was
        // kept is replaced by what it announces, at once. Now and then BIRD announces 3 s later,
        // as it does to a neighbour that restarts.
        let mut gap = reset(&["--graceful"])?;
        for _ in 0..2 {
            if gap >= 0.5 {
                gap = reset(&["--graceful"])?;
            }
        }
        ensure!(gap < 0.5, "the kernel was without the route for {gap} s");
        ensure!(!pair.was_told("Administrative reset"), "{}", pair.bird.log());
        let gap = reset(&["--message", "new policy"])?;
        ensure!(pair.was_told("Administrative reset"), "{}", pair.bird.log());
        ensure!(gap > 0.5, "the kernel's route was kept over a hard reset");
        Ok(())
    })
}

/// Refreshes either direction without a new session.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_refresh_sends_routes_again() -> Result<()> {
    run("steer-refresh", |lab| {
        let pair = Pair::start(lab, &case())?;
        let since = pair.peer()?["since"].clone();
        let (ours, theirs) = (pair.host.v4(), pair.bird_host.v4());
        let counts = || -> Result<(u64, u64)> {
            let margay = pair.margay.control().peer(theirs)?;
            let updates = margay["messages"]["updates_received"].as_u64().context("no counter")?;
            Ok((updates, pair.bird.updates_received(ours)?))
        };
        let before = counts()?;
        pair.steer("refresh", &["--in"])?;
        wait_until(PATIENCE, "BIRD to send again", || {
            ensure!(counts()?.0 > before.0, "{:?}", counts()?);
            Ok(())
        })?;
        ensure!(counts()?.1 == before.1, "margay sent its routes as well");
        pair.steer("refresh", &["--out"])?;
        wait_until(PATIENCE, "margay to send again", || {
            ensure!(counts()?.1 > before.1, "{:?}", counts()?);
            Ok(())
        })?;
        ensure!(pair.peer()?["since"] == since, "the session is another one");
        Ok(())
    })
}

/// A command for named peers applies to all or none; a pattern skips peers that it cannot apply to.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_command_that_cannot_be_carried_out_changes_nothing() -> Result<()> {
    run("steer-refused", |lab| {
        let pair = Pair::start(lab, &case())?;
        let refused = pair.refused("stop", &["10.99.0.99"])?;
        ensure!(refused.contains("there is no peer \"10.99.0.99\""), "{refused}");
        ensure!(pair.peer()?["state"] == "Established", "half of the command was carried out");
        let refused = pair.refused("retry", &[])?;
        ensure!(refused.contains("it is established"), "{refused}");
        let refused = pair.refused("reset", &["--graceful"])?;
        ensure!(refused.contains("graceful restart was not negotiated"), "{refused}");
        let control = pair.margay.control();
        let all = control.text(&["peer", "retry", "--all"]);
        let text = format!("{:#}", all.expect_err("nobody could be dialled"));
        ensure!(text.contains("nothing was done to any of 1 peer"), "{text}");
        let items = control.json(&["peer", "refresh", "10.99.*", "--out", "--dry-run"])?;
        ensure!(items[0]["done"] == false && items[0]["skipped"].is_null(), "{items}");
        Ok(())
    })
}

/// A dynamic peer is removed when its session ends; a stopped one's connections are still refused.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_dynamic_peer_can_be_stopped() -> Result<()> {
    run("steer-dynamic", |lab| {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let (_, bird_config) = case().configs(&host, &bird_host);
        let text = format!(
            "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"{}:{}\"]\n\n\
             [[bgp.dynamic-peers]]\nname = \"rack\"\nprefix = \"10.99.0.0/24\"\nremote-asn = {PEER_AS}\n\
             import = \"all\"\nexport = \"all\"\n{}",
            host.v4(),
            host.v4(),
            bird_config.port,
            margay::control_section(&host)
        );
        let (_daemon, control) = margay::start_text(&host, &text)?;
        let bird = Bird2::start(&bird_host, &bird_config)?;
        let state = || -> Result<String> { bird.state(host.v4()) };
        let wait_up = || {
            wait_until(PATIENCE, "the session", || {
                ensure!(state()? == "Established", "{}", state()?);
                Ok(())
            })
        };
        wait_up()?;
        let address = bird_host.v4().to_string();
        control.text(&["peer", "stop", &address])?;
        let is_down = || -> Result<()> {
            ensure!(state()? != "Established", "BIRD has a session");
            Ok(())
        };
        wait_until(PATIENCE, "the session to end", is_down)?;
        holds_for(Duration::from_secs(4), "the session to stay down", is_down)?;
        control.text(&["peer", "start", &address])?;
        wait_up()?;
        // By the name of its range, and by a prefix around its address.
        for (group, other) in [("rack", "rac"), ("10.99.0.0/24", "10.99.1.0/24")] {
            let refused = control.text(&["peer", "stop", other]);
            let text = format!("{:#}", refused.expect_err("no peer is in it"));
            ensure!(text.contains(&format!("there is no peer \"{other}\"")), "{text}");
            ensure!(state()? == "Established", "{other} has stopped it");
            let said = control.text(&["peer", "stop", group])?;
            ensure!(said.contains(&format!("rack-{address}")), "{said}");
            wait_until(PATIENCE, "the session to end", is_down)?;
            control.text(&["peer", "start", group])?;
            wait_up()?;
        }
        Ok(())
    })
}
