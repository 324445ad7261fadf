//! `[bgp]`, `[[bgp.peers]]` and `[[bgp.dynamic-peers]]`, and the constraints between peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bgp_proto::session::{KeyChain, LocalIdentity, PassiveMode};
use bgp_proto::table::{RouteLimits, VantageCosts};
use bgp_proto::types::{Asn, ClusterId, Prefix, RouterId};

use super::bfd;
use super::interface;
use super::key_chain;
use super::peer::{self, Timers};
use super::policy::Policies;
use super::reader::{Table, Value};
use super::vantage;
use super::vrf::{Vrf, read_import, read_listen};
use super::{BgpConfig, DynamicPeers, InterfacePeers, PeerEntry};

/// Default of `groups-max`.
pub(super) const GROUPS_MAX: usize = 4096;

/// Largest `paths-max`: when one path of a prefix changes, all of them are compared.
const PATHS_MAX: u16 = 1024;

/// Prefix of a value that names an environment variable to read it from.
const FROM_ENVIRONMENT: &str = "env:";

/// The content of `[bgp]`.
pub(super) struct Bgp {
    pub(super) global: BgpConfig,
    pub(super) peers: Vec<PeerEntry>,
    pub(super) interfaces: Vec<InterfacePeers>,
    pub(super) dynamic: Vec<DynamicPeers>,
    pub(super) vantages: VantageCosts,
}

/// Reads `[bgp]`; relative names of password files are resolved from `folder`.
pub(super) fn read(
    root: &Table<'_>,
    policies: &Policies,
    folder: &Path,
    vrfs: &[Vrf],
    key_chains: &[Arc<KeyChain>],
) -> Option<Bgp> {
    let table = root.require("bgp", "begin with asn and router-id")?.table()?;
    let asn = table.require("asn", "set it to our AS number").and_then(|v| read_usable_asn(&v));
    let router_id = table
        .require("router-id", "set it to an IPv4 address of this machine")
        .and_then(|v| read_router_id(&v));
    let cluster_id = table.get("cluster-id").and_then(|v| read_id::<ClusterId>(&v, |id| id.0));
    let listen = read_listen(&table);
    let import = read_import(&table, None, vrfs, &|name| policies.named(name));
    let memory_max = read_memory(&table);
    let groups_max = table.get("groups-max").and_then(|v| v.integer(1..=100_000));
    let limits = read_route_limits(&table, RouteLimits::default());
    let timers = Timers::read(&table, Timers::default());
    let bfd = bfd::read_defaults(&table, folder);
    let vantages = vantage::read_costs(&table);

    // Peers are read even if our own identity is wrong, so that their faults are reported too.
    let identity =
        LocalIdentity { asn: asn.unwrap_or_default(), router_id: router_id.unwrap_or_default() };
    let (identity, bfd) = (&identity, &bfd);
    let cx = peer::Context { identity, timers, limits, policies, folder, bfd, vrfs, key_chains };
    let dynamic = read_dynamic(&table, &cx, &listen);
    let (peers, interfaces) = read_peers(&table, &cx, &listen, &dynamic);
    table.finish();

    let cluster_id = cluster_id.unwrap_or(ClusterId(identity.router_id.0));
    asn.zip(router_id)?;
    let identity = identity.clone();
    let groups_max = groups_max.unwrap_or(GROUPS_MAX);
    let global = BgpConfig { identity, cluster_id, listen, import, groups_max, memory_max };
    Some(Bgp { global, peers, interfaces, dynamic, vantages })
}

/// Reads the limits of single routes; those that are not set are as in `default`.
pub(super) fn read_route_limits(table: &Table<'_>, default: RouteLimits) -> RouteLimits {
    let read =
        |key, max, default| table.get(key).and_then(|v| v.integer(1..=max)).unwrap_or(default);
    RouteLimits {
        as_path_max: read("as-path-max", u16::MAX, default.as_path_max),
        communities_max: read("communities-max", u16::MAX, default.communities_max),
        attributes_max: read("attributes-max", u16::MAX, default.attributes_max),
        paths_max: read("paths-max", PATHS_MAX, default.paths_max),
    }
}

/// `memory-max` in MiB, as octets.
pub(super) fn read_memory(table: &Table<'_>) -> Option<u64> {
    let mebibytes: u64 = table.get("memory-max")?.integer(1..=u64::from(u32::MAX))?;
    Some(mebibytes << 20)
}

