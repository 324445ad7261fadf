//! The server of the control socket. Clients may be many, slow, dead or malicious: each has limits,
//! the daemon makes one page for a client while it reads the last one, and none after that; at the
//! limit of clients, the one that has been silent longest is closed for a new one, so that a probe
//! is always served.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::socket::{OpenTo, Socket};
use super::{Backend, Cursor, ErrorKind, Page, Refusal, Reply, Request, ServerError};
use crate::client_slots::{ClientSlots, LastActivity};

/// Most clients at once.
const CLIENTS_MAX: usize = 64;
/// Most clients of a read-only socket at once: anybody on this machine may ask for long lists, which the
/// table makes between its turns.
const READ_ONLY_CLIENTS_MAX: usize = 16;
/// Longest request, in octets, its line end included. Only one with objects may be as long.
pub const REQUEST_LEN_MAX: u64 = 1024 * 1024;
/// Longest request of any other kind, and most memory that a client's buffer keeps between requests.
const REQUEST_LEN_USUAL: usize = 64 * 1024;

/// How long to wait for a client, and for the daemon.
#[derive(Clone, Copy)]
struct Waits {
    /// For the next request.
    request: Duration,
    /// For one page of an answer.
    page: Duration,
    /// For the client to read one page.
    write: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Waits {
            request: Duration::from_secs(60),
            page: Duration::from_secs(30),
            // As long as someone may read the output in a pager. It costs the memory of two pages,
            // and a slot that a new client can take over.
            write: Duration::from_secs(3600),
        }
    }
}

/// Which requests a socket takes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// Every one.
    All,
    /// Those that change nothing; the others are refused with this text.
    ReadOnly(Arc<str>),
}

/// A bound control socket. Dropping it removes the file, unless another process has replaced it.
pub struct Server {
    socket: Socket,
    scope: Scope,
}

impl Server {
    /// Binds the socket for every request, with mode 0660 and this group, and creates its folder if
    /// necessary. A socket on which no process is listening is replaced.
    ///
    /// # Errors
    /// Another process is listening there, the path is not a socket, it cannot be created, or it cannot
    /// be given to the group.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Server, ServerError> {
        let access = group.map_or(OpenTo::OwnGroup, OpenTo::Group);
        Ok(Server { socket: Socket::bind(path, "control.socket", access)?, scope: Scope::All })
    }

    /// Binds a socket for requests that change nothing, for a group or for every user. `full`: the
    /// socket for the others, for their refusal.
    ///
    /// # Errors
    /// See [`Server::bind`].
    pub fn bind_read_only(
        path: &Path,
        group: Option<&str>,
        full: &Path,
    ) -> Result<Server, ServerError> {
        let access = group.map_or(OpenTo::Everyone, OpenTo::Group);
        let text = format!(
            "{} is read-only, and this may change something: ask with --socket {}, as root or as a \
             member of its group (control.group)",
            path.display(),
            full.display()
        );
        let socket = Socket::bind(path, "control.read-only-socket", access)?;
        Ok(Server { socket, scope: Scope::ReadOnly(text.into()) })
    }

    /// Serves clients until the future is dropped.
    pub async fn run<B: Backend>(self, backend: Arc<B>) {
        let mut clients = JoinSet::new();
        let clients_max = match self.scope {
            Scope::All => CLIENTS_MAX,
            Scope::ReadOnly(_) => READ_ONLY_CLIENTS_MAX,
        };
        let mut slots = ClientSlots::new(clients_max);
        loop {
            let stream = self.socket.accept(&mut slots).await;
            while clients.try_join_next().is_some() {}
            let (backend, scope) = (Arc::clone(&backend), self.scope.clone());
            let (lost, heard) = slots.take();
            clients.spawn(async move {
                let (reader, writer) = stream.into_split();
                let reader = BufReader::new(reader);
                tokio::select! {
                    () = lost => {}
                    () = serve(reader, writer, (&*backend, &scope), Waits::default(), &heard) => {}
                }
            });
        }
    }
}

