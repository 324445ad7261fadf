//! A pager for long output on a terminal: `$PAGER`, otherwise less(1).

use std::io::{self, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

/// Ends at once if the text fits the screen, keeps colours, and leaves the text on the screen.
const LESS: &str = "less -FRX";

/// Standard output, through a pager if it is a terminal.
pub(super) struct Pager {
    child: Option<Child>,
}

impl Pager {
    /// Starts the pager, unless standard output is no terminal, `PAGER` is empty or `cat`, or there
    /// is no such program.
    pub(super) fn start() -> Self {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Pager { child: None };
        }
        let command = match std::env::var("PAGER") {
            Ok(own) if own.trim().is_empty() || own.trim() == "cat" => {
                return Pager { child: None };
            }
            Ok(own) => own,
            Err(_) => LESS.to_owned(),
        };
        let program = command.split_whitespace().next().unwrap_or_default();
        let mut shell = Command::new("sh");
        // A pager that does not exist is found out before anything is written to it.
        shell.args(["-c", &format!("command -v {program} >/dev/null || exec cat; exec {command}")]);
        Pager { child: shell.stdin(Stdio::piped()).spawn().ok() }
    }
}

impl Write for Pager {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(pipe) => pipe.write(octets),
            None => io::stdout().lock().write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(pipe) => pipe.flush(),
            None => io::stdout().lock().flush(),
        }
    }
}

impl Drop for Pager {
    /// Waits until the reader is done.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
