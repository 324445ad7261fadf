//! The floor of the kernel scenario: routes written in batches with one acknowledgement each, and
//! no BGP.

use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::synth::Prefix;

/// Routes per batch.
const BATCH: usize = 256;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REPLACE: u16 = 0x100;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
/// The routing protocol of BIRD's and margay's routes.
pub(super) const RTPROT_BIRD: u8 = 12;
/// The routing protocol of an operator's routes.
pub(super) const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

/// Writes every prefix with `gateway` and a routing protocol into the main table of this namespace.
///
/// # Errors
/// The kernel rejects a route.
pub(super) fn write(prefixes: &[Prefix], gateway: Ipv4Addr, protocol: u8) -> anyhow::Result<()> {
    // Protocol 0 of a netlink socket is NETLINK_ROUTE.
    let socket =
        net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .context("open a netlink socket")?;
    net::bind(&socket, &SocketAddrNetlink::new(0, 0)).context("bind a netlink socket")?;
    let mut buffer = Vec::with_capacity(BATCH * 44);
    for batch in prefixes.chunks(BATCH) {
        buffer.clear();
        for (number, prefix) in batch.iter().enumerate() {
            let last = number + 1 == batch.len();
            push_route(&mut buffer, *prefix, (gateway, protocol), last);
        }
        let sent = net::send(&socket, &buffer, SendFlags::empty()).context("write routes")?;
        ensure!(sent == buffer.len(), "the kernel took {sent} of {} octets", buffer.len());
        acknowledgement(&socket)?;
    }
    Ok(())
}

fn push_route(
    out: &mut Vec<u8>,
    (address, len): Prefix,
    (gateway, protocol): (Ipv4Addr, u8),
    last: bool,
) {
    const LEN: u32 = 16 + 12 + 8 + 8;
    let acknowledge = if last { NLM_F_ACK } else { 0 };
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | acknowledge;
    out.extend_from_slice(&LEN.to_ne_bytes());
    out.extend_from_slice(&RTM_NEWROUTE.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    // Family, lengths, TOS, table, protocol, scope, type, flags.
    out.extend_from_slice(&[2, len, 0, 0, RT_TABLE_MAIN, protocol, 0, RTN_UNICAST, 0, 0, 0, 0]);
    for (kind, value) in [(RTA_DST, Ipv4Addr::from(address)), (RTA_GATEWAY, gateway)] {
        out.extend_from_slice(&8_u16.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&value.octets());
    }
}

/// Reads the acknowledgement of a batch; the error of an earlier message arrives before it.
fn acknowledgement(socket: &OwnedFd) -> anyhow::Result<()> {
    let mut buffer = vec![0_u8; 8192];
    let (got, _) =
        net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty()).context("read an answer")?;
    let answer = buffer.get(..got).unwrap_or(&[]);
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let code = answer.get(16..20).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    ensure!(kind == Some(NLMSG_ERROR), "an answer of type {kind:?} to a batch of routes");
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(std::io::Error::from_raw_os_error(-code)).context("a route was refused"),
        None => anyhow::bail!("a short answer to a batch of routes"),
    }
}
