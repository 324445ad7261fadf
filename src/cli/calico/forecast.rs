//! `margay calico plan --diff`: what would follow from changed objects, as the daemon says, or as the
//! objects in the datastore do.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{Input, Live};
use crate::calico::edit::{Basis, Edit, Forecast};
use crate::calico::load::visit;
use crate::calico::{Plan, load};
use crate::cli::Daemon;
use crate::cli::client::{Client, ClientError};
use crate::config::{Difference, EndingSession, HostSettings};
use crate::ctl::item::{ChangedKey, Forecasted, PlanDifference, Reloaded, ReloadedSession};
use crate::ctl::{self, ObjectFile, Refusal, Request};

/// Objects that are to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ChangeArgs {
    /// Files or folders with objects to be added, or to take the place of those that are there.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(super) apply: Vec<PathBuf>,
    /// An object to be deleted: KIND/NAME or KIND/NAMESPACE/NAME.
    #[arg(long, value_name = "OBJECT")]
    pub(super) delete: Vec<String>,
}

pub(super) fn wrong(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

impl ChangeArgs {
    /// Reads the objects.
    ///
    /// # Errors
    /// Of kind `InvalidInput`: a file cannot be read, or an object is invalid.
    pub(super) fn edit(&self) -> io::Result<Edit> {
        let loaded = load::load(&self.apply).map_err(|error| wrong(error.to_string()))?;
        Edit::new(loaded, self.delete.clone()).map_err(wrong)
    }

    /// The same for the daemon, which reads the objects itself.
    fn request(&self, list: Option<u32>) -> io::Result<Request> {
        let mut apply = Vec::new();
        visit(&self.apply, &mut |name, octets| {
            // They were read before, as text.
            let text = String::from_utf8_lossy(&octets).into_owned();
            apply.push(ObjectFile { name: name.to_owned(), text });
        })?;
        Ok(Request::CalicoDryRun { apply, delete: self.delete.clone(), list })
    }
}

/// What would follow: from what the daemon knows if `input` is live and it answers, otherwise from the
/// objects that `read` returns.
///
/// # Errors
/// The daemon refuses, the objects cannot be read, or they or the changed ones are invalid.
pub(super) fn forecast(
    input: &Input,
    change: &ChangeArgs,
    (daemon, list): (&Daemon, Option<u32>),
    read: impl FnOnce() -> io::Result<Live>,
) -> io::Result<Reloaded> {
    // Faults are named before anybody is asked.
    let edit = change.edit()?;
    let why = match unasked(input) {
        Some(why) => why.to_owned(),
        None => match ask(&daemon.socket, &change.request(list)?)? {
            Ok(answer) => return Ok(answer),
            Err(why) => why,
        },
    };
    let live = read().map_err(|error| match input.live {
        true => io::Error::new(error.kind(), format!("{error}; nor is a daemon asked: {why}")),
        false => error,
    })?;
    let Some(mut settings) = live.settings else {
        let plan = Plan::without_bgp(input.node.as_deref().unwrap_or_default());
        return Err(wrong(format!("{} speaks no BGP: nothing follows from objects", plan.node)));
    };
    settings.version = input.calico_version.clone().or(settings.version);
    let basis = Basis {
        snapshot: live.snapshot,
        settings,
        held_release: None,
        limits: live.limits,
        host: live.host.unwrap_or_else(HostSettings::unused),
        config: None,
        asks_services: live.asks_services,
    };
    Ok(answer(basis.forecast(&edit).map_err(wrong)?, why))
}

/// Why a daemon cannot be asked: it answers for its own objects and its own version.
fn unasked(input: &Input) -> Option<&'static str> {
    if !input.live {
        Some("without --live no daemon is asked")
    } else if !input.resources.is_empty() {
        Some("with --resources no daemon is asked: it has other objects")
    } else if input.calico_version.is_some() {
        Some("with --calico-version no daemon is asked: it may follow another version")
    } else {
        None
    }
}

/// Asks the daemon; the inner error says why there is none to ask.
fn ask(socket: &Path, request: &Request) -> io::Result<Result<Reloaded, String>> {
    let len = serde_json::to_vec(request).map_or(0, |octets| octets.len() as u64);
    if len >= ctl::REQUEST_LEN_MAX {
        let max = ctl::REQUEST_LEN_MAX;
        return Ok(Err(format!("the changed objects have more than {max} octets as JSON")));
    }
    let mut answer = None;
    let asked = Client::connect(socket).and_then(|mut client| {
        client.ask(request, |item| {
            answer = Some(serde_json::from_str(item).map_err(ClientError::Answer)?);
            Ok(())
        })
    });
    match asked {
        Ok(_) => answer.map(Ok).ok_or_else(|| io::Error::other("margay's answer is empty")),
        Err(error @ ClientError::Connect { .. }) => Ok(Err(error.to_string())),
        Err(ClientError::Refused(Refusal { kind: ctl::ErrorKind::Configuration, text })) => {
            Err(wrong(text))
        }
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

fn answer(forecast: Forecast, why: String) -> Reloaded {
    let Forecast { objects, plan, plan_more, before, after, unread } = forecast;
    let changes = before.changes_to(&after);
    let why =
        std::iter::once(why).chain(unread.into_iter().map(|what| format!("not read: {what}")));
    let plan = plan.into_iter().map(|d| PlanDifference {
        line: d.to_string(),
        place: d.place,
        old: d.old,
        new: d.new,
    });
    Reloaded {
        changes: changes.lines(),
        dry_run: true,
        sessions: changes.ending_sessions().map(session).collect(),
        forecast: Some(Forecasted {
            objects,
            plan: plan.collect(),
            plan_more,
            why_no_routes: Some(why.collect::<Vec<_>>().join("; ")),
            ..Forecasted::default()
        }),
        ..Reloaded::default()
    }
}

/// A session that would end; what it carries is not known.
fn session(ending: EndingSession<'_>) -> ReloadedSession {
    let key = |Difference { key, old, new }: &Difference| ChangedKey {
        key: (*key).to_owned(),
        old: old.clone(),
        new: new.clone(),
    };
    ReloadedSession {
        peer: ending.peer.to_owned(),
        what: ending.end.to_string(),
        keys: ending.differences.iter().map(key).collect(),
        ..ReloadedSession::default()
    }
}
