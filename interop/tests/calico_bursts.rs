//! Objects that change faster than sessions can follow: the last state takes effect.

use std::time::Duration;

use anyhow::{Result, ensure};
use interop::calico::{Cluster, MargayNode};
use interop::kernel;
use interop::lab;
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::json;

/// The mesh is switched on and off repeatedly before any session can be established or closed.
#[test]
#[ignore = "needs root and etcd"]
fn the_last_setting_of_the_mesh_takes_effect() -> Result<()> {
    lab::run_margay("calico-bursts", &[], &["etcd", "etcdctl"], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let nodes = [
            MargayNode::from_environment(&a, &cluster)?,
            MargayNode::from_environment(&b, &cluster)?,
        ];
        let ways = [(&a, "10.65.2.0/26", &b), (&b, "10.65.1.0/26", &a)];
        let all = |there: bool| -> Result<()> {
            for (node, (host, prefix, other)) in nodes.iter().zip(ways) {
                let sessions = node.peers()?.len();
                ensure!(sessions == usize::from(there), "{sessions} sessions");
                let route = kernel::route(host, prefix)?;
                ensure!(route.is_some() == there, "{}: {route:?}", host.name());
                if there {
                    ensure!(node.session(other)?.state == "Established", "{}", host.name());
                }
            }
            Ok(())
        };
        wait_until(PATIENCE, "the mesh", || all(true))?;
        // Rounds end alternately with and without a mesh. Changes come twice as fast as plans are
        // made, and slower.
        for (round, pause) in [0, 20, 60, 150, 20, 0, 90, 40].into_iter().enumerate() {
            let ends_on = round % 2 == 1;
            for change in 0..5 {
                let enabled = (change % 2 == 0) == ends_on;
                let spec = json!({"nodeToNodeMeshEnabled": enabled});
                cluster.put("bgpconfigurations", "BGPConfiguration", "default", &spec)?;
                std::thread::sleep(Duration::from_millis(pause));
            }
            let what = format!("round {round}: mesh {ends_on}");
            wait_until(PATIENCE, &what, || all(ends_on))?;
            holds_for(Duration::from_millis(1500), &what, || all(ends_on))?;
        }
        Ok(())
    })
}
