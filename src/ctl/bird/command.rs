//! The commands, in BIRD's grammar: whole lower-case words; `#` begins a comment.
//!
//! Abbreviations are expanded by the clients: `birdc` sends complete words.

use std::net::IpAddr;

use bgp_proto::types::{Family, Prefix};

use super::reply::{Refusal, SYNTAX};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    ShowStatus,
    ShowProtocols {
        detail: Detail,
        which: Which,
    },
    ShowRoute(ShowRoute),
    ShowInterfaces(Detail),
    /// With the name of the BFD protocol, if one was given.
    ShowBfdSessions(Option<String>),
    Configure(Configure),
    Act {
        action: Action,
        which: Which,
    },
    Restrict,
}

/// An action on sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close the session until it is enabled.
    Disable,
    /// Start a disabled session.
    Enable,
    /// Close the session and start it again.
    Restart,
    /// Have routes sent again.
    Reload {
        /// The neighbour's routes.
        import: bool,
        /// Our routes.
        export: bool,
    },
}

/// How much detail is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Detail {
    #[default]
    Line,
    All,
}

/// Which protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    Named(String),
    Matching(String),
}

/// How to read the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configure {
    /// Only check whether it could be applied.
    Check,
    /// Apply it.
    Apply,
}

/// `show route`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShowRoute {
    pub(super) detail: Detail,
    pub(super) output: Output,
    pub(super) query: RouteQuery,
}

/// Whether routes, their number or both are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Output {
    #[default]
    Routes,
    RoutesAndCount,
    Count,
}

/// Which routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteQuery {
    /// Which destinations.
    pub target: Target,
    /// Only the best path of each destination.
    pub primary: bool,
    /// Only routes from this protocol.
    pub protocol: Option<String>,
    /// Only routes advertised to this session.
    pub export: Option<String>,
}

/// Which destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// All.
    #[default]
    All,
    /// This one.
    Exact(Prefix),
    /// The longest prefix that covers this one.
    For(Prefix),
}

/// A word, or quoted text.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
}

impl Command {
    /// Parses a line, given without its line end.
    pub(super) fn parse(line: &str, family: Family) -> Result<Command, Refusal> {
        let tokens = tokens(line)?;
        let words: Vec<&str> = tokens
            .iter()
            .map(|token| match token {
                Token::Word(word) => word.as_str(),
                // Can be no word: a quote ends a word.
                Token::Text(_) => "\"",
            })
            .collect();
        match words.as_slice() {
            ["show", "status"] => Ok(Command::ShowStatus),
            ["show", "protocols"] => Ok(protocols(Detail::Line, Which::All)),
            ["show", "protocols", "all"] => Ok(protocols(Detail::All, Which::All)),
            ["show", "protocols", "all", _] => Ok(protocols(Detail::All, which(&tokens, 3)?)),
            ["show", "protocols", _] => Ok(protocols(Detail::Line, which(&tokens, 2)?)),
            ["show", "interfaces"] => Ok(Command::ShowInterfaces(Detail::All)),
            ["show", "interfaces", "summary"] => Ok(Command::ShowInterfaces(Detail::Line)),
            ["show", "bfd", "sessions"] => Ok(Command::ShowBfdSessions(None)),
            ["show", "bfd", "sessions", name] => {
                Ok(Command::ShowBfdSessions(Some((*name).to_owned())))
            }
            ["show", "route", rest @ ..] => Ok(Command::ShowRoute(show_route(rest, family)?)),
            ["configure"] | ["configure", "soft"] => Ok(Command::Configure(Configure::Apply)),
            ["configure", "check"] => Ok(Command::Configure(Configure::Check)),
            ["disable", _] => act(Action::Disable, &tokens, 1),
            ["enable", _] => act(Action::Enable, &tokens, 1),
            ["restart", _] => act(Action::Restart, &tokens, 1),
            ["reload", "in" | "out"] => Err(Refusal::syntax()),
            ["reload", "in", _] => act(Action::Reload { import: true, export: false }, &tokens, 2),
            ["reload", "out", _] => act(Action::Reload { import: false, export: true }, &tokens, 2),
            ["reload", _] => act(Action::Reload { import: true, export: true }, &tokens, 1),
            ["restrict"] => Ok(Command::Restrict),
            _ => Err(Refusal::syntax()),
        }
    }
}

