//! Messages of peers that were treated as erroneous, for stations that ask for them (RFC 7854 §4.7).

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::Table;
use super::page::{PEER_WORK, Page};
use super::{MonitoredPeer, Monitors, Sending, State};
use crate::bmp::{PeerHeader, Rib, encode_mirrored, encode_mirrored_lost};
use crate::types::{PeerId, SessionId};

/// Most messages of one peer that are held for a station, and their octets.
const MESSAGES_MAX: usize = 64;
const OCTETS_MAX: u64 = 128 << 10;
/// Most octets that the messages of all peers may take.
const TOTAL_OCTETS_MAX: u64 = 1 << 20;
/// A message besides its octets.
const MESSAGE_OCTETS: u64 = 48;

/// Which messages of its peers a station is sent as they were received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mirroring {
    /// None.
    #[default]
    Nothing,
    /// Those that were treated as withdrawal, lost an attribute, or ended the session (RFC 7606).
    Errors,
}

/// A message of a peer, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// It was treated as erroneous; with its header.
    Erroneous(Arc<[u8]>),
    /// Some were lost, because there were too many.
    Lost,
}

impl Mirrored {
    /// Memory that it takes.
    pub(in crate::table) fn octets(&self) -> u64 {
        match self {
            Mirrored::Erroneous(octets) => MESSAGE_OCTETS + octets.len() as u64,
            Mirrored::Lost => MESSAGE_OCTETS,
        }
    }
}

/// Messages of a session that a station has not been sent, each with its Unix time in seconds.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    messages: VecDeque<(u32, Mirrored)>,
    octets: u64,
}

impl Mirror {
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    fn push(&mut self, secs: u32, message: Mirrored, room: u64) {
        let octets = message.octets();
        let fits = self.octets + octets <= OCTETS_MAX.min(self.octets + room)
            && self.messages.len() < MESSAGES_MAX;
        let message = if fits { message } else { Mirrored::Lost };
        if message == Mirrored::Lost {
            // Once for all that were lost at this place.
            if !matches!(self.messages.back(), Some((_, Mirrored::Lost))) {
                self.octets += MESSAGE_OCTETS;
                self.messages.push_back((secs, Mirrored::Lost));
            }
            return;
        }
        self.octets += octets;
        self.messages.push_back((secs, message));
    }

    /// Removes and encodes all.
    pub(super) fn write(&mut self, header: &PeerHeader, page: &mut Page<'_>) {
        for (secs, message) in std::mem::take(self).messages {
            let header = header.of(Rib::AdjRibInPre, secs);
            page.meter.spend(PEER_WORK);
            page.messages += 1;
            match message {
                Mirrored::Erroneous(octets) => encode_mirrored(&mut page.out, &header, &octets),
                Mirrored::Lost => encode_mirrored_lost(&mut page.out, &header),
            }
        }
    }
}

impl Monitors {
    /// Whether any station is sent erroneous messages.
    fn is_mirroring(&self) -> bool {
        self.by_id.values().any(|monitor| {
            matches!(monitor.state, State::Sending(_)) && monitor.params.mirror == Mirroring::Errors
        })
    }

    /// A message of a peer was treated as erroneous in this session.
    #[cold]
    #[inline(never)]
    pub(in crate::table) fn mirrored(
        &mut self,
        peer: PeerId,
        session: SessionId,
        message: &Mirrored,
        secs: u32,
    ) {
        for monitor in self.by_id.values_mut() {
            let State::Sending(sending) = &mut monitor.state else { continue };
            if monitor.params.mirror == Mirroring::Nothing {
                continue;
            }
            let room = TOTAL_OCTETS_MAX.saturating_sub(sending.mirrored_octets);
            let Some(known) = sending.peers.get_mut(&peer) else { continue };
            if known.present != Some(session) {
                continue;
            }
            let before = known.mirror.octets();
            known.mirror.push(secs, message.clone(), room);
            let after = known.mirror.octets();
            sending.mirrors.insert(peer);
            sending.mirrored(before, after);
            monitor.check_bound();
        }
    }
}

impl Sending {
    /// Notes how much more a peer's messages take.
    fn mirrored(&mut self, before: u64, after: u64) {
        self.mirrored_octets = (self.mirrored_octets + after).saturating_sub(before);
        self.grew(before, after);
    }

    /// The session of a peer has ended: what it sent in it precedes the Peer Down, if there is one.
    pub(super) fn end_mirror(&mut self, peer: PeerId, is_announced: bool) {
        self.mirrors.remove(&peer);
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let mirror = std::mem::take(&mut known.mirror);
        if is_announced {
            known.mirror_before = mirror;
        } else {
            self.mirrored(mirror.octets(), 0);
        }
    }

    /// What was received in the session that a Peer Down ends.
    pub(super) fn write_mirror_before(
        &mut self,
        peer: PeerId,
        header: &PeerHeader,
        page: &mut Page<'_>,
    ) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let before = known.mirror_before.octets();
        known.mirror_before.write(header, page);
        self.mirrored(before, 0);
    }

    /// Messages of sessions that the station knows.
    pub(super) fn write_mirrors(&mut self, page: &mut Page<'_>) {
        while !page.is_full()
            && let Some(peer) = self.mirrors.pop_first()
        {
            let Some(MonitoredPeer { announced: Some((_, header)), mirror, .. }) =
                self.peers.get_mut(&peer)
            else {
                continue;
            };
            let before = mirror.octets();
            mirror.write(header, page);
            self.mirrored(before, 0);
        }
    }
}

impl Table {
    /// Whether some monitor is sent messages that were treated as erroneous.
    pub fn is_mirroring(&self) -> bool {
        self.monitors.is_mirroring()
    }
}
