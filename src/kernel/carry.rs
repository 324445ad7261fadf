//! Carries over the routes that an earlier run left in another table or under another protocol
//! number. This happens before anything else; afterwards they are adopted like any other route of
//! an earlier run.
//!
//! If only the protocol number differs, a route is replaced in place, and forwards all the time. In
//! another table it is added before it is deleted from the old one. Routes over next-hop objects of
//! ours get their gateways inline, and the objects are deleted once no route uses them.

use bgp_proto::types::Prefix;

use super::Error;
use super::fib::plan::ids_of_table;
use super::message::{
    self, DumpFamily, KernelKind, KernelRoute, ObjectKind, ObjectOp, ObjectRequest, RTM_NEWROUTE,
    RouteRequest,
};
use super::netlink::{DumpEnd, RequestSocket, Requests};
use super::objects::Objects;

/// Maximum number of routes carried over per dump of a table.
const ROUTES_AT_ONCE: usize = 1 << 16;
/// Maximum number of dumps without progress, after which a table is left as it is.
const ATTEMPTS: usize = 3;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;

/// A table and a protocol number; every route there is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Routing table.
    pub table: u32,
    /// rtm_protocol.
    pub protocol: u8,
}

/// The result of carrying over the routes of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Routes that were moved to the new place, or deleted if there is none.
    pub routes: u64,
    /// Routes that the kernel refused to move or delete.
    pub refused: u64,
}

/// Moves every route of `from` to `to`; deletes them if `to` is `None`.
///
/// # Errors
/// The kernel cannot be queried, or writing is not permitted.
pub fn carry_over(from: Place, to: Option<Place>) -> Result<Carried, Error> {
    let mut socket = RequestSocket::open()?;
    let objects = Objects::read(&mut socket).map_err(cannot_read)?.unwrap_or_default();
    let mut carried = Carried::default();
    for family in [DumpFamily::V4, DumpFamily::V6] {
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            let (routes, end) = read(&mut socket, family, from, &objects)?;
            let refused = move_routes(&mut socket, &routes, from, to)?;
            let moved = as_u64(routes.len()) - refused;
            carried.routes += moved;
            if end == DumpEnd::Complete && routes.len() < ROUTES_AT_ONCE {
                carried.refused += refused;
                break;
            }
            attempts = if moved == 0 { attempts + 1 } else { 0 };
            if attempts == ATTEMPTS {
                carried.refused += refused;
            }
        }
    }
    if carried.refused == 0 {
        delete_objects(&mut socket, from, &objects)?;
    }
    Ok(carried)
}

/// Deletes the next-hop objects of a place, groups before their members.
fn delete_objects(socket: &mut RequestSocket, from: Place, objects: &Objects) -> Result<(), Error> {
    let ids = ids_of_table(from.table);
    let ours = objects
        .iter()
        .filter(|object| object.protocol == from.protocol && ids.contains(&object.id.get()));
    let (groups, legs): (Vec<_>, Vec<_>) =
        ours.partition(|object| matches!(object.kind, ObjectKind::Group(_)));
    let mut requests = Requests::default();
    for object in groups.into_iter().chain(legs) {
        let op = ObjectOp { id: object.id, request: ObjectRequest::Delete };
        requests.push(|out| message::push_object(out, &op, from.protocol));
    }
    execute(socket, &mut requests, &[ENOENT]).map(|_| ())
}

fn read(
    socket: &mut RequestSocket,
    family: DumpFamily,
    from: Place,
    objects: &Objects,
) -> Result<(Vec<(Prefix, KernelRoute)>, DumpEnd), Error> {
    let mut routes: Vec<(Prefix, KernelRoute)> = Vec::new();
    let dumped = socket.dump(
        |out| message::push_route_dump(out, family, from.table),
        |header, body| {
            if header.kind != RTM_NEWROUTE || routes.len() == ROUTES_AT_ONCE {
                return;
            }
            let is_there = |route: &KernelRoute| {
                (route.table, route.protocol, route.tos) == (from.table, from.protocol, 0)
            };
            routes.extend(message::parse_route(body).filter(|(_, route)| is_there(route)));
        },
    );
    for (_, route) in &mut routes {
        objects.expand(route);
        route.object = None;
    }
    Ok((routes, dumped.map_err(cannot_read)?))
}

fn cannot_read(source: std::io::Error) -> Error {
    Error::Socket { what: "read the kernel's routes", source }
}

/// Returns the number of refused requests.
fn move_routes(
    socket: &mut RequestSocket,
    routes: &[(Prefix, KernelRoute)],
    from: Place,
    to: Option<Place>,
) -> Result<u64, Error> {
    if let Some(to) = to {
        let same_table = to.table == from.table;
        let mut requests = Requests::default();
        for (prefix, route) in routes {
            if !matches!(route.kind, KernelKind::Prohibit | KernelKind::Other) {
                let spec = route.spec();
                let request = match same_table {
                    true => RouteRequest::Replace(&spec),
                    // An existing route with this prefix and metric is kept.
                    false => RouteRequest::Add(&spec),
                };
                let Place { table, protocol } = to;
                requests.push(|out| message::push_route(out, request, *prefix, table, protocol));
            }
        }
        let refused = execute(socket, &mut requests, &[EEXIST])?;
        if same_table {
            return Ok(refused);
        }
    }
    let mut requests = Requests::default();
    for (prefix, route) in routes {
        let request = RouteRequest::Withdraw { metric: route.metric, tos: 0 };
        let Place { table, protocol } = from;
        requests.push(|out| message::push_route(out, request, *prefix, table, protocol));
    }
    execute(socket, &mut requests, &[ESRCH])
}

/// Returns the number of requests refused with an error that is not `expected`.
fn execute(
    socket: &mut RequestSocket,
    requests: &mut Requests,
    expected: &[i32],
) -> Result<u64, Error> {
    let failed = |source| Error::Socket { what: "write routes", source };
    let refusals = socket.execute(requests).map_err(failed)?;
    if refusals.iter().any(|refusal| refusal.errno == EPERM) {
        return Err(Error::Permission);
    }
    let refused = refusals.iter().filter(|refusal| !expected.contains(&refusal.errno));
    Ok(as_u64(refused.count()))
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
