//! How many packets the kernel forwards.

/// Packets that the kernel has forwarded in this network namespace, IPv4 and IPv6 together. `None`: it
/// does not say. What eBPF programs or the hardware forward past the IP layer is not in it.
pub fn forwarded_packets() -> Option<u64> {
    let ipv4 = procfs::net::snmp().ok()?.ip_forw_datagrams;
    // Without IPv6 there is no such file.
    let ipv6 = procfs::net::snmp6().map_or(0, |counters| counters.ip_out_forw_datagrams);
    Some(ipv4.saturating_add(ipv6))
}
