//! Sets of ids that may be few among many: the destinations of one peer, or of one next hop.

/// Ids per block: small enough that scattered members cost little, large enough that a full table
/// costs a fifth of an octet per member.
const BLOCK_BITS: u32 = 7;
/// Maximum number of blocks examined by one call of [`SparseSet::retain_some`].
const BLOCKS_AT_ONCE: usize = 16;

/// A set of ids as bitmaps of 128, held only where there are members. Inserting in ascending order,
/// as a growing table does, touches only the block of the previous insertion.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseSet {
    /// Ascending by number; some may be empty.
    blocks: Vec<Block>,
    /// Index of the block of the last insertion.
    latest: usize,
    empty: usize,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    /// The members' common high bits.
    number: u32,
    words: [u64; 2],
}

impl Block {
    fn retain(&mut self, condition: &mut impl FnMut(u32) -> bool) {
        let first = self.number << BLOCK_BITS;
        for (word, at) in self.words.iter_mut().zip([first, first + 64]) {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                if !condition(at + bit) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.words == [0; 2]
    }
}

/// The word within a block, and the bit within the word.
fn place(id: u32) -> (usize, u64) {
    ((id >> 6 & 1) as usize, 1 << (id & 63))
}

impl SparseSet {
    pub(crate) const fn new() -> Self {
        SparseSet { blocks: Vec::new(), latest: 0, empty: 0 }
    }

    /// Returns whether it was absent.
    #[inline]
    pub(crate) fn insert(&mut self, id: u32) -> bool {
        let number = id >> BLOCK_BITS;
        self.find_latest(number);
        let block = &mut self.blocks[self.latest];
        let (word, bit) = place(id);
        let absent = block.words[word] & bit == 0;
        self.empty -= usize::from(absent && block.is_empty());
        block.words[word] |= bit;
        absent
    }

    /// Inserts many, which tend to be neighbours.
    pub(crate) fn insert_all(&mut self, ids: impl IntoIterator<Item = u32>) {
        let mut ids = ids.into_iter().peekable();
        while let Some(first) = ids.next() {
            let number = first >> BLOCK_BITS;
            self.find_latest(number);
            let block = &mut self.blocks[self.latest];
            self.empty -= usize::from(block.is_empty());
            let mut next = Some(first);
            while let Some(id) = next {
                let (word, bit) = place(id);
                block.words[word] |= bit;
                next = ids.next_if(|id| id >> BLOCK_BITS == number);
            }
        }
    }

    /// Makes `latest` the block with this number, created empty if there is none.
    #[inline]
    fn find_latest(&mut self, number: u32) {
        if self.blocks.get(self.latest).is_none_or(|block| block.number != number) {
            self.latest = self.make_block(number);
        }
    }

    /// The index of the block with this number, created empty if there is none.
    fn make_block(&mut self, number: u32) -> usize {
        let block = Block { number, words: [0; 2] };
        if self.blocks.last().is_none_or(|last| last.number < number) {
            self.blocks.push(block);
            self.empty += 1;
            return self.blocks.len() - 1;
        }
        match self.blocks.binary_search_by_key(&number, |block| block.number) {
            Ok(at) => at,
            Err(at) => {
                self.blocks.insert(at, block);
                self.empty += 1;
                at
            }
        }
    }

    /// Returns whether it was present.
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        let number = id >> BLOCK_BITS;
        let Ok(at) = self.blocks.binary_search_by_key(&number, |block| block.number) else {
            return false;
        };
        let block = &mut self.blocks[at];
        let (word, bit) = place(id);
        let present = block.words[word] & bit != 0;
        block.words[word] &= !bit;
        if present && block.is_empty() {
            self.empty += 1;
            if self.empty * 2 > self.blocks.len() {
                self.blocks.retain(|block| !block.is_empty());
                self.blocks.shrink_to(2 * self.blocks.len());
                (self.empty, self.latest) = (0, 0);
            }
        }
        present
    }

    /// The smallest member that is not below `from`.
    pub(crate) fn next_from(&self, from: u32) -> Option<u32> {
        let at = self.blocks.partition_point(|block| block.number < from >> BLOCK_BITS);
        self.blocks.get(at..)?.iter().find_map(|block| {
            let first = block.number << BLOCK_BITS;
            let skipped = from.saturating_sub(first);
            let mask = |word: u32| match skipped.saturating_sub(word * 64) {
                n @ 0..64 => u64::MAX << n,
                _ => 0,
            };
            let words = [block.words[0] & mask(0), block.words[1] & mask(1)];
            let word = words.iter().position(|word| *word != 0)?;
            Some(first + word as u32 * 64 + words[word].trailing_zeros())
        })
    }

