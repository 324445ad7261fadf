//! The floors: a daemon that forwards UPDATEs without parsing them, and one that discards them.
//!
//! `relay` appends every complete UPDATE to one log and writes the log to every session, except for
//! what that session sent itself. No route is parsed, stored or compared: its figures are the cost
//! of sockets and copies alone on this machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::ops::Range;

use anyhow::Context;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::session::{SCRATCH_LEN, SLICE_LEN};
use crate::wire::{self, Message};

/// How received UPDATEs are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fate {
    /// Copied to all other sessions.
    Relay,
    /// Dropped.
    Null,
}

const LISTENER: Token = Token(usize::MAX);

struct Member {
    stream: TcpStream,
    partial: Vec<u8>,
    /// The relay's own messages that are not written yet: OPEN and KEEPALIVEs.
    control: Vec<u8>,
    /// Octets of the log that were written to this member or skipped.
    cursor: usize,
    /// Parts of the log that this member sent, not yet passed by `cursor`.
    own: std::collections::VecDeque<Range<usize>>,
    is_writable: bool,
    is_open: bool,
    /// A control message is partially written; its rest must be written before anything else.
    is_control_cut: bool,
}

/// Serves until the process is killed.
///
/// # Errors
/// The address cannot be bound, or epoll fails.
pub(crate) fn serve(listen: SocketAddrV4, asn: u32, fate: Fate) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V4(listen).into()).with_context(|| format!("bind {listen}"))?;
    socket.listen(4096)?;
    let mut listener = TcpListener::from_std(socket.into());
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relay = Relay {
        poll,
        listener,
        members: Vec::new(),
        log: Vec::new(),
        scratch: vec![0; SCRATCH_LEN],
        open: wire::open(asn, crate::engine::HOLD_TIME_SECS, *listen.ip()),
        fate,
    };
    let mut events = Events::with_capacity(1024);
    loop {
        let more = relay.flush();
        let timeout = more.then_some(std::time::Duration::ZERO);
        match relay.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => relay.accept()?,
                Token(id) => {
                    if let Some(Some(member)) = relay.members.get_mut(id) {
                        member.is_writable |= event.is_writable();
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        relay.read(id);
                    }
                }
            }
        }
    }
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    members: Vec<Option<Member>>,
    log: Vec<u8>,
    scratch: Vec<u8>,
    open: Vec<u8>,
    fate: Fate,
}

impl Relay {
    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(self.members.len()), interest)?;
            self.members.push(Some(Member {
                stream,
                partial: Vec::new(),
                control: self.open.clone(),
                cursor: 0,
                own: std::collections::VecDeque::new(),
                is_writable: true,
                is_open: false,
                is_control_cut: false,
            }));
        }
    }

    fn read(&mut self, id: usize) {
        loop {
            let Some(Some(member)) = self.members.get_mut(id) else { return };
            let kept = member.partial.len();
            let Some(head) = self.scratch.get_mut(..kept) else { return };
            head.copy_from_slice(&member.partial);
            let room = self.scratch.get_mut(kept..kept + SLICE_LEN).unwrap_or(&mut []);
            let got = match member.stream.read(room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return self.drop_member(id),
                Ok(got) => got,
            };
            let filled = self.scratch.get(..kept + got).unwrap_or(&[]);
            let start = self.log.len();
            let Some(used) = member.take(filled, &mut self.log, self.fate) else {
                return self.drop_member(id);
            };
            if self.log.len() > start {
                match member.own.back_mut() {
                    Some(range) if range.end == start => range.end = self.log.len(),
                    _ => member.own.push_back(start..self.log.len()),
                }
            }
            member.partial.clear();
            member.partial.extend_from_slice(filled.get(used..).unwrap_or(&[]));
            if got < SLICE_LEN {
                return;
            }
        }
    }

    fn drop_member(&mut self, id: usize) {
        if let Some(member) = self.members.get_mut(id).and_then(Option::take) {
            let mut stream = member.stream;
            // The descriptor is closed next, which removes it from epoll even if this fails.
            let _ = self.poll.registry().deregister(&mut stream);
        }
    }

    /// Writes one slice to every member whose socket is writable; returns whether some member can
    /// accept another.
    fn flush(&mut self) -> bool {
        let mut more = false;
        let mut gone = Vec::new();
        for (id, slot) in self.members.iter_mut().enumerate() {
            let Some(member) = slot else { continue };
            match member.flush(&self.log) {
                Ok(wants_more) => more |= wants_more,
                Err(_) => gone.push(id),
            }
        }
        for id in gone {
            self.drop_member(id);
        }
        more
    }
}

impl Member {
    /// Appends the UPDATEs of `filled` to `log`; returns the octets consumed, or `None` when the
    /// session must end.
    fn take(&mut self, filled: &[u8], log: &mut Vec<u8>, fate: Fate) -> Option<usize> {
        let mut used = 0;
        let mut run = 0..0;
        loop {
            let rest = filled.get(used..)?;
            let Some((message, len)) = wire::message(rest).ok()? else { break };
            match message {
                Message::Update(_) if fate == Fate::Relay => {
                    if run.end != used {
                        log.extend_from_slice(filled.get(run)?);
                        run = used..used;
                    }
                    run.end = used + len;
                }
                Message::Open(_) => self.control.extend_from_slice(&wire::keepalive()),
                Message::Keepalive => {
                    // Every KEEPALIVE but the first is answered with one, which keeps the peer's
                    // hold timer from expiring without a timer here.
                    if self.is_open {
                        self.control.extend_from_slice(&wire::keepalive());
                    }
                    self.is_open = true;
                }
                Message::Notification(_) => return None,
                _ => {}
            }
            used += len;
        }
        log.extend_from_slice(filled.get(run)?);
        Some(used)
    }

    fn flush(&mut self, log: &[u8]) -> std::io::Result<bool> {
        if !self.is_writable {
            return Ok(false);
        }
        // Within the log a slice may end in the middle of a message, so control messages are
        // written only at its end.
        if self.cursor == log.len() || !self.is_open || self.is_control_cut {
            while !self.control.is_empty() {
                let Some(written) = self.try_write(None)? else { return Ok(false) };
                self.control.drain(..written);
                self.is_control_cut = !self.control.is_empty();
            }
        }
        if !self.is_open {
            return Ok(false);
        }
        while let Some(own) = self.own.front() {
            if own.start > self.cursor {
                break;
            }
            self.cursor = own.end;
            self.own.pop_front();
        }
        let end = self.own.front().map_or(log.len(), |own| own.start);
        let slice = log.get(self.cursor..end).unwrap_or(&[]);
        let slice = slice.get(..SLICE_LEN).unwrap_or(slice);
        if slice.is_empty() {
            return Ok(false);
        }
        match self.try_write(Some(slice))? {
            Some(written) => {
                self.cursor += written;
                Ok(self.cursor < log.len() || !self.control.is_empty())
            }
            None => Ok(false),
        }
    }

    /// Writes `slice`, or the control octets if `None`; returns `None` when the socket buffer is
    /// full.
    fn try_write(&mut self, slice: Option<&[u8]>) -> std::io::Result<Option<usize>> {
        match self.stream.write(slice.unwrap_or(&self.control)) {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_writable = false;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }
}

/// Parses `ADDRESS:PORT` for the hidden command line of the floors.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddrV4, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}
