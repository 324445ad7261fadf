//! Scenarios of the conformance corpus: a cluster's objects, and the files that confd writes from
//! them for one of its nodes, which BIRD 1.6.8 runs unmodified.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bird2::{birdc, routes_of};
use crate::bird16::program;
use crate::daemon::Daemon;
use crate::lab::Host;
use crate::speaker::{Family, Path as BgpPath};
use crate::wait::{PATIENCE, wait_until};

/// The file with the blocks of the corpus's node, as etcd's keys and values.
const AFFINITIES: &str = "_common/block-affinities.etcd.txt";

/// Scenarios in which a session has no password, because its Secret is missing: BIRD runs it
/// without, margay not at all (`docs/src/differences.md`).
pub const WITHOUT_PASSWORD: [&str; 6] = [
    "mesh__password__step1",
    "mesh__password__step3",
    "password__step1",
    "password__step2",
    "password__step4",
    "password__step6",
];

/// A cluster's objects, and the files that confd writes from them for one of its nodes.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name in the corpus.
    pub name: String,
    /// The node that the golden files are for.
    pub node: String,
    /// Every node with an address, in the order of the objects.
    pub nodes: Vec<Node>,
    /// The files with the objects, as they are in the corpus.
    pub objects: Vec<PathBuf>,
    /// The release whose files they are.
    pub release: String,
    /// calico-node's variables, beside those that every node has.
    pub environment: Vec<(String, String)>,
    pub(super) golden: PathBuf,
    pub(super) pools: Vec<String>,
    pub(super) has_blocks: bool,
    /// Prefixes that are not compared, because margay differs on purpose (`docs/src/differences.md`).
    pub(super) ignored: Vec<String>,
}

/// A node of a scenario.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses with the lengths of their networks.
    pub networks: Vec<String>,
}

impl Node {
    /// The address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<&str> {
        let mut addresses = self.networks.iter().map(|net| net.split('/').next().unwrap_or(net));
        addresses.find(|address| Family::of(address) == family)
    }
}

/// The folder of the corpus below `shared`, and what its index lists.
fn index(shared: &Path) -> Result<(PathBuf, Vec<Value>)> {
    let corpus = shared.join("conformance/calico");
    let text = std::fs::read_to_string(corpus.join("index.json")).context("index.json")?;
    let entries = serde_json::from_str(&text).context("index.json: not a list")?;
    Ok((corpus, entries))
}

/// The value of the first `key` in a YAML document that has one key on a line.
fn field<'a>(document: &'a str, key: &str) -> Option<&'a str> {
    let line = document.lines().find_map(|line| line.trim().strip_prefix(key))?;
    Some(line.trim().trim_matches('"'))
}

/// YAML documents by kind, namespace and name.
#[derive(Debug, Default)]
struct Documents(BTreeMap<[String; 3], String>);

impl Documents {
    /// Applies a step of a scenario: a document replaces an earlier one of the same object.
    fn take(&mut self, corpus: &Path, step: &Value) -> Result<()> {
        for (key, files) in step.as_object().context("no step")? {
            let deletes = match key.as_str() {
                "apply" | "upsert" | "kubectl_apply" | "kubectl_upsert" => false,
                "delete" | "kubectl_delete" => true,
                "expect" => continue,
                "kubectl_delete_secret" => {
                    let name = files.as_str().and_then(|path| path.split('/').nth(1));
                    let name = name.context("not NAMESPACE/NAME")?;
                    self.0.retain(|[kind, _, of], _| kind != "Secret" || of != name);
                    continue;
                }
                other => anyhow::bail!("a step with {other}"),
            };
            for file in files.as_array().context("not a list")? {
                let path = corpus.join(file.as_str().context("not a string")?);
                let text = std::fs::read_to_string(&path).context(path.display().to_string())?;
                for document in format!("\n{text}").split("\n---") {
                    let id = ["kind:", "namespace:", "name:"]
                        .map(|key| field(document, key).unwrap_or_default().to_owned());
                    if id[0].is_empty() {
                        continue;
                    }
                    if deletes {
                        ensure!(self.0.remove(&id).is_some(), "{id:?} is not there")
                    } else {
                        drop(self.0.insert(id, document.trim().to_owned()))
                    }
                }
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        self.0.values().map(|document| format!("---\n{document}\n")).collect()
    }
}

/// The stem of the names of a family's golden files.
fn stem(family: Family) -> &'static str {
    if family == Family::V4 { "bird" } else { "bird6" }
}

/// A line of BIRD's configuration without blanks and comments.
fn squeezed(line: &str) -> String {
    let code = line.split('#').next().unwrap_or_default();
    code.chars().filter(|c| !c.is_whitespace()).collect()
}

impl Scenario {
    /// The scenarios of the corpus below `shared` that can be run as a mesh: with one step, no
    /// environment, a pool, and blocks of the node, whose IPv4 sessions, at least one, are all of
    /// the mesh and with nodes of the scenario.
    ///
    /// # Errors
    /// When the corpus is not as its index says.
    pub fn meshes(shared: &Path) -> Result<Vec<Scenario>> {
        let (corpus, entries) = index(shared)?;
        let mut found = Vec::new();
        for entry in &entries {
            let scenario = Self::read(&corpus, entry);
            let name = &entry["scenario"];
            if let Some(scenario) = scenario.with_context(|| format!("scenario {name}"))?
                && scenario.is_mesh()?
            {
                found.push(scenario);
            }
        }
        Ok(found)
    }

