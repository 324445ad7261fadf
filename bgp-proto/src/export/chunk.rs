//! Immutable chunks of encoded UPDATEs, and the pool that recycles their memory.
//!
//! With many groups, thousands of chunks come and go. malloc(3) sorts freed memory lazily: the next
//! large request would sort all of it in the middle of some turn. Chunks are therefore pooled while
//! they are needed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;

use super::Except;
use super::resync::CoveredRanges;
use crate::rib::{SourceId, Version};
use crate::types::Time;

/// Octets that the pool always keeps. What exceeds it and was not needed for [`TRIM_PERIOD`] is
/// freed in portions: [`ChunkPool::trim`]. Readers cannot return more than logs were allowed to
/// hold. The pool is not charged to any peer: no session is closed because of it.
const KEPT_MAX: usize = 4 << 20;
/// How long an unneeded chunk is kept.
const TRIM_PERIOD: Duration = Duration::from_secs(1);
/// Maximum number of chunks freed in one turn.
const TRIMMED_AT_ONCE: u32 = 128;
/// A request of a size for which malloc(3) has no free piece makes it sort what was just freed,
/// rather than all of it at some later request.
const SORTING_REQUEST: usize = 50_005;
/// Octets of a chunk besides its messages: the struct with its reference counts, its entry in a
/// log, and the allocator's overhead of two allocations.
const CHUNK_OVERHEAD: usize = size_of::<Chunk>() + 16 + 32 + 2 * 16;

/// Who reads a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Audience {
    /// Every member.
    Everyone,
    /// Members that are resynchronised.
    Resyncing,
    /// This member alone.
    Only(SourceId),
}

/// A run of messages for one audience, up to `end`; it starts where the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) end: u32,
    pub(crate) audience: Audience,
    pub(crate) except: Except,
}

/// A frame table. Most have one frame, stored inline: chunks are allocated and freed by the
/// thousand, and a small allocation next to each would prevent the allocator from coalescing the
/// memory around it until it has to do so all at once.
pub(crate) type Frames = SmallVec<[Frame; 2]>;

/// Encoded UPDATEs with their frame table.
#[derive(Debug, Default)]
pub struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) frames: Frames,
    /// Every change up to here is in this chunk or before it.
    pub(super) complete: Version,
    /// It has frames for every member except, at most, these.
    everyone: Option<Except>,
    resyncing: bool,
    /// Members with a frame of their own, ascending.
    only: SmallVec<[SourceId; 4]>,
    /// Destinations that members being resynchronised have covered once they have read it.
    pub(super) covered: CoveredRanges,
    /// The pool that its memory returns to.
    pool: ChunkPool,
}

impl Chunk {
    fn set_frames(&mut self, frames: Frames) {
        let mut except =
            frames.iter().filter(|f| f.audience == Audience::Everyone).map(|f| f.except);
        self.everyone = except
            .next()
            .map(|first| if except.all(|other| other == first) { first } else { Except::NOBODY });
        self.resyncing = frames.iter().any(|f| f.audience == Audience::Resyncing);
        self.only.clear();
        self.only.extend(frames.iter().filter_map(|f| match f.audience {
            Audience::Only(peer) => Some(peer),
            _ => None,
        }));
        self.only.sort_unstable();
        self.only.dedup();
        self.frames = frames;
    }

    /// Octets of memory that it occupies while a log holds it. Chunks may be as short as one
    /// withdrawal.
    pub(super) fn octets(&self) -> usize {
        let frames = if self.frames.spilled() { self.frames.capacity() } else { 0 };
        class_of(self.bytes.len()).0 + frames * size_of::<Frame>() + CHUNK_OVERHEAD
    }

    /// Whether it may hold a frame for the member; true errs on the safe side.
    pub(super) fn concerns(&self, peer: SourceId, is_resyncing: bool) -> bool {
        self.everyone.is_some_and(|except| !except.contains(peer))
            || is_resyncing && self.resyncing
            || self.only.binary_search(&peer).is_ok()
    }
}

/// A chunk shared by a log and its readers. The last owner returns the memory to the pool.
#[derive(Clone, Debug)]
pub(crate) struct SharedChunk(Option<Arc<Chunk>>);

