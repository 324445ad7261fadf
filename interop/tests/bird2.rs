//! The subject and BIRD 2.

use anyhow::Result;
use interop::lab;
use interop::matrix::{self, Case, Passive};
use interop::speaker::Kind;

const PEER: Kind = Kind::Bird2;

#[test]
fn ebgp() -> Result<()> {
    lab::run("bird2-ebgp", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER)))
}

#[test]
fn ibgp() -> Result<()> {
    lab::run("bird2-ibgp", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER)))
}

#[test]
fn ebgp_over_ipv6() -> Result<()> {
    lab::run("bird2-ebgp6", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER).over_v6()))
}

#[test]
fn ibgp_over_ipv6() -> Result<()> {
    lab::run("bird2-ibgp6", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER).over_v6()))
}

#[test]
fn both_families_and_rfc8950_over_ipv6() -> Result<()> {
    lab::run("bird2-both6", &[PEER], |lab| {
        matrix::exchange(lab, Case::ebgp(PEER).both_families_over_v6())
    })
}

#[test]
fn hears_both_families_over_ipv4() -> Result<()> {
    lab::run("bird2-both4", &[PEER], |lab| matrix::hears_both_families_over_v4(lab, PEER))
}

#[test]
fn md5() -> Result<()> {
    lab::run("bird2-md5", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).password("s3cret").over_v6())
    })
}

#[test]
fn md5_mismatch() -> Result<()> {
    lab::run("bird2-md5-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).mismatched_passwords(), "TCPMD5Failure")
    })
}

#[test]
fn gtsm() -> Result<()> {
    lab::run("bird2-gtsm", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).ttl_security().password("s3cret"))
    })
}

#[test]
fn gtsm_violated() -> Result<()> {
    lab::run("bird2-gtsm-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).ttl_security_violated(), "TCPMinTTLDrop")
    })
}

#[test]
fn add_path() -> Result<()> {
    lab::run("bird2-addpath", &[PEER], |lab| matrix::add_path_both_ways(lab, PEER))
}

#[test]
fn refresh() -> Result<()> {
    lab::run("bird2-refresh", &[PEER], |lab| {
        matrix::refresh(lab, Case::ibgp(PEER).both_families_over_v6())
    })
}

#[test]
fn subject_passive_on_port_179() -> Result<()> {
    lab::run("bird2-passive", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Subject).port(179))
    })
}

#[test]
fn peer_passive() -> Result<()> {
    lab::run("bird2-active", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Peer))
    })
}

#[test]
fn prefix_limit() -> Result<()> {
    lab::run("bird2-limit", &[PEER], |lab| matrix::prefix_limit(lab, PEER).map(drop))
}

#[test]
fn hold_timer_loss() -> Result<()> {
    lab::run("bird2-hold", &[PEER], |lab| {
        let pair = matrix::hold_timer_loss(lab, PEER)?;
        matrix::returns(lab, &pair)
    })
}

#[test]
fn passes_on_communities() -> Result<()> {
    lab::run("bird2-transit", &[PEER, Kind::Bird2], |lab| matrix::passes_on(lab, PEER))
}

#[test]
fn peer_helps_a_restart_of_the_subject() -> Result<()> {
    lab::run("bird2-helper", &[PEER], |lab| matrix::is_helped(lab, PEER))
}

#[test]
fn subject_helps_a_restart_of_the_peer() -> Result<()> {
    lab::run("bird2-restart", &[PEER], |lab| matrix::helps_a_restart(lab, Case::ebgp(PEER)))
}
