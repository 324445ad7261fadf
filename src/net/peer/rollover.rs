//! The keys of TCP-AO on a peer's connections, which change with their lifetimes.

use std::os::fd::AsFd;
use std::time::Duration;

use bgp_proto::session::ChainKey;
use bgp_proto::types::{Prefix, off_interface};
use tracing::{info, warn};

use super::PeerTask;
use crate::event_names::{KEY_ASKED, KEY_CHANGED, KEY_REFUSED};
use crate::net::key_chains::{self, Review, unix_now};

/// When to look again whether the neighbour has changed keys.
const AGAIN: Duration = Duration::from_secs(10);
/// The longest wait for the next lifetime: the wall clock may be set meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl PeerTask {
    /// Brings every connection to the keys that its chain has now. A fault is logged when it changes: the
    /// session goes on with the keys that it has.
    pub(super) fn review_keys(&mut self) {
        self.keys_due = None;
        let config = self.session.config();
        let Some(chain) = &config.security.ao else { return };
        let (now, peer) = (unix_now(), Prefix::host(off_interface(config.address).0));
        let (mut is_settled, mut fault) = (true, None);
        let name = chain.name();
        for conn in self.conns.iter_mut().flatten() {
            let asked = |key: &ChainKey| {
                let id = key.receive_id;
                info!(event = KEY_ASKED, peer = %self.name, "TCP-AO: asking for key {id} of chain \"{name}\"");
            };
            match key_chains::review(conn.stream.as_fd(), peer, chain, now, asked) {
                Ok(Review { is_settled: is_done, signed_with }) => {
                    is_settled &= is_done;
                    let before = std::mem::replace(&mut conn.signed_with, signed_with);
                    if let Some((_, id)) = before.zip(signed_with).filter(|(old, id)| old != id) {
                        info!(event = KEY_CHANGED, peer = %self.name, "TCP-AO: signing with key {id} of chain \"{name}\"");
                    }
                }
                Err(error) => {
                    is_settled = false;
                    fault = Some(key_chains::explain(&error, chain, chain.keys().len()));
                }
            }
        }
        let next = chain.next_change(now).map(|at| Duration::from_secs(at - now).min(WAIT_MAX));
        // The neighbour may ask for any of them, at any time.
        let has_choice = (0..chain.keys().len()).filter(|at| chain.is_live(*at, now)).count() > 1;
        let next = if has_choice { Some(next.unwrap_or(WAIT_MAX)) } else { next };
        let wait = if is_settled { next } else { Some(next.unwrap_or(AGAIN).min(AGAIN)) };
        if self.conns.iter().any(Option::is_some) {
            self.keys_due = wait.map(|wait| self.now() + wait);
        }
        if let Some(text) = fault.as_ref().filter(|_| fault != self.keys_fault) {
            warn!(event = KEY_REFUSED, peer = %self.name, reason = %text, "keys are unchanged: {text}");
        }
        self.keys_fault = fault;
    }
}
