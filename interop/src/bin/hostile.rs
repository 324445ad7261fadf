//! Healthy neighbours and attackers of the daemon under test, in one program.
//!
//! A separate program because it must run inside a network namespace. For each JSON line of orders
//! on standard input it writes one JSON line of measurements on standard output, until the input
//! ends:
//!
//! `{"attack":"keepalives","attackers":8,"seconds":2}` gives
//! `{"attack":"…","lost":0,"gap_ms":1010,"canary_ms":40,"rss_kib":12000,"connections":0,"octets":…}`.
//!
//! Healthy sessions have a hold time of 3 s: a session without a message for that long is lost. The
//! canary is a route that one of them announces and withdraws, and for which another one waits.

use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interop::message::{
    HEADER_LEN, KEEPALIVE, KEEPALIVE_TYPE, OPEN, UPDATE, announcement, end_of_rib, message, nlri,
    open, withdrawal,
};
use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

/// Number of healthy sessions.
const HEALTHY: u8 = 50;
const HOLD_TIME: u16 = 3;
/// Interval of the KEEPALIVEs of a healthy neighbour.
const KEEPALIVE_EVERY: Duration = Duration::from_millis(800);
/// Next hop of the canary's route: an address on margay's link.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 9);
/// How often the canary's route changes.
const CANARY_EVERY: Duration = Duration::from_millis(500);
const CANARY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);
/// Timeout of a connection or the start of a session.
const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon's address and process, and the AS of its neighbours.
#[derive(Clone, Copy)]
struct Scene {
    daemon: SocketAddr,
    asn: u32,
    pid: u32,
}

impl Scene {
    /// A connection from an address of ours.
    fn connect(&self, from: Ipv4Addr) -> Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&self.daemon.into(), PATIENCE)?;
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        Ok(stream)
    }

    /// Establishes a session. Retries, as an earlier one from the address may still exist: the
    /// daemon reads an attacker that floods slowly, and so notices its end late.
    fn establish(
        &self,
        from: Ipv4Addr,
        hold_time: u16,
        more: &[(u8, Vec<u8>)],
    ) -> Result<TcpStream> {
        let began = Instant::now();
        loop {
            match self.try_establish(from, hold_time, more) {
                Err(_) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                outcome => return outcome,
            }
        }
    }

    fn try_establish(
        &self,
        from: Ipv4Addr,
        hold_time: u16,
        more: &[(u8, Vec<u8>)],
    ) -> Result<TcpStream> {
        let mut stream = self.connect(from)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&open(self.asn, hold_time, from, more)?)?;
        stream.write_all(&KEEPALIVE)?;
        for expected in [OPEN, KEEPALIVE_TYPE] {
            let mut header = [0; HEADER_LEN];
            stream.read_exact(&mut header)?;
            ensure!(header[18] == expected, "type {} instead of {expected}", header[18]);
            let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
            stream.read_exact(&mut vec![0; len - HEADER_LEN])?;
        }
        Ok(stream)
    }

    fn rss_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    }
}

fn healthy(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 50, 1, number)
}

fn attacker(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 50, 2, number)
}

/// Measurements since the last report.
#[derive(Default)]
struct Measured {
    lost: u64,
    gap: Duration,
    canary: Duration,
}

struct Session {
    stream: TcpStream,
    unread: Vec<u8>,
    heard: Instant,
    spoke: Instant,
    is_lost: bool,
}

/// The healthy neighbours, all on one thread.
struct Crowd {
    sessions: Vec<Session>,
    asn: u32,
    changed: Option<Instant>,
    next_change: Instant,
    is_announced: bool,
}

impl Crowd {
    fn start(scene: &Scene) -> Result<Self> {
        let mut sessions = Vec::new();
        for number in 1..=HEALTHY {
            let stream = scene.establish(healthy(number), HOLD_TIME, &[])?;
            stream.set_nonblocking(true)?;
            let now = Instant::now();
            let unread = Vec::new();
            sessions.push(Session { stream, unread, heard: now, spoke: now, is_lost: false });
        }
        let next_change = Instant::now() + CANARY_EVERY;
        Ok(Crowd { sessions, asn: scene.asn, changed: None, next_change, is_announced: false })
    }

