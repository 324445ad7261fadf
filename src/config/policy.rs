//! `[[policy]]`: policies by name, and the textual forms of conditions and changes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bgp_proto::policy::{Change, Decision, Match, Policy, PrefixMatch, PrefixSet, Rule, Source};
use bgp_proto::types::{
    Asn, BandwidthScope, Community, ExtCommunity, LargeCommunity, PeerType, Prefix,
};

use super::reader::{Table, Value, closest};

/// Every policy by name, including the two built-in ones.
pub(super) struct Policies {
    by_name: BTreeMap<String, Arc<Policy>>,
    used: RefCell<BTreeSet<String>>,
}

impl Policies {
    /// The policy that `value` names.
    pub(super) fn named(&self, value: &Value<'_>) -> Option<Arc<Policy>> {
        let name = value.text()?;
        let found = self.by_name.get(name);
        if found.is_some() {
            self.used.borrow_mut().insert(name.to_owned());
        } else {
            let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            let remedy = match closest(name, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("define it as [[policy]], or use {}", names.join(", ")),
            };
            value.fault(format_args!("policy \"{name}\" does not exist"), remedy);
        }
        found.cloned()
    }

    /// The built-in policy that accepts everything.
    pub(super) fn all(&self) -> Arc<Policy> {
        self.built_in("all", Policy::accept_all)
    }

    fn built_in(&self, name: &str, make: impl Fn() -> Policy) -> Arc<Policy> {
        self.by_name.get(name).cloned().unwrap_or_else(|| Arc::new(make()))
    }

    /// The policies that [`Policies::named`] was never asked for, without the built-in ones.
    pub(super) fn unused(&self) -> Vec<Arc<Policy>> {
        let used = self.used.borrow();
        let is_unused = |name: &str| !BUILT_IN.contains(&name) && !used.contains(name);
        let unused = self.by_name.iter().filter(|(name, _)| is_unused(name));
        unused.map(|(_, policy)| Arc::clone(policy)).collect()
    }
}

/// The names of the policies that need not be defined.
const BUILT_IN: [&str; 2] = ["all", "none"];

/// Reads every `[[policy]]`.
pub(super) fn read(root: &Table<'_>) -> Policies {
    let mut policies = BTreeMap::from([
        ("all".to_owned(), Arc::new(Policy::accept_all())),
        ("none".to_owned(), Arc::new(Policy::reject_all())),
    ]);
    let asn = own_asn(root);
    for table in root.tables("policy") {
        let name = table.require("name", "name the policy").and_then(|value| {
            let name = value.text()?;
            let fault = match name {
                "" => Some(("is empty", "name the policy")),
                name if BUILT_IN.contains(&name) => {
                    Some(("is the name of a built-in policy", "use another name"))
                }
                _ if policies.contains_key(name) => {
                    Some(("is the name of another policy too", "use another name"))
                }
                _ => None,
            };
            if let Some((what, remedy)) = fault {
                value.fault(what, remedy);
                return None;
            }
            Some(name.to_owned())
        });
        let default = table
            .get("default")
            .and_then(|v| v.choice(&[("accept", Decision::Accept), ("reject", Decision::Reject)]))
            .unwrap_or(Decision::Reject);
        let rules =
            table.tables("rules").into_iter().filter_map(|rule| read_rule(rule, asn)).collect();
        table.finish();
        if let Some(name) = name {
            let policy = Policy { name: name.as_str().into(), rules, default };
            policies.insert(name, Arc::new(policy));
        }
    }
    Policies { by_name: policies, used: RefCell::default() }
}

/// Our AS, which a Link Bandwidth community names. A fault in it is noted once, with those of `[bgp]`.
fn own_asn(root: &Table<'_>) -> Asn {
    let asn = root.get("bgp").and_then(|v| v.table()).and_then(|bgp| bgp.get("asn"));
    asn.and_then(|v| read_asn(&v)).unwrap_or_default()
}

