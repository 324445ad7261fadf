use std::net::IpAddr;
use std::num::NonZeroU32;

use bgp_proto::bfd::{Flags, Packet, Received};
use bgp_proto::types::PeerId;

use super::super::VrfDevice;
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn target(peer: &str, local: Option<&str>, interface: u32) -> Target {
    Target {
        peer: ip(peer),
        local: local.map(ip),
        interface: NonZeroU32::new(interface),
        hops: Hops::Single,
        vrf: None,
        device: None,
    }
}

fn wanted(target: Target) -> Wanted {
    Wanted { target, config: Config::default() }
}

struct Host {
    sessions: Sessions,
    now: Time,
    drawn: u64,
}

impl Host {
    fn new() -> Host {
        let now = Time::ZERO + Duration::from_secs(5);
        Host { sessions: Sessions::new(now, Discriminators::new(99)), now, drawn: 7 }
    }

    fn want(&mut self, owner: u32, target: Option<Target>) {
        let drawn = &mut self.drawn;
        let mut random = || {
            *drawn = drawn.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *drawn
        };
        self.sessions.want(self.now, PeerId(owner), target.map(wanted), &mut random).unwrap();
    }

    /// Receives a packet of a peer with `your_discr`. Returns the discriminators of the responses.
    fn receive(
        &mut self,
        arrival: &Arrival,
        state: State,
        your_discr: Option<Discriminator>,
    ) -> Vec<Discriminator> {
        let packet = Packet {
            diag: bgp_proto::bfd::Diag::NONE,
            state,
            flags: Flags::NONE,
            detect_mult: 3,
            my_discr: Discriminator::new(77).unwrap(),
            your_discr,
            desired_min_tx: Duration::from_millis(300),
            required_min_rx: Duration::from_millis(300),
            required_min_echo_rx: Duration::ZERO,
        };
        let mut octets = Vec::new();
        packet.encode(0, &mut octets);
        let mut sent = Vec::new();
        self.sessions.handle_datagram(self.now, arrival, &octets, &mut |out| {
            sent.push(Received::decode(out.octets).unwrap().packet.my_discr);
        });
        sent
    }

    fn pass(&mut self, time: Duration) -> usize {
        let end = self.now + time;
        let mut sent = 0;
        while let Some(at) = self.sessions.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.sessions.handle_timeout(self.now, Detection::Expires, &mut |_| sent += 1);
        }
        self.now = end;
        sent
    }

    fn state(&self, owner: u32) -> Option<State> {
        let id = self.sessions.by_owner.get(&PeerId(owner))?;
        Some(self.sessions.entry(*id)?.status.state)
    }

    fn discr(&self, owner: u32) -> Discriminator {
        let id = self.sessions.by_owner[&PeerId(owner)];
        self.sessions.entry(id).unwrap().session.local_discr()
    }

    fn discarded(&self, reason: Discard) -> u64 {
        self.sessions.discards().get(&reason).copied().unwrap_or(0)
    }
}

fn arrival(source: &str, destination: &str, interface: u32, ttl: u8) -> Arrival {
    let details = Some(Details { destination: ip(destination), interface, ttl });
    Arrival {
        source: ip(source),
        scope: interface,
        is_single_hop: true,
        vrf: None,
        stamp: Duration::ZERO,
        details,
    }
}

#[test]
fn a_first_packet_finds_the_session_by_addresses_and_interface() {
    let mut host = Host::new();
    host.want(1, Some(target("10.0.0.2", Some("10.0.0.1"), 0)));
    host.want(2, Some(target("10.0.0.2", Some("10.0.0.9"), 0)));
    host.want(3, Some(target("fe80::2", None, 4)));
    host.want(4, Some(target("fe80::2", None, 5)));
    host.want(5, Some(target("10.0.0.3", None, 0)));
    for (arrival, owner) in [
        (arrival("10.0.0.2", "10.0.0.1", 4, 255), 1),
        (arrival("10.0.0.2", "10.0.0.9", 4, 255), 2),
        (arrival("fe80::2", "fe80::1", 4, 255), 3),
        (arrival("fe80::2", "fe80::1", 5, 255), 4),
        (arrival("10.0.0.3", "10.7.7.7", 6, 255), 5),
    ] {
        assert_eq!(host.receive(&arrival, State::Down, None), [host.discr(owner)], "{owner}");
        assert_eq!(host.state(owner), Some(State::Init));
    }
    for nobodys in [
        arrival("10.0.0.2", "10.0.0.5", 4, 255),
        arrival("10.0.0.4", "10.0.0.1", 4, 255),
        arrival("fe80::2", "fe80::1", 6, 255),
    ] {
        assert_eq!(host.receive(&nobodys, State::Down, None), []);
    }
    assert_eq!(host.discarded(Discard::NoSession), 3);
}

