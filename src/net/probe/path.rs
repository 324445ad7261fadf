//! Whether packets reach the neighbour, by UDP to a port where nothing listens: the neighbour
//! answers with an ICMP error, which the kernel reports on the connected socket. Needs no
//! privilege, and is nothing that a BGP speaker notices.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bgp_proto::session::PeerConfig;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::net::dial::on_the_wire;

/// The port of traceroute: nothing listens there.
const PORT: u16 = 33_434;
/// How long to wait for an ICMP error. A host sends at most one a second to the same destination,
/// after a burst of six (net.ipv4.icmp_ratelimit).
const ANSWER_WAIT: Duration = Duration::from_millis(600);
/// How long a host may wait between ICMP errors.
const ANSWER_PAUSE: Duration = Duration::from_millis(1100);
/// How often a packet is sent, as one may be lost.
const ATTEMPTS: usize = 2;
/// The most routers that are looked for.
const HOPS_MAX: u8 = 8;
/// Octets of the headers of IPv4 and UDP, and of IPv6 and UDP.
const HEADERS_V4: u32 = 28;
const HEADERS_V6: u32 = 48;
/// Packet sizes that links have, in octets: Ethernet, PPPoE, tunnels, the least of IPv6 and of IPv4.
const SIZES: [u32; 11] = [8950, 4000, 2000, 1500, 1492, 1480, 1450, 1420, 1400, 1280, 576];

/// What was answered to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The host received it.
    Received,
    /// It does not fit, and the sender was told.
    TooBig,
    /// Nothing.
    None,
}

/// Why packets of the whole size do not reach the neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MtuFault {
    /// A router, or our own interface, says that they are too big.
    Told { size: u32 },
    /// Packets of any size are not answered, or not always.
    Silent,
    /// They are lost, and smaller ones arrive.
    Lost { arrives: u32, lost: u32 },
}

/// A way to a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Path {
    remote: IpAddr,
    device: Option<String>,
    /// Our address.
    pub(super) source: IpAddr,
    bound: Option<IpAddr>,
}

impl Path {
    /// The size of packets that every host accepts (RFC 791 §3.1), in octets.
    pub(super) const MTU_LEAST: u32 = 576;

    /// Looks up the route. The error is that of `connect`.
    pub(super) fn to(config: &PeerConfig) -> io::Result<Path> {
        let mut path = Path {
            remote: config.address,
            device: config.device().map(|device| device.to_string()),
            source: config.address,
            bound: config.source_address,
        };
        let socket = path.socket()?;
        let own = socket.local_addr()?.as_socket();
        path.source = own.map_or(config.address, |own| own.ip());
        Ok(path)
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = if self.remote.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if let Some(source) = self.bound {
            socket.bind(&on_the_wire(source, 0).into())?;
        }
        let remote: SocketAddr = on_the_wire(self.remote, PORT);
        socket.connect(&remote.into())?;
        Ok(socket)
    }

    /// Sends a packet of `size` octets, headers included, that may not be fragmented.
    async fn send(&self, ttl: u8, size: u32) -> io::Result<Answer> {
        let socket = self.socket()?;
        // The probing mode ignores what the kernel knows about the path.
        let headers = match self.remote {
            IpAddr::V4(_) => {
                socket.set_ttl_v4(u32::from(ttl))?;
                set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
                HEADERS_V4
            }
            IpAddr::V6(_) => {
                socket.set_unicast_hops_v6(u32::from(ttl))?;
                set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
                HEADERS_V6
            }
        };
        let payload = usize::try_from(size.saturating_sub(headers)).unwrap_or_default();
        let socket = UdpSocket::from_std(socket.into())?;
        if let Some(answer) = said(socket.send(&vec![0; payload]).await.map(|_| 0)) {
            return Ok(answer);
        }
        match timeout(ANSWER_WAIT, socket.recv(&mut [0; 1])).await {
            // Somebody listens there after all.
            Ok(Ok(_)) => Ok(Answer::Received),
            Ok(error) => Ok(said(error).unwrap_or(Answer::None)),
            Err(_) => Ok(Answer::None),
        }
    }

    /// Whether a packet reaches the neighbour.
    pub(super) async fn answer(&self, ttl: u8, size: u32) -> Answer {
        for _ in 0..ATTEMPTS {
            match self.send(ttl, size).await {
                Ok(Answer::None) | Err(_) => {}
                Ok(answer) => return answer,
            }
        }
        Answer::None
    }

    /// Whether the neighbour answers small packets with this TTL.
    pub(super) async fn is_reached(&self, ttl: u8) -> bool {
        self.answer(ttl, Path::MTU_LEAST).await == Answer::Received
    }

    /// The least TTL above `from` that reaches the neighbour, if it answers at all.
    pub(super) async fn least_ttl(&self, from: u8) -> Option<u8> {
        if !self.is_reached(u8::MAX).await {
            return None;
        }
        for ttl in from.saturating_add(1)..=HOPS_MAX.max(from) {
            if let Ok(Answer::Received) = self.send(ttl, Path::MTU_LEAST).await {
                return Some(ttl);
            }
        }
        Some(u8::MAX)
    }

    /// The size of the largest packets, at most `most` octets, that reach the neighbour.
    pub(super) async fn largest(&self, ttl: u8, most: u32) -> Result<u32, MtuFault> {
        let answer = match self.answer(ttl, most).await {
            Answer::None => self.later_answer(ttl, most).await,
            answer => answer,
        };
        match answer {
            Answer::Received => return Ok(most),
            Answer::TooBig => return Err(MtuFault::Told { size: most }),
            Answer::None => {}
        }
        let smaller: Vec<u32> = SIZES.into_iter().filter(|size| *size < most).collect();
        let Some((least, others)) = smaller.split_last() else { return Err(MtuFault::Silent) };
        if self.answer(ttl, *least).await != Answer::Received {
            return Err(MtuFault::Silent);
        }
        let (mut lost, mut arrives) = (most, *least);
        // Sizes descend: those before `low` are lost, those from `high` on arrive.
        let (mut low, mut high) = (0, others.len());
        while low < high {
            let middle = (low + high) / 2;
            let Some(size) = others.get(middle).copied() else { break };
            match self.answer(ttl, size).await {
                Answer::Received => (high, arrives) = (middle, size),
                Answer::TooBig => return Err(MtuFault::Told { size }),
                Answer::None => (low, lost) = (middle + 1, size),
            }
        }
        match self.later_answer(ttl, lost).await {
            Answer::None => Err(MtuFault::Lost { arrives, lost }),
            _ => Err(MtuFault::Silent),
        }
    }

    /// As [`Path::answer`], when the host may send an ICMP error again: that one was not answered may
    /// be due to its limit.
    async fn later_answer(&self, ttl: u8, size: u32) -> Answer {
        tokio::time::sleep(ANSWER_PAUSE).await;
        self.answer(ttl, size).await
    }
}

/// What an error on the socket says.
fn said(result: io::Result<usize>) -> Option<Answer> {
    match result.err()?.raw_os_error() {
        Some(libc::ECONNREFUSED) => Some(Answer::Received),
        Some(libc::EMSGSIZE) => Some(Answer::TooBig),
        _ => Some(Answer::None),
    }
}
