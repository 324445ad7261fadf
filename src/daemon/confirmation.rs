//! Reloads that are undone unless they are confirmed in time.
//!
//! `margay reload --confirm 60` keeps the configuration that was in force before, as text, in memory and
//! in a file beside the control socket. Without `margay confirm` within that time it is applied again,
//! by the same steps as a reload. The operator's file is never written: after an undo it holds a
//! configuration that is not in force, and a restart of margay does not apply it unless it has been
//! changed since. The next reload does.
//!
//! The secrets that were in force are kept in memory only: an undo uses them where a file cannot be read
//! any more. After a restart it needs the files.
//!
//! A reload while a confirmation is awaited applies the file as it is then, and what an undo returns to
//! stays the same: the last configuration that was in force without a condition.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Daemon;
use super::announcements::{ANNOUNCED_MAX, Announcement, Key};
use super::own_file::OwnFile;
use crate::config::{Changes, Document, Secrets};
use crate::event_names::{RELOAD_CONFIRMED, RELOAD_REFUSED, RELOAD_UNCONFIRMED, RELOAD_UNDONE};
use crate::node::{Environment, NodeSettings, Setup};
use crate::plural::counted;

/// Version of the file's content.
const VERSION: u32 = 1;
/// Longest file, in octets: two configurations, escaped.
const FILE_LEN_MAX: u64 = 64 << 20;
/// When to try again to undo a reload if that fails.
const UNDO_AGAIN: Duration = Duration::from_secs(10);

/// Whether a reload is still to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::daemon) enum Condition {
    /// It is undone at this time.
    Until(SystemTime),
    /// It was undone at this time.
    Undone(SystemTime),
}

/// A reload that was not confirmed yet, or not in time.
#[derive(Clone, Serialize, Deserialize)]
struct Unconfirmed {
    condition: Condition,
    /// The configuration that an undo returns to, or has returned to.
    previous: String,
    /// The content of the file that was applied.
    applied: String,
    /// What was in force of the files with secrets that `previous` names; empty after a restart.
    #[serde(skip)]
    secrets: Secrets,
}

/// The text of the configuration in force, and a reload that is to be confirmed.
pub(super) struct Confirmation {
    file: OwnFile,
    /// The content of the file as it was applied last; `None`: there is no file.
    in_force: Option<String>,
    unconfirmed: Option<Unconfirmed>,
    /// Why it could not be undone when it was due.
    fault: Option<String>,
    /// When [`Daemon::check_confirmation`] is next due.
    due: Option<Instant>,
    /// Announcements of operators that ended since the reload because of the configuration, at most
    /// [`ANNOUNCED_MAX`]: as they were first, for an undo.
    ended: BTreeMap<Key, Announcement>,
}

impl Confirmation {
    /// What the last run left, and the reload that this run is to begin without; `None`: it begins with
    /// what is in the configuration file, `in_force`.
    fn of_last_run(socket: &Path, in_force: Option<String>) -> (Self, Option<Unconfirmed>) {
        let file = OwnFile::beside(socket, "unconfirmed", VERSION).with_len_max(FILE_LEN_MAX);
        let left = file.read::<Unconfirmed>().unwrap_or_else(|error| {
            warn!("{}: cannot be read: {error}", file.path.display());
            None
        });
        let mut confirmation = Confirmation {
            file,
            in_force,
            unconfirmed: None,
            fault: None,
            due: None,
            ended: BTreeMap::new(),
        };
        let Some((left, text)) = left.zip(confirmation.in_force.clone()) else {
            return (confirmation, None);
        };
        let now = SystemTime::now();
        let is_over = match left.condition {
            Condition::Until(until) => until <= now,
            // The file was changed since: this is the operator's choice.
            Condition::Undone(_) if left.applied != text => {
                confirmation.forget();
                return (confirmation, None);
            }
            Condition::Undone(_) => true,
        };
        if !is_over {
            confirmation.unconfirmed = Some(left);
            confirmation.arm(now);
            return (confirmation, None);
        }
        (confirmation, Some(Unconfirmed { applied: text, ..left }))
    }

    /// This run begins with the configuration from before a reload of the last one.
    fn note_undone(&mut self, left: Unconfirmed) {
        let condition = match left.condition {
            Condition::Until(until) => {
                warn!(event = RELOAD_UNDONE, "the last reload was not confirmed in time: undone");
                Condition::Undone(until)
            }
            undone => undone,
        };
        self.in_force = Some(left.previous.clone());
        self.keep(Unconfirmed { condition, ..left });
    }

