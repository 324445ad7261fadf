//! One peer's table: session and routing parameters.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::policy::Policy;
use bgp_proto::session::{
    AuthKey, HoldExpiry, KeyChain, LocalIdentity, PassiveMode, PeerConfig, RemoteAsn, RoleMode,
    TransportSecurity,
};
use bgp_proto::table::{
    AddPathSend, Drain, ExportParams, ImportParams, NextHopMode, PeerLimits, PeerRoutes,
    ReflectionParams, RouteLimits,
};
use bgp_proto::types::{
    Asn, ClusterId, Family, FamilyMap, FamilySet, PeerType, Prefix, Role, on_interface6,
};
use bgp_proto::wire::AddPathMode;

use super::bfd::{self, BfdSettings, BfdTemplate};
use super::bgp::{read_id, read_memory, read_route_limits, read_usable_asn};
use super::key_chain;
use super::long_lived::{self, LongLived};
use super::password::read_password;
use super::policy::Policies;
use super::reader::{Table, Value, is_of_word};
use super::vantage;
use super::vrf::{Vrf, read_bind_interface, read_vrf};
use super::{DynamicPeers, Fallover, PeerEntry};

/// Maximum length of a description, in octets.
const DESCRIPTION_LEN_MAX: usize = 255;

/// What is needed to read the table of any peer.
pub(super) struct Context<'a> {
    pub(super) identity: &'a LocalIdentity,
    pub(super) timers: Timers,
    /// Limits of single routes, for peers that set none.
    pub(super) limits: RouteLimits,
    pub(super) policies: &'a Policies,
    pub(super) folder: &'a Path,
    pub(super) bfd: &'a BfdTemplate,
    pub(super) vrfs: &'a [Vrf],
    pub(super) key_chains: &'a [Arc<KeyChain>],
}

/// Timers that `[bgp]` sets for all peers and each peer may set for itself.
#[derive(Clone, Copy)]
pub(super) struct Timers {
    hold: Duration,
    keepalive: Option<Duration>,
    connect_retry: Duration,
    send_hold: Option<Duration>,
    graceful_restart: Option<Duration>,
    long_lived: Option<LongLived>,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            hold: Duration::from_secs(90),
            keepalive: None,
            connect_retry: Duration::from_secs(5),
            send_hold: None,
            graceful_restart: Some(Duration::from_secs(120)),
            long_lived: None,
        }
    }
}

impl Timers {
    /// Reads the timers that `table` sets; the others are those of `inherited`.
    pub(super) fn read(table: &Table<'_>, inherited: Timers) -> Timers {
        let hold = table.get("hold-time");
        let keepalive = table.get("keepalive-time");
        let send_hold = table.get("send-hold-time");
        let seconds = |value: &Option<Value<'_>>, low: u16, high: u16| {
            let seconds = value.as_ref()?.integer(low..=high)?;
            Some(Duration::from_secs(seconds.into()))
        };
        let mut timers = inherited;
        match seconds(&hold, 0, u16::MAX).map(|d| d.as_secs()) {
            None => {}
            Some(1 | 2) => {
                if let Some(value) = &hold {
                    value.fault("1 and 2 seconds are not allowed", "use 0 (off) or 3-65535");
                }
            }
            Some(seconds) => timers.hold = Duration::from_secs(seconds),
        }
        timers.keepalive = seconds(&keepalive, 1, u16::MAX).or(timers.keepalive);
        if let (Some(own), Some(time)) = (keepalive.as_ref().or(hold.as_ref()), timers.keepalive)
            && !timers.hold.is_zero()
            && time >= timers.hold
        {
            own.fault(
                format_args!(
                    "a keepalive every {} s does not fit a hold time of {} s",
                    time.as_secs(),
                    timers.hold.as_secs()
                ),
                "use a third of the hold time, or leave keepalive-time out",
            );
        }
        timers.send_hold = seconds(&send_hold, 0, u16::MAX).or(timers.send_hold);
        if let (Some(own), Some(time)) = (send_hold.as_ref().or(hold.as_ref()), timers.send_hold)
            && !time.is_zero()
            && time <= timers.hold
        {
            own.fault(
                format_args!(
                    "a send hold time of {} s is not longer than the hold time of {} s",
                    time.as_secs(),
                    timers.hold.as_secs()
                ),
                "use 0 (off) or more than the hold time (RFC 9687)",
            );
        }
        timers.connect_retry =
            seconds(&table.get("connect-retry-time"), 1, u16::MAX).unwrap_or(timers.connect_retry);
        if let Some(time) = seconds(&table.get("graceful-restart-time"), 0, 4095) {
            timers.graceful_restart = Some(time).filter(|t| !t.is_zero());
        }
        timers.long_lived = long_lived::read(table, timers.long_lived);
        timers
    }

    /// The restart time of capability 64, without which capability 71 would have no effect (RFC 9494
    /// §4.5): with a restart time of zero, only the long-lived stale time counts.
    fn graceful_restart(&self) -> Option<Duration> {
        self.graceful_restart.or(self.long_lived.map(|_| Duration::ZERO))
    }
}

