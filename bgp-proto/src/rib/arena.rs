//! Storage by `u32` index: arenas that grow without copying, runs of a few elements, sets of ids.
//!
//! Indexes come from the arenas themselves, never from outside; a wrong one is a bug and panics.

/// Elements per chunk: small enough that an idle table stays small, large enough that the chunk
/// list of a million elements stays in the cache.
const CHUNK_BITS: u32 = 10;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;

/// A growing array in chunks: no doubling spike, elements never move.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    len: u32,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { chunks: Vec::new(), len: 0 }
    }
}

impl<T> Arena<T> {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Whether an element is the first one of its chunk.
    #[inline]
    pub(crate) const fn begins_chunk(id: u32) -> bool {
        id.is_multiple_of(1 << CHUNK_BITS)
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> &T {
        &self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK_LEN - 1)]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> &mut T {
        &mut self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK_LEN - 1)]
    }

    #[inline]
    pub(crate) fn push(&mut self, value: T) -> u32 {
        let id = self.len;
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_LEN) {
            Some(chunk) => chunk.push(value),
            None => self.push_chunk(value),
        }
        self.len = id.checked_add(1).expect("fewer than 2^32 elements fit into memory");
        id
    }

    #[cold]
    fn push_chunk(&mut self, value: T) {
        let mut chunk = Vec::with_capacity(CHUNK_LEN);
        chunk.push(value);
        self.chunks.push(chunk);
    }

    /// Drops the elements from `len` on.
    pub(crate) fn truncate(&mut self, len: u32) {
        if len >= self.len {
            return;
        }
        self.len = len;
        self.chunks.truncate((len as usize).div_ceil(CHUNK_LEN));
        if let Some(last) = self.chunks.last_mut() {
            last.truncate((len as usize - 1) % CHUNK_LEN + 1);
        }
    }

    /// The element at `id`, or `None` beyond the end.
    #[inline]
    pub(crate) fn try_get(&self, id: u32) -> Option<&T> {
        (id < self.len).then(|| self.get(id))
    }
}

impl<T: Clone + Default> Arena<T> {
    /// Grows to at least `len` elements.
    #[inline]
    pub(crate) fn grow(&mut self, len: u32) {
        while self.len < len {
            self.push(T::default());
        }
    }
}

impl<T: Clone> Clone for Arena<T> {
    fn clone(&self) -> Self {
        let chunks = self
            .chunks
            .iter()
            .map(|chunk| {
                let mut copy = Vec::with_capacity(CHUNK_LEN);
                copy.extend_from_slice(chunk);
                copy
            })
            .collect();
        Arena { chunks, len: self.len }
    }
}

/// Location of a run: a slot of the size class that `len` belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) slot: u32,
    pub(crate) len: u16,
}

/// Maximum number of elements of a run.
pub(crate) const RUN_MAX: usize = u16::MAX as usize;

/// Capacity of a size class: 1, 2, 3, 4, 6, 8, 12, 16, 24, …
const fn class_capacity(class: usize) -> usize {
    if class < 2 {
        class + 1
    } else if class.is_multiple_of(2) {
        3 << ((class - 2) / 2)
    } else {
        4 << ((class - 3) / 2)
    }
}

/// The smallest class that holds `len` elements (at least one).
#[inline]
fn class_of(len: usize) -> usize {
    // The first classes go up by one, and most runs are in the very first.
    if len <= 4 { len.saturating_sub(1) } else { class_of_long(len) }
}

fn class_of_long(len: usize) -> usize {
    // Two classes per power of two, so start just below and step.
    let mut class = (2 * (usize::BITS - len.leading_zeros()) as usize).saturating_sub(4);
    while class_capacity(class) < len {
        class += 1;
    }
    class
}

/// Short arrays in size classes, with a free list per class.
#[derive(Clone, Debug)]
pub(crate) struct Runs<T> {
    classes: Vec<Class<T>>,
}

#[derive(Clone, Debug)]
struct Class<T> {
    capacity: usize,
    /// Runs per chunk, a power of two.
    per_chunk_bits: u32,
    chunks: Vec<Vec<T>>,
    used: u32,
    free: Vec<u32>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Runs { classes: Vec::new() }
    }
}

impl<T: Copy + Default> Class<T> {
    fn new(class: usize) -> Self {
        let capacity = class_capacity(class);
        let per_chunk_bits = (CHUNK_LEN / capacity).max(1).ilog2();
        Class { capacity, per_chunk_bits, chunks: Vec::new(), used: 0, free: Vec::new() }
    }

    #[inline]
    fn place(&self, slot: u32) -> (usize, usize) {
        let within = slot & ((1 << self.per_chunk_bits) - 1);
        ((slot >> self.per_chunk_bits) as usize, within as usize * self.capacity)
    }

