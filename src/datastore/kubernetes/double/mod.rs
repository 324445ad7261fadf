//! An in-process API server over real HTTP/2, in simulated time. It imitates what real servers have
//! been seen to do.

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::api::{Dial, Dialled, Protocol};
use super::credentials::{Bearer, Scheme};

/// The path of a collection.
pub(super) const NODES: &str = "/api/v1/nodes";
pub(super) const POOLS: &str = "/apis/crd.projectcalico.org/v1/ippools";
pub(super) const PEERS: &str = "/apis/crd.projectcalico.org/v1/bgppeers";
pub(super) const CONFIGURATIONS: &str = "/apis/crd.projectcalico.org/v1/bgpconfigurations";
pub(super) const FILTERS: &str = "/apis/crd.projectcalico.org/v1/bgpfilters";
pub(super) const AFFINITIES: &str = "/apis/crd.projectcalico.org/v1/blockaffinities";

/// How long the storage of a kind takes to initialise.
const BEGINNING: Duration = Duration::from_millis(200);
/// Number of past versions that can be restored.
const HISTORY_MAX: usize = 40;

/// The handle of a test to the server.
#[derive(Clone)]
pub(super) struct Double {
    state: Arc<Mutex<State>>,
    /// Notified at every change of the state.
    changed: watch::Sender<u64>,
}

/// What happens to the current connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// They are reset.
    Reset,
    /// GOAWAY; open streams continue.
    GoAway,
    /// Nothing is read or written any more.
    Freeze,
}

/// How requests are answered wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A status with a body.
    Status(u16, &'static str),
    /// 429 with `Retry-After`.
    Busy(u64),
    /// 200 with the HTML page of a proxy.
    Html,
    /// A stream error after the head.
    Broken,
    /// The head is sent after this long.
    Late(Duration),
    /// 422 for a request with a parameter that not every server knows.
    Odd,
    /// Watches end right after the head; lists are answered.
    EndsAtOnce,
    /// 504 for requests that read from etcd: the server has lost it.
    Stuck,
}

/// Variations that the API allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manners {
    /// No bookmarks are sent.
    pub(super) has_no_bookmarks: bool,
    /// Every event is sent twice.
    pub(super) repeats: bool,
    /// Maximum number of objects per page; 0: the requested limit.
    pub(super) page_max: usize,
}

pub(super) struct State {
    pub(super) version: u64,
    /// Writes since the start, restores included, so that no two objects are alike.
    writes: u64,
    /// The newest version from which no watch is served any more.
    pub(super) compacted: u64,
    objects: Objects,
    /// Every change since the start.
    log: Vec<Change>,
    /// Earlier versions, for a restore.
    history: Vec<(u64, Objects)>,
    pub(super) missing: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
    /// By collection; "" is every request.
    pub(super) wrong: BTreeMap<String, Wrong>,
    pub(super) refuses_connections: bool,
    pub(super) tokens: Option<BTreeSet<String>>,
    /// Number of requests by path, and "list" or "watch".
    pub(super) asked: BTreeMap<(String, &'static str), u64>,
    pub(super) dials: u64,
    /// What happens to connections up to a number.
    cuts: Vec<(u64, Cut)>,
    /// Counters of `end_watches` and `reset_watches`: a watch that began before ends normally, or
    /// with RST_STREAM.
    ends: u64,
    resets: u64,
    /// Octets per frame.
    pub(super) chunk: usize,
    pub(super) manners: Manners,
    /// How many further watches begin with an event from before their version.
    pub(super) stale_events: u32,
    /// How many further pages are refused because their version has expired.
    pub(super) expired_pages: u32,
    /// Kinds whose storage initialises, and until when they answer 429.
    pub(super) begins: BTreeMap<String, Instant>,
    pub(super) is_http1: bool,
    token_file: Option<std::path::PathBuf>,
}

/// By collection and name.
type Objects = BTreeMap<(String, String), Arc<Value>>;

#[derive(Clone)]
struct Change {
    version: u64,
    collection: String,
    object: Arc<Value>,
    before: Option<Arc<Value>>,
    kind: &'static str,
}

impl Double {
    /// With Calico's CRDs of `crd.projectcalico.org`, and without objects.
    pub(super) fn new() -> Self {
        let state = State {
            version: 100,
            writes: 0,
            compacted: 99,
            objects: BTreeMap::new(),
            log: Vec::new(),
            history: Vec::new(),
            missing: BTreeSet::new(),
            groups: BTreeSet::from(["apps".to_owned(), "crd.projectcalico.org".to_owned()]),
            wrong: BTreeMap::new(),
            refuses_connections: false,
            tokens: None,
            asked: BTreeMap::new(),
            dials: 0,
            cuts: Vec::new(),
            ends: 0,
            resets: 0,
            chunk: usize::MAX,
            manners: Manners::default(),
            stale_events: 0,
            expired_pages: 0,
            begins: BTreeMap::new(),
            is_http1: false,
            token_file: None,
        };
        let (changed, _) = watch::channel(0);
        Double { state: Arc::new(Mutex::new(state)), changed }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the state, and wakes the watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        done
    }

    /// Writes an object.
    pub(super) fn put(&self, collection: &str, name: &str, object: Value) {
        self.change(|state| state.put(collection, name, object));
    }

