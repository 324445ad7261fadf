use proptest::prelude::*;

use super::super::{SOLICITATION, advertisement};
use super::*;

fn router(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number)
}

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

/// Everything that is due until `end`, with its time.
fn run(link: &mut Link, end: Time) -> (Vec<(Time, Transmit)>, News) {
    let (mut sent, mut news) = (Vec::new(), News::None);
    while let Some(due) = link.poll_timeout().filter(|due| *due <= end) {
        match link.handle_timeout(due) {
            News::None => {}
            other => news = other,
        }
        while let Some(what) = link.poll_transmit(due) {
            sent.push((due, what));
        }
    }
    (sent, news)
}

fn hear(link: &mut Link, now: Time, from: u16) -> News {
    link.handle_packet(now, router(from), 255, &advertisement()).unwrap()
}

#[test]
fn the_neighbour_is_solicited_until_it_is_known() {
    let mut link = Link::new(false, 1);
    assert_eq!(link.poll_timeout(), None, "no address yet");
    link.set_local(at(0), Some(router(1)));
    let (sent, _) = run(&mut link, at(30_000));
    let times: Vec<u64> = sent.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 4, 12, 28]);
    assert!(sent.iter().all(|(_, what)| *what == Transmit::Solicitation));
    assert_eq!(hear(&mut link, at(30_000), 2), News::Neighbor(router(2)));
    assert_eq!((link.poll_timeout(), link.neighbor()), (None, Some(router(2))));
}

#[test]
fn advertisements_keep_the_intervals_of_the_rfc() {
    let mut link = Link::new(true, 7);
    link.set_local(at(0), Some(router(1)));
    hear(&mut link, at(0), 2);
    let (sent, _) = run(&mut link, at(600_000));
    assert_eq!(sent.first(), Some(&(at(0), Transmit::Advertisement)));
    for pair in sent.windows(2) {
        let pause = pair[1].0.since(pair[0].0);
        assert!(pause >= ADVERTISE_MIN && pause <= ADVERTISE_MAX, "{pause:?}");
    }
}

#[test]
fn solicitations_are_answered_soon_and_not_one_by_one() {
    let mut link = Link::new(true, 3);
    link.set_local(at(0), Some(router(1)));
    hear(&mut link, at(0), 2);
    run(&mut link, at(0));
    let mut solicited = |source: Ipv6Addr, until: u64| {
        for millis in 0..3000 {
            link.handle_packet(at(millis), source, 255, &SOLICITATION).unwrap();
            run(&mut link, at(millis));
        }
        let before = link.stats().sent;
        (run(&mut link, at(until)).0, before)
    };
    let (_, sent) = solicited(router(9), 3000);
    assert_eq!(sent, 1 + 3, "one advertisement at the start, an answer a second");
    // One without an address can only be answered by an advertisement to all.
    let (sent, _) = solicited(Ipv6Addr::UNSPECIFIED, 3200);
    assert_eq!(sent.first(), Some(&(at(3000), Transmit::Advertisement)), "{sent:?}");
    let mut silent = Link::new(false, 3);
    silent.set_local(at(0), Some(router(1)));
    hear(&mut silent, at(0), 2);
    silent.handle_packet(at(0), router(9), 255, &SOLICITATION).unwrap();
    assert_eq!(silent.poll_timeout(), None);
}

#[test]
fn another_router_takes_over_only_from_one_that_is_silent() {
    let mut link = Link::new(false, 1);
    link.set_local(at(0), Some(router(1)));
    hear(&mut link, at(0), 2);
    assert_eq!(hear(&mut link, at(10_000), 3), News::None);
    assert_eq!(run(&mut link, at(10_000)).0, [(at(10_000), Transmit::Probe(router(2)))]);
    hear(&mut link, at(11_000), 2);
    assert_eq!(link.poll_timeout(), None, "the neighbour has answered");

    // Now it has another address.
    hear(&mut link, at(20_000), 3);
    hear(&mut link, at(21_000), 4);
    let (sent, news) = run(&mut link, at(24_999));
    assert_eq!((sent.len(), news), (3, News::None), "one lost packet decides nothing");
    let (_, news) = run(&mut link, at(25_000));
    assert_eq!(news, News::Neighbor(router(4)), "of the others, the last one heard");
}

