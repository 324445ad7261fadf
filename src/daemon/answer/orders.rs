//! Commands of clients that the daemon's loop carries out.

use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::Prefix;
use tokio::sync::{mpsc, oneshot};

use super::rehearsed::Rehearsed;
use super::sources::is_stopping;
use crate::config::{Changes, Config};
use crate::ctl::{Refusal, Selection};
use crate::daemon::Stop;
use crate::daemon::announcements::{Announcement, Effect, Key};
use crate::daemon::drains::Drained;

/// A command of a client to the daemon's loop.
pub(in crate::daemon) enum Order {
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Changes, String>>),
    /// The same, and undo it after this time unless it is confirmed.
    ReloadUntil(Duration, oneshot::Sender<Result<Changes, String>>),
    /// Confirm a reload.
    Confirm(oneshot::Sender<Result<(), String>>),
    /// Compare the configuration with the one in force, and change nothing.
    Rehearse(oneshot::Sender<Result<Rehearsed, String>>),
    /// Compare a configuration that would follow from changed objects with the one in force.
    RehearsePlan(PlanOrder, oneshot::Sender<Result<RehearsedPlan, String>>),
    /// Begin or end drains.
    Drain(DrainOrder, oneshot::Sender<Result<(), Refusal>>),
    /// Announce a route in a VRF, `None`: the default one.
    Announce(Option<String>, Prefix, Box<Announcement>, Reply<Effect>),
    /// Withdraw an announced route in a VRF, or all that are there.
    Withdraw(Option<String>, Option<Prefix>, Reply<Ended>),
    /// End the daemon.
    Stop(Stop, oneshot::Sender<()>),
}

/// Where the result of a command goes, or why it was refused.
pub(in crate::daemon) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;
/// The announced routes that a command withdrew.
pub(in crate::daemon) type Ended = Vec<(Key, Announcement)>;

/// A configuration that would follow from changed objects.
pub(in crate::daemon) struct PlanOrder {
    /// The one that followed from the objects before the change.
    pub(in crate::daemon) before: Arc<Config>,
    /// The one that would follow.
    pub(in crate::daemon) after: Box<Config>,
}

/// What a configuration that would follow from changed objects differs in.
pub(in crate::daemon) struct RehearsedPlan {
    /// What the tables are asked to evaluate.
    pub(in crate::daemon) rehearsed: Rehearsed,
    /// Whether the configuration before the change has come into force, and is the newest.
    pub(in crate::daemon) is_newest: bool,
}

/// A command to begin or end drains.
pub(in crate::daemon) struct DrainOrder {
    /// The neighbours that it applies to.
    pub(in crate::daemon) peers: Selection,
    /// The drain to begin; `None`: drains end.
    pub(in crate::daemon) begin: Option<Drained>,
}

/// Sends orders to the daemon's loop. Clones send to the same loop.
#[derive(Clone)]
pub(super) struct Orders(pub(super) mpsc::Sender<Order>);

impl Orders {
    /// Reloads the configuration. Returns what changed, or why nothing did.
    pub(super) async fn reload(&self) -> Result<Result<Changes, String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Reload(reply), answer).await
    }

    /// The same, to be undone after this time unless it is confirmed.
    pub(super) async fn reload_until(
        &self,
        time: Duration,
    ) -> Result<Result<Changes, String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::ReloadUntil(time, reply), answer).await
    }

    /// Confirms a reload, or returns why there is none to confirm.
    pub(super) async fn confirm(&self) -> Result<Result<(), String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Confirm(reply), answer).await
    }

    /// What a reload would change, or why it would be refused.
    pub(super) async fn rehearse(&self) -> Result<Result<Rehearsed, String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Rehearse(reply), answer).await
    }

    /// What would differ with a configuration that followed from changed objects, or why that cannot be
    /// said.
    pub(super) async fn rehearse_plan(
        &self,
        order: PlanOrder,
    ) -> Result<Result<RehearsedPlan, String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::RehearsePlan(order, reply), answer).await
    }

    /// Begins or ends drains. Fails if the command is refused or the daemon is stopping.
    pub(super) async fn drain(&self, order: DrainOrder) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Drain(order, reply), answer).await?
    }

    /// Announces a route. Fails if that is refused or the daemon is stopping.
    pub(super) async fn announce(
        &self,
        vrf: Option<String>,
        prefix: Prefix,
        entry: Announcement,
    ) -> Result<Effect, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Announce(vrf, prefix, Box::new(entry), reply), answer).await?
    }

    /// Withdraws announced routes. Fails if there are none or the daemon is stopping.
    pub(super) async fn withdraw(
        &self,
        vrf: Option<String>,
        prefix: Option<Prefix>,
    ) -> Result<Ended, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Withdraw(vrf, prefix, reply), answer).await?
    }

    /// Stops the daemon.
    pub(super) async fn stop(&self, stop: Stop) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Stop(stop, reply), answer).await
    }

    async fn send<T>(&self, order: Order, answer: oneshot::Receiver<T>) -> Result<T, Refusal> {
        self.0.send(order).await.map_err(|_| is_stopping())?;
        answer.await.map_err(|_| is_stopping())
    }
}
