//! The log: one line on standard error for each event, as text or as JSON, or one entry in systemd's
//! journal.
//!
//! Here: the format ([`start`]), the level, which can be changed while margay runs ([`Log`]), the
//! rate limit that keeps a peer from flooding the log ([`limit`]), and the queue that keeps a slow
//! reader of the log from blocking us ([`writer`]), the journal's entries ([`journal`]). Not here: the lines themselves, which are
//! written where the events occur.
//!
//! A level such as `debug` applies to margay's own lines; libraries stay at `warn`, because at more
//! verbose levels they log what they send, which may include a password. To see a library's lines,
//! name it: `info,etcd_client=debug`.

mod fields;
mod journal;
mod limit;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LogFormat, LogLevel, LogSettings};
use crate::event_names::LOG_LEVEL;
use crate::events::{self, Events};

use fields::TextFields;
use limit::{Limit, Reporter};
use writer::{Queue, Stream};

/// Longest list of directives, in octets.
const DIRECTIVES_LEN_MAX: usize = 1024;
/// How long the process waits at its end for the reader of the log.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// The log of the running process: reads and changes its level, counts dropped lines. Clones share
/// it.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    filter: reload::Handle<EnvFilter, Registry>,
    form: Form,
    queue: Queue,
    events: Events,
    state: Mutex<State>,
}

struct State {
    directives: String,
    /// `RUST_LOG` set the level: the configuration does not change it.
    from_environment: bool,
}

/// How lines are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A line of text.
    Text(Prefix),
    /// An object of JSON.
    Json(Prefix),
    /// An entry of the journal.
    Entry,
}

/// What stands before a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    Nothing,
    /// Its priority, `<4>`, which systemd takes off a line (sd-daemon(3)).
    Priority,
}

impl Prefix {
    fn of(self, level: Level) -> String {
        match self {
            Prefix::Nothing => String::new(),
            Prefix::Priority => format!("<{}>", journal::priority(level)),
        }
    }
}

impl Form {
    /// The form that is configured; `in_journal`: standard error is the journal's stream.
    fn new(format: LogFormat, in_journal: bool) -> Self {
        let prefix = if in_journal { Prefix::Priority } else { Prefix::Nothing };
        match format {
            LogFormat::Auto if in_journal => Form::Entry,
            LogFormat::Auto | LogFormat::Text => Form::Text(prefix),
            LogFormat::Json => Form::Json(prefix),
            LogFormat::Journal => Form::Entry,
        }
    }
}

/// Text that is not a valid list of log directives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{given}\" is not a log level: {why}; write error, warn, info, debug, trace, or \
         directives such as info,margay::net=debug"
)]
pub struct LevelError {
    given: String,
    why: String,
}

/// Starts logging to standard error. `RUST_LOG`, if set, takes precedence over `settings`.
///
/// # Errors
/// The writer thread cannot be created.
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
    let in_journal = journal::is_standard_error();
    let form = Form::new(settings.format, in_journal);
    let notice = move |missing| {
        let text = format!(
            "{missing} lines of the log were dropped: whoever reads it did not take them in time"
        );
        formed(form, Level::WARN, &text)
    };
    match form {
        Form::Entry => {
            let form = if in_journal { text_in_journal } else { text_elsewhere };
            let output = journal::Journal::new(Path::new(journal::SOCKET), io::stderr(), form);
            queue.start(output, notice)?;
        }
        Form::Text(_) | Form::Json(_) => queue.start(Stream(io::stderr()), notice)?,
    }
    let filter = filter.and(limit.clone());
    let lines = match form {
        Form::Entry => journal::Entries(queue.clone()).with_filter(filter).boxed(),
        form => lines(form, filter, io::stderr().is_terminal(), queue.clone()),
    };
    let events = Events::default();
    // The level applies to lines only: events are recorded at any level.
    tracing_subscriber::registry().with(lines).with(events::layer(events.clone())).init();
    Reporter::start(limit);
    if let Some(error) = refused {
        tracing::warn!("RUST_LOG: {error}");
    }
    let state = Mutex::new(State { directives, from_environment });
    Ok(Log { inner: Arc::new(Inner { filter: handle, form, queue, events, state }) })
}

/// Formats a line that does not come from `tracing` as `tracing` would.
fn formed(form: Form, level: Level, text: &str) -> Vec<u8> {
    let mut time = String::new();
    // If the time cannot be formatted, the line is still useful.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let (prefix, line) = match form {
        Form::Entry => return journal::entry(level, &on_one_line(text)),
        Form::Text(prefix) => (prefix, format!("{time} {level:>5} margay: {}", on_one_line(text))),
        Form::Json(prefix) => {
            let line = serde_json::json!({
                "timestamp": time, "level": level.as_str(), "message": text, "target": "margay",
            });
            (prefix, line.to_string())
        }
    };
    format!("{}{line}\n", prefix.of(level)).into_bytes()
}

