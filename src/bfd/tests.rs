//! The thread and its sockets, each test in its own network namespace.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Instant;

use bgp_proto::bfd::{Auth, AuthKind, HEADER_LEN, Key};

use super::*;

/// Moves this thread, and those that it starts, into a new namespace with `lo` up.
fn enter_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("tests of BFD run as root");
    run("ip link set lo up");
}

fn run(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status().expect("sh runs");
    assert!(status.success(), "{command}");
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn target(peer: &str, local: &str) -> Target {
    Target {
        peer: peer.parse().expect("an address"),
        local: Some(local.parse().expect("an address")),
        interface: None,
        hops: Hops::Single,
        vrf: None,
        device: None,
    }
}

/// The latest statuses from a handle.
struct Watch {
    handle: Handle,
    statuses: BTreeMap<Owner, Option<Status>>,
}

impl Watch {
    fn new(bfd: &Bfd) -> Watch {
        Watch { handle: bfd.handle(), statuses: BTreeMap::new() }
    }

    fn look(&mut self) -> &BTreeMap<Owner, Option<Status>> {
        self.statuses.extend(self.handle.take_changes());
        &self.statuses
    }

    fn until(&mut self, what: &str, mut is: impl FnMut(&BTreeMap<Owner, Option<Status>>) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !is(self.look()) {
            if Instant::now() > limit {
                panic!("{what}: {:?}, {:?}", self.statuses, self.view());
            }
            std::thread::sleep(millis(2));
        }
    }

    fn all_up(&mut self, sessions: usize) {
        self.until("all sessions up", |statuses| {
            statuses.values().flatten().filter(|s| s.state == State::Up).count() == sessions
        });
    }

    fn failures(&mut self) -> u64 {
        self.look().values().flatten().map(|status| status.failures).sum()
    }

    fn view(&self) -> View {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.handle.view()).expect("the thread runs")
    }
}

/// Pairs of sessions with each other over loopback: `2 * pairs` sessions of one thread.
fn want_pairs(bfd: &Bfd, pairs: u32, config: &Config) {
    for pair in 0..pairs {
        let [a, b] = [1, 2].map(|host| format!("127.{host}.{}.{}", pair / 250, pair % 250 + 1));
        for (owner, target) in [(2 * pair, target(&a, &b)), (2 * pair + 1, target(&b, &a))] {
            let wanted = Wanted { target, config: config.clone() };
            bfd.handle().want(PeerId(owner), Some(wanted));
        }
    }
}

/// Processor time of the threads with this name in this network namespace, as measured by the
/// scheduler: the ticks in `stat` overcharge a thread that is woken by timers.
fn processor_times(name: &str) -> BTreeMap<std::ffi::OsString, Duration> {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let namespace = |task: &std::path::Path| std::fs::read_link(task.join("ns/net")).ok();
    let ours = namespace(std::path::Path::new("/proc/thread-self"));
    std::fs::read_dir("/proc/self/task")
        .expect("/proc is mounted")
        .flatten()
        .filter(|task| read(task.path().join("comm")).trim() == name)
        // Those of other tests are in theirs.
        .filter(|task| namespace(&task.path()) == ours)
        .filter_map(|task| {
            let line = read(task.path().join("schedstat"));
            let time = line.split_whitespace().next()?.parse().ok().map(Duration::from_nanos);
            Some((task.file_name(), time?))
        })
        .collect()
}

/// What the threads that lived then have spent since.
fn spent_since(before: &BTreeMap<std::ffi::OsString, Duration>, name: &str) -> Duration {
    let spent = |(id, now): (&std::ffi::OsString, &Duration)| now.checked_sub(*before.get(id)?);
    processor_times(name).iter().filter_map(spent).sum()
}

