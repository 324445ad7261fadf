//! A new configuration, as a difference to the running one.

use std::sync::Arc;

use bgp_proto::policy::Source;
use bgp_proto::session::{AuthKey, Close};
use bgp_proto::table::LocalRoute;
use bgp_proto::types::Prefix;
use tracing::{info, warn};

use super::Daemon;
use crate::config::{Changes, Config, RedistributeFrom};
use crate::fib::{LearnRule, LearnSource};

impl Daemon {
    /// Reads the file again and changes only what differs. A file that is wrong changes nothing.
    ///
    /// # Errors
    /// What is wrong with the file, or an address that cannot be listened on.
    pub(super) fn reload(&mut self) -> Result<Changes, String> {
        let fresh = Config::load(&self.path).map_err(|errors| errors.to_string())?;
        let old = Arc::clone(&self.config);
        let changes = old.changes_to(&fresh);
        // The one step that can fail comes first: then nothing has changed.
        self.listeners.listen(&fresh.bgp.listen).map_err(|e| e.to_string())?;
        self.config = Arc::new(fresh);
        self.apply(&old, &changes);
        self.answers.publish(&self.path, &self.config);
        info!("configuration reloaded: {changes}");
        Ok(changes)
    }

    fn apply(&mut self, old: &Config, changes: &Changes) {
        let config = Arc::clone(&self.config);
        for name in &changes.peers_removed {
            self.remove_peer(old, name, Close::Deconfigured);
        }
        for name in &changes.peers_restarted {
            self.remove_peer(old, name, Close::ConfigurationChange);
        }
        if old.table != config.table {
            self.engine.handle().configure(Arc::clone(&config.table));
        }
        self.apply_local(Some(old), &config);
        self.apply_ranges(old, &config);
        for entry in &config.peers {
            let is = |names: &[Arc<str>]| names.contains(&entry.name);
            if is(&changes.peers_added) || is(&changes.peers_restarted) {
                let key = entry.session.security.md5.as_ref();
                if let Err(e) = self.set_peer_key(entry.session.address, key) {
                    warn!(peer = %entry.name, "cannot set the TCP MD5 key: {e}");
                }
                self.peers.add(entry);
            } else if is(&changes.peers_reconfigured) {
                self.peers.reconfigure(&entry.name, entry);
            }
        }
    }

    fn remove_peer(&mut self, old: &Config, name: &Arc<str>, close: Close) {
        self.peers.remove(name, close);
        let Some(entry) = old.peers.iter().find(|entry| entry.name == *name) else { return };
        if entry.session.security.md5.is_some()
            && let Err(e) = self.set_peer_key(entry.session.address, None)
        {
            warn!(peer = %name, "cannot delete the TCP MD5 key: {e}");
        }
    }

    fn apply_ranges(&mut self, old: &Config, config: &Config) {
        if old.dynamic == config.dynamic {
            return;
        }
        for range in &old.dynamic {
            if !config.dynamic.iter().any(|kept| kept.prefix == range.prefix)
                && let Err(e) = self.listeners.set_key(range.prefix, None)
            {
                warn!("cannot delete the TCP MD5 key of {}: {e}", range.prefix);
            }
        }
        for range in &config.dynamic {
            let key = range.session.security.md5.as_ref();
            if let Err(e) = self.listeners.set_key(range.prefix, key) {
                warn!("cannot set the TCP MD5 key of {}: {e}", range.prefix);
            }
        }
        self.peers.set_ranges(&config.dynamic);
        self.peers.review_dynamic();
    }

    /// Routes of our own, and which of the kernel's are learned.
    pub(super) fn apply_local(&self, old: Option<&Config>, config: &Config) {
        let table = self.engine.handle();
        let before = old.map(|old| old.originate.as_slice()).unwrap_or_default();
        for route in before {
            if !config.originate.iter().any(|kept| kept.prefix == route.prefix) {
                table.local(route.prefix, Source::Static, None);
            }
        }
        for route in config.originate.iter().filter(|route| !before.contains(route)) {
            let local = LocalRoute {
                install: route.install.clone(),
                next_hop: None,
                hops: Vec::new(),
                interface: None,
                metric: None,
                attrs: None,
            };
            table.local(route.prefix, Source::Static, Some(local));
        }
        if old.is_none_or(|old| old.redistribute != config.redistribute) {
            self.redistribution.set_rules(&config.redistribute, table);
            self.fib.learn(learn_rules(config));
        }
    }

    pub(super) fn set_peer_key(
        &mut self,
        address: std::net::IpAddr,
        key: Option<&AuthKey>,
    ) -> std::io::Result<()> {
        self.listeners.set_key(Prefix::host(address), key)
    }
}

fn learn_rules(config: &Config) -> Vec<LearnRule> {
    config
        .redistribute
        .iter()
        .map(|rule| LearnRule {
            from: match rule.from {
                RedistributeFrom::Kernel => LearnSource::Kernel,
                RedistributeFrom::Connected => LearnSource::Connected,
            },
            protocols: rule.protocols.clone(),
            interfaces: rule.interfaces.clone(),
            prefixes: rule.prefixes.clone(),
        })
        .collect()
}
