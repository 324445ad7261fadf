//! Drained neighbours (RFC 8326): asked to move to other paths before maintenance.
//!
//! The contract:
//!
//! - A drain applies to all neighbours, including those added later, or to neighbours by name. Both
//!   may be in force together.
//! - Every route advertised to a drained neighbour, originated or propagated, is marked: with
//!   GRACEFUL_SHUTDOWN towards external neighbours, with LOCAL_PREF 0 towards internal ones.
//!   Routes *from* a neighbour that is drained by name get LOCAL_PREF 0 on import as well: we move
//!   to other paths too. With a drain of all neighbours there is nothing to move to: import is
//!   unchanged.
//! - [`MOVE_TIME`] later, locally originated routes to which a neighbour announces a path as well
//!   (service addresses of other nodes, networks that two routers share) are withdrawn, as long as
//!   that path is usable and not itself marked: not every neighbour honours the marks. Not earlier:
//!   a neighbour may learn the other path only once it has stopped using ours. Other routes stay.
//! - Nothing else is withdrawn and no session ends: only the export of the update group changes
//!   ([`bgp_proto::table::Drain`]), re-evaluated in slices as after a reload.
//! - On a Calico node, the node's own object may drain all neighbours as well
//!   ([`crate::config::DrainBy`]): the object is the state, so this drain is not kept in the file,
//!   and no command ends it.
//! - This is the only copy of the state. [`Drains::routes`] returns a peer's parameters as they are
//!   in force; [`super::registry::Record`] has them as configured, which is what a reload compares.
//!   Only the daemon's loop changes the state, so that a reload and a command do not overlap.
//! - A drain outlives the daemon until the machine is booted, unless it was begun for this run only
//!   (`margay stop --drain`). If its file cannot be read, `show status` names the file and no
//!   neighbour is drained.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bgp_proto::table::{Drain, PeerRoutes};
use serde::{Deserialize, Serialize};

use super::own_file::OwnFile;
use crate::ctl::Lasts;

/// How long neighbours have to act on the marks before routes that others announce too are
/// withdrawn.
pub(super) const MOVE_TIME: Duration = Duration::from_secs(3);

/// Longest file, in octets: one order names up to 10,000 neighbours, each with the reason, which is up
/// to 255 octets long.
const FILE_LEN_MAX: u64 = 4 << 20;

/// Version of the file's format; a file of another version is not read.
const VERSION: u32 = 1;

/// A drain by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drained {
    pub(super) since: SystemTime,
    /// As given by the operator; empty if none was.
    pub(super) reason: String,
    pub(super) lasts: Lasts,
}

/// The neighbours that a drain applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every neighbour, including those added later.
    All,
    /// Neighbours with these names, present or not.
    Named(Vec<Arc<str>>),
}

/// The drains in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    all: Option<Drained>,
    peers: BTreeMap<Arc<str>, Drained>,
    /// By the node's own object: all neighbours.
    object: Option<Drained>,
}

impl State {
    /// The drain of all neighbours.
    fn of_all(&self) -> Option<&Drained> {
        self.all.as_ref().or(self.object.as_ref())
    }

    /// All drains.
    fn every(&self) -> impl Iterator<Item = &Drained> {
        self.peers.values().chain(&self.all).chain(&self.object)
    }
}

/// The drains of one daemon. Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct Drains {
    state: Arc<Mutex<State>>,
    file: OwnFile,
}

#[derive(Serialize, Deserialize)]
struct Content {
    all: Option<Kept>,
    peers: BTreeMap<String, Kept>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Seconds since 1970.
    since: u64,
    reason: String,
}

impl Drains {
    /// The drains that the previous run left in the file beside this control socket. If they
    /// cannot be read, no neighbour is drained, and the second value says why.
    pub(super) fn of_last_run(socket: &Path) -> (Self, Option<String>) {
        let file = OwnFile::beside(socket, "drained", VERSION).with_len_max(FILE_LEN_MAX);
        let (state, fault) = match read(&file) {
            Ok(state) => (state, None),
            Err(why) => {
                let path = file.path.display();
                let fault = format!(
                    "{path}, which names the neighbours that were drained, cannot be read ({why}): \
                     none is drained; remove the file, then drain again as needed (margay drain)"
                );
                (State::default(), Some(fault))
            }
        };
        (Drains { state: Arc::new(Mutex::new(state)), file }, fault)
    }

    /// The drain of all neighbours.
    pub(super) fn of_all(&self) -> Option<Drained> {
        self.lock().of_all().cloned()
    }

