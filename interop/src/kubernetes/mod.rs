//! A real kube-apiserver with a real etcd, on a host of its own, and their faults.

mod audit;
pub mod calico_node;
mod cluster;
pub mod gap;
mod kubectl;
mod kubelet;
mod load;
mod objects;
mod request;

pub use cluster::{Account, Cluster, SETTLED, environment, via};
pub use kubelet::{Kubelet, Replacement, Site, sessions};
pub use load::{large_address, received};
pub use objects::{Group, node, peer};
pub use request::Api;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::calico::etcd::arguments;
use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::pki::{Pki, When};
use crate::wait::{PATIENCE, wait_until};

/// Where `interop/setup.sh kubernetes` leaves the programs, each version in a folder.
const PROGRAMS: &str = "/opt/interop/kubernetes";
/// The version under test; `MARGAY_KUBERNETES` names another.
const VERSION: &str = "1.34";
/// The administrator's token.
const ADMIN: &str = "admin-token";
/// The account, roles and bindings of margay.
const RBAC: &str = include_str!("../../../examples/kubernetes/rbac.yaml");

/// A cluster without nodes: an API server, its etcd, and nothing else.
#[derive(Debug)]
pub struct Kubernetes {
    host: Host,
    pki: Pki,
    etcd: Option<Daemon>,
    server: Option<Daemon>,
    controllers: Option<Daemon>,
    flags: Vec<String>,
    etcd_program: PathBuf,
    /// Heartbeats written so far.
    beats: AtomicUsize,
}

/// The path of a program of the version under test.
///
/// # Errors
/// When it is missing: the error says how to build it.
fn program(name: &str) -> Result<PathBuf> {
    let version = std::env::var("MARGAY_KUBERNETES").unwrap_or_else(|_| VERSION.to_owned());
    let of = |version: &str| Path::new(PROGRAMS).join(version).join(name);
    // Of other versions there is only the API server.
    let found = [of(&version), of(VERSION)].into_iter().find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no {name} in {PROGRAMS}: run interop/setup.sh kubernetes")
    })
}

impl Kubernetes {
    /// Starts both, with Calico's CRDs of a group, and waits until they are served.
    ///
    /// # Errors
    /// When a program is missing or they do not come up.
    pub fn start(host: &Host, group: Group) -> Result<Self> {
        let kubernetes = Self::start_without_crds(host)?;
        kubernetes.install_crds(group)?;
        Ok(kubernetes)
    }

    /// As [`Kubernetes::start`], without any CRD.
    ///
    /// # Errors
    /// As [`Kubernetes::start`].
    pub fn start_without_crds(host: &Host) -> Result<Self> {
        let etcd = match std::env::var_os("MARGAY_KUBERNETES_ETCD") {
            Some(path) => path.into(),
            None => program("etcd")?,
        };
        Self::start_bare(host, etcd, &[])
    }

    /// As [`Kubernetes::start`], with another etcd.
    ///
    /// # Errors
    /// As [`Kubernetes::start`].
    pub fn start_with_etcd(host: &Host, etcd: &str, group: Group) -> Result<Self> {
        let kubernetes = Self::start_bare(host, etcd.into(), &[])?;
        kubernetes.install_crds(group)?;
        Ok(kubernetes)
    }

    /// Starts both, with further flags of the API server, without any CRD.
    ///
    /// # Errors
    /// As [`Kubernetes::start`].
    pub fn start_bare(host: &Host, etcd_program: PathBuf, flags: &[&str]) -> Result<Self> {
        let names = format!("IP:{},IP:127.0.0.1,DNS:localhost", host.v4());
        let pki = Pki::new(&host.file("pki"), "kubernetes", &names)?;
        pki.issue("server", "kube-apiserver", When::Always)?;
        run_command(std::process::Command::new("openssl").args([
            "genrsa",
            "-out",
            &pki.path("accounts", "key"),
            "2048",
        ]))?;
        host.write("tokens.csv", &format!("{ADMIN},admin,1,\"system:masters\"\n"))?;
        let mut kubernetes = Self {
            host: host.clone(),
            pki,
            etcd: None,
            server: None,
            controllers: None,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            etcd_program,
            beats: AtomicUsize::new(0),
        };
        kubernetes.start_etcd()?;
        kubernetes.start_server()?;
        Ok(kubernetes)
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:6443", self.host.v4())
    }

    /// The path of the CA's certificate.
    #[must_use]
    pub fn ca(&self) -> String {
        self.pki.path("ca", "crt")
    }

    /// Issues a new server certificate with that validity, which is served at once.
    ///
    /// # Errors
    /// When openssl refuses.
    pub fn issue_server(&self, when: When) -> Result<()> {
        self.pki.issue("server", "kube-apiserver", when)
    }

