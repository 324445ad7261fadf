use bgp_proto::types::Prefix;
use clap::CommandFactory as _;

use super::*;
use crate::ctl::{Lookup, RouteSelection, Span};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn asks(line: &str) -> (Request, Output) {
    match parse(line).unwrap().command {
        Command::Show(Shown { what, output }) => {
            let (request, demand) = what.into_request();
            assert_eq!(demand, Demand::Nothing, "{line}");
            (request, output)
        }
        other => panic!("{other:?}"),
    }
}

fn all() -> RouteSelection {
    RouteSelection::default()
}

#[test]
fn the_clap_definitions_are_valid() {
    Cli::command().debug_assert();
}

#[test]
fn each_view_is_parsed_into_its_request() {
    let prefix: Prefix = "10.0.0.0/8".parse().unwrap();
    for (line, request) in [
        ("margay show status", Request::ShowStatus),
        ("margay show peers", Request::ShowPeers),
        ("margay show peer tor-1", Request::ShowPeer { name: "tor-1".into() }),
        ("margay show routes", Request::ShowRoutes { prefix: None, select: all() }),
        (
            "margay show routes 10.0.0.0/8",
            Request::ShowRoutes { prefix: Some(prefix), select: all() },
        ),
        ("margay show received a", Request::ShowReceived { peer: "a".into(), select: all() }),
        ("margay show advertised a", Request::ShowAdvertised { peer: "a".into(), select: all() }),
        ("margay show fib", Request::ShowFib { select: all() }),
        ("margay show groups", Request::ShowGroups),
        ("margay show nexthops", Request::ShowNexthops { vrf: None }),
        ("margay show next-hops --vrf blue", Request::ShowNexthops { vrf: Some("blue".into()) }),
        ("margay show bfd", Request::ShowBfd),
        ("margay show bmp", Request::ShowBmp),
        ("margay show key-chains", Request::ShowKeyChains),
        ("margay show drain", Request::ShowDrain),
    ] {
        let (asked, output) = asks(line);
        assert_eq!(asked, request);
        assert!(!output.json);
        let (asked, output) = asks(&format!("{line} --json --socket /s"));
        assert_eq!(asked, request);
        assert!(output.json);
        assert_eq!(output.daemon.socket, PathBuf::from("/s"));
        let in_front = line.replace("show", "show --json --socket /s");
        assert_eq!(asks(&in_front), (asked, output), "{in_front}");
    }
}

