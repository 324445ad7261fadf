//! The output of `margay check`: what would run.

use std::fmt;
use std::net::SocketAddr;

use bgp_proto::rib::MultipathAsPath;
use bgp_proto::session::{BfdMode, ChainKey, KeyChain, PassiveMode, PeerConfig};
use bgp_proto::table::{MultipathWeights, PeerLimits, PeerRoutes};
use bgp_proto::types::{FibKind, PeerType};

use super::{
    BfdHops, BfdSettings, BirdPaths, BirdSockets, CalicoLimits, Config, FibSettings,
    OpenedServices, OpenedSockets, Originate, Redistribute, RedistributeFrom,
};

/// A summary, one line for each thing that would run. It says where passwords are used, and never
/// contains one.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = &self.bgp.identity;
        writeln!(
            f,
            "AS {}, router id {}, cluster id {}",
            identity.asn, identity.router_id, self.bgp.cluster_id
        )?;
        writeln!(f, "{}", Listens(&self.bgp.listen))?;
        for vrf in &self.vrfs {
            writeln!(f, "VRF {}: {}", vrf.name, Listens(&vrf.listen))?;
        }
        write_imports(f, self)?;
        for peer in &self.peers {
            let PeerConfig { address, port, passive, .. } = &*peer.session;
            write!(f, "peer {}: {address}", peer.name)?;
            write!(f, "{}", InVrf(peer.session.vrf.as_deref()))?;
            match passive {
                PassiveMode::Active => write!(f, " port {port}")?,
                PassiveMode::Passive => write!(f, ", accepts only")?,
                PassiveMode::AtStart => write!(f, " port {port}, dialled at the start only")?,
            }
            write!(f, "{}", Terms(&peer.session, &peer.routes))?;
            writeln!(f, "{}", BfdTerms(peer.bfd.as_deref(), &peer.session))?;
        }
        for peers in &self.interfaces {
            let neighbor = match (peers.neighbor, peers.advertises) {
                (Some(address), _) => format!("neighbour {address}"),
                (None, true) => {
                    "neighbours by router advertisements, which are sent too".to_owned()
                }
                (None, false) => "neighbours by router advertisements".to_owned(),
            };
            let terms = Terms(&peers.session, &peers.routes);
            let bfd = BfdTerms(peers.bfd.as_deref(), &peers.session);
            let vrf = InVrf(peers.vrf().map(|vrf| &**vrf));
            writeln!(f, "peers on {}{vrf}: {neighbor}{terms}{bfd}", peers.pattern)?;
        }
        for range in &self.dynamic {
            let (prefix, max) = (range.prefix, range.peers_max);
            let terms = Terms(&range.session, &range.routes);
            let bfd = BfdTerms(range.bfd.as_deref(), &range.session);
            let vrf = InVrf(range.session.vrf.as_deref());
            writeln!(f, "dynamic peers {prefix}{vrf}: at most {max}{terms}{bfd}")?;
        }
        for chain in &self.key_chains {
            writeln!(f, "{}", Keys(chain))?;
        }
        for policy in &self.unused_policies {
            writeln!(f, "policy {}: nothing uses it", policy.name)?;
        }
        write_local(f, None, &self.originate, &self.redistribute)?;
        for vrf in &self.vrfs {
            write_local(f, Some(&vrf.name), &vrf.originate, &vrf.redistribute)?;
        }
        write_fib(f, &self.fib)?;
        write!(f, "{}", OpenedSockets(&self.host.control))?;
        if let Some(BirdPaths { ipv4, ipv6 }) =
            self.host.control.bird_sockets.as_ref().and_then(BirdSockets::paths)
        {
            writeln!(f, "BIRD's sockets {} and {}", ipv4.display(), ipv6.display())?;
        }
        write_memory_max(f, self.bgp.memory_max, "bgp.memory-max")?;
        write!(f, "{}", OpenedServices(&self.host))?;
        let needs = self.privileges();
        if !needs.is_empty() {
            writeln!(f, "needs {}", needs.join(", "))?;
        }
        Ok(())
    }
}

/// The addresses on which connections are accepted.
struct Listens<'a>(&'a [SocketAddr]);

impl fmt::Display for Listens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("listens nowhere, only dials");
        }
        let list: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "listens on {}", list.join(", "))
    }
}

