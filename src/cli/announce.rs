//! `margay announce` and `margay withdraw`.

use std::net::IpAddr;

use clap::Args;

use super::Output;
use super::routes::read_community;
use crate::ctl::{AnnounceOptions, Destination, Request};

/// The arguments of `announce`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct AnnounceArgs {
    /// The network to announce, such as 192.0.2.0/24; an address: the route to this host.
    pub prefix: Destination,
    /// The next hop that peers are sent, instead of our own address; next-hop = "self" of a peer, and
    /// policies, come before it.
    #[arg(long, value_name = "ADDRESS")]
    pub next_hop: Option<IpAddr>,
    /// A community: 64512:100, no-export, blackhole, 64512:1:2 or rt:64512:100. Several times: all.
    #[arg(long = "community", value_name = "COMMUNITY", value_parser = read_community)]
    pub communities: Vec<String>,
    /// MULTI_EXIT_DISC.
    #[arg(long, value_name = "NUMBER")]
    pub med: Option<u32>,
    /// LOCAL_PREF, which internal peers are sent.
    #[arg(long, value_name = "NUMBER")]
    pub local_pref: Option<u32>,
    /// Withdraw it after this time, for example 90s or 10m; at most one day.
    #[arg(long = "for", value_name = "TIME", value_parser = super::read_confirm_time)]
    pub seconds: Option<u32>,
    /// In this VRF instead of the default one.
    #[arg(long, value_name = "VRF")]
    pub vrf: Option<String>,
    /// How to ask and print.
    #[command(flatten)]
    pub output: Output,
}

/// The arguments of `withdraw`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct WithdrawArgs {
    /// The network that was announced.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub prefix: Option<Destination>,
    /// Everything that was announced in the VRF.
    #[arg(long)]
    pub all: bool,
    /// In this VRF instead of the default one.
    #[arg(long, value_name = "VRF")]
    pub vrf: Option<String>,
    /// How to ask and print.
    #[command(flatten)]
    pub output: Output,
}

impl AnnounceArgs {
    pub(super) fn into_request(self) -> (Request, Output) {
        let AnnounceArgs { prefix, next_hop, communities, med, local_pref, seconds, vrf, output } =
            self;
        let options = AnnounceOptions { vrf, seconds, next_hop, communities, local_pref, med };
        (Request::Announce { prefix: prefix.prefix, options }, output)
    }
}

impl WithdrawArgs {
    pub(super) fn into_request(self) -> (Request, Output) {
        let WithdrawArgs { prefix, all: _, vrf, output } = self;
        (Request::Withdraw { prefix: prefix.map(|destination| destination.prefix), vrf }, output)
    }
}
