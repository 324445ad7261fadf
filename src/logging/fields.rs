//! The fields of a line of text.
//!
//! Fields that repeat what the text says are for JSON and for [`crate::events`]; in a line for
//! people they are left out.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// Fields that lines of text never have.
const HIDDEN: [&str; 4] = ["event", "direction", "code", "subcode"];
/// Fields that they have unless the text contains the value.
const HIDDEN_IF_REPEATED: [&str; 2] = ["reason", "object"];

/// Formats the fields of a line of text as `tracing` does, without those that repeat it.
pub(super) struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = Text::default();
        fields.record(&mut text);
        let inner = DefaultVisitor::new(writer, true);
        let mut shown = Shown { inner, text: text.0 };
        fields.record(&mut shown);
        shown.inner.finish()
    }
}

/// The text of a line.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Passes on the fields to show.
struct Shown<'w> {
    inner: DefaultVisitor<'w>,
    text: String,
}

impl Shown<'_> {
    fn shows(&self, field: &Field, value: impl FnOnce() -> String) -> bool {
        let name = field.name();
        let is_repeated = || HIDDEN_IF_REPEATED.contains(&name) && self.text.contains(&value());
        !HIDDEN.contains(&name) && !is_repeated()
    }
}

impl Visit for Shown<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.shows(field, || value.to_owned()) {
            self.inner.record_str(field, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.shows(field, || format!("{value:?}")) {
            self.inner.record_debug(field, value);
        }
    }
}
