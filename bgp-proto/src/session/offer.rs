//! What our OPEN offers: everything configured, or less to a peer that refused it.

use std::fmt;
use std::time::Duration;

use super::{BfdMode, PeerConfig};
use crate::types::{Family, FamilyMap, FamilySet, PeerType, Role};
use crate::wire::{
    AddPathMode, Capabilities, GracefulRestart, GracefulRestartFamily, LongLivedFamily,
};
use crate::wire::{Code, Notification, Open, cap};

/// What capability 64 says about ourselves (RFC 4724 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// We are not restarting: R = 0, and F = 1 because forwarding continues.
    #[default]
    Done,
    /// We have restarted and have not converged yet: R = 1.
    Recovering {
        /// Families whose kernel routes were found and kept: F = 1.
        preserved: FamilySet,
    },
}

impl Restart {
    /// Families for which forwarding continues: F = 1.
    fn preserved(self) -> FamilySet {
        match self {
            Restart::Done => FamilySet::ALL,
            Restart::Recovering { preserved } => preserved,
        }
    }
}

/// How much of what the configuration allows is offered to a peer (RFC 5492 §3). Kept across
/// reconnects; starting the peer resets it to [`Offer::Full`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    /// Everything that the configuration allows.
    #[default]
    Full,
    /// All but these capability codes, which the peer named in a 2/7. Sorted.
    Without(Vec<u8>),
    /// Multiprotocol and four-octet AS numbers only.
    Essential,
    /// No optional parameters at all.
    Bare,
}

impl Offer {
    /// What to try after the peer answered our OPEN with `refusal`; `None` if that does not refuse
    /// capabilities. Steps down to [`Offer::Bare`], then starts over.
    pub(super) fn after(&self, refusal: &Notification) -> Option<Offer> {
        let named: &[u8] = match refusal.code {
            Code::UNSUPPORTED_CAPABILITY => &refusal.data,
            Code::UNSUPPORTED_OPTIONAL_PARAMETER => &[],
            _ => return None,
        };
        let known = match self {
            Offer::Full => &[][..],
            Offer::Without(codes) => codes.as_slice(),
            Offer::Essential => return Some(Offer::Bare),
            Offer::Bare => return Some(Offer::Full),
        };
        let mut codes = known.to_vec();
        codes.extend(optional_codes(named));
        codes.sort_unstable();
        codes.dedup();
        Some(if codes.len() > known.len() { Offer::Without(codes) } else { Offer::Essential })
    }

    fn includes(&self, capability: u8) -> bool {
        match self {
            Offer::Full => true,
            Offer::Without(codes) => !codes.contains(&capability),
            Offer::Essential => {
                matches!(capability, cap::MULTIPROTOCOL | cap::FOUR_OCTET_AS)
            }
            Offer::Bare => false,
        }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Offer::Full => f.write_str("all capabilities"),
            Offer::Without(codes) => write!(f, "all capabilities but {codes:?}"),
            Offer::Essential => f.write_str("only multiprotocol and four-octet AS"),
            Offer::Bare => f.write_str("no capabilities"),
        }
    }
}

/// The capability codes in the data of a 2/7 that a session can do without.
fn optional_codes(mut tlvs: &[u8]) -> Vec<u8> {
    let mut codes = Vec::new();
    while let [code, len, rest @ ..] = tlvs {
        if !matches!(*code, cap::MULTIPROTOCOL | cap::FOUR_OCTET_AS) {
            codes.push(*code);
        }
        tlvs = rest.get(usize::from(*len)..).unwrap_or_default();
    }
    codes
}

/// Our OPEN, from the state at the time of the connection.
pub(super) fn build_open(config: &PeerConfig, offer: &Offer, restart: Restart) -> Open {
    Open {
        asn: config.local_asn,
        hold_time_secs: u16::try_from(config.hold_time.as_secs()).unwrap_or(u16::MAX),
        router_id: config.router_id,
        capabilities: build_capabilities(config, offer, restart),
    }
}

fn build_capabilities(config: &PeerConfig, offer: &Offer, restart: Restart) -> Capabilities {
    let families: &[Family] = &config.families.iter().collect::<Vec<_>>();
    let mut caps = Capabilities::default();
    if offer.includes(cap::MULTIPROTOCOL) {
        caps.multiprotocol = families.iter().map(|f| f.afi_safi()).collect();
    }
    caps.four_octet_as = offer.includes(cap::FOUR_OCTET_AS).then_some(config.local_asn);
    caps.route_refresh = offer.includes(cap::ROUTE_REFRESH);
    caps.enhanced_refresh = config.enhanced_refresh && offer.includes(cap::ENHANCED_REFRESH);
    caps.extended_message = config.extended_messages && offer.includes(cap::EXTENDED_MESSAGE);
    if config.extended_next_hop
        && config.families.contains(Family::Ipv4)
        && offer.includes(cap::EXTENDED_NEXT_HOP)
    {
        caps.extended_next_hop.push((Family::Ipv4.afi_safi(), Family::Ipv6.afi_safi().afi));
    }
    if offer.includes(cap::ADD_PATH) {
        caps.add_path = families
            .iter()
            .map(|f| (f.afi_safi(), config.add_path[*f]))
            .filter(|(_, mode)| *mode != AddPathMode::None)
            .collect();
    }
    if config.peer_type() == PeerType::External && offer.includes(cap::ROLE) {
        caps.role = config.role.map(Role::code);
    }
    caps.bfd_strict = config.bfd_mode == BfdMode::Strict && offer.includes(cap::BFD_STRICT);
    if let Some(time) = config.graceful_restart_time
        && offer.includes(cap::GRACEFUL_RESTART)
    {
        caps.graceful_restart = Some(build_graceful_restart(families, time.as_secs(), restart));
        // RFC 9494 §4.5: without capability 64 it would have no effect.
        caps.long_lived = config
            .long_lived_stale_time
            .filter(|_| offer.includes(cap::LONG_LIVED))
            .map(|times| build_long_lived(families, times, restart));
    }
    caps
}

fn build_graceful_restart(
    families: &[Family],
    time_secs: u64,
    restart: Restart,
) -> GracefulRestart {
    const RESTART_TIME_SECS_MAX: u64 = 4095;
    let restarting = restart != Restart::Done;
    let preserved = restart.preserved();
    GracefulRestart {
        restarting,
        notification: true,
        restart_time_secs: time_secs.min(RESTART_TIME_SECS_MAX) as u16,
        families: families
            .iter()
            .map(|f| GracefulRestartFamily {
                family: f.afi_safi(),
                forwarding: preserved.contains(*f),
            })
            .collect(),
    }
}

fn build_long_lived(
    families: &[Family],
    times: FamilyMap<Duration>,
    restart: Restart,
) -> Vec<LongLivedFamily> {
    let of_family = |family: &Family| LongLivedFamily {
        family: family.afi_safi(),
        forwarding: restart.preserved().contains(*family),
        stale_time_secs: u32::try_from(times[*family].as_secs())
            .map_or(LongLivedFamily::STALE_TIME_SECS_MAX, |secs| {
                secs.min(LongLivedFamily::STALE_TIME_SECS_MAX)
            }),
    };
    families.iter().map(of_family).collect()
}
