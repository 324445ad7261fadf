//! Bodies of fuzz targets: any octets become a sequence of inputs; broken invariants panic.

mod bfd;
mod ndp;
mod session;

pub use bfd::fuzz_bfd;
pub use ndp::fuzz_ndp;
pub use session::fuzz_session;

/// Octets as a source of choices; past the end there are only zeros.
struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    fn new(data: &'a [u8]) -> Self {
        Choices { rest: data }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> u8 {
        match self.rest {
            [first, rest @ ..] => {
                self.rest = rest;
                *first
            }
            [] => 0,
        }
    }

    fn bit(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// Some octets, unchanged.
    fn octets(&mut self) -> &'a [u8] {
        let len = self.pick(&[0, 4, 8, 19, 23, 40, 90]).min(self.rest.len());
        let (octets, rest) = self.rest.split_at(len);
        self.rest = rest;
        octets
    }
}
