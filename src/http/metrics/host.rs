//! Metrics of our routes in the kernel, and of a Calico node's objects.

use std::collections::BTreeMap;
use std::time::Duration;

use super::families::Families;
use crate::metric_names as names;

/// Counts of our routes in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FibMetrics {
    /// Routes that are installed as intended.
    pub installed: u64,
    /// Routes that are not written yet.
    pub pending: u64,
    /// Routes that the kernel rejected.
    pub failed: u64,
    /// Routes that are not installed because of another process's route.
    pub foreign: u64,
    /// Our next-hop objects in the kernel.
    pub next_hop_objects: u64,
    /// Messages sent to the kernel.
    pub writes: u64,
    /// Batches of messages.
    pub batches: u64,
    /// Messages that the kernel rejected.
    pub errors: u64,
    /// Full dumps of the kernel's routes.
    pub resyncs: u64,
}

impl FibMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        for (state, count) in [
            ("installed", self.installed),
            ("pending", self.pending),
            ("failed", self.failed),
            ("foreign", self.foreign),
        ] {
            families.gauge(
                names::FIB_ROUTES,
                "Our routes by what the kernel did with them: installed; pending, not written yet; \
                 failed, refused and tried again; foreign, displaced by another process's route with \
                 the same prefix and metric.",
                &[("state", state)],
                count,
            );
        }
        families.gauge(
            names::FIB_NEXT_HOP_OBJECTS,
            "Next-hop objects of ours that the kernel has: groups that routes go over, and their \
             members. 0 where each route brings its gateways.",
            &[],
            self.next_hop_objects,
        );
        for (name, help, count) in [
            (
                names::FIB_WRITES_TOTAL,
                "Messages about routes and next-hop objects sent to the kernel.",
                self.writes,
            ),
            (names::FIB_BATCHES_TOTAL, "Batches of route messages.", self.batches),
            (names::FIB_ERRORS_TOTAL, "Route messages that the kernel refused.", self.errors),
            (
                names::FIB_RESYNCS_TOTAL,
                "Full readings of the kernel's routes: at the start, and after events were lost.",
                self.resyncs,
            ),
        ] {
            families.counter(name, help, &[], count);
        }
    }
}

/// What is recorded in MRT files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MrtMetrics {
    /// Records written.
    pub written: u64,
    /// Records dropped.
    pub dropped: u64,
    /// Files completed.
    pub files: u64,
}

impl MrtMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        for (result, count) in [("written", self.written), ("dropped", self.dropped)] {
            families.counter(
                names::MRT_RECORDS_TOTAL,
                "Messages of peers and changes of state: written to MRT files; dropped, because the \
                 disk was too slow or they could not be written.",
                &[("result", result)],
                count,
            );
        }
        families.counter(names::MRT_FILES_TOTAL, "MRT files completed.", &[], self.files);
    }
}

/// The status of a Calico node's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalicoMetrics {
    /// Whether a plan is in force.
    pub in_force: bool,
    /// Problems by kind of object.
    pub problems: BTreeMap<String, u64>,
    /// Settings in objects that have no effect, or an unexpected one.
    pub notes: u64,
    /// The sources of the objects.
    pub sources: Vec<SourceMetrics>,
    /// Plans computed so far.
    pub plans: u64,
    /// Total time spent computing plans.
    pub planning: Duration,
}

/// One source of objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceMetrics {
    /// A short description without secrets.
    pub name: String,
    /// Whether our copy of its objects is current.
    pub current: bool,
    /// For how long it has been unavailable; zero while it is available.
    pub away: Duration,
    /// The cause of that as a label value, if the source has one.
    pub cause: Option<&'static str>,
    /// The time since anything was last received, if known.
    pub silence: Option<Duration>,
    /// The newest revision that it has reported, if it has revisions.
    pub revision: Option<i64>,
    /// By how many revisions our copy is behind that.
    pub lag: Option<u64>,
}

impl CalicoMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        families.gauge(
            names::CALICO_IN_FORCE,
            "Whether a plan that follows from Calico's objects is in force.",
            &[],
            u64::from(self.in_force),
        );
        families.gauge(
            names::CALICO_PROBLEMS,
            "Objects, or parts of them, that cannot be used: margay show status names them.",
            &[],
            self.problems.values().sum(),
        );
        families.gauge(
            names::CALICO_NOTES,
            "What objects say that has no effect, or another one: margay show status names it.",
            &[],
            self.notes,
        );
        for (kind, count) in &self.problems {
            families.gauge(
                names::CALICO_KIND_PROBLEMS,
                "Objects, or parts of them, that cannot be used, by kind.",
                &[("kind", kind)],
                *count,
            );
        }
        self.sources.iter().for_each(|source| source.collect(families));
        families.counter(
            names::CALICO_PLANS_TOTAL,
            "Plans worked out from Calico's objects.",
            &[],
            self.plans,
        );
        families.fraction_counter(
            names::CALICO_PLANNING_SECONDS_TOTAL,
            "Time that working plans out took.",
            &[],
            self.planning.as_secs_f64(),
        );
    }
}

impl SourceMetrics {
    fn collect(&self, families: &mut Families) {
        let labels = [("source", self.name.as_str())];
        families.gauge(
            names::CALICO_SOURCE_CURRENT,
            "Whether what is known of a source is current. 0: it cannot be read, and what is known \
             stays in force.",
            &labels,
            u64::from(self.current),
        );
        families.fraction(
            names::CALICO_SOURCE_AWAY_SECONDS,
            "For how long a source has not been read; 0 while it is.",
            &labels,
            self.away.as_secs_f64(),
        );
        if let Some(cause) = self.cause {
            families.gauge(
                names::CALICO_SOURCE_UNAVAILABLE,
                "1 while a source cannot be read, with the cause. Sources in the Kubernetes API only.",
                &[("source", self.name.as_str()), ("cause", cause)],
                1,
            );
        }
        if let Some(silence) = self.silence {
            families.fraction(
                names::CALICO_SOURCE_SILENCE_SECONDS,
                "Time since a source last said anything. etcd is asked after 5 s without news.",
                &labels,
                silence.as_secs_f64(),
            );
        }
        if let Some(revision) = self.revision {
            families.fraction(
                names::CALICO_SOURCE_REVISION,
                "The newest revision that a source spoke of.",
                &labels,
                revision as f64,
            );
        }
        if let Some(lag) = self.lag {
            families.gauge(
                names::CALICO_SOURCE_REVISION_LAG,
                "Revisions that a source spoke of and that were not taken in yet.",
                &labels,
                lag,
            );
        }
    }
}
