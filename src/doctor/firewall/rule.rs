//! A rule: which packets it matches, and what it does, as far as its text tells.

mod iptables;
mod nft;

use std::ops::RangeInclusive;

use bgp_proto::types::Family;

use super::packet::Packet;

/// The names that `iptables-save` and `nft` use for IP protocol numbers.
const PROTOCOLS: [(&str, u8); 9] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("sctp", 132),
];

/// What a rule does with packets that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// It only counts, logs or marks them.
    None,
    /// It accepts them, or the effect cannot be determined.
    Accept,
    /// It drops them, with or without an error message.
    Drop,
    /// It returns to the chain that jumped here.
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

/// Whether a rule matches a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    No,
    /// It may: the text does not tell.
    Maybe,
    Yes,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// No packet from another node meets it.
    Never,
    /// It cannot be evaluated.
    Unknown,
    Family(Family),
    /// The protocol is one of these or, if negated, none of them.
    Protocol {
        listed: Vec<u8>,
        negated: bool,
    },
    /// The port is one of these or, if negated, none of them.
    Port {
        listed: Vec<RangeInclusive<u16>>,
        negated: bool,
    },
}

impl Condition {
    fn protocol(names: &[&str], negated: bool) -> Self {
        let number = |name: &&str| {
            let known = PROTOCOLS.iter().find(|(known, _)| known == name);
            known.map(|(_, number)| *number).or_else(|| name.parse().ok())
        };
        match names.iter().map(number).collect::<Option<Vec<u8>>>() {
            Some(listed) => Condition::Protocol { listed, negated },
            None => Condition::Unknown,
        }
    }

    /// A condition on ports and port ranges, whose ends are separated by `to`.
    fn port(words: &[&str], to: char, negated: bool) -> Self {
        let range = |word: &&str| {
            let (first, last) = word.split_once(to).unwrap_or((word, word));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        match words.iter().map(range).collect() {
            Some(listed) => Condition::Port { listed, negated },
            None => Condition::Unknown,
        }
    }

    /// A condition on interfaces, given without quotes: no BGP neighbour is behind a pod's or the
    /// loopback interface.
    fn interface(names: &[&str], negated: bool) -> Self {
        let is_elsewhere = |name: &&str| *name == "lo" || name.starts_with("cali");
        match names.iter().all(is_elsewhere) {
            true if !negated => Condition::Never,
            _ => Condition::Unknown,
        }
    }

    fn address(words: &[&str], negated: bool) -> Self {
        let is_own = |word: &&str| word.starts_with("127.") || word.starts_with("::1");
        match words.iter().all(is_own) {
            true if !negated => Condition::Never,
            _ => Condition::Unknown,
        }
    }

    fn fit(&self, packet: Packet) -> Fit {
        let fits = match self {
            Condition::Never => false,
            Condition::Unknown => return Fit::Maybe,
            Condition::Family(family) => *family == packet.family,
            Condition::Protocol { listed, negated } => {
                listed.contains(&packet.protocol) != *negated
            }
            Condition::Port { listed, negated } => {
                let Some(port) = packet.port else { return Fit::No };
                listed.iter().any(|range| range.contains(&port)) != *negated
            }
        };
        if fits { Fit::Yes } else { Fit::No }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    conditions: Vec<Condition>,
    pub(super) verdict: Verdict<'a>,
}

impl<'a> Rule<'a> {
    /// Parses a line of a chain of nft.
    pub(super) fn of_nft(text: &'a str) -> Self {
        nft::read(text)
    }

    /// Parses what `iptables-save` prints after a chain's name.
    pub(super) fn of_iptables(text: &'a str) -> Self {
        iptables::read(text)
    }

    /// Whether it matches a packet.
    pub(super) fn fit(&self, packet: Packet) -> Fit {
        let mut fit = Fit::Yes;
        for condition in &self.conditions {
            match condition.fit(packet) {
                Fit::No => return Fit::No,
                Fit::Maybe => fit = Fit::Maybe,
                Fit::Yes => {}
            }
        }
        fit
    }
}

/// Splits text into words. Quoted text is one word, without the quotes; braces are words, and
/// trailing commas are dropped.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => match rest[1..].find('"') {
                Some(end) => {
                    words.push(&rest[1..=end]);
                    rest = rest[end + 2..].trim_start();
                    continue;
                }
                None => rest.len(),
            },
            '{' | '}' => 1,
            _ => {
                rest.find(|c: char| c.is_whitespace() || c == '{' || c == '}').unwrap_or(rest.len())
            }
        };
        let word = rest[..end].trim_end_matches(',');
        if !word.is_empty() {
            words.push(word);
        }
        rest = rest[end..].trim_start();
    }
    words
}
