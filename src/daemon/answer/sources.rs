//! The sources of every view: the table, the kernel, the registry and the published state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bgp_proto::table::{PathView, PeerCounts, Table};
use bgp_proto::types::{PeerId, Prefix, Source, Time};

use super::state::{Published, RunState};
use crate::ctl::{Names, Refusal};
use crate::daemon::redistribution::Redistribution;
use crate::daemon::registry::Registry;
use crate::engine::Handle;
use crate::kernel::{Fib, LearnedRoute};

/// Most destinations, kernel routes or peers on one page.
pub(super) const PAGE: usize = 500;

/// The owners of the state that is shown. Each query to one is short, and nothing is held between
/// pages. Clones query the same owners.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) table: Handle,
    pub(super) kernel: Fib,
    pub(super) redistribution: Redistribution,
    pub(super) registry: Registry,
    pub(super) published: Published,
    /// When the process started.
    pub(super) started: Time,
}

impl Sources {
    /// The published state of the daemon.
    pub(super) fn state(&self) -> Arc<RunState> {
        self.published.get()
    }

    pub(super) fn now(&self) -> Time {
        self.table.clock().now()
    }

    pub(super) fn wall(&self, at: Time) -> SystemTime {
        self.table.clock().wall(at)
    }

    /// Runs a query on the table's thread.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Table, Time) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.table.ask(question).await.ok_or_else(is_stopping)
    }

    /// Prefix counters of many peers at once.
    pub(super) async fn counts(&self, peers: Vec<PeerId>) -> Option<Vec<PeerCounts>> {
        self.table.ask(move |table, _| peers.iter().map(|peer| table.counts(*peer)).collect()).await
    }

    /// The kernel route from which a local route was redistributed.
    pub(super) fn learned(&self, prefix: Prefix, source: Source) -> Option<LearnedRoute> {
        match source {
            Source::Kernel | Source::Direct => {
                self.redistribution.get(prefix, source == Source::Direct)
            }
            Source::Bgp | Source::Static => None,
        }
    }

    pub(super) fn names(&self) -> NameTables {
        let links = self.kernel.links();
        NameTables {
            peers: self.registry.clone(),
            links: links.iter().map(|link| (link.index, link.name.clone())).collect(),
        }
    }
}

/// The answer if a part has ended already.
pub(super) fn is_stopping() -> Refusal {
    Refusal::failed("the daemon is stopping")
}

/// Whether a path is shown as part of the table. Paths that import rejected are not; BIRD would not
/// have them either.
pub(super) fn is_in_table(path: &PathView) -> bool {
    path.unusable.is_none_or(|why| !why.is_refusal())
}

pub(super) struct NameTables {
    peers: Registry,
    links: BTreeMap<u32, String>,
}

impl Names for NameTables {
    fn peer(&self, peer: PeerId) -> Option<String> {
        self.peers.get(peer).map(|record| record.name.to_string())
    }

    fn interface(&self, index: u32) -> Option<String> {
        self.links.get(&index).cloned()
    }
}
