//! Capability 71 (RFC 9494), and timers that change while the session is up.

use super::*;
use crate::session::{Offer, Restart};
use crate::types::FamilyMap;
use crate::wire::LongLivedFamily;

fn long_lived(secs: u64) -> PeerConfig {
    let times = FamilyMap([Duration::from_secs(secs), Duration::from_secs(1 << 30)]);
    PeerConfig { families: FamilySet::ALL, long_lived_stale_time: Some(times), ..config() }
}

fn family(family: Family, forwarding: bool, stale_time_secs: u32) -> LongLivedFamily {
    LongLivedFamily { family: family.afi_safi(), forwarding, stale_time_secs }
}

#[test]
fn the_capability_is_offered_beside_that_of_graceful_restart() {
    let offer = |config: &PeerConfig, offer: &Offer, restart| {
        crate::session::offer::build_open(config, offer, restart).capabilities.long_lived
    };
    let config = long_lived(3600);
    let families = |v4, v6| {
        let longest = LongLivedFamily::STALE_TIME_SECS_MAX;
        Some(vec![family(Family::Ipv4, v4, 3600), family(Family::Ipv6, v6, longest)])
    };
    assert_eq!(offer(&config, &Offer::Full, Restart::Done), families(true, true));
    let recovering = Restart::Recovering { preserved: FamilySet::only(Family::Ipv6) };
    assert_eq!(offer(&config, &Offer::Full, recovering), families(false, true));
    assert_eq!(offer(&config, &Offer::Without(vec![71]), Restart::Done), None);
    // RFC 9494 §4.5: alone it would be ignored.
    assert_eq!(offer(&config, &Offer::Without(vec![64]), Restart::Done), None);
    let alone = PeerConfig { graceful_restart_time: None, ..config };
    assert_eq!(offer(&alone, &Offer::Full, Restart::Done), None);
}

#[test]
fn what_is_kept_follows_from_both_capabilities() {
    let secs = Duration::from_secs;
    let both = [family(Family::Ipv4, true, 500), family(Family::Ipv6, true, 700)].to_vec();
    let keep = |restart, v4, v6| Keep {
        families: ipv4_only(),
        restart_time: secs(restart),
        long_lived: FamilyMap([secs(v4), secs(v6)]),
    };
    // Ours, theirs, the restart time of theirs; `None` as time: without capability 64.
    let off = || PeerConfig { families: FamilySet::ALL, ..config() };
    type Row = (PeerConfig, Option<Vec<LongLivedFamily>>, Option<u16>, Option<Keep>);
    let limited = |secs| PeerConfig {
        long_lived_stale_time_max: Some(Duration::from_secs(secs)),
        ..long_lived(9)
    };
    let rows: [Row; 8] = [
        (long_lived(9), Some(both.clone()), Some(77), Some(keep(77, 500, 700))),
        (long_lived(9), Some(both.clone()), Some(0), Some(keep(0, 500, 700))),
        (long_lived(9), Some(both.clone()), None, None),
        (limited(600), Some(both.clone()), Some(77), Some(keep(77, 500, 600))),
        (limited(0), Some(both.clone()), Some(77), Some(keep(77, 0, 0))),
        (long_lived(9), Some(Vec::new()), Some(77), Some(keep(77, 0, 0))),
        (long_lived(9), None, Some(77), Some(keep(77, 0, 0))),
        (off(), Some(both), Some(77), Some(keep(77, 0, 0))),
    ];
    for (config, theirs, restart, kept) in rows {
        let mut open = restarting_open(true);
        open.capabilities.multiprotocol = Family::ALL.map(|f| f.afi_safi()).to_vec();
        open.capabilities.long_lived = theirs;
        match (&mut open.capabilities.graceful_restart, restart) {
            (Some(capability), Some(secs)) => capability.restart_time_secs = secs,
            (capability, _) => *capability = None,
        }
        let session = |config: &PeerConfig| {
            let mut host = Host::new(config.clone());
            host.bring(State::OpenSent, Slot::Outgoing);
            host.receive(Slot::Outgoing, &open_message(&open));
            host.receive(Slot::Outgoing, &keepalive());
            assert_eq!(host.peer.state(), State::Established);
            host
        };
        let mut host = session(&config);
        host.closed(Slot::Outgoing);
        assert_eq!(host.downs.pop().unwrap().1, kept, "{open:?}");
        // RFC 8538: a Hard Reset never begins a wait.
        let mut host = session(&config);
        host.receive(Slot::Outgoing, &notification(Code::HARD_RESET));
        assert_eq!(host.downs.pop().unwrap().1, None);
        let mut host = session(&config);
        host.command(Command::Stop(Close::Shutdown { text: String::new() }));
        assert_eq!(host.downs.pop().unwrap().1, None);
    }
}

