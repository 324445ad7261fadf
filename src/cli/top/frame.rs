//! From the state to the screen. Nothing here changes what is looked at; it bounds how far one can scroll.

use ratatui::buffer::Buffer;
use unicode_width::UnicodeWidthStr;

use super::ink::{Ink, Line, Side, Tint};
use super::number::{count, octets, rate};
use super::sample::{Overview, Peer, Rates};
use super::state::{Content, Flow, Link, Mode, Page, RouteRow, State, Tab};
use crate::cli::render::{age, clean, wrap};
use crate::ctl::item::Status;

/// Most problems with a line of their own.
const PROBLEMS_MAX: usize = 3;

/// Help, one line each.
const HELP: [&str; 16] = [
    "Up, k       previous          Down, j   next",
    "PgUp, PgDn  by a screen       g, G      first, last",
    "Enter       peer, its routes, explain a route",
    "Tab         peer, received, advertised",
    "Esc, q      back; quit from the list of peers",
    "s, S        next, previous order of peers",
    "/           filter peers: words in name, address, state,",
    "            description, VRF, or as64512; routes: a prefix,",
    "            or text in next hop, AS path, communities",
    "Space       pause             Ctrl-L    redraw",
    "Ctrl-Z      suspend           Ctrl-C    quit",
    "",
    "IN, OUT     prefixes a second, announced or withdrawn",
    "UPD-IN/OUT  UPDATEs a second",
    "order by changes: all four rates, then the latest",
    "change of state",
];

/// Draws everything.
pub(super) fn draw(state: &mut State, ink: Ink, buffer: &mut Buffer) {
    buffer.reset();
    let height = buffer.area.height;
    let mut y = header(state, ink, buffer);
    let bottom = height.saturating_sub(1);
    match state.mode {
        Mode::Help => {
            for text in HELP {
                if y < bottom {
                    Line::new(buffer, ink, y).put(text, Tint::Plain);
                    y += 1;
                }
            }
        }
        Mode::Browse | Mode::Filter => body(state, ink, buffer, y..bottom),
    }
    if height > 1 {
        footer(state, ink, &mut Line::new(buffer, ink, bottom));
    }
}

fn body(state: &mut State, ink: Ink, buffer: &mut Buffer, lines: std::ops::Range<u16>) {
    match &state.page {
        Page::Peers => peers(state, ink, buffer, lines),
        Page::Peer { name, tab } => {
            let mut line = Line::new(buffer, ink, lines.start);
            line.put(name, Tint::Strong);
            for each in Tab::ALL {
                line.put("  ", Tint::Plain);
                let tint = if each == *tab { Tint::Head } else { Tint::Faint };
                line.put(each.label(), tint);
            }
            page(state, ink, buffer, lines.start.saturating_add(1)..lines.end);
        }
        Page::Explain { peer, prefix, .. } => {
            let mut line = Line::new(buffer, ink, lines.start);
            line.put(&format!("explain {prefix} --peer {peer}"), Tint::Strong);
            page(state, ink, buffer, lines.start.saturating_add(1)..lines.end);
        }
    }
}

/// The answer to a page about a peer.
fn page(state: &mut State, ink: Ink, buffer: &mut Buffer, lines: std::ops::Range<u16>) {
    let said = match state.content() {
        None => match state.link {
            Link::Away { .. } => "",
            _ => "asking",
        },
        Some(Content::Refused(why)) => why.as_str(),
        Some(Content::Text(_)) => return text(state, ink, buffer, lines),
        Some(Content::Routes { .. }) => return routes(state, ink, buffer, lines),
    };
    let said = said.to_owned();
    Line::new(buffer, ink, lines.start).put(&said, Tint::Pending);
}

fn text(state: &mut State, ink: Ink, buffer: &mut Buffer, lines: std::ops::Range<u16>) {
    let Some(Content::Text(text)) = state.content() else { return };
    let width = usize::from(buffer.area.width).max(1);
    let wrapped: Vec<String> = text.iter().flat_map(|line| wrapped(line, width)).collect();
    let room = usize::from(lines.end.saturating_sub(lines.start));
    state.scroll = state.scroll.min(wrapped.len().saturating_sub(room));
    state.rows_visible = room;
    for (y, line) in lines.zip(wrapped.iter().skip(state.scroll)) {
        Line::new(buffer, ink, y).put(line, Tint::Plain);
    }
}

