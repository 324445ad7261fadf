//! Sending: one connected socket for each session, because each has its own source port.
//!
//! RFC 5881 §4 requires one source port for all packets of a session, unique among sessions, so
//! packets of several sessions cannot be sent with one `sendmmsg`. A connected socket saves the
//! kernel the route lookup.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::sessions::Outgoing;
use super::wheel::SlotId;
use super::{Hops, Target};

/// The first source port allowed by RFC 5881 §4.
const PORT_FIRST: u16 = 49_152;
const PORTS: u16 = u16::MAX - PORT_FIRST + 1;
/// Ports in use that are tried before an error is reported.
const ATTEMPTS: u16 = 256;
/// TTL and hop limit of every packet (RFC 5881 §5).
const TTL: u32 = 255;
/// DSCP CS6, "network control" (RFC 4594 §3.2), as a traffic class octet.
const TRAFFIC_CLASS: u32 = 0xc0;
/// A filter that drops every packet.
const DROP_ALL: SockFilter = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);

#[derive(Debug)]
struct Outlet {
    socket: Option<Socket>,
    port: u16,
    fault: Option<String>,
}

/// The sockets, by session.
#[derive(Debug)]
pub(super) struct Sender {
    outlets: Vec<Option<Outlet>>,
    used: BTreeSet<u16>,
    cursor: u16,
}

impl Sender {
    /// `random` determines where the search for free ports begins.
    pub(super) fn new(random: u16) -> Sender {
        Sender { outlets: Vec::new(), used: BTreeSet::new(), cursor: random % PORTS }
    }

    /// Sends a packet. A packet that cannot be sent is lost, as on any link; [`Sender::fault`]
    /// returns the reason.
    pub(super) fn send(&mut self, packet: &Outgoing<'_>) {
        let outcome = self.try_send(packet);
        if let Some(Some(outlet)) = self.outlets.get_mut(packet.id.0) {
            outlet.fault = outcome.err().map(|e| e.to_string());
        }
    }

    /// Why the last packet of a session could not be sent.
    pub(super) fn fault(&self, id: SlotId) -> Option<&str> {
        self.outlets.get(id.0)?.as_ref()?.fault.as_deref()
    }

    /// Closes the sockets of removed sessions.
    pub(super) fn retain(&mut self, mut is_alive: impl FnMut(SlotId) -> bool) {
        for (index, slot) in self.outlets.iter_mut().enumerate() {
            if !is_alive(SlotId(index))
                && let Some(outlet) = slot.take()
            {
                self.used.remove(&outlet.port);
            }
        }
    }

    fn try_send(&mut self, packet: &Outgoing<'_>) -> io::Result<()> {
        if self.outlets.len() <= packet.id.0 {
            self.outlets.resize_with(packet.id.0 + 1, || None);
        }
        let Some(slot) = self.outlets.get_mut(packet.id.0) else { return Ok(()) };
        let outlet = slot.get_or_insert(Outlet { socket: None, port: 0, fault: None });
        if outlet.socket.is_none() {
            let (used, cursor) = (&mut self.used, &mut self.cursor);
            // A socket that is opened again keeps its port if possible.
            if outlet.port != 0
                && let Ok(socket) = open(packet.target, outlet.port)
            {
                outlet.socket = Some(socket);
            } else {
                used.remove(&outlet.port);
                outlet.port = 0;
                let (socket, port) = open_somewhere(packet.target, used, cursor)?;
                (outlet.socket, outlet.port) = (Some(socket), port);
            }
        }
        let Some(socket) = &outlet.socket else { return Ok(()) };
        match socket.send(packet.octets) {
            // The kernel reports an ICMP error of an earlier packet instead of sending this one.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                socket.send(packet.octets).map(drop)
            }
            Err(e) => {
                // Our address or the route may have changed: connect again next time.
                outlet.socket = None;
                Err(e)
            }
            Ok(_) => Ok(()),
        }
    }
}

fn open_somewhere(
    target: &Target,
    used: &mut BTreeSet<u16>,
    cursor: &mut u16,
) -> io::Result<(Socket, u16)> {
    let mut attempts = 0;
    for _ in 0..PORTS {
        let port = PORT_FIRST + *cursor;
        *cursor = (*cursor + 1) % PORTS;
        if used.contains(&port) {
            continue;
        }
        match open(target, port) {
            Ok(socket) => {
                used.insert(port);
                return Ok((socket, port));
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && attempts < ATTEMPTS => attempts += 1,
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no source port of 49152-65535 is free"))
}

fn open(target: &Target, port: u16) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(target.peer, 0));
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    match target.peer {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
    }
    // Nothing is received here: packets sent to this port must not fill the socket's buffer.
    socket.attach_filter(&[DROP_ALL])?;
    // A link-local address binds the socket to its interface, and thereby to the VRF of that.
    let vrf = target.vrf.as_ref().filter(|_| target.interface.is_none()).map(|vrf| &vrf.name);
    if let Some(device) = target.device.as_ref().or(vrf) {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    let any: IpAddr = match target.peer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&address(target, target.local.unwrap_or(any), port))?;
    socket.connect(&address(target, target.peer, Hops::port(target.hops)))?;
    Ok(socket)
}

fn address(target: &Target, ip: IpAddr, port: u16) -> SockAddr {
    match ip {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)).into(),
        IpAddr::V6(ip) => {
            let scope = if ip.is_unicast_link_local() {
                target.interface.map_or(0, std::num::NonZeroU32::get)
            } else {
                0
            };
            SocketAddrV6::new(ip, port, 0, scope).into()
        }
    }
}
