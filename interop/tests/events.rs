//! What happens to a session, a link, a kernel route or a configuration is an event that `margay
//! events` prints, with the reason.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS, neighbor};
use interop::speaker::{Config, Kind, Neighbor, Origin, Speaker as _};
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::Value;

const PORT: u16 = 1790;
const PREFIX: &str = "203.0.113.0/24";

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &[], test)
}

fn config(host: &Host, far: &Host, remote_as: u32, more: &str) -> String {
    format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         [[bgp.peers]]\nname = \"tor\"\naddress = \"{}\"\nport = {PORT}\nremote-asn = {remote_as}\n\
         import = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\n{more}\n{}",
        host.router_id(),
        far.v4(),
        margay::control_section(host)
    )
}

fn bird(far: &Host, host: &Host, change: impl FnOnce(&mut Neighbor)) -> Result<Bird2> {
    let mut neighbour = neighbor(host.v4(), far.v4(), SUBJECT_AS);
    change(&mut neighbour);
    let config = Config {
        asn: PEER_AS,
        router_id: far.router_id(),
        port: PORT,
        neighbors: vec![neighbour],
        origins: vec![Origin::plain(PREFIX)],
    };
    Bird2::start(far, &config)
}

/// The newest event of this name whose text or reason contains `text`.
fn event(control: &Control, name: &str, text: &str) -> Result<Value> {
    let events = control.json(&["events"])?;
    let events = events.as_array().context("events: not a list")?;
    let has = |event: &&Value| {
        let contains = |key: &str| event[key].as_str().is_some_and(|value| value.contains(text));
        event["event"] == name && (contains("text") || contains("reason"))
    };
    let found = events.iter().rev().find(has).cloned();
    found.with_context(|| format!("no {name} with \"{text}\" in {events:#?}"))
}

