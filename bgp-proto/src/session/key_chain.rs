//! Key chains of TCP-AO (RFC 5925): which keys a connection needs, and which of them is preferred.
//!
//! Pure: the time is an argument, in seconds since the Unix epoch, and the keys that the kernel holds
//! are another. A segment names the key that it is signed with (KeyID) and the key that its sender
//! wants to receive (RNextKeyID). A key that becomes preferred is only asked for by RNextKeyID: a
//! neighbour that does not hold it yet goes on with the old one, so that no session ends while the
//! keys of both sides change at different times (RFC 5925 §7.5.2).

use std::fmt;
use std::sync::Arc;

use super::auth_key::AuthKey;

/// When a key may be used, in seconds since the Unix epoch: `from` is included, `until` is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLifetime {
    /// The first second. `None`, the default: always was.
    pub from: Option<u64>,
    /// The first second after it. `None`, the default: without end.
    pub until: Option<u64>,
}

impl KeyLifetime {
    /// Whether the key may be used at `now`.
    pub fn contains(&self, now: u64) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// Whether a signature covers the other TCP options of a segment. Both sides must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpOptions {
    /// It does.
    #[default]
    Covered,
    /// It does not, for paths on which a middlebox changes options.
    Excluded,
}

/// A master key tuple (RFC 5925 §3.1), without the connections that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainKey {
    /// KeyID of the segments that we sign with it.
    pub send_id: u8,
    /// KeyID of the segments that the neighbour signs with it.
    pub receive_id: u8,
    /// The algorithm, as the kernel names it: `hmac(sha1)`, `cmac(aes128)`.
    pub algorithm: String,
    /// Whether the signature covers the other TCP options of a segment (RFC 5925 §3.1).
    pub tcp_options: TcpOptions,
    /// The secret.
    pub secret: AuthKey,
    /// When we may sign with it.
    pub send: KeyLifetime,
    /// When the neighbour may sign with it.
    pub accept: KeyLifetime,
}

/// Why keys do not form a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChainFault {
    /// There is no key.
    Empty,
    /// Two keys have this `send_id`.
    DuplicateSendId(u8),
    /// Two keys have this `receive_id`.
    DuplicateReceiveId(u8),
}

impl fmt::Display for KeyChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyChainFault::Empty => f.write_str("the key chain has no key; add one"),
            KeyChainFault::DuplicateSendId(id) => {
                write!(f, "two keys have the send id {id}; give each its own")
            }
            KeyChainFault::DuplicateReceiveId(id) => {
                write!(f, "two keys have the receive id {id}; give each its own")
            }
        }
    }
}

/// Keys, of which one is preferred at a time. Ids are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChain {
    name: Arc<str>,
    keys: Vec<ChainKey>,
}

/// The keys that the kernel holds for a connection, by position in the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldKeys {
    /// All of them, in ascending order.
    pub all: Vec<usize>,
    /// The one that segments are signed with. The kernel changes it when the neighbour asks.
    pub current: Option<usize>,
    /// The one that the neighbour is asked to sign with.
    pub rnext: Option<usize>,
}

/// What to change on a connection, in this order: keys are added before one of them is selected,
/// and deleted when nothing uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyStep {
    /// Keys to add.
    pub add: Vec<usize>,
    /// The key to sign with from now on; `None`: as before.
    pub current: Option<usize>,
    /// The key to ask the neighbour for from now on; `None`: as before.
    pub rnext: Option<usize>,
    /// Keys to delete.
    pub delete: Vec<usize>,
}

impl KeyChain {
    /// A chain of these keys.
    ///
    /// # Errors
    /// There is none, or an id occurs twice.
    pub fn new(name: impl Into<Arc<str>>, keys: Vec<ChainKey>) -> Result<Self, KeyChainFault> {
        if keys.is_empty() {
            return Err(KeyChainFault::Empty);
        }
        let (mut sent, mut received) = ([false; 256], [false; 256]);
        for key in &keys {
            if std::mem::replace(&mut sent[usize::from(key.send_id)], true) {
                return Err(KeyChainFault::DuplicateSendId(key.send_id));
            }
            if std::mem::replace(&mut received[usize::from(key.receive_id)], true) {
                return Err(KeyChainFault::DuplicateReceiveId(key.receive_id));
            }
        }
        Ok(KeyChain { name: name.into(), keys })
    }

