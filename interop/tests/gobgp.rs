//! The subject and `GoBGP`.

use anyhow::Result;
use interop::lab;
use interop::matrix::{self, Case, Passive};
use interop::speaker::Kind;

const PEER: Kind = Kind::Gobgp;

#[test]
fn ebgp() -> Result<()> {
    lab::run("gobgp-ebgp", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER)))
}

#[test]
fn ibgp() -> Result<()> {
    lab::run("gobgp-ibgp", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER)))
}

#[test]
fn ebgp_over_ipv6() -> Result<()> {
    lab::run("gobgp-ebgp6", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER).over_v6()))
}

#[test]
fn ibgp_over_ipv6() -> Result<()> {
    lab::run("gobgp-ibgp6", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER).over_v6()))
}

#[test]
fn both_families_and_rfc8950_over_ipv6() -> Result<()> {
    lab::run("gobgp-both6", &[PEER], |lab| {
        matrix::exchange(lab, Case::ebgp(PEER).both_families_over_v6())
    })
}

#[test]
fn hears_both_families_over_ipv4() -> Result<()> {
    lab::run("gobgp-both4", &[PEER], |lab| matrix::hears_both_families_over_v4(lab, PEER))
}

#[test]
fn md5() -> Result<()> {
    lab::run("gobgp-md5", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).password("s3cret").over_v6())
    })
}

#[test]
fn md5_mismatch() -> Result<()> {
    lab::run("gobgp-md5-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).mismatched_passwords(), "TCPMD5Failure")
    })
}

#[test]
fn gtsm() -> Result<()> {
    lab::run("gobgp-gtsm", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).ttl_security().password("s3cret"))
    })
}

#[test]
fn gtsm_violated() -> Result<()> {
    lab::run("gobgp-gtsm-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).ttl_security_violated(), "TCPMinTTLDrop")
    })
}

#[test]
fn add_path() -> Result<()> {
    lab::run("gobgp-addpath", &[PEER], |lab| matrix::add_path_both_ways(lab, PEER))
}

#[test]
fn subject_passive_on_port_179() -> Result<()> {
    lab::run("gobgp-passive", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Subject).port(179))
    })
}

#[test]
fn peer_passive() -> Result<()> {
    lab::run("gobgp-active", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Peer))
    })
}

#[test]
fn prefix_limit() -> Result<()> {
    lab::run("gobgp-limit", &[PEER], |lab| matrix::prefix_limit(lab, PEER).map(drop))
}

#[test]
fn hold_timer_loss() -> Result<()> {
    lab::run("gobgp-hold", &[PEER], |lab| {
        let pair = matrix::hold_timer_loss(lab, PEER)?;
        matrix::returns(lab, &pair)
    })
}

#[test]
fn passes_on_communities() -> Result<()> {
    lab::run("gobgp-transit", &[PEER, Kind::Bird2], |lab| matrix::passes_on(lab, PEER))
}

#[test]
fn peer_helps_a_restart_of_the_subject() -> Result<()> {
    lab::run("gobgp-helper", &[PEER], |lab| matrix::is_helped(lab, PEER))
}

#[test]
fn subject_helps_a_restart_of_the_peer() -> Result<()> {
    // Its routes are not in its configuration: it may say End-of-RIB before they are added again.
    lab::run("gobgp-restart", &[PEER], |lab| {
        matrix::keeps_routes_of_the_dead(lab, Case::ebgp(PEER)).map(drop)
    })
}
