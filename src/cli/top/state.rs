//! What is looked at: a pure function of keys and answers. Nothing here asks or draws.

use std::time::Duration;

use bgp_proto::types::Prefix;

use super::sample::{Overview, Peer, Rates};
use crate::ctl::item::Status;
use crate::ctl::{Destination, Lookup};

/// Longest text of a filter, in characters.
const FILTER_LEN_MAX: usize = 80;

/// A key, as far as it means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Back,
    Tab,
    BackTab,
    Erase,
    Char(char),
    /// Ctrl-C, which is no signal on a terminal in raw mode.
    Interrupt,
    /// Ctrl-Z, likewise.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// What a key asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Draw,
    Redraw,
    Suspend,
    Quit,
}

/// What is shown of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Summary,
    Received,
    Advertised,
}

impl Tab {
    pub(super) const ALL: [Tab; 3] = [Tab::Summary, Tab::Received, Tab::Advertised];

    pub(super) fn label(self) -> &'static str {
        match self {
            Tab::Summary => "peer",
            Tab::Received => "received",
            Tab::Advertised => "advertised",
        }
    }

    fn next(self) -> Self {
        match self {
            Tab::Summary => Tab::Received,
            Tab::Received => Tab::Advertised,
            Tab::Advertised => Tab::Summary,
        }
    }

    fn previous(self) -> Self {
        self.next().next()
    }
}

/// The page that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Peers,
    Peer { name: String, tab: Tab },
    Explain { peer: String, tab: Tab, prefix: Prefix },
}

/// Whether the screen follows the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Live,
    Paused,
}

/// What the keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    /// Letters go to the filter.
    Filter,
    Help,
}

/// The order of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// Prefixes and UPDATEs per second, then the latest change of state.
    Changes,
    /// Those without a session first.
    State,
    Received,
    Advertised,
    Flaps,
    Name,
}

impl Sort {
    const ALL: [Sort; 6] =
        [Sort::Changes, Sort::State, Sort::Received, Sort::Advertised, Sort::Flaps, Sort::Name];

    pub(super) fn label(self) -> &'static str {
        match self {
            Sort::Changes => "changes",
            Sort::State => "state",
            Sort::Received => "received",
            Sort::Advertised => "advertised",
            Sort::Flaps => "flaps",
            Sort::Name => "name",
        }
    }

    fn step(self, by: usize) -> Self {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or_default();
        Sort::ALL.into_iter().cycle().nth(at + by).unwrap_or(self)
    }

    fn compare(self, a: (&Peer, Option<Rates>), b: (&Peer, Option<Rates>)) -> std::cmp::Ordering {
        let ((a, a_rates), (b, b_rates)) = (a, b);
        let changes = |rates: Option<Rates>| rates.map_or(0.0, |rates| rates.changes());
        let order = match self {
            Sort::Changes => changes(b_rates)
                .total_cmp(&changes(a_rates))
                .then(a.state_seconds.cmp(&b.state_seconds)),
            Sort::State => a
                .is_established()
                .cmp(&b.is_established())
                .then(a.state_seconds.cmp(&b.state_seconds)),
            Sort::Received => b.prefixes_received.cmp(&a.prefixes_received),
            Sort::Advertised => b.prefixes_advertised.cmp(&a.prefixes_advertised),
            Sort::Flaps => b.flaps.cmp(&a.flaps),
            Sort::Name => std::cmp::Ordering::Equal,
        };
        order.then_with(|| a.name.cmp(&b.name))
    }
}

/// A path in the list of a peer's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteRow {
    pub(super) prefix: Prefix,
    pub(super) marks: String,
    pub(super) next_hop: String,
    pub(super) as_path: String,
    pub(super) med: String,
    pub(super) local_pref: String,
    pub(super) communities: String,
    pub(super) unusable: String,
}

/// The content of a page about one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text(Vec<String>),
    Routes {
        rows: Vec<RouteRow>,
        /// Whether the daemon has more than were asked for.
        more: bool,
    },
    /// Why there is none, such as a peer that has been removed.
    Refused(String),
}

