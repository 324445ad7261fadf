//! `[[originate]]` and `[[redistribute]]`: local routes.

use std::collections::BTreeMap;

use bgp_proto::types::{FibKind, Prefix};
use bgp_proto::wire::Origin;

use super::host::read_protocol;
use super::policy::Policies;
use super::reader::{Table, Value};
use super::vrf::{In, Vrf, read_vrf};
use super::{FibSettings, Originate, Redistribute, RedistributeFrom};

/// A route that [`Redistribute`] may select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRoute<'a> {
    /// Destination.
    pub prefix: Prefix,
    /// Where it comes from.
    pub from: RedistributeFrom,
    /// rtm_protocol.
    pub protocol: u8,
    /// The interface of its first hop, if it has one.
    pub interface: Option<&'a str>,
}

impl Redistribute {
    /// Whether the rule selects the route.
    pub fn selects(&self, route: &KernelRoute<'_>) -> bool {
        self.from == route.from
            && self.selects_protocol(route.protocol)
            && self.selects_interface(route.interface)
            && (self.prefixes.is_empty() || self.prefixes.iter().any(|p| p.contains(route.prefix)))
    }

    fn selects_protocol(&self, protocol: u8) -> bool {
        match self.from {
            RedistributeFrom::Connected => true,
            RedistributeFrom::Kernel if self.protocols.is_empty() => protocol > 2,
            RedistributeFrom::Kernel => self.protocols.contains(&protocol),
        }
    }

    fn selects_interface(&self, interface: Option<&str>) -> bool {
        if self.interfaces.is_empty() {
            return true;
        }
        let Some(name) = interface else { return false };
        let decided = self.interfaces.iter().find_map(|glob| match glob.strip_prefix('-') {
            Some(excluded) => bgp_proto::policy::glob_matches(excluded, name).then_some(false),
            None => bgp_proto::policy::glob_matches(glob, name).then_some(true),
        });
        decided.unwrap_or(false)
    }
}

pub(super) fn read_originate(root: &Table<'_>, vrfs: &[Vrf]) -> Vec<In<Originate>> {
    let mut seen = BTreeMap::new();
    let mut routes = Vec::new();
    for (number, table) in (1..).zip(root.tables("originate")) {
        let vrf = read_vrf(&table, vrfs);
        let prefix = table.require("prefix", "name the network to announce").and_then(|value| {
            let prefix: Prefix = value.parse()?;
            if prefix.addr().is_multicast() {
                value.fault("is not unicast", "announce unicast networks only");
                return None;
            }
            if let Some(other) = seen.insert((vrf.clone(), prefix), number) {
                value.fault(
                    format_args!("{prefix} is originate[{other}] too"),
                    "keep one entry for each prefix",
                );
            }
            Some(prefix)
        });
        let install = match table.get("kind") {
            Some(value) => value.choice(&[
                ("blackhole", Some(FibKind::Blackhole)),
                ("unreachable", Some(FibKind::Unreachable)),
                ("none", None),
            ]),
            None => Some(Some(FibKind::Blackhole)),
        };
        table.finish();
        if let (Some(prefix), Some(install)) = (prefix, install) {
            routes.push((vrf, Originate { prefix, install, bandwidth: None }));
        }
    }
    routes
}

pub(super) fn read_redistribute(
    root: &Table<'_>,
    policies: &Policies,
    fib: &FibSettings,
    vrfs: &[Vrf],
) -> Vec<In<Redistribute>> {
    let mut rules = Vec::new();
    for table in root.tables("redistribute") {
        let vrf = read_vrf(&table, vrfs);
        let from =
            table.require("from", "write from = \"kernel\" or \"connected\"").and_then(|v| {
                v.choice(&[
                    ("kernel", RedistributeFrom::Kernel),
                    ("connected", RedistributeFrom::Connected),
                ])
            });
        let protocols = table.get("protocols");
        if let (Some(RedistributeFrom::Connected), Some(value)) = (from, &protocols) {
            value.fault_key("does not apply to connected networks", "leave it out");
        }
        let protocols = protocols.map(|value| {
            refuse_empty(&value);
            value.read_list(|v| {
                let number = read_protocol(v)?;
                if number == fib.protocol {
                    v.fault(
                        format_args!("{number} is the number of our own routes (fib.protocol)"),
                        "leave it out: they are never learned",
                    );
                }
                Some(number)
            })
        });
        let interfaces = table.get("interfaces").map(|value| {
            refuse_empty(&value);
            value.read_list(|v| {
                let glob = v.text()?;
                if glob.is_empty() || glob == "-" {
                    v.fault("is empty", "write a pattern such as \"eth*\" or \"-cali*\"");
                }
                Some(glob.to_owned())
            })
        });
        let prefixes = table.get("prefixes").map(|value| {
            refuse_empty(&value);
            value.read_list(Value::parse)
        });
        let origins = [("igp", Origin::Igp), ("incomplete", Origin::Incomplete)];
        let origin = table.get("origin").and_then(|v| v.choice(&origins));
        let policy = table.get("policy").and_then(|v| policies.named(&v));
        table.finish();
        if let Some(from) = from {
            let rule = Redistribute {
                from,
                origin: origin.unwrap_or(Origin::Incomplete),
                protocols: protocols.unwrap_or_default(),
                interfaces: interfaces.unwrap_or_default(),
                prefixes: prefixes.unwrap_or_default(),
                policy,
            };
            rules.push((vrf, rule));
        }
    }
    rules
}

/// Refuses an empty list: an absent list selects everything, but an empty one looks as if it
/// selected nothing.
fn refuse_empty(value: &Value<'_>) {
    if value.list().is_empty() {
        value.fault("is empty", "leave the key out to select everything");
    }
}
