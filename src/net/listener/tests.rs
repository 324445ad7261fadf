use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;

use bgp_proto::session::{LocalIdentity, PassiveMode, PeerConfig};
use bgp_proto::table::TableConfig;
use bgp_proto::types::{Asn, ClusterId, FibRoute, PeerId, RouterId};

use super::super::handle::{Lifetime, PeerSpec, Recovery};
use super::super::peer::{COMMANDS_MAX, spawn_peer};
use super::super::tally::Tally;
use super::*;
use crate::engine::{Clock, Engine, Event, Sink};

/// Longest wait for what does not take long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes what the table says nowhere.
struct Nowhere;

impl Sink for Nowhere {
    fn fib(&mut self, _: Vec<(Prefix, Option<FibRoute>)>) {}
    fn track(&mut self, _: IpAddr) {}
    fn untrack(&mut self, _: IpAddr) {}
    fn event(&mut self, _: Event) {}
}

fn engine() -> Engine {
    let config = TableConfig {
        asn: Asn(64512),
        router_id: RouterId(1),
        cluster_id: ClusterId(1),
        multipath_max: 1,
        fib_policy: None,
        fib_enabled: false,
        log_bytes_max: 1 << 20,
        memory_max: None,
    };
    Engine::start(Arc::new(config), 1, Clock::start(), Nowhere).unwrap()
}

/// A peer that only accepts, with its real task.
fn peer(number: u32, address: IpAddr, engine: &Engine) -> PeerHandle {
    let identity = LocalIdentity { asn: Asn(64512), router_id: RouterId(1) };
    let config = PeerConfig {
        passive: PassiveMode::Passive,
        ..PeerConfig::new(address, Asn(64512), &identity)
    };
    let spec = PeerSpec {
        id: PeerId(number),
        name: address.to_string().into(),
        config: Arc::new(config),
        lifetime: Lifetime::Configured,
        seed: 1,
        recovery: Recovery::begin(),
        beside: Arc::new(|_| None),
        tally: Tally::default(),
    };
    spawn_peer(spec, engine.handle().clone(), mpsc::unbounded_channel().0)
}

/// A listener of ours, and connections to it.
struct Edge {
    listener: std::net::TcpListener,
    directory: Directory,
    dynamic: mpsc::Sender<Accepted>,
    log: StrangerLog,
}

impl Edge {
    /// A connection from an address of the loopback as far as the peer's queue; the other end.
    fn connect(&mut self, from: IpAddr) -> std::net::TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&self.listener.local_addr().unwrap().into()).unwrap();
        let (ours, _) = self.listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = TcpStream::from_std(ours).unwrap();
        admit(ours, from, &self.directory, &self.dynamic, &mut self.log);
        socket.into()
    }

    fn refused(&self) -> u64 {
        u64::from(self.log.last.is_some()) + self.log.suppressed
    }
}

fn read(mut client: &std::net::TcpStream, wait: Option<Duration>) -> std::io::Result<usize> {
    client.set_nonblocking(wait.is_none()).unwrap();
    client.set_read_timeout(wait).unwrap();
    client.read(&mut [0; 64])
}

/// The runtime has one thread, so a peer's task does not run before we wait: its connections stay
/// in the queue, as those of a peer whose task is busy do.
#[tokio::test]
async fn connections_that_wait_are_bounded_for_each_address() {
    let engine = engine();
    let (flooding, other) =
        (Ipv4Addr::new(127, 0, 0, 2).into(), Ipv4Addr::new(127, 0, 0, 3).into());
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (dynamic, _accepted) = mpsc::channel(1);
    let directory = Directory::default();
    directory.insert(flooding, peer(1, flooding, &engine));
    directory.insert(other, peer(2, other, &engine));
    let mut edge = Edge { listener, directory, dynamic, log: StrangerLog::default() };

    let waiting: Vec<_> = (0..COMMANDS_MAX).map(|_| edge.connect(flooding)).collect();
    assert_eq!(edge.refused(), 0);
    let beyond: Vec<_> = (0..100).map(|_| edge.connect(flooding)).collect();
    assert_eq!(edge.refused(), 100);
    for client in &beyond {
        assert_eq!(read(client, Some(PATIENCE)).unwrap(), 0, "closed, and not left open");
    }
    for client in &waiting {
        assert_eq!(read(client, None).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let neighbor = edge.connect(other);
    assert_eq!(edge.refused(), 100, "another address has its own places");

    // The tasks run: the other peer says hello, and there is room for the first one again.
    let deadline = Instant::now() + PATIENCE;
    while !matches!(read(&neighbor, None), Ok(1..)) {
        assert!(Instant::now() < deadline, "no OPEN to the other peer");
        tokio::task::yield_now().await;
    }
    drop((waiting, edge.connect(flooding)));
    assert_eq!(edge.refused(), 100, "taken, and not counted against it for ever");
    engine.stop();
}

/// A range cannot hold up accepting, however many connect from it.
#[tokio::test]
async fn connections_from_ranges_that_wait_are_bounded() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (dynamic, mut accepted) = mpsc::channel(2);
    let directory = Directory::default();
    directory.set_ranges(vec!["127.0.1.0/24".parse().unwrap()]);
    let mut edge = Edge { listener, directory, dynamic, log: StrangerLog::default() };
    let at = |host| IpAddr::from([127, 0, 1, host]);
    let clients = [1, 2, 3].map(|host| edge.connect(at(host)));
    assert_eq!(edge.refused(), 1);
    assert_eq!(read(&clients[2], Some(PATIENCE)).unwrap(), 0);
    assert_eq!(accepted.recv().await.map(|accepted| accepted.from), Some(at(1)));
    let _fourth = edge.connect(at(4));
    assert_eq!(edge.refused(), 1, "there is room again");
}

#[tokio::test]
async fn strangers_are_reset() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (dynamic, _accepted) = mpsc::channel(1);
    let directory = Directory::default();
    let mut edge = Edge { listener, directory, dynamic, log: StrangerLog::default() };
    let client = edge.connect(Ipv4Addr::new(127, 0, 0, 9).into());
    let error = read(&client, Some(PATIENCE)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no TIME-WAIT of ours");
    assert_eq!(edge.refused(), 1);
}

/// Whether anybody listens on the loopback.
fn is_reached(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).is_ok()
}

