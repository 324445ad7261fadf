//! TCP-AO in `show peer` and `show key-chains`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bgp_proto::session::{ChainKey, KeyChain};

use crate::ctl::item::{self, ChainKeyState, TcpAo, TcpAoCounters, TcpAoKey};
use crate::ctl::rfc3339;
use crate::daemon::registry::Record;
use crate::net::{AoCounters, AoIds, HeldAoKey, unix_now};

/// The keys and counters of a peer; `None` if it has no key chain.
pub(super) fn tcp_ao(record: &Record) -> Option<TcpAo> {
    let chain = record.session.security.ao.as_ref()?;
    let connection = record.handle.signed();
    let attempts = record.place.directory.signed_attempts(record.address, chain);
    let held: &[HeldAoKey] = connection.as_ref().map_or(&[], |connection| &connection.keys);
    let find = |keys: &[HeldAoKey], key: &ChainKey| {
        let ids = AoIds { send: key.send_id, receive: key.receive_id };
        keys.iter().find(|held| held.ids == ids).copied()
    };
    let keys = chain.keys().iter().map(|key| {
        let held = find(held, key);
        let tried = find(&attempts.keys, key);
        TcpAoKey {
            id: key.send_id,
            receive_id: key.receive_id,
            algorithm: key.algorithm.clone(),
            held: held.is_some(),
            current: held.is_some_and(|held| held.is_current),
            next: held.is_some_and(|held| held.is_rnext),
            good: held.map_or(0, |held| held.good),
            bad: held.map_or(0, |held| held.bad),
            attempts_good: tried.map_or(0, |tried| tried.good),
            attempts_bad: tried.map_or(0, |tried| tried.bad),
        }
    });
    Some(TcpAo {
        chain: chain.name().to_string(),
        keys: keys.collect(),
        connection: connection.as_ref().map(|connection| counters(&connection.counters)),
        listeners: counters(&attempts.counters),
    })
}

fn counters(from: &AoCounters) -> TcpAoCounters {
    let AoCounters { good, bad, key_not_found, unsigned, dropped_icmp } = *from;
    TcpAoCounters { good, bad, key_not_found, unsigned, dropped_icmp }
}

/// Every key of these chains.
pub(super) fn keys(chains: &[Arc<KeyChain>], records: &[Arc<Record>]) -> Vec<item::ChainKey> {
    let now = unix_now();
    let time =
        |at: Option<u64>| at.map(|at| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(at)));
    let of_chain = |chain: &Arc<KeyChain>| -> Vec<item::ChainKey> {
        let has_it = |record: &&Arc<Record>| {
            record.session.security.ao.as_ref().is_some_and(|ao| ao.name() == chain.name())
        };
        let peers = records.iter().filter(has_it).count();
        let item = |(at, key): (usize, &ChainKey)| item::ChainKey {
            chain: chain.name().to_string(),
            id: key.send_id,
            receive_id: key.receive_id,
            algorithm: key.algorithm.clone(),
            state: state(chain, at, key, now),
            send_from: time(key.send.from),
            send_until: time(key.send.until),
            accept_from: time(key.accept.from),
            accept_until: time(key.accept.until),
            peers,
        };
        chain.keys().iter().enumerate().map(item).collect()
    };
    chains.iter().flat_map(of_chain).collect()
}

fn state(chain: &KeyChain, at: usize, key: &ChainKey, now: u64) -> ChainKeyState {
    let begins_later = |from: Option<u64>| from.is_some_and(|from| from > now);
    if chain.preferred(now) == Some(at) {
        ChainKeyState::Preferred
    } else if chain.is_live(at, now) {
        ChainKeyState::Live
    } else if begins_later(key.send.from) || begins_later(key.accept.from) {
        ChainKeyState::Waiting
    } else {
        ChainKeyState::Over
    }
}

#[cfg(test)]
mod tests {
    use bgp_proto::session::{AuthKey, KeyLifetime, TcpOptions};

    use super::*;

    #[test]
    fn the_state_of_a_key_follows_from_its_lifetimes() {
        let life = |from, until| KeyLifetime { from: Some(from), until: Some(until) };
        let key = |send_id, lifetime| ChainKey {
            send_id,
            receive_id: send_id,
            algorithm: "hmac(sha1)".to_owned(),
            tcp_options: TcpOptions::Covered,
            secret: AuthKey::new("secret").unwrap(),
            send: lifetime,
            accept: lifetime,
        };
        let chain = KeyChain::new("c", vec![key(1, life(10, 30)), key(2, life(20, 40))]).unwrap();
        let states = |now| [0, 1].map(|at| state(&chain, at, &chain.keys()[at], now));
        use ChainKeyState::{Live, Over, Preferred, Waiting};
        assert_eq!(states(5), [Waiting, Waiting]);
        assert_eq!(states(15), [Preferred, Waiting]);
        assert_eq!(states(25), [Live, Preferred]);
        assert_eq!(states(35), [Over, Preferred]);
        assert_eq!(states(45), [Over, Over]);
    }
}
