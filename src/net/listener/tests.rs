use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;

use bgp_proto::session::AuthKey;

use super::super::mailbox::CONNECTIONS_MAX;
use super::super::testing::{PATIENCE, config, engine, spawn};
use super::*;
use tokio::time::Instant;

/// A listener, and connections to it.
struct Edge {
    listener: std::net::TcpListener,
    door: Door,
    /// Connections that were passed on as coming from a range.
    dynamic: mpsc::Receiver<Accepted>,
}

impl Edge {
    /// `room`: how many connections from ranges may wait.
    fn new(directory: &Directory, room: usize) -> Self {
        Edge::new_at(directory, room, Ipv4Addr::LOCALHOST.into())
    }

    fn new_at(directory: &Directory, room: usize, address: IpAddr) -> Self {
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        sockopt::keep_syn(listener.as_fd(), sockopt::KeptHeaders::FromNetwork).unwrap();
        let (sender, dynamic) = mpsc::channel(room);
        let door = Door::of(&Listeners::new(
            directory.clone(),
            sender,
            SessionCounters::default(),
            u64::MAX,
        ));
        Edge { listener, door, dynamic }
    }

    /// Connects from a loopback address and admits the connection. Returns the client's end.
    fn connect(&mut self, from: IpAddr) -> std::net::TcpStream {
        self.connect_with(from, |_| {})
    }

    fn connect_with(&mut self, from: IpAddr, prepare: impl FnOnce(&Socket)) -> std::net::TcpStream {
        let domain = Domain::for_address(SocketAddr::new(from, 0));
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        prepare(&socket);
        socket.connect(&self.listener.local_addr().unwrap().into()).unwrap();
        let (ours, _) = self.listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        self.door.admit(TcpStream::from_std(ours).unwrap(), from);
        socket.into()
    }

    fn refused(&self) -> u64 {
        self.door.session_counters.refusals().iter().map(|(_, count)| count).sum()
    }

    fn refused_for(&self, why: Refusal) -> u64 {
        self.door.session_counters.refusals()[why as usize].1
    }
}

fn read(mut client: &std::net::TcpStream, wait: Option<Duration>) -> std::io::Result<usize> {
    client.set_nonblocking(wait.is_none()).unwrap();
    client.set_read_timeout(wait).unwrap();
    client.read(&mut [0; 64])
}

/// A BGPPeer of Calico has no key for an interface.
#[tokio::test]
async fn a_link_local_peer_without_an_interface_may_connect_over_any() {
    let engine = engine();
    let (plain, exact): (IpAddr, IpAddr) =
        ("fe80::5".parse().unwrap(), bgp_proto::types::on_interface("fe80::5".parse().unwrap(), 4));
    let directory = Directory::default();
    let mut events = Vec::new();
    for (id, address) in [(1, plain), (2, exact)] {
        let (peer, peer_events) = spawn(&engine, id, config(address));
        directory.insert(&Arc::new(config(address)), peer);
        events.push(peer_events);
    }
    let edge = Edge::new(&directory, 1);
    let found = |ifindex| {
        let from = bgp_proto::types::on_interface(plain, ifindex);
        edge.door.neighbor(from).map(|found| found.config.address)
    };
    assert_eq!((found(3), found(4)), (Some(plain), Some(exact)));
    assert!(edge.door.neighbor("fe80::6".parse().unwrap()).is_none());
    engine.stop();
}

