//! Response bodies of any length, split into objects as they arrive.

use super::failure::Failure;

/// Longest single object that is read, in octets.
const OBJECT_MAX: usize = 32 << 20;
/// Longest list, in octets.
const LIST_MAX: u64 = 1 << 30;
/// Longest JSON around the items of a list, in octets.
const FRAME_MAX: usize = 1 << 20;
/// The key of a list's items.
const ITEMS: &[u8] = b"items";

/// Splits the body of a list into its items, so that at most one item is in memory. The JSON around
/// them is kept for [`Items::finish`]: above all `metadata`, which precedes the items of core kinds
/// and follows those of custom resources.
#[derive(Debug, Default)]
pub(super) struct Items {
    place: Place,
    /// Nesting of brackets and braces, outside strings.
    depth: usize,
    is_text: bool,
    is_escaped: bool,
    /// The last string in the outermost object, as long as it may be [`ITEMS`].
    key: Vec<u8>,
    item: Vec<u8>,
    frame: Vec<u8>,
    octets: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Around,
    Within,
}

impl Items {
    /// Takes the next octets; `item` is called with each item that they complete.
    pub(super) fn push(
        &mut self,
        octets: &[u8],
        mut item: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        self.octets += octets.len() as u64;
        if self.octets > LIST_MAX {
            return Err(Failure::TooLong("a list", LIST_MAX));
        }
        for &octet in octets {
            match self.place {
                Place::Around => self.around(octet),
                Place::Within => self.within(octet, &mut item),
            }
        }
        if self.item.len() > OBJECT_MAX {
            return Err(Failure::TooLong("an object", OBJECT_MAX as u64));
        }
        if self.frame.len() > FRAME_MAX {
            return Err(Failure::TooLong("the metadata of a list", FRAME_MAX as u64));
        }
        Ok(())
    }

    /// The JSON around the items, with an empty list in their place.
    pub(super) fn finish(self) -> Vec<u8> {
        self.frame
    }

