//! `[control]`.

use super::*;
use crate::config::{ControlSettings, ReadOnlySocket};

fn control(text: &str) -> ControlSettings {
    let own = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n";
    Config::parse(Path::new("m.toml"), &format!("{own}{text}")).unwrap().host.control
}

#[test]
fn sockets_have_groups() {
    assert_eq!(control(""), ControlSettings::at(ControlSettings::DEFAULT_SOCKET));
    let read = control(
        "[control]\ngroup = \"netops\"\nread-only-socket = \"/run/margay/read.sock\"\n\
         read-only-group = \"100\"\n",
    );
    assert_eq!(read.group.as_deref(), Some("netops"));
    let socket =
        ReadOnlySocket { socket: "/run/margay/read.sock".into(), group: Some("100".into()) };
    assert_eq!(read.read_only, Some(socket));
    let everyone = control("[control]\nread-only-socket = \"/run/margay/read.sock\"\n");
    assert_eq!(everyone.read_only.unwrap().group, None);
}

#[test]
fn sockets_take_effect_after_a_restart() {
    let own = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n";
    let parse = |text: &str| Config::parse(Path::new("m.toml"), &format!("{own}{text}")).unwrap();
    let (old, new) = (
        parse(""),
        parse("[control]\ngroup = \"a\"\nread-only-socket = \"/r\"\nread-only-group = \"b\"\n"),
    );
    let needed = old.changes_to(&new).restart_needed;
    assert_eq!(needed, ["control.group", "control.read-only-socket"]);
    let text = new.to_string();
    assert!(text.contains("control socket /run/margay/margay.sock, for group a\n"), "{text}");
    assert!(text.contains("read-only socket /r, for group b\n"), "{text}");
}

#[test]
fn wrong_groups_and_paths_are_named() {
    for (lines, fault) in [
        (
            "group = \"a:b\"\n",
            "m.toml:5:9: control.group: is not the name of a group; write a name of /etc/group, or a number as text",
        ),
        (
            "read-only-group = \"a\"\n",
            "m.toml:5:1: control.read-only-group: needs read-only-socket; add it, or leave this out",
        ),
        (
            "socket = \"/a\"\nread-only-socket = \"/a\"\n",
            "m.toml:6:20: control.read-only-socket: is the path of control.socket; give each socket a path of its own",
        ),
    ] {
        let error = parse(&format!("{LEAST}[control]\n{lines}")).unwrap_err();
        let faults: Vec<String> = error.as_slice().iter().map(ToString::to_string).collect();
        assert_eq!(faults, [fault]);
    }
}