/// Reads a peer with an address. The caller finishes the table.
pub(super) fn read(table: &Table<'_>, cx: &Context<'_>) -> Option<PeerEntry> {
    let address = table
        .require("address", "set it to the neighbour's address")
        .and_then(|v| read_unicast(&v, "the neighbour's address"));
    let port = table.get("port").and_then(|v| v.integer(1..=u16::MAX)).unwrap_or(179);
    let passive = match table.get("passive").and_then(|v| v.boolean()) {
        Some(true) => PassiveMode::Passive,
        _ => PassiveMode::Active,
    };
    let name = read_name(table);
    let description = read_description(table);
    let family = address.map_or(Family::Ipv4, |a| Prefix::host(a).family());
    if let Some(value) = table.get("router-advertisements") {
        value.fault_key("is for peers by interface", "leave it out, or name an interface");
    }
    let vrf = read_vrf(table, cx.vrfs);
    let bind_interface = read_bind_interface(table);
    let (mut session, routes) = read_common(table, cx, &Nature::of(family));
    let bfd = read_bfd(table, cx, &mut session);
    let fallover = read_fallover(table, session.as_ref());
    let (session, routes) = (session?, routes?);
    let address = address?;
    if session.source_address == Some(address) {
        table.fault_at("source-address", "is the neighbour's address", "use an address of ours");
    }
    let name: Arc<str> = name.unwrap_or_else(|| match &vrf {
        Some(vrf) => format!("{vrf}-{address}").into(),
        None => address.to_string().into(),
    });
    Some(PeerEntry {
        session: Arc::new(PeerConfig { address, port, passive, vrf, bind_interface, ..session }),
        routes: Arc::new(PeerRoutes { name: Arc::clone(&name), ..routes }),
        bfd,
        fallover,
        interface: None,
        description,
        name,
    })
}

/// Reads `fast-fallover`.
pub(super) fn read_fallover(table: &Table<'_>, session: Option<&PeerConfig>) -> Fallover {
    match table.get("fast-fallover").and_then(|value| value.boolean()) {
        Some(true) => Fallover::Fast,
        Some(false) => Fallover::Timers,
        None => session.map(Fallover::of).unwrap_or_default(),
    }
}

/// Reads `bfd`, and sets what of it is a parameter of the BGP session.
pub(super) fn read_bfd(
    table: &Table<'_>,
    cx: &Context<'_>,
    session: &mut Option<PeerConfig>,
) -> Option<Arc<BfdSettings>> {
    let multihop_ttl = session.as_ref().and_then(|session| session.multihop_ttl);
    let template = bfd::read(table, cx.bfd, multihop_ttl, cx.folder)?;
    let session = session.as_mut()?;
    session.bfd_mode = template.mode;
    Some(template.settings(session))
}

