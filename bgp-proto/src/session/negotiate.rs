//! What a session may do: the result of our OPEN and the peer's.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{Close, Keep, PeerConfig, RoleMode};
use crate::types::{Asn, Family, FamilyMap, FamilySet, PeerType, Role, RouterId, off_interface};
use crate::wire::{AddPathMode, Capabilities, Code, EXTENDED_MAX_LEN, GracefulRestart, MAX_LEN};
use crate::wire::{LongLivedFamily, Notification, Open, UpdateContext, max_len_for};

/// The result of a negotiation; constant for the life of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's BGP Identifier.
    pub peer_router_id: RouterId,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// Our AS on this session.
    pub local_asn: Asn,
    /// iBGP or eBGP.
    pub peer_type: PeerType,
    /// Our address on the connection.
    pub local_addr: IpAddr,
    /// Our address of the other family on the same interface, if the host knows one: the next hop
    /// of routes that the session's own address cannot be the next hop of.
    pub other_addr: Option<IpAddr>,
    /// Our link-local address, if the host knows that the peer is on the same link: it is sent behind a global
    /// IPv6 next hop of ours (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
    /// The peer's address on the connection.
    pub remote_addr: IpAddr,
    /// Families that both offered.
    pub families: FamilySet,
    /// Four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Families on which we receive path identifiers.
    pub add_path_rx: FamilySet,
    /// Families on which we send path identifiers.
    pub add_path_tx: FamilySet,
    /// IPv4 may be sent with an IPv6 next hop (RFC 8950).
    pub ipv4_over_ipv6: bool,
    /// Longest UPDATE that we may send, in octets: 4096 or 65535.
    pub tx_max_len: usize,
    /// Longest UPDATE that we must accept, in octets: 4096 or 65535.
    pub rx_max_len: usize,
    /// The peer answers ROUTE-REFRESH requests.
    pub route_refresh: bool,
    /// Both sides support enhanced route refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// The smaller of both offers, in whole seconds: 0 or 3-65535 (RFC 4271 §4.2); zero turns both
    /// timers off.
    pub hold_time: Duration,
    /// Interval between KEEPALIVEs before jitter (RFC 4271 §4.4, §10).
    pub keepalive_time: Duration,
    /// eBGP: our role towards the peer (RFC 9234).
    pub role: Option<Role>,
    /// The peer's capability 64, if it sent one and we offered ours.
    pub graceful_restart: Option<GracefulRestart>,
    /// The peer's capability 71, if it sent one together with capability 64 (RFC 9494 §4.5) and we
    /// offered both; its times limited by [`PeerConfig::long_lived_stale_time_max`].
    pub long_lived: Option<Vec<LongLivedFamily>>,
    /// Everything that the peer offered, for display.
    pub peer_capabilities: Capabilities,
    /// Everything that we offered, for display.
    pub local_capabilities: Capabilities,
    /// The OPENs themselves, for monitoring (RFC 7854 §4.10); none if the session was not negotiated by a
    /// [`Peer`](super::Peer).
    pub opens: Option<Arc<Opens>>,
}

/// Both OPENs of a session, as they were sent, and the ports of its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opens {
    /// Ours, with its header.
    pub sent: Vec<u8>,
    /// The peer's, with its header.
    pub received: Vec<u8>,
    /// Our port and the peer's.
    pub ports: (u16, u16),
}

impl Negotiated {
    /// A session between two speakers, each given by its AS and its address, that agree on IPv4
    /// unicast, four-octet AS numbers and both kinds of route refresh, and on nothing else:
    /// messages of up to 4096 octets, hold time 90 s. The peer's BGP Identifier is its IPv4
    /// address, or 1 if its address is IPv6. For hosts that use a [`Table`](crate::table::Table)
    /// without a [`Peer`](super::Peer).
    pub fn plain(local: (Asn, IpAddr), peer: (Asn, IpAddr)) -> Self {
        let ((local_asn, local_addr), (peer_asn, remote_addr)) = (local, peer);
        let hold_time = Duration::from_secs(90);
        Negotiated {
            peer_router_id: match remote_addr {
                IpAddr::V4(addr) => RouterId(addr.to_bits()),
                IpAddr::V6(_) => RouterId(1),
            },
            peer_asn,
            local_asn,
            peer_type: PeerType::of(local_asn, peer_asn),
            local_addr,
            other_addr: None,
            link_local: None,
            remote_addr,
            families: FamilySet::only(Family::Ipv4),
            four_octet_as: true,
            add_path_rx: FamilySet::EMPTY,
            add_path_tx: FamilySet::EMPTY,
            ipv4_over_ipv6: false,
            tx_max_len: MAX_LEN,
            rx_max_len: MAX_LEN,
            route_refresh: true,
            enhanced_refresh: true,
            hold_time,
            keepalive_time: keepalive_time(None, hold_time),
            role: None,
            graceful_restart: None,
            long_lived: None,
            peer_capabilities: Capabilities::default(),
            local_capabilities: Capabilities::default(),
            opens: None,
        }
    }

