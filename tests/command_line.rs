//! The program as people, scripts and supervisors use it: two instances on loopback addresses that
//! do not write kernel routes.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[path = "support/running.rs"]
mod running;

use running::{PATIENCE, Running, margay, text, wait};

const PASSWORD: &str = "Tr0ub4dor-in-the-file";
const PASSWORD_FILE: &str = "Tr0ub4dor-in-a-file-of-its-own";
/// Two speakers in 127.N.0.0/16, and a peer that does not exist.
fn pair(folder: &TempDir, net: u8, log_level: Option<&str>) -> (Running, Running) {
    std::fs::write(folder.path().join("password"), PASSWORD_FILE).unwrap();
    let bgp = |own: u8| {
        format!(
            "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.{own}\"\nlisten = [\"127.{net}.0.{own}:1790\"]\n\
             connect-retry-time = 1\n"
        )
    };
    let peer = |name: &str, own: u8, address: u8, more: &str| {
        format!(
            "[[bgp.peers]]\nname = \"{name}\"\naddress = \"127.{net}.0.{address}\"\nport = 1790\n\
             remote-asn = 64512\nsource-address = \"127.{net}.0.{own}\"\n{more}"
        )
    };
    let by_text = format!("password = \"{PASSWORD}\"\n");
    let by_file = "password-file = \"password\"\n";
    let a = bgp(1) + &peer("second", 1, 2, &by_text) + &peer("nobody", 1, 9, by_file);
    let b = bgp(2) + &peer("first", 2, 1, &by_text);
    (Running::start(folder, "a", &a, log_level), Running::start(folder, "b", &b, None))
}

fn established(running: &Running, name: &str) -> bool {
    let peer = running.ask(&["show", "peer", name, "--json"]);
    text(&peer.stdout).contains("\"state\":\"Established\"")
}

#[test]
fn scripts_get_exit_codes_and_people_suggestions() {
    let folder = TempDir::new().unwrap();
    let (a, b) = pair(&folder, 101, None);
    wait("session", || established(&a, "second") && established(&b, "first"));

    assert_eq!(b.ask(&["show", "peers", "--fail-if-down"]).status.code(), Some(0));
    let down = a.ask(&["show", "peers", "--fail-if-down"]);
    assert_eq!(down.status.code(), Some(1));
    assert_eq!(text(&down.stderr), "margay: 1 of 2 peers are not established: nobody\n");
    let table = text(&down.stdout);
    assert!(
        table.starts_with("NAME ") && table.contains("second"),
        "the table is printed anyway: {table}"
    );
    assert!(!table.contains('\u{1b}') && !table.contains('…'), "pipes are not decorated: {table}");
    assert!(table.find("nobody") < table.find("second"), "by name: {table}");
    let fib = a.ask(&["show", "fib", "--fail-if-missing"]);
    assert_eq!(fib.status.code(), Some(0));
    let off = "margay: routes are not written to the kernel (fib.enabled = false)\n";
    assert_eq!(text(&fib.stderr), off, "an empty table alone would look like a fault");

    // Nobody is configured at 127.101.0.77.
    let stranger =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let at = |last: u8, port: u16| std::net::SocketAddr::from(([127, 101, 0, last], port));
    stranger.bind(&at(77, 0).into()).unwrap();
    stranger.connect(&at(1, 1790).into()).unwrap();
    let refused = "1 connection from 127.101.0.77, the last ";
    wait("refused connection", || text(&a.ask(&["show", "status"]).stdout).contains(refused));
    let shown = text(&a.ask(&["show", "peer", "second"]).stdout);
    assert!(shown.contains("last message    "), "{shown}");

    for (arguments, code, wanted) in [
        (
            &["show", "peer", "secund"][..],
            1,
            "there is no peer \"secund\"; did you mean \"second\"?",
        ),
        (&["show", "pears"], 2, "similar subcommands exist: 'peer', 'peers'"),
        (&["explain", "192.0.2.0/24"], 1, "there is no route to 192.0.2.0/24"),
        (&["explain", "192.0.2.1/24"], 2, "did you mean 192.0.2.0/24?"),
        (&["log-level", "dbug"], 1, "write error, warn, info, debug, trace"),
    ] {
        let answer = a.ask(arguments);
        assert_eq!(answer.status.code(), Some(code), "{arguments:?}");
        assert!(text(&answer.stderr).contains(wanted), "{arguments:?}: {answer:?}");
    }
    let nobody =
        margay().args(["show", "peers", "--socket"]).arg(folder.path().join("x")).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(text(&nobody.stderr).lines().count(), 1, "{nobody:?}");

    for command in ["reload", "log-level"] {
        let answer = a.ask(&[command, "--json"]);
        let _: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    }
    let check = |file: &str| {
        let mut command = margay();
        command
            .args(["check", "--json", "--config"])
            .arg(folder.path().join(file))
            .output()
            .unwrap()
    };
    let good: serde_json::Value = serde_json::from_slice(&check("a.toml").stdout).unwrap();
    assert_eq!((&good["valid"], good["faults"].as_array().unwrap().len()), (&true.into(), 0));
    let bad = check("none.toml");
    let faults: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!((bad.status.code(), &faults["valid"]), (Some(2), &false.into()));

    // A second instance, started by mistake.
    let second =
        margay().args(["run", "--config"]).arg(folder.path().join("a.toml")).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let line = format!(
        "margay: another process is listening on {}; stop it, or set another control.socket\n",
        a.socket.display()
    );
    assert_eq!(text(&second.stderr), line);
    assert!(established(&a, "second"), "the first keeps running");
}

