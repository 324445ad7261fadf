//! The BFD Control packet, RFC 5880 §4.1, and the checks of §6.8.6 that need no session.

use std::fmt;
use std::time::Duration;

use super::{AuthSection, Discriminator};

/// The only protocol version.
pub const VERSION: u8 = 1;
/// Octets of the mandatory section.
pub const HEADER_LEN: usize = 24;
/// The longest packet that the Length field can describe.
pub const PACKET_LEN_MAX: usize = 255;

/// The shortest packet with an authentication section, RFC 5880 §6.8.6.
const AUTHENTICATED_LEN_MIN: usize = 26;

/// State of a session, RFC 5880 §6.2. The numbers are those of the Sta field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Taken down by the operator.
    AdminDown = 0,
    /// Down, or just created.
    Down = 1,
    /// Packets are received from the peer, which receives none from us yet.
    Init = 2,
    /// Both ends receive each other's packets.
    Up = 3,
}

impl State {
    /// Every state, in the order of the Sta field.
    pub const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];

    fn from_bits(bits: u8) -> State {
        match bits & 0b11 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        })
    }
}

/// Diagnostic code, RFC 5880 §4.1: why the session last left Up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diag(u8);

impl Diag {
    /// No diagnostic.
    pub const NONE: Diag = Diag(0);
    /// No packet arrived within the detection time.
    pub const DETECTION_TIME_EXPIRED: Diag = Diag(1);
    /// The peer left Up.
    pub const NEIGHBOR_SIGNALED_DOWN: Diag = Diag(3);
    /// Taken down by the operator.
    pub const ADMINISTRATIVELY_DOWN: Diag = Diag(7);

    /// The code, 0-31.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The name in RFC 5880 §4.1; `None` for reserved codes.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            _ => return None,
        })
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "diagnostic {}", self.0),
        }
    }
}

/// The six flag bits of the second octet.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// P: asks for a packet with F.
    pub const POLL: Flags = Flags(0x20);
    /// F: answers P.
    pub const FINAL: Flags = Flags(0x10);
    /// C: the sender's BFD does not share fate with its control plane.
    pub const CONTROL_PLANE_INDEPENDENT: Flags = Flags(0x08);
    /// A: an authentication section follows.
    pub const AUTHENTICATED: Flags = Flags(0x04);
    /// D: the sender asks that we stop sending periodically once both ends are Up.
    pub const DEMAND: Flags = Flags(0x02);
    /// M: reserved for point-to-multipoint extensions, RFC 5880 §4.1.
    pub const MULTIPOINT: Flags = Flags(0x01);

    const MASK: u8 = 0x3f;

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and `other`.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These flags without `other`.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: String =
            [(0x20, 'P'), (0x10, 'F'), (0x08, 'C'), (0x04, 'A'), (0x02, 'D'), (0x01, 'M')]
                .into_iter()
                .filter_map(|(bit, letter)| (self.0 & bit != 0).then_some(letter))
                .collect();
        f.write_str(if letters.is_empty() { "-" } else { &letters })
    }
}

/// The mandatory section of a BFD Control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left Up.
    pub diag: Diag,
    /// The sender's state.
    pub state: State,
    /// The flag bits.
    pub flags: Flags,
    /// Detection time multiplier of the sender, 1-255.
    pub detect_mult: u8,
    /// The sender's discriminator.
    pub my_discr: Discriminator,
    /// Our discriminator as the sender received it; `None` (zero in the packet) if it has not.
    pub your_discr: Option<Discriminator>,
    /// Shortest interval at which the sender would like to send, without jitter.
    pub desired_min_tx: Duration,
    /// Shortest interval at which the sender can receive; zero: it wants no periodic packets.
    pub required_min_rx: Duration,
    /// Shortest interval between Echo packets that the sender can receive; zero: it supports none.
    pub required_min_echo_rx: Duration,
}

/// Why a received packet is dropped. Every drop has exactly one reason, the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// TTL or hop limit is not 255 on a single hop (RFC 5881 §5), or below the configured one.
    Ttl,
    /// Fewer octets than the mandatory section.
    TooShort,
    /// A version other than 1.
    Version,
    /// The Length field is below the minimum or beyond the datagram.
    Length,
    /// Detect Mult is zero.
    DetectMult,
    /// The M bit is set.
    Multipoint,
    /// My Discriminator is zero.
    MyDiscriminator,
    /// Your Discriminator is zero although the sender's state is Init or Up, or ours is Up over
    /// several hops and nothing else proves who sent it.
    YourDiscriminator,
    /// No session has Your Discriminator or, if that is zero, none is with that neighbour.
    NoSession,
    /// The discriminator is that of a session with another neighbour.
    Source,
    /// The A bit is set and the session has no authentication, or the reverse.
    AuthPresence,
    /// The authentication section is of another type than configured, or of a wrong length.
    AuthSection,
    /// The key ID is not configured.
    AuthKeyId,
    /// Password or digest is wrong.
    AuthDigest,
    /// The sequence number is outside the window: a replay, or a peer that restarted.
    AuthSequence,
    /// Our session is AdminDown.
    AdminDown,
    /// A packet that the neighbour sent later was accepted before this one.
    Overtaken,
}

