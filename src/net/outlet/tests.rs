//! Who writes a change to a real socket: the thread that ran the turn, or the peer's task.

use std::io::{ErrorKind, Read as _};
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::rib::NextHopState;
use bgp_proto::session::Negotiated;
use bgp_proto::table::PeerRoutes;
use bgp_proto::types::{Asn, Family, NextHop, PeerId, Time};
use bgp_proto::wire::{
    AttrEdit, MessageType, Nlri, Origin, RouteBatch, encode_keepalive, split_frame,
};
use futures_util::FutureExt as _;

use super::*;
use crate::engine::Engine;
use crate::net::testing::{ASN, PATIENCE, PEER, Wire, engine};

const FEEDER: PeerId = PeerId(1);
const MEMBER: PeerId = PeerId(2);
const HOP: [u8; 4] = [192, 0, 2, 1];
/// After this time without a turn the sending task runs the next one; see `engine::thread`.
const REST: Duration = Duration::from_millis(2);

/// A table with a feeder and one member, whose connection has no task.
struct Bench {
    engine: Engine,
    outlet: Arc<Outlet>,
    stream: Arc<TcpStream>,
    served: Arc<Served>,
    client: std::net::TcpStream,
    received: Vec<u8>,
    announced: u32,
    /// Messages that the neighbour had received before the test.
    before: usize,
}

impl Bench {
    async fn new() -> Self {
        let engine = engine();
        let table = engine.handle();
        let mut readers = Vec::new();
        for (peer, asn) in [(FEEDER, Asn(65001)), (MEMBER, ASN)] {
            let address = IpAddr::from([10, 0, 0, peer.0 as u8]);
            table.peer_add(peer, address, Arc::new(PeerRoutes::new(&*peer.0.to_string())));
            let negotiated = Negotiated::plain((ASN, [10, 0, 0, 9].into()), (asn, address));
            readers = table.peer_up(peer, table.new_session(), Arc::new(negotiated)).await.unwrap();
        }
        let (client, ours) = Wire::new().connect(PEER);
        client.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
        let served = Arc::new(Served {
            ready: Notify::new(),
            debug: DebugSwitch::default(),
            clock: table.clock(),
            session_counters: SessionCounters::default(),
            sent: Arc::default(),
        });
        let stream = Arc::new(ours);
        let outlet = Outlet::new(Arc::clone(&stream), Arc::clone(&served));
        outlet.lock().set_readers(readers);
        let (received, before) = (Vec::new(), 0);
        let mut bench =
            Bench { engine, outlet, stream, served, client, received, announced: 0, before };
        // From the first route on the next hop is tracked.
        bench.announce().await;
        bench.engine.handle().next_hop(HOP.into(), NextHopState::connected(HOP.into(), 1));
        let end = std::time::Instant::now() + PATIENCE;
        // End-of-RIB and the route.
        while bench.messages().len() < 2 {
            assert!(std::time::Instant::now() < end, "{:?}", bench.messages());
            bench.outlet.lock().flush();
            tokio::time::sleep(REST).await;
        }
        bench.outlet.lock().flush();
        while bench.is_called() {}
        bench.before = bench.messages().len();
        bench
    }

    /// Announces one more prefix; this thread runs the turn. Returns once the turn is over.
    async fn announce(&mut self) {
        self.rest().await;
        self.send();
    }

    /// Waits until the table counts as idle. On a busy machine its thread may have a turn all the same.
    async fn rest(&self) {
        self.engine.handle().ask(|_, _| ()).await.unwrap();
        std::thread::sleep(REST);
    }

    fn send(&mut self) {
        let mut bytes = Vec::new();
        let [_, _, high, low] = self.announced.to_be_bytes();
        let prefix = format!("10.{high}.{low}.0/24").parse().unwrap();
        Nlri::push(&mut bytes, None, prefix);
        let mut batch = RouteBatch::default();
        let attributes = AttrEdit::originate(Origin::Igp);
        let next_hop = NextHop::from(IpAddr::from(HOP));
        let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
        batch.push(nlri, Some((attributes.view().as_bytes(), next_hop)));
        self.announced += 1;
        let table = self.engine.handle();
        table.batch(FEEDER, batch, table.peer_credit().try_acquire(1000).unwrap());
    }

