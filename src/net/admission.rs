//! Checks of an accepted connection's SYN, before the connection is given to a peer's task.
//!
//! The kernel checks keys and TTLs according to the socket options at the time of the packet, which
//! may have been older ones. So the SYN is checked again: whether it was signed, with what TTL it
//! arrived, and at which local address.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;

use bgp_proto::session::PeerConfig;
use bgp_proto::types::off_interface;
use nix::sys::socket::{LinkAddr, SockaddrStorage};
use rustix::net::netdevice::name_to_index;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::signature_drops::Signing;
use super::{dial, sockopt};

/// Why an incoming connection was refused, or closed without a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No peer is configured at the address, and no range covers it.
    Stranger,
    /// The peer has a password or a key chain, and the connection was not signed accordingly.
    Unsigned,
    /// It crossed more routers than `ttl-security` allows.
    TooFar,
    /// The peer has a `source-address`, and the connection is to another local address.
    OtherAddress,
    /// The peer has a `bind-interface`, and the connection came over another interface.
    OtherInterface,
    /// The peer in a VRF has a `bind-interface`, and margay may not bind the connection to it.
    NotPermitted,
    /// A signature or `ttl-security` must be checked, and the kernel did not keep the SYN.
    Unknown,
    /// Too many connections from the address are already waiting.
    QueueFull,
    /// Too many connections from ranges are already waiting.
    RangeBusy,
    /// The range has reached its `peers-max`.
    RangeFull,
    /// The remaining file descriptors are reserved for operators and probes.
    Descriptors,
    /// An operator has shut the dynamic peer down.
    ShutDown,
}

impl Refusal {
    /// All variants, in the order of their discriminants.
    pub const ALL: [Refusal; 12] = [
        Refusal::Stranger,
        Refusal::Unsigned,
        Refusal::TooFar,
        Refusal::OtherAddress,
        Refusal::OtherInterface,
        Refusal::NotPermitted,
        Refusal::Unknown,
        Refusal::QueueFull,
        Refusal::RangeBusy,
        Refusal::RangeFull,
        Refusal::Descriptors,
        Refusal::ShutDown,
    ];

    /// The label value in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Stranger => "no-peer",
            Refusal::Unsigned => "unsigned",
            Refusal::TooFar => "ttl",
            Refusal::OtherAddress => "local-address",
            Refusal::OtherInterface => "interface",
            Refusal::NotPermitted => "not-permitted",
            Refusal::Unknown => "syn-unknown",
            Refusal::QueueFull => "too-many",
            Refusal::RangeBusy => "range-busy",
            Refusal::RangeFull => "peers-max",
            Refusal::Descriptors => "descriptors",
            Refusal::ShutDown => "shut-down",
        }
    }

    /// The text for the log, after "connection from … refused: ".
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Stranger => "no peer is configured at this address",
            Refusal::Unsigned => {
                "it is not signed as the peer's password (TCP MD5) or tcp-ao (TCP-AO) asks"
            }
            Refusal::TooFar => "its TTL is too small for ttl-security",
            Refusal::OtherAddress => "it is to another address than the peer's source-address",
            Refusal::OtherInterface => {
                "it came over another interface than the peer's bind-interface"
            }
            Refusal::NotPermitted => {
                "it cannot be bound to the peer's bind-interface in a VRF; give margay CAP_NET_RAW"
            }
            Refusal::Unknown => {
                "its SYN was not kept, so that the peer's password, tcp-ao or ttl-security cannot be \
                 checked (SYN cookies?)"
            }
            Refusal::QueueFull => "earlier connections from this address are still waiting",
            Refusal::RangeBusy => "too many new dynamic peers at once",
            Refusal::RangeFull => "the range has all its peers (peers-max)",
            Refusal::Descriptors => {
                "no file descriptors are left beside those for operators; raise the limit \
                 (ulimit -n, LimitNOFILE=)"
            }
            Refusal::ShutDown => "an operator has shut the peer down (margay peer start)",
        }
    }
}

