//! Encoding what is left to be sent, in pages.

use std::net::{IpAddr, Ipv4Addr};

use super::feed::Feed;
use super::{
    Due, First, MonitorId, MonitorPage, MonitorParams, MonitoredPeer, PageEnd, PeerUpSent, Sending,
    State, Table,
};
use crate::bmp::{
    DownReason, PeerHeader, PeerKind, PeerUp, Rib, Stat, encode_end_of_rib, encode_peer_down,
    encode_peer_up, encode_route_monitoring, encode_statistics,
};
use crate::export::{MedBefore, Reflection};
use crate::rib::{AttrId, DestId, Meter, Path, PathFlags, SourceId};
use crate::session::Negotiated;
use crate::table::Work;
use crate::table::show::shown_attrs;
use crate::types::{Family, FamilyMap, NextHop, PathId, PeerId, Prefix, RouterId, off_interface};
use crate::wire::{
    AnnounceFormat, AttrEdit, AttrView, Capabilities, EXTENDED_MAX_LEN, MAX_LEN, Open,
    UpdateWriter, attr, split_messages,
};

/// Most destinations whose routes are encoded together: routes with the same attributes share an UPDATE.
pub(super) const TOGETHER: usize = 1024;
/// Work for a slot, for a route, and for what is said of a peer.
const SLOT_WORK: u32 = 1;
pub(super) const ROUTE_WORK: u32 = 3;
pub(super) const PEER_WORK: u32 = 20;

/// What the routes of one UPDATE have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    secs: u32,
    attrs: AttrId,
    next_hop: NextHop,
    long_lived: bool,
    med: MedBefore,
    reflection: Option<Reflection>,
}

/// Routes of one RIB to be encoded together.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) withdrawn: Vec<(PathId, Prefix)>,
    announced: Vec<(Common, PathId, Prefix)>,
}

/// A page that is being written.
pub(super) struct Page<'a> {
    pub(super) out: Vec<u8>,
    octets_max: usize,
    pub(super) meter: Meter,
    scratch: Vec<u8>,
    pub(super) messages: u64,
    left_out: u64,
    /// Octets of attributes of the routes that were collected and not written yet.
    pub(super) gathered: usize,
    params: &'a MonitorParams,
}

/// The RIBs of one feed, and how they are written.
pub(super) struct About {
    pub(super) header: PeerHeader,
    pub(super) source: SourceId,
    pub(super) family: Family,
    pub(super) add_path: bool,
    pub(super) direction: Direction,
}

/// Which of a peer's RIBs a feed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Received,
    Advertised,
}

impl Direction {
    fn has(self, rib: Rib) -> bool {
        match self {
            Direction::Received => matches!(rib, Rib::AdjRibInPre | Rib::AdjRibInPost),
            Direction::Advertised => matches!(rib, Rib::AdjRibOutPre | Rib::AdjRibOutPost),
        }
    }
}

impl Page<'_> {
    pub(super) fn is_full(&self) -> bool {
        self.meter.is_spent() || self.out.len() >= self.octets_max
    }

    /// Whether more routes may be encoded together with those that were collected.
    pub(super) fn has_room(&self) -> bool {
        !self.meter.is_spent() && self.gathered < self.octets_max
    }

    /// Collects a route, whose attributes have this many octets.
    fn collect(&mut self, of: &mut Routes, route: (Common, PathId, Prefix), attributes: usize) {
        self.gathered += attributes;
        of.announced.push(route);
    }

    /// Wraps the UPDATEs in `scratch`.
    fn wrap(&mut self, header: &PeerHeader) {
        for update in split_messages(&self.scratch) {
            encode_route_monitoring(&mut self.out, header, update);
            self.messages += 1;
        }
        self.scratch.clear();
    }

    fn withdraw(&mut self, about: &About, rib: Rib, routes: &[(PathId, Prefix)]) {
        let format = about.format(MAX_LEN);
        let mut writer = UpdateWriter::withdraw(&mut self.scratch, format);
        // A prefix without attributes fits any message.
        let refused = routes.iter().filter(|(id, prefix)| writer.push(*id, *prefix).is_err());
        self.left_out += refused.count() as u64;
        let _ = writer.finish();
        self.wrap(&about.header.of(rib, 0));
    }

    fn announce(
        &mut self,
        about: &About,
        rib: Rib,
        (common, attrs): (&Common, AttrView<'_>),
        routes: &[(Common, PathId, Prefix)],
    ) {
        let next_hop = common.next_hop.off_interface();
        let mut too_long = Vec::new();
        let format = about.format(MAX_LEN);
        let mut writer = UpdateWriter::announce(&mut self.scratch, format, attrs, next_hop);
        for (_, path_id, prefix) in routes {
            if writer.push(*path_id, *prefix).is_err() {
                too_long.push((*path_id, *prefix));
            }
        }
        let _ = writer.finish();
        let mut refused = Vec::new();
        if !too_long.is_empty() {
            let format = about.format(EXTENDED_MAX_LEN);
            let mut writer = UpdateWriter::announce(&mut self.scratch, format, attrs, next_hop);
            refused = too_long;
            refused.retain(|(id, prefix)| writer.push(*id, *prefix).is_err());
            let _ = writer.finish();
        }
        self.wrap(&about.header.of(rib, common.secs));
        if !refused.is_empty() {
            self.left_out += refused.len() as u64;
            // The station may have an earlier version, which is no longer so.
            self.withdraw(about, rib, &refused);
        }
    }
}

