//! `margay init`: configurations to start from.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::ask::report;
use super::client::ClientError;

/// What margay is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// A top-of-rack router with the nodes of its rack and two spines.
    Tor,
    /// A route reflector with clients.
    Reflector,
    /// A server that announces its own networks.
    Node,
}

/// The arguments of `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct InitArgs {
    /// What margay is to be.
    role: Role,
}

impl Role {
    fn text(self) -> &'static str {
        match self {
            Role::Tor => include_str!("../../examples/start/tor.toml"),
            Role::Reflector => include_str!("../../examples/start/reflector.toml"),
            Role::Node => include_str!("../../examples/start/node.toml"),
        }
    }
}

/// Prints a configuration to start from.
pub(super) fn init(args: InitArgs) -> ExitCode {
    match io::stdout().write_all(args.role.text().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(ClientError::Output(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// What is printed is a configuration as it is, without an unused policy, and says what to change.
    #[test]
    fn each_start_is_a_configuration() {
        for (role, runs) in [
            (Role::Tor, "dynamic peers 192.0.2.0/24: at most 64"),
            (Role::Reflector, "route reflector client"),
            (Role::Node, "originates 203.0.113.20/32, not in the kernel"),
        ] {
            let config = Config::parse(Path::new("start.toml"), role.text());
            let config = config.unwrap_or_else(|errors| panic!("{role:?}: {errors}"));
            let summary = config.to_string();
            assert!(summary.contains(runs), "{summary}");
            assert!(config.unused_policies.is_empty(), "{summary}");
            assert!(role.text().matches("# CHANGE").count() >= 3, "{role:?}");
        }
    }
}
