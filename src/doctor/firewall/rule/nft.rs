//! Parses the statements of a rule of nft.

use bgp_proto::types::Family;

use super::{Condition, Rule, Verdict, words};

/// conntrack's state of packets that start a connection; `nft -n` prints the number.
const NEW: [&str; 2] = ["new", "0x8"];

/// What a field of a packet is compared with.
struct Value<'a> {
    listed: Vec<&'a str>,
    negated: bool,
    /// Whether it is a named set, a masked value or a concatenation of fields.
    is_unknown: bool,
    /// Whether it is a verdict map: the verdict depends on the value.
    is_map: bool,
}

struct Reader<'a> {
    words: Vec<&'a str>,
    at: usize,
    rule: Rule<'a>,
}

pub(super) fn read(text: &str) -> Rule<'_> {
    let rule = Rule { conditions: Vec::new(), verdict: Verdict::None };
    let mut reader = Reader { words: words(text), at: 0, rule };
    while let Some(word) = reader.next() {
        if reader.verdict(word) {
            break;
        }
        if !reader.statement(word) && reader.condition(word) {
            // The verdict is from a map, and may be to accept.
            reader.rule.verdict = Verdict::Accept;
            break;
        }
    }
    reader.rule
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn peek(&self) -> &'a str {
        self.words.get(self.at).copied().unwrap_or_default()
    }

    fn skip(&mut self, words: usize) {
        self.at += words;
    }

    /// Parses a verdict, which ends the rule. Returns whether `word` is one.
    fn verdict(&mut self, word: &str) -> bool {
        self.rule.verdict = match word {
            "accept" | "queue" | "vmap" => Verdict::Accept,
            "drop" | "reject" => Verdict::Drop,
            "return" => Verdict::Return,
            "jump" => Verdict::Jump(self.next().unwrap_or_default()),
            "goto" => Verdict::Goto(self.next().unwrap_or_default()),
            _ => return false,
        };
        true
    }

    /// Parses a statement that is not a condition. Returns whether `word` begins one.
    fn statement(&mut self, word: &str) -> bool {
        match word {
            "counter" if self.peek() == "packets" => self.skip(4),
            "counter" => {}
            "comment" => self.skip(1),
            "log" => {
                while matches!(self.peek(), "prefix" | "level" | "group" | "snaplen" | "flags") {
                    self.skip(2);
                }
            }
            _ => return false,
        }
        true
    }

    fn value(&mut self) -> Value<'a> {
        let mut value =
            Value { listed: Vec::new(), negated: false, is_unknown: false, is_map: false };
        if matches!(self.peek(), "!=" | "==") {
            value.negated = self.next() == Some("!=");
        }
        match self.next().unwrap_or_default() {
            "vmap" => value.is_map = true,
            "{" => {
                while let Some(word) = self.next().filter(|word| *word != "}") {
                    value.listed.push(word);
                }
            }
            word => value.listed.push(word),
        }
        let is_named = value.listed.iter().any(|word| word.starts_with('@') || *word == "&");
        value.is_unknown = is_named || self.peek() == ".";
        value
    }

    /// Parses a value and adds the condition that `make` returns. Returns whether it was a map.
    fn compare(&mut self, make: impl FnOnce(&Value<'a>) -> Option<Condition>) -> bool {
        let value = self.value();
        if !value.is_map {
            let condition = if value.is_unknown { Some(Condition::Unknown) } else { make(&value) };
            self.rule.conditions.extend(condition);
        }
        value.is_map
    }

    /// Parses a condition. Returns whether it is a verdict map instead.
    fn condition(&mut self, word: &str) -> bool {
        let unknown = |_: &Value<'a>| Some(Condition::Unknown);
        let protocol = |v: &Value<'a>| Some(Condition::protocol(&v.listed, v.negated));
        let port = |v: &Value<'a>| Some(Condition::port(&v.listed, '-', v.negated));
        match word {
            "iif" | "iifname" | "oif" | "oifname" => {
                self.compare(|v| Some(Condition::interface(&v.listed, v.negated)))
            }
            "ip" | "ip6" => {
                let family = if word == "ip" { Family::Ipv4 } else { Family::Ipv6 };
                self.rule.conditions.push(Condition::Family(family));
                match self.next().unwrap_or_default() {
                    "protocol" | "nexthdr" => self.compare(protocol),
                    "saddr" | "daddr" => {
                        self.compare(|v| Some(Condition::address(&v.listed, v.negated)))
                    }
                    _ => self.compare(unknown),
                }
            }
            "tcp" | "udp" | "icmp" | "icmpv6" | "sctp" | "th" => {
                if word != "th" {
                    self.rule.conditions.push(Condition::protocol(&[word], false));
                }
                match self.next().unwrap_or_default() {
                    "dport" => self.compare(port),
                    _ => self.compare(unknown),
                }
            }
            "meta" => match self.next().unwrap_or_default() {
                "l4proto" => self.compare(protocol),
                "mark" => self.mark(),
                _ => self.compare(unknown),
            },
            "mark" => self.mark(),
            "ct" if self.peek() == "state" => {
                self.skip(1);
                self.compare(|v| {
                    let is_listed = v
                        .listed
                        .iter()
                        .any(|state| state.split(',').any(|state| NEW.contains(&state)));
                    (is_listed == v.negated).then_some(Condition::Never)
                })
            }
            _ => {
                self.rule.conditions.push(Condition::Unknown);
                false
            }
        }
    }

    /// Parses an assignment to the mark, or a condition on it: packets from other nodes have no
    /// mark.
    fn mark(&mut self) -> bool {
        if self.peek() == "set" {
            // Whatever follows the value is arithmetic, and does not matter.
            self.skip(2);
            return false;
        }
        if matches!(self.peek(), "&" | "and") {
            self.skip(2);
        }
        self.compare(|v| {
            let is_zero =
                v.listed.iter().any(|mark| mark.trim_start_matches(['0', 'x']).is_empty());
            (is_zero == v.negated).then_some(Condition::Never)
        })
    }
}
