//! Socket options that no safe crate offers: TCP MD5, TCP-AO, the minimum TTL for GTSM, the saved SYN
//! of a connection, TCP_INFO, late binding of ports, the types that an ICMPv6 socket receives.
//!
//! The only `unsafe` code of the project. The result of every call is checked; the structures
//! passed to the kernel are built here from scratch and their sizes are asserted at compile time.
#![allow(unsafe_code)]

mod ao;

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bgp_proto::types::Prefix;
use libc::{c_int, c_void, socklen_t};

use ao::TcpAoGet;
pub(super) use ao::{
    AO_MAC_LEN, AoDelete, AoUse, add_ao_key, ao_counters, ao_key, ao_keys, delete_ao_key,
    select_ao_keys,
};
pub use ao::{AoCounters, AoIds, HeldAoKey};

/// Longest TCP MD5 key that Linux accepts, in octets.
const MD5_KEY_MAX: usize = libc::TCP_MD5SIG_MAXKEYLEN;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct TcpMd5Sig {
    addr: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: c_int,
    key: [u8; MD5_KEY_MAX],
}

const _: () =
    assert!(size_of::<TcpMd5Sig>() == 216, "the kernel's struct tcp_md5sig is 216 octets");

/// Sets (or, with an empty key, deletes) the TCP MD5 key for connections from `peers`
/// (RFC 2385). On a listener it applies to new connections; on a dialling socket it must be set
/// before `connect`.
///
/// # Errors
/// The key is longer than 80 octets, or the kernel refuses it. Deleting a key that does not exist
/// is not an error.
pub(super) fn set_md5_key(socket: BorrowedFd<'_>, peers: Prefix, key: &[u8]) -> io::Result<()> {
    if key.len() > MD5_KEY_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a TCP MD5 key has at most {MD5_KEY_MAX} octets"),
        ));
    }
    let mut sig = TcpMd5Sig {
        addr: sockaddr_storage(peers.addr()),
        flags: 0,
        prefix_len: 0,
        key_len: u16::try_from(key.len()).unwrap_or(0),
        ifindex: 0,
        key: [0; MD5_KEY_MAX],
    };
    if let Some(room) = sig.key.get_mut(..key.len()) {
        room.copy_from_slice(key);
    }
    let option = if peers.len() == peers.family().max_len() {
        libc::TCP_MD5SIG
    } else {
        sig.flags = TCP_MD5SIG_FLAG_PREFIX;
        sig.prefix_len = peers.len();
        libc::TCP_MD5SIG_EXT
    };
    match set(socket, libc::IPPROTO_TCP, option, &sig) {
        Err(e) if key.is_empty() && e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Drops received packets whose TTL or hop limit is below `min` (GTSM, RFC 5082 §3); 0 turns it
/// off.
pub(super) fn set_min_ttl(socket: BorrowedFd<'_>, peer: IpAddr, min: u8) -> io::Result<()> {
    let value = c_int::from(min);
    match peer {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &value),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &value),
    }
}

/// The headers that [`keep_syn`] keeps; the values are those of TCP_SAVE_SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptHeaders {
    /// Network and TCP (Linux 4.2).
    FromNetwork = 1,
    /// That of the link, if it has one, before them (Linux 5.9).
    FromLink = 2,
}

/// Makes the kernel keep the SYN of each connection to `listener` for [`take_syn`].
pub(super) fn keep_syn(listener: BorrowedFd<'_>, headers: KeptHeaders) -> io::Result<()> {
    set(listener, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &(headers as c_int))
}

/// Room for the saved headers, with all options and extension headers.
const SYN_MAX: usize = 256;

/// The headers of an accepted connection's SYN, as [`keep_syn`] was asked to keep them. Works once:
/// the kernel then frees them. Empty if the kernel has not kept them, as with SYN cookies.
pub(super) fn take_syn(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut octets = [0u8; SYN_MAX];
    let len = get(socket, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut octets)?;
    Ok(octets.get(..len).unwrap_or_default().to_vec())
}

/// `linux/ip.h`, `linux/in6.h`: what a stream socket would have received as control messages.
const IP_PKTOPTIONS: c_int = 9;
const IPV6_2292PKTOPTIONS: c_int = 6;
/// Room for the control message of one packet with its header.
const CONTROL_ROOM: usize = 256;

