//! One description of a speaker, and one set of queries, for all daemons.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail, ensure};

use crate::daemon::Daemon;
use crate::lab::Host;
use crate::wait::{PATIENCE, wait_until};

/// A daemon that tests can configure and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// margay itself.
    Margay,
    /// BIRD 2.
    Bird2,
    /// BIRD 1.6, one process per family: what Calico's nodes run.
    Bird16,
    /// FRR: zebra and bgpd.
    Frr,
    /// `GoBGP`.
    Gobgp,
    /// OpenBGPD.
    Openbgpd,
    /// ExaBGP.
    Exabgp,
}

impl Kind {
    /// The programs that must be installed.
    #[must_use]
    pub fn programs(self) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        match self {
            Self::Margay => Vec::new(),
            Self::Bird2 => own(&["bird", "birdc"]),
            Self::Bird16 => {
                ["bird", "bird6", "birdc"].iter().map(|p| crate::bird16::program(p)).collect()
            }
            Self::Frr => own(&["/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "vtysh"]),
            Self::Gobgp => own(&["gobgpd", "gobgp"]),
            Self::Openbgpd => own(&["/usr/sbin/bgpd", "bgpctl"]),
            Self::Exabgp => own(&["exabgp"]),
        }
    }

    /// Starts this kind of speaker on `host`.
    ///
    /// # Errors
    /// When the daemon refuses its configuration or cannot be started.
    pub fn start(self, host: &Host, config: &Config) -> Result<Box<dyn Speaker>> {
        Ok(match self {
            Self::Margay => Box::new(crate::margay::Margay::start(host, config)?),
            Self::Bird2 => Box::new(crate::bird2::Bird2::start(host, config)?),
            Self::Bird16 => Box::new(crate::bird16::Bird16::start(host, config)?),
            Self::Frr => Box::new(crate::frr::Frr::start(host, config)?),
            Self::Gobgp => Box::new(crate::gobgp::Gobgp::start(host, config)?),
            Self::Openbgpd => Box::new(crate::openbgpd::Openbgpd::start(host, config)?),
            Self::Exabgp => Box::new(crate::exabgp::Exabgp::start(host, config)?),
        })
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 unicast.
    V4,
    /// IPv6 unicast.
    V6,
}

impl Family {
    /// The family of a prefix or an address in text form.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text.contains(':') { Self::V6 } else { Self::V4 }
    }
}

/// The configuration of a speaker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its AS number.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// The TCP port it listens on.
    pub port: u16,
    /// Its neighbours.
    pub neighbors: Vec<Neighbor>,
    /// The routes that it announces.
    pub origins: Vec<Origin>,
}

/// One neighbour of a speaker, from the speaker's side.
#[derive(Debug, Clone)]
pub struct Neighbor {
    /// The neighbour's address.
    pub address: IpAddr,
    /// The speaker's address.
    pub local: IpAddr,
    /// The neighbour's AS number.
    pub asn: u32,
    /// The neighbour's TCP port.
    pub port: u16,
    /// The families to negotiate.
    pub families: Vec<Family>,
    /// The TCP MD5 key.
    pub password: Option<String>,
    /// GTSM for a neighbour one hop away.
    pub ttl_security: bool,
    /// ADD-PATH, receive and send, in all families.
    pub add_path: bool,
    /// Only accept connections.
    pub passive: bool,
    /// RFC 8950: IPv4 routes with an IPv6 next hop.
    pub extended_next_hop: bool,
    /// Graceful restart with forwarding state kept; without it the speaker only helps others.
    pub graceful_restart: bool,
    /// With graceful restart: a restart time of [`Neighbor::SHORT_RESTART`] instead of 30 s, and then
    /// long-lived graceful restart for this many seconds (RFC 9494). Only [`Kind::Margay`],
    /// [`Kind::Bird2`], [`Kind::Frr`] and [`Kind::Gobgp`] honour it.
    pub long_lived: Option<u32>,
    /// The neighbour is a client of this reflector.
    pub reflector_client: bool,
    /// Hold time in seconds.
    pub hold_time: u16,
    /// Announce only these prefixes; `None` announces all. Only [`Kind::Bird2`] honours it.
    pub only: Option<Vec<String>>,
    /// Prefix limit: more prefixes end the session. Only [`Kind::Margay`] and [`Kind::Bird2`]
    /// honour it.
    pub prefixes_max: Option<u32>,
}

