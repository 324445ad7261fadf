//! Which routes of a table are asked for.

use bgp_proto::types::{Prefix, Source};
use serde::{Deserialize, Serialize};

/// Which routes are asked for, and how many. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RouteSelection {
    /// The prefix that `span` is about; absent: any prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Which prefixes, given `prefix`.
    #[serde(skip_serializing_if = "Span::is_exact")]
    pub span: Span,
    /// Those of this VRF; absent: of the default VRF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Only paths from this peer, given by name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Only paths with this community.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community: Option<String>,
    /// Only paths whose AS_PATH this pattern describes: AS numbers, `?` for any one, `*` for any
    /// number of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_path: Option<String>,
    /// Only paths from this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Only paths that cannot be used.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unusable: bool,
    /// At most this many prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only their number: the answer is one [`super::item::RouteCount`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub count: bool,
    /// How they are sent.
    #[serde(skip_serializing_if = "RouteForm::is_items")]
    pub form: RouteForm,
}

/// How routes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteForm {
    /// One [`super::Reply::Item`] for each.
    #[default]
    Items,
    /// A [`super::Reply::Run`] for each run of prefixes with equal paths: a fraction of the octets, for
    /// a client that makes the items itself.
    Runs,
}

impl RouteForm {
    fn is_items(&self) -> bool {
        *self == RouteForm::Items
    }
}

/// The prefixes that are meant by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Span {
    /// The prefix itself.
    #[default]
    Exact,
    /// The prefix and more specific ones.
    Longer,
    /// The longest that contains it.
    Lookup,
}

impl Span {
    fn is_exact(&self) -> bool {
        *self == Span::Exact
    }
}

impl RouteSelection {
    /// Whether it selects all routes.
    pub fn is_all(&self) -> bool {
        *self == RouteSelection::default()
    }
}