/// Serves one client until it disconnects, exceeds a limit, or does not read its answer in time.
async fn serve<B: Backend>(
    mut reader: impl AsyncBufRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    (backend, scope): (&B, &Scope),
    waits: Waits,
    heard: &LastActivity,
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
        let parsed = if whole {
            parse(&line)
        } else {
            Err(Refusal {
                kind: ErrorKind::BadRequest,
                text: format!("not a request: no line end within {REQUEST_LEN_MAX} octets"),
            })
        };
        if line.capacity() > REQUEST_LEN_USUAL {
            line = Vec::new();
        }
        let answered = match parsed {
            Ok(request) if !scope.takes(&request) => {
                let refusal = scope.refusal();
                write_lines(&mut writer, waits.write, [Reply::Error(refusal)]).await
            }
            Ok(request) => answer(&mut writer, backend, &request, waits, heard).await,
            Err(refusal) => write_lines(&mut writer, waits.write, [Reply::Error(refusal)]).await,
        };
        if answered.is_err() || !whole {
            return;
        }
    }
}

impl Scope {
    fn takes(&self, request: &Request) -> bool {
        *self == Scope::All || !request.may_change()
    }

    fn refusal(&self) -> Refusal {
        let text = match self {
            Scope::All => "",
            Scope::ReadOnly(text) => text,
        };
        Refusal { kind: ErrorKind::Forbidden, text: text.to_owned() }
    }
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let request = serde_json::from_slice(line).map_err(|e| Refusal::bad_request(line, &e))?;
    if line.len() > REQUEST_LEN_USUAL && !matches!(request, Request::CalicoDryRun { .. }) {
        let text = format!("the request is longer than {REQUEST_LEN_USUAL} octets");
        return Err(Refusal { kind: ErrorKind::BadRequest, text });
    }
    Ok(request)
}

/// Writes the answer to one request. On an error, the client must be disconnected.
async fn answer<B: Backend>(
    writer: &mut (impl AsyncWrite + Unpin),
    backend: &B,
    request: &Request,
    waits: Waits,
    heard: &LastActivity,
) -> io::Result<()> {
    let mut written = 0;
    let mut page = made(backend, request, None, waits.page).await;
    loop {
        let (mut lines, items, next) = match page {
            Ok(page) => page.into_parts(),
            Err(refusal) => return write_lines(writer, waits.write, [Reply::Error(refusal)]).await,
        };
        written += items;
        let Some(next) = next else {
            push_line(&mut lines, &Reply::Done { items: written });
            write(writer, waits.write, &lines).await?;
            heard.note();
            return Ok(());
        };
        if items == 0 && matches!(request, Request::Events { .. }) {
            // Writing also finds out whether the client is still there.
            push_line(&mut lines, &Reply::Waiting {});
        }
        // The next page is made while the client reads this one.
        let read = async {
            write(writer, waits.write, &lines).await?;
            heard.note();
            Ok::<(), io::Error>(())
        };
        let making = async { Ok(made(backend, request, Some(&next), waits.page).await) };
        ((), page) = tokio::try_join!(read, making)?;
    }
}

/// A page of an answer, or why there is none.
async fn made<B: Backend>(
    backend: &B,
    request: &Request,
    cursor: Option<&Cursor>,
    wait: Duration,
) -> Result<Page, Refusal> {
    timeout(wait, backend.page(request, cursor)).await.unwrap_or_else(|_| {
        Err(Refusal::failed(format!("the daemon gave no answer within {wait:?}")))
    })
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
    write(writer, wait, &lines).await
}

async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    wait: Duration,
    lines: &[u8],
) -> io::Result<()> {
    match timeout(wait, writer.write_all(lines)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn push_line(lines: &mut Vec<u8>, reply: &Reply) {
    let start = lines.len();
    if serde_json::to_writer(&mut *lines, reply).is_err() {
        // Writing to memory fails only for values that JSON cannot represent; replies have none.
        lines.truncate(start);
    }
    lines.push(b'\n');
}

#[cfg(test)]
mod tests;
