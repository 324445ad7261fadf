//! The label by which Calico marks the block affinities of a node.

use sha3::{Digest, Sha3_256};

/// The label's name. Written since Calico v3.31.
pub(super) const HOSTNAME_HASH: &str = "projectcalico.org/hostname-hash";

/// The label's value: SHA3-256 of the node's name in base32 without padding.
pub(super) fn hostname_hash(node: &str) -> String {
    base32(&Sha3_256::digest(node.as_bytes()))
}

/// RFC 4648 §6, without padding.
fn base32(octets: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digit = |bits: u16| char::from(ALPHABET[usize::from(bits & 31)]);
    let mut text = String::new();
    let (mut bits, mut held) = (0u16, 0);
    for octet in octets {
        bits = (bits << 8) | u16::from(*octet);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(digit(bits >> held));
        }
    }
    if held > 0 {
        text.push(digit(bits << (5 - held)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_calico() {
        // The pair is from api/pkg/apis/projectcalico/v3/constants_test.go.
        let hash = "MOQSB7OYLUK2BUOV4OFQGD3GCG56JJGA7AQVZCJLN4326O4KVP7A";
        assert_eq!(hostname_hash("kube-master"), hash);
    }
}
