//! Asking etcd whether it still has the past that was known ([`super::past`]).

use super::api::Dial;
use super::failure::Failure;
use super::kind::Follow;
use super::known::is_older;
use super::list;
use super::past::Past;
use super::resource::Resource;

impl<D: Dial> Follow<'_, D> {
    /// Asks etcd for the object of the last event. A server whose etcd does not answer would go on
    /// from memory, and a watch be silent.
    pub(super) async fn probe(&mut self) -> Result<Past, Failure> {
        self.is_in_doubt = true;
        let past = self.ask_etcd().await?;
        self.is_in_doubt = false;
        Ok(past)
    }

    async fn ask_etcd(&mut self) -> Result<Past, Failure> {
        let name = match &self.resource {
            Resource::Secret(name) => name.clone(),
            _ => self.anchor.name().unwrap_or_else(|| self.node.clone()),
        };
        let mut found: Option<Vec<u8>> = None;
        let request = self.place.probe(&name);
        let page = list::page(self.api, &request, |item| found = Some(item.to_vec()));
        let page = page.await?;
        self.hub.heard(None);
        if is_older(&page.version, self.version.as_deref().unwrap_or_default()) {
            return Ok(Past::Differs);
        }
        Ok(self.anchor.compare(found.as_deref()))
    }
}
