//! The values in force by key, as `margay show config` prints them, and what differs between two
//! configurations of one peer. Secrets are never among the values.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bgp_proto::export::{AddPathSend, NextHopMode};
use bgp_proto::session::{BfdMode, HoldExpiry, LocalIdentity, PeerConfig, RoleMode};
use bgp_proto::table::{MonitoredPeers, PeerRoutes, RouteLimits};
use bgp_proto::types::{Family, PeerType, off_interface};
use bgp_proto::wire::AddPathMode;

use super::vrf::default_listen;
use super::{
    BMP_PORT, BmpSettings, BmpStation, Config, ControlSettings, DynamicPeers, Fallover,
    FibSettings, ImportVrf, MrtPeers, MrtSettings, PageSettings, PeerEntry, PeerSeries, Vrf,
};

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as in the file.
    pub key: &'static str,
    /// The value as TOML; `None`: the key is absent and has no value.
    pub value: Option<String>,
    /// Whether it is the default.
    pub is_default: bool,
}

/// The settings of one table of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The table's header without brackets, such as `bgp.peers`.
    pub table: &'static str,
    /// Whether the file may have several of these tables.
    pub is_list: bool,
    /// Its keys.
    pub settings: Vec<Setting>,
}

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: &'static str,
    /// The old value as TOML; `None`: it had none.
    pub old: Option<String>,
    /// The new value.
    pub new: Option<String>,
}

impl Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        match (&self.old, &self.new) {
            (old, new) if old == new => write!(f, "{} changed", self.key),
            (old, new) => write!(f, "{} {} → {}", self.key, shown(old), shown(new)),
        }
    }
}

type Values = Vec<(&'static str, Option<String>)>;

/// The keys of a peer by which it differs from `new`.
pub(super) fn differences(old: &PeerEntry, new: &PeerEntry) -> Vec<Difference> {
    let (before, after) = (of_peer(old), of_peer(new));
    let pairs = before.into_iter().zip(after);
    let mut found: Vec<Difference> = pairs
        .filter(|((_, old), (_, new))| old != new)
        .map(|((key, old), (_, new))| Difference { key, old, new })
        .collect();
    // Values that are not shown, and policies of the same name with other rules.
    let (a, b) = (&old.session, &new.session);
    let hidden = [
        ("password", a.security.md5 != b.security.md5),
        ("tcp-ao", a.security.ao != b.security.ao),
        ("import", old.routes.import.policy != new.routes.import.policy),
        ("export", old.routes.export.policy != new.routes.export.policy),
        ("bfd", old.bfd != new.bfd),
    ];
    for (key, differs) in hidden {
        if differs && !found.iter().any(|difference| difference.key == key) {
            found.push(Difference { key, old: None, new: None });
        }
    }
    found
}

/// What is in force, in the order of the file's documentation, from the section with index `first`
/// on: `[bgp]`, `[fib]`, `[control]`, `[http]`, `[log]`, `[mrt]`, every VRF, every peer, every range of dynamic
/// peers, every vantage from which costs are stated, and every monitoring station.
pub fn sections(config: &Config, first: usize) -> impl Iterator<Item = Section> + '_ {
    (first..).map_while(|index| section_at(config, index))
}

fn section_at(config: &Config, index: usize) -> Option<Section> {
    /// The number of tables that the file has once.
    const SINGLE: usize = 6;
    let identity = &config.bgp.identity;
    let single = match index {
        0 => section("bgp", of_bgp(config), default_bgp(config)),
        1 => section("fib", of_fib(&config.fib), of_fib(&FibSettings::default())),
        2 => section("control", of_control(config), default_control()),
        3 => section("http", of_http(config), default_http()),
        4 => section("log", of_log(config), default_log()),
        5 => section("mrt", of_mrt(config.host.mrt.as_ref()), of_mrt(None)),
        _ => {
            let index = index - SINGLE;
            if let Some(vrf) = config.vrfs.get(index) {
                return Some(of_vrf(vrf));
            }
            let index = index - config.vrfs.len();
            let Some(peer) = config.peers.get(index) else {
                let index = index - config.peers.len();
                let Some(range) = config.dynamic.get(index) else {
                    return of_rest(config, index - config.dynamic.len());
                };
                return Some(of_range(range, identity));
            };
            let list = section("bgp.peers", of_peer(peer), default_peer(peer, identity));
            Section { is_list: true, ..list }
        }
    };
    Some(single)
}

