//! One link: who the neighbour on it is, and when to solicit and advertise.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::packet::{Discard, Message, decode};
use crate::types::{Time, Timer};

/// Between solicitations while no neighbour is known; doubled with each, up to
/// [`SOLICIT_INTERVAL_MAX`] (RFC 7559 §2).
///
/// Differs from RFC: the first one is sent at once, without the delay of RFC 4861 §6.3.7, which keeps
/// many hosts on one link from starting together. These links connect routers.
const SOLICIT_INTERVAL: Duration = Duration::from_secs(4);
const SOLICIT_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// MaxRtrAdvInterval and MinRtrAdvInterval (RFC 4861 §6.2.1). The interval is FRR's on unnumbered
/// links.
const ADVERTISE_MAX: Duration = Duration::from_secs(10);
const ADVERTISE_MIN: Duration = Duration::from_millis(3300);
/// Least time between two advertisements to all nodes (MIN_DELAY_BETWEEN_RAS, RFC 4861 §6.2.6).
const ADVERTISE_PAUSE: Duration = Duration::from_secs(3);
/// Longest delay of an answer to a solicitation (MAX_RA_DELAY_TIME).
const ANSWER_DELAY_MAX: Duration = Duration::from_millis(500);
/// Least time between two answers, so that a flood of solicitations does not become one of answers.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
/// How long a neighbour has to answer a solicitation when somebody else advertises: longer than
/// [`ADVERTISE_PAUSE`] and [`ANSWER_DELAY_MAX`] together.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Between the solicitations within [`ANSWER_TIME`].
const SOLICIT_AGAIN: Duration = Duration::from_secs(2);
/// After a failed transmission, when to try again: a new address is tentative for about a second.
const RETRY: Duration = Duration::from_secs(1);

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// [`SOLICITATION`](super::SOLICITATION) to all routers, `ff02::2`.
    Solicitation,
    /// [`SOLICITATION`](super::SOLICITATION) to the neighbour alone, to see whether it is still there. A
    /// flood that fills the kernel's neighbour table does not keep it from being sent, as it would one to
    /// a group.
    Probe(Ipv6Addr),
    /// [`advertisement`](super::advertisement) to all nodes, `ff02::1`.
    Advertisement,
    /// [`advertisement`](super::advertisement) to the one that solicited it.
    Answer(Ipv6Addr),
}

/// What an input changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// Another neighbour than before.
    Neighbor(Ipv6Addr),
}

/// Counters of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Valid advertisements of others.
    pub advertisements: u64,
    /// Valid solicitations of others.
    pub solicitations: u64,
    /// Packets sent, of both kinds.
    pub sent: u64,
    /// Packets discarded, by [`Discard`] in the order of [`Discard::ALL`].
    pub discarded: [u64; Discard::ALL.len()],
}

/// Another router than the neighbour, which has begun to advertise.
#[derive(Clone, Copy, Debug)]
struct Contender {
    address: Ipv6Addr,
    since: Time,
}

/// One link between two routers.
///
/// The first router heard is the neighbour. If another one is heard, the neighbour is solicited; the
/// other takes its place if the neighbour has not advertised within 5 s: it is gone, or it has another
/// address. So a second router on the link changes nothing while the first one answers. The
/// state is that of one neighbour and one other router, however many send.
#[derive(Debug)]
pub struct Link {
    advertises: bool,
    /// Our usable link-local address.
    local: Option<Ipv6Addr>,
    neighbor: Option<Ipv6Addr>,
    /// When the neighbour last advertised.
    heard: Time,
    contender: Option<Contender>,
    decision: Timer,
    solicit: Timer,
    solicit_interval: Duration,
    advertise: Timer,
    advertised: Option<Time>,
    /// Who is to be answered, and when.
    answer: Option<(Ipv6Addr, Time)>,
    answered: Option<Time>,
    random: u64,
    stats: Stats,
}

impl Link {
    /// A link on which nothing is sent before [`Link::set_local`]. `advertises`: whether we send
    /// advertisements.
    pub fn new(advertises: bool, seed: u64) -> Link {
        Link {
            advertises,
            local: None,
            neighbor: None,
            heard: Time::ZERO,
            contender: None,
            decision: Timer::stopped(),
            solicit: Timer::stopped(),
            solicit_interval: SOLICIT_INTERVAL,
            advertise: Timer::stopped(),
            advertised: None,
            answer: None,
            answered: None,
            random: seed,
            stats: Stats::default(),
        }
    }

