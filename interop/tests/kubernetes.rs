//! margay with Calico's objects in the Kubernetes API: a real kube-apiserver and etcd, as users run
//! them, and their faults. `interop/setup.sh kubernetes` builds both.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use interop::calico::{MargayNode, Pod, Stream, session_name};
use interop::forecast::expect_foreseen_withdrawal;
use interop::kernel;
use interop::kubernetes::{
    Account, Cluster, Group, Kubernetes, SETTLED, environment, node, received, via,
};
use interop::lab::{self, Host};
use interop::pki::When;
use interop::wait::{holds_for, wait_until};
use serde_json::{Value, json};

/// Three nodes and a reflector; nodes are added, deleted and registered again while pods exchange
/// packets.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_cluster_lives_on_the_kubernetes_api() -> Result<()> {
    lab::run("kube-cluster", &[], |lab| {
        let group = Group::V1;
        let mut cluster = Cluster::start(lab, group, &["a", "b", "c"])?;
        let (a, b) = (cluster.hosts[0].clone(), cluster.hosts[1].clone());
        let (x, y) = (Pod::start(&a, "x", "10.65.1.7")?, Pod::start(&b, "y", "10.65.2.7")?);
        cluster.expect_life(group, "the start")?;

        // A fourth node is added and deleted.
        let d = lab.host("d")?;
        cluster.kubernetes.put_node(group, &d, 4)?;
        let nd = MargayNode::from_variables(&d, environment(&d, &cluster.account.kubeconfig, &[]))?;
        kernel::wait_gateways(&a, "10.65.4.0/26", &via(&d))?;
        nd.wait_session(&b)?;
        cluster.kubernetes.admin().delete("/api/v1/nodes/d")?;
        let wanted = [session_name("Mesh", &b), session_name("Mesh", &cluster.hosts[2])];
        cluster.nodes[0].wait_peers(&wanted)?;

        // The node's own object is deleted and registered again by kubelet, which knows nothing of
        // Calico.
        let admin = cluster.kubernetes.admin();
        admin.delete("/api/v1/nodes/a")?;
        admin.post("/api/v1/nodes", &node("a", None, &json!({})))?;
        cluster.wait_problem("has lost its projectcalico.org address annotations")?;
        let annotation = json!({"metadata": {"annotations": {
            "projectcalico.org/IPv4Address": format!("{}/24", a.v4())}}});
        holds_for(Duration::from_secs(2), "the plan of a", || {
            ensure!(cluster.nodes[0].peers()?.len() == 2);
            Ok(())
        })?;
        cluster.kubernetes.admin().patch("/api/v1/nodes/a", &annotation)?;
        wait_until(SETTLED, "no problem", || {
            let status = cluster.nodes[0].status()?;
            ensure!(status["problems"] == json!([]), "{}", status["problems"]);
            Ok(())
        })?;

        // From the mesh to a reflector.
        let mut stream = Stream::start(&x, &y)?;
        let rr = lab.host("rr")?;
        let mut reflector = node("rr", Some(&format!("{}/24", rr.v4())), &json!({"rr": "true"}));
        reflector["metadata"]["annotations"]["projectcalico.org/RouteReflectorClusterID"] =
            json!("244.0.0.1");
        cluster.kubernetes.admin().post("/api/v1/nodes", &reflector)?;
        let _nrr =
            MargayNode::from_variables(&rr, environment(&rr, &cluster.account.kubeconfig, &[]))?;
        let spec = json!({"nodeSelector": "all()", "peerSelector": "has(rr)"});
        cluster.kubernetes.put(group, "bgppeers", "to-reflectors", &spec)?;
        let mesh = json!({"nodeToNodeMeshEnabled": false});
        cluster.kubernetes.put(group, "bgpconfigurations", "default", &mesh)?;
        for node in &cluster.nodes {
            node.wait_peers(&[session_name("Node", &rr)])?;
            node.wait_session(&rr)?;
        }
        kernel::wait_gateways(&a, "10.65.2.0/26", &via(&b))?;
        stream.expect_flow(Duration::from_secs(1))?;
        let changes = cluster.monitors[1].changes()?;
        ensure!(!changes.contains("Deleted 10.65.3."), "{changes}");
        Ok(())
    })
}

