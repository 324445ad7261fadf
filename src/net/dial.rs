//! Sockets to and from one peer: how they are made and marked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use bgp_proto::session::PeerConfig;
use bgp_proto::types::{PeerType, Prefix};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::sockopt;

/// DSCP CS6, "network control" (RFC 4594 §3.2), as a traffic class octet.
const TRAFFIC_CLASS: u32 = 0xC0;
/// Unsent octets in the kernel beyond which a connection does not count as writable.
const NOT_SENT_LOW_WATER: u32 = 256 * 1024;
/// TTL of packets that may cross routers.
const TTL_INTERNAL: u8 = 64;

/// Dials a peer from its source address, with its key and TTL in place.
pub(super) async fn connect(config: &PeerConfig) -> io::Result<TcpStream> {
    let remote = SocketAddr::new(config.address, config.port);
    let domain = match config.address {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(key) = &config.security.md5 {
        sockopt::set_md5_key(socket.as_fd(), Prefix::host(config.address), key.octets())?;
    }
    set_ttl(&socket, config)?;
    if let Some(source) = config.source_address {
        // Without it the bind would already take a port; a failure only costs ports.
        let _ = sockopt::set_bind_address_no_port(socket.as_fd());
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(remote).await?;
    mark(&stream, config)?;
    Ok(stream)
}

/// Prepares an accepted connection: its TTL, and everything that a dialled one has.
pub(super) fn adopt(stream: &TcpStream, config: &PeerConfig) -> io::Result<()> {
    set_ttl(&SockRef::from(stream), config)?;
    mark(stream, config)
}

/// The TTL that packets to the peer carry (RFC 5082 §3, RFC 4271 by custom: 1 for a direct eBGP peer).
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

/// Options of an established connection. The minimum TTL is set here, after the handshake and before
/// the first read: a peer that answers a SYN with an ordinary TTL and raises it afterwards (FRR,
/// OpenBGPD) is served, and no octet from afar is.
fn mark(stream: &TcpStream, config: &PeerConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(hops) = config.security.ttl_security_hops {
        let min = u8::MAX - hops.saturating_sub(1);
        sockopt::set_min_ttl(stream.as_fd(), config.address, min)?;
    }
    // A peer that takes nothing, while all that we have to say still fits the kernel's buffer: only
    // the kernel sees that nothing is acknowledged (RFC 9687 §3.1).
    if let Some(time) = config.send_hold_time_max() {
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(time));
    }
    // Only a matter of latency under load: an old kernel may lack it.
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

    #[tokio::test]
    async fn a_connection_is_given_up_if_nothing_is_taken_for_the_send_hold_time() {
        use std::time::Duration;
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
        // What the kernel does with it, in a second instead of minutes: the window is full, and
        // probes are answered.
        SockRef::from(&near).set_tcp_user_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut near = near;
        let write = async { while near.write_all(&[0; 65_536]).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), write).await.expect("given up");
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
