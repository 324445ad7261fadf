//! Sends a request to the daemon and prints the reply.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use bgp_proto::types::Prefix;
use serde::Deserialize;

use super::client::{Client, ClientError};
use super::pager::Pager;
use super::render::{Colour, JsonWriter, Look, Renderer};
use super::{FAILED, Output, WRONG, When};
use crate::ctl::{ErrorKind, Refusal, Request};
use crate::plural::counted;

/// Timeout for the daemon to exit after `margay stop`.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// Size of the buffer for output, in octets.
const BUFFER: usize = 1 << 16;
/// Maximum number of names in the line on an unmet condition.
const NAMES_MAX: usize = 10;

/// The condition for exit code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// The request succeeded.
    Nothing,
    /// Every peer is established.
    Established,
    /// The daemon is ready.
    Ready,
    /// The kernel holds every route; with a prefix, there is at least one.
    Installed {
        /// The prefix that was asked for.
        of: Option<Prefix>,
    },
    /// The action was, or would be, applied to at least one peer.
    Done,
    /// Nothing was changed.
    DryRun,
    /// No step of a probe failed.
    Works,
}

/// Which items of an answer are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// All.
    All,
    /// Peers without a session.
    Down,
}

/// The keys of items that conditions look at; no item has all of them.
#[derive(Deserialize)]
struct Facts {
    name: Option<String>,
    prefix: Option<String>,
    state: Option<String>,
    not_ready: Option<String>,
    effect: Option<String>,
    dry_run: Option<bool>,
    works: Option<bool>,
}

/// Counts the items that do not meet a condition.
struct Unmet {
    demand: Demand,
    seen: u64,
    count: u64,
    names: Vec<String>,
}

impl Unmet {
    fn new(demand: Demand) -> Self {
        Unmet { demand, seen: 0, count: 0, names: Vec::new() }
    }

    fn look_at(&mut self, item: &str) -> Result<(), ClientError> {
        if self.demand == Demand::Nothing {
            return Ok(());
        }
        let facts: Facts = serde_json::from_str(item).map_err(ClientError::Answer)?;
        self.seen += 1;
        let (is_met, name) = match self.demand {
            Demand::Nothing => (true, None),
            Demand::Established => (facts.state.as_deref() == Some("Established"), facts.name),
            Demand::Ready => (facts.not_ready.is_none(), facts.not_ready),
            Demand::Installed { .. } => (facts.state.as_deref() == Some("installed"), facts.prefix),
            Demand::Done => (facts.effect.is_some(), facts.name),
            Demand::DryRun => (facts.dry_run == Some(true), None),
            Demand::Works => (facts.works == Some(true), None),
        };
        if !is_met {
            self.count += 1;
            self.names.extend(name.filter(|_| self.names.len() < NAMES_MAX));
        }
        Ok(())
    }

    /// The line to print; `None`: the condition is met.
    fn line(&self) -> Option<String> {
        let Unmet { seen, count, .. } = self;
        let is_met = match self.demand {
            Demand::Done => *count < *seen || *seen == 0,
            Demand::Installed { of: Some(_) } if *seen == 0 => false,
            _ => *count == 0,
        };
        if is_met {
            return None;
        }
        let more = if *count > self.names.len() as u64 { ", …" } else { "" };
        let names = format!("{}{more}", self.names.join(", "));
        Some(match self.demand {
            Demand::Nothing => return None,
            Demand::Established => format!("{count} of {seen} peers are not established: {names}"),
            Demand::Ready => format!("not ready: {names}"),
            Demand::Done => format!("nothing was done to any of {}", counted(*seen, "peer")),
            Demand::DryRun => {
                "the daemon has carried out the reload: this was no dry run".to_owned()
            }
            Demand::Works => "a session cannot work like this".to_owned(),
            Demand::Installed { of: Some(prefix) } if *seen == 0 => {
                format!("there is no route to {prefix}")
            }
            Demand::Installed { .. } => {
                format!("{count} of {seen} routes are not in the kernel: {names}")
            }
        })
    }
}

/// Prints the items that `feed` passes to its argument, as the reply to `request` is printed. With a
/// demand there is no pager: a script waits for the exit code.
///
/// # Errors
/// Those of `feed`, or the output cannot be written.
pub(super) fn print(
    request: &Request,
    demand: Demand,
    output: &Output,
    feed: impl FnOnce(&mut dyn FnMut(&str) -> Result<(), ClientError>) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    if output.json {
        let out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
        let mut writer = JsonWriter::new(request, out);
        feed(&mut |item| writer.item(item))?;
        writer.finish()
    } else {
        let look = Look::new(terminal_width(), colour(output.color), output.times());
        let out: Box<dyn Write> = if demand == Demand::Nothing && is_paged(request) {
            Box::new(Pager::new())
        } else {
            Box::new(io::stdout().lock())
        };
        let mut renderer = Renderer::new(request, look, BufWriter::with_capacity(BUFFER, out));
        feed(&mut |item| renderer.item(item))?;
        renderer.finish()
    }
}

/// Whether the answer may be longer than a screen.
fn is_paged(request: &Request) -> bool {
    matches!(
        request,
        Request::ShowPeers
            | Request::ShowPeersIn { .. }
            | Request::ShowPeer { .. }
            | Request::ShowRoutes { .. }
            | Request::ShowReceived { .. }
            | Request::ShowAdvertised { .. }
            | Request::ShowFib { .. }
            | Request::ShowGroups
            | Request::ShowNexthops { .. }
            | Request::ShowBfd
            | Request::ShowBmp
            | Request::ShowKeyChains
            | Request::ShowConfig
            | Request::Explain { .. }
            | Request::Events { follow: false, .. }
    )
}

