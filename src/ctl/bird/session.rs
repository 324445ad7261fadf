//! Rows and details of protocols, and BIRD's texts for why a session ended.

use std::fmt::Write as _;
use std::net::IpAddr;

use bgp_proto::session::{LastError, Origin};
use bgp_proto::wire::Code;

use super::model::{
    BgpDetails, ChangeCounts, Details, Established, Kind, Phase, Protocol, Recovery, RecoveryOf,
    Status, Wait,
};
use super::reply::{
    GRACEFUL_RESTART, PROTOCOL, PROTOCOL_DETAILS, PROTOCOL_HEADING, RUNNING, Reply, UPTIME, VERSION,
};
use super::when::Clock;

impl Kind {
    /// The word in the column `proto`.
    fn word(self) -> &'static str {
        match self {
            Kind::Static => "Static",
            Kind::Kernel => "Kernel",
            Kind::Device => "Device",
            Kind::Direct => "Direct",
            Kind::Bgp => "BGP",
        }
    }
}

impl Phase {
    /// The word in the column `state`.
    fn word(self) -> &'static str {
        match self {
            Phase::Down => "down",
            Phase::Start => "start",
            Phase::Wait => "wait",
            Phase::Up => "up",
        }
    }
}

/// `show status`.
pub(super) fn status(reply: &mut Reply, status: &Status, clock: &Clock) {
    reply.line(VERSION, format_args!("BIRD {}", super::VERSION));
    reply.line(UPTIME, format_args!("Router ID is {}", status.router_id));
    reply.line(UPTIME, format_args!("Current server time is {}", clock.long(clock.now())));
    reply.line(UPTIME, format_args!("Last reboot on {}", clock.long(status.started)));
    reply.line(UPTIME, format_args!("Last reconfiguration on {}", clock.long(status.configured)));
    if let Some(drained) = &status.drained {
        // BIRD has no such line; programs that parse this reply skip lines that they do not know.
        reply.line(UPTIME, format_args!("{drained}"));
    }
    if let Some(Recovery { waiting, timer }) = status.recovery {
        reply.line(GRACEFUL_RESTART, format_args!("Graceful restart recovery in progress"));
        reply.line(GRACEFUL_RESTART, format_args!("  Waiting for {waiting} protocols to recover"));
        reply.line(GRACEFUL_RESTART, format_args!("  Wait timer is {}", seconds(timer)));
    }
    reply.end(RUNNING, format_args!("Daemon is up and running"));
}

/// The line above the rows.
pub(super) fn heading(reply: &mut Reply) {
    reply
        .line(PROTOCOL_HEADING, format_args!("name     proto    table    state  since       info"));
}

/// A row of `show protocols`.
pub(super) fn row(reply: &mut Reply, protocol: &Protocol, clock: &Clock) {
    let Protocol { name, kind, phase, .. } = protocol;
    let info = match (kind, phase, &protocol.error) {
        (Kind::Bgp, Phase::Down, error) => error.clone().unwrap_or_default(),
        (Kind::Bgp, _, error) => {
            format!("{:<14}{}", protocol.word, error.as_deref().unwrap_or_default())
        }
        _ => String::new(),
    };
    reply.line(
        PROTOCOL,
        format_args!(
            "{name:<8} {:<8} master   {:<5}  {:<10}  {info}",
            kind.word(),
            phase.word(),
            clock.short(protocol.since),
        ),
    );
}

/// What `show protocols all` shows below a row.
pub(super) fn details(reply: &mut Reply, protocol: &Protocol, details: &Details) {
    let mut line = |text: std::fmt::Arguments<'_>| reply.line(PROTOCOL_DETAILS, text);
    if let Some(description) = &details.description {
        line(format_args!("  Description:    {description}"));
    }
    line(format_args!("  Preference:     {}", details.preference));
    line(format_args!("  Input filter:   {}", details.input_filter));
    line(format_args!("  Output filter:  {}", details.output_filter));
    if let Some(recovery) = details.recovery {
        let waits = match recovery {
            RecoveryOf::Pending => " pending",
            RecoveryOf::PendingWaiting => " pending waiting",
        };
        line(format_args!("  GR recovery:   {waits}"));
    }
    if protocol.phase != Phase::Down {
        statistics(&mut line, details);
    }
    if let Some(bgp) = &details.bgp {
        session(&mut line, protocol, bgp);
    }
    line(format_args!(""));
}

