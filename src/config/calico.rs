//! `[calico]`: the node that Calico's objects are read for, and where they are.

use std::path::{Path, PathBuf};

use bgp_proto::bfd::Config;

use super::bfd::{self, BfdTemplate};
use super::bgp::read_memory;
use super::host::read_bird_sockets;
use super::peer::read_limits;
use super::reader::{Table, Value};
use super::{BirdSockets, PeerLimits};

/// `[calico]`, as written. What is left out comes from calico-node's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoSettings {
    /// The node. Default: the environment's `NODENAME`.
    pub node: Option<String>,
    /// Where the objects are. Default: as the environment says.
    pub datastore: Option<CalicoDatastore>,
    /// Folders and files with further objects: Kubernetes' Secrets, Services and EndpointSlices,
    /// which are never in etcd.
    pub path: Vec<PathBuf>,
    /// Felix's folder of local workloads. Default: as the environment says.
    pub endpoint_status: Option<PathBuf>,
    /// The version of Calico on this node. Default: the environment's `MARGAY_CALICO_VERSION`, then
    /// what ClusterInformation says.
    pub version: Option<String>,
    /// Where the objects of the plan in force are kept. Default: as the environment says.
    pub state_file: Option<StateFile>,
    /// What routes may take, whatever the objects say.
    pub limits: CalicoLimits,
}

/// Where the objects of the plan in force are kept, for a start while the datastore is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFile {
    /// In this file.
    At(PathBuf),
    /// They are not.
    Off,
}

impl StateFile {
    /// Reads a path, or `none`.
    pub fn parse(text: &str, base: &Path) -> StateFile {
        match text {
            "none" => StateFile::Off,
            path => StateFile::At(base.join(path)),
        }
    }
}

/// What routes may take on a Calico node. Differs from BIRD: it has limits of prefixes, which no
/// object can set, and none of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalicoLimits {
    /// Octets that all routes may hold. Default: no limit.
    pub memory_max: Option<u64>,
    /// What each session may bring.
    pub peers: PeerLimits,
    /// BFD beside every session. No object of Calico's can ask for it. Default: none.
    pub bfd: Option<BfdTemplate>,
}

/// Where Calico's objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalicoDatastore {
    /// In etcd v3.
    Etcd(CalicoEtcd),
    /// In the files that [`CalicoSettings::path`] names.
    Files,
}

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoEtcd {
    /// URLs, at least one.
    pub endpoints: Vec<String>,
    /// Authorities that may have signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Our name and the file with our password.
    pub user: Option<(String, PathBuf)>,
}

/// Tables whose content follows from Calico's objects.
const REPLACED: [&str; 5] = ["bgp", "policy", "originate", "redistribute", "fib"];

/// Keys that say how etcd is reached.
const ETCD: [&str; 6] =
    ["endpoints", "ca-file", "cert-file", "key-file", "username", "password-file"];

