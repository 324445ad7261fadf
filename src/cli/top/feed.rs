//! Asks the daemon, again and again, on a thread of its own: a daemon that does not answer delays no key.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bgp_proto::types::Prefix;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;

use super::Input;
use super::sample::{Overview, Peer};
use super::state::{Content, Detail, Flow, News, Page, RouteRow, Tab, Wanted};
use crate::cli::client::{Client, ClientError};
use crate::cli::render::{Colour, Look, Renderer, Times, as_path, communities, flags};
use crate::ctl::item::{Route, Status};
use crate::ctl::{Lookup, Request, RouteSelection, Span};

/// How long to wait for each line of an answer.
const LINE_WAIT: Duration = Duration::from_secs(5);
/// Pause after a failure, at least: a daemon that is away is not asked more often.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// The pause between two rounds is at least this many times the CPU time of one: with thousands of
/// peers the screen follows less often, and costs no more.
const PAUSE_TO_WORK: u32 = 80;
/// The pause after a round is at least this many times the time that its answers took: to select the first
/// routes of a full table, the daemon walks over all of it.
const PAUSE_TO_ANSWERS: u32 = 10;
/// Most routes of a page. More cannot be read, and a full table takes minutes to list.
const ROUTES_MAX: u32 = 1_000;
/// Longest text of a page, in lines.
const LINES_MAX: usize = 5_000;

/// What is to be asked. It is state, not a queue: a page that was left before it was asked for is not
/// asked for.
#[derive(Clone)]
pub(super) struct Desk {
    shared: Arc<(Mutex<Order>, Condvar)>,
}

/// What is wanted, and the how manieth page that was opened it is: a page that is left and opened again is
/// asked for again, although it is the same one.
#[derive(Clone)]
struct Order {
    wanted: Wanted,
    opened: u64,
}

impl Desk {
    pub(super) fn new(wanted: Wanted) -> Self {
        let order = Order { wanted, opened: 0 };
        Desk { shared: Arc::new((Mutex::new(order), Condvar::new())) }
    }

    /// Replaces what is wanted; another page is asked for at once.
    pub(super) fn want(&self, wanted: Wanted) {
        let (lock, changed) = &*self.shared;
        let mut current = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if current.wanted != wanted {
            current.opened += u64::from(current.wanted.page != wanted.page);
            current.wanted = wanted;
            changed.notify_one();
        }
    }

