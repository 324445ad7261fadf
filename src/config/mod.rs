//! Configuration: TOML to one immutable [`Config`].
//!
//! Read, parse, validate: [`Document::load`] does all three and starts nothing. What comes out is
//! complete: every default is applied, every policy name is resolved, every password file is read.
//! What is wrong is reported together, each as `FILE:LINE:COL: KEY: what is wrong; remedy`.
//!
//! With `[calico]` the file says only where the objects are that a configuration follows from.
//!
//! [`Config::changes_to`] is the difference between two configurations as a reload must apply it.
//!
//! Not here: acting on any of it. Dependencies: `bgp_proto` only.

mod bfd;
mod bgp;
mod calico;
mod changes;
mod error;
mod host;
mod local;
mod password;
mod peer;
mod policy;
mod reader;
mod summary;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bgp_proto::policy::Policy;
use bgp_proto::rib::ViaDefault;
use bgp_proto::session::{LocalIdentity, PeerConfig};
use bgp_proto::table::{PeerRoutes, TableConfig};
use bgp_proto::types::{Asn, ClusterId, FibKind, Prefix, RouterId};
use bgp_proto::wire::Origin;

pub use bfd::{BfdHops, BfdPlace, BfdSettings, BfdTemplate};
pub use calico::{
    CalicoDatastore, CalicoEtcd, CalicoKubernetes, CalicoLimits, CalicoSettings, StateFile,
};
pub use changes::{Changes, DynamicChanges, differing_peers};
pub use error::{Error, Errors};
pub use local::KernelRoute;
pub(crate) use reader::closest;

use reader::{Parsed, Table};

/// Everything that the daemon runs by.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who we are and where we listen.
    pub bgp: BgpConfig,
    /// Peers with an address, in the order of the file.
    pub peers: Vec<PeerEntry>,
    /// Ranges that peers may connect from, in the order of the file.
    pub dynamic: Vec<DynamicPeers>,
    /// What the table needs.
    pub table: Arc<TableConfig>,
    /// Routes of our own, in the order of the file.
    pub originate: Vec<Originate>,
    /// Which of the kernel's routes we announce. The first rule that selects a route decides.
    pub redistribute: Vec<Redistribute>,
    /// Host routes of our own to neighbours, in no particular order, each destination once.
    pub host_routes: Vec<HostRoute>,
    /// Where our routes go in the kernel.
    pub fib: FibSettings,
    /// What concerns this machine only.
    pub host: HostSettings,
}

/// What concerns this machine only: it never follows from objects that others wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// The control socket.
    pub control: ControlSettings,
    /// Metrics and health; `None`, the default: not served.
    pub http: Option<HttpSettings>,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// How metrics and health are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Address and port to serve on.
    pub listen: SocketAddr,
    /// Which peers have metrics of their own.
    pub peers: PeerSeries,
}

impl HttpSettings {
    /// With every default.
    pub fn at(listen: SocketAddr) -> Self {
        HttpSettings { listen, peers: PeerSeries::default() }
    }
}

/// Which peers have metrics of their own. Everything is counted by process, kind of session, family
/// and group besides; a mesh of n nodes would have n² series of each metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSeries {
    /// The rule. Default [`PeerChoice::Auto`].
    pub choice: PeerChoice,
    /// Most peers that `auto` and `all` show, 1-10000. Default 64.
    pub max: u32,
    /// Peers that `top`, and `auto` beyond `max`, show, 1-1000. Default 10.
    pub top: u32,
}

impl Default for PeerSeries {
    fn default() -> Self {
        PeerSeries { choice: PeerChoice::Auto, max: 64, top: 10 }
    }
}

/// See [`PeerSeries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerChoice {
    /// All of them if there are at most `max`, else as [`PeerChoice::Top`].
    Auto,
    /// No peer has series of its own.
    None,
    /// The `top` whose routes and sessions change most.
    Top,
    /// All; beyond `max` those that change most.
    All,
}

/// A route of our own to a neighbour that is not on a network of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// The neighbour.
    pub destination: IpAddr,
    /// Where its packets go; the route is active while this is on a network of ours.
    pub gateway: IpAddr,
}

