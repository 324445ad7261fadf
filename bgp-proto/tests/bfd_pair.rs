//! Two BFD sessions on one clock, through loss, duplication, delay and reordering.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU8;
use std::time::Duration;

use bgp_proto::bfd::{
    Auth, AuthKind, Cause, Config, Discriminator, Key, Received, Session, Snapshot, State,
};
use bgp_proto::types::Time;
use proptest::prelude::*;

/// What a direction does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wire {
    loss_percent: u64,
    duplicates_percent: u64,
    delay_max: Duration,
}

const CLEAN: Wire =
    Wire { loss_percent: 0, duplicates_percent: 0, delay_max: Duration::from_micros(200) };
const CUT: Wire = Wire { loss_percent: 100, ..CLEAN };

/// Arrival, sequence, receiver, octets.
type Flying = (Time, u64, usize, Vec<u8>);

struct World {
    now: Time,
    ends: [Session; 2],
    wires: [Wire; 2],
    flight: BinaryHeap<Reverse<Flying>>,
    sequence: u64,
    random: u64,
    /// When, end, state after it, why.
    changes: Vec<(Time, usize, State, Cause)>,
    sent: Vec<(Time, usize, Snapshot)>,
}

impl World {
    fn new(configs: [Config; 2], seed: u64) -> World {
        let now = Time::ZERO + Duration::from_secs(1);
        let [a, b] = configs;
        let discr = |n| Discriminator::new(n).expect("not zero");
        World {
            now,
            ends: [
                Session::new(now, a, discr(1), seed),
                Session::new(now, b, discr(2), seed.rotate_left(7)),
            ],
            wires: [CLEAN; 2],
            flight: BinaryHeap::new(),
            sequence: 0,
            random: seed,
            changes: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.checked_rem(below).unwrap_or(0)
    }

    fn send(&mut self, from: usize, octets: &[u8]) {
        let wire = self.wires[from];
        let copies = if self.draw(100) < wire.duplicates_percent { 2 } else { 1 };
        for _ in 0..copies {
            if self.draw(100) < wire.loss_percent {
                continue;
            }
            let delay = self.draw(u64::try_from(wire.delay_max.as_micros()).expect("short") + 1);
            let at = self.now + Duration::from_micros(delay);
            self.sequence += 1;
            self.flight.push(Reverse((at, self.sequence, 1 - from, octets.to_vec())));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut octets = Vec::new();
        loop {
            let deadlines = self.ends.iter().filter_map(Session::poll_timeout);
            let arrival = self.flight.peek().map(|Reverse((at, ..))| *at);
            let Some(at) = deadlines.chain(arrival).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            while let Some(Reverse((at, _, to, packet))) = self.flight.pop() {
                if at > self.now {
                    self.flight.push(Reverse((at, 0, to, packet)));
                    break;
                }
                let received = Received::decode(&packet).expect("what we send is valid");
                if let Ok(Some(change)) = self.ends[to].handle_packet(self.now, &received) {
                    self.changes.push((self.now, to, change.to, change.cause));
                }
            }
            for end in 0..2 {
                if let Some(change) = self.ends[end].handle_timeout(self.now) {
                    self.changes.push((self.now, end, change.to, change.cause));
                }
                octets.clear();
                while self.ends[end].poll_transmit(self.now, &mut octets) {
                    self.send(end, &octets);
                    self.sent.push((self.now, end, self.ends[end].snapshot()));
                    octets.clear();
                }
            }
        }
        self.now = end;
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }
}

fn intervals() -> impl Strategy<Value = Duration> + Clone {
    (10_u64..2000).prop_map(Duration::from_millis)
}

fn configs() -> impl Strategy<Value = [Config; 2]> {
    let end = (intervals(), intervals(), 2_u8..6);
    let auth = prop_oneof![
        Just(None),
        Just(Some(AuthKind::SimplePassword)),
        Just(Some(AuthKind::KeyedSha1)),
        Just(Some(AuthKind::MeticulousKeyedSha1)),
    ];
    (end.clone(), end, auth).prop_map(|(a, b, kind)| {
        [a, b].map(|(min_tx, min_rx, multiplier)| Config {
            min_tx,
            min_rx,
            multiplier: NonZeroU8::new(multiplier).expect("from 2"),
            auth: kind.map(|kind| Auth {
                kind,
                send: Key::new(kind, 1, "secret").expect("short"),
                accept: Vec::new(),
            }),
            ..Config::default()
        })
    })
}

fn wires() -> impl Strategy<Value = Wire> {
    (0_u64..95, 0_u64..50, 0_u64..3000).prop_map(|(loss_percent, duplicates_percent, delay)| Wire {
        loss_percent,
        duplicates_percent,
        delay_max: Duration::from_millis(delay),
    })
}

/// Longer than any detection time, twice for the sequence numbers, and the handshake at 1 s.
const SETTLE: Duration = Duration::from_secs(40);

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the network did, once it is clean both ends come up, agree on the intervals, stay
    /// up, and notice within the detection time when it is cut.
    #[test]
    fn both_ends_come_up_agree_and_notice(
        configs in configs(),
        noise in prop::collection::vec((wires(), wires(), 1_u64..20), 0..4),
        one_way in any::<bool>(),
        seed in 1_u64..,
    ) {
        let mut world = World::new(configs.clone(), seed);
        for (there, back, seconds) in noise {
            world.wires = [there, back];
            world.run(Duration::from_secs(seconds));
        }
        world.wires = [CLEAN; 2];
        world.run(SETTLE);
        prop_assert_eq!(world.states(), [State::Up, State::Up]);
        for end in 0..2 {
            let (own, other) = (&configs[end], &configs[1 - end]);
            let snapshot = world.ends[end].snapshot();
            prop_assert_eq!(snapshot.tx_interval, own.min_tx.max(other.min_rx));
            let detection = own.min_rx.max(other.min_tx) * u32::from(other.multiplier.get());
            prop_assert_eq!(snapshot.detection_time, detection);
        }

        world.changes.clear();
        world.sent.clear();
        world.run(Duration::from_secs(60));
        prop_assert!(world.changes.is_empty(), "a clean wire took it down: {:?}", world.changes);
        for end in 0..2 {
            let mine: Vec<_> = world.sent.iter().filter(|(_, by, _)| *by == end).collect();
            for pair in mine.windows(2) {
                let (gap, interval) = (pair[1].0.since(pair[0].0), pair[1].2.tx_interval);
                prop_assert!(gap >= interval * 3 / 4 && gap <= interval, "{gap:?} of {interval:?}");
            }
        }

        world.wires = [CUT, if one_way { CLEAN } else { CUT }];
        let cut = world.now;
        world.run(SETTLE);
        prop_assert!(world.states().iter().all(|state| *state != State::Up));
        // End 1 receives nothing more: its detection time expires, in (multiplier - 1) to
        // multiplier intervals.
        let (at, _, _, cause) = *world.changes.iter().find(|(_, end, ..)| *end == 1).expect("down");
        prop_assert_eq!(cause, Cause::DetectionTimeExpired);
        let interval = configs[0].min_tx.max(configs[1].min_rx);
        let multiplier = u32::from(configs[0].multiplier.get());
        let took = at.since(cut);
        prop_assert!(took <= interval * multiplier + CLEAN.delay_max, "{took:?}");
        prop_assert!(took + Duration::from_micros(1) >= interval * (multiplier - 1), "{took:?}");
        if one_way {
            // RFC 5880 §6.8.6: the other end is signalled, and does not wait for its own timer.
            let (_, _, _, cause) = *world.changes.iter().find(|(_, end, ..)| *end == 0).expect("down");
            prop_assert!(cause == Cause::NeighborDown, "{cause:?}");
        }
    }
}

/// Equal seeds, equal histories.
#[test]
fn a_pair_is_deterministic() {
    let run = || {
        let mut world = World::new([Config::default(), Config::default()], 42);
        let lossy = Wire {
            loss_percent: 30,
            duplicates_percent: 10,
            delay_max: Duration::from_millis(400),
        };
        world.wires = [lossy; 2];
        world.run(Duration::from_secs(120));
        (world.changes.clone(), world.sent.len())
    };
    let (changes, sent) = run();
    assert!(!changes.is_empty());
    assert_eq!((changes, sent), run());
}
