//! The routes of ours that belong in the kernel's tables, and those that are there.

pub(super) mod plan;
pub(super) mod view;
