//! Which peers' messages are logged, by name: also a peer that is replaced meanwhile, as by a reload
//! that changes its session. Held in memory only, so that a restart of the daemon ends it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bgp_proto::types::Time;

use crate::net::DebugSwitch;

/// Most peers at a time: their lines together must not fill the log.
pub(in crate::daemon) const DEBUGGED_MAX: usize = 16;

/// The peers that are debugged. Clones share them.
#[derive(Clone, Default)]
pub(in crate::daemon) struct Debugs(Arc<Mutex<BTreeMap<Arc<str>, DebugSwitch>>>);

impl Debugs {
    /// The switch for a peer that is being added.
    pub(in crate::daemon) fn switch(&self, name: &str) -> DebugSwitch {
        self.lock().get(name).cloned().unwrap_or_default()
    }

    /// Logs the messages of these peers until a time.
    ///
    /// # Errors
    /// With those that are debugged already, there are more than [`DEBUGGED_MAX`].
    pub(in crate::daemon) fn begin(
        &self,
        peers: &[(Arc<str>, DebugSwitch)],
        now: Time,
        until: Time,
    ) -> Result<(), String> {
        let mut debugged = self.lock();
        debugged.retain(|_, switch| switch.until(now).is_some());
        let added = peers.iter().filter(|(name, _)| !debugged.contains_key(name)).count();
        if debugged.len() + added > DEBUGGED_MAX {
            return Err(format!(
                "at most {DEBUGGED_MAX} peers can be debugged at a time, and {} are: end those with \
                 margay debug --off",
                debugged.len()
            ));
        }
        for (name, switch) in peers {
            switch.set(until);
            debugged.insert(Arc::clone(name), switch.clone());
        }
        Ok(())
    }

    /// Ends it for a peer.
    pub(in crate::daemon) fn end(&self, name: &str, switch: &DebugSwitch) {
        switch.clear();
        if let Some(kept) = self.lock().remove(name) {
            kept.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, DebugSwitch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_replaced_stays_debugged_and_the_number_of_peers_is_bounded() {
        let at = Time::from_micros;
        let debugs = Debugs::default();
        let peers: Vec<(Arc<str>, DebugSwitch)> =
            (0..=DEBUGGED_MAX).map(|n| (n.to_string().into(), DebugSwitch::default())).collect();
        debugs.begin(&peers[1..], at(1), at(10)).unwrap();
        assert_eq!(debugs.switch("1").until(at(9)), Some(at(10)), "its successor has it too");
        assert!(debugs.switch("0").until(at(9)).is_none());
        assert!(debugs.begin(&peers[..1], at(9), at(20)).unwrap_err().starts_with("at most 16"));
        debugs.begin(&peers[1..2], at(9), at(20)).unwrap();
        debugs.end("2", &peers[2].1);
        assert!(peers[2].1.until(at(9)).is_none() && debugs.switch("2").until(at(9)).is_none());
        debugs.begin(&peers[..1], at(9), at(20)).unwrap();
        // The others have ended by themselves.
        debugs.begin(&peers[3..], at(10), at(30)).unwrap();
    }
}
