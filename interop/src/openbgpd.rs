//! OpenBGPD, portable.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::speaker::{Config, Family, Neighbor, Origin, Path, Speaker};
use crate::wait::{PATIENCE, wait_until};

/// A running OpenBGPD. With MD5 it must be the side that opens the connection, and GTSM works on
/// eBGP only.
#[derive(Debug)]
pub struct Openbgpd {
    config: Config,
    daemon: Daemon,
    socket: PathBuf,
}

impl Openbgpd {
    /// Starts bgpd.
    ///
    /// # Errors
    /// When it refuses the configuration or cannot be started.
    pub fn start(host: &Host, config: &Config) -> Result<Self> {
        // The home folder of its user is its chroot and must exist.
        std::fs::create_dir_all("/run/openbgpd")?;
        let socket = host.file("bgpd.sock");
        let conf = host.write("openbgpd.conf", &render(host, config, &socket))?;
        let conf = conf.to_string_lossy().into_owned();
        host.run("chmod", &["600", &conf])?;
        host.run("/usr/sbin/bgpd", &["-n", "-f", &conf])?;
        let daemon = host.daemon("openbgpd", "/usr/sbin/bgpd", &["-d", "-v", "-f", &conf])?;
        let bgpd = Self { config: config.clone(), daemon, socket };
        wait_until(PATIENCE, "bgpd's socket", || bgpd.ask(&["show"]).map(drop))?;
        Ok(bgpd)
    }

    /// Runs bgpctl.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        run_command(Command::new("bgpctl").arg("-s").arg(&self.socket).args(args))
    }

    /// Runs `bgpctl -j`.
    ///
    /// # Errors
    /// As [`Openbgpd::ask`], and when the answer is not JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ask(&[&["-j"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{args:?}: {text}"))
    }
}

impl Speaker for Openbgpd {
    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let answer = self.json(&["show", "neighbor", &neighbor.to_string()])?;
        let state = answer["neighbors"][0]["state"].as_str().map(str::to_owned);
        state.context("no state")
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Path>> {
        let answer = self.json(&["show", "rib", "detail", prefix])?;
        let Some(paths) = answer["rib"].as_array() else { return Ok(Vec::new()) };
        let from_neighbor = |path: &&Value| {
            let peer = path["neighbor"]["remote_addr"].as_str().unwrap_or_default();
            path["prefix"] == prefix
                && self.config.neighbors.iter().any(|n| n.address.to_string() == peer)
        };
        paths.iter().filter(from_neighbor).map(parse_path).collect()
    }

    fn announce(&mut self, origin: &Origin) -> Result<()> {
        let mut args = vec!["network", "add", &origin.prefix];
        for community in &origin.communities {
            args.extend(["community", community]);
        }
        for community in &origin.large_communities {
            args.extend(["large-community", community]);
        }
        self.ask(&args).map(drop)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        self.ask(&["network", "delete", prefix]).map(drop)
    }

    fn updates_received(&self, neighbor: IpAddr) -> Result<u64> {
        let answer = self.json(&["show", "neighbor", &neighbor.to_string()])?;
        let count = &answer["neighbors"][0]["stats"]["message"]["received"]["updates"];
        count.as_u64().with_context(|| format!("no counter in {answer}"))
    }

    fn request_refresh(&self, neighbor: IpAddr) -> Result<()> {
        let answer = self.ask(&["neighbor", &neighbor.to_string(), "refresh"])?;
        ensure!(answer.contains("processed"), "refresh: {answer}");
        Ok(())
    }
}

fn parse_path(path: &Value) -> Result<Path> {
    let list = |key: &str| -> Vec<String> {
        let values = path[key].as_array().cloned().unwrap_or_default();
        values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let as_path = path["aspath"].as_str().unwrap_or_default();
    let numbers = as_path.split_whitespace().map(str::parse);
    Ok(Path {
        next_hop: path["exit_nexthop"].as_str().map(str::to_owned),
        as_path: numbers.collect::<Result<_, _>>().with_context(|| as_path.to_owned())?,
        communities: list("communities"),
        large_communities: list("large_communities"),
    })
}

fn network(origin: &Origin) -> String {
    let mut set = String::new();
    for community in &origin.communities {
        let _ = write!(set, " community {community}");
    }
    for community in &origin.large_communities {
        let _ = write!(set, " large-community {community}");
    }
    if set.is_empty() {
        format!("network {}", origin.prefix)
    } else {
        format!("network {} set {{{set} }}", origin.prefix)
    }
}

fn neighbor_lines(n: &Neighbor) -> String {
    let mut lines = vec![
        format!("remote-as {}", n.asn),
        format!("local-address {}", n.local),
        format!("port {}", n.port),
        format!("holdtime {}", n.hold_time),
    ];
    for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        let kind = if n.families.contains(&family) { "unicast" } else { "none" };
        lines.push(format!("announce {name} {kind}"));
    }
    if let Some(password) = &n.password {
        lines.push(format!("tcp md5sig password {password}"));
    }
    for (wanted, line) in [
        (n.ttl_security, "ttl-security yes"),
        (n.passive, "passive"),
        (n.reflector_client, "route-reflector"),
        (n.add_path, "announce add-path recv yes"),
        (n.add_path, "announce add-path send all"),
    ] {
        if wanted {
            lines.push(line.to_owned());
        }
    }
    format!("neighbor {} {{\n  {}\n}}\n", n.address, lines.join("\n  "))
}

fn render(host: &Host, config: &Config, socket: &std::path::Path) -> String {
    let mut text = format!(
        "AS {}\nrouter-id {}\nsocket \"{}\"\nfib-update no\nconnect-retry 2\n",
        config.asn,
        config.router_id,
        socket.display()
    );
    let mut listening: Vec<IpAddr> = Vec::new();
    for neighbor in &config.neighbors {
        if !listening.contains(&neighbor.local) {
            listening.push(neighbor.local);
            let _ = writeln!(text, "listen on {} port {}", neighbor.local, config.port);
        }
    }
    for origin in &config.origins {
        let _ = writeln!(text, "{}", network(origin));
    }
    for neighbor in &config.neighbors {
        text.push_str(&neighbor_lines(neighbor));
    }
    text.push_str("allow from any\nallow to any\n");
    for n in config.neighbors.iter().filter(|n| n.families.contains(&Family::V6)) {
        if n.address.is_ipv4() {
            // By itself it picks ::1 as the next hop of IPv6 routes over an IPv4 session.
            let _ = writeln!(text, "match to {} inet6 set nexthop {}", n.address, host.v6());
        }
    }
    text
}
