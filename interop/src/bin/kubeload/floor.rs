//! The least that reading a watch costs: hyper and rustls, on one thread or as a task of a runtime
//! like margay's, with everything dropped that is read.

use std::sync::Arc;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::header;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The command for one thread; its arguments are the URL of the watch, the CA's certificate and the
/// token.
pub(crate) const ON_ONE: &str = "read";
/// The command for two threads, with the same arguments.
pub(crate) const ON_TWO: &str = "read-on-two";

/// Reads a watch over HTTP/2 until it ends.
pub(crate) fn read(call: &str, url: String, ca: String, token: String) -> Result<()> {
    use tokio::runtime::Builder;
    if call == ON_ONE {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(follow(url, ca, token));
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::spawn(follow(url, ca, token)).await? })
}

async fn follow(url: String, ca: String, token: String) -> Result<()> {
    let uri: hyper::Uri = url.parse()?;
    let (host, port) = (uri.host().context("no host")?, uri.port_u16().unwrap_or(443));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
    let (mut send, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(uri)
        .header(header::ACCEPT, super::ACCEPT)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())?;
    let mut answer = send.send_request(request).await?;
    anyhow::ensure!(answer.status() == 200, "{}", answer.status());
    while let Some(frame) = answer.frame().await {
        drop(frame?);
    }
    Ok(())
}
