//! One walk over an UPDATE (RFC 4271 §4.3, RFC 7606 §3-§5).
//!
//! Order: lengths (3/1), prefixes (3/10), attributes, then what needs all of them together.
use std::net::Ipv4Addr;

use nom::combinator::map;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};
use nom::{IResult, Parser};

use super::canonical::Canonical;
use super::rules::{self, AttrAction, BadNextHop, Flaw, PathFacts};
use super::{Discarded, Reach, Update, UpdateContext, Verdict, WithdrawReason};
use crate::types::{AfiSafi, Asn, Family, NextHop, PeerType};
use crate::wire::attr_table::attr;
use crate::wire::attrs::Attr;
use crate::wire::{Code, Nlri, Notification};

/// Longest AS_PATH with four-octet numbers that one attribute holds.
const PATH_MAX_LEN: usize = 65535;

pub(super) fn parse<'a>(body: &'a [u8], cx: &UpdateContext) -> Result<Update<'a>, Notification> {
    let (withdrawn, attrs, nlri) = split(body).ok_or_else(malformed_list)?;
    let ipv4 = cx.families.contains(Family::Ipv4);
    let mut walk = Walk::new(cx);
    if !(ipv4 || withdrawn.is_empty() && nlri.is_empty()) {
        // Not negotiated, so not read (RFC 4760 §8).
        walk.unnegotiated = Some(Family::Ipv4.afi_safi());
        walk.unread_reach = !nlri.is_empty();
    }
    let classic = |bytes| {
        if ipv4 {
            prefixes(Family::Ipv4, bytes, cx)
                .ok_or_else(|| Notification::new(Code::INVALID_NETWORK_FIELD))
        } else {
            Ok(Nlri::empty(Family::Ipv4))
        }
    };
    let (withdrawn, nlri) = (classic(withdrawn)?, classic(nlri)?);

    let mut rest = attrs;
    while !rest.is_empty() {
        let Some((attr, after)) = Attr::split(rest) else {
            let flaw = Flaw::new(Code::MALFORMED_ATTRIBUTE_LIST, "attribute overruns the list");
            walk.withdraw(0, flaw);
            walk.is_list_broken = true;
            break;
        };
        let start = attrs.len() - rest.len();
        let end = attrs.len() - after.len();
        walk.attribute(attr, start..end, attrs)?;
        rest = after;
    }
    let attrs = attrs.get(..attrs.len() - rest.len()).unwrap_or_default();
    walk.finish(attrs, withdrawn, nlri, body == [0; 4] && ipv4)
}

fn malformed_list() -> Notification {
    Notification::new(Code::MALFORMED_ATTRIBUTE_LIST)
}

/// Missing attributes are reported only if prefixes are announced, so that they never end a
/// session.
const MISSING: Flaw = Flaw::new(Code::MISSING_WELL_KNOWN_ATTRIBUTE, "missing");

/// The NOTIFICATION for a flaw of attribute `code` that ends the session: RFC 7606 changes when
/// that happens, not what is sent (RFC 4271 §6.3).
fn reset(code: u8, answer: Code, attrs: &[u8]) -> Notification {
    let has_data = !matches!(answer, Code::MALFORMED_ATTRIBUTE_LIST | Code::MALFORMED_AS_PATH);
    let mut rest = attrs;
    while has_data && let Some((attr, after)) = Attr::split(rest) {
        if attr.code == code {
            let octets = rest.get(..rest.len() - after.len()).unwrap_or_default();
            return Notification::with_data(answer, octets);
        }
        rest = after;
    }
    Notification::new(answer)
}

/// Withdrawn Routes, Path Attributes, NLRI.
fn split(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (len, rest) = body.split_first_chunk()?;
    let (withdrawn, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (len, rest) = rest.split_first_chunk()?;
    let (attrs, nlri) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    Some((withdrawn, attrs, nlri))
}

/// The family and the next hop of MP_REACH_NLRI; the reserved octet is ignored (RFC 4760 §3).
fn mp_reach_header(value: &[u8]) -> IResult<&[u8], (AfiSafi, &[u8])> {
    let fields = (be_u16, be_u8, length_data(be_u8), be_u8);
    map(fields, |(afi, safi, next_hop, _)| (AfiSafi { afi, safi }, next_hop)).parse(value)
}

fn prefixes<'a>(family: Family, bytes: &'a [u8], cx: &UpdateContext) -> Option<Nlri<'a>> {
    Nlri::parse(family, cx.add_path.contains(family), bytes).ok()
}

