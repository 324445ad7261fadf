use std::net::IpAddr;
use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;

fn key(text: &str) -> Option<AuthKey> {
    AuthKey::new(text)
}

fn entries(list: &[(&str, &str)]) -> Md5Entries {
    let entry = |(prefix, password): &(&str, &str)| (prefix.parse().unwrap(), key(password));
    list.iter().map(entry).collect()
}

fn shown(keys: &BTreeMap<Prefix, AuthKey>) -> Vec<String> {
    let text = |key: &AuthKey| String::from_utf8_lossy(key.octets()).into_owned();
    keys.iter().map(|(prefix, key)| format!("{prefix} {}", text(key))).collect()
}

#[test]
fn neighbours_inside_a_range_with_their_key_need_no_key_of_their_own() {
    let known = entries(&[
        ("10.0.0.0/16", "x"),
        ("10.0.0.1/32", "x"),
        ("10.0.0.2/32", "y"),
        ("10.0.3.0/24", "y"),
        ("10.0.3.1/32", "x"),
        ("10.0.3.2/32", "y"),
        ("10.1.0.1/32", "x"),
        ("10.1.0.2/32", ""),
    ]);
    let wanted =
        ["10.0.0.0/16 x", "10.0.0.2/32 y", "10.0.3.0/24 y", "10.0.3.1/32 x", "10.1.0.1/32 x"];
    assert_eq!(shown(&without_redundant(&known)), wanted);
}

#[test]
fn neighbours_with_equal_passwords_share_one_key() {
    let mut list: Vec<(String, &str)> =
        (1..=200).map(|n| (format!("10.0.1.{n}/32"), "x")).collect();
    list.extend((1..=100).map(|n| (format!("2001:db8::{n:x}/128"), "x")));
    let strings: Vec<(&str, &str)> = list.iter().map(|(p, k)| (p.as_str(), *k)).collect();
    let known = entries(&strings);
    assert_eq!(shown(&summarised(&known)), ["10.0.1.0/24 x", "2001:db8::/121 x"]);
    // A neighbour without a password, or with another one, is not covered.
    let mut mixed = known.clone();
    mixed.extend(entries(&[("10.0.1.250/32", ""), ("10.0.2.0/24", "y")]));
    let keys = summarised(&mixed);
    assert!(keys.len() < 12, "{:?}", shown(&keys));
    assert_eq!(longest(&keys, &"10.0.1.250/32".parse().unwrap()), None);
}

/// A small address space, so that prefixes overlap.
fn any_entries() -> impl Strategy<Value = Md5Entries> {
    let prefix = (any::<bool>(), 0u8..32, prop_oneof![Just(32u8), Just(32u8), 26u8..32]);
    let prefix = prefix.prop_map(|(v6, host, len)| {
        if v6 {
            Prefix::new(
                IpAddr::from([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]),
                128 - 32 + len,
            )
        } else {
            Prefix::new(IpAddr::from([10, 0, 0, host * 8 % 64 + host / 8]), len)
        }
    });
    let password = prop_oneof![Just(""), Just("x"), Just("x"), Just("y")];
    proptest::collection::btree_map(prefix, password.prop_map(key), 0..40)
}

proptest! {
    /// Every known neighbour and range finds its own key and no other, exact or summarised.
    #[test]
    fn every_neighbour_finds_its_own_key(known in any_entries()) {
        for keys in [without_redundant(&known), summarised(&known)] {
            for (prefix, wanted) in &known {
                match wanted {
                    Some(wanted) => prop_assert_eq!(longest(&keys, prefix), Some(wanted)),
                    None => {
                        // Inside a range with a password this is impossible; such configurations
                        // are refused.
                        let around = ancestors(prefix).find_map(|outer| known.get(&outer));
                        if around.is_none_or(Option::is_none) && !around_has_key(&known, prefix) {
                            prop_assert_eq!(longest(&keys, prefix), None, "{}", prefix);
                        }
                    }
                }
            }
        }
        prop_assert!(summarised(&known).len() <= without_redundant(&known).len());
    }
}

fn around_has_key(known: &Md5Entries, prefix: &Prefix) -> bool {
    ancestors(prefix).any(|outer| known.get(&outer).is_some_and(Option::is_some))
}

/// Uses the real kernel; its limit is far away.
#[test]
fn keys_are_replaced_in_place_and_deleted_when_unused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut installed = Installed::default();
    let socket = listener.as_fd();
    for (list, held) in [
        (&[("127.0.0.2/32", "a"), ("127.0.0.3/32", "")][..], &["127.0.0.2/32 a"][..]),
        (&[("127.0.0.2/32", "b"), ("127.0.1.0/24", "b")], &["127.0.0.2/32 b", "127.0.1.0/24 b"]),
        (&[("127.0.0.0/16", "b"), ("127.0.0.2/32", "b")], &["127.0.0.0/16 b"]),
        (&[("127.0.0.2/32", "")], &[]),
    ] {
        installed.apply(socket, &entries(list));
        assert_eq!(installed.missing(&entries(list)).len(), 0);
        assert_eq!(shown(&installed.keys), held);
    }
}

#[test]
fn the_message_about_a_key_names_the_remedy() {
    let prefix = "192.0.2.1/32".parse().unwrap();
    let of = |errno| explain(prefix, &io::Error::from_raw_os_error(errno), 1000).text;
    assert!(of(libc::ENOMEM).contains("net.core.optmem_max"), "{}", of(libc::ENOMEM));
    assert!(of(libc::ENOPROTOOPT).contains("CONFIG_TCP_MD5SIG"));
    assert!(of(libc::EPERM).contains("not permitted"));
}
