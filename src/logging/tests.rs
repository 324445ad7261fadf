use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt;

use super::*;

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

const TEXT: Form = Form::Text(Prefix::Nothing);
const JSON: Form = Form::Json(Prefix::Nothing);

/// What is written while `act` runs.
fn logged(form: Form, directives: &str, act: impl FnOnce(&Log)) -> String {
    let written = Written::default();
    let writer = written.clone();
    let (filter, handle) = reload::Layer::new(read(directives).unwrap());
    let lines = lines(form, filter.and(Limit::default()), false, move || writer.clone());
    let events = Events::default();
    let subscriber = tracing_subscriber::registry().with(lines).with(events::layer(events.clone()));
    let state = State { directives: directives.to_owned(), from_environment: false };
    let queue = Queue::default();
    let inner = Inner { filter: handle, form, queue, events, state: Mutex::new(state) };
    let log = Log { inner: Arc::new(inner) };
    tracing::subscriber::with_default(subscriber, || act(&log));
    written.text()
}

#[test]
fn the_level_changes_while_the_process_runs() {
    let say = |n: u32| tracing::debug!(target: "margay::net", "number {n}");
    let text = logged(TEXT, "info", |log| {
        say(1);
        assert_eq!(log.set_level("debug"), Ok("info".to_owned()));
        say(2);
        assert!(log.set_level("loud").is_err());
        assert_eq!(log.level(), "debug", "an invalid level changes nothing");
        say(3);
        log.configure(LogLevel::Warn);
        say(4);
        assert_eq!(log.level(), "warn");
    });
    let numbers: Vec<&str> = text.lines().filter_map(|line| line.split("number ").nth(1)).collect();
    assert_eq!(numbers, ["2", "3"], "{text}");
}

#[test]
fn events_are_recorded_at_any_level_and_named_in_the_line() {
    let change = || tracing::info!(target: "margay::net", event = "session-up", "established");
    let text = logged(JSON, "info", |log| {
        change();
        log.configure(LogLevel::Error);
        change();
        assert_eq!(log.events().after(0, 0, 9, None).entries.len(), 3);
    });
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [up, level] = lines.as_slice() else { panic!("{text}") };
    assert_eq!((&up["event"], &up["message"]), (&"session-up".into(), &"established".into()));
    let message = "log level is error, was info";
    assert_eq!((&level["event"], &level["message"]), (&"log-level".into(), &message.into()));
}

#[test]
fn a_line_of_text_does_not_repeat_itself() {
    let text = logged(TEXT, "info", |_| {
        tracing::warn!(
            target: "margay::net", event = "session-down", peer = %"tor-1", reason = "reset",
            code = 6, "session closed: reset"
        );
        tracing::warn!(target: "margay::kernel", reason = "no memory", "refused");
    });
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("session closed: reset peer=tor-1"), "{text}");
    assert!(lines[1].ends_with("refused reason=\"no memory\""), "{text}");
}

#[test]
fn an_unknown_level_is_refused_with_the_list_of_levels() {
    for bad in ["", " ", "loud", "info,loud", "INFO", "margay=loud", &"x".repeat(2000)] {
        let error = read(bad).map(drop).unwrap_err();
        assert!(error.to_string().contains("write error, warn, info, debug, trace"), "{error}");
    }
    for good in
        ["info", "trace", "off", "warn,margay::net=debug", "bgp_proto=trace", "info,h2=debug"]
    {
        assert!(read(good).is_ok(), "{good}");
    }
}

/// At these levels, the libraries that talk to etcd log what they send.
#[test]
fn libraries_are_quiet_unless_they_are_named() {
    let speak = |_: &Log| {
        tracing::trace!(target: "h2::codec", "password s3cret");
        tracing::trace!(target: "margay::net", "ours");
        tracing::warn!(target: "h2::codec", "broken");
    };
    let text = logged(TEXT, "trace", speak);
    assert!(!text.contains("s3cret") && text.contains("ours") && text.contains("broken"), "{text}");
    let named = logged(TEXT, "info,h2=trace", speak);
    assert!(named.contains("s3cret"), "{named}");
}

#[test]
fn json_is_one_object_per_line() {
    let text = logged(JSON, "info", |_| {
        tracing::warn!(target: "margay::net", peer = %"tor-1", "session closed: {}", "a\n\"b\"");
    });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["level"], &line["peer"]), (&"WARN".into(), &"tor-1".into()));
    assert_eq!(line["message"], "session closed: a\n\"b\"");
    assert!(line["timestamp"].is_string() && line["target"] == "margay::net", "{text}");
}