/// `bindMode` changes and the port does not: Linux refuses the one socket while the other is there.
#[tokio::test]
async fn between_every_address_and_one_the_port_stays_open() {
    let (dynamic, _accepted) = mpsc::channel(1);
    let mut listeners = Listeners::new(Directory::default(), dynamic, u64::MAX);
    let port = {
        let free = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        free.local_addr().unwrap().port()
    };
    let every = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let one = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for address in [every, one, every] {
        assert!(listeners.listen(&[address]).unwrap().is_empty());
        listeners.accept();
        let bound: Vec<_> =
            listeners.bound.iter().map(|b| b.socket.local_addr().unwrap()).collect();
        assert_eq!(bound, [address]);
        assert!(is_reached(port));
        // Another speaker is refused as ever.
        let intruder = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        intruder.set_reuse_address(true).unwrap();
        assert_eq!(intruder.bind(&one.into()).unwrap_err().kind(), ErrorKind::AddrInUse);
        // The accepting task of the socket before holds it until it is scheduled.
        tokio::task::yield_now().await;
    }
    // Where the other cannot be had, the one that stays is not left open to sharing either.
    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port));
    let missing = listeners.listen(&[nowhere]).unwrap();
    assert!(missing.len() == 1 && missing[0].may_pass() && !missing[0].is_harmless());
    assert_eq!(listeners.bound.len(), 1);
    assert!(!SockRef::from(&*listeners.bound[0].socket).reuse_port().unwrap());
}

#[tokio::test]
async fn an_address_that_cannot_be_had_leaves_the_others_alone() {
    let (dynamic, _accepted) = mpsc::channel(1);
    let mut listeners = Listeners::new(Directory::default(), dynamic, u64::MAX);
    let taken = std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).unwrap();
    let (v6, v4) = (taken.local_addr().unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    assert!(listeners.listen(&[v4, v6]).is_err());
    assert!(listeners.bound.is_empty(), "what does not pass by itself: all or nothing");
    let missing = listeners.listen_where_possible(&[v4, v6]);
    let text = missing[0].to_string();
    assert!(text.starts_with(&format!("cannot listen on {v6}")), "{text}");
    let bound =
        |listeners: &Listeners| -> Vec<_> { listeners.bound.iter().map(|b| b.address).collect() };
    assert_eq!(bound(&listeners), [v4]);
    drop(taken);
    assert!(listeners.listen_where_possible(&[v4, v6]).is_empty());
    assert_eq!(bound(&listeners), [v4, v6]);
    // An address that comes later: the others of its family are listened on at once.
    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1790));
    let missing = listeners.listen(&[nowhere, v4, v6]).unwrap();
    assert!(missing.len() == 1 && missing[0].may_pass(), "{missing:?}");
    assert_eq!(bound(&listeners), [v4, v6]);
    assert!(listeners.listen(&[v6]).unwrap().is_empty());
    assert_eq!(bound(&listeners), [v6]);
}

/// The default is every address of both families; some systems have one.
#[test]
fn a_family_that_the_system_lacks_is_missed_only_where_it_was_asked_for() {
    let unbound = |address: &str, errno: i32, covered| Unbound {
        address: address.parse().unwrap(),
        source: io::Error::from_raw_os_error(errno),
        covered,
    };
    let lacking = unbound("[::]:179", libc::EAFNOSUPPORT, true);
    assert!(lacking.may_pass() && lacking.is_harmless());
    let asked_for = unbound("[2001:db8::1]:179", libc::EAFNOSUPPORT, false);
    assert!(asked_for.may_pass() && !asked_for.is_harmless());
    let taken = unbound("[::]:179", libc::EADDRINUSE, true);
    assert!(!taken.may_pass() && !taken.is_harmless());
}

/// What is left of the descriptors is for operators and probes.
#[tokio::test]
async fn a_connection_beyond_the_descriptors_of_bgp_is_reset() {
    let (dynamic, mut accepted) = mpsc::channel(1);
    let directory = Directory::default();
    directory.set_ranges(vec!["127.0.0.0/8".parse().unwrap()]);
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let mut listeners = Listeners::new(directory, dynamic, 3);
    assert!(listeners.listen(&[address]).unwrap().is_empty());
    listeners.accept();
    let client = std::net::TcpStream::connect(address).unwrap();
    // The listener's task runs on this thread.
    let closed = tokio::task::spawn_blocking(move || read(&client, Some(PATIENCE)));
    assert_eq!(closed.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(accepted.try_recv().is_err());
}
