//! Which block affinities are asked for: those that Calico labelled with the own node, or all, where
//! it did not label them (before v3.31) or the node has none yet. Each list decides anew.

use super::api::Dial;
use super::failure::Failure;
use super::kind::Follow;
use super::known::Listing;
use super::label::{HOSTNAME_HASH, hostname_hash};
use super::list;
use super::resource::{From, Place};
use crate::calico::model::{Decoded, Kind, Object, decode_api};

/// How the affinities of the own node are found.
#[derive(Debug)]
pub(super) struct Affinities {
    node: String,
    /// All of them.
    whole: Place,
    /// Those that have the label of the own node.
    labelled: Place,
    /// Those without any label.
    unlabelled: Place,
    labels: Labels,
}

/// Whether the labels are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Labels {
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

impl<D: Dial> Follow<'_, D> {
    /// Lists the affinities, and settles where they are watched.
    pub(super) async fn read_affinities(
        &mut self,
        from: &From,
        listing: &mut Listing,
    ) -> Result<list::Read, Failure> {
        let Some(affinities) = &self.affinities else {
            return self.read_into(&self.place.clone(), from, listing).await;
        };
        if affinities.labels == Labels::Asked {
            let (labelled, unlabelled) =
                (affinities.labelled.clone(), affinities.unlabelled.clone());
            let read = self.read_into(&labelled, from, listing).await?;
            let has_labels = listing.len() > 0;
            let mut others = 0;
            list::read(self.api, &unlabelled, from, |item| {
                let decoded = decode_api(Kind::BlockAffinity, item).map(|object| object.decoded);
                others += usize::from(decoded.is_ok_and(|d| self.is_own_block(&d)));
            })
            .await?;
            // A node without a block does not show yet whether its first one will have a label.
            if others == 0 && has_labels {
                self.place = labelled;
                return Ok(read);
            }
            *listing = Listing::default();
        }
        self.place = self.affinities.as_ref().map_or(self.place.clone(), |a| a.whole.clone());
        self.read_into(&self.place.clone(), from, listing).await
    }

    fn is_own_block(&self, decoded: &Decoded) -> bool {
        let is_block = matches!(decoded.object, Ok(Some(_)) | Err(_));
        is_block && self.affinities.as_ref().is_some_and(|own| own.concerns(decoded))
    }
}
