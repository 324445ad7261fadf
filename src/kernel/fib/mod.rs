//! What of ours belongs in the kernel's tables, and what is there.

pub(super) mod plan;
pub(super) mod view;
