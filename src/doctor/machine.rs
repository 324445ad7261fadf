//! Properties of the host that BGP depends on: capabilities, sysctls, conntrack.

use std::fs;

/// Bits of `CapEff` (linux/capability.h).
pub(super) const CAP_NET_BIND_SERVICE: u32 = 10;
pub(super) const CAP_NET_ADMIN: u32 = 12;

/// The effective capabilities of a process, from `/proc`.
pub(super) fn capabilities(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.ok_or_else(|| format!("{path} does not say CapEff"))
}

/// The value of a numeric sysctl, named with dots; `None`: the kernel does not have it.
pub(super) fn sysctl(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_sysctls_are_read() {
        assert!(capabilities(std::process::id()).is_ok());
        assert!(capabilities(u32::MAX).is_err());
        assert!(sysctl("net.core.optmem_max").is_some());
        assert_eq!(sysctl("net.core.no_such_thing"), None);
    }
}
