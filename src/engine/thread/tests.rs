//! Which thread runs a turn, and what callers see when the table has ended.

use std::net::IpAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread::ThreadId;

use bgp_proto::session::Negotiated;
use bgp_proto::table::PeerRoutes;
use bgp_proto::types::{Asn, Family, FibChange, NextHop, PeerId, Prefix, RouterId};
use bgp_proto::wire::{AttrEdit, Nlri, Origin, RouteAction, RouteBatch};

use super::*;
use crate::engine::Engine;

const PEER: PeerId = PeerId(1);
/// Long enough on any machine; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(30);

/// Reports the thread on which each next hop begins to be tracked.
struct Told(Sender<ThreadId>);

impl Sink for Told {
    fn fib(&mut self, _: Vec<(Prefix, FibChange)>) {}
    fn track(&mut self, _: IpAddr) {
        let _ = self.0.send(std::thread::current().id());
    }
    fn untrack(&mut self, _: IpAddr) {}
    fn event(&mut self, _: Event) {}
}

fn config() -> Arc<TableConfig> {
    Arc::new(TableConfig::new(Asn(65000), RouterId(1)))
}

fn session() -> Negotiated {
    let speaker = |at| (Asn(65000), IpAddr::from([10, 0, 0, at]));
    Negotiated::plain(speaker(1), speaker(2))
}

/// Announcements of `count` prefixes with a next hop that is not tracked yet.
fn routes(number: u8, count: u8) -> RouteBatch {
    let mut bytes = Vec::new();
    for n in 0..count {
        let prefix = format!("10.{number}.{n}.0/24").parse().unwrap();
        Nlri::push(&mut bytes, None, prefix);
    }
    let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
    let mut batch = RouteBatch::default();
    let hop = NextHop::from(IpAddr::from([192, 0, 2, number]));
    batch.push(nlri, Some((AttrEdit::originate(Origin::Igp).view().as_bytes(), hop)));
    batch
}

/// An engine with one established session.
fn start(told: Sender<ThreadId>) -> Engine {
    let engine = Engine::start(config(), 1, Clock::start(), Told(told)).unwrap();
    let handle = engine.handle();
    handle.peer_add(PEER, IpAddr::from([10, 0, 0, 2]), Arc::new(PeerRoutes::new("a")));
    handle.peer_up(PEER, handle.new_session(), Arc::new(session())).blocking_recv().unwrap();
    engine
}

fn announce(engine: &Engine, batch: RouteBatch) {
    let handle = engine.handle();
    let permit = handle.peer_credit().try_acquire(batch.size()).unwrap();
    handle.batch(PEER, batch, permit);
}

/// Waits until the thread has been asleep for long enough that the table counts as idle.
fn rest(engine: &Engine) {
    let (sent, done) = channel();
    engine.handle().send(Input::Ask(Box::new(move |_, _| sent.send(()).unwrap())));
    done.recv_timeout(LONG).unwrap();
    std::thread::sleep(50 * IDLE_AFTER);
}

#[test]
fn the_sender_of_a_small_batch_runs_the_turn_only_if_the_table_is_idle() {
    let (told, heard) = channel();
    let engine = start(told);
    let here = std::thread::current().id();
    // On a busy machine the thread may be slow to become idle.
    let was_here = (1..100).any(|number| {
        rest(&engine);
        announce(&engine, routes(number, 1));
        heard.recv_timeout(LONG).unwrap() == here
    });
    assert!(was_here, "a change waited for the table's thread each time");

    rest(&engine);
    announce(&engine, routes(100, 255));
    assert_ne!(heard.recv_timeout(LONG).unwrap(), here, "part of a table is not a small batch");

    // While a turn is under way, the sender does not wait for its end.
    rest(&engine);
    let (begun, goes_on) = channel();
    let (end, ended) = channel::<()>();
    engine.handle().send(Input::Ask(Box::new(move |_, _| {
        begun.send(()).unwrap();
        let _ = ended.recv_timeout(LONG);
    })));
    goes_on.recv_timeout(LONG).unwrap();
    announce(&engine, routes(101, 1));
    assert!(heard.try_recv().is_err());
    end.send(()).unwrap();
    assert_ne!(heard.recv_timeout(LONG).unwrap(), here);
    engine.stop();
}

#[test]
fn nobody_waits_for_a_table_that_has_ended() {
    let (told, _heard) = channel();
    let engine = start(told);
    let handle = engine.handle().clone();
    engine.stop();
    assert!(
        handle.peer_up(PEER, handle.new_session(), Arc::new(session())).blocking_recv().is_err()
    );
    let batch = routes(1, 1);
    let permit = handle.peer_credit().try_acquire(batch.size()).unwrap();
    handle.batch(PEER, batch, permit);

    let (told, _heard) = channel();
    let engine = start(told);
    engine.handle().send(Input::Ask(Box::new(|_, _| panic!("a fault in a turn, for this test"))));
    let readers = engine.handle().peer_up(PEER, engine.handle().new_session(), Arc::new(session()));
    assert!(readers.blocking_recv().is_err());
    announce(&engine, routes(1, 1));
    engine.stop();
}

#[test]
fn the_thread_is_woken_for_a_deadline_set_by_a_turn_on_another_thread() {
    let (told, heard) = channel();
    let engine = start(told);
    let here = std::thread::current().id();
    let bring = |number: u8, marker: Option<RouteAction>| {
        rest(&engine);
        let mut batch = routes(number, 1);
        if let Some(marker) = marker {
            batch.push_marker(Family::Ipv4, marker);
        }
        let handle = engine.handle();
        let permit = handle.peer_credit().try_acquire(batch.size()).unwrap();
        handle.inbox.put(Input::Batch { peer: PEER, batch, permit });
        let look = handle.turns.run_if_idle();
        handle.inbox.wake_thread();
        (heard.recv_timeout(LONG).unwrap() == here).then_some(look)
    };
    let plain = (1..100).find_map(|number| bring(number, None));
    assert_eq!(plain, Some(Look::NotNeeded));
    // BoRR starts a deadline for EoRR (RFC 7313 §4); it stays armed, so only the first one sets it.
    let begun = (100..150).find_map(|number| {
        let look = bring(number, Some(RouteAction::RefreshBegin));
        look.or_else(|| bring(number + 50, Some(RouteAction::RefreshEnd)).and(None))
    });
    assert_eq!(begun, Some(Look::Needed));
    engine.stop();
}