/// Reads a range from which peers connect. The caller finishes the table.
pub(super) fn read_dynamic(table: &Table<'_>, cx: &Context<'_>) -> Option<DynamicPeers> {
    let prefix: Option<Prefix> =
        table.require("prefix", "set it to the range that peers connect from").and_then(|v| {
            let prefix: Prefix = v.parse()?;
            if prefix.addr().is_multicast() {
                v.fault("is a multicast range", "use a range of the neighbours' addresses");
                return None;
            }
            if matches!(prefix.addr(), IpAddr::V6(a) if a.is_unicast_link_local()) {
                v.fault(
                    "is a range of link-local addresses, which differ from link to link",
                    "write [[bgp.peers]] with interface = \"NAME\" instead, which may be a pattern",
                );
                return None;
            }
            Some(prefix)
        });
    let peers_max = table.get("peers-max").and_then(|v| v.integer(1..=1_000_000)).unwrap_or(1000);
    let vrf = read_vrf(table, cx.vrfs);
    for key in
        ["address", "port", "passive", "interface", "router-advertisements", "bind-interface"]
    {
        if let Some(value) = table.get(key) {
            value.fault_key("does not apply to a range, which is never dialled", "leave it out");
        }
    }
    let name = read_name(table);
    let description = read_description(table);
    let (mut session, routes) =
        read_common(table, cx, &Nature::of(prefix.map_or(Family::Ipv4, Prefix::family)));
    let bfd = read_bfd(table, cx, &mut session);
    let fallover = read_fallover(table, session.as_ref());
    let (session, routes, prefix) = (session?, routes?, prefix?);
    let label: Arc<str> = name.clone().unwrap_or_else(|| prefix.to_string().into());
    Some(DynamicPeers {
        prefix,
        peers_max,
        name,
        description,
        session: Arc::new(PeerConfig {
            address: prefix.addr(),
            passive: PassiveMode::Passive,
            vrf,
            ..session
        }),
        routes: Arc::new(PeerRoutes { name: label, ..routes }),
        bfd,
        fallover,
    })
}

/// What the addresses of a peer's session imply.
pub(super) struct Nature {
    /// That of the addresses.
    family: Family,
    /// Default of `families`.
    families: FamilySet,
    /// Default of `extended-next-hop`.
    extended_next_hop: bool,
    /// Whether the addresses are link-local.
    link_local: bool,
}

impl Nature {
    fn of(family: Family) -> Nature {
        let families = FamilySet::only(family);
        Nature { family, families, extended_next_hop: false, link_local: false }
    }

    /// Between link-local addresses, where IPv4 has no other next hop.
    pub(super) fn link_local() -> Nature {
        Nature {
            family: Family::Ipv6,
            families: FamilySet::ALL,
            extended_next_hop: true,
            link_local: true,
        }
    }
}

/// Reads `remote-asn`: a number, or which numbers are accepted.
fn read_remote_asn(table: &Table<'_>, local_asn: Asn) -> Option<RemoteAsn> {
    let value = table.require("remote-asn", "set it to the neighbour's AS number")?;
    let word = if value.is_integer() { None } else { value.text() };
    match word {
        Some("internal") => Some(local_asn.into()),
        Some("external") => Some(RemoteAsn::External),
        Some("any") => Some(RemoteAsn::Any),
        Some(text) if !text.starts_with(|c: char| c.is_ascii_digit()) => {
            value.fault(
                format_args!("\"{text}\" is not valid"),
                "write internal, external, any or an AS number",
            );
            None
        }
        _ => read_usable_asn(&value).map(RemoteAsn::from),
    }
}

/// Reads what peers and ranges have in common; the caller sets address, port, passive mode and
/// name.
pub(super) fn read_common(
    table: &Table<'_>,
    cx: &Context<'_>,
    nature: &Nature,
) -> (Option<PeerConfig>, Option<PeerRoutes>) {
    let local_asn = table.get("local-asn").and_then(|v| read_usable_asn(&v));
    let local_asn = local_asn.unwrap_or(cx.identity.asn);
    let remote_asn = read_remote_asn(table, local_asn);
    let timers = Timers::read(table, cx.timers);
    let session = read_session(table, cx, &timers, nature, remote_asn, local_asn);
    // Without a local AS, internal and external peers cannot be distinguished.
    let known = session.as_ref().filter(|s| s.local_asn.is_usable());
    let routes = read_routes(table, cx, known.map(PeerConfig::peer_type));
    (session, routes)
}

