//! The environment variables of the process, and the file with the node's name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::datastore::{prefixed_variable, variable};

/// The file to which calico-node's start-up writes the node's name.
const NODENAME_FILE: &str = "/var/lib/calico/nodename";

/// Environment variables, and the one file that may replace a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Variables. Empty ones count as absent.
    pub variables: BTreeMap<String, String>,
    /// The file with the node's name, used if `NODENAME` is not set.
    pub nodename_file: PathBuf,
}

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are ignored.
    pub fn of_process() -> Self {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Environment {
            variables: std::env::vars_os().filter_map(text).collect(),
            nodename_file: NODENAME_FILE.into(),
        }
    }

    /// A variable, without surrounding blanks.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        variable(&self.variables, name)
    }

    /// Like [`Environment::get`], but the same name with `CALICO_` in front takes precedence.
    pub(super) fn get_prefixed(&self, name: &str) -> Option<&str> {
        prefixed_variable(&self.variables, name)
    }

    /// `NODENAME`, or the name in the file.
    pub(super) fn nodename(&self) -> Option<String> {
        let given = self.get("NODENAME").map(str::to_owned);
        given.or_else(|| {
            let text = std::fs::read_to_string(&self.nodename_file).ok()?;
            Some(text.trim().to_owned()).filter(|name| !name.is_empty())
        })
    }
}