/// What `margay calico plan --live --diff` says of a changed pool is what happens once the API server has
/// it.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn routes_that_are_foreseen_to_be_withdrawn_are() -> Result<()> {
    lab::run("kube-forecast", &[], |lab| {
        let group = Group::V1;
        let cluster = Cluster::start(lab, group, &["a", "b", "c"])?;
        let [a, b, c] = &cluster.hosts[..] else { bail!("three nodes were started") };
        let sessions = [b, c].map(|host| session_name("Mesh", host));
        let variables = environment(a, &cluster.account.kubeconfig, &[]);
        let node = (a, &variables, &cluster.nodes[0].control);
        expect_foreseen_withdrawal(node, ("10.65.0.0/16", "10.65.1.0/26"), &sessions, |spec| {
            cluster.kubernetes.patch_spec(group, "ippools", "pods", spec)
        })
    })
}

/// The server is killed, frozen, terminated and restarted; its etcd is frozen; its certificate
/// expires and is renewed.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_faulty_server_costs_no_route() -> Result<()> {
    Cluster::of_two("kube-server", |cluster, group| {
        cluster.kubernetes.crash_server()?;
        cluster.wait_reason("no-connection", "Connection refused")?;
        cluster.kubernetes.start_server()?;
        cluster.expect_life(group, "a crash")?;
        cluster.wait_current()?;

        cluster.kubernetes.restart_server()?;
        cluster.expect_life(group, "a restart")?;

        cluster.kubernetes.signal_server("STOP")?;
        // Only a PING detects this: it is sent after 15 s, and its answer awaited for 10.
        cluster.wait_reason("no-connection", "no connection within 10 s")?;
        cluster.kubernetes.signal_server("CONT")?;
        cluster.expect_life(group, "a frozen server")?;

        cluster.kubernetes.signal_etcd("STOP")?;
        std::thread::sleep(Duration::from_secs(5));
        cluster.kubernetes.signal_etcd("CONT")?;
        cluster.expect_life(group, "a frozen etcd")?;

        // For a minute the old process serves open watches and accepts no connections.
        cluster.kubernetes.signal_server("TERM")?;
        std::thread::sleep(Duration::from_secs(2));
        cluster.expect_nothing_lost("SIGTERM")?;
        cluster.kubernetes.crash_server()?;
        cluster.kubernetes.start_server()?;
        cluster.expect_life(group, "SIGTERM")?;

        cluster.kubernetes.issue_server(When::Past)?;
        std::thread::sleep(Duration::from_secs(2));
        cluster.kubernetes.crash_server()?;
        cluster.kubernetes.start_server_unready()?;
        cluster.wait_reason("no-connection", "renew it, or set the clock")?;
        cluster.kubernetes.issue_server(When::Always)?;
        cluster.expect_life(group, "an expired certificate")?;
        cluster.wait_current()
    })
}

