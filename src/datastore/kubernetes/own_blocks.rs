//! Lists the affinities of the own node ([`super::affinities`]).

use super::affinities::Labels;
use super::api::Dial;
use super::failure::Failure;
use super::kind::Follow;
use super::known::Listing;
use super::list;
use super::resource::From;
use crate::calico::model::{Decoded, Kind, decode_api};

impl<D: Dial> Follow<'_, D> {
    /// Lists the affinities, and decides whether the watch selects by label.
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
            // While the node has no block, it is unknown whether its first one will have a label.
            if others == 0 && has_labels {
                self.place = labelled;
                return Ok(read);
            }
            // Nothing is counted as missed: watches told of less than what is listed now.
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