    /// The scenarios of the corpus below `shared` with one step and no environment, whose node has
    /// a Node.
    ///
    /// # Errors
    /// When the corpus is not as its index says.
    pub fn single_steps(shared: &Path) -> Result<Vec<Scenario>> {
        let (corpus, entries) = index(shared)?;
        let mut found = Vec::new();
        for entry in &entries {
            let scenario = Self::read(&corpus, entry);
            if let Some(scenario) =
                scenario.with_context(|| format!("scenario {}", entry["scenario"]))?
                && scenario.nodes.iter().any(|node| node.name == scenario.node)
            {
                found.push(scenario);
            }
        }
        Ok(found)
    }

    /// The scenarios of the corpus below `shared` with several steps and no environment, as they
    /// are after the last step, with all objects in one file in `folder`.
    ///
    /// # Errors
    /// When the corpus is not as its index says, or a file cannot be written.
    pub fn last_steps(shared: &Path, folder: &Path) -> Result<Vec<Scenario>> {
        let (corpus, entries) = index(shared)?;
        std::fs::create_dir_all(folder)?;
        let mut found = Vec::new();
        for entry in &entries {
            let steps = entry["steps"].as_array().context("no steps")?;
            let has_env = entry["env"].as_object().is_some_and(|env| !env.is_empty());
            let Some(expected) = steps.last().and_then(|step| step["expect"].as_str()) else {
                continue;
            };
            let is_single = steps.len() == 1 && steps[0].get("kubectl_apply").is_none();
            if has_env || is_single {
                continue;
            }
            let name = entry["scenario"].as_str().context("no name")?;
            let mut documents = Documents::default();
            for step in steps {
                documents.take(&corpus, step).with_context(|| format!("scenario {name}"))?;
            }
            let file = folder.join(format!("{name}.yaml"));
            std::fs::write(&file, documents.text())?;
            found.push(Self::of(&corpus, entry, vec![file], expected)?);
        }
        Ok(found)
    }

    /// The scenarios of the corpus below `shared` that have an environment.
    ///
    /// # Errors
    /// When the corpus is not as its index says.
    pub fn with_environment(shared: &Path) -> Result<Vec<Scenario>> {
        let (corpus, entries) = index(shared)?;
        let mut found = Vec::new();
        for entry in &entries {
            let variables = entry["env"].as_object().into_iter().flatten();
            let variables: Vec<(String, String)> = variables
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .context("env: not a string")?;
            if variables.is_empty() {
                continue;
            }
            let mut plain = entry.clone();
            plain["env"] = Value::Null;
            // Files of Felix are named in the environment.
            if let Some(step) = plain["steps"][0].as_object_mut() {
                step.remove("files");
            }
            let scenario = Self::read(&corpus, &plain)?;
            let mut scenario = scenario.with_context(|| format!("{}: steps", entry["scenario"]))?;
            // `<…>` stands for a place on the node: the golden folder is used.
            let folder = scenario.golden.display().to_string();
            let value = |value: String| if value.starts_with('<') { folder.clone() } else { value };
            scenario.environment =
                variables.into_iter().map(|(name, text)| (name, value(text))).collect();
            found.push(scenario);
        }
        Ok(found)
    }

    /// `None`: it has several steps or an environment.
    fn read(corpus: &Path, entry: &Value) -> Result<Option<Scenario>> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not a string");
        let steps = entry["steps"].as_array().context("no steps")?;
        let has_env = entry["env"].as_object().is_some_and(|env| !env.is_empty());
        let [step] = steps.as_slice() else { return Ok(None) };
        let is_plain = step.as_object().is_some_and(|step| {
            step.len() == 2 && step.contains_key("apply") && step.contains_key("expect")
        });
        if has_env || !is_plain {
            return Ok(None);
        }
        let applied = step["apply"].as_array().context("apply: not a list")?;
        let mut objects = Vec::new();
        for file in applied {
            objects.push(corpus.join(text(file)?));
        }
        Self::of(corpus, entry, objects, &text(&step["expect"])?).map(Some)
    }

