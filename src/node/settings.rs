//! Which node's objects are followed and where they are stored: from a file or from the
//! environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Environment;
use crate::calico::release::Version;
use crate::calico::{Problem, RouterIdSource, Settings, speaks_bgp};
use crate::config::{
    BirdPaths, BirdSockets, CalicoDatastore, CalicoEtcd, CalicoKubernetes, CalicoLimits,
    CalicoSettings, ControlSettings, DrainBy, EndpointWeights, FibSettings, HostSettings,
    HttpSettings, LogFormat, LogLevel, LogSettings, OpenedServices, OpenedSockets, StateFile,
};
use crate::datastore::{
    ApiConfig, ApiEnvError, Blocks, EndpointsConfig, EnvError, EtcdConfig, FilesConfig, Group,
    KubernetesConfig, Password, ServicesConfig, Source, Timings, TlsFiles, User, proxy_variable,
    typha_variable,
};

/// Folder below which Felix writes, unless `CALICO_ENDPOINT_STATUS_PATH_PREFIX` names another.
const STATUS_PATH_PREFIX: &str = "/var/run/calico";
/// Folder of the endpoint-status files in it.
const ENDPOINT_STATUS: &str = "endpoint-status";
/// Name of the file with the objects of the plan in force, beside the file with the node's name.
const STATE_FILE: &str = "margay-objects";
/// The variable that names the sockets for calico-node's own tools.
const BIRD_SOCKETS_VARIABLE: &str = "MARGAY_BIRD_SOCKETS";
/// The variable that names what drains the node.
const DRAIN_VARIABLE: &str = "MARGAY_DRAIN_BY";
/// The variable that says whether services are announced with the share of this node's endpoints.
const WEIGHTS_VARIABLE: &str = "MARGAY_ENDPOINT_WEIGHTS";

/// All settings that are needed to follow a node's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// The settings that influence the plan, apart from objects.
    pub calico: Settings,
    /// The sources of objects. There is no plan before each of them was listed once, or its objects
    /// are known from an earlier run.
    pub sources: Vec<Source>,
    /// The file that stores the objects of the plan in force; `None`: they are not stored.
    pub state_file: Option<PathBuf>,
    /// Limits of routes and peers.
    pub limits: CalicoLimits,
    /// The settings that concern this machine only.
    pub host: HostSettings,
    /// Settings of the environment that are not supported, by variable.
    pub notes: Vec<Problem>,
}

impl NodeSettings {
    /// The same for the objects of all nodes: their blocks are read too, and no local workloads.
    ///
    /// # Errors
    /// Not all blocks can be read; the text says why, and what to do.
    pub fn of_cluster(mut self) -> Result<Self, String> {
        self.sources.retain(|source| !matches!(source, Source::Endpoints(_)));
        for source in &mut self.sources {
            match source {
                Source::Etcd(config) if config.blocks != Blocks::PodCidrs => {
                    config.blocks = Blocks::OfAllNodes;
                }
                Source::Kubernetes(config) if config.use_pod_cidr => {
                    return Err("with USE_POD_CIDR, of other Nodes the metadata is read alone, and their \
                                pod CIDRs are not among it: simulate from an export, with --resources"
                        .to_owned());
                }
                Source::Kubernetes(config) => config.all_blocks = true,
                _ => {}
            }
        }
        Ok(self)
    }

    /// Whether Services, EndpointSlices and Secrets are read only as far as the plan needs them.
    pub fn asks_services(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Services(_)))
    }
}

