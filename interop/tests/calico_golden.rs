//! A mixed mesh, as during a migration from BIRD to margay: Debian's BIRD 1.6.8 runs, byte for
//! byte, the files that confd wrote for one node of a corpus scenario, and the scenario's other
//! nodes run margay with the same objects.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use interop::calico::{GoldenBird, Node, Scenario};
use interop::daemon::Daemon;
use interop::lab::{Host, Lab};
use interop::margay::{self, Control};
use interop::speaker::Family;
use interop::wait::{PATIENCE, holds_for, wait_until};
use interop::{kernel, require};
use serde_json::Value;

/// Scenarios that run at once: they mostly wait for BIRD's timers.
const PARALLEL: usize = 4;
/// Longer than an accepted route takes to reach the kernel.
const AT_ONCE: Duration = Duration::from_millis(300);

/// Scenarios whose Secret is missing. Differs from BIRD: confd omits the password then, and margay
/// does not run a session without the password that it should have.
const WITHOUT_SECRET: [&str; 1] = ["mesh__password__step1"];

/// Runs each scenario of the corpus whose node is in a mesh; there must be at least one.
#[test]
#[ignore = "needs root, BIRD 1.6 and MARGAY_SHARED"]
fn shared_data_birds_on_golden_files_and_margays_are_one_mesh() -> Result<()> {
    require::margay_as_subject()?;
    let shared = require::shared()?;
    let mut scenarios = Scenario::meshes(&shared)?;
    scenarios.retain(|scenario| !WITHOUT_SECRET.contains(&scenario.name.as_str()));
    ensure!(!scenarios.is_empty(), "no scenario of {} fits", shared.display());
    Scenario::run_each(&scenarios, PARALLEL, |scenario, lab| {
        mixed_mesh(lab, scenario)?;
        println!("{}: one mesh", scenario.name);
        Ok(())
    })
}

/// A node that runs margay.
struct Subject {
    host: Host,
    node: Node,
    control: Control,
    /// Its blocks, at most one of each family.
    blocks: Vec<String>,
    daemon: Daemon,
}

fn mixed_mesh(lab: &mut Lab, scenario: &Scenario) -> Result<()> {
    let mut hosts = Vec::new();
    for (at, node) in scenario.nodes.iter().enumerate() {
        let host = lab.host(&format!("n{at}"))?;
        let mut script = "ip addr flush dev eth0 scope global\n".to_owned();
        for network in &node.networks {
            let nodad = if Family::of(network) == Family::V6 { " nodad" } else { "" };
            script.push_str(&format!("ip addr add {network} dev eth0{nodad}\n"));
        }
        host.shell(&script)?;
        hosts.push(host);
    }
    let own = scenario.nodes.iter().position(|node| node.name == scenario.node);
    let own = own.with_context(|| format!("no Node {}", scenario.node))?;
    let bird = GoldenBird::start(&hosts[own], scenario)?;
    let neighbors: BTreeSet<String> = [Family::V4, Family::V6]
        .into_iter()
        .map(|family| scenario.sessions(family))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .map(|(_, neighbor)| neighbor)
        .collect();
    let mut subjects = Vec::new();
    for (at, (node, host)) in scenario.nodes.iter().zip(&hosts).enumerate() {
        let address = |family| node.address(family);
        let is_neighbor = |address: Option<&str>| address.is_some_and(|a| neighbors.contains(a));
        if at != own && [Family::V4, Family::V6].map(address).into_iter().any(is_neighbor) {
            subjects.push(start(scenario, node, host, u8::try_from(at)?, &neighbors)?);
        }
    }
    let bird_node = &scenario.nodes[own];
    for family in [Family::V4, Family::V6] {
        for (session, _) in scenario.sessions(family)? {
            bird.wait_session(family, &session)?;
        }
    }
    for subject in &mut subjects {
        from_bird(scenario, bird_node, subject)?;
        to_bird(scenario, &hosts[own], &bird, subject)?;
        if let Some(status) = subject.daemon.exited()? {
            bail!("{} exited with {status}", subject.node.name);
        }
        ensure!(!subject.daemon.output().contains("panicked"), "{}", subject.daemon.output());
    }
    Ok(())
}

