//! Why an OPEN was refused, with the values of both sides and what to change.

use super::PeerConfig;
use crate::types::{FamilySet, PeerType, Role};
use crate::wire::{Code, Notification, Open};

/// Describes why we refuse the peer's OPEN.
pub(super) fn of_peers_open(config: &PeerConfig, open: &Open, refusal: &Notification) -> String {
    let name = refusal.code;
    let is_like_us = open.router_id == config.router_id && open.asn == config.local_asn;
    match refusal.code {
        _ if is_like_us => format!(
            "{name}: the neighbour has our AS {} and our router id {}: {} is an address of this \
             machine, or the router id is used twice",
            open.asn, open.router_id, config.address
        ),
        Code::BAD_PEER_AS => format!(
            "{name}: the neighbour is AS {}, we expect AS {} (remote-asn): correct one of them",
            open.asn, config.remote_asn
        ),
        Code::BAD_BGP_IDENTIFIER => format!(
            "{name}: the neighbour has our router id {}: change one of them",
            open.router_id
        ),
        Code::UNSUPPORTED_CAPABILITY => format!(
            "{name}: the neighbour offers {}, we want {}: no family in common (families)",
            listed(open.capabilities.families()),
            listed(config.families)
        ),
        Code::ROLE_MISMATCH => match config.role {
            Some(ours) => format!(
                "{name}: our role is {ours:?}, the neighbour has to be {:?} and {}",
                ours.counterpart(),
                role_of(open)
            ),
            None => name.to_string(),
        },
        _ => name.to_string(),
    }
}

/// Describes a NOTIFICATION by which the peer refuses our OPEN; `None`: there is nothing to add.
pub(super) fn of_our_open(config: &PeerConfig, refusal: &Notification) -> Option<String> {
    let ours = config.local_asn;
    let text = match refusal.code {
        Code::BAD_PEER_AS => {
            format!(
                "the neighbour does not expect AS {ours} (ours): correct it there, or local-asn"
            )
        }
        Code::BAD_BGP_IDENTIFIER => {
            format!("the neighbour refuses our router id {}; is it its own?", config.router_id)
        }
        Code::UNSUPPORTED_CAPABILITY => {
            format!("the neighbour misses a capability; we offer {}", listed(config.families))
        }
        Code::UNACCEPTABLE_HOLD_TIME => format!(
            "the neighbour refuses our hold time of {} s (hold-time)",
            config.hold_time.as_secs()
        ),
        Code::ROLE_MISMATCH => match config.role.filter(|_| is_external(config)) {
            Some(role) => format!("our role is {role:?}, and the neighbour's does not fit"),
            None => "the neighbour requires a role, and we have none (role)".to_owned(),
        },
        Code::CONNECTION_REJECTED => {
            "the neighbour does not accept the session: is it configured and enabled there?".into()
        }
        _ => return None,
    };
    Some(format!("{}: {text}", refusal.code))
}

fn is_external(config: &PeerConfig) -> bool {
    config.peer_type() == PeerType::External
}

/// The role in an OPEN (RFC 9234 §4.1).
fn role_of(open: &Open) -> String {
    let Some(code) = open.capabilities.role else { return "sends no role".to_owned() };
    let roles =
        [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];
    match roles.into_iter().find(|role| role.code() == code) {
        Some(role) => format!("is {role:?}"),
        None => format!("sends the unknown role {code}"),
    }
}

fn listed(families: FamilySet) -> String {
    let names: Vec<String> = families.iter().map(|family| family.to_string()).collect();
    if names.is_empty() { "no family that we know".to_owned() } else { names.join(" and ") }
}
