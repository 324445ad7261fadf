//! Who owns a thread or a task, and what happens when it dies.
//!
//! A BGP speaker that has partly failed is worse than one that has exited: neighbours keep
//! forwarding to a router whose routes are no longer updated. Every part therefore has an owner
//! here, and if a part dies, the process exits: connections close without a NOTIFICATION, so that
//! neighbours keep our routes for the restart time (RFC 4724 §4.2), the kernel keeps its routes,
//! the panic is logged with its location, the exit code is [`EXIT_CODE`], and the service manager
//! starts margay again.
//!
//! - A thread holds a [`PartGuard`] and does its work in [`PartGuard::run`].
//! - A task is wrapped by [`task`]; its owner may cancel it, which does not count as a death.
//! - Work that one part does on another's thread, as a turn of the table may, runs [`within`] its
//!   part.
//! - A session, being one of many, is [`contain`]ed: its owner receives the panic as a value, ends
//!   that session and starts it again. A panic for a client of a socket ends that client only; the
//!   runtime contains it.
//!
//! The process exits where the panic happens, before anything is unwound: no destructor of a part
//! in an unknown state runs, and no lock that it holds can delay the exit.
//!
//! A process has one panic hook, and therefore one supervisor. Nothing here has an effect before
//! [`Supervisor::install`]: in unit tests a panic fails the test.

pub mod fault;

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;

/// The process's exit code when a part has died: `EX_SOFTWARE` of sysexits.h.
pub const EXIT_CODE: i32 = 70;

/// How long a second part that dies waits for the process to exit because of the first.
const SECOND_DEATH_WAIT: Duration = Duration::from_secs(60);

/// Writes one line to the log. It must not block for longer than about a second, even if nothing
/// reads the log.
type LastWords = Box<dyn Fn(&str) + Send + Sync>;

static INSTALLED: OnceLock<LastWords> = OnceLock::new();
static DYING: AtomicBool = AtomicBool::new(false);
static CONTAINED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The part that this thread currently works for.
    static PART: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The owner of every part of the process.
#[derive(Debug)]
pub struct Supervisor;

impl Supervisor {
    /// From here on the death of a part ends the process, and its cause is written with
    /// `last_words`, which must not block for ever. Only the first call has an effect.
    pub fn install(last_words: impl Fn(&str) + Send + Sync + 'static) {
        if INSTALLED.set(Box::new(last_words)).is_ok() {
            std::panic::set_hook(Box::new(on_panic));
            fault::arm_from_environment();
        }
    }

    /// The number of panics so far that ended only one session or one client.
    pub fn contained_panics() -> u64 {
        CONTAINED.load(Ordering::Relaxed)
    }
}

fn on_panic(info: &PanicHookInfo<'_>) {
    let mut text = match info.location() {
        Some(at) => format!("panic at {at}: {}", message(info.payload())),
        None => format!("panic: {}", message(info.payload())),
    };
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        text = format!("{text}; {backtrace}");
    }
    match PART.get() {
        Some(part) => die(part, &text),
        None => {
            CONTAINED.fetch_add(1, Ordering::Relaxed);
            say(&text);
        }
    }
}

fn say(text: &str) {
    if let Some(last_words) = INSTALLED.get() {
        last_words(text);
    }
}

/// Ends the process, if a supervisor is installed.
fn die(part: &str, why: &str) {
    if INSTALLED.get().is_none() {
        return;
    }
    if DYING.swap(true, Ordering::AcqRel) {
        // Another part is dying already, or writing the cause has itself panicked.
        std::thread::sleep(SECOND_DEATH_WAIT);
    } else {
        say(&format!(
            "{part} has died, the process ends with exit code {EXIT_CODE}; neighbours and the kernel \
             keep our routes: {why}"
        ));
    }
    std::process::exit(EXIT_CODE)
}

/// The message of a panic.
fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Marks this thread as working for a part until the value is dropped.
struct Scope {
    before: Option<&'static str>,
}

impl Scope {
    fn enter(part: Option<&'static str>) -> Self {
        Scope { before: PART.replace(part) }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        PART.set(self.before);
    }
}

