//! Limits that protect neighbours from each other: of prefixes, memory and descriptors.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::calico::{Cluster, MargayNode};
use interop::kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS, neighbor};
use interop::message::{announcement, nlri, open};
use interop::raw::RawPeer;
use interop::speaker::{Config, Kind, Origin, wait_paths};
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::json;

const PORT: u16 = 1790;
/// How long to wait for an event of a connection before looking at its other events.
const STEP: Duration = Duration::from_millis(100);
const OWN_ROUTE: &str = "192.0.2.0/24";
/// Prefixes of one [`flood`].
const FLOOD_PREFIXES: u32 = 14_000;

fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, kinds, &[], test)
}

/// Configures external neighbours from the lab's range; `more` are keys of the range.
fn config(host: &Host, more: &str) -> String {
    config_with(host, "", more)
}

/// The same; `all` are keys of `[bgp]`.
fn config_with(host: &Host, all: &str, more: &str) -> String {
    format!(
        "[bgp]\n{all}asn = {SUBJECT_AS}\nrouter-id = \"10.99.0.1\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         [[bgp.dynamic-peers]]\nprefix = \"10.99.0.0/28\"\nremote-asn = {PEER_AS}\n\
         import = \"all\"\nexport = \"all\"\n{more}\n\
         [[originate]]\nprefix = \"{OWN_ROUTE}\"\n\n[fib]\nenabled = false\n\n{}",
        margay::control_section(host)
    )
}

fn bird(of: &Host, margay: &Host, routes: &[&str]) -> Result<Bird2> {
    let config = Config {
        asn: PEER_AS,
        router_id: of.router_id(),
        port: PORT,
        neighbors: vec![neighbor(margay.v4(), of.v4(), SUBJECT_AS)],
        origins: routes.iter().map(|route| Origin::plain(route)).collect(),
    };
    Bird2::start(of, &config)
}

fn v4(host: &Host) -> Result<Ipv4Addr> {
    match host.v4() {
        std::net::IpAddr::V4(address) => Ok(address),
        std::net::IpAddr::V6(address) => anyhow::bail!("{address}"),
    }
}

/// UPDATEs with [`FLOOD_PREFIXES`] different /32s: as many octets as a socket takes at once.
fn flood(host: &Host, from: u32) -> Result<Vec<u8>> {
    const MESSAGES: u32 = 20;
    const PER_MESSAGE: u32 = FLOOD_PREFIXES / MESSAGES;
    let mut octets = Vec::new();
    for message in 0..MESSAGES {
        let first = 0x1000_0000 + (from * MESSAGES + message) * PER_MESSAGE;
        let prefixes: Vec<_> =
            (first..first + PER_MESSAGE).map(|at| nlri(Ipv4Addr::from(at), 32)).collect();
        octets.extend(announcement(PEER_AS, v4(host)?, &[], &prefixes)?);
    }
    Ok(octets)
}

