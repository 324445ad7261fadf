//! The client side of the control socket. It blocks, as a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ctl::{ErrorKind, Refusal, Request, Run, connect, each_item, item_of, run_of};

/// Timeout for each line of a reply; longer than the daemon's timeout for a page.
const LINE_WAIT: Duration = Duration::from_secs(40);

/// Size of the buffer for replies, in octets: a list of routes has hundreds of megabytes.
const BUFFER: usize = 1 << 16;

/// A [`crate::ctl::Reply`], with the item where it was read.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line<'a> {
    #[serde(borrow)]
    Item(&'a RawValue),
    Run(Run),
    Waiting {},
    Done {
        items: u64,
    },
    Error(Refusal),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(super) enum ClientError {
    #[error("cannot reach margay at {}: {source}; {}", path.display(), remedy(source))]
    Connect { path: PathBuf, source: io::Error },
    #[error("lost the connection to margay: {0}")]
    Connection(#[source] io::Error),
    #[error("margay has not answered for {} s", .0.as_secs())]
    Late(Duration),
    #[error("cannot write the answer: {0}")]
    Output(#[source] io::Error),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("margay's answer is not understood: {0}")]
    Answer(#[source] serde_json::Error),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run as root or as a member of the socket's group (control.group), or name the socket for \
             requests that change nothing with --socket (control.read-only-socket)"
        }
        _ => "is it running? --socket names another socket",
    }
}

/// A connection to the daemon.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
    /// Timeout for each line.
    wait: Duration,
}

impl Client {
    /// Connects to the daemon.
    ///
    /// # Errors
    /// No process listens on the socket, or access is denied.
    pub(super) fn connect(path: &Path) -> Result<Self, ClientError> {
        Client::connect_for(path, LINE_WAIT)
    }

    /// As [`Client::connect`], with `wait` as the timeout for each line of a reply.
    ///
    /// # Errors
    /// See [`Client::connect`].
    pub(super) fn connect_for(path: &Path, wait: Duration) -> Result<Self, ClientError> {
        let stream = connect(path, wait).map_err(|source| match source.kind() {
            // The listener's backlog is full and stays full.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Late(wait),
            _ => ClientError::Connect { path: path.to_owned(), source },
        })?;
        stream.set_read_timeout(Some(wait)).map_err(ClientError::Connection)?;
        stream.set_write_timeout(Some(wait)).map_err(ClientError::Connection)?;
        Ok(Client { stream: BufReader::with_capacity(BUFFER, stream), wait })
    }

    /// As [`Client::ask`], with routes in the shorter form if the daemon knows it: one that still runs
    /// after an update may not.
    ///
    /// # Errors
    /// See [`Client::ask`].
    pub(super) fn ask_in_runs(
        &mut self,
        request: &Request,
        mut each: impl FnMut(&str) -> Result<(), ClientError>,
    ) -> Result<u64, ClientError> {
        if let Some(request) = request.in_runs() {
            match self.ask(&request, &mut each) {
                Err(ClientError::Refused(Refusal { kind: ErrorKind::BadRequest, .. })) => {}
                answered => return answered,
            }
        }
        self.ask(request, each)
    }

    /// Sends a request and passes each item of the reply, as JSON, to `each` as it arrives. Returns the
    /// number of items.
    ///
    /// # Errors
    /// The daemon refuses the request, the connection fails, or `each` fails.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        mut each: impl FnMut(&str) -> Result<(), ClientError>,
    ) -> Result<u64, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(ClientError::Answer)?;
        line.push(b'\n');
        let wait = self.wait;
        // A timeout of the socket is reported as `WouldBlock`.
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Late(wait),
            _ => ClientError::Connection(error),
        };
        self.stream.get_mut().write_all(&line).map_err(lost)?;
        let mut made = String::new();
        loop {
            line.clear();
            if self.stream.read_until(b'\n', &mut line).map_err(lost)? == 0 {
                return Err(ClientError::Connection(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Some(item) = item_of(&line) {
                each(item)?;
                continue;
            }
            if let Some((prefixes, paths)) = run_of(&line) {
                each_item(prefixes, paths, &mut made, &mut each)?;
                continue;
            }
            match serde_json::from_slice(&line).map_err(ClientError::Answer)? {
                Line::Item(item) => each(item.get())?,
                Line::Run(Run { prefixes, paths }) => {
                    each_item(prefixes, paths.get(), &mut made, &mut each)?;
                }
                Line::Waiting {} => {}
                Line::Done { items } => return Ok(items),
                Line::Error(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Waits until the daemon closes the connection, which it does when it exits. Returns whether
    /// it did within `limit`.
    pub(super) fn wait_closed(mut self, limit: Duration) -> bool {
        let mut line = Vec::new();
        self.stream.get_ref().set_read_timeout(Some(limit)).is_ok()
            && match self.stream.read_until(b'\n', &mut line) {
                Ok(read) => read == 0,
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::ctl::{Backend, Cursor, Page, Server};

    /// A backend with a thousand numbers in four pages, and without peers.
    struct Numbers;

    impl Backend for Numbers {
        async fn page(&self, request: &Request, cursor: Option<&Cursor>) -> Result<Page, Refusal> {
            if let Request::ShowPeer { name } = request {
                return Err(Refusal::no_peer(name, ["a"]));
            }
            let page = match cursor {
                Some(Cursor::Index(page)) => *page,
                _ => 0,
            };
            let first = page * 250;
            Page::new(first..first + 250, (page < 3).then_some(Cursor::Index(page + 1)))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_client_receives_items_refusals_and_the_end() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("m.sock");
        let missing = folder.path().join("none.sock");
        let server = tokio::spawn(Server::bind(&path, None).unwrap().run(Arc::new(Numbers)));
        let mut client = tokio::task::spawn_blocking(move || {
            let error = Client::connect(&missing).err().unwrap().to_string();
            assert!(error.ends_with("is it running? --socket names another socket"), "{error}");

            let mut client = Client::connect(&path).unwrap();
            let mut sum = 0;
            let fib = Request::ShowFib { select: Default::default() };
            let items = client.ask(&fib, |item| {
                sum += item.parse::<u64>().unwrap();
                Ok(())
            });
            assert_eq!((items.unwrap(), sum), (1000, 999 * 1000 / 2));
            let refused = client.ask(&Request::ShowPeer { name: "x".into() }, |_| Ok(()));
            assert_eq!(refused.unwrap_err().to_string(), "there is no peer \"x\"");
            let failed =
                client.ask(&fib, |_| Err(ClientError::Output(io::ErrorKind::BrokenPipe.into())));
            assert!(matches!(failed, Err(ClientError::Output(_))));
            Client::connect(&path).unwrap()
        })
        .await
        .unwrap();
        client.ask(&Request::ShowStatus, |_| Ok(())).unwrap();
        server.abort();
        let closed = tokio::task::spawn_blocking(|| client.wait_closed(Duration::from_secs(10)))
            .await
            .unwrap();
        assert!(closed);
    }
}
