//! The kernel's routes, by ip(8).

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::Host;
use crate::speaker::Family;
use crate::wait::{PATIENCE, wait_until};

/// A route of the main table, as `ip -j route` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRoute {
    /// The prefix, always with its length.
    pub prefix: String,
    /// `unicast`, `blackhole`, `unreachable`, …
    pub kind: String,
    /// The addresses of the gateways, sorted.
    pub gateways: Vec<String>,
    /// The interfaces of the hops, in the order of the kernel, with `onlink` where a hop has that flag.
    pub interfaces: Vec<String>,
    /// The metric; 0 if the kernel shows none.
    pub metric: u64,
}

/// The protocol number that BIRD uses and that Calico's nodes expect; margay's default too.
pub const PROTOCOL: &str = "12";

/// Every route of the family with this protocol.
///
/// # Errors
/// When ip(8) fails or prints anything but JSON.
pub fn routes(host: &Host, family: Family, protocol: &str) -> Result<Vec<KernelRoute>> {
    let flag = if family == Family::V4 { "-4" } else { "-6" };
    let args = ["-j", "-d", flag, "route", "show", "table", "main", "proto", protocol];
    let text = host.run("ip", &args)?;
    let text = if text.trim().is_empty() { "[]" } else { text.trim() };
    let list: Value = serde_json::from_str(text).with_context(|| format!("ip -j: {text}"))?;
    let list = list.as_array().context("ip -j: not a list")?;
    list.iter().map(|route| parse(route, family)).collect()
}

fn parse(route: &Value, family: Family) -> Result<KernelRoute> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut prefix = text(route, "dst").context("a route without dst")?;
    if prefix == "default" {
        prefix = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" }.to_owned();
    } else if !prefix.contains('/') {
        prefix.push_str(if family == Family::V4 { "/32" } else { "/128" });
    }
    let hops = route.get("nexthops").and_then(Value::as_array);
    let single = [route.clone()];
    let hops = hops.map_or(&single[..], Vec::as_slice);
    let interface = |hop: &Value| {
        let flags = hop["flags"].as_array().into_iter().flatten();
        let onlink = if flags.into_iter().any(|f| f == "onlink") { " onlink" } else { "" };
        Some(format!("{}{onlink}", text(hop, "dev")?))
    };
    let interfaces = hops.iter().filter_map(interface).collect();
    let mut gateways: Vec<String> = hops
        .iter()
        .filter_map(|hop| {
            text(hop, "gateway").or_else(|| hop.get("via").and_then(|via| text(via, "host")))
        })
        .collect();
    gateways.sort();
    Ok(KernelRoute {
        prefix,
        kind: text(route, "type").unwrap_or_else(|| "unicast".to_owned()),
        gateways,
        interfaces,
        metric: route.get("metric").and_then(Value::as_u64).unwrap_or(0),
    })
}

/// The route for exactly this prefix with protocol [`PROTOCOL`].
///
/// # Errors
/// As [`routes`].
pub fn route(host: &Host, prefix: &str) -> Result<Option<KernelRoute>> {
    Ok(routes(host, Family::of(prefix), PROTOCOL)?.into_iter().find(|r| r.prefix == prefix))
}

/// Waits until the kernel sends the prefix to exactly these gateways.
///
/// # Errors
/// When it does not within [`PATIENCE`].
pub fn wait_gateways(host: &Host, prefix: &str, gateways: &[String]) -> Result<()> {
    let mut wanted = gateways.to_vec();
    wanted.sort();
    wait_until(PATIENCE, &format!("kernel route {prefix} via {wanted:?}"), || {
        let found = route(host, prefix)?;
        ensure!(found.as_ref().is_some_and(|r| r.gateways == wanted), "found {found:?}");
        Ok(())
    })
}

/// Waits until the kernel has no route of ours for the prefix.
///
/// # Errors
/// When it still has one after [`PATIENCE`].
pub fn wait_gone(host: &Host, prefix: &str) -> Result<()> {
    wait_until(PATIENCE, &format!("no kernel route {prefix}"), || {
        let found = route(host, prefix)?;
        ensure!(found.is_none(), "found {found:?}");
        Ok(())
    })
}