/// The runtime has one thread, so a peer's task does not run before we await: its connections stay
/// in the queue, like those of a peer whose task is busy.
#[tokio::test]
async fn connections_that_wait_are_bounded_for_each_address() {
    let engine = engine();
    let (flooding, other) =
        (Ipv4Addr::new(127, 0, 0, 2).into(), Ipv4Addr::new(127, 0, 0, 3).into());
    let directory = Directory::default();
    let mut tasks = Vec::new();
    for (number, address) in [(1, flooding), (2, other)] {
        let (peer, events) = spawn(&engine, number, config(address));
        directory.insert(&Arc::new(config(address)), peer);
        tasks.push(events);
    }
    let mut edge = Edge::new(&directory, 1);

    let waiting: Vec<_> = (0..CONNECTIONS_MAX).map(|_| edge.connect(flooding)).collect();
    assert_eq!(edge.refused(), 0);
    let beyond: Vec<_> = (0..100).map(|_| edge.connect(flooding)).collect();
    assert_eq!(edge.refused_for(Refusal::QueueFull), 100);
    for client in &beyond {
        assert_eq!(read(client, Some(PATIENCE)).unwrap(), 0, "closed, and not left open");
    }
    for client in &waiting {
        assert_eq!(read(client, None).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let neighbor = edge.connect(other);
    assert_eq!(edge.refused(), 100, "another address has its own queue");

    // The tasks run: the other peer gets our OPEN, and there is room for the first one again.
    let deadline = Instant::now() + PATIENCE;
    while !matches!(read(&neighbor, None), Ok(1..)) {
        assert!(Instant::now() < deadline, "no OPEN to the other peer");
        tokio::task::yield_now().await;
    }
    drop((waiting, edge.connect(flooding)));
    assert_eq!(edge.refused(), 100, "connections that were taken no longer count");
    engine.stop();
}

/// Any device stands for a VRF's here: what matters is that the accepted socket is bound to it.
#[tokio::test]
async fn only_connections_in_a_configured_vrf_are_refused_by_the_default_one() {
    let engine = engine();
    let from = Ipv4Addr::new(127, 0, 0, 2).into();
    let directory = Directory::default();
    let (peer, _events) = spawn(&engine, 1, config(from));
    directory.insert(&Arc::new(config(from)), peer);
    let mut edge = Edge::new(&directory, 1);
    SockRef::from(&edge.listener).bind_device(Some(b"lo")).unwrap();
    let accepted = edge.connect(from);
    assert_eq!(edge.refused(), 0, "ip vrf exec: bound, and not configured");
    directory.write(|known| known.vrfs = BTreeSet::from(["lo".into()]));
    let refused = edge.connect(from);
    assert_eq!(edge.refused_for(Refusal::Stranger), 1);
    drop((accepted, refused));
    engine.stop();
}

/// A range cannot hold up accepting, however many clients connect from it.
#[tokio::test]
async fn connections_from_ranges_that_wait_are_bounded() {
    let at = |host| IpAddr::from([127, 0, 1, host]);
    let directory = Directory::default();
    directory.set_ranges(vec![("127.0.1.0/24".parse().unwrap(), Arc::new(config(at(0))))]);
    let mut edge = Edge::new(&directory, 2);
    let clients = [1, 2, 3].map(|host| edge.connect(at(host)));
    assert_eq!(edge.refused_for(Refusal::RangeBusy), 1);
    assert_eq!(read(&clients[2], Some(PATIENCE)).unwrap(), 0);
    assert_eq!(edge.dynamic.recv().await.map(|accepted| accepted.from), Some(at(1)));
    let _fourth = edge.connect(at(4));
    assert_eq!(edge.refused(), 1, "there is room again");
}

#[tokio::test]
async fn connections_from_unknown_addresses_are_reset() {
    let mut edge = Edge::new(&Directory::default(), 1);
    let client = edge.connect(Ipv4Addr::new(127, 0, 0, 9).into());
    let error = read(&client, Some(PATIENCE)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no TIME-WAIT on our side");
    assert_eq!(edge.refused_for(Refusal::Stranger), 1);
}

/// The kernel accepts these: the socket has no key, no minimum TTL, and no address to compare.
#[tokio::test]
async fn password_ttl_and_address_are_checked_after_accepting_too() {
    let engine = engine();
    let peer_address: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    let range_address: IpAddr = Ipv4Addr::new(127, 0, 3, 7).into();
    let plain = config(peer_address);
    let mut keyed = plain.clone();
    keyed.security.md5 = AuthKey::new("secret");
    let mut near = plain.clone();
    near.security.ttl_security_hops = Some(2);
    let elsewhere = Some(Ipv4Addr::new(127, 0, 0, 50).into());
    let bound = PeerConfig { source_address: elsewhere, ..plain.clone() };
    let here = Some(Ipv4Addr::LOCALHOST.into());
    let bound_here = PeerConfig { source_address: here, ..plain.clone() };
    let (peer, _events) = spawn(&engine, 1, plain.clone());
    let cases = [
        (&plain, None),
        (&keyed, Some(Refusal::Unsigned)),
        (&near, Some(Refusal::TooFar)),
        (&bound, Some(Refusal::OtherAddress)),
        (&bound_here, None),
    ];
    for (shown, refusal) in cases {
        let directory = Directory::default();
        directory.insert(&Arc::new(shown.clone()), peer.clone());
        directory.set_ranges(vec![("127.0.3.0/24".parse().unwrap(), Arc::new(shown.clone()))]);
        let mut edge = Edge::new(&directory, 4);
        let clients = [edge.connect(peer_address), edge.connect(range_address)];
        match refusal {
            None => assert_eq!(edge.refused(), 0),
            Some(why) => {
                assert_eq!((edge.refused_for(why), edge.refused()), (2, 2), "{why:?}");
                for client in clients {
                    let error = read(&client, Some(PATIENCE)).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                }
            }
        }
    }
    // Connections that satisfy the checks are admitted.
    let directory = Directory::default();
    near.security.md5 = AuthKey::new("secret");
    directory.insert(&Arc::new(near), peer);
    let mut edge = Edge::new(&directory, 1);
    let key = b"secret";
    let range = "127.0.0.0/8".parse().unwrap();
    sockopt::set_md5_key(edge.listener.as_fd(), range, key).unwrap();
    let host = Prefix::host(Ipv4Addr::LOCALHOST.into());
    let _client = edge.connect_with(peer_address, |socket| {
        sockopt::set_md5_key(socket.as_fd(), host, key).unwrap();
        socket.set_ttl_v4(254).unwrap();
    });
    assert_eq!(edge.refused(), 0);
    engine.stop();
}

/// While keys change, as on a reload, no connection is established without one.
#[tokio::test]
async fn changing_keys_never_leaves_a_moment_without_one() {
    let (dynamic, _accepted) = mpsc::channel(1);
    let mut listeners =
        Listeners::new(Directory::default(), dynamic, SessionCounters::default(), u64::MAX);
    let keys = |password: &str| -> KeyEntries {
        let hosts = (2..=250).map(|host| Prefix::host(Ipv4Addr::new(127, 0, 0, host).into()));
        let md5 = hosts.map(|host| (host, AuthKey::new(password))).collect();
        KeyEntries { md5, ..KeyEntries::default() }
    };
    listeners.set_keys(keys("a"));
    listeners.listen(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).unwrap();
    let to = listeners.bound[0].socket.local_addr().unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let intruder = std::thread::spawn(move || {
        let mut completed = 0;
        let mut tries = 0;
        let mut sockets = Vec::new();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 200), 0)).into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&to.into());
            sockets.push(socket);
            tries += 1;
            if sockets.len() == 200 {
                completed += sockets.drain(..).filter(|s| s.peer_addr().is_ok()).count();
            }
        }
        completed += sockets.drain(..).filter(|s| s.peer_addr().is_ok()).count();
        (tries, completed)
    });
    for round in 0..150 {
        listeners.set_keys(keys(if round % 2 == 0 { "b" } else { "a" }));
        assert!(listeners.key_faults().is_empty());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (tries, completed) = intruder.join().unwrap();
    assert!(tries > 200, "{tries}");
    assert_eq!(completed, 0, "of {tries} unsigned handshakes");
}

