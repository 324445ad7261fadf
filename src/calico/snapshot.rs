//! Every object that BGP reads, at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::AuthKey;

use super::model::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, ClusterInformation, Decoded,
    EndpointSlice, FelixConfiguration, IpPool, Kind, LocalEndpoint, Node, Object, ObjectId, Secret,
    Service,
};

/// Objects with a namespace and a name.
type Namespaced<T> = BTreeMap<(String, String), Arc<T>>;

/// Every object that BGP reads, at one moment.
///
/// An object that cannot be read keeps its previous state, and is listed in
/// [`Snapshot::unreadable`] until a readable one replaces it or it is deleted.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    calico_nodes: BTreeMap<String, Arc<Node>>,
    kubernetes_nodes: BTreeMap<String, Arc<Node>>,
    /// Both of the above, merged per name.
    pub(super) nodes: BTreeMap<Arc<str>, Arc<Node>>,
    /// Names of nodes by the text of an address.
    by_address: BTreeMap<Box<str>, BTreeSet<Arc<str>>>,
    pub(super) configurations: BTreeMap<String, Arc<BgpConfiguration>>,
    pub(super) peers: BTreeMap<String, Arc<BgpPeer>>,
    pub(super) filters: BTreeMap<String, Arc<BgpFilter>>,
    pub(super) pools: BTreeMap<String, Arc<IpPool>>,
    /// By node, then by name.
    affinities: BTreeMap<String, BTreeMap<String, Arc<BlockAffinity>>>,
    affinity_nodes: BTreeMap<String, String>,
    pub(super) secrets: Namespaced<Secret>,
    /// The last usable value of every key of every Secret.
    last_keys: BTreeMap<(String, String), BTreeMap<String, AuthKey>>,
    pub(super) services: Namespaced<Service>,
    pub(super) slices: Namespaced<EndpointSlice>,
    pub(super) endpoints: BTreeMap<String, Arc<LocalEndpoint>>,
    /// The object with the name `default`.
    pub(super) cluster_information: Option<Arc<ClusterInformation>>,
    pub(super) felix_configurations: BTreeMap<String, Arc<FelixConfiguration>>,
    unreadable: BTreeMap<ObjectId, String>,
}

impl Snapshot {
    /// The service of an EndpointSlice.
    pub(super) fn service_of(&self, slice: &ObjectId) -> Option<&(String, String)> {
        let slice = self.slices.get(&(slice.namespace.clone(), slice.name.clone()))?;
        Some(&slice.service)
    }

    /// Stores an object, or its absence.
    pub fn apply(&mut self, decoded: Decoded) {
        match decoded.object {
            Ok(Some(object)) => {
                self.unreadable.remove(&decoded.id);
                self.insert(decoded.id, object);
            }
            Ok(None) => self.withdraw(&decoded.id),
            Err(fault) => {
                self.unreadable.insert(decoded.id, fault.to_string());
            }
        }
    }

    fn insert(&mut self, id: ObjectId, object: Object) {
        let ObjectId { kind, namespace, name } = id;
        match object {
            Object::Node(node) => {
                let merged = Arc::clone(&node.name);
                match kind {
                    Kind::KubernetesNode => self.kubernetes_nodes.insert(name, node),
                    _ => self.calico_nodes.insert(name, node),
                };
                self.merge_node(&merged);
            }
            Object::BgpConfiguration(object) => {
                self.configurations.insert(name, object);
            }
            Object::BgpPeer(object) => {
                self.peers.insert(name, object);
            }
            Object::BgpFilter(object) => {
                self.filters.insert(name, object);
            }
            Object::IpPool(object) => {
                self.pools.insert(name, object);
            }
            Object::BlockAffinity(object) => {
                // The object may name another node than before.
                self.withdraw_affinity(&name);
                self.affinity_nodes.insert(name.clone(), object.node.clone());
                self.affinities.entry(object.node.clone()).or_default().insert(name, object);
            }
            Object::Secret(object) => {
                let id = ObjectId { kind, namespace, name };
                self.remember_keys(&id, &object);
                self.secrets.insert((id.namespace, id.name), object);
            }
            Object::Service(object) => {
                self.services.insert((namespace, name), object);
            }
            Object::EndpointSlice(object) => {
                self.slices.insert((namespace, name), object);
            }
            Object::LocalEndpoint(object) => {
                self.endpoints.insert(name, object);
            }
            Object::ClusterInformation(object) => {
                if name == "default" {
                    self.cluster_information = Some(object);
                }
            }
            Object::FelixConfiguration(object) => {
                self.felix_configurations.insert(name, object);
            }
        }
    }

