//! `[calico]`: the node whose objects are followed, and where they are stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bgp_proto::table::{PeerLimits, VantageCosts};
use bgp_proto::types::BandwidthScope;

use super::BirdSockets;
use super::bfd::{self, BfdTemplate};
use super::bgp::read_memory;
use super::host::read_bird_sockets;
use super::peer::read_limits;
use super::reader::{Table, Value};
use super::vantage;

/// The content of `[calico]`. Keys that are not set are taken from calico-node's environment, in
/// the same form ([`CalicoSettings::or`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalicoSettings {
    /// The name of the node. Default: the environment's `NODENAME`.
    pub node: Option<String>,
    /// Where the objects are stored. Default: as set in the environment.
    pub datastore: Option<CalicoDatastore>,
    /// A kubeconfig. With a datastore other than Kubernetes, it is used to read Secrets, Services
    /// and EndpointSlices. Default: as set in the environment.
    pub kubeconfig: Option<PathBuf>,
    /// Folders and files with further objects: Kubernetes's Secrets, Services and EndpointSlices,
    /// which are never in etcd.
    pub path: Vec<PathBuf>,
    /// Felix's folder with the status of local workloads. Default: as set in the environment.
    pub endpoint_status: Option<PathBuf>,
    /// The version of Calico on this node. Default: the environment's `MARGAY_CALICO_VERSION`, else
    /// that of ClusterInformation.
    pub version: Option<String>,
    /// Where the objects of the plan in force are stored. Default: as set in the environment.
    pub state_file: Option<StateFile>,
    /// What drains the node besides `margay drain`. Default: as set in the environment
    /// (`MARGAY_DRAIN_BY`), else nothing.
    pub drain_by: Option<DrainBy>,
    /// The label of Nodes whose value is the vantage of a neighbour, such as
    /// `topology.kubernetes.io/zone`. Default: as set in the environment
    /// (`MARGAY_VANTAGE_LABEL`), else none: nodes have no vantage.
    pub vantage_label: Option<String>,
    /// Whether addresses of services are announced with the share of traffic that this node's ready
    /// endpoints ask for. Default: as set in the environment (`MARGAY_ENDPOINT_WEIGHTS`), else
    /// they are not.
    pub endpoint_weights: Option<EndpointWeights>,
    /// Octets per second for each endpoint. Default: [`ENDPOINT_BANDWIDTH`].
    pub endpoint_bandwidth: Option<u64>,
    /// Limits of routes and peers, whatever the objects say.
    pub limits: CalicoLimits,
}

/// What an endpoint counts for in a Link Bandwidth community, in octets per second, unless
/// configured: 10 Mbit/s. Multiples of it are exact in the community's format up to 214 endpoints.
pub const ENDPOINT_BANDWIDTH: u64 = 1_250_000;

/// Whether the address of a service with externalTrafficPolicy Local is announced with a Link
/// Bandwidth community (draft-ietf-idr-link-bandwidth) in proportion to this node's ready endpoints,
/// and how far it goes. Differs from BIRD, which announces it without, as does the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointWeights {
    /// No community.
    #[default]
    Off,
    /// Of the transitive type: external peers get it, and pass it on.
    Transitive,
    /// Of the non-transitive type: internal peers only.
    NonTransitive,
}

impl EndpointWeights {
    /// Each value by the word for it.
    pub const WORDS: [(&str, EndpointWeights); 3] = [
        ("off", EndpointWeights::Off),
        ("transitive", EndpointWeights::Transitive),
        ("non-transitive", EndpointWeights::NonTransitive),
    ];

    /// The value of a word.
    pub fn of_word(word: &str) -> Option<EndpointWeights> {
        let known = Self::WORDS.iter().find(|(known, _)| *known == word);
        known.map(|(_, weights)| *weights)
    }

    /// The type of the community; `None`: there is none.
    pub fn scope(self) -> Option<BandwidthScope> {
        match self {
            EndpointWeights::Off => None,
            EndpointWeights::Transitive => Some(BandwidthScope::Transitive),
            EndpointWeights::NonTransitive => Some(BandwidthScope::NonTransitive),
        }
    }
}

/// What in the node's own object drains it. Default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainBy {
    /// The annotation `margay/drain`, whose value is the reason.
    pub annotation: bool,
    /// `kubectl cordon`, which only the Kubernetes API shows.
    pub cordon: bool,
}