/// A set of attribute types.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CodeSet([u64; 4]);

impl CodeSet {
    fn slot(code: u8) -> (usize, u64) {
        (usize::from(code >> 6), 1 << (code & 63))
    }

    pub(super) fn contains(&self, code: u8) -> bool {
        let (word, bit) = Self::slot(code);
        self.0[word] & bit != 0
    }

    pub(super) fn insert(&mut self, code: u8) {
        let (word, bit) = Self::slot(code);
        self.0[word] |= bit;
    }

    /// The members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + use<> {
        let words = self.0;
        (0u8..4).flat_map(move |i| {
            let mut word = words[usize::from(i)];
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                word &= word.checked_sub(1)?;
                Some(i * 64 + bit as u8)
            })
        })
    }
}

/// The findings from the attributes read so far.
struct Walk<'a, 'c> {
    cx: &'c UpdateContext,
    seen: CodeSet,
    withdraw: Option<(WithdrawReason, Code)>,
    /// The attribute list ends within an attribute.
    is_list_broken: bool,
    discarded: Discarded,
    unnegotiated: Option<AfiSafi>,
    /// The UPDATE appears to announce prefixes of a family that is not negotiated.
    unread_reach: bool,
    mp_reach: Option<Reach<'a>>,
    mp_unreach: Option<Nlri<'a>>,
    next_hop: Option<Attr<'a>>,
    path: Option<PathFacts>,
    as4_path: Option<(&'a [u8], PathFacts)>,
    aggregator: Option<Asn>,
    as4_aggregator: Option<&'a [u8]>,
    canonical: Canonical<'a>,
}

impl<'a, 'c> Walk<'a, 'c> {
    fn new(cx: &'c UpdateContext) -> Self {
        Walk {
            cx,
            seen: CodeSet::default(),
            withdraw: None,
            is_list_broken: false,
            discarded: Discarded::default(),
            unnegotiated: None,
            unread_reach: false,
            mp_reach: None,
            mp_unreach: None,
            next_hop: None,
            path: None,
            as4_path: None,
            aggregator: None,
            as4_aggregator: None,
            canonical: Canonical::new(cx.four_octet_as),
        }
    }

    /// Records a reason to treat the UPDATE as withdraw; only the first is reported.
    fn withdraw(&mut self, attr: u8, Flaw { code, what }: Flaw) {
        self.withdraw.get_or_insert((WithdrawReason { attr, what }, code));
    }

    /// One attribute, at `range` of `attrs`.
    fn attribute(
        &mut self,
        attr: Attr<'a>,
        range: std::ops::Range<usize>,
        attrs: &'a [u8],
    ) -> Result<(), Notification> {
        let code = attr.code;
        if self.seen.contains(code) {
            // RFC 7606 §3 (g).
            if matches!(code, attr::MP_REACH_NLRI | attr::MP_UNREACH_NLRI) {
                return Err(malformed_list());
            }
            self.discarded.insert(code);
            return Ok(());
        }
        self.seen.insert(code);
        let wrong =
            |code| Notification::with_data(code, attrs.get(range.clone()).unwrap_or_default());
        let fate = match code {
            attr::AS_PATH => self.as_path(attr),
            attr::NEXT_HOP => {
                self.next_hop = Some(attr);
                AttrAction::Drop
            }
            attr::MP_REACH_NLRI => {
                self.mp_reach(attr).ok_or_else(|| wrong(Code::OPTIONAL_ATTRIBUTE_ERROR))?;
                AttrAction::Drop
            }
            attr::MP_UNREACH_NLRI => {
                self.mp_unreach(attr).ok_or_else(|| wrong(Code::OPTIONAL_ATTRIBUTE_ERROR))?;
                AttrAction::Drop
            }
            attr::AGGREGATOR => match rules::aggregator(attr, self.cx.four_octet_as) {
                Ok(asn) => {
                    self.aggregator = Some(asn);
                    AttrAction::Keep
                }
                Err(fate) => fate,
            },
            // RFC 6793 §4.1: a NEW speaker must not send these two, and they are not read.
            attr::AS4_PATH | attr::AS4_AGGREGATOR if self.cx.four_octet_as => AttrAction::Discard,
            attr::AS4_PATH => match rules::as4_path(attr) {
                Some(facts) => {
                    self.as4_path = Some((attr.value, facts));
                    AttrAction::Drop
                }
                None => AttrAction::Discard,
            },
            attr::AS4_AGGREGATOR => match rules::as4_aggregator(attr) {
                Ok(_) => {
                    self.as4_aggregator = Some(attr.value);
                    AttrAction::Drop
                }
                Err(fate) => fate,
            },
            _ => rules::check(attr, self.cx.peer_type),
        };
        match fate {
            AttrAction::Keep => self.canonical.keep(attr, range),
            AttrAction::Drop => {}
            AttrAction::Discard => self.discarded.insert(code),
            AttrAction::Withdraw(flaw) => self.withdraw(code, flaw),
            AttrAction::Unrecognized => return Err(wrong(Code::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE)),
        }
        Ok(())
    }

