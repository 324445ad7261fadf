//! `margay peer`: operator actions on sessions.

use clap::{Args, Subcommand};

use super::{Output, read_message};
use crate::ctl::{Direction, Lasts, PeerAction, Rehearsal, Request, RoutesOnReset, Selection};

/// An action on sessions.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Steer {
    /// End sessions until they are started again (Cease 6/2, RFC 4486).
    Stop {
        /// The peers.
        #[command(flatten)]
        peers: Peers,
        /// What the neighbours are told, for example who did it and why (RFC 9003).
        #[arg(long, value_name = "TEXT", value_parser = read_message)]
        message: Option<String>,
        /// Keep them stopped when the daemon is restarted too, until the machine is.
        #[arg(long)]
        keep: bool,
    },
    /// Start what was stopped.
    Start {
        /// The peers.
        #[command(flatten)]
        peers: Peers,
    },
    /// Restart sessions (Cease 6/4, RFC 4486).
    Reset {
        /// The peers.
        #[command(flatten)]
        peers: Peers,
        /// What the neighbours are told, for example who did it and why (RFC 9003).
        #[arg(long, value_name = "TEXT", conflicts_with = "graceful", value_parser = read_message)]
        message: Option<String>,
        /// Both sides keep routes until the session is back (RFC 4724).
        #[arg(long)]
        graceful: bool,
    },
    /// Request routes and send ours again, or only one of the two (route refresh, RFC 2918).
    Refresh {
        /// The peers.
        #[command(flatten)]
        peers: Peers,
        /// Only request the neighbour's.
        #[arg(long = "in", conflicts_with = "out")]
        inbound: bool,
        /// Only send ours.
        #[arg(long)]
        out: bool,
    },
    /// Connect now, without waiting for the retry timer or for the idle hold after an exceeded
    /// limit.
    Retry {
        /// The peers.
        #[command(flatten)]
        peers: Peers,
    },
}

/// The peers that an action applies to.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Peers {
    /// Names or addresses, patterns of names such as 'Mesh_*', names of ranges or of peers by interface for
    /// all that they have, or prefixes around addresses.
    #[arg(value_name = "PEER", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// Every peer.
    #[arg(long)]
    all: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to ask and print.
    #[command(flatten)]
    pub(super) output: Output,
}

impl Steer {
    pub(super) fn peers(&mut self) -> &mut Peers {
        match self {
            Steer::Stop { peers, .. }
            | Steer::Start { peers }
            | Steer::Reset { peers, .. }
            | Steer::Refresh { peers, .. }
            | Steer::Retry { peers } => peers,
        }
    }

    pub(super) fn into_request(self) -> (Request, Output) {
        let (action, peers) = match self {
            Steer::Stop { peers, message, keep } => {
                let lasts = if keep { Lasts::Boot } else { Lasts::Run };
                (PeerAction::Stop { message: message.unwrap_or_default(), lasts }, peers)
            }
            Steer::Start { peers } => (PeerAction::Start, peers),
            Steer::Reset { peers, message, graceful } => {
                let routes = if graceful { RoutesOnReset::Keep } else { RoutesOnReset::Withdraw };
                (PeerAction::Reset { message: message.unwrap_or_default(), routes }, peers)
            }
            Steer::Refresh { peers, inbound, out } => {
                let direction = match (inbound, out) {
                    (true, _) => Direction::In,
                    (_, true) => Direction::Out,
                    _ => Direction::Both,
                };
                (PeerAction::Refresh(direction), peers)
            }
            Steer::Retry { peers } => (PeerAction::Retry, peers),
        };
        let Peers { names, all, dry_run, output } = peers;
        let peers = if all { Selection::All } else { Selection::Named(names) };
        let rehearsal = if dry_run { Rehearsal::DryRun } else { Rehearsal::Real };
        (Request::Peer { action, peers, rehearsal }, output)
    }
}