    /// The drain of one neighbour: the one by name, else that of all neighbours.
    pub(super) fn of(&self, name: &str) -> Option<Drained> {
        let state = self.lock();
        state.peers.get(name).or(state.of_all()).cloned()
    }

    /// The names of the neighbours that are drained by name, present or not.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.lock().peers.keys().cloned().collect()
    }

    /// Whether this neighbour is drained by name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.lock().peers.contains_key(name)
    }

    /// The routing parameters of a neighbour as they are in force: those configured, unless it is
    /// drained.
    pub(super) fn routes(&self, name: &str, configured: &Arc<PeerRoutes>) -> Arc<PeerRoutes> {
        self.routes_at(SystemTime::now(), name, configured)
    }

    fn routes_at(
        &self,
        now: SystemTime,
        name: &str,
        configured: &Arc<PeerRoutes>,
    ) -> Arc<PeerRoutes> {
        let state = self.lock();
        let by_name = state.peers.get(name);
        let all = state.all.iter().chain(&state.object);
        let Some(first) = by_name.iter().copied().chain(all).map(|d| d.since).min() else {
            return Arc::clone(configured);
        };
        // If the clock was set back, MOVE_TIME has not passed.
        let had_time = now.duration_since(first).is_ok_and(|since| since >= MOVE_TIME);
        let mut routes = PeerRoutes::clone(configured);
        routes.export.drain = if had_time { Drain::Withdraw } else { Drain::On };
        if by_name.is_some() {
            routes.import.drain = Drain::On;
        }
        Arc::new(routes)
    }

    /// How long it takes until one more drain has had [`MOVE_TIME`]; `None`: all have. With a clock that
    /// was set back, at most `MOVE_TIME`, to look again.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.time_left_at(SystemTime::now())
    }

    fn time_left_at(&self, now: SystemTime) -> Option<Duration> {
        let state = self.lock();
        let left = state.every().filter_map(|drained| {
            let passed = now.duration_since(drained.since).unwrap_or_default();
            MOVE_TIME.checked_sub(passed).filter(|left| !left.is_zero())
        });
        left.min()
    }

    /// Whether any drain is in force.
    pub(super) fn is_any(&self) -> bool {
        *self.lock() != State::default()
    }

    /// Begins a drain; one of the same scope is replaced.
    ///
    /// # Errors
    /// The file cannot be written: nothing is changed.
    pub(super) fn begin(&self, scope: &Scope, drained: &Drained) -> Result<(), String> {
        self.change(|state| match scope {
            Scope::All => state.all = Some(drained.clone()),
            Scope::Named(names) => {
                let entries = names.iter().map(|name| (Arc::clone(name), drained.clone()));
                state.peers.extend(entries);
            }
        })
    }

    /// Ends all drains, those by name included, or those by these names.
    ///
    /// # Errors
    /// The file cannot be written: nothing is changed.
    pub(super) fn end(&self, scope: &Scope) -> Result<(), String> {
        self.change(|state| match scope {
            Scope::All => *state = State { object: state.object.take(), ..State::default() },
            Scope::Named(names) => state.peers.retain(|name, _| !names.contains(name)),
        })
    }

    /// Begins or ends the drain of all neighbours by the node's own object; `reason`: why it drains
    /// them. Returns whether anything differs.
    pub(super) fn set_object(&self, reason: Option<&str>) -> bool {
        let mut state = self.lock();
        if state.object.as_ref().map(|drained| drained.reason.as_str()) == reason {
            return false;
        }
        let since = state.object.as_ref().map_or_else(SystemTime::now, |before| before.since);
        state.object =
            reason.map(|reason| Drained { since, reason: reason.to_owned(), lasts: Lasts::Object });
        true
    }

    /// A copy of the drains with another one by the node's own object, which has had [`MOVE_TIME`].
    pub(super) fn foreseen(&self, reason: Option<&str>) -> Drains {
        let mut state = self.lock().clone();
        state.object = reason.map(|reason| Drained {
            since: SystemTime::UNIX_EPOCH,
            reason: reason.to_owned(),
            lasts: Lasts::Object,
        });
        Drains { state: Arc::new(Mutex::new(state)), file: self.file.clone() }
    }

    /// Whether the node's own object drains all neighbours.
    pub(super) fn is_by_object(&self) -> bool {
        self.lock().object.is_some()
    }

    /// Moves the drain of a neighbour that was renamed to its new name.
    pub(super) fn rename(&self, old: &str, new: &Arc<str>) {
        if !self.is_named(old) {
            return;
        }
        let renamed = self.change(|state| {
            if let Some(drained) = state.peers.remove(old) {
                state.peers.insert(Arc::clone(new), drained);
            }
        });
        if let Err(why) = renamed {
            tracing::warn!(peer = %new, "{why}: it is not drained any more");
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut state = self.lock();
        let mut after = state.clone();
        change(&mut after);
        self.write(&state, &after)
            .map_err(|error| format!("cannot write {}: {error}", self.file.path.display()))?;
        *state = after;
        Ok(())
    }

    /// Writes the drains that outlive the daemon if they differ; without any, the file is removed.
    fn write(&self, before: &State, after: &State) -> std::io::Result<()> {
        let (was, is) = (kept(before), kept(after));
        if was == is {
            return Ok(());
        }
        let (all, peers) = is;
        if all.is_none() && peers.is_empty() {
            return self.file.remove();
        }
        self.file.replace(Content { all, peers })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The drains that outlive the daemon.
fn kept(state: &State) -> (Option<Kept>, BTreeMap<String, Kept>) {
    let keep = |drained: &Drained| {
        let since = drained.since.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.map_or(0, |since| since.as_secs());
        (drained.lasts == Lasts::Boot).then(|| Kept { since, reason: drained.reason.clone() })
    };
    let peers = state.peers.iter();
    let peers = peers.filter_map(|(name, drained)| Some((name.to_string(), keep(drained)?)));
    (state.all.as_ref().and_then(keep), peers.collect())
}

/// The drains in the file; none if it does not exist or the machine was booted since.
fn read(file: &OwnFile) -> Result<State, String> {
    let content = file.read::<Content>().map_err(|unread| unread.to_string())?;
    let Some(Content { all, peers }) = content else { return Ok(State::default()) };
    let drained = |Kept { since, reason }: Kept| {
        let since = Duration::from_secs(since);
        let since = SystemTime::UNIX_EPOCH.checked_add(since).ok_or("a time out of range")?;
        Ok::<_, String>(Drained { since, reason, lasts: Lasts::Boot })
    };
    let all = all.map(drained).transpose()?;
    let peers = peers.into_iter().map(|(name, kept)| Ok((name.into(), drained(kept)?)));
    Ok(State { all, object: None, peers: peers.collect::<Result<_, String>>()? })
}

#[cfg(test)]
mod tests {
    use super::super::own_file::boot;
    use super::*;

    fn drained(reason: &str, lasts: Lasts) -> Drained {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Drained { since, reason: reason.into(), lasts }
    }

    fn named(names: &[&str]) -> Scope {
        Scope::Named(names.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn a_drain_survives_a_restart_unless_it_is_for_this_run() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        let (run, fault) = Drains::of_last_run(&socket);
        assert_eq!((run.of_all(), fault), (None, None));
        run.begin(&named(&["a", "b"]), &drained("fan", Lasts::Boot)).unwrap();
        run.begin(&Scope::All, &drained("", Lasts::Run)).unwrap();
        run.rename("b", &Arc::from("c"));
        assert!(run.of("z").is_some(), "every neighbour is drained");
        let (next, fault) = Drains::of_last_run(&socket);
        assert_eq!((next.of_all(), fault), (None, None));
        assert_eq!(next.names(), [Arc::from("a"), Arc::from("c")]);
        assert_eq!(next.of("a"), Some(drained("fan", Lasts::Boot)));
        next.begin(&Scope::All, &drained("disk", Lasts::Boot)).unwrap();
        next.end(&named(&["a"])).unwrap();
        let (third, _) = Drains::of_last_run(&socket);
        assert_eq!(third.of("a"), Some(drained("disk", Lasts::Boot)));
        assert_eq!(third.names(), [Arc::from("c")]);
        third.end(&Scope::All).unwrap();
        assert_eq!(Drains::of_last_run(&socket).0.of("c"), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
    }

    #[test]
    fn the_objects_drain_ends_with_the_object_alone() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        let (run, _) = Drains::of_last_run(&socket);
        assert!(run.set_object(Some("rack")) && !run.set_object(Some("rack")));
        assert_eq!(run.of_all().unwrap().lasts, Lasts::Object);
        let since = run.of("a").unwrap().since;
        assert!(run.set_object(Some("disk")), "the reason differs");
        assert_eq!((run.of("a").unwrap().since, run.time_left().is_some()), (since, true));
        run.begin(&Scope::All, &drained("fan", Lasts::Boot)).unwrap();
        assert_eq!(run.of_all().unwrap().reason, "fan", "the command's is shown");
        run.end(&Scope::All).unwrap();
        assert_eq!(run.of_all().unwrap().reason, "disk");
        assert_eq!(Drains::of_last_run(&socket).0.of_all(), None, "it is not in the file");
        assert!(run.set_object(None) && !run.is_any());
    }

    #[test]
    fn ten_thousand_names_with_long_reasons_fit_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        let (run, _) = Drains::of_last_run(&socket);
        let name = |n: u32| Arc::from(format!("Mesh_2001_db8_1234_5678_9abc_def0_{n:04x}_ffff"));
        let names: Vec<Arc<str>> = (0..10_000).map(name).collect();
        let reason = "r".repeat(255);
        run.begin(&Scope::Named(names.clone()), &drained(&reason, Lasts::Boot)).unwrap();
        let (next, fault) = Drains::of_last_run(&socket);
        assert_eq!((next.names().len(), fault), (names.len(), None));
        assert_eq!(next.of(&names[9_999]).unwrap().reason, reason);
    }

    #[test]
    fn the_time_left_is_that_of_whom_it_runs_out_for_next() {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = Drains::of_last_run(&folder.path().join("margay.sock"));
        let first = drained("", Lasts::Run);
        let later = Drained { since: first.since + Duration::from_secs(2), ..first.clone() };
        let left = |secs| run.time_left_at(first.since + Duration::from_secs(secs));
        assert_eq!(left(0), None);
        run.begin(&named(&["a"]), &first).unwrap();
        run.begin(&Scope::All, &later).unwrap();
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!((left(2), left(3), left(5)), (secs(1), secs(2), None));
        let set_back = run.time_left_at(first.since - Duration::from_secs(3600));
        assert_eq!(set_back, Some(MOVE_TIME), "it is looked at again");
    }

    #[test]
    fn a_file_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = Drains::of_last_run(&folder.path().join("no/such/margay.sock"));
        let refused = run.begin(&Scope::All, &drained("", Lasts::Boot)).unwrap_err();
        assert!(refused.contains("no/such/margay.drained"), "{refused}");
        assert_eq!(run.of_all(), None);
        run.begin(&Scope::All, &drained("", Lasts::Run)).unwrap();
        assert!(run.of_all().is_some(), "a drain for this run needs no file");
    }

    #[test]
    fn an_unreadable_file_is_named_and_no_neighbour_is_drained() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        let boot = boot().unwrap();
        let huge = format!(
            r#"{{"version":1,"boot":"{boot}","all":{{"since":{},"reason":""}},"peers":{{}}}}"#,
            u64::MAX
        );
        let other = format!(r#"{{"version":2,"boot":"{boot}","all":null,"peers":{{}}}}"#);
        for text in ["", "{", "[]", r#"{"version":1}"#, &huge, &other] {
            std::fs::write(folder.path().join("margay.drained"), text).unwrap();
            let (run, fault) = Drains::of_last_run(&socket);
            assert_eq!((run.of_all(), run.names().len()), (None, 0), "{text}");
            assert!(fault.unwrap().contains("margay.drained"), "{text}");
        }
        let old = r#"{"version":1,"boot":"x","all":{"since":1,"reason":""},"peers":{}}"#;
        std::fs::write(folder.path().join("margay.drained"), old).unwrap();
        let (run, fault) = Drains::of_last_run(&socket);
        assert_eq!((run.of_all(), fault), (None, None), "written before the last boot");
    }

    #[test]
    fn import_changes_only_for_a_neighbour_drained_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = Drains::of_last_run(&folder.path().join("margay.sock"));
        let configured = Arc::new(PeerRoutes::new("a"));
        assert!(Arc::ptr_eq(&run.routes("a", &configured), &configured));
        let since = drained("", Lasts::Run).since;
        let after = |run: &Drains, time: Duration| {
            let routes = run.routes_at(since + time, "a", &configured);
            assert!(Arc::ptr_eq(&routes.export.policy, &configured.export.policy), "one group");
            (routes.import.drain, routes.export.drain)
        };
        run.begin(&Scope::All, &drained("", Lasts::Run)).unwrap();
        assert_eq!(after(&run, Duration::ZERO), (Drain::Off, Drain::On));
        assert_eq!(after(&run, MOVE_TIME), (Drain::Off, Drain::Withdraw));
        run.begin(&named(&["a"]), &drained("", Lasts::Run)).unwrap();
        assert_eq!(after(&run, Duration::ZERO), (Drain::On, Drain::On));
        run.end(&Scope::All).unwrap();
        assert!(Arc::ptr_eq(&run.routes("a", &configured), &configured));
    }
}
