//! What is requested: kinds, their paths, and the selection of objects.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use super::api::Request;
use super::config::Group;
use crate::calico::model::Kind;

/// Something that is listed and watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Resource {
    IpPools,
    BgpConfigurations,
    BgpPeers,
    BgpFilters,
    BlockAffinities,
    /// The release of Calico.
    ClusterInformations,
    /// Which routes Felix installs.
    FelixConfigurations,
    /// Every Node, metadata only.
    Nodes,
    /// The own Node with its pod CIDRs.
    OwnNode,
    Services,
    EndpointSlices,
    /// The Secret of a name.
    Secret(String),
}

impl Resource {
    /// The kinds of Calico's own group.
    pub(super) const CALICO: [Resource; 7] = [
        Resource::IpPools,
        Resource::BgpConfigurations,
        Resource::BgpPeers,
        Resource::BgpFilters,
        Resource::BlockAffinities,
        Resource::ClusterInformations,
        Resource::FelixConfigurations,
    ];

    /// The name in URLs and roles.
    pub(super) fn plural(&self) -> &'static str {
        match self {
            Resource::IpPools => "ippools",
            Resource::BgpConfigurations => "bgpconfigurations",
            Resource::BgpPeers => "bgppeers",
            Resource::BgpFilters => "bgpfilters",
            Resource::BlockAffinities => "blockaffinities",
            Resource::ClusterInformations => "clusterinformations",
            Resource::FelixConfigurations => "felixconfigurations",
            Resource::Nodes | Resource::OwnNode => "nodes",
            Resource::Services => "services",
            Resource::EndpointSlices => "endpointslices",
            Resource::Secret(_) => "secrets",
        }
    }

    /// The kind of its objects.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Resource::IpPools => Kind::IpPool,
            Resource::BgpConfigurations => Kind::BgpConfiguration,
            Resource::BgpPeers => Kind::BgpPeer,
            Resource::BgpFilters => Kind::BgpFilter,
            Resource::BlockAffinities => Kind::BlockAffinity,
            Resource::ClusterInformations => Kind::ClusterInformation,
            Resource::FelixConfigurations => Kind::FelixConfiguration,
            Resource::Nodes | Resource::OwnNode => Kind::KubernetesNode,
            Resource::Services => Kind::Service,
            Resource::EndpointSlices => Kind::EndpointSlice,
            Resource::Secret(_) => Kind::Secret,
        }
    }

    /// Whether BGP waits for it. A missing right on a kind that it does not wait for is only
    /// reported.
    pub(super) fn gate(&self) -> Gate {
        match self {
            Resource::ClusterInformations
            | Resource::FelixConfigurations
            | Resource::Services
            | Resource::EndpointSlices
            | Resource::Secret(_) => Gate::Yields,
            _ => Gate::Holds,
        }
    }

    /// Whether it is one of the kinds that decide whether Calico's group counts as served.
    pub(super) fn is_essential(&self) -> bool {
        self.is_calico() && self.gate() == Gate::Holds
    }

    /// Whether it is of Calico's own group.
    pub(super) fn is_calico(&self) -> bool {
        Resource::CALICO.contains(self)
    }
}

/// Whether BGP waits for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Until it has been listed.
    Holds,
    /// For a limited time: its objects may follow later.
    Yields,
}

/// The name in a role, without the group: `bgppeers`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Secret(name) => write!(f, "secrets \"{name}\""),
            other => f.write_str(other.plural()),
        }
    }
}

/// The path of a resource, the selection of its objects, and their form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Path without a query.
    pub(super) path: String,
    /// A selector that is part of every query, percent-encoded.
    pub(super) selector: Option<String>,
    pub(super) form: Form,
    pub(super) size: Size,
    pub(super) reading: Reading,
}

/// Whether lists may be requested in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// In pages, for kinds that have many objects.
    Paged,
    /// All at once: the server does not know `limit`.
    AtOnce,
}

/// How many objects a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Few: read at once.
    Small,
    /// Thousands: read in pages if the server supports that.
    Large,
}

/// The form in which objects are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// `PartialObjectMetadata`: a fifth of the size of a Node.
    Metadata,
}

impl Form {
    fn accept_list(self) -> &'static str {
        match self {
            Form::Whole => "application/json",
            Form::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        }
    }

    fn accept_watch(self) -> &'static str {
        match self {
            Form::Whole => "application/json",
            Form::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }
}

/// How recent a list must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Any version: the content of the server's watch cache.
    Any,
    /// At least this version.
    NotOlderThan(String),
    /// The current content of etcd.
    Newest,
}

