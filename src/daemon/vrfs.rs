//! VRFs: each has a table, a kernel writer, listening sockets and a directory of its own; the
//! daemon's task, the peers' tasks and the control sockets are shared.
//!
//! An instance exists while the VRF's device does. Until then, and after the device was deleted,
//! the configured peers of the VRF are idle and say why. Without configured VRFs nothing of this
//! runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bgp_proto::session::{Close, PeerConfig};
use bgp_proto::types::SessionId;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::deferral::{FirstExport, first_export};
use super::fallover::Fallover;
use super::last_run::KernelPlace;
use super::leaks::Leaks;
use super::local_routes::learn_rules;
use super::next_hops::NextHops;
use super::redistribution::Redistribution;
use super::registry::{Place, Record};
use super::reload::key_entries;
use super::running::{Running, Shown};
use super::startup::Lookups;
use super::wiring::{KernelGate, Reports, Threads, find_beside};
use super::{Daemon, FIRST_READING};
use crate::bfd::VrfDevice;
use crate::config::{Changes, Config, Vrf};
use crate::engine::Engine;
use crate::event_names::{VRF_DOWN, VRF_UP};
use crate::kernel::{Fib, Leave, Link, ids_of_table, shared_sockets};
use crate::net::{Directory, KeyEntries, Listeners, RestartState, Unbound};

/// Pause after an instance could not begin for lack of threads, descriptors or memory.
const BEGIN_RETRY: Duration = Duration::from_secs(5);

/// A VRF whose device exists.
pub(super) struct Instance {
    /// What of the configuration is in force in it.
    config: Vrf,
    device: Device,
    pub(super) engine: Engine,
    pub(super) fib: Fib,
    redistribution: Redistribution,
    next_hops: NextHops,
    pub(super) gate: KernelGate,
    pub(super) listeners: Listeners,
    fallover: Fallover,
    /// The restart state that our OPENs announce in it.
    recovery: RestartState,
    /// Notified after the first dump of the kernel's routes.
    synchronised: Arc<Notify>,
}

/// An instance whose routes are being withdrawn.
struct Ending {
    table: u32,
    has_ended: Arc<AtomicBool>,
}

/// A VRF's device. One that was made again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Device {
    index: u32,
    table: u32,
}

impl Device {
    fn find(links: &[Link], name: &str) -> Option<Device> {
        let link = links.iter().find(|link| link.name == name && link.traits.is_vrf)?;
        Some(Device { index: link.index, table: link.traits.vrf? })
    }
}

/// When an instance begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// With the daemon: its routes of an earlier run are kept until peers have sent theirs.
    AtStart(FirstExport),
    /// Later, because the VRF has come or was configured.
    Later,
}

/// The instances, and those that are ending.
pub(super) struct Vrfs {
    reports: Reports,
    seed: u64,
    running: BTreeMap<Arc<str>, Instance>,
    shown: Running,
    /// Instances whose routes are being withdrawn. The next one with this table begins after that.
    ending: BTreeMap<Arc<str>, Ending>,
    /// Why a configured VRF does not run.
    absent: BTreeMap<Arc<str>, Arc<str>>,
    leaks: Leaks,
}

impl Vrfs {
    pub(super) fn new(reports: Reports, seed: u64) -> Vrfs {
        let shown = Running::default();
        Vrfs {
            leaks: Leaks::new(reports.offers.clone(), shown.full_imports().clone()),
            reports,
            seed,
            running: BTreeMap::new(),
            shown,
            ending: BTreeMap::new(),
            absent: BTreeMap::new(),
        }
    }

