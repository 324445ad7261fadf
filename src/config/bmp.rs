//! `[[bmp]]`: monitoring stations (RFC 7854).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::bmp::Rib;
use bgp_proto::table::{Mirroring, MonitoredPeers};
use bgp_proto::types::Prefix;

use super::reader::{Table, Value};

/// The port that stations commonly listen on; RFC 7854 assigns none.
pub const BMP_PORT: u16 = 11019;
/// Most stations: each marks what changes in every table.
const STATIONS_MAX: usize = 16;

/// A monitoring station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmpSettings {
    /// Its name, for operators.
    pub name: Arc<str>,
    /// How it is reached.
    pub station: BmpStation,
    /// What it is sent. Default: the Loc-RIB.
    pub ribs: BTreeSet<Rib>,
    /// Which messages of those peers it is sent as they were received. Default: none.
    pub mirror: Mirroring,
    /// Of which peers. Default: all.
    pub peers: MonitoredPeers,
    /// How often statistics are sent, 5 s to one day; `None`: never. Default 60 s.
    pub statistics_interval: Option<Duration>,
    /// Most octets that each table may hold for it, 1 MiB to 1 TiB. Default 64 MiB.
    pub memory_max: u64,
}

/// How a station is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BmpStation {
    /// We connect.
    Connect {
        /// To this address.
        to: SocketAddr,
        /// From this address; `None`, the default: the kernel's choice.
        source: Option<IpAddr>,
    },
    /// It connects.
    Listen {
        /// To this address of ours.
        on: SocketAddr,
        /// From one of these addresses; others are refused.
        from: Vec<Prefix>,
    },
}

impl fmt::Display for BmpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}", self.name, self.station, self.rib_names().join(", "))?;
        if self.mirror != Mirroring::Nothing {
            write!(f, ", mirrored {}", self.mirror_name())?;
        }
        match &self.peers {
            MonitoredPeers::All => Ok(()),
            MonitoredPeers::Named(names) => {
                let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                write!(f, " of {}", names.join(", "))
            }
        }
    }
}

impl fmt::Display for BmpStation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BmpStation::Connect { to, .. } => write!(f, "at {to}"),
            BmpStation::Listen { on, .. } => write!(f, "on {on}"),
        }
    }
}

impl BmpSettings {
    /// The words for what it is sent.
    pub fn rib_names(&self) -> Vec<&'static str> {
        let chosen = BMP_RIBS.into_iter().filter(|(_, rib)| self.ribs.contains(rib));
        chosen.map(|(word, _)| word).collect()
    }

    /// The word for which messages it is sent as they were received.
    pub fn mirror_name(&self) -> &'static str {
        let chosen = BMP_MIRRORING.into_iter().find(|(_, mirror)| *mirror == self.mirror);
        chosen.map_or("nothing", |(word, _)| word)
    }
}

/// The words for RIBs.
pub const BMP_RIBS: [(&str, Rib); 5] = [
    ("loc-rib", Rib::LocRib),
    ("adj-rib-in-pre-policy", Rib::AdjRibInPre),
    ("adj-rib-in-post-policy", Rib::AdjRibInPost),
    ("adj-rib-out-pre-policy", Rib::AdjRibOutPre),
    ("adj-rib-out-post-policy", Rib::AdjRibOutPost),
];

/// The words for which messages are mirrored.
const BMP_MIRRORING: [(&str, Mirroring); 2] =
    [("nothing", Mirroring::Nothing), ("errors", Mirroring::Errors)];

pub(super) fn read(root: &Table<'_>) -> Vec<BmpSettings> {
    let mut stations: Vec<BmpSettings> = Vec::new();
    for table in root.tables("bmp") {
        let entry = read_entry(&table, &stations);
        table.finish();
        if stations.len() >= STATIONS_MAX {
            table_full(root);
            break;
        }
        stations.extend(entry);
    }
    check_own(root, &stations);
    stations
}

fn table_full(root: &Table<'_>) {
    root.fault_at(
        "bmp",
        format_args!("more than {STATIONS_MAX} stations"),
        "let some of them read from another station",
    );
}

/// A station that is ourselves would be sent what it is sent.
fn check_own(root: &Table<'_>, stations: &[BmpSettings]) {
    let listens = |to: &SocketAddr| {
        stations.iter().find(|other| {
            matches!(other.station, BmpStation::Listen { on, .. }
                if on == *to || on.port() == to.port() && to.ip().is_loopback() && on.ip().is_unspecified())
        })
    };
    for station in stations {
        if let BmpStation::Connect { to, .. } = &station.station
            && let Some(own) = listens(to)
        {
            root.fault_at(
                "bmp",
                format_args!("{} is where {} has us listen ourselves", to, own.name),
                format_args!("set the address of the station {}", station.name),
            );
        }
    }
}

