//! Views of many given prefixes. In a list of a large table, neighbours often have equal paths: these
//! are made once.

use smallvec::SmallVec;

use super::import::Liveness;
use super::show::limit_u32;
use super::{PathView, RouteFilter, Table};
use crate::rib::{DestId, Path};
use crate::types::{Family, Prefix, Source, Time};

/// Maximum work of one call of [`Table::runs`], in prefixes or paths that are compared.
const WORK_MAX: u32 = 1 << 12;
/// What the view of a path costs in comparisons.
const VIEW_COST: u32 = 8;

/// Prefixes that follow each other in a list, and whose paths are equal in everything that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRun {
    /// The prefixes, at least one.
    pub prefixes: Vec<Prefix>,
    /// The paths of each of them, best first.
    pub paths: Vec<PathView>,
}

/// The destination behind the last view.
struct Last<'a> {
    family: Family,
    dest: DestId,
    held: &'a [Path],
    /// The import rules that decided on its paths; `None` until they are asked for.
    rules: Option<Rules>,
}

type Rules = SmallVec<[Option<usize>; 4]>;

impl Table {
    /// What [`Table::view`] shows of each of these prefixes, in their order; and how many of the
    /// prefixes that is about, at least one. What one call does is bounded, but for the paths of one
    /// destination.
    pub fn runs(
        &self,
        filter: &RouteFilter,
        prefixes: &[Prefix],
        now: Time,
    ) -> (Vec<RouteRun>, usize) {
        let mut runs: Vec<RouteRun> = Vec::new();
        let mut last: Option<Last<'_>> = None;
        let mut work = 0;
        for (at, prefix) in prefixes.iter().enumerate() {
            if work >= WORK_MAX {
                return (runs, at);
            }
            let family = prefix.family();
            let is_asked = filter.exact.is_none_or(|exact| exact == *prefix)
                && filter.family.is_none_or(|wanted| wanted == family)
                && filter.is_within(*prefix);
            let dest = self.loc_rib.dests(family).find(*prefix).filter(|_| is_asked);
            let Some(dest) = dest else {
                work += 1;
                continue;
            };
            let held = self.loc_rib.dests(family).paths(dest);
            work += 1 + limit_u32(held.len());
            if let (Some(last), Some(run)) = (&mut last, runs.last_mut())
                && filter.advertised_to.is_none()
                && self.is_shown_alike(last, family, dest, held)
            {
                run.prefixes.push(*prefix);
                continue;
            }
            let Some(view) = self.destination(filter, family, dest, now) else { continue };
            work += VIEW_COST * limit_u32(view.paths.len());
            last = Some(Last { family, dest, held, rules: None });
            match runs.last_mut().filter(|run| run.paths == view.paths) {
                Some(run) => run.prefixes.push(*prefix),
                None => runs.push(RouteRun { prefixes: vec![*prefix], paths: view.paths }),
            }
        }
        (runs, prefixes.len())
    }

    /// Whether the views of two destinations have equal paths, found without making them: all that is
    /// shown of a path of a peer follows from the path as it is stored, but for the import rule, which
    /// may depend on the prefix. Local routes are stored by prefix.
    fn is_shown_alike(
        &self,
        last: &mut Last<'_>,
        family: Family,
        dest: DestId,
        held: &[Path],
    ) -> bool {
        let is_equal = |(a, b): (&Path, &Path)| {
            a.is_same_import(b)
                && a.source == b.source
                && a.path_id == b.path_id
                && a.received_secs == b.received_secs
                && a.stamp == b.stamp
                && a.source.source() == Source::Bgp
        };
        if last.family != family
            || last.held.len() != held.len()
            || !last.held.iter().zip(held).all(is_equal)
        {
            return false;
        }
        let Last { dest: before, held: paths, .. } = *last;
        let rules = last.rules.get_or_insert_with(|| self.import_rules(family, before, paths));
        *rules == self.import_rules(family, dest, held)
    }

    /// The index of the import rule that decided on each path; `None` for the default.
    fn import_rules(&self, family: Family, dest: DestId, paths: &[Path]) -> Rules {
        let rule = |path: &Path| {
            let peer = path.source.peer()?;
            let is_plain = |routes: &super::PeerRoutes| routes.import.policy.rules.is_empty();
            if self.peers.get(peer).is_none_or(|peer| is_plain(&peer.routes)) {
                return None;
            }
            let context = self.context(peer, Liveness::Any)?;
            let route = self.received_route(&context, family, dest, path);
            context.routes.import.policy.evaluate(&route).rule
        };
        paths.iter().map(rule).collect()
    }
}