#[test]
fn routes_are_selected_by_prefix_and_by_path() {
    let prefix: Prefix = "10.0.0.0/8".parse().unwrap();
    let host: Prefix = "10.0.0.9/32".parse().unwrap();
    let routes = |line: &str| match asks(line).0 {
        Request::ShowRoutes { prefix, select } => (prefix, select),
        other => panic!("{other:?}"),
    };
    let span = |span| RouteSelection { span, ..all() };
    assert_eq!(
        routes("margay show routes 10.0.0.0/8 --longer"),
        (Some(prefix), span(Span::Longer))
    );
    assert_eq!(routes("margay show routes 10.0.0.9"), (Some(host), span(Span::Lookup)));
    assert_eq!(routes("margay show route 10.0.0.9/32"), (Some(host), all()));
    assert_eq!(routes("margay sh ro 10.0.0.9/32 --lookup"), (Some(host), span(Span::Lookup)));
    let (_, select) = routes(
        "margay show routes --peer a --community no-export --source bgp --unusable --limit 7",
    );
    let wanted = RouteSelection {
        peer: Some("a".into()),
        community: Some("no-export".into()),
        source: Some(bgp_proto::types::Source::Bgp),
        unusable: true,
        limit: Some(7),
        ..all()
    };
    assert_eq!(select, wanted);
    let received = asks("margay show received a 10.0.0.0/8 --count").0;
    let select = RouteSelection { prefix: Some(prefix), count: true, ..all() };
    assert_eq!(received, Request::ShowReceived { peer: "a".into(), select });
    for (line, request) in [
        ("margay show neighbors", Request::ShowPeers),
        ("margay show summary", Request::ShowPeers),
        ("margay show neighbor a", Request::ShowPeer { name: "a".into() }),
        ("margay sh stat", Request::ShowStatus),
    ] {
        assert_eq!(asks(line).0, request, "{line}");
    }
    for wrong in [
        "show routes --longer",
        "show routes 10.0.0.0/8 --longer --lookup",
        "show routes --as-path x",
        "show routes --community x",
        "show routes --limit 1 --count",
        "show fib --peer a",
        "show p",
        "dr",
    ] {
        assert!(parse(&format!("margay {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn commands_that_query_the_daemon_accept_a_leading_socket_option() {
    let mut asked = 0;
    for line in [
        "show peers",
        "explain 10.0.0.0/8",
        "reload",
        "health",
        "log-level",
        "stop --graceful",
        "drain --wait",
        "undrain a",
    ] {
        let Cli { socket, mut command } = parse(&format!("margay --socket /s {line}")).unwrap();
        assert_eq!(socket, Some(PathBuf::from("/s")), "{line}");
        asked += usize::from(command.daemon().is_some());
    }
    assert_eq!(asked, 8);
    for line in ["run", "check", "completions bash"] {
        let mut command = parse(&format!("margay {line}")).unwrap().command;
        assert!(command.daemon().is_none(), "{line}");
    }
}

#[test]
fn a_timeout_needs_a_command_that_waits() {
    for line in [
        "drain",
        "drain a b --reason fan",
        "drain --wait --timeout 90s",
        "stop --drain --timeout 5m --message fan",
    ] {
        assert!(parse(&format!("margay {line}")).is_ok(), "{line}");
    }
    for line in [
        "drain --timeout 90s",
        "drain --wait --timeout 2h",
        "stop --graceful --timeout 5s",
        "stop --shutdown --timeout 5s",
        "stop --drain --shutdown",
        "stop --timeout 5s",
    ] {
        assert!(parse(&format!("margay {line}")).is_err(), "{line}");
    }
}

#[test]
fn the_socket_has_a_default() {
    let (_, output) = asks("margay show peers");
    // The environment of the tests may name another one.
    let wanted = std::env::var("MARGAY_SOCKET").unwrap_or(ControlSettings::DEFAULT_SOCKET.into());
    assert_eq!(output.daemon.socket, PathBuf::from(wanted));
}

#[test]
fn health_accepts_either_probe_or_both() {
    for (line, live, ready) in [
        ("margay health", false, false),
        ("margay health --live", true, false),
        ("margay health --ready --live --socket /s", true, true),
    ] {
        let Command::Health(probe) = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!((probe.live, probe.ready), (live, ready), "{line}");
    }
}

#[test]
fn stop_requires_a_mode() {
    for bad in
        ["margay stop", "margay stop --graceful --shutdown", "margay stop --graceful --message bye"]
    {
        assert!(parse(bad).is_err(), "{bad}");
    }
    let message = |len: usize| {
        Cli::try_parse_from(["margay", "stop", "--shutdown", "--message", &"x".repeat(len)])
    };
    let Command::Stop { message: Some(text), .. } = message(255).unwrap().command else {
        panic!("not stop with a message");
    };
    assert_eq!(text.len(), 255);
    assert!(message(256).is_err(), "RFC 9003 carries 255 octets");
    let Command::Stop { how, .. } = parse("margay stop --graceful").unwrap().command else {
        panic!("not stop");
    };
    assert!(how.graceful && !how.shutdown);
}

#[test]
fn wrong_arguments_give_exit_code_2() {
    for bad in [
        "margay",
        "margay show",
        "margay show routes 10.0.0.1/8",
        "margay explain",
        "margay explain x",
        "margay nonsense",
    ] {
        assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
    }
    assert_eq!(parse("margay --version").unwrap_err().exit_code(), 0);
}

#[test]
fn the_fail_flags_set_the_condition() {
    for (line, wanted) in [
        ("margay show peers --fail-if-down", Demand::Established),
        ("margay show status --fail-if-not-ready", Demand::Ready),
        ("margay show fib --fail-if-missing", Demand::Installed { of: None }),
    ] {
        let Command::Show(shown) = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!(shown.what.into_request().1, wanted);
    }
}

#[test]
fn an_address_is_explained_by_its_longest_match() {
    for (text, prefix, lookup) in [
        ("10.0.0.0/8", "10.0.0.0/8", Lookup::Exact),
        ("10.1.2.3", "10.1.2.3/32", Lookup::Longest),
        ("fd00::1", "fd00::1/128", Lookup::Longest),
    ] {
        let wanted = Destination { prefix: prefix.parse().unwrap(), lookup };
        assert_eq!(text.parse(), Ok(wanted));
    }
    let error = parse("margay explain 10.1.2.3/8").unwrap_err().to_string();
    assert!(error.contains("did you mean 10.0.0.0/8?"), "{error}");
}

#[test]
fn similar_words_are_suggested() {
    for (line, wanted) in [
        ("margay shw peers", "'show'"),
        ("margay show pers", "'peers'"),
        ("margay show peers --jsn", "'--json'"),
        ("margay show peers --color alway", "'always'"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains("similar") && error.contains(wanted), "{line}: {error}");
    }
}

/// The scripts are clap_complete's; this tests that they contain our commands.
#[test]
fn completions_contain_every_command() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = completion_script(shell);
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            assert!(script.contains(command.get_name()), "{shell:?}: {}", command.get_name());
        }
        assert!(script.contains("fail-if-down"), "{shell:?}");
    }
}

#[test]
fn examples_in_the_help_are_commands() {
    let mut found = 0;
    for text in [
        examples::CHECK,
        examples::INIT,
        examples::ROUTES,
        examples::EXPLAIN,
        examples::RELOAD,
        examples::DRAIN,
        examples::ANNOUNCE,
        examples::EVENTS,
        examples::PROBE,
        examples::DEBUG,
        examples::TOP,
    ] {
        for line in text.lines().skip(1).flat_map(|line| line.split("&&")) {
            // Quotes hold words together, as in a shell.
            let words = line.split('\'').enumerate().flat_map(|(at, part)| {
                let part = part.trim();
                if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
            });
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
            found += 1;
        }
    }
    assert!(found > 15, "{found}");
}
