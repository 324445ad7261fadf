use std::net::TcpListener;

use bgp_proto::session::LocalIdentity;
use bgp_proto::types::{Asn, RouterId};

use super::*;

fn config(address: &str) -> PeerConfig {
    let identity = LocalIdentity { asn: Asn(64512), router_id: RouterId(1) };
    PeerConfig::new(address.parse().unwrap(), Asn(65001), &identity)
}

fn probe(config: PeerConfig) -> Probe {
    let interface = |index, name: &str, running, address: &str| Interface {
        index,
        name: name.to_owned(),
        mtu: 1500,
        running,
        addresses: vec![(address.parse().unwrap(), 24)],
    };
    let interfaces =
        vec![interface(2, "eth0", true, "192.0.2.1"), interface(3, "eth1", false, "198.51.100.1")];
    Probe { config: Arc::new(config), interfaces, undisturbed: None, connection: Weak::new() }
}

async fn only(probe: Probe) -> Finding {
    let [finding] = <[Finding; 1]>::try_from(probe.run().await).unwrap();
    assert_eq!((finding.step, finding.outcome), (Step::Route, Outcome::Fails), "{finding:?}");
    finding
}

#[tokio::test]
async fn an_address_that_cannot_be_a_neighbour_is_named() {
    let own = only(probe(config("192.0.2.1"))).await;
    assert_eq!(own.text, "192.0.2.1 is an address of this machine");
    let source_address = Some("192.0.2.99".parse().unwrap());
    let foreign = only(probe(PeerConfig { source_address, ..config("192.0.2.2") })).await;
    assert_eq!(foreign.text, "192.0.2.99 (source-address) is on no interface");
    let idle = Some("interface swp1 does not exist".into());
    let idle = only(probe(PeerConfig { idle, ..config("192.0.2.2") })).await;
    assert_eq!(idle.text, "interface swp1 does not exist");
}

#[test]
fn a_neighbour_is_on_the_link_whose_network_it_is_in() {
    let on = |address: &str| {
        let probe = probe(config(address));
        probe.on_link().map(|link| link.name.clone())
    };
    assert_eq!(on("192.0.2.7").as_deref(), Some("eth0"));
    assert_eq!(on("203.0.113.7"), None);
    let far = bgp_proto::types::on_interface("fe80::2".parse().unwrap(), 3);
    let near = probe(PeerConfig { address: far, ..config("192.0.2.2") });
    assert_eq!(near.on_link().map(|link| &*link.name), Some("eth1"));
}

#[test]
fn the_longest_packets_have_the_options_of_the_session() {
    let info = TcpInfo { unacked: 0, retransmits: 0, mss: 1400, has_timestamps: true };
    let mut config = config("192.0.2.2");
    assert_eq!(probe(config.clone()).packet_len(&info), 1400 + 40 + 12);
    config.security.ao = Some(crate::net::testing::key_chain());
    assert_eq!(probe(config.clone()).packet_len(&info), 1400 + 40 + 12 + 16);
    config.security.ao = None;
    config.security.md5 = bgp_proto::session::AuthKey::new("x");
    assert_eq!(probe(config).packet_len(&info), 1400 + 40 + 12 + 20);
}

/// The remedies name what the session has.
#[test]
fn dropped_segments_are_said_to_be_of_the_key_chain() {
    let mut config = config("192.0.2.2");
    config.security.ao = Some(crate::net::testing::key_chain());
    let finding = silence::dropped(&probe(config), None);
    assert_eq!((finding.step, finding.outcome), (Step::Key, Outcome::Fails));
    let remedy = finding.remedy.unwrap();
    assert!(remedy.starts_with("give both sides the same key chain"), "{remedy}");
}

#[tokio::test]
async fn a_connection_that_is_closed_before_an_open_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let findings = probe(PeerConfig { port, ..config("127.0.0.1") }).run().await;
    peer.join().unwrap();
    let of = |step| findings.iter().find(|finding| finding.step == step).unwrap();
    assert_eq!(of(Step::Tcp).outcome, Outcome::Works, "{findings:?}");
    assert_eq!(of(Step::Open).outcome, Outcome::Fails, "{findings:?}");
    assert!(of(Step::Open).text.contains("before its OPEN"), "{findings:?}");
    // UDP to a closed port of this machine is answered.
    assert_eq!(of(Step::Mtu).outcome, Outcome::Works, "{findings:?}");
    // The listener is gone.
    let findings = probe(PeerConfig { port, ..config("127.0.0.1") }).run().await;
    let refused = findings.iter().find(|finding| finding.step == Step::Tcp).unwrap();
    assert_eq!(refused.outcome, Outcome::Fails);
    assert!(refused.text.contains("refuses connections"), "{refused:?}");
}