fn expect(control: &Control, name: &str, text: &str) -> Result<Value> {
    wait_until(PATIENCE, name, || event(control, name, text))
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn a_wrong_as_stays_the_reason_and_a_wrong_key_is_hinted_at() -> Result<()> {
    run("events_as", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let first = bird(&far, &host, |_| {})?;
        let (daemon, control) = margay::start_text(&host, &config(&host, &far, 65_009, ""))?;
        let refused = expect(&control, "session-failed", "Bad Peer AS")?;
        ensure!(refused["level"] == "WARN" && refused["peer"] == "tor", "{refused}");
        let reason = refused["reason"].to_string();
        let both = [PEER_AS.to_string(), "65009".to_owned()];
        ensure!(both.iter().all(|asn| reason.contains(asn.as_str())), "{reason}");
        // BIRD closes the attempts that follow at once, which is not why there is no session.
        wait_until(PATIENCE, "a later failure of TCP", || {
            let peer = control.peer(far.v4())?;
            ensure!(peer["last_error"]["code"].is_null(), "{}", peer["last_error"]);
            ensure!(peer["last_bgp_error"]["code"] == 2, "{}", peer["last_bgp_error"]);
            let row = control.text(&["show", "peers"])?;
            ensure!(row.contains("Bad Peer AS") && row.contains("; then "), "{row}");
            Ok(())
        })?;
        drop((daemon, first));

        let _keyed = bird(&far, &host, |n| n.password = Some("theirs".to_owned()))?;
        let text = config(&host, &far, PEER_AS, "password = \"ours\"\n");
        let (_daemon, control) = margay::start_text(&host, &text)?;
        expect(&control, "session-failed", "the passwords differ").map(drop)
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn links_addresses_and_routes_of_others_are_events() -> Result<()> {
    run("events_links", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _bird = bird(&far, &host, |_| {})?;
        let text = config(&host, &far, PEER_AS, "");
        let (_daemon, control) = margay::start_text(&host, &text)?;
        expect(&control, "session-up", "session established")?;
        let route = || control.json(&["show", "fib"]);
        wait_until(PATIENCE, "the route", || {
            let fib = route()?;
            ensure!(fib[0]["state"] == "installed", "{fib}");
            Ok(())
        })?;

        // Only a carrier that the kernel has reported can be lost; on a busy machine it reports late.
        wait_until(PATIENCE, "the carrier", || {
            let link = host.run("ip", &["-o", "link", "show", "eth0"])?;
            ensure!(link.contains("state UP"), "{link}");
            Ok(())
        })?;
        holds_for(Duration::from_secs(1), "the session", || control.expect_established(far.v4()))?;
        lab.unplug(&host)?;
        let lost = expect(&control, "link-down", "eth0 has no carrier")?;
        ensure!(lost["object"] == "eth0" && lost["level"] == "WARN", "{lost}");
        ensure!(lost["text"].to_string().contains("(tor)"), "{lost}");
        let down = expect(&control, "session-down", "eth0 has no carrier")?;
        ensure!(down["fields"]["direction"] == "local", "{down}");
        lab.plug(&host)?;
        expect(&control, "link-up", "eth0")?;
        wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;

        let address = format!("{}/24", host.v4());
        host.run("ip", &["addr", "del", &address, "dev", "eth0"])?;
        expect(&control, "address-removed", "was removed from eth0: 1 peer")?;
        host.run("ip", &["addr", "add", &address, "dev", "eth0"])?;
        expect(&control, "address-added", "is on eth0 again")?;
        wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;
        wait_until(PATIENCE, "the route", || {
            let fib = route()?;
            ensure!(fib[0]["state"] == "installed", "{fib}");
            Ok(())
        })?;

        let metric = route()?[0]["metric"].to_string();
        let ours = ["route", "del", PREFIX, "metric", &metric];
        host.run("ip", &ours)?;
        expect(&control, "route-repaired", "written")
            .or_else(|_| expect(&control, "route-repaired", "writing"))?;
        let via = far.v4().to_string();
        host.run(
            "ip",
            &["route", "replace", PREFIX, "metric", &metric, "via", &via, "proto", "99"],
        )?;
        let foreign = expect(&control, "route-foreign", "")?;
        ensure!(foreign["prefix"] == PREFIX, "{foreign}");
        ensure!(foreign["reason"].to_string().contains("protocol 99"), "{foreign}");
        // All of it concerns one peer or none, and each peer has its own last events.
        let of_peer = control.json(&["show", "peer", "tor"])?;
        let last = of_peer["events"].as_array().context("no events")?;
        ensure!(last.len() >= 5 && last.iter().all(|e| e["peer"] == "tor"), "{of_peer}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn stale_routes_limits_drains_and_reloads_are_events() -> Result<()> {
    run("events_stale", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let graceful = |n: &mut Neighbor| n.graceful_restart = true;
        let mut running = Some(bird(&far, &host, graceful)?);
        let text = config(&host, &far, PEER_AS, "prefixes-max = 100\n");
        let (daemon, control) = margay::start_text(&host, &text)?;
        expect(&control, "started", "margay")?;
        expect(&control, "export-deferred", "held back until")?;
        expect(&control, "export-started", "advertising routes")?;

        // A follower sees what happens from here on, in order.
        let mut follower = Command::new(margay::binary()?)
            .args(["events", "--follow", "--json", "--peer", "tor", "--last", "0", "--socket"])
            .arg(control.socket())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(follower.stdout.take().context("no output")?).lines();
        let mut next = || -> Result<Value> {
            Ok(serde_json::from_str(&lines.next().context("the stream ended")??)?)
        };

        control.text(&["drain", "tor", "--reason", "disk"])?;
        expect(&control, "drain", "draining tor")?;
        control.text(&["undrain", "tor"])?;
        expect(&control, "undrain", "drain ended")?;
        let file = host.file("margay.toml");
        let good = std::fs::read_to_string(&file)?;
        std::fs::write(&file, format!("{good}\nnonsense = 1\n"))?;
        daemon.signal("HUP")?;
        expect(&control, "reload-refused", "nonsense")?;
        let status = control.json(&["show", "status"])?;
        ensure!(status["reload_refused"]["text"].to_string().contains("nonsense"), "{status}");
        std::fs::write(&file, good)?;
        control.text(&["reload"])?;
        expect(&control, "reloaded", "configuration reloaded")?;
        ensure!(control.json(&["show", "status"])?["reload_refused"].is_null());

        // BIRD is killed: its routes are kept until it returns.
        if let Some(mut killed) = running.take() {
            killed.daemon().crash()?;
        }
        let down = expect(&control, "session-down", "")?;
        expect(&control, "stale-kept", "RFC 4724")?;
        let seen = [next()?, next()?];
        let names = seen.each_ref().map(|event| event["event"].to_string());
        ensure!(names == ["\"session-down\"", "\"stale-kept\""], "{seen:?}");
        ensure!(seen[0]["number"] == down["number"], "{seen:?}");
        follower.kill()?;
        follower.wait()?;

        // It returns without its route, and with its operator's request to stop the session.
        running = Some(bird(&far, &host, graceful)?);
        wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;
        let birdc = running.as_ref().context("no BIRD")?;
        birdc.ask("disable \"n*\"")?;
        let meant = expect(&control, "session-down", "Administrative Shutdown")?;
        ensure!(meant["level"] == "INFO", "a request is no warning: {meant}");
        Ok(())
    })
}
