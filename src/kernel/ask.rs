//! Asks the kernel which route it uses for an address (RTM_GETROUTE), and whose that is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::types::Prefix;

use super::foreign::protocol_name;
use super::look::{SeenRoute, seen};
use super::message::{self, KernelRoute, RTM_NEWROUTE};
use super::netlink::RequestSocket;
use super::{Error, Link};

/// The files in which iproute2 names rtm_protocol numbers; later ones take precedence.
const PROTOCOL_FILES: [&str; 2] = ["/usr/share/iproute2/rt_protos", "/etc/iproute2/rt_protos"];
/// Longest of these files that is read, in octets.
const FILE_LEN_MAX: u64 = 64 << 10;

/// What the kernel does with packets to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelAnswer {
    /// The route that it uses.
    pub route: SeenRoute,
    /// The table of the route.
    pub table: u32,
    /// Who installed it, by the name that iproute2 has for it.
    pub owner: String,
    /// The next-hop object that the route refers to; its gateways are not in `route`.
    pub object: Option<u32>,
}

/// The route that the kernel uses for packets from this machine to an address, by its rules. `device` is
/// the index of a VRF's device, in whose table it is looked up. `None`: no route leads there. `links` have
/// the names of interfaces. Needs no privilege.
///
/// # Errors
/// The kernel cannot be queried.
pub fn kernel_route_to(
    addr: IpAddr,
    device: Option<u32>,
    links: &[Link],
) -> Result<Option<KernelAnswer>, Error> {
    const NOWHERE: [i32; 3] = [
        rustix::io::Errno::NETUNREACH.raw_os_error(),
        rustix::io::Errno::HOSTUNREACH.raw_os_error(),
        rustix::io::Errno::ACCESS.raw_os_error(),
    ];
    let mut socket = RequestSocket::open()?;
    let mut found: Option<(Prefix, KernelRoute)> = None;
    let asked = socket.dump(
        |out| message::push_route_question(out, addr, device),
        |header, body| {
            if header.kind == RTM_NEWROUTE {
                found = message::parse_route(body);
            }
        },
    );
    match asked {
        Err(error) if error.raw_os_error().is_some_and(|errno| NOWHERE.contains(&errno)) => {
            return Ok(None);
        }
        Err(source) => return Err(Error::Socket { what: "ask the kernel for a route", source }),
        Ok(_) => {}
    }
    let name = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("#{index}"), |link| link.name.to_string())
    };
    Ok(found.map(|(prefix, route)| KernelAnswer {
        table: route.table,
        owner: owner(route.protocol),
        object: route.object.map(std::num::NonZeroU32::get),
        route: seen(prefix, &route, name),
    }))
}

/// The name of an rtm_protocol number: iproute2's files, otherwise the well-known ones.
fn owner(protocol: u8) -> String {
    let mut names = BTreeMap::new();
    for file in PROTOCOL_FILES {
        let is_small = std::fs::metadata(file).is_ok_and(|meta| meta.len() <= FILE_LEN_MAX);
        if let Some(text) = is_small.then(|| std::fs::read_to_string(file).ok()).flatten() {
            names.extend(named(&text));
        }
    }
    names.remove(&protocol).unwrap_or_else(|| protocol_name(protocol).into_owned())
}

/// The lines of a file: number and name, with comments.
fn named(text: &str) -> impl Iterator<Item = (u8, String)> + '_ {
    text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (number, name) = (words.next()?, words.next()?);
        let hexadecimal = number.strip_prefix("0x").map(|digits| u8::from_str_radix(digits, 16));
        let number = hexadecimal.unwrap_or_else(|| number.parse()).ok()?;
        Some((number, name.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_the_names_of_iproute2() {
        let text = "# a comment\n0\tunspec\n80 felix # Calico\n0xba bgp\nx y\n300 no\n12\n";
        let names: Vec<(u8, String)> = named(text).collect();
        let names: Vec<(u8, &str)> = names.iter().map(|(n, name)| (*n, &**name)).collect();
        assert_eq!(names, [(0, "unspec"), (80, "felix"), (186, "bgp")]);
    }

    /// 127.0.0.1 is reached by a route of the kernel's own making, on any Linux.
    #[test]
    fn the_kernel_says_how_it_reaches_an_address_of_this_machine() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let answer = kernel_route_to(loopback, None, &[]).unwrap().unwrap();
        // Without rules, the kernel looks up addresses of its own with the main table.
        assert!([254, 255].contains(&answer.table), "{answer:?}");
        assert_eq!(&*answer.owner, "kernel", "{answer:?}");
        assert!(answer.route.prefix.contains_addr(loopback), "{answer:?}");
    }
}
