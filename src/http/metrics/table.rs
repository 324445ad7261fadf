//! Metrics of the table: sizes, memory, import, update groups.

use bgp_proto::table::{ImportCounts, Memory, Refused, RefusedBy, Totals, Unusable};
use bgp_proto::types::{Family, FamilyMap};

use super::families::Families;
use crate::metric_names as names;

/// Most groups with their own series; the others are only counted in `margay_groups`. The creator
/// of the snapshot selects the largest.
pub const GROUPS_MAX: usize = 100;

/// Numbers of the table.
#[derive(Clone, Debug, Default)]
pub struct TableMetrics {
    /// Numbers of destinations, paths, attribute sets, next hops and groups.
    pub totals: Totals,
    /// Octets used, by part.
    pub memory: Memory,
    /// Limit of the octets used; `None`: no limit.
    pub memory_max: Option<u64>,
    /// Octets of received routes that the table has not processed yet.
    pub waiting_octets: u64,
    /// Results of import, by family.
    pub imports: FamilyMap<ImportCounts>,
    /// Rejected routes, by check or policy rule.
    pub refused: Vec<Refused>,
    /// Update groups, at most [`GROUPS_MAX`].
    pub groups: Vec<GroupMetrics>,
}

/// One update group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMetrics {
    /// Its id, unique among all groups.
    pub id: u32,
    /// Its address family.
    pub family: Option<Family>,
    /// The number of its members.
    pub members: u64,
    /// The number of prefixes that it advertises.
    pub prefixes: u64,
    /// Octets in its update log.
    pub log_octets: u64,
    /// How often a member was evicted from its log for reading too slowly.
    pub evictions: u64,
}

impl TableMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        self.collect_sizes(families);
        self.collect_memory(families);
        for family in Family::ALL {
            self.collect_imports(family, families);
        }
        for refused in &self.refused {
            collect_refused(refused, families);
        }
        for group in &self.groups {
            group.collect(families);
        }
    }

    fn collect_sizes(&self, families: &mut Families) {
        let totals = &self.totals;
        for family in Family::ALL {
            let label = family.to_string();
            let labels = [("family", label.as_str())];
            families.gauge(
                names::DESTINATIONS,
                "Destinations in the table.",
                &labels,
                totals.destinations[family].into(),
            );
            families.gauge(
                names::PATHS,
                "Paths in the table.",
                &labels,
                totals.paths[family].into(),
            );
        }
        let attribute_sets = totals.attribute_sets.into();
        families.gauge(names::ATTRIBUTE_SETS, "Distinct attribute sets.", &[], attribute_sets);
        families.gauge(names::NEXT_HOPS, "Distinct next hops.", &[], totals.next_hops.into());
        families.gauge(
            names::PATHS_UNRESOLVED,
            "Paths that are not used because their next hop is not resolved, or is an address of ours.",
            &[],
            totals.paths_unresolved.into(),
        );
        families.counter(
            names::NEXT_HOP_CHANGES_TOTAL,
            "How often the resolution of a next hop changed.",
            &[],
            totals.next_hop_changes,
        );
        families.gauge(names::GROUPS, "Update groups.", &[], totals.groups.into());
    }

    fn collect_memory(&self, families: &mut Families) {
        let Memory {
            destinations,
            paths,
            attributes,
            next_hops,
            advertised,
            logs,
            inputs,
            monitors,
        } = self.memory;
        for (part, octets) in [
            ("destinations", destinations),
            ("paths", paths),
            ("attributes", attributes),
            ("next-hops", next_hops),
            ("advertised", advertised),
            ("logs", logs),
            ("inputs", inputs),
            ("monitors", monitors),
        ] {
            families.gauge(
                names::MEMORY_BYTES,
                "Octets that routes hold, by part: destinations, paths, attribute sets, next hops, \
                 what groups remember of what they advertised, encoded messages that members have \
                 not read, route events that wait for their turn, what monitoring stations have not \
                 been sent. \
                 process_resident_memory_bytes is what the system gave for all of it.",
                &[("part", part)],
                octets,
            );
        }
        if let Some(max) = self.memory_max {
            families.gauge(
                names::MEMORY_LIMIT_BYTES,
                "Octets that routes may hold; beyond it neighbours are closed (bgp.memory-max).",
                &[],
                max,
            );
        }
        families.gauge(
            names::TABLE_WAITING_BYTES,
            "Octets of received routes that wait for the table. At 32 MiB no peer is read from.",
            &[],
            self.waiting_octets,
        );
    }

    fn collect_imports(&self, family: Family, families: &mut Families) {
        let label = family.to_string();
        let counts = &self.imports[family];
        for (result, count) in [
            ("accepted", counts.accepted),
            ("unchanged", counts.unchanged),
            ("rejected", counts.filtered),
            ("looped", counts.looped),
            ("over-limit", counts.over_limit),
        ] {
            families.counter(
                names::IMPORT_ROUTES_TOTAL,
                "Routes that peers announced, by what became of them: accepted; unchanged, the same \
                 as before; rejected by policy; looped, or leaked; beyond the prefix limit.",
                &[("family", &label), ("result", result)],
                count,
            );
        }
        families.counter(
            names::IMPORT_WITHDRAWALS_TOTAL,
            "Routes that peers withdrew, unknown ones included.",
            &[("family", &label)],
            counts.withdrawn + counts.withdrawn_unknown,
        );
    }
}

