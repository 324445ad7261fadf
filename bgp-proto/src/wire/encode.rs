//! Writing UPDATEs: packing prefixes up to the negotiated length.
use super::as_path::AsPath;
use super::attr_table::{attr, category, flag};
use super::attrs::{Attr, AttrView};
use super::frame::{
    EXTENDED_MAX_LEN, HEADER_LEN, MAX_LEN, MessageType, begin_message, finish_message, put_u16_at,
};
use super::nlri::Nlri;
use crate::types::{Family, NextHop, PathId, Prefix};

/// Longest UPDATE that may be sent to a peer.
pub const fn max_len_for(extended_message: bool) -> usize {
    if extended_message { EXTENDED_MAX_LEN } else { MAX_LEN }
}

/// How announcements to a peer are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnnounceFormat {
    /// The family.
    pub family: Family,
    /// Two-octet peers are sent AS_TRANS and AS4_PATH / AS4_AGGREGATOR (RFC 6793).
    pub four_octet_as: bool,
    /// Prefixes carry path identifiers.
    pub add_path: bool,
    /// Longest message in octets.
    pub max_len: usize,
}

/// Where the prefixes of a message go.
#[derive(Clone, Copy, Debug)]
enum Layout<'a> {
    /// NLRI field, with NEXT_HOP among the attributes.
    Classic { attrs: AttrView<'a>, next_hop: [u8; 4] },
    /// MP_REACH_NLRI as first attribute, `attrs_len` octets of attributes after it.
    MpReach { attrs: AttrView<'a>, attrs_len: usize, next_hop: NextHop },
    /// Withdrawn Routes.
    ClassicWithdraw,
    /// MP_UNREACH_NLRI alone.
    MpUnreach,
}

/// Packs UPDATEs with one set of attributes, or withdrawals, into a buffer.
///
/// IPv4 with an IPv4 next hop goes into the classic fields; everything else into MP_REACH_NLRI
/// (first attribute, RFC 7606 §5.1) and MP_UNREACH_NLRI. Never mixes announcements and withdrawals.
/// An IPv4 next hop for IPv6 prefixes is written as an IPv4-mapped address (`::ffff:192.0.2.1`, RFC
/// 4291 §2.5.5.2), because every peer treats four octets there as an error.
#[must_use = "the last message is complete only after finish()"]
#[derive(Debug)]
pub struct UpdateWriter<'o> {
    out: &'o mut Vec<u8>,
    format: AnnounceFormat,
    layout: Layout<'o>,
    /// The message being filled.
    filling: Option<Filling>,
    messages: usize,
}

#[derive(Clone, Copy, Debug)]
struct Filling {
    /// Where it starts.
    start: usize,
    /// Where its prefixes start.
    nlri: usize,
    /// Octets of prefixes that it can hold in total.
    room: usize,
}

/// One prefix with this attribute set does not fit into one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one prefix with these attributes is longer than a message")]
pub struct TooLong;

/// Octets of an MP attribute's header while it is open: always with Extended Length.
const MP_HEADER_LEN: usize = 4;

impl<'o> UpdateWriter<'o> {
    /// Starts announcements. `attrs` is canonical; the writer adds the next hop.
    pub fn announce(
        out: &'o mut Vec<u8>,
        format: AnnounceFormat,
        attrs: AttrView<'o>,
        next_hop: NextHop,
    ) -> Self {
        let layout = match (format.family, next_hop) {
            (Family::Ipv4, NextHop::V4(addr)) => Layout::Classic { attrs, next_hop: addr.octets() },
            (Family::Ipv6, NextHop::V4(addr)) => {
                let next_hop = NextHop::V6(addr.to_ipv6_mapped());
                Layout::MpReach { attrs, attrs_len: 0, next_hop }
            }
            _ => Layout::MpReach { attrs, attrs_len: 0, next_hop },
        };
        let mut writer = UpdateWriter { out, format, layout, filling: None, messages: 0 };
        if let Layout::MpReach { attrs, attrs_len, .. } = &mut writer.layout {
            *attrs_len = if format.four_octet_as {
                attrs.as_bytes().len()
            } else {
                let mut measured = Vec::with_capacity(attrs.as_bytes().len());
                push_attrs_two_octet(&mut measured, *attrs, None);
                measured.len()
            };
        }
        writer
    }

