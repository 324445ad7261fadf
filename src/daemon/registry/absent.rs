//! Why a peer that was named is not found.

use std::net::IpAddr;

use bgp_proto::types::off_interface;

use super::{Presence, Record, Registry};
use crate::ctl::{ErrorKind, Refusal};

impl Registry {
    /// There is no such peer, or not at present: while a reload replaces one, there is a moment in which
    /// neither the old nor the new one is there.
    pub(in crate::daemon) fn not_found(&self, name: &str) -> Refusal {
        let leaving = self.read(|records| {
            let is_meant = |record: &&std::sync::Arc<Record>| {
                *record.name == *name
                    || name
                        .parse::<IpAddr>()
                        .is_ok_and(|addr| addr == off_interface(record.address).0)
            };
            let mut leaving = records.by_id.values().filter(|record| record.leaves());
            leaving.rfind(is_meant).map(|record| record.presence)
        });
        let text = match leaving {
            Some(Presence::Replaced) => {
                format!("{name} is being replaced by a peer with other parameters: ask again")
            }
            Some(Presence::Removed) => format!("{name} is being removed"),
            Some(Presence::Stays) | None => {
                let all = self.all();
                return Refusal::no_peer(name, all.iter().map(|record| &*record.name));
            }
        };
        Refusal { kind: ErrorKind::NotFound, text }
    }
}
