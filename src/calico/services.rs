//! Kubernetes services: which ranges and which single addresses this node announces.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp_proto::types::Prefix;

use super::effective::Effective;
use super::model::{CidrEntry, EndpointSlice, Service, exact};
use super::plan::Problem;

/// What services mean for this node. Lists are sorted as text, and hold both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceRoutes {
    /// Announced.
    pub(super) routes: Vec<Prefix>,
    /// Kept out of the kernel.
    pub(super) reject: Vec<Prefix>,
    /// Configured load balancer ranges.
    pub(super) load_balancer: Vec<Prefix>,
    /// Configured external ranges.
    pub(super) external: Vec<Prefix>,
}

/// Works out what is announced for services.
pub(super) fn service_routes(cx: &Effective<'_>, problems: &mut Vec<Problem>) -> ServiceRoutes {
    let ranges = Ranges::new(cx, problems);
    let is_single = |p: &&Prefix| p.len() == p.family().max_len();
    let mut global: Vec<Prefix> = ranges.cluster.clone();
    global.extend(ranges.external.iter().filter(|p| !is_single(p)));
    if ranges.is_aggregated {
        global.extend(ranges.load_balancer.iter().filter(|p| !is_single(p)));
    }
    let is_excluded = cx.me.is_excluded_from_services();
    let mut routes = if is_excluded { Vec::new() } else { global.clone() };
    // Without a range nobody asked for services.
    if !is_excluded && !ranges.is_empty() {
        let mut slices: std::collections::BTreeMap<_, Vec<&EndpointSlice>> = Default::default();
        for slice in cx.snapshot.slices.values() {
            slices.entry(&slice.service).or_default().push(slice);
        }
        for (id, service) in &cx.snapshot.services {
            let slices = slices.get(id).map(Vec::as_slice).unwrap_or_default();
            if is_advertised(cx, &ranges, service, slices) {
                routes.extend(addresses(&ranges, service).map(Prefix::host));
            }
        }
    }
    ServiceRoutes {
        routes: sorted(routes),
        reject: sorted(global),
        load_balancer: sorted(ranges.load_balancer),
        external: sorted(ranges.external),
    }
}

/// Sorted as text, each once.
pub(super) fn sorted(prefixes: impl IntoIterator<Item = Prefix>) -> Vec<Prefix> {
    let unique: BTreeSet<Prefix> = prefixes.into_iter().collect();
    let mut list: Vec<Prefix> = unique.into_iter().collect();
    list.sort_by_cached_key(Prefix::to_string);
    list
}

/// Configured ranges.
struct Ranges {
    cluster: Vec<Prefix>,
    external: Vec<Prefix>,
    load_balancer: Vec<Prefix>,
    /// Ranges of load balancers are announced whole.
    is_aggregated: bool,
}

impl Ranges {
    fn new(cx: &Effective<'_>, problems: &mut Vec<Problem>) -> Ranges {
        let mut read = |field: &str, entries: &[CidrEntry]| -> Vec<Prefix> {
            let given = entries.iter().map(|e| e.cidr.as_str()).filter(|c| !c.is_empty());
            given
                .filter_map(|cidr| match exact(cidr) {
                    Ok(prefix) => Some(prefix),
                    Err(error) => {
                        let text = format!("spec.{field}: {error}: the range is skipped");
                        problems.push(Problem::new("BGPConfiguration/default", text));
                        None
                    }
                })
                .collect()
        };
        let global = cx.global;
        let external = read("serviceExternalIPs", &global.service_external_ips);
        let load_balancer = read("serviceLoadBalancerIPs", &global.service_load_balancer_ips);
        let cluster = match cx.settings.advertise_cluster_ips.as_str() {
            "" => read("serviceClusterIPs", &global.service_cluster_ips),
            cidr => match exact(cidr) {
                Ok(prefix) => vec![prefix],
                Err(error) => {
                    let text = format!("CALICO_ADVERTISE_CLUSTER_IPS: {error}: it is skipped");
                    problems.push(Problem::new(format!("Node/{}", cx.settings.node), text));
                    Vec::new()
                }
            },
        };
        // A value of a later release is none that Calico would aggregate for.
        let aggregation = global.service_load_balancer_aggregation.as_str();
        let is_aggregated = matches!(aggregation, "" | "Enabled");
        Ranges { cluster, external, load_balancer, is_aggregated }
    }

    fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.external.is_empty() && self.load_balancer.is_empty()
    }
}

/// Whether routes to single addresses of the service are announced.
fn is_advertised(
    cx: &Effective<'_>,
    ranges: &Ranges,
    service: &Service,
    slices: &[&EndpointSlice],
) -> bool {
    if !matches!(service.kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer")
        || matches!(service.cluster_ip.as_str(), "" | "None")
    {
        return false;
    }
    let policy = service.external_traffic_policy.as_str();
    if policy == "Cluster" {
        let is_single = |list: &[Prefix], addr: IpAddr| list.contains(&Prefix::host(addr));
        let balanced = std::iter::once(&service.load_balancer_ip).chain(&service.ingress);
        if service.kind == "LoadBalancer"
            && parsed(balanced).any(|addr| is_single(&ranges.load_balancer, addr))
        {
            return true;
        }
        if parsed(&service.external_ips).any(|addr| is_single(&ranges.external, addr)) {
            return true;
        }
    }
    if policy != "Local" && ranges.is_aggregated {
        return false;
    }
    slices.iter().filter(|slice| service.ip_families.contains(&slice.address_type)).any(|slice| {
        slice.endpoints.iter().any(|endpoint| {
            endpoint.is_ready && (policy != "Local" || endpoint.node == cx.settings.kubernetes_node)
        })
    })
}

/// Addresses of the service that are announced one by one.
fn addresses<'a>(ranges: &'a Ranges, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
    let inside =
        |list: &'a [Prefix]| move |addr: &IpAddr| list.iter().any(|p| p.contains_addr(*addr));
    let cluster = parsed(&service.cluster_ips).filter(|_| !ranges.cluster.is_empty());
    cluster
        .chain(parsed(&service.external_ips).filter(inside(&ranges.external)))
        .chain(parsed(&service.ingress).filter(inside(&ranges.load_balancer)))
}

/// Those that are addresses.
fn parsed<'a>(texts: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok())
}
