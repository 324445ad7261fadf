//! How fast routes get into the kernel: margay's FIB beside BIRD 2, in the same run.
//!
//! `cargo run --profile fast --example fib_rate [--v6] [ROUTES]` as root, with BIRD 2 installed. Each
//! program gets a network namespace of its own and the same /24 (IPv6: /48) routes over one gateway.
//!
//! Counting the kernel's routes costs more than writing some thousands of them, so the run is
//! watched through 200 prefixes spread over the table: a datagram socket can be connected to an
//! address when it has a route. When all of them have one, /proc/net/fib_triestat tells when the
//! table is complete (IPv6: /proc/net/rt6_stats). Three rates come out: from the first of the 200 to the complete table; the
//! same per second of the writing thread's CPU time, which other work on the machine moves less; and
//! from the program's start to the complete table, which for BIRD includes reading 200,000 static
//! routes. "objects" is margay with routes over next-hop objects.
//!
//! `fib_rate --failover [ROUTES]`, without BIRD: that many routes (500,000) over one BGP next hop, and
//! how long after the news that it is reached over another interface the first, the middle and the
//! last of them go there; with objects, and with gateways in each route. "lost" are routes with a
//! backup whose next hop is not reached any more.

use std::error::Error;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bgp_proto::types::{Family, FibKind, FibNextHop, FibRoute, Hop, Prefix, Prefix4, Prefix6};
use margay::kernel::{Fib, FibConfig, FibEvent, Leave, NextHopForm, NextHopState, Over};

const POLL: Duration = Duration::from_millis(5);
const SAMPLES: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(120);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const OTHER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
/// Ours on the other interface.
const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const BACKUP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);

/// What becomes of the next hop that all routes rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// It is reached over the other interface.
    Moved,
    /// It is not reached any more, and the routes' backup is over the other interface.
    Lost,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--inside") => inside(args.get(2).ok_or("which program?")?, count(args.get(3), 0)?),
        Some("--failover") => {
            let routes = count(args.get(2), 500_000)?;
            outside(&["failover", "failover-backup", "failover-inline"].repeat(3), routes)
        }
        Some("--v6") => {
            outside(&["bird6", "margay6", "objects6"].repeat(3), count(args.get(2), 200_000)?)
        }
        first => {
            let routes = count(first.map(str::to_owned).as_ref(), 200_000)?;
            outside(&["bird", "margay", "objects"].repeat(3), routes)
        }
    }
}

/// Runs measurements, each in a namespace of its own.
fn outside(programs: &[&str], routes: u32) -> Result<(), Box<dyn Error>> {
    for program in programs {
        let status = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe()?)
            .args(["--inside", program, &routes.to_string()])
            .status()?;
        if !status.success() {
            return Err(format!("the run of {program} failed").into());
        }
    }
    Ok(())
}

fn count(arg: Option<&String>, default: u32) -> Result<u32, Box<dyn Error>> {
    let routes = arg.map_or(Ok(default), |arg| arg.parse())?;
    if routes > 4_000_000 { Err("at most 4000000 routes".into()) } else { Ok(routes) }
}

/// One measurement, in the namespace that this process was started in.
fn inside(program: &str, routes: u32) -> Result<(), Box<dyn Error>> {
    for command in [
        "link set lo up",
        "link add v0 type veth peer name v1",
        "link set v0 up",
        "link set v1 up",
        "addr add 10.0.0.1/24 dev v0",
        "addr add fd00::1/64 dev v0 nodad",
        "link add w0 type veth peer name w1",
        "link set w0 up",
        "link set w1 up",
        "addr add 10.0.1.1/24 dev w0",
    ] {
        if !Command::new("ip").args(command.split(' ')).status()?.success() {
            return Err(format!("ip {command}").into());
        }
    }
    match program {
        "margay" => margay(Family::Ipv4, routes, NextHopForm::Inline),
        "objects" => margay(Family::Ipv4, routes, NextHopForm::Objects),
        "margay6" => margay(Family::Ipv6, routes, NextHopForm::Inline),
        "objects6" => margay(Family::Ipv6, routes, NextHopForm::Objects),
        "failover" => failover(routes, NextHopForm::Objects, News::Moved),
        "failover-backup" => failover(routes, NextHopForm::Objects, News::Lost),
        "failover-inline" => failover(routes, NextHopForm::Inline, News::Moved),
        "bird6" => bird(Family::Ipv6, routes),
        _ => bird(Family::Ipv4, routes),
    }
}

fn prefix(family: Family, i: u32) -> Prefix {
    match family {
        Family::Ipv4 => Prefix::V4(Prefix4::from_bits((20 << 24) + (i << 8), 24)),
        Family::Ipv6 => Prefix::V6(Prefix6::from_bits((0x2a00 << 112) + (u128::from(i) << 80), 48)),
    }
}

