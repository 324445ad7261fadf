//! A scripted TCP endpoint: commands say what to send, events report what is received, one JSON
//! object per line.
//!
//! A separate program because it must run inside a network namespace. Commands on standard input:
//!
//! | command | does |
//! |---|---|
//! | `{"op":"connect","id":1,"from":"A","to":"A:PORT"}` | dials; answers `connected` or `failed` |
//! | `{"op":"listen","on":"A:PORT","mode":"accept"\|"reset","id":9}` | connections get ids from 9 on |
//! | `{"op":"send","id":1,"hex":"..","count":1,"pause_ms":0}` | sends, with a pause after each octet if not 0 |
//! | `{"op":"keepalive","id":1,"every_ms":1000}` | a KEEPALIVE at intervals, until the end |
//! | `{"op":"stall","id":1}` | stops reading |
//! | `{"op":"close","id":1}` | closes |
//!
//! Events on standard output carry `at_ms` since the start: `connected`, `failed`, `listening`,
//! `accepted`, `reset`, `sent`, `message` (`type`, `hex` of the whole message), `closed`.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use interop::message::{HEADER_LEN, KEEPALIVE, from_hex, to_hex};
use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

/// Size of the receive buffer: small, so that the sender soon notices a stalled connection.
const RECEIVE_BUFFER: usize = 16 * 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What the writer of a connection is to send.
struct Job {
    bytes: Vec<u8>,
    count: u64,
    pause: Duration,
    /// Whether to report the end of the job.
    report: bool,
}

struct Conn {
    stream: TcpStream,
    jobs: Sender<Job>,
    stalled: Arc<AtomicBool>,
}

/// State shared by the threads.
struct Board {
    start: Instant,
    conns: Mutex<BTreeMap<u64, Conn>>,
}

