//! The subject and another margay: what two of them agree on that others do not have.

use anyhow::Result;
use interop::lab;
use interop::matrix::{self, Case, Passive};
use interop::speaker::Kind;

const PEER: Kind = Kind::Margay;

#[test]
fn both_families_and_rfc8950_over_ipv6() -> Result<()> {
    lab::run("margay-both6", &[PEER], |lab| {
        let case = Case::ebgp(PEER).both_families_over_v6();
        let pair = case.password("s3cret").ttl_security().establish(lab)?;
        pair.peer_has_subject_routes()
    })
}

#[test]
fn both_dial_at_once() -> Result<()> {
    lab::run("margay-collision", &[PEER], |lab| {
        Case::ibgp(PEER).passive(Passive::Neither).establish(lab)?.peer_has_subject_routes()
    })
}

#[test]
fn subject_helps_a_restart_of_the_peer() -> Result<()> {
    lab::run("margay-restart", &[PEER], |lab| matrix::helps_a_restart(lab, Case::ibgp(PEER)))
}