#[test]
#[ignore = "needs root: a network namespace"]
fn sessions_come_up_over_ipv4_ipv6_and_several_hops() {
    enter_namespace();
    run("ip -6 addr add fd00::1/128 dev lo nodad; ip -6 addr add fd00::2/128 dev lo nodad");
    let bfd = Bfd::start(Clock::start()).unwrap();
    let mut watch = Watch::new(&bfd);
    let kind = AuthKind::MeticulousKeyedSha1;
    let auth = Auth { kind, send: Key::new(kind, 1, "secret").unwrap(), accept: Vec::new() };
    let hops = Hops::Multi { ttl_min: 200 };
    let targets = [
        (target("127.0.0.1", "127.0.0.2"), target("127.0.0.2", "127.0.0.1"), None),
        (target("fd00::1", "fd00::2"), target("fd00::2", "fd00::1"), Some(auth)),
        (
            Target { hops, ..target("127.0.0.3", "127.0.0.4") },
            Target { hops, ..target("127.0.0.4", "127.0.0.3") },
            None,
        ),
    ];
    for (number, (a, b, auth)) in (0..).step_by(2).zip(targets) {
        let config = Config { auth, min_tx: millis(50), min_rx: millis(50), ..Config::default() };
        for (owner, target) in [(number, a), (number + 1, b)] {
            let config = config.clone();
            bfd.handle().want(PeerId(owner), Some(Wanted { target, config }));
        }
    }
    watch.all_up(6);
    std::thread::sleep(millis(500));
    assert_eq!(watch.failures(), 0, "{:?}", watch.view());
    let view = watch.view();
    assert_eq!(view.problems, Vec::<String>::new());
    assert!(
        view.sessions.iter().all(|s| s.fault.is_none() && s.snapshot.tx_interval == millis(50))
    );
    assert!(view.sessions.iter().all(|s| s.snapshot.detection_time == millis(150)));
    // One end is removed: the other receives AdminDown, which is not a failure.
    bfd.handle().want(PeerId(0), None);
    watch.until("AdminDown arrives", |statuses| {
        statuses[&PeerId(1)].is_some_and(|s| s.state != State::Up)
    });
    let down = watch.statuses[&PeerId(1)].unwrap();
    assert_eq!((down.failures, down.last_down.unwrap().cause), (0, Cause::NeighborAdminDown));
    bfd.stop();
}

/// RFC 5881 §4 and §5.
#[test]
#[ignore = "needs root: a network namespace"]
fn packets_are_sent_with_ttl_255_from_a_separate_port() {
    enter_namespace();
    let listener = UdpSocket::bind("127.0.0.9:3784").unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::Ipv4RecvTtl, &true).unwrap();
    // The port is in use at one address, so our receiving socket cannot be opened, which is
    // reported.
    let bfd = Bfd::start(Clock::start()).unwrap();
    let watch = Watch::new(&bfd);
    for (owner, local) in [(1, "127.0.0.1"), (2, "127.0.0.2")] {
        let wanted = Wanted { target: target("127.0.0.9", local), config: Config::default() };
        bfd.handle().want(PeerId(owner), Some(wanted));
    }
    let mut sources = std::collections::BTreeMap::new();
    for _ in 0..6 {
        let mut octets = [0; 64];
        let (len, from) = listener.recv_from(&mut octets).unwrap();
        assert_eq!(len, HEADER_LEN);
        sources
            .entry(from.ip())
            .or_insert_with(std::collections::BTreeSet::new)
            .insert(from.port());
    }
    assert_eq!(sources.len(), 2);
    let ports: Vec<u16> = sources.values().flatten().copied().collect();
    assert_eq!(ports.len(), 2, "each session keeps its port: {sources:?}");
    assert!(ports[0] != ports[1] && ports.iter().all(|port| *port >= 49_152));
    let problems = watch.view().problems;
    assert!(problems.len() == 1 && problems[0].contains("3784"), "{problems:?}");
    bfd.stop();
}

