//! Objects that cannot be read, and objects that are missing.

use super::*;

/// The problems; checks that a fresh resolver with the same objects reports the same ones.
fn reported(resolver: &mut Resolver) -> Vec<String> {
    let plan = resolver.plan();
    assert_eq!(plan, resolve(resolver.snapshot(), &Settings::new("me")));
    problems(&plan)
}

fn secret(value: &str) -> Value {
    json!({"kind": "Secret", "apiVersion": "v1",
           "metadata": {"name": "s", "namespace": "kube-system"}, "data": {"k": value}})
}

#[test]
fn an_unreadable_object_keeps_its_last_good_state_if_it_had_one() {
    let b = |address: &str| node("b", address, json!({}), json!({}));
    let core = |cidr: Value| {
        json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "b"},
               "spec": {"podCIDR": cidr}})
    };
    let information =
        |version: Value| calico("ClusterInformation", "default", json!({"calicoVersion": version}));
    let service = |policy: Value| {
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web"},
               "spec": {"externalTrafficPolicy": policy}})
    };
    let to = |address: Value| peer("p", json!({"peerIP": address, "asNumber": 65001}));
    let pool = |cidr: &str| calico("IPPool", "p", json!({"cidr": cidr}));
    let filter = |rules: Value| calico("BGPFilter", "f", json!({"exportV4": rules}));
    let own = |port: Value| calico("BGPConfiguration", "node.me", json!({"listenPort": port}));
    for (bad, good) in [
        (b("10.0.0.300"), b("10.0.0.2/24")),
        (core(json!(5)), core(json!("10.244.1.0/24"))),
        (to(json!(5)), to(json!("192.0.2.1"))),
        (pool("10.65"), pool("10.65.0.0/16")),
        (filter(json!(5)), filter(json!([]))),
        (own(json!("x")), own(json!(1790))),
        (information(json!([])), information(json!("v3.32.1"))),
        (service(json!(5)), service(json!("Local"))),
        (secret("!"), secret("YQ==")),
    ] {
        let read = decode(bad.clone()).unwrap().unwrap();
        let (id, fault) = (read.id, read.object.unwrap_err());
        let passed_over =
            format!("{id}: {fault}: it is passed over, as no good state of it is known");
        let as_it_was = format!("{id}: {fault}: its last good state is used");
        let mut resolver = cluster(vec![bad.clone()]);
        assert_eq!(reported(&mut resolver), [&*passed_over]);
        put(&mut resolver, good.clone());
        assert_eq!(reported(&mut resolver), [""; 0], "{id}");
        put(&mut resolver, bad.clone());
        assert_eq!(reported(&mut resolver), [&*as_it_was]);
        // After the object was deleted its last good state is gone; keys outlive their Secret.
        resolver.withdraw(&id);
        assert_eq!(reported(&mut resolver), [""; 0], "{id}");
        put(&mut resolver, bad);
        let kept = if id.kind == Kind::Secret { as_it_was } else { passed_over };
        assert_eq!(reported(&mut resolver), [kept]);
    }
    // Only the ClusterInformation called default names the release.
    let mut resolver = cluster(vec![information(json!("v3.32.1"))]);
    put(&mut resolver, calico("ClusterInformation", "other", json!({"calicoVersion": []})));
    let [other] = &reported(&mut resolver)[..] else { panic!() };
    assert!(other.contains("it is passed over"), "{other}");
}

/// The defaults would give another AS, and enable a mesh that was disabled.
#[test]
fn without_any_state_of_the_configuration_nothing_is_computed() {
    let with = |port: Value| calico("BGPConfiguration", "default", json!({"listenPort": port}));
    let fault = decode(with(json!("x"))).unwrap().unwrap().object.unwrap_err();
    let mut resolver = cluster(vec![with(json!("x"))]);
    let unknown = "BGPConfiguration/default: it cannot be read and no earlier state of it is known: \
                   nothing can be computed";
    let plan = resolver.plan();
    assert_eq!((plan.is_complete, plan.stuck.as_deref()), (false, Some(unknown)));
    assert_eq!(problems(&plan), [unknown, &format!("BGPConfiguration/default: {fault}")]);
    put(&mut resolver, with(json!(1790)));
    assert!(resolver.plan().is_complete);
    put(&mut resolver, with(json!("x")));
    let plan = resolver.plan();
    assert_eq!((plan.is_complete, plan.families.ipv4.listen.port), (true, 1790));
}

/// The object exists, so NODENAME is not wrong.
#[test]
fn an_unreadable_own_node_is_not_reported_as_missing() {
    let me = |address: &str| node("me", address, json!({}), json!({}));
    let core = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "me"},
                      "spec": {"podCIDR": 5}});
    let unknown =
        "Node/me: it cannot be read and no earlier state of it is known: nothing can be computed";
    for bad in [me("10.0.0.300"), core] {
        let fault = decode(bad.clone()).unwrap().unwrap().object.unwrap_err();
        let mut resolver = Resolver::new(Settings::new("me"));
        put(&mut resolver, node("b", "10.0.0.2/24", json!({}), json!({})));
        put(&mut resolver, bad.clone());
        let plan = resolver.plan();
        assert_eq!((plan.is_complete, plan.stuck.as_deref()), (false, Some(unknown)));
        assert_eq!(problems(&plan), [unknown, &format!("Node/me: {fault}")]);
        put(&mut resolver, me("10.0.0.1/24"));
        assert_eq!(names(&resolver.plan()), ["Mesh_10_0_0_2"]);
        put(&mut resolver, bad);
        assert_eq!(names(&resolver.plan()), ["Mesh_10_0_0_2"]);
    }
}

/// A few names are listed, so that a differently spelt one is noticed; many are only counted.
#[test]
fn existing_nodes_are_listed_if_the_own_one_is_missing() {
    let mut resolver = Resolver::new(Settings::new("me"));
    for known in [
        "there is no Node at all",
        "there is n1",
        "there are n1 and n2",
        "there are n1, n2 and n3",
        "there are n1, n2, n3 and n4",
        "there are n1, n2, n3, n4 and n5",
        "there are 6 others",
        "there are 7 others",
    ] {
        let text = format!(
            "Node/me: the node's own object is missing: nothing can be computed; {known}: set \
             NODENAME to this node's name"
        );
        let plan = resolver.plan();
        assert_eq!((plan.is_complete, plan.stuck.as_ref()), (false, Some(&text)));
        assert_eq!(problems(&plan), [text]);
        let number = resolver.snapshot().nodes.len() + 1;
        let address = format!("10.0.0.{}/24", number + 1);
        put(&mut resolver, node(&format!("n{number}"), &address, json!({}), json!({})));
    }
}