/// RFC 5880 §6.3: the discriminator selects the session. The source must still be the neighbour.
#[test]
fn a_discriminator_finds_its_session_and_no_other() {
    let mut host = Host::new();
    host.want(1, Some(target("10.0.0.2", Some("10.0.0.1"), 0)));
    host.want(2, Some(target("10.0.0.3", Some("10.0.0.1"), 0)));
    let known = |source| Arrival { details: None, ..arrival(source, "10.0.0.1", 0, 255) };
    let discr = host.discr(1);
    assert_eq!(host.receive(&known("10.0.0.2"), State::Init, Some(discr)), [discr]);
    assert_eq!(host.state(1), Some(State::Up));
    assert_eq!(host.receive(&known("10.0.0.3"), State::Down, Some(discr)), []);
    assert_eq!(host.state(1), Some(State::Up), "another neighbour cannot take it down");
    assert_eq!(host.receive(&known("10.0.0.2"), State::Up, Discriminator::new(5)), []);
    assert_eq!((host.discarded(Discard::Source), host.discarded(Discard::NoSession)), (1, 1));
    let routed = arrival("10.0.0.2", "10.0.0.1", 0, 254);
    assert_eq!(host.receive(&routed, State::Down, None), []);
    assert_eq!(host.discarded(Discard::Ttl), 1, "RFC 5881 §5");
}

#[test]
fn multihop_sessions_have_their_own_minimum_ttl() {
    let mut host = Host::new();
    let hops = Hops::Multi { ttl_min: 250 };
    host.want(1, Some(Target { hops, ..target("10.0.0.2", Some("10.0.0.1"), 0) }));
    let multi = |ttl| Arrival { is_single_hop: false, ..arrival("10.0.0.2", "10.0.0.1", 0, ttl) };
    assert_eq!(host.receive(&multi(249), State::Down, None), []);
    assert_eq!(host.discarded(Discard::Ttl), 1);
    assert_eq!(host.receive(&multi(250), State::Down, None), [host.discr(1)]);
    // Single-hop and multihop packets do not mix, whatever the addresses are.
    assert_eq!(host.receive(&arrival("10.0.0.2", "10.0.0.1", 0, 255), State::Down, None), []);
}

#[test]
fn a_session_is_shared_and_takes_the_strictest_timers() {
    let mut host = Host::new();
    let shared = target("10.0.0.2", Some("10.0.0.1"), 0);
    host.want(1, Some(shared.clone()));
    let faster = Config { min_tx: Duration::from_millis(50), ..Config::default() };
    let second = Wanted { target: shared.clone(), config: faster };
    host.sessions.want(host.now, PeerId(2), Some(second), &mut || 1).unwrap();
    let entered = host.sessions.entered(|_, _| None);
    assert_eq!(entered.len(), 1);
    assert_eq!(entered[0].owners, [PeerId(1), PeerId(2)]);
    host.receive(&arrival("10.0.0.2", "10.0.0.1", 0, 255), State::Down, None);
    host.receive(&arrival("10.0.0.2", "10.0.0.1", 0, 255), State::Up, Some(host.discr(1)));
    let snapshot = host.sessions.entered(|_, _| None)[0].snapshot;
    assert_eq!((snapshot.state, snapshot.desired_min_tx), (State::Up, Duration::from_millis(50)));
    host.sessions.take_changed();
    host.want(2, None);
    assert_eq!(host.state(1), Some(State::Up), "one of two owners left");
    assert_eq!(host.sessions.take_changed(), [(PeerId(2), None)]);
    let snapshot = host.sessions.entered(|_, _| None)[0].snapshot;
    assert_eq!(snapshot.desired_min_tx, Duration::from_millis(300));
}

