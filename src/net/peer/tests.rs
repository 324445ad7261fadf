//! A peer's task with real sockets and a real table.

use std::io::{Read, Write};
use std::net::TcpStream as Client;

use bgp_proto::policy::Source;
use bgp_proto::session::{BfdMode, BfdPath, Close, PeerConfig};
use bgp_proto::table::LocalRoute;
use bgp_proto::types::{Prefix4, Prefix6, SessionId};
use bgp_proto::wire::Code;

use super::*;
use crate::net::mailbox::CONNECTIONS_MAX;
use crate::net::testing::*;

/// Originates local routes, from 32.0.0.0/24 or 2001:db8::/64 on.
fn originate(table: &Handle, family: Family, count: u32) {
    for n in 0..count {
        let prefix = match family {
            Family::Ipv4 => Prefix::V4(Prefix4::from_bits(0x2000_0000 + (n << 8), 24)),
            Family::Ipv6 => {
                let bits = 0x2001_0db8 << 96 | u128::from(n) << 64;
                Prefix::V6(Prefix6::from_bits(bits, 64))
            }
        };
        let route = LocalRoute { metric: Some(n), ..LocalRoute::default() };
        table.local(prefix, Source::Static, Some(route));
    }
}

async fn is_down(peer: &PeerHandle) {
    until("the session is down", async || peer.state() != State::Established).await;
}

/// RFC 4271 §8.2.2, RFC 4724 §4.2: the retained routes are those at the end of the session.
#[tokio::test]
async fn updates_before_the_end_count_even_in_the_same_segment() {
    let engine = engine();
    let (peer, _events) = spawn(&engine, 1, config(PEER));
    let wire = Wire::new();
    let mut client = wire.establish(&peer, &ipv4_hello(Restarts::WithN)).await;
    client.write_all(&announcement("10.1.0.0/16")).unwrap();
    until("the route is there", async || paths(&engine).await == 1).await;
    let end = notification(Code::HOLD_TIMER_EXPIRED);
    client.write_all(&[withdrawal("10.1.0.0/16"), end.clone()].concat()).unwrap();
    is_down(&peer).await;
    until("the withdrawal counts", async || paths(&engine).await == 0).await;

    let mut client = wire.establish(&peer, &ipv4_hello(Restarts::WithN)).await;
    client.write_all(&[announcement("10.2.0.0/16"), end].concat()).unwrap();
    is_down(&peer).await;
    until("the announcement counts", async || paths(&engine).await == 1).await;
    engine.stop();
}

/// A complete session in one segment.
#[tokio::test]
async fn a_session_that_ends_as_it_begins_leaves_its_routes() {
    let engine = engine();
    for (restarts, left) in [(Restarts::WithN, 1), (Restarts::No, 0)] {
        let (peer, mut events) = spawn(&engine, 1, config(PEER));
        let (mut client, ours) = Wire::new().connect(PEER);
        let end = notification(Code::HOLD_TIMER_EXPIRED);
        let all = [ipv4_hello(restarts), announcement("10.1.0.0/16"), end].concat();
        client.write_all(&all).unwrap();
        peer.connect(ours).unwrap();
        assert_eq!(events.recv().await, Some(PeerEvent::Up(PeerId(1))));
        assert_eq!(events.recv().await, Some(PeerEvent::Down(PeerId(1))));
        until("what it said counts", async || paths(&engine).await == left).await;
        engine.handle().peer_remove(PeerId(1));
        until("its routes go", async || paths(&engine).await == 0).await;
    }
    engine.stop();
}

