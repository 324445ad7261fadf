//! Configuration: from TOML to one immutable [`Config`].
//!
//! [`Document::load`] reads, parses and validates, and starts nothing. The result is complete:
//! every default is applied, every policy name is resolved, every password file is read. All errors
//! are reported together, each as `FILE:LINE:COL: KEY: what is wrong; remedy`.
//!
//! With `[calico]`, the file only says where the objects are stored from which configurations
//! follow.
//!
//! [`Config::changes_to`] computes the difference that a reload must apply.
//!
//! Not here: applying any of it. Dependencies: `bgp_proto` only.

mod bfd;
mod bgp;
mod bmp;
mod calico;
mod changes;
mod control;
mod effective;
mod error;
mod host;
mod http;
mod interface;
mod key_chain;
mod local;
mod long_lived;
mod mrt;
mod opened;
mod password;
mod peer;
mod policy;
mod reader;
mod secret;
mod summary;
#[cfg(test)]
mod tests;
mod vantage;
mod vrf;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bgp_proto::policy::Policy;
use bgp_proto::rib::{MultipathAsPath, ViaDefault};
use bgp_proto::session::{KeyChain, LocalIdentity, PeerConfig};
use bgp_proto::table::{MultipathWeights, PeerRoutes, TableConfig};
use bgp_proto::types::{Asn, ClusterId, ExtCommunity, FibKind, Prefix, RouterId, off_interface};
use bgp_proto::wire::Origin;

pub use bfd::{BfdHops, BfdSettings, BfdTemplate};
pub use bmp::{BMP_PORT, BMP_RIBS, BmpSettings, BmpStation};
pub use calico::{
    CalicoDatastore, CalicoEtcd, CalicoKubernetes, CalicoLimits, CalicoSettings, DrainBy,
    ENDPOINT_BANDWIDTH, EndpointWeights, StateFile,
};
pub use changes::{Changes, DynamicChanges, EndingSession, SessionEnd, differing_peers};
pub use control::{ControlSettings, ReadOnlySocket};
pub use effective::{Difference, Section, Setting, sections};
pub use error::{Error, Errors};
pub use http::{HttpSettings, PageSettings, PeerChoice, PeerSeries, Token};
pub use interface::{InterfacePeers, Neighbor};
pub use local::KernelRoute;
pub use mrt::{MrtCompression, MrtPeers, MrtSettings};
pub(crate) use opened::{OpenedServices, OpenedSockets};
pub(crate) use reader::closest;
pub use secret::{ReadFrom, Secrets, Stamp};
pub use vrf::{ImportVrf, Vrf};

use reader::{Parsed, Table};
use secret::Reading;

/// The complete configuration of the daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Our identity, listening addresses and global limits.
    pub bgp: BgpConfig,
    /// Peers with an address, in the order of the file. In the running configuration, those that
    /// follow from [`Config::interfaces`] come behind them.
    pub peers: Vec<PeerEntry>,
    /// Peers by interface, in the order of the file: the first that matches an interface applies.
    pub interfaces: Vec<InterfacePeers>,
    /// Ranges from which peers may connect, in the order of the file.
    pub dynamic: Vec<DynamicPeers>,
    /// Parameters of the table.
    pub table: Arc<TableConfig>,
    /// Locally originated routes, in the order of the file.
    pub originate: Vec<Originate>,
    /// Rules that select kernel routes to redistribute. The first rule that selects a route
    /// decides.
    pub redistribute: Vec<Redistribute>,
    /// VRFs, each with its own table, in the order of the file. Peers, ranges and routes elsewhere in
    /// this configuration name one of them or are in the default VRF.
    pub vrfs: Vec<Vrf>,
    /// Key chains of TCP-AO, in the order of the file. Sessions have those that they use.
    pub key_chains: Vec<Arc<KeyChain>>,
    /// Policies that nothing in this configuration names, by name.
    pub unused_policies: Vec<Arc<Policy>>,
    /// Our host routes to neighbours, in no particular order, each destination once.
    pub host_routes: Vec<HostRoute>,
    /// Why every peer is drained by configuration; `None`: it is not. Follows from Calico's objects
    /// only ([`DrainBy`]).
    pub drain: Option<Arc<str>>,
    /// How our routes are installed in the kernel.
    pub fib: FibSettings,
    /// Settings that concern this machine only.
    pub host: HostSettings,
    /// What it was read from.
    pub origin: ReadFrom,
}

