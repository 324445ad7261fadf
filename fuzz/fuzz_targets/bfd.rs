//! BFD: the decoder and one session, on arbitrary packets and events.
#![no_main]

use bgp_proto::bfd::{HEADER_LEN, Received};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(received) = Received::decode(data) {
        let mut again = Vec::new();
        let auth_len = received.auth.map_or(0, |_| received.octets.len() - HEADER_LEN);
        received
            .packet
            .encode(u8::try_from(auth_len).expect("the Length field is an octet"), &mut again);
        // Without an Authentication Section the Length field may exceed the mandatory section, so
        // octet 3 is not compared.
        assert_eq!(
            (&again[..3], &again[4..]),
            (&received.octets[..3], &received.octets[4..HEADER_LEN])
        );
    }
    bgp_proto::sim::fuzz::fuzz_bfd(data);
});
