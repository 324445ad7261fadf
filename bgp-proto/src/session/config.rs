//! What a session needs to know about its neighbour: validated, immutable, cheap to compare.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{Asn, FamilyMap, FamilySet, Role, RouterId};
use crate::wire::AddPathMode;

use super::auth_key::AuthKey;
use super::key_chain::KeyChain;

/// Our identity, the same for every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// Our AS, unless a peer overrides it.
    pub asn: Asn,
    /// Our BGP Identifier.
    pub router_id: RouterId,
}

/// Which side opens the TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassiveMode {
    /// We dial and accept.
    #[default]
    Active,
    /// We only accept.
    Passive,
    /// We dial once when we start, and only accept from then on: a neighbour that lost its session
    /// when our last run ended does not have to wait for its own retry timer.
    AtStart,
}

impl PassiveMode {
    /// Whether the neighbour has to connect, except at the start.
    #[must_use]
    pub fn is_passive(self) -> bool {
        self != PassiveMode::Active
    }
}

/// How the delay between attempts to connect develops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redial {
    /// It grows by half with every failure, up to eight times `connect_retry_time`.
    #[default]
    BackOff,
    /// 1 s, 2 s, then `connect_retry_time` for ever, which also bounds the attempt itself: for
    /// neighbours that must be reconnected promptly, however long they were down.
    Steady,
}

/// What the expiry of a neighbour's hold timer means, if graceful restart was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldExpiry {
    /// It may be restarting: with the N bit from both sides its routes are kept (RFC 8538 §4.1).
    #[default]
    Restart,
    /// It is dead, and its routes are withdrawn. Differs from RFC: 8538 offers no such choice.
    /// Without it, a node that lost power attracts traffic for the hold time plus the restart time.
    Death,
}

/// How a neighbour that sends no role is treated (RFC 9234 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleMode {
    /// Our own role alone applies.
    #[default]
    Lenient,
    /// The session is refused with 2/11.
    Strict,
}

/// The AS that a neighbour may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAsn {
    /// This one.
    Exactly(Asn),
    /// Any but ours.
    External,
    /// Any. Until its OPEN arrives, the neighbour counts as external.
    Any,
}

impl RemoteAsn {
    /// The AS, if only one is possible.
    pub fn exactly(self) -> Option<Asn> {
        match self {
            RemoteAsn::Exactly(asn) => Some(asn),
            RemoteAsn::External | RemoteAsn::Any => None,
        }
    }

    /// Whether a neighbour in `asn` is accepted on a session on which our AS is `ours`.
    pub fn accepts(self, asn: Asn, ours: Asn) -> bool {
        match self {
            RemoteAsn::Exactly(only) => asn == only,
            RemoteAsn::External => asn != ours,
            RemoteAsn::Any => true,
        }
    }
}

impl From<Asn> for RemoteAsn {
    fn from(asn: Asn) -> Self {
        RemoteAsn::Exactly(asn)
    }
}

impl std::fmt::Display for RemoteAsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RemoteAsn::Exactly(asn) => asn.fmt(f),
            RemoteAsn::External => f.write_str("external"),
            RemoteAsn::Any => f.write_str("any"),
        }
    }
}

/// What BGP does while the BFD session beside it is not up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BfdMode {
    /// It establishes its session all the same.
    #[default]
    Lenient,
    /// It offers capability 74, and stays in OpenConfirm until BFD is up
    /// (draft-ietf-idr-bgp-bfd-strict-mode).
    ///
    /// Differs from the draft: that holds also beside a neighbour that does not offer the capability. An
    /// operator who asks for it wants no routes over a path that BFD has not verified.
    Strict,
}

/// How the TCP connection is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportSecurity {
    /// TCP MD5 (RFC 2385). `None`, the default: segments are not signed with it.
    pub md5: Option<AuthKey>,
    /// TCP-AO (RFC 5925), without `md5`. `None`, the default: segments are not signed with it.
    pub ao: Option<Arc<KeyChain>>,
    /// GTSM (RFC 5082): packets must have crossed fewer than this many routers, 1-254: TTL ≥ 256 -
    /// hops. `None`, the default: not checked.
    pub ttl_security_hops: Option<u8>,
}