fn read_session(
    table: &Table<'_>,
    cx: &Context<'_>,
    timers: &Timers,
    nature: &Nature,
    remote_asn: Option<RemoteAsn>,
    local_asn: Asn,
) -> Option<PeerConfig> {
    let source_address = table.get("source-address").and_then(|v| read_source_address(&v, nature));
    let families = match table.get("families") {
        Some(value) => read_families(&value),
        None => nature.families,
    };
    let add_path = table.get("add-path").and_then(|v| read_add_path(&v)).unwrap_or_default();
    let md5 = read_key(table, cx.folder);
    let security = TransportSecurity {
        ao: key_chain::read_use(table, cx.key_chains, md5.as_ref()),
        md5,
        ttl_security_hops: table.get("ttl-security").and_then(|v| v.integer(1..=254)),
    };
    let multihop_ttl = table.get("multihop-ttl").and_then(|v| read_multihop_ttl(&v, &security));
    let flag = |key, default| table.get(key).and_then(|v| v.boolean()).unwrap_or(default);
    let hold_expiry =
        if flag("stale-on-hold-expiry", true) { HoldExpiry::Restart } else { HoldExpiry::Death };
    let extended_messages = flag("extended-messages", true);
    let extended_next_hop = flag("extended-next-hop", nature.extended_next_hop);
    let enhanced_refresh = flag("enhanced-refresh", true);
    let enforce_first_as = flag("enforce-first-as", true);
    let reject_as_sets = flag("reject-as-sets", true);
    let kind = match remote_asn {
        Some(RemoteAsn::Exactly(asn)) if asn == local_asn => PeerType::Internal,
        _ => PeerType::External,
    };
    let role = table.get("role").and_then(|v| read_role(&v, kind));
    let role_mode = table.get("role-strict").and_then(|v| read_role_mode(&v, role));

    let placeholder = IpAddr::from([0, 0, 0, 0]);
    Some(PeerConfig {
        source_address,
        local_asn,
        families,
        hold_time: timers.hold,
        keepalive_time: timers.keepalive,
        connect_retry_time: timers.connect_retry,
        send_hold_time: timers.send_hold,
        security,
        add_path: FamilyMap([add_path; 2]),
        graceful_restart_time: timers.graceful_restart(),
        long_lived_stale_time: timers.long_lived.map(|long_lived| long_lived.times),
        long_lived_stale_time_max: timers.long_lived.and_then(|long_lived| long_lived.max),
        hold_expiry,
        extended_messages,
        extended_next_hop,
        enhanced_refresh,
        enforce_first_as,
        reject_as_sets,
        role,
        role_mode: role_mode.unwrap_or(RoleMode::Lenient),
        multihop_ttl,
        ..PeerConfig::new(placeholder, remote_asn?, cx.identity)
    })
}

fn read_source_address(value: &Value<'_>, nature: &Nature) -> Option<IpAddr> {
    if nature.link_local {
        let remedy = "use a link-local address of the interface, or leave it out";
        return read_link_local(value, remedy).map(IpAddr::from);
    }
    let family = nature.family;
    let address = read_unicast(value, "an address of ours")?;
    if Prefix::host(address).family() != family {
        value.fault(
            format_args!("{address} cannot reach an {family} neighbour"),
            format_args!("use an {family} address of ours"),
        );
        return None;
    }
    Some(address)
}

fn read_add_path(value: &Value<'_>) -> Option<AddPathMode> {
    value.choice(&[
        ("none", AddPathMode::None),
        ("receive", AddPathMode::Receive),
        ("send", AddPathMode::Send),
        ("both", AddPathMode::Both),
    ])
}

fn read_multihop_ttl(value: &Value<'_>, security: &TransportSecurity) -> Option<u8> {
    if security.ttl_security_hops.is_some() {
        value.fault_key(
            "excludes ttl-security, which sends with 255",
            "leave one of them out; ttl-security takes the number of hops",
        );
    }
    value.integer(1..=255)
}

fn read_role_mode(value: &Value<'_>, role: Option<Role>) -> Option<RoleMode> {
    if role.is_none() {
        value.fault_key("needs a role", "set role, or leave it out (RFC 9234)");
    }
    let is_strict = value.boolean()?;
    Some(if is_strict { RoleMode::Strict } else { RoleMode::Lenient })
}