    /// The number of UPDATEs that the neighbour has received since.
    fn updates(&mut self) -> usize {
        self.messages().into_iter().filter(|kind| *kind == MessageType::Update).count()
    }

    fn messages(&mut self) -> Vec<MessageType> {
        let mut piece = [0; 65_536];
        loop {
            match self.client.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => self.received.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        let (mut rest, mut kinds) = (&self.received[..], Vec::new());
        while let Ok(Some(frame)) = split_frame(rest, 4096) {
            kinds.push(frame.kind);
            rest = &rest[frame.bytes.len()..];
        }
        kinds.split_off(self.before)
    }

    /// Whether the task was woken since the last call.
    fn is_called(&self) -> bool {
        self.served.ready.notified().now_or_never().is_some()
    }
}

#[tokio::test]
async fn the_thread_that_ran_the_turn_writes() {
    let mut bench = Bench::new().await;
    let before = bench.served.sent.get();
    bench.announce().await;
    assert_eq!((bench.updates(), bench.is_called()), (1, false));
    let sent = bench.served.sent.get();
    assert_eq!(sent.updates, before.updates + 1);
    assert_eq!(sent.octets, bench.received.len() as u64);
    bench.announce().await;
    assert_eq!((bench.updates(), bench.is_called()), (2, false), "the waker is armed again");
    bench.engine.stop();
}

#[tokio::test]
async fn whatever_else_there_is_to_do_is_left_to_the_task() {
    let mut bench = Bench::new().await;
    let outlet = Arc::clone(&bench.outlet);
    // The task writes at present.
    bench.rest().await;
    {
        let mut output = outlet.lock();
        bench.send();
        assert_eq!((bench.updates(), bench.is_called()), (0, true));
        assert_eq!(output.flush(), (Flush::Idle, Progress::Some));
    }
    assert_eq!(bench.updates(), 1);
    // A message of the session waits, and is sent first.
    encode_keepalive(outlet.lock().control());
    bench.announce().await;
    assert_eq!((bench.updates(), bench.is_called()), (1, true));
    outlet.lock().flush();
    use MessageType::{Keepalive, Update};
    assert_eq!(bench.messages(), [Update, Keepalive, Update]);
    // Messages are logged.
    bench.served.debug.set(Time::from_micros(u64::MAX));
    bench.announce().await;
    assert_eq!((bench.updates(), bench.is_called()), (2, true));
    let mut output = outlet.lock();
    output.written = Some(Written::default());
    output.flush();
    assert_eq!(output.written.take().unwrap().pieces.len(), 1);
    bench.engine.stop();
}

/// Nothing is lost, repeated or torn when a neighbour stops reading and goes on later.
#[tokio::test]
async fn a_full_socket_is_left_to_the_task() {
    let mut bench = Bench::new().await;
    while !bench.is_called() {
        assert!(bench.announced < 5000, "the buffers are never full");
        bench.announce().await;
    }
    assert_eq!(bench.outlet.lock().flush(), (Flush::Blocked, Progress::None));
    let end = std::time::Instant::now() + PATIENCE;
    // One was announced before.
    while bench.updates() + 1 < bench.announced as usize {
        assert!(std::time::Instant::now() < end);
        bench.stream.writable().await.unwrap();
        bench.outlet.lock().flush();
    }
    bench.announce().await;
    assert_eq!((bench.updates(), bench.is_called()), (bench.announced as usize - 1, false));
    bench.engine.stop();
}

#[tokio::test]
async fn the_task_learns_why_writing_failed() {
    let mut bench = Bench::new().await;
    socket2::SockRef::from(&bench.client).set_linger(Some(Duration::ZERO)).unwrap();
    let (client, _ours) = Wire::new().connect(PEER);
    drop(std::mem::replace(&mut bench.client, client));
    bench.announce().await;
    assert!(bench.is_called());
    assert!(matches!(bench.outlet.lock().flush(), (Flush::Failed(_), Progress::None)));

    let bench = Bench::new().await;
    let outlet = Arc::clone(&bench.outlet);
    let panicked = std::thread::spawn(move || {
        let _output = outlet.lock();
        panic!("injected");
    });
    assert!(panicked.join().is_err());
    bench.outlet.serve();
    assert!(bench.is_called());
    let (outcome, _) = bench.outlet.lock().flush();
    assert_eq!(outcome, Flush::Failed("internal error while an UPDATE was written".into()));
    bench.engine.stop();
}