/// A section whose values are defaults where they equal those of `defaults`, which are in the same
/// order and may lack keys that have no default.
fn section(table: &'static str, values: Values, defaults: Values) -> Section {
    let mut defaults = defaults.into_iter().peekable();
    let setting = |(key, value): (&'static str, Option<String>)| {
        let default = defaults.next_if(|(other, _)| *other == key);
        let is_default = default.is_some_and(|(_, default)| default == value);
        Setting { key, value, is_default }
    };
    Section { table, is_list: false, settings: values.into_iter().map(setting).collect() }
}

fn of_range(range: &DynamicPeers, identity: &LocalIdentity) -> Section {
    let peer = range.peer(range.prefix.addr());
    let mut list = section("bgp.dynamic-peers", of_peer(&peer), default_peer(&peer, identity));
    list.is_list = true;
    list.settings.retain(|setting| !matches!(setting.key, "address" | "port" | "passive" | "name"));
    let own = [
        ("prefix", text(range.prefix), false),
        ("peers-max", number(range.peers_max), range.peers_max == 1000),
        ("name", range.name.as_ref().and_then(text), range.name.is_none()),
    ];
    let own = own.into_iter().map(|(key, value, is_default)| Setting { key, value, is_default });
    list.settings.splice(0..0, own);
    list
}

/// Imports as in the file.
fn imports(imports: &[ImportVrf]) -> Option<String> {
    let one = |import: &ImportVrf| {
        let from = import.from.as_deref().unwrap_or("default");
        let (policy, max) = (&import.policy.name, import.prefixes_max);
        format!("{{ vrf = \"{from}\", policy = \"{policy}\", prefixes-max = {max} }}")
    };
    let all: Vec<String> = imports.iter().map(one).collect();
    Some(format!("[{}]", all.join(", ")))
}

/// Addresses of listening sockets as in the file.
fn listens(addresses: &[SocketAddr]) -> Option<String> {
    let all: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    Some(format!("[{}]", all.join(", ")))
}

fn of_vrf(vrf: &Vrf) -> Section {
    let values = |name, listen: &[SocketAddr], import: &[ImportVrf]| {
        vec![("name", name), ("listen", listens(listen)), ("import-vrf", imports(import))]
    };
    let default = values(None, &default_listen(), &[]);
    let list = section("vrfs", values(text(&vrf.name), &vrf.listen, &vrf.import), default);
    Section { is_list: true, ..list }
}

/// The costs that are stated from one vantage.
/// What follows the peers.
fn of_rest(config: &Config, index: usize) -> Option<Section> {
    match index.checked_sub(config.table.vantages.stated.len()) {
        None => of_vantage(config, index),
        Some(index) => config.host.bmp.get(index).map(of_station),
    }
}

fn of_vantage(config: &Config, index: usize) -> Option<Section> {
    let (name, costs) = config.table.vantages.stated.iter().nth(index)?;
    let costs: Vec<String> = costs.iter().map(|(to, cost)| format!("{to:?} = {cost}")).collect();
    let costs = Some(format!("{{ {} }}", costs.join(", ")));
    let list = section("bgp.vantages", vec![("name", text(name)), ("costs", costs)], Vec::new());
    Some(Section { is_list: true, ..list })
}

