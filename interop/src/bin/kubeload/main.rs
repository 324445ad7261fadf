//! What it costs margay, and the API server, to follow a large cluster in the Kubernetes API.
//!
//! `cargo run --profile fast -p interop --bin kubeload -- NODES` as root, with `interop/setup.sh
//! kubernetes` done. With `heartbeats` after it: what one of them costs margay, and readers that
//! drop it. Prints a line for each number; `benches/README.md` holds those that were measured.

mod floor;
mod reader;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interop::cpu_time::CpuTime;
use interop::kubernetes::{Group, Kubernetes, node, received};
use interop::lab::{self, Host, Lab};
use reader::{Idler, Reader, Used};
use serde_json::json;

/// Longest interval at which a kubelet writes its Node, in seconds.
const BEAT_SECONDS: f64 = 300.0;
/// Lifetime of tokens: longer than all measurements.
const TOKEN_SECONDS: u64 = 3600;
/// How long each state is measured.
const LOOK: Duration = Duration::from_secs(60);
/// Number of cold starts.
const STARTS: usize = 3;
/// Number of readers beside margay when the server's cost for each is measured.
const READERS: u32 = 40;
/// Heartbeats a second, and in total, of each measurement.
const PACES: [(f64, usize); 2] = [(1.0, 20), (50.0, 300)];
/// How often each pace is measured.
const ROUNDS: usize = 5;
/// The rate at which the server's cost is measured.
const FAST: f64 = 50.0;
/// The media type in which margay and the readers beside it request Nodes.
const ACCEPT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [call @ (floor::ON_ONE | floor::ON_TWO), url, ca, token] => {
            floor::read(call, url.to_owned(), ca.to_owned(), token.to_owned())
        }
        [nodes] => {
            let nodes = nodes.parse()?;
            lab::run("kube-load", &[], |lab| measure(lab, nodes))
        }
        [nodes, "heartbeats"] => {
            let nodes = nodes.parse()?;
            lab::run("kube-beats", &[], |lab| {
                let (kubernetes, host) = cluster(lab, nodes)?;
                let reader = Reader::start(&kubernetes, &host)?;
                reader.wait_plan("10.65.1.0/26")?;
                report_heartbeats(lab, &kubernetes, &reader, nodes)
            })
        }
        _ => bail!("usage: kubeload NODES [heartbeats]"),
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

/// A cluster of `nodes` nodes besides that of the host.
fn cluster(lab: &mut Lab, nodes: usize) -> Result<(Kubernetes, Host)> {
    let group = Group::V1;
    let kubernetes = Kubernetes::start(&lab.host("api")?, group)?;
    let host = lab.host("a")?;
    kubernetes.install_rbac()?;
    kubernetes.put_node(group, &host, 1)?;
    kubernetes.put_large_cluster(group, nodes)?;
    Ok((kubernetes, host))
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn measure(lab: &mut Lab, nodes: usize) -> Result<()> {
    let (kubernetes, host) = cluster(lab, nodes)?;
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

    let connections =
        host.run("ss", &["-Htn", "state", "established", "dport", "=", "6443"])?.lines().count();
    println!("{connections} connection, {} KiB at the end", reader.memory_kib()?);
    report_server(lab, &kubernetes, nodes)
}

/// Measures cold starts, and returns the last margay.
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

/// Measures the cost of a heartbeat to margay, and to others that read the same at the same time.
fn report_heartbeats(
    lab: &mut Lab,
    kubernetes: &Kubernetes,
    reader: &Reader,
    nodes: usize,
) -> Result<()> {
    let host = lab.host("others")?;
    let idlers = [
        ("curl", Idler::curl(kubernetes, &host)?),
        ("hyper", Idler::hyper(kubernetes, &host, floor::ON_ONE)?),
        ("hyper on two threads", Idler::hyper(kubernetes, &host, floor::ON_TWO)?),
    ];
    sleep(Duration::from_secs(2));
    for (rate, beats) in PACES {
        let mut times: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let begun = idlers.each_ref().map(|(_, idler)| idler.time());
            let used = reader.during(|| kubernetes.beat(nodes, beats, rate))?;
            times[0].push(per(used.nanos, beats, 1e3));
            for (at, (begun, (_, idler))) in (1..).zip(begun.into_iter().zip(&idlers)) {
                times[at].push(per(idler.time()?.since(&begun?), beats, 1e3));
            }
            report_each(&format!("heartbeat at {rate}/s"), used, beats);
        }
        let names = [&["margay"][..], &idlers.each_ref().map(|(name, _)| *name)].concat();
        for (name, times) in names.into_iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let (least, median, most) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
            println!("heartbeat at {rate}/s: {name} {median:.1} µs of CPU ({least:.1}-{most:.1})");
        }
    }
    Ok(())
}

/// Measures the cost of each further reader to the API server, which is the same for every reader.
fn report_server(lab: &mut Lab, kubernetes: &Kubernetes, nodes: usize) -> Result<()> {
    let beats = 1000;
    let cost = || -> Result<u64> {
        let before = kubernetes.server_time()?;
        kubernetes.beat(nodes, beats, FAST)?;
        Ok(kubernetes.server_time()?.since(&before))
    };
    let with_one = cost()?;
    let host = lab.host("readers")?;
    let readers: Result<Vec<Idler>> =
        (0..READERS).map(|_| Idler::hyper(kubernetes, &host, floor::ON_ONE)).collect();
    let readers = readers?;
    sleep(Duration::from_secs(5));
    let before = received(&host)?;
    let with_all = cost()?;
    let delivered = beats * readers.len();
    let octets = per(received(&host)? - before, delivered, 1.0);
    ensure!(octets > 1000.0, "{octets} octets a delivery: not all of them read");
    println!(
        "API server: {:.1} µs of CPU for a heartbeat with one reader, {:.1} with {}: {:.1} µs and {octets:.0} \
         octets a delivery",
        per(with_one, beats, 1e3),
        per(with_all, beats, 1e3),
        READERS + 1,
        (per(with_all, beats, 1e3) - per(with_one, beats, 1e3)) / f64::from(READERS),
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
