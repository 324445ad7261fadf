//! A real etcd.

use anyhow::Result;

use crate::daemon::Daemon;
use crate::lab::Host;
use crate::wait::{PATIENCE, wait_until};

/// etcd on a host of its own, without authentication.
#[derive(Debug)]
pub struct Etcd {
    host: Host,
    daemon: Daemon,
}

impl Etcd {
    /// Starts etcd and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(host: &Host) -> Result<Self> {
        let etcd = Self { host: host.clone(), daemon: spawn(host)? };
        etcd.wait_ready()?;
        Ok(etcd)
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        url(&self.host)
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
        self.daemon = spawn(&self.host)?;
        self.wait_ready()
    }

    /// Writes a key.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ctl(&["put", key, value]).map(drop)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.ctl(&["del", key]).map(drop)
    }

    fn ctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.host.command("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &self.url()]).args(args);
        crate::lab::run_command(&mut command)
    }

    fn wait_ready(&self) -> Result<()> {
        wait_until(PATIENCE, "etcd", || self.ctl(&["endpoint", "health"]).map(drop))
    }
}

fn url(host: &Host) -> String {
    format!("http://{}:2379", host.v4())
}

fn spawn(host: &Host) -> Result<Daemon> {
    let (client, peer) = (url(host), "http://127.0.0.1:2380");
    let data = host.file("etcd").display().to_string();
    let cluster = format!("n1={peer}");
    let args = [
        "--name=n1",
        "--logger=zap",
        "--log-level=warn",
        "--unsafe-no-fsync",
        "--data-dir",
        &data,
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        &cluster,
    ];
    host.daemon("etcd", "etcd", &args)
}
