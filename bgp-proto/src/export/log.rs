//! The chunk log of a group: written by the table's thread, read by connection tasks.
//!
//! The mutex inside is held for the time of a few pointer moves, never while encoding or writing.

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use crate::types::{Family, PeerId};

/// Immutable encoded UPDATEs with their frame table.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
}

/// A run of whole messages inside a chunk.
#[derive(Clone, Debug)]
pub struct Piece {
    chunk: Arc<Chunk>,
    range: Range<u32>,
}

impl Piece {
    /// The messages; never empty, always starts and ends at message boundaries.
    pub fn as_bytes(&self) -> &[u8] {
        self.chunk.bytes.get(self.range.start as usize..self.range.end as usize).unwrap_or_default()
    }
}

/// What a fetch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Pieces were appended.
    Data,
    /// Nothing to send at present; the waker will be woken.
    Empty,
    /// The member fell off the log; the table was asked for the current state and the waker will be
    /// woken when it is there.
    Lagging,
}

/// One group's log for one family.
#[derive(Debug)]
pub struct Log {
    _private: (),
}

/// A member's cursor. Dropping it ends the membership.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    peer: PeerId,
    family: Family,
}

impl Reader {
    /// The family of the messages.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whose cursor it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Appends up to `budget` octets (at least one message if there is any) to `out` and moves the
    /// cursor past them. With [`Fetch::Empty`] and [`Fetch::Lagging`], `waker` is kept and woken once.
    pub fn fetch(&mut self, budget: usize, out: &mut Vec<Piece>, waker: &Waker) -> Fetch {
        let _ = (budget, out, waker, &self.log);
        todo!()
    }
}