    /// Its name, for operators.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether a connection that holds keys of this chain can be given those of `new`: an id that both
    /// have is that of the same key. Lifetimes may differ. The kernel does not replace a key.
    pub fn can_become(&self, new: &KeyChain) -> bool {
        let is_same = |a: &ChainKey, b: &ChainKey| {
            let lifetimes = ChainKey { send: b.send, accept: b.accept, ..a.clone() };
            lifetimes == *b
        };
        let meets =
            |a: &ChainKey, b: &ChainKey| a.send_id == b.send_id || a.receive_id == b.receive_id;
        let pairs = self.keys.iter().flat_map(|a| new.keys.iter().map(move |b| (a, b)));
        pairs.filter(|(a, b)| meets(a, b)).all(|(a, b)| is_same(a, b))
    }

    /// Whether the key is in use at `now`: it may be sent or accepted. The kernel has one key for both
    /// directions, and holds it as long as either lifetime lasts.
    pub fn is_live(&self, at: usize, now: u64) -> bool {
        self.keys.get(at).is_some_and(|key| key.accept.contains(now) || key.send.contains(now))
    }

    /// The key to sign a new connection with: the preferred one, and after `failures` attempts in a
    /// row the next of those that may be sent and accepted. The neighbour may not hold the preferred
    /// one yet, and does not answer then. `None`: there is none.
    pub fn to_dial(&self, now: u64, failures: usize) -> Option<usize> {
        let mut usable = self.usable(now);
        usable.sort_by_key(|at| std::cmp::Reverse(self.rank(*at)));
        let turn = failures.checked_rem(usable.len())?;
        usable.get(turn).copied()
    }

    /// The keys, in the order of the configuration.
    pub fn keys(&self) -> &[ChainKey] {
        &self.keys
    }

    /// The key that is preferred at `now`: of those that may be sent and accepted, the one whose send
    /// lifetime began last, and of equal ones the last of the chain. `None`: there is none.
    pub fn preferred(&self, now: u64) -> Option<usize> {
        self.usable(now).into_iter().max_by_key(|at| self.rank(*at))
    }

    fn usable(&self, now: u64) -> Vec<usize> {
        let is_usable = |key: &ChainKey| key.send.contains(now) && key.accept.contains(now);
        (0..).zip(&self.keys).filter(|(_, key)| is_usable(key)).map(|(at, _)| at).collect()
    }

    /// The preferred key has the highest rank.
    fn rank(&self, at: usize) -> (Option<u64>, usize) {
        (self.keys.get(at).and_then(|key| key.send.from), at)
    }

    /// What to change at `now` on a connection that holds these keys.
    ///
    /// The current key is replaced only if there is none or its send lifetime is over. Otherwise the
    /// neighbour replaces it, by asking for the next one when it holds that. If no key is preferred,
    /// the selected ones stay: a session is not ended by a gap between lifetimes.
    pub fn step(&self, now: u64, held: &HeldKeys) -> KeyStep {
        let preferred = self.preferred(now);
        let is_over = |at: usize| self.keys.get(at).is_none_or(|key| !key.send.contains(now));
        let current = preferred.filter(|_| held.current.is_none_or(is_over));
        let rnext = preferred.filter(|_| held.rnext != preferred);
        let live: Vec<usize> = (0..self.keys.len()).filter(|at| self.is_live(*at, now)).collect();
        let selected = [current.or(held.current), rnext.or(held.rnext)];
        let is_unused = |at: &&usize| !live.contains(at) && !selected.contains(&Some(**at));
        KeyStep {
            add: live.iter().filter(|at| !held.all.contains(at)).copied().collect(),
            current,
            rnext,
            delete: held.all.iter().filter(is_unused).copied().collect(),
        }
    }

    /// The next second after `now` at which [`KeyChain::step`] may give something else because a
    /// lifetime begins or ends.
    pub fn next_change(&self, now: u64) -> Option<u64> {
        self.borders().filter(|at| *at > now).min()
    }

    /// The first time from `now` on at which no key is preferred: until the second one, or without
    /// end.
    pub fn gap(&self, now: u64) -> Option<KeyLifetime> {
        let mut borders: Vec<u64> =
            self.borders().filter(|at| *at > now).chain(std::iter::once(now)).collect();
        borders.sort_unstable();
        let from = borders.iter().copied().find(|at| self.preferred(*at).is_none())?;
        let until = borders.into_iter().find(|at| *at > from && self.preferred(*at).is_some());
        Some(KeyLifetime { from: Some(from), until })
    }

    fn borders(&self) -> impl Iterator<Item = u64> + '_ {
        let lifetimes = self.keys.iter().flat_map(|key| [key.send, key.accept]);
        lifetimes.flat_map(|lifetime| [lifetime.from, lifetime.until]).flatten()
    }
}

#[cfg(test)]
mod tests;
