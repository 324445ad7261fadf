//! The last events of each peer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::{Entry, PER_PEER_LAST};

/// Maximum memory of all of them, in octets: about 1,500 peers with ten events of usual length.
/// Beyond that, the peer whose last event is the oldest loses its events.
const OCTETS_MAX: usize = 4 << 20;

/// The last [`PER_PEER_LAST`] events of each peer.
#[derive(Default)]
pub(super) struct LastOfPeers {
    peers: HashMap<Box<str>, VecDeque<Arc<Entry>>>,
    /// Each peer by the number of its last event.
    by_age: BTreeMap<u64, Box<str>>,
    octets: usize,
}

impl LastOfPeers {
    pub(super) fn push(&mut self, peer: &str, entry: &Arc<Entry>) {
        let entries = self.peers.entry(peer.into()).or_default();
        if let Some(before) = entries.back() {
            self.by_age.remove(&before.number);
        }
        if entries.len() == PER_PEER_LAST
            && let Some(oldest) = entries.pop_front()
        {
            self.octets -= oldest.octets();
        }
        entries.push_back(Arc::clone(entry));
        self.octets += entry.octets();
        self.by_age.insert(entry.number, peer.into());
        while self.octets > OCTETS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            let removed = self.peers.remove(&oldest).unwrap_or_default();
            self.octets -= removed.iter().map(|entry| entry.octets()).sum::<usize>();
        }
    }

    /// Oldest first.
    pub(super) fn get(&self, peer: &str) -> Vec<Arc<Entry>> {
        self.peers.get(peer).into_iter().flatten().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.octets
    }
}
