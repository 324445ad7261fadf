//! The log: one line for each event on standard error, for people or for machines.
//!
//! Here: what is written and how ([`start`]), the level, which may change while margay runs
//! ([`Log`]), and the limit that keeps a peer from flooding the log ([`limit`]). Not here: the
//! lines, which are written where things happen.
//!
//! A level such as `debug` is one for margay's own lines; libraries stay at `warn`. At lower levels
//! they tell what they send, and that may be a password. Who needs them names them:
//! `info,etcd_client=debug`.

mod limit;

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LogFormat, LogLevel, LogSettings};

use limit::{Limit, Reporter};

/// Longest list of directives, in octets.
const DIRECTIVES_LEN_MAX: usize = 1024;

/// What a running process says about its log, and how its level is changed. Clones share it.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    filter: reload::Handle<EnvFilter, Registry>,
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
pub fn start(settings: LogSettings) -> Log {
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
    let lines =
        lines(settings.format, limit.clone(), std::io::stderr().is_terminal(), std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    Reporter::start(limit);
    if let Some(error) = refused {
        tracing::warn!("RUST_LOG: {error}");
    }
    let state = Mutex::new(State { directives, from_environment });
    Log { inner: Arc::new(Inner { filter: handle, state }) }
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
        let text = text.trim_end_matches('\n');
        match text.contains(['\n', '\r']) {
            true => writeln!(writer, "{}", text.replace('\n', "\\n").replace('\r', "\\r")),
            false => writeln!(writer, "{text}"),
        }
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