    fn as_path(&mut self, attr: Attr<'a>) -> AttrAction {
        match rules::as_path(attr, self.cx.four_octet_as) {
            Ok(facts) => {
                self.path = Some(facts);
                AttrAction::Keep
            }
            Err(flaw) => AttrAction::Withdraw(flaw),
        }
    }

    /// `None`: 3/9 (RFC 7606 §5.3). The NLRI of a family that was not negotiated are not read.
    fn mp_reach(&mut self, attr: Attr<'a>) -> Option<()> {
        let (nlri, (pair, next_hop)) = mp_reach_header(attr.value).ok()?;
        if !attr.has_right_flags() {
            return None;
        }
        let Some(family) = self.negotiated(pair) else {
            self.unread_reach = true;
            return Some(());
        };
        let nlri = prefixes(family, nlri, self.cx)?;
        let next_hop = match rules::mp_next_hop(family, next_hop, self.cx.ipv4_over_ipv6) {
            Ok(next_hop) => rules::on_link(next_hop, self.cx.interface),
            Err(BadNextHop::Length) => return None,
            Err(BadNextHop::Unusable) => {
                let code = Code::OPTIONAL_ATTRIBUTE_ERROR;
                self.withdraw(attr.code, Flaw::new(code, "unusable next hop"));
                NextHop::V4(Ipv4Addr::UNSPECIFIED)
            }
        };
        self.mp_reach = Some(Reach { next_hop, nlri });
        Some(())
    }

    /// As [`Walk::mp_reach`].
    fn mp_unreach(&mut self, attr: Attr<'a>) -> Option<()> {
        let ([high, low, safi], nlri) = attr.value.split_first_chunk()?;
        if !attr.has_right_flags() {
            return None;
        }
        let pair = AfiSafi { afi: u16::from_be_bytes([*high, *low]), safi: *safi };
        if let Some(family) = self.negotiated(pair) {
            self.mp_unreach = Some(prefixes(family, nlri, self.cx)?);
        }
        Some(())
    }

    fn negotiated(&mut self, pair: AfiSafi) -> Option<Family> {
        let family = Family::try_from(pair).ok().filter(|f| self.cx.families.contains(*f));
        if family.is_none() {
            self.unnegotiated = Some(pair);
        }
        family
    }

    /// Checks that need more than one attribute.
    fn finish(
        mut self,
        attrs: &'a [u8],
        withdrawn: Nlri<'a>,
        nlri: Nlri<'a>,
        is_empty: bool,
    ) -> Result<Update<'a>, Notification> {
        let reaches = !nlri.is_empty() || self.mp_reach.is_some_and(|r| !r.nlri.is_empty());
        let next_hop = self.classic_next_hop(nlri);
        if reaches {
            self.mandatory();
            self.path_policy();
        }
        self.merge_old_speaker();
        // RFC 7606 §5.2. Prefixes announced in a family that was not read count as reachable.
        if let Some((reason, code)) = self.withdraw
            && !reaches
            && !self.unread_reach
        {
            // The content of an attribute is not reliable if the next one cannot be found.
            return Err(if self.is_list_broken {
                malformed_list()
            } else {
                reset(reason.attr, code, attrs)
            });
        }
        let bare = withdrawn.is_empty() && nlri.is_empty() && self.unnegotiated.is_none();
        let end_of_rib = match self.mp_unreach {
            _ if is_empty => Some(Family::Ipv4),
            // Nothing but this attribute: its header of 3 or 4 octets and the family.
            Some(n) if bare && n.is_empty() && attrs.len() <= 7 => Some(n.family()),
            _ => None,
        };
        Ok(Update {
            attrs,
            withdrawn,
            mp_unreach: self.mp_unreach,
            nlri,
            next_hop,
            mp_reach: self.mp_reach,
            unnegotiated: self.unnegotiated,
            end_of_rib,
            verdict: match self.withdraw {
                None => Verdict::Accept,
                Some((reason, _)) => Verdict::TreatAsWithdraw(reason),
            },
            discarded: self.discarded,
            canonical: self.canonical,
        })
    }