impl Place {
    /// The place of a resource. `node` is the own node, `namespace` that of Secrets.
    pub(super) fn of(resource: &Resource, group: Group, node: &str, namespace: &str) -> Place {
        let named = |name: &str| {
            Some(format!("fieldSelector={}", encoded(&format!("metadata.name={name}"))))
        };
        let (path, selector) = match resource {
            Resource::Nodes => ("/api/v1/nodes".to_owned(), None),
            Resource::OwnNode => ("/api/v1/nodes".to_owned(), named(node)),
            Resource::Services => ("/api/v1/services".to_owned(), None),
            Resource::EndpointSlices => (
                "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
                // Slices of headless services are often the majority, and never announced.
                Some(format!("labelSelector={}", encoded("!service.kubernetes.io/headless"))),
            ),
            Resource::Secret(name) => {
                (format!("/api/v1/namespaces/{}/secrets", encoded(namespace)), named(name))
            }
            calico => (format!("/apis/{}/{}", group.path(), calico.plural()), None),
        };
        let form = if *resource == Resource::Nodes { Form::Metadata } else { Form::Whole };
        let size = match resource {
            Resource::Nodes | Resource::Services | Resource::EndpointSlices => Size::Large,
            _ => Size::Small,
        };
        Place { path, selector, form, size, reading: Reading::Paged }
    }

    /// The same without parameters that a server might not know.
    pub(super) fn plain(&self) -> Place {
        let is_labels = |s: &&String| s.starts_with("labelSelector");
        let selector = self.selector.clone().filter(|s| !is_labels(&s));
        Place { selector, form: Form::Whole, reading: Reading::AtOnce, ..self.clone() }
    }

    /// The same with a label selector.
    pub(super) fn with_labels(&self, selector: &str) -> Place {
        let selector = Some(format!("labelSelector={}", encoded(selector)));
        Place { selector, ..self.clone() }
    }

    fn query(&self) -> Query {
        let mut query = Query(self.path.clone());
        if let Some(selector) = &self.selector {
            query.push(selector);
        }
        query
    }

    /// Requests a list, or its next page.
    pub(super) fn list(&self, from: &From, limit: Option<u32>, next: Option<&str>) -> Request {
        let mut query = self.query();
        if let Some(limit) = limit {
            query.push(&format!("limit={limit}"));
        }
        match (next, from) {
            // A further page has the version of the first.
            (Some(token), _) => query.push(&format!("continue={}", encoded(token))),
            (None, From::Any) => query.push("resourceVersion=0"),
            (None, From::NotOlderThan(version)) => {
                query.push(&format!("resourceVersion={}", encoded(version)));
                query.push("resourceVersionMatch=NotOlderThan");
            }
            (None, From::Newest) => {}
        }
        Request::read(query.0, self.form.accept_list())
    }

    /// Requests one object by its name, read from etcd.
    pub(super) fn probe(&self, name: &str) -> Request {
        let mut query = Query(self.path.clone());
        query.push(&format!("fieldSelector={}", encoded(&format!("metadata.name={name}"))));
        Request::read(query.0, self.form.accept_list())
    }

    /// Requests a watch from a version.
    pub(super) fn watch(&self, version: &str, lasts: Duration) -> Request {
        let mut query = self.query();
        query.push("watch=true&allowWatchBookmarks=true");
        query.push(&format!("resourceVersion={}", encoded(version)));
        query.push(&format!("timeoutSeconds={}", lasts.as_secs()));
        Request::read(query.0, self.form.accept_watch())
    }
}

struct Query(String);

impl Query {
    fn push(&mut self, part: &str) {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(part);
    }
}

/// Percent-encodes a text for a query or a path segment: everything but the unreserved characters
/// of RFC 3986 §2.3.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            let _ = write!(encoded, "%{octet:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(resource: &Resource) -> Place {
        Place::of(resource, Group::V1, "n1", "kube-system")
    }

    #[test]
    fn requests_are_those_of_the_api() {
        let pools = place(&Resource::IpPools);
        let base = "/apis/crd.projectcalico.org/v1/ippools";
        assert_eq!(pools.list(&From::Any, None, None).target, format!("{base}?resourceVersion=0"));
        let newer = pools.list(&From::NotOlderThan("7".into()), None, None).target;
        assert_eq!(newer, format!("{base}?resourceVersion=7&resourceVersionMatch=NotOlderThan"));
        assert_eq!(pools.list(&From::Newest, None, None).target, base);
        let page = pools.list(&From::Any, Some(500), Some("a=b/")).target;
        assert_eq!(page, format!("{base}?limit=500&continue=a%3Db%2F"));
        let watch = pools.watch("7", Duration::from_secs(600)).target;
        let expected = "watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=600";
        assert_eq!(watch, format!("{base}?{expected}"));
    }

    #[test]
    fn selectors_and_forms_are_those_of_each_kind() {
        let secret = place(&Resource::Secret("bgp-secrets".into()));
        let expected =
            "/api/v1/namespaces/kube-system/secrets?fieldSelector=metadata.name%3Dbgp-secrets";
        assert_eq!(secret.list(&From::Newest, None, None).target, expected);
        let slices = place(&Resource::EndpointSlices).list(&From::Newest, None, None).target;
        assert!(slices.ends_with("?labelSelector=%21service.kubernetes.io%2Fheadless"), "{slices}");
        let nodes = place(&Resource::Nodes);
        assert!(nodes.list(&From::Any, None, None).accept.contains("PartialObjectMetadataList"));
        assert!(nodes.watch("1", Duration::ZERO).accept.contains("as=PartialObjectMetadata;"));
        assert_eq!(place(&Resource::OwnNode).form, Form::Whole);
        let v3 = Place::of(&Resource::BgpPeers, Group::V3, "n1", "");
        assert_eq!(v3.path, "/apis/projectcalico.org/v3/bgppeers");
    }
}
