//! Neighbours that are drained (RFC 8326): asked to move to other paths before maintenance.
//!
//! The contract:
//!
//! - A drain is of all neighbours, those that come later included, or of neighbours by name. Both may
//!   be in force together.
//! - Every route that a drained neighbour is sent, ours and propagated ones alike, is marked: with
//!   GRACEFUL_SHUTDOWN towards external neighbours, with LOCAL_PREF 0 towards internal ones. Routes
//!   *from* a neighbour that is drained by name get LOCAL_PREF 0 on import as well: we move to other
//!   paths too. With a drain of all neighbours there is nothing to move to, and import stays as it is.
//! - [`MOVE_TIME`] later, routes of our own that another neighbour announces too (service addresses of other
//!   nodes, networks that two routers share) are withdrawn, as long as that path is usable and not one to
//!   be left itself: not every neighbour honours the marks. Not at once: a neighbour may hear of
//!   the other path only when it leaves ours. Routes that nobody else announces stay.
//! - Nothing else is withdrawn and no session ends: it is the export of the update group that differs
//!   ([`bgp_proto::table::Drain`]), re-evaluated in slices as after a reload.
//! - The state is held here and nowhere else. [`Drains::routes`] gives a peer's parameters as they are
//!   in force; [`super::registry::Record`] has them as they are configured, which is what a reload
//!   compares. Only the daemon's loop changes it, so that a reload and an order do not overlap.
//! - It outlives the daemon until the machine is booted, unless the drain was begun for this run only
//!   (`margay stop --drain`). A file that cannot be read is named, and nobody is drained then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bgp_proto::table::{Drain, PeerRoutes};
use serde::{Deserialize, Serialize};

use super::own_file::{OwnFile, Unread, boot};
use crate::ctl::Lasts;

/// How long neighbours have to move by the marks before routes that others announce too are withdrawn.
pub(super) const MOVE_TIME: Duration = Duration::from_secs(3);

/// The form of the file.
const VERSION: u32 = 1;

/// A drain by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drained {
    pub(super) since: SystemTime,
    /// For people; empty: none was given.
    pub(super) reason: String,
    pub(super) lasts: Lasts,
}

/// Whom a drain concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every neighbour.
    All,
    /// Those with these names.
    Named(Vec<Arc<str>>),
}

/// Who is drained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    all: Option<Drained>,
    peers: BTreeMap<Arc<str>, Drained>,
}