/// Settings that concern this machine only, and never follow from Calico's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// The control socket.
    pub control: ControlSettings,
    /// Metrics and health; `None`, the default: not served.
    pub http: Option<HttpSettings>,
    /// Level and format of the log.
    pub log: LogSettings,
    /// MRT files; `None`, the default: none are written.
    pub mrt: Option<MrtSettings>,
    /// Monitoring stations. Default: none.
    pub bmp: Vec<BmpSettings>,
}

impl HostSettings {
    /// For a configuration that is computed and not run.
    pub fn unused() -> Self {
        HostSettings {
            control: ControlSettings::at(ControlSettings::DEFAULT_SOCKET),
            http: None,
            log: LogSettings { level: LogLevel::Info, format: LogFormat::Text },
            mrt: None,
            bmp: Vec::new(),
        }
    }
}

/// A host route of ours to a neighbour that is not on a directly connected network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// The neighbour.
    pub destination: IpAddr,
    /// The gateway. The route is active while the gateway is on a directly connected network.
    pub gateway: IpAddr,
}

/// The content of a configuration file.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// A complete configuration.
    Own(Box<Config>),
    /// Settings of a Calico node, whose configuration follows from Calico's objects.
    Calico {
        /// The node, and where its objects are stored.
        calico: Box<CalicoSettings>,
        /// The rest of the file.
        host: Box<HostSettings>,
    },
}

/// Our identity, listening addresses and global limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpConfig {
    /// AS number and BGP Identifier.
    pub identity: LocalIdentity,
    /// Our route reflection cluster. Default: the BGP Identifier.
    pub cluster_id: ClusterId,
    /// Addresses on which connections are accepted. Default `0.0.0.0:179` and `[::]:179`; if empty,
    /// none are accepted.
    pub listen: Vec<SocketAddr>,
    /// VRFs whose routes the default VRF imports.
    pub import: Vec<ImportVrf>,
    /// Most update groups, 1-100000. Default 4096.
    pub groups_max: usize,
    /// Limit of the memory of all routes, in octets. `None`, the default: no limit.
    pub memory_max: Option<u64>,
}

/// When a session ends whose link is down or whose local address was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallover {
    /// At once (fast external fallover).
    Fast,
    /// When the hold timer expires.
    #[default]
    Timers,
}

impl Fallover {
    /// The default for a peer with this session.
    pub fn of(peer: &PeerConfig) -> Fallover {
        if peer.is_single_hop() { Fallover::Fast } else { Fallover::Timers }
    }
}

/// A peer with an address.
#[derive(Clone, Debug)]
pub struct PeerEntry {
    /// The unique name. Default: the address, in a VRF `VRF-ADDRESS`.
    pub name: Arc<str>,
    /// What the peer is, for operators: one line of at most 255 octets. Default: none. A change never
    /// restarts the session.
    pub description: Option<Arc<str>>,
    /// Session parameters. A change restarts the session.
    pub session: Arc<PeerConfig>,
    /// Routing parameters. A change never restarts the session.
    pub routes: Arc<PeerRoutes>,
    /// BFD for the session; `None`, the default: none. A change never restarts the session.
    pub bfd: Option<Arc<BfdSettings>>,
    /// When the session ends if its link or local address is lost. Default: [`Fallover::Fast`] for
    /// external neighbours that are directly connected.
    pub fallover: Fallover,
    /// The interface of a peer that follows from [`Config::interfaces`].
    pub interface: Option<Arc<str>>,
}

impl PartialEq for PeerEntry {
    /// By content; fast for parts that are the same allocation.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.description == other.description
            && changes::is_same(&self.session, &other.session)
            && changes::is_same(&self.routes, &other.routes)
            && self.bfd == other.bfd
            && self.fallover == other.fallover
            && self.interface == other.interface
    }
}