/// Index of the interface over which an accepted connection was opened, as far as the kernel keeps
/// it: for IPv4 in a VRF, that of the VRF's device. `None` if it is not known.
pub(super) fn arrival_interface(socket: BorrowedFd<'_>, peer: IpAddr) -> io::Result<Option<u32>> {
    let (level, receive, option) = match peer {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, IP_PKTOPTIONS),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, IPV6_2292PKTOPTIONS),
    };
    set(socket, level, receive, &c_int::from(true))?;
    let mut octets = [0u8; CONTROL_ROOM];
    let result = get(socket, level, option, &mut octets);
    set(socket, level, receive, &c_int::from(false))?;
    let len = result?;
    // struct cmsghdr, then struct in_pktinfo, which begins with the index, or struct in6_pktinfo,
    // which has it behind an address.
    let header = size_of::<libc::cmsghdr>();
    let at = header + if peer.is_ipv4() { 0 } else { size_of::<libc::in6_addr>() };
    let index = octets.get(..len).and_then(|octets| octets.get(at..at + 4));
    let index = index.and_then(|index| Some(u32::from_ne_bytes(index.try_into().ok()?)));
    Ok(index.filter(|index| *index != 0))
}

/// Lets `connect` choose the port of a socket bound to an address with port 0, so that many
/// connections from one address do not exhaust the ephemeral range.
pub(super) fn set_bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &c_int::from(true))
}

/// Reports the socket as writable only while fewer than `octets` are unsent in the kernel, so that
/// routes not yet on the wire stay in the update log, where newer state can replace them.
pub(super) fn set_not_sent_low_water(socket: BorrowedFd<'_>, octets: u32) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &octets)
}

/// Binds a socket to the interface with this index (Linux 5.0).
pub(crate) fn bind_to_interface(socket: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let ifindex = c_int::try_from(ifindex).map_err(io::Error::other)?;
    set(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &ifindex)
}

/// ICMPv6 types of Router Discovery (RFC 4861 §4.1, §4.2).
const ROUTER_SOLICITATION: usize = 133;
const ROUTER_ADVERTISEMENT: usize = 134;
/// `linux/icmpv6.h`.
const ICMPV6_FILTER: c_int = 1;

/// Lets only router solicitations and advertisements through to an ICMPv6 socket (RFC 3542 §3.2).
pub(crate) fn pass_router_discovery(socket: BorrowedFd<'_>) -> io::Result<()> {
    // Bits of the types that are blocked.
    let mut blocked = [u32::MAX; 8];
    for kind in [ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT] {
        if let Some(word) = blocked.get_mut(kind / 32) {
            *word &= !(1 << (kind % 32));
        }
    }
    set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)
}

/// What the kernel knows of a connection (tcp(7), TCP_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// Segments that the peer has not acknowledged.
    pub(super) unacked: u32,
    /// How often the first of these was retransmitted in a row.
    pub(super) retransmits: u8,
    /// Longest data of a segment that we send, in octets.
    pub(super) mss: u32,
    /// Whether segments carry timestamps (RFC 7323).
    pub(super) has_timestamps: bool,
}

/// Reads TCP_INFO (Linux 2.4).
pub(super) fn tcp_info(socket: &impl AsFd) -> io::Result<TcpInfo> {
    // SAFETY: all-zero octets are a valid tcp_info, a structure of integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    get(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(TcpInfo {
        unacked: info.tcpi_unacked,
        retransmits: info.tcpi_retransmits,
        mss: info.tcpi_snd_mss,
        has_timestamps: info.tcpi_options & TCPI_OPT_TIMESTAMPS != 0,
    })
}

/// `linux/tcp.h`.
const TCPI_OPT_TIMESTAMPS: u8 = 1;

/// Reads the keys that the first element asks for into `room`; returns how many there are, which may be
/// more than fit.
fn get_ao_keys(socket: BorrowedFd<'_>, room: &mut [TcpAoGet]) -> io::Result<usize> {
    let most = u32::try_from(room.len()).map_err(io::Error::other)?;
    let Some(first) = room.first_mut() else { return Ok(0) };
    first.keys = most;
    // That of one element: the kernel writes as many as `keys` says.
    let mut len = socklen_t::try_from(size_of::<TcpAoGet>()).expect("304 octets");
    // SAFETY: the kernel reads `len` octets of the first element, and writes at most `keys` elements of
    // `len` octets, which is the length of `room`. Elements are plain C structures without padding, of
    // which all octets are valid. `len` is a live integer. The descriptor is open for as long as it is
    // borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            ao::TCP_AO_GET_KEYS,
            room.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(room.first().map_or(0, |first| first.keys as usize))
}

