//! ExaBGP: announces what it is told to, records what it receives, and makes no decisions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::Host;
use crate::speaker::{Config, Family, Neighbor, Origin, Path, Speaker};

/// A running ExaBGP with a shell script as its API process.
#[derive(Debug)]
pub struct Exabgp {
    host: Host,
    config: Config,
    daemon: Daemon,
    heard: PathBuf,
    commands: PathBuf,
}

impl Exabgp {
    /// Starts ExaBGP.
    ///
    /// # Errors
    /// When it refuses the configuration or cannot be started.
    pub fn start(host: &Host, config: &Config) -> Result<Self> {
        let heard = host.write("heard.json", "")?;
        let commands = host.write("commands.txt", "")?;
        // A background job has /dev/null as standard input, hence descriptor 3.
        let script = host.write(
            "api.sh",
            &format!(
                "#!/bin/sh\nexec 3<&0\ncat <&3 >> {} &\nexec tail -n +1 -f {}\n",
                heard.display(),
                commands.display()
            ),
        )?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let conf = host.write("exabgp.conf", &render(config, &script.to_string_lossy()))?;
        let conf = conf.to_string_lossy().into_owned();
        let listen = config.neighbors.iter().any(|n| n.passive).then_some(config.port);
        let env = |command: &mut std::process::Command| {
            command.env("exabgp.daemon.drop", "false");
            command.env("exabgp.api.cli", "false");
            command.env("exabgp.api.ack", "false");
            command.env("exabgp.log.destination", "stdout");
            if let Some(port) = listen {
                command.env("exabgp.tcp.port", port.to_string());
            }
        };
        let check = |arguments: &[&str]| {
            let mut command = host.command("exabgp");
            env(&mut command);
            crate::lab::run_command(command.args(arguments))
        };
        // ExaBGP 4's words, else ExaBGP 5's.
        check(&["--validate", &conf]).or_else(|_| check(&["validate", &conf]))?;
        let mut command = host.command("exabgp");
        env(&mut command);
        command.arg(&conf);
        let daemon = Daemon::start(command, &host.file("exabgp.log"))?;
        let exabgp = Self { host: host.clone(), config: config.clone(), daemon, heard, commands };
        for origin in &config.origins {
            exabgp.announce_with(origin, "")?;
        }
        Ok(exabgp)
    }

    /// Sends a command to ExaBGP's API.
    ///
    /// # Errors
    /// When the command file cannot be written.
    pub fn command(&self, text: &str) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.commands)?;
        writeln!(file, "{text}")?;
        Ok(())
    }

    /// Announces a route with further attributes in ExaBGP's syntax, for example
    /// `path-information 2`.
    ///
    /// # Errors
    /// When the command file cannot be written.
    pub fn announce_with(&self, origin: &Origin, more: &str) -> Result<()> {
        let mut attributes = String::new();
        if !origin.communities.is_empty() {
            let _ = write!(attributes, " community [ {} ]", origin.communities.join(" "));
        }
        if !origin.large_communities.is_empty() {
            let list = origin.large_communities.join(" ");
            let _ = write!(attributes, " large-community [ {list} ]");
        }
        for neighbor in self.neighbors_with(origin.family()) {
            self.command(&format!(
                "neighbor {} announce route {} next-hop {}{attributes} {more}",
                neighbor.address,
                origin.prefix,
                self.next_hop(neighbor, origin.family())
            ))?;
        }
        Ok(())
    }

    fn next_hop(&self, neighbor: &Neighbor, family: Family) -> IpAddr {
        let v6 = family == Family::V6 || neighbor.extended_next_hop;
        if v6 { self.host.v6() } else { self.host.v4() }
    }

    fn neighbors_with(&self, family: Family) -> impl Iterator<Item = &Neighbor> {
        self.config.neighbors.iter().filter(move |n| n.families.contains(&family))
    }

    /// Every line of JSON that ExaBGP has reported, in order.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.heard)?;
        // The last line may be incomplete.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

impl Speaker for Exabgp {
    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let wanted = neighbor.to_string();
        let events = self.events()?;
        let last = events
            .iter()
            .rfind(|e| e["type"] == "state" && e["neighbor"]["address"]["peer"] == wanted.as_str());
        Ok(match last.and_then(|e| e["neighbor"]["state"].as_str()) {
            Some("up") => "Established".to_owned(),
            other => other.unwrap_or("unknown").to_owned(),
        })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Path>> {
        // (peer, path id) → path; the paths of a session are removed when it ends.
        let mut held: BTreeMap<(String, String), Path> = BTreeMap::new();
        for event in self.events()? {
            let peer = event["neighbor"]["address"]["peer"].as_str().unwrap_or_default().to_owned();
            if event["type"] == "state" && event["neighbor"]["state"] != "up" {
                held.retain(|(p, _), _| *p != peer);
            }
            if event["type"] == "update" {
                replay(&event["neighbor"]["message"]["update"], &peer, prefix, &mut held)?;
            }
        }
        Ok(held.into_values().collect())
    }

