//! The plan: what BGP on a node is to do, as Calico's objects say.
//!
//! Serialised, it is the answer of `margay calico plan --json`; keys may be added, never renamed.
//! The policies that go with it are compiled already and are what the daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::policy::Policy;
use bgp_proto::session::AuthKey;
use bgp_proto::types::{Asn, ClusterId, Family, Prefix, RouterId};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::release::Release;

/// What BGP on a node is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The node.
    pub node: String,
    /// Whether there is any BGP on the node; false with some `CALICO_NETWORKING_BACKEND`s, and then
    /// the rest is empty.
    pub speaks_bgp: bool,
    /// One speaker for each family.
    pub families: Families,
    /// The cluster that this node reflects routes in; `None`: it reflects none, or says no id.
    #[serde(skip)]
    pub cluster_id: Option<ClusterId>,
    /// The release of Calico that the plan is for.
    pub release: Release,
    /// Objects, or parts of them, that could not be used; sorted, each once.
    pub problems: Vec<Problem>,
    /// What can be used, and does nothing or something else than one might think; sorted, each once.
    pub notes: Vec<Problem>,
    /// Which of the problems and notes leave it open who writes which routes: the release of Calico is
    /// not known, or a class of pools has no writer or two.
    #[serde(skip)]
    pub doubts: Vec<Problem>,
    /// What own blocks, ranges and addresses of services, and routes to neighbours are to this node,
    /// each with the object that it comes from, for people.
    #[serde(skip)]
    pub reasons: Arc<BTreeMap<Prefix, String>>,
    /// Whether the plan may be put into force. Without the node's own object nothing can be
    /// computed, and what runs is left alone.
    #[serde(skip)]
    pub is_complete: bool,
    /// Why it may not, in one line.
    #[serde(skip)]
    pub stuck: Option<String>,
}

/// Which sessions of a plan may differ from those of the plan before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// All of them.
    All,
    /// Those with these names: they came, changed or went. Of sessions with one neighbour address
    /// all are named or none.
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

    /// Takes in what others touched.
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
    /// That of a node that speaks no BGP.
    pub fn without_bgp(node: &str) -> Plan {
        Plan {
            node: node.to_owned(),
            speaks_bgp: false,
            families: Families::default(),
            cluster_id: None,
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
    /// The node has an address of the family; without one there are no sessions, but statics and
    /// kernel routes remain.
    pub enabled: bool,
    /// BGP Identifier; `None`: the node has no IPv4 address and none was given.
    pub router_id: Option<RouterId>,
    /// Our AS.
    pub asn: Asn,
    /// Where connections are accepted.
    pub listen: Listen,
    /// Sorted by name.
    #[serde(serialize_with = "as_list")]
    pub sessions: Arc<Vec<PlannedSession>>,
    /// Routes of our own.
    pub statics: Vec<StaticRoute>,
    /// Own blocks: announced whole, nothing beneath them; sorted as text.
    pub aggregates: Vec<Prefix>,
    /// Communities for what is announced.
    pub communities: Vec<PrefixCommunities>,
    /// Nothing inside these goes to the kernel; sorted as text.
    pub kernel_reject: Vec<Prefix>,
    /// Sorted as text.
    pub pools: Vec<Pool>,
    /// Globs of interfaces whose networks are no routes of ours; the first that matches decides.
    pub ignored_interfaces: Vec<String>,
    /// What goes to the kernel; serialised, a digest.
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

/// A session in its place among the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedSession {
    /// Its parameters.
    #[serde(flatten)]
    pub session: Arc<Session>,
    /// The session that holds the same neighbour; this one waits until that is removed.
    pub shadowed_by: Option<Arc<str>>,
    /// Applied to what the neighbour sends; serialised, a digest.
    #[serde(rename = "import_policy", serialize_with = "as_digest")]
    pub import: Arc<Policy>,
    /// Applied to what would be advertised to the neighbour; serialised, a digest.
    #[serde(rename = "export_policy", serialize_with = "as_digest")]
    pub export: Arc<Policy>,
}

impl Session {
    /// Whether it has to do without a key that it should have. Such a session does not run.
    pub fn lacks_key(&self) -> bool {
        self.password.is_some() && self.key.is_none()
    }
}

/// Parameters of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// As BIRD calls its protocol: `Mesh_10_192_0_3`.
    #[serde(serialize_with = "as_text")]
    pub name: Arc<str>,
    /// What asked for it.
    pub kind: SessionKind,
    /// The object that it follows from: `BGPPeer/tor`, or `Node/b` for the mesh.
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
    /// iBGP.
    pub internal: bool,
    /// The address that we use; `None`: the kernel chooses.
    pub source_address: Option<IpAddr>,
    /// We wait for the neighbour to connect.
    pub passive: bool,
    /// GTSM: most hops to the neighbour, 1-255.
    pub ttl_security: Option<u8>,
    /// Where the MD5 key is.
    pub password: Option<Password>,
    /// The neighbour is our client.
    pub route_reflector_client: bool,
    /// The cluster that clients are in.
    pub cluster_id: Option<ClusterId>,
    /// Next hop towards the neighbour.
    pub next_hop: NextHop,
    /// How often our AS may stand in a received path.
    pub allow_local_asn: u8,
    /// Restart time that we offer, in seconds.
    pub graceful_restart_time: u64,
    /// Keepalive interval in seconds; `None`: a third of the hold time.
    pub keepalive_time: Option<u64>,
    /// BGPFilters that exist and have rules for the family, in order.
    pub filters: Vec<String>,
    /// Sorts sessions like their names; equal ones must differ by name.
    #[serde(skip)]
    pub(super) sort_key: u128,
    /// The MD5 key itself, never printed.
    #[serde(skip)]
    pub key: Option<AuthKey>,
}

