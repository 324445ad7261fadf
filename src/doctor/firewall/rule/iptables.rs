//! Parses the options of a rule of `iptables-save`.

use super::{Condition, Rule, Verdict, words};

/// Targets after which the next rule is evaluated.
const GO_ON: [&str; 11] = [
    "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "SET", "CHECKSUM", "DSCP",
    "TRACE",
];
/// Modules whose conditions are entirely in their options.
const PLAIN: [&str; 7] = ["comment", "tcp", "udp", "multiport", "conntrack", "state", "mark"];

pub(super) fn read(text: &str) -> Rule<'_> {
    let mut rule = Rule { conditions: Vec::new(), verdict: Verdict::None };
    let mut negated = false;
    let mut words = words(text).into_iter();
    while let Some(option) = words.next() {
        if option == "!" {
            negated = true;
            continue;
        }
        let mut value = || words.next().unwrap_or_default();
        let condition = match option {
            "-j" => {
                rule.verdict = target(value());
                break;
            }
            "-g" => {
                rule.verdict = Verdict::Goto(value());
                break;
            }
            "-p" => Some(Condition::protocol(&[value()], negated)),
            "--dport" | "--dports" => {
                let ports: Vec<&str> = value().split(',').collect();
                Some(Condition::port(&ports, ':', negated))
            }
            "-i" | "-o" => Some(Condition::interface(&[value()], negated)),
            "-s" | "-d" => Some(Condition::address(&[value()], negated)),
            "--ctstate" | "--state" => {
                let is_listed = value().split(',').any(|state| state == "NEW");
                (is_listed == negated).then_some(Condition::Never)
            }
            "--mark" => {
                let is_zero = matches!(value().split('/').next(), Some("0x0" | "0"));
                (is_zero == negated).then_some(Condition::Never)
            }
            "--comment" => {
                value();
                None
            }
            "-m" => (!PLAIN.contains(&value())).then_some(Condition::Unknown),
            _ => Some(Condition::Unknown),
        };
        rule.conditions.extend(condition);
        negated = false;
    }
    rule
}

fn target(name: &str) -> Verdict<'_> {
    match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        name if GO_ON.contains(&name) => Verdict::None,
        // The effect of a target that is not a chain is not known.
        name => Verdict::Jump(name),
    }
}
