//! What `margay calico plan --live --diff` and `simulate --live` say, and what then happens.

use anyhow::{Context, Result, ensure};
use interop::calico::{Cluster, MargayNode, POOL, environment, session_name};
use interop::forecast::{self, expect_foreseen_withdrawal, object_file, sent};
use interop::kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::{control_section, start_text};
use interop::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

fn calico(host: &Host, cluster: &Cluster, args: &[&str]) -> Result<(Option<i32>, String)> {
    forecast::calico(host, &environment(host, cluster, "none"), args)
}

fn foreseen(host: &Host, cluster: &Cluster, args: &[&str]) -> Result<Value> {
    forecast::forecast(host, &environment(host, cluster, "none"), args)
}

/// What `margay calico plan --live --diff` prints, which must exit with this code.
fn plan(host: &Host, cluster: &Cluster, code: i32, args: &[&str]) -> Result<String> {
    let args = [&["plan", "--live", "--diff"], args].concat();
    let (found, text) = calico(host, cluster, &args)?;
    ensure!(found == Some(code), "{args:?}: {found:?}: {text}");
    Ok(text)
}

/// A mesh of three nodes that have each other's blocks.
struct Mesh {
    cluster: Cluster,
    hosts: [Host; 3],
    nodes: Vec<MargayNode>,
    /// The sessions of the first.
    sessions: [String; 2],
}

fn mesh(lab: &mut Lab) -> Result<Mesh> {
    let cluster = Cluster::start(lab)?;
    let hosts = [("a", 1), ("b", 2), ("c", 3)].map(|(name, at)| cluster.node(lab, name, at));
    let [a, b, c] = hosts;
    let hosts = [a?, b?, c?];
    let mut nodes = Vec::new();
    for host in &hosts {
        nodes.push(MargayNode::from_environment(host, &cluster)?);
    }
    let [a, b, c] = &hosts;
    let sessions = [b, c].map(|host| session_name("Mesh", host));
    for session in &sessions {
        wait_until(PATIENCE, "a's block to be sent", || {
            let sent = sent(&nodes[0].control, session)?;
            ensure!(sent == ["10.65.1.0/26"], "{sent:?}");
            Ok(())
        })?;
    }
    kernel::wait_gateways(a, "10.65.2.0/26", &[b.v4().to_string()])?;
    Ok(Mesh { cluster, hosts, nodes, sessions })
}

/// A pool that is not announced any more: its block is withdrawn from both neighbours, as foreseen.
#[test]
#[ignore = "needs root and etcd"]
fn routes_that_are_foreseen_to_be_withdrawn_are() -> Result<()> {
    lab::run_margay("calico-forecast", &[], &["etcd", "etcdctl"], |lab| {
        let Mesh { cluster, hosts: [a, ..], nodes, sessions } = mesh(lab)?;
        let variables = environment(&a, &cluster, "none");
        let node = (&a, &variables, &nodes[0].control);
        expect_foreseen_withdrawal(node, (POOL, "10.65.1.0/26"), &sessions, |spec| {
            cluster.put("ippools", "IPPool", "pods", spec)
        })
    })
}

/// Sessions that restart, begin and end, with the reason; the same without the daemon, from etcd; and
/// the whole cluster in simulated time.
#[test]
#[ignore = "needs root and etcd"]
fn sessions_are_foreseen_by_the_daemon_and_from_the_datastore() -> Result<()> {
    lab::run_margay("calico-sessions", &[], &["etcd", "etcdctl"], |lab| {
        let Mesh { cluster, hosts: [a, b, _c], nodes: _nodes, sessions } = mesh(lab)?;
        let spec = json!({"bgp": {"ipv4Address": format!("{}/24", b.v4()), "asNumber": 64999}});
        let b_json = object_file(&a, "Node", "b", &spec)?;
        let apply = ["--apply", b_json.as_str()];
        let said = foreseen(&a, &cluster, &apply)?;
        let session = &said["sessions"][0];
        let is_first = session["peer"] == sessions[0].as_str();
        ensure!(is_first && session["what"] == "restarts", "{said}");
        ensure!(session["object"] == "Node/b" && session["state"] == "Established", "{said}");
        ensure!(session["keys"][0]["key"].is_string(), "{said}");
        let text = plan(&a, &cluster, 0, &apply)?;
        for line in [
            "change: apply Node/b",
            "plan: ~ families ipv4 sessions ",
            "not counted: what sessions that begin or restart are sent",
            "dry run: nothing",
        ] {
            ensure!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
        }
        let spec = json!({"peerIP": "10.99.0.99", "asNumber": 65001});
        let tor_json = object_file(&a, "BGPPeer", "tor", &spec)?;
        let change = ["--apply", tor_json.as_str(), "--delete", "node/c"];
        let said = foreseen(&a, &cluster, &change)?;
        let expected =
            json!([format!("peer {}: removed", sessions[1]), "peer Global_10_99_0_99: added"]);
        ensure!(said["changes"] == expected, "{said}");
        let change = [&change[..], &["--socket", "/nonexistent.sock"]].concat();
        let said = foreseen(&a, &cluster, &change)?;
        ensure!(said["changes"] == expected && said["routes"].is_null(), "{said}");
        let why = said["forecast"]["why_no_routes"].as_str().unwrap_or_default();
        ensure!(why.starts_with("cannot reach margay at /nonexistent.sock"), "{said}");

        let args = ["simulate", "--live", "--delete", "node/c", "--json"];
        let (code, text) = calico(&a, &cluster, &args)?;
        ensure!(code == Some(0), "{code:?}: {text}");
        let report: Value = serde_json::from_str(&text)?;
        let all = json!({"all": 6, "reached": 6, "by_felix": 0});
        ensure!(report["start"]["from_nodes"] == all, "{text}");
        let change = &report["change"];
        ensure!(change["sessions_ended"] == 2 && change["gaps"] == json!([]), "{text}");
        Ok(())
    })
}

