//! Whether another process of this kind writes routes of the same protocol to the same table.
//!
//! Each takes the routes of the other for leftovers of an earlier run. What both would see is a Unix
//! socket without a path, whose name holds for one network namespace, as tables do, and goes with its
//! process. Anybody may take a name, so that one that is taken is reported and prevents nothing.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The claim on a table and protocol number; it ends when it is dropped.
#[derive(Debug)]
pub struct Claim {
    _socket: Option<UnixDatagram>,
}

impl Claim {
    /// Claims a table. The second value says why it may belong to somebody else.
    pub fn of(table: u32, protocol: u8) -> (Claim, Option<String>) {
        let name = format!("margay/routes/table-{table}/protocol-{protocol}");
        let socket =
            SocketAddr::from_abstract_name(name).and_then(|at| UnixDatagram::bind_addr(&at));
        match socket {
            Ok(socket) => (Claim { _socket: Some(socket) }, None),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let fault = format!(
                    "another margay writes routes of protocol {protocol} to table {table} as this one starts: \
                     each removes what the other installs; stop one, or set another fib.protocol or \
                     fib.table"
                );
                (Claim { _socket: None }, Some(fault))
            }
            // Without descriptors or memory there are other reports.
            Err(_) => (Claim { _socket: None }, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_claim_of_the_same_table_and_protocol_is_reported() {
        // A protocol number that no other test uses.
        let (table, protocol) = (4_000_000_000 + std::process::id() % 1000, 251);
        let (first, fault) = Claim::of(table, protocol);
        assert_eq!(fault, None);
        let (_second, fault) = Claim::of(table, protocol);
        assert!(fault.unwrap().starts_with("another margay writes routes of protocol 251"));
        assert_eq!(Claim::of(table, protocol - 1).1, None);
        assert_eq!(Claim::of(table + 1, protocol).1, None);
        drop(first);
        assert_eq!(Claim::of(table, protocol).1, None, "the process has ended");
    }
}
