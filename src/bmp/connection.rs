//! One connection: pages of the tables in, octets out.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bgp_proto::bmp::{TerminationReason, encode_initiation, encode_termination};
use bgp_proto::table::{MonitorId, MonitorPage, MonitorParams, PageEnd};
use bgp_proto::types::Time;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::status::{Status, TableView};
use super::{Instance, Instances};
use crate::engine::Handle;

/// A station that accepts no octet for this long is disconnected.
const STALL_MAX: Duration = Duration::from_secs(30);
/// After all that there was has been sent: changes of this long are sent together.
const GATHER: Duration = Duration::from_millis(10);
/// How often it is checked whether there are other tables.
const REVIEW: Duration = Duration::from_secs(1);
/// How long the last message may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Octets read from the station at once.
const READ: usize = 4096;
/// A station that sends more than this is no station.
const RECEIVED_MAX: u64 = 1 << 20;

/// Numbers of monitors, unique in the process.
static MONITORS: AtomicU64 = AtomicU64::new(1);

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The settings changed, or the daemon stops.
    Stopped,
    /// The station closed it.
    Closed,
    /// It failed.
    Failed(String),
    /// The station is too slow.
    TooSlow(String),
    /// The station sends what it should not.
    Talks,
    /// A table has gone: the whole state is sent anew.
    TableGone(String),
}

impl End {
    pub(super) fn text(&self) -> String {
        match self {
            End::Stopped => "ended by us".to_owned(),
            End::Closed => "the station closed the connection".to_owned(),
            End::Failed(why) => why.clone(),
            End::TooSlow(why) => format!("the station is too slow: {why}"),
            End::Talks => format!("the station sent more than {RECEIVED_MAX} octets"),
            End::TableGone(name) => format!("the table {name} has gone"),
        }
    }

    fn goodbye(&self) -> Option<TerminationReason> {
        match self {
            End::Stopped | End::TableGone(_) => Some(TerminationReason::AdministrativelyClosed),
            End::TooSlow(_) => Some(TerminationReason::OutOfResources),
            End::Talks => Some(TerminationReason::Unspecified),
            End::Closed | End::Failed(_) => None,
        }
    }
}

/// A monitor of a table, ended when it is dropped.
struct Monitor {
    id: MonitorId,
    table: Handle,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.table.monitor_end(self.id);
    }
}

type NextPage = Pin<Box<dyn Future<Output = (Arc<str>, Option<MonitorPage>)> + Send>>;

struct Connection<'a> {
    status: &'a Status,
    instances: &'a Instances,
    output: OwnedWriteHalf,
    monitors: BTreeMap<Arc<str>, Monitor>,
    pages: FuturesUnordered<NextPage>,
    /// What was written last.
    written: Written,
}

/// Whether a station has only complete messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Whole,
    /// The beginning of a page: nothing else can follow.
    Part,
}

/// Serves a station until the connection ends.
pub(super) async fn serve(
    stream: TcpStream,
    status: &Status,
    instances: &Instances,
    stopped: &mut watch::Receiver<bool>,
) -> End {
    // Messages are written in large pieces.
    let _ = stream.set_nodelay(true);
    let (input, output) = stream.into_split();
    let monitors = BTreeMap::new();
    let pages = FuturesUnordered::new();
    let written = Written::Whole;
    let mut connection = Connection { status, instances, output, monitors, pages, written };
    let end = connection.run(input, stopped).await;
    connection.monitors.clear();
    status.update(|view| view.tables.clear());
    // After a part of a message, the station would take the Termination for the rest of it.
    let reason = end.goodbye().filter(|_| connection.written == Written::Whole);
    if let Some(reason) = reason {
        let mut octets = Vec::new();
        encode_termination(&mut octets, reason, &end.text());
        // It may accept nothing any more.
        let _ = timeout(GOODBYE_MAX, connection.output.write_all(&octets)).await;
        let _ = timeout(GOODBYE_MAX, connection.output.shutdown()).await;
    }
    end
}

