//! Answers about the configuration in force, and about the one that a reload would apply.

use std::collections::BTreeMap;

use super::control::ControlView;
use super::sources::is_stopping;
use crate::config::{self, Changes, Difference};
use crate::ctl::item::{ChangedKey, Reloaded, ReloadedSession, Section, Setting};
use crate::ctl::{Cursor, Page, Refusal, state_name};

/// Maximum number of sections of the configuration on one page.
const SECTIONS: usize = 100;

impl ControlView {
    /// Reloads the configuration.
    pub(super) async fn reload(&self) -> Result<Page, Refusal> {
        let changes = self.orders.reload().await?.map_err(Refusal::configuration)?;
        let sessions = sessions(&changes);
        Page::last([Reloaded { changes: changes.lines(), dry_run: false, sessions }])
    }

    /// What a reload would change.
    pub(super) async fn rehearse(&self) -> Result<Page, Refusal> {
        let changes = self.orders.rehearse().await?.map_err(Refusal::configuration)?;
        let mut sessions = sessions(&changes);
        self.add_state(&mut sessions).await?;
        Page::last([Reloaded { changes: changes.lines(), dry_run: true, sessions }])
    }

    /// Adds what would be lost: the state and the routes of each session.
    async fn add_state(&self, sessions: &mut [ReloadedSession]) -> Result<(), Refusal> {
        let records: BTreeMap<_, _> =
            self.sources.registry.all().into_iter().map(|r| (r.name.to_string(), r)).collect();
        let found: Vec<_> = sessions
            .iter_mut()
            .filter_map(|session| Some((records.get(&session.peer)?, session)))
            .collect();
        let all: Vec<_> = found.iter().map(|(record, _)| std::sync::Arc::clone(record)).collect();
        let counts = self.sources.counts(&all).await.ok_or_else(is_stopping)?;
        let sum = |counts: [u32; 2]| counts.into_iter().fold(0, u32::saturating_add);
        for ((record, session), counts) in found.into_iter().zip(counts) {
            session.state = Some(state_name(record.handle.state()).to_owned());
            session.prefixes_received = sum(counts.received.0);
            session.prefixes_advertised = sum(counts.advertised.0);
        }
        Ok(())
    }

    /// One page of the configuration in force. After a reload, an answer goes on with the new one.
    pub(super) fn configuration(&self, cursor: Option<&Cursor>) -> Result<Page, Refusal> {
        let at = match cursor {
            Some(Cursor::Index(at)) => *at,
            _ => 0,
        };
        let state = self.sources.state();
        let setting = |setting: config::Setting| Setting {
            key: setting.key.to_owned(),
            value: setting.value,
            default: setting.is_default,
        };
        let section = |section: config::Section| Section {
            table: section.table.to_owned(),
            is_list: section.is_list,
            settings: section.settings.into_iter().map(setting).collect(),
        };
        let first = usize::try_from(at).unwrap_or(usize::MAX);
        let page: Vec<Section> =
            config::sections(&state.config, first).take(SECTIONS).map(section).collect();
        let is_last = page.len() < SECTIONS;
        let next = at.saturating_add(u32::try_from(SECTIONS).unwrap_or(u32::MAX));
        Page::new(page, (!is_last).then_some(Cursor::Index(next)))
    }
}

/// The sessions that end.
fn sessions(changes: &Changes) -> Vec<ReloadedSession> {
    let session = |peer: &str, what: &str| ReloadedSession {
        peer: peer.to_owned(),
        what: what.to_owned(),
        keys: changes.differences.get(peer).into_iter().flatten().map(key).collect(),
        ..ReloadedSession::default()
    };
    let removed = changes.peers_removed.iter().map(|name| session(name, "ends"));
    let restarted = changes.peers_restarted.iter().map(|peer| session(&peer.name, "restarts"));
    let dynamic = changes.dynamic_ended.iter().map(|name| session(name, "ends"));
    removed.chain(restarted).chain(dynamic).collect()
}

fn key(difference: &Difference) -> ChangedKey {
    let Difference { key, old, new } = difference;
    ChangedKey { key: (*key).to_owned(), old: old.clone(), new: new.clone() }
}
