use std::net::TcpListener;

use bgp_proto::session::{AuthKey, KeyLifetime};

use super::super::testing::key_chain;
use super::*;

fn entries(list: &[(&str, &Arc<KeyChain>)]) -> ChainEntries {
    let entry =
        |(prefix, chain): &(&str, &Arc<KeyChain>)| (prefix.parse().unwrap(), Arc::clone(chain));
    list.iter().map(entry).collect()
}

fn key(id: u8, secret: &str) -> ChainKey {
    ChainKey {
        send_id: id,
        receive_id: id,
        secret: AuthKey::new(secret).unwrap(),
        ..key_chain().keys()[0].clone()
    }
}

#[test]
fn neighbours_inside_a_range_have_its_keys_while_these_live() {
    let later = KeyLifetime { from: Some(100), until: None };
    let second = ChainKey { send: later, accept: later, ..key(2, "b") };
    let chain = Arc::new(KeyChain::new("c", vec![key(1, "a"), second]).unwrap());
    let known = entries(&[
        ("10.0.0.0/16", &chain),
        ("10.0.3.0/24", &chain),
        ("10.0.3.1/32", &chain),
        ("10.1.0.1/32", &chain),
    ]);
    let ids = |now| -> Vec<String> {
        wanted_keys(&known, now).keys().map(|(p, ids)| format!("{p} {}", ids.send)).collect()
    };
    assert_eq!(ids(99), ["10.0.0.0/16 1", "10.1.0.1/32 1"]);
    assert_eq!(ids(100), ["10.0.0.0/16 1", "10.0.0.0/16 2", "10.1.0.1/32 1", "10.1.0.1/32 2"]);
}

#[test]
fn keys_collide_where_addresses_and_one_id_meet() {
    let at = |prefix: &str, send, receive| (prefix.parse().unwrap(), AoIds { send, receive });
    assert!(collides(at("10.0.0.0/8", 1, 1), at("10.0.0.1/32", 1, 2)));
    assert!(collides(at("10.0.0.1/32", 1, 2), at("10.0.0.0/8", 2, 2)));
    assert!(!collides(at("10.0.0.0/8", 1, 1), at("10.0.0.1/32", 2, 2)));
    assert!(!collides(at("10.0.0.2/32", 1, 1), at("10.0.0.1/32", 1, 1)));
}

/// On any kernel: what one of them lacks is said for every neighbour, and before any is configured.
#[test]
fn a_kernel_that_lacks_something_is_named_for_each_neighbour() {
    let chain = key_chain();
    let known = entries(&[("127.0.0.0/24", &chain), ("127.0.0.2/32", &chain)]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut installed = InstalledChains::default();
    installed.apply(listener.as_fd(), &known, 1, AoDelete::Later);
    let faults = installed.faults(&known);
    match try_key_chain(&chain) {
        Ok(()) => assert_eq!(faults, []),
        Err(text) => {
            assert!(text.contains("CONFIG_TCP_AO"), "{text}");
            let wanted = format!("it cannot connect: {text}");
            assert_eq!(faults.len(), 2);
            assert!(faults.iter().all(|fault| fault.text == wanted), "{faults:?}");
        }
    }
}

#[test]
fn a_refusal_names_the_remedy_and_no_secret() {
    let of = |errno| explain(&io::Error::from_raw_os_error(errno), &key_chain(), 1000);
    let cases = [
        (libc::ENOPROTOOPT, "use password (TCP MD5)"),
        (libc::ENOMEM, "net.core.optmem_max"),
        (libc::ENOENT, "hmac(sha1)"),
        (libc::EKEYREJECTED, "prefixes that do not overlap"),
        (libc::EPERM, "not permitted"),
    ];
    for (errno, wanted) in cases {
        let text = of(errno);
        assert!(text.contains(wanted) && text.contains("fabric"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
