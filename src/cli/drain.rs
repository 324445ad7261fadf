//! `margay drain`, `undrain` and `stop --drain`, and the wait until neighbours have moved.
//!
//! Two signs that neighbours no longer send traffic here: each announces a path of its own for
//! every prefix advertised to it, or the kernel forwards next to nothing. Neither need appear (a
//! neighbour may not announce the path that it uses, and pods of the node go on sending): hence
//! the timeout.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::ask::{Demand, ask, print, report};
use super::client::{Client, ClientError};
use super::{Output, TIMED_OUT, read_message};
use crate::ctl::item::Draining;
use crate::ctl::{Lasts, Refusal, Request, Selection, StopMode};

/// Interval between two queries of a drain's progress.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Shortest interval over which the rate of forwarded packets is measured.
const RATE_TIME: Duration = Duration::from_secs(1);
/// Packets per second up to which forwarding counts as quiet: some may always be left, such as
/// neighbour discovery or the ping of a monitor.
const QUIET_RATE: f64 = 10.0;
/// How long forwarding has to stay quiet.
const QUIET_TIME: Duration = Duration::from_secs(2);
/// Maximum of `--timeout`.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Maximum number of names in a progress line.
const NAMES_MAX: usize = 5;

/// Which neighbours to drain, and whether to wait.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DrainArgs {
    /// Names or addresses of peers, patterns of names such as 'Mesh_*', names of ranges or of peers by
    /// interface, or prefixes around addresses. Without any, every peer is drained, including those added
    /// later.
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// Wait until the peers have moved to other paths. Exit code 0: they have; 3: that is not known
    /// when the timeout expires.
    #[arg(long)]
    wait: bool,
    /// Longest wait, for example 90s or 5m; at most one hour.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        requires = "wait",
        value_parser = read_timeout
    )]
    timeout: Duration,
    /// Reason, shown with the drain; one line of at most 255 bytes.
    #[arg(long, value_name = "TEXT", value_parser = read_message)]
    reason: Option<String>,
    /// How to ask and print.
    #[command(flatten)]
    pub(super) output: Output,
}

/// Which drains to end.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct UndrainArgs {
    /// Names or addresses of peers, patterns of names such as 'Mesh_*', names of ranges or of peers by
    /// interface, or prefixes around addresses. Without any, all drains end.
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// How to ask and print.
    #[command(flatten)]
    pub(super) output: Output,
}

/// Parses a time with a unit, or a number of seconds; at most [`TIMEOUT_MAX`].
pub(super) fn read_timeout(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let time: jiff::SignedDuration = text.parse().map_err(|e| format!("{e}"))?;
            Duration::try_from(time).map_err(|_| "it is negative".to_owned())?
        }
    };
    match time {
        time if time > TIMEOUT_MAX => Err(format!("more than {} s", TIMEOUT_MAX.as_secs())),
        time => Ok(time),
    }
}

fn selection(names: Vec<String>) -> Selection {
    if names.is_empty() { Selection::All } else { Selection::Named(names) }
}

/// `margay drain`.
pub(super) fn drain(args: DrainArgs) -> ExitCode {
    let DrainArgs { peers, wait, timeout, reason, output } = args;
    let reason = reason.unwrap_or_default();
    let request = Request::Drain { peers: selection(peers), reason, lasts: Lasts::Boot };
    if !wait {
        return ask(&request, Demand::Nothing, &output);
    }
    let waited = one(&request, &output).and_then(|_| wait_moved(timeout, &output));
    waited.and_then(|(end, last)| show(&last, &output).map(|()| end.code())).unwrap_or_else(report)
}

/// `margay undrain`.
pub(super) fn undrain(args: UndrainArgs) -> ExitCode {
    let UndrainArgs { peers, output } = args;
    ask(&Request::Undrain { peers: selection(peers) }, Demand::Nothing, &output)
}

