//! The instances of VRFs that run, as views see them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::leaks::FullImports;
use super::redistribution::Redistribution;
use crate::engine::Handle;
use crate::kernel::{Fib, Link};

/// What is shown of an instance.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) table: Handle,
    pub(super) kernel: Fib,
    pub(super) redistribution: Redistribution,
    /// The kernel's table of its routes.
    pub(super) routes_in: u32,
}

/// The instances that run, for views. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<RwLock<BTreeMap<Arc<str>, Shown>>>, FullImports);

impl Running {
    /// The imports between them that have reached their limit.
    pub(super) fn full_imports(&self) -> &FullImports {
        &self.1
    }

    pub(super) fn get(&self, vrf: &str) -> Option<Shown> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(vrf).cloned()
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Shown)> {
        let running = self.0.read().unwrap_or_else(PoisonError::into_inner);
        running.iter().map(|(name, shown)| (Arc::clone(name), shown.clone())).collect()
    }

    pub(super) fn set(&self, vrf: &Arc<str>, shown: Option<Shown>) {
        let mut running = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match shown {
            Some(shown) => running.insert(Arc::clone(vrf), shown),
            None => running.remove(vrf),
        };
    }

    /// Whether a link is in none of them.
    pub(super) fn has_not(&self, link: &Link) -> bool {
        let running = self.0.read().unwrap_or_else(PoisonError::into_inner);
        running.values().all(|shown| link.traits.vrf != Some(shown.routes_in))
    }
}
