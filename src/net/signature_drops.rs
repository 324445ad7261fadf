//! Segments that the kernel dropped because of TCP MD5 (RFC 2385) or TCP-AO (RFC 5925). Nothing else says
//! that passwords or key chains differ: neither side answers such a segment.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bgp_proto::session::TransportSecurity;

/// The counters of the network namespace, in two lines each: names, values.
const NETSTAT: &str = "/proc/thread-self/net/netstat";
/// How long the counters are used for other peers too.
const RECENT: Duration = Duration::from_secs(1);

/// How the segments of a session are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signing {
    /// They are not.
    No,
    /// With TCP MD5.
    Md5,
    /// With TCP-AO.
    Ao,
}

impl Signing {
    pub(super) fn of(security: &TransportSecurity) -> Signing {
        match (&security.md5, &security.ao) {
            (Some(_), _) => Signing::Md5,
            (None, Some(_)) => Signing::Ao,
            (None, None) => Signing::No,
        }
    }
}

/// How many segments were dropped, of all connections in the network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SignatureDrops {
    /// Not signed though we have a password for the sender.
    missing: u64,
    /// Signed with TCP MD5 though we have no password for the sender.
    unexpected: u64,
    /// Signed with another password.
    wrong: u64,
    /// Not signed though we have a key chain for the sender.
    ao_missing: u64,
    /// Signed by a TCP-AO key that we do not hold for the sender.
    ao_unknown: u64,
    /// Signed by a TCP-AO key with an id of ours, but with another secret or algorithm.
    ao_wrong: u64,
}

impl SignatureDrops {
    /// Those since the namespace exists; `None` if the kernel does not say.
    pub(super) fn read() -> Option<SignatureDrops> {
        parse(&fs::read_to_string(NETSTAT).ok()?)
    }

    /// The same, as of [`RECENT`] ago at most: many peers that dial at once read the file once. What a peer
    /// compares is several seconds apart.
    pub(super) fn recent() -> Option<SignatureDrops> {
        static LAST: Mutex<Option<(Instant, Option<SignatureDrops>)>> = Mutex::new(None);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, drops)) if at.elapsed() < RECENT => drops,
            _ => {
                let drops = SignatureDrops::read();
                *last = Some((Instant::now(), drops));
                drops
            }
        }
    }

    /// Those since `earlier`.
    pub(super) fn since(self, earlier: SignatureDrops) -> SignatureDrops {
        SignatureDrops {
            missing: self.missing.saturating_sub(earlier.missing),
            unexpected: self.unexpected.saturating_sub(earlier.unexpected),
            wrong: self.wrong.saturating_sub(earlier.wrong),
            ao_missing: self.ao_missing.saturating_sub(earlier.ao_missing),
            ao_unknown: self.ao_unknown.saturating_sub(earlier.ao_unknown),
            ao_wrong: self.ao_wrong.saturating_sub(earlier.ao_wrong),
        }
    }

    /// What they suggest about a neighbour that does not answer. The counters do not name the sender:
    /// with several neighbours, it may be another.
    pub(super) fn hint(self, signing: Signing) -> Option<String> {
        let (how, what, means) = match (signing, self) {
            (Signing::Md5, SignatureDrops { wrong: 1.., .. }) => {
                ("TCP MD5", "with a wrong signature", "the passwords differ")
            }
            (Signing::Md5, SignatureDrops { missing: 1.., .. }) => {
                ("TCP MD5", "without a signature", "the neighbour has no password for us")
            }
            (Signing::Md5, SignatureDrops { ao_unknown: 1.., .. }) => {
                ("TCP-AO", "with a signature", "the neighbour has a key chain, we have a password")
            }
            (Signing::Ao, SignatureDrops { ao_wrong: 1.., .. }) => {
                ("TCP-AO", "with a wrong signature", "the secrets or algorithms of a key differ")
            }
            (Signing::Ao, SignatureDrops { ao_unknown: 1.., .. }) => {
                ("TCP-AO", "with a key that we do not hold", "the ids of the keys differ")
            }
            (Signing::Ao, SignatureDrops { ao_missing: 1.., .. }) => {
                ("TCP-AO", "without a signature", "the neighbour has no key chain for us")
            }
            (Signing::Ao, SignatureDrops { unexpected: 1.., .. }) => {
                ("TCP MD5", "with a signature", "the neighbour has a password, we have a key chain")
            }
            // Also any other neighbour, which we do not know, may send these.
            (Signing::No, SignatureDrops { unexpected: 1.., .. }) => (
                "TCP MD5",
                "with a signature from some neighbour",
                "if it is this one, it has a password, we have none",
            ),
            (Signing::No, SignatureDrops { ao_unknown: 1.., .. }) => (
                "TCP-AO",
                "with a signature from some neighbour",
                "if it is this one, it has a key chain, we have none",
            ),
            _ => return None,
        };
        // Without the count: a reason that differs with every attempt would be logged every time.
        Some(format!("{how}: the kernel dropped segments {what} meanwhile: {means}"))
    }
}

