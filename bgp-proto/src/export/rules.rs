//! Eligibility of routes for export, and outbound rewriting (RFC 4271 §9.1.3, RFC 4456, RFC 1997).
//!
//! Everything here depends on the group and the source of a route, never on an individual member.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::policy::{Change, Decision, Policy, PrefixClass, Prepared, RouteRef, Source, Verdict};
use crate::rib::{AttrKey, SourceFacts, Vantage};
use crate::types::{Asn, ClusterId, Community, Family, NextHop, PeerType, Prefix, Role, RouterId};
use crate::wire::{AnnounceFormat, AttrEdit, AttrView, attr};

use super::{AddPathSend, Drain, LongLived, NextHopMode};

/// Everything that determines what a peer is sent and how it is encoded. Peers with equal keys
/// share one group. Fields are compared in this order: the policy last, and by content only if it
/// is not the same allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupKey {
    pub(crate) family: Family,
    pub(crate) peer_type: PeerType,
    /// iBGP: the member is a client of ours.
    pub(crate) client: bool,
    /// iBGP: the cluster that its routes belong to.
    pub(crate) cluster_id: ClusterId,
    pub(crate) local_asn: Asn,
    /// eBGP: our role towards the members (RFC 9234).
    pub(crate) role: Option<Role>,
    /// Our address for "next hop self".
    pub(crate) local_addr: IpAddr,
    /// The same for the address family that `local_addr` does not belong to.
    pub(crate) other_addr: Option<IpAddr>,
    /// What is sent behind it, if it is an IPv6 address (RFC 2545 §3).
    pub(crate) link_local: Option<Ipv6Addr>,
    pub(crate) next_hop: NextHopMode,
    pub(crate) ipv4_over_ipv6: bool,
    pub(crate) four_octet_as: bool,
    pub(crate) max_len: usize,
    pub(crate) add_path: Option<AddPathSend>,
    pub(crate) drain: Drain,
    pub(crate) long_lived: LongLived,
    /// iBGP: where the members are, from which the best path is chosen.
    pub(crate) vantage: Option<Arc<Vantage>>,
    /// Whether the bandwidths of several paths are sent with one of them. Follows from `add_path` and
    /// `export`, and is kept because every exported route asks for it.
    pub(crate) sums_bandwidth: bool,
    pub(crate) export: Arc<Policy>,
}

impl GroupKey {
    pub(crate) fn format(&self) -> AnnounceFormat {
        AnnounceFormat {
            family: self.family,
            four_octet_as: self.four_octet_as,
            add_path: self.add_path.is_some(),
            max_len: self.max_len,
        }
    }

    /// Whether paths other than the best one decide what is sent: all may be (ADD-PATH), another may be
    /// the best one from the vantage, routes of ours give way to them, or their bandwidths are summed.
    pub(crate) fn looks_at_all_paths(&self) -> bool {
        self.add_path.is_some()
            || self.vantage.is_some()
            || self.drain == Drain::Withdraw
            || self.sums_bandwidth
    }

    /// Whether the best path from the vantage decides what is sent, and no other path does.
    pub(crate) fn is_decided_by_vantage(&self) -> bool {
        self.vantage.is_some()
            && self.add_path.is_none()
            && self.drain != Drain::Withdraw
            && !self.sums_bandwidth
    }

    /// Whether a route that is exported to a group with this key is the same for one with `other`: the
    /// vantage decides only which path is exported.
    pub(crate) fn exports_like(&self, other: &GroupKey) -> bool {
        let alike = |key: &GroupKey| GroupKey { vantage: None, ..key.clone() };
        alike(self) == alike(other)
    }

    /// Whether the export policy may set a next hop.
    pub(crate) fn sets_next_hop(&self) -> bool {
        let mut changes = self.export.rules.iter().flat_map(|rule| &rule.changes);
        changes.any(|change| matches!(change, Change::NextHop(_)))
    }

