//! Whole screens, drawn by ratatui's own test terminal. `BLESS=1` writes them anew: look at the difference.

use std::path::Path;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::ink::Ink;
use super::sample::{Counters, Failure, Overview, Peer};
use super::state::{Content, Detail, Effect, Flow, Key, News, Page, RouteRow, State, Tab};
use super::{frame, read_interval};
use crate::cli::render::Colour;
use crate::ctl::item::{Calico, CalicoProblem, CalicoSource, FibCounts, PerFamily, Queues, Status};

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        asn: 64_512,
        router_id: "10.0.0.1".to_owned(),
        started: "2026-11-30T17:00:00Z".to_owned(),
        uptime_seconds: 11_100,
        peers: 4,
        peers_established: 2,
        destinations: PerFamily { ipv4: 1_204, ipv6: 16 },
        paths: PerFamily { ipv4: 2_400, ipv6: 16 },
        fib: FibCounts { enabled: true, installed: 1_180, pending: 40, ..FibCounts::default() },
        queues: Queues { received_octets: 0, update_log_octets: 20_480, evictions: 0 },
        ..Status::default()
    }
}

fn peer(name: &str, state: &str, seconds: u64, received: u64) -> Peer {
    Peer {
        name: name.to_owned(),
        address: "192.0.2.7".to_owned(),
        remote_asn: 64_512,
        state: state.to_owned(),
        state_seconds: seconds,
        prefixes_received: u32::try_from(received).unwrap(),
        prefixes_advertised: 600,
        messages: Counters {
            prefixes_received: received,
            prefixes_sent: 10,
            ..Counters::default()
        },
        ..Peer::default()
    }
}

fn four() -> Vec<Peer> {
    let mut down = peer("tor-2", "Active", 75, 0);
    down.last_error = Some(Failure { text: "connection refused".to_owned() });
    down.bfd = Some("Down".to_owned());
    let mut hostile = peer("evil\u{1b}[2J", "Idle", 3_700, 0);
    hostile.flaps = 12;
    hostile.description = Some("rack 7".to_owned());
    let text = "Administrative Shutdown: \"\u{1b}]0;owned\u{7}\u{202e}bye\"";
    hostile.last_bgp_error = Some(Failure { text: text.to_owned() });
    let mut up = peer("tor-1", "Established", 11_000, 1_200);
    up.bfd = Some("Up".to_owned());
    vec![peer("node-17", "Established", 90_000, 4), up, down, hostile]
}

fn overview(at: u64, peers: Vec<Peer>) -> News {
    News::Overview(Box::new(Overview::new(Duration::from_secs(at), status(), peers)))
}

/// The state after two answers two seconds apart: tor-1 has announced 1,000 prefixes in between.
fn busy() -> State {
    let mut state = State::new(None, None);
    let mut before = four();
    before[1].messages.prefixes_received = 200;
    state.handle_news(overview(10, before));
    state.handle_news(overview(12, four()));
    state
}

fn terminal(state: &mut State, ink: Ink, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| frame::draw(state, ink, frame.buffer_mut())).unwrap();
    terminal
}

fn drawn(state: &mut State, width: u16, height: u16) -> String {
    let terminal = terminal(state, Ink(Colour::Off), width, height);
    let buffer = terminal.backend().buffer();
    let line = |y: u16| {
        let cells = (0..width).map(|x| buffer.cell((x, y)).unwrap());
        let text: String = cells.clone().map(|cell| cell.symbol()).collect();
        // The chosen line is reversed: that is its mark in the file.
        let is_chosen = cells.clone().all(|cell| cell.modifier.contains(Modifier::REVERSED));
        format!("{}{}\n", if is_chosen { ">" } else { " " }, text.trim_end())
    };
    (0..height).map(line).collect()
}

/// Compares a screen with the file of this name.
fn expect(name: &str, screen: &str) {
    let file = format!("src/cli/top/screens/{name}.txt");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, screen).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == screen, "{file} has\n{wanted}\nand the screen is\n{screen}");
}

fn press(state: &mut State, keys: &[Key]) -> Effect {
    keys.iter().map(|key| state.handle_key(*key)).last().unwrap_or(Effect::Draw)
}

fn typed(state: &mut State, text: &str) {
    for c in text.chars() {
        state.handle_key(Key::Char(c));
    }
}