/// Why the settings cannot be used: one line that names the key or variable and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nothing names the node.
    #[error(
        "NODENAME is not set and {} is not there: name the node in NODENAME, or in calico.node of \
         a file given with --config", .0.display()
    )]
    NoNode(PathBuf),
    /// The datastore is of a type that margay does not read.
    #[error(
        "DATASTORE_TYPE is \"{0}\", which margay does not read: use kubernetes, or etcdv3 with etcd's \
         URLs in ETCD_ENDPOINTS, or a folder of objects in a file with --config ([calico] \
         datastore = \"file\")"
    )]
    Datastore(String),
    /// The variables for etcd are missing or wrong.
    #[error("{0}")]
    Etcd(#[from] EnvError),
    /// The variables for the Kubernetes API are missing or wrong.
    #[error("{0}")]
    Kubernetes(#[from] ApiEnvError),
    /// The version of Calico cannot be parsed.
    #[error("calico.version (MARGAY_CALICO_VERSION): {0}")]
    Version(String),
    /// The value of a variable cannot be used.
    #[error("{variable} is \"{value}\": {remedy}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
}

impl NodeSettings {
    /// From calico-node's environment alone; `None` if it says that this node does not use BGP
    /// ([`speaks_bgp`]).
    ///
    /// In addition to Calico's variables, these are read: `MARGAY_CALICO_VERSION` (the version of
    /// Calico on this node; default: that of ClusterInformation), `MARGAY_STATE_FILE` (the file
    /// that stores the objects of the plan in force, or `none`; default: beside the node's name),
    /// `MARGAY_SOCKET` (control socket), `MARGAY_HTTP` (address of metrics and health; default: not
    /// served), `MARGAY_LOG_FORMAT` (`auto`, the default, `text`, `json` or `journal`), `MARGAY_DRAIN_BY`
    /// (`annotation`, `cordon` or both; default: nothing), `MARGAY_VANTAGE_LABEL` (the label of Nodes
    /// whose value is a neighbour's vantage; default: none), `MARGAY_ENDPOINT_WEIGHTS` (`transitive`,
    /// `non-transitive` or `off`, the default) and, unless a file sets it,
    /// `MARGAY_BIRD_SOCKETS` (one path for IPv4, a comma, and one for IPv6; or `none`; default:
    /// [`BirdSockets::Calico`]).
    ///
    /// # Errors
    /// A variable is missing or cannot be used.
    pub fn from_env(env: &Environment) -> Result<Option<Self>, SettingsError> {
        let host = HostSettings {
            control: ControlSettings::at(
                env.get("MARGAY_SOCKET").unwrap_or(ControlSettings::DEFAULT_SOCKET),
            ),
            http: read_http(env)?,
            log: LogSettings { level: read_level(env), format: read_log_format(env)? },
            mrt: None,
            bmp: Vec::new(),
        };
        NodeSettings::from_file(CalicoSettings::default(), host, env)
    }

    /// From `[calico]` in a file; keys that are not set there come from the environment. Returns
    /// `None` like [`NodeSettings::from_env`].
    ///
    /// # Errors
    /// See [`NodeSettings::from_env`].
    pub fn from_file(
        file: CalicoSettings,
        mut host: HostSettings,
        env: &Environment,
    ) -> Result<Option<Self>, SettingsError> {
        if !speaks_bgp(&env.variables) {
            return Ok(None);
        }
        if host.control.bird_sockets.is_none() {
            host.control.bird_sockets = Some(read_bird_sockets(env)?);
        }
        let merged = file.or(of_environment(env));
        let node = merged.node.clone();
        let node = node.ok_or_else(|| SettingsError::NoNode(env.nodename_file.clone()))?;
        let mut calico = Settings::from_env(node, &env.variables);
        calico.version.clone_from(&merged.version);
        calico.vantage_label.clone_from(&merged.vantage_label);
        calico.drain_by = match merged.drain_by {
            Some(by) => by,
            None => read_drain_by(env)?,
        };
        calico.endpoint_weights = match merged.endpoint_weights {
            Some(weights) => weights,
            None => read_endpoint_weights(env)?,
        };
        if let Some(bandwidth) = merged.endpoint_bandwidth {
            calico.endpoint_bandwidth = bandwidth;
        }
        if let Some(text) = &calico.version {
            text.parse::<Version>().map_err(SettingsError::Version)?;
        }
        let places = Places::new(&merged, &calico, env)?;
        let mut sources = places.sources(merged.datastore, env)?;
        let mut notes = notes(&sources, env);
        let is_kubernetes = |source: &Source| matches!(source, Source::Kubernetes(_));
        if calico.drain_by.cordon && !sources.iter().any(is_kubernetes) {
            notes.push(Problem::new(
                "calico.drain-by",
                "contains cordon, which is in the Kubernetes API only: use annotation",
            ));
        }
        if !merged.path.is_empty() {
            sources.push(Source::Files(FilesConfig { paths: merged.path }));
        }
        let folders = merged.endpoint_status.into_iter();
        sources.extend(folders.map(|folder| Source::Endpoints(EndpointsConfig { folder })));
        let state_file = match merged.state_file {
            Some(StateFile::At(path)) => Some(path),
            Some(StateFile::Off) | None => None,
        };
        Ok(Some(NodeSettings { calico, sources, state_file, limits: merged.limits, host, notes }))
    }
}

/// The settings of `[calico]` as given by the environment, including defaults. The datastore and
/// its parameters are read by [`Places`], and only if the file does not set them: an invalid
/// variable is an error only if it is needed.
fn of_environment(env: &Environment) -> CalicoSettings {
    let status = env.get("CALICO_ENDPOINT_STATUS_PATH_PREFIX").unwrap_or(STATUS_PATH_PREFIX);
    // Beside the file with the node's name, if that folder exists.
    let beside = || match env.nodename_file.parent().filter(|folder| folder.is_dir()) {
        Some(folder) => StateFile::At(folder.join(STATE_FILE)),
        None => StateFile::Off,
    };
    let state_file = env.get("MARGAY_STATE_FILE");
    CalicoSettings {
        node: env.nodename(),
        endpoint_status: Some(Path::new(status).join(ENDPOINT_STATUS)),
        version: env.get("MARGAY_CALICO_VERSION").map(str::to_owned),
        vantage_label: env.get("MARGAY_VANTAGE_LABEL").map(str::to_owned),
        state_file: Some(
            state_file.map_or_else(beside, |text| StateFile::parse(text, Path::new("/"))),
        ),
        ..CalicoSettings::default()
    }
}

fn etcd_config(etcd: CalicoEtcd, blocks: Blocks) -> EtcdConfig {
    let (cert, key) = etcd.certificate.unzip();
    let user = etcd.user.map(|(name, file)| User { name, password: Password::File(file) });
    EtcdConfig {
        endpoints: etcd.endpoints,
        tls: TlsFiles { ca: etcd.ca_file, cert, key },
        user,
        blocks,
        timings: Timings::default(),
    }
}

/// The parameters of the Kubernetes API, as far as they are known, and what to read from it.
struct Places {
    api: Option<ApiConfig>,
    namespace: String,
    /// The file names a kubeconfig: Services and Secrets are read from the API although files may
    /// contain some as well.
    is_api_given: bool,
    has_files: bool,
    node: String,
    use_pod_cidr: bool,
    follows_cordon: bool,
}

impl Places {
    fn new(
        file: &CalicoSettings,
        calico: &Settings,
        env: &Environment,
    ) -> Result<Self, SettingsError> {
        // An invalid environment is an error only if it is needed.
        let of_env = ApiConfig::from_env(&env.variables);
        let needs_env = match &file.datastore {
            Some(CalicoDatastore::Kubernetes(_)) => true,
            Some(_) => false,
            None => datastore_type(env) == "kubernetes",
        };
        let of_env = if needs_env { of_env? } else { of_env.ok().flatten() };
        let api = match &file.kubeconfig {
            Some(kubeconfig) => {
                let base = of_env.unwrap_or_default();
                Some(ApiConfig { kubeconfig: Some(kubeconfig.clone()), endpoint: None, ..base })
            }
            None => of_env,
        };
        Ok(Places {
            api,
            namespace: calico.namespace.clone(),
            is_api_given: file.kubeconfig.is_some(),
            has_files: !file.path.is_empty(),
            node: calico.node.clone(),
            use_pod_cidr: calico.use_pod_cidr,
            follows_cordon: calico.drain_by.cordon,
        })
    }

    /// The source of Calico's objects, and that of Services and Secrets if they are in the API.
    fn sources(
        &self,
        datastore: Option<CalicoDatastore>,
        env: &Environment,
    ) -> Result<Vec<Source>, SettingsError> {
        let mut sources = Vec::new();
        match datastore {
            Some(CalicoDatastore::Etcd(etcd)) => {
                sources.push(Source::Etcd(etcd_config(etcd, self.blocks())));
            }
            Some(CalicoDatastore::Kubernetes(kubernetes)) => {
                return self.of_kubernetes(kubernetes, env);
            }
            Some(CalicoDatastore::Files) => {}
            None => match datastore_type(env) {
                "etcdv3" => {
                    let etcd = EtcdConfig::from_env(&env.variables, self.blocks())?;
                    sources.push(Source::Etcd(etcd));
                }
                "kubernetes" => return self.of_kubernetes(CalicoKubernetes::default(), env),
                other => return Err(SettingsError::Datastore(other.to_owned())),
            },
        }
        // Two sources of the same Secret would overwrite each other. Where both are possible, files
        // take precedence.
        let is_meant = self.is_api_given || (!self.has_files && !sources.is_empty());
        sources.extend(self.api.clone().filter(|_| is_meant).map(|api| self.services(api)));
        Ok(sources)
    }

    fn of_kubernetes(
        &self,
        file: CalicoKubernetes,
        env: &Environment,
    ) -> Result<Vec<Source>, SettingsError> {
        let known = self.api.clone().or(file.endpoint.is_some().then(ApiConfig::default));
        let known = known.ok_or(ApiEnvError::Nowhere)?;
        let api = ApiConfig {
            endpoint: file.endpoint.or(known.endpoint),
            ca_file: file.ca_file.or(known.ca_file),
            certificate: file.certificate.or(known.certificate),
            token_file: file.token_file.or(known.token_file),
            ..known
        };
        let group = file.api_group.or(env.get("CALICO_API_GROUP").map(str::to_owned));
        let calico = KubernetesConfig {
            api: api.clone(),
            node: self.node.clone(),
            all_blocks: false,
            use_pod_cidr: self.use_pod_cidr,
            follows_cordon: self.follows_cordon,
            group: group.as_deref().map(Group::from_variable),
        };
        Ok(vec![Source::Kubernetes(calico), self.services(api)])
    }

    fn services(&self, api: ApiConfig) -> Source {
        Source::Services(ServicesConfig { api, namespace: self.namespace.clone() })
    }

    fn blocks(&self) -> Blocks {
        if self.use_pod_cidr {
            Blocks::PodCidrs
        } else {
            Blocks::Affinities { node: self.node.clone() }
        }
    }
}

/// `MARGAY_DRAIN_BY`.
fn read_drain_by(env: &Environment) -> Result<DrainBy, SettingsError> {
    let text = env.get(DRAIN_VARIABLE).unwrap_or_default();
    DrainBy::of(text.split(',').map(str::trim).filter(|word| !word.is_empty())).map_err(|_| {
        SettingsError::Variable {
            variable: DRAIN_VARIABLE,
            value: text.to_owned(),
            remedy: "use annotation, cordon, or both with a comma between them",
        }
    })
}

/// `MARGAY_ENDPOINT_WEIGHTS`.
fn read_endpoint_weights(env: &Environment) -> Result<EndpointWeights, SettingsError> {
    let Some(text) = env.get(WEIGHTS_VARIABLE) else { return Ok(EndpointWeights::Off) };
    EndpointWeights::of_word(text).ok_or_else(|| SettingsError::Variable {
        variable: WEIGHTS_VARIABLE,
        value: text.to_owned(),
        remedy: "use transitive, non-transitive or off",
    })
}

/// `DATASTORE_TYPE`. If it is not set: `etcdv3` if there are endpoints of etcd, else `kubernetes`.
fn datastore_type(env: &Environment) -> &str {
    let has_endpoints = ["ETCD_ENDPOINTS", "ETCD_DISCOVERY_SRV"]
        .into_iter()
        .any(|name| env.get_prefixed(name).is_some());
    let default = if has_endpoints { "etcdv3" } else { "kubernetes" };
    env.get_prefixed("DATASTORE_TYPE").unwrap_or(default)
}

/// The settings of the environment that margay does not support.
fn notes(sources: &[Source], env: &Environment) -> Vec<Problem> {
    let mut notes = Vec::new();
    let api = sources.iter().find_map(|source| match source {
        Source::Kubernetes(config) => Some(&config.api),
        _ => None,
    });
    if let (Some(_), Some(variable)) = (api, typha_variable(&env.variables)) {
        notes.push(Problem::new(
            variable,
            "names a Typha, which margay does not use: the Kubernetes API is read directly, which \
             is fine up to about 1,000 nodes",
        ));
    }
    let of_any = sources.iter().find_map(|source| match source {
        Source::Kubernetes(KubernetesConfig { api, .. })
        | Source::Services(ServicesConfig { api, .. }) => Some(api),
        _ => None,
    });
    let url = of_any.and_then(|api| api.endpoint.as_ref().or(api.in_cluster.as_ref()));
    let host = url.and_then(|url| url.split("://").nth(1)).map(|authority| {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        host.trim_matches(['[', ']'])
    });
    if let Some(variable) = host.and_then(|host| proxy_variable(&env.variables, host)) {
        notes.push(Problem::new(
            variable,
            "names a proxy, which margay does not use: the API server is connected to directly",
        ));
    }
    notes
}

fn read_http(env: &Environment) -> Result<Option<HttpSettings>, SettingsError> {
    let Some(text) = env.get("MARGAY_HTTP") else { return Ok(None) };
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(Some(HttpSettings::at(address))),
        _ => Err(SettingsError::Variable {
            variable: "MARGAY_HTTP",
            value: text.to_owned(),
            remedy: "write an address and port such as 127.0.0.1:9479",
        }),
    }
}