fn of_station(station: &BmpSettings) -> Section {
    let words = |list: Vec<&str>| {
        let quoted: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
        Some(format!("[{}]", quoted.join(", ")))
    };
    let (mut address, mut port, mut source, mut listen, mut from) = (None, None, None, None, None);
    match &station.station {
        BmpStation::Connect { to, source: own } => {
            (address, port) = (text(to.ip()), number(to.port()));
            source = own.and_then(text);
        }
        BmpStation::Listen { on, from: of } => {
            listen = text(on);
            let of: Vec<String> = of.iter().map(ToString::to_string).collect();
            from = words(of.iter().map(String::as_str).collect());
        }
    }
    let peers = match &station.peers {
        MonitoredPeers::All => None,
        MonitoredPeers::Named(names) => words(names.iter().map(|name| &**name).collect()),
    };
    let interval = station.statistics_interval.map_or_else(|| boolean(false), seconds);
    let values = vec![
        ("name", text(&station.name)),
        ("address", address),
        ("port", port),
        ("source-address", source),
        ("listen", listen),
        ("from", from),
        ("ribs", words(station.rib_names())),
        ("mirror", text(station.mirror_name())),
        ("peers", peers),
        ("statistics-interval", interval),
        ("memory-max", number(station.memory_max >> 20)),
    ];
    let defaults = vec![
        ("port", number(BMP_PORT)),
        ("ribs", words(vec!["loc-rib"])),
        ("mirror", text("nothing")),
        ("statistics-interval", number(60)),
        ("memory-max", number(64)),
    ];
    Section { is_list: true, ..section("bmp", values, defaults) }
}

fn of_bgp(config: &Config) -> Values {
    let bgp = &config.bgp;
    vec![
        ("asn", number(bgp.identity.asn)),
        ("router-id", text(bgp.identity.router_id)),
        ("cluster-id", text(bgp.cluster_id)),
        ("listen", listens(&bgp.listen)),
        ("import-vrf", imports(&bgp.import)),
        ("groups-max", number(bgp.groups_max)),
        ("memory-max", bgp.memory_max.and_then(|octets| number(octets >> 20))),
        ("vantage-cost-default", number(config.table.vantages.default)),
    ]
}

fn default_bgp(config: &Config) -> Values {
    vec![
        ("cluster-id", text(config.bgp.identity.router_id)),
        ("listen", listens(&default_listen())),
        ("import-vrf", imports(&[])),
        ("groups-max", number(super::bgp::GROUPS_MAX)),
        ("memory-max", None),
        ("vantage-cost-default", number(bgp_proto::table::VantageCosts::default().default)),
    ]
}

fn of_fib(fib: &FibSettings) -> Values {
    vec![
        ("enabled", boolean(fib.enabled)),
        ("table", number(fib.table)),
        ("protocol", number(fib.protocol)),
        ("metric", fib.metric.and_then(number)),
        ("multipath-max", number(fib.multipath_max)),
        ("multipath-weights", word(fib.multipath_weights)),
        ("multipath-as-path", word(fib.multipath_as_path)),
        ("resolve-via-default", word(fib.via_default)),
        ("resolve-over-bgp", boolean(fib.resolve_over_bgp)),
        ("next-hop-objects", boolean(fib.next_hop_objects)),
        ("backup-paths", boolean(fib.backup_paths)),
        ("source (ipv4)", fib.source_v4.and_then(text)),
        ("source (ipv6)", fib.source_v6.and_then(text)),
    ]
}

fn of_control(config: &Config) -> Values {
    let control = &config.host.control;
    let read_only = control.read_only.as_ref();
    vec![
        ("socket", text(control.socket.display())),
        ("group", control.group.as_ref().and_then(text)),
        ("read-only-socket", read_only.and_then(|socket| text(socket.socket.display()))),
        ("read-only-group", read_only.and_then(|socket| socket.group.as_ref().and_then(text))),
    ]
}

fn default_control() -> Values {
    vec![
        ("socket", text(ControlSettings::DEFAULT_SOCKET)),
        ("group", None),
        ("read-only-socket", None),
        ("read-only-group", None),
    ]
}

