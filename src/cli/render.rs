//! Human-readable output: aligned tables, relative ages, no control characters from peers.

use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::de::DeserializeOwned;

use super::client::ClientError;
use crate::ctl::item::{
    Calico, FibRoute, Group, Health, LogLevel, Peer, PerFamily, Range, RefusedConnections,
    RouteCount, Status, Stopping, VrfStatus,
};
use crate::ctl::{Request, StopMode};
use crate::plural::counted;

mod announced;
mod bfd;
mod bmp;
mod configuration;
mod debug;
mod draining;
mod events;
mod explain;
mod json;
mod key_chains;
mod look;
mod next_hops;
mod peer;
mod policy;
mod probe;
mod routes;
mod steered;
mod table;

pub(super) use configuration::{reloaded, unconfirmed};
pub(super) use json::JsonWriter;
pub(super) use look::{Colour, Look, Times, age};
pub(super) use routes::{as_path, communities, flags};
pub(super) use table::{clean, without_middle, wrap};

use Align::{Left, Right};
use draining::{drained, draining};
use explain::explanation;
use peer::peer;
use routes::{Routes, gateways};
use table::{Align, Cell, Paint, Table};

/// Prints the items of one reply as they arrive.
pub(super) struct Renderer<W> {
    out: W,
    view: View,
    look: Look,
}

enum View {
    Status,
    Peers(Table),
    Peer,
    Routes(Routes),
    Count,
    Fib(Table),
    Groups(Table),
    NextHops(Table),
    Bfd(Table),
    Bmp(Table),
    KeyChains(Table),
    Steered(Table),
    Announced(Table),
    AnnounceDone,
    Draining,
    Events,
    Probed,
    Debugged,
    Explanation(Prefix),
    Reloaded,
    Confirmed,
    Policy,
    PolicyTest,
    Config,
    LogLevel,
    Stopping,
    Health,
    /// A file, which its command writes.
    Nothing,
}

