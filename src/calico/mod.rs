//! Calico: turns its objects into the BGP configuration of a node.
//!
//! - [`model`]: the objects, decoded; [`yaml`], [`load`]: files of them.
//! - [`Snapshot`]: all objects at one moment; [`Resolver`] and [`resolve`]: the [`Plan`] for them.
//! - `effective`, `sessions`, `peers`, `assembly`: which sessions exist, with which parameters.
//! - `services`, `filters`, `policies`: statics, and the policies for margay's own policy engine.
//! - [`release`], `ownership`: what depends on the release of Calico, and who writes which routes.
//! - [`decide`]: route questions. [`config`]: the plan as the daemon's configuration.
//! - [`edit`]: changed objects, and what would follow from them; [`diff`]: how two plans differ.
//!
//! Pure: no clock, no network, no datastore; the same objects give the same plan, byte for byte.
//! Files are read in [`load`] only. Objects that confd or BIRD would fail on are skipped, and
//! reported as a [`Problem`] that names them.

mod assembly;
pub mod config;
pub mod decide;
pub mod diff;
pub mod edit;
mod effective;
mod filters;
pub mod load;
pub mod model;
mod notes;
mod ownership;
mod peers;
pub mod plan;
mod policies;
pub mod release;
mod resolver;
pub mod selector;
mod services;
mod sessions;
mod settings;
mod snapshot;
mod wanted;
pub mod yaml;

pub use plan::{Plan, Problem, Touched};
pub use resolver::{Resolver, resolve};
pub use settings::{RouterIdSource, Settings, hashed_router_id, speaks_bgp};
pub use snapshot::Snapshot;
pub use wanted::Needs;