    /// The scenario with the objects in these files, and the golden files in `expected`.
    fn of(corpus: &Path, entry: &Value, objects: Vec<PathBuf>, expected: &str) -> Result<Scenario> {
        let text = |key: &str| entry[key].as_str().map(str::to_owned).context(key.to_owned());
        let mut scenario = Scenario {
            name: text("scenario")?,
            node: text("node")?,
            nodes: Vec::new(),
            objects,
            release: "v3.33.0".to_owned(),
            environment: Vec::new(),
            golden: corpus.join(expected),
            pools: Vec::new(),
            has_blocks: entry["block_affinities"] == true,
            ignored: Vec::new(),
        };
        for file in scenario.objects.clone() {
            scenario.take(&std::fs::read_to_string(&file).context(file.display().to_string())?);
        }
        if scenario.has_blocks {
            scenario.objects.push(corpus.join(AFFINITIES));
        }
        Ok(scenario)
    }

    /// Adds the nodes and pools of YAML documents.
    fn take(&mut self, yaml: &str) {
        for document in yaml.split("\n---") {
            let value = |key: &str| field(document, key).map(str::to_owned);
            let Some(name) = value("name:") else { continue };
            match value("kind:").as_deref() {
                Some("Node") => {
                    let networks = [value("ipv4Address:"), value("ipv6Address:")];
                    let networks: Vec<String> = networks.into_iter().flatten().collect();
                    self.nodes.push(Node { name, networks });
                }
                Some("IPPool") => self.pools.extend(value("cidr:")),
                _ => {}
            }
        }
    }

    fn is_mesh(&self) -> Result<bool> {
        if !self.has_blocks {
            return Ok(false);
        }
        let text = self.golden(Family::V4, ".cfg")?;
        let protocols = text.lines().filter(|line| line.starts_with("protocol bgp"));
        let sessions = self.sessions(Family::V4)?;
        let known = |neighbor: &String| {
            self.nodes.iter().any(|n| n.address(Family::V4) == Some(neighbor.as_str()))
        };
        Ok(protocols.count() == sessions.len()
            && !sessions.is_empty()
            && sessions.iter().all(|(_, neighbor)| known(neighbor))
            && !self.blocks()?.is_empty()
            && self.block(Family::V4, 0)?.is_some())
    }

