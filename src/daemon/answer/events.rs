//! Answers about recent events.

use std::sync::Arc;
use std::time::Duration;

use super::sources::Sources;
use crate::ctl::item::Event;
use crate::ctl::{Cursor, EventCursor, Page, Refusal, rfc3339_millis};
use crate::event_names;
use crate::events::{Entry, Events};

/// Maximum number of events on one page.
const PAGE: usize = 200;
/// How long a page waits for an event. Shorter than a client waits for a line.
const WAIT: Duration = Duration::from_secs(10);

/// The recent events.
#[derive(Clone)]
pub(super) struct EventsView {
    pub(super) sources: Sources,
    pub(super) events: Events,
}

impl EventsView {
    /// The last events of a peer.
    pub(super) fn of_peer(&self, name: &str) -> Vec<Event> {
        self.events.of_peer(name).iter().map(|entry| event(entry)).collect()
    }

    /// One page; with `follow`, waits for an event if there is none.
    pub(super) async fn page(
        &self,
        peer: Option<&str>,
        last: Option<u32>,
        follow: bool,
        cursor: Option<&Cursor>,
    ) -> Result<Page, Refusal> {
        let place = match cursor {
            Some(Cursor::Events(place)) => place.clone(),
            _ => self.first(peer, last)?,
        };
        let EventCursor { after, began, peer } = place;
        let name = peer.as_deref();
        let mut following = self.events.after(after, began, PAGE, name);
        if follow && cursor.is_some() && following.until == after {
            // On a time-out there is none, and the page is empty.
            let _ = tokio::time::timeout(WAIT, self.events.changed(after)).await;
            following = self.events.after(after, began, PAGE, name);
        }
        let is_last = following.entries.len() < PAGE && !follow;
        let place = EventCursor { after: following.until, began, peer };
        let next = (!is_last).then_some(Cursor::Events(place));
        let dropped = (following.dropped > 0).then(|| dropped(following.dropped));
        Page::new(dropped.into_iter().chain(following.entries.iter().map(|e| event(e))), next)
    }

    /// Where an answer begins. The peer is resolved only here: the answer goes on if it is removed.
    fn first(&self, peer: Option<&str>, last: Option<u32>) -> Result<EventCursor, Refusal> {
        let peer = peer.map(|peer| self.name_of(peer)).transpose()?;
        let began = self.events.last();
        let after = last.map_or(0, |last| {
            let last = usize::try_from(last).unwrap_or(usize::MAX);
            self.events.before_last(last, peer.as_deref())
        });
        Ok(EventCursor { after, began, peer })
    }

    /// The name of a peer that exists, or of one that was removed and has events.
    fn name_of(&self, peer: &str) -> Result<Arc<str>, Refusal> {
        if let Some(record) = self.sources.registry.find(peer) {
            return Ok(Arc::clone(&record.name));
        }
        if !self.events.of_peer(peer).is_empty() {
            return Ok(peer.into());
        }
        Err(self.sources.registry.not_found(peer))
    }
}

fn dropped(count: u64) -> Event {
    Event {
        at: rfc3339_millis(std::time::SystemTime::now()),
        level: "WARN".to_owned(),
        event: event_names::EVENTS_DROPPED.to_owned(),
        text: format!("{count} events of all peers were overwritten before they could be read"),
        fields: [("count".to_owned(), count.to_string())].into(),
        ..Event::default()
    }
}

fn event(entry: &Entry) -> Event {
    /// Fields that have their own key.
    const OWN: [&str; 3] = ["prefix", "object", "reason"];
    let field = |name: &str| entry.field(name).map(str::to_owned);
    let others = entry.fields.iter().filter(|(name, _)| !OWN.contains(name));
    Event {
        number: entry.number,
        at: rfc3339_millis(entry.at),
        level: entry.level.as_str().to_owned(),
        event: entry.name.to_string(),
        peer: entry.peer.as_deref().map(str::to_owned),
        prefix: field("prefix"),
        object: field("object"),
        reason: field("reason"),
        text: entry.text.to_string(),
        fields: others.map(|(name, value)| ((*name).to_owned(), value.to_string())).collect(),
    }
}