impl SharedChunk {
    /// Whether both are the same chunk.
    pub(super) fn is(&self, other: &SharedChunk) -> bool {
        std::ptr::eq(&raw const **self, &raw const **other)
    }
}

impl std::ops::Deref for SharedChunk {
    type Target = Chunk;

    fn deref(&self) -> &Chunk {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for SharedChunk {
    fn drop(&mut self) {
        // If two owners drop it concurrently, neither may find itself the last: the memory is then
        // freed.
        if let Some(mut chunk) = self.0.take()
            && let Some(last) = Arc::get_mut(&mut chunk)
        {
            let pool = std::mem::take(&mut last.pool);
            pool.take_back(chunk);
        }
    }
}

/// The pool that chunks are taken from and return to, from whichever thread reads them last. The
/// default is no pool: memory comes from the allocator.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkPool(Option<Arc<Mutex<Pool>>>);

#[derive(Debug, Default)]
struct Pool {
    /// Free chunks by size class.
    free: Vec<Vec<Arc<Chunk>>>,
    kept: usize,
    /// Minimum of `kept` since the last review: this much was not needed.
    least: usize,
    reviewed: Time,
    /// Octets that the last review found unneeded and that are not freed yet.
    surplus: usize,
}

/// The size class of `octets`: the size, rounded up by at most an eighth beyond 1024, and its
/// index.
fn class_of(octets: usize) -> (usize, usize) {
    let whole = octets.next_power_of_two().max(1024);
    let step = whole / 16;
    let steps = octets.div_ceil(step);
    // The lower half of each range is that of the ranges below.
    let below = 8 * (whole.ilog2() as usize - 10);
    (steps * step, below + steps)
}

impl ChunkPool {
    /// The pool, created on first use.
    pub(crate) fn shared(&mut self) -> Self {
        self.0.get_or_insert_default();
        self.clone()
    }

    /// A chunk with a copy of `octets`; the caller reuses its buffer.
    pub(crate) fn chunk(
        &self,
        octets: &[u8],
        frames: Frames,
        complete: Version,
        covered: CoveredRanges,
    ) -> SharedChunk {
        let (capacity, class) = class_of(octets.len());
        let mut chunk = self.take(class).unwrap_or_else(|| {
            Arc::new(Chunk { bytes: Vec::with_capacity(capacity), ..Chunk::default() })
        });
        let content = Arc::get_mut(&mut chunk).expect("a pooled chunk has no other owner");
        content.bytes.clear();
        content.bytes.extend_from_slice(octets);
        content.set_frames(frames);
        (content.complete, content.covered) = (complete, covered);
        content.pool = self.clone();
        SharedChunk(Some(chunk))
    }

    fn lock(&self) -> Option<MutexGuard<'_, Pool>> {
        Some(self.0.as_deref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, class: usize) -> Option<Arc<Chunk>> {
        let mut pool = self.lock()?;
        let known = pool.free.get_mut(class)?.pop()?;
        pool.kept -= known.octets();
        pool.least = pool.least.min(pool.kept);
        Some(known)
    }

    /// Whether unneeded chunks are still to be freed.
    pub(crate) fn has_surplus(&self) -> bool {
        self.lock().is_some_and(|pool| pool.surplus > 0)
    }

    /// When the next review is due.
    pub(crate) fn review_at(&self) -> Option<Time> {
        let pool = self.lock()?;
        (pool.kept > KEPT_MAX).then(|| pool.reviewed + TRIM_PERIOD)
    }

    /// Frees at most [`TRIMMED_AT_ONCE`] unneeded chunks; returns how many.
    pub(crate) fn trim(&self, now: Time) -> u32 {
        let Some(mut pool) = self.lock() else { return 0 };
        if now >= pool.reviewed + TRIM_PERIOD {
            pool.surplus = pool.least.min(pool.kept.saturating_sub(KEPT_MAX));
            (pool.least, pool.reviewed) = (pool.kept, now);
        }
        if pool.surplus == 0 {
            return 0;
        }
        let mut freed = Vec::new();
        while freed.len() < TRIMMED_AT_ONCE as usize
            && pool.surplus > 0
            && let Some(chunk) = pool.free.iter_mut().rev().find_map(Vec::pop)
        {
            let octets = chunk.octets();
            pool.kept -= octets;
            pool.least = pool.least.min(pool.kept);
            pool.surplus = pool.surplus.saturating_sub(octets);
            freed.push(chunk);
        }
        drop(pool);
        let count = freed.len() as u32;
        drop(freed);
        drop(std::hint::black_box(Vec::<u8>::with_capacity(SORTING_REQUEST)));
        count
    }

    /// Returns `chunk`, which has no other owner, to the pool. Its content stays until it is
    /// reused.
    fn take_back(&self, chunk: Arc<Chunk>) {
        let (capacity, class) = class_of(chunk.bytes.len());
        if capacity > 0
            && let Some(mut pool) = self.lock()
        {
            if pool.free.len() <= class {
                pool.free.resize(class + 1, Vec::new());
            }
            pool.kept += chunk.octets();
            pool.free[class].push(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_a_class_of_its_own() {
        let mut latest = (0, 0);
        for octets in 1..=512 << 10 {
            let (capacity, class) = class_of(octets);
            assert!(capacity >= octets && capacity - octets <= (octets / 8).max(64), "{octets}");
            assert_eq!(capacity == latest.0, class == latest.1, "{octets}");
            assert!(class == latest.1 || class == latest.1 + 1, "{octets}");
            assert_eq!(class_of(capacity), (capacity, class));
            latest = (capacity, class);
        }
    }

    #[test]
    fn a_short_chunk_counts_with_the_memory_that_it_takes() {
        let chunk = |octets: &[u8], frames: usize| {
            let except = Except::NOBODY;
            let frame = |end| Frame { end, audience: Audience::Everyone, except };
            let frames = (1..=frames as u32).map(frame).collect();
            ChunkPool::default().chunk(octets, frames, 0, CoveredRanges::default()).octets()
        };
        assert!(chunk(&[0; 28], 1) >= 64 + size_of::<Chunk>() + 16);
        assert!(chunk(&[0; 28], 20) >= chunk(&[0; 28], 1) + 20 * size_of::<Frame>());
        assert!(
            chunk(&[0; 64 << 10], 1) < (64 << 10) * 51 / 50,
            "the overhead of a long chunk is small"
        );
    }

    #[test]
    fn memory_is_used_again_and_bounded() {
        let pool = ChunkPool::default().shared();
        let chunk =
            |octets: &[u8]| pool.chunk(octets, Frames::default(), 0, CoveredRanges::default());
        let first = chunk(&[7; 3000]);
        let (place, reader) = (first.bytes.as_ptr(), first.clone());
        drop(first);
        let other = chunk(&[8; 3000]);
        assert_ne!(other.bytes.as_ptr(), place, "a reader still holds it");
        drop((reader, other));
        let again = [chunk(&[9; 2990]), chunk(&[9; 2990])];
        assert!(again.iter().any(|chunk| chunk.bytes.as_ptr() == place));
        assert!(again.iter().all(|chunk| chunk.bytes == [9; 2990]));
        let many: Vec<SharedChunk> = (0..40).map(|_| chunk(&vec![1; 250 << 10])).collect();
        drop((again, many));
        let octets = || pool.lock().unwrap().kept;
        let full = octets();
        assert!(full > 9 << 20);
        // Chunks that were allocated and returned within the period count as needed.
        let start = Time::from_micros(1_000_000);
        assert_eq!(pool.trim(start), 0, "it was not there for a whole period");
        let busy: Vec<SharedChunk> = (0..20).map(|_| chunk(&vec![1; 250 << 10])).collect();
        drop(busy);
        let end = pool.review_at().expect("more than KEPT_MAX is kept");
        assert_eq!(end, start + TRIM_PERIOD);
        assert!(pool.trim(end) > 0);
        while pool.has_surplus() {
            assert!(pool.trim(end) > 0);
        }
        let kept = octets();
        assert!(kept < full * 2 / 3 && kept > full / 3, "{kept} of {full}");
        assert!(pool.trim(end + TRIM_PERIOD) > 0);
        while pool.has_surplus() {
            pool.trim(end + TRIM_PERIOD);
        }
        let kept = octets();
        assert!(kept <= KEPT_MAX && kept > KEPT_MAX - (300 << 10), "{kept}");
        assert_eq!(pool.review_at(), None);
    }
}
