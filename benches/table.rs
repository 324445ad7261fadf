//! The cost of a route in the table: import, decision, encoding for one group and fetching by one
//! reader.
//!
//! Budget (release profile): 250 ns and 110 octets of resident memory per prefix of a first full
//! feed with one export group; 60 ns and 70 octets for each further path.
//!
//! Run with `cargo bench -p bgp-proto --bench table`; `--profile fast` builds faster, for a first
//! impression. Each case is measured in one long run rather than many short ones, because memory
//! figures are meaningful only for a fresh table.

// The library must not read a clock; a benchmark has to.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bgp_proto::export::{Fetch, Reader};
use bgp_proto::rib::NextHopState;
use bgp_proto::session::Negotiated;
use bgp_proto::table::{
    NextHopRequest, NextTurn, PeerRoutes, ReflectionParams, Table, TableConfig, Work,
};
use bgp_proto::types::{
    Asn, Community, Family, NextHop, PeerId, PeerType, Prefix, Prefix4, RouterId, SessionId, Time,
};
use bgp_proto::wire::{
    AttrEdit, HEADER_LEN, Nlri, Origin, RouteBatch, Update, UpdateContext, Verdict, split_messages,
};

/// An AS number that no recorded path contains.
const OUR_ASN: Asn = Asn(4_200_000_001);
/// The size of one read from a socket, octets.
const BATCH_MAX: usize = 64 << 10;

fn table(fib_enabled: bool) -> Table {
    let config = TableConfig { fib_enabled, ..TableConfig::new(OUR_ASN, RouterId(1)) };
    Table::new(Arc::new(config), 0x5eed, Waker::noop().clone())
}

fn peer(table: &mut Table, id: u32, asn: Asn) -> Vec<Reader> {
    up(table, id, asn, PeerRoutes::new(format!("peer{id}")))
}

fn up(table: &mut Table, id: u32, asn: Asn, routes: PeerRoutes) -> Vec<Reader> {
    let address = IpAddr::from([192, 0, 2, id as u8]);
    table.peer_add(PeerId(id), address, Arc::new(routes));
    let negotiated = Negotiated {
        peer_router_id: RouterId(id),
        ..Negotiated::plain((OUR_ASN, IpAddr::from([192, 0, 2, 254])), (asn, address))
    };
    table.peer_up(PeerId(id), SessionId(1), Arc::new(negotiated));
    loop {
        let _ = table.turn(Time::ZERO, Work::TURN);
        if let Some(established) = table.poll_established() {
            return established.readers;
        }
    }
}

/// Routes in batches, each of the size of one read.
struct Feed {
    batches: Vec<RouteBatch>,
    prefixes: usize,
}

impl Feed {
    fn push(&mut self, nlri: Nlri<'_>, announce: Option<(&[u8], NextHop)>) {
        if self.batches.last().is_none_or(|batch| batch.size() >= BATCH_MAX) {
            self.batches.push(RouteBatch::default());
        }
        self.batches.last_mut().expect("pushed above").push(nlri, announce);
        self.prefixes += nlri.count();
    }
}

/// `count` prefixes, seven per attribute set, as in a real table.
fn synthetic(count: u32, peer: u32) -> Feed {
    feed(count, Asn(65000 + peer), peer, None)
}

/// The same with one AS_PATH whatever the next hop, and with LOCAL_PREF, as internal peers send it.
fn reflected(count: u32, hop: u32) -> Feed {
    feed(count, Asn(65000), hop, Some(100))
}

fn feed(count: u32, first_as: Asn, hop: u32, local_pref: Option<u32>) -> Feed {
    let mut feed = Feed { batches: Vec::new(), prefixes: 0 };
    let mut bytes = Vec::new();
    for first in (0..count).step_by(7) {
        let mut edit = AttrEdit::originate(Origin::Igp);
        let set = first / 7;
        for asn in [set % 60_000 + 1, 3356, 174 + set % 20, first_as.0] {
            edit.prepend_as(Asn(asn), 1);
        }
        edit.set_med(set % 100);
        local_pref.into_iter().for_each(|local_pref| edit.set_local_pref(local_pref));
        edit.set_communities(&[
            Community(0xfde9_0000 + set / 60_000),
            Community(0xfde9_0100 + set % 50),
        ]);
        bytes.clear();
        for at in first..count.min(first + 7) {
            // Scattered over the address space, as arrival order is.
            let addr = at.wrapping_mul(0x9E37_79B1) & 0xFFFF_FF00;
            Nlri::push(&mut bytes, None, Prefix::V4(Prefix4::from_bits(addr, 24)));
        }
        let nlri = Nlri::parse(Family::Ipv4, false, &bytes).expect("just written");
        let hop = NextHop::from(IpAddr::from([192, 0, 2, hop as u8]));
        feed.push(nlri, Some((edit.view().as_bytes(), hop)));
    }
    feed
}

