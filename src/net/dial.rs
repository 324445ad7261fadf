//! Sockets to and from one peer: creation and options.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::time::Duration;

use bgp_proto::session::PeerConfig;
use bgp_proto::types::{PeerType, Prefix, off_interface};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::key_chains::{self, unix_now};
use super::signature_drops::{SignatureDrops, Signing};
use super::sockopt;
use crate::kernel::{KernelAnswer, SeenKind, kernel_route_to};

/// DSCP CS6, "network control" (RFC 4594 §3.2), as a traffic class octet.
const TRAFFIC_CLASS: u32 = 0xC0;
/// Unsent octets in the kernel beyond which a connection does not count as writable.
const NOT_SENT_LOW_WATER: u32 = 256 * 1024;
/// TCP keepalive: idle time before the first probe, time between probes, and how many probes may
/// remain unanswered before the kernel closes the connection.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(20);
const PROBES: u32 = 3;
/// TTL for internal peers, which may be several hops away.
const TTL_INTERNAL: u8 = 64;

/// Dials a peer from its source address, with its keys and TTL in place. `failures`: how many attempts in
/// a row have failed before.
pub(super) async fn connect(config: &PeerConfig, failures: usize) -> io::Result<TcpStream> {
    let remote = on_the_wire(config.address, config.port);
    let domain = match config.address {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(device) = config.device() {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(key) = &config.security.md5 {
        sockopt::set_md5_key(socket.as_fd(), Prefix::host(remote.ip()), key.octets())?;
    }
    if let Some(chain) = &config.security.ao {
        let peer = Prefix::host(remote.ip());
        key_chains::prepare(socket.as_fd(), peer, chain, unix_now(), failures)?;
    }
    set_ttl(&socket, config)?;
    if let Some(min) = min_ttl(config) {
        socket.attach_filter(&near_only(config.address, min))?;
    }
    if let Some(source) = config.source_address {
        // Without it, `bind` would already allocate a port; a failure only uses more ports.
        let _ = sockopt::set_bind_address_no_port(socket.as_fd());
        socket.bind(&on_the_wire(source, 0).into())?;
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(remote).await?;
    mark(&stream, config)?;
    Ok(stream)
}

/// The socket address of one end, with the interface of a link-local one.
pub(super) fn on_the_wire(address: IpAddr, port: u16) -> SocketAddr {
    match off_interface(address) {
        (IpAddr::V6(address), Some(ifindex)) => {
            SocketAddrV6::new(address, port, 0, ifindex.get()).into()
        }
        (address, _) => SocketAddr::new(address, port),
    }
}

/// Why a peer could not be dialled, with what the system's error means here.
pub(super) fn describe(error: &io::Error, config: &PeerConfig) -> String {
    let (address, port) = (off_interface(config.address).0, config.port);
    if let (Some(libc::ENODEV | libc::EPERM), Some(device)) =
        (error.raw_os_error(), config.device())
    {
        return format!("{error}: cannot bind the socket to {device} (vrf, bind-interface)");
    }
    // The kernel reports an expired TTL like an unreachable host, and a router may answer either.
    if is_unreachable(error)
        && let Some(text) = out_of_reach(config)
    {
        return text;
    }
    let hint = match (error.kind(), config.source_address) {
        (io::ErrorKind::AddrNotAvailable, Some(source)) => match off_interface(source) {
            (source, Some(_)) => format!(": {source}, our address, is not usable on the interface"),
            (source, None) => format!(": {source} (source-address) is on no interface"),
        },
        (io::ErrorKind::HostUnreachable, _) => match (is_on_link(config), address) {
            (Some(true), IpAddr::V4(_)) => format!(": {address} does not answer ARP"),
            (Some(true), IpAddr::V6(_)) => {
                format!(": {address} does not answer neighbour discovery")
            }
            (Some(false), IpAddr::V4(_)) => {
                format!(": a router answers that {address} is unreachable")
            }
            _ => format!(": {address} does not answer neighbour discovery, or no router knows it"),
        },
        (io::ErrorKind::NetworkUnreachable, _) => format!(": no route leads to {address}"),
        (io::ErrorKind::ConnectionRefused, _) => {
            format!(": nothing listens at {address} port {port}, or a firewall refuses us")
        }
        (io::ErrorKind::TimedOut, _) => match Signing::of(&config.security) {
            Signing::No => String::new(),
            signing => format!(": no answer{}", advice_on_keys(signing)),
        },
        _ => String::new(),
    };
    format!("{error}{hint}")
}

/// Whether our own routes, a router or the resolution of the address says that there is no way.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

/// Why a peer did not answer an attempt to connect. `drops`: what the kernel dropped meanwhile.
pub(super) fn no_answer(config: &PeerConfig, drops: Option<SignatureDrops>) -> String {
    if let Some(text) = out_of_reach(config) {
        return text;
    }
    let signing = Signing::of(&config.security);
    let hint = match drops.and_then(|drops| drops.hint(signing)) {
        Some(hint) => format!(": {hint}"),
        None => advice_on_keys(signing),
    };
    format!("no answer in time{hint}")
}

/// What to check if nothing is answered: a segment with another key is dropped without an answer (RFC 2385
/// §2.0, RFC 5925 §7.5).
fn advice_on_keys(signing: Signing) -> String {
    let advice = match signing {
        Signing::No => return String::new(),
        Signing::Md5 => "check the password on both sides",
        Signing::Ao => "compare the key chains of both sides (ids, algorithms, secrets)",
    };
    format!(": {advice}")
}

/// Why no packet of ours can reach the peer, as far as the kernel's routes say: an external one that
/// is not directly connected needs a greater TTL.
pub(super) fn out_of_reach(config: &PeerConfig) -> Option<String> {
    let address = off_interface(config.address).0;
    (ttl(config) == 1 && is_on_link(config) == Some(false)).then(|| {
        format!(
            "{address} is in no network of an interface and TTL is 1: set multihop-ttl, or correct \
             the address"
        )
    })
}

/// Whether the kernel would send to the peer without a router; `None`: it does not say.
fn is_on_link(config: &PeerConfig) -> Option<bool> {
    match off_interface(config.address) {
        (IpAddr::V6(address), None) => return is_on_link6(address, config),
        (IpAddr::V6(_), Some(_)) => return Some(true),
        (IpAddr::V4(_), _) => {}
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).ok()?;
    if let Some(device) = config.device() {
        socket.bind_device(Some(device.as_bytes())).ok()?;
    }
    // Only routes without a gateway count (socket(7)). No packet is sent.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::DontRoute, &true).ok()?;
    match socket.connect(&on_the_wire(config.address, config.port).into()) {
        Ok(()) => Some(true),
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Some(false),
        Err(_) => None,
    }
}

/// The same for IPv6, where SO_DONTROUTE has no effect: by the route that the kernel uses.
fn is_on_link6(peer: Ipv6Addr, config: &PeerConfig) -> Option<bool> {
    let device = match config.device() {
        Some(device) => Some(if_nametoindex(&**device).ok()?),
        None => None,
    };
    let answer = kernel_route_to(peer.into(), device, &[]).ok()?;
    has_no_gateway(&answer).or_else(|| shares_a_network(peer, config))
}

/// Whether a route leads to an address without a router; `None`: the answer does not say, as with a
/// next-hop object, an encapsulation or an address of our own.
fn has_no_gateway(answer: &KernelAnswer) -> Option<bool> {
    let used = match answer {
        KernelAnswer::Uses(used) => used,
        KernelAnswer::NoRoute => return Some(false),
        KernelAnswer::Drops(_) => return None,
    };
    let hops = &used.route.gateways;
    if used.route.kind != SeenKind::Unicast || hops.is_empty() {
        return None;
    }
    match hops.iter().filter(|hop| hop.via.is_some()).count() {
        0 => Some(true),
        count if count == hops.len() => Some(false),
        _ => None,
    }
}

/// `Some(true)` if the peer's address is in a network of one of our addresses.
fn shares_a_network(peer: Ipv6Addr, config: &PeerConfig) -> Option<bool> {
    let device = match (&config.bind_interface, &config.vrf) {
        (Some(device), _) => Some(&**device),
        // The addresses are those of the members.
        (None, Some(_)) => return None,
        (None, None) => None,
    };
    let bits = |address: Option<SockaddrStorage>| -> Option<u128> {
        Some(address?.as_sockaddr_in6()?.ip().to_bits())
    };
    let mut own = getifaddrs().ok()?;
    let is_shared = own.any(|own| {
        let is_meant = device.is_none_or(|device| own.interface_name == device);
        let network = bits(own.address).zip(bits(own.netmask));
        is_meant && network.is_some_and(|(own, mask)| own & mask == peer.to_bits() & mask)
    });
    is_shared.then_some(true)
}

/// Prepares an accepted connection: sets its TTL, its key, and the options of a dialled one.
pub(super) fn adopt(stream: &TcpStream, config: &PeerConfig) -> io::Result<()> {
    set_ttl(&SockRef::from(stream), config)?;
    if let Some(key) = &config.security.md5 {
        // The key may have changed while the connection waited.
        let peer = off_interface(config.address).0;
        sockopt::set_md5_key(stream.as_fd(), Prefix::host(peer), key.octets())?;
    }
    if let Some(chain) = &config.security.ao {
        // It has the keys that the listening socket had.
        let peer = Prefix::host(off_interface(config.address).0);
        key_chains::review(stream.as_fd(), peer, chain, unix_now(), |_| {})?;
    }
    mark(stream, config)
}

/// The minimum TTL of packets from the peer (GTSM, RFC 5082 §3).
pub(super) fn min_ttl(config: &PeerConfig) -> Option<u8> {
    config.security.ttl_security_hops.map(|hops| u8::MAX - hops.saturating_sub(1))
}

/// A socket filter that drops packets with too small a TTL, from the first packet on. Only the
/// SYN-ACK may have any TTL: a listener sends it before it knows who is connecting (FRR and
/// OpenBGPD with an ordinary TTL), and it carries no data.
fn near_only(peer: IpAddr, min: u8) -> [SockFilter; 6] {
    // Offsets from the network header; without it, offsets count from the TCP header.
    const NETWORK: u32 = libc::SKF_NET_OFF as u32;
    const TCP_FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let ttl = NETWORK + if peer.is_ipv4() { 8 } else { 7 };
    let load = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let at_least = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    let has_bits = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    let done = (libc::BPF_RET | libc::BPF_K) as u16;
    [
        SockFilter::new(load, 0, 0, ttl),
        SockFilter::new(at_least, 2, 0, u32::from(min)),
        SockFilter::new(load, 0, 0, TCP_FLAGS),
        SockFilter::new(has_bits, 0, 1, SYN),
        SockFilter::new(done, 0, 0, u32::MAX),
        SockFilter::new(done, 0, 0, 0),
    ]
}

/// The TTL of packets to the peer: 255 with GTSM (RFC 5082 §3), by convention 1 for an external
/// peer without multihop.
pub(super) fn ttl(config: &PeerConfig) -> u8 {
    if config.security.ttl_security_hops.is_some() {
        return u8::MAX;
    }
    config.multihop_ttl.unwrap_or(match config.peer_type() {
        PeerType::Internal => TTL_INTERNAL,
        PeerType::External => 1,
    })
}

fn set_ttl(socket: &Socket, config: &PeerConfig) -> io::Result<()> {
    match config.address {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(u32::from(ttl(config)))?;
            let _ = socket.set_tos_v4(TRAFFIC_CLASS);
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(u32::from(ttl(config)))?;
            let _ = socket.set_tclass_v6(TRAFFIC_CLASS);
        }
    }
    Ok(())
}

/// Sets the options of an established connection. The minimum TTL is set after the handshake;
/// packets before that are covered by the filter of a dialled connection and by the check of an
/// accepted connection's SYN ([`admission`](super::admission)), so that no octet from too far away
/// is ever processed.
fn mark(stream: &TcpStream, config: &PeerConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(min) = min_ttl(config) {
        sockopt::set_min_ttl(stream.as_fd(), config.address, min)?;
    }
    // With hold time 0, nothing else detects that the other side has failed (RFC 4271 §4.4).
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&probes.with_retries(PROBES))?;
    // If the peer does not read while everything we send still fits into the kernel's buffer, only
    // the kernel sees that nothing is acknowledged (RFC 9687 §3.1).
    if let Some(time) = config.send_hold_time_max() {
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(time));
    }
    // This only affects latency under load; an old kernel may lack it.
    let _ = sockopt::set_not_sent_low_water(stream.as_fd(), NOT_SENT_LOW_WATER);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_proto::session::LocalIdentity;
    use bgp_proto::types::{Asn, RouterId};

    fn config(remote: u32) -> PeerConfig {
        let local = LocalIdentity { asn: Asn(64512), router_id: RouterId(1) };
        PeerConfig::new("192.0.2.1".parse().unwrap(), Asn(remote), &local)
    }

    #[test]
    fn errors_of_the_system_say_what_they_mean_here() {
        let source_address = Some("10.0.0.77".parse().unwrap());
        let config = PeerConfig { source_address, ..config(65001) };
        let text = |kind: io::ErrorKind| describe(&kind.into(), &config);
        let local = text(io::ErrorKind::AddrNotAvailable);
        assert!(local.ends_with(": 10.0.0.77 (source-address) is on no interface"), "{local}");
        let refused = text(io::ErrorKind::ConnectionRefused);
        assert!(refused.contains("nothing listens at 192.0.2.1 port 179"), "{refused}");
        let address = "127.0.0.9".parse().unwrap();
        let near = PeerConfig { address, ..config.clone() };
        let silent = describe(&io::ErrorKind::HostUnreachable.into(), &near);
        assert!(silent.ends_with(": 127.0.0.9 does not answer ARP"), "{silent}");
        assert_eq!(no_answer(&near, None), "no answer in time");
        let mut signed = near.clone();
        signed.security.ao = Some(crate::net::testing::key_chain());
        let compare = "compare the key chains of both sides (ids, algorithms, secrets)";
        assert_eq!(no_answer(&signed, None), format!("no answer in time: {compare}"));
        let timed_out = describe(&io::ErrorKind::TimedOut.into(), &signed);
        assert!(timed_out.ends_with(&format!(": no answer: {compare}")), "{timed_out}");
        assert_eq!(out_of_reach(&near), None, "it is on a link");
        // A prefix for documentation (RFC 3849), and one that every host has.
        let at = |address: &str| PeerConfig {
            address: address.parse().unwrap(),
            source_address: None,
            ..config.clone()
        };
        let far = out_of_reach(&at("2001:db8::77")).unwrap();
        assert!(far.starts_with("2001:db8::77 is in no network of an interface"), "{far}");
        let in_vrf = PeerConfig { vrf: Some("blue".into()), ..at("2001:db8::77") };
        assert_eq!(out_of_reach(&in_vrf), None, "not known");
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            assert_eq!(out_of_reach(&at("::1")), None, "it is on a link");
            let silent = describe(&io::ErrorKind::HostUnreachable.into(), &at("::1"));
            assert!(silent.ends_with(": ::1 does not answer neighbour discovery"), "{silent}");
        }
        let unknown = io::Error::other("strange");
        assert_eq!(describe(&unknown, &config), "strange");
    }

    #[test]
    fn a_route_to_an_interface_needs_no_address_in_its_network() {
        use crate::kernel::{KernelUse, SeenRoute, ViewGateway};
        let uses = |kind, gateways: &[Option<&str>]| {
            let hop = |via: &Option<&str>| ViewGateway {
                via: via.map(|via| via.parse().unwrap()),
                interface: "eth0".into(),
                onlink: false,
            };
            let gateways = gateways.iter().map(hop).collect();
            let prefix = "2001:db8::/64".parse().unwrap();
            let route = SeenRoute { prefix, protocol: 3, metric: 1024, kind, gateways };
            KernelAnswer::Uses(KernelUse { route, table: 254, object: None })
        };
        let router = Some("fe80::1");
        for (answer, on_link) in [
            (uses(SeenKind::Unicast, &[None]), Some(true)),
            (uses(SeenKind::Unicast, &[router, router]), Some(false)),
            (uses(SeenKind::Unicast, &[router, None]), None),
            // A next-hop object.
            (uses(SeenKind::Unicast, &[]), None),
            (uses(SeenKind::Other, &[None]), None),
            (KernelAnswer::NoRoute, Some(false)),
        ] {
            assert_eq!(has_no_gateway(&answer), on_link, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_closed_if_nothing_is_acknowledged_for_the_send_hold_time() {
        use tokio::io::AsyncWriteExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_deaf, _) = listener.accept().await.unwrap();
        let limit = |stream: &TcpStream, config: &PeerConfig| {
            mark(stream, config).unwrap();
            SockRef::from(stream).tcp_user_timeout().unwrap()
        };
        assert_eq!(limit(&near, &config(65001)), Some(Duration::from_secs(480)));
        let (hold_time, send_hold_time) = (Duration::ZERO, Some(Duration::from_secs(600)));
        let silent = PeerConfig { hold_time, send_hold_time, ..config(65001) };
        let unlimited = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(limit(&unlimited, &silent), None, "hold time 0 turns it off");
        // The kernel's behaviour, in one second instead of minutes: the window is full, and window
        // probes are answered.
        SockRef::from(&near).set_tcp_user_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut near = near;
        let write = async { while near.write_all(&[0; 65_536]).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), write).await.expect("closed");
    }

    /// GTSM on a connection that we dialled: octets may arrive before the option is set.
    #[tokio::test]
    async fn no_octet_from_afar_is_read_on_a_dialled_connection() {
        use std::io::Write;
        use tokio::io::AsyncReadExt;
        for loopback in ["127.0.0.1", "::1"] {
            let address: IpAddr = loopback.parse().unwrap();
            let Ok(listener) = std::net::TcpListener::bind((address, 0)) else { continue };
            let port = listener.local_addr().unwrap().port();
            let mut near = PeerConfig { address, port, ..config(65001) };
            near.security.ttl_security_hops = Some(1);
            let set_ttl = |stream: &std::net::TcpStream, ttl| match address {
                IpAddr::V4(_) => stream.set_ttl(ttl).unwrap(),
                IpAddr::V6(_) => SockRef::from(stream).set_unicast_hops_v6(ttl).unwrap(),
            };
            // The SYN-ACK has an ordinary TTL, and so have the octets right after it.
            let peer = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"afar").unwrap();
                stream
            });
            let mut ours = connect(&near, 0).await.unwrap();
            let mut stream = peer.join().unwrap();
            let mut octets = [0; 8];
            let wait = Duration::from_millis(300);
            assert!(tokio::time::timeout(wait, ours.read(&mut octets)).await.is_err());
            set_ttl(&stream, 255);
            stream.write_all(b"near").unwrap();
            // The dropped octets are retransmitted, now with TTL 255, and come first.
            ours.read_exact(&mut octets).await.unwrap();
            assert_eq!(&octets, b"afarnear");
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        mark(&near, &PeerConfig { hold_time: Duration::ZERO, ..config(65001) }).unwrap();
        assert!(SockRef::from(&near).keepalive().unwrap());
        assert_eq!(SockRef::from(&near).tcp_keepalive_time().unwrap(), PROBE_AFTER);
    }

    #[test]
    fn ttl_follows_peer_type_multihop_and_gtsm() {
        assert_eq!(ttl(&config(64512)), 64);
        assert_eq!(ttl(&config(65001)), 1);
        let multihop = PeerConfig { multihop_ttl: Some(7), ..config(65001) };
        assert_eq!(ttl(&multihop), 7);
        let mut gtsm = multihop;
        gtsm.security.ttl_security_hops = Some(1);
        assert_eq!(ttl(&gtsm), 255);
    }
}
