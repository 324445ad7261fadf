//! The control socket's server. Clients are many, slow, dead or malicious; each has limits, the
//! daemon answers none of them for longer than it takes to make a page, and when places run out the
//! client that has been silent longest is closed for it, so that a probe is always served.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::socket::Socket;
use super::{Backend, Cursor, ErrorKind, Refusal, Reply, Request, ServerError};
use crate::client_slots::{ClientSlots, Heard};

/// Clients at once.
const CLIENTS_MAX: usize = 64;
/// Longest request, in octets.
const REQUEST_LEN_MAX: u64 = 64 * 1024;

/// How long a client is waited for, and the daemon.
#[derive(Clone, Copy)]
struct Waits {
    /// For a request.
    request: Duration,
    /// For one page of an answer.
    page: Duration,
    /// For the client to take one page.
    write: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Waits {
            request: Duration::from_secs(60),
            page: Duration::from_secs(30),
            // As long as a pager may be looked at. It costs one page of memory, and a place that
            // goes to the next client that needs it.
            write: Duration::from_secs(3600),
        }
    }
}

/// A bound control socket. Dropping it removes the file, unless another process has replaced it.
pub struct Server {
    socket: Socket,
}

impl Server {
    /// Binds the socket, with mode 0660, making its folder if need be. A socket that nobody answers
    /// at is replaced.
    ///
    /// # Errors
    /// Somebody answers there, something else is there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Server, ServerError> {
        Ok(Server { socket: Socket::bind(path, "control.socket")? })
    }

    /// Serves clients for as long as the future lives.
    pub async fn run<B: Backend>(self, backend: Arc<B>) {
        let mut clients = JoinSet::new();
        let mut slots = ClientSlots::new(CLIENTS_MAX);
        loop {
            let stream = self.socket.accept(&mut slots).await;
            while clients.try_join_next().is_some() {}
            let backend = Arc::clone(&backend);
            let (lost, heard) = slots.take();
            clients.spawn(async move {
                let (reader, writer) = stream.into_split();
                let reader = BufReader::new(reader);
                tokio::select! {
                    () = lost => {}
                    () = serve(reader, writer, &*backend, Waits::default(), &heard) => {}
                }
            });
        }
    }
}

/// Serves one client until it leaves, breaks a limit, or does not take its answer.
async fn serve<B: Backend>(
    mut reader: impl AsyncBufRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    backend: &B,
    waits: Waits,
    heard: &Heard,
) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(REQUEST_LEN_MAX);
        match timeout(waits.request, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) | Err(_) => return,
        }
        heard.note();
        let whole = line.ends_with(b"\n");
        let parsed = match whole {
            true => serde_json::from_slice(&line).map_err(|e| Refusal::bad_request(&line, &e)),
            false => Err(Refusal {
                kind: ErrorKind::BadRequest,
                text: format!("not a request: no line end within {REQUEST_LEN_MAX} octets"),
            }),
        };
        let answered = match parsed {
            Ok(request) => answer(&mut writer, backend, &request, waits, heard).await,
            Err(refusal) => write_lines(&mut writer, waits.write, [Reply::Error(refusal)]).await,
        };
        if answered.is_err() || !whole {
            return;
        }
    }
}

/// Writes the answer to one request. An error means that the client is to be left.
async fn answer<B: Backend>(
    writer: &mut (impl AsyncWrite + Unpin),
    backend: &B,
    request: &Request,
    waits: Waits,
    heard: &Heard,
) -> io::Result<()> {
    let mut written = 0;
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = match timeout(waits.page, backend.page(request, cursor.as_ref())).await {
            Ok(page) => page,
            Err(_) => {
                let waited = waits.page;
                Err(Refusal::failed(format!("the daemon gave no answer within {waited:?}")))
            }
        };
        let (items, next) = match page {
            Ok(page) => page.into_parts(),
            Err(refusal) => return write_lines(writer, waits.write, [Reply::Error(refusal)]).await,
        };
        written += items.len() as u64;
        let done = next.is_none().then_some(Reply::Done { items: written });
        write_lines(writer, waits.write, items.into_iter().map(Reply::Item).chain(done)).await?;
        heard.note();
        cursor = next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

async fn write_lines(
    writer: &mut (impl AsyncWrite + Unpin),
    wait: Duration,
    replies: impl IntoIterator<Item = Reply>,
) -> io::Result<()> {
    let mut lines = Vec::new();
    for reply in replies {
        push_line(&mut lines, &reply);
    }
    match timeout(wait, writer.write_all(&lines)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn push_line(lines: &mut Vec<u8>, reply: &Reply) {
    let start = lines.len();
    if serde_json::to_writer(&mut *lines, reply).is_err() {
        // Writing to memory fails for values that JSON has no form for; replies have none.
        lines.truncate(start);
    }
    lines.push(b'\n');
}

#[cfg(test)]
mod tests;
