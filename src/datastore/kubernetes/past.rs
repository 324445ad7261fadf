//! Whether a watch on another connection continues the known history, or the store was restored
//! from a backup meanwhile.
//!
//! Versions alone do not show that once writes have taken a restored store past the known version:
//! a watch from there delivers later writes, but never those of the new history below it. A list
//! would show it, and is too expensive for kinds with thousands of objects. Hence the last event
//! of such a kind is kept, whole: the anchor. If etcd still has exactly that object, the history
//! up to its version is the known one, and the watch begins at that version instead of the last
//! one: in the known history there is nothing of the kind in between, in a new one whatever there
//! is is delivered.

use serde::Deserialize;
use serde_json::Value;

use super::known::is_older;

/// Longest event that is kept, in octets.
const EVENT_MAX: usize = 256 << 10;

/// The last object of a kind that was added or modified, if only bookmarks came after it.
#[derive(Debug, Default)]
pub(super) struct Anchor {
    is_set: bool,
    /// The line of the watch.
    event: Vec<u8>,
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    object: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    metadata: Name,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Name {
    name: String,
}

impl Anchor {
    /// Keeps an event, in memory that is reused: this is called for every heartbeat of every node.
    pub(super) fn set(&mut self, event: &[u8], version: &str) {
        self.event.clear();
        self.is_set = event.len() <= EVENT_MAX;
        if self.is_set {
            self.event.extend_from_slice(event);
            version.clone_into(&mut self.version);
        }
    }

    /// Drops the event: it is no longer the last.
    pub(super) fn clear(&mut self) {
        self.is_set = false;
    }

    /// The version from which to watch if etcd still has the object.
    pub(super) fn version(&self) -> Option<&str> {
        self.is_set.then_some(self.version.as_str())
    }

    /// The name of the object.
    pub(super) fn name(&self) -> Option<String> {
        let event = || serde_json::from_slice::<Event>(&self.event).ok();
        self.is_set.then(event).flatten().map(|event| event.object.metadata.name)
    }

    /// Compares the object with the one that etcd has under its name.
    pub(super) fn compare(&self, found: Option<&[u8]>) -> Past {
        if !self.is_set {
            return Past::Same;
        }
        let read = |octets: &[u8]| serde_json::from_slice::<Value>(octets).ok();
        let metadata = |object: &mut Value| Some(object.get_mut("metadata")?.take());
        let found = found.and_then(read).and_then(|mut object| metadata(&mut object));
        let Some(found) = found else { return Past::Differs };
        let known = read(&self.event).and_then(|mut event| metadata(event.get_mut("object")?));
        if Some(&found) == known.as_ref() {
            return Past::Same;
        }
        let version = found.get("resourceVersion").and_then(Value::as_str).unwrap_or_default();
        if is_older(&self.version, version) { Past::Unknown } else { Past::Differs }
    }
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// The history up to the anchor is the known one; without an anchor, the version is not older.
    Same,
    /// The store was restored from a backup.
    Differs,
    /// The object has changed since: only a list can tell.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(uid: &str, version: u64) -> String {
        format!(r#"{{"metadata":{{"name":"n","uid":"{uid}","resourceVersion":"{version}"}}}}"#)
    }

    #[test]
    fn only_an_identical_object_confirms_the_history() {
        let mut anchor = Anchor::default();
        assert_eq!((anchor.version(), anchor.compare(None)), (None, Past::Same));
        let event = format!(r#"{{"type":"MODIFIED","object":{}}}"#, object("a", 5));
        anchor.set(event.as_bytes(), "5");
        assert_eq!((anchor.version(), anchor.name().as_deref()), (Some("5"), Some("n")));
        let compare = |text: &str| anchor.compare(Some(text.as_bytes()));
        assert_eq!(compare(&format!("{{\"kind\":\"Node\",{}", &object("a", 5)[1..])), Past::Same);
        assert_eq!(compare(&object("b", 5)), Past::Differs, "another one of that version");
        assert_eq!(compare(&object("a", 4)), Past::Differs);
        assert_eq!(compare(&object("a", 6)), Past::Unknown);
        assert_eq!(compare("x"), Past::Differs);
        assert_eq!(anchor.compare(None), Past::Differs, "it is gone");
        anchor.clear();
        assert_eq!((anchor.version(), anchor.name()), (None, None));
        anchor.set(&vec![b'x'; EVENT_MAX + 1], "7");
        assert_eq!(anchor.version(), None);
    }
}
