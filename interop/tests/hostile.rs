//! What hostile neighbours cannot do to fifty healthy sessions with a hold time of three seconds.
//!
//! `MARGAY_HOSTILE_SECONDS` sets the duration of every attack, default 1.5.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use interop::daemon::Daemon;
use interop::lab::{self, Host};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS};
use serde_json::{Value, json};

const PORT: u16 = 1790;
/// Longest gap between two KEEPALIVEs, of which one is due every second.
const GAP_MAX_MS: u64 = 2000;
/// Longest time until a healthy neighbour's route change reaches another one.
const CANARY_MAX_MS: u64 = 1500;
/// Limit of the growth of memory over all attacks.
const RSS_GROWTH_MAX_KIB: u64 = 48 << 10;

fn seconds() -> f64 {
    let text = std::env::var("MARGAY_HOSTILE_SECONDS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(1.5)
}

/// The program `hostile`, built beside the test binaries.
struct Driver {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    fn start(host: &Host, pid: u32) -> Result<Self> {
        let own = std::env::current_exe()?;
        let dir = own.ancestors().nth(2).context("the test runs outside a target folder")?;
        let path = dir.join("hostile");
        ensure!(path.is_file(), "{} is missing: build the package's binaries", path.display());
        let mut command = host.command(&path.to_string_lossy());
        command.args([format!("10.99.0.1:{PORT}"), PEER_AS.to_string(), pid.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(host.file("hostile.log"))?);
        let mut child = command.spawn()?;
        let orders = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, orders, answers })
    }

    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the driver said {line:?}"))
    }

    fn attack(&mut self, name: &str, attackers: u8, seconds: f64) -> Result<Value> {
        let order = json!({"attack": name, "attackers": attackers, "seconds": seconds});
        writeln!(self.orders, "{order}")?;
        self.hear()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one attack after another on a daemon with `threads` threads and fifty healthy neighbours.
fn withstands(name: &str, threads: u8, attacks: &[(&str, u8)]) -> Result<()> {
    lab::run_margay(name, &[], &[], |lab| {
        let host = lab.host("a")?;
        let ((mut daemon, control), mut driver) = scene(&host, threads)?;
        let before = driver.hear()?["rss_kib"].as_u64().context("rss_kib")?;
        let mut faults = Vec::new();
        for (attack, attackers) in attacks {
            let seen = driver.attack(attack, *attackers, seconds())?;
            println!("{threads} threads, {attackers} attackers: {seen}");
            let number = |key: &str| seen[key].as_u64().with_context(|| key.to_owned());
            if number("lost")? > 0
                || number("gap_ms")? > GAP_MAX_MS
                || number("canary_ms")? > CANARY_MAX_MS
            {
                faults.push(seen.to_string());
            }
            ensure!(daemon.exited()?.is_none(), "{attack}: margay is gone: {}", daemon.output());
            let grown = number("rss_kib")?.saturating_sub(before);
            ensure!(grown < RSS_GROWTH_MAX_KIB, "{attack}: {grown} KiB more");
        }
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        answers_at_once(&control)
    })
}

/// Starts margay, and its neighbours in the same namespace.
fn scene(host: &Host, threads: u8) -> Result<((Daemon, Control), Driver)> {
    // Every address of the neighbours is local to this namespace.
    host.shell("ip route add local 10.50.0.0/16 dev lo")?;
    let text = format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"10.99.0.1\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         [[bgp.dynamic-peers]]\nprefix = \"10.50.0.0/16\"\nremote-asn = {PEER_AS}\n\
         import = \"all\"\nexport = \"all\"\npeers-max = 2000\n\n[fib]\nenabled = false\n\n{}",
        margay::control_section(host)
    );
    let threads = threads.to_string();
    let daemon = margay::start_with(host, &text, &[("TOKIO_WORKER_THREADS", &threads)])?;
    let driver = Driver::start(host, daemon.0.pid())?;
    Ok((daemon, driver))
}

fn answers_at_once(control: &Control) -> Result<()> {
    let began = std::time::Instant::now();
    control.text(&["show", "status"])?;
    ensure!(began.elapsed().as_secs() < 2, "show status took {:?}", began.elapsed());
    Ok(())
}

/// Messages that leave no work for the table use no credit, so a flood of them is not held back by
/// it.
#[test]
#[ignore = "needs root"]
fn floods_of_messages_delay_no_sessions_timers() -> Result<()> {
    for threads in [1, 2] {
        withstands(
            &format!("hostile-flood-{threads}"),
            threads,
            &[
                ("keepalives", 1),
                ("keepalives", 8),
                ("refresh-other-family", 4),
                ("refresh-unknown-subtype", 1),
                ("other-family", 1),
                ("other-family", 4),
                ("multicast", 2),
                ("refresh-requests", 2),
                ("eorr", 1),
                ("end-of-rib", 2),
                ("borr", 2),
                ("unknown-withdrawals", 2),
            ],
        )?;
    }
    Ok(())
}

/// Twenty thousand connections leak no memory.
#[test]
#[ignore = "needs root"]
fn nothing_leaks_with_a_connection() -> Result<()> {
    lab::run_margay("hostile-leak", &[], &[], |lab| {
        let host = lab.host("a")?;
        let (daemon, mut driver) = scene(&host, 2)?;
        driver.hear()?;
        let (mut connections, mut rss) = (0, Vec::new());
        while connections < 22_000 {
            let seen = driver.attack("notifications", 2, 0.5)?;
            let number = |key: &str| seen[key].as_u64().with_context(|| key.to_owned());
            ensure!(number("lost")? == 0, "{seen}");
            connections += number("connections")?;
            if connections > 2000 {
                rss.push(number("rss_kib")?);
            }
        }
        let grown = rss.last().zip(rss.first()).map(|(last, first)| last.saturating_sub(*first));
        println!("{connections} connections, RSS in KiB {rss:?}");
        ensure!(grown.is_some_and(|kib| kib < 2048), "{grown:?} KiB more");
        drop(daemon);
        Ok(())
    })
}

/// Connections from the address of a healthy neighbour do not disturb its session.
#[test]
#[ignore = "needs root"]
fn connections_from_a_neighbours_address_disturb_nothing() -> Result<()> {
    withstands(
        "hostile-connect",
        2,
        &[
            ("connect", 4),
            ("get", 8),
            ("notifications", 4),
            ("open-garbage", 4),
            ("garbage", 4),
            ("half-open", 4),
            ("drip", 4),
            ("flap", 4),
            ("flap-malformed", 4),
            ("deaf", 2),
        ],
    )
}
