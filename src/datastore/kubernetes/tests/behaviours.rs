//! Behaviours of servers, one at a time.

use std::sync::Mutex;

use tracing::subscriber::DefaultGuard;

use super::*;
use crate::datastore::kubernetes::failure::Failure;
use crate::datastore::kubernetes::list;
use crate::datastore::kubernetes::resource::{From, Place, Resource};

fn nodes() -> Place {
    Place::of(&Resource::Nodes, Group::V1, "me", "")
}

fn double_of(count: usize) -> Double {
    let double = Double::new();
    for number in 0..count {
        double.put(NODES, &format!("n{number:04}"), node(number));
    }
    double
}

#[tokio::test(start_paused = true)]
async fn thousands_of_nodes_are_read_in_pages_unless_from_the_watch_cache() {
    let double = double_of(5000);
    let api = Api::new(double.clone(), Random::seeded(1));
    for (from, pages) in [(From::Any, 1), (From::Newest, 10)] {
        let before = double.asked(NODES, "list");
        let mut count = 0;
        list::read(&api, &nodes(), &from, |_| count += 1).await.unwrap();
        assert_eq!((count, double.asked(NODES, "list") - before), (5000, pages));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_version_expires_is_read_from_the_beginning() {
    let double = double_of(7);
    double.change(|state| {
        state.manners.page_max = 2;
        state.expired_pages = 1;
    });
    let api = Api::new(double.clone(), Random::seeded(1));
    let read = list::read(&api, &nodes(), &From::Newest, |_| ()).await;
    assert_eq!(read, Err(Failure::Expired));
    let mut count = 0;
    list::read(&api, &nodes(), &From::Newest, |_| count += 1).await.unwrap();
    assert_eq!(count, 7);
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_is_read_in_pages_that_expire_once() {
    let mut lab = lab().await;
    lab.double.change(|state| {
        state.manners.page_max = 2;
        state.expired_pages = 3;
    });
    lab.double.put(NODES, "lost", node(9));
    lab.run(MINUTE).await;
    lab.double.restore(1);
    lab.run(MINUTE * 5).await;
    lab.assert_same();
    assert!(lab.is_current(), "{:?}", lab.state);
    assert!(lab.double.lock().expired_pages < 3, "no page was requested");
    assert_eq!(lab.withdrawn, ["Node/lost"]);
}

#[tokio::test(start_paused = true)]
async fn duplicate_and_late_events_change_nothing() {
    let mut lab = lab().await;
    lab.double.change(|state| state.manners.repeats = true);
    lab.double.put(PEERS, "tor", peer(1));
    lab.double.delete(PEERS, "tor-2");
    lab.run(MINUTE).await;
    lab.assert_same();
    assert_eq!((lab.changes, lab.withdrawn.len()), (2, 1));
    // One from before the list, after the watch was resumed.
    let before = lab.double.asked(PEERS, "list");
    lab.double.change(|state| state.stale_events = 6);
    lab.double.end_watches();
    lab.run(MINUTE).await;
    lab.assert_same();
    assert!(lab.double.asked(PEERS, "list") > before, "a late event causes a list");
    assert_eq!((lab.changes, lab.withdrawn.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_object_recreated_while_disconnected_is_one_change() {
    let mut lab = lab().await;
    lab.double.change(|state| state.refuses_connections = true);
    lab.double.restart();
    lab.double.delete(PEERS, "tor");
    lab.double.put(PEERS, "tor", peer(7));
    lab.double.delete(NODES, "n1");
    lab.double.put(NODES, "n1", node(1));
    lab.run(MINUTE).await;
    lab.double.change(|state| state.refuses_connections = false);
    lab.run(MINUTE * 2).await;
    lab.assert_same();
    assert_eq!((lab.changes, lab.withdrawn.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_selectors_is_queried_without_them() {
    let double = cluster();
    double.change(|state| {
        state.wrong.insert(String::new(), Wrong::Odd);
    });
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.is_listed && lab.is_current(), "{:?}", lab.state);
    lab.assert_same();
    lab.double.put(AFFINITIES, "me-10-65-9-0-26", affinity("me", "10.65.9.0/26"));
    lab.double.put(NODES, "n9", node(9));
    lab.run(Duration::from_secs(1)).await;
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_reported_and_cost_few_requests() {
    let mut lab = lab().await;
    lab.double.change(|state| {
        state.wrong.insert(PEERS.to_owned(), Wrong::EndsAtOnce);
    });
    lab.double.end_watches();
    lab.run(MINUTE * 2).await;
    assert!(lab.reason().contains("ended at once"), "{}", lab.reason());
    assert_eq!(lab.receiver.watcher().followed().cause, Some("ended-at-once"));
    let asked = |lab: &Lab| lab.double.asked(PEERS, "list") + lab.double.asked(PEERS, "watch");
    let before = asked(&lab);
    lab.double.put(PEERS, "new", peer(1));
    lab.run(MINUTE * 10).await;
    let after = asked(&lab);
    assert!(after - before <= 100, "{}", after - before);
    lab.double.change(|state| state.wrong.clear());
    lab.run(MINUTE).await;
    lab.assert_same();
    assert!(lab.is_current() && lab.withdrawn.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_bookmarks_a_quiet_kind_is_probed_and_not_listed() {
    let double = cluster();
    double.change(|state| state.manners.has_no_bookmarks = true);
    let mut lab = Lab::new(double);
    lab.settle().await;
    let before = lab.double.asked(PEERS, "list");
    lab.run(MINUTE * 60).await;
    assert!(lab.is_current(), "{:?}", lab.state);
    // At most one small request in five minutes.
    assert!(lab.double.asked(PEERS, "list") - before <= 12);
    assert_eq!(lab.changes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lost_its_etcd_is_reported_at_the_next_doubt() {
    let mut lab = lab().await;
    lab.double.change(|state| {
        state.wrong.insert(String::new(), Wrong::Stuck);
    });
    lab.double.put(PEERS, "new", peer(1));
    lab.run(MINUTE).await;
    assert!(lab.is_current(), "watches continue: {:?}", lab.state);
    lab.double.cut(Cut::Reset);
    lab.run(MINUTE * 2).await;
    assert!(lab.reason().contains("504 Timeout"), "{}", lab.reason());
    let before = lab.double.asked_in_all();
    lab.run(MINUTE * 10).await;
    assert!(lab.double.asked_in_all() - before <= 100 * 9);
    lab.double.change(|state| state.wrong.clear());
    lab.run(MINUTE).await;
    lab.assert_same();
    assert!(lab.is_current() && lab.withdrawn.is_empty());
}

/// Warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl Warnings {
    fn begin() -> (Warnings, DefaultGuard) {
        let warnings = Warnings::default();
        let writer = warnings.clone();
        let lines = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        (warnings, tracing::subscriber::set_default(lines.finish()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Warnings {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn changes_without_watch_events_are_found_within_twelve_hours() {
    let (warnings, _guard) = Warnings::begin();
    let mut lab = lab().await;
    lab.double.put_unseen(PEERS, "missed", peer(7));
    // The watches of the others go beyond it, as does that of a kind with bookmarks.
    lab.double.put(PEERS, "seen", peer(8));
    lab.run(MINUTE * 60).await;
    assert_eq!((lab.changes, warnings.text()), (1, String::new()));
    lab.run(MINUTE * 60 * 12).await;
    assert_eq!(lab.changes, 2);
    lab.assert_same();
    let text = warnings.text();
    assert!(text.contains("resource=bgppeers changes=1"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_a_watch_was_not_told_of_is_found_as_well() {
    let (warnings, _guard) = Warnings::begin();
    let mut lab = lab().await;
    lab.double.delete_unseen(PEERS, "tor");
    lab.run(MINUTE * 60 * 13).await;
    assert_eq!(lab.withdrawn, ["BGPPeer/tor"]);
    let text = warnings.text();
    assert!(text.contains("resource=bgppeers changes=1"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_the_periodic_list_is_asked_for_was_not_missed() {
    let (warnings, _guard) = Warnings::begin();
    let mut lab = lab().await;
    lab.run(MINUTE * 60 * 5).await;
    let before = lab.double.asked(PEERS, "list");
    lab.double
        .change(|state| state.wrong.insert(PEERS.to_owned(), Wrong::Late(Duration::from_secs(5))));
    let mut steps = 0;
    while lab.double.asked(PEERS, "list") == before {
        lab.double.put(PEERS, "tor", peer(steps));
        match steps % 2 {
            0 => lab.double.put(PEERS, "busy", peer(steps)),
            _ => lab.double.delete(PEERS, "busy"),
        }
        steps += 1;
        assert!(steps < 8 * 3600, "no list");
        lab.run(Duration::from_secs(1)).await;
    }
    // It was asked for, and is answered later.
    lab.double.put(PEERS, "tor", peer(1));
    lab.double.put(PEERS, "new", peer(1));
    lab.double.delete(PEERS, "tor-2");
    lab.run(MINUTE).await;
    lab.assert_same();
    assert_eq!(warnings.text(), "");
}

#[tokio::test(start_paused = true)]
async fn repeated_server_errors_cause_a_new_connection() {
    let mut lab = lab().await;
    assert_eq!(lab.double.lock().dials, 1);
    lab.double.change(|state| {
        state.wrong.insert(String::new(), Wrong::Status(503, "service unavailable"));
    });
    lab.double.end_watches();
    lab.run(MINUTE * 5).await;
    let dials = lab.double.lock().dials;
    // A load balancer may give each connection another server.
    assert!((2..=60).contains(&dials), "{dials} connections");
    lab.double.change(|state| state.wrong.clear());
    lab.run(MINUTE).await;
    assert!(lab.is_current(), "{:?}", lab.state);
    assert_eq!((lab.withdrawn.len(), lab.changes), (0, 0));
}
