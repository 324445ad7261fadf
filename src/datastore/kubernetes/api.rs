//! Requests to the API server over one connection.
//!
//! The connection is HTTP/2 and carries every list and watch. A server that offers only HTTP/1.1
//! gets one connection per request. A connection that is lost, that the server closes (GOAWAY), or
//! that is a day old is replaced at the next request; responses in progress stay on the old one.
//!
//! A request waits until there is a connection: attempts to connect are made one at a time, with
//! growing pauses, and [`Api::trouble`] says why there is no connection.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Method, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::credentials::{Bearer, Renewed, Scheme};
use super::failure::Failure;
use super::random::Random;
use crate::datastore::backoff;

/// Longest wait for a connection, including its handshakes.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// First pause between attempts to connect; it doubles until [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A connection that lasted this long resets the backoff.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// Age at which a connection is replaced, so that nodes spread over servers that have returned.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// An idle connection is probed with PING after this long, and is dead without an answer within
/// [`PING_MAX`].
const PING_AFTER: Duration = Duration::from_secs(15);
/// Longest wait for the answer to a PING.
const PING_MAX: Duration = Duration::from_secs(10);
/// Maximum number of lists read concurrently.
const LISTS_MAX: usize = 4;
/// Minimum age at which a connection is replaced because its credentials were refused, so that they
/// are read again, or because its server fails.
const RENEW_INTERVAL: Duration = Duration::from_secs(15);
/// After this many 5xx responses in a row the connection is replaced, to try another server.
const SERVER_ERRORS_MAX: u32 = 5;
/// Longest body of an error response that is read, in octets.
const FAILURE_MAX: usize = 64 << 10;

/// Connects to the API server.
pub(super) trait Dial: Send + Sync + 'static {
    /// The transport, TLS included.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects. The caller has to limit the time.
    fn dial(&self) -> impl Future<Output = Result<Dialled<Self::Stream>, String>> + Send;
}

/// A connection, before HTTP.
pub(super) struct Dialled<S> {
    pub(super) stream: S,
    pub(super) protocol: Protocol,
    pub(super) scheme: Scheme,
    /// Host and port, for the request.
    pub(super) authority: String,
    /// Prefix of every path; empty or `/PREFIX`.
    pub(super) prefix: String,
    pub(super) bearer: Bearer,
}

/// The version of HTTP that was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Path and query.
    pub(super) target: String,
    /// The `Accept` header.
    pub(super) accept: &'static str,
    /// An object to create, as JSON (POST); `None`: a GET.
    pub(super) create: Option<Bytes>,
}

impl Request {
    /// A GET.
    pub(super) fn read(target: String, accept: &'static str) -> Request {
        Request { target, accept, create: None }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) since: Instant,
    pub(super) reason: Arc<str>,
}

/// Whether the source continues after its first lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datastore) enum Span {
    /// Lists, then watches.
    Followed,
    /// Lists only.
    Once,
}

/// A client of one API server.
pub(super) struct Api<D> {
    pub(super) span: Span,
    dial: D,
    slot: Mutex<Slot>,
    trouble: watch::Sender<Option<Trouble>>,
    lists: Semaphore,
    pub(super) random: Random,
}

/// The number of the connection that answered. If it changes, a watched kind may have changed
/// unseen.
pub(super) type Epoch = u64;

struct Slot {
    current: Option<Current>,
    epoch: Epoch,
    failures: u32,
    next_dial: Instant,
    server_errors: u32,
}

#[derive(Clone)]
struct Current {
    route: Route,
    begun: Instant,
}

/// What requests on a connection have in common.
#[derive(Clone)]
struct Route {
    authority: String,
    prefix: String,
    scheme: Scheme,
    bearer: Bearer,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Http2(http2::SendRequest<Full<Bytes>>),
    /// A connection is dialled for each request.
    Http1,
}

