//! Monitoring stations: other people's receivers know, session by session and route by route, what margay shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::daemon::Daemon;
use interop::lab::{self, Host, Lab, run_command};
use interop::margay::{self, Control};
use interop::matrix::{self, PEER_AS, SUBJECT_AS};
use interop::message;
use interop::raw::RawPeer;
use interop::speaker::{Family, Kind, Origin, Speaker};
use interop::wait::{PATIENCE, wait_until};
use serde_json::Value;

const PORT: u16 = 1790;
const STATION_PORT: u16 = 11019;
/// Routes that BIRD announces; the import policy refuses a tenth of them.
const PLAIN: usize = 100;
/// What margay says that it sends.
const RIBS: &str = "\"loc-rib\", \"adj-rib-in-pre-policy\", \"adj-rib-in-post-policy\", \
                    \"adj-rib-out-pre-policy\", \"adj-rib-out-post-policy\"";

/// A connection to the address and port of its arguments that sends octets, and reads nothing.
const BABBLE: &str = r"
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
s.settimeout(5)
try:
    for _ in range(400):
        s.sendall(b'\x03garbage' * 1000)
except OSError:
    sys.exit(0)
sys.exit('2.8 MB of garbage were accepted')
";
/// Prints how many octets it is sent before the connection ends, or in two seconds.
const COUNT: &str = r"
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
s.settimeout(2)
total = 0
try:
    while True:
        octets = s.recv(65536)
        if not octets: break
        total += len(octets)
except OSError:
    pass
print(total)
";

type Routes = BTreeMap<String, (String, String)>;

fn bird(far: &Host, host: &Host) -> Result<Bird2> {
    let origins = ["2001:db8:1::/48", "198.51.100.1/32"];
    let mut config = matrix::config(far, PEER_AS, &[(host, SUBJECT_AS)], &origins);
    let more = (0..PLAIN).map(|n| Origin::plain(&format!("10.{}.{}.0/24", n / 10, n)));
    config.origins.extend(more);
    config.neighbors.iter_mut().for_each(|n| n.families = vec![Family::V4, Family::V6]);
    Bird2::start(far, &config)
}

fn configuration(host: &Host, far: &Host, more: &str) -> String {
    format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         [[bgp.peers]]\nname = \"tor\"\naddress = \"{}\"\nport = {PORT}\nremote-asn = {PEER_AS}\n\
         import = \"some\"\nexport = \"most\"\nconnect-retry-time = 1\nfamilies = [\"ipv4\", \"ipv6\"]\n\n\
         [[policy]]\nname = \"some\"\ndefault = \"accept\"\n\
         [[policy.rules]]\nmatch = {{ prefixes = [\"10.3.0.0/16 or-longer\"] }}\nthen = \"reject\"\n\n\
         [[policy]]\nname = \"most\"\ndefault = \"accept\"\n\
         [[policy.rules]]\nmatch = {{ prefixes = [\"198.18.0.0/15\"] }}\nthen = \"reject\"\n\n\
         [[originate]]\nprefix = \"192.0.2.0/24\"\n\n\
         [[originate]]\nprefix = \"198.18.0.0/15\"\n\n\
         [[originate]]\nprefix = \"2001:db8:2::/48\"\n\n{more}\n{}",
        host.router_id(),
        far.v4(),
        margay::control_section(host)
    )
}

/// An UPDATE whose ORIGIN has a value that there is not: treated as withdrawal (RFC 7606 §7.1).
fn treated_as_withdraw(far: &Host) -> Result<Vec<u8>> {
    let prefixes = [message::nlri(Ipv4Addr::new(203, 0, 113, 0), 24)];
    let mut octets = message::announcement(PEER_AS, far.router_id(), &[], &prefixes)?;
    let origin = octets.windows(3).position(|of| of == [0x40, 1, 1]).context("no ORIGIN")?;
    octets[origin + 3] = 7;
    Ok(octets)
}

/// What tshark prints of a capture.
fn dissect(capture: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new("tshark");
    let decode = format!("tcp.port=={STATION_PORT},bmp");
    run_command(command.env("LC_ALL", "C").arg("-r").arg(capture).args(["-d", &decode]).args(args))
}

/// What tshark says of the messages in a capture, and the octets that were sent to the station, in hexadecimal.
fn mirrored(capture: &Path) -> Result<(String, String)> {
    let run = |args: &[&str]| dissect(capture, args);
    let to = format!("tcp.dstport=={STATION_PORT} && !tcp.analysis.retransmission");
    let octets = run(&["-Y", &to, "-T", "fields", "-e", "tcp.payload"])?;
    Ok((run(&["-Y", "bmp.type==6", "-V"])?, octets.replace(['\n', ':'], "")))
}