fn protocols(detail: Detail, which: Which) -> Command {
    Command::ShowProtocols { detail, which }
}

/// An action on the sessions that the token at `at` selects: a name, a pattern or `all`.
fn act(action: Action, tokens: &[Token], at: usize) -> Result<Command, Refusal> {
    let which = match tokens.get(at) {
        Some(Token::Word(word)) if word == "all" => Which::All,
        _ => which(tokens, at)?,
    };
    Ok(Command::Act { action, which })
}

/// The name or pattern that the token at `at` is.
fn which(tokens: &[Token], at: usize) -> Result<Which, Refusal> {
    match tokens.get(at) {
        Some(Token::Word(name)) if name != "all" => Ok(Which::Named(name.clone())),
        Some(Token::Text(pattern)) => Ok(Which::Matching(pattern.clone())),
        Some(Token::Word(_)) | None => Err(Refusal::syntax()),
    }
}

fn tokens(line: &str) -> Result<Vec<Token>, Refusal> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        if let Some(text) = rest.strip_prefix('"') {
            let (text, after) =
                text.split_once('"').ok_or_else(|| Refusal::new(SYNTAX, "Unterminated string"))?;
            tokens.push(Token::Text(text.to_owned()));
            rest = after.trim_start();
        } else {
            let ends = |c: char| c.is_whitespace() || c == '"' || c == '#';
            let end = rest.find(ends).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            tokens.push(Token::Word(word.to_owned()));
            rest = after.trim_start();
        }
    }
    Ok(tokens)
}

/// Parses the words after `show route`, which may be in any order.
fn show_route(words: &[&str], family: Family) -> Result<ShowRoute, Refusal> {
    let mut show = ShowRoute::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut operand =
            || words.next().copied().filter(|word| *word != "\"").ok_or_else(Refusal::syntax);
        match *word {
            "all" => show.detail = Detail::All,
            "primary" => show.query.primary = true,
            "count" => show.output = Output::Count,
            "stats" => show.output = Output::RoutesAndCount,
            "protocol" => show.query.protocol = Some(operand()?.to_owned()),
            "export" => show.query.export = Some(operand()?.to_owned()),
            "table" => match operand()? {
                "master" => {}
                other => return Err(Refusal::new(SYNTAX, format!("{other} is not a table"))),
            },
            "for" => show.query.target = Target::For(destination(operand()?, family)?),
            word if word.contains('/') && show.query.target == Target::All => {
                show.query.target = Target::Exact(prefix(word, family)?);
            }
            _ => return Err(Refusal::syntax()),
        }
    }
    Ok(show)
}

/// Parses an address or a prefix.
fn destination(word: &str, family: Family) -> Result<Prefix, Refusal> {
    if word.contains('/') {
        return prefix(word, family);
    }
    match word.parse::<IpAddr>().map(Prefix::host) {
        Ok(host) if host.family() == family => Ok(host),
        _ => Err(Refusal::syntax()),
    }
}

