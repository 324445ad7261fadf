//! `bfd` of a peer, a range, or all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::bfd::{Auth, AuthKind, Config, INTERVAL_MAX, INTERVAL_MIN, Key, Role};
use bgp_proto::session::BfdMode;
use bgp_proto::types::PeerType;

use super::Fallover;
use super::password::read_password;
use super::reader::{Table, Value};

/// Where the peer of a BFD session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BfdHops {
    /// On a link of ours: UDP port 3784, TTL 255 (RFC 5881).
    Single,
    /// Behind routers: UDP port 4784 (RFC 5883).
    Multi {
        /// Packets with a smaller TTL are dropped unless they name our discriminator. Default 0; with
        /// `ttl-security = N` 256 - N.
        ttl_min: u8,
    },
}

/// BFD beside a BGP session. A change of anything but the mode restarts neither of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdSettings {
    /// Timers, role, authentication.
    pub session: Config,
    /// Where the peer is. Default: single hop for external peers without `multihop-ttl`.
    pub hops: BfdHops,
    /// Whether BGP waits for it: [`PeerConfig::bfd_mode`](bgp_proto::session::PeerConfig::bfd_mode).
    pub mode: BfdMode,
}

/// `[bgp] bfd`: what a peer's `bfd = true` means.
pub(super) fn read_defaults(table: &Table<'_>, folder: &Path) -> BfdTemplate {
    let Some(table) = table.get("bfd").and_then(|value| value.table()) else {
        return BfdTemplate::default();
    };
    let template = read_template(&table, &BfdTemplate::default(), folder);
    table.finish();
    template
}

/// BFD as it was written, before it is known where a peer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BfdTemplate {
    /// Timers, role, authentication.
    pub session: Config,
    /// What was written of `multihop`.
    pub multihop: Option<bool>,
    /// What was written of `strict`.
    pub mode: BfdMode,
}

/// What tells where a peer is.
#[derive(Clone, Copy, Debug)]
pub struct BfdPlace {
    /// Internal peers may be anywhere.
    pub kind: Option<PeerType>,
    /// The TTL that BGP sends with.
    pub multihop_ttl: Option<u8>,
    /// GTSM.
    pub ttl_security_hops: Option<u8>,
}

impl BfdPlace {
    /// The default of `fast-fallover`.
    pub fn fallover(self) -> Fallover {
        if self.is_beyond_a_link() { Fallover::Timers } else { Fallover::Fast }
    }

    fn is_beyond_a_link(self) -> bool {
        self.kind == Some(PeerType::Internal)
            || self.multihop_ttl.is_some_and(|ttl| ttl > 1)
            || self.ttl_security_hops.is_some_and(|hops| hops > 1)
    }
}

impl BfdTemplate {
    /// The settings of a peer there.
    pub fn settings(&self, place: BfdPlace) -> Arc<BfdSettings> {
        let hops = if self.multihop.unwrap_or(place.is_beyond_a_link()) {
            let ttl_min = place.ttl_security_hops.map_or(0, |hops| u8::MAX - (hops - 1));
            BfdHops::Multi { ttl_min }
        } else {
            BfdHops::Single
        };
        Arc::new(BfdSettings { session: self.session.clone(), hops, mode: self.mode })
    }
}

/// `bfd` of a peer or a range: `true`, `false`, or a table. `place`: where the peer is, if that is
/// the same for all whom the key is for.
pub(super) fn read(
    table: &Table<'_>,
    defaults: &BfdTemplate,
    place: Option<BfdPlace>,
    folder: &Path,
) -> Option<BfdTemplate> {
    let value = table.get("bfd")?;
    if value.is_boolean() {
        return value.boolean()?.then(|| defaults.clone());
    }
    let table = value.table()?;
    let multihop = table.get("multihop").and_then(|value| read_multihop(&value, place));
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

fn read_multihop(value: &Value<'_>, place: Option<BfdPlace>) -> Option<bool> {
    let multihop = value.boolean()?;
    if !multihop && place.and_then(|place| place.multihop_ttl).is_some_and(|ttl| ttl > 1) {
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

/// `key-id`, and `password` or `password-file`.
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
