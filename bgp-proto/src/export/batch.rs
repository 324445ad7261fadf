//! One slice of a group's changes before it is encoded: prefixes are collected per attribute set,
//! so that each set is written once.

use hashbrown::HashMap;

use super::chunk::{ChunkPool, Frames, SharedChunk};
use super::{
    Audience, CHUNK_MAX, CoveredRanges, Except, ExportId, ExportState, ExportTable, Frame,
    GroupKey, Reflection,
};
use crate::policy::PrefixClass;
use crate::rib::{AttrTable, DestId, NextHops, Version};
use crate::types::{Family, PathId};
use crate::wire::{AttrEdit, UpdateWriter};

/// Prefixes that go into the same messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BucketKey {
    /// [`ExportId::NONE`] withdraws.
    out: ExportId,
    audience: Audience,
    except: Except,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    key: BucketKey,
    first: u32,
    last: u32,
    /// Octets of each message other than prefixes.
    fixed: u32,
    /// Octets left in the current message.
    room: u32,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    dest: DestId,
    tx: u32,
    next: u32,
}

/// Upper bound of the octets of a message besides attributes and prefixes: header, lengths,
/// MP_REACH_NLRI with a next hop of 16 octets.
const MESSAGE_OCTETS: usize = 64;

const END: u32 = u32::MAX;

/// Results of exporting to groups that differ in their vantage alone, by what of a path decides; `None`
/// if withheld. They are valid while no path changes.
#[derive(Default)]
pub(crate) struct Memo {
    /// The key of these groups, without a vantage.
    of: Option<GroupKey>,
    all: HashMap<MemoKey, Option<ExportId>, foldhash::fast::FixedState>,
    /// The latest: routes of one UPDATE tend to follow each other.
    latest: Option<(MemoKey, Option<ExportId>)>,
}

/// Attributes, next hop and source of a path, whether it is long-lived stale, and what the policy sees
/// of its prefix.
pub(crate) type MemoKey = (u32, u32, u16, bool, PrefixClass);

impl Memo {
    /// Whether the results hold for a group with this key.
    pub(crate) fn is_for(&self, key: &GroupKey) -> bool {
        self.of.as_ref().is_some_and(|of| of.exports_like(key))
    }

    /// From now on, results are for groups with this key; there is none yet.
    pub(crate) fn begin(&mut self, key: &GroupKey) {
        self.of = Some(GroupKey { vantage: None, ..key.clone() });
    }

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

    /// Removes and returns every result, each once, in no particular order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Option<ExportId>> + '_ {
        (self.latest, self.of) = (None, None);
        self.all.drain().map(|(_, out)| out)
    }
}

/// A slice under construction. The table reuses one for every slice: its memory is bounded by the
/// length of a slice, and allocating it costs more than keeping it.
#[derive(Default)]
pub(crate) struct Batch {
    buckets: Vec<Bucket>,
    index: HashMap<BucketKey, u32, foldhash::fast::FixedState>,
    items: Vec<Item>,
    /// Upper bound of the octets to be written.
    bytes: usize,
    /// Buffer for the next encoding.
    spare: Vec<u8>,
    /// Routes that did not fit a message in the last encoding.
    pub(crate) oversized: Vec<Oversized>,
    pub(crate) pool: ChunkPool,
    /// Octets of the longest prefix of the family, and of a message.
    prefix_octets: usize,
    max_len: usize,
    /// Destinations examined.
    pub(crate) considered: usize,
    /// Work done but not charged yet.
    pub(crate) work: u32,
    pub(crate) memo: Memo,
}

