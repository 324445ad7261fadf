//! The name of every event: the `event` field of a log line that reports a change of state.
//!
//! A line with this field is also kept for `margay events` ([`crate::events`]), and JSON logs carry
//! the name. Names are part of the interface: they may be added, never renamed. `docs/src/events.md`
//! lists them with the same descriptions; `tests/repository.rs` compares both.

/// Declares a constant for each name, and [`ALL`].
macro_rules! names {
    ($($name:ident = $text:literal, $meaning:literal;)*) => {
        $(
            #[doc = concat!("`", $text, "`: ", $meaning, ".")]
            pub const $name: &str = $text;
        )*

        /// Every name with its meaning.
        pub const ALL: &[(&str, &str)] = &[$(($text, $meaning)),*];
    };
}

names! {
    SESSION_UP = "session-up", "a BGP session is established";
    SESSION_DOWN = "session-down", "a BGP session ended";
    SESSION_FAILED = "session-failed", "an attempt to establish a session failed for a new reason";
    SESSION_FAULT = "session-fault", "an internal error ended a session";
    CONNECTION_REFUSED = "connection-refused", "a connection was refused; limited per reason";
    PEER_COMMAND = "peer-command", "an operator stopped, started, reset, refreshed or dialled a peer";
    STALE_KEPT = "stale-kept", "routes of a peer whose session ended are kept as stale";
    STALE_LONG_LIVED = "stale-long-lived", "stale routes of a peer became long-lived stale (RFC 9494)";
    STALE_REMOVED = "stale-removed", "stale routes of a peer were withdrawn";
    LIMIT_WARNING = "limit-warning", "a peer comes near a limit or passed one that does not end its session, or an import from another VRF reaches its `prefixes-max` or is below it again";
    LIMIT_PASSED = "limit-passed", "a limit was passed, and a session is closed";
    DEBUG = "debug", "logging of a peer's messages began, or was ended";
    MESSAGE_RECEIVED = "message-received", "a message of a peer that is debugged; not in margay events";
    MESSAGE_SENT = "message-sent", "a message to a peer that is debugged; not in margay events";
    BFD_UP = "bfd-up", "a BFD session is up";
    BFD_DOWN = "bfd-down", "a BFD session is down";
    DRAIN = "drain", "a drain began";
    UNDRAIN = "undrain", "drains ended";
    ANNOUNCED = "announced", "an operator announced a route, or changed one that was announced";
    ANNOUNCEMENT_ENDED = "announcement-ended", "a route that an operator announced was withdrawn, by command or because its time was over, or the configuration originates it";
    LINK_DOWN = "link-down", "an interface that peers or next hops use is down or was removed";
    LINK_UP = "link-up", "an interface that was reported down is up again";
    ADDRESS_REMOVED = "address-removed", "an address of ours that peers use was removed";
    ADDRESS_ADDED = "address-added", "an address that was reported removed is back";
    VRF_UP = "vrf-up", "a configured VRF has come, and its sessions may begin";
    VRF_DOWN = "vrf-down", "a VRF has gone: its sessions end, and its routes are withdrawn";
    ROUTE_FOREIGN = "route-foreign", "a route of another process is installed for a prefix of ours";
    ROUTE_REFUSED = "route-refused", "the kernel refuses routes or next hops";
    ROUTE_REPAIRED = "route-repaired", "another process removed or changed our kernel routes";
    EXPORT_DEFERRED = "export-deferred", "announcements are held back after the start (RFC 4724 §4.1)";
    EXPORT_STARTED = "export-started", "announcements are no longer held back";
    RELOADED = "reloaded", "a configuration was applied";
    RELOAD_REFUSED = "reload-refused", "a configuration was refused; nothing changed";
    RELOAD_UNCONFIRMED = "reload-unconfirmed", "a configuration was applied, to be undone unless it is confirmed";
    RELOAD_CONFIRMED = "reload-confirmed", "a reload was confirmed";
    RELOAD_UNDONE = "reload-undone", "a reload was not confirmed in time, and was undone";
    SECRET_CHANGED = "secret-changed", "a file with a secret has changed, and the new secret is in force";
    SECRET_LOST = "secret-lost", "a file with a secret cannot be used; the last secret stays in force";
    KEY_ASKED = "key-asked", "a neighbour is asked to sign with another key of its chain (TCP-AO)";
    KEY_CHANGED = "key-changed", "segments to a neighbour are signed with another key of its chain (TCP-AO)";
    KEY_REFUSED = "key-refused", "the kernel refuses a key of TCP MD5 or TCP-AO; keys that were set stay";
    KEYS_SET = "keys-set", "every key of TCP MD5 and TCP-AO is set again";
    DATASTORE_LOST = "datastore-lost", "a source of Calico's objects cannot be read";
    DATASTORE_BACK = "datastore-back", "a source of Calico's objects is read again";
    OBJECT_PROBLEM = "object-problem", "a Calico object cannot be used as it is";
    OBJECTS_RESOLVED = "objects-resolved", "problems of Calico objects are resolved";
    MRT_FAILED = "mrt-failed", "MRT files cannot be written, and records are dropped";
    MRT_RESUMED = "mrt-resumed", "MRT files are written again";
    STATION_UP = "station-up", "a monitoring station (BMP) is connected";
    STATION_DOWN = "station-down", "the connection with a monitoring station (BMP) ended";
    LOG_LEVEL = "log-level", "the log level was changed";
    STARTED = "started", "the daemon started";
    STOPPING = "stopping", "the daemon stops";
    EVENTS_DROPPED = "events-dropped", "events were overwritten before margay events could read them; never in the log";
}
