//! Faults in any order.

use proptest::prelude::*;
use tokio::time::timeout;

use super::*;

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize, u64),
    Delete(usize, usize),
    Cut(Cut),
    EndWatches,
    ResetWatches,
    Restart,
    Restore(usize),
    Wrong(usize, Wrong),
    Heal,
    Crd(usize),
    Refuse,
    Chunk(usize),
    Manners(Manners),
    StaleEvent,
    ExpiredPages,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = 0usize..6;
    let wrong = prop_oneof![
        Just(Wrong::Status(403, "no")),
        Just(Wrong::Status(503, "no")),
        Just(Wrong::Status(422, "{}")),
        Just(Wrong::Busy(1)),
        Just(Wrong::Html),
        Just(Wrong::Broken),
        Just(Wrong::Late(Duration::from_secs(20))),
        Just(Wrong::Odd),
        Just(Wrong::EndsAtOnce),
        Just(Wrong::Stuck),
    ];
    let manners = (any::<bool>(), any::<bool>(), 0usize..4).prop_map(
        |(has_no_bookmarks, repeats, page_max)| Manners { has_no_bookmarks, repeats, page_max },
    );
    let step = prop_oneof![
        8 => (kind.clone(), 0usize..4, 0u64..3).prop_map(|(k, n, v)| Step::Put(k, n, v)),
        4 => (kind.clone(), 0usize..4).prop_map(|(k, n)| Step::Delete(k, n)),
        2 => prop_oneof![Just(Cut::Reset), Just(Cut::GoAway), Just(Cut::Freeze)].prop_map(Step::Cut),
        1 => Just(Step::EndWatches),
        1 => Just(Step::ResetWatches),
        2 => Just(Step::Restart),
        2 => (1usize..8).prop_map(Step::Restore),
        2 => (kind.clone(), wrong).prop_map(|(k, w)| Step::Wrong(k, w)),
        2 => Just(Step::Heal),
        1 => (0usize..5).prop_map(Step::Crd),
        1 => Just(Step::Refuse),
        1 => (1usize..60).prop_map(Step::Chunk),
        1 => manners.prop_map(Step::Manners),
        1 => Just(Step::StaleEvent),
        1 => Just(Step::ExpiredPages),
        8 => (0u64..12_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..25)
}

const COLLECTIONS: [&str; 6] = [POOLS, CONFIGURATIONS, PEERS, FILTERS, AFFINITIES, NODES];

fn some_object(kind: usize, number: usize, version: u64, labels: Labels) -> Value {
    match kind {
        0 => json!({"metadata": {}, "spec": {"cidr": format!("10.{version}.0.0/16")}}),
        1 => json!({"metadata": {}, "spec": {"asNumber": version}}),
        4 => {
            let node = if version == 2 { "n1" } else { "me" };
            let affinity = affinity(node, &format!("10.65.{number}.0/26"));
            if labels == Labels::Absent { affinity } else { labelled(affinity) }
        }
        5 => node(version as usize),
        _ => peer(version),
    }
}

async fn play(steps: Vec<Step>, seed: u64) {
    let labels = if seed.is_multiple_of(2) { Labels::Given } else { Labels::Absent };
    let double = cluster_of(labels);
    let mut lab = Lab::with(double.clone(), config(), seed);
    // Ids of every object that was ever deleted, or removed by a restore.
    let mut excused = std::collections::BTreeSet::new();
    for step in steps {
        match step {
            Step::Put(kind, number, version) => {
                let object = some_object(kind, number, version, labels);
                // An affinity of another node no longer concerns us.
                if kind == 4 {
                    excused.insert(format!("BlockAffinity/o{number}"));
                }
                double.put(COLLECTIONS[kind], &format!("o{number}"), object);
            }
            Step::Delete(kind, number) => {
                let (collection, name) = (COLLECTIONS[kind], format!("o{number}"));
                double.delete(collection, &name);
                excused.insert(name);
            }
            Step::Cut(cut) => double.cut(cut),
            Step::EndWatches => double.end_watches(),
            Step::ResetWatches => double.reset_watches(),
            Step::Restart => double.restart(),
            Step::Restore(back) => {
                let before = double.names();
                double.restore(back);
                excused.extend(before.difference(&double.names()).cloned());
                excused.extend((0..4).map(|number| format!("o{number}")));
            }
            Step::Wrong(kind, wrong) => {
                double.change(|state| state.wrong.insert(COLLECTIONS[kind].to_owned(), wrong));
            }
            Step::Heal => double.change(|state| {
                state.wrong.clear();
                state.refuses_connections = false;
            }),
            Step::Crd(kind) => {
                let collection = COLLECTIONS[kind];
                let is_missing = double.lock().missing.contains(collection);
                if is_missing {
                    double.restore_crd(collection);
                } else {
                    excused.extend(double.objects(collection).into_keys());
                    double.delete_crd(collection);
                }
            }
            Step::Refuse => double.change(|state| state.refuses_connections = true),
            Step::Chunk(octets) => double.change(|state| state.chunk = octets),
            Step::Manners(manners) => double.change(|state| state.manners = manners),
            Step::StaleEvent => double.change(|state| state.stale_events += 1),
            Step::ExpiredPages => double.change(|state| state.expired_pages += 1),
            Step::Pass(millis) => lab.run(Duration::from_millis(millis)).await,
        }
    }
    double.change(|state| {
        state.wrong.clear();
        state.missing.clear();
        state.refuses_connections = false;
    });
    lab.run(MINUTE * 8).await;
    assert!(lab.is_listed && lab.is_current(), "{:?}", lab.state);
    lab.assert_same();
    let wrongly = |name: &&String| {
        let bare = name.rsplit('/').next().unwrap_or_default();
        !excused.contains(bare) && !excused.contains(*name)
    };
    let wrongly: Vec<&String> = lab.withdrawn.iter().filter(wrongly).collect();
    assert!(wrongly.is_empty(), "withdrawn though never deleted: {wrongly:?}");
}

/// Number of orders that are tried; overridden by `MARGAY_ORDERS`.
fn orders() -> u32 {
    std::env::var("MARGAY_ORDERS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: orders(), ..ProptestConfig::default() })]

    /// After any order of writes, cuts, restarts, restores, refusals and removals, followed by a
    /// quiet time, the objects sent are those of the server, and no object was withdrawn that
    /// existed all the time.
    #[test]
    fn any_order_of_faults_converges(steps in steps(), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            timeout(MINUTE * 60 * 24, play(steps, seed)).await.expect("it ends");
        });
    }
}