/// A page about one peer, as it was answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Detail {
    pub(super) wanted: Wanted,
    pub(super) status: Status,
    pub(super) content: Content,
}

/// What the daemon is to be asked, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) page: Page,
    /// Only routes to this prefix, or to more specific ones of it.
    pub(super) prefix: Option<(Prefix, Lookup)>,
    pub(super) flow: Flow,
}

/// An answer, or why there is none.
#[derive(Debug)]
pub(super) enum News {
    Overview(Box<Overview>),
    Detail(Box<Detail>),
    Failed { at: Duration, text: String },
}

/// Whether the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Up,
    Away { since: Duration, now: Duration, text: String },
}

/// Everything that a screen is drawn from.
#[derive(Debug)]
pub(super) struct State {
    pub(super) page: Page,
    pub(super) mode: Mode,
    pub(super) flow: Flow,
    pub(super) sort: Sort,
    /// Of peers.
    pub(super) filter: String,
    /// Of a peer's routes.
    pub(super) route_filter: String,
    pub(super) link: Link,
    pub(super) overview: Option<Overview>,
    pub(super) detail: Option<Detail>,
    /// The peers that the filter lets through, in order.
    pub(super) shown: Vec<usize>,
    /// The name of the chosen peer: it stays chosen when the order changes.
    chosen: Option<String>,
    /// The place of the chosen peer, and of the chosen route.
    pub(super) row: usize,
    pub(super) route_row: usize,
    /// The first line of a text.
    pub(super) scroll: usize,
    /// Rows of the list that fit the screen, as of the last time it was drawn.
    pub(super) rows_visible: usize,
}

impl State {
    /// The state at the start: the list of peers, or one of them.
    pub(super) fn new(peer: Option<String>, filter: Option<String>) -> Self {
        let page = peer.map_or(Page::Peers, |name| Page::Peer { name, tab: Tab::Summary });
        State {
            page,
            mode: Mode::Browse,
            flow: Flow::Live,
            sort: Sort::Changes,
            filter: filter.unwrap_or_default(),
            route_filter: String::new(),
            link: Link::Connecting,
            overview: None,
            detail: None,
            shown: Vec::new(),
            chosen: None,
            row: 0,
            route_row: 0,
            scroll: 0,
            rows_visible: 1,
        }
    }

    /// What to ask the daemon.
    pub(super) fn wanted(&self) -> Wanted {
        let is_routes =
            matches!(self.page, Page::Peer { tab: Tab::Received | Tab::Advertised, .. });
        let asked: Option<Destination> = self.route_filter.trim().parse().ok();
        let asked = asked.filter(|_| is_routes);
        let prefix = asked.map(|asked| (asked.prefix, asked.lookup));
        Wanted { page: self.page.clone(), prefix, flow: self.flow }
    }

    /// The status that came with the latest answer.
    pub(super) fn status(&self) -> Option<&Status> {
        match (&self.page, &self.detail) {
            (Page::Peers, _) | (_, None) => self.overview.as_ref().map(|o| &o.status),
            (_, Some(detail)) => Some(&detail.status),
        }
    }

    /// The chosen peer.
    pub(super) fn peer(&self) -> Option<&Peer> {
        let overview = self.overview.as_ref()?;
        overview.peers.get(*self.shown.get(self.row)?)
    }

    /// The answer to the page that is open.
    pub(super) fn content(&self) -> Option<&Content> {
        let detail = self.detail.as_ref().filter(|detail| detail.wanted.page == self.page)?;
        Some(&detail.content)
    }

    /// The routes that the filter lets through.
    pub(super) fn routes(&self) -> Vec<&RouteRow> {
        let Some(Content::Routes { rows, .. }) = self.content() else { return Vec::new() };
        let filter = self.route_filter.trim().to_lowercase();
        // The daemon has applied a prefix.
        let is_applied = filter.is_empty() || self.wanted().prefix.is_some();
        let holds = |row: &&RouteRow| {
            let texts = [
                &row.prefix.to_string(),
                &row.next_hop,
                &row.as_path,
                &row.communities,
                &row.unusable,
            ];
            is_applied || texts.iter().any(|text| text.to_lowercase().contains(&filter))
        };
        rows.iter().filter(holds).collect()
    }

