//! The cost of decoding and encoding UPDATEs.
//!
//! Budget (release profile): 100 ns to validate and canonicalise an attribute set of 65 octets; 5
//! ns per prefix to validate NLRI, and the same to iterate them.
//!
//! Run with `cargo bench --bench codec`; `--profile fast` builds faster, for a first impression.

use std::hint::black_box;
use std::time::Duration;

use bgp_proto::types::{
    Asn, Community, Family, NextHop, PathId, PeerType, Prefix, Prefix4, Prefix6,
};
use bgp_proto::wire::{
    AnnounceFormat, AttrEdit, HEADER_LEN, MAX_LEN, Nlri, Origin, Update, UpdateContext,
    UpdateWriter, Verdict, split_messages,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const CX: UpdateContext = UpdateContext::new(PeerType::External, Asn(65001));
const OLD: UpdateContext = UpdateContext { four_octet_as: false, ..CX };

/// Attributes as a transit peer sends them: ORIGIN, an AS_PATH of five ASes, MED, AGGREGATOR, two
/// communities; 65 octets with NEXT_HOP.
fn attributes() -> AttrEdit {
    let mut edit = AttrEdit::originate(Origin::Igp);
    for asn in [64500, 64499, 64498, 4_200_000_000, 65001] {
        edit.prepend_as(Asn(asn), 1);
    }
    edit.set_med(50);
    edit.set(0xC0, 7, &[0, 0, 0xfb, 0xf4, 10, 0, 0, 1]);
    edit.set_communities(&[Community(0xfde9_0001), Community(0xfde9_0002)]);
    edit
}

fn prefixes(family: Family, n: u32) -> Vec<Prefix> {
    (0..n)
        .map(|i| match family {
            // A mix of lengths as in a full table: mostly /24, some /22, /20, /16.
            Family::Ipv4 => {
                let len = [24, 24, 24, 22, 24, 20, 24, 16][i as usize % 8];
                Prefix::V4(Prefix4::from_bits(0x0100_0000 + (i << 12), len))
            }
            Family::Ipv6 => {
                let len = [48, 48, 32, 44][i as usize % 4];
                Prefix::V6(Prefix6::from_bits((0x2001_0db8u128 << 96) + (u128::from(i) << 80), len))
            }
        })
        .collect()
}

fn format(family: Family, four_octet_as: bool) -> AnnounceFormat {
    AnnounceFormat { family, four_octet_as, add_path: false, max_len: MAX_LEN }
}

fn hop(family: Family) -> NextHop {
    match family {
        Family::Ipv4 => NextHop::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        Family::Ipv6 => NextHop::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

fn encode(
    out: &mut Vec<u8>,
    attrs: &AttrEdit,
    format: AnnounceFormat,
    prefixes: &[Prefix],
) -> usize {
    let mut writer = UpdateWriter::announce(out, format, attrs.view(), hop(format.family));
    for prefix in prefixes {
        let _ = writer.push(PathId(0), *prefix);
    }
    writer.finish()
}

/// The body of one UPDATE with these prefixes.
fn body(family: Family, four_octet_as: bool, n: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let messages =
        encode(&mut out, &attributes(), format(family, four_octet_as), &prefixes(family, n));
    assert_eq!(messages, 1);
    split_messages(&out).next().map(|m| m[HEADER_LEN..].to_vec()).unwrap_or_default()
}

/// An UPDATE body with unsorted attributes and flags as Cisco sends them (always with the Extended
/// Length bit).
fn disordered() -> Vec<u8> {
    let mut attrs: Vec<Vec<u8>> = attributes()
        .view()
        .iter()
        .map(|a| [&[a.flags | 0x10, a.code, 0, a.value.len() as u8], a.value].concat())
        .collect();
    attrs.push(vec![0x40, 3, 4, 192, 0, 2, 1]);
    attrs.rotate_left(2);
    let attrs = attrs.concat();
    let mut body = vec![0, 0];
    body.extend((attrs.len() as u16).to_be_bytes());
    body.extend(attrs);
    body.extend([24, 203, 0, 113]);
    body
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse+canonical");
    let mut out = Vec::with_capacity(MAX_LEN);
    let mut bench = |name: BenchmarkId, body: &[u8], cx: &UpdateContext| {
        let update = Update::parse(body, cx).expect("a valid message");
        assert_eq!(update.verdict(), Verdict::Accept);
        let prefixes: usize = update.reach().map(|r| r.nlri.count()).sum();
        group.throughput(Throughput::Elements(prefixes as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let update = Update::parse(black_box(body), cx).expect("a valid message");
                update.canonical_attrs(&mut out);
                black_box((&out, update.verdict()));
            })
        });
    };
    let one = body(Family::Ipv4, true, 1);
    println!("attribute set: {} octets", u16::from_be_bytes([one[2], one[3]]));
    for n in [1, 10, 500] {
        bench(BenchmarkId::new("ipv4", n), &body(Family::Ipv4, true, n), &CX);
        bench(BenchmarkId::new("ipv6", n), &body(Family::Ipv6, true, n), &CX);
    }
    bench(BenchmarkId::new("two-octet", 1), &body(Family::Ipv4, false, 1), &OLD);
    bench(BenchmarkId::new("disordered", 1), &disordered(), &CX);
    group.finish();
}

fn nlri(c: &mut Criterion) {
    const N: u32 = 800;
    let mut group = c.benchmark_group("nlri");
    group.throughput(Throughput::Elements(N.into()));
    for family in Family::ALL {
        for add_path in [false, true] {
            let mut bytes = Vec::new();
            for prefix in prefixes(family, N) {
                Nlri::push(&mut bytes, add_path.then_some(PathId(7)), prefix);
            }
            let name = if add_path { format!("{family}+path-id") } else { family.to_string() };
            group.bench_function(BenchmarkId::new("parse", &name), |b| {
                b.iter(|| Nlri::parse(family, add_path, black_box(&bytes)).is_ok())
            });
            let run = Nlri::parse(family, add_path, &bytes).expect("written by us");
            assert_eq!(run.count(), N as usize);
            group.bench_function(BenchmarkId::new("iterate", &name), |b| {
                b.iter(|| match family {
                    Family::Ipv4 => black_box(&run)
                        .iter4()
                        .fold(0u32, |sum, (id, p)| sum ^ p.bits() ^ id.0 ^ u32::from(p.len())),
                    Family::Ipv6 => black_box(&run).iter6().fold(0u32, |sum, (id, p)| {
                        sum ^ p.bits() as u32 ^ id.0 ^ u32::from(p.len())
                    }),
                })
            });
            group.bench_function(BenchmarkId::new("iterate-any", &name), |b| {
                b.iter(|| {
                    black_box(&run)
                        .iter()
                        .fold(0u32, |sum, (id, p)| sum ^ id.0 ^ u32::from(p.len()))
                })
            });
        }
    }
    group.finish();
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let attrs = attributes();
    let mut out = Vec::with_capacity(128 * 1024);
    for family in Family::ALL {
        for n in [1, 10, 500, 10_000] {
            let prefixes = prefixes(family, n);
            group.throughput(Throughput::Elements(n.into()));
            group.bench_function(BenchmarkId::new(family.to_string(), n), |b| {
                b.iter(|| {
                    out.clear();
                    encode(&mut out, &attrs, format(family, true), black_box(&prefixes))
                })
            });
        }
    }
    group.finish();
}

fn edit(c: &mut Criterion) {
    let attrs = attributes();
    c.bench_function("edit/copy+prepend+local-pref", |b| {
        b.iter(|| {
            let mut edit = AttrEdit::from_view(black_box(attrs.view()));
            edit.prepend_as(Asn(65000), 1);
            edit.set_local_pref(100);
            edit.into_bytes()
        })
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = decode, nlri, write, edit
}
criterion_main!(benches);
