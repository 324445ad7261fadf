//! Routes whose next hop is a neighbour are not for that neighbour (RFC 4271 §5.1.3).

use super::*;
use crate::table::LocalRoute;
use crate::wire::{Update, UpdateContext, split_frame};

/// What a neighbour was told since it was last asked: announced with a next hop, or withdrawn.
fn hear(reader: &mut Reader) -> Vec<(String, Option<IpAddr>)> {
    let context = UpdateContext::new(PeerType::Internal, ASN);
    let octets = read(reader);
    let (mut rest, mut heard) = (octets.as_slice(), Vec::new());
    while let Some(frame) = split_frame(rest, usize::MAX).unwrap() {
        let update = Update::parse(frame.body(), &context).unwrap();
        for nlri in update.unreach() {
            heard.extend(nlri.iter().map(|(_, prefix)| (prefix.to_string(), None)));
        }
        for reach in update.reach() {
            let hop = reach.next_hop.addr();
            heard.extend(reach.nlri.iter().map(|(_, prefix)| (prefix.to_string(), Some(hop))));
        }
        rest = &rest[frame.bytes.len()..];
    }
    heard
}

/// It was announced nothing; the withdrawal of what was on its way to others may have come too.
fn holds_nothing(reader: &mut Reader) -> bool {
    hear(reader).iter().all(|(_, hop)| hop.is_none())
}

fn gateway(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn third_party(id: u32) -> PeerRoutes {
    PeerRoutes { export: next_hop(NextHopMode::ThirdParty), ..routes(id) }
}

/// A route that somebody else put into the kernel.
fn kernel_route(table: &mut Table, prefix: &str, next_hop: Option<IpAddr>) {
    let route = LocalRoute { next_hop, ..LocalRoute::default() };
    table.handle_local(Time::ZERO, prefix.parse().unwrap(), Source::Kernel, Some(route));
    settle(table);
}

fn told(prefix: &str, hop: IpAddr) -> Vec<(String, Option<IpAddr>)> {
    vec![(prefix.to_owned(), Some(hop))]
}

fn withdrawn(prefix: &str) -> Vec<(String, Option<IpAddr>)> {
    vec![(prefix.to_owned(), None)]
}

#[test]
fn a_route_of_our_own_is_not_sent_to_its_next_hop() {
    let mut table = table();
    let mut two = up(&mut table, 2, ASN.0, third_party(2));
    let mut three = up(&mut table, 3, ASN.0, third_party(3));
    settle(&mut table);
    hear(&mut two);
    hear(&mut three);

    let block = "10.65.2.0/26";
    kernel_route(&mut table, block, Some(gateway(2)));
    assert_eq!((hear(&mut two), hear(&mut three)), (vec![], told(block, gateway(2))));
    let advertised = |table: &Table, id| table.counts(PeerId(id)).advertised[Family::Ipv4];
    assert_eq!((advertised(&table, 2), advertised(&table, 3)), (0, 1));
    let explained = table.explain(block.parse().unwrap(), Time::ZERO).unwrap();
    let rules: Vec<_> = explained.withheld.iter().map(|w| (w.peer, w.rule.as_str())).collect();
    let expected = "its next hop is this neighbour (RFC 4271 §5.1.3)";
    assert_eq!(rules, [(PeerId(2), expected)]);

    // The gateway is another one: who had it loses it, who was left out hears it.
    kernel_route(&mut table, block, Some(gateway(3)));
    assert_eq!(hear(&mut two), told(block, gateway(3)));
    assert_eq!(hear(&mut three), withdrawn(block));
    // Without a gateway it is reached through us.
    kernel_route(&mut table, block, None);
    let ours = told(block, IpAddr::from([10, 0, 0, 1]));
    assert_eq!((hear(&mut two), hear(&mut three)), (ours.clone(), ours));
}

/// The route is there, and advertised, before anybody is known at its next hop; then the neighbour
/// comes, moves, and another one takes the place.
#[test]
fn whoever_comes_up_at_a_next_hop_is_not_sent_what_goes_there() {
    let mut table = table();
    let mut three = up(&mut table, 3, ASN.0, third_party(3));
    let block = "10.65.2.0/26";
    kernel_route(&mut table, block, Some(gateway(2)));
    assert_eq!(hear(&mut three), told(block, gateway(2)));
    let mut two = up(&mut table, 2, ASN.0, third_party(2));
    settle(&mut table);
    assert!(holds_nothing(&mut two));

    // Its next session is from elsewhere: the route is for it then.
    table.down_now(2, None);
    settle(&mut table);
    let moved = Negotiated { remote_addr: gateway(22), ..session(2, ASN.0) };
    let mut two = table.up_now(2, moved).remove(0);
    settle(&mut table);
    // By the change, by the resynchronisation, or by both.
    let mut heard = hear(&mut two);
    heard.dedup();
    assert_eq!(heard, told(block, gateway(2)));

    table.peer_add(PeerId(4), gateway(2), Arc::new(third_party(4)));
    let taken = Negotiated { remote_addr: gateway(2), ..session(4, ASN.0) };
    let mut four = table.up_now(4, taken).remove(0);
    settle(&mut table);
    assert!(holds_nothing(&mut four));
}

/// A reflector passes a client's route on whose next hop is another client: to neither of the two.
#[test]
fn a_reflected_route_goes_neither_back_nor_to_its_next_hop() {
    let mut table = table();
    let client = |id| PeerRoutes { reflection: CLIENT, ..routes(id) };
    let mut readers = [2, 3, 4].map(|id| up(&mut table, id, ASN.0, client(id)));
    settle(&mut table);
    readers.iter_mut().for_each(|reader| drop(hear(reader)));
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
    let heard = readers.each_mut().map(hear);
    assert_eq!(heard, [vec![], vec![], told("10.65.2.0/26", gateway(3))]);
    announce_via(&mut table, 4);
    let heard = readers.each_mut().map(hear);
    assert_eq!(heard, [vec![], told("10.65.2.0/26", gateway(4)), withdrawn("10.65.2.0/26")]);
}

/// A policy that sets the next hop on the way out names a neighbour that comes later.
#[test]
fn a_next_hop_set_on_the_way_out_counts_too() {
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
    assert_eq!(hear(&mut three), told("10.65.2.0/26", gateway(2)));
    let mut two = up(&mut table, 2, ASN.0, peer(2));
    settle(&mut table);
    assert!(holds_nothing(&mut two));
}
