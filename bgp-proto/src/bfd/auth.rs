//! Authentication sections, RFC 5880 §4.2-4.4 and §6.7: simple password, keyed SHA-1, meticulous
//! keyed SHA-1.
//!
//! Keyed MD5 (RFC 5880 §4.3) is not supported: §6.7 requires SHA-1, and no peer supports only MD5.

use std::fmt;

use sha1::{Digest, Sha1};

use super::{Discard, HEADER_LEN};

const SIMPLE_PASSWORD: u8 = 1;
const KEYED_SHA1: u8 = 4;
const METICULOUS_KEYED_SHA1: u8 = 5;

/// Type, length and key ID.
const PREFIX_LEN: usize = 3;
/// Octets of a SHA-1 digest, and of the longest SHA-1 key.
const DIGEST_LEN: usize = 20;
/// Octets of a SHA-1 section: prefix, reserved, sequence number, digest.
const SHA1_LEN: usize = PREFIX_LEN + 1 + 4 + DIGEST_LEN;
/// Where the digest begins in a packet.
const DIGEST_AT: usize = HEADER_LEN + SHA1_LEN - DIGEST_LEN;
/// Octets of the longest simple password.
const PASSWORD_LEN_MAX: usize = 16;

/// How packets are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// The password in clear, RFC 5880 §4.2. Keeps out mistakes, not attackers.
    SimplePassword,
    /// SHA-1 over packet and key; a packet may be replayed while its sequence number is the newest.
    KeyedSha1,
    /// The same with a sequence number that grows with every packet.
    MeticulousKeyedSha1,
}

impl AuthKind {
    /// Octets of the longest key.
    pub const fn key_len_max(self) -> usize {
        match self {
            AuthKind::SimplePassword => PASSWORD_LEN_MAX,
            AuthKind::KeyedSha1 | AuthKind::MeticulousKeyedSha1 => DIGEST_LEN,
        }
    }

    const fn code(self) -> u8 {
        match self {
            AuthKind::SimplePassword => SIMPLE_PASSWORD,
            AuthKind::KeyedSha1 => KEYED_SHA1,
            AuthKind::MeticulousKeyedSha1 => METICULOUS_KEYED_SHA1,
        }
    }
}

/// A password or key that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One key of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Key ID in the packets.
    pub id: u8,
    secret: Secret,
}

impl Key {
    /// A key; `None` if `secret` is empty or longer than `kind` allows.
    pub fn new(kind: AuthKind, id: u8, secret: impl Into<Vec<u8>>) -> Option<Key> {
        let secret = secret.into();
        (!secret.is_empty() && secret.len() <= kind.key_len_max())
            .then_some(Key { id, secret: Secret(secret) })
    }
}

/// Authentication of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Authentication type. The peer has to use the same one.
    pub kind: AuthKind,
    /// The key that we send with.
    pub send: Key,
    /// Further keys accepted from the peer, so that keys can be replaced one end at a time.
    pub accept: Vec<Key>,
}

impl Auth {
    /// Octets of the section that [`Auth::sign`] appends.
    pub(super) fn section_len(&self) -> u8 {
        let len = match self.kind {
            AuthKind::SimplePassword => PREFIX_LEN + self.send.secret.0.len(),
            AuthKind::KeyedSha1 | AuthKind::MeticulousKeyedSha1 => SHA1_LEN,
        };
        u8::try_from(len).expect("Key::new bounds the password")
    }

    /// Appends the section to `packet`, which holds the mandatory section alone.
    pub(super) fn sign(&self, sequence: u32, packet: &mut Vec<u8>) {
        packet.extend([self.kind.code(), self.section_len(), self.send.id]);
        match self.kind {
            AuthKind::SimplePassword => packet.extend(&self.send.secret.0),
            AuthKind::KeyedSha1 | AuthKind::MeticulousKeyedSha1 => {
                packet.push(0);
                packet.extend(sequence.to_be_bytes());
                let digest = digest(packet, &self.send.secret);
                packet.extend(digest);
            }
        }
    }