/// A persistent error must not keep a processor core busy.
#[test]
fn accepting_pauses_after_persistent_errors() {
    let (dynamic, _accepted) = mpsc::channel(1);
    let door = Door::of(&Listeners::new(
        Directory::default(),
        dynamic,
        SessionCounters::default(),
        u64::MAX,
    ));
    let error = |code| io::Error::from_raw_os_error(code);
    assert!(!door.say(&error(libc::ECONNABORTED), 1), "closed before it was accepted");
    assert!(door.say(&error(libc::EACCES), 2), "repeated at once: it persists");
    assert!(door.say(&error(libc::EMFILE), 1));
}

/// Whether a socket is listening on the port of the loopback.
fn is_reached(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).is_ok()
}

/// `bindMode` changes and the port does not: Linux refuses to bind the new socket while the old one
/// exists.
#[tokio::test]
async fn the_port_stays_open_between_all_addresses_and_one() {
    let (dynamic, _accepted) = mpsc::channel(1);
    let mut listeners =
        Listeners::new(Directory::default(), dynamic, SessionCounters::default(), u64::MAX);
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
        // Another speaker still cannot bind the port.
        let intruder = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        intruder.set_reuse_address(true).unwrap();
        assert_eq!(intruder.bind(&one.into()).unwrap_err().kind(), ErrorKind::AddrInUse);
        // The accepting task of the previous socket holds it until the task is scheduled again.
        tokio::task::yield_now().await;
    }
    // If the new address cannot be bound, the socket that stays is not left open to sharing either.
    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port));
    let missing = listeners.listen(&[nowhere]).unwrap();
    assert!(missing.len() == 1 && missing[0].may_pass() && !missing[0].is_harmless());
    assert_eq!(listeners.bound.len(), 1);
    assert!(!SockRef::from(&*listeners.bound[0].socket).reuse_port().unwrap());
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_leaves_the_others_alone() {
    let (dynamic, _accepted) = mpsc::channel(1);
    let mut listeners =
        Listeners::new(Directory::default(), dynamic, SessionCounters::default(), u64::MAX);
    let taken = std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).unwrap();
    let (v6, v4) = (taken.local_addr().unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    assert!(listeners.listen(&[v4, v6]).is_err());
    assert!(listeners.bound.is_empty(), "a permanent error: all or nothing");
    let missing = listeners.listen_where_possible(&[v4, v6]);
    let text = missing[0].to_string();
    assert!(text.starts_with(&format!("cannot listen on {v6}")), "{text}");
    let bound =
        |listeners: &Listeners| -> Vec<_> { listeners.bound.iter().map(|b| b.address).collect() };
    assert_eq!(bound(&listeners), [v4]);
    drop(taken);
    assert!(listeners.listen_where_possible(&[v4, v6]).is_empty());
    assert_eq!(bound(&listeners), [v4, v6]);
    // An address that may appear later: the others of its family are bound at once.
    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1790));
    let missing = listeners.listen(&[nowhere, v4, v6]).unwrap();
    assert!(missing.len() == 1 && missing[0].may_pass(), "{missing:?}");
    assert_eq!(bound(&listeners), [v4, v6]);
    assert!(listeners.listen(&[v6]).unwrap().is_empty());
    assert_eq!(bound(&listeners), [v6]);
}

