//! BGPFilters, compiled to rules of margay's policy engine.

use bgp_proto::policy::{
    Change, Decision, METRIC_MIRROR, Match, PrefixMatch, PrefixSet, Rule, Source,
};
use bgp_proto::types::{Asn, Community, Family, LargeCommunity, PeerType, Prefix};

use super::model::{BgpFilter, FilterRule, Operation, PrefixLength, exact};
use super::plan::Problem;

/// Which way routes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Import,
    Export,
}

/// The session for which a filter is compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) family: Family,
    pub(super) peer_type: PeerType,
    /// Our AS on the session.
    pub(super) local_asn: Asn,
}

/// A community of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnyCommunity {
    Standard(Community),
    Large(LargeCommunity),
}

impl AnyCommunity {
    /// Two numbers are a standard community, three a large one.
    pub(super) fn parse(text: &str) -> Option<AnyCommunity> {
        // Only numbers: names such as no-export are not part of Calico's language.
        if !text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
            return None;
        }
        match text.bytes().filter(|b| *b == b':').count() {
            1 => text.parse().ok().map(AnyCommunity::Standard),
            2 => text.parse().ok().map(AnyCommunity::Large),
            _ => None,
        }
    }

    /// Whether Calico takes the text for a literal community, as opposed to a name: numbers with
    /// one or two colons between them, in range or not.
    pub(super) fn is_literal(text: &str) -> bool {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        matches!(text.split(':').count(), 2 | 3) && text.split(':').all(is_number)
    }

    pub(super) fn add(self) -> Change {
        match self {
            AnyCommunity::Standard(c) => Change::AddCommunity(c),
            AnyCommunity::Large(c) => Change::AddLargeCommunity(c),
        }
    }

    fn carried(self) -> Match {
        match self {
            AnyCommunity::Standard(c) => Match::Community(vec![c]),
            AnyCommunity::Large(c) => Match::LargeCommunity(vec![c]),
        }
    }
}

/// The rules of a filter for one direction of a session.
///
/// A rule that BIRD would not parse matches nothing and is reported by [`check`]; the other rules
/// hold.
pub(super) fn rules(filter: &BgpFilter, direction: Direction, session: Session) -> Vec<Rule> {
    compiled(filter, direction, session)
        .filter_map(|(place, compiled)| {
            let rule = compiled.ok().flatten()?;
            Some(Rule { name: format!("BGPFilter/{} {place}", filter.name), ..rule })
        })
        .collect()
}

/// Reports the rules of a filter that are invalid and therefore match nothing, whether a session
/// uses the filter or not.
pub(super) fn check(filter: &BgpFilter, problems: &mut Vec<Problem>) {
    for family in Family::ALL {
        for direction in [Direction::Import, Direction::Export] {
            // An invalid rule is invalid on any session.
            let session = Session { family, peer_type: PeerType::Internal, local_asn: Asn(0) };
            for (place, compiled) in compiled(filter, direction, session) {
                if let Err(error) = compiled {
                    let text = format!("spec.{place}: {error}: the rule matches nothing");
                    problems.push(Problem::new(format!("BGPFilter/{}", filter.name), text));
                }
            }
        }
    }
}

/// Each rule with its place in the filter.
fn compiled(
    filter: &BgpFilter,
    direction: Direction,
    session: Session,
) -> impl Iterator<Item = (String, Result<Option<Rule>, String>)> {
    let (field, list) = match (direction, session.family) {
        (Direction::Import, Family::Ipv4) => ("importV4", &filter.import_ipv4),
        (Direction::Import, Family::Ipv6) => ("importV6", &filter.import_ipv6),
        (Direction::Export, Family::Ipv4) => ("exportV4", &filter.export_ipv4),
        (Direction::Export, Family::Ipv6) => ("exportV6", &filter.export_ipv6),
    };
    list.iter()
        .enumerate()
        .map(move |(index, rule)| (format!("{field}[{index}]"), compile(rule, direction, session)))
}

