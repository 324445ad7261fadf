//! Which release of Calico a cluster runs, and how the releases differ.
//!
//! [`FEATURES`] lists only differences that affect routes, attributes, other nodes' kernels or
//! Felix. Where a release merely had a fault (it counted endpoints that are not ready, it
//! considered only the changed one of several EndpointSlices, it did not know a field yet), margay
//! behaves correctly for every release; `docs/src/calico.md` lists both.
//!
//! A fix may be backported to several lines of releases, so a boundary is an exact version: the
//! first one known to have the feature. v3.28.5, v3.30.7, v3.31.7, v3.32.1 and Calico's master of
//! August 2026 were run; of v3.32.0, v3.32.2 and v3.33.0 the release notes were read.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A version of Calico, such as v3.32.1. What follows the numbers (`-0.dev-12-gabcdef`, `-rc1`) is
/// ignored: such a build counts as the release that it precedes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3 in v3.32.1.
    pub major: u16,
    /// 32 in v3.32.1.
    pub minor: u16,
    /// 1 in v3.32.1.
    pub patch: u16,
}

impl Version {
    /// The oldest supported release.
    pub const OLDEST: Version = Version::new(3, 28, 0);
    /// The newest supported release.
    pub const NEWEST: Version = Version::new(3, 33, 0);

    /// The version v`major`.`minor`.`patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Version { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("\"{text}\" is not a version such as v3.32.1");
        let numbers = text.trim();
        let numbers = numbers.strip_prefix('v').unwrap_or(numbers);
        let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
        let parts: Vec<&str> = numbers.split('.').collect();
        let number = |text: &str| {
            let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if is_plain { text.parse::<u16>().ok() } else { None }
        };
        let (major, minor, patch) = match parts.as_slice() {
            [major, minor] => (*major, *minor, "0"),
            [major, minor, patch] => (*major, *minor, *patch),
            _ => return Err(bad()),
        };
        match (number(major), number(minor), number(patch)) {
            (Some(major), Some(minor), Some(patch)) => Ok(Version { major, minor, patch }),
            _ => Err(bad()),
        }
    }
}

/// A behaviour that later releases have and earlier ones do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// A node of the mesh without an AS number is assumed to be in the AS of the node that peers
    /// with it; before, in the cluster's.
    MeshInOwnAs,
    /// FelixConfiguration has `programClusterRoutes`. Default Disabled; Enabled: Felix writes the
    /// routes of IPIP pools.
    FelixClusterRoutes,
    /// Felix writes pods' routes with metric 1024, and the priority is carried in BGP: kernel
    /// metric and LOCAL_PREF mirror each other, and a route with a better than normal metric is
    /// preferred and announced even if it lies inside an aggregated block. Before, BIRD's routes
    /// have no metric and LOCAL_PREF is unchanged.
    RoutePriorities,
    /// BGPConfiguration has `programClusterRoutes`: Disabled leaves all pools to Felix. Enabled in
    /// FelixConfiguration also covers pools without encapsulation, unless there is a pool with
    /// encapsulation.
    ClusterRoutes,
    /// `programClusterRoutes` names classes of pools, in both objects. Absent: Felix writes the
    /// routes of IPIP pools, BGP those of pools without encapsulation.
    ClusterRoutesByClass,
    /// If this node and another one run WireGuard, only Felix writes the routes to the other one.
    WireguardByFelix,
}

/// Each feature, with the first version that has it.
pub const FEATURES: [(Feature, Version); 6] = [
    (Feature::MeshInOwnAs, Version::new(3, 30, 7)),
    (Feature::FelixClusterRoutes, Version::new(3, 31, 0)),
    (Feature::RoutePriorities, Version::new(3, 32, 0)),
    (Feature::ClusterRoutes, Version::new(3, 32, 0)),
    (Feature::ClusterRoutesByClass, Version::new(3, 33, 0)),
    (Feature::WireguardByFelix, Version::new(3, 33, 0)),
];

