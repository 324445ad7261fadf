//! Calico's selector language over labels.
//!
//! ```text
//! or    := and { "||" and }
//! and   := unary { "&&" unary }
//! unary := { "!" } ( "(" or ")" | "has(" label ")" | "all()" | "global()" | label cmp )
//! cmp   := "==" STR | "!=" STR | "contains" STR | "starts with" STR | "ends with" STR
//!        | "in" set | "not in" set
//! ```
//!
//! An empty selector selects everything. Parsing is total, and its depth is bounded.

use std::collections::BTreeMap;
use std::fmt;

/// Maximum length of a label, in octets.
const LABEL_LEN_MAX: usize = 512;

/// Maximum nesting of parentheses.
const DEPTH_MAX: usize = 100;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    root: Expression,
}

/// A label that every selected object must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Required<'a> {
    /// The label, with one of these values.
    Value(&'a str, &'a [String]),
    /// The label, with any value.
    Label(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    All,
    Has(String),
    Text { label: String, test: Test, value: String },
    In { label: String, values: Vec<String> },
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Contains,
    StartsWith,
    EndsWith,
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} at position {at}")]
pub struct Error {
    /// Octets from the start, counted from 0.
    pub at: usize,
    /// What is wrong.
    pub text: &'static str,
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// The first position at which the text is not in the grammar.
    pub fn parse(text: &str) -> Result<Selector, Error> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        parser.skip_blanks();
        if parser.rest().is_empty() {
            return Ok(Selector { root: Expression::All });
        }
        let root = parser.or()?;
        parser.skip_blanks();
        if parser.rest().is_empty() {
            Ok(Selector { root })
        } else {
            parser.fail("unexpected text")
        }
    }

    /// Whether an object with these labels is selected.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.root.holds(labels)
    }

    /// A label that every selected object has, to narrow a search; `None` if there is none.
    pub fn required(&self) -> Option<Required<'_>> {
        self.root.required()
    }
}