    /// A client with the administrator's token.
    #[must_use]
    pub fn admin(&self) -> Api<'_> {
        self.with_token(ADMIN)
    }

    /// A client with this token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Api<'_> {
        Api::new(&self.host, self.url(), self.ca(), token.to_owned())
    }

    /// Starts etcd with the data that it had.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_etcd(&mut self) -> Result<()> {
        let etcd = self.etcd_program.clone();
        let mut args = arguments(&self.host, "http://127.0.0.1:2379");
        if !is_old(&etcd) {
            args.push("--unsafe-no-fsync".to_owned());
        }
        self.etcd = Some(self.host.daemon("etcd", &etcd.display().to_string(), &args)?);
        Ok(())
    }

    /// Starts the API server and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_server(&mut self) -> Result<()> {
        self.start_server_unready()?;
        wait_until(PATIENCE, "the API server", || {
            let (code, _) = self.admin().get("/readyz")?;
            ensure!(code == 200, "/readyz is {code}");
            Ok(())
        })
    }

    /// Starts the API server without waiting until it answers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_server_unready(&mut self) -> Result<()> {
        let address = self.host.v4().to_string();
        let mut args: Vec<String> = [
            ("etcd-servers", "http://127.0.0.1:2379"),
            ("bind-address", &address),
            ("advertise-address", &address),
            ("secure-port", "6443"),
            ("tls-cert-file", &self.pki.path("server", "crt")),
            ("tls-private-key-file", &self.pki.path("server", "key")),
            ("client-ca-file", &self.ca()),
            ("token-auth-file", &self.host.file("tokens.csv").display().to_string()),
            ("authorization-mode", "RBAC"),
            ("allow-privileged", "true"),
            ("service-account-issuer", "https://lab"),
            ("service-account-signing-key-file", &self.pki.path("accounts", "key")),
            ("service-account-key-file", &self.pki.path("accounts", "key")),
            ("service-cluster-ip-range", "10.96.0.0/16,fd96::/112"),
            ("disable-admission-plugins", "ServiceAccount,TaintNodesByCondition"),
            ("endpoint-reconciler-type", "none"),
        ]
        .iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect();
        args.extend(self.flags.iter().cloned());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let server = program("kube-apiserver")?.display().to_string();
        self.server = Some(self.host.daemon("kube-apiserver", &server, &args)?);
        Ok(())
    }

    /// Starts a server in place of the API server that answers every request with a page of HTML,
    /// like a proxy with a login page.
    ///
    /// # Errors
    /// When it cannot be started, or the API server still runs.
    pub fn start_html_server(&self) -> Result<Daemon> {
        ensure!(self.server.is_none(), "the API server runs");
        let address = format!("{}:6443", self.host.v4());
        let (certificate, key) = (self.pki.path("server", "crt"), self.pki.path("server", "key"));
        let args = ["s_server", "-www", "-quiet", "-accept", &address, "-cert", &certificate];
        self.host.daemon("html", "openssl", &[&args[..], &["-key", &key]].concat())
    }

    /// Starts the controllers of EndpointSlices and of DaemonSets.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_controllers(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig("controllers", &format!("token: {ADMIN}"))?;
        let controller = program("controllers")?.display().to_string();
        let args = [kubeconfig.display().to_string()];
        self.controllers = Some(self.host.daemon("controllers", &controller, &args)?);
        Ok(())
    }

    /// Writes a kubeconfig; `user` are the keys of its user.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig(&self, name: &str, user: &str) -> Result<PathBuf> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters:\n- name: lab\n  cluster:\n    server: {}\n    certificate-authority: {}\n\
             users:\n- name: user\n  user:\n    {user}\n\
             contexts:\n- name: lab\n  context: {{cluster: lab, user: user}}\n",
            self.url(),
            self.ca(),
        );
        self.host.write(&format!("{name}.kubeconfig"), &text)
    }

    /// Kills the API server as a crash would.
    ///
    /// # Errors
    /// When it is not running.
    pub fn crash_server(&mut self) -> Result<()> {
        self.server.take().context("no API server runs")?.crash()
    }

    /// Sends the API server a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal_server(&self, name: &str) -> Result<()> {
        self.server.as_ref().context("no API server runs")?.signal(name)
    }

    /// Kills the API server and starts it again.
    ///
    /// # Errors
    /// As [`Kubernetes::start`].
    pub fn restart_server(&mut self) -> Result<()> {
        self.crash_server()?;
        self.start_server()
    }

    /// Sends etcd a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal_etcd(&self, name: &str) -> Result<()> {
        self.etcd.as_ref().context("no etcd runs")?.signal(name)
    }

    /// Saves etcd's data.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn save(&mut self) -> Result<()> {
        self.stop_etcd()?;
        self.host.shell(&format!(
            "rm -rf {0}.saved; cp -a {0} {0}.saved",
            self.host.file("etcd").display()
        ))?;
        self.start_etcd()
    }

    /// Restores etcd's saved data, with or without a running API server.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn restore(&mut self) -> Result<()> {
        self.stop_etcd()?;
        self.host
            .shell(&format!("rm -rf {0}; cp -a {0}.saved {0}", self.host.file("etcd").display()))?;
        self.start_etcd()
    }

    fn stop_etcd(&mut self) -> Result<()> {
        let mut etcd = self.etcd.take().context("no etcd runs")?;
        etcd.signal("TERM")?;
        etcd.wait(Duration::from_secs(10)).map(drop)
    }

    /// Creates the account, roles and bindings of `examples/kubernetes/rbac.yaml`.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn install_rbac(&self) -> Result<()> {
        for document in RBAC.split("\n---\n") {
            let kind = field(document, "kind:")?;
            let namespace = document.lines().find_map(|l| l.strip_prefix("  namespace: "));
            let base = match (kind, namespace) {
                ("ServiceAccount", Some(ns)) => format!("/api/v1/namespaces/{ns}"),
                // The namespace in a ClusterRoleBinding is its subject's.
                ("Role" | "RoleBinding", Some(ns)) => {
                    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}")
                }
                _ => "/apis/rbac.authorization.k8s.io/v1".to_owned(),
            };
            let path = format!("{base}/{}s", kind.to_lowercase());
            let (code, answer) = self.admin().send("POST", &path, "application/yaml", document)?;
            ensure!(matches!(code, 201 | 409), "{path}: {code} {answer}");
        }
        Ok(())
    }

    /// A token of margay's account that is valid for `seconds`, as kubelet would request it.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn token(&self, seconds: u64) -> Result<String> {
        let body = json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"expirationSeconds": seconds},
        });
        let path = "/api/v1/namespaces/kube-system/serviceaccounts/margay/token";
        let answer = self.admin().post(path, &body)?;
        let token = answer["status"]["token"].as_str().context("no token in the answer")?;
        Ok(token.to_owned())
    }

    /// The same, signed here: valid from `from` until `until`, in seconds from now. The server
    /// accepts it for another minute, and for the ten seconds that it caches tokens.
    ///
    /// # Errors
    /// When openssl refuses.
    pub fn signed_token(&self, from: i64, until: i64) -> Result<String> {
        let whole = self.token(600)?;
        let mut parts = whole.split('.');
        let header = parts.next().context("no header")?;
        let claims = parts.next().context("no claims")?;
        let mut claims: Value = serde_json::from_slice(&from_base64(claims)?)?;
        let now = i64::try_from(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
        )?;
        claims.as_object_mut().context("claims are no object")?.remove("jti");
        claims["iat"] = json!(now + from);
        claims["nbf"] = json!(now + from);
        claims["exp"] = json!(now + until);
        let signed = format!("{header}.{}", to_base64(claims.to_string().as_bytes())?);
        let input = self.host.write("signed", &signed)?;
        let key = self.pki.path("accounts", "key");
        let output = self.host.file("signature").display().to_string();
        self.host.run(
            "openssl",
            &["dgst", "-sha256", "-sign", &key, "-out", &output, &input.display().to_string()],
        )?;
        Ok(format!("{signed}.{}", to_base64(&std::fs::read(output)?)?))
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        // Killed, because with open watches a graceful end takes long.
        let daemons = [&mut self.controllers, &mut self.server, &mut self.etcd];
        for daemon in daemons.into_iter().flatten() {
            let _ = daemon.crash();
        }
    }
}

/// Whether it is the etcd of Debian 12, which does not have every flag.
fn is_old(etcd: &Path) -> bool {
    etcd.starts_with("/usr/bin")
}

fn field<'a>(document: &'a str, key: &str) -> Result<&'a str> {
    let line = document.lines().find_map(|line| line.strip_prefix(key));
    Ok(line.with_context(|| format!("no {key} in {document}"))?.trim())
}

/// base64 in the alphabet for URLs, without padding.
fn to_base64(octets: &[u8]) -> Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, o| bits << 8 | u32::from(*o));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let digit = usize::try_from(bits >> (18 - 6 * at) & 63)?;
            text.push(char::from(ALPHABET[digit]));
        }
    }
    Ok(text)
}

fn from_base64(text: &str) -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for character in text.bytes() {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            b'=' => continue,
            other => bail!("{other} is no digit of base64"),
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            octets.push(u8::try_from(bits >> held & 255)?);
        }
    }
    Ok(octets)
}
