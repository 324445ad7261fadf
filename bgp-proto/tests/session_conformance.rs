//! Runs our own malformed cases and those of the shared conformance set through the whole state
//! machine: the session is brought to the state that a case names, the message arrives, and what is
//! sent is compared.

mod cases;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Action, Command, LocalIdentity, Peer, PeerConfig, Slot, State};
use bgp_proto::types::{Asn, FamilySet, PeerType, Role, RouterId, Time};
use bgp_proto::wire::{
    AddPathMode, Capabilities, Code, MessageType, Notification, Open, RouteAction, RouteBatch,
    encode_keepalive, split_frame,
};
use cases::{ALTERNATIVES, SESSION_CASES, bytes, conformance_dir, context, malformed, records};
use serde_json::Value;

const PEER_ID: RouterId = RouterId(0x0a00_0001);

/// A session as the host drives it.
struct Session {
    peer: Peer,
    now: Time,
    sent: Vec<Notification>,
    closed: bool,
}

impl Session {
    fn new(config: PeerConfig) -> Self {
        let peer = Peer::new(Arc::new(config), 1);
        Session { peer, now: Time::ZERO + Duration::from_secs(10), sent: Vec::new(), closed: false }
    }

    fn receive(&mut self, octets: &[u8]) -> RouteBatch {
        let mut batch = RouteBatch::default();
        self.peer.handle_bytes(self.now, Slot::Outgoing, octets, &mut batch, usize::MAX);
        self.drain();
        batch
    }

