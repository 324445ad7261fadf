//! How to reach etcd.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::datastore::prefixed_variable;

/// How to reach etcd, and what to read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs of the members, such as `https://10.0.0.1:2379`; at least one. One is used at a time.
    pub endpoints: Vec<String>,
    /// Certificates; used for `https` endpoints only.
    pub tls: TlsFiles,
    /// User for etcd's own authentication. Default: none, or the name in the certificate.
    pub user: Option<User>,
    /// Which blocks are read.
    pub blocks: Blocks,
    /// Timeouts and intervals.
    pub timings: Timings,
}

/// Timeouts and intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Timeout for a connection, including its handshakes and authentication, and for each answer.
    /// Default 10 s.
    pub answer_max: Duration,
    /// Time without a message after which a progress notification is requested. Default 5 s.
    pub ask_after: Duration,
    /// Time without a message, despite such requests, after which the member counts as dead.
    /// Default 15 s.
    pub silence_max: Duration,
    /// Minimum time between two lists. Default 500 ms, as in Calico.
    pub list_interval: Duration,
    /// First pause after a failed attempt; it doubles up to `pause_max`. Default 250 ms.
    pub pause: Duration,
    /// Maximum pause between attempts. Default 5 s.
    pub pause_max: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            answer_max: Duration::from_secs(10),
            ask_after: Duration::from_secs(5),
            silence_max: Duration::from_secs(15),
            list_interval: Duration::from_millis(500),
            pause: Duration::from_millis(250),
            pause_max: Duration::from_secs(5),
        }
    }
}

/// PEM files, read again on every attempt to connect, so that renewed ones take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that may have signed the server's certificate. Default: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, for servers that request one. Only together with `key`.
    pub cert: Option<PathBuf>,
    /// The key of `cert`.
    pub key: Option<PathBuf>,
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Password,
}

/// Where to find a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// In the configuration itself.
    Given(Secret),
    /// In a file, read again on every attempt to connect; a final line end is not part of it.
    File(PathBuf),
}

/// A text that is never shown, neither in logs nor by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which blocks are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// The block affinities of one node.
    Affinities {
        /// Its name.
        node: String,
    },
    /// The block affinities of all nodes.
    OfAllNodes,
    /// None: the pod CIDRs in the Node objects are the blocks (`USE_POD_CIDR`).
    PodCidrs,
}

/// Why etcd's configuration cannot be read from the environment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvError {
    /// No endpoints.
    #[error("ETCD_ENDPOINTS is not set: give the URLs of etcd's members, separated by commas")]
    NoEndpoints,
    /// Endpoints from DNS SRV records.
    #[error(
        "ETCD_DISCOVERY_SRV is set, which margay does not read: give the URLs of etcd's members in \
         ETCD_ENDPOINTS"
    )]
    Discovery,
    /// An endpoint that is not a URL.
    #[error(
        "ETCD_ENDPOINTS: \"{0}\" is not an endpoint: write http://HOST:PORT or https://HOST:PORT"
    )]
    Endpoint(String),
    /// A certificate without its key, or the other way round.
    #[error("{present} is set and {absent} is not: a certificate and its key come together")]
    Pair {
        /// The variable that is set.
        present: &'static str,
        /// The one that is missing.
        absent: &'static str,
    },
    /// A password without a user.
    #[error("ETCD_PASSWORD is set and ETCD_USERNAME is not: give the user's name")]
    NoUser,
}

impl EtcdConfig {
    /// Reads the environment of calico-node. Every variable may also be spelt with the prefix
    /// `CALICO_`, which takes precedence; empty ones count as absent.
    ///
    /// The variables are `ETCD_ENDPOINTS`, `ETCD_USERNAME`, `ETCD_PASSWORD`, `ETCD_KEY_FILE`,
    /// `ETCD_CERT_FILE` and `ETCD_CA_CERT_FILE`. Differs from Calico: `ETCD_DISCOVERY_SRV` is
    /// refused.
    ///
    /// # Errors
    /// There is no usable endpoint, or variables contradict each other.
    pub fn from_env(env: &BTreeMap<String, String>, blocks: Blocks) -> Result<Self, EnvError> {
        let get = |name: &str| prefixed_variable(env, name);
        let endpoints = match (get("ETCD_ENDPOINTS"), get("ETCD_DISCOVERY_SRV")) {
            (Some(list), _) => parse_endpoints(list)?,
            (None, Some(_)) => return Err(EnvError::Discovery),
            (None, None) => return Err(EnvError::NoEndpoints),
        };
        let path = |name: &str| get(name).map(PathBuf::from);
        let tls = TlsFiles {
            ca: path("ETCD_CA_CERT_FILE"),
            cert: path("ETCD_CERT_FILE"),
            key: path("ETCD_KEY_FILE"),
        };
        let (cert, key) = ("ETCD_CERT_FILE", "ETCD_KEY_FILE");
        match (&tls.cert, &tls.key) {
            (Some(_), None) => return Err(EnvError::Pair { present: cert, absent: key }),
            (None, Some(_)) => return Err(EnvError::Pair { present: key, absent: cert }),
            _ => {}
        }
        let user = match (get("ETCD_USERNAME"), get("ETCD_PASSWORD")) {
            (None, None) => None,
            (None, Some(_)) => return Err(EnvError::NoUser),
            (Some(name), password) => Some(User {
                name: name.to_owned(),
                password: Password::Given(Secret::new(password.unwrap_or_default())),
            }),
        };
        Ok(EtcdConfig { endpoints, tls, user, blocks, timings: Timings::default() })
    }
}