    /// The names of the fields that differ.
    pub(crate) fn differences(&self, other: &GroupKey) -> Vec<&'static str> {
        let mut names = Vec::new();
        let mut note = |differs: bool, name| {
            if differs {
                names.push(name);
            }
        };
        let GroupKey {
            family,
            peer_type,
            client,
            cluster_id,
            local_asn,
            role,
            local_addr,
            other_addr,
            link_local,
            next_hop,
            ipv4_over_ipv6,
            four_octet_as,
            max_len,
            add_path,
            drain,
            long_lived,
            vantage,
            sums_bandwidth: _,
            export,
        } = other;
        note(self.family != *family, "family");
        note(self.peer_type != *peer_type, "peer type");
        note(self.client != *client, "route reflector client");
        note(self.cluster_id != *cluster_id, "cluster id");
        note(self.local_asn != *local_asn, "local AS");
        note(self.role != *role, "role");
        let same_addresses = (self.local_addr, self.other_addr) == (*local_addr, *other_addr);
        note(!same_addresses, "local address");
        note(self.link_local != *link_local, "link-local address");
        note(self.next_hop != *next_hop, "next hop mode");
        note(self.ipv4_over_ipv6 != *ipv4_over_ipv6, "IPv4 over IPv6 next hops");
        note(self.four_octet_as != *four_octet_as, "four-octet AS numbers");
        note(self.max_len != *max_len, "message length");
        note(self.add_path != *add_path, "ADD-PATH");
        note(self.drain != *drain, "drain");
        note(self.long_lived != *long_lived, "long-lived graceful restart");
        note(self.vantage != *vantage, "vantage");
        note(self.export != *export, "export policy");
        names
    }
}

/// Why a route is not advertised to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Withholding {
    NoAdvertise,
    NoExport,
    NoExportSubconfed,
    NotReflected,
    OnlyToCustomer,
    LongLivedStale,
    /// The peer is drained, and another peer announces a path to the prefix.
    Drained,
    /// The policy and the rule.
    Policy(String),
    NoNextHop,
    NoIpv4NextHop,
    AsPathFull,
}

impl fmt::Display for Withholding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Withholding::NoAdvertise => "community no-advertise",
            Withholding::NoExport => "community no-export",
            Withholding::NoExportSubconfed => "community no-export-subconfed",
            Withholding::NotReflected => "iBGP to iBGP without reflection",
            Withholding::OnlyToCustomer => {
                "ONLY_TO_CUSTOMER, and the peer is no customer (RFC 9234)"
            }
            Withholding::LongLivedStale => {
                "long-lived stale, and the peer did not send the capability (RFC 9494)"
            }
            Withholding::Drained => "drained, and another peer announces it",
            Withholding::Policy(rule) => return write!(f, "rejected by export {rule}"),
            Withholding::AsPathFull => "AS_PATH has no room for our AS number",
            Withholding::NoNextHop => "no next hop of ours in this family is known on the session",
            Withholding::NoIpv4NextHop => {
                "the next hop is IPv6, and IPv4 over IPv6 (RFC 8950) is not negotiated"
            }
        })
    }
}

/// A route as it is advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exported {
    /// Canonical octets, if the rules changed more than what reflection adds.
    pub(crate) attrs: Option<Vec<u8>>,
    pub(crate) next_hop: NextHop,
    pub(crate) reflection: Option<Reflection>,
}

/// What a reflector adds to a route (RFC 4456 §8). It is added when the message is encoded, not
/// stored as a separate attribute set: nearly every set of a reflector would exist twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reflection {
    /// ORIGINATOR_ID, if the route has none.
    originator: RouterId,
    /// Prepended to CLUSTER_LIST in this order; two if the source belongs to another cluster than
    /// the group.
    clusters: (ClusterId, Option<ClusterId>),
}

impl Reflection {
    /// Maximum number of octets that it adds to a message: ORIGINATOR_ID, and a CLUSTER_LIST of
    /// two.
    pub(crate) const OCTETS_MAX: usize = 7 + 4 + 8;

    fn new(group: &GroupKey, from: &SourceFacts) -> Self {
        let other = Some(group.cluster_id).filter(|own| *own != from.cluster_id);
        Reflection { originator: from.router_id, clusters: (from.cluster_id, other) }
    }

    /// The attributes of the reflected route.
    pub(crate) fn apply(&self, attrs: AttrView<'_>) -> AttrEdit {
        let mut edit = AttrEdit::from_view(attrs);
        if attrs.originator_id().is_none() {
            edit.set_originator_id(self.originator);
        }
        let (first, second) = self.clusters;
        edit.prepend_cluster(first);
        if let Some(second) = second {
            edit.prepend_cluster(second);
        }
        edit
    }
}