/// A line of an answer; what does not fit continues below, indented.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let line = clean(line);
    if line.width() <= width {
        return vec![line];
    }
    let mut parts = wrap(&line, width.saturating_sub(2).max(1), usize::MAX).into_iter();
    let first = parts.next().unwrap_or_default();
    std::iter::once(first).chain(parts.map(|part| format!("  {part}"))).collect()
}

/// A column: its head, its width, and how it is aligned.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Column<K> {
    key: K,
    head: &'static str,
    width: usize,
    side: Side,
}

/// What a column of peers shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Name,
    State,
    Since,
    In,
    Out,
    Received,
    Advertised,
    Flaps,
    Bfd,
    UpdatesIn,
    UpdatesOut,
    Asn,
    Failure,
}

const fn column<K: Copy>(key: K, head: &'static str, width: usize, side: Side) -> Column<K> {
    Column { key, head, width, side }
}

/// Columns of peers from left to right.
const PEERS: [Column<Of>; 13] = [
    column(Of::Name, "PEER", 12, Side::Left),
    column(Of::Asn, "AS", 10, Side::Right),
    column(Of::State, "STATE", 11, Side::Left),
    column(Of::Since, "SINCE", 6, Side::Right),
    column(Of::In, "IN", 5, Side::Right),
    column(Of::Out, "OUT", 5, Side::Right),
    column(Of::UpdatesIn, "UPD-IN", 6, Side::Right),
    column(Of::UpdatesOut, "UPD-OUT", 7, Side::Right),
    column(Of::Received, "RECV", 6, Side::Right),
    column(Of::Advertised, "SENT", 6, Side::Right),
    column(Of::Flaps, "FLAPS", 5, Side::Right),
    column(Of::Bfd, "BFD", 9, Side::Left),
    column(Of::Failure, "LAST ERROR", 24, Side::Left),
];

/// Which columns of peers are left out last.
const IMPORTANCE: [Of; 13] = [
    Of::Name,
    Of::State,
    Of::Since,
    Of::In,
    Of::Out,
    Of::Received,
    Of::Advertised,
    Of::Flaps,
    Of::Bfd,
    Of::Failure,
    Of::Asn,
    Of::UpdatesIn,
    Of::UpdatesOut,
];

/// The most columns that fit; the first one and the last error share what is left. BFD has a column if
/// a peer has BFD.
fn fitting(width: usize, has_bfd: bool) -> Vec<Column<Of>> {
    let mut chosen: Vec<Of> = Vec::new();
    let mut used = 0;
    for key in IMPORTANCE {
        let Some(column) = PEERS.iter().find(|column| column.key == key) else { continue };
        let fits = used + column.width <= width;
        if fits && (key != Of::Bfd || has_bfd) {
            chosen.push(key);
            used += column.width + 1;
        }
    }
    let mut columns: Vec<Column<Of>> =
        PEERS.into_iter().filter(|column| chosen.contains(&column.key)).collect();
    let left = (width + 1).saturating_sub(used);
    let for_name = if chosen.contains(&Of::Failure) { left / 3 } else { left };
    for column in &mut columns {
        match column.key {
            Of::Name => column.width += for_name,
            Of::Failure => column.width += left - for_name,
            _ => {}
        }
    }
    columns
}

fn peers(state: &mut State, ink: Ink, buffer: &mut Buffer, lines: std::ops::Range<u16>) {
    let Some(overview) = &state.overview else { return };
    let width = usize::from(buffer.area.width);
    let columns = fitting(width, overview.peers.iter().any(|peer| peer.bfd.is_some()));
    let mut head = Line::new(buffer, ink, lines.start);
    for column in &columns {
        head.column(column.head, column.width, column.side, Tint::Head);
    }
    let rows = lines.start.saturating_add(1)..lines.end;
    state.rows_visible = rows.len();
    if state.shown.is_empty() {
        let text = if overview.peers.is_empty() { "there are no peers" } else { "no peer matches" };
        return Line::new(buffer, ink, rows.start).put(text, Tint::Faint);
    }
    let first = first_visible(state.row, rows.len(), state.shown.len());
    for (y, (place, index)) in rows.zip(state.shown.iter().enumerate().skip(first)) {
        let Some(peer) = overview.peers.get(*index) else { continue };
        let rates = overview.rates.get(*index).copied().flatten();
        let mut line = Line::new(buffer, ink, y);
        for column in &columns {
            let (text, tint) = cell(column.key, peer, rates);
            line.column(&text, column.width, column.side, tint);
        }
        if place == state.row {
            line.choose();
        }
    }
}

