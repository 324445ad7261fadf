//! Router Discovery: the decoder and one link, on arbitrary packets and events.
#![no_main]

use std::net::Ipv6Addr;

use bgp_proto::ndp::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    if let Ok(message) = decode(source, 255, data) {
        let longer = [data, &[253, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(decode(source, 255, &longer), Ok(message), "an unknown option is ignored");
    }
    bgp_proto::sim::fuzz::fuzz_ndp(data);
});
