//! Peers by interface: one on each interface that matches, with the neighbour that is configured or that
//! router discovery has found.
//!
//! They are part of the running configuration like all peers, and change by the same comparison: a
//! neighbour with another address is a changed session parameter. While no neighbour is known, the peer
//! exists and is idle, and says why.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::sync::Arc;

use bgp_proto::session::PeerConfig;
use bgp_proto::types::{PeerId, off_interface};
use tracing::{info, warn};

use super::Daemon;
use super::registry::Record;
use super::startup::Awaited;
use crate::config::{Changes, Config, InterfacePeers, Neighbor, PeerEntry};
use crate::discovery::{Discovery, Wanted};
use crate::kernel::Link;

/// From here on interface indices are not the kernel's, which are positive and signed: they tell apart
/// interfaces that do not exist.
const ABSENT: u32 = 1 << 31;

/// Why a peer is idle. Without the interface's name: a peer whose interface is renamed has not changed, and
/// keeps what an operator has ordered for it.
const WAITING: &str = "no router advertisement has been received on its interface";

/// Router discovery, and what was said about peers by interface.
pub(super) struct Neighbors {
    discovery: Discovery,
    /// Interfaces without a session, because another peer has the name, each with that name.
    refused: BTreeMap<Arc<str>, Arc<str>>,
    own: OwnAddresses,
    /// How many interfaces have no session because there are too many.
    left_out: usize,
}

/// Our link-local address on each interface: the source of router advertisements, and of connections to
/// the neighbour, which accepts none from an address that it does not know.
///
/// It is kept as long as the interface has it, and while the interface has none at all: neither a further
/// address nor a flap of the link, with which addresses go, changes the session's parameters.
#[derive(Debug, Default)]
struct OwnAddresses(BTreeMap<u32, Ipv6Addr>);

impl OwnAddresses {
    fn follow(&mut self, links: &[Link]) {
        let before = std::mem::take(&mut self.0);
        self.0.extend(links.iter().filter_map(|link| {
            let known = before.get(&link.index).copied();
            let kept = known.filter(|own| link.has((*own).into()));
            Some((link.index, kept.or_else(|| link.link_local()).or(known)?))
        }));
    }

    /// The address on an interface where these peers are.
    fn of(&self, peers: &InterfacePeers, link: &Link) -> Option<Ipv6Addr> {
        peers.source_address().or_else(|| self.0.get(&link.index).copied())
    }
}

impl Neighbors {
    pub(super) fn new(discovery: Discovery) -> Neighbors {
        let refused = BTreeMap::new();
        Neighbors { discovery, refused, own: OwnAddresses::default(), left_out: 0 }
    }

    /// Logs that interfaces are left out, when that begins or their number has changed.
    fn leave_out(&mut self, left_out: usize, most: usize) {
        if left_out > 0 && left_out != self.left_out {
            warn!(
                "no session on {left_out} of the interfaces that match, the last by name: there are file \
                 descriptors for {most}; raise the limit (ulimit -n, LimitNOFILE=)"
            );
        }
        self.left_out = left_out;
    }

    /// Logs which interfaces have no session, once for each.
    fn refuse(&mut self, refused: Vec<PeerEntry>) {
        let before = std::mem::take(&mut self.refused);
        for PeerEntry { interface, name, .. } in refused {
            let interface = interface.unwrap_or_default();
            if before.get(&interface) != Some(&name) {
                warn!("no session on {interface}: there is another peer {name}");
            }
            self.refused.insert(interface, name);
        }
    }
}

impl Daemon {
    /// Adds the peers by interface to a configuration that is to be put into force.
    pub(super) fn add_by_interface(&mut self, config: &mut Config) {
        let links = self.fib.links();
        self.neighbors.own.follow(&links);
        let most = self.descriptors.interfaces_max(config);
        let left_out = matching(config, &links, usize::MAX).skip(most).count();
        self.neighbors.leave_out(left_out, most);
        let refused = self.with_by_interface(config);
        if !config.interfaces.is_empty() {
            self.neighbors.refuse(refused);
        }
    }