impl About {
    /// Those that the station is sent, without routes.
    pub(super) fn routes(&self, page: &Page<'_>) -> Vec<(Rib, Routes)> {
        let chosen = page.params.ribs.iter().copied();
        chosen
            .filter(|rib| match self.header.kind {
                PeerKind::LocRib => *rib == Rib::LocRib,
                // Path identifiers are chosen when a path is advertised.
                _ if self.add_path && *rib == Rib::AdjRibOutPre => false,
                _ => self.direction.has(*rib),
            })
            .map(|rib| (rib, Routes::default()))
            .collect()
    }

    fn format(&self, max_len: usize) -> AnnounceFormat {
        AnnounceFormat {
            family: self.family,
            four_octet_as: true,
            add_path: self.add_path,
            max_len,
        }
    }
}

impl Table {
    /// Removes and encodes what a monitor has not been sent: about `octets_max` octets, within the budget.
    /// `secs` is the present Unix time.
    pub fn monitor_page(
        &mut self,
        id: MonitorId,
        octets_max: usize,
        budget: Work,
        secs: u32,
    ) -> MonitorPage {
        let evicted = MonitorPage { octets: Vec::new(), end: PageEnd::Evicted };
        let Some(mut monitor) = self.monitors.by_id.remove(&id) else { return evicted };
        let State::Sending(sending) = &mut monitor.state else {
            self.monitors.by_id.insert(id, monitor);
            return evicted;
        };
        let mut page = Page {
            out: Vec::new(),
            octets_max,
            meter: Meter::new(budget.0),
            scratch: Vec::new(),
            messages: 0,
            left_out: 0,
            gathered: 0,
            params: &monitor.params,
        };
        self.write_page(sending, &mut page, secs);
        let Page { out: octets, messages, left_out, .. } = page;
        let end = if sending.is_up_to_date() { PageEnd::UpToDate } else { PageEnd::More };
        monitor.counts.octets = sending.octets_held();
        monitor.counts.messages += messages;
        monitor.counts.left_out += left_out;
        self.monitors.by_id.insert(id, monitor);
        MonitorPage { octets, end }
    }

    fn write_page(&self, sending: &mut Sending, page: &mut Page<'_>, secs: u32) {
        self.write_loc_rib_up(sending, page, secs);
        while !page.is_full()
            && let Some(id) = sending.sessions.pop_first()
        {
            self.write_session(sending, id, page, secs);
        }
        if !sending.sessions.is_empty() {
            // Routes follow the Peer Up of their session.
            return;
        }
        sending.write_mirrors(page);
        self.write_statistics(sending, page, secs);
        if let Some((_, mut feeds)) = sending.loc_rib.take() {
            let header = self.loc_rib_header(page.params, 0);
            for family in Family::ALL {
                let about = About {
                    header,
                    source: SourceId::NONE,
                    family,
                    add_path: false,
                    direction: Direction::Received,
                };
                let before = feeds[family].octets();
                self.write_feed(&about, &mut feeds[family], page);
                sending.grew(before, feeds[family].octets());
            }
            sending.loc_rib = Some((PeerUpSent::Sent, feeds));
        }
        match std::mem::take(&mut sending.first) {
            First::Peers => {
                sending.first = First::Groups;
                self.write_peers(sending, page);
                self.write_groups(sending, page);
            }
            First::Groups => {
                self.write_groups(sending, page);
                self.write_peers(sending, page);
            }
        }
    }

