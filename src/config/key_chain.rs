//! `[[key-chains]]`, and the key `tcp-ao` of what uses one.

use std::path::Path;
use std::sync::Arc;

use bgp_proto::session::{
    AuthKey, ChainKey, KeyChain, KeyChainFault, KeyLifetime, TcpOptions, TransportSecurity,
};
use bgp_proto::types::Prefix;
use jiff::Timestamp;

use super::password::read_secret;
use super::reader::{Table, Value, closest, is_of_word};
use super::{Config, DynamicPeers};

/// Names of the file, and of the kernel.
const ALGORITHMS: [(&str, &str); 5] = [
    ("hmac-sha1", "hmac(sha1)"),
    ("aes-128-cmac", "cmac(aes128)"),
    ("hmac-sha256", "hmac(sha256)"),
    ("hmac-sha384", "hmac(sha384)"),
    ("hmac-sha512", "hmac(sha512)"),
];

/// Reads `[[key-chains]]`; relative names of files are resolved from `folder`.
pub(super) fn read(root: &Table<'_>, folder: &Path) -> Vec<Arc<KeyChain>> {
    let mut chains: Vec<Arc<KeyChain>> = Vec::new();
    for table in root.tables("key-chains") {
        let name = table.require("name", "name the chain");
        let name = name.and_then(|value| {
            let name = value.text()?;
            if name.is_empty() || !name.chars().all(is_of_word) {
                value.fault("must be one word", "use letters, digits, \"-\", \"_\" and \".\"");
                return None;
            }
            if chains.iter().any(|chain| **chain.name() == *name) {
                value.fault(format_args!("\"{name}\" is listed twice"), "keep one chain");
                return None;
            }
            Some(name)
        });
        let tables = table.tables("keys");
        let count = tables.len();
        let keys: Vec<ChainKey> =
            tables.into_iter().filter_map(|table| read_key(table, folder)).collect();
        // A key that cannot be read has its own fault.
        if let Some(name) = name.filter(|_| keys.len() == count) {
            match KeyChain::new(name, keys) {
                Ok(chain) => chains.push(Arc::new(chain)),
                Err(fault) => table.fault_at("keys", what(fault), remedy(fault)),
            }
        }
        table.finish();
    }
    chains
}

fn what(fault: KeyChainFault) -> String {
    match fault {
        KeyChainFault::Empty => "has no key".to_owned(),
        KeyChainFault::DuplicateSendId(id) => format!("two keys have the id {id}"),
        KeyChainFault::DuplicateReceiveId(id) => format!("two keys have the receive-id {id}"),
    }
}

fn remedy(fault: KeyChainFault) -> &'static str {
    match fault {
        KeyChainFault::Empty => "write [[key-chains.keys]] with id and secret",
        KeyChainFault::DuplicateSendId(_) | KeyChainFault::DuplicateReceiveId(_) => {
            "give each its own (RFC 5925 §3.1)"
        }
    }
}

fn read_key(table: Table<'_>, folder: &Path) -> Option<ChainKey> {
    let id = table.require("id", "set it to the KeyID, 0-255");
    let send_id: Option<u8> = id.and_then(|value| value.integer(0..=u8::MAX));
    let receive_id = match table.get("receive-id") {
        Some(value) => value.integer(0..=u8::MAX),
        None => send_id,
    };
    let algorithm = match table.get("algorithm") {
        Some(value) => value.choice(&ALGORITHMS),
        None => Some("hmac(sha1)"),
    };
    let covers = table.get("include-tcp-options").and_then(|value| value.boolean());
    let secret = read_secret(&table, folder, ["secret", "secret-file"]);
    if secret.is_none() && table.get("secret").or(table.get("secret-file")).is_none() {
        table.fault_at("secret", "is missing", "set secret or secret-file");
    }
    let secret = secret.and_then(|(value, octets)| {
        let (len, max) = (octets.len(), AuthKey::MAX_LEN);
        let secret = AuthKey::new(octets);
        if secret.is_none() {
            let what = format_args!("a secret of {len} octets cannot be used");
            value.fault(what, format_args!("use 1-{max} octets"));
        }
        secret
    });
    let [send, accept] = ["send", "accept"].map(|key| read_lifetime(&table, key));
    table.finish();
    Some(ChainKey {
        send_id: send_id?,
        receive_id: receive_id?,
        algorithm: algorithm?.to_owned(),
        tcp_options: if covers == Some(false) { TcpOptions::Excluded } else { TcpOptions::Covered },
        secret: secret?,
        send: send?,
        accept: accept?,
    })
}

