//! Long-lived graceful restart (RFC 9494) with real daemons: margay as helper and as restarting
//! speaker.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::gobgp::Gobgp;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, Lab};
use interop::margay::Margay;
use interop::matrix::{Case, SUBJECT_AS, config, neighbor, peer_prefix, subject_prefix};
use interop::speaker::{Family, Kind, Path, Speaker, expect_down, wait_established, wait_paths};
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::Value;

/// AS numbers of two neighbours that margay advertises the restarting one's routes to.
const AWARE_AS: u32 = 64701;
const UNAWARE_AS: u32 = 64702;

fn is_marked(path: &Path) -> bool {
    path.communities.iter().any(|c| c == "65535:6" || c == "llgr-stale")
}

/// Waits for one path to `prefix`, marked with LLGR_STALE or not.
fn wait_mark(speaker: &dyn Speaker, prefix: &str, marked: bool) -> Result<()> {
    wait_until(PATIENCE, "one path, with or without LLGR_STALE", || {
        let paths = speaker.paths(prefix)?;
        ensure!(paths.len() == 1 && is_marked(&paths[0]) == marked, "{paths:?}");
        Ok(())
    })
}

/// margay, a neighbour that will restart, one that knows LLGR_STALE, and one that does not.
struct Helper {
    host: Host,
    margay: Margay,
    peer: Box<dyn Speaker>,
    peer_host: Host,
    aware: Bird2,
    unaware: Gobgp,
}

impl Helper {
    fn start(lab: &mut Lab, kind: Kind, long_lived: u32) -> Result<Helper> {
        let (host, peer_host) = (lab.host("a")?, lab.host("b")?);
        let (aware_host, unaware_host) = (lab.host("c")?, lab.host("d")?);
        let case = Case::ebgp(kind).long_lived(long_lived).hold_time(30);
        let (mut own, theirs) = case.configs(&host, &peer_host);
        for (other, asn) in [(&aware_host, AWARE_AS), (&unaware_host, UNAWARE_AS)] {
            own.neighbors.push(neighbor(other.v4(), host.v4(), asn));
        }
        let margay = Margay::start(&host, &own)?;
        let towards = [(&host, SUBJECT_AS)];
        // Without any setting, BIRD 2 sends capability 71 without families: it knows LLGR_STALE.
        let aware = Bird2::start(&aware_host, &config(&aware_host, AWARE_AS, &towards, &[]))?;
        let unaware =
            Gobgp::start(&unaware_host, &config(&unaware_host, UNAWARE_AS, &towards, &[]))?;
        let peer = kind.start(&peer_host, &theirs)?;
        let helper = Helper { host, margay, peer, peer_host, aware, unaware };
        helper.wait_fresh()?;
        Ok(helper)
    }

    fn path(&self) -> Result<Value> {
        let paths = self.margay.control().paths(peer_prefix(Family::V4))?;
        ensure!(paths.len() == 1, "{paths:?}");
        paths.into_iter().next().context("no path")
    }

    fn wait_fresh(&self) -> Result<()> {
        let prefix = peer_prefix(Family::V4);
        wait_established(&self.margay, self.peer_host.v4())?;
        wait_until(PATIENCE, "a path that is not stale", || {
            let path = self.path()?;
            ensure!(path["stale"] == false && path["long_lived"] == false, "{path}");
            Ok(())
        })?;
        wait_mark(&self.aware, prefix, false)?;
        wait_mark(&self.unaware, prefix, false)
    }

    /// The neighbour is killed: the restart time, then the long-lived stale time.
    fn crash(&mut self) -> Result<()> {
        let prefix = peer_prefix(Family::V4);
        self.peer.daemon().crash()?;
        wait_until(PATIENCE, "margay to notice", || {
            expect_down(&self.margay, self.peer_host.v4())
        })?;
        wait_until(PATIENCE, "a long-lived stale path", || {
            let path = self.path()?;
            ensure!(path["long_lived"] == true, "{path}");
            Ok(())
        })?;
        wait_mark(&self.aware, prefix, true)?;
        wait_paths(&self.unaware, prefix, 0)?;
        let peer = self.margay.control().peer(self.peer_host.v4())?;
        let retained = &peer["retained"]["ipv4"];
        // FRR announces ours back to us too.
        let paths = retained["paths"].as_u64();
        ensure!(retained["phase"] == "long-lived" && paths >= Some(1), "{peer}");
        let explained = self.margay.control().json(&["explain", prefix])?;
        ensure!(explained.to_string().contains("RFC 9494"), "no reason: {explained}");
        Ok(())
    }
}