#[test]
fn failures_are_counted_and_admin_down_is_not() {
    let mut host = Host::new();
    host.want(1, Some(target("10.0.0.2", None, 0)));
    let peer = arrival("10.0.0.2", "10.0.0.1", 0, 255);
    let up = |host: &mut Host| {
        host.receive(&peer, State::Down, None);
        let discr = host.discr(1);
        host.receive(&peer, State::Up, Some(discr));
        assert_eq!(host.state(1), Some(State::Up));
    };
    let failures = |host: &mut Host| {
        let changed = host.sessions.take_changed();
        let status = changed.iter().find(|(owner, _)| *owner == PeerId(1)).unwrap().1.unwrap();
        (status.failures, status.last_down.map(|down| down.cause))
    };
    up(&mut host);
    host.receive(&peer, State::AdminDown, Some(host.discr(1)));
    assert_eq!(failures(&mut host), (0, Some(Cause::NeighborAdminDown)));
    up(&mut host);
    host.receive(&peer, State::Down, Some(host.discr(1)));
    assert_eq!(failures(&mut host), (1, Some(Cause::NeighborDown)));
    up(&mut host);
    host.pass(Duration::from_secs(1));
    assert_eq!(failures(&mut host), (2, Some(Cause::DetectionTimeExpired)));
    // Down and up again before the status was read: the count shows it.
    up(&mut host);
    host.receive(&peer, State::Down, Some(host.discr(1)));
    up(&mut host);
    assert_eq!(failures(&mut host).0, 3);
}

#[test]
fn a_held_detection_time_expires_later_and_delays_no_packet() {
    let mut host = Host::new();
    host.want(1, Some(target("192.0.2.2", None, 0)));
    let from = arrival("192.0.2.2", "192.0.2.1", 3, 255);
    host.receive(&from, State::Down, None);
    let ours = host.discr(1);
    host.receive(&from, State::Init, Some(ours));
    assert_eq!(host.state(1), Some(State::Up));
    host.now = host.now + Duration::from_secs(5);
    let mut sent = 0;
    host.sessions.handle_timeout(host.now, Detection::Held, &mut |_| sent += 1);
    assert_eq!((host.state(1), sent), (Some(State::Up), 1));
    let again = host.sessions.poll_timeout().unwrap();
    assert!(again.since(host.now) <= Duration::from_millis(2), "{again:?}");
    host.sessions.handle_timeout(again, Detection::Expires, &mut |_| sent += 1);
    assert_eq!(host.state(1), Some(State::Down));
}

#[test]
fn a_session_without_owners_sends_admin_down_and_is_removed() {
    let mut host = Host::new();
    host.want(1, Some(target("10.0.0.2", None, 0)));
    host.pass(Duration::from_secs(2));
    host.want(1, None);
    assert_eq!(host.state(1), None);
    let sent = host.pass(FAREWELL - Duration::from_millis(1));
    assert!((3..=5).contains(&sent), "AdminDown at once and every second: {sent}");
    assert_eq!(host.sessions.entered(|_, _| None).len(), 1);
    host.pass(Duration::from_secs(2));
    assert!(host.sessions.entered(|_, _| None).is_empty());
    assert_eq!(host.sessions.poll_timeout(), None);
    assert!(host.sessions.by_discr.is_empty() && host.sessions.by_owner.is_empty());
    // Requested again in time, it stays.
    host.want(1, Some(target("10.0.0.2", None, 0)));
    host.want(1, None);
    host.want(1, Some(target("10.0.0.2", None, 0)));
    assert_eq!(host.state(1), Some(State::Down));
    host.pass(FAREWELL * 2);
    assert_eq!(host.sessions.entered(|_, _| None).len(), 1);
}

#[test]
fn an_owner_that_changes_its_target_leaves_the_old_session() {
    let mut host = Host::new();
    host.want(1, Some(target("10.0.0.2", None, 0)));
    host.want(1, Some(target("10.0.0.3", None, 0)));
    assert_eq!(host.sessions.entered(|_, _| None).len(), 2, "the old one sends AdminDown");
    host.pass(FAREWELL * 2);
    let left = host.sessions.entered(|_, _| None);
    assert_eq!(left.iter().map(|e| e.target.peer).collect::<Vec<_>>(), [ip("10.0.0.3")]);
}

/// The two kinds of packets arrive on two sockets, and may be read in any order.
#[test]
fn an_overtaken_packet_does_not_take_the_session_down() {
    let mut host = Host::new();
    host.want(1, Some(target("10.0.0.2", None, 0)));
    let at = |millis| Arrival {
        stamp: Duration::from_millis(millis),
        ..arrival("10.0.0.2", "10.0.0.1", 0, 255)
    };
    let discr = host.discr(1);
    host.receive(&at(10), State::Down, None);
    host.receive(&at(20), State::Up, Some(discr));
    assert_eq!(host.receive(&at(15), State::Down, None), []);
    assert_eq!((host.state(1), host.discarded(Discard::Overtaken)), (Some(State::Up), 1));
    assert_eq!(host.receive(&at(0), State::Down, None), [], "of unknown age");
    assert_eq!((host.state(1), host.discarded(Discard::Overtaken)), (Some(State::Up), 2));
    host.receive(&at(25), State::Down, None);
    assert_eq!(host.state(1), Some(State::Down), "a later Down counts");
}

