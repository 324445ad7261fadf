//! How far start-up has come.

/// The phases of start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The kernel has not been read yet: nothing may be written.
    Unread,
    /// Routes of an earlier run that are not wanted so far are kept.
    Adopting,
    /// Start-up is over: routes that are not wanted are deleted.
    Settled,
}
