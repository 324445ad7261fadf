//! Numbers in columns of a fixed width.

/// A rate in at most six columns: `0`, `0.3`, `12`, `4.5k`, `1.2M`.
pub(super) fn rate(value: f64) -> String {
    let (value, unit) = match value {
        ..999.5 => (value, ""),
        ..999_500.0 => (value / 1e3, "k"),
        _ => (value / 1e6, "M"),
    };
    match value {
        ..0.05 => "0".to_owned(),
        ..9.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

/// A count in at most six columns: exact below a million.
pub(super) fn count(value: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // rounded anyway
    match value {
        0..1_000_000 => value.to_string(),
        1_000_000..1_000_000_000 => format!("{:.2}M", value as f64 / 1e6).replace(".00", ""),
        _ => format!("{:.1}G", value as f64 / 1e9),
    }
}

/// A size: `0 B`, `12 KiB`, `3.4 MiB`.
pub(super) fn octets(value: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // rounded anyway
    match value {
        0..1024 => format!("{value} B"),
        1024..1_048_576 => format!("{} KiB", value / 1024),
        _ => format!("{:.1} MiB", value as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.3, "0.3"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (999_600.0, "1.0M"),
            (4.5e8, "450M"),
        ] {
            assert_eq!(rate(value), text);
        }
        for (value, text) in [
            (0, "0"),
            (999_999, "999999"),
            (1_000_000, "1M"),
            (12_340_000, "12.34M"),
            (4_294_967_295, "4.3G"),
        ] {
            assert_eq!(count(value), text);
            assert!(text.len() <= 6);
        }
        let sizes = [0, 1023, 1024, 16 << 20].map(octets);
        assert_eq!(sizes, ["0 B", "1023 B", "1 KiB", "16.0 MiB"]);
    }
}
