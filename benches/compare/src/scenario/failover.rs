//! Prefix-independent convergence, seen from outside the daemon.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{getpriority_process, setpriority_process};

use crate::daemon::{Fib, SECOND};
use crate::report::Row;

use super::kernel::{Installed, install, samples};
use super::load::synthetic;
use super::{ASN, Place, hop_address, writer};

/// A gateway on the second interface.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Polling interval.
const LOOK: Duration = Duration::from_micros(20);
/// The interval at which the sessions are served meanwhile.
const SERVE: Duration = Duration::from_secs(5);

/// One feeder, all of whose routes have one next hop on the first interface. A host route to this
/// next hop over the second interface is added to the kernel; the clock stops when the first, the
/// middle and the last of the announced prefixes are forwarded there.
pub(super) fn failover(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let feeds = synthetic(place, 1, options.size(options.prefixes, 500_000, 2_000), row)?;
    let feed = feeds.first().context("no prefixes to feed")?;
    let mut lab = place.start(ASN, Fib::Followed)?;
    let feeder = *lab.open(1)?.first().context("one session was asked for")?;
    lab.rest(Duration::from_secs(1))?;
    let Installed { done, .. } = install(&mut lab, feeder, feed)?;
    lab.check_daemons()?;
    ensure!(done.is_some(), "the routes are not in the kernel");
    lab.rest(Duration::from_secs(2))?;
    let samples = samples(&crate::feed::announced(feed)?);
    let places = [samples.last(), samples.get(samples.len() / 2), samples.first()];
    let places = places.map(|sample| sample.copied().unwrap_or(GATEWAY));
    let before = lab.usage();
    // The daemon uses as many cores as there are: the watcher must not wait for one of them, and not
    // keep one from the daemon.
    let priority = getpriority_process(None).context("read the priority")?;
    setpriority_process(None, -20).context("raise the priority")?;
    let start = Instant::now();
    writer::write(&[(u32::from(hop_address(0)), 32)], GATEWAY, writer::RTPROT_STATIC)?;
    let mut moved = [None; 3];
    let mut served = start;
    while start.elapsed() < lab.limit && moved.contains(&None) {
        for (host, moved) in places.iter().zip(&mut moved) {
            if moved.is_none() && source(*host)? == Some(SECOND.into()) {
                *moved = Some(start.elapsed());
            }
        }
        std::thread::sleep(LOOK);
        if served.elapsed() > SERVE {
            served = Instant::now();
            lab.rest(Duration::ZERO)?;
        }
    }
    setpriority_process(None, priority).context("restore the priority")?;
    lab.check_daemons()?;
    lab.rest(Duration::from_secs(2))?;
    let after = lab.usage();
    for (name, moved) in ["first ms", "middle ms", "last ms"].into_iter().zip(moved) {
        row.push(name, moved.map(|moved: Duration| moved.as_secs_f64() * 1000.0));
    }
    row.push("cpu s", after.cpu_secs - before.cpu_secs);
    Ok(())
}

/// The address from which packets to a host are sent, if it has a route. A socket keeps its first
/// one.
fn source(host: Ipv4Addr) -> anyhow::Result<Option<IpAddr>> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("make a socket")?;
    if probe.connect((host, 9)).is_err() {
        return Ok(None);
    }
    Ok(Some(probe.local_addr().context("read the source address")?.ip()))
}
