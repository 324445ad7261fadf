//! The two netlink sockets: one for requests and dumps, one for the kernel's events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt;
use socket2::{SockFilter, SockRef};

use super::Error;
use super::message::{self, Header, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

/// Size of the receive buffers, in octets. They have to hold the refusals of a batch, and every
/// change that others make while a batch or a dump is in progress.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Larger than any datagram that the kernel sends: dumps come in 32 KiB, one route in less.
const DATAGRAM_MAX: usize = 128 << 10;

/// Maximum octets per send; the kernel accepts no more than the send buffer (208 KiB by default).
const SEND_MAX: usize = 96 << 10;

/// Maximum messages per send if the receive buffer is large enough for the refusal of each (about 1
/// KiB).
const BATCH_MAX: usize = 1024;

/// Maximum messages per send if the kernel did not grant that buffer, as in a user namespace: the
/// default of 208 KiB holds their refusals.
const BATCH_MAX_UNPRIVILEGED: usize = 128;

/// Timeout for answers. The kernel normally answers a batch before the send returns.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const ENOENT: i32 = 2;

/// Messages to be sent together; sequence numbers are set when they are sent.
#[derive(Debug, Default)]
pub(super) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Requests {
    /// Clears the content but keeps the allocation.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends the message that `write` appends to its argument.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }
}

/// A message that the kernel refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Index of the message among the requests, from 0.
    pub(super) index: usize,
    /// Linux error number, positive.
    pub(super) errno: i32,
    /// The kernel's explanation.
    pub(super) explanation: Option<String>,
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DumpEnd {
    /// The dump is consistent.
    Complete,
    /// The table changed during the dump (NLM_F_DUMP_INTR).
    Interrupted,
}

/// Sends requests and waits for the answers.
pub(super) struct RequestSocket {
    socket: Socket,
    seq: u32,
    batch_max: usize,
    datagram: Vec<u8>,
}

impl RequestSocket {
    pub(super) fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open a netlink socket"))?;
        socket.bind_auto().map_err(failed("bind a netlink socket"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect a netlink socket"))?;
        // A kernel without one of these gives shorter errors, or dumps more than was requested.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        enlarge(&socket);
        let _ = sockopt::set_socket_send_buffer_size(&socket, 2 * SEND_MAX);
        let granted = socket.get_rx_buf_sz().is_ok_and(|size| size >= RECEIVE_BUFFER / 2);
        let batch_max = if granted { BATCH_MAX } else { BATCH_MAX_UNPRIVILEGED };
        SockRef::from(&socket)
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(failed("limit the wait on a netlink socket"))?;
        Ok(RequestSocket { socket, seq: 0, batch_max, datagram: vec![0; DATAGRAM_MAX] })
    }

    /// The number by which the kernel names this socket in events.
    pub(super) fn port(&self) -> Result<u32, Error> {
        let mut addr = SocketAddr::new(0, 0);
        self.socket.get_address(&mut addr).map_err(failed("read a netlink socket's address"))?;
        Ok(addr.port_number())
    }

    /// Sends all requests in batches that fit the buffers, with one acknowledgement per batch, and
    /// returns the refused ones.
    ///
    /// # Errors
    /// The answers are incomplete: the results of the requests are unknown.
    pub(super) fn execute(&mut self, requests: &mut Requests) -> io::Result<Vec<Refusal>> {
        let mut refusals = Vec::new();
        let (mut first, mut start) = (0, 0);
        while let Some(rest) = requests.ends.get(first..).filter(|rest| !rest.is_empty()) {
            let fitting =
                rest.iter().take(self.batch_max).take_while(|&&end| end - start <= SEND_MAX);
            let count = fitting.count().max(1);
            let ends = rest.get(..count).unwrap_or(rest);
            let end = ends.last().copied().unwrap_or(start);
            let base = self.next_sequence(count);
            let mut at = start;
            for (offset, &message_end) in ends.iter().enumerate() {
                let seq = base.wrapping_add(offset as u32);
                if let Some(message) = requests.bytes.get_mut(at..message_end) {
                    message::set_sequence(message, seq, offset + 1 == count);
                }
                at = message_end;
            }
            self.socket.send(requests.bytes.get(start..end).unwrap_or_default(), 0)?;
            self.collect_answers(base, count, first, &mut refusals)?;
            (first, start) = (first + count, end);
        }
        Ok(refusals)
    }

    /// Reads until the last message of a batch is answered.
    fn collect_answers(
        &mut self,
        base: u32,
        count: usize,
        first: usize,
        refusals: &mut Vec<Refusal>,
    ) -> io::Result<()> {
        loop {
            let len = receive(&self.socket, &mut self.datagram)?;
            for (header, body) in message::messages(self.datagram.get(..len).unwrap_or_default()) {
                let offset = header.seq.wrapping_sub(base) as usize;
                if header.kind != NLMSG_ERROR || offset >= count {
                    continue; // An answer to an abandoned batch.
                }
                let (errno, explanation) = message::parse_error(header, body)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                if errno != 0 {
                    refusals.push(Refusal { index: first + offset, errno, explanation });
                }
                if offset + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    /// Sends one dump request and passes every message of the answer to `each`.
    pub(super) fn dump(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        mut each: impl FnMut(Header, &[u8]),
    ) -> io::Result<DumpEnd> {
        let mut request = Vec::with_capacity(64);
        write(&mut request);
        let seq = self.next_sequence(1);
        message::set_sequence(&mut request, seq, false);
        self.socket.send(&request, 0)?;
        let mut end = DumpEnd::Complete;
        loop {
            let len = receive(&self.socket, &mut self.datagram)?;
            for (header, body) in message::messages(self.datagram.get(..len).unwrap_or_default()) {
                if header.seq != seq {
                    continue;
                }
                if header.flags & NLM_F_DUMP_INTR != 0 {
                    end = DumpEnd::Interrupted;
                }
                match header.kind {
                    NLMSG_DONE => return finish_dump(message::parse_done(body), end),
                    NLMSG_ERROR => {
                        let (errno, _) = message::parse_error(header, body)
                            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                        return finish_dump(errno, end);
                    }
                    _ => each(header, body),
                }
            }
        }
    }

    /// Reserves `count` sequence numbers; returns the first.
    fn next_sequence(&mut self, count: usize) -> u32 {
        let base = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(count as u32);
        base
    }
}

/// The result of a dump that ended with this error number.
fn finish_dump(errno: i32, end: DumpEnd) -> io::Result<DumpEnd> {
    match errno {
        // A table that was never written to does not exist.
        0 | ENOENT => Ok(end),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Receives the kernel's events.
pub(super) struct MonitorSocket {
    socket: Socket,
}

/// The outcome of an attempt to receive.
pub(super) enum Heard {
    /// One datagram of messages, of this length.
    Events(usize),
    /// No event is pending.
    Nothing,
    /// The kernel dropped events because they were not read in time.
    Overrun,
}

impl MonitorSocket {
    /// Subscribes to links, addresses, routes and next-hop objects, except changes caused by the
    /// socket with the number `own_port`: the echo of a bulk load would crowd out everything else.
    pub(super) fn open(own_port: u32) -> Result<Self, Error> {
        const GROUPS: [u32; 5] = [1, 5, 7, 9, 11]; // link, IPv4 address/route, IPv6 address/route
        const NEXT_HOPS: u32 = 32;
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open a netlink socket"))?;
        socket.bind_auto().map_err(failed("bind a netlink socket"))?;
        enlarge(&socket);
        if let Err(error) = SockRef::from(&socket).attach_filter(&own_echo_filter(own_port)) {
            tracing::debug!(%error, "own route changes are filtered after reading");
        }
        for group in GROUPS {
            socket.add_membership(group).map_err(failed("listen to kernel events"))?;
        }
        if let Err(error) = socket.add_membership(NEXT_HOPS) {
            tracing::debug!(%error, "the kernel has no next-hop objects");
        }
        socket.set_non_blocking(true).map_err(failed("configure a netlink socket"))?;
        Ok(MonitorSocket { socket })
    }

    /// A buffer large enough for any datagram.
    pub(super) fn buffer() -> Vec<u8> {
        vec![0; DATAGRAM_MAX]
    }

    /// Receives one datagram without blocking.
    pub(super) fn hear(&self, datagram: &mut [u8]) -> io::Result<Heard> {
        match receive(&self.socket, datagram) {
            Ok(len) => Ok(Heard::Events(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) if is_overrun(&error) => Ok(Heard::Overrun),
            Err(error) => Err(error),
        }
    }

    /// Discards pending events, because the dump that follows supersedes them.
    pub(super) fn discard(&self, datagram: &mut [u8]) -> io::Result<()> {
        // More than the buffer holds; bounds the loop if others write as fast as this reads.
        const DATAGRAMS_MAX: usize = 1 << 17;
        for _ in 0..DATAGRAMS_MAX {
            if matches!(self.hear(datagram)?, Heard::Nothing) {
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for MonitorSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Classic BPF: drops datagrams whose nlmsg_pid (octets 12-15) is `port`. Loads are big-endian.
fn own_echo_filter(port: u32) -> [SockFilter; 4] {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_WORD, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 1, u32::from_be_bytes(port.to_ne_bytes())),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Enlarges the receive buffer: beyond the system's limit if privileged, up to it otherwise.
fn enlarge(socket: &Socket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_err()
        && let Err(error) = sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER)
    {
        tracing::debug!(%error, "a netlink socket keeps its receive buffer");
    }
}

fn receive(socket: &Socket, datagram: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut space = &mut *datagram;
        match socket.recv(&mut space, 0) {
            Ok(len) => return Ok(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the kernel dropped messages for us.
fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once a dump has begun, kernels report its error in NLMSG_DONE. The messages before it are
    /// incomplete, and half of our routes would be taken for deleted.
    #[test]
    fn a_dump_that_ends_with_an_error_is_discarded() {
        const EINTR: i32 = 4;
        const ENOBUFS: i32 = 105;
        let ends = |errno: i32, end| {
            let done = message::parse_done(&(-errno).to_ne_bytes());
            finish_dump(done, end).map_err(|error| error.raw_os_error())
        };
        for end in [DumpEnd::Complete, DumpEnd::Interrupted] {
            assert_eq!(ends(0, end), Ok(end));
            assert_eq!(ends(ENOENT, end), Ok(end));
            for errno in [EINTR, ENOBUFS, i32::MAX] {
                assert_eq!(ends(errno, end), Err(Some(errno)));
            }
        }
        // A missing errno means no error.
        assert_eq!(message::parse_done(&[]), 0);
    }
}