fn as_list<S: Serializer>(
    list: &Arc<Vec<PlannedSession>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter())
}

/// Tells whether a policy is the same as in another plan of the same margay: rules are not shown.
fn as_digest<S: Serializer>(policy: &Arc<Policy>, serializer: S) -> Result<S::Ok, S::Error> {
    let digest = Sha256::digest(format!("{:?} {:?}", policy.rules, policy.default));
    let text: String = digest.iter().take(6).map(|octet| format!("{octet:02x}")).collect();
    serializer.serialize_str(&text)
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// What asked for a session.
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
    /// It is there and can be used; otherwise the last key that was known is, and without any the
    /// session does not run.
    pub found: bool,
}

/// Next hop towards a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// As BGP says.
    Auto,
    /// Always ourselves.
    #[serde(rename = "self")]
    SelfAddress,
    /// Always unchanged.
    Keep,
}

/// A route of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StaticRoute {
    /// Destination.
    pub prefix: Prefix,
    /// What happens to packets.
    pub kind: StaticKind,
    /// Where they go.
    pub gateway: Option<IpAddr>,
}

/// What happens to packets of a static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaticKind {
    /// Dropped, where nothing more specific is known.
    Blackhole,
    /// Sent to the gateway.
    Via,
}

/// Communities for everything inside a prefix.
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
    /// Masked.
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
    /// As they are.
    Accept,
    /// Not: something else writes them.
    Reject,
    /// Through the IPIP tunnel.
    Tunnel,
    /// Through the IPIP tunnel, unless the next hop is in the node's own subnet.
    TunnelCrossSubnet,
}

/// Something that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// `KIND/NAME`; a file or a key where there is no object.
    pub object: String,
    /// What is wrong with it and what happens instead.
    pub text: String,
}

impl Problem {
    /// What is wrong with an object, or with a file or key that should hold one.
    pub fn new(object: impl ToString, text: impl Into<String>) -> Self {
        Problem { object: object.to_string(), text: text.into() }
    }
}
