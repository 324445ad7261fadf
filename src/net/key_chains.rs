//! Keys of TCP-AO on the sockets (RFC 5925): on listening sockets those of every neighbour and range, on
//! a connection those of its chain, which change while it stands.
//!
//! Unlike one of TCP MD5, a key cannot be replaced: keys with other ids are added before old ones are
//! deleted, and only a key whose id now means another one is deleted first.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bgp_proto::session::{ChainKey, HeldKeys, KeyChain, KeyStep};
use bgp_proto::types::Prefix;
use socket2::{Domain, Socket, Type};

use super::keys::{KeyFault, ancestors, optmem_advice};
use super::sockopt::{self, AoCounters, AoDelete, AoIds, AoUse, HeldAoKey};

/// Every neighbour (as a host prefix) and range with a chain.
pub type ChainEntries = BTreeMap<Prefix, Arc<KeyChain>>;

/// Wall-clock time in seconds since the Unix epoch, in which lifetimes are configured.
pub fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}

/// The keys that the kernel holds for one listening socket.
#[derive(Default)]
pub(super) struct InstalledChains {
    keys: BTreeMap<(Prefix, AoIds), ChainKey>,
    /// The prefixes of which the kernel last refused a key, and why.
    refused: BTreeMap<Prefix, io::Error>,
}

impl InstalledChains {
    /// Sets the socket's keys to those that the entries, all of its family, need at `now`. `delete` says
    /// how keys are deleted, which depends on whether the socket listens already.
    pub(super) fn apply(
        &mut self,
        socket: BorrowedFd<'_>,
        entries: &ChainEntries,
        now: u64,
        delete: AoDelete,
    ) {
        let wanted = wanted_keys(entries, now);
        self.refused.clear();
        for ((prefix, ids), key) in &wanted {
            if self.keys.get(&(*prefix, *ids)).is_some_and(|held| is_same(held, key)) {
                continue;
            }
            let in_the_way: Vec<(Prefix, AoIds)> = self
                .keys
                .keys()
                .filter(|held| {
                    collides(**held, (*prefix, *ids)) && !is_kept(&self.keys, &wanted, held)
                })
                .copied()
                .collect();
            for held in in_the_way {
                self.delete(socket, held, delete);
            }
            match sockopt::add_ao_key(socket, *prefix, key, AoUse::Held) {
                Ok(()) => {
                    self.keys.insert((*prefix, *ids), (*key).clone());
                }
                Err(error) => {
                    self.refused.entry(*prefix).or_insert(error);
                }
            }
        }
        let stale = self.keys.keys().filter(|held| !wanted.contains_key(held));
        for held in stale.copied().collect::<Vec<_>>() {
            self.delete(socket, held, delete);
        }
    }

    /// Whether the socket has any key.
    pub(super) fn holds_any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The entries of which a key is not in place, and why.
    pub(super) fn faults(&self, entries: &ChainEntries) -> Vec<KeyFault> {
        let fault = |(prefix, chain): (&Prefix, &Arc<KeyChain>)| {
            let error = self.refused.get(&outermost(entries, prefix))?;
            let keys = self.keys.len() + self.refused.len();
            let text = format!("it cannot connect: {}", explain(error, chain, keys));
            Some(KeyFault { prefix: *prefix, text })
        };
        entries.iter().filter_map(fault).collect()
    }

    /// If the kernel does not delete a key, the next change tries again.
    fn delete(&mut self, socket: BorrowedFd<'_>, (prefix, ids): (Prefix, AoIds), how: AoDelete) {
        if sockopt::delete_ao_key(socket, prefix, ids, how).is_ok() {
            self.keys.remove(&(prefix, ids));
        }
    }
}

type Keys<'a> = BTreeMap<(Prefix, AoIds), &'a ChainKey>;

/// The keys that are live at `now`. An entry inside another one has its keys, which the kernel would refuse
/// to add twice: the configuration permits no other chain there.
fn wanted_keys(entries: &ChainEntries, now: u64) -> Keys<'_> {
    let outer = entries.iter().filter(|(prefix, _)| outermost(entries, prefix) == **prefix);
    let keys = outer.flat_map(|(prefix, chain)| {
        let live = (0..).zip(chain.keys()).filter(move |(at, _)| chain.is_live(*at, now));
        live.map(|(_, key)| ((*prefix, AoIds::of(key)), key))
    });
    keys.collect()
}

/// The shortest prefix around an entry, or its own, that is an entry.
fn outermost(entries: &ChainEntries, prefix: &Prefix) -> Prefix {
    ancestors(prefix).filter(|outer| entries.contains_key(outer)).last().unwrap_or(*prefix)
}