    fn current(&self) -> MutexGuard<'_, Order> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is time for the next round, or something else is wanted than was `asked` last.
    fn wait(&self, asked: &Order, until: Instant) -> Order {
        let mut current = self.current();
        loop {
            let is_same =
                current.opened == asked.opened && current.wanted.prefix == asked.wanted.prefix;
            let is_due = match (current.wanted.flow, is_same) {
                // A pause keeps the list, and fetches a page once whenever it is opened.
                (Flow::Paused, same) => !same && current.wanted.page != Page::Peers,
                (Flow::Live, false) => true,
                (Flow::Live, true) => Instant::now() >= until,
            };
            if is_due {
                return current.clone();
            }
            let left = match current.wanted.flow {
                Flow::Live => until.saturating_duration_since(Instant::now()),
                // Until something changes; the time only bounds the wait.
                Flow::Paused => Duration::from_secs(3600),
            };
            let waited = self.shared.1.wait_timeout(current, left);
            current = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Where and how often to ask.
pub(super) struct Feed {
    pub(super) socket: PathBuf,
    pub(super) interval: Duration,
    pub(super) times: Times,
    pub(super) desk: Desk,
    pub(super) inputs: SyncSender<Input>,
}

impl Feed {
    /// Asks until nobody takes the answers.
    pub(super) fn run(self) {
        let began = Instant::now();
        let mut client = None;
        let mut order = self.desk.current().clone();
        loop {
            let work = cpu_time();
            let (asked_at, answer) = (Instant::now(), self.round(&mut client, &order.wanted));
            let (at, took) = (began.elapsed(), asked_at.elapsed());
            let mut pause = self.interval;
            let news = answer.map(|news| stamped(news, at)).unwrap_or_else(|error| {
                // The next round begins with a connection of its own.
                client = None;
                pause = pause.max(RETRY_WAIT);
                News::Failed { at, text: error.to_string() }
            });
            if self.inputs.send(Input::News(news)).is_err() {
                return;
            }
            let spent = cpu_time().saturating_sub(work).saturating_mul(PAUSE_TO_WORK);
            let rested = Instant::now() + took.saturating_mul(PAUSE_TO_ANSWERS);
            order = self.desk.wait(&order, rested.max(asked_at + pause.max(spent)));
        }
    }

    fn round(&self, open: &mut Option<Client>, wanted: &Wanted) -> Result<News, ClientError> {
        let client = match open {
            Some(client) => client,
            None => open.insert(Client::connect_for(&self.socket, LINE_WAIT)?),
        };
        let statuses: Vec<Status> = items(client, &Request::ShowStatus)?;
        let status = statuses.into_iter().next().unwrap_or_default();
        if wanted.page == Page::Peers {
            let peers: Vec<Peer> = items(client, &Request::ShowPeers)?;
            let overview = Overview::new(Duration::ZERO, status, peers);
            return Ok(News::Overview(Box::new(overview)));
        }
        let content = match self.content(client, wanted) {
            Ok(content) => content,
            Err(ClientError::Refused(refusal)) => Content::Refused(refusal.text),
            Err(error) => return Err(error),
        };
        Ok(News::Detail(Box::new(Detail { wanted: wanted.clone(), status, content })))
    }

    fn content(&self, client: &mut Client, wanted: &Wanted) -> Result<Content, ClientError> {
        match &wanted.page {
            Page::Peers => Ok(Content::Text(Vec::new())),
            Page::Peer { name, tab: Tab::Summary } => {
                self.text(client, &Request::ShowPeer { name: name.clone() })
            }
            Page::Peer { name, tab } => {
                let (peer, select) = (name.clone(), selection(wanted.prefix));
                let request = match tab {
                    Tab::Advertised => Request::ShowAdvertised { peer, select },
                    Tab::Received | Tab::Summary => Request::ShowReceived { peer, select },
                };
                let routes: Vec<Route> = items(client, &request)?;
                let more = routes.len() >= ROUTES_MAX as usize;
                Ok(Content::Routes { rows: routes.iter().flat_map(rows).collect(), more })
            }
            Page::Explain { peer, prefix, .. } => {
                let peer = Some(peer.clone());
                let (prefix, lookup) = (*prefix, Lookup::Exact);
                let request = Request::Explain { prefix, lookup, vantage: None, vrf: None, peer };
                self.text(client, &request)
            }
        }
    }

    /// The answer as the command of the request prints it.
    fn text(&self, client: &mut Client, request: &Request) -> Result<Content, ClientError> {
        let mut out = Vec::new();
        let look = Look::new(None, Colour::Off, self.times);
        let mut renderer = Renderer::new(request, look, &mut out);
        client.ask(request, |item| renderer.item(item))?;
        renderer.finish()?;
        let text = String::from_utf8_lossy(&out);
        Ok(Content::Text(text.lines().take(LINES_MAX).map(str::to_owned).collect()))
    }
}

fn stamped(news: News, at: Duration) -> News {
    match news {
        News::Overview(overview) => News::Overview(Box::new(Overview { at, ..*overview })),
        news => news,
    }
}

fn items<T: DeserializeOwned>(
    client: &mut Client,
    request: &Request,
) -> Result<Vec<T>, ClientError> {
    let mut all = Vec::new();
    client.ask(request, |item| {
        all.push(serde_json::from_str(item).map_err(ClientError::Answer)?);
        Ok(())
    })?;
    Ok(all)
}

fn selection(prefix: Option<(Prefix, Lookup)>) -> RouteSelection {
    let span = match prefix {
        Some((_, Lookup::Longest)) => Span::Lookup,
        Some((_, Lookup::Exact)) => Span::Longer,
        None => Span::Exact,
    };
    let prefix = prefix.map(|(prefix, _)| prefix);
    RouteSelection { prefix, span, limit: Some(ROUTES_MAX), ..RouteSelection::default() }
}

fn rows(route: &Route) -> Vec<RouteRow> {
    let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
    let row = |path: &crate::ctl::item::Path| RouteRow {
        prefix: route.prefix,
        marks: flags(path),
        next_hop: path.next_hop.map(|hop| hop.to_string()).unwrap_or_default(),
        as_path: as_path(&path.as_path),
        med: number(path.med),
        local_pref: number(path.local_pref),
        communities: communities(path),
        unusable: path.unusable.clone().unwrap_or_default(),
    };
    route.paths.iter().map(row).collect()
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A page that is opened during a pause is asked for, also if it is the one that was open before:
    /// the session of its peer may have begun anew since.
    #[test]
    fn a_pause_asks_once_for_each_page_that_is_opened() {
        let page = |name: &str| Page::Peer { name: name.into(), tab: Tab::Summary };
        let paused = |page| Wanted { page, prefix: None, flow: Flow::Paused };
        let desk = Desk::new(paused(page("a")));
        let (asked, orders) = channel();
        let (waiting, mut order) = (desk.clone(), desk.current().clone());
        std::thread::spawn(move || {
            loop {
                order = waiting.wait(&order, Instant::now());
                if asked.send(order.wanted.page.clone()).is_err() {
                    return;
                }
            }
        });
        let next = || orders.recv_timeout(Duration::from_secs(20)).unwrap();
        for name in ["a", "a", "b"] {
            desk.want(paused(Page::Peers));
            desk.want(paused(page(name)));
            assert_eq!(next(), page(name), "neither the list nor nothing");
        }
        // Nothing else was asked for.
        assert!(orders.try_recv().is_err());
    }
}
