//! BIRD 2 and 3: configuration and answers. The text queries are used for BIRD 1.6 too.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::speaker::{Config, Family, Neighbor, Origin, Path, Speaker};
use crate::wait::{PATIENCE, wait_until};

/// A running BIRD 2. Its kernel routes carry protocol `bird` (12).
#[derive(Debug)]
pub struct Bird2 {
    host: Host,
    config: Config,
    daemon: Daemon,
    socket: PathBuf,
}

impl Bird2 {
    /// Starts BIRD with one protocol `nN` for each neighbour and `oN` for each route.
    ///
    /// # Errors
    /// When BIRD refuses the configuration or cannot be started.
    pub fn start(host: &Host, config: &Config) -> Result<Self> {
        Self::start_text(host, config, &render(config))
    }

    /// As [`Bird2::start`], with the configuration in text form; `config` says who the neighbours are.
    ///
    /// # Errors
    /// As [`Bird2::start`].
    pub fn start_text(host: &Host, config: &Config, text: &str) -> Result<Self> {
        let socket = host.file("bird.ctl");
        let path = host.write("bird.conf", text)?;
        host.run("bird", &["-p", "-c", &path.to_string_lossy()])?;
        let daemon = launch(host, &socket, &[])?;
        Ok(Self { host: host.clone(), config: config.clone(), daemon, socket })
    }

    /// Sends a command and returns the answer.
    ///
    /// # Errors
    /// When BIRD does not answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        birdc(&self.socket, command)
    }

    /// `show protocols all` of the session with this neighbour.
    ///
    /// # Errors
    /// When BIRD does not answer or has no such neighbour.
    pub fn session(&self, neighbor: IpAddr) -> Result<String> {
        self.ask(&format!("show protocols all {}", self.protocol(neighbor)?))
    }

    /// How many times the session with this neighbour has been established since BIRD started.
    ///
    /// # Errors
    /// When there is no such neighbour.
    pub fn sessions(&self, neighbor: IpAddr) -> Result<usize> {
        let line = format!(" {}: BGP session established", self.protocol(neighbor)?);
        Ok(self.daemon.output().lines().filter(|l| l.ends_with(&line)).count())
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.output()
    }

    /// Applies a changed configuration.
    ///
    /// # Errors
    /// When BIRD refuses it.
    pub fn reconfigure(&mut self, config: &Config) -> Result<()> {
        self.host.write("bird.conf", &render(config))?;
        let answer = self.ask("configure")?;
        ensure!(answer.contains("Reconfigur"), "configure: {answer}");
        self.config = config.clone();
        Ok(())
    }

    fn protocol(&self, neighbor: IpAddr) -> Result<String> {
        let index = self.config.neighbors.iter().position(|n| n.address == neighbor);
        index.map(|i| format!("n{i}")).with_context(|| format!("no neighbour {neighbor}"))
    }
}

impl Speaker for Bird2 {
    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        bgp_state(&self.session(neighbor)?)
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Path>> {
        routes_of(&self.socket, prefix)
    }

    fn announce(&mut self, origin: &Origin) -> Result<()> {
        let mut config = self.config.clone();
        config.origins.push(origin.clone());
        self.reconfigure(&config)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        let mut config = self.config.clone();
        config.origins.retain(|o| o.prefix != prefix);
        self.reconfigure(&config)
    }

    fn recover(&mut self) -> Result<()> {
        self.daemon = launch(&self.host, &self.socket, &["-R"])?;
        Ok(())
    }

    fn updates_received(&self, neighbor: IpAddr) -> Result<u64> {
        import_updates(&self.session(neighbor)?)
    }

    fn request_refresh(&self, neighbor: IpAddr) -> Result<()> {
        let protocol = self.protocol(neighbor)?;
        // BIRD 2's words, else BIRD 3's.
        let answer = self
            .ask(&format!("reload in {protocol}"))
            .or_else(|_| self.ask(&format!("reload filters in {protocol}")))?;
        ensure!(answer.contains("reloading"), "reload in: {answer}");
        Ok(())
    }
}

/// Starts BIRD with the existing configuration file.
fn launch(host: &Host, socket: &FilePath, more: &[&str]) -> Result<Daemon> {
    let (conf, ctl) = (host.file("bird.conf"), socket.to_string_lossy());
    let conf = conf.to_string_lossy();
    let args = [&["-f", "-c", &conf, "-s", &ctl], more].concat();
    let daemon = host.daemon("bird", "bird", &args)?;
    wait_until(PATIENCE, "BIRD's control socket", || birdc(socket, "show status").map(drop))?;
    Ok(daemon)
}

