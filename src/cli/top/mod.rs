//! `margay top`: what the daemon does, live on a terminal.
//!
//! [`state`] decides what is looked at, from keys and answers; [`frame`] draws it; both are pure. Around
//! them, each on a thread: [`feed`] asks the daemon over the control socket, one reads keys, one waits for
//! signals. They meet in one bounded channel, and the terminal belongs to the thread that reads it.

mod feed;
mod frame;
mod ink;
mod number;
mod sample;
mod screen;
mod state;

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use super::ask::colour;
use super::{FAILED, Output, WRONG};
use crate::supervise::fault;
use feed::{Desk, Feed};
use ink::Ink;
use screen::Screen;
use state::{Effect, Key, News, State};

/// Inputs that wait for the screen. When they are full, the threads wait: an answer more or less is
/// no loss, and the kernel keeps the keys.
const INPUTS_MAX: usize = 16;
/// Inputs taken together before the screen is drawn once.
const BATCH_MAX: usize = 64;
/// How long a signal waits for a screen that cannot be written.
const END_WAIT: Duration = Duration::from_secs(1);
/// The name of this part for injected faults.
const PART: &str = "top";

/// The arguments of `top`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct TopArgs {
    /// Time between two answers, for example 500ms or 5 (seconds): 200 ms to one hour. With thousands of
    /// peers it is longer, so that top takes no more than about 1 % of a core.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = read_interval)]
    pub interval: Duration,
    /// Begin with this peer, given by name or address.
    #[arg(long, value_name = "PEER")]
    pub peer: Option<String>,
    /// Only peers with these words in name, address, state, description or VRF; as64512: their AS.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// How to ask and print.
    #[command(flatten)]
    pub output: Output,
}

/// Parses the time between two answers.
fn read_interval(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<i64>() {
        Ok(seconds) => jiff::SignedDuration::from_secs(seconds),
        Err(_) => text.parse().map_err(|e| format!("{e}"))?,
    };
    let time = Duration::try_from(time).unwrap_or_default();
    let is_allowed = (Duration::from_millis(200)..=Duration::from_secs(3600)).contains(&time);
    is_allowed
        .then_some(time)
        .ok_or_else(|| "200 ms to one hour, for example 500ms or 5".to_owned())
}

