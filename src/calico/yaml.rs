//! YAML to JSON values, read the way Calico's own tools read it.
//!
//! The Go tools convert YAML to JSON before they read any field, with the booleans of YAML 1.1
//! (`yes`, `on`) but without its base-60 numbers: a label `rr: yes` is the boolean true and becomes
//! the text `true`, and a community `5663:12` stays text. Merge keys (`<<: *defaults`) fill in keys
//! that a mapping lacks. JSON is YAML, so this reads both.
//!
//! Parsing is total: any input gives documents or an error with a line. Depth, and growth through
//! aliases, are bounded.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// Maximum nesting.
const DEPTH_MAX: usize = 64;

/// Maximum size of what anchors and aliases may add to the texts that are read together: values and
/// keys, each with one more for every [`OCTETS`] of its text.
const ALIASED_MAX: usize = 100_000;
/// Octets of text that count as a value: about the memory that one takes.
const OCTETS: usize = 32;

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct Error {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

/// Reads every document of a text; empty documents are left out.
///
/// # Errors
/// The first line at which the text is not YAML. The documents before it are discarded too, so that
/// a truncated file is not half applied.
pub fn documents(text: &str) -> Result<Vec<Value>, Error> {
    documents_after(text, &mut 0)
}

/// The same for one of several texts; `aliased` is what anchors and aliases have added to those before
/// it, from 0.
///
/// # Errors
/// As of [`documents`].
pub(super) fn documents_after(text: &str, aliased: &mut usize) -> Result<Vec<Value>, Error> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), aliased, line: 1 };
    let mut documents = Vec::new();
    while let Some(event) = reader.next()? {
        match event {
            Event::DocumentStart(_) => {
                reader.anchors.clear();
                let Some(first) = reader.next()? else { break };
                let value = reader.value(first, 0)?;
                if !value.is_null() {
                    documents.push(value);
                }
            }
            Event::StreamEnd => break,
            _ => {}
        }
    }
    Ok(documents)
}

struct Reader<'a, 'c> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    aliased: &'c mut usize,
    line: usize,
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Result<Option<Event<'a>>, Error> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                let span: Span = span;
                self.line = span.start.line();
                Ok(Some(event))
            }
            Some(Err(error)) => {
                Err(Error { line: error.marker().line(), text: error.info().to_owned() })
            }
        }
    }

    fn fail(&self, text: &str) -> Error {
        Error { line: self.line, text: text.to_owned() }
    }

    /// Counts a copy that is about to be made.
    fn count(&mut self, size: usize) -> Result<(), Error> {
        *self.aliased = self.aliased.saturating_add(size);
        if *self.aliased > ALIASED_MAX {
            return Err(self.fail("aliases repeat too much"));
        }
        Ok(())
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, Error> {
        if depth > DEPTH_MAX {
            return Err(self.fail("nested too deeply"));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                let value = if is_text || style != ScalarStyle::Plain {
                    Value::String(text.into_owned())
                } else {
                    plain(&text)
                };
                (anchor, value)
            }
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        Some(Event::SequenceEnd) => break,
                        Some(event) => list.push(self.value(event, depth + 1)?),
                        None => return Err(self.fail("the list does not end")),
                    }
                }
                (anchor, Value::Array(list))
            }
            Event::MappingStart(anchor, _) => (anchor, Value::Object(self.mapping(depth)?)),
            Event::Alias(id) => {
                let Some(size) = self.anchors.get(&id).map(size) else {
                    return Err(self.fail("an alias has no anchor"));
                };
                // Every alias copies its value, so that nested ones grow exponentially.
                self.count(size)?;
                (0, self.anchors.get(&id).cloned().unwrap_or_default())
            }
            _ => return Err(self.fail("a value is missing")),
        };
        if anchor != 0 {
            // A copy too, and anchors may be nested.
            self.count(size(&value))?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    /// Reads the rest of a mapping whose start has been read.
    fn mapping(&mut self, depth: usize) -> Result<Map<String, Value>, Error> {
        let mut map = Map::new();
        let mut defaults = Vec::new();
        loop {
            let key = match self.next()? {
                Some(Event::MappingEnd) => break,
                Some(Event::Scalar(text, ScalarStyle::Plain, ..)) if text == "<<" => {
                    let Some(event) = self.next()? else {
                        return Err(self.fail("a key has no value"));
                    };
                    let value = self.value(event, depth + 1)?;
                    defaults.extend(self.merged(value)?);
                    continue;
                }
                Some(event) => self.value(event, depth + 1)?,
                None => return Err(self.fail("the mapping does not end")),
            };
            let Some(key) = scalar_text(&key) else {
                return Err(self.fail("a key is not a scalar"));
            };
            let Some(event) = self.next()? else {
                return Err(self.fail("a key has no value"));
            };
            let value = self.value(event, depth + 1)?;
            if map.insert(key, value).is_some() {
                return Err(self.fail("a key stands twice in a mapping"));
            }
        }
        // Merged last, so that the mapping's own keys take precedence wherever `<<` occurs.
        for (key, value) in defaults.into_iter().flatten() {
            map.entry(key).or_insert(value);
        }
        Ok(map)
    }

    /// The mappings of a merge key: one, or a list. Of several with the same key the first takes
    /// precedence.
    fn merged(&self, value: Value) -> Result<Vec<Map<String, Value>>, Error> {
        let list = if let Value::Array(list) = value { list } else { vec![value] };
        let mapping = |value| match value {
            Value::Object(map) => Ok(map),
            _ => Err(self.fail("a merge key needs mappings")),
        };
        list.into_iter().map(mapping).collect()
    }
}