#[test]
fn the_list_of_peers_at_three_sizes() {
    let mut state = busy();
    expect("peers_80x24", &drawn(&mut state, 80, 24));
    expect("peers_40x12", &drawn(&mut state, 40, 12));
    expect("peers_200x50", &drawn(&mut state, 200, 50));
}

#[test]
fn no_size_is_too_small() {
    let mut state = busy();
    for (width, height) in [(1, 1), (1, 24), (5, 2), (80, 1), (80, 3), (13, 7)] {
        drawn(&mut state, width, height);
        state.handle_key(Key::Char('?'));
        drawn(&mut state, width, height);
        state.handle_key(Key::Back);
    }
}

#[test]
fn before_the_first_answer_and_without_peers() {
    let mut state = State::new(None, None);
    expect("connecting_80x24", &drawn(&mut state, 80, 24));
    state.handle_news(overview(1, Vec::new()));
    expect("empty_80x24", &drawn(&mut state, 80, 24));
}

#[test]
fn a_thousand_peers_scroll_around_the_chosen_one() {
    let mut state = State::new(None, None);
    let peers = (0..1000).map(|n| peer(&format!("node-{n:03}"), "Established", n, n)).collect();
    state.handle_news(overview(1, peers));
    press(&mut state, &[Key::Char('s'); 5]);
    expect("thousand_first_80x24", &drawn(&mut state, 80, 24));
    press(&mut state, &[Key::PageDown, Key::PageDown, Key::Down]);
    expect("thousand_middle_80x24", &drawn(&mut state, 80, 24));
    press(&mut state, &[Key::End]);
    expect("thousand_last_40x12", &drawn(&mut state, 40, 12));
}

#[test]
fn the_longest_names_are_cut_in_the_middle() {
    let mut state = State::new(None, None);
    let long = |n: u32| format!("{}-{n}", "rack-with-a-very-long-name-".repeat(9));
    let mut peers: Vec<Peer> =
        (0..3).map(|n| peer(&long(n), "Established", 5, u64::from(u32::MAX))).collect();
    peers[2].name = "節点".repeat(100);
    peers[1].last_error = Some(Failure { text: "x".repeat(4_000) });
    state.handle_news(overview(1, peers));
    expect("longest_80x24", &drawn(&mut state, 80, 24));
    expect("longest_200x50", &drawn(&mut state, 200, 50));
}

#[test]
fn problems_and_a_daemon_that_is_away_are_above_the_list() {
    let mut state = busy();
    let source = CalicoSource {
        name: "etcd".to_owned(),
        state: "away".to_owned(),
        error: Some("connection refused".to_owned()),
        ..CalicoSource::default()
    };
    let problem =
        |n: u32| CalicoProblem { object: format!("BGPPeer/{n}"), text: "no AS".to_owned() };
    let mut news = Overview::new(Duration::from_secs(14), status(), four());
    news.status.not_ready = Some("waiting for End-of-RIB of 2 peers".to_owned());
    news.status.fib.failed = 3;
    let problems = (1..5).map(problem).collect();
    news.status.calico = Some(Calico { sources: vec![source], problems, ..Calico::default() });
    state.handle_news(News::Overview(Box::new(news)));
    expect("problems_80x24", &drawn(&mut state, 80, 24));
    for at in [20, 83] {
        let text = "cannot reach margay at /run/margay/margay.sock: Connection refused".to_owned();
        state.handle_news(News::Failed { at: Duration::from_secs(at), text });
    }
    expect("away_80x24", &drawn(&mut state, 80, 24));
    state.handle_news(overview(90, four()));
    assert!(!drawn(&mut state, 80, 24).contains("no answer"));
}

#[test]
fn no_colour_is_white_or_black_and_none_is_used_unless_wanted() {
    for (colour, has_colours) in [(Colour::On, true), (Colour::Off, false)] {
        let terminal = terminal(&mut busy(), Ink(colour), 80, 24);
        let cells = &terminal.backend().buffer().content;
        let used: Vec<Color> = cells.iter().flat_map(|cell| [cell.fg, cell.bg]).collect();
        let is_allowed =
            |c: &Color| [Color::Reset, Color::Red, Color::Green, Color::Yellow].contains(c);
        assert!(used.iter().all(is_allowed));
        assert_eq!(used.iter().any(|colour| *colour != Color::Reset), has_colours);
    }
}