/// margay keeps a dead neighbour's route beyond its restart time, marked, and advertises it only to
/// those who know the mark; unmarks it when the neighbour is back; and withdraws it when the
/// long-lived stale time is over.
fn helps(kind: Kind) -> Result<()> {
    lab::run_margay(
        &format!("llgr-helps-{kind:?}"),
        &[kind, Kind::Bird2, Kind::Gobgp],
        &[],
        |lab| {
            const LONG_LIVED: u32 = 12;
            let prefix = peer_prefix(Family::V4);
            let mut helper = Helper::start(lab, kind, LONG_LIVED)?;
            let monitor = RouteMonitor::start(&helper.host)?;
            helper.crash()?;
            helper.peer.recover()?;
            helper.wait_fresh()?;
            let changes = monitor.changes()?;
            // GoBGP adds its routes after End-of-RIB, and FRR if it has not read them by then.
            let is_kept = !changes.contains(&format!("Deleted {prefix}"));
            let log = helper.margay.daemon().output();
            let is_early = |line: &str| line.contains("End-of-RIB:") && !line.contains(", 0 were");
            let may_be_early = matches!(kind, Kind::Gobgp | Kind::Frr);
            ensure!(
                is_kept || (may_be_early && log.lines().any(is_early)),
                "the kernel lost the route: {changes}"
            );
            helper.crash()?;
            wait_until(PATIENCE, "the end of the long-lived stale time", || {
                let paths = helper.margay.control().paths(prefix)?;
                ensure!(paths.is_empty(), "{paths:?}");
                Ok(())
            })?;
            wait_paths(&helper.aware, prefix, 0)?;
            wait_until(PATIENCE, "the kernel route to go", || {
                ensure!(kernel::route(&helper.host, prefix)?.is_none(), "it is still there");
                Ok(())
            })?;
            let log = helper.margay.daemon().output();
            for line in [
                "kept for 2 s (RFC 4724), then as long-lived stale for 12 s",
                "ipv4 routes are long-lived stale",
                "within the long-lived stale time",
            ] {
                ensure!(log.contains(line), "no line {line:?} in {log}");
            }
            Ok(())
        },
    )
}

/// A neighbour keeps the route of a dead margay beyond its restart time, marked, until margay is
/// back.
fn is_helped(kind: Kind) -> Result<()> {
    lab::run_margay(&format!("llgr-by-{kind:?}"), &[kind], &[], |lab| {
        let prefix = subject_prefix(Family::V4);
        let mut pair = Case::ebgp(kind).long_lived(600).hold_time(30).establish(lab)?;
        pair.has_routes_both_ways()?;
        pair.subject.daemon().crash()?;
        wait_until(PATIENCE, "the peer to notice", || {
            expect_down(pair.peer.as_ref(), pair.subject_address)
        })?;
        wait_mark(pair.peer.as_ref(), prefix, true)?;
        holds_for(Duration::from_secs(1), "the route of the dead", || {
            ensure!(pair.peer.paths(prefix)?.len() == 1, "the peer dropped it");
            Ok(())
        })?;
        pair.subject.recover()?;
        wait_established(pair.peer.as_ref(), pair.subject_address)?;
        wait_mark(pair.peer.as_ref(), prefix, false)?;
        pair.has_routes_both_ways()
    })
}

/// An operator stops a neighbour that is down: nothing of it is kept.
#[test]
#[ignore = "needs root, BIRD 2 and GoBGP"]
fn a_stopped_neighbour_leaves_no_long_lived_stale_route() -> Result<()> {
    lab::run_margay("llgr-stop", &[Kind::Bird2, Kind::Gobgp], &[], |lab| {
        let mut helper = Helper::start(lab, Kind::Bird2, 600)?;
        helper.crash()?;
        let address = helper.peer_host.v4().to_string();
        let control = helper.margay.control();
        let said = control.text(&["peer", "stop", &address])?;
        ensure!(said.contains("1 stale route from it is withdrawn"), "{said}");
        let prefix = peer_prefix(Family::V4);
        wait_until(PATIENCE, "the route to go", || {
            let paths = control.paths(prefix)?;
            ensure!(paths.is_empty(), "{paths:?}");
            Ok(())
        })?;
        wait_paths(&helper.aware, prefix, 0).map(drop)
    })
}

macro_rules! each {
    ($($helps:ident, $is_helped:ident: $kind:ident;)*) => {
        $(#[test]
        #[ignore = "needs root, BIRD 2, GoBGP and the neighbour"]
        fn $helps() -> Result<()> {
            helps(Kind::$kind)
        }

        #[test]
        #[ignore = "needs root and the neighbour"]
        fn $is_helped() -> Result<()> {
            is_helped(Kind::$kind)
        })*
    };
}

each! {
    margay_helps_bird2, bird2_helps_margay: Bird2;
    margay_helps_frr, frr_helps_margay: Frr;
    margay_helps_gobgp, gobgp_helps_margay: Gobgp;
}