    fn write_peers(&self, sending: &mut Sending, page: &mut Page<'_>) {
        // Each peer in turn, beginning after the one that was last: none waits for a long table of another.
        let waiting: Vec<PeerId> = sending.pending.iter().copied().collect();
        let first = waiting.partition_point(|id| *id <= sending.last_peer);
        for id in waiting.iter().cycle().skip(first).take(waiting.len()).copied() {
            if page.is_full() {
                break;
            }
            sending.last_peer = id;
            page.meter.spend(SLOT_WORK);
            self.write_peer(sending, id, page);
        }
    }

    fn write_peer(&self, sending: &mut Sending, id: PeerId, page: &mut Page<'_>) {
        let session =
            self.peers.get(id).and_then(|peer| Some((peer.source, peer.session.as_ref()?)));
        let (Some(known), Some((source, session))) = (sending.peers.get(&id), session) else {
            sending.pending.remove(&id);
            return;
        };
        let Some((_, header)) = known.announced else {
            sending.pending.remove(&id);
            return;
        };
        for family in Family::ALL {
            let both = [
                (Direction::Received, session.add_path_rx),
                (Direction::Advertised, session.add_path_tx),
            ];
            for (direction, add_path) in both {
                let add_path = add_path.contains(family);
                let about = About { header, source, family, add_path, direction };
                let feed = sending.peers.get_mut(&id).and_then(|known| known.feed(&about));
                let Some(feed) = feed else { continue };
                if !session.families.contains(family) {
                    *feed = Feed::default();
                    continue;
                }
                match direction {
                    Direction::Received => {
                        let before = feed.octets();
                        self.write_feed(&about, feed, page);
                        let after = feed.octets();
                        sending.grew(before, after);
                    }
                    Direction::Advertised => self.write_advertised(sending, id, &about, page),
                }
            }
        }
        if sending.peers.get(&id).is_some_and(MonitoredPeer::is_up_to_date) {
            sending.pending.remove(&id);
        }
    }

    /// Withdrawals first, then what changed, then the initial state.
    pub(super) fn write_feed(&self, about: &About, feed: &mut Feed, page: &mut Page<'_>) {
        while !page.is_full() && !feed.is_up_to_date() {
            let mut routes = about.routes(page);
            let mut left = TOGETHER;
            while left > 0
                && let Some((prefix, path_id)) = feed.withdrawn.pop_first()
            {
                left -= 1;
                page.meter.spend(ROUTE_WORK);
                routes.iter_mut().for_each(|(_, of)| of.withdrawn.push((PathId(path_id), prefix)));
            }
            let is_last_withdrawn = feed.withdrawn.is_empty();
            page.gathered = 0;
            while is_last_withdrawn
                && left > 0
                && page.has_room()
                && let Some(dest) = feed.pop_changed()
            {
                left -= 1;
                self.gather(about, dest, Sent::Before, &mut routes, page);
            }
            while is_last_withdrawn
                && left > 0
                && page.has_room()
                && let Some(at) = feed.walk
            {
                let next = self.next_of_walk(about, at);
                let Some(dest) = next else {
                    feed.walk = None;
                    break;
                };
                feed.walk = Some(dest.0 + 1);
                left -= 1;
                self.gather(about, dest, Sent::Never, &mut routes, page);
            }
            let was_walking = feed.walk.is_some();
            let is_at_end = !was_walking && feed.end_of_rib_due();
            for (rib, of) in routes {
                self.write_routes(about, rib, of, page);
                if is_at_end {
                    let header = about.header.of(rib, 0);
                    encode_end_of_rib(&mut page.out, &header, about.family);
                    page.messages += 1;
                }
            }
        }
    }

    /// The next destination of the initial state, from `at` on.
    fn next_of_walk(&self, about: &About, at: u32) -> Option<DestId> {
        match about.source.peer() {
            Some(id) if about.direction == Direction::Advertised => {
                self.group_of(id, about.family)?;
                (at < self.loc_rib.dests(about.family).slots()).then_some(DestId(at))
            }
            Some(id) => {
                let held = self.peers.get(id)?.family(about.family);
                held.dests.next_from(at).map(DestId)
            }
            None => (at < self.loc_rib.dests(about.family).slots()).then_some(DestId(at)),
        }
    }

