//! Counts with the right form of their noun.

/// `1 peer`, `2 peers`; nouns in -x get -es.
pub(crate) fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let ending = match (count, noun.ends_with('x')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(0_u32, "peer"), "0 peers");
        assert_eq!(counted(1_usize, "peer"), "1 peer");
        assert_eq!(counted(2_u64, "prefix"), "2 prefixes");
        assert_eq!(counted(1_u64, "prefix"), "1 prefix");
    }
}
