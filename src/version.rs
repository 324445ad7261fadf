//! Which build this is. The build script determines commit, target and date.

use std::sync::LazyLock;

use jiff::Timestamp;

/// The crate's version, as `margay -V` prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that was built, in 12 digits, followed by `-modified` if sources differed; `unknown`
/// for a build outside a git work tree that was not given a commit.
pub const COMMIT: &str = env!("MARGAY_BUILD_COMMIT");
/// The target triple of this build.
pub const TARGET: &str = env!("MARGAY_BUILD_TARGET");
/// `SOURCE_DATE_EPOCH`, or the commit's time, in seconds since 1970; `unknown` if there is neither.
const DATE: &str = env!("MARGAY_BUILD_DATE");

/// What `margay --version` prints after the name: a line each for version, commit, target and date.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let why = if COMMIT == "unknown" { " (not built in a git work tree)" } else { "" };
        let date = day(DATE).unwrap_or_else(|| "unknown".to_owned());
        format!("{VERSION}\ncommit {COMMIT}{why}\ntarget {TARGET}\ndate   {date}")
    });
    &TEXT
}

/// The UTC date of a number of seconds since 1970; `None` if it is not a number or out of range.
fn day(seconds: &str) -> Option<String> {
    let time = Timestamp::from_second(seconds.parse().ok()?).ok()?;
    Some(time.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(day("0").as_deref(), Some("1970-01-01"));
        assert_eq!(day("1709251199").as_deref(), Some("2024-02-29"));
        assert_eq!(day("1709251200").as_deref(), Some("2024-03-01"));
        assert_eq!(day("unknown"), None);
    }

    #[test]
    fn every_fact_has_its_line() {
        let lines: Vec<&str> = long().lines().collect();
        assert_eq!(lines[0], VERSION);
        assert!(lines[1].starts_with("commit ") && lines[1].len() > "commit ".len(), "{lines:?}");
        assert_eq!(lines[2], format!("target {TARGET}"));
        assert!(lines[3].starts_with("date   "), "{lines:?}");
        assert_eq!(lines.len(), 4);
    }
}