/// What happens to a screen.
#[derive(Debug)]
enum Input {
    Key(Key),
    Resized,
    News(News),
    /// A signal ends the program, with this exit code.
    Ended(u8),
    /// The program was stopped, and continues.
    Continued,
    /// A thread has ended: keys can no longer be read, or it has panicked.
    Gone(&'static str),
}

/// Says that a thread has ended, also if it panicked.
struct Obituary(SyncSender<Input>, &'static str);

impl Drop for Obituary {
    fn drop(&mut self) {
        // Nobody listens: the program ends anyway.
        let _ = self.0.send(Input::Gone(self.1));
    }
}

/// Runs `top` until it is left.
pub(super) fn run(args: TopArgs) -> ExitCode {
    let TopArgs { interval, peer, filter, output } = args;
    if output.json {
        eprintln!("margay: top prints no JSON; for scripts: show status --json, show peers --json");
        return ExitCode::from(WRONG);
    }
    fault::arm_from_environment();
    let ink = Ink(colour(output.color));
    let times = output.times();
    let state = State::new(peer, filter);
    let (inputs, received) = sync_channel(INPUTS_MAX);
    let desk = Desk::new(state.wanted());
    let feed = Feed {
        socket: output.daemon.socket,
        interval,
        times,
        desk: desk.clone(),
        inputs: inputs.clone(),
    };
    let done = Screen::take().and_then(|screen| {
        let _signals = spawn(&inputs, "signals", wait_for_signals)?;
        let _keys = spawn(&inputs, "keys", read_keys)?;
        let _feed = spawn(&inputs, "answers", move |_| feed.run())?;
        follow(screen, state, ink, &desk, &received)
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("margay: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn spawn(
    inputs: &SyncSender<Input>,
    name: &'static str,
    run: impl FnOnce(SyncSender<Input>) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let inputs = inputs.clone();
    thread::Builder::new().name(format!("top-{name}")).spawn(move || {
        let _obituary = Obituary(inputs.clone(), name);
        run(inputs);
    })
}

/// Draws after each batch of inputs, until one of them ends it.
fn follow(
    mut screen: Screen,
    mut state: State,
    ink: Ink,
    desk: &Desk,
    inputs: &Receiver<Input>,
) -> io::Result<ExitCode> {
    loop {
        screen.terminal.draw(|frame| frame::draw(&mut state, ink, frame.buffer_mut()))?;
        desk.want(state.wanted());
        // The senders live as long as their threads, and a thread that ends says so.
        let first = inputs.recv().map_err(io::Error::other)?;
        let more = inputs.try_iter().take(BATCH_MAX);
        for input in std::iter::once(first).chain(more) {
            match input {
                Input::News(news) => state.handle_news(news),
                Input::Resized => {}
                Input::Continued => screen.retake()?,
                Input::Ended(code) => return Ok(ExitCode::from(code)),
                Input::Gone(part) => {
                    drop(screen);
                    return Err(io::Error::other(format!("top cannot go on without its {part}")));
                }
                Input::Key(key) => match state.handle_key(key) {
                    Effect::Draw => {}
                    Effect::Redraw => screen.redraw()?,
                    Effect::Suspend => screen.suspend()?,
                    Effect::Quit => return Ok(ExitCode::SUCCESS),
                },
            }
        }
        fault::point(PART);
    }
}

/// Reads keys until the terminal is gone.
#[allow(clippy::needless_pass_by_value)] // it is the thread's own
fn read_keys(inputs: SyncSender<Input>) {
    while let Ok(event) = event::read() {
        let input = match event {
            Event::Key(key) => key_of(&key).map(Input::Key),
            Event::Resize(..) => Some(Input::Resized),
            _ => None,
        };
        if input.is_some_and(|input| inputs.send(input).is_err()) {
            return;
        }
    }
}

fn key_of(key: &KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Key::Interrupt),
            KeyCode::Char('z') => Some(Key::Suspend),
            KeyCode::Char('l') => Some(Key::Redraw),
            KeyCode::Char('n') => Some(Key::Down),
            KeyCode::Char('p') => Some(Key::Up),
            // What Backspace sends on some terminals.
            KeyCode::Char('h') => Some(Key::Erase),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Back,
        KeyCode::Tab | KeyCode::Right => Key::Tab,
        KeyCode::BackTab | KeyCode::Left => Key::BackTab,
        KeyCode::Backspace => Key::Erase,
        KeyCode::Char(c) => Key::Char(c),
        _ => return None,
    })
}

/// Passes on signals. One that ends the program ends it even if the screen cannot be written, as on a
/// terminal that was stopped with Ctrl-S.
#[allow(clippy::needless_pass_by_value)] // it is the thread's own
fn wait_for_signals(inputs: SyncSender<Input>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    let ended = runtime.block_on(async {
        let wait = |kind: SignalKind| signal(kind);
        let (mut term, mut int, mut hup, mut quit, mut cont) = (
            wait(SignalKind::terminate())?,
            wait(SignalKind::interrupt())?,
            wait(SignalKind::hangup())?,
            wait(SignalKind::quit())?,
            wait(SignalKind::from_raw(libc::SIGCONT))?,
        );
        let number = loop {
            tokio::select! {
                _ = term.recv() => break libc::SIGTERM,
                _ = int.recv() => break libc::SIGINT,
                _ = hup.recv() => break libc::SIGHUP,
                _ = quit.recv() => break libc::SIGQUIT,
                _ = cont.recv() => {
                    if inputs.send(Input::Continued).is_err() {
                        break libc::SIGTERM;
                    }
                }
            }
        };
        let code = u8::try_from(128 + number).unwrap_or(FAILED);
        // A full channel is one that nobody empties.
        let _ = inputs.try_send(Input::Ended(code));
        tokio::time::sleep(END_WAIT).await;
        Ok::<u8, io::Error>(code)
    });
    if let Ok(code) = ended {
        screen::give_back_mode();
        std::process::exit(code.into());
    }
}

#[cfg(test)]
mod tests;