    /// Stores `values`, at most as many as the class holds, in a slot.
    #[inline]
    fn store(&mut self, values: &[T]) -> u32 {
        if let Some(slot) = self.free.pop() {
            let (chunk, at) = self.place(slot);
            self.chunks[chunk][at..at + values.len()].copy_from_slice(values);
            return slot;
        }
        let slot = self.used;
        self.used += 1;
        let chunk = self.place(slot).0;
        if chunk == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(self.capacity << self.per_chunk_bits));
        }
        // Written once, and only as far as it is used: a new chunk is not filled in advance.
        let chunk = &mut self.chunks[chunk];
        chunk.extend_from_slice(values);
        for _ in values.len()..self.capacity {
            chunk.push(T::default());
        }
        slot
    }
}

impl<T: Copy + Default> Runs<T> {
    #[inline]
    pub(crate) fn get(&self, run: Run) -> &[T] {
        // The most frequent case. The class of single elements is chunked like an arena.
        if run.len == 1 {
            let chunk = &self.classes[0].chunks[(run.slot >> CHUNK_BITS) as usize];
            return std::slice::from_ref(&chunk[run.slot as usize & (CHUNK_LEN - 1)]);
        }
        self.get_several(run)
    }

    fn get_several(&self, run: Run) -> &[T] {
        if run.len == 0 {
            return &[];
        }
        let len = usize::from(run.len);
        let class = &self.classes[class_of(len)];
        let (chunk, at) = class.place(run.slot);
        &class.chunks[chunk][at..at + len]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, run: Run) -> &mut [T] {
        if run.len == 0 {
            return &mut [];
        }
        let len = usize::from(run.len);
        let class = &mut self.classes[class_of(len)];
        let (chunk, at) = class.place(run.slot);
        &mut class.chunks[chunk][at..at + len]
    }

    /// A run that holds `values`.
    #[inline]
    pub(crate) fn store(&mut self, values: &[T]) -> Run {
        let len = u16::try_from(values.len()).expect("callers keep runs within RUN_MAX");
        if len == 0 {
            return Run::default();
        }
        let class = class_of(values.len());
        while self.classes.len() <= class {
            let next = Class::new(self.classes.len());
            self.classes.push(next);
        }
        Run { slot: self.classes[class].store(values), len }
    }

    /// Frees the run's slot.
    #[inline]
    pub(crate) fn free(&mut self, run: Run) {
        if run.len > 0 {
            self.classes[class_of(usize::from(run.len))].free.push(run.slot);
        }
    }

    /// Returns the run with `value` appended; `run` is consumed.
    #[inline]
    pub(crate) fn push(&mut self, run: Run, value: T) -> Run {
        let len = usize::from(run.len);
        if len > 0 && class_of(len) == class_of(len + 1) {
            let longer = Run { slot: run.slot, len: run.len + 1 };
            self.get_mut(longer)[len] = value;
            return longer;
        }
        if len == 0 {
            return self.store(&[value]);
        }
        if len == 1 {
            let only = self.get(run)[0];
            self.free(run);
            return self.store(&[only, value]);
        }
        let mut values: smallvec::SmallVec<[T; 16]> = self.get(run).into();
        values.push(value);
        self.free(run);
        self.store(&values)
    }

    /// Returns the run without the element at `at`, which the last one replaces; `run` is consumed.
    #[inline]
    pub(crate) fn swap_remove(&mut self, run: Run, at: usize) -> Run {
        let values = self.get_mut(run);
        let last = values.len() - 1;
        if last < 2 {
            let only = values[last - at];
            self.free(run);
            return if last == 0 { Run::default() } else { self.store(&[only]) };
        }
        values.swap(at, last);
        if class_of(last) == class_of(last + 1) {
            return Run { slot: run.slot, len: run.len - 1 };
        }
        let rest: smallvec::SmallVec<[T; 16]> = self.get(run)[..last].into();
        self.free(run);
        self.store(&rest)
    }
}

/// Ids of one block of an [`IdSet`].
const BLOCK_IDS: u32 = 64 * 64;

/// A set of ids as a bitmap in blocks with a summary each: constant insert, ordered iteration that
/// skips gaps. It grows block by block and never moves its members: the sets that grow with one
/// table all do so at the same moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdSet {
    blocks: Vec<Option<Box<Block>>>,
    len: u32,
}

#[derive(Clone, Debug)]
struct Block {
    /// The words that are not 0.
    summary: u64,
    words: [u64; 64],
}

impl Block {
    const EMPTY: Block = Block { summary: 0, words: [0; 64] };

    /// The smallest member, as an offset, that is not below `from`.
    #[inline]
    fn next_from(&self, from: u32) -> Option<u32> {
        let at = from / 64;
        let word = self.words[at as usize] & (u64::MAX << (from % 64));
        if word != 0 {
            return Some(at * 64 + word.trailing_zeros());
        }
        let later = self.summary & u64::MAX.checked_shl(at + 1).unwrap_or(0);
        let at = (later != 0).then(|| later.trailing_zeros())?;
        Some(at * 64 + self.words[at as usize].trailing_zeros())
    }
}