fn prefix(word: &str, family: Family) -> Result<Prefix, Refusal> {
    let (address, length) = word.split_once('/').ok_or_else(Refusal::syntax)?;
    let address: IpAddr = address.parse().map_err(|_| Refusal::syntax())?;
    let length: u8 = length.parse().map_err(|_| Refusal::syntax())?;
    let prefix = Prefix::new(address, length);
    if prefix.family() != family {
        return Err(Refusal::syntax());
    }
    if prefix.addr() != address || prefix.len() != length {
        return Err(Refusal::new(SYNTAX, "Invalid prefix"));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, Refusal> {
        Command::parse(line, Family::Ipv4)
    }

    fn route(line: &str) -> ShowRoute {
        match parse(line) {
            Ok(Command::ShowRoute(show)) => show,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_are_parsed_as_in_bird() {
        assert_eq!(parse("show status"), Ok(Command::ShowStatus));
        assert_eq!(parse("  show \t status # why"), Ok(Command::ShowStatus));
        let named = protocols(Detail::All, Which::Named("Mesh_10_0_0_1".into()));
        assert_eq!(parse("show protocols all Mesh_10_0_0_1"), Ok(named));
        let matching = protocols(Detail::Line, Which::Matching("Mesh*".into()));
        assert_eq!(parse("show protocols \"Mesh*\""), Ok(matching));
        assert_eq!(parse("configure check"), Ok(Command::Configure(Configure::Check)));
        assert_eq!(parse("restrict"), Ok(Command::Restrict));
        let act = |action, which| Ok(Command::Act { action, which });
        let tor = || Which::Named("Global_tor".into());
        assert_eq!(parse("disable Global_tor"), act(Action::Disable, tor()));
        assert_eq!(parse("enable all"), act(Action::Enable, Which::All));
        let mesh = Which::Matching("Mesh_*".into());
        assert_eq!(parse("restart \"Mesh_*\""), act(Action::Restart, mesh));
        for (line, import, export) in [
            ("reload Global_tor", true, true),
            ("reload in Global_tor", true, false),
            ("reload out Global_tor", false, true),
        ] {
            assert_eq!(parse(line), act(Action::Reload { import, export }, tor()), "{line}");
        }
    }

    #[test]
    fn commands_that_bird_refuses_get_its_code_and_text() {
        for line in [
            "",
            "   ",
            "# x",
            "foo",
            "show",
            "SHOW status",
            "sh pr",
            "show status extra",
            "help",
            "show protocols a b",
            "show protocols all a b",
            "show route 10.0.0.0",
            "show route for",
            "show route for x",
            "show route fd00::/8",
            "show route for ::1",
            "\"show\" status",
            "show route 10.0.0.0/8 10.1.0.0/16",
            "show route protocol",
            "show route 1/2/3",
            "show route protocol \"static1\"",
            "show route table \"master\"",
            "show protocols all all",
            "restart",
            "disable a b",
            "reload in",
        ] {
            assert_eq!(parse(line), Err(Refusal::syntax()), "{line}");
        }
        let invalid = Refusal::new(SYNTAX, "Invalid prefix");
        assert_eq!(parse("show route 10.0.0.1/8"), Err(invalid.clone()));
        assert_eq!(parse("show route 10.0.0.0/33"), Err(invalid));
        assert_eq!(parse("show protocols \"x").unwrap_err().text, "Unterminated string");
    }

    #[test]
    fn words_of_show_route_may_be_in_any_order() {
        let target = Target::For("10.1.2.3/32".parse().unwrap());
        let query = RouteQuery { target, ..RouteQuery::default() };
        let wanted = ShowRoute { detail: Detail::All, query, ..ShowRoute::default() };
        assert_eq!(route("show route for 10.1.2.3 all"), wanted);
        assert_eq!(route("show route all table master for 10.1.2.3/32"), wanted);
        let query = RouteQuery {
            target: Target::Exact("10.0.0.0/8".parse().unwrap()),
            primary: true,
            protocol: Some("static1".into()),
            export: None,
        };
        let wanted = ShowRoute { output: Output::Count, query, ..ShowRoute::default() };
        assert_eq!(route("show route count protocol static1 primary 10.0.0.0/8"), wanted);
    }

    #[test]
    fn malformed_input_does_not_panic() {
        for line in
            ["\"", "\"\"", "#", "\u{0}", "show route \"x\"", "show route for 1.2.3.4/999999"]
        {
            let _ = parse(line);
        }
    }
}