    /// Starts withdrawals.
    pub fn withdraw(out: &'o mut Vec<u8>, format: AnnounceFormat) -> Self {
        let layout = match format.family {
            Family::Ipv4 => Layout::ClassicWithdraw,
            Family::Ipv6 => Layout::MpUnreach,
        };
        UpdateWriter { out, format, layout, filling: None, messages: 0 }
    }

    /// Adds one prefix, starting a new message when the current one is full. After an error nothing
    /// was written for this prefix and others may follow. A prefix of another family than the
    /// format's is an error of the caller and is refused in the same way.
    #[inline(always)]
    pub fn push(&mut self, path_id: PathId, prefix: Prefix) -> Result<(), TooLong> {
        debug_assert_eq!(prefix.family(), self.format.family);
        if prefix.family() != self.format.family {
            return Err(TooLong);
        }
        let len = Nlri::encoded_len(self.format.add_path, prefix);
        if self.filling.is_none_or(|open| self.out.len() - open.nlri + len > open.room) {
            self.make_room(len)?;
        }
        Nlri::push(self.out, self.format.add_path.then_some(path_id), prefix);
        Ok(())
    }

    /// Completes a message that has no room for `len` more octets, and begins one that has.
    fn make_room(&mut self, len: usize) -> Result<(), TooLong> {
        if let Some(filling) = self.filling {
            // Every message starts with the same octets, so the open one shows whether an empty one
            // has room.
            if len > filling.room {
                return Err(TooLong);
            }
            self.complete();
        }
        let filling = self.begin();
        if len > filling.room {
            self.out.truncate(filling.start);
            return Err(TooLong);
        }
        self.filling = Some(filling);
        Ok(())
    }

    /// Completes the last message; returns how many messages were written in all. Message
    /// boundaries are found in the output by the length fields: [`split_messages`].
    pub fn finish(mut self) -> usize {
        self.complete();
        self.messages
    }

    /// Octets in the output buffer, those of the open message included.
    pub fn octets(&self) -> usize {
        self.out.len()
    }

    fn max_len(&self) -> usize {
        self.format.max_len.min(EXTENDED_MAX_LEN)
    }

    /// Octets of prefixes that fit between what [`UpdateWriter::begin`] wrote and what
    /// [`UpdateWriter::complete`] will write.
    fn room(&self, start: usize, nlri: usize) -> usize {
        let (trailer, mp) = match self.layout {
            Layout::Classic { .. } => (0, false),
            Layout::ClassicWithdraw => (2, false),
            Layout::MpReach { attrs_len, .. } => (attrs_len, true),
            Layout::MpUnreach => (0, true),
        };
        let others = nlri - start + trailer;
        let room = self.max_len().saturating_sub(others);
        if !mp {
            return room;
        }
        // The MP attribute is open with Extended Length and shrinks by an octet if its value needs
        // none, because RFC 4271 §4.3 allows it for longer values only.
        let if_short = (self.max_len() + 1).saturating_sub(others);
        let short_max = 255usize.saturating_sub(nlri - mp_value_start(start));
        room.max(if_short.min(short_max))
    }

