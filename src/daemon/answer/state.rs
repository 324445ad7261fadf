//! The state that the daemon's loop publishes, always as a whole.

use std::sync::Arc;

use bgp_proto::types::Time;
use tokio::sync::watch;

use crate::config::{Config, PeerSeries};
use crate::daemon::confirmation::Condition;
use crate::daemon::startup::Startup;
use crate::node::{self, NodeStatus};

/// The published state of the daemon.
#[derive(Clone)]
pub(in crate::daemon) struct RunState {
    /// Where the configuration comes from, as shown to operators.
    pub(in crate::daemon) described: String,
    /// The configuration in force.
    pub(in crate::daemon) config: Arc<Config>,
    /// When it was last read.
    pub(in crate::daemon) read_at: Time,
    /// Present until the start-up is over.
    pub(in crate::daemon) startup: Option<Startup>,
    /// Why margay is not ready; `None`: it is, apart from the conditions that readiness checks
    /// itself.
    pub(in crate::daemon) not_ready: Option<String>,
    /// Why we are not listening on a configured address.
    pub(in crate::daemon) listen_fault: Option<String>,
    /// Why metrics and health are not served; `None`: they are, or are not configured.
    pub(in crate::daemon) http_fault: Option<String>,
    /// Until when announcements are held back after the start, and for whom; `None`: they are not.
    pub(in crate::daemon) held_back: Option<String>,
    /// The last reload, if it was refused.
    pub(in crate::daemon) reload_refused: Option<ReloadRefused>,
    /// A reload that is to be confirmed, or was undone.
    pub(in crate::daemon) unconfirmed: Option<Condition>,
    /// Why that could not be undone when it was due.
    pub(in crate::daemon) undo_fault: Option<String>,
    /// Other problems with the environment of the process, such as too few descriptors.
    pub(in crate::daemon) problems: Vec<String>,
    /// Sessions that stay up only until others carry their routes.
    pub(in crate::daemon) parting: Vec<String>,
    /// On a Calico node: the status of following its objects.
    pub(in crate::daemon) node: Option<Node>,
}

/// A reload that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct ReloadRefused {
    /// When.
    pub(in crate::daemon) at: Time,
    /// Why: every fault.
    pub(in crate::daemon) text: String,
}

/// The status of the task that follows Calico's objects.
#[derive(Clone)]
pub(in crate::daemon) struct Node {
    pub(in crate::daemon) status: watch::Receiver<Arc<NodeStatus>>,
    pub(in crate::daemon) liveness: node::FollowerLiveness,
    pub(in crate::daemon) asking: node::Asking,
}

impl RunState {
    pub(in crate::daemon) fn new(described: String, config: Arc<Config>, read_at: Time) -> Self {
        RunState {
            described,
            config,
            read_at,
            startup: None,
            not_ready: None,
            listen_fault: None,
            http_fault: None,
            held_back: None,
            reload_refused: None,
            unconfirmed: None,
            undo_fault: None,
            problems: Vec::new(),
            parting: Vec::new(),
            node: None,
        }
    }

    /// The status of a Calico node's objects; `None` if this is not a Calico node.
    pub(super) fn node_status(&self) -> Option<Arc<NodeStatus>> {
        self.node.as_ref().map(|node| Arc::clone(&node.status.borrow()))
    }

    /// Which peers have their own metric series.
    pub(super) fn peer_series(&self) -> PeerSeries {
        self.config.host.http.as_ref().map(|http| http.peers).unwrap_or_default()
    }
}

/// Publishes the state. Clones publish the same one.
#[derive(Clone)]
pub(in crate::daemon) struct Publisher(watch::Sender<Arc<RunState>>);

impl Publisher {
    pub(in crate::daemon) fn new(state: RunState) -> Self {
        Publisher(watch::Sender::new(Arc::new(state)))
    }

    /// Changes the state and publishes the result. Readers keep the state that they have.
    pub(in crate::daemon) fn publish(&self, change: impl FnOnce(&mut RunState)) {
        self.0.send_modify(|state| change(Arc::make_mut(state)));
    }

    /// Publishes until when announcements are held back, if that has changed.
    pub(in crate::daemon) fn hold_back(&self, text: String) {
        if self.0.borrow().held_back.as_deref() != Some(&text) {
            self.publish(|state| state.held_back = Some(text));
        }
    }

    pub(super) fn published(&self) -> Published {
        Published(self.0.subscribe())
    }
}

/// Reads the published state. Clones read the same one.
#[derive(Clone)]
pub(super) struct Published(watch::Receiver<Arc<RunState>>);

impl Published {
    pub(super) fn get(&self) -> Arc<RunState> {
        Arc::clone(&self.0.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_one_state_and_then_the_next() {
        let host = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n";
        let config = Config::parse(std::path::Path::new("m.toml"), host).unwrap();
        let state = RunState::new("m.toml".to_owned(), Arc::new(config), Time::ZERO);
        let publisher = Publisher::new(state);
        let published = publisher.published();
        let before = published.get();
        publisher.clone().publish(|state| {
            state.not_ready = Some("waiting".to_owned());
            state.problems.push("few descriptors".to_owned());
        });
        let after = published.clone().get();
        assert_eq!((before.not_ready.is_some(), before.problems.len()), (false, 0));
        assert_eq!((after.not_ready.is_some(), after.problems.len()), (true, 1));
        assert_eq!(after.described, "m.toml", "unchanged fields stay");
    }
}
