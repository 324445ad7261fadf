//! What the process needs from the system before it starts.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Descriptors besides peers: listeners, netlink, control clients, files.
const DESCRIPTORS_RESERVED: u64 = 128;
/// A peer may have two connections while they collide; more than a few do not at once.
const DESCRIPTORS_PER_PEER: u64 = 1;

/// Raises the limit of open files as far as the system allows, and refuses to start with fewer
/// than the configured peers need.
pub(super) fn raise_open_files(config: &Config) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < allowed) {
        // Failing to raise it matters only if it is too low, which is looked at below.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let available = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = needed_open_files(config.peers.len());
    if available < needed {
        return Err(io::Error::other(format!(
            "too few file descriptors: {needed} are needed for the configured peers ({}), the limit \
             is {available}; raise it (ulimit -n, LimitNOFILE=)",
            config.peers.len()
        )));
    }
    Ok(())
}

fn needed_open_files(peers: usize) -> u64 {
    DESCRIPTORS_RESERVED.saturating_add(
        DESCRIPTORS_PER_PEER.saturating_mul(u64::try_from(peers).unwrap_or(u64::MAX)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_counts() {
        assert!(needed_open_files(5000) > 5000);
        assert!(needed_open_files(0) > 64);
    }
}