    pub(super) fn golden(&self, family: Family, suffix: &str) -> Result<String> {
        let path = self.golden.join(format!("{}{suffix}", stem(family)));
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The names of the golden sessions of the mesh, and their neighbours.
    ///
    /// # Errors
    /// When the golden files cannot be read.
    pub fn sessions(&self, family: Family) -> Result<Vec<(String, String)>> {
        let mut sessions = Vec::new();
        let mut name = None;
        for line in self.golden(family, ".cfg")?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["protocol", "bgp", of, ..] => name = of.starts_with("Mesh_").then_some(*of),
                ["neighbor", neighbor, ..] => {
                    let of_mesh = name.take().map(|name| (name.to_owned(), (*neighbor).to_owned()));
                    sessions.extend(of_mesh);
                }
                _ => {}
            }
        }
        Ok(sessions)
    }

    /// The IPv4 blocks of the node for which the golden files have static routes.
    ///
    /// # Errors
    /// When the corpus cannot be read.
    pub fn blocks(&self) -> Result<Vec<String>> {
        if !self.has_blocks {
            return Ok(Vec::new());
        }
        let affinities = self.objects.last().context("no objects")?;
        let keys = std::fs::read_to_string(affinities)?;
        let prefix = format!("/calico/ipam/v2/host/{}/ipv4/block/", self.node);
        let owned: BTreeSet<String> = keys
            .lines()
            .filter_map(|line| line.split('\t').next()?.strip_prefix(&prefix))
            .map(|block| block.replacen('-', "/", 1))
            .collect();
        let text = self.golden(Family::V4, "_aggr.cfg")?;
        let statics = text.lines().filter_map(|line| {
            squeezed(line).strip_prefix("route")?.strip_suffix("blackhole;").map(str::to_owned)
        });
        Ok(statics.filter(|block| owned.contains(block)).collect())
    }

    /// Whether the golden kernel filter rejects this prefix.
    ///
    /// # Errors
    /// When the golden files cannot be read, or compare with something that is not a network.
    pub fn is_rejected_by_kernel_filter(&self, prefix: &str) -> Result<bool> {
        let family = Family::of(prefix);
        let text = self.golden(family, "_ipam.cfg")?;
        let (_, filter) =
            text.split_once("filter calico_kernel_programming").context("no kernel filter")?;
        for line in filter.lines().map(squeezed) {
            let rejected = line.strip_prefix("if(net~").and_then(|l| l.split_once(")then{reject;"));
            if let Some((network, _)) = rejected
                && contains(network, prefix)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether one pool covers both prefixes.
    #[must_use]
    pub fn share_a_pool(&self, one: &str, other: &str) -> bool {
        let covers = |pool: &str, prefix: &str| {
            Family::of(pool) == Family::of(prefix) && contains(pool, prefix).unwrap_or(false)
        };
        self.pools.iter().any(|pool| covers(pool, one) && covers(pool, other))
    }

    /// A block for node number `at` of the scenario, from the first pool of the family that the
    /// golden node announces. `None`: there is no such pool.
    ///
    /// # Errors
    /// When the golden files cannot be read.
    pub fn block(&self, family: Family, at: u8) -> Result<Option<String>> {
        let ipam = self.golden(family, "_ipam.cfg")?;
        let (announced, _) = ipam.split_once("filter calico_kernel").context("no kernel filter")?;
        let announced: Vec<String> = announced.lines().map(squeezed).collect();
        let of_family = self.pools.iter().filter(|pool| Family::of(pool) == family);
        let mut pools = of_family.filter(|pool| {
            announced.iter().any(|line| line.starts_with(&format!("if(net~{pool})then{{accept;")))
        });
        let Some((base, _)) = pools.next().and_then(|pool| pool.split_once('/')) else {
            return Ok(None);
        };
        // Blocks are 64 addresses, and the pools of the corpus begin at multiples of 256.
        let offset = u32::from(at + 1) * 64;
        Ok(Some(match family {
            Family::V4 => {
                let base: std::net::Ipv4Addr = base.parse()?;
                format!("{}/26", std::net::Ipv4Addr::from_bits(base.to_bits() + offset))
            }
            Family::V6 => {
                let base: std::net::Ipv6Addr = base.parse()?;
                format!(
                    "{}/122",
                    std::net::Ipv6Addr::from_bits(base.to_bits() + u128::from(offset))
                )
            }
        }))
    }
}

/// Whether a network covers a prefix.
fn contains(network: &str, prefix: &str) -> Result<bool> {
    let parse = |text: &str| -> Result<(u128, u32)> {
        let (address, length) = text.split_once('/').with_context(|| format!("prefix {text}"))?;
        let (bits, length) = match address.parse()? {
            std::net::IpAddr::V4(a) => (u128::from(a.to_bits()) << 96, length.parse()?),
            std::net::IpAddr::V6(a) => (a.to_bits(), length.parse()?),
        };
        Ok((bits, length))
    };
    let ((outer, outer_length), (inner, inner_length)) = (parse(network)?, parse(prefix)?);
    let shift = 128 - outer_length;
    let same = outer_length == 0 || outer >> shift == inner >> shift;
    Ok(outer_length <= inner_length && same)
}

/// BIRD on a scenario's node, run with the golden files where they are: one process for each family
/// that has sessions.
#[derive(Debug)]
pub struct GoldenBird {
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    family: Family,
    socket: PathBuf,
    // Ends when this is dropped.
    _daemon: Daemon,
}

impl GoldenBird {
    /// Starts the processes on the node's host.
    ///
    /// # Errors
    /// When BIRD refuses a golden file.
    pub fn start(host: &Host, scenario: &Scenario) -> Result<Self> {
        let mut processes = Vec::new();
        for family in [Family::V4, Family::V6] {
            if scenario.sessions(family)?.is_empty() {
                continue;
            }
            let name = stem(family);
            let file = |suffix: &str| host.file(&format!("{name}{suffix}")).display().to_string();
            let config = scenario.golden.join(format!("{name}.cfg")).display().to_string();
            let (socket, pid) = (file(".ctl"), file(".pid"));
            let args = ["-R", "-f", "-c", &config, "-s", &socket, "-P", &pid];
            host.run(&program(name), &["-p", "-c", &config])?;
            let daemon = host.daemon(name, &program(name), &args)?;
            let socket = PathBuf::from(socket);
            wait_until(PATIENCE, "BIRD's control socket", || {
                birdc(&socket, "show status").map(drop)
            })?;
            processes.push(Process { family, socket, _daemon: daemon });
        }
        Ok(Self { processes })
    }

    fn socket(&self, family: Family) -> Result<&Path> {
        let process = self.processes.iter().find(|process| process.family == family);
        Ok(&process.context("no process for this family")?.socket)
    }

    /// Waits until a session is established.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_session(&self, family: Family, name: &str) -> Result<()> {
        let socket = self.socket(family)?;
        wait_until(PATIENCE, &format!("BIRD's {name}"), || {
            let answer = birdc(socket, &format!("show protocols {name}"))?;
            ensure!(answer.contains("Established"), "{answer}");
            Ok(())
        })
    }

    /// BIRD's paths to exactly this prefix.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn paths(&self, prefix: &str) -> Result<Vec<BgpPath>> {
        routes_of(self.socket(Family::of(prefix))?, prefix)
    }
}
