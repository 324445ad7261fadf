//! FRR: zebra and bgpd, so that IPv6 next hops with a link-local part and RFC 8950 work.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::speaker::{Config, Family, Neighbor, Origin, Path, Speaker};
use crate::wait::{PATIENCE, wait_until};

/// A running FRR.
#[derive(Debug)]
pub struct Frr {
    host: Host,
    config: Config,
    bgpd: Daemon,
    /// Kept for its `Drop`, after bgpd's.
    _zebra: Daemon,
    run_dir: PathBuf,
}

impl Frr {
    /// Starts zebra, then bgpd.
    ///
    /// # Errors
    /// When a daemon cannot be started or bgpd does not know a line of the configuration.
    pub fn start(host: &Host, config: &Config) -> Result<Self> {
        Self::start_text(host, config, &render(config))
    }

    /// As [`Frr::start`], with bgpd's configuration in text form; `config` says who its neighbours are.
    ///
    /// # Errors
    /// As [`Frr::start`].
    pub fn start_text(host: &Host, config: &Config, text: &str) -> Result<Self> {
        let run_dir = host.file("frr");
        fs::create_dir_all(&run_dir)?;
        let run = run_dir.to_string_lossy().into_owned();
        run_command(Command::new("chown").args(["frr:frrvty", &run]))?;
        host.write("zebra.conf", "hostname frr\n")?;
        let conf = host.write("bgpd.conf", text)?;
        // The dry run of FRR 8.4 exits with 0 whatever the file contains, and that of 10.7 is aborted by
        // an assertion after it has read a valid one.
        let mut check = host.command("/usr/lib/frr/bgpd");
        let check = check.args(["-C", "-f", &conf.to_string_lossy()]).output()?;
        let said = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
        ensure!(!said.contains("No such command"), "bgpd -C: {said}");

        let zebra = launch(host, "zebra", &[])?;
        wait_until(PATIENCE, "zebra's socket", || {
            ensure!(run_dir.join("zserv.api").exists(), "no zserv.api");
            Ok(())
        })?;
        let bgpd = launch(host, "bgpd", &["-p", &config.port.to_string()])?;
        let frr = Self { host: host.clone(), config: config.clone(), bgpd, _zebra: zebra, run_dir };
        wait_until(PATIENCE, "bgpd's socket", || frr.ask(&["show version"]).map(drop))?;
        Ok(frr)
    }

    /// Starts bfdd beside zebra. bgpd learns of it and asks it for the sessions of its neighbours.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_bfdd(&self, config: &str) -> Result<Daemon> {
        self.host.write("bfdd.conf", config)?;
        let control = self.run_dir.join("bfdd.sock");
        launch(&self.host, "bfdd", &["--bfdctl", &control.to_string_lossy()])
    }

    /// Runs commands in vtysh and returns what they print.
    ///
    /// # Errors
    /// When vtysh cannot reach the daemons.
    pub fn ask(&self, commands: &[&str]) -> Result<String> {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.run_dir);
        for command in commands {
            vtysh.args(["-c", command]);
        }
        run_command(&mut vtysh)
    }

    /// A `show … json` command.
    ///
    /// # Errors
    /// As [`Frr::ask`], and when the answer is not JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.ask(&[command])?;
        serde_json::from_str(&text).with_context(|| format!("{command}: {text}"))
    }

    /// `show bgp neighbors X json`.
    ///
    /// # Errors
    /// As [`Frr::json`].
    pub fn neighbor(&self, neighbor: IpAddr) -> Result<Value> {
        let all = self.json(&format!("show bgp neighbors {neighbor} json"))?;
        Ok(all[neighbor.to_string()].clone())
    }

    fn configure(&self, lines: &[String]) -> Result<()> {
        let mut commands = vec!["configure terminal"];
        commands.extend(lines.iter().map(String::as_str));
        let answer = self.ask(&commands)?;
        ensure!(!answer.contains('%'), "{commands:?}: {answer}");
        Ok(())
    }
}

