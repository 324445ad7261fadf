//! Answers about the configuration in force, and about the one that a reload would apply.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::control::ControlView;
use super::rehearsed::rehearsed_routes;
use super::sources::is_stopping;
use crate::config::{self, Changes, Difference, EndingSession};
use crate::ctl::item::{ChangedKey, Confirmed, Reloaded, ReloadedSession, Section, Setting};
use crate::ctl::{Cursor, ErrorKind, Page, Refusal, state_name};
use crate::daemon::confirmation::not_undone;

/// Maximum number of sections of the configuration on one page.
const SECTIONS: usize = 100;
/// Routes listed for each peer, if the client does not say how many.
const LISTED: usize = 10;
/// How long a reload may wait to be confirmed, in seconds: up to a day.
const CONFIRM_TIMES: RangeInclusive<u32> = 1..=86_400;

impl ControlView {
    /// Reloads the configuration.
    pub(super) async fn reload(&self) -> Result<Page, Refusal> {
        let changes = self.orders.reload().await?.map_err(Refusal::configuration)?;
        let sessions = sessions(&changes);
        let changes = changes.lines();
        Page::last([Reloaded { changes, sessions, ..Reloaded::default() }])
    }

    /// Reloads the configuration, to be undone unless it is confirmed.
    pub(super) async fn reload_until(&self, seconds: u32) -> Result<Page, Refusal> {
        let time = Duration::from_secs(seconds.into());
        if !CONFIRM_TIMES.contains(&seconds) {
            let text = format!("the time to confirm is 1 to {} s", CONFIRM_TIMES.end());
            return Err(Refusal { kind: ErrorKind::BadRequest, text });
        }
        let changes = self.orders.reload_until(time).await?.map_err(Refusal::configuration)?;
        Page::last([Reloaded {
            sessions: sessions(&changes),
            undone_in: Some(seconds.into()),
            not_undone: not_undone(&changes),
            changes: changes.lines(),
            ..Reloaded::default()
        }])
    }

    /// Confirms a reload.
    pub(super) async fn confirm(&self) -> Result<Page, Refusal> {
        self.orders.confirm().await?.map_err(Refusal::failed)?;
        Page::last([Confirmed { confirmed: true }])
    }

    /// What a reload would change, with at most `list` routes for each peer.
    pub(super) async fn rehearse(&self, list: Option<u32>) -> Result<Page, Refusal> {
        let _alone = self.rehearsals.begin()?;
        let rehearsed = self.orders.rehearse().await?.map_err(Refusal::configuration)?;
        let changes = &rehearsed.changes;
        let mut sessions = sessions(changes);
        self.add_state(&mut sessions).await?;
        let list = listed(list);
        let routes = rehearsed_routes(&self.sources, &rehearsed, list).await?;
        let changes = changes.lines();
        Page::last([Reloaded {
            changes,
            dry_run: true,
            sessions,
            routes: Some(routes),
            ..Reloaded::default()
        }])
    }

    /// Adds what would be lost: the state and the routes of each session.
    pub(super) async fn add_state(&self, sessions: &mut [ReloadedSession]) -> Result<(), Refusal> {
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

/// How many routes are listed for each peer.
pub(super) fn listed(asked: Option<u32>) -> usize {
    asked.and_then(|list| usize::try_from(list).ok()).unwrap_or(LISTED)
}

/// The sessions that end.
pub(super) fn sessions(changes: &Changes) -> Vec<ReloadedSession> {
    let session = |ending: EndingSession<'_>| ReloadedSession {
        peer: ending.peer.to_owned(),
        what: ending.end.to_string(),
        keys: ending.differences.iter().map(key).collect(),
        ..ReloadedSession::default()
    };
    changes.ending_sessions().map(session).collect()
}

fn key(difference: &Difference) -> ChangedKey {
    let Difference { key, old, new } = difference;
    ChangedKey { key: (*key).to_owned(), old: old.clone(), new: new.clone() }
}
