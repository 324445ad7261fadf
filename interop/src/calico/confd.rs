//! The real calicoctl and confd of a Calico release: the first applies objects, and the second
//! writes a node's files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Etcd;
use super::golden::Scenario;
use super::random::{NODE, ObjectSet};
use super::services::{LAST, NAMESPACE, Services};
use crate::daemon::Daemon;
use crate::kubernetes::{Api, Group, Kubernetes};
use crate::lab::{self, Lab};
use crate::wait::{PATIENCE, holds_for, wait_until};

/// Where `interop/setup.sh confd` puts the programs and the templates.
const PROGRAMS: &str = "/opt/interop/confd";

/// Their Calico release.
const RELEASE: &str = "v3.28.5";

/// How long confd's files must stay unchanged to count as complete.
const QUIET: Duration = Duration::from_millis(1500);

/// A datastore, and the programs beside it.
#[derive(Debug)]
pub struct Confd {
    etcd: Etcd,
    kubernetes: Option<Kubernetes>,
}

impl Confd {
    /// Starts the datastore.
    ///
    /// # Errors
    /// When it does not come up, or the programs are missing: the error says how to build them.
    pub fn start(lab: &mut Lab) -> Result<Self> {
        let missing = || format!("no confd in {PROGRAMS}: run interop/setup.sh confd");
        std::fs::metadata(Path::new(PROGRAMS).join("sum")).with_context(missing)?;
        Ok(Confd { etcd: Etcd::start(&lab.host("etcd")?)?, kubernetes: None })
    }

    /// As [`Confd::start`], with an API server for services, which are never in Calico's datastore.
    ///
    /// # Errors
    /// As [`Confd::start`], and when the API server does not come up.
    pub fn start_beside_kubernetes(lab: &mut Lab) -> Result<Self> {
        let mut confd = Confd::start(lab)?;
        let kubernetes = Kubernetes::start(&lab.host("kube")?, Group::V1)?;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
        });
        kubernetes.admin().post("/api/v1/namespaces", &namespace)?;
        confd.kubernetes = Some(kubernetes);
        Ok(confd)
    }

    /// Applies an object set of our own, with services where there is an API server, and has a
    /// node's files written into `folder`.
    ///
    /// # Errors
    /// When an object is refused, or confd fails.
    pub fn scenario(&self, number: u8, folder: &Path) -> Result<Scenario> {
        let services = self.kubernetes.as_ref().map(|_| Services::new(number));
        let ranges = services.as_ref().map_or("", |services| &services.ranges);
        let set = ObjectSet::new(number, ranges);
        let ignored = services.as_ref().map_or(Vec::new(), |services| services.single.clone());
        std::fs::create_dir_all(folder)?;
        let mut objects = vec![folder.join("objects.yaml"), folder.join("affinities.etcd.txt")];
        std::fs::write(&objects[0], &set.yaml)?;
        let blocks = set.affinities.iter().map(|(key, value)| format!("{key}\t{value}\n"));
        std::fs::write(&objects[1], blocks.collect::<String>())?;

        self.etcd.clear()?;
        self.etcd.put("/calico/v1/Ready", "true")?;
        for (key, value) in &set.affinities {
            self.etcd.put(key, value)?;
        }
        let file = objects[0].display().to_string();
        let apply = ["--allow-version-mismatch", "apply", "-f", &file];
        lab::run_command(&mut self.command("calicoctl", &apply))?;
        let confdir = self.configuration(folder)?.display().to_string();
        let mut confd = self.command("confd", &["-sync-only", "-confdir", &confdir]);
        match (&self.kubernetes, services) {
            (Some(kubernetes), Some(services)) => {
                let api = kubernetes.admin();
                create(&api, &services)?;
                // `Scenario::blocks` takes the last file.
                let file = folder.join("services.json");
                std::fs::write(&file, read(&api)?.to_string())?;
                objects.insert(1, file);
                let user = kubernetes.kubeconfig("confd", "token: admin-token")?;
                confd.env("KUBECONFIG", user);
                watch(confd, folder)?;
                delete(&api, &services)?;
            }
            _ => drop(lab::run_command(confd.arg("-onetime"))?),
        }
        Ok(Scenario {
            name: format!("confd-{number}"),
            node: NODE.to_owned(),
            nodes: set.nodes,
            objects,
            release: RELEASE.to_owned(),
            environment: Vec::new(),
            golden: folder.to_owned(),
            pools: set.pools,
            has_blocks: true,
            ignored,
        })
    }

    /// Writes confd's configuration, which puts its files into `folder` instead of the container's.
    fn configuration(&self, folder: &Path) -> Result<PathBuf> {
        let confdir = folder.join("confd");
        let targets = confdir.join("conf.d");
        std::fs::create_dir_all(&targets)?;
        for entry in std::fs::read_dir(Path::new(PROGRAMS).join("conf.d"))? {
            let entry = entry?;
            let text = std::fs::read_to_string(entry.path())?;
            let folder = format!("{}/", folder.display());
            let text = text.replace("/etc/calico/confd/config/", &folder);
            std::fs::write(targets.join(entry.file_name()), text)?;
        }
        let templates = confdir.join("templates");
        if !templates.exists() {
            std::os::unix::fs::symlink(Path::new(PROGRAMS).join("templates"), templates)?;
        }
        Ok(confdir)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.etcd.host().command(&format!("{PROGRAMS}/{program}"));
        command.args(args);
        command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", self.etcd.url());
        command.env("NODENAME", NODE).env("CALICO_NETWORKING_BACKEND", "bird");
        command
    }
}

