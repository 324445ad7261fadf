//! MRT files of a running margay, beside another one: dumps, and what is recorded.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::path::{Path, PathBuf};
use std::process::Command;

use bgp_proto::mrt::Record;
use bgp_proto::types::Asn;
use tempfile::TempDir;

#[path = "support/running.rs"]
mod running;

use running::{Running, margay, text, wait};

/// Routes that the other one announces.
const ROUTES: usize = 300;

fn speaker(own: u8, other: u8, more: &str) -> String {
    format!(
        "[bgp]\nasn = 6451{own}\nrouter-id = \"10.0.0.{own}\"\nlisten = [\"127.117.0.{own}:1790\"]\n\
         connect-retry-time = 1\n\
         [[bgp.peers]]\nname = \"p{other}\"\naddress = \"127.117.0.{other}\"\nport = 1790\n\
         remote-asn = 6451{other}\nsource-address = \"127.117.0.{own}\"\nimport = \"all\"\n\
         export = \"elsewhere\"\n[[policy]]\nname = \"elsewhere\"\n[[policy.rules]]\n\
         set.next-hop = \"192.0.2.1\"\nthen = \"accept\"\n{more}"
    )
}

fn origins() -> String {
    let own = |prefix: &str| format!("[[originate]]\nprefix = \"{prefix}\"\nkind = \"none\"\n");
    let many = (0..ROUTES - 2).map(|n| own(&format!("10.1.{}.{}/32", n / 250, n % 250)));
    many.collect::<String>() + &own("0.0.0.0/0") + &own("10.0.0.0/8")
}

fn mrt(folder: &Path, more: &str) -> String {
    format!("[mrt]\ndirectory = \"{}\"\n{more}", folder.display())
}

fn complete(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_complete = |path: &PathBuf| path.extension().is_none_or(|end| end != "part");
    let mut found: Vec<_> = entries.filter(is_complete).collect();
    found.sort();
    found
}

