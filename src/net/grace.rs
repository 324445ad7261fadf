//! How long a dynamic peer without a connection is kept.

use std::time::Duration;

use bgp_proto::types::Time;

/// Added to the time for which its routes are retained across its restart.
const GRACE: Duration = Duration::from_secs(5);

/// Decides when one dynamic peer is removed. A connection that does not become a session neither
/// shortens nor ends the time for which its routes are retained.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grace {
    /// Since when the peer has had no connection.
    alone_since: Option<Time>,
    /// Until when its routes are retained.
    kept_until: Option<Time>,
}

impl Grace {
    /// Sets until when the routes of its ended session are retained; `None` if they are not, or if
    /// a session is up.
    pub(super) fn keep_until(&mut self, at: Option<Time>) {
        self.kept_until = at;
    }

    /// The peer has a connection.
    pub(super) fn end_solitude(&mut self) {
        self.alone_since = None;
    }

    /// Called while the peer has no connection. Returns whether it is time to remove it.
    pub(super) fn is_over(&mut self, now: Time) -> bool {
        self.alone_since.get_or_insert(now);
        self.ends().is_some_and(|at| at <= now)
    }

    /// When the peer will be removed if nothing changes; `None` while it has a connection.
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
    fn connections_without_a_session_do_not_affect_the_restart_time() {
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
        assert_eq!(grace.ends(), Some(at(168)), "at least five seconds without a connection");
        assert!(grace.is_over(at(168)));
        grace.end_solitude();
        grace.keep_until(None);
        assert!(!grace.is_over(at(200)));
        assert!(grace.is_over(at(205)));
    }
}
