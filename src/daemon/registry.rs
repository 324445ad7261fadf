//! Every peer that exists, for the daemon that changes them and the answers that list them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use bgp_proto::session::PeerConfig;
use bgp_proto::table::PeerRoutes;
use bgp_proto::types::PeerId;

use crate::net::{Lifetime, PeerHandle};

/// One peer.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) id: PeerId,
    pub(super) name: Arc<str>,
    pub(super) address: IpAddr,
    pub(super) session: Arc<PeerConfig>,
    pub(super) routes: Arc<PeerRoutes>,
    pub(super) lifetime: Lifetime,
    pub(super) handle: PeerHandle,
}

impl Record {
    /// Whether it came out of a range.
    pub(super) fn is_dynamic(&self) -> bool {
        self.lifetime == Lifetime::Dynamic
    }
}

/// All peers by index. Written by the daemon's loop only.
#[derive(Clone, Default)]
pub(super) struct Registry {
    records: Arc<RwLock<BTreeMap<PeerId, Arc<Record>>>>,
}

impl Registry {
    pub(super) fn insert(&self, record: Record) {
        self.write(|records| records.insert(record.id, Arc::new(record)));
    }

    pub(super) fn remove(&self, id: PeerId) -> Option<Arc<Record>> {
        self.write(|records| records.remove(&id))
    }

    pub(super) fn get(&self, id: PeerId) -> Option<Arc<Record>> {
        self.read(|records| records.get(&id).cloned())
    }

    /// By name, or by address.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Record>> {
        let address: Option<IpAddr> = name.parse().ok();
        self.read(|records| {
            records
                .values()
                .find(|record| &*record.name == name || Some(record.address) == address)
                .cloned()
        })
    }

    /// Everyone, by index.
    pub(super) fn all(&self) -> Vec<Arc<Record>> {
        self.read(|records| records.values().cloned().collect())
    }

    /// At most `limit` peers from `start` on, and where the next page begins.
    pub(super) fn page(&self, start: PeerId, limit: usize) -> (Vec<Arc<Record>>, Option<PeerId>) {
        self.read(|records| {
            let mut rest = records.range(start..);
            let page = rest.by_ref().take(limit).map(|(_, record)| Arc::clone(record)).collect();
            (page, rest.next().map(|(id, _)| *id))
        })
    }

    /// How many are like this.
    pub(super) fn count(&self, is_like: impl Fn(&Record) -> bool) -> usize {
        self.read(|records| records.values().filter(|record| is_like(record)).count())
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.read(BTreeMap::len)
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<PeerId, Arc<Record>>) -> T) -> T {
        look(&self.records.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<PeerId, Arc<Record>>) -> T) -> T {
        change(&mut self.records.write().unwrap_or_else(PoisonError::into_inner))
    }
}
