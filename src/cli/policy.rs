//! `margay policy test`.

use std::net::IpAddr;

use bgp_proto::types::Asn;
use clap::{Args, Subcommand};

use super::Output;
use super::routes::read_community;
use crate::ctl::{Destination, Request, TestRoute};

/// What to do with policies.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum PolicyCommand {
    /// Print what a policy does to the routes to a prefix: the rule that decides, each rule that
    /// applies, and each attribute that it changes.
    Test(PolicyTestArgs),
}

/// The arguments of `policy test`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PolicyTestArgs {
    /// The policy's name.
    pub policy: String,
    /// The prefix of the routes, such as 10.0.0.0/8.
    pub prefix: Destination,
    /// Only routes received from this peer, given by name or address.
    #[arg(long, value_name = "PEER")]
    pub peer: Option<String>,
    /// As export to this peer applies it, to what is the best route for it.
    #[arg(long, value_name = "PEER", conflicts_with = "peer")]
    pub to: Option<String>,
    /// Test a route that need not be in the table, with the attributes of the next options.
    #[arg(long)]
    pub route: bool,
    /// AS path of the route, such as "65001 3356".
    #[arg(long, value_name = "ASNS", requires = "route", value_parser = read_asns)]
    pub as_path: Option<AsPathArg>,
    /// A community of the route: 64512:100, no-export, 64512:1:2 or rt:64512:100. Several times: all.
    #[arg(long = "community", value_name = "COMMUNITY", requires = "route", value_parser = read_community)]
    pub communities: Vec<String>,
    /// Next hop of the route.
    #[arg(long, value_name = "ADDRESS", requires = "route")]
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF of the route.
    #[arg(long, value_name = "NUMBER", requires = "route")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC of the route.
    #[arg(long, value_name = "NUMBER", requires = "route")]
    pub med: Option<u32>,
    /// How to ask and print.
    #[command(flatten)]
    pub output: Output,
}

/// AS numbers, the neighbouring AS first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsPathArg(Vec<Asn>);

fn read_asns(text: &str) -> Result<AsPathArg, String> {
    let read = |word: &str| word.parse::<Asn>().map_err(|error| error.to_string());
    text.split_whitespace().map(read).collect::<Result<_, _>>().map(AsPathArg)
}

impl PolicyCommand {
    pub(super) fn into_request(self) -> (Request, Output) {
        let PolicyCommand::Test(args) = self;
        let route = TestRoute {
            as_path: args.as_path.map(|path| path.0).unwrap_or_default(),
            communities: args.communities,
            next_hop: args.next_hop,
            local_pref: args.local_pref,
            med: args.med,
        };
        let request = Request::PolicyTest {
            policy: args.policy,
            prefix: args.prefix.prefix,
            peer: args.peer,
            to: args.to,
            route: args.route.then_some(route),
        };
        (request, args.output)
    }

    pub(super) fn output(&mut self) -> &mut Output {
        let PolicyCommand::Test(args) = self;
        &mut args.output
    }
}