    /// This run begins with what is in the file, although that is to be undone: tried again as if its
    /// time had ended now. What the last run left stays for the next one.
    fn note_not_undone(&mut self, left: Unconfirmed, fault: String) {
        warn!(
            event = RELOAD_REFUSED,
            reason = fault,
            "the configuration from before the unconfirmed reload cannot be applied, that of the file \
             is; tried again every {} s until margay confirm: {fault}",
            UNDO_AGAIN.as_secs()
        );
        let (Condition::Until(at) | Condition::Undone(at)) = left.condition;
        self.unconfirmed = Some(Unconfirmed { condition: Condition::Until(at), ..left });
        self.fault = Some(fault);
        self.due = Some(Instant::now() + UNDO_AGAIN);
    }

    /// Whether a reload is unconfirmed, and until when, or since when it is undone.
    pub(super) fn condition(&self) -> Option<Condition> {
        self.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.condition)
    }

    /// Remembers an unconfirmed reload for this run and the next; without the file for this run only.
    fn keep(&mut self, unconfirmed: Unconfirmed) {
        if let Err(error) = self.file.replace(&unconfirmed) {
            let path = self.file.path.display();
            warn!("{path}: cannot be written: a restart of margay would not undo: {error}");
        }
        (self.unconfirmed, self.fault) = (Some(unconfirmed), None);
        self.arm(SystemTime::now());
    }

    fn arm(&mut self, now: SystemTime) {
        self.due = match self.condition() {
            Some(Condition::Until(until)) => {
                Some(Instant::now() + until.duration_since(now).unwrap_or_default())
            }
            Some(Condition::Undone(_)) | None => None,
        };
    }

    /// Remembers announcements that the configuration ended, while an undo may bring them back.
    pub(super) fn note_ended(&mut self, ended: impl Iterator<Item = (Key, Announcement)>) {
        if !matches!(self.condition(), Some(Condition::Until(_))) {
            return;
        }
        for (key, entry) in ended {
            if self.ended.len() < ANNOUNCED_MAX {
                self.ended.entry(key).or_insert(entry);
            }
        }
    }

    /// The announcements that an undo brings back.
    pub(super) fn take_ended(&mut self) -> BTreeMap<Key, Announcement> {
        std::mem::take(&mut self.ended)
    }

    fn forget(&mut self) {
        (self.unconfirmed, self.fault, self.due) = (None, None, None);
        self.ended.clear();
        if let Err(error) = self.file.remove() {
            warn!("{}: cannot be removed: {error}", self.file.path.display());
        }
    }

    /// The file was applied by a reload without a condition of its own.
    pub(super) fn note_applied(&mut self, text: String) {
        match self.unconfirmed.take() {
            Some(awaited) if matches!(awaited.condition, Condition::Until(_)) => {
                self.keep(Unconfirmed { applied: text.clone(), ..awaited });
            }
            Some(_) => self.forget(),
            None => {}
        }
        self.in_force = Some(text);
    }
}

/// What to run: after an undo, or if a reload was not confirmed before the last run ended and the time is
/// over, not what is in the file.
pub(super) fn setup_of(setup: Setup) -> (Setup, Confirmation) {
    let (path, in_force) = match &setup {
        Setup::Own { path, config } => (Some(path.clone()), Some(config.origin.text().to_owned())),
        Setup::Node { path, .. } => {
            let text = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
            (path.clone(), text)
        }
    };
    let socket = &setup.host().control.socket;
    let (mut confirmation, left) = Confirmation::of_last_run(socket, in_force);
    let Some((path, left)) = path.zip(left) else { return (setup, confirmation) };
    let read = Document::parse(&path, &left.previous).map_err(|errors| errors.to_string());
    let previous = read.and_then(|document| match (document, &setup) {
        (Document::Own(config), Setup::Own { .. }) => Ok(Setup::Own { path, config }),
        (Document::Calico { calico, host }, Setup::Node { .. }) => {
            let settings = NodeSettings::from_file(*calico, *host, &Environment::of_process());
            let settings = settings.map_err(|error| error.to_string())?;
            let settings = settings.ok_or("the environment says that this node speaks no BGP")?;
            Ok(Setup::Node { path: Some(path), settings: Box::new(settings) })
        }
        _ => Err("[calico] was added or removed".to_owned()),
    });
    match previous {
        Ok(previous) => {
            confirmation.note_undone(left);
            (previous, confirmation)
        }
        Err(fault) => {
            confirmation.note_not_undone(left, fault);
            (setup, confirmation)
        }
    }
}

