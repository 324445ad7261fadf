//! The plan: the BGP configuration of a node that follows from Calico's objects.
//!
//! Serialised, it is the output of `margay calico plan --json`; keys may be added, never renamed.
//! Its policies are compiled and are those that the daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::policy::Policy;
use bgp_proto::session::AuthKey;
use bgp_proto::types::{Asn, ClusterId, ExtCommunity, Family, Prefix, RouterId};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::release::Release;

/// The BGP configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The node.
    pub node: String,
    /// Whether the node speaks BGP at all; false with some values of `CALICO_NETWORKING_BACKEND`,
    /// and then the rest is empty.
    pub speaks_bgp: bool,
    /// One speaker for each family.
    pub families: Families,
    /// The cluster in which this node reflects routes; `None`: it reflects none, or has no valid
    /// cluster id.
    #[serde(skip)]
    pub cluster_id: Option<ClusterId>,
    /// Why every peer is to be drained, as the node's own object says.
    pub drain: Option<Arc<str>>,
    /// The release of Calico that the plan is for.
    pub release: Release,
    /// Objects, or parts of them, that could not be used; sorted, each once.
    pub problems: Vec<Problem>,
    /// Objects, or parts of them, that are valid but have no effect, or not the expected one;
    /// sorted, each once.
    pub notes: Vec<Problem>,
    /// Those problems and notes that make it uncertain which program writes which routes: the
    /// release of Calico is unknown, or a class of pools has no writer or two.
    #[serde(skip)]
    pub doubts: Vec<Problem>,
    /// For own blocks, ranges and addresses of services, and routes to neighbours: what each is to
    /// this node and the object from which it comes, as text for people.
    #[serde(skip)]
    pub reasons: Arc<BTreeMap<Prefix, String>>,
    /// Whether the plan may be put into force. Without the node's own object nothing can be
    /// computed, and the running configuration is kept.
    #[serde(skip)]
    pub is_complete: bool,
    /// Why the plan may not be put into force, in one line.
    #[serde(skip)]
    pub stuck: Option<String>,
}

/// Which sessions of a plan may differ from those of the previous plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// All of them.
    All,
    /// Those with these names: added, changed or removed. Of the sessions with one neighbour
    /// address, all are named or none.
    These(BTreeSet<Arc<str>>),
}

impl Touched {
    /// The names; `None`: all.
    pub fn names(&self) -> Option<&BTreeSet<Arc<str>>> {
        match self {
            Touched::All => None,
            Touched::These(names) => Some(names),
        }
    }

    /// Adds the sessions of `more`.
    pub fn extend(&mut self, more: &Touched) {
        match (&mut *self, more) {
            (Touched::All, _) => {}
            (_, Touched::All) => *self = Touched::All,
            (Touched::These(names), Touched::These(more)) => names.extend(more.iter().cloned()),
        }
    }
}

impl Default for Touched {
    fn default() -> Self {
        Touched::These(BTreeSet::new())
    }
}

/// One value for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Families {
    pub ipv4: FamilyPlan,
    pub ipv6: FamilyPlan,
}

impl Families {
    /// The plan of a family.
    pub fn get(&self, family: Family) -> &FamilyPlan {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }
}

impl Plan {
    /// The plan of a node that does not speak BGP.
    pub fn without_bgp(node: &str) -> Plan {
        Plan {
            node: node.to_owned(),
            speaks_bgp: false,
            families: Families::default(),
            cluster_id: None,
            drain: None,
            release: Release::ASSUMED,
            problems: Vec::new(),
            notes: Vec::new(),
            doubts: Vec::new(),
            reasons: Arc::default(),
            is_complete: false,
            stuck: None,
        }
    }

    /// The session of that name, with its family.
    pub fn session(&self, name: &str) -> Option<(Family, &PlannedSession)> {
        Family::ALL.into_iter().find_map(|family| {
            let sessions = &self.families.get(family).sessions;
            let at = sessions.binary_search_by(|s| (*s.session.name).cmp(name)).ok()?;
            Some((family, sessions.get(at)?))
        })
    }
}