    /// Collects the routes of one destination.
    pub(super) fn gather(
        &self,
        about: &About,
        dest: DestId,
        sent: Sent,
        routes: &mut [(Rib, Routes)],
        page: &mut Page<'_>,
    ) {
        page.meter.spend(SLOT_WORK);
        let dests = self.loc_rib.dests(about.family);
        if dest.0 >= dests.slots() || !dests.is_live(dest) {
            return;
        }
        let prefix = dests.prefix(dest);
        let zero = page.params.zero;
        if about.header.kind == PeerKind::LocRib {
            let Some(best) = dests.best(dest) else { return };
            page.meter.spend(ROUTE_WORK);
            let next_hop = self.dumped_next_hop(about.family, dest, best);
            let common = common(zero, best, best.attrs, next_hop);
            let octets = self.loc_rib.attrs.view(best.attrs).as_bytes().len();
            routes
                .iter_mut()
                .for_each(|(_, of)| page.collect(of, (common, PathId(0), prefix), octets));
            return;
        }
        if about.direction == Direction::Advertised {
            return routes.iter_mut().for_each(|(rib, of)| match rib {
                Rib::AdjRibOutPre => self.gather_offered(about, (dest, prefix), sent, of, page),
                _ => self.gather_advertised(about, (dest, prefix), of, page),
            });
        }
        let held = about.source.peer().and_then(|id| self.peers.get(id));
        let Some(held) = held.map(|peer| peer.family(about.family)) else { return };
        for path in dests.paths(dest).iter().filter(|path| path.source == about.source) {
            if held.retention.is_stale() && path.stamp != held.marks.present {
                continue;
            }
            page.meter.spend(ROUTE_WORK);
            let path_id = PathId(path.path_id);
            for (rib, of) in routes.iter_mut() {
                if *rib == Rib::AdjRibInPost && path.flags.is_refused() {
                    if sent == Sent::Before {
                        of.withdrawn.push((path_id, prefix));
                    }
                    continue;
                }
                let name = (about.family, dest, path.source, path.path_id);
                let kept = match rib {
                    Rib::AdjRibInPre => self.loc_rib.received(&name),
                    _ => None,
                };
                let (attrs, hop) = kept.unwrap_or((path.attrs, path.next_hop));
                let Some(next_hop) = self.loc_rib.hops.hop(hop) else { continue };
                let mut common = common(zero, path, attrs, next_hop);
                common.long_lived &= *rib == Rib::AdjRibInPost;
                let octets = self.loc_rib.attrs.view(attrs).as_bytes().len();
                page.collect(of, (common, path_id, prefix), octets);
            }
        }
    }

    /// What the peer's export policy is asked about. Since when is not known.
    fn gather_offered(
        &self,
        about: &About,
        (dest, prefix): (DestId, Prefix),
        sent: Sent,
        of: &mut Routes,
        page: &mut Page<'_>,
    ) {
        page.meter.spend(ROUTE_WORK);
        let Some((path, med)) = self.before_policy(about, dest) else {
            if sent == Sent::Before {
                of.withdrawn.push((PathId(0), prefix));
            }
            return;
        };
        let next_hop = self.dumped_next_hop(about.family, dest, path);
        let common = Common { secs: 0, med, ..common(0, path, path.attrs, next_hop) };
        let octets = self.loc_rib.attrs.view(path.attrs).as_bytes().len();
        page.collect(of, (common, PathId(0), prefix), octets);
    }

    /// What the peer was sent, as it was sent. When is not known.
    fn gather_advertised(
        &self,
        about: &About,
        (dest, prefix): (DestId, Prefix),
        of: &mut Routes,
        page: &mut Page<'_>,
    ) {
        let Some(id) = about.source.peer() else { return };
        for (sent, path_id) in self.advertised_to_peer(id, about.family, dest) {
            page.meter.spend(ROUTE_WORK);
            let out = self.adj_ribs_out.exported.get(sent.out);
            let Some(next_hop) = self.loc_rib.hops.hop(out.next_hop) else { continue };
            let (attrs, reflection) = (out.attrs, out.reflection);
            let (long_lived, med) = (false, MedBefore::Kept);
            let common = Common { secs: 0, attrs, next_hop, long_lived, med, reflection };
            let path_id = path_id.unwrap_or_default();
            let octets = self.loc_rib.attrs.view(attrs).as_bytes().len();
            page.collect(of, (common, path_id, prefix), octets);
        }
    }