/// The default is all addresses of both families; some systems have only one family.
#[test]
fn a_missing_family_is_a_fault_only_if_one_of_its_addresses_was_requested() {
    let unbound = |address: &str, errno: i32, covered| Unbound {
        vrf: None,
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

/// The remaining descriptors are reserved for operators and probes.
#[tokio::test]
async fn a_connection_beyond_the_descriptors_for_bgp_is_reset() {
    let (dynamic, mut accepted) = mpsc::channel(1);
    let directory = Directory::default();
    directory.set_ranges(vec![(
        "127.0.0.0/8".parse().unwrap(),
        Arc::new(config(IpAddr::from([127, 0, 0, 1]))),
    )]);
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let mut listeners = Listeners::new(directory, dynamic, SessionCounters::default(), 3);
    assert!(listeners.listen(&[address]).unwrap().is_empty());
    listeners.accept();
    let client = std::net::TcpStream::connect(address).unwrap();
    // The listener's task runs on this thread.
    let closed = tokio::task::spawn_blocking(move || read(&client, Some(PATIENCE)));
    assert_eq!(closed.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(accepted.try_recv().is_err());
}

#[test]
#[ignore = "needs root: a network namespace"]
fn connections_over_another_interface_than_that_of_the_peer_are_refused() {
    let ip = |arguments: &str| {
        let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    };
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
    let beside = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("runs as root");
        ip("link set lo up");
        ip("link add near0 type veth peer name far0");
        ip("link set near0 up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let both = [(Ipv4Addr::LOCALHOST.into(), [127, 0, 0, 2].into()), (V6, V6)];
            for (at, from) in both {
                let engine = engine();
                let directory = Directory::default();
                let (peer, _events) = spawn(&engine, 1, config(from));
                let bound_to = |name: &str| {
                    let bind_interface = Some(name.into());
                    Arc::new(PeerConfig { bind_interface, ..config(from) })
                };
                directory.insert(&bound_to("lo"), peer.clone());
                let mut edge = Edge::new_at(&directory, 1, at);
                let accepted = edge.connect(from);
                assert_eq!(edge.refused(), 0, "{from} over lo");
                directory.insert(&bound_to("near0"), peer);
                let refused = edge.connect(from);
                assert_eq!(edge.refused_for(Refusal::OtherInterface), 1, "{from}");
                drop((accepted, refused));
                engine.stop();
            }
        });
    });
    beside.join().unwrap();
}
