//! Reloads: what a dry run says and what then happens, and reloads that undo themselves; policies. Two
//! instances on loopback addresses.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

#[path = "support/running.rs"]
mod running;

use running::{Running, spawn, text, wait};

/// Two speakers in 127.NET.0.0/16. The first originates some prefixes, and exports by its policy
/// `out`, which has these rules.
fn pair(folder: &TempDir, net: u8, rules: &str) -> (Running, Running) {
    let speaker = |own: u8, other: u8, export: &str| {
        format!(
            "[bgp]\nasn = 6451{own}\nrouter-id = \"10.0.0.{own}\"\n\
             listen = [\"127.{net}.0.{own}:1790\"]\nconnect-retry-time = 1\n\
             [[bgp.peers]]\nname = \"p{other}\"\naddress = \"127.{net}.0.{other}\"\nport = 1790\n\
             remote-asn = 6451{other}\nsource-address = \"127.{net}.0.{own}\"\nimport = \"all\"\n\
             export = \"{export}\"\n"
        )
    };
    let own = |n: u8| format!("[[originate]]\nprefix = \"10.{n}.0.0/16\"\nkind = \"none\"\n");
    let origins: String = (1..=20).map(own).collect();
    let a = Running::start(folder, "a", &(speaker(1, 2, "out") + &origins + &policy(rules)), None);
    let b = Running::start(folder, "b", &speaker(2, 1, "all"), None);
    wait("routes", || routes(&b, &[]) == 20);
    (a, b)
}

fn policy(rules: &str) -> String {
    // No address of 127.0.0.0/8 is a next hop.
    let reachable = "[[policy.rules]]\nset.next-hop = \"192.0.2.1\"\nthen = \"next\"\n";
    format!("[[policy]]\nname = \"out\"\ndefault = \"accept\"\n{reachable}# rules\n{rules}# end\n")
}

const NO_RULES: &str = "";
/// One of twenty is rejected, and two get a community.
const RULES: &str = "[[policy.rules]]\nname = \"not seven\"\n\
     match.prefixes = [\"10.7.0.0/16\"]\nthen = \"reject\"\n\
     [[policy.rules]]\nname = \"tag\"\nmatch.prefixes = [\"10.8.0.0/15 ge 16\"]\n\
     add-communities = [\"64512:7\"]\nthen = \"next\"\n";

/// Replaces the rules in the file of the first speaker.
fn write(folder: &TempDir, rules: &str) {
    let file = folder.path().join("a.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = before.split_once("# rules\n").unwrap();
    let (_, tail) = rest.split_once("# end\n").unwrap();
    std::fs::write(file, format!("{head}# rules\n{rules}# end\n{tail}")).unwrap();
}

/// How many prefixes a speaker has.
fn routes(of: &Running, selected: &[&str]) -> usize {
    let asked = [&["show", "routes"][..], selected, &["--count"]].concat();
    let said = text(&of.ask(&asked).stdout);
    said.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(usize::MAX)
}

fn json(of: &Running, arguments: &[&str]) -> Value {
    let answer = of.ask(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("{e}: {answer:?}"))
}

#[test]
fn a_dry_run_counts_the_routes_that_a_reload_then_changes() {
    let folder = TempDir::new().unwrap();
    let (a, b) = pair(&folder, 121, NO_RULES);
    write(&folder, RULES);
    let said = text(&a.ask(&["reload", "--dry-run"]).stdout);
    for line in [
        "routes to p2: 2 sent with other attributes, 1 withdrawn\n",
        "  - 10.7.0.0/16 rejected by export policy \"out\" rule 2 \"not seven\"\n",
        "  ~ 10.8.0.0/16 communities 64512:7;\n",
    ] {
        assert!(said.contains(line), "no {line}: {said}");
    }
    assert_eq!((routes(&b, &[]), routes(&b, &["--community", "64512:7"])), (20, 0));
    let dry = json(&a, &["reload", "--dry-run"]);
    let of_peer = &dry["routes"]["peers"][0];
    assert_eq!((&of_peer["peer"], &of_peer["withdrawn"]), (&"p2".into(), &1.into()), "{dry}");
    assert_eq!(dry["routes"]["changed_meanwhile"], false, "{dry}");
    assert!(a.ask(&["reload"]).status.success());
    wait("the new routes", || {
        (routes(&b, &[]), routes(&b, &["--community", "64512:7"])) == (19, 2)
    });
    assert_eq!(text(&a.ask(&["reload", "--dry-run"]).stdout).lines().count(), 2, "nothing differs");

    // Of the routes that a peer sent, and of a session that ends.
    let file = folder.path().join("b.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("import = \"all\"", "import = \"none\"")).unwrap();
    let said = text(&b.ask(&["reload", "--dry-run"]).stdout);
    assert!(said.contains("routes from p1: 19 rejected that were accepted\n"), "{said}");
    let many = good + "[[originate]]\nprefix = \"10.99.0.0/16\"\nkind = \"none\"\n";
    std::fs::write(&file, many).unwrap();
    let said = text(&b.ask(&["reload", "--dry-run", "--all"]).stdout);
    assert!(said.contains("routes to p1: 1 announced\n  + 10.99.0.0/16 "), "{said}");
    assert!(!a.ask(&["reload", "--all"]).status.success(), "--all is of a dry run");
}

