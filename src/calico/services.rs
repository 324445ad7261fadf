//! Kubernetes services: which ranges and which single addresses this node announces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::types::Prefix;

use super::effective::Effective;
use super::model::{CidrEntry, EndpointSlice, Service, exact};
use super::plan::Problem;
use crate::config::EndpointWeights;

/// The routes and ranges of services on this node. Lists are sorted as text and hold both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceRoutes {
    /// Prefixes to announce.
    pub(super) routes: Vec<Prefix>,
    /// Ranges inside which no route is installed in the kernel.
    pub(super) reject: Vec<Prefix>,
    /// Configured load balancer ranges.
    pub(super) load_balancer: Vec<Prefix>,
    /// Configured external ranges.
    pub(super) external: Vec<Prefix>,
    /// For announced addresses, the ready endpoints on this node, if traffic is to be shared by their
    /// number. An address of several services has the sum.
    pub(super) endpoints: BTreeMap<Prefix, u32>,
    /// What each range, and each address of a service, is to this node, as text for people.
    pub(super) reasons: BTreeMap<Prefix, String>,
}

/// Computes the routes to announce for services.
pub(super) fn service_routes(cx: &Effective<'_>, problems: &mut Vec<Problem>) -> ServiceRoutes {
    let ranges = Ranges::new(cx, problems);
    let is_single = |p: &&Prefix| p.len() == p.family().max_len();
    let mut global: Vec<Prefix> = ranges.cluster.clone();
    global.extend(ranges.external.iter().filter(|p| !is_single(p)));
    if ranges.is_aggregated {
        global.extend(ranges.load_balancer.iter().filter(|p| !is_single(p)));
    }
    let is_excluded = cx.me.is_excluded_from_services();
    let mut routes = match is_excluded {
        // The node's label does not suppress a range given in the environment.
        true if ranges.is_cluster_given => ranges.cluster.clone(),
        true => Vec::new(),
        false => global.clone(),
    };
    let mut reasons = BTreeMap::new();
    let mut counts = Counts::new(cx);
    // Without ranges no service is announced.
    if !ranges.is_empty() {
        let mut slices: BTreeMap<_, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in cx.snapshot.slices.values() {
            slices.entry(&slice.service).or_default().push(slice);
        }
        for (id, service) in &cx.snapshot.services {
            let slices = slices.get(id).map(Vec::as_slice).unwrap_or_default();
            let verdict = if is_excluded {
                Verdict::NodeExcluded
            } else {
                verdict(cx, &ranges, service, slices)
            };
            if verdict.is_advertised() {
                routes.extend(addresses(&ranges, service).map(Prefix::host));
                counts.add(cx, &ranges, service, slices, verdict);
            }
            explain(&ranges, id, service, verdict, &mut reasons);
        }
    }
    let mut reasons: BTreeMap<Prefix, String> =
        reasons.into_iter().map(|(prefix, reason)| (prefix, reason.text)).collect();
    // If an address is a range by itself, the reason given by its service takes precedence.
    for (range, text) in ranges.reasons() {
        reasons.entry(range).or_insert(text);
    }
    ServiceRoutes {
        reasons,
        endpoints: counts.finish(),
        routes: sorted(routes),
        reject: sorted(global),
        load_balancer: sorted(ranges.load_balancer),
        external: sorted(ranges.external),
    }
}

/// The ready endpoints on this node behind each announced address.
struct Counts {
    is_wanted: bool,
    /// `None`: a service that every node announces has the address too, so that the endpoints here
    /// say nothing about this node's share.
    of: BTreeMap<Prefix, Option<u32>>,
}

impl Counts {
    fn new(cx: &Effective<'_>) -> Counts {
        let is_wanted = cx.settings.endpoint_weights != EndpointWeights::Off;
        Counts { is_wanted, of: BTreeMap::new() }
    }