/// One command over a control socket; BIRD 2's client speaks to 1.6 and to margay as well.
///
/// # Errors
/// When there is no answer, or the command is refused.
pub fn birdc(socket: &FilePath, command: &str) -> Result<String> {
    run_command(Command::new("birdc").arg("-s").arg(socket).args(command.split(' ')))
}

/// Queries a socket as Calico's clients do: connects, writes before reading the greeting, and
/// allows 2 s for each line. Returns the answer up to the line that begins with `end`.
///
/// # Errors
/// When there is no answer in time, or the answer ends before that line.
pub fn ask(socket: &FilePath, command: &str, end: &str) -> Result<String> {
    let stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    (&stream).write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        ensure!(line.len() < 64 * 1024, "a line of {} octets", line.len());
        let is_last = line.starts_with(end);
        answer.push_str(&line);
        answer.push('\n');
        if is_last {
            return Ok(answer);
        }
        // Codes of 8000 and above refuse, and nothing follows.
        ensure!(!line.starts_with(['8', '9']), "{command}: {line}");
    }
    bail!("{command}: closed after {answer}")
}

/// The BGP paths for exactly this prefix. The client exits with 1 if there is no such route.
pub(crate) fn routes_of(socket: &FilePath, prefix: &str) -> Result<Vec<Path>> {
    match birdc(socket, &format!("show route {prefix} all")) {
        Err(error) if error.to_string().contains("Network not ") => Ok(Vec::new()),
        answer => parse_paths(&answer?),
    }
}

/// The line `BGP state: X` of `show protocols all`.
pub(crate) fn bgp_state(answer: &str) -> Result<String> {
    let state = answer.lines().find_map(|l| l.trim().strip_prefix("BGP state:"));
    state.map(|s| s.trim().to_owned()).with_context(|| format!("no BGP state in: {answer}"))
}

