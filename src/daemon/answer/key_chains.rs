//! TCP-AO in `show peer`.

use bgp_proto::session::ChainKey;

use crate::ctl::item::{TcpAo, TcpAoCounters, TcpAoKey};
use crate::daemon::registry::Record;
use crate::net::{AoCounters, AoIds, HeldAoKey};

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
