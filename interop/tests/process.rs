//! The process and its environment: a log without a reader, a full disk, no descriptors, a start
//! before the network is up, a stop while routes change.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::daemon::Daemon;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS, neighbor};
use interop::message::{KEEPALIVE_TYPE, announcement, nlri, open};
use interop::raw::RawPeer;
use interop::speaker::{Config, Kind, Origin, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, holds_for, wait_until};

const PORT: u16 = 1790;
const OWN_ROUTE: &str = "192.0.2.0/24";
const PEER_ROUTE: &str = "198.51.100.0/24";
/// Hold time of the sessions that must not be affected, in seconds: one KEEPALIVE a second.
const HOLD_TIME: u16 = 3;
/// The longest gap between two KEEPALIVEs of such a session on this machine.
const GAP_MAX: Duration = Duration::from_secs(2);

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &["python3"], test)
}

/// `[bgp]` with an external neighbour at each of `peers`, and `more` tables.
fn config(host: &Host, listen: &str, peers: &[IpAddr], more: &str) -> String {
    let mut text = format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [{listen}]\n\n",
        host.router_id()
    );
    for peer in peers {
        text += &format!(
            "[[bgp.peers]]\naddress = \"{peer}\"\nport = {PORT}\nremote-asn = {PEER_AS}\n\
             import = \"all\"\nexport = \"all\"\nhold-time = {HOLD_TIME}\nconnect-retry-time = 1\n\n"
        );
    }
    text += &format!("[[originate]]\nprefix = \"{OWN_ROUTE}\"\n\n{more}\n");
    text + &margay::control_section(host)
}

fn any(port: u16) -> String {
    format!("\"0.0.0.0:{port}\"")
}

fn v4(host: &Host) -> Result<Ipv4Addr> {
    match host.v4() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => anyhow::bail!("{address}"),
    }
}

fn bird(of: &Host, margay: &Host, graceful: bool, routes: &[&str]) -> Result<Bird2> {
    let mut n = neighbor(margay.v4(), of.v4(), SUBJECT_AS);
    (n.graceful_restart, n.hold_time) = (graceful, 30);
    let config = Config {
        asn: PEER_AS,
        router_id: of.router_id(),
        port: PORT,
        neighbors: vec![n],
        origins: routes.iter().map(|route| Origin::plain(route)).collect(),
    };
    Bird2::start(of, &config)
}

/// A session with [`HOLD_TIME`] from a host of its own, which records every KEEPALIVE.
struct Watched {
    raw: RawPeer,
}

impl Watched {
    fn establish(from: &Host, to: &Host) -> Result<Self> {
        let mut raw = RawPeer::start(from)?;
        raw.establish(1, to.v4(), PORT, &open(PEER_AS, HOLD_TIME, v4(from)?, &[])?)?;
        Ok(Self { raw })
    }

    /// The session is up, and no gap between KEEPALIVEs exceeds [`GAP_MAX`].
    fn expect_steady(&self, at_least: usize) -> Result<()> {
        ensure!(self.raw.closed(1).is_none(), "the session was closed: {:?}", self.raw.closed(1));
        let heard = self.raw.heard(1)?;
        let at: Vec<Duration> =
            heard.iter().filter(|m| m.kind == KEEPALIVE_TYPE).map(|m| m.at).collect();
        ensure!(at.len() >= at_least, "{} KEEPALIVEs", at.len());
        let gap = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        ensure!(gap <= GAP_MAX, "silent for {gap:?}");
        Ok(())
    }
}

/// The reader of the log has stopped and the pipe is full: sessions, probes, commands and the end
/// of the process are not affected.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_log_without_a_reader_blocks_nothing() -> Result<()> {
    run("process-log", |lab| {
        let (host, quiet) = (lab.host("a")?, lab.host("b")?);
        // More log lines than a page holds: each of these peers refuses the connection.
        let refusing = (0..100u32).map(|n| Ipv4Addr::from(0x7f01_0000 + n).into());
        let peers: Vec<IpAddr> = std::iter::once(quiet.v4()).chain(refusing).collect();
        let text = config(&host, &any(PORT), &peers, "[fib]\nenabled = false\n");
        let mut command = margay::run_command_of(&host, &margay::binary()?, &text)?;
        let (reader, writer) = std::io::pipe()?;
        // One page.
        rustix::pipe::fcntl_setpipe_size(&writer, 4096)?;
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn()?;
        drop(command);
        let control = Control::of(&host);
        wait_until(PATIENCE, "the control socket", || control.text(&["show", "status"]).map(drop))?;
        let watched = Watched::establish(&quiet, &host)?;
        let waiting = || rustix::io::ioctl_fionread(&reader);
        wait_until(PATIENCE, "a full pipe", || {
            let before = waiting()?;
            std::thread::sleep(Duration::from_secs(3));
            // Lines are written whole: the rest of the page may be too small for the next one.
            ensure!(before > 0 && waiting()? == before, "{before} octets, and still written to");
            Ok(())
        })?;
        wait_until(PATIENCE, "KEEPALIVEs meanwhile", || watched.expect_steady(8))?;
        control.text(&["health", "--live"])?;
        let began = Instant::now();
        interop::lab::run_command(
            std::process::Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]),
        )?;
        let status = wait_until(PATIENCE, "the end", || child.try_wait()?.context("it runs"))?;
        ensure!(status.code() == Some(0), "{status}");
        ensure!(began.elapsed() < Duration::from_secs(10), "after {:?}", began.elapsed());
        Ok(())
    })
}

