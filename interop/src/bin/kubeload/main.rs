//! Measures what it costs margay and the API server to follow a large cluster.
//!
//! Run `cargo run -p interop --bin kubeload -- NODES` as root, after `interop/setup.sh kubernetes`.
//! Prints a line for each result; `benches/README.md` contains measured ones.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::calico::MargayNode;
use interop::kubernetes::{CpuTime, Group, Kubernetes, node};
use interop::lab::{self, Host, Lab};
use serde_json::json;

/// Maximum interval at which a kubelet writes its Node, in seconds.
const BEAT_SECONDS: f64 = 300.0;
/// Lifetime of the token: longer than the whole run.
const TOKEN_SECONDS: u64 = 3600;
/// Duration of each measurement.
const LOOK: Duration = Duration::from_secs(60);
/// Number of cold starts.
const STARTS: usize = 3;
/// Number of further margays when the API server's cost of each is measured.
const OTHERS: usize = 10;
/// Heartbeats per second in the comparison of margay with curl(1).
const FAST: f64 = 50.0;

fn main() -> Result<()> {
    let nodes = std::env::args().nth(1).context("usage: kubeload NODES")?.parse()?;
    lab::run("kube-load", &[], |lab| measure(lab, nodes))
}

/// The margay under measurement.
struct Reader {
    host: Host,
    margay: MargayNode,
    pid: u32,
}

/// Resources used during a measurement.
#[derive(Clone, Copy)]
struct Used {
    nanos: u64,
    octets: u64,
}