/// Does a piece of `part`'s work on the caller's thread: a panic in it counts as that part's death.
pub fn within<T>(part: &'static str, work: impl FnOnce() -> T) -> T {
    let _scope = Scope::enter(Some(part));
    work()
}

/// Held by a thread that the process cannot do without. Dropping it other than by
/// [`PartGuard::finish`] counts as the part's death.
#[must_use = "dropping it ends the process"]
#[derive(Debug)]
pub struct PartGuard {
    part: &'static str,
}

/// Registers the part named `part`; its owner moves the guard into the part's thread.
pub fn part(part: &'static str) -> PartGuard {
    PartGuard { part }
}

impl PartGuard {
    /// Runs the part's work; a panic in it ends the process at once.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        within(self.part, work)
    }

    /// The part has ended as intended.
    pub fn finish(self) {
        std::mem::forget(self);
    }
}

impl Drop for PartGuard {
    fn drop(&mut self) {
        die(self.part, "it has ended by itself");
    }
}

/// Bounds an orderly exit: if anything hangs during it, the process is ended after `limit`.
pub fn end_within(limit: Duration) {
    let late = move || {
        std::thread::sleep(limit);
        die("daemon", &format!("it has not stopped within {} s", limit.as_secs()));
    };
    // Without the thread, the exit takes as long as the parts take to end.
    let _ = std::thread::Builder::new().name("end".to_owned()).spawn(late);
}

/// Whether a task may end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ends together with what it works for.
    Allowed,
    /// It runs until its owner cancels it.
    Never,
}

/// A task that the process cannot do without. See [`task`].
#[derive(Debug)]
pub struct Owned<F> {
    part: &'static str,
    ending: Ending,
    future: Pin<Box<F>>,
}

/// Makes `future` the work of `part`: a panic in it ends the process, and so does its completion if
/// `ending` is [`Ending::Never`]. Dropping the future does not.
pub fn task<F: Future>(part: &'static str, ending: Ending, future: F) -> Owned<F> {
    Owned { part, ending, future: Box::pin(future) }
}

impl<F: Future> Future for Owned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let part = self.part;
        let done = within(part, || {
            fault::point(part);
            self.future.as_mut().poll(cx)
        });
        if done.is_ready() && self.ending == Ending::Never {
            die(part, "it has ended by itself");
        }
        done
    }
}

/// Why a contained task died. The panic itself, with its location, was logged when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// The panic's message.
    pub message: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a panic: {}", self.message)
    }
}

impl std::error::Error for Panicked {}

/// Runs `future` such that a panic in it becomes an error for its owner and affects nothing else.
///
/// # Errors
/// It has panicked. Anything it borrowed mutably is in an unknown state and must be dropped.
pub async fn contain<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let done = AssertUnwindSafe(future).catch_unwind().await;
    done.map_err(|payload| Panicked { message: message(payload.as_ref()).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_contained_panic_is_a_value_with_its_message() {
        let panicked = contain(async { panic!("no {}", "way") }).await;
        let panicked: Panicked = panicked.map(|(): ()| ()).unwrap_err();
        assert_eq!(panicked.message, "no way");
        assert_eq!(contain(async { 7 }).await, Ok(7));
    }

    #[test]
    fn work_for_a_part_is_nested_and_ends_with_a_panic_too() {
        let seen = || PART.get();
        within("session", || {
            assert_eq!(within("table", seen), Some("table"));
            assert_eq!(seen(), Some("session"));
        });
        let unwound = std::panic::catch_unwind(|| within("table", || panic!("expected")));
        assert!(unwound.is_err() && seen().is_none());
    }

    #[tokio::test]
    async fn a_task_is_marked_while_it_is_polled_only() {
        let own = task("plan", Ending::Allowed, async {
            let first = PART.get();
            tokio::task::yield_now().await;
            (first, PART.get())
        });
        assert_eq!(own.await, (Some("plan"), Some("plan")));
        assert_eq!(PART.get(), None);
    }
}
