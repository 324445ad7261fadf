use super::*;

fn life(from: u64, until: u64) -> KeyLifetime {
    KeyLifetime { from: Some(from), until: Some(until) }
}

fn key(id: u8, send: KeyLifetime, accept: KeyLifetime) -> ChainKey {
    let secret = AuthKey::new(format!("secret {id}")).unwrap();
    let algorithm = "hmac(sha1)".to_owned();
    let tcp_options = TcpOptions::Covered;
    ChainKey { send_id: id, receive_id: id + 100, algorithm, tcp_options, secret, send, accept }
}

/// Two keys: the second is accepted from 90 and sent from 100, the first is sent until 110 and
/// accepted until 120.
fn overlapping() -> KeyChain {
    let first = key(1, life(0, 110), life(0, 120));
    KeyChain::new("c", vec![first, key(2, life(100, 200), life(90, 200))]).unwrap()
}

fn held(all: &[usize], current: usize, rnext: usize) -> HeldKeys {
    HeldKeys { all: all.to_vec(), current: Some(current), rnext: Some(rnext) }
}

#[test]
fn the_key_whose_send_lifetime_began_last_is_preferred() {
    let always = KeyLifetime::default();
    let chain = overlapping();
    let at = |now| chain.preferred(now);
    let found = [0, 89, 90, 99, 100, 109, 110, 199, 200].map(at);
    let wanted = [Some(0), Some(0), Some(0), Some(0), Some(1), Some(1), Some(1), Some(1), None];
    assert_eq!(found, wanted);
    // Without lifetimes the last key; one with a beginning comes before one without.
    let chain = KeyChain::new("c", vec![key(1, always, always), key(2, always, always)]).unwrap();
    assert_eq!(chain.preferred(5), Some(1));
    let chain =
        KeyChain::new("c", vec![key(1, life(3, 9), always), key(2, always, always)]).unwrap();
    assert_eq!([2, 3, 9].map(|now| chain.preferred(now)), [Some(1), Some(0), Some(1)]);
    // A key that the neighbour may not sign with yet is not asked for.
    let chain =
        KeyChain::new("c", vec![key(1, always, always), key(2, always, life(7, 9))]).unwrap();
    assert_eq!([6, 7, 9].map(|now| chain.preferred(now)), [Some(0), Some(1), Some(0)]);
}

#[test]
fn a_connection_is_brought_from_key_to_key_without_losing_the_one_in_use() {
    let chain = overlapping();
    let step = |add: &[usize], current, rnext, delete: &[usize]| KeyStep {
        add: add.to_vec(),
        current,
        rnext,
        delete: delete.to_vec(),
    };
    let cases = [
        ("a new connection", 50, HeldKeys::default(), step(&[0], Some(0), Some(0), &[])),
        ("nothing to do", 50, held(&[0], 0, 0), step(&[], None, None, &[])),
        ("the second is accepted", 90, held(&[0], 0, 0), step(&[1], None, None, &[])),
        ("and is asked for", 100, held(&[0, 1], 0, 0), step(&[], None, Some(1), &[])),
        ("the neighbour lacks it", 105, held(&[0, 1], 0, 1), step(&[], None, None, &[])),
        ("the neighbour took it", 105, held(&[0, 1], 1, 1), step(&[], None, None, &[])),
        ("the first is not sent any more", 110, held(&[0, 1], 0, 1), step(&[], Some(1), None, &[])),
        ("but still accepted", 119, held(&[0, 1], 1, 1), step(&[], None, None, &[])),
        ("it goes", 120, held(&[0, 1], 1, 1), step(&[], None, None, &[0])),
        ("after a long sleep", 150, held(&[0], 0, 0), step(&[1], Some(1), Some(1), &[0])),
        ("a gap keeps what is in use", 200, held(&[0, 1], 1, 1), step(&[], None, None, &[0])),
        ("no key for a new connection", 200, HeldKeys::default(), step(&[], None, None, &[])),
    ];
    for (what, now, held, wanted) in cases {
        assert_eq!(chain.step(now, &held), wanted, "{what}");
    }
}

/// Whatever the order in which both sides reach a second, each always holds the key that the other
/// signs with, if their lifetimes overlap and the clocks differ by less than the overlap.
#[test]
fn two_ends_with_different_clocks_always_hold_each_others_current_key() {
    let chain = overlapping();
    for skew in 0..10u64 {
        let mut ends = [HeldKeys::default(), HeldKeys::default()];
        for second in 0..190u64 {
            for (end, now) in [(0, second), (1, second.saturating_sub(skew))] {
                let KeyStep { add, current, rnext, delete } = chain.step(now, &ends[end]);
                let held = &mut ends[end];
                held.all.extend(add);
                held.current = current.or(held.current);
                held.rnext = rnext.or(held.rnext);
                held.all.retain(|at| !delete.contains(at));
                // As the kernel does with a received RNextKeyID that it has a key for.
                let asked = ends[1 - end].rnext.filter(|at| ends[end].all.contains(at));
                ends[end].current = asked.or(ends[end].current);
            }
            for (sender, receiver) in [(0, 1), (1, 0)] {
                let current = ends[sender].current.unwrap();
                assert!(ends[receiver].all.contains(&current), "skew {skew}, second {second}");
            }
        }
    }
}