/// Rights that are removed and restored; tokens that expire and are renewed, or are not valid yet.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn lost_rights_and_tokens_cost_no_route() -> Result<()> {
    Cluster::of_two("kube-rights", |cluster, group| {
        let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/margay";
        cluster.kubernetes.admin().delete(binding)?;
        // Running watches go on; after a restart of the server everything is requested again.
        cluster.kubernetes.restart_server()?;
        cluster.wait_reason("forbidden", "forbidden")?;
        let reason = cluster.source()?["error"].to_string();
        for part in ["system:serviceaccount:kube-system:margay", "ClusterRole"] {
            ensure!(reason.contains(part), "{reason}");
        }
        cluster.kubernetes.install_rbac()?;
        cluster.expect_life(group, "lost rights")?;
        cluster.wait_current()?;

        let expired = cluster.kubernetes.signed_token(-4000, -100)?;
        cluster.account.renew(&expired)?;
        cluster.kubernetes.restart_server()?;
        cluster.wait_reason("unauthorized", "expired on")?;
        let early = cluster.kubernetes.signed_token(300, 4000)?;
        cluster.account.renew(&early)?;
        cluster.wait_reason("unauthorized", "check the clocks")?;
        cluster.account.renew(&cluster.kubernetes.token(600)?)?;
        cluster.expect_life(group, "an expired token")?;

        // A token that expires while it is in use: the next request is refused once, and repeated
        // with the token that is in the file by then. The server allows a minute of clock skew:
        // half of it is left.
        let short = cluster.kubernetes.signed_token(-600, -30)?;
        cluster.account.renew(&short)?;
        cluster.kubernetes.restart_server()?;
        cluster.expect_life(group, "a short token")?;
        cluster.account.renew(&cluster.kubernetes.token(600)?)?;
        std::thread::sleep(Duration::from_secs(35));
        cluster.kubernetes.restart_server()?;
        cluster.expect_life(group, "its renewal")?;
        cluster.wait_current()
    })
}

/// CRDs are deleted and created again, and not served for a while.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn crds_that_are_gone_for_a_while_cost_no_route() -> Result<()> {
    Cluster::of_two("kube-crds", |cluster, group| {
        cluster.kubernetes.delete_crd(group, "ippools")?;
        cluster.wait_problem("ippools")?;
        cluster.expect_life(group, "a deleted CRD")?;
        cluster.kubernetes.install_crd(group, "ippools")?;
        cluster.kubernetes.wait_served(group, "ippools")?;
        cluster.kubernetes.put(group, "ippools", "pods", &json!({"cidr": "10.65.0.0/16"}))?;
        wait_until(SETTLED, "no problem", || {
            let status = cluster.nodes[0].status()?;
            ensure!(status["problems"] == json!([]), "{}", status["problems"]);
            Ok(())
        })?;
        cluster.expect_nothing_lost("a CRD that was put back")?;

        cluster.kubernetes.serve_crd(group, "ippools", false)?;
        cluster.wait_problem("ippools")?;
        cluster.kubernetes.serve_crd(group, "ippools", true)?;
        cluster.expect_life(group, "a version that was not served")?;
        Ok(())
    })
}

/// Calico's objects move from one group to the other, and the first is deleted.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_migration_from_v1_to_v3_costs_no_route() -> Result<()> {
    lab::run("kube-migration", &[], |lab| {
        let mut cluster = Cluster::start(lab, Group::V1, &["a", "b"])?;
        cluster.kubernetes.install_crds(Group::V3)?;
        let pool = json!({"cidr": "10.65.0.0/16"});
        cluster.kubernetes.put(Group::V3, "ippools", "pods", &pool)?;
        for (number, host) in (1u8..).zip(&cluster.hosts) {
            cluster.kubernetes.put_block(Group::V3, host.name(), number)?;
        }
        // Both exist: the first is used.
        cluster.expect_life(Group::V1, "the copy")?;
        cluster.kubernetes.put_block(Group::V3, "b", cluster.block)?;
        cluster.kubernetes.delete_crds(Group::V1)?;
        cluster.expect_life(Group::V3, "the deletion of the first group")?;
        cluster.wait_current()
    })
}

/// Saves the store; returns a block of the second node that came later and that the first one has.
fn block_after_snapshot(cluster: &mut Cluster, group: Group) -> Result<String> {
    cluster.kubernetes.save()?;
    cluster.expect_life(group, "the snapshot")?;
    let block = format!("10.65.{}.0/26", cluster.block);
    kernel::wait_gateways(&cluster.hosts[0], &block, &via(&cluster.hosts[1]))?;
    Ok(block)
}

