//! Random changes of links, addresses, objects and routes by us and by others. After each group the
//! kernel itself says what must hold.
//!
//! `MARGAY_ROUNDS=N` for more rounds, `MARGAY_SEED=N` for others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_proto::types::{FibKind, Hop, Prefix};
use margay::kernel::{FibConfig, FibEvent, Leave, NextHopState};
use serde_json::Value;

use crate::namespace::{Running, ifindex, in_namespace, in_user_namespace, ip, try_ip_batch, veth};

const LINKS: [&str; 3] = ["v1", "v2", "v3"];
const WANTED: u32 = 12;
const METRICS: [u64; 2] = [20, 1044];

/// A small generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u32::try_from((self.0 >> 33) % u64::from(limit)).unwrap()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn link(&mut self) -> usize {
        self.below(3) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn address(six: bool, link: usize, host: u32) -> String {
    if six {
        format!("2001:db8:{}::{host:x}", link + 1)
    } else {
        format!("10.0.{}.{host}", link + 1)
    }
}

fn network(six: bool, link: usize) -> String {
    format!("{}/{}", address(six, link, 1), if six { 64 } else { 24 })
}

/// The prefix with the number; the first is that of a connected network.
fn prefix(six: bool, number: u32) -> String {
    match (six, number) {
        (false, 0) => "10.0.1.0/24".into(),
        (true, 0) => "2001:db8:1::/64".into(),
        (false, _) => format!("10.100.{number}.0/24"),
        (true, _) => format!("2001:db8:100:{number:x}::/64"),
    }
}

fn tracked(six: bool) -> Vec<String> {
    let far =
        if six { ["2001:db8:200::1", "2001:db8:200::81"] } else { ["192.0.2.1", "192.0.2.129"] };
    let near = (0..3).map(|link| address(six, link, 9));
    far.into_iter().map(str::to_owned).chain(near).collect()
}

/// What was wanted: the legs of each prefix, as gateway and interface.
type Legs = BTreeSet<(String, String)>;

struct World {
    random: Random,
    fib: Running,
    wanted: BTreeMap<String, Legs>,
    states: BTreeMap<IpAddr, NextHopState>,
}

impl World {
    fn start(seed: u64) -> World {
        for (at, link) in LINKS.iter().enumerate() {
            veth(link, &network(false, at), &network(true, at));
        }
        let fib = Running::start(FibConfig::default());
        fib.fib.end_of_startup();
        for addr in tracked(false).into_iter().chain(tracked(true)) {
            fib.fib.track(addr.parse().unwrap());
        }
        World { random: Random(seed), fib, wanted: BTreeMap::new(), states: BTreeMap::new() }
    }

    /// Changes what we want.
    fn want(&mut self) {
        for _ in 0..self.random.below(6) {
            let six = self.random.chance(50);
            let name = prefix(six, self.random.below(WANTED));
            let mut hops = Vec::new();
            for (link, dev) in LINKS.iter().enumerate() {
                if self.random.chance(50) {
                    let gateway = address(six, link, 2 + self.random.below(3));
                    hops.push((gateway, (*dev).to_owned()));
                }
            }
            let parsed: Prefix = name.parse().unwrap();
            if hops.is_empty() {
                self.fib.withdraw(&name);
                self.wanted.remove(&name);
                continue;
            }
            let leg = |(gateway, dev): &(String, String)| Hop {
                gateway: Some(gateway.parse().unwrap()),
                ifindex: ifindex(dev),
                onlink: false,
                weight: 1,
            };
            self.fib.want(&parsed.to_string(), FibKind::Unicast(hops.iter().map(leg).collect()));
            self.wanted.insert(parsed.to_string(), hops.into_iter().collect());
        }
    }

    /// One line for `ip -batch`: what somebody else does.
    fn injury(&mut self) -> String {
        let random = &mut self.random;
        let (six, link) = (random.chance(50), random.link());
        let (flag, dev) = (if six { "-6 " } else { "" }, LINKS[link]);
        let gateway = address(six, random.link(), 2 + random.below(3));
        let name = prefix(six, random.below(WANTED));
        let far = match (six, random.below(3)) {
            (_, 2) => "default",
            (false, 0) => "192.0.2.0/24",
            (false, _) => "192.0.2.128/25",
            (true, 0) => "2001:db8:200::/48",
            (true, _) => "2001:db8:200::80/121",
        };
        let kind = ["", "unreachable ", "blackhole ", "throw "][random.below(4) as usize];
        let metric = METRICS[usize::from(six)];
        let id = 100 + random.below(3);
        let verb = ["add", "replace", "append", "del", "del"][random.below(5) as usize];
        match random.below(16) {
            0 => format!("link set {dev} down"),
            1 | 2 => format!("link set {dev} up"),
            3 => format!("link set {dev}p down"),
            4 | 5 => format!("link set {dev}p up"),
            6 => format!("addr del {} dev {dev}", network(six, link)),
            7 | 8 => format!(
                "addr add {} dev {dev}{}",
                network(six, link),
                if six { " nodad" } else { "" }
            ),
            9 => format!("{flag}route del {name} proto 12"),
            10 => format!("{flag}route {verb} {name} via {gateway} proto 12 metric {metric}"),
            11 => format!("{flag}route {verb} {name} via {gateway} proto 4 metric {metric}"),
            12 if kind.is_empty() => format!("{flag}route {verb} {far} via {gateway} proto 4"),
            12 => format!("{flag}route {verb} {kind}{far} proto 4"),
            13 if verb == "del" => format!("nexthop del id {id}"),
            13 => format!("nexthop replace id {id} via {gateway} dev {dev}"),
            14 => format!("{flag}route {verb} {far} nhid {id} proto 4"),
            _ => format!("{flag}route flush proto 12"),
        }
    }

