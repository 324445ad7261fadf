//! Handling of the kernel's events.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;

use bgp_proto::types::{Prefix, Time};

use super::super::fib::plan::Seen;
use super::super::foreign::{Effect, Foreign};
use super::super::links::LinkEffect;
use super::super::message::{self, AddressMessage, Header, KernelRoute};
use super::super::netlink::Heard;
use super::resync::{Urgency, is_ignored, tables};
use super::{RETRY_INTERVAL, SETTLE, Worker};

/// Maximum datagrams read per turn.
const EVENTS_MAX: usize = 2048;

impl Worker {
    /// Reads the pending events.
    pub(super) fn hear(&mut self) {
        let mut datagram = std::mem::take(&mut self.datagram);
        for _ in 0..EVENTS_MAX {
            match self.monitor.hear(&mut datagram) {
                Ok(Heard::Events(len)) => {
                    let bytes = datagram.get(..len).unwrap_or_default();
                    for (header, body) in message::messages(bytes) {
                        self.handle_event(header, body);
                    }
                }
                Ok(Heard::Nothing) => break,
                Ok(Heard::Overrun) => {
                    tracing::debug!("netlink events were lost: reading the kernel's tables again");
                    self.resync.request(self.now(), Urgency::AtOnce);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read kernel events");
                    self.resync.request(self.now(), Urgency::AtOnce);
                    break;
                }
            }
        }
        self.datagram = datagram;
    }

    fn handle_event(&mut self, header: Header, body: &[u8]) {
        match header.kind {
            message::RTM_NEWROUTE | message::RTM_DELROUTE if header.port != self.own_port => {
                if let Some((prefix, route)) = message::parse_route(body) {
                    self.handle_route(header, prefix, route);
                }
            }
            message::RTM_NEWLINK => {
                if let Some(link) = message::parse_link(body) {
                    let ifindex = link.index;
                    let effect = self.links.handle_link(link);
                    self.handle_link_effect(ifindex, effect);
                }
            }
            message::RTM_DELLINK => {
                if let Some(link) = message::parse_link(body) {
                    // Collected before the link is removed.
                    let networks = self.links.networks_on(link.index);
                    let effect = self.links.handle_link_gone(link.index);
                    networks.into_iter().for_each(|network| self.touched.add_network(network));
                    self.handle_link_effect(link.index, effect);
                }
            }
            message::RTM_NEWADDR | message::RTM_DELADDR => {
                if let Some(address) = message::parse_address(body) {
                    if header.kind == message::RTM_NEWADDR {
                        let effect = self.links.handle_address(address);
                        self.handle_address_effect(&address, effect);
                    } else {
                        let effect = self.links.handle_address_gone(&address);
                        self.handle_address_effect(&address, effect);
                        self.read_if_source(address.local);
                    }
                }
            }
            message::RTM_NEWNEXTHOP => {
                if let Some(object) = message::parse_object(body) {
                    let touched = self.objects.handle_new(object);
                    self.handle_objects(&touched);
                }
            }
            message::RTM_DELNEXTHOP => {
                if let Some(id) = message::parse_object_gone(body) {
                    let touched = self.objects.handle_gone(id);
                    self.handle_objects(&touched);
                }
            }
            _ => {}
        }
    }

    fn handle_link_effect(&mut self, ifindex: u32, effect: LinkEffect) {
        if effect == LinkEffect::Unchanged {
            return;
        }
        self.touched.links = true;
        self.touched.add_interface(ifindex);
        for prefix in self.foreign.prefixes_over(ifindex) {
            self.touched.add(prefix);
        }
        for network in self.links.networks_on(ifindex) {
            self.touched.add_network(network);
        }
        let now = self.now();
        if matches!(effect, LinkEffect::RoutesLost | LinkEffect::CarrierLost) {
            let touched = self.objects.handle_interface_lost(ifindex);
            self.handle_objects(&touched);
        }
        if effect == LinkEffect::RoutesLost {
            // The interface may have entered or left a VRF.
            self.touched.all = true;
            self.read_if_used(ifindex);
        }
        let domain = self.links.domain_of_table(self.config.table);
        if domain != self.domain {
            self.domain = domain;
            self.touched.all = true;
            self.resync.request(now, Urgency::AtOnce);
        }
        self.schedule_retry(now);
    }

