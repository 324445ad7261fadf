//! Random changes of wanted routes, links, addresses, next-hop objects and foreign routes, all at
//! once.
//!
//! `MARGAY_FIB_EVENTS=N`: number of events, default 1,200. `MARGAY_FIB_SEED=N`: seed, default 1.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use bgp_proto::sim::Random;
use bgp_proto::types::{FibKind, Hop};
use margay::kernel::{FibEvent, Leave, NextHopState};

use crate::groups::with_objects;
use crate::namespace::{Running, hop, in_user_namespace, routes, try_ip_batch, veth};

/// Number of events between two points at which the system settles.
const ROUND: u32 = 80;

/// An address reached by a foreign route over a foreign next-hop object.
const BEHIND_OBJECT: &str = "10.77.0.1";

/// The prefixes as written by `ip` and by the tests, with the metric of our routes.
fn prefixes() -> Vec<(String, &'static str, u32)> {
    let four = (0..24).map(|i| (format!("10.66.{i}.0/24"), "", 20));
    let six = (0..8).map(|i| (format!("2001:db8:66:{i}::/64"), "-6", 1044));
    // `ip` prints the first IPv6 prefix without its zero.
    four.chain(six).map(|(text, f, m)| (text.replace(":0::/64", "::/64"), f, m)).collect()
}

/// The source of events, the wanted routes, and the foreign routes that the kernel must keep.
struct World {
    /// Seeded: the same events every time.
    random: Random,
    fib: Running,
    prefixes: Vec<(String, &'static str, u32)>,
    legs: [(Hop, Hop); 2],
    wanted: BTreeMap<String, FibKind>,
    /// Foreign routes, which stay until an event deletes them.
    foreign: BTreeSet<String>,
    next_hop: Option<NextHopState>,
}

impl World {
    /// One event: a line for `ip -batch`, or `None` for a change of wanted routes.
    fn event(&mut self) -> Option<String> {
        let at = self.random.index(self.prefixes.len());
        let (prefix, _, metric) = self.prefixes[at].clone();
        let is_six = prefix.contains(':');
        let net = ["", ":1"][self.random.index(2)];
        let dev = if net.is_empty() { "v0" } else { "v1" };
        let stranger = if is_six {
            format!("2001:db8{net}::9")
        } else {
            format!("10.0.{}.9", u8::from(!net.is_empty()))
        };
        Some(match self.random.index(20) {
            0..=5 => {
                let hops = match (self.random.index(5), self.legs[usize::from(is_six)]) {
                    (0, _) => FibKind::Blackhole,
                    (1 | 2, (first, _)) => FibKind::Unicast(vec![first]),
                    (3, (_, second)) => FibKind::Unicast(vec![second]),
                    (_, (first, second)) => FibKind::Unicast(vec![first, second]),
                };
                self.fib.want(&prefix, hops.clone());
                self.wanted.insert(prefix, hops);
                return None;
            }
            6 | 7 => {
                self.fib.withdraw(&prefix);
                self.wanted.remove(&prefix);
                return None;
            }
            // In the place of ours, or beside it.
            8 => format!("route add blackhole {prefix} proto 4 metric {metric}"),
            9 => format!("route add blackhole {prefix} proto 4 metric {}", metric + 1),
            10 => {
                let metric = metric + self.random.index(2) as u32;
                self.foreign.remove(&format!("{prefix} {metric}"));
                format!("route del {prefix} proto 4 metric {metric}")
            }
            11 | 12 => format!("route del {prefix} proto 12"),
            13 => {
                self.foreign.remove(&format!("{prefix} {metric}"));
                format!("route replace {prefix} via {stranger} dev {dev} proto 12 metric {metric}")
            }
            14 => format!("route add {prefix} via {stranger} dev {dev} proto 12 metric 7"),
            15 if self.random.index(2) == 0 => {
                // One of our objects, if routes use objects.
                let id = (0x6000_0000 + (254 << 16)) + self.random.index(12) as u32;
                match self.random.index(3) {
                    0 => format!("nexthop replace id {id} via 10.0.0.9 dev v0 proto 12"),
                    1 => format!("nexthop add id {id} via 10.0.0.9 dev v0 proto 4"),
                    _ => format!("nexthop del id {id}"),
                }
            }
            15 => format!("link set {dev} down\nlink set {dev} up"),
            16 => "addr del 10.0.1.1/24 dev v1\naddr add 10.0.1.1/24 dev v1".to_owned(),
            17 => "addr del 2001:db8:1::1/64 dev v1".to_owned(),
            18 => format!(
                "nexthop replace id 7 via 10.0.0.{} dev v0\nroute add 10.77.0.0/24 nhid 7 proto 4",
                8 + self.random.index(2)
            ),
            _ => ["nexthop del id 7", "route del 10.77.0.0/24"][self.random.index(2)].to_owned(),
        })
    }

    /// Many events; then links and addresses are restored.
    fn round(&mut self) {
        let mut lines = String::new();
        for _ in 0..ROUND {
            if let Some(line) = self.event() {
                let _ = writeln!(lines, "{line}");
            }
            // Changes of wanted routes come between the lines of others.
            if self.random.index(10) == 0 {
                try_ip_batch(&std::mem::take(&mut lines));
            }
        }
        for (dev, v4, v6) in
            [("v0", "10.0.0.1", "2001:db8::1"), ("v1", "10.0.1.1", "2001:db8:1::1")]
        {
            let _ = write!(
                lines,
                "link set {dev} up\naddr replace {v4}/24 dev {dev}\n\
                 addr replace {v6}/64 dev {dev} nodad\n"
            );
        }
        try_ip_batch(&lines);
    }

