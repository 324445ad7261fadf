//! Capabilities (RFC 5492): the known ones decoded, the others kept as they are.
use nom::bytes::complete::take;
use nom::combinator::{all_consuming, map};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u24, be_u32};
use nom::{IResult, Parser};

use super::{Code, Notification};
use crate::types::{AfiSafi, Asn, Family, FamilySet};

/// Capability codes that margay knows (RFC 5492 registry). A peer also uses them to name what it
/// does not support (RFC 5492 §5).
pub(crate) mod cap {
    pub(crate) const MULTIPROTOCOL: u8 = 1;
    pub(crate) const ROUTE_REFRESH: u8 = 2;
    pub(crate) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(crate) const EXTENDED_MESSAGE: u8 = 6;
    pub(crate) const ROLE: u8 = 9;
    pub(crate) const GRACEFUL_RESTART: u8 = 64;
    pub(crate) const FOUR_OCTET_AS: u8 = 65;
    pub(crate) const ADD_PATH: u8 = 69;
    pub(crate) const ENHANCED_REFRESH: u8 = 70;
    pub(crate) const LONG_LIVED: u8 = 71;
    pub(crate) const BFD_STRICT: u8 = 74;
    /// Cisco's code before RFC 2918; still sent together with 2.
    pub(crate) const OLD_ROUTE_REFRESH: u8 = 128;
}

/// Longest value of one capability.
const VALUE_MAX_LEN: usize = 255;

/// ADD-PATH direction bits (RFC 7911 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddPathMode {
    /// Not at all.
    #[default]
    None,
    /// 1: able to receive.
    Receive,
    /// 2: able to send.
    Send,
    /// 3: able to do both.
    Both,
}

impl AddPathMode {
    /// The mode with this code; codes other than 1-3 are to be ignored (RFC 7911 §4).
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => AddPathMode::Receive,
            2 => AddPathMode::Send,
            3 => AddPathMode::Both,
            _ => return None,
        })
    }

    /// Able to receive several paths.
    pub const fn receives(self) -> bool {
        matches!(self, AddPathMode::Receive | AddPathMode::Both)
    }

    /// Able to send several paths.
    pub const fn sends(self) -> bool {
        matches!(self, AddPathMode::Send | AddPathMode::Both)
    }
}

/// Capability 64 (RFC 4724, RFC 8538).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the speaker has restarted.
    pub restarting: bool,
    /// N bit: NOTIFICATIONs keep routes too (RFC 8538).
    pub notification: bool,
    /// Seconds, 0-4095.
    pub restart_time_secs: u16,
    /// Families with their F bit.
    pub families: Vec<GracefulRestartFamily>,
}

/// One family of capability 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestartFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit: forwarding state was preserved.
    pub forwarding: bool,
}

/// One family of capability 71 (RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit.
    pub forwarding: bool,
    /// Long-lived stale time in seconds, 24 bits.
    pub stale_time_secs: u32,
}

impl LongLivedFamily {
    /// The longest stale time that the capability can express: about 194 days.
    pub const STALE_TIME_SECS_MAX: u32 = 0xFF_FFFF;
}

/// The capabilities of one OPEN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// 1: in order of appearance, unknown families included.
    pub multiprotocol: Vec<AfiSafi>,
    /// 2 (128 is accepted as the same on receipt).
    pub route_refresh: bool,
    /// 5: (AFI, SAFI, next-hop AFI).
    pub extended_next_hop: Vec<(AfiSafi, u16)>,
    /// 6: Extended Messages (RFC 8654).
    pub extended_message: bool,
    /// 9: the code of the role (RFC 9234).
    pub role: Option<u8>,
    /// 64: graceful restart (RFC 4724).
    pub graceful_restart: Option<GracefulRestart>,
    /// 65: four-octet AS numbers (RFC 6793).
    pub four_octet_as: Option<Asn>,
    /// 69: ADD-PATH (RFC 7911).
    pub add_path: Vec<(AfiSafi, AddPathMode)>,
    /// 70: enhanced route refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// 71. Without families: the speaker knows the communities of RFC 9494 §4.6, and keeps nothing.
    pub long_lived: Option<Vec<LongLivedFamily>>,
    /// 74 (draft-ietf-idr-bgp-bfd-strict-mode).
    pub bfd_strict: bool,
    /// Every other capability, code and value, in order of appearance; also the optional ones of
    /// wrong length, which have no effect.
    pub unknown: Vec<(u8, Vec<u8>)>,
}