    /// Services all sessions once.
    fn turn(&mut self, measured: &mut Measured) -> Result<()> {
        let now = Instant::now();
        if self.changed.is_none() && self.next_change <= now {
            self.change()?;
            (self.changed, self.next_change) = (Some(now), now + CANARY_EVERY);
        }
        for (index, session) in self.sessions.iter_mut().enumerate() {
            if session.is_lost {
                continue;
            }
            let saw_update = session.listen()?;
            if saw_update
                && index == 1
                && let Some(changed) = self.changed.take()
            {
                measured.canary = measured.canary.max(changed.elapsed());
            }
            measured.gap = measured.gap.max(session.heard.elapsed());
            let silent = session.heard.elapsed() > Duration::from_secs(u64::from(HOLD_TIME));
            if session.is_lost || silent {
                session.is_lost = true;
                measured.lost += 1;
                continue;
            }
            if session.spoke.elapsed() >= KEEPALIVE_EVERY {
                session.spoke = Instant::now();
                let _ = session.stream.write(&KEEPALIVE)?;
            }
        }
        if let Some(changed) = self.changed {
            measured.canary = measured.canary.max(changed.elapsed());
        }
        Ok(())
    }

    /// Announces or withdraws the canary's route, on the first session.
    fn change(&mut self) -> Result<()> {
        let prefix = [nlri(CANARY, 24)];
        self.is_announced = !self.is_announced;
        let update = match self.is_announced {
            // The crowd's addresses are local to margay's machine, so they cannot be next hops.
            true => announcement(self.asn, NEXT_HOP, &[], &prefix)?,
            false => withdrawal(&prefix)?,
        };
        let Some(first) = self.sessions.first_mut() else { bail!("no healthy session is left") };
        let _ = first.stream.write(&update)?;
        Ok(())
    }
}

