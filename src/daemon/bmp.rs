//! `[[bmp]]`: which tables stations are sent.

use std::sync::Arc;

use super::running::Running;
use crate::bmp::{Instance, Instances, Stations};
use crate::engine::Handle;

/// The name of the default VRF's table (RFC 9069 §5.2.1).
const GLOBAL: &str = "global";

/// Stations of these tables; none yet.
pub(super) fn stations(default: Handle, vrfs: Running) -> Stations {
    let global: Arc<str> = GLOBAL.into();
    let instances: Instances = Arc::new(move || {
        let own = Instance { name: Arc::clone(&global), distinguisher: 0, table: default.clone() };
        let others = vrfs.all().into_iter().map(|(name, shown)| Instance {
            name,
            // The kernel's table is the VRF's alone.
            distinguisher: shown.routes_in.into(),
            table: shown.table,
        });
        std::iter::once(own).chain(others).collect()
    });
    Stations::new(instances)
}