/// A key chain, without its secrets.
struct Keys<'a>(&'a KeyChain);

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key chain {}:", self.0.name())?;
        for (number, key) in self.0.keys().iter().enumerate() {
            let ChainKey { send_id, receive_id, algorithm, .. } = key;
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma} key {send_id}/{receive_id} {algorithm}")?;
        }
        Ok(())
    }
}

/// The VRF of something; the default VRF is not named.
struct InVrf<'a>(Option<&'a str>);

impl fmt::Display for InVrf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |vrf| write!(f, " in VRF {vrf}"))
    }
}

/// Writes which VRFs import routes of others.
fn write_imports(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    let own = config.vrfs.iter().map(|vrf| (&*vrf.name, &vrf.import));
    for (name, imports) in [("default", &config.bgp.import)].into_iter().chain(own) {
        for import in imports {
            let from = import.from.as_deref().unwrap_or("default");
            let policy = &import.policy.name;
            writeln!(f, "VRF {name} imports from VRF {from}, policy {policy}")?;
        }
    }
    Ok(())
}

/// Writes the routes of our own in a VRF.
fn write_local(
    f: &mut fmt::Formatter<'_>,
    vrf: Option<&str>,
    originate: &[Originate],
    redistribute: &[Redistribute],
) -> fmt::Result {
    let vrf = InVrf(vrf);
    for Originate { prefix, install, .. } in originate {
        let kernel = match install {
            Some(FibKind::Unreachable) => "unreachable in the kernel",
            Some(_) => "blackhole in the kernel",
            None => "not in the kernel",
        };
        writeln!(f, "originates {prefix}{vrf}, {kernel}")?;
    }
    for rule in redistribute {
        writeln!(f, "redistributes{vrf} {}", Selection(rule))?;
    }
    Ok(())
}

impl Config {
    /// Capabilities that a process without root needs for this configuration, each with its reason.
    fn privileges(&self) -> Vec<String> {
        let mut needs = Vec::new();
        let in_vrfs = self.vrfs.iter().flat_map(|vrf| &vrf.listen);
        if let Some(low) = self.bgp.listen.iter().chain(in_vrfs).find(|a| a.port() < 1024) {
            needs.push(format!("CAP_NET_BIND_SERVICE (port {})", low.port()));
        }
        let sessions = (self.peers.iter().map(|p| &p.session))
            .chain(self.interfaces.iter().map(|p| &p.session))
            .chain(self.dynamic.iter().map(|d| &d.session));
        let sessions: Vec<&PeerConfig> = sessions.map(|session| &**session).collect();
        let is_bound = sessions.iter().any(|s| s.vrf.is_some() && s.bind_interface.is_some());
        let md5 = sessions.into_iter().any(|s| s.security.md5.is_some());
        let reasons: Vec<&str> = [(self.fib.enabled, "kernel routes"), (md5, "TCP MD5")]
            .into_iter()
            .filter_map(|(on, reason)| on.then_some(reason))
            .collect();
        if !reasons.is_empty() {
            needs.push(format!("CAP_NET_ADMIN ({})", reasons.join(", ")));
        }
        let discovers = self.interfaces.iter().any(|peers| peers.neighbor.is_none());
        let bound = "bind-interface in a VRF";
        let reasons: Vec<&str> = [(discovers, "router discovery"), (is_bound, bound)]
            .into_iter()
            .filter_map(|(on, reason)| on.then_some(reason))
            .collect();
        if !reasons.is_empty() {
            needs.push(format!("CAP_NET_RAW ({})", reasons.join(", ")));
        }
        needs
    }
}

/// The parameters of a session, as a continuation of its line.
struct Terms<'a>(&'a PeerConfig, &'a PeerRoutes);

impl fmt::Display for Terms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms(session, routes) = self;
        let kind = match session.peer_type() {
            PeerType::Internal => "internal",
            PeerType::External => "external",
        };
        write!(f, ", AS {}", session.remote_asn)?;
        if session.remote_asn.exactly().is_some() {
            write!(f, " ({kind})")?;
        }
        for family in session.families.iter() {
            write!(f, ", {family}")?;
        }
        write!(f, ", hold {} s", session.hold_time.as_secs())?;
        write!(f, ", import {}, export {}", routes.import.policy.name, routes.export.policy.name)?;
        if routes.reflection.client {
            f.write_str(", route reflector client")?;
        }
        if let Some(vantage) = &routes.vantage {
            write!(f, ", vantage {vantage}")?;
        }
        write!(f, "{}", Limits(&routes.limits))?;
        if session.security.md5.is_some() {
            f.write_str(", TCP MD5")?;
        }
        if let Some(chain) = &session.security.ao {
            write!(f, ", TCP-AO with key chain {}", chain.name())?;
        }
        if let Some(hops) = session.security.ttl_security_hops {
            write!(f, ", TTL security {hops}")?;
        }
        Ok(())
    }
}