/// A range of addresses from which peers may connect. We never dial into it. A configured peer
/// takes precedence over a range that contains its address; of several ranges that contain an
/// address, the longest applies.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicPeers {
    /// The range.
    pub prefix: Prefix,
    /// Most peers at once, 1-1000000. Default 1000.
    pub peers_max: u32,
    /// The configured name; `None`: peers are named by their address only.
    pub name: Option<Arc<str>>,
    /// The description of each of its peers.
    pub description: Option<Arc<str>>,
    /// Session parameters; `address` is the network address of the range.
    pub session: Arc<PeerConfig>,
    /// Routing parameters; `name` is that of the range.
    pub routes: Arc<PeerRoutes>,
    /// BFD for each session; `None`, the default: none.
    pub bfd: Option<Arc<BfdSettings>>,
    /// When sessions end if their link or local address is lost.
    pub fallover: Fallover,
}

impl DynamicPeers {
    /// The peer at `address`, which must lie in the range. Named `NAME-ADDRESS`, or `ADDRESS`, or in a
    /// VRF `VRF-ADDRESS`; the index of its interface follows a link-local address, `fe80::5%3`.
    pub fn peer(&self, address: IpAddr) -> PeerEntry {
        let shown = match off_interface(address) {
            (address, Some(ifindex)) => format!("{address}%{ifindex}"),
            (address, None) => address.to_string(),
        };
        let name: Arc<str> = match &self.name {
            Some(name) => format!("{name}-{shown}").into(),
            None => match &self.session.vrf {
                Some(vrf) => format!("{vrf}-{shown}").into(),
                None => shown.into(),
            },
        };
        PeerEntry {
            session: Arc::new(PeerConfig { address, ..PeerConfig::clone(&self.session) }),
            routes: Arc::new(PeerRoutes {
                name: Arc::clone(&name),
                ..PeerRoutes::clone(&self.routes)
            }),
            bfd: self.bfd.clone(),
            fallover: self.fallover,
            interface: None,
            description: self.description.clone(),
            name,
        }
    }
}

/// A locally originated route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Originate {
    /// Destination.
    pub prefix: Prefix,
    /// The route to install in the kernel: blackhole (default), unreachable, or none.
    pub install: Option<FibKind>,
    /// The Link Bandwidth community that it carries. Default: none.
    pub bandwidth: Option<ExtCommunity>,
}

/// Where redistributed routes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedistributeFrom {
    /// Kernel routes that another process installed.
    Kernel,
    /// The networks of our interfaces' addresses.
    Connected,
}

/// A rule that selects kernel routes to redistribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Redistribute {
    /// Where the routes come from.
    pub from: RedistributeFrom,
    /// rtm_protocol numbers; empty: all except unspec, redirect and kernel.
    pub protocols: Vec<u8>,
    /// Interface globs in order: the first that matches decides, and one with `-` in front
    /// excludes. Empty: any interface.
    pub interfaces: Vec<String>,
    /// Selects routes equal to or inside one of these prefixes; empty: any prefix.
    pub prefixes: Vec<Prefix>,
    /// ORIGIN of the redistributed routes. Default incomplete.
    pub origin: Origin,
    /// Policy for the selected routes; `None`: all are accepted unchanged.
    pub policy: Option<Arc<Policy>>,
}

/// How our routes are installed in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibSettings {
    /// Whether routes are installed at all. Default true; false suits a route reflector.
    pub enabled: bool,
    /// Routing table. Default 254 (main).
    pub table: u32,
    /// rtm_protocol, 5-255. Default 12 (bird). Every route in the table with this number is ours.
    pub protocol: u8,
    /// Metric of routes for which policy sets none. `None`, the default: 20 for IPv4 and 1044 for
    /// IPv6, in each case 20 more than the kernel's default (0 and 1024). For IPv6, the kernel
    /// changes 0 to 1024.
    pub metric: Option<u32>,
    /// Most hops of an ECMP route, 1-256. Default 16.
    pub multipath_max: usize,
    /// How traffic is shared between the next hops of an ECMP route. Default equally.
    pub multipath_weights: MultipathWeights,
    /// What the AS_PATHs of an ECMP route must have in common. Default their length.
    pub multipath_as_path: MultipathAsPath,
    /// For paths of which peers a next hop may be resolved over the default route. Default
    /// internal.
    pub via_default: ViaDefault,
    /// Whether next hops may be resolved over those of our routes that depend on links only: BGP
    /// routes whose own next hop is directly connected, and originated blackhole or unreachable
    /// routes. Default true.
    pub resolve_over_bgp: bool,
    /// Whether routes use next-hop objects where the kernel has them. Default true; on a Calico node
    /// false.
    pub next_hop_objects: bool,
    /// Whether routes have a backup path, over which they go when their next hops are lost, until the
    /// decision process has come to them. Needs `next_hop_objects`. Default false.
    pub backup_paths: bool,
    /// Preferred source address of IPv4 routes. Default: the kernel's choice.
    pub source_v4: Option<Ipv4Addr>,
    /// Preferred source address of IPv6 routes. Default: the kernel's choice.
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
            multipath_weights: MultipathWeights::Equal,
            multipath_as_path: MultipathAsPath::EqualLength,
            via_default: ViaDefault::Internal,
            resolve_over_bgp: true,
            next_hop_objects: true,
            backup_paths: false,
            source_v4: None,
            source_v6: None,
        }
    }
}

