//! A neighbour that speaks scripted bytes: the test's end of the `rawpeer` program.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::lab::Host;
use crate::message::{KEEPALIVE, NOTIFICATION, from_hex, notification, to_hex};
use crate::wait::wait_until;

/// A received message.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The connection.
    pub id: u64,
    /// The type code.
    pub kind: u8,
    /// The whole message.
    pub bytes: Vec<u8>,
    /// Time of arrival since the start of the program.
    pub at: Duration,
}

/// What happens to incoming connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The connection is accepted.
    Accept,
    /// The connection is reset (RST).
    Reset,
}

/// A running `rawpeer` on a host. Connections have the ids that the test gives them.
#[derive(Debug)]
pub struct RawPeer {
    host: Host,
    child: Child,
    commands: ChildStdin,
    events: Arc<Mutex<Vec<Value>>>,
}

/// The program beside the test binaries.
fn program() -> Result<String> {
    let own = std::env::current_exe()?;
    let dir = own.ancestors().nth(2).context("the test runs outside a target folder")?;
    let path = dir.join("rawpeer");
    ensure!(path.is_file(), "{} is missing: build the package's binaries", path.display());
    Ok(path.to_string_lossy().into_owned())
}

impl RawPeer {
    /// Starts the program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(host: &Host) -> Result<Self> {
        let mut command = host.command(&program()?);
        let log = std::fs::File::create(host.file("rawpeer.log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn()?;
        let commands = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let events: Arc<Mutex<Vec<Value>>> = Arc::default();
        let sink = Arc::clone(&events);
        thread::spawn(move || {
            for line in output.lines().map_while(std::io::Result::ok) {
                if let (Ok(event), Ok(mut list)) = (serde_json::from_str(&line), sink.lock()) {
                    list.push(event);
                }
            }
        });
        Ok(Self { host: host.clone(), child, commands, events })
    }

    fn tell(&mut self, command: &Value) -> Result<()> {
        writeln!(self.commands, "{command}")?;
        self.commands.flush()?;
        Ok(())
    }

    /// The events of one connection, in order.
    ///
    /// # Errors
    /// When the reading thread has died.
    pub fn events(&self, id: u64) -> Result<Vec<Value>> {
        let list = self.events.lock().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        Ok(list.iter().filter(|e| e["id"] == id).cloned().collect())
    }

    fn has(&self, id: u64, event: &str) -> Result<Value> {
        let found = self.events(id)?.into_iter().rfind(|e| e["event"] == event);
        found.with_context(|| format!("no {event:?} on connection {id}"))
    }

    /// Dials from this host's IPv4 address and waits for the connection.
    ///
    /// # Errors
    /// When it is refused or takes more than six seconds.
    pub fn connect(&mut self, id: u64, to: IpAddr, port: u16) -> Result<()> {
        let from = if to.is_ipv4() { self.host.v4() } else { self.host.v6() };
        self.connect_from(id, from, to, port)
    }

    /// As [`RawPeer::connect`], from another address of this host.
    ///
    /// # Errors
    /// As [`RawPeer::connect`].
    pub fn connect_from(&mut self, id: u64, from: IpAddr, to: IpAddr, port: u16) -> Result<()> {
        let before = self.events(id)?.len();
        let to = SocketAddr::new(to, port);
        self.tell(&json!({"op": "connect", "id": id, "from": from, "to": to}))?;
        let answer = wait_until(Duration::from_secs(6), "an answer to connect", || {
            let answers = self.events(id)?;
            let is_answer = |e: &&Value| e["event"] == "connected" || e["event"] == "failed";
            answers.iter().skip(before).find(is_answer).cloned().context("none yet")
        })?;
        ensure!(answer["event"] == "connected", "connect to {to}: {}", answer["why"]);
        Ok(())
    }

    /// Listens on this host; connections get ids from `id` on.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn listen(&mut self, id: u64, port: u16, answer: Answer) -> Result<()> {
        let on = SocketAddr::new(self.host.v4(), port);
        let mode = match answer {
            Answer::Accept => "accept",
            Answer::Reset => "reset",
        };
        self.tell(&json!({"op": "listen", "id": id, "on": on, "mode": mode}))?;
        let limit = Duration::from_secs(5);
        wait_until(limit, "the listener", || self.has(id, "listening").map(drop))
    }

