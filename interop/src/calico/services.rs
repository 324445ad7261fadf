//! Random services of a cluster by a number, with their endpoints, as objects for an API server.

use serde_json::{Value, json};

use super::random::{Dice, NODE};

/// Their namespace.
pub(super) const NAMESPACE: &str = "sets";

/// The announced address of the last service: once confd has it, it has all of them.
pub(super) const LAST: &str = "198.19.0.255";

/// Ranges that are announced whole, and addresses that are ranges by themselves.
const EXTERNAL_V4: [&str; 3] = ["198.18.0.0/24", "198.18.1.1/32", "198.18.1.2/32"];
const BALANCED_V4: [&str; 3] = ["198.18.2.0/24", "198.18.3.1/32", "198.18.3.2/32"];
const EXTERNAL_V6: [&str; 2] = ["2001:db8:18::/64", "2001:db8:18:1::1/128"];
const BALANCED_V6: [&str; 2] = ["2001:db8:18:2::/64", "2001:db8:18:3::1/128"];

/// Addresses of services: in those ranges, and in none.
const ADDRESSES_V4: [&str; 7] = [
    "198.18.0.9",
    "198.18.1.1",
    "198.18.1.2",
    "198.18.2.9",
    "198.18.3.1",
    "198.18.3.2",
    "198.51.100.77",
];
const ADDRESSES_V6: [&str; 5] = [
    "2001:db8:18::9",
    "2001:db8:18:1::1",
    "2001:db8:18:2::9",
    "2001:db8:18:3::1",
    "2001:db8:99::1",
];

fn is_single(range: &str) -> bool {
    range.ends_with("/32") || range.ends_with("/128")
}

/// The prefix of one address.
fn host(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

/// Services, and the ranges that BGPConfiguration has for them.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Services, Endpoints and EndpointSlices, without their status.
    pub(super) objects: Vec<Value>,
    /// Names of services, with the addresses that a load balancer has assigned to them.
    pub(super) balanced: Vec<(String, Vec<String>)>,
    /// External addresses that are ranges by themselves, and all addresses of services with policy
    /// Cluster that have one: this release announces the ranges from every node, in use or not, and
    /// nothing else of those services (`docs/src/calico.md`).
    pub(super) single: Vec<String>,
    /// Lines of BGPConfiguration's `spec`.
    pub(super) ranges: String,
    has_cluster_ranges: bool,
}

impl Services {
    /// The services of that number.
    pub(super) fn new(number: u8) -> Services {
        let mut dice = Dice::new(1000 + u64::from(number));
        let mut services = Services::default();
        services.add_ranges(&mut dice);
        for at in 0..4 + dice.below(6) {
            services.add(&mut dice, number, at);
        }
        services.add_last();
        services
    }

