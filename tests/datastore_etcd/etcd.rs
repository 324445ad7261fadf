//! Starts an etcd for a test.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, PutOptions, Txn, TxnOp};
use margay::datastore::{Blocks, EtcdConfig, Timings, TlsFiles};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Timeout of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where Calico keeps its resources.
pub(crate) const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

/// How a member is started.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) flags: Vec<String>,
    /// With `https`, the flags name the certificates.
    pub(crate) scheme: Option<&'static str>,
    /// Default 127.0.0.1.
    pub(crate) host: Option<&'static str>,
}

/// A member, killed when dropped.
pub(crate) struct Etcd {
    pub(crate) url: String,
    name: String,
    peer_url: String,
    data: PathBuf,
    log: PathBuf,
    cluster: String,
    options: Options,
    child: Option<Child>,
    /// Last field, so that it is dropped after the process.
    folder: TempDir,
}

/// Distinct ports on which nothing listens.
fn free_ports(count: usize) -> Vec<u16> {
    let sockets: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}

impl Etcd {
    /// A healthy etcd of one member.
    pub(crate) async fn start(options: Options) -> Etcd {
        Self::cluster(1, options).await.remove(0)
    }

    /// A healthy etcd, plain.
    pub(crate) async fn plain() -> Etcd {
        Self::start(Options::default()).await
    }

    /// A healthy etcd of several members.
    pub(crate) async fn cluster(members: usize, options: Options) -> Vec<Etcd> {
        // Another process may take a port between the check and the start: then try again.
        for _ in 0..5 {
            let mut cluster = Self::members(members, &options);
            cluster.iter_mut().for_each(Etcd::run);
            let mut is_well = true;
            for member in &mut cluster {
                is_well &= member.is_listening().await;
            }
            if is_well {
                return cluster;
            }
        }
        panic!("etcd does not start");
    }

    fn members(count: usize, options: &Options) -> Vec<Etcd> {
        let ports = free_ports(2 * count);
        let peers: Vec<String> =
            ports.iter().skip(count).map(|port| format!("http://127.0.0.1:{port}")).collect();
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(n, peer)| format!("m{n}={peer}")).collect();
        let scheme = options.scheme.unwrap_or("http");
        let host = options.host.unwrap_or("127.0.0.1");
        let member = |number: usize| {
            let folder = TempDir::new().unwrap();
            Etcd {
                url: format!("{scheme}://{host}:{}", ports[number]),
                name: format!("m{number}"),
                peer_url: peers[number].clone(),
                data: folder.path().join("data"),
                log: folder.path().join("log"),
                cluster: cluster.join(","),
                options: options.clone(),
                child: None,
                folder,
            }
        };
        (0..count).map(member).collect()
    }

    /// Starts the process with the existing data.
    pub(crate) fn run(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        // It is killed when the thread of the test ends, however it ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "etcd", "--name", &self.name, "--data-dir"])
            .arg(&self.data)
            .args(["--listen-client-urls", &self.url, "--advertise-client-urls", &self.url])
            .args(["--listen-peer-urls", &self.peer_url])
            .args(["--initial-advertise-peer-urls", &self.peer_url])
            .args(["--initial-cluster", &self.cluster, "--unsafe-no-fsync"])
            .args(["--logger=zap", "--log-level=warn"])
            .args(&self.options.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Whether it accepts connections in time; false if its process ends before.
    async fn is_listening(&mut self) -> bool {
        let address = self.url.split_once("://").unwrap().1.to_owned();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.child.as_mut().is_none_or(|c| c.try_wait().unwrap().is_some()) {
                return false;
            }
            if tokio::net::TcpStream::connect(&address).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Starts it again and waits until it listens.
    pub(crate) async fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        self.run();
        assert!(self.is_listening().await, "{}", fs::read_to_string(&self.log).unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The arguments to restore a snapshot as the same cluster.
    pub(crate) fn restore_arguments(&self) -> Vec<String> {
        ["--name", &self.name, "--initial-cluster", &self.cluster]
            .into_iter()
            .chain(["--initial-advertise-peer-urls", &self.peer_url])
            .map(str::to_owned)
            .collect()
    }

    /// A client for the test.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(ConnectOptions::new()).await
    }

    pub(crate) async fn client_with(&self, options: ConnectOptions) -> Client {
        let options = options.with_timeout(PATIENCE);
        let end = Instant::now() + PATIENCE;
        loop {
            let connected = Client::connect([&self.url], Some(options.clone())).await;
            let error = match connected {
                Ok(mut client) => match client.get("health", None).await {
                    Ok(_) => return client,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            assert!(Instant::now() < end, "{error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// margay's configuration for it, with short timeouts.
    pub(crate) fn config(&self) -> EtcdConfig {
        config(&[self])
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn config(members: &[&Etcd]) -> EtcdConfig {
    EtcdConfig {
        endpoints: members.iter().map(|etcd| etcd.url.clone()).collect(),
        tls: TlsFiles::default(),
        user: None,
        blocks: Blocks::Affinities { node: "me".into() },
        timings: Timings {
            answer_max: Duration::from_secs(3),
            ask_after: Duration::from_millis(300),
            silence_max: Duration::from_millis(1500),
            list_interval: Duration::from_millis(50),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_millis(400),
        },
    }
}

pub(crate) async fn put(client: &mut Client, key: &str, value: impl Into<Vec<u8>>) {
    client.put(key, value, None::<PutOptions>).await.unwrap();
}

/// Writes many keys, a hundred per transaction. A cluster that elects a leader on a busy machine
/// may not answer in time: then it is checked whether the transaction was applied, and if not, it
/// is repeated.
pub(crate) async fn put_all(client: &mut Client, pairs: &[(String, String)]) {
    for part in pairs.chunks(100) {
        let puts: Vec<TxnOp> = part
            .iter()
            .map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None))
            .collect();
        let end = Instant::now() + PATIENCE;
        while let Err(error) = client.txn(Txn::new().and_then(puts.clone())).await {
            assert!(Instant::now() < end, "{error:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some((key, value)) = part.last()
                && holds(client, key, value).await
            {
                break;
            }
        }
    }
}

/// Whether the key has this value; false without an answer.
async fn holds(client: &mut Client, key: &str, value: &str) -> bool {
    let answer = client.get(key, None).await;
    answer.is_ok_and(|got| got.kvs().first().is_some_and(|kv| kv.value() == value.as_bytes()))
}

/// A node with an address derived from its number, padded with annotations that BGP does not read.
pub(crate) fn node(number: u32, padding: usize) -> (String, String) {
    let [_, b, c, d] = number.to_be_bytes();
    let padding = "x".repeat(padding);
    let value = format!(
        "{{\"kind\":\"Node\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{{\"name\":\
         \"n{number}\",\"annotations\":{{\"padding\":\"{padding}\"}}}},\"spec\":{{\"bgp\":\
         {{\"ipv4Address\":\"10.{b}.{c}.{d}/8\"}}}}}}"
    );
    (format!("{RESOURCES}/nodes/n{number}"), value)
}

pub(crate) fn peer(name: &str, asn: u32) -> (String, String) {
    let value = format!("{{\"spec\":{{\"peerIP\":\"10.0.0.1\",\"asNumber\":{asn}}}}}");
    (format!("{RESOURCES}/bgppeers/{name}"), value)
}