/// The release of Calico for which a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    /// The version whose behaviour applies: the cluster's own, or the nearest older supported one.
    pub version: Version,
    /// Where the version is known from.
    pub origin: Origin,
}

/// Where the version is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Configured: `calico.version`, or `MARGAY_CALICO_VERSION`.
    Given,
    /// ClusterInformation `default`.
    ClusterInformation,
    /// It is unknown; the newest supported one is assumed.
    Assumed,
}

/// `v3.32.1 (ClusterInformation)`.
impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Given => "as given",
            Origin::ClusterInformation => "ClusterInformation",
            Origin::Assumed => "assumed",
        };
        write!(f, "{} ({origin})", self.version)
    }
}

impl Release {
    /// The newest supported release, for clusters of unknown version.
    pub const ASSUMED: Release = Release { version: Version::NEWEST, origin: Origin::Assumed };

    /// The release of a version. A version not in the supported range behaves as the nearest older
    /// supported one, or as the oldest, and the returned note says so.
    pub fn of(version: Version, origin: Origin) -> (Release, Option<String>) {
        let nearest = version.clamp(Version::OLDEST, Version::NEWEST);
        let is_known = (nearest.major, nearest.minor) == (version.major, version.minor);
        let note = (!is_known)
            .then(|| format!("Calico {version} is not known: it is taken to behave as {nearest}"));
        let version = if is_known { version } else { nearest };
        (Release { version, origin }, note)
    }

    /// Whether it has a feature.
    pub fn has(&self, feature: Feature) -> bool {
        FEATURES.iter().any(|(known, since)| *known == feature && self.version >= *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_read_with_whatever_follows_the_numbers() {
        for (text, expected) in [
            ("v3.32.1", Version::new(3, 32, 1)),
            ("3.32.1", Version::new(3, 32, 1)),
            ("v3.33.0-0.dev-415-g87c15906", Version::new(3, 33, 0)),
            ("v3.32.2-rc1+build", Version::new(3, 32, 2)),
            (" v3.28 ", Version::new(3, 28, 0)),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
        for bad in ["", "v", "3", "v3.x.1", "v3.32.1.4", "master", "v3.-1.0", "v3.99999.0", "3..1"]
        {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
        assert_eq!(version("v3.32.1").to_string(), "v3.32.1");
    }

    #[test]
    fn an_unknown_release_behaves_as_the_nearest_older_one() {
        let of = |text: &str| Release::of(version(text), Origin::Given);
        for known in ["v3.28.0", "v3.30.7", "v3.31.7", "v3.32.1", "v3.33.0", "v3.33.9"] {
            assert_eq!(
                of(known),
                (Release { version: version(known), origin: Origin::Given }, None)
            );
        }
        let (newer, note) = of("v3.36.2");
        assert_eq!(newer.version, Version::NEWEST);
        assert_eq!(
            note.as_deref(),
            Some("Calico v3.36.2 is not known: it is taken to behave as v3.33.0")
        );
        let (older, note) = of("v3.20.0");
        assert!(older.version == Version::OLDEST && note.is_some());
    }

    #[test]
    fn each_feature_begins_with_its_version() {
        let has = |text: &str| {
            let (release, _) = Release::of(version(text), Origin::Given);
            FEATURES.map(|(feature, _)| release.has(feature))
        };
        assert_eq!(has("v3.28.5"), [false; 6]);
        assert_eq!(has("v3.30.7"), [true, false, false, false, false, false]);
        assert_eq!(has("v3.31.7"), [true, true, false, false, false, false]);
        assert_eq!(has("v3.32.0"), [true, true, true, true, false, false]);
        assert_eq!(has("v3.32.1"), [true, true, true, true, false, false]);
        assert_eq!(has("v3.33.0"), [true; 6]);
        assert!(Release::ASSUMED.has(Feature::ClusterRoutesByClass));
    }
}