    /// Takes an answer.
    pub(super) fn handle_news(&mut self, news: News) {
        match news {
            News::Overview(overview) => {
                self.link = Link::Up;
                let mut overview = *overview;
                if let Some(before) = &self.overview {
                    overview.compare(before);
                }
                self.overview = Some(overview);
                self.arrange();
            }
            News::Detail(detail) => {
                self.link = Link::Up;
                let wanted = self.wanted();
                if (&detail.wanted.page, detail.wanted.prefix) == (&wanted.page, wanted.prefix) {
                    self.detail = Some(*detail);
                    self.route_row = self.route_row.min(self.routes().len().saturating_sub(1));
                }
            }
            News::Failed { at, text } => {
                let since = match self.link {
                    Link::Away { since, .. } => since,
                    _ => at,
                };
                self.link = Link::Away { since, now: at, text };
            }
        }
    }

    /// Filters and sorts the peers; the chosen one stays chosen if it is still there.
    fn arrange(&mut self) {
        let Some(overview) = &self.overview else { return };
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let peers = overview.peers.iter().enumerate();
        let mut shown: Vec<usize> =
            peers.filter(|(_, peer)| matches(peer, &words)).map(|(index, _)| index).collect();
        let of = |index: &usize| {
            let rates = overview.rates.get(*index).copied().flatten();
            overview.peers.get(*index).map(|peer| (peer, rates))
        };
        shown.sort_by(|a, b| match (of(a), of(b)) {
            (Some(a), Some(b)) => self.sort.compare(a, b),
            _ => a.cmp(b),
        });
        let name = |index: &usize| overview.peers.get(*index).map(|peer| &peer.name);
        let place = self
            .chosen
            .as_ref()
            .and_then(|chosen| shown.iter().position(|index| name(index) == Some(chosen)));
        self.row = place.unwrap_or(self.row).min(shown.len().saturating_sub(1));
        self.shown = shown;
        // Until a peer is chosen, the first place is: the busiest peer stays on top.
        if self.chosen.is_some() {
            self.chosen = self.peer().map(|peer| peer.name.clone());
        }
    }

    /// Takes a key.
    pub(super) fn handle_key(&mut self, key: Key) -> Effect {
        match (self.mode, key) {
            (_, Key::Interrupt) => return Effect::Quit,
            (_, Key::Suspend) => return Effect::Suspend,
            (_, Key::Redraw) => return Effect::Redraw,
            (Mode::Filter, key) => self.edit_filter(key),
            (Mode::Help, _) => self.mode = Mode::Browse,
            (Mode::Browse, Key::Char('q') | Key::Back | Key::Erase) => {
                if self.page == Page::Peers && self.filter.is_empty() {
                    return if key == Key::Erase { Effect::Draw } else { Effect::Quit };
                }
                if key == Key::Char('q') && self.page == Page::Peers {
                    return Effect::Quit;
                }
                self.back();
            }
            (Mode::Browse, Key::Char('?' | 'h')) => self.mode = Mode::Help,
            (Mode::Browse, Key::Char(' ')) => {
                self.flow = match self.flow {
                    Flow::Live => Flow::Paused,
                    Flow::Paused => Flow::Live,
                };
            }
            (Mode::Browse, Key::Char('/')) if self.filter_mut().is_some() => {
                self.mode = Mode::Filter;
            }
            (Mode::Browse, Key::Char('s')) => self.sort_by(self.sort.step(1)),
            (Mode::Browse, Key::Char('S')) => self.sort_by(self.sort.step(Sort::ALL.len() - 1)),
            (Mode::Browse, Key::Enter) => self.enter(),
            (Mode::Browse, Key::Tab) => self.turn_to(Tab::next),
            (Mode::Browse, Key::BackTab) => self.turn_to(Tab::previous),
            (Mode::Browse, key) => self.step(key),
        }
        Effect::Draw
    }

    fn sort_by(&mut self, sort: Sort) {
        if self.page == Page::Peers {
            self.sort = sort;
            self.arrange();
        }
    }