/// A route being exported.
pub(crate) struct Outbound<'a> {
    /// `peer_type` is the receiver's. `next_hop` is the received one, or the route's own.
    pub(crate) route: RouteRef<'a>,
    pub(crate) key: &'a AttrKey,
    /// The peer that it was received from; `None` for local routes.
    pub(crate) from: Option<&'a SourceFacts>,
    /// Long-lived stale here (RFC 9494 §4.2): LLGR_STALE is attached.
    pub(crate) long_lived: bool,
}

/// A route that may be advertised if the policy accepts it.
struct Eligible<'a> {
    /// The attributes for the policy, if they differ from the route's.
    edit: Option<AttrEdit>,
    /// The source, if the route is reflected.
    reflected: Option<&'a SourceFacts>,
}

/// What becomes of MULTI_EXIT_DISC before the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MedBefore {
    #[default]
    Kept,
    /// RFC 4271 §5.1.4: a MED received from one AS is not propagated to another.
    Removed,
}

impl MedBefore {
    fn of(group: &GroupKey, out: &Outbound<'_>) -> MedBefore {
        match (group.peer_type, out.from) {
            (PeerType::External, Some(_)) => MedBefore::Removed,
            _ => MedBefore::Kept,
        }
    }
}

/// The rules before the policy. Returns the source, if the route is reflected.
fn check_before<'a>(
    group: &GroupKey,
    out: &Outbound<'a>,
) -> Result<Option<&'a SourceFacts>, Withholding> {
    check_communities(group, out.key)?;
    check_role(group, out.route.attrs)?;
    check_long_lived(group, out)?;
    check_reflection(group, out.from)
}

/// Whether the export policy is asked about a route, and with which MED (RFC 8671 §5.2: the Adj-RIB-Out
/// before the policy).
pub(crate) fn offer(group: &GroupKey, out: &Outbound<'_>) -> Result<MedBefore, Withholding> {
    check_before(group, out).map(|_| MedBefore::of(group, out))
}

/// Applies the rules before the policy.
fn check_eligible<'a>(group: &GroupKey, out: &Outbound<'a>) -> Result<Eligible<'a>, Withholding> {
    let reflected = check_before(group, out)?;
    let drops_med = MedBefore::of(group, out) == MedBefore::Removed;
    let mut edit = drops_med.then(|| {
        let mut edit = AttrEdit::from_view(out.route.attrs);
        edit.remove(attr::MULTI_EXIT_DISC);
        edit
    });
    if out.long_lived {
        edit.get_or_insert_with(|| AttrEdit::from_view(out.route.attrs))
            .add_community(Community::LLGR_STALE);
    }
    Ok(Eligible { edit, reflected })
}

