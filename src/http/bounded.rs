//! A listener whose connections are limited in number and in time. At the limit, the connection
//! that has been silent longest is closed for a new one, so that a probe is always served.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

use crate::client_slots::{ClientSlots, Disconnected, LastActivity};

/// Pause after a connection could not be accepted, for lack of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);
/// Most connections at once.
pub(super) const CONNECTIONS_MAX: usize = 32;

pub(super) struct Bounded {
    listener: TcpListener,
    slots: ClientSlots,
    lifetime_max: Duration,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, lifetime_max: Duration) -> Self {
        Bounded { listener, slots: ClientSlots::new(CONNECTIONS_MAX), lifetime_max }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, from) = loop {
            match self.listener.accept().await {
                Ok(accepted) => break accepted,
                // The connection was closed before it was accepted.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics or health");
                    self.slots.make_room();
                    sleep(ACCEPT_RETRY).await;
                }
            }
        };
        let (lost, heard) = self.slots.take();
        (Connection { stream, end: Box::pin(sleep(self.lifetime_max)), lost, heard }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection that fails when its time is over, or when it has lost its slot.
pub(super) struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    lost: Disconnected,
    heard: LastActivity,
}

impl Connection {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        // Both must be polled, so that either can wake the task.
        let is_lost = Pin::new(&mut self.lost).poll(cx).is_ready();
        self.end.as_mut().poll(cx).is_ready() || is_lost
    }

    /// Marks the client as active if a read or write has succeeded.
    fn note<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(done, Poll::Ready(Ok(_))) {
            self.heard.note();
        }
        done
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.note(done)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let done = Pin::new(&mut self.stream).poll_write(cx, octets);
        self.note(done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
