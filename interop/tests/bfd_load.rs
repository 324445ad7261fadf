//! Many BFD sessions of one margay, with BIRD 2 or another margay at the other end of all.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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
    Far,
}

impl End {
    fn other(self) -> End {
        match self {
            End::Margay => End::Far,
            End::Far => End::Margay,
        }
    }
}

impl End {
    fn address(self, n: u64) -> String {
        let first = match self {
            End::Margay => 0,
            End::Far => 128,
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

fn start_margay(host: &Host, end: End, sessions: u64, interval: u64) -> Result<(Daemon, Control)> {
    let (asn, remote) = match end {
        End::Margay => (65001, 65002),
        End::Far => (65002, 65001),
    };
    let mut text = format!(
        "[bgp]\nasn = {asn}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:1790\"]\n\n{}\n",
        host.router_id(),
        margay::control_section(host),
    );
    for n in 0..sessions {
        write!(
            text,
            "[[bgp.peers]]\naddress = \"{}\"\nsource-address = \"{}\"\nremote-asn = {remote}\n\
             passive = true\nimport = \"all\"\nexport = \"all\"\n\
             bfd = {{ min-tx = {interval}, min-rx = {interval}, multiplier = 3 }}\n",
            end.other().address(n),
            end.address(n)
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
        let [here, there] = [End::Far, End::Margay].map(|end| end.address(n));
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

/// The daemon at the other end.
enum Far {
    Bird(Daemon, PathBuf),
    Margay(Daemon, Control),
}

impl Far {
    fn start(host: &Host, sessions: u64, interval: u64) -> Result<Far> {
        match std::env::var("MARGAY_BFD_FAR").as_deref().unwrap_or("bird2") {
            "bird2" => start_bird(host, sessions, interval).map(|(bird, at)| Far::Bird(bird, at)),
            "margay" => start_margay(host, End::Far, sessions, interval)
                .map(|(daemon, control)| Far::Margay(daemon, control)),
            other => bail!("MARGAY_BFD_FAR is {other}: bird2 or margay"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Far::Bird(..) => "BIRD 2",
            Far::Margay(..) => "the other margay",
        }
    }

    fn daemon(&self) -> &Daemon {
        match self {
            Far::Bird(daemon, _) | Far::Margay(daemon, _) => daemon,
        }
    }

    /// How many sessions are up there, and how many failures it counts.
    fn seen(&self) -> Result<Seen> {
        match self {
            Far::Bird(_, socket) => {
                let up = birdc(socket, "show bfd sessions")?.matches(" Up ").count();
                Ok(Seen { up, ..Seen::default() })
            }
            Far::Margay(_, control) => seen(control),
        }
    }
}

/// What one end says about its sessions.
#[derive(Default)]
struct Seen {
    up: usize,
    failures: u64,
    /// The longest time between two packets of a session, in microseconds.
    gap_max: u64,
}

fn seen(control: &Control) -> Result<Seen> {
    let sessions = control.json(&["show", "bfd"])?;
    let sessions = sessions.as_array().context("no list")?;
    let of = |key: &str| -> Result<Vec<u64>> {
        let values = sessions.iter().map(|session| session[key].as_u64());
        values.collect::<Option<_>>().with_context(|| format!("no {key}"))
    };
    Ok(Seen {
        up: sessions.iter().filter(|session| session["state"] == "Up").count(),
        failures: of("failures")?.iter().sum(),
        gap_max: of("gap_max_us")?.into_iter().max().unwrap_or_default(),
    })
}

/// No session fails while every core is busy. `MARGAY_BFD_SESSIONS` (default 200),
/// `MARGAY_BFD_INTERVAL` in milliseconds (default 300) and `MARGAY_BFD_SECONDS` (default 10) set
/// the size, `MARGAY_BFD_FAR` the other end (`bird2`, the default, or `margay`), `MARGAY_BFD_BUSY` the number of busy processes (default one for each core). The CPU
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
        End::Far.assign(&far, &host, count)?;
        let far = Far::start(&far, count, interval)?;
        let (daemon, control) = start_margay(&host, End::Margay, count, interval)?;
        let wanted = usize::try_from(count)?;
        let all_up = || {
            let (here, there) = (seen(&control)?, far.seen()?);
            ensure!((here.up, there.up) == (wanted, wanted), "{} and {}", here.up, there.up);
            Ok([here, there])
        };
        wait_until(ALL_UP, "all sessions", all_up)?;
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
        let cpu =
            || -> Result<_> { Ok([CpuTime::of(daemon.pid())?, CpuTime::of(far.daemon().pid())?]) };
        let failed_before = [seen(&control)?.failures, far.seen()?.failures];
        let (before, began) = (cpu()?, Instant::now());
        std::thread::sleep(time);
        let (after, taken) = (cpu()?, began.elapsed().as_nanos());
        drop(busy);
        let ends = [seen(&control)?, far.seen()?];
        let failed = [0, 1].map(|at| ends[at].failures - failed_before[at]);
        let share = |at: usize| after[at].since(&before[at]) as f64 * 100.0 / taken as f64;
        println!(
            "{count} sessions at {interval} ms x 3, {} s: margay {:.2} % of a core, {} failures, longest \
             gap {} ms; {} {:.2} %, {} failures, longest gap {} ms",
            time.as_secs(),
            share(0),
            failed[0],
            ends[0].gap_max / 1000,
            far.name(),
            share(1),
            failed[1],
            ends[1].gap_max / 1000,
        );
        ensure!(failed == [0, 0], "{failed:?} sessions failed");
        all_up().map(drop)
    })
}