/// The table, if there is one, and BIRD's sockets in it. Relative paths are relative to `base`.
pub(super) fn read(root: &Table<'_>, base: &Path) -> Option<(CalicoSettings, Option<BirdSockets>)> {
    let table = root.get("calico")?.table()?;
    for key in REPLACED {
        if let Some(value) = root.get(key) {
            value.fault_key(
                "follows from Calico's objects where [calico] is",
                "leave one of them out",
            );
        }
    }
    let path_of = |value: &Value<'_>| absolute(value, base);
    let node = table.get("node").and_then(|v| non_empty(&v)).map(str::to_owned);
    let path: Vec<PathBuf> = table.get("path").map(|v| v.read_list(path_of)).unwrap_or_default();
    let endpoint_status = table.get("endpoint-status").and_then(|v| path_of(&v));
    let version = table.get("version").and_then(|v| non_empty(&v)).map(str::to_owned);
    let state_file = table
        .get("state-file")
        .and_then(|v| non_empty(&v))
        .map(|text| StateFile::parse(text, base));
    let bird_sockets = table.get("bird-sockets").and_then(|v| read_bird_sockets(&v));
    let kind = table.get("datastore").and_then(|v| v.choice(&[("etcd", true), ("file", false)]));
    let etcd = read_etcd(&table, base);
    let datastore = match kind {
        Some(true) => {
            if table.get("endpoints").is_none() {
                table.fault_at(
                    "endpoints",
                    "is missing",
                    "write endpoints = [\"http://127.0.0.1:2379\"]",
                );
            }
            etcd.map(CalicoDatastore::Etcd)
        }
        Some(false) => {
            refuse_etcd_keys(&table, "says how etcd is reached, and datastore is \"file\"");
            if path.is_empty() {
                table.fault_at("path", "is missing", "write path = \"/etc/margay/calico\"");
            }
            Some(CalicoDatastore::Files)
        }
        None => {
            let remedy = "says how etcd is reached, and datastore is left to the environment";
            refuse_etcd_keys(&table, remedy);
            None
        }
    };
    let (peers, bfd) = table.get("peers").and_then(|v| read_peers(&v, base)).unwrap_or_default();
    let limits = CalicoLimits { memory_max: read_memory(&table), peers, bfd };
    table.finish();
    let settings =
        CalicoSettings { node, datastore, path, endpoint_status, version, state_file, limits };
    Some((settings, bird_sockets))
}

/// `[calico.peers]`: what holds for every session that follows from the objects.
fn read_peers(value: &Value<'_>, base: &Path) -> Option<(PeerLimits, Option<BfdTemplate>)> {
    let table = value.table()?;
    let limits = read_limits(&table);
    let bfd = bfd::read(&table, &Config::default(), None, base);
    table.finish();
    Some((limits, bfd))
}

fn refuse_etcd_keys(table: &Table<'_>, what: &str) {
    for key in ETCD {
        if let Some(value) = table.get(key) {
            value.fault_key(what, "write datastore = \"etcd\", or leave the key out");
        }
    }
}

fn read_etcd(table: &Table<'_>, base: &Path) -> Option<CalicoEtcd> {
    let endpoints = table.get("endpoints").map(|v| v.read_list(read_endpoint)).unwrap_or_default();
    let file = |key| table.get(key).and_then(|v| absolute(&v, base));
    let ca_file = file("ca-file");
    let certificate = both(table, ["cert-file", "key-file"], file("cert-file"), file("key-file"));
    let name = table.get("username").and_then(|v| non_empty(&v)).map(str::to_owned);
    let user = both(table, ["username", "password-file"], name, file("password-file"));
    (!endpoints.is_empty()).then_some(CalicoEtcd { endpoints, ca_file, certificate, user })
}

/// Two keys that mean something together only.
fn both<A, B>(
    table: &Table<'_>,
    keys: [&'static str; 2],
    first: Option<A>,
    second: Option<B>,
) -> Option<(A, B)> {
    let [a, b] = keys;
    match (table.get(a), table.get(b)) {
        (Some(value), None) => value.fault_key(format_args!("needs {b}"), "write both"),
        (None, Some(value)) => value.fault_key(format_args!("needs {a}"), "write both"),
        _ => {}
    }
    Some((first?, second?))
}

fn read_endpoint(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = host.map(|h| h.strip_suffix('/').unwrap_or(h));
    if host.is_none_or(|h| h.is_empty() || h.contains(['/', '@', ' ', '?', '#'])) {
        value.fault(
            format_args!("\"{text}\" is not an endpoint"),
            "write http://HOST:PORT or https://HOST:PORT",
        );
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

fn non_empty<'a>(value: &Value<'a>) -> Option<&'a str> {
    let text = value.text()?;
    if text.is_empty() {
        value.fault("is empty", "leave the key out, or name something");
        return None;
    }
    Some(text)
}

fn absolute(value: &Value<'_>, base: &Path) -> Option<PathBuf> {
    non_empty(value).map(|text| base.join(text))
}
