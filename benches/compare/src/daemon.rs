//! The daemons under test: how each is configured, as a route reflector for internal peers from an
//! address range, and started.
//!
//! Each gets its fastest reasonable configuration: no logging of routes, no delay before UPDATEs,
//! no kernel table except in the kernel scenario. Next hops are on a connected network.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::margay::{self, Links, Policy};
use crate::process::Daemon;
use crate::programs::Programs;

/// A daemon, or one of the floors that stand in for one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The daemon of this repository.
    Margay,
    /// BIRD 2.
    Bird2,
    /// BIRD 3, with a thread for each core.
    Bird3,
    /// FRR: bgpd alone, or zebra and bgpd where the kernel table is on.
    Frr,
    /// GoBGP.
    Gobgp,
    /// OpenBGPD.
    Openbgpd,
    /// Floor: copies UPDATEs without parsing them.
    Relay,
    /// Floor: discards UPDATEs.
    Null,
    /// Floor of the kernel scenario: writes routes to the kernel without BGP.
    Writer,
}

/// Whether learned routes are installed in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fib {
    /// BGP only.
    Off,
    /// Into the main table of the namespace.
    On,
    /// As [`Fib::On`]; routes of others in the kernel's table resolve next hops too.
    Followed,
}

/// Parameters of one run of a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// AS of the daemon and of all peers.
    pub(crate) asn: u32,
    /// Whether to install routes.
    pub(crate) fib: Fib,
    /// Directory of the run with configuration, sockets and logs.
    pub(crate) dir: PathBuf,
    /// Where the programs are.
    pub(crate) programs: Programs,
    /// Update groups of the clients; 1 unless the daemon is margay.
    pub(crate) groups: usize,
    /// What routes pass through; none unless the daemon is margay.
    pub(crate) policy: Policy,
    /// LOCAL_PREF that a policy gives all routes to the clients; none unless the daemon is margay.
    pub(crate) local_pref: Option<u32>,
}

/// The listening address of the daemon under test.
pub(crate) const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1790);
/// The address range of the clients.
pub(crate) const CLIENTS: &str = "10.0.0.0/9";
/// The connected network of next hops.
pub(crate) const HOPS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// The daemon's address on the second interface, `w0`, a /24.
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

impl Kind {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Margay => "margay",
            Self::Bird2 => "bird2",
            Self::Bird3 => "bird3",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Openbgpd => "openbgpd",
            Self::Relay => "relay",
            Self::Null => "null",
            Self::Writer => "writer",
        }
    }

    /// Writes the configuration and starts the processes, in starting order.
    ///
    /// # Errors
    /// A file cannot be written or a program cannot be started.
    pub(crate) fn start(self, setup: &Setup) -> anyhow::Result<Vec<Daemon>> {
        let dir = &setup.dir;
        let log = dir.join(format!("{}.log", self.name()));
        let config = dir.join(format!("{}.conf", self.name()));
        let is_plain =
            setup.groups <= 1 && setup.policy == Policy::None && setup.local_pref.is_none();
        if self != Self::Margay && !is_plain {
            bail!("policies and update groups are for margay: --daemons margay");
        }
        let command = match self {
            Self::Writer => bail!("the writer is a floor of the kernel scenario only"),
            Self::Relay | Self::Null => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["floor", self.name(), &LISTEN.to_string(), &setup.asn.to_string()]);
                command
            }
            Self::Margay => {
                write(&config, &margay::config(setup, LISTEN, &Links::default(), "margay"))?;
                let mut command = setup.programs.command(self, "")?;
                command.args(["run", "--config"]).arg(&config);
                command
            }
            Self::Bird2 | Self::Bird3 => {
                let threads = if self == Self::Bird3 { cores() } else { None };
                let threads = threads.map(|n| format!("threads {n};\n")).unwrap_or_default();
                write(&config, &(threads + &bird_config(setup)))?;
                let mut command = setup.programs.command(self, "")?;
                command.arg("-f").arg("-c").arg(&config).arg("-s").arg(dir.join("bird.ctl"));
                command
            }
            Self::Frr => return start_frr(setup, &log, &config),
            Self::Gobgp => {
                write(&config, &gobgp_config(setup))?;
                let mut command = setup.programs.command(self, "")?;
                command.arg("-f").arg(&config).args(["-l", "error", "--pprof-disable"]);
                command.arg(format!("--api-hosts=unix://{}", dir.join("gobgp.sock").display()));
                command
            }
            Self::Openbgpd => {
                // The home and chroot directory of its user, which the package creates through
                // systemd only.
                fs::create_dir_all("/run/openbgpd").context("create /run/openbgpd")?;
                write(&config, &openbgpd_config(setup))?;
                restrict(&config)?;
                let mut command = setup.programs.command(self, "")?;
                command.arg("-d").arg("-f").arg(&config);
                command
            }
        };
        Ok(vec![Daemon::start(command, &log)?])
    }
}

/// Writes the configuration that a SIGHUP makes the margay of [`Kind::start`] read.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn reconfigure_margay(setup: &Setup) -> anyhow::Result<()> {
    let config = setup.dir.join("margay.conf");
    write(&config, &margay::config(setup, LISTEN, &Links::default(), "margay"))
}