/// `Ok(None)`: the rule is valid but never matches on this session.
fn compile(
    rule: &FilterRule,
    direction: Direction,
    session: Session,
) -> Result<Option<Rule>, String> {
    let decision = match rule.action.as_str() {
        "Accept" => Decision::Accept,
        "Reject" => Decision::Reject,
        other => return Err(format!("action \"{other}\" is neither Accept nor Reject")),
    };
    let mut matches = Vec::new();
    let is_for_session = match rule.peer_type.as_str() {
        "" => true,
        "eBGP" => session.peer_type == PeerType::External,
        "iBGP" => session.peer_type == PeerType::Internal,
        other => return Err(format!("peerType \"{other}\" is neither eBGP nor iBGP")),
    };
    let mut is_possible = is_for_session;
    if !rule.cidr.is_empty() {
        let cidr = exact(&rule.cidr)?;
        if cidr.family() != session.family {
            return Err(format!("cidr {cidr} is of the other family"));
        }
        match prefix_condition(cidr, &rule.match_operator, rule.prefix_length)? {
            Condition::Always => {}
            Condition::Never => is_possible = false,
            Condition::When(condition) => matches.push(condition),
        }
    }
    match rule.source.as_str() {
        "" => {}
        "RemotePeers" => matches.push(Match::Source(vec![Source::Bgp])),
        other => return Err(format!("source \"{other}\" is not RemotePeers")),
    }
    // In BIRD a route without an interface has the empty name, which only a lone star matches.
    if !matches!(rule.interface.as_str(), "" | "*") {
        matches.push(Match::Interface(vec![rule.interface.clone()]));
    }
    if let Some(communities) = &rule.communities {
        let text = communities.values.first().ok_or("communities.values is empty")?;
        let community = AnyCommunity::parse(text)
            .ok_or_else(|| format!("\"{text}\" is not a community (a:b or a:b:c)"))?;
        matches.push(community.carried());
    }
    if let Some((first, rest)) = rule.as_path_prefix.split_first() {
        // BIRD prepends our own AS before it runs an eBGP export filter; the policy engine runs
        // first.
        if direction == Direction::Export && session.peer_type == PeerType::External {
            is_possible &= *first == session.local_asn;
            if !rest.is_empty() {
                matches.push(Match::AsPathPrefix(rest.to_vec()));
            }
        } else {
            matches.push(Match::AsPathPrefix(rule.as_path_prefix.clone()));
        }
    }
    if let Some(priority) = rule.priority {
        let local_pref = local_pref(priority)?;
        matches.extend([Match::HasLocalPref, Match::LocalPref(local_pref..=local_pref)]);
    }
    let changes = match decision {
        Decision::Accept => {
            // BIRD's eBGP export filters see our own AS prepended already, and prepend in front of
            // it.
            let is_outermost =
                direction == Direction::Export && session.peer_type == PeerType::External;
            operations(&rule.operations, is_outermost)?
        }
        Decision::Reject | Decision::Next => Vec::new(),
    };
    Ok(is_possible.then(|| Rule { name: String::new(), matches, changes, decision }))
}

enum Condition {
    Always,
    Never,
    When(Match),
}

fn prefix_condition(
    cidr: Prefix,
    operator: &str,
    lengths: Option<PrefixLength>,
) -> Result<Condition, String> {
    // With a length range, an equality operator compares a prefix with a set: they are never equal.
    let (is_equality, is_negated) = match operator {
        "In" => (false, false),
        "NotIn" => (false, true),
        "Equal" => (true, false),
        "NotEqual" => (true, true),
        other => {
            return Err(format!("matchOperator \"{other}\" is not In, NotIn, Equal or NotEqual"));
        }
    };
    let range = match lengths {
        None if is_equality => PrefixMatch::exact(cidr),
        None => PrefixMatch::or_longer(cidr),
        Some(lengths) => {
            let max_len = i64::from(cidr.family().max_len());
            let low = lengths.min.unwrap_or(0).max(i64::from(cidr.len()));
            let high = lengths.max.unwrap_or(max_len).min(max_len);
            let (Ok(low), Ok(high)) = (u8::try_from(low), u8::try_from(high)) else {
                return Err("prefixLength is out of range".to_owned());
            };
            if low > high {
                return Err(format!("prefixLength is an empty range ({low} to {high})"));
            }
            match (is_equality, is_negated) {
                (true, false) => return Ok(Condition::Never),
                (true, true) => return Ok(Condition::Always),
                (false, _) => PrefixMatch { prefix: cidr, lengths: low..=high },
            }
        }
    };
    let condition = Match::Prefix(PrefixSet::from(vec![range]));
    Ok(Condition::When(if is_negated { Match::Not(Box::new(condition)) } else { condition }))
}

/// The LOCAL_PREF that corresponds to a kernel metric.
fn local_pref(priority: i64) -> Result<u32, String> {
    u32::try_from(priority)
        .ok()
        .filter(|p| *p <= METRIC_MIRROR)
        .map(|p| METRIC_MIRROR - p)
        .ok_or_else(|| format!("priority {priority} is not in 0-{METRIC_MIRROR}"))
}

fn operations(list: &[Operation], is_outermost: bool) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    for operation in list {
        if let Some(add) = &operation.add_community {
            let community = AnyCommunity::parse(&add.value)
                .ok_or_else(|| format!("\"{}\" is not a community (a:b or a:b:c)", add.value))?;
            changes.push(community.add());
        } else if let Some(prepend) = &operation.prepend_as_path {
            changes.extend(prepend.prefix.iter().rev().map(|asn| {
                if is_outermost { Change::PrependOutermost(*asn) } else { Change::Prepend(*asn, 1) }
            }));
        } else if let Some(set) = &operation.set_priority {
            changes.push(Change::LocalPref(local_pref(set.value.unwrap_or(0))?));
        } else {
            return Err("an operation says nothing to do".to_owned());
        }
    }
    Ok(changes)
}
