//! Dumps of a table in the MRT format, a page at a time.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bgp_proto::table::{Dump, DumpOptions};
use bgp_proto::types::{Family, Time};

use super::sources::{Sources, in_slices, is_stopping};
use crate::config::{MrtCompression, MrtSettings};
use crate::ctl::item::DumpPart;
use crate::ctl::{Cursor, Page, Refusal};
use crate::mrt::{Recorder, TableFile};

/// Octets of MRT in one page, apart from the last prefix: what a client that does not read costs.
const PAGE_OCTETS: usize = 1 << 18;

/// One page of a dump.
pub(super) async fn page(
    sources: &Sources,
    (vrf, family): (Option<&str>, Option<Family>),
    cursor: Option<&Cursor>,
) -> Result<Page, Refusal> {
    let sources = sources.in_vrf(vrf)?;
    let under_way = match cursor {
        Some(Cursor::Dump(dump)) => Some(Dump::clone(dump)),
        _ => None,
    };
    let (dump, octets, is_over) = next(&sources, (vrf, family), under_way).await?;
    let part = DumpPart {
        mrt: STANDARD.encode(&octets),
        prefixes: dump.prefixes,
        paths: dump.paths,
        left_out: dump.left_out,
    };
    Page::new([part], (!is_over).then(|| Cursor::Dump(Box::new(dump))))
}

/// The next part of a dump that is under way, or of a new one; and whether it is the last.
async fn next(
    sources: &Sources,
    (vrf, family): (Option<&str>, Option<Family>),
    dump: Option<Dump>,
) -> Result<(Dump, Vec<u8>, bool), Refusal> {
    let (dump, octets) = match dump {
        Some(dump) => (dump, Vec::new()),
        None => {
            let options = DumpOptions {
                family,
                view: vrf.unwrap_or_default().to_owned(),
                began: unix(SystemTime::now()),
                zero: unix(sources.wall(Time::ZERO)),
            };
            let begin = move |table: &bgp_proto::table::Table, _| {
                let mut octets = Vec::new();
                (table.begin_dump(options, &mut octets), octets)
            };
            sources.ask(begin).await?
        }
    };
    let work = in_slices(&sources.table, (dump, octets, false), |table, work, budget| {
        let (dump, octets, is_over) = work;
        let slice = table.dump_slice(dump, octets, PAGE_OCTETS, budget);
        *is_over = slice.is_over;
        (slice.done, slice.is_over || octets.len() >= PAGE_OCTETS)
    });
    work.await.ok_or_else(is_stopping)
}

/// Dumps by time.
#[derive(Clone)]
pub(in crate::daemon) struct DumpView {
    pub(super) sources: Sources,
    pub(super) recorder: Recorder,
}

impl DumpView {
    /// Dumps every table at multiples of the interval, for as long as the future is polled.
    pub(in crate::daemon) async fn repeat(self, settings: MrtSettings, interval: Duration) {
        let interval = interval.as_secs().max(1);
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            tokio::time::sleep(Duration::from_secs(interval - now.as_secs() % interval)).await;
            let vrfs = self.sources.vrfs.all().into_iter().map(|(name, _)| Some(name.to_string()));
            let mut written = Ok(());
            for vrf in std::iter::once(None).chain(vrfs.collect::<Vec<_>>()) {
                written = written.and(self.write(vrf, &settings).await);
            }
            self.recorder.note_tables(&settings.directory, written);
        }
    }

    async fn write(&self, vrf: Option<String>, settings: &MrtSettings) -> io::Result<()> {
        let refused = |refusal: Refusal| io::Error::other(refusal.text);
        // A VRF whose device has just gone has no table.
        let Ok(sources) = self.sources.in_vrf(vrf.as_deref()) else { return Ok(()) };
        let (folder, of) = (settings.directory.clone(), vrf.clone());
        let gzip = settings.compression == MrtCompression::Gzip;
        let create = move || TableFile::create(&folder, of.as_deref(), gzip);
        let mut file = blocking(create).await?;
        let mut dump = None;
        loop {
            let held = Held(Some(file));
            let part = next(&sources, (vrf.as_deref(), None), dump.take()).await;
            let Some(taken) = held.take() else { return Ok(()) };
            file = taken;
            let part = part.map_err(refused);
            let appended = match part {
                Ok((under_way, octets, is_over)) => {
                    dump = Some(under_way);
                    let append = move || {
                        let appended = file.append(&octets);
                        Ok((file, appended.map(|()| is_over)))
                    };
                    let appended;
                    (file, appended) = blocking(append).await?;
                    appended
                }
                Err(error) => Err(error),
            };
            match appended {
                Ok(false) => {}
                Ok(true) => {
                    let keep = settings.keep;
                    return blocking(move || file.complete(keep)).await;
                }
                Err(error) => {
                    // The error to report is the first one.
                    let _ = blocking(move || file.discard()).await;
                    return Err(error);
                }
            }
        }
    }
}

/// A file while the next part is awaited. If the dump is aborted meanwhile, the file is removed on a thread
/// that may wait for the disk.
struct Held(Option<TableFile>);

impl Held {
    fn take(mut self) -> Option<TableFile> {
        self.0.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            tokio::task::spawn_blocking(move || file.discard());
        }
    }
}

/// Waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Seconds of Unix time, which MRT has 32 bits for.
fn unix(at: SystemTime) -> u32 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
