//! The interpreter of `conformance/malformed/sequences.jsonl`.
//!
//! Each scenario runs against its own margay. An unknown step or expectation is an error, never
//! skipped. Beside the scenario's neighbour, a *witness* in another AS keeps a session with a hold
//! time of three seconds throughout: at the end it must not have flapped, and the daemon must still
//! be the same process.

mod expect;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::{Host, Lab};
use crate::margay::{self, Control};
use crate::message::{self, KEEPALIVE, Start, from_hex};
use crate::raw::{Answer, RawPeer};
use crate::speaker::Kind;
use crate::wait::wait_until;

const PORT: u16 = 179;
/// Timeout for answers that do not depend on a protocol timer.
const SOON: Duration = Duration::from_secs(10);
/// margay's hold time in scenarios that wait for it to expire.
const SHORT_HOLD: Duration = Duration::from_secs(3);
/// margay's send hold time in scenarios that wait for it to expire.
const SEND_HOLD: Duration = Duration::from_secs(4);
/// margay's stale-path timer in scenarios that wait for it to expire.
const STALE_TIME: Duration = Duration::from_secs(5);
/// The restart time that the neighbour announces in scenarios with graceful restart.
const RESTART_TIME: u16 = 4;
const WITNESS_AS: u32 = 65002;
/// A prefix that the witness announces; its arrival shows that everything before it was processed.
const WITNESS_PREFIX: &str = "198.18.0.0/24";
const CANARY: &str = "198.18.1.0/24";
/// The connection of the witness.
const WITNESS: u64 = 50;
/// The first connection that margay opens.
const DIALLED: u64 = 100;

/// One scenario.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Its name.
    pub name: String,
    peer_as: u32,
    local_as: u32,
    steps: Vec<Value>,
}

/// Reads the file.
///
/// # Errors
/// When a line is not a scenario.
pub fn load(path: &Path) -> Result<Vec<Sequence>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parse = |line: &str| -> Result<Sequence> {
        let value: Value = serde_json::from_str(line)?;
        let number = |key: &str| -> Result<u32> {
            Ok(u32::try_from(value[key].as_u64().with_context(|| key.to_owned())?)?)
        };
        Ok(Sequence {
            name: value["name"].as_str().context("no name")?.to_owned(),
            peer_as: number("peer_as")?,
            local_as: number("local_as")?,
            steps: value["steps"].as_array().context("no steps")?.clone(),
        })
    };
    text.lines().filter(|l| !l.trim().is_empty()).map(parse).collect()
}

impl Sequence {
    /// Whether any step's value contains the text.
    fn mentions(&self, text: &str) -> bool {
        self.steps.iter().any(|step| {
            step.as_object().is_some_and(|o| o.values().any(|v| v.to_string().contains(text)))
        })
    }

    fn has_step(&self, key: &str) -> bool {
        self.steps.iter().any(|step| step.get(key).is_some())
    }

    fn has_graceful_restart(&self) -> bool {
        self.mentions("both announced GR") || self.mentions("GR, restarting peer")
    }

    /// margay's configuration: as the scenario states or implies, with the witness.
    fn config(&self, margay: &Host, peer: &Host, witness: &Host) -> String {
        let hold = if self.mentions("hold time") || self.mentions("hold/10") {
            SHORT_HOLD.as_secs()
        } else {
            90
        };
        let mut extra = String::new();
        if self.mentions("send hold time") {
            extra.push_str(&format!("send-hold-time = {}\n", SEND_HOLD.as_secs()));
        }
        if self.mentions("stale-path timer") {
            extra.push_str(&format!("stale-routes-time = {}\n", STALE_TIME.as_secs()));
        }
        if self.mentions("max-prefix 1000") {
            extra.push_str("prefixes-max = 1000\n");
        }
        if self.mentions("wrong MD5 key") {
            extra.push_str("password = \"right\"\n");
        }
        if !self.has_step("accept") {
            extra.push_str("passive = true\n");
        }
        format!(
            "[bgp]\nasn = {}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
             [[bgp.peers]]\nname = \"scripted\"\naddress = \"{}\"\nport = {PORT}\nremote-asn = {}\n\
             hold-time = {hold}\nconnect-retry-time = 1\n\
             import = \"all\"\nexport = \"all\"\n{extra}\n\
             [[bgp.peers]]\nname = \"witness\"\naddress = \"{}\"\nremote-asn = {WITNESS_AS}\n\
             hold-time = 3\npassive = true\nimport = \"all\"\nexport = \"all\"\n\n\
             [fib]\nenabled = false\n\n{}",
            self.local_as,
            margay.router_id(),
            peer.v4(),
            self.peer_as,
            witness.v4(),
            margay::control_section(margay)
        )
    }
}