/// What a configuration file asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// What to run is in the file.
    Own(Box<Config>),
    /// What to run follows from Calico's objects.
    Calico {
        /// Whose, and where they are.
        calico: Box<CalicoSettings>,
        /// The rest of the file.
        host: Box<HostSettings>,
    },
}

/// Who we are and where we listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpConfig {
    /// AS number and BGP Identifier.
    pub identity: LocalIdentity,
    /// Our route reflection cluster. Default: the BGP Identifier.
    pub cluster_id: ClusterId,
    /// Where connections are accepted. Default `0.0.0.0:179` and `[::]:179`; empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// Update groups at most, 1-100000. Default 4096.
    pub groups_max: usize,
    /// Octets that all routes may hold. `None`, the default: no limit.
    pub memory_max: Option<u64>,
}

/// What ends a session whose link or local address was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallover {
    /// That, at once.
    Fast,
    /// The hold time.
    #[default]
    Timers,
}

/// A peer with an address.
#[derive(Clone, Debug)]
pub struct PeerEntry {
    /// Unique. Default: the address.
    pub name: Arc<str>,
    /// A change restarts the session.
    pub session: Arc<PeerConfig>,
    /// A change never restarts the session.
    pub routes: Arc<PeerRoutes>,
    /// BFD beside the session; `None`, the default: none. A change never restarts the session.
    pub bfd: Option<Arc<BfdSettings>>,
    /// Whether the session ends with the link or the address that it uses. Default: external
    /// neighbours on a link of ours.
    pub fallover: Fallover,
}

impl PartialEq for PeerEntry {
    /// By content, which is quick for parts that stayed where they are in memory.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && changes::is_same(&self.session, &other.session)
            && changes::is_same(&self.routes, &other.routes)
            && self.bfd == other.bfd
            && self.fallover == other.fallover
    }
}

/// A range of addresses that peers may connect from. We never dial into it. An address that is a
/// peer of its own is that peer; of several ranges that cover an address the longest one counts.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicPeers {
    /// The range.
    pub prefix: Prefix,
    /// Most peers at once, 1-1000000. Default 1000.
    pub peers_max: u32,
    /// The given name; `None`: peers are named by address alone.
    pub name: Option<Arc<str>>,
    /// Session parameters; `address` is the network address of the range.
    pub session: Arc<PeerConfig>,
    /// Routing parameters; `name` is that of the range.
    pub routes: Arc<PeerRoutes>,
    /// BFD beside each session; `None`, the default: none.
    pub bfd: Option<Arc<BfdSettings>>,
    /// Whether sessions end with the link or the address that they use.
    pub fallover: Fallover,
}

impl DynamicPeers {
    /// The peer at `address`, which lies in the range. Named `NAME-ADDRESS`, or `ADDRESS`.
    pub fn peer(&self, address: IpAddr) -> PeerEntry {
        let name: Arc<str> = match &self.name {
            Some(name) => format!("{name}-{address}").into(),
            None => address.to_string().into(),
        };
        PeerEntry {
            session: Arc::new(PeerConfig { address, ..PeerConfig::clone(&self.session) }),
            routes: Arc::new(PeerRoutes {
                name: Arc::clone(&name),
                ..PeerRoutes::clone(&self.routes)
            }),
            bfd: self.bfd.clone(),
            fallover: self.fallover,
            name,
        }
    }
}

/// A route of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Originate {
    /// Destination.
    pub prefix: Prefix,
    /// What the kernel holds for it: blackhole (default), unreachable, or nothing.
    pub install: Option<FibKind>,
}

/// Where redistributed routes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedistributeFrom {
    /// Routes that something else installed in the kernel.
    Kernel,
    /// The networks of our interfaces' addresses.
    Connected,
}

