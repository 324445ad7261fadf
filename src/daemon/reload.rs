//! Applies a new configuration as a difference from the running one.

use std::collections::HashSet;
use std::sync::Arc;

use bgp_proto::policy::Source;
use bgp_proto::session::Close;
use bgp_proto::types::{PeerId, Prefix, off_interface};
use tracing::{info, warn};

use super::Daemon;
use super::answer::ReloadRefused;
use super::local_routes::{learn_rules, originated};
use super::node::with_running_http;
use crate::config::{Changes, Config, Document, Vrf};
use crate::engine::Handle;
use crate::event_names::{KEY_REFUSED, KEYS_SET, RELOAD_REFUSED, RELOADED};
use crate::net::{KeyEntries, KeyFault};
use crate::node::{Environment, NodeSettings};

/// A valid file.
pub(super) enum Fresh {
    Own(Box<Config>),
    Calico(Box<NodeSettings>),
}

impl Daemon {
    /// Reads the file again and applies only the differences. An invalid file changes nothing.
    ///
    /// # Errors
    /// The file is invalid, or an address cannot be bound.
    pub(super) fn reload(&mut self) -> Result<Changes, String> {
        let read = self.read_again();
        let now = self.engine.handle().clock().now();
        match &read {
            // Tools check this time to see that the reload was done, also if nothing differs.
            Ok(_) => {
                self.views.publish(|state| (state.read_at, state.reload_refused) = (now, None))
            }
            Err(text) => {
                warn!(event = RELOAD_REFUSED, reason = text, "configuration not changed: {text}");
                let refused = ReloadRefused { at: now, text: text.clone() };
                self.views.publish(|state| state.reload_refused = Some(refused));
            }
        }
        read
    }

    fn read_again(&mut self) -> Result<Changes, String> {
        // The kernel may have rejected keys because of a sysctl that was raised since.
        self.set_keys();
        let Some(path) = &self.path else {
            // Changes of Calico's objects are applied as they occur, and the environment of a
            // process does not change.
            return Ok(Changes::default());
        };
        let text = Document::read(path).map_err(|errors| errors.to_string())?;
        let document = Document::parse(path, &text).map_err(|errors| errors.to_string())?;
        let changes = self.apply_fresh(self.fresh(document)?)?;
        self.confirmation.note_applied(text);
        self.show_confirmation();
        Ok(changes)
    }