fn statistics(line: &mut impl FnMut(std::fmt::Arguments<'_>), details: &Details) {
    let Details { imported, exported, preferred, changes, .. } = details;
    line(format_args!(
        "  Routes:         {imported} imported, {exported} exported, {preferred} preferred"
    ));
    line(format_args!(
        "  Route change stats:     received   rejected   filtered    ignored   accepted"
    ));
    let ChangeCounts { received, rejected, filtered, ignored, accepted } = changes.import_updates;
    line(format_args!(
        "    Import updates:     {received:>10} {rejected:>10} {filtered:>10} {ignored:>10} \
         {accepted:>10}"
    ));
    let ChangeCounts { received, rejected, ignored, accepted, .. } = changes.import_withdraws;
    line(format_args!(
        "    Import withdraws:   {received:>10} {rejected:>10}        --- {ignored:>10} \
         {accepted:>10}"
    ));
    let ChangeCounts { received, rejected, filtered, accepted, .. } = changes.export_updates;
    line(format_args!(
        "    Export updates:     {received:>10} {rejected:>10} {filtered:>10}        --- \
         {accepted:>10}"
    ));
    let ChangeCounts { received, accepted, .. } = changes.export_withdraws;
    line(format_args!(
        "    Export withdraws:   {received:>10}        ---        ---        --- {accepted:>10}"
    ));
}

fn session(line: &mut impl FnMut(std::fmt::Arguments<'_>), protocol: &Protocol, bgp: &BgpDetails) {
    line(format_args!("  BGP state:          {}", protocol.word));
    line(format_args!("    Neighbor address: {}", bgp.neighbor));
    line(format_args!("    Neighbor AS:      {}", bgp.neighbor_asn));
    if let Some(left) = bgp.restarting {
        line(format_args!("    Neighbor graceful restart active"));
        line(format_args!("    Restart timer:    {}/-", left.as_secs()));
    }
    if let Some(wait) = bgp.error_wait {
        line(format_args!("    Error wait:       {}", seconds(wait)));
    }
    if let Some(wait) = bgp.connect_delay {
        line(format_args!("    Connect delay:    {}", seconds(wait)));
    }
    if let Some(session) = &bgp.session {
        established(line, session);
    }
    if let Some(error) = &protocol.error {
        line(format_args!("    Last error:       {error}"));
    }
}

fn established(line: &mut impl FnMut(std::fmt::Arguments<'_>), session: &Established) {
    line(format_args!("    Neighbor ID:      {}", session.neighbor_id));
    line(format_args!("    Neighbor caps:    {}", session.capabilities.join(" ")));
    line(format_args!("    Session:          {}", session.session.join(" ")));
    line(format_args!("    Source address:   {}", session.source));
    if let Some((held, limit)) = session.limit {
        line(format_args!("    Route limit:      {held}/{limit}"));
    }
    line(format_args!("    Hold timer:       {}", seconds(session.hold)));
    line(format_args!("    Keepalive timer:  {}", seconds(session.keepalive)));
}

/// A timer's remaining time and its length, in whole seconds.
fn seconds(wait: Wait) -> String {
    format!("{}/{}", wait.left.as_secs(), wait.of.as_secs())
}

/// A name that readers of `show route` understand: they derive the kind of a session from the
/// prefix of its name, and the address from the rest.
pub fn reader_name(name: &str, address: IpAddr) -> String {
    let understood = ["Mesh_", "Global_", "Node_"]
        .iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    if understood {
        return name.to_owned();
    }
    let mut readable = String::from("Node_");
    // Writing to a String cannot fail.
    let _ = write!(readable, "{address}");
    readable.replace(['.', ':'], "_")
}

/// Why a session ended, as BIRD puts it: a class and a text. `None` where BIRD shows none: the
/// operator closed the session.
pub fn last_error(error: &LastError) -> Option<String> {
    let code = error.code;
    match (error.origin, code) {
        (Origin::Sent, Some(Code { code: 6, subcode: 1 })) => {
            Some("Automatic shutdown: Route limit exceeded".to_owned())
        }
        (Origin::Sent, Some(Code { code: 6, subcode: 2..=4 | 6 })) => None,
        (Origin::Sent, Some(code)) => Some(format!("BGP Error: {}", notification(code))),
        (Origin::Received, Some(code)) => Some(format!("Received: {}", notification(code))),
        (Origin::Sent | Origin::Received, None) => Some(format!("Error: {}", plain(&error.text))),
        // Our send hold timer (RFC 9687), which BIRD does not have.
        (Origin::Local, Some(_)) => Some(format!("Error: {}", plain(&error.text))),
        (Origin::Local, None) => Some(match error.text.as_str() {
            "the peer closed the connection" => "Socket: Connection closed".to_owned(),
            "graceful stop" | "the peer opened a new connection" => {
                "Error: Graceful restart".to_owned()
            }
            text if text.starts_with("no answer in time") => {
                "Socket: Connection timed out".to_owned()
            }
            text => format!("Socket: {}", plain(text)),
        }),
    }
}

/// The system's error text, without the error number that Rust adds.
fn plain(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// BIRD's text for the code of a NOTIFICATION.
fn notification(code: Code) -> String {
    let known = MESSAGES.iter().find(|(c, s, _)| (*c, *s) == (code.code, code.subcode));
    match known {
        Some((.., text)) => (*text).to_owned(),
        None => format!("Unknown error {}.{}", code.code, code.subcode),
    }
}

const MESSAGES: [(u8, u8, &str); 39] = [
    (1, 0, "Invalid message header"),
    (1, 1, "Connection not synchronized"),
    (1, 2, "Bad message length"),
    (1, 3, "Bad message type"),
    (2, 0, "Invalid OPEN message"),
    (2, 1, "Unsupported version number"),
    (2, 2, "Bad peer AS"),
    (2, 3, "Bad BGP identifier"),
    (2, 4, "Unsupported optional parameter"),
    (2, 5, "Authentication failure"),
    (2, 6, "Unacceptable hold time"),
    (2, 7, "Required capability missing"),
    (2, 8, "No supported AFI/SAFI"),
    (3, 0, "Invalid UPDATE message"),
    (3, 1, "Malformed attribute list"),
    (3, 2, "Unrecognized well-known attribute"),
    (3, 3, "Missing mandatory attribute"),
    (3, 4, "Invalid attribute flags"),
    (3, 5, "Invalid attribute length"),
    (3, 6, "Invalid ORIGIN attribute"),
    (3, 7, "AS routing loop"),
    (3, 8, "Invalid NEXT_HOP attribute"),
    (3, 9, "Optional attribute error"),
    (3, 10, "Invalid network field"),
    (3, 11, "Malformed AS_PATH"),
    (4, 0, "Hold timer expired"),
    (5, 0, "Finite state machine error"),
    (5, 1, "Unexpected message in OpenSent state"),
    (5, 2, "Unexpected message in OpenConfirm state"),
    (5, 3, "Unexpected message in Established state"),
    (6, 0, "Cease"),
    (6, 1, "Maximum number of prefixes reached"),
    (6, 2, "Administrative shutdown"),
    (6, 3, "Peer de-configured"),
    (6, 4, "Administrative reset"),
    (6, 5, "Connection rejected"),
    (6, 6, "Other configuration change"),
    (6, 7, "Connection collision resolution"),
    (6, 8, "Out of Resources"),
];

#[cfg(test)]
mod tests;
