//! The counted part of a dry run: the routes that peers would be sent differently.
//!
//! Every table evaluates the intended parameters in slices between its turns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::policy::Source;
use bgp_proto::table::{
    Intended, LocalRoute, PeerRoutes, Rehearsal, RouteDifference, SentRoute, Table, TableConfig,
};
use bgp_proto::types::{Family, NextHop, PeerId, Prefix};
use bgp_proto::wire::AttrView;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::sources::{Sources, in_slices, is_stopping};
use crate::config::Changes;
use crate::ctl::item::{RehearsedPeer, RehearsedRoute, RehearsedRoutes};
use crate::ctl::{Names, Refusal, attribute_changes};
use crate::daemon::local_routes::{learn_rules, originated};
use crate::engine::Handle;

/// Maximum number of routes listed in one answer.
const LISTED_MAX: usize = 20_000;
/// Maximum octets of their attributes.
const LISTED_OCTETS_MAX: usize = 16 << 20;

/// Longest wait for what the kernel's thread says.
const FORESEE_MAX: Duration = Duration::from_secs(5);

/// Carries out dry runs, one at a time: the memory for what is listed is not part of
/// `bgp.memory-max`.
pub(in crate::daemon) struct Rehearsals(Arc<Semaphore>);

impl Rehearsals {
    pub(super) fn new() -> Rehearsals {
        Rehearsals(Arc::new(Semaphore::new(1)))
    }

    /// Begins a dry run, which lasts as long as the permit.
    ///
    /// # Errors
    /// Another one is running.
    pub(super) fn begin(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let text = "another dry run is running; try again in a few seconds";
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| Refusal::failed(text))
    }
}

/// What may still be listed.
struct Room {
    routes: usize,
    octets: usize,
}

impl Room {
    /// Takes the room of a route. If there is too little, nothing more is listed.
    fn take(&mut self, route: &RouteDifference) -> bool {
        let sent = route.before.iter().chain(&route.after);
        let octets: usize = sent.map(|sent| sent.attrs.len()).sum();
        let left = self.routes.checked_sub(1).zip(self.octets.checked_sub(octets));
        (self.routes, self.octets) = left.unwrap_or_default();
        left.is_some()
    }
}

/// The result of a dry run, and what the tables are asked to evaluate.
pub(in crate::daemon) struct Rehearsed {
    /// The differences from the configuration in force.
    pub(in crate::daemon) changes: Changes,
    /// The parameters of every table.
    pub(in crate::daemon) config: Arc<TableConfig>,
    /// The parameters of peers whose sessions stay, where they differ.
    pub(in crate::daemon) routes: BTreeMap<PeerId, Arc<PeerRoutes>>,
    /// Peers whose sessions end, for good or to begin again.
    pub(in crate::daemon) ending: BTreeSet<PeerId>,
    /// Parameters of peers whose sessions begin.
    pub(in crate::daemon) joining: Vec<Arc<PeerRoutes>>,
    /// How originated routes and redistribution of VRFs that run differ; [`Rehearsed::changes`] has those
    /// of the default VRF.
    pub(in crate::daemon) vrfs: BTreeMap<Arc<str>, Changes>,
    /// Changes whose effect on routes the tables cannot evaluate.
    pub(in crate::daemon) not_counted: Vec<String>,
}

impl Rehearsed {
    /// Whether some route may be advertised differently.
    pub(in crate::daemon) fn concerns_routes(&self) -> bool {
        self.changes.table.is_some()
            || !self.routes.is_empty()
            || !self.ending.is_empty()
            || !self.joining.is_empty()
            || concerns_local(&self.changes)
            || self.vrfs.values().any(concerns_local)
    }
}

/// Whether local routes may differ.
fn concerns_local(changes: &Changes) -> bool {
    let originate = [
        changes.originate_withdrawn.is_empty(),
        changes.originate_added.is_empty(),
        changes.originate_changed.is_empty(),
    ];
    changes.redistribute.is_some() || originate.contains(&false)
}

/// Local routes that would be added, changed or withdrawn (`None`).
type Local = BTreeMap<(Prefix, Source), Option<LocalRoute>>;

/// The local routes of a VRF that would differ, and whether they are all.
async fn local(changes: &Changes, of: &Sources) -> (Local, bool) {
    if !concerns_local(changes) {
        return (Local::new(), true);
    }
    let learned = match &changes.redistribute {
        Some(rules) => {
            let asked = of.kernel.foresee(learn_rules(rules));
            tokio::time::timeout(FORESEE_MAX, asked).await.ok().flatten()
        }
        None => None,
    };
    let is_whole = changes.redistribute.is_none() || learned.is_some();
    let mut local: Local = of.redistribution.rehearse(changes, learned).into_iter().collect();
    let withdrawn = changes.originate_withdrawn.iter().map(|prefix| (*prefix, None));
    let own = changes.originate_changed.iter().chain(&changes.originate_added);
    let own = own.map(|route| (route.prefix, Some(originated(route))));
    local.extend(withdrawn.chain(own).map(|(prefix, route)| ((prefix, Source::Static), route)));
    (local, is_whole)
}

/// The table of each VRF with how its local routes differ, the default VRF first.
fn tables<'a>(sources: &Sources, rehearsed: &'a Rehearsed) -> Vec<(Sources, Option<&'a Changes>)> {
    let default = (sources.clone(), Some(&rehearsed.changes));
    let vrfs = sources.vrfs.all().into_iter().map(|(name, shown)| {
        let (table, kernel, redistribution) = (shown.table, shown.kernel, shown.redistribution);
        let there = Sources { table, kernel, redistribution, ..sources.clone() };
        (there, rehearsed.vrfs.get(&name))
    });
    std::iter::once(default).chain(vrfs).collect()
}

