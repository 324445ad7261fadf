//! How many of something there are, by key, so that asking costs nothing.

use std::collections::BTreeMap;

/// A number for each key; keys with none take no place.
#[derive(Clone, Debug)]
pub(crate) struct Counts<K>(BTreeMap<K, u32>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(BTreeMap::new())
    }
}

impl<K: Ord> Counts<K> {
    /// One more.
    pub(crate) fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// One less.
    pub(crate) fn remove(&mut self, key: K) {
        if let Some(count) = self.0.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }

    /// How many.
    pub(crate) fn of(&self, key: &K) -> u32 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Whether there is any.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_until_as_many_were_removed_as_added() {
        let mut counts = Counts::default();
        [1, 2, 1].into_iter().for_each(|key| counts.add(key));
        assert_eq!([1, 2, 3].map(|key| counts.of(&key)), [2, 1, 0]);
        counts.remove(1);
        assert!(counts.has(&1));
        counts.remove(1);
        counts.remove(1);
        assert_eq!((counts.has(&1), counts.of(&1), counts.0.len()), (false, 0, 1));
    }
}
