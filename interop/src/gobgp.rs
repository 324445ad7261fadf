//! `GoBGP`: gobgpd without zebra, queried over its gRPC socket.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::speaker::{Config, Family, Neighbor, Origin, Path, Speaker};
use crate::wait::{PATIENCE, wait_until};

/// A running gobgpd.
#[derive(Debug)]
pub struct Gobgp {
    host: Host,
    config: Config,
    daemon: Daemon,
    target: String,
}

/// `session_state` of an established session.
const ESTABLISHED: u64 = 6;

impl Gobgp {
    /// Starts gobgpd and adds the routes over its API.
    ///
    /// # Errors
    /// When it refuses the configuration or cannot be started.
    pub fn start(host: &Host, config: &Config) -> Result<Self> {
        Self::start_text(host, config, &render(config))
    }

    /// As [`Gobgp::start`], with the configuration in text form; `config` says who the neighbours are.
    ///
    /// # Errors
    /// As [`Gobgp::start`].
    pub fn start_text(host: &Host, config: &Config, text: &str) -> Result<Self> {
        let conf = host.write("gobgpd.toml", text)?.to_string_lossy().into_owned();
        host.run("gobgpd", &["-d", "-f", &conf])?;
        let target = format!("unix://{}", host.file("gobgp.sock").display());
        let daemon = launch(host, &target, &[])?;
        let gobgp = Self { host: host.clone(), config: config.clone(), daemon, target };
        gobgp.add_origins()?;
        Ok(gobgp)
    }

    /// Adds the configured routes as soon as the API answers.
    fn add_origins(&self) -> Result<()> {
        wait_until(PATIENCE, "gobgpd's API", || self.ask(&["global"]).map(drop))?;
        self.config.origins.iter().try_for_each(|origin| self.add(origin))
    }

