//! The drains in force and their progress.

use std::sync::Arc;

use bgp_proto::table::Table;

use super::sources::{Sources, is_stopping};
use crate::ctl::item::{self, DrainWaiting, Draining};
use crate::ctl::{Refusal, rfc3339};
use crate::daemon::drains::{Drained, Drains};
use crate::daemon::registry::Record;
use crate::kernel::forwarded_packets;

/// Neighbours per query to the table, which bounds its time per query to a few milliseconds.
const ASKED_AT_ONCE: usize = 8;
/// Maximum number of neighbours named in a reply.
const NAMED_MAX: usize = 20;

/// A view of the drains.
#[derive(Clone)]
pub(super) struct DrainView {
    pub(super) sources: Sources,
    pub(super) drains: Drains,
}

impl DrainView {
    /// The drain of all neighbours, as shown.
    pub(super) fn of_all(&self) -> Option<item::Drained> {
        self.drains.of_all().map(shown)
    }

    /// The drain of one neighbour, by name or with all others, as shown.
    pub(super) fn of(&self, name: &str) -> Option<item::Drained> {
        self.drains.of(name).map(shown)
    }

    /// The names of neighbours that are drained by name, present or not.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.drains.names()
    }

    /// The drained neighbours that exist at present.
    pub(super) fn records(&self) -> Vec<Arc<Record>> {
        match self.drains.of_all() {
            Some(_) => self.sources.registry.all(),
            None => {
                let names = self.drains.names();
                names.iter().filter_map(|name| self.sources.registry.named(name)).collect()
            }
        }
    }

    /// The progress of all drains.
    ///
    /// # Errors
    /// The table does not answer.
    pub(super) async fn progress(&self) -> Result<Draining, Refusal> {
        let records = self.records();
        let mut progress = Draining {
            all: self.of_all(),
            by_name: self.drains.names().iter().map(ToString::to_string).collect(),
            peers: u32::try_from(records.len()).unwrap_or(u32::MAX),
            forwarded_packets: forwarded_packets(),
            ..Draining::default()
        };
        for records in records.chunks(ASKED_AT_ONCE) {
            let asked = self.sources.of_peers(records, Table::drain_progress).await;
            for (record, found) in records.iter().zip(asked.ok_or_else(is_stopping)?) {
                let Some(found) = found else { continue };
                progress.established += 1;
                progress.told += u32::from(found.told);
                let has_moved = found.told && found.replaced >= found.advertised;
                progress.moved += u32::from(has_moved);
                if !has_moved && progress.waiting.len() < NAMED_MAX {
                    progress.waiting.push(DrainWaiting {
                        name: record.name.to_string(),
                        told: found.told,
                        advertised: found.advertised,
                        replaced: found.replaced,
                    });
                }
            }
        }
        Ok(progress)
    }
}

fn shown(drained: Drained) -> item::Drained {
    item::Drained {
        since: rfc3339(drained.since),
        reason: Some(drained.reason).filter(|reason| !reason.is_empty()),
        lasts: drained.lasts,
    }
}
