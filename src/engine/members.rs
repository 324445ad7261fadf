//! Members of update groups that are served right after a turn, by the thread that ran it.
//!
//! When the sending task has run a turn itself, it also writes what the turn left for the first few
//! members: a change then reaches them without another thread. All others are woken, as after a
//! turn of the table's thread.

use std::cell::RefCell;
use std::sync::Arc;

/// Most members that are served so. Each takes a write to its socket, and meanwhile the task that ran
/// the turn reads nothing.
const SERVED_MAX: usize = 16;

/// A member that has something to read.
pub trait Member: Send + Sync {
    /// Writes it now if that is possible without waiting, else does as [`Member::wake`].
    fn serve(&self);
    /// Wakes its own task, which will write it.
    fn wake(&self);
}

thread_local! {
    /// The members to serve after the turn that runs on this thread; `None`: no turn does, or it is
    /// one of the table's thread.
    static WAITING: RefCell<Option<Vec<Arc<dyn Member>>>> = const { RefCell::new(None) };
}

/// Called when the table wakes a member: it is served by the thread that runs the turn if that is a
/// sending task's and the member is among the first few, otherwise woken.
pub fn serve_after_turn(member: Arc<dyn Member>) {
    let rest = WAITING.with_borrow_mut(|waiting| match waiting {
        Some(members) if members.len() < SERVED_MAX => {
            members.push(member);
            None
        }
        _ => Some(member),
    });
    rest.into_iter().for_each(|member| member.wake());
}

/// Collects the members that a turn on this thread wakes, until it is dropped.
pub(super) struct Collected(());

impl Collected {
    pub(super) fn begin() -> Self {
        WAITING.set(Some(Vec::new()));
        Collected(())
    }

    /// Serves them. The table must be free: members read their log, and may ask for another turn.
    pub(super) fn serve(self) {
        let members = WAITING.take().unwrap_or_default();
        members.iter().for_each(|member| member.serve());
    }
}

impl Drop for Collected {
    /// After a turn that has panicked members are woken, as they would have been without this.
    fn drop(&mut self) {
        WAITING.take().into_iter().flatten().for_each(|member| member.wake());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<&'static str>>);

    impl Seen {
        fn take(&self) -> Vec<&'static str> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Member for Seen {
        fn serve(&self) {
            self.0.lock().unwrap().push("served");
        }

        fn wake(&self) {
            self.0.lock().unwrap().push("woken");
        }
    }

    #[test]
    fn the_first_members_of_a_turn_are_served_after_it() {
        let member = Arc::new(Seen::default());
        let again = || serve_after_turn(Arc::clone(&member) as Arc<dyn Member>);
        again();
        assert_eq!(member.take(), ["woken"], "the table's thread serves nobody");

        let collected = Collected::begin();
        (0..=SERVED_MAX).for_each(|_| again());
        assert_eq!(member.take(), ["woken"], "one more than are served");
        collected.serve();
        assert_eq!(member.take(), ["served"; SERVED_MAX]);
        again();
        assert_eq!(member.take(), ["woken"], "the turn is over");
    }

    #[test]
    fn a_turn_that_panics_wakes_its_members() {
        let member = Arc::new(Seen::default());
        let turn = std::panic::AssertUnwindSafe(|| {
            let _collected = Collected::begin();
            serve_after_turn(Arc::clone(&member) as Arc<dyn Member>);
            panic!("injected");
        });
        assert!(std::panic::catch_unwind(turn).is_err());
        assert_eq!(member.take(), ["woken"]);
    }
}
