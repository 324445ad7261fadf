//! Routes of an MRT file, shown as those of the daemon: of its last dump of a table, changed by the
//! messages after it.
//!
//! Records are kept until the file ends, to be shown in the order of prefixes: the memory is that of the
//! records that are selected.

mod replay;

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
use bgp_proto::types::{NextHop, ParseError, PathId, PeerId, Prefix, RouterId};
use flate2::bufread::MultiGzDecoder;
use replay::{Replay, Speaker};
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
    #[error(
        "it has neither a dump of a table (TABLE_DUMP_V2) nor messages (BGP4MP); {0} other records"
    )]
    NoRoutes(u64),
}

/// A dump of a table, and the messages after it.
#[derive(Default)]
struct Saved {
    /// Those of the dump, and those of messages that it does not have.
    peers: Vec<Peer>,
    positions: BTreeMap<Speaker, u32>,
    ribs: Vec<SavedRib>,
    replay: Replay,
    /// PEER_INDEX_TABLEs found.
    dumps: u64,
    /// Records that are neither of a dump nor what a peer did.
    others: u64,
    /// When the last record was made, in seconds of Unix time.
    ended: u32,
}

/// A prefix that is shown.
struct SavedRib {
    prefix: Prefix,
    /// Its RIB record; `None`: only messages named it.
    record: Option<(Header, Box<[u8]>)>,
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
        eprintln!(
            "margay: {} records say nothing of what peers announce, and are left out",
            saved.others
        );
    }
    if saved.replay.malformed > 0 {
        eprintln!("margay: {} messages are malformed, and are left out", saved.replay.malformed);
    }
    match saved.show(&select, request, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(error),
    }
}

