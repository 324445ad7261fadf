//! A connection to etcd by means of etcd-client. No other file uses that crate.

use std::error::Error as _;
use std::path::Path;
use std::time::SystemTime;

use etcd_client::{
    Certificate, Client, ConnectOptions, EventType, GetOptions, Identity, KvClient, TlsOptions,
    WatchClient, WatchOptions, WatchStream,
};

use super::config::{EtcdConfig, Password, TlsFiles};
use super::store::{Answer, Connect, Error, Message, Page, Range, Rest, Store};
use crate::datastore::certificate::Validity;

/// Maximum size of a received message, in octets. A longer page is requested in parts; etcd itself
/// fragments watch messages at 2 MiB.
const MESSAGE_MAX: usize = 16 << 20;

/// Connects as configured. The configured files are read again on each attempt.
pub(super) struct Connector<'a> {
    pub(super) config: &'a EtcdConfig,
}

/// A connection to one member.
pub(super) struct Connection {
    /// Keeps the channel open.
    _client: Client,
    kv: KvClient,
    watch: WatchClient,
    stream: Option<WatchStream>,
    /// The likely cause of a refusal without a reason: our certificate is not valid.
    suspicion: Option<String>,
}

impl Connect for Connector<'_> {
    type Store = Connection;

    async fn connect(&mut self, endpoint: &str) -> Result<Connection, Error> {
        let EtcdConfig { tls, user, .. } = self.config;
        // Without this, a member that has lost the leader would keep answering from stale state.
        let mut options =
            ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        let mut suspicion = None;
        if endpoint.starts_with("https://") {
            let (certificates, doubt) = tls_options(endpoint, tls)?;
            options = options.with_tls(certificates);
            suspicion = doubt;
        }
        if let Some(user) = user {
            let password = match &user.password {
                Password::Given(secret) => secret.reveal().to_owned(),
                Password::File(path) => password_in(path)?,
            };
            options = options.with_user(&user.name, password);
        }
        let client = Client::connect([endpoint], Some(options))
            .await
            .map_err(|e| explain(&e, suspicion.as_deref()))?;
        let kv = client.kv_client().max_decoding_message_size(MESSAGE_MAX);
        let watch = client.watch_client().max_decoding_message_size(MESSAGE_MAX);
        Ok(Connection { _client: client, kv, watch, stream: None, suspicion })
    }
}

impl Connection {
    fn explain(&self, error: &etcd_client::Error) -> Error {
        explain(error, self.suspicion.as_deref())
    }
}

impl Store for Connection {
    async fn get(&mut self, page: &Page) -> Result<Answer, Error> {
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let mut options = GetOptions::new().with_range(page.range.end.clone()).with_limit(limit);
        if let Some(revision) = page.revision {
            options = options.with_revision(revision);
        }
        let answer = self.kv.get(page.range.start.clone(), Some(options)).await;
        let mut answer = answer.map_err(|e| self.explain(&e))?;
        Ok(Answer {
            revision: answer.header().map_or(0, |header| header.revision()),
            rest: if answer.more() { Rest::More } else { Rest::Nothing },
            pairs: answer.take_kvs().into_iter().map(|pair| pair.into_key_value()).collect(),
        })
    }

