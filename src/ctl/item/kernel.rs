//! What the kernel does with packets to an address.

use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};

use super::Gateway;

/// The kernel's own answer, which considers the routes of all processes and its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelAnswer {
    /// The address.
    pub address: IpAddr,
    /// The prefix of the route that it uses; `null`: no route leads there, or one that drops packets, whose
    /// prefix the kernel does not say.
    pub prefix: Option<Prefix>,
    /// Whether that is a route of ours.
    pub ours: bool,
    /// Who installed it, as `ip route` says: `bird`, `static`, `kernel`.
    pub protocol: Option<String>,
    /// Its table.
    pub table: Option<u32>,
    /// Its metric.
    pub metric: Option<u32>,
    /// `unicast` or `other` (local or encapsulated, for example); without a prefix `blackhole`,
    /// `unreachable`, `prohibit`, or `null`: no route leads there.
    pub kind: Option<String>,
    /// Its gateways.
    pub gateways: Vec<Gateway>,
    /// The next-hop object that it refers to, in place of gateways.
    pub object: Option<u32>,
    /// Why the kernel was not asked, or did not answer.
    pub error: Option<String>,
}

impl KernelAnswer {
    /// The route or rule that drops packets, in words; `None`: none does.
    pub fn dropped_by(&self) -> Option<String> {
        let kind = self.kind.as_deref().filter(|_| self.prefix.is_none())?;
        let article = if kind.starts_with('u') { "an" } else { "a" };
        Some(format!("{article} {kind} route covers {}", self.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drops_packets_is_named() {
        let json = serde_json::json!({
            "address": "192.0.2.1", "prefix": null, "ours": false, "protocol": null, "table": null,
            "metric": null, "kind": "unreachable", "gateways": [], "object": null, "error": null,
        });
        let answer: KernelAnswer = serde_json::from_value(json).unwrap();
        let said = answer.dropped_by().unwrap();
        assert_eq!(said, "an unreachable route covers 192.0.2.1");
        let prefix = "192.0.2.0/24".parse().ok();
        assert_eq!(KernelAnswer { prefix, ..answer.clone() }.dropped_by(), None);
        assert_eq!(KernelAnswer { kind: None, ..answer }.dropped_by(), None);
    }
}