#[test]
fn text_of_neighbours_cannot_control_the_terminal() {
    let mut state = busy();
    let page = Page::Peer { name: "evil\u{1b}[2J".to_owned(), tab: Tab::Summary };
    let is_safe = |c: char| c == '\n' || (!c.is_control() && c != '\u{202e}');
    assert!(drawn(&mut state, 200, 50).chars().all(is_safe));
    state.page = page;
    let text = Content::Text(vec!["name  \u{1b}[31mevil\u{9b}2J".to_owned()]);
    let wanted = state.wanted();
    state.handle_news(News::Detail(Box::new(Detail { wanted, status: status(), content: text })));
    let screen = drawn(&mut state, 80, 24);
    assert!(screen.contains("evil") && screen.chars().all(is_safe), "{screen}");
}

#[test]
fn peers_are_ordered_and_the_chosen_one_stays_chosen() {
    let mut state = busy();
    let names = |state: &State| {
        let overview = state.overview.as_ref().unwrap();
        state.shown.iter().map(|n| overview.peers[*n].name.clone()).collect::<Vec<_>>()
    };
    let evil = "evil\u{1b}[2J";
    assert_eq!(names(&state), ["tor-1", "tor-2", evil, "node-17"]);
    press(&mut state, &[Key::Down]);
    assert_eq!(state.peer().unwrap().name, "tor-2");
    press(&mut state, &[Key::Char('s')]);
    assert_eq!(names(&state), ["tor-2", evil, "tor-1", "node-17"], "by state");
    assert_eq!(state.peer().unwrap().name, "tor-2");
    press(&mut state, &[Key::Char('s'), Key::Char('s'), Key::Char('s')]);
    assert_eq!(names(&state)[0], evil, "by flaps");
    press(&mut state, &[Key::Char('S'); 4]);
    assert_eq!(names(&state)[0], "tor-1", "by changes again");
    // It is removed: the place stays.
    let left: Vec<Peer> = four().into_iter().filter(|peer| peer.name != "tor-2").collect();
    state.handle_news(overview(14, left));
    assert_eq!(state.peer().unwrap().name, names(&state)[state.row]);
    state.handle_news(overview(16, Vec::new()));
    assert_eq!((state.row, state.peer()), (0, None));
    press(&mut state, &[Key::Down, Key::Enter, Key::End]);
    assert_eq!(state.page, Page::Peers);
}

#[test]
fn the_filter_takes_words_and_escape_removes_it() {
    let mut state = busy();
    press(&mut state, &[Key::Char('/')]);
    typed(&mut state, "TOR active");
    expect("filter_80x24", &drawn(&mut state, 80, 24));
    assert_eq!(state.shown, [2]);
    press(&mut state, &[Key::Erase; 6]);
    assert_eq!(state.shown.len(), 2);
    // `q` is a letter here.
    typed(&mut state, "q");
    assert_eq!((state.filter.as_str(), state.shown.len()), ("TOR q", 0));
    press(&mut state, &[Key::Enter]);
    assert_eq!(press(&mut state, &[Key::Back]), Effect::Draw);
    assert_eq!((state.filter.as_str(), state.shown.len()), ("", 4));
    assert_eq!(press(&mut state, &[Key::Back]), Effect::Quit);
    let mut given = State::new(None, Some("rack as64512".to_owned()));
    given.handle_news(overview(1, four()));
    assert_eq!(given.shown, [3]);
    typed(&mut given, &format!("/{}", "x".repeat(1000)));
    assert!(given.filter.chars().count() <= 80);
}

fn route(prefix: &str, next_hop: &str) -> RouteRow {
    RouteRow {
        prefix: prefix.parse().unwrap(),
        marks: "*".to_owned(),
        next_hop: next_hop.to_owned(),
        as_path: "64513 64514".to_owned(),
        med: "10".to_owned(),
        local_pref: "100".to_owned(),
        communities: "no-export 64512:100".to_owned(),
        unusable: String::new(),
    }
}

/// Answers what is wanted.
fn answer(state: &mut State, content: Content) {
    let detail = Detail { wanted: state.wanted(), status: status(), content };
    state.handle_news(News::Detail(Box::new(detail)));
}

