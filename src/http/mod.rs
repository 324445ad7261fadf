//! `/metrics`, `/liveness`, `/readiness` and the status page over HTTP.
//!
//! There are no counters here: every scrape requests a [`MetricsSnapshot`] from the [`Source`] and
//! renders it. Connections are limited in number and in time, so that scrapers that hang do no
//! harm.

mod bounded;
mod metrics;
mod page;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::config::PageSettings;
use crate::version;

pub use metrics::{
    BfdMetrics, CalicoMetrics, FibMetrics, GROUPS_MAX, GroupMetrics, MetricsSnapshot, MrtMetrics,
    PeerMetrics, PrefixCounts, RouterDiscoveryMetrics, SessionMetrics, SourceMetrics,
    StationMetrics, TableMetrics, Traffic, VrfMetrics,
};

pub use page::{Answer, Failure, Question};

use bounded::Bounded;
use metrics::open_metrics;

/// Time limits for clients and for the daemon's answers.
#[derive(Clone, Copy)]
struct Limits {
    /// Longest wait for the daemon's answer; default 10 s. Kubernetes probes time out earlier.
    answer_wait: Duration,
    /// Longest lifetime of a connection; default 120 s.
    lifetime_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { answer_wait: Duration::from_secs(10), lifetime_max: Duration::from_secs(120) }
    }
}

/// The source of all answers: the daemon.
pub trait Source: Send + Sync + 'static {
    /// The current values of all metrics.
    fn metrics(&self) -> impl Future<Output = MetricsSnapshot> + Send;
    /// The parts that should make progress and do not, and since when: one line each. Completes
    /// within seconds, whatever is stuck.
    fn not_alive(&self) -> impl Future<Output = Vec<String>> + Send;
    /// Why margay is not ready; `None` if it is.
    fn not_ready(&self) -> impl Future<Output = Option<String>> + Send;
    /// Who may see the status page; `None`: nobody, it is not configured.
    fn page(&self) -> Option<Arc<PageSettings>>;
    /// What the status page asks for.
    fn answer(&self, question: &Question) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

/// A server with a bound address.
pub struct Server {
    listener: TcpListener,
    limits: Limits,
}

impl Server {
    /// Binds `address`. The server does not answer before [`Server::run`].
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Server> {
        Ok(Server { listener: TcpListener::bind(address).await?, limits: Limits::default() })
    }

    /// The bound address, with the port that the system chose if it was 0.
    ///
    /// # Errors
    /// The system call failed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped.
    pub async fn run<S: Source>(self, source: Arc<S>) {
        let page = page::routes(Arc::clone(&source), self.limits.answer_wait);
        let app = Router::new()
            .route("/", get(index::<S>))
            .route("/metrics", get(metrics::<S>))
            .route("/liveness", get(liveness::<S>))
            .route("/readiness", get(readiness::<S>))
            .with_state(Context { source, wait: self.limits.answer_wait })
            .merge(page);
        let listener = Bounded::new(self.listener, self.limits.lifetime_max);
        // The listener retries by itself, so serving does not end before the future is dropped.
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }
}

/// Shared by all requests.
struct Context<S> {
    source: Arc<S>,
    wait: Duration,
}

// A derived implementation would require `S: Clone`.
impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Context { source: Arc::clone(&self.source), wait: self.wait }
    }
}

/// What there is to ask for.
async fn index<S: Source>(State(cx): State<Context<S>>) -> Html<String> {
    let link = |path: &str, what: &str| format!("<li><a href=\"{path}\">{path}</a>: {what}</li>\n");
    let page = cx.source.page().map(|_| link("/status/", "this node in a browser"));
    let links = [
        link("/metrics", "metrics for Prometheus: its text format, or OpenMetrics"),
        link("/liveness", "200 while every part of the daemon is responding, otherwise 503"),
        link("/readiness", "200 once the daemon is ready, otherwise 503 with the reason"),
    ];
    Html(format!(
        "<!DOCTYPE html>\n<title>margay</title>\n<h1>margay {}</h1>\n<ul>\n{}</ul>\n",
        version::VERSION,
        links.concat() + &page.unwrap_or_default()
    ))
}

async fn metrics<S: Source>(State(cx): State<Context<S>>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_open = open_metrics::is_wanted(&accept.collect::<Vec<_>>().join(","));
    match timeout(cx.wait, cx.source.metrics()).await {
        Ok(snapshot) => {
            let (kind, text) = match is_open {
                true => (open_metrics::CONTENT_TYPE, snapshot.render_open_metrics()),
                false => (prometheus::TEXT_FORMAT, snapshot.render()),
            };
            ([(header::CONTENT_TYPE, kind), (header::VARY, "Accept")], text).into_response()
        }
        Err(_) => late(cx.wait),
    }
}

async fn liveness<S: Source>(State(cx): State<Context<S>>) -> Response {
    match timeout(cx.wait, cx.source.not_alive()).await {
        Ok(stuck) if stuck.is_empty() => "alive\n".into_response(),
        Ok(stuck) => {
            let body = format!("not alive\n{}\n", stuck.join("\n"));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
        Err(_) => late(cx.wait),
    }
}

async fn readiness<S: Source>(State(cx): State<Context<S>>) -> Response {
    match timeout(cx.wait, cx.source.not_ready()).await {
        Ok(None) => "ready\n".into_response(),
        Ok(Some(reason)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
        Err(_) => late(cx.wait),
    }
}

fn late(wait: Duration) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("no answer within {wait:?}\n")).into_response()
}

#[cfg(test)]
mod tests;
