//! Routes that operators announce at run time (`margay announce`).
//!
//! The contract:
//!
//! - An announced route is a local route of [`Source::Announced`]: every policy applies to it as to an
//!   originated one, peers see the same, and nothing is installed in the kernel for it.
//! - It ends with its time, by command, or when the configuration comes to originate the same prefix. At
//!   most [`ANNOUNCED_MAX`] are announced at once; one that is announced again is replaced.
//! - This is the only copy of the state, in memory: after a restart nothing is announced that the
//!   configuration does not say.
//! - That of a VRF is announced again whenever the VRF comes back, and ends if it is not configured any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bgp_proto::table::LocalRoute;
use bgp_proto::types::{Prefix, Source};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Daemon;
use crate::config::{Config, Originate};
use crate::ctl::{AnnounceOptions, ErrorKind, Refusal, rfc3339};
use crate::engine::Handle;
use crate::event_names::{ANNOUNCED, ANNOUNCEMENT_ENDED};

/// Most announced routes at once, of all VRFs together.
pub(super) const ANNOUNCED_MAX: usize = 1000;

/// For how long a route without a time is announced.
const WITHOUT_END: &str = "until it is withdrawn or the daemon ends";

/// A VRF, or the default one, and a prefix.
pub(super) type Key = (Option<Arc<str>>, Prefix);

/// A route that an operator announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) since: SystemTime,
    /// When it ends; `None`: not by itself.
    pub(super) ends: Option<Instant>,
    /// As the operator gave it.
    pub(super) options: AnnounceOptions,
    /// The attributes that follow from it, in canonical form.
    pub(super) attrs: Arc<[u8]>,
}

impl Announcement {
    /// For how much longer it is announced; `None`: without end.
    pub(super) fn seconds_left(&self) -> Option<u64> {
        let left = self.ends?.saturating_duration_since(Instant::now());
        // Rounded up: while it is announced, there is some left.
        Some(left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
    }

    /// In words, for `explain`.
    pub(super) fn in_words(&self) -> String {
        let since = rfc3339(self.since);
        let until = match self.seconds_left() {
            Some(left) => format!("for {left} s more"),
            None => WITHOUT_END.to_owned(),
        };
        format!("announced by command (margay announce) since {since}, {until}")
    }

    fn route(&self) -> LocalRoute {
        LocalRoute {
            next_hop: self.options.next_hop,
            attrs: Some(Arc::clone(&self.attrs)),
            ..LocalRoute::default()
        }
    }
}

/// What a command to announce did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Announced,
    Replaced,
}

/// The announced routes. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Announcements(Arc<Mutex<BTreeMap<Key, Announcement>>>);