    /// As [`Daemon::add_by_interface`], and changes nothing else: returns the entries whose name
    /// another peer has.
    pub(super) fn with_by_interface(&self, config: &mut Config) -> Vec<PeerEntry> {
        config.peers.retain(|peer| peer.interface.is_none());
        if config.interfaces.is_empty() {
            return Vec::new();
        }
        let links = self.fib.links();
        let most = self.descriptors.interfaces_max(config);
        let (found, refused) =
            peers(config, matching(config, &links, most), &links, &self.neighbors);
        config.peers.extend(found);
        refused
    }

    /// Finds neighbours on the interfaces of the configuration in force, and on no other.
    pub(super) fn follow_interfaces(&mut self) {
        let links = self.fib.links();
        self.neighbors.own.follow(&links);
        let most = self.descriptors.interfaces_max(&self.config);
        let matching = matching(&self.config, &links, most);
        self.neighbors.discovery.follow(wanted(matching, &self.neighbors.own));
    }

    /// Before any peer is added: the configuration in force gets its peers by interface.
    pub(super) fn find_neighbors(&mut self) {
        let mut config = Config::clone(&self.config);
        self.add_by_interface(&mut config);
        self.vrfs.show_absent(&mut config, &self.fib.links());
        self.config = Arc::new(config);
        self.follow_interfaces();
        self.views.publish(|state| state.config = Arc::clone(&self.config));
    }

    /// Interfaces or their neighbours have changed.
    pub(super) fn review_neighbors(&mut self) {
        if self.config.interfaces.is_empty() {
            return;
        }
        self.follow_interfaces();
        let mut config = Config::clone(&self.config);
        self.add_by_interface(&mut config);
        self.vrfs.show_absent(&mut config, &self.fib.links());
        let Some(changes) = self.follow(config) else { return };
        self.review_descriptors();
        changes.lines().iter().for_each(|line| info!("{line}"));
    }

    /// Puts a configuration into force whose peers follow from the links of now. `None`: it is in
    /// force already. A start waits for peers that come during it.
    pub(super) fn follow(&mut self, config: Config) -> Option<Changes> {
        let changes = self.config.changes_to(&config);
        if changes.is_empty() {
            return None;
        }
        self.config = Arc::new(config);
        let added = self.apply(&changes, &HashSet::new());
        added.into_iter().for_each(|peer| self.await_found(peer));
        self.views.publish(|state| state.config = Arc::clone(&self.config));
        Some(changes)
    }

    fn await_found(&mut self, peer: PeerId) {
        let Some(record) = self.peers.registry().get(peer) else { return };
        if record.session.idle.is_some() {
            return;
        }
        let restart_time = record.session.graceful_restart_time;
        let now = self.engine.handle().clock().now();
        self.convergence.handle_found(now, Awaited { peer, restart_time });
    }
}

/// Whether a start waits for the routes of a peer: not of one in a VRF that does not exist, or whose
/// interface is in another VRF.
pub(super) fn is_awaited(record: &Record, links: &[Link]) -> bool {
    let Record { interface, session, .. } = record;
    match interface {
        Some(_) => may_come_up(session, links),
        None => {
            let is_elsewhere = session.vrf.is_some() || session.bind_interface.is_some();
            !is_elsewhere || session.idle.is_none()
        }
    }
}

/// Whether a start waits for the routes of this peer by interface. On an interface without a carrier no neighbour will be
/// found: a pattern matches ports that are not in use, too.
fn may_come_up(session: &PeerConfig, links: &[Link]) -> bool {
    let ifindex = off_interface(session.address).1.map(NonZeroU32::get);
    let has_carrier = |link: &Link| Some(link.index) == ifindex && link.up && link.running;
    session.idle.is_none() || links.iter().any(has_carrier)
}

