//! The cases that are run with the subject and every peer.
//!
//! A [`Case`] describes one session from both ends; [`Case::start`] builds it with the subject on
//! one host and the peer on another. The functions below it check what must then be true. AS
//! numbers are chosen so that they do not fit into two octets.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::kernel::{self, RouteMonitor};
use crate::lab::{Host, Lab};
use crate::speaker::{
    Config, Family, Kind, Neighbor, Origin, Path, Speaker, expect_down, wait_established,
    wait_paths,
};
use crate::subject;
use crate::wait::{PATIENCE, holds_for, wait_until};

/// The subject's AS number.
pub const SUBJECT_AS: u32 = 4_200_000_001;
/// The peer's AS number on eBGP.
pub const PEER_AS: u32 = 4_200_000_002;
/// A community of the peer's routes.
pub const PEER_COMMUNITY: &str = "65002:9";
/// A community of the peer's routes.
pub const PEER_LARGE_COMMUNITY: &str = "4200000002:3:4";

/// The prefix that the subject announces.
#[must_use]
pub fn subject_prefix(family: Family) -> &'static str {
    if family == Family::V4 { "192.0.2.0/24" } else { "2001:db8:1::/48" }
}

/// The prefix that the peer announces.
#[must_use]
pub fn peer_prefix(family: Family) -> &'static str {
    if family == Family::V4 { "198.51.100.0/24" } else { "2001:db8:2::/48" }
}

/// The prefix that the peer announces later.
fn later_prefix(family: Family) -> &'static str {
    if family == Family::V4 { "203.0.113.128/25" } else { "2001:db8:3:1::/64" }
}

/// Which side is passive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passive {
    /// Both sides open connections.
    Neither,
    /// The peer must open the connection.
    Subject,
    /// The subject must open the connection.
    Peer,
}

/// One session, described from both ends.
#[derive(Debug, Clone)]
pub struct Case {
    peer: Kind,
    subject_neighbor: Neighbor,
    peer_neighbor: Neighbor,
    peer_as: u32,
    transport: Family,
    port: u16,
}

/// A running session.
#[derive(Debug)]
pub struct Pair {
    /// The subject's host.
    pub subject_host: Host,
    /// The peer's host.
    pub peer_host: Host,
    /// The speaker under test.
    pub subject: Box<dyn Speaker>,
    /// The real daemon.
    pub peer: Box<dyn Speaker>,
    /// The session's two ends.
    pub case: Case,
    /// The peer's address as configured in the subject.
    pub peer_address: IpAddr,
    /// The subject's address as configured in the peer.
    pub subject_address: IpAddr,
}

fn unset() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

/// A plain neighbour with IPv4 routes; addresses are filled in when the hosts exist.
#[must_use]
pub fn neighbor(address: IpAddr, local: IpAddr, asn: u32) -> Neighbor {
    Neighbor {
        address,
        local,
        asn,
        port: 1790,
        families: vec![Family::V4],
        password: None,
        ttl_security: false,
        add_path: false,
        passive: false,
        extended_next_hop: false,
        graceful_restart: false,
        long_lived: None,
        reflector_client: false,
        hold_time: 9,
        only: None,
        prefixes_max: None,
    }
}

/// A speaker on a host with plain neighbours, each a host and its AS, and routes of its own.
#[must_use]
pub fn config(host: &Host, asn: u32, peers: &[(&Host, u32)], origins: &[&str]) -> Config {
    Config {
        asn,
        router_id: host.router_id(),
        port: 1790,
        neighbors: peers.iter().map(|(p, asn)| neighbor(p.v4(), host.v4(), *asn)).collect(),
        origins: origins.iter().map(|p| Origin::plain(p)).collect(),
    }
}

impl Case {
    /// eBGP over IPv4 with IPv4 routes, port 1790.
    #[must_use]
    pub fn ebgp(peer: Kind) -> Self {
        Self {
            peer,
            subject_neighbor: neighbor(unset(), unset(), PEER_AS),
            peer_neighbor: neighbor(unset(), unset(), SUBJECT_AS),
            peer_as: PEER_AS,
            transport: Family::V4,
            port: 1790,
        }
    }

    /// As [`Case::ebgp`], but iBGP.
    #[must_use]
    pub fn ibgp(peer: Kind) -> Self {
        let mut case = Self::ebgp(peer);
        case.peer_as = SUBJECT_AS;
        case.subject_neighbor.asn = SUBJECT_AS;
        case
    }

