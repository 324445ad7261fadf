//! Path attributes in canonical form: rewriting.
use std::ops::Range;

use super::as_path::push_segment;
use super::attr_table::{attr, category, flag};
use super::attrs::{Attr, AttrView, Origin};
use super::{AsSegment, SegmentKind};
use crate::types::{Asn, ClusterId, Community, ExtCommunity, LargeCommunity, RouterId};

/// Longest attribute value (RFC 4271 §4.3: the extended length has two octets).
const VALUE_MAX_LEN: usize = 65535;

/// Rewrites canonical attributes. Every method keeps the canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttrEdit {
    bytes: Vec<u8>,
}

impl AttrEdit {
    /// Starts from an existing set.
    pub fn from_view(view: AttrView<'_>) -> Self {
        // Room for the attributes that export adds: ORIGINATOR_ID, CLUSTER_LIST, one more AS.
        let mut bytes = Vec::with_capacity(view.as_bytes().len() + 24);
        bytes.extend_from_slice(view.as_bytes());
        AttrEdit { bytes }
    }

    /// Starts from ORIGIN and an empty AS_PATH, for local routes.
    pub fn originate(origin: Origin) -> Self {
        let mut edit = AttrEdit { bytes: Vec::with_capacity(32) };
        edit.set_origin(origin);
        edit.put(attr::AS_PATH, &[]);
        edit
    }

