//! What the silence of a neighbour that answers no SYN means.

use std::io;
use std::time::Duration;

use bgp_proto::session::{PeerConfig, TransportSecurity};

use super::{CONNECT_WAIT, Finding, Probe, Route, Step, connect};
use crate::net::dial;
use crate::net::signature_drops::{SignatureDrops, Signing};

/// How long to wait for an answer to a SYN that differs from those of the session.
const OTHER_WAIT: Duration = Duration::from_secs(3);
/// The TTL that hosts send with by default.
const TTL_DEFAULT: u8 = 64;

/// What is wrong with a neighbour that did not answer within [`CONNECT_WAIT`].
pub(super) async fn explain(
    probe: &Probe,
    route: &Route<'_>,
    before: Option<SignatureDrops>,
) -> Vec<Finding> {
    let (remote, port) = (probe.remote(), probe.config.port);
    let ttl = dial::ttl(&probe.config);
    if let Some(finding) = without_key(probe).await {
        return vec![finding];
    }
    if route.path.is_reached(ttl).await {
        return vec![dropped(probe, before)];
    }
    if ttl < TTL_DEFAULT
        && let Some(finding) = too_far(probe, route, ttl).await
    {
        return vec![finding];
    }
    let waited = CONNECT_WAIT.as_secs();
    if let Some(hint) = hint(&probe.config, before) {
        return vec![Finding::fails(
            Step::Key,
            format_args!("no answer from {remote} port {port} within {waited} s: {hint}"),
            same_on_both_sides(probe),
        )];
    }
    if let Some(finding) = out_of_reach(probe, route) {
        return vec![finding];
    }
    let key = match Signing::of(&probe.config.security) {
        Signing::Md5 => "the password on both sides",
        Signing::Ao => "the key chains of both sides (ids, algorithms, secrets)",
        Signing::No => "whether the neighbour has a password or a key chain for us",
    };
    vec![Finding::fails(
        Step::Tcp,
        format_args!("no answer from {remote}, to TCP port {port} within {waited} s nor to UDP"),
        format_args!(
            "check that the neighbour is up and its address is right, firewalls on the way, and {key}"
        ),
    )]
}

/// Tries without our password or key chain: a neighbour without one, or without a listener, answers that.
async fn without_key(probe: &Probe) -> Option<Finding> {
    let key = match Signing::of(&probe.config.security) {
        Signing::No => return None,
        Signing::Md5 => "password",
        Signing::Ao => "key chain",
    };
    let (remote, port) = (probe.remote(), probe.config.port);
    let security = TransportSecurity { md5: None, ao: None, ..probe.config.security.clone() };
    let unsigned = PeerConfig { security, ..PeerConfig::clone(&probe.config) };
    match connect(&unsigned, OTHER_WAIT).await {
        Ok(_) => Some(Finding::fails(
            Step::Key,
            format_args!("{remote} accepts unsigned segments only: it has no {key} for us"),
            format_args!("set the same {key} there, or leave it out here"),
        )),
        Err(Some(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Some(Finding::fails(
                Step::Tcp,
                format_args!(
                    "{remote} refuses connections to port {port} (its reset is not signed: only an \
                     attempt without {key} sees it)"
                ),
                "start BGP there and make it listen on that address and port",
            ))
        }
        Err(_) => None,
    }
}

/// The neighbour answers UDP, and drops our segments.
pub(super) fn dropped(probe: &Probe, before: Option<SignatureDrops>) -> Finding {
    let (remote, port) = (probe.remote(), probe.config.port);
    let text = format!("{remote} is there, and silently drops our segments to TCP port {port}");
    let same = same_on_both_sides(probe);
    match (Signing::of(&probe.config.security), hint(&probe.config, before)) {
        (_, Some(hint)) => Finding::fails(Step::Key, format_args!("{text}; {hint}"), same),
        (Signing::Md5 | Signing::Ao, None) => Finding::fails(
            Step::Key,
            text,
            format_args!("{same}; if they are equal, a firewall drops the segments"),
        ),
        (Signing::No, None) => Finding::fails(
            Step::Tcp,
            text,
            "if the neighbour has a password or a key chain for us, set it here; else a firewall drops \
             the segments",
        ),
    }
}

fn same_on_both_sides(probe: &Probe) -> &'static str {
    match Signing::of(&probe.config.security) {
        Signing::Ao => "give both sides the same key chain (ids, algorithms, secrets)",
        Signing::Md5 => "set the same password on both sides",
        Signing::No => "set the same password or key chain on both sides",
    }
}

/// What the segments that the kernel dropped since `before` suggest.
pub(super) fn hint(config: &PeerConfig, before: Option<SignatureDrops>) -> Option<String> {
    SignatureDrops::read()?.since(before?).hint(Signing::of(&config.security))
}

/// A router on the way discarded our SYN because of its TTL, which the system reports as for an
/// unreachable host.
pub(super) async fn ttl_expired(
    probe: &Probe,
    route: &Route<'_>,
    error: &io::Error,
) -> Option<Finding> {
    let ttl = dial::ttl(&probe.config);
    let may_be = dial::is_unreachable(error) && route.on_link.is_none();
    if !may_be || ttl >= TTL_DEFAULT {
        return None;
    }
    too_far(probe, route, ttl).await.or_else(|| out_of_reach(probe, route))
}

/// The neighbour is not on a link, and our packets do not go further.
fn out_of_reach(probe: &Probe, route: &Route<'_>) -> Option<Finding> {
    let is_near = dial::ttl(&probe.config) == 1 && route.on_link.is_none();
    is_near.then(|| {
        Finding::fails(
            Step::Ttl,
            format_args!(
                "{} is in no network of an interface, TTL is 1, and nobody answers",
                probe.remote()
            ),
            "set multihop-ttl, or correct the address",
        )
    })
}

/// The neighbour is further away than our TTL reaches.
async fn too_far(probe: &Probe, route: &Route<'_>, ttl: u8) -> Option<Finding> {
    let remote = probe.remote();
    let (text, needed) = match route.path.least_ttl(ttl).await {
        Some(u8::MAX) => (format!("{remote} answers, but not packets with TTL {ttl}"), TTL_DEFAULT),
        Some(needed) => (format!("{remote} is {needed} hops away, and TTL is {ttl}"), needed),
        None => {
            let far =
                PeerConfig { multihop_ttl: Some(TTL_DEFAULT), ..PeerConfig::clone(&probe.config) };
            let is_answer = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            match connect(&far, OTHER_WAIT).await {
                Ok(_) => {}
                Err(Some(error)) if is_answer(&error) => {}
                Err(_) => return None,
            }
            let text = format!("{remote} answers SYNs with TTL {TTL_DEFAULT}, not with TTL {ttl}");
            (text, TTL_DEFAULT)
        }
    };
    Some(Finding::fails(
        Step::Ttl,
        text,
        format_args!("set multihop-ttl = {needed} or more, on both sides"),
    ))
}
