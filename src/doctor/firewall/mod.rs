//! Firewall rules: those that drop BGP's port by name, and chains that drop what no rule of theirs accepts.

mod chain;
mod packet;
mod rule;

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bgp_proto::types::Family;

use chain::Ruleset;
pub(super) use packet::Traffic;

/// Longest time that a program which lists firewall rules is given.
const LISTING_MAX: Duration = Duration::from_secs(5);
/// Longest listing that is read, in octets.
const LISTING_LEN_MAX: u64 = 32 << 20;

/// What programs that list firewall rules printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Firewall {
    /// Programs that answered.
    pub(super) listed_by: Vec<&'static str>,
    /// Programs that did not, and why.
    pub(super) faults: Vec<String>,
    /// Rules that drop BGP's packets, each with the program that lists it.
    pub(super) drops: Vec<String>,
    /// Chains that no packet of a kind can pass.
    pub(super) shut: BTreeSet<Shut>,
}

/// A chain that no packet of a kind can pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shut {
    pub(super) traffic: Traffic,
    pub(super) family: Family,
    /// Its program, table and name, and what drops: its policy or a rule.
    pub(super) by: String,
}

impl Shut {
    fn seen_by(mut self, program: &str) -> Self {
        self.by = format!("{program}: {}", self.by);
        self
    }
}

/// Programs that list rules. Those of iptables exist in two variants, for two sets of rules.
const LISTINGS: [(&str, &[&str], Syntax); 5] = [
    ("nft", &["-n", "list", "ruleset"], Syntax::Nft),
    ("iptables-legacy-save", &[], Syntax::Iptables(Family::Ipv4)),
    ("ip6tables-legacy-save", &[], Syntax::Iptables(Family::Ipv6)),
    ("iptables-nft-save", &[], Syntax::Iptables(Family::Ipv4)),
    ("ip6tables-nft-save", &[], Syntax::Iptables(Family::Ipv6)),
];

/// How a program writes rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Nft,
    /// The rules of one family.
    Iptables(Family),
}

/// Lists the rules by every program that there is.
pub(super) fn look(port: u16) -> Firewall {
    let mut firewall = Firewall::default();
    for (program, arguments, syntax) in LISTINGS {
        match list(program, arguments) {
            None => {}
            Some(Ok(text)) => {
                firewall.listed_by.push(program);
                let drops = text.lines().filter(|line| drops_port(line, port));
                firewall.drops.extend(drops.map(|line| format!("{program}: {}", line.trim())));
                // nft lists what iptables-nft-save lists, as long as it is there.
                if !(program.ends_with("-nft-save") && firewall.listed_by.contains(&"nft")) {
                    let shut = Ruleset::read(&text, syntax).shut(port).into_iter();
                    firewall.shut.extend(shut.map(|shut| shut.seen_by(program)));
                }
            }
            Some(Err(why)) => firewall.faults.push(format!("{program}: {why}")),
        }
    }
    firewall
}

/// What a program prints; `None`: there is no such program.
fn list(program: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error.to_string())),
    };
    let (sender, receiver) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = output.take(LISTING_LEN_MAX).read_to_end(&mut text);
            // Whoever waited may have given up.
            let _ = sender.send(read.map(|_| String::from_utf8_lossy(&text).into_owned()));
        });
    }
    let text = receiver.recv_timeout(LISTING_MAX);
    if text.is_err() {
        // It may have ended by now.
        let _ = child.kill();
    }
    let status = child.wait();
    Some(match (text, status) {
        (Err(_), _) => Err(format!("no answer within {} s", LISTING_MAX.as_secs())),
        (Ok(Err(error)), _) | (Ok(Ok(_)), Err(error)) => Err(error.to_string()),
        (Ok(Ok(text)), Ok(status)) if status.success() => Ok(text),
        (Ok(Ok(_)), Ok(status)) => Err(format!("it failed with {status}")),
    })
}

/// Whether a rule, as iptables-save or nft prints it, names the port and drops.
fn drops_port(line: &str, port: u16) -> bool {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || matches!(c, ',' | '{' | '}')).collect();
    let port = port.to_string();
    let names_port = words.iter().enumerate().any(|(at, word)| {
        let is_key = matches!(
            *word,
            "--dport" | "--sport" | "--dports" | "--sports" | "--ports" | "dport" | "sport"
        );
        // The port, or a list of them, up to the next word that is none.
        let listed = words.iter().skip(at + 1).filter(|word| !word.is_empty());
        let is_port =
            |word: &&&str| word.chars().all(|c| c.is_ascii_digit() || c == ':' || c == '-');
        is_key && listed.take_while(is_port).any(|word| **word == port)
    });
    let drops = words.iter().any(|word| matches!(*word, "DROP" | "REJECT" | "drop" | "reject"));
    names_port && drops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_drop_the_port_are_known_from_others() {
        for line in [
            "-A INPUT -p tcp -m tcp --dport 179 -j DROP",
            "-A INPUT -p tcp -m multiport --dports 22,179 -j REJECT --reject-with icmp-port-unreachable",
            "\t\ttcp dport 179 drop",
            "\t\ttcp dport { 80, 179 } counter packets 0 bytes 0 reject",
            "\t\ttcp sport 179 drop",
        ] {
            assert!(drops_port(line, 179), "{line}");
        }
        for line in [
            "-A INPUT -p tcp -m tcp --dport 179 -j ACCEPT",
            "-A INPUT -p tcp -m tcp --dport 1790 -j DROP",
            "-A INPUT -p tcp -m tcp --dport 22 -m limit --limit 179 -j DROP",
            "\t\ttcp dport { 80, 443 } drop",
            ":INPUT DROP [179:1]",
            "",
        ] {
            assert!(!drops_port(line, 179), "{line}");
        }
    }

    #[test]
    fn a_program_that_is_missing_fails_or_hangs_is_told_apart() {
        assert_eq!(list("margay-no-such-program", &[]), None);
        assert_eq!(list("echo", &["rule"]), Some(Ok("rule\n".to_owned())));
        assert!(list("false", &[]).is_some_and(|listed| listed.is_err()));
    }
}