    fn add(
        &mut self,
        cx: &Effective<'_>,
        ranges: &Ranges,
        service: &Service,
        slices: &[&EndpointSlice],
        verdict: Verdict,
    ) {
        if !self.is_wanted {
            return;
        }
        let here = |family: &str| -> u32 {
            let of_family = slices.iter().filter(|slice| slice.address_type == family);
            let endpoints = of_family.flat_map(|slice| &slice.endpoints);
            let ready = endpoints.filter(|e| e.is_ready && e.node == cx.settings.kubernetes_node);
            // The address may be announced for endpoints of the other family.
            u32::try_from(ready.count()).unwrap_or(u32::MAX).max(1)
        };
        let by_family = (verdict == Verdict::EndpointHere).then(|| (here("IPv4"), here("IPv6")));
        // An address may be external and a load balancer's.
        for addr in addresses(ranges, service).collect::<BTreeSet<_>>() {
            let here = by_family.map(|(ipv4, ipv6)| if addr.is_ipv4() { ipv4 } else { ipv6 });
            let sum = self.of.entry(Prefix::host(addr)).or_insert(Some(0));
            *sum = sum.zip(here).map(|(sum, here)| sum.saturating_add(here));
        }
    }

    fn finish(self) -> BTreeMap<Prefix, u32> {
        self.of.into_iter().filter_map(|(prefix, count)| Some((prefix, count?))).collect()
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
    /// Whether load balancer ranges are announced whole.
    is_aggregated: bool,
    /// Whether the cluster range is that of the environment.
    is_cluster_given: bool,
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
        // Calico aggregates only for these values, so an unknown one means Disabled.
        let aggregation = global.service_load_balancer_aggregation.as_str();
        let is_aggregated = matches!(aggregation, "" | "Enabled");
        let is_cluster_given = !cx.settings.advertise_cluster_ips.is_empty();
        Ranges { cluster, external, load_balancer, is_aggregated, is_cluster_given }
    }

    /// The range and the field that configures it, as text for people.
    fn reasons(&self) -> BTreeMap<Prefix, String> {
        let lists = [
            ("serviceClusterIPs", &self.cluster),
            ("serviceExternalIPs", &self.external),
            ("serviceLoadBalancerIPs", &self.load_balancer),
        ];
        let mut reasons = BTreeMap::new();
        for (field, list) in lists {
            let from = match field {
                "serviceClusterIPs" if self.is_cluster_given => {
                    "CALICO_ADVERTISE_CLUSTER_IPS".to_owned()
                }
                field => format!("BGPConfiguration/default {field}"),
            };
            for prefix in list {
                reasons.entry(*prefix).or_insert_with(|| format!("a range of services ({from})"));
            }
        }
        reasons
    }

    fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.external.is_empty() && self.load_balancer.is_empty()
    }
}

/// Whether single addresses of a service are announced, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Its address is a range by itself.
    SingleRange,
    /// An endpoint on this node is ready.
    EndpointHere,
    /// An endpoint is ready somewhere, and ranges are not announced whole.
    EndpointAnywhere,
    /// The node's label keeps it from announcing services.
    NodeExcluded,
    /// It is headless or of a type without addresses.
    NoAddress,
    /// It has no EndpointSlice, so that no endpoint is known.
    NoSlice,
    /// Its range is announced whole by every node.
    RangeIsAnnounced,
    /// No endpoint on this node is ready.
    NoEndpointHere,
    /// No endpoint is ready.
    NoEndpoint,
}

impl Verdict {
    fn is_advertised(self) -> bool {
        matches!(self, Verdict::SingleRange | Verdict::EndpointHere | Verdict::EndpointAnywhere)
    }