#[test]
fn the_log_follows_its_level_and_keeps_secrets() {
    let folder = TempDir::new().unwrap();
    let (mut a, b) = pair(&folder, 102, Some("trace"));
    wait("session", || established(&a, "second") && established(&b, "first"));
    wait("reason", || a.log().contains("no session:"));

    let before = text(&a.ask(&["log-level"]).stdout);
    assert_eq!(before, "trace\n");
    let changed = text(&a.ask(&["log-level", "warn"]).stdout);
    assert_eq!(changed, "log level is warn, was trace\n");
    assert!(text(&a.ask(&["show", "status"]).stdout).contains("log level       warn\n"));
    // The level of b follows its file.
    let file = folder.path().join("b.toml");
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{old}[log]\nlevel = \"debug\"\n")).unwrap();
    assert_eq!(text(&b.ask(&["reload"]).stdout), "log level: changed\n");
    assert_eq!(text(&b.ask(&["log-level"]).stdout), "debug\n");

    let quiet = a.log();
    drop(b);
    wait("end of the session", || a.log().len() > quiet.len());
    let news = a.log()[quiet.len()..].to_owned();
    let about: Vec<&str> = news.lines().filter(|line| line.contains("session closed: ")).collect();
    assert_eq!(about.len(), 1, "one line with the reason: {news}");
    assert!(about[0].contains(" WARN ") && about[0].contains("peer=second"), "{news}");
    assert!(!news.contains(" DEBUG "), "{news}");

    for view in
        [&["show", "peers"][..], &["show", "peer", "second"], &["show", "status"], &["reload"]]
    {
        for more in [&[][..], &["--json"]] {
            let answer = a.ask(&[view, more].concat());
            let said = text(&answer.stdout) + &text(&answer.stderr);
            assert!(!said.contains(PASSWORD) && !said.contains(PASSWORD_FILE), "{view:?}: {said}");
        }
    }
    let check =
        margay().args(["check", "--config"]).arg(folder.path().join("a.toml")).output().unwrap();
    assert!(check.status.success() && !text(&check.stdout).contains(PASSWORD));
    a.child.kill().unwrap();
    let log = a.log();
    assert!(log.contains(" DEBUG "), "the level was trace: {log}");
    assert!(!log.contains(PASSWORD) && !log.contains(PASSWORD_FILE), "{log}");
}

