//! margay's configuration: one reflector, or one of a tree of them; its policies and update groups.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::daemon::{CLIENTS, Fib, LISTEN, Setup};

/// Ranges of clients that [`group_of`] can tell apart.
pub(crate) const GROUPS_MAX: usize = 120;
/// Prefixes of [`Policy::Filter`].
const FILTER_LEN: u32 = 10_000;

/// What routes pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// No policy.
    None,
    /// The conditions that routes of other nodes meet in the export policy of a Calico node that reflects
    /// them (`src/calico/policies.rs`), and in its import policy, in their order. The mirroring of metric
    /// and LOCAL_PREF is not among them: the file has no word for it.
    Calico,
    /// A filter of 10,000 prefixes, on import and on export. None of the routes is in it: all are
    /// compared, and all are accepted.
    Filter,
}

/// Reflectors above and below one of a tree. All are clients of those above them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    /// Which the daemon dials.
    pub(crate) above: Option<SocketAddrV4>,
    /// Which dial the daemon.
    pub(crate) below: Vec<Ipv4Addr>,
}

/// Where client `number` connects from: each update group has a range of its own.
pub(crate) fn client_address(number: usize, groups: usize) -> Ipv4Addr {
    let (group, within) = (number % groups.max(1), number / groups.max(1));
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1 + group as u8, 0, 0)) + 1 + within as u32)
}

/// The configuration of a daemon at `listen`.
pub(crate) fn config(setup: &Setup, listen: SocketAddrV4, links: &Links, name: &str) -> String {
    let Setup { asn, fib, dir, groups, policy, local_pref, .. } = setup;
    let fib = *fib != Fib::Off;
    let mut text = format!(
        r#"[bgp]
asn = {asn}
router-id = "{address}"
listen = ["{listen}"]

[fib]
enabled = {fib}

[control]
socket = "{socket}"
"#,
        address = listen.ip(),
        socket = dir.join(format!("{name}.sock")).display(),
    );
    let policies = |group: usize| match (policy, groups, local_pref) {
        (Policy::None, 0..=1, None) => String::new(),
        (Policy::None, ..) => format!("export = \"group-{group}\"\n"),
        _ => format!("import = \"import\"\nexport = \"group-{group}\"\n"),
    };
    let range = |group: usize| match groups {
        0..=1 => CLIENTS.to_owned(),
        _ => format!("10.{}.0.0/16", 1 + group),
    };
    for group in 0..(*groups).max(1) {
        let _ = write!(
            text,
            "\n[[bgp.dynamic-peers]]\nprefix = \"{}\"\nremote-asn = {asn}\npeers-max = 20000\n\
             route-reflector-client = true\n{}",
            range(group),
            policies(group),
        );
    }
    for below in &links.below {
        let _ = write!(
            text,
            "\n[[bgp.peers]]\naddress = \"{below}\"\nremote-asn = {asn}\npassive = true\n\
             route-reflector-client = true\n",
        );
    }
    if let Some(above) = links.above {
        let _ = write!(
            text,
            "\n[[bgp.peers]]\naddress = \"{}\"\nport = {}\nremote-asn = {asn}\nsource-address = \"{}\"\n\
             connect-retry-time = 1\n",
            above.ip(),
            above.port(),
            listen.ip(),
        );
    }
    text + &policies_of(*policy, *groups, *local_pref)
}

