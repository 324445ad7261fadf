//! Readiness: whether traffic may be sent to this node, and if not, why.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bgp_proto::session::State;
use bgp_proto::types::Family;

use super::sources::Sources;
use crate::daemon::registry::Record;
use crate::daemon::startup::Startup;
use crate::plural::counted;

/// While the node's name file is younger than this, every session must be established
/// (calico-node's `--threshold-time`).
const YOUNG: Duration = Duration::from_secs(30);
/// Most sessions that are named; further ones are only counted.
const NAMED_MAX: usize = 5;

/// Name prefixes of the sessions that calico-node's probe checks. It ignores sessions with local
/// workloads.
const PROBED: [&str; 3] = ["Mesh_", "Global_", "Node_"];

/// The properties of a session that matter for readiness.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) name: Arc<str>,
    pub(super) family: Family,
    pub(super) state: State,
}

/// Whether traffic may be sent here.
#[derive(Clone)]
pub(super) struct ReadinessView {
    pub(super) sources: Sources,
    /// The file to which calico-node's start-up writes the node's name.
    pub(super) nodename_file: PathBuf,
}

impl ReadinessView {
    /// Why this node is not ready, in one line; `None` if it is.
    pub(super) fn not_ready(&self) -> Option<String> {
        let state = self.sources.state();
        let node = state.node_status();
        if let Some(waiting) = node.as_ref().and_then(|status| status.waiting_for()) {
            return Some(waiting);
        }
        if let Some(fault) = &state.listen_fault {
            return Some(fault.clone());
        }
        let session = |record: &Record| Session {
            name: Arc::clone(&record.name),
            family: if record.address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 },
            state: record.handle.state(),
        };
        let records = self.sources.registry.all();
        if node.is_some() {
            let sessions: Vec<Session> = records.iter().map(|record| session(record)).collect();
            let recovering = state.startup.as_ref().map(Startup::count);
            return bird_ready(&sessions, self.node_age(), recovering);
        }
        let configured = records.iter().filter(|record| !record.is_dynamic());
        let sessions: Vec<Session> = configured.map(|record| session(record)).collect();
        state.not_ready.clone().or_else(|| own_ready(&sessions))
    }

    /// How long ago calico-node's start-up wrote the node's name; if it has not, how long margay
    /// has been running.
    ///
    /// calico-node's probe never reports ready without the file, because BIRD needs the start-up
    /// that writes it. margay does not need that start-up, and may run without it.
    fn node_age(&self) -> Duration {
        let written = std::fs::metadata(&self.nodename_file).and_then(|file| file.modified());
        match written {
            // If the clock was set back, the file's time may be in the future.
            Ok(at) => SystemTime::now().duration_since(at).unwrap_or_default(),
            Err(_) => self.sources.now().since(self.sources.started),
        }
    }
}

/// The rule of calico-node's `-bird-ready` and `-bird6-ready`, for both families at once. Without
/// sessions: ready. At first: ready when all of them are established and no restart is under way
/// (`recovering`: the number of peers that are waited for). Later: ready when one session of each
/// family that has sessions is established.
fn bird_ready(sessions: &[Session], age: Duration, recovering: Option<usize>) -> Option<String> {
    let is_probed =
        |session: &&Session| PROBED.iter().any(|prefix| session.name.starts_with(prefix));
    let probed: Vec<&Session> = sessions.iter().filter(is_probed).collect();
    if probed.is_empty() {
        return None;
    }
    if age >= YOUNG {
        let missing: Vec<String> = Family::ALL
            .into_iter()
            .filter_map(|family| {
                let of_family = probed.iter().filter(|session| session.family == family);
                none_established(of_family.copied(), &format!("{family} "))
            })
            .collect();
        return (!missing.is_empty()).then(|| missing.join("; "));
    }
    let down: Vec<&Session> =
        probed.iter().filter(|session| session.state != State::Established).copied().collect();
    if !down.is_empty() {
        return Some(format!(
            "{} of {} sessions are not established: {}",
            down.len(),
            probed.len(),
            names(&down)
        ));
    }
    recovering.map(|peers| match peers {
        0 => "start-up is not over: the last routes are on their way to the kernel".to_owned(),
        _ => format!("start-up is not over: waiting for the routes of {}", counted(peers, "peer")),
    })
}

