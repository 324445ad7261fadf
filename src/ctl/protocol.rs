//! Requests and replies, in their form on the socket.

use std::net::IpAddr;

use bgp_proto::table::Dump;
use bgp_proto::types::{Asn, Family, Prefix};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::announce::AnnounceOptions;
use super::probe::ProbeOptions;
use super::selection::RouteSelection;
use super::steering::{Lasts, PeerAction, Rehearsal, Selection};

/// A request of a client. Each variant names the items of its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The status of the daemon: one [`super::item::Status`].
    ShowStatus,
    /// Every peer: [`super::item::Peer`].
    ShowPeers,
    /// Every session by kind and state: one [`super::item::Overview`].
    ShowOverview,
    /// What changed in the last 15 minutes: one [`super::item::Rates`]; none unless the status page is
    /// configured, as nothing is recorded otherwise.
    ShowRates,
    /// The peers in a VRF: [`super::item::Peer`].
    ShowPeersIn {
        /// Its name.
        vrf: String,
    },
    /// One peer: one [`super::item::Peer`].
    ShowPeer {
        /// Its name or address.
        name: String,
    },
    /// The table: [`super::item::Route`].
    ShowRoutes {
        /// Only this prefix, as `select.prefix`; absent: all.
        prefix: Option<Prefix>,
        /// Which of them.
        #[serde(default, skip_serializing_if = "RouteSelection::is_all")]
        select: RouteSelection,
    },
    /// The routes received from a peer, including rejected ones: [`super::item::Route`].
    ShowReceived {
        /// The peer's name or address.
        peer: String,
        /// Which of them.
        #[serde(default, skip_serializing_if = "RouteSelection::is_all")]
        select: RouteSelection,
    },
    /// The routes advertised to a peer, as they are sent: [`super::item::Route`].
    ShowAdvertised {
        /// The peer's name or address.
        peer: String,
        /// Which of them.
        #[serde(default, skip_serializing_if = "RouteSelection::is_all")]
        select: RouteSelection,
    },
    /// The table as an MRT file (RFC 6396): [`super::item::DumpPart`].
    Dump {
        /// The VRF whose table it is; absent: the default VRF.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vrf: Option<String>,
        /// Only this family; absent: both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        family: Option<Family>,
    },
    /// Our routes in the kernel: [`super::item::FibRoute`].
    ShowFib {
        /// Which of them, by prefix, limit and count; its other fields are refused.
        #[serde(default, skip_serializing_if = "RouteSelection::is_all")]
        select: RouteSelection,
    },
    /// The update groups: [`super::item::Group`].
    ShowGroups,
    /// The next hops of paths: [`super::item::NextHop`].
    ShowNexthops {
        /// The VRF in which; absent: the default VRF.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vrf: Option<String>,
    },
    /// The BFD sessions: [`super::item::BfdSession`].
    ShowBfd,
    /// The monitoring stations: [`super::item::Station`].
    ShowBmp,
    /// The keys of TCP-AO: [`super::item::ChainKey`].
    ShowKeyChains,
    /// The results of both probes: one [`super::item::Health`].
    Health,
    /// Everything about one destination: one [`super::item::Explanation`].
    Explain {
        /// The destination.
        prefix: Prefix,
        /// Whether a less specific destination may be explained instead.
        #[serde(default, skip_serializing_if = "Lookup::is_exact")]
        lookup: Lookup,
        /// As seen from this vantage; absent: our own decision.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vantage: Option<String>,
        /// The VRF in which; absent: the default VRF.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vrf: Option<String>,
        /// Also what this peer is sent, given by name or address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
    },
    /// Returns or sets the log level: one [`super::item::LogLevel`].
    LogLevel {
        /// A level, or directives such as `info,margay::net=debug`; absent: only returns it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<String>,
    },
    /// Applies a command to sessions: one [`super::item::Steered`] for each.
    Peer {
        /// The command.
        action: PeerAction,
        /// The peers to which it applies.
        peers: Selection,
        /// Whether it is carried out or only described.
        #[serde(default, skip_serializing_if = "Rehearsal::is_real")]
        rehearsal: Rehearsal,
    },
    /// Asks neighbours to move to other paths (RFC 8326): one [`super::item::Draining`].
    Drain {
        /// The neighbours to drain. [`Selection::All`] includes those added later.
        peers: Selection,
        /// Why, for people: one line of at most 255 octets. Empty: no reason is shown.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// How long the drain lasts at most.
        #[serde(default)]
        lasts: Lasts,
    },
    /// Ends drains: one [`super::item::Draining`].
    Undrain {
        /// The neighbours to undrain. [`Selection::All`]: every drain ends, those by name included.
        peers: Selection,
    },
    /// The drains and their progress: one [`super::item::Draining`].
    ShowDrain,
    /// Announces a route until it is withdrawn, its time is over or the daemon ends: one
    /// [`super::item::Announced`]. An announcement of the same prefix is replaced.
    Announce {
        /// The prefix.
        prefix: Prefix,
        /// Where, for how long, and with which attributes.
        #[serde(default)]
        options: AnnounceOptions,
    },
    /// Withdraws announced routes: one [`super::item::Announced`] for each.
    Withdraw {
        /// The prefix; absent: every announced route of the VRF.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<Prefix>,
        /// The VRF in which; absent: the default VRF.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vrf: Option<String>,
    },
    /// The announced routes, of every VRF: [`super::item::Announced`].
    ShowAnnounced,
    /// Recent events, oldest first: [`super::item::Event`].
    Events {
        /// Only those of this peer, given by name or address; absent: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// Only the last ones; absent: as many as are kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<u32>,
        /// Whether the answer goes on with further events until the client disconnects. While there
        /// are none, it contains a [`Reply::Waiting`] from time to time.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        follow: bool,
        /// Messages of peers that are debugged instead of events. With `follow`, the answer ends when
        /// the peer is no longer debugged.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        messages: bool,
    },
    /// Logs the messages of peers for a limited time: one [`super::item::Debugged`] for each.
    Debug {
        /// The peers.
        peers: Selection,
        /// How long, at most 3600; 0 ends it.
        seconds: u64,
    },
    /// The peers whose messages are logged: [`super::item::Debugged`].
    ShowDebug,
    /// Tries what a session with a neighbour needs: one [`super::item::Probed`]. Takes up to half a
    /// minute; one probe at a time.
    Probe {
        /// Name or address of a peer, or the address of a neighbour that is not configured.
        peer: String,
        /// What differs from the session's parameters.
        #[serde(default)]
        options: ProbeOptions,
    },
    /// Reloads the configuration: one [`super::item::Reloaded`].
    Reload,
    /// Says what a reload would change: one [`super::item::Reloaded`]. A request of its own, because
    /// a daemon of an older version must refuse it: serde ignores unknown keys of a unit variant, so
    /// an option of [`Request::Reload`] would be a reload there.
    ReloadDryRun {
        /// Maximum number of routes listed for each peer; absent: 10.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<u32>,
    },
    /// Says what changed objects would do on a Calico node: one [`super::item::Reloaded`], with its
    /// `forecast`.
    CalicoDryRun {
        /// Files with objects to be added, or to take the place of those that are there.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        apply: Vec<ObjectFile>,
        /// Objects to be deleted: `KIND/NAME` or `KIND/NAMESPACE/NAME`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        delete: Vec<String>,
        /// Maximum number of routes listed for each peer; absent: 10.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<u32>,
    },
    /// Reloads the configuration, and undoes that unless it is confirmed: one [`super::item::Reloaded`].
    /// A request of its own for the same reason.
    ReloadUnconfirmed {
        /// How long to wait for the confirmation, 1-86400 s.
        seconds: u32,
    },
    /// Confirms a reload: one [`super::item::Confirmed`].
    Confirm,
    /// The configuration in force: one [`super::item::Section`] for each table of the file.
    ShowConfig,
    /// What the rules of a policy do to the routes in the tables: one [`super::item::PolicyHits`] for each
    /// place in which it is applied, and each policy of this name.
    ShowPolicy {
        /// Its name.
        name: String,
    },
    /// What a policy does to the routes to a prefix, or to one that is described:
    /// [`super::item::PolicyTest`].
    PolicyTest {
        /// Its name.
        policy: String,
        /// The prefix.
        prefix: Prefix,
        /// Only routes received from this peer, given by name or address; absent: from all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// As export to this peer applies it; absent: as import does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// A route to test that need not be in the table.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        route: Option<TestRoute>,
    },
    /// Stops the daemon: one [`super::item::Stopping`]. The connection closes when the process
    /// exits.
    Stop {
        /// Graceful restart or shutdown.
        mode: StopMode,
        /// The shutdown communication (RFC 9003): at most 255 octets, more are cut off. Only with
        /// [`StopMode::Shutdown`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

/// A file with objects of Calico and Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectFile {
    /// Its name, for faults.
    pub name: String,
    /// Its content: YAML, JSON, or a dump of etcd.
    pub text: String,
}