    fn around(&mut self, octet: u8) {
        self.frame.push(octet);
        if self.is_text {
            self.text(octet);
            if self.is_text && self.depth == 1 && self.key.len() <= ITEMS.len() {
                self.key.push(octet);
            }
            return;
        }
        match octet {
            b'"' => {
                self.is_text = true;
                self.key.clear();
            }
            b'{' => self.depth += 1,
            b'[' => {
                self.depth += 1;
                if self.depth == 2 && self.key == ITEMS {
                    self.place = Place::Within;
                }
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth == 1 => self.key.clear(),
            _ => {}
        }
    }

    fn within(&mut self, octet: u8, item: &mut impl FnMut(&[u8])) {
        if self.is_text {
            self.item.push(octet);
            self.text(octet);
            return;
        }
        match octet {
            b',' | b']' if self.depth == 2 => {
                if !self.item.is_empty() {
                    item(&self.item);
                    self.item.clear();
                }
                if octet == b']' {
                    self.depth = 1;
                    self.key.clear();
                    self.frame.push(octet);
                    self.place = Place::Around;
                }
                return;
            }
            b' ' | b'\n' | b'\r' | b'\t' => return,
            b'"' => self.is_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.item.push(octet);
    }

    /// Takes an octet of a string, or the end of the string.
    fn text(&mut self, octet: u8) {
        match octet {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => self.is_escaped = true,
            b'"' => self.is_text = false,
            _ => {}
        }
    }
}

/// Splits the body of a watch into its lines, one event each.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes the next octets; `line` is called with each line that they complete, without its end.
    ///
    /// # Errors
    /// Those of `line`, after which nothing more is delivered; a line that is too long.
    pub(super) fn push(
        &mut self,
        octets: &[u8],
        mut line: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = octets;
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            let (first, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.begun.is_empty() {
                if !first.trim_ascii().is_empty() {
                    line(first)?;
                }
            } else {
                self.begun.extend_from_slice(first);
                let taken = line(&self.begun);
                self.begun.clear();
                taken?;
            }
        }
        self.begun.extend_from_slice(rest);
        if self.begun.len() > OBJECT_MAX {
            return Err(Failure::TooLong("an event", OBJECT_MAX as u64));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn cut(text: &str, at: &[usize]) -> Vec<Vec<u8>> {
        let octets = text.as_bytes();
        let mut at: Vec<usize> = at.iter().map(|at| at % (octets.len() + 1)).collect();
        at.extend([0, octets.len()]);
        at.sort_unstable();
        at.windows(2).map(|w| octets[w[0]..w[1]].to_vec()).collect()
    }

    fn read(text: &str, at: &[usize]) -> (Vec<Value>, Value) {
        let mut items = Items::default();
        let mut read = Vec::new();
        for part in cut(text, at) {
            items.push(&part, |item| read.push(serde_json::from_slice(item).unwrap())).unwrap();
        }
        (read, serde_json::from_slice(&items.finish()).unwrap())
    }

    #[test]
    fn metadata_may_come_before_or_after_the_items() {
        let metadata = json!({"resourceVersion": "7", "items": [1, {"items": [2]}]});
        for text in [
            format!(r#"{{"kind":"items","metadata":{metadata},"items":[{{"a":"]}}\""}},{{}}]}}"#),
            format!(
                r#"{{"items": [ {{"a":"]}}\""}} , {{}} ], "metadata": {metadata}, "kind":"items"}}"#
            ),
        ] {
            let (items, frame) = read(&text, &[]);
            assert_eq!(items, [json!({"a": "]}\""}), json!({})]);
            let expected = json!({"kind": "items", "metadata": metadata, "items": []});
            assert_eq!(frame, expected);
        }
        assert_eq!(read(r#"{"items":null,"metadata":{}}"#, &[]).0, [] as [Value; 0]);
    }

    #[test]
    fn lines_are_whole_wherever_they_are_cut() {
        let mut lines = Lines::default();
        let mut read = Vec::new();
        for part in [&b"{\"a\""[..], b":1}", b"\n{}\n\n", b"{\"b\":", b"2}\n{"] {
            let take = |line: &[u8]| {
                read.push(String::from_utf8(line.to_vec()).unwrap());
                Ok(())
            };
            lines.push(part, take).unwrap();
        }
        assert_eq!(read, ["{\"a\":1}", "{}", "{\"b\":2}"]);
    }

    #[test]
    fn bodies_beyond_the_limits_are_errors() {
        let mut lines = Lines::default();
        let part = vec![b'x'; OBJECT_MAX / 2 + 1];
        lines.push(&part, |_| Ok(())).unwrap();
        assert!(lines.push(&part, |_| Ok(())).is_err());
        let mut items = Items::default();
        items.push(b"{\"items\":[\"", |_| {}).unwrap();
        items.push(&part, |_| {}).unwrap();
        assert!(items.push(&part, |_| {}).is_err());
        let mut items = Items::default();
        assert!(items.push(&vec![b'<'; FRAME_MAX + 1], |_| {}).is_err(), "a page of HTML");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
            Just(Value::from("items")),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let key = prop_oneof![Just("items".to_owned()), "[a-c\"\\\\\\[\\]{}]{0,3}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// However the body is formatted and split: the items are those that serde_json reads.
        #[test]
        fn items_are_those_of_the_whole(
            objects in prop::collection::vec(value(), 0..5),
            metadata in value(),
            at in prop::collection::vec(any::<usize>(), 0..6),
            is_pretty: bool,
        ) {
            let list = json!({"kind": "List", "metadata": metadata, "items": objects});
            let text = if is_pretty { format!("{list:#}") } else { list.to_string() };
            let (items, frame) = read(&text, &at);
            prop_assert_eq!(items, objects);
            prop_assert_eq!(frame, json!({"kind": "List", "metadata": metadata, "items": []}));
        }

        #[test]
        fn octets_of_any_kind_are_cut_or_refused(octets: Vec<u8>) {
            let mut items = Items::default();
            let _ = items.push(&octets, |_| {});
            let mut lines = Lines::default();
            let _ = lines.push(&octets, |_| Ok(()));
        }
    }
}
