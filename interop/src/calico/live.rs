//! Runs a scenario's node with BIRD 1.6.8 and then with margay, on one host with the same kernel
//! routes and the same neighbours, each of which is a BIRD of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Scenario;
use crate::bird2::birdc;
use crate::bird16::{program, with_tunnels};
use crate::daemon::Daemon;
use crate::doctor;
use crate::kernel::{self, KernelRoute};
use crate::lab::{Host, Lab};
use crate::margay;
use crate::speaker::Family;
use crate::wait::{PATIENCE, wait_until};

/// Most sessions of a family that get a neighbour; the others have none.
const NEIGHBORS_MAX: usize = 6;
/// Limit of a start-up: longer than the restart time of a Calico node.
const STARTUP_MAX: Duration = Duration::from_secs(150);
/// Interval between looks at an outcome, which counts when it has not changed.
const QUIET: Duration = Duration::from_secs(2);
/// The variable that names the folder where Felix writes the status of its endpoints.
const ENDPOINT_STATUS: &str = "CALICO_ENDPOINT_STATUS_PATH_PREFIX";
/// The interface of a pod.
const POD: &str = "cali1";
/// The interface that IPIP's routes to other nodes leave by.
const TUNNEL: &str = "tunl0";
/// The interface that Felix's routes to other nodes leave by.
const OVERLAY: &str = "vxlan.calico";

/// A session of the golden files.
#[derive(Debug, Clone)]
struct GoldenSession {
    name: String,
    neighbor: String,
    port: String,
    remote_as: String,
    local_as: String,
    password: Option<String>,
    ttl_security: Option<String>,
}

/// The sessions of a golden file, the first of each neighbour address, [`NEIGHBORS_MAX`] at most.
fn sessions(text: &str) -> Vec<GoldenSession> {
    let value = |line: &str, key: &str| {
        let rest = line.trim().strip_prefix(key)?;
        Some(rest.split(';').next()?.trim().to_owned())
    };
    let mut default_as = String::new();
    let mut found: Vec<GoldenSession> = Vec::new();
    let mut open: Option<GoldenSession> = None;
    let mut in_template = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("protocol bgp ") {
            let name = rest.split_whitespace().next().unwrap_or_default().to_owned();
            open = Some(GoldenSession {
                name,
                neighbor: String::new(),
                port: "179".to_owned(),
                remote_as: String::new(),
                local_as: default_as.clone(),
                password: None,
                ttl_security: None,
            });
        }
        in_template = in_template && line != "}" || line.starts_with("template bgp");
        if in_template && let Some(local_as) = value(line, "local as ") {
            default_as = local_as;
        }
        let Some(session) = &mut open else { continue };
        if let Some(rest) = value(line, "neighbor ") {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let after = |word: &str| {
                let at = words.iter().position(|w| *w == word)?;
                words.get(at + 1).map(|w| (*w).to_owned())
            };
            session.neighbor = words.first().copied().unwrap_or_default().to_owned();
            session.remote_as = after("as").unwrap_or_default();
            session.port = after("port").unwrap_or_else(|| "179".to_owned());
        } else if let Some(local_as) = value(line, "local as ") {
            session.local_as = local_as;
        } else if let Some(password) = value(line, "password ") {
            session.password = Some(password);
        } else if line.trim() == "ttl security on;" {
            session.ttl_security = Some(String::new());
        } else if let (Some(hops), Some(multihop)) =
            (&mut session.ttl_security, value(line, "multihop"))
        {
            *hops = multihop;
        }
        if line == "}"
            && let Some(session) = open.take()
            && !found.iter().any(|known| known.neighbor == session.neighbor)
        {
            found.push(session);
        }
    }
    found.truncate(NEIGHBORS_MAX);
    found
}

/// A neighbour that announces some routes and accepts all that it receives.
#[derive(Debug)]
struct Neighbor {
    session: GoldenSession,
    socket: PathBuf,
    _daemon: Daemon,
}

/// A scenario's node and its neighbours.
#[derive(Debug)]
pub struct Stage<'a> {
    scenario: &'a Scenario,
    host: Host,
    neighbors: Vec<(Family, Neighbor)>,
}

/// The outcome of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// By session: each route that the neighbour holds, with its attributes.
    pub told: BTreeMap<String, BTreeSet<String>>,
    /// The routes that were written into the kernel.
    pub kernel: BTreeSet<String>,
}

