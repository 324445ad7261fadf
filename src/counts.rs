//! Reference counts by key: the number of uses is kept up to date rather than searched for.

use std::collections::BTreeMap;

/// A count for each key. Keys whose count is zero are not stored.
#[derive(Clone, Debug)]
pub(crate) struct Counts<K>(BTreeMap<K, u32>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(BTreeMap::new())
    }
}

impl<K: Ord> Counts<K> {
    /// Increments the count of `key`.
    pub(crate) fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// Decrements the count of `key`; at zero this does nothing.
    pub(crate) fn remove(&mut self, key: K) {
        if let Some(count) = self.0.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }

    /// The count of `key`, zero if it is not stored.
    pub(crate) fn of(&self, key: &K) -> u32 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Whether the count of `key` is above zero.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_present_until_it_was_removed_as_often_as_added() {
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