/// The first node loses the block that is not in the restored store, and follows the store.
fn expect_snapshot_followed(cluster: &Cluster, group: Group, lost: &str) -> Result<()> {
    let (a, b) = (&cluster.hosts[0], &cluster.hosts[1]);
    wait_until(SETTLED, "the lost block to go", || {
        ensure!(kernel::route(a, lost)?.is_none(), "still there");
        Ok(())
    })?;
    cluster.kubernetes.put_block(group, "b", 200)?;
    kernel::wait_gateways(a, "10.65.200.0/26", &via(b))?;
    cluster.wait_current()
}

/// The store is restored from an older snapshot, and written to before margay reconnects.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_restored_store_is_followed() -> Result<()> {
    Cluster::of_two("kube-restore", |cluster, group| {
        let lost = block_after_snapshot(cluster, group)?;
        cluster.kubernetes.crash_server()?;
        cluster.kubernetes.restore()?;
        cluster.wait_reason("no-connection", "refused")?;
        cluster.kubernetes.start_server()?;
        // Past the resource version that margay knows, most likely before it reconnects.
        for round in 0..20 {
            let label = json!({"metadata": {"labels": {"round": round.to_string()}}});
            cluster.kubernetes.admin().patch("/api/v1/nodes/b", &label)?;
        }
        expect_snapshot_followed(cluster, group, &lost)
    })
}

/// The store is restored under a running API server, which answers from its cache and whose watches
/// deliver nothing: the known objects stay in force until the server is restarted.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_store_restored_under_a_running_server_costs_no_route() -> Result<()> {
    Cluster::of_two("kube-rewind", |cluster, group| {
        let lost = block_after_snapshot(cluster, group)?;
        cluster.kubernetes.restore()?;
        holds_for(Duration::from_secs(8), "the block", || {
            ensure!(kernel::route(&cluster.hosts[0], &lost)?.is_some(), "gone");
            Ok(())
        })?;
        cluster.expect_nothing_lost("the restored store")?;
        cluster.kubernetes.crash_server()?;
        cluster.kubernetes.start_server()?;
        expect_snapshot_followed(cluster, group, &lost)
    })
}

/// The own Node drains the node by its annotation and by its cordon, and no longer.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_node_is_drained_by_its_annotation_and_by_its_cordon() -> Result<()> {
    Cluster::of_two("kube-drain", |cluster, _| {
        let (a, b) = (cluster.hosts[0].clone(), cluster.hosts[1].clone());
        cluster.nodes[0].daemon().crash()?;
        let variables = environment(
            &a,
            &cluster.account.kubeconfig,
            &[("MARGAY_DRAIN_BY", "annotation, cordon")],
        );
        cluster.nodes[0] = MargayNode::from_variables(&a, variables)?;
        cluster.nodes[0].wait_session(&b)?;
        let wait_drain = |reason: Option<&str>| {
            wait_until(SETTLED, "the drain", || {
                let drain = cluster.nodes[0].control.json(&["show", "drain"])?;
                ensure!(drain["all"]["reason"].as_str() == reason, "{drain}");
                // The other node has been told.
                let paths = cluster.nodes[1].control.paths("10.65.1.0/26")?;
                let path = paths.first().context("no path")?;
                ensure!((path["local_pref"] == json!(0)) == reason.is_some(), "{path}");
                ensure!(kernel::route(&b, "10.65.1.0/26")?.is_some(), "no kernel route");
                Ok(())
            })
        };
        wait_drain(None)?;
        let node = |change: &Value| cluster.kubernetes.admin().patch("/api/v1/nodes/a", change);
        let annotated =
            |value: Value| json!({"metadata": {"annotations": {"margay/drain": value}}});
        node(&annotated(json!("rack 7")))?;
        wait_drain(Some("rack 7"))?;
        node(&json!({"spec": {"unschedulable": true}}))?;
        node(&annotated(Value::Null))?;
        wait_drain(Some("cordoned"))?;
        let refused = cluster.nodes[0].control.text(&["undrain"]);
        let text = refused.err().context("undrain was not refused")?.to_string();
        ensure!(text.contains("uncordon the node"), "{text}");
        node(&json!({"spec": {"unschedulable": false}}))?;
        wait_drain(None)
    })
}

