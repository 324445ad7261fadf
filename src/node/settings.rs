//! Whose objects are followed, and where they are: from a file or from the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Environment;
use crate::calico::release::Version;
use crate::calico::{RouterIdSource, Settings, speaks_bgp};
use crate::config::{
    BirdPaths, BirdSockets, CalicoDatastore, CalicoEtcd, CalicoLimits, CalicoSettings,
    ControlSettings, HostSettings, HttpSettings, LogFormat, LogLevel, LogSettings, StateFile,
};
use crate::datastore::{
    Blocks, EndpointsConfig, EnvError, EtcdConfig, FilesConfig, Password, Source, Timings,
    TlsFiles, User,
};

/// Folder that Felix writes below, unless `CALICO_ENDPOINT_STATUS_PATH_PREFIX` names another.
const STATUS_PATH_PREFIX: &str = "/var/run/calico";
/// Folder of the endpoint-status files in it.
const ENDPOINT_STATUS: &str = "endpoint-status";
/// Beside the file with the node's name: the objects of the plan in force.
const STATE_FILE: &str = "margay-objects";
/// Names the sockets that calico-node's own tools ask.
const BIRD_SOCKETS_VARIABLE: &str = "MARGAY_BIRD_SOCKETS";

/// Everything that following a node's objects needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// What decides about the plan besides objects.
    pub calico: Settings,
    /// Where objects come from. Nothing is decided before each of them was listed once.
    pub sources: Vec<Source>,
    /// Where the objects of the plan in force are kept; `None`: they are not.
    pub state_file: Option<PathBuf>,
    /// What routes may take.
    pub limits: CalicoLimits,
    /// What concerns this machine only.
    pub host: HostSettings,
}

/// Why it is not known what to follow. One line that names the key or variable and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nothing names the node.
    #[error(
        "NODENAME is not set and {} is not there: name the node in NODENAME, or in calico.node of \
         a file given with --config", .0.display()
    )]
    NoNode(PathBuf),
    /// The datastore is not one that is read.
    #[error(
        "DATASTORE_TYPE is \"{0}\", which margay does not read: give etcd's URLs in ETCD_ENDPOINTS \
         with DATASTORE_TYPE etcdv3, or a folder of objects in a file with --config ([calico] \
         datastore = \"file\")"
    )]
    Datastore(String),
    /// How etcd is reached.
    #[error("{0}")]
    Etcd(#[from] EnvError),
    /// The version of Calico.
    #[error("calico.version (MARGAY_CALICO_VERSION): {0}")]
    Version(String),
    /// A variable's value.
    #[error("{variable} is \"{value}\": {remedy}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it should.
        remedy: &'static str,
    },
}

impl NodeSettings {
    /// From calico-node's environment alone; `None` if it says that this node speaks no BGP
    /// ([`speaks_bgp`]).
    ///
    /// Besides Calico's variables these are read: `MARGAY_CALICO_VERSION` (the version of Calico on this
    /// node; default: what ClusterInformation says), `MARGAY_STATE_FILE` (where the objects of the plan
    /// in force are kept, or `none`; default: beside the node's name), `MARGAY_SOCKET` (control socket), `MARGAY_HTTP`
    /// (address of metrics and health; default: nowhere), `MARGAY_LOG_FORMAT` (`text`, the default,
    /// or `json`) and, where a file does not say it, `MARGAY_BIRD_SOCKETS` (one path for IPv4, then
    /// one for IPv6, with a comma between; or `none`; default: [`BirdSockets::Calico`]).
    ///
    /// # Errors
    /// A variable that is missing or cannot be used.
    pub fn from_env(env: &Environment) -> Result<Option<Self>, SettingsError> {
        let host = HostSettings {
            control: ControlSettings {
                socket: env.get("MARGAY_SOCKET").unwrap_or(ControlSettings::DEFAULT_SOCKET).into(),
                bird_sockets: None,
            },
            http: read_http(env)?,
            log: LogSettings { level: read_level(env), format: read_log_format(env)? },
        };
        let calico = CalicoSettings {
            node: None,
            datastore: None,
            path: Vec::new(),
            endpoint_status: None,
            version: None,
            state_file: None,
            limits: CalicoLimits::default(),
        };
        NodeSettings::from_file(calico, host, env)
    }

    /// From `[calico]`; what that leaves out comes from the environment. `None` as there.
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
        let node = file.node.or_else(|| env.nodename());
        let node = node.ok_or_else(|| SettingsError::NoNode(env.nodename_file.clone()))?;
        let mut calico = Settings::from_env(node.clone(), &env.variables);
        calico.version = file.version.or(calico.version);
        if let Some(text) = &calico.version {
            text.parse::<Version>().map_err(SettingsError::Version)?;
        }
        let state_file = match file.state_file.unwrap_or_else(|| default_state_file(env)) {
            StateFile::At(path) => Some(path),
            StateFile::Off => None,
        };
        let blocks =
            if calico.use_pod_cidr { Blocks::PodCidrs } else { Blocks::Affinities { node } };
        let mut sources = Vec::new();
        match file.datastore {
            Some(CalicoDatastore::Etcd(etcd)) => {
                sources.push(Source::Etcd(etcd_config(etcd, blocks)));
            }
            Some(CalicoDatastore::Files) => {}
            None => {
                check_datastore(env)?;
                sources.push(Source::Etcd(EtcdConfig::from_env(&env.variables, blocks)?));
            }
        }
        if !file.path.is_empty() {
            sources.push(Source::Files(FilesConfig { paths: file.path }));
        }
        let folder = file.endpoint_status.unwrap_or_else(|| {
            let prefix = env.get("CALICO_ENDPOINT_STATUS_PATH_PREFIX");
            PathBuf::from(prefix.unwrap_or(STATUS_PATH_PREFIX)).join(ENDPOINT_STATUS)
        });
        sources.push(Source::Endpoints(EndpointsConfig { folder }));
        Ok(Some(NodeSettings { calico, sources, state_file, limits: file.limits, host }))
    }
}