/// Our BGP role towards an external neighbour (RFC 9234).
fn read_role(value: &Value<'_>, kind: PeerType) -> Option<Role> {
    if kind == PeerType::Internal {
        value.fault_key("is for external peers", "leave it out (RFC 9234)");
        return None;
    }
    value.choice(&[
        ("provider", Role::Provider),
        ("rs", Role::RouteServer),
        ("rs-client", Role::RouteServerClient),
        ("customer", Role::Customer),
        ("peer", Role::Peer),
    ])
}

fn read_routes(table: &Table<'_>, cx: &Context<'_>, kind: Option<PeerType>) -> Option<PeerRoutes> {
    let import = read_policy(table, "import", cx.policies, kind);
    let export = read_policy(table, "export", cx.policies, kind);
    if kind == Some(PeerType::External) {
        require_policies(table);
    }
    let next_hop = table
        .get("next-hop")
        .and_then(|v| {
            v.choice(&[
                ("auto", NextHopMode::Auto),
                ("self", NextHopMode::SelfAddress),
                ("keep", NextHopMode::Keep),
            ])
        })
        .unwrap_or_default();
    let client = table.get("route-reflector-client");
    let route_reflector_client = client.as_ref().and_then(Value::boolean).unwrap_or(false);
    let cluster = table.get("cluster-id");
    let cluster_id = cluster.as_ref().and_then(|v| read_id::<ClusterId>(v, |id| id.0));
    if kind == Some(PeerType::External) {
        for value in client.filter(|_| route_reflector_client).iter().chain(&cluster) {
            value.fault_key(
                "is for internal peers, and remote-asn is not our AS",
                "leave it out (RFC 4456)",
            );
        }
    }
    let vantage = table.get("vantage").and_then(|v| vantage::read_name(&v));
    let allow_local_asn =
        table.get("allow-local-asn").and_then(|v| v.integer(0..=u8::MAX)).unwrap_or(0);
    let limits = read_limits(table);
    let route_limits = read_route_limits(table, cx.limits);
    let add_path_send = match table.get("add-path-paths-max").and_then(|v| v.integer(1..=255)) {
        Some(paths) => AddPathSend::Best(paths),
        None => AddPathSend::All,
    };
    let stale_time = table.get("stale-routes-time").and_then(|v| v.integer(1..=u16::MAX));
    let honour_graceful_shutdown =
        table.get("honour-graceful-shutdown").and_then(|v| v.boolean()).unwrap_or(true);
    Some(PeerRoutes {
        name: "".into(),
        import: ImportParams {
            policy: import?,
            allow_local_asn,
            limits: route_limits,
            honour_graceful_shutdown,
            drain: Drain::Off,
        },
        export: ExportParams { policy: export?, next_hop, add_path_send, drain: Drain::Off },
        reflection: ReflectionParams { client: route_reflector_client, cluster_id },
        vantage,
        limits,
        stale_time: Duration::from_secs(stale_time.unwrap_or(180).into()),
    })
}

/// Reads the limits of a session. The caller finishes the table.
pub(super) fn read_limits(table: &Table<'_>) -> PeerLimits {
    let default = PeerLimits::default();
    let percent = table.get("prefixes-warning-percent").and_then(|v| v.integer(1..=100));
    PeerLimits {
        prefixes_max: table.get("prefixes-max").and_then(|v| v.integer(1..=u32::MAX)),
        prefixes_warning_percent: percent.unwrap_or(default.prefixes_warning_percent),
        memory_max: read_memory(table),
    }
}

/// Reads `import` or `export`. Internal peers exchange all routes unless configured otherwise.
fn read_policy(
    table: &Table<'_>,
    key: &'static str,
    policies: &Policies,
    kind: Option<PeerType>,
) -> Option<Arc<Policy>> {
    if let Some(value) = table.get(key) {
        return policies.named(&value);
    }
    match kind {
        Some(PeerType::Internal) => Some(policies.all()),
        Some(PeerType::External) | None => None,
    }
}