/// The BFD parameters of a session, as a continuation of its line; empty without BFD.
struct BfdTerms<'a>(Option<&'a BfdSettings>, &'a PeerConfig);

impl fmt::Display for BfdTerms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(BfdSettings { session, hops }) = self.0 else { return Ok(()) };
        let bgp_proto::bfd::Config { min_tx, min_rx, multiplier, auth, .. } = session;
        write!(f, ", BFD {}/{} ms x {multiplier}", min_tx.as_millis(), min_rx.as_millis())?;
        if let BfdHops::Multi { .. } = hops {
            f.write_str(" multihop")?;
        }
        if auth.is_some() {
            f.write_str(" authenticated")?;
        }
        if self.1.bfd_mode == BfdMode::Strict {
            f.write_str(" strict")?;
        }
        Ok(())
    }
}

/// The limits of a session, as a continuation of its line; empty without limits.
struct Limits<'a>(&'a PeerLimits);

impl fmt::Display for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerLimits { prefixes_max, prefixes_warning_percent: _, memory_max } = *self.0;
        if let Some(bound) = prefixes_max {
            write!(f, ", at most {bound} prefixes")?;
        }
        if let Some(octets) = memory_max {
            write!(f, ", at most {} MiB", octets >> 20)?;
        }
        Ok(())
    }
}

/// One line for the process, and further ones if sessions have limits or BFD.
impl fmt::Display for CalicoLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_memory_max(f, self.memory_max, "calico.memory-max")?;
        match Limits(&self.peers).to_string() {
            nothing if nothing.is_empty() => {}
            limits => writeln!(f, "every peer{limits}")?,
        }
        if self.bfd.is_some() {
            writeln!(f, "BFD beside every session (calico.peers.bfd)")?;
        }
        Ok(())
    }
}

fn write_fib(f: &mut fmt::Formatter<'_>, fib: &FibSettings) -> fmt::Result {
    if !fib.enabled {
        return writeln!(f, "writes no routes to the kernel");
    }
    write!(
        f,
        "writes routes to kernel table {} as protocol {}, at most {} hops each",
        fib.table, fib.protocol, fib.multipath_max
    )?;
    match fib.multipath_weights {
        MultipathWeights::Equal => {}
        MultipathWeights::LinkBandwidth => write!(f, ", weighted by link bandwidth")?,
    }
    match fib.multipath_as_path {
        MultipathAsPath::EqualLength => {}
        MultipathAsPath::SameNeighborAs => write!(f, ", of paths from one neighbouring AS")?,
        MultipathAsPath::Identical => write!(f, ", of paths with the same AS_PATH")?,
    }
    match (fib.next_hop_objects, fib.backup_paths) {
        (true, true) => writeln!(f, ", over next-hop objects, with backup paths"),
        (true, false) => writeln!(f, ", over next-hop objects"),
        (false, _) => writeln!(f),
    }
}

fn write_memory_max(f: &mut fmt::Formatter<'_>, memory_max: Option<u64>, key: &str) -> fmt::Result {
    match memory_max {
        Some(octets) => writeln!(f, "routes hold at most {} MiB", octets >> 20),
        None => writeln!(f, "no limit to the memory of routes ({key})"),
    }
}

struct Selection<'a>(&'a Redistribute);

impl fmt::Display for Selection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Selection(rule) = self;
        f.write_str(match rule.from {
            RedistributeFrom::Kernel => "kernel routes",
            RedistributeFrom::Connected => "connected networks",
        })?;
        let mut part = |what: &str, list: Vec<String>| {
            if list.is_empty() { Ok(()) } else { write!(f, ", {what} {}", list.join(" ")) }
        };
        part("protocols", rule.protocols.iter().map(ToString::to_string).collect())?;
        part("interfaces", rule.interfaces.clone())?;
        part("within", rule.prefixes.iter().map(ToString::to_string).collect())?;
        part("policy", rule.policy.iter().map(|p| p.name.to_string()).collect())
    }
}