impl<W: Write> Renderer<W> {
    /// A renderer for the reply to `request`.
    pub(super) fn new(request: &Request, look: Look, out: W) -> Self {
        let table =
            |columns: &[(&'static str, Align)]| Table::new(columns, look.width, look.has_colour());
        let view = match request {
            Request::ShowStatus => View::Status,
            Request::ShowPeers | Request::ShowPeersIn { .. } => {
                View::Peers(table(&PEER_COLUMNS).with_optional("DESCRIPTION"))
            }
            Request::ShowPeer { .. } => View::Peer,
            Request::ShowRoutes { select, .. }
            | Request::ShowReceived { select, .. }
            | Request::ShowAdvertised { select, .. }
            | Request::ShowFib { select }
                if select.count =>
            {
                View::Count
            }
            Request::ShowRoutes { .. }
            | Request::ShowReceived { .. }
            | Request::ShowAdvertised { .. } => View::Routes(Routes::new(table(&routes::COLUMNS))),
            Request::ShowFib { .. } => View::Fib(table(&FIB_COLUMNS)),
            Request::ShowGroups => View::Groups(table(&GROUP_COLUMNS)),
            Request::ShowNexthops { .. } => View::NextHops(table(&next_hops::COLUMNS)),
            Request::ShowBfd => View::Bfd(table(&bfd::COLUMNS)),
            Request::ShowBmp => View::Bmp(table(&bmp::COLUMNS)),
            Request::ShowKeyChains => View::KeyChains(table(&key_chains::COLUMNS)),
            Request::Explain { prefix, .. } => View::Explanation(*prefix),
            Request::Peer { .. } => View::Steered(table(&steered::COLUMNS)),
            Request::Drain { .. } | Request::Undrain { .. } | Request::ShowDrain => View::Draining,
            Request::Announce { .. } | Request::Withdraw { .. } => View::AnnounceDone,
            Request::ShowAnnounced => View::Announced(table(&announced::COLUMNS)),
            Request::Events { .. } => View::Events,
            Request::Probe { .. } => View::Probed,
            Request::Debug { .. } | Request::ShowDebug => View::Debugged,
            Request::Reload
            | Request::ReloadDryRun { .. }
            | Request::CalicoDryRun { .. }
            | Request::ReloadUnconfirmed { .. } => View::Reloaded,
            Request::Confirm => View::Confirmed,
            Request::ShowPolicy { .. } => View::Policy,
            Request::PolicyTest { .. } => View::PolicyTest,
            Request::ShowConfig => View::Config,
            Request::LogLevel { .. } => View::LogLevel,
            Request::Stop { .. } => View::Stopping,
            Request::Health => View::Health,
            // No command asks for these.
            Request::Dump { .. } | Request::ShowOverview | Request::ShowRates => View::Nothing,
        };
        Renderer { out, view, look }
    }

    /// Prints the next item.
    ///
    /// # Errors
    /// The item does not fit the request, or it cannot be written.
    pub(super) fn item(&mut self, item: &str) -> Result<(), ClientError> {
        let (out, look) = (&mut self.out, &self.look);
        let written = match &mut self.view {
            View::Status => out.write_all(status(&read(item)?, look).as_bytes()),
            View::Peers(table) => table.row(peer_row(&read(item)?, look), out),
            View::Peer => out.write_all(peer(&read(item)?, look).as_bytes()),
            View::Routes(routes) => return routes.add(item, look, out),
            View::Count => out.write_all(count(&read(item)?).as_bytes()),
            View::Fib(table) => table.row(fib_row(&read(item)?), out),
            View::Groups(table) => table.row(group_row(&read(item)?), out),
            View::NextHops(table) => table.row(next_hops::row(&read(item)?), out),
            View::Bfd(table) => table.row(bfd::row(&read(item)?), out),
            View::Bmp(table) => table.row(bmp::row(&read(item)?), out),
            View::KeyChains(table) => table.row(key_chains::row(&read(item)?), out),
            View::Announced(table) => table.row(announced::row(&read(item)?, look), out),
            View::AnnounceDone => out.write_all(announced::done(&read(item)?).as_bytes()),
            View::Steered(table) => table.row(steered::row(&read(item)?), out),
            View::Explanation(asked) => {
                out.write_all(explanation(&read(item)?, *asked, look).as_bytes())
            }
            View::Events => out
                .write_all(events::event(&read(item)?, look).as_bytes())
                .and_then(|()| out.flush()),
            View::Debugged => out.write_all(debug::debugged(&read(item)?).as_bytes()),
            View::Probed => out.write_all(probe::probed(&read(item)?, look).as_bytes()),
            View::Draining => out.write_all(draining(&read(item)?, look).as_bytes()),
            View::LogLevel => out.write_all(log_level(&read(item)?).as_bytes()),
            View::Config => out.write_all(configuration::section(&read(item)?).as_bytes()),
            View::Reloaded => out.write_all(configuration::reloaded(&read(item)?).as_bytes()),
            View::Confirmed => out.write_all(b"the reload is confirmed: it stays\n"),
            View::Policy => out.write_all(policy::hits(&read(item)?).as_bytes()),
            View::PolicyTest => out.write_all(policy::test(&read(item)?).as_bytes()),
            View::Stopping => out.write_all(stopping(&read(item)?).as_bytes()),
            View::Health => out.write_all(health(&read(item)?).as_bytes()),
            View::Nothing => Ok(()),
        };
        written.map_err(ClientError::Output)
    }

    /// Writes the remaining output.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(mut self) -> Result<(), ClientError> {
        let written = match &mut self.view {
            View::Routes(routes) => routes.table.flush(&mut self.out),
            View::Peers(table)
            | View::Fib(table)
            | View::Groups(table)
            | View::NextHops(table)
            | View::Bfd(table)
            | View::Bmp(table)
            | View::KeyChains(table)
            | View::Announced(table)
            | View::Steered(table) => table.flush(&mut self.out),
            _ => Ok(()),
        };
        written.and_then(|()| self.out.flush()).map_err(ClientError::Output)
    }
}

fn read<T: DeserializeOwned>(item: &str) -> Result<T, ClientError> {
    serde_json::from_str(item).map_err(ClientError::Answer)
}

fn text<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_else(|| "-".to_owned())
}

