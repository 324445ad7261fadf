//! The dialect of BIRD 1.6 that confd's templates write: lexer and parser.
//!
//! Panics on unknown constructs, so that a golden file with more does not pass half parsed.

use std::collections::BTreeMap;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Keywords, numbers, addresses, prefixes.
    Word(String),
    /// `"…"`, and names in `'…'`.
    Text(String),
    /// Punctuation.
    Symbol(&'static str),
}

const SYMBOLS: [&str; 22] = [
    "!~", "!=", "&&", "||", "!", "{", "}", "(", ")", "[", "]", ";", ",", "~", "=", "<", ">", "-",
    "+", "*", "?", "|",
];

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
            if let Some(quote) = quote {
                let (inner, after) = rest[1..].split_once(quote).expect("a closed quote");
                out.push(Token::Text(inner.to_owned()));
                rest = after;
            } else if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
                out.push(Token::Symbol(symbol));
                rest = &rest[symbol.len()..];
            } else {
                let is_word = |c: char| c.is_ascii_alphanumeric() || "_.:/".contains(c);
                let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                assert!(len > 0, "unknown character in {line:?}");
                out.push(Token::Word(rest[..len].to_owned()));
                rest = &rest[len..];
            }
            rest = rest.trim_start();
        }
    }
    out
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expr {
    Int(u32),
    Prefix(String),
    Text(String),
    Name(String),
    Tuple(Vec<u32>),
    /// `[ RTS_BGP ]`, `[ 10.0.0.0/8{20,24} ]`.
    Set(Vec<SetItem>),
    /// `[= 65000 * =]`: an AS path that begins with these.
    PathPrefix(Vec<u32>),
    Defined(String),
    Not(Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetItem {
    Name(String),
    Prefix(String, Option<(u8, u8)>),
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stmt {
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    Assign(String, Expr),
    Accept,
    Reject,
    Call(String, Vec<Expr>),
}

/// A function with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub params: Vec<String>,
    pub body: Vec<Stmt>,
}

/// A block of options: `neighbor X as N;`, `import filter { … };`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub plain: Vec<Vec<Token>>,
    pub filters: BTreeMap<String, Vec<Stmt>>,
}

impl Options {
    /// The words that follow `start` in the option that begins with it.
    pub fn after(&self, start: &[&str]) -> Option<Vec<String>> {
        self.plain.iter().find_map(|option| {
            let words: Vec<String> = option.iter().map(text).collect();
            let begins = words.len() >= start.len() && words.iter().zip(start).all(|(w, s)| w == s);
            begins.then(|| words[start.len()..].to_vec())
        })
    }
}

fn text(token: &Token) -> String {
    match token {
        Token::Word(w) | Token::Text(w) => w.clone(),
        Token::Symbol(s) => (*s).to_owned(),
    }
}

/// A protocol or a template.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub kind: String,
    pub name: String,
    pub from: Option<String>,
    pub options: Options,
}

/// A configuration of several files that include each other.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub functions: BTreeMap<String, Function>,
    pub filters: BTreeMap<String, Vec<Stmt>>,
    pub templates: Vec<Protocol>,
    pub protocols: Vec<Protocol>,
    pub options: Options,
}

