//! Routes of recorded messages: what each peer had announced, and not withdrawn, when the records end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::mrt::{MessageOf, Session, StateChange};
use bgp_proto::types::{Asn, FamilySet, NextHop, PathId, PeerType, Prefix};
use bgp_proto::wire::{MessageType, Nlri, Update, UpdateContext, Verdict, split_frame};

/// The longest message (RFC 8654).
const MESSAGE_MAX: usize = 65_535;
/// A session that is up, as a STATE_CHANGE has it.
const ESTABLISHED: u16 = 6;

/// A peer as records of messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Speaker {
    pub(super) address: IpAddr,
    pub(super) asn: Asn,
}

impl From<Session> for Speaker {
    fn from(session: Session) -> Self {
        Speaker { address: session.peer, asn: session.peer_asn }
    }
}

/// A path that a message announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// In canonical form.
    pub(super) attrs: Arc<[u8]>,
    pub(super) next_hop: NextHop,
    /// When, in seconds of Unix time.
    pub(super) at: u32,
}

/// A peer, by its position, and the path identifier.
type Path = (u32, PathId);

/// What messages changed since the dump before them, if there was one.
#[derive(Default)]
pub(super) struct Replay {
    /// The last word on each path; `None`: withdrawn.
    changed: BTreeMap<Prefix, BTreeMap<Path, Option<Announced>>>,
    /// Peers whose session ended: nothing of an earlier dump is left of them.
    ended: BTreeSet<u32>,
    /// UPDATEs received.
    pub(super) updates: u64,
    /// Messages that no speaker could have accepted.
    pub(super) malformed: u64,
}

impl Replay {
    /// Whether any message or change of state has been replayed.
    pub(super) fn is_empty(&self) -> bool {
        self.updates == 0 && self.malformed == 0 && self.ended.is_empty()
    }

    /// A message that `peer` sent; those of its routes that `wanted` selects are kept.
    pub(super) fn message(
        &mut self,
        peer: u32,
        message: &MessageOf<'_>,
        wanted: impl Fn(Prefix) -> bool,
    ) {
        let Ok(Some(frame)) = split_frame(message.message, MESSAGE_MAX) else {
            self.malformed += 1;
            return;
        };
        match frame.kind {
            // Of another session than what came before.
            MessageType::Open | MessageType::Notification => self.end(peer),
            MessageType::Update => match Update::parse(frame.body(), &context(message)) {
                Ok(update) => self.update(peer, message.at.secs, &update, wanted),
                Err(_) => self.malformed += 1,
            },
            MessageType::Keepalive | MessageType::RouteRefresh => {}
        }
    }

    fn update(&mut self, peer: u32, at: u32, update: &Update<'_>, wanted: impl Fn(Prefix) -> bool) {
        self.updates += 1;
        for nlri in update.unreach() {
            self.set(peer, &nlri, None, &wanted);
        }
        let attrs: Option<Arc<[u8]>> = (update.verdict() == Verdict::Accept).then(|| {
            let mut octets = Vec::new();
            update.canonical_attrs(&mut octets);
            octets.into()
        });
        for reach in update.reach() {
            let path = attrs.as_ref().map(|attrs| Announced {
                attrs: Arc::clone(attrs),
                next_hop: reach.next_hop,
                at,
            });
            self.set(peer, &reach.nlri, path.as_ref(), &wanted);
        }
    }

    fn set(
        &mut self,
        peer: u32,
        nlri: &Nlri<'_>,
        path: Option<&Announced>,
        wanted: impl Fn(Prefix) -> bool,
    ) {
        for (id, prefix) in nlri.iter().filter(|(_, prefix)| wanted(*prefix)) {
            self.changed.entry(prefix).or_default().insert((peer, id), path.cloned());
        }
    }

    /// A change of state: a session that is no longer established takes its routes along.
    pub(super) fn state(&mut self, peer: u32, change: &StateChange) {
        if change.old == ESTABLISHED && change.new != ESTABLISHED {
            self.end(peer);
        }
    }

    fn end(&mut self, peer: u32) {
        self.ended.insert(peer);
        self.changed.retain(|_, paths| {
            paths.retain(|(of, _), _| *of != peer);
            !paths.is_empty()
        });
    }

    /// Whether the path of an earlier dump is no longer what the peer announces.
    pub(super) fn replaces(&self, prefix: Prefix, peer: u32, id: PathId) -> bool {
        let is_changed = || self.changed.get(&prefix)?.get(&(peer, id));
        self.ended.contains(&peer) || is_changed().is_some()
    }

    /// The paths of a prefix that messages announced, with the positions of their peers.
    pub(super) fn paths(
        &self,
        prefix: Prefix,
    ) -> impl Iterator<Item = (u32, PathId, &Announced)> + use<'_> {
        let paths = self.changed.get(&prefix).into_iter().flatten();
        paths.filter_map(|((peer, id), path)| Some((*peer, *id, path.as_ref()?)))
    }

    /// The prefixes that messages named.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Prefix> + use<'_> {
        self.changed.keys().copied()
    }

    /// Another dump begins: it says what there is.
    pub(super) fn restart(&mut self) {
        *self = Replay::default();
    }
}

/// How the UPDATEs of a record are encoded. What it does not say is taken as negotiated.
fn context(message: &MessageOf<'_>) -> UpdateContext {
    let Session { peer_asn, local_asn, .. } = message.session;
    UpdateContext {
        four_octet_as: message.has_as4,
        add_path: if message.has_path_ids { FamilySet::ALL } else { FamilySet::EMPTY },
        ipv4_over_ipv6: true,
        // The peer may be a route server, or a confederation's.
        enforce_first_as: false,
        ..UpdateContext::new(PeerType::of(local_asn, peer_asn), peer_asn)
    }
}