/// The speaker of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyPlan {
    /// The node has an address of the family, and its AS number is not 0. Otherwise there are no
    /// sessions, but static routes and kernel routes remain.
    pub enabled: bool,
    /// BGP Identifier; `None`: the node has no IPv4 address, and `CALICO_ROUTER_ID` gives no valid
    /// one.
    pub router_id: Option<RouterId>,
    /// Our AS.
    pub asn: Asn,
    /// Where connections are accepted.
    pub listen: Listen,
    /// Sorted by name.
    #[serde(serialize_with = "as_list")]
    pub sessions: Arc<Vec<PlannedSession>>,
    /// Locally originated routes.
    pub statics: Vec<StaticRoute>,
    /// Own blocks: announced whole, more specific routes suppressed; sorted as text.
    pub aggregates: Vec<Prefix>,
    /// Communities added to announced routes.
    pub communities: Vec<PrefixCommunities>,
    /// No route inside these is installed in the kernel; sorted as text.
    pub kernel_reject: Vec<Prefix>,
    /// Sorted as text.
    pub pools: Vec<Pool>,
    /// Globs of interfaces whose networks are not announced; the first that matches decides.
    pub ignored_interfaces: Vec<String>,
    /// Applied to routes for the kernel; serialised, a digest.
    #[serde(rename = "kernel_policy", serialize_with = "as_digest")]
    pub kernel: Arc<Policy>,
}

impl Default for FamilyPlan {
    fn default() -> Self {
        FamilyPlan {
            enabled: false,
            router_id: None,
            asn: Asn::default(),
            listen: Listen { address: None, port: 179 },
            sessions: Arc::default(),
            statics: Vec::new(),
            aggregates: Vec::new(),
            communities: Vec::new(),
            kernel_reject: Vec::new(),
            pools: Vec::new(),
            ignored_interfaces: Vec::new(),
            kernel: Arc::new(Policy::reject_all()),
        }
    }
}

/// Where connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Listen {
    /// `None`: on every address.
    pub address: Option<IpAddr>,
    /// TCP port.
    pub port: u16,
}

/// A session with its policies, and whether another one shadows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedSession {
    /// Its parameters.
    #[serde(flatten)]
    pub session: Arc<Session>,
    /// The session that holds the same neighbour address and port; this one does not run until that
    /// one is removed.
    pub shadowed_by: Option<Arc<str>>,
    /// Applied to received routes; serialised, a digest.
    #[serde(rename = "import_policy", serialize_with = "as_digest")]
    pub import: Arc<Policy>,
    /// Applied to routes to be advertised; serialised, a digest.
    #[serde(rename = "export_policy", serialize_with = "as_digest")]
    pub export: Arc<Policy>,
}

impl Session {
    /// Whether it requires an MD5 key that is unavailable. Such a session does not run.
    pub fn lacks_key(&self) -> bool {
        self.password.is_some() && self.key.is_none()
    }
}

/// Parameters of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// The name of BIRD's protocol for it: `Mesh_10_192_0_3`.
    #[serde(serialize_with = "as_text")]
    pub name: Arc<str>,
    /// What configures it.
    pub kind: SessionKind,
    /// The object from which it follows: `BGPPeer/tor`, or `Node/b` for the mesh.
    #[serde(serialize_with = "as_text")]
    pub object: Arc<str>,
    /// The neighbour's address.
    pub neighbor: IpAddr,
    /// The neighbour's port.
    pub port: u16,
    /// The neighbour's AS.
    pub remote_asn: Asn,
    /// Our AS on this session.
    pub local_asn: Asn,
    /// Whether the session is iBGP.
    pub internal: bool,
    /// The local address; `None`: the kernel chooses.
    pub source_address: Option<IpAddr>,
    /// Whether the neighbour is to open the connection.
    pub passive: bool,
    /// GTSM (RFC 5082): maximum number of hops to the neighbour, 1-255.
    pub ttl_security: Option<u8>,
    /// Where the MD5 key is.
    pub password: Option<Password>,
    /// The neighbour is our client.
    pub route_reflector_client: bool,
    /// CLUSTER_ID of the cluster of the clients.
    pub cluster_id: Option<ClusterId>,
    /// The vantage of the neighbour, if it is a node with the label that names vantages.
    #[serde(serialize_with = "as_optional_text", skip_serializing_if = "Option::is_none")]
    pub vantage: Option<Arc<str>>,
    /// Next hop towards the neighbour.
    pub next_hop: NextHop,
    /// How many times our AS may occur in a received AS_PATH.
    pub allow_local_asn: u8,
    /// Restart Time that we advertise, in seconds (RFC 4724).
    pub graceful_restart_time: u64,
    /// Keepalive interval in seconds; `None`: a third of the hold time.
    pub keepalive_time: Option<u64>,
    /// BGPFilters that exist and have rules for the family, in order.
    pub filters: Vec<String>,
    /// Sorts sessions as their names do; where keys are equal, names are compared.
    #[serde(skip)]
    pub(super) sort_key: u128,
    /// The MD5 key; never printed.
    #[serde(skip)]
    pub key: Option<AuthKey>,
}

