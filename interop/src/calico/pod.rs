//! Pods as Calico's network plugin and Felix create them, and traffic between them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::wait::{PATIENCE, wait_until};

/// The hardware address of every `cali*` interface.
const GATEWAY_MAC: &str = "ee:ee:ee:ee:ee:ee";

/// A network namespace behind a `cali*` interface of a node, with Felix's protocol 80 route to it.
#[derive(Debug)]
pub struct Pod {
    node: Host,
    namespace: String,
    address: String,
}

impl Pod {
    /// Creates a pod with this address on the node.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn start(node: &Host, name: &str, address: &str) -> Result<Self> {
        let pod = Self::prepare(node, name, address)?;
        node.shell(&format!(
            "ip route add {address}/32 dev cali{name} scope link proto 80 metric 1024"
        ))?;
        Ok(pod)
    }

    /// As [`Pod::start`], without a route to it.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn prepare(node: &Host, name: &str, address: &str) -> Result<Self> {
        let namespace = format!("{}-{name}", node.namespace());
        run_command(Command::new("ip").args(["netns", "add", &namespace]))?;
        let pod = Self { node: node.clone(), namespace, address: address.to_owned() };
        let ns = pod.namespace.as_str();
        let interface = format!("cali{name}");
        // The kernel removes the interface of an earlier pod some time after its namespace was
        // deleted.
        wait_until(PATIENCE, &format!("the name {interface}"), || {
            node.shell(&format!("ip link add {interface} type veth peer name eth0 netns {ns}"))
        })?;
        node.shell(&format!("ip link set {interface} address {GATEWAY_MAC} up"))?;
        for line in [
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("addr add {address}/32 dev eth0"),
            "route add 169.254.1.1 dev eth0".to_owned(),
            // Proxy ARP would need a default route on the node, which the lab does not have.
            format!("neigh add 169.254.1.1 dev eth0 lladdr {GATEWAY_MAC}"),
            "route add default via 169.254.1.1 dev eth0".to_owned(),
        ] {
            let mut command = Command::new("ip");
            command.args(["-n", ns]).args(line.split(' '));
            run_command(&mut command)?;
        }
        Ok(pod)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Starts a program in the pod.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn daemon(&self, log: &str, program: &str, args: &[&str]) -> Result<Daemon> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]).args(args);
        Daemon::start(command, &self.node.file(&format!("{log}.log")))
    }

    /// Starts the server that answers [`Packets`].
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn echo(&self) -> Result<Daemon> {
        ready(self.python(&format!("echo-{}", self.address()), ECHO, &[])?)
    }

    fn python(&self, log: &str, script: &str, args: &[&str]) -> Result<Daemon> {
        self.daemon(log, "python3", &[&["-u", "-c", script], args].concat())
    }
}

/// Waits until a server is ready.
fn ready(server: Daemon) -> Result<Daemon> {
    wait_until(PATIENCE, "the server", || {
        ensure!(server.output().contains("ready"), "{}", server.output());
        Ok(())
    })?;
    Ok(server)
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Ok(pids) = run_command(Command::new("ip").args(["netns", "pids", &self.namespace])) {
            for pid in pids.split_whitespace() {
                let _ = Command::new("kill").args(["-KILL", pid]).status();
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

/// Sends back what it receives on TCP port 7777.
const SERVER: &str = "
import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('0.0.0.0', 7777)); s.listen()
print('ready')
while True:
    c, _ = s.accept()
    while True:
        d = c.recv(4096)
        if not d: break
        c.sendall(d)
";

/// Sends an octet every 20 ms over one connection, waits until it comes back, and prints the
/// longest wait so far. Any error ends it.
const CLIENT: &str = "
import socket, sys, time
source = (sys.argv[2], 0) if len(sys.argv) > 2 else None
c = socket.create_connection((sys.argv[1], 7777), 10, source)
c.settimeout(40)
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print('connected')
longest = 0.0
count = 0
while True:
    begin = time.monotonic()
    c.sendall(b'x')
    if c.recv(1) != b'x': raise SystemExit('closed')
    count += 1
    longest = max(longest, time.monotonic() - begin)
    print('count', count, 'longest', round(longest, 3))
    time.sleep(0.02)
";

/// Sends back what it receives on UDP port 7778.
const ECHO: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 7778))
print('ready')
while True:
    try:
        d, a = s.recvfrom(64)
        s.sendto(d, a)
    except OSError:
        pass
";

/// Sends a number every 5 ms until SIGINT, then prints how many did not come back, and when they
/// were sent.
const NUMBERS: &str = "
import select, signal, socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
open_, sent, begin, said = {}, 0, time.monotonic(), False
midnight = begin - time.time() % 86400
end = None
while True:
    now = time.monotonic()
    if stop and end is None: end = now + 1
    if end is not None and (now > end or not open_): break
    if end is None and now >= begin + sent * 0.005:
        try: s.sendto(str(sent).encode(), (sys.argv[1], 7778))
        except OSError: pass
        open_[sent] = now - begin
        sent += 1
    if select.select([s], [], [], 0.001)[0]:
        try:
            open_.pop(int(s.recv(64)), None)
            if sent > 10 and len(open_) < 5 and not said: print('flows'); said = True
        except OSError: pass
print('sent', sent, 'lost', len(open_), 'at', [round(t, 3) for t in list(open_.values())[:20]])
print('of the day', *[round(begin + t - midnight, 6) for t in open_.values()])
";

