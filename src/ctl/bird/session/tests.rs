use std::time::{Duration, SystemTime};

use bgp_proto::session::Origin;
use bgp_proto::types::{PeerId, RouterId, Source, Time};

use super::*;
use crate::ctl::bird::ProtocolId;
use crate::ctl::bird::model::Directions;

/// 2026-11-23 05:12:49 UTC.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_410_769)
}

fn clock() -> Clock {
    Clock::utc(now())
}

fn ago(secs: u64) -> SystemTime {
    now() - Duration::from_secs(secs)
}

fn text(write: impl FnOnce(&mut Reply)) -> String {
    let mut reply = Reply::default();
    write(&mut reply);
    String::from_utf8(reply.take()).unwrap()
}

fn mesh(name: &str, phase: Phase, word: &'static str, error: Option<&str>) -> Protocol {
    Protocol {
        id: ProtocolId::Peer(PeerId(0)),
        name: name.into(),
        kind: Kind::Bgp,
        phase,
        since: ago(2),
        word,
        error: error.map(str::to_owned),
    }
}

fn own(name: &str, kind: Kind, phase: Phase) -> Protocol {
    let id = ProtocolId::Own(Source::Static);
    Protocol { id, kind, since: ago(4), ..mesh(name, phase, "", None) }
}

fn wait(left: u64, of: u64) -> Wait {
    Wait { left: Duration::from_secs(left), of: Duration::from_secs(of) }
}

/// The expected text was written by BIRD 1.6.8.
#[test]
fn rows_equal_birds() {
    let protocols = [
        own("static1", Kind::Static, Phase::Up),
        own("kernel1", Kind::Kernel, Phase::Wait),
        own("device1", Kind::Device, Phase::Up),
        own("direct1", Kind::Direct, Phase::Up),
        mesh("Mesh_172_17_0_5", Phase::Up, "Established", None),
        Protocol { since: ago(4), ..mesh("Mesh_172_17_0_9", Phase::Start, "Passive", None) },
        Protocol {
            since: ago(4),
            ..mesh("Global_172_17_0_10", Phase::Start, "Connect", Some("Socket: No route to host"))
        },
        mesh("gone", Phase::Down, "Down", None),
    ];
    let answer = text(|reply| {
        heading(reply);
        protocols.iter().for_each(|protocol| row(reply, protocol, &clock()));
        reply.end(super::super::reply::OK, format_args!(""));
    });
    let wanted = "\
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     05:12:45    $
 kernel1  Kernel   master   wait   05:12:45    $
 device1  Device   master   up     05:12:45    $
 direct1  Direct   master   up     05:12:45    $
 Mesh_172_17_0_5 BGP      master   up     05:12:47    Established   $
 Mesh_172_17_0_9 BGP      master   start  05:12:45    Passive       $
 Global_172_17_0_10 BGP      master   start  05:12:45    Connect       Socket: No route to host
 gone     BGP      master   down   05:12:47    $
0000 $
";
    assert_eq!(answer, wanted.replace('$', ""));
}

fn counts(numbers: [u64; 5]) -> ChangeCounts {
    let [received, rejected, filtered, ignored, accepted] = numbers;
    ChangeCounts { received, rejected, filtered, ignored, accepted }
}

fn mesh_details() -> Details {
    Details {
        description: Some("Connection to BGP peer".to_owned()),
        preference: 100,
        input_filter: "(unnamed)".into(),
        output_filter: "(unnamed)".into(),
        recovery: Some(RecoveryOf::PendingWaiting),
        imported: 1,
        exported: 3,
        preferred: 1,
        changes: Directions {
            import_updates: counts([1, 0, 0, 0, 1]),
            import_withdraws: counts([0; 5]),
            export_updates: counts([7, 4, 0, 0, 3]),
            export_withdraws: counts([0; 5]),
        },
        bgp: Some(BgpDetails {
            neighbor: "172.17.0.5".parse().unwrap(),
            neighbor_asn: 64512,
            restarting: None,
            error_wait: None,
            connect_delay: None,
            session: Some(Established {
                neighbor_id: RouterId(u32::from_be_bytes([172, 17, 0, 5])),
                capabilities: vec![
                    "refresh",
                    "enhanced-refresh",
                    "restart-able",
                    "llgr-aware",
                    "AS4",
                    "add-path-rx",
                    "add-path-tx",
                ],
                session: vec!["internal", "multihop", "AS4", "add-path-rx", "add-path-tx"],
                source: "172.17.0.2".parse().unwrap(),
                limit: None,
                hold: wait(202, 240),
                keepalive: wait(39, 80),
            }),
        }),
    }
}

#[test]
fn details_equal_birds() {
    let protocol = mesh("Mesh_172_17_0_5", Phase::Up, "Established", None);
    let answer = text(|reply| {
        heading(reply);
        row(reply, &protocol, &clock());
        details(reply, &protocol, &mesh_details());
        reply.end(super::super::reply::OK, format_args!(""));
    });
    let wanted = "\
2002-name     proto    table    state  since       info
1002-Mesh_172_17_0_5 BGP      master   up     05:12:47    Established   $
1006-  Description:    Connection to BGP peer
   Preference:     100
   Input filter:   (unnamed)
   Output filter:  (unnamed)
   GR recovery:    pending waiting
   Routes:         1 imported, 3 exported, 1 preferred
   Route change stats:     received   rejected   filtered    ignored   accepted
     Import updates:              1          0          0          0          1
     Import withdraws:            0          0        ---          0          0
     Export updates:              7          4          0        ---          3
     Export withdraws:            0        ---        ---        ---          0
   BGP state:          Established
     Neighbor address: 172.17.0.5
     Neighbor AS:      64512
     Neighbor ID:      172.17.0.5
     Neighbor caps:    refresh enhanced-refresh restart-able llgr-aware AS4 add-path-rx add-path-tx
     Session:          internal multihop AS4 add-path-rx add-path-tx
     Source address:   172.17.0.2
     Hold timer:       202/240
     Keepalive timer:  39/80
 $
0000 $
";
    assert_eq!(answer, wanted.replace('$', ""));
}