#[test]
fn a_flood_is_ten_lines_and_a_count() {
    let written = Written::default();
    let writer = written.clone();
    let limit = Limit::default();
    let lines = lines(TEXT, limit.clone(), false, move || writer.clone());
    let subscriber = tracing_subscriber::registry().with(lines);
    tracing::subscriber::with_default(subscriber, || {
        for n in 0..5_000 {
            tracing::warn!(target: "margay::net", peer = %"evil", "malformed update {n}");
        }
        tracing::warn!(target: "margay::net", peer = %"good", "malformed update");
    });
    let text = written.text();
    assert_eq!(text.lines().count(), 11, "{text}");
    assert!(text.contains("good"), "one peer does not silence another: {text}");
    let example = "4990 lines were left out, such as: malformed update 10 peer=evil";
    assert_eq!(limit.report(), [example]);
    assert_eq!(limit.report(), Vec::<String>::new());
}

/// As with `margay log-level debug` on a node with many busy peers.
#[test]
fn debug_lines_do_not_use_up_the_budget_of_warnings() {
    let text = logged(TEXT, "debug", |_| {
        for n in 0..20_000 {
            tracing::debug!(target: "margay::net", peer = %format!("p{n}"), "state");
        }
        for _ in 0..20_000 {
            tracing::warn!(target: "margay::net", peer = %"evil", "malformed update");
        }
        tracing::warn!(target: "margay::net", peer = %"good", "malformed update");
    });
    let warnings = |peer: &str| text.lines().filter(|line| line.ends_with(peer)).count();
    assert_eq!((warnings("peer=evil"), warnings("peer=good")), (10, 1));
}

#[test]
fn control_characters_of_peers_do_not_reach_the_terminal() {
    let text = logged(TEXT, "info", |_| {
        tracing::warn!(target: "margay::net", "the peer says: {}", "\u{1b}[2Jbye\nmore");
    });
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(text.lines().count(), 1, "a peer writes no lines of its own: {text:?}");
}

#[test]
fn the_form_follows_from_the_format_and_from_who_reads_standard_error() {
    use LogFormat::{Auto, Journal, Json, Text};
    for (format, in_journal, wanted) in [
        (Auto, true, Form::Entry),
        (Auto, false, TEXT),
        (Text, true, Form::Text(Prefix::Priority)),
        (Text, false, TEXT),
        (Json, true, Form::Json(Prefix::Priority)),
        (Json, false, JSON),
        (Journal, false, Form::Entry),
    ] {
        assert_eq!(Form::new(format, in_journal), wanted, "{format:?} {in_journal}");
    }
}

/// systemd takes the priority from a line of text, and what is left is the line.
#[test]
fn lines_for_the_journal_begin_with_their_priority() {
    for form in [Form::Text(Prefix::Priority), Form::Json(Prefix::Priority)] {
        let text = logged(form, "debug", |_| {
            tracing::error!(target: "margay::net", "3");
            tracing::warn!(target: "margay::net", "4");
            tracing::info!(target: "margay::net", "6");
            tracing::debug!(target: "margay::net", "7");
        });
        let starts: Vec<&str> = text.lines().filter_map(|line| line.get(..3)).collect();
        assert_eq!(starts, ["<3>", "<4>", "<6>", "<7>"], "{text}");
    }
    let line = String::from_utf8(formed(Form::Json(Prefix::Priority), Level::WARN, "x")).unwrap();
    assert!(line.starts_with("<4>{") && line.contains("\"level\":\"WARN\""), "{line}");
}

/// What a pipeline such as Loki's selects by: names that do not change, at the top of the object.
#[test]
fn json_has_the_fields_of_an_event_at_the_top() {
    let text = logged(JSON, "info", |_| {
        tracing::warn!(
            target: "margay::net", event = "session-down", peer = %"tor-1", direction = "received",
            code = 6, subcode = 2, reason = "reset", "session closed: reset"
        );
    });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = [
        "code",
        "direction",
        "event",
        "level",
        "message",
        "peer",
        "reason",
        "subcode",
        "target",
        "timestamp",
    ];
    assert_eq!(keys, wanted);
    assert_eq!((&line["event"], &line["code"]), (&"session-down".into(), &6.into()));
}