/// The block, the word within it, and the bit of the word.
#[inline]
fn place_of(id: u32) -> (usize, usize, u64) {
    ((id / BLOCK_IDS) as usize, (id / 64 % 64) as usize, 1 << (id % 64))
}

impl IdSet {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn block(&self, at: usize) -> Option<&Block> {
        self.blocks.get(at)?.as_deref()
    }

    #[inline]
    pub(crate) fn contains(&self, id: u32) -> bool {
        let (block, word, bit) = place_of(id);
        self.block(block).is_some_and(|block| block.words[word] & bit != 0)
    }

    /// Returns whether it was absent.
    #[inline]
    pub(crate) fn insert(&mut self, id: u32) -> bool {
        let (at, word, bit) = place_of(id);
        if !matches!(self.blocks.get(at), Some(Some(_))) {
            self.make_block(at);
        }
        let Some(Some(block)) = self.blocks.get_mut(at) else { return false };
        let absent = block.words[word] & bit == 0;
        block.words[word] |= bit;
        block.summary |= 1 << word;
        self.len += u32::from(absent);
        absent
    }

    #[cold]
    fn make_block(&mut self, at: usize) {
        if self.blocks.len() <= at {
            self.blocks.resize(at + 1, None);
        }
        self.blocks[at] = Some(Box::new(Block::EMPTY));
    }

    /// Returns whether it was present.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        let (at, word, bit) = place_of(id);
        let Some(Some(block)) = self.blocks.get_mut(at) else { return false };
        let present = block.words[word] & bit != 0;
        block.words[word] &= !bit;
        if block.words[word] == 0 {
            block.summary &= !(1 << word);
        }
        self.len -= u32::from(present);
        present
    }

    /// The smallest member that is not below `from`.
    #[inline]
    pub(crate) fn next_from(&self, from: u32) -> Option<u32> {
        let at = from / BLOCK_IDS;
        if let Some(found) = self.block(at as usize).and_then(|b| b.next_from(from % BLOCK_IDS)) {
            return Some(at * BLOCK_IDS + found);
        }
        self.next_after(at as usize)
    }

    fn next_after(&self, at: usize) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let later = self.blocks.iter().enumerate().skip(at + 1);
        let mut found = later
            .filter_map(|(at, block)| Some(at as u32 * BLOCK_IDS + block.as_ref()?.next_from(0)?));
        found.next()
    }

    /// Frees the memory of ids from `slots` on, which are not members.
    pub(crate) fn truncate(&mut self, slots: u32) {
        let blocks = slots.div_ceil(BLOCK_IDS) as usize;
        if blocks < self.blocks.len() {
            self.blocks.truncate(blocks);
            self.blocks.shrink_to(2 * blocks);
        }
    }

    /// Members in ascending order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.next_from(0);
        std::iter::from_fn(move || {
            let id = next?;
            next = id.checked_add(1).and_then(|from| self.next_from(from));
            Some(id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn classes_hold_what_they_promise() {
        for len in 1..=RUN_MAX {
            let class = class_of(len);
            assert!(class_capacity(class) >= len, "{len}");
            assert!(class == 0 || class_capacity(class - 1) < len, "{len} is in too large a class");
        }
    }

    proptest! {
        #[test]
        fn runs_behave_like_vectors(ops in prop::collection::vec((0..4usize, any::<u8>(), any::<bool>()), 0..400)) {
            let mut runs = Runs::default();
            let mut real = [Run::default(); 4];
            let mut model: [Vec<u8>; 4] = Default::default();
            for (which, value, push) in ops {
                if push {
                    real[which] = runs.push(real[which], value);
                    model[which].push(value);
                } else if !model[which].is_empty() {
                    let at = usize::from(value) % model[which].len();
                    real[which] = runs.swap_remove(real[which], at);
                    model[which].swap_remove(at);
                }
                for (run, expected) in real.iter().zip(&model) {
                    prop_assert_eq!(runs.get(*run), &expected[..]);
                }
            }
        }

        #[test]
        fn id_sets_behave_like_ordered_sets(ops in prop::collection::vec((0u32..20_000, any::<bool>()), 0..300), from in 0u32..20_000) {
            let mut real = IdSet::default();
            let mut model = BTreeSet::new();
            for (id, insert) in ops {
                if insert {
                    prop_assert_eq!(real.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(real.remove(id), model.remove(&id));
                }
            }
            prop_assert_eq!(real.len() as usize, model.len());
            prop_assert_eq!(real.next_from(from), model.range(from..).next().copied());
            prop_assert!(real.iter().eq(model.iter().copied()));
        }
    }
}