impl<D: Dial> Api<D> {
    pub(super) fn new(dial: D, random: Random) -> Self {
        let slot = Slot {
            current: None,
            epoch: 0,
            failures: 0,
            next_dial: Instant::now(),
            server_errors: 0,
        };
        let (trouble, _) = watch::channel(None);
        let lists = Semaphore::new(LISTS_MAX);
        Api { span: Span::Followed, dial, slot: Mutex::new(slot), trouble, lists, random }
    }

    /// Why there is no connection; `None`: there is one, or none was needed yet.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.subscribe()
    }

    /// Waits until a list may be read.
    pub(super) async fn list_permit(&self) -> SemaphorePermit<'_> {
        self.lists.acquire().await.expect("the semaphore is never closed")
    }

    /// Sends a request, and waits `head_max` for the head of the response. A token that is refused
    /// is read again; if it differs the request is repeated once.
    pub(super) async fn request(
        &self,
        request: &Request,
        head_max: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let answer = self.request_once(request, head_max).await?;
        if answer.code == 401 {
            if answer.bearer.renew() == Renewed::Other {
                return self.request_once(request, head_max).await;
            }
            self.replace(answer.epoch, RENEW_INTERVAL).await;
        }
        self.note_code(&answer).await;
        Ok(answer)
    }

    async fn request_once(
        &self,
        request: &Request,
        head_max: Option<Duration>,
    ) -> Result<Answer, Failure> {
        // On a connection that the server has just closed the request fails unsent.
        for _ in 0..3 {
            let (route, epoch) = self.route().await;
            let sent = self.send(&route, epoch, request);
            let sent = match head_max {
                None => sent.await,
                Some(limit) => match timeout(limit, sent).await {
                    Ok(sent) => sent,
                    Err(_) => return Err(Failure::Silent("waiting for an answer", limit)),
                },
            };
            match sent {
                Ok(answer) => return Ok(answer),
                Err(Unsent::NotSent) => self.replace(epoch, Duration::ZERO).await,
                Err(Unsent::Failed(failure)) => {
                    self.note_lost(epoch).await;
                    return Err(failure);
                }
            }
        }
        Err(Failure::Lost("the server ends every connection before a request".to_owned()))
    }

    async fn send(&self, route: &Route, epoch: Epoch, request: &Request) -> Result<Answer, Unsent> {
        let failed = |text: String| Unsent::Failed(Failure::Lost(text));
        let Route { authority, prefix, scheme, bearer, way } = route;
        let target = match (way, scheme) {
            (Way::Http1, _) => format!("{prefix}{}", request.target),
            (Way::Http2(_), Scheme::Https) => {
                format!("https://{authority}{prefix}{}", request.target)
            }
            (Way::Http2(_), Scheme::Http) => {
                format!("http://{authority}{prefix}{}", request.target)
            }
        };
        let method = if request.create.is_some() { Method::POST } else { Method::GET };
        let mut built = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header(header::ACCEPT, request.accept)
            .header(header::USER_AGENT, concat!("margay/", env!("CARGO_PKG_VERSION")));
        if matches!(way, Way::Http1) {
            built = built.header(header::HOST, authority);
        }
        let unauthorized = |fault| Unsent::Failed(Failure::Unauthorized(fault));
        if let Some(value) = bearer.header().map_err(unauthorized)? {
            built = built.header(header::AUTHORIZATION, value);
        }
        if request.create.is_some() {
            built = built.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(request.create.clone().unwrap_or_default());
        let built = built.body(body).map_err(|e| failed(e.to_string()))?;
        let answer = match way {
            Way::Http2(send) => {
                let mut send = send.clone();
                if send.ready().await.is_err() {
                    return Err(Unsent::NotSent);
                }
                send.send_request(built).await
            }
            Way::Http1 => {
                let dialled = self.dial.dial().await.map_err(failed)?;
                let (mut send, connection) = http1::handshake(TokioIo::new(dialled.stream))
                    .await
                    .map_err(|e| failed(explain(&e)))?;
                tokio::spawn(connection);
                let answer = send.send_request(built).await;
                // The connection ends with the answer.
                drop(send);
                answer
            }
        };
        match answer {
            Ok(answer) => Ok(Answer::new(answer, epoch, bearer.clone())),
            Err(error) if error.is_canceled() => Err(Unsent::NotSent),
            Err(error) => Err(failed(explain(&error))),
        }
    }

    /// The connection in use, or a new one, however long that takes.
    async fn route(&self) -> (Route, Epoch) {
        let mut slot = self.slot.lock().await;
        loop {
            slot.drop_dead();
            if let Some(current) = &slot.current {
                return (current.route.clone(), slot.epoch);
            }
            sleep_until(slot.next_dial).await;
            let opened = match timeout(CONNECT_MAX, self.open()).await {
                Ok(opened) => opened,
                Err(_) => Err(format!("no connection within {} s", CONNECT_MAX.as_secs())),
            };
            match opened {
                Ok(route) => {
                    slot.current = Some(Current { route, begun: Instant::now() });
                    slot.epoch += 1;
                    slot.server_errors = 0;
                    self.trouble.send_if_modified(|trouble| trouble.take().is_some());
                }
                Err(reason) => {
                    slot.note_failure(&self.random);
                    self.tell_trouble(reason);
                }
            }
        }
    }

    async fn open(&self) -> Result<Route, String> {
        let Dialled { stream, protocol, scheme, authority, prefix, bearer } =
            self.dial.dial().await?;
        let way = match protocol {
            Protocol::Http1 => Way::Http1,
            Protocol::Http2 => {
                let handshake = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_AFTER)
                    .keep_alive_timeout(PING_MAX)
                    .keep_alive_while_idle(true)
                    .handshake(TokioIo::new(stream));
                let (send, connection) = handshake.await.map_err(|e| explain(&e))?;
                // Ends with the last request and answer.
                tokio::spawn(connection);
                Way::Http2(send)
            }
        };
        Ok(Route { authority, prefix, scheme, bearer, way })
    }

    fn tell_trouble(&self, reason: String) {
        self.trouble.send_if_modified(|trouble| {
            let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            let fresh = Some(Trouble { since, reason: reason.into() });
            let differs = *trouble != fresh;
            *trouble = fresh;
            differs
        });
    }

    /// Sends no further request on the connection if it is at least `age_min` old.
    async fn replace(&self, epoch: Epoch, age_min: Duration) {
        let mut slot = self.slot.lock().await;
        if slot.epoch == epoch
            && slot.current.as_ref().is_some_and(|c| c.begun.elapsed() >= age_min)
        {
            slot.drop_current(&self.random);
        }
    }

    /// A request was sent and not answered: drops the connection if it is closed.
    async fn note_lost(&self, epoch: Epoch) {
        let mut slot = self.slot.lock().await;
        if slot.epoch != epoch {
            return;
        }
        match slot.current.as_ref().map(|current| &current.route.way) {
            // Each request had its own connection, so it is not known which watches may have missed
            // something: the new epoch puts all of them in doubt.
            Some(Way::Http1) => {
                slot.epoch += 1;
                slot.drop_current(&self.random);
            }
            Some(Way::Http2(send)) if send.is_closed() => slot.drop_current(&self.random),
            _ => {}
        }
    }

    async fn note_code(&self, answer: &Answer) {
        let mut slot = self.slot.lock().await;
        if slot.epoch != answer.epoch {
            return;
        }
        if answer.code < 500 {
            slot.server_errors = 0;
            return;
        }
        slot.server_errors += 1;
        let is_old = slot.current.as_ref().is_some_and(|c| c.begun.elapsed() >= RENEW_INTERVAL);
        if slot.server_errors >= SERVER_ERRORS_MAX && is_old {
            slot.drop_current(&self.random);
        }
    }
}

