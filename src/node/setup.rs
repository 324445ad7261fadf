//! What `margay run` is to run.

use std::path::PathBuf;

use super::NodeSettings;
use crate::config::{Config, HostSettings};

/// What is to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Setup {
    /// What a file says, read again at a reload.
    Own {
        /// The file.
        path: PathBuf,
        /// What it says.
        config: Box<Config>,
    },
    /// What follows from Calico's objects.
    Node {
        /// The file with `[calico]`; `None`: calico-node's environment says it all.
        path: Option<PathBuf>,
        /// What is followed.
        settings: Box<NodeSettings>,
    },
}

impl Setup {
    /// What concerns this machine only.
    pub fn host(&self) -> &HostSettings {
        match self {
            Setup::Own { config, .. } => &config.host,
            Setup::Node { settings, .. } => &settings.host,
        }
    }
}