/// Beside the node's name, if there is such a folder.
fn default_state_file(env: &Environment) -> StateFile {
    if let Some(text) = env.get("MARGAY_STATE_FILE") {
        return StateFile::parse(text, Path::new("/"));
    }
    match env.nodename_file.parent().filter(|folder| folder.is_dir()) {
        Some(folder) => StateFile::At(folder.join(STATE_FILE)),
        None => StateFile::Off,
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

/// Without `DATASTORE_TYPE`, etcd's endpoints say that it is etcd; Kubernetes is the default.
fn check_datastore(env: &Environment) -> Result<(), SettingsError> {
    let has_endpoints = ["ETCD_ENDPOINTS", "ETCD_DISCOVERY_SRV"]
        .into_iter()
        .any(|name| env.get_prefixed(name).is_some());
    let default = if has_endpoints { "etcdv3" } else { "kubernetes" };
    match env.get_prefixed("DATASTORE_TYPE").unwrap_or(default) {
        "etcdv3" => Ok(()),
        other => Err(SettingsError::Datastore(other.to_owned())),
    }
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

/// `BGP_LOGSEVERITYSCREEN` in Calico's words.
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
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(SettingsError::Variable {
            variable: "MARGAY_LOG_FORMAT",
            value: other.to_owned(),
            remedy: "write text or json",
        }),
    }
}

/// What `margay check` prints: what would be followed. Passwords are named, never shown.
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
        match &self.state_file {
            Some(path) => writeln!(f, "keeps what it read in {}", path.display())?,
            None => writeln!(f, "does not keep what it read (calico.state-file)")?,
        }
        writeln!(f, "writes routes to kernel table 254 as protocol 12")?;
        write!(f, "{}", self.limits)?;
        writeln!(f, "control socket {}", self.host.control.socket.display())?;
        match self.host.control.bird_sockets.as_ref().and_then(BirdSockets::paths) {
            Some(BirdPaths { ipv4, ipv6 }) => {
                writeln!(f, "BIRD's sockets {} and {}", ipv4.display(), ipv6.display())?;
            }
            None => writeln!(f, "no BIRD's sockets (bird-sockets)")?,
        }
        if let Some(http) = &self.host.http {
            writeln!(f, "metrics and health on http://{}", http.listen)?;
        }
        Ok(())
    }
}

/// A source in a few words.
pub(super) fn describe(source: &Source) -> String {
    match source {
        Source::Etcd(etcd) => {
            let user = etcd.user.as_ref().map(|user| format!(" as {}", user.name));
            let cert = etcd.tls.cert.as_ref().map(|c| format!(" with {}", c.display()));
            let endpoints = etcd.endpoints.join(", ");
            format!("etcd at {endpoints}{}{}", user.unwrap_or_default(), cert.unwrap_or_default())
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
    use crate::config::PeerLimits;

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
                endpoint_status: None,
                version: None,
                state_file: None,
                limits: CalicoLimits::default(),
            };
            let host = from_env(&[NODE, ETCD]).unwrap().unwrap().host;
            assert_eq!(NodeSettings::from_file(file, host, &env(&[variable])), Ok(None));
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_remedy() {
        assert!(from_env(&[ETCD]).unwrap_err().starts_with("NODENAME is not set and /nonexistent"));
        let fault = from_env(&[NODE]).unwrap_err();
        assert!(fault.starts_with("DATASTORE_TYPE is \"kubernetes\""), "{fault}");
        assert!(fault.contains("ETCD_ENDPOINTS"), "{fault}");
        let fault = from_env(&[NODE, ("DATASTORE_TYPE", "etcdv3")]).unwrap_err();
        assert!(fault.starts_with("ETCD_ENDPOINTS is not set"), "{fault}");
        let fault = from_env(&[NODE, ETCD, ("MARGAY_HTTP", "x")]).unwrap_err();
        assert!(fault.starts_with("MARGAY_HTTP is \"x\": write"), "{fault}");
        let fault = from_env(&[NODE, ETCD, ("MARGAY_LOG_FORMAT", "xml")]).unwrap_err();
        assert_eq!(fault, "MARGAY_LOG_FORMAT is \"xml\": write text or json");
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
            path: Vec::new(),
            endpoint_status: None,
            version: None,
            state_file: None,
            limits: CalicoLimits::default(),
        };
        let by_file = NodeSettings::from_file(file.clone(), by_env.host.clone(), &env(&[]));
        assert_eq!(by_file.unwrap().as_ref(), Some(&by_env));

        let peers = PeerLimits {
            prefixes_max: Some(1000),
            memory_max: Some(64 << 20),
            ..PeerLimits::default()
        };
        let limits = CalicoLimits { memory_max: Some(512 << 20), peers, bfd: None };
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
            "the file is stronger"
        );
    }
}