/// Adds a line with a label and a value, aligned with the other lines of the block.
fn line(out: &mut String, label: &str, value: impl std::fmt::Display) {
    debug_assert!(label.len() < 16, "no space behind {label}");
    let value = clean(&value.to_string());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{label:<16}{value}");
}

fn health(health: &Health) -> String {
    let mut out = String::new();
    let alive = match health.not_alive.as_slice() {
        [] => "yes".to_owned(),
        stuck => format!("no: {}", stuck.join("; ")),
    };
    line(&mut out, "alive", alive);
    let ready = health.not_ready.as_deref();
    line(&mut out, "ready", ready.map_or("yes".into(), |reason| format!("no: {reason}")));
    out
}

fn both(counts: &PerFamily<u32>) -> String {
    format!("{} ipv4, {} ipv6", counts.ipv4, counts.ipv6)
}

fn status(s: &Status, look: &Look) -> String {
    let mut out = String::new();
    match &s.commit {
        Some(commit) => line(&mut out, "version", format_args!("{} (commit {commit})", s.version)),
        None => line(&mut out, "version", &s.version),
    }
    line(&mut out, "AS", s.asn);
    line(&mut out, "router id", &s.router_id);
    line(&mut out, "cluster id", &s.cluster_id);
    line(&mut out, "running", look.since_in_full(s.uptime_seconds));
    if let Some(config) = &s.config {
        line(
            &mut out,
            "configuration",
            format_args!("{config} (read {})", look.time_of(&text(&s.config_read))),
        );
    }
    line(&mut out, "ready", s.not_ready.as_deref().map_or("yes".into(), |r| format!("no: {r}")));
    if let Some(held) = &s.held_back {
        line(&mut out, "announcements", format_args!("held back {held}"));
    }
    if let Some(refused) = &s.reload_refused {
        let text = refused.text.replace('\n', "; ");
        line(
            &mut out,
            "last reload",
            format_args!("refused at {}: {text}", look.time_of(&refused.at)),
        );
    }
    if let Some(reload) = &s.reload_unconfirmed {
        let text = configuration::unconfirmed(reload);
        line(&mut out, "last reload", text);
    }
    for problem in &s.problems {
        line(&mut out, "problem", problem);
    }
    if let Some(level) = &s.log_level {
        line(&mut out, "log level", level);
    }
    line(&mut out, "peers", format_args!("{}, {} established", s.peers, s.peers_established));
    for range in &s.ranges {
        line(&mut out, "range", of_range(range));
    }
    for refused in &s.refused_connections {
        line(&mut out, "refused", refused_connections(refused));
    }
    match &s.drained {
        Some(all) => line(&mut out, "drained", format_args!("every peer {}", drained(all, look))),
        None if s.peers_drained > 0 => {
            line(&mut out, "drained", counted(u64::from(s.peers_drained), "peer"));
        }
        None => {}
    }
    if s.announced > 0 {
        let routes = counted(u64::from(s.announced), "route");
        line(&mut out, "announced", format_args!("{routes} by command (margay show announced)"));
    }
    line(&mut out, "destinations", both(&s.destinations));
    line(&mut out, "paths", both(&s.paths));
    line(&mut out, "attribute sets", s.attribute_sets);
    line(&mut out, "next hops", s.next_hops);
    line(&mut out, "update groups", s.groups);
    let f = &s.fib;
    if f.enabled {
        line(
            &mut out,
            "kernel routes",
            format_args!(
                "{} installed, {} pending, {} failed, {} foreign",
                f.installed, f.pending, f.failed, f.foreign
            ),
        );
        if f.next_hop_objects > 0 {
            line(&mut out, "nexthop objects", f.next_hop_objects);
        }
    } else {
        line(&mut out, "kernel routes", "not written")
    }
    s.vrfs.iter().for_each(|vrf| vrf_status(vrf, &mut out));
    if let Some(http) = &s.http {
        match &http.error {
            None => line(&mut out, "metrics", format_args!("on http://{}", http.listen)),
            Some(error) => line(&mut out, "metrics", format_args!("not served: {error}")),
        }
    }
    if let Some(calico) = &s.calico {
        calico_status(calico, &mut out);
    }
    out
}

