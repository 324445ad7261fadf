//! Sessions by kind and state, for the status page and whoever else draws them.
//!
//! The registry and the BFD thread are asked, and not the table: an overview of thousands of sessions
//! costs it nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::session::State;

use super::bfd::BfdView;
use super::draining::DrainView;
use super::metrics::kind_in;
use super::sources::Sources;
use crate::ctl::item::{DownSession, Overview, SessionKind};
use crate::ctl::{rfc3339, state_name};
use crate::daemon::registry::Record;

/// Most sessions whose failure is told.
const DOWN_MAX: usize = 50;

/// The view of all sessions at once.
#[derive(Clone)]
pub(super) struct OverviewView {
    pub(super) sources: Sources,
    pub(super) bfd: BfdView,
    pub(super) drains: DrainView,
}

/// A peer that is not established, though no operator has shut it down.
struct Down {
    record: Arc<Record>,
    kind: &'static str,
    /// Those that never were established come last.
    never: bool,
}

impl OverviewView {
    pub(super) async fn overview(&self) -> Overview {
        let is_node = self.sources.state().node.is_some();
        let mut kinds = BTreeMap::<&str, SessionKind>::new();
        let mut down = Vec::new();
        let mut shut_down = Vec::new();
        for record in self.sources.registry.all() {
            let kind = kind_in(is_node, &record);
            let numbers = record.handle.numbers();
            let name = record.name.to_string();
            if record.shutdown.is_set() {
                shut_down.push(name.clone());
            } else if numbers.state != State::Established {
                let never = numbers.stats.established_transitions == 0;
                down.push(Down { record, kind, never });
            }
            let of_kind = kinds
                .entry(kind)
                .or_insert_with(|| SessionKind { kind: kind.to_owned(), ..SessionKind::default() });
            of_kind.states.entry(state_name(numbers.state).to_owned()).or_default().push(name);
        }
        for names in kinds.values_mut().flat_map(|kind| kind.states.values_mut()) {
            names.sort_unstable();
        }
        shut_down.sort_unstable();
        // By name, and not by a time that changes with each attempt: lines stay where they are.
        down.sort_by(|a, b| (a.never, &a.record.name).cmp(&(b.never, &b.record.name)));
        let mut drained: Vec<_> = self.drains.names().iter().map(ToString::to_string).collect();
        drained.sort_unstable();
        Overview {
            kinds: kinds.into_values().collect(),
            down_count: u32::try_from(down.len()).unwrap_or(u32::MAX),
            down: down.iter().take(DOWN_MAX).map(|down| self.down(down)).collect(),
            shut_down,
            drained,
            bfd: self.bfd.states().await,
        }
    }

    fn down(&self, down: &Down) -> DownSession {
        let snapshot = down.record.handle.snapshot();
        let error = snapshot.last_error.as_ref();
        DownSession {
            name: down.record.name.to_string(),
            kind: down.kind.to_owned(),
            state: state_name(snapshot.state).to_owned(),
            reason: error.map(|error| error.text.clone()),
            at: error.map(|error| rfc3339(self.sources.wall(error.at))),
        }
    }
}
