//! Metric families under construction.

use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Metric families by name.
#[derive(Default)]
pub(super) struct Families {
    families: BTreeMap<&'static str, (MetricType, &'static str, Vec<Metric>)>,
    /// The VRF of what is added; `None`: that of the default VRF, which has no label.
    vrf: Option<String>,
}

/// A metric's labels, in the order in which they are shown.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Families {
    /// From here on, what is added is of this VRF; `None`: of the default VRF.
    pub(super) fn set_vrf(&mut self, vrf: Option<&str>) {
        self.vrf = vrf.map(str::to_owned);
    }

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
        let vrf = self.vrf.as_deref().map(|vrf| ("vrf", vrf));
        let metric = Metric::from_label(labels.iter().chain(&vrf).map(label).collect());
        let (_, _, metrics) = self.families.entry(name).or_insert_with(|| (kind, help, Vec::new()));
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
        self.families.into_iter().map(family).collect()
    }
}
