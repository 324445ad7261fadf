//! The subject and BIRD 1.6.8, what Calico's nodes run.

use anyhow::Result;
use interop::lab;
use interop::matrix::{self, Case, Passive};
use interop::speaker::Kind;

const PEER: Kind = Kind::Bird16;

#[test]
fn ebgp() -> Result<()> {
    lab::run("bird16-ebgp", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER)))
}

#[test]
fn ibgp() -> Result<()> {
    lab::run("bird16-ibgp", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER)))
}

#[test]
fn ebgp_over_ipv6() -> Result<()> {
    lab::run("bird16-ebgp6", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER).over_v6()))
}

#[test]
fn ibgp_over_ipv6() -> Result<()> {
    lab::run("bird16-ibgp6", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER).over_v6()))
}

#[test]
fn md5() -> Result<()> {
    lab::run("bird16-md5", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).password("s3cret").over_v6())
    })
}

#[test]
fn md5_mismatch() -> Result<()> {
    lab::run("bird16-md5-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).mismatched_passwords(), "TCPMD5Failure")
    })
}

#[test]
fn gtsm() -> Result<()> {
    lab::run("bird16-gtsm", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).ttl_security().password("s3cret"))
    })
}

#[test]
fn gtsm_violated() -> Result<()> {
    lab::run("bird16-gtsm-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).ttl_security_violated(), "TCPMinTTLDrop")
    })
}

#[test]
fn add_path() -> Result<()> {
    lab::run("bird16-addpath", &[PEER], |lab| matrix::add_path_both_ways(lab, PEER))
}

#[test]
fn refresh() -> Result<()> {
    lab::run("bird16-refresh", &[PEER], |lab| matrix::refresh(lab, Case::ibgp(PEER).over_v6()))
}

#[test]
fn subject_passive_on_port_179() -> Result<()> {
    lab::run("bird16-passive", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Subject).port(179))
    })
}

#[test]
fn peer_passive() -> Result<()> {
    lab::run("bird16-active", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Peer))
    })
}

#[test]
fn prefix_limit() -> Result<()> {
    lab::run("bird16-limit", &[PEER], |lab| matrix::prefix_limit(lab, PEER).map(drop))
}

#[test]
fn hold_timer_loss() -> Result<()> {
    lab::run("bird16-hold", &[PEER], |lab| {
        let pair = matrix::hold_timer_loss(lab, PEER)?;
        matrix::returns(lab, &pair)
    })
}

#[test]
fn passes_on_communities() -> Result<()> {
    lab::run("bird16-transit", &[PEER, Kind::Bird2], |lab| matrix::passes_on(lab, PEER))
}

#[test]
fn peer_helps_a_restart_of_the_subject() -> Result<()> {
    lab::run("bird16-helper", &[PEER], |lab| matrix::is_helped(lab, PEER))
}
