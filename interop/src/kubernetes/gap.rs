//! How long a node has no BGP speaker while its container is replaced, as its neighbours and the
//! readers of `bird.ctl` see it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bird2::ask;
use crate::lab::Host;

/// Pause between two queries: the precision of [`Answers`].
const STEP: Duration = Duration::from_millis(10);
const SECONDS_OF_DAY: f64 = 86_400.0;

/// A time during which a session or the socket was missing.
#[derive(Debug, Clone)]
pub struct Gap {
    /// The name of the node that owns the `bird.ctl`.
    pub node: String,
    /// The session, or [`SOCKET`] when there was no answer.
    pub what: String,
    /// When it was last seen before.
    pub from: Instant,
    /// When it was seen again.
    pub to: Instant,
}

/// Denotes the socket itself among the names of sessions.
pub const SOCKET: &str = "bird.ctl";

/// Queries `bird.ctl` of some nodes for their sessions until it is dropped.
#[derive(Debug)]
pub struct Answers {
    stop: Arc<AtomicBool>,
    gaps: Arc<Mutex<Vec<Gap>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What one node has answered.
#[derive(Debug, Default)]
struct Seen {
    /// By name: when it was last seen, and whether it has been missing since.
    last: BTreeMap<String, (Instant, bool)>,
}

impl Seen {
    fn note(&mut self, what: &str, is_there: bool) -> Option<(Instant, Instant)> {
        let now = Instant::now();
        if !is_there {
            if let Some((_, is_gone)) = self.last.get_mut(what) {
                *is_gone = true;
            }
            return None;
        }
        let (from, was_gone) = self.last.insert(what.to_owned(), (now, false))?;
        was_gone.then_some((from, now))
    }

    /// The gaps that end with this answer. Without an answer only the socket is missing: nothing is
    /// known about the node's sessions.
    fn read(&mut self, node: &str, answer: Result<String>) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut note = |what: &str, is_there| {
            if let Some((from, to)) = self.note(what, is_there) {
                gaps.push(Gap { node: node.to_owned(), what: what.to_owned(), from, to });
            }
        };
        note(SOCKET, answer.is_ok());
        for line in answer.unwrap_or_default().lines().filter(|line| line.contains(" BGP ")) {
            // The first line has the code of the reply before the name.
            let line = line.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
            let name = line.split(' ').next().unwrap_or_default();
            note(name, line.contains("Established"));
        }
        gaps
    }
}

impl Answers {
    /// Starts a thread for each host.
    #[must_use]
    pub fn start(hosts: &[Host]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let gaps = Arc::new(Mutex::new(Vec::new()));
        let begin = |host: &Host| {
            let (stop, gaps, host) = (Arc::clone(&stop), Arc::clone(&gaps), host.clone());
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(&host.file(SOCKET), "show protocols", "0000");
                    let found = seen.read(host.name(), answer);
                    gaps.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                    std::thread::sleep(STEP);
                }
            })
        };
        let threads = hosts.iter().map(begin).collect();
        Self { stop, gaps, threads }
    }

    /// The gaps that have ended since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Gap> {
        std::mem::take(&mut *self.gaps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Times without a session with a neighbour in the log of an FRR with `log timestamp precision 6`.
///
/// # Errors
/// When a line has no timestamp.
pub fn gaps_of_frr(log: &str, neighbor: IpAddr) -> Result<Vec<Duration>> {
    let lines = log.lines().filter_map(|line| {
        let (_, change) = line.split_once(&format!("%ADJCHANGE: neighbor {neighbor}("))?;
        let is_up = change.split_once(" in vrf default ")?.1.starts_with("Up");
        Some((line.split(' ').nth(1)?, is_up))
    });
    gaps(lines)
}

/// The same in margay's log.
///
/// # Errors
/// As [`gaps_of_frr`].
pub fn gaps_of_margay(log: &str, neighbor: IpAddr) -> Result<Vec<Duration>> {
    let established = format!("session established with {neighbor} ");
    let peer = |line: &str| Some(line.split_once("peer=")?.1.split(' ').next()?.to_owned());
    let name = log.lines().find(|line| line.contains(&established)).and_then(peer);
    let lines = log.lines().filter_map(|line| {
        let is_up = line.contains(&established);
        let is_down = line.contains("session closed") && peer(line) == name;
        let time = line.split_once('T')?.1.split('Z').next()?;
        (is_up || is_down).then_some((time, is_up))
    });
    gaps(lines)
}

fn gaps<'a>(lines: impl Iterator<Item = (&'a str, bool)>) -> Result<Vec<Duration>> {
    let (mut gaps, mut since) = (Vec::new(), None);
    for (time, is_up) in lines {
        let clock: Result<Vec<f64>, _> = time.split(':').map(str::parse).collect();
        let clock = clock.with_context(|| time.to_owned())?;
        let at = clock.iter().fold(0.0, |sum, part| sum * 60.0 + part);
        if !is_up {
            since = since.or(Some(at));
        } else if let Some(since) = since.take() {
            // A gap may span midnight: the log's times are those of the day.
            gaps.push(Duration::from_secs_f64((at - since).rem_euclid(SECONDS_OF_DAY)));
        }
    }
    Ok(gaps)
}