/// With Debian's etcd, the server offers neither streaming lists nor consistent reads from its
/// cache.
#[test]
#[ignore = "needs root, kube-apiserver and Debian's etcd"]
fn debians_etcd_works_too() -> Result<()> {
    lab::run("kube-etcd34", &[], |lab| {
        let group = Group::V1;
        let kubernetes = Kubernetes::start_with_etcd(&lab.host("api")?, "/usr/bin/etcd", group)?;
        let mut cluster = Cluster::on(lab, kubernetes, group, &["a", "b"])?;
        cluster.expect_life(group, "the start")?;
        cluster.kubernetes.restart_server()?;
        cluster.expect_life(group, "a restart")?;
        cluster.wait_current()?;
        let output = cluster.nodes[0].daemon().output();
        ensure!(!output.contains("went back"), "a rollback that was none: {output}");
        Ok(())
    })
}

/// Services of both policies and families with real EndpointSlices, a Secret that is rotated, and a
/// role that grants no Secrets.
#[test]
#[ignore = "needs root, kube-apiserver and kube-controller-manager"]
fn services_and_secrets_come_from_the_api() -> Result<()> {
    lab::run("kube-services", &[], |lab| {
        let group = Group::V1;
        let mut kubernetes = Kubernetes::start(&lab.host("api")?, group)?;
        kubernetes.start_controllers()?;
        let ranges = json!({
            "nodeToNodeMeshEnabled": true,
            "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}, {"cidr": "fd96::/112"}],
            "serviceExternalIPs": [{"cidr": "203.0.113.0/24"}],
        });
        kubernetes.put(group, "bgpconfigurations", "default", &ranges)?;
        let cluster = Cluster::on(lab, kubernetes, group, &["a", "b"])?;
        let (a, b) = (&cluster.hosts[0], &cluster.hosts[1]);
        let admin = cluster.kubernetes.admin();
        for (host, name) in [(a, "a"), (b, "b")] {
            let annotation = json!({"metadata": {"annotations": {
                "projectcalico.org/IPv6Address": format!("{}/64", host.v6())}}});
            admin.patch(&format!("/api/v1/nodes/{name}"), &annotation)?;
        }
        let service = |name: &str, policy: &str, external: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"selector": {"app": name}, "ports": [{"port": 80}], "type": "NodePort",
                         "externalTrafficPolicy": policy, "externalIPs": [external],
                         "ipFamilyPolicy": "RequireDualStack"},
            })
        };
        let services = "/api/v1/namespaces/default/services";
        let local = admin.post(services, &service("local", "Local", "203.0.113.7"))?;
        let other = admin.post(services, &service("cluster", "Cluster", "203.0.113.8"))?;
        let addresses = |service: &Value| -> Result<Vec<String>> {
            let addresses = service["spec"]["clusterIPs"].as_array().context("no addresses")?;
            ensure!(addresses.len() == 2, "one family only: {addresses:?}");
            let text = addresses.iter().filter_map(Value::as_str);
            Ok(text.map(|a| format!("{a}/{}", if a.contains(':') { 128 } else { 32 })).collect())
        };
        for app in ["local", "cluster"] {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": app, "labels": {"app": app}},
                "spec": {"nodeName": "b", "automountServiceAccountToken": false,
                         "containers": [{"name": "c", "image": "i"}]},
            });
            admin.post("/api/v1/namespaces/default/pods", &pod)?;
        }
        let set_ready = |name: &str, is_ready: bool| {
            let word = if is_ready { "True" } else { "False" };
            let status = json!({"status": {"phase": "Running", "podIP": "10.65.2.9",
                "podIPs": [{"ip": "10.65.2.9"}, {"ip": "fd65::9"}],
                "conditions": [{"type": "Ready", "status": word}]}});
            admin.patch(&format!("/api/v1/namespaces/default/pods/{name}/status"), &status)
        };
        set_ready("local", true)?;
        set_ready("cluster", true)?;
        // The node with the endpoint announces the addresses of a service with policy Local, in
        // each family; every node announces the ranges, and nothing else for one with policy
        // Cluster.
        let mut routes = addresses(&local)?;
        routes.push("203.0.113.7/32".to_owned());
        let of_a = |prefix: &str| cluster.nodes[0].control.paths(prefix);
        let from_b = |paths: &[Value]| paths.iter().any(|path| path["source"] == "bgp");
        for prefix in &routes {
            wait_until(SETTLED, prefix, || {
                let paths = of_a(prefix)?;
                ensure!(from_b(&paths), "{paths:?}");
                Ok(())
            })?;
        }
        for range in ["10.96.0.0/16", "fd96::/112", "203.0.113.0/24"] {
            wait_until(SETTLED, range, || {
                let paths = of_a(range)?;
                ensure!(paths.len() == 2 && from_b(&paths), "{paths:?}");
                Ok(())
            })?;
        }
        for prefix in addresses(&other)?.iter().map(String::as_str).chain(["203.0.113.8/32"]) {
            ensure!(of_a(prefix)?.is_empty(), "{prefix} by itself, though its range is announced");
        }
        cluster.expect_fresh_plan("services")?;
        set_ready("local", false)?;
        for prefix in &routes {
            wait_until(SETTLED, "the route to go", || {
                ensure!(of_a(prefix)?.is_empty(), "{prefix} is still there");
                Ok(())
            })?;
        }
        rotate_the_password(&cluster, a, b)
    })
}