/// The ids of sessions are reused, their sockets are not.
#[test]
#[ignore = "needs root: a network namespace"]
fn a_session_that_reuses_an_id_sends_to_its_own_peer() {
    enter_namespace();
    let [first, second] = ["127.0.0.8", "127.0.0.9"].map(|peer| {
        let listener = UdpSocket::bind((peer, 3784)).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        listener
    });
    let bfd = Bfd::start(Clock::start()).unwrap();
    let watch = Watch::new(&bfd);
    let want = |owner, peer| {
        let wanted = Wanted { target: target(peer, "127.0.0.1"), config: Config::default() };
        bfd.handle().want(PeerId(owner), Some(wanted));
    };
    want(1, "127.0.0.8");
    first.recv(&mut [0; 64]).expect("a packet to the first peer");
    bfd.handle().want(PeerId(1), None);
    let limit = Instant::now() + Duration::from_secs(20);
    while !watch.view().sessions.is_empty() {
        assert!(Instant::now() < limit, "{:?}", watch.view());
        std::thread::sleep(millis(20));
    }
    want(2, "127.0.0.9");
    second.recv(&mut [0; 64]).expect("a packet to the second peer");
    bfd.stop();
}

/// Two BFD threads with a link between them, each in its own namespace. Dropping `far_shell` ends
/// the far end's shell thread.
struct Pair {
    clock: Clock,
    near: Bfd,
    far: Bfd,
    /// Sends shell commands to the far namespace; `done` reports each as complete.
    far_shell: std::sync::mpsc::Sender<String>,
    done: std::sync::mpsc::Receiver<()>,
}

impl Pair {
    fn new(sessions: u32, config: &Config) -> Pair {
        let clock = Clock::start();
        let (shell, commands) = std::sync::mpsc::channel::<String>();
        let (reply, done) = std::sync::mpsc::channel();
        let (started, starts) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            enter_namespace();
            let bfd = Bfd::start(clock).expect("a thread");
            started.send((bfd, rustix::thread::gettid())).expect("the test waits");
            for command in commands {
                run(&command);
                // The test may be over.
                let _ = reply.send(());
            }
        });
        enter_namespace();
        let (far, tid) = starts.recv().expect("the far end starts");
        let tid = tid.as_raw_nonzero();
        run(&format!("ip link add eth0 type veth peer name eth0 netns {tid}; ip link set eth0 up"));
        let near = Bfd::start(clock).expect("a thread");
        let pair = Pair { clock, near, far, far_shell: shell, done };
        pair.far("ip link set eth0 up");
        let mut batch = [String::new(), String::new()];
        for n in 1..=sessions {
            for (net, batch) in (1..).zip(&mut batch) {
                *batch += &format!("ip addr add 10.1.{net}.{n}/16 dev eth0; ");
            }
        }
        run(&batch[0]);
        pair.far(&batch[1]);
        for n in 1..=sessions {
            let (near, far) = (format!("10.1.1.{n}"), format!("10.1.2.{n}"));
            for (bfd, target) in
                [(&pair.near, target(&far, &near)), (&pair.far, target(&near, &far))]
            {
                let wanted = Wanted { target, config: config.clone() };
                bfd.handle().want(PeerId(n), Some(wanted));
            }
        }
        pair
    }

    fn far(&self, command: &str) {
        self.far_shell.send(command.to_owned()).expect("the far end runs");
        self.done.recv().expect("it is carried out");
    }
}

fn distribution(mut millis: Vec<u128>) -> String {
    millis.sort_unstable();
    let at = |percent: usize| millis[(millis.len() - 1) * percent / 100];
    format!("min {} p50 {} p90 {} max {}", at(0), at(50), at(90), at(100))
}

