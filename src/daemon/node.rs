//! Applies the configurations that follow from Calico's objects.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::policy::Change;
use bgp_proto::session::{PeerConfig, State};
use bgp_proto::table::Dependence;
use bgp_proto::types::PeerId;
use tokio::time::Instant;
use tracing::{debug, info};

use super::Daemon;
use super::deferral::{self, FirstExport};
use super::handover::Step;
use crate::calico::Touched;
use crate::config::{Config, HttpSettings, PeerEntry, differing_peers};
use crate::node::{Follower, NodeSettings, Update};
use crate::plural::counted;

/// The part of the daemon that exists on a Calico node only.
pub(super) struct Node {
    settings: NodeSettings,
    follower: Follower,
    /// The newest configuration that followed from the objects; `None` before the first.
    planned: Option<Arc<Config>>,
    /// The pending query to the table whether destinations depend on parting peers.
    answer: Option<tokio::task::JoinHandle<Option<bool>>>,
    /// Peers whose established session keeps its previous role (active or passive).
    kept_roles: BTreeSet<Arc<str>>,
    /// Parting peers, which run although the plan no longer has them.
    parting: BTreeSet<Arc<str>>,
}

impl Node {
    /// Starts following the objects in the datastores that the settings name.
    pub(super) fn start(settings: NodeSettings) -> Self {
        let follower = crate::node::follow(&settings);
        Node {
            settings,
            follower,
            planned: None,
            answer: None,
            kept_roles: BTreeSet::new(),
            parting: BTreeSet::new(),
        }
    }

    pub(super) fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// Follows the datastores of other settings. The running configuration stays in force until
    /// everything has been listed there.
    pub(super) fn follow_anew(&mut self, settings: NodeSettings) {
        self.follower = crate::node::follow(&settings);
        self.settings = settings;
    }

    /// The current follower of the objects.
    pub(super) fn follower(&self) -> &Follower {
        &self.follower
    }
}

/// An input that exists on a Calico node only.
pub(super) enum NodeInput {
    Update(Update),
    /// The table's answer: whether destinations depend on parting peers alone.
    Dependence(bool),
}

