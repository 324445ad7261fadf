//! The adapters between the table's thread and the kernel's.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bgp_proto::rib;
use bgp_proto::types::{FibRoute, Prefix};
use tokio::sync::mpsc;

use crate::engine::{Event, Handle, Sink};
use crate::fib::{Fib, FibEvent, NextHopState};

use super::redistribution::Redistribution;

/// Takes the table's results to the kernel and to the daemon.
pub(super) struct Outputs {
    pub(super) fib: Fib,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Sink for Outputs {
    fn fib(&mut self, changes: Vec<(Prefix, Option<FibRoute>)>) {
        self.fib.submit(changes);
    }

    fn track(&mut self, addr: IpAddr) {
        self.fib.track(addr);
    }

    fn untrack(&mut self, addr: IpAddr) {
        self.fib.untrack(addr);
    }

    fn event(&mut self, event: Event) {
        // An error means that the daemon is on its way out.
        let _ = self.events.send(event);
    }
}

/// Where the kernel's news go; the table's handle exists only after the kernel's thread.
pub(super) type LateHandle = Arc<OnceLock<Handle>>;

/// Takes the kernel's news to the table.
pub(super) fn on_fib_event(handle: &LateHandle, routes: &Redistribution, event: FibEvent) {
    let Some(table) = handle.get() else { return };
    match event {
        FibEvent::NextHop { addr, state } => table.next_hop(addr, next_hop_state(state)),
        FibEvent::Learned { route } => routes.handle_learned(route, table),
        FibEvent::Forgotten { prefix, connected } => {
            routes.handle_forgotten(prefix, connected, table);
        }
        FibEvent::LinksChanged | FibEvent::Synchronised => {}
    }
}

fn next_hop_state(state: NextHopState) -> rib::NextHopState {
    match state {
        NextHopState::Unreachable => rib::NextHopState::Unreachable,
        NextHopState::Via { hops, metric, connected } => {
            rib::NextHopState::Via { hops, metric, connected }
        }
        NextHopState::Local => rib::NextHopState::Local,
    }
}
