use super::*;

fn events(bytes: &[u8]) -> Vec<Event> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while let Some((message, len)) = message(rest).unwrap() {
        let Message::Update(body) = message else { panic!("not an UPDATE") };
        walk_update(body, |event| out.push(event)).unwrap();
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
    out
}

#[test]
fn announcements_survive_packing_at_every_length() {
    let prefixes: Vec<(u32, u8)> = (0..=32_u8).map(|len| (0xffff_ffff, len)).collect();
    let attributes = [0x40, 1, 1, 0];
    let mut bytes = Vec::new();
    push_announcements(&mut bytes, &attributes, &prefixes);
    let digest = digest_attributes(&attributes).unwrap();
    let expected: Vec<Event> =
        prefixes.iter().map(|&(a, l)| Event::Announce(key_v4(a, l), digest)).collect();
    assert_eq!(events(&bytes), expected);
}

#[test]
fn many_prefixes_split_into_full_messages() {
    let prefixes: Vec<(u32, u8)> = (0..5000_u32).map(|n| (n << 8, 24)).collect();
    let mut bytes = Vec::new();
    push_withdrawals(&mut bytes, &prefixes);
    assert_eq!(events(&bytes).len(), 5000);
    assert_eq!(bytes.len().div_ceil(MESSAGE_LEN_MAX), 5);
}

#[test]
fn sums_do_not_depend_on_order_but_on_every_route() {
    let routes = [(key_v4(1 << 24, 8), 5), (key_v4(2 << 24, 8), 6), (key_v4(2 << 24, 9), 6)];
    let sum = |order: &[usize]| {
        let mut sums = Sums::default();
        for &i in order {
            sums.add(routes[i].0, routes[i].1);
        }
        sums
    };
    assert_eq!(sum(&[0, 1, 2]), sum(&[2, 0, 1]));
    assert_ne!(sum(&[0, 1, 1]), sum(&[0, 1, 2]));
    let mut other = sum(&[0, 1]);
    other.add(routes[2].0, 7);
    assert!(other.same_prefixes(&sum(&[0, 1, 2])));
    assert_ne!(other, sum(&[0, 1, 2]));
    assert_eq!(sum(&[0, 1, 2]).minus(sum(&[1])), sum(&[0, 2]));
}

#[test]
fn digest_ignores_attribute_order_and_reflection_but_not_values() {
    let plain = [0x40, 1, 1, 0, 0x40, 5, 4, 0, 0, 0, 100];
    let turned = [0x40, 5, 4, 0, 0, 0, 100, 0x50, 1, 0, 1, 0];
    let mut reflected = plain.to_vec();
    reflected.extend_from_slice(&[0x80, 9, 4, 10, 0, 0, 9, 0x80, 10, 4, 10, 0, 0, 1]);
    let other = [0x40, 1, 1, 0, 0x40, 5, 4, 0, 0, 0, 101];
    let with_med = |med: u8| [&plain[..], &[0x80, 4, 4, 0, 0, 0, med]].concat();
    assert_eq!(digest_attributes(&plain), digest_attributes(&with_med(0)));
    assert_ne!(digest_attributes(&plain), digest_attributes(&with_med(1)));
    assert_eq!(digest_attributes(&plain), digest_attributes(&turned));
    assert_eq!(digest_attributes(&plain), digest_attributes(&reflected));
    assert_ne!(digest_attributes(&plain), digest_attributes(&other));
}

#[test]
fn classic_and_multiprotocol_announcements_agree() {
    let mut classic = vec![0, 0];
    let attributes = [0x40, 1, 1, 0, 0x40, 3, 4, 10, 0, 0, 1];
    classic.extend_from_slice(&[0, attributes.len() as u8]);
    classic.extend_from_slice(&attributes);
    classic.extend_from_slice(&[24, 192, 0, 2]);
    let attributes = [0x40, 1, 1, 0, 0x80, 14, 13, 0, 1, 1, 4, 10, 0, 0, 1, 0, 24, 192, 0, 2];
    let mut modern = vec![0, 0, 0, attributes.len() as u8];
    modern.extend_from_slice(&attributes);
    let (mut a, mut b) = (Tally::default(), Tally::default());
    tally_update(&mut a, &classic).unwrap();
    tally_update(&mut b, &modern).unwrap();
    assert_eq!(a.announced, b.announced);
}

#[test]
fn end_of_rib_is_not_a_route() {
    let mut tally = Tally::default();
    tally_update(&mut tally, &[0; 4]).unwrap();
    tally_update(&mut tally, &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]).unwrap();
    assert_eq!((tally.end_of_rib, tally.announced.count, tally.withdrawn.count), (2, 0, 0));
}

#[test]
fn truncated_updates_are_refused() {
    let mut bytes = Vec::new();
    push_announcements(
        &mut bytes,
        &[0x40, 1, 1, 0, 0x40, 3, 4, 10, 0, 0, 1],
        &[(0xc000_0200, 24), (0x0a00_0000, 9)],
    );
    let body = &bytes[HEADER_LEN..];
    let whole = |len: usize| walk_update(&body[..len], |_| {}).is_ok();
    // Truncated between two prefixes, or before the first one, an UPDATE is still well-formed.
    let list = body.len() - 7;
    for len in 0..body.len() {
        assert_eq!(whole(len), len == list || len == list + 4, "cut at {len}");
    }
    assert!(message(&[0xff; 19]).is_err());
}
