//! The limit of file descriptors, and how they are divided among peers and other uses.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::info;

use crate::config::Config;

/// Descriptors reserved for uses other than BGP connections: listeners, netlink, files, the
/// datastore, control clients, metrics and probes. Of clients, the one that has been silent longest
/// is disconnected for a new one.
const RESERVED: u64 = 128;

/// The number of descriptors that the process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    available: u64,
}

impl Descriptors {
    /// Raises the limit of open files as far as the system allows, and refuses to start with fewer
    /// than the configured peers need.
    ///
    /// # Errors
    /// There are too few for the configured peers.
    pub(super) fn raise(config: &Config) -> io::Result<Self> {
        let limit = getrlimit(Resource::Nofile);
        let allowed = limit.maximum.unwrap_or(u64::MAX);
        if limit.current.is_some_and(|current| current < allowed) {
            let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
            // A failure to raise it matters only if it is too low, which is checked below.
            let _ = setrlimit(Resource::Nofile, raised);
        }
        let available = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let peers = config.peers.len();
        let needed = RESERVED.saturating_add(as_u64(peers));
        if available < needed {
            return Err(io::Error::other(format!(
                "too few file descriptors: {needed} are needed for the configured peers ({peers}), \
                 the limit is {available}; raise it (ulimit -n, LimitNOFILE=)"
            )));
        }
        Ok(Descriptors { available })
    }

    /// The first descriptor number that is not available to BGP connections.
    pub(super) fn for_bgp(self) -> u64 {
        self.available - RESERVED
    }

    /// How many dynamic peers there may be in addition to the configured ones.
    pub(super) fn dynamic_peers_max(self, config: &Config) -> usize {
        let peers = as_u64(config.peers.len());
        // A peer by interface has two sockets more for router discovery.
        let by_interface = config.peers.iter().filter(|peer| peer.interface.is_some()).count();
        let left = self.for_bgp().saturating_sub(peers + 2 * as_u64(by_interface));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// How many interfaces may have peers: each takes a connection and two sockets of router discovery.
    pub(super) fn interfaces_max(self, config: &Config) -> usize {
        let others = config.peers.iter().filter(|peer| peer.interface.is_none()).count();
        let left = self.for_bgp().saturating_sub(as_u64(others)) / 3;
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// A message if there may be fewer dynamic peers than the configuration allows.
    pub(super) fn shortage(self, config: &Config) -> Option<String> {
        let wanted: u64 = config.dynamic.iter().map(|range| u64::from(range.peers_max)).sum();
        let max = self.dynamic_peers_max(config);
        (wanted > as_u64(max)).then(|| {
            format!(
                "at most {max} of {wanted} dynamic peers (peers-max) are accepted: the limit of file \
                 descriptors is {}; raise it (ulimit -n, LimitNOFILE=)",
                self.available
            )
        })
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Logs the memory limits at start, so that a session closed by a default limit is no surprise.
pub(super) fn say_memory_limits(config: &Config, key: &str) {
    match config.bgp.memory_max {
        Some(octets) => info!("routes hold at most {} MiB ({key})", octets >> 20),
        None => info!("no limit to the memory of routes ({key})"),
    }
    let peers = config.peers.iter().map(|peer| &peer.routes);
    let ranges = config.dynamic.iter().map(|range| &range.routes);
    let mut bounds: BTreeMap<u64, usize> = BTreeMap::new();
    for octets in peers.chain(ranges).filter_map(|routes| routes.limits.memory_max) {
        *bounds.entry(octets).or_default() += 1;
    }
    for (octets, entries) in bounds {
        info!(
            "routes of one neighbour hold at most {} MiB in {entries} of the peers and ranges \
             (memory-max)",
            octets >> 20
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(peers: usize, peers_max: u32) -> Config {
        let mut text = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n".to_owned();
        for n in 0..peers {
            text += &format!("[[bgp.peers]]\naddress = \"10.0.1.{n}\"\nremote-asn = 64512\n");
        }
        text += &format!(
            "[[bgp.dynamic-peers]]\nprefix = \"10.1.0.0/16\"\nremote-asn = 64512\n\
             peers-max = {peers_max}\n"
        );
        Config::parse(std::path::Path::new("m.toml"), &text).unwrap()
    }

    #[test]
    fn configured_peers_come_first_and_operators_before_all() {
        let descriptors = Descriptors { available: 1000 };
        let config = config(10, 500);
        assert_eq!(descriptors.for_bgp(), 872);
        assert_eq!(descriptors.dynamic_peers_max(&config), 862);
        assert_eq!(descriptors.shortage(&config), None);
        assert_eq!(descriptors.interfaces_max(&config), 287);
    }

    #[test]
    fn a_range_that_is_too_large_is_named_with_the_remedy() {
        let text = Descriptors { available: 256 }.shortage(&config(10, 500)).unwrap();
        assert!(text.starts_with("at most 118 of 500 dynamic peers (peers-max)"), "{text}");
        assert!(text.contains("LimitNOFILE="), "{text}");
    }
}
