//! Applies changes to a route; its attributes are copied only once a change alters them.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Change, Decision, METRIC_MIRROR, RouteRef, Verdict};
use crate::types::{Asn, Community, ExtCommunity, Family, NextHop, Prefix};
use crate::wire::{AttrEdit, AttrView, attr};

/// First of the well-known standard communities (RFC 1997: 0xFFFF0000 to 0xFFFFFFFF).
const WELL_KNOWN_FIRST: Community = Community(0xFFFF_0000);

/// A route under evaluation: the original, and what differs from it.
pub(super) struct Working<'a> {
    original: &'a RouteRef<'a>,
    attrs: Option<AttrEdit>,
    next_hop: Option<NextHop>,
    metric: Option<u32>,
    preference: Option<u16>,
    tunnel: Option<Arc<str>>,
    source: Option<IpAddr>,
    outermost: SmallVec<[Asn; 2]>,
}

impl<'a> Working<'a> {
    pub(super) fn new(original: &'a RouteRef<'a>) -> Self {
        Working {
            original,
            attrs: None,
            next_hop: None,
            metric: None,
            preference: None,
            tunnel: None,
            source: None,
            outermost: SmallVec::new(),
        }
    }

    /// The route as the next rule sees it.
    pub(super) fn route(&self) -> RouteRef<'_> {
        RouteRef {
            attrs: self.view(),
            next_hop: self.next_hop.or(self.original.next_hop),
            metric: self.metric.or(self.original.metric),
            ..*self.original
        }
    }

    /// The verdict that accepts the route with the changes so far.
    pub(super) fn accept(self, rule: Option<usize>) -> Verdict {
        Verdict {
            decision: Decision::Accept,
            rule,
            attrs: self.attrs,
            next_hop: self.next_hop,
            metric: self.metric,
            preference: self.preference,
            tunnel: self.tunnel,
            source: self.source,
            keeps_installed: false,
            outermost: self.outermost,
        }
    }

    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.apply_one(change);
        }
    }

    fn apply_one(&mut self, change: &Change) {
        match *change {
            Change::LocalPref(value) => self.set_local_pref(value),
            Change::Med(value) => {
                if self.view().med() != Some(value) {
                    self.edit().set_med(value);
                }
            }
            Change::ClearMed => self.remove(attr::MULTI_EXIT_DISC),
            Change::NextHop(address) => {
                if fits(address, self.original.prefix) {
                    self.next_hop = Some(address.into());
                }
            }
            Change::Prepend(_, 0) => {}
            Change::Prepend(asn, count) => {
                self.edit().prepend_as(asn, usize::from(count));
            }
            Change::PrependOutermost(asn) => self.outermost.insert(0, asn),
            Change::AddCommunity(c) => add(
                self,
                c,
                |view| view.communities().collect(),
                |edit, list| edit.set_communities(list),
            ),
            Change::AddLargeCommunity(c) => add(
                self,
                c,
                |view| view.large_communities().collect(),
                |edit, list| edit.set_large_communities(list),
            ),
            Change::AddExtCommunity(c) => add(
                self,
                c,
                |view| view.ext_communities().collect(),
                |edit, list| edit.set_ext_communities(list),
            ),
            Change::RemoveCommunity(c) => self.retain_communities(|kept| kept != c),
            Change::RemoveLargeCommunity(c) => {
                let before: List<_> = self.view().large_communities().collect();
                let after: List<_> = before.iter().copied().filter(|kept| *kept != c).collect();
                if after.len() != before.len() {
                    self.edit().set_large_communities(&after);
                }
            }
            Change::RemoveExtCommunity(c) => {
                let before: List<_> = self.view().ext_communities().collect();
                let after: List<_> = before.iter().copied().filter(|kept| *kept != c).collect();
                if after.len() != before.len() {
                    self.edit().set_ext_communities(&after);
                }
            }
            Change::SetLinkBandwidth(_)
            | Change::SumLinkBandwidth(..)
            | Change::ClearLinkBandwidth
            | Change::ScaleLinkBandwidth(_) => self.change_bandwidth(change),
            Change::ClearCommunities => {
                self.retain_communities(|kept| kept >= WELL_KNOWN_FIRST);
                self.remove(attr::EXTENDED_COMMUNITIES);
                self.remove(attr::LARGE_COMMUNITIES);
            }
            Change::Metric(value) => self.metric = Some(value),
            Change::LocalPrefFromMetric => {
                if let Some(metric) = self.metric.or(self.original.metric) {
                    self.set_local_pref(METRIC_MIRROR.wrapping_sub(metric));
                }
            }
            Change::MetricFromLocalPref => {
                if let Some(local_pref) = self.view().local_pref() {
                    self.metric = Some(METRIC_MIRROR.wrapping_sub(local_pref));
                }
            }
            Change::Preference(value) => self.preference = Some(value),
            Change::Tunnel(ref interface) => self.tunnel = Some(Arc::clone(interface)),
            Change::Source(source) => {
                if source.is_ipv4() == (self.original.prefix.family() == Family::Ipv4) {
                    self.source = Some(source);
                }
            }
            // Has an effect only in rules that reject.
            Change::KeepInstalled => {}
        }
    }

    fn change_bandwidth(&mut self, change: &Change) {
        let before: List<_> = self.view().ext_communities().collect();
        let others = || before.iter().copied().filter(|c| !c.is_link_bandwidth());
        let after: List<_> = match *change {
            Change::SetLinkBandwidth(bandwidth) => others().chain([bandwidth]).collect(),
            Change::SumLinkBandwidth(asn, scope) => match self.original.shared_bandwidth {
                Some(0) => others().collect(),
                Some(sum) => {
                    others().chain([ExtCommunity::of_link_bandwidth(asn, sum, scope)]).collect()
                }
                None => return,
            },
            Change::ClearLinkBandwidth => others().collect(),
            Change::ScaleLinkBandwidth(percent) => {
                before.iter().map(|c| c.scaled_link_bandwidth(percent)).collect()
            }
            _ => return,
        };
        if after != before {
            self.edit().set_ext_communities(&after);
        }
    }

    fn set_local_pref(&mut self, value: u32) {
        if self.view().local_pref() != Some(value) {
            self.edit().set_local_pref(value);
        }
    }

    fn view(&self) -> AttrView<'_> {
        self.attrs.as_ref().map_or(self.original.attrs, AttrEdit::view)
    }

    /// The attributes to write to, copied from the original on first use.
    fn edit(&mut self) -> &mut AttrEdit {
        let original = self.original.attrs;
        self.attrs.get_or_insert_with(|| AttrEdit::from_view(original))
    }

    fn remove(&mut self, code: u8) {
        if self.view().get(code).is_some() {
            self.edit().remove(code);
        }
    }

    fn retain_communities(&mut self, keep: impl Fn(Community) -> bool) {
        let before: List<_> = self.view().communities().collect();
        let after: List<_> = before.iter().copied().filter(|c| keep(*c)).collect();
        if after.len() != before.len() {
            self.edit().set_communities(&after);
        }
    }
}

impl Change {
    pub(super) fn is_prefix_independent(&self) -> bool {
        !matches!(
            self,
            Change::NextHop(IpAddr::V4(_))
                | Change::LocalPrefFromMetric
                | Change::Source(_)
                | Change::SumLinkBandwidth(..)
        )
    }
}

/// Communities of one kind; longer lists are rare and allocated on the heap.
type List<T> = SmallVec<[T; 16]>;

fn add<T: Copy + PartialEq>(
    working: &mut Working<'_>,
    community: T,
    read: impl Fn(AttrView<'_>) -> List<T>,
    write: impl Fn(&mut AttrEdit, &[T]),
) {
    let mut list = read(working.view());
    if !list.contains(&community) {
        list.push(community);
        write(working.edit(), &list);
    }
}

/// Whether routes to `prefix` can have this next hop: all but IPv6 routes over IPv4 next hops.
fn fits(next_hop: IpAddr, prefix: Prefix) -> bool {
    matches!((next_hop, prefix), (IpAddr::V6(_), _) | (IpAddr::V4(_), Prefix::V4(_)))
}