    /// Applies a configuration; only the differences have an effect.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub(super) fn apply_fresh(&mut self, fresh: Fresh) -> Result<Changes, String> {
        let changes = match fresh {
            Fresh::Own(config) => self.put_in_force(*config)?,
            Fresh::Calico(settings) => return Ok(self.reload_calico(*settings)),
        };
        self.secret_faults.clear_refusal();
        self.follow_secrets();
        self.review_descriptors();
        info!(event = RELOADED, "configuration reloaded: {}", one_line(&changes));
        Ok(changes)
    }

    /// Applies what differs from the configuration in force.
    ///
    /// # Errors
    /// An address cannot be bound; nothing is changed.
    pub(super) fn put_in_force(&mut self, mut fresh: Config) -> Result<Changes, String> {
        let old = Arc::clone(&self.config);
        self.add_by_interface(&mut fresh);
        self.vrfs.show_absent(&mut fresh, &self.fib.links());
        let mut changes = old.changes_to(&fresh);
        changes.dynamic_ended = self.peers.dynamic_ending(&changes);
        // The only step that can fail comes first, so that a failure changes nothing.
        let missing = self.listeners.listen(&fresh.bgp.listen).map_err(|e| e.to_string())?;
        self.note_missing(&missing);
        fresh.keep_until_restart(&old);
        self.config = Arc::new(fresh);
        self.note_key_chains();
        self.name_vrfs();
        self.apply(&changes, &HashSet::new());
        self.review_vrfs();
        self.follow_interfaces();
        self.listeners.accept();
        if let Some(level) = changes.log_level {
            self.log.configure(level);
        }
        if changes.mrt_changed {
            self.mrt.set(self.config.host.mrt.as_ref(), &self.views.dumps);
        }
        if changes.bmp_changed {
            self.stations.set(&self.config.host.bmp);
        }
        self.views.publish(|state| state.config = Arc::clone(&self.config));
        Ok(changes)
    }

    /// The differences that a reload would find.
    ///
    /// # Errors
    /// The file is invalid.
    pub(super) fn changes_of_file(&self) -> Result<Changes, String> {
        Ok(self.intended_by_file()?.0)
    }

    /// The same, with the VRFs that would be configured.
    ///
    /// # Errors
    /// The file is invalid.
    pub(super) fn intended_by_file(&self) -> Result<(Changes, Vec<Vrf>), String> {
        let own = || self.config.vrfs.clone();
        let Some(path) = &self.path else { return Ok((Changes::default(), own())) };
        match (self.read(path)?, &self.node) {
            (Fresh::Own(mut config), _) => {
                self.with_by_interface(&mut config);
                self.vrfs.show_absent(&mut config, &self.fib.links());
                let mut changes = self.config.changes_to(&config);
                changes.dynamic_ended = self.peers.dynamic_ending(&changes);
                Ok((changes, config.vrfs))
            }
            (Fresh::Calico(settings), Some(node)) if *settings != *node.settings() => {
                Ok((self.changes_to_calico(&settings, node.settings()), own()))
            }
            (Fresh::Calico(_), _) => Ok((Changes::default(), own())),
        }
    }

    /// Reads and validates the file.
    fn read(&self, path: &std::path::Path) -> Result<Fresh, String> {
        self.fresh(Document::load(path).map_err(|errors| errors.to_string())?)
    }

    /// The content of a valid file, if it can take the place of the one in force.
    pub(super) fn fresh(&self, document: Document) -> Result<Fresh, String> {
        match (document, &self.node) {
            (Document::Own(config), None) => Ok(Fresh::Own(config)),
            (Document::Calico { calico, host }, Some(_)) => {
                let settings = NodeSettings::from_file(*calico, *host, &Environment::of_process())
                    .map_err(|error| error.to_string())?;
                let settings =
                    settings.ok_or("the environment says that this node speaks no BGP")?;
                Ok(Fresh::Calico(Box::new(settings)))
            }
            _ => Err("[calico] was added or removed: restart margay to apply this".into()),
        }
    }

    fn changes_to_calico(&self, settings: &NodeSettings, running: &NodeSettings) -> Changes {
        let host = Config { host: settings.host.clone(), ..Config::clone(&self.config) };
        let mut changes = self.config.changes_to(&host);
        let NodeSettings { calico, sources, limits, .. } = running;
        changes.calico_changed =
            (calico, sources, limits) != (&settings.calico, &settings.sources, &settings.limits);
        changes
    }

    /// Follows the datastores of the new settings, unless the settings are the same. Sessions and
    /// routes are unchanged until there is a plan from the new datastores.
    fn reload_calico(&mut self, settings: NodeSettings) -> Changes {
        let Some(running) = self.node.as_ref().map(|node| node.settings()) else {
            return Changes::default();
        };
        if settings == *running {
            return Changes::default();
        }
        let changes = self.changes_to_calico(&settings, running);
        if let Some(level) = changes.log_level {
            self.log.configure(level);
        }
        if changes.mrt_changed {
            self.mrt.set(settings.host.mrt.as_ref(), &self.views.dumps);
        }
        if changes.bmp_changed {
            self.stations.set(&settings.host.bmp);
        }
        let Some(node) = &mut self.node else { return Changes::default() };
        let http = settings.host.http.clone();
        node.follow_anew(settings);
        self.views.set_node(node.follower());
        // A page that is closed, or a token that was changed, does not wait for the datastore.
        self.views.publish(|state| {
            let running = state.config.host.http.as_ref();
            state.config = with_running_http(&state.config, http.as_ref(), running);
        });
        info!(event = RELOADED, "configuration reloaded: {}", one_line(&changes));
        changes
    }

    /// Carries out the changes that lead to the configuration now in force. Removed peers that are
    /// named in `parting` end without a NOTIFICATION. Returns the peers that were added.
    ///
    /// Peers are removed before ranges change and added after: a new peer must find its key set and
    /// its address free.
    pub(super) fn apply(&mut self, changes: &Changes, parting: &HashSet<Arc<str>>) -> Vec<PeerId> {
        for name in &changes.peers_removed {
            let close =
                if parting.contains(name) { Close::GracefulStop } else { Close::Deconfigured };
            self.peers.remove(name, close);
        }
        for entry in &changes.peers_restarted {
            self.peers.remove(&entry.name, Close::ConfigurationChange);
        }
        self.set_keys();
        if changes.drain_changed {
            self.drain_by_object();
        }
        if let Some(table) = &changes.table {
            self.engine.handle().configure(Arc::clone(table));
            for vrf in self.vrfs.all() {
                vrf.engine.handle().configure(Arc::clone(table));
            }
            self.tell_tunnels();
        }
        self.apply_local(changes);
        if let Some(dynamic) = &changes.dynamic {
            self.peers.set_ranges(&dynamic.ranges);
            self.peers.review_dynamic();
        }
        for (before, entry) in &changes.peers_renamed {
            self.peers.rename(before, entry);
        }
        for entry in &changes.peers_retimed {
            self.peers.retime(&entry.name, entry);
        }
        for entry in &changes.peers_reconfigured {
            self.peers.reconfigure(&entry.name, entry);
        }
        let started = changes.peers_restarted.iter().chain(&changes.peers_added);
        let added = started.map(|entry| self.peers.add(entry)).collect();
        self.show_key_faults();
        self.review_announcements();
        added
    }

    /// Puts the keys of the configuration in force on every listening socket.
    pub(super) fn set_keys(&mut self) {
        self.keys_due = None;
        self.listeners.set_keys(key_entries(&self.config, None));
        self.vrfs.set_keys(|vrf| key_entries(&self.config, Some(vrf)));
        self.review_keys();
    }

    /// Checks which keys the kernel rejected, and logs those that were not rejected before.
    pub(super) fn review_keys(&mut self) {
        let own = self.listeners.key_faults().into_iter().map(|fault| (None, fault));
        let mut faults: Vec<KeyFaultIn> = own.collect();
        for (name, vrf) in self.vrfs.by_name() {
            let there = vrf.listeners.key_faults().into_iter();
            faults.extend(there.map(|fault| (Some(Arc::clone(name)), fault)));
        }
        faults.sort_by(|(a, first), (b, second)| (a, first.prefix).cmp(&(b, second.prefix)));
        let is_new = |fault: &&KeyFaultIn| !self.key_faults.contains(fault);
        for (vrf, fault) in faults.iter().filter(is_new).take(LOGGED_CHANGES_MAX) {
            match vrf {
                Some(vrf) => {
                    warn!(event = KEY_REFUSED, prefix = %fault.prefix, %vrf, reason = %fault.text, "{} in VRF {vrf}: {}", fault.prefix, fault.text);
                }
                None => {
                    warn!(event = KEY_REFUSED, prefix = %fault.prefix, reason = %fault.text, "{}: {}", fault.prefix, fault.text);
                }
            }
        }
        let new = faults.iter().filter(is_new).count();
        if new > LOGGED_CHANGES_MAX {
            warn!("and {} more, for the same reasons", new - LOGGED_CHANGES_MAX);
        }
        if faults.is_empty() && !self.key_faults.is_empty() {
            info!(event = KEYS_SET, "every key of TCP MD5 and TCP-AO is set");
        }
        self.key_faults = faults;
        self.show_key_faults();
    }

    /// Makes `show peers` report which peers cannot connect because their key is not set.
    fn show_key_faults(&self) {
        let now = self.engine.handle().clock().now();
        for record in self.peers.registry().all() {
            let host = Prefix::host(off_interface(record.address).0);
            let wanted = (&record.session.vrf, host);
            let at = self.key_faults.binary_search_by(|(vrf, f)| (vrf, f.prefix).cmp(&wanted)).ok();
            let fault = at.and_then(|at| self.key_faults.get(at));
            record.handle.set_fault(now, fault.map(|(_, fault)| fault.text.clone()));
        }
    }

    /// Applies changes to originated routes, redistribution and host routes.
    pub(super) fn apply_local(&self, changes: &Changes) {
        let table = self.engine.handle();
        apply_originate(changes, table);
        self.redistribution.apply(changes, table);
        if let Some(rules) = &changes.redistribute {
            self.fib.learn(learn_rules(rules));
        }
        if let Some(routes) = &changes.host_routes {
            self.next_hops.set_host_routes(routes, &self.fib, table);
        }
    }
}

