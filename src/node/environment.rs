//! What the process's environment says about the node.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::datastore::{prefixed_variable, variable};

/// Where calico-node's start-up leaves the node's name.
const NODENAME_FILE: &str = "/var/lib/calico/nodename";

/// Variables, and the one file that stands for a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Variables. Empty ones count as absent.
    pub variables: BTreeMap<String, String>,
    /// The file with the node's name, for where `NODENAME` is not set.
    pub nodename_file: PathBuf,
}

impl Environment {
    /// That of this process. Variables that are not text are left out.
    pub fn of_process() -> Self {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Environment {
            variables: std::env::vars_os().filter_map(text).collect(),
            nodename_file: NODENAME_FILE.into(),
        }
    }

    /// A variable, without blanks around it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        variable(&self.variables, name)
    }

    /// As [`Environment::get`]; the same name with `CALICO_` in front wins.
    pub(super) fn get_prefixed(&self, name: &str) -> Option<&str> {
        prefixed_variable(&self.variables, name)
    }

    /// `NODENAME`, or what start-up left in its file.
    pub(super) fn nodename(&self) -> Option<String> {
        let given = self.get("NODENAME").map(str::to_owned);
        given.or_else(|| {
            let text = std::fs::read_to_string(&self.nodename_file).ok()?;
            Some(text.trim().to_owned()).filter(|name| !name.is_empty())
        })
    }
}