    /// The set as edited so far.
    pub fn view(&self) -> AttrView<'_> {
        AttrView::new(&self.bytes)
    }

    /// The canonical bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where an attribute is, or where it would have to be inserted (an empty range).
    fn position(&self, code: u8) -> Range<usize> {
        let mut at = 0;
        let mut rest = self.bytes.as_slice();
        while let Some((attr, after)) = Attr::split(rest) {
            let end = self.bytes.len() - after.len();
            match attr.code.cmp(&code) {
                std::cmp::Ordering::Less => (at, rest) = (end, after),
                std::cmp::Ordering::Equal => return at..end,
                std::cmp::Ordering::Greater => break,
            }
        }
        at..at
    }

    /// Sets (inserts or replaces) an attribute by raw value. Extended Length follows from the
    /// value; the caller is responsible for the value itself, and lists of communities have methods
    /// of their own. A value longer than 65535 octets has no encoding; the set is then left
    /// unchanged.
    pub fn set(&mut self, flags: u8, code: u8, value: &[u8]) {
        let Ok(len) = u16::try_from(value.len()) else {
            return;
        };
        let [high, low] = len.to_be_bytes();
        let flags = flags & flag::CATEGORY | flags & flag::PARTIAL;
        let range = self.position(code);
        if high == 0 {
            self.replace(range, &[flags, code, low], value);
        } else {
            self.replace(range, &[flags | flag::EXTENDED_LENGTH, code, high, low], value);
        }
    }

    /// Sets a known attribute, with the flags of its type.
    fn put(&mut self, code: u8, value: &[u8]) {
        self.set(category(code), code, value);
    }

    /// Replaces `range` with an attribute.
    fn replace(&mut self, range: Range<usize>, header: &[u8], value: &[u8]) {
        let (end, new) = (self.bytes.len(), header.len() + value.len());
        let rest = end - range.end;
        self.bytes.resize(end.max(range.start + new + rest), 0);
        self.bytes.copy_within(range.end..end, range.start + new);
        self.bytes.truncate(range.start + new + rest);
        let (head, tail) = self.bytes[range.start..range.start + new].split_at_mut(header.len());
        head.copy_from_slice(header);
        tail.copy_from_slice(value);
    }

    /// Removes an attribute.
    pub fn remove(&mut self, code: u8) {
        let range = self.position(code);
        if !range.is_empty() {
            self.bytes.drain(range);
        }
    }

    /// Removes attributes.
    pub fn remove_all(&mut self, codes: &[u8]) {
        codes.iter().for_each(|code| self.remove(*code));
    }

    /// Sets ORIGIN.
    pub fn set_origin(&mut self, origin: Origin) {
        self.put(attr::ORIGIN, &[origin as u8]);
    }

    /// Sets MULTI_EXIT_DISC.
    pub fn set_med(&mut self, med: u32) {
        self.put(attr::MULTI_EXIT_DISC, &med.to_be_bytes());
    }

    /// Sets LOCAL_PREF.
    pub fn set_local_pref(&mut self, local_pref: u32) {
        self.put(attr::LOCAL_PREF, &local_pref.to_be_bytes());
    }

    /// Sets ORIGINATOR_ID.
    pub fn set_originator_id(&mut self, id: RouterId) {
        self.put(attr::ORIGINATOR_ID, &id.0.to_be_bytes());
    }

    /// Sets ONLY_TO_CUSTOMER (RFC 9234).
    pub fn set_only_to_customer(&mut self, asn: Asn) {
        self.put(attr::ONLY_TO_CUSTOMER, &asn.0.to_be_bytes());
    }

    /// Prepends to CLUSTER_LIST.
    pub fn prepend_cluster(&mut self, id: ClusterId) {
        let mut value = id.0.to_be_bytes().to_vec();
        if let Some(old) = self.view().get(attr::CLUSTER_LIST) {
            value.extend_from_slice(old.value);
        }
        self.put(attr::CLUSTER_LIST, &value);
    }

    /// Prepends `asn` `count` times to AS_PATH; a full or non-sequence first segment gets a new one
    /// before it. `count` is limited to what one attribute can hold; returns how many were
    /// prepended.
    pub fn prepend_as(&mut self, asn: Asn, count: usize) -> usize {
        if count == 1 && self.prepend_in_place(asn) {
            return 1;
        }
        let path = self.view().as_path();
        // Numbers of a leading sequence move into the segment that is prepended.
        let (joined, rest) = match path.segments().next() {
            Some(s) if s.kind == SegmentKind::Sequence => {
                (s.as_bytes(), path.as_bytes().get(2 + s.as_bytes().len()..).unwrap_or_default())
            }
            _ => (&[][..], path.as_bytes()),
        };
        let room = VALUE_MAX_LEN.saturating_sub(path.as_bytes().len() + 4) / 6;
        let count = count.min(room);
        if count == 0 {
            return 0;
        }
        let free = AsSegment::MAX_COUNT.saturating_sub(joined.len() / 4);
        let into_first = count.min(free);
        let mut ahead = count - into_first;
        let numbers = |n: usize| asn.0.to_be_bytes().repeat(n);
        let mut value = Vec::with_capacity(path.as_bytes().len() + 6 * count + 2);
        // The segment in front is the partial one, so that the next prepend finds room in it.
        while ahead > 0 {
            let n = match ahead % AsSegment::MAX_COUNT {
                0 => AsSegment::MAX_COUNT,
                partial => partial,
            };
            push_segment(&mut value, SegmentKind::Sequence, &numbers(n));
            ahead -= n;
        }
        if into_first > 0 || !joined.is_empty() {
            let mut merged = numbers(into_first);
            merged.extend_from_slice(joined);
            push_segment(&mut value, SegmentKind::Sequence, &merged);
        }
        value.extend_from_slice(rest);
        self.put(attr::AS_PATH, &value);
        count
    }

    /// The usual case of [`AttrEdit::prepend_as`]: a short path whose first segment is a sequence
    /// with room. Returns whether that was the case.
    fn prepend_in_place(&mut self, asn: Asn) -> bool {
        let range = self.position(attr::AS_PATH);
        let Some([flags, _, len, kind, count, ..]) = self.bytes.get_mut(range.clone()) else {
            return false;
        };
        if *flags & flag::EXTENDED_LENGTH != 0
            || *len > u8::MAX - 4
            || *kind != SegmentKind::Sequence as u8
            || usize::from(*count) >= AsSegment::MAX_COUNT
        {
            return false;
        }
        *len += 4;
        *count += 1;
        let at = range.start + 5;
        let end = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.copy_within(at..end, at + 4);
        if let Some(number) = self.bytes.get_mut(at..at + 4) {
            number.copy_from_slice(&asn.0.to_be_bytes());
        }
        true
    }

    /// Drops AS_CONFED_* segments (leaving a confederation).
    pub fn strip_confederation(&mut self) {
        let path = self.view().as_path();
        if !path.segments().any(|s| s.kind.is_confederation()) {
            return;
        }
        let mut value = Vec::with_capacity(path.as_bytes().len());
        for segment in path.segments().filter(|s| !s.kind.is_confederation()) {
            push_segment(&mut value, segment.kind, segment.as_bytes());
        }
        self.put(attr::AS_PATH, &value);
    }

    /// Replaces COMMUNITIES (sorted, without duplicates; empty removes the attribute).
    pub fn set_communities(&mut self, list: &[Community]) {
        self.set_list(attr::COMMUNITIES, list.iter().map(|c| c.0.to_be_bytes()).collect());
    }

    /// Adds a community, unless it is there.
    pub(crate) fn add_community(&mut self, community: Community) {
        let mut list: Vec<_> = self.view().communities().collect();
        if !list.contains(&community) {
            list.push(community);
            self.set_communities(&list);
        }
    }

    /// Replaces EXTENDED COMMUNITIES, as above.
    pub fn set_ext_communities(&mut self, list: &[ExtCommunity]) {
        self.set_list(attr::EXTENDED_COMMUNITIES, list.iter().map(|c| c.0).collect());
    }

    /// Replaces LARGE_COMMUNITY, as above.
    pub fn set_large_communities(&mut self, list: &[LargeCommunity]) {
        self.set_list(attr::LARGE_COMMUNITIES, list.iter().map(|c| c.to_bytes()).collect());
    }

    /// Keeps Partial if the attribute had it: some speaker along the path did not know it.
    fn set_list<const N: usize>(&mut self, code: u8, mut list: Vec<[u8; N]>) {
        if list.is_empty() {
            return self.remove(code);
        }
        list.sort_unstable();
        list.dedup();
        let partial = self.view().get(code).map_or(0, |a| a.flags & flag::PARTIAL);
        self.set(category(code) | partial, code, list.as_flattened());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_canonical(view: AttrView<'_>) -> bool {
        let codes: Vec<u8> = view.iter().map(|a| a.code).collect();
        let mut rebuilt = Vec::new();
        view.iter().for_each(|a| a.push(&mut rebuilt));
        codes.is_sorted_by(|a, b| a < b) && rebuilt == view.as_bytes()
    }

    #[test]
    fn prepending_opens_a_new_segment_when_the_first_is_full() {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(1), 255);
        edit.prepend_as(Asn(2), 1);
        let counts =
            |e: &AttrEdit| e.view().as_path().segments().map(|s| s.count()).collect::<Vec<_>>();
        assert_eq!(counts(&edit), [1, 255]);
        edit.prepend_as(Asn(3), 600);
        assert_eq!(counts(&edit), [91, 255, 255, 255]);
        assert_eq!(edit.view().as_path().length(), 856);
        assert!(is_canonical(edit.view()));
    }

    #[test]
    fn prepending_before_a_set_does_not_join_it() {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.set(0x40, attr::AS_PATH, &[1, 1, 0, 0, 0, 9]);
        edit.prepend_as(Asn(5), 2);
        assert_eq!(edit.view().as_path().to_string(), "5 5 {9}");
    }

    #[test]
    fn a_prepend_beyond_the_attribute_is_cut_and_not_lost() {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(5), usize::MAX);
        assert!(edit.view().as_path().length() > 10_000);
        assert!(is_canonical(edit.view()));
    }

    #[test]
    fn communities_are_sorted_without_duplicates_and_keep_partial() {
        let mut edit = AttrEdit::default();
        edit.set(0xE0, attr::COMMUNITIES, &[0, 0, 0, 9]);
        edit.set_communities(&[Community(3), Community(1), Community(3)]);
        assert_eq!(edit.view().as_bytes(), [0xE0, 8, 8, 0, 0, 0, 1, 0, 0, 0, 3]);
        edit.set_communities(&[]);
        assert_eq!(edit.view().as_bytes(), []);
    }

    #[test]
    fn confederation_segments_are_removed() {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.set(0x40, attr::AS_PATH, &[3, 1, 0, 0, 0, 9, 2, 1, 0, 0, 0, 7, 4, 1, 0, 0, 0, 8]);
        edit.strip_confederation();
        assert_eq!(edit.view().as_path().to_string(), "7");
    }

    #[test]
    fn route_reflection_prepends_the_cluster() {
        let mut edit = AttrEdit::default();
        edit.prepend_cluster(ClusterId(1));
        edit.prepend_cluster(ClusterId(2));
        edit.set_originator_id(RouterId(7));
        assert_eq!(edit.view().cluster_list().collect::<Vec<_>>(), [ClusterId(2), ClusterId(1)]);
        assert_eq!(edit.view().originator_id(), Some(RouterId(7)));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Set(u8, u8, usize),
        Remove(u8),
        PrependAs(u32, usize),
        Cluster(u32),
        Communities(Vec<u32>),
        Med(u32),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (any::<u8>(), 20u8..=255, 0usize..600).prop_map(|(f, c, n)| Op::Set(f, c, n)),
            any::<u8>().prop_map(Op::Remove),
            (any::<u32>(), 0usize..300).prop_map(|(a, n)| Op::PrependAs(a, n)),
            any::<u32>().prop_map(Op::Cluster),
            proptest::collection::vec(any::<u32>(), 0..5).prop_map(Op::Communities),
            any::<u32>().prop_map(Op::Med),
        ]
    }

    proptest! {
        /// After every edit the bytes are canonical, and what was set is what is read.
        #[test]
        fn every_edit_keeps_the_canonical_form(ops in proptest::collection::vec(any_op(), 0..12)) {
            let mut edit = AttrEdit::originate(Origin::Egp);
            for op in ops {
                match op {
                    Op::Set(flags, code, n) => {
                        edit.set(flags, code, &vec![code; n]);
                        prop_assert_eq!(edit.view().get(code).map(|a| a.value.len()), Some(n));
                    }
                    Op::Remove(code) => {
                        edit.remove(code);
                        prop_assert_eq!(edit.view().get(code), None);
                    }
                    Op::PrependAs(asn, n) => {
                        let before: Vec<Asn> = edit.view().as_path().asns().collect();
                        edit.prepend_as(Asn(asn), n);
                        let mut model = vec![Asn(asn); n];
                        model.extend(before);
                        prop_assert_eq!(edit.view().as_path().asns().collect::<Vec<_>>(), model);
                    }
                    Op::Cluster(id) => {
                        edit.prepend_cluster(ClusterId(id));
                        prop_assert_eq!(edit.view().cluster_list().next(), Some(ClusterId(id)));
                    }
                    Op::Communities(list) => {
                        let list: Vec<Community> = list.into_iter().map(Community).collect();
                        edit.set_communities(&list);
                        let model: std::collections::BTreeSet<_> = list.into_iter().collect();
                        prop_assert!(edit.view().communities().eq(model));
                    }
                    Op::Med(med) => {
                        edit.set_med(med);
                        prop_assert_eq!(edit.view().med(), Some(med));
                    }
                }
                prop_assert!(is_canonical(edit.view()), "{:?}", edit);
            }
        }

        #[test]
        fn reading_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let view = AttrView::new(&bytes);
            let _ = (view.origin(), view.med(), view.local_pref(), view.aggregator());
            let _ = (view.as_path().length(), view.originator_id(), view.only_to_customer());
            let _ = (view.communities().count(), view.ext_communities().count());
            let _ = (view.large_communities().count(), view.cluster_list().count());
            let mut edit = AttrEdit::from_view(view);
            edit.prepend_as(Asn(1), 3);
            edit.remove(9);
        }
    }
}
