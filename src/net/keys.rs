//! TCP MD5 keys of the listening sockets (RFC 2385): the desired keys, and those in the kernel.
//!
//! The kernel looks keys up by longest prefix, and keeps them in socket memory that is limited by
//! `net.core.optmem_max`. Changes are made in an order in which an address that has a key before
//! and after is never without one in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;

use bgp_proto::session::AuthKey;
use bgp_proto::types::Prefix;

use super::sockopt;

/// The sysctl that limits the memory of a socket's options.
const OPTMEM_MAX: &str = "/proc/sys/net/core/optmem_max";
/// Roughly what one key uses of it, rounded up: the message to the operator names a sufficient
/// value.
const OCTETS_PER_KEY: u64 = 192;

/// Every neighbour (as a host prefix) and range, with its key if it has one. Entries without a key
/// matter as well: no key may cover their addresses.
pub type Md5Entries = BTreeMap<Prefix, Option<AuthKey>>;

/// A neighbour or range that cannot connect to us, because its key is not on every listening
/// socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// The neighbour's address, or the range.
    pub prefix: Prefix,
    /// The reason and the remedy, for the operator.
    pub text: String,
}

/// The keys that the kernel holds for one socket.
#[derive(Default)]
pub(super) struct Installed {
    keys: BTreeMap<Prefix, AuthKey>,
    /// The memory limit and the number of keys for which it was last too small.
    shortage: Option<(u64, usize)>,
    /// The keys that the kernel last refused, and why.
    refused: Vec<(Prefix, io::Error)>,
}

impl Installed {
    /// Sets the socket's keys to those that the entries, all of its family, need. If the exact keys
    /// do not fit the socket's memory, summarised ones are used instead.
    pub(super) fn apply(&mut self, socket: BorrowedFd<'_>, entries: &Md5Entries) {
        let exact = without_redundant(entries);
        let memory = optmem_max();
        let is_known_to_be_short =
            self.shortage.is_some_and(|(before, keys)| before == memory && exact.len() >= keys);
        if !is_known_to_be_short {
            self.shortage = None;
            self.refused = self.bring_to(socket, &exact);
        }
        if is_known_to_be_short || self.refused.iter().any(|(_, error)| is_shortage(error)) {
            self.shortage = Some((memory, exact.len()));
            self.refused = self.bring_to(socket, &summarised(entries));
        }
    }

    /// The entries whose key is not in place, and why.
    pub(super) fn missing(&self, entries: &Md5Entries) -> Vec<(Prefix, io::Error)> {
        let error_of = |prefix: &Prefix| {
            let refused = self.refused.iter().find(|(refused, _)| refused.contains(*prefix));
            let code = refused.and_then(|(_, error)| error.raw_os_error());
            io::Error::from_raw_os_error(code.unwrap_or(libc::EINVAL))
        };
        let keyed = entries.iter().filter_map(|(prefix, key)| Some((prefix, key.as_ref()?)));
        keyed
            .filter(|(prefix, key)| longest(&self.keys, prefix) != Some(*key))
            .map(|(prefix, _)| (*prefix, error_of(prefix)))
            .collect()
    }

    /// Sets keys that are missing or differ, then deletes keys that are not wanted. Returns the
    /// keys that the kernel refused.
    ///
    /// Setting comes before deleting so that no address loses its key for a moment. Only if the
    /// socket's memory is exhausted are keys deleted first that the new key replaces.
    fn bring_to(
        &mut self,
        socket: BorrowedFd<'_>,
        wanted: &BTreeMap<Prefix, AuthKey>,
    ) -> Vec<(Prefix, io::Error)> {
        let mut refused = Vec::new();
        let mut made_room = false;
        for (prefix, key) in wanted {
            if self.keys.get(prefix) == Some(key) {
                continue;
            }
            let mut result = self.set(socket, *prefix, key);
            if result.as_ref().is_err_and(is_shortage) {
                // The longer prefixes that it replaces make room for it.
                let narrower =
                    |held: &&Prefix| prefix.contains(**held) && !wanted.contains_key(held);
                let narrower: Vec<Prefix> = self.keys.keys().filter(narrower).copied().collect();
                if !narrower.is_empty() {
                    made_room = true;
                    narrower.into_iter().for_each(|held| self.delete(socket, held));
                    result = self.set(socket, *prefix, key);
                }
            }
            if let Err(error) = result {
                refused.push((*prefix, error));
            }
        }
        let stale: Vec<Prefix> =
            self.keys.keys().filter(|held| !wanted.contains_key(held)).copied().collect();
        made_room |= !stale.is_empty();
        stale.into_iter().for_each(|held| self.delete(socket, held));
        if made_room {
            refused.retain_mut(|(prefix, error)| {
                let Some(key) = wanted.get(prefix) else { return false };
                match self.set(socket, *prefix, key) {
                    Ok(()) => false,
                    Err(again) => {
                        *error = again;
                        true
                    }
                }
            });
        }
        refused
    }