/// Between (multiplier - 1) and multiplier intervals, plus an allowance for the machine.
#[test]
#[ignore = "needs root: network namespaces"]
fn the_loss_of_a_peer_is_noticed_within_the_detection_time() {
    let interval = millis(100);
    let config = Config { min_tx: interval, min_rx: interval, ..Config::default() };
    let pair = Pair::new(50, &config);
    let mut watch = Watch::new(&pair.near);
    watch.all_up(50);
    std::thread::sleep(millis(500));
    let mut took = Vec::new();
    let before = pair.clock.now();
    pair.far("ip link set eth0 down");
    let after = pair.clock.now();
    watch.until("every session failed", |statuses| {
        statuses.values().flatten().all(|s| s.failures == 1)
    });
    for status in watch.statuses.values().flatten() {
        let at = status.last_down.expect("it failed").at;
        assert!(at.since(before) >= interval * 2, "{:?} too early", at.since(before));
        took.push(at.since(after).as_millis());
    }
    println!("ms until Down after the cut, 100 ms x 3: {}", distribution(took.clone()));
    let slack = if std::env::var_os("MARGAY_QUIET_MACHINE").is_some() { 10 } else { 60 };
    assert!(took.iter().all(|took| *took <= 300 + slack), "{took:?}");
    pair.near.stop();
    pair.far.stop();
}

/// A thread that gets no core for longer than the detection time reads what waits before it decides.
#[test]
#[ignore = "needs root: network namespaces"]
fn packets_that_waited_for_a_late_thread_count() {
    // The threads of the pair have no sessions: the near end's is this one.
    let pair = Pair::new(0, &Config::default());
    run("ip addr add 10.1.1.1/16 dev eth0");
    pair.far("ip addr add 10.1.2.1/16 dev eth0");
    let config = |multiplier: u8| Config {
        min_tx: millis(50),
        min_rx: millis(50),
        multiplier: multiplier.try_into().expect("it is not zero"),
        ..Config::default()
    };
    // The far end bears with the silence of the near one.
    let far = Wanted { target: target("10.1.1.1", "10.1.2.1"), config: config(3) };
    pair.far.handle().want(PeerId(1), Some(far));
    let handle = Handle::new().expect("a descriptor");
    let mut worker = thread::Worker::new(handle.clone(), pair.clock).expect("randomness");
    let mut inboxes = thread::Inboxes::new();
    let near = Wanted { target: target("10.1.2.1", "10.1.1.1"), config: config(200) };
    handle.want(PeerId(1), Some(near));
    let mut turn = || {
        let began = pair.clock.now();
        let (reply, mut answer) = oneshot::channel();
        lock(&handle.0.questions).push(reply);
        worker.turn(began, &mut inboxes);
        let view = answer.try_recv().expect("it is answered");
        // Polls, so that the next turn knows only what has arrived by now.
        worker.wait(began);
        view.sessions.first().map(|session| (session.status, session.snapshot))
    };
    let limit = Instant::now() + Duration::from_secs(20);
    let is_fast = |(status, snapshot): &(Status, bgp_proto::bfd::Snapshot)| {
        status.state == State::Up && snapshot.detection_time == millis(150)
    };
    while !turn().as_ref().is_some_and(is_fast) {
        assert!(Instant::now() < limit, "never up: {:?}", turn());
    }
    let before = turn().expect("a session").1.stats.received;
    std::thread::sleep(millis(500));
    let (status, snapshot) = turn().expect("a session");
    assert_eq!((status.state, status.failures), (State::Up, 0));
    assert!(snapshot.stats.received >= before + 5, "{} since {before}", snapshot.stats.received);
    // A neighbour that is gone is still noticed.
    pair.far("ip link set eth0 down");
    let cut = Instant::now();
    while turn().expect("a session").0.failures == 0 {
        assert!(cut.elapsed() < Duration::from_secs(1), "{:?}", turn());
    }
    pair.near.stop();
    pair.far.stop();
}