    fn drain(&mut self) {
        while let Some(action) = self.peer.poll_action() {
            if let Action::Close { slot, .. } = action {
                self.closed |= slot == Slot::Outgoing;
            }
            self.transmit();
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        let mut out = Vec::new();
        self.peer.poll_transmit(Slot::Outgoing, &mut out);
        let mut rest = out.as_slice();
        while let Some(frame) = split_frame(rest, usize::MAX).expect("what we send is well formed")
        {
            if frame.kind == MessageType::Notification {
                self.sent.push(Notification::decode(frame.body()));
            }
            rest = &rest[frame.bytes.len()..];
        }
    }

    /// Brings the session to the state in which the message of `case` arrives.
    fn bring_to(&mut self, case: &Value, open: &Open) {
        self.peer.handle_command(self.now, Command::Start);
        self.drain();
        let local = "192.0.2.9:40000".parse().expect("an address");
        let remote = "192.0.2.1:179".parse().expect("an address");
        self.peer.handle_connected(self.now, Slot::Outgoing, local, remote);
        self.drain();
        let wanted = match case["session"]["state"].as_str() {
            Some("opensent") => State::OpenSent,
            Some("established" | "any") => {
                let mut octets = Vec::new();
                open.encode(&mut octets);
                encode_keepalive(&mut octets);
                self.receive(&octets);
                State::Established
            }
            other => panic!("state {other:?}"),
        };
        assert_eq!(self.peer.state(), wanted, "{}: {:?}", case["name"], self.sent);
    }
}

fn asn(value: &Value) -> Asn {
    Asn(u32::try_from(value.as_u64().expect("an AS")).expect("32 bits"))
}

/// Our side of a case.
fn config(session: &Value) -> PeerConfig {
    let cx = context(session);
    let router_id = match session["local_id"].as_str() {
        Some(id) => match id.parse().expect("an identifier") {
            IpAddr::V4(id) => RouterId(id.into()),
            IpAddr::V6(_) => panic!("{id}"),
        },
        None => RouterId(0x0a00_0009),
    };
    let local = LocalIdentity { asn: asn(&session["local_as"]), router_id };
    let peer_asn = asn(&session["peer_as"]);
    let mut config = PeerConfig::new(IpAddr::from([192, 0, 2, 1]), peer_asn, &local);
    assert_eq!(config.peer_type(), cx.peer_type);
    config.families = FamilySet::ALL;
    config.extended_messages = session["extmsg"] == true;
    config.extended_next_hop = cx.ipv4_over_ipv6;
    config.enhanced_refresh = session["err"] == true;
    config.role = session["role"].as_u64().map(|role| match role {
        0 => Role::Provider,
        3 => Role::Customer,
        other => panic!("role {other}"),
    });
    for family in cx.add_path.iter() {
        config.add_path[family] = AddPathMode::Receive;
    }
    config
}

/// The neighbour's OPEN with which the session is established.
fn open(session: &Value, config: &PeerConfig) -> Open {
    let cx = context(session);
    let peer_asn = asn(&session["peer_as"]);
    Open {
        asn: peer_asn,
        hold_time_secs: 90,
        router_id: PEER_ID,
        capabilities: Capabilities {
            multiprotocol: cx.families.iter().map(|f| f.afi_safi()).collect(),
            route_refresh: true,
            enhanced_refresh: config.enhanced_refresh,
            extended_message: config.extended_messages,
            extended_next_hop: cx
                .ipv4_over_ipv6
                .then(|| (cases::afi_safi("1/1"), 2))
                .into_iter()
                .collect(),
            four_octet_as: cx.four_octet_as.then_some(peer_asn),
            add_path: cx.add_path.iter().map(|f| (f.afi_safi(), AddPathMode::Send)).collect(),
            role: config.role.map(|role| role.counterpart().code()),
            ..Capabilities::default()
        },
    }
}

/// Compares the session with what the case requires; `Err` says what differs.
fn compare(case: &Value, session: &Session, batch: &RouteBatch) -> Result<(), String> {
    let name = case["name"].as_str().expect("a name");
    let expect = &case["expect"];
    let action = expect["action"].as_str().expect("an action");
    let demanded = match action {
        "session_reset" | "afi_safi_disable_or_reset" => {
            let part =
                |i: usize| expect["notification"][i].as_u64().and_then(|n| n.try_into().ok());
            Some((part(0).expect("a code"), part(1).expect("a subcode")))
        }
        _ => None,
    };
    let sent: Vec<Code> = session.sent.iter().map(|n| n.code).collect();
    let announces =
        || batch.entries().iter().any(|entry| matches!(entry.action, RouteAction::Announce { .. }));
    match demanded {
        Some((code, subcode)) => {
            if sent != [Code::new(code, subcode)] || !session.closed {
                return Err(format!("sent {sent:?}, closed: {}", session.closed));
            }
            Ok(())
        }
        // A NOTIFICATION is never answered (RFC 4271 §6.4), and the session has ended.
        None if message_kind(case) == MessageType::Notification => match sent.is_empty() {
            true if session.closed => Ok(()),
            _ => Err(format!("sent {sent:?}, closed: {}", session.closed)),
        },
        None if !sent.is_empty() || session.closed => Err(format!("the session ended: {sent:?}")),
        None if matches!(action, "treat_as_withdraw" | "ignore")
            && announces()
            && !ALTERNATIVES.iter().any(|(n, _)| *n == name) =>
        {
            Err("a route was announced".to_owned())
        }
        None => Ok(()),
    }
}

fn message_kind(case: &Value) -> MessageType {
    let octets = bytes(case);
    let frame = split_frame(&octets, usize::MAX).expect("a header").expect("a whole message");
    frame.kind
}

#[test]
fn every_malformed_case_has_its_effect_on_the_session() {
    check_all(&malformed());
}

#[test]
#[ignore = "needs MARGAY_SHARED"]
fn shared_data_every_malformed_case_has_its_effect_on_the_session() {
    let dir = conformance_dir();
    let cases = records(&dir.join("malformed/cases.jsonl"));
    check_all(&cases);
    for (name, _) in SESSION_CASES {
        assert!(cases.iter().any(|case| case["name"] == name), "{name} is gone from the set");
    }
}

fn check_all(cases: &[Value]) {
    let mut wrong = Vec::new();
    for case in cases {
        let config = config(&case["session"]);
        let open = open(&case["session"], &config);
        let mut session = Session::new(config);
        session.bring_to(case, &open);
        let batch = session.receive(&bytes(case));
        if let Err(text) = compare(case, &session, &batch) {
            wrong.push(format!("{}: {text} ({})", case["name"], case["why"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn the_roles_of_both_sides_must_fit() {
    use Role::{Customer, Provider};
    let local = LocalIdentity { asn: Asn(65000), router_id: RouterId(0x0a00_0009) };
    let outcome = |ours: Option<Role>, strict: bool, theirs: Option<u8>| {
        let mut config = PeerConfig::new(IpAddr::from([192, 0, 2, 1]), Asn(65001), &local);
        config.role = ours;
        if strict {
            config.role_mode = bgp_proto::session::RoleMode::Strict;
        }
        assert_eq!(config.peer_type(), PeerType::External);
        let session = serde_json::json!({
            "type": "ebgp", "peer_as": 65001, "as4": true, "families": ["1/1"], "addpath": [],
        });
        let mut open = open(&session, &config);
        open.capabilities.role = theirs;
        let mut session = Session::new(config);
        session.bring_to(&serde_json::json!({"session": {"state": "opensent"}}), &open);
        let mut octets = Vec::new();
        open.encode(&mut octets);
        session.receive(&octets);
        session.sent.first().map(|n| n.code)
    };
    let mismatch = Some(Code::ROLE_MISMATCH);
    assert_eq!(outcome(Some(Provider), true, Some(Customer.code())), None);
    assert_eq!(outcome(Some(Provider), false, None), None, "our role alone applies");
    assert_eq!(outcome(Some(Provider), true, None), mismatch);
    assert_eq!(outcome(Some(Provider), false, Some(Provider.code())), mismatch);
    assert_eq!(outcome(None, false, Some(Provider.code())), None, "without a role of ours: any");
}