    fn handle_address_effect(&mut self, address: &AddressMessage, effect: LinkEffect) {
        if effect == LinkEffect::Unchanged {
            return;
        }
        self.touched.links = true;
        self.touched.add_interface(address.ifindex);
        self.touched.add_address(address.local);
        self.touched.add_network(address.network);
        // A gateway of a learned route may have become one of our own addresses.
        for prefix in self.foreign.prefixes_via(address.local) {
            self.touched.add(prefix);
        }
        if effect == LinkEffect::RoutesLost {
            self.read_if_used(address.ifindex);
        }
        self.schedule_retry(self.now());
    }

    /// Requests a dump, as routes over the interface may have been deleted, if there are any.
    fn read_if_used(&mut self, ifindex: u32) {
        let ours = self.shared.plan().uses_interface(ifindex);
        if ours || self.foreign.use_interface(ifindex) {
            self.resync.request(self.now(), Urgency::AtOnce);
        }
    }

    /// Requests a dump, as routes with this source address may have been deleted or changed, if
    /// there are any.
    fn read_if_source(&mut self, addr: IpAddr) {
        let ours = self.shared.plan().uses_source(addr);
        if ours || self.foreign.use_source(addr) {
            self.resync.request(self.now(), Urgency::AtOnce);
        }
    }

    /// Handles next-hop objects that changed, or were deleted together with their routes.
    fn handle_objects(&mut self, touched: &BTreeSet<NonZeroU32>) {
        if touched.is_empty() {
            return;
        }
        let now = self.now();
        let prefixes = self.foreign.handle_objects(touched, &self.objects);
        let mut plan = self.shared.plan();
        for id in touched {
            plan.handle_object(*id, self.objects.get(*id), now);
        }
        if plan.uses_objects(touched) {
            self.resync.request(now, Urgency::AtOnce);
        }
        for prefix in prefixes {
            self.touched.add(prefix);
            plan.touch(prefix);
        }
        drop(plan);
        self.schedule_retry(now);
    }

    fn handle_route(&mut self, header: Header, prefix: Prefix, mut route: KernelRoute) {
        if !self.reads(route.table) {
            return;
        }
        self.objects.expand(&mut route);
        let now = self.now();
        let new = header.kind == message::RTM_NEWROUTE;
        let replaced = new && header.flags & message::NLM_F_REPLACE != 0;
        if self.config.owns(&route) {
            if replaced && self.foreign.holder(prefix, route.table, route.metric).is_some() {
                // Another program replaced a foreign route by one with our protocol number.
                self.resync.request(now, Urgency::AtOnce);
            }
            let mut plan = self.shared.plan();
            let seen = if replaced { Seen::Replacing } else { Seen::Added };
            return match (new, route.tos) {
                (true, 0) => plan.handle_present(prefix, route.spec(), seen, now),
                (true, tos) => plan.handle_twin(prefix, route.metric, tos),
                (false, 0) => plan.handle_gone(prefix, &route.spec(), now),
                (false, tos) => plan.handle_twin_lost(prefix, route.metric, tos),
            };
        }
        if Foreign::ignores(prefix) || is_ignored(&route, &self.links) {
            return;
        }
        // No foreign route was in the place of the replaced one, so it may have been ours.
        let ours_may_be_gone = replaced
            && route.table == self.config.table
            && self.foreign.holder(prefix, route.table, route.metric).is_none();
        let (table, metric) = (route.table, route.metric);
        let effect = if new {
            self.foreign.handle_new(prefix, route, replaced)
        } else {
            self.foreign.handle_gone(prefix, route)
        };
        match effect {
            Effect::Unchanged => return,
            Effect::Changed => {}
            Effect::Unclear => self.resync.request(now, Urgency::AtOnce),
        }
        self.touched.add(prefix);
        self.schedule_retry(now);
        if self.config.enabled {
            let mut plan = self.shared.plan();
            if ours_may_be_gone && table == self.config.table {
                plan.handle_lost(prefix, metric, now);
            }
            plan.touch(prefix);
        }
    }

    /// Schedules a retry of refused routes, if there are any.
    pub(super) fn schedule_retry(&mut self, now: Time) {
        if self.retry_due.is_none() && self.shared.plan().has_refused() {
            self.retry_due = Some((now + SETTLE).max(self.retried + RETRY_INTERVAL));
        }
    }

    /// Whether the table is read.
    fn reads(&self, table: u32) -> bool {
        tables(self.config.table, self.domain).contains(&table)
    }
}
