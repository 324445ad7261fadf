//! The server's side of a connection to the double.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Change, Cut, Double, State, Wrong};
use crate::datastore::kubernetes::api::Protocol;

type Octets = BoxBody<Bytes, io::Error>;

/// Serves a connection until it ends.
pub(super) async fn serve(double: Double, stream: DuplexStream, number: u64, protocol: Protocol) {
    let service = {
        let double = double.clone();
        service_fn(move |request: Request<Incoming>| {
            let double = double.clone();
            async move { Ok::<_, Infallible>(answer(&double, &request).await) }
        })
    };
    let io = TokioIo::new(stream);
    if protocol == Protocol::Http1 {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                cut = next_cut(&double, number, 0) => match cut.1 {
                    Cut::Freeze => pending().await,
                    _ => return,
                }
            }
        }
    }
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut seen = 0;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            (at, cut) = next_cut(&double, number, seen) => match cut {
                Cut::Reset => return,
                Cut::GoAway => {
                    seen = at + 1;
                    connection.as_mut().graceful_shutdown();
                }
                // Until the test ends.
                Cut::Freeze => pending().await,
            }
        }
    }
}

/// The next cut of a connection, and the number of cuts seen after it.
async fn next_cut(double: &Double, number: u64, seen: usize) -> (usize, Cut) {
    let mut changed = double.changed.subscribe();
    loop {
        let found = {
            let state = double.lock();
            let cuts = state.cuts.iter().enumerate().skip(seen);
            cuts.filter(|(_, (until, _))| *until >= number).map(|(at, (_, cut))| (at, *cut)).next()
        };
        if let Some(found) = found {
            return found;
        }
        let _ = changed.changed().await;
    }
}

/// A parsed request.
struct Asked {
    collection: String,
    query: BTreeMap<String, String>,
    is_metadata: bool,
}

