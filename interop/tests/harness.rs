//! Tests of the harness itself, against other projects' daemons.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::matrix::neighbor;
use interop::message::{self, KEEPALIVE_TYPE, OPEN, UPDATE};
use interop::raw::{Answer, RawPeer};
use interop::speaker::{Config, Kind, Origin, Speaker as _, wait_paths};
use interop::wait::{holds_for, wait_until};
use interop::{bird2, lab};

const LIMIT: Duration = Duration::from_secs(10);
const BIRD_AS: u32 = 65000;
const RAW_AS: u32 = 65001;

/// BIRD on one host, ready for a scripted neighbour on another.
fn bird_and_raw(lab: &mut lab::Lab) -> Result<(lab::Host, bird2::Bird2, lab::Host, RawPeer)> {
    let (bird_host, raw_host) = (lab.host("a")?, lab.host("b")?);
    let mut end = neighbor(raw_host.v4(), bird_host.v4(), RAW_AS);
    end.passive = true;
    let config = Config {
        asn: BIRD_AS,
        router_id: bird_host.router_id(),
        port: 1790,
        neighbors: vec![end],
        origins: vec![Origin::tagged("192.0.2.0/24", "65000:7", "65000:1:2")],
    };
    let bird = bird2::Bird2::start(&bird_host, &config)?;
    let raw = RawPeer::start(&raw_host)?;
    Ok((bird_host, bird, raw_host, raw))
}

/// The scripted neighbour's OPEN, UPDATE and withdrawal are understood by BIRD, and BIRD's
/// messages arrive whole.
#[test]
#[ignore = "needs root and BIRD 2"]
fn scripted_neighbour_and_bird_understand_each_other() -> Result<()> {
    lab::run("harness-raw", &[Kind::Bird2], |lab| {
        let (bird_host, bird, raw_host, mut raw) = bird_and_raw(lab)?;
        let capability = message::graceful_restart(10, message::Start::First);
        let open = message::open(RAW_AS, 9, raw_host.router_id(), &[capability])?;
        raw.establish(1, bird_host.v4(), 1790, &open)?;
        let prefixes: Vec<Vec<u8>> =
            (0..200).map(|i| message::nlri(Ipv4Addr::new(203, 0, 113, i), 32)).collect();
        let bytes = message::announcement(RAW_AS, raw_host.router_id(), &[65001 << 16], &prefixes)?;
        raw.send(1, &bytes)?;
        let path = wait_paths(&bird, "203.0.113.199/32", 1)?.remove(0);
        ensure!(path.as_path == [RAW_AS] && path.communities == ["65001:0"], "{path:?}");
        raw.send(1, &message::withdrawal(&prefixes[100..])?)?;
        wait_paths(&bird, "203.0.113.199/32", 0)?;
        wait_paths(&bird, "203.0.113.99/32", 1)?;
        let update = raw.wait_message(1, UPDATE, 0, LIMIT)?;
        ensure!(update.bytes.ends_with(&[24, 192, 0, 2]), "{:?}", update.bytes);
        // Five seconds are more than half of the hold time: keepalives flow both ways.
        holds_for(Duration::from_secs(5), "the session", || {
            ensure!(bird.state(raw_host.v4())? == "Established", "down");
            Ok(())
        })?;
        raw.wait_message(1, KEEPALIVE_TYPE, 1, LIMIT)?;
        raw.send(1, &[0; 19])?;
        let (code, subcode, _) = raw.wait_notification(1, LIMIT)?;
        ensure!((code, subcode) == (1, 1), "{code}/{subcode}");
        raw.wait_closed(1, LIMIT)
    })
}

/// BIRD dials a listener that resets again, and sends an OPEN to one that accepts.
#[test]
#[ignore = "needs root and BIRD 2"]
fn scripted_neighbour_listens() -> Result<()> {
    lab::run("harness-listen", &[Kind::Bird2], |lab| {
        let (bird_host, raw_host) = (lab.host("a")?, lab.host("b")?);
        let mut raw = RawPeer::start(&raw_host)?;
        raw.listen(10, 1790, Answer::Reset)?;
        raw.listen(20, 1791, Answer::Accept)?;
        let config = |end| Config {
            asn: BIRD_AS,
            router_id: bird_host.router_id(),
            port: 1790,
            neighbors: vec![end],
            origins: Vec::new(),
        };
        let mut end = neighbor(raw_host.v4(), bird_host.v4(), RAW_AS);
        let mut bird = bird2::Bird2::start(&bird_host, &config(end.clone()))?;
        wait_until(LIMIT, "a second connection that is reset", || {
            let resets = raw.events(11)?;
            ensure!(!resets.is_empty(), "none");
            Ok(())
        })?;
        end.port = 1791;
        bird.reconfigure(&config(end))?;
        raw.wait_accepted(20, LIMIT)?;
        raw.wait_message(20, OPEN, 0, LIMIT).context("BIRD's OPEN")?;
        raw.close(20)?;
        raw.wait_closed(20, LIMIT)
    })
}

/// The error of a failed wait says what it waited for and why the last attempt failed.
#[test]
fn a_failed_wait_has_a_reason() {
    let error = wait_until(Duration::from_millis(150), "the moon", || -> Result<()> {
        anyhow::bail!("still below the horizon")
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("the moon") && error.contains("below the horizon"), "{error}");
    let error =
        holds_for(Duration::from_secs(1), "daylight", || anyhow::bail!("night")).unwrap_err();
    assert!(error.to_string().contains("daylight"), "{error}");
}
