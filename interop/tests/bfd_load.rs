//! Many BFD sessions of one margay, with BIRD 2 at the other end of all.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::bird2::birdc;
use interop::cpu_time::CpuTime;
use interop::daemon::Daemon;
use interop::lab::{self, Host};
use interop::margay::{self, Control};
use interop::speaker::Kind;
use interop::wait::wait_until;

/// The network of all sessions. Each has addresses of its own at both ends: BIRD tells apart
/// sessions by their neighbour, margay takes each neighbour once.
const NETWORK: &str = "10.77";
/// Both ends start slowly (RFC 5880 §6.8.3).
const ALL_UP: Duration = Duration::from_secs(60);

fn number(variable: &str, default: u64) -> Result<u64> {
    std::env::var(variable).map_or(Ok(default), |text| text.parse()).context("not a number")
}

/// An end of a session.
#[derive(Clone, Copy)]
enum End {
    Margay,
    Bird,
}

impl End {
    fn address(self, n: u64) -> String {
        let first = match self {
            End::Margay => 0,
            End::Bird => 128,
        };
        format!("{NETWORK}.{}.{}", first + n / 250, 1 + n % 250)
    }

    /// Gives the host the addresses of its end, and the other host neighbour entries for them: the
    /// kernel has room for 1,024 resolved ones in all namespaces together.
    fn assign(self, host: &Host, other: &Host, sessions: u64) -> Result<()> {
        let mac = host.run("cat", &["/sys/class/net/eth0/address"])?;
        let (mut own, mut others) = (String::new(), String::new());
        for address in (0..sessions).map(|n| self.address(n)) {
            writeln!(own, "addr add {address}/16 dev eth0")?;
            writeln!(others, "neigh add {address} lladdr {} dev eth0 nud permanent", mac.trim())?;
        }
        for (host, name, batch) in [(host, "addresses", own), (other, "neighbours", others)] {
            let batch = host.write(name, &batch)?;
            host.run("ip", &["-batch", &batch.to_string_lossy()])?;
        }
        Ok(())
    }
}

fn start_margay(host: &Host, sessions: u64, interval: u64) -> Result<(Daemon, Control)> {
    let mut text = format!(
        "[bgp]\nasn = 65001\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:1790\"]\n\n{}\n",
        host.router_id(),
        margay::control_section(host),
    );
    for n in 0..sessions {
        write!(
            text,
            "[[bgp.peers]]\naddress = \"{}\"\nsource-address = \"{}\"\nremote-asn = 65002\n\
             passive = true\nimport = \"all\"\nexport = \"all\"\n\
             bfd = {{ min-tx = {interval}, min-rx = {interval}, multiplier = 3 }}\n",
            End::Bird.address(n),
            End::Margay.address(n)
        )?;
    }
    margay::start_text(host, &text)
}

fn start_bird(host: &Host, sessions: u64, interval: u64) -> Result<(Daemon, PathBuf)> {
    let mut text = format!(
        "log stderr all;\nrouter id {};\nprotocol device {{ scan time 60; }}\nprotocol bfd {{\n\
         interface \"*\" {{ min rx interval {interval} ms; min tx interval {interval} ms; \
         multiplier 3; }};\n",
        host.router_id()
    );
    for n in 0..sessions {
        let [here, there] = [End::Bird, End::Margay].map(|end| end.address(n));
        writeln!(text, "neighbor {there} dev \"eth0\" local {here};")?;
    }
    text.push_str("}\n");
    let (config, control) = (host.write("bird.conf", &text)?, host.file("bird.ctl"));
    let (config, socket) = (config.to_string_lossy(), control.to_string_lossy());
    // As margay's own thread: a BIRD that does not get a core is no failure of margay.
    let command = ["-n", "-20", "bird", "-f", "-c", &config, "-s", &socket];
    let daemon = host.daemon("bird", "nice", &command)?;
    Ok((daemon, control))
}

/// How many sessions are up at both ends, and how many failures margay has seen.
fn up(control: &Control, bird: &Path) -> Result<(usize, usize, u64)> {
    let sessions = control.json(&["show", "bfd"])?;
    let sessions = sessions.as_array().context("no list")?;
    let here = sessions.iter().filter(|session| session["state"] == "Up").count();
    let there = birdc(bird, "show bfd sessions")?.matches(" Up ").count();
    let failures = sessions.iter().map(|session| session["failures"].as_u64());
    Ok((here, there, failures.sum::<Option<u64>>().context("no count of failures")?))
}

/// No session fails while every core is busy. `MARGAY_BFD_SESSIONS` (default 200),
/// `MARGAY_BFD_INTERVAL` in milliseconds (default 300) and `MARGAY_BFD_SECONDS` (default 10) set
/// the size, `MARGAY_BFD_BUSY` the number of busy processes (default one for each core). The CPU
/// time of both ends is printed; with no busy process, margay stays on one CPU and what it sends is
/// received by another, so that its time is what it would be on a real link.
#[test]
#[ignore = "needs root and BIRD 2"]
fn no_session_fails_while_every_core_is_busy() -> Result<()> {
    let count = number("MARGAY_BFD_SESSIONS", 200)?;
    let interval = number("MARGAY_BFD_INTERVAL", 300)?;
    let time = Duration::from_secs(number("MARGAY_BFD_SECONDS", 10)?);
    ensure!(count <= 10_000, "at most 10000 sessions");
    lab::run_margay("bfd-load", &[Kind::Bird2], &[], |lab| {
        let (host, far) = (lab.host("m")?, lab.host("b")?);
        End::Margay.assign(&host, &far, count)?;
        End::Bird.assign(&far, &host, count)?;
        let (bird, socket) = start_bird(&far, count, interval)?;
        let (daemon, control) = start_margay(&host, count, interval)?;
        let wanted = usize::try_from(count)?;
        wait_until(ALL_UP, "all sessions", || {
            let (here, there, _) = up(&control, &socket)?;
            ensure!((here, there) == (wanted, wanted), "{here} and {there} of {wanted}");
            Ok(())
        })?;
        let cores: u32 = std::thread::available_parallelism()?.get().try_into()?;
        let busy = number("MARGAY_BFD_BUSY", cores.into())?;
        if busy == 0 && cores > 1 {
            let pid = daemon.pid().to_string();
            host.run("taskset", &["--all-tasks", "--cpu-list", "--pid", "0", &pid])?;
            lab.receive_on(&host, 1)?;
        }
        let busy: Vec<Daemon> = (0..busy)
            .map(|n| host.daemon(&format!("busy{n}"), "sh", &["-c", "while :; do :; done"]))
            .collect::<Result<_>>()?;
        let before = [CpuTime::of(daemon.pid())?, CpuTime::of(bird.pid())?];
        let (_, _, failed_before) = up(&control, &socket)?;
        let began = Instant::now();
        std::thread::sleep(time);
        let taken = began.elapsed().as_nanos();
        let after = [CpuTime::of(daemon.pid())?, CpuTime::of(bird.pid())?];
        drop(busy);
        let (here, there, failed) = up(&control, &socket)?;
        let share = |at: usize| after[at].since(&before[at]) as f64 * 100.0 / taken as f64;
        println!(
            "{count} sessions at {interval} ms x 3, {} s, busy cores: margay {:.2} % of a \
             core, BIRD 2 {:.2} %, {} failures",
            time.as_secs(),
            share(0),
            share(1),
            failed - failed_before,
        );
        ensure!(failed == failed_before, "{} sessions failed", failed - failed_before);
        ensure!((here, there) == (wanted, wanted), "{here} and {there} of {wanted}");
        Ok(())
    })
}
