//! The rights that the account lacks: one SelfSubjectAccessReview for each verb that has not been
//! used successfully already.

use std::fmt;
use std::time::Duration;

use futures_util::future::try_join_all;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Dial, Request};
use super::config::{Group, KubernetesConfig};
use super::discovery::discover;
use super::failure::Failure;
use super::resource::{Gate, Resource};
use super::source::{Wanted, calico_kinds, resources};

/// Longest wait for the head of a response, and for each part of its body.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest response that is read, in octets.
const ANSWER_LEN_MAX: usize = 64 << 10;
/// Where reviews are created.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Rights that need no review because they have been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// `list`: every kind was listed.
    Listing,
    /// None.
    Nothing,
}

impl Proven {
    /// The verbs still to be reviewed.
    fn open(self) -> &'static [&'static str] {
        match self {
            Proven::Listing => &["watch"],
            Proven::Nothing => &["list", "watch"],
        }
    }
}

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// `list` or `watch`.
    pub verb: &'static str,
    /// The resource in the plural, followed by a dot and its API group if it has one.
    pub resource: String,
    /// The namespace; empty: every namespace.
    pub namespace: String,
    /// The object's name; empty: every object.
    pub name: String,
    /// Whether BGP waits for this right; otherwise it starts without these objects.
    pub holds_up: bool,
}

/// `watch of bgppeers.crd.projectcalico.org`.
impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.verb, self.resource)?;
        if !self.name.is_empty() {
            write!(f, " \"{}\"", self.name)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
}

/// The rights missing for Calico's objects and the Nodes.
pub(super) async fn of_calico<D: Dial>(
    api: &Api<D>,
    config: &KubernetesConfig,
    proven: Proven,
) -> Result<Vec<Lacking>, Failure> {
    let group = match config.group {
        Some(group) => group,
        // Without any of them there is nothing to have rights on.
        None => discover(api).await?.unwrap_or(Group::V1),
    };
    let kinds = calico_kinds(config).map(|resource| (resource, group.name()));
    let asked: Vec<(Resource, &str)> = kinds.chain([(Resource::Nodes, "")]).collect();
    lacking(api, &asked, "", proven).await
}

/// The rights missing for those Services, EndpointSlices and Secrets that are wanted.
pub(super) async fn of_services<D: Dial>(
    api: &Api<D>,
    namespace: &str,
    wanted: &Wanted,
    proven: Proven,
) -> Result<Vec<Lacking>, Failure> {
    let group = |resource: &Resource| match resource {
        Resource::EndpointSlices => "discovery.k8s.io",
        _ => "",
    };
    let asked: Vec<(Resource, &str)> = resources(wanted)
        .into_iter()
        .map(|resource| (resource.clone(), group(&resource)))
        .collect();
    lacking(api, &asked, namespace, proven).await
}

async fn lacking<D: Dial>(
    api: &Api<D>,
    asked: &[(Resource, &str)],
    namespace: &str,
    proven: Proven,
) -> Result<Vec<Lacking>, Failure> {
    let mut reviews = Vec::new();
    for (resource, group) in asked {
        let (namespace, name) = match resource {
            Resource::Secret(name) => (namespace, name.as_str()),
            _ => ("", ""),
        };
        for verb in proven.open() {
            let plural = resource.plural();
            let lacking = Lacking {
                verb,
                resource: match *group {
                    "" => plural.to_owned(),
                    group => format!("{plural}.{group}"),
                },
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                holds_up: resource.gate() == Gate::Holds,
            };
            reviews.push(review(api, group, plural, lacking));
        }
    }
    Ok(try_join_all(reviews).await?.into_iter().flatten().collect())
}

/// Reviews one right; `None`: the account has it.
async fn review<D: Dial>(
    api: &Api<D>,
    group: &str,
    plural: &str,
    lacking: Lacking,
) -> Result<Option<Lacking>, Failure> {
    let review = json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {
            "verb": lacking.verb, "group": group, "resource": plural,
            "namespace": lacking.namespace, "name": lacking.name,
        }},
    });
    let request = Request {
        target: REVIEWS.to_owned(),
        accept: "application/json",
        create: Some(Bytes::from(review.to_string())),
    };
    let mut answer = api.request(&request, Some(ANSWER_MAX)).await?;
    if !matches!(answer.code, 200 | 201) {
        return Err(answer.failure().await);
    }
    let body = answer.whole("a review", ANSWER_LEN_MAX, ANSWER_MAX).await?;
    let read: Option<Review> = serde_json::from_slice(&body).ok();
    let review = read.ok_or_else(|| Failure::not_kubernetes(&answer.media_type, &body))?;
    Ok((!review.status.allowed).then_some(lacking))
}