/// Checks a connection that the peer of `config` may have opened. May be called only once per
/// connection, because the saved SYN can be read only once.
///
/// # Errors
/// The reason for which it must be refused.
pub(super) fn examine(stream: &TcpStream, config: &PeerConfig) -> Result<(), Refusal> {
    let octets = sockopt::take_syn(stream.as_fd()).unwrap_or_default();
    let (link, headers) = after_link(&octets);
    if let Some(device) = &config.bind_interface {
        hold_to(stream, device, link, config)?;
    }
    let local = stream.local_addr().map(|local| canonical(local).ip()).ok();
    judge(Syn::parse(headers), local, config)
}

/// Binds a connection to the peer's `bind-interface`, and refuses it if it came over another one.
///
/// In a VRF the kernel does not keep the interface of an IPv4 connection. There, the address to which
/// the link's header of the SYN is sent says which interfaces of the VRF it may be. Where several have that
/// address, or the link has none, being bound has to do: what comes over another interface no longer
/// reaches the socket, so that nothing we send is acknowledged.
///
/// The kernel has bound the connection to the VRF's device, as the listening socket is, and asks for
/// CAP_NET_RAW to change that. Where it did keep the interface, nothing has to be changed.
fn hold_to(
    stream: &TcpStream,
    device: &str,
    link: Option<Mac>,
    config: &PeerConfig,
) -> Result<(), Refusal> {
    let index = |name: &str| name_to_index(stream, name).ok();
    let arrived = sockopt::arrival_interface(stream.as_fd(), config.address).ok().flatten();
    let vrf = config.vrf.as_deref().and_then(index);
    let wanted = index(device);
    let is_unknown = arrived.is_none_or(|over| Some(over) == vrf);
    let is_other = if !is_unknown {
        arrived != wanted
    } else if let Some((vrf, to)) = config.vrf.as_deref().zip(link) {
        is_others(&with_address(to), device, |owner| is_slave(owner, vrf))
    } else {
        false
    };
    if is_other {
        return Err(Refusal::OtherInterface);
    }
    let bound = SockRef::from(stream).bind_device(Some(device.as_bytes()));
    let is_over_it = arrived.is_some() && arrived == wanted;
    bound.or_else(|error| unbound(&error, is_over_it))
}

/// An Ethernet address.
type Mac = [u8; 6];

/// The interfaces that have this address.
fn with_address(mac: Mac) -> Vec<String> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter(|entry| {
        let link = entry.address.as_ref().and_then(SockaddrStorage::as_link_addr);
        link.and_then(LinkAddr::addr) == Some(mac)
    })
    .map(|entry| entry.interface_name)
    .collect()
}

/// Whether a frame to the interfaces of `owners` came over another one than `device`. Only those that
/// `may_be` says are asked: the kernel makes up a header with the address of the VRF's device for a packet
/// that had none, and the members of a bond have the bond's address. Not if nobody is known to have the
/// address, as with one that a virtual router shares.
fn is_others(owners: &[String], device: &str, may_be: impl Fn(&str) -> bool) -> bool {
    let mut owners = owners.iter().filter(|owner| *owner == device || may_be(owner)).peekable();
    owners.peek().is_some() && owners.all(|owner| owner != device)
}

/// Whether the interface is itself in the VRF, and not only through a bond or a bridge. Not where sysfs
/// cannot be read.
fn is_slave(interface: &str, vrf: &str) -> bool {
    let master = std::fs::read_link(Path::new("/sys/class/net").join(interface).join("master"));
    master.is_ok_and(|master| master.file_name() == Some(OsStr::new(vrf)))
}

