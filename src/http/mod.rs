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

pub use metrics::{FibMetrics, MetricsSnapshot, PeerMetrics};

use bounded::Bounded;

/// Longest wait for the daemon's answer; probes of Kubernetes give up earlier or wait as long.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Who knows: the daemon.
pub trait Source: Send + Sync + 'static {
    /// All numbers as they are.
    fn metrics(&self) -> impl Future<Output = MetricsSnapshot> + Send;
    /// Comes back when every part that must make progress has made some.
    fn alive(&self) -> impl Future<Output = ()> + Send;
    /// What is missing for being ready to serve; `None` if nothing is.
    fn not_ready(&self) -> impl Future<Output = Option<String>> + Send;
}

/// A bound address.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds.
    ///
    /// # Errors
    /// The address is in use, or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Server> {
        Ok(Server { listener: TcpListener::bind(address).await? })
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
            .with_state(source);
        // Accepting retries by itself; serving ends with the future only.
        if let Err(error) = axum::serve(Bounded::new(self.listener), app).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }
}

async fn metrics<S: Source>(State(source): State<Arc<S>>) -> Response {
    match timeout(ANSWER_WAIT, source.metrics()).await {
        Ok(snapshot) => {
            ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], snapshot.render()).into_response()
        }
        Err(_) => late(),
    }
}

async fn liveness<S: Source>(State(source): State<Arc<S>>) -> Response {
    match timeout(ANSWER_WAIT, source.alive()).await {
        Ok(()) => "alive\n".into_response(),
        Err(_) => late(),
    }
}

async fn readiness<S: Source>(State(source): State<Arc<S>>) -> Response {
    match timeout(ANSWER_WAIT, source.not_ready()).await {
        Ok(None) => "ready\n".into_response(),
        Ok(Some(reason)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
        Err(_) => late(),
    }
}

fn late() -> Response {
    let text = format!("no answer within {} s\n", ANSWER_WAIT.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

#[cfg(test)]
mod tests;
