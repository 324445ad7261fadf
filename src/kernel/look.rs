//! Reads a routing table and the interfaces once, without following changes.

use std::net::IpAddr;

use bgp_proto::types::Prefix;

use super::fib::view::ViewGateway;
use super::links::Links;
use super::message::{
    self, DumpFamily, KernelKind, KernelRoute, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEXTHOP,
    RTM_NEWROUTE,
};
use super::netlink::{DumpEnd, RequestSocket};
use super::objects::Objects;
use super::{Error, Link};

/// A table that changes during a dump is read at most this many times; then the last dump is used.
const ATTEMPTS: usize = 3;

/// The kernel at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The interfaces, by name.
    pub links: Vec<Link>,
    /// The routes of the table, of any protocol.
    pub routes: Vec<SeenRoute>,
}

/// A route in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRoute {
    /// Destination.
    pub prefix: Prefix,
    /// rtm_protocol: who installed it.
    pub protocol: u8,
    /// RTA_PRIORITY, 0 when absent.
    pub metric: u32,
    /// What the kernel does with its packets.
    pub kind: SeenKind,
    /// The gateways of a unicast route; sorted.
    pub gateways: Vec<ViewGateway>,
}

/// What the kernel does with packets of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenKind {
    /// Forwards or delivers.
    Unicast,
    /// Drops silently.
    Blackhole,
    /// Drops and sends an ICMP error (unreachable and prohibit).
    Unreachable,
    /// Anything else: local and multicast addresses, encapsulations, throw.
    Other,
}

/// Reads the interfaces and the routes of a table, both families. Needs no privilege.
///
/// # Errors
/// The kernel cannot be queried.
pub fn look(table: u32) -> Result<Picture, Error> {
    let mut socket = RequestSocket::open()?;
    let mut links = Links::default();
    socket
        .dump(message::push_link_dump, |header, body| {
            if header.kind == RTM_NEWLINK
                && let Some(link) = message::parse_link(body)
            {
                links.handle_link(link);
            }
        })
        .map_err(failed("read the interfaces"))?;
    socket
        .dump(message::push_address_dump, |header, body| {
            if header.kind == RTM_NEWADDR
                && let Some(address) = message::parse_address(body)
            {
                links.handle_address(address);
            }
        })
        .map_err(failed("read the addresses"))?;
    let mut objects = Objects::default();
    // Kernels before 5.3 refuse, as they have no next-hop objects.
    let _ = socket.dump(message::push_object_dump, |header, body| {
        if header.kind == RTM_NEWNEXTHOP
            && let Some(object) = message::parse_object(body)
        {
            objects.handle_new(object);
        }
    });
    let mut routes = Vec::new();
    for family in [DumpFamily::V4, DumpFamily::V6] {
        for (prefix, mut route) in read(&mut socket, family, table)? {
            objects.expand(&mut route);
            let name = |index| links.name(index).map_or_else(|| format!("#{index}"), str::to_owned);
            routes.push(seen(prefix, &route, name));
        }
    }
    Ok(Picture { links: links.published().to_vec(), routes })
}

fn read(
    socket: &mut RequestSocket,
    family: DumpFamily,
    table: u32,
) -> Result<Vec<(Prefix, KernelRoute)>, Error> {
    let mut routes = Vec::new();
    for _ in 0..ATTEMPTS {
        routes.clear();
        let end = socket.dump(
            |out| message::push_route_dump(out, family, table),
            |header, body| {
                let parsed = (header.kind == RTM_NEWROUTE).then(|| message::parse_route(body));
                routes.extend(parsed.flatten().filter(|(_, route)| route.table == table));
            },
        );
        if end.map_err(failed("read the routes"))? == DumpEnd::Complete {
            break;
        }
    }
    Ok(routes)
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Socket { what, source }
}

pub(super) fn seen(prefix: Prefix, route: &KernelRoute, name: impl Fn(u32) -> String) -> SeenRoute {
    let mut gateways: Vec<ViewGateway> = route
        .hops
        .iter()
        .map(|hop| ViewGateway {
            via: hop.gateway,
            interface: name(hop.ifindex),
            onlink: hop.onlink,
        })
        .collect();
    gateways.sort_by(|a, b| (&a.interface, a.via).cmp(&(&b.interface, b.via)));
    SeenRoute {
        prefix,
        protocol: route.protocol,
        metric: route.metric,
        kind: match route.kind {
            KernelKind::Unicast => SeenKind::Unicast,
            KernelKind::Blackhole => SeenKind::Blackhole,
            KernelKind::Unreachable | KernelKind::Prohibit => SeenKind::Unreachable,
            KernelKind::Encapsulated | KernelKind::Throw | KernelKind::Other => SeenKind::Other,
        },
        gateways,
    }
}

impl Picture {
    /// Whether the address is one of this machine's.
    pub fn has_address(&self, addr: IpAddr) -> bool {
        self.links.iter().any(|link| link.addresses.iter().any(|(own, _)| *own == addr))
    }
}