/// The API path of a kind's objects.
fn path_of(kind: &str) -> String {
    let group = if kind == "EndpointSlice" { "apis/discovery.k8s.io" } else { "api" };
    let plural =
        if kind == "Endpoints" { "endpoints" } else { &format!("{}s", kind.to_lowercase()) };
    format!("/{group}/v1/namespaces/{NAMESPACE}/{plural}")
}

/// Creates the objects, and then the addresses that a load balancer assigns: those are status.
fn create(api: &Api<'_>, services: &Services) -> Result<()> {
    for object in &services.objects {
        let kind = object["kind"].as_str().context("no kind")?;
        api.post(&path_of(kind), object).with_context(|| object.to_string())?;
    }
    for (name, addresses) in &services.balanced {
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        api.patch(&format!("{}/{name}/status", path_of("Service")), &status)?;
    }
    Ok(())
}

/// The objects for margay, as the server has them, with defaults filled in.
fn read(api: &Api<'_>) -> Result<Value> {
    let mut items = Vec::new();
    for kind in ["Service", "EndpointSlice"] {
        let list = api.object(&path_of(kind))?;
        for mut item in list["items"].as_array().context("no items")?.clone() {
            // An item of a list has neither kind nor version.
            item["kind"] = json!(kind);
            item["apiVersion"] = list["apiVersion"].clone();
            items.push(item);
        }
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

fn delete(api: &Api<'_>, services: &Services) -> Result<()> {
    // In reverse, because the server deletes a Service's Endpoints with it.
    for object in services.objects.iter().rev() {
        let kind = object["kind"].as_str().context("no kind")?;
        let name = object["metadata"]["name"].as_str().context("no name")?;
        api.delete(&format!("{}/{name}", path_of(kind)))?;
    }
    Ok(())
}

/// Runs confd until its files are complete. With `-onetime` it would write them before it has
/// checked services against the ranges, which come from the other datastore.
fn watch(confd: Command, folder: &Path) -> Result<()> {
    let mut daemon = Daemon::start(confd, &folder.join("confd.log"))?;
    let written = || -> Result<Vec<String>> {
        let names = ["bird", "bird_aggr", "bird_ipam", "bird6", "bird6_aggr", "bird6_ipam"];
        let read = |name| std::fs::read_to_string(folder.join(format!("{name}.cfg")));
        Ok(names.into_iter().map(read).collect::<Result<_, _>>()?)
    };
    wait_until(PATIENCE, "confd to know the last service", || {
        let output = daemon.output();
        let files = written().with_context(|| output.clone())?;
        ensure!(files.iter().any(|text| text.contains(LAST)), "{output}");
        Ok(())
    })?;
    let mut last = written()?;
    wait_until(PATIENCE, "confd to be quiet", || {
        last = written()?;
        holds_for(QUIET, "confd's files", || {
            ensure!(written()? == last, "they changed");
            Ok(())
        })
    })?;
    daemon.crash()
}