impl Neighbor {
    /// The restart time of a neighbour with long-lived graceful restart, in seconds.
    pub const SHORT_RESTART: u16 = 2;

    /// The restart time to announce, in seconds.
    #[must_use]
    pub fn restart_time(&self) -> u16 {
        self.long_lived.map_or(30, |_| Self::SHORT_RESTART)
    }
}

/// A route that a speaker announces.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The prefix.
    pub prefix: String,
    /// Communities such as `65001:7`.
    pub communities: Vec<String>,
    /// Large communities such as `4200000001:1:2`.
    pub large_communities: Vec<String>,
}

impl Origin {
    /// A route without communities.
    #[must_use]
    pub fn plain(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), communities: Vec::new(), large_communities: Vec::new() }
    }

    /// A route with one community of each kind.
    #[must_use]
    pub fn tagged(prefix: &str, community: &str, large_community: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            communities: vec![community.to_owned()],
            large_communities: vec![large_community.to_owned()],
        }
    }

    /// The family of the prefix.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(&self.prefix)
    }
}

/// A path that a speaker has received from a BGP neighbour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    /// The BGP next hop.
    pub next_hop: Option<String>,
    /// The AS path, sequences only.
    pub as_path: Vec<u32>,
    /// Communities as `65001:7`.
    pub communities: Vec<String>,
    /// Large communities as `4200000001:1:2`.
    pub large_communities: Vec<String>,
}

/// The operations that tests need of a speaker.
pub trait Speaker: Debug {
    /// The process that speaks BGP.
    fn daemon(&mut self) -> &mut Daemon;

    /// The state of the session with `neighbor` in the daemon's own words.
    ///
    /// # Errors
    /// When the daemon does not answer or does not know the neighbour.
    fn state(&self, neighbor: IpAddr) -> Result<String>;

    /// Every path for exactly this prefix that was learned from a BGP neighbour.
    ///
    /// # Errors
    /// When the daemon does not answer.
    fn paths(&self, prefix: &str) -> Result<Vec<Path>>;

    /// Announces one more route.
    ///
    /// # Errors
    /// When the daemon refuses.
    fn announce(&mut self, origin: &Origin) -> Result<()>;

    /// Stops announcing a route.
    ///
    /// # Errors
    /// When the daemon refuses.
    fn withdraw(&mut self, prefix: &str) -> Result<()>;

    /// Restarts after [`Daemon::crash`], announcing that forwarding state was preserved (RFC 4724).
    ///
    /// # Errors
    /// When the daemon cannot be started, or has no such way to start.
    fn recover(&mut self) -> Result<()> {
        bail!("{self:?} cannot restart gracefully")
    }

    /// The number of UPDATEs (or routes in UPDATEs) received from the neighbour.
    ///
    /// # Errors
    /// When the daemon does not answer or does not count them.
    fn updates_received(&self, neighbor: IpAddr) -> Result<u64>;

    /// Sends a ROUTE-REFRESH to the neighbour.
    ///
    /// # Errors
    /// When the daemon refuses or has no such command.
    fn request_refresh(&self, neighbor: IpAddr) -> Result<()>;
}

/// Waits until the session is up.
///
/// # Errors
/// When it is not within [`PATIENCE`].
pub fn wait_established(speaker: &dyn Speaker, neighbor: IpAddr) -> Result<()> {
    wait_until(PATIENCE, &format!("a session with {neighbor}"), || {
        let state = speaker.state(neighbor)?;
        ensure!(state.eq_ignore_ascii_case("established"), "state is {state}");
        Ok(())
    })
}

/// Fails while the session is up.
///
/// # Errors
/// When it is up, or the speaker does not answer.
pub fn expect_down(speaker: &dyn Speaker, neighbor: IpAddr) -> Result<()> {
    let state = speaker.state(neighbor)?;
    ensure!(!state.eq_ignore_ascii_case("established"), "the session with {neighbor} is up");
    Ok(())
}

/// Waits until there are exactly `count` paths for the prefix.
///
/// # Errors
/// When there are not within [`PATIENCE`].
pub fn wait_paths(speaker: &dyn Speaker, prefix: &str, count: usize) -> Result<Vec<Path>> {
    wait_until(PATIENCE, &format!("{count} paths for {prefix}"), || {
        let paths = speaker.paths(prefix)?;
        if paths.len() != count {
            bail!("{} paths: {paths:?}", paths.len());
        }
        Ok(paths)
    })
}
