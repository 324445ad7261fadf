//! The body of an OPEN: decoding never panics, and decoded fields survive encoding.
#![no_main]

use bgp_proto::wire::{HEADER_LEN, Open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Open::decode(data) {
        Ok(open) => {
            let again = rewritten(&open);
            // The first round trip may merge repeated capabilities; a second one changes nothing.
            assert_eq!(rewritten(&again), again);
            assert_eq!((again.asn, again.router_id), (open.asn, open.router_id));
            assert_eq!(again.capabilities.families(), open.capabilities.families());
            assert!(open.capabilities.names().len() <= data.len());
        }
        Err(notification) => assert!(notification.data.len() <= data.len().max(2)),
    }
});

fn rewritten(open: &Open) -> Open {
    let mut out = Vec::new();
    open.encode(&mut out);
    Open::decode(&out[HEADER_LEN..]).expect("an encoded OPEN decodes")
}