    /// Tells whether a link is in no instance.
    pub(super) fn outside(&self) -> impl Fn(&Link) -> bool + Send + Sync + 'static + use<> {
        let running = self.shown.clone();
        move |link| running.has_not(link)
    }

    pub(super) fn shown(&self) -> Running {
        self.shown.clone()
    }

    /// The instances, in order of their names.
    pub(super) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.running.values()
    }

    /// The instances with their names.
    pub(super) fn by_name(&self) -> impl Iterator<Item = (&Arc<str>, &Instance)> {
        self.running.iter()
    }

    /// Whether every next hop of every table has been looked up, and every route has reached the VRFs
    /// that import it.
    pub(super) fn lookups(&self, default: &NextHops) -> Lookups {
        let all = self.running.values().map(|vrf| &vrf.next_hops);
        let is_pending =
            std::iter::once(default).chain(all).any(|n| n.lookups() == Lookups::Pending);
        if is_pending || self.leaks.is_pending() { Lookups::Pending } else { Lookups::Done }
    }

    /// Makes the peers of VRFs that do not run idle, and those whose `bind-interface` is in another
    /// VRF than they are; the others not.
    pub(super) fn show_absent(&self, config: &mut Config, links: &[Link]) {
        if config.vrfs.is_empty() {
            return;
        }
        for peer in &mut config.peers {
            let idle = self.why_idle(&peer.session, links);
            // A peer by interface may be idle for other reasons.
            let is_other = peer.interface.is_none() || idle.is_some();
            if is_other && peer.session.idle != idle {
                peer.session = Arc::new(PeerConfig { idle, ..PeerConfig::clone(&peer.session) });
            }
        }
    }

    fn why_idle(&self, session: &PeerConfig, links: &[Link]) -> Option<Arc<str>> {
        let running = session.vrf.as_ref().map(|vrf| (vrf, self.running.get(vrf)));
        if let Some((vrf, None)) = running {
            let why = self.absent.get(vrf).cloned();
            return Some(why.unwrap_or_else(|| format!("there is no VRF {vrf}").into()));
        }
        let device = session.bind_interface.as_deref()?;
        let there = links.iter().find(|link| link.name == device)?.traits.vrf;
        let (is_there, own) = match running {
            Some((vrf, Some(instance))) => (there == Some(instance.device.table), &**vrf),
            _ => (self.running.values().all(|vrf| Some(vrf.device.table) != there), "default"),
        };
        // Its routes would be those of another VRF.
        (!is_there).then(|| format!("bind-interface {device} is not in VRF {own}").into())
    }

    /// How local routes of those that run would differ, and the others that have any.
    pub(super) fn local_changes(
        &self,
        intended: &[Vrf],
    ) -> (BTreeMap<Arc<str>, Changes>, Vec<Arc<str>>) {
        let (mut changes, mut absent) = (BTreeMap::new(), Vec::new());
        for vrf in intended {
            match self.running.get(&vrf.name) {
                Some(instance) => {
                    changes.insert(Arc::clone(&vrf.name), instance.config.changes_to(vrf));
                }
                None if vrf.originate.is_empty() && vrf.redistribute.is_empty() => {}
                None => absent.push(Arc::clone(&vrf.name)),
            }
        }
        (changes, absent)
    }

    /// Finds the VRF of a link.
    pub(super) fn vrf_of_link(&self) -> impl Fn(&Link) -> Option<Arc<str>> {
        |link| {
            let is_there = |(_, vrf): &(_, &Instance)| link.traits.vrf == Some(vrf.device.table);
            self.running.iter().find(is_there).map(|(name, _)| Arc::clone(name))
        }
    }

    /// Finds the next hops in use in a VRF; `default`: those of the default VRF.
    pub(super) fn next_hops_in<'a>(
        &'a self,
        default: &'a NextHops,
    ) -> impl Fn(Option<&Arc<str>>) -> BTreeSet<IpAddr> + use<'a> {
        move |vrf| {
            let there = vrf.and_then(|vrf| self.running.get(vrf)).map(|vrf| &vrf.next_hops);
            there.unwrap_or(default).wanted()
        }
    }

    /// The routes of earlier runs are not waited for any more.
    pub(super) fn end_of_startup(&self) {
        self.running.values().for_each(Instance::end_of_startup);
    }

    /// Sets the TCP MD5 keys of every instance.
    pub(super) fn set_keys(&mut self, keys: impl Fn(&Arc<str>) -> KeyEntries) {
        for (name, vrf) in &mut self.running {
            vrf.listeners.set_keys(keys(name));
        }
    }

    /// Listens in every instance; returns the addresses that cannot be bound.
    pub(super) fn listen(&mut self) -> Vec<Unbound> {
        let mut missing = Vec::new();
        for vrf in self.running.values_mut() {
            missing.extend(vrf.listeners.listen_where_possible(&vrf.config.listen));
            vrf.listeners.accept();
        }
        missing
    }

    /// No connection is accepted any more, and no change of a table reaches the kernel or another table.
    pub(super) fn begin_stop(&mut self) {
        self.leaks.stop();
        for vrf in self.running.values_mut() {
            vrf.listeners.listen_where_possible(&[]);
            vrf.gate.close();
        }
    }

    /// Ends the tables.
    pub(super) fn stop_engines(self) {
        self.running.into_values().for_each(|vrf| vrf.engine.stop());
    }

    /// Whether nothing can run, is running or was running.
    fn is_unused(&self, config: &Config) -> bool {
        config.vrfs.is_empty() && self.running.is_empty() && self.ending.is_empty()
    }

    /// The instances whose device is not the same any more, or that are not configured.
    fn outlived(&self, config: &Config, links: &[Link]) -> Vec<Arc<str>> {
        let is_wanted = |name: &Arc<str>| config.vrfs.iter().any(|vrf| vrf.name == *name);
        let outlived = self.running.iter().filter(|(name, vrf)| {
            !is_wanted(name) || Device::find(links, name) != Some(vrf.device)
        });
        outlived.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The device with which an instance can begin, or why it cannot.
    fn device(&self, name: &Arc<str>, config: &Config, links: &[Link]) -> Result<Device, String> {
        let device = Device::find(links, name);
        let device = device.ok_or_else(|| format!("there is no VRF {name}"))?;
        let table = device.table;
        if table == config.fib.table {
            return Err(format!(
                "the table of VRF {name}, {table}, is that of the default VRF (fib.table)"
            ));
        }
        // Its writer would delete the next-hop objects of the other one.
        let collides = |other: u32| ids_of_table(other) == ids_of_table(table);
        if collides(config.fib.table) {
            return Err(format!(
                "the table of VRF {name}, {table}, and that of the default VRF, {} (fib.table), \
                 use the same ids of next-hop objects: give the VRF another table",
                config.fib.table
            ));
        }
        if let Some((other, vrf)) = self.running.iter().find(|(_, vrf)| collides(vrf.device.table))
        {
            return Err(format!(
                "VRF {other} has table {}, and VRF {name} {table}: they are the same, or use the \
                 same ids of next-hop objects; give one of them another table",
                vrf.device.table
            ));
        }
        if let Some((earlier, _)) =
            self.ending.iter().find(|(other, ending)| *other == name || collides(ending.table))
        {
            return Err(format!("the routes of an earlier VRF {earlier} are being withdrawn"));
        }
        Ok(device)
    }

    /// Reviews the VRFs again after [`BEGIN_RETRY`].
    fn try_again(&self) {
        let links = Arc::clone(&self.reports.links);
        tokio::spawn(async move {
            tokio::time::sleep(BEGIN_RETRY).await;
            links.notify_one();
        });
    }

    /// Ends an instance: its routes are withdrawn from its table, beside everything else.
    fn end(&mut self, name: &Arc<str>, config: &Config) {
        let Some(instance) = self.running.remove(name) else { return };
        self.shown.set(name, None);
        let what = "its sessions end, and its routes are withdrawn";
        if config.vrfs.iter().any(|vrf| vrf.name == *name) {
            warn!(event = VRF_DOWN, vrf = %name, "VRF {name} has gone: {what}");
        } else {
            info!(event = VRF_DOWN, vrf = %name, "VRF {name} is not configured any more: {what}");
        }
        instance.gate.close();
        let links = Arc::clone(&self.reports.links);
        let Instance { engine, fib, device, .. } = instance;
        let has_ended = Arc::new(AtomicBool::new(false));
        let ending = Ending { table: device.table, has_ended: Arc::clone(&has_ended) };
        let withdrawn = tokio::task::spawn_blocking(move || {
            fib.stop(Leave::Withdraw);
            engine.stop();
        });
        tokio::spawn(async move {
            // An error is a panic, which has been reported.
            let _ = withdrawn.await;
            has_ended.store(true, Ordering::Release);
            // The next one may begin.
            links.notify_one();
        });
        self.ending.insert(Arc::clone(name), ending);
    }
}

