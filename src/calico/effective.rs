//! Values that depend on several objects.

use std::collections::HashMap;
use std::sync::Arc;

use bgp_proto::session::AuthKey;
use bgp_proto::types::{Asn, Family, RouterId};

use super::model::{BgpConfiguration, Node, NodeSelector, SecretKeyRef};
use super::plan::{Password, Problem};
use super::release::{Origin, Release};
use super::selector::Required;
use super::settings::{RouterIdSource, Settings, hashed_router_id};
use super::snapshot::Snapshot;

/// AS number where BGPConfiguration names none.
const ASN_DEFAULT: Asn = Asn(64512);

/// Kernel metric of ordinary routes where BGPConfiguration names none.
const NORMAL_PRIORITY_DEFAULT: u32 = 1024;

/// The resources as they apply to one node.
pub(super) struct Effective<'a> {
    pub(super) settings: &'a Settings,
    pub(super) snapshot: &'a Snapshot,
    /// The node that the plan is for.
    pub(super) me: &'a Arc<Node>,
    /// BGPConfiguration `default`.
    pub(super) global: &'a BgpConfiguration,
    /// BGPConfiguration of the node; Calico honours some of its fields only.
    pub(super) own: &'a BgpConfiguration,
    /// The release of Calico that the cluster runs.
    pub(super) release: Release,
    /// AS of nodes without one.
    pub(super) global_asn: Asn,
    /// AS of this node.
    pub(super) asn: Asn,
}

impl<'a> Effective<'a> {
    /// `None`: the node's own object is missing.
    pub(super) fn new(
        settings: &'a Settings,
        snapshot: &'a Snapshot,
        release: Release,
    ) -> Option<Self> {
        let me = snapshot.node(&settings.node)?;
        let global = configuration(snapshot, "default");
        let global_asn = global.asn.unwrap_or(ASN_DEFAULT);
        Some(Effective {
            settings,
            snapshot,
            me,
            global,
            own: configuration(snapshot, &format!("node.{}", settings.node)),
            release,
            global_asn,
            asn: me.asn.unwrap_or(global_asn),
        })
    }