/// Waits for the next input; for ever if this is not a Calico node.
pub(super) async fn next_input(node: &mut Option<Node>) -> NodeInput {
    let Some(node) = node else { return std::future::pending().await };
    let answered = async {
        match &mut node.answer {
            Some(answer) => answer.await.ok().flatten().unwrap_or(false),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        depends = answered => {
            node.answer = None;
            NodeInput::Dependence(depends)
        }
        Some(update) = node.follower.updates.recv() => NodeInput::Update(update),
        else => std::future::pending().await,
    }
}

impl Daemon {
    pub(super) fn on_node_input(&mut self, input: NodeInput) {
        match input {
            NodeInput::Update(update) => self.on_update(update),
            NodeInput::Dependence(true) => {}
            NodeInput::Dependence(false) => {
                let ended = self.convergence.handover.take_all();
                self.end_parting(ended);
            }
        }
    }

    /// Puts a new configuration into force. Sessions of neighbours that may part stay up for a
    /// while if there are other neighbours.
    fn on_update(&mut self, update: Update) {
        let now = self.engine.handle().clock().now();
        let Some(node) = &mut self.node else { return };
        let is_first = node.planned.replace(Arc::clone(&update.config)).is_none();
        let address = |entry: &PeerEntry| entry.session.address;
        let may_part: HashSet<IpAddr> = update.parted.iter().copied().collect();
        let over: Vec<IpAddr> = self.convergence.handover.parting().map(address).collect();
        let wanted: HashSet<IpAddr> = match may_part.is_empty() && over.is_empty() {
            // No peer is parting, so the set is not needed.
            true => HashSet::new(),
            false => update.config.peers.iter().map(address).collect(),
        };
        for addr in over.into_iter().filter(|a| wanted.contains(a) || !may_part.contains(a)) {
            self.convergence.handover.forget(addr);
        }
        // Neighbours that remain or are new may carry the routes of those that are removed.
        if !wanted.is_empty() {
            let registry = self.peers.registry();
            // A session that never came up has no routes that others would have to carry first.
            let was_up = |entry: &PeerEntry| {
                let record = registry.find(&entry.name);
                record.is_some_and(|r| r.handle.numbers().stats.established_transitions > 0)
            };
            let leaving = |entry: &&PeerEntry| {
                let addr = entry.session.address;
                !wanted.contains(&addr) && may_part.contains(&addr) && was_up(entry)
            };
            let leaving: Vec<PeerEntry> =
                self.config.peers.iter().filter(leaving).cloned().collect();
            if !leaving.is_empty() {
                info!(
                    "{} will close once other sessions carry their routes",
                    counted(leaving.len(), "session")
                );
                self.convergence.handover.part(leaving, now);
                if let Some(node) = &mut self.node {
                    // A pending query does not cover these peers.
                    node.answer = None;
                }
            }
        }
        let first_export = is_first.then(|| deferral::first_export(&update.config));
        if first_export == Some(FirstExport::Deferred) {
            self.engine.handle().defer_export();
        }
        self.put_into_force(&update.config, &update.touched, &HashSet::new());
        if let Some(first_export) = first_export {
            self.begin_startup(first_export);
        }
    }

    /// Applies the plan together with the parting neighbours; `parting` names the peers to end
    /// without a NOTIFICATION. Peers that are not `touched` are the same as in the previous plan.
    ///
    /// The running configuration differs from the plan by parting peers and kept roles, so these
    /// are compared as well, both before and after the change.
    fn put_into_force(&mut self, planned: &Config, touched: &Touched, parting: &HashSet<Arc<str>>) {
        let Some(node) = &mut self.node else { return };
        let handover = &self.convergence.handover;
        let parts = handover.parting().map(|entry| Arc::clone(&entry.name)).collect();
        let parted = std::mem::replace(&mut node.parting, parts);
        // The running configuration is the previous plan except for these.
        let mut suspects = touched.clone();
        for names in [parted, node.parting.clone(), node.kept_roles.clone()] {
            suspects.extend(&Touched::These(names));
        }
        let mut config = planned.clone();
        let kept = self.keep_roles(&mut config, suspects.names());
        if let Some(node) = &mut self.node {
            node.kept_roles = kept;
        }
        config.peers.extend(self.convergence.handover.parting().cloned());
        let old = std::mem::replace(&mut self.config, Arc::new(config));
        let mut changes = old.changes_among(&self.config, suspects.names());
        debug_assert_eq!(changes, old.changes_to(&self.config), "{suspects:?}");
        if changes.is_empty() {
            return;
        }
        let added = self.apply(&changes, parting);
        self.listen();
        let names = self.convergence.handover.parting().map(|entry| entry.name.to_string());
        let parting = names.collect();
        let now = self.engine.handle().clock().now();
        added.into_iter().for_each(|peer| self.convergence.handover.handle_added(peer, now));
        self.views.publish(|state| {
            let (new, running) = (&self.config.host.http, &state.config.host.http);
            let shown = with_running_http(&self.config, new.as_ref(), running.as_ref());
            (state.config, state.read_at) = (shown, now);
            state.parting = parting;
        });
        // Bandwidths follow the endpoints of services: their lines would bury the others.
        let weighted = std::mem::take(&mut changes.originate_changed);
        weighted.iter().for_each(|route| debug!("originate {}: changed", route.prefix));
        let lines = changes.lines();
        match lines.as_slice() {
            [..] if lines.len() <= 20 => lines.iter().for_each(|line| info!("{line}")),
            _ => info!("{} changes: {}, …", lines.len(), lines[..3].join(", ")),
        }
    }

    /// The newest configuration that followed from the objects.
    pub(super) fn planned(&self) -> Option<&Arc<Config>> {
        self.node.as_ref()?.planned.as_ref()
    }

    /// A configuration that follows from objects, as it would run: with kept roles, and neighbours that
    /// part.
    pub(super) fn with_exceptions(&self, mut config: Config) -> Config {
        self.keep_roles(&mut config, None);
        let addresses: HashSet<IpAddr> =
            config.peers.iter().map(|entry| entry.session.address).collect();
        let parting = self.convergence.handover.parting();
        let parting = parting.filter(|entry| !addresses.contains(&entry.session.address));
        config.peers.extend(parting.cloned());
        config
    }

    /// Keeps established sessions up whose only change is which side dials: that matters only when
    /// there is no session. Returns the names of these peers.
    fn keep_roles(
        &self,
        config: &mut Config,
        suspects: Option<&BTreeSet<Arc<str>>>,
    ) -> BTreeSet<Arc<str>> {
        let (running, planned) = differing_peers(&self.config.peers, &config.peers, suspects);
        let running: HashMap<IpAddr, &PeerEntry> =
            running.into_iter().map(|entry| (entry.session.address, entry)).collect();
        let mut kept = HashMap::new();
        for entry in planned {
            let Some(old) = running.get(&entry.session.address) else { continue };
            if Arc::ptr_eq(&old.session, &entry.session)
                || old.session.passive == entry.session.passive
            {
                continue;
            }
            let passive = old.session.passive;
            let in_old_role = PeerConfig { passive, ..PeerConfig::clone(&entry.session) };
            let record = self.peers.registry().find(&old.name);
            let is_up = record.is_some_and(|r| r.handle.snapshot().state == State::Established);
            if is_up && in_old_role == *old.session {
                kept.insert(Arc::clone(&entry.name), Arc::clone(&old.session));
            }
        }
        if !kept.is_empty() {
            for entry in &mut config.peers {
                if let Some(session) = kept.get(&entry.name) {
                    entry.session = Arc::clone(session);
                }
            }
        }
        kept.into_keys().collect()
    }

    /// A session went down: if its role was kept, the planned role is applied now.
    pub(super) fn change_kept_role(&mut self, peer: PeerId) {
        let Some(record) = self.peers.registry().get(peer) else { return };
        let Some(node) = &mut self.node else { return };
        if node.kept_roles.contains(&record.name)
            && let Some(planned) = node.planned.clone()
        {
            self.put_into_force(&planned, &Touched::default(), &HashSet::new());
        }
    }

    /// Ends the sessions of parting neighbours.
    fn end_parting(&mut self, ended: Vec<PeerEntry>) {
        let planned = self.node.as_ref().and_then(|node| node.planned.clone());
        let Some(planned) = planned.filter(|_| !ended.is_empty()) else { return };
        let sessions = counted(ended.len(), "session");
        info!("closing {sessions}: other sessions carry their routes");
        let names = ended.into_iter().map(|entry| entry.name).collect();
        self.put_into_force(&planned, &Touched::default(), &names);
    }

    /// Checks whether parting neighbours can end; returns when to check again.
    pub(super) fn check_handover(&mut self) -> Option<Instant> {
        let clock = self.engine.handle().clock();
        loop {
            match self.convergence.handover.poll(clock.now()) {
                Step::Nothing => return None,
                Step::Wait(at) => return Some(Instant::from_std(clock.instant(at))),
                Step::Look => self.ask_dependence(),
                Step::Expire => {
                    let ended = self.convergence.handover.take_expired(clock.now());
                    self.end_parting(ended);
                }
            }
        }
    }

    /// Asks the table whether destinations depend on parting peers alone, one slice at a time.
    fn ask_dependence(&mut self) {
        let registry = self.peers.registry();
        let names =
            self.convergence.handover.parting().filter_map(|entry| registry.find(&entry.name));
        let peers: BTreeSet<_> = names.map(|record| record.id).collect();
        let table = self.engine.handle().clone();
        if let Some(node) = &mut self.node
            && node.answer.is_none()
        {
            node.answer = Some(tokio::spawn(async move {
                let mut cursor = 0;
                loop {
                    let peers = peers.clone();
                    match table.ask(move |table, _| table.depends_on(&peers, cursor)).await? {
                        Dependence::Yes => return Some(true),
                        Dependence::No => return Some(false),
                        Dependence::NotUpTo(next) => cursor = next,
                    }
                }
            }));
        }
    }

    /// Reports to the table which tunnel interfaces of the FIB policy exist and are up.
    pub(super) fn tell_tunnels(&self) {
        let policy = self.config.table.fib_policy.as_deref();
        let changes = policy.iter().flat_map(|p| &p.rules).flat_map(|rule| &rule.changes);
        let named: BTreeSet<Arc<str>> = changes
            .filter_map(|change| match change {
                Change::Tunnel(name) => Some(Arc::clone(name)),
                _ => None,
            })
            .collect();
        let links = self.fib.links();
        let exists: BTreeMap<Arc<str>, u32> = named
            .into_iter()
            .filter_map(|name| {
                let link = links.iter().find(|link| *link.name == *name && link.up)?;
                Some((name, link.index))
            })
            .collect();
        self.engine.handle().tunnels(exists);
    }
}

/// A configuration as it is shown and served, once `http` is configured: with the address that is listened
/// on, and what belongs to it.
pub(super) fn with_running_http(
    config: &Arc<Config>,
    http: Option<&HttpSettings>,
    running: Option<&HttpSettings>,
) -> Arc<Config> {
    let http = HttpSettings::until_restart(http, running);
    if config.host.http == http {
        return Arc::clone(config);
    }
    let mut shown = Config::clone(config);
    shown.host.http = http;
    Arc::new(shown)
}
