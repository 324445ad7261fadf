//! What the kernel says changed.

use bgp_proto::types::{Prefix, Time};

use super::super::fib::plan::Seen;
use super::super::foreign::{Effect, Foreign};
use super::super::links::LinkEffect;
use super::super::message::{self, Header, KernelRoute, Scope};
use super::super::netlink::Heard;
use super::{MAIN_TABLE, RETRY_INTERVAL, SETTLE, Worker};

/// Events read before something else gets its turn.
const EVENTS_MAX: usize = 2048;

impl Worker {
    /// Reads the events that wait.
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
                    self.resync.request(self.now());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read kernel events");
                    self.resync.request(self.now());
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
                    let effect = self.links.handle_link_gone(link.index);
                    self.handle_link_effect(link.index, effect);
                }
            }
            message::RTM_NEWADDR | message::RTM_DELADDR => {
                if let Some(address) = message::parse_address(body) {
                    let effect = if header.kind == message::RTM_NEWADDR {
                        self.links.handle_address(address)
                    } else {
                        self.links.handle_address_gone(&address)
                    };
                    // A gateway of a learned route may have become one of our own addresses.
                    self.touched.all |=
                        effect != LinkEffect::Unchanged && address.scope == Scope::Wide;
                    self.handle_link_effect(address.ifindex, effect);
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
        for prefix in self.foreign.prefixes_over(ifindex) {
            self.touched.add(prefix);
        }
        let now = self.now();
        if effect == LinkEffect::RoutesLost {
            let ours = self.shared.plan().uses_interface(ifindex);
            if ours || self.foreign.use_interface(ifindex) {
                self.resync.request(now);
            }
        }
        self.schedule_retry(now);
    }

    fn handle_route(&mut self, header: Header, prefix: Prefix, route: KernelRoute) {
        if !self.reads(route.table) {
            return;
        }
        let now = self.now();
        let new = header.kind == message::RTM_NEWROUTE;
        let replaced = new && header.flags & message::NLM_F_REPLACE != 0;
        if self.config.owns(&route) {
            if replaced && self.foreign.holder(prefix, route.table, route.metric).is_some() {
                // Somebody else wrote a route of "ours" over a foreign one.
                self.resync.request(now);
            }
            let mut plan = self.shared.plan();
            return if new {
                let seen = if replaced { Seen::Replacing } else { Seen::Added };
                plan.handle_present(prefix, route.spec(), seen, now);
            } else {
                plan.handle_lost(prefix, route.metric, now);
            };
        }
        if Foreign::ignores(prefix) {
            return;
        }
        let ours_may_be_gone = replaced
            && route.table == self.config.table
            && self.foreign.holder(prefix, route.table, route.metric).is_none();
        let (table, metric) = (route.table, route.metric);
        let effect = if new {
            self.foreign.handle_new(prefix, route, replaced)
        } else {
            self.foreign.handle_gone(prefix, &route)
        };
        match effect {
            Effect::Unchanged => return,
            Effect::Changed => {}
            Effect::Unclear => self.resync.request(now),
        }
        self.touched.add(prefix);
        self.schedule_retry(now);
        if table == self.config.table && self.config.enabled {
            let mut plan = self.shared.plan();
            if ours_may_be_gone {
                plan.handle_lost(prefix, metric, now);
            }
            plan.touch(prefix);
        }
    }

    /// Refused routes get another chance soon.
    pub(super) fn schedule_retry(&mut self, now: Time) {
        if self.retry_due.is_none() && self.shared.plan().counters().failed > 0 {
            self.retry_due = Some((now + SETTLE).max(self.retried + RETRY_INTERVAL));
        }
    }

    /// Whether routes of the table matter: ours go into one, next hops resolve over main as well.
    fn reads(&self, table: u32) -> bool {
        table == self.config.table || table == MAIN_TABLE
    }
}