impl Connection<'_> {
    async fn run(&mut self, mut input: OwnedReadHalf, stopped: &mut watch::Receiver<bool>) -> End {
        let mut hello = Vec::new();
        let descr = format!("margay {}", env!("CARGO_PKG_VERSION"));
        encode_initiation(&mut hello, &descr, &host_name(), "");
        if let Err(end) = self.write(&hello).await {
            return end;
        }
        if let Err(end) = self.review() {
            return end;
        }
        let every = self.status.settings().statistics_interval;
        let mut statistics = interval(every.unwrap_or(REVIEW));
        statistics.set_missed_tick_behavior(MissedTickBehavior::Delay);
        statistics.reset();
        let mut review = interval(REVIEW);
        review.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut buffer, mut received) = ([0; READ], 0);
        loop {
            let step = tokio::select! {
                biased;
                _ = stopped.changed() => Err(End::Stopped),
                read = input.read(&mut buffer) => self.on_read(read, &mut received),
                _ = review.tick() => self.review(),
                _ = statistics.tick(), if every.is_some() => {
                    let monitors = self.monitors.values();
                    monitors.for_each(|monitor| monitor.table.monitor_statistics(monitor.id));
                    Ok(())
                }
                Some((name, page)) = self.pages.next() => self.on_page(&name, page, stopped).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn on_read(&self, read: io::Result<usize>, received: &mut u64) -> Result<(), End> {
        match read {
            Ok(0) => Err(End::Closed),
            Ok(octets) => {
                *received += octets as u64;
                self.status.update(|view| view.counts.received += octets as u64);
                if *received > RECEIVED_MAX { Err(End::Talks) } else { Ok(()) }
            }
            Err(error) => Err(End::Failed(format!("read: {error}"))),
        }
    }

    async fn on_page(
        &mut self,
        name: &Arc<str>,
        page: Option<MonitorPage>,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(), End> {
        let Some(page) = page else { return Err(End::TableGone(name.to_string())) };
        if page.end == PageEnd::Evicted {
            let why = format!("the table {name} would have to hold too much for it");
            return Err(End::TooSlow(why));
        }
        tokio::select! {
            written = self.write(&page.octets) => written?,
            _ = stopped.changed() => return Err(End::Stopped),
        }
        self.ask(name, if page.end == PageEnd::UpToDate { GATHER } else { Duration::ZERO });
        Ok(())
    }

    async fn write(&mut self, mut octets: &[u8]) -> Result<(), End> {
        while !octets.is_empty() {
            match timeout(STALL_MAX, self.output.write(octets)).await {
                Ok(Ok(written)) => {
                    octets = octets.get(written..).unwrap_or_default();
                    // The future may be dropped before it goes on.
                    self.written = if octets.is_empty() { Written::Whole } else { Written::Part };
                    self.status.update(|view| view.counts.octets += written as u64);
                }
                Ok(Err(error)) => return Err(End::Failed(format!("write: {error}"))),
                Err(_) => {
                    let secs = STALL_MAX.as_secs();
                    return Err(End::TooSlow(format!("it accepted nothing for {secs} s")));
                }
            }
        }
        Ok(())
    }

    /// Asks for the next page of a table.
    fn ask(&self, name: &Arc<str>, after: Duration) {
        let Some(monitor) = self.monitors.get(name) else { return };
        let (name, table, id) = (Arc::clone(name), monitor.table.clone(), monitor.id);
        self.pages.push(Box::pin(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            (name, table.monitor_page(id).await)
        }));
    }

    /// Begins what there is to be sent of tables that have come.
    fn review(&mut self) -> Result<(), End> {
        let present = (self.instances)();
        for (name, monitor) in &self.monitors {
            let same = |instance: &&Instance| instance.table.is_same(&monitor.table);
            if !present.iter().any(|instance| instance.name == *name && same(&instance)) {
                return Err(End::TableGone(name.to_string()));
            }
        }
        for instance in present {
            if self.monitors.contains_key(&instance.name) {
                continue;
            }
            let id = MonitorId(MONITORS.fetch_add(1, Ordering::Relaxed));
            instance.table.monitor_begin(id, Arc::new(self.params(&instance)));
            let monitor = Monitor { id, table: instance.table.clone() };
            self.monitors.insert(Arc::clone(&instance.name), monitor);
            self.ask(&instance.name, Duration::ZERO);
            let table = TableView { instance, monitor: id };
            self.status.update(|view| view.tables.push(table));
        }
        Ok(())
    }

    fn params(&self, instance: &Instance) -> MonitorParams {
        let settings = self.status.settings();
        let zero = instance.table.clock().wall(Time::ZERO).duration_since(UNIX_EPOCH);
        MonitorParams {
            ribs: settings.ribs.clone(),
            peers: settings.peers.clone(),
            mirror: settings.mirror,
            octets_max: settings.memory_max,
            zero: u32::try_from(zero.unwrap_or_default().as_secs()).unwrap_or(u32::MAX),
            distinguisher: instance.distinguisher,
            table_name: Arc::clone(&instance.name),
        }
    }
}

/// The host's name, for sysName.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
