//! The task of one interface.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::ndp::{Link, News, SOLICITATION, Stats, Transmit, advertisement};
use bgp_proto::types::Time;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::socket::{From, Received, Socket};
use super::{Status, Statuses, Wanted};
use crate::engine::Clock;

/// `ff02::1` and `ff02::2`.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Most packets read from a socket at once; then it rests for [`REST`]. Two routers exchange some
/// packets a minute. What a flood sends beyond 320 a second is dropped by the kernel.
const READ_MAX: usize = 32;
const REST: Duration = Duration::from_millis(100);
/// Between two attempts to open the sockets.
const OPEN_AGAIN: Duration = Duration::from_secs(10);
/// A wait without a deadline.
const NO_DEADLINE: Duration = Duration::from_secs(3600);

/// Where a task reports what it knows.
#[derive(Debug)]
pub(super) struct Report {
    statuses: Statuses,
    changed: Arc<Notify>,
}

impl Report {
    pub(super) fn new(statuses: &Statuses, changed: &Arc<Notify>) -> Report {
        Report { statuses: statuses.clone(), changed: Arc::clone(changed) }
    }

    /// Publishes a status. An interface that is no longer followed gets none.
    fn publish(
        &self,
        ifindex: u32,
        neighbor: Option<Ipv6Addr>,
        fault: Option<Arc<str>>,
        stats: Stats,
    ) {
        let fresh = Status { neighbor, fault, stats };
        let mut statuses = self.statuses.lock();
        let Some(known) = statuses.get_mut(&ifindex) else { return };
        let is_news = (known.neighbor, &known.fault) != (fresh.neighbor, &fresh.fault);
        *known = fresh;
        drop(statuses);
        if is_news {
            self.changed.notify_one();
        }
    }
}

/// One socket, and until when it is not read.
struct Reading {
    socket: Socket,
    rests_until: Instant,
}

impl Reading {
    fn open(wanted: &Wanted, from: From) -> std::io::Result<Reading> {
        let socket = Socket::open(wanted.ifindex, &wanted.name, from)?;
        socket.join(ALL_ROUTERS)?;
        Ok(Reading { socket, rests_until: Instant::now() })
    }

    /// Waits until there is something to read, and reads it.
    async fn read(&mut self) -> Vec<Received> {
        tokio::time::sleep_until(self.rests_until).await;
        let received = self.socket.receive(READ_MAX).await;
        if received.len() >= READ_MAX {
            self.rests_until = Instant::now() + REST;
        }
        received
    }
}

/// The sockets of an interface.
struct Sockets {
    /// For the packets of all but the known neighbour.
    others: Reading,
    /// For those of the known neighbour.
    neighbor: Option<Reading>,
}

impl Sockets {
    fn open(wanted: &Wanted, neighbor: Option<Ipv6Addr>) -> std::io::Result<Sockets> {
        Ok(match neighbor {
            Some(known) => Sockets {
                others: Reading::open(wanted, From::AllBut(known))?,
                neighbor: Some(Reading::open(wanted, From::Only(known))?),
            },
            None => Sockets { others: Reading::open(wanted, From::All)?, neighbor: None },
        })
    }

