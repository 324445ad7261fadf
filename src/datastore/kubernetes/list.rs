//! Reads one list, item by item.

use std::time::Duration;

use serde::Deserialize;

use super::api::{Api, Dial, Epoch};
use super::body::Items;
use super::failure::Failure;
use super::resource::{From, Place, Reading, Size};

/// Longest wait for the head of the response.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Longest time without an octet of the body.
const BODY_MAX: Duration = Duration::from_secs(60);
/// Objects per page, for kinds that have many.
const PAGE: u32 = 500;
/// Maximum number of pages of one list.
const PAGES_MAX: usize = 100_000;

/// What surrounds the items of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Frame {
    kind: String,
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// A list that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// The version to watch from.
    pub(super) version: String,
    /// The connection that answered.
    pub(super) epoch: Epoch,
}

/// Reads a list, with paging where the server supports it; `item` is called with each item.
pub(super) async fn read<D: Dial>(
    api: &Api<D>,
    place: &Place,
    from: &From,
    mut item: impl FnMut(&[u8]),
) -> Result<Read, Failure> {
    // With a version the server answers from its watch cache, which does not page.
    let is_paged = place.size == Size::Large
        && place.reading == Reading::Paged
        && !matches!(from, From::NotOlderThan(_));
    let limit = is_paged.then_some(PAGE);
    let mut first: Option<Read> = None;
    let mut next: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let request = place.list(from, limit, next.as_deref());
        let page = page(api, &request, &mut item).await?;
        first.get_or_insert(Read { version: page.version, epoch: page.epoch });
        next = page.next.filter(|token| !token.is_empty());
        if next.is_none() {
            break;
        }
    }
    first.ok_or(Failure::TooLong("a list", u64::from(PAGE)))
}

/// A page that was read.
pub(super) struct Page {
    pub(super) version: String,
    next: Option<String>,
    epoch: Epoch,
}

/// Reads one page; `item` is called with each item.
pub(super) async fn page<D: Dial>(
    api: &Api<D>,
    request: &super::api::Request,
    mut item: impl FnMut(&[u8]),
) -> Result<Page, Failure> {
    let mut answer = api.request(request, Some(HEAD_MAX)).await?;
    if answer.code != 200 {
        return Err(answer.failure().await);
    }
    let mut items = Items::default();
    let mut begin = Vec::new();
    while let Some(octets) = answer.next(BODY_MAX).await? {
        if begin.is_empty() {
            begin.extend_from_slice(octets.get(..octets.len().min(60)).unwrap_or_default());
        }
        items.push(&octets, &mut item)?;
    }
    let not_kubernetes = || Failure::not_kubernetes(&answer.media_type, &begin);
    let frame: Frame = serde_json::from_slice(&items.finish()).map_err(|_| not_kubernetes())?;
    if !frame.kind.ends_with("List") || frame.metadata.resource_version.is_empty() {
        return Err(not_kubernetes());
    }
    let Metadata { resource_version: version, next } = frame.metadata;
    Ok(Page { version, next, epoch: answer.epoch })
}
