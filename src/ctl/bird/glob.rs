//! Patterns for names: `*` is any text, `?` any one character.

/// Whether `pattern` matches all of `text`.
///
/// Linear in the product of the lengths at worst: only the last `*` is ever gone back to.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, seen)) = star else { return false };
                star = Some((at, seen + 1));
                p = at + 1;
                t = seen + 1;
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, wanted) in [
            ("Mesh*", "Mesh_10_0_0_1", true),
            ("Mesh*", "AMesh", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "ä", true),
            ("*_9", "Mesh_9_9", true),
            ("*_9_*1", "a_9_b_9_c1", true),
            ("a*b*c", "abxbxc", true),
            ("a*b*c", "abxbxd", false),
            ("a?c", "ac", false),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_no_exponential_time() {
        let text = "a".repeat(2000);
        assert!(!matches(
            &"*a".repeat(500).replace("*a", "*a*"),
            &format!("{}b", "b".repeat(2000))
        ));
        assert!(!matches(&format!("{}b", "a*".repeat(500)), &text));
    }
}
