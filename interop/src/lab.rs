//! A bridge and hosts, each in its own network namespace.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::daemon::Daemon;
use crate::require;
use crate::speaker::Kind;

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// Namespaces on one bridge, and a folder for configurations, logs and sockets.
///
/// Dropping it ends every process in the namespaces and removes both.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    hosts: Vec<Host>,
}

/// One namespace with `eth0` on the lab's bridge, `10.99.0.N/24` and `fd99::N/64`.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: String,
    index: u8,
    dir: PathBuf,
}

/// Runs a test in a fresh lab. When the test fails, the daemons' output is printed.
///
/// # Errors
/// What the test returned, or what the machine lacks for it ([`require::lab`]).
pub fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    require::lab(kinds).with_context(|| name.to_owned())?;
    let mut lab = Lab::new(name)?;
    let result = test(&mut lab);
    if result.is_err() {
        println!("{}", lab.logs());
    }
    result.with_context(|| name.to_owned())
}

/// As [`run`], for a test that uses margay's own interfaces and needs more programs.
///
/// # Errors
/// As [`run`], and when another speaker is the subject.
pub fn run_margay(
    name: &str,
    kinds: &[Kind],
    programs: &[&str],
    test: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    require::margay_as_subject()
        .and_then(|()| require::programs(programs))
        .context(name.to_owned())?;
    run(name, kinds, test)
}