/// Evaluates the export policy only; `applied` is called as by [`Policy::evaluate_with`].
pub(crate) fn trace_policy(
    group: &GroupKey,
    out: &Outbound<'_>,
    applied: impl FnMut(usize, &RouteRef<'_>),
) -> Result<Verdict, Withholding> {
    let Eligible { edit, .. } = check_eligible(group, out)?;
    let attrs = edit.as_ref().map_or(out.route.attrs, AttrEdit::view);
    Ok(group.export.evaluate_with(&RouteRef { attrs, ..out.route }, applied))
}

/// Applies every rule between the best path and the wire.
pub(crate) fn export(group: &GroupKey, out: &Outbound<'_>) -> Result<Exported, Withholding> {
    let Eligible { mut edit, reflected } = check_eligible(group, out)?;
    let verdict = {
        let attrs = edit.as_ref().map_or(out.route.attrs, AttrEdit::view);
        group.export.evaluate(&RouteRef { attrs, ..out.route })
    };
    if verdict.decision != Decision::Accept {
        return Err(Withholding::Policy(group.export.describe(verdict.rule)));
    }
    edit = verdict.attrs.or(edit);
    let next_hop = resolve_next_hop(group, out, verdict.next_hop)?;
    let begin = || AttrEdit::from_view(out.route.attrs);
    match group.peer_type {
        PeerType::External => rewrite_external(group, edit.get_or_insert_with(begin))?,
        PeerType::Internal => {
            let attrs = edit.as_ref().map_or(out.route.attrs, AttrEdit::view);
            if attrs.local_pref().is_none() {
                let edit = edit.get_or_insert_with(begin);
                edit.set_local_pref(crate::rib::LOCAL_PREF_DEFAULT);
            }
        }
    }
    for asn in verdict.outermost.iter().rev() {
        prepend(edit.get_or_insert_with(begin), *asn)?;
    }
    // RFC 9494 §4.3: it must not be removed.
    if group.long_lived == LongLived::Known && is_long_lived_stale(out) {
        edit.get_or_insert_with(begin).add_community(Community::LLGR_STALE);
    }
    if group.drain != Drain::Off {
        mark_drained(group.peer_type, edit.get_or_insert_with(begin));
    }
    Ok(Exported {
        attrs: edit.map(AttrEdit::into_bytes),
        next_hop,
        reflection: reflected.map(|from| Reflection::new(group, from)),
    })
}

/// Whether the result depends only on a route's attributes, next hop and source.
pub(crate) fn is_memoisable(group: &GroupKey, source: Source) -> bool {
    source == Source::Bgp && group.export.is_prefix_independent()
}

/// What the result depends on besides a route's attributes, next hop and source; `None`: on more than
/// the prefix. Valid while no next hop changes.
#[inline]
pub(crate) fn memo_class(
    source: Source,
    policy: &Prepared,
    prefix: impl FnOnce() -> Prefix,
) -> Option<PrefixClass> {
    if source == Source::Bgp { policy.class(prefix) } else { None }
}

fn check_communities(group: &GroupKey, key: &AttrKey) -> Result<(), Withholding> {
    if key.has(AttrKey::NO_ADVERTISE) {
        return Err(Withholding::NoAdvertise);
    }
    if group.peer_type == PeerType::External {
        if key.has(AttrKey::NO_EXPORT) {
            return Err(Withholding::NoExport);
        }
        if key.has(AttrKey::NO_EXPORT_SUBCONFED) {
            return Err(Withholding::NoExportSubconfed);
        }
    }
    Ok(())
}

/// RFC 9234 §5, egress: a route with ONLY_TO_CUSTOMER is advertised to customers only.
fn check_role(group: &GroupKey, attrs: AttrView<'_>) -> Result<(), Withholding> {
    if group.role.is_some_and(Role::neighbor_is_no_customer) && attrs.only_to_customer().is_some() {
        return Err(Withholding::OnlyToCustomer);
    }
    Ok(())
}

/// Whether the route is least preferred (RFC 9494 §4.3).
fn is_long_lived_stale(out: &Outbound<'_>) -> bool {
    out.long_lived || out.key.has(AttrKey::LLGR_STALE)
}

/// RFC 9494 §4.3: a long-lived stale route is advertised only to peers that sent capability 71. A route
/// that became stale here is advertised to nobody once the capability is no longer configured.
fn check_long_lived(group: &GroupKey, out: &Outbound<'_>) -> Result<(), Withholding> {
    let is_withheld = match group.long_lived {
        LongLived::Known => false,
        LongLived::Unknown => is_long_lived_stale(out),
        LongLived::Unused => out.long_lived,
    };
    if is_withheld { Err(Withholding::LongLivedStale) } else { Ok(()) }
}

/// The source, if the route is exported from iBGP to iBGP and may be reflected (RFC 4456 §6). iBGP
/// sessions with different local AS numbers are not inside one AS: between them a route is exported
/// like any other, as in BIRD.
fn check_reflection<'a>(
    group: &GroupKey,
    from: Option<&'a SourceFacts>,
) -> Result<Option<&'a SourceFacts>, Withholding> {
    match from {
        Some(from)
            if from.peer_type == PeerType::Internal
                && group.peer_type == PeerType::Internal
                && from.local_asn == group.local_asn =>
        {
            if from.client || group.client {
                Ok(Some(from))
            } else {
                Err(Withholding::NotReflected)
            }
        }
        _ => Ok(None),
    }
}

