//! The fields that Calico's objects have, so that a misspelled one can be reported.
//!
//! Those of v3.33; a field of a later release is named as unknown, which it is to margay.

use serde_json::Value;

use crate::config::closest;

const BGP_CONFIGURATION: [&str; 19] = [
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
];

const BGP_PEER: [&str; 18] = [
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
];

const BGP_FILTER: [&str; 4] = ["importV4", "exportV4", "importV6", "exportV6"];

const FILTER_RULE: [&str; 11] = [
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
];

const IP_POOL: [&str; 11] = [
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
];

/// What is said about each field of `spec` that Calico does not know.
fn unknown(spec: &Value, known: &[&str], at: &str, notes: &mut Vec<Box<str>>) {
    let Value::Object(fields) = spec else { return };
    for field in fields.keys().filter(|field| !known.contains(&field.as_str())) {
        let lower: Vec<String> = known.iter().map(|k| k.to_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        let near =
            closest(field, &lower).and_then(|near| known.iter().find(|k| k.to_lowercase() == near));
        let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        notes.push(format!("{at}.{field} is no field of Calico's: it does nothing{near}").into());
    }
}

fn of_spec(object: &Value, known: &[&str]) -> Vec<Box<str>> {
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
    let mut notes = of_spec(object, &BGP_FILTER);
    for list in BGP_FILTER {
        let rules = object.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
        for (index, rule) in rules.into_iter().flatten().enumerate() {
            unknown(rule, &FILTER_RULE, &format!("spec.{list}[{index}]"), &mut notes);
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misspelled_field_is_told_with_the_one_that_was_meant() {
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
}
