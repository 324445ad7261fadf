//! How long a dynamic peer without a connection is remembered.

use std::time::Duration;

use bgp_proto::types::Time;

/// Beyond the time for which its routes are kept over its restart.
const GRACE: Duration = Duration::from_secs(5);

/// The end of one dynamic peer. Who only connects meanwhile, and does not become its session, takes
/// nothing of the time that it has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grace {
    /// Since when it has no connection.
    alone_since: Option<Time>,
    /// Until when its routes are kept.
    kept_until: Option<Time>,
}

impl Grace {
    /// Its session ended and its routes are kept until then, or it is up, or they are not.
    pub(super) fn keep_until(&mut self, at: Option<Time>) {
        self.kept_until = at;
    }

    /// It has a connection.
    pub(super) fn end_solitude(&mut self) {
        self.alone_since = None;
    }

    /// Whether a peer without a connection is to be forgotten.
    pub(super) fn is_over(&mut self, now: Time) -> bool {
        self.alone_since.get_or_insert(now);
        self.ends().is_some_and(|at| at <= now)
    }

    /// When it is forgotten, as things are.
    pub(super) fn ends(&self) -> Option<Time> {
        let since = self.alone_since?;
        Some(self.kept_until.map_or(since, |at| at.max(since)) + GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn who_connects_in_vain_takes_nothing_of_the_restart_time() {
        let mut grace = Grace::default();
        assert!(!grace.is_over(at(100)));
        assert_eq!(grace.ends(), Some(at(105)));
        grace.end_solitude();
        assert_eq!(grace.ends(), None);
        // A session that ended with a restart time of a minute.
        grace.keep_until(Some(at(160)));
        assert!(!grace.is_over(at(100)));
        assert_eq!(grace.ends(), Some(at(165)));
        for second in 101..164 {
            grace.end_solitude();
            assert!(!grace.is_over(at(second)));
        }
        assert_eq!(grace.ends(), Some(at(168)), "five seconds without anybody in any case");
        assert!(grace.is_over(at(168)));
        grace.end_solitude();
        grace.keep_until(None);
        assert!(!grace.is_over(at(200)));
        assert!(grace.is_over(at(205)));
    }
}