fn of_range(range: &Range) -> String {
    let Range { name, prefix, vrf, peers, peers_max } = range;
    let name = name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
    let vrf = vrf.as_ref().map(|vrf| format!(" in VRF {vrf}")).unwrap_or_default();
    format!("{name}{prefix}{vrf}: {peers} of {}", counted(*peers_max, "peer"))
}

fn refused_connections(refused: &RefusedConnections) -> String {
    let RefusedConnections { address, interface, reason, count, seconds } = refused;
    let interface = interface.as_ref().map(|name| format!("%{name}")).unwrap_or_default();
    let connections = counted(*count, "connection");
    let ago = age(*seconds);
    format!("{connections} from {address}{interface}, the last {ago} ago: {reason}")
}

fn vrf_status(vrf: &VrfStatus, out: &mut String) {
    let name = &vrf.name;
    let Some(table) = vrf.table else {
        return line(out, "VRF", format_args!("{name}, which does not exist at present"));
    };
    let (installed, groups) = (vrf.fib.installed, vrf.groups);
    let (destinations, paths) = (both(&vrf.destinations), both(&vrf.paths));
    let text = format!(
        "{name}, table {table}: {destinations} destinations, {paths} paths, {groups} update groups, \
         {installed} kernel routes"
    );
    let failed = match vrf.fib.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    line(out, "VRF", text + &failed);
}

fn calico_status(c: &Calico, out: &mut String) {
    line(out, "Calico node", &c.node);
    if !c.release.is_empty() {
        line(out, "Calico release", &c.release);
    }
    for source in &c.sources {
        let mut state = source.state.clone();
        if let Some(away) = source.away_seconds {
            let error = source.error.as_deref().unwrap_or_default();
            state = format!("away for {}: {error}", age(away));
        } else {
            if let Some(revision) = source.revision {
                state += &format!(", revision {revision}");
            }
            if let Some(heard) = source.heard_seconds {
                state += &format!(", last answer {} ago", age(heard));
            }
        }
        line(out, "source", format_args!("{}: {state}", source.name));
    }
    if !c.parting.is_empty() {
        line(out, "parting", c.parting.join(" "));
    }
    line(out, "problems", c.problems_count);
    for problem in &c.problems {
        line(out, "  ", format_args!("{}: {}", problem.object, problem.text));
    }
    if c.notes_count > 0 {
        line(out, "notes", c.notes_count);
    }
    for note in &c.notes {
        line(out, "  ", format_args!("{}: {}", note.object, note.text));
    }
}

const PEER_COLUMNS: [(&str, Align); 11] = [
    ("NAME", Left),
    ("ADDRESS", Left),
    ("AS", Right),
    ("STATE", Left),
    ("SINCE", Right),
    ("RECV", Right),
    ("ACCEPT", Right),
    ("SENT", Right),
    ("FLAPS", Right),
    ("DESCRIPTION", Left),
    ("LAST ERROR", Left),
];

/// The colour of a session state.
fn state_paint(state: &str) -> Paint {
    match state {
        "Established" => Paint::Good,
        "OpenSent" | "OpenConfirm" => Paint::Pending,
        _ => Paint::Bad,
    }
}

/// The address, with the interface of a link-local one; only the interface while the neighbour is not
/// known.
fn address(p: &Peer) -> String {
    match &p.interface {
        Some(interface) if is_unknown(p.address) => format!("on {}", clean(interface)),
        Some(interface) => format!("{}%{}", p.address, clean(interface)),
        None => p.address.to_string(),
    }
}

