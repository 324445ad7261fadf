//! Administrative shutdown of a peer, as one flag that its task and its records share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether an operator has shut a peer down until further notice. Clones share the flag: with the
/// code that sets it, the code that shows it, and the peer's task, which starts no session while it
/// is set, not even when it is restarted after a panic.
#[derive(Clone, Debug, Default)]
pub struct AdminShutdown(Arc<AtomicBool>);

impl AdminShutdown {
    /// Whether the peer is shut down.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether both are one flag.
    pub fn is_shared_with(&self, other: &AdminShutdown) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Sets or clears the flag. This does not wake the task, which needs a command as well.
    pub fn set(&self, shut_down: bool) {
        self.0.store(shut_down, Ordering::Release);
    }
}
