//! Routes of an MRT file, shown as those of the daemon.
//!
//! Records are kept until the file ends, to be shown in the order of prefixes: the memory is that of the
//! records that are selected.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use bgp_proto::mrt::{HEADER_LEN, Header, MrtError, Peer, Record, Rib};
use bgp_proto::policy::Source;
use bgp_proto::rib::Reason;
use bgp_proto::table::{AnyCommunity, AsPathPattern, DestinationView, PathView, RouteFilter};
use bgp_proto::types::{NextHop, ParseError, PathId, PeerId, Prefix};
use flate2::bufread::MultiGzDecoder;
use serde_json::value::RawValue;

use super::ask::{Demand, print, report};
use super::client::ClientError;
use super::{FAILED, Output};
use crate::ctl::item::RouteCount;
use crate::ctl::{self, ErrorKind, Names, Refusal, Request, RouteSelection, Span};
use crate::simulate::ForeignTable;

/// Size of the buffer for the file, in octets.
const BUFFER: usize = 1 << 16;
/// How a gzip file begins (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a file cannot be shown.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("record {number}: {error}")]
    Record { number: u64, error: MrtError },
    #[error("it ends within record {0}")]
    Cut(u64),
    #[error("it has no dump of a table (TABLE_DUMP_V2); {0} other records")]
    NoDump(u64),
}

/// A dump of a table.
#[derive(Default)]
struct Saved {
    peers: Vec<Peer>,
    ribs: Vec<SavedRib>,
    /// PEER_INDEX_TABLEs found.
    dumps: u64,
    /// Records that are not part of a dump.
    others: u64,
}

/// A RIB record.
struct SavedRib {
    prefix: Prefix,
    header: Header,
    body: Box<[u8]>,
}

/// Shows the routes of a file that `request`, a [`Request::ShowRoutes`], selects.
pub(super) fn show(file: &Path, request: &Request, output: &Output) -> ExitCode {
    let Request::ShowRoutes { prefix, select } = request else { return ExitCode::from(FAILED) };
    let select = RouteSelection { prefix: *prefix, ..select.clone() };
    let saved = match open(file).and_then(|from| read(from, &select)) {
        Ok(saved) => saved,
        Err(error) => {
            eprintln!("margay: cannot read {}: {error}", file.display());
            return ExitCode::from(FAILED);
        }
    };
    if saved.dumps > 1 {
        eprintln!("margay: {} dumps in one file; the last one is shown", saved.dumps);
    }
    if saved.others > 0 {
        eprintln!("margay: {} records are not of a table, and are left out", saved.others);
    }
    match saved.show(&select, request, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(error),
    }
}

/// The first path of each prefix in a file, its attributes in canonical form.
///
/// # Errors
/// The file cannot be read, or it has no dump of a table.
pub(super) fn first_paths(file: &Path) -> Result<ForeignTable, String> {
    let saved = open(file)
        .and_then(|from| read(from, &RouteSelection::default()))
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let first = |saved: &SavedRib| match Record::decode(saved.header, &saved.body) {
        Ok(Record::Rib(rib)) => {
            rib.entries().next().map(|entry| (rib.prefix, Arc::from(entry.canonical().0)))
        }
        // It has been decoded before.
        _ => None,
    };
    Ok(saved.ribs.iter().filter_map(first).collect())
}

fn open(file: &Path) -> Result<Box<dyn Read>, ReadError> {
    let plain: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(file)?) };
    let mut plain = BufReader::with_capacity(BUFFER, plain);
    if plain.fill_buf()?.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(plain))));
    }
    Ok(Box::new(plain))
}

/// Reads the last dump of a file, as far as its prefixes are selected.
fn read(mut from: impl Read, select: &RouteSelection) -> Result<Saved, ReadError> {
    let mut saved = Saved::default();
    let mut number = 0;
    let mut body = Vec::new();
    loop {
        let mut head = [0; HEADER_LEN];
        number += 1;
        match fill(&mut from, &mut head)? {
            0 => break,
            HEADER_LEN => {}
            _ => return Err(ReadError::Cut(number)),
        }
        let wrong = |error| ReadError::Record { number, error };
        let header = Header::decode(head).map_err(wrong)?;
        body.clear();
        let bound = u64::try_from(header.len).unwrap_or(u64::MAX);
        if (&mut from).take(bound).read_to_end(&mut body)? < header.len {
            return Err(ReadError::Cut(number));
        }
        match Record::decode(header, &body).map_err(wrong)? {
            Record::PeerIndex(index) => {
                saved.peers = index.peers;
                saved.ribs.clear();
                saved.dumps += 1;
            }
            Record::Rib(rib) if is_selected(rib.prefix, select) => {
                let body = body.as_slice().into();
                saved.ribs.push(SavedRib { prefix: rib.prefix, header, body });
            }
            Record::Rib(_) => {}
            Record::Message(_) | Record::StateChange(_) | Record::Other { .. } => saved.others += 1,
        }
    }
    if saved.dumps == 0 {
        return Err(ReadError::NoDump(saved.others));
    }
    if select.span == Span::Lookup {
        let longest = saved.ribs.iter().map(|rib| rib.prefix.len()).max();
        saved.ribs.retain(|rib| Some(rib.prefix.len()) == longest);
    }
    saved.ribs.sort_by_key(|rib| rib.prefix);
    Ok(saved)
}