fn as_list<S: Serializer>(
    list: &Arc<Vec<PlannedSession>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter())
}

/// A digest that shows whether a policy is the same in another plan of the same version of margay;
/// the rules themselves are not printed.
fn as_digest<S: Serializer>(policy: &Arc<Policy>, serializer: S) -> Result<S::Ok, S::Error> {
    let digest = Sha256::digest(format!("{:?} {:?}", policy.rules, policy.default));
    let text: String = digest.iter().take(6).map(|octet| format!("{octet:02x}")).collect();
    serializer.serialize_str(&text)
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn as_optional_text<S: Serializer>(
    text: &Option<Arc<str>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

/// What configures a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKind {
    /// The full mesh of nodes.
    Mesh,
    /// A BGPPeer for every node.
    Global,
    /// A BGPPeer for this node.
    Node,
    /// A workload on this node.
    LocalWorkload,
}

/// Where an MD5 key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Password {
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
    /// Whether it exists and is usable; otherwise the last known key is used, and without one the
    /// session does not run.
    pub found: bool,
}

/// Next hop towards a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// As in RFC 4271 §5.1.3.
    Auto,
    /// Always ourselves.
    #[serde(rename = "self")]
    SelfAddress,
    /// Always unchanged.
    Keep,
}

/// A locally originated route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StaticRoute {
    /// Destination.
    pub prefix: Prefix,
    /// What happens to packets.
    pub kind: StaticKind,
    /// Where they go.
    pub gateway: Option<IpAddr>,
    /// The share of traffic that it asks for, in octets per second, if the address of a service is
    /// announced with a Link Bandwidth community.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// That community.
    #[serde(skip)]
    pub community: Option<ExtCommunity>,
}

/// What happens to packets of a static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaticKind {
    /// Dropped, unless there is a more specific route.
    Blackhole,
    /// Sent to the gateway.
    Via,
}

/// Communities for all routes inside a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixCommunities {
    /// The prefix.
    pub prefix: Prefix,
    /// Standard and large ones in text form, sorted as text.
    pub communities: Vec<String>,
}

/// An IP pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// With host bits cleared.
    pub cidr: Prefix,
    /// Its routes are announced.
    pub export: bool,
    /// Whether and how its routes go to the kernel.
    pub kernel: PoolRoutes,
}

/// Whether and how a pool's routes go to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolRoutes {
    /// Installed unchanged.
    Accept,
    /// Not installed: another program writes them.
    Reject,
    /// Installed through the IPIP tunnel.
    Tunnel,
    /// Installed through the IPIP tunnel, unless the next hop is in the node's own subnet.
    TunnelCrossSubnet,
}

/// Something that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// `KIND/NAME`; a file or a key where there is no object.
    pub object: String,
    /// What is wrong with it, and what happens instead.
    pub text: String,
}

impl Problem {
    /// A problem of an object, or of a file or key that should hold one.
    pub fn new(object: impl ToString, text: impl Into<String>) -> Self {
        Problem { object: object.to_string(), text: text.into() }
    }
}
