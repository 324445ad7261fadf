//! Why a session ends, and the one map from that to a NOTIFICATION.

use super::{Keep, Negotiated};
use crate::types::Time;
use crate::wire::{Code, Notification};

/// Which side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We sent the NOTIFICATION.
    Sent,
    /// The peer sent it.
    Received,
    /// Nothing was sent: the connection failed, or was closed without a NOTIFICATION.
    Local,
}

/// Why a connection or session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// The operator or the host stops the peer; the text is sent to the peer (RFC 9003). 6/2.
    Shutdown {
        /// Shutdown communication.
        text: String,
    },
    /// Reset by the operator. 6/4.
    Reset {
        /// Shutdown communication.
        text: String,
    },
    /// The peer was removed from the configuration. 6/3.
    Deconfigured,
    /// Session parameters changed. 6/6.
    ConfigurationChange,
    /// More prefixes than allowed: 6/1 with AFI, SAFI and bound.
    PrefixLimit {
        /// The family.
        family: crate::types::Family,
        /// The bound.
        bound: u32,
    },
    /// Memory or descriptors ran out. 6/8.
    OutOfResources,
    /// A planned restart of ours: TCP closes without a NOTIFICATION so that the peer keeps our
    /// routes (RFC 4724 §4.1).
    GracefulStop,
    /// The connection lost a collision. 6/7.
    Collision,
    /// The peer opened another connection, so it has restarted: this one is dropped without a
    /// NOTIFICATION (RFC 4724 §5).
    Replaced,
    /// Connections with the peer are not accepted at present. 6/5.
    Rejected,
    /// The BFD session with the peer failed: the path, or the peer. 6/10 (RFC 9384).
    BfdDown {
        /// Why, for the operator; it is not sent to the peer.
        text: String,
    },
    /// No complete KEEPALIVE or UPDATE arrived within the hold time. 4/0.
    HoldTimerExpired,
    /// The peer accepted nothing within the send hold time (RFC 9687). TCP is reset, because a
    /// NOTIFICATION could not be sent either.
    SendHoldTimerExpired,
    /// The peer violated the protocol: this NOTIFICATION is sent.
    Protocol(Notification),
    /// The peer's OPEN does not fit the configuration: this NOTIFICATION is sent.
    OpenRefused {
        /// The NOTIFICATION.
        notification: Notification,
        /// What does not fit, with the values of both sides, for operators.
        text: String,
    },
    /// The peer sent a NOTIFICATION.
    Received(Notification),
    /// TCP failed or was closed.
    Transport {
        /// The reason as the host describes it, for example "connection refused".
        text: String,
    },
}

/// Whether a session ends in a way that makes the peer delete our routes (RFC 8538 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// The peer may keep our routes, and we keep the peer's.
    Soft,
    /// Hard Reset: each side deletes the other's routes.
    Hard,
}

impl Close {
    /// The NOTIFICATION to send, if any. `session` is what was negotiated, if the OPENs were
    /// exchanged: if both sides set the N bit, a hard reset is wrapped into 6/9 (RFC 8538 §3).
    pub fn notification(&self, session: Option<&Negotiated>) -> Option<Notification> {
        let plain = match self {
            Close::Shutdown { text } => {
                Notification::with_text(Code::ADMINISTRATIVE_SHUTDOWN, text)
            }
            Close::Reset { text } => Notification::with_text(Code::ADMINISTRATIVE_RESET, text),
            Close::Deconfigured => Notification::new(Code::PEER_DECONFIGURED),
            Close::ConfigurationChange => Notification::new(Code::OTHER_CONFIGURATION_CHANGE),
            Close::PrefixLimit { family, bound } => {
                let pair = family.afi_safi();
                let mut data = pair.afi.to_be_bytes().to_vec();
                data.push(pair.safi);
                data.extend(bound.to_be_bytes());
                Notification::with_data(Code::MAXIMUM_PREFIXES, data)
            }
            Close::OutOfResources => Notification::new(Code::OUT_OF_RESOURCES),
            Close::Collision => Notification::new(Code::CONNECTION_COLLISION),
            Close::Rejected => Notification::new(Code::CONNECTION_REJECTED),
            Close::BfdDown { .. } => Notification::new(Code::BFD_DOWN),
            Close::HoldTimerExpired => Notification::new(Code::HOLD_TIMER_EXPIRED),
            Close::Protocol(notification) | Close::OpenRefused { notification, .. } => {
                notification.clone()
            }
            // Nothing can be written to a peer that does not read (RFC 9687 §3.1), and a
            // NOTIFICATION is never answered.
            Close::SendHoldTimerExpired
            | Close::GracefulStop
            | Close::Replaced
            | Close::Received(_)
            | Close::Transport { .. } => return None,
        };
        let hard = self.severity() == Severity::Hard && session.is_some_and(both_set_n_bit);
        Some(if hard { wrap_hard_reset(&plain) } else { plain })
    }

