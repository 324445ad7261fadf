use std::time::Duration;

use bgp_proto::policy::{Change, Decision, Match, PrefixSet, Source};
use bgp_proto::rib::MultipathAsPath;
use bgp_proto::session::{BfdMode, HoldExpiry, PassiveMode, RemoteAsn, RoleMode};
use bgp_proto::table::{AddPathSend, MultipathWeights, NextHopMode, PeerLimits};
use bgp_proto::types::{Asn, Family, FamilyMap, FamilySet, Role, RouterId};
use bgp_proto::wire::{AddPathMode, Origin};

use super::*;

mod bmp;
mod control;
mod documents;
mod faults;
mod mrt;
mod unused;

const FULL: &str = include_str!("../../examples/full.toml");

/// The smallest valid configuration; tests append their own lines.
const LEAST: &str = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n";
fn parse(text: &str) -> Result<Config, Errors> {
    Config::parse(Path::new("m.toml"), text)
}

fn accepted(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_smallest_configuration_has_every_default() {
    let config = accepted(LEAST);
    assert_eq!(config.bgp.identity.asn, Asn(64512));
    assert_eq!(config.bgp.cluster_id.0, config.bgp.identity.router_id.0);
    assert_eq!(
        config.bgp.listen,
        ["0.0.0.0:179".parse().unwrap(), "[::]:179".parse::<SocketAddr>().unwrap()]
    );
    assert_eq!(config.fib, FibSettings::default());
    assert!(config.table.fib_enabled && config.table.fib_policy.is_none());
    assert_eq!(config.host.control.socket, Path::new("/run/margay/margay.sock"));
    assert_eq!(config.host.http, None);
    let http = accepted(&format!("{LEAST}[http]\nlisten = \"[::1]:9479\"\n")).host.http.unwrap();
    let peers = PeerSeries { choice: PeerChoice::Auto, max: 64, top: 10 };
    assert_eq!(http.peers, peers, "safe in a large mesh, complete in a small setup");
    assert_eq!(config.host.log.level, LogLevel::Info);
}

#[test]
fn a_plain_peer_has_the_defaults_of_the_protocol() {
    let config =
        accepted(&format!("{LEAST}[[bgp.peers]]\naddress = \"2001:db8::1\"\nremote-asn = 64512\n"));
    let peer = &config.peers[0];
    assert_eq!(&*peer.name, "2001:db8::1");
    let wanted = PeerConfig::new(peer.session.address, Asn(64512), &config.bgp.identity);
    assert_eq!(*peer.session, wanted);
    assert_eq!(&*peer.routes.import.policy.name, "all", "internal peers import everything");
    assert_eq!(&*peer.routes.export.policy.name, "all");
    assert_eq!(peer.routes.export.next_hop, NextHopMode::Auto);
    assert_eq!(peer.routes.limits.prefixes_max, None);
}

#[test]
fn the_full_example_is_read_key_by_key() {
    let config = accepted(FULL);
    let tor = &config.peers[0];
    assert_eq!((&*tor.name, &*tor.routes.name), ("tor-1", "tor-1"));
    assert_eq!(tor.description.as_deref(), Some("rack 12, noc@example.net"));
    let s = &*tor.session;
    assert_eq!((s.address.to_string().as_str(), s.port), ("192.0.2.1", 1790));
    assert_eq!((s.remote_asn.exactly(), s.local_asn), (Some(Asn(65001)), Asn(64600)));
    assert_eq!(s.router_id, RouterId(0x0a00_0001));
    assert_eq!(s.source_address, Some([192, 0, 2, 2].into()));
    assert_eq!(s.passive, PassiveMode::Passive);
    assert_eq!(s.families, FamilySet::ALL);
    assert_eq!(s.hold_time, Duration::from_secs(9));
    assert_eq!(s.keepalive_time, Some(Duration::from_secs(3)));
    assert_eq!(s.connect_retry_time, Duration::from_secs(1));
    assert_eq!(s.send_hold_time, Some(Duration::ZERO));
    assert_eq!(s.graceful_restart_time, None, "0 leaves the capability out");
    assert_eq!(s.long_lived_stale_time, None, "not inherited");
    assert_eq!(s.hold_expiry, HoldExpiry::Death);
    assert_eq!(s.security.md5.as_ref().unwrap().octets(), b"secret");
    assert_eq!(s.security.ttl_security_hops, Some(1));
    assert_eq!(s.add_path[Family::Ipv4], AddPathMode::Both);
    assert_eq!(s.add_path[Family::Ipv6], AddPathMode::Both);
    assert!(!s.extended_messages && s.extended_next_hop && !s.enhanced_refresh);
    assert!(!s.enforce_first_as && !s.reject_as_sets);
    assert_eq!((s.role, s.role_mode), (Some(Role::Customer), RoleMode::Strict));
    let r = &*tor.routes;
    assert_eq!((&*r.import.policy.name, &*r.export.policy.name), ("from-tor", "to-tor"));
    assert_eq!(r.export.next_hop, NextHopMode::Keep);
    assert_eq!(r.export.add_path_send, AddPathSend::Best(4));
    assert_eq!((r.import.allow_local_asn, r.limits.prefixes_max), (1, Some(1000)));
    assert_eq!(r.limits.prefixes_warning_percent, 90);
    assert_eq!((r.limits.memory_max, config.table.memory_max), (Some(64 << 20), Some(512 << 20)));
    assert_eq!(r.stale_time, Duration::from_secs(60));
    assert!(!r.import.honour_graceful_shutdown);
    assert_eq!(tor.fallover, Fallover::Timers);
    let bfd = tor.bfd.as_ref().unwrap();
    assert_eq!((bfd.hops, bfd.session.role), (BfdHops::Single, bgp_proto::bfd::Role::Passive));
    assert_eq!(bfd.session.min_tx, Duration::from_millis(300));
    assert_eq!(bfd.session.min_rx, Duration::from_millis(200));
    assert_eq!(bfd.session.multiplier.get(), 4);
    let auth = bfd.session.auth.as_ref().unwrap();
    assert_eq!((auth.kind, auth.send.id), (bgp_proto::bfd::AuthKind::MeticulousKeyedSha1, 1));
    assert_eq!(auth.accept.iter().map(|key| key.id).collect::<Vec<_>>(), [2]);

    let client = &config.peers[1];
    let chain = client.session.security.ao.as_ref().unwrap();
    assert!(std::sync::Arc::ptr_eq(chain, &config.key_chains[0]));
    let [first, second] = chain.keys() else { panic!("{chain:?}") };
    assert_eq!((first.send_id, first.receive_id, &*first.algorithm), (1, 101, "hmac(sha1)"));
    assert_eq!((second.send.from, second.send.until), (Some(1_798_761_600), None));
    assert_eq!(second.algorithm, "cmac(aes128)");
    assert_eq!(config.key_chain_gaps(1_790_000_000), [""; 0]);
    assert_eq!(client.session.multihop_ttl, Some(5));
    assert_eq!(client.session.hold_time, Duration::from_secs(30), "inherited");
    assert_eq!(client.session.keepalive_time, Some(Duration::from_secs(10)));
    assert_eq!(client.session.graceful_restart_time, Some(Duration::from_secs(60)));
    let long_lived = [7200, 1800].map(Duration::from_secs);
    assert_eq!(client.session.long_lived_stale_time, Some(FamilyMap(long_lived)));
    assert_eq!(client.session.long_lived_stale_time_max, Some(Duration::from_secs(86_400)));
    assert!(config.table.long_lived);
    assert!(client.routes.reflection.client);
    assert_eq!(client.routes.reflection.cluster_id.unwrap().to_string(), "10.0.0.101");
    assert_eq!(client.routes.export.next_hop, NextHopMode::SelfAddress);

    let nodes = &config.dynamic[0];
    assert_eq!(nodes.peers_max, 10_000);
    let node = nodes.peer([10, 255, 3, 4].into());
    assert_eq!((&*node.name, &*node.routes.name), ("nodes-10.255.3.4", "nodes-10.255.3.4"));
    assert_eq!(node.session.address.to_string(), "10.255.3.4");
    let inside = bgp_proto::types::on_interface("fe80::5".parse().unwrap(), 3);
    assert_eq!(&*nodes.peer(inside).name, "nodes-fe80::5%3");
    assert_eq!(node.session.passive, PassiveMode::Passive);
    assert!(node.routes.reflection.client);
    assert_eq!(
        (client.routes.vantage.as_deref(), node.routes.vantage.as_deref()),
        (Some("zone-a"), Some("zone-b"))
    );
    let costs = &config.table.vantages;
    assert_eq!((costs.cost("zone-a", "zone-b"), costs.cost("zone-c", "zone-a")), (10, 20));
    assert_eq!(costs.default, 50);

    assert_eq!(config.table.cluster_id.to_string(), "10.0.0.100");
    assert_eq!(config.table.multipath_max, 8);
    assert_eq!(&*config.table.fib_policy.as_ref().unwrap().name, "to-kernel");
    let installs: Vec<_> = config.originate.iter().map(|o| o.install.clone()).collect();
    assert_eq!(installs, [Some(FibKind::Blackhole), Some(FibKind::Unreachable), None]);
    assert_eq!(config.redistribute[0].protocols, [4, 80]);
    assert_eq!(&*config.redistribute[0].policy.as_ref().unwrap().name, "from-kernel");
    assert_eq!(config.redistribute[0].origin, Origin::Incomplete);
    assert_eq!(config.redistribute[1].from, RedistributeFrom::Connected);
    assert_eq!(config.redistribute[1].origin, Origin::Igp);
    let bird = config.host.control.bird_sockets.as_ref().and_then(BirdSockets::paths).unwrap();
    assert_eq!(bird.ipv4.to_str(), Some("/run/margay/bird.ctl"));
    assert_eq!(bird.ipv6.to_str(), Some("/run/margay/bird6.ctl"));
    let fib = FibSettings {
        enabled: true,
        table: 100,
        protocol: 77,
        metric: Some(32),
        multipath_max: 8,
        multipath_weights: MultipathWeights::LinkBandwidth,
        multipath_as_path: MultipathAsPath::SameNeighborAs,
        via_default: ViaDefault::Never,
        resolve_over_bgp: false,
        next_hop_objects: true,
        backup_paths: true,
        source_v4: Some([192, 0, 2, 1].into()),
        source_v6: Some("2001:db8::1".parse().unwrap()),
    };
    assert_eq!(config.fib, fib);
    let peers = PeerSeries { choice: PeerChoice::All, max: 500, top: 20 };
    let listen = "127.0.0.1:9479".parse().unwrap();
    let page = PageSettings { token: None, host_names: vec!["node-1.example.net".into()] };
    assert_eq!(config.host.http, Some(HttpSettings { listen, peers, page: Some(page.into()) }));
    assert_eq!((config.host.log.level, config.host.log.format), (LogLevel::Debug, LogFormat::Json));
}

/// "Remove theirs, set ours": ours must not be removed with theirs.
#[test]
fn a_bandwidth_is_set_after_communities_are_cleared() {
    let config = accepted(&format!(
        "{LEAST}[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 64513\nimport = \"all\"\n\
         export = \"p\"\n[[policy]]\nname = \"p\"\n[[policy.rules]]\nthen = \"accept\"\n\
         set = {{ link-bandwidth = 7, med = 1 }}\nclear-communities = true\n"
    ));
    let changes = &config.peers[0].routes.export.policy.rules[0].changes;
    let [Change::Med(1), Change::ClearCommunities, Change::SetLinkBandwidth(_)] = changes[..]
    else {
        panic!("{changes:?}");
    };
}

#[test]
fn rules_become_conditions_and_changes_in_order() {
    let config = accepted(FULL);
    let policy = &config.peers[0].routes.import.policy;
    assert_eq!(policy.default, Decision::Accept);
    let Match::Prefix(martians) = &policy.rules[0].matches[0] else { panic!("{policy:?}") };
    for (prefix, inside) in
        [("10.1.0.0/16", true), ("11.0.0.0/25", true), ("11.0.0.0/24", false), ("::/48", false)]
    {
        assert_eq!(martians.contains(prefix.parse().unwrap()), inside, "{prefix}");
    }
    let near = &policy.rules[1];
    assert_eq!(near.matches[0], Match::AsPathPrefix(vec![Asn(65001), Asn(65002)]));
    assert_eq!(near.matches[1], Match::AsPathContains(vec![Asn(65002)]));
    assert_eq!(near.matches[2], Match::AsPathLength(2..=4));
    let kinds = Match::Any(vec![
        Match::Community(vec!["no-export".parse().unwrap()]),
        Match::LargeCommunity(vec!["64512:1:2".parse().unwrap()]),
        Match::ExtCommunity(vec!["rt:64512:100".parse().unwrap()]),
    ]);
    assert_eq!(near.matches[3], Match::Not(Box::new(kinds)));
    assert_eq!(
        near.changes,
        [
            Change::LocalPref(200),
            Change::ClearMed,
            Change::NextHop([192, 0, 2, 1].into()),
            Change::Metric(7),
            Change::Preference(120),
            Change::ClearCommunities,
            Change::RemoveCommunity("64512:9".parse().unwrap()),
            Change::AddCommunity("64512:1".parse().unwrap()),
            Change::AddLargeCommunity("64512:2:3".parse().unwrap()),
            Change::AddExtCommunity("ro:192.0.2.1:5".parse().unwrap()),
            Change::AddExtCommunity("0x4004fde800000001".parse().unwrap()),
        ]
    );
    assert_eq!(near.decision, Decision::Next);

    // (a and b) or c, with the available connectives.
    let not = |m: Match| Match::Not(Box::new(m));
    let both = not(Match::Any(vec![
        not(Match::NextHop(PrefixSet::covering(["192.0.2.0/24".parse().unwrap()]))),
        not(Match::LocalPref(0..=150)),
    ]));
    let internal = Match::PeerType(bgp_proto::types::PeerType::Internal);
    assert_eq!(policy.rules[2].matches, [Match::Any(vec![both, internal])]);

    let own = &config.peers[0].routes.export.policy.rules[0];
    assert!(own.matches.contains(&Match::Source(vec![
        Source::Static,
        Source::Kernel,
        Source::Announced
    ])));
    assert_eq!(own.changes, [Change::Med(10), Change::Prepend(Asn(64600), 2)]);
    let bandwidth = |rule: usize| &config.peers[0].routes.export.policy.rules[rule].changes[..];
    assert_eq!(bandwidth(1), [Change::ScaleLinkBandwidth(50)]);
    // 10 Gbit/s, of our AS 64512.
    let set = "0x4004fc004e9502f9".parse().unwrap();
    assert_eq!(bandwidth(2), [Change::SetLinkBandwidth(set)]);
    let transitive = bgp_proto::types::BandwidthScope::Transitive;
    assert_eq!(bandwidth(3), [Change::SumLinkBandwidth(Asn(64512), transitive)]);
    assert_eq!(bandwidth(4), [Change::ClearLinkBandwidth]);
    let kernel = &config.redistribute[0].policy.as_ref().unwrap().rules[0];
    assert_eq!(kernel.matches, [Match::Interface(vec!["cali*".into()]), Match::Metric(0..=100)]);
}

#[test]
fn a_password_file_is_relative_to_the_configuration_and_loses_one_line_end() {
    let folder = std::env::temp_dir().join(format!("margay-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("key"), "two words \r\n").unwrap();
    let text = format!(
        "{LEAST}[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 64512\npassword-file = \"key\"\n"
    );
    let config = Config::parse(&folder.join("m.toml"), &text);
    std::fs::remove_dir_all(&folder).unwrap();
    let config = config.unwrap();
    assert_eq!(config.peers[0].session.security.md5.as_ref().unwrap().octets(), b"two words ");
    assert!(!format!("{config:?}{config}").contains("two words"));
}

#[test]
fn redistribution_selects_by_every_criterion() {
    let config = accepted(FULL);
    let rule = &config.redistribute[0];
    let route = KernelRoute {
        prefix: "10.65.3.0/24".parse().unwrap(),
        from: RedistributeFrom::Kernel,
        protocol: 80,
        interface: Some("cali1"),
    };
    assert!(rule.selects(&route));
    for other in [
        KernelRoute { prefix: "10.64.0.0/16".parse().unwrap(), ..route },
        KernelRoute { from: RedistributeFrom::Connected, ..route },
        KernelRoute { protocol: 3, ..route },
        KernelRoute { interface: Some("cali9x"), ..route },
        KernelRoute { interface: Some("eth0"), ..route },
        KernelRoute { interface: None, ..route },
    ] {
        assert!(!rule.selects(&other), "{other:?}");
    }
    let any = Redistribute {
        from: RedistributeFrom::Kernel,
        protocols: Vec::new(),
        interfaces: Vec::new(),
        prefixes: Vec::new(),
        origin: Origin::Incomplete,
        policy: None,
    };
    assert!(any.selects(&KernelRoute { protocol: 3, interface: None, ..route }));
    assert!(!any.selects(&KernelRoute { protocol: 2, ..route }), "the kernel's own routes");
}

#[test]
fn a_reload_changes_only_what_differs() {
    let old = accepted(FULL);
    assert!(old.changes_to(&accepted(FULL)).is_empty());
    assert_eq!(old.changes_to(&old).to_string(), "nothing changed");

    let changed = |from: &str, to: &str| {
        assert!(FULL.contains(from), "{from}");
        old.changes_to(&accepted(&FULL.replacen(from, to, 1)))
    };
    let names = |list: &[PeerEntry]| list.iter().map(|p| p.name.to_string()).collect::<Vec<_>>();

    let c = changed("hold-time = 9\n", "hold-time = 12\n");
    assert_eq!(names(&c.peers_retimed), ["tor-1"], "timers are those of the next session");
    let (peers_retimed, differences) = (c.peers_retimed.clone(), c.differences.clone());
    assert_eq!(c, Changes { peers_retimed, differences, ..Changes::default() });
    let said = "peer tor-1: timers changed, session stays, the next one has the new timers \
                (hold-time 9 → 12)";
    assert_eq!(c.to_string(), said);
    let c = changed("time = 3600, ipv4 = 7200", "time = 3600, ipv4 = 7201");
    assert!(!c.peers_retimed.is_empty() && c.peers_restarted.is_empty(), "{c:?}");
    let c = changed("max = 86400", "max = 86401");
    assert!(!c.peers_retimed.is_empty() && c.peers_reconfigured.is_empty(), "{c:?}");

    let c = changed("graceful-restart-time = 0\n", "graceful-restart-time = 9\n");
    assert_eq!(names(&c.peers_restarted), ["tor-1"], "it offers one capability more");
    let c = changed("extended-messages = false\n", "extended-messages = true\n");
    assert_eq!(names(&c.peers_restarted), ["tor-1"]);
    let (peers_restarted, differences) = (c.peers_restarted.clone(), c.differences.clone());
    assert_eq!(c, Changes { peers_restarted, differences, ..Changes::default() });
    let expected =
        "peer tor-1: session parameters changed, session restarts (extended-messages false → true)";
    assert_eq!(c.to_string(), expected);

    let c = changed("id = 2\n", "id = 3\n");
    assert!(!c.peers_restarted.is_empty(), "id 102 is that of another key");
    let c = changed("2027-01-02", "2027-01-01");
    let said =
        "peer 2001:db8::7: keys of TCP-AO changed, session stays (tcp-ao changed)".to_owned();
    assert_eq!(c.lines(), [said]);
    let c = changed("secret", "other");
    assert_eq!(names(&c.peers_restarted), ["tor-1"], "a new key restarts");
    assert!(c.to_string().ends_with("session restarts (password changed)"), "{c}");

    let c = changed("rack 12", "rack 13");
    assert_eq!(names(&c.peers_reconfigured), ["tor-1"]);
    assert!(c.to_string().contains("session stays (description"), "{c}");

    let c = changed("set.med = 10", "set.med = 11");
    assert_eq!(names(&c.peers_reconfigured), ["tor-1"], "its export policy");
    assert!(c.to_string().contains("session stays (export changed)\n"), "{c}");
    assert!(c.peers_restarted.is_empty() && c.table.is_none());

    let c = changed("name = \"tor-1\"", "name = \"tor-2\"");
    let [(from, to)] = c.peers_renamed.as_slice() else { panic!("{c:?}") };
    assert_eq!((&**from, &*to.name), ("tor-1", "tor-2"));
    assert_eq!(c, Changes { peers_renamed: c.peers_renamed.clone(), ..Changes::default() });
    let c = changed(
        "name = \"tor-1\"\naddress = \"192.0.2.1\"",
        "name = \"tor-2\"\naddress = \"192.0.2.9\"",
    );
    assert_eq!(
        (c.peers_removed.as_slice(), names(&c.peers_added)),
        ([Arc::from("tor-1")].as_slice(), vec!["tor-2".into()])
    );

    let c = changed("peers-max = 10000", "peers-max = 9");
    assert_eq!(c.dynamic.unwrap().changed, ["10.255.0.0/16".parse().unwrap()]);

    let c = changed("prefix = \"10.66.0.0/16\"", "prefix = \"10.67.0.0/16\"");
    assert_eq!(c.originate_withdrawn, ["10.66.0.0/16".parse().unwrap()]);
    assert_eq!(c.originate_added[0].prefix, "10.67.0.0/16".parse().unwrap());
    assert_eq!(c.to_string(), "originate 10.66.0.0/16: withdrawn\noriginate 10.67.0.0/16: added");
    let c = changed("kind = \"unreachable\"", "kind = \"blackhole\"");
    assert_eq!(c.originate_changed[0].prefix, "10.66.0.0/16".parse().unwrap());
    assert!(c.originate_withdrawn.is_empty() && c.originate_added.is_empty());

    let c = changed("peer-series-max = 500", "peer-series-max = 100");
    assert!(c.peer_series_changed && c.restart_needed.is_empty(), "{c:?}");
    let c = changed("127.0.0.1:9479", "127.0.0.1:9480");
    assert_eq!(c.restart_needed, ["http.listen"]);
    assert!(!c.peer_series_changed);
    let c = changed("multipath-max = 8", "multipath-max = 4");
    assert!(c.table.is_some() && c.restart_needed.is_empty());
    let c = changed("\"link-bandwidth\"", "\"equal\"");
    assert!(c.table.is_some() && c.restart_needed.is_empty());
    let c = changed("backup-paths = true", "backup-paths = false");
    assert!(c.table.is_some_and(|table| !table.backup_paths) && c.restart_needed.is_empty());
    let c = changed("protocol = 77", "protocol = 78");
    assert_eq!(c.to_string(), "fib.protocol: the new value takes effect after a restart of margay");
    assert!(changed("1179", "1180").bgp_listen_changed);
    assert!(changed("\"-cali9*\", ", "").redistribute.is_some());
    let c = changed("\"json\"", "\"text\"");
    assert_eq!(c.to_string(), "log.format: the new value takes effect after a restart of margay");
    assert_eq!(c.log_level, None);
}

/// Nothing would come of a backup without next-hop objects but its cost.
#[test]
fn backup_paths_wait_for_the_next_hop_objects_that_they_need() {
    let without = "next-hop-objects = false\nbackup-paths = false";
    let running = accepted(&FULL.replace("next-hop-objects = true\nbackup-paths = true", without));
    assert!(!running.fib.next_hop_objects);
    let wanted = ["fib.next-hop-objects", "fib.backup-paths"];
    let mut in_force = accepted(FULL);
    let changes = running.changes_to(&in_force);
    assert_eq!(changes, Changes { restart_needed: wanted.to_vec(), ..Changes::default() });
    in_force.keep_until_restart(&running);
    assert!(!in_force.fib.backup_paths && !in_force.table.backup_paths);
    assert_eq!(in_force.changes_to(&accepted(FULL)).restart_needed, wanted);
}

/// After a reload, the next one compares with the values that really run.
#[test]
fn keys_that_need_a_restart_are_reported_until_they_match_the_running_values() {
    let running = accepted(FULL);
    let edited = FULL
        .replace("[fib]\nenabled = true", "[fib]\nenabled = false")
        .replace("protocol = 77", "protocol = 78")
        .replace("127.0.0.1:9479", "127.0.0.1:9480")
        .replace("peer-series-max = 500", "peer-series-max = 100")
        .replace("multipath-max = 8", "multipath-max = 4")
        .replace("\"json\"", "\"text\"");
    let wanted = ["fib.enabled", "fib.protocol", "http.listen", "log.format"];
    let changes = running.changes_to(&accepted(&edited));
    assert_eq!(changes.restart_needed, wanted);
    assert!(changes.table.unwrap().fib_enabled, "routes stay in the kernel until the restart");
    let mut in_force = accepted(&edited);
    in_force.keep_until_restart(&running);
    assert_eq!((in_force.fib.protocol, in_force.fib.multipath_max), (77, 4));
    assert!(in_force.fib.enabled && in_force.table.fib_enabled);
    let waiting = in_force.changes_to(&accepted(&edited));
    assert_eq!(waiting, Changes { restart_needed: wanted.to_vec(), ..Changes::default() });
    let back = in_force.changes_to(&accepted(FULL));
    assert!(back.restart_needed.is_empty() && back.peer_series_changed && back.table.is_some());

    let mut without = accepted(&edited);
    without.host.http = None;
    assert!(!running.changes_to(&without).peer_series_changed);
    without.keep_until_restart(&running);
    assert_eq!(without.host.http, running.host.http, "it is served until the restart");
}

#[test]
fn the_summary_lists_what_would_run() {
    let summary = accepted(FULL).to_string();
    for line in [
        "AS 64512, router id 10.0.0.1, cluster id 10.0.0.100",
        "listens on 0.0.0.0:1179, [::]:1179",
        "peer tor-1: 192.0.2.1, accepts only, AS 65001 (external), ipv4, ipv6, hold 9 s, import from-tor, export to-tor, at most 1000 prefixes, at most 64 MiB, TCP MD5, TTL security 1, BFD 300/200 ms x 4 authenticated",
        "peer 2001:db8::7: 2001:db8::7 port 179, AS 64512 (internal), ipv6, hold 30 s, import all, export all, route reflector client, vantage zone-a, TCP-AO with key chain fabric",
        "key chain fabric: key 1/101 hmac(sha1), key 2/102 cmac(aes128)",
        "peers on swp*: neighbours by router advertisements, which are sent too, AS external, ipv4, ipv6, hold 30 s, import from-tor, export to-tor",
        "dynamic peers 10.255.0.0/16: at most 10000, AS 64512 (internal), ipv4, hold 30 s, import all, export all, route reflector client, vantage zone-b",
        "originates 10.65.1.0/26, blackhole in the kernel",
        "originates 2001:db8:65::/64, not in the kernel",
        "redistributes kernel routes, protocols 4 80, interfaces -cali9* cali*, within 10.65.0.0/16, policy from-kernel",
        "redistributes connected networks, interfaces eth*",
        "writes routes to kernel table 100 as protocol 77, at most 8 hops each, weighted by link bandwidth, of paths from one neighbouring AS, over next-hop objects, with backup paths",
        "control socket /run/margay/example.sock, for group adm",
        "routes hold at most 512 MiB",
        "metrics and health on http://127.0.0.1:9479",
        "needs CAP_NET_ADMIN (kernel routes, TCP MD5), CAP_NET_RAW (router discovery, bind-interface in a VRF)",
    ] {
        assert!(summary.lines().any(|l| l == line), "{line}\nis not in\n{summary}");
    }
    assert!(!summary.contains("secret"));
    let least = accepted(LEAST).to_string();
    assert!(least.contains("at most 16 hops each, over next-hop objects\n"), "{least}");
    let without = accepted(&format!("{LEAST}\n[fib]\nnext-hop-objects = false\n")).to_string();
    assert!(without.contains("at most 16 hops each\n"), "{without}");
    assert!(!FibSettings::calico().next_hop_objects, "BIRD and Felix do not know them");
    assert!(
        least.contains("needs CAP_NET_BIND_SERVICE (port 179), CAP_NET_ADMIN (kernel routes)"),
        "{least}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    /// Lines of the full example cut, repeated and reordered: never a panic, and every error has a
    /// position.
    #[test]
    fn no_shuffled_example_panics(picks in proptest::collection::vec((0usize..160, 0usize..60), 0..60)) {
        let lines: Vec<&str> = FULL.lines().collect();
        let text: String = picks
            .into_iter()
            .filter_map(|(line, cut)| {
                let line: &str = lines.get(line)?;
                let kept: String = line.chars().take(if cut < 40 { usize::MAX } else { cut - 40 }).collect();
                Some(kept + "\n")
            })
            .collect();
        if let Err(errors) = parse(&text) {
            proptest::prop_assert!(errors.as_slice().iter().all(|e| e.line.is_some() && e.column.is_some()));
        }
    }
}

fn calico(text: &str) -> Result<(CalicoSettings, HostSettings), Vec<String>> {
    match Document::parse(Path::new("/etc/margay/m.toml"), text) {
        Ok(Document::Calico { calico, host }) => Ok((*calico, *host)),
        Ok(Document::Own(_)) => panic!("no [calico] in {text}"),
        Err(errors) => Err(errors.to_string().lines().map(str::to_owned).collect()),
    }
}

#[test]
fn calico_settings_are_read_key_by_key() {
    let (settings, host) = calico(
        "[calico]\nnode = \"n1\"\ndatastore = \"etcd\"\nca-file = \"ca.pem\"\n\
         endpoints = [\"https://10.0.0.1:2379\", \"https://[fd00::2]:2379/\"]\n\
         cert-file = \"/c.pem\"\nkey-file = \"/k.pem\"\nusername = \"margay\"\n\
         password-file = \"password\"\npath = \"secrets\"\nendpoint-status = \"/run/e\"\n\
         bird-sockets = [\"/run/bird.ctl\", \"/run/bird6.ctl\"]\n\
         memory-max = 512\n\
         [calico.peers]\nprefixes-max = 1000\nprefixes-warning-percent = 90\nmemory-max = 64\n\
         bfd = true\n\
         [http]\nlisten = \"127.0.0.1:9479\"\n",
    )
    .unwrap();
    let etcd = CalicoEtcd {
        endpoints: vec!["https://10.0.0.1:2379".into(), "https://[fd00::2]:2379".into()],
        ca_file: Some("/etc/margay/ca.pem".into()),
        certificate: Some(("/c.pem".into(), "/k.pem".into())),
        user: Some(("margay".into(), "/etc/margay/password".into())),
    };
    assert_eq!(settings.node.as_deref(), Some("n1"));
    assert_eq!(settings.datastore, Some(CalicoDatastore::Etcd(etcd)));
    assert_eq!(settings.path, [PathBuf::from("/etc/margay/secrets")]);
    assert_eq!(settings.endpoint_status, Some("/run/e".into()));
    let peers = PeerLimits {
        prefixes_max: Some(1000),
        prefixes_warning_percent: 90,
        memory_max: Some(64 << 20),
    };
    let bfd = Some(BfdTemplate::default());
    assert_eq!(
        settings.limits,
        CalicoLimits { memory_max: Some(512 << 20), peers, bfd, ..CalicoLimits::default() }
    );
    let bird = BirdPaths { ipv4: "/run/bird.ctl".into(), ipv6: "/run/bird6.ctl".into() };
    assert_eq!(host.control.bird_sockets, Some(BirdSockets::At(bird)));
    assert!(host.http.is_some());

    let (settings, _) = calico("[calico]\n").unwrap();
    assert_eq!((settings.node, settings.datastore), (None, None));
    assert_eq!(settings.limits, CalicoLimits::default());
    for text in [
        "[calico]\nbird-sockets = \"none\"\n",
        "[calico]\nbird-sockets = [\"/a\", \"/b\"]\n[control]\nbird-sockets = \"none\"\n",
    ] {
        let (_, host) = calico(text).unwrap();
        assert_eq!(host.control.bird_sockets, Some(BirdSockets::Off), "{text}");
    }
    let (settings, _) = calico(
        "[calico]\ndatastore = \"kubernetes\"\nkubeconfig = \"kc\"\nendpoint = \"https://h:6443\"\n\
         ca-file = \"/ca\"\ntoken-file = \"/t\"\napi-group = \"projectcalico.org/v3\"\n",
    )
    .unwrap();
    let kubernetes = CalicoKubernetes {
        endpoint: Some("https://h:6443".into()),
        ca_file: Some("/ca".into()),
        certificate: None,
        token_file: Some("/t".into()),
        api_group: Some("projectcalico.org/v3".into()),
    };
    assert_eq!(settings.datastore, Some(CalicoDatastore::Kubernetes(kubernetes)));
    assert_eq!(settings.kubeconfig, Some("/etc/margay/kc".into()));
    let (settings, _) = calico("[calico]\ndatastore = \"file\"\npath = \"/c\"\n").unwrap();
    assert_eq!(settings.datastore, Some(CalicoDatastore::Files));
}

/// The example contains every key, and is valid.
#[test]
fn the_example_of_calico_is_complete() {
    const EXAMPLE: &str = include_str!("../../examples/calico.toml");
    let (settings, host) = calico(EXAMPLE).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let CalicoSettings {
        node,
        datastore,
        kubeconfig,
        path,
        endpoint_status,
        limits,
        version,
        state_file,
        drain_by,
        vantage_label,
        endpoint_weights,
        endpoint_bandwidth,
    } = settings;
    assert!(kubeconfig.is_none());
    let Some(CalicoDatastore::Etcd(etcd)) = datastore else { panic!("{datastore:?}") };
    assert!(node.is_some() && endpoint_status.is_some() && !path.is_empty());
    assert!(etcd.ca_file.is_some() && etcd.certificate.is_some() && etcd.user.is_some());
    assert_eq!(host.control.bird_sockets, Some(BirdSockets::At(BirdPaths::calico())));
    assert_eq!(version.as_deref(), Some("v3.32.1"));
    assert!(matches!(state_file, Some(StateFile::At(_))));
    assert_eq!(drain_by, Some(DrainBy { annotation: true, cordon: false }));
    assert_eq!(vantage_label.as_deref(), Some("topology.kubernetes.io/zone"));
    let costs = &limits.vantages;
    assert_eq!((costs.cost("zone-a", "zone-b"), costs.default), (10, 50));
    assert_eq!(endpoint_weights, Some(EndpointWeights::Transitive));
    assert_eq!(endpoint_bandwidth, Some(12_500_000));
    assert!(limits.memory_max.is_some());
    let PeerLimits { prefixes_max, prefixes_warning_percent, memory_max } = limits.peers;
    assert!(prefixes_max.is_some() && memory_max.is_some() && prefixes_warning_percent != 80);
}

#[test]
fn faults_of_calico() {
    for (text, fault) in [
        (
            "[[calico.vantages]]\nname = \"a\"\ncosts = { a = 1 }",
            "4:11: calico.vantages[1].costs.a: is the vantage itself, to which the cost is 0; leave it out",
        ),
        (
            "drain-by = [\"cordn\"]",
            "2:13: calico.drain-by[1]: \"cordn\" is not known here; did you mean \"cordon\"?",
        ),
        (
            "endpoint-weights = \"transitve\"",
            "2:20: calico.endpoint-weights: \"transitve\" is not known here; did you mean \"transitive\"?",
        ),
        (
            "datastore = \"ectd\"",
            "2:13: calico.datastore: \"ectd\" is not known here; did you mean \"etcd\"?",
        ),
        (
            "datastore = \"etcd\"",
            "1:1: calico.endpoints: is missing; write endpoints = [\"http://127.0.0.1:2379\"]",
        ),
        (
            "datastore = \"file\"",
            "1:1: calico.path: is missing; write path = \"/etc/margay/calico\"",
        ),
        (
            "datastore = \"etcd\"\nendpoints = \"10.0.0.1\"",
            "3:13: calico.endpoints: \"10.0.0.1\" is not an endpoint; write http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "datastore = \"etcd\"\nendpoints = \"http://a\"\ncert-file = \"c\"",
            "4:1: calico.cert-file: needs key-file; write both",
        ),
        (
            "datastore = \"etcd\"\nendpoints = \"http://a\"\npassword-file = \"c\"",
            "4:1: calico.password-file: needs username; write both",
        ),
        (
            "datastore = \"file\"\npath = \"p\"\nendpoints = \"http://a\"",
            "4:1: calico.endpoints: says how etcd is reached, and datastore is \"file\"; write the datastore that is meant, or leave the key out",
        ),
        (
            "datastore = \"kubernetes\"\nendpoints = \"http://a\"",
            "3:1: calico.endpoints: says how etcd is reached, and datastore is \"kubernetes\"; write the datastore that is meant, or leave the key out",
        ),
        (
            "token-file = \"/t\"",
            "2:1: calico.token-file: says how the Kubernetes API is reached, and datastore is left to the environment; write the datastore that is meant, or leave the key out",
        ),
        (
            "datastore = \"kubernetes\"\napi-group = \"projectcalico.org/v1\"",
            "3:13: calico.api-group: \"projectcalico.org/v1\" is not known here; did you mean \"projectcalico.org/v3\"?",
        ),
        (
            "bird-sockets = \"off\"",
            "2:16: calico.bird-sockets: is not a list of two different paths; write [\"/var/run/calico/bird.ctl\", \"/var/run/calico/bird6.ctl\"], or \"none\"",
        ),
        (
            "[calico.peers]\nprefix-max = 1",
            "3:1: calico.peers.prefix-max: unknown key; did you mean \"prefixes-max\"?",
        ),
        ("node = \"\"", "2:8: calico.node: is empty; leave the key out, or name something"),
        ("nodes = 1", "2:1: calico.nodes: unknown key; did you mean \"node\"?"),
        (
            "[bgp]\nasn = 1",
            "2:2: bgp: follows from Calico's objects where [calico] is; leave one of them out",
        ),
    ] {
        let faults = calico(&format!("[calico]\n{text}\n")).unwrap_err();
        assert!(
            faults.iter().any(|f| f == &format!("/etc/margay/m.toml:{fault}")),
            "{text}: {faults:#?}"
        );
    }
}

#[test]
fn bfd_is_configured_by_true_or_by_a_table() {
    let session_and_bfd = |more: &str| {
        let text = format!(
            "{LEAST}bfd = {{ min-tx = 50, multiplier = 5 }}\n[[bgp.peers]]\naddress = \"192.0.2.1\"\nimport = \"all\"\nexport = \"all\"\n{more}"
        );
        accepted(&text).peers[0].clone()
    };
    let mode = |more: &str| session_and_bfd(more).session.bfd_mode;
    let peer = |more: &str| session_and_bfd(more).bfd;
    assert_eq!(peer("remote-asn = 65001\n"), None);
    assert_eq!(peer("remote-asn = 65001\nbfd = false\n"), None);
    let bfd = peer("remote-asn = 65001\nbfd = true\n").unwrap();
    assert_eq!(
        (bfd.session.min_tx, bfd.session.min_rx),
        (Duration::from_millis(50), Duration::from_millis(300))
    );
    assert_eq!((bfd.session.multiplier.get(), bfd.hops), (5, BfdHops::Single));
    assert_eq!(mode("remote-asn = 65001\nbfd = true\n"), BfdMode::Lenient);
    assert_eq!(mode("remote-asn = 65001\nbfd = { strict = true }\n"), BfdMode::Strict);
    let bfd = peer("remote-asn = 64512\nbfd = { multiplier = 2 }\n").unwrap();
    assert_eq!(
        (bfd.session.multiplier.get(), bfd.hops),
        (2, BfdHops::Multi { ttl_min: 0 }),
        "internal"
    );
    assert_eq!(
        peer("remote-asn = 64512\nbfd = { multihop = false }\n").unwrap().hops,
        BfdHops::Single
    );
    assert_eq!(
        peer("remote-asn = 65001\nmultihop-ttl = 3\nbfd = true\n").unwrap().hops,
        BfdHops::Multi { ttl_min: 0 }
    );
    let gtsm = peer("remote-asn = 65001\nttl-security = 2\nbfd = true\n").unwrap();
    assert_eq!(gtsm.hops, BfdHops::Multi { ttl_min: 254 });
    assert_eq!(
        peer("remote-asn = 65001\nttl-security = 1\nbfd = true\n").unwrap().hops,
        BfdHops::Single
    );
}

#[test]
fn a_peer_by_interface_follows_its_interface_and_neighbour() {
    use std::num::NonZeroU32;
    let text = "[[bgp.peers]]\ninterface = \"swp*\"\nname = \"fabric\"\nremote-asn = \"internal\"\nbfd = true\n\
                [[bgp.peers]]\ninterface = \"eth1\"\naddress = \"fe80::1\"\nremote-asn = \"any\"\n\
                import = \"all\"\nexport = \"all\"\n";
    let config = accepted(&format!("{LEAST}{text}"));
    let [fabric, eth1] = &config.interfaces[..] else { panic!("{:?}", config.interfaces) };
    assert!(fabric.matches("swp12") && !fabric.matches("eth1") && eth1.matches("eth1"));
    assert_eq!(fabric.session.remote_asn, Asn(64512).into());
    assert_eq!(eth1.session.remote_asn, RemoteAsn::Any);
    let session = &fabric.session;
    assert!(session.extended_next_hop && session.is_single_hop());
    assert_eq!((session.families, fabric.fallover), (FamilySet::ALL, Fallover::Fast));
    assert_eq!(fabric.bfd.as_ref().map(|bfd| bfd.hops), Some(BfdHops::Single));

    let index = NonZeroU32::new(7).unwrap();
    let own = "fe80::1".parse().unwrap();
    let at = |text: &str| Neighbor::At { address: text.parse().unwrap(), source: Some(own) };
    let waiting = fabric.peer("swp1", index, &Neighbor::Unknown("no advertisement".into()));
    assert_eq!(&*waiting.name, "fabric-swp1");
    assert!(waiting.session.idle.is_some() && waiting.bfd.is_none());
    let found = fabric.peer("swp1", index, &at("fe80::2"));
    assert!(found.session.idle.is_none() && found.bfd.is_some());
    let outside = bgp_proto::types::off_interface(found.session.address);
    assert_eq!(outside, ("fe80::2".parse().unwrap(), Some(index)));
    let source = found.session.source_address.map(bgp_proto::types::off_interface);
    assert_eq!(
        source,
        Some((own.into(), Some(index))),
        "it is the address that the neighbour knows"
    );
    let fixed = Neighbor::At { address: eth1.neighbor.unwrap(), source: None };
    let eth1 = eth1.peer("eth1", index, &fixed);
    assert_eq!((&*eth1.name, eth1.session.source_address), ("eth1", None));

    // A neighbour that is found is a changed session, and one whose interface was renamed is not.
    let with = |entry: PeerEntry| Config { peers: vec![entry], ..config.clone() };
    let changes = with(waiting).changes_to(&with(found.clone()));
    assert_eq!(changes.peers_restarted.len(), 1, "{changes}");
    let renamed = fabric.peer("swp9", index, &at("fe80::2"));
    let changes = with(found).changes_to(&with(renamed));
    assert_eq!(changes.peers_renamed.len(), 1, "{changes}");
}
