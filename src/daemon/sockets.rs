//! The sockets that operators and Calico's tools ask through.
//!
//! They are bound before anything else is touched: a second margay that is started by mistake ends
//! here, with the kernel's routes as they were.

use std::sync::Arc;

use bgp_proto::types::Family;
use tokio::task::JoinHandle;

use super::answers::Answers;
use crate::config::{BirdSockets, ControlSettings};
use crate::ctl::{self, ServerError};

/// Bound, and not served yet: clients that come early wait.
pub(super) struct Sockets {
    control: ctl::Server,
    bird: Vec<ctl::bird::Server>,
}

impl Sockets {
    /// # Errors
    /// Somebody answers at one of them, or the system refuses.
    pub(super) fn bind(settings: &ControlSettings) -> Result<Self, ServerError> {
        let control = ctl::Server::bind(&settings.socket)?;
        let bird = match &settings.bird_sockets {
            None => Vec::new(),
            Some(BirdSockets { ipv4, ipv6 }) => vec![
                ctl::bird::Server::bind(ipv4, Family::Ipv4)?,
                ctl::bird::Server::bind(ipv6, Family::Ipv6)?,
            ],
        };
        Ok(Sockets { control, bird })
    }

    /// Answers clients until the tasks are aborted.
    pub(super) fn serve(self, answers: &Arc<Answers>) -> Vec<JoinHandle<()>> {
        let control = tokio::spawn(self.control.run(Arc::clone(answers)));
        let bird =
            self.bird.into_iter().map(|server| tokio::spawn(server.run(Arc::clone(answers))));
        std::iter::once(control).chain(bird).collect()
    }
}