impl DrainBy {
    /// What a list of words means: `annotation`, `cordon`.
    ///
    /// # Errors
    /// The first word that is neither.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<DrainBy, &'a str> {
        let mut by = DrainBy::default();
        for word in words {
            match word {
                "annotation" => by.annotation = true,
                "cordon" => by.cordon = true,
                other => return Err(other),
            }
        }
        Ok(by)
    }
}

impl CalicoSettings {
    /// Fills settings that are not set here from `others`. Limits are not: no variable sets them.
    #[must_use]
    pub fn or(self, others: CalicoSettings) -> CalicoSettings {
        let CalicoSettings {
            node,
            datastore,
            kubeconfig,
            path,
            endpoint_status,
            version,
            state_file,
            drain_by,
            vantage_label,
            endpoint_weights,
            endpoint_bandwidth,
            limits,
        } = self;
        CalicoSettings {
            node: node.or(others.node),
            datastore: datastore.or(others.datastore),
            kubeconfig: kubeconfig.or(others.kubeconfig),
            path: if path.is_empty() { others.path } else { path },
            endpoint_status: endpoint_status.or(others.endpoint_status),
            version: version.or(others.version),
            state_file: state_file.or(others.state_file),
            drain_by: drain_by.or(others.drain_by),
            vantage_label: vantage_label.or(others.vantage_label),
            endpoint_weights: endpoint_weights.or(others.endpoint_weights),
            endpoint_bandwidth: endpoint_bandwidth.or(others.endpoint_bandwidth),
            limits,
        }
    }
}

/// Where the objects of the plan in force are stored, for a start while the datastore is
/// unreachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFile {
    /// In this file.
    At(PathBuf),
    /// They are not stored.
    Off,
}

impl StateFile {
    /// Parses a path, relative to `base`, or `none`.
    pub fn parse(text: &str, base: &Path) -> StateFile {
        match text {
            "none" => StateFile::Off,
            path => StateFile::At(base.join(path)),
        }
    }
}

/// Limits of routes and peers on a Calico node. Differs from BIRD: it has prefix limits, which no
/// object can set, and no memory limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalicoLimits {
    /// Limit of the memory of all routes, in octets. Default: no limit.
    pub memory_max: Option<u64>,
    /// Limits of each session.
    pub peers: PeerLimits,
    /// BFD for every session, which no object of Calico can request. Default: none.
    pub bfd: Option<BfdTemplate>,
    /// Costs between vantages, which no object of Calico can state.
    pub vantages: Arc<VantageCosts>,
}

/// Where Calico's objects are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalicoDatastore {
    /// In etcd v3.
    Etcd(CalicoEtcd),
    /// In the Kubernetes API.
    Kubernetes(CalicoKubernetes),
    /// In the files of [`CalicoSettings::path`].
    Files,
}

/// How to connect to etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoEtcd {
    /// URLs, at least one.
    pub endpoints: Vec<String>,
    /// Certificate authorities that the server's certificate is checked against.
    pub ca_file: Option<PathBuf>,
    /// Our client certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Our user name and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// How to connect to the Kubernetes API. Fields that are not set are taken from the kubeconfig or,
/// without one, from the pod's service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalicoKubernetes {
    /// The server's URL.
    pub endpoint: Option<String>,
    /// Certificate authorities that the server's certificate is checked against.
    pub ca_file: Option<PathBuf>,
    /// Our client certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A file with our token, read again every minute.
    pub token_file: Option<PathBuf>,
    /// API group and version of Calico's objects. Default: as discovered from the server.
    pub api_group: Option<String>,
}

/// Tables that cannot be combined with `[calico]`, because their content follows from the objects.
const REPLACED: [&str; 5] = ["bgp", "policy", "originate", "redistribute", "fib"];

/// Keys for etcd only.
const ETCD: [&str; 3] = ["endpoints", "username", "password-file"];

/// Keys for the Kubernetes API only.
const KUBERNETES: [&str; 3] = ["endpoint", "token-file", "api-group"];

/// Keys for both.
const CERTIFICATES: [&str; 3] = ["ca-file", "cert-file", "key-file"];

/// The values of `datastore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatastoreKind {
    Etcd,
    Kubernetes,
    File,
}