impl<'a> Stage<'a> {
    /// Creates the node and its neighbours. `None`: it has no neighbours.
    ///
    /// # Errors
    /// When a host cannot be made.
    pub fn set_up(lab: &mut Lab, scenario: &'a Scenario) -> Result<Option<Stage<'a>>> {
        let node = scenario.nodes.iter().find(|node| node.name == scenario.node);
        let node = node.context("no own Node")?.clone();
        let host = lab.host("node")?;
        let mut script = "ip addr flush dev eth0 scope global\n".to_owned();
        for network in &node.networks {
            let nodad = if Family::of(network) == Family::V6 { " nodad" } else { "" };
            let _ = writeln!(script, "ip addr add {network} dev eth0{nodad}");
        }
        // Any kind of link will do for a pod's interface and for a tunnel: only the name counts.
        for interface in [POD, TUNNEL] {
            let _ = writeln!(script, "ip link add {interface} type bridge");
            let _ = writeln!(script, "ip link set {interface} up");
        }
        host.shell(&script)?;
        let mut stage = Stage { scenario, host, neighbors: Vec::new() };
        for family in [Family::V4, Family::V6] {
            let Some(address) = node.address(family) else { continue };
            let golden = scenario.golden(family, ".cfg")?;
            let listens = golden.lines().find_map(|line| {
                let rest = line.strip_prefix("listen bgp")?.split("port ").nth(1)?;
                Some(rest.trim_end_matches(';').to_owned())
            });
            let port = listens.unwrap_or_else(|| "179".to_owned());
            for session in sessions(&golden) {
                // No host can have a multicast address.
                if session.neighbor == address || session.neighbor.starts_with("ff") {
                    continue;
                }
                let at = u8::try_from(stage.neighbors.len())?;
                let neighbor = stage.neighbor(lab, family, session, address, &port, at)?;
                stage.neighbors.push((family, neighbor));
            }
        }
        Ok((!stage.neighbors.is_empty()).then_some(stage))
    }

    fn neighbor(
        &self,
        lab: &mut Lab,
        family: Family,
        session: GoldenSession,
        node: &str,
        node_port: &str,
        at: u8,
    ) -> Result<Neighbor> {
        let host = lab.host(&format!("n{at}"))?;
        let (length, flag) = if family == Family::V4 { (32, "-4") } else { (128, "-6") };
        let address = &session.neighbor;
        let nodad = if family == Family::V6 { " nodad" } else { "" };
        host.shell(&format!(
            "ip addr flush dev eth0 scope global\nip addr add {address}/{length} dev eth0{nodad}\n\
             ip {flag} route add {node}/{length} dev eth0"
        ))?;
        // Redundant where the node's own network covers the address.
        self.host.shell(&format!("ip {flag} route add {address}/{length} dev eth0 proto 4"))?;
        let stem = if family == Family::V4 { "bird" } else { "bird6" };
        let conf = host.write("bird.conf", &self.render(family, &session, node, node_port, at)?)?;
        let (conf, socket) = (conf.display().to_string(), host.file("bird.ctl"));
        let (ctl, pid) = (socket.display().to_string(), host.file("bird.pid"));
        let pid = pid.display().to_string();
        let args = ["-f", "-c", &conf, "-s", &ctl, "-P", &pid];
        let daemon = host.daemon("bird", &program(stem), &args)?;
        wait_until(PATIENCE, "BIRD's control socket", || birdc(&socket, "show status").map(drop))?;
        Ok(Neighbor { session, socket, _daemon: daemon })
    }

    /// The routes that a neighbour announces: one outside of every pool, blocks of the pools, one
    /// with priority inside a block of the node's.
    fn announced(&self, family: Family, at: u8) -> Result<Vec<(String, Option<u32>)>> {
        let mut routes = match family {
            Family::V4 => vec![
                (format!("203.0.113.{at}/32"), None),
                ("198.51.100.0/24".to_owned(), Some(100 + u32::from(at))),
            ],
            Family::V6 => vec![(format!("2001:db8:113::{at:x}/128"), None)],
        };
        routes.extend(self.scenario.block(family, 40 + at)?.map(|block| (block, None)));
        if family == Family::V4
            && let Some(own) = self.scenario.blocks()?.first()
        {
            let base = own.rsplit_once('.').context("a block")?.0;
            let last: u8 = own
                .rsplit_once('.')
                .and_then(|(_, l)| l.split('/').next()?.parse().ok())
                .context("a block")?;
            routes.push((format!("{base}.{}/32", last + 20 + at), Some(2_147_483_647 - 512)));
        }
        Ok(routes)
    }

    fn render(
        &self,
        family: Family,
        session: &GoldenSession,
        node: &str,
        node_port: &str,
        at: u8,
    ) -> Result<String> {
        let routes = self.announced(family, at)?;
        let GoldenSession { neighbor, port, remote_as, local_as, .. } = session;
        let mut text = format!(
            "log stderr all;\nrouter id 1.1.1.{};\nlisten bgp port {port};\nprotocol device {{\n}}\n\
             protocol static own {{\n",
            at + 1
        );
        for (prefix, _) in &routes {
            let _ = writeln!(text, "  route {prefix} blackhole;");
        }
        text.push_str("}\nfilter told {\n  if source != RTS_STATIC then reject;\n");
        for (prefix, local_pref) in routes {
            if let Some(local_pref) = local_pref {
                let _ = writeln!(text, "  if net = {prefix} then bgp_local_pref = {local_pref};");
            }
        }
        let _ = write!(
            text,
            "  bgp_community.add((65000,{at}));\n  accept;\n}}\n\
             protocol bgp node {{\n  local {neighbor} as {remote_as};\n  \
             neighbor {node} port {node_port} as {local_as};\n  add paths on;\n  \
             connect delay time 1;\n  connect retry time 2;\n  error wait time 1,2;\n  \
             import all;\n  export filter told;\n"
        );
        match &session.ttl_security {
            Some(hops) => {
                let _ = writeln!(text, "  ttl security on;\n  multihop {hops};");
            }
            None => text.push_str("  multihop;\n"),
        }
        if let Some(password) = &session.password {
            let _ = writeln!(text, "  password {password};");
        }
        text.push_str("}\n");
        Ok(text)
    }

    /// Replaces all routes of speakers and of Felix by Felix's routes to local pods, with several
    /// metrics.
    fn write_kernel_routes(&self) -> Result<()> {
        self.host.shell(
            "ip route flush proto 12; ip -6 route flush proto 12; ip route flush proto 80",
        )?;
        let mut script = String::new();
        if let Some(own) = self.scenario.blocks()?.first() {
            let (base, last) = own.rsplit_once('.').context("a block")?;
            let last: u8 = last.split('/').next().context("a block")?.parse()?;
            for (offset, metric) in [(3, 1024), (4, 512), (5, 0)] {
                let _ = writeln!(
                    script,
                    "ip route add {base}.{} dev {POD} proto 80 scope link metric {metric}",
                    last + offset
                );
            }
        }
        self.host.shell(&script).map(drop)
    }

    /// Runs the node with BIRD and its golden files.
    ///
    /// # Errors
    /// When BIRD refuses them, or a session does not come up.
    pub fn with_bird(&self) -> Result<Outcome> {
        self.with_bird_meanwhile(|| self.outcome("BIRD"))
    }

    /// Runs the node with BIRD and its golden files, and the doctor beside it.
    ///
    /// # Errors
    /// As [`Stage::with_bird`], and when the doctor's output cannot be parsed.
    pub fn examine_bird(&self) -> Result<doctor::Verdict> {
        self.with_bird_meanwhile(|| {
            self.wait_up("BIRD")?;
            self.write_felixs_routes()?;
            self.settle("BIRD")?;
            let text = self.configuration(&format!("{:?}", self.sockets()));
            let path = self.host.write("doctor.toml", &text)?.display().to_string();
            doctor::examine(&mut doctor::command(&self.host, &["--config", &path])?)
        })
    }

    /// Writes Felix's routes to those of the neighbours' prefixes whose routes Felix owns.
    fn write_felixs_routes(&self) -> Result<()> {
        let mut script = format!("ip link add {OVERLAY} type bridge\nip link set {OVERLAY} up\n");
        for (at, (family, neighbor)) in (0..).zip(&self.neighbors) {
            for (prefix, _) in self.announced(*family, at)? {
                if !self.scenario.is_rejected_by_kernel_filter(&prefix)? {
                    continue;
                }
                // As Felix writes them: the kernel refuses an IPv6 gateway that is reached by
                // another link.
                let (flag, gateway) = match family {
                    Family::V4 => ("-4", neighbor.session.neighbor.clone()),
                    Family::V6 => ("-6", first_address(&prefix)?),
                };
                let _ = writeln!(
                    script,
                    "ip {flag} route add {prefix} via {gateway} dev {OVERLAY} onlink proto 80"
                );
            }
        }
        self.host.shell(&script).map(drop)
    }

    /// BIRD's control sockets.
    fn sockets(&self) -> [PathBuf; 2] {
        [self.host.file("bird.ctl"), self.host.file("bird6.ctl")]
    }

    fn with_bird_meanwhile<T>(&self, look: impl FnOnce() -> Result<T>) -> Result<T> {
        self.write_kernel_routes()?;
        let mut daemons = Vec::new();
        for (family, stem) in [(Family::V4, "bird"), (Family::V6, "bird6")] {
            // Debian's BIRD does not have krt_tunnel.
            let mut program = program(stem);
            for suffix in [".cfg", "_aggr.cfg", "_ipam.cfg"] {
                let text = self.scenario.golden(family, suffix)?.replace("debug all;", "");
                if text.contains("krt_tunnel") {
                    program = with_tunnels()?;
                }
                let name = format!("{stem}{suffix}");
                let text = text.replace("include \"", &format!("include \"{}-", self.prefix()));
                self.host.write(&name, &text)?;
            }
            let file = |suffix: &str| self.host.file(&format!("{stem}{suffix}"));
            let conf = file(".cfg").display().to_string();
            self.host.run(&program, &["-p", "-c", &conf])?;
            let (ctl, pid) =
                (file(".ctl").display().to_string(), file(".pid").display().to_string());
            let args = ["-f", "-c", &conf, "-s", &ctl, "-P", &pid];
            daemons.push(self.host.daemon(stem, &program, &args)?);
        }
        let seen = look()?;
        for mut daemon in daemons {
            daemon.crash()?;
        }
        self.wait_down()?;
        Ok(seen)
    }

    fn prefix(&self) -> String {
        let path = self.host.file("x").display().to_string();
        path.trim_end_matches("-x").to_owned()
    }

    /// margay's configuration for the node, with this value of `bird-sockets`.
    fn configuration(&self, bird_sockets: &str) -> String {
        let paths: Vec<String> =
            self.scenario.objects.iter().map(|path| path.display().to_string()).collect();
        let said = self.scenario.environment.iter().any(|(name, _)| name == ENDPOINT_STATUS);
        let endpoints = if said {
            String::new()
        } else {
            format!("endpoint-status = \"{}\"\n", self.host.file("status").display())
        };
        format!(
            "[calico]\nnode = \"{}\"\ndatastore = \"file\"\npath = {paths:?}\n\
             {endpoints}bird-sockets = {bird_sockets}\nstate-file = \"none\"\nversion = \"{}\"\n\n{}",
            self.scenario.node,
            self.scenario.release,
            margay::control_section(&self.host),
        )
    }

    /// Runs the node with margay and the scenario's objects.
    ///
    /// # Errors
    /// When it does not start, or a session does not come up.
    pub fn with_margay(&self) -> Result<Outcome> {
        self.write_kernel_routes()?;
        let text = self.configuration("\"none\"");
        let variables = self.scenario.environment.iter();
        let variables: Vec<_> =
            variables.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (mut daemon, _) = margay::start_with(&self.host, &text, &variables)?;
        // Until then routes of an earlier run, and those that were replaced meanwhile, are kept.
        // The start-up waits for the restart time if a neighbour does not exist.
        wait_until(STARTUP_MAX, "the end of the start-up", || {
            let output = daemon.output();
            ensure!(output.contains("start-up is complete"), "{output}");
            Ok(())
        })?;
        let outcome = self.outcome("margay")?;
        ensure!(!daemon.output().contains("panicked"), "{}", daemon.output());
        daemon.crash()?;
        self.wait_down()?;
        Ok(outcome)
    }

    fn wait_down(&self) -> Result<()> {
        for (_, neighbor) in &self.neighbors {
            wait_until(PATIENCE, &format!("{} to go", neighbor.session.name), || {
                let answer = birdc(&neighbor.socket, "show protocols node")?;
                ensure!(!answer.contains("Established"), "{answer}");
                Ok(())
            })?;
            // Routes that are retained for a restart must not count in the next run.
            birdc(&neighbor.socket, "restart node")?;
        }
        Ok(())
    }

    /// Waits for every session, and until the outcome no longer changes.
    fn outcome(&self, who: &str) -> Result<Outcome> {
        self.wait_up(who)?;
        self.settle(who)
    }

    /// Waits for every session.
    fn wait_up(&self, who: &str) -> Result<()> {
        for (_, neighbor) in &self.neighbors {
            wait_until(PATIENCE, &format!("{who}: {}", neighbor.session.name), || {
                let answer = birdc(&neighbor.socket, "show protocols node")?;
                ensure!(answer.contains("Established"), "{answer}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Waits until the outcome no longer changes.
    fn settle(&self, who: &str) -> Result<Outcome> {
        let (mut last, mut unchanged) = (self.look()?, 0);
        for _ in 0..20 {
            std::thread::sleep(QUIET);
            let next = self.look()?;
            unchanged = if next == last { unchanged + 1 } else { 0 };
            // A neighbour that has received nothing may still do so: margay waits at first while
            // another neighbour is down that may announce external routes.
            let is_silent = next.told.values().any(BTreeSet::is_empty);
            if unchanged >= if is_silent { 7 } else { 1 } {
                return Ok(next);
            }
            last = next;
        }
        anyhow::bail!("{who}: the routes keep changing")
    }

    fn look(&self) -> Result<Outcome> {
        let mut told = BTreeMap::new();
        for (_, neighbor) in &self.neighbors {
            let text = birdc(&neighbor.socket, "show route all protocol node")?;
            told.insert(neighbor.session.name.clone(), routes(&text));
        }
        let mut kernel_routes = BTreeSet::new();
        for family in [Family::V4, Family::V6] {
            for route in kernel::routes(&self.host, family, kernel::PROTOCOL)? {
                let KernelRoute { prefix, kind, gateways, mut interfaces, metric } = route;
                interfaces.sort();
                kernel_routes.insert(format!(
                    "{prefix} {kind} {gateways:?} dev {interfaces:?} metric {metric}"
                ));
            }
        }
        Ok(Outcome { told, kernel: kernel_routes })
    }
}

/// The address after the first one of an IPv6 network.
fn first_address(network: &str) -> Result<String> {
    let (base, _) = network.split_once('/').context("no network")?;
    let base: std::net::Ipv6Addr = base.parse()?;
    Ok(std::net::Ipv6Addr::from_bits(base.to_bits() + 1).to_string())
}

/// Every route of `show route all`, in one line each. Two things are left out: MED, which BIRD
/// sends as 0 where margay sends none, and the link-local next hop (RFC 2545 §3), which BIRD sends
/// on every directly connected session, and margay on external ones (`docs/src/differences.md`).
fn routes(text: &str) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let (mut prefix, mut path) = (String::new(), Vec::<String>::new());
    let mut finish = |prefix: &str, path: &mut Vec<String>| {
        if !path.is_empty() {
            path.sort();
            found.insert(format!("{prefix} {}", path.join(" ")));
            path.clear();
        }
    };
    for line in text.lines() {
        // A line may begin with the code of the reply.
        let code = line.get(..5).filter(|code| {
            code.starts_with("10") && code.ends_with('-') && !code.contains(['.', ':', '/'])
        });
        let line = line.get(code.map_or(0, str::len)..).unwrap_or(line);
        let trimmed = line.trim();
        let is_attribute = trimmed.starts_with("BGP.") || trimmed.starts_with("Type:");
        if is_attribute {
            let is_shown = trimmed.starts_with("BGP.") && !trimmed.starts_with("BGP.med");
            if is_shown {
                let words = trimmed.split(' ').filter(|word| !word.starts_with("fe80:"));
                path.push(words.collect::<Vec<_>>().join(" "));
            }
            continue;
        }
        let first = trimmed.split_whitespace().next().unwrap_or_default();
        if first.contains('/') || first == "via" || first == "unreachable" {
            finish(&prefix, &mut path);
            if first.contains('/') {
                prefix = first.to_owned();
            }
        }
    }
    finish(&prefix, &mut path);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_apart_by_their_attributes() {
        let text = "1007-10.65.1.0/26       via 10.0.0.2 on eth0 [node 10:00:00] * (100) [i]\n\
                    1008-\tType: BGP unicast univ\n1012-\tBGP.origin: IGP\n \tBGP.med: 0\n\
                    \tBGP.next_hop: 10.0.0.2\n1007-                   via 10.0.0.3 on eth0 [node]\n\
                    1012-\tBGP.next_hop: 10.0.0.3\n1007-10.65.2.0/26 unreachable [node]\n\
                    1012-\tBGP.next_hop: 10.9.0.3\n";
        let found: Vec<String> = routes(text).into_iter().collect();
        assert_eq!(
            found,
            [
                "10.65.1.0/26 BGP.next_hop: 10.0.0.2 BGP.origin: IGP",
                "10.65.1.0/26 BGP.next_hop: 10.0.0.3",
                "10.65.2.0/26 BGP.next_hop: 10.9.0.3",
            ]
        );
    }
}
