//! The fields that Calico's objects have, so that a misspelled one can be reported.
//!
//! The list is that of v3.33: a field of a later release is reported, as margay does not know it.

use serde_json::Value;

use crate::config::closest;

/// The known fields of an object.
struct Fields {
    names: &'static [&'static str],
    /// Fields that are objects or lists of objects.
    nested: &'static [(&'static str, &'static Fields)],
}

impl Fields {
    const fn plain(names: &'static [&'static str]) -> Self {
        Fields { names, nested: &[] }
    }
}

const CIDR: Fields = Fields::plain(&["cidr"]);
const VALUE: Fields = Fields::plain(&["value"]);
const SECRET_KEY: Fields = Fields::plain(&["name", "key", "optional"]);
const PASSWORD: Fields =
    Fields { names: &["secretKeyRef"], nested: &[("secretKeyRef", &SECRET_KEY)] };

const BGP_CONFIGURATION: Fields = Fields {
    names: &[
        "logSeverityScreen",
        "nodeToNodeMeshEnabled",
        "asNumber",
        "serviceLoadBalancerIPs",
        "serviceLoadBalancerAggregation",
        "serviceExternalIPs",
        "serviceClusterIPs",
        "communities",
        "prefixAdvertisements",
        "listenPort",
        "nodeMeshPassword",
        "nodeMeshMaxRestartTime",
        "bindMode",
        "ignoredInterfaces",
        "localWorkloadPeeringIPV4",
        "localWorkloadPeeringIPV6",
        "programClusterRoutes",
        "ipv4NormalRoutePriority",
        "ipv6NormalRoutePriority",
    ],
    nested: &[
        ("serviceLoadBalancerIPs", &CIDR),
        ("serviceExternalIPs", &CIDR),
        ("serviceClusterIPs", &CIDR),
        ("communities", &Fields::plain(&["name", "value"])),
        ("prefixAdvertisements", &Fields::plain(&["cidr", "communities"])),
        ("nodeMeshPassword", &PASSWORD),
    ],
};

const BGP_PEER: Fields = Fields {
    names: &[
        "node",
        "nodeSelector",
        "peerIP",
        "asNumber",
        "localASNumber",
        "peerSelector",
        "keepOriginalNextHop",
        "nextHopMode",
        "password",
        "sourceAddress",
        "maxRestartTime",
        "keepaliveTime",
        "numAllowedLocalASNumbers",
        "ttlSecurity",
        "reachableBy",
        "filters",
        "localWorkloadSelector",
        "reversePeering",
    ],
    nested: &[("password", &PASSWORD)],
};

const BGP_FILTER: Fields = Fields {
    names: &["importV4", "exportV4", "importV6", "exportV6"],
    nested: &[
        ("importV4", &FILTER_RULE),
        ("exportV4", &FILTER_RULE),
        ("importV6", &FILTER_RULE),
        ("exportV6", &FILTER_RULE),
    ],
};

const FILTER_RULE: Fields = Fields {
    names: &[
        "action",
        "cidr",
        "matchOperator",
        "prefixLength",
        "source",
        "interface",
        "peerType",
        "communities",
        "asPathPrefix",
        "priority",
        "operations",
    ],
    nested: &[
        ("prefixLength", &Fields::plain(&["min", "max"])),
        ("communities", &Fields::plain(&["values"])),
        ("operations", &OPERATION),
    ],
};

const OPERATION: Fields = Fields {
    names: &["addCommunity", "prependASPath", "setPriority"],
    nested: &[
        ("addCommunity", &VALUE),
        ("prependASPath", &Fields::plain(&["prefix"])),
        ("setPriority", &VALUE),
    ],
};

const IP_POOL: Fields = Fields::plain(&[
    "cidr",
    "vxlanMode",
    "ipipMode",
    "natOutgoing",
    "disabled",
    "disableBGPExport",
    "blockSize",
    "nodeSelector",
    "namespaceSelector",
    "allowedUses",
    "assignmentMode",
]);

/// Of a Node only the parts that BGP reads are checked: the rest is written by programs, and a
/// field of a later release would be reported once per node.
const NODE_BGP: Fields = Fields::plain(&[
    "asNumber",
    "ipv4Address",
    "ipv6Address",
    "ipv4IPIPTunnelAddr",
    "routeReflectorClusterID",
]);
const NODE_WIREGUARD: Fields = Fields::plain(&["interfaceIPv4Address", "interfaceIPv6Address"]);

/// Adds a note for each unknown field of an object, or of the objects in a list.
fn unknown(value: &Value, known: &Fields, at: &str, notes: &mut Vec<Box<str>>) {
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                unknown(item, known, &format!("{at}[{index}]"), notes);
            }
            return;
        }
        _ => return,
    };
    for field in fields.keys().filter(|field| !known.names.contains(&field.as_str())) {
        let lower: Vec<String> = known.names.iter().map(|k| k.to_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        let near = closest(field, &lower)
            .and_then(|near| known.names.iter().find(|k| k.to_lowercase() == near));
        let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        notes.push(format!("{at}.{field} is no field of Calico's: it does nothing{near}").into());
    }
    for (field, inner) in known.nested {
        if let Some(value) = fields.get(*field) {
            unknown(value, inner, &format!("{at}.{field}"), notes);
        }
    }
}