    /// Routes of others, by prefix and metric.
    fn foreign_now(&self) -> BTreeSet<String> {
        let lines = ["route show proto 4", "-6 route show proto 4"].map(routes).concat();
        let dropping = lines.iter().filter_map(|line| line.strip_prefix("blackhole "));
        let named = dropping.map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let metric = words.iter().position(|word| *word == "metric").map(|at| words[at + 1]);
            format!("{} {}", words[0], metric.unwrap_or("0"))
        });
        named.collect()
    }

    /// What is wrong, if anything.
    fn wrong(&mut self) -> Option<String> {
        let foreign = self.foreign_now();
        if let Some(lost) = self.foreign.difference(&foreign).next() {
            panic!("{lost} of another program was deleted");
        }
        let ours = ["route show proto 12", "-6 route show proto 12"].map(routes).concat();
        for (prefix, _, metric) in &self.prefixes {
            let is_it = |line: &&String| line.split_whitespace().any(|word| word == prefix);
            let lines: Vec<&String> = ours.iter().filter(is_it).collect();
            if foreign.contains(&format!("{prefix} {metric}")) {
                continue;
            }
            let right = match (self.wanted.get(prefix), lines.as_slice()) {
                (None, []) => true,
                (Some(FibKind::Unicast(hops)), [line]) => {
                    let via = |hop: &Hop| format!("via {} ", hop.gateway.unwrap());
                    line.contains(&format!("metric {metric}"))
                        && line.matches("via ").count() == hops.len()
                        && hops.iter().all(|hop| line.contains(&via(hop)))
                }
                (Some(_), [line]) => line.starts_with("blackhole"),
                _ => false,
            };
            if !right {
                let (wanted, row) = (self.wanted.get(prefix), self.fib.row(prefix));
                return Some(format!("{prefix}: {lines:?} for {wanted:?}, shown as {row:?}"));
            }
        }
        self.wrong_next_hop()
    }

    /// The next hop behind the foreign object must be reached as by the kernel's route.
    fn wrong_next_hop(&mut self) -> Option<String> {
        for event in self.fib.take_events() {
            if let FibEvent::NextHop { state, .. } = event {
                self.next_hop = Some(state);
            }
        }
        let route = routes("route show 10.77.0.0/24").concat();
        let right = match &self.next_hop {
            Some(NextHopState::Via { hops, .. }) => {
                hops.iter().all(|hop| route.contains(&format!("via {} ", hop.gateway.unwrap())))
                    && !route.is_empty()
            }
            _ => route.is_empty(),
        };
        (!right).then(|| format!("{:?} for {route:?}", self.next_hop))
    }

    fn come_to_rest(&mut self, events: u32) {
        let began = std::time::Instant::now();
        while let Some(wrong) = self.wrong() {
            let waited = began.elapsed();
            assert!(waited.as_secs() < 20, "after {events} events: {wrong}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.foreign = self.foreign_now();
    }
}

/// Runs in a user namespace, where the sockets' buffers are small.
#[test]
#[ignore = "needs root"]
fn whatever_happens_ours_are_right_and_others_are_left_alone() {
    let name = "random::whatever_happens_ours_are_right_and_others_are_left_alone";
    whatever_happens(name, Running::with_defaults);
}

#[test]
#[ignore = "needs root"]
fn whatever_happens_to_next_hop_objects_ours_are_right() {
    let name = "random::whatever_happens_to_next_hop_objects_ours_are_right";
    whatever_happens(name, with_objects);
}

fn whatever_happens(name: &str, start: impl FnOnce() -> Running) {
    in_user_namespace(name, || {
        let number = |name, default| {
            std::env::var(name).map_or(default, |text| text.parse::<u32>().unwrap())
        };
        let (events, seed) = (number("MARGAY_FIB_EVENTS", 1200), number("MARGAY_FIB_SEED", 1));
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("v1", "10.0.1.1/24", "2001:db8:1::1/64");
        let fib = start();
        let next_hop: IpAddr = BEHIND_OBJECT.parse().unwrap();
        fib.fib.track(next_hop);
        let mut world = World {
            random: Random::new(seed.into()),
            fib,
            prefixes: prefixes(),
            legs: [
                (hop("10.0.0.2", "v0"), hop("10.0.1.2", "v1")),
                (hop("2001:db8::2", "v0"), hop("2001:db8:1::2", "v1")),
            ],
            wanted: BTreeMap::new(),
            foreign: BTreeSet::new(),
            next_hop: None,
        };
        for round in 1..=events / ROUND {
            world.round();
            world.come_to_rest(round * ROUND);
        }
        let foreign = world.foreign_now();
        world.fib.fib.clone().stop(Leave::Withdraw);
        assert_eq!(world.foreign_now(), foreign);
        for args in ["route show proto 12", "-6 route show proto 12", "nexthop show proto 12"] {
            assert_eq!(routes(args), Vec::<String>::new());
        }
    });
}
