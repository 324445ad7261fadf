//! A stream of octets: framing and the decoder of every message type.
#![no_main]

use bgp_proto::wire::{
    EXTENDED_MAX_LEN, HEADER_LEN, MAX_LEN, MessageType, Notification, Open, RouteRefresh,
    split_frame,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((options, stream)) = data.split_first() else { return };
    let max = if options & 1 == 0 { MAX_LEN } else { EXTENDED_MAX_LEN };
    let mut rest = stream;
    while let Ok(Some(frame)) = split_frame(rest, max) {
        assert!(frame.bytes.len() >= HEADER_LEN && frame.bytes.len() <= max);
        assert_eq!(frame.bytes, &rest[..frame.bytes.len()]);
        // A complete message is found whatever follows it, and never before its last octet.
        assert_eq!(split_frame(frame.bytes, max), Ok(Some(frame)));
        assert_eq!(split_frame(&frame.bytes[..frame.bytes.len() - 1], max), Ok(None));
        decode(frame.kind, frame.bytes, frame.body(), options & 2 != 0);
        rest = &rest[frame.bytes.len()..];
    }
    if let Err(notification) = split_frame(rest, max) {
        assert!(notification.data.len() <= rest.len(), "more data than was received");
    }
});

fn decode(kind: MessageType, message: &[u8], body: &[u8], enhanced: bool) {
    match kind {
        MessageType::Open => {
            if let Err(notification) = Open::decode(body) {
                assert!(notification.data.len() <= message.len());
            }
        }
        MessageType::Notification => {
            let notification = Notification::decode(body);
            assert!(notification.data.len() <= body.len());
            if let Some(text) = notification.text() {
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
            let mut out = Vec::new();
            notification.encode(&mut out);
            let again = Notification::decode(&out[HEADER_LEN..]);
            // An encoded NOTIFICATION never exceeds 4,096 octets; a received one may (RFC 8654 §4).
            assert!(out.len() <= MAX_LEN && notification.data.starts_with(&again.data));
            assert!(again == notification || message.len() > MAX_LEN);
        }
        MessageType::RouteRefresh => match RouteRefresh::decode(message, enhanced) {
            Ok(refresh) => {
                let mut out = Vec::new();
                refresh.encode(&mut out);
                assert_eq!(RouteRefresh::decode(&out, enhanced), Ok(refresh));
            }
            Err(notification) => assert!(notification.data.len() <= message.len()),
        },
        MessageType::Update | MessageType::Keepalive => {}
    }
}
