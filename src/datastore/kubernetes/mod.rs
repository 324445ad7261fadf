//! Calico's objects in the Kubernetes API.
//!
//! - [`config`], [`kubeconfig`], [`credentials`]: how to reach the API server, and our credentials.
//! - [`api`], [`dial`], [`body`], [`failure`]: requests over one HTTP/2 connection.
//! - [`resource`], [`discovery`], [`affinities`]: what is requested, and in which API group it is.
//! - [`kind`], [`list`], [`watch`], [`heartbeat`], [`past`], [`pace`]: following one kind.
//! - [`known`], [`hub`], [`own_node`]: the last state sent, and whether each kind can be read.
//! - [`access`]: which rights are missing.
//! - [`source`]: Calico's kinds with the Nodes; Services, EndpointSlices and Secrets.
//!
//! While anything is unreachable, forbidden or not served, the last state sent stays in force.
//!
//! # Why the client is our own
//!
//! `kube-client` 5.0.0 without its runtime (`client`, `rustls-tls`, `ring`; it needs
//! `k8s-openapi`) was measured for what a library does best, credentials: its `Config` read the
//! kubeconfig and made the TLS configuration and the layer that renews tokens; the requests were
//! made by hyper over one HTTP/2 connection. The first line of the table is the same program
//! without it (fat LTO, stripped, CPU time of the whole build). The limits set beforehand were 1
//! MB and 60 s more.
//!
//! | | binary | build |
//! |---|---|---|
//! | hyper, hyper-util, tokio-rustls, rustls-native-certs | 2.46 MB | 166 s |
//! | with `kube-client` | 6.70 MB | 444 s |
//!
//! Hence it is not used. A daemon on a node has no use for what it would add, `exec` plugins and
//! OIDC; and it does not do most of what this module does: lists item by item, a version that went
//! back, 410 as an HTTP status at the start of a watch, one connection for everything. It would be
//! considered again for credentials of those kinds, or for writing objects.

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

/// The client of one API server, shared by the sources that read it.
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

/// The rights for Calico's objects and the Nodes that the account lacks.
pub(super) async fn lacking(
    server: &Server,
    config: &KubernetesConfig,
    proven: Proven,
) -> Result<Vec<Lacking>, String> {
    access::of_calico(&*server.0, config, proven).await.map_err(|failure| failure.to_string())
}

/// The same for the Services, EndpointSlices and Secrets that the plan needs.
pub(super) async fn lacking_for_services(
    server: &Server,
    config: &ServicesConfig,
    wanted: &Wanted,
    proven: Proven,
) -> Result<Vec<Lacking>, String> {
    let lacking = access::of_services(&*server.0, &config.namespace, wanted, proven);
    lacking.await.map_err(|failure| failure.to_string())
}

/// Follows the Services, EndpointSlices and Secrets that the plan needs until the receiver is
/// dropped.
pub(super) async fn follow_services(
    server: Server,
    config: ServicesConfig,
    wanted: tokio::sync::watch::Receiver<Option<Wanted>>,
    sender: Sender,
) {
    source::follow_services(&*server.0, &config, wanted, sender).await;
}