/// A running scenario.
struct Run<'a> {
    sequence: &'a Sequence,
    margay_host: Host,
    peer_host: Host,
    daemon: Daemon,
    control: Control,
    peer: RawPeer,
    witness: RawPeer,
    /// BIRD, if the scenario needs the kernel's MD5 on the neighbour's side.
    signer: Option<Box<dyn crate::speaker::Speaker>>,
    /// The connection to which steps without a number refer.
    current: u64,
    /// Number of connections so far for numbers 1 and 2 of the steps: ids are not reused.
    generation: [u64; 3],
    /// Number of queued sends, for [`RawPeer::wait_sent`].
    queued: usize,
    /// margay's resident memory before the first step, in KiB.
    memory_before: u64,
}

/// Runs one scenario to its end.
///
/// # Errors
/// The step that failed, and why.
pub fn run(lab: &mut Lab, sequence: &Sequence) -> Result<()> {
    let (margay_host, peer_host) = (lab.host("a")?, lab.host("b")?);
    let witness_host = lab.host("w")?;
    // The next hop of the recorded routes, 192.0.2.1, is on the neighbour's link.
    margay_host.run("ip", &["addr", "add", "192.0.2.254/24", "dev", "eth0"])?;
    let text = sequence.config(&margay_host, &peer_host, &witness_host);
    let (daemon, control) = margay::start_text(&margay_host, &text)?;
    let peer = RawPeer::start(&peer_host)?;
    let mut witness = RawPeer::start(&witness_host)?;
    let open = message::open(WITNESS_AS, 3, witness_host.router_id(), &[])?;
    witness.establish(WITNESS, margay_host.v4(), PORT, &open)?;
    witness.send(WITNESS, &message::end_of_rib()?)?;
    wait_until(SOON, "the witness's session", || {
        let peer = control.peer(witness_host.v4())?;
        ensure!(peer["state"] == "Established", "state {}", peer["state"]);
        Ok(())
    })?;
    let mut run = Run {
        sequence,
        memory_before: resident_kib(&daemon)?,
        margay_host,
        peer_host,
        daemon,
        control,
        peer,
        witness,
        signer: None,
        current: 1,
        generation: [0; 3],
        queued: 0,
    };
    for (index, step) in sequence.steps.iter().enumerate() {
        run.step(index).with_context(|| format!("step {index}: {:.100}", step.to_string()))?;
    }
    run.finish(&witness_host)
}

/// 255 octets in characters of one and of two octets.
fn farewell() -> String {
    format!("x{}", "é".repeat(127))
}