/// `{ from = …, until = … }`; `None` after a fault.
fn read_lifetime(table: &Table<'_>, key: &'static str) -> Option<KeyLifetime> {
    let Some(value) = table.get(key) else { return Some(KeyLifetime::default()) };
    let lifetime = value.table()?;
    let read = |key| match lifetime.get(key) {
        Some(value) => read_time(&value).map(Some),
        None => Some(None),
    };
    let (from, until) = (read("from"), read("until"));
    lifetime.finish();
    let (from, until) = (from?, until?);
    if from.zip(until).is_some_and(|(from, until)| until <= from) {
        value.fault("ends before it begins", "write a later time as until");
        return None;
    }
    Some(KeyLifetime { from, until })
}

/// A time with its offset from UTC, in seconds since the Unix epoch.
fn read_time(value: &Value<'_>) -> Option<u64> {
    let text = value.date_or_text()?;
    let time = text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok());
    if time.is_none() {
        value.fault(
            format_args!("{text} is not a time with an offset from UTC"),
            "write one such as 2026-12-01T00:00:00Z",
        );
    }
    time
}

/// Reads `tcp-ao` of a peer or a range, whose `password` is `md5`.
pub(super) fn read_use(
    table: &Table<'_>,
    chains: &[Arc<KeyChain>],
    md5: Option<&AuthKey>,
) -> Option<Arc<KeyChain>> {
    let value = table.get("tcp-ao")?;
    if md5.is_some() {
        value.fault_key("excludes password: a connection is signed in one way", "keep one of them");
        return None;
    }
    let name = value.text()?;
    let found = chains.iter().find(|chain| **chain.name() == *name);
    if found.is_none() {
        let names: Vec<&str> = chains.iter().map(|chain| &**chain.name()).collect();
        let remedy = match closest(name, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add [[key-chains]] with name = \"{name}\""),
        };
        value.fault(format_args!("there is no usable key chain \"{name}\" in this file"), remedy);
    }
    found.cloned()
}

/// Refuses what has another chain than a range around it, or none: Linux asks for the keys of the range
/// from every address in it, and does not take the same ids for an address in it twice.
pub(super) fn check_around(
    table: &Table<'_>,
    key: &'static str,
    dynamic: &[DynamicPeers],
    (vrf, prefix): (&Option<Arc<str>>, Prefix),
    security: &TransportSecurity,
) {
    let around = dynamic.iter().filter(|range| {
        range.session.vrf == *vrf && range.prefix != prefix && range.prefix.contains(prefix)
    });
    for range in around {
        let Some(chain) = &range.session.security.ao else { continue };
        if security.ao.as_ref().map(|ours| ours.name()) == Some(chain.name()) {
            continue;
        }
        table.fault_at(
            key,
            format_args!(
                "{prefix} lies in the dynamic-peers range {}, and is not signed with its key chain \
                 \"{}\", which Linux asks for from every address there",
                range.prefix,
                chain.name()
            ),
            format_args!("set tcp-ao = \"{}\", or give the range another prefix", chain.name()),
        );
    }
}

impl Config {
    /// The key chains that will have no key to sign with at some time from `now` on, in seconds since the
    /// Unix epoch; a line for each.
    pub fn key_chain_gaps(&self, now: u64) -> Vec<String> {
        let time = |seconds: u64| {
            let time = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
            time.map_or_else(|| seconds.to_string(), |time| time.to_string())
        };
        let gap = |chain: &Arc<KeyChain>| {
            let KeyLifetime { from, until } = chain.gap(now)?;
            let from = from.filter(|from| *from > now).map_or("now".to_owned(), time);
            let until = until.map(|until| format!(" until {}", time(until))).unwrap_or_default();
            Some(format!(
                "key chain {}: no key may be both sent and accepted from {from} on{until}; sessions \
                 keep the keys that they have, and new ones are not possible: add a key",
                chain.name()
            ))
        };
        self.key_chains.iter().filter_map(gap).collect()
    }
}
