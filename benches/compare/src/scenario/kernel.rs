//! Installation of routes in the kernel, counted from outside the daemon.

use std::collections::HashSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::daemon::{Fib, Kind};
use crate::feed::Feed;
use crate::report::Row;
use crate::synth::Prefix;

use super::load::synthetic;
use super::{ASN, Lab, Place, hop_address, writer};

/// Polling interval.
const LOOK: Duration = Duration::from_millis(5);
/// Number of sampled prefixes. Counting walks the whole table and takes memory bandwidth from its
/// writers, so it begins once all samples are installed.
const SAMPLES: usize = 200;

/// One feeder; the clock stops when the kernel has every prefix.
pub(super) fn kernel(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let feeds = synthetic(place, 1, options.size(options.prefixes, 200_000, 2_000), row)?;
    let feed = feeds.first().context("no prefixes to feed")?;
    if place.kind == Kind::Writer {
        return floor(&crate::feed::announced(feed)?, row);
    }
    let mut lab = place.start(ASN, Fib::On)?;
    let feeder = *lab.open(1)?.first().context("one session was asked for")?;
    lab.rest(Duration::from_secs(1))?;
    let before = lab.usage();
    let Installed { first, done } = install(&mut lab, feeder, feed)?;
    lab.check_daemons()?;
    let after = lab.usage();
    row.push("routes/s", done.map(|done| feed.sums.count as f64 / done.as_secs_f64()));
    row.push("seconds", done.map(|done| done.as_secs_f64()));
    row.push("first s", first.map(|first| first.as_secs_f64()));
    row.push("cpu s", after.cpu_secs - before.cpu_secs);
    row.push("peak MB", after.peak_kb as f64 / 1024.0);
    let expected: HashSet<u64> = crate::feed::table_after(&feed.bytes)?.into_keys().collect();
    let found = dump()?;
    let missing = expected.difference(&found).count();
    let note = match missing {
        0 => format!("all {} prefixes in the kernel's table", expected.len()),
        _ => format!("{missing} of {} prefixes MISSING in the kernel's table", expected.len()),
    };
    row.note(note);
    Ok(())
}

/// How long the kernel's table took to fill.
pub(super) struct Installed {
    /// From the first octet to the first sampled prefix.
    first: Option<Duration>,
    /// From the first octet to the last prefix.
    pub(super) done: Option<Duration>,
}

/// Sends the feed and waits until the kernel has every prefix, or for the time limit.
pub(super) fn install(lab: &mut Lab, feeder: usize, feed: &Feed) -> anyhow::Result<Installed> {
    let base = installed()?;
    let wanted = feed.sums.count;
    let mut samples = samples(&crate::feed::announced(feed)?);
    let watched = samples.len();
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("make a socket")?;
    let start = Instant::now();
    lab.engine.send(feeder, feed.bytes.clone());
    let mut filled = Installed { first: None, done: None };
    while start.elapsed() < lab.limit && filled.done.is_none() {
        lab.rest(LOOK)?;
        let now = start.elapsed();
        // A datagram socket can be connected only to an address that has a route.
        samples.retain(|address| probe.connect((*address, 9)).is_err());
        if samples.len() < watched {
            filled.first.get_or_insert(now);
        }
        if samples.is_empty() && installed()?.saturating_sub(base) >= wanted {
            filled.done = Some(now);
        }
    }
    Ok(filled)
}

/// One address in each of about [`SAMPLES`] evenly spaced prefixes, the last one included.
pub(super) fn samples(prefixes: &[Prefix]) -> Vec<Ipv4Addr> {
    let step = (prefixes.len() / SAMPLES).max(1);
    let host = |(address, len): &Prefix| Ipv4Addr::from(address | u32::from(*len < 32));
    prefixes.iter().rev().step_by(step).map(host).collect()
}

/// Writes the same prefixes to the kernel in the same order, which changes the cost of the kernel's
/// trie by up to a factor of two.
fn floor(prefixes: &[Prefix], row: &mut Row) -> anyhow::Result<()> {
    let start = Instant::now();
    writer::write(prefixes, hop_address(0), writer::RTPROT_BIRD)?;
    let secs = start.elapsed().as_secs_f64();
    row.push("routes/s", prefixes.len() as f64 / secs);
    row.push("seconds", secs);
    row.note("batches of 256 without BGP");
    Ok(())
}

/// Prefixes in the main table of this namespace.
fn installed() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/fib_triestat").context("read fib_triestat")?;
    let main = text.lines().skip_while(|line| !line.starts_with("Main:"));
    let line = main.map(str::trim).find_map(|line| line.strip_prefix("Prefixes:"));
    line.and_then(|count| count.trim().parse().ok()).context("no prefix count in fib_triestat")
}

fn dump() -> anyhow::Result<HashSet<u64>> {
    let output = Command::new("ip")
        .args(["-4", "route", "show", "table", "main"])
        .output()
        .context("run ip")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let parse = |line: &str| {
        let name = line.split(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let (address, len) = name.split_once('/').unwrap_or((name, "32"));
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        Some(crate::wire::key_v4(u32::from(address), len.parse().ok()?))
    };
    Ok(text.lines().filter_map(parse).collect())
}
