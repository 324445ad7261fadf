//! Replaces the connection in a build without the feature `etcd`, which does not need `protoc`.

use std::convert::Infallible;

use super::config::EtcdConfig;
use super::store::{Answer, Connect, Error, Message, Page, Range, Store};

/// A connector that always fails.
pub(super) struct Connector<'a> {
    #[expect(dead_code, reason = "the real one reads it")]
    pub(super) config: &'a EtcdConfig,
}

impl Connect for Connector<'_> {
    type Store = Infallible;

    async fn connect(&mut self, _: &str) -> Result<Infallible, Error> {
        let text = "this margay was built without the feature \"etcd\": build it with that feature, \
                    or name another datastore";
        Err(Error::Failed(text.to_owned()))
    }
}

impl Store for Infallible {
    async fn get(&mut self, _: &Page) -> Result<Answer, Error> {
        match *self {}
    }

    async fn watch(&mut self, _: &[Range], _: i64) -> Result<(), Error> {
        match *self {}
    }

    async fn request_progress(&mut self) -> Result<(), Error> {
        match *self {}
    }

    async fn message(&mut self) -> Result<Message, Error> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::datastore::etcd::follow;
    use crate::datastore::{Blocks, Event, State, outbox};

    #[tokio::test]
    async fn an_etcd_source_reports_the_missing_feature() {
        let env = BTreeMap::from([("ETCD_ENDPOINTS".into(), "http://127.0.0.1:2379".into())]);
        let config = EtcdConfig::from_env(&env, Blocks::PodCidrs).unwrap();
        let (sender, mut receiver) = outbox();
        let following = tokio::spawn(async move {
            follow::follow(&config, Connector { config: &config }, || 0, &sender).await;
        });
        let Some(Event::State(State::Away { reason, .. })) = receiver.recv().await else {
            panic!("the first event is not that it is unavailable");
        };
        assert!(reason.contains("without the feature \"etcd\""), "{reason}");
        drop(receiver);
        following.await.unwrap();
    }
}
