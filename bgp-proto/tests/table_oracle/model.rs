//! What each peer should have been sent, computed from scratch: no groups, no ids, no incremental
//! steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::policy::{Change, Decision, Match, Policy, PrefixMatch, Rule, Source};
use bgp_proto::rib::{NextHopState, Over};
use bgp_proto::table::{AddPathSend, Drain, NextHopMode, VantageCosts};
use bgp_proto::types::{
    Asn, BandwidthScope, ClusterId, Community, ExtCommunity, Family, FibKind, Hop, NextHop,
    PeerType, Prefix, RouterId,
};
use bgp_proto::wire::{AttrEdit, AttrView, Origin, attr};

pub(crate) const OUR_ASN: u32 = 65000;
pub(crate) const OUR_ID: u32 = 0x0a00_0001;
pub(crate) const PEERS: usize = 12;
pub(crate) const PREFIXES: usize = 18;
pub(crate) const MULTIPATH_MAX: usize = 64;

/// The properties of a peer that are constant for the test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) asn: u32,
    pub(crate) four_octet_as: bool,
    pub(crate) add_path_rx: bool,
    pub(crate) add_path_tx: bool,
    pub(crate) send: AddPathSend,
    pub(crate) local_v6: bool,
    pub(crate) ipv4_over_ipv6: bool,
    pub(crate) max_len: usize,
    pub(crate) enhanced: bool,
    /// It sets the F bit for its families when it reconnects (RFC 4724 §3).
    pub(crate) keeps_forwarding: bool,
    /// It sets the N bit (RFC 8538).
    pub(crate) notifies: bool,
    /// It sends capability 71 (RFC 9494).
    pub(crate) knows_long_lived: bool,
    /// It sets the F bit of capability 71 when it reconnects.
    pub(crate) keeps_forwarding_long: bool,
}

pub(crate) fn kind(peer: usize) -> Kind {
    let base = Kind {
        asn: OUR_ASN,
        four_octet_as: true,
        add_path_rx: false,
        add_path_tx: false,
        send: AddPathSend::All,
        local_v6: false,
        ipv4_over_ipv6: false,
        max_len: 600,
        enhanced: true,
        keeps_forwarding: true,
        notifies: peer.is_multiple_of(3),
        knows_long_lived: !matches!(peer, 1 | 6 | 10),
        keeps_forwarding_long: peer != 2,
    };
    match peer {
        0 => Kind { asn: 65001, ..base },
        1 => Kind { asn: 65002, four_octet_as: false, enhanced: false, ..base },
        2 => base,
        3 => Kind { add_path_rx: true, add_path_tx: true, ..base },
        4 => Kind { keeps_forwarding: false, ..base },
        5 => Kind { local_v6: true, ..base },
        6 => Kind { asn: 65001, add_path_rx: true, add_path_tx: true, ..base },
        7 => Kind { add_path_tx: true, send: AddPathSend::Best(2), max_len: 4096, ..base },
        8 => Kind { local_v6: true, ipv4_over_ipv6: true, ..base },
        11 => Kind { asn: 65003, ..base },
        _ => base,
    }
}

impl Kind {
    pub(crate) fn peer_type(&self) -> PeerType {
        if self.asn == OUR_ASN { PeerType::Internal } else { PeerType::External }
    }

    pub(crate) fn local_addr(&self) -> IpAddr {
        if self.local_v6 { "2001:db8:ffff::1" } else { "10.0.0.1" }.parse().unwrap()
    }

    /// Sessions with AS 65003 run over an interface with addresses of both families.
    pub(crate) fn other_addr(&self) -> Option<IpAddr> {
        let other = if self.local_v6 { "10.0.0.1" } else { "2001:db8:ffff::1" };
        (self.asn == 65003).then(|| other.parse().unwrap())
    }
}

impl Kind {
    /// The session over IPv6 alone is one with a neighbour on the same link.
    pub(crate) fn link_local(&self) -> Option<std::net::Ipv6Addr> {
        (self.local_v6 && !self.ipv4_over_ipv6).then(|| "fe80::1".parse().unwrap())
    }
}

pub(crate) fn peer_address(peer: usize) -> IpAddr {
    IpAddr::from([10, 0, 1, peer as u8 + 1])
}

