//! Which connections become sessions: TCP MD5 keys and the kernel's memory for them, TTLs, local
//! addresses, and ranges with their dynamic peers.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS};
use interop::message::{announcement, nlri, open};
use interop::raw::RawPeer;
use interop::wait::{PATIENCE, holds_for, wait_until};

const PORT: u16 = 1790;
/// How long a test watches for what must not happen.
const WATCH: Duration = Duration::from_secs(2);

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[], &["python3"], test)
}

fn config(host: &Host, neighbors: &str) -> String {
    format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"10.99.0.1\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         {neighbors}\n[fib]\nenabled = false\n\n{}",
        margay::control_section(host)
    )
}

fn peer(address: IpAddr, more: &str) -> String {
    format!(
        "[[bgp.peers]]\naddress = \"{address}\"\nport = {PORT}\nremote-asn = {PEER_AS}\n\
         passive = true\nimport = \"all\"\nexport = \"all\"\n{more}\n\n"
    )
}

fn range(prefix: &str, more: &str) -> String {
    format!(
        "[[bgp.dynamic-peers]]\nprefix = \"{prefix}\"\nremote-asn = {PEER_AS}\n\
         import = \"all\"\nexport = \"all\"\n{more}\n\n"
    )
}

fn v4(host: &Host) -> Result<Ipv4Addr> {
    match host.v4() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => anyhow::bail!("{address}"),
    }
}

fn reload(host: &Host, control: &Control, text: &str) -> Result<String> {
    host.write("margay.toml", text)?;
    control.text(&["reload"])
}

/// Number of peers whose error in `show peers` names the sysctl.
fn short_of_memory(control: &Control) -> Result<usize> {
    let peers = control.json(&["show", "peers"])?;
    let texts = peers.as_array().into_iter().flatten().map(|p| p["last_error"].to_string());
    Ok(texts.filter(|text| text.contains("net.core.optmem_max")).count())
}

/// Keys that exceed the kernel's memory for them are an error of their peers alone.
#[test]
#[ignore = "needs root"]
fn more_keys_than_fit_are_named_and_repaired_by_a_reload() -> Result<()> {
    run("keys-optmem", |lab| {
        let host = lab.host("a")?;
        host.shell("sysctl -qw net.core.optmem_max=20480")?;
        let peers = |password: fn(u8) -> String| -> String {
            let each = |n: u8| {
                peer(Ipv4Addr::new(10, 60, 0, n).into(), &format!("password = \"{}\"", password(n)))
            };
            (1..=200).map(each).collect()
        };
        let all_different = config(&host, &peers(|n| format!("secret {n}")));
        let (_daemon, control) = margay::start_text(&host, &all_different)?;
        let short = short_of_memory(&control)?;
        ensure!((20..180).contains(&short), "{short} of 200 peers are named");
        // Equal passwords need few keys.
        reload(&host, &control, &config(&host, &peers(|_| "secret".into())))?;
        let left = short_of_memory(&control)?;
        ensure!(left == 0, "{left} with equal passwords");
        reload(&host, &control, &all_different)?;
        let again = short_of_memory(&control)?;
        ensure!(again == short, "{again}, not {short}");
        host.shell("sysctl -qw net.core.optmem_max=131072")?;
        control.text(&["reload"])?;
        let left = short_of_memory(&control)?;
        ensure!(left == 0, "{left} after the sysctl was raised");
        Ok(())
    })
}

/// Unsigned connections from a peer with a password, during reloads that change passwords.
#[test]
#[ignore = "needs root"]
fn unsigned_connections_are_refused_while_passwords_change() -> Result<()> {
    run("keys-reload", |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        let text = |password: &str| {
            let key = format!("password = \"{password}\"");
            let mut peers = peer(other.v4(), &key);
            (1..=100).for_each(|n| peers.push_str(&peer(Ipv4Addr::new(10, 60, 0, n).into(), &key)));
            config(&host, &peers)
        };
        let (_daemon, control) = margay::start_text(&host, &text("a"))?;
        let mut script = String::new();
        // A hundred connections at a time, none of which the kernel may complete.
        let _ = write!(
            script,
            "import socket,time\nend=time.time()+6\nseen=0\nwhile time.time()<end:\n \
             s=[socket.socket() for _ in range(100)]\n \
             [x.setblocking(False) for x in s]\n \
             [x.connect_ex(('{}',{PORT})) for x in s]\n time.sleep(0.01)\n \
             for x in s:\n  try:\n   x.getpeername()\n   x.setblocking(True)\n   x.settimeout(1)\n   \
             seen+=1 if x.recv(19) else 0\n  except OSError: pass\n  x.close()\nprint(seen)\n",
            host.v4()
        );
        let path = other.write("knock.py", &script)?;
        let knocking = {
            let (other, path) = (other.clone(), path.clone());
            std::thread::spawn(move || other.run("python3", &[&path.to_string_lossy()]))
        };
        for round in 0..20 {
            reload(&host, &control, &text(if round % 2 == 0 { "b" } else { "a" }))?;
        }
        let answered = knocking.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(answered.trim() == "0", "{answered} unsigned connections were answered");
        let state = control.peer(other.v4())?["state"].clone();
        ensure!(state == "Active", "{state}");
        Ok(())
    })
}

