//! One event.

use std::time::SystemTime;

/// Longest text, in characters. More is cut off.
const TEXT_MAX: usize = 1024;
/// Longest value of a field, in characters. More is cut off.
const VALUE_MAX: usize = 256;

/// How serious an event is. Intended changes are [`Level::Info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Info,
    Warn,
    Error,
}

impl Level {
    /// The name, as in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number; each event has a greater one than those before. Assigned when it is recorded.
    pub number: u64,
    /// When it occurred.
    pub at: SystemTime,
    /// How serious it is.
    pub level: Level,
    /// The name: one of [`crate::event_names`].
    pub name: Box<str>,
    /// The peer that it concerns.
    pub peer: Option<Box<str>>,
    /// The text of the log line, without its fields.
    pub text: Box<str>,
    /// The other fields of the log line, such as `reason` and `prefix`.
    pub fields: Vec<(&'static str, Box<str>)>,
}

impl Entry {
    /// An event without fields.
    pub fn new(at: SystemTime, level: Level) -> Self {
        let (name, text) = (Box::default(), Box::default());
        Entry { number: 0, at, level, name, peer: None, text, fields: Vec::new() }
    }

    /// Sets the value of a field: `message` is the text, `event` the name.
    pub(super) fn set(&mut self, field: &'static str, value: &str) {
        match field {
            "message" => self.text = cut(value, TEXT_MAX),
            "event" => self.name = cut(value, VALUE_MAX),
            "peer" => self.peer = Some(cut(value, VALUE_MAX)),
            field => self.fields.push((field, cut(value, VALUE_MAX))),
        }
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| &**value)
    }

    /// Whether it concerns the peer; always if there is none.
    pub(super) fn concerns(&self, peer: Option<&str>) -> bool {
        peer.is_none_or(|peer| self.peer.as_deref() == Some(peer))
    }

    /// Its memory.
    pub(super) fn octets(&self) -> usize {
        let field = |(_, value): &(&str, Box<str>)| size_of::<(&str, Box<str>)>() + value.len();
        let texts = self.name.len() + self.text.len() + self.peer.as_ref().map_or(0, |p| p.len());
        size_of::<Entry>() + texts + self.fields.iter().map(field).sum::<usize>()
    }
}

fn cut(text: &str, max: usize) -> Box<str> {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}
