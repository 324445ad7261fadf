//! Peers coming and going: from the configuration, and from ranges.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::Close;
use bgp_proto::types::PeerId;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::registry::{Record, Registry};
use crate::config::{DynamicPeers, PeerEntry};
use crate::engine::Handle;
use crate::net::{
    Accepted, Beside, Directory, Lifetime, PeerCommand, PeerEvent, PeerSpec, Recovery, Tally,
    spawn_peer,
};

/// Indices that rest before one is used again: the table may still be taking the routes of its last
/// owner out, slice by slice, and would have to do the rest at once.
const IDS_AT_REST: usize = 64;

pub(super) struct Peers {
    table: Handle,
    directory: Directory,
    registry: Registry,
    events: mpsc::UnboundedSender<PeerEvent>,
    ranges: Vec<DynamicPeers>,
    /// How many peers may come from all ranges together: what descriptors suffice for.
    dynamic_max: usize,
    /// Indices given so far, and those that are free again.
    ids: u32,
    free_ids: VecDeque<PeerId>,
    seed: u64,
    /// Shared by all tasks: whether our kernel routes are still those of an earlier run.
    recovery: Recovery,
    beside: Beside,
    tally: Tally,
}

impl Peers {
    pub(super) fn new(
        table: Handle,
        directory: Directory,
        events: mpsc::UnboundedSender<PeerEvent>,
        seed: u64,
        recovery: Recovery,
        beside: Beside,
    ) -> Self {
        Peers {
            table,
            directory,
            registry: Registry::default(),
            events,
            ranges: Vec::new(),
            dynamic_max: usize::MAX,
            ids: 0,
            free_ids: VecDeque::new(),
            seed,
            recovery,
            beside,
            tally: Tally::default(),
        }
    }

    pub(super) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Counters of all sessions.
    pub(super) fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// OPENs from here on say that we are not restarting (RFC 4724 §4.1).
    pub(super) fn end_of_startup(&self) {
        self.recovery.end();
    }

    /// How many peers may come from all ranges together.
    pub(super) fn set_dynamic_max(&mut self, max: usize) {
        self.dynamic_max = max;
    }

    /// Ranges that peers may connect from.
    pub(super) fn set_ranges(&mut self, ranges: &[DynamicPeers]) {
        self.ranges = ranges.to_vec();
        // The longest range that covers an address counts.
        self.ranges.sort_by_key(|range| std::cmp::Reverse(range.prefix.len()));
        self.directory.set_ranges(ranges.iter().map(|range| range.prefix).collect());
    }

    /// Starts a configured peer.
    pub(super) fn add(&mut self, entry: &PeerEntry) -> PeerId {
        self.spawn(entry, Lifetime::Configured).id
    }

    /// Another name, and possibly new routing parameters, for a peer; its session goes on.
    pub(super) fn rename(&self, old: &str, entry: &PeerEntry) {
        let Some(record) = self.registry.find(old) else { return };
        self.table.peer_configure(record.id, Arc::clone(&entry.routes));
        let rename = || PeerCommand::Rename(Arc::clone(&entry.name));
        if !record.handle.send(rename()) {
            let (handle, rename) = (record.handle.clone(), rename());
            tokio::spawn(async move { handle.deliver(rename).await });
        }
        self.registry.insert(Record {
            name: Arc::clone(&entry.name),
            routes: Arc::clone(&entry.routes),
            ..Record::clone(&record)
        });
    }

    /// A connection from a range becomes a peer, unless the range is full.
    pub(super) fn admit(&mut self, accepted: Accepted) {
        let Accepted { stream, from } = accepted;
        if let Some(peer) = self.directory.peer(from) {
            peer.send(PeerCommand::Incoming(stream));
            return;
        }
        let Some(range) = self.ranges.iter().find(|range| range.prefix.contains_addr(from)) else {
            return;
        };
        let members = self
            .registry
            .count(|r| r.lifetime == Lifetime::Dynamic && range.prefix.contains_addr(r.address));
        if members >= usize::try_from(range.peers_max).unwrap_or(usize::MAX) {
            warn!(
                "connection from {from} closed: {} has its {} peers (peers-max)",
                range.prefix, range.peers_max
            );
            return;
        }
        if self.registry.count(Record::is_dynamic) >= self.dynamic_max {
            warn!(
                "connection from {from} closed: file descriptors suffice for {} dynamic peers; raise \
                 the limit (ulimit -n, LimitNOFILE=)",
                self.dynamic_max
            );
            return;
        }
        let entry = range.peer(from);
        let record = self.spawn(&entry, Lifetime::Dynamic);
        record.handle.send(PeerCommand::Incoming(stream));
    }