    fn both(mut self, change: impl Fn(&mut Neighbor)) -> Self {
        change(&mut self.subject_neighbor);
        change(&mut self.peer_neighbor);
        self
    }

    /// The session runs over IPv6 and carries IPv6 routes.
    #[must_use]
    pub fn over_v6(mut self) -> Self {
        self.transport = Family::V6;
        self.both(|n| n.families = vec![Family::V6])
    }

    /// The session carries IPv4 and IPv6 routes, over IPv6, the former with RFC 8950 next hops.
    #[must_use]
    pub fn both_families_over_v6(mut self) -> Self {
        self.transport = Family::V6;
        self.both(|n| {
            n.families = vec![Family::V4, Family::V6];
            n.extended_next_hop = true;
        })
    }

    /// The session carries IPv4 and IPv6 routes, over IPv4.
    #[must_use]
    pub fn both_families_over_v4(self) -> Self {
        self.both(|n| n.families = vec![Family::V4, Family::V6])
    }

    /// Both sides use this MD5 key.
    #[must_use]
    pub fn password(self, key: &str) -> Self {
        self.both(|n| n.password = Some(key.to_owned()))
    }

    /// The sides use different MD5 keys.
    #[must_use]
    pub fn mismatched_passwords(mut self) -> Self {
        self.subject_neighbor.password = Some("right".to_owned());
        self.peer_neighbor.password = Some("wrong".to_owned());
        self
    }

    /// GTSM on both sides.
    #[must_use]
    pub fn ttl_security(self) -> Self {
        self.both(|n| n.ttl_security = true)
    }

    /// GTSM on the subject's side only, so that the peer's packets arrive with a TTL of 1.
    #[must_use]
    pub fn ttl_security_violated(mut self) -> Self {
        self.subject_neighbor.ttl_security = true;
        self
    }

    /// ADD-PATH in both directions.
    #[must_use]
    pub fn add_path(self) -> Self {
        self.both(|n| n.add_path = true)
    }

    /// Both sides restart gracefully and help the other side's restart.
    #[must_use]
    pub fn graceful_restart(self) -> Self {
        self.both(|n| n.graceful_restart = true)
    }

    /// As [`Case::graceful_restart`], with a short restart time and a long-lived stale time in seconds
    /// (RFC 9494).
    #[must_use]
    pub fn long_lived(self, seconds: u32) -> Self {
        self.graceful_restart().both(|n| n.long_lived = Some(seconds))
    }

    /// One side is passive.
    #[must_use]
    pub fn passive(mut self, side: Passive) -> Self {
        self.subject_neighbor.passive = side == Passive::Subject;
        self.peer_neighbor.passive = side == Passive::Peer;
        self
    }

