//! Messages of the session that were treated as erroneous, for hosts that ask for them (RFC 7854 §4.7).

use super::{Action, Close, Conn, Peer, Slot};

/// Whether the host is given erroneous messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faulty {
    /// They are treated, counted and dropped.
    #[default]
    Dropped,
    /// Each is an [`Action::Faulty`] as well.
    Reported,
}

/// What shows that a message was erroneous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Faults {
    withdrawals: u64,
    discarded: u64,
}

impl Peer {
    /// Whether messages that were treated as erroneous are reported from here on.
    pub fn set_faulty(&mut self, faulty: Faulty) {
        self.faulty = faulty;
    }

    /// Before a message of the session; `None` if it is not to be reported.
    pub(super) fn faults(&self, slot: Slot) -> Option<Faults> {
        let is_session = matches!(self.conn(slot), Some(Conn::Established(_)));
        (self.faulty == Faulty::Reported && is_session).then_some(Faults {
            withdrawals: self.stats.treated_as_withdraw,
            discarded: self.stats.attributes_discarded,
        })
    }

    /// After it: reports it if it was erroneous, before the end of the session if it caused that.
    pub(super) fn report_faulty(&mut self, slot: Slot, before: Option<Faults>, message: &[u8]) {
        let Some(before) = before else { return };
        let actions = &mut self.outbox.actions;
        let ended = actions
            .iter()
            .rposition(|action| matches!(action, Action::Down { reason: Close::Protocol(_), .. }));
        let ended = ended.filter(|_| self.conns.get(slot.index()).is_none_or(Option::is_none));
        let after = Faults {
            withdrawals: self.stats.treated_as_withdraw,
            discarded: self.stats.attributes_discarded,
        };
        match ended {
            Some(at) => actions.insert(at, Action::Faulty(message.into())),
            None if after != before => actions.push_back(Action::Faulty(message.into())),
            None => {}
        }
    }
}