/// `margay stop --drain`: drains for this run, unless every peer is drained already, and waits.
/// Then stops the daemon, whether or not neighbours have moved in time, also if the wait fails.
pub(super) fn drain_and_stop(
    timeout: Duration,
    message: Option<String>,
    output: &Output,
) -> ExitCode {
    if let Err(error) = begin_for_stop(message.clone().unwrap_or_default(), output) {
        return report(error);
    }
    // What fails from here on keeps nobody from the stop that was asked for.
    let end = wait_moved(timeout, output).map_or_else(
        |error| {
            let _ = report(error);
            End::TimedOut
        },
        |(end, _)| end,
    );
    let stop = Request::Stop { mode: StopMode::Shutdown, message };
    match ask(&stop, Demand::Nothing, output) {
        ExitCode::SUCCESS => end.code(),
        code => code,
    }
}

fn begin_for_stop(reason: String, output: &Output) -> Result<(), ClientError> {
    if one(&Request::ShowDrain, output)?.all.is_some() {
        return Ok(());
    }
    let request = Request::Drain { peers: Selection::All, reason, lasts: Lasts::Run };
    one(&request, output).map(drop)
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Moved,
    TimedOut,
}

impl End {
    fn code(self) -> ExitCode {
        match self {
            End::Moved => ExitCode::SUCCESS,
            End::TimedOut => ExitCode::from(TIMED_OUT),
        }
    }
}

/// Waits until neighbours have moved or the timeout expires, with progress on standard error.
/// Returns the last progress queried.
fn wait_moved(timeout: Duration, output: &Output) -> Result<(End, Draining), ClientError> {
    let (began, mut watch) = (Instant::now(), Watch::default());
    let mut said = String::new();
    loop {
        let draining = one(&Request::ShowDrain, output)?;
        let at = began.elapsed();
        let (state, text) = watch.look(at, &draining);
        if text != said {
            eprintln!("margay: {text}");
            said = text;
        }
        match state {
            State::Moved => return Ok((End::Moved, draining)),
            State::Ended => return Err(Refusal::failed(ENDED).into()),
            State::Waiting if at >= timeout => {
                eprintln!("margay: peers not known to have moved within {} s", timeout.as_secs());
                return Ok((End::TimedOut, draining));
            }
            State::Waiting => std::thread::sleep(LOOK_PAUSE.min(timeout.saturating_sub(at))),
        }
    }
}

/// Why a wait ended without a result.
const ENDED: &str = "none of the drained peers is drained any more, or there: drain them again";

/// Sends a request; returns the one item of the reply.
fn one(request: &Request, output: &Output) -> Result<Draining, ClientError> {
    let mut client = Client::connect(&output.daemon.socket)?;
    let mut found = None;
    client.ask(request, |item| {
        found = Some(serde_json::from_str(item).map_err(ClientError::Answer)?);
        Ok(())
    })?;
    found.ok_or(ClientError::Connection(io::ErrorKind::UnexpectedEof.into()))
}

fn show(draining: &Draining, output: &Output) -> Result<(), ClientError> {
    let item = serde_json::to_string(draining).map_err(ClientError::Answer)?;
    print(&Request::ShowDrain, Demand::Nothing, output, |print| print(&item))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Moved,
    /// Meanwhile the drain was ended, or every drained peer removed.
    Ended,
}

/// Observes the progress of a drain. Times are since the wait began.
#[derive(Default)]
struct Watch {
    /// There were drained peers.
    had_peers: bool,
    /// Every peer had been told at some moment. Later changes of routes do not count: with churn, some
    /// peer always has messages to be sent.
    all_told: bool,
    /// The last measurement of forwarded packets and its time; none before every neighbour was sent
    /// the marked routes.
    counted: Option<(Duration, u64)>,
    /// Since when forwarding has been quiet.
    quiet_since: Option<Duration>,
    /// Packets per second forwarded between the last two measurements.
    rate: Option<f64>,
}

