//! The wire: framing, messages, attributes (RFC 4271 §4 and its extensions).
//!
//! Reading borrows from the received buffer: an [`Update`] is that buffer plus ranges. Writing
//! appends to a `Vec<u8>`. Nothing here knows a session's state; what a session negotiated comes in
//! as [`UpdateContext`].
//!
//! Canonical attributes. Between the session and the table a set of path attributes is one byte
//! string, the *canonical form*: attributes in ascending type order, each at most once; flags
//! normalised (0x40 well-known, 0x80 optional non-transitive, 0xC0 optional transitive, with
//! Partial kept where it was received and set for unknown transitive attributes; Extended Length
//! only where the value is longer than 255 octets); AS numbers four octets wide; communities of
//! each kind sorted and without duplicates, because they are sets; without NEXT_HOP, MP_REACH_NLRI,
//! MP_UNREACH_NLRI, AS4_PATH and AS4_AGGREGATOR. Equal meaning, equal bytes. [`AttrView`] reads
//! that form, [`AttrEdit`] rewrites it.

mod as_path;
mod attr_table;
mod attrs;
mod batch;
mod capability;
mod edit;
mod encode;
mod frame;
mod nlri;
mod notification;
mod open;
mod refresh;
mod update;

pub use as_path::{AsPath, AsSegment, SegmentKind};
pub(crate) use attr_table::AttrName;
pub use attr_table::{ATTRIBUTES, AttrDef, AttrScope, Malformed, ValueLength, attr};
pub use attrs::{Attr, AttrIter, AttrView, Origin};
pub use batch::{RouteAction, RouteBatch, RouteEntry};
pub(crate) use capability::cap;
pub use capability::{
    AddPathMode, Capabilities, GracefulRestart, GracefulRestartFamily, LongLivedFamily,
};
pub use edit::AttrEdit;
pub use encode::{
    AnnounceFormat, TooLong, UpdateWriter, encode_end_of_rib, encode_keepalive, max_len_for,
    split_messages,
};
pub use frame::{EXTENDED_MAX_LEN, Frame, HEADER_LEN, MAX_LEN, MessageType, split_frame};
pub use nlri::{Nlri, NlriError, NlriIter, NlriIter4, NlriIter6};
pub use notification::{Code, Notification};
pub use open::Open;
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::{Discarded, Reach, Unreach, Update, UpdateContext, Verdict, WithdrawReason};