/// The transfer of a full table as recorded in 2015; `None` where the shared data is not present.
fn recorded() -> Option<Feed> {
    let shared = std::env::var("MARGAY_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").to_owned());
    let path = format!("{shared}/data/tables/full-table-transfer.2015.mrt.gz");
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) => {
            println!("skipped: {path}: {error}");
            return None;
        }
    };
    let mut mrt = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut mrt).expect("the file is whole");
    let mut cx = UpdateContext::new(PeerType::External, Asn(3856));
    (cx.enforce_first_as, cx.reject_as_sets) = (false, false);
    let mut feed = Feed { batches: Vec::new(), prefixes: 0 };
    let (mut rest, mut attrs) = (mrt.as_slice(), Vec::new());
    while let Some((header, after)) = rest.split_at_checked(12) {
        let len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let (record, after) = after.split_at(len);
        rest = after;
        // BGP4MP_ET, MESSAGE_AS4, IPv4 addresses: the message follows 24 octets of record header.
        if header[5] != 17 || header[7] != 4 || record[24 + 18] != 2 {
            continue;
        }
        for message in split_messages(&record[24..]) {
            let update = Update::parse(&message[HEADER_LEN..], &cx).expect("a recorded UPDATE");
            if update.verdict() != Verdict::Accept {
                continue;
            }
            attrs.clear();
            update.canonical_attrs(&mut attrs);
            update.unreach().for_each(|nlri| feed.push(nlri, None));
            update.reach().for_each(|reach| feed.push(reach.nlri, Some((&attrs, reach.next_hop))));
        }
    }
    assert!(feed.prefixes > 500_000, "the recorded table has {} prefixes only", feed.prefixes);
    Some(feed)
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn drain(readers: &mut [Reader]) -> usize {
    let mut total = 0;
    let mut pieces = Vec::new();
    for reader in readers {
        while reader.fetch(256 << 10, &mut pieces, Waker::noop()) == Fetch::Data {
            total += pieces.drain(..).map(|piece| piece.as_bytes().len()).sum::<usize>();
        }
    }
    total
}

/// Runs turns until there is nothing left to do, with every next hop resolved at once; returns the
/// octets read and the kernel route changes.
fn turn(table: &mut Table, readers: &mut [Reader], fib: bool) -> (usize, usize) {
    let (mut octets, mut routes) = (0, 0);
    loop {
        let more = table.turn(Time::ZERO, Work::TURN).next == NextTurn::Now;
        let mut resolved = false;
        for request in table.poll_next_hops() {
            if let NextHopRequest::Track(addr) = request {
                table.handle_next_hop(addr, NextHopState::connected(addr, 1));
                resolved = true;
            }
        }
        let read = drain(readers);
        octets += read;
        if fib {
            loop {
                let changes = table.poll_fib(1024);
                routes += changes.len();
                if changes.len() < 1024 {
                    break;
                }
            }
        }
        if !more && !resolved && read == 0 {
            return (octets, routes);
        }
    }
}

/// CPU time of the process, which other load on the machine hardly affects.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

struct Report {
    name: String,
    prefixes: usize,
    memory: usize,
    cpu: Duration,
    started: Instant,
}

impl Report {
    fn begin(name: &str, feed: &Feed) -> Self {
        let (name, prefixes) = (name.to_owned(), feed.prefixes);
        let (memory, cpu, started) = (resident(), cpu_time(), Instant::now());
        Report { name, prefixes, memory, cpu, started }
    }

    fn end(self, note: &str) {
        let per_prefix = |time: Duration| time.as_nanos() as f64 / self.prefixes as f64;
        let (cpu, wall) = (cpu_time() - self.cpu, self.started.elapsed());
        let memory = resident() as f64 - self.memory as f64;
        println!(
            "{:44} {:>7} prefixes, each {:>5.0} ns cpu, {:>5.0} ns wall, {:>6.1} octets; {note}",
            self.name,
            self.prefixes,
            per_prefix(cpu),
            per_prefix(wall),
            memory / self.prefixes as f64
        );
    }
}

/// Establishes two feeders and a receiver; returns the receiver's readers.
fn populate(table: &mut Table) -> Vec<Reader> {
    peer(table, 1, Asn(65001));
    peer(table, 2, Asn(65002));
    peer(table, 3, Asn(65003))
}

#[inline(never)]
fn first_feed(name: &str, table: &mut Table, readers: &mut [Reader], feed: &Feed, fib: bool) {
    turn(table, readers, fib);
    let report = Report::begin(&format!("{name}: first feed"), feed);
    let (mut octets, mut routes) = (0, 0);
    for batch in &feed.batches {
        table.apply(PeerId(1), batch.clone(), None);
        let done = turn(table, readers, fib);
        octets += done.0;
        routes += done.1;
    }
    let totals = table.totals();
    report.end(&format!(
        "{octets} octets out, {} sets, {routes} kernel routes",
        totals.attribute_sets
    ));
    assert_eq!(table.counts(PeerId(3)).advertised[Family::Ipv4], totals.destinations[Family::Ipv4]);
}