impl Watch {
    /// Whether neighbours have moved, and a progress line.
    fn look(&mut self, at: Duration, draining: &Draining) -> (State, String) {
        let Draining { peers, established, told, moved, .. } = *draining;
        let is_drained = draining.all.is_some() || !draining.by_name.is_empty();
        if peers == 0 && (self.had_peers || !is_drained) {
            return (State::Ended, "no peer is drained any more".into());
        }
        if peers == 0 {
            return (State::Moved, "there are no peers".into());
        }
        self.had_peers = true;
        self.all_told |= established > 0 && told == established;
        if !self.all_told && told < established {
            // Forwarding that is quiet before every neighbour knows of the drain proves nothing.
            (self.counted, self.quiet_since, self.rate) = (None, None, None);
            let names = waiting(draining, |peer| !peer.told);
            return (
                State::Waiting,
                format!("{told} of {established} peers told; waiting for {names}"),
            );
        }
        if established > 0 && moved == established {
            let text = format!("{established} peers told, every one announces other paths");
            return (State::Moved, text);
        }
        self.count(at, draining.forwarded_packets);
        // Without a session, its routes may be retained (RFC 4724), and traffic still arrive.
        let others = match established {
            0 => "no drained peer has a session".to_owned(),
            _ => format!("{established} peers told, {moved} announce other paths"),
        };
        let counted = self.counted.map_or(at, |(at, _)| at);
        if self.quiet_since.is_some_and(|since| counted.saturating_sub(since) >= QUIET_TIME) {
            return (State::Moved, format!("{others}, and forwarding is quiet"));
        }
        let names = match established {
            0 => "forwarding to be quiet".to_owned(),
            _ => waiting(draining, |_| true),
        };
        let text = match (draining.forwarded_packets, self.rate) {
            (None, _) => format!(
                "{others}; forwarded packets cannot be read from the kernel; waiting for {names}"
            ),
            (Some(_), Some(rate)) if rate > QUIET_RATE => {
                format!("{others}; {rate:.0} packets/s are forwarded still; waiting for {names}")
            }
            (Some(_), _) => format!("{others}; waiting for forwarding to stay quiet"),
        };
        (State::Waiting, text)
    }

    fn count(&mut self, at: Duration, packets: Option<u64>) {
        let Some(packets) = packets else { return };
        let Some((before, count)) = self.counted else {
            self.counted = Some((at, packets));
            return;
        };
        let elapsed = at.saturating_sub(before);
        if elapsed < RATE_TIME {
            return;
        }
        let rate = packets.saturating_sub(count) as f64 / elapsed.as_secs_f64();
        self.rate = Some(rate);
        self.quiet_since = (rate <= QUIET_RATE).then(|| self.quiet_since.unwrap_or(before));
        self.counted = Some((at, packets));
    }
}