pub(crate) fn router_id(peer: usize) -> RouterId {
    // Not in the order of the addresses; two are equal, so that the peer address has to break the
    // tie.
    RouterId([50, 40, 30, 20, 60, 70, 40, 10, 90, 80, 25, 35][peer])
}

pub(crate) fn prefix(index: usize) -> Prefix {
    if index < 12 {
        Prefix::new(IpAddr::from([10, (index % 3) as u8, index as u8, 0]), 20 + index as u8 % 5)
    } else {
        let addr: IpAddr = format!("2001:db8:{index}::").parse().unwrap();
        Prefix::new(addr, 44 + index as u8 % 5)
    }
}

/// Decoded path attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Meaning {
    pub(crate) origin: u8,
    pub(crate) path: Vec<u32>,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<u32>,
    pub(crate) ext: BTreeSet<[u8; 8]>,
    pub(crate) originator: Option<u32>,
    pub(crate) clusters: Vec<u32>,
}

impl Meaning {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let origin = [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(self.origin)];
        let mut edit = AttrEdit::originate(origin);
        for asn in self.path.iter().rev() {
            edit.prepend_as(Asn(*asn), 1);
        }
        self.med.into_iter().for_each(|med| edit.set_med(med));
        self.local_pref.into_iter().for_each(|lp| edit.set_local_pref(lp));
        edit.set_communities(&self.communities.iter().map(|c| Community(*c)).collect::<Vec<_>>());
        edit.set_ext_communities(&self.ext.iter().map(|c| ExtCommunity(*c)).collect::<Vec<_>>());
        self.originator.into_iter().for_each(|id| edit.set_originator_id(RouterId(id)));
        for cluster in self.clusters.iter().rev() {
            edit.prepend_cluster(ClusterId(*cluster));
        }
        edit.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let view = AttrView::new(bytes);
        assert!(view.get(attr::NEXT_HOP).is_none());
        Meaning {
            origin: view.origin() as u8,
            path: view.as_path().asns().map(|a| a.0).collect(),
            med: view.med(),
            local_pref: view.local_pref(),
            communities: view.communities().map(|c| c.0).collect(),
            ext: view.ext_communities().map(|c| c.0).collect(),
            originator: view.originator_id().map(|id| id.0),
            clusters: view.cluster_list().map(|c| c.0).collect(),
        }
    }
}

/// Policies that the model applies with code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    All,
    /// Rejects prefixes within 10.1.0.0/16 or 2001:db8:14::/46.
    Some,
    /// Adds a community to every route: independent of the prefix.
    Tag(u32),
    /// LOCAL_PREF 300 on 10.0.0.0/16 only: depends on the prefix.
    Prefer,
    /// Rejects routes whose next hop is reached through the interface `eth1`.
    NotByEth1,
    /// Preference 200.
    Elevate,
    /// On export: the sum of the bandwidths of all paths that share the route.
    Sum,
    None,
}

