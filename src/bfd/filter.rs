//! The BPF program with which the kernel sorts packets before we see them.
//!
//! The receiving sockets of a port form an SO_REUSEPORT group, and the program chooses the socket:
//! one for packets whose Your Discriminator may be ours, one for those with none, one for
//! everything invalid. A flood of forged packets then fills the buffer of a socket that is read at
//! a limited rate, and never takes time or buffer space from established sessions.
//!
//! Whether a discriminator may be ours is computed, because classic BPF has no tables: its low bits
//! are a hash of the high ones, keyed at start.

use bgp_proto::bfd::{Discriminator, HEADER_LEN, VERSION};
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_MISC,
    BPF_MUL, BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X, sock_filter,
};

use super::Family;

/// The class of a packet. The value is the index of its socket in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Your Discriminator may be one of ours.
    Known = 0,
    /// Your Discriminator is zero.
    Unknown = 1,
    /// Invalid. Read at a low rate, only to count the reasons.
    Invalid = 2,
}

/// Bits of a discriminator that are the hash of the others.
const HASH_BITS: u32 = 12;
const HASH_MASK: u32 = (1 << HASH_BITS) - 1;

/// Makes discriminators that are hard to guess, and that the kernel can recognise.
#[derive(Clone, Copy)]
pub(super) struct Discriminators {
    multiplier: u32,
}

impl std::fmt::Debug for Discriminators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Discriminators(…)")
    }
}

impl Discriminators {
    /// `secret` must be random, and must never be shown.
    pub(super) fn new(secret: u32) -> Discriminators {
        Discriminators { multiplier: secret | 1 }
    }

    /// Makes a discriminator from `random`; `None` if it would be zero.
    pub(super) fn make(self, random: u32) -> Option<Discriminator> {
        let high = random >> HASH_BITS;
        Discriminator::new(high << HASH_BITS | self.hash(high))
    }

    fn hash(self, high: u32) -> u32 {
        high.wrapping_mul(self.multiplier) >> (32 - HASH_BITS)
    }
}

/// Offset of the IP header's TTL or hop limit in the address space of classic BPF.
fn ttl_offset(family: Family) -> u32 {
    let net = u32::from_ne_bytes(libc::SKF_NET_OFF.to_ne_bytes());
    net.wrapping_add(match family {
        Family::V4 => 8,
        Family::V6 => 7,
    })
}

/// A program that returns the index of the socket. Its offsets begin at the UDP payload.
pub(super) fn program(
    family: Family,
    is_single_hop: bool,
    discriminators: Discriminators,
) -> Vec<sock_filter> {
    let mut checks = Vec::new();
    if is_single_hop {
        checks.push((vec![ins(BPF_LD | BPF_B | BPF_ABS, ttl_offset(family))], BPF_JEQ, 255));
    }
    checks.push((vec![ins(BPF_LD | BPF_W | BPF_LEN, 0)], BPF_JGE, HEADER_LEN as u32));
    let version = vec![ins(BPF_LD | BPF_B | BPF_ABS, 0), ins(BPF_ALU | BPF_AND | BPF_K, 0xe0)];
    checks.push((version, BPF_JEQ, u32::from(VERSION) << 5));

    let mut program = Vec::new();
    for (load, comparison, value) in checks {
        program.extend(load);
        program.push(jump(comparison, value, 1, 0));
        program.push(ins(BPF_RET | BPF_K, Class::Invalid as u32));
    }
    program.push(ins(BPF_LD | BPF_W | BPF_ABS, 8));
    program.push(jump(BPF_JEQ, 0, 0, 1));
    program.push(ins(BPF_RET | BPF_K, Class::Unknown as u32));
    program.push(ins(BPF_ALU | BPF_RSH | BPF_K, HASH_BITS));
    program.push(ins(BPF_ALU | BPF_MUL | BPF_K, discriminators.multiplier));
    program.push(ins(BPF_ALU | BPF_RSH | BPF_K, 32 - HASH_BITS));
    program.push(ins(BPF_MISC | BPF_TAX, 0));
    program.push(ins(BPF_LD | BPF_W | BPF_ABS, 8));
    program.push(ins(BPF_ALU | BPF_AND | BPF_K, HASH_MASK));
    program.push(sock_filter { code: code(BPF_JMP | BPF_JEQ | BPF_X), jt: 0, jf: 1, k: 0 });
    program.push(ins(BPF_RET | BPF_K, Class::Known as u32));
    program.push(ins(BPF_RET | BPF_K, Class::Invalid as u32));
    program
}

fn code(code: u32) -> u16 {
    u16::try_from(code).expect("opcodes of classic BPF are octets")
}

fn ins(opcode: u32, k: u32) -> sock_filter {
    sock_filter { code: code(opcode), jt: 0, jf: 0, k }
}

fn jump(comparison: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code(BPF_JMP | comparison | BPF_K), jt, jf, k: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminators_are_hard_to_guess() {
        let ours = Discriminators::new(0x1234_5677);
        let made: std::collections::BTreeSet<_> =
            (0..1000_u32).filter_map(|n| ours.make(n.wrapping_mul(0x9e37_79b9))).collect();
        assert!(made.len() > 990, "{}", made.len());
        let others = Discriminators::new(0x7654_3211);
        let guessed =
            made.iter().filter(|d| others.make(d.get()).is_some_and(|guess| guess == **d)).count();
        assert!(guessed < 10, "{guessed} of 1000 would pass with another secret");
        assert_eq!(format!("{ours:?}"), "Discriminators(…)");
    }
}