    /// `programClusterRoutes` as Felix on this node reads it: its environment variable overrides
    /// FelixConfiguration `node.NAME`, which overrides `default`. Empty: not set.
    pub(super) fn felix_cluster_routes(&self) -> &'a str {
        let own = format!("node.{}", self.settings.node);
        let of = |name: &str| {
            let object = self.snapshot.felix_configurations.get(name)?;
            Some(object.program_cluster_routes.as_str()).filter(|word| !word.is_empty())
        };
        let given = Some(self.settings.felix_cluster_routes.as_str()).filter(|w| !w.is_empty());
        given.or_else(|| of(&own)).or_else(|| of("default")).unwrap_or_default()
    }

    /// The vantage of a node: the value of the label that names vantages.
    pub(super) fn vantage_of(&self, node: &Node) -> Option<Arc<str>> {
        let value = node.labels.get(self.settings.vantage_label.as_deref()?)?;
        (!value.is_empty()).then(|| Arc::from(&**value))
    }

    /// AS of a node.
    pub(super) fn asn_of(&self, node: &Node) -> Asn {
        node.asn.unwrap_or(self.global_asn)
    }

    /// Port that was set for a node itself; 0 sets none, as in Calico.
    fn own_port_of(&self, node: &Node) -> Option<u16> {
        // Few nodes have a configuration of their own: usually the range is empty and no key is
        // built.
        let range = "node.".to_owned().."node/".to_owned();
        self.snapshot.configurations.range(range).next()?;
        let own = self.snapshot.configurations.get(&format!("node.{}", node.name))?;
        own.listen_port.filter(|port| *port != 0)
    }

    /// Port that a node listens on; 0: not set anywhere, which means 179.
    pub(super) fn port_of(&self, node: &Node) -> u16 {
        self.own_port_of(node).or(self.global.listen_port).unwrap_or(0)
    }

    /// Nodes of the AS with an address of exactly this text; with a port other than 0, only those
    /// that listen on it.
    pub(super) fn nodes_at<'b>(
        &'b self,
        text: &str,
        asn: Option<Asn>,
        port: u16,
    ) -> impl Iterator<Item = &'a Arc<Node>> + use<'a, 'b> {
        let asn = asn.filter(|a| a.0 != 0).unwrap_or(self.global_asn);
        self.snapshot.nodes_at(text).filter(move |node| {
            if self.asn_of(node) != asn {
                return false;
            }
            if port == 0 {
                return true;
            }
            // As in Calico, the global port counts even for a node with a port of its own.
            let own_fits = self.own_port_of(node).is_none_or(|own| own == port);
            let global_fits = self.global.listen_port.is_none_or(|p| p == 0 || p == port);
            own_fits && global_fits
        })
    }

    /// The BGP Identifier, for both families.
    pub(super) fn router_id(&self, problems: &mut Vec<Problem>) -> Option<RouterId> {
        let object = format!("Node/{}", self.settings.node);
        match &self.settings.router_id {
            RouterIdSource::Hash => Some(hashed_router_id(&self.settings.node)),
            RouterIdSource::Given(text) => match text.parse() {
                Ok(RouterId(0)) | Err(_) => {
                    let text = format!(
                        "CALICO_ROUTER_ID: \"{text}\" is neither \"hash\" nor an IPv4 address: no session can start"
                    );
                    problems.push(Problem::new(object, text));
                    None
                }
                Ok(id) => Some(id),
            },
            RouterIdSource::Address => match self.me.ipv4.as_ref().map(|h| h.addr) {
                Some(std::net::IpAddr::V4(addr)) => Some(addr.into()),
                _ => {
                    if self.me.ipv6.is_some() {
                        let text = "the node has no IPv4 address to take the BGP Identifier from: \
                                    no session can start; set CALICO_ROUTER_ID";
                        problems.push(Problem::new(object, text));
                    }
                    None
                }
            },
        }
    }

    /// Kernel metric of ordinary routes; routes with a lower one are elevated.
    pub(super) fn normal_priority(&self, family: Family, problems: &mut Vec<Problem>) -> u32 {
        let (field, value) = match family {
            Family::Ipv4 => ("ipv4NormalRoutePriority", self.global.ipv4_normal_route_priority),
            Family::Ipv6 => ("ipv6NormalRoutePriority", self.global.ipv6_normal_route_priority),
        };
        let Some(value) = value else { return NORMAL_PRIORITY_DEFAULT };
        match u32::try_from(value) {
            Ok(value @ 1..=2_147_483_646) => value,
            _ => {
                let text = format!(
                    "spec.{field}: {value} is not in 1-2147483646: {NORMAL_PRIORITY_DEFAULT} is used"
                );
                problems.push(Problem::new("BGPConfiguration/default", text));
                NORMAL_PRIORITY_DEFAULT
            }
        }
    }

    /// Looks up an MD5 key. If it is missing or unusable, that is reported and the last known one
    /// is used, so that rewriting a Secret, or half of it, ends no session.
    pub(super) fn password(
        &self,
        reference: &SecretKeyRef,
        object: &str,
        problems: &mut Vec<Problem>,
    ) -> (Password, Option<AuthKey>) {
        let SecretKeyRef { name, key } = reference;
        let namespace = &self.settings.namespace;
        let place = (namespace.clone(), name.clone());
        let octets = self.snapshot.secrets.get(&place).and_then(|secret| secret.get(key));
        let auth = octets.and_then(AuthKey::new);
        let found = auth.is_some();
        let auth = auth.or_else(|| self.snapshot.last_key(&place, key).cloned());
        if !found {
            let why = match octets {
                None => "is missing".to_owned(),
                Some(octets) => {
                    format!("has {} octets, TCP MD5 takes 1-{}", octets.len(), AuthKey::MAX_LEN)
                }
            };
            let what = match auth {
                Some(_) => "the last one that was known is used",
                None => "the session does not run",
            };
            let text =
                format!("password: key \"{key}\" of Secret {namespace}/{name} {why}: {what}");
            problems.push(Problem::new(object, text));
        }
        (Password { secret: name.clone(), key: key.clone(), found }, auth)
    }

    /// Of the filters that a peer names, those that exist and have rules for the family.
    pub(super) fn filters(&self, names: &[String], family: Family) -> Vec<String> {
        let has_rules = |name: &&String| {
            self.snapshot.filters.get(*name).is_some_and(|filter| match family {
                Family::Ipv4 => !filter.import_ipv4.is_empty() || !filter.export_ipv4.is_empty(),
                Family::Ipv6 => !filter.import_ipv6.is_empty() || !filter.export_ipv6.is_empty(),
            })
        };
        names.iter().filter(has_rules).cloned().collect()
    }
}