/// Other load on the machine takes no session down. `MARGAY_BFD_SOAK`: seconds, 8 by default.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_busy_machine_takes_no_session_down() {
    let seconds = std::env::var("MARGAY_BFD_SOAK").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    for (interval, seconds) in [(millis(300), seconds), (millis(50), seconds.min(600))] {
        let config = Config { min_tx: interval, min_rx: interval, ..Config::default() };
        let pair = Pair::new(50, &config);
        let mut watch = Watch::new(&pair.near);
        watch.all_up(50);
        let stop = Arc::new(AtomicBool::new(false));
        let burners: Vec<_> = (0..4)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut sum = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        burners.into_iter().for_each(|burner| burner.join().expect("it only counts"));
        let view = watch.view();
        let gap = view.sessions.iter().map(|s| s.snapshot.stats.gap_max).max().unwrap_or_default();
        println!("{interval:?} x 3 for {seconds} s: longest gap {gap:?}, late {:?}", view.late_max);
        assert_eq!(watch.failures() + Watch::new(&pair.far).failures(), 0, "{:?}", watch.view());
        pair.near.stop();
        pair.far.stop();
    }
}

/// Octets of a forged packet, with a Length of 24: so many are a gigabit per second at 270,000 packets
/// per second.
const FORGED: usize = 400;
/// Octets on an Ethernet link around the payload of a UDP datagram: UDP, IPv4, Ethernet with checksum,
/// preamble and gap.
const OVERHEAD: usize = 8 + 20 + 18 + 20;

/// Sends forged packets of every kind from one thread until `until`; returns how many.
fn forge(first: u32, until: Instant) -> u64 {
    let to: SocketAddr = "127.1.0.1:3784".parse().expect("an address");
    let socket = UdpSocket::bind("127.2.0.1:0").expect("a port");
    let stranger = UdpSocket::bind("127.9.0.1:0").expect("a port");
    stranger.set_ttl(255).expect("a TTL");
    let mut octets = [0_u8; FORGED];
    octets[..4].copy_from_slice(&[0x20, 0xc0, 3, 24]);
    let (mut sent, mut rounds) = (0_u64, 0_u64);
    while Instant::now() < until {
        rounds += 1;
        socket.set_ttl(if rounds.is_multiple_of(2) { 255 } else { 64 }).expect("a TTL");
        for n in 0..200_u32 {
            let random = (sent as u32 ^ n ^ first).wrapping_mul(0x9e37_79b9);
            octets[4..8].copy_from_slice(&(random | 1).to_be_bytes());
            let (state, your) = if n % 2 == 0 { (0xc0, random) } else { (0x40, 0) };
            octets[1] = state;
            octets[8..12].copy_from_slice(&your.to_be_bytes());
            // A Down of the neighbour without our discriminator would be accepted, so those packets
            // come from another address.
            let from = if n % 2 == 0 { &socket } else { &stranger };
            let _ = from.send_to(&octets, to);
            sent += 1;
        }
    }
    sent
}

/// The share of a core that the thread takes meanwhile, and what `during` returns.
fn share_of<T>(during: impl FnOnce() -> T) -> (f64, T) {
    let (before, began) = (processor_times("bfd"), Instant::now());
    let result = during();
    (spent_since(&before, "bfd").as_secs_f64() / began.elapsed().as_secs_f64(), result)
}

