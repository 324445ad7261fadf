//! Answers about policies: what their rules do.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::policy::{Decision, Policy, RouteRef, Source};
use bgp_proto::table::{self, PolicyCount, PolicyPlace, RouteFilter, Table, TestedRoute};
use bgp_proto::types::{NextHop, Prefix};
use bgp_proto::wire::{AttrEdit, AttrView, Origin};

use super::sources::{Sources, in_slices, is_stopping, vrf_text};
use crate::config::Config;
use crate::ctl::item::{
    AttributeChange, ExplainedPeer, PolicyHits, PolicyStep, PolicyTest, RuleHits, SentPath,
};
use crate::ctl::{ErrorKind, Names, Page, Refusal, TestRoute, attribute_changes};
use crate::daemon::registry::Record;
use crate::engine::Handle;

/// The hits of the policies with a name, in every table.
pub(super) async fn show(sources: &Sources, name: &str) -> Result<Page, Refusal> {
    let known = named(sources, name)?;
    let names = sources.names();
    let mut items = Vec::new();
    for table in sources.tables() {
        let count = count(&table, name.to_owned()).await.ok_or_else(is_stopping)?;
        items.extend(count.hits().iter().map(|hits| item(hits, &names)));
    }
    if items.is_empty() {
        items.extend(known.iter().map(|policy| unused(policy)));
    }
    Page::last(items)
}

/// Counts in slices between the table's turns; `None`: the table has ended.
async fn count(table: &Handle, name: String) -> Option<PolicyCount> {
    let count = table.ask(move |table, _| table.policy(&name)).await?;
    if count.is_over() {
        return Some(count);
    }
    let step = |table: &Table, count: &mut PolicyCount, budget| {
        let done = table.count_policy(count, budget);
        (done, count.is_over())
    };
    in_slices(table, count, step).await
}

fn item(hits: &table::PolicyHits, names: &impl Names) -> PolicyHits {
    let peers = hits.peers.iter().filter_map(|id| names.peer(*id)).collect();
    let rules = hits.policy.rules.iter().zip(&hits.rules).zip(1..);
    let rules = rules.map(|((rule, hits), number)| RuleHits {
        number,
        name: rule.name.clone(),
        then: word(rule.decision).to_owned(),
        matched: hits.matched,
        decided: hits.decided,
    });
    PolicyHits {
        policy: hits.policy.name.to_string(),
        place: match hits.place {
            PolicyPlace::Import => "import",
            PolicyPlace::Export => "export",
        }
        .to_owned(),
        peers,
        rules: rules.collect(),
        default: word(hits.policy.default).to_owned(),
        default_hits: hits.default,
        unreached: hits.unreached,
    }
}

/// A policy that is applied for no peer.
fn unused(policy: &Policy) -> PolicyHits {
    let rules = policy.rules.iter().zip(1..).map(|(rule, number)| RuleHits {
        number,
        name: rule.name.clone(),
        then: word(rule.decision).to_owned(),
        ..RuleHits::default()
    });
    PolicyHits {
        policy: policy.name.to_string(),
        rules: rules.collect(),
        default: word(policy.default).to_owned(),
        ..PolicyHits::default()
    }
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Accept => "accept",
        Decision::Reject => "reject",
        Decision::Next => "next",
    }
}

/// Tests a policy on the routes to a prefix, or on one that is described.
pub(super) async fn test(
    sources: &Sources,
    (name, prefix): (&str, Prefix),
    (from, to): (Option<&str>, Option<&str>),
    route: Option<&TestRoute>,
) -> Result<Page, Refusal> {
    let policies = named(sources, name)?;
    let peer = |name: Option<&str>| name.map(|name| sources.find(name)).transpose();
    let (from, to) = (peer(from)?, peer(to)?);
    if let (Some(from), Some(to)) = (&from, &to) {
        in_one_vrf(
            (&from.name, from.session.vrf.as_deref()),
            (&to.name, to.session.vrf.as_deref()),
        )?;
    }
    let of = from.iter().chain(&to).next().map_or(sources.clone(), |record| sources.of(record));
    let (from, to) = (from.map(|record| record.id), to.map(|record| record.id));
    let names = sources.names();
    let mut items = Vec::new();
    for policy in policies {
        let tested = match route {
            Some(route) => {
                let described = described(route)?;
                let peer = to.or(from);
                let kind = of.ask(move |table, _| peer.and_then(|id| table.peer_type(id))).await?;
                vec![table::PolicyTest::of(
                    &policy,
                    &RouteRef {
                        prefix,
                        attrs: described.view(),
                        next_hop: route.next_hop.map(NextHop::from),
                        source: Source::Bgp,
                        interface: None,
                        metric: None,
                        peer_type: kind,
                        shared_bandwidth: None,
                    },
                )]
            }
            None => {
                let policy = Arc::clone(&policy);
                of.ask(move |table, _| match to {
                    Some(to) => table.test_export(&policy, prefix, to),
                    None => table.test_import(&policy, prefix, from),
                })
                .await?
            }
        };
        items.extend(tested.iter().map(|test| tested_item(&policy, prefix, test, &names)));
    }
    if items.is_empty() {
        let text = match to {
            Some(_) => format!("there is no route to {prefix} to send, or the session is down"),
            None => {
                format!("no route to {prefix} was received; --route tests one that is described")
            }
        };
        return Err(Refusal { kind: ErrorKind::NotFound, text });
    }
    Page::last(items)
}

