//! Notes: what objects ask for without effect, reported for as long as that is so.

use super::*;

/// A cluster of a supported release, for which there is no note.
fn noted(objects: Vec<Value>) -> Resolver {
    let release = json!({"calicoVersion": "v3.33.0"});
    let mut resolver = cluster(vec![calico("ClusterInformation", "default", release)]);
    objects.into_iter().for_each(|object| put(&mut resolver, object));
    resolver
}

/// The notes; checks that a fresh resolver with the same objects has the same ones.
fn reported(resolver: &mut Resolver) -> Vec<String> {
    let plan = resolver.plan();
    assert_eq!(plan, resolve(resolver.snapshot(), &Settings::new("me")));
    notes(&plan)
}

/// Checks that these notes exist, disappear when `fix` is applied, and return without it.
fn ends_with(objects: Vec<Value>, expected: &[&str], fix: Value) {
    let mut resolver = noted(objects);
    assert_eq!(reported(&mut resolver), expected);
    let fix = decode(fix).unwrap().unwrap();
    let id = fix.id.clone();
    let was_there = resolver.snapshot().get(&id).is_some();
    resolver.apply(fix);
    assert_eq!(reported(&mut resolver), Vec::<String>::new(), "{expected:?} fixed by {id}");
    if !was_there {
        resolver.withdraw(&id);
        assert_eq!(reported(&mut resolver), expected, "without {id}");
    }
}