fn rewrite_external(group: &GroupKey, attrs: &mut AttrEdit) -> Result<(), Withholding> {
    attrs.remove_all(&[attr::LOCAL_PREF, attr::ORIGINATOR_ID, attr::CLUSTER_LIST]);
    if attrs.view().ext_communities().any(|c| !c.is_transitive()) {
        let transitive: Vec<_> =
            attrs.view().ext_communities().filter(|c| c.is_transitive()).collect();
        attrs.set_ext_communities(&transitive);
    }
    if let Some(list) = attrs.view().get(attr::IPV6_EXTENDED_COMMUNITIES) {
        // RFC 5701 §2: the second bit of the type says non-transitive.
        let all = list.value.chunks(20);
        let kept: Vec<u8> = all.filter(|c| c[0] & 0x40 == 0).flatten().copied().collect();
        match (kept.len() == list.value.len(), kept.is_empty()) {
            (true, _) => {}
            (false, true) => attrs.remove(attr::IPV6_EXTENDED_COMMUNITIES),
            (false, false) => {
                let flags = list.flags;
                attrs.set(flags, attr::IPV6_EXTENDED_COMMUNITIES, &kept);
            }
        }
    }
    prepend(attrs, group.local_asn)?;
    if group.role.is_some_and(Role::marks_advertised) && attrs.view().only_to_customer().is_none() {
        attrs.set_only_to_customer(group.local_asn);
    }
    Ok(())
}

/// RFC 8326 §4.2, applied after policy so that no policy overrides it: the receiver is to prefer
/// any other path. LOCAL_PREF 0 says so within an AS; GRACEFUL_SHUTDOWN asks an external peer to
/// set it.
fn mark_drained(receiver: PeerType, attrs: &mut AttrEdit) {
    match receiver {
        PeerType::Internal => attrs.set_local_pref(0),
        PeerType::External => attrs.add_community(Community::GRACEFUL_SHUTDOWN),
    }
}

/// Prepends a number to AS_PATH. An attribute holds at most 65,535 octets: a route whose AS_PATH
/// has no room for the number must not be advertised without it (RFC 4271 §5.1.2).
fn prepend(attrs: &mut AttrEdit, asn: Asn) -> Result<(), Withholding> {
    match attrs.prepend_as(asn, 1) {
        0 => Err(Withholding::AsPathFull),
        _ => Ok(()),
    }
}

fn resolve_next_hop(
    group: &GroupKey,
    out: &Outbound<'_>,
    set: Option<NextHop>,
) -> Result<NextHop, Withholding> {
    let own = || own_next_hop(group);
    let kept = match (set, group.next_hop, out.from) {
        (Some(hop), _, _) => Some(hop),
        (None, NextHopMode::SelfAddress, _) => None,
        (None, NextHopMode::Keep, _) => out.route.next_hop,
        // What an operator named is meant for every peer.
        (None, _, None) if out.route.source == Source::Announced => out.route.next_hop,
        (None, NextHopMode::Auto | NextHopMode::ThirdParty, Some(_))
            if group.peer_type == PeerType::Internal =>
        {
            out.route.next_hop
        }
        (None, NextHopMode::ThirdParty, None) if group.peer_type == PeerType::Internal => {
            // A local route may have a gateway of the other family, which cannot be its next hop.
            out.route.next_hop.filter(|hop| hop.addr().is_ipv4() == (group.family == Family::Ipv4))
        }
        (None, NextHopMode::Auto | NextHopMode::ThirdParty, _) => None,
    };
    match (kept, group.family) {
        (None, _) => own(),
        (Some(hop @ NextHop::V4(_)), Family::Ipv4) => Ok(hop),
        (Some(NextHop::V4(_)), Family::Ipv6) => own(),
        (Some(NextHop::V6(addr) | NextHop::V6Both { global: addr, .. }), family) => {
            if family == Family::Ipv4 && !group.ipv4_over_ipv6 {
                return Err(Withholding::NoIpv4NextHop);
            }
            // A link-local address has no meaning beyond its link; traffic is to come through us.
            if is_link_local(addr) { own() } else { Ok(NextHop::V6(addr)) }
        }
    }
}

fn own_next_hop(group: &GroupKey) -> Result<NextHop, Withholding> {
    let is_usable = |addr: &IpAddr| match (addr, group.family) {
        (IpAddr::V4(_), family) => family == Family::Ipv4,
        (IpAddr::V6(_), family) => family == Family::Ipv6 || group.ipv4_over_ipv6,
    };
    let ours = [Some(group.local_addr), group.other_addr];
    let found = ours.into_iter().flatten().find(is_usable);
    match (found.ok_or(Withholding::NoNextHop)?, group.link_local) {
        (IpAddr::V6(global), Some(link_local)) => Ok(NextHop::V6Both { global, link_local }),
        (addr, _) => Ok(NextHop::from(addr)),
    }
}

fn is_link_local(addr: Ipv6Addr) -> bool {
    addr.segments()[0] & 0xFFC0 == 0xFE80
}
