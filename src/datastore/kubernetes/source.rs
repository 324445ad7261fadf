//! The two sources in the Kubernetes API: Calico's objects with the Nodes, and Services with
//! EndpointSlices and Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Aborted, abortable};
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tracing::info;

use super::api::{Api, Dial};
use super::config::{Group, KubernetesConfig, ServicesConfig};
use super::discovery::discover;
use super::failure::Failure;
use super::hub::{Hub, OfGroup};
use super::kind::{Follow, OfBlocks};
use super::pace;
use super::resource::{Place, Resource};
use crate::datastore::Sender;

/// Pause before the state of Calico's kinds is checked again while none can be read.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause, at random, between queries for their API group.
const ASK_INTERVAL: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];
/// Longest time that BGP waits for Services, EndpointSlices and Secrets.
const EXCUSED_AFTER: Duration = Duration::from_secs(60);

/// What the plan needs from the second source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names of the Secrets with passwords of sessions.
    pub secrets: BTreeSet<String>,
    /// Whether Services and their endpoints are needed.
    pub services: Services,
}

/// Whether Services and EndpointSlices are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Services {
    /// No range of service addresses is configured.
    #[default]
    Unused,
    /// A range is configured: addresses of services may have to be announced.
    Used,
}

type Following<'a> = Pin<Box<dyn Future<Output = Infallible> + Send + 'a>>;
/// One of several futures that all end when the first of them does.
type Part<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Polls all of them, each only when it is woken.
async fn together<'a>(following: impl IntoIterator<Item = Following<'a>>) -> Infallible {
    let mut following: FuturesUnordered<_> = following.into_iter().collect();
    match following.next().await {
        Some(never) => match never {},
        None => std::future::pending().await,
    }
}

/// Follows Calico's objects and the Nodes until the receiver is dropped.
pub(super) async fn follow_calico<D: Dial>(
    api: &Api<D>,
    config: &KubernetesConfig,
    sender: Sender,
) {
    let hub = &Hub::new(sender);
    let mut resources: Vec<Resource> = vec![Resource::Nodes];
    resources.extend(calico_kinds(config));
    let is_own_apart = config.use_pod_cidr || config.follows_cordon;
    let own = is_own_apart.then_some(Resource::OwnNode);
    resources.extend(own.clone());
    hub.expect(resources);
    let core = |resource: Resource| -> Following<'_> {
        let place = Place::of(&resource, Group::V1, &config.node, "");
        let mut follow = Follow::new(api, hub, resource, place, OfBlocks::OwnNode, &config.node);
        follow.is_own_apart = is_own_apart;
        Box::pin(follow.run())
    };
    // Each is polled only when it is woken: a `select!` would poll all of them for each heartbeat.
    let mut parts: FuturesUnordered<Part<'_>> = FuturesUnordered::new();
    for resource in [Resource::Nodes].into_iter().chain(own) {
        let follow = core(resource);
        parts.push(Box::pin(async move { match follow.await {} }));
    }
    parts.push(Box::pin(async move { match follow_groups(api, hub, config).await {} }));
    parts.push(Box::pin(follow_connection(api, hub)));
    parts.push(Box::pin(hub.closed()));
    parts.next().await;
}

pub(super) fn calico_kinds(config: &KubernetesConfig) -> impl Iterator<Item = Resource> + use<> {
    let use_pod_cidr = config.use_pod_cidr;
    Resource::CALICO
        .into_iter()
        .filter(move |resource| !use_pod_cidr || *resource != Resource::BlockAffinities)
}

/// Follows Calico's kinds in the API group that has them, and in the other one after a migration.
async fn follow_groups<D: Dial>(api: &Api<D>, hub: &Hub, config: &KubernetesConfig) -> Infallible {
    let mut group = match config.group {
        Some(group) => group,
        None => first_group(api, hub).await,
    };
    loop {
        info!(%group, "Calico's objects are read from this API group");
        let follow = |resource: Resource| -> Following<'_> {
            let place = Place::of(&resource, group, &config.node, "");
            let of_blocks = if config.all_blocks { OfBlocks::AllNodes } else { OfBlocks::OwnNode };
            Box::pin(Follow::new(api, hub, resource, place, of_blocks, &config.node).run())
        };
        let following = calico_kinds(config).map(follow);
        group = tokio::select! {
            never = together(following) => match never {},
            other = other_group(api, hub, group, config.group) => other,
        };
    }
}

/// Asks for the group of Calico's objects until there is one.
async fn first_group<D: Dial>(api: &Api<D>, hub: &Hub) -> Group {
    let mut failures = 0;
    loop {
        match discover(api).await {
            Ok(Some(group)) => {
                // As soon as the first of its CRDs is there.
                hub.note_group();
                hub.set_lost_group(None);
                return group;
            }
            Ok(None) => {
                failures = 0;
                hub.note_no_group();
                hub.set_lost_group(Some(not_installed()));
                let [least, most] = ASK_INTERVAL;
                sleep(api.random.between(least, most)).await;
            }
            Err(failure) => {
                failures += 1;
                if !matches!(failure, Failure::Lost(_)) || failures > 1 {
                    hub.set_lost_group(Some(format!("cannot ask for API groups: {failure}")));
                }
                sleep(pace::pause(&failure, failures, failures, &api.random)).await;
            }
        }
    }
}

