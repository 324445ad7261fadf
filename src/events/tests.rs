use std::time::SystemTime;

use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::event_names;

fn entry(peer: Option<&str>, text: &str) -> Entry {
    let mut entry = Entry::new(SystemTime::UNIX_EPOCH, Level::Info);
    entry.set("event", event_names::SESSION_UP);
    entry.set("message", text);
    if let Some(peer) = peer {
        entry.set("peer", peer);
    }
    entry
}

fn numbers(following: &Following) -> Vec<u64> {
    following.entries.iter().map(|entry| entry.number).collect()
}

#[test]
fn a_reader_that_is_too_slow_learns_how_many_it_missed() {
    let events = Events::default();
    (0..2).for_each(|_| events.record(entry(None, "a")));
    let began = events.last();
    events.record(entry(None, "a"));
    let first = events.after(0, 0, 2, None);
    assert_eq!((numbers(&first), first.dropped, first.until), (vec![1, 2], 0, 2));
    (0..EVENTS_MAX).for_each(|_| events.record(entry(None, "b")));
    let next = events.after(first.until, began, 5, None);
    assert_eq!((numbers(&next), next.dropped, next.until), (vec![4, 5, 6, 7, 8], 1, 8));
    let rest = events.after(next.until, began, usize::MAX, None);
    assert_eq!((rest.entries.len(), rest.dropped, rest.until), (EVENTS_MAX - 5, 0, 1003));
    assert_eq!(events.after(1003, began, 5, None).until, 1003);
    let count = |name| events.counts().iter().find(|(n, _)| *n == name).map(|(_, count)| *count);
    assert_eq!(count(event_names::SESSION_UP), Some(1003));
    assert_eq!(count(event_names::BFD_UP), Some(0));
    let new = events.after(0, events.last(), 1, None);
    assert_eq!(new.dropped, 0, "a new reader missed nothing");
}

#[test]
fn a_peer_that_flaps_leaves_room_for_others_and_has_its_last_ten() {
    let events = Events::default();
    events.record(entry(Some("quiet"), "up"));
    events.record(entry(None, "started"));
    for n in 0..10_000 {
        events.record(entry(Some("flaps"), &n.to_string()));
    }
    let all = events.after(0, 0, usize::MAX, None);
    assert_eq!(all.entries.len(), 2 + PER_PEER_MAX);
    assert_eq!(numbers(&events.after(0, 0, 9, Some("quiet"))), [1]);
    let last: Vec<_> = events.of_peer("flaps").iter().map(|e| e.text.to_string()).collect();
    assert_eq!(last.first().map(String::as_str), Some("9990"));
    assert_eq!((last.len(), last.last().map(String::as_str)), (PER_PEER_LAST, Some("9999")));
    assert_eq!(events.of_peer("quiet").len(), 1);
    assert_eq!(events.before_last(1, Some("quiet")), 0);
    assert_eq!(events.before_last(3, None), 9_999);
    let missed = events.after(2, 2, usize::MAX, None);
    assert_eq!(missed.dropped, 10_000 - PER_PEER_MAX as u64);
    // A reader that began after the flapping missed none of those that were overwritten before.
    let began = events.last();
    let (mut after, mut seen) = (0, 0);
    loop {
        let page = events.after(after, began, 200, None);
        assert_eq!(page.dropped, 0);
        if page.entries.is_empty() {
            break;
        }
        (after, seen) = (page.until, seen + page.entries.len());
    }
    assert_eq!((seen, after), (2 + PER_PEER_MAX, began));
    // Of 300 more, 50 were overwritten before it read them.
    (0..300).for_each(|_| events.record(entry(Some("flaps"), "again")));
    assert_eq!(events.after(after, began, usize::MAX, None).dropped, 300 - PER_PEER_MAX as u64);
}

#[test]
fn the_memory_is_bounded() {
    let events = Events::default();
    let long = "x".repeat(1 << 16);
    for n in 0..5_000 {
        events.record(entry(Some(&format!("p{n}")), &long));
        events.record(entry(Some(&format!("p{n}")), "y"));
    }
    let ring = events.ring();
    assert!(ring.entries.len() <= EVENTS_MAX && ring.octets <= OCTETS_MAX);
    assert_eq!(ring.octets, ring.entries.iter().map(|entry| entry.octets()).sum::<usize>());
    assert!(ring.of_peers.octets() <= 4 << 20);
    assert_eq!(ring.of_peers.get("p4999").len(), 2);
    assert_eq!(ring.of_peers.get("p0").len(), 0, "the oldest are dropped");
}

#[test]
fn lines_with_a_name_are_recorded_with_their_fields() {
    let events = Events::default();
    let subscriber = tracing_subscriber::registry().with(layer(events.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("no event");
        tracing::debug!(event = event_names::SESSION_UP, "too verbose");
        let (peer, reason) = ("tor-1", "Hold Timer Expired");
        tracing::warn!(
            event = event_names::SESSION_DOWN, %peer, reason, others = 3_u64,
            "session closed: {reason}"
        );
    });
    let all = events.after(0, 0, usize::MAX, None).entries;
    let [only] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&*only.name, only.peer.as_deref()), (event_names::SESSION_DOWN, Some("tor-1")));
    assert_eq!(&*only.text, "session closed: Hold Timer Expired");
    assert_eq!(only.level.as_str(), "WARN");
    assert_eq!(only.field("reason"), Some("Hold Timer Expired"));
    assert_eq!(only.field("others"), Some("3"));
}

/// A peer that is debugged has so many messages that they would displace every event.
#[test]
fn messages_are_kept_apart_from_events() {
    let events = Events::default();
    let subscriber = tracing_subscriber::registry().with(layer(events.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(event = event_names::SESSION_UP, peer = "tor-1", "up");
        tracing::info!(event = event_names::MESSAGE_SENT, peer = "tor-1", "sent OPEN");
    });
    let texts = |events: &Events| -> Vec<String> {
        events.after(0, 0, usize::MAX, None).entries.iter().map(|e| e.text.to_string()).collect()
    };
    assert_eq!(
        (texts(&events), texts(&events.messages())),
        (vec!["up".into()], vec!["sent OPEN".into()])
    );
    assert_eq!(events.of_peer("tor-1").len(), 1);
    let counts = events.counts();
    assert!(counts.contains(&(event_names::MESSAGE_SENT, 1)), "{counts:?}");
}

#[tokio::test]
async fn a_follower_is_woken_by_the_next_event() {
    let events = Events::default();
    events.record(entry(None, "a"));
    events.changed(0).await;
    let waiting = tokio::spawn({
        let events = events.clone();
        async move { events.changed(1).await }
    });
    events.record(entry(None, "b"));
    waiting.await.unwrap();
}
