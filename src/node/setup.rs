//! What `margay run` runs: the configuration of a file, or a Calico node.

use std::path::PathBuf;

use super::NodeSettings;
use crate::config::{Config, HostSettings};

/// What `margay run` runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Setup {
    /// The configuration in a file, which a reload reads again.
    Own {
        /// The file.
        path: PathBuf,
        /// Its content.
        config: Box<Config>,
    },
    /// The configurations that follow from Calico's objects.
    Node {
        /// The file with `[calico]`; `None`: all settings come from calico-node's environment.
        path: Option<PathBuf>,
        /// Which objects to follow, and how.
        settings: Box<NodeSettings>,
    },
}

impl Setup {
    /// The settings that concern this machine only.
    pub fn host(&self) -> &HostSettings {
        match self {
            Setup::Own { config, .. } => &config.host,
            Setup::Node { settings, .. } => &settings.host,
        }
    }
}
