//! The sockets for operators and Calico's tools.
//!
//! They are bound before anything else is done: a second margay that is started by mistake exits
//! here, without having touched the kernel's routes. That of metrics and health is bound later, as it may
//! be in use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::Family;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::answer::{HttpView, Publisher, Views};
use crate::config::{BirdPaths, BirdSockets, ControlSettings};
use crate::ctl::{self, ServerError};
use crate::http;
use crate::supervise::{self, Ending};

/// Pause between two attempts to serve metrics and health.
const HTTP_RETRY: Duration = Duration::from_secs(10);

/// Sockets that are bound and not served yet; early clients wait.
pub(super) struct Sockets {
    control: ctl::Server,
    read_only: Option<ctl::Server>,
    bird: Vec<ctl::bird::Server>,
}

impl Sockets {
    /// # Errors
    /// Another process is listening on one of them, or one cannot be bound or given to its group.
    pub(super) fn bind(settings: &ControlSettings) -> Result<Self, ServerError> {
        let control = ctl::Server::bind(&settings.socket, settings.group.as_deref())?;
        let read_only = settings.read_only.as_ref().map(|own| {
            let group = own.group.as_deref();
            ctl::Server::bind_read_only(&own.socket, group, &settings.socket)
        });
        let read_only = read_only.transpose()?;
        let bird = match &settings.bird_sockets {
            None | Some(BirdSockets::Off) => Vec::new(),
            Some(BirdSockets::At(paths)) => {
                bind_bird(paths).into_iter().collect::<Result<_, _>>()?
            }
            Some(BirdSockets::Calico) => serving_what_can_be(bind_bird(&BirdPaths::calico()))?,
        };
        Ok(Sockets { control, read_only, bird })
    }

    /// Answers clients until the tasks are aborted.
    pub(super) fn serve(self, views: &Views) -> Vec<JoinHandle<()>> {
        let control = std::iter::once(self.control).chain(self.read_only).map(|server| {
            let served = server.run(Arc::clone(&views.control));
            tokio::spawn(supervise::task("control socket", Ending::Never, served))
        });
        let control: Vec<_> = control.collect();
        let bird = self.bird.into_iter().map(|server| {
            let served = server.run(Arc::clone(&views.bird));
            tokio::spawn(supervise::task("BIRD socket", Ending::Never, served))
        });
        control.into_iter().chain(bird).collect()
    }
}

fn bind_bird(paths: &BirdPaths) -> [Result<ctl::bird::Server, ServerError>; 2] {
    [(&paths.ipv4, Family::Ipv4), (&paths.ipv6, Family::Ipv6)]
        .map(|(path, family)| ctl::bird::Server::bind(path, family))
}

/// Calico's default sockets, which the operator did not request: if they cannot be created, margay
/// runs without them. If another process is listening on one, this node already has a BGP speaker,
/// and margay must not start.
fn serving_what_can_be<T>(
    bound: impl IntoIterator<Item = Result<T, ServerError>>,
) -> Result<Vec<T>, ServerError> {
    let mut served = Vec::new();
    let mut faults = Vec::new();
    for result in bound {
        match result {
            Ok(server) => served.push(server),
            Err(error @ ServerError::InUse { .. }) => return Err(error),
            Err(error) => faults.push(error.to_string()),
        }
    }
    if !faults.is_empty() {
        warn!(
            "calico-node's probes and calicoctl cannot use BIRD's sockets here, everything else \
             runs: {} (if that is intended: bird-sockets = \"none\" or MARGAY_BIRD_SOCKETS=none)",
            faults.join("; ")
        );
    }
    Ok(served)
}

/// Serves metrics and health. If the address cannot be bound, everything else still runs: the error
/// is logged once, and binding is tried again.
pub(super) async fn serve_http(address: SocketAddr, view: Arc<HttpView>, publisher: Publisher) {
    let mut fault: Option<String> = None;
    let server = loop {
        let error = match http::Server::bind(address).await {
            Ok(server) => break server,
            Err(error) => error,
        };
        let text = format!("cannot listen on {address}: {error}");
        if fault.as_ref() != Some(&text) {
            warn!(
                "metrics and health are not served, everything else runs: {text} (http.listen); \
                 tried again every {} s",
                HTTP_RETRY.as_secs()
            );
            publisher.publish(|state| state.http_fault = Some(text.clone()));
            fault = Some(text);
        }
        tokio::time::sleep(HTTP_RETRY).await;
    };
    publisher.publish(|state| state.http_fault = None);
    info!("metrics and health on http://{address}");
    // What the page plots is recorded from here on, so that its first view has something to show.
    tokio::join!(view.record_rates(), server.run(Arc::clone(&view)));
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn of_default_sockets_only_one_in_use_prevents_the_start() {
        let (path, key) = ("/x".into(), "bird-sockets");
        let in_use = ServerError::InUse { path, key };
        let (path, source) = ("/y".into(), io::ErrorKind::PermissionDenied.into());
        let no_place = || ServerError::NotASocket { path: "/y".into(), key };
        let refused = ServerError::Io { path, key, source };
        assert_eq!(serving_what_can_be([Ok(4), Ok(6)]).unwrap(), [4, 6]);
        assert_eq!(serving_what_can_be([Ok(4), Err(refused)]).unwrap(), [4]);
        let nothing: [Result<u8, _>; 2] = [Err(no_place()), Err(no_place())];
        assert!(serving_what_can_be(nothing).unwrap().is_empty());
        let fault = serving_what_can_be::<u8>([Err(no_place()), Err(in_use)]).unwrap_err();
        assert!(fault.to_string().starts_with("another process is listening on /x"), "{fault}");
    }
}
