//! Routes whose next hop is a neighbour are not advertised to that neighbour (RFC 4271 §5.1.3).

use super::*;
use crate::table::LocalRoute;
use crate::wire::{Update, UpdateContext, split_frame};

/// What a neighbour was sent since the last call: prefixes with a next hop, or withdrawn.
fn receive(reader: &mut Reader) -> Vec<(String, Option<IpAddr>)> {
    let context = UpdateContext::new(PeerType::Internal, ASN);
    let octets = read(reader);
    let (mut rest, mut received) = (octets.as_slice(), Vec::new());
    while let Some(frame) = split_frame(rest, usize::MAX).unwrap() {
        let update = Update::parse(frame.body(), &context).unwrap();
        for nlri in update.unreach() {
            received.extend(nlri.iter().map(|(_, prefix)| (prefix.to_string(), None)));
        }
        for reach in update.reach() {
            let hop = reach.next_hop.addr();
            received.extend(reach.nlri.iter().map(|(_, prefix)| (prefix.to_string(), Some(hop))));
        }
        rest = &rest[frame.bytes.len()..];
    }
    received
}

/// It was announced nothing; it may have been sent the withdrawal of a route meant for others.
fn holds_nothing(reader: &mut Reader) -> bool {
    receive(reader).iter().all(|(_, hop)| hop.is_none())
}

fn gateway(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn third_party(id: u32) -> PeerRoutes {
    PeerRoutes { export: next_hop(NextHopMode::ThirdParty), ..routes(id) }
}

/// A route that another process installed in the kernel.
fn kernel_route(table: &mut Table, prefix: &str, next_hop: Option<IpAddr>) {
    let route = LocalRoute { next_hop, ..LocalRoute::default() };
    table.handle_local(Time::ZERO, prefix.parse().unwrap(), Source::Kernel, Some(route));
    settle(table);
}

fn announced(prefix: &str, hop: IpAddr) -> Vec<(String, Option<IpAddr>)> {
    vec![(prefix.to_owned(), Some(hop))]
}

fn withdrawn(prefix: &str) -> Vec<(String, Option<IpAddr>)> {
    vec![(prefix.to_owned(), None)]
}

#[test]
fn a_local_route_is_not_sent_to_its_next_hop() {
    let mut table = table();
    let mut two = up(&mut table, 2, ASN.0, third_party(2));
    let mut three = up(&mut table, 3, ASN.0, third_party(3));
    settle(&mut table);
    receive(&mut two);
    receive(&mut three);

    let block = "10.65.2.0/26";
    kernel_route(&mut table, block, Some(gateway(2)));
    assert_eq!((receive(&mut two), receive(&mut three)), (vec![], announced(block, gateway(2))));
    let advertised = |table: &Table, id| table.counts(PeerId(id)).advertised[Family::Ipv4];
    assert_eq!((advertised(&table, 2), advertised(&table, 3)), (0, 1));
    let explained = table.explain(block.parse().unwrap(), Time::ZERO).unwrap();
    let rules: Vec<_> = explained.withheld.iter().map(|w| (w.peer, w.rule.as_str())).collect();
    let expected = "its next hop is this neighbour (RFC 4271 §5.1.3)";
    assert_eq!(rules, [(PeerId(2), expected)]);

    // The gateway changes: the new one is sent a withdrawal, the former one the route.
    kernel_route(&mut table, block, Some(gateway(3)));
    assert_eq!(receive(&mut two), announced(block, gateway(3)));
    assert_eq!(receive(&mut three), withdrawn(block));
    // Without a gateway it is reached through us.
    kernel_route(&mut table, block, None);
    let ours = announced(block, IpAddr::from([10, 0, 0, 1]));
    assert_eq!((receive(&mut two), receive(&mut three)), (ours.clone(), ours));
}

/// The route is advertised before a neighbour is known at its next hop; then the neighbour comes
/// up, moves, and another one takes its address.
#[test]
fn a_neighbour_that_comes_up_at_a_next_hop_is_not_sent_its_routes() {
    let mut table = table();
    let mut three = up(&mut table, 3, ASN.0, third_party(3));
    let block = "10.65.2.0/26";
    kernel_route(&mut table, block, Some(gateway(2)));
    assert_eq!(receive(&mut three), announced(block, gateway(2)));
    let mut two = up(&mut table, 2, ASN.0, third_party(2));
    settle(&mut table);
    assert!(holds_nothing(&mut two));

    // Its next session is from another address: now it is sent the route.
    table.down_now(2, None);
    settle(&mut table);
    let moved = Negotiated { remote_addr: gateway(22), ..session(2, ASN.0) };
    let mut two = table.up_now(2, moved).remove(0);
    settle(&mut table);
    // By the change, by the resynchronisation, or by both.
    let mut received = receive(&mut two);
    received.dedup();
    assert_eq!(received, announced(block, gateway(2)));

    table.peer_add(PeerId(4), gateway(2), Arc::new(third_party(4)));
    let taken = Negotiated { remote_addr: gateway(2), ..session(4, ASN.0) };
    let mut four = table.up_now(4, taken).remove(0);
    settle(&mut table);
    assert!(holds_nothing(&mut four));
}

/// A client's route whose next hop is another client is reflected to neither of the two.
#[test]
fn a_reflected_route_is_sent_neither_back_nor_to_its_next_hop() {
    let mut table = table();
    let client = |id| PeerRoutes { reflection: CLIENT, ..routes(id) };
    let mut readers = [2, 3, 4].map(|id| up(&mut table, id, ASN.0, client(id)));
    settle(&mut table);
    readers.iter_mut().for_each(|reader| drop(receive(reader)));
    let announce_via = |table: &mut Table, hop: u8| {
        let mut bytes = Vec::new();
        Nlri::push(&mut bytes, None, "10.65.2.0/26".parse().unwrap());
        let mut batch = RouteBatch::default();
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.set_local_pref(100);
        let hop = NextHop::from(gateway(hop));
        let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
        batch.push(nlri, Some((edit.view().as_bytes(), hop)));
        table.apply_now(2, batch);
        settle(table);
    };
    announce_via(&mut table, 3);
    let received = readers.each_mut().map(receive);
    assert_eq!(received, [vec![], vec![], announced("10.65.2.0/26", gateway(3))]);
    announce_via(&mut table, 4);
    let received = readers.each_mut().map(receive);
    assert_eq!(
        received,
        [vec![], announced("10.65.2.0/26", gateway(4)), withdrawn("10.65.2.0/26")]
    );
}

/// An export policy sets the address of a neighbour that comes up later as next hop.
#[test]
fn a_next_hop_set_by_export_policy_counts_too() {
    let mut table = table();
    let rule = Rule {
        name: String::new(),
        matches: vec![],
        changes: vec![Change::NextHop(gateway(2))],
        decision: Decision::Accept,
    };
    let name = "via".into();
    let export = Arc::new(Policy { name, rules: vec![rule], default: Decision::Reject });
    let peer = |id| exporting(id, Arc::clone(&export));
    let mut three = up(&mut table, 3, ASN.0, peer(3));
    kernel_route(&mut table, "10.65.2.0/26", None);
    assert_eq!(receive(&mut three), announced("10.65.2.0/26", gateway(2)));
    let mut two = up(&mut table, 2, ASN.0, peer(2));
    settle(&mut table);
    assert!(holds_nothing(&mut two));
}
