//! `margay debug`: begins and ends the logging of peers' messages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::Time;
use tracing::info;

use super::sources::Sources;
use crate::ctl::item::Debugged;
use crate::ctl::{ErrorKind, Page, Refusal, Selection};
use crate::daemon::registry::{DEBUGGED_MAX, Record};
use crate::daemon::selection::Chosen;
use crate::event_names::DEBUG;

/// The longest time.
const SECONDS_MAX: u64 = 3600;

/// Begins and ends the debugging of peers.
pub(super) struct Debugging {
    pub(super) sources: Sources,
}

impl Debugging {
    /// Logs the messages of peers for some seconds; 0 ends it.
    pub(super) fn debug(&self, peers: &Selection, seconds: u64) -> Result<Page, Refusal> {
        let bad = |text: String| Refusal { kind: ErrorKind::BadRequest, text };
        if seconds > SECONDS_MAX {
            return Err(bad(format!("debugging lasts at most {SECONDS_MAX} s")));
        }
        let registry = &self.sources.registry;
        let chosen = match peers {
            Selection::All => Chosen::all(registry),
            Selection::Named(names) => {
                let config = &self.sources.state().config;
                Chosen::named(registry, config, names, &BTreeSet::new())?
            }
        };
        let records: Vec<Arc<Record>> =
            chosen.records.into_iter().map(|(record, _)| record).collect();
        let now = self.sources.now();
        if seconds == 0 {
            let is_on = |record: &&Arc<Record>| record.handle.debug().until(now).is_some();
            let ended: Vec<Debugged> =
                records.iter().filter(is_on).map(|record| self.end(record)).collect();
            return Page::last(ended);
        }
        if records.len() > DEBUGGED_MAX {
            return Err(bad(format!("name at most {DEBUGGED_MAX} peers, not {}", records.len())));
        }
        let switches: Vec<_> = records
            .iter()
            .map(|record| (Arc::clone(&record.name), record.handle.debug().clone()))
            .collect();
        let until = now + Duration::from_secs(seconds);
        self.sources.registry.debugs().begin(&switches, now, until).map_err(Refusal::failed)?;
        for record in &records {
            info!(event = DEBUG, peer = %record.name, "its messages are logged for {seconds} s");
        }
        Page::last(records.iter().map(|record| debugged(record, now)))
    }

    /// The peers that are debugged.
    pub(super) fn show(&self) -> Result<Page, Refusal> {
        let now = self.sources.now();
        let all = self.sources.registry.all();
        let on = all.iter().filter(|record| record.handle.debug().until(now).is_some());
        Page::last(on.map(|record| debugged(record, now)))
    }

    /// Whether the messages of a peer are logged.
    pub(super) fn is_on(&self, peer: &str) -> bool {
        let record = self.sources.registry.named(peer);
        record.is_some_and(|record| record.handle.debug().until(self.sources.now()).is_some())
    }

    fn end(&self, record: &Record) -> Debugged {
        self.sources.registry.debugs().end(&record.name, record.handle.debug());
        info!(event = DEBUG, peer = %record.name, "its messages are no longer logged");
        debugged(record, self.sources.now())
    }
}

fn debugged(record: &Record, now: Time) -> Debugged {
    let switch = record.handle.debug();
    Debugged {
        peer: record.name.to_string(),
        seconds: switch.until(now).map(|until| until.since(now).as_secs()),
        dropped: switch.dropped(),
    }
}
