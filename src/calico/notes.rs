//! What objects ask for without effect: filters and nodes that do not exist, selectors that select
//! nothing, fields that Calico does not have, peers that are the node itself.
//!
//! None of these is an error, but most are typos. A selector is not evaluated on all nodes whenever
//! a Node changes: one node that it selects is remembered, and another is searched for only when
//! that node no longer matches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::effective::{Effective, NodeFinder};
use super::model::{BgpPeer, Node, NodeSelector};
use super::peers;
use super::plan::Problem;
use crate::config::closest;

/// Notes about objects, kept from plan to plan.
#[derive(Debug, Default)]
pub(super) struct Notes {
    peers: BTreeMap<Arc<str>, PeerNotes>,
    /// About nodes; only nodes with notes have an entry.
    nodes: BTreeMap<Arc<str>, Vec<Problem>>,
    /// About objects of other kinds.
    others: Vec<Problem>,
}

#[derive(Debug, Default)]
struct PeerNotes {
    /// What does not depend on which nodes a selector selects.
    fixed: Vec<Problem>,
    selectors: [Selected; 2],
}

/// Whether a selector of a BGPPeer selects any node.
#[derive(Debug, Default)]
enum Selected {
    /// It is not set, or cannot be parsed, which is reported as a problem.
    #[default]
    NotEvaluated,
    /// It selects this node, perhaps among others.
    One(Arc<str>),
    /// It selects none.
    Nothing(Problem),
}

