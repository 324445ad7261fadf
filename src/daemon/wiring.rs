//! The adapters between the table's thread and the kernel's.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bgp_proto::types::{FibRoute, Prefix};
use tokio::sync::{Notify, mpsc};

use crate::engine::{Event, Handle, Sink};
use crate::fib::{Fib, FibEvent};

use super::next_hops::NextHops;
use super::redistribution::Redistribution;

/// Takes the table's results to the kernel and to the daemon.
pub(super) struct Outputs {
    pub(super) fib: Fib,
    pub(super) next_hops: NextHops,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Sink for Outputs {
    fn fib(&mut self, changes: Vec<(Prefix, Option<FibRoute>)>) {
        self.fib.submit(changes);
    }

    fn track(&mut self, addr: IpAddr) {
        self.next_hops.track(addr, &self.fib);
    }

    fn untrack(&mut self, addr: IpAddr) {
        self.next_hops.untrack(addr, &self.fib);
    }

    fn event(&mut self, event: Event) {
        // An error means that the daemon is on its way out.
        let _ = self.events.send(event);
    }
}

/// Where the kernel's news go; the table's handle exists only after the kernel's thread.
pub(super) type LateHandle = Arc<OnceLock<Handle>>;

/// What the kernel's news concern besides the table itself.
pub(super) struct FibNews {
    pub(super) table: LateHandle,
    pub(super) routes: Redistribution,
    pub(super) next_hops: NextHops,
    /// Told when links or addresses changed.
    pub(super) links: Arc<Notify>,
}

impl FibNews {
    /// Takes the kernel's news to the table.
    pub(super) fn handle(&self, event: FibEvent) {
        let Some(table) = self.table.get() else { return };
        match event {
            FibEvent::NextHop { addr, state } => self.next_hops.handle_report(addr, state, table),
            FibEvent::Learned { route } => self.routes.handle_learned(route, table),
            FibEvent::Forgotten { prefix, connected } => {
                self.routes.handle_forgotten(prefix, connected, table);
            }
            FibEvent::LinksChanged | FibEvent::Synchronised => self.links.notify_one(),
        }
    }
}