fn not_installed() -> String {
    format!(
        "Calico's CRDs are not installed: the server has neither {} nor {}; install Calico, or check \
         that this is the API server of its cluster",
        Group::V1.name(),
        Group::V3.name()
    )
}

/// The configured group is not replaced by the one found: only the operator knows which is meant,
/// as the objects of one group are out of date during a migration.
fn wrong_group(given: Group, other: Group) -> String {
    format!(
        "CALICO_API_GROUP (or api-group) names {given}, and the server has Calico's kinds in {other} \
         only: name {other}, or nothing so that the server is asked; what is known stays in force"
    )
}

/// Returns when Calico's kinds are in a group other than `group`. `given` is the configured group,
/// from which there is no change.
async fn other_group<D: Dial>(
    api: &Api<D>,
    hub: &Hub,
    group: Group,
    given: Option<Group>,
) -> Group {
    let mut of_group = hub.watch_group();
    loop {
        // Does not wake up periodically while the kinds can be read.
        if *of_group.borrow_and_update() == OfGroup::InForce {
            hub.set_lost_group(None);
            if of_group.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        sleep(LOOK_INTERVAL).await;
        if hub.of_group() == OfGroup::InForce {
            continue;
        }
        let found = discover(api).await;
        let now = hub.of_group();
        match (found, given) {
            (Ok(Some(other)), None) if other != group => {
                hub.set_lost_group(None);
                return other;
            }
            (Ok(None), _) => hub.set_lost_group(Some(not_installed())),
            (Ok(Some(other)), Some(given)) if other != given && now == OfGroup::Missing => {
                hub.set_lost_group(Some(wrong_group(given, other)));
            }
            (Ok(Some(_)) | Err(_), _) if now == OfGroup::Missing => {
                hub.set_lost_group(Some(format!(
                    "the server has none of Calico's kinds in {group}: what is known stays in force \
                     until they are installed again"
                )));
            }
            // The server has the group that was named, and each kind tells why it cannot be read.
            (Ok(Some(_)) | Err(_), Some(_)) if now == OfGroup::Unknown => hub.set_lost_group(None),
            (Ok(Some(_)) | Err(_), _) => {}
        }
        let [least, most] = ASK_INTERVAL;
        sleep(api.random.between(least, most)).await;
    }
}

/// Passes on to the hub why there is no connection.
async fn follow_connection<D: Dial>(api: &Api<D>, hub: &Hub) {
    let mut trouble = api.trouble();
    loop {
        let now = trouble.borrow_and_update().clone();
        hub.set_trouble(now);
        if trouble.changed().await.is_err() {
            return;
        }
    }
}

/// Follows what the plan needs until the receiver is dropped. Nothing is sent before the plan has
/// stated it.
pub(super) async fn follow_services<D: Dial>(
    api: &Api<D>,
    config: &ServicesConfig,
    mut wanted: watch::Receiver<Option<Wanted>>,
    sender: Sender,
) {
    let hub = &Hub::new(sender);
    // Each with the handle that aborts it.
    let mut following: BTreeMap<Resource, AbortHandle> = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    let mut excused_at = None;
    let mut is_final = false;
    let follow = |resource: &Resource| -> Following<'_> {
        let place = Place::of(resource, Group::V1, "", &config.namespace);
        Box::pin(Follow::new(api, hub, resource.clone(), place, OfBlocks::OwnNode, "").run())
    };
    let mut connection = Box::pin(follow_connection(api, hub));
    loop {
        if let Some(wanted) = wanted.borrow_and_update().clone() {
            let resources = resources(&wanted);
            following.retain(|resource, handle| {
                let is_wanted = resources.contains(resource);
                if !is_wanted {
                    handle.abort();
                }
                is_wanted
            });
            hub.keep_only(&resources);
            for resource in &resources {
                if !following.contains_key(resource) {
                    let (future, handle) = abortable(follow(resource));
                    running.push(future);
                    following.insert(resource.clone(), handle);
                }
            }
            excused_at.get_or_insert_with(|| tokio::time::Instant::now() + EXCUSED_AFTER);
            hub.expect(resources);
        }
        let excused = async {
            match excused_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Err(Aborted)) = running.next(), if !running.is_empty() => {}
            changed = wanted.changed(), if !is_final => is_final = changed.is_err(),
            () = excused => {
                hub.excuse_all();
                // From here on nothing waits for a resource that is requested later.
                excused_at = Some(tokio::time::Instant::now() + Duration::from_secs(86_400));
            }
            () = &mut connection => {}
            () = hub.closed() => return,
        }
    }
}

pub(super) fn resources(wanted: &Wanted) -> BTreeSet<Resource> {
    let mut resources: BTreeSet<Resource> =
        wanted.secrets.iter().map(|name| Resource::Secret(name.clone())).collect();
    if wanted.services == Services::Used {
        resources.extend([Resource::Services, Resource::EndpointSlices]);
    }
    resources
}
