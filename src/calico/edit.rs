//! Objects that are to be added, replaced or deleted, and what would follow from that.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::Converter;
use super::diff::{Difference, compare};
use super::load::Loaded;
use super::model::{Decoded, Kind, ObjectId};
use super::plan::{Plan, Touched};
use super::release::Release;
use super::resolver::Resolver;
use super::settings::Settings;
use super::snapshot::Snapshot;
use crate::config::{CalicoLimits, Config, HostSettings};

/// Kinds that can be deleted. A Node may be stored as Calico's, as Kubernetes', or as both.
const KINDS: [Kind; 10] = [
    Kind::Node,
    Kind::KubernetesNode,
    Kind::BgpConfiguration,
    Kind::BgpPeer,
    Kind::BgpFilter,
    Kind::IpPool,
    Kind::BlockAffinity,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::FelixConfiguration,
];

/// Maximum number of differences of the plan that a forecast lists.
const PLAN_MAX: usize = 20_000;

/// A change of objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    apply: Vec<Decoded>,
    delete: Vec<String>,
}

impl Edit {
    /// Adds or replaces the objects that were read, then deletes those named in `delete`: `KIND/NAME`
    /// or `KIND/NAMESPACE/NAME`, the kind in any case.
    ///
    /// # Errors
    /// Something could not be read, an object is invalid, or a name has another form: what follows
    /// from the rest would not be what happens.
    pub fn new(loaded: Loaded, delete: Vec<String>) -> Result<Edit, String> {
        if let Some(problem) = loaded.problems.first() {
            return Err(format!("{}: {}", problem.object, problem.text));
        }
        for Decoded { id, object } in &loaded.objects {
            if let Err(fault) = object {
                return Err(format!("{id}: {fault}"));
            }
        }
        delete.iter().try_for_each(|text| deletable(text))?;
        Ok(Edit { apply: loaded.objects, delete })
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.apply.is_empty() && self.delete.is_empty()
    }

    /// Carries the change out. Returns one line for each object.
    ///
    /// # Errors
    /// An object that is to be deleted does not exist.
    pub fn carry_out(&self, snapshot: &mut Snapshot) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for object in &self.apply {
            lines.push(format!("apply {}", object.id));
            snapshot.apply(object.clone());
        }
        for text in &self.delete {
            let known = named(text, snapshot);
            if known.is_empty() {
                return Err(format!("--delete {text}: there is no such object"));
            }
            known.iter().for_each(|id| snapshot.withdraw(id));
            lines.push(format!("delete {text}"));
        }
        Ok(lines)
    }

    /// Whether it adds the Secret.
    fn has_secret(&self, namespace: &str, name: &str) -> bool {
        self.apply.iter().any(|Decoded { id, .. }| {
            (id.kind, &*id.namespace, &*id.name) == (Kind::Secret, namespace, name)
        })
    }

    fn has_kind(&self, kind: Kind) -> bool {
        self.apply.iter().any(|object| object.id.kind == kind)
    }
}

/// Whether this names an object of a kind that can be deleted.
fn deletable(text: &str) -> Result<(), String> {
    let Some((kind, _)) = text.split_once('/') else {
        return Err(format!("--delete {text}: expected KIND/NAME or KIND/NAMESPACE/NAME"));
    };
    let mut kinds = KINDS.map(|known| known.to_string()).to_vec();
    kinds.dedup();
    if kinds.iter().any(|known| known.eq_ignore_ascii_case(kind)) {
        return Ok(());
    }
    let kinds = kinds.join(", ");
    Err(format!(
        "--delete {text}: this kind cannot be deleted in a forecast; those that can: {kinds}"
    ))
}

/// The objects of this name.
fn named(text: &str, snapshot: &Snapshot) -> Vec<ObjectId> {
    let Some((kind, name)) = text.split_once('/') else { return Vec::new() };
    let kinds = KINDS.into_iter().filter(|known| known.to_string().eq_ignore_ascii_case(kind));
    // Names of blocks have slashes.
    let (namespace, name) = match name.split_once('/') {
        Some(parts) if !kind.eq_ignore_ascii_case("BlockAffinity") => parts,
        _ => ("", name),
    };
    let ids =
        kinds.map(|kind| ObjectId { kind, namespace: namespace.to_owned(), name: name.to_owned() });
    ids.filter(|id| snapshot.get(id).is_some()).collect()
}

/// What a plan is computed from, at one moment.
#[derive(Clone, Debug)]
pub struct Basis {
    /// All objects.
    pub snapshot: Snapshot,
    /// Settings that do not come from objects.
    pub settings: Settings,
    /// The release that stays in force ([`Resolver::hold_release`]).
    pub held_release: Option<Release>,
    /// Limits that go into each configuration.
    pub limits: CalicoLimits,
    /// Settings of this machine, which go into each configuration.
    pub host: HostSettings,
    /// The configuration that followed from the objects last; `None`: computed from them.
    pub config: Option<Arc<Config>>,
    /// Whether Services, EndpointSlices and Secrets are read only as far as the plan needs them.
    pub asks_services: bool,
}

