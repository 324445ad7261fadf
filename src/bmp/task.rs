//! The task of one station: connections, one after the other.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_proto::bmp::{TerminationReason, encode_termination};
use bgp_proto::types::{Prefix, off_interface};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Instances;
use super::connection::{End, serve};
use super::status::{State, Status};
use crate::config::BmpStation;
use crate::event_names::{STATION_DOWN, STATION_UP};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Time between attempts: at first, and at most. A connection that lasted for longer than the longest one
/// counts as a success.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// TCP keepalive: a station that is gone is noticed within two minutes, even if there is nothing to send.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(20);
const PROBES: u32 = 3;
/// Octets that are not acknowledged for this long end the connection: while there are any, TCP sends no
/// keepalive probes.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);
/// Refused connections that are logged: one in this time.
const REFUSAL_LOG: Duration = Duration::from_secs(60);

/// The task.
pub(super) struct Station {
    pub(super) status: Status,
    pub(super) instances: Instances,
    pub(super) stopped: watch::Receiver<bool>,
}

impl Station {
    /// Runs until it is stopped.
    pub(super) async fn run(mut self) {
        match self.status.settings().station.clone() {
            BmpStation::Connect { to, source } => self.dial(to, source).await,
            BmpStation::Listen { on, from } => self.listen(on, &from).await,
        }
    }

    async fn dial(&mut self, to: SocketAddr, source: Option<IpAddr>) {
        let mut pause = RETRY_MIN;
        loop {
            self.status.enter(State::Connecting);
            let attempt = tokio::select! {
                attempt = timeout(CONNECT_MAX, connect(to, source)) => attempt,
                _ = self.stopped.changed() => return,
            };
            let attempt = attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match attempt.and_then(to_others) {
                Ok(stream) => {
                    let began = Instant::now();
                    if self.serve(stream, to).await == End::Stopped {
                        return;
                    }
                    if began.elapsed() > RETRY_MAX {
                        pause = RETRY_MIN;
                    }
                }
                Err(error) => self.note_failure(format!("connect to {to}: {error}")),
            }
            self.status.enter(State::Waiting);
            if self.pause(pause).await {
                return;
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn listen(&mut self, on: SocketAddr, from: &[Prefix]) {
        let mut pause = RETRY_MIN;
        let mut refusals = None;
        'bind: loop {
            let listener = match bind(on) {
                Ok(listener) => listener,
                Err(error) => {
                    self.note_failure(format!("listen on {on}: {error}"));
                    self.status.enter(State::Waiting);
                    if self.pause(pause).await {
                        return;
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                    continue;
                }
            };
            pause = RETRY_MIN;
            loop {
                self.status.enter(State::Listening);
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = self.stopped.changed() => return,
                };
                let Ok((stream, remote)) = accepted else {
                    // Out of descriptors, for example.
                    if self.pause(RETRY_MIN).await {
                        return;
                    }
                    continue 'bind;
                };
                if !is_from(remote.ip(), from) {
                    self.refuse(remote, &mut refusals);
                    continue;
                }
                if self.serve_alone(stream, remote, &listener).await == End::Stopped {
                    return;
                }
                // A station that resets every second costs one initial state in that time.
                self.status.enter(State::Waiting);
                if self.pause(RETRY_MIN).await {
                    return;
                }
            }
        }
    }

    /// Serves one connection, and refuses others meanwhile.
    async fn serve_alone(
        &mut self,
        stream: TcpStream,
        remote: SocketAddr,
        listener: &TcpListener,
    ) -> End {
        let status = self.status.clone();
        let mut serving = std::pin::pin!(self.serve(stream, remote));
        loop {
            let other = tokio::select! {
                biased;
                end = &mut serving => return end,
                other = listener.accept() => other,
            };
            match other {
                Ok((stream, _)) => turn_away(&stream, &status),
                // Out of descriptors, for example.
                Err(_) => {
                    tokio::select! {
                        end = &mut serving => return end,
                        () = sleep(RETRY_MIN) => {}
                    }
                }
            }
        }
    }

    async fn serve(&mut self, stream: TcpStream, remote: SocketAddr) -> End {
        if let Err(error) = keep_alive(&stream) {
            self.note_failure(format!("set TCP keepalive: {error}"));
        }
        let name = self.status.settings().name.clone();
        info!(event = STATION_UP, station = %name, "connected with {remote}");
        self.status.enter(State::Up);
        self.status.update(|view| {
            view.remote = Some(remote);
            view.counts.connections += 1;
        });
        let end = serve(stream, &self.status, &self.instances, &mut self.stopped).await;
        let why = end.text();
        info!(event = STATION_DOWN, station = %name, "connection with {remote} ended: {why}");
        self.status.update(|view| {
            view.remote = None;
            view.last_error = Some(why);
            view.counts.too_slow += u64::from(matches!(end, End::TooSlow(_)));
        });
        end
    }

    /// Whether it was stopped meanwhile.
    async fn pause(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => false,
            _ = self.stopped.changed() => true,
        }
    }

    /// Logged when the reason differs from the last one.
    fn note_failure(&self, why: String) {
        if self.status.view().last_error.as_ref() != Some(&why) {
            let name = &self.status.settings().name;
            warn!(station = %name, "{why}; retrying, further attempts are not logged");
            self.status.update(|view| view.last_error = Some(why));
        }
    }

    fn refuse(&self, remote: SocketAddr, logged: &mut Option<Instant>) {
        self.status.update(|view| view.counts.refused += 1);
        if logged.is_none_or(|at| at.elapsed() > REFUSAL_LOG) {
            *logged = Some(Instant::now());
            let name = &self.status.settings().name;
            warn!(station = %name, "connection of {remote} refused: not in `from`");
        }
    }
}

/// Ends a connection beside another one (RFC 7854 §4.5).
fn turn_away(stream: &TcpStream, status: &Status) {
    status.update(|view| view.counts.refused += 1);
    let mut octets = Vec::new();
    encode_termination(&mut octets, TerminationReason::RedundantConnection, "there is another");
    // A new connection has room for it, or it is closed without a word.
    let _ = stream.try_write(&octets);
}

async fn connect(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(to).await
}

/// TCP connects a socket to itself if its port is chosen from the ports that it asks for.
fn to_others(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::other("connected to ourselves"));
    }
    Ok(stream)
}

fn bind(on: SocketAddr) -> io::Result<TcpListener> {
    let socket = if on.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(on)?;
    socket.listen(16)
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

fn is_from(remote: IpAddr, from: &[Prefix]) -> bool {
    let remote = Prefix::host(off_interface(remote.to_canonical()).0);
    from.iter().any(|prefix| prefix.family() == remote.family() && prefix.contains(remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_known_by_its_address() {
        let from: Vec<Prefix> =
            ["192.0.2.0/24", "2001:db8::1/128"].map(|text| text.parse().unwrap()).to_vec();
        let is_from = |text: &str| is_from(text.parse().unwrap(), &from);
        assert!(is_from("192.0.2.77") && is_from("::ffff:192.0.2.1") && is_from("2001:db8::1"));
        assert!(!is_from("198.51.100.1") && !is_from("2001:db8::2"));
    }
}