impl Discard {
    /// Every reason.
    pub const ALL: [Discard; 17] = [
        Discard::Ttl,
        Discard::TooShort,
        Discard::Version,
        Discard::Length,
        Discard::DetectMult,
        Discard::Multipoint,
        Discard::MyDiscriminator,
        Discard::YourDiscriminator,
        Discard::NoSession,
        Discard::Source,
        Discard::AuthPresence,
        Discard::AuthSection,
        Discard::AuthKeyId,
        Discard::AuthDigest,
        Discard::AuthSequence,
        Discard::AdminDown,
        Discard::Overtaken,
    ];

    /// A short name for metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Discard::Ttl => "ttl",
            Discard::TooShort => "too-short",
            Discard::Version => "version",
            Discard::Length => "length",
            Discard::DetectMult => "detect-mult",
            Discard::Multipoint => "multipoint",
            Discard::MyDiscriminator => "my-discriminator",
            Discard::YourDiscriminator => "your-discriminator",
            Discard::NoSession => "no-session",
            Discard::Source => "source",
            Discard::AuthPresence => "auth-presence",
            Discard::AuthSection => "auth-section",
            Discard::AuthKeyId => "auth-key-id",
            Discard::AuthDigest => "auth-digest",
            Discard::AuthSequence => "auth-sequence",
            Discard::AdminDown => "admin-down",
            Discard::Overtaken => "overtaken",
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A received packet, with the octets that authentication covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The mandatory section.
    pub packet: Packet,
    /// The authentication section; `None` if the A bit is clear.
    pub auth: Option<AuthSection<'a>>,
    /// The whole packet, as long as its Length field says.
    pub octets: &'a [u8],
}

