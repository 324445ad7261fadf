//! `[fib]`, `[control]`, `[log]`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bgp_proto::policy::Policy;
use bgp_proto::rib::{MultipathAsPath, ViaDefault};
use bgp_proto::table::MultipathWeights;

use super::policy::Policies;
use super::reader::{Table, Value};
use super::{BirdPaths, BirdSockets, FibSettings, LogFormat, LogLevel, LogSettings};

/// Names of rtm_protocol numbers, as in iproute2's `rt_protos`.
const PROTOCOLS: [(&str, u8); 17] = [
    ("redirect", 1),
    ("kernel", 2),
    ("boot", 3),
    ("static", 4),
    ("gated", 8),
    ("ra", 9),
    ("mrt", 10),
    ("zebra", 11),
    ("bird", 12),
    ("dhcp", 16),
    ("keepalived", 18),
    ("babel", 42),
    ("felix", 80),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
];

/// `fib.multipath-weights`.
const MULTIPATH_WEIGHTS: [(&str, MultipathWeights); 2] =
    [("equal", MultipathWeights::Equal), ("link-bandwidth", MultipathWeights::LinkBandwidth)];

/// `fib.multipath-as-path`.
const MULTIPATH_AS_PATH: [(&str, MultipathAsPath); 3] = [
    ("equal-length", MultipathAsPath::EqualLength),
    ("same-neighbor-as", MultipathAsPath::SameNeighborAs),
    ("identical", MultipathAsPath::Identical),
];

/// `fib.resolve-via-default`.
const VIA_DEFAULT: [(&str, ViaDefault); 3] = [
    ("never", ViaDefault::Never),
    ("internal", ViaDefault::Internal),
    ("always", ViaDefault::Always),
];

/// The content of `[fib]`.
pub(super) struct Fib {
    pub(super) settings: FibSettings,
    pub(super) policy: Option<Arc<Policy>>,
}

pub(super) fn read_fib(root: &Table<'_>, policies: &Policies) -> Fib {
    let mut settings = FibSettings::default();
    let Some(table) = root.get("fib").and_then(|v| v.table()) else {
        return Fib { settings, policy: None };
    };
    if let Some(enabled) = table.get("enabled").and_then(|v| v.boolean()) {
        settings.enabled = enabled;
    }
    if let Some(value) = table.get("table")
        && let Some(number) = value.integer(1..=u32::MAX)
    {
        if number == 255 {
            value.fault("255 is the kernel's own table \"local\"", "use 254 (main) or another");
        }
        settings.table = number;
    }
    if let Some(value) = table.get("protocol")
        && let Some(number) = read_protocol(&value)
    {
        if number < 5 {
            value.fault(
                format_args!("{number} marks routes of the kernel or of the administrator"),
                "use 5-255: every route in the table with this number is taken for ours",
            );
        }
        settings.protocol = number;
    }
    settings.metric = table.get("metric").and_then(|v| v.integer(0..=u32::MAX));
    if let Some(hops) = table.get("multipath-max").and_then(|v| v.integer(1..=256u16)) {
        settings.multipath_max = hops.into();
    }
    if let Some(weights) = table.get("multipath-weights").and_then(|v| v.choice(&MULTIPATH_WEIGHTS))
    {
        settings.multipath_weights = weights;
    }
    if let Some(paths) = table.get("multipath-as-path").and_then(|v| v.choice(&MULTIPATH_AS_PATH)) {
        settings.multipath_as_path = paths;
    }
    if let Some(over) = table.get("resolve-via-default").and_then(|v| v.choice(&VIA_DEFAULT)) {
        settings.via_default = over;
    }
    if let Some(over) = table.get("resolve-over-bgp").and_then(|v| v.boolean()) {
        settings.resolve_over_bgp = over;
    }
    if let Some(objects) = table.get("next-hop-objects").and_then(|v| v.boolean()) {
        settings.next_hop_objects = objects;
    }
    if let Some(value) = table.get("backup-paths")
        && let Some(backup) = value.boolean()
    {
        if backup && !settings.next_hop_objects {
            value.fault("needs next-hop objects", "leave out next-hop-objects = false");
        }
        settings.backup_paths = backup;
    }
    if let Some(value) = table.get("source") {
        read_sources(&value, &mut settings);
    }
    let policy = table.get("policy").and_then(|v| policies.named(&v));
    table.finish();
    Fib { settings, policy }
}

/// `fib.source`: an address, or a list with at most one of each family.
fn read_sources(value: &Value<'_>, settings: &mut FibSettings) {
    for item in value.list() {
        let taken = match item.parse_as("an address such as 192.0.2.1") {
            Some(IpAddr::V4(addr)) => settings.source_v4.replace(addr).is_some(),
            Some(IpAddr::V6(addr)) => settings.source_v6.replace(addr).is_some(),
            None => false,
        };
        if taken {
            item.fault("is the second address of its family", "name one IPv4 and one IPv6 address");
        }
    }
}

/// An rtm_protocol: a number or a name.
pub(super) fn read_protocol(value: &Value<'_>) -> Option<u8> {
    if value.is_integer() { value.integer(0..=255) } else { value.choice(&PROTOCOLS) }
}

/// The path of a socket. Faults of the path are noted, and it is returned all the same.
pub(super) fn read_socket(value: &Value<'_>) -> Option<PathBuf> {
    // sun_path holds 108 octets with the final zero.
    const SOCKET_PATH_MAX: usize = 107;
    let path = value.text()?;
    if !path.starts_with('/') {
        value.fault("is not an absolute path", "begin it with /");
    } else if path.len() > SOCKET_PATH_MAX {
        value.fault(
            format_args!("is {} octets long", path.len()),
            format_args!("use at most {SOCKET_PATH_MAX}, a limit of the system"),
        );
    }
    Some(PathBuf::from(path))
}

/// Two paths: the first for IPv4, the second for IPv6; or `"none"`.
pub(super) fn read_bird_sockets(value: &Value<'_>) -> Option<BirdSockets> {
    if value.is_text("none") {
        return Some(BirdSockets::Off);
    }
    let paths: Vec<PathBuf> = value.list().iter().filter_map(read_socket).collect();
    match paths.as_slice() {
        [ipv4, ipv6] if ipv4 != ipv6 => {
            Some(BirdSockets::At(BirdPaths { ipv4: ipv4.clone(), ipv6: ipv6.clone() }))
        }
        _ => {
            value.fault(
                "is not a list of two different paths",
                "write [\"/var/run/calico/bird.ctl\", \"/var/run/calico/bird6.ctl\"], or \"none\"",
            );
            None
        }
    }
}

pub(super) fn read_log(root: &Table<'_>) -> LogSettings {
    let mut log = LogSettings { level: LogLevel::default(), format: LogFormat::default() };
    if let Some(table) = root.get("log").and_then(|v| v.table()) {
        let levels =
            [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
                .map(|level| (level.as_str(), level));
        let formats = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("journal", LogFormat::Journal),
        ];
        let level = table.get("level").and_then(|v| v.choice(&levels));
        let format = table.get("format").and_then(|v| v.choice(&formats));
        table.finish();
        log = LogSettings { level: level.unwrap_or_default(), format: format.unwrap_or_default() };
    }
    log
}