/// What becomes of a connection that cannot be bound to the peer's `bind-interface`.
fn unbound(error: &io::Error, is_over_it: bool) -> Result<(), Refusal> {
    match error.kind() {
        ErrorKind::PermissionDenied if is_over_it => Ok(()),
        ErrorKind::PermissionDenied => Err(Refusal::NotPermitted),
        _ => Err(Refusal::OtherInterface),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn judge(syn: Option<Syn>, local: Option<IpAddr>, config: &PeerConfig) -> Result<(), Refusal> {
    // Of several link-local addresses on the interface, the neighbour may have learned another.
    let expected = config.source_address.filter(|own| off_interface(*own).1.is_none());
    if expected.is_some_and(|expected| local != Some(expected)) {
        return Err(Refusal::OtherAddress);
    }
    let min_ttl = dial::min_ttl(config);
    let wanted = Signing::of(&config.security);
    if min_ttl.is_none() && wanted == Signing::No {
        return Ok(());
    }
    let syn = syn.ok_or(Refusal::Unknown)?;
    if wanted != Signing::No && syn.signing != wanted {
        return Err(Refusal::Unsigned);
    }
    if min_ttl.is_some_and(|min| syn.ttl < min) {
        return Err(Refusal::TooFar);
    }
    Ok(())
}

/// The properties of a connection's SYN that identify its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Syn {
    /// TTL or hop limit on arrival.
    ttl: u8,
    /// How it was signed. The kernel drops segments whose signature is wrong, or for which it has no
    /// key.
    signing: Signing,
}

/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// Longest header of a link that is looked for, in octets.
const LINK_MAX: usize = 64;

/// Takes the link's header off a saved SYN, if there is one: the address that it is sent to, and the
/// other headers. The kernel does not say how long it is (18 octets with a VLAN tag, 24 of a GRE tunnel):
/// the headers of a SYN begin where they reach from the first octet to the last. Only one of Ethernet is
/// known to begin with an address. The usual lengths come first, as octets of a header may look like
/// another one.
fn after_link(octets: &[u8]) -> (Option<Mac>, &[u8]) {
    for link_len in [0, ETHERNET_LEN].into_iter().chain(1..=LINK_MAX) {
        let Some(headers) = octets.get(link_len..) else { continue };
        if Syn::parse_len(headers).is_some_and(|(_, len)| len == headers.len()) {
            let mac = octets.first_chunk().filter(|_| link_len == ETHERNET_LEN);
            return (mac.copied(), headers);
        }
    }
    (None, octets)
}

/// IP protocol numbers.
const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
/// TCP option kinds.
const OPTION_END: u8 = 0;
const OPTION_PAD: u8 = 1;
const OPTION_MD5: u8 = 19;
const OPTION_AO: u8 = 29;

impl Syn {
    /// Parses the network and TCP headers; `None` if they are malformed.
    fn parse(octets: &[u8]) -> Option<Syn> {
        Syn::parse_len(octets).map(|(syn, _)| syn)
    }

    /// As [`Syn::parse`], with the length of both headers.
    fn parse_len(octets: &[u8]) -> Option<(Syn, usize)> {
        let (ttl, tcp) = match octets.first()? >> 4 {
            4 => {
                let len = usize::from(octets.first()? & 0x0f) * 4;
                (*octets.get(8)?, octets.get(len..).filter(|_| octets.get(9) == Some(&TCP))?)
            }
            6 => (*octets.get(7)?, after_extensions(*octets.get(6)?, octets.get(40..)?)?),
            _ => return None,
        };
        let len = usize::from(tcp.get(12)? >> 4) * 4;
        let options = tcp.get(20..len)?;
        // No segment may have both (RFC 5925 §2.2).
        let signing = if has_option(options, OPTION_MD5) {
            Signing::Md5
        } else if has_option(options, OPTION_AO) {
            Signing::Ao
        } else {
            Signing::No
        };
        Some((Syn { ttl, signing }, octets.len() - tcp.len() + len))
    }
}

/// Skips the extension headers that a TCP packet may have (RFC 8200 §4).
fn after_extensions(mut kind: u8, mut octets: &[u8]) -> Option<&[u8]> {
    while matches!(kind, HOP_BY_HOP | ROUTING | DESTINATION) {
        let len = (usize::from(*octets.get(1)?) + 1) * 8;
        (kind, octets) = (*octets.first()?, octets.get(len..)?);
    }
    (kind == TCP).then_some(octets)
}

fn has_option(mut options: &[u8], wanted: u8) -> bool {
    while let Some((kind, rest)) = options.split_first() {
        match *kind {
            OPTION_END => return false,
            OPTION_PAD => options = rest,
            kind if kind == wanted => return true,
            _ => {
                let len = usize::from(rest.first().copied().unwrap_or(0)).max(2);
                options = options.get(len..).unwrap_or_default();
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use bgp_proto::session::{AuthKey, LocalIdentity};
    use bgp_proto::types::{Asn, RouterId};
    use proptest::prelude::*;

    use super::*;

    fn tcp(options: &[u8]) -> Vec<u8> {
        assert!(options.len().is_multiple_of(4));
        let mut header = vec![0; 20];
        header[12] = (((20 + options.len()) / 4) << 4) as u8;
        header.extend(options);
        header
    }

    fn ipv4(ttl: u8, tcp: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 24];
        (header[0], header[8], header[9]) = (0x46, ttl, TCP);
        header.extend(tcp);
        header
    }

    fn ipv6(hop_limit: u8, extensions: &[u8], tcp: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 40];
        header[0] = 0x60;
        header[6] = if extensions.is_empty() { TCP } else { HOP_BY_HOP };
        header[7] = hop_limit;
        header.extend(extensions);
        header.extend(tcp);
        header
    }

    #[test]
    fn ttl_and_signature_are_read_from_both_families() {
        let md5 = [2, 4, 5, 0xb4, 1, 1, 19, 18, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];
        let plain = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 19, 0, 0, 0, 19, 1, 3, 3, 7];
        let ao = [2, 4, 5, 0xb4, 29, 16, 1, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];
        let (signed, unsigned) = (tcp(&md5), tcp(&plain));
        let syn = |ttl, signing| Some(Syn { ttl, signing });
        assert_eq!(Syn::parse(&ipv4(254, &signed)), syn(254, Signing::Md5));
        assert_eq!(Syn::parse(&ipv4(254, &tcp(&ao))), syn(254, Signing::Ao));
        assert_eq!(Syn::parse(&ipv4(64, &unsigned)), syn(64, Signing::No));
        assert_eq!(Syn::parse(&ipv6(255, &[], &signed)), syn(255, Signing::Md5));
        let extensions = [DESTINATION, 0, 0, 0, 0, 0, 0, 0, TCP, 1, 0, 0, 0, 0, 0, 0];
        let extensions = [&extensions[..], &[0; 8]].concat();
        assert_eq!(Syn::parse(&ipv6(255, &extensions, &unsigned)), syn(255, Signing::No));
        // Nothing after the end of the options counts.
        assert_eq!(Syn::parse(&ipv4(1, &tcp(&[0, 19, 18, 0]))), syn(1, Signing::No));
        assert_eq!(Syn::parse(&[]), None);
        assert_eq!(Syn::parse(&ipv4(64, &[])), None);
    }

    #[test]
    fn the_header_of_the_link_is_taken_off_where_there_is_one() {
        let header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let extensions = [TCP, 0, 0, 0, 0, 0, 0, 0];
        for syn in [ipv4(64, &tcp(&[1, 1, 1, 1])), ipv6(64, &extensions, &tcp(&[]))] {
            assert_eq!(after_link(&syn), (None, &syn[..]));
            let framed = [&header[..], &syn].concat();
            assert_eq!(after_link(&framed), (Some([2, 0, 0, 0, 0, 1]), &syn[..]));
        }
        // One that looks like the first octet of an IPv4 or IPv6 header.
        for first in [0x45, 0x46, 0x60] {
            let syn = ipv4(255, &tcp(&[]));
            let framed = [&[first][..], &header[1..], &syn].concat();
            assert_eq!(after_link(&framed).1, syn);
        }
        // With a VLAN tag, and of a GRE tunnel.
        let tagged = [&header[..12], &[0x81, 0, 0x60, 9, 8, 0]].concat();
        let mut tunnel = ipv4(64, &[0, 0, 8, 0]);
        (tunnel[0], tunnel[9]) = (0x45, 47);
        tunnel.drain(20..24);
        assert_eq!((tagged.len(), tunnel.len()), (18, 24));
        for link in [tagged, tunnel] {
            for syn in [ipv4(255, &tcp(&[1, 1, 1, 1])), ipv6(255, &extensions, &tcp(&[]))] {
                let framed = [&link[..], &syn].concat();
                assert_eq!(after_link(&framed), (None, &syn[..]), "{} octets", link.len());
            }
        }
        assert_eq!(after_link(&[]), (None, &[][..]));
    }

    #[test]
    fn a_frame_to_another_interface_is_known_by_its_address() {
        let owners =
            |names: &[&str]| names.iter().map(|name| String::from(*name)).collect::<Vec<_>>();
        // Slaves of the VRF; neither its device nor the members of a bond.
        let is_others = |owners: &[String], device: &str| {
            is_others(owners, device, |owner| ["eth0", "eth0.10", "eth1", "bond0"].contains(&owner))
        };
        assert!(is_others(&owners(&["eth1"]), "eth0"));
        assert!(is_others(&owners(&["bond0", "eth2", "eth3"]), "eth0"));
        assert!(!is_others(&owners(&["eth0", "eth0.10"]), "eth0"), "VLANs share an address");
        assert!(!is_others(&[], "eth0"));
        assert!(!is_others(&owners(&["red"]), "eth0"), "the VRF's device");
        assert!(!is_others(&owners(&["eth2", "eth3"]), "eth0"), "members of a bond");
        assert!(!is_slave("lo", "red"));
    }

    #[test]
    fn a_connection_that_must_be_checked_and_cannot_be_is_refused() {
        let local = LocalIdentity { asn: Asn(64512), router_id: RouterId(1) };
        let plain = PeerConfig::new("192.0.2.1".parse().unwrap(), Asn(65001), &local);
        let ours: IpAddr = "192.0.2.9".parse().unwrap();
        let mut keyed = plain.clone();
        keyed.security.md5 = AuthKey::new("secret");
        let mut gtsm = plain.clone();
        gtsm.security.ttl_security_hops = Some(2);
        let bound = PeerConfig { source_address: Some(ours), ..plain.clone() };
        let mut chained = plain.clone();
        chained.security.ao = Some(crate::net::testing::key_chain());
        let syn = |ttl, signing| Some(Syn { ttl, signing });
        let (none, md5, ao) = (Signing::No, Signing::Md5, Signing::Ao);
        let cases = [
            (&plain, None, Ok(())),
            (&keyed, syn(1, md5), Ok(())),
            (&keyed, syn(255, none), Err(Refusal::Unsigned)),
            (&keyed, syn(255, ao), Err(Refusal::Unsigned)),
            (&keyed, None, Err(Refusal::Unknown)),
            (&chained, syn(1, ao), Ok(())),
            (&chained, syn(1, md5), Err(Refusal::Unsigned)),
            (&chained, syn(1, none), Err(Refusal::Unsigned)),
            (&chained, None, Err(Refusal::Unknown)),
            (&gtsm, syn(255, none), Ok(())),
            (&gtsm, syn(254, none), Ok(())),
            (&gtsm, syn(253, md5), Err(Refusal::TooFar)),
            (&gtsm, None, Err(Refusal::Unknown)),
            (&bound, None, Ok(())),
        ];
        for (config, syn, verdict) in cases {
            assert_eq!(judge(syn, Some(ours), config), verdict, "{syn:?} {config:?}");
        }
        let other = Some("192.0.2.10".parse().unwrap());
        assert_eq!(judge(None, other, &bound), Err(Refusal::OtherAddress));
        assert_eq!(judge(None, other, &plain), Ok(()));
    }

    #[test]
    fn a_connection_that_may_not_be_bound_is_refused_unless_its_interface_is_known() {
        let not_permitted = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(unbound(&not_permitted, true), Ok(()));
        assert_eq!(unbound(&not_permitted, false), Err(Refusal::NotPermitted));
        let gone = io::Error::from_raw_os_error(libc::ENODEV);
        assert_eq!(unbound(&gone, true), Err(Refusal::OtherInterface));
    }

    #[test]
    fn all_lists_refusals_in_the_order_of_their_discriminants() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..256)) {
            Syn::parse(&octets);
            after_link(&octets);
        }
    }
}