/// The configured VRFs whose device exists, by table.
fn vrfs_by_table<'a>(config: &'a Config, links: &[Link]) -> BTreeMap<u32, &'a Arc<str>> {
    let devices = links.iter().filter(|link| link.traits.is_vrf);
    let found = devices.filter_map(|link| {
        let vrf = config.vrfs.iter().find(|vrf| *vrf.name == *link.name)?;
        Some((link.traits.vrf?, &vrf.name))
    });
    found.collect()
}

/// The configured VRF that an interface is in; `None`: the default VRF, or one that is not ours to
/// care about.
fn vrf_of<'a>(vrfs: &BTreeMap<u32, &'a Arc<str>>, link: &Link) -> Option<&'a Arc<str>> {
    vrfs.get(&link.traits.vrf?).copied()
}

/// The configured peers of each interface: the first entry in its VRF that matches; of the first `most`
/// by name.
fn matching<'a>(
    config: &'a Config,
    links: &'a [Link],
    most: usize,
) -> impl Iterator<Item = (&'a Link, &'a InterfacePeers)> {
    let vrfs = vrfs_by_table(config, links);
    let found = links.iter().filter(|link| !link.traits.loopback).filter_map(move |link| {
        let vrf = vrf_of(&vrfs, link);
        // The device of a VRF is no link to a neighbour.
        if link.traits.is_vrf && vrf.is_some() {
            return None;
        }
        let is_there = |peers: &&InterfacePeers| peers.vrf() == vrf && peers.matches(&link.name);
        Some((link, config.interfaces.iter().find(is_there)?))
    });
    found.take(most)
}

/// Why there is no peer on the only interface of an entry; `None`: there may be one.
fn why_none_on(
    peers: &InterfacePeers,
    vrfs: &BTreeMap<u32, &Arc<str>>,
    links: &[Link],
) -> Option<String> {
    let name = &peers.pattern;
    let Some(link) = links.iter().find(|link| link.name == *name) else {
        return Some(format!("there is no interface {name}"));
    };
    let wanted = peers.vrf();
    (vrf_of(vrfs, link) != wanted).then(|| {
        let wanted = wanted.map_or("default", |vrf| vrf);
        format!("interface {name} is not in VRF {wanted}")
    })
}

/// The interfaces on which neighbours are to be found.
fn wanted<'a>(
    matching: impl Iterator<Item = (&'a Link, &'a InterfacePeers)>,
    own: &OwnAddresses,
) -> Vec<Wanted> {
    let found = matching.filter(|(_, peers)| peers.neighbor.is_none());
    found
        .map(|(link, peers)| Wanted {
            ifindex: link.index,
            name: link.name.as_str().into(),
            advertises: peers.advertises,
            // Without a carrier there is nobody to send to.
            local: own
                .of(peers, link)
                .filter(|own| link.up && link.running && link.has((*own).into())),
        })
        .collect()
}