    /// Checks type, key and digest (RFC 5880 §6.7.2 and §6.7.4). Returns the sequence number, which
    /// the caller compares with its window; simple passwords have none.
    pub(super) fn verify(
        &self,
        section: AuthSection<'_>,
        octets: &[u8],
    ) -> Result<Option<u32>, Discard> {
        if section.kind != self.kind.code() {
            return Err(Discard::AuthSection);
        }
        let keys = std::iter::once(&self.send).chain(&self.accept);
        let mut reason = Discard::AuthKeyId;
        for key in keys.filter(|key| key.id == section.key_id) {
            match self.kind {
                AuthKind::SimplePassword => {
                    if equal(section.rest, &key.secret.0) {
                        return Ok(None);
                    }
                }
                AuthKind::KeyedSha1 | AuthKind::MeticulousKeyedSha1 => {
                    let (sequence, received) =
                        sha1_fields(section.rest).ok_or(Discard::AuthSection)?;
                    let signed = octets.get(..DIGEST_AT).ok_or(Discard::AuthSection)?;
                    if equal(received, &digest(signed, &key.secret)) {
                        return Ok(Some(sequence));
                    }
                }
            }
            reason = Discard::AuthDigest;
        }
        Err(reason)
    }
}

/// An authentication section of a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthSection<'a> {
    /// Auth Type.
    pub kind: u8,
    /// Auth Key ID; zero in a section of two octets.
    pub key_id: u8,
    rest: &'a [u8],
}

impl<'a> AuthSection<'a> {
    /// `section` is everything after the mandatory section. `None` if its length field disagrees.
    pub(super) fn decode(section: &'a [u8]) -> Option<AuthSection<'a>> {
        let [kind, len, body @ ..] = section else { return None };
        if usize::from(*len) != section.len() {
            return None;
        }
        let (key_id, rest) = body.split_first().map_or((0, body), |(id, rest)| (*id, rest));
        Some(AuthSection { kind: *kind, key_id, rest })
    }
}

/// Sequence number and digest of a section that is exactly as long as RFC 5880 §4.4 says.
fn sha1_fields(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (_reserved, rest) = rest.split_first()?;
    let (sequence, digest) = rest.split_first_chunk::<4>()?;
    (digest.len() == DIGEST_LEN).then_some((u32::from_be_bytes(*sequence), digest))
}

/// The digest of RFC 5880 §6.7.4: over the packet with the zero-padded key in the digest's place.
fn digest(packet: &[u8], key: &Secret) -> [u8; DIGEST_LEN] {
    let mut padded = [0; DIGEST_LEN];
    for (room, octet) in padded.iter_mut().zip(&key.0) {
        *room = *octet;
    }
    Sha1::new().chain_update(packet).chain_update(padded).finalize().into()
}

/// Compares in time that does not depend on where the first difference is.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::Received;

    const DOWN: [u8; 24] = [
        0x20, 0x44, 0x03, 0x00, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 0x00, 0x0f, 0x42, 0x40, 0x00,
        0x04, 0x93, 0xe0, 0, 0, 0, 0,
    ];

    fn auth(kind: AuthKind, id: u8, key: &str) -> Auth {
        Auth { kind, send: Key::new(kind, id, key).unwrap(), accept: Vec::new() }
    }

    fn signed(auth: &Auth, sequence: u32) -> Vec<u8> {
        let mut packet = DOWN.to_vec();
        packet[3] = 24 + auth.section_len();
        auth.sign(sequence, &mut packet);
        packet
    }

    fn verify(auth: &Auth, packet: &[u8]) -> Result<Option<u32>, Discard> {
        let received = Received::decode(packet)?;
        auth.verify(received.auth.expect("the A bit is set"), received.octets)
    }