/// The sum of the `Import updates:` lines of `show protocols all`: routes, not messages.
pub(crate) fn import_updates(answer: &str) -> Result<u64> {
    let lines = answer.lines().filter_map(|l| l.trim().strip_prefix("Import updates:"));
    let mut sum = 0;
    for line in lines {
        sum += line.split_whitespace().next().context("an empty line")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// The BGP paths in the answer of `show route … all`.
fn parse_paths(answer: &str) -> Result<Vec<Path>> {
    let mut paths: Vec<(bool, Path)> = Vec::new();
    for line in answer.lines() {
        // A path starts with `PREFIX … [protocol time] …`; its attributes are indented by a tab.
        if !line.starts_with('\t') {
            if line.contains('[') && line.contains(']') {
                paths.push((false, Path::default()));
            }
            continue;
        }
        let Some((is_bgp, path)) = paths.last_mut() else { continue };
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        let value = value.trim();
        // BIRD 3 names attributes as its filters do.
        match key {
            "Type" | "source" => *is_bgp = value.contains("BGP"),
            "BGP.next_hop" | "bgp_next_hop" => {
                path.next_hop = value.split(' ').next().map(str::to_owned)
            }
            "BGP.as_path" | "bgp_path" => {
                path.as_path =
                    value.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            }
            "BGP.community" | "bgp_community" => path.communities = colon_separated(value),
            "BGP.large_community" | "bgp_large_community" => {
                path.large_communities = colon_separated(value)
            }
            _ => {}
        }
    }
    Ok(paths.into_iter().filter(|(is_bgp, _)| *is_bgp).map(|(_, path)| path).collect())
}

/// `(65001,7) (1,2)` as `65001:7`, `1:2`.
fn colon_separated(value: &str) -> Vec<String> {
    value
        .split(')')
        .map(|part| part.trim().trim_start_matches('(').replace(", ", ":").replace(',', ":"))
        .filter(|part| !part.is_empty())
        .collect()
}

/// Options with the same syntax in BIRD 1.6 and BIRD 2.
pub(crate) fn common_options(neighbor: &Neighbor) -> String {
    let mut text = format!(
        "direct; connect delay time 1; connect retry time 1; error wait time 1, 5; \
         hold time {}; enable extended messages on;",
        neighbor.hold_time
    );
    if let Some(password) = &neighbor.password {
        let _ = write!(text, " password \"{password}\";");
    }
    for (wanted, option) in [
        (neighbor.ttl_security, "ttl security on;"),
        (neighbor.passive, "passive on;"),
        (neighbor.reflector_client, "rr client;"),
        (neighbor.graceful_restart, "graceful restart on;"),
    ] {
        if wanted {
            let _ = write!(text, " {option}");
        }
    }
    if neighbor.graceful_restart {
        let _ = write!(text, " graceful restart time {};", neighbor.restart_time());
    }
    if let Some(time) = neighbor.long_lived {
        let _ = write!(text, " long lived graceful restart on; long lived stale time {time};");
    }
    text
}

/// A static route with its communities, without `ipv4;` or `ipv6;`.
pub(crate) fn static_route(origin: &Origin, target: &str) -> String {
    let mut adds = String::new();
    for community in &origin.communities {
        let pair = community.replace(':', ",");
        let _ = write!(adds, " bgp_community.add(({pair}));");
    }
    for community in &origin.large_communities {
        let triple = community.replace(':', ",");
        let _ = write!(adds, " bgp_large_community.add(({triple}));");
    }
    let attributes = if adds.is_empty() { ";".to_owned() } else { format!(" {{{adds} }};") };
    format!("route {} {target}{attributes}", origin.prefix)
}

/// The export filter for a neighbour: all our routes and those of other neighbours, or a list.
pub(crate) fn export_filter(neighbor: &Neighbor, family: Family) -> String {
    let Some(only) = &neighbor.only else {
        return "export where source = RTS_STATIC || source = RTS_BGP;".to_owned();
    };
    let nets: Vec<&str> =
        only.iter().map(String::as_str).filter(|p| Family::of(p) == family).collect();
    if nets.is_empty() {
        "export none;".to_owned()
    } else {
        format!("export where net ~ [ {} ];", nets.join(", "))
    }
}

fn channel(neighbor: &Neighbor, family: Family) -> String {
    let name = if family == Family::V4 { "ipv4" } else { "ipv6" };
    let mut options = format!("import all; {}", export_filter(neighbor, family));
    if neighbor.add_path {
        options.push_str(" add paths on;");
    }
    if neighbor.extended_next_hop && family == Family::V4 {
        options.push_str(" extended next hop on;");
    }
    if let Some(limit) = neighbor.prefixes_max {
        let _ = write!(options, " import limit {limit} action disable;");
    }
    format!("  {name} {{ {options} }};\n")
}

fn render(config: &Config) -> String {
    let graceful = config.neighbors.iter().any(|n| n.graceful_restart);
    let restart = if graceful { " graceful restart on;" } else { "" };
    let mut text = format!(
        "log stderr all; debug protocols {{ states, events }};\nrouter id {};\nprotocol device {{ scan time 5; }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths on;{restart} }}\n\
         protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; merge paths on;{restart} }}\n",
        config.router_id
    );
    for origin in &config.origins {
        let (name, family) = (protocol_name(&origin.prefix), origin.family());
        let channel = if family == Family::V4 { "ipv4" } else { "ipv6" };
        let route = static_route(origin, "blackhole");
        let _ = writeln!(text, "protocol static {name} {{ {channel}; {route} }}");
    }
    for (index, n) in config.neighbors.iter().enumerate() {
        let _ = write!(
            text,
            "protocol bgp n{index} {{\n  local {} port {} as {};\n  neighbor {} port {} as {};\n  {}\n",
            n.local,
            config.port,
            config.asn,
            n.address,
            n.port,
            n.asn,
            common_options(n)
        );
        for family in &n.families {
            text.push_str(&channel(n, *family));
        }
        text.push_str("}\n");
    }
    text
}

/// A protocol name derived from a prefix, so that a reconfiguration does not affect other routes.
fn protocol_name(prefix: &str) -> String {
    let tail: String =
        prefix.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("o_{tail}")
}

impl Bird2 {
    /// Fails unless the session's last error, sent or received, contains `text`, or BIRD has logged
    /// it: an attempt to connect again may have failed in the meantime.
    ///
    /// # Errors
    /// When it does not.
    pub fn expect_last_error(&self, neighbor: IpAddr, text: &str) -> Result<()> {
        let answer = self.session(neighbor)?;
        let error = answer.lines().find(|l| l.trim().starts_with("Last error:"));
        match error {
            Some(line) if line.contains(text) => Ok(()),
            _ if self.daemon.output().contains(text) => Ok(()),
            other => bail!("last error is {other:?}, not {text:?}"),
        }
    }
}