    /// A TCP port other than 1790, on both sides.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self.both(|n| n.port = port)
    }

    /// The subject's prefix limit.
    #[must_use]
    pub fn prefixes_max(mut self, limit: u32) -> Self {
        self.subject_neighbor.prefixes_max = Some(limit);
        self
    }

    /// Both sides propose this hold time, in seconds.
    #[must_use]
    pub fn hold_time(self, seconds: u16) -> Self {
        self.both(|n| n.hold_time = seconds)
    }

    /// The families that the session carries.
    #[must_use]
    pub fn families(&self) -> &[Family] {
        &self.subject_neighbor.families
    }

    /// The two configurations for these hosts.
    #[must_use]
    pub fn configs(&self, subject: &Host, peer: &Host) -> (Config, Config) {
        let address = |host: &Host| match self.transport {
            Family::V4 => host.v4(),
            Family::V6 => host.v6(),
        };
        let end = |template: &Neighbor, remote: &Host, local: &Host| {
            let mut n = template.clone();
            (n.address, n.local) = (address(remote), address(local));
            n
        };
        let subject_config = Config {
            asn: SUBJECT_AS,
            router_id: subject.router_id(),
            port: self.port,
            neighbors: vec![end(&self.subject_neighbor, peer, subject)],
            origins: self.families().iter().map(|f| Origin::plain(subject_prefix(*f))).collect(),
        };
        let tagged =
            |f: &Family| Origin::tagged(peer_prefix(*f), PEER_COMMUNITY, PEER_LARGE_COMMUNITY);
        let peer_config = Config {
            asn: self.peer_as,
            router_id: peer.router_id(),
            port: self.port,
            neighbors: vec![end(&self.peer_neighbor, subject, peer)],
            origins: self.families().iter().map(tagged).collect(),
        };
        (subject_config, peer_config)
    }

    /// Builds both ends.
    ///
    /// # Errors
    /// When a daemon refuses its configuration.
    pub fn start(self, lab: &mut Lab) -> Result<Pair> {
        let (subject_host, peer_host) = (lab.host("a")?, lab.host("b")?);
        let (subject_config, peer_config) = self.configs(&subject_host, &peer_host);
        let peer_address = subject_config.neighbors[0].address;
        let subject_address = peer_config.neighbors[0].address;
        let subject = subject::start(&subject_host, &subject_config)?;
        let peer = self.peer.start(&peer_host, &peer_config)?;
        Ok(Pair {
            subject_host,
            peer_host,
            subject,
            peer,
            case: self,
            peer_address,
            subject_address,
        })
    }

    /// Builds both ends and waits until they agree that the session is up.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn establish(self, lab: &mut Lab) -> Result<Pair> {
        let pair = self.start(lab)?;
        wait_established(pair.subject.as_ref(), pair.peer_address)?;
        wait_established(pair.peer.as_ref(), pair.subject_address)?;
        Ok(pair)
    }

    fn first_as(&self, asn: u32) -> Vec<u32> {
        if self.peer_as == SUBJECT_AS { Vec::new() } else { vec![asn] }
    }
}

impl Pair {
    /// The expected next hop of a route from `from`.
    fn next_hop_of(&self, from: &Host, family: Family) -> IpAddr {
        let v6 = family == Family::V6 || self.case.subject_neighbor.extended_next_hop;
        if v6 { from.v6() } else { from.v4() }
    }

    /// Checks that the subject has the peer's route with all its attributes, and that its kernel
    /// has it too.
    ///
    /// # Errors
    /// When something is missing or different.
    pub fn subject_has_peer_routes(&self) -> Result<()> {
        for family in self.case.families() {
            let prefix = peer_prefix(*family);
            let path = wait_paths(self.subject.as_ref(), prefix, 1)?.remove(0);
            let next_hop = self.next_hop_of(&self.peer_host, *family).to_string();
            let wanted = Path {
                next_hop: Some(next_hop.clone()),
                as_path: self.case.first_as(PEER_AS),
                communities: vec![PEER_COMMUNITY.to_owned()],
                large_communities: vec![PEER_LARGE_COMMUNITY.to_owned()],
            };
            ensure!(path == wanted, "the subject has {path:?} for {prefix}, not {wanted:?}");
            kernel::wait_gateways(&self.subject_host, prefix, &[next_hop])?;
        }
        Ok(())
    }

    /// Checks that the peer has the subject's route with all its attributes.
    ///
    /// # Errors
    /// When something is missing or different.
    pub fn peer_has_subject_routes(&self) -> Result<()> {
        for family in self.case.families() {
            let prefix = subject_prefix(*family);
            let path = wait_paths(self.peer.as_ref(), prefix, 1)?.remove(0);
            let wanted = Path {
                next_hop: Some(self.next_hop_of(&self.subject_host, *family).to_string()),
                as_path: self.case.first_as(SUBJECT_AS),
                ..Path::default()
            };
            ensure!(path == wanted, "the peer has {path:?} for {prefix}, not {wanted:?}");
        }
        Ok(())
    }

    /// [`Pair::subject_has_peer_routes`] and [`Pair::peer_has_subject_routes`].
    ///
    /// # Errors
    /// As those.
    pub fn has_routes_both_ways(&self) -> Result<()> {
        self.subject_has_peer_routes()?;
        self.peer_has_subject_routes()
    }