    /// Writes an object without an event in any watch.
    pub(super) fn put_unseen(&self, collection: &str, name: &str, object: Value) {
        let mut state = self.lock();
        state.put(collection, name, object);
        state.log.pop();
    }

    /// Deletes an object without a change that anybody is told of, not even by the version.
    pub(super) fn delete_unseen(&self, collection: &str, name: &str) {
        let mut state = self.lock();
        state.delete(collection, name);
        state.log.pop();
        state.version -= 1;
    }

    pub(super) fn delete(&self, collection: &str, name: &str) {
        self.change(|state| state.delete(collection, name));
    }

    /// The names of all objects.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.lock().objects.keys().map(|(_, name)| name.clone()).collect()
    }

    /// The objects of a collection, by name.
    pub(super) fn objects(&self, collection: &str) -> BTreeMap<String, Value> {
        let state = self.lock();
        let of = state.objects.iter().filter(|((c, _), _)| c == collection);
        of.map(|((_, name), object)| (name.clone(), Value::clone(object))).collect()
    }

    pub(super) fn cut(&self, cut: Cut) {
        self.change(|state| {
            let dials = state.dials;
            state.cuts.push((dials, cut));
        });
    }

    /// Every watch ends normally.
    pub(super) fn end_watches(&self) {
        self.change(|state| state.ends += 1);
    }

    /// Every watch ends with RST_STREAM.
    pub(super) fn reset_watches(&self) {
        self.change(|state| state.resets += 1);
    }

    /// Restarts the process: connections end, and old versions are lost.
    pub(super) fn restart(&self) {
        self.cut(Cut::Reset);
        self.change(|state| state.compacted = state.version);
    }

    /// Restores the store as it was `back` changes ago, and restarts the process.
    pub(super) fn restore(&self, back: usize) {
        self.change(|state| {
            let at = state.history.len().saturating_sub(back.max(1));
            if let Some((version, objects)) = state.history.get(at).cloned() {
                state.history.truncate(at);
                state.log.retain(|change| change.version <= version);
                state.version = version;
                state.objects = objects;
            }
        });
        self.restart();
    }

    /// Deletes a CRD, its objects first.
    pub(super) fn delete_crd(&self, collection: &str) {
        for name in self.objects(collection).keys() {
            self.delete(collection, name);
        }
        self.change(|state| state.missing.insert(collection.to_owned()));
        self.end_watches();
    }

    /// Creates the CRD again, without its objects.
    pub(super) fn restore_crd(&self, collection: &str) {
        self.change(|state| {
            state.missing.remove(collection);
            state.begins.insert(collection.to_owned(), Instant::now() + BEGINNING);
        });
    }

    /// The number of "list" or "watch" requests for a collection.
    pub(super) fn asked(&self, collection: &str, how: &'static str) -> u64 {
        self.lock().asked.get(&(collection.to_owned(), how)).copied().unwrap_or_default()
    }

    /// The number of all requests.
    pub(super) fn asked_in_all(&self) -> u64 {
        self.lock().asked.values().sum()
    }

    /// Accepts only these tokens; the client reads its token from `file`.
    pub(super) fn require_tokens(&self, tokens: &[&str], file: &std::path::Path) {
        self.change(|state| {
            state.tokens = Some(tokens.iter().map(|t| (*t).to_owned()).collect());
            state.token_file = Some(file.to_path_buf());
        });
    }
}

impl State {
    pub(super) fn put(&mut self, collection: &str, name: &str, mut object: Value) {
        self.remember();
        self.version += 1;
        self.writes += 1;
        object["metadata"]["generation"] = json!(self.writes);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = (collection.to_owned(), name.to_owned());
        let object = Arc::new(object);
        let before = self.objects.insert(key, Arc::clone(&object));
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let (version, collection) = (self.version, collection.to_owned());
        self.log.push(Change { version, collection, object, before, kind });
    }

    fn delete(&mut self, collection: &str, name: &str) {
        self.remember();
        let key = (collection.to_owned(), name.to_owned());
        let Some(before) = self.objects.remove(&key) else { return };
        self.version += 1;
        let mut object = Value::clone(&before);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let (object, before) = (Arc::new(object), Some(before));
        let (version, collection) = (self.version, collection.to_owned());
        self.log.push(Change { version, collection, object, before, kind: "DELETED" });
    }

    fn remember(&mut self) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push((self.version, self.objects.clone()));
    }
}

impl Dial for Double {
    type Stream = DuplexStream;

    async fn dial(&self) -> Result<Dialled<DuplexStream>, String> {
        let (number, refuses, is_http1, token) = {
            let mut state = self.lock();
            state.dials += 1;
            (state.dials, state.refuses_connections, state.is_http1, state.token_file.clone())
        };
        if refuses {
            return Err("double: Connection refused (os error 111)".to_owned());
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let protocol = if is_http1 { Protocol::Http1 } else { Protocol::Http2 };
        tokio::spawn(server::serve(self.clone(), theirs, number, protocol));
        Ok(Dialled {
            stream: ours,
            protocol,
            scheme: Scheme::Https,
            authority: "double:443".to_owned(),
            prefix: String::new(),
            bearer: token.map_or_else(Bearer::none, |path| Bearer::of_file(&path)),
        })
    }
}