enum Unsent {
    /// The request may be repeated on another connection.
    NotSent,
    Failed(Failure),
}

impl Slot {
    fn drop_dead(&mut self) {
        let Some(current) = &self.current else { return };
        let is_dead = match &current.route.way {
            Way::Http2(send) => send.is_closed(),
            Way::Http1 => false,
        };
        if is_dead || current.begun.elapsed() >= AGE_MAX {
            self.current = None;
        }
    }

    /// Drops the connection. One younger than [`GOOD_AFTER`] counts as a failed attempt.
    fn drop_current(&mut self, random: &Random) {
        let Some(current) = self.current.take() else { return };
        if current.begun.elapsed() >= GOOD_AFTER {
            self.failures = 0;
        } else {
            self.note_failure(random);
        }
    }

    fn note_failure(&mut self, random: &Random) {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff::pause(PAUSE, PAUSE_MAX, self.failures, 1, random.bits());
        self.next_dial = Instant::now() + pause;
    }
}

/// The response to a request: its head, and its body as it arrives.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) media_type: String,
    pub(super) epoch: Epoch,
    retry_after: Option<Duration>,
    bearer: Bearer,
    body: Incoming,
}

impl Answer {
    fn new(answer: hyper::Response<Incoming>, epoch: Epoch, bearer: Bearer) -> Self {
        let text = |name| {
            let value: Option<&hyper::header::HeaderValue> = answer.headers().get(name);
            value.and_then(|v| v.to_str().ok()).unwrap_or_default()
        };
        let media_type = text(header::CONTENT_TYPE);
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let retry_after = text(header::RETRY_AFTER).parse().ok().map(Duration::from_secs);
        Answer {
            code: answer.status().as_u16(),
            media_type,
            epoch,
            retry_after,
            bearer,
            body: answer.into_body(),
        }
    }

