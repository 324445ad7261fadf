//! Reads variables of calico-node's environment.

use std::collections::BTreeMap;

/// The value of a variable, without surrounding blanks; `None` if it is absent or empty.
pub fn variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// As [`variable`]; the same name with the prefix `CALICO_` takes precedence.
pub fn prefixed_variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    variable(env, &format!("CALICO_{name}")).or_else(|| variable(env, name))
}