impl Filter {
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte % 8 {
            0..=2 => Filter::All,
            3 if byte & 8 == 0 => Filter::Some,
            3 => Filter::NotByEth1,
            4 => Filter::Tag(u32::from(byte / 8) % 2 + 0x0009_0000),
            5 => Filter::Prefer,
            6 if byte & 8 == 0 => Filter::Elevate,
            6 => Filter::Sum,
            _ => Filter::None,
        }
    }

    pub(crate) fn policy(self) -> Arc<Policy> {
        let rule =
            |matches, changes, decision| Rule { name: String::new(), matches, changes, decision };
        let within = |text: &str, max| {
            let covering: Prefix = text.parse().unwrap();
            PrefixMatch { prefix: covering, lengths: covering.len()..=max }
        };
        let rules = match self {
            Filter::All => vec![],
            Filter::Some => {
                let list = vec![within("10.1.0.0/16", 32), within("2001:db8:14::/46", 128)];
                vec![rule(
                    vec![Match::Prefix(list.into_iter().collect())],
                    vec![],
                    Decision::Reject,
                )]
            }
            Filter::Tag(c) => {
                vec![rule(vec![], vec![Change::AddCommunity(Community(c))], Decision::Next)]
            }
            Filter::Prefer => {
                let list = vec![within("10.0.0.0/16", 32)];
                vec![rule(
                    vec![Match::Prefix(list.into_iter().collect())],
                    vec![Change::LocalPref(300)],
                    Decision::Next,
                )]
            }
            Filter::NotByEth1 => {
                vec![rule(
                    vec![Match::Interface(vec!["eth1".to_owned()])],
                    vec![],
                    Decision::Reject,
                )]
            }
            Filter::Elevate => vec![rule(vec![], vec![Change::Preference(200)], Decision::Next)],
            Filter::Sum => {
                let sum = Change::SumLinkBandwidth(Asn(OUR_ASN), BandwidthScope::Transitive);
                vec![rule(vec![], vec![sum], Decision::Next)]
            }
            Filter::None => return Arc::new(Policy::reject_all()),
        };
        Arc::new(Policy { name: "test".into(), rules, default: Decision::Accept })
    }

    /// The attributes after the filter, and the preference if the filter sets it; `None` when the
    /// route is rejected.
    fn apply(
        self,
        prefix: Prefix,
        mut attrs: Meaning,
        interface: Option<&str>,
    ) -> Option<(Meaning, Option<u16>)> {
        let within = |text: &str| text.parse::<Prefix>().unwrap().contains(prefix);
        match self {
            // The sum needs the other paths.
            Filter::All | Filter::Sum => {}
            Filter::Some => {
                if within("10.1.0.0/16") || within("2001:db8:14::/46") {
                    return None;
                }
            }
            Filter::Tag(c) => {
                attrs.communities.insert(c);
            }
            Filter::Prefer => {
                if within("10.0.0.0/16") {
                    attrs.local_pref = Some(300);
                }
            }
            Filter::NotByEth1 => {
                if interface == Some("eth1") {
                    return None;
                }
            }
            Filter::Elevate => return Some((attrs, Some(200))),
            Filter::None => return None,
        }
        Some((attrs, None))
    }
}

/// Parameters that may change while the session is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) import: Filter,
    pub(crate) export: Filter,
    pub(crate) client: bool,
    pub(crate) next_hop: NextHopMode,
    pub(crate) send: AddPathSend,
    pub(crate) communities_max: u16,
    /// Of what it sends, and of what it is sent.
    pub(crate) drain: (Drain, Drain),
    pub(crate) vantage: Option<&'static str>,
}

/// A route of the model's Adj-RIB-In.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) attrs: Meaning,
    pub(crate) next_hop: NextHop,
    pub(crate) stale: bool,
    pub(crate) long_lived: bool,
    pub(crate) unrefreshed: bool,
}

/// A local route.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) blackhole: bool,
    pub(crate) next_hop: Option<IpAddr>,
}

/// The inputs from which everything else is computed.
#[derive(Default)]
pub(crate) struct Model {
    /// No peer is sent more than one path of a destination.
    pub(crate) is_without_add_path: bool,
    /// Long-lived graceful restart is configured.
    pub(crate) is_long_lived: bool,
    /// Maximum number of paths that share a route.
    pub(crate) multipath_max: usize,
    pub(crate) settings: Vec<Settings>,
    /// Peers that have had a session since they were added: their addresses are known as next hops.
    pub(crate) known: BTreeSet<usize>,
    /// Costs between vantages.
    pub(crate) costs: VantageCosts,
    pub(crate) received: BTreeMap<(usize, Prefix, u32), Received>,
    pub(crate) own: BTreeMap<(Prefix, Source), Own>,
    pub(crate) hops: BTreeMap<IpAddr, NextHopState>,
}

/// A usable or unusable path after import.
#[derive(Clone, Debug)]
struct Candidate {
    /// `None` for a local route.
    peer: Option<usize>,
    source: Source,
    path_id: u32,
    attrs: Meaning,
    next_hop: Option<NextHop>,
    preference: u16,
    metric: u32,
    /// The vantage at which its next hop is.
    place: Option<&'static str>,
    hops: Vec<Hop>,
}

/// What a receiver holds: (prefix, path id) is the key on the wire; here paths of a prefix are a
/// sorted list, because the sender chooses the identifiers.
pub(crate) type Expected = BTreeMap<Prefix, Vec<(Meaning, NextHop)>>;

impl Model {
    /// Whether the import policy and the limits accept the route.
    pub(crate) fn accepts(&self, peer: usize, prefix: Prefix, received: &Received) -> bool {
        self.import(peer, prefix, received).is_some()
    }