    /// The next octets of the body; `None`: its end.
    pub(super) async fn next(&mut self, limit: Duration) -> Result<Option<Bytes>, Failure> {
        let next = timeout(limit, self.octets()).await;
        next.unwrap_or(Err(Failure::Silent("reading an answer", limit)))
    }

    /// The same until `alarm` fires, which returns `None`. The caller keeps the timer: setting one
    /// for each event costs more than reading the event.
    pub(super) async fn next_until(
        &mut self,
        alarm: Pin<&mut Sleep>,
    ) -> Option<Result<Option<Bytes>, Failure>> {
        tokio::select! {
            biased;
            octets = self.octets() => Some(octets),
            () = alarm => None,
        }
    }

    /// Cancel-safe.
    async fn octets(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Lost(explain(&error))),
                Some(Ok(frame)) => frame,
            };
            if let Ok(octets) = frame.into_data() {
                return Ok(Some(octets));
            }
        }
    }

    /// The whole body of a short response; at most `len_max` octets. `what` names it in an error.
    pub(super) async fn whole(
        &mut self,
        what: &'static str,
        len_max: usize,
        limit: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(octets) = self.next(limit).await? {
            body.extend_from_slice(&octets);
            if body.len() > len_max {
                return Err(Failure::TooLong(what, len_max as u64));
            }
        }
        Ok(body)
    }

    /// The failure that a response with a status other than 200 means.
    pub(super) async fn failure(mut self) -> Failure {
        let mut body = Vec::new();
        while let Ok(Some(octets)) = self.next(Duration::from_secs(5)).await {
            body.extend_from_slice(&octets);
            if body.len() > FAILURE_MAX {
                break;
            }
        }
        match Failure::of_answer(self.code, self.retry_after, &body) {
            Failure::Unauthorized(text) => {
                let fault = self.bearer.fault(SystemTime::now());
                Failure::Unauthorized(
                    fault.map_or(text.clone(), |fault| format!("{text}; {fault}")),
                )
            }
            other => other,
        }
    }
}

/// An error of hyper with its causes, each mentioned once.
fn explain(error: &hyper::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = cause.source();
    }
    words
}