impl FibSettings {
    /// The settings of a Calico node, which follow BIRD's there.
    ///
    /// Differs from BIRD: a next hop inside a block is resolved over the block's route; with BIRD
    /// it is unreachable.
    ///
    /// Routes contain their gateways: neither BIRD, to which the node may go back, nor Felix knows
    /// next-hop objects.
    pub fn calico() -> FibSettings {
        FibSettings {
            metric: Some(0),
            via_default: ViaDefault::Always,
            next_hop_objects: false,
            ..FibSettings::default()
        }
    }

    /// Parameters of the table: those that follow from these settings, and defaults for the others.
    pub fn table_config(&self, identity: &LocalIdentity) -> TableConfig {
        TableConfig {
            multipath_max: self.multipath_max,
            multipath_weights: self.multipath_weights,
            multipath_as_path: self.multipath_as_path,
            backup_paths: self.backup_paths,
            via_default: self.via_default,
            fib_enabled: self.enabled,
            ..TableConfig::new(identity.asn, identity.router_id)
        }
    }
}

/// Where BIRD's control protocol is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BirdSockets {
    /// Nowhere.
    Off,
    /// At [`BirdPaths::calico`]. If a socket cannot be created, that is logged, and the daemon runs
    /// without it; if another process is listening on one, the daemon does not start.
    Calico,
    /// At these paths. If a socket cannot be created, the daemon does not start.
    At(BirdPaths),
}

impl BirdSockets {
    /// The paths; `None` if the protocol is not served.
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
    /// The paths to which calico-node's probes, calicoctl and CalicoNodeStatus connect:
    /// `/var/run/calico/bird.ctl` and `/var/run/calico/bird6.ctl`.
    pub fn calico() -> Self {
        BirdPaths {
            ipv4: "/var/run/calico/bird.ctl".into(),
            ipv6: "/var/run/calico/bird6.ctl".into(),
        }
    }
}

/// Level and format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least severe level that is logged. Default info.
    pub level: LogLevel,
    /// How each event is written. Default auto.
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
    /// The name in the configuration, which `tracing` also parses.
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
    /// [`LogFormat::Journal`] if standard error is the journal's stream (`JOURNAL_STREAM`), else
    /// [`LogFormat::Text`].
    #[default]
    Auto,
    /// One line of text.
    Text,
    /// One JSON object on one line.
    Json,
    /// An entry of systemd's journal, with fields.
    Journal,
}

impl Config {
    /// A configuration without peers, listening addresses and routes, which runs on a Calico node
    /// until its first plan.
    pub fn idle(host: HostSettings) -> Config {
        let identity = LocalIdentity { asn: Asn(0), router_id: RouterId(0) };
        let fib = FibSettings::calico();
        let table = fib.table_config(&identity);
        Config {
            bgp: BgpConfig {
                identity,
                cluster_id: ClusterId(0),
                listen: Vec::new(),
                import: Vec::new(),
                groups_max: bgp::GROUPS_MAX,
                memory_max: None,
            },
            peers: Vec::new(),
            interfaces: Vec::new(),
            dynamic: Vec::new(),
            table: Arc::new(table),
            originate: Vec::new(),
            redistribute: Vec::new(),
            vrfs: Vec::new(),
            key_chains: Vec::new(),
            unused_policies: Vec::new(),
            host_routes: Vec::new(),
            drain: None,
            fib,
            host,
            origin: ReadFrom::default(),
        }
    }
}