/// The peers by interface, each with its neighbour; and those whose name another peer has.
fn peers<'a>(
    config: &Config,
    matching: impl Iterator<Item = (&'a Link, &'a InterfacePeers)>,
    links: &[Link],
    Neighbors { discovery, own, .. }: &Neighbors,
) -> (Vec<PeerEntry>, Vec<PeerEntry>) {
    let statuses = discovery.statuses();
    let mut names: BTreeSet<Arc<str>> =
        config.peers.iter().map(|peer| Arc::clone(&peer.name)).collect();
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let mut add = |entry: PeerEntry| {
        if names.insert(Arc::clone(&entry.name)) {
            found.push(entry);
        } else {
            refused.push(entry);
        }
    };
    for (link, peers) in matching {
        let Some(ifindex) = NonZeroU32::new(link.index) else { continue };
        let neighbor = match (peers.neighbor, statuses.get(link.index)) {
            (Some(address), _) => Neighbor::At { address, source: None },
            (None, Some(status)) => match (status.neighbor, status.fault) {
                (Some(address), _) => Neighbor::At { address, source: own.of(peers, link) },
                (None, Some(fault)) => Neighbor::Unknown(fault),
                (None, None) => Neighbor::Unknown(WAITING.into()),
            },
            (None, None) => Neighbor::Unknown(WAITING.into()),
        };
        add(peers.peer(&link.name, ifindex, &neighbor));
    }
    let vrfs = vrfs_by_table(config, links);
    for (number, peers) in (ABSENT..).zip(&config.interfaces) {
        if let (true, Some(ifindex)) = (!peers.is_pattern(), NonZeroU32::new(number))
            && let Some(why) = why_none_on(peers, &vrfs, links)
        {
            add(peers.peer(&peers.pattern, ifindex, &Neighbor::Unknown(why.into())));
        }
    }
    (found, refused)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::Clock;
    use crate::kernel::LinkTraits;

    fn link(index: u32, name: &str, addresses: &[&str]) -> Link {
        Link {
            index,
            name: name.into(),
            up: true,
            running: true,
            traits: LinkTraits { loopback: name == "lo", ..LinkTraits::default() },
            mtu: 1500,
            addresses: addresses.iter().map(|a| (a.parse().unwrap(), 64)).collect(),
        }
    }

    fn config(entries: &[&str]) -> Config {
        let mut text = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n".to_owned();
        for entry in entries {
            text += &format!("[[bgp.peers]]\n{entry}\nremote-asn = \"internal\"\n");
        }
        Config::parse(Path::new("m.toml"), &text).unwrap()
    }

    #[test]
    fn interfaces_have_the_peers_of_their_vrf() {
        let mut config = config(&["interface = \"*\"\nrouter-advertisements = true"]);
        let in_vrf = |link: Link, table, is_vrf| Link {
            traits: LinkTraits { vrf: Some(table), is_vrf, ..link.traits },
            ..link
        };
        let links = [
            in_vrf(link(2, "blue", &[]), 100, true),
            in_vrf(link(3, "eth1", &["fe80::3"]), 100, false),
            link(4, "eth2", &["fe80::4"]),
        ];
        let of = |config: &Config| {
            let all = matching(config, &links, usize::MAX);
            all.map(|(link, _)| link.index).collect::<Vec<_>>()
        };
        assert_eq!(of(&config), [2, 3, 4], "the VRF is not ours to care about");
        let text = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n[[vrfs]]\nname = \"blue\"\n";
        config.vrfs = Config::parse(Path::new("m.toml"), text).unwrap().vrfs;
        assert_eq!(of(&config), [4]);
        let in_blue = "[[bgp.peers]]\ninterface = \"eth*\"\nvrf = \"blue\"\nremote-asn = 64512\n\
                       [[bgp.peers]]\ninterface = \"eth2\"\nname = \"uplink\"\nvrf = \"blue\"\n\
                       remote-asn = 64512\n[[bgp.peers]]\ninterface = \"eth1\"\nremote-asn = 64512\n";
        let text = format!("{text}{in_blue}");
        let config = Config::parse(Path::new("m.toml"), &text).unwrap();
        assert_eq!(of(&config), [3]);
        let known = Neighbors::new(Discovery::new(Clock::start(), 1));
        let all = matching(&config, &links, usize::MAX);
        let (found, _) = peers(&config, all, &links, &known);
        let idle = |name: &str| {
            let found =
                found.iter().find(|peer| &*peer.name == name && peer.session.idle.is_some());
            found.map(|peer| peer.session.idle.as_deref().unwrap().to_owned())
        };
        assert_eq!(found[0].session.vrf.as_deref(), Some("blue"));
        assert_eq!(idle("uplink").as_deref(), Some("interface eth2 is not in VRF blue"));
    }

    #[test]
    fn each_interface_has_the_first_entry_that_matches() {
        let config = config(&[
            "interface = \"eth1\"\naddress = \"fe80::9\"",
            "interface = \"*\"\nname = \"fabric\"\nrouter-advertisements = true",
            "interface = \"gone0\"",
            "address = \"192.0.2.1\"\nname = \"fabric-eth3\"",
        ]);
        let links = [
            link(1, "lo", &["::1"]),
            link(2, "eth1", &["fe80::2"]),
            link(3, "eth2", &["2001:db8::3", "fe80::3"]),
            link(4, "eth3", &[]),
        ];
        let mut known = Neighbors::new(Discovery::new(Clock::start(), 1));
        known.own.follow(&links);
        let all = matching(&config, &links, usize::MAX);
        let (found, refused) = peers(&config, all, &links, &known);
        let shown: Vec<_> = found
            .iter()
            .map(|peer| {
                let (address, index) = off_interface(peer.session.address);
                (&*peer.name, address.to_string(), index.map(NonZeroU32::get), &peer.session.idle)
            })
            .collect();
        let none = |why: &str| Some(Arc::from(why));
        let (waits, gone) = (none(WAITING), none("there is no interface gone0"));
        assert_eq!(
            shown,
            [
                ("eth1", "fe80::9".to_owned(), Some(2), &None),
                ("fabric-eth2", "fe80::".to_owned(), Some(3), &waits),
                ("gone0", "fe80::".to_owned(), Some(ABSENT + 2), &gone),
            ]
        );
        let names: Vec<&str> = refused.iter().map(|peer| &*peer.name).collect();
        assert_eq!(names, ["fabric-eth3"], "a peer with an address has the name");

        // A start waits for a given neighbour, and for one that may yet be found.
        let waits = |links: &[Link]| {
            found.iter().map(|peer| may_come_up(&peer.session, links)).collect::<Vec<_>>()
        };
        assert_eq!(waits(&links), [true, true, false]);
        let down = links.clone().map(|link| Link { running: false, ..link });
        assert_eq!(waits(&down), [true, false, false]);

        // An idle peer whose interface is renamed has not changed.
        let mut renamed = links.clone();
        renamed[2].name = "eth9".into();
        let all = matching(&config, &renamed, usize::MAX);
        let (after, _) = peers(&config, all, &renamed, &known);
        assert_eq!(after[1].name.as_ref(), "fabric-eth9");
        assert_eq!(after[1].session, found[1].session);

        // Neither on the loopback interface, nor where the address is given.
        let wanted = wanted(matching(&config, &links, 3), &known.own);
        let shown: Vec<_> = wanted.iter().map(|w| (&*w.name, w.advertises, w.local)).collect();
        let local = Some("fe80::3".parse().unwrap());
        assert_eq!(shown, [("eth2", true, local), ("eth3", true, None)]);
        let few: Vec<_> = matching(&config, &links, 2).map(|(link, _)| &*link.name).collect();
        assert_eq!(few, ["eth1", "eth2"]);
    }

    #[test]
    fn our_address_is_kept_while_the_interface_has_it_or_no_other() {
        let mut own = OwnAddresses::default();
        let mut used = |addresses: &[&str]| {
            own.follow(&[link(2, "eth1", addresses)]);
            own.0.get(&2).map(Ipv6Addr::to_string).unwrap_or_default()
        };
        assert_eq!(used(&["2001:db8::1"]), "");
        assert_eq!(used(&["fe80::b"]), "fe80::b");
        assert_eq!(used(&["fe80::a", "fe80::b"]), "fe80::b", "a lower one comes later");
        assert_eq!(used(&[]), "fe80::b", "the link is down");
        assert_eq!(used(&["fe80::a", "fe80::b"]), "fe80::b");
        assert_eq!(used(&["fe80::a"]), "fe80::a", "it was removed");
        own.follow(&[]);
        assert!(own.0.is_empty(), "the interface is gone");
    }

    #[test]
    fn a_given_source_address_is_the_one_of_router_advertisements() {
        let config = config(&["interface = \"eth1\"\nsource-address = \"fe80::b\""]);
        let local = |addresses: &[&str]| {
            let links = [link(2, "eth1", addresses)];
            let mut own = OwnAddresses::default();
            own.follow(&links);
            wanted(matching(&config, &links, 1), &own).first().and_then(|wanted| wanted.local)
        };
        assert_eq!(local(&["fe80::a", "fe80::b"]), Some("fe80::b".parse().unwrap()));
        assert_eq!(local(&["fe80::a"]), None, "it is not there yet");
    }
}