fn dialled(far: &Host, ribs: &str) -> String {
    format!(
        "[[bmp]]\nname = \"noc\"\naddress = \"{}\"\nport = {STATION_PORT}\nribs = [{ribs}]\n\
         statistics-interval = 5\n",
        far.v4()
    )
}

/// pmacct's station; every message is a line of JSON in `log`.
fn pmbmpd(far: &Host, log: &Path) -> Result<Daemon> {
    let config = format!(
        "daemonize: false\nbmp_daemon_ip: {}\nbmp_daemon_port: {STATION_PORT}\nbmp_daemon_max_peers: 16\n\
         bmp_daemon_msglog_file: {}\nbmp_daemon_msglog_output: json\n",
        far.v4(),
        log.display()
    );
    let file = far.write("pmbmpd.conf", &config)?;
    far.daemon("pmbmpd.log", "pmbmpd", &["-f", &file.to_string_lossy()])
}

/// What a station that wrote this log knows: sessions by address, routes by RIB.
#[derive(Debug, Default)]
struct Known {
    up: BTreeSet<String>,
    ribs: BTreeMap<String, Routes>,
    statistics: usize,
    /// The last value of each, by peer, type, and AFI where it is of a family.
    counters: BTreeMap<(String, u64, Option<u64>), u64>,
    ends: Vec<Value>,
}

fn known(log: &Path) -> Result<Known> {
    let mut known = Known::default();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        // The last line may be incomplete.
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let flag = |key: &str| message[key] == 1;
        let peer = text("peer_ip");
        match (text("event_type").as_str(), text("bmp_msg_type").as_str()) {
            ("log_init" | "log_close", _) => {
                known =
                    Known { statistics: known.statistics, ends: known.ends, ..Known::default() };
            }
            (_, "peer_up") => {
                ensure!(known.up.insert(peer.clone()), "two Peer Up of {peer}");
            }
            (_, "peer_down") => {
                ensure!(known.up.remove(&peer), "Peer Down of {peer}, which was not up");
                known.ribs.retain(|rib, _| !rib.starts_with(&format!("{peer} ")));
                known.ends.push(message.clone());
            }
            (_, "stats") => {
                known.statistics += 1;
                let number = |key: &str| message[key].as_u64();
                let kind = number("counter_type").context("no type")?;
                let value = number("counter_value").context("no value")?;
                known.counters.insert((peer, kind, number("afi")), value);
            }
            (_, "route_monitor") if !text("ip_prefix").is_empty() => {
                ensure!(known.up.contains(&peer), "a route of {peer} before its Peer Up");
                let rib = match (flag("is_loc"), flag("is_out"), flag("is_post")) {
                    (true, ..) => "loc",
                    (_, true, true) => "out-post",
                    (_, true, false) => "out-pre",
                    (_, false, true) => "in-post",
                    (_, false, false) => "in-pre",
                };
                let routes = known.ribs.entry(format!("{peer} {rib}")).or_default();
                if text("log_type") == "update" {
                    routes.insert(text("ip_prefix"), (text("bgp_nexthop"), text("as_path")));
                } else {
                    routes.remove(&text("ip_prefix"));
                }
            }
            _ => {}
        }
    }
    Ok(known)
}

fn shown(control: &Control, args: &[&str], chosen: impl Fn(&Value) -> bool) -> Result<Routes> {
    let routes = control.json(&[&["show"], args].concat())?;
    let mut all = Routes::new();
    for route in routes.as_array().context("not a list")? {
        let prefix = route["prefix"].as_str().context("no prefix")?;
        for path in
            route["paths"].as_array().context("no paths")?.iter().filter(|path| chosen(path))
        {
            let unset = if prefix.contains(':') { "::" } else { "0.0.0.0" };
            let hop = path["next_hop"].as_str().unwrap_or(unset).to_owned();
            let asns = path["as_path"].as_array().map(Vec::as_slice).unwrap_or_default();
            let asns: Vec<String> = asns.iter().map(ToString::to_string).collect();
            all.insert(prefix.to_owned(), (hop, asns.join(" ")));
        }
    }
    Ok(all)
}