/// Outside Calico: ready when one configured neighbour's session is established, or there are none.
fn own_ready(sessions: &[Session]) -> Option<String> {
    none_established(sessions.iter(), "")
}

fn none_established<'a>(sessions: impl Iterator<Item = &'a Session>, of: &str) -> Option<String> {
    let sessions: Vec<&Session> = sessions.collect();
    let is_up = |session: &&Session| session.state == State::Established;
    let missing = !sessions.is_empty() && !sessions.iter().any(is_up);
    missing.then(|| format!("no {of}session is established: {}", names(&sessions)))
}

fn names(sessions: &[&Session]) -> String {
    let mut named: Vec<String> = sessions
        .iter()
        .take(NAMED_MAX)
        .map(|session| format!("{} ({:?})", session.name, session.state))
        .collect();
    if sessions.len() > NAMED_MAX {
        named.push(format!("{} more", sessions.len() - NAMED_MAX));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Duration = Duration::from_secs(31);
    const FRESH: Duration = Duration::from_secs(29);

    fn session(name: &str, state: State) -> Session {
        Session { name: name.into(), family: Family::Ipv4, state }
    }

    #[test]
    fn a_node_without_probed_sessions_is_ready() {
        assert_eq!(bird_ready(&[], FRESH, Some(1)), None);
        let local = [session("Local_Workload_10_0_0_1", State::Active)];
        assert_eq!(bird_ready(&local, FRESH, Some(1)), None);
    }

    #[test]
    fn a_young_node_needs_every_session_and_no_restart_under_way() {
        let up = session("Mesh_10_0_0_1", State::Established);
        let down = session("Global_10_0_0_2", State::Connect);
        let local = session("Local_Workload_10_0_0_3", State::Active);
        let both = [up.clone(), down, local.clone()];
        assert_eq!(
            bird_ready(&both, FRESH, None).unwrap(),
            "1 of 2 sessions are not established: Global_10_0_0_2 (Connect)"
        );
        let all = [up, local];
        assert_eq!(bird_ready(&all, FRESH, None), None);
        assert_eq!(
            bird_ready(&all, FRESH, Some(3)).unwrap(),
            "start-up is not over: waiting for the routes of 3 peers"
        );
        let settling = bird_ready(&all, FRESH, Some(0)).unwrap();
        assert!(settling.ends_with("the last routes are on their way to the kernel"), "{settling}");
    }

    #[test]
    fn an_older_node_needs_one_session_of_each_family() {
        let up = session("Node_10_0_0_1", State::Established);
        let down = session("Mesh_10_0_0_2", State::Active);
        assert_eq!(bird_ready(&[up.clone(), down.clone()], OLD, Some(1)), None);
        assert_eq!(
            bird_ready(std::slice::from_ref(&down), OLD, None).unwrap(),
            "no ipv4 session is established: Mesh_10_0_0_2 (Active)"
        );
        let six = Session { family: Family::Ipv6, ..down };
        assert_eq!(
            bird_ready(&[up, six], OLD, None).unwrap(),
            "no ipv6 session is established: Mesh_10_0_0_2 (Active)"
        );
    }

    #[test]
    fn five_thousand_names_are_not_listed() {
        let many: Vec<Session> =
            (0..5000).map(|n| session(&format!("Mesh_{n}"), State::Active)).collect();
        let text = bird_ready(&many, FRESH, None).unwrap();
        assert!(text.len() < 300 && text.ends_with("4995 more"), "{text}");
    }

    #[test]
    fn outside_calico_one_established_neighbour_is_enough() {
        assert_eq!(own_ready(&[]), None);
        let (up, down) = (session("a", State::Established), session("b", State::Idle));
        assert_eq!(own_ready(&[up, down.clone()]), None);
        assert_eq!(own_ready(&[down]).unwrap(), "no session is established: b (Idle)");
    }
}
