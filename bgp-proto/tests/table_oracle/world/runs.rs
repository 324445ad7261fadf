//! Views of many prefixes are those of each.

use bgp_proto::table::{DestinationView, RouteFilter};
use bgp_proto::types::Prefix;

use super::World;

impl World {
    pub(super) fn check_runs(&self, views: &[DestinationView]) {
        let mut views = views.to_vec();
        views.sort_by_key(|view| view.prefix);
        let prefixes: Vec<Prefix> = views.iter().map(|view| view.prefix).collect();
        let (runs, done) = self.table.runs(&RouteFilter::default(), &prefixes, self.now);
        let mut singly = Vec::new();
        for run in runs {
            let view = |prefix| DestinationView { prefix, paths: run.paths.clone() };
            singly.extend(run.prefixes.iter().copied().map(view));
        }
        assert_eq!(singly.len(), done, "each prefix has paths");
        assert_eq!(singly[..], views[..done], "views in runs (left), one by one (right)");
    }
}