    pub(super) fn write_routes(
        &self,
        about: &About,
        rib: Rib,
        mut routes: Routes,
        page: &mut Page<'_>,
    ) {
        if !routes.withdrawn.is_empty() {
            page.withdraw(about, rib, &routes.withdrawn);
        }
        routes.announced.sort_unstable();
        for alike in routes.announced.chunk_by(|a, b| a.0 == b.0) {
            let Some((common, ..)) = alike.first() else { continue };
            let attrs = self.loc_rib.attrs.view(common.attrs);
            if common.long_lived || common.med == MedBefore::Removed {
                let path = Path { flags: flags(common), ..Path::default() };
                let shown = shown_attrs(&path, attrs);
                let mut edit = AttrEdit::from_view(AttrView::new(&shown));
                if common.med == MedBefore::Removed {
                    edit.remove(attr::MULTI_EXIT_DISC);
                }
                page.announce(about, rib, (common, edit.view()), alike);
            } else if let Some(reflection) = common.reflection {
                let reflected = reflection.apply(attrs).into_bytes();
                page.announce(about, rib, (common, AttrView::new(&reflected)), alike);
            } else {
                page.announce(about, rib, (common, attrs), alike);
            }
        }
    }

    fn loc_rib_header(&self, params: &MonitorParams, secs: u32) -> PeerHeader {
        PeerHeader {
            kind: PeerKind::LocRib,
            rib: Rib::LocRib,
            distinguisher: params.distinguisher,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            asn: self.config.asn,
            router_id: self.config.router_id,
            secs,
            micros: 0,
        }
    }

    /// The Loc-RIB's Peer Up, with OPENs made up from what we are (RFC 9069 §5.1).
    fn write_loc_rib_up(&self, sending: &mut Sending, page: &mut Page<'_>, secs: u32) {
        let Some((sent @ PeerUpSent::Pending, _)) = &mut sending.loc_rib else { return };
        *sent = PeerUpSent::Sent;
        let open = self.open_of(self.config.asn, self.config.router_id, None);
        let header = self.loc_rib_header(page.params, secs);
        let up = PeerUp {
            local: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            local_port: 0,
            remote_port: 0,
            sent: &open,
            received: &open,
            table_name: Some(&page.params.table_name),
        };
        encode_peer_up(&mut page.out, &header, &up);
        page.messages += 1;
    }

    /// An OPEN with these capabilities, or with all families and AS numbers of four octets.
    fn open_of(
        &self,
        asn: crate::types::Asn,
        router_id: RouterId,
        capabilities: Option<&Capabilities>,
    ) -> Vec<u8> {
        let all = || Capabilities {
            multiprotocol: Family::ALL.map(Family::afi_safi).to_vec(),
            four_octet_as: Some(asn),
            ..Capabilities::default()
        };
        let capabilities = capabilities.cloned().unwrap_or_else(all);
        let mut out = Vec::new();
        Open { asn, hold_time_secs: 0, router_id, capabilities }.encode(&mut out);
        out
    }

    /// Peer Down for the session that the station knows, Peer Up for the present one.
    fn write_session(&self, sending: &mut Sending, id: PeerId, page: &mut Page<'_>, secs: u32) {
        page.meter.spend(PEER_WORK);
        let Some(known) = sending.peers.get_mut(&id) else { return };
        let announced = known.announced.filter(|(session, _)| Some(*session) != known.present);
        if let Some((_, header)) = announced {
            sending.write_mirror_before(id, &header, page);
            let Some(known) = sending.peers.get_mut(&id) else { return };
            known.announced = None;
            let before = known.octets();
            let reason = known.reason.take().unwrap_or(DownReason::RemoteClosed);
            let after = known.octets();
            sending.grew(before, after);
            encode_peer_down(&mut page.out, &header.of(Rib::AdjRibInPre, secs), &reason);
            page.messages += 1;
        }
        let Some(known) = sending.peers.get_mut(&id) else { return };
        let Some(present) = known.present else {
            sending.peers.remove(&id);
            return;
        };
        if known.announced.is_some() {
            return;
        }
        let Some(peer) = self.peers.get(id) else { return };
        let Some(session) = &peer.session else { return };
        let is_default = page.params.distinguisher == 0;
        let header = PeerHeader {
            kind: if is_default { PeerKind::Global } else { PeerKind::Local },
            rib: Rib::AdjRibInPre,
            distinguisher: page.params.distinguisher,
            address: off_interface(peer.address).0,
            asn: session.peer_asn,
            router_id: session.peer_router_id,
            secs,
            micros: 0,
        };
        self.write_peer_up(&header, session, page);
        known.announced = Some((present, header));
    }