/// A route that a policy is tested on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TestRoute {
    /// AS_PATH, the neighbouring AS first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub as_path: Vec<Asn>,
    /// Communities of any kind, as text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// The next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
}

/// How to find the destination for a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lookup {
    /// The prefix itself.
    #[default]
    Exact,
    /// The longest destination that contains it.
    Longest,
}

impl Lookup {
    fn is_exact(&self) -> bool {
        *self == Lookup::Exact
    }
}

/// How the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopMode {
    /// Peers keep our routes (RFC 4724), and kernel routes stay.
    Graceful,
    /// Peers are notified (Cease 6/2), and our kernel routes are removed.
    Shutdown,
}

/// One line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// An item of the answer, as JSON.
    Item(Box<RawValue>),
    /// Many items of an answer about routes, if they are asked for in this form.
    Run(super::Run),
    /// There is nothing to report at present, and the answer goes on.
    Waiting {},
    /// The end of a complete answer.
    Done {
        /// The number of items in the answer.
        items: u64,
    },
    /// The end of an answer that failed.
    Error(Refusal),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// The text, for operators.
    pub text: String,
}

impl Refusal {
    /// There is no peer of this name; suggests one of `names` that is similar.
    pub fn no_peer<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let hint = did_you_mean(name, names);
        Refusal { kind: ErrorKind::NotFound, text: format!("there is no peer \"{name}\"{hint}") }
    }
    /// The line is not a valid request.
    pub fn bad_request(line: &[u8], error: &serde_json::Error) -> Self {
        #[derive(Deserialize)]
        struct Named<'a> {
            request: &'a str,
        }
        let text = match serde_json::from_slice::<Named<'_>>(line) {
            Ok(Named { request }) if !REQUESTS.contains(&request) => {
                let hint = did_you_mean(request, REQUESTS);
                format!("\"{request}\" is none of {}{hint}", REQUESTS.join(", "))
            }
            _ => format!("not a request: {error}"),
        };
        Refusal { kind: ErrorKind::BadRequest, text }
    }
    /// The configuration is invalid; nothing was changed.
    pub fn configuration(text: String) -> Self {
        Refusal { kind: ErrorKind::Configuration, text }
    }
    /// The request failed for another reason.
    pub fn failed(text: impl Into<String>) -> Self {
        Refusal { kind: ErrorKind::Failed, text: text.into() }
    }
}

