//! Message framing (RFC 4271 §4.1, §6.1; RFC 8654).
use super::{Code, Notification};

/// Octets of a message header.
pub const HEADER_LEN: usize = 19;
/// Longest message without Extended Messages (RFC 4271 §4).
pub const MAX_LEN: usize = 4096;
/// Longest UPDATE, NOTIFICATION or ROUTE-REFRESH with Extended Messages (RFC 8654).
pub const EXTENDED_MAX_LEN: usize = 65535;

/// Octets of the marker, all of them 0xFF.
const MARKER_LEN: usize = 16;

/// Message types (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// OPEN, 1.
    Open = 1,
    /// UPDATE, 2.
    Update = 2,
    /// NOTIFICATION, 3.
    Notification = 3,
    /// KEEPALIVE, 4.
    Keepalive = 4,
    /// ROUTE-REFRESH, 5.
    RouteRefresh = 5,
}

impl MessageType {
    /// The type with this code; `None` if there is none.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => MessageType::Open,
            2 => MessageType::Update,
            3 => MessageType::Notification,
            4 => MessageType::Keepalive,
            5 => MessageType::RouteRefresh,
            _ => return None,
        })
    }

    /// Shortest and longest legal message. Extended Messages do not apply to OPEN and KEEPALIVE
    /// (RFC 8654 §4).
    const fn len_bounds(self, update_max_len: usize) -> (usize, usize) {
        match self {
            MessageType::Open => (29, MAX_LEN),
            MessageType::Update => (23, update_max_len),
            MessageType::Notification => (21, update_max_len),
            MessageType::Keepalive => (HEADER_LEN, HEADER_LEN),
            MessageType::RouteRefresh => (23, update_max_len),
        }
    }
}

/// One complete message inside the received buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: MessageType,
    /// The whole message, header included.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Splits the first message from `buf`: `Ok(None)` when it is not complete yet. The header is
/// checked as soon as its 19 octets are there. `update_max_len` is [`MAX_LEN`] or, if *we*
/// advertised Extended Messages, [`EXTENDED_MAX_LEN`]. Errors: 1/1, 1/2, 1/3 with their data.
pub fn split_frame(buf: &[u8], update_max_len: usize) -> Result<Option<Frame<'_>>, Notification> {
    let Some((header, _)) = buf.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let [marker @ .., len_high, len_low, code] = *header;
    if marker != [0xFF; MARKER_LEN] {
        return Err(Notification::new(Code::CONNECTION_NOT_SYNCHRONIZED));
    }
    let bad_len = || Notification::with_data(Code::BAD_MESSAGE_LENGTH, [len_high, len_low]);
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    if len < HEADER_LEN {
        return Err(bad_len());
    }
    let Some(kind) = MessageType::from_code(code) else {
        // RFC 4271 §6.1 asks for the length first: a length no message may have is 1/2 whatever the
        // type.
        let bad_type = Notification::with_data(Code::BAD_MESSAGE_TYPE, [code]);
        return Err(if len > update_max_len { bad_len() } else { bad_type });
    };
    let (min, max) = kind.len_bounds(update_max_len);
    if len < min || len > max {
        return Err(bad_len());
    }
    Ok(buf.get(..len).map(|bytes| Frame { kind, bytes }))
}

/// Starts a message: marker, a length to be filled in by [`finish_message`], type. Returns its
/// position.
pub(super) fn begin_message(out: &mut Vec<u8>, kind: MessageType) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xFF; MARKER_LEN]);
    out.extend_from_slice(&[0, 0, kind as u8]);
    start
}

/// Fills in the length of the message that began at `start`.
pub(super) fn finish_message(out: &mut [u8], start: usize) {
    let len = out.len().saturating_sub(start);
    debug_assert!((HEADER_LEN..=EXTENDED_MAX_LEN).contains(&len));
    put_u16_at(out, start.saturating_add(MARKER_LEN), len);
}

/// Overwrites two octets at `at` with a length that the caller has bounded.
pub(super) fn put_u16_at(out: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    if let Some(slot) = out.get_mut(at..at.saturating_add(2)) {
        slot.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(len: u16, kind: u8) -> Vec<u8> {
        let mut out = vec![0xFF; 16];
        out.extend(len.to_be_bytes());
        out.push(kind);
        out
    }

    fn error(buf: &[u8], max: usize) -> (Code, Vec<u8>) {
        let e = split_frame(buf, max).unwrap_err();
        (e.code, e.data)
    }

    #[test]
    fn an_incomplete_message_is_waited_for_but_its_header_is_checked_at_once() {
        let mut message = header(23, 2);
        assert_eq!(split_frame(&message[..18], MAX_LEN), Ok(None));
        assert_eq!(split_frame(&message, MAX_LEN), Ok(None));
        message.extend([0; 5]);
        let frame = split_frame(&message, MAX_LEN).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.bytes.len(), frame.body()),
            (MessageType::Update, 23, &[0; 4][..])
        );
        assert_eq!(error(&header(18, 4), MAX_LEN), (Code::BAD_MESSAGE_LENGTH, vec![0, 18]));
    }

    #[test]
    fn every_type_has_its_own_bounds() {
        let refused = |len, kind, max| {
            split_frame(&header(len, kind), max).is_err_and(|e| e.code == Code::BAD_MESSAGE_LENGTH)
        };
        for (kind, min) in [(1, 29), (2, 23), (3, 21), (4, 19), (5, 23)] {
            assert!(refused(min - 1, kind, MAX_LEN), "type {kind} of {} octets", min - 1);
            assert!(split_frame(&header(min, kind), MAX_LEN).is_ok());
        }
        for kind in [1, 2, 3, 4, 5] {
            assert!(refused(4097, kind, MAX_LEN));
            // Only UPDATE, NOTIFICATION and ROUTE-REFRESH may be extended.
            assert_eq!(refused(4097, kind, EXTENDED_MAX_LEN), matches!(kind, 1 | 4));
        }
    }

    #[test]
    fn marker_and_type_errors_carry_their_data() {
        let mut bad = header(19, 4);
        bad[15] = 0xFE;
        assert_eq!(error(&bad, MAX_LEN), (Code::CONNECTION_NOT_SYNCHRONIZED, vec![]));
        for code in [0, 6, 255] {
            assert_eq!(error(&header(19, code), MAX_LEN), (Code::BAD_MESSAGE_TYPE, vec![code]));
        }
    }

    proptest! {
        #[test]
        fn a_frame_never_exceeds_what_was_received(
            mut buf in proptest::collection::vec(any::<u8>(), 0..64), marked: bool,
        ) {
            if marked {
                buf.iter_mut().take(16).for_each(|b| *b = 0xFF);
            }
            if let Ok(Some(frame)) = split_frame(&buf, MAX_LEN) {
                prop_assert!(frame.bytes.len() <= buf.len() && frame.bytes.len() >= HEADER_LEN);
            }
        }
    }
}