impl Expression {
    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Expression::All => true,
            Expression::Has(label) => labels.contains_key(label),
            Expression::Text { label, test, value } => {
                labels.get(label).is_some_and(|v| match test {
                    Test::Contains => v.contains(value.as_str()),
                    Test::StartsWith => v.starts_with(value.as_str()),
                    Test::EndsWith => v.ends_with(value.as_str()),
                })
            }
            Expression::In { label, values } => {
                labels.get(label).is_some_and(|v| values.contains(v))
            }
            Expression::Not(inner) => !inner.holds(labels),
            Expression::And(all) => all.iter().all(|e| e.holds(labels)),
            Expression::Or(any) => any.iter().any(|e| e.holds(labels)),
        }
    }

    fn required(&self) -> Option<Required<'_>> {
        match self {
            Expression::Has(label) | Expression::Text { label, .. } => Some(Required::Label(label)),
            Expression::In { label, values } => Some(Required::Value(label, values)),
            Expression::And(all) => {
                let mut found = all.iter().filter_map(Expression::required);
                let first = found.next()?;
                Some(match first {
                    Required::Value(..) => first,
                    Required::Label(_) => {
                        found.find(|r| matches!(r, Required::Value(..))).unwrap_or(first)
                    }
                })
            }
            Expression::All | Expression::Not(_) | Expression::Or(_) => None,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn fail<T>(&self, text: &'static str) -> Result<T, Error> {
        Err(Error { at: self.at, text })
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Consumes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn or(&mut self) -> Result<Expression, Error> {
        let mut any = vec![self.and()?];
        while self.take("||") {
            any.push(self.and()?);
        }
        Ok(flat(any, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, Error> {
        let mut all = vec![self.unary()?];
        while self.take("&&") {
            all.push(self.unary()?);
        }
        Ok(flat(all, Expression::And))
    }

    fn unary(&mut self) -> Result<Expression, Error> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let inner = self.primary()?;
        Ok(if negated { Expression::Not(Box::new(inner)) } else { inner })
    }

    fn primary(&mut self) -> Result<Expression, Error> {
        if self.take("(") {
            if self.depth >= DEPTH_MAX {
                return self.fail("nested too deeply");
            }
            self.depth += 1;
            let inner = self.or()?;
            self.depth -= 1;
            return self.close(inner);
        }
        if self.take("has(") {
            self.skip_blanks();
            let label = self.label()?;
            return self.close(Expression::Has(label));
        }
        if self.take("all(") || self.take("global(") {
            return self.close(Expression::All);
        }
        let label = self.label()?;
        self.comparison(label)
    }

    fn close(&mut self, inner: Expression) -> Result<Expression, Error> {
        if self.take(")") { Ok(inner) } else { self.fail("expected )") }
    }

    fn label(&mut self) -> Result<String, Error> {
        let rest = self.rest();
        let len = rest.find(|c| !is_label_char(c)).unwrap_or(rest.len());
        if len == 0 {
            return self.fail("expected a label");
        }
        if len > LABEL_LEN_MAX {
            return self.fail("label too long");
        }
        let (label, _) = rest.split_at(len);
        self.at += len;
        Ok(label.to_owned())
    }

    fn comparison(&mut self, label: String) -> Result<Expression, Error> {
        if self.take("==") {
            return Ok(Expression::In { label, values: vec![self.string()?] });
        }
        if self.take("!=") {
            return Ok(not_in(label, vec![self.string()?]));
        }
        if self.words("not", "in") {
            return Ok(not_in(label, self.set()?));
        }
        if self.words("in", "") {
            return Ok(Expression::In { label, values: self.set()? });
        }
        for (first, second, test) in [
            ("contains", "", Test::Contains),
            ("starts", "with", Test::StartsWith),
            ("ends", "with", Test::EndsWith),
        ] {
            if self.words(first, second) {
                return Ok(Expression::Text { label, test, value: self.string()? });
            }
        }
        self.fail("expected an operator")
    }

    /// Consumes an operator of one or two words if it comes next: any blanks between the words, no
    /// label character after the last.
    fn words(&mut self, first: &str, second: &str) -> bool {
        self.skip_blanks();
        let Some(rest) = self.rest().strip_prefix(first) else { return false };
        let Some(rest) = rest.trim_start_matches([' ', '\t']).strip_prefix(second) else {
            return false;
        };
        // If the operator is one word, the blanks skipped after it end the word.
        let after_first = self.rest().get(first.len()..).unwrap_or_default();
        let ended = if second.is_empty() { after_first } else { rest };
        if ended.starts_with(is_label_char) {
            return false;
        }
        self.at = self.text.len() - rest.len();
        true
    }

    fn string(&mut self) -> Result<String, Error> {
        self.skip_blanks();
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return self.fail("expected a quoted text");
        };
        let inner = rest.get(1..).unwrap_or_default();
        let Some((value, after)) = inner.split_once(quote) else {
            return self.fail("the quoted text does not end");
        };
        self.at = self.text.len() - after.len();
        Ok(value.to_owned())
    }

    fn set(&mut self) -> Result<Vec<String>, Error> {
        if !self.take("{") {
            return self.fail("expected {");
        }
        let mut values = Vec::new();
        loop {
            if self.take("}") {
                return Ok(values);
            }
            values.push(self.string()?);
            if !self.take(",") {
                return if self.take("}") { Ok(values) } else { self.fail("expected , or }") };
            }
        }
    }
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

fn not_in(label: String, values: Vec<String>) -> Expression {
    Expression::Not(Box::new(Expression::In { label, values }))
}

fn flat(mut list: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match list.pop() {
        Some(only) if list.is_empty() => only,
        Some(last) => {
            list.push(last);
            join(list)
        }
        None => join(list),
    }
}

impl fmt::Display for Selector {
    /// A text that parses to this selector again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, list: &[Expression], word: &str| {
            f.write_str("(")?;
            for (number, part) in list.iter().enumerate() {
                if number > 0 {
                    f.write_str(word)?;
                }
                part.fmt(f)?;
            }
            f.write_str(")")
        };
        match self {
            Expression::All => f.write_str("all()"),
            Expression::Has(label) => write!(f, "has({label})"),
            Expression::Text { label, test, value } => {
                let word = match test {
                    Test::Contains => "contains",
                    Test::StartsWith => "starts with",
                    Test::EndsWith => "ends with",
                };
                write!(f, "{label} {word} {}", Quoted(value))
            }
            Expression::In { label, values } => {
                write!(f, "{label} in {{")?;
                for (number, value) in values.iter().enumerate() {
                    write!(f, "{}{}", if number > 0 { ", " } else { "" }, Quoted(value))?;
                }
                f.write_str("}")
            }
            Expression::Not(inner) => write!(f, "!({inner})"),
            Expression::And(all) => list(f, all, " && "),
            Expression::Or(any) => list(f, any, " || "),
        }
    }
}

/// There are no escapes; a text holds at most one kind of quote.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

#[cfg(test)]
mod tests;