fn read_rule(table: Table<'_>, asn: Asn) -> Option<Rule> {
    let name = table.get("name").and_then(|v| v.text()).unwrap_or_default().to_owned();
    let mut matches =
        table.get("match").and_then(|v| v.table()).map(read_conditions).unwrap_or_default();
    let excluded = table.get("not").and_then(|v| v.table()).map(read_conditions);
    matches.extend(excluded.into_iter().flatten().map(|m| Match::Not(Box::new(m))));
    let changes = read_changes(&table, asn);
    let decision =
        table.require("then", "write then = \"accept\", \"reject\" or \"next\"").and_then(|v| {
            v.choice(&[
                ("accept", Decision::Accept),
                ("reject", Decision::Reject),
                ("next", Decision::Next),
            ])
        });
    if decision == Some(Decision::Reject) && !changes.is_empty() {
        table.fault(
            "changes a route that it rejects",
            "leave the changes out, or write then = \"next\"",
        );
    }
    table.finish();
    Some(Rule { name, matches, changes, decision: decision? })
}

/// Reads the conditions of `match` or `not`. All of `match` must hold, and none of `not`.
fn read_conditions(table: Table<'_>) -> Vec<Match> {
    if table.is_empty() {
        table.fault("has no conditions", "leave it out, or name a condition");
    }
    let mut conditions = Vec::new();
    let mut add = |key: &'static str, read: &dyn Fn(&Value<'_>) -> Option<Match>| {
        if let Some(value) = table.get(key) {
            if value.list().is_empty() {
                value.fault("is an empty list, which nothing matches", "leave the key out");
            }
            conditions.extend(read(&value));
        }
    };
    add("prefixes", &|v| Some(Match::Prefix(PrefixSet::from(v.read_list(read_prefix_range)))));
    add("communities", &|v| read_community_condition(v));
    add("as-path-prefix", &|v| Some(Match::AsPathPrefix(v.read_list(read_asn))));
    add("as-path-contains", &|v| Some(Match::AsPathContains(v.read_list(read_asn))));
    add("as-path-length", &|v| read_range(v).map(Match::AsPathLength));
    add("next-hop", &|v| {
        Some(Match::NextHop(PrefixSet::covering(v.read_list(Value::parse::<Prefix>))))
    });
    add("source", &|v| Some(Match::Source(read_sources(v))));
    add("interface", &|v| Some(Match::Interface(v.read_list(read_glob))));
    add("peer-type", &|v| {
        v.choice(&[("internal", PeerType::Internal), ("external", PeerType::External)])
            .map(Match::PeerType)
    });
    add("metric", &|v| read_range(v).map(Match::Metric));
    add("local-pref", &|v| read_range(v).map(Match::LocalPref));
    add("any", &|v| Some(Match::Any(v.read_list(|v| v.table().map(read_conditions).map(all_of)))));
    table.finish();
    conditions
}

/// One condition that holds if all of `list` do, expressed as "not any of them does not hold".
fn all_of(mut list: Vec<Match>) -> Match {
    match (list.pop(), list.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            list.extend(last);
            let not = |m| Match::Not(Box::new(m));
            not(Match::Any(list.into_iter().map(not).collect()))
        }
    }
}

/// Reads a prefix with a range of lengths. `10.0.0.0/8` matches that prefix only; it may be
/// followed by ` or-longer`, ` ge 24`, ` le 26` or ` ge 24 le 26`.
fn read_prefix_range(value: &Value<'_>) -> Option<PrefixMatch> {
    let text = value.text()?;
    let mut words = text.split_whitespace();
    let prefix: Prefix = match words.next().unwrap_or_default().parse() {
        Ok(prefix) => prefix,
        Err(error) => {
            value.fault(error, "write \"10.0.0.0/8\" or \"10.0.0.0/8 ge 24 le 26\"");
            return None;
        }
    };
    let max_len = prefix.family().max_len();
    let words: Vec<&str> = words.collect();
    let number = |text: &str| text.parse::<u8>().ok();
    let lengths = match words.as_slice() {
        [] => Some((prefix.len(), prefix.len())),
        ["or-longer"] => Some((prefix.len(), max_len)),
        ["ge", low] => number(low).map(|low| (low, max_len)),
        ["le", high] => number(high).map(|high| (prefix.len(), high)),
        ["ge", low, "le", high] => number(low).zip(number(high)),
        _ => None,
    };
    let Some((low, high)) = lengths else {
        value.fault(
            format_args!("\"{text}\" is not a range of prefixes"),
            format_args!("write \"{prefix} ge 24 le 26\" or \"{prefix} or-longer\""),
        );
        return None;
    };
    if low < prefix.len() || low > high || high > max_len {
        value.fault(
            format_args!("lengths {low} to {high} do not fit {prefix}"),
            format_args!("use lengths from {} to {max_len}, the lower one first", prefix.len()),
        );
        return None;
    }
    Some(PrefixMatch { prefix, lengths: low..=high })
}