/// Forged packets of every kind, as fast as this machine can send them.
#[test]
#[ignore = "needs root: a network namespace"]
fn a_flood_of_forged_packets_costs_no_session_and_little_time() {
    const TIME: Duration = Duration::from_secs(3);
    enter_namespace();
    let bfd = Bfd::start(Clock::start()).unwrap();
    let mut watch = Watch::new(&bfd);
    let config = Config { min_tx: millis(100), min_rx: millis(100), ..Config::default() };
    want_pairs(&bfd, 10, &config);
    watch.all_up(20);
    let (quiet, ()) = share_of(|| std::thread::sleep(Duration::from_secs(1)));

    let (busy, sent) = share_of(|| {
        let until = Instant::now() + TIME;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let senders: Vec<_> =
            (0..cores).map(|core| std::thread::spawn(move || forge(core << 24, until))).collect();
        senders.into_iter().map(|sender| sender.join().expect("it only sends")).sum::<u64>()
    });
    let view = watch.view();
    let per_second = sent as f64 / TIME.as_secs_f64();
    println!(
        "{per_second:.0} forged packets/s, {:.2} Gbit/s: {:.1} % of a core ({:.1} % without), \
         {} overflows, late at most {:?}, dropped {:?}",
        per_second * (FORGED + OVERHEAD) as f64 * 8.0 / 1e9,
        busy * 100.0,
        quiet * 100.0,
        view.overflows,
        view.late_max,
        view.discards,
    );
    assert_eq!(watch.failures(), 0, "a session went down");
    assert!(busy < quiet + 0.05, "{busy}");
    for reason in [Discard::Ttl, Discard::NoSession] {
        assert!(view.discards.get(&reason).is_some_and(|count| *count > 0), "{:?}", view.discards);
    }
    bfd.stop();
}

/// Whoever reads packets on the link knows our discriminator. The thread has a real-time priority: it
/// must leave its core to others for half of the time.
#[test]
#[ignore = "needs root: a network namespace"]
fn a_flood_with_our_discriminator_does_not_occupy_a_core() {
    enter_namespace();
    let bfd = Bfd::start(Clock::start()).unwrap();
    let mut watch = Watch::new(&bfd);
    want_pairs(&bfd, 1, &Config::default());
    watch.all_up(2);
    let ours = watch.view().sessions[0].snapshot.local_discr;
    let (busy, sent) = share_of(|| {
        let stranger = UdpSocket::bind("127.9.0.1:0").unwrap();
        stranger.set_ttl(255).unwrap();
        let mut octets = [0_u8; HEADER_LEN];
        octets[..8].copy_from_slice(&[0x20, 0xc0, 3, 24, 0, 0, 0, 9]);
        octets[8..12].copy_from_slice(&ours.get().to_be_bytes());
        let (began, mut sent) = (Instant::now(), 0_u64);
        while began.elapsed() < Duration::from_secs(2) {
            for _ in 0..256 {
                sent += u64::from(stranger.send_to(&octets, "127.1.0.1:3784").is_ok());
            }
        }
        sent / 2
    });
    let view = watch.view();
    println!("{sent} packets/s with our discriminator: {:.1} % of a core", busy * 100.0);
    assert!(view.discards.get(&Discard::Source).is_some_and(|count| *count > 0));
    assert!(busy < 0.6, "{busy}");
    bfd.stop();
}

/// A thousand sessions at 300 ms. On loopback, the sender is charged for the receiver's network
/// stack as well.
#[test]
#[ignore = "needs root: a network namespace"]
fn a_thousand_sessions_cost_little() {
    enter_namespace();
    let bfd = Bfd::start(Clock::start()).unwrap();
    let mut watch = Watch::new(&bfd);
    want_pairs(&bfd, 500, &Config::default());
    watch.all_up(1000);
    std::thread::sleep(Duration::from_secs(2));
    let (before, began) = (processor_times("bfd"), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let share = spent_since(&before, "bfd").as_secs_f64() / began.elapsed().as_secs_f64();
    let view = watch.view();
    println!(
        "1000 sessions at 300 ms: {:.2} % of a core, late at most {:?}",
        share * 100.0,
        view.late_max
    );
    let failed: Vec<_> = watch.look().values().flatten().filter(|s| s.failures > 0).collect();
    assert!(failed.is_empty(), "{} of 1000 failed: {:?}", failed.len(), failed.first());
    // On a machine with other load, everything runs slower.
    let limit = if std::env::var_os("MARGAY_QUIET_MACHINE").is_some() { 0.03 } else { 0.15 };
    assert!(share < limit, "{share}");
    bfd.stop();
}
