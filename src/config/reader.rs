//! Reading a TOML document: every value knows its position and its key's path, every fault is
//! collected and reading continues, and every key that was not asked for is a fault.
//!
//! Reading functions return `None` after they have noted a fault; the caller uses a default or
//! gives up, and the document as a whole is rejected at the end.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::str::FromStr;

use bgp_proto::types::is_direction_mark;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::secret::{Reading, Secrets};
use super::{Error, Errors};

/// Collects faults, each with its offset, so that they can be reported in the order of the file; and
/// the secrets that were read from other files.
#[derive(Default)]
pub(super) struct Faults {
    list: RefCell<Vec<Fault>>,
    secrets: Reading,
}

struct Fault {
    offset: usize,
    key: String,
    what: String,
    remedy: String,
}

impl Faults {
    fn note(&self, offset: usize, key: &str, what: impl Display, remedy: impl Display) {
        self.list.borrow_mut().push(Fault {
            offset,
            key: key.to_owned(),
            what: what.to_string(),
            remedy: remedy.to_string(),
        });
    }
}

/// A parsed file.
pub(super) struct Parsed<'a> {
    file: String,
    text: &'a str,
    root: Option<Spanned<DeTable<'a>>>,
    faults: Faults,
}

impl<'a> Parsed<'a> {
    pub(super) fn parse(file: &Path, text: &'a str, secrets: Reading) -> Self {
        let faults = Faults { secrets, ..Faults::default() };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            // The message alone: the error's own text quotes the line, which may hold a password.
            let what = error.message().replace('\n', ", ");
            faults.note(error.span().map_or(0, |s| s.start), "", what, "correct the TOML");
        }
        let root = errors.is_empty().then_some(root);
        Parsed { file: file.display().to_string(), text, root, faults }
    }

    /// The root table; `None` if the file is not valid TOML.
    pub(super) fn root(&self) -> Option<Table<'_>> {
        let root = self.root.as_ref()?;
        Some(Table::new(&self.faults, String::new(), root.span(), root.get_ref()))
    }

    /// Returns `result` and the secrets that were read if there were no faults.
    pub(super) fn finish<T>(self, result: Option<T>) -> Result<(T, Secrets), Errors> {
        let mut faults = std::mem::take(&mut *self.faults.list.borrow_mut());
        faults.sort_by_key(|f| f.offset);
        // A value that is read for two purposes has its fault once.
        faults.dedup_by(|a, b| (a.offset, &a.key, &a.what) == (b.offset, &b.key, &b.what));
        if let (Some(result), true) = (result, faults.is_empty()) {
            return Ok((result, self.faults.secrets.into_secrets()));
        }
        let errors = faults.into_iter().map(|fault| {
            let before = self.text.get(..fault.offset).unwrap_or(self.text);
            let line_start = before.rfind('\n').map_or(0, |n| n + 1);
            Error {
                file: self.file.clone(),
                line: Some(before.matches('\n').count() + 1),
                column: Some(before[line_start..].chars().count() + 1),
                key: fault.key,
                what: fault.what,
                remedy: fault.remedy,
            }
        });
        Err(Errors(errors.collect()))
    }
}

/// A table, and the keys of it that were asked for.
pub(super) struct Table<'a> {
    faults: &'a Faults,
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    fn new(faults: &'a Faults, path: String, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Table { faults, path, span, table, asked: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`, which counts as a known key from then on.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.table.get_key_value(key)?;
        let path = self.path_of(key);
        Some(Value { faults: self.faults, path, key_at: name.span().start, value })
    }

    /// All entries, of a table whose keys are names.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.table.iter().map(move |(name, value)| {
            let key = name.get_ref().as_ref();
            let (path, key_at) = (self.path_of(key), name.span().start);
            (key, Value { faults: self.faults, path, key_at, value })
        })
    }

    /// Like [`Table::get`], but absence is a fault.
    pub(super) fn require(&self, key: &'static str, remedy: impl Display) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.fault_at(key, "is missing", remedy);
        }
        value
    }

    /// The entries of an array of tables, which may be absent.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        self.get(key)
            .map(|v| v.list().iter().filter_map(Value::table).collect())
            .unwrap_or_default()
    }

    /// Notes a fault of `key`: at its value, or at the table if it is absent.
    pub(super) fn fault_at(&self, key: &str, what: impl Display, remedy: impl Display) {
        let offset = self.table.get(key).map_or(self.span.start, |value| value.span().start);
        self.faults.note(offset, &self.path_of(key), what, remedy);
    }

    /// Notes a fault of the table.
    pub(super) fn fault(&self, what: impl Display, remedy: impl Display) {
        self.faults.note(self.span.start, &self.path, what, remedy);
    }

    /// Whether there are no keys, known or unknown.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Ends reading the table: keys that were not asked for are faults.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for name in self.table.keys() {
            let key = name.get_ref().as_ref();
            if asked.contains(&key) {
                continue;
            }
            let remedy = match closest(key, &asked) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => {
                    let mut known = asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("known keys here: {}", known.join(", "))
                }
            };
            self.faults.note(name.span().start, &self.path_of(key), "unknown key", remedy);
        }
    }
}