impl Capabilities {
    /// The families among `multiprotocol` that margay carries; IPv4 if the capability is absent
    /// (RFC 4760 §8).
    pub fn families(&self) -> FamilySet {
        if self.multiprotocol.is_empty() {
            return FamilySet::only(Family::Ipv4);
        }
        self.multiprotocol.iter().filter_map(|pair| Family::try_from(*pair).ok()).collect()
    }

    /// The mode of one family.
    pub fn add_path_mode(&self, family: Family) -> AddPathMode {
        let pair = family.afi_safi();
        self.add_path.iter().find(|(f, _)| *f == pair).map_or(AddPathMode::None, |(_, mode)| *mode)
    }

    /// Whether IPv4 unicast may have an IPv6 next hop (RFC 8950).
    pub fn ipv4_over_ipv6(&self) -> bool {
        self.extended_next_hop.contains(&(Family::Ipv4.afi_safi(), 2))
    }

    /// Short names for display and JSON: "ipv4", "route-refresh", "four-octet-as",
    /// "add-path:ipv4:both", …
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.multiprotocol.iter().map(|f| family_name(*f)).collect();
        let mut flag = |on: bool, name: &str| names.extend(on.then(|| name.to_owned()));
        flag(self.route_refresh, "route-refresh");
        flag(self.enhanced_refresh, "enhanced-refresh");
        flag(self.extended_message, "extended-message");
        flag(self.four_octet_as.is_some(), "four-octet-as");
        if let Some(gr) = &self.graceful_restart {
            flag(true, "graceful-restart");
            flag(gr.notification, "graceful-restart:notification");
        }
        if let Some(families) = &self.long_lived {
            let name = |f: &LongLivedFamily| format!("long-lived:{}", family_name(f.family));
            names.extend(families.is_empty().then(|| "long-lived".to_owned()));
            names.extend(families.iter().map(name));
        }
        names.extend(self.bfd_strict.then(|| "bfd-strict".to_owned()));
        names.extend(self.extended_next_hop.iter().map(|(family, hop)| match hop {
            1 => format!("extended-next-hop:{}:ipv4", family_name(*family)),
            2 => format!("extended-next-hop:{}:ipv6", family_name(*family)),
            _ => format!("extended-next-hop:{}:{hop}", family_name(*family)),
        }));
        names.extend(self.add_path.iter().filter_map(|(family, mode)| {
            let mode = match mode {
                AddPathMode::None => return None,
                AddPathMode::Receive => "receive",
                AddPathMode::Send => "send",
                AddPathMode::Both => "both",
            };
            Some(format!("add-path:{}:{mode}", family_name(*family)))
        }));
        names.extend(self.role.map(|role| match role {
            0 => "role:provider".to_owned(),
            1 => "role:rs".to_owned(),
            2 => "role:rs-client".to_owned(),
            3 => "role:customer".to_owned(),
            4 => "role:peer".to_owned(),
            _ => format!("role:{role}"),
        }));
        names.extend(self.unknown.iter().map(|(code, _)| match code {
            67 => "dynamic-capability".to_owned(),
            73 => "fqdn".to_owned(),
            75 => "software-version".to_owned(),
            76 => "paths-limit".to_owned(),
            77 => "link-local-next-hop".to_owned(),
            _ => format!("capability:{code}"),
        }));
        names
    }

    /// Parses the value of one optional parameter of type 2 into `self`.
    ///
    /// Errors: 2/0 for a capability that overruns, and for a wrong length where guessing would
    /// change what the session means (1, 65, 69); 2/11 for two different roles (RFC 9234 §4.2).
    pub(super) fn decode_parameter(&mut self, value: &[u8]) -> Result<(), Notification> {
        let capabilities =
            whole(value, many0((be_u8, length_data(be_u8)))).ok_or_else(malformed)?;
        capabilities.into_iter().try_for_each(|(code, value)| self.decode_one(code, value))
    }

    fn decode_one(&mut self, code: u8, value: &[u8]) -> Result<(), Notification> {
        match (code, value) {
            (cap::MULTIPROTOCOL, _) => {
                let pair = whole(value, multiprotocol).ok_or_else(malformed)?;
                if !self.multiprotocol.contains(&pair) {
                    self.multiprotocol.push(pair);
                }
            }
            (cap::FOUR_OCTET_AS, _) => {
                self.four_octet_as = Some(Asn(whole(value, be_u32).ok_or_else(malformed)?));
            }
            (cap::ADD_PATH, _) => {
                let list = whole(value, many0((afi_safi, be_u8))).ok_or_else(malformed)?;
                for (pair, mode) in list {
                    if let Some(mode) = AddPathMode::from_code(mode) {
                        self.add_path.retain(|(family, _)| *family != pair);
                        self.add_path.push((pair, mode));
                    }
                }
            }
            (cap::ROUTE_REFRESH | cap::OLD_ROUTE_REFRESH, []) => self.route_refresh = true,
            (cap::EXTENDED_MESSAGE, []) => self.extended_message = true,
            (cap::ENHANCED_REFRESH, []) => self.enhanced_refresh = true,
            (cap::BFD_STRICT, []) => self.bfd_strict = true,
            (cap::ROLE, [role]) => match self.role {
                Some(earlier) if earlier != *role => {
                    return Err(Notification::new(Code::ROLE_MISMATCH));
                }
                _ => self.role = Some(*role),
            },
            _ => self.decode_list(code, value),
        }
        Ok(())
    }

    /// The optional capabilities that are lists: one of wrong length is kept for display only.
    fn decode_list(&mut self, code: u8, value: &[u8]) {
        let known = match code {
            cap::EXTENDED_NEXT_HOP => whole(value, many0((wide_afi_safi, be_u16))).map(|tuples| {
                for tuple in tuples.into_iter().filter_map(|(f, hop)| Some((f?, hop))) {
                    if !self.extended_next_hop.contains(&tuple) {
                        self.extended_next_hop.push(tuple);
                    }
                }
            }),
            // RFC 4724 §3: only the last instance counts.
            cap::GRACEFUL_RESTART => {
                whole(value, graceful_restart).map(|gr| self.graceful_restart = Some(gr))
            }
            cap::LONG_LIVED => {
                whole(value, many0(long_lived)).map(|families| self.long_lived = Some(families))
            }
            _ => None,
        };
        if known.is_none() && !self.unknown.iter().any(|(c, v)| *c == code && v == value) {
            self.unknown.push((code, value.to_vec()));
        }
    }

    /// Appends every capability as TLVs. Lists longer than one capability holds are cut after the
    /// last whole element.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut push = |code: u8, unit: usize, value: &[u8]| {
            let max = VALUE_MAX_LEN - VALUE_MAX_LEN.checked_rem(unit).unwrap_or(0);
            let value = value.get(..max).unwrap_or(value);
            out.extend_from_slice(&[code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
            out.extend_from_slice(value);
        };
        for pair in &self.multiprotocol {
            let [high, low] = pair.afi.to_be_bytes();
            push(cap::MULTIPROTOCOL, 4, &[high, low, 0, pair.safi]);
        }
        if self.route_refresh {
            push(cap::ROUTE_REFRESH, 1, &[]);
        }
        if !self.extended_next_hop.is_empty() {
            let tuples = self.extended_next_hop.iter().map(|(pair, hop)| {
                let ([a, b], [c, d]) = (pair.afi.to_be_bytes(), hop.to_be_bytes());
                [a, b, 0, pair.safi, c, d]
            });
            push(cap::EXTENDED_NEXT_HOP, 6, tuples.collect::<Vec<_>>().as_flattened());
        }
        if self.extended_message {
            push(cap::EXTENDED_MESSAGE, 1, &[]);
        }
        if let Some(role) = self.role {
            push(cap::ROLE, 1, &[role]);
        }
        if let Some(gr) = &self.graceful_restart {
            push(cap::GRACEFUL_RESTART, 1, &graceful_restart_value(gr));
        }
        if let Some(asn) = self.four_octet_as {
            push(cap::FOUR_OCTET_AS, 4, &asn.0.to_be_bytes());
        }
        let tuples: Vec<[u8; 4]> = self.add_path.iter().filter_map(add_path_tuple).collect();
        if !tuples.is_empty() {
            push(cap::ADD_PATH, 4, tuples.as_flattened());
        }
        if self.enhanced_refresh {
            push(cap::ENHANCED_REFRESH, 1, &[]);
        }
        if let Some(families) = &self.long_lived {
            let tuples = families.iter().map(|f| {
                let ([a, b], [_, x, y, z]) = (
                    f.family.afi.to_be_bytes(),
                    f.stale_time_secs.min(LongLivedFamily::STALE_TIME_SECS_MAX).to_be_bytes(),
                );
                [a, b, f.family.safi, u8::from(f.forwarding) << 7, x, y, z]
            });
            push(cap::LONG_LIVED, 7, tuples.collect::<Vec<_>>().as_flattened());
        }
        if self.bfd_strict {
            push(cap::BFD_STRICT, 1, &[]);
        }
        for (code, value) in &self.unknown {
            push(*code, 1, value);
        }
    }
}

