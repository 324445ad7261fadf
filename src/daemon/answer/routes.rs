//! Answers about routes: selected, in the order of prefixes, a page at a time.
//!
//! The table keeps routes in the order of memory. A sorted list is made in parts of bounded size:
//! the table is searched for the first prefixes after those already shown, in queries that each
//! examine a bounded number of destinations, so that no turn of the table waits for long. Routes
//! that change meanwhile are shown as they are when their page is made.

use bgp_proto::table::{AnyCommunity, AsPathPattern, RouteFilter, Table};
use bgp_proto::types::{Family, ParseError, PeerId, Prefix};

use super::sources::{PAGE, Sources, is_stopping};
use crate::ctl::item::{NextHop, RouteCount};
use crate::ctl::{
    self, Cursor, ErrorKind, Page, PrefixCursor, Refusal, RouteForm, RouteSelection,
    SortedPrefixes, Span,
};
use crate::engine::Handle;
use crate::kernel::FibView;

/// Maximum number of prefixes of one sorted part, of IPv4; it takes 2 MB. Each part is one search of the
/// whole table.
const PART_MAX: usize = 1 << 18;
/// Most prefixes of a page of runs, whose octets follow from the number of different paths, which is
/// bounded too ([`bgp_proto::table::Table::runs`]).
const RUNS_PAGE: usize = 1 << 11;
/// The same of the first part: the sooner it is sorted, the sooner there is something to read.
const FIRST_PART_MAX: usize = 1 << 14;
/// Maximum number of kernel routes examined for one page.
const EXAMINED_MAX: usize = 1 << 14;

/// The routes that are listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Listed {
    /// The Loc-RIB.
    Table,
    /// The Adj-RIB-In of a peer, routes that import refused included.
    Received(PeerId),
    /// The Adj-RIB-Out of a peer.
    Advertised(PeerId),
}

/// The view for requests about routes.
#[derive(Clone)]
pub(super) struct RoutesView {
    pub(super) sources: Sources,
}