    /// Removes an object.
    pub fn withdraw(&mut self, id: &ObjectId) {
        self.unreadable.remove(id);
        let name = id.name.as_str();
        let namespaced = || (id.namespace.clone(), id.name.clone());
        match id.kind {
            Kind::Node => {
                self.calico_nodes.remove(name);
                self.merge_node(name);
            }
            Kind::KubernetesNode => {
                self.kubernetes_nodes.remove(name);
                self.merge_node(name);
            }
            Kind::BgpConfiguration => drop(self.configurations.remove(name)),
            Kind::BgpPeer => drop(self.peers.remove(name)),
            Kind::BgpFilter => drop(self.filters.remove(name)),
            Kind::IpPool => drop(self.pools.remove(name)),
            Kind::BlockAffinity => self.withdraw_affinity(name),
            Kind::Secret => drop(self.secrets.remove(&namespaced())),
            Kind::Service => drop(self.services.remove(&namespaced())),
            Kind::EndpointSlice => drop(self.slices.remove(&namespaced())),
            Kind::LocalEndpoint => drop(self.endpoints.remove(name)),
            Kind::ClusterInformation => {
                if name == "default" {
                    self.cluster_information = None;
                }
            }
            Kind::FelixConfiguration => drop(self.felix_configurations.remove(name)),
        }
    }

    fn withdraw_affinity(&mut self, name: &str) {
        let Some(node) = self.affinity_nodes.remove(name) else { return };
        if let Some(of_node) = self.affinities.get_mut(&node) {
            of_node.remove(name);
            if of_node.is_empty() {
                self.affinities.remove(&node);
            }
        }
    }

    /// Updates the merged node and the address index.
    fn merge_node(&mut self, name: &str) {
        let merged = match (self.calico_nodes.get(name), self.kubernetes_nodes.get(name)) {
            (Some(calico), Some(kubernetes)) => Some(Arc::new(calico.merged_with(kubernetes))),
            (Some(only), None) | (None, Some(only)) => Some(Arc::clone(only)),
            (None, None) => None,
        };
        if let Some(old) = self.nodes.remove(name) {
            for host in [&old.ipv4, &old.ipv6].into_iter().flatten() {
                if let Some(names) = self.by_address.get_mut(&host.text) {
                    names.remove(name);
                    if names.is_empty() {
                        self.by_address.remove(&host.text);
                    }
                }
            }
        }
        if let Some(node) = merged {
            for host in [&node.ipv4, &node.ipv6].into_iter().flatten() {
                let names = self.by_address.entry(host.text.clone()).or_default();
                names.insert(Arc::clone(&node.name));
            }
            self.nodes.insert(Arc::clone(&node.name), node);
        }
    }

    /// Whether the object is stored in exactly this state, so that applying it would change
    /// nothing.
    pub(super) fn holds(&self, decoded: &Decoded) -> bool {
        fn same<K: Ord + ?Sized, Q: Ord + std::borrow::Borrow<K>, T: PartialEq>(
            map: &BTreeMap<Q, Arc<T>>,
            key: &K,
            object: &T,
        ) -> bool {
            map.get(key).is_some_and(|known| **known == *object)
        }
        let id = &decoded.id;
        let unreadable = self.unreadable.get(id);
        let object = match &decoded.object {
            Ok(Some(object)) if unreadable.is_none() => object,
            Ok(_) => return false,
            Err(fault) => return unreadable.is_some_and(|known| *known == fault.to_string()),
        };
        let name = id.name.as_str();
        let place = || (id.namespace.clone(), id.name.clone());
        match object {
            Object::Node(node) => match id.kind {
                Kind::KubernetesNode => same(&self.kubernetes_nodes, name, node),
                _ => same(&self.calico_nodes, name, node),
            },
            Object::BgpConfiguration(object) => same(&self.configurations, name, object),
            Object::BgpPeer(object) => same(&self.peers, name, object),
            Object::BgpFilter(object) => same(&self.filters, name, object),
            Object::IpPool(object) => same(&self.pools, name, object),
            Object::BlockAffinity(object) => {
                let of_node = self.affinities.get(&object.node);
                of_node.is_some_and(|of_node| same(of_node, name, object))
            }
            Object::Secret(object) => same(&self.secrets, &place(), object),
            Object::Service(object) => same(&self.services, &place(), object),
            Object::EndpointSlice(object) => same(&self.slices, &place(), object),
            Object::LocalEndpoint(object) => same(&self.endpoints, name, object),
            Object::ClusterInformation(object) => {
                name != "default" || self.cluster_information.as_ref() == Some(object)
            }
            Object::FelixConfiguration(object) => same(&self.felix_configurations, name, object),
        }
    }