    /// Removes and returns the largest member.
    pub(crate) fn pop_last(&mut self) -> Option<u32> {
        loop {
            let block = self.blocks.last_mut()?;
            let word = usize::from(block.words[1] != 0);
            let Some(bit) = block.words[word].checked_ilog2() else {
                self.blocks.pop();
                self.empty -= 1;
                continue;
            };
            block.words[word] &= !(1 << bit);
            let id = (block.number << BLOCK_BITS) + word as u32 * 64 + bit;
            if block.is_empty() {
                self.blocks.pop();
            }
            return Some(id);
        }
    }

    /// Memory of the set in octets.
    pub(crate) fn octets(&self) -> u64 {
        (self.blocks.capacity() * size_of::<Block>()) as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.empty == self.blocks.len()
    }

    /// Members in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.blocks.iter().flat_map(|block| {
            let first = block.number << BLOCK_BITS;
            let mut words = block.words;
            std::iter::from_fn(move || {
                let word = usize::from(words[0] == 0);
                let rest = words[word];
                let bit = rest.trailing_zeros();
                words[word] = rest & rest.checked_sub(1)?;
                Some(first + word as u32 * 64 + bit)
            })
        })
    }

    /// Removes members that do not satisfy `condition`, from at most [`BLOCKS_AT_ONCE`] blocks, the
    /// first being that of `from`. Returns where to continue, `None` at the end.
    pub(crate) fn retain_some(
        &mut self,
        from: u32,
        mut condition: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let at = self.blocks.partition_point(|block| block.number < from >> BLOCK_BITS);
        let end = self.blocks.len().min(at + BLOCKS_AT_ONCE);
        for block in &mut self.blocks[at..end] {
            let was_empty = block.is_empty();
            block.retain(&mut condition);
            self.empty += usize::from(!was_empty && block.is_empty());
        }
        let next = self.blocks.get(end).map(|block| block.number << BLOCK_BITS);
        if self.empty * 2 > self.blocks.len() {
            self.blocks.retain(|block| !block.is_empty());
            self.blocks.shrink_to(2 * self.blocks.len());
            (self.empty, self.latest) = (0, 0);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u32),
        Remove(u32),
        Retain(u32),
        PopLast,
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let id = prop_oneof![0u32..700, any::<u32>(), Just(u32::MAX)];
        (id, 0..20).prop_map(|(id, op)| match op {
            0..11 => Op::Insert(id),
            11..18 => Op::Remove(id),
            18 => Op::PopLast,
            _ => Op::Retain(id % 5 + 2),
        })
    }

    proptest! {
        #[test]
        fn sparse_sets_behave_like_ordered_sets(ops in prop::collection::vec(any_op(), 0..300)) {
            let mut real = SparseSet::default();
            let mut model = BTreeSet::new();
            for op in ops {
                match op {
                    Op::Insert(id) => prop_assert_eq!(real.insert(id), model.insert(id)),
                    Op::Remove(id) => prop_assert_eq!(real.remove(id), model.remove(&id)),
                    Op::PopLast => prop_assert_eq!(real.pop_last(), model.pop_last()),
                    Op::Retain(n) => {
                        let mut from = Some(0);
                        while let Some(at) = from {
                            from = real.retain_some(at, |id| id % n != 0);
                        }
                        model.retain(|id| id % n != 0);
                    }
                }
                prop_assert_eq!(real.is_empty(), model.is_empty());
                prop_assert_eq!(real.next_from(300), model.range(300..).next().copied());
            }
            prop_assert!(real.iter().eq(model.iter().copied()));
        }
    }

    #[test]
    fn removed_members_leave_no_blocks_behind() {
        let mut set = SparseSet::default();
        (0..100_000).for_each(|id| assert!(set.insert(id)));
        (0..100_000).filter(|id| id % 50_000 != 0).for_each(|id| assert!(set.remove(id)));
        assert!(set.iter().eq([0, 50_000]));
        assert!(set.blocks.len() <= 4 && set.blocks.capacity() < 16);
    }
}