/// An address in a prefix.
fn host(family: Family, i: u32) -> IpAddr {
    match prefix(family, i) {
        Prefix::V4(prefix) => Ipv4Addr::from_bits(prefix.bits() + 1).into(),
        Prefix::V6(prefix) => Ipv6Addr::from_bits(prefix.bits() + 1).into(),
    }
}

fn gateway(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => GATEWAY.into(),
        Family::Ipv6 => GATEWAY6.into(),
    }
}

/// margay's FIB, past the start.
fn start(next_hops: NextHopForm) -> Result<Fib, Box<dyn Error>> {
    let (ready, wait) = std::sync::mpsc::sync_channel(1);
    let config = FibConfig { next_hops, ..FibConfig::new(254, 12) };
    let fib = Fib::start(config, move |event| {
        if matches!(event, FibEvent::Synchronised { .. }) {
            // The receiver goes away only after this event.
            let _ = ready.send(());
        }
    })?;
    wait.recv()?;
    fib.end_of_startup();
    Ok(fib)
}

fn hop(fib: &Fib, gateway: IpAddr, interface: &str) -> Result<Hop, Box<dyn Error>> {
    let links = fib.links();
    let link = links.iter().find(|link| link.name == interface).ok_or("no such interface")?;
    Ok(Hop { gateway: Some(gateway), ifindex: link.index, onlink: false, weight: 1 })
}

/// Moves all routes to another interface, which shows in the address that they are reached from.
fn failover(routes: u32, form: NextHopForm, news: News) -> Result<(), Box<dyn Error>> {
    let fib = start(form)?;
    let ways = [hop(&fib, GATEWAY.into(), "v0")?, hop(&fib, OTHER_GATEWAY.into(), "w0")?];
    let by = |addr: Ipv4Addr| FibNextHop::from(IpAddr::from(addr));
    let submit = |hop: Hop, next_hop: Ipv4Addr, backup: Option<FibNextHop>| {
        fib.submit((0..routes).map(|i| {
            let prefix = prefix(Family::Ipv4, i);
            let route = FibRoute::new(prefix, FibKind::Unicast(vec![hop]));
            (prefix, Some(FibRoute { next_hops: vec![by(next_hop)], backup, ..route }))
        }));
    };
    let resolve = |next_hop: Ipv4Addr, hop: Hop| {
        let (hops, over) = (vec![hop], Over::Specific);
        let state = NextHopState::Via { hops, metric: 0, connected: false, interface: None, over };
        fib.resolutions().update(next_hop.into(), &state);
    };
    resolve(NEXT_HOP, ways[0]);
    resolve(BACKUP, ways[1]);
    submit(ways[0], NEXT_HOP, Some(by(BACKUP)).filter(|_| news == News::Lost));
    while fib.counters().installed < u64::from(routes) {
        std::thread::sleep(POLL);
    }
    let mut moved = [None; 3];
    let before = Instant::now();
    let told = std::thread::scope(|scope| -> Result<Duration, String> {
        let owner = scope.spawn(|| {
            match news {
                News::Moved => resolve(NEXT_HOP, ways[1]),
                News::Lost => {
                    fib.resolutions().update(NEXT_HOP.into(), &NextHopState::Unreachable);
                }
            }
            let told = before.elapsed();
            let next_hop = if news == News::Moved { NEXT_HOP } else { BACKUP };
            submit(ways[1], next_hop, None);
            told
        });
        // Otherwise this thread, which has been running all the time, may wait 100 ms for the two
        // that have both cores, long after the routes have moved.
        let thread = Some(rustix::thread::gettid());
        rustix::process::setpriority_process(thread, -20).map_err(|error| error.to_string())?;
        while moved.contains(&None) {
            for (place, i) in [0, routes / 2, routes - 1].into_iter().enumerate() {
                if moved[place].is_none()
                    && source(host(Family::Ipv4, i)) == Some(OTHER_ADDRESS.into())
                {
                    moved[place] = Some(before.elapsed());
                }
            }
        }
        owner.join().map_err(|_| "the owner failed".to_owned())
    })?;
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let [first, middle, last] = moved.map(|time| time.map_or(f64::NAN, millis));
    println!(
        "{form:?}, {news:?}  {routes} routes moved: the first after {first:.2} ms, the middle one after {middle:.2} ms, \
         the last after {last:.2} ms (the news took {:.2} ms)",
        millis(told)
    );
    fib.stop(Leave::Keep);
    Ok(())
}

/// The address from which packets to a host go. A socket keeps its first one.
fn source(host: IpAddr) -> Option<IpAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect((host, 9)).ok()?;
    Some(probe.local_addr().ok()?.ip())
}

