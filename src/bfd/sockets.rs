//! Receiving: a group of sockets for each port and family, among which the kernel sorts packets
//! ([`filter`]).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::sockopt::{
    AttachReusePortCbpf, Ipv4PacketInfo, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvPacketInfo,
    RcvBufForce, ReceiveTimestampns, RxqOvfl,
};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, recvmsg, setsockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::filter::{self, Class, Discriminators};
use super::sessions::{Arrival, Details};
use super::{Family, Port};

/// Most packets read by one system call.
const BATCH: usize = 32;
/// Octets read of a packet: more than a valid packet has.
const PACKET_ROOM: usize = 256;
/// Receive buffer for packets of established sessions, in octets: thousands of packets may arrive
/// while the thread is not scheduled.
const KNOWN_BUFFER: usize = 4 << 20;
/// Receive buffer for all other packets, in octets.
const OTHER_BUFFER: usize = 128 << 10;

/// The receiving sockets of one port.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) port: Port,
    sockets: Vec<(Class, Socket)>,
    /// Which classes have something to read, by the last poll.
    ready: [bool; 3],
    /// Packets that the kernel dropped at the sockets of [`Class::Unknown`] and [`Class::Invalid`].
    drops: [u32; 3],
}

impl Group {
    /// Binds the sockets. `is_first`: whether no other group has this port in another VRF.
    ///
    /// # Errors
    /// The port is in use, the VRF does not exist, or the kernel lacks the address family.
    pub(super) fn open(
        port: Port,
        is_first: bool,
        discriminators: Discriminators,
    ) -> io::Result<Group> {
        // Any process of the same user can join an SO_REUSEPORT group. Binding exclusively first
        // detects another BFD daemon. Beside a group of ours this would fail: for UDP, a socket that
        // is bound to no device excludes those that are, and the other way round.
        if is_first {
            bind(&port, Sharing::Exclusive)?;
        }
        let first = bind(&port, Sharing::Group)?;
        let mut program = filter::program(port.family, port.is_single_hop(), discriminators);
        let program = libc::sock_fprog {
            len: u16::try_from(program.len()).expect("a few dozen instructions"),
            filter: program.as_mut_ptr(),
        };
        let mut sockets = Vec::new();
        // A kernel without such programs (before Linux 4.5): all packets arrive on one socket, and
        // are classified when they are read.
        if setsockopt(&first, AttachReusePortCbpf, &program).is_ok() {
            sockets.push((Class::Known, first));
            for class in [Class::Unknown, Class::Invalid] {
                sockets.push((class, bind(&port, Sharing::Group)?));
            }
        } else {
            sockets.push((Class::Unknown, first));
        }
        for (class, socket) in &sockets {
            configure(port.family, *class, socket)?;
        }
        Ok(Group { port, sockets, ready: [false; 3], drops: [0; 3] })
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = (Class, BorrowedFd<'_>)> {
        self.sockets.iter().map(|(class, socket)| (*class, socket.as_fd()))
    }

    /// Whether the kernel separates packets of established sessions from others.
    pub(super) fn is_sorted(&self) -> bool {
        self.sockets.len() > 1
    }

    /// The class whose socket has the packets of established sessions.
    pub(super) fn established(&self) -> Class {
        if self.is_sorted() { Class::Known } else { Class::Unknown }
    }

    /// Records whether a class has something to read.
    pub(super) fn set_ready(&mut self, class: Class, ready: bool) {
        if let Some(flag) = self.ready.get_mut(class as usize) {
            *flag = ready;
        }
    }

    /// Packets that the kernel dropped because we read too slowly.
    pub(super) fn overflows(&self) -> u64 {
        self.drops.iter().map(|drops| u64::from(*drops)).sum()
    }

    /// Reads at most about `limit` packets of a class. Returns how many were read.
    pub(super) fn receive(
        &mut self,
        class: Class,
        limit: usize,
        inbox: &mut Inbox,
        take: &mut impl FnMut(&Arrival, &[u8]),
    ) -> usize {
        if self.ready.get(class as usize) != Some(&true) {
            return 0;
        }
        let port = &self.port;
        let Some((_, socket)) = self.sockets.iter().find(|(of, _)| *of == class) else { return 0 };
        let mut count = 0;
        while count < limit {
            let read = match class {
                Class::Known => inbox.receive_many(socket, port, take),
                Class::Unknown | Class::Invalid => {
                    inbox.receive_one(socket, port, take).map(|drops| {
                        if let (Some(drops), Some(seen)) =
                            (drops, self.drops.get_mut(class as usize))
                        {
                            *seen = drops;
                        }
                        1
                    })
                }
            };
            match read {
                // Fewer than a full batch: the socket is empty.
                Ok(read) if class == Class::Known && read < BATCH => return count + read,
                Ok(read) => count += read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier packet, or a signal: the next call continues.
                Err(_) => count += 1,
            }
        }
        count
    }
}

enum Sharing {
    Exclusive,
    Group,
}

fn bind(port: &Port, sharing: Sharing) -> io::Result<Socket> {
    let (domain, any): (Domain, IpAddr) = match port.family {
        Family::V4 => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if port.family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    if let Some(vrf) = &port.vrf {
        socket.bind_device(Some(vrf.name.as_bytes()))?;
    }
    if let Sharing::Group = sharing {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&SocketAddr::new(any, port.number).into())?;
    Ok(socket)
}

fn configure(family: Family, class: Class, socket: &Socket) -> io::Result<()> {
    let buffer = if class == Class::Known { KNOWN_BUFFER } else { OTHER_BUFFER };
    // Exceeding `net.core.rmem_max` needs CAP_NET_ADMIN.
    if setsockopt(socket, RcvBufForce, &buffer).is_err() {
        socket.set_recv_buffer_size(buffer)?;
    }
    setsockopt(socket, ReceiveTimestampns, &true)?;
    if class == Class::Known {
        return Ok(());
    }
    match family {
        Family::V4 => {
            setsockopt(socket, Ipv4PacketInfo, &true)?;
            setsockopt(socket, Ipv4RecvTtl, &true)?;
        }
        Family::V6 => {
            setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
            setsockopt(socket, Ipv6RecvHopLimit, &true)?;
        }
    }
    setsockopt(socket, RxqOvfl, &1)?;
    Ok(())
}

impl Port {
    /// A packet that was received on it.
    fn arrival(
        &self,
        source: IpAddr,
        scope: u32,
        stamp: Duration,
        details: Option<Details>,
    ) -> Arrival {
        let vrf = self.vrf.as_ref().map(|vrf| vrf.index);
        Arrival { source, scope, is_single_hop: self.is_single_hop(), vrf, stamp, details }
    }
}

/// Buffers for received packets of one family. Not shared between families, because the headers
/// keep the length of the last address.
pub(super) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    packets: [[u8; PACKET_ROOM]; BATCH],
    control: Vec<u8>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox {
            headers: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::timespec))),
            packets: [[0; PACKET_ROOM]; BATCH],
            control: cmsg_space!(libc::in6_pktinfo, libc::c_int, u32, libc::timespec),
        }
    }

    fn receive_many(
        &mut self,
        socket: &Socket,
        port: &Port,
        take: &mut impl FnMut(&Arrival, &[u8]),
    ) -> io::Result<usize> {
        let mut slices = self.packets.each_mut().map(|packet| [IoSliceMut::new(packet)]);
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        let mut count = 0;
        for message in received {
            count += 1;
            let (Some((source, scope)), Some(octets)) =
                (message.address.and_then(ip_of), message.iovs().next())
            else {
                continue;
            };
            let stamp =
                message.cmsgs().into_iter().flatten().find_map(stamp_of).unwrap_or_default();
            take(&port.arrival(source, scope, stamp, None), octets);
        }
        Ok(count)
    }

    /// Reads one packet. Returns how many packets the kernel has dropped at this socket, if it
    /// reports that.
    fn receive_one(
        &mut self,
        socket: &Socket,
        port: &Port,
        take: &mut impl FnMut(&Arrival, &[u8]),
    ) -> io::Result<Option<u32>> {
        let [packet, ..] = &mut self.packets;
        let mut slices = [IoSliceMut::new(packet)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let (mut destination, mut interface, mut ttl, mut drops) = (None, 0, None, None);
        let mut stamp = Duration::ZERO;
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let addr = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    destination = Some(IpAddr::from(addr));
                    interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    interface = info.ipi6_ifindex;
                }
                ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                    ttl = u8::try_from(value).ok();
                }
                ControlMessageOwned::RxqOvfl(count) => drops = Some(count),
                other => stamp = stamp_of(other).unwrap_or(stamp),
            }
        }
        if let (Some((source, scope)), Some(destination), Some(ttl), Some(octets)) =
            (message.address.and_then(ip_of), destination, ttl, message.iovs().next())
        {
            let details = Some(Details { destination, interface, ttl });
            take(&port.arrival(source, scope, stamp, details), octets);
        }
        Ok(drops)
    }
}

/// When the kernel received the packet.
fn stamp_of(control: ControlMessageOwned) -> Option<Duration> {
    match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    }
}

fn ip_of(address: SockaddrStorage) -> Option<(IpAddr, u32)> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((v4.ip().into(), 0));
    }
    address.as_sockaddr_in6().map(|v6| (v6.ip().into(), v6.scope_id()))
}