    /// What does not hold at present.
    fn faults(&mut self) -> Vec<String> {
        for event in self.fib.take_events() {
            if let FibEvent::NextHop { addr, state } = event {
                self.states.insert(addr, state);
            }
        }
        let mut faults = Vec::new();
        for six in [false, true] {
            let kernel = Kernel::read(six);
            self.compare_routes(six, &kernel, &mut faults);
            for addr in tracked(six) {
                let state = self.states.get(&addr.parse::<IpAddr>().unwrap());
                faults.extend(compare_next_hop(&addr, state, &kernel));
            }
        }
        if self.fib.fib.counters().pending > 0 {
            faults.push("routes are pending".into());
        }
        faults
    }

    fn compare_routes(&self, six: bool, kernel: &Kernel, faults: &mut Vec<String>) {
        for (name, routes) in &kernel.ours {
            if !self.wanted.contains_key(name) {
                faults.push(format!("{name} is not wanted and there: {routes:?}"));
            } else if routes.len() > 1 {
                faults.push(format!("{name} is there more than once: {routes:?}"));
            }
        }
        for (name, wanted) in self.wanted.iter().filter(|(name, _)| name.contains(':') == six) {
            let there = kernel.ours.get(name).and_then(|routes| routes.first());
            if kernel.connected.contains(name) {
                if let Some(there) = there {
                    faults.push(format!("{name} is connected and overridden: {there:?}"));
                }
                continue;
            }
            if kernel.foreign.contains(&(name.clone(), METRICS[usize::from(six)])) {
                continue;
            }
            let takes: Legs = wanted.iter().filter(|leg| kernel.takes(leg)).cloned().collect();
            let there = there.cloned().unwrap_or_default();
            if !takes.is_subset(&there) || !there.is_subset(wanted) {
                faults.push(format!("{name}: {there:?} of {wanted:?}, the kernel takes {takes:?}"));
            }
        }
    }
}

/// What one family of the kernel has.
struct Kernel {
    /// Routes of ours with their legs that forward.
    ours: BTreeMap<String, Vec<Legs>>,
    foreign: BTreeSet<(String, u64)>,
    connected: BTreeSet<String>,
    /// Interfaces that are up, and those with carrier.
    up: BTreeSet<String>,
    running: BTreeSet<String>,
    networks: BTreeSet<(String, String)>,
    six: bool,
}

impl Kernel {
    fn read(six: bool) -> Kernel {
        let family = if six { "-6" } else { "-4" };
        let mut kernel = Kernel {
            ours: BTreeMap::new(),
            foreign: BTreeSet::new(),
            connected: BTreeSet::new(),
            up: BTreeSet::new(),
            running: BTreeSet::new(),
            networks: BTreeSet::new(),
            six,
        };
        for link in json("-j link show") {
            let name = text(&link["ifname"]);
            let flags: BTreeSet<String> =
                link["flags"].as_array().unwrap().iter().map(text).collect();
            if flags.contains("UP") {
                kernel.up.insert(name.clone());
            }
            if flags.contains("LOWER_UP") {
                kernel.running.insert(name);
            }
        }
        for link in json(&format!("{family} -j addr show")) {
            for addr in link["addr_info"].as_array().into_iter().flatten() {
                if let Some(local) = addr["local"].as_str() {
                    let length = addr["prefixlen"].as_u64().unwrap();
                    let net = Prefix::new(local.parse().unwrap(), u8::try_from(length).unwrap());
                    let dev = text(&link["ifname"]);
                    kernel.connected.insert(net.to_string());
                    kernel.networks.insert((net.to_string(), dev));
                }
            }
        }
        for route in json(&format!("{family} -N -j route show table 254")) {
            kernel.take_route(&route);
        }
        kernel
    }

