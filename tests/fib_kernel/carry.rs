//! Routes of a run with another table or protocol number.

use margay::kernel::{Carried, Place, carry_over};

use crate::namespace::{in_namespace, ip, routes, veth};

const OLD: Place = Place { table: 254, protocol: 12 };

fn carried(routes: u64) -> Carried {
    Carried { routes, refused: 0 }
}

#[test]
#[ignore = "needs root"]
fn another_protocol_number_takes_the_routes_over_in_place() {
    let name = "carry::another_protocol_number_takes_the_routes_over_in_place";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        ip("route add 10.1.0.0/16 via 10.0.0.2 proto 12");
        ip("route add 10.2.0.0/16 proto 12 metric 9 nexthop via 10.0.0.2 nexthop via 10.0.0.3");
        ip("route add blackhole 10.3.0.0/16 proto 12");
        ip("-6 route add 2001:db8:a::/48 via 2001:db8::2 proto 12");
        ip("-6 route add blackhole 2001:db8:b::/48 proto 12");
        ip("route add 10.4.0.0/16 via 10.0.0.2 proto 4");
        let before = [routes("route show proto 12"), routes("-6 route show proto 12")];
        let new = Place { protocol: 99, ..OLD };
        assert_eq!(carry_over(OLD, Some(new)).unwrap(), carried(5));
        assert!(routes("route show proto 12").is_empty());
        assert!(routes("-6 route show proto 12").is_empty());
        assert_eq!([routes("route show proto 99"), routes("-6 route show proto 99")], before);
        assert_eq!(routes("route show proto 4").len(), 1);
        assert_eq!(carry_over(OLD, Some(new)).unwrap(), carried(0), "there is nothing left to do");
    });
}

#[test]
#[ignore = "needs root"]
fn routes_are_added_to_another_table_before_the_old_one_loses_them() {
    let name = "carry::routes_are_added_to_another_table_before_the_old_one_loses_them";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        ip("route add 10.1.0.0/16 via 10.0.0.2 proto 12");
        ip("route add 10.2.0.0/16 via 10.0.0.2 proto 12");
        ip("-6 route add 2001:db8:a::/48 via 2001:db8::2 proto 12");
        ip("route add 10.2.0.0/16 via 10.0.0.9 proto 4 table 777");
        let new = Place { table: 777, protocol: 12 };
        assert_eq!(carry_over(OLD, Some(new)).unwrap(), carried(3));
        assert!(routes("route show proto 12").is_empty());
        assert!(routes("-6 route show proto 12").is_empty());
        assert_eq!(
            routes("route show table 777"),
            ["10.1.0.0/16 via 10.0.0.2 dev v0 proto 12", "10.2.0.0/16 via 10.0.0.9 dev v0 proto 4"],
            "another program's route keeps its place"
        );
        assert_eq!(routes("-6 route show table 777").len(), 1);
    });
}

#[test]
#[ignore = "needs root"]
fn with_writing_disabled_routes_of_an_earlier_run_are_deleted() {
    let name = "carry::with_writing_disabled_routes_of_an_earlier_run_are_deleted";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        ip("route add 10.1.0.0/16 via 10.0.0.2 proto 12");
        ip("route add blackhole 10.2.0.0/16 proto 12");
        ip("-6 route add blackhole 2001:db8:b::/48 proto 12");
        ip("route add 10.4.0.0/16 via 10.0.0.2 proto 4");
        assert_eq!(carry_over(OLD, None).unwrap(), carried(3));
        assert!(routes("route show proto 12").is_empty());
        assert!(routes("-6 route show proto 12").is_empty());
        assert_eq!(routes("route show proto 4").len(), 1);
        // A table that was never written to.
        assert_eq!(carry_over(Place { table: 4711, ..OLD }, None).unwrap(), carried(0));
    });
}
