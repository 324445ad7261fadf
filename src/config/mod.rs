//! Configuration: TOML to one immutable [`Config`].
//!
//! Read, parse, validate: [`Config::load`] does all three and starts nothing. What comes out is
//! complete: every default is applied, every policy name is resolved, every password file is read.
//! What is wrong is reported together, each as `FILE:LINE:COL: KEY: what is wrong; remedy`.
//!
//! [`Config::changes_to`] is the difference between two configurations as a reload must apply it.
//!
//! Not here: acting on any of it. Dependencies: `bgp_proto` only.

mod bgp;
mod changes;
mod error;
mod host;
mod local;
mod peer;
mod policy;
mod reader;
mod summary;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bgp_proto::policy::Policy;
use bgp_proto::session::{LocalIdentity, PeerConfig};
use bgp_proto::table::{PeerRoutes, TableConfig};
use bgp_proto::types::{ClusterId, FibKind, Prefix};

pub use changes::Changes;
pub use error::{Error, Errors};
pub use local::KernelRoute;

use reader::Document;

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
    /// Where our routes go in the kernel.
    pub fib: FibSettings,
    /// The control socket.
    pub control: ControlSettings,
    /// Where metrics and health are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// What is logged, and how.
    pub log: LogSettings,
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
    /// Octets that all routes may hold. Default: no limit.
    pub memory_max: Option<u64>,
}

/// A peer with an address.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerEntry {
    /// Unique. Default: the address.
    pub name: Arc<str>,
    /// A change restarts the session.
    pub session: Arc<PeerConfig>,
    /// A change never restarts the session.
    pub routes: Arc<PeerRoutes>,
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
    /// Metric of routes that bring none. Default 0, which IPv6 turns into 1024.
    pub metric: u32,
    /// Most hops of an ECMP route, 1-256. Default 16.
    pub multipath_max: usize,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// Its path. Default [`ControlSettings::DEFAULT_SOCKET`].
    pub socket: PathBuf,
    /// Where BIRD's control protocol is spoken; `None`: nowhere.
    pub bird_sockets: Option<BirdSockets>,
}

/// Where BIRD's control protocol is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BirdSockets {
    /// `bird.ctl`: IPv4.
    pub ipv4: PathBuf,
    /// `bird6.ctl`: IPv6.
    pub ipv6: PathBuf,
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
    /// Reads, parses and validates a file, and the password files that it names.
    ///
    /// # Errors
    /// Everything that is wrong, sorted by place. Values of password keys are never part of it.
    pub fn load(path: &Path) -> Result<Config, Errors> {
        let octets = std::fs::read(path).map_err(|e| Errors::unreadable(path, &e))?;
        let text = String::from_utf8(octets).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..valid].iter().filter(|o| **o == b'\n').count() + 1;
            Errors::not_text(path, line)
        })?;
        Config::parse(path, &text)
    }

    /// As [`Config::load`], from text. `path` stands in errors, and password files are relative to
    /// its folder.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Config, Errors> {
        let document = Document::parse(path, text);
        let config = document.root().and_then(|root| {
            let policies = policy::read(&root);
            let bgp = bgp::read(&root, &policies, path.parent().unwrap_or(Path::new("")));
            let originate = local::read_originate(&root);
            let fib = host::read_fib(&root, &policies);
            let redistribute = local::read_redistribute(&root, &policies, &fib.settings);
            let control = host::read_control(&root);
            let http = host::read_http(&root);
            let log = host::read_log(&root);
            host::refuse_calico(&root);
            root.finish();
            let bgp = bgp?;
            let table = TableConfig {
                asn: bgp.global.identity.asn,
                router_id: bgp.global.identity.router_id,
                cluster_id: bgp.global.cluster_id,
                multipath_max: fib.settings.multipath_max,
                fib_policy: fib.policy,
                fib_enabled: fib.settings.enabled,
                log_bytes_max: 16 << 20,
                memory_max: bgp.global.memory_max,
            };
            Some(Config {
                bgp: bgp.global,
                peers: bgp.peers,
                dynamic: bgp.dynamic,
                table: Arc::new(table),
                originate,
                redistribute,
                fib: fib.settings,
                control,
                http,
                log,
            })
        });
        document.finish(config)
    }
}