#[test]
fn policies_are_counted_by_rule_and_tested_on_routes() {
    let folder = TempDir::new().unwrap();
    let (a, b) = pair(&folder, 124, NO_RULES);
    write(&folder, RULES);
    assert!(a.ask(&["reload"]).status.success());
    wait("the new routes", || routes(&b, &[]) == 19);
    let said = |arguments: &[&str]| text(&a.ask(arguments).stdout);
    let counted = said(&["show", "policy", "out"]);
    for line in [
        "policy out: export of p2\n",
        "    2          1          1  reject  not seven\n",
        "    3          2          0  next    tag\n",
        "other         19         19  accept\n",
    ] {
        assert!(counted.contains(line), "no {line}: {counted}");
    }
    let tagged = said(&["policy", "test", "out", "10.8.0.0/16", "--to", "p2"]);
    assert!(
        tagged.starts_with("10.8.0.0/16 to p2: accepted by policy \"out\" default\n"),
        "{tagged}"
    );
    let all = "  changes in all: next_hop 192.0.2.1; communities 64512:7;\n";
    assert!(tagged.ends_with(all), "{tagged}");
    let described = ["policy", "test", "out", "10.7.0.0/16", "--route", "--as-path", "65001 3356"];
    let rejected = said(&described);
    assert!(rejected.starts_with("10.7.0.0/16: rejected by policy \"out\" rule 2"), "{rejected}");
    let sent = said(&["explain", "10.8.0.0/16", "--peer", "p2"]);
    assert!(
        sent.contains("  sent        next_hop 192.0.2.1; origin igp; as_path 64511; "),
        "{sent}"
    );
    let unknown = a.ask(&["show", "policy", "ot"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[test]
fn an_unconfirmed_reload_is_undone_and_a_confirmed_one_stays() {
    let folder = TempDir::new().unwrap();
    let (a, b) = pair(&folder, 122, NO_RULES);
    let status = || text(&a.ask(&["show", "status"]).stdout);
    assert_eq!(a.ask(&["confirm"]).status.code(), Some(1), "there is nothing to confirm");
    write(&folder, "nonsense = 1\n");
    assert_eq!(a.ask(&["reload", "--confirm", "8"]).status.code(), Some(2));
    let refused = &json(&a, &["show", "status"])["reload_refused"]["text"];
    assert!(refused.as_str().is_some_and(|text| text.contains("nonsense")), "{refused}");
    assert!(text(&a.ask(&["events"]).stdout).contains("reload-refused"));

    write(&folder, RULES);
    let said = text(&a.ask(&["reload", "--confirm", "8"]).stdout);
    assert!(said.contains("undone in 8 s unless margay confirm comes first\n"), "{said}");
    wait("the new routes", || routes(&b, &[]) == 19);
    assert!(status().contains(" unless margay confirm comes first"), "{}", status());
    // A reload meanwhile does not confirm, and the file may hold anything by then.
    write(&folder, "nonsense = 1\n");
    assert_eq!(a.ask(&["reload"]).status.code(), Some(2));
    wait("the undo", || routes(&b, &[]) == 20);
    assert!(status().contains("last reload     undone at "), "{}", status());
    assert_eq!(a.ask(&["confirm"]).status.code(), Some(1), "too late");
    let events = text(&a.ask(&["events"]).stdout);
    for event in ["reload-unconfirmed", "reload-refused", "reload-undone"] {
        assert!(events.contains(event), "no {event}: {events}");
    }

    write(&folder, RULES);
    assert!(a.ask(&["reload", "--confirm", "1m"]).status.success());
    let said = text(&a.ask(&["confirm"]).stdout);
    assert_eq!(said, "the reload is confirmed: it stays\n");
    wait("the new routes", || routes(&b, &[]) == 19);
    assert!(json(&a, &["show", "status"])["reload_unconfirmed"].is_null());
    assert!(!folder.path().join("a.unconfirmed").exists());
}

/// What operators announce (`margay announce`) ends if a reload comes to originate it, and is back after
/// an undo, but for what would have ended since, and what was announced anew.
#[test]
fn an_undo_brings_announcements_back() {
    let folder = TempDir::new().unwrap();
    let (a, b) = pair(&folder, 126, NO_RULES);
    let announced = || {
        let all = json(&a, &["show", "announced"]);
        let prefixes = all.as_array().unwrap().iter().map(|one| one["prefix"].to_string());
        prefixes.collect::<Vec<_>>().join(" ")
    };
    let tagged = || routes(&b, &["--community", "64512:66"]);
    for arguments in [
        &["announce", "10.66.0.0/16", "--community", "64512:66"][..],
        &["announce", "10.67.0.0/16", "--for", "2s"],
        &["announce", "10.68.0.0/16"],
    ] {
        assert!(a.ask(arguments).status.success());
    }
    wait("the announced routes", || routes(&b, &[]) == 23 && tagged() == 1);

    let file = folder.path().join("a.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let own = |n: u8| format!("[[originate]]\nprefix = \"10.{n}.0.0/16\"\nkind = \"none\"\n");
    let more: String = [66, 67].map(own).concat();
    std::fs::write(&file, before.clone() + &more).unwrap();
    assert!(a.ask(&["reload", "--confirm", "3"]).status.success());
    assert_eq!(announced(), "\"10.68.0.0/16\"");
    wait("the originated route", || tagged() == 0);
    wait("the undo", || json(&a, &["show", "status"])["reload_unconfirmed"]["undone"] == true);
    assert_eq!(announced(), "\"10.66.0.0/16\" \"10.68.0.0/16\"");
    wait("the announced route", || tagged() == 1 && routes(&b, &[]) == 22);

    // One that was confirmed brings nothing back.
    assert!(a.ask(&["reload", "--confirm", "1m"]).status.success());
    assert!(a.ask(&["confirm"]).status.success());
    std::fs::write(&file, before).unwrap();
    assert!(a.ask(&["reload", "--confirm", "1"]).status.success());
    wait("the undo", || json(&a, &["show", "status"])["reload_unconfirmed"]["undone"] == true);
    assert_eq!(announced(), "\"10.68.0.0/16\"");
}

/// Ends a speaker as a crash would, and starts it again.
fn crash(folder: &TempDir, a: &mut Running) {
    a.child.kill().unwrap();
    a.child.wait().unwrap();
    a.child = spawn(&folder.path().join("a.toml"), None, Stdio::null());
    a.wait_for_socket();
}

#[test]
fn a_lost_secret_delays_an_undo_only_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    let peer = "[[bgp.peers]]\nname = \"p\"\naddress = \"127.125.0.2\"\npassive = true\n\
                remote-asn = 64512\nimport = \"all\"\nexport = \"all\"\npassword-file = \"key\"\n";
    let head = "[bgp]\nasn = 64511\nrouter-id = \"10.0.0.1\"\nlisten = [\"127.125.0.1:1790\"]\n";
    let mut a = Running::start(&folder, "a", &format!("{head}{peer}"), None);
    let file = folder.path().join("a.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let without = before.replace(peer, "");
    let peers = |a: &Running| text(&a.ask(&["show", "peers"]).stdout).contains("127.125.0.2");
    let reload = |a: &Running| json(a, &["show", "status"])["reload_unconfirmed"].clone();

    std::fs::write(&file, &without).unwrap();
    assert!(a.ask(&["reload", "--confirm", "1"]).status.success());
    std::fs::remove_file(&key).unwrap();
    wait("the undo", || reload(&a)["undone"] == true);
    assert!(peers(&a), "it is back, with the secret that it had");
    let status = text(&a.ask(&["show", "status"]).stdout);
    assert!(
        status.contains("the secret in ") && status.contains("/key stays as it was"),
        "{status}"
    );

    // Nothing of the secret is left: the file is in force, which the next run does not call undone.
    crash(&folder, &mut a);
    let left = reload(&a);
    assert!(left["undone"] == false && !peers(&a), "{left}");
    assert!(left["fault"].as_str().is_some_and(|fault| fault.contains("/key")), "{left}");
    let status = text(&a.ask(&["show", "status"]).stdout);
    assert!(status.contains(", cannot be undone: "), "{status}");
    std::fs::write(&key, "secret").unwrap();
    wait("the undo", || reload(&a)["undone"] == true);
    assert!(reload(&a)["fault"].is_null() && peers(&a));
}

#[test]
fn a_restart_does_not_confirm_a_reload() {
    let folder = TempDir::new().unwrap();
    let (mut a, b) = pair(&folder, 123, NO_RULES);
    write(&folder, RULES);
    assert!(a.ask(&["reload", "--confirm", "3"]).status.success());
    wait("the new routes", || routes(&b, &[]) == 19);
    crash(&folder, &mut a);
    wait("the undo", || json(&a, &["show", "status"])["reload_unconfirmed"]["undone"] == true);
    wait("the routes from before", || routes(&b, &[]) == 20);
    // The file still has what was undone: the next run does not apply it either, a reload does.
    crash(&folder, &mut a);
    assert_eq!(json(&a, &["show", "status"])["reload_unconfirmed"]["undone"], true);
    wait("the routes from before", || routes(&b, &[]) == 20);
    assert!(a.ask(&["reload"]).status.success());
    wait("the new routes", || routes(&b, &[]) == 19);
    assert!(json(&a, &["show", "status"])["reload_unconfirmed"].is_null());
}