#[test]
fn routes_are_sorted_selected_and_counted() {
    const ROUTES: usize = 1200;
    let folder = TempDir::new().unwrap();
    let net = 109;
    let speaker = |own: u8, other: u8, import: &str, more: &str| {
        format!(
            "[bgp]\nasn = 6451{own}\nrouter-id = \"10.0.0.{own}\"\n\
             listen = [\"127.{net}.0.{own}:1790\"]\nconnect-retry-time = 1\n{more}\
             [[bgp.peers]]\nname = \"p{other}\"\naddress = \"127.{net}.0.{other}\"\nport = 1790\n\
             remote-asn = 6451{other}\nsource-address = \"127.{net}.0.{own}\"\nimport = \"{import}\"\n\
             export = \"tagged\"\n[[policy]]\nname = \"tagged\"\n[[policy.rules]]\n\
             set.next-hop = \"192.0.2.1\"\nadd-communities = [\"no-export\", \"64512:7\"]\n\
             then = \"accept\"\n"
        )
    };
    let origin = |n: usize| {
        let (third, fourth) = (n * 7 % ROUTES / 250, n * 7 % ROUTES % 250);
        format!("[[originate]]\nprefix = \"10.1.{third}.{fourth}/32\"\nkind = \"none\"\n")
    };
    let origins: String = (0..ROUTES).map(origin).collect();
    let own = |prefix: &str| format!("[[originate]]\nprefix = \"{prefix}\"\nkind = \"none\"\n");
    let wide = own("10.1.0.0/16");
    let ipv6: String = ["2001:db8:2::/48", "::/0", "2001:db8:1::/48"].map(own).concat();
    let of_a = speaker(1, 2, "all", "") + &own("10.2.0.0/16");
    let a = Running::start(&folder, "a", &of_a, None);
    let of_b = speaker(2, 1, "none", "") + &origins + &wide + &ipv6;
    let b = Running::start(&folder, "b", &of_b, None);
    let count = |arguments: &[&str]| {
        let asked = [&["show", "routes"], arguments, &["--count"]].concat();
        text(&a.ask(&asked).stdout)
    };
    let all = format!("{} prefixes, {} paths\n", ROUTES + 1, ROUTES + 1);
    wait("routes", || count(&["--peer", "p2"]) == all);
    let prefix = |route: &serde_json::Value| route["prefix"].as_str().unwrap().to_owned();
    let prefixes = |arguments: &[&str]| -> Vec<String> {
        let answer = a.ask(&[arguments, &["--json"]].concat());
        let routes: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        routes.as_array().unwrap().iter().map(prefix).collect()
    };
    let sorted = |found: &[String]| {
        let key = |text: &String| {
            let (addr, len) = text.split_once('/').unwrap();
            (addr.parse::<std::net::IpAddr>().unwrap(), len.parse::<u8>().unwrap())
        };
        found.iter().map(key).collect::<Vec<_>>().is_sorted()
    };
    for (list, more) in
        [(&["show", "routes"][..], 2), (&["sh", "ro"], 2), (&["show", "received", "p2"], 1)]
    {
        let found = prefixes(list);
        assert_eq!((found.len(), sorted(&found)), (ROUTES + more, true), "{list:?}");
    }
    let of_b: serde_json::Value =
        serde_json::from_slice(&b.ask(&["show", "routes", "--json"]).stdout).unwrap();
    let of_b: Vec<String> = of_b.as_array().unwrap().iter().map(prefix).collect();
    assert_eq!((of_b.len(), sorted(&of_b)), (ROUTES + 4, true), "IPv6 is behind IPv4");
    let found = prefixes(&["show", "routes", "--limit", "501"]);
    assert_eq!((found.len(), sorted(&found), &*found[0]), (501, true, "10.1.0.0/16"));
    assert_eq!(prefixes(&["show", "routes", "10.1.1.0/24", "--longer"]).len(), 250);
    assert_eq!(prefixes(&["show", "routes", "10.1.200.9"]), ["10.1.0.0/16"], "the longest match");
    assert_eq!(prefixes(&["show", "routes", "10.1.200.9/32"]), [""; 0]);
    assert_eq!(prefixes(&["show", "received", "p2", "10.1.0.7/32"]), ["10.1.0.7/32"]);
    let none = "0 prefixes, 0 paths\n";
    for (arguments, expected) in [
        (&["--community", "no-export"][..], &*all),
        (&["--community", "64512:7", "--peer", "p2"], &all),
        (&["--community", "64512:8"], none),
        (&["--as-path", "64512"], &all),
        (&["--as-path", "64512 ? *"], none),
        (&["--source", "static"], "1 prefix, 1 path\n"),
        (&["--source", "static", "--peer", "p2"], none),
    ] {
        assert_eq!(count(arguments), expected, "{arguments:?}");
    }
    // The route from p1 is refused by import, and all others are the own ones.
    for (source, expected) in [("bgp", "1 prefix, 1 path\n"), ("static", none)] {
        let unusable = || {
            text(&b.ask(&["show", "routes", "--unusable", "--source", source, "--count"]).stdout)
        };
        wait("refused route", || unusable() == expected);
    }
    let advertised = b.ask(&["show", "advertised", "p1", "10.1.1.0/24", "--longer", "--count"]);
    assert_eq!(text(&advertised.stdout), "250 prefixes, 250 paths\n");
    let hops = text(&a.ask(&["show", "nexthops"]).stdout);
    assert!(hops.contains(&format!(" {}  ", ROUTES + 1)), "{hops}");
    let shown = text(&a.ask(&["show", "routes", "10.1.0.7/32"]).stdout);
    assert!(shown.contains("64512:7 no-export"), "{shown}");
    let wrong = a.ask(&["show", "routes", "--peer", "p3"]);
    assert!(text(&wrong.stderr).contains("there is no peer"), "{wrong:?}");
    let wrong = a.ask(&["show", "routes", "--as-path", "x"]);
    assert_eq!(wrong.status.code(), Some(2));
}