/// Runs a program to completion and returns its output.
///
/// # Errors
/// When it cannot be started or exits with anything but 0; the text contains its standard error.
pub fn run_command(command: &mut Command) -> Result<String> {
    let output = output_of(command)?;
    if !output.status.success() {
        bail!(
            "{command:?} failed with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn output_of(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))
}

/// Runs ip(8); returns what it prints.
///
/// # Errors
/// When it cannot be started or fails.
pub fn ip(args: &[&str]) -> Result<String> {
    run_command(Command::new("ip").args(args))
}

impl Lab {
    /// Creates the bridge and the folder.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn new(name: &str) -> Result<Self> {
        SWEEP.call_once(sweep);
        let id = format!("mg{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Short, as the path of a Unix socket must stay under 108 bytes.
        let dir = std::env::temp_dir().join(format!("{id}-{}", &name[..name.len().min(30)]));
        fs::create_dir_all(&dir)?;
        let lab = Self { id, dir, hosts: Vec::new() };
        let bridge = lab.bridge();
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        Ok(lab)
    }

    fn bridge(&self) -> String {
        format!("{}-br", self.id)
    }

    /// Adds a host. The first has index 1.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        let index = u8::try_from(self.hosts.len() + 1).context("more than 255 hosts")?;
        let host = Host {
            name: name.to_owned(),
            namespace: format!("{}-{name}", self.id),
            index,
            dir: self.dir.clone(),
        };
        let ns = host.namespace.as_str();
        ip(&["netns", "add", ns])?;
        self.hosts.push(host.clone());
        // Without these settings an IPv6 session is established one to two seconds later.
        host.shell(
            "ip link set lo up; cd /proc/sys/net; echo 0 > ipv6/conf/default/accept_dad; \
             echo 0 > ipv6/conf/default/dad_transmits; echo 1 > ipv4/ip_forward; \
             echo 1 > ipv6/conf/all/forwarding",
        )?;
        let port = host.port();
        let (v4, v6) = (format!("{}/24", host.v4()), format!("{}/64", host.v6()));
        let bridge = self.bridge();
        ip(&["link", "add", "eth0", "netns", ns, "type", "veth", "peer", &port, "netns", &bridge])?;
        ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", ns, "addr", "add", &v4, "dev", "eth0"])?;
        ip(&["-n", ns, "addr", "add", &v6, "dev", "eth0", "nodad"])?;
        ip(&["-n", ns, "link", "set", "eth0", "up"])?;
        Ok(host)
    }

    /// One more interface of a host on the same network, without an address.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn link(&self, host: &Host, name: &str) -> Result<()> {
        let (ns, bridge) = (host.namespace.as_str(), self.bridge());
        let port = format!("{}-{name}", host.port());
        ip(&["link", "add", name, "netns", ns, "type", "veth", "peer", &port, "netns", &bridge])?;
        ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", ns, "link", "set", name, "up"]).map(drop)
    }

    /// A cable between two hosts: an interface on each, without an address but the link-local one.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn wire(&self, (a, a_name): (&Host, &str), (b, b_name): (&Host, &str)) -> Result<()> {
        let (a, b) = (a.namespace.as_str(), b.namespace.as_str());
        ip(&["link", "add", a_name, "netns", a, "type", "veth", "peer", b_name, "netns", b])?;
        ip(&["-n", a, "link", "set", a_name, "up"])?;
        ip(&["-n", b, "link", "set", b_name, "up"]).map(drop)
    }

    /// Cuts the host off: its bridge port goes down, while its own interface keeps its carrier,
    /// so that only timers can notice.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn cut(&self, host: &Host) -> Result<()> {
        ip(&["-n", &self.bridge(), "link", "set", &host.port(), "nomaster"]).map(drop)
    }

    /// Ends [`Lab::cut`].
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn mend(&self, host: &Host) -> Result<()> {
        ip(&["-n", &self.bridge(), "link", "set", &host.port(), "master", "br0"]).map(drop)
    }

    /// Unplugs the host: its interface loses the carrier.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn unplug(&self, host: &Host) -> Result<()> {
        ip(&["-n", &self.bridge(), "link", "set", &host.port(), "down"]).map(drop)
    }

    /// Ends [`Lab::unplug`].
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn plug(&self, host: &Host) -> Result<()> {
        ip(&["-n", &self.bridge(), "link", "set", &host.port(), "up"]).map(drop)
    }

    /// Has another CPU receive what the host sends, as if the link were a cable. Without this the
    /// sender's CPU passes each packet through the bridge and to its receiver's socket, in the
    /// system call that sent it, and that time is charged to the sender.
    ///
    /// # Errors
    /// When the machine has no such CPU or the kernel no receive packet steering.
    pub fn receive_on(&self, host: &Host, cpu: u32) -> Result<()> {
        let mask = 1_u64.checked_shl(cpu).context("CPU above 63")?;
        let queue = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", host.port());
        let set = format!("echo {mask:x} > {queue}");
        ip(&["netns", "exec", &self.bridge(), "sh", "-c", &set]).map(drop)
    }

    /// Limits the frames on the host's cable, whose own interface keeps its MTU: larger ones are lost
    /// without a word.
    ///
    /// # Errors
    /// When ip(8) refuses.
    pub fn set_mtu(&self, host: &Host, mtu: u32) -> Result<()> {
        let mtu = mtu.to_string();
        ip(&["-n", &self.bridge(), "link", "set", &host.port(), "mtu", &mtu]).map(drop)
    }

    /// The last lines of every log in the lab's folder.
    #[must_use]
    pub fn logs(&self) -> String {
        const LINES_MAX: usize = 60;
        let mut text = String::new();
        let mut paths: Vec<_> =
            fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            let wanted = path.extension().is_some_and(|e| e == "log" || e == "toml" || e == "conf");
            let Ok(bytes) = fs::read(&path) else { continue };
            let content = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = content.lines().collect();
            if wanted && !lines.is_empty() {
                let from = lines.len().saturating_sub(LINES_MAX);
                let _ = writeln!(text, "--- {}\n{}", path.display(), lines[from..].join("\n"));
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
        for host in &self.hosts {
            remove_namespace(&host.namespace);
        }
        remove_namespace(&self.bridge());
        if std::env::var_os("INTEROP_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Kills all processes in the namespace and removes it.
pub fn remove_namespace(name: &str) {
    if let Ok(pids) = ip(&["netns", "pids", name]) {
        for pid in pids.split_whitespace() {
            let _ = Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
        }
    }
    let _ = ip(&["netns", "del", name]);
}

/// Removes what a killed test process has left behind.
fn sweep() {
    for line in ip(&["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let owner = name.strip_prefix("mg").and_then(|rest| rest.split('-').next());
        let owner = owner.and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_namespace(name);
        }
    }
}

impl Host {
    /// The name that [`Lab::host`] was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The address in `10.99.0.0/24`.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        Ipv4Addr::new(10, 99, 0, self.index).into()
    }

    /// The address in `fd99::/64`.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, u16::from(self.index)).into()
    }

    /// A router id: the same number as [`Host::v4`].
    #[must_use]
    pub fn router_id(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.index)
    }

    fn port(&self) -> String {
        format!("p{}", self.index)
    }

    /// A file in the lab's folder whose name starts with this host's.
    #[must_use]
    pub fn file(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}-{suffix}", self.name))
    }

    /// Writes a file in the lab's folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, suffix: &str, content: &str) -> Result<PathBuf> {
        let path = self.file(suffix);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A command that runs in this namespace; the started process is the program itself.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command.env("LC_ALL", "C");
        command
    }

    /// Runs a program in this namespace to completion.
    ///
    /// # Errors
    /// As [`run_command`].
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        run_command(self.command(program).args(args))
    }

    /// Runs a shell script in this namespace to completion.
    ///
    /// # Errors
    /// As [`run_command`].
    pub fn shell(&self, script: &str) -> Result<String> {
        self.run("sh", &["-ec", script])
    }

    /// Starts a daemon in this namespace, with its log beside its configuration.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn daemon(&self, log: &str, program: &str, args: &[impl AsRef<OsStr>]) -> Result<Daemon> {
        let mut command = self.command(program);
        command.args(args);
        Daemon::start(command, &self.file(&format!("{log}.log")))
    }
}