    fn add_ranges(&mut self, dice: &mut Dice) {
        let mut list = |field: &str, ranges: Vec<&str>| {
            if !ranges.is_empty() {
                let ranges: Vec<String> =
                    ranges.iter().map(|range| format!("{{cidr: \"{range}\"}}")).collect();
                self.ranges.push_str(&format!("  {field}: [{}]\n", ranges.join(", ")));
            }
        };
        let mut some = |of: &[&'static str]| -> Vec<&'static str> {
            of.iter().copied().filter(|_| dice.percent(60)).collect()
        };
        let mut external = [some(&EXTERNAL_V4), some(&EXTERNAL_V6)].concat();
        self.single
            .extend(external.iter().filter(|range| is_single(range)).map(|r| (*r).to_owned()));
        external.push("198.19.0.0/24");
        list("serviceExternalIPs", external);
        list("serviceLoadBalancerIPs", [some(&BALANCED_V4), some(&BALANCED_V6)].concat());
        let cluster = some(&["10.96.0.0/16", "fd96::/112"]);
        self.has_cluster_ranges = !cluster.is_empty();
        list("serviceClusterIPs", cluster);
    }

    fn add(&mut self, dice: &mut Dice, number: u8, at: u64) {
        let name = format!("service-{at}");
        let kind = dice.pick(&["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"]);
        let policy = dice.pick(&["Cluster", "Local", "Local"]);
        let [v4, v6] = [format!("10.96.{number}.{}", 10 + at), format!("fd96::{number:x}{at:x}a")];
        // This release announces only the first of a service's cluster addresses (`docs/src/calico.md`).
        let families = match dice.below(10) {
            0..5 => vec!["IPv4"],
            5..8 => vec!["IPv6"],
            _ if self.has_cluster_ranges => vec!["IPv4"],
            _ => vec!["IPv4", "IPv6"],
        };
        let is_v6 = families == ["IPv6"];
        let address = |dice: &mut Dice| {
            if is_v6 {
                dice.pick(&ADDRESSES_V6).to_owned()
            } else {
                dice.pick(&ADDRESSES_V4).to_owned()
            }
        };
        let cluster: Vec<&String> =
            families.iter().map(|family| if *family == "IPv4" { &v4 } else { &v6 }).collect();
        let mut spec = json!({
            "type": kind, "clusterIP": cluster[0], "clusterIPs": cluster,
            "ipFamilies": families, "ports": [{"port": 80}],
            "ipFamilyPolicy": if families.len() > 1 { "RequireDualStack" } else { "SingleStack" },
        });
        if dice.percent(10) && families.len() == 1 {
            spec["clusterIP"] = json!("None");
            spec["clusterIPs"] = json!(["None"]);
            spec["type"] = json!("ClusterIP");
        }
        let is_headless = spec["clusterIP"] == "None";
        if dice.percent(60) {
            let some: Vec<String> = (0..=dice.below(2)).map(|_| address(dice)).collect();
            spec["externalIPs"] = json!(some);
        }
        // The server refuses a policy on a service without external traffic.
        let has_external = spec["externalIPs"].is_array();
        if !is_headless && (kind != "ClusterIP" || has_external) {
            spec["externalTrafficPolicy"] = json!(policy);
        }
        if kind == "LoadBalancer" && !is_headless {
            let given = address(dice);
            // This release reads the requested address, later ones the assigned one, too.
            spec["loadBalancerIP"] = json!(given);
            self.balanced.push((name.clone(), vec![given]));
        }
        self.note_single(&spec);
        self.objects.push(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        }));
        // This release reads endpoints of the family of the service's first address.
        self.add_endpoints(dice, &name, families[0]);
    }

    fn note_single(&mut self, spec: &Value) {
        let texts =
            |key: &str| spec[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        let is_single = |address: &str| self.single.contains(&host(address));
        if spec["externalTrafficPolicy"] == "Cluster" && texts("externalIPs").any(is_single) {
            let balanced = spec["loadBalancerIP"].as_str();
            let all = texts("externalIPs").chain(texts("clusterIPs")).chain(balanced);
            let all: Vec<String> = all.map(host).collect();
            self.single.extend(all);
        }
    }

    /// Adds endpoints of a service: on this node or another, ready or not, or none; in Endpoints,
    /// which this release reads, and in an EndpointSlice, which margay reads.
    fn add_endpoints(&mut self, dice: &mut Dice, name: &str, family: &str) {
        if dice.percent(10) {
            return;
        }
        let (mut ready, mut unready, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..dice.below(4) {
            let ip =
                if family == "IPv4" { format!("10.65.9.{at}") } else { format!("fd00:65::9{at}") };
            let node = dice.pick(&[NODE, "node-1", "node-2"]);
            let is_ready = dice.percent(60);
            let address = json!({"ip": ip, "nodeName": node});
            if is_ready {
                ready.push(address)
            } else {
                unready.push(address)
            }
            endpoints.push(json!({
                "addresses": [ip], "nodeName": node, "conditions": {"ready": is_ready},
            }));
        }
        let mut subset = json!({"ports": [{"port": 80}]});
        if !ready.is_empty() {
            subset["addresses"] = json!(ready);
        }
        if !unready.is_empty() {
            subset["notReadyAddresses"] = json!(unready);
        }
        let subsets = if endpoints.is_empty() { json!([]) } else { json!([subset]) };
        self.objects.push(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": name, "namespace": NAMESPACE}, "subsets": subsets,
        }));
        self.objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-1"), "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family, "endpoints": endpoints, "ports": [{"port": 80}],
        }));
    }

    /// A service that is announced in every set.
    fn add_last(&mut self) {
        let (name, ip) = ("zz-last", "10.65.9.99");
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        self.objects.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {
                "type": "ClusterIP", "externalIPs": [LAST], "externalTrafficPolicy": "Local",
                "ports": [{"port": 80}],
            },
        }));
        self.objects.push(json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
            "subsets": [{
                "addresses": [{"ip": ip, "nodeName": NODE}], "ports": [{"port": 80}],
            }],
        }));
        self.objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "zz-last-1", "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": [ip], "nodeName": NODE}],
        }));
    }
}
