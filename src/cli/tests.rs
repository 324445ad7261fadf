use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn asks(line: &str) -> (Request, Output) {
    match parse(line).unwrap().command {
        Command::Show(show) => show.into_request(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_view_becomes_its_request() {
    let prefix: Prefix = "10.0.0.0/8".parse().unwrap();
    for (line, request) in [
        ("margay show status", Request::ShowStatus),
        ("margay show peers", Request::ShowPeers),
        ("margay show peer tor-1", Request::ShowPeer { name: "tor-1".into() }),
        ("margay show routes", Request::ShowRoutes { prefix: None }),
        ("margay show routes 10.0.0.0/8", Request::ShowRoutes { prefix: Some(prefix) }),
        ("margay show received a", Request::ShowReceived { peer: "a".into() }),
        ("margay show advertised a", Request::ShowAdvertised { peer: "a".into() }),
        ("margay show fib", Request::ShowFib),
        ("margay show groups", Request::ShowGroups),
    ] {
        let (asked, output) = asks(line);
        assert_eq!(asked, request);
        assert!(!output.json);
        let (asked, output) = asks(&format!("{line} --json --socket /s"));
        assert_eq!(asked, request);
        assert!(output.json);
        assert_eq!(output.daemon.socket, Path::new("/s"));
    }
}

#[test]
fn the_socket_has_a_default() {
    let (_, output) = asks("margay show peers");
    // The environment may name another one where the tests run.
    let wanted = std::env::var("MARGAY_SOCKET").unwrap_or(ControlSettings::DEFAULT_SOCKET.into());
    assert_eq!(output.daemon.socket, PathBuf::from(wanted));
}

#[test]
fn health_takes_either_probe_or_both() {
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
fn stop_says_how() {
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
fn wrong_arguments_are_exit_code_2() {
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