fn waiting(
    draining: &Draining,
    is_meant: impl Fn(&crate::ctl::item::DrainWaiting) -> bool,
) -> String {
    let mut names = draining.waiting.iter().filter(|peer| is_meant(peer)).map(|peer| &*peer.name);
    let shown: Vec<&str> = names.by_ref().take(NAMES_MAX).collect();
    format!("{}{}", shown.join(", "), if names.next().is_some() { ", …" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::item::DrainWaiting;

    fn draining(told: u32, moved: u32, forwarded_packets: Option<u64>) -> Draining {
        let waiting = DrainWaiting { name: "a".into(), told: told > 1, advertised: 3, replaced: 1 };
        Draining {
            by_name: vec!["a".into(), "b".into(), "c".into()],
            peers: 3,
            established: 2,
            told,
            moved,
            waiting: vec![waiting],
            forwarded_packets,
            ..Draining::default()
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn peers_that_announce_other_paths_have_moved() {
        let mut watch = Watch::default();
        let (state, text) = watch.look(at(0), &draining(1, 1, None));
        assert_eq!((state, &*text), (State::Waiting, "1 of 2 peers told; waiting for a"));
        let (state, text) = watch.look(at(250), &draining(2, 1, None));
        assert_eq!(state, State::Waiting);
        assert!(text.contains("cannot be read"), "{text}");
        assert_eq!(watch.look(at(500), &draining(2, 2, None)).0, State::Moved);
    }

    #[test]
    fn churn_after_every_peer_was_told_does_not_count() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(at(0), &draining(2, 0, Some(0))).0, State::Waiting);
        let looks = (1..20).map(|n| {
            let (state, text) = watch.look(at(n * 250), &draining(1, 0, Some(0)));
            assert!(text.starts_with("2 peers told, 0 announce other paths"), "{text}");
            state
        });
        assert!(looks.collect::<Vec<_>>().contains(&State::Moved), "forwarding is quiet");
        let mut watch = Watch::default();
        watch.look(at(0), &draining(2, 0, None));
        assert_eq!(watch.look(at(250), &draining(1, 2, None)).0, State::Moved);
    }

    #[test]
    fn a_drain_that_ends_meanwhile_is_no_success() {
        let gone = Draining { by_name: vec!["a".into()], ..Draining::default() };
        let mut watch = Watch::default();
        assert_eq!(watch.look(at(0), &gone).0, State::Moved, "there was no peer");
        assert_eq!(watch.look(at(0), &Draining::default()).0, State::Ended);
        watch.look(at(0), &draining(2, 0, None));
        assert_eq!(watch.look(at(250), &Draining::default()).0, State::Ended, "undrained");
        assert_eq!(watch.look(at(250), &gone).0, State::Ended, "removed");
    }

    #[test]
    fn without_sessions_forwarding_decides() {
        let idle =
            |packets| Draining { established: 0, waiting: Vec::new(), ..draining(0, 0, packets) };
        let mut watch = Watch::default();
        for n in 0..40 {
            let (state, text) = watch.look(at(n * 250), &idle(Some(n * 100)));
            assert_eq!(state, State::Waiting, "{text}");
            assert!(text.starts_with("no drained peer has a session; "), "{text}");
        }
        let quiet = (40..60).map(|n| watch.look(at(n * 250), &idle(Some(4000))).0);
        assert!(quiet.collect::<Vec<_>>().contains(&State::Moved));
        let mut watch = Watch::default();
        for n in 0..40 {
            assert_eq!(watch.look(at(n * 250), &idle(None)).0, State::Waiting);
        }
        // Who comes up is told first.
        assert_eq!(watch.look(at(9750), &draining(1, 1, None)).0, State::Waiting);
    }

    #[test]
    fn quiet_forwarding_counts_where_peers_announce_no_paths() {
        let mut watch = Watch::default();
        // Quiet before every peer is told proves nothing.
        for n in 0..20 {
            assert_eq!(watch.look(at(n * 250), &draining(1, 0, Some(5))).0, State::Waiting);
        }
        let mut states = Vec::new();
        for n in 20..40 {
            // 400 packets a second until the eighth second, then one.
            let packets = if n < 32 { n * 100 } else { 3200 + n / 4 };
            let (state, text) = watch.look(at(n * 250), &draining(2, 0, Some(packets)));
            if n == 28 {
                assert!(
                    text.contains("; 400 packets/s are forwarded still; waiting for a"),
                    "{text}"
                );
            }
            states.push(state);
        }
        let moved = states.iter().position(|state| *state == State::Moved);
        assert_eq!(moved, None, "{states:?}");
        for n in 40..48 {
            let (state, _) = watch.look(at(n * 250), &draining(2, 0, Some(3200 + n / 4)));
            states.push(state);
        }
        let moved = states.iter().position(|state| *state == State::Moved);
        assert_eq!(moved.map(|n| (n + 20) * 250), Some(10_000), "not quiet before 8 s");
    }

    #[test]
    fn a_timeout_has_a_unit_or_is_in_seconds() {
        assert_eq!(read_timeout("90"), Ok(Duration::from_secs(90)));
        assert_eq!(read_timeout("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(read_timeout("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(read_timeout("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "x", "-1s", "2h", "18446744073709551615"] {
            assert!(read_timeout(text).is_err(), "{text}");
        }
    }
}
