//! A pager for long output on a terminal: `$PAGER`, otherwise less(1).

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

/// The pager if `PAGER` is not set.
const LESS: &str = "less";
/// `LESS` unless it is set: ends at once if the text fits the screen, keeps colours, and leaves the
/// text on the screen.
const LESS_OPTIONS: &str = "FRX";

/// Standard output, through a pager if it is a terminal. The pager is started by the first octets,
/// so that an answer without any does not open an empty one.
pub(super) enum Pager {
    /// Nothing has been written.
    Idle,
    /// The pager reads.
    Running(Child),
    /// There is no pager.
    Plain,
}

impl Pager {
    /// Nothing is started yet.
    pub(super) fn new() -> Self {
        Pager::Idle
    }

    fn start() -> Self {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Pager::Plain;
        }
        let Some(pager) = pager(|name| std::env::var_os(name), is_privileged()) else {
            return Pager::Plain;
        };
        if keep_running_on_interrupt().is_err() {
            return Pager::Plain;
        }
        let program = pager.split_whitespace().next().unwrap_or_default();
        let mut shell = Command::new("sh");
        // A pager that does not exist is found out before anything is written to it.
        shell.args(["-c", &format!("command -v {program} >/dev/null || exec cat; exec {pager}")]);
        // No shell and no editor from less, which may run as root through sudo.
        shell.env("LESSSECURE", "1");
        if std::env::var_os("LESS").is_none() {
            shell.env("LESS", LESS_OPTIONS);
        }
        shell.stdin(Stdio::piped()).spawn().map_or(Pager::Plain, Pager::Running)
    }
}

/// The command of the pager; `None`: none. `PAGER` is a command of the caller, which must not run
/// with more rights than the caller has.
fn pager(variable: impl Fn(&str) -> Option<OsString>, is_privileged: bool) -> Option<String> {
    if variable("TERM").is_none_or(|term| term.is_empty() || term == *OsStr::new("dumb")) {
        return None;
    }
    match variable("PAGER").map(|own| own.into_string()) {
        Some(Ok(own)) if own.trim().is_empty() || own.trim() == "cat" => None,
        Some(Ok(own)) if !is_privileged => Some(own),
        Some(_) | None => Some(LESS.to_owned()),
    }
}

/// Whether this process has rights that its caller does not have.
fn is_privileged() -> bool {
    std::env::var_os("SUDO_UID").is_some()
        || rustix::process::geteuid() != rustix::process::getuid()
}

/// Ctrl-C is for the pager, which stays: without margay, it and the shell would both read from the
/// terminal. A handler, as opposed to an ignored signal, is not inherited by the pager.
fn keep_running_on_interrupt() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    // The handler stays installed when this is dropped.
    signal(SignalKind::interrupt()).map(drop)
}

impl Write for Pager {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if matches!(self, Pager::Idle) {
            *self = Pager::start();
        }
        match self {
            Pager::Running(Child { stdin: Some(pipe), .. }) => pipe.write(octets),
            _ => io::stdout().lock().write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Pager::Running(Child { stdin: Some(pipe), .. }) => pipe.flush(),
            Pager::Idle => Ok(()),
            _ => io::stdout().lock().flush(),
        }
    }
}

impl Drop for Pager {
    /// Waits until the reader is done.
    fn drop(&mut self) {
        if let Pager::Running(child) = self {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pager_is_the_callers_unless_it_would_run_with_other_rights() {
        let of = |term: Option<&str>, own: Option<&str>, is_privileged| {
            let variable = |name: &str| match name {
                "TERM" => term.map(OsString::from),
                _ => own.map(OsString::from),
            };
            pager(variable, is_privileged)
        };
        let term = Some("xterm");
        assert_eq!(of(term, None, false).as_deref(), Some("less"));
        assert_eq!(of(term, Some("more -s"), false).as_deref(), Some("more -s"));
        assert_eq!(of(term, Some("more -s"), true).as_deref(), Some("less"));
        for none in [Some(""), Some("cat")] {
            assert_eq!(of(term, none, false), None);
            assert_eq!(of(term, none, true), None);
        }
        assert_eq!(of(Some("dumb"), Some("more"), false), None);
        assert_eq!(of(None, None, false), None);
    }
}
