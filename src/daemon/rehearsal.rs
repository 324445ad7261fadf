//! What a reload would change, in the terms of the tables.

use std::sync::Arc;

use super::Daemon;
use super::answer::{PlanOrder, Rehearsed, RehearsedPlan};
use super::drains::Drains;
use crate::config::{Changes, Config, PeerEntry, Vrf};

impl Daemon {
    /// What a reload would change. Nothing is changed, bound or logged.
    ///
    /// # Errors
    /// The file is invalid.
    pub(super) fn rehearse(&self) -> Result<Rehearsed, String> {
        let (changes, vrfs) = self.intended_by_file()?;
        Ok(self.in_terms_of_tables(changes, &vrfs, &self.drains))
    }

    /// What a configuration that follows from changed objects would change. Nothing is changed.
    ///
    /// # Errors
    /// This is no Calico node any more.
    pub(super) fn rehearse_plan(&self, order: PlanOrder) -> Result<RehearsedPlan, String> {
        let PlanOrder { before, after } = order;
        let planned = self.planned().ok_or("the daemon does not follow Calico's objects")?;
        let is_newest = Arc::ptr_eq(planned, &before);
        let config = self.with_exceptions(*after);
        let changes = self.config.changes_to(&config);
        let drains = match changes.drain_changed {
            true => self.drains.foreseen(config.drain.as_deref()),
            false => self.drains.clone(),
        };
        let rehearsed = self.in_terms_of_tables(changes, &config.vrfs, &drains);
        Ok(RehearsedPlan { rehearsed, is_newest })
    }

    /// `vrfs` and `drains`: those that would be in force.
    fn in_terms_of_tables(&self, changes: Changes, vrfs: &[Vrf], drains: &Drains) -> Rehearsed {
        let registry = self.peers.registry();
        let id = |name: &Arc<str>| registry.named(name).map(|record| record.id);
        let mut routes = self.peers.dynamic_routes(&changes);
        if changes.drain_changed {
            let all = registry.all();
            routes.extend(all.iter().map(|r| (r.id, drains.routes(&r.name, &r.routes))));
        }
        let kept = changes.peers_retimed.iter().chain(&changes.peers_reconfigured);
        let kept = kept.map(|entry| (&entry.name, entry));
        let renamed = changes.peers_renamed.iter().map(|(before, entry)| (before, entry));
        for (name, entry) in kept.chain(renamed) {
            let in_force = drains.routes(&entry.name, &entry.routes);
            routes.extend(id(name).map(|id| (id, in_force)));
        }
        let restarted = changes.peers_restarted.iter().map(|entry| &entry.name);
        let ending = changes.peers_removed.iter().chain(restarted).chain(&changes.dynamic_ended);
        let begin = changes.peers_restarted.iter().chain(&changes.peers_added);
        let joining = begin.map(|entry: &PeerEntry| Arc::clone(&entry.routes)).collect();
        let (vrfs, absent) = self.vrfs.local_changes(vrfs);
        Rehearsed {
            config: Arc::clone(changes.table.as_ref().unwrap_or(&self.config.table)),
            ending: ending.filter_map(id).collect(),
            routes,
            joining,
            vrfs,
            not_counted: not_counted(&self.config, &changes, &absent),
            changes,
        }
    }
}

/// Changes whose effect on routes no table can evaluate alone.
fn not_counted(in_force: &Config, changes: &Changes, absent: &[Arc<str>]) -> Vec<String> {
    let unknown = [
        // Any change to a table may change what others import from it.
        (
            changes.vrf_imports_changed || in_force.imports_from_vrfs(),
            "routes that VRFs import from each other",
        ),
        (changes.host_routes.is_some(), "host routes to neighbours"),
        (
            !changes.peers_added.is_empty() || !changes.peers_restarted.is_empty(),
            "what sessions that begin or restart are sent, and what they announce",
        ),
        (
            changes.table.as_ref().is_some_and(|new| new.fib_policy != in_force.table.fib_policy),
            "which routes go to the kernel",
        ),
        (changes.calico_changed, "what follows from Calico's objects: margay calico plan"),
    ];
    let absent = absent.iter().filter(|_| changes.vrf_routes_changed);
    let absent = absent.map(|vrf| format!("routes of VRF {vrf}, which does not run"));
    let unknown = unknown.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_owned());
    absent.chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn between(old: &str, new: &str) -> Vec<String> {
        let read = |vrf: &str| {
            let text = format!(
                "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n[[vrfs]]\nname = \"blue\"\n{vrf}"
            );
            Config::parse(Path::new("m.toml"), &text).unwrap_or_else(|errors| panic!("{errors}"))
        };
        let (old, new) = (read(old), read(new));
        let changes = old.changes_to(&new);
        assert_eq!(changes.is_empty(), old == new);
        let absent: Vec<Arc<str>> = new.vrfs.iter().map(|vrf| Arc::clone(&vrf.name)).collect();
        not_counted(&old, &changes, &absent)
    }

    #[test]
    fn routes_that_vrfs_import_are_not_counted_and_said_to_be_so() {
        let imports = "import-vrf = [{ vrf = \"default\", policy = \"all\" }]\n";
        let originates = "[[originate]]\nprefix = \"10.9.0.0/16\"\nvrf = \"blue\"\n";
        let imported = "routes that VRFs import from each other";
        let own = "routes of VRF blue, which does not run";
        assert_eq!(between("", ""), [""; 0]);
        assert_eq!(between(imports, imports), [imported]);
        assert_eq!(between("", imports), [imported]);
        assert_eq!(between(imports, ""), [imported]);
        assert_eq!(between("", originates), [own]);
        assert_eq!(between(imports, &format!("{imports}{originates}")), [own, imported]);
    }
}
