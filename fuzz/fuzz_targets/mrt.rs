//! MRT: every record of an arbitrary file, and what is read is written and read again.
#![no_main]

use bgp_proto::mrt::{Record, encode_message, encode_state_change};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((record, after))) = Record::split(rest) {
        rest = after;
        let mut again = Vec::new();
        match &record {
            Record::PeerIndex(index) => index.encode(0, &mut again),
            Record::Rib(rib) => {
                assert_eq!(rib.entries().count(), usize::from(rib.count()));
                rib.entries().for_each(|entry| drop(entry.canonical()));
                continue;
            }
            Record::Message(message) => encode_message(&mut again, message),
            Record::StateChange(change) => encode_state_change(&mut again, change),
            Record::Other { .. } => continue,
        }
        // A view that is no UTF-8 gets longer, and may not fit.
        if let Ok(Some((read, []))) = Record::split(&again) {
            // The name of a view may get longer when what is no UTF-8 is replaced, and is cut then.
            assert!(read == record || matches!(record, Record::PeerIndex(_)));
        } else {
            panic!("what was written is not read");
        }
    }
});