/// The release of Calico that the cluster runs. A version that cannot be parsed is reported.
pub(super) fn release(
    settings: &Settings,
    snapshot: &Snapshot,
    notes: &mut Vec<Problem>,
) -> Release {
    let mut read = |object: String, text: &str, origin| match text.parse() {
        Ok(version) => {
            let (release, note) = Release::of(version, origin);
            notes.extend(note.map(|text| Problem::new(object, text)));
            Some(release)
        }
        Err(error) => {
            notes.push(Problem::new(object, format!("{error}: it is passed over")));
            None
        }
    };
    if let Some(text) = &settings.version
        && let Some(release) = read("calico.version".into(), text, Origin::Given)
    {
        return release;
    }
    let information = snapshot.cluster_information.as_ref();
    let information = information.filter(|i| matches!(i.variant.as_str(), "" | "Calico"));
    if let Some(text) = information.map(|i| i.version.as_str()).filter(|text| !text.is_empty())
        && let Some(release) =
            read("ClusterInformation/default".into(), text, Origin::ClusterInformation)
    {
        return release;
    }
    let text = format!(
        "the version of Calico is not known: {} is assumed; name it in calico.version or \
         MARGAY_CALICO_VERSION",
        Release::ASSUMED.version
    );
    notes.push(Problem::new("ClusterInformation/default", text));
    Release::ASSUMED
}

fn configuration<'a>(snapshot: &'a Snapshot, name: &str) -> &'a BgpConfiguration {
    static ABSENT: std::sync::LazyLock<BgpConfiguration> =
        std::sync::LazyLock::new(BgpConfiguration::default);
    snapshot.configurations.get(name).map_or(&ABSENT, Arc::as_ref)
}

/// Finds nodes by selector without evaluating every selector on every node.
pub(super) struct NodeFinder<'a> {
    snapshot: &'a Snapshot,
    /// Nodes by the value of a label, for the labels that have been looked up.
    by_label: HashMap<String, HashMap<&'a str, Vec<&'a Arc<Node>>>>,
}

impl<'a> NodeFinder<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        NodeFinder { snapshot, by_label: HashMap::new() }
    }

    /// Nodes that a selector selects, sorted by name.
    pub(super) fn selected(&mut self, selector: &NodeSelector) -> Vec<&'a Arc<Node>> {
        let Ok(parsed) = &selector.parsed else { return Vec::new() };
        let Some(Required::Value(label, values)) = parsed.required() else {
            let all = self.snapshot.nodes.values();
            return all.filter(|node| parsed.selects(&node.labels)).collect();
        };
        let by_value = self.by_value(label);
        let candidates = values.iter().filter_map(|v| by_value.get(v.as_str())).flatten();
        let mut found: Vec<_> =
            candidates.copied().filter(|node| parsed.selects(&node.labels)).collect();
        if values.len() > 1 {
            found.sort_by(|a, b| a.name.cmp(&b.name));
            found.dedup_by(|a, b| a.name == b.name);
        }
        found
    }

    /// One of the nodes that a selector selects.
    pub(super) fn any_selected(&mut self, selector: &NodeSelector) -> Option<&'a Arc<Node>> {
        let Ok(parsed) = &selector.parsed else { return None };
        let Some(Required::Value(label, values)) = parsed.required() else {
            return self.snapshot.nodes.values().find(|node| parsed.selects(&node.labels));
        };
        let by_value = self.by_value(label);
        let mut candidates = values.iter().filter_map(|v| by_value.get(v.as_str())).flatten();
        candidates.find(|node| parsed.selects(&node.labels)).copied()
    }

    /// Nodes by the value of a label.
    fn by_value(&mut self, label: &str) -> &HashMap<&'a str, Vec<&'a Arc<Node>>> {
        let nodes = &self.snapshot.nodes;
        // Checked first, so that a known label costs no allocation.
        if !self.by_label.contains_key(label) {
            let mut by_value: HashMap<&str, Vec<&Arc<Node>>> = HashMap::new();
            for node in nodes.values() {
                if let Some(value) = node.labels.get(label) {
                    by_value.entry(value).or_default().push(node);
                }
            }
            self.by_label.insert(label.to_owned(), by_value);
        }
        self.by_label.entry(label.to_owned()).or_default()
    }
}