impl Daemon {
    /// Reloads the file, and undoes that after `time` unless it is confirmed.
    ///
    /// # Errors
    /// As [`Daemon::reload`]; or it could not be undone.
    pub(super) fn reload_until(&mut self, time: Duration) -> Result<Changes, String> {
        let Some(before) = self.confirmation.in_force.clone().filter(|_| self.path.is_some())
        else {
            return Err("there is no configuration file: nothing to reload, and to undo".into());
        };
        // An invalid file is refused, logged and shown by the reload itself.
        let changes = self.changes_of_file().unwrap_or_default();
        if changes.restart_needed.contains(&"control.socket") {
            return Err("control.socket differs: what is to be undone is kept beside it, and a \
                 restart would not find it. Change it without --confirm"
                .into());
        }
        let earlier = self.confirmation.unconfirmed.clone();
        let awaited = earlier.clone().filter(|e| matches!(e.condition, Condition::Until(_)));
        let (previous, secrets) = match awaited {
            Some(awaited) => (awaited.previous, awaited.secrets),
            None => (before, self.config.origin.secrets().clone()),
        };
        let condition = Condition::Until(SystemTime::now() + time);
        // Before the reload: whatever ends this run during it, the next one knows. The reload itself
        // notes what it has applied.
        let applied = previous.clone();
        self.confirmation.keep(Unconfirmed { condition, previous, applied, secrets });
        let reloaded = self.reload();
        if reloaded.is_err() {
            match earlier {
                Some(earlier) => self.confirmation.keep(earlier),
                None => self.confirmation.forget(),
            }
        }
        let changes = reloaded?;
        self.show_confirmation();
        info!(
            event = RELOAD_UNCONFIRMED,
            "the reload is undone in {} s unless margay confirm comes first",
            time.as_secs()
        );
        Ok(changes)
    }

    /// Confirms a reload.
    ///
    /// # Errors
    /// None is to be confirmed.
    pub(super) fn confirm(&mut self) -> Result<(), String> {
        match self.confirmation.condition() {
            Some(Condition::Until(_)) => {}
            Some(Condition::Undone(_)) => {
                return Err(
                    "too late: the reload was undone; margay reload applies the file".into()
                );
            }
            None => return Err("no reload is to be confirmed".into()),
        }
        self.confirmation.forget();
        self.show_confirmation();
        info!(event = RELOAD_CONFIRMED, "the reload is confirmed");
        Ok(())
    }

    /// Undoes a reload that was not confirmed in time. Returns when that is due.
    pub(super) fn check_confirmation(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.confirmation.due.is_some_and(|due| due <= now) {
            self.undo(now);
        }
        self.confirmation.due
    }

    fn undo(&mut self, now: Instant) {
        let Some(unconfirmed) = self.confirmation.unconfirmed.clone() else {
            self.confirmation.due = None;
            return;
        };
        match self.apply_previous(&unconfirmed) {
            Ok(changes) => {
                let changes = changes.lines().len();
                warn!(
                    event = RELOAD_UNDONE,
                    "the reload was not confirmed in time: undone, {changes} changes; the file still \
                     has it"
                );
                self.announce_again();
                self.confirmation.in_force = Some(unconfirmed.previous.clone());
                // What is in the file now is what the next start must not apply.
                let there = self.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
                let applied = there.unwrap_or(unconfirmed.applied);
                let condition = Condition::Undone(SystemTime::now());
                self.confirmation.keep(Unconfirmed {
                    condition,
                    applied,
                    previous: unconfirmed.previous,
                    secrets: Secrets::default(),
                });
                self.show_confirmation();
            }
            Err(text) => {
                self.confirmation.due = Some(now + UNDO_AGAIN);
                if self.confirmation.fault.as_ref() == Some(&text) {
                    return;
                }
                warn!(
                    event = RELOAD_REFUSED,
                    reason = text,
                    "the unconfirmed reload cannot be undone, tried again every {} s: {text}",
                    UNDO_AGAIN.as_secs()
                );
                self.confirmation.fault = Some(text);
                self.show_confirmation();
            }
        }
    }

    fn apply_previous(&mut self, unconfirmed: &Unconfirmed) -> Result<Changes, String> {
        let Some(path) = self.path.clone() else { return Err("there is no file".into()) };
        // A secret that changed since is the newer one.
        let kept = self.config.origin.secrets().clone().or(&unconfirmed.secrets);
        let document = Document::parse_keeping(&path, &unconfirmed.previous, &kept)
            .map_err(|errors| errors.to_string())?;
        let fresh = self.fresh(document)?;
        self.apply_fresh(fresh)
    }

    /// Publishes whether a reload is unconfirmed.
    pub(super) fn show_confirmation(&self) {
        let condition = self.confirmation.condition();
        let fault = self.confirmation.fault.clone();
        self.views.publish(|state| (state.unconfirmed, state.undo_fault) = (condition, fault));
    }
}