#[test]
fn the_neighbour_stays_known_while_the_link_is_down() {
    let mut link = Link::new(true, 1);
    link.set_local(at(0), Some(router(1)));
    hear(&mut link, at(0), 2);
    link.set_local(at(1), None);
    assert_eq!((link.poll_timeout(), link.neighbor()), (None, Some(router(2))));
    link.set_local(at(5000), Some(router(1)));
    let sent: Vec<Transmit> = run(&mut link, at(5000)).0.into_iter().map(|(_, s)| s).collect();
    assert_eq!(sent, [Transmit::Advertisement, Transmit::Solicitation]);
}

#[test]
fn a_packet_that_could_not_be_sent_is_sent_later() {
    let mut link = Link::new(true, 1);
    link.set_local(at(0), Some(router(1)));
    let what = link.poll_transmit(at(0)).unwrap();
    link.transmit_failed(at(0), what);
    run(&mut link, at(0));
    let (sent, _) = run(&mut link, at(1000));
    assert_eq!(sent, [(at(1000), what)]);
}

#[test]
fn a_neighbour_that_cannot_be_asked_is_not_replaced() {
    let mut link = Link::new(false, 1);
    link.set_local(at(0), Some(router(1)));
    hear(&mut link, at(0), 2);
    hear(&mut link, at(10_000), 3);
    for second in 10..40 {
        let now = at(second * 1000);
        assert_eq!(link.handle_timeout(now), News::None, "{second} s");
        while let Some(what) = link.poll_transmit(now) {
            link.transmit_failed(now, what);
        }
    }
    let (sent, news) = run(&mut link, at(60_000));
    let asked = Transmit::Probe(router(2));
    assert_eq!(sent, [(at(40_000), asked), (at(42_000), asked)]);
    assert_eq!(news, News::Neighbor(router(3)));
}

#[test]
fn our_own_packets_and_invalid_ones_are_counted_and_change_nothing() {
    let mut link = Link::new(false, 1);
    link.set_local(at(0), Some(router(1)));
    let own = link.handle_packet(at(0), router(1), 255, &advertisement());
    assert_eq!(own, Err(Discard::Own));
    let far = link.handle_packet(at(0), router(2), 64, &advertisement());
    assert_eq!(far, Err(Discard::HopLimit));
    assert_eq!(link.neighbor(), None);
    let count = |why: Discard| link.stats().discarded[why as usize];
    assert_eq!((count(Discard::Own), count(Discard::HopLimit)), (1, 1));
    for (at, why) in Discard::ALL.into_iter().enumerate() {
        assert_eq!(at, why as usize, "{why:?}");
    }
}

proptest! {
    /// Two routers that both advertise find each other, whichever packets are lost, as long as one in
    /// some arrives; and no deadline stays in the past.
    #[test]
    fn two_routers_find_each_other(seeds: [u64; 2], start in 0u64..60_000, lost in prop::collection::vec(any::<bool>(), 1..40)) {
        let mut links = seeds.map(|seed| Link::new(true, seed));
        links[0].set_local(at(0), Some(router(1)));
        let mut lost = lost.into_iter();
        let mut is_started = false;
        let mut now = at(0);
        while now < at(start + 600_000) {
            if !is_started && now >= at(start) {
                links[1].set_local(now, Some(router(2)));
                is_started = true;
            }
            for from in 0..2 {
                links[from].handle_timeout(now);
                let mut packets = 0;
                while let Some(what) = links[from].poll_transmit(now) {
                    packets += 1;
                    prop_assert!(packets <= 3, "a deadline that does not move on");
                    if lost.next().unwrap_or(false) {
                        continue;
                    }
                    let octets = match what {
                        Transmit::Solicitation | Transmit::Probe(_) => SOLICITATION.to_vec(),
                        Transmit::Advertisement | Transmit::Answer(_) => advertisement().to_vec(),
                    };
                    let to = 1 - from;
                    links[to].handle_packet(now, router(from as u16 + 1), 255, &octets).unwrap();
                }
            }
            if links.iter().all(|link| link.neighbor().is_some()) {
                break;
            }
            let due = links.iter().filter_map(Link::poll_timeout).min();
            let start = (!is_started).then(|| at(start));
            let next = due.into_iter().chain(start).min();
            let Some(next) = next else { break };
            now = next.max(now);
        }
        prop_assert_eq!(links[0].neighbor(), Some(router(2)));
        prop_assert_eq!(links[1].neighbor(), Some(router(1)));
    }
}