/// A packet every 5 ms from one pod to another, and their answers.
#[derive(Debug)]
pub struct Packets {
    _servers: Vec<Daemon>,
    client: Daemon,
}

impl Packets {
    /// Starts, and waits for the first answers.
    ///
    /// # Errors
    /// When the pods do not reach each other.
    pub fn start(from: &Pod, to: &Pod) -> Result<Self> {
        let server = to.echo()?;
        let log = format!("numbers-{}", from.address());
        let client = from.python(&log, NUMBERS, &[to.address()])?;
        Self::flowing(vec![server], client)
    }

    /// From a host to an address that is not a pod's, with a server on each host of `at`.
    ///
    /// # Errors
    /// As [`Packets::start`].
    pub fn between(from: &Host, address: &str, at: &[&Host]) -> Result<Self> {
        let servers = at.iter().map(|host| {
            let log = format!("echo-{address}");
            ready(host.daemon(&log, "python3", &["-u", "-c", ECHO])?)
        });
        let servers: Result<Vec<Daemon>> = servers.collect();
        let servers = servers?;
        let log = format!("numbers-{address}");
        let client = from.daemon(&log, "python3", &["-u", "-c", NUMBERS, address])?;
        Self::flowing(servers, client)
    }

    fn flowing(servers: Vec<Daemon>, client: Daemon) -> Result<Self> {
        let packets = Self { _servers: servers, client };
        wait_until(PATIENCE, "packets and their answers", || {
            let output = packets.client.output();
            ensure!(output.contains("flows"), "{output}");
            Ok(())
        })?;
        Ok(packets)
    }

    /// Stops sending, and returns how many packets were sent. The servers run until this is
    /// dropped, as others may send to them.
    ///
    /// # Errors
    /// When packets were lost.
    pub fn end(&mut self) -> Result<u32> {
        let (sent, lost) = self.losses()?;
        ensure!(lost.is_empty(), "packets were lost: {}", self.client.output());
        Ok(sent)
    }

    /// Stops sending; returns how many packets were sent, and when those without an answer were: in
    /// seconds of the day, in UTC.
    ///
    /// # Errors
    /// When the sender's report cannot be read.
    pub fn losses(&mut self) -> Result<(u32, Vec<f64>)> {
        self.client.signal("INT")?;
        self.client.wait(PATIENCE)?;
        let output = self.client.output();
        let line =
            output.lines().find_map(|line| line.strip_prefix("sent ")).context("no count")?;
        let sent = line.split(' ').next().context("no count")?.parse()?;
        let lost = output.lines().find_map(|line| line.strip_prefix("of the day"));
        let lost = lost.context("no times")?.split_whitespace().map(str::parse);
        Ok((sent, lost.collect::<Result<_, _>>()?))
    }
}

/// One TCP connection between two pods that is used without a pause.
#[derive(Debug)]
pub struct Stream {
    _server: Daemon,
    client: Daemon,
}

impl Stream {
    /// Connects, and waits until octets flow.
    ///
    /// # Errors
    /// When the pods do not reach each other.
    pub fn start(from: &Pod, to: &Pod) -> Result<Self> {
        let server = to.python("tcp-server", SERVER, &[])?;
        Self::connect(server, || from.python("tcp-client", CLIENT, &[to.address()]))
    }

    /// The same between two hosts, from and to these addresses of theirs.
    ///
    /// # Errors
    /// When they do not reach each other.
    pub fn between((from, source): (&Host, &str), (to, address): (&Host, &str)) -> Result<Self> {
        let server = to.daemon("tcp-server", "python3", &["-u", "-c", SERVER])?;
        let args = ["-u", "-c", CLIENT, address, source];
        Self::connect(server, || from.daemon("tcp-client", "python3", &args))
    }

    fn connect(server: Daemon, client: impl FnOnce() -> Result<Daemon>) -> Result<Self> {
        wait_until(PATIENCE, "the server", || {
            ensure!(server.output().contains("ready"), "{}", server.output());
            Ok(())
        })?;
        let stream = Self { _server: server, client: client()? };
        wait_until(PATIENCE, "TCP between pods", || {
            stream.echoes().and_then(|count| {
                ensure!(count > 5, "{count} echoes");
                Ok(())
            })
        })?;
        Ok(stream)
    }

    fn last(&self) -> Result<(u64, f64)> {
        let output = self.client.output();
        // The last line may be incomplete.
        let (whole, _) = output.rsplit_once('\n').context("no line")?;
        let words: Vec<&str> = whole.lines().last().context("no line")?.split(' ').collect();
        match words.as_slice() {
            ["count", count, "longest", longest] => Ok((count.parse()?, longest.parse()?)),
            _ => anyhow::bail!("the stream: {}", whole.lines().last().unwrap_or_default()),
        }
    }

    /// How many octets have come back.
    ///
    /// # Errors
    /// When the stream broke.
    pub fn echoes(&self) -> Result<u64> {
        Ok(self.last()?.0)
    }

    /// Fails unless the connection still works and has never stalled for longer than `limit`.
    ///
    /// # Errors
    /// When it broke or stalled.
    pub fn expect_flow(&mut self, limit: Duration) -> Result<()> {
        let before = self.echoes()?;
        wait_until(limit, "the stream to go on", || {
            ensure!(self.echoes()? > before + 5, "it stalls");
            Ok(())
        })?;
        ensure!(self.client.exited()?.is_none(), "it broke: {}", self.client.output());
        let (_, longest) = self.last()?;
        ensure!(longest < limit.as_secs_f64(), "it stalled for {longest} s");
        Ok(())
    }
}