/// The policies that [`config`] names. What makes an update group of its own of each is a rule for a
/// prefix that nobody announces.
fn policies_of(policy: Policy, groups: usize, local_pref: Option<u32>) -> String {
    if policy == Policy::None && groups <= 1 && local_pref.is_none() {
        return String::new();
    }
    let mut text = String::new();
    if policy != Policy::None {
        let rules = match policy {
            Policy::Filter => rule("filter", &filtered(), "reject"),
            Policy::Calico | Policy::None => rule(
                "elevated routes win over local ones",
                "match.local-pref = \"2147482624-\"\nset.preference = 200\n",
                "next",
            ),
        };
        let _ = write!(text, "\n[[policy]]\nname = \"import\"\ndefault = \"accept\"\n{rules}");
    }
    let common = match policy {
        Policy::None => String::new(),
        Policy::Filter => rule("filter", &filtered(), "reject"),
        Policy::Calico => calico_export(),
    };
    let preferred =
        local_pref.map(|value| rule("preference", &format!("set.local-pref = {value}\n"), "next"));
    let common = preferred.unwrap_or_default() + &common;
    for group in 0..groups.max(1) {
        let own = format!("match.prefixes = [\"203.0.113.{group}/32\"]\n");
        let _ = write!(
            text,
            "\n[[policy]]\nname = \"group-{group}\"\ndefault = \"accept\"\n{}{common}",
            rule("group", &own, "reject"),
        );
    }
    text
}

fn rule(name: &str, conditions: &str, then: &str) -> String {
    format!("\n[[policy.rules]]\nname = \"{name}\"\n{conditions}then = \"{then}\"\n")
}

fn filtered() -> String {
    // All over the address space, among the routes, and longer than any of them.
    let prefix = |n: u32| {
        format!("\"{}/31\"", Ipv4Addr::from(((1 << 24) + n * ((222 << 24) / FILTER_LEN)) & !1))
    };
    let list: Vec<String> = (0..FILTER_LEN).map(prefix).collect();
    format!("match.prefixes = [{}]\n", list.join(", "))
}

/// The last rule accepts 0.0.0.0/0 or longer where Calico has its pools, so that tables pass as well.
fn calico_export() -> String {
    let ours = "match.any = [{ source = [\"static\", \"kernel\", \"direct\"] }]\n";
    let prefixes = |list: &str| format!("match.prefixes = [{list}]\n");
    let rules = [
        (
            "metric from LOCAL_PREF",
            "match.source = \"bgp\"\nset.metric = 1024\n".to_owned(),
            "next",
        ),
        ("ordinary metric", format!("{ours}set.metric = 1024\n"), "next"),
        ("LOCAL_PREF from metric", format!("{ours}set.local-pref = 2147482623\n"), "next"),
        ("pool with disableBGPExport", prefixes("\"203.0.113.0/24 or-longer\""), "reject"),
        (
            "overlay interface",
            "match.interface = [\"*.cali\", \"*.calico\"]\n".to_owned(),
            "reject",
        ),
        (
            "another node's block, written by Felix",
            "match = { source = [\"kernel\"], prefixes = [\"100.64.0.0/10 or-longer\"] }\n"
                .to_owned(),
            "reject",
        ),
        ("BPF interface", "match.interface = [\"bpf*.cali\"]\n".to_owned(), "reject"),
        ("own block", prefixes("\"203.0.113.0/26\", \"203.0.113.64/26\""), "accept"),
        (
            "elevated route in own block",
            "match = { prefixes = [\"203.0.113.0/26 or-longer\"], metric = \"0-1023\" }\n"
                .to_owned(),
            "accept",
        ),
        ("part of own block", prefixes("\"203.0.113.0/26 or-longer\""), "reject"),
        ("service route", prefixes("\"203.0.113.128/25 or-longer\""), "accept"),
        ("load balancer range", prefixes("\"198.51.100.0/24 or-longer\""), "accept"),
        ("pool", prefixes("\"0.0.0.0/0 or-longer\""), "accept"),
    ];
    rules.iter().map(|(name, conditions, then)| rule(name, conditions, then)).collect()
}

/// Where the reflectors of a tree listen, the one above all others first.
pub(crate) fn listen(number: usize) -> SocketAddrV4 {
    let address = u32::from(*LISTEN.ip()) + number as u32;
    SocketAddrV4::new(Ipv4Addr::from(address), LISTEN.port())
}
