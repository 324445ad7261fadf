//! One slice of a group's changes on its way to a chunk: prefixes collected per attribute set, so
//! that each set is written once.

use hashbrown::HashMap;

use super::{Audience, ExportId, ExportState, Frame, GroupKey};
use crate::rib::{DestId, SourceId};
use crate::types::PathId;
use crate::wire::{AttrEdit, UpdateWriter};

/// Prefixes that go into the same messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BucketKey {
    /// [`ExportId::NONE`] withdraws.
    out: ExportId,
    audience: Audience,
    except: SourceId,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    key: BucketKey,
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    dest: DestId,
    tx: u32,
    next: u32,
}

const END: u32 = u32::MAX;

/// What a route's attributes and source become in this group; `None` if it is withheld.
#[derive(Default)]
pub(crate) struct Memo {
    all: HashMap<MemoKey, Option<ExportId>, foldhash::fast::FixedState>,
    /// The latest: routes of one UPDATE tend to follow each other.
    latest: Option<(MemoKey, Option<ExportId>)>,
}

/// Attributes, next hop and source of a path.
pub(crate) type MemoKey = (u32, u32, u16);

impl Memo {
    #[inline]
    pub(crate) fn get(&mut self, key: &MemoKey) -> Option<Option<ExportId>> {
        if let Some((latest, out)) = self.latest
            && latest == *key
        {
            return Some(out);
        }
        let out = *self.all.get(key)?;
        self.latest = Some((*key, out));
        Some(out)
    }

    pub(crate) fn insert(&mut self, key: MemoKey, out: Option<ExportId>) {
        self.all.insert(key, out);
        self.latest = Some((key, out));
    }

    /// Takes out what was memoised, each once, in no particular order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Option<ExportId>> + '_ {
        self.latest = None;
        self.all.drain().map(|(_, out)| out)
    }
}

/// A slice under construction. One is used again for every slice of the table, because its memory
/// is bounded by the length of a slice and costs more to get than to keep.
#[derive(Default)]
pub(crate) struct Batch {
    buckets: Vec<Bucket>,
    index: HashMap<BucketKey, u32, foldhash::fast::FixedState>,
    items: Vec<Item>,
    /// Estimate of the octets to be written.
    bytes: usize,
    /// Destinations looked at.
    pub(crate) considered: usize,
    pub(crate) memo: Memo,
}

/// A prefix that does not fit a message with its attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oversized {
    pub(crate) dest: DestId,
    pub(crate) tx: u32,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Forgets everything but the memory. What was memoised has been taken out.
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
        self.index.clear();
        self.items.clear();
        self.bytes = 0;
        self.considered = 0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn announce(
        &mut self,
        dest: DestId,
        tx: u32,
        out: ExportId,
        audience: Audience,
        except: SourceId,
    ) {
        self.add(BucketKey { out, audience, except }, dest, tx);
    }

    pub(crate) fn withdraw(&mut self, dest: DestId, tx: u32, audience: Audience, except: SourceId) {
        self.add(BucketKey { out: ExportId::NONE, audience, except }, dest, tx);
    }

    #[inline]
    fn add(&mut self, key: BucketKey, dest: DestId, tx: u32) {
        let item = self.items.len() as u32;
        self.items.push(Item { dest, tx, next: END });
        self.bytes += 6;
        // Routes of one UPDATE tend to follow each other.
        let latest = self.buckets.len().wrapping_sub(1);
        let at = match self.buckets.get(latest) {
            Some(bucket) if bucket.key == key => Some(latest),
            _ => self.index.get(&key).map(|at| *at as usize),
        };
        match at {
            Some(at) => {
                let bucket = &mut self.buckets[at];
                self.items[bucket.last as usize].next = item;
                bucket.last = item;
            }
            None => {
                self.index.insert(key, self.buckets.len() as u32);
                self.buckets.push(Bucket { key, first: item, last: item });
                self.bytes += 120;
            }
        }
    }

    /// Writes everything; routes that do not fit a message come back.
    pub(crate) fn encode(
        &self,
        group: &GroupKey,
        state: &ExportState<'_>,
    ) -> (Vec<u8>, Vec<Frame>, Vec<Oversized>) {
        let mut bytes = Vec::with_capacity(self.bytes);
        let mut frames: Vec<Frame> = Vec::new();
        let mut oversized = Vec::new();
        let format = group.format();
        for bucket in &self.buckets {
            let key = bucket.key;
            let (next_hop, reflected);
            let mut writer = if key.out == ExportId::NONE {
                UpdateWriter::withdraw(&mut bytes, format)
            } else {
                let out = state.outs.get(key.out);
                next_hop = state.hops.hop(out.next_hop).expect("what is told has a next hop");
                let attrs = state.attrs.view(out.attrs);
                reflected = out.reflection.map(|reflection| reflection.apply(attrs));
                let attrs = reflected.as_ref().map_or(attrs, AttrEdit::view);
                UpdateWriter::announce(&mut bytes, format, attrs, next_hop)
            };
            let mut at = bucket.first;
            while let Some(item) = self.items.get(at as usize) {
                if writer.push(PathId(item.tx), state.dests.prefix(item.dest)).is_err() {
                    oversized.push(Oversized { dest: item.dest, tx: item.tx });
                }
                at = item.next;
            }
            writer.finish();
            push_frame(&mut frames, bytes.len(), key.audience, key.except);
        }
        (bytes, frames, oversized)
    }
}

/// Ends a frame at `end`, joined to the last one if the same members read it.
pub(crate) fn push_frame(
    frames: &mut Vec<Frame>,
    end: usize,
    audience: Audience,
    except: SourceId,
) {
    let end = u32::try_from(end).expect("a chunk is far shorter than 4 GiB");
    match frames.last_mut() {
        Some(last) if last.end == end => {}
        Some(last) if last.audience == audience && last.except == except => last.end = end,
        None if end == 0 => {}
        _ => frames.push(Frame { end, audience, except }),
    }
}
