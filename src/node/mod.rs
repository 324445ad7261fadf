//! Running as a Calico node: where its objects are stored, and the configurations that follow from
//! them as they change.
//!
//! - [`NodeSettings`]: from `[calico]` in a file, or from calico-node's environment alone.
//! - [`follow`]: reads the sources, keeps the plan up to date, and sends [`Update`]s.
//!
//! The daemon applies the updates.

mod basis;
mod connect;
mod environment;
mod live;
mod saved;
mod settings;
mod setup;
mod store;

pub use basis::{Asked, Asking, NoPlan};
pub use connect::{Survey, Tried, survey, try_sources};
pub use environment::Environment;
pub use live::{
    Follower, FollowerLiveness, NodeStatus, SessionOrigin, SourceStatus, Update, follow,
};
pub use settings::{NodeSettings, SettingsError};
pub use setup::Setup;
