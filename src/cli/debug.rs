//! `margay debug`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::ask::{Demand, ask, report};
use super::client::Client;
use super::drain::read_timeout;
use super::{Output, WRONG};
use crate::ctl::{Request, Selection};

/// The arguments of `debug`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DebugArgs {
    /// Names or addresses of peers, patterns of names such as 'Mesh_*', names of ranges or of peers by
    /// interface, or prefixes around addresses; without any, those that are debugged are shown.
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// How long, for example 90s or 5m; at most one hour. A restart of the daemon ends it too.
    #[arg(long = "for", value_name = "TIME", default_value = "5m", value_parser = read_timeout)]
    time: Duration,
    /// End it; without a peer, for all.
    #[arg(long, conflicts_with = "follow")]
    off: bool,
    /// Print the messages of the peer too, until it ends; JSON then is one object per line.
    #[arg(long, short, requires = "peers")]
    follow: bool,
    /// How to ask and print.
    #[command(flatten)]
    pub(super) output: Output,
}

/// Begins, ends or shows the logging of messages.
pub(super) fn debug(args: DebugArgs) -> ExitCode {
    let DebugArgs { peers, time, off, follow, output } = args;
    if off {
        let peers = if peers.is_empty() { Selection::All } else { Selection::Named(peers) };
        return ask(&Request::Debug { peers, seconds: 0 }, Demand::Nothing, &output);
    }
    if peers.is_empty() {
        return ask(&Request::ShowDebug, Demand::Nothing, &output);
    }
    let seconds = time.as_secs().max(1);
    let request = Request::Debug { peers: Selection::Named(peers.clone()), seconds };
    if !follow {
        return ask(&request, Demand::Nothing, &output);
    }
    let [peer] = &peers[..] else {
        eprintln!("margay: with --follow, name one peer");
        return ExitCode::from(WRONG);
    };
    let begun = Client::connect(&output.daemon.socket)
        .and_then(|mut client| client.ask(&request, |_| Ok(())));
    if let Err(error) = begun {
        return report(error);
    }
    let peer = Some(peer.clone());
    let messages = Request::Events { peer, last: Some(0), follow, messages: true };
    ask(&messages, Demand::Nothing, &output)
}
