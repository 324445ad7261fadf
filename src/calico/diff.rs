//! The differences between two plans, as `margay calico plan --json` prints them.
//!
//! The JSON is compared, so that the older plan may be from another release of margay: keys that
//! only one of them has are differences too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The path to the value: keys and the names of list members, separated by spaces.
    pub place: String,
    /// The value in the older plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// The value in the newer plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// `+` only in the newer plan, `-` only in the older, `~` in both.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { place, old, new } = self;
        match (old, new) {
            (Some(old), Some(new)) => write!(f, "~ {place}: {} -> {}", brief(old), brief(new)),
            (None, Some(new)) => write!(f, "+ {place}{}", details(new)),
            (Some(old), None) => write!(f, "- {place}{}", details(old)),
            (None, None) => Ok(()),
        }
    }
}

/// The fields of an added or removed member, to follow its name.
fn details(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let said = fields.iter().filter(|(key, value)| {
                let is_name = NAMES.contains(&key.as_str()) || *key == "text";
                !is_name && !matches!(value, Value::Null | Value::Bool(false))
            });
            let said: Vec<String> = said
                .filter(|(_, value)| !brief(value).is_empty())
                .map(|(key, value)| format!("{key} {}", brief(value)))
                .collect();
            if said.is_empty() { String::new() } else { format!(": {}", said.join(", ")) }
        }
        // The value is its own name.
        _ => String::new(),
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(brief).collect::<Vec<_>>().join(" "),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

/// The keys that may name a member of a list; the first one present is used.
const NAMES: [&str; 4] = ["name", "prefix", "cidr", "object"];

/// The name of a list member. Members of both plans with the same name are compared with each
/// other.
fn name(member: &Value) -> String {
    let named = NAMES.iter().find_map(|key| member.get(key)).and_then(Value::as_str);
    match (named, member.get("text").and_then(Value::as_str)) {
        // An object may have several problems.
        (Some(object), Some(text)) => format!("{object}: {text}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => brief(member),
    }
}

/// All differences, in key order.
pub fn compare(old: &Value, new: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    walk("", old, new, &mut differences);
    differences
}

fn walk(place: &str, old: &Value, new: &Value, out: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let is_same_kind = old.is_object() && new.is_object() || old.is_array() && new.is_array();
    let (was, is) = (members(old), members(new));
    // Lists may have the same members in a different order.
    if !is_same_kind || was == is {
        return out.push(Difference {
            place: place.to_owned(),
            old: Some(old.clone()),
            new: Some(new.clone()),
        });
    }
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    for key in keys {
        let below = if place.is_empty() { key.clone() } else { format!("{place} {key}") };
        match (was.get(key), is.get(key)) {
            (Some(old), Some(new)) => walk(&below, old, new, out),
            (old, new) => {
                let (old, new) = (old.copied().cloned(), new.copied().cloned());
                out.push(Difference { place: below, old, new });
            }
        }
    }
}

/// The members of an object or a list, by key or name; none for a scalar.
fn members(value: &Value) -> BTreeMap<String, &Value> {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().map(|member| (name(member), member)).collect(),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(old: &Value, new: &Value) -> Vec<String> {
        compare(old, new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn list_members_are_matched_by_name() {
        let session = |name: &str, asn: u32| json!({"name": name, "asn": asn, "passive": false});
        let plan = |sessions: &[Value]| json!({"families": {"ipv4": {"sessions": sessions}}});
        let old = plan(&[session("a", 1), session("b", 2), session("c", 3)]);
        let new = plan(&[session("b", 2), session("c", 4), session("d", 5)]);
        assert_eq!(
            lines(&old, &new),
            [
                "- families ipv4 sessions a: asn 1",
                "~ families ipv4 sessions c asn: 3 -> 4",
                "+ families ipv4 sessions d: asn 5",
            ]
        );
        assert_eq!(lines(&old, &old), [""; 0]);
    }

    #[test]
    fn lists_of_text_differ_by_member_and_by_order() {
        let plan = |filters: &[&str]| json!({"filters": filters});
        assert_eq!(lines(&plan(&["a", "b"]), &plan(&["b", "c"])), ["- filters a", "+ filters c"]);
        assert_eq!(lines(&plan(&["a", "b"]), &plan(&["b", "a"])), ["~ filters: a b -> b a"]);
    }

    #[test]
    fn an_object_may_have_several_problems() {
        let plan = |texts: &[&str]| -> Value {
            let problem = |text: &&str| json!({"object": "Node/a", "text": text});
            json!({"problems": texts.iter().map(problem).collect::<Vec<_>>()})
        };
        let differences = lines(&plan(&["one", "two"]), &plan(&["two", "three"]));
        assert_eq!(differences, ["- problems Node/a: one", "+ problems Node/a: three"]);
    }
}