/// What peers would be sent differently, with at most `list` routes for each.
pub(super) async fn rehearsed_routes(
    sources: &Sources,
    rehearsed: &Rehearsed,
    list: usize,
) -> Result<RehearsedRoutes, Refusal> {
    let mut result = RehearsedRoutes {
        not_counted: rehearsed.not_counted.clone(),
        ..RehearsedRoutes::default()
    };
    if !rehearsed.concerns_routes() {
        return Ok(result);
    }
    let mut peers: BTreeMap<PeerId, RehearsedPeer> = BTreeMap::new();
    let list = list.min(LISTED_MAX);
    let mut room = Room { routes: LISTED_MAX, octets: LISTED_OCTETS_MAX };
    for (of, changes) in tables(sources, rehearsed) {
        let table = of.table.clone();
        let mut intended = Intended::new(rehearsed.config.clone());
        intended.routes.clone_from(&rehearsed.routes);
        intended.ending.clone_from(&rehearsed.ending);
        intended.joining.clone_from(&rehearsed.joining);
        if let Some(changes) = changes {
            let (differing, is_whole) = local(changes, &of).await;
            intended.local = differing;
            if !is_whole {
                let text = "kernel routes that changed rules select for the first time: the kernel's \
                            thread did not answer";
                result.not_counted.push(text.to_owned());
            }
        }
        let done = run(&table, intended, list).await.ok_or_else(is_stopping)?;
        result.changed_meanwhile |= done.has_changed();
        result.held_back |= done.is_deferred();
        result.assumed_next_hops.extend(done.assumed());
        add_counts(&mut peers, &done);
        for (id, peer) in peers.iter_mut().filter(|(_, peer)| peer.routes.is_empty()) {
            if room.routes == 0 {
                break;
            }
            let listed = done.listed(*id).into_iter().take(list);
            let listed = listed.take_while(|route| room.take(route));
            peer.routes = listed.map(|route| to_item(&route)).collect();
        }
    }
    let names = sources.names();
    let named = peers.into_iter().map(|(id, peer)| RehearsedPeer {
        peer: names.peer(id).unwrap_or_else(|| format!("#{}", id.0)),
        ..peer
    });
    result.peers = named.collect();
    result.peers.sort_by(|a, b| a.peer.cmp(&b.peer));
    Ok(result)
}

/// Runs a rehearsal on a table; `None`: the table has ended.
async fn run(table: &Handle, intended: Intended, list: usize) -> Option<Rehearsal> {
    let snapshot = table.ask(|table, _| table.snapshot()).await?;
    let rehearsal = Rehearsal::new(snapshot, intended, list);
    let step = |table: &Table, rehearsal: &mut Rehearsal, budget| {
        let slice = table.rehearse(rehearsal, budget);
        (slice.done, slice.is_over)
    };
    in_slices(table, rehearsal, step).await
}

fn add_counts(peers: &mut BTreeMap<PeerId, RehearsedPeer>, done: &Rehearsal) {
    for (id, differences) in done.differences() {
        let peer = peers.entry(id).or_default();
        for family in Family::ALL {
            peer.announced += differences[family].announced;
            peer.changed += differences[family].changed;
            peer.withdrawn += differences[family].withdrawn;
        }
    }
    for (id, differences) in done.imports() {
        let peer = peers.entry(id).or_default();
        for family in Family::ALL {
            peer.import_accepted += differences[family].accepted;
            peer.import_changed += differences[family].changed;
            peer.import_rejected += differences[family].rejected;
        }
    }
}

fn to_item(route: &RouteDifference) -> RehearsedRoute {
    let what = match (&route.before, &route.after) {
        (None, _) => "announced",
        (Some(_), Some(_)) => "changed",
        (Some(_), None) => "withdrawn",
    };
    let attributes = match &route.after {
        None => Vec::new(),
        after => attribute_changes(route.before.as_ref().map(seen), after.as_ref().map(seen)),
    };
    RehearsedRoute {
        prefix: Some(route.prefix),
        path_id: route.path_id.map(|id| id.0),
        what: what.to_owned(),
        attributes,
        why: route.why.as_deref().map(str::to_owned),
    }
}

fn seen(sent: &SentRoute) -> (AttrView<'_>, Option<NextHop>) {
    (AttrView::new(&sent.attrs), sent.next_hop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_dry_run_is_refused_until_the_first_is_over() {
        let rehearsals = Rehearsals::new();
        let first = rehearsals.begin().expect("none is running");
        let refused = rehearsals.begin().expect_err("one is running");
        assert!(refused.text.contains("another dry run is running"), "{}", refused.text);
        drop(first);
        assert!(rehearsals.begin().is_ok());
    }

    #[test]
    fn an_answer_lists_no_more_than_it_has_room_for() {
        let sent = Some(SentRoute { attrs: vec![0; 40].into(), next_hop: None });
        let route = RouteDifference {
            prefix: "10.1.0.0/16".parse().unwrap(),
            path_id: None,
            before: sent.clone(),
            after: sent,
            why: None,
        };
        let listed = |mut room: Room| (0..9).take_while(|_| room.take(&route)).count();
        assert_eq!(listed(Room { routes: 3, octets: 1000 }), 3);
        assert_eq!(listed(Room { routes: 9, octets: 170 }), 2, "80 octets each");
    }
}
