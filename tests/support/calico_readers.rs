//! Calico's parsers of the answers on BIRD's sockets, rule by rule: as in Calico, one unknown line
//! fails the whole answer.
//!
//! The input is everything read from the socket after the command was sent, including the greeting.

#![allow(dead_code)] // each user needs some of it

use std::collections::BTreeMap;

/// A row of `show protocols` that is a session of Calico's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) name: String,
    /// `Mesh`, `Global` or `Node`.
    pub(crate) kind: String,
    pub(crate) peer_ip: String,
    pub(crate) state: String,
    pub(crate) since: String,
    /// Readiness compares the first word with `Established`.
    pub(crate) info: String,
}

/// The kind and the rest of a session's name: `^(Global|Node|Mesh)_(.+)$`.
fn session_name(name: &str) -> Option<(&str, &str)> {
    let (kind, rest) = name.split_once('_')?;
    (["Global", "Node", "Mesh"].contains(&kind) && !rest.is_empty()).then_some((kind, rest))
}

/// `show protocols`, as calicoctl, the readiness probe and the status agent read it. `separator` is
/// `.` on the IPv4 socket and `:` on the other.
pub(crate) fn sessions(answer: &str, separator: &str) -> Result<Vec<Session>, String> {
    let mut sessions = Vec::new();
    let mut headed = false;
    for line in answer.lines() {
        if line.starts_with("0000") {
            return headed.then_some(sessions).ok_or_else(|| "no heading".to_owned());
        }
        if line.starts_with("0001") {
            continue;
        }
        let known = line.starts_with("2002") || line.starts_with("1002") || line.starts_with(' ');
        if !known {
            return Err(format!("unexpected line {line:?}"));
        }
        if line.starts_with("2002") {
            let heading: Vec<&str> = line.get(5..).unwrap_or_default().split_whitespace().collect();
            if heading != ["name", "proto", "table", "state", "since", "info"] {
                return Err(format!("heading {line:?}"));
            }
            headed = true;
            continue;
        }
        let row = match line.strip_prefix(' ') {
            Some(row) => row,
            None => line.get(5..).unwrap_or_default(),
        };
        let fields: Vec<&str> = row.split_whitespace().collect();
        let [name, "BGP", _, state, since, _, ..] = fields.as_slice() else { continue };
        let Some((kind, rest)) = session_name(name) else { continue };
        sessions.push(Session {
            name: (*name).to_owned(),
            kind: kind.to_owned(),
            peer_ip: rest.replace('_', separator),
            state: (*state).to_owned(),
            since: (*since).to_owned(),
            info: fields.get(5..).unwrap_or_default().join(" "),
        });
    }
    Err("no end".to_owned())
}

/// `show status`, as the readiness probe reads it: whether a graceful restart is in progress.
pub(crate) fn is_restarting(answer: &str) -> Result<bool, String> {
    let mut restarting = false;
    for line in answer.lines() {
        match line {
            _ if line.starts_with("0013") => return Ok(restarting),
            _ if line.starts_with("0024") => restarting = true,
            _ if ["0001", "1000", "1011", " "].iter().any(|known| line.starts_with(known)) => {}
            _ => return Err(format!("unexpected line {line:?}")),
        }
    }
    Err("no end".to_owned())
}

/// The fields that the status agent reads from `show status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) ready: bool,
    pub(crate) version: String,
    pub(crate) router_id: String,
    pub(crate) last_boot: String,
    pub(crate) last_reconfiguration: String,
}