    async fn watch(&mut self, ranges: &[Range], from: i64) -> Result<(), Error> {
        self.stream = None;
        for range in ranges {
            let options = WatchOptions::new()
                .with_range(range.end.clone())
                .with_start_revision(from)
                .with_fragment();
            let start = range.start.clone();
            let begun = match &mut self.stream {
                Some(stream) => stream.watch(start, Some(options)).await,
                None => match self.watch.watch(start, Some(options)).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            begun.map_err(|e| self.explain(&e))?;
        }
        Ok(())
    }

    async fn request_progress(&mut self) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return Err(closed()) };
        let asked = stream.request_progress().await;
        asked.map_err(|e| explain(&e, self.suspicion.as_deref()))
    }

    async fn message(&mut self) -> Result<Message, Error> {
        let Some(stream) = &mut self.stream else { return Err(closed()) };
        let message = stream.message().await;
        let message = message.map_err(|e| explain(&e, self.suspicion.as_deref()))?;
        let message = message.ok_or_else(closed)?;
        if message.canceled() {
            if message.compact_revision() > 0 {
                return Err(Error::Compacted);
            }
            return Err(Error::Failed(format!("the watch was ended: {}", message.cancel_reason())));
        }
        let events = message.events().iter().filter_map(|event| {
            let pair = event.kv()?;
            let value = match event.event_type() {
                EventType::Put => Some(pair.value().to_vec()),
                EventType::Delete => None,
            };
            Some((pair.key().to_vec(), value))
        });
        Ok(Message {
            revision: message.header().map_or(0, |header| header.revision()),
            begun: usize::from(message.created()),
            events: events.collect(),
        })
    }
}

fn closed() -> Error {
    Error::Failed("the watch was closed".to_owned())
}

/// The options for TLS, and what is wrong with our own certificate, if anything.
fn tls_options(endpoint: &str, files: &TlsFiles) -> Result<(TlsOptions, Option<String>), Error> {
    let mut options = TlsOptions::new();
    // The host of a URL has brackets around an IPv6 address, the name in a certificate has not.
    if let Some(address) = ipv6_host(endpoint) {
        options = options.domain_name(address);
    }
    options = match &files.ca {
        Some(path) => options.ca_certificate(Certificate::from_pem(certificates_in(path)?)),
        None => options.with_native_roots(),
    };
    let mut doubt = None;
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        let pem = certificates_in(cert)?;
        let fault = Validity::of_pem(&pem).and_then(|v| v.fault_at(SystemTime::now()));
        doubt = fault.map(|fault| format!("our certificate {} {fault}", cert.display()));
        options = options.identity(Identity::from_pem(pem, read(key)?));
    }
    Ok((options, doubt))
}

fn ipv6_host(endpoint: &str) -> Option<&str> {
    let (_, rest) = endpoint.split_once("://[")?;
    rest.split_once(']').map(|(address, _)| address)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::Failed(format!("cannot read {}: {e}", path.display())))
}

fn certificates_in(path: &Path) -> Result<Vec<u8>, Error> {
    let pem = read(path)?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(marker.len()).any(|part| part == marker) {
        Ok(pem)
    } else {
        Err(Error::Failed(format!("{} holds no certificate in PEM", path.display())))
    }
}

fn password_in(path: &Path) -> Result<String, Error> {
    let text = String::from_utf8(read(path)?)
        .map_err(|_| Error::Failed(format!("{} is not text (UTF-8)", path.display())))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// The text of the error: from what failed to its cause, without repetitions.
fn explain(error: &etcd_client::Error, suspicion: Option<&str>) -> Error {
    let mut words = String::new();
    let mut add = |text: &str| {
        if !text.is_empty() && !words.contains(text) {
            words.push_str(if words.is_empty() { "" } else { ": " });
            words.push_str(text);
        }
    };
    let mut source = match error {
        etcd_client::Error::GRpcStatus(status) => {
            let message = status.message();
            if message.contains("required revision has been compacted") {
                return Error::Compacted;
            }
            if message.contains("decoded message length too large") {
                return Error::TooLarge;
            }
            add(message);
            if message.is_empty() {
                add(status.code().description());
            }
            status.source()
        }
        etcd_client::Error::TransportError(error) => {
            add(&error.to_string());
            error.source()
        }
        other => {
            add(&other.to_string());
            None
        }
    };
    while let Some(cause) = source {
        add(&cause.to_string());
        source = cause.source();
    }
    if let Some(suspicion) = suspicion {
        add(suspicion);
    }
    // tonic's generic name for any failure adds nothing to the cause.
    let plain = words.replace("transport error: ", "").replace(": transport error", "");
    Error::Failed(plain)
}