    fn set(&mut self, socket: BorrowedFd<'_>, prefix: Prefix, key: &AuthKey) -> io::Result<()> {
        sockopt::set_md5_key(socket, prefix, key.octets())?;
        self.keys.insert(prefix, key.clone());
        Ok(())
    }

    /// If the kernel does not delete a key, the next change tries again.
    fn delete(&mut self, socket: BorrowedFd<'_>, prefix: Prefix) {
        if sockopt::set_md5_key(socket, prefix, &[]).is_ok() {
            self.keys.remove(&prefix);
        }
    }
}

/// The message to the operator about a key that could not be set.
pub(super) fn explain(prefix: Prefix, error: &io::Error, keys: usize) -> KeyFault {
    let text = match error.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOBUFS) => {
            format!("it cannot connect: its TCP MD5 key does not fit {}", optmem_advice(keys))
        }
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => {
            "it cannot connect: this kernel has no TCP MD5 (CONFIG_TCP_MD5SIG) for its password"
                .to_owned()
        }
        _ => format!("it cannot connect: its TCP MD5 key cannot be set: {error}"),
    };
    KeyFault { prefix, text }
}

/// The limit that so many keys exceed, and what to do.
pub(super) fn optmem_advice(keys: usize) -> String {
    let now = optmem_max();
    let enough = (keys as u64 * OCTETS_PER_KEY).max(now * 2).next_multiple_of(1024);
    format!("net.core.optmem_max, which is {now}; set that sysctl to {enough} and reload")
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

/// 0 if it cannot be read.
fn optmem_max() -> u64 {
    let text = std::fs::read_to_string(OPTMEM_MAX).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The shorter prefixes that contain `prefix`, the longest first.
pub(super) fn ancestors(prefix: &Prefix) -> impl Iterator<Item = Prefix> + use<> {
    let prefix = *prefix;
    (0..prefix.len()).rev().map(move |len| Prefix::new(prefix.addr(), len))
}

/// The key that the kernel finds for a neighbour or range: that of the longest prefix.
fn longest<'a, T>(keys: &'a BTreeMap<Prefix, T>, prefix: &Prefix) -> Option<&'a T> {
    keys.get(prefix).or_else(|| ancestors(prefix).find_map(|outer| keys.get(&outer)))
}

/// The keys, without those that equal the key of the range around them.
fn without_redundant(entries: &Md5Entries) -> BTreeMap<Prefix, AuthKey> {
    let said = |prefix: &Prefix| ancestors(prefix).find_map(|outer| entries.get(&outer));
    let keyed = entries.iter().filter_map(|(prefix, key)| Some((prefix, key.as_ref()?)));
    keyed
        .filter(|(prefix, key)| said(prefix).and_then(Option::as_ref) != Some(*key))
        .map(|(prefix, key)| (*prefix, key.clone()))
        .collect()
}

/// The smallest set of keys for neighbours with equal passwords: one prefix around them represents
/// them all if no other known neighbour or range is inside it.
fn summarised(entries: &Md5Entries) -> BTreeMap<Prefix, AuthKey> {
    let has_range_around = |prefix: &Prefix| ancestors(prefix).any(|o| entries.contains_key(&o));
    let (inside, outside): (BTreeSet<&Prefix>, BTreeSet<&Prefix>) =
        entries.keys().partition(|prefix| has_range_around(prefix));
    let mut keys = without_redundant(entries);
    keys.retain(|prefix, _| inside.contains(prefix));
    let outside: Vec<(Prefix, Option<&AuthKey>)> = outside
        .into_iter()
        .map(|prefix| (*prefix, entries.get(prefix).and_then(Option::as_ref)))
        .collect();
    // Entries inside a range need no separate treatment when that range is summarised with others:
    // those with the range's key are not in `keys`, and the others have a longer prefix of their
    // own.
    summarise(&outside, &mut keys);
    keys
}

/// Summarises entries of which none contains another, in order of address.
fn summarise(entries: &[(Prefix, Option<&AuthKey>)], keys: &mut BTreeMap<Prefix, AuthKey>) {
    let (Some((first, key)), Some((last, _))) = (entries.first(), entries.last()) else { return };
    if first.family() != last.family() {
        let border = entries.partition_point(|(prefix, _)| prefix.family() == first.family());
        let (one, other) = entries.split_at(border);
        summarise(one, keys);
        return summarise(other, keys);
    }
    let around = common(first, last);
    if entries.iter().all(|(_, other)| other == key) {
        if let Some(key) = key {
            keys.insert(around, (*key).clone());
        }
        return;
    }
    let border = entries.partition_point(|(prefix, _)| common(first, prefix).len() > around.len());
    let (one, other) = entries.split_at(border);
    summarise(one, keys);
    summarise(other, keys);
}

/// The longest prefix that contains two prefixes of one family.
fn common(one: &Prefix, other: &Prefix) -> Prefix {
    let around = std::iter::once(*one).chain(ancestors(one)).find(|p| p.contains(*other));
    around.expect("the prefix of length 0 is around all of its family")
}

#[cfg(test)]
mod tests;
