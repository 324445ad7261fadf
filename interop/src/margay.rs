//! margay: configuration and answers over its control socket.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::speaker::{Config, Family, Neighbor, Origin, Path, Speaker};
use crate::wait::wait_until;

/// Maximum time until margay answers on its socket after its start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running margay.
#[derive(Debug)]
pub struct Margay {
    host: Host,
    config: Config,
    daemon: Daemon,
    control: Control,
}

/// The control socket of a margay that tests configure themselves.
#[derive(Debug, Clone)]
pub struct Control {
    socket: PathBuf,
}

/// The binary under test: `MARGAY_BIN`, otherwise the newest of the profiles `fast`, `release` and
/// `debug` in the target folder of this test.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MARGAY_BIN") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("the test runs outside a target folder")?;
    let age = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    ["fast", "release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join("margay"))
        .filter(|path| path.is_file())
        .max_by_key(age)
        .with_context(|| {
            format!("no margay binary in {}: build it or set MARGAY_BIN", target.display())
        })
}

impl Control {
    /// The socket of a margay on `host` whose configuration ends with [`control_section`].
    #[must_use]
    pub fn of(host: &Host) -> Self {
        Self { socket: host.file("margay.sock") }
    }

    /// The socket at this path.
    #[must_use]
    pub fn at(socket: &FilePath) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> &FilePath {
        &self.socket
    }

    /// Runs `margay ARGS --socket S` and returns what it printed.
    ///
    /// # Errors
    /// When it exits with anything but 0.
    pub fn text(&self, args: &[&str]) -> Result<String> {
        run_command(Command::new(binary()?).args(args).arg("--socket").arg(&self.socket))
    }

    /// As [`Control::text`] with `--json`.
    ///
    /// # Errors
    /// As [`Control::text`], and when the answer is not JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.text(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{args:?} printed {text}"))
    }

    /// The entry of `show peers` with this address.
    ///
    /// # Errors
    /// When there is none.
    pub fn peer(&self, address: IpAddr) -> Result<Value> {
        let peers = self.json(&["show", "peers"])?;
        let wanted = address.to_string();
        let found = peers
            .as_array()
            .context("show peers: not a list")?
            .iter()
            .find(|p| p.get("address").and_then(Value::as_str) == Some(wanted.as_str()));
        found.cloned().with_context(|| format!("no peer {address} in {peers}"))
    }

    /// The paths of exactly this prefix in `show routes`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn paths(&self, prefix: &str) -> Result<Vec<Value>> {
        let routes = self.json(&["show", "routes", prefix])?;
        let routes = routes.as_array().context("show routes: not a list")?.clone();
        let route =
            routes.into_iter().find(|r| r.get("prefix").and_then(Value::as_str) == Some(prefix));
        Ok(route
            .and_then(|r| r.get("paths").and_then(Value::as_array).cloned())
            .unwrap_or_default())
    }

    /// Fails unless the session is established.
    ///
    /// # Errors
    /// When it is not, or there is no such peer.
    pub fn expect_established(&self, peer: IpAddr) -> Result<()> {
        let state = self.peer(peer)?["state"].clone();
        ensure!(state == "Established", "{peer} is {state}");
        Ok(())
    }

    /// Fails unless `last_error` of the peer is this NOTIFICATION.
    ///
    /// # Errors
    /// When it is another, or none.
    pub fn expect_last_error(
        &self,
        peer: IpAddr,
        direction: &str,
        code: u64,
        subcode: u64,
    ) -> Result<()> {
        let peer = self.peer(peer)?;
        let error = &peer["last_error"];
        ensure!(
            error["direction"] == direction && error["code"] == code && error["subcode"] == subcode,
            "last_error is {error}, not {direction} {code}/{subcode}"
        );
        Ok(())
    }
}

/// Starts margay with a configuration in text form and waits until its socket answers.
///
/// # Errors
/// When it exits or does not answer within ten seconds.
pub fn start_text(host: &Host, text: &str) -> Result<(Daemon, Control)> {
    start_with(host, text, &[])
}