fn of_spec(object: &Value, known: &Fields) -> Vec<Box<str>> {
    let mut notes = Vec::new();
    if let Some(spec) = object.get("spec") {
        unknown(spec, known, "spec", &mut notes);
    }
    notes
}

pub(super) fn of_configuration(object: &Value) -> Vec<Box<str>> {
    of_spec(object, &BGP_CONFIGURATION)
}

pub(super) fn of_peer(object: &Value) -> Vec<Box<str>> {
    of_spec(object, &BGP_PEER)
}

pub(super) fn of_pool(object: &Value) -> Vec<Box<str>> {
    of_spec(object, &IP_POOL)
}

pub(super) fn of_filter(object: &Value) -> Vec<Box<str>> {
    of_spec(object, &BGP_FILTER)
}

pub(super) fn of_node(object: &Value) -> Vec<Box<str>> {
    let mut notes = Vec::new();
    for (field, known) in [("bgp", &NODE_BGP), ("wireguard", &NODE_WIREGUARD)] {
        if let Some(value) = object.get("spec").and_then(|spec| spec.get(field)) {
            unknown(value, known, &format!("spec.{field}"), &mut notes);
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misspelled_field_is_reported_with_the_one_that_was_meant() {
        let peer = json!({"spec": {"peerIP": "10.0.0.1", "filtres": ["f"], "asnumber": 1, "x": 2}});
        let notes: Vec<String> = of_peer(&peer).into_iter().map(String::from).collect();
        assert_eq!(
            notes,
            [
                "spec.asnumber is no field of Calico's: it does nothing; did you mean \"asNumber\"?",
                "spec.filtres is no field of Calico's: it does nothing; did you mean \"filters\"?",
                "spec.x is no field of Calico's: it does nothing",
            ]
        );
        let filter = json!({"spec": {"importV4": [{"action": "Accept"}, {"cidrs": "x"}]}});
        let notes = of_filter(&filter);
        assert!(notes.len() == 1 && notes[0].starts_with("spec.importV4[1].cidrs"), "{notes:?}");
        assert!(of_pool(&json!({"spec": {"cidr": "10.0.0.0/16", "blockSize": 26}})).is_empty());
        assert!(of_configuration(&json!({})).is_empty());
    }

    /// A nested field is reported with its path, including the index in a list.
    #[test]
    fn fields_of_nested_objects_are_checked_too() {
        let places = |notes: Vec<Box<str>>| -> Vec<String> {
            let place = |note: &str| note.split_once(" is no field").unwrap().0.to_owned();
            notes.iter().map(|note| place(note)).collect()
        };
        let known = json!({"name": "s", "key": "k", "optional": true});
        let peer = json!({"spec": {"password": {"secretKeyRef": known, "secretRef": {}}}});
        assert_eq!(places(of_peer(&peer)), ["spec.password.secretRef"]);
        let peer = json!({"spec": {"password": {"secretKeyRef": {"nmae": "s", "key": "k"}}}});
        let notes = of_peer(&peer);
        assert!(notes[0].ends_with("; did you mean \"name\"?"), "{notes:?}");
        assert_eq!(places(notes), ["spec.password.secretKeyRef.nmae"]);
        let configuration = json!({"spec": {
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "10.97.0.0/16", "x": 1}],
            "serviceExternalIPs": [{"x": 1}], "serviceLoadBalancerIPs": [{"x": 1}],
            "communities": [{"name": "n", "value": "1:2", "x": 1}],
            "prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["n"], "x": 1}],
            "nodeMeshPassword": {"secretKeyRef": {"x": 1}},
        }});
        assert_eq!(
            places(of_configuration(&configuration)),
            [
                "spec.serviceLoadBalancerIPs[0].x",
                "spec.serviceExternalIPs[0].x",
                "spec.serviceClusterIPs[1].x",
                "spec.communities[0].x",
                "spec.prefixAdvertisements[0].x",
                "spec.nodeMeshPassword.secretKeyRef.x",
            ]
        );
        let operations = json!([{"addCommunity": {"value": "1:2", "x": 1}},
            {"prependASPath": {"prefix": [1], "x": 1}}, {"setPriority": {"value": 1, "x": 1}},
            {"x": {}}]);
        for list in ["importV4", "exportV4", "importV6", "exportV6"] {
            let rule = json!({"action": "Accept", "prefixLength": {"min": 1, "max": 2, "x": 1},
                "communities": {"values": ["1:2"], "x": 1}, "operations": operations});
            let at = format!("spec.{list}[1]");
            let filter = json!({"spec": {list: [{"action": "Accept"}, rule]}});
            let inside = [
                "prefixLength.x",
                "communities.x",
                "operations[0].addCommunity.x",
                "operations[1].prependASPath.x",
                "operations[2].setPriority.x",
                "operations[3].x",
            ];
            let expected: Vec<String> = inside.iter().map(|i| format!("{at}.{i}")).collect();
            assert_eq!(places(of_filter(&filter)), expected);
        }
        let node = json!({"spec": {
            "bgp": {"asNumber": 1, "ipv4Address": "", "ipv6Address": "", "ipv4IPIPTunnelAddr": "",
                    "routeReflectorClusterID": "", "routeReflectorClusterId": ""},
            "wireguard": {"interfaceIPv4Address": "", "interfaceIPv6Address": "", "x": 1},
            "later": 1}});
        assert_eq!(
            places(of_node(&node)),
            ["spec.bgp.routeReflectorClusterId", "spec.wireguard.x"]
        );
    }
}
