//! What `margay calico simulate` says of a cluster, and what its nodes do.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use interop::calico::{Cluster, MargayNode};
use interop::kernel;
use interop::lab::{self, Host};
use interop::margay::binary;
use interop::speaker::Family;
use interop::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

/// Kernel routes to blocks: for each host and prefix the gateways, none for own blocks.
type Routes = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// What the simulation says of the objects that are in etcd now.
fn simulated(cluster: &Cluster, hosts: &[Host]) -> Result<(Option<i32>, Routes)> {
    let dump = cluster.etcd.host().write("objects.txt", &cluster.etcd.dump()?)?;
    let mut command = Command::new(binary()?);
    command.args(["calico", "simulate", "--json", "--routes", "--resources"]).arg(dump);
    let output = command.output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let mut routes = Routes::new();
    for host in hosts {
        let of_host = report["routes"][host.name()].as_object().context("an unknown node")?;
        let gateways = |list: &Value| -> Vec<String> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(|hop| hop.as_str().map(str::to_owned)).collect()
        };
        let of_host = of_host.iter().map(|(prefix, list)| (prefix.clone(), gateways(list)));
        routes.insert(host.name().to_owned(), of_host.collect());
    }
    Ok((output.status.code(), routes))
}

/// What the kernels have.
fn real(hosts: &[Host]) -> Result<Routes> {
    let mut all = Routes::new();
    for host in hosts {
        let routes = kernel::routes(host, Family::V4, kernel::PROTOCOL)?.into_iter();
        let routes = routes.map(|route| (route.prefix, route.gateways)).collect();
        all.insert(host.name().to_owned(), routes);
    }
    Ok(all)
}

/// A mesh, then two reflectors instead of it, then neither: each time the nodes have the routes that
/// the simulation has, and it says whether all is reached.
#[test]
#[ignore = "needs root and etcd"]
fn nodes_have_the_routes_that_are_simulated() -> Result<()> {
    lab::run_margay("calico-simulate", &[], &["etcd", "etcdctl"], |lab| {
        let cluster = Cluster::start(lab)?;
        let mut hosts = Vec::new();
        for number in 1..=5 {
            hosts.push(cluster.node(lab, &format!("n{number}"), number)?);
        }
        let mut nodes = Vec::new();
        for host in &hosts {
            nodes.push(MargayNode::spawn(host, &cluster)?);
        }
        let check = |what: &str, code: i32, count: usize| {
            let (found, expected) = simulated(&cluster, &hosts)?;
            ensure!(found == Some(code), "{what}: exit code {found:?}");
            let routes: usize = expected.values().map(BTreeMap::len).sum();
            ensure!(routes == count, "{what}: {expected:?}");
            wait_until(PATIENCE, what, || {
                let found = real(&hosts)?;
                ensure!(found == expected, "real {found:?}, simulated {expected:?}");
                Ok(())
            })
        };
        check("the mesh", 0, 25)?;
        let rr = json!({"routeReflectorClusterID": "244.0.0.1"});
        for host in &hosts[..2] {
            cluster.put_node(host, &json!({"rr": "yes"}), &rr)?;
        }
        let spec = json!({"nodeSelector": "all()", "peerSelector": "rr == 'yes'"});
        cluster.put("bgppeers", "BGPPeer", "reflectors", &spec)?;
        let off = json!({"nodeToNodeMeshEnabled": false});
        cluster.put("bgpconfigurations", "BGPConfiguration", "default", &off)?;
        check("the reflectors", 0, 25)?;
        cluster.delete("bgppeers", "reflectors")?;
        check("no sessions", 1, 5)
    })
}
