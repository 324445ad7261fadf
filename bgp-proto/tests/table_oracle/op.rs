//! The events that drive the table, decoded from random octets.

use bgp_proto::types::Family;

use crate::model::{PEERS, PREFIXES};

/// The peers of [`Op::of_vantages`]: one with ADD-PATH in both directions, one that is sent two paths.
pub(crate) const VANTAGE_PEERS: [usize; 6] = [2, 3, 4, 7, 8, 9];

/// One random event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Announce {
        peer: usize,
        prefix: usize,
        variant: u8,
        path_id: u32,
    },
    Burst {
        peer: usize,
        variant: u8,
    },
    Withdraw {
        peer: usize,
        prefix: usize,
        path_id: u32,
    },
    Up {
        peer: usize,
    },
    Down {
        peer: usize,
        keep: u8,
    },
    /// The peer is removed from the configuration and added again.
    Replace {
        peer: usize,
    },
    EndOfRib {
        peer: usize,
        family: Family,
    },
    RefreshRequest {
        peer: usize,
        family: Family,
    },
    RefreshBegin {
        peer: usize,
        family: Family,
    },
    /// Enough refreshes for the refresh stamps of paths to wrap.
    RefreshFlood {
        peer: usize,
        prefix: usize,
        variant: u8,
    },
    RefreshEnd {
        peer: usize,
        family: Family,
    },
    NextHop {
        index: u8,
        state: u8,
    },
    Own {
        prefix: usize,
        source: u8,
        variant: u8,
    },
    Configure {
        peer: usize,
        import: u8,
        export: u8,
        rest: u8,
    },
    /// The peer is at another vantage, or at none.
    Move {
        peer: usize,
        place: u8,
    },
    /// Other costs between vantages.
    Costs {
        variant: u8,
    },
    Finish,
    Read {
        peer: usize,
        family: Family,
        budget: u8,
    },
    ReadAll {
        peer: usize,
    },
    /// All peers but one read until they are up to date.
    SettleWithout {
        idle: usize,
    },
    Wait {
        secs: u8,
    },
}

impl Op {
    /// Events around restarts only, of a few peers, so that whole sequences of them occur.
    pub(crate) fn of_restarts([what, a, b, c, d]: [u8; 5]) -> Self {
        let peer = [0, 2, 3, 4, 6, 11][usize::from(a) % 6];
        let prefix = usize::from(b) % PREFIXES;
        let family = if b.is_multiple_of(3) { Family::Ipv6 } else { Family::Ipv4 };
        match what % 16 {
            0..=2 => Op::Announce { peer, prefix, variant: c, path_id: u32::from(d) % 3 },
            3 => Op::Burst { peer, variant: c },
            4 => Op::Withdraw { peer, prefix, path_id: u32::from(d) % 3 },
            5..=7 => Op::Up { peer },
            // Mostly for both families.
            8..=10 => Op::Down { peer, keep: if d < 200 { c | 3 } else { c } },
            11 => Op::EndOfRib { peer, family },
            12..=13 => Op::Wait { secs: c / 4 },
            14 => Op::Configure { peer, import: b, export: c, rest: d },
            _ => Op::Finish,
        }
    }

    /// Internal peers that announce what is alike down to the IGP metric, partly over the addresses of
    /// each other, and that move between vantages.
    pub(crate) fn of_vantages([what, a, b, c, d]: [u8; 5]) -> Self {
        let peer = VANTAGE_PEERS[usize::from(a) % VANTAGE_PEERS.len()];
        let prefix = usize::from(b) % 3;
        // Over an address of nobody, of peer 9, and of peer 3.
        let variant = [7, 20, 43][usize::from(c) % 3];
        match what % 16 {
            0..=4 => Op::Announce { peer, prefix, variant, path_id: u32::from(d) % 2 },
            5 => Op::Withdraw { peer, prefix, path_id: u32::from(d) % 2 },
            6 => Op::Up { peer },
            7 if d % 2 == 0 => Op::Down { peer, keep: c },
            7 => Op::Replace { peer },
            8..=10 => Op::Move { peer, place: c },
            11 => Op::Costs { variant: c },
            12..=13 => Op::SettleWithout { idle: if d % 2 == 0 { peer } else { PEERS } },
            14 => Op::Configure { peer, import: b & 0x37, export: c & 0x37, rest: d },
            _ => Op::Finish,
        }
    }

    pub(crate) fn from_bytes([what, a, b, c, d]: [u8; 5]) -> Self {
        let peer = usize::from(a) % PEERS;
        let prefix = usize::from(b) % PREFIXES;
        let family = if b.is_multiple_of(3) { Family::Ipv6 } else { Family::Ipv4 };
        let path_id = u32::from(d) % 3;
        match what % 64 {
            0..=15 => Op::Announce { peer, prefix, variant: c, path_id },
            16..=18 => Op::Burst { peer, variant: c },
            19..=24 => Op::Withdraw { peer, prefix, path_id },
            25..=30 => Op::Up { peer },
            31..=32 if d % 8 == 7 => Op::Replace { peer },
            31..=32 => Op::Down { peer, keep: c },
            33 => Op::EndOfRib { peer, family },
            34..=35 => Op::RefreshRequest { peer, family },
            36 if d % 8 == 7 => Op::RefreshFlood { peer, prefix, variant: c },
            36 => Op::RefreshBegin { peer, family },
            37 => Op::RefreshEnd { peer, family },
            38..=40 => Op::NextHop { index: b, state: c },
            41..=42 => Op::Own { prefix, source: a, variant: c },
            43..=44 => Op::Configure { peer, import: b, export: c, rest: d },
            45..=50 => Op::Finish,
            51..=54 => Op::SettleWithout { idle: peer },
            55..=58 => Op::Read { peer, family, budget: c },
            // The first two are next hops of paths of others.
            59 => Op::Move { peer: [3, 9, peer][usize::from(b) % 3], place: c },
            60 => Op::Costs { variant: c },
            61..=62 => Op::ReadAll { peer },
            _ => Op::Wait { secs: c },
        }
    }
}
