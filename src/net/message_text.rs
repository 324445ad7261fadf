//! BGP messages as text, for `margay debug`.

use std::fmt::Write as _;

use bgp_proto::types::{Family, PathId, Prefix};
use bgp_proto::wire::{
    AttrDef, AttrView, Frame, MessageType, Nlri, Notification, Open, RouteRefresh, Update,
    UpdateContext, Verdict, attr,
};

/// Most prefixes that are listed of each kind.
const PREFIXES_MAX: usize = 10;
/// Most octets that are shown in hexadecimal.
const OCTETS_MAX: usize = 64;
/// Longest list of communities and longest AS_PATH, in characters.
const LIST_MAX: usize = 200;

/// Describes a message. `context`: how UPDATEs are encoded on the session; `None`: there is none.
pub(super) fn describe(frame: Frame<'_>, context: Option<&UpdateContext>) -> String {
    match frame.kind {
        MessageType::Open => open(frame.body()),
        MessageType::Notification => notification(frame.body()),
        MessageType::Keepalive => "KEEPALIVE".to_owned(),
        MessageType::RouteRefresh => refresh(frame.bytes),
        MessageType::Update => match context {
            Some(context) => update(frame.body(), context),
            None => format!("UPDATE of {} octets", frame.bytes.len()),
        },
    }
}

fn open(body: &[u8]) -> String {
    let Ok(open) = Open::decode(body) else { return format!("OPEN, malformed: {}", hex(body)) };
    format!(
        "OPEN: AS {}, id {}, hold time {} s, capabilities {}",
        open.asn,
        open.router_id,
        open.hold_time_secs,
        cut(open.capabilities.names().join(" "))
    )
}

fn notification(body: &[u8]) -> String {
    let notification = Notification::decode(body);
    let Notification { code, data } = &notification;
    let mut text = format!("NOTIFICATION {}/{}: {notification}", code.code, code.subcode);
    if !data.is_empty() {
        let _ = write!(text, ", data {}", hex(data));
    }
    text
}

fn refresh(message: &[u8]) -> String {
    match RouteRefresh::decode(message, true) {
        Ok(RouteRefresh { family, kind }) => {
            let name = match Family::try_from(family) {
                Ok(known) => known.to_string(),
                Err(_) => format!("{}/{}", family.afi, family.safi),
            };
            format!("ROUTE-REFRESH: {kind:?}, {name}")
        }
        Err(_) => format!("ROUTE-REFRESH, malformed: {}", hex(message)),
    }
}

fn update(body: &[u8], context: &UpdateContext) -> String {
    let update = match Update::parse(body, context) {
        Ok(update) => update,
        Err(fault) => return format!("UPDATE, malformed ({fault}): {}", hex(body)),
    };
    if let Some(family) = update.end_of_rib() {
        return format!("UPDATE: End-of-RIB, {family}");
    }
    let mut parts = Vec::new();
    for withdrawn in update.unreach() {
        parts.push(format!("withdraws {}", prefixes(&withdrawn)));
    }
    for reach in update.reach() {
        parts.push(format!("announces {} via {}", prefixes(&reach.nlri), reach.next_hop));
    }
    match update.verdict() {
        Verdict::Accept => {
            let mut canonical = Vec::new();
            update.canonical_attrs(&mut canonical);
            parts.extend(attributes(AttrView::new(&canonical)));
        }
        Verdict::TreatAsWithdraw(why) => {
            parts.push(format!("treated as withdraw: attribute {}: {}", why.attr, why.what));
        }
    }
    format!("UPDATE: {}", parts.join(", "))
}

