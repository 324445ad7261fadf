//! A real etcd.

use anyhow::{Context, Result};

use crate::daemon::Daemon;
use crate::lab::Host;
use crate::pki::{Pki, When};
use crate::wait::{PATIENCE, wait_until};

/// The user of all nodes.
const USER: &str = "margay";
/// Its password.
const PASSWORD: &str = "s3cret";

/// etcd on a host of its own.
#[derive(Debug)]
pub struct Etcd {
    host: Host,
    daemon: Daemon,
    /// If there is one, etcd serves TLS only, requires client certificates, and has two users:
    /// `root`, and `margay`, who may read Calico's keys.
    pki: Option<Pki>,
    has_users: bool,
}

impl Etcd {
    /// Starts etcd and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(host: &Host) -> Result<Self> {
        let daemon = spawn(host, None)?;
        let etcd = Self { host: host.clone(), daemon, pki: None, has_users: false };
        etcd.wait_ready()?;
        Ok(etcd)
    }

    /// As [`Etcd::start`], with certificates on both sides, users, and tokens that live for 2 s.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub fn start_secured(host: &Host) -> Result<Self> {
        let pki = Pki::new(&host.file("pki"), "authority", &format!("IP:{}", host.v4()))?;
        for name in ["server", "root", USER] {
            pki.issue(name, name, When::Always)?;
        }
        let daemon = spawn(host, Some(&pki))?;
        let mut etcd = Self { host: host.clone(), daemon, pki: Some(pki), has_users: false };
        etcd.wait_ready()?;
        let user = format!("{USER}:{PASSWORD}");
        for args in [
            &["user", "add", "root:rootpw"][..],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "reader"],
            &["role", "grant-permission", "reader", "--prefix=true", "read", "/calico/"],
            &["user", "add", &user],
            &["user", "grant-role", USER, "reader"],
            &["auth", "enable"],
        ] {
            etcd.ctl(args)?;
        }
        etcd.has_users = true;
        Ok(etcd)
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        url(&self.host, self.pki.is_some())
    }

    /// The variables of calico-node's environment that configure access to it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![("ETCD_ENDPOINTS", self.url())];
        if let Some(pki) = &self.pki {
            variables.extend([
                ("ETCD_CA_CERT_FILE", pki.path("ca", "crt")),
                ("ETCD_CERT_FILE", pki.path(USER, "crt")),
                ("ETCD_KEY_FILE", pki.path(USER, "key")),
                ("ETCD_USERNAME", USER.to_owned()),
                ("ETCD_PASSWORD", PASSWORD.to_owned()),
            ]);
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The same as lines of `[calico]`.
    ///
    /// # Errors
    /// When the password cannot be written.
    pub fn section(&self) -> Result<String> {
        let mut lines = format!("datastore = \"etcd\"\nendpoints = [\"{}\"]\n", self.url());
        if let Some(pki) = &self.pki {
            let password = self.host.write("password", &format!("{PASSWORD}\n"))?;
            for (key, value) in [
                ("ca-file", pki.path("ca", "crt")),
                ("cert-file", pki.path(USER, "crt")),
                ("key-file", pki.path(USER, "key")),
                ("username", USER.to_owned()),
                ("password-file", password.display().to_string()),
            ] {
                lines.push_str(&format!("{key} = \"{value}\"\n"));
            }
        }
        Ok(lines)
    }

    /// Issues a new server certificate; etcd reads it at every handshake.
    ///
    /// # Errors
    /// When openssl refuses.
    pub fn issue_server(&self, when: When) -> Result<()> {
        self.pki.as_ref().context("etcd without TLS")?.issue("server", "server", when)
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When the process cannot be ended.
    pub fn crash(&mut self) -> Result<()> {
        self.daemon.crash()
    }

    /// Starts it again with the data that it had.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.start_again()?;
        self.wait_ready()
    }

    /// Starts it again without waiting until it answers, which it cannot with an expired
    /// certificate.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.daemon = spawn(&self.host, self.pki.as_ref())?;
        Ok(())
    }

    /// Writes a key.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ctl(&["put", key, value]).map(drop)
    }

    /// Deletes everything.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn clear(&self) -> Result<()> {
        self.ctl(&["del", "", "--prefix"]).map(drop)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.ctl(&["del", key]).map(drop)
    }

    /// All of Calico's keys and values, each on a line of its own.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn dump(&self) -> Result<String> {
        self.ctl(&["get", "--prefix", "/calico/"])
    }

    fn ctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.host.command("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &self.url()]);
        if let Some(pki) = &self.pki {
            command.args(["--cacert", &pki.path("ca", "crt"), "--cert", &pki.path("root", "crt")]);
            command.args(["--key", &pki.path("root", "key")]);
        }
        if self.has_users {
            command.args(["--user", "root:rootpw"]);
        }
        command.args(args);
        crate::lab::run_command(&mut command)
    }

    fn wait_ready(&self) -> Result<()> {
        wait_until(PATIENCE, "etcd", || self.ctl(&["endpoint", "health"]).map(drop))
    }
}

fn url(host: &Host, is_secure: bool) -> String {
    format!("{}://{}:2379", if is_secure { "https" } else { "http" }, host.v4())
}

fn spawn(host: &Host, pki: Option<&Pki>) -> Result<Daemon> {
    let mut args = arguments(host, &url(host, pki.is_some()));
    args.extend(["--logger=zap", "--log-level=warn", "--unsafe-no-fsync"].map(str::to_owned));
    let secured = pki.map(|pki| {
        [
            format!("--cert-file={}", pki.path("server", "crt")),
            format!("--key-file={}", pki.path("server", "key")),
            format!("--trusted-ca-file={}", pki.path("ca", "crt")),
            "--client-cert-auth".to_owned(),
            "--auth-token-ttl=2".to_owned(),
        ]
    });
    args.extend(secured.into_iter().flatten());
    host.daemon("etcd", "etcd", &args)
}

/// Arguments for a single etcd, with its data among the host's files.
pub(crate) fn arguments(host: &Host, client: &str) -> Vec<String> {
    const PEER: &str = "http://127.0.0.1:2380";
    vec![
        "--name=n1".to_owned(),
        format!("--data-dir={}", host.file("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={PEER}"),
        format!("--initial-advertise-peer-urls={PEER}"),
        format!("--initial-cluster=n1={PEER}"),
    ]
}