impl RoutesView {
    /// One page of routes. The answer to a count is one page.
    pub(super) async fn page(
        &self,
        listed: Listed,
        select: &RouteSelection,
        cursor: Option<&Cursor>,
    ) -> Result<Page, Refusal> {
        let filter = self.filter(listed, select)?;
        if let Some(prefix) = select.prefix.filter(|_| select.span != Span::Longer) {
            return self.one(filter, prefix, select).await;
        }
        if select.count {
            return self.count(filter).await;
        }
        let mut place = match cursor {
            Some(Cursor::Prefixes(place)) => place.clone(),
            _ => self.part(&filter, None, select.limit).await?,
        };
        if place.at == place.prefixes.len() && place.has_more {
            place = self.part(&filter, place.prefixes.last(), place.left).await?;
        }
        let left = usize::try_from(place.left.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
        let most = match select.form {
            RouteForm::Items => PAGE,
            RouteForm::Runs => RUNS_PAGE,
        };
        let prefixes = place.prefixes.page(place.at, most.min(left));
        let ask = move |table: &Table, now| table.runs(&filter, &prefixes, now);
        let (runs, done) = self.sources.ask(ask).await?;
        let shown = u32::try_from(done).unwrap_or(u32::MAX);
        place.left = place.left.map(|left| left.saturating_sub(shown));
        place.at += done;
        let is_over =
            (place.at == place.prefixes.len() && !place.has_more) || place.left == Some(0);
        let next = (!is_over).then_some(Cursor::Prefixes(place));
        ctl::route_page(&runs, select.form, &self.sources.names(), next)
    }

    fn filter(&self, listed: Listed, select: &RouteSelection) -> Result<RouteFilter, Refusal> {
        let peer = select.peer.as_deref().map(|name| self.sources.find(name)).transpose()?;
        let peer = peer.map(|record| record.id);
        let mut filter = RouteFilter {
            source: select.source,
            within: select.prefix.filter(|_| select.span == Span::Longer),
            community: read::<AnyCommunity>(select.community.as_deref())?,
            as_path: read::<AsPathPattern>(select.as_path.as_deref())?,
            unusable: select.unusable,
            received_from: peer,
            // Rejected paths are not part of the table, unless it is asked for what is unusable.
            hides_refused: !select.unusable,
            ..RouteFilter::default()
        };
        match listed {
            Listed::Table => {}
            Listed::Received(id) => {
                (filter.received_from, filter.hides_refused) = (Some(id), false);
            }
            Listed::Advertised(id) => filter.advertised_to = Some(id),
        }
        if peer.is_some() && matches!(listed, Listed::Received(_)) {
            return Err(bad("--peer does not apply to the routes received from one peer"));
        }
        Ok(filter)
    }

    /// The routes to one prefix, or to the longest that contains it.
    async fn one(
        &self,
        filter: RouteFilter,
        prefix: Prefix,
        select: &RouteSelection,
    ) -> Result<Page, Refusal> {
        let is_lookup = select.span == Span::Lookup;
        let view = self
            .sources
            .ask(move |table, now| {
                let exact = |prefix| {
                    let filter = RouteFilter { exact: Some(prefix), ..filter.clone() };
                    table.view(&filter, 0, 1, now).0.pop()
                };
                let lengths = (0..=prefix.len()).rev();
                let mut wider = lengths.map(|len| Prefix::new(prefix.addr(), len));
                if is_lookup { wider.find_map(exact) } else { exact(prefix) }
            })
            .await?;
        if select.count {
            let paths = view.as_ref().map_or(0, |view| view.paths.len() as u64);
            return Page::last([RouteCount { prefixes: u64::from(view.is_some()), paths }]);
        }
        let names = self.sources.names();
        Page::last(view.iter().map(|view| ctl::route(view, &names)))
    }

    async fn count(&self, filter: RouteFilter) -> Result<Page, Refusal> {
        let mut count = RouteCount::default();
        let mut at = Some(0);
        while let Some(from) = at {
            let filter = filter.clone();
            let ask = move |table: &Table, _| table.prefixes(&filter, from);
            let page = self.sources.ask(ask).await?;
            count.prefixes += page.prefixes.len() as u64;
            count.paths += page.paths;
            at = page.next;
        }
        Page::last([count])
    }

    async fn part(
        &self,
        filter: &RouteFilter,
        after: Option<Prefix>,
        left: Option<u32>,
    ) -> Result<PrefixCursor, Refusal> {
        let max = if after.is_some() { PART_MAX } else { FIRST_PART_MAX };
        let part = part(&self.sources.table, filter, after, left, max).await;
        part.ok_or_else(is_stopping)
    }

    /// One page of the next hops of a VRF.
    pub(super) async fn next_hops(
        &self,
        vrf: Option<&str>,
        cursor: Option<&Cursor>,
    ) -> Result<Page, Refusal> {
        let after = match cursor {
            Some(Cursor::AfterAddress(after)) => Some(*after),
            _ => None,
        };
        let (views, has_more) =
            self.sources.ask(move |table, _| table.next_hops(after, PAGE)).await?;
        let next = views.last().filter(|_| has_more).map(|view| Cursor::AfterAddress(view.addr));
        let names = self.sources.names();
        let items = views.iter().map(|view| {
            let by = self.sources.kernel.decided_by(view.addr).map(|by| by.to_string());
            let item = ctl::next_hop(view, by.as_deref(), &names);
            NextHop { vrf: vrf.map(str::to_owned), ..item }
        });
        Page::new(items, next)
    }

    /// One page of kernel routes.
    pub(super) async fn kernel(
        &self,
        select: &RouteSelection,
        cursor: Option<&Cursor>,
    ) -> Result<Page, Refusal> {
        let RouteSelection { prefix, span, limit, count, .. } = select;
        let plain = RouteSelection {
            prefix: *prefix,
            span: *span,
            limit: *limit,
            count: *count,
            vrf: select.vrf.clone(),
            ..RouteSelection::default()
        };
        if plain != *select {
            return Err(bad("kernel routes are selected by prefix only"));
        }
        let kernel = &self.sources.kernel;
        match (*prefix, *span) {
            (Some(prefix), Span::Exact) => kernel_one(kernel.lookup(prefix), *count),
            (Some(prefix), Span::Lookup) => {
                let mut wider = (0..=prefix.len()).rev();
                let found = wider.find_map(|len| kernel.lookup(Prefix::new(prefix.addr(), len)));
                kernel_one(found, *count)
            }
            (within, _) if *count => self.kernel_count(within).await,
            (within, _) => self.kernel_range(within, *limit, cursor),
        }
    }

    /// The number of kernel routes. Other tasks of the runtime's worker run in between.
    async fn kernel_count(&self, within: Option<Prefix>) -> Result<Page, Refusal> {
        let kernel = &self.sources.kernel;
        // Prefixes follow those that contain them: a range begins with its own prefix.
        let mut counted = u64::from(within.is_some_and(|within| kernel.lookup(within).is_some()));
        let mut after = within;
        loop {
            let prefixes = kernel.prefixes(after, PAGE);
            let is_inside =
                |prefix: &&Prefix| within.is_none_or(|within| within.contains(**prefix));
            let inside = prefixes.iter().take_while(is_inside).count();
            counted += inside as u64;
            after = prefixes.last().copied();
            if inside < PAGE {
                return Page::last([RouteCount { prefixes: counted, paths: counted }]);
            }
            tokio::task::yield_now().await;
        }
    }

    fn kernel_range(
        &self,
        within: Option<Prefix>,
        limit: Option<u32>,
        cursor: Option<&Cursor>,
    ) -> Result<Page, Refusal> {
        let kernel = &self.sources.kernel;
        let (mut after, mut left) = match cursor {
            Some(Cursor::Prefixes(place)) => (place.prefixes.last(), place.left),
            _ => (None, limit),
        };
        let mut routes: Vec<FibView> = Vec::new();
        // Prefixes follow those that contain them: a range begins with its own prefix.
        if let (None, Some(within)) = (after, within) {
            routes.extend(kernel.lookup(within));
            after = Some(within);
        }
        let (mut examined, mut is_over) = (0, false);
        while !is_over && routes.len() < PAGE && examined < EXAMINED_MAX {
            let views = kernel.view(after, PAGE);
            examined += views.len();
            is_over = views.len() < PAGE;
            after = views.last().map(|view| view.prefix).or(after);
            for view in views {
                if within.is_some_and(|within| !within.contains(view.prefix)) {
                    is_over = true;
                    break;
                }
                routes.push(view);
            }
        }
        if let Some(left) = &mut left {
            routes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= u32::try_from(routes.len()).unwrap_or(*left);
            is_over |= *left == 0;
        }
        let next = after.filter(|_| !is_over).map(|after| {
            let prefixes = SortedPrefixes::one(after);
            Cursor::Prefixes(PrefixCursor { prefixes, at: 0, has_more: true, left })
        });
        Page::new(routes, next)
    }
}

fn kernel_one(found: Option<FibView>, count: bool) -> Result<Page, Refusal> {
    if count {
        let routes = u64::from(found.is_some());
        return Page::last([RouteCount { prefixes: routes, paths: routes }]);
    }
    Page::last(found)
}

/// The first prefixes of one family after `after`, sorted, at most `max` of IPv4, or a quarter as many of
/// IPv6. `None`: the table has ended.
async fn part(
    table: &Handle,
    filter: &RouteFilter,
    after: Option<Prefix>,
    left: Option<u32>,
    max: usize,
) -> Option<PrefixCursor> {
    let wanted = usize::try_from(left.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
    let of_family = |family| RouteFilter { family: Some(family), after, ..filter.clone() };
    let asked = filter.family.or(filter.within.map(Prefix::family));
    let is_asked = |family| asked.is_none_or(|asked| asked == family);
    // IPv4 is first in the order of prefixes.
    if is_asked(Family::Ipv4) && after.is_none_or(|after| after.family() == Family::Ipv4) {
        let of_v4 = |prefix| if let Prefix::V4(v4) = prefix { Some(v4) } else { None };
        let first = First::new(max.min(wanted));
        let (v4, has_more) = find(table, &of_family(Family::Ipv4), first, of_v4).await?;
        if !v4.is_empty() || !is_asked(Family::Ipv6) {
            let has_more = has_more || is_asked(Family::Ipv6);
            let prefixes = SortedPrefixes::V4(v4.into());
            return Some(PrefixCursor { prefixes, at: 0, has_more, left });
        }
    }
    let of_v6 = |prefix| if let Prefix::V6(v6) = prefix { Some(v6) } else { None };
    let first = First::new(max.div_ceil(4).min(wanted));
    let (v6, has_more) = find(table, &of_family(Family::Ipv6), first, of_v6).await?;
    Some(PrefixCursor { prefixes: SortedPrefixes::V6(v6.into()), at: 0, has_more, left })
}

/// Searches the table; see [`First::sorted`].
async fn find<P: Copy + Ord + Into<Prefix>>(
    table: &Handle,
    filter: &RouteFilter,
    mut first: First<P>,
    of_family: impl Fn(Prefix) -> Option<P>,
) -> Option<(Vec<P>, bool)> {
    let mut at = Some(0);
    while let Some(from) = at {
        // Prefixes that the part will not have are not evaluated.
        let filter = RouteFilter { up_to: first.bound.map(Into::into), ..filter.clone() };
        let page = table.ask(move |table, _| table.prefixes(&filter, from)).await?;
        first.extend(page.prefixes.into_iter().filter_map(&of_family));
        at = page.next;
    }
    Some(first.sorted())
}

/// The first prefixes, in order, of those that come in any order.
struct First<P> {
    max: usize,
    kept: Vec<P>,
    /// The last one that may still be among the first; `None`: any.
    bound: Option<P>,
    has_dropped: bool,
}

impl<P: Copy + Ord> First<P> {
    fn new(max: usize) -> Self {
        First { max, kept: Vec::new(), bound: None, has_dropped: false }
    }

    fn extend(&mut self, prefixes: impl Iterator<Item = P>) {
        for prefix in prefixes {
            if self.bound.is_some_and(|bound| prefix > bound) {
                self.has_dropped = true;
            } else {
                self.kept.push(prefix);
            }
        }
        if self.kept.len() > 2 * self.max {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.kept.len() > self.max {
            if let Some(last) = self.max.checked_sub(1) {
                let (_, bound, _) = self.kept.select_nth_unstable(last);
                self.bound = Some(*bound);
            }
            self.kept.truncate(self.max);
            self.has_dropped = true;
        }
    }

    /// The prefixes, and whether others were dropped.
    fn sorted(mut self) -> (Vec<P>, bool) {
        self.shrink();
        self.kept.sort_unstable();
        (self.kept, self.has_dropped)
    }
}

fn read<T: std::str::FromStr<Err = ParseError>>(text: Option<&str>) -> Result<Option<T>, Refusal> {
    text.map(str::parse).transpose().map_err(|error: ParseError| bad(&error.to_string()))
}

fn bad(text: &str) -> Refusal {
    Refusal { kind: ErrorKind::BadRequest, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use bgp_proto::table::LocalRoute;
    use bgp_proto::types::Source;

    use super::*;
    use crate::net::testing::engine;

    #[tokio::test]
    async fn a_list_of_several_parts_is_sorted_and_complete() {
        let engine = engine();
        let table = engine.handle();
        let prefix = |n: u32| -> Prefix {
            let mixed = n * 7919 % 1000;
            let text = match mixed % 4 {
                0 => format!("2001:db8:{mixed:x}::/48"),
                1 => format!("10.{}.{}.0/24", mixed / 250, mixed % 250),
                2 => format!("10.{}.{}.0/23", mixed / 250, mixed % 250),
                _ => format!("172.16.{}.{}/32", mixed / 250, mixed % 250),
            };
            text.parse().unwrap()
        };
        let mut wanted: Vec<Prefix> = (0..1000).map(prefix).collect();
        for prefix in &wanted {
            table.local(*prefix, Source::Static, Some(LocalRoute::default()));
        }
        wanted.sort_unstable();
        let all = RouteFilter::default();
        let (mut found, mut after, mut parts) = (Vec::new(), None, 0);
        loop {
            let part = part(table, &all, after, None, 100).await.unwrap();
            assert!(part.prefixes.len() <= 100);
            found.extend(part.prefixes.page(0, 100));
            (after, parts) = (part.prefixes.last(), parts + 1);
            if !part.has_more {
                break;
            }
        }
        // 750 of IPv4, and 250 of IPv6.
        assert_eq!((found, parts), (wanted, 8 + 10));
        let within = RouteFilter { within: Some("10.0.0.0/16".parse().unwrap()), ..all };
        let part = part(table, &within, None, Some(7), 100).await.unwrap();
        assert!(part.prefixes.len() == 7 && part.has_more);
        assert!(part.prefixes.page(0, 100).is_sorted());
        engine.stop();
    }

    #[test]
    fn the_first_prefixes_are_found_in_bounded_memory() {
        let prefix = |n: u32| Prefix::new(std::net::Ipv4Addr::from_bits(n << 8).into(), 24);
        // A permutation of 0..10_000.
        let mut mixed = (0..10_000_u32).map(|n| prefix(n * 7919 % 10_000));
        let mut first: First<Prefix> = First::new(100);
        loop {
            let some: Vec<Prefix> = mixed.by_ref().take(64).collect();
            if some.is_empty() {
                break;
            }
            first.extend(some.into_iter());
            assert!(first.kept.len() <= 2 * 100 + 64);
        }
        let (sorted, has_more) = first.sorted();
        assert_eq!((sorted, has_more), ((0..100).map(prefix).collect(), true));
        let mut all = First::new(3);
        all.extend([2, 0, 1].into_iter().map(prefix));
        assert_eq!(all.sorted(), ((0..3).map(prefix).collect(), false));
    }
}
