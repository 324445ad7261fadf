//! BMP: every message of arbitrary octets, and what is read is written and read again.
#![no_main]

use bgp_proto::bmp::{
    DownReason, Message, MessageKind, PeerUp, encode_peer_down, encode_peer_up,
    encode_route_monitoring, split_message,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some(octets)) = split_message(rest) {
        rest = &rest[octets.len()..];
        let Ok(message) = Message::decode(octets) else { continue };
        let Some(peer) = &message.peer else { continue };
        let mut again = Vec::new();
        match &message.kind {
            MessageKind::RouteMonitoring(update) => {
                encode_route_monitoring(&mut again, peer, update);
            }
            MessageKind::PeerUp { local, ports, sent, received, tlvs } if tlvs.is_empty() => {
                let up = PeerUp {
                    local: *local,
                    local_port: ports.0,
                    remote_port: ports.1,
                    sent,
                    received,
                    table_name: None,
                };
                encode_peer_up(&mut again, peer, &up);
            }
            MessageKind::PeerDown(1, inner) => {
                encode_peer_down(&mut again, peer, &DownReason::LocalNotification(inner.to_vec()));
            }
            MessageKind::PeerDown(4, _) => {
                encode_peer_down(&mut again, peer, &DownReason::RemoteClosed);
            }
            _ => continue,
        }
        assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
    }
});