/// A neighbour that would announce ten million prefixes is closed with Cease 6/1 at its limit, and
/// held idle for a while although it is a dynamic peer. Other sessions are not affected.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_flood_ends_at_the_limit() -> Result<()> {
    run("limit-flood", &[Kind::Bird2], |lab| {
        let (host, quiet, loud) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let text = config(&host, "prefixes-max = 50000\nconnect-retry-time = 30\n");
        let (_daemon, control) = margay::start_text(&host, &text)?;
        let bird = bird(&quiet, &host, &["198.51.100.0/24"])?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        let mut raw = RawPeer::start(&loud)?;
        let hello = open(PEER_AS, 90, v4(&loud)?, &[])?;
        raw.establish(1, host.v4(), PORT, &hello)?;
        // Ten million prefixes if the session is not closed, after which nothing more can be sent.
        for round in 0..715 {
            raw.send(1, &flood(&loud, round)?)?;
            wait_until(PATIENCE, "the flood to go on or end", || {
                raw.closed(1).map_or_else(|| raw.wait_sent(1, round as usize, STEP), |_| Ok(()))
            })?;
            if raw.closed(1).is_some() {
                break;
            }
        }
        let (code, subcode, data) = raw.wait_notification(1, PATIENCE)?;
        ensure!((code, subcode) == (6, 1), "{code}/{subcode}");
        ensure!(data == [0, 1, 1, 0, 0, 0xc3, 0x50], "AFI, SAFI and limit: {data:?}");
        raw.wait_closed(1, PATIENCE)?;
        ensure!(bird.sessions(host.v4())? == 1, "the other session was disturbed");
        control.expect_established(quiet.v4())?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        wait_until(PATIENCE, "the flood's routes to go", || {
            ensure!(control.paths("16.0.0.1/32")?.is_empty(), "still there");
            Ok(())
        })?;
        // Held idle (RFC 4271 §8.1.1) for longer than a dynamic peer without errors is kept.
        raw.connect(2, host.v4(), PORT)?;
        raw.send(2, &hello)?;
        raw.wait_closed(2, PATIENCE)?;
        holds_for(Duration::from_secs(7), "the idle hold", || {
            ensure!(control.peer(loud.v4())?["state"] == "Idle", "accepted again at once");
            Ok(())
        })
    })
}

/// A neighbour whose routes exceed its memory limit is closed with Cease 6/8. Other sessions are
/// not affected.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_peer_beyond_its_memory_limit_is_closed() -> Result<()> {
    run("limit-memory", &[Kind::Bird2], |lab| {
        let (host, quiet, loud) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let (daemon, control) = margay::start_text(&host, &config(&host, "memory-max = 2\n"))?;
        let bird = bird(&quiet, &host, &["198.51.100.0/24"])?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        let mut raw = RawPeer::start(&loud)?;
        raw.establish(1, host.v4(), PORT, &open(PEER_AS, 90, v4(&loud)?, &[])?)?;
        // Ten times 14,000 prefixes of some 70 octets each.
        for round in 0..10 {
            raw.send(1, &flood(&loud, round)?)?;
        }
        let (code, subcode, _) = raw.wait_notification(1, PATIENCE)?;
        ensure!((code, subcode) == (6, 8), "{code}/{subcode}");
        ensure!(daemon.output().contains("(memory-max)"), "no line that says why");
        ensure!(bird.sessions(host.v4())? == 1, "the other session was disturbed");
        wait_until(PATIENCE, "its routes to go", || {
            ensure!(control.paths("16.0.0.1/32")?.is_empty(), "still there");
            Ok(())
        })?;
        control.expect_established(quiet.v4())
    })
}

/// Waits until `wanted` floods of different prefixes have arrived from a neighbour.
fn wait_floods(control: &Control, from: &Host, wanted: u32) -> Result<()> {
    wait_until(PATIENCE, "floods to arrive", || {
        let received = control.peer(from.v4())?["prefixes_received"].clone();
        ensure!(received == wanted * FLOOD_PREFIXES, "{received} prefixes from {}", from.v4());
        Ok(())
    })
}

/// The log says once, for this neighbour, that the memory limit of all routes was exceeded, and
/// `show peers` has it as the peer's last error.
fn expect_shed(log: &str, control: &Control, shed: &Host, bound_mebibytes: u32) -> Result<()> {
    let reasons: Vec<&str> =
        log.lines().filter(|line| line.contains("closed (bgp.memory-max)")).collect();
    let [reason] = reasons[..] else { anyhow::bail!("not one line: {reasons:?}") };
    ensure!(reason.contains(&format!("peer={}", shed.v4())), "{reason}");
    ensure!(reason.contains(&format!("more than {bound_mebibytes},")), "{reason}");
    control.expect_last_error(shed.v4(), "sent", 6, 8)?;
    let error = control.peer(shed.v4())?["last_error"]["text"].clone();
    ensure!(error.as_str().is_some_and(|text| text.contains("Out of Resources")), "{error}");
    Ok(())
}