fn prefixes(nlri: &Nlri<'_>) -> String {
    let with_path_ids = nlri.has_path_ids();
    let text = |(path_id, prefix): (PathId, Prefix)| match with_path_ids {
        true => format!("{prefix} (path {})", path_id.0),
        false => prefix.to_string(),
    };
    let listed: Vec<String> = nlri.iter().take(PREFIXES_MAX).map(text).collect();
    let more = nlri.count().saturating_sub(listed.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", listed.join(" "))
}

/// The attributes by name; those whose value has no text of its own in hexadecimal.
fn attributes(view: AttrView<'_>) -> Vec<String> {
    let list = |items: Vec<String>| cut(items.join(" "));
    let value = |code: u8| -> Option<String> {
        Some(match code {
            attr::ORIGIN => format!("{:?}", view.origin()).to_uppercase(),
            attr::AS_PATH => cut(view.as_path().to_string()),
            attr::MULTI_EXIT_DISC => view.med()?.to_string(),
            attr::LOCAL_PREF => view.local_pref()?.to_string(),
            attr::COMMUNITIES => list(view.communities().map(|c| c.to_string()).collect()),
            attr::EXTENDED_COMMUNITIES => {
                list(view.ext_communities().map(|c| c.to_string()).collect())
            }
            attr::LARGE_COMMUNITIES => {
                list(view.large_communities().map(|c| c.to_string()).collect())
            }
            attr::ORIGINATOR_ID => view.originator_id()?.to_string(),
            attr::CLUSTER_LIST => list(view.cluster_list().map(|id| id.to_string()).collect()),
            attr::ONLY_TO_CUSTOMER => view.only_to_customer()?.to_string(),
            _ => return None,
        })
    };
    let hidden = [attr::NEXT_HOP, attr::MP_REACH_NLRI, attr::MP_UNREACH_NLRI];
    let shown = view.iter().filter(|attribute| !hidden.contains(&attribute.code));
    shown
        .map(|attribute| {
            let name = AttrDef::of(attribute.code).map_or_else(
                || format!("attribute {}", attribute.code),
                |def| def.name.to_string(),
            );
            let text = value(attribute.code).unwrap_or_else(|| hex(attribute.value));
            format!("{name} {text}").trim_end().to_owned()
        })
        .collect()
}

fn hex(octets: &[u8]) -> String {
    let mut text = String::new();
    for octet in octets.iter().take(OCTETS_MAX) {
        let _ = write!(text, "{octet:02x}");
    }
    if octets.len() > OCTETS_MAX {
        let _ = write!(text, "… ({} octets)", octets.len());
    }
    text
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LIST_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use bgp_proto::types::{Asn, PeerType};
    use bgp_proto::wire::{MAX_LEN, split_frame};

    use super::*;

    fn text(hex: &str) -> String {
        let octets: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let context = UpdateContext::new(PeerType::External, Asn(65001));
        describe(split_frame(&octets, MAX_LEN).unwrap().unwrap(), Some(&context))
    }

    fn message(kind: u8, body: &str) -> String {
        format!("{}{:04x}{kind:02x}{body}", "ff".repeat(16), 19 + body.len() / 2)
    }

    #[test]
    fn messages_are_described() {
        assert_eq!(text(&message(4, "")), "KEEPALIVE");
        let refused = text(&message(3, "0202fde9"));
        assert_eq!(refused, "NOTIFICATION 2/2: Bad Peer AS, data fde9");
        let open = text(&message(1, "04fde9005a0a00000100"));
        assert_eq!(open, "OPEN: AS 65001, id 10.0.0.1, hold time 90 s, capabilities ");
        assert_eq!(text(&message(5, "00010001")), "ROUTE-REFRESH: Request, ipv4");
        let malformed = text(&message(2, "ffff0000"));
        assert!(malformed.starts_with("UPDATE, malformed ("), "{malformed}");
        assert!(text(&message(2, "00000000")).starts_with("UPDATE: End-of-RIB, ipv4"));
        // ORIGIN IGP, AS_PATH 65001, NEXT_HOP 10.0.0.1, MED 5, COMMUNITIES no-export; 10.1.0.0/16
        // withdrawn, 10.2.0.0/16 announced.
        let attributes = "40010100400206020100\
                          00fde9400304\
                          0a000001800404000000\
                          05c00804ffffff01";
        let attributes: String = attributes.split_whitespace().collect();
        let body = format!("0003100a01{:04x}{attributes}100a02", attributes.len() / 2);
        assert_eq!(
            text(&message(2, &body)),
            "UPDATE: withdraws 10.1.0.0/16, announces 10.2.0.0/16 via 10.0.0.1, ORIGIN IGP, \
             AS_PATH 65001, MULTI_EXIT_DISC 5, COMMUNITIES 65535:65281"
        );
    }
}