fn of_http(config: &Config) -> Values {
    let http = config.host.http.as_ref();
    let series = http.map(|http| http.peers).unwrap_or_default();
    let page = http.and_then(|http| http.page.as_deref());
    http_values(http.and_then(|http| text(http.listen)), series, page)
}

fn default_http() -> Values {
    http_values(None, PeerSeries::default(), None)
}

fn http_values(listen: Option<String>, series: PeerSeries, page: Option<&PageSettings>) -> Values {
    let names = page.filter(|page| !page.host_names.is_empty());
    let token = page.and_then(|page| page.token.as_ref());
    vec![
        ("listen", listen),
        ("peer-series", word(series.choice)),
        ("peer-series-max", number(series.max)),
        ("peer-series-top", number(series.top)),
        ("status-page", boolean(page.is_some())),
        ("token-file", token.map(|_| "(hidden)".to_owned())),
        ("host-names", names.and_then(|page| text(page.host_names.join(", ")))),
    ]
}

fn of_log(config: &Config) -> Values {
    let log = config.host.log;
    vec![("level", text(log.level.as_str())), ("format", word(log.format))]
}

fn default_log() -> Values {
    vec![("level", text("info")), ("format", text("auto"))]
}

fn of_mrt(mrt: Option<&MrtSettings>) -> Values {
    let unset = MrtSettings::in_folder(PathBuf::new());
    let set = mrt.unwrap_or(&unset);
    let updates = match &set.updates {
        MrtPeers::None => boolean(false),
        MrtPeers::All => boolean(true),
        MrtPeers::Named(names) => text(names.join(", ")),
    };
    vec![
        ("directory", mrt.and_then(|mrt| text(mrt.directory.display()))),
        ("table-interval", set.table_interval.and_then(seconds)),
        ("updates", updates),
        ("rotate-after", seconds(set.rotate_after)),
        ("rotate-bytes", number(set.rotate_bytes)),
        ("compression", text(set.compression.as_str())),
        ("keep", set.keep.and_then(number)),
    ]
}

/// The values of a peer on whose keys nothing was set but address and AS.
fn default_peer(peer: &PeerEntry, identity: &LocalIdentity) -> Values {
    let session = PeerConfig::new(peer.session.address, peer.session.remote_asn, identity);
    let mut routes = PeerRoutes::new(peer.session.address.to_string());
    if session.peer_type() == PeerType::External {
        // RFC 8212: there is no default.
        routes.import.policy = std::sync::Arc::new(bgp_proto::policy::Policy::reject_all());
        routes.export.policy = routes.import.policy.clone();
    }
    let fallover = Fallover::of(&session);
    of_peer(&PeerEntry {
        name: peer.session.address.to_string().into(),
        description: None,
        session: session.into(),
        routes: routes.into(),
        bfd: None,
        fallover,
        interface: peer.interface.clone(),
    })
}

fn of_peer(peer: &PeerEntry) -> Values {
    let mut values = vec![
        ("name", text(&peer.name)),
        ("description", peer.description.as_ref().and_then(text)),
        ("interface", peer.interface.as_deref().map(str::to_owned)),
        ("bfd", boolean(peer.bfd.is_some())),
        ("fast-fallover", boolean(peer.fallover == Fallover::Fast)),
    ];
    of_session(&peer.session, &mut values);
    of_routes(&peer.routes, &mut values);
    values
}