fn read_bird_sockets(env: &Environment) -> Result<BirdSockets, SettingsError> {
    let text = match env.get(BIRD_SOCKETS_VARIABLE) {
        None => return Ok(BirdSockets::Calico),
        Some("none") => return Ok(BirdSockets::Off),
        Some(text) => text,
    };
    let paths: Vec<PathBuf> = text.split(',').map(|path| path.trim().into()).collect();
    match paths.as_slice() {
        [ipv4, ipv6] if ipv4.is_absolute() && ipv6.is_absolute() && ipv4 != ipv6 => {
            Ok(BirdSockets::At(BirdPaths { ipv4: ipv4.clone(), ipv6: ipv6.clone() }))
        }
        _ => Err(SettingsError::Variable {
            variable: BIRD_SOCKETS_VARIABLE,
            value: text.to_owned(),
            remedy: "write an absolute path for IPv4, a comma and one for IPv6, or none",
        }),
    }
}

/// The level of `BGP_LOGSEVERITYSCREEN`, which uses Calico's words; `info` if it is not one of
/// them.
fn read_level(env: &Environment) -> LogLevel {
    match env.get("BGP_LOGSEVERITYSCREEN").unwrap_or_default().to_ascii_lowercase().as_str() {
        "debug" => LogLevel::Debug,
        "warning" => LogLevel::Warn,
        "error" | "fatal" | "panic" => LogLevel::Error,
        _ => LogLevel::Info,
    }
}