/// Waits until the station knows what margay shows, and nothing else.
fn expect_equal(control: &Control, far: &Host, log: &Path, up: bool) -> Result<Known> {
    let peer = far.v4().to_string();
    wait_until(PATIENCE, "the station to know what margay shows", || {
        let known = known(log)?;
        let mut expected = BTreeMap::from([(
            "0.0.0.0 loc".to_owned(),
            shown(control, &["routes"], |path| path["best"] == true)?,
        )]);
        let mut sessions = BTreeSet::from(["0.0.0.0".to_owned()]);
        if up {
            sessions.insert(peer.clone());
            let is_accepted = |path: &Value| path["unusable"] != "rejected by import policy";
            // The policy is asked about the best paths of others.
            let is_offered = |path: &Value| path["best"] == true && path["peer"].is_null();
            for (rib, routes) in [
                ("in-pre", shown(control, &["received", "tor"], |_| true)?),
                ("in-post", shown(control, &["received", "tor"], is_accepted)?),
                ("out-pre", shown(control, &["routes"], is_offered)?),
                ("out-post", shown(control, &["advertised", "tor"], |_| true)?),
            ] {
                expected.insert(format!("{peer} {rib}"), routes);
            }
        }
        ensure!(known.up == sessions, "sessions: {:?}", known.up);
        for (rib, routes) in &expected {
            let found = known.ribs.get(rib).cloned().unwrap_or_default();
            ensure!(found == *routes, "{rib}: {found:#?}\nbut margay shows {routes:#?}");
        }
        ensure!(known.ribs.keys().all(|rib| expected.contains_key(rib)), "{:?}", known.ribs.keys());
        Ok(known)
    })
}

/// Waits until the statistics are the numbers of routes that margay shows.
fn expect_statistics(control: &Control, far: &Host, log: &Path) -> Result<()> {
    wait_until(PATIENCE, "statistics of what margay shows", || {
        let known = known(log)?;
        let best = shown(control, &["routes"], |path| path["best"] == true)?;
        let received = shown(control, &["received", "tor"], |_| true)?;
        let sent = shown(control, &["advertised", "tor"], |_| true)?;
        let tor = far.v4().to_string();
        // RFC 7854 §4.8, RFC 8671 §6.2: the type of all, and the one of each family. pmacct does not say of
        // which family type 17 is.
        let all =
            [("0.0.0.0", 8, Some(10), best), (&tor, 7, Some(9), received), (&tor, 15, None, sent)];
        for (peer, kind, of_family, routes) in all {
            let value = |kind, afi| known.counters.get(&(peer.to_owned(), kind, afi)).copied();
            let of_ipv6 = routes.keys().filter(|prefix| prefix.contains(':')).count() as u64;
            let count = routes.len() as u64;
            let expected = [count - of_ipv6, of_ipv6].map(Some);
            if let Some(of_family) = of_family {
                let found = [value(of_family, Some(1)), value(of_family, Some(2))];
                ensure!(
                    found == expected,
                    "{peer}, type {of_family}: {found:?}, {expected:?} shown"
                );
            }
            let found = value(kind, None);
            ensure!(found == Some(count), "{peer}, type {kind}: {found:?}, {count} shown");
        }
        Ok(())
    })
}

fn station(control: &Control) -> Result<Value> {
    let all = control.json(&["show", "bmp"])?;
    all.as_array().and_then(|all| all.first()).cloned().context("no station")
}

fn expect_state(control: &Control, state: &str) -> Result<Value> {
    wait_until(PATIENCE, "the station's state", || {
        let station = station(control)?;
        ensure!(station["state"] == state, "{station}");
        Ok(station)
    })
}

fn loaded(control: &Control) -> Result<()> {
    wait_until(PATIENCE, "every route", || {
        let routes = shown(control, &["routes"], |path| path["best"] == true)?;
        ensure!(routes.len() == PLAIN + 5 - 10, "{} routes", routes.len());
        let sent = shown(control, &["advertised", "tor"], |_| true)?;
        ensure!(sent.len() == 2, "{sent:?}");
        Ok(())
    })
}

/// Captures what the station is sent, once it has begun.
fn capture(far: &Host) -> Result<(Daemon, PathBuf)> {
    let capture = far.file("bmp.pcap");
    let filter = format!("tcp port {STATION_PORT}");
    let arguments = ["-i", "any", "-f", &filter, "-w", &capture.to_string_lossy()];
    let tshark = far.daemon("tshark.log", "tshark", &arguments)?;
    wait_until(PATIENCE, "the capture", || {
        ensure!(tshark.output().contains("Capturing on"), "{}", tshark.output());
        Ok(())
    })?;
    Ok((tshark, capture))
}