/// What would follow from changed objects.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// One line for each changed object.
    pub objects: Vec<String>,
    /// How the plan would differ, problems and notes included; at most 20,000 differences.
    pub plan: Vec<Difference>,
    /// Number of further differences.
    pub plan_more: u64,
    /// The configuration before.
    pub before: Arc<Config>,
    /// The configuration that would follow.
    pub after: Config,
    /// Objects that the plan would need and that have not been read.
    pub unread: Vec<String>,
}

impl Basis {
    /// Computes what would follow from a change. Takes as long as two plans.
    ///
    /// # Errors
    /// An object that is to be deleted does not exist, or no configuration follows from the objects,
    /// with or without the change; the text says why.
    pub fn forecast(&self, edit: &Edit) -> Result<Forecast, String> {
        let mut changed = self.snapshot.clone();
        let objects = edit.carry_out(&mut changed)?;
        let unread = self.unread(&changed, edit);
        let (was, before) = match &self.config {
            Some(config) => (self.plan(&self.snapshot, config)?.0, Arc::clone(config)),
            None => {
                let mut converter = Converter::new(self.limits.clone());
                let (plan, config) = self.convert(&self.snapshot, &mut converter)?;
                (plan, Arc::new(config))
            }
        };
        let (is, after) = self.plan(&changed, &before).map_err(|why| {
            format!(
                "with this change there would be no plan, and the last one stays in force: {why}"
            )
        })?;
        let json = |plan: &Plan| serde_json::to_value(plan).map_err(|error| error.to_string());
        let mut plan = compare(&json(&was)?, &json(&is)?);
        let plan_more = plan.len().saturating_sub(PLAN_MAX) as u64;
        plan.truncate(PLAN_MAX);
        Ok(Forecast { objects, plan, plan_more, before, after, unread })
    }

    /// The plan for these objects and its configuration, after `config`.
    fn plan(&self, snapshot: &Snapshot, config: &Config) -> Result<(Plan, Config), String> {
        self.convert(snapshot, &mut Converter::after(config, self.limits.clone()))
    }

    fn convert(
        &self,
        snapshot: &Snapshot,
        converter: &mut Converter,
    ) -> Result<(Plan, Config), String> {
        let mut resolver = Resolver::of(snapshot.clone(), self.settings.clone());
        self.held_release.into_iter().for_each(|release| resolver.hold_release(release));
        let mut plan = resolver.plan();
        let config = converter.convert(&plan, &Touched::All, &self.host).ok_or_else(|| {
            plan.stuck.clone().unwrap_or_else(|| {
                format!("Node/{} has no BGP Identifier: it has no IPv4 address", plan.node)
            })
        })?;
        plan.problems.extend(converter.problems().cloned());
        Ok((plan, config))
    }

