//! Many speakers on one clock, from one seed (feature `sim`).
//!
//! A [`Sim`] holds [`Speaker`]s and the TCP connections between them. Each speaker is a host, as
//! `net` is: it owns connections, feeds its `session::Peer`s, and writes what they and its
//! [`Routing`] have pending when TCP has room. Time moves from event to event, so an hour takes
//! milliseconds; links delay, fragment, hold back (a partition) and reset at any octet. Everything
//! random comes from the seed, and [`Sim::trace`] is a hash of all that happened: equal seeds must
//! give equal traces.
//!
//! [`fuzz`] has the bodies of fuzz targets: structured inputs from octets, with the invariants that
//! hold for every sequence of inputs.
//!
//! Who calls: tests and fuzz targets only. Broken invariants panic.

pub mod fuzz;
mod net;
mod random;
mod routing;
mod speaker;
mod startup;
mod table;
mod world;

pub use net::{Fault, Fragment, LinkSpec};
pub use random::Random;
pub use routing::{BestRoute, Direct, Routing};
pub use speaker::{NeighborSpec, Speaker, SpeakerId, SpeakerSpec};
pub use table::Tabled;
pub use world::{MakeRouting, Outage, Sim};
