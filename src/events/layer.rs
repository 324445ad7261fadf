//! Takes events from `tracing`.

use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{Entry, Events, Level};

/// The layer that records log lines with an `event` field, independent of the level of the log.
pub fn layer<S>(events: Events) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Evaluated once for each place in the code.
    let is_event = |metadata: &Metadata<'_>| metadata.fields().field("event").is_some();
    EventLayer { events }.with_filter(filter_fn(is_event).with_max_level_hint(LevelFilter::INFO))
}

/// Records every line that it receives.
pub struct EventLayer {
    events: Events,
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            _ => Level::Info,
        };
        let mut fields = Fields(Entry::new(SystemTime::now(), level));
        event.record(&mut fields);
        self.events.record(fields.0);
    }
}

/// The fields of a line.
struct Fields(Entry);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.set(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.set(field.name(), &format!("{value:?}"));
    }
}
