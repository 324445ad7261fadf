//! How variables of calico-node's environment are read.

use std::collections::BTreeMap;

/// A variable, without blanks around it. Empty ones count as absent.
pub fn variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// As [`variable`]; the same name with `CALICO_` in front wins.
pub fn prefixed_variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    variable(env, &format!("CALICO_{name}")).or_else(|| variable(env, name))
}