    /// What parsing an UPDATE depends on: the result of the negotiation, and the configuration.
    pub fn update_context(&self, config: &PeerConfig) -> UpdateContext {
        UpdateContext {
            four_octet_as: self.four_octet_as,
            families: self.families,
            add_path: self.add_path_rx,
            ipv4_over_ipv6: self.ipv4_over_ipv6,
            peer_type: self.peer_type,
            peer_asn: self.peer_asn,
            enforce_first_as: config.enforce_first_as,
            reject_as_sets: config.reject_as_sets,
            interface: off_interface(self.remote_addr).1,
        }
    }

    /// What is kept if the connection is lost (RFC 4724 §4.2).
    pub fn keep_if_lost(&self) -> Option<Keep> {
        Close::Transport { text: String::new() }.keep(self)
    }

    /// How long the routes of each family are kept after the restart time (RFC 9494 §4.2); zero for
    /// families that the peer's capability 71 does not list.
    pub fn long_lived_stale_times(&self) -> FamilyMap<Duration> {
        let mut times = FamilyMap::default();
        for listed in self.long_lived.iter().flatten() {
            if let Ok(family) = Family::try_from(listed.family)
                && self.families.contains(family)
            {
                times[family] = Duration::from_secs(listed.stale_time_secs.into());
            }
        }
        times
    }

    /// Whether the peer sent capability 71 together with 64 (RFC 9494 §4.5), whatever we offered: it
    /// may be sent routes with LLGR_STALE (RFC 9494 §4.3).
    pub fn peer_knows_long_lived(&self) -> bool {
        let theirs = &self.peer_capabilities;
        theirs.long_lived.is_some() && theirs.graceful_restart.is_some()
    }

    /// Families whose routes are kept if the connection is lost (RFC 4724 §4.2).
    pub fn restart_families(&self) -> FamilySet {
        self.graceful_restart
            .iter()
            .flat_map(|gr| &gr.families)
            .filter_map(|f| Family::try_from(f.family).ok())
            .collect::<FamilySet>()
            .intersection(self.families)
    }
}