    fn take_route(&mut self, route: &Value) {
        let name = match route["dst"].as_str() {
            None | Some("default") => return,
            Some(name) if name.contains('/') => name.to_owned(),
            Some(name) => format!("{name}/{}", if self.six { 128 } else { 32 }),
        };
        let metric = route["metric"].as_u64().unwrap_or(0);
        if text(&route["protocol"]) != "12" {
            self.foreign.insert((name, metric));
            return;
        }
        let legs = match route["nexthops"].as_array() {
            Some(legs) => legs.iter().filter_map(leg).collect(),
            None => leg(route).into_iter().collect(),
        };
        self.ours.entry(name).or_default().push(legs);
    }

    /// Whether the kernel takes a leg: its interface is up, and the gateway on one of its networks.
    fn takes(&self, (gateway, dev): &(String, String)) -> bool {
        let net = Prefix::new(gateway.parse().unwrap(), if self.six { 64 } else { 24 });
        self.up.contains(dev) && self.networks.contains(&(net.to_string(), dev.clone()))
    }
}

fn leg(value: &Value) -> Option<(String, String)> {
    let flags: Vec<String> = value["flags"].as_array().into_iter().flatten().map(text).collect();
    if flags.iter().any(|flag| flag == "dead") {
        return None;
    }
    Some((value["gateway"].as_str()?.to_owned(), value["dev"].as_str()?.to_owned()))
}

fn json(args: &str) -> Vec<Value> {
    let text = ip(args);
    match text.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).unwrap(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What the kernel does with a packet to `addr`, against what was reported.
fn compare_next_hop(addr: &str, state: Option<&NextHopState>, kernel: &Kernel) -> Option<String> {
    let output = std::process::Command::new("ip").args(["route", "get", addr]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = |before: &str| {
        let mut words = answer.split_whitespace().skip_while(|word| *word != before).skip(1);
        words.next().map(str::to_owned)
    };
    let dev = word("dev").filter(|_| output.status.success());
    let dropped = ["unreachable", "blackhole", "prohibit"].iter().any(|k| answer.starts_with(k));
    let dev = dev.filter(|dev| !dropped && dev != "lo" && kernel.running.contains(dev));
    let fault = || Some(format!("{addr}: {state:?}, and the kernel: {}", answer.trim()));
    match (dev, state) {
        (Some(dev), Some(NextHopState::Via { hops, .. })) => {
            let gateway = word("via").unwrap_or_else(|| addr.to_owned());
            let gateway: IpAddr = gateway.parse().unwrap();
            let index = ifindex(&dev);
            let met = hops.iter().any(|h| h.ifindex == index && h.gateway == Some(gateway));
            if met { None } else { fault() }
        }
        (None, Some(NextHopState::Via { .. })) | (Some(_), _) => fault(),
        (None, _) => None,
    }
}

/// Runs groups of changes, and looks after each whether the kernel is right soon.
fn run(rounds: u64, stalls: bool) {
    let seed = number("MARGAY_SEED", 1);
    let mut world = World::start(seed);
    let (mut slowest, mut events) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let gate = std::sync::Arc::clone(&world.fib.gate);
        let held = (stalls && world.random.chance(30)).then(|| gate.lock().unwrap());
        let mut script = Vec::new();
        for _ in 0..1 + world.random.below(8) {
            script.push(world.injury());
        }
        if held.is_some() {
            // More than the buffer holds.
            for i in 0..3000 {
                let verb = ["add", "del"][i % 2];
                script.push(format!("route {verb} blackhole 172.16.0.0/12 proto 4"));
            }
        }
        events += script.len();
        world.want();
        try_ip_batch(&script.join("\n"));
        drop(held);
        let began = Instant::now();
        loop {
            let faults = world.faults();
            if faults.is_empty() {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(15),
                "seed {seed}, round {round}:\n{}\nafter:\n{}\n{}",
                faults.join("\n"),
                script.iter().take(10).cloned().collect::<Vec<_>>().join("\n"),
                ["-4", "-6"].map(|family| ip(&format!("{family} route"))).join("\n")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        slowest = slowest.max(began.elapsed());
    }
    println!("{rounds} rounds, {events} events, the slowest right after {slowest:?}");
    world.fib.stop(Leave::Withdraw);
    for family in ["-4", "-6"] {
        assert_eq!(ip(&format!("{family} route show proto 12")), "");
    }
}

#[test]
#[ignore = "needs root"]
fn random_changes_end_as_the_kernel_forwards() {
    in_namespace("random::random_changes_end_as_the_kernel_forwards", || {
        run(number("MARGAY_ROUNDS", 60), false);
    });
}

/// Without privilege the kernel grants small buffers only, and the FIB's thread stands still at times:
/// events are lost.
#[test]
#[ignore = "needs root"]
fn random_changes_end_right_although_events_are_lost() {
    in_user_namespace("random::random_changes_end_right_although_events_are_lost", || {
        run(number("MARGAY_ROUNDS", 40), true);
    });
}
