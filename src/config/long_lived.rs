//! `long-lived-graceful-restart` of a peer, a range, or all of them (RFC 9494).

use std::time::Duration;

use bgp_proto::types::{Family, FamilyMap};
use bgp_proto::wire::LongLivedFamily;

use super::reader::{Table, Value};

/// The parameters of long-lived graceful restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongLived {
    /// What our OPEN asks the peer to keep our routes for.
    pub(super) times: FamilyMap<Duration>,
    /// How long we keep the peer's routes at most, whatever its OPEN asks for.
    pub(super) max: Option<Duration>,
}

/// Reads the key: a table, or `false` where it is inherited. Without the key: `inherited`.
pub(super) fn read(table: &Table<'_>, inherited: Option<LongLived>) -> Option<LongLived> {
    let Some(value) = table.get("long-lived-graceful-restart") else { return inherited };
    if value.is_boolean() {
        if value.boolean() == Some(true) {
            value.fault("true does not say for how long", "write { time = SECONDS }");
        }
        return None;
    }
    let table = value.table()?;
    let time = table.require("time", "set it to 0-16777215 seconds").and_then(|v| seconds(&v));
    let of_family = |key| table.get(key).and_then(|value| seconds(&value)).or(time);
    let (ipv4, ipv6) = (of_family("ipv4"), of_family("ipv6"));
    let max = table.get("max").and_then(|value| seconds(&value));
    table.finish();
    let mut times = FamilyMap::default();
    (times[Family::Ipv4], times[Family::Ipv6]) = (ipv4?, ipv6?);
    Some(LongLived { times, max })
}

fn seconds(value: &Value<'_>) -> Option<Duration> {
    let seconds = value.integer(0..=LongLivedFamily::STALE_TIME_SECS_MAX)?;
    Some(Duration::from_secs(seconds.into()))
}