    /// Writes everything before the prefixes.
    fn begin(&mut self) -> Filling {
        let out = &mut *self.out;
        let start = begin_message(out, MessageType::Update);
        out.extend_from_slice(&[0, 0]);
        let pair = self.format.family.afi_safi();
        let [afi_high, afi_low] = pair.afi.to_be_bytes();
        match self.layout {
            Layout::Classic { attrs, next_hop } => {
                out.extend_from_slice(&[0, 0]);
                let attrs_start = out.len();
                push_attrs(out, attrs, Some(next_hop), self.format.four_octet_as);
                let len = out.len() - attrs_start;
                put_u16_at(out, attrs_start - 2, len);
            }
            Layout::ClassicWithdraw => {}
            Layout::MpReach { next_hop, .. } => {
                let flags = flag::OPTIONAL | flag::EXTENDED_LENGTH;
                out.extend_from_slice(&[0, 0, flags, attr::MP_REACH_NLRI, 0, 0]);
                out.extend_from_slice(&[afi_high, afi_low, pair.safi]);
                match next_hop {
                    NextHop::V4(addr) => {
                        out.push(4);
                        out.extend_from_slice(&addr.octets());
                    }
                    NextHop::V6(addr) => {
                        out.push(16);
                        out.extend_from_slice(&addr.octets());
                    }
                    NextHop::V6Both { global, link_local } => {
                        out.push(32);
                        out.extend_from_slice(&global.octets());
                        out.extend_from_slice(&link_local.octets());
                    }
                }
                out.push(0);
            }
            Layout::MpUnreach => {
                let flags = flag::OPTIONAL | flag::EXTENDED_LENGTH;
                out.extend_from_slice(&[0, 0, flags, attr::MP_UNREACH_NLRI, 0, 0]);
                out.extend_from_slice(&[afi_high, afi_low, pair.safi]);
            }
        }
        let nlri = out.len();
        Filling { start, nlri, room: self.room(start, nlri) }
    }

    /// Writes everything after the prefixes and fills in the lengths.
    fn complete(&mut self) {
        let Some(filling) = self.filling.take() else {
            return;
        };
        let body = filling.start + HEADER_LEN;
        match self.layout {
            Layout::Classic { .. } => {}
            Layout::ClassicWithdraw => {
                let len = self.out.len() - filling.nlri;
                put_u16_at(self.out, body, len);
                self.out.extend_from_slice(&[0, 0]);
            }
            Layout::MpReach { attrs, .. } => {
                self.close_mp(filling);
                push_attrs(self.out, attrs, None, self.format.four_octet_as);
                let len = self.out.len() - (body + 4);
                put_u16_at(self.out, body + 2, len);
            }
            Layout::MpUnreach => {
                self.close_mp(filling);
                let len = self.out.len() - (body + 4);
                put_u16_at(self.out, body + 2, len);
            }
        }
        finish_message(self.out, filling.start);
        self.messages += 1;
    }

    /// Writes the MP attribute's length, in one octet if that is enough.
    fn close_mp(&mut self, filling: Filling) {
        let value = mp_value_start(filling.start);
        let len = self.out.len() - value;
        match u8::try_from(len) {
            Ok(short) => {
                if let Some(header) = self.out.get_mut(value - MP_HEADER_LEN..value - 1) {
                    header[0] &= !flag::EXTENDED_LENGTH;
                    header[2] = short;
                }
                self.out.remove(value - 1);
            }
            Err(_) => put_u16_at(self.out, value - 2, len),
        }
    }
}

/// Where the value of the MP attribute starts in a message that starts at `start`: after header,
/// Withdrawn Routes Length, Total Path Attribute Length and the attribute's own header.
const fn mp_value_start(start: usize) -> usize {
    start + HEADER_LEN + 4 + MP_HEADER_LEN
}

/// Appends canonical attributes as they are sent, with NEXT_HOP in its place.
fn push_attrs(
    out: &mut Vec<u8>,
    attrs: AttrView<'_>,
    next_hop: Option<[u8; 4]>,
    four_octet_as: bool,
) {
    let next_hop = next_hop.as_ref().map(|value| Attr {
        flags: category(attr::NEXT_HOP),
        code: attr::NEXT_HOP,
        value,
    });
    if !four_octet_as {
        return push_attrs_two_octet(out, attrs, next_hop);
    }
    let Some(next_hop) = next_hop else {
        return out.extend_from_slice(attrs.as_bytes());
    };
    let mut rest = attrs.as_bytes();
    while let Some((attr, after)) = Attr::split(rest)
        && attr.code < attr::NEXT_HOP
    {
        rest = after;
    }
    let (head, tail) = attrs.as_bytes().split_at(attrs.as_bytes().len() - rest.len());
    out.extend_from_slice(head);
    next_hop.push(out);
    out.extend_from_slice(tail);
}

