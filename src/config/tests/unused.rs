//! What the configuration has and nothing uses.

use super::*;

#[test]
fn policies_that_nothing_names_are_listed() {
    let policy = |name: &str| {
        format!("[[policy]]\nname = \"{name}\"\n[[policy.rules]]\nthen = \"accept\"\n")
    };
    let peer = "[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 65001\nimport = \"used\"\n\
                export = \"none\"\n";
    let bgp = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n";
    let config = accepted(&format!("{bgp}{peer}{}{}", policy("used"), policy("forgotten")));
    let unused: Vec<&str> = config.unused_policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(unused, ["forgotten"]);
    assert!(config.to_string().contains("policy forgotten: nothing uses it\n"), "{config}");
    assert!(accepted(FULL).unused_policies.is_empty());
}