    fn announce(&mut self, origin: &Origin) -> Result<()> {
        self.announce_with(origin, "")
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        for neighbor in self.neighbors_with(Family::of(prefix)) {
            self.command(&format!(
                "neighbor {} withdraw route {prefix} next-hop {}",
                neighbor.address,
                self.next_hop(neighbor, Family::of(prefix))
            ))?;
        }
        Ok(())
    }

    fn updates_received(&self, neighbor: IpAddr) -> Result<u64> {
        let peer = neighbor.to_string();
        let is_update =
            |e: &&Value| e["type"] == "update" && e["neighbor"]["address"]["peer"] == peer.as_str();
        Ok(self.events()?.iter().filter(is_update).count() as u64)
    }

    fn request_refresh(&self, neighbor: IpAddr) -> Result<()> {
        let n = self.config.neighbors.iter().find(|n| n.address == neighbor);
        for family in &n.context("no such neighbour")?.families {
            let name = if *family == Family::V4 { "ipv4" } else { "ipv6" };
            self.command(&format!("neighbor {neighbor} announce route-refresh {name} unicast"))?;
        }
        Ok(())
    }
}

/// Applies one reported UPDATE to the paths of `prefix`.
fn replay(
    update: &Value,
    peer: &str,
    prefix: &str,
    held: &mut BTreeMap<(String, String), Path>,
) -> Result<()> {
    let family = if Family::of(prefix) == Family::V4 { "ipv4 unicast" } else { "ipv6 unicast" };
    let id_of = |nlri: &Value| nlri["path-information"].as_str().unwrap_or_default().to_owned();
    for nlri in update["withdraw"][family].as_array().into_iter().flatten() {
        if nlri["nlri"] == prefix {
            held.remove(&(peer.to_owned(), id_of(nlri)));
        }
    }
    for (next_hop, list) in update["announce"][family].as_object().into_iter().flatten() {
        for nlri in list.as_array().into_iter().flatten() {
            // A next hop with a link-local part is reported twice, once for each address.
            let key = (peer.to_owned(), id_of(nlri));
            let is_second = next_hop.starts_with("fe80:") && held.contains_key(&key);
            if nlri["nlri"] == prefix && !is_second {
                let path = parse_path(&update["attribute"], next_hop)?;
                held.insert(key, path);
            }
        }
    }
    Ok(())
}

fn parse_path(attributes: &Value, next_hop: &str) -> Result<Path> {
    let joined = |key: &str| -> Vec<String> {
        let list = attributes[key].as_array().cloned().unwrap_or_default();
        let numbers = |c: &Value| c.as_array().cloned().unwrap_or_default();
        let text =
            |c: &Value| numbers(c).iter().map(Value::to_string).collect::<Vec<_>>().join(":");
        list.iter().map(text).collect()
    };
    // ExaBGP 4.2 prints a list, or an object of segments when there is more than one.
    let mut asns: Vec<Value> = attributes["as-path"].as_array().cloned().unwrap_or_default();
    for segment in attributes["as-path"].as_object().into_iter().flatten() {
        asns.extend(segment.1["value"].as_array().cloned().unwrap_or_default());
    }
    let asn = |v: &Value| -> Result<u32> { Ok(u32::try_from(v.as_u64().context("asn")?)?) };
    Ok(Path {
        next_hop: Some(next_hop.to_owned()),
        as_path: asns.iter().map(asn).collect::<Result<_>>()?,
        communities: joined("community"),
        large_communities: joined("large-community"),
    })
}

fn render(config: &Config, script: &str) -> String {
    let mut text = format!("process api {{ run {script}; encoder json; }}\n");
    for n in &config.neighbors {
        let _ = writeln!(
            text,
            "neighbor {} {{\n  router-id {}; local-address {}; local-as {}; peer-as {}; hold-time {};",
            n.address, config.router_id, n.local, config.asn, n.asn, n.hold_time
        );
        if n.passive {
            let _ = writeln!(text, "  passive true; listen {};", config.port);
        } else {
            let _ = writeln!(text, "  connect {};", n.port);
        }
        if let Some(password) = &n.password {
            let _ = writeln!(text, "  md5-password {password};");
        }
        if n.ttl_security {
            text.push_str("  outgoing-ttl 255; incoming-ttl 255;\n");
        }
        let add_path = if n.add_path { "add-path send/receive; " } else { "" };
        let next_hop = if n.extended_next_hop { "nexthop enable; " } else { "" };
        let restart = if n.graceful_restart { "graceful-restart 30; " } else { "" };
        let _ = writeln!(
            text,
            "  capability {{ asn4 enable; route-refresh enable; extended-message enable; {add_path}{next_hop}{restart}}}"
        );
        let families: String = n
            .families
            .iter()
            .map(|f| if *f == Family::V4 { "ipv4 unicast; " } else { "ipv6 unicast; " })
            .collect();
        let _ = writeln!(text, "  family {{ {families}}}");
        if n.extended_next_hop {
            text.push_str("  nexthop { ipv4 unicast ipv6; }\n");
        }
        text.push_str(
            "  api { processes [ api ]; receive { parsed; update; open; notification; } neighbor-changes; }\n}\n",
        );
    }
    text
}