/// For an OLD speaker (RFC 6793 §4.2.2): numbers that do not fit become AS_TRANS, and the real ones
/// follow in AS4_PATH and AS4_AGGREGATOR.
fn push_attrs_two_octet(out: &mut Vec<u8>, attrs: AttrView<'_>, next_hop: Option<Attr<'_>>) {
    let path = attrs.as_path();
    let as4_path = path.asns().any(|a| !a.fits_two_octets()).then(|| four_octet_path(path));
    let as4_path = as4_path.as_ref().map(|value| Attr {
        flags: category(attr::AS4_PATH),
        code: attr::AS4_PATH,
        value,
    });
    let aggregator = attrs.aggregator().filter(|(asn, _)| !asn.fits_two_octets());
    let as4_aggregator = aggregator
        .and(attrs.get(attr::AGGREGATOR))
        .map(|a| Attr { code: attr::AS4_AGGREGATOR, ..a });
    let mut extra = [next_hop, as4_path, as4_aggregator].into_iter().flatten().peekable();
    for attr in attrs.iter() {
        while let Some(own) = extra.next_if(|own| own.code < attr.code) {
            own.push(out);
        }
        match attr.code {
            attr::AS_PATH => {
                let value = two_octet_path(path);
                Attr { value: &value, ..attr }.push(out);
            }
            attr::AGGREGATOR => match attrs.aggregator() {
                Some((asn, addr)) => {
                    let ([a, b], [c, d, e, f]) = (asn.two_octets(), addr.octets());
                    Attr { value: &[a, b, c, d, e, f], ..attr }.push(out);
                }
                None => attr.push(out),
            },
            _ => attr.push(out),
        }
    }
    extra.for_each(|own| own.push(out));
}

fn two_octet_path(path: AsPath<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.as_bytes().len() / 2 + 2);
    for segment in path.segments() {
        out.push(segment.kind as u8);
        out.push(u8::try_from(segment.count()).unwrap_or(u8::MAX));
        segment.iter().for_each(|asn| out.extend_from_slice(&asn.two_octets()));
    }
    out
}

/// AS4_PATH holds no confederation segments (RFC 6793 §3).
fn four_octet_path(path: AsPath<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.as_bytes().len());
    for segment in path.segments().filter(|s| !s.kind.is_confederation()) {
        super::as_path::push_segment(&mut out, segment.kind, segment.as_bytes());
    }
    out
}

/// The messages in a buffer of complete messages, such as [`UpdateWriter`] and the other encoders
/// write. Ends early where the bytes are not messages.
pub fn split_messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [high, low] = *rest.get(16..18)?.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (message, after) = rest.split_at_checked(len.max(HEADER_LEN))?;
        rest = after;
        Some(message)
    })
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin_message(out, MessageType::Keepalive);
    finish_message(out, start);
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn encode_end_of_rib(out: &mut Vec<u8>, family: Family) {
    let start = begin_message(out, MessageType::Update);
    match family {
        Family::Ipv4 => out.extend_from_slice(&[0, 0, 0, 0]),
        Family::Ipv6 => {
            let pair = family.afi_safi();
            let [high, low] = pair.afi.to_be_bytes();
            let flags = flag::OPTIONAL;
            out.extend_from_slice(&[
                0,
                0,
                0,
                6,
                flags,
                attr::MP_UNREACH_NLRI,
                3,
                high,
                low,
                pair.safi,
            ]);
        }
    }
    finish_message(out, start);
}

#[cfg(test)]
mod tests;
