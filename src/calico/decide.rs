//! Route questions: what the policies of a plan say about one route.

use std::net::IpAddr;

use bgp_proto::policy::{Decision, Policy, RouteRef, Source, Verdict};
use bgp_proto::types::{Asn, Community, LargeCommunity, NextHop, ParseError, PeerType, Prefix};
use bgp_proto::wire::{AttrEdit, AttrView, Origin};
use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// Asks what a policy does to a route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Name of the session; not needed for the kernel.
    #[serde(default)]
    pub session: Option<String>,
    /// Which policy is evaluated.
    pub direction: Direction,
    /// The route.
    pub route: Route,
}

/// Which policy is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Routes that the neighbour advertises.
    Import,
    /// Routes to be advertised to the neighbour.
    Export,
    /// Routes to be installed in the kernel.
    Kernel,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination.
    pub prefix: Prefix,
    /// Where it came from.
    pub source: Source,
    /// The outgoing interface.
    #[serde(default)]
    pub interface: Option<String>,
    /// Kernel metric.
    #[serde(default)]
    pub metric: Option<u32>,
    /// LOCAL_PREF.
    #[serde(default)]
    pub local_pref: Option<u32>,
    /// BGP next hop.
    #[serde(default)]
    pub next_hop: Option<IpAddr>,
    /// AS numbers, the nearest first.
    #[serde(default)]
    pub as_path: Vec<Asn>,
    /// Standard communities, `64512:100`.
    #[serde(default)]
    pub communities: Vec<String>,
    /// Large communities, `64512:1:2`.
    #[serde(default)]
    pub large_communities: Vec<String>,
}

/// What the policy did to the route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `accept` or `reject`.
    pub decision: &'static str,
    /// The policy and its rule that decided.
    pub rule: String,
    /// The route as it leaves the policy; a rejected one is unchanged.
    pub route: Route,
    /// Preference among sources of the same prefix; the highest wins.
    pub preference: u16,
    /// The interface of the tunnel through which the kernel sends.
    pub tunnel: Option<String>,
}

impl Plan {
    /// Answers a question with the policies that the daemon runs.
    ///
    /// # Errors
    /// The session is unknown or of the other family, an AS number or a community does not parse,
    /// or the node speaks no BGP.
    pub fn decide(&self, question: &Question) -> Result<Answer, String> {
        if !self.speaks_bgp {
            return Err("CALICO_NETWORKING_BACKEND says that this node speaks no BGP".to_owned());
        }
        let route = &question.route;
        let family = route.prefix.family();
        let (policy, peer_type) = if question.direction == Direction::Kernel {
            (&self.families.get(family).kernel, None)
        } else {
            let name = question
                .session
                .as_deref()
                .ok_or("import and export need the name of a session")?;
            let (of_session, planned) =
                self.session(name).ok_or_else(|| format!("there is no session \"{name}\""))?;
            if of_session != family {
                return Err(format!("session \"{name}\" carries {of_session} routes only"));
            }
            let policy = match question.direction {
                Direction::Import => &planned.import,
                Direction::Export | Direction::Kernel => &planned.export,
            };
            let internal = planned.session.internal;
            (policy, Some(if internal { PeerType::Internal } else { PeerType::External }))
        };
        route.ask(policy, peer_type)
    }
}

impl Route {
    fn ask(&self, policy: &Policy, peer_type: Option<PeerType>) -> Result<Answer, String> {
        let mut attrs = AttrEdit::originate(Origin::Igp);
        for asn in self.as_path.iter().rev() {
            attrs.prepend_as(*asn, 1);
        }
        if let Some(local_pref) = self.local_pref {
            attrs.set_local_pref(local_pref);
        }
        attrs.set_communities(&parse_all::<Community>(&self.communities)?);
        attrs.set_large_communities(&parse_all::<LargeCommunity>(&self.large_communities)?);
        let verdict = policy.evaluate(&RouteRef {
            prefix: self.prefix,
            attrs: attrs.view(),
            next_hop: self.next_hop.map(NextHop::from),
            source: self.source,
            interface: self.interface.as_deref(),
            metric: self.metric,
            peer_type,
            shared_bandwidth: None,
        });
        let is_accepted = verdict.decision == Decision::Accept;
        Ok(Answer {
            decision: if is_accepted { "accept" } else { "reject" },
            rule: policy.describe(verdict.rule),
            route: if is_accepted { self.after(&verdict, attrs.view()) } else { self.clone() },
            preference: verdict.preference.unwrap_or_else(|| preference(self.source)),
            tunnel: verdict.tunnel.map(|tunnel| tunnel.as_ref().to_owned()),
        })
    }

    fn after(&self, verdict: &Verdict, before: AttrView<'_>) -> Route {
        let attrs = verdict.attrs.as_ref().map_or(before, AttrEdit::view);
        Route {
            prefix: self.prefix,
            source: self.source,
            interface: self.interface.clone(),
            metric: verdict.metric.or(self.metric),
            local_pref: attrs.local_pref(),
            next_hop: verdict.next_hop.map(NextHop::addr).or(self.next_hop),
            as_path: verdict.outermost.iter().copied().chain(attrs.as_path().asns()).collect(),
            communities: attrs.communities().map(|c| c.to_string()).collect(),
            large_communities: attrs.large_communities().map(|c| c.to_string()).collect(),
        }
    }
}

/// Preference of a route for which no policy set one: direct 240, static 200, BGP 100, kernel 10.
pub(super) fn preference(source: Source) -> u16 {
    match source {
        Source::Direct => 240,
        Source::Static | Source::Announced => 200,
        Source::Bgp => 100,
        Source::Kernel => 10,
        // A Calico node has no VRFs of ours.
        Source::Vrf => 0,
    }
}

fn parse_all<T: std::str::FromStr<Err = ParseError>>(
    texts: &[String],
) -> Result<Vec<T>, ParseError> {
    texts.iter().map(|text| text.parse()).collect()
}
