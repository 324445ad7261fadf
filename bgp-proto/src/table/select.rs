//! Selecting routes for a view: by prefix, peer, source, attributes, usability.

use std::fmt;
use std::str::FromStr;

use super::show::limit_u32;
use super::{PathView, RouteFilter, Table};
use crate::rib::{DestId, Path};
use crate::types::{
    Asn, Community, ExtCommunity, Family, LargeCommunity, ParseError, PeerId, Prefix, Source,
};
use crate::wire::{AsPath, AttrView};

/// Maximum number of paths examined in one call of [`Table::prefixes`], apart from those of the last
/// destination. A destination that is not examined counts as one path.
const LOOKED_AT_MAX: u32 = 1 << 14;
/// The same if what was advertised to a peer has to be found for each destination.
const LOOKED_AT_MAX_ADVERTISED: u32 = 1 << 10;
/// Longest pattern of an AS_PATH, in elements.
const PATTERN_LEN_MAX: usize = 64;

/// A community of any of the three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyCommunity {
    /// RFC 1997.
    Standard(Community),
    /// RFC 8092.
    Large(LargeCommunity),
    /// RFC 4360.
    Extended(ExtCommunity),
}

impl FromStr for AnyCommunity {
    type Err = ParseError;

    /// Parses `64512:100`, a well-known name, `64512:1:2`, or an extended community.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(community) = text.parse() {
            return Ok(AnyCommunity::Standard(community));
        }
        if let Ok(community) = text.parse() {
            return Ok(AnyCommunity::Large(community));
        }
        let extended = text.parse().map(AnyCommunity::Extended);
        extended.map_err(|_: ParseError| {
            ParseError(format!(
                "\"{text}\" is not a community: write 64512:100, a well-known name such as \
                 no-export, 64512:1:2, or rt:64512:100"
            ))
        })
    }
}

/// A pattern of an AS_PATH: AS numbers, `?` for any one, `*` for any number of them, separated by
/// spaces. It describes the whole path; members of an AS_SET count one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsPathPattern(Vec<Element>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Asn(Asn),
    One,
    Any,
}

impl FromStr for AsPathPattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let element = |word: &str| {
            match word {
            "*" => Ok(Element::Any),
            "?" => Ok(Element::One),
            word => word.parse().map(Element::Asn).map_err(|_| {
                ParseError(format!(
                    "\"{word}\" is no part of an AS path: write AS numbers, ? for any one and * for \
                     any number of them, such as \"65001 * 3356\""
                ))
            }),
        }
        };
        let mut elements = text.split_whitespace().map(element).collect::<Result<Vec<_>, _>>()?;
        if elements.len() > PATTERN_LEN_MAX {
            return Err(ParseError(format!("more than {PATTERN_LEN_MAX} elements")));
        }
        elements.dedup_by(|a, b| (*a, *b) == (Element::Any, Element::Any));
        Ok(AsPathPattern(elements))
    }
}

impl fmt::Display for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, element) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { " " } else { "" })?;
            match element {
                Element::Asn(asn) => write!(f, "{asn}")?,
                Element::One => f.write_str("?")?,
                Element::Any => f.write_str("*")?,
            }
        }
        Ok(())
    }
}

impl AsPathPattern {
    /// Whether the pattern describes the path. The time is bounded by the product of both lengths.
    pub fn matches(&self, path: AsPath<'_>) -> bool {
        // Where the pattern may stand after the AS numbers so far: bit n is before element n.
        const _: () = assert!(PATTERN_LEN_MAX < 128);
        let skip = |mut at: u128| {
            for (index, element) in self.0.iter().enumerate() {
                if *element == Element::Any && at & (1 << index) != 0 {
                    at |= 1 << (index + 1);
                }
            }
            at
        };
        let mut at = skip(1);
        for asn in path.asns() {
            let mut next = 0;
            for (index, element) in self.0.iter().enumerate() {
                if at & (1 << index) == 0 {
                    continue;
                }
                next |= match element {
                    Element::Any => 1 << index,
                    Element::Asn(wanted) if *wanted != asn => 0,
                    Element::One | Element::Asn(_) => 1 << (index + 1),
                };
            }
            at = skip(next);
            if at == 0 {
                return false;
            }
        }
        at & (1 << self.0.len()) != 0
    }
}