    /// The text that follows the service's name.
    fn text(self) -> &'static str {
        match self {
            Verdict::SingleRange => "announced: the address is a range by itself",
            Verdict::EndpointHere => "announced: policy Local, an endpoint on this node is ready",
            Verdict::EndpointAnywhere => "announced: an endpoint is ready",
            Verdict::NodeExcluded => {
                "not announced: this node has the label \
                 node.kubernetes.io/exclude-from-external-load-balancers"
            }
            Verdict::NoAddress => "not announced: it has no cluster address",
            Verdict::NoSlice => "not announced: it has no EndpointSlice",
            Verdict::RangeIsAnnounced => {
                "not announced by itself: policy Cluster, its range is announced whole"
            }
            Verdict::NoEndpointHere => {
                "not announced: policy Local, no endpoint on this node is ready"
            }
            Verdict::NoEndpoint => "not announced: no endpoint is ready",
        }
    }
}

fn verdict(
    cx: &Effective<'_>,
    ranges: &Ranges,
    service: &Service,
    slices: &[&EndpointSlice],
) -> Verdict {
    if !matches!(service.kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer")
        || matches!(service.cluster_ip.as_str(), "" | "None")
    {
        return Verdict::NoAddress;
    }
    if slices.is_empty() {
        return Verdict::NoSlice;
    }
    let policy = service.external_traffic_policy.as_str();
    if policy == "Cluster" {
        let is_single = |list: &[Prefix], addr: IpAddr| list.contains(&Prefix::host(addr));
        let balanced = std::iter::once(&service.load_balancer_ip).chain(&service.ingress);
        let is_balanced = service.kind == "LoadBalancer"
            && parsed(balanced).any(|addr| is_single(&ranges.load_balancer, addr));
        if is_balanced
            || parsed(&service.external_ips).any(|addr| is_single(&ranges.external, addr))
        {
            return Verdict::SingleRange;
        }
    }
    if policy != "Local" && ranges.is_aggregated {
        return Verdict::RangeIsAnnounced;
    }
    let of_family = slices.iter().filter(|slice| service.ip_families.contains(&slice.address_type));
    let mut ready = of_family.flat_map(|slice| &slice.endpoints).filter(|e| e.is_ready);
    match policy {
        "Local" if ready.any(|e| e.node == cx.settings.kubernetes_node) => Verdict::EndpointHere,
        "Local" => Verdict::NoEndpointHere,
        _ if ready.next().is_some() => Verdict::EndpointAnywhere,
        _ => Verdict::NoEndpoint,
    }
}

/// The reason that one service gives for an address.
struct Reason {
    is_announced: bool,
    text: String,
}

/// Records the reason for every address of a service. Where services share an address, one that
/// causes it to be announced takes precedence, otherwise the first.
fn explain(
    ranges: &Ranges,
    (namespace, name): &(String, String),
    service: &Service,
    verdict: Verdict,
    reasons: &mut BTreeMap<Prefix, Reason>,
) {
    let in_range: BTreeSet<IpAddr> = addresses(ranges, service).collect();
    let all = service.cluster_ips.iter().chain(&service.external_ips).chain(&service.ingress);
    for addr in parsed(all) {
        let is_in_range = in_range.contains(&addr);
        let why = if is_in_range {
            verdict.text()
        } else {
            "not announced: the address is in no range of BGPConfiguration's"
        };
        let text = format!("Service {namespace}/{name}: {why}");
        let is_announced = is_in_range && verdict.is_advertised();
        let known = reasons.get(&Prefix::host(addr));
        if known.is_none_or(|known| is_announced && !known.is_announced) {
            reasons.insert(Prefix::host(addr), Reason { is_announced, text });
        }
    }
}

/// Addresses of the service that are announced individually.
fn addresses<'a>(ranges: &'a Ranges, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
    let inside =
        |list: &'a [Prefix]| move |addr: &IpAddr| list.iter().any(|p| p.contains_addr(*addr));
    let cluster = parsed(&service.cluster_ips).filter(|_| !ranges.cluster.is_empty());
    cluster
        .chain(parsed(&service.external_ips).filter(inside(&ranges.external)))
        .chain(parsed(&service.ingress).filter(inside(&ranges.load_balancer)))
}

/// The texts that parse as addresses.
fn parsed<'a>(texts: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok())
}