impl Daemon {
    /// Before any peer is added: VRFs that exist get their instances.
    pub(super) async fn begin_vrfs(&mut self) {
        self.name_vrfs();
        if self.vrfs.is_unused(&self.config) {
            return;
        }
        shared_sockets().iter().for_each(|text| warn!("{text}"));
        self.begin_instances(Begin::AtStart(first_export(&self.config)));
        // As for the default VRF: our OPENs depend on the first dump.
        let dumps = async {
            for vrf in self.vrfs.all() {
                vrf.synchronised.notified().await;
            }
        };
        // On a time-out they announce that forwarding state was preserved.
        let _ = tokio::time::timeout(FIRST_READING, dumps).await;
        let mut config = Config::clone(&self.config);
        self.vrfs.show_absent(&mut config, &self.fib.links());
        self.config = Arc::new(config);
        self.views.publish(|state| state.config = Arc::clone(&self.config));
    }

    /// The default VRF's listening sockets refuse connections in the configured VRFs.
    pub(super) fn name_vrfs(&self) {
        let names = self.config.vrfs.iter().map(|vrf| Arc::clone(&vrf.name)).collect();
        self.listeners.set_vrfs(names);
    }

    /// Listens in the VRFs that exist at the start.
    pub(super) fn listen_in_vrfs(&mut self) {
        if !self.vrfs.running.is_empty() {
            self.listen();
        }
    }