/// A mesh password in a Secret: forbidden, granted, rotated.
fn rotate_the_password(cluster: &Cluster, a: &Host, b: &Host) -> Result<()> {
    let (group, admin) = (Group::V1, cluster.kubernetes.admin());
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/margay-bgp-passwords";
    admin.delete(role)?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bgp-secrets"},
        "stringData": {"mesh": "first"},
    });
    admin.post(secrets, &secret)?;
    let password = json!({"nodeMeshPassword": {"secretKeyRef": {
        "name": "bgp-secrets", "key": "mesh"}}});
    cluster.kubernetes.patch_spec(group, "bgpconfigurations", "default", &password)?;
    let forbidden = "cannot list resource \\\"secrets\\\" in API group \\\"\\\" in the namespace \
                     \\\"kube-system\\\"";
    cluster.wait_problem(forbidden)?;
    cluster.kubernetes.install_rbac()?;
    let has_key = |node: &MargayNode| -> Result<()> {
        let status = node.status()?;
        ensure!(status["problems"] == json!([]), "{}", status["problems"]);
        Ok(())
    };
    for node in &cluster.nodes {
        wait_until(SETTLED, "the password", || has_key(node))?;
    }
    cluster.nodes[0].wait_session(b)?;
    let before = cluster.nodes[0].sessions(b);
    admin.patch(&format!("{secrets}/bgp-secrets"), &json!({"stringData": {"mesh": "second"}}))?;
    wait_until(SETTLED, "a session with the new password", || {
        ensure!(cluster.nodes[0].sessions(b) > before, "not yet");
        Ok(())
    })?;
    cluster.nodes[0].wait_session(b)?;
    cluster.nodes[1].wait_session(a).map(drop)
}

/// margay is killed and restarted while the server is down: it uses the objects of its state file.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_restart_without_a_server_costs_no_route() -> Result<()> {
    lab::run("kube-restart", &[], |lab| {
        let mut cluster = Cluster::start(lab, Group::V1, &["a", "b"])?;
        let (a, b) = (cluster.hosts[0].clone(), cluster.hosts[1].clone());
        wait_until(SETTLED, "the objects to be kept", || {
            let kept = std::fs::read_to_string(a.file("state"))?;
            ensure!(kept.contains("10.65.1.0/26"), "{kept}");
            Ok(())
        })?;
        cluster.kubernetes.crash_server()?;
        cluster.nodes[0].daemon().crash()?;
        cluster.nodes[0].restart()?;
        cluster.nodes[0].wait_session(&b)?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &via(&b))?;
        cluster.wait_reason("no-connection", "Connection refused")?;
        cluster.kubernetes.start_server()?;
        cluster.wait_current()?;
        cluster.kubernetes.put_block(Group::V1, "b", 77)?;
        kernel::wait_gateways(&a, "10.65.77.0/26", &via(&b))?;
        let changes = cluster.monitors[0].changes()?;
        ensure!(!changes.contains("Deleted 10.65."), "{changes}");
        Ok(())
    })
}

