//! Calico's objects in the Kubernetes API.
//!
//! - [`config`], [`kubeconfig`], [`credentials`]: where the API server is, and who we are to it.
//! - [`api`], [`dial`], [`body`], [`failure`]: requests over one HTTP/2 connection.
//! - [`resource`], [`discovery`], [`affinities`]: what is asked for, and in which API group it is.
//! - [`kind`], [`list`], [`watch`], [`heartbeat`], [`past`], [`pace`]: following one kind.
//! - [`known`], [`hub`], [`own_node`]: the last state sent, and what follows from how kinds are reached.
//! - [`access`]: which rights are missing.
//! - [`source`]: Calico's kinds with the Nodes; Services, EndpointSlices and Secrets.
//!
//! While anything is unreachable, forbidden or not served, the last state sent stays in force.
//!
//! # Why the client is our own
//!
//! `kube-client` 5.0.0 without its runtime (`client`, `rustls-tls`, `ring`; it needs `k8s-openapi`) was
//! measured for what a library does better, credentials: its `Config` read the kubeconfig, made the TLS
//! configuration and the layer that renews tokens, and the requests were hyper's, over one HTTP/2
//! connection. The same program without it is the other line (fat LTO, stripped, CPU time of the whole
//! build; the limits were 1 MB and 60 s more).
//!
//! | | binary | build |
//! |---|---|---|
//! | hyper, hyper-util, tokio-rustls, rustls-native-certs | 2.46 MB | 166 s |
//! | with `kube-client` | 6.70 MB | 444 s |
//!
//! So it is not used. What it would bring besides, `exec` plugins and OIDC, a daemon on a node has no use
//! for; what it does not do is most of this module: lists item by item, a version that went back, 410 as
//! an HTTP status at the start of a watch, one connection for everything. It would be looked at again
//! for credentials of those kinds, or for writing objects.

mod access;
mod affinities;
mod api;
mod body;
mod config;
mod credentials;
mod dial;
mod discovery;
#[cfg(test)]
mod double;
mod failure;
mod heartbeat;
mod hub;
mod kind;
mod known;
mod kubeconfig;
mod label;
mod list;
mod own_blocks;
mod own_node;
mod pace;
mod past;
mod probe;
mod random;
mod resource;
mod source;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use super::Sender;
use api::Api;
pub(super) use api::Span;
use dial::Dialer;
use random::Random;

pub use access::{Lacking, Proven};
pub use config::{
    ApiConfig, ApiEnvError, Group, KubernetesConfig, ServicesConfig, proxy_variable, typha_variable,
};
pub use source::{Services, Wanted};

/// The way to one API server, shared by the sources that read it.
#[derive(Clone)]
pub(super) struct Server(Arc<Api<Dialer>>);

impl Server {
    pub(super) fn new(config: ApiConfig, span: Span) -> Self {
        let mut api = Api::new(Dialer::new(config), Random::of_process());
        api.span = span;
        Server(Arc::new(api))
    }
}

/// Follows Calico's objects and the Nodes until the receiver is dropped.
pub(super) async fn follow(server: Server, config: KubernetesConfig, sender: Sender) {
    source::follow_calico(&*server.0, &config, sender).await;
}

/// The rights that following Calico's objects and the Nodes needs and the account does not have.
pub(super) async fn lacking(
    server: &Server,
    config: &KubernetesConfig,
    proven: Proven,
) -> Result<Vec<Lacking>, String> {
    access::of_calico(&*server.0, config, proven).await.map_err(|failure| failure.to_string())
}

/// The same of what the plan asks for.
pub(super) async fn lacking_for_services(
    server: &Server,
    config: &ServicesConfig,
    wanted: &Wanted,
    proven: Proven,
) -> Result<Vec<Lacking>, String> {
    let lacking = access::of_services(&*server.0, &config.namespace, wanted, proven);
    lacking.await.map_err(|failure| failure.to_string())
}

/// Follows what the plan asks for until the receiver is dropped.
pub(super) async fn follow_services(
    server: Server,
    config: ServicesConfig,
    wanted: tokio::sync::watch::Receiver<Option<Wanted>>,
    sender: Sender,
) {
    source::follow_services(&*server.0, &config, wanted, sender).await;
}