/// Those of one daemon. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Drains {
    state: Arc<Mutex<State>>,
    file: OwnFile,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    /// Which boot of the machine.
    boot: String,
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
    /// What the last run has left in the file beside this control socket. If that cannot be had, why:
    /// nobody is drained then.
    pub(super) fn of_last_run(socket: &Path) -> (Self, Option<String>) {
        let file = OwnFile::beside(socket, "drained");
        let (state, fault) = match read(&file) {
            Ok(state) => (state, None),
            Err(why) => {
                let path = file.path.display();
                let fault = format!(
                    "{path}, which names the neighbours that were drained, is not read ({why}): none is \
                     drained; remove the file, and drain again what should be (margay drain)"
                );
                (State::default(), Some(fault))
            }
        };
        (Drains { state: Arc::new(Mutex::new(state)), file }, fault)
    }

    /// The drain of all neighbours.
    pub(super) fn of_all(&self) -> Option<Drained> {
        self.lock().all.clone()
    }

    /// The drain of one neighbour, by name or with all others.
    pub(super) fn of(&self, name: &str) -> Option<Drained> {
        let state = self.lock();
        state.peers.get(name).or(state.all.as_ref()).cloned()
    }

    /// The names of those that are drained by name.
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
        let Some(first) = by_name.iter().copied().chain(&state.all).map(|d| d.since).min() else {
            return Arc::clone(configured);
        };
        // A clock that was set back makes it wait.
        let had_time = now.duration_since(first).is_ok_and(|since| since >= MOVE_TIME);
        let mut routes = PeerRoutes::clone(configured);
        routes.export.drain = if had_time { Drain::Withdraw } else { Drain::On };
        if by_name.is_some() {
            routes.import.drain = Drain::On;
        }
        Arc::new(routes)
    }

    /// Whether anybody is drained.
    pub(super) fn is_any(&self) -> bool {
        *self.lock() != State::default()
    }

    /// Drains neighbours that are not drained.
    ///
    /// # Errors
    /// The file cannot be written: nobody is drained.
    pub(super) fn begin(&self, scope: &Scope, drained: &Drained) -> Result<(), String> {
        self.change(|state| match scope {
            Scope::All => state.all = Some(drained.clone()),
            Scope::Named(names) => {
                let entries = names.iter().map(|name| (Arc::clone(name), drained.clone()));
                state.peers.extend(entries);
            }
        })
    }

    /// Ends drains: all of them, or those of neighbours that are drained by name.
    ///
    /// # Errors
    /// The file cannot be written: they stay drained.
    pub(super) fn end(&self, scope: &Scope) -> Result<(), String> {
        self.change(|state| match scope {
            Scope::All => *state = State::default(),
            Scope::Named(names) => state.peers.retain(|name, _| !names.contains(name)),
        })
    }

    /// A neighbour has another name.
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

    /// Writes what outlives the daemon, if that differs.
    fn write(&self, before: &State, after: &State) -> std::io::Result<()> {
        let (was, is) = (kept(before), kept(after));
        if was == is {
            return Ok(());
        }
        let (all, peers) = is;
        if all.is_none() && peers.is_empty() {
            return self.file.remove();
        }
        let content = Content { version: VERSION, boot: boot()?, all, peers };
        self.file.replace(&serde_json::to_string(&content)?)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of the state outlives the daemon.
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

/// What the file holds, unless the machine was booted since.
fn read(file: &OwnFile) -> Result<State, String> {
    let text = match file.read() {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(State::default()),
        Err(unread @ (Unread::Failed(_) | Unread::Foreign(_))) => return Err(unread.to_string()),
    };
    let content: Content = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if content.version != VERSION {
        return Err(format!("version {}", content.version));
    }
    if content.boot != boot().map_err(|error| error.to_string())? {
        return Ok(State::default());
    }
    let drained = |Kept { since, reason }: Kept| {
        let since = Duration::from_secs(since);
        let since = SystemTime::UNIX_EPOCH.checked_add(since).ok_or("a time out of range")?;
        Ok::<_, String>(Drained { since, reason, lasts: Lasts::Boot })
    };
    let all = content.all.map(drained).transpose()?;
    let peers = content.peers.into_iter().map(|(name, kept)| Ok((name.into(), drained(kept)?)));
    Ok(State { all, peers: peers.collect::<Result<_, String>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(reason: &str, lasts: Lasts) -> Drained {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Drained { since, reason: reason.into(), lasts }
    }

    fn named(names: &[&str]) -> Scope {
        Scope::Named(names.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn a_drain_is_known_to_the_next_run_unless_it_is_for_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        let (run, fault) = Drains::of_last_run(&socket);
        assert_eq!((run.of_all(), fault), (None, None));
        run.begin(&named(&["a", "b"]), &drained("fan", Lasts::Boot)).unwrap();
        run.begin(&Scope::All, &drained("", Lasts::Run)).unwrap();
        run.rename("b", &Arc::from("c"));
        assert!(run.of("z").is_some(), "everybody");
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
    fn a_file_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = Drains::of_last_run(&folder.path().join("no/such/margay.sock"));
        let refused = run.begin(&Scope::All, &drained("", Lasts::Boot)).unwrap_err();
        assert!(refused.contains("no/such/margay.drained"), "{refused}");
        assert_eq!(run.of_all(), None);
        run.begin(&Scope::All, &drained("", Lasts::Run)).unwrap();
        assert!(run.of_all().is_some(), "what is for this run needs no file");
    }

    #[test]
    fn a_file_that_is_not_understood_is_named_and_nobody_is_drained() {
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
        assert_eq!((run.of_all(), fault), (None, None), "of another boot");
    }

    #[test]
    fn only_who_is_drained_by_name_is_moved_away_from() {
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
