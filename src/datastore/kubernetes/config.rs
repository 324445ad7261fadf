//! How to reach the API server, and what to read from it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::calico::model::HostNetwork;
use crate::datastore::prefixed_variable;

/// Where kubelet puts the credentials of a pod's service account.
const ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How to reach the API server. Every file is read again for each connection, and a token file also
/// once a minute, so that renewed credentials are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// A kubeconfig; default: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; default: its `current-context`.
    pub context: Option<String>,
    /// The server's URL; overrides that of the kubeconfig and of the pod's environment.
    pub endpoint: Option<String>,
    /// `https://HOST:PORT` from the pod's environment.
    pub in_cluster: Option<String>,
    /// CA certificates for the server's certificate; override those of the kubeconfig.
    pub ca_file: Option<PathBuf>,
    /// Our client certificate and its key; override those of the kubeconfig.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A file with a bearer token; overrides that of the kubeconfig.
    pub token_file: Option<PathBuf>,
    /// Folder with `token` and `ca.crt` of the service account.
    pub account: PathBuf,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            kubeconfig: None,
            context: None,
            endpoint: None,
            in_cluster: None,
            ca_file: None,
            certificate: None,
            token_file: None,
            account: ACCOUNT_FOLDER.into(),
        }
    }
}

/// Calico's objects and the Nodes in the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// How to reach the API server.
    pub api: ApiConfig,
    /// The node whose block affinities are read.
    pub node: String,
    /// The block affinities of all nodes are read, not only those of `node`.
    pub all_blocks: bool,
    /// The node's blocks are its pod CIDRs (`USE_POD_CIDR`): no affinities are read.
    pub use_pod_cidr: bool,
    /// Whether the own Node is read as a whole, because a cordon is not among its metadata.
    pub follows_cordon: bool,
    /// The API group of Calico's objects; default: the server is asked.
    pub group: Option<Group>,
}

/// The Services, EndpointSlices and Secrets in the Kubernetes API that the plan needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicesConfig {
    /// How to reach the API server.
    pub api: ApiConfig,
    /// The namespace of the Secrets (`NAMESPACE`).
    pub namespace: String,
}

/// The API group that holds Calico's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `crd.projectcalico.org/v1`.
    V1,
    /// `projectcalico.org/v3`, served from CRDs since Calico v3.32.
    V3,
}

impl Group {
    /// The group's name.
    pub fn name(self) -> &'static str {
        match self {
            Group::V1 => "crd.projectcalico.org",
            Group::V3 => "projectcalico.org",
        }
    }

    /// Group and version, as in a URL.
    pub fn path(self) -> &'static str {
        match self {
            Group::V1 => "crd.projectcalico.org/v1",
            Group::V3 => "projectcalico.org/v3",
        }
    }

    /// Reads `CALICO_API_GROUP`: any value other than v3 means v1, as in libcalico.
    pub fn from_variable(text: &str) -> Group {
        if text.eq_ignore_ascii_case(Group::V3.path()) { Group::V3 } else { Group::V1 }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// Why the environment does not determine how to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiEnvError {
    /// No variable names an API server.
    #[error(
        "DATASTORE_TYPE is kubernetes, and nothing says where the API server is: run in a pod with \
         a service account (KUBERNETES_SERVICE_HOST), or name a kubeconfig in KUBECONFIG"
    )]
    Nowhere,
    /// None of the files that `KUBECONFIG` lists exists.
    #[error("KUBECONFIG names {0}, which is not there: name a kubeconfig, or unset it")]
    NoKubeconfig(String),
    /// A certificate without its key, or a key without its certificate.
    #[error("{present} is set and {absent} is not: a certificate and its key come together")]
    Pair {
        /// The variable that is set.
        present: &'static str,
        /// The one that is missing.
        absent: &'static str,
    },
    /// Verification of the server is turned off: whoever answers could set every route and
    /// password.
    #[error(
        "K8S_INSECURE_SKIP_TLS_VERIFY is set, which margay refuses: name the authority of the API \
         server's certificate in K8S_CA_FILE"
    )]
    Insecure,
    /// An endpoint that is not a URL.
    #[error(
        "K8S_API_ENDPOINT: \"{0}\" is not an endpoint: write https://HOST:PORT or http://HOST:PORT"
    )]
    Endpoint(String),
}