/// A route that does not fit one message: prefix and attributes are too long together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oversized {
    pub(crate) dest: DestId,
    pub(crate) tx: u32,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Clears the contents and keeps the allocated memory and memoised results.
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
        self.index.clear();
        self.items.clear();
        self.bytes = 0;
        self.considered = 0;
    }

    /// Keeps the buffer for the next encoding.
    pub(crate) fn recycle(&mut self, encoded: Encoded) {
        if encoded.bytes.capacity() > self.spare.capacity() {
            self.spare = encoded.bytes;
            self.spare.clear();
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Releases memoised results.
    pub(crate) fn forget(
        &mut self,
        outs: &mut ExportTable,
        attrs: &mut AttrTable,
        hops: &mut NextHops,
    ) {
        // The order of release decides which ids are used next, and nothing else.
        #[allow(clippy::iter_over_hash_type)]
        for out in self.memo.drain().flatten() {
            outs.release(out, attrs, hops);
        }
    }

    /// Prepares for routes of this group.
    pub(crate) fn begin(&mut self, group: &GroupKey) {
        let longest = match group.family {
            Family::Ipv4 => 5,
            Family::Ipv6 => 17,
        };
        self.prefix_octets = longest + if group.add_path.is_some() { 4 } else { 0 };
        self.max_len = group.max_len;
    }

    #[inline]
    pub(crate) fn announce(
        &mut self,
        (dest, tx): (DestId, u32),
        out: ExportId,
        audience: Audience,
        except: Except,
        state: &ExportState<'_>,
    ) {
        let fixed = || {
            let route = state.outs.get(out);
            let added = route.reflection.map_or(0, |_| Reflection::OCTETS_MAX);
            // A two-octet speaker is sent AS4_PATH besides AS_PATH: both together are shorter than
            // twice the four-octet form.
            state.attrs.view(route.attrs).as_bytes().len() + added + MESSAGE_OCTETS
        };
        self.add(BucketKey { out, audience, except }, dest, tx, fixed);
    }

    pub(crate) fn withdraw(&mut self, dest: DestId, tx: u32, audience: Audience, except: Except) {
        let key = BucketKey { out: ExportId::NONE, audience, except };
        self.add(key, dest, tx, || MESSAGE_OCTETS);
    }

    #[inline]
    fn add(&mut self, key: BucketKey, dest: DestId, tx: u32, fixed: impl FnOnce() -> usize) {
        let item = self.items.len() as u32;
        self.items.push(Item { dest, tx, next: END });
        // Routes of one UPDATE tend to follow each other.
        let latest = self.buckets.len().wrapping_sub(1);
        let at = match self.buckets.get(latest) {
            Some(bucket) if bucket.key == key => latest,
            _ => match self.index.get(&key) {
                Some(at) => *at as usize,
                None => {
                    self.index.insert(key, self.buckets.len() as u32);
                    let fixed = fixed() as u32;
                    self.buckets.push(Bucket { key, first: item, last: END, fixed, room: 0 });
                    self.buckets.len() - 1
                }
            },
        };
        let bucket = &mut self.buckets[at];
        if bucket.last != END {
            self.items[bucket.last as usize].next = item;
        }
        bucket.last = item;
        let octets = self.prefix_octets as u32;
        if bucket.room < octets {
            self.bytes += bucket.fixed as usize;
            bucket.room = (self.max_len as u32).saturating_sub(bucket.fixed).max(octets);
        }
        bucket.room -= octets;
        self.bytes += octets as usize;
    }

    /// Encodes the batch, withdrawals first, so that no member ever holds more paths of a
    /// destination than it should. `full` receives each complete chunk; the rest is returned, and
    /// the caller returns its buffer with [`Batch::recycle`]. `oversized` then holds the routes
    /// that fit no message.
    pub(crate) fn encode(
        &mut self,
        group: &GroupKey,
        state: &ExportState<'_>,
        mut full: impl FnMut(&mut Encoded),
    ) -> Encoded {
        let (bytes, pool) = (std::mem::take(&mut self.spare), self.pool.shared());
        let mut done = Encoded { bytes, pool, ..Encoded::default() };
        let mut oversized = std::mem::take(&mut self.oversized);
        oversized.clear();
        for withdrawals in [true, false] {
            let buckets = self.buckets.iter();
            for bucket in buckets.filter(|b| (b.key.out == ExportId::NONE) == withdrawals) {
                self.encode_bucket(bucket, group, state, &mut done, &mut full, &mut oversized);
            }
        }
        self.oversized = oversized;
        done
    }

    fn encode_bucket(
        &self,
        bucket: &Bucket,
        group: &GroupKey,
        state: &ExportState<'_>,
        done: &mut Encoded,
        full: &mut impl FnMut(&mut Encoded),
        oversized: &mut Vec<Oversized>,
    ) {
        let (key, format) = (bucket.key, group.format());
        let route = (key.out != ExportId::NONE).then(|| state.outs.get(key.out));
        let reflected =
            route.and_then(|route| Some(route.reflection?.apply(state.attrs.view(route.attrs))));
        let mut at = bucket.first;
        while at != END {
            let mut writer = match route {
                None => UpdateWriter::withdraw(&mut done.bytes, format),
                Some(route) => {
                    let hop = state.hops.hop(route.next_hop);
                    let next_hop = hop.expect("an advertised route has a next hop");
                    let attrs = state.attrs.view(route.attrs);
                    let attrs = reflected.as_ref().map_or(attrs, AttrEdit::view);
                    UpdateWriter::announce(&mut done.bytes, format, attrs, next_hop)
                }
            };
            while let Some(item) = self.items.get(at as usize)
                && writer.octets() < CHUNK_MAX
            {
                if writer.push(PathId(item.tx), state.dests.prefix(item.dest)).is_err() {
                    oversized.push(Oversized { dest: item.dest, tx: item.tx });
                }
                at = item.next;
            }
            writer.finish();
            done.end_frame(key.audience, key.except);
            if done.bytes.len() >= CHUNK_MAX {
                full(done);
            }
        }
    }
}

/// Messages with their frames.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Frames,
    pool: ChunkPool,
}

impl Encoded {
    fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    /// Moves what was encoded into a chunk and leaves this empty.
    pub(crate) fn take_chunk(&mut self, complete: Version, covered: CoveredRanges) -> SharedChunk {
        let frames = std::mem::take(&mut self.frames);
        let chunk = self.pool.chunk(&self.bytes, frames, complete, covered);
        self.clear();
        chunk
    }

    /// Ends a frame after what was encoded; merged with the last one if the same members read it.
    pub(crate) fn end_frame(&mut self, audience: Audience, except: Except) {
        let end = u32::try_from(self.bytes.len()).expect("a chunk is bounded by CHUNK_MAX");
        match self.frames.last_mut() {
            Some(last) if last.end == end => {}
            Some(last) if last.audience == audience && last.except == except => last.end = end,
            None if end == 0 => {}
            _ => self.frames.push(Frame { end, audience, except }),
        }
    }
}