    /// Checks that routes announced later arrive, and that withdrawn ones are removed from RIB and
    /// kernel.
    ///
    /// # Errors
    /// When a side misses a change.
    pub fn follows_changes(&mut self) -> Result<()> {
        for family in self.case.families().to_vec() {
            let (later, gone) = (later_prefix(family), peer_prefix(family));
            self.peer.announce(&Origin::tagged(later, PEER_COMMUNITY, PEER_LARGE_COMMUNITY))?;
            wait_paths(self.subject.as_ref(), later, 1)?;
            let next_hop = self.next_hop_of(&self.peer_host, family).to_string();
            kernel::wait_gateways(&self.subject_host, later, &[next_hop])?;
            self.peer.withdraw(gone)?;
            wait_paths(self.subject.as_ref(), gone, 0)?;
            kernel::wait_gone(&self.subject_host, gone)?;
            ensure!(
                kernel::route(&self.subject_host, later)?.is_some(),
                "{later} left the kernel with {gone}"
            );
            self.subject.withdraw(subject_prefix(family))?;
            wait_paths(self.peer.as_ref(), subject_prefix(family), 0)?;
            self.subject.announce(&Origin::plain(subject_prefix(family)))?;
            wait_paths(self.peer.as_ref(), subject_prefix(family), 1)?;
        }
        Ok(())
    }
}

/// The session is established, routes arrive in both directions and in the kernel, and changes are
/// followed.
///
/// # Errors
/// When any of that fails.
pub fn exchange(lab: &mut Lab, case: Case) -> Result<()> {
    let mut pair = case.establish(lab)?;
    pair.has_routes_both_ways()?;
    pair.follows_changes()
}

/// The session is established and routes arrive in both directions: for cases about session
/// establishment.
///
/// # Errors
/// When it does not.
pub fn comes_up(lab: &mut Lab, case: Case) -> Result<()> {
    let pair = case.establish(lab)?;
    pair.has_routes_both_ways()
}

/// IPv6 routes over an IPv4 session are received. Our own are not announced there, as the session
/// has no address of ours that could be their next hop.
///
/// # Errors
/// When a route of the peer is missing, or IPv4 routes are affected.
pub fn hears_both_families_over_v4(lab: &mut Lab, peer: Kind) -> Result<()> {
    let pair = Case::ibgp(peer).both_families_over_v4().establish(lab)?;
    pair.subject_has_peer_routes()?;
    wait_paths(pair.peer.as_ref(), subject_prefix(Family::V4), 1).map(drop)
}

/// The session stays down while the kernel counts refused segments.
///
/// # Errors
/// When it comes up, or when the kernel never refused anything.
pub fn stays_down(lab: &mut Lab, case: Case, counter: &str) -> Result<()> {
    let mut pair = case.start(lab)?;
    wait_until(PATIENCE, &format!("{counter} to grow"), || {
        let sum = kernel::counter(&pair.subject_host, "TcpExt", counter)?
            + kernel::counter(&pair.peer_host, "TcpExt", counter)?;
        // A listening socket accepts SYNs with any TTL: margay checks these itself.
        let is_refused = pair.subject.daemon().output().contains("its TTL is too small");
        ensure!(sum > 0 || is_refused, "{counter} is 0");
        Ok(())
    })?;
    holds_for(Duration::from_secs(3), "the session is down", || {
        expect_down(pair.subject.as_ref(), pair.peer_address)
    })
}

/// Two paths for one prefix reach the other side, in both directions.
///
/// Two feeders in different ASes announce the same prefix to one side; the other side is an iBGP
/// neighbour and must receive both paths.
///
/// # Errors
/// When a path is missing on either side.
pub fn add_path_both_ways(lab: &mut Lab, peer: Kind) -> Result<()> {
    let case = Case::ibgp(peer).add_path();
    let (subject_host, peer_host) = (lab.host("a")?, lab.host("b")?);
    let feeders = [lab.host("f1")?, lab.host("f2")?];
    let (mut subject_config, mut peer_config) = case.configs(&subject_host, &peer_host);
    let (to_subject, to_peer) = ("100.64.1.0/24", "100.64.2.0/24");
    let mut running = Vec::new();
    for (index, feeder) in (0_u32..).zip(&feeders) {
        let asn = 4_200_000_011 + index;
        for (config, side) in [(&mut subject_config, &subject_host), (&mut peer_config, &peer_host)]
        {
            config.neighbors.push(neighbor(feeder.v4(), side.v4(), asn));
        }
        let mut ends = Vec::new();
        for (side, prefix) in [(&subject_host, to_subject), (&peer_host, to_peer)] {
            let mut end = neighbor(side.v4(), feeder.v4(), SUBJECT_AS);
            end.only = Some(vec![prefix.to_owned()]);
            ends.push(end);
        }
        let config = Config {
            asn,
            router_id: feeder.router_id(),
            port: 1790,
            neighbors: ends,
            origins: vec![Origin::plain(to_subject), Origin::plain(to_peer)],
        };
        running.push(Kind::Bird2.start(feeder, &config)?);
    }
    let subject = subject::start(&subject_host, &subject_config)?;
    let peer = peer.start(&peer_host, &peer_config)?;
    wait_established(subject.as_ref(), peer_host.v4())?;
    for feeder in &feeders {
        wait_established(subject.as_ref(), feeder.v4())?;
    }
    for (speaker, prefix) in [(&subject, to_peer), (&peer, to_subject)] {
        let mut first: Vec<Vec<u32>> =
            wait_paths(speaker.as_ref(), prefix, 2)?.into_iter().map(|path| path.as_path).collect();
        first.sort();
        let wanted = [vec![4_200_000_011], vec![4_200_000_012]];
        ensure!(first == wanted, "AS paths for {prefix} are {first:?}, not {wanted:?}");
    }
    Ok(())
}