fn to(address: &str, more: Value) -> Value {
    let mut spec = json!({"peerIP": address, "asNumber": 65001});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[test]
fn a_filter_that_does_not_exist() {
    let filter =
        |name: &str| calico("BGPFilter", name, json!({"exportV4": [{"action": "Accept"}]}));
    let p = || peer("p", to("192.0.2.1", json!({"filters": ["fltr"]})));
    let lacks = "BGPPeer/p: filter \"fltr\" does not exist: it filters nothing";
    ends_with(vec![p()], &[lacks], filter("fltr"));
    let near = format!("{lacks}; did you mean \"filter\"?");
    ends_with(vec![p(), filter("filter"), filter("x")], &[&near], filter("fltr"));
    // The other way to fix it.
    let renamed = peer("p", to("192.0.2.1", json!({"filters": ["filter"]})));
    ends_with(vec![p(), filter("filter")], &[&near], renamed);
}

#[test]
fn a_peer_whose_address_another_one_has() {
    let (a, b) = (to("192.0.2.1", json!({})), to("192.0.2.1:179", json!({"node": "me"})));
    let shadowed = "BGPPeer/b: 192.0.2.1 is a neighbour by BGPPeer/a already: that one counts";
    let both = || vec![peer("a", a.clone()), peer("b", b.clone())];
    ends_with(both(), &[shadowed], peer("b", to("192.0.2.2", json!({"node": "me"}))));
    ends_with(both(), &[shadowed], peer("a", to("192.0.2.2", json!({}))));
    let mut resolver = noted(both());
    assert_eq!(reported(&mut resolver), [shadowed]);
    resolver.withdraw(&ObjectId::new(Kind::BgpPeer, "a"));
    assert_eq!(reported(&mut resolver), Vec::<String>::new());
}

#[test]
fn a_selector_that_selects_no_node() {
    let p = || {
        let spec = json!({"nodeSelector": "rack == 'z'", "peerSelector": "has(rr)"});
        peer("p", spec)
    };
    let expected = [
        "BGPPeer/p: nodeSelector \"rack == 'z'\" selects no node",
        "BGPPeer/p: peerSelector \"has(rr)\" selects no node",
    ];
    let selected =
        |name: &str, address: &str| node(name, address, json!({"rack": "z", "rr": ""}), json!({}));
    ends_with(vec![p()], &expected, selected("b", "10.0.0.2/24"));
    // An existing node gets the label.
    let plain = node("b", "10.0.0.2/24", json!({"rack": "a"}), json!({}));
    ends_with(vec![p(), plain.clone()], &expected, selected("b", "10.0.0.2/24"));
    // One remaining node is enough; when the last one is deleted or loses its label, the note
    // returns.
    let mut resolver = noted(vec![p(), selected("b", "10.0.0.2/24"), selected("c", "10.0.0.3/24")]);
    assert_eq!(reported(&mut resolver), Vec::<String>::new());
    put(&mut resolver, plain);
    assert_eq!(reported(&mut resolver), Vec::<String>::new());
    resolver.withdraw(&ObjectId::new(Kind::Node, "c"));
    assert_eq!(reported(&mut resolver), expected);
    // Workloads are not nodes, and an invalid selector is reported as a problem.
    let none = |spec: Value| assert_eq!(reported(&mut noted(vec![peer("p", spec)])), [""; 0]);
    none(json!({"localWorkloadSelector": "all()", "asNumber": 1, "peerSelector": "has(x)"}));
    none(to("192.0.2.1", json!({"nodeSelector": "rack =="})));
}

#[test]
fn a_node_that_does_not_exist() {
    let there = || node("gone", "10.0.0.2/24", json!({}), json!({}));
    let p = peer("p", to("192.0.2.1", json!({"node": "gone"})));
    let lacks = "BGPPeer/p: node \"gone\" does not exist: no node has this peer";
    ends_with(vec![p.clone()], &[lacks], there());
    ends_with(vec![p], &[lacks], peer("p", to("192.0.2.1", json!({"node": "me"}))));
    let own = calico("BGPConfiguration", "node.gone", json!({"listenPort": 1790}));
    ends_with(vec![own], &["BGPConfiguration/node.gone: node \"gone\" does not exist"], there());
}

#[test]
fn a_peer_that_is_this_node_itself() {
    let own = "BGPPeer/p: peerIP is an address of this node, with which it has no session";
    let other = || peer("p", to("10.0.0.9", json!({"node": "me"})));
    for mine in [json!({"node": "me"}), json!({"nodeSelector": "rack == 'a'"})] {
        ends_with(vec![peer("p", to("10.0.0.1", mine))], &[own], other());
    }
    // A BGPPeer for every node is meant for the others, unless its port differs from this node's.
    assert_eq!(reported(&mut noted(vec![peer("p", to("10.0.0.1", json!({})))])), [""; 0]);
    let listens = calico("BGPConfiguration", "default", json!({"listenPort": 1790}));
    ends_with(vec![peer("p", to("10.0.0.1:1790", json!({})))], &[own], listens);
    let moved = node("me", "10.0.0.2/24", json!({"rack": "a"}), json!({}));
    ends_with(vec![peer("p", to("10.0.0.1", json!({"node": "me"})))], &[own], moved);
}

#[test]
fn fields_that_calico_does_not_know() {
    let rows = [
        (
            "BGPPeer",
            "p",
            to("192.0.2.1", json!({"filtres": [], "password": {"secretKeyref": {}}})),
            vec![("spec.filtres", "filters"), ("spec.password.secretKeyref", "secretKeyRef")],
            to("192.0.2.1", json!({"filters": []})),
        ),
        (
            "BGPConfiguration",
            "default",
            json!({"nodeToNodeMeshEnable": false, "serviceClusterIPs": [{"cdir": ""}]}),
            vec![
                ("spec.nodeToNodeMeshEnable", "nodeToNodeMeshEnabled"),
                ("spec.serviceClusterIPs[0].cdir", "cidr"),
            ],
            json!({"nodeToNodeMeshEnabled": false}),
        ),
        (
            "BGPFilter",
            "f",
            json!({"exportV4": [{"action": "Accept", "matchOperater": "In"}]}),
            vec![("spec.exportV4[0].matchOperater", "matchOperator")],
            json!({"exportV4": [{"action": "Accept"}]}),
        ),
        (
            "IPPool",
            "pods",
            json!({"cidr": "10.65.0.0/16", "ipipMod": "Always"}),
            vec![("spec.ipipMod", "ipipMode")],
            json!({"cidr": "10.65.0.0/16"}),
        ),
        (
            "Node",
            "b",
            json!({"bgp": {"ipv4Address": "10.0.0.2/24", "asNumbr": 65001}}),
            vec![("spec.bgp.asNumbr", "asNumber")],
            json!({"bgp": {"ipv4Address": "10.0.0.2/24", "asNumber": 65001}}),
        ),
    ];
    for (kind, name, wrong, fields, right) in rows {
        let expected: Vec<String> = fields
            .iter()
            .map(|(field, meant)| {
                format!(
                    "{kind}/{name}: {field} is no field of Calico's: it does nothing; \
                     did you mean \"{meant}\"?"
                )
            })
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        ends_with(vec![calico(kind, name, wrong.clone())], &expected, calico(kind, name, right));
        // The note appears when an existing object gets the field, and goes when the object is
        // deleted.
        let mut resolver = noted(Vec::new());
        assert_eq!(reported(&mut resolver), [""; 0]);
        put(&mut resolver, calico(kind, name, wrong.clone()));
        assert_eq!(reported(&mut resolver), expected);
        let id = decode(calico(kind, name, wrong)).unwrap().unwrap().id;
        resolver.withdraw(&id);
        assert_eq!(reported(&mut resolver), [""; 0]);
    }
}