fn read_entry(table: &Table<'_>, others: &[BmpSettings]) -> Option<BmpSettings> {
    let name = table.require("name", "name the station").and_then(|value| {
        let name = value.text()?;
        if name.is_empty() || others.iter().any(|other| &*other.name == name) {
            value.fault(
                format_args!("\"{name}\" is empty or another station's"),
                "use another name",
            );
            return None;
        }
        Some(Arc::<str>::from(name))
    });
    let station = read_station(table, others);
    let ribs = match table.get("ribs") {
        Some(value) => read_ribs(&value),
        None => BTreeSet::from([Rib::LocRib]),
    };
    let peers = match table.get("peers") {
        Some(value) => MonitoredPeers::Named(
            value.read_list(|name| name.text().map(Arc::from)).into_iter().collect(),
        ),
        None => MonitoredPeers::All,
    };
    let mirror = table.get("mirror").and_then(|word| word.choice(&BMP_MIRRORING));
    let interval = table.get("statistics-interval").map(|value| {
        if value.is_boolean() {
            if value.boolean() == Some(true) {
                value.fault("true is no interval", "set it to seconds, or to false");
            }
            return None;
        }
        value.integer(5..=86_400_u32).map(|secs| Duration::from_secs(secs.into()))
    });
    let memory_max = table.get("memory-max").and_then(|v| v.integer(1..=1_u64 << 20));
    Some(BmpSettings {
        name: name?,
        station: station?,
        ribs,
        mirror: mirror.unwrap_or_default(),
        peers,
        statistics_interval: interval.unwrap_or(Some(Duration::from_secs(60))),
        memory_max: memory_max.unwrap_or(64) << 20,
    })
}

fn read_ribs(value: &Value<'_>) -> BTreeSet<Rib> {
    let chosen = value.read_list(|word| word.choice(&BMP_RIBS));
    let ribs: BTreeSet<Rib> = chosen.into_iter().collect();
    if ribs.is_empty() {
        value.fault("names no RIB", "name at least one, or leave the entry out");
    }
    ribs
}

fn read_station(table: &Table<'_>, others: &[BmpSettings]) -> Option<BmpStation> {
    let address = table.get("address");
    let listen = table.get("listen");
    let (port, source, from) = (table.get("port"), table.get("source-address"), table.get("from"));
    match (address, listen) {
        (Some(value), None) => {
            let port = port.map_or(Some(BMP_PORT), |value| value.integer(1..=u16::MAX));
            let source = match source {
                Some(value) => Some(value.parse_as::<IpAddr>("an IP address")?),
                None => None,
            };
            if let Some(from) = from {
                from.fault_key("belongs to `listen`", "leave it out, or listen");
            }
            let to = SocketAddr::new(value.parse_as::<IpAddr>("an IP address")?, port?);
            let is_known = |other: &&BmpSettings| matches!(other.station, BmpStation::Connect { to: known, .. } if known == to);
            if let Some(other) = others.iter().find(is_known) {
                value.fault(format_args!("{to} is {} already", other.name), "keep one entry");
                return None;
            }
            if let Some(source) = source
                && source.is_ipv4() != to.is_ipv4()
            {
                value.fault(
                    format_args!(
                        "{} and source-address {source} are of different families",
                        to.ip()
                    ),
                    "use addresses of one family",
                );
                return None;
            }
            Some(BmpStation::Connect { to, source })
        }
        (None, Some(value)) => {
            for (key, other) in [("port", port), ("source-address", source)] {
                if let Some(other) = other {
                    other.fault_key(format_args!("{key} belongs to `address`"), "leave it out");
                }
            }
            let on = value.parse_as::<SocketAddr>("an address with a port")?;
            let is_known = |other: &&BmpSettings| matches!(other.station, BmpStation::Listen { on: known, .. } if known == on);
            if let Some(other) = others.iter().find(is_known) {
                value.fault(
                    format_args!("{} listens on {on} already", other.name),
                    "use another port",
                );
                return None;
            }
            let from: Vec<Prefix> = from
                .map(|value| {
                    value.read_list(|one| {
                        let host = one.text()?.parse::<IpAddr>().ok().map(Prefix::host);
                        host.or_else(|| one.parse_as::<Prefix>("an address or a prefix"))
                    })
                })
                .unwrap_or_default();
            if from.is_empty() {
                value.fault_key(
                    "needs `from`: a station is told every route",
                    "list the addresses that it may connect from",
                );
                return None;
            }
            Some(BmpStation::Listen { on, from })
        }
        (Some(_), Some(value)) => {
            value.fault_key("and `address` exclude each other", "keep one of them");
            None
        }
        (None, None) => {
            table.fault("neither `address` nor `listen` is set", "say where the station is");
            None
        }
    }
}