    /// An object in the state in use; not for Secrets, see [`Snapshot::session_keys`].
    pub fn get(&self, id: &ObjectId) -> Option<Object> {
        let name = id.name.as_str();
        let place = || (id.namespace.clone(), id.name.clone());
        Some(match id.kind {
            Kind::Node => Object::Node(Arc::clone(self.calico_nodes.get(name)?)),
            Kind::KubernetesNode => Object::Node(Arc::clone(self.kubernetes_nodes.get(name)?)),
            Kind::BgpConfiguration => {
                Object::BgpConfiguration(Arc::clone(self.configurations.get(name)?))
            }
            Kind::BgpPeer => Object::BgpPeer(Arc::clone(self.peers.get(name)?)),
            Kind::BgpFilter => Object::BgpFilter(Arc::clone(self.filters.get(name)?)),
            Kind::IpPool => Object::IpPool(Arc::clone(self.pools.get(name)?)),
            Kind::BlockAffinity => {
                let of_node = self.affinities.get(self.affinity_nodes.get(name)?)?;
                Object::BlockAffinity(Arc::clone(of_node.get(name)?))
            }
            Kind::Secret => return None,
            Kind::Service => Object::Service(Arc::clone(self.services.get(&place())?)),
            Kind::EndpointSlice => Object::EndpointSlice(Arc::clone(self.slices.get(&place())?)),
            Kind::LocalEndpoint => Object::LocalEndpoint(Arc::clone(self.endpoints.get(name)?)),
            Kind::ClusterInformation => {
                let information = self.cluster_information.as_ref().filter(|_| name == "default");
                Object::ClusterInformation(Arc::clone(information?))
            }
            Kind::FelixConfiguration => {
                Object::FelixConfiguration(Arc::clone(self.felix_configurations.get(name)?))
            }
        })
    }

    /// Whether there is a usable state of the object. A Secret's keys outlive it and count as such.
    pub(super) fn knows(&self, id: &ObjectId) -> bool {
        match id.kind {
            Kind::Secret => self.last_keys.contains_key(&(id.namespace.clone(), id.name.clone())),
            _ => self.get(id).is_some(),
        }
    }

