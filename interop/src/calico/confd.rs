//! The real confd and calicoctl of a Calico release: objects are applied by the one, and the other
//! writes a node's files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Etcd;
use super::golden::Scenario;
use super::random::{NODE, ObjectSet};
use crate::lab::{self, Host, Lab};

/// Where `interop/setup.sh confd` puts the programs and the templates.
const PROGRAMS: &str = "/opt/interop/confd";

/// The release that they are of.
const RELEASE: &str = "v3.28.5";

/// A datastore, and the programs beside it.
#[derive(Debug)]
pub struct Confd {
    etcd: Etcd,
}

impl Confd {
    /// Starts the datastore.
    ///
    /// # Errors
    /// When it does not come up, or the programs are not there: says what to do.
    pub fn start(lab: &mut Lab) -> Result<Self> {
        let missing = || format!("no confd in {PROGRAMS}: run interop/setup.sh confd");
        std::fs::metadata(Path::new(PROGRAMS).join("sum")).with_context(missing)?;
        Ok(Confd { etcd: Etcd::start(&lab.host("etcd")?)? })
    }

    /// Applies an object set of our own, and has a node's files written into `folder`.
    ///
    /// # Errors
    /// When calicoctl refuses an object, or confd fails.
    pub fn scenario(&self, number: u8, folder: &Path) -> Result<Scenario> {
        let set = ObjectSet::new(number);
        std::fs::create_dir_all(folder)?;
        let objects = [folder.join("objects.yaml"), folder.join("affinities.etcd.txt")];
        std::fs::write(&objects[0], &set.yaml)?;
        let blocks = set.affinities.iter().map(|(key, value)| format!("{key}\t{value}\n"));
        std::fs::write(&objects[1], blocks.collect::<String>())?;

        self.etcd.clear()?;
        self.etcd.put("/calico/v1/Ready", "true")?;
        for (key, value) in &set.affinities {
            self.etcd.put(key, value)?;
        }
        let file = objects[0].display().to_string();
        self.run("calicoctl", &["--allow-version-mismatch", "apply", "-f", &file])?;
        let confdir = self.configuration(folder)?.display().to_string();
        self.run("confd", &["-onetime", "-sync-only", "-confdir", &confdir])?;
        Ok(Scenario {
            name: format!("confd-{number}"),
            node: NODE.to_owned(),
            nodes: set.nodes,
            objects: objects.into(),
            release: RELEASE.to_owned(),
            environment: Vec::new(),
            golden: folder.to_owned(),
            pools: set.pools,
            has_blocks: true,
        })
    }

    /// confd's configuration with the files in `folder` instead of where a container has them.
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

    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let host: &Host = self.etcd.host();
        let mut command = host.command("timeout");
        command.args(["60", &format!("{PROGRAMS}/{program}")]).args(args);
        command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", self.etcd.url());
        command.env("NODENAME", NODE).env("CALICO_NETWORKING_BACKEND", "bird");
        lab::run_command(&mut command)
    }
}
