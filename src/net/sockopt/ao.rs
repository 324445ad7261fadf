//! TCP-AO (RFC 5925), as Linux offers it since 6.7 with CONFIG_TCP_AO.
//!
//! The structures are those of `linux/tcp.h`. They have no padding, and bit fields begin at the least
//! significant bit, as on every target of ours.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use bgp_proto::session::{AuthKey, ChainKey, TcpOptions};
use bgp_proto::types::Prefix;
use libc::c_int;

use super::{get, get_ao_keys, set};

const TCP_AO_ADD_KEY: c_int = 38;
const TCP_AO_DEL_KEY: c_int = 39;
const TCP_AO_INFO: c_int = 40;
pub(super) const TCP_AO_GET_KEYS: c_int = 41;
const TCP_AO_KEYF_EXCLUDE_OPT: u8 = 1 << 1;
/// Octets of a message authentication code (RFC 5926 §3.2).
pub(in crate::net) const AO_MAC_LEN: u8 = 12;
/// Bits of `tcp_ao_add`, `tcp_ao_del` and `tcp_ao_info_opt`.
const SET_CURRENT: u32 = 1;
const SET_RNEXT: u32 = 1 << 1;
const DELETE_LATER: u32 = 1 << 2;
/// Bits of `tcp_ao_getsockopt`.
const IS_CURRENT: u16 = 1;
const IS_RNEXT: u16 = 1 << 1;
const GET_ALL: u16 = 1 << 2;

/// `struct sockaddr_storage` with a port of zero, which the kernel requires.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Address([u8; 128]);

impl Address {
    const NONE: Address = Address([0; 128]);

    fn of(address: IpAddr) -> Address {
        let mut octets = [0; 128];
        let mut put = |at: usize, from: &[u8]| {
            octets.iter_mut().skip(at).zip(from).for_each(|(to, from)| *to = *from);
        };
        match address {
            IpAddr::V4(address) => {
                put(0, &family(libc::AF_INET));
                put(4, &address.octets());
            }
            IpAddr::V6(address) => {
                put(0, &family(libc::AF_INET6));
                put(8, &address.octets());
            }
        }
        Address(octets)
    }

    fn ip(&self) -> Option<IpAddr> {
        let kind: [u8; 2] = self.0.first_chunk().copied()?;
        if kind == family(libc::AF_INET) {
            let octets: [u8; 4] = self.0.get(4..)?.first_chunk().copied()?;
            return Some(Ipv4Addr::from(octets).into());
        }
        let octets: [u8; 16] = self.0.get(8..)?.first_chunk().copied()?;
        (kind == family(libc::AF_INET6)).then(|| Ipv6Addr::from(octets).into())
    }
}

/// A family as the first octets of an address.
fn family(family: c_int) -> [u8; 2] {
    u16::try_from(family).expect("families are small numbers").to_ne_bytes()
}

/// `struct tcp_ao_add`.
#[repr(C)]
struct TcpAoAdd {
    address: Address,
    algorithm: [u8; 64],
    ifindex: i32,
    bits: u32,
    reserved: u16,
    prefix_len: u8,
    send_id: u8,
    receive_id: u8,
    mac_len: u8,
    flags: u8,
    key_len: u8,
    key: [u8; AuthKey::MAX_LEN],
}

/// `struct tcp_ao_del`.
#[repr(C)]
struct TcpAoDel {
    address: Address,
    ifindex: i32,
    bits: u32,
    reserved: u16,
    prefix_len: u8,
    send_id: u8,
    receive_id: u8,
    current: u8,
    rnext: u8,
    flags: u8,
}

/// `struct tcp_ao_info_opt`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct TcpAoInfo {
    bits: u32,
    reserved: u16,
    current: u8,
    rnext: u8,
    good: u64,
    bad: u64,
    key_not_found: u64,
    unsigned: u64,
    dropped_icmp: u64,
}

/// `struct tcp_ao_getsockopt`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct TcpAoGet {
    address: Address,
    algorithm: [u8; 64],
    key: [u8; AuthKey::MAX_LEN],
    /// In: the number of elements of the array. Out: the number of keys.
    pub(super) keys: u32,
    bits: u16,
    send_id: u8,
    receive_id: u8,
    prefix_len: u8,
    mac_len: u8,
    flags: u8,
    key_len: u8,
    ifindex: i32,
    good: u64,
    bad: u64,
}