/// The first path of each prefix in a file, its attributes in canonical form.
///
/// # Errors
/// The file cannot be read, or it has neither a dump of a table nor messages.
pub(super) fn first_paths(file: &Path) -> Result<ForeignTable, String> {
    let saved = open(file)
        .and_then(|from| read(from, &RouteSelection::default()))
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let first = |rib: &SavedRib| Some((rib.prefix, saved.paths(rib).next()?.attrs));
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

/// Reads the last dump of a file and the messages after it, as far as their prefixes are selected.
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
        saved.take(header, &body, select).map_err(wrong)?;
    }
    if saved.dumps == 0 && saved.replay.is_empty() {
        return Err(ReadError::NoRoutes(saved.others));
    }
    saved.add_replayed();
    if select.span == Span::Lookup {
        let longest = saved.ribs.iter().map(|rib| rib.prefix.len()).max();
        saved.ribs.retain(|rib| Some(rib.prefix.len()) == longest);
    }
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
    fn take(
        &mut self,
        header: Header,
        body: &[u8],
        select: &RouteSelection,
    ) -> Result<(), MrtError> {
        match Record::decode(header, body)? {
            Record::PeerIndex(index) => {
                let speaker = |peer: &Peer| Speaker { address: peer.address, asn: peer.asn };
                self.positions = index.peers.iter().map(speaker).zip(0..).collect();
                self.peers = index.peers;
                self.ribs.clear();
                self.replay.restart();
                self.dumps += 1;
            }
            Record::Rib(rib) if is_selected(rib.prefix, select) => {
                self.ribs
                    .push(SavedRib { prefix: rib.prefix, record: Some((header, body.into())) });
            }
            Record::Rib(_) => {}
            Record::Message(message) if !message.is_local => {
                let peer = self.position(message.session.into());
                self.replay.message(peer, &message, |prefix| is_selected(prefix, select));
            }
            Record::StateChange(change) => {
                let peer = self.position(change.session.into());
                self.replay.state(peer, &change);
            }
            Record::Message(_) | Record::Other { .. } => self.others += 1,
        }
        self.ended = self.ended.max(header.secs);
        Ok(())
    }

    /// The position of a peer, which is added if the dump does not have it.
    fn position(&mut self, speaker: Speaker) -> u32 {
        let next = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        *self.positions.entry(speaker).or_insert_with(|| {
            let Speaker { address, asn } = speaker;
            self.peers.push(Peer { router_id: RouterId(0), address, asn });
            next
        })
    }

    /// Adds the prefixes that only messages name, and puts all in order.
    fn add_replayed(&mut self) {
        self.ribs.sort_by_key(|rib| rib.prefix);
        let is_new =
            |prefix: &Prefix| self.ribs.binary_search_by_key(prefix, |rib| rib.prefix).is_err();
        let new: Vec<Prefix> = self.replay.prefixes().filter(is_new).collect();
        self.ribs.extend(new.into_iter().map(|prefix| SavedRib { prefix, record: None }));
        self.ribs.sort_by_key(|rib| rib.prefix);
        if !self.replay.is_empty() {
            // A prefix all of whose paths were withdrawn must not hide a shorter one from a lookup.
            let ribs = std::mem::take(&mut self.ribs);
            self.ribs = ribs.into_iter().filter(|rib| self.paths(rib).next().is_some()).collect();
        }
    }

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

    /// The paths of a prefix that match; `None` if none does.
    fn view(&self, saved: &SavedRib, filter: &RouteFilter) -> Option<DestinationView> {
        let paths: Vec<PathView> = self.paths(saved).filter(|path| filter.matches(path)).collect();
        (!paths.is_empty()).then_some(DestinationView { prefix: saved.prefix, paths })
    }

    fn paths<'a>(&'a self, saved: &'a SavedRib) -> impl Iterator<Item = PathView> + use<'a> {
        let dumped = saved.record.as_ref().and_then(|(header, body)| {
            // It has been decoded before.
            let Ok(Record::Rib(rib)) = Record::decode(*header, body) else { return None };
            Some(self.dumped(rib, header.secs))
        });
        let replayed = self.replay.paths(saved.prefix).map(|(peer, path_id, path)| PathView {
            next_hop: Some(path.next_hop),
            attrs: Arc::clone(&path.attrs),
            age_secs: u64::from(self.ended.saturating_sub(path.at)),
            ..blank(Some(PeerId(peer)), path_id)
        });
        dumped.into_iter().flatten().chain(replayed)
    }

    /// The paths of a RIB record that messages left as they were.
    fn dumped<'a>(&'a self, rib: Rib<'a>, made: u32) -> impl Iterator<Item = PathView> + use<'a> {
        // Ages are those at the last record.
        let made = if self.replay.is_empty() { made } else { self.ended };
        let prefix = rib.prefix;
        rib.entries().filter_map(move |entry| {
            let (at, path_id) = (u32::from(entry.peer), entry.path_id.unwrap_or(PathId(0)));
            if self.replay.replaces(prefix, at, path_id) {
                return None;
            }
            let (attrs, next_hop) = entry.canonical();
            let peer = self.peers.get(usize::from(entry.peer));
            let is_own = peer.is_some_and(|peer| peer.address.is_unspecified());
            Some(PathView {
                next_hop: next_hop.filter(|hop: &NextHop| !hop.addr().is_unspecified()),
                attrs: Arc::from(attrs),
                age_secs: u64::from(made.saturating_sub(entry.originated)),
                ..blank((!is_own).then_some(PeerId(at)), path_id)
            })
        })
    }
}

/// A path of which a file says nothing but this.
fn blank(peer: Option<PeerId>, path_id: PathId) -> PathView {
    PathView {
        best: false,
        multipath: false,
        stale: false,
        long_lived: false,
        unusable: None,
        source: Source::Bgp,
        preference: 0,
        own: None,
        peer,
        vantage: None,
        cost: None,
        path_id,
        next_hop: None,
        hops: Vec::new(),
        igp_metric: None,
        attrs: Arc::from([]),
        age_secs: 0,
        reason: Reason::OnlyPath,
        import_rule: None,
    }
}

#[cfg(test)]
mod tests;