/// A community of any type, recognised by its form.
enum AnyCommunity {
    Standard(Community),
    Large(LargeCommunity),
    Ext(ExtCommunity),
}

fn read_community(value: &Value<'_>) -> Option<AnyCommunity> {
    let text = value.text()?;
    let standard = || text.parse().map(AnyCommunity::Standard).ok();
    let large = || text.parse().map(AnyCommunity::Large).ok();
    let ext = || text.parse().map(AnyCommunity::Ext).ok();
    let community = standard().or_else(large).or_else(ext);
    if community.is_none() {
        value.fault(
            format_args!("\"{text}\" is not a community"),
            "write \"64512:100\", \"no-export\", \"64512:1:2\", \"rt:64512:100\" or \"0x\" with 16 digits",
        );
    }
    community
}

/// Reads one condition for communities of any type: the route has one of them.
fn read_community_condition(value: &Value<'_>) -> Option<Match> {
    let (mut standard, mut large, mut ext) = (Vec::new(), Vec::new(), Vec::new());
    for community in value.read_list(read_community) {
        match community {
            AnyCommunity::Standard(c) => standard.push(c),
            AnyCommunity::Large(c) => large.push(c),
            AnyCommunity::Ext(c) => ext.push(c),
        }
    }
    let mut kinds = Vec::new();
    if !standard.is_empty() {
        kinds.push(Match::Community(standard));
    }
    if !large.is_empty() {
        kinds.push(Match::LargeCommunity(large));
    }
    if !ext.is_empty() {
        kinds.push(Match::ExtCommunity(ext));
    }
    match kinds.len() {
        1 => kinds.pop(),
        _ => Some(Match::Any(kinds)),
    }
}

fn read_asn(value: &Value<'_>) -> Option<Asn> {
    super::bgp::read_asn(value)
}

/// What `margay announce` announces counts as our own, wherever a policy names what is.
fn read_sources(value: &Value<'_>) -> Vec<Source> {
    let mut sources: Vec<Source> = value.read_list(read_source);
    if sources.contains(&Source::Static) && !sources.contains(&Source::Announced) {
        sources.push(Source::Announced);
    }
    sources
}

fn read_source(value: &Value<'_>) -> Option<Source> {
    value.choice(&[
        ("bgp", Source::Bgp),
        ("static", Source::Static),
        ("kernel", Source::Kernel),
        ("direct", Source::Direct),
        ("vrf", Source::Vrf),
        ("announced", Source::Announced),
    ])
}

fn read_glob(value: &Value<'_>) -> Option<String> {
    let glob = value.text()?;
    if glob.is_empty() {
        value.fault("is empty", "write a name such as \"eth0\" or a pattern such as \"cali*\"");
        return None;
    }
    Some(glob.to_owned())
}

/// Reads a range: `100`, `"100-200"`, `"100-"` or `"-200"`.
fn read_range(value: &Value<'_>) -> Option<RangeInclusive<u32>> {
    if value.is_integer() {
        return value.integer(0..=u32::MAX).map(|n| n..=n);
    }
    let text = value.text()?;
    let bound = |text: &str, absent: u32| match text.trim() {
        "" => Some(absent),
        number => number.parse().ok(),
    };
    let range = text
        .split_once('-')
        .filter(|_| text.trim() != "-")
        .and_then(|(low, high)| Some((bound(low, 0)?, bound(high, u32::MAX)?)))
        .filter(|(low, high)| low <= high);
    if range.is_none() {
        value.fault(
            format_args!("\"{text}\" is not a range"),
            "write 100, \"100-200\", \"100-\" or \"-200\"",
        );
    }
    range.map(|(low, high)| low..=high)
}

