//! Which of its two API groups holds Calico's objects.
//!
//! Differs from Calico: libcalico treats every failed query as `crd.projectcalico.org`, and chooses
//! once per process. Here the query is repeated until it is answered, and made again when the kinds
//! are no longer served: the last step of a migration between the groups deletes the first one.

use serde::Deserialize;

use super::api::{Api, Dial, Request};
use super::config::Group;
use super::failure::Failure;
use super::list;
use super::resource::{From, Place, Resource};

/// Longest wait for the head of a response, and for each part of its body.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// Longest list of groups that is read, in octets.
const GROUPS_MAX: usize = 4 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Groups {
    kind: String,
    groups: Vec<Named>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// Asks the server which group holds Calico's objects; `None`: it has neither.
///
/// If it has both, either `projectcalico.org` is an aggregated API server on top of the CRDs of the
/// other, or a migration is in progress: the group of those CRDs is used.
pub(super) async fn discover<D: Dial>(api: &Api<D>) -> Result<Option<Group>, Failure> {
    match groups(api).await {
        Ok(names) => {
            let has = |group: Group| names.iter().any(|name| name == group.name());
            Ok(match (has(Group::V1), has(Group::V3)) {
                (true, _) => Some(Group::V1),
                (false, true) => Some(Group::V3),
                (false, false) => None,
            })
        }
        // Discovery is forbidden in clusters without the role system:discovery.
        Err(Failure::Forbidden(_)) => by_listing(api).await,
        Err(failure) => Err(failure),
    }
}

async fn groups<D: Dial>(api: &Api<D>) -> Result<Vec<String>, Failure> {
    let request = Request::read("/apis".to_owned(), "application/json");
    let mut answer = api.request(&request, Some(ANSWER_MAX)).await?;
    if answer.code != 200 {
        return Err(answer.failure().await);
    }
    let body = answer.whole("the list of API groups", GROUPS_MAX, ANSWER_MAX).await?;
    let read: Option<Groups> = serde_json::from_slice(&body).ok();
    let read = read.filter(|groups| groups.kind == "APIGroupList");
    let groups = read.ok_or_else(|| Failure::not_kubernetes(&answer.media_type, &body))?;
    Ok(groups.groups.into_iter().map(|group| group.name).collect())
}

async fn by_listing<D: Dial>(api: &Api<D>) -> Result<Option<Group>, Failure> {
    let mut refusal = None;
    for group in [Group::V1, Group::V3] {
        let place = Place::of(&Resource::IpPools, group, "", "");
        match list::read(api, &place, &From::Any, |_| {}).await {
            Ok(_) => return Ok(Some(group)),
            Err(Failure::NotFound) => {}
            // 403 does not mean that the group exists: the server checks rights first.
            Err(failure @ Failure::Forbidden(_)) => refusal = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    refusal.map_or(Ok(None), Err)
}