#[test]
fn from_a_peer_to_its_routes_to_an_explanation_and_back() {
    let mut state = busy();
    press(&mut state, &[Key::Enter]);
    assert_eq!(state.wanted().page, Page::Peer { name: "tor-1".to_owned(), tab: Tab::Summary });
    assert!(drawn(&mut state, 80, 24).contains("asking"));
    let lines = (0..40).map(|n| format!("line {n:<12}{}", "word ".repeat(20))).collect();
    answer(&mut state, Content::Text(lines));
    expect("peer_80x24", &drawn(&mut state, 80, 24));
    // One cannot scroll beyond the end, and from there the first key up moves.
    press(&mut state, &[Key::End]);
    let end = drawn(&mut state, 80, 24);
    assert!(end.contains("line 39"), "{end}");
    press(&mut state, &[Key::Up]);
    assert_ne!(drawn(&mut state, 80, 24), end);

    press(&mut state, &[Key::Enter]);
    let mut unusable = route("2001:db8:1234:5678::/64", "fd99::1");
    unusable.unusable = "next hop is not reachable".to_owned();
    let rows =
        vec![route("10.65.0.0/26", "192.0.2.1"), route("10.65.0.64/26", "192.0.2.2"), unusable];
    answer(&mut state, Content::Routes { rows, more: true });
    expect("routes_80x24", &drawn(&mut state, 80, 24));
    expect("routes_40x12", &drawn(&mut state, 40, 12));
    expect("routes_200x50", &drawn(&mut state, 200, 50));
    press(&mut state, &[Key::Char('/')]);
    typed(&mut state, "192.0.2.2");
    // An address is asked for: the daemon has more routes than are listed here.
    assert!(state.wanted().prefix.is_some());
    press(&mut state, &[Key::Back, Key::Down, Key::Enter]);
    let prefix = "10.65.0.64/26".parse().unwrap();
    let page = Page::Explain { peer: "tor-1".to_owned(), tab: Tab::Received, prefix };
    assert_eq!(state.wanted().page, page);
    answer(&mut state, Content::Refused("there is no route to 10.65.0.64/26".to_owned()));
    expect("refused_80x24", &drawn(&mut state, 80, 24));
    press(&mut state, &[Key::Back]);
    assert_eq!(state.page, Page::Peer { name: "tor-1".to_owned(), tab: Tab::Received });
    press(&mut state, &[Key::Tab]);
    assert_eq!(state.page, Page::Peer { name: "tor-1".to_owned(), tab: Tab::Advertised });
    press(&mut state, &[Key::Char('q')]);
    assert_eq!((&state.page, state.peer().unwrap().name.as_str()), (&Page::Peers, "tor-1"));
    assert_eq!(press(&mut state, &[Key::Char('q')]), Effect::Quit);
}

#[test]
fn an_answer_to_a_page_that_was_left_is_dropped() {
    let mut state = busy();
    press(&mut state, &[Key::Enter]);
    let wanted = state.wanted();
    press(&mut state, &[Key::Tab]);
    let content = Content::Text(vec!["late".to_owned()]);
    let late = Detail { wanted, status: status(), content };
    state.handle_news(News::Detail(Box::new(late)));
    assert_eq!(state.content(), None);
    answer(&mut state, Content::Refused("there is no peer \"tor-1\"".to_owned()));
    assert!(drawn(&mut state, 80, 24).contains("there is no peer \"tor-1\""));
}

#[test]
fn a_pause_help_and_the_ways_out() {
    let mut state = busy();
    press(&mut state, &[Key::Char(' ')]);
    assert_eq!(state.wanted().flow, Flow::Paused);
    assert!(drawn(&mut state, 80, 24).contains("PAUSED"));
    press(&mut state, &[Key::Char(' ')]);
    assert_eq!(state.wanted().flow, Flow::Live);
    press(&mut state, &[Key::Char('?')]);
    expect("help_80x24", &drawn(&mut state, 80, 24));
    assert_eq!(press(&mut state, &[Key::Char('q')]), Effect::Draw, "q leaves the help only");
    assert_eq!(press(&mut state, &[Key::Suspend]), Effect::Suspend);
    press(&mut state, &[Key::Char('/')]);
    assert_eq!(press(&mut state, &[Key::Interrupt]), Effect::Quit);
}

#[test]
fn intervals_have_bounds() {
    assert_eq!(read_interval("5"), Ok(Duration::from_secs(5)));
    assert_eq!(read_interval("500ms"), Ok(Duration::from_millis(500)));
    for wrong in ["0", "-1", "100ms", "2h", "soon", ""] {
        assert!(read_interval(wrong).is_err(), "{wrong}");
    }
}