/// The address of a peer whose neighbour is not known.
fn is_unknown(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local() && a.to_bits() as u64 == 0)
}

/// The AS, or which are accepted while there is no session.
fn remote_asn(p: &Peer) -> String {
    match &p.remote_asn_accepted {
        Some(accepted) if p.remote_asn == 0 => clean(accepted).to_string(),
        _ => p.remote_asn.to_string(),
    }
}

fn peer_row(p: &Peer, look: &Look) -> Vec<Cell> {
    let state = match &p.shutdown {
        Some(_) => Cell::painted(format!("{} (stopped)", p.state), Paint::Bad),
        None if p.drained.is_some() => {
            Cell::painted(format!("{} (drained)", p.state), Paint::Pending)
        }
        None if p.passive && p.state != "Established" => {
            Cell::painted(format!("{} (passive)", p.state), state_paint(&p.state))
        }
        None => Cell::painted(p.state.clone(), state_paint(&p.state)),
    };
    vec![
        p.name.clone().into(),
        address(p).into(),
        remote_asn(p).into(),
        state,
        look.since(p.state_seconds).into(),
        p.prefixes_received.to_string().into(),
        p.prefixes_accepted.to_string().into(),
        p.prefixes_advertised.to_string().into(),
        p.flaps.to_string().into(),
        p.description.clone().unwrap_or_default().into(),
        peer::why_down(p).into(),
    ]
}

const FIB_COLUMNS: [(&str, Align); 6] = [
    ("PREFIX", Left),
    ("KIND", Left),
    ("VIA", Left),
    ("METRIC", Right),
    ("STATE", Left),
    ("ERROR", Left),
];

fn fib_row(f: &FibRoute) -> Vec<Cell> {
    let paint = match f.state.as_str() {
        "installed" => Paint::Good,
        "pending" | "foreign" => Paint::Pending,
        _ => Paint::Bad,
    };
    vec![
        f.prefix.to_string().into(),
        f.kind.clone().into(),
        gateways(&f.gateways).into(),
        f.metric.to_string().into(),
        Cell::painted(f.state.clone(), paint),
        f.error.clone().unwrap_or_default().into(),
    ]
}

const GROUP_COLUMNS: [(&str, Align); 7] = [
    ("ID", Right),
    ("FAMILY", Left),
    ("MEMBERS", Right),
    ("PREFIXES", Right),
    ("LOG OCTETS", Right),
    ("EVICTIONS", Right),
    ("WHO", Left),
];

fn group_row(g: &Group) -> Vec<Cell> {
    let mut who = g.members.join(" ");
    if let Some(vantage) = &g.vantage {
        let _ = write!(who, " (at {vantage})");
    }
    if let Some(vrf) = &g.vrf {
        let _ = write!(who, " (in VRF {vrf})");
    }
    if let Some(reason) = &g.alone_because {
        let _ = write!(who, " (alone: {reason})");
    }
    vec![
        g.id.to_string().into(),
        g.family.to_string().into(),
        g.members.len().to_string().into(),
        g.prefixes.to_string().into(),
        g.log_bytes.to_string().into(),
        g.evictions.to_string().into(),
        who.into(),
    ]
}

fn count(c: &RouteCount) -> String {
    let prefixes = match c.prefixes {
        1 => "1 prefix".to_owned(),
        count => format!("{count} prefixes"),
    };
    format!("{prefixes}, {}\n", counted(c.paths, "path"))
}

fn log_level(l: &LogLevel) -> String {
    match &l.before {
        Some(before) => format!("log level is {}, was {}\n", clean(&l.level), clean(before)),
        None => format!("{}\n", clean(&l.level)),
    }
}

fn stopping(s: &Stopping) -> String {
    match s.stopping {
        StopMode::Graceful => "stopping; peers and the kernel keep our routes\n".to_owned(),
        StopMode::Shutdown => "stopping; our routes are withdrawn\n".to_owned(),
    }
}

#[cfg(test)]
mod tests;