/// What cannot be foreseen is refused with the reason, and a source that is away is named.
#[test]
#[ignore = "needs root and etcd"]
fn what_cannot_be_foreseen_is_refused() -> Result<()> {
    lab::run_margay("calico-refused", &[], &["etcd", "etcdctl"], |lab| {
        let Mesh { mut cluster, hosts: [a, b, _c], nodes: _nodes, .. } = mesh(lab)?;
        let own = lab.host("own")?;
        let text = plan(&a, &cluster, 2, &["--delete", "node/a"])?;
        ensure!(text.contains("there would be no plan"), "{text}");
        let text = plan(&a, &cluster, 2, &["--delete", "bgppeer/x"])?;
        ensure!(text.contains("there is no such object"), "{text}");
        let bgp = "[bgp]\nasn = 64512\nrouter-id = \"10.99.0.250\"\n";
        let (_daemon, control) = start_text(&own, &format!("{bgp}{}", control_section(&own)))?;
        let socket = control.socket().display().to_string();
        let text = plan(&a, &cluster, 1, &["--socket", &socket])?;
        ensure!(text.contains("has no [calico]"), "{text}");
        let spec = json!({"bgp": {"ipv4Address": format!("{}/24", b.v4()), "asNumber": 64999}});
        let b_json = object_file(&a, "Node", "b", &spec)?;
        let apply = ["--apply", b_json.as_str()];
        cluster.etcd.crash()?;
        wait_until(PATIENCE, "the source to be unavailable", || {
            let said = foreseen(&a, &cluster, &apply)?;
            let away = said["forecast"]["sources_unavailable"].as_array().context("no list")?;
            ensure!(away.len() == 1, "{said}");
            let sessions = said["sessions"].as_array().context("no list")?;
            ensure!(sessions.len() == 1, "the last known objects count: {said}");
            Ok(())
        })
    })
}

/// Changed rules select a kernel route for the first time: a dry run counts it as the reload announces it.
#[test]
#[ignore = "needs root"]
fn kernel_routes_that_changed_rules_select_are_foreseen() -> Result<()> {
    lab::run_margay("redistribute-forecast", &[], &[], |lab| {
        let (x, y) = (lab.host("x")?, lab.host("y")?);
        let text = |own: &Host, other: &Host, more: &str| {
            format!(
                "[bgp]\nasn = 64512\nrouter-id = \"{}\"\n[[bgp.peers]]\nname = \"{}\"\n\
                 address = \"{}\"\nremote-asn = 64512\nimport = \"all\"\nexport = \"all\"\n{more}{}",
                own.router_id(),
                other.name(),
                other.v4(),
                control_section(own)
            )
        };
        x.run("ip", &["route", "add", "10.77.0.0/16", "dev", "eth0", "proto", "static"])?;
        let (_x_daemon, control) = start_text(&x, &text(&x, &y, ""))?;
        let (_y_daemon, _) = start_text(&y, &text(&y, &x, ""))?;
        wait_until(PATIENCE, "the session", || control.expect_established(y.v4()))?;
        x.write("margay.toml", &text(&x, &y, "[[redistribute]]\nfrom = \"kernel\"\n"))?;
        let said = control.json(&["reload", "--dry-run"])?;
        let peer = &said["routes"]["peers"][0];
        ensure!(peer["peer"] == "y" && peer["announced"] == 1, "{said}");
        ensure!(peer["routes"][0]["prefix"] == "10.77.0.0/16", "{said}");
        ensure!(said["routes"]["not_counted"] == json!([]), "{said}");
        ensure!(sent(&control, "y")?.is_empty(), "a dry run changes nothing");
        control.text(&["reload"])?;
        wait_until(PATIENCE, "the route to be announced", || {
            let sent = sent(&control, "y")?;
            ensure!(sent == ["10.77.0.0/16"], "{sent:?}");
            Ok(())
        })
    })
}