/// Reads the changes of a rule. They apply in this order: `set`, `clear-communities`,
/// `remove-communities`, the Link Bandwidth community of `set`, `add-communities`, `prepend`.
fn read_changes(table: &Table<'_>, asn: Asn) -> Vec<Change> {
    let set = table.get("set").and_then(|v| v.table()).map(|set| read_set(set, asn));
    let (bandwidth, mut changes): (Vec<_>, Vec<_>) =
        set.unwrap_or_default().into_iter().partition(|change| {
            matches!(
                change,
                Change::SetLinkBandwidth(_)
                    | Change::SumLinkBandwidth(..)
                    | Change::ClearLinkBandwidth
                    | Change::ScaleLinkBandwidth(_)
            )
        });
    if table.get("clear-communities").and_then(|v| v.boolean()).unwrap_or(false) {
        changes.push(Change::ClearCommunities);
    }
    let communities = |key| table.get(key).map(|v| v.read_list(read_community)).unwrap_or_default();
    changes.extend(communities("remove-communities").into_iter().map(|c| match c {
        AnyCommunity::Standard(c) => Change::RemoveCommunity(c),
        AnyCommunity::Large(c) => Change::RemoveLargeCommunity(c),
        AnyCommunity::Ext(c) => Change::RemoveExtCommunity(c),
    }));
    changes.extend(bandwidth);
    changes.extend(communities("add-communities").into_iter().map(|c| match c {
        AnyCommunity::Standard(c) => Change::AddCommunity(c),
        AnyCommunity::Large(c) => Change::AddLargeCommunity(c),
        AnyCommunity::Ext(c) => Change::AddExtCommunity(c),
    }));
    if let Some(prepend) = table.get("prepend").and_then(|v| v.table()) {
        let asn = prepend
            .require("asn", "name the AS to prepend")
            .and_then(|v| super::bgp::read_usable_asn(&v));
        let count = match prepend.get("count") {
            Some(value) => value.integer(1..=16),
            None => Some(1),
        };
        prepend.finish();
        changes.extend(asn.zip(count).map(|(asn, count)| Change::Prepend(asn, count)));
    }
    changes
}

fn read_set(set: Table<'_>, asn: Asn) -> Vec<Change> {
    let number = |key| set.get(key).and_then(|v| v.integer(0..=u32::MAX));
    let mut changes = Vec::new();
    changes.extend(number("local-pref").map(Change::LocalPref));
    changes.extend(set.get("med").and_then(|v| {
        if v.is_integer() {
            v.integer(0..=u32::MAX).map(Change::Med)
        } else {
            v.choice(&[("none", Change::ClearMed)])
        }
    }));
    changes.extend(set.get("next-hop").and_then(|v| {
        let address: IpAddr = v.parse_as("an address such as 192.0.2.1")?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            v.fault(format_args!("{address} cannot be a next hop"), "use an address of a router");
            return None;
        }
        Some(Change::NextHop(address))
    }));
    changes.extend(number("metric").map(Change::Metric));
    changes.extend(read_link_bandwidth(&set, asn));
    changes.extend(set.get("source").and_then(|v| {
        let address: IpAddr = v.parse_as("an address such as 192.0.2.1")?;
        if address.is_unspecified() || address.is_multicast() {
            v.fault(format_args!("{address} cannot be a source"), "use an address of this machine");
            return None;
        }
        Some(Change::Source(address))
    }));
    changes.extend(
        // 0 is that of routes imported from another VRF, which lose to all others.
        set.get("preference").and_then(|v| v.integer(1..=u16::MAX)).map(Change::Preference),
    );
    set.finish();
    changes
}

/// Reads what happens to Link Bandwidth communities: replaced, summed, removed or scaled.
fn read_link_bandwidth(set: &Table<'_>, asn: Asn) -> Option<Change> {
    let types = [
        ("transitive", BandwidthScope::Transitive),
        ("non-transitive", BandwidthScope::NonTransitive),
    ];
    let scope = set.get("link-bandwidth-type");
    let percent = set.get("link-bandwidth-percent");
    let value = set.get("link-bandwidth");
    if let (Some(percent), Some(_)) = (&percent, &value) {
        percent.fault_key("has no effect beside link-bandwidth", "leave one of them out");
    }
    let Some(value) = value else {
        if let Some(scope) = scope {
            scope.fault_key("has no effect without link-bandwidth", "set link-bandwidth too");
        }
        return percent?.integer(1..=10_000u16).map(Change::ScaleLinkBandwidth);
    };
    let scope = scope.map_or(Some(BandwidthScope::Transitive), |v| v.choice(&types))?;
    if !value.is_integer() {
        return value.choice(&[
            ("none", Change::ClearLinkBandwidth),
            ("cumulative", Change::SumLinkBandwidth(asn, scope)),
        ]);
    }
    let octets = value.integer(1..=1_000_000_000_000_000u64)?;
    Some(Change::SetLinkBandwidth(ExtCommunity::of_link_bandwidth(asn, octets, scope)))
}