impl Announcements {
    /// Every announced route, in the order of VRFs and prefixes.
    pub(super) fn all(&self) -> Vec<(Key, Announcement)> {
        self.lock().iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn get(&self, vrf: Option<&str>, prefix: Prefix) -> Option<Announcement> {
        self.lock().get(&(vrf.map(Arc::from), prefix)).cloned()
    }

    /// Announces again what is announced in a VRF, which has come.
    pub(super) fn announce_in(&self, vrf: &Arc<str>, table: &Handle) {
        for ((there, prefix), entry) in self.lock().iter() {
            if there.as_ref() == Some(vrf) {
                table.local(*prefix, Source::Announced, Some(entry.route()));
            }
        }
    }

    fn insert(&self, key: Key, entry: Announcement) -> Result<Effect, String> {
        let mut entries = self.lock();
        if entries.len() >= ANNOUNCED_MAX && !entries.contains_key(&key) {
            return Err(format!(
                "{ANNOUNCED_MAX} routes are announced already, which is the limit: withdraw some, or \
                 originate them in the configuration"
            ));
        }
        Ok(match entries.insert(key, entry) {
            None => Effect::Announced,
            Some(_) => Effect::Replaced,
        })
    }

    /// Removes those that are to end, and returns them.
    fn take(&self, mut ends: impl FnMut(&Key, &Announcement) -> bool) -> Vec<(Key, Announcement)> {
        self.lock().extract_if(.., |key, entry| ends(key, entry)).collect()
    }

    fn next_end(&self) -> Option<Instant> {
        self.lock().values().filter_map(|entry| entry.ends).min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Announcement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a prefix cannot be announced: the configuration originates it.
fn contested(config: &Config, (vrf, prefix): &Key) -> Option<String> {
    let of_vrf = |name: &Arc<str>| {
        let vrf = config.vrfs.iter().find(|vrf| vrf.name == *name);
        vrf.map_or(&[][..], |vrf| &vrf.originate)
    };
    let originated: &[Originate] = vrf.as_ref().map_or(&config.originate, of_vrf);
    if originated.iter().any(|route| route.prefix == *prefix) {
        return Some("the configuration originates it".to_owned());
    }
    let is_host = |host: &crate::config::HostRoute| Prefix::host(host.destination) == *prefix;
    (vrf.is_none() && config.host_routes.iter().any(is_host))
        .then(|| "it is a host route to a neighbour".to_owned())
}

impl Daemon {
    /// Announces a route, or changes one that is announced.
    ///
    /// # Errors
    /// The configuration originates the prefix, too many are announced, or its VRF does not run.
    pub(super) fn announce(
        &mut self,
        (vrf, prefix): (Option<&str>, Prefix),
        entry: Announcement,
    ) -> Result<Effect, Refusal> {
        let key: Key = (vrf.map(Arc::from), prefix);
        if let Some(why) = contested(&self.config, &key) {
            let node = self.node.as_ref().map(|node| node.follower().status.borrow().clone());
            let object = node.and_then(|status| status.reasons.get(&prefix).cloned());
            let why =
                object.map_or(why, |object| format!("Calico's objects originate it: {object}"));
            return Err(Refusal::failed(format!("{prefix} is not announced: {why}")));
        }
        let Some(table) = self.table_in(vrf) else {
            let text = format!("VRF {} does not exist at present", vrf.unwrap_or_default());
            return Err(Refusal { kind: ErrorKind::NotFound, text });
        };
        let route = entry.route();
        let lasts = match entry.options.seconds {
            Some(seconds) => format!("for {seconds} s"),
            None => WITHOUT_END.to_owned(),
        };
        let effect = self.views.announcements.insert(key, entry).map_err(Refusal::failed)?;
        table.local(prefix, Source::Announced, Some(route));
        let place = place(vrf);
        let anew = if effect == Effect::Replaced { " anew" } else { "" };
        info!(event = ANNOUNCED, %prefix, "announcing {prefix}{place}{anew} by command, {lasts}");
        Ok(effect)
    }

    /// Withdraws an announced route, or all of a VRF.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn withdraw_announced(
        &mut self,
        vrf: Option<&str>,
        prefix: Option<Prefix>,
    ) -> Result<Vec<(Key, Announcement)>, Refusal> {
        let ended = self.views.announcements.take(|(there, announced), _| {
            there.as_deref() == vrf && prefix.is_none_or(|prefix| prefix == *announced)
        });
        if ended.is_empty() {
            let what = prefix.map_or("no route".to_owned(), |prefix| format!("{prefix}"));
            let not = if prefix.is_some() { "not " } else { "" };
            let place = place(vrf);
            return Err(Refusal {
                kind: ErrorKind::NotFound,
                text: format!("{what} is {not}announced by command{place} (margay show announced)"),
            });
        }
        self.withdraw_ended(&ended, "by command");
        Ok(ended)
    }

    /// Ends the announcements whose time is over; returns when to look again.
    pub(super) fn check_announcements(&mut self) -> Option<Instant> {
        let next = self.views.announcements.next_end()?;
        let now = Instant::now();
        if next > now {
            return Some(next);
        }
        let ended =
            self.views.announcements.take(|_, entry| entry.ends.is_some_and(|end| end <= now));
        self.withdraw_ended(&ended, "its time is over");
        self.views.announcements.next_end()
    }

    /// A configuration has come into force: what it originates is not announced by command any more, nor
    /// anything in a VRF that it does not have.
    pub(super) fn review_announcements(&mut self) {
        if self.views.announcements.len() == 0 {
            return;
        }
        let config = Arc::clone(&self.config);
        let is_gone = |(vrf, _): &Key| {
            vrf.as_ref().is_some_and(|vrf| config.vrfs.iter().all(|known| known.name != *vrf))
        };
        let originated = self.views.announcements.take(|key, _| contested(&config, key).is_some());
        self.withdraw_ended(&originated, "the configuration originates it");
        let gone = self.views.announcements.take(|key, _| is_gone(key));
        self.withdraw_ended(&gone, "its VRF is not configured any more");
        self.confirmation.note_ended(originated.into_iter().chain(gone));
    }

    /// A reload was undone: what it ended is announced again, unless its time is over or an operator has
    /// announced it anew meanwhile.
    pub(super) fn announce_again(&mut self) {
        let now = Instant::now();
        for (key, entry) in self.confirmation.take_ended() {
            let (vrf, prefix) = (key.0.clone(), key.1);
            let is_known = |vrf: &Arc<str>| self.config.vrfs.iter().any(|known| known.name == *vrf);
            if entry.ends.is_some_and(|end| end <= now)
                || contested(&self.config, &key).is_some()
                || !vrf.as_ref().is_none_or(is_known)
                || self.views.announcements.get(vrf.as_deref(), prefix).is_some()
            {
                continue;
            }
            let (route, place) = (entry.route(), place(vrf.as_deref()));
            if let Err(text) = self.views.announcements.insert(key, entry) {
                warn!(%prefix, reason = text, "{prefix}{place} is not announced again: {text}");
                continue;
            }
            // In a VRF that does not run at present, it is announced when the VRF comes back.
            if let Some(table) = self.table_in(vrf.as_deref()) {
                table.local(prefix, Source::Announced, Some(route));
            }
            info!(
                event = ANNOUNCED,
                %prefix,
                "announcing {prefix}{place} again by command: the reload that ended it was undone"
            );
        }
    }

    fn withdraw_ended(&self, ended: &[(Key, Announcement)], why: &str) {
        for ((vrf, prefix), _) in ended {
            if let Some(table) = self.table_in(vrf.as_deref()) {
                table.local(*prefix, Source::Announced, None);
            }
            let place = place(vrf.as_deref());
            info!(
                event = ANNOUNCEMENT_ENDED,
                %prefix,
                reason = why,
                "{prefix}{place} is not announced by command any more: {why}"
            );
        }
    }

    /// The table of a VRF that runs, or of the default one.
    fn table_in(&self, vrf: Option<&str>) -> Option<Handle> {
        match vrf {
            None => Some(self.engine.handle().clone()),
            Some(vrf) => self.vrfs.shown().get(vrf).map(|shown| shown.table),
        }
    }
}

fn place(vrf: Option<&str>) -> String {
    vrf.map(|vrf| format!(" in VRF {vrf}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(seconds: Option<u32>, now: Instant) -> Announcement {
        let ends = seconds.map(|seconds| now + Duration::from_secs(seconds.into()));
        Announcement {
            since: SystemTime::UNIX_EPOCH,
            ends,
            options: AnnounceOptions { seconds, ..AnnounceOptions::default() },
            attrs: Arc::from([]),
        }
    }

    fn key(text: &str, vrf: Option<&str>) -> Key {
        (vrf.map(Arc::from), text.parse().unwrap())
    }

    #[test]
    fn announcements_are_bounded_and_end_in_order() {
        let (all, now) = (Announcements::default(), Instant::now());
        let at = |n: usize| key(&format!("10.{}.{}.0/24", n / 256, n % 256), None);
        for n in 0..ANNOUNCED_MAX {
            let seconds = if n % 2 == 0 { Some(60) } else { None };
            assert_eq!(all.insert(at(n), entry(seconds, now)), Ok(Effect::Announced));
        }
        let refused = all.insert(at(ANNOUNCED_MAX), entry(None, now)).unwrap_err();
        assert!(refused.contains("1000 routes are announced already"), "{refused}");
        assert_eq!(all.insert(at(0), entry(Some(5), now)), Ok(Effect::Replaced), "no one more");
        assert_eq!(all.next_end(), Some(now + Duration::from_secs(5)));
        let until = now + Duration::from_secs(60);
        let ended = all.take(|_, entry| entry.ends.is_some_and(|end| end <= until));
        assert_eq!((ended.len(), all.len(), all.next_end()), (500, 500, None));
    }

    #[test]
    fn a_prefix_that_the_configuration_originates_is_contested_in_its_vrf_only() {
        let text = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n\
                    [[originate]]\nprefix = \"192.0.2.0/24\"\n\
                    [[vrfs]]\nname = \"blue\"\n\
                    [[originate]]\nprefix = \"198.51.100.0/24\"\nvrf = \"blue\"\n";
        let config = Config::parse(std::path::Path::new("m.toml"), text).unwrap();
        for (prefix, vrf, wanted) in [
            ("192.0.2.0/24", None, true),
            ("192.0.2.0/24", Some("blue"), false),
            ("198.51.100.0/24", Some("blue"), true),
            ("198.51.100.0/24", None, false),
            ("192.0.2.0/25", None, false),
            ("192.0.2.0/24", Some("red"), false),
        ] {
            assert_eq!(contested(&config, &key(prefix, vrf)).is_some(), wanted, "{prefix} {vrf:?}");
        }
    }
}