fn of_session(session: &PeerConfig, values: &mut Values) {
    let families: Vec<String> = session.families.iter().map(|f| format!("\"{f}\"")).collect();
    let add_path = session.add_path.0.into_iter().find(|mode| *mode != AddPathMode::None);
    values.extend([
        ("address", text(off_interface(session.address).0)),
        ("remote-asn", number(session.remote_asn)),
        ("port", number(session.port)),
        ("local-asn", number(session.local_asn)),
        ("router-id (of bgp)", text(session.router_id)),
        ("vrf", session.vrf.as_deref().and_then(text)),
        ("bind-interface", session.bind_interface.as_deref().and_then(text)),
        ("source-address", session.source_address.and_then(|own| text(off_interface(own).0))),
        ("passive", boolean(session.passive.is_passive())),
        ("password", session.security.md5.as_ref().map(|_| "(hidden)".to_owned())),
        ("tcp-ao", session.security.ao.as_ref().and_then(|chain| text(chain.name()))),
        ("ttl-security", session.security.ttl_security_hops.and_then(number)),
        ("multihop-ttl", session.multihop_ttl.and_then(number)),
        ("families", Some(format!("[{}]", families.join(", ")))),
        ("add-path", word(add_path.unwrap_or_default())),
        ("hold-time", seconds(session.hold_time)),
        ("keepalive-time", session.keepalive_time.and_then(seconds)),
        ("connect-retry-time", seconds(session.connect_retry_time)),
        ("send-hold-time", session.send_hold_time.and_then(seconds)),
        ("graceful-restart-time", seconds(session.graceful_restart_time.unwrap_or_default())),
        ("long-lived-graceful-restart", long_lived(session)),
        ("stale-on-hold-expiry", boolean(session.hold_expiry == HoldExpiry::Restart)),
        ("extended-messages", boolean(session.extended_messages)),
        ("extended-next-hop", boolean(session.extended_next_hop)),
        ("enhanced-refresh", boolean(session.enhanced_refresh)),
        ("enforce-first-as", boolean(session.enforce_first_as)),
        ("reject-as-sets", boolean(session.reject_as_sets)),
        ("role", session.role.and_then(word)),
        ("role-strict", boolean(session.role_mode != RoleMode::Lenient)),
        ("bfd.strict", boolean(session.bfd_mode == BfdMode::Strict)),
    ]);
}

fn of_routes(routes: &PeerRoutes, values: &mut Values) {
    let RouteLimits { as_path_max, communities_max, attributes_max, paths_max } =
        routes.import.limits;
    let next_hop = match routes.export.next_hop {
        NextHopMode::Auto => "auto",
        NextHopMode::ThirdParty => "third-party",
        NextHopMode::SelfAddress => "self",
        NextHopMode::Keep => "keep",
    };
    let add_path_max = match routes.export.add_path_send {
        AddPathSend::All => None,
        AddPathSend::Best(most) => number(most),
    };
    values.extend([
        ("import", text(&routes.import.policy.name)),
        ("export", text(&routes.export.policy.name)),
        ("next-hop", text(next_hop)),
        ("route-reflector-client", boolean(routes.reflection.client)),
        ("cluster-id", routes.reflection.cluster_id.and_then(text)),
        ("vantage", routes.vantage.as_ref().and_then(text)),
        ("add-path-paths-max", add_path_max),
        ("allow-local-asn", number(routes.import.allow_local_asn)),
        ("honour-graceful-shutdown", boolean(routes.import.honour_graceful_shutdown)),
        ("prefixes-max", routes.limits.prefixes_max.and_then(number)),
        ("prefixes-warning-percent", number(routes.limits.prefixes_warning_percent)),
        ("memory-max", routes.limits.memory_max.and_then(|octets| number(octets >> 20))),
        ("as-path-max", number(as_path_max)),
        ("communities-max", number(communities_max)),
        ("attributes-max", number(attributes_max)),
        ("paths-max", number(paths_max)),
        ("stale-routes-time", seconds(routes.stale_time)),
    ]);
}

fn number(value: impl Display) -> Option<String> {
    Some(value.to_string())
}

fn boolean(value: bool) -> Option<String> {
    Some(value.to_string())
}

fn seconds(value: Duration) -> Option<String> {
    Some(value.as_secs().to_string())
}