/// The disk with the log and the control socket is full: log lines are lost, and nothing else.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_full_disk_loses_only_log_lines() -> Result<()> {
    run("process-disk", |lab| {
        let (host, quiet) = (lab.host("a")?, lab.host("b")?);
        let disk = host.file("disk");
        std::fs::create_dir_all(&disk)?;
        let mount = [disk.to_string_lossy().into_owned()];
        lab::run_command(
            std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
                .args(&mount),
        )?;
        let tested = (|| {
            let socket = disk.join("margay.sock");
            let text = config(&host, &any(PORT), &[quiet.v4()], "[fib]\nenabled = false\n");
            let text = text.replace(
                &host.file("margay.sock").to_string_lossy().into_owned(),
                &socket.to_string_lossy(),
            );
            let fill = || std::fs::write(disk.join("filler"), vec![0u8; 1 << 20]).is_err();
            ensure!(fill(), "a tmpfs of 64 KiB took a mebibyte");
            let command = margay::run_command_of(&host, &margay::binary()?, &text)?;
            let mut daemon = Daemon::start(command, &disk.join("margay.log"))?;
            let control = Control::at(&socket);
            wait_until(PATIENCE, "the control socket", || {
                control.text(&["show", "status"]).map(drop)
            })?;
            let watched = Watched::establish(&quiet, &host)?;
            for level in ["debug", "trace", "info"].repeat(10) {
                control.text(&["log-level", level])?;
            }
            std::thread::sleep(Duration::from_secs(5));
            watched.expect_steady(4)?;
            control.text(&["health", "--live"])?;
            // With free space, logging resumes.
            std::fs::remove_file(disk.join("filler"))?;
            wait_until(PATIENCE, "the log to go on", || {
                control.text(&["log-level", "debug"])?;
                control.text(&["reload"])?;
                let log = daemon.output();
                ensure!(log.contains("lines of the log were dropped"), "{log}");
                Ok(())
            })?;
            let status = daemon.terminate()?;
            ensure!(status.code() == Some(0), "{status}");
            Ok(())
        })();
        lab::run_command(std::process::Command::new("umount").args(["-l"]).args(&mount))?;
        tested
    })
}