fn size(value: &Value) -> usize {
    let text = |text: &str| 1 + text.len() / OCTETS;
    match value {
        Value::Array(list) => list.iter().map(size).sum::<usize>() + 1,
        Value::Object(map) => map.iter().map(|(k, v)| text(k) + size(v)).sum::<usize>() + 1,
        Value::String(string) => text(string),
        _ => 1,
    }
}

/// A scalar as a Go string field would receive it; `None` for lists and mappings.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        }),
        Value::Null => Some("null".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// The value of an unquoted scalar.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if let Some(number) = integer(text).or_else(|| float(text)) {
        return Value::Number(number);
    }
    Value::String(text.to_owned())
}

/// Decimal, `0x`, `0o`, `0b`, and octal with a leading zero; underscores are skipped.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let digits = digits.replace('_', "");
    let parsed = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        u64::from_str_radix(octal, 8)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        u64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits, 8)
    } else {
        digits.parse()
    }
    .ok()?;
    if negative {
        i64::try_from(parsed).ok().map(|n| Number::from(-n))
    } else {
        Some(parsed.into())
    }
}

fn float(text: &str) -> Option<Number> {
    let shaped = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && text.bytes().any(|b| b.is_ascii_digit());
    if !shaped {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_the_go_tools_read() {
        let text = "a: yes\nb: 'yes'\nc: 5663:12\nd: 64512\ne: 1.10\nf: 010\ng:\nh: 0x1F\n\
                    i: 10.0.0.1\nj: -3\nk: 2001::103/64\nl: !!str 5\nm: 2026-08-20T09:15:01Z\n";
        assert_eq!(
            documents(text).unwrap(),
            [json!({
                "a": true, "b": "yes", "c": "5663:12", "d": 64512, "e": 1.1, "f": 8, "g": null,
                "h": 31, "i": "10.0.0.1", "j": -3, "k": "2001::103/64", "l": "5",
                "m": "2026-08-20T09:15:01Z",
            })]
        );
        assert_eq!(scalar_text(&json!(1.0)).unwrap(), "1");
        assert_eq!(scalar_text(&json!(true)).unwrap(), "true");
    }

    #[test]
    fn documents_are_split_and_empty_ones_left_out() {
        let text = "# nothing\n---\n---\na: 1\n---\n{\"b\": [1, \"x\"]}\n---\n";
        assert_eq!(documents(text).unwrap(), [json!({"a": 1}), json!({"b": [1, "x"]})]);
        assert!(documents("").unwrap().is_empty());
    }

    #[test]
    fn merge_keys_fill_in_what_a_mapping_does_not_say() {
        let text = "a: &a {x: 1, w: 2}\nb: &b {w: 3, z: 4}\nc: {<<: *a, x: 5}\nd: {<<: [*b, *a]}\n\
                    e: {'<<': 1}\n";
        let read = documents(text).unwrap().remove(0);
        assert_eq!(read["c"], json!({"x": 5, "w": 2}));
        assert_eq!(read["d"], json!({"x": 1, "w": 3, "z": 4}));
        assert_eq!(read["e"], json!({"<<": 1}), "only a plain key merges");
        assert_eq!(documents("a: {<<: 1}\n").unwrap_err().text, "a merge key needs mappings");
    }

    #[test]
    fn faults_name_their_line() {
        assert_eq!(documents("a: 1\nb: [1\n").unwrap_err().line, 3);
        assert_eq!(documents("a: 1\na: 2\n").unwrap_err().text, "a key stands twice in a mapping");
        assert!(documents(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn aliases_repeat_and_bombs_are_refused() {
        assert_eq!(documents("a: &x [1]\nb: *x\n").unwrap(), [json!({"a": [1], "b": [1]})]);
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{},", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
        }
        assert_eq!(documents(&bomb).unwrap_err().text, "aliases repeat too much");
    }

    #[test]
    fn copies_of_long_texts_count_by_their_length() {
        let long = "x".repeat(1000);
        let refused = |text: &str| documents(text).unwrap_err().text;
        let list = |count| format!("a: &a {long}\nb: [{}]\n", "*a,".repeat(count));
        assert_eq!(refused(&list(5000)), "aliases repeat too much");
        assert!(documents(&list(100)).is_ok());
        let keys = format!("a: &a {{{long}: 1}}\nb: [{}]\n", "*a,".repeat(5000));
        assert_eq!(refused(&keys), "aliases repeat too much");
        // Each anchor keeps a copy of all that is in it.
        let nested = |octets: usize| {
            let start: String = (0..50).map(|level| format!("&n{level} [")).collect();
            format!("{start}{}{}", "x".repeat(octets), "]".repeat(50))
        };
        assert_eq!(refused(&nested(200_000)), "aliases repeat too much");
        assert!(documents(&nested(100)).is_ok());
    }

    #[test]
    fn copies_count_for_all_texts_that_are_read_together() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), "*a,".repeat(1000));
        let mut aliased = 0;
        let read = (0..10).take_while(|_| documents_after(&text, &mut aliased).is_ok()).count();
        assert_eq!(read, 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-a-z:&*!|>'\"{}\\[\\],#?% \n\t0-9.]{0,60}") {
            let _ = documents(&text);
        }

        #[test]
        fn json_is_read_as_itself(text in "[ -~]{0,20}", number: i32) {
            let value = json!({"t": text, "n": number, "l": [null, true]});
            prop_assert_eq!(documents(&value.to_string()).unwrap(), [value]);
        }
    }
}