/// Sends a request and prints the reply. The exit code says whether the condition is met.
pub(super) fn ask(request: &Request, demand: Demand, output: &Output) -> ExitCode {
    ask_for(request, Printed::All, demand, output)
}

/// As [`ask`]; prints a part of the reply.
pub(super) fn ask_for(
    request: &Request,
    printed: Printed,
    demand: Demand,
    output: &Output,
) -> ExitCode {
    match try_ask(request, printed, demand, output) {
        Ok(code) => code,
        Err(error) => report(error),
    }
}

fn try_ask(
    request: &Request,
    printed: Printed,
    demand: Demand,
    output: &Output,
) -> Result<ExitCode, ClientError> {
    let mut client = Client::connect(&output.daemon.socket)?;
    let (mut unmet, mut items) = (Unmet::new(demand), 0);
    print(request, demand, output, |print| {
        let reply = client.ask_in_runs(request, |item| {
            items += 1;
            unmet.look_at(item)?;
            if printed == Printed::Down {
                let facts: Facts = serde_json::from_str(item).map_err(ClientError::Answer)?;
                if facts.state.as_deref() == Some("Established") {
                    return Ok(());
                }
            }
            print(item)
        });
        reply.map(drop)
    })?;
    if items == 0 && matches!(request, Request::ShowFib { .. }) && writes_no_routes(&mut client)? {
        eprintln!("margay: routes are not written to the kernel (fib.enabled = false)");
    }
    if matches!(request, Request::Stop { .. }) && !client.wait_closed(STOP_WAIT) {
        eprintln!("margay: the daemon has not ended after {} s", STOP_WAIT.as_secs());
        return Ok(ExitCode::from(FAILED));
    }
    match unmet.line() {
        None => Ok(ExitCode::SUCCESS),
        Some(line) => {
            eprintln!("margay: {line}");
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// Whether an empty list of kernel routes means that there cannot be any.
fn writes_no_routes(client: &mut Client) -> Result<bool, ClientError> {
    #[derive(Deserialize)]
    struct Status {
        fib: Fib,
    }
    #[derive(Deserialize)]
    struct Fib {
        enabled: bool,
    }
    let mut writes = true;
    client.ask(&Request::ShowStatus, |item| {
        let status: Status = serde_json::from_str(item).map_err(ClientError::Answer)?;
        writes = status.fib.enabled;
        Ok(())
    })?;
    Ok(!writes)
}

/// Prints an error. A closed output pipe is not a failure: `… | head`.
pub(super) fn report(error: ClientError) -> ExitCode {
    match error {
        ClientError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        ClientError::Refused(Refusal { kind: ErrorKind::Configuration, text }) => {
            eprintln!("{text}");
            ExitCode::from(WRONG)
        }
        error => {
            eprintln!("margay: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// The width of the terminal; `None` if the output is not a terminal.
fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Whether to use colours. As <https://no-color.org> says, `auto` means none if NO_COLOR is set and
/// not empty.
pub(super) fn colour(when: When) -> Colour {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let wanted = match when {
        When::Always => true,
        When::Never => false,
        When::Auto => io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
    };
    if wanted { Colour::On } else { Colour::Off }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmet(demand: Demand, items: &[&str]) -> Option<String> {
        let mut unmet = Unmet::new(demand);
        for item in items {
            unmet.look_at(item).unwrap();
        }
        unmet.line()
    }

    #[test]
    fn items_that_do_not_meet_the_condition_are_named() {
        let up = r#"{"name":"a","state":"Established"}"#;
        let down = r#"{"name":"b","state":"Active"}"#;
        assert_eq!(unmet(Demand::Established, &[up]), None);
        assert_eq!(unmet(Demand::Established, &[]), None);
        assert_eq!(unmet(Demand::Nothing, &[down]), None);
        let line = unmet(Demand::Established, &[up, down]);
        assert_eq!(line.as_deref(), Some("1 of 2 peers are not established: b"));
        let line = unmet(Demand::Established, &[down; 11]).unwrap();
        assert!(line.ends_with("b, b, …"), "{line}");
        assert_eq!(unmet(Demand::Ready, &[r#"{"not_ready":null}"#]), None);
        let line = unmet(Demand::Ready, &[r#"{"not_ready":"waiting"}"#]);
        assert_eq!(line.as_deref(), Some("not ready: waiting"));
        assert_eq!(unmet(Demand::DryRun, &[r#"{"changes":[],"dry_run":true}"#]), None);
        let line = unmet(Demand::DryRun, &[r#"{"changes":[]}"#]);
        assert!(line.unwrap().ends_with("this was no dry run"));
        let line =
            unmet(Demand::Installed { of: None }, &[r#"{"prefix":"10.0.0.0/8","state":"failed"}"#]);
        assert_eq!(line.as_deref(), Some("1 of 1 routes are not in the kernel: 10.0.0.0/8"));
        assert_eq!(unmet(Demand::Installed { of: None }, &[]), None);
        let of = Some("10.0.0.0/8".parse().unwrap());
        let line = unmet(Demand::Installed { of }, &[]);
        assert_eq!(line.as_deref(), Some("there is no route to 10.0.0.0/8"));
        let installed = r#"{"prefix":"10.0.0.0/8","state":"installed"}"#;
        assert_eq!(unmet(Demand::Installed { of }, &[installed]), None);
    }
}
