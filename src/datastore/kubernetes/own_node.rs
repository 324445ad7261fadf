//! The own Node after it was deleted and registered again by kubelet.
//!
//! The new object has none of Calico's annotations until calico-node writes them again, which has
//! been seen to take seven minutes (projectcalico/calico#13848). Differs from BIRD: the BGP
//! settings of the old object are kept for ten minutes, provided that its address is one of this
//! machine.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::calico::Problem;
use crate::calico::model::{ApiObject, Node, Object};

/// How long the old annotations are kept.
const KEPT: Duration = Duration::from_secs(600);

/// The own Node.
#[derive(Debug, Default)]
pub(super) struct OwnNode {
    /// The last object with an address.
    last: Option<Arc<Node>>,
    /// When the object on the server lost an address, and that object.
    bare: Option<(Instant, ApiObject)>,
}

impl OwnNode {
    /// The object to use, with the annotations that are kept. `is_local` returns whether an
    /// address is one of this machine.
    pub(super) fn apply(
        &mut self,
        object: ApiObject,
        now: Instant,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> ApiObject {
        let Ok(Some(Object::Node(node))) = &object.decoded.object else { return object };
        let Some(last) = &self.last else {
            self.note(node);
            return object;
        };
        let lost = lost_addresses(last, node);
        if lost.is_empty() || !lost.into_iter().all(is_local) {
            self.note(node);
            return object;
        }
        let since = self.bare.as_ref().map_or(now, |(since, _)| *since);
        if now.duration_since(since) >= KEPT {
            self.note(node);
            return object;
        }
        let kept = kept(node, last);
        self.bare = Some((since, object.clone()));
        let mut object = object;
        object.decoded.object = Ok(Some(Object::Node(Arc::new(kept))));
        object
    }

    fn note(&mut self, node: &Arc<Node>) {
        self.bare = None;
        let has_address = node.ipv4.is_some() || node.ipv6.is_some();
        self.last = has_address.then(|| Arc::clone(node));
    }

    /// When the old annotations expire, if any are kept.
    pub(super) fn due(&self) -> Option<Instant> {
        self.bare.as_ref().map(|(since, _)| *since + KEPT)
    }

    /// Forgets the old annotations; returns the object as the server has it. To be called when
    /// [`OwnNode::due`] has passed.
    pub(super) fn give_up(&mut self) -> Option<ApiObject> {
        let (_, object) = self.bare.take()?;
        self.last = None;
        Some(object)
    }

    /// The problem to report while old annotations are kept.
    pub(super) fn problem(&self) -> Option<Problem> {
        let (_, object) = self.bare.as_ref()?;
        let text = format!(
            "the Node has lost its projectcalico.org address annotations: the last ones hold for {} \
             min; calico-node writes them again, or restart it",
            KEPT.as_secs() / 60
        );
        Some(Problem::new(format!("Node/{}", object.decoded.id.name), text))
    }
}

/// The addresses of `last` in families for which `node` has no address.
fn lost_addresses(last: &Node, node: &Node) -> Vec<IpAddr> {
    [(&last.ipv4, &node.ipv4), (&last.ipv6, &node.ipv6)]
        .into_iter()
        .filter(|(_, now)| now.is_none())
        .filter_map(|(before, _)| before.as_ref().map(|host| host.addr))
        .collect()
}

/// The node, with BGP settings that it lacks taken from `last`.
fn kept(node: &Node, last: &Node) -> Node {
    let cluster_id = if node.cluster_id.is_empty() { &last.cluster_id } else { &node.cluster_id };
    Node {
        asn: node.asn.or(last.asn),
        ipv4: node.ipv4.clone().or_else(|| last.ipv4.clone()),
        ipv6: node.ipv6.clone().or_else(|| last.ipv6.clone()),
        cluster_id: Arc::clone(cluster_id),
        wireguard_ipv4: node.wireguard_ipv4 || last.wireguard_ipv4,
        wireguard_ipv6: node.wireguard_ipv6 || last.wireguard_ipv6,
        wireguard_pod_cidr: node.wireguard_pod_cidr || last.wireguard_pod_cidr,
        ..node.clone()
    }
}

/// Whether an address is one of this machine: it can be bound.
pub(super) fn is_local(addr: IpAddr) -> bool {
    UdpSocket::bind((addr, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calico::model::decode_api_node;

    fn node(annotations: &str) -> ApiObject {
        let json = format!(
            r#"{{"metadata":{{"name":"me","resourceVersion":"1","annotations":{{{annotations}}}}}}}"#
        );
        decode_api_node(json.as_bytes()).unwrap()
    }

    fn full() -> ApiObject {
        node(
            r#""projectcalico.org/IPv4Address":"10.0.0.1/24","projectcalico.org/ASNumber":"64513",
               "projectcalico.org/RouteReflectorClusterID":"244.0.0.1""#,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_registered_again_keeps_its_address_for_ten_minutes() {
        let mut own = OwnNode::default();
        let now = Instant::now();
        assert_eq!(own.apply(node(""), now, |_| true), node(""), "it never had one");
        assert_eq!(own.apply(full(), now, |_| true), full());
        assert_eq!(own.apply(node(""), now, |_| true).decoded, full().decoded);
        assert!(own.problem().unwrap().text.contains("10 min"));
        assert_eq!(own.due(), Some(now + KEPT));
        let later = now + KEPT / 2;
        assert_eq!(own.apply(node(""), later, |_| true).decoded, full().decoded);
        assert_eq!(own.due(), Some(now + KEPT), "the time runs from the first");
        assert_eq!(own.give_up(), Some(node("")));
        assert_eq!((own.due(), own.problem()), (None, None));
        assert_eq!(own.apply(node(""), later, |_| true), node(""));
    }

    #[tokio::test(start_paused = true)]
    async fn returning_annotations_end_the_wait_and_a_foreign_address_is_not_kept() {
        let mut own = OwnNode::default();
        let now = Instant::now();
        own.apply(full(), now, |_| true);
        own.apply(node(""), now, |_| true);
        assert_eq!(own.apply(full(), now, |_| true), full());
        assert_eq!(own.due(), None);
        assert_eq!(own.apply(node(""), now, |_| false), node(""));
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
    }
}