impl Speaker for Frr {
    fn daemon(&mut self) -> &mut Daemon {
        &mut self.bgpd
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let state = self.neighbor(neighbor)?["bgpState"].as_str().map(str::to_owned);
        state.context("no bgpState")
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Path>> {
        let answer = self.json(&format!("show bgp {} {prefix} json", family_name(prefix)))?;
        let Some(paths) = answer["paths"].as_array() else { return Ok(Vec::new()) };
        let from_neighbor = |path: &&Value| {
            let peer = path["peer"]["peerId"].as_str().unwrap_or_default();
            self.config.neighbors.iter().any(|n| n.address.to_string() == peer)
        };
        paths.iter().filter(from_neighbor).map(parse_path).collect()
    }

    fn announce(&mut self, origin: &Origin) -> Result<()> {
        let mut lines = route_map(origin);
        lines.push(format!("router bgp {}", self.config.asn));
        lines.push(format!("address-family {}", family_name(&origin.prefix)));
        lines.push(network(origin));
        self.configure(&lines)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        self.configure(&[
            format!("router bgp {}", self.config.asn),
            format!("address-family {}", family_name(prefix)),
            format!("no network {prefix}"),
        ])
    }

    fn recover(&mut self) -> Result<()> {
        self.bgpd = launch(&self.host, "bgpd", &["-p", &self.config.port.to_string()])?;
        wait_until(PATIENCE, "bgpd's socket", || self.ask(&["show version"]).map(drop))
    }

    fn updates_received(&self, neighbor: IpAddr) -> Result<u64> {
        let count = self.neighbor(neighbor)?["messageStats"]["updatesRecv"].as_u64();
        count.context("no messageStats.updatesRecv")
    }

    fn request_refresh(&self, _neighbor: IpAddr) -> Result<()> {
        self.ask(&["clear bgp * soft in"]).map(drop)
    }
}

/// Starts one of FRR's daemons with the existing configuration.
fn launch(host: &Host, name: &str, more: &[&str]) -> Result<Daemon> {
    let run = host.file("frr").to_string_lossy().into_owned();
    let conf = host.file(&format!("{name}.conf")).to_string_lossy().into_owned();
    let (zserv, pid) = (format!("{run}/zserv.api"), format!("{run}/{name}.pid"));
    let common = ["-z", &zserv, "--vty_socket", &run, "-P", "0", "--log", "stdout"];
    let args = [&common[..], &["-f", &conf, "-i", &pid], more].concat();
    host.daemon(name, &format!("/usr/lib/frr/{name}"), &args)
}

fn family_name(prefix: &str) -> &'static str {
    if Family::of(prefix) == Family::V4 { "ipv4 unicast" } else { "ipv6 unicast" }
}

fn parse_path(path: &Value) -> Result<Path> {
    let words = |text: Option<&str>| -> Vec<String> {
        text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let as_path = path["aspath"]["string"].as_str().unwrap_or_default();
    let numbers = as_path.split_whitespace().filter(|w| *w != "Local").map(str::parse);
    Ok(Path {
        next_hop: path["nexthops"][0]["ip"].as_str().map(str::to_owned),
        as_path: numbers.collect::<Result<_, _>>().with_context(|| as_path.to_owned())?,
        communities: words(path["community"]["string"].as_str()),
        large_communities: words(path["largeCommunity"]["string"].as_str()),
    })
}

fn map_name(prefix: &str) -> String {
    prefix.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn route_map(origin: &Origin) -> Vec<String> {
    let mut lines = vec![format!("route-map {} permit 10", map_name(&origin.prefix))];
    if !origin.communities.is_empty() {
        lines.push(format!("set community {}", origin.communities.join(" ")));
    }
    if !origin.large_communities.is_empty() {
        lines.push(format!("set large-community {}", origin.large_communities.join(" ")));
    }
    lines.push("exit".to_owned());
    lines
}

fn network(origin: &Origin) -> String {
    format!("network {} route-map {}", origin.prefix, map_name(&origin.prefix))
}

fn neighbor_lines(n: &Neighbor) -> Vec<String> {
    let mut lines = vec![
        format!("remote-as {}", n.asn),
        format!("port {}", n.port),
        format!("update-source {}", n.local),
        format!("timers {} {}", (n.hold_time / 3).max(1), n.hold_time),
        "timers connect 1".to_owned(),
        "advertisement-interval 0".to_owned(),
    ];
    if let Some(password) = &n.password {
        lines.push(format!("password {password}"));
    }
    for (wanted, line) in [
        (n.ttl_security, "ttl-security hops 1"),
        (n.passive, "passive"),
        (n.extended_next_hop, "capability extended-nexthop"),
    ] {
        if wanted {
            lines.push(line.to_owned());
        }
    }
    lines.into_iter().map(|line| format!(" neighbor {} {line}", n.address)).collect()
}

fn render(config: &Config) -> String {
    let mut text = String::from("hostname frr\n");
    for origin in &config.origins {
        let _ = writeln!(text, "{}", route_map(origin).join("\n"));
    }
    let _ = writeln!(
        text,
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n coalesce-time 0",
        config.asn, config.router_id
    );
    if let Some(n) = config.neighbors.iter().find(|n| n.graceful_restart) {
        let time = n.restart_time();
        let _ = writeln!(
            text,
            " bgp graceful-restart\n bgp graceful-restart restart-time {time}\n \
             bgp graceful-restart preserve-fw-state"
        );
        if let Some(time) = n.long_lived {
            let _ = writeln!(text, " bgp long-lived-graceful-restart stale-time {time}");
        }
    } else {
        text.push_str(" bgp graceful-restart-disable\n");
    }
    for neighbor in &config.neighbors {
        let _ = writeln!(text, "{}", neighbor_lines(neighbor).join("\n"));
    }
    for (family, name) in [(Family::V4, "ipv4 unicast"), (Family::V6, "ipv6 unicast")] {
        let _ = writeln!(text, " address-family {name}");
        for origin in config.origins.iter().filter(|o| o.family() == family) {
            let _ = writeln!(text, "  {}", network(origin));
        }
        for n in config.neighbors.iter().filter(|n| n.families.contains(&family)) {
            let _ = writeln!(text, "  neighbor {} activate", n.address);
            if n.add_path {
                let _ = writeln!(text, "  neighbor {} addpath-tx-all-paths", n.address);
            }
            if n.reflector_client {
                let _ = writeln!(text, "  neighbor {} route-reflector-client", n.address);
            }
        }
        text.push_str(" exit-address-family\n");
    }
    text
}