/// RFC 4724 §4.2: also if the table is busy and routes wait for credit.
#[tokio::test]
async fn routes_that_wait_for_credit_precede_the_end_that_retains_them() {
    let engine = engine();
    let (peer, mut events) = spawn(&engine, 1, config(PEER));
    let mut client = Wire::new().establish(&peer, &ipv4_hello(Restarts::WithN)).await;
    assert_eq!(events.recv().await, Some(PeerEvent::Up(PeerId(1))));
    // The table is blocked: no credit is returned.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let table = engine.handle().clone();
    let asked = tokio::spawn(async move { table.ask(move |_, _| wait.recv().is_ok()).await });
    tokio::task::yield_now().await;
    let routes: Vec<u8> = (0..20_000u32)
        .flat_map(|n| announcement(&format!("20.{}.{}.0/24", n >> 8, n & 0xff)))
        .collect();
    let sender = std::thread::spawn(move || {
        // The session ends before all of it is read.
        let _ = client.write_all(&routes);
        client
    });
    let received = || peer.snapshot().stats.updates_received;
    until("routes wait", async || {
        let before = received();
        tokio::time::sleep(Duration::from_millis(100)).await;
        before > 0 && received() == before
    })
    .await;
    assert!(received() < 20_000, "without credit nothing is read");
    peer.terminate(Close::GracefulStop);
    assert_eq!(events.recv().await, Some(PeerEvent::Down(PeerId(1))));
    let received = received();
    go_on.send(()).unwrap();
    assert_eq!(asked.await.unwrap(), Some(true));
    until("all that was read counts", async || u64::from(paths(&engine).await) >= received).await;
    assert_eq!(u64::from(paths(&engine).await), received, "and nothing else");
    drop(sender.join());
    engine.stop();
}

/// RFC 4724 §4: without the N bit a NOTIFICATION ends the session without graceful restart. A
/// router that closes while octets of ours are unread sends it, immediately followed by a reset.
#[tokio::test]
async fn a_notification_is_read_although_writing_fails_first() {
    let engine = engine();
    let (peer, _events) = spawn(&engine, 1, config(PEER));
    originate(engine.handle(), Family::Ipv4, 60_000);
    let (mut client, ours) = Wire::new().connect(PEER);
    socket2::SockRef::from(&ours).set_send_buffer_size(16 << 10).unwrap();
    peer.connect(ours).unwrap();
    client.write_all(&ipv4_hello(Restarts::WithoutN)).unwrap();
    until("the session is up", async || peer.state() == State::Established).await;
    client.write_all(&announcement("10.1.0.0/16")).unwrap();
    until("the route is there", async || paths(&engine).await == 60_001).await;
    until("we write UPDATEs", async || peer.snapshot().sent.updates > 0).await;
    client.write_all(&announcement("10.2.0.0/16")).unwrap();
    client.write_all(&notification(Code::ADMINISTRATIVE_SHUTDOWN)).unwrap();
    drop(client);
    is_down(&peer).await;
    until("its routes go", async || paths(&engine).await == 60_000).await;
    let error = peer.snapshot().last_error.unwrap();
    assert_eq!(error.code, Some(Code::ADMINISTRATIVE_SHUTDOWN), "{error:?}");
    engine.stop();
}

#[tokio::test]
async fn stray_connections_do_not_affect_the_session() {
    let engine = engine();
    let (peer, mut events) = spawn(&engine, 1, config(PEER));
    let wire = Wire::new();
    let mut session = wire.establish(&peer, &ipv4_hello(Restarts::WithN)).await;
    let before = peer.snapshot();
    for n in 1..=12u64 {
        let (mut stray, ours) = wire.connect(PEER);
        stray.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
        peer.connect(ours).unwrap();
        if n <= 5 {
            until("it is counted", async || peer.snapshot().stats.stray_connections == n).await;
        }
    }
    session.write_all(&announcement("10.1.0.0/16")).unwrap();
    until("the session continues", async || paths(&engine).await == 1).await;
    let after = peer.snapshot();
    assert_eq!((after.state, after.session), (before.state, before.session));
    assert_eq!(after.session_since, before.session_since);
    assert_eq!(after.last_error, before.last_error);
    assert_eq!(events.recv().await, Some(PeerEvent::Up(PeerId(1))));
    assert!(events.try_recv().is_err(), "nothing else happened");
    engine.stop();
}