fn read_log_format(env: &Environment) -> Result<LogFormat, SettingsError> {
    match env.get("MARGAY_LOG_FORMAT") {
        None | Some("auto") => Ok(LogFormat::Auto),
        Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some("journal") => Ok(LogFormat::Journal),
        Some(other) => Err(SettingsError::Variable {
            variable: "MARGAY_LOG_FORMAT",
            value: other.to_owned(),
            remedy: "write auto, text, json or journal",
        }),
    }
}

/// The output of `margay check`: what would be followed. It names files with passwords, and never
/// contains a password.
impl fmt::Display for NodeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { node, router_id, kubernetes_node, .. } = &self.calico;
        writeln!(f, "runs as Calico node {node}")?;
        match router_id {
            RouterIdSource::Address => writeln!(f, "router id: the node's IPv4 address")?,
            RouterIdSource::Hash => writeln!(f, "router id: a hash of the node's name")?,
            RouterIdSource::Given(text) => writeln!(f, "router id: {text}")?,
        }
        if kubernetes_node != node {
            writeln!(f, "endpoints call the node {kubernetes_node}")?;
        }
        if !self.calico.advertise_cluster_ips.is_empty() {
            writeln!(f, "advertises cluster IPs {}", self.calico.advertise_cluster_ips)?;
        }
        if self.calico.use_pod_cidr {
            writeln!(f, "blocks are the node's pod CIDRs")?;
        }
        if let Some(version) = &self.calico.version {
            writeln!(f, "Calico {version}")?;
        }
        for source in &self.sources {
            writeln!(f, "reads {}", describe(source))?;
        }
        for note in &self.notes {
            writeln!(f, "{} {}", note.object, note.text)?;
        }
        match &self.state_file {
            Some(path) => writeln!(f, "keeps what it read in {}", path.display())?,
            None => writeln!(f, "does not keep what it read (calico.state-file)")?,
        }
        let FibSettings { table, protocol, .. } = FibSettings::calico();
        writeln!(f, "writes routes to kernel table {table} as protocol {protocol}")?;
        write!(f, "{}", self.limits)?;
        write!(f, "{}", OpenedSockets(&self.host.control))?;
        match self.host.control.bird_sockets.as_ref().and_then(BirdSockets::paths) {
            Some(BirdPaths { ipv4, ipv6 }) => {
                writeln!(f, "BIRD's sockets {} and {}", ipv4.display(), ipv6.display())?;
            }
            None => writeln!(f, "no BIRD's sockets (bird-sockets)")?,
        }
        write!(f, "{}", OpenedServices(&self.host))
    }
}