/// The names of requests.
const REQUESTS: [&str; 39] = [
    "show-status",
    "show-peers",
    "show-overview",
    "show-rates",
    "show-peers-in",
    "show-peer",
    "show-routes",
    "show-received",
    "show-advertised",
    "dump",
    "show-fib",
    "show-groups",
    "show-nexthops",
    "show-key-chains",
    "show-bfd",
    "show-bmp",
    "health",
    "explain",
    "log-level",
    "peer",
    "drain",
    "undrain",
    "show-drain",
    "announce",
    "withdraw",
    "show-announced",
    "events",
    "debug",
    "show-debug",
    "probe",
    "reload",
    "reload-dry-run",
    "calico-dry-run",
    "reload-unconfirmed",
    "confirm",
    "show-config",
    "show-policy",
    "policy-test",
    "stop",
];

/// Least similarity of two names (Jaro-Winkler, 0-1) for a suggestion.
const ALIKE: f64 = 0.8;

/// Returns `; did you mean "…"?` if one of the names is similar enough, else an empty text.
fn did_you_mean<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let name = name.to_lowercase();
    let nearest = names
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    nearest.map(|(_, known)| format!("; did you mean \"{known}\"?")).unwrap_or_default()
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The line is not a valid request.
    BadRequest,
    /// The peer or destination does not exist.
    NotFound,
    /// The configuration file is invalid; nothing was changed.
    Configuration,
    /// The socket is read-only, and the request may change something.
    Forbidden,
    /// Any other reason.
    Failed,
}