/// Silent connections use every descriptor that BGP may have: the session stays up, and operators
/// and probes are answered at once.
#[test]
#[ignore = "needs root and BIRD 2"]
fn operators_are_answered_when_descriptors_run_out() -> Result<()> {
    run("process-files", |lab| {
        let (host, quiet, crowd) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        crowd.shell("for n in 1 2 3; do for m in $(seq 1 250); do echo addr add 10.99.$((n+10)).$m/32 dev lo; done; done | ip -batch -")?;
        host.shell("for n in 1 2 3; do ip route add 10.99.$((n+10)).0/24 via 10.99.0.3; done")?;
        let ranges = format!(
            "[[bgp.dynamic-peers]]\nprefix = \"10.99.0.0/16\"\nremote-asn = {PEER_AS}\n\
             import = \"all\"\nexport = \"all\"\npeers-max = 4000\n\n[fib]\nenabled = false\n\
             [http]\nlisten = \"127.0.0.1:9479\"\n"
        );
        let text = config(&host, &any(PORT), &[quiet.v4()], &ranges);
        let path = host.write("margay.toml", &text)?.to_string_lossy().into_owned();
        let program = margay::binary()?.to_string_lossy().into_owned();
        let mut command = host.command("prlimit");
        command.args(["--nofile=256:256", &program, "run", "--config", &path]);
        let daemon = Daemon::start(command, &host.file("margay.log"))?;
        let (daemon, control) = margay::wait_answers(&host, daemon)?;
        let log = daemon.output();
        ensure!(
            log.contains("of 4000 dynamic peers (peers-max)"),
            "the shortage is not logged: {log}"
        );
        let watched = Watched::establish(&quiet, &host)?;
        let _crowd =
            crowd.command("python3").args(["-c", HALF_OPEN]).stdin(Stdio::piped()).spawn()?;
        wait_until(PATIENCE, "descriptors to run out", || {
            let log = daemon.output();
            ensure!(
                log.contains("no file descriptors are left beside those for operators")
                    || log.contains("file descriptors suffice for"),
                "{log}"
            );
            Ok(())
        })?;
        for _ in 0..10 {
            let began = Instant::now();
            control.text(&["health", "--live"])?;
            control.text(&["show", "peers"])?;
            let script = "import urllib.request as r; r.urlopen('http://127.0.0.1:9479/liveness', timeout=5)";
            host.run("python3", &["-c", script])?;
            ensure!(
                began.elapsed() < Duration::from_secs(4),
                "answered after {:?}",
                began.elapsed()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        watched.expect_steady(5)
    })
}

/// Opens connections to margay from hundreds of addresses, and sends nothing on any of them.
const HALF_OPEN: &str = "
import socket, time
held = []
while True:
    for n in range(11, 14):
        for m in range(1, 251):
            s = socket.socket()
            s.setblocking(False)
            s.bind((f'10.99.{n}.{m}', 0))
            s.connect_ex(('10.99.0.1', 1790))
            held.append(s)
    time.sleep(1)
    for s in held[:-1500]:
        s.close()
    held = held[-1500:]
";

/// An address to listen on appears after margay's start, as by DHCP: margay names it, serves the
/// others, and listens on it when it is there.
#[test]
#[ignore = "needs root and BIRD 2"]
fn an_address_that_appears_later_is_listened_on() -> Result<()> {
    const LATER: &str = "10.99.0.77";
    run("process-late", |lab| {
        let (host, quiet) = (lab.host("a")?, lab.host("b")?);
        let listen = format!("\"{LATER}:{PORT}\", \"10.99.0.1:{PORT}\"");
        let text = config(&host, &listen, &[quiet.v4()], "[fib]\nenabled = false\n");
        let (daemon, control) = margay::start_text(&host, &text)?;
        let status = control.text(&["show", "status"])?;
        let fault = format!("cannot listen on {LATER}:{PORT}");
        ensure!(status.contains(&fault) && status.contains("no interface has"), "{status}");
        // The other address serves already.
        Watched::establish(&quiet, &host)?.raw.close(1)?;
        host.run("ip", &["addr", "add", &format!("{LATER}/24"), "dev", "eth0"])?;
        wait_until(PATIENCE, "margay to listen", || {
            let log = daemon.output();
            ensure!(log.contains(&format!("listening on {LATER}:{PORT}")), "{log}");
            Ok(())
        })?;
        let status = control.text(&["show", "status"])?;
        ensure!(!status.contains(&fault), "{status}");
        ensure!(daemon.output().matches(&fault).count() == 1, "said again and again");
        // A port that another process has is not waited for: the reload is refused and names it.
        let taken = host.command("python3").args(["-c", TAKEN]).stdout(Stdio::piped()).spawn()?;
        let mut taken = Running(taken);
        taken.wait_line()?;
        host.write("margay.toml", &text.replace(&listen, "\"10.99.0.1:1999\""))?;
        let refused = control.text(&["reload"]).err().context("a taken port was accepted")?;
        ensure!(refused.to_string().contains("another program listens there"), "{refused:#}");
        Ok(())
    })
}

const TAKEN: &str = "
import socket, time
s = socket.socket(); s.bind(('10.99.0.1', 1999)); s.listen()
print('taken', flush=True)
time.sleep(600)
";

/// A helper process that ends with the test.
struct Running(std::process::Child);

impl Running {
    fn wait_line(&mut self) -> Result<()> {
        use std::io::BufRead as _;
        let output = self.0.stdout.as_mut().context("no output")?;
        std::io::BufReader::new(output).read_line(&mut String::new())?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All peers are from a range, and reconnect when their own retry timers expire: until then the
/// kernel routes stay (RFC 4724 §4.1).
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_restart_waits_for_peers_from_ranges() -> Result<()> {
    run("process-range", |lab| {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let ranges = format!(
            "[[bgp.dynamic-peers]]\nprefix = \"10.99.0.0/24\"\nremote-asn = {PEER_AS}\n\
             import = \"all\"\nexport = \"all\"\ngraceful-restart-time = 60\n"
        );
        let text = config(&host, &any(PORT), &[], &ranges);
        let (mut daemon, _) = margay::start_text(&host, &text)?;
        let bird = bird(&bird_host, &host, true, &[PEER_ROUTE])?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        kernel::wait_gateways(&host, PEER_ROUTE, &[bird_host.v4().to_string()])?;
        let monitor = RouteMonitor::start(&host)?;
        daemon.signal("TERM")?;
        daemon.wait(Duration::from_secs(10))?;
        // The neighbour cannot reconnect at once.
        lab.cut(&bird_host)?;
        let (daemon, control) = margay::start_text(&host, &text)?;
        holds_for(Duration::from_secs(4), "the kernel's route", || {
            ensure!(kernel::route(&host, PEER_ROUTE)?.is_some(), "gone: {}", daemon.output());
            Ok(())
        })?;
        lab.mend(&bird_host)?;
        wait_established(&bird, host.v4())?;
        wait_until(PATIENCE, "its route in the table", || {
            ensure!(control.paths(PEER_ROUTE)?.len() == 1, "not there");
            Ok(())
        })?;
        let changes = monitor.changes()?;
        ensure!(!changes.contains(&format!("Deleted {PEER_ROUTE}")), "{changes}");
        wait_paths(&bird, OWN_ROUTE, 1)?;
        Ok(())
    })
}

/// While the start-up waits for one neighbour, another one's announcement or withdrawal of a prefix
/// replaces the route of the earlier run at once; routes to prefixes that no neighbour announces
/// stay.
#[test]
#[ignore = "needs root and BIRD 2"]
fn waiting_keeps_no_superseded_route() -> Result<()> {
    const QUIET_ROUTE: &str = "203.0.113.0/25";
    run("process-superseded", |lab| {
        let (host, first, second) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let text = config(&host, &any(PORT), &[first.v4(), second.v4()], "");
        let (mut daemon, _) = margay::start_text(&host, &text)?;
        let mut old = bird(&first, &host, true, &[PEER_ROUTE, QUIET_ROUTE])?;
        let mut new = bird(&second, &host, true, &[])?;
        for route in [PEER_ROUTE, QUIET_ROUTE] {
            kernel::wait_gateways(&host, route, &[first.v4().to_string()])?;
        }
        daemon.crash()?;
        // The workload has moved, and its old node is down.
        old.daemon().crash()?;
        new.announce(&Origin::plain(PEER_ROUTE))?;
        let (daemon, _) = margay::start_text(&host, &text)?;
        let began = Instant::now();
        kernel::wait_gateways(&host, PEER_ROUTE, &[second.v4().to_string()])?;
        ensure!(began.elapsed() < Duration::from_secs(10), "after {:?}", began.elapsed());
        ensure!(kernel::route(&host, QUIET_ROUTE)?.is_some(), "{}", daemon.output());
        // A withdrawal takes effect while the start-up still waits, too.
        new.withdraw(PEER_ROUTE)?;
        kernel::wait_gone(&host, PEER_ROUTE)?;
        ensure!(kernel::route(&host, QUIET_ROUTE)?.is_some(), "{}", daemon.output());
        Ok(())
    })
}

/// `stop --shutdown` while thousands of routes change: neighbours are notified while the kernel
/// still forwards, and then no route of ours is left.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_shutdown_notifies_neighbours_first_and_leaves_no_route() -> Result<()> {
    run("process-shutdown", |lab| {
        let (host, quiet, churning) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let text = config(&host, &any(PORT), &[quiet.v4(), churning.v4()], "");
        let (mut daemon, control) = margay::start_text(&host, &text)?;
        let bird = bird(&quiet, &host, true, &[PEER_ROUTE])?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        let mut raw = RawPeer::start(&churning)?;
        raw.establish(1, host.v4(), PORT, &open(PEER_AS, 90, v4(&churning)?, &[])?)?;
        // Ever more routes until the connection ends.
        let mut octets = Vec::new();
        for message in 0..50u32 {
            let first = 0x1000_0000 + message * 100;
            let prefixes: Vec<_> =
                (first..first + 100).map(|at| nlri(Ipv4Addr::from(at), 32)).collect();
            octets.extend(announcement(PEER_AS, v4(&churning)?, &[], &prefixes)?);
        }
        raw.send_often(1, &octets, 800)?;
        kernel::wait_gateways(&host, "16.0.0.1/32", &[churning.v4().to_string()])?;
        let monitor = RouteMonitor::start(&host)?;
        control.text(&["stop", "--shutdown"])?;
        let status = daemon.wait(Duration::from_secs(40))?;
        ensure!(status.code() == Some(0), "{status}: {}", daemon.output());
        let routes = host.run("ip", &["route", "show", "proto", kernel::PROTOCOL])?;
        ensure!(routes.is_empty(), "{} routes are left", routes.lines().count());
        bird.expect_last_error(host.v4(), "Received: Administrative shutdown")?;
        let log = daemon.output();
        let closed = log.find("session closed").context("no line about the session")?;
        ensure!(log.find("shutting down").is_some_and(|stopping| stopping < closed), "{log}");
        // The neighbour's route was in the kernel until the neighbours were notified.
        let changes = monitor.changes()?;
        ensure!(changes.contains(&format!("Deleted {PEER_ROUTE}")), "{changes:.1000}");
        Ok(())
    })
}
