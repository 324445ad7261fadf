//! Asks etcd whether its history is still the known one ([`super::past`]).

use super::api::Dial;
use super::failure::Failure;
use super::kind::Follow;
use super::known::is_older;
use super::list;
use super::past::Past;
use super::resource::Resource;

impl<D: Dial> Follow<'_, D> {
    /// Requests the object of the last event, read from etcd: a server that has lost etcd would
    /// still answer from its watch cache, and its watches would stay silent.
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
