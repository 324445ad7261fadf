//! Firewall rules: rules that drop BGP's port explicitly, and chains that drop packets which none
//! of their rules accepts.

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

/// Timeout for a program that lists firewall rules.
const LISTING_MAX: Duration = Duration::from_secs(5);
/// Maximum length of a listing that is read, in bytes.
const LISTING_LEN_MAX: u64 = 32 << 20;

/// What was found in the listings of firewall rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Firewall {
    /// Programs that listed rules.
    pub(super) listed_by: Vec<&'static str>,
    /// Programs that failed, and why.
    pub(super) faults: Vec<String>,
    /// Rules that drop BGP's packets, each with the program that listed it.
    pub(super) drops: Vec<String>,
    /// Chains that no packet of some kind of traffic can pass.
    pub(super) shut: BTreeSet<Shut>,
}

/// A chain that no packet of some kind of traffic can pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shut {
    pub(super) traffic: Traffic,
    pub(super) family: Family,
    /// The listing program, the table and name of the chain, and what drops: its policy or a rule.
    pub(super) by: String,
}

impl Shut {
    fn seen_by(mut self, program: &str) -> Self {
        self.by = format!("{program}: {}", self.by);
        self
    }
}

/// The programs that list rules. iptables exists in two variants with separate rules.
const LISTINGS: [(&str, &[&str], Syntax); 5] = [
    ("nft", &["-n", "list", "ruleset"], Syntax::Nft),
    ("iptables-legacy-save", &[], Syntax::Iptables(Family::Ipv4)),
    ("ip6tables-legacy-save", &[], Syntax::Iptables(Family::Ipv6)),
    ("iptables-nft-save", &[], Syntax::Iptables(Family::Ipv4)),
    ("ip6tables-nft-save", &[], Syntax::Iptables(Family::Ipv6)),
];

/// The format of a program's listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Nft,
    /// The rules of one family.
    Iptables(Family),
}

/// Lists the rules with every program that is installed.
pub(super) fn look(port: u16) -> Firewall {
    let mut firewall = Firewall::default();
    for (program, arguments, syntax) in LISTINGS {
        match list(program, arguments) {
            None => {}
            Some(Ok(text)) => {
                firewall.listed_by.push(program);
                let drops = text.lines().filter(|line| drops_port(line, port));
                firewall.drops.extend(drops.map(|line| format!("{program}: {}", line.trim())));
                // If nft is installed, it lists what iptables-nft-save does, too.
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

/// The output of a program; `None`: it is not installed.
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
            // The receiver may have timed out.
            let _ = sender.send(read.map(|_| String::from_utf8_lossy(&text).into_owned()));
        });
    }
    let text = receiver.recv_timeout(LISTING_MAX);
    if text.is_err() {
        // It may have exited by now.
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

/// Whether a rule, as iptables-save or nft prints it, matches the port and drops.
fn drops_port(line: &str, port: u16) -> bool {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || matches!(c, ',' | '{' | '}')).collect();
    let port = port.to_string();
    let names_port = words.iter().enumerate().any(|(at, word)| {
        let is_key = matches!(
            *word,
            "--dport" | "--sport" | "--dports" | "--sports" | "--ports" | "dport" | "sport"
        );
        // A port or a list of ports, up to the next word that is neither.
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
    fn rules_that_drop_the_port_are_recognised() {
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
    fn missing_and_failing_programs_are_distinguished() {
        assert_eq!(list("margay-no-such-program", &[]), None);
        assert_eq!(list("echo", &["rule"]), Some(Ok("rule\n".to_owned())));
        assert!(list("false", &[]).is_some_and(|listed| listed.is_err()));
    }
}