/// The first row on the screen: the chosen one is in the middle unless the list begins or ends there.
fn first_visible(chosen: usize, room: usize, count: usize) -> usize {
    chosen.saturating_sub(room / 2).min(count.saturating_sub(room))
}

fn cell(of: Of, peer: &Peer, rates: Option<Rates>) -> (String, Tint) {
    let per_second = |value: fn(&Rates) -> f64| match rates {
        Some(rates) if value(&rates) > 0.0 => (rate(value(&rates)), Tint::Strong),
        Some(_) => ("0".to_owned(), Tint::Plain),
        None => ("-".to_owned(), Tint::Plain),
    };
    let tint = match peer.state.as_str() {
        "Established" => Tint::Good,
        "OpenSent" | "OpenConfirm" => Tint::Pending,
        _ => Tint::Bad,
    };
    match of {
        Of::Name => (peer.name.clone(), Tint::Plain),
        Of::State => (peer.state.clone(), tint),
        Of::Since => (age(peer.state_seconds), Tint::Plain),
        Of::In => per_second(|rates| rates.prefixes_in),
        Of::Out => per_second(|rates| rates.prefixes_out),
        Of::UpdatesIn => per_second(|rates| rates.updates_in),
        Of::UpdatesOut => per_second(|rates| rates.updates_out),
        Of::Received => (count(peer.prefixes_received.into()), Tint::Plain),
        Of::Advertised => (count(peer.prefixes_advertised.into()), Tint::Plain),
        Of::Flaps => (count(peer.flaps), Tint::Plain),
        Of::Asn => (peer.remote_asn.to_string(), Tint::Plain),
        Of::Bfd => {
            let state = peer.bfd.clone().unwrap_or_default();
            let tint = if state == "Up" { Tint::Good } else { Tint::Bad };
            (state, tint)
        }
        Of::Failure => {
            let tint = if peer.is_established() { Tint::Faint } else { Tint::Plain };
            (peer.failure().to_owned(), tint)
        }
    }
}

fn routes(state: &mut State, ink: Ink, buffer: &mut Buffer, lines: std::ops::Range<u16>) {
    let width = usize::from(buffer.area.width);
    // Marks, prefix, next hop; then what fits.
    let (marks, prefix, next_hop, number) = (3, 18, 15, 5);
    let mut left = (width + 1).saturating_sub(marks + prefix + next_hop + 3);
    let mut fits = |columns: usize| {
        let does = left >= columns;
        left -= if does { columns } else { 0 };
        does
    };
    let has_path = fits(12);
    let has_numbers = fits(2 * (number + 1));
    let has_communities = fits(20);
    let rows = lines.start.saturating_add(1)..lines.end;
    let shown = state.routes();
    let mut put = |y: u16, texts: [&str; 7], tint: Tint, is_chosen: bool| {
        let mut line = Line::new(buffer, ink, y);
        let [flags, destination, hop, pref, med, path, communities] = texts;
        line.column(flags, marks, Side::Left, tint);
        // IPv6 prefixes are longer: they take the room of the next hop's padding.
        line.column(destination, prefix + left.min(25), Side::Left, tint);
        line.column(hop, next_hop, Side::Left, tint);
        if has_numbers {
            line.column(pref, number, Side::Right, tint);
            line.column(med, number, Side::Right, tint);
        }
        if has_path {
            let rest = if has_communities { (line.room() / 3).max(20) + 1 } else { 0 };
            let room = line.room().saturating_sub(rest);
            line.column(path, room, Side::Left, tint);
        }
        if has_communities {
            line.column(communities, line.room(), Side::Left, tint);
        }
        if is_chosen {
            line.choose();
        }
    };
    let head = ["", "PREFIX", "NEXT HOP", "PREF", "MED", "AS PATH", "COMMUNITIES"];
    put(lines.start, head, Tint::Head, false);
    let (chosen, first) =
        (state.route_row, first_visible(state.route_row, rows.len(), shown.len()));
    let room = rows.len();
    if shown.is_empty() {
        put(rows.start, ["", "no routes", "", "", "", "", ""], Tint::Faint, false);
    }
    for (y, (place, row)) in rows.zip(shown.iter().enumerate().skip(first)) {
        let RouteRow { marks, next_hop, as_path, med, local_pref, .. } = row;
        let last = if row.unusable.is_empty() { &row.communities } else { &row.unusable };
        let tint = if row.unusable.is_empty() { Tint::Plain } else { Tint::Bad };
        let prefix = row.prefix.to_string();
        put(y, [marks, &prefix, next_hop, local_pref, med, as_path, last], tint, place == chosen);
    }
    state.rows_visible = room;
}

