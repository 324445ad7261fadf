//! Whether an operator has shut a session down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether an operator has shut a session down until further notice. Clones are the same: those who
/// change it, those who show it, and the peer's task, which begins no session then, not even after a
/// failure of its own.
#[derive(Clone, Debug, Default)]
pub struct AdminShutdown(Arc<AtomicBool>);

impl AdminShutdown {
    /// Whether it is shut down.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Shuts it down, or no longer. The task is told by an order of its own.
    pub fn set(&self, shut_down: bool) {
        self.0.store(shut_down, Ordering::Release);
    }
}
