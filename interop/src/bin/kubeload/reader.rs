//! The readers whose cost is measured: margay, and others that read the same watch.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::calico::MargayNode;
use interop::cpu_time::CpuTime;
use interop::kubernetes::{Kubernetes, received};
use interop::lab::Host;

use super::TOKEN_SECONDS;

/// A margay that is measured.
pub(crate) struct Reader {
    pub(crate) host: Host,
    pub(crate) margay: MargayNode,
    pub(crate) pid: u32,
}

/// CPU time and received octets during a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    pub(crate) nanos: u64,
    pub(crate) octets: u64,
}

impl Reader {
    pub(crate) fn start(kubernetes: &Kubernetes, host: &Host) -> Result<Self> {
        let user = format!("token: {}", kubernetes.token(TOKEN_SECONDS)?);
        let kubeconfig = kubernetes.kubeconfig(host.name(), &user)?;
        let file = |name: &str| host.file(name).display().to_string();
        // Without this folder the one above it is watched, where all logs are written.
        std::fs::create_dir_all(host.file("status"))?;
        let variables = [
            ("NODENAME", host.name().to_owned()),
            ("DATASTORE_TYPE", "kubernetes".to_owned()),
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("MARGAY_SOCKET", file("margay.sock")),
            ("MARGAY_BIRD_SOCKETS", "none".to_owned()),
            ("MARGAY_STATE_FILE", "none".to_owned()),
            ("CALICO_ENDPOINT_STATUS_PATH_PREFIX", file("status")),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let mut margay = MargayNode::from_variables(host, variables.to_vec())?;
        let pid = margay.daemon().pid();
        Ok(Self { host: host.clone(), margay, pid })
    }

    /// Waits until the block of the node is announced, which is after the plan.
    pub(crate) fn wait_plan(&self, prefix: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while self.margay.control.paths(prefix)?.is_empty() {
            ensure!(Instant::now() < end, "no plan: {}", self.margay.status()?);
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What margay uses during `act`.
    pub(crate) fn during(&self, act: impl FnOnce() -> Result<()>) -> Result<Used> {
        let (time, octets) = (CpuTime::of(self.pid)?, received(&self.host)?);
        act()?;
        let nanos = CpuTime::of(self.pid)?.since(&time);
        Ok(Used { nanos, octets: received(&self.host)? - octets })
    }

    pub(crate) fn memory_kib(&self) -> Result<u64> {
        Ok(self.margay.usage()?.memory_kib)
    }
}

/// A process that reads the same watch as margay and drops it.
pub(crate) struct Idler(Child);

impl Idler {
    /// curl(1).
    pub(crate) fn curl(kubernetes: &Kubernetes, host: &Host) -> Result<Self> {
        let mut curl: Command = host.command("curl");
        curl.args(["-sSN", "--cacert", &kubernetes.ca(), "-o", "/dev/null"]);
        let token = kubernetes.token(TOKEN_SECONDS)?;
        curl.args(["-H", &format!("Authorization: Bearer {token}"), "-H"]);
        curl.arg(format!("Accept: {}", super::ACCEPT));
        curl.arg(watch_of_nodes(kubernetes)?);
        Ok(Self(curl.stdin(Stdio::null()).spawn()?))
    }

    /// This program, as one of the commands of [`super::floor`].
    pub(crate) fn hyper(kubernetes: &Kubernetes, host: &Host, call: &str) -> Result<Self> {
        let program = std::env::current_exe()?.display().to_string();
        let mut reader: Command = host.command(&program);
        reader.args([call, &watch_of_nodes(kubernetes)?, &kubernetes.ca()]);
        reader.arg(kubernetes.token(TOKEN_SECONDS)?);
        Ok(Self(reader.stdin(Stdio::null()).spawn()?))
    }

    /// Its CPU time so far.
    pub(crate) fn time(&self) -> Result<CpuTime> {
        CpuTime::of(self.0.id())
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch_of_nodes(kubernetes: &Kubernetes) -> Result<String> {
    let (_, list) = kubernetes.admin().get("/api/v1/nodes?limit=1&resourceVersion=")?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no version")?;
    Ok(format!("{}/api/v1/nodes?watch=true&resourceVersion={version}", kubernetes.url()))
}