impl Config {
    /// Parses the texts one after the other.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Config {
        let mut config = Config::default();
        for text in texts {
            let mut parser = Parser { tokens: tokens(text), at: 0 };
            while parser.at < parser.tokens.len() {
                parser.top_level(&mut config);
            }
        }
        config
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Token {
        let token = self.tokens.get(self.at).expect("more tokens").clone();
        self.at += 1;
        token
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(s)) if *s == symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if w == word)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) {
        let near = &self.tokens[self.at.saturating_sub(5)..(self.at + 3).min(self.tokens.len())];
        assert!(self.is_symbol(symbol), "expected {symbol} near {near:?}");
        self.at += 1;
    }

    fn name(&mut self) -> String {
        text(&self.next())
    }

    fn top_level(&mut self, config: &mut Config) {
        if self.take_word("function") {
            let name = self.name();
            let params = self.params();
            let body = self.block();
            config.functions.insert(name, Function { params, body });
        } else if self.take_word("filter") {
            let name = self.name();
            let body = self.block();
            config.filters.insert(name, body);
        } else if self.is_word("template") || self.is_word("protocol") {
            let is_template = self.name() == "template";
            let kind = self.name();
            let mut protocol =
                Protocol { kind, name: String::new(), from: None, options: Options::default() };
            if !self.is_symbol("{") && !self.is_word("from") {
                protocol.name = self.name();
            }
            if self.take_word("from") {
                protocol.from = Some(self.name());
            }
            self.expect("{");
            while !self.take("}") {
                self.option(&mut protocol.options);
            }
            if is_template { &mut config.templates } else { &mut config.protocols }.push(protocol);
        } else {
            self.option(&mut config.options);
        }
    }

    fn params(&mut self) -> Vec<String> {
        self.expect("(");
        let mut params = Vec::new();
        while !self.take(")") {
            assert_eq!(self.name(), "bool", "a type");
            params.push(self.name());
            self.take(";");
        }
        params
    }

    fn option(&mut self, options: &mut Options) {
        let mut option = Vec::new();
        while !self.take(";") {
            let is_filter = option.get(1) == Some(&Token::Word("filter".to_owned()));
            if is_filter && self.is_symbol("{") {
                let body = self.block();
                options.filters.insert(text(&option[0]), body);
            } else {
                option.push(self.next());
            }
        }
        options.plain.push(option);
    }

    fn block(&mut self) -> Vec<Stmt> {
        self.expect("{");
        let mut body = Vec::new();
        while !self.take("}") {
            self.statement(&mut body);
        }
        body
    }

    fn branch(&mut self) -> Vec<Stmt> {
        if self.is_symbol("{") {
            return self.block();
        }
        let mut body = Vec::new();
        self.statement(&mut body);
        body
    }

    fn statement(&mut self, body: &mut Vec<Stmt>) {
        if self.take_word("if") {
            let condition = self.expr();
            assert!(self.take_word("then"), "then after {condition:?}");
            let yes = self.branch();
            let no = if self.take_word("else") { self.branch() } else { Vec::new() };
            body.push(Stmt::If(condition, yes, no));
            return;
        }
        if self.take_word("accept") {
            body.push(Stmt::Accept);
        } else if self.take_word("reject") {
            body.push(Stmt::Reject);
        } else {
            let name = self.name();
            if self.take("=") {
                body.push(Stmt::Assign(name, self.expr()));
            } else {
                self.expect("(");
                let mut args = Vec::new();
                while !self.take(")") {
                    args.push(self.expr());
                    self.take(",");
                }
                body.push(Stmt::Call(name, args));
            }
        }
        self.expect(";");
    }

    fn expr(&mut self) -> Expr {
        self.binary(&[&["||"], &["&&"], &["=", "!=", "<", ">", "~", "!~"], &["-"]])
    }

    fn binary(&mut self, levels: &[&[&'static str]]) -> Expr {
        let Some((operators, tighter)) = levels.split_first() else { return self.unary() };
        let mut left = self.binary(tighter);
        while let Some(operator) = operators.iter().find(|o| self.is_symbol(o)) {
            self.at += 1;
            let right = self.binary(tighter);
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
        left
    }

    fn unary(&mut self) -> Expr {
        if self.take("!") {
            return Expr::Not(Box::new(self.unary()));
        }
        if self.take("(") {
            let first = self.expr();
            let mut parts = vec![first];
            while self.take(",") {
                parts.push(self.expr());
            }
            self.expect(")");
            if parts.len() == 1 {
                return parts.remove(0);
            }
            let number = |e: &Expr| match e {
                Expr::Int(n) => *n,
                other => panic!("{other:?} in a tuple"),
            };
            return Expr::Tuple(parts.iter().map(number).collect());
        }
        if self.take("[") {
            return self.set();
        }
        match self.next() {
            Token::Text(text) => Expr::Text(text),
            Token::Word(word) if word == "defined" => {
                self.expect("(");
                let name = self.name();
                self.expect(")");
                Expr::Defined(name)
            }
            Token::Word(word) => {
                if let Ok(number) = word.parse() {
                    Expr::Int(number)
                } else if word.contains('/') {
                    Expr::Prefix(word)
                } else {
                    Expr::Name(word)
                }
            }
            Token::Symbol(symbol) => panic!("unexpected {symbol}"),
        }
    }

    /// Parses a set after its opening bracket.
    fn set(&mut self) -> Expr {
        if self.take("=") {
            let mut prefix = Vec::new();
            while !self.take("*") {
                prefix.push(self.name().parse().expect("an AS number"));
            }
            self.expect("=");
            self.expect("]");
            return Expr::PathPrefix(prefix);
        }
        let mut items = Vec::new();
        while !self.take("]") {
            let word = self.name();
            if word.contains('/') {
                let range = self.take("{").then(|| {
                    let low = self.name().parse().expect("a length");
                    self.expect(",");
                    let high = self.name().parse().expect("a length");
                    self.expect("}");
                    (low, high)
                });
                items.push(SetItem::Prefix(word, range));
            } else {
                items.push(SetItem::Name(word));
            }
            self.take(",");
        }
        Expr::Set(items)
    }
}
