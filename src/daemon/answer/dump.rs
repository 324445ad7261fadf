//! Dumps of a table in the MRT format, a page at a time.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bgp_proto::table::{Dump, DumpOptions};
use bgp_proto::types::{Family, Time};

use super::sources::{Sources, in_slices, is_stopping};
use crate::ctl::item::DumpPart;
use crate::ctl::{Cursor, Page, Refusal};

/// Octets of MRT in one page, apart from the last prefix: what a client that does not read costs.
const PAGE_OCTETS: usize = 1 << 18;

/// One page of a dump.
pub(super) async fn page(
    sources: &Sources,
    (vrf, family): (Option<&str>, Option<Family>),
    cursor: Option<&Cursor>,
) -> Result<Page, Refusal> {
    let sources = sources.in_vrf(vrf)?;
    let (dump, octets) = match cursor {
        Some(Cursor::Dump(dump)) => (Dump::clone(dump), Vec::new()),
        _ => {
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
    let (dump, octets, is_over) = work.await.ok_or_else(is_stopping)?;
    let part = DumpPart {
        mrt: STANDARD.encode(&octets),
        prefixes: dump.prefixes,
        paths: dump.paths,
        left_out: dump.left_out,
    };
    Page::new([part], (!is_over).then(|| Cursor::Dump(Box::new(dump))))
}

/// Seconds of Unix time, which MRT has 32 bits for.
fn unix(at: SystemTime) -> u32 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
