//! `[http]`: metrics, health and the status page.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::reader::{Table, Value};

/// Fewest octets of a token: fewer can be guessed.
const TOKEN_LEN_MIN: usize = 16;
/// Most octets of a token.
const TOKEN_LEN_MAX: usize = 256;
/// Most host names.
const HOST_NAMES_MAX: usize = 32;

/// How metrics and health are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Address and port to serve on.
    pub listen: SocketAddr,
    /// Which peers have their own metric series.
    pub peers: PeerSeries,
    /// The status page; `None`, the default: not served.
    pub page: Option<Arc<PageSettings>>,
}

impl HttpSettings {
    /// Serves on `listen`, with defaults for everything else.
    pub fn at(listen: SocketAddr) -> Self {
        HttpSettings { listen, peers: PeerSeries::default(), page: None }
    }

    /// What is in force after a change to `new`, until a restart: the running address is served on. A page
    /// is for the address that it was configured with, since another may be reached by others.
    pub fn until_restart(
        new: Option<&HttpSettings>,
        running: Option<&HttpSettings>,
    ) -> Option<HttpSettings> {
        let running = running?;
        Some(match new {
            Some(new) if new.listen == running.listen => new.clone(),
            Some(new) => HttpSettings { peers: new.peers, ..running.clone() },
            None => running.clone(),
        })
    }
}

/// Who may see the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSettings {
    /// What a client has to present as a bearer token (RFC 6750). `None`, which is refused unless the
    /// page is served on a loopback address: anybody who can connect sees it.
    pub token: Option<Token>,
    /// Names by which the page may be asked for, lower case, beside any address and `localhost`: a
    /// name that an attacker has pointed at the address (DNS rebinding) is none of them.
    pub host_names: Vec<Box<str>>,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Whether `presented` is this token. Takes as long for each of the same length.
    pub fn is(&self, presented: &[u8]) -> bool {
        let pairs = self.0.iter().zip(presented);
        let differing = pairs.fold(0, |differing, (own, other)| differing | (own ^ other));
        self.0.len() == presented.len() && differing == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
impl From<&str> for Token {
    fn from(text: &str) -> Token {
        Token(text.as_bytes().into())
    }
}

/// Which peers have their own metric series. Everything is also counted for the process, by kind of
/// session, by family and by group. With series for every peer, a mesh of n nodes would have n²
/// series of each metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSeries {
    /// The rule. Default [`PeerChoice::Auto`].
    pub choice: PeerChoice,
    /// Most peers with series under `auto` and `all`, 1-10000. Default 64.
    pub max: u32,
    /// Number of peers with series under `top`, and under `auto` with more than `max` peers,
    /// 1-1000. Default 10.
    pub top: u32,
}

impl Default for PeerSeries {
    fn default() -> Self {
        PeerSeries { choice: PeerChoice::Auto, max: 64, top: 10 }
    }
}

/// The rule of [`PeerSeries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerChoice {
    /// All peers if there are at most `max`, else like [`PeerChoice::Top`].
    Auto,
    /// No peer has its own series.
    None,
    /// The `top` peers whose routes and sessions change most.
    Top,
    /// All peers; with more than `max`, those that change most.
    All,
}

pub(super) fn read(root: &Table<'_>, folder: &Path) -> Option<HttpSettings> {
    let table = root.get("http")?.table()?;
    let listen = table.require("listen", "write listen = \"127.0.0.1:9479\"").and_then(|value| {
        let address: SocketAddr =
            value.parse_as("an address and port such as \"127.0.0.1:9479\"")?;
        if address.port() == 0 {
            value.fault("port 0 is not a port", "use 1-65535, for example 9479");
        }
        Some(address)
    });
    let peers = read_series(&table);
    let page = read_page(&table, folder, listen);
    table.finish();
    listen.map(|listen| HttpSettings { listen, peers, page: page.map(Arc::new) })
}

fn read_series(table: &Table<'_>) -> PeerSeries {
    let choices = [
        ("auto", PeerChoice::Auto),
        ("none", PeerChoice::None),
        ("top", PeerChoice::Top),
        ("all", PeerChoice::All),
    ];
    let PeerSeries { choice, max, top } = PeerSeries::default();
    let number = |key, range, default| {
        table.get(key).and_then(|value| value.integer(range)).unwrap_or(default)
    };
    PeerSeries {
        choice: table.get("peer-series").and_then(|v| v.choice(&choices)).unwrap_or(choice),
        max: number("peer-series-max", 1..=10_000, max),
        top: number("peer-series-top", 1..=1000, top),
    }
}

