//! Reading the sources once, for `margay check --connect`, `margay calico plan --live` and
//! `margay calico doctor`.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::NodeSettings;
use super::settings::describe;
use crate::calico::{Problem, Snapshot};
use crate::datastore::{
    Event, Lacking, Proven, Receiver, Services, Source, Starter, State, Wanted,
};

/// Longest wait for the objects of one source.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for the review of the access rights to one source.
const RIGHTS_PATIENCE: Duration = Duration::from_secs(5);

/// The result of reading a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// A short description of the source.
    pub name: String,
    /// The number of its objects, or why it cannot be read.
    pub objects: Result<usize, String>,
    /// Problems with the objects that could be read.
    pub problems: Vec<Problem>,
}

impl Tried {
    /// As a JSON object with `name`, `objects`, `fault` and `problems`.
    pub fn to_json(&self) -> serde_json::Value {
        let problem = |problem: &Problem| format!("{}: {}", problem.object, problem.text);
        let problems: Vec<String> = self.problems.iter().map(problem).collect();
        let (objects, fault) = match &self.objects {
            Ok(objects) => (Some(objects), None),
            Err(fault) => (None, Some(fault)),
        };
        serde_json::json!({
            "name": self.name, "objects": objects, "fault": fault, "problems": problems,
        })
    }
}

/// One line for the result, and one for each problem.
impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.objects {
            Ok(objects) => writeln!(f, "{}: {objects} objects", self.name)?,
            Err(fault) => writeln!(f, "{}: cannot be read: {fault}", self.name)?,
        }
        for Problem { object, text } in &self.problems {
            writeln!(f, "  {object}: {text}")?;
        }
        Ok(())
    }
}

/// The results of reading all sources once.
#[derive(Debug)]
pub struct Survey<'s> {
    /// Each source with its result.
    pub sources: Vec<(&'s Source, Tried)>,
    /// All objects that could be read.
    pub snapshot: Snapshot,
    /// Missing access rights in the Kubernetes API, or why they cannot be determined.
    pub lacking: Result<Vec<Lacking>, String>,
}

/// Reads every source once. Returns the result of each, and all objects. Of Kubernetes's own kinds,
/// only the objects that Calico's objects refer to are read.
///
/// Must be called within a tokio runtime.
pub async fn try_sources(settings: &NodeSettings) -> (Vec<Tried>, Snapshot) {
    let (wanted, of_services) = watch::channel(None);
    let (sources, snapshot) = read_sources(settings, &wanted, &mut Starter::new(of_services)).await;
    (sources.into_iter().map(|(_, tried)| tried).collect(), snapshot)
}

/// Like [`try_sources`], and also determines which access rights are missing, apart from those that
/// reading has proven.
///
/// Must be called within a tokio runtime.
pub async fn survey(settings: &NodeSettings) -> Survey<'_> {
    let (wanted, of_services) = watch::channel(None);
    let mut starter = Starter::of_lists(of_services);
    let (sources, snapshot) = read_sources(settings, &wanted, &mut starter).await;
    let wanted = wanted.borrow().clone().unwrap_or_default();
    let mut lacking = Ok(Vec::new());
    for (source, tried) in &sources {
        let is_read = tried.objects.is_ok() && tried.problems.is_empty();
        let proven = if is_read { Proven::Listing } else { Proven::Nothing };
        // The query itself waits for a connection without a time limit.
        let asked = timeout(RIGHTS_PATIENCE, starter.lacking(source, &wanted, proven)).await;
        let asked = asked
            .unwrap_or_else(|_| Err(format!("no answer within {} s", RIGHTS_PATIENCE.as_secs())));
        match (&mut lacking, asked) {
            (Ok(all), Ok(more)) => all.extend(more),
            (Ok(_), Err(why)) => lacking = Err(why),
            (Err(_), _) => {}
        }
    }
    Survey { sources, snapshot, lacking }
}

async fn read_sources<'s>(
    settings: &'s NodeSettings,
    wanted: &watch::Sender<Option<Wanted>>,
    starter: &mut Starter,
) -> (Vec<(&'s Source, Tried)>, Snapshot) {
    let mut started: Vec<(&Source, Receiver)> =
        settings.sources.iter().map(|source| (source, starter.start(source.clone()).0)).collect();
    // Last, because the objects of the other sources determine which Services and Secrets to read.
    started.sort_by_key(|(source, _)| matches!(source, Source::Services(_)));
    let mut snapshot = Snapshot::default();
    let mut tried = Vec::new();
    for (source, receiver) in &mut started {
        if matches!(source, Source::Services(_)) {
            let needs = snapshot.needs(&settings.calico);
            let services = if needs.has_service_ranges { Services::Used } else { Services::Unused };
            wanted.send_replace(Some(Wanted { secrets: needs.secrets, services }));
        }
        tried.push((*source, try_source(describe(source), receiver, &mut snapshot).await));
    }
    (tried, snapshot)
}

async fn try_source(name: String, receiver: &mut Receiver, snapshot: &mut Snapshot) -> Tried {
    let end = Instant::now() + PATIENCE;
    let mut listed = None;
    let mut problems = Vec::new();
    let objects = loop {
        match timeout_at(end, receiver.recv()).await {
            Err(_) => break Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(None) => break Err("it ended".to_owned()),
            Ok(Some(Event::Listed(objects))) => {
                listed = Some(objects.len());
                objects.into_iter().for_each(|object| snapshot.apply(object));
            }
            Ok(Some(Event::Problems(found))) => problems = found,
            Ok(Some(Event::State(State::Away { reason, .. }))) => break Err(reason.to_string()),
            Ok(Some(Event::State(State::Current))) if listed.is_some() => {
                break Ok(listed.unwrap_or_default());
            }
            Ok(Some(Event::State(_) | Event::Changed(_))) => {}
        }
    };
    Tried { name, objects, problems }
}