fn collect_refused(refused: &Refused, families: &mut Families) {
    let (reason, policy, rule) = match &refused.by {
        RefusedBy::Check(Unusable::AsLoop) => ("as-loop", "", String::new()),
        RefusedBy::Check(Unusable::OriginatorLoop) => ("originator-loop", "", String::new()),
        RefusedBy::Check(Unusable::ClusterLoop) => ("cluster-loop", "", String::new()),
        RefusedBy::Check(Unusable::AsPathTooLong) => ("as-path-max", "", String::new()),
        RefusedBy::Check(Unusable::TooManyCommunities) => ("communities-max", "", String::new()),
        RefusedBy::Check(Unusable::AttributesTooLong) => ("attributes-max", "", String::new()),
        RefusedBy::Check(_) => ("route-leak", "", String::new()),
        RefusedBy::PathsLimit => ("paths-max", "", String::new()),
        RefusedBy::PrefixLimit => ("prefix-limit", "", String::new()),
        RefusedBy::Rule { policy, number: None, .. } => ("policy", &**policy, "default".to_owned()),
        RefusedBy::Rule { policy, number: Some(number), name } => {
            ("policy", &**policy, format!("{number} {name}").trim_end().to_owned())
        }
        RefusedBy::OtherRules => ("policy", "", "other".to_owned()),
    };
    for family in Family::ALL {
        families.counter(
            names::IMPORT_REJECTED_ROUTES_TOTAL,
            "Routes that import refused, by what refused them: a check, or a policy's rule with its \
             number and name, as margay explain shows it.",
            &[
                ("family", &family.to_string()),
                ("reason", reason),
                ("policy", policy),
                ("rule", &rule),
            ],
            refused.routes[family],
        );
    }
}

impl GroupMetrics {
    fn collect(&self, families: &mut Families) {
        let id = self.id.to_string();
        let family = self.family.map(|family| family.to_string()).unwrap_or_default();
        let labels = [("group", id.as_str()), ("family", family.as_str())];
        for (name, help, value) in [
            (names::GROUP_MEMBERS, "Peers in the update group.", self.members),
            (names::GROUP_PREFIXES, "Prefixes that the group advertises.", self.prefixes),
            (names::GROUP_LOG_BYTES, "Octets in the group's log.", self.log_octets),
        ] {
            families.gauge(name, help, &labels, value);
        }
        families.counter(
            names::GROUP_EVICTIONS_TOTAL,
            "Members that fell off the group's log because they read too slowly; they get the \
             state as it is then.",
            &labels,
            self.evictions,
        );
    }
}