/// As BIRD 1.6.8 replied for a peer that refuses connections, and for one whose routes are kept.
#[test]
fn details_of_a_session_that_is_not_up() {
    let error = Some("Socket: Connection refused");
    let protocol = mesh("Global_127_0_0_1", Phase::Start, "Active", error);
    let mut looked_for = mesh_details();
    looked_for.recovery = None;
    if let Some(bgp) = &mut looked_for.bgp {
        bgp.session = None;
        bgp.connect_delay = Some(wait(4, 5));
    }
    let tail = |answer: &str| answer.split_once("   BGP state:").unwrap().1.to_owned();
    let answer = text(|reply| details(reply, &protocol, &looked_for));
    let wanted = "          Active
     Neighbor address: 172.17.0.5
     Neighbor AS:      64512
     Connect delay:    4/5
     Last error:       Socket: Connection refused
 \n";
    assert_eq!(tail(&answer), wanted);
    assert!(!answer.contains("GR recovery"));
    if let Some(bgp) = &mut looked_for.bgp {
        bgp.connect_delay = None;
        bgp.error_wait = Some(wait(3, 5));
        bgp.restarting = Some(Duration::from_secs(97));
    }
    let answer = text(|reply| details(reply, &protocol, &looked_for));
    let wanted = "          Active
     Neighbor address: 172.17.0.5
     Neighbor AS:      64512
     Neighbor graceful restart active
     Restart timer:    97/-
     Error wait:       3/5
     Last error:       Socket: Connection refused
 \n";
    assert_eq!(tail(&answer), wanted);
}

#[test]
fn the_status_equals_birds() {
    let mut shown = Status {
        router_id: [172, 17, 0, 2].into(),
        started: ago(4),
        configured: ago(4),
        recovery: Some(Recovery { waiting: 1, timer: wait(236, 240) }),
        drained: None,
    };
    let wanted = "\
1000-BIRD v0.3.3+birdv1.6.8
1011-Router ID is 172.17.0.2
 Current server time is 2026-11-23 05:12:49
 Last reboot on 2026-11-23 05:12:45
 Last reconfiguration on 2026-11-23 05:12:45
0024-Graceful restart recovery in progress
   Waiting for 1 protocols to recover
   Wait timer is 236/240
0013 Daemon is up and running
";
    assert_eq!(text(|reply| status(reply, &shown, &clock())), wanted);
    shown.recovery = None;
    let (head, rest) = wanted.split_once("0024-").unwrap();
    let end = rest.split_once("0013").unwrap().1;
    assert_eq!(text(|reply| status(reply, &shown, &clock())), format!("{head}0013{end}"));
    shown.drained = Some("Drained since 2026-11-23T05:12:45Z (disk)".into());
    let drained = " Drained since 2026-11-23T05:12:45Z (disk)\n";
    assert_eq!(text(|reply| status(reply, &shown, &clock())), format!("{head}{drained}0013{end}"));
}

#[test]
fn errors_have_birds_class_and_text() {
    let error = |origin, code: Option<(u8, u8)>, text: &str| {
        let code = code.map(|(code, subcode)| Code { code, subcode });
        last_error(&LastError { at: Time::ZERO, origin, code, text: text.into() })
    };
    for (origin, code, text, wanted) in [
        (Origin::Local, None, "Connection refused (os error 111)", "Socket: Connection refused"),
        (Origin::Local, None, "the peer closed the connection", "Socket: Connection closed"),
        (Origin::Local, None, "no answer in time", "Socket: Connection timed out"),
        (Origin::Received, Some((6, 2)), "x", "Received: Administrative shutdown"),
        (Origin::Received, Some((6, 5)), "", "Received: Connection rejected"),
        (Origin::Received, Some((9, 9)), "", "Received: Unknown error 9.9"),
        (Origin::Sent, Some((2, 2)), "", "BGP Error: Bad peer AS"),
        (Origin::Sent, Some((4, 0)), "", "BGP Error: Hold timer expired"),
        (Origin::Sent, Some((6, 1)), "", "Automatic shutdown: Route limit exceeded"),
    ] {
        assert_eq!(error(origin, code, text).as_deref(), Some(wanted));
    }
    assert_eq!(error(Origin::Sent, Some((6, 2)), ""), None, "closed by the operator");
}

#[test]
fn every_session_has_a_name_that_readers_understand() {
    let v4 = "10.65.1.7".parse().unwrap();
    assert_eq!(reader_name("Mesh_10_0_0_5", v4), "Mesh_10_0_0_5");
    assert_eq!(reader_name("Local_Workload_10_65_1_7", v4), "Node_10_65_1_7");
    assert_eq!(reader_name("Mesh_", v4), "Node_10_65_1_7");
    assert_eq!(reader_name("tor", "fd00::7".parse().unwrap()), "Node_fd00__7");
}