/// 1,000 nodes, 3,000 blocks and 1,000 BGPPeers; then one more node; then heartbeats.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_large_cluster_costs_little() -> Result<()> {
    const NODES: usize = 1000;
    lab::run("kube-large", &[], |lab| {
        let group = Group::V1;
        let kubernetes = Kubernetes::start(&lab.host("api")?, group)?;
        let account = Account::new(&kubernetes)?;
        let host = lab.host("a")?;
        kubernetes.put_node(group, &host, 1)?;
        kubernetes.put_large_cluster(group, NODES)?;
        let variables = environment(&host, &account.kubeconfig, &[]);
        let margay = MargayNode::from_variables(&host, variables)?;
        let begun = std::time::Instant::now();
        wait_until(SETTLED, "the first plan", || {
            ensure!(margay.metric("margay_calico_in_force")? == 1.0, "{}", margay.status()?);
            Ok(())
        })?;
        let cold = begun.elapsed();
        let first = margay.usage()?;

        let plans = || margay.metric("margay_calico_plans_total");
        let before = plans()?;
        let more = node("one-more", Some("10.1.99.1/16"), &json!({}));
        kubernetes.admin().post("/api/v1/nodes", &more)?;
        wait_until(SETTLED, "the plan with one more node", || {
            ensure!(plans()? > before, "not yet");
            Ok(())
        })?;

        let beats = 200;
        let before = (plans()?, margay.usage()?, received(&host)?);
        kubernetes.beat(NODES, beats, 1000.0)?;
        std::thread::sleep(Duration::from_secs(1));
        let after = margay.usage()?;
        let beaten = after.cpu_millis - before.1.cpu_millis;
        println!(
            "{} ms and {} KiB until the first plan, {} ms of CPU; {beats} heartbeats {beaten} ms",
            cold.as_millis(),
            first.memory_kib,
            first.cpu_millis
        );
        ensure!(plans()? == before.0, "a heartbeat made a plan");
        // On a machine that runs other work too.
        ensure!(cold < Duration::from_secs(10), "{cold:?}");
        ensure!(first.memory_kib < 40_000, "{} KiB", first.memory_kib);
        ensure!(beaten < 200, "{beaten} ms for {beats} heartbeats");
        let octets = (received(&host)? - before.2) / u64::try_from(beats)?;
        ensure!((1000..4096).contains(&octets), "{octets} octets for a heartbeat");
        let connections =
            host.run("ss", &["-Htn", "state", "established", "dport", "=", "6443"])?;
        ensure!(connections.lines().count() == 1, "{connections}");
        Ok(())
    })
}