/// `show status`, as the status agent reads it.
pub(crate) fn agent(answer: &str) -> Agent {
    let mut agent = Agent::default();
    for line in answer.lines() {
        let text = match line.get(..4) {
            Some("0013") => break,
            Some("0001") => {
                agent.ready = line.contains("BIRD") && line.contains("ready");
                continue;
            }
            Some("1000" | "1011") => line.get(5..).unwrap_or_default(),
            _ if line.starts_with(' ') => line.get(1..).unwrap_or_default(),
            // Such as 0024.
            _ => break,
        };
        let take = |prefix: &str| text.strip_prefix(prefix).map(str::to_owned);
        if let Some(version) = take("BIRD v") {
            agent.version = format!("v{version}");
        }
        agent.router_id = take("Router ID is ").unwrap_or(agent.router_id);
        agent.last_boot = take("Last reboot on ").unwrap_or(agent.last_boot);
        agent.last_reconfiguration =
            take("Last reconfiguration on ").unwrap_or(agent.last_reconfiguration);
    }
    agent
}

/// `show protocols all NAME`, as the status agent reads it: the state and the neighbour's address.
pub(crate) fn details(answer: &str) -> Result<(String, String), String> {
    let mut found = BTreeMap::new();
    for line in answer.lines() {
        if line.starts_with("0000") {
            let mut take = |key| found.remove(key).ok_or_else(|| format!("no {key:?}"));
            return Ok((take("BGP state:")?, take("Neighbor address:")?));
        }
        for key in ["BGP state:", "Neighbor address:"] {
            if line.contains(key) {
                found.insert(key, line.replacen(key, "", 1).trim().to_owned());
            }
        }
    }
    Err("no end".to_owned())
}

/// A route of CalicoNodeStatus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) is_fib: bool,
    pub(crate) destination: String,
    pub(crate) gateway: String,
    pub(crate) interface: String,
    /// `Kernel`, `Static`, `Direct`, `NodeMesh` or `BGPPeer`.
    pub(crate) source: &'static str,
    pub(crate) peer_ip: String,
}

/// `show route`, as the status agent reads it.
pub(crate) fn routes(answer: &str, separator: &str) -> Result<Vec<Route>, String> {
    let mut routes = Vec::new();
    let mut destination = String::new();
    for line in answer.lines() {
        let text = match line {
            _ if line.starts_with("0000") => return Ok(routes),
            _ if line.starts_with("0001") => continue,
            _ if line.starts_with("1007") => line.get(5..).unwrap_or_default(),
            _ if line.starts_with(' ') => line.get(1..).unwrap_or_default(),
            _ => return Err(format!("unexpected line {line:?}")),
        };
        let route = route(text, separator, &mut destination).ok_or_else(|| format!("{line:?}"))?;
        routes.push(route);
    }
    Err("no end".to_owned())
}

fn route(text: &str, separator: &str, destination: &mut String) -> Option<Route> {
    let kinds = [" via ", " dev ", " blackhole ", " unreachable "];
    let kind = kinds.into_iter().find(|kind| text.contains(kind))?;
    let (prefix, rest) = text.split_once(kind)?;
    if !prefix.trim().is_empty() {
        *destination = prefix.trim().to_owned();
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let (gateway, interface, from) = match (kind, fields.as_slice()) {
        (" via ", [gateway, "on", interface, from, ..]) => (*gateway, *interface, *from),
        (" dev ", [interface, from, ..]) => ("N/A", *interface, *from),
        (" blackhole " | " unreachable ", [from, ..]) => ("N/A", kind.trim(), *from),
        _ => return None,
    };
    let from = from.strip_prefix('[')?;
    let (source, peer_ip) = match from {
        _ if from.starts_with("kernel") => ("Kernel", String::new()),
        _ if from.starts_with("static") => ("Static", String::new()),
        _ if from.starts_with("direct") => ("Direct", String::new()),
        _ => {
            let (kind, rest) = session_name(from)?;
            let source = if kind == "Mesh" { "NodeMesh" } else { "BGPPeer" };
            (source, rest.replace('_', separator))
        }
    };
    if destination.is_empty() {
        return None;
    }
    Some(Route {
        is_fib: text.contains("] *"),
        destination: destination.clone(),
        gateway: gateway.to_owned(),
        interface: interface.to_owned(),
        source,
        peer_ip,
    })
}