/// A client that connects in a loop uses no more descriptors than this.
#[tokio::test]
async fn connections_that_are_being_closed_are_few() {
    let mut closers = Closers::default();
    let served = Arc::new(Served {
        ready: Notify::new(),
        debug: crate::net::DebugSwitch::default(),
        clock: crate::engine::Clock::start(),
        session_counters: crate::net::SessionCounters::default(),
        sent: Arc::default(),
    });
    let wire = Wire::new();
    let mut clients = Vec::new();
    for _ in 0..100 {
        let (client, ours) = wire.connect(PEER);
        clients.push(client);
        closers.close(Box::new(Conn::new(ours, Arc::clone(&served)).unwrap()));
        assert!(closers.len() <= 2);
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    closers.finish().await;
    assert!(began.elapsed() < Duration::from_secs(5), "their time is bounded");
}

/// A command to end a session names that session, and arrives whatever else is waiting.
#[tokio::test]
async fn commands_to_end_name_their_session_and_are_not_lost() {
    let engine = engine();
    let (peer, _events) = spawn(&engine, 1, config(PEER));
    let wire = Wire::new();
    let client = wire.establish(&peer, &ipv4_hello(Restarts::No)).await;
    let first = peer.snapshot().session.unwrap();
    let clients: Vec<Client> = (0..CONNECTIONS_MAX)
        .map(|_| {
            let (client, ours) = wire.connect(PEER);
            peer.connect(ours).unwrap();
            client
        })
        .collect();
    assert!(peer.connect(wire.connect(PEER).1).is_err(), "the queue is full");
    peer.end(SessionId(first.0 + 1_000_000), Close::OutOfResources);
    tokio::task::yield_now().await;
    assert_eq!(peer.state(), State::Established, "another session is meant");
    peer.end(first, Close::OutOfResources);
    until("it is held idle", async || peer.state() == State::Idle).await;
    let error = peer.snapshot().last_error.unwrap();
    drop((client, clients, error));
    engine.stop();
}

/// The daemon names the session that it ends. One that came up a moment ago it has not seen.
#[tokio::test]
async fn a_failure_of_strict_bfd_ends_a_session_without_its_id_and_is_not_lost() {
    let engine = engine();
    let strict = PeerConfig { bfd_mode: BfdMode::Strict, ..config(PEER) };
    let (peer, _events) = spawn(&engine, 1, strict);
    let wire = Wire::new();
    peer.set_bfd(BfdPath::Up, None);
    let _client = wire.establish(&peer, &ipv4_hello(Restarts::No)).await;
    peer.set_bfd(BfdPath::Down, Some(Close::BfdDown { text: "failed".into() }));
    // It may be up again before the task has taken the failure.
    peer.set_bfd(BfdPath::Up, None);
    is_down(&peer).await;
    assert_eq!(peer.snapshot().last_error.unwrap().text, "BFD Down: failed");
    engine.stop();
}

/// Of two changes that follow each other closely, the task takes the last one. Together they may be more
/// than a change of timers.
#[tokio::test]
async fn parameters_that_need_another_session_begin_one() {
    let engine = engine();
    let (peer, _events) = spawn(&engine, 1, config(PEER));
    let wire = Wire::new();
    let client = wire.establish(&peer, &ipv4_hello(Restarts::No)).await;
    let timers = PeerConfig { connect_retry_time: Duration::from_secs(7), ..config(PEER) };
    peer.set_timers(Arc::new(timers.clone()));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.state(), State::Established);
    let other = PeerConfig { enforce_first_as: !timers.enforce_first_as, ..timers };
    peer.set_timers(Arc::new(other));
    is_down(&peer).await;
    drop(client);
    let _client = wire.establish(&peer, &ipv4_hello(Restarts::No)).await;
    engine.stop();
}