    fn write_peer_up(&self, header: &PeerHeader, session: &Negotiated, page: &mut Page<'_>) {
        // Without the OPENs themselves, such as say the same.
        let made_up;
        let (sent, received, ports) = match &session.opens {
            Some(opens) => (&opens.sent, &opens.received, opens.ports),
            None => {
                let own = self.open_of(session.local_asn, self.config.router_id, None);
                let theirs = self.open_of(session.peer_asn, session.peer_router_id, None);
                made_up = (own, theirs);
                (&made_up.0, &made_up.1, (0, 0))
            }
        };
        // The address has the length that the V flag gives it.
        let local = match (off_interface(session.local_addr).0, header.address) {
            (IpAddr::V4(v4), IpAddr::V6(_)) => IpAddr::V6(v4.to_ipv6_mapped()),
            (local, _) => local,
        };
        let up = PeerUp {
            local,
            local_port: ports.0,
            remote_port: ports.1,
            sent,
            received,
            table_name: Some(&page.params.table_name)
                .filter(|_| header.kind != PeerKind::Global)
                .map(|name| &**name),
        };
        encode_peer_up(&mut page.out, header, &up);
        page.messages += 1;
    }

    fn write_statistics(&self, sending: &mut Sending, page: &mut Page<'_>, secs: u32) {
        if sending.loc_rib_statistics == Due::Now {
            sending.loc_rib_statistics = Due::Later;
            let held = Family::ALL.map(|family| self.loc_rib.dests(family).decided_len());
            let stats = [
                Stat::Gauge(8, held.iter().sum()),
                Stat::FamilyGauge(10, Family::Ipv4, held[0]),
                Stat::FamilyGauge(10, Family::Ipv6, held[1]),
            ];
            encode_statistics(&mut page.out, &self.loc_rib_header(page.params, secs), &stats);
            page.messages += 1;
        }
        while !page.is_full()
            && let Some(id) = sending.statistics.pop_first()
        {
            page.meter.spend(PEER_WORK);
            let Some(MonitoredPeer { announced: Some((_, header)), .. }) = sending.peers.get(&id)
            else {
                continue;
            };
            encode_statistics(
                &mut page.out,
                &header.of(Rib::AdjRibInPre, secs),
                &self.stats_of(id),
            );
            page.messages += 1;
        }
    }

    /// RFC 7854 §4.8: types 0, 1, 2, 7 and 9; counters go on across sessions. RFC 8671 §6.2: 15 and 17.
    fn stats_of(&self, id: PeerId) -> Vec<Stat> {
        let counts = self.counts(id);
        let sum = |of: fn(&crate::table::ImportCounts) -> u64| {
            let FamilyMap(imports) = &counts.imports;
            // A counter of 32 bits wraps.
            imports.iter().map(of).sum::<u64>() as u32
        };
        let received = Family::ALL.map(|family| u64::from(counts.received[family]));
        let advertised = Family::ALL.map(|family| u64::from(counts.advertised[family]));
        vec![
            Stat::Counter(0, sum(|counts| counts.filtered)),
            Stat::Counter(1, sum(|counts| counts.unchanged)),
            Stat::Counter(2, sum(|counts| counts.withdrawn_unknown)),
            Stat::Gauge(7, received.iter().sum()),
            Stat::FamilyGauge(9, Family::Ipv4, received[0]),
            Stat::FamilyGauge(9, Family::Ipv6, received[1]),
            Stat::Gauge(15, advertised.iter().sum()),
            Stat::FamilyGauge(17, Family::Ipv4, advertised[0]),
            Stat::FamilyGauge(17, Family::Ipv6, advertised[1]),
        ]
    }
}

/// Whether the station may have been sent routes of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Before,
    Never,
}

fn common(zero: u32, path: &Path, attrs: AttrId, next_hop: NextHop) -> Common {
    Common {
        secs: zero.saturating_add(path.received_secs),
        attrs,
        next_hop,
        long_lived: path.flags.has(PathFlags::LONG_LIVED),
        med: MedBefore::Kept,
        reflection: None,
    }
}

fn flags(common: &Common) -> PathFlags {
    let mut flags = PathFlags::default();
    if common.long_lived {
        flags.set(PathFlags::LONG_LIVED);
    }
    flags
}