/// As [`start_text`], with additional environment variables.
///
/// # Errors
/// As [`start_text`].
pub fn start_with(
    host: &Host,
    text: &str,
    environment: &[(&str, &str)],
) -> Result<(Daemon, Control)> {
    let mut command = run_command_of(host, &binary()?, text)?;
    command.envs(environment.iter().copied());
    let daemon = Daemon::start(command, &host.file("margay.log"))?;
    wait_answers(host, daemon)
}

/// The command `PROGRAM run` with a configuration in text form, for tests that start it themselves.
///
/// # Errors
/// When the configuration cannot be written.
pub fn run_command_of(host: &Host, program: &FilePath, text: &str) -> Result<Command> {
    let path = host.write("margay.toml", text)?;
    let mut command = host.command(&program.to_string_lossy());
    command.args(["run", "--config"]).arg(&path);
    command.env("RUST_BACKTRACE", "1");
    Ok(command)
}

/// Waits until the socket of a started margay answers.
///
/// # Errors
/// When it exits or does not answer within ten seconds, on an emulated machine a minute.
pub fn wait_answers(host: &Host, mut daemon: Daemon) -> Result<(Daemon, Control)> {
    let control = Control::of(host);
    let limit = if crate::full_kernel::is_inside() { START_LIMIT * 6 } else { START_LIMIT };
    wait_until(limit, "margay's control socket", || {
        if let Some(status) = daemon.exited()? {
            bail!("margay exited with {status}: {}", daemon.output());
        }
        control.text(&["show", "status"]).map(drop)
    })?;
    Ok((daemon, control))
}

/// Runs `margay ARGS` on `host` to completion, whatever its exit status.
///
/// # Errors
/// When it cannot be started.
pub fn run_to_end(host: &Host, args: &[&str]) -> Result<Output> {
    let program = binary()?.to_string_lossy().into_owned();
    Ok(host.command(&program).args(args).stdin(Stdio::null()).output()?)
}

/// The `[control]` section for a margay on `host`.
#[must_use]
pub fn control_section(host: &Host) -> String {
    format!("[control]\nsocket = \"{}\"\n", host.file("margay.sock").display())
}

impl Margay {
    /// Starts margay with the configuration that [`render`] writes.
    ///
    /// # Errors
    /// As [`start_text`].
    pub fn start(host: &Host, config: &Config) -> Result<Self> {
        let (daemon, control) = start_text(host, &render(host, config))?;
        Ok(Self { host: host.clone(), config: config.clone(), daemon, control })
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Writes a changed configuration and reloads it.
    ///
    /// # Errors
    /// When margay refuses it.
    pub fn reconfigure(&mut self, config: &Config) -> Result<String> {
        self.host.write("margay.toml", &render(&self.host, config))?;
        let answer = self.control.text(&["reload"])?;
        self.config = config.clone();
        Ok(answer)
    }

    /// Starts the daemon with the same configuration, after it was stopped or killed.
    ///
    /// # Errors
    /// As [`start_text`].
    pub fn restart(&mut self) -> Result<()> {
        self.restart_with_fib("")
    }

    /// As [`Margay::restart`], with further lines in `[fib]`.
    ///
    /// # Errors
    /// As [`start_text`].
    pub fn restart_with_fib(&mut self, lines: &str) -> Result<()> {
        ensure!(self.daemon.exited()?.is_some(), "margay still runs");
        let text = render(&self.host, &self.config);
        let text = text.replacen("[fib]\n", &format!("[fib]\n{lines}"), 1);
        let (daemon, control) = start_text(&self.host, &text)?;
        self.daemon = daemon;
        self.control = control;
        Ok(())
    }
}

impl Speaker for Margay {
    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let peer = self.control.peer(neighbor)?;
        let state = peer["state"].as_str().context("a peer without state")?;
        Ok(state.to_owned())
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Path>> {
        let paths = self.control.paths(prefix)?;
        paths.iter().filter(|p| p["source"] == "bgp").map(parse_path).collect()
    }

    fn announce(&mut self, origin: &Origin) -> Result<()> {
        let mut config = self.config.clone();
        config.origins.push(origin.clone());
        self.reconfigure(&config).map(drop)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        let mut config = self.config.clone();
        config.origins.retain(|o| o.prefix != prefix);
        self.reconfigure(&config).map(drop)
    }