/// Starts one margay of a tree of reflectors.
///
/// # Errors
/// The configuration cannot be written or the program cannot be started.
pub(crate) fn start_margay(setup: &Setup, number: usize, links: &Links) -> anyhow::Result<Daemon> {
    let name = format!("margay-{number}");
    let config = setup.dir.join(format!("{name}.conf"));
    write(&config, &margay::config(setup, margay::listen(number), links, &name))?;
    let mut command = setup.programs.command(Kind::Margay, "")?;
    command.args(["run", "--config"]).arg(&config);
    Daemon::start(command, &setup.dir.join(format!("{name}.log")))
}

/// `None` if unknown.
fn cores() -> Option<usize> {
    std::thread::available_parallelism().ok().map(usize::from)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// OpenBGPD refuses a configuration that others may write.
fn restrict(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .context("restrict the configuration")
}

fn bird_config(setup: &Setup) -> String {
    let kernel = match setup.fib {
        Fib::Off => "",
        Fib::On => {
            "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; scan time 3600; }"
        }
        // With the default scan time: what was lost with a netlink message is repaired then.
        Fib::Followed => {
            "protocol kernel { learn; ipv4 { import all; export where source = RTS_BGP; }; }"
        }
    };
    format!(
        "log stderr {{ warning, error, fatal, bug }};
router id {address};
protocol device {{ scan time 3600; }}
protocol direct {{ ipv4; interface \"v0\", \"w0\"; }}
{kernel}
protocol bgp clients {{
  local {address} port {port} as {asn}; neighbor range {CLIENTS} as {asn}; dynamic name \"c\";
  multihop; rr client; rr cluster id {address}; hold time 90;
  ipv4 {{ import all; export where source = RTS_BGP; }};
}}
",
        address = LISTEN.ip(),
        port = LISTEN.port(),
        asn = setup.asn,
    )
}

fn start_frr(setup: &Setup, log: &Path, config: &Path) -> anyhow::Result<Vec<Daemon>> {
    let text = format!(
        "hostname frr
router bgp {asn}
 bgp router-id {address}
 bgp cluster-id {address}
 no bgp default ipv4-unicast
 no bgp network import-check
 coalesce-time 0
 neighbor C peer-group
 neighbor C remote-as internal
 neighbor C timers 30 90
 neighbor C advertisement-interval 0
 bgp listen limit 65535
 bgp listen range {CLIENTS} peer-group C
 address-family ipv4 unicast
  neighbor C activate
  neighbor C route-reflector-client
 exit-address-family
",
        address = LISTEN.ip(),
        asn = setup.asn,
    );
    write(config, &text)?;
    let run = setup.dir.join("frr");
    fs::create_dir_all(&run)?;
    let program = |name: &str| -> anyhow::Result<Command> {
        let mut command = setup.programs.command(Kind::Frr, name)?;
        command.arg("--vty_socket").arg(&run).args([
            "-P",
            "0",
            "--log",
            "stdout",
            "--log-level",
            "err",
        ]);
        command.arg("-i").arg(run.join(format!("{name}.pid")));
        Ok(command)
    };
    let mut bgpd = program("bgpd")?;
    bgpd.arg("-f").arg(config).args(["-p", &LISTEN.port().to_string()]);
    if setup.fib == Fib::Off {
        bgpd.args(["-Z", "-n", "-S", "-u", "root", "-g", "root"]);
        return Ok(vec![Daemon::start(bgpd, log)?]);
    }
    let zebra_config = setup.dir.join("zebra.conf");
    write(&zebra_config, "hostname frr\n")?;
    let api = run.join("zserv.api");
    let mut zebra = program("zebra")?;
    // The user of another root has another number.
    zebra.arg("-z").arg(&api).arg("-f").arg(&zebra_config).args(["-u", "root", "-g", "root"]);
    let zebra = Daemon::start(zebra, &setup.dir.join("zebra.log"))?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !api.exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    bgpd.arg("-z").arg(&api).args(["-u", "root", "-g", "root"]);
    Ok(vec![zebra, Daemon::start(bgpd, log)?])
}

fn gobgp_config(setup: &Setup) -> String {
    format!(
        r#"[global.config]
  as = {asn}
  router-id = "{address}"
  port = {port}
  local-address-list = ["{address}"]
[[peer-groups]]
  [peer-groups.config]
    peer-group-name = "c"
    peer-as = {asn}
  [peer-groups.timers.config]
    hold-time = 90
    keepalive-interval = 30
  [peer-groups.route-reflector.config]
    route-reflector-client = true
    route-reflector-cluster-id = "{address}"
  [[peer-groups.afi-safis]]
    [peer-groups.afi-safis.config]
      afi-safi-name = "ipv4-unicast"
[[dynamic-neighbors]]
  [dynamic-neighbors.config]
    prefix = "{CLIENTS}"
    peer-group = "c"
"#,
        address = LISTEN.ip(),
        port = LISTEN.port(),
        asn = setup.asn,
    )
}

fn openbgpd_config(setup: &Setup) -> String {
    format!(
        "AS {asn}
router-id {address}
socket \"{socket}\"
fib-update no
holdtime 90
listen on {address} port {port}
neighbor {CLIENTS} {{
  remote-as {asn}
  route-reflector {address}
  passive
}}
allow from any
allow to any
",
        address = LISTEN.ip(),
        port = LISTEN.port(),
        asn = setup.asn,
        socket = setup.dir.join("bgpd.sock").display(),
    )
}