impl Session {
    /// Reads pending messages; returns whether one was an UPDATE with the canary's prefix.
    fn listen(&mut self) -> Result<bool> {
        let mut octets = [0; 16_384];
        loop {
            match self.stream.read(&mut octets) {
                Ok(0) => self.is_lost = true,
                Ok(read) => {
                    self.unread.extend_from_slice(octets.get(..read).context("a read")?);
                    if read == octets.len() {
                        continue;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.is_lost = true,
            }
            break;
        }
        let mut saw = false;
        while self.unread.len() >= HEADER_LEN {
            let len = usize::from(u16::from_be_bytes([self.unread[16], self.unread[17]]));
            if self.unread.len() < len {
                break;
            }
            let kind = self.unread[18];
            self.heard = Instant::now();
            saw |= kind == UPDATE && self.unread[..len].windows(4).any(|w| w == [24, 198, 51, 100]);
            self.is_lost |= kind == 3;
            self.unread.drain(..len);
        }
        Ok(saw)
    }
}

/// The state of one attack.
#[derive(Default)]
struct Effort {
    connections: AtomicU64,
    octets: AtomicU64,
    stop: AtomicBool,
}

impl Effort {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, daemon, asn, pid] = arguments.as_slice() else { bail!("hostile ADDRESS:PORT AS PID") };
    let scene = Scene { daemon: daemon.parse()?, asn: asn.parse()?, pid: pid.parse()? };
    let measured = Arc::new(Mutex::new(Measured::default()));
    let mut crowd = Crowd::start(&scene)?;
    let sink = Arc::clone(&measured);
    thread::spawn(move || {
        loop {
            if let Ok(mut measured) = sink.lock()
                && let Err(error) = crowd.turn(&mut measured)
            {
                eprintln!("{error:#}");
                measured.lost += 1;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    println!("{}", json!({"ready": true, "rss_kib": scene.rss_kib()}));
    for line in std::io::stdin().lock().lines() {
        let order: Value = serde_json::from_str(&line?)?;
        let attack = order["attack"].as_str().context("attack")?.to_owned();
        let attackers = u8::try_from(order["attackers"].as_u64().unwrap_or(1))?;
        let time = Duration::from_secs_f64(order["seconds"].as_f64().unwrap_or(1.0));
        take(&measured)?;
        let effort = run(&scene, &attack, attackers, time)?;
        let Measured { lost, gap, canary } = take(&measured)?;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        println!(
            "{}",
            json!({
                "attack": attack, "lost": lost, "gap_ms": milliseconds(gap),
                "canary_ms": milliseconds(canary), "rss_kib": scene.rss_kib(),
                "connections": effort.connections.load(Ordering::Relaxed),
                "octets": effort.octets.load(Ordering::Relaxed),
            })
        );
    }
    Ok(())
}

fn take(measured: &Mutex<Measured>) -> Result<Measured> {
    let mut measured = measured.lock().map_err(|_| anyhow::anyhow!("the crowd panicked"))?;
    Ok(std::mem::take(&mut measured))
}

/// Runs an attack with `attackers` threads for a time.
fn run(scene: &Scene, attack: &str, attackers: u8, time: Duration) -> Result<Arc<Effort>> {
    let effort = Arc::new(Effort::default());
    let work = work(attack)?;
    let threads: Vec<_> = (1..=attackers)
        .map(|number| {
            let (scene, effort, work) = (*scene, Arc::clone(&effort), work.clone());
            thread::spawn(move || work.go(&scene, number, &effort))
        })
        .collect();
    let end = Instant::now() + time;
    while Instant::now() < end && !threads.iter().all(thread::JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(20));
    }
    // Measure for the whole time, even if the attack ended early.
    thread::sleep(end.saturating_duration_since(Instant::now()));
    effort.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("an attacker panicked"))??;
    }
    Ok(effort)
}

/// The kinds of attacks.
#[derive(Clone)]
enum Work {
    /// Sends octets on an established session as fast as they are accepted.
    Flood(Vec<u8>),
    /// In a loop: connects from the address of a healthy neighbour, sends octets and closes.
    Knock(Vec<u8>),
    /// In a loop: establishes a session, sends octets and ends it.
    Flap(Vec<u8>),
    /// Opens connections from as many addresses as there are, and sends nothing.
    Silence,
    /// An established session that sends one octet at a time.
    Drip,
    /// An established session that reads nothing while routes change.
    Deaf,
}

/// The attacks by name.
fn work(attack: &str) -> Result<Work> {
    let evpn = {
        let mp_reach = [0x80, 14, 5, 0, 25, 70, 0, 0];
        // Optional and transitive, of unknown types, empty.
        let empty: Vec<u8> = (0..1300).flat_map(|_| [0xC0, 200, 0]).collect();
        let attributes = [&mp_reach[..], &empty].concat();
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len())?.to_be_bytes());
        body.extend(attributes);
        message(UPDATE, &body)?
    };
    let refresh = |afi: u8, subtype: u8| message(5, &[0, afi, subtype, 1]);
    let multicast =
        announcement(65010, Ipv4Addr::new(10, 0, 0, 1), &[], &[nlri([224, 1, 1, 0].into(), 24)]);
    let notification = message(3, &[6, 2])?;
    let garbage: Vec<u8> = (0..4096u32).map(|n| ((n * 7919) >> 3) as u8).collect();
    Ok(match attack {
        "nothing" => Work::Knock(Vec::new()),
        "keepalives" => Work::Flood(KEEPALIVE.to_vec()),
        "refresh-other-family" => Work::Flood(refresh(2, 0)?),
        "refresh-unknown-subtype" => Work::Flood(refresh(1, 9)?),
        "refresh-requests" => Work::Flood(refresh(1, 0)?),
        "borr" => Work::Flood(refresh(1, 1)?),
        "eorr" => Work::Flood(refresh(1, 2)?),
        "end-of-rib" => Work::Flood(end_of_rib()?),
        "other-family" => Work::Flood(evpn),
        "multicast" => Work::Flood(multicast?),
        "unknown-withdrawals" => Work::Flood(withdrawal(&[nlri([203, 0, 113, 0].into(), 24)])?),
        "connect" => Work::Knock(Vec::new()),
        "get" => Work::Knock(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".to_vec()),
        "notifications" => Work::Knock(notification),
        "open-garbage" => Work::Knock(message(OPEN, &garbage[..200])?),
        "garbage" => Work::Knock(garbage),
        "flap" => Work::Flap(Vec::new()),
        "flap-malformed" => Work::Flap(message(UPDATE, &[0xff, 0xff])?),
        "half-open" => Work::Silence,
        "drip" => Work::Drip,
        "deaf" => Work::Deaf,
        other => bail!("no attack is called {other}"),
    })
}

impl Work {
    fn go(&self, scene: &Scene, number: u8, effort: &Effort) -> Result<()> {
        match self {
            Work::Flood(octets) => {
                let mut stream =
                    scene.establish(attacker(number), 90, &[(2, vec![]), (70, vec![])])?;
                let octets = octets.repeat((128 << 10) / octets.len() + 1);
                let mut rest = octets.as_slice();
                while effort.goes_on() {
                    // A time-out is back-pressure; on an error the daemon has closed the
                    // connection.
                    match stream.write(rest) {
                        Ok(sent) => {
                            effort.octets.fetch_add(sent as u64, Ordering::Relaxed);
                            rest =
                                rest.get(sent..).filter(|rest| !rest.is_empty()).unwrap_or(&octets);
                        }
                        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return Ok(()),
                    }
                }
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
            Work::Knock(words) => {
                while effort.goes_on() {
                    let from = healthy(number);
                    let Ok(mut stream) = scene.connect(from) else { continue };
                    effort.connections.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.write_all(words);
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                }
            }
            Work::Flap(words) => {
                while effort.goes_on() {
                    let Ok(mut stream) = scene.establish(attacker(number), 90, &[]) else {
                        continue;
                    };
                    effort.connections.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.write_all(words);
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                }
            }
            Work::Silence => {
                let mut held = Vec::new();
                for host in 1..=250 {
                    if !effort.goes_on() {
                        break;
                    }
                    let from = Ipv4Addr::new(10, 50, 3 + number, host);
                    held.extend(scene.connect(from).ok());
                    effort.connections.fetch_add(1, Ordering::Relaxed);
                }
                while effort.goes_on() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Work::Drip => {
                let mut stream = scene.establish(attacker(number), 90, &[])?;
                let update = announcement(
                    scene.asn,
                    attacker(number),
                    &[],
                    &[nlri([203, 0, 113, 0].into(), 24)],
                )?;
                for octet in update.iter().cycle() {
                    if !effort.goes_on() || stream.write_all(&[*octet]).is_err() {
                        break;
                    }
                    effort.octets.fetch_add(1, Ordering::Relaxed);
                }
            }
            Work::Deaf => {
                let _stream = scene.establish(attacker(number), 90, &[])?;
                let mut loud = scene.establish(attacker(100 + number), 90, &[])?;
                for round in (0..=255u8).cycle() {
                    if !effort.goes_on() {
                        break;
                    }
                    let prefixes: Vec<_> =
                        (0..=255).map(|n| nlri([100, number, n, 0].into(), 24)).collect();
                    let community = [u32::from(round)];
                    let update = announcement(scene.asn, attacker(number), &community, &prefixes)?;
                    match loud.write_all(&update) {
                        Ok(()) => effort.octets.fetch_add(update.len() as u64, Ordering::Relaxed),
                        Err(_) => break,
                    };
                }
            }
        }
        Ok(())
    }
}
