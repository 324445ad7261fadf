//! Missing groups and CRDs, objects in deletion, and servers that are not a Kubernetes API server
//! with Calico's objects. Each fault is reported with its remedy in `show status` and as a metric,
//! the known objects stay in force, and margay recovers by itself. Servers that fail are in
//! `interop/tests/kubernetes.rs`.

use std::time::Duration;

use anyhow::{Result, ensure};
use interop::calico::MargayNode;
use interop::kernel;
use interop::kubernetes::{Cluster, Group, Kubernetes, SETTLED, environment, via};
use interop::lab;
use interop::pki::When;
use interop::wait::{holds_for, wait_until};
use serde_json::json;

/// How long a test watches what must not change: certain deletions are carried out after three
/// seconds.
const WATCHED: Duration = Duration::from_secs(6);

/// A node is started with an API group that the server does not have.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_wrong_group_is_named_and_costs_no_route() -> Result<()> {
    Cluster::of_two("kube-group", |cluster, group| {
        let (a, b) = (cluster.hosts[0].clone(), cluster.hosts[1].clone());
        wait_until(SETTLED, "the objects to be kept", || {
            let kept = std::fs::read_to_string(a.file("state"))?;
            ensure!(kept.contains("10.65.1.0/26"), "{kept}");
            Ok(())
        })?;
        cluster.nodes[0].daemon().crash()?;
        let wrong = [("CALICO_API_GROUP", "projectcalico.org/v3")];
        let variables = environment(&a, &cluster.account.kubeconfig, &wrong);
        cluster.nodes[0] = MargayNode::from_variables(&a, variables)?;
        cluster.wait_reason("no-api-group", "CALICO_API_GROUP")?;
        let reason = cluster.source()?["error"].to_string();
        ensure!(reason.contains("crd.projectcalico.org/v1"), "{reason}");
        cluster.nodes[0].wait_session(&b)?;
        holds_for(WATCHED, "the routes of both", || {
            ensure!(kernel::route(&a, "10.65.2.0/26")?.is_some_and(|r| r.gateways == via(&b)));
            ensure!(kernel::route(&b, "10.65.1.0/26")?.is_some_and(|r| r.gateways == via(&a)));
            Ok(())
        })?;

        // The group that the variable names is installed.
        cluster.kubernetes.install_crds(Group::V3)?;
        let pool = json!({"cidr": "10.65.0.0/16"});
        cluster.kubernetes.put(Group::V3, "ippools", "pods", &pool)?;
        for number in [1, 77] {
            cluster.kubernetes.put_block(Group::V3, a.name(), number)?;
        }
        cluster.wait_current()?;
        kernel::wait_gateways(&b, "10.65.77.0/26", &via(&a))?;
        for monitor in &cluster.monitors {
            let changes = monitor.changes()?;
            ensure!(!changes.contains("Deleted 10.65."), "{changes}");
        }
        // The other node has detected its group by itself, and keeps it.
        cluster.kubernetes.put_block(group, b.name(), 78)?;
        kernel::wait_gateways(&a, "10.65.78.0/26", &via(&b))
    })
}

/// The CRDs are installed after margay was started.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn crds_that_are_installed_later_are_found() -> Result<()> {
    lab::run("kube-late", &[], |lab| {
        let group = Group::V1;
        let kubernetes = Kubernetes::start_without_crds(&lab.host("api")?)?;
        let mut cluster = Cluster::empty(lab, kubernetes)?;
        let host = lab.host("a")?;
        let variables = environment(&host, &cluster.account.kubeconfig, &[]);
        cluster.nodes.push(MargayNode::from_variables(&host, variables)?);
        cluster.wait_reason("no-api-group", "Calico's CRDs are not installed")?;
        ensure!(cluster.nodes[0].metric("margay_calico_in_force")? == 0.0, "an empty plan");

        // The second group exists by name only: the server behind its APIService does not answer.
        let service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v3.projectcalico.org"},
            "spec": {"group": "projectcalico.org", "version": "v3", "groupPriorityMinimum": 1500,
                     "versionPriority": 200, "insecureSkipTLSVerify": true,
                     "service": {"namespace": "kube-system", "name": "calico-api"}},
        });
        let services = "/apis/apiregistration.k8s.io/v1/apiservices";
        cluster.kubernetes.admin().post(services, &service)?;
        cluster.wait_reason("server-error", "503")?;
        ensure!(cluster.nodes[0].metric("margay_calico_in_force")? == 0.0, "an empty plan");

        cluster.kubernetes.install_crds(group)?;
        cluster.kubernetes.put_node(group, &host, 1)?;
        cluster.wait_current()?;
        wait_until(SETTLED, "the block", || {
            ensure!(!cluster.nodes[0].control.paths("10.65.1.0/26")?.is_empty(), "not announced");
            Ok(())
        })
    })
}