impl Asked {
    fn of(request: &Request<Incoming>) -> Self {
        let accept = request.headers().get("accept").and_then(|v| v.to_str().ok());
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Asked {
            collection: request.uri().path().to_owned(),
            query: pairs.map(|(key, value)| (key.to_owned(), decoded(value))).collect(),
            is_metadata: accept.is_some_and(|a| a.contains("PartialObjectMetadata")),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    fn version(&self) -> Option<u64> {
        self.get("resourceVersion").and_then(|v| v.parse().ok())
    }

    /// Whether there is a parameter that a server may not know.
    fn is_odd(&self) -> bool {
        self.is_metadata || self.get("labelSelector").is_some() || self.get("limit").is_some()
    }

    /// Whether an object is selected.
    fn selects(&self, object: &Value) -> bool {
        let by_name = self.get("fieldSelector").and_then(|s| s.strip_prefix("metadata.name="));
        if by_name.is_some_and(|name| object["metadata"]["name"] != name) {
            return false;
        }
        let labels = &object["metadata"]["labels"];
        self.get("labelSelector").is_none_or(|selector| match selector.split_once('=') {
            Some((key, value)) => labels[key] == value,
            None => labels[selector.trim_start_matches('!')].is_null(),
        })
    }

    /// The form of an object in a list or event.
    fn form(&self, object: &Value, place: Place) -> Value {
        let mut object = object.clone();
        if self.is_metadata {
            return json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
        }
        // Items of core lists have neither kind nor apiVersion.
        if place == Place::Event || self.collection.starts_with("/apis/") {
            object["kind"] = json!("Some");
            object["apiVersion"] = json!("some/v1");
        }
        object
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Item,
    Event,
}

fn decoded(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            octets.push(u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).unwrap()
}

fn whole(code: u16, media_type: &str, body: impl Into<Bytes>) -> Response<Octets> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    let response = Response::builder().status(code).header("content-type", media_type);
    response.body(body).unwrap()
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

fn failed(code: u16, reason: &str, message: &str) -> Response<Octets> {
    whole(code, "application/json", status(code, reason, message).to_string())
}

async fn answer(double: &Double, request: &Request<Incoming>) -> Response<Octets> {
    let asked = Asked::of(request);
    let is_watch = asked.get("watch") == Some("true");
    let how = if is_watch { "watch" } else { "list" };
    let (wrong, is_refused) = {
        let mut state = double.lock();
        *state.asked.entry((asked.collection.clone(), how)).or_default() += 1;
        let token = request.headers().get("authorization").and_then(|v| v.to_str().ok());
        let token = token.and_then(|t| t.strip_prefix("Bearer ")).unwrap_or_default();
        let is_refused = state.tokens.as_ref().is_some_and(|tokens| !tokens.contains(token));
        let wrong = state.wrong.get(&asked.collection).or_else(|| state.wrong.get(""));
        (wrong.cloned(), is_refused)
    };
    if is_refused {
        return failed(401, "Unauthorized", "Unauthorized");
    }
    match wrong {
        Some(Wrong::Status(code, body)) => return whole(code, "text/plain", body),
        Some(Wrong::Busy(seconds)) => {
            let mut answer = whole(429, "text/plain", "Too many requests");
            answer.headers_mut().insert("retry-after", seconds.into());
            return answer;
        }
        Some(Wrong::Html) => return whole(200, "text/html", "<html><body>Sign in</body></html>"),
        Some(Wrong::Broken) => return streamed(Writer::broken()),
        Some(Wrong::Late(wait)) => sleep(wait).await,
        Some(Wrong::Odd) if asked.is_odd() => {
            return failed(422, "Invalid", "a parameter that is not known");
        }
        Some(Wrong::EndsAtOnce) if is_watch => {
            let (_, body) = Writer::new(1);
            return streamed(body);
        }
        // Reads from the watch cache are still answered, as by a server whose etcd is frozen.
        Some(Wrong::Stuck) if !is_watch && asked.get("resourceVersion") != Some("0") => {
            return failed(
                504,
                "Timeout",
                "Timeout: request did not complete within requested timeout",
            );
        }
        Some(Wrong::Odd | Wrong::EndsAtOnce | Wrong::Stuck) | None => {}
    }
    if asked.collection.ends_with("/secrets") && asked.get("fieldSelector").is_none() {
        return failed(403, "Forbidden", "secrets is forbidden: only of one name");
    }
    if asked.collection == "/apis" {
        let groups = double.lock().groups.clone();
        let groups: Vec<Value> = groups.into_iter().map(|name| json!({"name": name})).collect();
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups});
        return whole(200, "application/json", list.to_string());
    }
    if double.lock().begins.get(&asked.collection).is_some_and(|until| *until > Instant::now()) {
        let mut answer = failed(429, "TooManyRequests", "storage is (re)initializing");
        answer.headers_mut().insert("retry-after", 1.into());
        return answer;
    }
    if is_missing(&double.lock(), &asked.collection) {
        return whole(404, "text/plain; charset=utf-8", "404 page not found\n");
    }
    if is_watch { watch(double, asked) } else { list(double, &asked).await }
}

fn is_missing(state: &State, collection: &str) -> bool {
    let group = collection.strip_prefix("/apis/").and_then(|rest| rest.split('/').next());
    let is_calico = |group: &&str| group.ends_with("projectcalico.org");
    state.missing.contains(collection)
        || group.filter(is_calico).is_some_and(|group| !state.groups.contains(group))
}

async fn list(double: &Double, asked: &Asked) -> Response<Octets> {
    let wanted = asked.version().unwrap_or_default();
    let is_at_least = asked.get("resourceVersionMatch") == Some("NotOlderThan");
    if is_at_least && wanted > double.lock().version {
        sleep(Duration::from_secs(3)).await;
        let mut body = status(504, "Timeout", "Timeout: Too large resource version");
        body["details"] = json!({
            "causes": [{"reason": "ResourceVersionTooLarge"}], "retryAfterSeconds": 1,
        });
        return whole(504, "application/json", body.to_string());
    }
    let mut state = double.lock();
    let is_from_memory = asked.get("resourceVersion") == Some("0");
    let page_max = Some(state.manners.page_max).filter(|most| *most > 0).unwrap_or(usize::MAX);
    let limit = asked.get("limit").and_then(|l| l.parse().ok()).filter(|_| !is_from_memory);
    let limit = limit.map(|limit: usize| limit.min(page_max));
    let token = asked.get("continue").map(|t| t.split_once(':').unwrap());
    let is_unlucky = token.is_some() && state.expired_pages > 0;
    state.expired_pages -= u32::from(is_unlucky);
    let is_old = |version: &str| version.parse::<u64>().unwrap() < state.compacted;
    if is_unlucky || token.is_some_and(|(version, _)| is_old(version)) {
        return failed(410, "Expired", "The provided continue parameter is too old");
    }
    let after = token.map_or("", |(_, name)| name);
    let selected = state.objects.iter().filter(|((collection, name), object)| {
        *collection == asked.collection && name.as_str() > after && asked.selects(object)
    });
    let mut selected: Vec<(&str, &Value)> =
        selected.map(|((_, name), object)| (name.as_str(), &**object)).collect();
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if let Some(limit) = limit
        && selected.len() > limit
    {
        // Some servers send the count, others do not.
        if state.version.is_multiple_of(2) {
            metadata["remainingItemCount"] = json!(selected.len() - limit);
        }
        selected.truncate(limit);
        let last = selected.last().map_or("", |(name, _)| name);
        metadata["continue"] = json!(format!("{}:{last}", state.version));
    }
    let items: Vec<Value> =
        selected.into_iter().map(|(_, object)| asked.form(object, Place::Item)).collect();
    let body = json!({"kind": "SomeList", "metadata": metadata, "items": items}).to_string();
    whole(200, "application/json", body)
}

fn watch(double: &Double, asked: Asked) -> Response<Octets> {
    let (writer, body) = Writer::new(double.lock().chunk);
    let from = asked.version().unwrap_or_default();
    if from < double.lock().compacted {
        let expired = status(410, "Expired", "too old resource version");
        tokio::spawn(async move {
            writer.lines(&[json!({"type": "ERROR", "object": expired})]).await;
        });
    } else {
        tokio::spawn(run_watch(double.clone(), asked, from, writer));
    }
    streamed(body)
}

fn streamed(body: Reader) -> Response<Octets> {
    let response = Response::builder().status(200).header("content-type", "application/json");
    response.body(body.boxed()).unwrap()
}

async fn run_watch(double: Double, asked: Asked, mut from: u64, writer: Writer) {
    let mut changed = double.changed.subscribe();
    let seconds = asked.get("timeoutSeconds").and_then(|s| s.parse().ok()).unwrap_or(1800);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (ends, resets, is_known, stale) = {
        let mut state = double.lock();
        let is_stale = state.stale_events > 0;
        let old = state.log.iter().rfind(|c| c.version <= from && c.collection == asked.collection);
        let stale = old.filter(|_| is_stale).and_then(|change| event(&asked, change));
        state.stale_events -= u32::from(stale.is_some());
        // A watch from a version in the future gets nothing, not even bookmarks.
        (state.ends, state.resets, from <= state.version, stale)
    };
    if let Some(stale) = stale {
        writer.lines(&[stale]).await;
    }
    let mut bookmark = Instant::now() + Duration::from_secs(60);
    let last_bookmark = end - Duration::from_secs(2);
    loop {
        let (events, at, manners, is_over, is_reset) = {
            let state = double.lock();
            let fresh = state.log.iter().filter(|c| c.version > from);
            let of_kind = fresh.filter(|c| c.collection == asked.collection);
            let events: Vec<Value> = of_kind.filter_map(|change| event(&asked, change)).collect();
            let is_over = state.ends != ends;
            (events, state.version, state.manners, is_over, state.resets != resets)
        };
        let copies = if manners.repeats { 2 } else { 1 };
        let events: Vec<Value> =
            events.iter().flat_map(|event| std::iter::repeat_n(event.clone(), copies)).collect();
        writer.lines(&events).await;
        from = from.max(at);
        if is_reset {
            writer.fail().await;
            return;
        }
        if is_over || Instant::now() >= end || writer.is_closed() {
            return;
        }
        if Instant::now() >= bookmark && is_known && !manners.has_no_bookmarks {
            let version = from.to_string();
            let object = json!({"kind": "Some", "metadata": {"resourceVersion": version}});
            writer.lines(&[json!({"type": "BOOKMARK", "object": object})]).await;
        }
        if Instant::now() >= bookmark {
            let next = Instant::now() + Duration::from_secs(60);
            bookmark = if bookmark < last_bookmark { next.min(last_bookmark) } else { next };
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = sleep_until(bookmark.min(end)) => {}
            () = writer.closed() => return,
        }
    }
}

/// The event of a change in a watch with selectors.
fn event(asked: &Asked, change: &Change) -> Option<Value> {
    let is_now = change.kind != "DELETED" && asked.selects(&change.object);
    let was = change.before.as_ref().is_some_and(|before| asked.selects(before));
    let kind = match (was, is_now) {
        (false, false) => return None,
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
    };
    Some(json!({"type": kind, "object": asked.form(&change.object, Place::Event)}))
}

/// The writing end of a body.
struct Writer {
    frames: mpsc::Sender<io::Result<Bytes>>,
    chunk: usize,
}

/// The reading end.
struct Reader(mpsc::Receiver<io::Result<Bytes>>);

impl Writer {
    fn new(chunk: usize) -> (Writer, Reader) {
        let (frames, reader) = mpsc::channel(16);
        (Writer { frames, chunk }, Reader(reader))
    }

    fn broken() -> Reader {
        let (writer, reader) = Writer::new(1);
        let broken = io::Error::other("broken");
        let _ = writer.frames.try_send(Ok(Bytes::from_static(b"{")));
        let _ = writer.frames.try_send(Err(broken));
        reader
    }

    /// Sends lines, split into frames of `chunk` octets wherever that falls.
    async fn lines(&self, values: &[Value]) {
        let lines: Vec<String> = values.iter().map(|value| format!("{value}\n")).collect();
        for part in lines.concat().as_bytes().chunks(self.chunk.max(1)) {
            let _ = self.frames.send(Ok(Bytes::copy_from_slice(part))).await;
        }
    }

    async fn fail(&self) {
        let _ = self.frames.send(Err(io::Error::other("reset"))).await;
    }

    fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }

    async fn closed(&self) {
        self.frames.closed().await;
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(|octets| octets.map(Frame::data)))
    }
}
