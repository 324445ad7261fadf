//! A peer by interface: no address, or a link-local one.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use bgp_proto::policy::glob_matches;
use bgp_proto::session::{PassiveMode, PeerConfig};
use bgp_proto::table::PeerRoutes;
use bgp_proto::types::on_interface6;

use super::bfd::BfdSettings;
use super::peer::{self, Context, Nature};
use super::reader::{Table, Value, is_of_word};
use super::{Fallover, PeerEntry};

/// Longest name of an interface, in octets (IFNAMSIZ without the final zero).
const NAME_MAX: usize = 15;

/// The address of a peer whose neighbour is not known: that of no host (RFC 4291 §2.6.1).
const UNKNOWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// Sessions with the neighbours on interfaces, one on each that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfacePeers {
    /// Name of the interface, or a pattern with `*` and `?`.
    pub pattern: String,
    /// The configured name; `None`: peers are named by their interface.
    pub name: Option<Arc<str>>,
    /// The description of each of its peers.
    pub description: Option<Arc<str>>,
    /// The neighbour's link-local address; `None`, the default: it is found by its router
    /// advertisements.
    pub neighbor: Option<Ipv6Addr>,
    /// Whether router advertisements are sent, so that the neighbour finds us. Default false.
    pub advertises: bool,
    /// Session parameters; `address` is `fe80::`, and `source_address` is link-local.
    pub session: Arc<PeerConfig>,
    /// Routing parameters; `name` is empty.
    pub routes: Arc<PeerRoutes>,
    /// BFD for each session; `None`, the default: none.
    pub bfd: Option<Arc<BfdSettings>>,
    /// When sessions end if their link or local address is lost. Default [`Fallover::Fast`].
    pub fallover: Fallover,
}

/// The neighbour on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Neighbor {
    /// Link-local addresses.
    At {
        /// That of the neighbour.
        address: Ipv6Addr,
        /// Ours, which the neighbour expects unless another is configured; `None`: the system chooses.
        source: Option<Ipv6Addr>,
    },
    /// There is no session, for this reason.
    Unknown(Arc<str>),
}

impl InterfacePeers {
    /// The VRF in which their interfaces are; `None`: the default VRF.
    pub fn vrf(&self) -> Option<&Arc<str>> {
        self.session.vrf.as_ref()
    }

    /// Whether there is to be a session on the interface with this name.
    pub fn matches(&self, interface: &str) -> bool {
        glob_matches(&self.pattern, interface)
    }

    /// Whether it may match more than one interface.
    pub fn is_pattern(&self) -> bool {
        self.pattern.contains(['*', '?'])
    }

    /// Our link-local address on every interface, if it is configured.
    pub fn source_address(&self) -> Option<Ipv6Addr> {
        match self.session.source_address? {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        }
    }

    /// The name of the only peer; `None` if the interface is a pattern.
    pub fn fixed_name(&self) -> Option<Arc<str>> {
        (!self.is_pattern()).then(|| self.name_on(&self.pattern))
    }

    /// The name of the peer on an interface: that of the interface; with a configured name, that name,
    /// and for a pattern `NAME-INTERFACE`.
    fn name_on(&self, interface: &str) -> Arc<str> {
        match &self.name {
            Some(name) if self.is_pattern() => format!("{name}-{interface}").into(),
            Some(name) => Arc::clone(name),
            None => interface.into(),
        }
    }

    /// The peer on an interface.
    pub fn peer(&self, interface: &str, ifindex: NonZeroU32, neighbor: &Neighbor) -> PeerEntry {
        let name = self.name_on(interface);
        let (address, source, idle) = match neighbor {
            Neighbor::At { address, source } => (*address, *source, None),
            Neighbor::Unknown(why) => (UNKNOWN, None, Some(Arc::clone(why))),
        };
        let on_link = |address| IpAddr::from(on_interface6(address, ifindex.get()));
        PeerEntry {
            session: Arc::new(PeerConfig {
                address: on_link(address),
                source_address: self.source_address().or(source).map(on_link),
                idle,
                ..PeerConfig::clone(&self.session)
            }),
            routes: Arc::new(PeerRoutes {
                name: Arc::clone(&name),
                ..PeerRoutes::clone(&self.routes)
            }),
            // Without a neighbour there is nobody to send packets to.
            bfd: self.bfd.clone().filter(|_| matches!(neighbor, Neighbor::At { .. })),
            fallover: self.fallover,
            interface: Some(interface.into()),
            description: self.description.clone(),
            name,
        }
    }
}

/// Reads a peer by interface. The caller finishes the table.
pub(super) fn read(table: &Table<'_>, cx: &Context<'_>) -> Option<InterfacePeers> {
    let pattern = table.get("interface").and_then(|value| read_pattern(&value));
    let neighbor = table.get("address").map(|value| read_neighbor(&value));
    super::vrf::refuse(
        table,
        &["bind-interface"],
        "does not apply to a peer by interface, which is on its link",
    );
    let vrf = super::vrf::read_vrf(table, cx.vrfs);
    let advertises = table.get("router-advertisements");
    if let (Some(value), Some(_)) = (&advertises, &neighbor) {
        value.fault_key(
            "excludes address: the neighbour is not to be found by router advertisements",
            "leave one of them out",
        );
    }
    let advertises = advertises.and_then(|value| value.boolean()).unwrap_or(false);
    if let Some(value) = table.get("multihop-ttl") {
        let why = "does not apply to an interface, whose neighbour is on the link";
        value.fault_key(why, "leave it out");
    }
    let port = table.get("port").and_then(|v| v.integer(1..=u16::MAX)).unwrap_or(179);
    let passive = match table.get("passive").and_then(|v| v.boolean()) {
        Some(true) => PassiveMode::Passive,
        _ => PassiveMode::Active,
    };
    let name = peer::read_name(table);
    let description = peer::read_description(table);
    let (session, routes) = peer::read_common(table, cx, &Nature::link_local());
    let mut session = session.map(|session| PeerConfig {
        address: UNKNOWN.into(),
        port,
        passive,
        vrf,
        multihop_ttl: None,
        ..session
    });
    let bfd = peer::read_bfd(table, cx, &mut session);
    let fallover = peer::read_fallover(table, session.as_ref());
    let neighbor = match neighbor {
        Some(read) => Some(read?),
        None => None,
    };
    if let (Some(neighbor), Some(session)) = (neighbor, &session)
        && session.source_address == Some(neighbor.into())
    {
        table.fault_at("source-address", "is the neighbour's address", "use an address of ours");
    }
    Some(InterfacePeers {
        pattern: pattern?,
        name,
        description,
        neighbor,
        advertises,
        session: Arc::new(session?),
        routes: Arc::new(routes?),
        bfd,
        fallover,
    })
}

fn read_pattern(value: &Value<'_>) -> Option<String> {
    let pattern = value.text()?;
    let is_name = |text: &str| {
        !matches!(text, "" | "." | "..") && text.len() <= NAME_MAX && !text.contains(['/', '%'])
    };
    if !is_name(pattern) || !pattern.chars().all(is_of_word) {
        value.fault(
            "is no name of an interface",
            format_args!("write at most {NAME_MAX} octets such as \"eth1\" or \"eth*\""),
        );
        return None;
    }
    Some(pattern.to_string())
}

fn read_neighbor(value: &Value<'_>) -> Option<Ipv6Addr> {
    let remedy = "leave interface out, or address, to find the neighbour by its advertisements";
    peer::read_link_local(value, remedy)
}