/// A value and its position.
#[derive(Clone)]
pub(super) struct Value<'a> {
    faults: &'a Faults,
    path: String,
    key_at: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    /// The content of a file with a secret, without the line end at its end. The file is followed for
    /// changes from then on.
    pub(super) fn read_secret(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let octets = self.faults.secrets.read(path)?;
        let line = octets.strip_suffix(b"\n").unwrap_or(&octets);
        Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
    }

    /// Notes a fault of this value.
    pub(super) fn fault(&self, what: impl Display, remedy: impl Display) {
        self.faults.note(self.value.span().start, &self.path, what, remedy);
    }

    /// Notes a fault of the key itself, which should not be present.
    pub(super) fn fault_key(&self, what: impl Display, remedy: impl Display) {
        self.faults.note(self.key_at, &self.path, what, remedy);
    }

    /// Notes that the value has the wrong type.
    fn kind_fault<T>(&self, wanted: &str) -> Option<T> {
        let kind = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(format_args!("is {kind}"), format_args!("write {wanted}"));
        None
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(s) => Some(s),
            _ => self.kind_fault("a string in quotes"),
        }
    }

    /// A date, or a string that holds one.
    pub(super) fn date_or_text(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::Datetime(date) => Some(date.to_string()),
            DeValue::String(text) => Some(text.to_string()),
            _ => self.kind_fault("a date such as 2026-12-01T00:00:00Z"),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(b) => Some(*b),
            _ => self.kind_fault("true or false"),
        }
    }

    /// Whether the value is an integer, for keys that accept more than one type.
    pub(super) fn is_integer(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    /// Whether the value is a boolean, for keys that accept more than one type.
    pub(super) fn is_boolean(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Boolean(_))
    }

    /// Whether the value is this string, for keys that accept more than one type.
    pub(super) fn is_text(&self, text: &str) -> bool {
        matches!(self.value.get_ref(), DeValue::String(s) if s == text)
    }

    /// An integer in the range.
    pub(super) fn integer<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            return self.kind_fault(&format!("an integer, {}-{}", range.start(), range.end()));
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(number) => Some(number),
            None => {
                let (low, high) = (range.start(), range.end());
                self.fault(
                    format_args!("{} is out of range", integer.as_str()),
                    format_args!("use {low}-{high}"),
                );
                None
            }
        }
    }

    /// A string parsed as `T`; the parser's error is the text of the fault.
    pub(super) fn parse<T>(&self) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match self.text()?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(error, "");
                None
            }
        }
    }

    /// A string parsed as `T`, which `what` describes (`an address such as 192.0.2.1`).
    pub(super) fn parse_as<T: FromStr>(&self, what: &str) -> Option<T> {
        let text = self.text()?;
        let value = text.parse().ok();
        if value.is_none() {
            self.fault(format_args!("\"{text}\" is not valid"), format_args!("write {what}"));
        }
        value
    }

    /// One of a few words.
    pub(super) fn choice<T: Clone>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(value.clone());
        }
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let remedy = match closest(text, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("use \"{}\"", names.join("\" or \"")),
        };
        self.fault(format_args!("\"{text}\" is not known here"), remedy);
        None
    }

    /// The elements of a list; a single value counts as a list of one.
    pub(super) fn list(&self) -> Vec<Value<'a>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            return vec![self.clone()];
        };
        let element = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Value {
            faults: self.faults,
            path: format!("{}[{}]", self.path, index + 1),
            key_at: value.span().start,
            value,
        };
        array.iter().enumerate().map(element).collect()
    }

    /// The elements for which `read` returns a value.
    pub(super) fn read_list<T>(&self, read: impl Fn(&Value<'a>) -> Option<T>) -> Vec<T> {
        self.list().iter().filter_map(read).collect()
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => {
                Some(Table::new(self.faults, self.path.clone(), self.value.span(), table))
            }
            _ => self.kind_fault("a table"),
        }
    }
}

/// Whether a name may contain `c`: no white space, and nothing that changes how a terminal displays
/// a line (control characters, direction marks).
pub(super) fn is_of_word(c: char) -> bool {
    !(c.is_whitespace() || c.is_control() || is_direction_mark(c))
}

/// The candidate of which `word` is most likely a misspelling.
pub(crate) fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let (near, distance) = candidates
        .iter()
        .map(|c| (*c, edit_distance(&word.to_lowercase(), c)))
        .min_by_key(|(_, distance)| *distance)?;
    (distance <= near.chars().count().div_ceil(4).max(1)).then_some(near)
}

/// The number of insertions, deletions, substitutions and swaps of adjacent characters that turn
/// `a` into `b` (`usize::MAX` if one of them is too long).
fn edit_distance(a: &str, b: &str) -> usize {
    // Longer words are not misspellings of a key.
    const MAX_LEN: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > MAX_LEN || b.len() > MAX_LEN {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
