//! `vantages` and `vantage-cost-default`: the costs between vantages, for `[bgp]` and `[calico]`.

use std::sync::Arc;

use bgp_proto::table::VantageCosts;

use super::reader::{Table, Value, is_of_word};

/// Longest name, in octets: that of a Kubernetes label's value.
const NAME_MAX: usize = 63;
/// Maximum number of names.
const NAMES_MAX: usize = 1024;

/// Reads `vantage` of a peer: any name, whether a cost is stated for it or not.
pub(super) fn read_name(value: &Value<'_>) -> Option<Arc<str>> {
    let name = value.text()?;
    check_name(name, value).then(|| name.into())
}

fn check_name(name: &str, value: &Value<'_>) -> bool {
    let is_word = !name.is_empty() && name.chars().all(is_of_word);
    if !is_word || name.len() > NAME_MAX {
        value.fault_key(
            format_args!(
                "\"{name}\" is not a vantage: it must be one word of at most {NAME_MAX} octets"
            ),
            "use letters, digits, \"-\", \"_\" and \".\", such as \"zone-a\"",
        );
        return false;
    }
    true
}

/// Reads the costs that a table states.
pub(super) fn read_costs(table: &Table<'_>) -> VantageCosts {
    let mut costs = VantageCosts::default();
    if let Some(value) = table.get("vantage-cost-default") {
        costs.default = value.integer(0..=u32::MAX).unwrap_or(costs.default);
    }
    for entry in table.tables("vantages") {
        let name = entry.require("name", "name a zone or a rack");
        let name = name.and_then(|value| Some((read_name(&value)?, value)));
        let to = entry.require("costs", "write the cost to each other vantage: { zone-b = 10 }");
        let to = to.and_then(|value| value.table());
        entry.finish();
        let (Some((name, value)), Some(to)) = (name, to) else { continue };
        if costs.stated.contains_key(&name) {
            value.fault(format_args!("\"{name}\" has costs already"), "keep one entry for each");
        }
        let stated = costs.stated.entry(Arc::clone(&name)).or_default();
        for (other, cost) in to.into_entries() {
            if *other == *name {
                cost.fault_key("is the vantage itself, to which the cost is 0", "leave it out");
            } else if check_name(other, &cost)
                && let Some(cost) = cost.integer(0..=u32::MAX)
            {
                stated.insert(other.into(), cost);
            }
        }
    }
    if costs.names().count() > NAMES_MAX {
        table.fault_at("vantages", format_args!("name more than {NAMES_MAX}"), "name fewer");
    }
    costs
}
