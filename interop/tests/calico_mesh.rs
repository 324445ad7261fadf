//! Real nodes in one mesh: as many as a small machine can run, and two with one block.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use interop::calico::{Cluster, MargayNode, session_name};
use interop::kernel;
use interop::lab::{self, Host};
use interop::wait::{PATIENCE, wait_until};

/// Number of nodes; `MESH_NODES` sets another one, 200 at most.
const NODES: u8 = 40;

/// Longest time until all sessions are up. It was 1.3 s on two shared cores; the rest is for slower
/// machines.
const COMPLETE_MAX: Duration = Duration::from_secs(10);

/// Writes permanent neighbour entries on every host. By default the kernel holds at most 1024 that
/// it has resolved itself, over all namespaces, and drops packets to further neighbours.
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

/// All nodes are started at once, without waiting for any. The mesh then takes mostly the CPU time
/// that so many processes need to start; the delay by the sessions' own timers is tested in
/// simulated time (`bgp-proto/tests/sim_mesh.rs`).
#[test]
#[ignore = "needs root and etcd"]
fn a_mesh_of_forty_that_starts_at_once_is_complete() -> Result<()> {
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
        // A session that had to be established twice has waited for a timer.
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

/// Two confirmed affinities of one block (calico#6486): both nodes announce it, and each names it.
#[test]
#[ignore = "needs root, etcd and openssl"]
fn a_block_of_two_nodes_is_named_on_both() -> Result<()> {
    lab::run_margay("calico-rivals", &[], &["etcd", "etcdctl", "openssl"], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let nodes = [(&a, &b), (&b, &a)];
        let running = [
            MargayNode::from_environment(&a, &cluster)?,
            MargayNode::from_environment(&b, &cluster)?,
        ];
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        kernel::wait_gateways(&b, "10.65.1.0/26", &[a.v4().to_string()])?;
        let problems = |node: &MargayNode, expected: f64| {
            let count = node.metric("margay_calico_problems").unwrap_or_default();
            let status = node.status()?;
            ensure!(count == expected, "{count} problems: {status}");
            Ok(status["problems"].clone())
        };
        ensure!(problems(&running[0], 0.0)?.as_array().is_some_and(Vec::is_empty), "too early");
        let mut own = Vec::new();
        for (host, _) in nodes {
            own.push(cluster.put_block(host, 9)?);
        }
        for (node, (host, other)) in running.iter().zip(nodes) {
            let named = wait_until(PATIENCE, "the block to be named", || problems(node, 1.0))?;
            let object = format!("BlockAffinity/{}/{}", host.name(), own[0]);
            ensure!(named[0]["object"] == object, "{named}");
            let text = named[0]["text"].to_string();
            ensure!(text.contains(&session_name("Mesh", other)), "{text}");
            let route = kernel::route(host, &own[0])?;
            ensure!(route.as_ref().is_some_and(|r| r.kind == "blackhole"), "{route:?}");
        }
        cluster.etcd.delete("/calico/ipam/v2/host/b/ipv4/block/10.65.9.0-26")?;
        kernel::wait_gateways(&b, &own[0], &[a.v4().to_string()])?;
        wait_until(PATIENCE, "no problem", || problems(&running[0], 0.0)).map(drop)
    })
}