/// Session parameters of one neighbour. A change of any of them restarts the session, except for
/// timers ([`PeerConfig::differs_only_in_timers`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The neighbour's address; a link-local one as [`on_interface`](crate::types::on_interface)
    /// makes it.
    pub address: IpAddr,
    /// TCP port to dial. Default 179.
    pub port: u16,
    /// Address to dial from and to expect connections on. `None`, the default: the system chooses.
    pub source_address: Option<IpAddr>,
    /// The VRF (RFC 4364 §3) in which the session and its routes are. `None`: the default VRF.
    pub vrf: Option<Arc<str>>,
    /// The interface to which connections that we dial are bound. `None`, the default: the VRF's
    /// routing table chooses.
    pub bind_interface: Option<Arc<str>>,
    /// The AS that the neighbour may be in.
    pub remote_asn: RemoteAsn,
    /// Our AS on this session.
    pub local_asn: Asn,
    /// Our BGP Identifier on this session.
    pub router_id: RouterId,
    /// Which side opens the TCP connection. Default both.
    pub passive: PassiveMode,
    /// Families that we offer. Default: that of `address`.
    pub families: FamilySet,
    /// Hold time that we offer, in whole seconds: 0 or 3-65535. Default 90.
    pub hold_time: Duration,
    /// Keepalive interval, less than the hold time; `None`, the default: a third of the negotiated
    /// one.
    pub keepalive_time: Option<Duration>,
    /// Delay between attempts to connect, jittered. Default 5 s.
    pub connect_retry_time: Duration,
    /// How that delay develops.
    pub redial: Redial,
    /// Longest time without send progress (RFC 9687). `None`, the default: max(8 min, 2 × hold);
    /// zero: off.
    pub send_hold_time: Option<Duration>,
    /// MD5, TCP-AO and GTSM.
    pub security: TransportSecurity,
    /// ADD-PATH offer per family (RFC 7911). Default none.
    pub add_path: FamilyMap<AddPathMode>,
    /// Offer capability 64 with this restart time, 0-4095 s (RFC 4724); `None` leaves it out.
    /// Default 120 s.
    pub graceful_restart_time: Option<Duration>,
    /// Offer capability 71 with these long-lived stale times, 0-16,777,215 s per family (RFC 9494),
    /// if capability 64 is offered; `None`, the default, leaves it out.
    pub long_lived_stale_time: Option<FamilyMap<Duration>>,
    /// How long the neighbour's routes are long-lived stale at most, whatever its capability 71 asks
    /// for (RFC 9494 §4.2). `None`, the default: no limit of ours.
    pub long_lived_stale_time_max: Option<Duration>,
    /// What the expiry of the hold timer means for the neighbour's routes.
    pub hold_expiry: HoldExpiry,
    /// Offer Extended Messages (RFC 8654). Default true.
    pub extended_messages: bool,
    /// Offer IPv4 over IPv6 next hops (RFC 8950). Default false.
    pub extended_next_hop: bool,
    /// Offer and use enhanced route refresh (RFC 7313). Default true.
    pub enhanced_refresh: bool,
    /// eBGP: the first AS of a path must be the peer's. Default true.
    pub enforce_first_as: bool,
    /// Treat routes with an AS_SET as withdrawn (RFC 9774). Default true.
    pub reject_as_sets: bool,
    /// eBGP: our role towards the neighbour (RFC 9234); `None`, the default, leaves capability 9
    /// out.
    pub role: Option<Role>,
    /// With a role: how a neighbour that does not send its own is treated (RFC 9234 §4.2). Default
    /// lenient.
    pub role_mode: RoleMode,
    /// Whether the session waits for BFD. Default lenient.
    pub bfd_mode: BfdMode,
    /// Why the peer is kept idle although it is configured: we neither dial nor accept. `None`, the
    /// default: it is not kept idle.
    pub idle: Option<Arc<str>>,
    /// TTL to send with, 1-255. `None`, the default: 1 for eBGP, 64 for iBGP, 255 with GTSM.
    pub multihop_ttl: Option<u8>,
}