impl Board {
    fn report(&self, mut event: Value) {
        event["at_ms"] = json!(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let mut out = std::io::stdout().lock();
        // If the output is closed, the test is over.
        if writeln!(out, "{event}").and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    fn add(self: &Arc<Self>, id: u64, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let (jobs, queue) = channel();
        let stalled = Arc::new(AtomicBool::new(false));
        let (reader, writer) = (stream.try_clone()?, stream.try_clone()?);
        let (board, is_stalled) = (Arc::clone(self), Arc::clone(&stalled));
        thread::spawn(move || read(&board, id, reader, &is_stalled));
        let board = Arc::clone(self);
        thread::spawn(move || write(&board, id, writer, &queue));
        if let Ok(mut conns) = self.conns.lock() {
            conns.insert(id, Conn { stream, jobs, stalled });
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let board = Arc::new(Board { start: Instant::now(), conns: Mutex::new(BTreeMap::new()) });
    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        obey(&board, &command).with_context(|| command.to_string())?;
    }
    Ok(())
}

fn obey(board: &Arc<Board>, command: &Value) -> Result<()> {
    let text = |key: &str| command[key].as_str().with_context(|| format!("no {key}"));
    let id = command["id"].as_u64().context("no id")?;
    match text("op")? {
        "connect" => {
            let (from, to): (IpAddr, SocketAddr) = (text("from")?.parse()?, text("to")?.parse()?);
            match connect(from, to) {
                Ok(stream) => {
                    board.report(json!({"event": "connected", "id": id}));
                    board.add(id, stream)?;
                }
                Err(e) => {
                    board.report(json!({"event": "failed", "id": id, "why": format!("{e:#}")}));
                }
            }
        }
        "listen" => {
            let listener = TcpListener::bind(text("on")?.parse::<SocketAddr>()?)?;
            let reset = text("mode")? == "reset";
            let board = Arc::clone(board);
            board.report(json!({"event": "listening", "id": id}));
            thread::spawn(move || accept(&board, &listener, id, reset));
        }
        "send" => {
            let job = Job {
                bytes: from_hex(text("hex")?)?,
                count: command["count"].as_u64().unwrap_or(1),
                pause: Duration::from_millis(command["pause_ms"].as_u64().unwrap_or(0)),
                report: true,
            };
            with_conn(board, id, |conn| conn.jobs.send(job).is_ok())?;
        }
        "keepalive" => {
            let every = Duration::from_millis(command["every_ms"].as_u64().context("every_ms")?);
            let mut jobs = None;
            with_conn(board, id, |conn| {
                jobs = Some(conn.jobs.clone());
                true
            })?;
            let jobs = jobs.context("no such connection")?;
            thread::spawn(move || keep_alive(&jobs, every));
        }
        "stall" => with_conn(board, id, |conn| {
            conn.stalled.store(true, Ordering::SeqCst);
            true
        })?,
        "close" => with_conn(board, id, |conn| conn.stream.shutdown(Shutdown::Both).is_ok())?,
        other => bail!("unknown op {other}"),
    }
    Ok(())
}

/// Runs `act` on the connection. A closed connection is not an error: the other end may close it at
/// any time, which is reported as an event.
fn with_conn(board: &Board, id: u64, act: impl FnOnce(&Conn) -> bool) -> Result<()> {
    let conns = board.conns.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    act(conns.get(&id).context("no such connection")?);
    Ok(())
}

fn connect(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), CONNECT_LIMIT)?;
    Ok(socket.into())
}

fn accept(board: &Arc<Board>, listener: &TcpListener, first_id: u64, reset: bool) {
    for (id, stream) in (first_id..).zip(listener.incoming().flatten()) {
        if reset {
            // Closing with a linger time of 0 sends RST.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            board.report(json!({"event": "reset", "id": id}));
        } else {
            board.report(json!({"event": "accepted", "id": id}));
            let _ = board.add(id, stream);
        }
    }
}

fn read(board: &Board, id: u64, mut stream: TcpStream, stalled: &AtomicBool) {
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = [0; 65536];
    let how = loop {
        while stalled.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(50));
        }
        match stream.read(&mut buffer) {
            Ok(0) => break "end of file".to_owned(),
            Ok(n) => held.extend_from_slice(&buffer[..n]),
            Err(e) => break e.to_string(),
        }
        let mut at = 0;
        while let Some(len) = message_len(&held[at..]) {
            let message = &held[at..at + len];
            let kind = message[HEADER_LEN - 1];
            board.report(
                json!({"event": "message", "id": id, "type": kind, "hex": to_hex(message)}),
            );
            at += len;
        }
        held.drain(..at);
    };
    board.report(json!({"event": "closed", "id": id, "how": how}));
}

/// The length of the first message, once it is complete.
fn message_len(held: &[u8]) -> Option<usize> {
    let header = held.get(..HEADER_LEN)?;
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    (len >= HEADER_LEN && held.len() >= len).then_some(len)
}

fn write(board: &Board, id: u64, mut stream: TcpStream, queue: &Receiver<Job>) {
    for job in queue {
        let sent = if job.pause.is_zero() {
            send_often(&mut stream, &job.bytes, job.count)
        } else {
            send_slowly(&mut stream, &job.bytes, job.pause)
        };
        match sent {
            Ok(()) if job.report => board.report(json!({"event": "sent", "id": id})),
            Ok(()) => {}
            Err(_) => return,
        }
    }
}

fn send_often(stream: &mut TcpStream, bytes: &[u8], count: u64) -> std::io::Result<()> {
    // Large writes, so that a flood is limited by the receiver and not by system calls.
    let batch = (64 * 1024 / bytes.len().max(1)).max(1) as u64;
    let chunk = bytes.repeat(usize::try_from(batch.min(count)).unwrap_or(1));
    let mut left = count;
    while left > 0 {
        let now = left.min(batch);
        let octets = usize::try_from(now).unwrap_or(0) * bytes.len();
        stream.write_all(&chunk[..octets])?;
        left -= now;
    }
    Ok(())
}

fn send_slowly(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(std::slice::from_ref(byte))?;
        thread::sleep(pause);
    }
    Ok(())
}

fn keep_alive(jobs: &Sender<Job>, every: Duration) {
    loop {
        let job = Job { bytes: KEEPALIVE.to_vec(), count: 1, pause: Duration::ZERO, report: false };
        if jobs.send(job).is_err() {
            return;
        }
        thread::sleep(every);
    }
}