/// Lines of `margay events --follow --json`, as they are printed.
fn follow(running: &Running, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = margay();
    command.args(["events", "--follow", "--json"]).args(arguments);
    command.arg("--socket").arg(&running.socket).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

#[test]
fn events_are_kept_followed_and_shown_with_their_peer() {
    let folder = TempDir::new().unwrap();
    let (a, mut b) = pair(&folder, 108, Some("error"));
    wait("session", || established(&a, "second") && established(&b, "first"));
    let (mut child, mut lines) = follow(&a, &["--peer", "second", "--last", "1"]);
    let mut next = || -> serde_json::Value {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let up = next();
    assert_eq!((&up["event"], &up["level"]), (&"session-up".into(), &"INFO".into()), "{up}");
    assert_eq!(up["peer"], "second");
    assert!(b.ask(&["stop", "--shutdown", "--message", "disk"]).status.success());
    let _ = b.child.wait();
    let down = next();
    assert_eq!(
        (&down["event"], &down["level"]),
        (&"session-down".into(), &"INFO".into()),
        "{down}"
    );
    assert!(down["reason"].as_str().unwrap().contains("disk"), "{down}");
    assert_eq!(down["fields"]["direction"], "received");
    child.kill().unwrap();
    child.wait().unwrap();

    // The level is error: the log says nothing, the events do.
    assert!(!a.log().contains("session closed"), "{}", a.log());
    let all = || text(&a.ask(&["events"]).stdout);
    wait("failed attempt", || all().contains("session-failed"));
    let all = all();
    for wanted in ["started", "session-up", "session-down", "session-failed", "second: "] {
        assert!(all.contains(wanted), "no {wanted}: {all}");
    }
    let of_peer = text(&a.ask(&["show", "peer", "second"]).stdout);
    assert!(of_peer.contains("session-down: session closed: "), "{of_peer}");
    let json = a.ask(&["show", "peer", "second", "--json"]);
    let peer: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(peer["events"].as_array().unwrap().len() >= 2, "{peer}");
    let list = a.ask(&["events", "--last", "2", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let typo = a.ask(&["events", "--peer", "secund"]);
    assert_eq!(typo.status.code(), Some(1));
    assert!(text(&typo.stderr).contains("did you mean \"second\"?"), "{typo:?}");

    // A dry run says what would happen, and nothing happens.
    let file = folder.path().join("a.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let other = good
        .replace("remote-asn = 64512", "remote-asn = 64513\nimport = \"all\"\nexport = \"all\"");
    std::fs::write(&file, other).unwrap();
    let dry = text(&a.ask(&["reload", "--dry-run"]).stdout);
    assert!(dry.contains("peer nobody: session parameters changed, session restarts ("), "{dry}");
    assert!(dry.contains("remote-asn 64512 → 64513"), "{dry}");
    assert!(dry.contains("session second restarts: "), "{dry}");
    assert!(dry.ends_with("dry run: nothing was changed\n"), "{dry}");
    std::fs::write(&file, &good).unwrap();
    assert_eq!(text(&a.ask(&["reload"]).stdout), "nothing changed\n");
    let config = text(&a.ask(&["show", "config"]).stdout);
    for line in
        ["connect-retry-time = 1\n", "hold-time = 90  # default\n", "# password: (hidden)\n"]
    {
        assert!(config.contains(line), "no {line}: {config}");
    }
    assert!(!config.contains(PASSWORD) && !config.contains(PASSWORD_FILE), "{config}");

    // A refused reload is shown until one succeeds.
    std::fs::write(&file, format!("{good}nonsense = 1\n")).unwrap();
    assert_eq!(a.ask(&["reload"]).status.code(), Some(2));
    let status = || text(&a.ask(&["show", "status"]).stdout);
    assert!(status().contains("last reload     refused at "), "{}", status());
    assert!(text(&a.ask(&["events"]).stdout).contains("reload-refused"));
    std::fs::write(&file, good).unwrap();
    assert!(a.ask(&["reload"]).status.success());
    assert!(!status().contains("last reload"), "{}", status());
}

/// Unknown addresses connect, and a peer that never gets beyond TCP connects again and again.
#[test]
fn a_flood_of_connections_is_a_few_lines() {
    let folder = TempDir::new().unwrap();
    let net = 103;
    let text_of = format!(
        "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = [\"127.{net}.0.1:1790\"]\n\
         [[bgp.peers]]\nname = \"evil\"\naddress = \"127.0.0.1\"\nremote-asn = 64512\npassive = true\n"
    );
    let a = Running::start(&folder, "a", &text_of, None);
    let began = a.log().lines().count();
    for n in 0..1_500u32 {
        // Not a BGP message, and a different failure each time.
        let Ok(mut stream) = TcpStream::connect(format!("127.{net}.0.1:1790")) else { continue };
        let _ = stream.write_all(&n.to_be_bytes().repeat(8));
    }
    wait("failure", || a.log().contains("peer=evil"));
    let status = a.ask(&["show", "status"]);
    assert!(status.status.success(), "{status:?}");
    let lines = a.log().lines().count() - began;
    assert!(lines <= 40, "{lines} lines: {}", a.log());
}

/// A dry run names the sessions of dynamic peers that would end, and ends none.
#[test]
fn a_dry_run_names_dynamic_peers_that_would_end() {
    let folder = TempDir::new().unwrap();
    let base = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = [\"127.104.0.1:1790\"]\n";
    let range = "[[bgp.dynamic-peers]]\nprefix = \"127.0.0.0/24\"\nremote-asn = 64512\n";
    let a = Running::start(&folder, "a", &format!("{base}{range}"), None);
    let _stream = TcpStream::connect("127.104.0.1:1790").unwrap();
    let peers = || text(&a.ask(&["show", "peers"]).stdout);
    wait("dynamic peer", || peers().contains("127.0.0.1"));
    let file = folder.path().join("a.toml");
    let dry = |other: &str| {
        std::fs::write(&file, other).unwrap();
        text(&a.ask(&["reload", "--dry-run"]).stdout)
    };
    let ends = |answer: &str| {
        let is_it = |line: &&str| line.starts_with("session ") && line.contains("127.0.0.1");
        answer.lines().filter(is_it).filter(|line| line.contains(" ends: OpenSent")).count()
    };
    let configured = "[[bgp.peers]]\nname = \"own\"\naddress = \"127.0.0.1\"\nremote-asn = 64512\n";
    for (other, ended) in [
        (format!("{base}{range}"), 0),
        (format!("{base}{range}peers-max = 7\n"), 0),
        (base.to_owned(), 1),
        (format!("{base}{range}password = \"x\"\n"), 1),
        (format!("{base}{range}{configured}"), 1),
    ] {
        let answer = dry(&other);
        assert_eq!(ends(&answer), ended, "{other}: {answer}");
    }
    assert!(peers().contains("127.0.0.1"), "{}", peers());

    // Who follows the events of a peer sees those of its next session, after it was removed.
    let (mut child, mut lines) = follow(&a, &["--peer", "127.0.0.1", "--last", "0"]);
    std::fs::write(&file, base).unwrap();
    assert!(a.ask(&["reload"]).status.success());
    wait("removal", || !peers().contains("127.0.0.1"));
    assert!(a.ask(&["log-level", "debug"]).status.success());
    std::fs::write(&file, format!("{base}{range}")).unwrap();
    assert!(a.ask(&["reload"]).status.success());
    let mut stream = TcpStream::connect("127.104.0.1:1790").unwrap();
    stream.write_all(&[0; 19]).unwrap();
    let mut line = String::new();
    while !line.contains("session-failed") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the stream ended");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// On a terminal, Ctrl-C is for the pager; a refused request and a command with a condition open
/// none.
#[test]
fn the_pager_outlives_an_interrupt_and_is_opened_only_for_output() {
    let folder = TempDir::new().unwrap();
    let text_of = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = [\"127.105.0.1:1790\"]\n";
    let a = Running::start(&folder, "a", text_of, None);
    let pager = folder.path().join("pager");
    std::fs::write(&pager, "kill -INT $PPID\ncat\necho \"end: $LESS $LESSSECURE\"\n").unwrap();
    let on_terminal = |arguments: &str| {
        let margay = env!("CARGO_BIN_EXE_margay");
        let line = format!("{margay} {arguments} --socket {}", a.socket.display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("LESS");
        command.env("PAGER", format!("sh {}", pager.display())).env_remove("SUDO_UID");
        command.stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    let (code, shown) = on_terminal("show config");
    assert!(code == Some(0) && shown.contains("router-id = \"10.0.0.1\""), "{code:?} {shown}");
    assert!(shown.contains("end: FRX 1"), "{shown}");
    let (code, shown) = on_terminal("show peers --fail-if-down");
    assert!(code == Some(0) && !shown.contains("end:"), "{code:?} {shown}");
    let (code, shown) = on_terminal("show peer nobody");
    assert!(code == Some(1) && !shown.contains("end:"), "{code:?} {shown}");
    let missing = a.ask(&["show", "fib", "192.0.2.0/24", "--fail-if-missing"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
}

/// An OPEN of AS 64512 with a hold time of three seconds, and a KEEPALIVE.
const OPEN: [u8; 29] = {
    let mut octets = [0xff; 29];
    let fields = [0, 29, 1, 4, 0xfc, 0x00, 0, 3, 10, 0, 0, 9, 0];
    let mut at = 0;
    while at < fields.len() {
        octets[16 + at] = fields[at];
        at += 1;
    }
    octets
};
const KEEPALIVE: [u8; 19] =
    [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 19, 4];

/// A neighbour that connects, as soon as margay listens, and sends only what the test writes.
fn connect(to: &str) -> TcpStream {
    let mut connected = None;
    wait("a listening socket", || {
        connected = TcpStream::connect(to).ok();
        connected.is_some()
    });
    let stream = connected.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads a whole message and returns its type and body.
fn message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 19];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
    stream.read_exact(&mut body).unwrap();
    (header[18], body)
}

/// A passive peer has no timer once its connection is gone: its task must sleep, and still accept
/// the next connection.
#[test]
fn a_passive_peer_that_fell_silent_is_served_again() {
    let folder = TempDir::new().unwrap();
    let to = "127.104.0.1:1790";
    let text_of = format!(
        "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = [\"{to}\"]\n\
         [[bgp.peers]]\naddress = \"127.0.0.1\"\nremote-asn = 64512\npassive = true\n"
    );
    let _a = Running::start(&folder, "a", &text_of, None);
    let mut silent = connect(to);
    silent.write_all(&OPEN).unwrap();
    let mut received = Vec::new();
    silent.read_to_end(&mut received).unwrap();
    assert!(received.ends_with(&[0, 21, 3, 4, 0]), "the hold timer: {received:?}");
    drop(silent);

    let mut again = connect(to);
    again.write_all(&OPEN).unwrap();
    assert_eq!(message(&mut again).0, 1, "an OPEN");
}

/// However often a neighbour violates the protocol, its next connection is accepted, after a delay
/// at most.
#[test]
fn a_neighbour_that_always_breaks_the_protocol_is_answered_each_time() {
    let folder = TempDir::new().unwrap();
    let to = "127.106.0.1:1790";
    let text_of = format!(
        "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = [\"{to}\"]\nconnect-retry-time = 1\n\
         [[bgp.peers]]\naddress = \"127.0.0.1\"\nremote-asn = 64512\npassive = true\n"
    );
    let a = Running::start(&folder, "a", &text_of, None);
    let mut delays = Vec::new();
    for fault in 1..=9 {
        let began = Instant::now();
        let mut stream = connect(to);
        stream.write_all(&[&OPEN[..], &OPEN].concat()).unwrap();
        assert_eq!(message(&mut stream).0, 1, "an OPEN, fault {fault}");
        delays.push(began.elapsed());
        let answer = std::iter::from_fn(|| Some(message(&mut stream))).find(|(kind, _)| *kind == 3);
        assert_eq!(answer, Some((3, vec![5, 2, 1])), "fault {fault}");
    }
    let slow = delays.iter().filter(|delay| **delay > Duration::from_millis(500)).count();
    assert!((2..=4).contains(&slow), "connections are damped: {delays:?}");
    assert!(!established(&a, "127.0.0.1"));
}

/// The neighbour has not closed its side when the reload returns.
#[test]
fn a_removed_peer_is_gone_when_reload_returns() {
    let folder = TempDir::new().unwrap();
    let to = "127.105.0.1:1790";
    let process = format!("[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = [\"{to}\"]\n");
    let peer = "[[bgp.peers]]\nname = \"n\"\naddress = \"127.0.0.1\"\nremote-asn = 64512\npassive = true\n";
    let a = Running::start(&folder, "a", &format!("{process}{peer}"), None);
    let mut stream = connect(to);
    stream.write_all(&[&OPEN[..], &KEEPALIVE].concat()).unwrap();
    wait("session", || established(&a, "n"));

    let file = folder.path().join("a.toml");
    let with_peer = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, with_peer.replace(peer, "")).unwrap();
    assert_eq!(text(&a.ask(&["reload"]).stdout), "peer n: removed\n");
    let peers = a.ask(&["show", "peers", "--json"]);
    let peers: Vec<serde_json::Value> = serde_json::from_slice(&peers.stdout).unwrap();
    assert!(peers.is_empty(), "{peers:?}");
    for name in ["n", "127.0.0.1"] {
        assert_eq!(a.ask(&["show", "peer", name]).status.code(), Some(1), "{name}");
    }
    let cease = std::iter::from_fn(|| Some(message(&mut stream))).find(|(kind, _)| *kind == 3);
    assert_eq!(cease, Some((3, vec![6, 3])), "Peer De-configured");
}

/// The control socket answers an unknown request, and a client that sends nothing.
#[test]
fn the_control_socket_suggests_what_was_meant() {
    let folder = TempDir::new().unwrap();
    let text = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = []\n";
    let a = Running::start(&folder, "a", text, None);
    let stream = UnixStream::connect(&a.socket).unwrap();
    let _silent = UnixStream::connect(&a.socket).unwrap();
    (&stream).write_all(b"{\"request\":\"show-peer\xff\n{\"request\":\"show-pears\"}\n").unwrap();
    let lines: Vec<String> = BufReader::new(&stream).lines().take(2).map(Result::unwrap).collect();
    assert!(lines[0].contains("bad-request"), "{lines:?}");
    assert!(lines[1].contains("did you mean \\\"show-peers\\\"?"), "{lines:?}");
}

#[test]
fn the_version_is_short_or_says_which_build_it_is() {
    let printed = |arguments: &[&str]| text(&margay().args(arguments).output().unwrap().stdout);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(printed(&["-V"]), format!("margay {version}\n"));
    let long = printed(&["--version"]);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], format!("margay {version}"), "{long}");
    let commit = lines[1].strip_prefix("commit ").unwrap();
    let digits = commit.trim_end_matches("-modified");
    let is_commit = digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(is_commit || commit == "unknown (not built in a git work tree)", "{long}");
    assert!(lines[2].starts_with("target ") && lines[2].contains("-linux-"), "{long}");
    let day = lines[3].strip_prefix("date   ").unwrap();
    assert!(day.len() == "2026-11-29".len() && day.starts_with("20") || day == "unknown", "{long}");
}

#[test]
fn completions_are_scripts_that_shells_accept() {
    for shell in ["bash", "zsh", "fish"] {
        let script = margay().args(["completions", shell]).output().unwrap();
        assert!(script.status.success() && text(&script.stdout).contains("explain"), "{shell}");
        let Ok(mut syntax) =
            Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()
        else {
            println!("{shell} is not installed: its script is not parsed");
            continue;
        };
        syntax.stdin.take().unwrap().write_all(&script.stdout).unwrap();
        let checked = syntax.wait_with_output().unwrap();
        assert!(checked.status.success(), "{shell}: {checked:?}");
    }
}

/// bash completes the names of peers from the running daemon.
#[test]
fn names_are_completed_from_the_daemon() {
    let folder = TempDir::new().unwrap();
    let (a, _b) = pair(&folder, 123, None);
    let script = folder.path().join("completion");
    std::fs::write(&script, margay().args(["completions", "bash"]).output().unwrap().stdout)
        .unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_margay")).parent().unwrap();
    let completed = |line: &str| {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let (current, last) = (words.len() - 1, words.last().unwrap());
        let command = format!(
            "PATH={}:$PATH; . {}; COMP_WORDS=({}); COMP_CWORD={current}; \
             _margay_and_names margay {last} ''; echo \"${{COMPREPLY[@]}}\"",
            program.display(),
            script.display(),
            words.join(" ")
        );
        let mut bash = Command::new("bash");
        bash.args(["-c", &command]).env("MARGAY_SOCKET", &a.socket);
        text(&bash.output().unwrap().stdout)
    };
    assert_eq!(completed("margay show peer "), "nobody second\n");
    assert_eq!(completed("margay show routes --peer s"), "second\n");
    assert!(completed("margay show pee").contains("peers"), "words of the command line too");
}

/// Called by the name of one of BIRD's programs, margay acts as that program.
#[test]
fn links_with_birds_names_are_birds_programs() {
    let folder = TempDir::new().unwrap();
    let text_of = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nlisten = []\n";
    let a = Running::start(&folder, "a", text_of, None);
    let link = |name: &str| {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_margay"), &path).unwrap();
        path
    };
    let birdcl = |socket: &Path, command: &str| {
        let mut client = Command::new(folder.path().join("birdcl"));
        client.arg("-s").arg(socket).args(command.split(' ')).output().unwrap()
    };
    link("birdcl");
    let status = birdcl(&folder.path().join("a.ctl"), "show status");
    assert!(status.status.success());
    let said = text(&status.stdout);
    assert!(said.starts_with("BIRD v0.3.3+birdv1.6.8 ready.\nBIRD v"), "{said}");
    assert!(said.ends_with("Daemon is up and running\n"), "{said}");
    let unknown = birdcl(&folder.path().join("a6.ctl"), "show nonsense");
    assert!(text(&unknown.stdout).ends_with("syntax error\n"), "{unknown:?}");
    assert_eq!(unknown.status.code(), Some(1));
    let nowhere = birdcl(&folder.path().join("none.ctl"), "show status");
    assert!(!nowhere.status.success() && nowhere.stdout.is_empty());
    drop(a);

    let mut waits = Command::new(link("bird6")).arg("-R").stdin(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let state = waits.try_wait().unwrap();
    let name = std::fs::read(format!("/proc/{}/cmdline", waits.id())).unwrap();
    waits.kill().unwrap();
    waits.wait().unwrap();
    assert!(state.is_none(), "it ended: {state:?}");
    assert!(name.starts_with(folder.path().join("bird6").to_str().unwrap().as_bytes()));
}

/// On a machine that is not a Calico node: each part that cannot be checked has a line, and BIRD's
/// sockets are checked at the configured paths.
#[test]
fn the_doctor_checks_what_it_can_see() {
    let folder = TempDir::new().unwrap();
    let bird = |name: &str| folder.path().join(name);
    let objects = bird("objects.yaml");
    std::fs::write(
        &objects,
        "kind: Node\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\nspec: {}\n",
    )
    .unwrap();
    let file = bird("margay.toml");
    let configuration = format!(
        "[calico]\nnode = \"a\"\ndatastore = \"file\"\npath = {objects:?}\nversion = \"v3.32.1\"\n\
         bird-sockets = [{:?}, {:?}]\n",
        bird("none.ctl"),
        bird("none6.ctl"),
    );
    std::fs::write(&file, configuration).unwrap();
    let doctor = |arguments: &[&str]| {
        let mut command = margay();
        for variable in ["NODENAME", "DATASTORE_TYPE", "ETCD_ENDPOINTS", "KUBERNETES_SERVICE_HOST"]
        {
            command.env_remove(variable);
        }
        command.args(["calico", "doctor"]).args(arguments).output().unwrap()
    };
    let config = file.to_str().unwrap();
    let without_sessions = doctor(&["--config", config]);
    let said = text(&without_sessions.stdout);
    assert!(said.starts_with("node a, Calico v3.32.1 (as given)\n"), "{said}");
    assert!(said.contains("none.ctl") && said.contains("the node has no ipv4 sessions"), "{said}");

    let ghost = doctor(&["--config", config, "--node", "ghost", "--json"]);
    assert_eq!(ghost.status.code(), Some(2), "{ghost:?}");
    let report: serde_json::Value = serde_json::from_slice(&ghost.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["node"]), (&"unsafe".into(), &"ghost".into()));
    let findings = report["findings"].as_array().unwrap();
    let is_said = |finding: &&serde_json::Value| {
        finding["severity"] == "unsafe"
            && finding["text"].as_str().unwrap().contains("Node/ghost")
            && finding["remedy"].as_str().unwrap().contains("--node")
    };
    assert!(findings.iter().any(|finding| is_said(&finding)), "{report}");

    let unset = doctor(&["--config", "/nonexistent.toml"]);
    assert_eq!(unset.status.code(), Some(2));
    assert!(
        text(&unset.stdout).contains("unsafe datastore settings: /nonexistent.toml"),
        "{unset:?}"
    );
}