const _: () = assert!(size_of::<TcpAoAdd>() == 288, "struct tcp_ao_add is 288 octets");
const _: () = assert!(size_of::<TcpAoDel>() == 144, "struct tcp_ao_del is 144 octets");
const _: () = assert!(size_of::<TcpAoInfo>() == 48, "struct tcp_ao_info_opt is 48 octets");
const _: () = assert!(size_of::<TcpAoGet>() == 304, "struct tcp_ao_getsockopt is 304 octets");

impl TcpAoGet {
    const EMPTY: TcpAoGet = TcpAoGet {
        address: Address::NONE,
        algorithm: [0; 64],
        key: [0; AuthKey::MAX_LEN],
        keys: 0,
        bits: 0,
        send_id: 0,
        receive_id: 0,
        prefix_len: 0,
        mac_len: 0,
        flags: 0,
        key_len: 0,
        ifindex: 0,
        good: 0,
        bad: 0,
    };

    fn held(&self) -> Option<HeldAoKey> {
        Some(HeldAoKey {
            peers: Prefix::new(self.address.ip()?, self.prefix_len),
            ids: AoIds { send: self.send_id, receive: self.receive_id },
            is_current: self.bits & IS_CURRENT != 0,
            is_rnext: self.bits & IS_RNEXT != 0,
            good: self.good,
            bad: self.bad,
        })
    }
}

/// The KeyIDs of a key, which are unique on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AoIds {
    /// KeyID of what we sign with it.
    pub send: u8,
    /// KeyID of what the neighbour signs with it.
    pub receive: u8,
}

impl AoIds {
    pub(in crate::net) fn of(key: &ChainKey) -> AoIds {
        AoIds { send: key.send_id, receive: key.receive_id }
    }
}

/// What a key that is added is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum AoUse {
    /// It is held.
    Held,
    /// Segments are signed with it, and the neighbour is asked for it. Not on a listener.
    Selected,
}

/// How a key is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum AoDelete {
    /// It is gone when the call returns.
    AtOnce,
    /// Without waiting until no packet uses it: on listening sockets only.
    Later,
}

/// Adds a key for connections with `peers`. On a listener it is for new connections; on a dialling socket
/// the first key must be added before `connect`.
///
/// # Errors
/// `ENOPROTOOPT`: the kernel has no TCP-AO. `EEXIST`: a key for an address in `peers` has one of its ids.
/// `EKEYREJECTED`: such an address has a TCP MD5 key. `ENOENT`, `EINVAL`: the kernel lacks the algorithm.
/// `EISCONN`: the connection does not use TCP-AO.
pub(in crate::net) fn add_ao_key(
    socket: BorrowedFd<'_>,
    peers: Prefix,
    key: &ChainKey,
    what_for: AoUse,
) -> io::Result<()> {
    let secret = key.secret.octets();
    let mut add = TcpAoAdd {
        address: Address::of(peers.addr()),
        algorithm: [0; 64],
        ifindex: 0,
        bits: match what_for {
            AoUse::Held => 0,
            AoUse::Selected => SET_CURRENT | SET_RNEXT,
        },
        reserved: 0,
        prefix_len: peers.len(),
        send_id: key.send_id,
        receive_id: key.receive_id,
        mac_len: AO_MAC_LEN,
        flags: match key.tcp_options {
            TcpOptions::Covered => 0,
            TcpOptions::Excluded => TCP_AO_KEYF_EXCLUDE_OPT,
        },
        key_len: u8::try_from(secret.len()).map_err(io::Error::other)?,
        key: [0; AuthKey::MAX_LEN],
    };
    let name = key.algorithm.as_bytes();
    // The kernel needs a zero behind the name.
    if name.len() >= add.algorithm.len() || secret.len() > add.key.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    add.algorithm.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    add.key.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
    set(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &add)
}

