//! Kubernetes services: which ranges and which single addresses this node announces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{Family, Prefix};

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
    pub(super) reasons: Arc<BTreeMap<Prefix, String>>,
}

/// Namespace and name of a Service.
pub(super) type ServiceName = (String, String);

/// What this node announces for services, and which part of it follows from each of them.
pub(super) struct Services {
    pub(super) routes: ServiceRoutes,
    ranges: Ranges,
    is_excluded: bool,
    /// Without ranges none.
    known: BTreeMap<ServiceName, Known>,
    /// By announced address, if traffic is to be shared.
    sums: BTreeMap<Prefix, Sum>,
}

/// What follows from one service.
struct Known {
    verdict: Verdict,
    /// Addresses that are announced for it, if traffic is to be shared. One that is external and a
    /// load balancer's occurs once.
    addresses: Vec<Prefix>,
    here: Here,
}

/// The ready endpoints of a service on this node, by the family of an announced address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Here(Option<[u32; 2]>);

impl Here {
    /// `None`: every node announces the service, so that the endpoints here say nothing about this
    /// node's share.
    fn behind(self, addr: Prefix) -> Option<u32> {
        self.0.map(|[ipv4, ipv6]| if addr.family() == Family::Ipv4 { ipv4 } else { ipv6 })
    }
}

/// The endpoints of all services that have an address.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    endpoints: u64,
    /// Services with the address that every node announces.
    everywhere: u32,
}

impl Sum {
    fn add(&mut self, here: Option<u32>) {
        match here {
            Some(here) => self.endpoints += u64::from(here),
            None => self.everywhere += 1,
        }
    }

    fn subtract(&mut self, here: Option<u32>) {
        match here {
            Some(here) => self.endpoints -= u64::from(here),
            None => self.everywhere -= 1,
        }
    }

    fn share(self) -> Option<u32> {
        (self.everywhere == 0).then(|| u32::try_from(self.endpoints).unwrap_or(u32::MAX))
    }
}

impl Services {
    /// Computes everything that is announced for services.
    pub(super) fn new(cx: &Effective<'_>, problems: &mut Vec<Problem>) -> Services {
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
        let mut all = Services {
            routes: ServiceRoutes::default(),
            ranges,
            is_excluded,
            known: BTreeMap::new(),
            sums: BTreeMap::new(),
        };
        let mut reasons = BTreeMap::new();
        // Without ranges no service is announced.
        if !all.ranges.is_empty() {
            let slices = slices_by_service(cx, |_| true);
            for (name, service) in &cx.snapshot.services {
                let slices = slices.get(name).map(Vec::as_slice).unwrap_or_default();
                let verdict = all.verdict(cx, service, slices);
                if verdict.is_advertised() {
                    routes.extend(addresses(&all.ranges, service).map(Prefix::host));
                }
                explain(&all.ranges, name, service, verdict, &mut reasons);
                all.add(cx, name, service, slices, verdict);
            }
        }
        let mut reasons: BTreeMap<Prefix, String> =
            reasons.into_iter().map(|(prefix, reason)| (prefix, reason.text)).collect();
        // If an address is a range by itself, the reason given by its service takes precedence.
        for (range, text) in all.ranges.reasons() {
            reasons.entry(range).or_insert(text);
        }
        let shares = all.sums.iter().filter_map(|(prefix, sum)| Some((*prefix, sum.share()?)));
        all.routes = ServiceRoutes {
            reasons: Arc::new(reasons),
            endpoints: shares.collect(),
            routes: sorted(routes),
            reject: sorted(global),
            load_balancer: sorted(all.ranges.load_balancer.clone()),
            external: sorted(all.ranges.external.clone()),
        };
        all
    }

    /// Takes over changed endpoints of these services, of which nothing else has changed. Returns whether
    /// that was possible: if one is announced no longer, or for another reason, everything is to be
    /// computed again.
    pub(super) fn update(&mut self, cx: &Effective<'_>, changed: &BTreeSet<ServiceName>) -> bool {
        if self.ranges.is_empty() {
            return true;
        }
        let slices = slices_by_service(cx, |name| changed.contains(name));
        for name in changed {
            let Some(service) = cx.snapshot.services.get(name) else { continue };
            let slices = slices.get(name).map(Vec::as_slice).unwrap_or_default();
            let verdict = self.verdict(cx, service, slices);
            let Some(known) = self.known.get_mut(name).filter(|k| k.verdict == verdict) else {
                return false;
            };
            let before = std::mem::replace(&mut known.here, here(cx, slices, verdict));
            for addr in &known.addresses {
                let sum = self.sums.entry(*addr).or_default();
                sum.subtract(before.behind(*addr));
                sum.add(known.here.behind(*addr));
                match sum.share() {
                    Some(share) => self.routes.endpoints.insert(*addr, share),
                    None => self.routes.endpoints.remove(addr),
                };
            }
        }
        true
    }

    fn verdict(&self, cx: &Effective<'_>, service: &Service, slices: &[&EndpointSlice]) -> Verdict {
        match self.is_excluded {
            true => Verdict::NodeExcluded,
            false => verdict(cx, &self.ranges, service, slices),
        }
    }

    fn add(
        &mut self,
        cx: &Effective<'_>,
        name: &ServiceName,
        service: &Service,
        slices: &[&EndpointSlice],
        verdict: Verdict,
    ) {
        let is_wanted = cx.settings.endpoint_weights != EndpointWeights::Off;
        let mut known = Known { verdict, addresses: Vec::new(), here: Here::default() };
        if is_wanted && verdict.is_advertised() {
            known.here = here(cx, slices, verdict);
            let single: BTreeSet<IpAddr> = addresses(&self.ranges, service).collect();
            known.addresses = single.into_iter().map(Prefix::host).collect();
            for addr in &known.addresses {
                self.sums.entry(*addr).or_default().add(known.here.behind(*addr));
            }
        }
        self.known.insert(name.clone(), known);
    }
}

/// The EndpointSlices of services, of those that are `wanted`.
fn slices_by_service<'a>(
    cx: &Effective<'a>,
    wanted: impl Fn(&ServiceName) -> bool,
) -> BTreeMap<&'a ServiceName, Vec<&'a EndpointSlice>> {
    let mut slices: BTreeMap<_, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in cx.snapshot.slices.values().filter(|slice| wanted(&slice.service)) {
        slices.entry(&slice.service).or_default().push(slice);
    }
    slices
}

/// The ready endpoints on this node, at least one: an address may be announced for endpoints of the
/// other family.
fn here(cx: &Effective<'_>, slices: &[&EndpointSlice], verdict: Verdict) -> Here {
    let here = |family: &str| -> u32 {
        let of_family = slices.iter().filter(|slice| slice.address_type == family);
        let endpoints = of_family.flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|e| e.is_ready && e.node == cx.settings.kubernetes_node);
        u32::try_from(ready.count()).unwrap_or(u32::MAX).max(1)
    };
    Here((verdict == Verdict::EndpointHere).then(|| [here("IPv4"), here("IPv6")]))
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