/// An object with a finalizer that is not removed still counts, although its deletion has begun.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn an_object_that_hangs_in_deletion_counts_until_it_is_gone() -> Result<()> {
    Cluster::of_two("kube-finalizer", |cluster, group| {
        let (a, b) = (cluster.hosts[0].clone(), cluster.hosts[1].clone());
        let peer = json!({"peerIP": "192.0.2.1", "asNumber": 64999});
        cluster.kubernetes.put(group, "bgppeers", "tor", &peer)?;
        cluster.kubernetes.put_block(group, b.name(), 90)?;
        kernel::wait_gateways(&a, "10.65.90.0/26", &via(&b))?;
        let paths = ["bgppeers/tor", "blockaffinities/b-10-65-90-0-26"]
            .map(|object| format!("{}{object}", group.path("")));
        let finalizers = |names: serde_json::Value| json!({"metadata": {"finalizers": names}});
        let control = cluster.nodes[0].control.clone();
        let has_peer = || -> Result<bool> {
            Ok(control.json(&["show", "peers"])?.to_string().contains("192.0.2.1"))
        };
        wait_until(SETTLED, "the peer", || {
            ensure!(has_peer()?, "not there");
            Ok(())
        })?;
        for path in &paths {
            let admin = cluster.kubernetes.admin();
            admin.patch(path, &finalizers(json!(["example.org/held"])))?;
            admin.delete(path)?;
            let object = admin.object(path)?;
            ensure!(object["metadata"]["deletionTimestamp"].is_string(), "{object}");
        }
        holds_for(WATCHED, "the route and the session", || {
            ensure!(kernel::route(&a, "10.65.90.0/26")?.is_some(), "no route");
            ensure!(has_peer()?, "no peer");
            Ok(())
        })?;
        // A new list contains both as well.
        cluster.kubernetes.restart_server()?;
        cluster.expect_life(group, "a restart with objects that hang")?;
        ensure!(kernel::route(&a, "10.65.90.0/26")?.is_some() && has_peer()?, "gone after a list");

        for path in &paths {
            cluster.kubernetes.admin().patch(path, &finalizers(json!(null)))?;
        }
        wait_until(SETTLED, "both to go", || {
            ensure!(kernel::route(&a, "10.65.90.0/26")?.is_none(), "the route is there");
            ensure!(!has_peer()?, "the peer is there");
            Ok(())
        })
    })
}

/// A proxy answers with HTML in place of the server; the server's certificate is not valid yet.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_proxy_and_a_clock_are_named_and_cost_no_route() -> Result<()> {
    Cluster::of_two("kube-proxy", |cluster, group| {
        cluster.kubernetes.crash_server()?;
        let mut html = cluster.kubernetes.start_html_server()?;
        cluster.wait_reason("not-kubernetes", "is a proxy in between?")?;
        let reason = cluster.source()?["error"].to_string();
        for part in ["text/html", "K8S_API_ENDPOINT"] {
            ensure!(reason.contains(part), "{reason}");
        }
        cluster.expect_nothing_lost("HTML")?;
        html.crash()?;

        cluster.kubernetes.issue_server(When::Future)?;
        cluster.kubernetes.start_server_unready()?;
        cluster.wait_reason("no-connection", "check the clock of this machine")?;
        cluster.expect_nothing_lost("a certificate of the future")?;
        cluster.kubernetes.issue_server(When::Always)?;
        cluster.expect_life(group, "HTML and a certificate of the future")?;
        cluster.wait_current()
    })
}

/// A tool renews the token inside of the kubeconfig (calico#7220).
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_kubeconfig_that_is_rewritten_is_read_again() -> Result<()> {
    Cluster::of_two("kube-rewritten", |cluster, group| {
        let (a, b) = (cluster.hosts[0].clone(), cluster.hosts[1].clone());
        let inline = |kubernetes: &Kubernetes, token: &str| {
            kubernetes.kubeconfig("inline", &format!("token: {token}"))
        };
        // The server allows a minute of clock skew.
        let expiring = cluster.kubernetes.signed_token(-600, -30)?;
        let kubeconfig = inline(&cluster.kubernetes, &expiring)?;
        cluster.nodes[0].daemon().crash()?;
        cluster.nodes[0] = MargayNode::from_variables(&a, environment(&a, &kubeconfig, &[]))?;
        cluster.nodes[0].wait_session(&b)?;
        cluster.wait_current()?;
        std::thread::sleep(Duration::from_secs(45));
        cluster.kubernetes.restart_server()?;
        cluster.wait_reason("unauthorized", "expired on")?;
        inline(&cluster.kubernetes, &cluster.kubernetes.token(600)?)?;
        cluster.wait_current()?;
        cluster.kubernetes.put_block(group, a.name(), 79)?;
        kernel::wait_gateways(&b, "10.65.79.0/26", &via(&a))?;
        for monitor in &cluster.monitors {
            let changes = monitor.changes()?;
            ensure!(!changes.contains("Deleted 10.65."), "{changes}");
        }
        Ok(())
    })
}