/// A node reads its own block affinities alone, labelled as by Calico v3.31 and later, and its own
/// pod CIDRs.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_node_asks_for_its_own_blocks_alone() -> Result<()> {
    // The value of the label for this name is known from Calico's sources.
    const NAME: &str = "kube-master";
    const HASH: &str = "MOQSB7OYLUK2BUOV4OFQGD3GCG56JJGA7AQVZCJLN4326O4KVP7A";
    lab::run("kube-own", &[], |lab| {
        let group = Group::V1;
        let kubernetes = Kubernetes::start_audited(&lab.host("api")?, group)?;
        let account = Account::new(&kubernetes)?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let put_block = |owner: &str, number: u8, hash: &str| {
            let spec = json!({"node": owner, "cidr": format!("10.65.{number}.0/26"),
                              "state": "confirmed", "deleted": "false"});
            let mut block = group.object("blockaffinities", &format!("{owner}-{number}"), &spec);
            block["metadata"]["labels"]["projectcalico.org/hostname-hash"] = json!(hash);
            kubernetes.admin().post(&group.path("blockaffinities"), &block)
        };
        let address = |host: &Host| format!("{}/24", host.v4());
        let master = node(NAME, Some(&address(&a)), &json!({}));
        kubernetes.admin().post("/api/v1/nodes", &master)?;
        put_block(NAME, 1, HASH)?;
        put_block("other", 2, "OTHER")?;
        let variables = environment(&a, &account.kubeconfig, &[("NODENAME", NAME)]);
        let na = MargayNode::from_variables(&a, variables)?;
        let announces = |node: &MargayNode, prefix: &str| {
            wait_until(SETTLED, prefix, || {
                ensure!(!node.control.paths(prefix)?.is_empty(), "not announced");
                Ok(())
            })
        };
        announces(&na, "10.65.1.0/26")?;
        put_block("other", 3, "OTHER")?;
        put_block(NAME, 4, HASH)?;
        announces(&na, "10.65.4.0/26")?;
        for prefix in ["10.65.2.0/26", "10.65.3.0/26"] {
            ensure!(na.control.paths(prefix)?.is_empty(), "{prefix} is another node's");
        }
        let requests = kubernetes.requests()?;
        let of_blocks = || requests.iter().filter(|request| request.contains("/blockaffinities?"));
        ensure!(of_blocks().all(|request| request.contains("labelSelector=")), "{requests:?}");
        ensure!(of_blocks().any(|r| r.starts_with("watch ") && r.contains(HASH)), "{requests:?}");

        // Without Calico's IPAM there are no affinities to ask for.
        let mut other = node(b.name(), Some(&address(&b)), &json!({}));
        other["spec"] = json!({"podCIDR": "10.66.7.0/24", "podCIDRs": ["10.66.7.0/24"]});
        kubernetes.admin().post("/api/v1/nodes", &other)?;
        let variables = environment(&b, &account.kubeconfig, &[("USE_POD_CIDR", "true")]);
        announces(&MargayNode::from_variables(&b, variables)?, "10.66.7.0/24")
    })
}

/// `margay check --connect` reads everything once, and reports what is missing.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_check_connects() -> Result<()> {
    lab::run("kube-check", &[], |lab| {
        let kubernetes = Kubernetes::start(&lab.host("api")?, Group::V3)?;
        let account = Account::new(&kubernetes)?;
        let host = lab.host("a")?;
        kubernetes.put_node(Group::V3, &host, 1)?;
        // Calico's own schemas are in force: the server refuses what they do not allow.
        let peer = Group::V3.object("bgppeers", "bad", &json!({"asNumber": "65001"}));
        let path = Group::V3.path("bgppeers");
        let (code, text) =
            kubernetes.admin().send("POST", &path, "application/json", &peer.to_string())?;
        ensure!(code == 422 && text.contains("asNumber"), "{code} {text}");
        let check = |kubeconfig: &Path| -> Result<(bool, String)> {
            let program = interop::margay::binary()?;
            let mut command = host.command(&program.display().to_string());
            command.args(["check", "--connect"]);
            command.envs(environment(&host, kubeconfig, &[]));
            let output = command.output()?;
            Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
        };
        let (is_good, text) = check(&account.kubeconfig)?;
        ensure!(is_good && text.contains(": 2 objects"), "{text}");
        account.renew("nonsense")?;
        let (is_good, text) = check(&account.kubeconfig)?;
        ensure!(!is_good && text.contains("401"), "{text}");
        let exec = kubernetes.kubeconfig("exec", "exec: {command: aws}")?;
        let (is_good, text) = check(&exec)?;
        ensure!(!is_good && text.contains("exec is not supported"), "{text}");
        if !text.contains("margay runs no programs") {
            bail!("no remedy: {text}");
        }
        Ok(())
    })
}