fn long_lived(session: &PeerConfig) -> Option<String> {
    let times = session.long_lived_stale_time?;
    let secs = |family| times[family].as_secs();
    let max = session.long_lived_stale_time_max;
    let max = max.map_or_else(String::new, |max| format!(", max = {}", max.as_secs()));
    Some(format!("{{ ipv4 = {}, ipv6 = {}{max} }}", secs(Family::Ipv4), secs(Family::Ipv6)))
}

fn text(value: impl Display) -> Option<String> {
    Some(format!("{:?}", value.to_string()))
}

/// The value of an enum: `LinkBandwidth` is `"link-bandwidth"`.
fn word(value: impl std::fmt::Debug) -> Option<String> {
    let mut word = String::new();
    for letter in format!("{value:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    text(word)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(peer: &str) -> Config {
        let text = format!(
            "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n[[bgp.peers]]\nname = \"tor\"\n\
             address = \"192.0.2.1\"\nremote-asn = 64512\n{peer}"
        );
        Config::parse(Path::new("m.toml"), &text).unwrap()
    }

    #[test]
    fn differences_name_keys_and_hide_secrets() {
        let of = |old: &str, new: &str| -> Vec<String> {
            let (old, new) = (config(old), config(new));
            let found = differences(&old.peers[0], &new.peers[0]);
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(of("", ""), [""; 0]);
        assert_eq!(of("hold-time = 30\n", ""), ["hold-time 30 → 90"]);
        assert_eq!(of("", "prefixes-max = 7\n"), ["prefixes-max none → 7"]);
        assert_eq!(of("", "password = \"s3cret\"\n"), ["password none → (hidden)"]);
        let other = of("password = \"s3cret\"\n", "password = \"0ther\"\n");
        assert_eq!(other, ["password changed"]);
    }

    #[test]
    fn vantages_are_shown_with_the_costs_that_are_stated() {
        let text = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n[[bgp.vantages]]\nname = \"a\"\n\
                    costs = { b = 10, c = 20 }\n";
        let config = Config::parse(Path::new("m.toml"), text).unwrap();
        let shown: Vec<Section> = sections(&config, 0).collect();
        let last = shown.last().unwrap();
        let values: Vec<Option<&str>> = last.settings.iter().map(|s| s.value.as_deref()).collect();
        assert_eq!((last.table, last.is_list), ("bgp.vantages", true));
        assert_eq!(values, [Some("\"a\""), Some("{ \"b\" = 10, \"c\" = 20 }")]);
    }

    #[test]
    fn values_that_nobody_set_are_marked() {
        let config = config("hold-time = 30\npassword = \"s3cret\"\n");
        let shown: Vec<Section> = sections(&config, 0).collect();
        assert!(sections(&config, 2).eq(shown[2..].iter().cloned()));
        let control = shown.iter().find(|section| section.table == "control").unwrap();
        assert!(control.settings.iter().all(|setting| setting.is_default), "{control:?}");
        let bgp = shown.iter().find(|section| section.table == "bgp").unwrap();
        let defaults: Vec<&str> =
            bgp.settings.iter().filter(|s| s.is_default).map(|s| s.key).collect();
        assert_eq!(
            defaults,
            [
                "cluster-id",
                "listen",
                "import-vrf",
                "groups-max",
                "memory-max",
                "vantage-cost-default"
            ]
        );
        let peer = shown.iter().find(|section| section.table == "bgp.peers").unwrap();
        let of = |key: &str| peer.settings.iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(
            (of("hold-time").value.as_deref(), of("hold-time").is_default),
            (Some("30"), false)
        );
        assert!(of("connect-retry-time").is_default && of("import").is_default);
        assert_eq!(of("name").value.as_deref(), Some("\"tor\""));
        assert_eq!(of("password").value.as_deref(), Some("(hidden)"));
        assert!(!format!("{shown:?}").contains("s3cret"));
        let fib = shown.iter().find(|section| section.table == "fib").unwrap();
        assert!(fib.settings.iter().all(|setting| setting.is_default), "{fib:?}");
    }
}
