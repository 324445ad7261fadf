//! Metric families under construction.

use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Metric families by name.
#[derive(Default)]
pub(super) struct Families(BTreeMap<&'static str, (MetricType, &'static str, Vec<Metric>)>);

/// A metric's labels, in the order in which they are shown.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Families {
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: u64,
    ) {
        self.fraction(name, help, labels, value as f64);
    }

    /// A gauge that need not be a whole number.
    pub(super) fn fraction(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: f64,
    ) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.entry(name, help, MetricType::GAUGE, labels).set_gauge(gauge);
    }

    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: u64,
    ) {
        self.fraction_counter(name, help, labels, value as f64);
    }

    /// A counter that need not be a whole number.
    pub(super) fn fraction_counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: f64,
    ) {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.entry(name, help, MetricType::COUNTER, labels).set_counter(counter);
    }

    fn entry(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        labels: Labels<'_>,
    ) -> &mut Metric {
        let label = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let metric = Metric::from_label(labels.iter().map(label).collect());
        let (_, _, metrics) = self.0.entry(name).or_insert_with(|| (kind, help, Vec::new()));
        let index = metrics.len();
        metrics.push(metric);
        &mut metrics[index]
    }

    pub(super) fn into_vec(self) -> Vec<MetricFamily> {
        let family = |(name, (kind, help, metrics)): (&str, (MetricType, &str, Vec<Metric>))| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        };
        self.0.into_iter().map(family).collect()
    }
}