/// No message that tshark cannot dissect, and some of each kind.
fn expect_dissected(capture: &Path) -> Result<()> {
    let run = |args: &[&str]| dissect(capture, args);
    let (mut message, mut peer) = (String::new(), String::new());
    for line in run(&["-Y", "bmp", "-V"])?.lines().map(str::trim) {
        if line.starts_with("BGP Monitoring Protocol, ") {
            (message, peer) = (line.to_owned(), String::new());
        } else if line.starts_with("Type: ") && peer.is_empty() && line.contains("Instance Peer") {
            line.clone_into(&mut peer);
        }
        // tshark 4.0 takes the TLV with the table's name, which RFC 9069 §5.2.1 wants, for a third OPEN.
        let is_known = message.contains("Peer Up") && peer.contains("Loc-RIB");
        let is_fault = line == "[Severity level: Error]" && !is_known;
        ensure!(!is_fault, "tshark refuses {message} of {peer}");
    }
    let kinds = run(&["-Y", "bmp", "-T", "fields", "-e", "bmp.type", "-E", "aggregator=,"])?;
    let kinds: BTreeSet<&str> = kinds.split([',', '\n']).filter(|kind| !kind.is_empty()).collect();
    // Route Monitoring, Statistics Report, Peer Down, Peer Up, Initiation, Termination.
    ensure!(kinds == BTreeSet::from(["0", "1", "2", "3", "4", "5"]), "message types {kinds:?}");
    Ok(())
}

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &["pmbmpd", "tshark", "python3"], test)
}