    /// The neighbour; stays known while the link is down.
    pub fn neighbor(&self) -> Option<Ipv6Addr> {
        self.neighbor
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Sets our link-local address; `None`: there is none, or the link is down. A new one is announced
    /// at once, and the neighbour is solicited: either end may have changed meanwhile.
    pub fn set_local(&mut self, now: Time, local: Option<Ipv6Addr>) {
        if self.local == local {
            return;
        }
        self.local = local;
        if local.is_none() {
            self.solicit.stop();
            self.advertise.stop();
            self.decision.stop();
            (self.contender, self.answer) = (None, None);
            return;
        }
        self.solicit_interval = SOLICIT_INTERVAL;
        self.solicit.set(now);
        if self.advertises {
            self.advertise.set(now);
        }
    }

    /// Starts or stops advertising.
    pub fn set_advertises(&mut self, now: Time, advertises: bool) {
        if self.advertises == advertises {
            return;
        }
        self.advertises = advertises;
        if !advertises {
            self.advertise.stop();
            self.answer = None;
        } else if self.local.is_some() {
            self.advertise.set(now);
        }
    }

    /// An ICMPv6 message from `source`.
    ///
    /// # Errors
    /// Why it is discarded. It has been counted.
    pub fn handle_packet(
        &mut self,
        now: Time,
        source: Ipv6Addr,
        hop_limit: u8,
        octets: &[u8],
    ) -> Result<News, Discard> {
        let message = decode(source, hop_limit, octets)
            .and_then(|m| if self.local == Some(source) { Err(Discard::Own) } else { Ok(m) });
        match message {
            Err(why) => {
                if let Some(count) = self.stats.discarded.get_mut(why as usize) {
                    *count += 1;
                }
                Err(why)
            }
            Ok(Message::Solicitation) => {
                self.stats.solicitations += 1;
                self.handle_solicitation(now, source);
                Ok(News::None)
            }
            Ok(Message::Advertisement { .. }) => {
                self.stats.advertisements += 1;
                Ok(self.handle_advertisement(now, source))
            }
        }
    }

    /// RFC 4861 §6.2.6. The answer goes to the sender alone: it needs not wait for the pause between
    /// advertisements to all.
    fn handle_solicitation(&mut self, now: Time, source: Ipv6Addr) {
        if !self.advertises || self.local.is_none() {
            return;
        }
        let delay = self.between(Duration::ZERO, ANSWER_DELAY_MAX);
        if !source.is_unspecified() {
            let allowed = self.answered.map_or(now, |at| at + ANSWER_PAUSE);
            self.answer.get_or_insert((source, (now + delay).max(allowed)));
            return;
        }
        let allowed = self.advertised.map_or(now, |at| at + ADVERTISE_PAUSE);
        let at = (now + delay).max(allowed);
        if self.advertise.deadline().is_none_or(|due| due > at) {
            self.advertise.set(at);
        }
    }

    fn handle_advertisement(&mut self, now: Time, source: Ipv6Addr) -> News {
        match self.neighbor {
            Some(known) if known == source => {
                self.heard = now;
                self.contender = None;
                self.decision.stop();
                self.solicit.stop();
                News::None
            }
            Some(_) => {
                if self.local.is_none() {
                    return News::None;
                }
                match &mut self.contender {
                    Some(contender) => contender.address = source,
                    None => {
                        self.contender = Some(Contender { address: source, since: now });
                        self.decision.set(now + ANSWER_TIME);
                        self.solicit.set(now);
                    }
                }
                News::None
            }
            None => self.take(now, source),
        }
    }

    fn take(&mut self, now: Time, source: Ipv6Addr) -> News {
        self.neighbor = Some(source);
        self.heard = now;
        self.contender = None;
        self.decision.stop();
        self.solicit.stop();
        News::Neighbor(source)
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Time) -> News {
        if self.decision.expired(now)
            && let Some(Contender { address, since }) = self.contender.take()
            && self.heard < since
        {
            return self.take(now, address);
        }
        News::None
    }

    /// The next packet to send, or `None` if none is due.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        if let Some((to, _)) = self.answer.take_if(|(_, at)| *at <= now) {
            self.answered = Some(now);
            self.stats.sent += 1;
            return Some(Transmit::Answer(to));
        }
        if self.advertise.expired(now) {
            let next = self.between(ADVERTISE_MIN, ADVERTISE_MAX);
            self.advertise.set(now + next);
            self.advertised = Some(now);
            self.stats.sent += 1;
            return Some(Transmit::Advertisement);
        }
        if self.solicit.expired(now) {
            self.stats.sent += 1;
            if let (Some(known), Some(end)) = (self.neighbor, self.decision.deadline()) {
                // One lost packet must not decide who the neighbour is.
                if now + SOLICIT_AGAIN < end {
                    self.solicit.set(now + SOLICIT_AGAIN);
                }
                return Some(Transmit::Probe(known));
            }
            if self.neighbor.is_none() {
                self.solicit.set(now + self.solicit_interval);
                self.solicit_interval = (self.solicit_interval * 2).min(SOLICIT_INTERVAL_MAX);
            }
            return Some(Transmit::Solicitation);
        }
        None
    }

    /// The last packet of [`Link::poll_transmit`] could not be sent.
    pub fn transmit_failed(&mut self, now: Time, what: Transmit) {
        self.stats.sent = self.stats.sent.saturating_sub(1);
        match what {
            Transmit::Advertisement => self.advertise.set(now + RETRY),
            Transmit::Solicitation => self.solicit.set(now + RETRY),
            // A neighbour that was not asked is not silent.
            Transmit::Probe(_) => {
                self.solicit.set(now + RETRY);
                if let Some(contender) = &mut self.contender {
                    contender.since = now;
                    self.decision.set(now + ANSWER_TIME);
                }
            }
            // The sender solicits again.
            Transmit::Answer(_) => {}
        }
    }

    /// When to call [`Link::handle_timeout`] and [`Link::poll_transmit`] next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let timers = [&self.decision, &self.solicit, &self.advertise];
        let answer = self.answer.map(|(_, at)| at);
        timers.into_iter().filter_map(Timer::deadline).chain(answer).min()
    }

    /// A random duration between two (SplitMix64).
    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * ((z ^ (z >> 31)) % 1001) as u32 / 1000
    }
}

#[cfg(test)]
mod tests;