#[test]
fn an_unanswered_attempt_is_followed_by_one_with_another_key() {
    let chain = overlapping();
    let keys = |now| [0, 1, 2, 3].map(|failures| chain.to_dial(now, failures));
    assert_eq!(keys(105), [Some(1), Some(0), Some(1), Some(0)]);
    assert_eq!(keys(50), [Some(0); 4]);
    assert_eq!(keys(200), [None; 4]);
}

#[test]
fn a_connection_takes_the_keys_of_another_chain_unless_an_id_means_another_key() {
    let always = KeyLifetime::default();
    let chain = |keys: &[ChainKey]| KeyChain::new("c", keys.to_vec()).unwrap();
    let (one, two) = (key(1, always, always), key(2, always, always));
    let before = chain(std::slice::from_ref(&one));
    assert!(before.can_become(&chain(&[one.clone(), two.clone()])));
    assert!(before.can_become(&chain(&[two])));
    assert!(before.can_become(&chain(&[ChainKey { send: life(1, 2), ..one.clone() }])));
    let others = [
        ChainKey { secret: AuthKey::new("other").unwrap(), ..one.clone() },
        ChainKey { algorithm: "cmac(aes128)".to_owned(), ..one.clone() },
        ChainKey { tcp_options: TcpOptions::Excluded, ..one.clone() },
        ChainKey { send_id: 9, ..one.clone() },
        ChainKey { receive_id: 9, ..one },
    ];
    for other in others {
        assert!(!before.can_become(&chain(std::slice::from_ref(&other))), "{other:?}");
    }
}

#[test]
fn the_next_change_is_the_next_border_of_a_lifetime() {
    let chain = overlapping();
    let found = [0, 89, 90, 100, 110, 120, 200].map(|now| chain.next_change(now));
    let wanted = [Some(90), Some(90), Some(100), Some(110), Some(120), Some(200), None];
    assert_eq!(found, wanted);
}

#[test]
fn a_time_without_a_preferred_key_is_found() {
    let always = KeyLifetime::default();
    let endless = KeyChain::new("c", vec![key(1, always, always)]).unwrap();
    assert_eq!(endless.gap(0), None);
    assert_eq!(overlapping().gap(0), Some(KeyLifetime { from: Some(200), until: None }));
    let keys = vec![key(1, life(0, 10), always), key(2, life(15, 30), life(20, 40))];
    let chain = KeyChain::new("c", keys).unwrap();
    assert_eq!(chain.gap(0), Some(life(10, 20)));
    assert_eq!(chain.gap(12), Some(life(12, 20)));
}

#[test]
fn keys_that_do_not_form_a_chain_are_refused() {
    let always = KeyLifetime::default();
    assert_eq!(KeyChain::new("c", Vec::new()), Err(KeyChainFault::Empty));
    let (one, two) = (key(1, always, always), key(2, always, always));
    let same = ChainKey { send_id: 1, ..two.clone() };
    let fault = KeyChain::new("c", vec![one.clone(), same]);
    assert_eq!(fault, Err(KeyChainFault::DuplicateSendId(1)));
    let same = ChainKey { receive_id: 101, ..two };
    let fault = KeyChain::new("c", vec![one, same]);
    assert_eq!(fault, Err(KeyChainFault::DuplicateReceiveId(101)));
}

#[test]
fn a_chain_does_not_show_its_secrets() {
    let shown = format!("{:?}", overlapping());
    assert!(!shown.contains("secret 1") && shown.contains("hmac(sha1)"), "{shown}");
}

#[test]
fn a_session_stays_when_keys_come_and_go() {
    use crate::session::{LocalIdentity, PeerConfig};
    use crate::types::{Asn, RouterId};
    let always = KeyLifetime::default();
    let local = LocalIdentity { asn: Asn(64512), router_id: RouterId(1) };
    let plain = PeerConfig::new([192, 0, 2, 1].into(), Asn(64512), &local);
    let with = |keys: &[ChainKey]| {
        let mut config = plain.clone();
        config.security.ao = Some(Arc::new(KeyChain::new("c", keys.to_vec()).unwrap()));
        config
    };
    let (one, two) = (key(1, always, always), key(2, always, always));
    let before = with(std::slice::from_ref(&one));
    assert!(before.differs_only_in_timers(&with(&[one.clone(), two.clone()])));
    assert!(before.differs_only_in_timers(&with(&[two])));
    assert!(!before.differs_only_in_timers(&before.clone()));
    assert!(!before.differs_only_in_timers(&plain) && !plain.differs_only_in_timers(&before));
    let other = ChainKey { secret: AuthKey::new("other").unwrap(), ..one };
    assert!(!before.differs_only_in_timers(&with(&[other])));
    let mut gtsm = before.clone();
    gtsm.security.ttl_security_hops = Some(1);
    assert!(!before.differs_only_in_timers(&gtsm));
}
