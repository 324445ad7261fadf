//! Seeded hashing: peers choose prefixes and attributes, so they must not be able to predict
//! hashes.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// A keyed hash function.
#[derive(Clone)]
pub(crate) struct Seeded {
    shared: SharedSeed,
    seed: u64,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Seeded {
            shared: SharedSeed::from_u64(seed),
            seed: seed.rotate_left(32) ^ 0x9E37_79B9_7F4A_7C15,
        }
    }

    #[inline]
    pub(crate) fn word(&self, value: u64) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write_u64(value);
        hasher.finish()
    }

    #[inline]
    pub(crate) fn wide(&self, value: u128, extra: u8) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write_u128(value);
        hasher.write_u8(extra);
        hasher.finish()
    }

    #[inline]
    pub(crate) fn bytes(&self, bytes: &[u8], extra: u64) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write(bytes);
        hasher.write_u64(extra);
        hasher.finish()
    }
}

/// An entry of a hash index: an id, and enough of its hash that the index can grow without reading
/// what the id refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexed {
    pub(crate) id: u32,
    short: u32,
}

impl Indexed {
    /// `hash` comes from [`Seeded`].
    #[inline]
    pub(crate) fn new(id: u32, hash: u64) -> Self {
        Indexed { id, short: (hash >> 32) as u32 }
    }

    /// The hash under which the index holds the entry.
    #[inline]
    pub(crate) fn place(&self) -> u64 {
        Self::place_of(u64::from(self.short) << 32)
    }

    /// The hash under which the index holds entries with this seeded hash.
    #[inline]
    pub(crate) fn place_of(hash: u64) -> u64 {
        // The index uses the lowest and the highest bits: both must depend on the 32 that are kept.
        (hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