    /// New routing parameters for a peer; its session goes on.
    pub(super) fn reconfigure(&self, name: &str, entry: &PeerEntry) {
        let Some(record) = self.registry.find(name) else { return };
        self.table.peer_configure(record.id, Arc::clone(&entry.routes));
        self.registry
            .insert(Record { routes: Arc::clone(&entry.routes), ..Record::clone(&record) });
    }

    /// Ends a peer; it is forgotten when its task says so.
    pub(super) fn remove(&self, name: &str, close: Close) {
        if let Some(record) = self.registry.find(name) {
            self.terminate(&record, close);
        }
    }

    /// Ends the dynamic peers that no range covers any more, or whose parameters changed.
    pub(super) fn review_dynamic(&self) {
        for record in self.registry.all() {
            if record.lifetime != Lifetime::Dynamic {
                continue;
            }
            let entry = self.entry_for(record.address);
            match entry {
                None => self.terminate(&record, Close::Deconfigured),
                Some(entry) if entry.session != record.session => {
                    self.terminate(&record, Close::ConfigurationChange);
                }
                Some(entry) if entry.routes != record.routes => {
                    self.reconfigure(&record.name, &entry);
                }
                Some(_) => {}
            }
        }
    }

    /// A peer's task is over.
    pub(super) fn forget(&mut self, id: PeerId) {
        let Some(record) = self.registry.remove(id) else { return };
        self.directory.remove(record.address, id);
        self.table.peer_remove(id);
        self.free_ids.push_back(id);
        if record.lifetime == Lifetime::Dynamic {
            info!(peer = %record.name, "dynamic peer removed");
        }
    }

    /// Ends all peers and waits, not longer than `grace`, until they are gone.
    pub(super) async fn stop_all(
        mut self,
        close: Close,
        mut events: mpsc::UnboundedReceiver<PeerEvent>,
        grace: Duration,
    ) {
        let all_gone = async {
            for record in self.registry.all() {
                record.handle.deliver(PeerCommand::Terminate(close.clone())).await;
            }
            while self.registry.len() > 0 {
                match events.recv().await {
                    Some(PeerEvent::Ended(id)) => self.forget(id),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(grace, all_gone).await.is_err() {
            warn!("{} peers did not stop in time", self.registry.len());
        }
    }

    fn entry_for(&self, address: IpAddr) -> Option<PeerEntry> {
        let range = self.ranges.iter().find(|range| range.prefix.contains_addr(address))?;
        Some(range.peer(address))
    }

    fn terminate(&self, record: &Record, close: Close) {
        self.directory.remove(record.address, record.id);
        self.registry.leave(record.id);
        if !record.handle.send(PeerCommand::Terminate(close.clone())) {
            // The queue is full of connections; this must not be lost with them.
            let handle = record.handle.clone();
            tokio::spawn(async move { handle.deliver(PeerCommand::Terminate(close)).await });
        }
    }

    fn spawn(&mut self, entry: &PeerEntry, lifetime: Lifetime) -> Record {
        let id = match self.free_ids.len() > IDS_AT_REST {
            true => self.free_ids.pop_front(),
            false => None,
        };
        let id = id.unwrap_or_else(|| {
            self.ids += 1;
            PeerId(self.ids - 1)
        });
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.table.peer_add(id, entry.session.address, Arc::clone(&entry.routes));
        let spec = PeerSpec {
            id,
            name: Arc::clone(&entry.name),
            config: Arc::clone(&entry.session),
            lifetime,
            seed: self.seed,
            recovery: self.recovery.clone(),
            beside: Arc::clone(&self.beside),
            tally: self.tally.clone(),
        };
        let handle = spawn_peer(spec, self.table.clone(), self.events.clone());
        let record = Record {
            id,
            name: Arc::clone(&entry.name),
            address: entry.session.address,
            session: Arc::clone(&entry.session),
            routes: Arc::clone(&entry.routes),
            lifetime,
            handle: handle.clone(),
            leaves: false,
        };
        self.registry.insert(record.clone());
        self.directory.insert(record.address, handle);
        record
    }
}