    /// The routes to keep when an established session ends this way (RFC 4724 §4.2, RFC 8538 §4).
    pub(super) fn keep(&self, session: &Negotiated) -> Option<Keep> {
        if *self == Close::OutOfResources {
            // We keep nothing, being short of memory; the peer may keep ours (RFC 8538 §3.1 does
            // not name 6/8).
            return None;
        }
        let restart = session.graceful_restart.as_ref()?;
        let lost_silently =
            matches!(self, Close::Transport { .. } | Close::GracefulStop | Close::Replaced);
        let kept = lost_silently || (both_set_n_bit(session) && self.severity() == Severity::Soft);
        let keep = Keep {
            families: session.restart_families(),
            restart_time: std::time::Duration::from_secs(restart.restart_time_secs.into()),
            long_lived: session.long_lived_stale_times(),
        };
        (kept && !keep.is_empty()).then_some(keep)
    }

    /// Differs from RFC: 8538 §3.1 leaves a reset by the operator open. Here it is hard, because it
    /// is requested when a session's state is not trusted; a change of configuration is soft. BFD
    /// Down is hard, because routes over a dead path must not stay in use.
    fn severity(&self) -> Severity {
        match self {
            Close::Shutdown { .. }
            | Close::Reset { .. }
            | Close::Deconfigured
            | Close::BfdDown { .. }
            | Close::PrefixLimit { .. } => Severity::Hard,
            Close::Received(n) if n.code == Code::HARD_RESET => Severity::Hard,
            Close::ConfigurationChange
            | Close::OutOfResources
            | Close::GracefulStop
            | Close::Collision
            | Close::Replaced
            | Close::Rejected
            | Close::HoldTimerExpired
            | Close::SendHoldTimerExpired
            | Close::Protocol(_)
            | Close::OpenRefused { .. }
            | Close::Received(_)
            | Close::Transport { .. } => Severity::Soft,
        }
    }

    /// Whether the peer exceeded a limit, so that it is held idle for a while.
    pub(super) fn holds_idle(&self) -> bool {
        matches!(self, Close::PrefixLimit { .. } | Close::OutOfResources)
    }

    /// Which side ended it.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Close::Received(_) => Origin::Received,
            Close::Transport { .. }
            | Close::GracefulStop
            | Close::Replaced
            | Close::SendHoldTimerExpired => Origin::Local,
            _ => Origin::Sent,
        }
    }

    /// The entry for `last_error`; our own NOTIFICATIONs are not wrapped as in RFC 8538.
    pub(super) fn to_error(&self, at: Time) -> LastError {
        let notification = match self {
            Close::Received(n) => Some(n.clone()),
            Close::SendHoldTimerExpired => Some(Notification::new(Code::SEND_HOLD_TIMER_EXPIRED)),
            _ => self.notification(None),
        };
        let text = match self {
            Close::Transport { text } | Close::OpenRefused { text, .. } => text.clone(),
            Close::BfdDown { text } => format!("BFD Down: {text}"),
            Close::GracefulStop => "graceful stop".to_owned(),
            Close::Replaced => "the peer opened a new connection".to_owned(),
            _ => notification.as_ref().map(describe).unwrap_or_default(),
        };
        LastError { at, origin: self.origin(), code: notification.map(|n| n.code), text }
    }
}

/// We always set N if we offer capability 64, and `graceful_restart` is present only if we did.
fn both_set_n_bit(session: &Negotiated) -> bool {
    session.graceful_restart.as_ref().is_some_and(|gr| gr.notification)
}

fn wrap_hard_reset(inner: &Notification) -> Notification {
    let mut data = vec![inner.code.code, inner.code.subcode];
    data.extend_from_slice(&inner.data);
    Notification::with_data(Code::HARD_RESET, data)
}

fn describe(notification: &Notification) -> String {
    let name = match (notification.code, notification.data.as_slice()) {
        // RFC 8538 §3: the data begins with the code that would have been sent otherwise.
        (Code::HARD_RESET, [code, subcode, ..]) => {
            format!("{} ({})", Code::HARD_RESET, Code::new(*code, *subcode))
        }
        (code, _) => code.to_string(),
    };
    match notification.text() {
        Some(text) if !text.is_empty() => format!("{name}: {text}"),
        _ => name,
    }
}

/// The last failure, as `show peers` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When the connection ended or failed.
    pub at: Time,
    /// Which side ended it.
    pub origin: Origin,
    /// Code and subcode, if there was a NOTIFICATION.
    pub code: Option<Code>,
    /// Description for operators.
    pub text: String,
}
