//! The name of every exported metric.
//!
//! Values are counted where they arise and exported in one place. Their names are listed here, so
//! that none is used twice and all follow Prometheus's conventions: a counter ends in `_total`, and
//! a unit is a base unit, in the plural.

/// Declares a constant for each name, and [`ALL`].
macro_rules! names {
    ($($name:ident = $text:literal;)*) => {
        $(
            #[doc = concat!("`", $text, "`.")]
            pub const $name: &str = $text;
        )*

        /// The names of all metrics.
        pub const ALL: &[&str] = &[$($text),*];
    };
}

names! {
    // The process and its parts.
    BUILD_INFO = "margay_build_info";
    READY = "margay_ready";
    EVENTS_TOTAL = "margay_events_total";
    RELOAD_REFUSED = "margay_reload_refused";
    CONFIG_LAST_RELOAD_SUCCESS = "margay_config_last_reload_success";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS =
        "margay_config_last_reload_success_timestamp_seconds";
    RELOAD_UNCONFIRMED = "margay_reload_unconfirmed";
    RELOAD_UNDONE = "margay_reload_undone";
    LOG_LINES_DROPPED_TOTAL = "margay_log_lines_dropped_total";
    MRT_RECORDS_TOTAL = "margay_mrt_records_total";
    MRT_FILES_TOTAL = "margay_mrt_files_total";
    BMP_STATION_UP = "margay_bmp_station_up";
    BMP_CONNECTIONS_TOTAL = "margay_bmp_connections_total";
    BMP_TOO_SLOW_TOTAL = "margay_bmp_too_slow_total";
    BMP_REFUSED_TOTAL = "margay_bmp_refused_total";
    BMP_SENT_BYTES_TOTAL = "margay_bmp_sent_bytes_total";
    CONTAINED_PANICS_TOTAL = "margay_contained_panics_total";
    PART_RESPONDING = "margay_part_responding";
    PEERS_WITH_SERIES = "margay_peers_with_series";
    DRAINED = "margay_drained";
    PEERS_DRAINED = "margay_peers_drained";
    ANNOUNCED_ROUTES = "margay_announced_routes";

    // Sessions of all peers, and peers with series of their own.
    SESSION_ENDS_TOTAL = "margay_session_ends_total";
    CONNECTIONS_REFUSED_TOTAL = "margay_connections_refused_total";
    PREFIXES_RECEIVED = "margay_prefixes_received";
    PREFIXES_ACCEPTED = "margay_prefixes_accepted";
    PREFIXES_ADVERTISED = "margay_prefixes_advertised";
    PREFIXES_STALE = "margay_prefixes_stale";
    PEERS_NEAR_PREFIX_LIMIT = "margay_peers_near_prefix_limit";
    MESSAGES_TOTAL = "margay_messages_total";
    PEERS = "margay_peers";
    RECEIVED_BYTES_TOTAL = "margay_received_bytes_total";
    SENT_BYTES_TOTAL = "margay_sent_bytes_total";
    TREATED_AS_WITHDRAW_TOTAL = "margay_treated_as_withdraw_total";
    ATTRIBUTES_DISCARDED_TOTAL = "margay_attributes_discarded_total";
    SESSIONS_ESTABLISHED_TOTAL = "margay_sessions_established_total";
    CONNECT_FAILURES_TOTAL = "margay_connect_failures_total";
    SIGNATURE_DROPS_TOTAL = "margay_signature_drops_total";
    STRAY_CONNECTIONS_TOTAL = "margay_stray_connections_total";
    PEER_UP = "margay_peer_up";
    PEER_STATE = "margay_peer_state";
    PEER_STATE_SECONDS = "margay_peer_state_seconds";
    PEER_PREFIXES_MAX = "margay_peer_prefixes_max";
    PEER_LAST_ERROR_INFO = "margay_peer_last_error_info";
    PEER_PREFIXES_RECEIVED = "margay_peer_prefixes_received";
    PEER_PREFIXES_ACCEPTED = "margay_peer_prefixes_accepted";
    PEER_PREFIXES_ADVERTISED = "margay_peer_prefixes_advertised";
    PEER_PREFIXES_STALE = "margay_peer_prefixes_stale";
    PEER_ROUTE_CHANGES_TOTAL = "margay_peer_route_changes_total";
    PEER_MESSAGES_TOTAL = "margay_peer_messages_total";
    PEER_RECEIVED_BYTES_TOTAL = "margay_peer_received_bytes_total";
    PEER_SENT_BYTES_TOTAL = "margay_peer_sent_bytes_total";
    PEER_TREATED_AS_WITHDRAW_TOTAL = "margay_peer_treated_as_withdraw_total";
    PEER_ATTRIBUTES_DISCARDED_TOTAL = "margay_peer_attributes_discarded_total";
    PEER_ESTABLISHED_TOTAL = "margay_peer_established_total";
    PEER_CONNECT_FAILURES_TOTAL = "margay_peer_connect_failures_total";
    PEER_STRAY_CONNECTIONS_TOTAL = "margay_peer_stray_connections_total";

    // BFD.
    BFD_SESSIONS = "margay_bfd_sessions";
    BFD_FAILURES_TOTAL = "margay_bfd_failures_total";
    BFD_PACKETS_DISCARDED_TOTAL = "margay_bfd_packets_discarded_total";
    BFD_PACKETS_OVERFLOW_TOTAL = "margay_bfd_packets_overflow_total";

    // Router discovery.
    ROUTER_DISCOVERY_PACKETS_RECEIVED_TOTAL = "margay_router_discovery_packets_received_total";
    ROUTER_DISCOVERY_PACKETS_SENT_TOTAL = "margay_router_discovery_packets_sent_total";
    ROUTER_DISCOVERY_PACKETS_DISCARDED_TOTAL = "margay_router_discovery_packets_discarded_total";

    // The table: sizes, memory, import, update groups.
    DESTINATIONS = "margay_destinations";
    PATHS = "margay_paths";
    PATHS_UNRESOLVED = "margay_paths_unresolved";
    ATTRIBUTE_SETS = "margay_attribute_sets";
    NEXT_HOPS = "margay_next_hops";
    NEXT_HOP_CHANGES_TOTAL = "margay_next_hop_changes_total";
    GROUPS = "margay_groups";
    MEMORY_BYTES = "margay_memory_bytes";
    MEMORY_LIMIT_BYTES = "margay_memory_limit_bytes";
    TABLE_WAITING_BYTES = "margay_table_waiting_bytes";
    IMPORT_ROUTES_TOTAL = "margay_import_routes_total";
    IMPORT_WITHDRAWALS_TOTAL = "margay_import_withdrawals_total";
    IMPORT_REJECTED_ROUTES_TOTAL = "margay_import_rejected_routes_total";
    GROUP_MEMBERS = "margay_group_members";
    GROUP_PREFIXES = "margay_group_prefixes";
    GROUP_LOG_BYTES = "margay_group_log_bytes";
    GROUP_EVICTIONS_TOTAL = "margay_group_evictions_total";

    // The kernel's routes, and Calico's objects.
    FIB_ROUTES = "margay_fib_routes";
    FIB_NEXT_HOP_OBJECTS = "margay_fib_next_hop_objects";
    FIB_WRITES_TOTAL = "margay_fib_writes_total";
    FIB_BATCHES_TOTAL = "margay_fib_batches_total";
    FIB_ERRORS_TOTAL = "margay_fib_errors_total";
    FIB_RESYNCS_TOTAL = "margay_fib_resyncs_total";
    CALICO_IN_FORCE = "margay_calico_in_force";
    CALICO_PROBLEMS = "margay_calico_problems";
    CALICO_NOTES = "margay_calico_notes";
    CALICO_KIND_PROBLEMS = "margay_calico_kind_problems";
    CALICO_PLANS_TOTAL = "margay_calico_plans_total";
    CALICO_PLANNING_SECONDS_TOTAL = "margay_calico_planning_seconds_total";
    CALICO_SOURCE_CURRENT = "margay_calico_source_current";
    CALICO_SOURCE_AWAY_SECONDS = "margay_calico_source_away_seconds";
    CALICO_SOURCE_UNAVAILABLE = "margay_calico_source_unavailable";
    CALICO_SOURCE_SILENCE_SECONDS = "margay_calico_source_silence_seconds";
    CALICO_SOURCE_REVISION = "margay_calico_source_revision";
    CALICO_SOURCE_REVISION_LAG = "margay_calico_source_revision_lag";

    // Histograms of the table thread.
    TURN_DURATION_SECONDS = "margay_turn_duration_seconds";
    APPLY_DURATION_SECONDS = "margay_apply_duration_seconds";
    DECISION_DURATION_SECONDS = "margay_decision_duration_seconds";
    EXPORT_DURATION_SECONDS = "margay_export_duration_seconds";

    // A histogram of the session tasks.
    FLUSH_DURATION_SECONDS = "margay_flush_duration_seconds";

    // A histogram of the kernel thread.
    FIB_WRITE_DURATION_SECONDS = "margay_fib_write_duration_seconds";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn each_name_is_unique_and_well_formed() {
        assert_eq!(ALL.iter().collect::<BTreeSet<_>>().len(), ALL.len());
        for name in ALL {
            let words = name.strip_prefix("margay_").unwrap_or_default();
            let is_word = |word: &str| {
                !word.is_empty()
                    && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            };
            assert!(!words.is_empty() && words.split('_').all(is_word), "{name}");
        }
    }

    #[test]
    fn units_are_base_units_and_come_last() {
        const OTHERS: [&str; 12] = [
            "second",
            "ms",
            "milliseconds",
            "us",
            "microseconds",
            "minutes",
            "hours",
            "byte",
            "octets",
            "kib",
            "mib",
            "percent",
        ];
        for name in ALL {
            let words: Vec<&str> = name.trim_end_matches("_total").split('_').collect();
            assert!(!words.iter().any(|word| OTHERS.contains(word)), "{name}");
            let unit = words.iter().position(|word| ["seconds", "bytes"].contains(word));
            assert!(unit.is_none_or(|at| at + 1 == words.len()), "{name}");
        }
    }
}
