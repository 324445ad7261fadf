//! What changed objects would do on a Calico node.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What changed objects would do to the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecasted {
    /// One line for each changed object.
    pub objects: Vec<String>,
    /// How the plan would differ.
    pub plan: Vec<PlanDifference>,
    /// Number of further differences that are not listed.
    #[serde(default)]
    pub plan_more: u64,
    /// Objects changed while this was computed, or had no plan yet: the differences may be those of both
    /// changes.
    pub changed_meanwhile: bool,
    /// Sources that cannot be read, with the reason: their last known objects were used.
    pub sources_unavailable: Vec<String>,
    /// Why the routes of peers were not evaluated; `null`: they were.
    pub why_no_routes: Option<String>,
}

/// A difference between two plans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanDifference {
    /// For people: `+` is added, `-` removed, `~` changed.
    pub line: String,
    /// Keys and names that lead to the value in the plan, separated by spaces.
    pub place: String,
    /// The value before; `null`: none.
    pub old: Option<Value>,
    /// The value after.
    pub new: Option<Value>,
}