fn malformed() -> Notification {
    Notification::new(Code::OPEN_MESSAGE_ERROR)
}

/// The result of a parser that must take all of `value`.
pub(super) fn whole<'a, O>(
    value: &'a [u8],
    parser: impl Parser<&'a [u8], Output = O, Error = nom::error::Error<&'a [u8]>>,
) -> Option<O> {
    all_consuming(parser).parse(value).ok().map(|(_, out)| out)
}

fn afi_safi(input: &[u8]) -> IResult<&[u8], AfiSafi> {
    map((be_u16, be_u8), |(afi, safi)| AfiSafi { afi, safi }).parse(input)
}

/// RFC 4760 §8: the octet between is reserved.
fn multiprotocol(input: &[u8]) -> IResult<&[u8], AfiSafi> {
    map((be_u16, take(1usize), be_u8), |(afi, _, safi)| AfiSafi { afi, safi }).parse(input)
}

/// RFC 8950 §4: the SAFI has two octets here. Those beyond 255 do not exist.
fn wide_afi_safi(input: &[u8]) -> IResult<&[u8], Option<AfiSafi>> {
    map((be_u16, be_u16), |(afi, safi)| Some(AfiSafi { afi, safi: u8::try_from(safi).ok()? }))
        .parse(input)
}

/// RFC 4724 §3, RFC 8538 §2.
fn graceful_restart(input: &[u8]) -> IResult<&[u8], GracefulRestart> {
    let family = map((afi_safi, be_u8), |(family, flags)| GracefulRestartFamily {
        family,
        forwarding: flags & 0x80 != 0,
    });
    map((be_u16, many0(family)), |(head, families)| GracefulRestart {
        restarting: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        restart_time_secs: head & 0x0FFF,
        families,
    })
    .parse(input)
}

