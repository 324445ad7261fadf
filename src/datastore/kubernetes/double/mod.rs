//! An API server in the process, over real HTTP/2, in simulated time: what tests play on it is what
//! real ones were seen to do.

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

/// A collection, by its path.
pub(super) const NODES: &str = "/api/v1/nodes";
pub(super) const POOLS: &str = "/apis/crd.projectcalico.org/v1/ippools";
pub(super) const PEERS: &str = "/apis/crd.projectcalico.org/v1/bgppeers";
pub(super) const CONFIGURATIONS: &str = "/apis/crd.projectcalico.org/v1/bgpconfigurations";
pub(super) const FILTERS: &str = "/apis/crd.projectcalico.org/v1/bgpfilters";
pub(super) const AFFINITIES: &str = "/apis/crd.projectcalico.org/v1/blockaffinities";

/// How long the storage of a kind takes to begin.
const BEGINNING: Duration = Duration::from_millis(200);
/// Versions that can be restored.
const HISTORY_MAX: usize = 40;

/// The server, as a test holds it.
#[derive(Clone)]
pub(super) struct Double {
    state: Arc<Mutex<State>>,
    /// Told at every change of the state.
    changed: watch::Sender<u64>,
}

/// What happens to the connections of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// They end without a word.
    Reset,
    /// GOAWAY; streams go on.
    GoAway,
    /// Nothing is read or written any more.
    Freeze,
}

/// How requests are answered instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A status with a body.
    Status(u16, &'static str),
    /// 429 with `Retry-After`.
    Busy(u64),
    /// 200 and a page of a proxy.
    Html,
    /// A stream error after the head.
    Broken,
    /// The head comes after this long.
    Late(Duration),
    /// 422 for a request with a parameter that not every server knows.
    Odd,
    /// Watches end right after the head; lists are answered.
    EndsAtOnce,
    /// 504 for whatever waits for etcd: a server or relay in between has lost it.
    Stuck,
}

/// What a server does besides, that is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manners {
    /// No bookmarks are sent.
    pub(super) has_no_bookmarks: bool,
    /// Every event is sent twice.
    pub(super) repeats: bool,
    /// A page has so many objects at most; 0: as many as the limit says.
    pub(super) page_max: usize,
}

pub(super) struct State {
    pub(super) version: u64,
    /// Writes since the start, whatever was restored: no two objects are alike.
    writes: u64,
    /// The newest version that a watch is not served from.
    pub(super) compacted: u64,
    objects: Objects,
    /// Every change since the start: version, collection, type, object, object before.
    log: Vec<Change>,
    /// Versions before the newest, for a restore.
    history: Vec<(u64, Objects)>,
    pub(super) missing: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
    /// By collection; "" is every request.
    pub(super) wrong: BTreeMap<String, Wrong>,
    pub(super) refuses_connections: bool,
    pub(super) tokens: Option<BTreeSet<String>>,
    /// Requests that were answered, by target without its query, "list" or "watch".
    pub(super) asked: BTreeMap<(String, &'static str), u64>,
    pub(super) dials: u64,
    /// What happens to connections older than their number.
    cuts: Vec<(u64, Cut)>,
    /// Watches of streams older than that number end: normally, or with RST_STREAM.
    ends: u64,
    resets: u64,
    /// Octets that go into one frame.
    pub(super) chunk: usize,
    pub(super) manners: Manners,
    /// So many watches more begin with an event from before their version.
    pub(super) stale_events: u32,
    /// So many pages more are refused, because their version is not kept any more.
    pub(super) expired_pages: u32,
    /// Kinds whose storage begins, and until when they answer 429.
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
    /// With Calico's CRDs of the first group and nothing in them.
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

    /// Changes the state, and wakes whoever waits for that.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        done
    }

    /// Writes an object.
    pub(super) fn put(&self, collection: &str, name: &str, object: Value) {
        self.change(|state| state.put(collection, name, object));
    }

    /// Writes an object of which no watch is told.
    pub(super) fn put_unseen(&self, collection: &str, name: &str, object: Value) {
        let mut state = self.lock();
        state.put(collection, name, object);
        state.log.pop();
    }

    pub(super) fn delete(&self, collection: &str, name: &str) {
        self.change(|state| state.delete(collection, name));
    }

    /// Everything that the server has, by name.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.lock().objects.keys().map(|(_, name)| name.clone()).collect()
    }

    /// What the server has, as text.
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

    /// The process is started anew: connections end, and old versions are not kept.
    pub(super) fn restart(&self) {
        self.cut(Cut::Reset);
        self.change(|state| state.compacted = state.version);
    }

    /// The store is restored as it was so many changes ago, and the process started anew.
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

    /// A CRD is deleted: its objects first.
    pub(super) fn delete_crd(&self, collection: &str) {
        for name in self.objects(collection).keys() {
            self.delete(collection, name);
        }
        self.change(|state| state.missing.insert(collection.to_owned()));
        self.end_watches();
    }

    /// The CRD is put back, without its objects.
    pub(super) fn restore_crd(&self, collection: &str) {
        self.change(|state| {
            state.missing.remove(collection);
            state.begins.insert(collection.to_owned(), Instant::now() + BEGINNING);
        });
    }

    /// How often something was asked.
    pub(super) fn asked(&self, collection: &str, how: &'static str) -> u64 {
        self.lock().asked.get(&(collection.to_owned(), how)).copied().unwrap_or_default()
    }

    /// Requests of all kinds.
    pub(super) fn asked_in_all(&self) -> u64 {
        self.lock().asked.values().sum()
    }

    /// Only these tokens are taken, and ours is in that file.
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
