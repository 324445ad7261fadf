//! What a client's question about changed objects is answered from.

use tokio::sync::{mpsc, oneshot};

use crate::calico::edit::Basis;

/// Questions that wait for the planning task; dry runs are one at a time.
const WAITING_MAX: usize = 1;

/// The objects and the settings of the planning task, at one moment.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What a plan is computed from.
    pub basis: Basis,
    /// Whether objects have changed for which there is no plan yet.
    pub is_pending: bool,
    /// The sources that cannot be read, each with the reason: their last known objects count.
    pub away: Vec<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no plan is in force yet: {0}")]
pub struct NoPlan(pub String);

pub(super) type Question = oneshot::Sender<Result<Asked, NoPlan>>;

/// Asks the planning task. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Asking(mpsc::Sender<Question>);

impl Asking {
    /// The questions, and where the planning task takes them.
    pub(super) fn new() -> (Asking, mpsc::Receiver<Question>) {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        (Asking(sender), inbox)
    }

    /// The objects and the settings, copied without an effect on the plan. `None`: the task has ended.
    ///
    /// # Errors
    /// No plan is in force.
    pub async fn ask(&self) -> Option<Result<Asked, NoPlan>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        answer.await.ok()
    }
}