    /// NEXT_HOP is ignored, whatever it holds, in an UPDATE with MP_REACH_NLRI and without classic
    /// NLRI (RFC 4760 §3).
    fn classic_next_hop(&mut self, nlri: Nlri<'_>) -> Ipv4Addr {
        let needed = !nlri.is_empty();
        match self.next_hop.map(rules::next_hop_syntax) {
            None if needed => self.withdraw(attr::NEXT_HOP, MISSING),
            Some(Err(flaw)) if needed || !self.seen.contains(attr::MP_REACH_NLRI) => {
                self.withdraw(attr::NEXT_HOP, flaw);
            }
            Some(Ok(addr)) if needed && !rules::is_usable4(addr) => {
                let code = Code::INVALID_NEXT_HOP_ATTRIBUTE;
                self.withdraw(attr::NEXT_HOP, Flaw::new(code, "unusable address"));
            }
            Some(Ok(addr)) => return addr,
            _ => {}
        }
        Ipv4Addr::UNSPECIFIED
    }

    /// RFC 7606 §3 (d).
    fn mandatory(&mut self) {
        let internal = self.cx.peer_type == PeerType::Internal;
        let local_pref = internal.then_some(attr::LOCAL_PREF);
        for code in [Some(attr::ORIGIN), Some(attr::AS_PATH), local_pref].into_iter().flatten() {
            if !self.seen.contains(code) {
                self.withdraw(code, MISSING);
            }
        }
    }

    /// What a well-formed AS_PATH must not contain.
    fn path_policy(&mut self) {
        let Some(path) = self.path else {
            return;
        };
        let malformed = |what| Flaw::new(Code::MALFORMED_AS_PATH, what);
        let external = self.cx.peer_type == PeerType::External;
        if external && self.cx.enforce_first_as && path.first != Some(self.cx.peer_asn) {
            self.withdraw(attr::AS_PATH, malformed("first AS is not the peer's"));
        }
        // RFC 9774 §3 names both attributes. AS4_PATH is present only if it was read.
        if self.cx.reject_as_sets && path.has_set {
            self.withdraw(attr::AS_PATH, malformed("AS_SET"));
        }
        if self.cx.reject_as_sets && self.as4_path.is_some_and(|(_, four)| four.has_set) {
            self.withdraw(attr::AS4_PATH, malformed("AS_SET"));
        }
    }

    /// RFC 6793 §4.2.3: what an OLD speaker passed on in AS4_PATH and AS4_AGGREGATOR.
    fn merge_old_speaker(&mut self) {
        if self.cx.four_octet_as {
            return;
        }
        if self.aggregator.is_some_and(|asn| asn != Asn::TRANS) && self.as4_aggregator.is_some() {
            // A speaker that does not know the two has aggregated since.
            return;
        }
        self.canonical.set_aggregator(self.as4_aggregator);
        let Some(path) = self.path else {
            return;
        };
        let four = self.as4_path.filter(|(_, four)| four.length <= path.length);
        if path.wide_len + four.map_or(0, |(_, four)| four.wide_len) > PATH_MAX_LEN {
            let code = Code::MALFORMED_AS_PATH;
            let flaw = Flaw::new(code, "too long with four-octet numbers");
            return self.withdraw(attr::AS_PATH, flaw);
        }
        if let Some((value, four)) = four {
            self.canonical.set_as4_path(value, path.length - four.length);
        }
    }
}