/// Reads an option into `value`, whose content the kernel may read before; returns how many octets it
/// wrote. `T` is a plain C structure of integers, an integer or an array: the kernel may write any octets.
fn get<T: Copy>(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &mut T,
) -> io::Result<usize> {
    let mut len =
        socklen_t::try_from(size_of::<T>()).expect("socket options are a few hundred octets");
    // SAFETY: `value` is a live reference to `len` octets of a plain C structure or integers, of which
    // all octets are valid. The kernel reads and writes at most as many. `len` is a live integer. The
    // descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_mut(value).cast::<c_void>(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(len as usize) }
}

fn set<T>(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let len = socklen_t::try_from(size_of::<T>()).expect("socket options are a few hundred octets");
    // SAFETY: `value` is a live reference to `len` octets of a plain C structure or integer, and
    // the kernel only reads them. The descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast::<c_void>(),
            len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn sockaddr_storage(addr: IpAddr) -> libc::sockaddr_storage {
    let from = socket2::SockAddr::from(std::net::SocketAddr::new(addr, 0));
    // SAFETY: all-zero octets are a valid sockaddr_storage (family AF_UNSPEC).
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: `from` holds `from.len()` initialised octets, socket2 guarantees that this is at most
    // the size of a sockaddr_storage, and the two do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            from.as_ptr().cast::<u8>(),
            (&raw mut storage).cast::<u8>(),
            (from.len() as usize).min(size_of::<libc::sockaddr_storage>()),
        );
    }
    storage
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn dial(to: std::net::SocketAddr, key: &[u8]) -> io::Result<TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        if !key.is_empty() {
            set_md5_key(socket.as_fd(), Prefix::host(to.ip()), key)?;
        }
        socket.connect_timeout(&to.into(), Duration::from_millis(600))?;
        Ok(socket.into())
    }

    #[test]
    fn only_the_right_md5_key_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let range: Prefix = "127.0.0.0/8".parse().unwrap();
        set_md5_key(listener.as_fd(), range, b"secret").unwrap();
        let mut near = dial(to, b"secret").unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        assert!(dial(to, b"wrong").is_err());
        assert!(dial(to, b"").is_err());
        set_md5_key(listener.as_fd(), range, b"").unwrap();
        set_md5_key(listener.as_fd(), range, b"").unwrap();
        dial(to, b"").unwrap();
    }

    #[test]
    fn a_key_that_is_too_long_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let range: Prefix = "127.0.0.1/32".parse().unwrap();
        assert!(set_md5_key(listener.as_fd(), range, &[b'k'; 81]).is_err());
        set_md5_key(listener.as_fd(), range, &[b'k'; 80]).unwrap();
    }

    #[test]
    fn packets_below_the_minimum_ttl_are_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = dial(listener.local_addr().unwrap(), b"").unwrap();
        let (mut far, from) = listener.accept().unwrap();
        far.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        set_min_ttl(far.as_fd(), from.ip(), 255).unwrap();
        near.write_all(b"x").unwrap();
        assert!(far.read(&mut [0]).is_err(), "a packet with TTL 64 must be dropped");
        near.set_ttl(255).unwrap();
        near.write_all(b"y").unwrap();
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        far.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn the_syn_of_an_accepted_connection_is_returned_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        keep_syn(listener.as_fd(), KeptHeaders::FromNetwork).unwrap();
        let _near = dial(listener.local_addr().unwrap(), b"").unwrap();
        let (far, _) = listener.accept().unwrap();
        let syn = take_syn(far.as_fd()).unwrap();
        assert_eq!((syn[0] >> 4, syn[8]), (4, 64), "version and TTL: {syn:02x?}");
        assert!(take_syn(far.as_fd()).unwrap().is_empty());

        keep_syn(listener.as_fd(), KeptHeaders::FromLink).unwrap();
        let _near = dial(listener.local_addr().unwrap(), b"").unwrap();
        let (far, _) = listener.accept().unwrap();
        let with_link = take_syn(far.as_fd()).unwrap();
        assert_eq!(with_link.len(), 14 + syn.len(), "loopback has Ethernet headers");
        assert_eq!((with_link[14] >> 4, with_link[14 + 8]), (4, 64), "{with_link:02x?}");
    }

    #[test]
    fn the_other_options_are_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_bind_address_no_port(listener.as_fd()).unwrap();
        set_not_sent_low_water(listener.as_fd(), 65_536).unwrap();
    }
}
