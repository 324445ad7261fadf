//! How many packets the kernel forwards.
//!
//! Two fields of two files, read by hand: the number of fields differs between kernels, and a reader of
//! all of them fails where one is missing.

use std::fs;
use std::io;

/// The counters of IPv4: a line of names and a line of values.
const SNMP: &str = "/proc/net/snmp";
/// The counters of IPv6, a line for each.
const SNMP6: &str = "/proc/net/snmp6";

/// Packets that the kernel has forwarded in this network namespace, IPv4 and IPv6 together. `None`: it
/// does not say. What eBPF programs or the hardware forward past the IP layer is not in it.
pub fn forwarded_packets() -> Option<u64> {
    total(fs::read_to_string(SNMP), fs::read_to_string(SNMP6))
}

fn total(ipv4: io::Result<String>, ipv6: io::Result<String>) -> Option<u64> {
    let ipv4 = forwarded_ipv4(&ipv4.ok()?)?;
    let ipv6 = match ipv6 {
        Ok(text) => forwarded_ipv6(&text)?,
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(_) => return None,
    };
    Some(ipv4.saturating_add(ipv6))
}

fn forwarded_ipv4(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut fields = names.split_whitespace().zip(values.split_whitespace());
    fields.find(|(name, _)| *name == "ForwDatagrams")?.1.parse().ok()
}

fn forwarded_ipv6(text: &str) -> Option<u64> {
    let mut fields = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    fields.find(|(name, _)| *name == "Ip6OutForwDatagrams")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: &str = "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams \
                        InUnknownProtos\nIp: 1 64 900 0 0 41 0\n\
                        Icmp: InMsgs InErrors\nIcmp: 4 0\n";
    const IPV6: &str = "Ip6InReceives                   \t20\n\
                        Ip6OutForwDatagrams             \t7\n\
                        Udp6InDatagrams                 \t3\n";

    fn read(text: &str) -> io::Result<String> {
        Ok(text.to_owned())
    }

    #[test]
    fn both_families_count() {
        assert_eq!(total(read(IPV4), read(IPV6)), Some(48));
    }

    #[test]
    fn a_kernel_without_ipv6_has_no_file_and_other_errors_are_no_zero() {
        let failed = |kind: io::ErrorKind| Err(io::Error::from(kind));
        assert_eq!(total(read(IPV4), failed(io::ErrorKind::NotFound)), Some(41));
        assert_eq!(total(read(IPV4), failed(io::ErrorKind::PermissionDenied)), None);
        assert_eq!(total(failed(io::ErrorKind::NotFound), read(IPV6)), None);
    }

    #[test]
    fn what_is_not_understood_is_no_zero() {
        for ipv4 in
            ["", "Ip: ForwDatagrams\n", "Ip: Forwarding\nIp: 1\n", "Ip: ForwDatagrams\nIp: x\n"]
        {
            assert_eq!(total(read(ipv4), read(IPV6)), None, "{ipv4:?}");
        }
        for ipv6 in ["", "Ip6InReceives 20\n", "Ip6OutForwDatagrams\n", "Ip6OutForwDatagrams x\n"] {
            assert_eq!(total(read(IPV4), read(ipv6)), None, "{ipv6:?}");
        }
    }

    #[test]
    fn the_running_kernel_is_understood() {
        assert!(forwarded_packets().is_some());
    }
}