/// Where the next page of an answer begins. Opaque to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// At this position.
    Index(u32),
    /// After this prefix.
    After(Prefix),
    /// After this address.
    AfterAddress(IpAddr),
    /// After this many of these prefixes.
    Prefixes(super::PrefixCursor),
    /// After an event.
    Events(EventCursor),
    /// After this name.
    AfterName(std::sync::Arc<str>),
    /// Where a dump is.
    Dump(Box<Dump>),
}

/// A position in the list of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCursor {
    /// The number of the last event that was considered.
    pub after: u64,
    /// The number of the last event when the first page was made.
    pub began: u64,
    /// The name of the peer whose events are listed; `None`: all. It may have been removed since the
    /// first page.
    pub peer: Option<std::sync::Arc<str>>,
}

/// A page of an answer, in the form in which it is sent: items are serialised once.
#[derive(Debug, Default)]
pub struct Page {
    /// A [`Reply::Item`] on each line.
    lines: Vec<u8>,
    items: u64,
    next: Option<Cursor>,
}

impl Page {
    /// The last page of an answer, with these items.
    ///
    /// # Errors
    /// An item cannot be serialised as JSON.
    pub fn last<T: Serialize>(items: impl IntoIterator<Item = T>) -> Result<Self, Refusal> {
        Page::new(items, None)
    }

    /// A page with these items; `next` is where the next one begins, `None` if this is the last.
    ///
    /// # Errors
    /// An item cannot be serialised as JSON.
    pub fn new<T: Serialize>(
        items: impl IntoIterator<Item = T>,
        next: Option<Cursor>,
    ) -> Result<Self, Refusal> {
        let mut page = Page { next, ..Page::default() };
        items.into_iter().try_for_each(|item| page.push(&item))?;
        Ok(page)
    }

    /// Adds an item.
    ///
    /// # Errors
    /// It cannot be serialised as JSON.
    pub(super) fn push(&mut self, item: &impl Serialize) -> Result<(), Refusal> {
        self.lines.extend_from_slice(ITEM_BEGINS);
        serde_json::to_writer(&mut self.lines, item).map_err(|e| unwritable(&e))?;
        self.lines.extend_from_slice(ITEM_ENDS);
        self.items += 1;
        Ok(())
    }

    /// The items, as JSON.
    pub fn items(&self) -> impl Iterator<Item = &str> {
        self.lines.split_inclusive(|octet| *octet == b'\n').filter_map(item_of)
    }

    /// Adds lines that are this many items; `reserved` is about how many octets they are.
    pub(super) fn write(
        &mut self,
        items: usize,
        reserved: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.lines.reserve(reserved);
        write(&mut self.lines);
        self.items += items as u64;
    }

    /// Its lines, how many items they are, and where the next page begins.
    pub(super) fn into_parts(self) -> (Vec<u8>, u64, Option<Cursor>) {
        (self.lines, self.items, self.next)
    }
}

/// What is before an item on the line of a [`Reply::Item`].
const ITEM_BEGINS: &[u8] = b"{\"item\":";
/// What is after it.
const ITEM_ENDS: &[u8] = b"}\n";

