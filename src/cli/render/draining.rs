//! `margay drain`, `undrain` and `show drain`.

use super::{Look, clean, line};
use crate::ctl::Lasts;
use crate::ctl::item::{Drained, Draining};

/// When a drain began, its reason, and how long it lasts at most.
pub(super) fn drained(drained: &Drained, look: &Look) -> String {
    let reason = drained.reason.as_ref().map(|reason| format!(" ({})", clean(reason)));
    let until = match drained.lasts {
        Lasts::Run => "until undrained, or the daemon is restarted",
        Lasts::Boot => "until undrained, or the machine is restarted",
        Lasts::Object => "by the node's object: until its annotation or cordon is removed",
    };
    let since = look.time_of(&drained.since);
    format!("since {since}{}, {until}", reason.unwrap_or_default())
}

pub(super) fn draining(d: &Draining, look: &Look) -> String {
    let mut out = String::new();
    match &d.all {
        Some(all) => line(&mut out, "every peer", format_args!("drained {}", drained(all, look))),
        None if d.by_name.is_empty() => return "no peer is drained\n".to_owned(),
        None => {}
    }
    if !d.by_name.is_empty() {
        line(&mut out, "by name", d.by_name.join(" "));
    }
    let (peers, established, told, moved) = (d.peers, d.established, d.told, d.moved);
    line(
        &mut out,
        "drained peers",
        format_args!(
            "{peers}, {established} established, {told} told, {moved} announce other paths"
        ),
    );
    for peer in &d.waiting {
        let told = if peer.told { "told" } else { "not told yet" };
        let (replaced, advertised) = (peer.replaced, peer.advertised);
        line(
            &mut out,
            "  ",
            format_args!(
                "{}: {told}, announces other paths for {replaced} of {advertised} prefixes",
                peer.name
            ),
        );
    }
    match d.forwarded_packets {
        Some(packets) => line(&mut out, "forwarded", format_args!("{packets} packets")),
        None => line(&mut out, "forwarded", "cannot be read from the kernel"),
    }
    out
}