fn graceful_restart_value(gr: &GracefulRestart) -> Vec<u8> {
    let head = u16::from(gr.restarting) << 15
        | u16::from(gr.notification) << 14
        | gr.restart_time_secs.min(0x0FFF);
    let mut value = head.to_be_bytes().to_vec();
    for f in gr.families.iter().take((VALUE_MAX_LEN - 2) / 4) {
        let [high, low] = f.family.afi.to_be_bytes();
        value.extend([high, low, f.family.safi, u8::from(f.forwarding) << 7]);
    }
    value
}

/// RFC 9494 §4.2.
fn long_lived(input: &[u8]) -> IResult<&[u8], LongLivedFamily> {
    map((afi_safi, be_u8, be_u24), |(family, flags, stale_time_secs)| LongLivedFamily {
        family,
        forwarding: flags & 0x80 != 0,
        stale_time_secs,
    })
    .parse(input)
}

fn add_path_tuple((pair, mode): &(AfiSafi, AddPathMode)) -> Option<[u8; 4]> {
    let code = match mode {
        AddPathMode::None => return None,
        AddPathMode::Receive => 1,
        AddPathMode::Send => 2,
        AddPathMode::Both => 3,
    };
    let [high, low] = pair.afi.to_be_bytes();
    Some([high, low, pair.safi, code])
}

fn family_name(pair: AfiSafi) -> String {
    match Family::try_from(pair) {
        Ok(family) => family.to_string(),
        Err(AfiSafi { afi, safi }) => format!("{afi}/{safi}"),
    }
}