/// All neighbours' routes together exceed the memory limit: the peer that holds most is closed, not
/// the one whose routes came last. Other sessions are not affected.
#[test]
#[ignore = "needs root and BIRD 2"]
fn the_peer_that_holds_most_memory_is_closed() -> Result<()> {
    /// A flood takes some 72 octets for each of its 14,000 prefixes, 1 MB in all. Five fit, six do
    /// not.
    const MEBIBYTES: u32 = 5;
    run("limit-memory-all", &[Kind::Bird2], |lab| {
        let (host, quiet) = (lab.host("a")?, lab.host("b")?);
        let hosts = [lab.host("c")?, lab.host("d")?, lab.host("e")?];
        let bound = format!("memory-max = {MEBIBYTES}\n");
        let text = config_with(&host, &bound, "connect-retry-time = 30\n");
        let (daemon, control) = margay::start_text(&host, &text)?;
        let bird = bird(&quiet, &host, &["198.51.100.0/24"])?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        let mut raws = Vec::new();
        for client in &hosts {
            let mut raw = RawPeer::start(client)?;
            raw.establish(1, host.v4(), PORT, &open(PEER_AS, 90, v4(client)?, &[])?)?;
            raws.push(raw);
        }
        // The peer, its first round and the number of rounds, each of which has other prefixes.
        for (at, first, floods) in [(0, 0, 3), (1, 10, 1)] {
            for round in first..first + floods {
                raws[at].send(1, &flood(&hosts[at], round)?)?;
            }
            wait_floods(&control, &hosts[at], floods)?;
        }
        ensure!(raws.iter().all(|raw| raw.closed(1).is_none()), "these floods should fit");
        for round in [20, 21] {
            raws[2].send(1, &flood(&hosts[2], round)?)?;
        }
        let (code, subcode, _) = raws[0].wait_notification(1, PATIENCE)?;
        ensure!((code, subcode) == (6, 8), "{code}/{subcode}");
        raws[0].wait_closed(1, PATIENCE)?;
        wait_floods(&control, &hosts[2], 2)?;
        wait_until(PATIENCE, "its routes to go", || {
            ensure!(control.paths("16.0.0.1/32")?.is_empty(), "still there");
            Ok(())
        })?;

        expect_shed(&daemon.output(), &control, &hosts[0], MEBIBYTES)?;
        holds_for(Duration::from_secs(2), "the others", || {
            ensure!(bird.sessions(host.v4())? == 1, "the other session was disturbed");
            for other in [&quiet, &hosts[1], &hosts[2]] {
                control.expect_established(other.v4())?;
            }
            Ok(())
        })?;
        ensure!(raws[1..].iter().all(|raw| raw.closed(1).is_none()), "another session was closed");
        wait_floods(&control, &hosts[1], 1)?;
        wait_floods(&control, &hosts[2], 2)
    })
}

/// Without free descriptors no connection is accepted, which is logged once; sessions stay up, and
/// accepting resumes when there are descriptors again.
#[test]
#[ignore = "needs root and BIRD 2"]
fn without_descriptors_sessions_stay_up() -> Result<()> {
    run("limit-files", &[Kind::Bird2], |lab| {
        let host = lab.host("a")?;
        let hosts = [lab.host("b")?, lab.host("c")?, lab.host("d")?, lab.host("e")?];
        let (daemon, control) = margay::start_text(&host, &config(&host, ""))?;
        let first = bird(&hosts[0], &host, &["198.51.100.0/24"])?;
        wait_paths(&first, OWN_ROUTE, 1)?;
        let pid = daemon.pid().to_string();
        let open_now = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let limit =
            |files: usize| host.run("prlimit", &["--pid", &pid, &format!("--nofile={files}:")]);
        limit(open_now)?;
        let mut raws = Vec::new();
        for client in &hosts[1..] {
            let mut raw = RawPeer::start(client)?;
            raw.connect(1, host.v4(), PORT)?;
            raw.send(1, &open(PEER_AS, 90, v4(client)?, &[])?)?;
            raws.push(raw);
        }
        let says = |text: &str| daemon.output().matches(text).count();
        wait_until(PATIENCE, "the line about descriptors", || {
            ensure!(says("cannot accept connections") == 1, "{}", daemon.output());
            Ok(())
        })?;
        holds_for(Duration::from_secs(3), "the first session", || {
            ensure!(first.sessions(host.v4())? == 1, "it was disturbed");
            ensure!(says("cannot accept connections") == 1, "said more than once");
            Ok(())
        })?;
        limit(open_now + 64)?;
        for raw in &raws {
            // Its OPEN was waiting in the socket all the time.
            raw.wait_message(1, interop::message::OPEN, 0, PATIENCE).context("no answer")?;
        }
        ensure!(says("accepting connections again") == 1, "{}", daemon.output());
        control.expect_established(hosts[0].v4())
    })
}