/// Whether the kernel refuses one key beside the other.
fn collides((a, x): (Prefix, AoIds), (b, y): (Prefix, AoIds)) -> bool {
    (a.contains(b) || b.contains(a)) && (x.send == y.send || x.receive == y.receive)
}

fn is_kept(
    keys: &BTreeMap<(Prefix, AoIds), ChainKey>,
    wanted: &Keys<'_>,
    held: &(Prefix, AoIds),
) -> bool {
    wanted.get(held).zip(keys.get(held)).is_some_and(|(wanted, held)| is_same(wanted, held))
}

/// Whether two keys are one to the kernel, which knows no lifetimes.
fn is_same(a: &ChainKey, b: &ChainKey) -> bool {
    (AoIds::of(a), &a.algorithm, a.tcp_options, &a.secret)
        == (AoIds::of(b), &b.algorithm, b.tcp_options, &b.secret)
}

/// What the kernel's refusal of a key of a chain means. `keys`: how many keys there are.
pub(super) fn explain(error: &io::Error, chain: &KeyChain, keys: usize) -> String {
    let name = chain.name();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => format!(
            "this kernel has no TCP-AO (Linux 6.7 with CONFIG_TCP_AO) for tcp-ao = \"{name}\"; use \
             password (TCP MD5) with this neighbour"
        ),
        Some(libc::ENOMEM | libc::ENOBUFS) => {
            format!("the keys of \"{name}\" do not fit {}", optmem_advice(keys))
        }
        Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP) => {
            let mut algorithms: Vec<&str> =
                chain.keys().iter().map(|key| key.algorithm.as_str()).collect();
            algorithms.sort_unstable();
            algorithms.dedup();
            format!(
                "this kernel does not take an algorithm of key chain \"{name}\" ({}): {error}; use \
                 hmac-sha1 or aes-128-cmac (RFC 5926)",
                algorithms.join(", ")
            )
        }
        Some(libc::EKEYREJECTED) => format!(
            "a TCP MD5 key is set for an address of key chain \"{name}\", and Linux takes one kind only; \
             choose prefixes that do not overlap"
        ),
        _ => format!("a key of chain \"{name}\" cannot be set: {error}"),
    }
}

/// Whether this kernel takes every key of a chain.
///
/// # Errors
/// What it lacks, for the operator.
pub fn try_key_chain(chain: &KeyChain) -> Result<(), String> {
    let tried = || -> io::Result<()> {
        let v4 = (Domain::IPV4, IpAddr::from([192, 0, 2, 1]));
        let v6 = (Domain::IPV6, IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
        let open = |(domain, nobody)| Some((Socket::new(domain, Type::STREAM, None).ok()?, nobody));
        let opened = [v4, v6].into_iter().find_map(open);
        let (socket, nobody) = opened.ok_or(io::ErrorKind::Unsupported)?;
        chain.keys().iter().try_for_each(|key| {
            sockopt::add_ao_key(socket.as_fd(), Prefix::host(nobody), key, AoUse::Held)
        })
    };
    tried().map_err(|error| explain(&error, chain, chain.keys().len()))
}

/// Puts the keys of a chain on a socket that is about to dial `peer`. `failures`: how many attempts in a
/// row have failed before.
///
/// # Errors
/// The kernel refuses a key, or no key of the chain may be used at `now`.
pub(super) fn prepare(
    socket: BorrowedFd<'_>,
    peer: Prefix,
    chain: &KeyChain,
    now: u64,
    failures: usize,
) -> io::Result<()> {
    let explained = |error: io::Error| io::Error::other(explain(&error, chain, chain.keys().len()));
    let Some(first) = chain.to_dial(now, failures) else {
        return Err(io::Error::other(format!(
            "no key of chain \"{}\" may be both sent and accepted now; add a key",
            chain.name()
        )));
    };
    for (at, key) in chain.keys().iter().enumerate().filter(|(at, _)| chain.is_live(*at, now)) {
        let what_for = if at == first { AoUse::Selected } else { AoUse::Held };
        sockopt::add_ao_key(socket, peer, key, what_for).map_err(explained)?;
    }
    Ok(())
}

/// What [`review`] has found on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Review {
    /// Nothing is left to do before the next lifetime begins or ends. Otherwise the neighbour still signs
    /// with another key than the preferred one, or asks for another.
    pub(super) is_settled: bool,
    /// The KeyID of the key of the chain that we sign with.
    pub(super) signed_with: Option<u8>,
}