    fn import(&self, peer: usize, prefix: Prefix, received: &Received) -> Option<(Meaning, u16)> {
        let internal = kind(peer).peer_type() == PeerType::Internal;
        let attrs = &received.attrs;
        let communities = attrs.communities.len() + attrs.ext.len();
        if attrs.path.contains(&OUR_ASN)
            || communities > usize::from(self.settings[peer].communities_max)
        {
            return None;
        }
        if internal && (attrs.originator == Some(OUR_ID) || attrs.clusters.contains(&OUR_ID)) {
            return None;
        }
        let interface = self.interface(received.next_hop.addr());
        let import = self.settings[peer].import;
        let (mut out, preference) = import.apply(prefix, attrs.clone(), interface)?;
        let shut_down = !internal && attrs.communities.contains(&Community::GRACEFUL_SHUTDOWN.0);
        if shut_down || self.settings[peer].drain.0 != Drain::Off {
            out.local_pref = Some(0);
        }
        if received.long_lived {
            out.communities.insert(Community::LLGR_STALE.0);
        }
        Some((out, preference.unwrap_or(100)))
    }

    /// The interface through which an address is reached.
    fn interface(&self, addr: IpAddr) -> Option<&str> {
        self.hops.get(&addr).and_then(NextHopState::interface)
    }

    fn candidates(&self, prefix: Prefix) -> Vec<Candidate> {
        let mut list = Vec::new();
        for ((peer, p, path_id), received) in &self.received {
            if *p != prefix {
                continue;
            }
            let Some((attrs, preference)) = self.import(*peer, prefix, received) else { continue };
            let Some(NextHopState::Via { hops, metric, over, .. }) =
                self.hops.get(&received.next_hop.addr())
            else {
                continue;
            };
            if *over == Over::Default && kind(*peer).peer_type() == PeerType::External {
                continue;
            }
            list.push(Candidate {
                peer: Some(*peer),
                source: Source::Bgp,
                path_id: *path_id,
                attrs,
                next_hop: Some(received.next_hop),
                preference,
                metric: *metric,
                place: self.place(*peer, received.next_hop.addr()),
                hops: hops.clone(),
            });
        }
        for ((p, source), own) in &self.own {
            if *p == prefix {
                list.push(Candidate {
                    peer: None,
                    source: *source,
                    path_id: 0,
                    attrs: Meaning::default(),
                    next_hop: own.next_hop.map(NextHop::from),
                    preference: match source {
                        Source::Static => 200,
                        Source::Direct => 240,
                        _ => 10,
                    },
                    metric: 0,
                    place: None,
                    hops: Vec::new(),
                });
            }
        }
        list
    }

