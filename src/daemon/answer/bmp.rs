//! Answers about monitoring stations.

use std::time::Duration;

use crate::bmp::{State, Status, Statuses};
use crate::config::BmpStation;
use crate::ctl::item::{MonitoredTable, Station};
use crate::http::StationMetrics;
use bgp_proto::table::{Mirroring, MonitoredPeers};

/// How long the answer waits for a table.
const TABLE_WAIT: Duration = Duration::from_secs(1);

/// All stations.
pub(super) async fn stations(statuses: &Statuses) -> Vec<Station> {
    let mut items = Vec::new();
    for status in statuses.all() {
        items.push(item(&status).await);
    }
    items
}

async fn item(status: &Status) -> Station {
    let (settings, view) = (status.settings(), status.view());
    let (mode, address) = match &settings.station {
        BmpStation::Connect { to, .. } => ("connect", to),
        BmpStation::Listen { on, .. } => ("listen", on),
    };
    let mut tables = Vec::new();
    for table in view.tables {
        let id = table.monitor;
        let counts = table.instance.table.ask(move |table, _| table.monitor_counts(id));
        let counts = tokio::time::timeout(TABLE_WAIT, counts).await.ok().flatten().flatten();
        let counts = counts.unwrap_or_default();
        tables.push(MonitoredTable {
            name: table.instance.name.to_string(),
            held_octets: counts.octets,
            messages: counts.messages,
            peers_up: counts.peers,
            left_out: counts.left_out,
        });
    }
    Station {
        name: settings.name.to_string(),
        mode: mode.to_owned(),
        address: address.to_string(),
        state: view.state.as_str().to_owned(),
        state_seconds: view.since.map_or(0, |since| since.elapsed().as_secs()),
        remote: view.remote.map(|remote| remote.to_string()),
        ribs: settings.rib_names().into_iter().map(str::to_owned).collect(),
        mirror: (settings.mirror != Mirroring::Nothing).then(|| settings.mirror_name().to_owned()),
        peers: match &settings.peers {
            MonitoredPeers::All => None,
            MonitoredPeers::Named(names) => {
                Some(names.iter().map(|name| name.to_string()).collect())
            }
        },
        connections: view.counts.connections,
        too_slow: view.counts.too_slow,
        refused: view.counts.refused,
        sent_octets: view.counts.octets,
        received_octets: view.counts.received,
        last_error: view.last_error,
        tables,
    }
}

/// The same for scrapers.
pub(super) fn metrics(statuses: &Statuses) -> Vec<StationMetrics> {
    let of = |status: &Status| {
        let view = status.view();
        StationMetrics {
            name: status.settings().name.to_string(),
            is_up: view.state == State::Up,
            connections: view.counts.connections,
            too_slow: view.counts.too_slow,
            refused: view.counts.refused,
            octets: view.counts.octets,
        }
    };
    statuses.all().iter().map(of).collect()
}