    /// What the changed objects need and nobody has asked for yet.
    fn unread(&self, changed: &Snapshot, edit: &Edit) -> Vec<String> {
        if !self.asks_services {
            return Vec::new();
        }
        let (before, after) = (self.snapshot.needs(&self.settings), changed.needs(&self.settings));
        let secrets: BTreeSet<&String> = after.secrets.difference(&before.secrets).collect();
        let secrets =
            secrets.into_iter().filter(|name| !edit.has_secret(&self.settings.namespace, name));
        let mut unread: Vec<String> = secrets
            .map(|name| {
                format!("Secret {name}, which is not read yet (it can be given by --apply)")
            })
            .collect();
        let begins = after.has_service_ranges && !before.has_service_ranges;
        if begins && !edit.has_kind(Kind::Service) {
            unread.push("Services, which are not read before a range is configured".to_owned());
        }
        unread
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::calico::load::parse;

    fn loaded(text: &str) -> Loaded {
        let mut loaded = Loaded::default();
        parse("f", text, &mut loaded);
        loaded
    }

    fn object(kind: &str, name: &str, spec: &serde_json::Value) -> String {
        json!({"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
               "spec": spec})
        .to_string()
    }

    fn node(name: &str, number: u8) -> String {
        object("Node", name, &json!({"bgp": {"ipv4Address": format!("10.0.0.{number}/24")}}))
    }

    fn basis(objects: &[String]) -> Basis {
        let mut snapshot = Snapshot::default();
        let objects = loaded(&objects.join("\n---\n")).objects;
        objects.into_iter().for_each(|object| snapshot.apply(object));
        let own = "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n";
        let host = Config::parse(Path::new("m.toml"), own).unwrap().host;
        Basis {
            snapshot,
            settings: Settings::from_env("a", &BTreeMap::new()),
            held_release: None,
            limits: CalicoLimits::default(),
            host,
            config: None,
            asks_services: true,
        }
    }

    fn edit(apply: &[String], delete: &[&str]) -> Edit {
        let delete = delete.iter().map(|text| (*text).to_owned()).collect();
        Edit::new(loaded(&apply.join("\n---\n")), delete).unwrap()
    }

    #[test]
    fn a_forecast_has_the_sessions_that_come_and_go_and_what_it_lacks() {
        let basis = basis(&[node("a", 1), node("b", 2)]);
        let password = json!({"secretKeyRef": {"name": "bgp", "key": "k"}});
        let spec = json!({"peerIP": "192.0.2.1", "asNumber": 64999, "password": password});
        let edit = edit(&[object("BGPPeer", "tor", &spec)], &["node/b"]);
        let forecast = basis.forecast(&edit).unwrap();
        assert_eq!(forecast.objects, ["apply BGPPeer/tor", "delete node/b"]);
        let places: Vec<&str> = forecast.plan.iter().map(|d| d.place.as_str()).collect();
        assert!(places.contains(&"families ipv4 sessions Mesh_10_0_0_2"), "{places:?}");
        assert!(places.contains(&"families ipv4 sessions Global_192_0_2_1"), "{places:?}");
        let changes = forecast.before.changes_to(&forecast.after);
        assert_eq!(changes.peers_removed, ["Mesh_10_0_0_2".into()]);
        // Without its password it does not run.
        assert!(changes.peers_added.is_empty(), "{changes}");
        assert!(matches!(&forecast.unread[..], [text] if text.starts_with("Secret bgp, ")));
        assert!(!edit.is_empty() && Edit::default().is_empty());
    }

    #[test]
    fn a_configuration_that_stays_shares_every_session() {
        let mut basis = basis(&[node("a", 1), node("b", 2), node("c", 3)]);
        let config = Arc::new(basis.forecast(&Edit::default()).unwrap().after);
        basis.config = Some(Arc::clone(&config));
        let forecast = basis.forecast(&edit(&[node("d", 4)], &[])).unwrap();
        let changes = config.changes_to(&forecast.after);
        assert_eq!(changes.lines(), ["peer Mesh_10_0_0_4: added"]);
        for (old, new) in config.peers.iter().zip(&forecast.after.peers) {
            assert!(Arc::ptr_eq(&old.session, &new.session), "{}", old.name);
            assert!(Arc::ptr_eq(&old.routes, &new.routes), "{}", old.name);
        }
    }

    #[test]
    fn what_cannot_be_foreseen_is_refused_by_name() {
        let basis = basis(&[node("a", 1), node("b", 2)]);
        let refused = |edit: &Edit| basis.forecast(edit).unwrap_err();
        let why = refused(&edit(&[], &["bgppeer/x"]));
        assert_eq!(why, "--delete bgppeer/x: there is no such object");
        let why = refused(&edit(&[], &["Node/a"]));
        assert!(why.contains("there would be no plan") && why.contains("Node/a"), "{why}");
        let new = |text: &str| Edit::new(loaded(text), Vec::new()).unwrap_err();
        let bad = node("a", 1).replace("10.0.0.1", "10.0.0.300");
        assert!(new(&bad).starts_with("Node/a: "), "{}", new(&bad));
        assert!(new("kind: [").starts_with("f: line "), "{}", new("kind: ["));
        let form = Edit::new(Loaded::default(), vec!["x".to_owned()]).unwrap_err();
        assert!(form.contains("expected KIND/NAME"), "{form}");
        let kind = Edit::new(Loaded::default(), vec!["Secret/kube-system/bgp".to_owned()]);
        let kind = kind.unwrap_err();
        assert!(
            kind.contains("cannot be deleted in a forecast; those that can: Node, BGP"),
            "{kind}"
        );
    }

    #[test]
    fn only_a_secret_of_the_right_namespace_is_the_one_that_is_needed() {
        let basis = basis(&[node("a", 1)]);
        let password = json!({"secretKeyRef": {"name": "bgp", "key": "k"}});
        let spec = json!({"peerIP": "192.0.2.1", "asNumber": 64999, "password": password});
        let unread = |namespace: &str| {
            let metadata = json!({"name": "bgp", "namespace": namespace});
            let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata,
                                "data": {"k": "cw=="}});
            let edit = edit(&[object("BGPPeer", "tor", &spec), secret.to_string()], &[]);
            basis.forecast(&edit).unwrap().unread.len()
        };
        assert_eq!((unread("kube-system"), unread("default")), (0, 1));
    }

    #[test]
    fn a_forecast_lists_no_more_of_the_plan_than_it_may() {
        let basis = basis(&[node("a", 1)]);
        let count: u32 = 22_000;
        let peers = (0..count).map(|n| {
            let address = std::net::Ipv4Addr::from(0xC612_0000 + n).to_string();
            object("BGPPeer", &format!("p{n}"), &json!({"peerIP": address, "asNumber": 64999}))
        });
        let forecast = basis.forecast(&edit(&peers.collect::<Vec<_>>(), &[])).unwrap();
        assert_eq!(forecast.plan.len(), PLAN_MAX);
        assert!(forecast.plan_more >= 2000, "{}", forecast.plan_more);
    }
}