    /// Waits for the connection that [`RawPeer::listen`] accepts as `id`.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn wait_accepted(&self, id: u64, limit: Duration) -> Result<()> {
        wait_until(limit, "a connection to accept", || self.has(id, "accepted").map(drop))
    }

    /// Queues octets; they are sent after what was queued before.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn send(&mut self, id: u64, bytes: &[u8]) -> Result<()> {
        self.tell(&json!({"op": "send", "id": id, "hex": to_hex(bytes)}))
    }

    /// Queues the same octets many times.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn send_often(&mut self, id: u64, bytes: &[u8], count: u64) -> Result<()> {
        self.tell(&json!({"op": "send", "id": id, "hex": to_hex(bytes), "count": count}))
    }

    /// Queues octets with a pause after each.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn send_slowly(&mut self, id: u64, bytes: &[u8], pause: Duration) -> Result<()> {
        let pause = u64::try_from(pause.as_millis())?;
        self.tell(&json!({"op": "send", "id": id, "hex": to_hex(bytes), "pause_ms": pause}))
    }

    /// Sends a KEEPALIVE at intervals from here on.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn keep_alive(&mut self, id: u64, every: Duration) -> Result<()> {
        let every = u64::try_from(every.as_millis())?;
        self.tell(&json!({"op": "keepalive", "id": id, "every_ms": every}))
    }

    /// Stops reading; the connection's window closes soon.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn stall(&mut self, id: u64) -> Result<()> {
        self.tell(&json!({"op": "stall", "id": id}))
    }

    /// Closes the connection without a NOTIFICATION.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn close(&mut self, id: u64) -> Result<()> {
        self.tell(&json!({"op": "close", "id": id}))
    }

    /// All messages received on the connection.
    ///
    /// # Errors
    /// When the reading thread has died.
    pub fn heard(&self, id: u64) -> Result<Vec<Heard>> {
        let parse = |event: &Value| -> Result<Heard> {
            Ok(Heard {
                id,
                kind: u8::try_from(event["type"].as_u64().context("type")?)?,
                bytes: from_hex(event["hex"].as_str().context("hex")?)?,
                at: Duration::from_millis(event["at_ms"].as_u64().context("at_ms")?),
            })
        };
        self.events(id)?.iter().filter(|e| e["event"] == "message").map(parse).collect()
    }

    /// Waits for the `nth` message (from 0) of a type.
    ///
    /// # Errors
    /// When it does not come within `limit`.
    pub fn wait_message(&self, id: u64, kind: u8, nth: usize, limit: Duration) -> Result<Heard> {
        wait_until(limit, &format!("message {nth} of type {kind} on connection {id}"), || {
            let heard = self.heard(id)?;
            let found = heard.iter().filter(|m| m.kind == kind).nth(nth).cloned();
            found.with_context(|| {
                let kinds: Vec<u8> = heard.iter().map(|m| m.kind).collect();
                format!("types so far {kinds:?}, closed: {:?}", self.closed(id))
            })
        })
    }

    /// Waits for a NOTIFICATION and returns code, subcode and data.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn wait_notification(&self, id: u64, limit: Duration) -> Result<(u8, u8, Vec<u8>)> {
        notification(&self.wait_message(id, NOTIFICATION, 0, limit)?.bytes)
    }

    /// How the connection ended, or `None` while it is open.
    #[must_use]
    pub fn closed(&self, id: u64) -> Option<String> {
        let event = self.has(id, "closed").ok()?;
        event["how"].as_str().map(str::to_owned)
    }

    /// Waits for the end of the connection.
    ///
    /// # Errors
    /// When it is still open after `limit`.
    pub fn wait_closed(&self, id: u64, limit: Duration) -> Result<()> {
        wait_until(limit, &format!("connection {id} to end"), || {
            self.closed(id).map(drop).context("it is still open")
        })
    }

    /// Waits until everything queued so far has been sent.
    ///
    /// # Errors
    /// When less than `jobs` sends have been completed within `limit`.
    pub fn wait_sent(&self, id: u64, jobs: usize, limit: Duration) -> Result<()> {
        wait_until(limit, "everything to be sent", || {
            let done = self.events(id)?.iter().filter(|e| e["event"] == "sent").count();
            if done < jobs {
                bail!("{done} of {jobs} sends done, closed: {:?}", self.closed(id));
            }
            Ok(())
        })
    }

    /// Dials, exchanges OPEN and KEEPALIVE, and keeps the session alive.
    ///
    /// # Errors
    /// When the other end refuses.
    pub fn establish(&mut self, id: u64, to: IpAddr, port: u16, open: &[u8]) -> Result<()> {
        let limit = Duration::from_secs(10);
        self.connect(id, to, port)?;
        self.send(id, open)?;
        self.wait_message(id, crate::message::OPEN, 0, limit)?;
        self.send(id, &KEEPALIVE)?;
        self.wait_message(id, crate::message::KEEPALIVE_TYPE, 0, limit)?;
        self.keep_alive(id, Duration::from_secs(1))
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