impl Reader {
    fn start(kubernetes: &Kubernetes, host: &Host) -> Result<Self> {
        let user = format!("token: {}", kubernetes.token(TOKEN_SECONDS)?);
        let kubeconfig = kubernetes.kubeconfig(host.name(), &user)?;
        let file = |name: &str| host.file(name).display().to_string();
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

    /// Waits until the block of the node is announced, which happens after the plan.
    fn wait_plan(&self, prefix: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while self.margay.control.paths(prefix)?.is_empty() {
            ensure!(Instant::now() < end, "no plan: {}", self.margay.status()?);
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn received(&self) -> Result<u64> {
        let dev = self.host.run("cat", &["/proc/net/dev"])?;
        let line = dev.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let octets = line.and_then(|line| line.split_whitespace().next()).context("no eth0")?;
        Ok(octets.parse()?)
    }

    /// Measures the resources used while `act` runs.
    fn during(&self, act: impl FnOnce() -> Result<()>) -> Result<Used> {
        let (time, octets) = (CpuTime::of(self.pid)?, self.received()?);
        act()?;
        let nanos = CpuTime::of(self.pid)?.since(&time);
        Ok(Used { nanos, octets: self.received()? - octets })
    }

    fn memory_kib(&self) -> Result<u64> {
        Ok(self.margay.usage()?.memory_kib)
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn per(whole: u64, count: usize, unit: f64) -> f64 {
    whole as f64 / count as f64 / unit
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn beats_in(nodes: usize, time: Duration) -> usize {
    (nodes as f64 / BEAT_SECONDS * time.as_secs_f64()) as usize
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn measure(lab: &mut Lab, nodes: usize) -> Result<()> {
    let group = Group::V1;
    let kubernetes = Kubernetes::start(&lab.host("api")?, group)?;
    let host = lab.host("a")?;
    kubernetes.install_rbac()?;
    kubernetes.put_node(group, &host, 1)?;
    kubernetes.put_large_cluster(group, nodes)?;

    let reader = report_starts(&kubernetes, &host)?;
    sleep(Duration::from_secs(5));
    report_changes(&kubernetes, &reader)?;

    let used = reader.during(|| {
        sleep(LOOK);
        Ok(())
    })?;
    report_share("idle", used);
    let beats = beats_in(nodes, LOOK).max(1);
    let rate = beats as f64 / LOOK.as_secs_f64();
    let used = reader.during(|| kubernetes.beat(nodes, beats, rate))?;
    report_share(&format!("{beats} heartbeats a minute"), used);
    report_each("heartbeat at that rate", used, beats);

    let beats = 1000;
    let mut curl = Curl::start(&kubernetes, &host)?;
    sleep(Duration::from_secs(2));
    let begun = CpuTime::of(curl.0.id())?;
    let used = reader.during(|| kubernetes.beat(nodes, beats, FAST))?;
    let by_curl = CpuTime::of(curl.0.id())?.since(&begun);
    println!("heartbeat at {FAST}/s: {:.1} µs of curl's CPU", per(by_curl, beats, 1e3));
    curl.end()?;
    println!("heartbeat at {FAST}/s: {:.1} µs of margay's CPU", per(used.nanos, beats, 1e3));

    let connections =
        host.run("ss", &["-Htn", "state", "established", "dport", "=", "6443"])?.lines().count();
    println!("{connections} connection, {} KiB at the end", reader.memory_kib()?);
    report_server(lab, &kubernetes, nodes)
}

/// Measures cold starts; the last margay keeps running.
fn report_starts(kubernetes: &Kubernetes, host: &Host) -> Result<Reader> {
    let mut reader = None;
    for _ in 0..STARTS {
        drop(reader.take());
        let begun = Instant::now();
        let started = Reader::start(kubernetes, host)?;
        started.wait_plan("10.65.1.0/26")?;
        println!(
            "start: plan after {} ms with {:.0} ms of CPU, {} KiB",
            begun.elapsed().as_millis(),
            per(CpuTime::of(started.pid)?.since(&CpuTime::default()), 1, 1e6),
            started.memory_kib()?
        );
        reader = Some(started);
    }
    reader.context("no start")
}

/// Measures the cost of one more object.
fn report_changes(kubernetes: &Kubernetes, reader: &Reader) -> Result<()> {
    let mut first = 0;
    let used = reader.during(|| {
        let begun = Instant::now();
        kubernetes.put_block(Group::V1, reader.host.name(), 2)?;
        reader.wait_plan("10.65.2.0/26")?;
        first = begun.elapsed().as_millis();
        Ok(())
    })?;
    println!(
        "one more block: announced after {first} ms, {:.1} ms of CPU",
        per(used.nanos, 1, 1e6)
    );
    let used = reader.during(|| {
        let more = node("one-more", Some("10.15.1.1/12"), &json!({}));
        kubernetes.admin().post("/api/v1/nodes", &more)?;
        sleep(Duration::from_secs(2));
        Ok(())
    })?;
    println!("one more node: {:.1} ms of CPU", per(used.nanos, 1, 1e6));
    Ok(())
}

/// Measures what each further margay costs the API server.
fn report_server(lab: &mut Lab, kubernetes: &Kubernetes, nodes: usize) -> Result<()> {
    let beats = 1000;
    let cost = || -> Result<u64> {
        let before = kubernetes.server_time()?;
        kubernetes.beat(nodes, beats, FAST)?;
        Ok(kubernetes.server_time()?.since(&before))
    };
    let with_one = cost()?;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        others.push(Reader::start(kubernetes, &lab.host(&format!("m{number}"))?)?);
    }
    sleep(Duration::from_secs(20));
    let with_all = cost()?;
    let delivered = beats * OTHERS;
    println!(
        "API server: {:.1} µs of CPU for a heartbeat with one margay, {:.1} with {}: {:.1} µs a delivery",
        per(with_one, beats, 1e3),
        per(with_all, beats, 1e3),
        OTHERS + 1,
        per(with_all.saturating_sub(with_one), delivered, 1e3)
    );
    Ok(())
}

fn report_share(what: &str, used: Used) {
    let share = per(used.nanos, 1, 1e7) / LOOK.as_secs_f64();
    println!(
        "{what}: {:.2} ms of CPU a minute ({share:.4} % of a core), {:.0} KB received",
        per(used.nanos, 1, 1e6),
        per(used.octets, 1, 1e3)
    );
}

fn report_each(what: &str, used: Used, count: usize) {
    println!(
        "{what}: {:.1} µs of CPU, {:.0} octets received",
        per(used.nanos, count, 1e3),
        per(used.octets, count, 1.0)
    );
}

/// A curl(1) that reads the same watch and discards it.
struct Curl(Child);

impl Curl {
    fn start(kubernetes: &Kubernetes, host: &Host) -> Result<Self> {
        let mut curl: Command = host.command("curl");
        curl.args(["-sSN", "--cacert", &kubernetes.ca(), "-o", "/dev/null"]);
        let token = kubernetes.token(TOKEN_SECONDS)?;
        curl.args(["-H", &format!("Authorization: Bearer {token}"), "-H"]);
        curl.arg("Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
        let (_, list) = kubernetes.admin().get("/api/v1/nodes?limit=1&resourceVersion=")?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        let version = list["metadata"]["resourceVersion"].as_str().context("no version")?;
        curl.arg(format!("{}/api/v1/nodes?watch=true&resourceVersion={version}", kubernetes.url()));
        Ok(Self(curl.stdin(Stdio::null()).spawn()?))
    }

    fn end(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}
