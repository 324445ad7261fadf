//! `[control]`: the sockets for operators.

use std::path::PathBuf;

use super::BirdSockets;
use super::host::{read_bird_sockets, read_socket};
use super::reader::{Table, Value};

/// The control sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// The path of the one that takes every request. Default [`ControlSettings::DEFAULT_SOCKET`].
    pub socket: PathBuf,
    /// The group that may open it, by name or number. Default: that of the process.
    pub group: Option<String>,
    /// The one that takes requests that change nothing. Default: none.
    pub read_only: Option<ReadOnlySocket>,
    /// Where BIRD's control protocol is served. `None`: not configured, which means not served, but
    /// on a Calico node [`BirdSockets::Calico`].
    pub bird_sockets: Option<BirdSockets>,
}

/// The socket that takes requests that change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOnlySocket {
    /// Its path.
    pub socket: PathBuf,
    /// The group that may open it, by name or number. Default: every user of this machine may.
    pub group: Option<String>,
}

impl ControlSettings {
    /// The default path.
    pub const DEFAULT_SOCKET: &'static str = "/run/margay/margay.sock";

    /// A socket at this path, and the defaults for everything else.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        ControlSettings { socket: path.into(), group: None, read_only: None, bird_sockets: None }
    }
}

pub(super) fn read_control(root: &Table<'_>) -> ControlSettings {
    let mut control = ControlSettings::at(ControlSettings::DEFAULT_SOCKET);
    let Some(table) = root.get("control").and_then(|v| v.table()) else { return control };
    if let Some(path) = table.get("socket").and_then(|value| read_socket(&value)) {
        control.socket = path;
    }
    control.group = table.get("group").and_then(|value| read_group(&value));
    let group = table.get("read-only-group");
    if let Some(value) = table.get("read-only-socket") {
        if let Some(socket) = read_socket(&value) {
            if socket == control.socket {
                value.fault("is the path of control.socket", "give each socket a path of its own");
            }
            let group = group.and_then(|value| read_group(&value));
            control.read_only = Some(ReadOnlySocket { socket, group });
        }
    } else if let Some(value) = group {
        value.fault_key("needs read-only-socket", "add it, or leave this out");
    }
    control.bird_sockets = table.get("bird-sockets").and_then(|value| read_bird_sockets(&value));
    table.finish();
    control
}

/// A group's name or number. Whether the group exists depends on the machine that runs.
fn read_group(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    if name.is_empty() || name.contains([':', ',']) || name.chars().any(char::is_control) {
        value
            .fault("is not the name of a group", "write a name of /etc/group, or a number as text");
        return None;
    }
    Some(name.to_owned())
}
