//! What a simulation found. Serialised, it is what `--json` prints: keys may be added, never renamed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::Serialize;

use super::build::{Draft, DraftPeer};
use crate::calico::Problem;

/// What a simulation found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Nodes that reflect no routes.
    pub nodes: usize,
    /// Nodes that reflect routes.
    pub reflectors: usize,
    /// Neighbours outside of the cluster.
    pub peers: usize,
    /// The cluster after it has started; with a change, before it.
    pub start: State,
    /// What follows from the changed objects; `None`: none is changed.
    pub change: Option<Change>,
    /// Failures, of the changed cluster if there is a change.
    pub scenarios: Vec<Scenario>,
    /// With `--routes`, before any failure: for each speaker its kernel routes, with the next hops; none:
    /// the prefix is its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, BTreeMap<Prefix, Vec<IpAddr>>>,
    /// What is wrong with objects, as `margay calico plan` says for each node.
    pub problems: Vec<Problem>,
    /// What the results rest on.
    pub assumptions: Vec<&'static str>,
    /// Whether every node reaches every block, and a peer every service, in every state but the one
    /// before a change.
    pub reaches_all: bool,
}

/// The cluster once nothing happens any more.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Milliseconds of simulated time until the last route changed.
    pub settled_ms: u64,
    /// Whether it settled at all; if not, routes are announced and withdrawn for ever.
    pub settled: bool,
    /// Sessions that are configured, each counted once.
    pub sessions: u64,
    /// Those that are established.
    pub established: u64,
    /// Those that are not, and why.
    pub session_faults: Vec<SessionFault>,
    /// Routes in UPDATEs that speakers received, announced.
    pub announced: u64,
    /// Routes in UPDATEs that speakers received, withdrawn.
    pub withdrawn: u64,
    /// Kernel routes that were installed, changed or removed, on all speakers.
    pub kernel_changes: u64,
    /// Blocks of all nodes.
    pub blocks: u64,
    /// Prefixes of services.
    pub services: u64,
    /// Blocks and services whose nodes have all failed.
    pub gone: u64,
    /// Pairs of a node and a block of another one.
    pub from_nodes: Pairs,
    /// Pairs of a peer and a block or service.
    pub from_peers: Pairs,
    /// How nodes reach blocks, the most used ways first.
    pub paths: Vec<Path>,
    /// Nodes that do not reach all blocks.
    pub lost: Vec<Lost>,
    /// Peers that do not reach all blocks and services. By itself it is no failure: filters and
    /// pools may ask for it.
    pub peers_lost: Vec<Lost>,
    /// Services that no peer reaches; empty if there is no peer.
    pub unserved: Vec<Prefix>,
}

impl State {
    /// Whether every node reaches every block, and a peer every service.
    pub fn reaches_all(&self) -> bool {
        self.lost.is_empty() && self.unserved.is_empty() && self.settled
    }
}

/// Pairs of a source and a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pairs {
    /// All.
    pub all: u64,
    /// Those with a route that leads there.
    pub reached: u64,
    /// Those whose route Felix writes, which is not simulated.
    pub by_felix: u64,
}

/// A way from nodes to blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// The speakers between them; empty: none.
    pub via: Vec<String>,
    /// How many pairs use it.
    pub pairs: u64,
}

/// A speaker that does not reach everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Its name.
    pub from: String,
    /// How many blocks, and for a peer services, it does not reach.
    pub targets: u64,
    /// The first of them.
    pub example: Prefix,
    /// Why it does not reach that one.
    pub why: String,
}

impl Lost {
    pub(super) fn new(from: &str, example: Prefix, why: String) -> Lost {
        Lost { from: from.to_owned(), targets: 0, example, why }
    }
}

/// A session that is not established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionFault {
    /// The speaker that has it.
    pub speaker: String,
    /// The session's name there.
    pub session: String,
    /// Why it is not established.
    pub why: String,
}

impl SessionFault {
    pub(super) fn new(draft: &Draft, peer: &DraftPeer, why: String) -> SessionFault {
        let session = peer.routes.name.to_string();
        SessionFault { speaker: draft.name.to_string(), session, why }
    }
}

/// What a change of objects does.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The objects that are added, replaced or deleted.
    pub objects: Vec<String>,
    /// The cluster with them, once nothing happens any more; times, announced and withdrawn routes and
    /// changes of kernel routes are from the change on.
    pub state: State,
    /// Kernel routes that only the changed cluster has, on all speakers.
    pub routes_added: u64,
    /// Kernel routes that it has no more.
    pub routes_removed: u64,
    /// Kernel routes with other next hops.
    pub routes_changed: u64,
    /// Sessions that begin, each counted once.
    pub sessions_begun: u64,
    /// Sessions that end for good.
    pub sessions_ended: u64,
    /// Sessions that end and begin again.
    pub sessions_restarted: u64,
    /// Kernel routes that were missing for a while and are there again, the longest time first.
    pub gaps: Vec<Gap>,
}

/// A time without a kernel route that was there before and is there afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The speaker without it.
    pub from: String,
    /// Its prefix.
    pub prefix: Prefix,
    /// How long, in milliseconds.
    pub ms: u64,
}

/// What a failure does.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// What fails.
    pub fails: Vec<String>,
    /// Milliseconds until the first neighbour notices; `None`: none had a session.
    pub noticed_ms: Option<u64>,
    /// Sessions that end, each end counted.
    pub sessions_lost: u64,
    /// What is reached when nothing changes any more; times are from the failure on.
    pub state: State,
}
