//! The peers that a command concerns: by name, by address, or by a pattern of names.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::policy::glob_matches;
use bgp_proto::types::PeerId;

use super::registry::{Record, Registry};
use crate::ctl::{ErrorKind, Refusal};

/// Most names in one command.
const NAMES_MAX: usize = 10_000;

/// Whether a peer was named, or selected by a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Named,
    Matched,
}

/// The peers that a command concerns.
#[derive(Default)]
pub(super) struct Chosen {
    /// Each peer once; named, if it was named and matched.
    pub(super) records: Vec<(Arc<Record>, How)>,
    /// Names without a peer at present that the command knows nonetheless.
    pub(super) absent: Vec<Arc<str>>,
    /// The position of each peer in `records`.
    positions: BTreeMap<PeerId, usize>,
}

impl Chosen {
    /// Every peer.
    pub(super) fn all(registry: &Registry) -> Self {
        let mut chosen = Chosen::default();
        registry.all().iter().for_each(|record| chosen.add(record, How::Matched));
        chosen
    }

    /// The peers with these names or addresses, and those that match the patterns among them.
    /// `is_known`: names that are accepted although there is no such peer.
    ///
    /// # Errors
    /// A name without a peer, or none or too many names.
    pub(super) fn named(
        registry: &Registry,
        names: &[String],
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Self, Refusal> {
        if names.is_empty() || names.len() > NAMES_MAX {
            let text = format!("name 1 to {NAMES_MAX} peers, or all of them");
            return Err(Refusal { kind: ErrorKind::BadRequest, text });
        }
        let all = registry.all();
        let mut chosen = Chosen::default();
        for name in names {
            if let Some(record) = registry.find(name) {
                chosen.add(&record, How::Named);
                continue;
            }
            let is_pattern = name.contains(['*', '?']);
            let mut matching =
                all.iter().filter(|r| is_pattern && glob_matches(name, &r.name)).peekable();
            let has_match = matching.peek().is_some();
            matching.for_each(|record| chosen.add(record, How::Matched));
            if is_known(name) {
                chosen.absent.push(name.as_str().into());
            } else if !has_match {
                return Err(Refusal::no_peer(name, all.iter().map(|record| &*record.name)));
            }
        }
        Ok(chosen)
    }

    fn add(&mut self, record: &Arc<Record>, how: How) {
        let position = *self.positions.entry(record.id).or_insert(self.records.len());
        match self.records.get_mut(position) {
            Some((_, before)) if how == How::Named => *before = how,
            Some(_) => {}
            None => self.records.push((Arc::clone(record), how)),
        }
    }
}