/// Splits a comma-separated list of URLs.
///
/// # Errors
/// There is no endpoint, or one is not `http://` or `https://` with a host.
pub fn parse_endpoints(list: &str) -> Result<Vec<String>, EnvError> {
    let endpoints: Vec<&str> = list.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
    for endpoint in &endpoints {
        let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
        let is_host = |host: &str| {
            let host = host.strip_suffix('/').unwrap_or(host);
            !host.is_empty() && !host.contains(['/', '@', ' ', '?', '#'])
        };
        if !rest.is_some_and(is_host) {
            return Err(EnvError::Endpoint((*endpoint).to_owned()));
        }
    }
    if endpoints.is_empty() {
        Err(EnvError::NoEndpoints)
    } else {
        Ok(endpoints.into_iter().map(|e| e.trim_end_matches('/').to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<EtcdConfig, EnvError> {
        let env = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        EtcdConfig::from_env(&env, Blocks::PodCidrs)
    }

    #[test]
    fn the_environment_of_calico_node_is_read() {
        let config = read(&[
            ("ETCD_ENDPOINTS", "https://10.0.0.1:2379, https://[fd00::2]:2379/ ,"),
            ("ETCD_CA_CERT_FILE", "/ca"),
            ("ETCD_CERT_FILE", "/cert"),
            ("ETCD_KEY_FILE", "/key"),
            ("ETCD_USERNAME", "margay"),
            ("ETCD_PASSWORD", "s3cret"),
        ])
        .unwrap();
        assert_eq!(config.endpoints, ["https://10.0.0.1:2379", "https://[fd00::2]:2379"]);
        assert_eq!(config.tls.ca, Some("/ca".into()));
        assert_eq!(config.tls.cert, Some("/cert".into()));
        assert_eq!(config.tls.key, Some("/key".into()));
        let user = config.user.clone().unwrap();
        assert_eq!(user.name, "margay");
        assert_eq!(user.password, Password::Given(Secret::new("s3cret")));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn variables_with_calicos_prefix_take_precedence_and_empty_ones_count_as_absent() {
        let config = read(&[
            ("ETCD_ENDPOINTS", "http://a:1"),
            ("CALICO_ETCD_ENDPOINTS", "http://b:2"),
            ("ETCD_CA_CERT_FILE", "/ca"),
            ("CALICO_ETCD_CA_CERT_FILE", ""),
            ("ETCD_CERT_FILE", ""),
        ])
        .unwrap();
        assert_eq!(config.endpoints, ["http://b:2"]);
        assert_eq!(config.tls, TlsFiles { ca: Some("/ca".into()), ..TlsFiles::default() });
        assert_eq!(config.user, None);
    }

    #[test]
    fn contradictions_name_the_variable() {
        let fault = |variables: &[(&str, &str)]| read(variables).unwrap_err().to_string();
        assert!(fault(&[]).starts_with("ETCD_ENDPOINTS is not set"));
        assert!(fault(&[("ETCD_ENDPOINTS", " , ")]).starts_with("ETCD_ENDPOINTS is not set"));
        assert!(fault(&[("ETCD_DISCOVERY_SRV", "x.org")]).starts_with("ETCD_DISCOVERY_SRV"));
        let etcd = ("ETCD_ENDPOINTS", "http://a:1");
        assert!(fault(&[etcd, ("ETCD_KEY_FILE", "/k")]).contains("ETCD_CERT_FILE is not"));
        assert!(fault(&[etcd, ("ETCD_CERT_FILE", "/c")]).contains("ETCD_KEY_FILE is not"));
        assert!(fault(&[etcd, ("ETCD_PASSWORD", "s3cret")]).starts_with("ETCD_PASSWORD"));
        assert!(!fault(&[etcd, ("ETCD_PASSWORD", "s3cret")]).contains("s3cret"));
        for wrong in ["10.0.0.1:2379", "http://", "ftp://a", "http://a/b", "https://u@h:1"] {
            assert!(fault(&[("ETCD_ENDPOINTS", wrong)]).contains(wrong), "{wrong}");
        }
    }
}