    /// Runs the `gobgp` client.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        run_command(Command::new("gobgp").args(["--target", &self.target]).args(args))
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ask(&[args, &["-j"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{args:?}: {text}"))
    }

    fn add(&self, origin: &Origin) -> Result<()> {
        // gobgpd advertises the next hop of an injected route unchanged.
        let extended = self.config.neighbors.iter().any(|n| n.extended_next_hop);
        let (family, next_hop) = match origin.family() {
            Family::V4 if extended => ("ipv4", self.host.v6().to_string()),
            Family::V4 => ("ipv4", self.host.v4().to_string()),
            Family::V6 => ("ipv6", self.host.v6().to_string()),
        };
        let communities = origin.communities.join(",");
        let large = origin.large_communities.join(",");
        let mut args = vec!["global", "rib", "add", &origin.prefix, "origin", "igp"];
        args.extend(["nexthop", &next_hop]);
        if !communities.is_empty() {
            args.extend(["community", &communities]);
        }
        if !large.is_empty() {
            args.extend(["large-community", &large]);
        }
        args.extend(["-a", family]);
        self.ask(&args).map(drop)
    }
}

impl Speaker for Gobgp {
    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let answer = self.json(&["neighbor", &neighbor.to_string()])?;
        let state = answer["state"]["session_state"].as_u64().unwrap_or(0);
        Ok(if state == ESTABLISHED { "Established".to_owned() } else { format!("{state}") })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Path>> {
        let family = if Family::of(prefix) == Family::V4 { "ipv4" } else { "ipv6" };
        let text = self.ask(&["global", "rib", prefix, "-a", family, "-j"])?;
        if !text.trim_start().starts_with('{') {
            // `Network not in table`
            return Ok(Vec::new());
        }
        let answer: Value = serde_json::from_str(&text)?;
        let Some(paths) = answer[prefix].as_array() else { return Ok(Vec::new()) };
        let from_neighbor = |path: &&Value| {
            // GoBGP 3's name, else GoBGP 4's.
            let peer = path["neighbor-ip"].as_str().or(path["peer-address"].as_str());
            let peer = peer.unwrap_or_default();
            self.config.neighbors.iter().any(|n| n.address.to_string() == peer)
        };
        paths.iter().filter(from_neighbor).map(parse_path).collect()
    }

    fn announce(&mut self, origin: &Origin) -> Result<()> {
        self.add(origin)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        let family = if Family::of(prefix) == Family::V4 { "ipv4" } else { "ipv6" };
        self.ask(&["global", "rib", "del", prefix, "-a", family]).map(drop)
    }

    fn recover(&mut self) -> Result<()> {
        // A leftover socket makes it exit at once.
        std::fs::remove_file(self.host.file("gobgp.sock"))?;
        self.daemon = launch(&self.host, &self.target, &["-r"])?;
        self.add_origins()
    }

    fn updates_received(&self, neighbor: IpAddr) -> Result<u64> {
        let answer = self.json(&["neighbor", &neighbor.to_string()])?;
        let count = &answer["state"]["messages"]["received"]["update"];
        count.as_u64().with_context(|| format!("no counter in {}", answer["state"]))
    }

    fn request_refresh(&self, _neighbor: IpAddr) -> Result<()> {
        bail!("gobgpd keeps an Adj-RIB-In and never sends ROUTE-REFRESH")
    }
}

/// Starts gobgpd with the existing configuration.
fn launch(host: &Host, target: &str, more: &[&str]) -> Result<Daemon> {
    let conf = host.file("gobgpd.toml").to_string_lossy().into_owned();
    let api = format!("--api-hosts={target}");
    let args = [&["-f", &conf, "-p", "-l", "debug", "--pprof-disable", &api], more].concat();
    host.daemon("gobgpd", "gobgpd", &args)
}

fn parse_path(path: &Value) -> Result<Path> {
    let mut parsed = Path::default();
    for attribute in path["attrs"].as_array().context("a path without attrs")? {
        let list = |key: &str| attribute[key].as_array().cloned().unwrap_or_default();
        match attribute["type"].as_u64() {
            Some(2) => {
                for segment in list("as_paths") {
                    let asns = segment["asns"].as_array().cloned().unwrap_or_default();
                    for asn in &asns {
                        parsed.as_path.push(u32::try_from(asn.as_u64().context("asn")?)?);
                    }
                }
            }
            Some(3 | 14) => parsed.next_hop = attribute["nexthop"].as_str().map(str::to_owned),
            Some(8) => {
                for value in list("communities") {
                    let value = value.as_u64().context("community")?;
                    parsed.communities.push(format!("{}:{}", value >> 16, value & 0xffff));
                }
            }
            Some(32) => {
                for value in list("value") {
                    ensure!(value["ASN"].is_u64(), "large community {value}");
                    parsed.large_communities.push(format!(
                        "{}:{}:{}",
                        value["ASN"], value["LocalData1"], value["LocalData2"]
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(parsed)
}

fn render(config: &Config) -> String {
    let locals: Vec<String> = config.neighbors.iter().map(|n| format!("\"{}\"", n.local)).collect();
    let mut locals_once: Vec<String> = Vec::new();
    for local in locals {
        if !locals_once.contains(&local) {
            locals_once.push(local);
        }
    }
    let mut text = format!(
        "[global.config]\n  as = {}\n  router-id = \"{}\"\n  port = {}\n  local-address-list = [{}]\n",
        config.asn,
        config.router_id,
        config.port,
        locals_once.join(", ")
    );
    for neighbor in &config.neighbors {
        text.push_str(&render_neighbor(neighbor));
    }
    text
}

fn render_neighbor(n: &Neighbor) -> String {
    let mut text = format!(
        "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{}\"\n    peer-as = {}\n",
        n.address, n.asn
    );
    if let Some(password) = &n.password {
        let _ = writeln!(text, "    auth-password = \"{password}\"");
    }
    let _ = write!(
        text,
        "  [neighbors.timers.config]\n    connect-retry = 5\n    hold-time = {}\n    keepalive-interval = {}\n  \
         [neighbors.transport.config]\n    local-address = \"{}\"\n    remote-port = {}\n    passive-mode = {}\n",
        n.hold_time,
        (n.hold_time / 3).max(1),
        n.local,
        n.port,
        n.passive
    );
    if n.ttl_security {
        text.push_str("  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n");
    }
    if n.graceful_restart {
        let _ = write!(
            text,
            "  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = {}\n    \
             long-lived-enabled = {}\n",
            n.restart_time(),
            n.long_lived.is_some()
        );
    }
    if n.reflector_client {
        text.push_str("  [neighbors.route-reflector.config]\n    route-reflector-client = true\n");
    }
    for family in &n.families {
        let name = if *family == Family::V4 { "ipv4-unicast" } else { "ipv6-unicast" };
        let _ = write!(
            text,
            "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{name}\"\n"
        );
        if n.graceful_restart {
            text.push_str(
                "    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n",
            );
        }
        if let Some(time) = n.long_lived {
            let _ = write!(
                text,
                "    [neighbors.afi-safis.long-lived-graceful-restart.config]\n      enabled = true\n      \
                 restart-time = {time}\n"
            );
        }
        if n.add_path {
            text.push_str(
                "    [neighbors.afi-safis.add-paths.config]\n      receive = true\n      send-max = 8\n",
            );
        }
    }
    text
}