/// An entry's text where standard error is the journal's stream.
fn text_in_journal(text: &str, level: Level) -> Vec<u8> {
    formed(Form::Text(Prefix::Priority), level, text)
}

/// An entry's text elsewhere.
fn text_elsewhere(text: &str, level: Level) -> Vec<u8> {
    formed(Form::Text(Prefix::Nothing), level, text)
}

/// The layer that turns events into lines.
fn lines<S, W>(
    form: Form,
    filter: impl Filter<S> + Send + Sync + 'static,
    colour: bool,
    writer: W,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(writer);
    match form {
        Form::Json(prefix) => {
            let lines = lines.json().flatten_event(true);
            let lines = lines.map_event_format(|inner| OneLine { inner, prefix });
            lines.with_filter(filter).boxed()
        }
        Form::Text(_) | Form::Entry => {
            let prefix = if let Form::Text(prefix) = form { prefix } else { Prefix::Nothing };
            let inner = tracing_subscriber::fmt::format().with_ansi(colour);
            let text = OneLine { inner, prefix };
            lines.event_format(text).fmt_fields(TextFields).with_filter(filter).boxed()
        }
    }
}

/// Writes the text of an event on one line, so that a peer whose shutdown communication (RFC 9003)
/// contains a line break cannot forge lines in our log. The format escapes other control
/// characters.
struct OneLine<F> {
    inner: F,
    prefix: Prefix,
}

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
        self.inner.format_event(context, Writer::new(&mut text), event)?;
        let prefix = self.prefix.of(*event.metadata().level());
        writeln!(writer, "{prefix}{}", on_one_line(text.trim_end_matches('\n')))
    }
}

fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\r']) {
        Cow::Owned(text.replace('\n', "\\n").replace('\r', "\\r"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Parses directives of [`EnvFilter`]. A level by itself applies to margay's own lines.
fn read(directives: &str) -> Result<EnvFilter, LevelError> {
    let refuse = |why: String| LevelError { given: directives.chars().take(80).collect(), why };
    if directives.len() > DIRECTIVES_LEN_MAX {
        return Err(refuse(format!("longer than {DIRECTIVES_LEN_MAX} octets")));
    }
    if directives.trim().is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    // EnvFilter would take a word that is not a level for the name of a module.
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

/// Translates `directives` to those of [`EnvFilter`].
fn filter_text(directives: &str) -> String {
    let part = |part: &str| match part.trim() {
        quiet @ ("error" | "warn" | "off") => quiet.to_owned(),
        level if is_level(level) => format!("warn,margay={level},bgp_proto={level}"),
        other => other.to_owned(),
    };
    directives.split(',').map(part).collect::<Vec<_>>().join(",")
}

impl Log {
    /// The directives in force, as they were given.
    pub fn level(&self) -> String {
        self.state().directives.clone()
    }

    /// Sets the directives until they are set again or the configuration is reloaded; returns the
    /// previous ones.
    ///
    /// # Errors
    /// `directives` are not valid; nothing has changed.
    pub fn set_level(&self, directives: &str) -> Result<String, LevelError> {
        let filter = read(directives)?;
        let before = self.level();
        // Before the change: a less verbose level would suppress the line.
        tracing::info!(event = LOG_LEVEL, "log level is {directives}, was {before}");
        let mut state = self.state();
        let failed = |error: reload::Error| LevelError {
            given: directives.to_owned(),
            why: error.to_string(),
        };
        self.inner.filter.reload(filter).map_err(failed)?;
        Ok(std::mem::replace(&mut state.directives, directives.to_owned()))
    }

    /// Applies the level of a reloaded configuration. If `RUST_LOG` set the level, it stays, with a
    /// warning.
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

    /// The events of the lines so far.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// The number of lines that were dropped because the reader of the log was too slow.
    pub fn dropped(&self) -> u64 {
        self.inner.queue.dropped()
    }

    /// Writes one line of level ERROR that is never limited or dropped, and waits up to a second
    /// for the reader of the log to take it. For the last line before the process exits.
    pub fn last_words(&self, text: &str) {
        self.inner.queue.push_last(&formed(self.inner.form, Level::ERROR, text));
        self.inner.queue.flush(FLUSH_WAIT);
    }

    /// Writes one line without time or level, under the same rules as [`Log::last_words`].
    pub fn print(&self, line: &str) {
        let text = match self.inner.form {
            Form::Entry => journal::entry(Level::ERROR, &on_one_line(line)),
            Form::Text(prefix) | Form::Json(prefix) => {
                format!("{}{line}\n", prefix.of(Level::ERROR)).into_bytes()
            }
        };
        self.inner.queue.push_last(&text);
        self.inner.queue.flush(FLUSH_WAIT);
    }

    /// Waits until all lines are written, for a second at most.
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
