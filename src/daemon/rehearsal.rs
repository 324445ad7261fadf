//! What a reload would change, in the terms of the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bgp_proto::policy::Source;
use bgp_proto::table::{LocalRoute, PeerRoutes, TableConfig};
use bgp_proto::types::{PeerId, Prefix};

use super::Daemon;
use super::reload::originated;
use crate::config::{Changes, PeerEntry};

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
    /// Local routes of the default VRF that are added, changed or withdrawn.
    pub(in crate::daemon) local: BTreeMap<(Prefix, Source), Option<LocalRoute>>,
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
            || !self.local.is_empty()
    }
}

impl Daemon {
    /// What a reload would change. Nothing is changed, bound or logged.
    ///
    /// # Errors
    /// The file is invalid.
    pub(super) fn rehearse(&self) -> Result<Rehearsed, String> {
        Ok(self.in_terms_of_tables(self.changes_of_file()?))
    }

    fn in_terms_of_tables(&self, changes: Changes) -> Rehearsed {
        let registry = self.peers.registry();
        let id = |name: &Arc<str>| registry.named(name).map(|record| record.id);
        let mut routes = self.peers.dynamic_routes(&changes);
        let kept = changes.peers_retimed.iter().chain(&changes.peers_reconfigured);
        let kept = kept.map(|entry| (&entry.name, entry));
        let renamed = changes.peers_renamed.iter().map(|(before, entry)| (before, entry));
        for (name, entry) in kept.chain(renamed) {
            let in_force = self.drains.routes(&entry.name, &entry.routes);
            routes.extend(id(name).map(|id| (id, in_force)));
        }
        let restarted = changes.peers_restarted.iter().map(|entry| &entry.name);
        let ending = changes.peers_removed.iter().chain(restarted).chain(&changes.dynamic_ended);
        let begin = changes.peers_restarted.iter().chain(&changes.peers_added);
        let joining = begin.map(|entry: &PeerEntry| Arc::clone(&entry.routes)).collect();
        let mut local: BTreeMap<_, _> =
            self.redistribution.rehearse(&changes).into_iter().collect();
        let withdrawn = changes.originate_withdrawn.iter().map(|prefix| (*prefix, None));
        let own = changes.originate_changed.iter().chain(&changes.originate_added);
        let own = own.map(|route| (route.prefix, Some(originated(route))));
        local.extend(withdrawn.chain(own).map(|(prefix, route)| ((prefix, Source::Static), route)));
        let unknown = [
            (changes.vrfs_changed, "routes that VRFs originate or redistribute"),
            (changes.host_routes.is_some(), "host routes to neighbours"),
            (changes.drain_changed, "the drain by the node's object"),
            (changes.calico_changed, "what follows from Calico's objects: margay calico plan"),
        ];
        let unknown = unknown.into_iter().filter(|(is, _)| *is);
        Rehearsed {
            config: Arc::clone(changes.table.as_ref().unwrap_or(&self.config.table)),
            ending: ending.filter_map(id).collect(),
            routes,
            joining,
            local,
            not_counted: unknown.map(|(_, what)| what.to_owned()).collect(),
            changes,
        }
    }
}
