//! `/metrics`, `/liveness` and `/readiness` over HTTP.
//!
//! No counter lives here: every scrape asks the [`Source`] for a [`MetricsSnapshot`] and writes it
//! out. Connections are bounded in number and in time, so that scrapers that hang cost nothing.

mod bounded;
mod metrics;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::timeout;

pub use metrics::{
    BfdMetrics, CalicoMetrics, FibMetrics, GROUPS_MAX, GroupMetrics, MetricsSnapshot, PeerMetrics,
    PrefixCounts, SessionMetrics, SourceMetrics, TableMetrics, Traffic,
};

use bounded::Bounded;

/// What clients and the daemon are given.
#[derive(Clone, Copy)]
struct Limits {
    /// Longest wait for the daemon's answer; probes of Kubernetes give up earlier.
    answer_wait: Duration,
    /// Longest life of a connection.
    lifetime_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { answer_wait: Duration::from_secs(10), lifetime_max: Duration::from_secs(120) }
    }
}

/// Who knows: the daemon.
pub trait Source: Send + Sync + 'static {
    /// All numbers as they are.
    fn metrics(&self) -> impl Future<Output = MetricsSnapshot> + Send;
    /// Parts that must make progress and make none, and since when: a line each. Comes back within
    /// seconds whatever is stuck.
    fn not_alive(&self) -> impl Future<Output = Vec<String>> + Send;
    /// What is missing for being ready to serve; `None` if nothing is.
    fn not_ready(&self) -> impl Future<Output = Option<String>> + Send;
}

/// A bound address.
pub struct Server {
    listener: TcpListener,
    limits: Limits,
}

impl Server {
    /// A server on `address`, which does not answer before it is run.
    ///
    /// # Errors
    /// The address is in use, or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Server> {
        Ok(Server { listener: TcpListener::bind(address).await?, limits: Limits::default() })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for as long as the future lives.
    pub async fn run<S: Source>(self, source: Arc<S>) {
        let app = Router::new()
            .route("/metrics", get(metrics::<S>))
            .route("/liveness", get(liveness::<S>))
            .route("/readiness", get(readiness::<S>))
            .with_state(Context { source, wait: self.limits.answer_wait });
        let listener = Bounded::new(self.listener, self.limits.lifetime_max);
        // Accepting retries by itself; serving ends with the future only.
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }
}

/// What every request is answered from.
struct Context<S> {
    source: Arc<S>,
    wait: Duration,
}

// Derived, it would ask for a source that can be cloned.
impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Context { source: Arc::clone(&self.source), wait: self.wait }
    }
}

async fn metrics<S: Source>(State(cx): State<Context<S>>) -> Response {
    match timeout(cx.wait, cx.source.metrics()).await {
        Ok(snapshot) => {
            ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], snapshot.render()).into_response()
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