#[cfg(test)]
impl Config {
    /// Parses a text without `[calico]`.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Config, Errors> {
        match Document::parse(path, text)? {
            Document::Own(config) => Ok(*config),
            Document::Calico { .. } => panic!("[calico] in {text}"),
        }
    }
}

impl Document {
    /// Reads, parses and validates a file and the password files that it names.
    ///
    /// # Errors
    /// All errors, sorted by position. They never contain the value of a password.
    pub fn load(path: &Path) -> Result<Document, Errors> {
        Document::parse(path, &Document::read(path)?)
    }

    /// The text of a file.
    ///
    /// # Errors
    /// It cannot be read, or is not UTF-8.
    pub fn read(path: &Path) -> Result<String, Errors> {
        let octets = std::fs::read(path).map_err(|e| Errors::unreadable(path, &e))?;
        String::from_utf8(octets).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..valid].iter().filter(|o| **o == b'\n').count() + 1;
            Errors::not_text(path, line)
        })
    }

    /// Like [`Document::load`], from text. `path` is used in errors, and relative file names in the
    /// text are resolved from its folder.
    ///
    /// # Errors
    /// See [`Document::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Document, Errors> {
        Document::parse_with(path, text, Reading::default())
    }

    /// Like [`Document::parse`]; of a file with a secret that cannot be read or is empty, what is kept
    /// stays in force.
    ///
    /// # Errors
    /// See [`Document::load`].
    pub fn parse_keeping(path: &Path, text: &str, kept: &Secrets) -> Result<Document, Errors> {
        Document::parse_with(path, text, Reading::keeping(kept))
    }

    fn parse_with(path: &Path, text: &str, secrets: Reading) -> Result<Document, Errors> {
        let parsed = Parsed::parse(path, text, secrets);
        let base = path.parent().unwrap_or(Path::new(""));
        let document = parsed.root().and_then(|root| {
            let document = if root.get("calico").is_some() {
                let calico = calico::read(&root, base);
                let mut host = read_host(&root, base);
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
        let (mut document, secrets) = parsed.finish(document)?;
        if let Document::Own(config) = &mut document {
            config.origin = ReadFrom::new(text, secrets);
        }
        Ok(document)
    }
}

fn read_host(root: &Table<'_>, base: &Path) -> HostSettings {
    HostSettings {
        control: control::read_control(root),
        http: http::read(root, base),
        log: host::read_log(root),
        mrt: mrt::read(root, base),
        bmp: bmp::read(root),
    }
}

fn read_own(root: &Table<'_>, base: &Path) -> Option<Config> {
    let policies = policy::read(root);
    let mut vrfs = vrf::read(root, &|name| policies.named(name));
    let key_chains = key_chain::read(root, base);
    let bgp = bgp::read(root, &policies, base, &vrfs, &key_chains);
    let originate = local::read_originate(root, &vrfs);
    let fib = host::read_fib(root, &policies);
    let redistribute = local::read_redistribute(root, &policies, &fib.settings, &vrfs);
    let originate = vrf::sort(originate, &mut vrfs, |vrf| &mut vrf.originate);
    let redistribute = vrf::sort(redistribute, &mut vrfs, |vrf| &mut vrf.redistribute);
    let host = read_host(root, base);
    let bgp = bgp?;
    let sessions = bgp.peers.iter().map(|peer| &peer.session);
    let mut sessions = sessions.chain(bgp.dynamic.iter().map(|range| &range.session));
    let table = TableConfig {
        long_lived: sessions.any(|session| session.long_lived_stale_time.is_some()),
        cluster_id: bgp.global.cluster_id,
        fib_policy: fib.policy,
        groups_max: bgp.global.groups_max,
        memory_max: bgp.global.memory_max,
        vantages: Arc::new(bgp.vantages),
        ..fib.settings.table_config(&bgp.global.identity)
    };
    Some(Config {
        bgp: bgp.global,
        peers: bgp.peers,
        interfaces: bgp.interfaces,
        dynamic: bgp.dynamic,
        table: Arc::new(table),
        originate,
        redistribute,
        vrfs,
        key_chains,
        unused_policies: policies.unused(),
        host_routes: Vec::new(),
        drain: None,
        fib: fib.settings,
        host,
        origin: ReadFrom::default(),
    })
}