/// A neighbour that cannot connect, with its VRF; `None`: the default VRF.
pub(super) type KeyFaultIn = (Option<Arc<str>>, KeyFault);

/// Applies changes to originated routes to a table.
pub(super) fn apply_originate(changes: &Changes, table: &Handle) {
    for prefix in &changes.originate_withdrawn {
        table.local(*prefix, Source::Static, None);
    }
    for route in changes.originate_changed.iter().chain(&changes.originate_added) {
        table.local(route.prefix, Source::Static, Some(originated(route)));
    }
}

/// Every neighbour and range in a VRF, with its key if it has one.
pub(super) fn key_entries(config: &Config, vrf: Option<&Arc<str>>) -> KeyEntries {
    let ranges = config.dynamic.iter().filter(|range| range.session.vrf.as_ref() == vrf);
    let ranges = ranges.map(|range| (range.prefix, &range.session));
    let peers = config.peers.iter().filter(|peer| peer.session.vrf.as_ref() == vrf);
    let hosts = peers.map(|p| (Prefix::host(off_interface(p.session.address).0), &p.session));
    let mut entries = KeyEntries::default();
    // Later entries replace earlier ones: a peer takes precedence over a range of one address.
    for (prefix, session) in ranges.chain(hosts) {
        entries.md5.insert(prefix, session.security.md5.clone());
        match &session.security.ao {
            Some(chain) => entries.ao.insert(prefix, Arc::clone(chain)),
            None => entries.ao.remove(&prefix),
        };
    }
    entries
}

/// Most changes that one log line names.
const LOGGED_CHANGES_MAX: usize = 20;

/// Summarises changes in one log line, because a line that names thousands of peers would be
/// unreadable or truncated. `margay reload` prints them all.
pub(super) fn one_line(changes: &Changes) -> String {
    let all = changes.to_string();
    let mut changes = all.lines();
    let mut line: Vec<String> =
        changes.by_ref().take(LOGGED_CHANGES_MAX).map(str::to_owned).collect();
    let more = changes.count();
    line.extend((more > 0).then(|| format!("and {more} more")));
    line.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_line_names_some_changes_and_counts_the_rest() {
        let peers_removed: Vec<Arc<str>> = (0..3000).map(|n| format!("p{n}").into()).collect();
        let line = one_line(&Changes { peers_removed, ..Changes::default() });
        assert!(line.starts_with("peer p0: removed; peer p1: removed; "), "{line}");
        assert!(line.ends_with("peer p19: removed; and 2980 more"), "{line}");
        let two = Changes { peers_removed: vec!["a".into(), "b".into()], ..Changes::default() };
        assert_eq!(one_line(&two), "peer a: removed; peer b: removed");
    }
}