/// The addresses on which connections in a VRF are accepted.
fn listen_in<'a>(
    vrf: Option<&Arc<str>>,
    listen: &'a [SocketAddr],
    vrfs: &'a [Vrf],
) -> &'a [SocketAddr] {
    match vrfs.iter().find(|known| Some(&known.name) == vrf) {
        Some(vrf) => &vrf.listen,
        None => listen,
    }
}

/// The key that says so.
fn listen_key(vrf: Option<&Arc<str>>) -> String {
    vrf.map_or_else(|| "bgp.listen".into(), |vrf| format!("listen of VRF {vrf}"))
}

/// The range around `prefix` in the same VRF whose password the kernel would require of it, if it has
/// none of its own.
fn password_around<'a>(
    dynamic: &'a [DynamicPeers],
    vrf: &Option<Arc<str>>,
    prefix: Prefix,
) -> Option<&'a DynamicPeers> {
    let beside = dynamic.iter().filter(|r| r.session.vrf == *vrf);
    let around = beside.filter(|r| r.prefix != prefix && r.prefix.contains(prefix));
    around.max_by_key(|r| r.prefix.len()).filter(|r| r.session.security.md5.is_some())
}

fn read_peers(
    table: &Table<'_>,
    cx: &peer::Context<'_>,
    listen: &[SocketAddr],
    dynamic: &[DynamicPeers],
) -> (Vec<PeerEntry>, Vec<InterfacePeers>) {
    let mut names = BTreeMap::new();
    let (mut patterns, mut interfaces) = (BTreeMap::new(), Vec::new());
    let mut addresses = BTreeMap::new();
    let mut peers = Vec::new();
    for (number, table) in (1..).zip(table.tables("peers")) {
        if table.get("interface").is_some() {
            let Some(by_interface) = interface::read(&table, cx) else {
                table.finish();
                continue;
            };
            let vrf = by_interface.vrf().cloned();
            let pattern = (vrf.clone(), by_interface.pattern.clone());
            if let Some(other) = patterns.insert(pattern, number) {
                table.fault_at(
                    "interface",
                    format_args!(
                        "\"{}\" is the interface of bgp.peers[{other}] too",
                        by_interface.pattern
                    ),
                    "keep one peer for each interface",
                );
            }
            if let Some(name) = by_interface.fixed_name()
                && let Some(other) = names.insert(Arc::clone(&name), number)
            {
                table.fault_at(
                    "name",
                    format_args!("\"{name}\" is the name of bgp.peers[{other}] too"),
                    "give each peer its own name",
                );
            }
            let listen = listen_in(vrf.as_ref(), listen, cx.vrfs);
            check_listens(&table, vrf.as_ref(), listen, by_interface.session.passive);
            table.finish();
            interfaces.push(by_interface);
            continue;
        }
        let Some(entry) = peer::read(&table, cx) else {
            table.finish();
            continue;
        };
        let vrf = &entry.session.vrf;
        let listen = listen_in(vrf.as_ref(), listen, cx.vrfs);
        let remote = SocketAddr::new(entry.session.address, entry.session.port);
        if listen.contains(&remote) {
            table.fault_at(
                "address",
                format_args!("{remote} is our own listening address"),
                "use the neighbour's address",
            );
        }
        check_listens(&table, vrf.as_ref(), listen, entry.session.passive);
        let host = Prefix::host(entry.session.address);
        let place = (vrf, host);
        key_chain::check_around(&table, "address", dynamic, place, &entry.session.security);
        let has_range = dynamic.iter().any(|r| r.prefix == host && r.session.vrf == *vrf);
        if entry.session.security.md5.is_none()
            && !has_range
            && let Some(range) = password_around(dynamic, vrf, host)
        {
            table.fault_at(
                "address",
                format_args!(
                    "{} has no password and lies in the dynamic-peers range {}, which has one: it \
                     could never connect",
                    remote.ip(),
                    range.prefix
                ),
                "give it a password of its own, or the range another prefix",
            );
        }
        if let Some(other) = addresses.insert((vrf.clone(), entry.session.address), number) {
            table.fault_at(
                "address",
                format_args!("{} is the address of bgp.peers[{other}] too", remote.ip()),
                "keep one peer for each address",
            );
        } else if let Some(other) = names.insert(entry.name.clone(), number) {
            table.fault_at(
                "name",
                format_args!("\"{}\" is the name of bgp.peers[{other}] too", entry.name),
                "give each peer its own name",
            );
        }
        table.finish();
        peers.push(entry);
    }
    (peers, interfaces)
}

