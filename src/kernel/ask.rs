//! Asks the kernel which route it uses for an address (RTM_GETROUTE), and whose that is.

use std::collections::BTreeMap;
use std::io;
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
pub enum KernelAnswer {
    /// It uses a route.
    Uses(KernelUse),
    /// A route or a rule makes it drop them. It does not say which.
    Drops(KernelDrop),
    /// No route leads there.
    NoRoute,
}

/// The route that the kernel uses for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelUse {
    /// The route that it uses.
    pub route: SeenRoute,
    /// The table of the route.
    pub table: u32,
    /// The next-hop object that the route refers to; its gateways are not in `route`.
    pub object: Option<u32>,
}

impl KernelUse {
    /// Who installed the route, by the name that iproute2 has for it, for which its files are read.
    pub fn owner(&self) -> String {
        owner(self.route.protocol)
    }
}

/// How the kernel drops packets, by the name that iproute2 has for the type of the route or rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelDrop {
    /// Silently.
    Blackhole,
    /// With ICMP host unreachable.
    Unreachable,
    /// With ICMP administratively prohibited.
    Prohibit,
}

impl KernelDrop {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            KernelDrop::Blackhole => "blackhole",
            KernelDrop::Unreachable => "unreachable",
            KernelDrop::Prohibit => "prohibit",
        }
    }
}

/// The answer that is an error: the kernel has one for each type of route that drops packets
/// (`fib_props` and `fib6_prop` in its sources).
fn answer_in(error: &io::Error) -> Option<KernelAnswer> {
    match error.raw_os_error()? {
        libc::ENETUNREACH => Some(KernelAnswer::NoRoute),
        libc::EINVAL => Some(KernelAnswer::Drops(KernelDrop::Blackhole)),
        libc::EHOSTUNREACH => Some(KernelAnswer::Drops(KernelDrop::Unreachable)),
        libc::EACCES => Some(KernelAnswer::Drops(KernelDrop::Prohibit)),
        _ => None,
    }
}

/// What the kernel does with packets from this machine to an address, by its rules. `device` is the index
/// of a VRF's device, in whose table the address is looked up. `links` have the names of interfaces. Needs
/// no privilege.
///
/// # Errors
/// The kernel cannot be queried.
pub fn kernel_route_to(
    addr: IpAddr,
    device: Option<u32>,
    links: &[Link],
) -> Result<KernelAnswer, Error> {
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
    if let Err(source) = asked {
        let answer = answer_in(&source);
        return answer.ok_or(Error::Socket { what: "ask the kernel for a route", source });
    }
    let Some((prefix, route)) = found else { return Ok(KernelAnswer::NoRoute) };
    let name = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("#{index}"), |link| link.name.to_string())
    };
    Ok(KernelAnswer::Uses(KernelUse {
        table: route.table,
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
        let answer = kernel_route_to(loopback, None, &[]).unwrap();
        let KernelAnswer::Uses(answer) = answer else { panic!("{answer:?}") };
        // Without rules, the kernel looks up addresses of its own with the main table.
        assert!([254, 255].contains(&answer.table), "{answer:?}");
        assert_eq!(answer.owner(), "kernel", "{answer:?}");
        assert!(answer.route.prefix.contains_addr(loopback), "{answer:?}");
    }
}
