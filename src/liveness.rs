//! How a part of the daemon proves that it still runs: it is probed, and answers in its next turn.
//!
//! There is no periodic heartbeat: a part that is not probed is not woken. Probes are counted, not
//! queued, so a part that never answers uses no more memory however often it is probed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// The liveness of one part. Clones share it.
#[derive(Clone, Debug)]
pub struct Liveness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    asked: AtomicU64,
    answered: watch::Sender<u64>,
    woken: Notify,
}

/// The probes that a part had received at some moment; [`Liveness::answer`] answers all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question(u64);

impl Default for Liveness {
    fn default() -> Self {
        let (answered, _) = watch::channel(0);
        Liveness(Arc::new(Shared { asked: AtomicU64::new(0), answered, woken: Notify::new() }))
    }
}

impl Liveness {
    /// Probes the part at once, without polling the future. The future completes when the part has
    /// answered, and has no time limit of its own.
    pub fn ask(&self) -> impl Future<Output = ()> + Send + use<> {
        let number = self.0.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answered = self.0.answered.subscribe();
        let shared = Arc::clone(&self.0);
        shared.woken.notify_one();
        async move {
            // This cannot fail: the sender is in `shared`, which is held until here.
            let _ = answered.wait_for(|answered| *answered >= number).await;
            drop(shared);
        }
    }

    /// For the part: waits until it is probed.
    pub async fn asked(&self) {
        self.0.woken.notified().await;
    }

    /// For the part: the probes received so far. To be read when its turn begins, so that a probe
    /// that arrives during the turn is answered only by the next.
    pub fn question(&self) -> Question {
        Question(self.0.asked.load(Ordering::Acquire))
    }

    /// For the part: its turn is over. An older question than the last one answered has no effect.
    pub fn answer(&self, question: Question) {
        self.0.answered.send_if_modified(|answered| {
            let is_news = *answered < question.0;
            *answered = question.0.max(*answered);
            is_news
        });
    }

    /// For a part whose whole turn is one poll of its task: answers as long as the task is polled.
    pub async fn answer_always(&self) {
        loop {
            self.asked().await;
            self.answer(self.question());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_counts_for_what_was_asked_before_the_turn() {
        let liveness = Liveness::default();
        let first = liveness.ask();
        let question = liveness.question();
        let second = liveness.ask();
        liveness.answer(question);
        first.now_or_never().expect("asked before the turn began");
        assert!(second.now_or_never().is_none(), "asked while the turn was under way");
        liveness.answer(liveness.question());
        // A late answer to an older question does not undo a newer one.
        liveness.answer(question);
        let third = liveness.ask();
        assert!(third.now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_task_answers_while_it_is_polled() {
        let liveness = Liveness::default();
        let own = liveness.clone();
        let task = tokio::spawn(async move { own.answer_always().await });
        liveness.ask().await;
        liveness.ask().await;
        task.abort();
        let _ = task.await;
        assert!(liveness.ask().now_or_never().is_none());
    }
}