/// Brings a connection with `peer` to the keys of its chain at `now`, and calls `asked` with a key that the
/// neighbour is asked for from now on.
///
/// # Errors
/// The connection does not use TCP-AO, or the kernel refuses a change.
pub(super) fn review(
    socket: BorrowedFd<'_>,
    peer: Prefix,
    chain: &KeyChain,
    now: u64,
    mut asked: impl FnMut(&ChainKey),
) -> io::Result<Review> {
    let on_socket = sockopt::ao_keys(socket)?;
    let place = |ids: AoIds| chain.keys().iter().position(|key| AoIds::of(key) == ids);
    let selected = |is: fn(&HeldAoKey) -> bool| {
        on_socket.iter().find(|held| is(held)).and_then(|held| place(held.ids))
    };
    let mut held = HeldKeys {
        all: on_socket.iter().filter_map(|held| place(held.ids)).collect(),
        current: selected(|held| held.is_current),
        rnext: selected(|held| held.is_rnext),
    };
    held.all.sort_unstable();
    let KeyStep { add, current, rnext, delete } = chain.step(now, &held);
    let key = |at: usize| chain.keys().get(at);
    for key in add.iter().filter_map(|at| key(*at)) {
        sockopt::add_ao_key(socket, peer, key, AoUse::Held)?;
    }
    let (new_current, new_rnext) = (current.and_then(key), rnext.and_then(key));
    if new_current.is_some() || new_rnext.is_some() {
        let send_id = new_current.map(|key| key.send_id);
        sockopt::select_ao_keys(socket, send_id, new_rnext.map(|key| key.receive_id))?;
    }
    new_rnext.into_iter().for_each(&mut asked);
    let is_stale = |held: &&HeldAoKey| match place(held.ids) {
        Some(at) => delete.contains(&at),
        // Not of the chain any more. What is still selected is kept: no other key may be used.
        None => !(held.is_current && current.is_none() || held.is_rnext && rnext.is_none()),
    };
    let mut in_use = false;
    for held in on_socket.iter().filter(is_stale) {
        match sockopt::delete_ao_key(socket, held.peers, held.ids, AoDelete::AtOnce) {
            // The neighbour has asked for it in this moment.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => in_use = true,
            result => result?,
        }
    }
    let preferred = chain.preferred(now);
    let current = current.or(held.current);
    Ok(Review {
        is_settled: !in_use && (preferred.is_none() || current == preferred),
        signed_with: current.and_then(key).map(|key| key.send_id),
    })
}

/// TCP-AO on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedConnection {
    /// Received segments.
    pub counters: AoCounters,
    /// The keys that the kernel holds for it.
    pub keys: Vec<HeldAoKey>,
}

impl AoCounters {
    /// Why segments were dropped, if any were; with the count of each outcome.
    pub(super) fn dropped(&self) -> Option<String> {
        let outcomes = [
            (self.bad, "with a wrong signature: the secrets or algorithms of a key differ"),
            (self.key_not_found, "with a key that we do not hold: the ids of the keys differ"),
            (self.unsigned, "without a signature: the neighbour has no key chain for us"),
        ];
        let text = |(count, means): &(u64, &str)| format!("{count} segments {means}");
        let dropped: Vec<String> = outcomes.iter().filter(|(n, _)| *n > 0).map(text).collect();
        (!dropped.is_empty()).then(|| format!("TCP-AO: the kernel dropped {}", dropped.join(", ")))
    }
}

impl SignedConnection {
    /// # Errors
    /// The connection does not use TCP-AO.
    pub(super) fn read(socket: BorrowedFd<'_>) -> io::Result<SignedConnection> {
        let counters = sockopt::ao_counters(socket)?;
        Ok(SignedConnection { counters, keys: sockopt::ao_keys(socket)? })
    }
}

/// What the listening sockets of a family have received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedAttempts {
    /// From all neighbours together.
    pub counters: AoCounters,
    /// The keys of one neighbour, or of the range around it.
    pub keys: Vec<HeldAoKey>,
}

impl SignedAttempts {
    /// Adds what one listening socket has received, and the keys of `chain` that it has for one of these
    /// prefixes. Nothing if it does not use TCP-AO.
    pub(super) fn add(&mut self, socket: BorrowedFd<'_>, prefixes: &[Prefix], chain: &KeyChain) {
        let Ok(counters) = sockopt::ao_counters(socket) else { return };
        self.counters += counters;
        for ids in chain.keys().iter().map(AoIds::of) {
            let found = prefixes
                .iter()
                .find_map(|prefix| sockopt::ao_key(socket, *prefix, ids).ok().flatten());
            let Some(found) = found else { continue };
            match self.keys.iter_mut().find(|known| known.ids == ids) {
                Some(known) => {
                    known.good += found.good;
                    known.bad += found.bad;
                }
                None => self.keys.push(found),
            }
        }
    }
}

#[cfg(test)]
mod tests;