/// Prefixes that match a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixPage {
    /// In storage order.
    pub prefixes: Vec<Prefix>,
    /// Number of their paths that match.
    pub paths: u64,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u32>,
}

impl RouteFilter {
    /// Whether a prefix is among those of [`RouteFilter::within`], [`RouteFilter::after`] and
    /// [`RouteFilter::up_to`].
    pub fn is_within(&self, prefix: Prefix) -> bool {
        self.within.is_none_or(|wide| wide.contains(prefix))
            && self.after.is_none_or(|after| prefix > after)
            && self.up_to.is_none_or(|last| prefix <= last)
    }

    fn matches_attrs(&self, attrs: AttrView<'_>) -> bool {
        let has = |wanted: &AnyCommunity| match wanted {
            AnyCommunity::Standard(wanted) => attrs.communities().any(|c| c == *wanted),
            AnyCommunity::Large(wanted) => attrs.large_communities().any(|c| c == *wanted),
            AnyCommunity::Extended(wanted) => attrs.ext_communities().any(|c| c == *wanted),
        };
        self.community.as_ref().is_none_or(has)
            && self.as_path.as_ref().is_none_or(|wanted| wanted.matches(attrs.as_path()))
    }

    fn is_from(&self, peer: Option<PeerId>, source: Source) -> bool {
        self.received_from.is_none_or(|wanted| peer == Some(wanted))
            && self.source.is_none_or(|wanted| source == wanted)
    }

    /// Whether a path matches, in the form in which a view shows it. [`RouteFilter::advertised_to`] and
    /// what is said of prefixes does not count.
    pub fn matches(&self, path: &PathView) -> bool {
        self.is_from(path.peer, path.source)
            && !(self.hides_refused && path.unusable.is_some_and(|why| why.is_refusal()))
            && (!self.unusable || path.unusable.is_some())
            && self.matches_attrs(AttrView::new(&path.attrs))
    }
}

impl Table {
    /// The prefixes that match from `cursor` on (0 to begin). The number of paths that one call
    /// examines is bounded.
    pub fn prefixes(&self, filter: &RouteFilter, cursor: u32) -> PrefixPage {
        let mut page = PrefixPage::default();
        let most = match filter.advertised_to {
            Some(_) => LOOKED_AT_MAX_ADVERTISED,
            None => LOOKED_AT_MAX,
        };
        page.next = self.each_dest(filter, cursor, most, |family, dest| {
            let prefix = self.loc_rib.dests(family).prefix(dest);
            if !filter.is_within(prefix) {
                return 1;
            }
            let held = self.loc_rib.dests(family).paths(dest);
            let paths = match filter.advertised_to {
                Some(peer) => self.advertised_matching(filter, peer, family, dest),
                None => held.iter().filter(|path| self.path_matches(filter, path)).count(),
            };
            if paths > 0 {
                page.prefixes.push(prefix);
                page.paths += paths as u64;
            }
            limit_u32(held.len())
        });
        page
    }

    /// [`RouteFilter::matches`] for a path as it is stored. Building a view costs much more.
    pub(super) fn path_matches(&self, filter: &RouteFilter, path: &Path) -> bool {
        filter.is_from(path.source.peer(), path.source.source())
            && !(filter.hides_refused && path.flags.refusal().is_some())
            && (!filter.unusable || self.why_unusable(path).is_some())
            && filter.matches_attrs(self.loc_rib.attrs.view(path.attrs))
    }

