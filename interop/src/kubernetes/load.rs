//! A large cluster, and the cost of following it.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Group, Kubernetes, node};
use crate::cpu_time::CpuTime;
use crate::lab::Host;

/// Block affinities of each node.
const BLOCKS: usize = 3;
/// Most BGPPeers, and most nodes with blocks.
const OTHERS_MAX: usize = 1000;
/// Container images that a Node lists, kubelet's `nodeStatusMaxImages`.
const IMAGES: usize = 50;

/// The address of a node of a large cluster.
#[must_use]
pub fn large_address(n: usize) -> String {
    format!("10.{}.{}.{}", 16 + n / 62_500, n / 250 % 250, 1 + n % 250)
}

impl Kubernetes {
    /// Creates `nodes` Nodes as large as real ones (15 KB, of which 4 are metadata), with three
    /// blocks and a BGPPeer for each of the first 1,000. There are no sessions: the mesh is off,
    /// and the BGPPeers select no node.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn put_large_cluster(&self, group: Group, nodes: usize) -> Result<()> {
        let mesh = json!({"nodeToNodeMeshEnabled": false});
        self.put(group, "bgpconfigurations", "default", &mesh)?;
        let of = |plural: &str, name: &str, spec: Value| {
            (group.path(plural), group.object(plural, name, &spec))
        };
        let mut created: Vec<(String, Value)> = Vec::new();
        for n in 0..nodes {
            let address = format!("{}/12", large_address(n));
            let mut labels = json!({"rack": n.to_string()});
            for number in 0..9 {
                labels[format!("example.org/label-{number}")] = json!("value");
            }
            let object = node(&format!("n{n}"), Some(&address), &labels);
            created.push(("/api/v1/nodes?fieldManager=kubelet".to_owned(), object));
        }
        for n in 0..nodes.min(OTHERS_MAX) {
            let spec = json!({"peerIP": format!("10.2.{}.{}", n / 250, 1 + n % 250),
                              "asNumber": 65000, "nodeSelector": "rack == 'none'"});
            created.push(of("bgppeers", &format!("p{n}"), spec));
            for block in 0..BLOCKS {
                let spec = json!({"node": format!("n{n}"), "state": "confirmed", "deleted": "false",
                    "cidr": format!("10.{}.{}.{}/26", 100 + block + 3 * (n / 1000), n / 4 % 250, n % 4 * 64)});
                created.push(of("blockaffinities", &format!("n{n}-{block}"), spec));
            }
        }
        self.admin().send_many("POST", &created)?;
        let status: Vec<_> =
            (0..nodes).map(|n| (status_of(n, "kubelet"), whole_status())).collect();
        self.admin().send_many("PATCH", &status)
    }

    /// Writes the status of Nodes one after the other, as their kubelets do at least every five
    /// minutes: `beats` times, at most `per_second` times a second.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn beat(&self, nodes: usize, beats: usize, per_second: f64) -> Result<()> {
        // Times never repeat: a write that changes nothing would cause no watch event.
        let first = self.beats.fetch_add(beats, Ordering::Relaxed);
        let beats: Vec<(String, Value)> = (first..first + beats)
            .map(|n| {
                let now = format!(
                    "2026-01-{:02}T{:02}:{:02}:{:02}Z",
                    2 + n / 86_400,
                    n / 3600 % 24,
                    n / 60 % 60,
                    n % 60
                );
                (
                    status_of(n % nodes, "kubelet"),
                    json!({"status": {"conditions": conditions(&now)}}),
                )
            })
            .collect();
        self.admin().send_paced("PATCH", &beats, per_second)
    }

    /// CPU time of the API server so far.
    ///
    /// # Errors
    /// When it does not run.
    pub fn server_time(&self) -> Result<CpuTime> {
        CpuTime::of(self.server.as_ref().context("no API server runs")?.pid())
    }
}

fn status_of(n: usize, manager: &str) -> String {
    format!("/api/v1/nodes/n{n}/status?fieldManager={manager}")
}

fn conditions(now: &str) -> Value {
    ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
        .iter()
        .map(|kind| {
            json!({"type": kind, "status": if *kind == "Ready" { "True" } else { "False" },
                   "reason": "KubeletHasEnough", "message": "kubelet has enough of it",
                   "lastHeartbeatTime": now, "lastTransitionTime": "2026-01-01T00:00:00Z"})
        })
        .collect()
}

/// The status that kubelet writes at its start.
fn whole_status() -> Value {
    let amounts = json!({"cpu": "16", "memory": "65536000Ki", "pods": "110",
                         "ephemeral-storage": "102400000Ki", "hugepages-2Mi": "0"});
    let images: Vec<Value> = (0..IMAGES)
        .map(|n| {
            let mut digest = String::new();
            for _ in 0..8 {
                let _ = write!(digest, "{:08x}", (n * 0x0123_4567) & 0xffff_ffff);
            }
            json!({"names": [format!("registry.example.org/team/image-{n}@sha256:{digest}"),
                             format!("registry.example.org/team/image-{n}:v1.2.{n}")],
                   "sizeBytes": 100_000_000 + n})
        })
        .collect();
    json!({"status": {"capacity": amounts, "allocatable": amounts, "images": images,
                      "conditions": conditions("2026-01-01T00:00:00Z")}})
}

/// Octets that a host has received so far.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn received(host: &Host) -> Result<u64> {
    let dev = host.run("cat", &["/proc/net/dev"])?;
    let line = dev.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    let octets = line.and_then(|line| line.split_whitespace().next()).context("no eth0")?;
    Ok(octets.parse()?)
}