/// Resident memory of a process in KiB.
fn resident_kib(daemon: &Daemon) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// Processor time of a process since its start, in hundredths of a second.
fn cpu_ticks(daemon: &Daemon) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))?;
    let (_, rest) = stat.rsplit_once(')').context("stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |i: usize| -> Result<u64> { Ok(fields.get(i).context("short stat")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

impl Run<'_> {
    /// Carries out one step. Every key of the file is handled here; another is an error.
    fn step(&mut self, index: usize) -> Result<()> {
        let step = &self.sequence.steps[index];
        let object = step.as_object().context("a step is an object")?;
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let number = |key: &str| object.get(key).and_then(Value::as_u64);
        if let Some(n) = number("connect") {
            self.connect(n)
        } else if text("connect") == Some("with wrong MD5 key") {
            self.connect_with_wrong_key()
        } else if text("accept") == Some("RST") {
            self.peer.listen(DIALLED, PORT, Answer::Reset)
        } else if number("accept").is_some() {
            self.peer.listen(DIALLED, PORT, Answer::Accept)?;
            self.peer.wait_accepted(DIALLED, SOON)
        } else if let Some(hex) = text("send_slow") {
            let pause = match object.get("ms_per_byte") {
                Some(Value::Number(n)) => Duration::from_millis(n.as_u64().context("ms_per_byte")?),
                Some(Value::String(s)) if s == "hold/10" => SHORT_HOLD / 10,
                other => bail!("ms_per_byte {other:?}"),
            };
            self.queued += 1;
            self.peer.send_slowly(self.current, &from_hex(hex)?, pause)
        } else if let Some(what) = text("send") {
            self.send(self.current, what)
        } else if let Some(what) = text("send_on_2") {
            let bytes = self.adapt_open(from_hex(what)?)?;
            self.peer.send(self.id_of(2)?, &bytes)
        } else if let Some(what) = text("send_on_both") {
            self.send_on_both(what)
        } else if number("close").is_some() {
            self.peer.close(self.current)
        } else if text("stall") == Some("stop reading, window 0") {
            self.peer.keep_alive(self.current, Duration::from_millis(500))?;
            self.peer.stall(self.current)
        } else if text("inject") == Some("100k routes") {
            self.inject_many_routes()
        } else if let Some(what) = text("wait") {
            self.wait(what)
        } else if let Some(what) = text("note") {
            self.note(what)
        } else if let Some(what) = text("admin") {
            self.admin(what)
        } else if let Some(what) = text("expect") {
            self.expect(what)
        } else {
            bail!("the interpreter does not know this step")
        }
    }

    /// The id of the newest connection for a step number.
    fn id_of(&self, number: u64) -> Result<u64> {
        let index = usize::try_from(number)?;
        let generation = self.generation.get(index).context("connections are 1 and 2")?;
        Ok(number + 10 * (generation.saturating_sub(1)))
    }

    fn connect(&mut self, number: u64) -> Result<()> {
        let index = usize::try_from(number)?;
        *self.generation.get_mut(index).context("connections are 1 and 2")? += 1;
        let id = self.id_of(number)?;
        self.peer.connect(id, self.margay_host.v4(), PORT)?;
        if number == 1 {
            self.current = id;
            self.queued = 0;
        }
        Ok(())
    }

    fn connect_with_wrong_key(&mut self) -> Result<()> {
        let (local, remote) = (self.peer_host.v4(), self.margay_host.v4());
        let mut neighbor = crate::matrix::neighbor(remote, local, self.sequence.local_as);
        neighbor.port = PORT;
        neighbor.password = Some("wrong".to_owned());
        let config = crate::speaker::Config {
            asn: self.sequence.peer_as,
            router_id: self.peer_host.router_id(),
            port: PORT,
            neighbors: vec![neighbor],
            origins: Vec::new(),
        };
        self.signer = Some(Kind::Bird2.start(&self.peer_host, &config)?);
        Ok(())
    }

    /// Adds the capability to the OPEN of a scenario whose note mentions graceful restart.
    fn adapt_open(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let is_open = bytes.get(18) == Some(&message::OPEN);
        if !is_open || !self.sequence.has_graceful_restart() {
            return Ok(bytes);
        }
        let start = match self.generation.iter().sum::<u64>() {
            0 | 1 => Start::First,
            _ => Start::Again,
        };
        let capability = message::graceful_restart(RESTART_TIME, start);
        message::open(self.sequence.peer_as, 90, Ipv4Addr::new(10, 0, 0, 1), &[capability])
    }

    fn send(&mut self, id: u64, what: &str) -> Result<()> {
        self.queued += 1;
        match what {
            "1001 distinct /32 with max-prefix 1000" => self.announce_prefixes(id, 1001),
            "same 900 prefixes announced 100 times, max-prefix 1000" => {
                self.queued -= 1;
                for _ in 0..100 {
                    self.queued += 1;
                    self.announce_prefixes(id, 900)?;
                }
                Ok(())
            }
            "1e6 withdrawals of unknown prefixes" => {
                for block in 0..1250_u32 {
                    let prefixes: Vec<Vec<u8>> = (0..800_u32)
                        .map(|i| message::nlri(Ipv4Addr::from((block * 800 + i) << 8), 24))
                        .collect();
                    self.peer.send(id, &message::withdrawal(&prefixes)?)?;
                }
                self.queued += 1249;
                Ok(())
            }
            "1e6 KEEPALIVE" => self.peer.send_often(id, &KEEPALIVE, 1_000_000),
            hex => {
                let bytes = self.adapt_open(from_hex(hex)?)?;
                self.peer.send(id, &bytes)
            }
        }
    }

    /// Announces `count` distinct /32 of 203.0.112.0/20, 200 per message, in one send.
    fn announce_prefixes(&mut self, id: u64, count: u32) -> Result<()> {
        let first = u32::from(Ipv4Addr::new(203, 0, 112, 0));
        let prefixes: Vec<Vec<u8>> =
            (0..count).map(|i| message::nlri(Ipv4Addr::from(first + i), 32)).collect();
        let mut bytes = Vec::new();
        for part in prefixes.chunks(200) {
            let next_hop = self.peer_host.router_id();
            bytes.extend(message::announcement(self.sequence.peer_as, next_hop, &[], part)?);
        }
        self.peer.send(id, &bytes)
    }

    /// Announces 100,000 routes from the witness with a different community for every five, so that
    /// margay has to advertise far more than socket buffers hold.
    fn inject_many_routes(&mut self) -> Result<()> {
        let next_hop = Ipv4Addr::new(10, 99, 0, 3);
        let first = u32::from(Ipv4Addr::new(20, 0, 0, 0));
        let mut bytes = Vec::new();
        for set in 0..20_000_u32 {
            let prefixes: Vec<Vec<u8>> = (0..5)
                .map(|i| message::nlri(Ipv4Addr::from(first + ((set * 5 + i) << 8)), 24))
                .collect();
            let communities: Vec<u32> = (0..40).map(|i| (set << 8) + i + 0x0001_0000).collect();
            bytes.extend(message::announcement(WITNESS_AS, next_hop, &communities, &prefixes)?);
            if bytes.len() > 256 * 1024 {
                self.witness.send(WITNESS, &bytes)?;
                bytes.clear();
            }
        }
        self.witness.send(WITNESS, &bytes)
    }

    fn wait(&mut self, what: &str) -> Result<()> {
        // The next expectation waits for the event itself; this only waits for a time in which it
        // must not happen.
        match what {
            "hold time" => std::thread::sleep(SHORT_HOLD / 2),
            "send hold time" => std::thread::sleep(SEND_HOLD / 2),
            "stale-path timer" => self.restart_without_end_of_rib()?,
            other => bail!("the interpreter cannot wait for {other:?}"),
        }
        Ok(())
    }

    fn note(&mut self, what: &str) -> Result<()> {
        match what {
            "both announced GR" | "GR, restarting peer never sends EoR" => {
                self.announce_canary()?;
                let end = message::end_of_rib()?;
                self.peer.send(self.current, &end)
            }
            other => bail!("the interpreter does not know the note {other:?}"),
        }
    }

    /// Announces a route of the scripted neighbour, to observe what happens to its routes.
    fn announce_canary(&mut self) -> Result<()> {
        let prefix = message::nlri(Ipv4Addr::new(198, 18, 1, 0), 24);
        let next_hop = self.peer_host.router_id();
        let bytes = message::announcement(self.sequence.peer_as, next_hop, &[], &[prefix])?;
        self.peer.send(self.current, &bytes)?;
        self.wait_route(CANARY)
    }

    /// The neighbour disconnects without a NOTIFICATION, its routes become stale, and it returns
    /// but never sends End-of-RIB.
    fn restart_without_end_of_rib(&mut self) -> Result<()> {
        self.peer.close(self.current)?;
        self.wait_stale(CANARY)?;
        self.connect(1)?;
        let open = self.adapt_open(message::open(
            self.sequence.peer_as,
            90,
            Ipv4Addr::new(10, 0, 0, 1),
            &[],
        )?)?;
        self.peer.send(self.current, &open)?;
        self.peer.send(self.current, &KEEPALIVE)?;
        self.wait_state("Established")?;
        self.wait_stale(CANARY)
    }

    fn admin(&mut self, what: &str) -> Result<()> {
        match what {
            "shutdown with 255-byte UTF-8 message" => {
                self.control.text(&["stop", "--shutdown", "--message", &farewell()]).map(drop)
            }
            other => bail!("the interpreter does not know the action {other:?}"),
        }
    }

    fn send_on_both(&mut self, what: &str) -> Result<()> {
        ensure!(what == "OPEN with our own BGP Identifier, different AS", "unknown: {what}");
        let id = self.margay_host.router_id();
        let open = message::open(self.sequence.peer_as, 90, id, &[])?;
        self.peer.send(self.current, &open)?;
        self.peer.send(DIALLED, &open)
    }

    fn scripted(&self) -> Result<Value> {
        self.control.peer(self.peer_host.v4())
    }

    fn wait_state(&self, wanted: &str) -> Result<()> {
        wait_until(SOON, &format!("state {wanted}"), || {
            let peer = self.scripted()?;
            ensure!(peer["state"] == wanted, "{} {}", peer["state"], peer["last_error"]);
            Ok(())
        })
    }

    fn wait_route(&self, prefix: &str) -> Result<()> {
        wait_until(SOON, &format!("a path for {prefix}"), || {
            ensure!(!self.control.paths(prefix)?.is_empty(), "none");
            Ok(())
        })
    }

    fn wait_stale(&self, prefix: &str) -> Result<()> {
        wait_until(SOON, &format!("a stale path for {prefix}"), || {
            let paths = self.control.paths(prefix)?;
            ensure!(paths.iter().any(|p| p["stale"] == true), "paths {paths:?}");
            Ok(())
        })
    }

    /// Sends a route after everything else and waits for it, so that everything before it is
    /// processed.
    fn barrier(&mut self) -> Result<()> {
        self.peer.wait_sent(self.current, self.queued, Duration::from_secs(60))?;
        let prefix = message::nlri(Ipv4Addr::new(198, 18, 2, 0), 24);
        let next_hop = self.peer_host.router_id();
        let bytes = message::announcement(self.sequence.peer_as, next_hop, &[], &[prefix])?;
        self.peer.send(self.current, &bytes)?;
        self.queued += 1;
        wait_until(Duration::from_secs(60), "the route behind the flood", || {
            ensure!(!self.control.paths("198.18.2.0/24")?.is_empty(), "not yet");
            Ok(())
        })
    }

    /// Checks what must hold after every scenario: the same process, and the witness undisturbed
    /// and served.
    fn finish(mut self, witness_host: &Host) -> Result<()> {
        if self.sequence.has_step("admin") {
            let status = self.daemon.wait(SOON)?;
            ensure!(status.success(), "margay ended with {status}");
            return Ok(());
        }
        ensure!(self.daemon.exited()?.is_none(), "margay has exited");
        let output = self.daemon.output();
        ensure!(!output.contains("panicked"), "a task panicked");
        let address: IpAddr = witness_host.v4();
        let peer = self.control.peer(address)?;
        ensure!(
            peer["state"] == "Established" && self.witness.closed(WITNESS).is_none(),
            "the witness's session was disturbed: {peer}"
        );
        let prefix = message::nlri(Ipv4Addr::new(198, 18, 0, 0), 24);
        let bytes = message::announcement(WITNESS_AS, witness_host.router_id(), &[], &[prefix])?;
        self.witness.send(WITNESS, &bytes)?;
        self.wait_route(WITNESS_PREFIX)
    }
}