impl<'a> Received<'a> {
    /// Decodes the payload of a UDP datagram. Octets beyond the Length field are ignored.
    ///
    /// # Errors
    /// The first check of RFC 5880 §6.8.6 that fails.
    pub fn decode(datagram: &'a [u8]) -> Result<Received<'a>, Discard> {
        let header: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or(Discard::TooShort)?;
        if header[0] >> 5 != VERSION {
            return Err(Discard::Version);
        }
        let flags = Flags(header[1] & Flags::MASK);
        let authenticated = flags.contains(Flags::AUTHENTICATED);
        let len = usize::from(header[3]);
        if len < if authenticated { AUTHENTICATED_LEN_MIN } else { HEADER_LEN } {
            return Err(Discard::Length);
        }
        let octets = datagram.get(..len).ok_or(Discard::Length)?;
        if header[2] == 0 {
            return Err(Discard::DetectMult);
        }
        if flags.contains(Flags::MULTIPOINT) {
            return Err(Discard::Multipoint);
        }
        let my_discr = Discriminator::new(word(header, 4)).ok_or(Discard::MyDiscriminator)?;
        let your_discr = Discriminator::new(word(header, 8));
        let state = State::from_bits(header[1] >> 6);
        if your_discr.is_none() && !matches!(state, State::Down | State::AdminDown) {
            return Err(Discard::YourDiscriminator);
        }
        let packet = Packet {
            diag: Diag(header[0] & 0x1f),
            state,
            flags,
            detect_mult: header[2],
            my_discr,
            your_discr,
            desired_min_tx: Duration::from_micros(word(header, 12).into()),
            required_min_rx: Duration::from_micros(word(header, 16).into()),
            required_min_echo_rx: Duration::from_micros(word(header, 20).into()),
        };
        let auth = if authenticated {
            let section = octets.get(HEADER_LEN..).unwrap_or_default();
            Some(AuthSection::decode(section).ok_or(Discard::AuthSection)?)
        } else {
            None
        };
        Ok(Received { packet, auth, octets })
    }
}

impl Packet {
    /// Appends the mandatory section. `auth_len` is the length of the authentication section that
    /// the caller appends after it; the A bit is set unless it is 0.
    ///
    /// Intervals longer than 2^32-1 µs are encoded as 2^32-1 µs.
    pub fn encode(&self, auth_len: u8, out: &mut Vec<u8>) {
        let flags = if auth_len == 0 {
            self.flags.without(Flags::AUTHENTICATED)
        } else {
            self.flags.with(Flags::AUTHENTICATED)
        };
        out.push(VERSION << 5 | self.diag.0 & 0x1f);
        out.push((self.state as u8) << 6 | flags.0);
        out.push(self.detect_mult);
        out.push((HEADER_LEN as u8).saturating_add(auth_len));
        out.extend(self.my_discr.get().to_be_bytes());
        out.extend(self.your_discr.map_or(0, Discriminator::get).to_be_bytes());
        for interval in [self.desired_min_tx, self.required_min_rx, self.required_min_echo_rx] {
            let micros = u32::try_from(interval.as_micros()).unwrap_or(u32::MAX);
            out.extend(micros.to_be_bytes());
        }
    }
}

fn word(header: &[u8; HEADER_LEN], at: usize) -> u32 {
    header
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |octets| u32::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Down, Detect Mult 3, 1 s and 300 ms.
    const DOWN: [u8; 24] = [
        0x20, 0x40, 0x03, 0x18, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 0x00, 0x0f, 0x42, 0x40, 0x00,
        0x04, 0x93, 0xe0, 0, 0, 0, 0,
    ];

    fn changed(at: usize, to: u8) -> [u8; 24] {
        let mut octets = DOWN;
        octets[at] = to;
        octets
    }

    #[test]
    fn a_packet_is_read_field_by_field() {
        let received = Received::decode(&DOWN).unwrap();
        let expected = Packet {
            diag: Diag::NONE,
            state: State::Down,
            flags: Flags::NONE,
            detect_mult: 3,
            my_discr: Discriminator::new(0x1234_5678).unwrap(),
            your_discr: None,
            desired_min_tx: Duration::from_secs(1),
            required_min_rx: Duration::from_millis(300),
            required_min_echo_rx: Duration::ZERO,
        };
        assert_eq!(received.packet, expected);
        assert_eq!((received.auth, received.octets), (None, &DOWN[..]));
        let mut out = Vec::new();
        expected.encode(0, &mut out);
        assert_eq!(out, DOWN);
    }

    #[test]
    fn every_bit_of_the_first_two_octets_has_its_meaning() {
        let mut octets = changed(0, 0x20 | 31);
        octets[1] = 0xc0 | 0x3a;
        octets[11] = 9;
        let packet = Received::decode(&octets).unwrap().packet;
        assert_eq!((packet.diag.code(), packet.state), (31, State::Up));
        assert_eq!(format!("{:?} {}", packet.flags, packet.diag), "PFCD diagnostic 31");
        assert_eq!(packet.your_discr, Discriminator::new(9));
    }

    /// RFC 5880 §6.8.6, check by check.
    #[test]
    fn an_invalid_packet_is_refused_with_its_reason() {
        let cases: &[(&[u8], Discard)] = &[
            (&[], Discard::TooShort),
            (&DOWN[..23], Discard::TooShort),
            (&changed(0, 0x00), Discard::Version),
            (&changed(0, 0x40), Discard::Version),
            (&changed(3, 23), Discard::Length),
            (&changed(3, 25), Discard::Length),
            (&changed(3, 255), Discard::Length),
            (&changed(2, 0), Discard::DetectMult),
            (&changed(1, 0x41), Discard::Multipoint),
            (&[&DOWN[..4], &[0; 4], &DOWN[8..]].concat(), Discard::MyDiscriminator),
            (&changed(1, 0x80), Discard::YourDiscriminator),
            (&changed(1, 0xc0), Discard::YourDiscriminator),
            // The A bit with no room for a section, and with a section whose length disagrees.
            (&changed(1, 0x44), Discard::Length),
            (
                &[&DOWN[..1], &[0x44, 3, 28], &DOWN[4..], &[1, 5, 1, b'x']].concat(),
                Discard::AuthSection,
            ),
        ];
        for (octets, reason) in cases {
            assert_eq!(Received::decode(octets), Err(*reason), "{octets:02x?}");
        }
        assert!(
            Received::decode(&changed(1, 0x00)).is_ok(),
            "AdminDown without Your Discriminator"
        );
    }

    #[test]
    fn octets_beyond_the_length_field_are_ignored() {
        let longer = [&DOWN[..], &[0xff; 40]].concat();
        assert_eq!(Received::decode(&longer).unwrap().octets, &DOWN);
    }
}