/// A third speaker's route reaches the peer through the subject with its communities.
///
/// # Errors
/// When the route does not arrive, or changes by more than the subject's AS in its path.
pub fn passes_on(lab: &mut Lab, peer: Kind) -> Result<()> {
    const FEEDER_AS: u32 = 4_200_000_011;
    const PREFIX: &str = "100.64.3.0/24";
    let case = Case::ebgp(peer);
    let (subject_host, peer_host, feeder) = (lab.host("a")?, lab.host("b")?, lab.host("f")?);
    let (mut subject_config, peer_config) = case.configs(&subject_host, &peer_host);
    subject_config.neighbors.push(neighbor(feeder.v4(), subject_host.v4(), FEEDER_AS));
    let feeder_config = Config {
        asn: FEEDER_AS,
        router_id: feeder.router_id(),
        port: 1790,
        neighbors: vec![neighbor(subject_host.v4(), feeder.v4(), SUBJECT_AS)],
        origins: vec![Origin {
            prefix: PREFIX.to_owned(),
            communities: vec!["65011:1".to_owned(), "65011:65535".to_owned()],
            large_communities: vec![
                "4200000011:1:2".to_owned(),
                "4200000011:0:4294967295".to_owned(),
            ],
        }],
    };
    let _feeder = Kind::Bird2.start(&feeder, &feeder_config)?;
    let _subject = subject::start(&subject_host, &subject_config)?;
    let peer = peer.start(&peer_host, &peer_config)?;
    let path = wait_paths(peer.as_ref(), PREFIX, 1)?.remove(0);
    let mut found = path.clone();
    found.communities.sort();
    found.large_communities.sort();
    let mut wanted = Path {
        next_hop: path.next_hop,
        as_path: vec![SUBJECT_AS, FEEDER_AS],
        communities: feeder_config.origins[0].communities.clone(),
        large_communities: feeder_config.origins[0].large_communities.clone(),
    };
    wanted.communities.sort();
    wanted.large_communities.sort();
    ensure!(found == wanted, "the peer has {found:?}, not {wanted:?}");
    Ok(())
}

/// A ROUTE-REFRESH from the peer makes the subject send its routes again, without other effects.
///
/// # Errors
/// When no UPDATE comes, or the session or the route is lost.
pub fn refresh(lab: &mut Lab, case: Case) -> Result<()> {
    let pair = case.establish(lab)?;
    pair.peer_has_subject_routes()?;
    let before = pair.peer.updates_received(pair.subject_address)?;
    pair.peer.request_refresh(pair.subject_address)?;
    wait_until(PATIENCE, "UPDATEs after a refresh", || {
        let count = pair.peer.updates_received(pair.subject_address)?;
        ensure!(count > before, "still {count} UPDATEs");
        Ok(())
    })?;
    pair.has_routes_both_ways()
}