/// A short description of a source, without secrets.
pub(super) fn describe(source: &Source) -> String {
    match source {
        Source::Etcd(etcd) => {
            let user = etcd.user.as_ref().map(|user| format!(" as {}", user.name));
            let cert = etcd.tls.cert.as_ref().map(|c| format!(" with {}", c.display()));
            let endpoints = etcd.endpoints.join(", ");
            format!("etcd at {endpoints}{}{}", user.unwrap_or_default(), cert.unwrap_or_default())
        }
        Source::Kubernetes(config) => format!("the Kubernetes API at {}", config.api),
        Source::Services(config) => {
            let ServicesConfig { api, namespace } = config;
            format!("Services and Secrets of {namespace} in the Kubernetes API at {api}")
        }
        Source::Files(files) => {
            let paths: Vec<String> = files.paths.iter().map(|p| p.display().to_string()).collect();
            format!("files in {}", paths.join(", "))
        }
        Source::Endpoints(endpoints) => {
            format!("local workloads in {}", endpoints.folder.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_proto::table::PeerLimits;

    fn env(variables: &[(&str, &str)]) -> Environment {
        Environment {
            variables: variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            nodename_file: "/nonexistent/nodename".into(),
        }
    }

    fn from_env(variables: &[(&str, &str)]) -> Result<Option<NodeSettings>, String> {
        NodeSettings::from_env(&env(variables)).map_err(|e| e.to_string())
    }

    const ETCD: (&str, &str) = ("ETCD_ENDPOINTS", "http://10.0.0.1:2379");
    const NODE: (&str, &str) = ("NODENAME", "n1");

    #[test]
    fn the_environment_alone_is_enough() {
        let settings = from_env(&[
            NODE,
            ETCD,
            ("CALICO_ROUTER_ID", "hash"),
            ("MARGAY_HTTP", "127.0.0.1:9479"),
            ("MARGAY_LOG_FORMAT", "json"),
            ("CALICO_ENDPOINT_STATUS_PATH_PREFIX", "/status"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.calico.node, "n1");
        let [Source::Etcd(etcd), Source::Endpoints(endpoints)] = settings.sources.as_slice() else {
            panic!("{:?}", settings.sources);
        };
        assert_eq!(etcd.blocks, Blocks::Affinities { node: "n1".into() });
        assert_eq!(endpoints.folder, PathBuf::from("/status/endpoint-status"));
        assert_eq!(settings.host.control.bird_sockets, Some(BirdSockets::Calico));
        assert_eq!(settings.host.log.format, LogFormat::Json);
        let shown = settings.to_string();
        for line in ["runs as Calico node n1", "reads etcd at http://10.0.0.1:2379"] {
            assert!(shown.lines().any(|l| l == line), "{shown}");
        }
    }

    #[test]
    fn a_node_without_bgp_runs_nothing() {
        for backend in ["none", "vxlan"] {
            let variable = ("CALICO_NETWORKING_BACKEND", backend);
            assert_eq!(from_env(&[variable]), Ok(None));
            let file = CalicoSettings {
                node: Some("n1".into()),
                datastore: Some(CalicoDatastore::Files),
                path: vec!["/objects".into()],
                ..CalicoSettings::default()
            };
            let host = from_env(&[NODE, ETCD]).unwrap().unwrap().host;
            assert_eq!(NodeSettings::from_file(file, host, &env(&[variable])), Ok(None));
        }
    }

    #[test]
    fn a_missing_or_invalid_variable_is_named_with_the_remedy() {
        assert!(from_env(&[ETCD]).unwrap_err().starts_with("NODENAME is not set and /nonexistent"));
        let fault = from_env(&[NODE]).unwrap_err();
        assert!(fault.starts_with("DATASTORE_TYPE is kubernetes, and nothing says"), "{fault}");
        let fault = from_env(&[NODE, ("DATASTORE_TYPE", "consul")]).unwrap_err();
        assert!(fault.contains("ETCD_ENDPOINTS"), "{fault}");
        let fault = from_env(&[NODE, ("DATASTORE_TYPE", "etcdv3")]).unwrap_err();
        assert!(fault.starts_with("ETCD_ENDPOINTS is not set"), "{fault}");
        let fault = from_env(&[NODE, ETCD, ("MARGAY_HTTP", "x")]).unwrap_err();
        assert!(fault.starts_with("MARGAY_HTTP is \"x\": write"), "{fault}");
        let fault = from_env(&[NODE, ETCD, ("MARGAY_LOG_FORMAT", "xml")]).unwrap_err();
        assert_eq!(fault, "MARGAY_LOG_FORMAT is \"xml\": write auto, text, json or journal");
    }

    #[test]
    fn a_file_and_the_environment_give_the_same_settings() {
        let by_env = from_env(&[NODE, ETCD]).unwrap().unwrap();
        let file = CalicoSettings {
            node: Some("n1".into()),
            datastore: Some(CalicoDatastore::Etcd(CalicoEtcd {
                endpoints: vec![ETCD.1.into()],
                ca_file: None,
                certificate: None,
                user: None,
            })),
            ..CalicoSettings::default()
        };
        let by_file = NodeSettings::from_file(file.clone(), by_env.host.clone(), &env(&[]));
        assert_eq!(by_file.unwrap().as_ref(), Some(&by_env));

        let peers = PeerLimits {
            prefixes_max: Some(1000),
            memory_max: Some(64 << 20),
            ..PeerLimits::default()
        };
        let limits = CalicoLimits {
            memory_max: Some(512 << 20),
            peers,
            bfd: None,
            ..CalicoLimits::default()
        };
        let limited = CalicoSettings { limits, ..file.clone() };
        let limited = NodeSettings::from_file(limited, by_env.host.clone(), &env(&[]));
        let shown = limited.unwrap().unwrap().to_string();
        for line in
            ["routes hold at most 512 MiB", "every peer, at most 1000 prefixes, at most 64 MiB"]
        {
            assert!(shown.lines().any(|l| l == line), "{shown}");
        }
        let shown = by_env.to_string();
        assert!(shown.contains("no limit to the memory of routes (calico.memory-max)"), "{shown}");

        let secrets = CalicoSettings { path: vec!["/secrets".into()], ..file };
        let mut host = by_env.host;
        let with_secrets =
            NodeSettings::from_file(secrets.clone(), host.clone(), &env(&[])).unwrap().unwrap();
        assert_eq!(with_secrets.sources.len(), 3, "etcd, further objects, local workloads");

        let without = HostSettings {
            control: ControlSettings { bird_sockets: None, ..host.control.clone() },
            ..host.clone()
        };
        let sockets = |variables: &[(&str, &str)]| {
            let host = without.clone();
            let settings = NodeSettings::from_file(secrets.clone(), host, &env(variables));
            settings.unwrap().unwrap().host.control.bird_sockets
        };
        assert_eq!(sockets(&[]), Some(BirdSockets::Calico), "as without a file");
        let named = [("MARGAY_BIRD_SOCKETS", "/a.ctl,/b.ctl")];
        let paths = BirdPaths { ipv4: "/a.ctl".into(), ipv6: "/b.ctl".into() };
        assert_eq!(sockets(&named), Some(BirdSockets::At(paths)));
        assert_eq!(sockets(&[("MARGAY_BIRD_SOCKETS", "none")]), Some(BirdSockets::Off));
        host.control.bird_sockets = Some(BirdSockets::Off);
        let said = NodeSettings::from_file(secrets.clone(), host.clone(), &env(&named)).unwrap();
        assert_eq!(
            said.unwrap().host.control.bird_sockets,
            Some(BirdSockets::Off),
            "the file takes precedence"
        );
    }

    #[test]
    fn what_is_opened_is_listed() {
        let text = "[calico]\nnode = \"n1\"\ndatastore = \"file\"\npath = [\"/objects\"]\n\
                    [control]\nread-only-socket = \"/ro.sock\"\n\
                    [http]\nlisten = \"127.0.0.1:9479\"\nstatus-page = true\n\
                    [[bmp]]\nname = \"noc\"\naddress = \"192.0.2.9\"\n";
        let read = crate::config::Document::parse(Path::new("m.toml"), text);
        let Ok(crate::config::Document::Calico { calico, host }) = read else { panic!("{read:?}") };
        let shown = NodeSettings::from_file(*calico, *host, &env(&[])).unwrap().unwrap();
        let shown = shown.to_string();
        for line in [
            "read-only socket /ro.sock, for every user",
            "metrics and health on http://127.0.0.1:9479",
            "status page on http://127.0.0.1:9479/status/ for this machine",
            "monitoring station noc",
        ] {
            assert!(shown.lines().any(|l| l.starts_with(line)), "{line}: {shown}");
        }
    }

    const POD: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");

    #[test]
    fn in_a_pod_the_kubernetes_api_is_the_default() {
        let settings = from_env(&[
            NODE,
            POD,
            ("CALICO_API_GROUP", "projectcalico.org/v3"),
            ("NAMESPACE", "calico-system"),
            ("FELIX_TYPHAK8SSERVICENAME", "calico-typha"),
            ("HTTPS_PROXY", "http://proxy:3128"),
        ]);
        let settings = settings.unwrap().unwrap();
        let [Source::Kubernetes(calico), Source::Services(services), Source::Endpoints(_)] =
            settings.sources.as_slice()
        else {
            panic!("{:?}", settings.sources);
        };
        assert_eq!((calico.group, calico.node.as_str()), (Some(Group::V3), "n1"));
        assert_eq!(services.namespace, "calico-system");
        assert_eq!(services.api, calico.api);
        let shown = settings.to_string();
        for part in [
            "reads the Kubernetes API at https://10.96.0.1:443",
            "FELIX_TYPHAK8SSERVICENAME names a Typha",
            "HTTPS_PROXY names a proxy",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn with_etcd_services_and_secrets_come_from_the_api_unless_there_are_files() {
        let kinds = |settings: &NodeSettings| {
            let is_api = |source: &Source| matches!(source, Source::Services(_));
            settings.sources.iter().filter(|source| is_api(source)).count()
        };
        assert_eq!(kinds(&from_env(&[NODE, ETCD]).unwrap().unwrap()), 0);
        let by_env = from_env(&[NODE, ETCD, POD]).unwrap().unwrap();
        assert_eq!(kinds(&by_env), 1);
        let file = |kubeconfig: Option<&str>, path: &[&str]| {
            let file = CalicoSettings {
                node: Some("n1".into()),
                kubeconfig: kubeconfig.map(PathBuf::from),
                path: path.iter().map(PathBuf::from).collect(),
                ..CalicoSettings::default()
            };
            let host = by_env.host.clone();
            NodeSettings::from_file(file, host, &env(&[ETCD, POD])).unwrap().unwrap()
        };
        assert_eq!(kinds(&file(None, &[])), 1);
        assert_eq!(kinds(&file(None, &["/objects"])), 0);
        assert_eq!(kinds(&file(Some("/kubeconfig"), &["/objects"])), 1);
    }

    #[test]
    fn a_file_can_set_the_parameters_of_the_kubernetes_api() {
        let kubernetes = CalicoKubernetes {
            endpoint: Some("https://api:6443".into()),
            token_file: Some("/token".into()),
            api_group: Some("crd.projectcalico.org/v1".into()),
            ..CalicoKubernetes::default()
        };
        let file = CalicoSettings {
            node: Some("n1".into()),
            datastore: Some(CalicoDatastore::Kubernetes(kubernetes)),
            ..CalicoSettings::default()
        };
        let host = from_env(&[NODE, ETCD]).unwrap().unwrap().host;
        let settings = NodeSettings::from_file(file, host, &env(&[])).unwrap().unwrap();
        let Some(Source::Kubernetes(calico)) = settings.sources.first() else {
            panic!("{:?}", settings.sources);
        };
        assert_eq!(calico.group, Some(Group::V1));
        assert_eq!(calico.api.token_file, Some("/token".into()));
        assert!(settings.to_string().contains("reads the Kubernetes API at https://api:6443"));
    }
}