fn read_page(table: &Table<'_>, folder: &Path, listen: Option<SocketAddr>) -> Option<PageSettings> {
    let wanted = table.get("status-page");
    let file = table.get("token-file");
    let names = table.get("host-names");
    if !wanted.as_ref().and_then(Value::boolean).unwrap_or(false) {
        for value in file.iter().chain(&names) {
            value
                .fault_key("is for the status page only", "write status-page = true, or delete it");
        }
        return None;
    }
    let has_file = file.is_some();
    let token = file.and_then(|value| read_token(&value, folder));
    if let (Some(address), false, Some(wanted)) = (listen, has_file, &wanted)
        && !is_loopback(address.ip())
    {
        wanted.fault(
            format_args!("would show this node to anybody who can connect to {address}"),
            "name a file with a token (token-file), or listen on 127.0.0.1 or [::1]",
        );
    }
    let host_names: Vec<_> = names.iter().flat_map(|value| value.read_list(read_name)).collect();
    if let Some(names) = names.filter(|_| host_names.len() > HOST_NAMES_MAX) {
        names.fault(format_args!("has {} names", host_names.len()), "use at most 32");
    }
    Some(PageSettings { token, host_names })
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn read_token(value: &Value<'_>, folder: &Path) -> Option<Token> {
    let path = folder.join(value.text()?);
    let line = match value.read_secret(&path) {
        Ok(line) => line,
        Err(error) => {
            let what = format_args!("{} cannot be read: {error}", path.display());
            value.fault(what, "name a readable file that holds the token");
            return None;
        }
    };
    if !line.iter().all(u8::is_ascii_graphic) {
        let what = format_args!("{} holds more than one word of ASCII", path.display());
        value.fault(what, "write one token, for example from openssl rand -hex 32");
    } else if !(TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&line.len()) {
        let what = format_args!("{} holds {} octets", path.display(), line.len());
        value.fault(what, "use 16-256, for example from openssl rand -hex 32");
    }
    Some(Token(line.into()))
}

fn read_name(value: &Value<'_>) -> Option<Box<str>> {
    let name = value.text()?;
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 253 || !name.chars().all(is_of_name) {
        let what = format_args!("\"{}\" is not a host name", name.escape_debug());
        value.fault(what, "write a name without scheme and port, such as \"node-1.example\"");
        return None;
    }
    Some(name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Errors};
    use super::*;

    const OWN: &str = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n";

    fn parse(folder: &Path, http: &str) -> Result<Option<HttpSettings>, Errors> {
        let config = Config::parse(&folder.join("m.toml"), &format!("{OWN}[http]\n{http}"))?;
        Ok(config.host.http)
    }

    #[test]
    fn a_page_that_others_can_reach_needs_a_token() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
        let page = |http: &str| parse(folder.path(), http).map(|http| http.unwrap().page);
        for address in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            let http = format!("listen = \"{address}:9479\"\nstatus-page = true\n");
            assert_eq!(page(&http).unwrap().unwrap().token, None, "{address}");
        }
        for address in ["0.0.0.0", "[::]", "192.0.2.1", "[::ffff:192.0.2.1]"] {
            let http = format!("listen = \"{address}:9479\"\nstatus-page = true\n");
            let error = page(&http).unwrap_err().to_string();
            assert!(error.contains("http.status-page: would show this node"), "{error}");
            assert!(error.contains("token-file"), "{error}");
            let http = format!("{http}token-file = \"token\"\n");
            let token = page(&http).unwrap().unwrap().token.clone().unwrap();
            assert!(token.is(b"0123456789abcdef"));
            assert!(!format!("{token:?}").contains("0123"), "hidden");
        }
        assert_eq!(page("listen = \"0.0.0.0:9479\"\n").unwrap(), None, "off unless configured");
    }

    #[test]
    fn faults_name_the_key_and_never_the_token() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("short"), "s3cret").unwrap();
        std::fs::write(folder.path().join("words"), "s3cret of many words").unwrap();
        let on = "listen = \"127.0.0.1:9479\"\nstatus-page = true\n";
        for (http, said) in [
            (format!("{on}token-file = \"none\""), "http.token-file: "),
            (format!("{on}token-file = \"short\""), "holds 6 octets"),
            (format!("{on}token-file = \"words\""), "more than one word"),
            (format!("{on}host-names = [\"http://a\"]"), "http.host-names[1]: "),
            ("listen = \"[::1]:1\"\nhost-names = \"a\"".into(), "is for the status page only"),
            ("listen = \"[::1]:1\"\ntoken-file = \"short\"".into(), "is for the status page only"),
        ] {
            let error = parse(folder.path(), &http).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("s3cret"), "{http}: {error}");
        }
        let page = parse(folder.path(), &format!("{on}host-names = [\"A.example\"]")).unwrap();
        assert_eq!(page.unwrap().page.unwrap().host_names, ["a.example".into()]);
    }

    /// A page that was configured for a loopback address must not appear on another one, on which margay
    /// listens until it restarts.
    #[test]
    fn a_reload_changes_the_page_of_the_address_that_is_served() {
        let config = |http: &str| {
            Config::parse(Path::new("m.toml"), &format!("{OWN}[http]\n{http}")).unwrap()
        };
        let running = config("listen = \"192.0.2.1:9479\"\n");
        let mut elsewhere = config("listen = \"127.0.0.1:9479\"\nstatus-page = true\n");
        assert!(!running.changes_to(&elsewhere).status_page_changed);
        elsewhere.keep_until_restart(&running);
        assert_eq!(elsewhere.host.http, running.host.http);
        let running = config("listen = \"127.0.0.1:9479\"\n");
        let mut with_page = config("listen = \"127.0.0.1:9479\"\nstatus-page = true\n");
        assert!(running.changes_to(&with_page).status_page_changed);
        with_page.keep_until_restart(&running);
        assert!(with_page.host.http.unwrap().page.is_some());
    }

    #[test]
    fn a_token_is_compared_as_a_whole() {
        let token = Token::from("0123456789abcdef");
        assert!(token.is(b"0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
    }
}