/// Reads `[calico]`, if there is one, and BIRD's sockets in it. Relative paths are resolved from
/// `base`.
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
    let drain_by = table.get("drain-by").and_then(|v| {
        let words = [("annotation", "annotation"), ("cordon", "cordon")];
        DrainBy::of(v.read_list(|word| word.choice(&words))).ok()
    });
    let endpoint_weights =
        table.get("endpoint-weights").and_then(|v| v.choice(&EndpointWeights::WORDS));
    let endpoint_bandwidth =
        table.get("endpoint-bandwidth").and_then(|v| v.integer(1..=1_000_000_000_000u64));
    let bird_sockets = table.get("bird-sockets").and_then(|v| read_bird_sockets(&v));
    let kubeconfig = table.get("kubeconfig").and_then(|v| path_of(&v));
    let kind = table.get("datastore").and_then(|v| {
        v.choice(&[
            ("etcd", DatastoreKind::Etcd),
            ("kubernetes", DatastoreKind::Kubernetes),
            ("file", DatastoreKind::File),
        ])
    });
    let datastore = read_datastore(&table, base, kind, &path);
    let (peers, bfd) = table.get("peers").and_then(|v| read_peers(&v, base)).unwrap_or_default();
    let vantage_label = table.get("vantage-label").and_then(|v| non_empty(&v)).map(str::to_owned);
    let vantages = Arc::new(vantage::read_costs(&table));
    let limits = CalicoLimits { memory_max: read_memory(&table), peers, bfd, vantages };
    table.finish();
    let settings = CalicoSettings {
        node,
        datastore,
        kubeconfig,
        path,
        endpoint_status,
        version,
        state_file,
        drain_by,
        vantage_label,
        endpoint_weights,
        endpoint_bandwidth,
        limits,
    };
    Some((settings, bird_sockets))
}

fn read_datastore(
    table: &Table<'_>,
    base: &Path,
    kind: Option<DatastoreKind>,
    path: &[PathBuf],
) -> Option<CalicoDatastore> {
    let etcd = "says how etcd is reached";
    let kubernetes = "says how the Kubernetes API is reached";
    let server = "says how a server is reached";
    match kind {
        Some(DatastoreKind::Etcd) => {
            refuse(table, &KUBERNETES, kubernetes, "datastore is \"etcd\"");
            if table.get("endpoints").is_none() {
                table.fault_at(
                    "endpoints",
                    "is missing",
                    "write endpoints = [\"http://127.0.0.1:2379\"]",
                );
            }
            read_etcd(table, base).map(CalicoDatastore::Etcd)
        }
        Some(DatastoreKind::Kubernetes) => {
            refuse(table, &ETCD, etcd, "datastore is \"kubernetes\"");
            Some(CalicoDatastore::Kubernetes(read_kubernetes(table, base)))
        }
        Some(DatastoreKind::File) => {
            let because = "datastore is \"file\"";
            refuse(table, &ETCD, etcd, because);
            refuse(table, &KUBERNETES, kubernetes, because);
            refuse(table, &CERTIFICATES, server, because);
            if path.is_empty() {
                table.fault_at("path", "is missing", "write path = \"/etc/margay/calico\"");
            }
            Some(CalicoDatastore::Files)
        }
        None => {
            let because = "datastore is left to the environment";
            refuse(table, &ETCD, etcd, because);
            refuse(table, &KUBERNETES, kubernetes, because);
            refuse(table, &CERTIFICATES, server, because);
            None
        }
    }
}

/// Reads `[calico.peers]`: settings of every session that follows from the objects.
fn read_peers(value: &Value<'_>, base: &Path) -> Option<(PeerLimits, Option<BfdTemplate>)> {
    let table = value.table()?;
    let limits = read_limits(&table);
    let bfd = bfd::read(&table, &BfdTemplate::default(), None, base);
    table.finish();
    Some((limits, bfd))
}

fn refuse(table: &Table<'_>, keys: &[&'static str], what: &str, because: &str) {
    for key in keys {
        if let Some(value) = table.get(key) {
            let remedy = "write the datastore that is meant, or leave the key out";
            value.fault_key(format_args!("{what}, and {because}"), remedy);
        }
    }
}

fn read_kubernetes(table: &Table<'_>, base: &Path) -> CalicoKubernetes {
    let file = |key| table.get(key).and_then(|v| absolute(&v, base));
    let group = table.get("api-group").and_then(|v| {
        let groups = ["crd.projectcalico.org/v1", "projectcalico.org/v3"];
        v.choice(&groups.map(|group| (group, group)))
    });
    CalicoKubernetes {
        endpoint: table.get("endpoint").and_then(|v| read_endpoint(&v)),
        ca_file: file("ca-file"),
        certificate: both(table, ["cert-file", "key-file"], file("cert-file"), file("key-file")),
        token_file: file("token-file"),
        api_group: group.map(str::to_owned),
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

/// Two keys that are valid only together.
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
