//! The nouns that every other module uses: prefixes, families, identifiers, communities, time.
//!
//! Nothing here knows a message format, a session or a table.

mod community;
mod error;
mod family;
mod hop;
mod id;
mod limit;
mod prefix;
mod role;
mod scope;
mod source;
mod text;
mod time;

pub use community::{BandwidthScope, Community, ExtCommunity, LargeCommunity};
pub use error::ParseError;
pub use family::{AfiSafi, Family, FamilyMap, FamilySet};
pub use hop::{FibChange, FibKind, FibNextHop, FibRoute, Hop, NextHop, Recursion};
pub use id::{Asn, ClusterId, PathId, PeerId, PeerType, RouterId, SessionId};
pub use limit::LogLimit;
pub use prefix::{Prefix, Prefix4, Prefix6};
pub use role::Role;
pub use scope::{address_of, off_interface, on_interface, on_interface6};
pub use source::Source;
pub use text::is_direction_mark;
pub use time::{Time, Timer};
