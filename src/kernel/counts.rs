//! How many of something there are, by key, so that asking whether there is any costs nothing.

use std::collections::BTreeMap;

/// A number for each key; keys with none take no place.
#[derive(Clone, Debug)]
pub(super) struct Counts<K>(BTreeMap<K, u32>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(BTreeMap::new())
    }
}

impl<K: Ord> Counts<K> {
    /// One more.
    pub(super) fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// One less.
    pub(super) fn remove(&mut self, key: K) {
        if let Some(count) = self.0.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }

    /// Whether there is any.
    pub(super) fn has(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }
}