#[tokio::test]
async fn a_late_command_to_end_leaves_the_next_session_alone() {
    let engine = engine();
    let (peer, _events) = spawn(&engine, 1, config(PEER));
    let wire = Wire::new();
    drop(wire.establish(&peer, &ipv4_hello(Restarts::No)).await);
    until("it is down", async || peer.state() == State::Active).await;
    let client = wire.establish(&peer, &ipv4_hello(Restarts::No)).await;
    let second = peer.snapshot().session.unwrap();
    peer.end(SessionId(second.0 - 1), Close::OutOfResources);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!((peer.state(), peer.snapshot().session), (State::Established, Some(second)));
    // Because of limits it still applies while no later session exists.
    drop(client);
    until("it is down again", async || peer.state() == State::Active).await;
    peer.end(second, Close::OutOfResources);
    until("it is held idle", async || peer.state() == State::Idle).await;
    engine.stop();
}

/// In the table the session ends as if its connection were lost, and another session comes up.
#[tokio::test]
async fn a_panic_of_a_task_ends_its_session_and_nothing_else() {
    let engine = engine();
    let (peer, mut events) = spawn(&engine, 1, config(PEER));
    let wire = Wire::new();
    let mut client = wire.establish(&peer, &ipv4_hello(Restarts::No)).await;
    assert_eq!(events.recv().await, Some(PeerEvent::Up(PeerId(1))));
    client.write_all(&announcement("10.1.0.0/16")).unwrap();
    until("the route is there", async || paths(&engine).await == 1).await;
    peer.inject_panic();
    assert_eq!(events.recv().await, Some(PeerEvent::Down(PeerId(1))));
    until("its routes go", async || paths(&engine).await == 0).await;
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(!rest.windows(19).any(|w| w[18] == 3 && w[..16] == [0xff; 16]), "no NOTIFICATION");
    let snapshot = peer.snapshot();
    assert_ne!(snapshot.state, State::Established);
    assert!(snapshot.last_error.unwrap().text.contains("internal error"));
    assert_eq!(snapshot.stats.established_transitions, 1, "counters never fall");

    // A connection in the meantime waits; the session is back after the pause.
    let began = Instant::now();
    let _client = wire.establish(&peer, &ipv4_hello(Restarts::No)).await;
    assert!(began.elapsed() >= Duration::from_millis(500), "not at once");
    assert_eq!(peer.snapshot().stats.established_transitions, 2);
    // The next pause is longer, and ends early because the peer is removed.
    peer.inject_panic();
    assert_eq!(events.recv().await, Some(PeerEvent::Up(PeerId(1))));
    assert_eq!(events.recv().await, Some(PeerEvent::Down(PeerId(1))));
    peer.terminate(Close::Deconfigured);
    let ended = tokio::time::timeout(Duration::from_secs(1), events.recv()).await;
    assert_eq!(ended.unwrap(), Some(PeerEvent::Ended(PeerId(1))));
    engine.stop();
}

/// With graceful restart they are retained, as for a restart of the peer.
#[tokio::test]
async fn a_panic_retains_routes_as_a_lost_connection_does() {
    let engine = engine();
    let (peer, mut events) = spawn(&engine, 1, config(PEER));
    let mut client = Wire::new().establish(&peer, &ipv4_hello(Restarts::WithoutN)).await;
    client.write_all(&announcement("10.1.0.0/16")).unwrap();
    until("the route is there", async || paths(&engine).await == 1).await;
    peer.inject_panic();
    assert_eq!(events.recv().await, Some(PeerEvent::Up(PeerId(1))));
    assert_eq!(events.recv().await, Some(PeerEvent::Down(PeerId(1))));
    assert_eq!(paths(&engine).await, 1);
    engine.stop();
}

#[tokio::test]
async fn dropping_the_last_handle_removes_the_peer() {
    let engine = engine();
    let (peer, mut events) = spawn(&engine, 1, config(PEER));
    let other = peer.clone();
    drop(peer);
    tokio::task::yield_now().await;
    assert!(events.try_recv().is_err());
    drop(other);
    assert_eq!(events.recv().await, Some(PeerEvent::Ended(PeerId(1))));
    engine.stop();
}