/// # Errors
/// The VRFs of these peers, by name, are not the same: no table has routes of both.
fn in_one_vrf(from: (&str, Option<&str>), to: (&str, Option<&str>)) -> Result<(), Refusal> {
    if from.1 == to.1 {
        return Ok(());
    }
    let text = format!(
        "peer {} is in {}, and peer {} in {}; name peers of one VRF",
        from.0,
        vrf_text(from.1),
        to.0,
        vrf_text(to.1)
    );
    Err(Refusal { kind: ErrorKind::BadRequest, text })
}

/// What a peer is sent of a destination, and what changes it on the way.
pub(super) async fn explain_peer(
    sources: &Sources,
    prefix: Prefix,
    record: &Record,
) -> Result<ExplainedPeer, Refusal> {
    let to = record.id;
    let found = sources.ask(move |table, now| {
        let policy = table.export_policy(to, prefix.family())?;
        let tests = table.test_export(&policy, prefix, to);
        let exact = Some(prefix);
        let filter = RouteFilter { exact, advertised_to: Some(to), ..RouteFilter::default() };
        let sent = table.view(&filter, 0, 1, now).0;
        Some((policy, tests, sent.into_iter().flat_map(|dest| dest.paths).collect::<Vec<_>>()))
    });
    let mut explained = ExplainedPeer { peer: record.name.to_string(), ..ExplainedPeer::default() };
    let Some((policy, tests, sent)) = found.await? else { return Ok(explained) };
    let names = sources.names();
    explained.policy = tests.iter().map(|t| tested_item(&policy, prefix, t, &names)).collect();
    let shown = sent.iter().map(|path| {
        let sent = (AttrView::new(&path.attrs), path.next_hop);
        let before = tests.iter().find(|test| test.from == path.peer).map(|test| &test.before);
        let before = before.map(|route| (AttrView::new(&route.attrs), route.next_hop));
        SentPath {
            path_id: path.path_id.0,
            attributes: attribute_changes(None, Some(sent)),
            changes: attribute_changes(before, Some(sent)),
        }
    });
    explained.sent = shown.collect();
    Ok(explained)
}

fn tested_item(
    policy: &Policy,
    prefix: Prefix,
    test: &table::PolicyTest,
    names: &impl Names,
) -> PolicyTest {
    let mut last = &test.before;
    let mut steps = Vec::new();
    for (rule, after) in &test.steps {
        steps
            .push(PolicyStep { rule: policy.describe(Some(*rule)), changes: changes(last, after) });
        last = after;
    }
    let peer = |id| names.peer(id).unwrap_or_else(|| format!("#{}", id.0));
    let mut all = if test.is_accepted { changes(&test.before, last) } else { Vec::new() };
    all.extend(test.preference.map(|preference| AttributeChange {
        attribute: "preference".to_owned(),
        before: None,
        after: Some(preference.to_string()),
    }));
    PolicyTest {
        policy: policy.name.to_string(),
        prefix: Some(prefix),
        from: test.from.map(peer),
        to: test.to.map(peer),
        result: test
            .unreached
            .is_none()
            .then(|| if test.is_accepted { "accept" } else { "reject" }.to_owned()),
        rule: test.unreached.clone().unwrap_or_else(|| policy.describe(test.rule)),
        steps,
        changes: all,
    }
}

fn changes(before: &TestedRoute, after: &TestedRoute) -> Vec<AttributeChange> {
    let old = (AttrView::new(&before.attrs), before.next_hop);
    let new = (AttrView::new(&after.attrs), after.next_hop);
    let mut changes = attribute_changes(Some(old), Some(new));
    if before.metric != after.metric {
        let text = |metric: Option<u32>| metric.map(|metric| metric.to_string());
        let (attribute, before) = ("metric".to_owned(), text(before.metric));
        changes.push(AttributeChange { attribute, before, after: text(after.metric) });
    }
    changes
}