/// The session ends when the peer announces more than the subject allows.
///
/// # Errors
/// When it stays up.
pub fn prefix_limit(lab: &mut Lab, peer: Kind) -> Result<Pair> {
    let mut pair = Case::ebgp(peer).prefixes_max(2).establish(lab)?;
    pair.subject_has_peer_routes()?;
    for prefix in ["203.0.113.0/26", "203.0.113.64/26", "203.0.113.128/26"] {
        pair.peer.announce(&Origin::plain(prefix))?;
    }
    wait_until(PATIENCE, "the session to end", || {
        expect_down(pair.subject.as_ref(), pair.peer_address)
    })?;
    kernel::wait_gone(&pair.subject_host, peer_prefix(Family::V4))?;
    Ok(pair)
}

/// A cut that only the hold timer can detect ends the session and removes its kernel routes; when
/// the link is back, session and routes return.
///
/// # Errors
/// When the session outlives its hold time by far, or does not return.
pub fn hold_timer_loss(lab: &mut Lab, peer: Kind) -> Result<Pair> {
    let pair = Case::ebgp(peer).hold_time(6).establish(lab)?;
    pair.subject_has_peer_routes()?;
    lab.cut(&pair.peer_host)?;
    wait_until(Duration::from_secs(10), "the hold timer to expire", || {
        expect_down(pair.subject.as_ref(), pair.peer_address)
    })?;
    kernel::wait_gone(&pair.subject_host, peer_prefix(Family::V4))?;
    Ok(pair)
}

/// The peer crashes and restarts: the subject retains its routes, in the kernel without a gap.
///
/// # Errors
/// When a route is lost.
pub fn helps_a_restart(lab: &mut Lab, case: Case) -> Result<()> {
    let (pair, monitor) = keeps_routes_of_the_dead(lab, case)?;
    let prefix = peer_prefix(Family::V4);
    holds_for(Duration::from_secs(4), "the route", || {
        ensure!(kernel::route(&pair.subject_host, prefix)?.is_some(), "gone from the kernel");
        Ok(())
    })?;
    let changes = monitor.changes()?;
    ensure!(!changes.contains(&format!("Deleted {prefix}")), "there was a gap: {changes}");
    Ok(())
}

/// The peer crashes: the subject retains its routes until it has restarted and announced them
/// again.
///
/// # Errors
/// When a route is lost before the peer is back, or is missing afterwards.
pub fn keeps_routes_of_the_dead(lab: &mut Lab, case: Case) -> Result<(Pair, RouteMonitor)> {
    let prefix = peer_prefix(Family::V4);
    let mut pair = case.graceful_restart().establish(lab)?;
    pair.has_routes_both_ways()?;
    let monitor = RouteMonitor::start(&pair.subject_host)?;
    pair.peer.daemon().crash()?;
    wait_until(PATIENCE, "the subject to notice", || {
        expect_down(pair.subject.as_ref(), pair.peer_address)
    })?;
    holds_for(Duration::from_secs(1), "the route of the dead", || {
        ensure!(pair.subject.paths(prefix)?.len() == 1, "gone from the RIB");
        ensure!(kernel::route(&pair.subject_host, prefix)?.is_some(), "gone from the kernel");
        Ok(())
    })?;
    pair.peer.recover()?;
    wait_established(pair.subject.as_ref(), pair.peer_address)?;
    pair.has_routes_both_ways()?;
    Ok((pair, monitor))
}

/// The subject crashes: the peer retains its routes, because graceful restart was negotiated.
///
/// # Errors
/// When the peer drops them at once.
pub fn is_helped(lab: &mut Lab, peer: Kind) -> Result<()> {
    let prefix = subject_prefix(Family::V4);
    let mut pair = Case::ebgp(peer).graceful_restart().establish(lab)?;
    pair.has_routes_both_ways()?;
    pair.subject.daemon().crash()?;
    wait_until(PATIENCE, "the peer to notice", || {
        expect_down(pair.peer.as_ref(), pair.subject_address)
    })?;
    holds_for(Duration::from_secs(2), "the route of the dead", || {
        ensure!(pair.peer.paths(prefix)?.len() == 1, "the peer dropped it");
        Ok(())
    })?;
    pair.subject.recover()?;
    wait_established(pair.peer.as_ref(), pair.subject_address)?;
    pair.has_routes_both_ways()
}

/// Ends a cut and waits until the session and the routes are back.
///
/// # Errors
/// When they do not return.
pub fn returns(lab: &Lab, pair: &Pair) -> Result<()> {
    lab.mend(&pair.peer_host)?;
    wait_established(pair.subject.as_ref(), pair.peer_address)?;
    pair.has_routes_both_ways()
}