    /// The vantage of the neighbour at an address; if there is none, that of the announcing peer.
    fn place(&self, announcing: usize, next_hop: IpAddr) -> Option<&'static str> {
        let owner = self.known.iter().find(|peer| peer_address(**peer) == next_hop);
        let of_owner = owner.and_then(|owner| self.settings[*owner].vantage);
        of_owner.or(self.settings[announcing].vantage)
    }

    /// The paths to a prefix as `receiver` is to choose between them: with the cost from its vantage, if
    /// it has one, in place of the IGP metric.
    fn candidates_for(&self, receiver: usize, prefix: Prefix) -> Vec<Candidate> {
        let mut list = self.candidates(prefix);
        let is_internal = kind(receiver).peer_type() == PeerType::Internal;
        if let Some(vantage) = self.settings[receiver].vantage.filter(|_| is_internal) {
            for candidate in list.iter_mut().filter(|c| c.peer.is_some()) {
                candidate.metric = match candidate.place {
                    Some(place) => self.costs.cost(vantage, place),
                    None => self.costs.default,
                };
            }
        }
        list
    }

    /// RFC 4271 §9.1.2.2 as written: eliminates candidates step by step. Returns the candidates
    /// left before the steps that only break ties, in the order of these, and the best path.
    fn decide(mut list: Vec<Candidate>) -> (Vec<Candidate>, Option<Candidate>) {
        fn keep<K: Ord>(list: &mut Vec<Candidate>, key: impl Fn(&Candidate) -> K) {
            if let Some(best) = list.iter().map(&key).min() {
                list.retain(|c| key(c) == best);
            }
        }
        keep(&mut list, |c| c.attrs.communities.contains(&Community::LLGR_STALE.0));
        keep(&mut list, |c| std::cmp::Reverse(c.preference));
        keep(&mut list, |c| c.peer.is_some());
        keep(&mut list, |c| std::cmp::Reverse(c.attrs.local_pref.unwrap_or(100)));
        keep(&mut list, |c| c.attrs.path.len());
        keep(&mut list, |c| c.attrs.origin);
        let all = list.clone();
        list.retain(|c| {
            all.iter().all(|other| {
                other.attrs.path.first() != c.attrs.path.first()
                    || other.attrs.med.unwrap_or(0) >= c.attrs.med.unwrap_or(0)
            })
        });
        let external =
            |c: &Candidate| c.peer.is_some_and(|p| kind(p).peer_type() == PeerType::External);
        keep(&mut list, |c| !external(c));
        keep(&mut list, |c| c.metric);
        let speaker = |c: &Candidate| {
            c.attrs.originator.unwrap_or(c.peer.map_or(0, |peer| router_id(peer).0))
        };
        let mut equal = list.clone();
        equal.sort_by_key(|c| {
            (speaker(c), c.attrs.clusters.len(), c.peer.map(peer_address), c.path_id)
        });
        keep(&mut list, speaker);
        keep(&mut list, |c| c.attrs.clusters.len());
        keep(&mut list, |c| c.peer.map(peer_address));
        keep(&mut list, |c| c.path_id);
        assert!(list.len() <= 1);
        (equal, list.pop())
    }

    /// Whether ADD-PATH is negotiated towards a peer.
    pub(crate) fn sends_add_path(&self, peer: usize) -> bool {
        kind(peer).add_path_tx && !self.is_without_add_path
    }

    /// What `receiver` should hold in a family.
    pub(crate) fn expected(&self, receiver: usize, family: Family) -> Expected {
        let mut expected = Expected::new();
        for prefix in (0..PREFIXES).map(prefix).filter(|p| p.family() == family) {
            let mut rest = self.candidates_for(receiver, prefix);
            let limit = match (self.sends_add_path(receiver), self.settings[receiver].send) {
                (false, _) => 1,
                (true, AddPathSend::All) => usize::MAX,
                (true, AddPathSend::Best(n)) => usize::from(n),
            };
            let mut picked = 0;
            while picked < limit {
                let (_, Some(best)) = Self::decide(rest.clone()) else { break };
                rest.retain(|c| {
                    (c.peer, c.path_id, c.source) != (best.peer, best.path_id, best.source)
                });
                picked += 1;
                if best.peer == Some(receiver) {
                    continue;
                }
                if let Some(sent) = self.export(receiver, prefix, &best) {
                    expected.entry(prefix).or_default().push(sent);
                }
            }
        }
        expected.values_mut().for_each(|paths| paths.sort());
        expected
    }

    fn export(&self, to: usize, prefix: Prefix, path: &Candidate) -> Option<(Meaning, NextHop)> {
        let settings = self.settings[to];
        let kind_to = kind(to);
        let to_external = kind_to.peer_type() == PeerType::External;
        let from_internal = path.peer.is_some_and(|p| kind(p).peer_type() == PeerType::Internal);
        let has = |c: Community| path.attrs.communities.contains(&c.0);
        if has(Community::NO_ADVERTISE)
            || to_external && (has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED))
        {
            return None;
        }
        // RFC 9494 §4.3.
        if self.is_long_lived && has(Community::LLGR_STALE) && !kind_to.knows_long_lived {
            return None;
        }
        let is_marked = |c: &Candidate| {
            c.attrs.local_pref == Some(0)
                || c.attrs.communities.contains(&Community::LLGR_STALE.0)
                || c.attrs.communities.contains(&Community::GRACEFUL_SHUTDOWN.0)
        };
        if settings.drain.1 == Drain::Withdraw
            && path.peer.is_none()
            && self.candidates(prefix).iter().any(|c| c.peer.is_some() && !is_marked(c))
        {
            return None;
        }
        let from_client = path.peer.is_some_and(|p| self.settings[p].client);
        let reflected = from_internal && !to_external;
        if reflected && !from_client && !settings.client {
            return None;
        }
        let mut attrs = path.attrs.clone();
        if to_external && path.peer.is_some() {
            attrs.med = None;
        }
        let learned = path.peer.and(path.next_hop);
        let interface = learned.and_then(|hop| self.interface(hop.addr()));
        let (mut attrs, _) = settings.export.apply(prefix, attrs, interface)?;
        if settings.export == Filter::Sum && !self.sends_add_path(to) {
            self.sum_bandwidth(prefix, path, &mut attrs);
        }
        if to_external {
            attrs.local_pref = None;
            attrs.originator = None;
            attrs.clusters.clear();
            attrs.ext.retain(|c| c[0] & 0x40 == 0);
            attrs.path.insert(0, OUR_ASN);
        } else {
            attrs.local_pref = attrs.local_pref.or(Some(100));
            if reflected {
                let originator = path.peer.map(|p| router_id(p).0);
                attrs.originator = attrs.originator.or(originator);
                attrs.clusters.insert(0, OUR_ID);
            }
        }
        match (settings.drain.1, to_external) {
            (Drain::Off, _) => {}
            (_, true) => {
                attrs.communities.insert(Community::GRACEFUL_SHUTDOWN.0);
            }
            (_, false) => attrs.local_pref = Some(0),
        }
        let keep = match settings.next_hop {
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => path.peer.is_some() && !to_external,
            NextHopMode::ThirdParty => !to_external,
        };
        let next_hop = match path.next_hop.filter(|_| keep) {
            Some(hop) => Some(hop),
            None => match (kind_to.local_addr(), prefix.family()) {
                (a @ IpAddr::V4(_), Family::Ipv4) => Some(a.into()),
                (IpAddr::V6(global), Family::Ipv6) => Some(match kind_to.link_local() {
                    Some(link_local) => NextHop::V6Both { global, link_local },
                    None => NextHop::V6(global),
                }),
                (a @ IpAddr::V6(_), Family::Ipv4) if kind_to.ipv4_over_ipv6 => Some(a.into()),
                _ => kind_to.other_addr().map(Into::into),
            },
        };
        // Too long for a message of 600 octets.
        if attrs.communities.len() > 100 && kind_to.max_len == 600 {
            return None;
        }
        // RFC 4271 §5.1.3.
        let next_hop = next_hop.filter(|hop| hop.addr() != peer_address(to))?;
        Some((attrs, next_hop))
    }

    /// Replaces the bandwidth of a path by that of all which share the route, each next hop once.
    fn sum_bandwidth(&self, prefix: Prefix, path: &Candidate, attrs: &mut Meaning) {
        let name = |c: &Candidate| (c.peer, c.path_id, c.source);
        let mut sharing = Self::decide(self.candidates(prefix)).0;
        sharing.truncate(self.multipath_max);
        if !sharing.iter().any(|c| name(c) == name(path)) {
            return;
        }
        let mut by_hop = BTreeMap::new();
        for c in &sharing {
            let mut communities = c.attrs.ext.iter();
            let bandwidth = communities.find_map(|c| ExtCommunity(*c).link_bandwidth());
            by_hop.entry(c.next_hop.map(NextHop::addr)).or_insert(bandwidth);
        }
        let sum = by_hop.into_values().try_fold(0, |sum, bandwidth| Some(sum + bandwidth?));
        attrs.ext.retain(|c| !ExtCommunity(*c).is_link_bandwidth());
        attrs.ext.extend(sum.filter(|sum| *sum > 0).map(|sum| {
            ExtCommunity::of_link_bandwidth(Asn(OUR_ASN), sum, BandwidthScope::Transitive).0
        }));
    }

    /// What the kernel should hold.
    pub(crate) fn fib(&self) -> BTreeMap<Prefix, FibKind> {
        let mut fib = BTreeMap::new();
        for prefix in (0..PREFIXES).map(prefix) {
            let (mut equal, best) = Self::decide(self.candidates(prefix));
            equal.truncate(self.multipath_max);
            let Some(best) = best else { continue };
            if best.peer.is_none() {
                if self.own.get(&(prefix, best.source)).is_some_and(|own| own.blackhole) {
                    fib.insert(prefix, FibKind::Blackhole);
                }
                continue;
            }
            let hops: BTreeSet<Hop> = equal.iter().flat_map(|c| c.hops.clone()).collect();
            let FibKind::Unicast(hops) = FibKind::Unicast(hops.into_iter().collect()) else {
                unreachable!()
            };
            fib.insert(prefix, FibKind::Unicast(hops));
        }
        fib
    }

    /// The next hops of all received paths.
    pub(crate) fn tracked(&self) -> BTreeSet<IpAddr> {
        self.received.values().map(|r| r.next_hop.addr()).collect()
    }
}
