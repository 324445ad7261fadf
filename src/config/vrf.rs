//! `[[vrfs]]`, and the key `vrf` of what is inside one.

use std::net::SocketAddr;
use std::sync::Arc;

use bgp_proto::policy::{Change, Policy};

use super::reader::{Table, Value};
use super::{Originate, Redistribute};

/// Longest name of a network device, in octets (IFNAMSIZ without the final zero).
const NAME_MAX: usize = 15;

/// A VRF with its own table. Its device may appear later, or be deleted and made again.
#[derive(Clone, Debug, PartialEq)]
pub struct Vrf {
    /// The name of the VRF's device.
    pub name: Arc<str>,
    /// Addresses on which connections are accepted in it. Default `0.0.0.0:179` and `[::]:179`; if
    /// empty, none are accepted.
    pub listen: Vec<SocketAddr>,
    /// VRFs whose routes it imports.
    pub import: Vec<ImportVrf>,
    /// Routes originated in it, in the order of the file.
    pub originate: Vec<Originate>,
    /// Rules that select its kernel routes to redistribute.
    pub redistribute: Vec<Redistribute>,
}

/// Another VRF, of whose routes a policy imports some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportVrf {
    /// Its name; `None`: the default VRF.
    pub from: Option<Arc<str>>,
    /// Selects the routes, and changes them.
    pub policy: Arc<Policy>,
    /// Most prefixes that are imported, 1 or more. Default 100,000.
    pub prefixes_max: u32,
}

/// The default of `prefixes-max`.
pub(super) const PREFIXES_MAX: u32 = 100_000;

/// Something of the file with the VRF it is in; `None`: the default VRF.
pub(super) type In<T> = (Option<Arc<str>>, T);

/// Finds the policy that a value names.
pub(super) type FindPolicy<'a> = &'a dyn Fn(&Value<'_>) -> Option<Arc<Policy>>;

/// Reads `[[vrfs]]`, without what other tables put into each VRF.
pub(super) fn read(root: &Table<'_>, policy: FindPolicy<'_>) -> Vec<Vrf> {
    let mut vrfs: Vec<Vrf> = Vec::new();
    let mut tables = Vec::new();
    for table in root.tables("vrfs") {
        let name = table.require("name", "set it to the name of the VRF's device");
        let listen = read_listen(&table);
        let name = name.and_then(|value| {
            let name = value.text()?;
            let is_device = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
            if name == "default" {
                value.fault(
                    "is what needs no entry: the default VRF has all that names none",
                    "leave the entry out",
                );
                return None;
            }
            if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_device) {
                value.fault(
                    format_args!("\"{name}\" cannot be the name of a device"),
                    "use the name that `ip link add NAME type vrf table N` was given",
                );
                return None;
            }
            if vrfs.iter().any(|vrf| &*vrf.name == name) {
                value.fault(format_args!("{name} is listed twice"), "keep one entry for each VRF");
                return None;
            }
            Some(name)
        });
        tables.push((name, table));
        vrfs.extend(name.map(|name| Vrf {
            name: name.into(),
            listen,
            import: Vec::new(),
            originate: Vec::new(),
            redistribute: Vec::new(),
        }));
    }
    // Names that come later may be imported from, too.
    for (name, table) in tables {
        let import = read_import(&table, name, &vrfs, policy);
        table.finish();
        if let Some(vrf) = vrfs.iter_mut().find(|vrf| Some(&*vrf.name) == name) {
            vrf.import = import;
        }
    }
    vrfs
}

/// Reads `import-vrf` of the VRF `own`; `None`: the default VRF.
pub(super) fn read_import(
    table: &Table<'_>,
    own: Option<&str>,
    vrfs: &[Vrf],
    find: FindPolicy<'_>,
) -> Vec<ImportVrf> {
    let mut imports: Vec<ImportVrf> = Vec::new();
    for entry in table.tables("import-vrf") {
        let remedy = "set it to the name of one of [[vrfs]], or to \"default\"";
        let from = entry.require("vrf", remedy).and_then(|value| {
            let name = value.text()?;
            if name == own.unwrap_or("default") {
                value.fault("a VRF does not import its own routes", "leave the entry out");
                return None;
            }
            let from = match name {
                "default" => None,
                _ => Some(find_vrf(&value, name, vrfs)?),
            };
            if imports.iter().any(|import| import.from == from) {
                value.fault(format_args!("{name} is listed twice"), "keep one entry for each VRF");
                return None;
            }
            Some(from)
        });
        let remedy = "name the policy that selects routes, or \"all\"";
        let policy = entry.require("policy", remedy).and_then(|value| {
            let policy = find(&value)?;
            let Some(set) = ignored(&policy) else { return Some(policy) };
            value.fault(
                format_args!(
                    "policy \"{}\" has set.{set}, which an import from a VRF ignores: {}",
                    policy.name, IGNORED
                ),
                format_args!("use a policy without set.{set}"),
            );
            None
        });
        let max = entry.get("prefixes-max").and_then(|value| value.integer(1..=u32::MAX));
        let prefixes_max = max.unwrap_or(PREFIXES_MAX);
        entry.finish();
        if let (Some(from), Some(policy)) = (from, policy) {
            imports.push(ImportVrf { from, policy, prefixes_max });
        }
    }
    imports
}

