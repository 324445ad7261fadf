//! TCP and TLS to the real API server.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::api::{Dial, Dialled, Protocol};
use super::config::ApiConfig;
use super::credentials::{Access, LastToken, Scheme, explain_tls};

/// Connects to the configured server; every attempt reads the files that the configuration names.
pub(super) struct Dialer {
    config: ApiConfig,
    token: Arc<Mutex<LastToken>>,
}

impl Dialer {
    pub(super) fn new(config: ApiConfig) -> Self {
        Dialer { config, token: Arc::default() }
    }
}

impl Dial for Dialer {
    type Stream = Stream;

    async fn dial(&self) -> Result<Dialled<Stream>, String> {
        let access = Access::resolve(&self.config)?;
        let authority = access.authority();
        let at = |what: String| format!("{authority}: {what}");
        let tcp = TcpStream::connect((access.host.as_str(), access.port)).await;
        let tcp = tcp.map_err(|e| at(e.to_string()))?;
        // Requests are small, and some wait for the response to another.
        tcp.set_nodelay(true).map_err(|e| at(e.to_string()))?;
        let bearer = access.bearer(&self.token);
        let (stream, protocol) = match access.scheme {
            Scheme::Http => (Stream::Plain(tcp), Protocol::Http1),
            Scheme::Https => {
                let connector = TlsConnector::from(Arc::new(access.tls()?));
                let connected = connector.connect(access.server_name()?, tcp).await;
                let tls = connected.map_err(|error| {
                    let fault = access.certificate_fault(SystemTime::now());
                    let fault = fault.map(|fault| format!("; {fault}")).unwrap_or_default();
                    at(format!("{}{fault}", explain_tls(&error)))
                })?;
                let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
                (Stream::Tls(Box::new(tls)), protocol)
            }
        };
        debug!(authority, ?protocol, "connected to the API server");
        let (scheme, prefix) = (access.scheme, access.prefix);
        Ok(Dialled { stream, protocol, scheme, authority, prefix, bearer })
    }
}

/// The transport to the server.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
