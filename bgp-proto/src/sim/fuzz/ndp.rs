//! Any octets as packets and events for one link.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::Choices;
use crate::ndp::{Link, Message, News, advertisement, decode};
use crate::types::Time;

/// How long a neighbour has been silent, at least, when another router takes its place.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Runs one link on the choices in `data` and returns how often its neighbour changed.
///
/// Invariants: no deadline stays in the past; a packet that is discarded changes nothing; while the
/// neighbour keeps answering, no other router takes its place.
pub fn fuzz_ndp(data: &[u8]) -> u64 {
    let mut choices = Choices::new(data);
    let router = |number: u8| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into());
    let mut link = Link::new(choices.bit(), choices.byte().into());
    let mut now = Time::ZERO + Duration::from_secs(1);
    let (mut changes, mut heard) = (0, now);
    while !choices.is_empty() {
        let known = link.neighbor();
        match choices.byte() % 8 {
            0 => link.set_local(now, choices.bit().then(|| router(choices.byte()))),
            1 => link.set_advertises(now, choices.bit()),
            2..=4 => {
                let source = router(choices.byte() % 4);
                let news = link.handle_packet(now, source, 255, &advertisement());
                changes += u64::from(matches!(news, Ok(News::Neighbor(_))));
                // Our own address may be the neighbour's: such a packet is discarded.
                if news.is_ok() && link.neighbor() == Some(source) {
                    heard = now;
                }
                if known.is_some() {
                    assert_eq!(link.neighbor(), known, "a packet alone replaces no neighbour");
                }
            }
            5 => {
                let (source, hop_limit) = (router(choices.byte()), choices.pick(&[255, 255, 64]));
                let octets = choices.octets();
                let expected = decode(source, hop_limit, octets);
                let outcome = link.handle_packet(now, source, hop_limit, octets);
                assert!(outcome.is_err() || expected.is_ok());
                if !matches!(expected, Ok(Message::Advertisement { .. })) {
                    assert_eq!(link.neighbor(), known);
                }
                changes += u64::from(matches!(outcome, Ok(News::Neighbor(_))));
                if outcome.is_ok()
                    && matches!(expected, Ok(Message::Advertisement { .. }))
                    && link.neighbor() == Some(source)
                {
                    heard = now;
                }
            }
            _ => now = now + Duration::from_millis(choices.byte().into()) * 40,
        }
        let mut steps = 0;
        while link.poll_timeout().is_some_and(|at| at <= now) {
            if link.handle_timeout(now) != News::None {
                let silent = now.since(heard);
                assert!(silent >= ANSWER_TIME, "replaced after {silent:?} of silence");
                (changes, heard) = (changes + 1, now);
            }
            while let Some(what) = link.poll_transmit(now) {
                if choices.byte() % 8 == 7 {
                    link.transmit_failed(now, what);
                }
            }
            steps += 1;
            assert!(steps <= 4, "a deadline that does not move on");
        }
    }
    changes
}