/// The timestamps are those of the wall clock.
#[test]
fn a_wall_clock_that_is_set_back_keeps_no_session_down() {
    let mut host = Host::new();
    host.want(1, Some(target("10.0.0.2", None, 0)));
    let at = |seconds| Arrival {
        stamp: Duration::from_secs(seconds),
        ..arrival("10.0.0.2", "10.0.0.1", 0, 255)
    };
    let discr = host.discr(1);
    host.receive(&at(9000), State::Down, None);
    host.receive(&at(9001), State::Up, Some(discr));
    host.pass(Duration::from_secs(5));
    assert_eq!(host.state(1), Some(State::Down));
    assert_eq!(host.receive(&at(5000), State::Down, None), [discr], "an hour earlier");
    host.receive(&at(5001), State::Up, Some(discr));
    assert_eq!(host.state(1), Some(State::Up));
    assert_eq!(host.receive(&at(5000), State::Down, None), [], "compared by the new clock");
}

/// A sender that may be anywhere and does not know our discriminator cannot end a session.
#[test]
fn a_forged_down_over_several_hops_is_refused() {
    let mut host = Host::new();
    let hops = Hops::Multi { ttl_min: 0 };
    host.want(1, Some(Target { hops, ..target("10.0.0.2", Some("10.0.0.1"), 0) }));
    let peer = Arrival { is_single_hop: false, ..arrival("10.0.0.2", "10.0.0.1", 0, 60) };
    let discr = host.discr(1);
    host.receive(&peer, State::Down, None);
    host.receive(&peer, State::Up, Some(discr));
    for state in [State::Down, State::AdminDown] {
        assert_eq!(host.receive(&peer, state, None), []);
    }
    assert_eq!((host.state(1), host.discarded(Discard::YourDiscriminator)), (Some(State::Up), 2));
    host.receive(&peer, State::Down, Some(discr));
    assert_eq!(host.state(1), Some(State::Down), "with our discriminator it is the peer's");
    // A neighbour that restarted is accepted once the session is Down.
    assert_eq!(host.receive(&peer, State::Down, None), [discr]);
}

#[test]
fn sessions_in_vrfs_take_their_own_packets() {
    let vrf = |index: u32, name: &str| VrfDevice {
        index: NonZeroU32::new(index).unwrap(),
        name: name.into(),
    };
    let mut host = Host::new();
    for (owner, vrf) in [(1, None), (2, Some(vrf(7, "blue"))), (3, Some(vrf(8, "red")))] {
        host.want(owner, Some(Target { vrf, ..target("10.0.0.2", None, 0) }));
    }
    assert_eq!(host.sessions.ports().len(), 3);
    let from =
        |vrf: u32| Arrival { vrf: NonZeroU32::new(vrf), ..arrival("10.0.0.2", "10.0.0.1", 3, 255) };
    let discrs: Vec<_> = [0, 7, 8]
        .into_iter()
        .map(|vrf| match host.receive(&from(vrf), State::Down, None)[..] {
            [discr] => discr,
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert!(discrs[0] != discrs[1] && discrs[1] != discrs[2] && discrs[0] != discrs[2]);
    // The discriminator of one VRF has no effect in another.
    host.receive(&from(8), State::Init, Some(discrs[1]));
    assert_eq!(host.sessions.discards().get(&Discard::Source), Some(&1));
    assert_eq!(host.receive(&from(9), State::Down, None), []);
    // Linux gives the VRF's device as the scope of link-local sources in it.
    let link_local = Target { vrf: Some(vrf(7, "blue")), ..target("fe80::2", None, 5) };
    let in_blue = Arrival { scope: 7, ..from(7) };
    let in_blue = Arrival { source: ip("fe80::2"), ..in_blue };
    assert!(link_local.takes_from(&in_blue));
    assert!(!link_local.takes_from(&Arrival { scope: 6, ..in_blue }));
    assert!(!link_local.takes_from(&Arrival { vrf: None, ..in_blue }));
}
