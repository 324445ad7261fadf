//! The server of one socket, for one address family. As clients may be many, slow, dead or
//! malicious, their number, the length of a command and the time to read a reply are limited. When
//! all slots are in use, the client that has been inactive longest is disconnected, so that a
//! probe is always served.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::policy::glob_matches;
use bgp_proto::types::Family;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bfd;
use super::command::{
    Action, Command, Configure, Detail, Output, RouteQuery, ShowRoute, Target, Which,
};
use super::model::{Acted, Kind, Phase, Protocol, RoutePage};
use super::reply::{
    ACCESS_DENIED, ALREADY, ALREADY_ENABLED, BUSY, CONFIGURATION_FAULT, CONFIGURATION_OK, DISABLED,
    ENABLED, FAILED, GREETING, NO_NETWORK, NO_PROTOCOLS, NOT_A_PROTOCOL, OK, PROTOCOL_DOWN,
    READING_CONFIGURATION, RECONFIGURED, RELOAD_FAILED, RELOADING, RESTARTED, RESTRICTED,
    ROUTE_COUNT, Refusal, Reply, SYNTAX, TOO_LONG,
};
use super::route::Routes;
use super::when::Clock;
use super::{Backend, route, session};
use crate::client_slots::{ClientSlots, LastActivity};
use crate::ctl::socket::{OpenTo, ServerError, Socket};

/// Maximum number of concurrent clients.
const CLIENTS_MAX: usize = 128;
/// Maximum length of a command, in bytes, as in BIRD.
const COMMAND_LEN_MAX: usize = 4096;
/// A reply is written to the client whenever this many bytes of it are buffered.
const WRITE_LEN: usize = 64 * 1024;
/// Number of protocols whose details are requested at once.
const DETAILS: usize = 64;

/// Timeouts for the daemon and for a client.
#[derive(Clone, Copy)]
struct Waits {
    /// For the daemon to produce one page of a reply.
    page: Duration,
    /// For the client to read what is written.
    write: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Waits { page: Duration::from_secs(30), write: Duration::from_secs(10) }
    }
}

/// A bound socket. Dropping it removes the file, unless another process has replaced it.
pub struct Server {
    socket: Socket,
    family: Family,
}

impl Server {
    /// Binds the socket for one family, with mode 0660, creating its directory if needed. A socket
    /// that no process listens on is replaced.
    ///
    /// # Errors
    /// Another process listens on the socket, the path is not a socket, or a system call fails.
    pub fn bind(path: &Path, family: Family) -> Result<Self, ServerError> {
        Ok(Server { socket: Socket::bind(path, "bird-sockets", OpenTo::OwnGroup)?, family })
    }

    /// Serves clients until the future is dropped.
    pub async fn run<B: Backend>(self, backend: Arc<B>) {
        let mut tasks = JoinSet::new();
        let mut slots = ClientSlots::new(CLIENTS_MAX);
        loop {
            let stream = self.socket.accept(&mut slots).await;
            while tasks.try_join_next().is_some() {}
            let (backend, family) = (Arc::clone(&backend), self.family);
            let (lost, heard) = slots.take();
            tasks.spawn(async move {
                let (reader, writer) = stream.into_split();
                let mut client = Client::new(writer, family, &*backend, Waits::default(), heard);
                tokio::select! {
                    () = lost => {}
                    // A client that disconnects or does not read its reply is not worth a log line.
                    _ = client.serve(BufReader::new(reader)) => {}
                }
            });
        }
    }
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Full,
    /// Read-only, at the client's own request.
    Restricted,
}

/// The connection of one client.
struct Client<'a, W, B> {
    writer: W,
    family: Family,
    backend: &'a B,
    waits: Waits,
    access: Access,
    reply: Reply,
    heard: LastActivity,
}

/// Why a reply was not completed.
enum Broken {
    /// The command failed; this is the last line of the reply.
    Refused(Refusal),
    /// The connection failed and is to be closed.
    Left(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Left(error)
    }
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Broken::Refused(refusal)
    }
}

impl<'a, W: AsyncWrite + Unpin, B: Backend> Client<'a, W, B> {
    fn new(writer: W, family: Family, backend: &'a B, waits: Waits, heard: LastActivity) -> Self {
        let reply = Reply::default();
        Client { writer, family, backend, waits, access: Access::Full, reply, heard }
    }

