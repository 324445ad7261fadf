//! Which program writes the routes to other nodes' pods into the kernel: margay or Felix.
//!
//! Each side has its own `programClusterRoutes`, in BGPConfiguration and in FelixConfiguration, and
//! their meaning depends on the release of Calico ([`super::release`]). Felix always writes the
//! routes of VXLAN pools. A class of pools whose routes neither or both write is reported as a
//! problem; Calico itself does not report it.

use super::effective::Effective;
use super::model::{Encapsulation, IpPool};
use super::plan::Problem;
use super::release::{Feature, Origin};

/// Classes of pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Classes {
    /// Pools with `ipipMode` Always or CrossSubnet.
    pub(super) ipip: bool,
    /// Pools without encapsulation.
    pub(super) plain: bool,
}

impl Classes {
    /// Whether pools with this encapsulation are among them. VXLAN is in no class.
    pub(super) fn have(self, encapsulation: Encapsulation) -> bool {
        match encapsulation {
            Encapsulation::None => self.plain,
            Encapsulation::IpipAlways | Encapsulation::IpipCrossSubnet => self.ipip,
            Encapsulation::Vxlan => false,
        }
    }
}

const ALL: Classes = Classes { ipip: true, plain: true };
const NONE: Classes = Classes { ipip: false, plain: false };
const IPIP: Classes = Classes { ipip: true, plain: false };
const PLAIN: Classes = Classes { ipip: false, plain: true };

/// The values that newer releases have for them.
fn by_name(word: &str) -> Option<Classes> {
    match word {
        "Enabled" => Some(ALL),
        "EnabledIPIPOnly" => Some(IPIP),
        "EnabledNoEncapOnly" => Some(PLAIN),
        "Disabled" => Some(NONE),
        _ => None,
    }
}

/// The classes whose routes we write.
pub(super) fn ours(cx: &Effective<'_>) -> Classes {
    let word = cx.global.program_cluster_routes.as_str();
    if cx.release.has(Feature::ClusterRoutesByClass) {
        return by_name(word).unwrap_or(PLAIN);
    }
    match word {
        "Disabled" if cx.release.has(Feature::ClusterRoutes) => NONE,
        _ => ALL,
    }
}

/// The classes whose routes Felix writes.
pub(super) fn felixs(cx: &Effective<'_>) -> Classes {
    let word = cx.felix_cluster_routes();
    if cx.release.has(Feature::ClusterRoutesByClass) {
        return by_name(word).unwrap_or(IPIP);
    }
    if word != "Enabled" || !cx.release.has(Feature::FelixClusterRoutes) {
        return NONE;
    }
    // Felix writes routes of pools without encapsulation only if no pool has encapsulation.
    let has_overlay = cx.snapshot.pools.values().any(|p| p.encapsulation != Encapsulation::None);
    Classes { ipip: true, plain: cx.release.has(Feature::ClusterRoutes) && !has_overlay }
}

/// Reports an invalid value, and classes of pools whose routes neither or both sides write.
pub(super) fn check(cx: &Effective<'_>, problems: &mut Vec<Problem>) {
    let word = cx.global.program_cluster_routes.as_str();
    if !word.is_empty() && by_name(word).is_none() {
        let used = if cx.release.has(Feature::ClusterRoutesByClass) {
            "EnabledNoEncapOnly"
        } else {
            "Enabled"
        };
        let text = format!("spec.programClusterRoutes: \"{word}\" is not a value: {used} is used");
        problems.push(Problem::new("BGPConfiguration/default", text));
    }
    // For IPIP, unset means BGP before v3.33 and Felix from then on: only the version decides.
    let is_said = !word.is_empty() || !cx.felix_cluster_routes().is_empty();
    if cx.release.origin == Origin::Assumed
        && !is_said
        && cx.snapshot.pools.values().any(|p| is_ipip(p))
    {
        let text = format!(
            "it is not known who writes the kernel routes of pools with IPIP: Calico {} is assumed, \
             whose Felix does, and before v3.33 it does not: name the version in calico.version or \
             MARGAY_CALICO_VERSION",
            cx.release.version
        );
        problems.push(Problem::new("ClusterInformation/default", text));
    }
    let (ours, felixs) = (ours(cx), felixs(cx));
    let classes = [
        ("with IPIP", ours.ipip, felixs.ipip, is_ipip as fn(&IpPool) -> bool),
        ("without encapsulation", ours.plain, felixs.plain, is_plain),
    ];
    for (class, by_us, by_felix, is_one) in classes {
        let names: Vec<&str> =
            cx.snapshot.pools.values().filter(|p| is_one(p)).map(|p| &*p.name).collect();
        let Some(first) = names.first() else { continue };
        let pools = match names.len() {
            1 => format!("IPPool {first}"),
            count => format!("{count} IPPools, {first} among them"),
        };
        let text = match (by_us, by_felix) {
            (false, false) => format!(
                "nobody writes the kernel routes of pools {class} ({pools}): BGPConfiguration \
                 programClusterRoutes leaves them to Felix, and Felix of Calico {} does not write \
                 them: set programClusterRoutes in one of BGPConfiguration and FelixConfiguration",
                cx.release.version
            ),
            (true, true) => format!(
                "both BGP and Felix write the kernel routes of pools {class} ({pools}): set \
                 programClusterRoutes in BGPConfiguration or in FelixConfiguration so that one does"
            ),
            _ => continue,
        };
        problems.push(Problem::new("BGPConfiguration/default", text));
    }
}

fn is_ipip(pool: &IpPool) -> bool {
    matches!(pool.encapsulation, Encapsulation::IpipAlways | Encapsulation::IpipCrossSubnet)
}

fn is_plain(pool: &IpPool) -> bool {
    pool.encapsulation == Encapsulation::None
}
