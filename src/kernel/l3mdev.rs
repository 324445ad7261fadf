//! The sysctls that let sockets without a device receive what arrives in VRFs.

use std::fs;

/// Each with the consequence of 1.
const SETTINGS: [(&str, &str); 2] = [
    (
        "net.ipv4.tcp_l3mdev_accept",
        "listening sockets of the default VRF also accept connections in VRFs, which count as the \
         default VRF's unless [[vrfs]] lists the VRF",
    ),
    (
        "net.ipv4.udp_l3mdev_accept",
        "BFD's sockets of the default VRF also receive packets in VRFs without BFD, which count as \
         the default VRF's",
    ),
];

/// Of these sysctls, those that are 1, with the consequence and the remedy.
pub fn shared_sockets() -> Vec<String> {
    shared_by(|name| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        // Without it the kernel has no VRFs.
        fs::read_to_string(path).unwrap_or_default()
    })
}

fn shared_by(value: impl Fn(&str) -> String) -> Vec<String> {
    let is_on = |(name, _): &&(&str, &str)| value(name).trim() == "1";
    let text =
        |(name, what): &(&str, &str)| format!("{name} is 1: {what}; sysctl -w {name}=0 is safer");
    SETTINGS.iter().filter(is_on).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_is_named() {
        assert!(shared_by(|_| "0\n".into()).is_empty() && shared_by(|_| String::new()).is_empty());
        let on = shared_by(|name| if name.contains("udp") { "1\n".into() } else { "0\n".into() });
        assert!(
            matches!(&on[..], [text] if text.starts_with("net.ipv4.udp_l3mdev_accept is 1: BFD"))
        );
    }
}
