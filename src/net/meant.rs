//! Whether a session ended because someone meant it to.

use bgp_proto::session::Close;
use bgp_proto::wire::{Code, Notification};

/// Whether this end was requested: by our operator or configuration, or by the peer's, as its
/// NOTIFICATION says. Such an end is no reason for a warning.
pub(super) fn is_meant(reason: &Close) -> bool {
    match reason {
        Close::Shutdown { .. }
        | Close::Reset { .. }
        | Close::Deconfigured
        | Close::ConfigurationChange
        | Close::GracefulStop => true,
        Close::Received(notification) => is_request(inner(notification)),
        _ => false,
    }
}

/// Whether a NOTIFICATION with this code is sent at an operator's request (RFC 4486 §4).
pub(super) fn is_request(code: Code) -> bool {
    matches!(
        code,
        Code::ADMINISTRATIVE_SHUTDOWN
            | Code::ADMINISTRATIVE_RESET
            | Code::PEER_DECONFIGURED
            | Code::OTHER_CONFIGURATION_CHANGE
    )
}

/// The code, or the one that a Hard Reset carries (RFC 8538 §3).
fn inner(notification: &Notification) -> Code {
    match (notification.code, notification.data.as_slice()) {
        (Code::HARD_RESET, [code, subcode, ..]) => Code::new(*code, *subcode),
        (code, _) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_either_side_is_meant_and_a_fault_is_not() {
        let received = |code, data: &[u8]| {
            is_meant(&Close::Received(Notification::with_data(code, data.to_vec())))
        };
        assert!(is_meant(&Close::GracefulStop));
        assert!(received(Code::ADMINISTRATIVE_SHUTDOWN, &[]));
        assert!(received(Code::HARD_RESET, &[6, 3]));
        assert!(!received(Code::HARD_RESET, &[4, 0]));
        assert!(!received(Code::HARD_RESET, &[]));
        assert!(!received(Code::BAD_PEER_AS, &[]));
        assert!(!is_meant(&Close::HoldTimerExpired));
        assert!(!is_meant(&Close::Transport { text: "reset".into() }));
    }
}
