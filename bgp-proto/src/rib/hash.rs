//! Seeded hashing: feeders choose prefixes and attributes, so they must not know the hash.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// A keyed hash function.
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
