//! The latest status of each peer's BFD session, for the views.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bgp_proto::types::PeerId;

use crate::bfd::Status;

/// The latest status of each peer's BFD session. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Statuses(Arc<RwLock<BTreeMap<PeerId, Status>>>);

impl Statuses {
    pub(super) fn get(&self, peer: PeerId) -> Option<Status> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&peer).copied()
    }

    /// Returns the previous status.
    pub(super) fn set(&self, peer: PeerId, status: Option<Status>) -> Option<Status> {
        let mut statuses = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => statuses.insert(peer, status),
            None => statuses.remove(&peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_proto::bfd::State as BfdState;
    use bgp_proto::types::Time;

    #[test]
    fn a_status_replaces_the_one_before() {
        let statuses = Statuses::default();
        let status = Status {
            state: BfdState::Up,
            since: Time::ZERO,
            failures: 0,
            last_down: None,
            control_plane_independent: false,
        };
        assert_eq!(statuses.set(PeerId(1), Some(status)), None);
        assert_eq!(statuses.get(PeerId(1)), Some(status));
        assert_eq!(statuses.set(PeerId(1), None), Some(status));
        assert_eq!(statuses.get(PeerId(1)), None);
    }
}