impl ApiConfig {
    /// Reads calico-node's environment; `None` if it names no API server. Each variable may have
    /// the prefix `CALICO_`, which takes precedence; an empty value counts as absent.
    ///
    /// The variables are `KUBECONFIG` (a list: the first file that exists is used),
    /// `K8S_CURRENT_CONTEXT`, `K8S_API_ENDPOINT`, `K8S_CA_FILE`, `K8S_CERT_FILE`, `K8S_KEY_FILE`,
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`. `K8S_CLIENT_QPS` and
    /// `K8S_CLIENT_BURST` are accepted and have no effect: the pace of requests follows from the
    /// responses. Unlike in Calico, `K8S_INSECURE_SKIP_TLS_VERIFY` is refused and
    /// `$HOME/.kube/config` is not read.
    ///
    /// # Errors
    /// A variable cannot be used, or variables contradict each other.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Option<Self>, ApiEnvError> {
        let get = |name: &str| prefixed_variable(env, name);
        let kubeconfig = get("KUBECONFIG").map(first_existing).transpose()?;
        let endpoint = get("K8S_API_ENDPOINT").map(read_endpoint).transpose()?;
        let in_cluster = get("KUBERNETES_SERVICE_HOST").map(|host| {
            let port = get("KUBERNETES_SERVICE_PORT").unwrap_or("443");
            if host.contains(':') && !host.starts_with('[') {
                format!("https://[{host}]:{port}")
            } else {
                format!("https://{host}:{port}")
            }
        });
        if kubeconfig.is_none() && endpoint.is_none() && in_cluster.is_none() {
            return Ok(None);
        }
        let is_insecure = |text: &str| matches!(text, "1" | "t" | "T" | "true" | "True" | "TRUE");
        if get("K8S_INSECURE_SKIP_TLS_VERIFY").is_some_and(is_insecure) {
            return Err(ApiEnvError::Insecure);
        }
        let path = |name: &str| get(name).map(PathBuf::from);
        let (cert, key) = ("K8S_CERT_FILE", "K8S_KEY_FILE");
        let certificate = match (path(cert), path(key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (Some(_), None) => return Err(ApiEnvError::Pair { present: cert, absent: key }),
            (None, Some(_)) => return Err(ApiEnvError::Pair { present: key, absent: cert }),
            (None, None) => None,
        };
        Ok(Some(ApiConfig {
            kubeconfig,
            context: get("K8S_CURRENT_CONTEXT").map(str::to_owned),
            endpoint,
            in_cluster,
            ca_file: path("K8S_CA_FILE"),
            certificate,
            ..ApiConfig::default()
        }))
    }
}

fn first_existing(list: &str) -> Result<PathBuf, ApiEnvError> {
    let mut paths = list.split(':').map(Path::new).filter(|path| !path.as_os_str().is_empty());
    let found = paths.find(|path| path.exists()).map(Path::to_path_buf);
    found.ok_or_else(|| ApiEnvError::NoKubeconfig(list.to_owned()))
}

fn read_endpoint(text: &str) -> Result<String, ApiEnvError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    match host {
        Some(host) if !host.is_empty() && !host.contains(['@', ' ', '?', '#']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(ApiEnvError::Endpoint(text.to_owned())),
    }
}

/// The location of the API server, in a few words. Contains no credentials.
impl fmt::Display for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, &self.kubeconfig, &self.in_cluster) {
            (Some(endpoint), None, _) => f.write_str(endpoint),
            (Some(endpoint), Some(file), _) => write!(f, "{endpoint} with {}", file.display()),
            (None, Some(file), _) => write!(f, "the server of {}", file.display()),
            (None, None, Some(url)) => f.write_str(url),
            (None, None, None) => f.write_str("an unknown place"),
        }
    }
}

/// Variables that configure Typha for confd and Felix, in order of precedence.
const TYPHA: [&str; 6] = [
    "CONFD_TYPHAADDR",
    "FELIX_TYPHAADDR",
    "CALICO_TYPHAADDR",
    "CONFD_TYPHAK8SSERVICENAME",
    "FELIX_TYPHAK8SSERVICENAME",
    "CALICO_TYPHAK8SSERVICENAME",
];

/// The variable that configures a Typha, if one does. Typha is not used: the API is read directly.
pub fn typha_variable(env: &BTreeMap<String, String>) -> Option<&'static str> {
    TYPHA.into_iter().find(|name| {
        env.get(*name).map(|value| value.trim()).is_some_and(|v| !v.is_empty() && v != "none")
    })
}

/// The variable that names a proxy for the server's host, unless `NO_PROXY` excludes the host.
/// Proxies are not supported.
pub fn proxy_variable(env: &BTreeMap<String, String>, host: &str) -> Option<&'static str> {
    let get = |name: &str| env.get(name).map(|v| v.trim()).filter(|v| !v.is_empty());
    let proxy = ["HTTPS_PROXY", "https_proxy"].into_iter().find(|name| get(name).is_some())?;
    let excluded = get("NO_PROXY").or_else(|| get("no_proxy")).unwrap_or_default();
    let is_excluded = excluded.split(',').map(str::trim).any(|entry| {
        let domain = entry.trim_start_matches("*.").trim_start_matches('.');
        let in_network = || {
            let network = HostNetwork::parse(entry).map(|entry| entry.network);
            let addr: Option<IpAddr> = host.parse().ok();
            network.zip(addr).is_some_and(|(network, addr)| network.contains_addr(addr))
        };
        let in_domain = || {
            let parent = host.strip_suffix(domain);
            !domain.is_empty() && parent.is_some_and(|p| p.is_empty() || p.ends_with('.'))
        };
        entry == "*" || in_domain() || in_network()
    });
    (!is_excluded).then_some(proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn read(variables: &[(&str, &str)]) -> Result<Option<ApiConfig>, ApiEnvError> {
        ApiConfig::from_env(&env(variables))
    }

    #[test]
    fn the_environment_of_a_pod_locates_the_server() {
        let at = |host, port| {
            let variables = [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)];
            read(&variables).unwrap().unwrap().in_cluster.unwrap()
        };
        assert_eq!(at("10.96.0.1", "443"), "https://10.96.0.1:443");
        assert_eq!(at("fd00::1", ""), "https://[fd00::1]:443");
        assert_eq!(at("api.example.org", "6443"), "https://api.example.org:6443");
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("K8S_CA_FILE", "/ca")]), Ok(None));
    }

    #[test]
    fn variables_of_calico_are_read_and_contradictions_named() {
        let config = read(&[
            ("K8S_API_ENDPOINT", "https://a:1/"),
            ("CALICO_K8S_API_ENDPOINT", "https://b:2/prefix/"),
            ("K8S_CA_FILE", "/ca"),
            ("K8S_CERT_FILE", "/cert"),
            ("K8S_KEY_FILE", "/key"),
            ("K8S_CURRENT_CONTEXT", "lab"),
            ("K8S_CLIENT_QPS", "5"),
        ]);
        let config = config.unwrap().unwrap();
        assert_eq!(config.endpoint.as_deref(), Some("https://b:2/prefix"));
        assert_eq!(config.certificate, Some(("/cert".into(), "/key".into())));
        assert_eq!(config.context.as_deref(), Some("lab"));
        let pod = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        let fault = |variable| read(&[pod, variable]).unwrap_err().to_string();
        assert!(fault(("K8S_KEY_FILE", "/k")).contains("K8S_CERT_FILE is not"));
        assert!(fault(("K8S_INSECURE_SKIP_TLS_VERIFY", "true")).contains("K8S_CA_FILE"));
        assert!(fault(("K8S_API_ENDPOINT", "a:1")).contains("https://HOST:PORT"));
        assert!(fault(("KUBECONFIG", "/nonexistent/a:/nonexistent/b")).contains("/nonexistent/b"));
    }

    #[test]
    fn the_first_existing_kubeconfig_is_used() {
        let config = read(&[("KUBECONFIG", "/nonexistent:/etc/hostname:/etc/passwd")]);
        assert_eq!(config.unwrap().unwrap().kubeconfig, Some("/etc/hostname".into()));
    }

    #[test]
    fn groups_are_chosen_as_libcalico_does() {
        assert_eq!(Group::from_variable("ProjectCalico.org/V3"), Group::V3);
        assert_eq!(Group::from_variable("crd.projectcalico.org/v1"), Group::V1);
        assert_eq!(Group::from_variable("else"), Group::V1);
    }

    #[test]
    fn variables_for_typha_and_proxies_are_found() {
        assert_eq!(typha_variable(&env(&[("FELIX_TYPHAK8SSERVICENAME", "none")])), None);
        let typha = env(&[("FELIX_TYPHAK8SSERVICENAME", "calico-typha")]);
        assert_eq!(typha_variable(&typha), Some("FELIX_TYPHAK8SSERVICENAME"));
        let proxy = ("HTTPS_PROXY", "http://proxy:3128");
        let named = |excluded, host| proxy_variable(&env(&[proxy, ("NO_PROXY", excluded)]), host);
        assert_eq!(named("", "10.96.0.1"), Some("HTTPS_PROXY"));
        for excluded in ["10.96.0.1", "10.96.0.0/12", "*", "x, 10.96.0.1"] {
            assert_eq!(named(excluded, "10.96.0.1"), None, "{excluded}");
        }
        assert_eq!(named(".example.org", "api.example.org"), None);
        assert_eq!(named("ple.org", "api.example.org"), Some("HTTPS_PROXY"));
        assert_eq!(proxy_variable(&env(&[]), "10.96.0.1"), None);
    }
}