fn measure(name: &str, feed: &Feed, other: Option<&Feed>, fib: bool) {
    let mut table = table(fib);
    let mut readers = populate(&mut table);
    first_feed(name, &mut table, &mut readers, feed, fib);

    let mut joined = join(name, &mut table, feed, fib);
    if let Some(other) = other {
        second_feed(name, &mut table, &mut readers, other, fib);
        drain(&mut joined);
    }
    readers.append(&mut joined);
    feeder_goes(name, &mut table, &mut readers, feed, fib);
}

#[inline(never)]
fn join(name: &str, table: &mut Table, feed: &Feed, fib: bool) -> Vec<Reader> {
    let report = Report::begin(&format!("{name}: a further receiver joins"), feed);
    let mut joined = peer(table, 4, Asn(65004));
    let (octets, _) = turn(table, &mut joined, fib);
    report.end(&format!("{octets} octets out"));
    joined
}

#[inline(never)]
fn second_feed(name: &str, table: &mut Table, readers: &mut [Reader], feed: &Feed, fib: bool) {
    let report = Report::begin(&format!("{name}: second feed"), feed);
    for batch in &feed.batches {
        table.apply(PeerId(2), batch.clone(), None);
        turn(table, readers, fib);
    }
    report.end("");
}

#[inline(never)]
fn feeder_goes(name: &str, table: &mut Table, readers: &mut [Reader], feed: &Feed, fib: bool) {
    let report = Report::begin(&format!("{name}: the first feeder goes"), feed);
    table.peer_down(PeerId(1), SessionId(1), None);
    let (octets, _) = turn(table, readers, fib);
    report.end(&format!("{octets} octets out"));
}

/// Feeders, each at a vantage of its own, that announce the same prefixes.
const FEEDERS: u32 = 8;
/// Clients of the reflector.
const CLIENTS: u32 = 64;

/// A client of a reflector, at one of `vantages` vantages; 0: there are none.
fn client(table: &mut Table, id: u32, vantages: u32) -> Vec<Reader> {
    let number = id.checked_rem(vantages);
    let routes = PeerRoutes {
        reflection: ReflectionParams { client: true, cluster_id: None },
        vantage: number.map(|number| format!("zone-{number}").into()),
        ..PeerRoutes::new(format!("peer{id}"))
    };
    up(table, id, OUR_ASN, routes)
}

/// What it costs that clients are at `count` vantages: `FEEDERS` paths for each prefix, which differ
/// in their next hops alone, to `CLIENTS` clients. The feeders are at `FEEDERS` vantages, and do not read;
/// with a `count` of 0 nobody has a vantage.
fn vantages(count: u32, prefixes: u32) {
    let mut table = table(false);
    let mut readers = Vec::new();
    let feeding = if count == 0 { 0 } else { FEEDERS };
    (1..=FEEDERS).for_each(|id| drop(client(&mut table, id, feeding)));
    for id in FEEDERS + 1..=FEEDERS + CLIENTS {
        readers.append(&mut client(&mut table, id, count));
    }
    turn(&mut table, &mut readers, false);
    let feeds: Vec<Feed> = (1..=FEEDERS).map(|hop| reflected(prefixes, hop)).collect();
    let report = Report::begin(&format!("{count} vantages: {FEEDERS} feeds"), &feeds[0]);
    let mut octets = 0;
    for (peer, feed) in (1..).zip(&feeds) {
        for batch in &feed.batches {
            table.apply(PeerId(peer), batch.clone(), None);
            octets += turn(&mut table, &mut readers, false).0;
        }
    }
    report.end(&format!("{octets} octets out, {} groups", table.totals().groups));
    let report = Report::begin(&format!("{count} vantages: the first feeder goes"), &feeds[0]);
    table.peer_down(PeerId(1), SessionId(1), None);
    let (octets, _) = turn(&mut table, &mut readers, false);
    report.end(&format!("{octets} octets out"));
}

fn main() {
    // `vantages=8 50000`: with so many vantages and prefixes. Memory is comparable only between fresh
    // processes.
    let of_vantages = |argument: String| argument.strip_prefix("vantages=")?.parse().ok();
    if let Some(count) = std::env::args().find_map(of_vantages) {
        let prefixes = std::env::args().find_map(|argument| argument.parse().ok());
        return vantages(count, prefixes.unwrap_or(50_000));
    }
    // With a number as argument, only that many synthetic prefixes are measured, for use with a
    // profiler; `kernel` adds kernel routes, and `feed` stops after the first feed.
    if let Some(count) = std::env::args().find_map(|argument| argument.parse().ok()) {
        let has = |word: &str| std::env::args().any(|argument| argument == word);
        let fib = has("kernel");
        let first = synthetic(count, 1);
        if has("feed") {
            let mut table = table(fib);
            let mut readers = populate(&mut table);
            first_feed("synthetic", &mut table, &mut readers, &first, fib);
            return;
        }
        let second = synthetic(count, 2);
        measure("synthetic", &first, (!fib).then_some(&second), fib);
        return;
    }
    if let Some(feed) = recorded() {
        measure("recorded 2015", &feed, None, false);
    }
    let (first, second) = (synthetic(1_000_000, 1), synthetic(1_000_000, 2));
    measure("synthetic", &first, Some(&second), false);
    measure("synthetic with kernel", &first, None, true);
}