    fn recover(&mut self) -> Result<()> {
        self.restart()
    }

    fn updates_received(&self, neighbor: IpAddr) -> Result<u64> {
        let peer = self.control.peer(neighbor)?;
        peer["prefixes_received"].as_u64().context("a peer without prefixes_received")
    }

    fn request_refresh(&self, _neighbor: IpAddr) -> Result<()> {
        bail!("margay asks for a refresh only when an import policy changes")
    }
}

fn parse_path(path: &Value) -> Result<Path> {
    let strings = |key: &str| -> Result<Vec<String>> {
        let list = path[key].as_array().with_context(|| format!("{key} is not a list"))?;
        Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let asns = path["as_path"].as_array().context("as_path is not a list")?;
    let asn = |v: &Value| -> Result<u32> { Ok(u32::try_from(v.as_u64().context("an AS_SET")?)?) };
    Ok(Path {
        next_hop: path["next_hop"].as_str().map(str::to_owned),
        as_path: asns.iter().map(asn).collect::<Result<_>>()?,
        communities: strings("communities")?,
        large_communities: strings("large_communities")?,
    })
}

/// The TOML for a speaker. Communities of [`Origin`] are added by the export policy.
#[must_use]
pub fn render(host: &Host, config: &Config) -> String {
    let mut text = format!(
        "[bgp]\nasn = {}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{port}\", \"[::]:{port}\"]\n\n",
        config.asn,
        config.router_id,
        port = config.port
    );
    let tagged: Vec<&Origin> = config.origins.iter().filter(|o| is_tagged(o)).collect();
    for neighbor in &config.neighbors {
        text.push_str(&render_peer(neighbor, if tagged.is_empty() { "all" } else { "tags" }));
    }
    if !tagged.is_empty() {
        text.push_str("[[policy]]\nname = \"tags\"\ndefault = \"accept\"\n\n");
    }
    for origin in tagged {
        let list = [&origin.communities[..], &origin.large_communities[..]].concat();
        let _ = write!(
            text,
            "[[policy.rules]]\nmatch.prefixes = [\"{}\"]\nadd-communities = {list:?}\nthen = \"accept\"\n\n",
            origin.prefix
        );
    }
    for origin in &config.origins {
        let _ = write!(text, "[[originate]]\nprefix = \"{}\"\n\n", origin.prefix);
    }
    text.push_str("[fib]\nenabled = true\n\n");
    text.push_str(&control_section(host));
    text
}

fn is_tagged(origin: &Origin) -> bool {
    !origin.communities.is_empty() || !origin.large_communities.is_empty()
}

fn render_peer(n: &Neighbor, export: &str) -> String {
    let families: Vec<&str> =
        n.families.iter().map(|f| if *f == Family::V4 { "\"ipv4\"" } else { "\"ipv6\"" }).collect();
    let mut text = format!(
        "[[bgp.peers]]\naddress = \"{}\"\nsource-address = \"{}\"\nport = {}\nremote-asn = {}\n\
         families = [{}]\nhold-time = {}\nconnect-retry-time = 1\nimport = \"all\"\nexport = \"{export}\"\n",
        n.address,
        n.local,
        n.port,
        n.asn,
        families.join(", "),
        n.hold_time
    );
    let mut key = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if let Some(password) = &n.password {
        key(format!("password = \"{password}\""));
    }
    if n.ttl_security {
        key("ttl-security = 1".to_owned());
    }
    if n.add_path {
        key("add-path = \"both\"".to_owned());
    }
    if n.extended_next_hop {
        key("extended-next-hop = true".to_owned());
    }
    if n.graceful_restart {
        key(format!("graceful-restart-time = {}", n.restart_time()));
    }
    if let Some(time) = n.long_lived {
        key(format!("long-lived-graceful-restart = {{ time = {time} }}"));
    }
    if n.passive {
        key("passive = true".to_owned());
    }
    if n.reflector_client {
        key("route-reflector-client = true".to_owned());
    }
    if let Some(limit) = n.prefixes_max {
        key(format!("prefixes-max = {limit}"));
    }
    text.push('\n');
    text
}
