//! Recognises heartbeats of Nodes without decoding them.
//!
//! Where only metadata is read, everything that we use of a Node follows from its name, labels and
//! annotations. An event in which these have the same octets as last seen of that Node changes
//! nothing. Different octets do not prove a change: the event is decoded and compared as any other.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use serde::Deserialize;
use serde_json::value::RawValue;

/// A hash of what was last seen of each Node. The keys of the hash are random per process.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Content hashes by the hash of the name.
    of: HashMap<u64, u64>,
    keys: RandomState,
}

/// Hashes of a Node's name, and of its labels and annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    name: u64,
    content: u64,
}

/// An event of a Node, with the fields that matter. A string with escapes cannot be borrowed:
/// reading such an event fails.
#[derive(Deserialize)]
pub(super) struct Beat<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    pub(super) object: Node<'a>,
}

/// A Node, in an event or in a list: the server formats both alike.
#[derive(Deserialize)]
pub(super) struct Node<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    resource_version: &'a str,
    #[serde(borrow, default)]
    labels: Option<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
}

impl<'a> Beat<'a> {
    /// Reads a line of a watch of Nodes; `None`: the line has to be decoded.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let beat: Self = serde_json::from_slice(line).ok()?;
        matches!(beat.kind, "ADDED" | "MODIFIED").then_some(beat)
    }
}

impl<'a> Node<'a> {
    /// Reads an item of a list of Nodes; `None`: no mark can be made of it.
    pub(super) fn read(item: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(item).ok()
    }

    pub(super) fn name(&self) -> &'a str {
        self.metadata.name
    }

    pub(super) fn version(&self) -> &'a str {
        self.metadata.resource_version
    }
}

impl Marks {
    /// The mark of a Node.
    pub(super) fn mark(&self, node: &Node<'_>) -> Mark {
        let metadata = &node.metadata;
        let content = (metadata.labels.map(RawValue::get), metadata.annotations.map(RawValue::get));
        Mark { name: self.keys.hash_one(metadata.name), content: self.keys.hash_one(content) }
    }

    /// Whether this is the last mark of that Node: its event is a heartbeat.
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.of.get(&mark.name) == Some(&mark.content)
    }

    /// Records the mark of a Node whose object was processed.
    pub(super) fn set(&mut self, mark: Mark) {
        self.of.insert(mark.name, mark.content);
    }

    /// Removes the mark of a Node.
    pub(super) fn forget(&mut self, name: &str) {
        self.of.remove(&self.keys.hash_one(name));
    }

    /// Replaces all marks, after a complete list.
    pub(super) fn replace(&mut self, marks: Vec<Mark>) {
        self.of = marks.into_iter().map(|mark| (mark.name, mark.content)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, metadata: &str) -> String {
        format!(r#"{{"type":"{kind}","object":{{"kind":"PartialObjectMetadata",{metadata}}}}}"#)
    }

    fn of(version: u64, rest: &str) -> String {
        let metadata = format!(
            r#""metadata":{{"name":"a","uid":"u","resourceVersion":"{version}","managedFields":[{{"x":{version}}}]{rest}}}"#
        );
        line("MODIFIED", &metadata)
    }

    #[test]
    fn a_mark_depends_on_labels_and_annotations_only() {
        let mut marks = Marks::default();
        let mark =
            |marks: &Marks, line: &str| marks.mark(&Beat::read(line.as_bytes()).unwrap().object);
        let labels = r#","labels":{"rack":"1"},"annotations":{"b":"c"}"#;
        let first = mark(&marks, &of(7, labels));
        assert!(!marks.has(first), "it is not known yet");
        marks.set(first);
        assert!(marks.has(mark(&marks, &of(8, labels))), "a heartbeat");
        for other in [
            "",
            r#","labels":{"rack":"2"},"annotations":{"b":"c"}"#,
            r#","labels":{"rack":"1"}"#,
            r#","annotations":{"rack":"1"},"labels":{"b":"c"}"#,
        ] {
            assert!(!marks.has(mark(&marks, &of(8, other))), "{other}");
        }
        marks.forget("b");
        assert!(marks.has(first));
        marks.forget("a");
        assert!(!marks.has(first));
        marks.replace(vec![first]);
        assert!(marks.has(first));
        marks.replace(Vec::new());
        assert!(!marks.has(first));
    }

    #[test]
    fn an_item_of_a_list_and_an_event_make_the_same_mark() {
        let marks = Marks::default();
        let metadata = r#"{"metadata":{"name":"a","resourceVersion":"6","labels":{"rack":"1"}}}"#;
        let item = Node::read(metadata.as_bytes()).unwrap();
        let event = of(7, r#","labels":{"rack":"1"}"#);
        let event = Beat::read(event.as_bytes()).unwrap();
        assert_eq!(marks.mark(&item), marks.mark(&event.object));
        assert!(Node::read(b"{}").is_none());
    }

    #[test]
    fn lines_that_cannot_be_borrowed_are_decoded() {
        let text = of(7, "");
        assert_eq!(Beat::read(text.as_bytes()).map(|beat| beat.object.version()), Some("7"));
        let metadata = |text: &str| line("MODIFIED", &format!(r#""metadata":{text}"#));
        for text in [
            line("DELETED", r#""metadata":{"name":"a","resourceVersion":"7"}"#),
            line("BOOKMARK", r#""metadata":{"name":"a","resourceVersion":"7"}"#),
            metadata(r#"{"name":"\u0061","resourceVersion":"7"}"#),
            metadata(r#"{"name":"a"}"#),
            metadata(r#"{"name":"a","resourceVersion":"7","labels":{},"labels":{}}"#),
            metadata(r#"{"name":"a","resourceVersion":7}"#),
            String::from("x"),
        ] {
            assert!(Beat::read(text.as_bytes()).is_none(), "{text}");
        }
    }
}
