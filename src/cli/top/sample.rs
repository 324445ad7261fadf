//! What `margay top` keeps of the daemon's answers, and what it computes from two of them.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use crate::ctl::item::Status;

/// The text of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Failure {
    pub(super) text: String,
}

/// Counters of a peer; those that an older daemon does not send are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Counters {
    pub(super) updates_received: u64,
    pub(super) updates_sent: u64,
    pub(super) prefixes_received: u64,
    pub(super) prefixes_sent: u64,
}

/// The part of [`crate::ctl::item::Peer`] that the list shows: with thousands of peers, reading every key
/// once a second would cost more than the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) address: String,
    pub(super) vrf: Option<String>,
    pub(super) remote_asn: u32,
    pub(super) state: String,
    pub(super) state_seconds: u64,
    pub(super) prefixes_received: u32,
    pub(super) prefixes_advertised: u32,
    pub(super) flaps: u64,
    pub(super) bfd: Option<String>,
    pub(super) messages: Counters,
    pub(super) last_error: Option<Failure>,
    pub(super) last_bgp_error: Option<Failure>,
}

impl Peer {
    pub(super) fn is_established(&self) -> bool {
        self.state == "Established"
    }

    /// Why there is no session, or why the last one ended.
    pub(super) fn failure(&self) -> &str {
        let failure = self.last_bgp_error.as_ref().or(self.last_error.as_ref());
        failure.map(|failure| failure.text.as_str()).unwrap_or_default()
    }
}

/// Prefixes and UPDATEs per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) prefixes_in: f64,
    pub(super) prefixes_out: f64,
    pub(super) updates_in: f64,
    pub(super) updates_out: f64,
}

impl Rates {
    /// Counters begin at 0 again when a session or the daemon does: that is no rate.
    fn between(before: &Counters, after: &Counters, seconds: f64) -> Self {
        #[allow(clippy::cast_precision_loss)] // a rate for people
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        Rates {
            prefixes_in: rate(before.prefixes_received, after.prefixes_received),
            prefixes_out: rate(before.prefixes_sent, after.prefixes_sent),
            updates_in: rate(before.updates_received, after.updates_received),
            updates_out: rate(before.updates_sent, after.updates_sent),
        }
    }

    /// By how much a peer changes the table or is told of changes.
    pub(super) fn changes(&self) -> f64 {
        self.prefixes_in + self.prefixes_out + self.updates_in + self.updates_out
    }

    fn add(&mut self, more: &Rates) {
        self.prefixes_in += more.prefixes_in;
        self.prefixes_out += more.prefixes_out;
        self.updates_in += more.updates_in;
        self.updates_out += more.updates_out;
    }
}

/// The daemon and its peers at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Overview {
    /// When the answer arrived, since the program was started.
    pub(super) at: Duration,
    pub(super) status: Status,
    pub(super) peers: Vec<Peer>,
    /// Those of each peer since the previous overview; `None`: it has none.
    pub(super) rates: Vec<Option<Rates>>,
    /// The sum of all rates.
    pub(super) total: Option<Rates>,
}

impl Overview {
    /// An overview without rates.
    pub(super) fn new(at: Duration, status: Status, peers: Vec<Peer>) -> Self {
        let rates = vec![None; peers.len()];
        Overview { at, status, peers, rates, total: None }
    }

    /// Computes rates from the overview before. There are none if the daemon was started in between, or
    /// no time has passed.
    pub(super) fn compare(&mut self, before: &Overview) {
        let seconds = self.at.saturating_sub(before.at).as_secs_f64();
        if seconds <= 0.0 || self.status.started != before.status.started {
            return;
        }
        let known: HashMap<&str, &Counters> =
            before.peers.iter().map(|peer| (peer.name.as_str(), &peer.messages)).collect();
        let rates = |peer: &Peer| {
            let earlier = known.get(peer.name.as_str())?;
            Some(Rates::between(earlier, &peer.messages, seconds))
        };
        self.rates = self.peers.iter().map(rates).collect();
        let mut total = Rates::default();
        self.rates.iter().flatten().for_each(|rates| total.add(rates));
        self.total = Some(total);
    }

    /// What has to be repaired or waited for, most urgent first.
    pub(super) fn problems(&self) -> Vec<String> {
        let status = &self.status;
        let mut all: Vec<String> = Vec::new();
        all.extend(status.not_ready.as_ref().map(|reason| format!("not ready: {reason}")));
        all.extend(status.problems.iter().cloned());
        if let Some(refused) = &status.reload_refused {
            all.push(format!("last reload refused: {}", refused.text.replace('\n', "; ")));
        }
        if let Some(reload) = &status.reload_unconfirmed {
            all.push(crate::cli::render::unconfirmed(reload));
        }
        all.extend(status.held_back.as_ref().map(|held| format!("announcements held back {held}")));
        let failed = status.fib.failed + status.vrfs.iter().map(|vrf| vrf.fib.failed).sum::<u64>();
        if failed > 0 {
            all.push(format!("{failed} routes failed in the kernel: show fib"));
        }
        if let Some(error) = status.http.as_ref().and_then(|http| http.error.as_ref()) {
            all.push(format!("metrics are not served: {error}"));
        }
        let Some(calico) = &status.calico else { return all };
        for source in &calico.sources {
            if let Some(error) = &source.error {
                all.push(format!("{}: away: {error}", source.name));
            }
        }
        let unusable = calico.problems.iter().map(|p| format!("{}: {}", p.object, p.text));
        all.extend(unusable);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview(at: u64, started: &str, prefixes: u64) -> Overview {
        let status = Status { started: started.to_owned(), ..Status::default() };
        let messages = Counters { prefixes_received: prefixes, ..Counters::default() };
        let peer = |name: &str| Peer { name: name.to_owned(), messages, ..Peer::default() };
        Overview::new(Duration::from_secs(at), status, vec![peer("a"), peer("b")])
    }

    #[test]
    fn rates_are_those_of_the_time_that_has_passed() {
        let (before, mut after) = (overview(10, "x", 100), overview(14, "x", 300));
        after.peers.push(Peer { name: "new".to_owned(), ..Peer::default() });
        after.compare(&before);
        let of = |rates: Option<Rates>| rates.map(|rates| rates.prefixes_in);
        assert_eq!(
            after.rates.iter().copied().map(of).collect::<Vec<_>>(),
            [Some(50.0), Some(50.0), None]
        );
        assert_eq!(of(after.total), Some(100.0));
    }

    #[test]
    fn a_restart_is_no_rate() {
        let mut restarted = overview(14, "y", 300);
        restarted.compare(&overview(10, "x", 100));
        assert_eq!((restarted.rates[0], restarted.total), (None, None));
        let mut fewer = overview(14, "x", 3);
        fewer.compare(&overview(10, "x", 100));
        assert_eq!(fewer.rates[0], Some(Rates::default()));
        let mut at_once = overview(10, "x", 300);
        at_once.compare(&overview(10, "x", 100));
        assert_eq!(at_once.rates[0], None);
    }
}