/// The longest time within `time` in which the neighbour received nothing from us.
fn longest_silence(mut client: Client, time: Duration) -> (Client, Duration) {
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (began, mut heard, mut longest) =
        (std::time::Instant::now(), std::time::Instant::now(), Duration::ZERO);
    let mut next = began;
    while began.elapsed() < time {
        if next <= std::time::Instant::now() {
            client.write_all(&keepalive()).unwrap();
            next += Duration::from_millis(900);
        }
        if let Ok(1..) = client.read(&mut [0; 4096]) {
            longest = longest.max(heard.elapsed());
            heard = std::time::Instant::now();
        }
    }
    (client, longest.max(heard.elapsed()))
}

/// With one thread for everything, a task that does not yield stops all timers.
#[tokio::test]
async fn a_flood_that_takes_no_credit_does_not_stop_the_timers_of_others() {
    let engine = engine();
    let wire = Wire::new();
    let other: std::net::IpAddr = [127, 0, 0, 3].into();
    let (flooding, _f) = spawn(&engine, 1, config(PEER));
    let (healthy, _h) = spawn(&engine, 2, config(other));
    let mut flood = wire.establish(&flooding, &ipv4_hello(Restarts::No)).await;
    let (mut client, ours) = wire.connect(other);
    healthy.connect(ours).unwrap();
    client.write_all(&hello(3, &[Family::Ipv4], Restarts::No)).unwrap();
    until("it is up", async || healthy.state() == State::Established).await;
    // ROUTE-REFRESH for a family that was not negotiated.
    let refresh = [&[0xff; 16][..], &[0, 23, 5, 0, 2, 0, 1]].concat();
    let octets = [keepalive(), refresh].concat().repeat(8192);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flooder = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            if flood.write_all(&octets).is_err() {
                return;
            }
        }
    });
    let listener = std::thread::spawn(move || longest_silence(client, Duration::from_millis(3500)));
    while !listener.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_client, silence) = listener.join().unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(silence < Duration::from_millis(1500), "silent for {silence:?}");
    assert_eq!(healthy.state(), State::Established);
    let read = flooding.snapshot().stats.octets_received;
    assert!(read < 8 << 20, "{read} octets of the flood were read");
    assert_eq!(flooding.state(), State::Established);
    flooding.terminate(Close::GracefulStop);
    until("it is gone", async || flooding.state() == State::Idle).await;
    flooder.join().unwrap();
    engine.stop();
}

/// Octets of UPDATEs by family, as read by the neighbour.
fn by_family(octets: &[u8]) -> [usize; 2] {
    let mut sizes = [0; 2];
    let mut rest = octets;
    while let Ok(Some(frame)) = bgp_proto::wire::split_frame(rest, 65_535) {
        if frame.kind == bgp_proto::wire::MessageType::Update {
            let is_ipv6 = frame.body().windows(4).any(|w| w == [0, 2, 1, 16] || w == [14, 0, 2, 1]);
            sizes[usize::from(is_ipv6)] += frame.bytes.len();
        }
        rest = &rest[frame.bytes.len()..];
    }
    sizes
}

/// A family that always has more to send does not keep the other one waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn families_are_served_in_turn() {
    let engine = engine();
    originate(engine.handle(), Family::Ipv4, 200_000);
    originate(engine.handle(), Family::Ipv6, 200_000);
    let both = bgp_proto::types::FamilySet::ALL;
    let (peer, _events) =
        spawn(&engine, 1, bgp_proto::session::PeerConfig { families: both, ..config(PEER) });
    let hello = hello(90, &Family::ALL, Restarts::No);
    let mut client = Wire::new().establish(&peer, &hello).await;
    // It reads slowly, so that both logs are always full.
    let mut octets = Vec::new();
    let mut piece = [0; 4096];
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    while octets.len() < 2_000_000 {
        let read = client.read(&mut piece).unwrap();
        octets.extend_from_slice(&piece[..read]);
        if octets.len() % (1 << 18) < 4096 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let [v4, v6] = by_family(&octets);
    assert!(v4 > 400_000 && v6 > 400_000, "{v4} octets of IPv4, {v6} of IPv6");
    engine.stop();
}