/// Reads until the buffer is full or the file ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether a prefix may be shown; of those that contain the prefix of a lookup, the longest is.
fn is_selected(prefix: Prefix, select: &RouteSelection) -> bool {
    match (select.prefix, select.span) {
        (None, _) => true,
        (Some(wanted), Span::Exact) => prefix == wanted,
        (Some(wanted), Span::Longer) => wanted.contains(prefix),
        (Some(wanted), Span::Lookup) => prefix.contains(wanted),
    }
}

/// The peers of a dump, by position, under their addresses.
struct Addresses(BTreeMap<u32, String>);

impl Names for Addresses {
    fn peer(&self, peer: PeerId) -> Option<String> {
        self.0.get(&peer.0).cloned()
    }

    fn interface(&self, _index: u32) -> Option<String> {
        None
    }
}

impl Saved {
    fn show(
        &self,
        select: &RouteSelection,
        request: &Request,
        output: &Output,
    ) -> Result<(), ClientError> {
        let filter = self.filter(select)?;
        let numbered = (0_u32..).zip(&self.peers);
        let names = Addresses(numbered.map(|(at, peer)| (at, peer.address.to_string())).collect());
        let views = self.ribs.iter().filter_map(|rib| self.view(rib, &filter));
        let limit = usize::try_from(select.limit.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
        print(request, Demand::Nothing, output, |each| {
            let mut item = |item: Result<Box<RawValue>, serde_json::Error>| {
                each(item.map_err(ClientError::Answer)?.get())
            };
            if !select.count {
                let mut routes = views.take(limit).map(|view| ctl::route(&view, &names));
                return routes.try_for_each(|route| item(serde_json::value::to_raw_value(&route)));
            }
            let count = views.fold(RouteCount::default(), |count, view| RouteCount {
                prefixes: count.prefixes + 1,
                paths: count.paths + view.paths.len() as u64,
            });
            item(serde_json::value::to_raw_value(&count))
        })
    }

    fn filter(&self, select: &RouteSelection) -> Result<RouteFilter, Refusal> {
        let bad =
            |error: ParseError| Refusal { kind: ErrorKind::BadRequest, text: error.to_string() };
        let peer = match &select.peer {
            None => None,
            Some(name) => {
                let addresses: Vec<_> =
                    self.peers.iter().map(|peer| peer.address.to_string()).collect();
                let at = addresses.iter().position(|address| address == name);
                let at = at.and_then(|at| u32::try_from(at).ok());
                let names = addresses.iter().map(String::as_str);
                Some(PeerId(at.ok_or_else(|| Refusal::no_peer(name, names))?))
            }
        };
        let community = select.community.as_deref().map(str::parse::<AnyCommunity>);
        let as_path = select.as_path.as_deref().map(str::parse::<AsPathPattern>);
        Ok(RouteFilter {
            received_from: peer,
            community: community.transpose().map_err(bad)?,
            as_path: as_path.transpose().map_err(bad)?,
            ..RouteFilter::default()
        })
    }

    /// The paths of a record that match; `None` if none does.
    fn view(&self, saved: &SavedRib, filter: &RouteFilter) -> Option<DestinationView> {
        // It has been decoded before.
        let Ok(Record::Rib(rib)) = Record::decode(saved.header, &saved.body) else { return None };
        let paths = self.paths(&rib, saved.header.secs);
        let paths: Vec<PathView> = paths.filter(|path| filter.matches(path)).collect();
        (!paths.is_empty()).then_some(DestinationView { prefix: rib.prefix, paths })
    }

    fn paths<'a>(&'a self, rib: &Rib<'a>, made: u32) -> impl Iterator<Item = PathView> + use<'a> {
        rib.entries().map(move |entry| {
            let (attrs, next_hop) = entry.canonical();
            let peer = self.peers.get(usize::from(entry.peer));
            let is_own = peer.is_some_and(|peer| peer.address.is_unspecified());
            PathView {
                best: false,
                multipath: false,
                stale: false,
                long_lived: false,
                unusable: None,
                source: Source::Bgp,
                preference: 0,
                own: None,
                peer: (!is_own).then_some(PeerId(u32::from(entry.peer))),
                vantage: None,
                cost: None,
                path_id: entry.path_id.unwrap_or(PathId(0)),
                next_hop: next_hop.filter(|hop: &NextHop| !hop.addr().is_unspecified()),
                hops: Vec::new(),
                igp_metric: None,
                attrs: Arc::from(attrs),
                age_secs: u64::from(made.saturating_sub(entry.originated)),
                reason: Reason::OnlyPath,
                import_rule: None,
            }
        })
    }
}