/// The selectors of a BGPPeer with their fields.
fn selectors(peer: &BgpPeer) -> [(&'static str, &NodeSelector); 2] {
    [("nodeSelector", &peer.node_selector), ("peerSelector", &peer.peer_selector)]
}

impl Notes {
    /// Updates the notes after a change of everything, or of some nodes and BGPPeers.
    pub(super) fn update(
        &mut self,
        cx: &Effective<'_>,
        finder: &mut NodeFinder<'_>,
        everything: bool,
        nodes: &BTreeMap<String, Option<Arc<Node>>>,
        peers: &BTreeSet<String>,
    ) {
        if everything {
            self.peers.clear();
            for peer in cx.snapshot.peers.values() {
                self.peers.insert(Arc::clone(&peer.name), PeerNotes::new(cx, finder, peer));
            }
            self.nodes.clear();
            cx.snapshot.nodes.values().for_each(|node| self.put_node(node));
        } else {
            self.update_nodes(cx, finder, nodes);
            for name in nodes.keys() {
                self.nodes.remove(name.as_str());
                cx.snapshot.node(name).into_iter().for_each(|node| self.put_node(node));
            }
            for name in peers {
                match cx.snapshot.peers.get(name.as_str()) {
                    Some(peer) => {
                        self.peers.insert(Arc::clone(&peer.name), PeerNotes::new(cx, finder, peer));
                    }
                    None => drop(self.peers.remove(name.as_str())),
                }
            }
        }
        self.others = other_objects(cx);
    }

    fn put_node(&mut self, node: &Node) {
        if !node.unknown.is_empty() {
            let notes = unknown_fields(&format!("Node/{}", node.name), &node.unknown).collect();
            self.nodes.insert(Arc::clone(&node.name), notes);
        }
    }

    fn update_nodes(
        &mut self,
        cx: &Effective<'_>,
        finder: &mut NodeFinder<'_>,
        nodes: &BTreeMap<String, Option<Arc<Node>>>,
    ) {
        // Whether a node exists concerns the objects that name it; nodes are added and deleted
        // rarely.
        let moved =
            nodes.iter().any(|(name, old)| old.is_some() != cx.snapshot.node(name).is_some());
        for (name, known) in &mut self.peers {
            let Some(peer) = cx.snapshot.peers.get(&**name) else { continue };
            for ((field, selector), selected) in
                selectors(peer).into_iter().zip(&mut known.selectors)
            {
                selected.update((cx, finder), peer, (field, selector), nodes);
            }
            if moved {
                known.fixed = fixed(cx, peer);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Problem> {
        let of_peers = self.peers.values().flat_map(|known| {
            let selected = known.selectors.iter().filter_map(|selected| match selected {
                Selected::Nothing(note) => Some(note),
                Selected::NotEvaluated | Selected::One(_) => None,
            });
            known.fixed.iter().chain(selected)
        });
        of_peers.chain(self.nodes.values().flatten()).chain(&self.others)
    }
}

impl PeerNotes {
    fn new(cx: &Effective<'_>, finder: &mut NodeFinder<'_>, peer: &BgpPeer) -> Self {
        let selectors = selectors(peer).map(|(field, selector)| {
            let find = |selector: &NodeSelector| finder.any_selected(selector);
            Selected::by(find, peer, field, selector)
        });
        PeerNotes { fixed: fixed(cx, peer), selectors }
    }
}

impl Selected {
    fn by<'a>(
        find: impl FnOnce(&NodeSelector) -> Option<&'a Arc<Node>>,
        peer: &BgpPeer,
        field: &str,
        selector: &NodeSelector,
    ) -> Self {
        // Local workloads are not nodes.
        if !selector.is_given()
            || selector.parsed.is_err()
            || !peer.local_workload_selector.is_empty()
        {
            return Selected::NotEvaluated;
        }
        match find(selector) {
            Some(node) => Selected::One(Arc::clone(&node.name)),
            None => {
                let text = format!("{field} \"{}\" selects no node", selector.text);
                Selected::Nothing(Problem::new(format!("BGPPeer/{}", peer.name), text))
            }
        }
    }

    /// Updates the result after some nodes changed.
    fn update(
        &mut self,
        (cx, finder): (&Effective<'_>, &mut NodeFinder<'_>),
        peer: &BgpPeer,
        (field, selector): (&str, &NodeSelector),
        nodes: &BTreeMap<String, Option<Arc<Node>>>,
    ) {
        let selected =
            |name: &str| cx.snapshot.node(name).filter(|node| selector.selects(&node.labels));
        match self {
            Selected::NotEvaluated => {}
            Selected::One(name) if !nodes.contains_key(&**name) || selected(name).is_some() => {}
            Selected::One(_) => {
                *self = Selected::by(|s| finder.any_selected(s), peer, field, selector);
            }
            Selected::Nothing(_) => {
                let find = |_: &NodeSelector| nodes.keys().find_map(|name| selected(name));
                *self = Selected::by(find, peer, field, selector);
            }
        }
    }
}

/// Notes on what a BGPPeer names that does not exist.
fn fixed(cx: &Effective<'_>, peer: &BgpPeer) -> Vec<Problem> {
    let mut notes = Vec::new();
    let mut note = |text: String| notes.push(Problem::new(format!("BGPPeer/{}", peer.name), text));
    if !peer.node.is_empty() && cx.snapshot.node(&peer.node).is_none() {
        note(format!("node \"{}\" does not exist: no node has this peer", peer.node));
    }
    let filters = &cx.snapshot.filters;
    for name in peer.filters.iter().filter(|name| !filters.contains_key(*name)) {
        let known: Vec<&str> = filters.keys().map(String::as_str).collect();
        let near = match closest(name, &known) {
            Some(near) => format!("; did you mean \"{near}\"?"),
            None => String::new(),
        };
        note(format!("filter \"{name}\" does not exist: it filters nothing{near}"));
    }
    if peers::is_own_address(cx, peer) {
        note("peerIP is an address of this node, with which it has no session".to_owned());
    }
    notes.extend(unknown_fields(&format!("BGPPeer/{}", peer.name), &peer.unknown));
    notes
}

/// Notes on fields that Calico does not have, with the name that was probably meant.
fn unknown_fields<'a>(
    object: &'a str,
    fields: &'a [Box<str>],
) -> impl Iterator<Item = Problem> + 'a {
    fields.iter().map(move |text| Problem::new(object, &**text))
}

/// Notes on kinds with few objects: these are recomputed each time.
fn other_objects(cx: &Effective<'_>) -> Vec<Problem> {
    let mut notes = Vec::new();
    for (name, object) in &cx.snapshot.configurations {
        notes.extend(unknown_fields(&format!("BGPConfiguration/{name}"), &object.unknown));
        if let Some(node) = name.strip_prefix("node.")
            && cx.snapshot.node(node).is_none()
        {
            let text = format!("node \"{node}\" does not exist");
            notes.push(Problem::new(format!("BGPConfiguration/{name}"), text));
        }
    }
    for (name, object) in &cx.snapshot.filters {
        notes.extend(unknown_fields(&format!("BGPFilter/{name}"), &object.unknown));
    }
    for (name, object) in &cx.snapshot.pools {
        notes.extend(unknown_fields(&format!("IPPool/{name}"), &object.unknown));
    }
    notes
}
