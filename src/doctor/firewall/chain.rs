//! Chains as nft and iptables-save list them, and whether a packet can pass one.
//!
//! Conditions that cannot be evaluated from a rule's text (addresses, sets, rates) are decided in
//! the packet's favour: a chain is reported as shut only if no rule could accept.

use std::collections::{BTreeMap, BTreeSet};

use bgp_proto::types::Family;

use super::packet::{Packet, Traffic};
use super::rule::{Fit, Rule, Verdict};
use super::{Shut, Syntax};

/// Maximum depth of jumps, as in the kernel.
const DEPTH_MAX: usize = 16;
/// Maximum number of rules evaluated for one packet in one base chain. With more, the chain is
/// assumed to be passable.
const RULES_MAX: usize = 200_000;

/// What happens to a packet in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    MayPass,
    /// Dropped, by this rule.
    Dropped(String),
    /// No rule decides about it.
    FallsThrough,
}

/// A parsed listing. Rules stay text until they are evaluated: there may be a hundred thousand.
#[derive(Debug)]
pub(super) struct Ruleset<'a> {
    syntax: Syntax,
    /// Chains by table and name.
    chains: BTreeMap<(&'a str, &'a str), Chain<'a>>,
}

#[derive(Debug, Default)]
struct Chain<'a> {
    /// The policy, if it is a base chain for packets to or from this host; `None`: it is not, and
    /// matters only as the target of jumps.
    policy: Option<Policy>,
    rules: Vec<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Accept,
    Drop,
}

impl<'a> Ruleset<'a> {
    pub(super) fn read(text: &'a str, syntax: Syntax) -> Self {
        let chains = match syntax {
            Syntax::Nft => read_nft(text),
            Syntax::Iptables(_) => read_iptables(text),
        };
        Ruleset { syntax, chains }
    }

    /// The kinds of traffic that cannot pass, and where.
    pub(super) fn shut(&self, bgp_port: u16) -> BTreeSet<Shut> {
        let mut shut = BTreeSet::new();
        for (&(table, name), chain) in &self.chains {
            let Some(policy) = chain.policy else { continue };
            for family in self.families(table) {
                for traffic in Traffic::ALL {
                    let packet = Packet::of(traffic, family, bgp_port);
                    let what = match self.fate(table, chain, packet, 0, &mut RULES_MAX.clone()) {
                        Fate::Dropped(rule) => format!("its rule \"{rule}\""),
                        Fate::FallsThrough if policy == Policy::Drop => "its policy".to_owned(),
                        Fate::FallsThrough | Fate::MayPass => continue,
                    };
                    let by = format!("chain {name} of table {table}: {what}");
                    shut.insert(Shut { traffic, family, by });
                }
            }
        }
        shut
    }

    /// The families of the packets that a table handles.
    fn families(&self, table: &str) -> Vec<Family> {
        match (self.syntax, table.split(' ').next()) {
            (Syntax::Iptables(family), _) => vec![family],
            (Syntax::Nft, Some("inet")) => vec![Family::Ipv4, Family::Ipv6],
            (Syntax::Nft, Some("ip")) => vec![Family::Ipv4],
            (Syntax::Nft, Some("ip6")) => vec![Family::Ipv6],
            (Syntax::Nft, _) => Vec::new(),
        }
    }

    fn fate(
        &self,
        table: &str,
        chain: &Chain<'_>,
        packet: Packet,
        depth: usize,
        left: &mut usize,
    ) -> Fate {
        for text in &chain.rules {
            if *left == 0 || depth > DEPTH_MAX {
                return Fate::MayPass;
            }
            *left -= 1;
            let rule = match self.syntax {
                Syntax::Nft => Rule::of_nft(text),
                Syntax::Iptables(_) => Rule::of_iptables(text),
            };
            let fit = rule.fit(packet);
            if fit == Fit::No {
                continue;
            }
            let (target, returns) = match rule.verdict {
                Verdict::None => continue,
                Verdict::Accept => return Fate::MayPass,
                Verdict::Drop if fit == Fit::Yes => return Fate::Dropped(text.trim().to_owned()),
                Verdict::Return if fit == Fit::Yes => return Fate::FallsThrough,
                Verdict::Drop | Verdict::Return => continue,
                Verdict::Jump(target) => (target, true),
                Verdict::Goto(target) => (target, false),
            };
            let Some(next) = self.chains.get(&(table, target)) else { return Fate::MayPass };
            match self.fate(table, next, packet, depth + 1, left) {
                Fate::MayPass => return Fate::MayPass,
                fate @ Fate::Dropped(_) if fit == Fit::Yes => return fate,
                Fate::FallsThrough if !returns && fit == Fit::Yes => return Fate::FallsThrough,
                Fate::Dropped(_) | Fate::FallsThrough => {}
            }
        }
        Fate::FallsThrough
    }
}

/// Parses `nft list ruleset`: tables contain chains, which contain the hook and then the rules, one
/// per line.
fn read_nft(text: &str) -> BTreeMap<(&str, &str), Chain<'_>> {
    let mut chains: BTreeMap<_, Chain<'_>> = BTreeMap::new();
    let (mut table, mut chain) = ("", None);
    for line in text.lines() {
        let trimmed = line.trim();
        let block = trimmed.strip_suffix('{').map(str::trim_end);
        if let Some(name) = block.and_then(|block| block.strip_prefix("table ")) {
            (table, chain) = (name, None);
        } else if let Some(name) = block.and_then(|block| block.strip_prefix("chain ")) {
            chain = Some(chains.entry((table, name)).or_default());
        } else if trimmed == "}" {
            chain = None;
        } else if let Some(chain) = &mut chain {
            if let Some(kind) = trimmed.strip_prefix("type ") {
                chain.policy = nft_policy(kind);
            } else if !trimmed.is_empty() {
                chain.rules.push(trimmed);
            }
        }
    }
    chains
}

fn nft_policy(kind: &str) -> Option<Policy> {
    let sees_own = kind.contains(" hook input ") || kind.contains(" hook output ");
    let policy = if kind.contains("policy drop;") { Policy::Drop } else { Policy::Accept };
    (kind.starts_with("filter ") && sees_own).then_some(policy)
}

/// Parses the `filter` table of `iptables-save`: policies, then rules with the names of their
/// chains.
fn read_iptables(text: &str) -> BTreeMap<(&str, &str), Chain<'_>> {
    let mut chains: BTreeMap<_, Chain<'_>> = BTreeMap::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if table != "filter" {
            continue;
        } else if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            let policy = match policy {
                Some("DROP") => Some(Policy::Drop),
                Some("ACCEPT") => Some(Policy::Accept),
                _ => None,
            };
            let policy = policy.filter(|_| matches!(name, "INPUT" | "OUTPUT"));
            chains.entry((table, name)).or_default().policy = policy;
        } else if let Some((name, rule)) =
            line.strip_prefix("-A ").and_then(|line| line.split_once(' '))
        {
            chains.entry((table, name)).or_default().rules.push(rule);
        }
    }
    chains
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