/// The attributes of a described route.
pub(super) fn described(route: &TestRoute) -> Result<AttrEdit, Refusal> {
    let bad = |text: String| Refusal { kind: ErrorKind::BadRequest, text };
    let mut edit = AttrEdit::originate(Origin::Igp);
    for asn in route.as_path.iter().rev() {
        edit.prepend_as(*asn, 1);
    }
    route.local_pref.into_iter().for_each(|value| edit.set_local_pref(value));
    route.med.into_iter().for_each(|value| edit.set_med(value));
    let (mut plain, mut large, mut extended) = (Vec::new(), Vec::new(), Vec::new());
    for text in &route.communities {
        let read: Result<table::AnyCommunity, _> = text.parse();
        match read.map_err(|error: bgp_proto::types::ParseError| bad(error.to_string()))? {
            table::AnyCommunity::Standard(community) => plain.push(community),
            table::AnyCommunity::Large(community) => large.push(community),
            table::AnyCommunity::Extended(community) => extended.push(community),
        }
    }
    if !plain.is_empty() {
        edit.set_communities(&plain);
    }
    if !large.is_empty() {
        edit.set_large_communities(&large);
    }
    if !extended.is_empty() {
        edit.set_ext_communities(&extended);
    }
    Ok(edit)
}

/// The policies in force with a name: several on a Calico node, where each peer has its own.
fn named(sources: &Sources, name: &str) -> Result<Vec<Arc<Policy>>, Refusal> {
    let state = sources.state();
    let mut all = policies(&state.config);
    all.extend(state.config.unused_policies.iter().map(Arc::clone));
    let mut found: Vec<Arc<Policy>> = Vec::new();
    for policy in all.iter().filter(|policy| *policy.name == *name) {
        if !found.contains(policy) {
            found.push(Arc::clone(policy));
        }
    }
    if found.is_empty() {
        let names: BTreeMap<&str, ()> = all.iter().map(|policy| (&*policy.name, ())).collect();
        let names: Vec<&str> = names.into_keys().take(NAMED_MAX).collect();
        let text = format!("there is no policy \"{name}\"; there are: {}", names.join(", "));
        return Err(Refusal { kind: ErrorKind::NotFound, text });
    }
    Ok(found)
}

/// Maximum number of policies that are named where an unknown one was asked for.
const NAMED_MAX: usize = 20;

/// Every policy that something in the configuration uses, as often as it does.
fn policies(config: &Config) -> Vec<Arc<Policy>> {
    let peers = config.peers.iter().map(|peer| &peer.routes);
    let peers = peers.chain(config.interfaces.iter().map(|on_interface| &on_interface.routes));
    let routes = peers.chain(config.dynamic.iter().map(|range| &range.routes));
    let vrfs = &config.vrfs;
    let imports = config.bgp.import.iter().chain(vrfs.iter().flat_map(|vrf| &vrf.import));
    let redistribute = vrfs.iter().flat_map(|vrf| &vrf.redistribute).chain(&config.redistribute);
    routes
        .flat_map(|routes| [&routes.import.policy, &routes.export.policy])
        .chain(imports.map(|import| &import.policy))
        .chain(redistribute.filter_map(|rule| rule.policy.as_ref()))
        .chain(&config.table.fib_policy)
        .map(Arc::clone)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn policies_of_vrfs_are_among_those_in_use() {
        let text = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n\
            import-vrf = [{ vrf = \"blue\", policy = \"from-blue\" }]\n\
            [[vrfs]]\nname = \"blue\"\n\
            import-vrf = [{ vrf = \"default\", policy = \"to-blue\" }]\n\
            [[redistribute]]\nvrf = \"blue\"\nfrom = \"kernel\"\npolicy = \"kernel-of-blue\"\n\
            [[policy]]\nname = \"from-blue\"\ndefault = \"accept\"\n\
            [[policy]]\nname = \"to-blue\"\ndefault = \"accept\"\n\
            [[policy]]\nname = \"kernel-of-blue\"\ndefault = \"accept\"\n";
        let config = Config::parse(Path::new("m.toml"), text).unwrap_or_else(|e| panic!("{e}"));
        let names: Vec<String> = policies(&config).iter().map(|p| p.name.to_string()).collect();
        for name in ["from-blue", "to-blue", "kernel-of-blue"] {
            assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
        }
    }

    #[test]
    fn a_policy_is_not_tested_between_peers_of_different_vrfs() {
        assert!(in_one_vrf(("a", None), ("b", None)).is_ok());
        assert!(in_one_vrf(("a", Some("red")), ("b", Some("red"))).is_ok());
        let refusal = in_one_vrf(("a", None), ("b", Some("red"))).expect_err("two VRFs");
        assert_eq!(
            refusal.text,
            "peer a is in the default VRF, and peer b in VRF red; name peers of one VRF"
        );
    }
}