#[test]
fn the_longest_time_counts_both_phases() {
    let secs = Duration::from_secs;
    let mut keep = Keep::for_restart(ipv4_only(), secs(77));
    assert_eq!((keep.longest(), keep.of(Family::Ipv6)), (secs(77), None));
    keep.long_lived = FamilyMap([secs(10), secs(80)]);
    assert_eq!(keep.longest(), secs(87));
    assert_eq!(keep.of(Family::Ipv6), Some((secs(0), secs(80))), "not in capability 64");
    assert!(!keep.is_empty() && Keep::for_restart(FamilySet::EMPTY, secs(9)).is_empty());
}

#[test]
fn new_timers_leave_the_session_and_an_open_on_its_way_as_they_are() {
    let hold = |secs| PeerConfig { hold_time: Duration::from_secs(secs), ..config() };
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        let mut host = Host::new(hold(60));
        host.bring(state, Slot::Outgoing);
        host.peer.set_timers(Arc::new(hold(30))).unwrap();
        if state == State::OpenSent {
            host.receive(Slot::Outgoing, &open_message(&peer_open()));
        }
        if state < State::Established {
            host.receive(Slot::Outgoing, &keepalive());
        }
        let negotiated = host.peer.negotiated().expect("the session is up");
        assert_eq!(negotiated.hold_time, Duration::from_secs(60), "{state:?}: what our OPEN said");
        assert!(host.downs.is_empty());
        host.closed(Slot::Outgoing);
        host.command(Command::Retry);
        host.connected(Slot::Outgoing);
        host.receive(Slot::Outgoing, &open_message(&peer_open()));
        host.receive(Slot::Outgoing, &keepalive());
        let negotiated = host.peer.negotiated().expect("the next session is up");
        assert_eq!(negotiated.hold_time, Duration::from_secs(30), "{state:?}");
    }
}

#[test]
fn only_timers_can_be_replaced() {
    let mut host = Host::new(config());
    let other = PeerConfig { enforce_first_as: false, hold_time: Duration::ZERO, ..config() };
    assert!(
        !config().differs_only_in_timers(&other) && !config().differs_only_in_timers(&config())
    );
    let other = Arc::new(other);
    assert_eq!(host.peer.set_timers(Arc::clone(&other)), Err(other));
    assert_eq!(host.peer.set_timers(Arc::new(config())), Ok(()), "they are the same");
    assert_eq!(**host.peer.config(), config());
    // Whether a capability is offered is not a timer.
    assert!(
        !config().differs_only_in_timers(&PeerConfig { graceful_restart_time: None, ..config() })
    );
    let timers = PeerConfig {
        keepalive_time: Some(Duration::from_secs(5)),
        send_hold_time: Some(Duration::ZERO),
        connect_retry_time: Duration::from_secs(77),
        graceful_restart_time: Some(Duration::from_secs(1)),
        long_lived_stale_time_max: Some(Duration::from_secs(9)),
        ..config()
    };
    host.peer.set_timers(Arc::new(timers.clone())).unwrap();
    assert_eq!(**host.peer.config(), timers);
}

#[test]
fn other_parameters_take_another_session() {
    for state in [State::Connect, State::OpenSent, State::Established] {
        let mut host = Host::new(config());
        host.bring(state, Slot::Outgoing);
        let hold_time = Duration::from_secs(30);
        let other = Arc::new(PeerConfig { enforce_first_as: false, hold_time, ..config() });
        assert!(host.peer.set_timers(Arc::clone(&other)).is_err());
        host.peer.replace(host.now, Arc::clone(&other));
        host.drain();
        host.drain();
        assert_eq!(host.downs.len(), usize::from(state == State::Established), "{state:?}");
        assert!(host.peer.negotiated().is_none());
        assert_eq!(*host.peer.config(), other);
    }
}