/// Deletes a key that was added for exactly `peers`. Deleting a key that does not exist is not an error.
///
/// # Errors
/// `EBUSY`: it is selected.
pub(in crate::net) fn delete_ao_key(
    socket: BorrowedFd<'_>,
    peers: Prefix,
    ids: AoIds,
    how: AoDelete,
) -> io::Result<()> {
    let delete = TcpAoDel {
        address: Address::of(peers.addr()),
        ifindex: 0,
        bits: match how {
            AoDelete::AtOnce => 0,
            AoDelete::Later => DELETE_LATER,
        },
        reserved: 0,
        prefix_len: peers.len(),
        send_id: ids.send,
        receive_id: ids.receive,
        current: 0,
        rnext: 0,
        flags: 0,
    };
    match set(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &delete) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Selects the key to sign with, by our KeyID, and the key to ask the neighbour for, by its KeyID; `None`
/// leaves it. Not on a listener.
pub(in crate::net) fn select_ao_keys(
    socket: BorrowedFd<'_>,
    current: Option<u8>,
    rnext: Option<u8>,
) -> io::Result<()> {
    let bit = |id: Option<u8>, bit| if id.is_some() { bit } else { 0 };
    let info = TcpAoInfo {
        bits: bit(current, SET_CURRENT) | bit(rnext, SET_RNEXT),
        current: current.unwrap_or_default(),
        rnext: rnext.unwrap_or_default(),
        ..TcpAoInfo::default()
    };
    set(socket, libc::IPPROTO_TCP, TCP_AO_INFO, &info)
}

/// Segments that a socket received, by the outcome of their check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AoCounters {
    /// The signature was right.
    pub good: u64,
    /// The signature was wrong: the secret or the algorithm differs.
    pub bad: u64,
    /// There was no key with their KeyID.
    pub key_not_found: u64,
    /// They were not signed.
    pub unsigned: u64,
    /// ICMP errors that were ignored (RFC 5925 §7.8).
    pub dropped_icmp: u64,
}

impl std::ops::AddAssign for AoCounters {
    fn add_assign(&mut self, more: AoCounters) {
        let AoCounters { good, bad, key_not_found, unsigned, dropped_icmp } = more;
        self.good += good;
        self.bad += bad;
        self.key_not_found += key_not_found;
        self.unsigned += unsigned;
        self.dropped_icmp += dropped_icmp;
    }
}

/// The counters of a socket.
///
/// # Errors
/// `ENOENT`: it does not use TCP-AO.
pub(in crate::net) fn ao_counters(socket: BorrowedFd<'_>) -> io::Result<AoCounters> {
    let mut info = TcpAoInfo::default();
    get(socket, libc::IPPROTO_TCP, TCP_AO_INFO, &mut info)?;
    let TcpAoInfo { good, bad, key_not_found, unsigned, dropped_icmp, .. } = info;
    Ok(AoCounters { good, bad, key_not_found, unsigned, dropped_icmp })
}

/// A key that the kernel holds for a socket, without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldAoKey {
    /// The addresses for which it was added.
    pub peers: Prefix,
    /// Its ids.
    pub ids: AoIds,
    /// Whether segments are signed with it.
    pub is_current: bool,
    /// Whether the neighbour is asked for it.
    pub is_rnext: bool,
    /// Segments with a right signature.
    pub good: u64,
    /// Segments with a wrong signature.
    pub bad: u64,
}

/// The keys of a connection, at most 256.
///
/// # Errors
/// `ENOENT`: it does not use TCP-AO.
pub(in crate::net) fn ao_keys(socket: BorrowedFd<'_>) -> io::Result<Vec<HeldAoKey>> {
    // Few are usual. There are no more ids than 256.
    let mut room = vec![TcpAoGet::EMPTY; 8];
    loop {
        let asked = TcpAoGet { bits: GET_ALL, ..TcpAoGet::EMPTY };
        room.fill(TcpAoGet::EMPTY);
        room.iter_mut().take(1).for_each(|first| *first = asked);
        let there = get_ao_keys(socket, &mut room)?;
        if there <= room.len() || room.len() > usize::from(u8::MAX) {
            return Ok(room.iter().take(there).filter_map(TcpAoGet::held).collect());
        }
        room = vec![TcpAoGet::EMPTY; 256];
    }
}

/// The key with these ids that was added to a socket for exactly `peers`, if there is one.
///
/// # Errors
/// `ENOENT`: the socket does not use TCP-AO.
pub(in crate::net) fn ao_key(
    socket: BorrowedFd<'_>,
    peers: Prefix,
    ids: AoIds,
) -> io::Result<Option<HeldAoKey>> {
    let mut room = [TcpAoGet {
        address: Address::of(peers.addr()),
        send_id: ids.send,
        receive_id: ids.receive,
        prefix_len: peers.len(),
        ..TcpAoGet::EMPTY
    }];
    let there = get_ao_keys(socket, &mut room)?;
    Ok(room.iter().take(there).find_map(TcpAoGet::held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_kernel_reads_it() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            let octets = Address::of(address);
            assert_eq!(octets.ip(), Some(address));
            let known = socket2::SockAddr::from(std::net::SocketAddr::new(address, 0));
            assert_eq!(known.as_socket().map(|a| a.ip()), octets.ip());
            assert_eq!(&octets.0[..2], &known.family().to_ne_bytes());
        }
        assert_eq!(Address::NONE.ip(), None);
    }
}