    /// Sends the greeting, then answers commands until the client disconnects, exceeds a limit or
    /// does not read its reply.
    async fn serve(&mut self, mut reader: impl AsyncBufRead + Unpin) -> io::Result<()> {
        self.reply.end(GREETING, format_args!("BIRD {} ready.", super::VERSION));
        self.flush().await?;
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut reader).take(COMMAND_LEN_MAX as u64);
            let read = bounded.read_until(b'\n', &mut line).await?;
            if read == 0 {
                return Ok(());
            }
            self.heard.note();
            if !line.ends_with(b"\n") && read < COMMAND_LEN_MAX {
                // The client disconnected in the middle of a command.
                return Ok(());
            }
            if !line.ends_with(b"\n") {
                self.reply.end(TOO_LONG, format_args!("Command too long"));
                return self.flush().await;
            }
            let text = String::from_utf8_lossy(&line);
            let command = Command::parse(text.trim_end_matches(['\n', '\r']), self.family);
            let answered = match command {
                Ok(command) => self.answer(command).await,
                Err(refusal) => Err(refusal.into()),
            };
            match answered {
                Ok(()) => {}
                Err(Broken::Refused(Refusal { code, text })) => {
                    self.reply.end(code, format_args!("{text}"));
                }
                Err(Broken::Left(error)) => return Err(error),
            }
            self.flush().await?;
        }
    }

    async fn answer(&mut self, command: Command) -> Result<(), Broken> {
        match command {
            Command::ShowStatus => {
                let status = self.within(self.backend.status(self.family)).await?;
                let status = status.map_err(|text| Refusal::new(FAILED, text))?;
                let clock = Clock::host();
                session::status(&mut self.reply, &status, &clock);
            }
            Command::ShowProtocols { detail, which } => self.protocols(detail, which).await?,
            Command::ShowRoute(show) => self.routes(&show).await?,
            Command::ShowInterfaces(detail) => {
                let interfaces = self.within(self.backend.interfaces(self.family)).await?;
                match detail {
                    Detail::All => route::interfaces(&mut self.reply, &interfaces),
                    Detail::Line => route::interfaces_summary(&mut self.reply, &interfaces),
                }
                self.reply.end(OK, format_args!(""));
            }
            Command::ShowBfdSessions(name) => {
                let rows = self.within(self.backend.bfd_sessions(self.family)).await?;
                let (name, rows) = (name.as_deref(), rows.as_deref());
                bfd::sessions(&mut self.reply, name, rows, &Clock::host())?;
            }
            Command::Configure(configure) => self.configure(configure).await?,
            Command::Act { action, which } => self.act(action, which).await?,
            Command::Restrict => {
                self.access = Access::Restricted;
                self.reply.end(RESTRICTED, format_args!("Access restricted"));
            }
        }
        Ok(())
    }

    async fn protocols(&mut self, detail: Detail, which: Which) -> Result<(), Broken> {
        let protocols = self.which(which).await?;
        let clock = Clock::host();
        session::heading(&mut self.reply);
        match detail {
            Detail::Line => {
                for protocol in &protocols {
                    session::row(&mut self.reply, protocol, &clock);
                }
            }
            Detail::All => self.details(&protocols, &clock).await?,
        }
        self.reply.end(OK, format_args!(""));
        Ok(())
    }

    /// All protocols.
    async fn all_protocols(&self) -> Result<Vec<Protocol>, Refusal> {
        let protocols = self.within(self.backend.protocols(self.family)).await?;
        protocols.map_err(|waiting| Refusal::new(BUSY, waiting))
    }

    /// The selected protocols, at least one.
    async fn which(&self, which: Which) -> Result<Vec<Protocol>, Refusal> {
        let mut protocols = self.all_protocols().await?;
        match which {
            Which::All => {}
            Which::Named(name) => {
                protocols.retain(|protocol| *protocol.name == *name);
                if protocols.is_empty() {
                    let text = format!("{name} is not a protocol");
                    return Err(Refusal::new(NOT_A_PROTOCOL, text));
                }
            }
            Which::Matching(pattern) => {
                protocols.retain(|protocol| glob_matches(&pattern, &protocol.name));
            }
        }
        if protocols.is_empty() {
            return Err(Refusal::new(NO_PROTOCOLS, "No protocols match"));
        }
        Ok(protocols)
    }

    async fn act(&mut self, action: Action, which: Which) -> Result<(), Broken> {
        if self.access == Access::Restricted {
            return Err(Refusal::new(ACCESS_DENIED, "Access denied").into());
        }
        let is_named = matches!(which, Which::Named(_));
        for protocol in self.which(which).await? {
            let name = &protocol.name;
            if protocol.kind != Kind::Bgp {
                if is_named {
                    let text = format!("{name} is no session");
                    return Err(Refusal::new(FAILED, text).into());
                }
                continue;
            }
            let (code, text) = match self.within(self.backend.act(&protocol, action)).await? {
                Acted::Done => match action {
                    Action::Disable => (DISABLED, "disabled"),
                    Action::Enable => (ENABLED, "enabled"),
                    Action::Restart => (RESTARTED, "restarted"),
                    Action::Reload { .. } => (RELOADING, "reloading"),
                },
                Acted::AlreadyDisabled => (ALREADY, "already disabled"),
                Acted::AlreadyEnabled => (ALREADY_ENABLED, "already enabled"),
                Acted::ReloadFailed => (RELOAD_FAILED, "reload failed"),
                Acted::NotUp | Acted::NotASession => continue,
            };
            self.reply.line(code, format_args!("{name}: {text}"));
        }
        self.reply.end(OK, format_args!(""));
        Ok(())
    }

    async fn details(&mut self, protocols: &[Protocol], clock: &Clock) -> Result<(), Broken> {
        for some in protocols.chunks(DETAILS) {
            let details = self.within(self.backend.details(self.family, some)).await?;
            let details = details.map_err(|text| Refusal::new(FAILED, text))?;
            for (protocol, details) in some.iter().zip(&details) {
                session::row(&mut self.reply, protocol, clock);
                session::details(&mut self.reply, protocol, details);
            }
            self.flush_if_long().await?;
        }
        Ok(())
    }

    async fn routes(&mut self, show: &ShowRoute) -> Result<(), Broken> {
        let protocols = self.all_protocols().await?;
        let named = |name: &str| protocols.iter().find(|protocol| *protocol.name == *name);
        for name in [&show.query.protocol, &show.query.export].into_iter().flatten() {
            if named(name).is_none() {
                let text = format!("{name} is not a protocol");
                return Err(Refusal::new(SYNTAX, text).into());
            }
        }
        let is_down = |protocol: &Protocol| matches!(protocol.phase, Phase::Down | Phase::Start);
        if show.query.export.as_deref().and_then(named).is_some_and(is_down) {
            return Err(Refusal::new(PROTOCOL_DOWN, "Protocol is down").into());
        }
        drop(protocols);
        let clock = Clock::host();
        let mut lines = Routes::default();
        let (mut routes, mut networks) = (0_u64, 0);
        let mut cursor = None;
        loop {
            let page = self.backend.routes(self.family, &show.query, cursor.as_ref());
            let page: RoutePage =
                self.within(page).await?.map_err(|text| Refusal::new(FAILED, text))?;
            networks += page.networks;
            for found in &page.routes {
                routes += 1;
                if show.output != Output::Count {
                    lines.route(&mut self.reply, found, show.detail, &clock);
                    self.flush_if_long().await?;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if show.query.target != Target::All {
            self.end_of_network(&show.query, routes).await?;
        } else if show.output != Output::Routes {
            let text = format_args!("{routes} of {routes} routes for {networks} networks");
            self.reply.end(ROUTE_COUNT, text);
        } else {
            self.reply.end(OK, format_args!(""));
        }
        Ok(())
    }

    /// Writes the last line of a query for one network: as BIRD does, whether the network exists,
    /// not whether any of its routes was shown, and no count.
    async fn end_of_network(&mut self, query: &RouteQuery, routes: u64) -> Result<(), Broken> {
        let is_there = routes > 0 || {
            let any = RouteQuery { target: query.target, ..RouteQuery::default() };
            let page = self.within(self.backend.routes(self.family, &any, None)).await?;
            !page.map_err(|text| Refusal::new(FAILED, text))?.routes.is_empty()
        };
        if is_there {
            self.reply.end(OK, format_args!(""))
        } else {
            self.reply.end(NO_NETWORK, format_args!("Network not in table"))
        }
        Ok(())
    }

    async fn configure(&mut self, configure: Configure) -> Result<(), Broken> {
        if self.access == Access::Restricted {
            return Err(Refusal::new(ACCESS_DENIED, "Access denied").into());
        }
        let source = self.within(self.backend.configuration()).await?;
        self.reply.line(READING_CONFIGURATION, format_args!("Reading configuration from {source}"));
        let read = self.within(self.backend.configure(configure)).await?;
        read.map_err(|text| {
            let first = text.lines().next().unwrap_or_default();
            Refusal::new(CONFIGURATION_FAULT, first)
        })?;
        match configure {
            Configure::Apply => self.reply.end(RECONFIGURED, format_args!("Reconfigured")),
            Configure::Check => self.reply.end(CONFIGURATION_OK, format_args!("Configuration OK")),
        }
        Ok(())
    }

    /// Waits for the daemon's answer, up to a timeout.
    async fn within<T>(&self, answer: impl Future<Output = T>) -> Result<T, Refusal> {
        let late = |_| Refusal::new(BUSY, "The daemon gave no answer in time");
        timeout(self.waits.page, answer).await.map_err(late)
    }

    async fn flush_if_long(&mut self) -> io::Result<()> {
        if self.reply.len() < WRITE_LEN { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let octets = self.reply.take();
        match timeout(self.waits.write, self.writer.write_all(&octets)).await {
            Ok(written) => written.map(|()| self.heard.note()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests;
