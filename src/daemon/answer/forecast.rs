//! What changed objects would do on a Calico node: the plan and the routes that would follow.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;

use super::configuration::{listed, sessions};
use super::control::ControlView;
use super::orders::{PlanOrder, RehearsedPlan};
use super::rehearsed::rehearsed_routes;
use super::sources::is_stopping;
use crate::calico::edit::{Edit, Forecast};
use crate::calico::load::{Loaded, parse};
use crate::ctl::item::{Forecasted, PlanDifference, Reloaded};
use crate::ctl::{ErrorKind, ObjectFile, Page, Refusal};
use crate::node::Asked;

impl ControlView {
    /// What would follow if the objects in `apply` were added or replaced and those named in `delete`
    /// deleted, with at most `list` routes for each peer.
    pub(super) async fn forecast(
        &self,
        apply: &[ObjectFile],
        delete: &[String],
        list: Option<u32>,
    ) -> Result<Page, Refusal> {
        let alone = self.rehearsals.begin()?;
        let Some(node) = self.sources.state().node.clone() else {
            let text = "the daemon does not follow Calico's objects: its configuration has no [calico]; \
                        margay reload --dry-run is for the file";
            return Err(Refusal { kind: ErrorKind::BadRequest, text: text.to_owned() });
        };
        let asked = node.asking.ask().await.ok_or_else(is_stopping)?;
        let Asked { basis, is_pending, away } =
            asked.map_err(|e| Refusal::failed(e.to_string()))?;
        let (apply, delete) = (apply.to_vec(), delete.to_vec());
        let computed = computed(alone, move || {
            let edit = Edit::new(loaded(&apply), delete)?;
            basis.forecast(&edit)
        });
        let (forecast, _alone) = computed.await?;
        let forecast = forecast.map_err(Refusal::configuration)?;
        let Forecast { objects, plan, plan_more, before, after, unread } = forecast;
        let order = PlanOrder { before, after: Box::new(after) };
        let rehearsed = self.orders.rehearse_plan(order).await?;
        let RehearsedPlan { mut rehearsed, is_newest } = rehearsed.map_err(Refusal::failed)?;
        rehearsed.not_counted.extend(unread);
        let running = Arc::clone(&self.sources.state().config);
        let mut sessions = sessions(&rehearsed.changes);
        self.add_state(&mut sessions).await?;
        let origins = Arc::clone(&node.status.borrow().origins);
        for session in &mut sessions {
            let origin = origins.get(&*session.peer);
            session.object = origin.map(|origin| origin.object.to_string());
        }
        let routes = rehearsed_routes(&self.sources, &rehearsed, listed(list)).await?;
        let is_still = Arc::ptr_eq(&running, &self.sources.state().config);
        let plan = plan.into_iter().map(|d| PlanDifference {
            line: d.to_string(),
            place: d.place,
            old: d.old,
            new: d.new,
        });
        Page::last([Reloaded {
            changes: rehearsed.changes.lines(),
            dry_run: true,
            sessions,
            routes: Some(routes),
            forecast: Some(Forecasted {
                objects,
                plan: plan.collect(),
                plan_more,
                changed_meanwhile: is_pending || !is_newest || !is_still,
                sources_unavailable: away,
                why_no_routes: None,
            }),
            ..Reloaded::default()
        }])
    }
}

/// Does work that is too long for a thread that serves others, such as two plans. The permit goes with
/// the work: that goes on if nobody waits for the answer any more.
async fn computed<T: Send + 'static>(
    alone: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(T, OwnedSemaphorePermit), Refusal> {
    let computed = tokio::task::spawn_blocking(move || (work(), alone));
    computed.await.map_err(|error| unfinished(&error))
}

fn unfinished(error: &JoinError) -> Refusal {
    if error.is_panic() {
        let text = "the computation failed, which is a fault of margay: its log says where; please \
                    report it with the changed objects";
        return Refusal::failed(text);
    }
    is_stopping()
}

fn loaded(files: &[ObjectFile]) -> Loaded {
    let mut loaded = Loaded::default();
    files.iter().for_each(|file| parse(&file.name, &file.text, &mut loaded));
    loaded
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::rehearsed::Rehearsals;
    use super::*;

    #[tokio::test]
    async fn a_dry_run_that_nobody_waits_for_is_still_the_only_one() {
        let rehearsals = Rehearsals::new();
        let (finish, finished) = mpsc::channel::<()>();
        let work = computed(rehearsals.begin().unwrap(), move || finished.recv());
        // The client's wait ends, the work does not.
        tokio::time::timeout(Duration::from_millis(10), work).await.unwrap_err();
        assert!(rehearsals.begin().is_err());
        finish.send(()).unwrap();
        let free = async {
            while rehearsals.begin().is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), free).await.unwrap();
    }

    #[tokio::test]
    async fn a_fault_of_the_computation_is_not_an_end_of_the_daemon() {
        let rehearsals = Rehearsals::new();
        let work = computed(rehearsals.begin().unwrap(), || panic!("as a test wants it"));
        let refusal = work.await.map(|((), _)| ()).unwrap_err();
        assert!(refusal.text.starts_with("the computation failed"), "{}", refusal.text);
        assert!(rehearsals.begin().is_ok());
    }
}
