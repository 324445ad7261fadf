//! The status page: one page without any other resource, and the read-only answers behind it.
//!
//! Nothing here knows what a session or a route is: every answer is that of the control protocol, from
//! the [`Source`]. A page asks again every few seconds; what all pages ask for is made at most once a
//! second, however many there are, and is sent again only if it has changed. What one page asks for (a
//! peer, a destination) is answered for a few at a time.

mod answers;
mod guard;
mod kept;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Source;
pub use answers::{Answer, Failure, Question};
use guard::{Refused, Target, check};
use kept::Kept;

/// The page and what it consists of. What they contain is not secret.
const FILES: [(&str, &str, &str); 7] = [
    ("/status/", "text/html; charset=utf-8", include_str!("page.html")),
    ("/status/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/status/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
    ("/status/dom.js", "text/javascript; charset=utf-8", include_str!("dom.js")),
    ("/status/draw.js", "text/javascript; charset=utf-8", include_str!("draw.js")),
    ("/status/explain.js", "text/javascript; charset=utf-8", include_str!("explain.js")),
    ("/status/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// The browser loads and runs what this server sends as files, and nothing else; text from a peer that
/// reached the document as markup would neither run nor load anything.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// How long an answer for all pages is sent again before it is made anew.
const FRESH: Duration = Duration::from_secs(1);
/// Most answers for single pages that are made at once.
const SINGLE_MAX: usize = 2;

/// Shared by all requests of the page.
struct Context<S> {
    source: Arc<S>,
    wait: Duration,
    kept: Arc<[Kept; 4]>,
    single: Arc<Semaphore>,
    /// Differs between runs: a page that stays open while margay restarts must not take the answers of
    /// the new run for those that it has.
    run: u128,
}

// A derived implementation would require `S: Clone`.
impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        let Context { wait, run, .. } = *self;
        let (kept, single) = (Arc::clone(&self.kept), Arc::clone(&self.single));
        Context { source: Arc::clone(&self.source), wait, kept, single, run }
    }
}

/// The routes of the page. While it is not configured, there is nothing at them.
pub(super) fn routes<S: Source>(source: Arc<S>, wait: Duration) -> Router {
    let run = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let cx = Context {
        source,
        wait,
        kept: Arc::default(),
        single: Arc::new(Semaphore::new(SINGLE_MAX)),
        run: run.map_or(0, |since| since.as_nanos()),
    };
    let mut router = Router::new().route("/status", get(|| async { Redirect::to("status/") }));
    for (path, kind, text) in FILES {
        let version = HeaderValue::from_str(&format!("\"{:x}-{}\"", cx.run, text.len()));
        let version = version.unwrap_or_else(|_| HeaderValue::from_static("\"-\""));
        let file = move |request: Request| async move { file(&request, kind, text, version) };
        router = router.route(path, get(file));
    }
    for (path, question) in [
        ("/status/api/status", Question::Status),
        ("/status/api/overview", Question::Overview),
        ("/status/api/rates", Question::Rates),
        ("/status/api/events", Question::Events),
    ] {
        let asked = |cx: State<Context<S>>, request: Request| shared(cx, request, question);
        router = router.route(path, get(asked));
    }
    router
        .route("/status/api/peer/{name}", get(peer::<S>))
        .route("/status/api/explain/{destination}", get(explain::<S>))
        .route("/status/api/vrf/{vrf}/explain/{destination}", get(explain_in_vrf::<S>))
        .layer(from_fn_with_state(cx.clone(), guarded::<S>))
        .with_state(cx)
}

/// Refuses whoever may not see what is asked for, and adds the headers of every answer.
async fn guarded<S: Source>(
    State(cx): State<Context<S>>,
    request: Request,
    next: Next,
) -> Response {
    let target = match request.uri().path().starts_with("/status/api/") {
        true => Target::Answer,
        false => Target::File,
    };
    let mut response = match cx.source.page() {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(settings) => match check(request.headers(), &settings, target) {
            Ok(()) => next.run(request).await,
            Err(refused) => refusal(refused),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Files are asked for again with their version; answers are kept by the page itself.
    let keeping = if target == Target::File { "no-cache" } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keeping));
    response
}

fn refusal(refused: Refused) -> Response {
    let status = match refused {
        Refused::Host => StatusCode::MISDIRECTED_REQUEST,
        Refused::Origin => StatusCode::FORBIDDEN,
        Refused::Token => StatusCode::UNAUTHORIZED,
    };
    let mut response = (status, failure_body(refused.kind(), refused.text())).into_response();
    json(&mut response);
    if refused == Refused::Token {
        let scheme = HeaderValue::from_static("Bearer realm=\"margay\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

fn file(
    request: &Request,
    kind: &'static str,
    text: &'static str,
    version: HeaderValue,
) -> Response {
    let mut response = match is_known(request, version.as_bytes()) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => text.into_response(),
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::ETAG, version);
    response
}

/// Whether the client has this version.
fn is_known(request: &Request, version: &[u8]) -> bool {
    let known = request.headers().get(header::IF_NONE_MATCH);
    known.is_some_and(|known| known.as_bytes() == version)
}

/// An answer that is the same for all pages.
async fn shared<S: Source>(
    State(cx): State<Context<S>>,
    request: Request,
    question: Question,
) -> Response {
    let at = match question {
        Question::Status => 0,
        Question::Overview => 1,
        Question::Rates => 2,
        _ => 3,
    };
    let making = async { cx.source.answer(&question).await };
    let answer = match timeout(cx.wait, cx.kept[at].get(FRESH, making)).await {
        Ok(answer) => answer,
        Err(_) => return late(cx.wait),
    };
    let (body, version) = match answer {
        Ok(answer) => answer,
        Err(failure) => return failed(&failure),
    };
    let version = format!("\"{:x}-{version}\"", cx.run);
    let mut response = match is_known(&request, version.as_bytes()) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Body::from(body).into_response(),
    };
    json(&mut response);
    if let Ok(version) = HeaderValue::from_str(&version) {
        response.headers_mut().insert(header::ETAG, version);
    }
    response
}

async fn peer<S: Source>(State(cx): State<Context<S>>, Path(name): Path<String>) -> Response {
    single(&cx, Question::Peer { name }).await
}

async fn explain<S: Source>(
    State(cx): State<Context<S>>,
    Path(destination): Path<String>,
) -> Response {
    single(&cx, Question::Explain { destination, vrf: None }).await
}

async fn explain_in_vrf<S: Source>(
    State(cx): State<Context<S>>,
    Path((vrf, destination)): Path<(String, String)>,
) -> Response {
    single(&cx, Question::Explain { destination, vrf: Some(vrf) }).await
}

/// An answer for one page.
async fn single<S: Source>(cx: &Context<S>, question: Question) -> Response {
    let answer = async {
        // The semaphore is never closed; if it were, there would be no bound, and still an answer.
        let _turn = cx.single.acquire().await.ok();
        cx.source.answer(&question).await
    };
    match timeout(cx.wait, answer).await {
        Ok(Ok(Answer(body))) => {
            let mut response = Body::from(body).into_response();
            json(&mut response);
            response
        }
        Ok(Err(failure)) => failed(&failure),
        Err(_) => late(cx.wait),
    }
}

fn failed(failure: &Failure) -> Response {
    let status = match failure {
        Failure::NotFound(_) => StatusCode::NOT_FOUND,
        Failure::BadRequest(_) => StatusCode::BAD_REQUEST,
        Failure::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = (status, failure_body(failure.kind(), failure.text())).into_response();
    json(&mut response);
    response
}

fn late(wait: Duration) -> Response {
    failed(&Failure::Failed(format!("the daemon gave no answer within {wait:?}")))
}

/// As the control protocol ends an answer that failed.
fn failure_body(kind: &str, text: &str) -> String {
    serde_json::json!({ "error": { "kind": kind, "text": text } }).to_string()
}

fn json(response: &mut Response) {
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
}

#[cfg(test)]
mod tests;