    fn filter_mut(&mut self) -> Option<&mut String> {
        match self.page {
            Page::Peers => Some(&mut self.filter),
            Page::Peer { tab: Tab::Received | Tab::Advertised, .. } => Some(&mut self.route_filter),
            Page::Peer { .. } | Page::Explain { .. } => None,
        }
    }

    fn edit_filter(&mut self, key: Key) {
        let Some(filter) = self.filter_mut() else {
            self.mode = Mode::Browse;
            return;
        };
        match key {
            Key::Char(c) if filter.chars().count() < FILTER_LEN_MAX && !c.is_control() => {
                filter.push(c);
            }
            Key::Erase => drop(filter.pop()),
            Key::Back => {
                filter.clear();
                self.mode = Mode::Browse;
            }
            Key::Enter => self.mode = Mode::Browse,
            _ => {}
        }
        self.arrange();
        self.route_row = 0;
    }

    /// Leaves a page, or removes the filter.
    fn back(&mut self) {
        self.scroll = 0;
        match &self.page {
            Page::Peers => {
                self.filter.clear();
                self.arrange();
            }
            Page::Peer { tab: Tab::Received | Tab::Advertised, .. }
                if !self.route_filter.is_empty() =>
            {
                self.route_filter.clear();
                self.route_row = 0;
            }
            Page::Peer { .. } => {
                self.page = Page::Peers;
                self.detail = None;
            }
            Page::Explain { peer, tab, .. } => {
                self.page = Page::Peer { name: peer.clone(), tab: *tab };
                self.detail = None;
            }
        }
    }

    fn enter(&mut self) {
        let next = match &self.page {
            Page::Peers => {
                let Some(peer) = self.peer() else { return };
                let name = peer.name.clone();
                self.chosen = Some(name.clone());
                Page::Peer { name, tab: Tab::Summary }
            }
            Page::Peer { tab: Tab::Summary, .. } => return self.turn_to(Tab::next),
            Page::Peer { name, tab } => {
                let routes = self.routes();
                let Some(row) = routes.get(self.route_row) else { return };
                Page::Explain { peer: name.clone(), tab: *tab, prefix: row.prefix }
            }
            Page::Explain { .. } => return,
        };
        if self.page == Page::Peers {
            self.route_row = 0;
            self.route_filter.clear();
        }
        self.page = next;
        self.scroll = 0;
    }

    fn turn_to(&mut self, next: impl FnOnce(Tab) -> Tab) {
        if let Page::Peer { tab, .. } = &mut self.page {
            *tab = next(*tab);
            self.scroll = 0;
            self.route_row = 0;
        }
    }

    /// Moves in a list or a text.
    fn step(&mut self, key: Key) {
        let page = self.rows_visible.max(1);
        let (place, count) = match &self.page {
            Page::Peers => (&mut self.row, self.shown.len()),
            Page::Peer { tab: Tab::Received | Tab::Advertised, .. } => {
                let count = self.routes().len();
                (&mut self.route_row, count)
            }
            // What is drawn bounds it.
            Page::Peer { .. } | Page::Explain { .. } => (&mut self.scroll, usize::MAX),
        };
        let last = count.saturating_sub(1);
        *place = match key {
            Key::Up | Key::Char('k') => place.saturating_sub(1),
            Key::Down | Key::Char('j') => place.saturating_add(1),
            Key::PageUp => place.saturating_sub(page),
            Key::PageDown => place.saturating_add(page),
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            _ => return,
        }
        .min(last);
        if self.page == Page::Peers {
            self.chosen = self.peer().map(|peer| peer.name.clone());
        }
    }
}

/// Whether a peer has every word in its name, description, address, AS, VRF or state.
fn matches(peer: &Peer, words: &[String]) -> bool {
    let asn = format!("as{}", peer.remote_asn);
    let lower = |text: &str| text.to_lowercase();
    let texts = [
        lower(&peer.name),
        lower(&peer.address),
        lower(&peer.state),
        asn,
        lower(peer.description.as_deref().unwrap_or_default()),
        lower(peer.vrf.as_deref().unwrap_or_default()),
    ];
    words.iter().all(|word| texts.iter().any(|text| text.contains(word.as_str())))
}
