//! Which block affinities are asked for: those that Calico labelled with the own node, or all, where
//! it did not label them (before v3.31) or the node has none yet. Each list decides again.

use super::label::{HOSTNAME_HASH, hostname_hash};
use super::resource::Place;
use crate::calico::model::{Decoded, Object};

/// How the affinities of the own node are found.
#[derive(Debug)]
pub(super) struct Affinities {
    node: String,
    /// All of them.
    pub(super) whole: Place,
    /// Those that have the label of the own node.
    pub(super) labelled: Place,
    /// Those without any label.
    pub(super) unlabelled: Place,
    pub(super) labels: Labels,
}

/// Whether the labels are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// It is asked at each list.
    Asked,
    /// The server does not select by them.
    Unusable,
}

impl Affinities {
    pub(super) fn new(place: &Place, node: &str) -> Self {
        Affinities {
            node: node.to_owned(),
            whole: place.clone(),
            labelled: place.with_labels(&format!("{HOSTNAME_HASH}={}", hostname_hash(node))),
            unlabelled: place.with_labels(&format!("!{HOSTNAME_HASH}")),
            labels: Labels::Asked,
        }
    }

    /// The server refused the selectors.
    pub(super) fn use_no_labels(&mut self) {
        self.labels = Labels::Unusable;
    }

    /// Whether an affinity is the own node's. One that cannot be read is, if it is named like one.
    pub(super) fn concerns(&self, decoded: &Decoded) -> bool {
        match &decoded.object {
            Ok(Some(Object::BlockAffinity(affinity))) => affinity.node == self.node,
            // Deleted, or not a host's: as if it were not there.
            Ok(_) => true,
            Err(_) => {
                let rest = decoded.id.name.strip_prefix(self.node.as_str());
                rest.is_some_and(|rest| rest.starts_with('-'))
            }
        }
    }
}