/// GTSM (RFC 5082): a connection with too low a TTL is refused, even if all of its messages arrive
/// before it is accepted.
#[test]
#[ignore = "needs root"]
fn connections_with_too_low_a_ttl_are_refused() -> Result<()> {
    run("gtsm-first-flight", |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        let text = config(&host, &peer(other.v4(), "ttl-security = 1"));
        let (_daemon, control) = margay::start_text(&host, &text)?;
        let mut raw = RawPeer::start(&other)?;
        let hello = open(PEER_AS, 90, v4(&other)?, &[])?;
        let route = announcement(PEER_AS, v4(&other)?, &[], &[nlri([198, 51, 100, 0].into(), 24)])?;
        let all = [hello, interop::message::KEEPALIVE.to_vec(), route].concat();
        for (ttl, near) in [(64, false), (254, false), (255, true)] {
            other.shell(&format!("sysctl -qw net.ipv4.ip_default_ttl={ttl}"))?;
            for id in 0..10u64 {
                let id = id + ttl * 100;
                // It may be reset before `connected` is reported.
                if raw.connect(id, host.v4(), PORT).is_ok() {
                    raw.send(id, &all)?;
                }
                if near {
                    break;
                }
            }
            let is_there = || -> Result<()> {
                ensure!(!control.paths("198.51.100.0/24")?.is_empty(), "no route");
                Ok(())
            };
            if near {
                wait_until(PATIENCE, "the route", is_there)?;
            } else {
                holds_for(WATCH, "no session with a low TTL", || {
                    ensure!(is_there().is_err(), "a route with TTL {ttl}");
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root"]
fn connections_to_another_address_of_ours_are_refused() -> Result<()> {
    run("source-address", |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        host.shell("ip addr add 10.99.0.200/24 dev eth0")?;
        let key = format!("source-address = \"{}\"", host.v4());
        let (_daemon, control) =
            margay::start_text(&host, &config(&host, &peer(other.v4(), &key)))?;
        let mut raw = RawPeer::start(&other)?;
        let hello = open(PEER_AS, 90, v4(&other)?, &[])?;
        if raw.connect(1, [10, 99, 0, 200].into(), PORT).is_ok() {
            raw.send(1, &hello)?;
            raw.wait_closed(1, PATIENCE)?;
            ensure!(raw.heard(1)?.is_empty(), "it was answered");
        }
        raw.establish(2, host.v4(), PORT, &hello)?;
        wait_until(PATIENCE, "the session", || control.expect_established(other.v4()))
    })
}

/// A configured peer takes precedence over a dynamic peer of the same address, even an established
/// one.
#[test]
#[ignore = "needs root"]
fn a_configured_peer_replaces_a_dynamic_one() -> Result<()> {
    run("static-over-dynamic", |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        let dynamic = range("10.99.0.0/24", "");
        let (_daemon, control) = margay::start_text(&host, &config(&host, &dynamic))?;
        let mut raw = RawPeer::start(&other)?;
        let hello = open(PEER_AS, 90, v4(&other)?, &[])?;
        raw.establish(1, host.v4(), PORT, &hello)?;
        let prefix = "198.51.100.0/24";
        let route = announcement(PEER_AS, v4(&other)?, &[], &[nlri([198, 51, 100, 0].into(), 24)])?;
        raw.send(1, &route)?;
        wait_until(PATIENCE, "its route", || {
            ensure!(control.paths(prefix)?.len() == 1, "none");
            Ok(())
        })?;
        let both = peer(other.v4(), "").replace("import = \"all\"", "import = \"none\"") + &dynamic;
        reload(&host, &control, &config(&host, &both))?;
        let (code, subcode, _) = raw.wait_notification(1, PATIENCE)?;
        ensure!((code, subcode) == (6, 6), "{code}/{subcode}");
        wait_until(PATIENCE, "its route to go", || {
            ensure!(control.paths(prefix)?.is_empty(), "still there");
            Ok(())
        })?;
        raw.establish(2, host.v4(), PORT, &hello)?;
        raw.send(2, &route)?;
        wait_until(PATIENCE, "the configured peer", || {
            let peer = control.peer(other.v4())?;
            ensure!(peer["state"] == "Established", "{peer}");
            Ok(())
        })?;
        let peers = control.json(&["show", "peers"])?;
        ensure!(peers.as_array().map(Vec::len) == Some(1), "{peers}");
        holds_for(WATCH, "its import policy", || {
            let paths = control.paths(prefix)?;
            let usable = paths.iter().filter(|p| p["best"] == true).count();
            ensure!(usable == 0, "{paths:?}");
            Ok(())
        })
    })
}

/// A range counts its own peers, not those of longer ranges inside it.
#[test]
#[ignore = "needs root"]
fn nested_ranges_count_their_own_peers() -> Result<()> {
    run("nested-ranges", |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        let ranges =
            range("10.99.0.0/24", "peers-max = 1") + &range("10.99.0.192/26", "peers-max = 9");
        let (_daemon, control) = margay::start_text(&host, &config(&host, &ranges))?;
        other.shell("for n in 200 201 202; do ip addr add 10.99.0.$n/24 dev eth0; done")?;
        let mut raw = RawPeer::start(&other)?;
        for (id, last) in [(1u64, 200u8), (2, 201), (3, 202)] {
            let from = Ipv4Addr::new(10, 99, 0, last);
            raw.connect_from(id, from.into(), host.v4(), PORT)?;
            raw.send(id, &open(PEER_AS, 90, from, &[])?)?;
            raw.wait_message(id, interop::message::OPEN, 0, PATIENCE)?;
        }
        // The outer range has room for one more peer.
        raw.establish(4, host.v4(), PORT, &open(PEER_AS, 90, v4(&other)?, &[])?)?;
        let state = control.peer(other.v4())?["state"].clone();
        ensure!(state == "Established", "{state}");
        Ok(())
    })
}

/// A close because of a limit reaches its session however many connections are pending, and no
/// later session of that peer.
#[test]
#[ignore = "needs root"]
fn a_limit_is_enforced_while_connections_flood() -> Result<()> {
    run("limit-under-flood", |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        let text = config(&host, &range("10.99.0.0/24", "prefixes-max = 5"));
        let (daemon, control) = margay::start_text(&host, &text)?;
        let mut raw = RawPeer::start(&other)?;
        raw.establish(1, host.v4(), PORT, &open(PEER_AS, 90, v4(&other)?, &[])?)?;
        daemon.signal("STOP")?;
        let script = format!(
            "import socket,time\ns=[socket.socket() for _ in range(300)]\n\
             [x.setblocking(False) for x in s]\n[x.connect_ex(('{}',{PORT})) for x in s]\ntime.sleep(1)\n",
            host.v4()
        );
        let path = other.write("flood.py", &script)?;
        other.run("python3", &[&path.to_string_lossy()])?;
        let prefixes: Vec<_> = (0..8u8).map(|n| nlri([100, 64, n, 0].into(), 24)).collect();
        raw.send(1, &announcement(PEER_AS, v4(&other)?, &[], &prefixes)?)?;
        daemon.signal("CONT")?;
        let (code, subcode, _) = raw.wait_notification(1, PATIENCE)?;
        ensure!((code, subcode) == (6, 1), "{code}/{subcode}");
        wait_until(PATIENCE, "the idle hold", || {
            ensure!(control.peer(other.v4())?["state"] == "Idle", "not idle");
            Ok(())
        })
    })
}

/// A local address that returns triggers a connection attempt at once; after a long outage the
/// retry timer would run for another minute.
#[test]
#[ignore = "needs root"]
fn a_returning_address_triggers_a_connection_attempt() -> Result<()> {
    run("dial-again", |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        let mut raw = RawPeer::start(&other)?;
        host.shell("ip addr del 10.99.0.1/24 dev eth0")?;
        let text = peer(other.v4(), "connect-retry-time = 60").replace("passive = true\n", "");
        let (_daemon, control) = margay::start_text(&host, &config(&host, &text))?;
        wait_until(PATIENCE, "a failed attempt", || {
            let peer = control.peer(other.v4())?;
            ensure!(peer["messages"]["connect_failures"].as_u64() > Some(0), "{peer}");
            Ok(())
        })?;
        raw.listen(7, PORT, interop::raw::Answer::Accept)?;
        holds_for(WATCH, "no connection attempt", || {
            ensure!(raw.wait_accepted(7, Duration::ZERO).is_err(), "dialled without a reason");
            Ok(())
        })?;
        host.shell("ip addr add 10.99.0.1/24 dev eth0")?;
        raw.wait_accepted(7, Duration::from_secs(10))
    })
}
