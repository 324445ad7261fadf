//! What clients want done: the daemon's own loop does it.

use tokio::sync::{mpsc, oneshot};

use super::sources::is_stopping;
use crate::config::Changes;
use crate::ctl::Refusal;
use crate::daemon::Stop;

/// What a client wants done by the daemon's own loop.
pub(in crate::daemon) enum Order {
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Changes, String>>),
    /// End the daemon.
    Stop(Stop, oneshot::Sender<()>),
}

/// Where orders go. Clones lead to the same loop.
#[derive(Clone)]
pub(super) struct Orders(pub(super) mpsc::Sender<Order>);

impl Orders {
    /// The configuration is read again. What changed, or why nothing did.
    pub(super) async fn reload(&self) -> Result<Result<Changes, String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Reload(reply), answer).await
    }

    /// The daemon ends.
    pub(super) async fn stop(&self, stop: Stop) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Stop(stop, reply), answer).await
    }

    async fn send<T>(&self, order: Order, answer: oneshot::Receiver<T>) -> Result<T, Refusal> {
        self.0.send(order).await.map_err(|_| is_stopping())?;
        answer.await.map_err(|_| is_stopping())
    }
}