#[test]
#[ignore = "needs root, BIRD 2, pmbmpd and tshark"]
fn a_station_knows_what_margay_shows() -> Result<()> {
    run("bmp_routes", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let (mut tshark, capture) = capture(&far)?;
        let log = far.file("first.json");
        let station_daemon = pmbmpd(&far, &log)?;
        let mut bird_daemon = bird(&far, &host)?;
        let (mut daemon, control) =
            margay::start_text(&host, &configuration(&host, &far, &dialled(&far, RIBS)))?;
        loaded(&control)?;
        expect_equal(&control, &far, &log, true)?;

        // A frozen station holds nothing up; it learns what changed meanwhile.
        station_daemon.signal("STOP")?;
        bird_daemon.daemon().terminate()?;
        wait_until(PATIENCE, "the end of the session", || {
            ensure!(control.peer(far.v4())?["state"] != "Established");
            Ok(())
        })?;
        wait_until(PATIENCE, "the withdrawal", || {
            let routes = shown(&control, &["routes"], |path| path["best"] == true)?;
            ensure!(routes.len() == 3, "{} routes", routes.len());
            Ok(())
        })?;
        ensure!(station(&control)?["state"] == "up");
        station_daemon.signal("CONT")?;
        let after = expect_equal(&control, &far, &log, false)?;
        ensure!(!after.ends.is_empty(), "no Peer Down");
        let _bird = bird(&far, &host)?;
        loaded(&control)?;
        expect_equal(&control, &far, &log, true)?;
        wait_until(PATIENCE, "statistics", || {
            ensure!(known(&log)?.statistics >= 2);
            Ok(())
        })?;
        expect_statistics(&control, &far, &log)?;

        // A reload that changes what it is sent begins another connection and touches no session.
        let changes = control.peer(far.v4())?["flaps"].clone();
        host.write("margay.toml", &configuration(&host, &far, &dialled(&far, "\"loc-rib\"")))?;
        let said = control.text(&["reload"])?;
        ensure!(said.contains("monitoring stations: changed"), "{said}");
        wait_until(PATIENCE, "the Loc-RIB alone", || {
            let known = known(&log)?;
            ensure!(known.up.len() == 1 && known.ribs.len() == 1, "{:?}", known.up);
            Ok(())
        })?;
        control.expect_established(far.v4())?;
        ensure!(control.peer(far.v4())?["flaps"] == changes);
        let text = control.text(&["show", "bmp"])?;
        ensure!(text.contains("noc") && text.contains("loc-rib"), "{text}");

        daemon.terminate()?;
        // tshark writes what it captured when it likes.
        wait_until(PATIENCE, "every message in the capture", || expect_dissected(&capture))?;
        tshark.terminate()?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root, BIRD 2, pmbmpd and tshark"]
fn malformed_messages_are_mirrored_verbatim_before_the_peer_down() -> Result<()> {
    run("bmp_mirror", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let (mut tshark, capture) = capture(&far)?;
        let log = far.file("mirror.json");
        let _station = pmbmpd(&far, &log)?;
        let more = dialled(&far, "\"loc-rib\"") + "mirror = \"errors\"\n";
        let (_daemon, control) = margay::start_text(&host, &configuration(&host, &far, &more))?;
        expect_state(&control, "up")?;
        let mut raw = RawPeer::start(&far)?;
        raw.establish(1, host.v4(), PORT, &message::open(PEER_AS, 90, far.router_id(), &[])?)?;
        wait_until(PATIENCE, "the Peer Up", || {
            ensure!(known(&log)?.up.contains(&far.v4().to_string()), "no Peer Up");
            Ok(())
        })?;

        // Valid, treated as withdrawal, and with a length that ends the session.
        let valid = [message::nlri(Ipv4Addr::new(198, 51, 100, 0), 24)];
        let valid = message::announcement(PEER_AS, far.router_id(), &[], &valid)?;
        let withdrawn = treated_as_withdraw(&far)?;
        let fatal = message::message(message::UPDATE, &[0xff, 0xff, 0, 0])?;
        for octets in [&valid, &withdrawn, &fatal] {
            raw.send(1, octets)?;
        }
        raw.wait_notification(1, PATIENCE)?;
        wait_until(PATIENCE, "the Peer Down", || {
            ensure!(!known(&log)?.ends.is_empty(), "no Peer Down");
            Ok(())
        })?;
        // tshark writes what it captured when it likes.
        wait_until(PATIENCE, "the mirrored messages in the capture", || {
            let (said, sent) = mirrored(&capture)?;
            let messages = said.matches("Protocol, Type Route Mirroring").count();
            ensure!(messages == 2, "{messages} Route Mirroring messages: {said}");
            let place = |what: &[u8]| {
                let len = u16::try_from(what.len())?.to_be_bytes();
                // The Information TLV, and the message in its own.
                let tlvs = [&[0, 1, 0, 2, 0, 0, 0, 0][..], &len, what].concat();
                sent.find(&message::to_hex(&tlvs)).with_context(|| message::to_hex(what))
            };
            ensure!(place(&withdrawn)? < place(&fatal)?, "not in order");
            ensure!(place(&valid).is_err(), "what is valid is not mirrored");
            Ok(())
        })?;
        tshark.terminate()?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root, BIRD 2, pmbmpd and tshark"]
fn stations_that_are_away_refused_or_babble_harm_nothing() -> Result<()> {
    run("bmp_hostile", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let (listens, refuses) = (STATION_PORT + 1, STATION_PORT + 2);
        let passive = format!(
            "{}[[bmp]]\nname = \"passive\"\nlisten = \"0.0.0.0:{listens}\"\nfrom = [\"{}\"]\n\n\
             [[bmp]]\nname = \"strict\"\nlisten = \"0.0.0.0:{refuses}\"\nfrom = [\"192.0.2.99\"]\n",
            dialled(&far, RIBS),
            far.v4()
        );
        let _bird = bird(&far, &host)?;
        let (_daemon, control) = margay::start_text(&host, &configuration(&host, &far, &passive))?;
        loaded(&control)?;

        // Away: tried again, and served when it comes.
        let away = station(&control)?;
        ensure!(away["last_error"].as_str().is_some_and(|why| why.contains("refused")), "{away}");
        let log = far.file("late.json");
        let mut late = pmbmpd(&far, &log)?;
        expect_state(&control, "up")?;
        expect_equal(&control, &far, &log, true)?;
        // Gone without a word, and back: the whole state, once more.
        late.crash()?;
        let log = far.file("again.json");
        let _again = pmbmpd(&far, &log)?;
        expect_equal(&control, &far, &log, true)?;

        let find = |name: &str| -> Result<Value> {
            let all = control.json(&["show", "bmp"])?;
            let mut all = all.as_array().context("not a list")?.iter();
            all.find(|station| station["name"] == name).cloned().context("no such station")
        };
        let at = host.v4().to_string();
        let script =
            |code: &str, port: u16| far.run("python3", &["-c", code, &at, &port.to_string()]);
        ensure!(script(COUNT, refuses)?.trim() == "0", "a stranger is told something");
        ensure!(find("strict")?["refused"] == 1, "{}", find("strict")?);
        script(BABBLE, listens)?;
        wait_until(PATIENCE, "the end of the connection", || {
            let station = find("passive")?;
            ensure!(station["state"] == "listening", "{station}");
            let why = station["last_error"].as_str().unwrap_or_default();
            ensure!(why.contains("sent more than") || why.contains("reset"), "{station}");
            Ok(())
        })?;
        let octets: u64 = script(COUNT, listens)?.trim().parse()?;
        ensure!(octets > 1000, "{octets} octets for a station that only reads");
        control.expect_established(far.v4())?;
        expect_equal(&control, &far, &log, true)?;
        Ok(())
    })
}
