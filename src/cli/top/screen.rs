//! The terminal: taken, and given back as it was, whatever ends the program.

use std::io::{self, IsTerminal, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use rustix::process::{Signal, getpid, kill_process};

/// How long a stop may take to reach every thread.
const STOP_WAIT: Duration = Duration::from_millis(50);

/// Whether the terminal is ours.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal while it is ours. Dropping it gives it back.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal: raw mode, and the alternate screen, so that what was on it comes back.
    ///
    /// # Errors
    /// Standard input or output is no terminal, or one that cannot place its cursor.
    pub(super) fn take() -> io::Result<Self> {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        if !is_terminal {
            return Err(io::Error::other(
                "top needs a terminal; for scripts: show status --json, show peers --json",
            ));
        }
        if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            return Err(io::Error::other(
                "top needs a terminal with a cursor: TERM is not set, or dumb",
            ));
        }
        // A message of a panic on the alternate screen would vanish with it.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        enter()?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Takes the terminal again, after another program had it.
    ///
    /// # Errors
    /// As [`Screen::take`].
    pub(super) fn retake(&mut self) -> io::Result<()> {
        give_back();
        enter()?;
        self.redraw()
    }

    /// Makes the next frame draw everything. Not `Terminal::clear`, which asks the terminal where its cursor
    /// is: the thread that reads keys would take the answer.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Gives the terminal back and stops, as Ctrl-Z does, until the shell continues us.
    ///
    /// # Errors
    /// The terminal cannot be taken again.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        kill_process(getpid(), Signal::TSTP)?;
        // Another thread may take the signal, a moment later.
        std::thread::sleep(STOP_WAIT);
        enter()?;
        self.redraw()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    IS_TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen)
}

/// Gives the terminal back, once. First its mode, which needs no reader: the terminal may be stopped or
/// gone, and then nothing can be written to it.
pub(super) fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // There is nobody to tell if it fails.
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}

/// Gives back the mode of the terminal only, for a process that ends while it cannot write.
pub(super) fn give_back_mode() {
    let _ = disable_raw_mode();
}