    #[test]
    fn a_simple_password_is_sent_in_clear_and_compared_whole() {
        let ours = auth(AuthKind::SimplePassword, 7, "secret");
        let packet = signed(&ours, 0);
        assert_eq!(packet[24..], *b"\x01\x09\x07secret");
        assert_eq!(verify(&ours, &packet), Ok(None));
        for (other, reason) in [
            (auth(AuthKind::SimplePassword, 7, "secreT"), Discard::AuthDigest),
            (auth(AuthKind::SimplePassword, 7, "secret1"), Discard::AuthDigest),
            (auth(AuthKind::SimplePassword, 8, "secret"), Discard::AuthKeyId),
            (auth(AuthKind::KeyedSha1, 7, "secret"), Discard::AuthSection),
        ] {
            assert_eq!(verify(&other, &packet), Err(reason));
        }
    }

    /// The digest was computed with Python's hashlib from the octets that RFC 5880 §6.7.4 names.
    #[test]
    fn the_digest_is_that_of_the_rfc() {
        let ours = auth(AuthKind::KeyedSha1, 1, "margay");
        let packet = signed(&ours, 0x0102_0304);
        assert_eq!(packet[24..32], [4, 28, 1, 0, 1, 2, 3, 4]);
        assert_eq!(hex(&packet[32..]), "cc5c5781854bfde303b73b4ec7790d82d8e5b7ed");
    }

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|o| format!("{o:02x}")).collect()
    }

    #[test]
    fn a_digest_covers_every_octet_and_the_key() {
        for kind in [AuthKind::KeyedSha1, AuthKind::MeticulousKeyedSha1] {
            let ours = auth(kind, 1, "key");
            let packet = signed(&ours, 5);
            assert_eq!(verify(&ours, &packet), Ok(Some(5)));
            assert_eq!(verify(&auth(kind, 1, "kez"), &packet), Err(Discard::AuthDigest));
            for at in (4..packet.len()).filter(|at| !(24..27).contains(at)) {
                let mut forged = packet.clone();
                forged[at] ^= 1;
                assert_eq!(verify(&ours, &forged), Err(Discard::AuthDigest), "octet {at}");
            }
        }
    }

    #[test]
    fn keys_are_replaced_one_end_at_a_time() {
        let kind = AuthKind::MeticulousKeyedSha1;
        let old = auth(kind, 1, "old");
        let mut both = auth(kind, 1, "old");
        both.accept = vec![Key::new(kind, 2, "new").unwrap()];
        let new = auth(kind, 2, "new");
        assert_eq!(verify(&both, &signed(&old, 1)), Ok(Some(1)));
        assert_eq!(verify(&both, &signed(&new, 1)), Ok(Some(1)));
        assert_eq!(verify(&new, &signed(&both, 1)), Err(Discard::AuthKeyId));
    }

    #[test]
    fn a_section_of_another_length_is_not_a_sha1_section() {
        let ours = auth(AuthKind::KeyedSha1, 1, "key");
        for len in [2_u8, 3, 8, 27, 29] {
            let mut packet = DOWN.to_vec();
            packet[3] = 24 + len;
            packet.extend([4, len]);
            packet.resize(24 + usize::from(len), 1);
            assert_eq!(
                verify(&ours, &packet),
                Err(if len == 2 { Discard::AuthKeyId } else { Discard::AuthSection }),
                "{len}"
            );
        }
    }

    #[test]
    fn keys_have_bounds_and_are_not_printed() {
        assert!(Key::new(AuthKind::SimplePassword, 1, "").is_none());
        assert!(Key::new(AuthKind::SimplePassword, 1, [b'x'; 17]).is_none());
        assert!(Key::new(AuthKind::KeyedSha1, 1, [b'x'; 21]).is_none());
        let longest = auth(AuthKind::KeyedSha1, 1, &"x".repeat(20));
        assert!(!format!("{longest:?}").contains("xx"));
    }
}
