//! The log: one line for each event on standard error, for people or for machines.
//!
//! Here: what is written and how ([`start`]), the level, which may change while margay runs
//! ([`Log`]), the limit that keeps a peer from flooding the log ([`limit`]), and the queue that keeps
//! whoever reads the log from stopping us ([`writer`]). Not here: the lines, which are written where
//! things happen.
//!
//! A level such as `debug` is one for margay's own lines; libraries stay at `warn`. At lower levels
//! they tell what they send, and that may be a password. Who needs them names them:
//! `info,etcd_client=debug`.

mod limit;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LogFormat, LogLevel, LogSettings};

use limit::{Limit, Reporter};
use writer::Queue;

/// Longest list of directives, in octets.
const DIRECTIVES_LEN_MAX: usize = 1024;
/// How long the end of the process waits for whoever reads the log.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// What a running process says about its log, and how its level is changed. Clones share it.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    filter: reload::Handle<EnvFilter, Registry>,
    format: LogFormat,
    queue: Queue,
    state: Mutex<State>,
}

struct State {
    directives: String,
    /// `RUST_LOG` said so: the configuration does not change it.
    from_environment: bool,
}

/// The directives are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{given}\" is not a log level: {why}; write error, warn, info, debug, trace, or \
         directives such as info,margay::net=debug"
)]
pub struct LevelError {
    given: String,
    why: String,
}

/// Begins to log to standard error. `RUST_LOG` is stronger than `settings`, for one run.
///
/// # Errors
/// The system has no thread for the writer.
pub fn start(settings: LogSettings) -> io::Result<Log> {
    let chosen = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let from_environment = chosen.is_some();
    let mut directives = chosen.unwrap_or_else(|| settings.level.as_str().to_owned());
    let mut refused = None;
    let filter = read(&directives).unwrap_or_else(|error| {
        refused = Some(error);
        directives = LogLevel::default().as_str().to_owned();
        EnvFilter::new(filter_text(&directives))
    });
    let (filter, handle) = reload::Layer::new(filter);
    let limit = Limit::default();
    let queue = Queue::default();
    let format = settings.format;
    queue.start(io::stderr(), move |missing| {
        let text = format!(
            "{missing} lines of the log were dropped: whoever reads it did not take them in time"
        );
        formed(format, "WARN", &text)
    })?;
    let lines = lines(format, limit.clone(), io::stderr().is_terminal(), queue.clone());
    tracing_subscriber::registry().with(filter).with(lines).init();
    Reporter::start(limit);
    if let Some(error) = refused {
        tracing::warn!("RUST_LOG: {error}");
    }
    let state = Mutex::new(State { directives, from_environment });
    Ok(Log { inner: Arc::new(Inner { filter: handle, format, queue, state }) })
}

/// A line that does not come through `tracing`, as its formats would write it.
fn formed(format: LogFormat, level: &str, text: &str) -> Vec<u8> {
    let mut time = String::new();
    // Without a time the line still says what it says.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let line = match format {
        LogFormat::Text => format!("{time} {level:>5} margay: {}", on_one_line(text)),
        LogFormat::Json => serde_json::json!({
            "timestamp": time, "level": level, "message": text, "target": "margay",
        })
        .to_string(),
    };
    format!("{line}\n").into_bytes()
}

/// What turns events into lines.
fn lines<S, W>(
    format: LogFormat,
    limit: Limit,
    colour: bool,
    writer: W,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(writer);
    match format {
        LogFormat::Text => {
            let text = OneLine(tracing_subscriber::fmt::format().with_ansi(colour));
            lines.event_format(text).with_filter(limit).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_filter(limit).boxed(),
    }
}

/// Text of an event on one line: a peer that says goodbye with a line end in its words (RFC 9003)
/// writes no lines of its own into our log. Other control characters are escaped by the format.
struct OneLine<F>(F);

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        writeln!(writer, "{}", on_one_line(text.trim_end_matches('\n')))
    }
}

fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\r']) {
        Cow::Owned(text.replace('\n', "\\n").replace('\r', "\\r"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Directives of [`EnvFilter`], with the word for a level meaning margay's own lines.
fn read(directives: &str) -> Result<EnvFilter, LevelError> {
    let refuse = |why: String| LevelError { given: directives.chars().take(80).collect(), why };
    if directives.len() > DIRECTIVES_LEN_MAX {
        return Err(refuse(format!("longer than {DIRECTIVES_LEN_MAX} octets")));
    }
    if directives.trim().is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    // EnvFilter takes a word that is no level for the name of a module.
    let is_known = |part: &&str| {
        let word = part.trim();
        word.contains(['=', ':', '[', '_']) || word == "margay" || is_level(word)
    };
    if let Some(part) = directives.split(',').find(|part| !is_known(part)) {
        return Err(refuse(format!("\"{}\" is unknown", part.trim())));
    }
    EnvFilter::builder().parse(filter_text(directives)).map_err(|error| refuse(error.to_string()))
}

fn is_level(word: &str) -> bool {
    ["error", "warn", "info", "debug", "trace", "off"].contains(&word)
}

/// What `directives` are for the filter.
fn filter_text(directives: &str) -> String {
    let part = |part: &str| match part.trim() {
        quiet @ ("error" | "warn" | "off") => quiet.to_owned(),
        level if is_level(level) => format!("warn,margay={level},bgp_proto={level}"),
        other => other.to_owned(),
    };
    directives.split(',').map(part).collect::<Vec<_>>().join(",")
}

impl Log {
    /// What is logged, as it was given.
    pub fn level(&self) -> String {
        self.state().directives.clone()
    }

    /// Changes what is logged until it is changed again; returns what was logged before.
    ///
    /// # Errors
    /// `directives` are none: nothing has changed.
    pub fn set_level(&self, directives: &str) -> Result<String, LevelError> {
        let filter = read(directives)?;
        let mut state = self.state();
        let failed = |error: reload::Error| LevelError {
            given: directives.to_owned(),
            why: error.to_string(),
        };
        self.inner.filter.reload(filter).map_err(failed)?;
        Ok(std::mem::replace(&mut state.directives, directives.to_owned()))
    }

    /// Follows a configuration that was read again; says so where `RUST_LOG` is stronger.
    pub fn configure(&self, level: LogLevel) {
        if self.state().from_environment {
            tracing::warn!(
                "log.level is ignored because RUST_LOG is set; change the level with margay log-level"
            );
            return;
        }
        if let Err(error) = self.set_level(level.as_str()) {
            tracing::warn!("{error}");
        }
    }

    /// Lines that were dropped because whoever reads the log did not take them.
    pub fn dropped(&self) -> u64 {
        self.inner.queue.dropped()
    }

    /// One line of level ERROR that nothing limits or drops, written before this returns unless the
    /// reader of the log does not take it within a second. For what a process says last.
    pub fn last_words(&self, text: &str) {
        self.inner.queue.push_last(&formed(self.inner.format, "ERROR", text));
        self.inner.queue.flush(FLUSH_WAIT);
    }

    /// One line as it stands, under the same rules as [`Log::last_words`].
    pub fn print(&self, line: &str) {
        self.inner.queue.push_last(format!("{line}\n").as_bytes());
        self.inner.queue.flush(FLUSH_WAIT);
    }

    /// Waits until what was logged is written, for a second at most.
    pub fn flush(&self) {
        self.inner.queue.flush(FLUSH_WAIT);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.level())
    }
}

#[cfg(test)]
mod tests;
