//! Segments that the kernel dropped because of TCP MD5 (RFC 2385). Nothing else says that passwords
//! differ: neither side answers such a segment.

use std::fs;

/// The counters of the network namespace, in two lines each: names, values.
const NETSTAT: &str = "/proc/thread-self/net/netstat";

/// How many segments were dropped, of all connections in the network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SignatureDrops {
    /// Not signed though we have a password for the sender.
    missing: u64,
    /// Signed though we have no password for the sender.
    unexpected: u64,
    /// Signed with another password.
    wrong: u64,
}

impl SignatureDrops {
    /// Those since the namespace exists; `None` if the kernel does not say.
    pub(super) fn read() -> Option<SignatureDrops> {
        parse(&fs::read_to_string(NETSTAT).ok()?)
    }

    /// Those since `earlier`.
    pub(super) fn since(self, earlier: SignatureDrops) -> SignatureDrops {
        SignatureDrops {
            missing: self.missing.saturating_sub(earlier.missing),
            unexpected: self.unexpected.saturating_sub(earlier.unexpected),
            wrong: self.wrong.saturating_sub(earlier.wrong),
        }
    }

    /// What they suggest about a neighbour that does not answer. The counters do not name the sender:
    /// with several neighbours, it may be another.
    pub(super) fn hint(self, has_password: bool) -> Option<String> {
        let (what, means) = match self {
            SignatureDrops { wrong: 1.., .. } if has_password => {
                ("with a wrong signature", "the passwords differ")
            }
            SignatureDrops { missing: 1.., .. } if has_password => {
                ("without a signature", "the neighbour has no password for us")
            }
            SignatureDrops { unexpected: 1.., .. } if !has_password => {
                ("with a signature", "the neighbour has a password, we have none")
            }
            _ => return None,
        };
        // Without the count: a reason that differs with every attempt would be logged every time.
        Some(format!("TCP MD5: the kernel dropped segments {what} meanwhile: {means}"))
    }
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure\n\
                    TcpExt: 9 1 2 3\nIpExt: InNoRoutes\nIpExt: 7\n";
        let counted = SignatureDrops { missing: 1, unexpected: 2, wrong: 3 };
        assert_eq!(parse(text), Some(counted));
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
        assert!(SignatureDrops::read().is_some(), "this kernel counts them");
        let hint = counted.since(SignatureDrops { wrong: 1, ..Default::default() }).hint(true);
        let wanted = "TCP MD5: the kernel dropped segments with a wrong signature meanwhile: the \
                      passwords differ";
        assert_eq!(hint.as_deref(), Some(wanted));
        assert!(
            counted.hint(false).unwrap().ends_with("the neighbour has a password, we have none")
        );
        assert_eq!(SignatureDrops::default().hint(true), None);
    }
}
