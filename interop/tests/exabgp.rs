//! The subject and ExaBGP.

use anyhow::Result;
use interop::lab;
use interop::matrix::{self, Case, Passive};
use interop::speaker::Kind;

const PEER: Kind = Kind::Exabgp;

#[test]
fn ebgp() -> Result<()> {
    lab::run("exabgp-ebgp", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER)))
}

#[test]
fn ibgp() -> Result<()> {
    lab::run("exabgp-ibgp", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER)))
}

#[test]
fn ebgp_over_ipv6() -> Result<()> {
    lab::run("exabgp-ebgp6", &[PEER], |lab| matrix::exchange(lab, Case::ebgp(PEER).over_v6()))
}

#[test]
fn ibgp_over_ipv6() -> Result<()> {
    lab::run("exabgp-ibgp6", &[PEER], |lab| matrix::exchange(lab, Case::ibgp(PEER).over_v6()))
}

#[test]
fn both_families_and_rfc8950_over_ipv6() -> Result<()> {
    lab::run("exabgp-both6", &[PEER], |lab| {
        matrix::exchange(lab, Case::ebgp(PEER).both_families_over_v6())
    })
}

#[test]
fn hears_both_families_over_ipv4() -> Result<()> {
    lab::run("exabgp-both4", &[PEER], |lab| matrix::hears_both_families_over_v4(lab, PEER))
}

#[test]
fn md5() -> Result<()> {
    lab::run("exabgp-md5", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).password("s3cret").over_v6())
    })
}

#[test]
fn md5_mismatch() -> Result<()> {
    lab::run("exabgp-md5-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).mismatched_passwords(), "TCPMD5Failure")
    })
}

#[test]
fn gtsm() -> Result<()> {
    lab::run("exabgp-gtsm", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).ttl_security().password("s3cret"))
    })
}

#[test]
fn gtsm_violated() -> Result<()> {
    lab::run("exabgp-gtsm-bad", &[PEER], |lab| {
        matrix::stays_down(lab, Case::ebgp(PEER).ttl_security_violated(), "TCPMinTTLDrop")
    })
}

#[test]
fn refresh() -> Result<()> {
    lab::run("exabgp-refresh", &[PEER], |lab| {
        matrix::refresh(lab, Case::ibgp(PEER).both_families_over_v6())
    })
}

#[test]
fn subject_passive_on_port_179() -> Result<()> {
    lab::run("exabgp-passive", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Subject).port(179))
    })
}

#[test]
fn peer_passive() -> Result<()> {
    lab::run("exabgp-active", &[PEER], |lab| {
        matrix::comes_up(lab, Case::ebgp(PEER).passive(Passive::Peer))
    })
}

#[test]
fn prefix_limit() -> Result<()> {
    lab::run("exabgp-limit", &[PEER], |lab| matrix::prefix_limit(lab, PEER).map(drop))
}

#[test]
fn hold_timer_loss() -> Result<()> {
    lab::run("exabgp-hold", &[PEER], |lab| {
        let pair = matrix::hold_timer_loss(lab, PEER)?;
        matrix::returns(lab, &pair)
    })
}

#[test]
fn passes_on_communities() -> Result<()> {
    lab::run("exabgp-transit", &[PEER, Kind::Bird2], |lab| matrix::passes_on(lab, PEER))
}
