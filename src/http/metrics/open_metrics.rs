//! OpenMetrics 1.0, the text format that Prometheus asks for first.
//!
//! It differs from the older format in what surrounds the series, not in the series: a counter's family is
//! named without `_total`, a unit has a line of its own, and `# EOF` tells a complete answer from one that
//! was cut off. There are no exemplars: nothing here has a trace or another id that could be followed.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

/// The media type of an answer.
pub(in crate::http) const CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The units that our names and those of the process end in.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Families in the order in which they are given.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family);
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, family: &MetricFamily) {
    let full = family.name();
    let (name, kind) = match family.get_field_type() {
        MetricType::COUNTER => (full.strip_suffix("_total").unwrap_or(full), "counter"),
        MetricType::HISTOGRAM => (full, "histogram"),
        // A series that is always 1 and says something by its labels.
        _ => match full.strip_suffix("_info") {
            Some(name) => (name, "info"),
            None => (full, "gauge"),
        },
    };
    // Writing to a string does not fail.
    let _ = writeln!(text, "# TYPE {name} {kind}");
    let unit =
        UNITS.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|n| n.ends_with('_')));
    if let Some(unit) = unit.filter(|_| kind != "info") {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = writeln!(text, "# HELP {name} {}", escaped(family.help()));
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => {
                sample(text, name, "_total", labels, None, metric.get_counter().get_value());
            }
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                let mut has_last = false;
                for bucket in histogram.get_bucket() {
                    let bound = bucket.upper_bound();
                    has_last |= bound == f64::INFINITY;
                    let count = bucket.cumulative_count() as f64;
                    sample(text, name, "_bucket", labels, Some(bound), count);
                }
                let count = histogram.get_sample_count() as f64;
                if !has_last {
                    sample(text, name, "_bucket", labels, Some(f64::INFINITY), count);
                }
                sample(text, name, "_sum", labels, None, histogram.get_sample_sum());
                sample(text, name, "_count", labels, None, count);
            }
            _ => {
                let suffix = if kind == "info" { "_info" } else { "" };
                sample(text, name, suffix, labels, None, metric.get_gauge().get_value());
            }
        }
    }
}

fn sample(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    bound: Option<f64>,
    value: f64,
) {
    let _ = write!(text, "{name}{suffix}");
    let pairs = labels.iter().map(|pair| (pair.name(), escaped(pair.value())));
    let bound = bound.map(|bound| ("le", canonical(bound)));
    for (at, (label, value)) in pairs.chain(bound).enumerate() {
        let _ = write!(text, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
    }
    if !labels.is_empty() || text.ends_with('"') {
        text.push('}');
    }
    let _ = writeln!(text, " {}", number(value));
}

/// A bound of a bucket: a whole number has a point too, so that each bound has one form.
fn canonical(bound: f64) -> String {
    match number(bound) {
        whole if bound.is_finite() && !whole.contains('.') => whole + ".0",
        other => other,
    }
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// Whether a client prefers OpenMetrics, by its `Accept` header (RFC 9110 §12.5.1): it names it, and names
/// nothing else that it would rather have.
pub(in crate::http) fn is_wanted(accept: &str) -> bool {
    let (mut open, mut text) = (0.0_f64, 0.0_f64);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut is_known) = (1.0_f64, true);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                Some(("version", value)) => is_known = matches!(value, "1.0.0" | "0.0.1"),
                _ => {}
            }
        }
        match &*kind {
            "application/openmetrics-text" if is_known => open = open.max(quality),
            "text/plain" | "text/*" | "*/*" => text = text.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::metrics::families::Families;

    #[test]
    fn each_type_has_the_form_of_the_specification() {
        let mut families = Families::default();
        families.counter("x_a_bytes_total", "All \"octets\"\\.", &[("peer", "b\"\\\n")], 7);
        families.gauge("x_b_seconds", "Seconds.", &[], 2);
        families.gauge("x_c_info", "What it is.", &[("version", "1")], 1);
        families.fraction("x_d", "A part.", &[], 0.25);
        let text = encode(&families.into_vec());
        let expected = "# TYPE x_a_bytes counter\n# UNIT x_a_bytes bytes\n\
             # HELP x_a_bytes All \\\"octets\\\"\\\\.\n\
             x_a_bytes_total{peer=\"b\\\"\\\\\\n\"} 7\n\
             # TYPE x_b_seconds gauge\n# UNIT x_b_seconds seconds\n\
             # HELP x_b_seconds Seconds.\nx_b_seconds 2\n\
             # TYPE x_c info\n# HELP x_c What it is.\nx_c_info{version=\"1\"} 1\n\
             # TYPE x_d gauge\n# HELP x_d A part.\nx_d 0.25\n# EOF\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_histogram_ends_with_its_infinite_bucket() {
        use prometheus::core::Collector;
        let options = prometheus::HistogramOpts::new("x_x_seconds", "X.");
        let histogram = prometheus::Histogram::with_opts(options.buckets(vec![0.5, 1.0])).unwrap();
        histogram.observe(0.75);
        histogram.observe(3.0);
        let text = encode(&histogram.collect());
        let expected = "# TYPE x_x_seconds histogram\n# UNIT x_x_seconds seconds\n\
             # HELP x_x_seconds X.\nx_x_seconds_bucket{le=\"0.5\"} 0\n\
             x_x_seconds_bucket{le=\"1.0\"} 1\nx_x_seconds_bucket{le=\"+Inf\"} 2\n\
             x_x_seconds_sum 3.75\nx_x_seconds_count 2\n# EOF\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn clients_get_the_format_that_they_prefer() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
             q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain; q=0.5, application/openmetrics-text; version=1.0.0; q=0.5",
        ] {
            assert!(is_wanted(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4;q=1,application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;version=2.0.0",
            ",;,;q=;=",
        ] {
            assert!(!is_wanted(accept), "{accept}");
        }
    }
}
