//! The sources of every view: the table, the kernel, the registry and the published state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bgp_proto::table::{Pace, PathView, PeerCounts, Table, Work};
use bgp_proto::types::{PeerId, Prefix, Source, Time};

use super::state::{Published, RunState};
use crate::ctl::{ErrorKind, Names, Refusal};
use crate::daemon::announcements::Announcements;
use crate::daemon::redistribution::Redistribution;
use crate::daemon::registry::{Record, Registry};
use crate::daemon::running::{Running, Shown};
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
    pub(super) vrfs: Running,
    pub(super) published: Published,
    pub(super) announcements: Announcements,
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

    /// The same of a VRF; `None`: these.
    ///
    /// # Errors
    /// There is no such VRF, or its device does not exist.
    pub(super) fn in_vrf(&self, vrf: Option<&str>) -> Result<Sources, Refusal> {
        let Some(name) = vrf else { return Ok(self.clone()) };
        let Some(Shown { table, kernel, redistribution, .. }) = self.vrfs.get(name) else {
            self.is_configured(name)?;
            let text = format!("VRF {name} does not exist at present: its routes begin with it");
            return Err(Refusal { kind: ErrorKind::NotFound, text });
        };
        Ok(Sources { table, kernel, redistribution, ..self.clone() })
    }

    /// # Errors
    /// There is no such VRF in the configuration.
    pub(super) fn is_configured(&self, vrf: &str) -> Result<(), Refusal> {
        let state = self.state();
        let known: Vec<&str> = state.config.vrfs.iter().map(|vrf| &*vrf.name).collect();
        let text = match known[..] {
            _ if known.contains(&vrf) => return Ok(()),
            [] => format!("no VRF {vrf} is configured, and no other"),
            _ => format!("no VRF {vrf} is configured; there are: {}", known.join(", ")),
        };
        Err(Refusal { kind: ErrorKind::NotFound, text })
    }

    /// The peer with a name or an address; see [`Registry::find`].
    ///
    /// # Errors
    /// There is none.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Record>, Refusal> {
        self.registry.find(name).ok_or_else(|| self.registry.not_found(name))
    }

    /// Those in whose table a peer's routes are.
    pub(super) fn of(&self, record: &Record) -> Sources {
        let vrf = record.session.vrf.as_deref().and_then(|vrf| self.in_vrf(Some(vrf)).ok());
        vrf.unwrap_or_else(|| self.clone())
    }

    /// The table, and then those of all VRFs.
    pub(super) fn tables(&self) -> Vec<Handle> {
        let vrfs = self.vrfs.all().into_iter().map(|(_, shown)| shown.table);
        std::iter::once(self.table.clone()).chain(vrfs).collect()
    }

    /// What a table knows of many peers at once, in their order; `None` if a table has ended.
    pub(super) async fn of_peers<T: Send + 'static>(
        &self,
        records: &[Arc<Record>],
        what: impl Fn(&Table, PeerId) -> T + Clone + Send + 'static,
    ) -> Option<Vec<T>> {
        let tables = self.tables();
        let mut ids = vec![Vec::new(); tables.len()];
        for record in records {
            let at = tables.iter().position(|table| record.place.table.is_same(table));
            // A peer whose VRF has just gone will be in the first, without routes.
            ids[at.unwrap_or(0)].push(record.id);
        }
        let mut found = BTreeMap::new();
        for (table, ids) in tables.iter().zip(ids).filter(|(_, ids)| !ids.is_empty()) {
            let what = what.clone();
            let ask = move |table: &Table, _| -> Vec<(PeerId, T)> {
                ids.into_iter().map(|id| (id, what(table, id))).collect()
            };
            found.extend(table.ask(ask).await?);
        }
        records.iter().map(|record| found.remove(&record.id)).collect()
    }

    /// Prefix counters of many peers at once.
    pub(super) async fn counts(&self, peers: &[Arc<Record>]) -> Option<Vec<PeerCounts>> {
        self.of_peers(peers, Table::counts).await
    }

    /// The kernel route from which a local route was redistributed.
    pub(super) fn learned(&self, prefix: Prefix, source: Source) -> Option<LearnedRoute> {
        match source {
            Source::Kernel | Source::Direct => {
                self.redistribution.get(prefix, source == Source::Direct)
            }
            Source::Bgp | Source::Static | Source::Vrf | Source::Announced => None,
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

/// Does `work` in slices between a table's turns. What a slice needs is sent to the table and back, so
/// that nothing is kept there. `step` does about as much as it is told, and returns how much that was
/// and whether all is done. `None`: the table has ended.
pub(super) async fn in_slices<W: Send + 'static>(
    table: &Handle,
    mut work: W,
    step: impl Fn(&Table, &mut W, Work) -> (Work, bool) + Copy + Send + 'static,
) -> Option<W> {
    let mut pace = Pace::default();
    loop {
        let slice = table.ask(move |table, _| {
            let began = Instant::now();
            let (done, is_over) = step(table, &mut work, pace.budget());
            pace.learn(done, began.elapsed());
            (work, pace, is_over)
        });
        let is_over;
        (work, pace, is_over) = slice.await?;
        if is_over {
            return Some(work);
        }
    }
}

/// The answer if a part has ended already.
pub(super) fn is_stopping() -> Refusal {
    Refusal::failed("the daemon is stopping")
}

/// A VRF in a sentence; `None`: the default VRF.
pub(super) fn vrf_text(vrf: Option<&str>) -> String {
    vrf.map_or("the default VRF".to_owned(), |vrf| format!("VRF {vrf}"))
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