fn from_file(file: &Path, more: &[&str]) -> String {
    let mut command: Command = margay();
    let output = command.args(["show", "routes", "--from"]).arg(file).args(more).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Prefixes with what a file has of their paths.
fn comparable(json: &str) -> Vec<serde_json::Value> {
    let routes: serde_json::Value = serde_json::from_str(json).unwrap();
    let keys = ["path_id", "next_hop", "origin", "as_path", "local_pref", "med", "communities"];
    let of = |route: &serde_json::Value| {
        let paths = route["paths"].as_array().unwrap();
        let path = |path: &serde_json::Value| keys.map(|key| path[key].clone());
        serde_json::json!([route["prefix"], paths.iter().map(path).collect::<Vec<_>>()])
    };
    routes.as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_dump_is_read_without_a_daemon_and_messages_are_recorded() {
    let folder = TempDir::new().unwrap();
    let files = folder.path().join("mrt");
    std::fs::create_dir(&files).unwrap();
    let own = "[[originate]]\nprefix = \"2001:db8::/32\"\nkind = \"none\"\n";
    let of_a = speaker(1, 2, own) + &mrt(&files, "updates = [\"p2\"]\n");
    let a = Running::start(&folder, "a", &of_a, None);
    let b = Running::start(&folder, "b", &speaker(2, 1, &origins()), None);
    let all = format!("{0} prefixes, {0} paths\n", ROUTES + 1);
    wait("routes", || text(&a.ask(&["show", "routes", "--count"]).stdout) == all);

    let shown = text(&a.ask(&["show", "routes", "--json"]).stdout);
    for name in ["table.mrt", "table.mrt.gz"] {
        let file = folder.path().join(name);
        let mut arguments = vec!["dump", "--output", file.to_str().unwrap()];
        arguments.extend(name.ends_with("gz").then_some("--gzip"));
        let dumped = a.ask(&arguments);
        let wanted = format!("margay: {0} paths to {0} prefixes\n", ROUTES + 1);
        assert_eq!(text(&dumped.stderr), wanted);
        assert_eq!(comparable(&from_file(&file, &["--json"])), comparable(&shown));
        assert_eq!(from_file(&file, &["--count"]), all);
        let one = from_file(&file, &["10.1.0.9", "--json"]);
        assert_eq!(
            comparable(&one),
            comparable(&text(&a.ask(&["show", "routes", "10.1.0.9", "--json"]).stdout))
        );
        let longer = from_file(&file, &["10.1.1.0/24", "--longer", "--count"]);
        assert_eq!(longer, format!("{0} prefixes, {0} paths\n", ROUTES - 2 - 250));
        assert_eq!(
            from_file(&file, &["--as-path", "64512", "--peer", "127.117.0.2", "--count"]),
            format!("{ROUTES} prefixes, {ROUTES} paths\n")
        );
    }
    let out = a.ask(&["dump", "--family", "ipv6"]).stdout;
    let (index, rest) = Record::split(&out).unwrap().unwrap();
    let Record::PeerIndex(index) = index else { panic!("{index:?}") };
    assert_eq!(
        index.peers.iter().map(|peer| peer.asn).collect::<Vec<_>>(),
        [64511, 64512].map(Asn)
    );
    assert!(matches!(Record::split(rest), Ok(Some((Record::Rib(_), [])))));

    assert!(complete(&files).is_empty(), "a file has its name before it is complete");
    let toml = folder.path().join("a.toml");
    let without = std::fs::read_to_string(&toml).unwrap().replace("updates = [\"p2\"]", "");
    std::fs::write(&toml, without).unwrap();
    let told = text(&a.ask(&["reload"]).stdout);
    assert!(told.contains("MRT files: changed"), "{told}");
    wait("the file", || complete(&files).len() == 1);
    check_messages(&complete(&files)[0]);
    drop((a, b));
}

/// What the other one has sent, and the states of the session.
fn check_messages(file: &Path) {
    let octets = std::fs::read(file).unwrap();
    let (mut rest, mut kinds, mut states) = (octets.as_slice(), [0; 6], Vec::new());
    while let Some((record, after)) = Record::split(rest).unwrap() {
        rest = after;
        match record {
            Record::Message(message) => {
                let session = message.session;
                assert_eq!((session.peer_asn, session.local_asn), (Asn(64512), Asn(64511)));
                assert_eq!(session.peer.to_string(), "127.117.0.2");
                assert_eq!(session.local.to_string(), "127.117.0.1");
                assert!(message.has_as4 && !message.has_path_ids && !message.is_local);
                kinds[usize::from(message.message[18])] += 1;
            }
            Record::StateChange(change) => states.push(change.new),
            other => panic!("{other:?}"),
        }
    }
    assert!(rest.is_empty(), "the file ends within a record");
    let [_, open, update, notification, keepalive, _] = kinds;
    assert!(open >= 1 && keepalive >= 1 && update >= 1 && notification == 0, "{kinds:?}");
    assert_eq!(states.last(), Some(&6), "{states:?}");
}

#[test]
fn what_cannot_be_read_or_written_is_said() {
    let folder = TempDir::new().unwrap();
    let cut = folder.path().join("cut.mrt");
    std::fs::write(&cut, [0, 0, 0, 0, 0, 13, 0, 1, 0, 0, 0, 9]).unwrap();
    let missing = folder.path().join("missing");
    for (file, wanted) in [
        (&cut, "it ends within record 1"),
        (&missing, "No such file or directory"),
        (
            &PathBuf::from("/dev/null"),
            "it has neither a dump of a table (TABLE_DUMP_V2) nor messages (BGP4MP); 0 other records",
        ),
    ] {
        let output = margay().args(["show", "routes", "--from"]).arg(file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(wanted), "{}", text(&output.stderr));
    }
    let a = Running::start(&folder, "a", &speaker(3, 4, &mrt(&missing, "updates = true\n")), None);
    let full = a.ask(&["dump", "--output", "/dev/full"]);
    assert_eq!(full.status.code(), Some(1));
    assert!(text(&full.stderr).contains("No space left on device"), "{}", text(&full.stderr));
    let no_folder = a.ask(&["dump", "--output", missing.join("x").to_str().unwrap()]);
    assert!(text(&no_folder.stderr).contains("nothing is left of the dump"));
    let no_vrf = a.ask(&["dump", "--vrf", "blue"]);
    assert!(text(&no_vrf.stderr).contains("no VRF blue is configured"));
    // The folder for recorded messages does not exist.
    wait("the problem", || {
        text(&a.ask(&["show", "status"]).stdout).contains("MRT files of messages in")
    });
}
