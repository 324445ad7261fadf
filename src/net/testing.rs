//! Shared by the tests of this module: an engine, a peer's task, and the messages of its neighbour.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{
    AuthKey, ChainKey, KeyChain, KeyLifetime, LocalIdentity, PassiveMode, PeerConfig, State,
    TcpOptions,
};
use bgp_proto::table::{PeerRoutes, TableConfig};
use bgp_proto::types::{Asn, Family, FibChange, NextHop, PathId, PeerId, Prefix, RouterId};
use bgp_proto::wire::{
    AnnounceFormat, AttrEdit, Capabilities, Code, GracefulRestart, GracefulRestartFamily,
    Notification, Open, Origin, UpdateWriter, encode_keepalive,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::handle::{Lifetime, OtherAddresses, PeerEvent, PeerHandle, PeerSpec, RestartState};
use super::peer::spawn_peer;
use super::session_counters::SessionCounters;
use crate::engine::{Clock, Engine, Event, Sink};

/// Longest wait for a condition that normally holds soon.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The neighbour's address.
pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
pub(super) const ASN: Asn = Asn(64512);

/// Discards the table's results.
struct Nowhere;

impl Sink for Nowhere {
    fn fib(&mut self, _: Vec<(Prefix, FibChange)>) {}
    fn track(&mut self, _: IpAddr) {}
    fn untrack(&mut self, _: IpAddr) {}
    fn event(&mut self, _: Event) {}
}

pub(crate) fn engine() -> Engine {
    let config = TableConfig { fib_enabled: false, ..TableConfig::new(ASN, RouterId(1)) };
    Engine::start(Arc::new(config), 1, Clock::start(), Nowhere).unwrap()
}

/// An internal peer that never dials.
pub(crate) fn config(address: IpAddr) -> PeerConfig {
    let identity = LocalIdentity { asn: ASN, router_id: RouterId(1) };
    PeerConfig { passive: PassiveMode::Passive, ..PeerConfig::new(address, ASN, &identity) }
}

/// A chain of one key, which is always used.
pub(crate) fn key_chain() -> Arc<KeyChain> {
    let key = ChainKey {
        send_id: 1,
        receive_id: 1,
        algorithm: "hmac(sha1)".to_owned(),
        tcp_options: TcpOptions::Covered,
        secret: AuthKey::new("secret").unwrap(),
        send: KeyLifetime::default(),
        accept: KeyLifetime::default(),
    };
    Arc::new(KeyChain::new("fabric", vec![key]).unwrap())
}

/// Starts a peer's task and adds the peer to the table. Returns its handle and its events.
pub(crate) fn spawn(
    engine: &Engine,
    number: u32,
    config: PeerConfig,
) -> (PeerHandle, mpsc::UnboundedReceiver<PeerEvent>) {
    let name: Arc<str> = config.address.to_string().into();
    let routes = Arc::new(PeerRoutes::new(&*name));
    engine.handle().peer_add(PeerId(number), config.address, routes);
    let spec = PeerSpec {
        id: PeerId(number),
        name,
        config: Arc::new(config),
        lifetime: Lifetime::Configured,
        seed: 1,
        recovery: RestartState::begin(),
        beside: Arc::new(|_, _| OtherAddresses {
            other_family: Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])),
            link_local: None,
        }),
        session_counters: SessionCounters::default(),
        shutdown: super::AdminShutdown::default(),
        debug: super::DebugSwitch::default(),
        recorder: crate::mrt::Recorder::idle(),
    };
    let (events, heard) = mpsc::unbounded_channel();
    (spawn_peer(spec, engine.handle().clone(), events), heard)
}

/// Makes connections over the loopback, with both ends.
pub(super) struct Wire {
    listener: std::net::TcpListener,
}

impl Wire {
    pub(super) fn new() -> Self {
        Wire { listener: std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
    }

    /// A connection from `from`: the neighbour's end, and our accepted end.
    pub(super) fn connect(&self, from: IpAddr) -> (std::net::TcpStream, TcpStream) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&self.listener.local_addr().unwrap().into()).unwrap();
        let (ours, _) = self.listener.accept().unwrap();
        // As routers do: otherwise a reset drops a NOTIFICATION that waits for an acknowledgement.
        socket.set_tcp_nodelay(true).unwrap();
        ours.set_nonblocking(true).unwrap();
        (socket.into(), TcpStream::from_std(ours).unwrap())
    }

    /// Establishes a session. Returns the neighbour's end.
    pub(super) async fn establish(&self, peer: &PeerHandle, hello: &[u8]) -> std::net::TcpStream {
        let (mut client, ours) = self.connect(PEER);
        peer.connect(ours).unwrap();
        client.write_all(hello).unwrap();
        until("the session is up", async || peer.state() == State::Established).await;
        client
    }
}

/// Waits until `condition` holds; panics with `what` after [`PATIENCE`].
pub(super) async fn until(what: &'static str, mut condition: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether the neighbour announces graceful restart, and with which N bit (RFC 8538).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restarts {
    No,
    WithoutN,
    WithN,
}

/// The neighbour's OPEN and first KEEPALIVE.
pub(super) fn hello(hold_time_secs: u16, families: &[Family], restarts: Restarts) -> Vec<u8> {
    let pairs = || families.iter().map(|family| family.afi_safi());
    let restart = GracefulRestart {
        restarting: false,
        notification: restarts == Restarts::WithN,
        restart_time_secs: 120,
        families: pairs()
            .map(|family| GracefulRestartFamily { family, forwarding: true })
            .collect(),
    };
    let capabilities = Capabilities {
        multiprotocol: pairs().collect(),
        four_octet_as: Some(ASN),
        route_refresh: true,
        enhanced_refresh: true,
        graceful_restart: (restarts != Restarts::No).then_some(restart),
        ..Capabilities::default()
    };
    let mut out = Vec::new();
    Open { asn: ASN, hold_time_secs, router_id: RouterId(9), capabilities }.encode(&mut out);
    encode_keepalive(&mut out);
    out
}

/// [`hello`] for IPv4 only, with a hold time of 90 s.
pub(super) fn ipv4_hello(restarts: Restarts) -> Vec<u8> {
    hello(90, &[Family::Ipv4], restarts)
}

pub(super) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    encode_keepalive(&mut out);
    out
}

pub(super) fn notification(code: Code) -> Vec<u8> {
    let mut out = Vec::new();
    Notification::new(code).encode(&mut out);
    out
}

const FORMAT: AnnounceFormat =
    AnnounceFormat { family: Family::Ipv4, four_octet_as: true, add_path: false, max_len: 4096 };

pub(super) fn announcement(prefix: &str) -> Vec<u8> {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.set_local_pref(100);
    let mut out = Vec::new();
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 2));
    let mut writer = UpdateWriter::announce(&mut out, FORMAT, edit.view(), next_hop);
    writer.push(PathId(0), prefix.parse().unwrap()).unwrap();
    writer.finish();
    out
}

pub(super) fn withdrawal(prefix: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = UpdateWriter::withdraw(&mut out, FORMAT);
    writer.push(PathId(0), prefix.parse().unwrap()).unwrap();
    writer.finish();
    out
}

/// The number of IPv4 paths in the table.
pub(super) async fn paths(engine: &Engine) -> u32 {
    engine.handle().ask(|table, _| table.totals().paths[Family::Ipv4]).await.unwrap()
}