/// A rule that selects local routes to announce.
#[derive(Clone, Debug, PartialEq)]
pub struct Redistribute {
    /// Where the routes come from.
    pub from: RedistributeFrom,
    /// rtm_protocol numbers; empty: every one but unspec, redirect and kernel.
    pub protocols: Vec<u8>,
    /// Interface globs in order, the first that matches decides, `-` in front excludes; empty: any.
    pub interfaces: Vec<String>,
    /// Equal to or inside one of these; empty: any.
    pub prefixes: Vec<Prefix>,
    /// ORIGIN of what is announced. Default incomplete.
    pub origin: Origin,
    /// Applied to what the rule selects; `None`: all of it, unchanged.
    pub policy: Option<Arc<Policy>>,
}

/// Where our routes go in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibSettings {
    /// Whether routes are written at all. Default true; false on a route reflector.
    pub enabled: bool,
    /// Routing table. Default 254 (main).
    pub table: u32,
    /// rtm_protocol, 5-255. Default 12 (bird). Every route in the table with this number is ours.
    pub protocol: u8,
    /// Metric of routes that bring none. `None`, the default: 20 for IPv4 and 1044 for IPv6, which
    /// is 20 behind what the kernel gives a route without a metric (0 and 1024). IPv6 turns 0 into
    /// 1024.
    pub metric: Option<u32>,
    /// Most hops of an ECMP route, 1-256. Default 16.
    pub multipath_max: usize,
    /// For paths of which peers the default route counts as a way to the next hop.
    pub via_default: ViaDefault,
    /// Whether next hops may be reached over routes of ours that rest on links alone: BGP routes
    /// whose own next hop is on a link, and originated ones that drop packets. Default true.
    pub resolve_over_bgp: bool,
    /// Whether routes go over next-hop objects of ours. Default false.
    pub next_hop_objects: bool,
    /// Source address of packets from this machine, per family. Default: the kernel's choice.
    pub source_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source_v6: Option<Ipv6Addr>,
}

impl Default for FibSettings {
    fn default() -> Self {
        FibSettings {
            enabled: true,
            table: 254,
            protocol: 12,
            metric: None,
            multipath_max: 16,
            via_default: ViaDefault::Internal,
            resolve_over_bgp: true,
            next_hop_objects: false,
            source_v4: None,
            source_v6: None,
        }
    }
}

impl FibSettings {
    /// On a Calico node: what BIRD does there.
    ///
    /// Differs from BIRD: a next hop inside a block is reached as the block is; there it is
    /// unreachable.
    pub fn calico() -> FibSettings {
        FibSettings { metric: Some(0), via_default: ViaDefault::Always, ..FibSettings::default() }
    }

    /// The table's parameters: what these settings say of it, and every other default.
    pub fn table_config(&self, identity: &LocalIdentity) -> TableConfig {
        TableConfig {
            multipath_max: self.multipath_max,
            via_default: self.via_default,
            fib_enabled: self.enabled,
            ..TableConfig::new(identity.asn, identity.router_id)
        }
    }
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// Its path. Default [`ControlSettings::DEFAULT_SOCKET`].
    pub socket: PathBuf,
    /// Where BIRD's control protocol is spoken. `None`: nobody said; that is nowhere, and on a
    /// Calico node [`BirdSockets::Calico`].
    pub bird_sockets: Option<BirdSockets>,
}

/// Where BIRD's control protocol is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BirdSockets {
    /// BIRD's protocol is not served.
    Off,
    /// At [`BirdPaths::calico`]. Where the sockets cannot be made there is none, and one line says
    /// so; one that another process answers at is an error all the same.
    Calico,
    /// At these, or the daemon does not start.
    At(BirdPaths),
}

impl BirdSockets {
    /// The paths, if there are to be any.
    pub fn paths(&self) -> Option<BirdPaths> {
        match self {
            BirdSockets::Off => None,
            BirdSockets::Calico => Some(BirdPaths::calico()),
            BirdSockets::At(paths) => Some(paths.clone()),
        }
    }
}

/// One socket for each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BirdPaths {
    /// `bird.ctl`: IPv4.
    pub ipv4: PathBuf,
    /// `bird6.ctl`: IPv6.
    pub ipv6: PathBuf,
}

impl BirdPaths {
    /// Where calico-node's probes, calicoctl and CalicoNodeStatus ask:
    /// `/var/run/calico/bird.ctl` and `/var/run/calico/bird6.ctl`.
    pub fn calico() -> Self {
        BirdPaths {
            ipv4: "/var/run/calico/bird.ctl".into(),
            ipv6: "/var/run/calico/bird6.ctl".into(),
        }
    }
}