    async fn read(&mut self) -> Vec<Received> {
        let Sockets { others, neighbor } = self;
        let from_neighbor = async {
            match neighbor {
                Some(reading) => reading.read().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            received = from_neighbor => received,
            received = others.read() => received,
        }
    }
}

/// Runs until the sender of `wanted` is dropped.
pub(super) async fn run(
    mut wanted: watch::Receiver<Wanted>,
    clock: Clock,
    seed: u64,
    report: Report,
) {
    let first = wanted.borrow_and_update().clone();
    let mut task = LinkTask {
        link: Link::new(first.advertises, seed),
        wanted: first,
        sockets: None,
        open_at: Instant::now(),
        fault: None,
        clock,
        report,
    };
    task.link.set_local(clock.now(), task.wanted.local);
    loop {
        task.open();
        task.drive();
        task.publish();
        let deadline = task.deadline();
        let reading = async {
            match &mut task.sockets {
                Some(sockets) => sockets.read().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let fresh = wanted.borrow_and_update().clone();
                task.change(fresh);
            }
            received = reading => task.handle(&received),
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

struct LinkTask {
    link: Link,
    wanted: Wanted,
    /// `None`: they could not be opened, and are tried again at `open_at`.
    sockets: Option<Sockets>,
    open_at: Instant,
    fault: Option<Arc<str>>,
    clock: Clock,
    report: Report,
}

impl LinkTask {
    fn now(&self) -> Time {
        self.clock.now()
    }

    fn change(&mut self, wanted: Wanted) {
        let now = self.now();
        self.link.set_advertises(now, wanted.advertises);
        self.link.set_local(now, wanted.local);
        self.wanted = wanted;
    }

    /// Opens the sockets if that is due.
    fn open(&mut self) {
        if self.sockets.is_some() || Instant::now() < self.open_at {
            return;
        }
        match Sockets::open(&self.wanted, self.link.neighbor()) {
            Ok(sockets) => {
                self.sockets = Some(sockets);
                self.fault = None;
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &std::io::Error) {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "give margay CAP_NET_RAW",
            _ => "it is tried again",
        };
        let name = &self.wanted.name;
        // Without the name, by which the peer would differ after it is renamed.
        let text = format!("router discovery cannot open a socket: {error}; {remedy}");
        if self.fault.as_deref() != Some(&text) {
            warn!("{name}: {text}");
        }
        self.fault = Some(text.into());
        self.sockets = None;
        self.open_at = Instant::now() + OPEN_AGAIN;
    }

    fn handle(&mut self, received: &[Received]) {
        let now = self.now();
        for packet in received {
            let news =
                self.link.handle_packet(now, packet.source, packet.hop_limit, packet.octets());
            if let Ok(News::Neighbor(neighbor)) = news {
                self.take(neighbor);
            }
        }
    }

    /// The neighbour is another one than before.
    fn take(&mut self, neighbor: Ipv6Addr) {
        info!("{}: the neighbour is {neighbor}, by its router advertisements", self.wanted.name);
        // The filters name the neighbour.
        self.sockets = None;
        self.open_at = Instant::now();
    }

    /// Handles deadlines and sends what is due.
    fn drive(&mut self) {
        let now = self.now();
        if let News::Neighbor(neighbor) = self.link.handle_timeout(now) {
            self.take(neighbor);
            self.open();
        }
        let Some(sockets) = &self.sockets else { return };
        let mut failed = Vec::new();
        while let Some(what) = self.link.poll_transmit(now) {
            let to = match what {
                Transmit::Solicitation => ALL_ROUTERS,
                Transmit::Advertisement => ALL_NODES,
                Transmit::Answer(to) | Transmit::Probe(to) => to,
            };
            let octets: &[u8] = match what {
                Transmit::Solicitation | Transmit::Probe(_) => &SOLICITATION,
                Transmit::Advertisement | Transmit::Answer(_) => &advertisement(),
            };
            let Some(local) = self.wanted.local else { continue };
            // A new address is tentative at first; the link may have gone down meanwhile.
            if sockets.others.socket.send(octets, local, to).is_err() {
                failed.push(what);
            }
        }
        for what in failed {
            self.link.transmit_failed(now, what);
        }
    }

    fn publish(&self) {
        let (neighbor, stats) = (self.link.neighbor(), self.link.stats());
        self.report.publish(self.wanted.ifindex, neighbor, self.fault.clone(), stats);
    }

    fn deadline(&self) -> Instant {
        if self.sockets.is_none() {
            return self.open_at;
        }
        match self.link.poll_timeout() {
            Some(at) => Instant::from_std(self.clock.instant(at)),
            None => Instant::now() + NO_DEADLINE,
        }
    }
}