/// An external peer needs explicit policies (RFC 8212 §2). There is one fault, whether one or both
/// are missing.
fn require_policies(table: &Table<'_>) {
    let missing = |key: &&'static str| table.get(key).is_none();
    let missing: Vec<&'static str> = ["import", "export"].into_iter().filter(missing).collect();
    let (key, what) = match missing[..] {
        [] => return,
        [key] => (key, "is missing, and an external peer needs one (RFC 8212)"),
        [key, ..] => (key, "is missing, and so is export; an external peer needs both (RFC 8212)"),
    };
    let keys = missing.join(" and ");
    table.fault_at(
        key,
        what,
        format_args!("write {keys} = \"all\", \"none\" or the name of a policy"),
    );
}

fn read_families(value: &Value<'_>) -> FamilySet {
    let list = value.list();
    if list.is_empty() {
        value.fault("is empty", "write [\"ipv4\"], [\"ipv6\"] or both");
    }
    let mut families = FamilySet::EMPTY;
    for value in list {
        let Some(family) = value.choice(&[("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)]) else {
            continue;
        };
        if families.contains(family) {
            value.fault(format_args!("{family} is listed twice"), "leave one out");
        }
        families.insert(family);
    }
    families
}

pub(super) fn read_name(table: &Table<'_>) -> Option<Arc<str>> {
    let value = table.get("name")?;
    let name = value.text()?;
    if name.is_empty() || !name.chars().all(is_of_word) {
        value.fault("must be one word", "use letters, digits, \"-\", \"_\" and \".\"");
        return None;
    }
    Some(name.into())
}

/// Reads `description`, which is shown in tables, in one line of the log and on `bird.ctl`.
pub(super) fn read_description(table: &Table<'_>) -> Option<Arc<str>> {
    let value = table.get("description")?;
    let text = value.text()?;
    if text.trim().is_empty() || text.len() > DESCRIPTION_LEN_MAX || text.contains(char::is_control)
    {
        value.fault(
            "is not one line",
            format_args!("write at most {DESCRIPTION_LEN_MAX} octets without line ends"),
        );
        return None;
    }
    Some(text.into())
}

/// Reads an address that can be an end of a TCP connection.
fn read_unicast(value: &Value<'_>, wanted: &str) -> Option<IpAddr> {
    let address: IpAddr = value.parse_as("an address such as 192.0.2.1 or 2001:db8::1")?;
    let fault = match address {
        IpAddr::V4(a) if a.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(a) if a.is_unicast_link_local() => {
            value.fault(
                "is link-local, and the link is not named",
                "add interface = \"NAME\", or use a global or unique-local address",
            );
            return None;
        }
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("is an IPv4 address in IPv6 form"),
        a if a.is_unspecified() => Some("is not an address of one machine"),
        a if a.is_multicast() => Some("is a multicast address"),
        _ => None,
    };
    if let Some(what) = fault {
        value.fault(what, format_args!("use {wanted}"));
        return None;
    }
    Some(address)
}

/// Reads an address of fe80::/64 (RFC 4291 §2.5.6) that is one of a host.
pub(super) fn read_link_local(value: &Value<'_>, remedy: &str) -> Option<Ipv6Addr> {
    let address: IpAddr = value.parse_as("an address such as fe80::1")?;
    match address {
        IpAddr::V6(a) if a.is_unicast_link_local() && a.to_bits() as u64 != 0 => {
            let folded = on_interface6(a, 0);
            if folded == a {
                return Some(a);
            }
            value.fault(
                format_args!("{address} is not in fe80::/64, where all link-local addresses are"),
                format_args!("write {folded}"),
            );
            None
        }
        _ => {
            value.fault(
                format_args!(
                    "{address} is not link-local, and interface is for neighbours that are"
                ),
                remedy,
            );
            None
        }
    }
}

fn read_key(table: &Table<'_>, folder: &Path) -> Option<AuthKey> {
    let (value, octets) = read_password(table, folder)?;
    let len = octets.len();
    let key = AuthKey::new(octets);
    if key.is_none() {
        let max = AuthKey::MAX_LEN;
        value.fault(
            format_args!("a password of {len} octets cannot be used"),
            format_args!("use 1-{max} octets"),
        );
    }
    key
}
