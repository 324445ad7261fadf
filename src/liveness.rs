//! How a part of the daemon proves that it still runs: it is asked, and answers in its next turn.
//!
//! There is no heartbeat by a clock: a part that is not asked is not woken. Questions are counted, not
//! queued, so that a part that never answers costs nothing more, however often it is asked.

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

/// What a part was asked, up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question(u64);

impl Default for Liveness {
    fn default() -> Self {
        let (answered, _) = watch::channel(0);
        Liveness(Arc::new(Shared { asked: AtomicU64::new(0), answered, woken: Notify::new() }))
    }
}

impl Liveness {
    /// Asks at once; the future comes back when the part has answered, whenever that is.
    pub fn ask(&self) -> impl Future<Output = ()> + Send + use<> {
        let number = self.0.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answered = self.0.answered.subscribe();
        let shared = Arc::clone(&self.0);
        shared.woken.notify_one();
        async move {
            // The sender is in `shared`, which is held until here.
            let _ = answered.wait_for(|answered| *answered >= number).await;
            drop(shared);
        }
    }

    /// For the part: waits until it is asked.
    pub async fn asked(&self) {
        self.0.woken.notified().await;
    }

    /// For the part: what it was asked, to be taken when its turn begins.
    pub fn question(&self) -> Question {
        Question(self.0.asked.load(Ordering::Acquire))
    }

    /// For the part: its turn is over.
    pub fn answer(&self, question: Question) {
        self.0.answered.send_if_modified(|answered| {
            let is_news = *answered < question.0;
            *answered = question.0.max(*answered);
            is_news
        });
    }

    /// For a part whose whole turn is a poll of its task: answers for as long as the task is polled.
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
        assert!(second.now_or_never().is_none(), "asked while it was under way");
        liveness.answer(liveness.question());
        // An older answer that comes late takes nothing back.
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
