//! An ICMPv6 socket on one interface, for router solicitations and advertisements alone.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::cmsg_space;
use nix::sys::socket::sockopt::Ipv6RecvHopLimit;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Protocol, SockFilter, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::net::{bind_to_interface, pass_router_discovery};

/// Receive buffer in octets: room for some dozens of packets, more than two routers send in minutes.
const BUFFER: usize = 32 << 10;
/// Octets read of a packet. A longer one is cut off in an option, and so is discarded.
const PACKET_ROOM: usize = 1500;
/// Routers discard packets with another hop limit (RFC 4861 §6.1).
const HOP_LIMIT: u32 = 255;

/// Whose packets a socket receives.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// Everybody's.
    All,
    /// Those of this source address.
    Only(Ipv6Addr),
    /// Those of all but this source address.
    AllBut(Ipv6Addr),
}

/// A received packet.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) source: Ipv6Addr,
    /// The interface, if the source is link-local; otherwise 0.
    scope: u32,
    pub(super) hop_limit: u8,
    octets: Vec<u8>,
}

impl Received {
    fn is_from(&self, ifindex: u32) -> bool {
        self.scope == 0 || self.scope == ifindex
    }

    /// The ICMPv6 message.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    /// The runtime's type for datagram sockets; only its readiness is used.
    socket: UdpSocket,
    ifindex: u32,
}

impl Socket {
    /// Opens a socket on the interface.
    ///
    /// # Errors
    /// Not permitted, no such interface, or the system has no IPv6.
    pub(super) fn open(ifindex: u32, name: &str, from: From) -> io::Result<Socket> {
        let socket =
            socket2::Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
        pass_router_discovery(socket.as_fd())?;
        socket.attach_filter(&filter(from))?;
        if bind_to_interface(socket.as_fd(), ifindex).is_err() {
            // Before Linux 5.0.
            socket.bind_device(Some(name.as_bytes()))?;
        }
        setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_unicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_if_v6(ifindex)?;
        socket.set_multicast_loop_v6(false)?;
        Ok(Socket { socket: UdpSocket::from_std(socket.into())?, ifindex })
    }

    /// Receives what is sent to a group on the interface.
    pub(super) fn join(&self, group: Ipv6Addr) -> io::Result<()> {
        self.socket.join_multicast_v6(&group, self.ifindex)
    }

    /// Waits for a packet, and reads at most `max`. Empty after an error: nothing is lost but what the
    /// error was about.
    pub(super) async fn receive(&self, max: usize) -> Vec<Received> {
        let mut received = Vec::new();
        if self.socket.readable().await.is_err() {
            return received;
        }
        while received.len() < max {
            match self.socket.try_io(Interest::READABLE, || receive_one(&self.socket)) {
                // Before it was bound, the socket may have received packets of other interfaces.
                Ok(packet) => received.extend(packet.filter(|p| p.is_from(self.ifindex))),
                // Nothing is left; an error of the interface is reported once, and has been by this.
                Err(_) => break,
            }
        }
        received
    }

    /// Sends a message from our link-local address `local` to a group or a host.
    pub(super) fn send(&self, octets: &[u8], local: Ipv6Addr, to: Ipv6Addr) -> io::Result<()> {
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
            ipi6_ifindex: self.ifindex,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, self.ifindex));
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(octets)],
            &[ControlMessage::Ipv6PacketInfo(&info)],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )?;
        Ok(())
    }
}

/// `None`: a packet without the hop limit or the source, which the kernel does not deliver.
fn receive_one(socket: &UdpSocket) -> io::Result<Option<Received>> {
    let mut octets = [0; PACKET_ROOM];
    let mut slices = [IoSliceMut::new(&mut octets)];
    let mut control = cmsg_space!(libc::c_int);
    let message = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let hop_limit = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6HopLimit(value) => u8::try_from(value).ok(),
        _ => None,
    });
    let (source, len) = (message.address, message.bytes);
    let Some((source, hop_limit)) = source.zip(hop_limit) else { return Ok(None) };
    let octets = octets.get(..len).unwrap_or_default().to_vec();
    Ok(Some(Received { source: source.ip(), scope: source.scope_id(), hop_limit, octets }))
}

/// Compares the source address in the IPv6 header, a word at a time.
fn filter(from: From) -> Vec<SockFilter> {
    // Offsets from the network header.
    const SOURCE: u32 = (libc::SKF_NET_OFF as u32).wrapping_add(8);
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equals = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let done = (libc::BPF_RET | libc::BPF_K) as u16;
    let (address, same, other) = match from {
        From::All => return vec![SockFilter::new(done, 0, 0, u32::MAX)],
        From::Only(address) => (address, u32::MAX, 0),
        From::AllBut(address) => (address, 0, u32::MAX),
    };
    let mut program = Vec::new();
    for (at, word) in (0u8..).zip(address.octets().as_chunks::<4>().0) {
        program.push(SockFilter::new(load, 0, 0, SOURCE.wrapping_add(u32::from(at) * 4)));
        // Past the words that are left, two instructions each, and past the next verdict.
        let skip = (3 - at) * 2 + 1;
        program.push(SockFilter::new(equals, 0, skip, u32::from_be_bytes(*word)));
    }
    program.push(SockFilter::new(done, 0, 0, same));
    program.push(SockFilter::new(done, 0, 0, other));
    program
}