    /// How many of the paths advertised to a peer match, as [`RouteFilter::matches`] says of their
    /// views. Reflection adds neither communities nor AS numbers.
    fn advertised_matching(
        &self,
        filter: &RouteFilter,
        peer: PeerId,
        family: Family,
        dest: DestId,
    ) -> usize {
        let held = self.loc_rib.dests(family).paths(dest);
        let asks_for_use = filter.hides_refused || filter.unusable;
        let sent = self.advertised_to_peer(peer, family, dest).into_iter();
        let matching = sent.filter(|(sent, _)| {
            let out = self.adj_ribs_out.exported.get(sent.out);
            let source = out.except.source;
            let behind = held.iter().find(|path| asks_for_use && path.source == source);
            let unusable = behind.and_then(|path| self.why_unusable(path));
            filter.is_from(source.peer(), source.source())
                && !(filter.hides_refused && unusable.is_some_and(|why| why.is_refusal()))
                && (!filter.unusable || unusable.is_some())
                && filter.matches_attrs(self.loc_rib.attrs.view(out.attrs))
        });
        matching.count()
    }

    /// Calls `each`, which returns how many paths it examined, for destinations until these are
    /// `most` paths; returns where to continue.
    fn each_dest(
        &self,
        filter: &RouteFilter,
        cursor: u32,
        most: u32,
        mut each: impl FnMut(Family, DestId) -> u32,
    ) -> Option<u32> {
        let wanted = filter.family.or(filter.within.map(Prefix::family));
        let (mut family, mut at) = super::show::of_cursor(cursor);
        let mut left = most;
        loop {
            let dests = self.loc_rib.dests(family);
            while wanted.is_none_or(|wanted| wanted == family) && at < dests.slots() {
                if left == 0 {
                    return Some(super::show::cursor(family, at));
                }
                let examined = if dests.is_live(DestId(at)) { each(family, DestId(at)) } else { 1 };
                left = left.saturating_sub(examined.max(1));
                at += 1;
            }
            if family == Family::Ipv6 {
                return None;
            }
            (family, at) = (Family::Ipv6, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_describe_whole_paths() {
        // One AS_SEQUENCE of three.
        let octets: Vec<u8> = [2, 3]
            .into_iter()
            .chain([65001_u32, 7, 3356].into_iter().flat_map(u32::to_be_bytes))
            .collect();
        let path = AsPath::new(&octets);
        let matches = |text: &str| text.parse::<AsPathPattern>().unwrap().matches(path);
        for yes in [
            "65001 7 3356",
            "*",
            "65001 *",
            "* 3356",
            "* 7 *",
            "? ? ?",
            "65001 ? 3356",
            "* * 3356 *",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["", "65001", "7 *", "? ?", "65001 3356", "* 7", "* 8 *", "? ? ? ?"] {
            assert!(!matches(no), "{no}");
        }
        let longest = format!("*{}", " ?".repeat(PATTERN_LEN_MAX - 1));
        assert!(!matches(&longest), "63 AS numbers at least");
        assert!("? ".repeat(65).parse::<AsPathPattern>().is_err());
        let empty = AsPath::new(&[]);
        assert!("".parse::<AsPathPattern>().unwrap().matches(empty), "of our own AS");
        assert!("*".parse::<AsPathPattern>().unwrap().matches(empty));
        assert!("65001 x".parse::<AsPathPattern>().is_err());
        assert_eq!("1 * *  2".parse::<AsPathPattern>().unwrap().to_string(), "1 * 2");
    }

    #[test]
    fn communities_are_read_in_every_form() {
        let is = |text: &str| text.parse::<AnyCommunity>().unwrap();
        assert_eq!(is("no-export"), AnyCommunity::Standard(Community::NO_EXPORT));
        assert_eq!(is("64512:7"), AnyCommunity::Standard(Community(0xFC00_0007)));
        assert!(matches!(is("64512:1:2"), AnyCommunity::Large(_)));
        assert!("x".parse::<AnyCommunity>().is_err());
    }
}