    /// Links or the configuration have changed: VRFs come, go, or change.
    pub(super) fn review_vrfs(&mut self) {
        if self.vrfs.is_unused(&self.config) {
            return;
        }
        let has_ended = |ending: &mut Ending| ending.has_ended.load(Ordering::Acquire);
        for (name, _) in self.vrfs.ending.extract_if(.., |_, ending| has_ended(ending)) {
            self.run_file.note_vrf(&name, None);
        }
        let outlived = self.vrfs.outlived(&self.config, &self.fib.links());
        for name in &outlived {
            self.vrfs.end(name, &self.config);
            self.peers.forget_place(name);
        }
        if !outlived.is_empty() {
            // Their threads no longer answer.
            self.views.liveness.forget();
            self.follow_vrfs();
        }
        self.begin_instances(Begin::Later);
        self.follow_vrfs();
        self.reconfigure_instances();
        self.listen();
        self.follow_leaks();
    }

    /// Routes are imported as configured, between the tables that exist.
    pub(super) fn follow_leaks(&mut self) {
        let Vrfs { leaks, running, .. } = &mut self.vrfs;
        let there = running.iter().map(|(name, vrf)| (name, vrf.engine.handle()));
        leaks.follow(&self.config, self.engine.handle(), there);
    }

    /// Configured peers of VRFs that do not run become idle, and those of the others active.
    fn follow_vrfs(&mut self) {
        let mut config = Config::clone(&self.config);
        if config.interfaces.iter().any(|peers| peers.vrf().is_some()) {
            self.add_by_interface(&mut config);
        }
        self.vrfs.show_absent(&mut config, &self.fib.links());
        self.follow(config);
    }

    /// Begins the instances of VRFs that have come.
    fn begin_instances(&mut self, begin: Begin) {
        let config = Arc::clone(&self.config);
        let links = self.fib.links();
        let mut absent = BTreeMap::new();
        for vrf in &config.vrfs {
            if self.vrfs.running.contains_key(&vrf.name) {
                continue;
            }
            let begun = self.vrfs.device(&vrf.name, &config, &links);
            let begun = begun.and_then(|device| {
                let begun = self.begin_instance(&config, vrf, device, begin);
                begun.map_err(|e| {
                    self.vrfs.try_again();
                    e.to_string()
                })
            });
            let Err(why) = begun else { continue };
            let why: Arc<str> = why.into();
            if self.vrfs.absent.get(&vrf.name) != Some(&why) {
                warn!(vrf = %vrf.name, "VRF {} is waited for: {why}", vrf.name);
            }
            absent.insert(Arc::clone(&vrf.name), why);
        }
        self.vrfs.absent = absent;
    }

