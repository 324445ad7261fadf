//! `margay events`.

use clap::Args;

use super::Output;
use crate::ctl::Request;

/// Events that `--follow` prints before it waits for further ones.
const FOLLOW_FROM: u32 = 10;

/// The arguments of `events`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// Only those of this peer, given by name or address.
    #[arg(long, value_name = "PEER")]
    pub peer: Option<String>,
    /// Only the last COUNT events; with --follow, 10 unless given.
    #[arg(long, value_name = "COUNT")]
    pub last: Option<u32>,
    /// Print further events as they occur; JSON then is one object per line.
    #[arg(long, short)]
    pub follow: bool,
    /// How to ask and print.
    #[command(flatten)]
    pub output: Output,
}

impl EventsArgs {
    pub(super) fn into_request(self) -> (Request, Output) {
        let EventsArgs { peer, last, follow, output } = self;
        let last = last.or(follow.then_some(FOLLOW_FROM));
        (Request::Events { peer, last, follow, messages: false }, output)
    }
}