impl ControlSettings {
    /// The default path.
    pub const DEFAULT_SOCKET: &'static str = "/run/margay/margay.sock";
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least severe level that is logged. Default info.
    pub level: LogLevel,
    /// One line of text (default) or one JSON object for each event.
    pub format: LogFormat,
}

/// How severe an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As the configuration spells it, and as `tracing` parses it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl Config {
    /// Speaks with nobody and leaves the kernel as it is: what runs on a Calico node while it is not
    /// known yet what to run.
    pub fn idle(host: HostSettings) -> Config {
        let identity = LocalIdentity { asn: Asn(0), router_id: RouterId(0) };
        let fib = FibSettings::calico();
        let table = fib.table_config(&identity);
        Config {
            bgp: BgpConfig {
                identity,
                cluster_id: ClusterId(0),
                listen: Vec::new(),
                groups_max: bgp::GROUPS_MAX,
                memory_max: None,
            },
            peers: Vec::new(),
            dynamic: Vec::new(),
            table: Arc::new(table),
            originate: Vec::new(),
            redistribute: Vec::new(),
            host_routes: Vec::new(),
            fib,
            host,
        }
    }
}

#[cfg(test)]
impl Config {
    /// What a text without `[calico]` says.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Config, Errors> {
        match Document::parse(path, text)? {
            Document::Own(config) => Ok(*config),
            Document::Calico { .. } => panic!("[calico] in {text}"),
        }
    }
}

impl Document {
    /// Reads, parses and validates a file, and the password files that it names.
    ///
    /// # Errors
    /// Everything that is wrong, sorted by place. Values of password keys are never part of it.
    pub fn load(path: &Path) -> Result<Document, Errors> {
        let octets = std::fs::read(path).map_err(|e| Errors::unreadable(path, &e))?;
        let text = String::from_utf8(octets).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..valid].iter().filter(|o| **o == b'\n').count() + 1;
            Errors::not_text(path, line)
        })?;
        Document::parse(path, &text)
    }

    /// As [`Document::load`], from text. `path` stands in errors, and files that the text names are
    /// relative to its folder.
    ///
    /// # Errors
    /// See [`Document::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Document, Errors> {
        let parsed = Parsed::parse(path, text);
        let base = path.parent().unwrap_or(Path::new(""));
        let document = parsed.root().and_then(|root| {
            let document = if root.get("calico").is_some() {
                let calico = calico::read(&root, base);
                let mut host = read_host(&root);
                calico.map(|(calico, bird_sockets)| {
                    host.control.bird_sockets = host.control.bird_sockets.take().or(bird_sockets);
                    Document::Calico { calico: Box::new(calico), host: Box::new(host) }
                })
            } else {
                read_own(&root, base).map(|config| Document::Own(Box::new(config)))
            };
            root.finish();
            document
        });
        parsed.finish(document)
    }
}

fn read_host(root: &Table<'_>) -> HostSettings {
    HostSettings {
        control: host::read_control(root),
        http: host::read_http(root),
        log: host::read_log(root),
    }
}

fn read_own(root: &Table<'_>, base: &Path) -> Option<Config> {
    let policies = policy::read(root);
    let bgp = bgp::read(root, &policies, base);
    let originate = local::read_originate(root);
    let fib = host::read_fib(root, &policies);
    let redistribute = local::read_redistribute(root, &policies, &fib.settings);
    let host = read_host(root);
    let bgp = bgp?;
    let table = TableConfig {
        cluster_id: bgp.global.cluster_id,
        fib_policy: fib.policy,
        groups_max: bgp.global.groups_max,
        memory_max: bgp.global.memory_max,
        ..fib.settings.table_config(&bgp.global.identity)
    };
    Some(Config {
        bgp: bgp.global,
        peers: bgp.peers,
        dynamic: bgp.dynamic,
        table: Arc::new(table),
        originate,
        redistribute,
        host_routes: Vec::new(),
        fib: fib.settings,
        host,
    })
}