/// A counter of `/proc/net/netstat`, for example `TcpExt`, `TCPMD5Failure`.
///
/// # Errors
/// When the kernel has no such counter.
pub fn counter(host: &Host, group: &str, name: &str) -> Result<u64> {
    let text = host.run("cat", &["/proc/net/netstat"])?;
    let mut lines = text.lines().filter(|l| l.split(':').next() == Some(group));
    let (names, values) = (lines.next().context("no group")?, lines.next().context("no values")?);
    let index = names.split_whitespace().position(|n| n == name).context("no such counter")?;
    let value = values.split_whitespace().nth(index).context("short line")?;
    Ok(value.parse()?)
}

/// Every change of a host's routes, as ip(8) prints them.
#[derive(Debug)]
pub struct RouteMonitor {
    host: Host,
    daemon: Daemon,
    /// How often [`RouteMonitor::changes`] was called.
    calls: Cell<u8>,
}

impl RouteMonitor {
    /// Begins to record; no later change is missed.
    ///
    /// # Errors
    /// When `ip monitor` does not run.
    pub fn start(host: &Host) -> Result<Self> {
        let mut command = host.command("ip");
        // A table that is withdrawn comes faster than it is printed.
        let buffer = ["-rcvbuf", "4194304"];
        command.args(buffer).args(["-ts", "monitor", "route"]).env("TZ", "UTC");
        let daemon = Daemon::start(command, &host.file("monitor.log"))?;
        let monitor = Self { host: host.clone(), daemon, calls: Cell::new(0) };
        // It prints nothing at the start, and may not be listening yet.
        wait_until(PATIENCE, "ip monitor to listen", || monitor.expect_mark(0))?;
        Ok(monitor)
    }

    /// All changes up to now. Waits for those that `ip monitor` has not printed yet.
    ///
    /// # Errors
    /// When it has ended, or has lost changes because it was too slow.
    pub fn changes(&self) -> Result<String> {
        self.calls.set(self.calls.get() + 1);
        wait_until(PATIENCE, "ip monitor to be done", || self.expect_mark(self.calls.get()))?;
        let text = self.daemon.output();
        ensure!(!text.contains("receive error"), "ip monitor has lost changes");
        Ok(text)
    }

    /// The gaps of routes whose prefix begins with `prefix` that were deleted and added again: the
    /// start and end of each, in seconds of the day, in UTC.
    ///
    /// # Errors
    /// As [`RouteMonitor::changes`], and when a line has no time.
    pub fn gaps(&self, prefix: &str) -> Result<Vec<(f64, f64)>> {
        let (mut gone, mut gaps) = (BTreeMap::new(), Vec::new());
        for line in self.changes()?.lines() {
            let Some((time, change)) = line.trim_start_matches('[').split_once("] ") else {
                continue;
            };
            let is_gone = change.starts_with("Deleted ");
            let route = change.trim_start_matches("Deleted ").split(' ').next().unwrap_or_default();
            if !route.starts_with(prefix) {
                continue;
            }
            let clock = time.split_once('T').context("no time")?.1.split(':');
            let clock: Vec<f64> = clock.map(str::parse).collect::<Result<_, _>>()?;
            let at = clock.iter().fold(0.0, |sum, part| sum * 60.0 + part);
            if is_gone {
                gone.insert(route.to_owned(), at);
            } else if let Some(from) = gone.remove(route) {
                gaps.push((from, at));
            }
        }
        Ok(gaps)
    }

    /// Adds and deletes a route of our own, whose appearance shows how far the monitor has read.
    fn expect_mark(&self, number: u8) -> Result<()> {
        let route = format!("203.0.113.{number}");
        for change in ["add", "del"] {
            self.host.run("ip", &["route", change, "blackhole", &route])?;
        }
        ensure!(self.daemon.output().contains(&format!("Deleted blackhole {route} ")), "not yet");
        Ok(())
    }
}