    fn begin_instance(
        &mut self,
        config: &Config,
        vrf: &Vrf,
        device: Device,
        begin: Begin,
    ) -> Result<(), super::Error> {
        let (seed, name) = (self.vrfs.seed ^ u64::from(device.index), &vrf.name);
        let threads = Threads::start(config, device.table, seed, &self.vrfs.reports)?;
        // The default VRF's writer reads all links; an own one may not have read any yet.
        let beside =
            find_beside(self.fib.clone(), move |link| link.traits.vrf == Some(device.table));
        let Threads { engine, fib, redistribution, next_hops, gate, recovery, synchronised } =
            threads;
        let is_deferred = match begin {
            Begin::AtStart(first_export) => first_export == FirstExport::Deferred,
            Begin::Later => self.convergence.deferral.is_some(),
        };
        if is_deferred {
            engine.handle().defer_export();
        }
        let directory = Directory::default();
        let mut listeners = self.listeners.in_vrf(name, directory.clone());
        listeners.set_keys(key_entries(config, Some(name)));
        let table = engine.handle().clone();
        let bfd_in =
            NonZeroU32::new(device.index).map(|index| VrfDevice { index, name: Arc::clone(name) });
        let place = Place {
            table: table.clone(),
            directory,
            beside,
            recovery: recovery.clone(),
            device: bfd_in,
        };
        self.peers.set_place(name, place);
        let (kernel, routes_in) = (fib.clone(), device.table);
        let redistributed = redistribution.clone();
        let shown = Shown { table, kernel, redistribution: redistributed, routes_in };
        self.vrfs.shown.set(name, Some(shown));
        let nothing = Vrf { originate: Vec::new(), redistribute: Vec::new(), ..vrf.clone() };
        let mut instance = Instance {
            config: nothing,
            device,
            engine,
            fib,
            redistribution,
            next_hops,
            gate,
            listeners,
            fallover: Fallover::default(),
            recovery,
            synchronised,
        };
        if begin == Begin::Later && self.convergence.startup.is_none() {
            // The start is over: what an earlier run left is not waited for.
            instance.end_of_startup();
        }
        instance.reconfigure(vrf);
        self.views.announcements.announce_in(name, instance.engine.handle());
        if config.fib.enabled {
            let place = KernelPlace { table: device.table, protocol: config.fib.protocol };
            self.run_file.note_vrf(name, Some(place));
        }
        self.vrfs.running.insert(Arc::clone(name), instance);
        info!(event = VRF_UP, vrf = %name, "VRF {name} runs, with routes in table {routes_in}");
        Ok(())
    }

    /// Puts what of the configuration concerns each instance into force.
    fn reconfigure_instances(&mut self) {
        for vrf in &self.config.vrfs {
            if let Some(instance) = self.vrfs.running.get_mut(&vrf.name) {
                instance.reconfigure(vrf);
            }
        }
    }

    /// The established sessions to end because their link or address was lost, in every VRF.
    pub(super) fn cut_off(&mut self, links: &[Link]) -> Vec<(Arc<Record>, SessionId, Close)> {
        let registry = self.peers.registry();
        if self.vrfs.running.is_empty() {
            return self.fallover.cut_off(links, registry.all().into_iter());
        }
        let tables: BTreeSet<u32> = self.vrfs.all().map(|vrf| vrf.device.table).collect();
        let is_outside = |link: &&Link| link.traits.vrf.is_none_or(|vrf| !tables.contains(&vrf));
        let outside: Vec<Link> = links.iter().filter(is_outside).cloned().collect();
        let all = registry.all();
        let there = |vrf: Option<&Arc<str>>| {
            let there = all.iter().filter(move |record| record.session.vrf.as_ref() == vrf);
            there.cloned().collect::<Vec<_>>().into_iter()
        };
        let mut lost = self.fallover.cut_off(&outside, there(None));
        for (name, vrf) in &mut self.vrfs.running {
            let inside = links.iter().filter(|link| link.traits.vrf == Some(vrf.device.table));
            let inside: Vec<Link> = inside.cloned().collect();
            lost.extend(vrf.fallover.cut_off(&inside, there(Some(name))));
        }
        lost
    }
}

impl Instance {
    fn end_of_startup(&self) {
        self.recovery.end();
        self.fib.end_of_startup();
    }

    /// Applies the changes to what it originates and redistributes; its listening addresses change
    /// when the daemon listens next.
    fn reconfigure(&mut self, config: &Vrf) {
        if self.config == *config {
            return;
        }
        let changes: Changes = self.config.changes_to(config);
        super::reload::apply_originate(&changes, self.engine.handle());
        self.redistribution.apply(&changes, self.engine.handle());
        if let Some(rules) = &changes.redistribute {
            self.fib.learn(learn_rules(rules));
        }
        self.config = config.clone();
    }
}
