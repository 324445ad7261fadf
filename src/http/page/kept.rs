//! An answer that is made for all who ask within a second, or longer where it is much work.

use std::future::Future;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::Mutex;

use super::{Answer, Failure};

/// An answer that took this long to make is kept for twice as long as one that took less, and so on, up to a
/// factor: looking at thousands of sessions then costs a bounded share of a core.
const MAKING: Duration = Duration::from_millis(4);
const KEPT_FACTOR_MAX: u32 = 5;

/// How long an answer is kept that took this long to make.
fn kept_for(fresh: Duration, making: Duration) -> Duration {
    let more = u32::try_from(making.as_nanos() / MAKING.as_nanos()).unwrap_or(u32::MAX);
    fresh.saturating_mul(more.saturating_add(1).min(KEPT_FACTOR_MAX))
}

/// The last answer to one question. Whoever asks while it is being made waits for it.
#[derive(Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Default)]
struct State {
    made: Option<Instant>,
    /// How long that took.
    making: Duration,
    body: Bytes,
    /// Incremented when the answer differs from the previous one.
    version: u64,
}

impl Kept {
    /// The answer and its version: the last one, or what `making` makes if that is older than `fresh`, or than
    /// it was work. A failure is not kept.
    pub(super) async fn get(
        &self,
        fresh: Duration,
        making: impl Future<Output = Result<Answer, Failure>>,
    ) -> Result<(Bytes, u64), Failure> {
        let mut state = self.0.lock().await;
        let kept = kept_for(fresh, state.making);
        if state.made.is_none_or(|made| made.elapsed() >= kept) {
            let began = Instant::now();
            let Answer(body) = making.await?;
            let made = Instant::now();
            (state.made, state.making) = (Some(made), made - began);
            if state.body != body {
                state.body = body.into();
                state.version += 1;
            }
        }
        Ok((state.body.clone(), state.version))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_answer_that_is_much_work_is_kept_for_longer() {
        let second = Duration::from_secs(1);
        let kept = |millis| kept_for(second, Duration::from_millis(millis)).as_secs();
        assert_eq!([0, 3, 4, 9, 20, 60_000].map(kept), [1, 1, 2, 3, 5, 5]);
    }

    #[tokio::test]
    async fn it_is_made_once_for_all_and_its_version_tells_whether_it_differs() {
        let (kept, made) = (Kept::default(), Cell::new(0));
        let ask = |fresh, text: &'static str| {
            let making = async {
                made.set(made.get() + 1);
                tokio::task::yield_now().await;
                Ok(Answer(text.into()))
            };
            kept.get(fresh, making)
        };
        let long = Duration::from_secs(3600);
        let (first, second) = tokio::join!(ask(long, "a"), ask(long, "b"));
        assert_eq!(first, second);
        assert_eq!((first, made.get()), (Ok(("a".into(), 1)), 1));
        assert_eq!(ask(Duration::ZERO, "a").await, Ok(("a".into(), 1)), "made again, the same");
        assert_eq!(ask(Duration::ZERO, "c").await, Ok(("c".into(), 2)));
        let failure = Failure::Failed("x".into());
        let failing = std::future::ready(Err(failure.clone()));
        assert_eq!(kept.get(Duration::ZERO, failing).await, Err(failure));
        assert_eq!(ask(long, "d").await, Ok(("c".into(), 2)), "a failure takes nothing away");
    }
}