    /// The last usable value of each key to which a BGPPeer or the mesh refers, as Secrets.
    pub fn session_keys(&self) -> Vec<(ObjectId, Object)> {
        let of_peers = self.peers.values().filter_map(|peer| peer.password.as_ref());
        let of_mesh = self.configurations.values().filter_map(|c| c.node_mesh_password.as_ref());
        let wanted: BTreeSet<(&str, &str)> =
            of_peers.chain(of_mesh).map(|r| (r.name.as_str(), r.key.as_str())).collect();
        let mut secrets = Vec::new();
        for ((namespace, name), keys) in &self.last_keys {
            let is_wanted = |key: &str| wanted.contains(&(name.as_str(), key));
            let keys = keys.iter().filter(|(key, _)| is_wanted(key));
            let secret: Secret = keys.map(|(k, v)| (k.clone(), v.octets().to_vec())).collect();
            if secret.iter().next().is_some() {
                let id = ObjectId {
                    kind: Kind::Secret,
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                secrets.push((id, Object::Secret(Arc::new(secret))));
            }
        }
        secrets
    }

    /// Stores the keys of a Secret that an earlier run knew; it may have been deleted since.
    pub(super) fn remember_keys(&mut self, id: &ObjectId, secret: &Secret) {
        let usable = secret.iter().filter_map(|(k, v)| Some((k.clone(), AuthKey::new(v.clone())?)));
        let place = (id.namespace.clone(), id.name.clone());
        self.last_keys.entry(place).or_default().extend(usable);
    }

    /// The last usable value of a key of a Secret, by namespace and name; the Secret may have been
    /// deleted.
    pub(super) fn last_key(&self, place: &(String, String), key: &str) -> Option<&AuthKey> {
        self.last_keys.get(place)?.get(key)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// Nodes with an address of exactly this text, sorted by name.
    pub(super) fn nodes_at<'a>(
        &'a self,
        text: &str,
    ) -> impl Iterator<Item = &'a Arc<Node>> + use<'a> {
        let names = self.by_address.get(text);
        names.into_iter().flatten().filter_map(|name| self.nodes.get(name))
    }

    /// Whether a node has the address.
    pub fn has_node_at(&self, addr: IpAddr) -> bool {
        self.by_address.contains_key(addr.to_string().as_str())
    }

    /// Affinities of a node.
    pub(super) fn affinities_of(&self, node: &str) -> impl Iterator<Item = &Arc<BlockAffinity>> {
        self.affinities.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// The names of all nodes, sorted.
    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.keys()
    }

    /// The number of affinities of blocks, of all nodes.
    pub fn affinity_count(&self) -> usize {
        self.affinity_nodes.len()
    }

    /// Whether the full mesh of nodes is on. Default true.
    pub fn has_mesh(&self) -> bool {
        let default = self.configurations.get("default");
        default.and_then(|default| default.node_to_node_mesh_enabled) != Some(false)
    }

    /// Objects whose newest state cannot be read, and why.
    pub fn unreadable(&self) -> &BTreeMap<ObjectId, String> {
        &self.unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calico::model::{decode, decode_etcd};
    use serde_json::json;

    fn node(name: &str, address: &str) -> Decoded {
        decode(json!({
            "kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
            "spec": {"bgp": {"ipv4Address": address}},
        }))
        .unwrap()
        .unwrap()
    }

    #[test]
    fn an_unreadable_object_keeps_its_previous_state_and_is_named() {
        let mut snapshot = Snapshot::default();
        snapshot.apply(node("a", "10.0.0.1/24"));
        snapshot.apply(node("a", "10.0.0.1.9"));
        assert_eq!(&*snapshot.node("a").unwrap().ipv4.as_ref().unwrap().text, "10.0.0.1");
        assert_eq!(snapshot.unreadable().len(), 1);
        snapshot.apply(node("a", "10.0.0.2/24"));
        assert!(snapshot.unreadable().is_empty());
        assert_eq!(snapshot.nodes_at("10.0.0.1").count(), 0, "the old address is forgotten");
        assert_eq!(snapshot.nodes_at("10.0.0.2").count(), 1);
    }

    #[test]
    fn withdrawing_leaves_nothing_behind() {
        let mut snapshot = Snapshot::default();
        let id = node("a", "").id;
        snapshot.apply(node("a", "10.0.0.1/24"));
        snapshot.apply(node("b", "10.0.0.1/24"));
        snapshot.apply(node("a", "x"));
        snapshot.withdraw(&id);
        let left: Vec<_> = snapshot.nodes_at("10.0.0.1").map(|n| &*n.name).collect();
        assert_eq!(left, ["b"]);
        assert!(snapshot.unreadable().is_empty() && snapshot.node("a").is_none());

        let key = "/calico/ipam/v2/host/a/ipv4/block/10.65.1.0-26";
        snapshot.apply(decode_etcd(key, b"").unwrap());
        assert_eq!(snapshot.affinities_of("a").count(), 1);
        let block = decode_etcd(key, br#"{"deleted":true}"#).unwrap();
        let id = block.id.clone();
        snapshot.apply(block);
        assert_eq!(snapshot.affinities_of("a").count(), 1, "until the key is gone");
        snapshot.withdraw(&id);
        assert_eq!(snapshot.affinities_of("a").count(), 0);
        assert!(snapshot.affinities.is_empty() && snapshot.affinity_nodes.is_empty());
    }
}