/// The lines about the daemon; returns the line below them.
fn header(state: &State, ink: Ink, buffer: &mut Buffer) -> u16 {
    let (width, height) = (usize::from(buffer.area.width), buffer.area.height);
    let lines_max = height / 3;
    let mut y = 0;
    if let Link::Away { since, now, text } = &state.link {
        let seconds = now.saturating_sub(*since).as_secs();
        let text = format!("no answer for {}: {text}", age(seconds));
        for part in wrap(&text, width.max(1), 2) {
            Line::new(buffer, ink, y).put(&part, Tint::Bad);
            y += 1;
        }
    }
    let Some(status) = state.status() else {
        if state.link == Link::Connecting {
            Line::new(buffer, ink, y).put("connecting", Tint::Pending);
            y += 1;
        }
        return y;
    };
    let facts = facts(status, state.overview.as_ref(), &state.page);
    for facts in flow(facts, width) {
        if y >= lines_max.max(1) {
            return y;
        }
        let mut line = Line::new(buffer, ink, y);
        for (place, (text, tint)) in facts.iter().enumerate() {
            line.put(if place == 0 { "" } else { "  " }, Tint::Plain);
            line.put(text, *tint);
        }
        y += 1;
    }
    let problems = state.overview.as_ref().map(Overview::problems).unwrap_or_default();
    for (place, problem) in problems.iter().take(PROBLEMS_MAX).enumerate() {
        if y >= lines_max {
            break;
        }
        let more = problems.len() - PROBLEMS_MAX.min(problems.len());
        let mut line = Line::new(buffer, ink, y);
        if place + 1 == PROBLEMS_MAX && more > 0 {
            line.put(&format!("(and {more} more) "), Tint::Bad);
        }
        line.put(problem, Tint::Bad);
        y += 1;
    }
    y
}

/// Facts in lines of this width, two blanks between them.
fn flow(facts: Vec<(String, Tint)>, width: usize) -> Vec<Vec<(String, Tint)>> {
    let mut lines: Vec<Vec<(String, Tint)>> = Vec::new();
    let mut used = 0;
    for (text, tint) in facts {
        let columns = clean(&text).width();
        match lines.last_mut() {
            Some(line) if used + 2 + columns <= width => {
                used += 2 + columns;
                line.push((text, tint));
            }
            _ => {
                used = columns;
                lines.push(vec![(text, tint)]);
            }
        }
    }
    lines
}

/// What is always to be seen of the daemon, most important first.
fn facts(status: &Status, overview: Option<&Overview>, page: &Page) -> Vec<(String, Tint)> {
    let mut all = vec![
        (format!("margay {}", status.version), Tint::Strong),
        (format!("AS {}", status.asn), Tint::Plain),
        (status.router_id.clone(), Tint::Plain),
        (format!("up {}", age(status.uptime_seconds)), Tint::Plain),
        match &status.not_ready {
            None => ("ready".to_owned(), Tint::Good),
            Some(_) => ("not ready".to_owned(), Tint::Bad),
        },
    ];
    let is_whole = status.peers == status.peers_established;
    let (up, peers) = (status.peers_established, status.peers);
    let tint = if is_whole { Tint::Good } else { Tint::Bad };
    all.push((format!("peers {up}/{peers} up"), tint));
    if status.peers_drained > 0 {
        all.push((format!("{} drained", status.peers_drained), Tint::Pending));
    }
    if *page == Page::Peers {
        all.extend(rates(overview));
    }
    all.extend(kernel(status));
    let (v4, v6) = (status.destinations.ipv4, status.destinations.ipv6);
    let paths = u64::from(status.paths.ipv4) + u64::from(status.paths.ipv6);
    all.push((
        format!(
            "routes {} ipv4 {} ipv6 ({} paths)",
            count(v4.into()),
            count(v6.into()),
            count(paths)
        ),
        Tint::Plain,
    ));
    let queues = status.queues;
    let waits = queues.received_octets + queues.update_log_octets > 0;
    all.push((
        format!(
            "queues {} in {} out",
            octets(queues.received_octets),
            octets(queues.update_log_octets)
        ),
        if waits { Tint::Strong } else { Tint::Plain },
    ));
    if queues.evictions > 0 {
        all.push((format!("{} evictions", count(queues.evictions)), Tint::Pending));
    }
    let sessions = overview.iter().flat_map(|o| &o.peers).filter_map(|peer| peer.bfd.as_deref());
    let (up, down): (Vec<&str>, Vec<&str>) = sessions.partition(|state| *state == "Up");
    if up.len() + down.len() > 0 {
        let tint = if down.is_empty() { Tint::Good } else { Tint::Bad };
        all.push((format!("BFD {}/{} up", up.len(), up.len() + down.len()), tint));
    }
    for source in status.calico.iter().flat_map(|calico| &calico.sources) {
        let tint = if source.state == "current" { Tint::Good } else { Tint::Bad };
        all.push((format!("datastore {}", source.state), tint));
    }
    all
}