/// Checks the peer's OPEN against the configuration and our own offer (RFC 4271 §6.2), which is what
/// our OPEN said, and intersects the two. Errors: 2/2, 2/3, 2/7, 2/11.
pub(super) fn negotiate(
    config: &PeerConfig,
    (offered, offered_hold_time): (&Capabilities, Duration),
    open: &Open,
    local_addr: IpAddr,
    remote_addr: IpAddr,
) -> Result<Negotiated, Notification> {
    if !config.remote_asn.accepts(open.asn, config.local_asn) {
        return Err(Notification::new(Code::BAD_PEER_AS));
    }
    let peer_type = PeerType::of(config.local_asn, open.asn);
    if peer_type == PeerType::Internal && open.router_id == config.router_id {
        return Err(Notification::new(Code::BAD_BGP_IDENTIFIER));
    }
    let theirs = &open.capabilities;
    check_role(config, peer_type, theirs)?;
    let families = config.families.intersection(offered.families()).intersection(theirs.families());
    if families.is_empty() {
        return Err(Notification::with_data(
            Code::UNSUPPORTED_CAPABILITY,
            multiprotocol_tlvs(config.families),
        ));
    }
    let extended_both = offered.extended_message && theirs.extended_message;
    let hold_time = Duration::from_secs(open.hold_time_secs.into()).min(offered_hold_time);
    Ok(Negotiated {
        peer_router_id: open.router_id,
        peer_asn: open.asn,
        local_asn: config.local_asn,
        peer_type,
        local_addr,
        other_addr: None,
        link_local: None,
        remote_addr,
        families,
        four_octet_as: offered.four_octet_as.is_some() && theirs.four_octet_as.is_some(),
        add_path_rx: both(families, offered, theirs, receives, sends),
        add_path_tx: both(families, offered, theirs, sends, receives),
        ipv4_over_ipv6: offered.ipv4_over_ipv6() && theirs.ipv4_over_ipv6(),
        // Differs from RFC: 8654 §4 lets us send long messages without having offered to receive
        // them. One switch for both directions is what an operator expects.
        tx_max_len: max_len_for(extended_both),
        rx_max_len: if offered.extended_message { EXTENDED_MAX_LEN } else { MAX_LEN },
        route_refresh: offered.route_refresh && theirs.route_refresh,
        enhanced_refresh: offered.enhanced_refresh && theirs.enhanced_refresh,
        hold_time,
        keepalive_time: keepalive_time(config.keepalive_time, hold_time),
        role: config.role.filter(|_| peer_type == PeerType::External),
        graceful_restart: offered
            .graceful_restart
            .as_ref()
            .and_then(|_| theirs.graceful_restart.clone()),
        long_lived: theirs
            .long_lived
            .clone()
            .filter(|_| {
                offered.long_lived.is_some()
                    && offered.graceful_restart.is_some()
                    && theirs.graceful_restart.is_some()
            })
            .map(|families| limited(families, config.long_lived_stale_time_max)),
        peer_capabilities: theirs.clone(),
        local_capabilities: offered.clone(),
        opens: None,
    })
}

/// RFC 9494 §4.2 lets us shorten what the peer asks for.
fn limited(mut families: Vec<LongLivedFamily>, max: Option<Duration>) -> Vec<LongLivedFamily> {
    let max = max.and_then(|max| u32::try_from(max.as_secs()).ok()).unwrap_or(u32::MAX);
    for listed in &mut families {
        listed.stale_time_secs = listed.stale_time_secs.min(max);
    }
    families
}

/// RFC 9234 §4.2. If we have a role, one that the peer sends must be its counterpart.
fn check_role(
    config: &PeerConfig,
    peer_type: PeerType,
    theirs: &Capabilities,
) -> Result<(), Notification> {
    let ours = config.role.filter(|_| peer_type == PeerType::External);
    let fits = match (ours, theirs.role) {
        (None, _) => true,
        (Some(_), None) => config.role_mode == RoleMode::Lenient,
        (Some(ours), Some(theirs)) => ours.counterpart().code() == theirs,
    };
    if fits { Ok(()) } else { Err(Notification::new(Code::ROLE_MISMATCH)) }
}

/// A third of the hold time in whole seconds, at least one (RFC 4271 §4.4, §10); a configured
/// interval only shortens it. Zero if the hold time is.
fn keepalive_time(configured: Option<Duration>, hold_time: Duration) -> Duration {
    if hold_time.is_zero() {
        return Duration::ZERO;
    }
    let third = whole_seconds(hold_time / 3);
    configured.map_or(third, |time| time.min(third)).max(Duration::from_secs(1))
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

/// Families of which `ours` holds for our ADD-PATH mode and `peers` for the peer's.
fn both(
    families: FamilySet,
    offered: &Capabilities,
    theirs: &Capabilities,
    ours: fn(AddPathMode) -> bool,
    peers: fn(AddPathMode) -> bool,
) -> FamilySet {
    families
        .iter()
        .filter(|f| ours(offered.add_path_mode(*f)) && peers(theirs.add_path_mode(*f)))
        .collect()
}

fn receives(mode: AddPathMode) -> bool {
    matches!(mode, AddPathMode::Receive | AddPathMode::Both)
}

fn sends(mode: AddPathMode) -> bool {
    matches!(mode, AddPathMode::Send | AddPathMode::Both)
}

/// The capabilities that we require, encoded for the data of 2/7 (RFC 5492 §5).
fn multiprotocol_tlvs(families: FamilySet) -> Vec<u8> {
    let mut data = Vec::new();
    for family in families.iter() {
        let pair = family.afi_safi();
        data.extend([1, 4]);
        data.extend(pair.afi.to_be_bytes());
        data.extend([0, pair.safi]);
    }
    data
}