/// Why imported routes take no preference and no next hop from a policy.
const IGNORED: &str =
    "imported routes lose to all others, and have the next hops of the VRF they come from";

/// The key of `set` in a policy that has no effect on imported routes.
fn ignored(policy: &Policy) -> Option<&'static str> {
    policy.rules.iter().flat_map(|rule| &rule.changes).find_map(|change| match change {
        Change::Preference(_) => Some("preference"),
        Change::NextHop(_) => Some("next-hop"),
        _ => None,
    })
}

/// The default of `listen`.
pub(super) fn default_listen() -> Vec<SocketAddr> {
    vec![([0, 0, 0, 0], 179).into(), ([0u16; 8], 179).into()]
}

/// Reads `listen`.
pub(super) fn read_listen(table: &Table<'_>) -> Vec<SocketAddr> {
    let Some(value) = table.get("listen") else {
        return default_listen();
    };
    let mut listen: Vec<SocketAddr> = Vec::new();
    for value in value.list() {
        let Some(address) = value
            .parse_as::<SocketAddr>("an address and port such as \"0.0.0.0:179\" or \"[::]:179\"")
        else {
            continue;
        };
        if address.port() == 0 {
            value.fault("port 0 is not a port", "use 1-65535, usually 179");
        } else if address.ip().is_multicast() {
            value.fault("is a multicast address", "use an address of this machine");
        } else if listen.contains(&address) {
            value.fault(format_args!("{address} is listed twice"), "leave one out");
        } else {
            listen.push(address);
        }
    }
    listen
}

/// Reads the key `vrf`, which names one of `vrfs`.
pub(super) fn read_vrf(table: &Table<'_>, vrfs: &[Vrf]) -> Option<Arc<str>> {
    let value = table.get("vrf")?;
    let name = value.text()?;
    if name == "default" {
        value.fault("the default VRF is that of everything without vrf", "leave vrf out");
        return None;
    }
    find_vrf(&value, name, vrfs)
}

/// The one of `vrfs` that a value names.
fn find_vrf(value: &Value<'_>, name: &str, vrfs: &[Vrf]) -> Option<Arc<str>> {
    let found = vrfs.iter().find(|vrf| &*vrf.name == name);
    if found.is_none() {
        value.fault(
            format_args!("there is no VRF \"{name}\" in this file"),
            format_args!("add [[vrfs]] with name = \"{name}\""),
        );
    }
    found.map(|vrf| Arc::clone(&vrf.name))
}

/// Reads `bind-interface`.
pub(super) fn read_bind_interface(table: &Table<'_>) -> Option<Arc<str>> {
    let value = table.get("bind-interface")?;
    let name = value.text()?;
    if name.is_empty() || name.len() > NAME_MAX {
        value.fault(
            format_args!("\"{name}\" cannot be the name of an interface"),
            format_args!("use a name of 1-{NAME_MAX} octets"),
        );
        return None;
    }
    Some(name.into())
}

/// Refuses the keys that do not apply to `what`.
pub(super) fn refuse(table: &Table<'_>, keys: &[&'static str], what: &str) {
    for value in keys.iter().filter_map(|key| table.get(key)) {
        value.fault_key(what, "leave it out");
    }
}

/// Moves what is in a VRF there; returns the rest.
pub(super) fn sort<T>(
    all: Vec<In<T>>,
    vrfs: &mut [Vrf],
    list: impl Fn(&mut Vrf) -> &mut Vec<T>,
) -> Vec<T> {
    let mut rest = Vec::new();
    for (name, item) in all {
        match vrfs.iter_mut().find(|vrf| Some(&vrf.name) == name.as_ref()) {
            Some(vrf) => list(vrf).push(item),
            None => rest.push(item),
        }
    }
    rest
}