fn rates(overview: Option<&Overview>) -> [(String, Tint); 2] {
    let Some(total) = overview.and_then(|overview| overview.total) else {
        return ["in -", "out -"].map(|text| (text.to_owned(), Tint::Plain));
    };
    let of = |label: &str, prefixes: f64, updates: f64| {
        let tint = if prefixes + updates > 0.0 { Tint::Strong } else { Tint::Plain };
        (format!("{label} {} pfx/s {} upd/s", rate(prefixes), rate(updates)), tint)
    };
    [
        of("in", total.prefixes_in, total.updates_in),
        of("out", total.prefixes_out, total.updates_out),
    ]
}

fn kernel(status: &Status) -> Vec<(String, Tint)> {
    let all = status.vrfs.iter().map(|vrf| vrf.fib).fold(status.fib, |mut all, more| {
        all.installed += more.installed;
        all.pending += more.pending;
        all.failed += more.failed;
        all.foreign += more.foreign;
        all
    });
    if !all.enabled {
        return vec![("fib off".to_owned(), Tint::Plain)];
    }
    let mut facts = vec![(format!("fib {}", count(all.installed)), Tint::Plain)];
    for (number, word, tint) in [
        (all.pending, "pending", Tint::Pending),
        (all.failed, "failed", Tint::Bad),
        (all.foreign, "foreign", Tint::Pending),
    ] {
        if number > 0 {
            facts.push((format!("{} {word}", count(number)), tint));
        }
    }
    facts
}

fn footer(state: &State, _ink: Ink, line: &mut Line<'_>) {
    if state.mode == Mode::Filter {
        let is_peers = state.page == Page::Peers;
        let filter = if is_peers { &state.filter } else { &state.route_filter };
        line.put(&format!("/{filter}"), Tint::Strong);
        line.put("_", Tint::Plain);
        return;
    }
    if state.flow == Flow::Paused {
        line.put("PAUSED ", Tint::Pending);
    }
    let keys = match (state.mode, &state.page) {
        (Mode::Help, _) => "any key: back".to_owned(),
        (_, Page::Peers) => {
            let place = if state.shown.is_empty() { 0 } else { state.row + 1 };
            let filter = match state.filter.as_str() {
                "" => String::new(),
                filter => format!(" \"{filter}\""),
            };
            let (count, sort) = (state.shown.len(), state.sort.label());
            format!(
                "{place}/{count}{filter} by {sort}  Enter peer  s order  / filter  space pause  ? help  q quit"
            )
        }
        (_, Page::Peer { tab: Tab::Summary, .. }) => {
            "Enter routes  Tab received, advertised  space pause  ? help  Esc back".to_owned()
        }
        (_, Page::Peer { .. }) => {
            let more = match state.content() {
                Some(Content::Routes { more: true, .. }) => "+",
                _ => "",
            };
            let shown = state.routes().len();
            let place = if shown == 0 { 0 } else { state.route_row + 1 };
            let filter = match state.route_filter.as_str() {
                "" => String::new(),
                filter => format!(" \"{filter}\""),
            };
            format!(
                "{place}/{shown}{more}{filter}  Enter explain  Tab next  / prefix  ? help  Esc back"
            )
        }
        (_, Page::Explain { .. }) => "Up, Down scroll  space pause  ? help  Esc back".to_owned(),
    };
    line.put(&keys, Tint::Faint);
}
