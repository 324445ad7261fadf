//! BIRD 1.6.8: one process per family, as on Calico's nodes.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::bird2::{
    bgp_state, birdc, common_options, export_filter, import_updates, routes_of, static_route,
};
use crate::daemon::Daemon;
use crate::lab::Host;
use crate::speaker::{Config, Family, Origin, Path, Speaker};
use crate::wait::{PATIENCE, wait_until};

/// The path of a BIRD 1.6 program. The package conflicts with BIRD 2, so it is only unpacked, into
/// `BIRD16_DIR` or the folder that `interop/setup.sh` uses.
#[must_use]
pub fn program(name: &str) -> String {
    let dir =
        std::env::var("BIRD16_DIR").unwrap_or_else(|_| "/opt/interop/bird16/usr/sbin".to_owned());
    format!("{dir}/{name}")
}

/// BIRD 1.6 for IPv4 with the attribute `krt_tunnel` of Calico's, which Debian's lacks: its source with
/// `interop/bird16/krt_tunnel.patch`.
///
/// # Errors
/// When it is not there: says what to do.
pub fn with_tunnels() -> Result<String> {
    let path = "/opt/interop/bird16/krt_tunnel/bird";
    std::fs::metadata(path)
        .with_context(|| format!("no {path}: run interop/setup.sh krt-tunnel"))?;
    Ok(path.to_owned())
}

/// One running process for each family that has a neighbour. A neighbour's family is that of its
/// address: 1.6 cannot carry both over one session.
#[derive(Debug)]
pub struct Bird16 {
    host: Host,
    config: Config,
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    family: Family,
    daemon: Daemon,
    socket: PathBuf,
}

impl Bird16 {
    /// Starts `bird` and `bird6` as needed.
    ///
    /// # Errors
    /// When one refuses its configuration or cannot be started.
    pub fn start(host: &Host, config: &Config) -> Result<Self> {
        let mut processes = Vec::new();
        for family in [Family::V4, Family::V6] {
            if config.neighbors.iter().all(|n| family_of(n.address) != family) {
                continue;
            }
            let (bin, tag) = if family == Family::V4 { ("bird", "4") } else { ("bird6", "6") };
            let socket = host.file(&format!("b{tag}.ctl"));
            let conf = host.write(&format!("b{tag}.conf"), &render(config, family))?;
            let conf = conf.to_string_lossy().into_owned();
            let ctl = socket.to_string_lossy().into_owned();
            let pid = host.file(&format!("b{tag}.pid")).to_string_lossy().into_owned();
            host.run(&program(bin), &["-p", "-c", &conf])?;
            let args = ["-f", "-c", &conf, "-s", &ctl, "-P", &pid];
            let daemon = host.daemon(&format!("b{tag}"), &program(bin), &args)?;
            wait_until(PATIENCE, "BIRD 1.6's control socket", || {
                birdc(&socket, "show status").map(drop)
            })?;
            processes.push(Process { family, daemon, socket });
        }
        Ok(Self { host: host.clone(), config: config.clone(), processes })
    }

    fn process(&self, family: Family) -> Result<&Process> {
        self.processes.iter().find(|p| p.family == family).context("no process for this family")
    }

    fn reconfigure(&mut self, config: Config) -> Result<()> {
        for process in &self.processes {
            let tag = if process.family == Family::V4 { "4" } else { "6" };
            self.host.write(&format!("b{tag}.conf"), &render(&config, process.family))?;
            let answer = birdc(&process.socket, "configure")?;
            ensure!(answer.contains("Reconfigur"), "configure: {answer}");
        }
        self.config = config;
        Ok(())
    }

    fn protocol(&self, neighbor: IpAddr) -> Result<String> {
        let index = self.config.neighbors.iter().position(|n| n.address == neighbor);
        index.map(|i| format!("n{i}")).with_context(|| format!("no neighbour {neighbor}"))
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

impl Speaker for Bird16 {
    fn daemon(&mut self) -> &mut Daemon {
        &mut self.processes[0].daemon
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let process = self.process(family_of(neighbor))?;
        let name = self.protocol(neighbor)?;
        bgp_state(&birdc(&process.socket, &format!("show protocols all {name}"))?)
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Path>> {
        let process = self.process(Family::of(prefix))?;
        routes_of(&process.socket, prefix)
    }

    fn announce(&mut self, origin: &Origin) -> Result<()> {
        let mut config = self.config.clone();
        config.origins.push(origin.clone());
        self.reconfigure(config)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        let mut config = self.config.clone();
        config.origins.retain(|o| o.prefix != prefix);
        self.reconfigure(config)
    }

    fn updates_received(&self, neighbor: IpAddr) -> Result<u64> {
        let process = self.process(family_of(neighbor))?;
        let name = self.protocol(neighbor)?;
        import_updates(&birdc(&process.socket, &format!("show protocols all {name}"))?)
    }

    fn request_refresh(&self, neighbor: IpAddr) -> Result<()> {
        let process = self.process(family_of(neighbor))?;
        let name = self.protocol(neighbor)?;
        let answer = birdc(&process.socket, &format!("reload in {name}"))?;
        ensure!(answer.contains("reloading"), "reload in: {answer}");
        Ok(())
    }
}

fn render(config: &Config, family: Family) -> String {
    let of_family = |n: &&crate::speaker::Neighbor| family_of(n.address) == family;
    let local = config.neighbors.iter().find(of_family).map(|n| n.local);
    let only = if family == Family::V6 { " v6only" } else { "" };
    let mut text = format!("log stderr all; router id {};\n", config.router_id);
    if let Some(local) = local {
        let _ = writeln!(text, "listen bgp address {local} port {}{only};", config.port);
    }
    text.push_str(
        "protocol device { scan time 5; }\nprotocol direct { }\n\
         protocol kernel { import none; export where source = RTS_BGP; }\nprotocol static {\n",
    );
    for origin in config.origins.iter().filter(|o| o.family() == family) {
        let _ = writeln!(text, "  {}", static_route(origin, "unreachable"));
    }
    text.push_str("}\n");
    for (index, n) in config.neighbors.iter().enumerate() {
        if family_of(n.address) != family {
            continue;
        }
        let add_path = if n.add_path { "add paths on;" } else { "" };
        let _ = writeln!(
            text,
            "protocol bgp n{index} {{\n  local as {}; source address {}; neighbor {} port {} as {};\n  {}\n  {add_path} import all; {}\n}}",
            config.asn,
            n.local,
            n.address,
            n.port,
            n.asn,
            common_options(n),
            export_filter(n, family)
        );
    }
    text
}
