//! The options that select routes.

use bgp_proto::table::{AnyCommunity, AsPathPattern};
use bgp_proto::types::Source;
use clap::{Args, ValueEnum};

use crate::ctl::{Destination, Lookup, RouteSelection, Span};

/// Which prefixes, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct PrefixArgs {
    /// Only this destination; an address: the longest prefix that covers it.
    pub prefix: Option<Destination>,
    /// Also prefixes that PREFIX contains.
    #[arg(long, requires = "prefix", conflicts_with = "lookup")]
    pub longer: bool,
    /// The longest prefix that contains PREFIX.
    #[arg(long, requires = "prefix")]
    pub lookup: bool,
    /// Print at most COUNT destinations.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u32>,
    /// Print only how many there are.
    #[arg(long, conflicts_with = "limit")]
    pub count: bool,
}

/// Which paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct PathArgs {
    /// Only paths with this community: 64512:100, no-export, 64512:1:2 or rt:64512:100.
    #[arg(long, value_name = "COMMUNITY", value_parser = read_community)]
    pub community: Option<String>,
    /// Only paths with this AS path: AS numbers, ? for any one, * for any number of them, such as
    /// "65001 * 3356".
    #[arg(long, value_name = "PATTERN", value_parser = read_as_path)]
    pub as_path: Option<String>,
    /// Only paths from this source.
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<RouteSource>,
    /// Only paths that cannot be used, with the reason.
    #[arg(long)]
    pub unusable: bool,
}

/// Where a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RouteSource {
    /// A BGP peer.
    Bgp,
    /// The configuration.
    Static,
    /// A kernel route of another process.
    Kernel,
    /// A connected network.
    Direct,
    /// Another VRF.
    Vrf,
    /// `margay announce`.
    Announced,
}

impl From<RouteSource> for Source {
    fn from(source: RouteSource) -> Self {
        match source {
            RouteSource::Bgp => Source::Bgp,
            RouteSource::Static => Source::Static,
            RouteSource::Kernel => Source::Kernel,
            RouteSource::Direct => Source::Direct,
            RouteSource::Vrf => Source::Vrf,
            RouteSource::Announced => Source::Announced,
        }
    }
}

impl PrefixArgs {
    pub(super) fn into_selection(self) -> RouteSelection {
        let PrefixArgs { prefix, longer, lookup, limit, count } = self;
        let span = match prefix {
            _ if longer => Span::Longer,
            _ if lookup => Span::Lookup,
            Some(Destination { lookup: Lookup::Longest, .. }) => Span::Lookup,
            _ => Span::Exact,
        };
        let prefix = prefix.map(|destination| destination.prefix);
        RouteSelection { prefix, span, limit, count, ..RouteSelection::default() }
    }

    /// With the options for paths, and the peer that sent them.
    pub(super) fn with(self, paths: PathArgs, peer: Option<String>) -> RouteSelection {
        let PathArgs { community, as_path, source, unusable } = paths;
        let source = source.map(Source::from);
        RouteSelection { peer, community, as_path, source, unusable, ..self.into_selection() }
    }
}

pub(super) fn read_community(text: &str) -> Result<String, String> {
    let _: AnyCommunity = text.parse().map_err(|error| format!("{error}"))?;
    Ok(text.to_owned())
}

fn read_as_path(text: &str) -> Result<String, String> {
    let pattern: AsPathPattern = text.parse().map_err(|error| format!("{error}"))?;
    Ok(pattern.to_string())
}
