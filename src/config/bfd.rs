//! `bfd` of a peer, a range, or all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::bfd::{Auth, AuthKind, Config, INTERVAL_MAX, INTERVAL_MIN, Key, Role};
use bgp_proto::session::{BfdMode, PeerConfig};

use super::password::read_password;
use super::reader::{Table, Value};

/// How far away the peer of a BFD session may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BfdHops {
    /// On a common link: UDP port 3784, TTL 255 (RFC 5881).
    Single,
    /// Any number of hops away: UDP port 4784 (RFC 5883).
    Multi {
        /// Least TTL of packets without our discriminator. Default 0; with `ttl-security = N`,
        /// 256 - N.
        ttl_min: u8,
    },
}

/// BFD for a BGP session. A change restarts neither session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdSettings {
    /// Timers, role, authentication.
    pub session: Config,
    /// How far away the peer may be. Default: [`BfdHops::Single`] for external peers unless
    /// `multihop-ttl` or `ttl-security` allows more than one hop.
    pub hops: BfdHops,
}

/// Reads `[bgp] bfd`: the parameters that a peer's `bfd = true` stands for.
pub(super) fn read_defaults(table: &Table<'_>, folder: &Path) -> BfdTemplate {
    let Some(table) = table.get("bfd").and_then(|value| value.table()) else {
        return BfdTemplate::default();
    };
    let template = read_template(&table, &BfdTemplate::default(), folder);
    table.finish();
    template
}

/// BFD settings as configured, from which the settings of a peer follow once its session is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BfdTemplate {
    /// Timers, role, authentication.
    pub session: Config,
    /// The value of `multihop`, if it is set.
    pub multihop: Option<bool>,
    /// The value of `strict`, which is a parameter of the BGP session: [`PeerConfig::bfd_mode`].
    pub mode: BfdMode,
}

impl BfdTemplate {
    /// The settings for a peer with this session.
    pub fn settings(&self, peer: &PeerConfig) -> Arc<BfdSettings> {
        let hops = if self.multihop.unwrap_or(!peer.is_single_hop()) {
            let ttl_min = peer.security.ttl_security_hops.map_or(0, |hops| u8::MAX - (hops - 1));
            BfdHops::Multi { ttl_min }
        } else {
            BfdHops::Single
        };
        Arc::new(BfdSettings { session: self.session.clone(), hops })
    }
}

/// Reads `bfd` of a peer or a range: `true`, `false`, or a table. `multihop_ttl`: that of the
/// session, if it is the same for all peers to which the key applies.
pub(super) fn read(
    table: &Table<'_>,
    defaults: &BfdTemplate,
    multihop_ttl: Option<u8>,
    folder: &Path,
) -> Option<BfdTemplate> {
    let value = table.get("bfd")?;
    if value.is_boolean() {
        return value.boolean()?.then(|| defaults.clone());
    }
    let table = value.table()?;
    let multihop = table.get("multihop").and_then(|value| read_multihop(&value, multihop_ttl));
    let template = BfdTemplate { multihop, ..read_template(&table, defaults, folder) };
    table.finish();
    Some(template)
}

/// The keys that a peer's table and that of all peers have in common.
fn read_template(table: &Table<'_>, inherited: &BfdTemplate, folder: &Path) -> BfdTemplate {
    let mode = match table.get("strict").and_then(|value| value.boolean()) {
        Some(true) => BfdMode::Strict,
        Some(false) => BfdMode::Lenient,
        None => inherited.mode,
    };
    let session = read_session(table, inherited.session.clone(), folder);
    BfdTemplate { session, multihop: None, mode }
}

fn read_multihop(value: &Value<'_>, multihop_ttl: Option<u8>) -> Option<bool> {
    let multihop = value.boolean()?;
    if !multihop && multihop_ttl.is_some_and(|ttl| ttl > 1) {
        value.fault_key(
            "excludes multihop-ttl: a BFD session over one hop takes packets with TTL 255 alone",
            "leave it out, or leave multihop-ttl out",
        );
    }
    Some(multihop)
}

fn read_session(table: &Table<'_>, inherited: Config, folder: &Path) -> Config {
    let bounds = INTERVAL_MIN.as_millis() as u32..=INTERVAL_MAX.as_millis() as u32;
    let interval = |key, inherited| {
        let millis = table.get(key).and_then(|value| value.integer(bounds.clone()));
        millis.map_or(inherited, |millis| Duration::from_millis(millis.into()))
    };
    let (min_tx, min_rx) =
        (interval("min-tx", inherited.min_tx), interval("min-rx", inherited.min_rx));
    let multiplier = table
        .get("multiplier")
        .and_then(|value| value.integer(1..=u8::MAX))
        .and_then(std::num::NonZeroU8::new)
        .unwrap_or(inherited.multiplier);
    let role = match table.get("passive").and_then(|value| value.boolean()) {
        Some(true) => Role::Passive,
        Some(false) => Role::Active,
        None => inherited.role,
    };
    let auth = match table.get("auth").and_then(|value| value.table()) {
        Some(table) => {
            let auth = read_auth(&table, folder);
            table.finish();
            auth
        }
        None => inherited.auth,
    };
    Config { min_tx, min_rx, multiplier, role, auth }
}

fn read_auth(table: &Table<'_>, folder: &Path) -> Option<Auth> {
    let kind = table.require("type", "set it to \"meticulous-sha1\"").and_then(|value| {
        value.choice(&[
            ("simple", AuthKind::SimplePassword),
            ("sha1", AuthKind::KeyedSha1),
            ("meticulous-sha1", AuthKind::MeticulousKeyedSha1),
        ])
    });
    let send = read_key(table, kind, folder);
    let accept = table.tables("accept").into_iter().filter_map(|table| {
        let key = read_key(&table, kind, folder);
        table.finish();
        key
    });
    let accept = accept.collect();
    Some(Auth { kind: kind?, send: send?, accept })
}

/// Reads `key-id`, and `password` or `password-file`.
fn read_key(table: &Table<'_>, kind: Option<AuthKind>, folder: &Path) -> Option<Key> {
    let id = table
        .require("key-id", "set it to the number that the peer has for the key, 0-255")
        .and_then(|value| value.integer(0..=u8::MAX));
    let (value, octets) = match read_password(table, folder) {
        Some(read) => read,
        None => {
            if table.get("password").or_else(|| table.get("password-file")).is_none() {
                table.fault("has no password", "write password or password-file");
            }
            return None;
        }
    };
    let (kind, id) = (kind?, id?);
    let len = octets.len();
    let key = Key::new(kind, id, octets);
    if key.is_none() {
        value.fault(
            format_args!("a key of {len} octets cannot be used"),
            format_args!("use 1-{} octets", kind.key_len_max()),
        );
    }
    key
}
