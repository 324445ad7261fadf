//! An established session's messages: UPDATE and ROUTE-REFRESH become routes and markers.

use std::fmt::Write as _;

use super::{Close, Conn, Peer, RefreshKind, RouteBatch, RouteRefresh, Slot};
use crate::session::Negotiated;
use crate::types::{Family, Time};
use crate::wire::{AttrName, RouteAction, Update, Verdict, WithdrawReason};

/// Maximum number of octets of a malformed message that its log line shows.
const HEX_LEN_MAX: usize = 64;

impl Peer {
    pub(super) fn handle_update(
        &mut self,
        now: Time,
        slot: Slot,
        body: &[u8],
        batch: &mut RouteBatch,
    ) {
        let Some(Some(Conn::Established(conn))) = self.conns.get_mut(slot.index()) else { return };
        self.stats.updates_received += 1;
        conn.restart_hold(now);
        let update = match Update::parse(body, &conn.context) {
            Ok(update) => update,
            Err(answer) => return self.close(now, slot, Close::Protocol(answer)),
        };
        let verdict = update.verdict();
        push_routes(&update, verdict, &conn.negotiated, &mut self.scratch, batch);
        if update.reach().any(|reach| reach.nlri.has_unroutable()) {
            self.outbox.note_limited(now, || {
                format!("prefixes that are never routed ignored in an UPDATE: {}", hex(body))
            });
        }
        let discarded = update.discarded();
        if !discarded.codes().is_empty() {
            self.stats.attributes_discarded += discarded.codes().len() as u64;
            self.outbox.note_limited(now, || {
                let names: Vec<AttrName> =
                    discarded.codes().iter().copied().map(AttrName).collect();
                format!("attributes {names:?} discarded from an UPDATE: {}", hex(body))
            });
        }
        if let Verdict::TreatAsWithdraw(reason) = verdict {
            self.stats.treated_as_withdraw += 1;
            self.outbox.note_limited(now, || describe_withdraw(reason, body));
        }
    }

    pub(super) fn handle_refresh(
        &mut self,
        now: Time,
        slot: Slot,
        message: &[u8],
        batch: &mut RouteBatch,
    ) {
        let Some(Conn::Established(conn)) = self.conn(slot) else { return };
        let negotiated = conn.negotiated.clone();
        self.stats.refreshes_received += 1;
        let refresh = match RouteRefresh::decode(message, negotiated.enhanced_refresh) {
            Ok(refresh) => refresh,
            Err(answer) => return self.close(now, slot, Close::Protocol(answer)),
        };
        if let Some((family, action)) = resolve_refresh(refresh, &negotiated) {
            batch.push_marker(family, action);
        }
    }
}

/// Withdrawals first: an announcement of the same prefix wins (RFC 4271 §4.3).
fn push_routes(
    update: &Update<'_>,
    verdict: Verdict,
    negotiated: &Negotiated,
    attrs: &mut Vec<u8>,
    batch: &mut RouteBatch,
) {
    let carried = |family| negotiated.families.contains(family);
    for withdrawn in update.unreach().filter(|nlri| carried(nlri.family())) {
        batch.push(withdrawn, None);
    }
    attrs.clear();
    for reach in update.reach().filter(|reach| carried(reach.nlri.family())) {
        match verdict {
            Verdict::TreatAsWithdraw(_) => batch.push(reach.nlri, None),
            Verdict::Accept => {
                if attrs.is_empty() {
                    update.canonical_attrs(attrs);
                }
                let announced = Some((attrs.as_slice(), reach.next_hop));
                if reach.nlri.has_unroutable() {
                    reach.nlri.routable().for_each(|run| batch.push(run, announced))
                } else {
                    batch.push(reach.nlri, announced)
                }
            }
        }
    }
    if let Some(family) = update.end_of_rib().filter(|family| carried(*family)) {
        batch.push_marker(family, RouteAction::EndOfRib);
    }
}

/// What a ROUTE-REFRESH means on this session; `None` for what RFC 2918 §4 and RFC 7313 §4 tell us
/// to ignore.
fn resolve_refresh(
    refresh: RouteRefresh,
    negotiated: &Negotiated,
) -> Option<(Family, RouteAction)> {
    let family = Family::try_from(refresh.family).ok()?;
    let action = match refresh.kind {
        RefreshKind::Request => RouteAction::RefreshRequest,
        RefreshKind::Begin if negotiated.enhanced_refresh => RouteAction::RefreshBegin,
        RefreshKind::End if negotiated.enhanced_refresh => RouteAction::RefreshEnd,
        RefreshKind::Begin | RefreshKind::End | RefreshKind::Unknown(_) => return None,
    };
    negotiated.families.contains(family).then_some((family, action))
}

fn describe_withdraw(reason: WithdrawReason, body: &[u8]) -> String {
    let WithdrawReason { attr, what } = reason;
    match attr {
        0 => format!("UPDATE treated as withdraw: attributes: {what}: {}", hex(body)),
        _ => format!(
            "UPDATE treated as withdraw: attribute {}: {what}: {}",
            AttrName(attr),
            hex(body)
        ),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * HEX_LEN_MAX + 4);
    for byte in bytes.iter().take(HEX_LEN_MAX) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > HEX_LEN_MAX {
        text.push('…');
    }
    text
}