/// Starts margay as a node, with the scenario's own files and a block of each family in which it is
/// a neighbour of BIRD's.
fn start(
    scenario: &Scenario,
    node: &Node,
    host: &Host,
    at: u8,
    neighbors: &BTreeSet<String>,
) -> Result<Subject> {
    let (mut blocks, mut keys) = (Vec::new(), String::new());
    for (family, word) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        let is_neighbor = node.address(family).is_some_and(|a| neighbors.contains(a));
        if let Some(block) = scenario.block(family, at)?.filter(|_| is_neighbor) {
            let key = format!("/calico/ipam/v2/host/{}/{word}/block", node.name);
            keys.push_str(&format!("{key}/{}\t{{}}\n", block.replace('/', "-")));
            blocks.push(block);
        }
    }
    ensure!(!blocks.is_empty(), "no pool to assign {} a block from", node.name);
    let mut paths: Vec<String> =
        scenario.objects.iter().map(|path| path.display().to_string()).collect();
    paths.push(host.write("blocks.txt", &keys)?.display().to_string());
    let text = format!(
        "[calico]\nnode = \"{}\"\ndatastore = \"file\"\npath = {paths:?}\n\
         endpoint-status = \"{}\"\nbird-sockets = \"none\"\n\n{}",
        node.name,
        host.file("status").display(),
        margay::control_section(host),
    );
    let (daemon, control) = margay::start_text(host, &text)?;
    Ok(Subject { host: host.clone(), node: node.clone(), control, blocks, daemon })
}

/// BIRD's blocks are received, and are in the kernel unless the golden filter rejects them.
fn from_bird(scenario: &Scenario, bird: &Node, subject: &Subject) -> Result<()> {
    let address = bird.address(Family::V4).context("BIRD's node has no IPv4 address")?;
    let peer = subject.control.peer(address.parse()?)?;
    let wanted = format!("Mesh_{}", address.replace('.', "_"));
    ensure!(peer["name"] == wanted && peer["state"] == "Established", "{peer}");
    let blocks = scenario.blocks()?;
    for block in &blocks {
        wait_until(PATIENCE, &format!("{block} at {}", subject.node.name), || {
            let paths = subject.control.paths(block)?;
            ensure!(paths.iter().any(|p| p["peer"] == wanted), "{paths:?}");
            Ok(())
        })?;
        wait_kernel(scenario, &subject.host, block, address)?;
    }
    Ok(())
}

/// BIRD receives margay's blocks with the communities that it gives its own, and they are in its
/// kernel unless the golden filter rejects them.
fn to_bird(scenario: &Scenario, host: &Host, bird: &GoldenBird, subject: &Subject) -> Result<()> {
    for block in &subject.blocks {
        let address = subject.node.address(Family::of(block)).context("no address")?;
        let path = wait_until(PATIENCE, &format!("{block} at BIRD"), || {
            let paths = bird.paths(block)?;
            let path = paths.into_iter().find(|p| p.next_hop.as_deref() == Some(address));
            path.context("not there")
        })?;
        wait_kernel(scenario, host, block, address)?;
        if let Some(alike) = scenario.blocks()?.iter().find(|b| scenario.share_a_pool(b, block)) {
            let ours = subject.control.paths(alike)?;
            let theirs = ours.iter().find(|p| p["source"] == "bgp").context("the path is gone")?;
            for (key, list) in
                [("communities", &path.communities), ("large_communities", &path.large_communities)]
            {
                let theirs: BTreeSet<&str> = theirs[key]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let list: BTreeSet<&str> = list.iter().map(String::as_str).collect();
                ensure!(
                    theirs == list,
                    "{key} of {block}: {list:?}, BIRD's of {alike}: {theirs:?}"
                );
            }
        }
    }
    Ok(())
}

fn wait_kernel(scenario: &Scenario, host: &Host, block: &str, via: &str) -> Result<()> {
    if !scenario.is_rejected_by_kernel_filter(block)? {
        return kernel::wait_gateways(host, block, &[via.to_owned()]);
    }
    // It is in the speaker's table, from which it would be installed at once.
    holds_for(AT_ONCE, "the kernel without it", || {
        let found = kernel::route(host, block)?;
        ensure!(found.is_none(), "{} has {found:?}", host.name());
        Ok(())
    })
}