/// The item on a line, if the line has the form in which [`Page`] writes it; other lines are any
/// [`Reply`]. Reading a long list as `Reply` would parse every item once more.
pub fn item_of(line: &[u8]) -> Option<&str> {
    let item = line.strip_prefix(ITEM_BEGINS)?.strip_suffix(ITEM_ENDS)?;
    std::str::from_utf8(item).ok()
}

pub(super) fn unwritable(error: &serde_json::Error) -> Refusal {
    Refusal::failed(format!("cannot write the answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::Span;

    #[test]
    fn requests_keep_their_form() {
        let prefix: Prefix = "10.0.0.0/8".parse().unwrap();
        for (request, json) in [
            (Request::ShowStatus, r#"{"request":"show-status"}"#),
            (Request::Health, r#"{"request":"health"}"#),
            (Request::Reload, r#"{"request":"reload"}"#),
            (Request::ReloadDryRun { list: None }, r#"{"request":"reload-dry-run"}"#),
            (
                Request::ReloadDryRun { list: Some(100) },
                r#"{"request":"reload-dry-run","list":100}"#,
            ),
            (
                Request::CalicoDryRun {
                    apply: vec![ObjectFile { name: "a".into(), text: "{}".into() }],
                    delete: vec!["BGPPeer/tor".into()],
                    list: None,
                },
                r#"{"request":"calico-dry-run","apply":[{"name":"a","text":"{}"}],"delete":["BGPPeer/tor"]}"#,
            ),
            (
                Request::ShowRoutes { prefix: Some(prefix), select: RouteSelection::default() },
                r#"{"request":"show-routes","prefix":"10.0.0.0/8"}"#,
            ),
            (
                Request::ShowReceived { peer: "a".into(), select: RouteSelection::default() },
                r#"{"request":"show-received","peer":"a"}"#,
            ),
            (
                Request::ShowRoutes {
                    prefix: Some(prefix),
                    select: RouteSelection {
                        span: Span::Longer,
                        count: true,
                        ..Default::default()
                    },
                },
                r#"{"request":"show-routes","prefix":"10.0.0.0/8","select":{"span":"longer","count":true}}"#,
            ),
            (
                Request::Explain {
                    prefix,
                    lookup: Lookup::Exact,
                    vantage: None,
                    vrf: None,
                    peer: None,
                },
                r#"{"request":"explain","prefix":"10.0.0.0/8"}"#,
            ),
            (
                Request::Explain {
                    prefix,
                    lookup: Lookup::Longest,
                    vantage: Some("zone-a".into()),
                    vrf: Some("blue".into()),
                    peer: None,
                },
                r#"{"request":"explain","prefix":"10.0.0.0/8","lookup":"longest","vantage":"zone-a","vrf":"blue"}"#,
            ),
            (
                Request::PolicyTest {
                    policy: "out".into(),
                    prefix,
                    peer: None,
                    to: Some("tor".into()),
                    route: Some(TestRoute { med: Some(7), ..TestRoute::default() }),
                },
                r#"{"request":"policy-test","policy":"out","prefix":"10.0.0.0/8","to":"tor","route":{"med":7}}"#,
            ),
            (
                Request::ReloadUnconfirmed { seconds: 60 },
                r#"{"request":"reload-unconfirmed","seconds":60}"#,
            ),
            (
                Request::Probe { peer: "a".into(), options: ProbeOptions::default() },
                r#"{"request":"probe","peer":"a","options":{}}"#,
            ),
            (
                Request::Dump { vrf: Some("blue".into()), family: Some(Family::Ipv6) },
                r#"{"request":"dump","vrf":"blue","family":"ipv6"}"#,
            ),
            (Request::LogLevel { level: None }, r#"{"request":"log-level"}"#),
            (
                Request::Events { peer: None, last: None, follow: false, messages: false },
                r#"{"request":"events"}"#,
            ),
            (
                Request::Events {
                    peer: Some("a".into()),
                    last: Some(9),
                    follow: true,
                    messages: false,
                },
                r#"{"request":"events","peer":"a","last":9,"follow":true}"#,
            ),
            (
                Request::Drain { peers: Selection::All, reason: "disk".into(), lasts: Lasts::Boot },
                r#"{"request":"drain","peers":"all","reason":"disk","lasts":"boot"}"#,
            ),
            (
                Request::Undrain { peers: Selection::Named(vec!["a".into()]) },
                r#"{"request":"undrain","peers":{"named":["a"]}}"#,
            ),
            (
                Request::Stop { mode: StopMode::Graceful, message: None },
                r#"{"request":"stop","mode":"graceful"}"#,
            ),
            (
                Request::Stop { mode: StopMode::Shutdown, message: Some("disk".into()) },
                r#"{"request":"stop","mode":"shutdown","message":"disk"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), json);
            assert_eq!(serde_json::from_str::<Request>(json).unwrap(), request);
        }
        let all: Request = serde_json::from_str(r#"{"request":"show-routes"}"#).unwrap();
        let select = RouteSelection::default();
        assert_eq!(all, Request::ShowRoutes { prefix: None, select }, "absent is null");
        for bad in [r#"{"request":"show"}"#, r#"{"request":"explain","prefix":"10.0.0.1/8"}"#] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn similar_names_are_suggested() {
        let text = |name: &str| Refusal::no_peer(name, ["tor-1", "reflector"]).text;
        assert_eq!(text("tor1"), "there is no peer \"tor1\"; did you mean \"tor-1\"?");
        assert_eq!(
            text("Reflektor"),
            "there is no peer \"Reflektor\"; did you mean \"reflector\"?"
        );
        assert_eq!(text("zzz"), "there is no peer \"zzz\"");
        let refused = |line: &str| {
            let error = serde_json::from_str::<Request>(line).unwrap_err();
            Refusal::bad_request(line.as_bytes(), &error).text
        };
        let text = refused(r#"{"request":"show-peer","nam":"x"}"#);
        assert!(text.starts_with("not a request: unknown field"), "{text}");
        let text = refused(r#"{"request":"show-route"}"#);
        assert!(text.starts_with("\"show-route\" is none of show-status, "), "{text}");
        assert!(text.ends_with("; did you mean \"show-routes\"?"), "{text}");
    }

    #[test]
    fn every_request_is_listed() {
        for name in REQUESTS {
            let error = serde_json::from_str::<Request>(&format!("{{\"request\":\"{name}\"}}"));
            assert!(
                error.err().is_none_or(|e| !e.to_string().contains("unknown variant")),
                "{name}"
            );
        }
        let unknown =
            serde_json::from_str::<Request>(r#"{"request":"x"}"#).unwrap_err().to_string();
        assert_eq!(unknown.matches('`').count() / 2 - 1, REQUESTS.len(), "{unknown}");
    }

    #[test]
    fn replies_keep_their_form() {
        let page = Page::last([[1, 2]]).unwrap();
        let (lines, items, next) = page.into_parts();
        assert_eq!((&lines[..], items, next), (&b"{\"item\":[1,2]}\n"[..], 1, None));
        assert_eq!(item_of(&lines), Some("[1,2]"));
        let page = Page::last(["a\nb", "c"]).unwrap();
        assert_eq!(page.items().collect::<Vec<_>>(), [r#""a\nb""#, r#""c""#]);
        let reply: Reply = serde_json::from_slice(&lines).unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"item":[1,2]}"#);
        assert_eq!(item_of(b"{\"done\":{\"items\":3}}\n"), None);
        let reply: Reply = serde_json::from_str(r#"{"item":{"b": 1, "a": 2}}"#).unwrap();
        let Reply::Item(item) = reply else { panic!("{reply:?}") };
        assert_eq!(item.get(), r#"{"b": 1, "a": 2}"#, "keys stay in order");
        let error = Reply::Error(Refusal::no_peer("x", ["tor-1"]));
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":{"kind":"not-found","text":"there is no peer \"x\""}}"#
        );
        assert_eq!(
            serde_json::to_string(&Reply::Done { items: 3 }).unwrap(),
            r#"{"done":{"items":3}}"#
        );
    }
}
