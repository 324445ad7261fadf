//! `margay probe`.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::Output;
use crate::ctl::{Password, ProbeOptions, Request};

/// The arguments of `probe`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ProbeArgs {
    /// Name or address of a peer, or the address of a neighbour that is not configured.
    peer: String,
    /// The neighbour's AS; for one that is not configured any, unless given.
    #[arg(long, value_name = "ASN", value_parser = clap::value_parser!(u32).range(1..))]
    remote_asn: Option<u32>,
    /// The neighbour's TCP port.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Our address.
    #[arg(long, value_name = "ADDRESS")]
    source_address: Option<IpAddr>,
    /// TTL to send with.
    #[arg(
        long,
        value_name = "TTL",
        conflicts_with = "ttl_security",
        value_parser = clap::value_parser!(u8).range(1..)
    )]
    multihop_ttl: Option<u8>,
    /// Hops to the neighbour, for TTL security (RFC 5082).
    #[arg(long, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..255))]
    ttl_security: Option<u8>,
    /// The VRF of a neighbour that is not configured.
    #[arg(long, value_name = "VRF")]
    vrf: Option<String>,
    /// A file with the TCP MD5 key; a line end at its end is not part of it. Default: that of the peer.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Connect although the session has a connection, which may end it.
    #[arg(long)]
    force: bool,
    /// How to ask and print.
    #[command(flatten)]
    pub(super) output: Output,
}

impl ProbeArgs {
    /// # Errors
    /// The file with the password cannot be read.
    pub(super) fn into_request(self) -> Result<(Request, Output), String> {
        let password = match &self.password_file {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Some(Password(line.strip_suffix('\r').unwrap_or(line).to_owned()))
            }
        };
        let options = ProbeOptions {
            remote_asn: self.remote_asn,
            port: self.port,
            source_address: self.source_address,
            multihop_ttl: self.multihop_ttl,
            ttl_security: self.ttl_security,
            vrf: self.vrf,
            password,
            force: self.force,
        };
        Ok((Request::Probe { peer: self.peer, options }, self.output))
    }
}
