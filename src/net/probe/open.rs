//! The exchange of OPENs, up to the neighbour's KEEPALIVE: a session is not established.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::session::{Command, Peer, PeerConfig, Slot, State};
use bgp_proto::types::Time;
use bgp_proto::wire::{MAX_LEN, MessageType, Open, RouteBatch, split_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::{Finding, Step, silence};
use crate::net::signature_drops::SignatureDrops;
use crate::net::{dial, sockopt};

/// How long to wait for the neighbour's OPEN and for its KEEPALIVE.
const ANSWER_WAIT: Duration = Duration::from_secs(6);

/// Sends our OPEN and reads the neighbour's answer. TCP is then closed without a NOTIFICATION, for
/// which some speakers would make the session wait.
pub(super) async fn exchange(
    config: &PeerConfig,
    stream: TcpStream,
    before: Option<SignatureDrops>,
) -> Vec<Finding> {
    // Neither may keep our OPEN back.
    let config = PeerConfig { idle: None, passive: Default::default(), ..config.clone() };
    let mut attempt = Attempt {
        peer: Peer::new(Arc::new(config), 0),
        began: Instant::now(),
        stream,
        received: Vec::new(),
        open: None,
    };
    let result = attempt.run().await;
    // An answer to our OPEN shows that it arrived.
    let ttl = dial::ttl(attempt.peer.config());
    let arrived = Finding::works(Step::Ttl, format_args!("our packets arrive with TTL {ttl}"));
    match result {
        Ok(()) => vec![arrived, attempt.accepted()],
        Err(Failure::Refused) => vec![arrived, attempt.refused()],
        Err(Failure::Closed(text)) => vec![attempt.closed(&text)],
        Err(Failure::Silence) => vec![attempt.silent(before)],
    }
}

struct Attempt {
    peer: Peer,
    began: Instant,
    stream: TcpStream,
    received: Vec<u8>,
    /// The neighbour's OPEN.
    open: Option<Open>,
}

/// Why the exchange did not succeed.
enum Failure {
    /// One of the two refused the other's OPEN, or the neighbour sent something else.
    Refused,
    /// The neighbour closed the connection, or it failed.
    Closed(String),
    /// No answer.
    Silence,
}

impl Attempt {
    fn now(&self) -> Time {
        Time::ZERO + self.began.elapsed()
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let closed = |error: std::io::Error| Failure::Closed(error.to_string());
        let local = self.stream.local_addr().map_err(closed)?;
        let remote = self.stream.peer_addr().map_err(closed)?;
        self.peer.handle_command(self.now(), Command::Start);
        self.peer.handle_connected(self.now(), Slot::Outgoing, local, remote);
        let mut octets = Vec::new();
        self.peer.poll_transmit(Slot::Outgoing, &mut octets);
        self.stream.write_all(&octets).await.map_err(closed)?;
        let deadline = tokio::time::Instant::now() + ANSWER_WAIT;
        loop {
            let read = self.stream.read_buf(&mut self.received);
            match timeout_at(deadline, read).await {
                Err(_) => return Err(Failure::Silence),
                Ok(Err(error)) => return Err(closed(error)),
                Ok(Ok(0)) => return Err(Failure::Closed("the peer closed the connection".into())),
                Ok(Ok(_)) => {}
            }
            if self.handle_messages()? {
                return Ok(());
            }
        }
    }

    /// Whether the neighbour has accepted our OPEN.
    fn handle_messages(&mut self) -> Result<bool, Failure> {
        let now = self.now();
        loop {
            let (len, kind) = match split_frame(&self.received, MAX_LEN) {
                Ok(None) => return Ok(false),
                Ok(Some(frame)) => {
                    if frame.kind == MessageType::Open {
                        self.open = Open::decode(frame.body()).ok();
                    }
                    (frame.bytes.len(), Some(frame.kind))
                }
                // The state machine finds the same fault.
                Err(_) => (self.received.len(), None),
            };
            if kind == Some(MessageType::Keepalive) && self.peer.state() == State::OpenConfirm {
                return Ok(true);
            }
            let message: Vec<u8> = self.received.drain(..len).collect();
            let mut routes = RouteBatch::default();
            self.peer.handle_bytes(now, Slot::Outgoing, &message, &mut routes, usize::MAX);
            if self.peer.state() < State::OpenSent {
                return Err(Failure::Refused);
            }
        }
    }

    fn accepted(&self) -> Finding {
        let Some(open) = &self.open else {
            return Finding::unknown(Step::Open, "the neighbour sent no OPEN");
        };
        let families: Vec<String> =
            open.capabilities.families().iter().map(|family| family.to_string()).collect();
        Finding::works(
            Step::Open,
            format_args!(
                "accepted on both sides: AS {}, id {}, hold time {} s, {}",
                open.asn,
                open.router_id,
                open.hold_time_secs,
                families.join(", ")
            ),
        )
    }

    fn refused(&self) -> Finding {
        let error = self.peer.last_bgp_error().or(self.peer.last_error());
        let text = error.map_or_else(|| "refused".to_owned(), |error| error.text.clone());
        let origin = error.map(|error| error.origin);
        let who = match origin {
            Some(bgp_proto::session::Origin::Received) => "the neighbour refuses our OPEN",
            _ => "we refuse the neighbour's OPEN",
        };
        Finding::fails(
            Step::Open,
            format_args!("{who}: {text}"),
            "make both sides agree, as the reason says",
        )
    }

    fn closed(&self, text: &str) -> Finding {
        let when = match self.open {
            Some(_) => "after its OPEN, without a NOTIFICATION",
            None => "before its OPEN",
        };
        Finding::fails(
            Step::Open,
            format_args!("{text} {when}"),
            "see the neighbour's log: our address may not be configured there, its session may be shut \
             down, or it waits after an error (BIRD: up to 5 minutes)",
        )
    }

    fn silent(&self, before: Option<SignatureDrops>) -> Finding {
        let waited = ANSWER_WAIT.as_secs();
        let is_acknowledged = sockopt::tcp_info(&self.stream).is_ok_and(|info| info.unacked == 0);
        let config = self.peer.config();
        if !is_acknowledged {
            let hint = silence::hint(config, before);
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            return Finding::fails(
                Step::Ttl,
                format_args!(
                    "the connection is accepted, but our OPEN is not acknowledged for {waited} s{hint}"
                ),
                format_args!(
                    "if the neighbour has ttl-security (GTSM), set it here too: we send with TTL {}",
                    dial::ttl(config)
                ),
            );
        }
        match (dial::min_ttl(config), &self.open) {
            (Some(min), None) => Finding::fails(
                Step::Ttl,
                format_args!("our OPEN is acknowledged, but none arrives within {waited} s"),
                format_args!(
                    "we drop what arrives with a TTL below {min} (ttl-security): set ttl-security at the \
                     neighbour too, or raise the number of hops"
                ),
            ),
            (None, None) => Finding::fails(
                Step::Open,
                format_args!("connected, but no OPEN arrives within {waited} s"),
                "check that the program that listens there is a BGP speaker, and its log",
            ),
            (_, Some(open)) => Finding::unknown(
                Step::Open,
                format_args!(
                    "the neighbour (AS {}, id {}) sent its OPEN, and no KEEPALIVE within {waited} s",
                    open.asn, open.router_id
                ),
            ),
        }
    }
}
