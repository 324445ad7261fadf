//! What a peer receives, and the routes that it holds as a result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use bgp_proto::export::Reader;
use bgp_proto::types::{Family, NextHop, Prefix};
use bgp_proto::wire::{RefreshKind, RouteRefresh, Update, UpdateContext, Verdict};

use crate::model::Meaning;

#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    /// A flag that is set already.
    pub(crate) fn set() -> Arc<Self> {
        Arc::new(Flag(AtomicBool::new(true)))
    }

    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// One family of a session, as the peer sees it.
pub(crate) struct Receiver {
    pub(crate) reader: Reader,
    pub(crate) woken: Arc<Flag>,
    /// The routes that it holds, by prefix and path identifier; the flag is set while a refresh has
    /// not repeated the route.
    pub(crate) held: BTreeMap<(Prefix, u32), (Meaning, NextHop, bool)>,
    pub(crate) end_of_ribs: u32,
    pub(crate) last_was_end_of_rib: bool,
    pub(crate) refreshing: bool,
}

impl Receiver {
    /// A receiver without routes that has to be read.
    pub(crate) fn new(reader: Reader) -> Self {
        Receiver {
            reader,
            woken: Flag::set(),
            held: BTreeMap::new(),
            end_of_ribs: 0,
            last_was_end_of_rib: false,
            refreshing: false,
        }
    }

    /// Applies one message as the peer would.
    pub(crate) fn take(
        &mut self,
        message: &[u8],
        context: &UpdateContext,
        family: Family,
        own_tag: u32,
    ) {
        self.last_was_end_of_rib = false;
        if message[18] == 5 {
            let refresh = RouteRefresh::decode(message, true).unwrap();
            assert_eq!(refresh.family, family.afi_safi());
            match refresh.kind {
                RefreshKind::Begin => {
                    self.refreshing = true;
                    self.held.values_mut().for_each(|(_, _, stale)| *stale = true);
                }
                RefreshKind::End => {
                    assert!(std::mem::take(&mut self.refreshing), "EoRR without BoRR");
                    // RFC 7313 §4: routes that the refresh did not repeat are removed. Here these
                    // are routes that no longer fit into a message.
                    self.held.retain(|_, (_, _, stale)| !*stale);
                }
                other => panic!("{other:?} in the stream"),
            }
            return;
        }
        let update = Update::parse(&message[19..], context).unwrap();
        assert_eq!(update.verdict(), Verdict::Accept);
        assert!(update.discarded().codes().is_empty());
        if let Some(marked) = update.end_of_rib() {
            assert_eq!(marked, family);
            self.end_of_ribs += 1;
            self.last_was_end_of_rib = true;
            return;
        }
        for nlri in update.unreach() {
            assert_eq!(nlri.family(), family);
            for (path_id, prefix) in nlri.iter() {
                self.held.remove(&(prefix, path_id.0));
            }
        }
        let mut attrs = Vec::new();
        for reach in update.reach() {
            assert_eq!(reach.nlri.family(), family);
            attrs.clear();
            update.canonical_attrs(&mut attrs);
            let meaning = Meaning::decode(&attrs);
            assert!(!meaning.communities.contains(&own_tag), "a peer is sent its own route");
            for (path_id, prefix) in reach.nlri.iter() {
                self.held.insert((prefix, path_id.0), (meaning.clone(), reach.next_hop, false));
            }
        }
    }
}