impl PeerConfig {
    /// A neighbour with every default: both sides dial, hold time 90 s, the family of `address`
    /// only.
    pub fn new(address: IpAddr, remote_asn: impl Into<RemoteAsn>, local: &LocalIdentity) -> Self {
        let family = match address {
            IpAddr::V4(_) => crate::types::Family::Ipv4,
            IpAddr::V6(_) => crate::types::Family::Ipv6,
        };
        PeerConfig {
            address,
            port: 179,
            source_address: None,
            vrf: None,
            bind_interface: None,
            remote_asn: remote_asn.into(),
            local_asn: local.asn,
            router_id: local.router_id,
            passive: PassiveMode::Active,
            families: FamilySet::only(family),
            hold_time: Duration::from_secs(90),
            keepalive_time: None,
            connect_retry_time: Duration::from_secs(5),
            redial: Redial::default(),
            send_hold_time: None,
            security: TransportSecurity::default(),
            add_path: FamilyMap::default(),
            graceful_restart_time: Some(Duration::from_secs(120)),
            long_lived_stale_time: None,
            long_lived_stale_time_max: None,
            hold_expiry: HoldExpiry::default(),
            extended_messages: true,
            extended_next_hop: false,
            enhanced_refresh: true,
            enforce_first_as: true,
            reject_as_sets: true,
            role: None,
            role_mode: RoleMode::Lenient,
            bfd_mode: BfdMode::Lenient,
            idle: None,
            multihop_ttl: None,
        }
    }

    /// The device to which the socket of a dialled connection is bound; `None`: to none. A VRF is
    /// the device of that name.
    pub fn device(&self) -> Option<&Arc<str>> {
        self.bind_interface.as_ref().or(self.vrf.as_ref())
    }

    /// Whether `other` differs, and in nothing but timers and keys of TCP-AO: hold time, keepalive interval, send hold
    /// time, retry time, restart time, long-lived stale times and their limit. They belong to the
    /// OPEN or to the wait for a connection, so that
    /// [`Peer::set_timers`](super::Peer::set_timers) can replace them without ending the session. Whether
    /// capabilities 64 and 71 are offered is no timer. Keys may come and go on a connection
    /// (RFC 5925 §3.1), unless an id would belong to another key ([`KeyChain::can_become`]).
    pub fn differs_only_in_timers(&self, other: &PeerConfig) -> bool {
        if self == other {
            return false;
        }
        let offers_alike = self.graceful_restart_time.is_some()
            == other.graceful_restart_time.is_some()
            && self.long_lived_stale_time.is_some() == other.long_lived_stale_time.is_some();
        let keys_fit = match (&self.security.ao, &other.security.ao) {
            (Some(ours), Some(theirs)) => ours.can_become(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        let ao = self.security.ao.clone();
        let with_our_timers = PeerConfig {
            security: TransportSecurity { ao, ..other.security.clone() },
            hold_time: self.hold_time,
            keepalive_time: self.keepalive_time,
            send_hold_time: self.send_hold_time,
            connect_retry_time: self.connect_retry_time,
            graceful_restart_time: self.graceful_restart_time,
            long_lived_stale_time: self.long_lived_stale_time,
            long_lived_stale_time_max: self.long_lived_stale_time_max,
            ..other.clone()
        };
        offers_alike && keys_fit && *self == with_our_timers
    }

    /// Longest time without send progress on a session with the hold time that we offer, which is
    /// the longest that can be negotiated (RFC 9687 §3.2); `None`: no limit.
    pub fn send_hold_time_max(&self) -> Option<Duration> {
        super::timers::send_hold_time(self.send_hold_time, self.hold_time)
    }

    /// Whether the neighbour is a router on a link of ours by all that is configured: one with a
    /// link-local address, or an external one without more hops in `multihop_ttl` or GTSM.
    pub fn is_single_hop(&self) -> bool {
        if matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local()) {
            return true;
        }
        self.peer_type() == crate::types::PeerType::External
            && self.multihop_ttl.is_none_or(|ttl| ttl <= 1)
            && self.security.ttl_security_hops.is_none_or(|hops| hops <= 1)
    }

    /// Internal if both AS numbers are the same; external as long as the neighbour's is not known.
    pub fn peer_type(&self) -> crate::types::PeerType {
        match self.remote_asn {
            RemoteAsn::Exactly(asn) => crate::types::PeerType::of(self.local_asn, asn),
            RemoteAsn::External | RemoteAsn::Any => crate::types::PeerType::External,
        }
    }
}