/// How many segments the kernel has dropped for their signature, of all connections in the network
/// namespace since it exists: by the kind of signature and the reason, as words for metrics. Empty if the
/// kernel does not count them.
pub fn signature_drops() -> Vec<(&'static str, &'static str, u64)> {
    let Some(drops) = SignatureDrops::read() else { return Vec::new() };
    let SignatureDrops { missing, unexpected, wrong, ao_missing, ao_unknown, ao_wrong } = drops;
    vec![
        ("tcp-md5", "missing", missing),
        ("tcp-md5", "unexpected", unexpected),
        ("tcp-md5", "wrong", wrong),
        ("tcp-ao", "missing", ao_missing),
        ("tcp-ao", "unexpected", ao_unknown),
        ("tcp-ao", "wrong", ao_wrong),
    ]
}

fn parse(text: &str) -> Option<SignatureDrops> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let of = |name: &str| {
        let pairs = names.split_whitespace().zip(values.split_whitespace());
        let value = pairs.into_iter().find(|(own, _)| *own == name)?.1;
        value.parse().ok()
    };
    Some(SignatureDrops {
        missing: of("TCPMD5NotFound")?,
        unexpected: of("TCPMD5Unexpected")?,
        wrong: of("TCPMD5Failure")?,
        // Kernels before 6.7 have no TCP-AO.
        ao_missing: of("TCPAORequired").unwrap_or_default(),
        ao_unknown: of("TCPAOKeyNotFound").unwrap_or_default(),
        ao_wrong: of("TCPAOBad").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure\n\
                    TcpExt: 9 1 2 3\nIpExt: InNoRoutes\nIpExt: 7\n";
        let counted =
            SignatureDrops { missing: 1, unexpected: 2, wrong: 3, ..SignatureDrops::default() };
        assert_eq!(parse(text), Some(counted));
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
        let text = "TcpExt: TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPAORequired TCPAOBad \
                    TCPAOKeyNotFound TCPAOGood\nTcpExt: 1 2 3 4 5 6 7\n";
        let with_ao = SignatureDrops { ao_missing: 4, ao_wrong: 5, ao_unknown: 6, ..counted };
        assert_eq!(parse(text), Some(with_ao));
        assert!(SignatureDrops::read().is_some(), "this kernel counts them");
        assert!(SignatureDrops::recent().is_some());
        let since = with_ao.since(counted);
        assert_eq!(since, SignatureDrops { missing: 0, unexpected: 0, wrong: 0, ..with_ao });
    }

    #[test]
    fn a_hint_depends_on_how_the_session_is_signed() {
        let none = SignatureDrops::default;
        for (signing, drops, wanted) in [
            (
                Signing::Md5,
                SignatureDrops { wrong: 1, missing: 1, ..none() },
                "the passwords differ",
            ),
            (Signing::Md5, SignatureDrops { missing: 1, ..none() }, "has no password for us"),
            (Signing::Md5, SignatureDrops { ao_unknown: 1, ..none() }, "chain, we have a password"),
            (Signing::Ao, SignatureDrops { ao_wrong: 1, ..none() }, "algorithms of a key differ"),
            (Signing::Ao, SignatureDrops { ao_unknown: 1, ..none() }, "the ids of the keys differ"),
            (Signing::Ao, SignatureDrops { ao_missing: 1, ..none() }, "has no key chain for us"),
            (Signing::Ao, SignatureDrops { unexpected: 1, ..none() }, "we have a key chain"),
            (Signing::No, SignatureDrops { unexpected: 1, ..none() }, "a password, we have none"),
            (Signing::No, SignatureDrops { ao_unknown: 1, ..none() }, "a key chain, we have none"),
        ] {
            let hint = drops.hint(signing).unwrap();
            assert!(hint.ends_with(wanted), "{hint}");
            let is_of_ao = drops.ao_missing + drops.ao_unknown + drops.ao_wrong > 0;
            assert_eq!(hint.starts_with("TCP-AO: "), is_of_ao, "{hint}");
            assert_eq!(hint.contains("from some neighbour"), signing == Signing::No, "{hint}");
        }
        for signing in [Signing::No, Signing::Md5, Signing::Ao] {
            assert_eq!(none().hint(signing), None);
        }
        // Those of other sessions.
        assert_eq!(SignatureDrops { wrong: 1, ao_wrong: 1, ..none() }.hint(Signing::No), None);
        assert_eq!(SignatureDrops { wrong: 1, missing: 1, ..none() }.hint(Signing::Ao), None);
    }
}
