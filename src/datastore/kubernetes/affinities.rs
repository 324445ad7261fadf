//! Which block affinities are requested: those labelled with the own node, or all of them if Calico
//! does not label them (before v3.31) or the node has none yet. Every list decides anew.

use super::label::{HOSTNAME_HASH, hostname_hash};
use super::resource::Place;
use crate::calico::model::{Decoded, Object};

/// How to select the affinities of the own node.
#[derive(Debug)]
pub(super) struct Affinities {
    node: String,
    /// Selects all affinities.
    pub(super) whole: Place,
    /// Selects those with the label of the own node.
    pub(super) labelled: Place,
    /// Selects those without the label.
    pub(super) unlabelled: Place,
    pub(super) labels: Labels,
}

/// Whether the label may be used to select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// Each list finds out whether every affinity of the own node is labelled.
    Asked,
    /// The server refused the selectors.
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

    /// Selects without labels from here on, because the server refused the selectors.
    pub(super) fn use_no_labels(&mut self) {
        self.labels = Labels::Unusable;
    }

    /// Whether an affinity is the own node's. One that cannot be decoded counts as the own node's
    /// if its name begins with the node's name and a hyphen.
    pub(super) fn concerns(&self, decoded: &Decoded) -> bool {
        match &decoded.object {
            Ok(Some(Object::BlockAffinity(affinity))) => affinity.node == self.node,
            // Deleted, or not of a host: decoded as absent, which is harmless to keep.
            Ok(_) => true,
            Err(_) => {
                let rest = decoded.id.name.strip_prefix(self.node.as_str());
                rest.is_some_and(|rest| rest.starts_with('-'))
            }
        }
    }
}