/// What an undo does not bring back, for the operator.
pub(in crate::daemon) fn not_undone(changes: &Changes) -> Vec<String> {
    let ended = changes.peers_restarted.len() + changes.peers_removed.len();
    let sessions = ended + changes.dynamic_ended.len();
    let mut texts = Vec::new();
    if sessions > 0 {
        let verb = if sessions == 1 { "begins" } else { "begin" };
        let sessions = counted(sessions, "session");
        texts.push(format!("{sessions} that ended {verb} anew, with routes sent again"));
    }
    if !changes.restart_needed.is_empty() {
        let keys = changes.restart_needed.join(", ");
        texts.push(format!("{keys}: not in force before a restart, and so never undone"));
    }
    if changes.calico_changed {
        texts.push("Calico's objects: only the file is undone".to_owned());
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn left_over(condition: Condition, in_file: &str) -> (Confirmation, Option<Unconfirmed>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        let start = || Confirmation::of_last_run(&socket, Some(in_file.to_owned()));
        let (mut first, none) = start();
        assert!(first.condition().is_none() && none.is_none());
        first.keep(unconfirmed(condition, "old", "new"));
        start()
    }

    fn unconfirmed(condition: Condition, previous: &str, applied: &str) -> Unconfirmed {
        let (previous, applied) = (previous.to_owned(), applied.to_owned());
        Unconfirmed { condition, previous, applied, secrets: Secrets::default() }
    }

    #[test]
    fn a_restart_neither_confirms_nor_forgets() {
        let now = SystemTime::now();
        let ahead = Condition::Until(now + Duration::from_secs(60));
        let past = Condition::Until(now - Duration::from_secs(1));
        let (next, instead) = left_over(ahead, "new");
        assert_eq!(next.condition(), Some(ahead), "time is left");
        assert!(next.due.is_some() && instead.is_none());
        for in_file in ["new", "changed meanwhile"] {
            let (mut next, left) = left_over(past, in_file);
            let left = left.expect("the time is over");
            assert_eq!((&*left.previous, &*left.applied), ("old", in_file));
            assert_eq!(next.condition(), None, "nothing is undone yet");
            next.note_undone(left);
            assert_eq!(next.in_force.as_deref(), Some("old"));
            assert!(matches!(next.condition(), Some(Condition::Undone(_))) && next.due.is_none());
        }
        let undone = Condition::Undone(now);
        assert_eq!(left_over(undone, "new").1.unwrap().previous, "old");
        let (next, left) = left_over(undone, "changed since");
        assert!(next.condition().is_none() && left.is_none(), "the operator has changed the file");
    }

    #[test]
    fn what_cannot_be_undone_by_a_start_is_not_called_undone() {
        let at = SystemTime::now() - Duration::from_secs(1);
        for condition in [Condition::Until(at), Condition::Undone(at)] {
            let folder = tempfile::tempdir().unwrap();
            let (path, key) = (folder.path().join("margay.toml"), folder.path().join("key"));
            let socket = folder.path().join("margay.sock");
            let new = format!(
                "[bgp]\nasn = 65000\nrouter-id = \"192.0.2.250\"\n[control]\nsocket = {socket:?}\n"
            );
            let peer = "[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 65001\n\
                        import = \"all\"\nexport = \"all\"\npassword-file = \"key\"\n";
            let old = format!("{new}{peer}");
            let (mut last, _) = Confirmation::of_last_run(&socket, Some(new.clone()));
            last.keep(unconfirmed(condition, &old, &new));
            let start = || {
                let config = Box::new(Config::parse(&path, &new).unwrap());
                let (setup, next) = setup_of(Setup::Own { path: path.clone(), config });
                let Setup::Own { config, .. } = setup else { panic!() };
                (config.peers.len(), next)
            };
            let (peers, next) = start();
            assert_eq!((peers, next.in_force.as_deref()), (0, Some(&*new)), "the file is in force");
            assert_eq!(next.condition(), Some(Condition::Until(at)));
            assert!(next.fault.as_ref().is_some_and(|fault| fault.contains("key")));
            assert!(next.due.is_some(), "it is tried again");
            std::fs::write(&key, "secret").unwrap();
            let (peers, next) = start();
            assert_eq!((peers, next.in_force.as_deref()), (1, Some(&*old)), "the next start can");
            assert_eq!((next.condition(), next.fault), (Some(Condition::Undone(at)), None));
        }
    }

    #[test]
    fn a_reload_meanwhile_keeps_what_an_undo_returns_to() {
        let ahead = Condition::Until(SystemTime::now() + Duration::from_secs(60));
        let (mut confirmation, _) = left_over(ahead, "new");
        confirmation.note_applied("newer".to_owned());
        let left = confirmation.unconfirmed.clone().unwrap();
        assert_eq!((&*left.previous, &*left.applied, left.condition), ("old", "newer", ahead));
        let (mut confirmation, _) = left_over(Condition::Undone(SystemTime::now()), "new");
        confirmation.note_applied("new".to_owned());
        assert_eq!(confirmation.condition(), None, "a reload after an undo stands");
    }
}