/// Calico's objects set no limits; the file does, for every session that follows from them. A
/// neighbour that exceeds its limit is closed with Cease 6/1, and the mesh is not affected.
#[test]
#[ignore = "needs root and etcd"]
fn a_calico_neighbour_beyond_the_limit_is_closed() -> Result<()> {
    const LIMIT: u8 = 100;
    lab::run_margay("calico-limit", &[], &["etcd", "etcdctl"], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let loud = lab.host("loud")?;
        let IpAddr::V4(address) = loud.v4() else { anyhow::bail!("{}", loud.v4()) };
        let spec = json!({"node": "a", "peerIP": address.to_string(), "asNumber": PEER_AS});
        cluster.put("bgppeers", "BGPPeer", "loud", &spec)?;
        let limits = format!("memory-max = 256\n[calico.peers]\nprefixes-max = {LIMIT}\n");
        let mut na = MargayNode::from_file(&a, &cluster, &limits)?;
        let _nb = MargayNode::from_environment(&b, &cluster)?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        let config = a.file("margay.toml").display().to_string();
        let check = margay::run_to_end(&a, &["check", "--config", &config])?;
        let check = String::from_utf8(check.stdout)?;
        for line in ["routes hold at most 256 MiB", "every peer, at most 100 prefixes"] {
            ensure!(check.lines().any(|l| l == line), "{check}");
        }
        let said = na.daemon().output();
        ensure!(said.contains("routes hold at most 256 MiB (calico.memory-max)"), "{said}");

        let mut raw = RawPeer::start(&loud)?;
        raw.establish(1, a.v4(), 179, &open(PEER_AS, 90, address, &[])?)?;
        let hosts = |from: u8, to: u8| -> Result<Vec<u8>> {
            let prefixes: Vec<_> =
                (from..to).map(|n| nlri(Ipv4Addr::new(198, 51, 100, n), 32)).collect();
            announcement(PEER_AS, address, &[], &prefixes)
        };
        raw.send(1, &hosts(0, LIMIT)?)?;
        wait_until(PATIENCE, "as many prefixes as are allowed", || {
            let peer = na.control.peer(loud.v4())?;
            ensure!(peer["prefixes_received"] == LIMIT && peer["state"] == "Established", "{peer}");
            Ok(())
        })?;
        raw.send(1, &hosts(LIMIT, LIMIT + 1)?)?;
        let (code, subcode, data) = raw.wait_notification(1, PATIENCE)?;
        ensure!((code, subcode) == (6, 1), "{code}/{subcode}");
        ensure!(data == [0, 1, 1, 0, 0, 0, LIMIT], "AFI, SAFI and limit: {data:?}");
        raw.wait_closed(1, PATIENCE)?;
        wait_until(PATIENCE, "its routes to go", || {
            ensure!(na.control.paths("198.51.100.1/32")?.is_empty(), "still there");
            Ok(())
        })?;
        ensure!(na.sessions(&b) == 1, "the mesh was disturbed");
        na.wait_session(&b)?;
        ensure!(kernel::route(&a, "10.65.2.0/26")?.is_some(), "the mesh's route went");
        Ok(())
    })
}