fn margay(family: Family, routes: u32, form: NextHopForm) -> Result<(), Box<dyn Error>> {
    let before = Instant::now();
    let fib = start(form)?;
    let kind = FibKind::Unicast(vec![hop(&fib, gateway(family), "v0")?]);
    let writer = thread_named("fib").ok_or("the FIB has no thread")?;
    let watcher = std::thread::spawn(move || watch(family, routes, &writer, before));
    fib.submit((0..routes).map(|i| {
        let prefix = prefix(family, i);
        (prefix, Some(FibRoute::new(prefix, kind.clone())))
    }));
    let rate = watcher.join().map_err(|_| "the watcher failed")??;
    println!("margay {form:?}  {routes} {family:?} routes: {rate}");
    let before = Instant::now();
    fib.stop(Leave::Withdraw);
    let taken = before.elapsed().as_secs_f64();
    println!("margay {form:?}  withdrawn at {:.0} routes/s", f64::from(routes) / taken);
    Ok(())
}

fn bird(family: Family, routes: u32) -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("margay-fib-rate-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut config = String::from(
        "router id 192.0.2.1;\nprotocol device {}\nprotocol kernel { CHANNEL { export all; }; }\n\
         protocol static {\n  CHANNEL;\n",
    );
    let channel = if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
    config = config.replace("CHANNEL", channel);
    for i in 0..routes {
        writeln!(config, "  route {} via {};", prefix(family, i), gateway(family))?;
    }
    config.push_str("}\n");
    let file = dir.join("bird.conf");
    std::fs::write(&file, config)?;
    let before = Instant::now();
    let mut child = Command::new("bird")
        .arg("-f")
        .arg("-c")
        .arg(&file)
        .arg("-s")
        .arg(dir.join("bird.ctl"))
        .stderr(Stdio::null())
        .spawn()?;
    let rate = watch(family, routes, &format!("/proc/{0}/task/{0}", child.id()), before);
    let before = Instant::now();
    // It leaves no route when it is terminated.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    child.wait()?;
    let taken = before.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&dir)?;
    println!("BIRD 2  {routes} {family:?} routes: {}", rate?);
    let left = kernel_routes(family).ok_or("cannot count the kernel's routes")?;
    if left > routes / 2 {
        return Err(format!("BIRD 2 has left {left} routes").into());
    }
    println!("BIRD 2  withdrawn at {:.0} routes/s", f64::from(routes) / taken);
    Ok(())
}

/// Waits until the kernel has all routes; how fast they came.
fn watch(family: Family, routes: u32, writer: &str, started: Instant) -> Result<String, String> {
    let any = if family == Family::Ipv4 { "0.0.0.0:0" } else { "[::]:0" };
    let probe = UdpSocket::bind(any).map_err(|error| error.to_string())?;
    let has_route = |i: u32| probe.connect((host(family, i), 9)).is_ok();
    let step = (routes / SAMPLES).max(1);
    let mut missing: Vec<u32> = (0..routes).step_by(step as usize).collect();
    let samples = missing.len();
    let cpu = || cpu_time(writer).ok_or("no schedstat");
    let mut first: Option<(Instant, Duration, u32)> = None;
    loop {
        missing.retain(|i| !has_route(*i));
        if first.is_none() && missing.len() < samples {
            let present = u32::try_from(samples - missing.len()).unwrap_or(0);
            first = Some((Instant::now(), cpu()?, present * step));
        }
        if let Some((at, cpu_before, before)) = first
            && missing.is_empty()
            && kernel_routes(family).ok_or("cannot count the kernel's routes")? >= routes
        {
            let added = f64::from(routes.saturating_sub(before));
            let wall = added / at.elapsed().as_secs_f64();
            let cpu = added / cpu()?.saturating_sub(cpu_before).as_secs_f64();
            let whole = f64::from(routes) / started.elapsed().as_secs_f64();
            return Ok(format!(
                "{wall:>7.0} routes/s, {cpu:>7.0} per CPU second, {whole:>7.0} routes/s from the start"
            ));
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{} samples have no route after {PATIENCE:?}", missing.len()));
        }
        std::thread::sleep(POLL);
    }
}

/// What a thread has used, from its folder under /proc.
fn cpu_time(thread: &str) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("{thread}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The folder of this process's thread with a name.
fn thread_named(name: &str) -> Option<String> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?.flatten();
    let mut tasks = tasks.map(|task| task.path().display().to_string());
    tasks.find(|task| {
        std::fs::read_to_string(format!("{task}/comm")).is_ok_and(|comm| comm.trim() == name)
    })
}

/// IPv4: prefixes in the table main. IPv6: routes in all tables.
fn kernel_routes(family: Family) -> Option<u32> {
    if family == Family::Ipv6 {
        let text = std::fs::read_to_string("/proc/thread-self/net/rt6_stats").ok()?;
        return u32::from_str_radix(text.split_whitespace().nth(3)?, 16).ok();
    }
    let text = std::fs::read_to_string("/proc/thread-self/net/fib_triestat").ok()?;
    let main = text.split("Main:").nth(1)?;
    let line = main.lines().find(|line| line.trim_start().starts_with("Prefixes:"))?;
    line.split(':').nth(1)?.trim().parse().ok()
}