fn check_listens(
    table: &Table<'_>,
    vrf: Option<&Arc<str>>,
    listen: &[SocketAddr],
    passive: PassiveMode,
) {
    if listen.is_empty() && passive.is_passive() {
        table.fault_at(
            "passive",
            format_args!("the peer can never connect, because {} is empty", listen_key(vrf)),
            "listen somewhere, or dial the peer",
        );
    }
}

fn read_dynamic(
    table: &Table<'_>,
    cx: &peer::Context<'_>,
    listen: &[SocketAddr],
) -> Vec<DynamicPeers> {
    let (mut prefixes, mut labels) = (BTreeMap::new(), BTreeMap::new());
    let mut ranges = Vec::new();
    let mut tables = Vec::new();
    for (number, table) in (1..).zip(table.tables("dynamic-peers")) {
        let Some(range) = peer::read_dynamic(&table, cx) else {
            table.finish();
            continue;
        };
        let vrf = range.session.vrf.as_ref();
        if listen_in(vrf, listen, cx.vrfs).is_empty() {
            table.fault(
                format_args!("peers can never connect, because {} is empty", listen_key(vrf)),
                "listen somewhere, or leave the range out",
            );
        }
        // Peers are called by it and their address, which is unique in one VRF only.
        let label = range.name.as_ref().or(vrf).cloned();
        if let Some(label) = label {
            let (other, of) = labels.entry(label.clone()).or_insert((number, vrf.cloned()));
            if of.as_ref() != vrf {
                table.fault_at(
                    "name",
                    format_args!(
                        "peers of bgp.dynamic-peers[{other}], in another VRF, are called {label}-… too"
                    ),
                    "give each range its own name",
                );
            }
        }
        if let Some(other) = prefixes.insert((range.session.vrf.clone(), range.prefix), number) {
            table.fault_at(
                "prefix",
                format_args!("{} is the range of bgp.dynamic-peers[{other}] too", range.prefix),
                "keep one entry for each range",
            );
        }
        ranges.push(range);
        tables.push(table);
    }
    for (range, table) in ranges.iter().zip(tables) {
        if range.session.security.md5.is_none()
            && let Some(around) = password_around(&ranges, &range.session.vrf, range.prefix)
        {
            table.fault_at(
                "prefix",
                format_args!(
                    "{} has no password and lies in the range {}, which has one: nobody in it could \
                     connect",
                    range.prefix, around.prefix
                ),
                "give it a password of its own, or choose prefixes that do not overlap",
            );
        }
        let place = (&range.session.vrf, range.prefix);
        key_chain::check_around(&table, "prefix", &ranges, place, &range.session.security);
        table.finish();
    }
    ranges
}

/// Reads an AS number: an integer, or a string in asdot notation.
pub(super) fn read_asn(value: &Value<'_>) -> Option<Asn> {
    if value.is_integer() { value.integer(0..=u32::MAX).map(Asn) } else { value.parse() }
}

/// Reads an AS number that is not reserved.
pub(super) fn read_usable_asn(value: &Value<'_>) -> Option<Asn> {
    let asn = read_asn(value)?;
    if !asn.is_usable() {
        value.fault(
            format_args!("{asn} is reserved and cannot be used"),
            "use another AS number, 64512-65534 for private use",
        );
        return None;
    }
    Some(asn)
}

/// Reads our BGP Identifier. `env:NAME` takes it from an environment variable, so that one file can
/// be used on several machines.
fn read_router_id(value: &Value<'_>) -> Option<RouterId> {
    let Some(name) = value.text()?.strip_prefix(FROM_ENVIRONMENT) else {
        return read_id(value, |id: RouterId| id.0);
    };
    let said = std::env::var(name).ok();
    let id = said.as_deref().and_then(|text| text.trim().parse::<RouterId>().ok());
    let id = id.filter(|id| id.0 != 0);
    if id.is_none() {
        let what = match said {
            Some(text) => {
                format!("{name} is \"{text}\" in the environment, which is no BGP Identifier")
            }
            None => format!("{name} is not set in the environment"),
        };
        value.fault(what, "set it to an IPv4 address of this machine, in a pod to status.hostIP");
    }
    id
}

/// Reads an identifier that is written as an IPv4 address and is not zero (RFC 6286 §2.1).
pub(super) fn read_id<T: std::str::FromStr + Copy>(
    value: &Value<'_>,
    bits: impl Fn(T) -> u32,
) -> Option<T> {
    let id: T = value.parse_as("an IPv4 address such as \"10.0.0.1\"")?;
    if bits(id) == 0 {
        value.fault("0.0.0.0 is not an identifier", "use an IPv4 address of this machine");
        return None;
    }
    Some(id)
}
