//! As many real nodes as a small machine carries, in one mesh.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use interop::calico::{Cluster, MargayNode};
use interop::lab::{self, Host};
use interop::wait::{PATIENCE, wait_until};

/// How many there are; `MESH_NODES` sets another number, 200 at most.
const NODES: u8 = 40;

/// 1.3 s on two cores that others use too; the rest is for slower ones.
const COMPLETE_MAX: Duration = Duration::from_secs(10);

/// Writes every host's neighbour entries. The kernel holds 1024 that it has found itself, by default, in all
/// namespaces together, and drops packets beyond.
fn introduce(hosts: &[Host]) -> Result<()> {
    let mut entries = Vec::new();
    for host in hosts {
        let link = host.run("cat", &["/sys/class/net/eth0/address"])?;
        entries.push((host.v4(), link.trim().to_owned()));
    }
    for host in hosts {
        let others = entries.iter().filter(|(address, _)| *address != host.v4());
        let batch: String = others
            .map(|(address, link)| {
                format!("neigh replace {address} lladdr {link} dev eth0 nud permanent\n")
            })
            .collect();
        let path = host.write("neighbours", &batch)?.display().to_string();
        host.run("ip", &["-batch", &path])?;
    }
    Ok(())
}

/// All are started, in no time, and none is waited for. What it takes is mostly the processor time that so many
/// processes need at their start; what the sessions' timers add is judged in simulated time
/// (`bgp-proto/tests/sim_mesh.rs`).
#[test]
#[ignore = "needs root and etcd"]
fn a_mesh_of_forty_that_starts_at_one_moment_is_complete() -> Result<()> {
    lab::run_margay("calico-forty", &[], &["etcd", "etcdctl"], |lab| {
        let cluster = Cluster::start(lab)?;
        let count = std::env::var("MESH_NODES").map_or(Ok(NODES), |text| text.parse())?;
        let mut hosts = Vec::new();
        for number in 1..=count {
            hosts.push(cluster.node(lab, &format!("n{number}"), number)?);
        }
        introduce(&hosts)?;
        let mut nodes = Vec::new();
        let first = Instant::now();
        for host in &hosts {
            nodes.push(MargayNode::spawn(host, &cluster)?);
        }
        let last = Instant::now();
        wait_until(PATIENCE, "all sessions", || {
            for (host, node) in hosts.iter().zip(&mut nodes) {
                let output = node.daemon().output();
                let missing = hosts.iter().filter(|other| other.v4() != host.v4()).find(|other| {
                    !output.contains(&format!("session established with {} ", other.v4()))
                });
                let missing = missing.map(|other| other.v4());
                ensure!(missing.is_none(), "{} without {missing:?}", host.name());
            }
            Ok(())
        })?;
        let took = last.elapsed();
        // A session that had to be made twice took a timer's time.
        let sessions: usize = hosts
            .iter()
            .map(|host| nodes.iter().map(|node| node.sessions(host)).sum::<usize>())
            .sum();
        let count = usize::from(count);
        println!(
            "{count} nodes: complete {took:?} after the last start, {:?} after the first",
            first.elapsed()
        );
        ensure!(took < COMPLETE_MAX, "complete after {took:?}");
        ensure!(sessions == count * (count - 1), "{sessions} sessions came up");
        Ok(())
    })
}
