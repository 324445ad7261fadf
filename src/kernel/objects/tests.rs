use std::num::NonZeroU32;

use bgp_proto::types::Hop;

use super::*;
use crate::kernel::message::parse_object;

fn id(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn hop(last: u8, ifindex: u32, weight: u16) -> Hop {
    Hop { gateway: Some([10, 0, 0, last].into()), ifindex, onlink: false, weight }
}

fn single(number: u32, last: u8, ifindex: u32) -> Object {
    Object { id: id(number), protocol: 4, kind: ObjectKind::Hop(hop(last, ifindex, 1)) }
}

fn group(number: u32, members: &[(u32, u16)]) -> Object {
    let members = members.iter().map(|(member, weight)| (id(*member), *weight)).collect();
    Object { id: id(number), protocol: 4, kind: ObjectKind::Group(members) }
}

fn route_over(objects: &Objects, number: u32) -> KernelRoute {
    let mut route = KernelRoute {
        table: 254,
        tos: 0,
        protocol: 4,
        metric: 0,
        kind: KernelKind::Unicast,
        hops: SmallVec::new(),
        object: Some(id(number)),
        source: None,
        altered: false,
    };
    objects.expand(&mut route);
    route
}

fn ids(numbers: &[u32]) -> BTreeSet<NonZeroU32> {
    numbers.iter().map(|number| id(*number)).collect()
}

#[test]
fn a_group_follows_its_members() {
    let mut objects = Objects::default();
    assert_eq!(objects.handle_new(single(1, 2, 7)), ids(&[1]));
    objects.handle_new(single(2, 3, 8));
    assert_eq!(objects.handle_new(group(9, &[(1, 1), (2, 4)])), ids(&[9]));
    assert_eq!(route_over(&objects, 9).hops.as_slice(), [hop(2, 7, 1), hop(3, 8, 4)]);
    assert_eq!(objects.handle_new(single(2, 3, 8)), ids(&[]), "nothing has changed");
    assert_eq!(objects.handle_new(single(2, 9, 8)), ids(&[2, 9]), "it and its group");
    assert_eq!(route_over(&objects, 9).hops.as_slice(), [hop(2, 7, 1), hop(9, 8, 4)]);
    // The kernel removes a deleted member from its groups, and deletes groups that become empty.
    assert_eq!(objects.handle_gone(id(1)), ids(&[1, 9]));
    assert_eq!(route_over(&objects, 9).hops.as_slice(), [hop(9, 8, 4)]);
    assert_eq!(objects.handle_interface_lost(8), ids(&[2, 9]));
    assert!(objects.get(id(9)).is_none());
    assert!(route_over(&objects, 9).hops.is_empty());
}

#[test]
fn a_blackhole_drops_and_an_encapsulating_object_has_no_hops() {
    let mut objects = Objects::default();
    objects.handle_new(Object { id: id(1), protocol: 4, kind: ObjectKind::Blackhole });
    objects.handle_new(Object { id: id(2), protocol: 4, kind: ObjectKind::Other });
    assert_eq!(route_over(&objects, 1).kind, KernelKind::Blackhole);
    assert_eq!(route_over(&objects, 2).kind, KernelKind::Encapsulated);
}

#[test]
fn truncated_messages_are_not_objects() {
    // `ip nexthop add id 5 via 10.0.0.2 dev 7 proto 4 onlink`, as sent by the kernel.
    let mut body = vec![2, 0, 4, 0, 4, 0, 0, 0];
    body.extend([8, 0, 1, 0, 5, 0, 0, 0, 8, 0, 5, 0, 7, 0, 0, 0, 8, 0, 6, 0, 10, 0, 0, 2]);
    let onlink = Hop { onlink: true, ..hop(2, 7, 1) };
    let object = Object { id: id(5), protocol: 4, kind: ObjectKind::Hop(onlink) };
    assert_eq!(parse_object(&body), Some(object));
    for len in 0..16 {
        assert_eq!(parse_object(&body[..len]), None);
    }
}
