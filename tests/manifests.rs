//! Checks `examples/kubernetes` without a server: every document can be read, margay knows every
//! argument, variable, probe and port in it, and the real program answers at the probes' paths.
//! `interop/tests/manifests_kubernetes.rs` applies them to a server.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use margay::calico::yaml;
use margay::cli::Cli;
use serde_json::{Value, json};

/// The host's address, which kubelet would pass to a pod.
const HOST_IP: &str = "192.0.2.7";
/// Timeout for answers of a daemon.
const PATIENCE: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn folder(name: &str) -> PathBuf {
    root().join("examples/kubernetes").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn documents(path: &Path) -> Vec<Value> {
    yaml::documents(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every object, with its file.
fn objects() -> Vec<(PathBuf, Value)> {
    let files = yaml_files(&folder(""));
    let all = files.iter().flat_map(|path| documents(path).into_iter().map(|d| (path.clone(), d)));
    all.filter(|(_, object)| object["kind"] != "Kustomization").collect()
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Pods that run only margay, each with its kind and its file.
fn pods() -> Vec<(PathBuf, Value)> {
    let template = |(path, object): (PathBuf, Value)| {
        let pod = object["spec"]["template"].clone();
        (pod["spec"]["containers"][0]["image"] == "margay").then_some((path, pod))
    };
    let pods: Vec<_> = objects().into_iter().filter_map(template).collect();
    assert_eq!(pods.len(), 2, "a reflector and a speaker");
    pods
}

fn margay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margay"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// The exit code of a program, and its text on both outputs.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn every_document_is_an_object_or_lists_existing_files() {
    let mut kustomized = 0;
    for path in yaml_files(&folder("")) {
        let documents = documents(&path);
        assert!(!documents.is_empty(), "{}", path.display());
        for document in documents {
            assert!(document["apiVersion"].is_string(), "{}: {document}", path.display());
            if document["kind"] != "Kustomization" {
                assert!(document["metadata"]["name"].is_string(), "{}", path.display());
                continue;
            }
            kustomized += 1;
            let beside = path.parent().unwrap();
            let resources = texts(&document["resources"]);
            let generators = list(&document["configMapGenerator"]);
            let files = generators.iter().flat_map(|generator| texts(&generator["files"]));
            for name in resources.iter().cloned().chain(files) {
                assert!(beside.join(&name).exists(), "{}: {name}", path.display());
            }
            for file in yaml_files(beside).iter().filter(|file| file.parent() == Some(beside)) {
                let name = file.file_name().unwrap().to_str().unwrap();
                let is_used = name == "kustomization.yaml" || resources.iter().any(|r| r == name);
                assert!(is_used, "{} does not name {name}", path.display());
            }
        }
    }
    assert!(kustomized > 5, "{kustomized} kustomizations");
}

/// margay accepts the arguments, and answers the probes; names of ports and volumes exist in the
/// pod.
#[test]
fn pods_use_what_margay_accepts_with_no_more_than_they_need() {
    for (path, pod) in pods() {
        let place = path.display();
        let spec = &pod["spec"];
        let container = &spec["containers"][0];
        let words = [texts(&container["command"]), texts(&container["args"])].concat();
        Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{place}: {e}"));
        let exec = texts(&container["startupProbe"]["exec"]["command"]);
        assert!(exec.contains(&"health".to_owned()), "{place}: {exec:?}");
        Cli::try_parse_from(&exec).unwrap_or_else(|e| panic!("{place}: {e}"));

        let ports = list(&container["ports"]);
        let port = |name: &str| {
            let found = ports.iter().find(|port| port["name"] == name);
            found.unwrap_or_else(|| panic!("{place}: no port {name}"))["containerPort"].clone()
        };
        assert_eq!(port("bgp"), 179, "{place}");
        let toml: toml::Table = read(&path.with_file_name("margay.toml")).parse().unwrap();
        let listen = toml["http"]["listen"].as_str().unwrap();
        assert!(listen.ends_with(&format!(":{}", port("http"))), "{place}: {listen}");
        let mounts = list(&container["volumeMounts"]);
        let volumes = list(&spec["volumes"]);
        assert_eq!(mounts.len(), volumes.len(), "{place}");
        for mount in mounts {
            assert!(
                volumes.iter().any(|volume| volume["name"] == mount["name"]),
                "{place}: {mount}"
            );
        }
        let kustomization = &documents(&path.with_file_name("kustomization.yaml"))[0];
        let generated = &kustomization["configMapGenerator"][0];
        assert!(volumes.iter().any(|v| v["configMap"]["name"] == generated["name"]), "{place}");
        let file = format!("{}/margay.toml", mounts[0]["mountPath"].as_str().unwrap());
        assert!(words.contains(&file), "{place}: {words:?}");

        let wanted = json!({"runAsUser": 0, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
        assert_eq!(container["securityContext"], wanted, "{place}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{place}");
        assert_eq!(spec["automountServiceAccountToken"], false, "{place}");
        assert_eq!(spec["hostNetwork"], true, "{place}");
    }
    let roles: Vec<_> = objects()
        .into_iter()
        .filter(|(path, object)| {
            object["kind"].as_str().unwrap().contains("Role") && !path.ends_with("rbac.yaml")
        })
        .collect();
    assert!(roles.is_empty(), "the speakers need no rights: {roles:?}");
}

/// Draining and rolling updates stop one reflector at a time, reflectors are spread over zones and
/// nodes, and the process has time to end its sessions.
#[test]
fn reflectors_are_spread_and_stopped_one_by_one() {
    let objects = objects();
    let of = |kind: &str| {
        let mut found = objects.iter().filter(|(path, object)| {
            object["kind"] == kind && path.to_string_lossy().contains("route-reflector")
        });
        &found.next().unwrap_or_else(|| panic!("no {kind}")).1["spec"]
    };
    let (deployment, budget) = (of("Deployment"), of("PodDisruptionBudget"));
    let labels = &deployment["template"]["metadata"]["labels"];
    assert_eq!(&deployment["selector"]["matchLabels"], labels);
    assert_eq!(&budget["selector"]["matchLabels"], labels);
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 1);
    let pod = &deployment["template"]["spec"];
    let spread = list(&pod["topologySpreadConstraints"]);
    let keys: Vec<_> = spread.iter().map(|constraint| &constraint["topologyKey"]).collect();
    assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
    assert!(spread.iter().all(|constraint| &constraint["labelSelector"]["matchLabels"] == labels));

    let resources = &pod["containers"][0]["resources"];
    let mebibytes = |of: &str| {
        let text = resources[of]["memory"].as_str().unwrap();
        text.strip_suffix("Mi").unwrap().parse::<i64>().unwrap()
    };
    let toml: toml::Table = read(&folder("route-reflector").join("margay.toml")).parse().unwrap();
    let own = toml["bgp"]["memory-max"].as_integer().unwrap();
    assert!(mebibytes("requests") < own && own < mebibytes("limits"), "{own}");
}

/// `margay check` accepts each file, and reports an error in it.
#[test]
fn configurations_are_accepted_and_errors_reported() {
    for (path, _) in pods() {
        let config = path.with_file_name("margay.toml");
        let check = |file: &Path, variables: &[(&str, &str)]| {
            let mut command = margay();
            command.args(["check", "--config"]).arg(file).envs(variables.iter().copied());
            said(&command.output().unwrap())
        };
        let (code, text) = check(&config, &[("HOST_IP", HOST_IP)]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(HOST_IP), "{text}");
        let (code, text) = check(&config, &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("bgp.router-id: HOST_IP is not set"), "{text}");
        let scratch = Scratch::new(&path);
        let wrong = read(&config).replace("prefixes-max = 1000", "prefixes-max = \"many\"");
        let (code, text) = check(&scratch.write("margay.toml", &wrong), &[("HOST_IP", HOST_IP)]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("prefixes-max"), "{text}");
    }
}

/// A folder for a test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(of: &Path) -> Self {
        let name = of.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let thread = format!("{:?}", std::thread::current().id());
        let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
        let path = std::env::temp_dir().join(format!("mm{}-{thread}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ends the daemon with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let bound = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap().port())
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn wait(what: &str, mut ask: impl FnMut() -> Result<(), String>) {
    let begin = Instant::now();
    while let Err(reason) = ask() {
        assert!(begin.elapsed() < PATIENCE, "{what}: {reason}");
        sleep(Duration::from_millis(50));
    }
}

/// The daemon runs with each file, except for addresses that a test cannot have, and answers each
/// probe and scrape.
#[test]
fn the_daemon_answers_where_the_manifests_ask() {
    let monitor =
        objects().into_iter().find(|(_, object)| object["kind"] == "PodMonitor").unwrap().1;
    for (path, pod) in pods() {
        let scratch = Scratch::new(&path);
        let [port, bgp] = free_ports();
        let socket = scratch.0.join("margay.sock");
        let text = read(&path.with_file_name("margay.toml"))
            .replace("0.0.0.0:9479", &format!("127.0.0.1:{port}"))
            .replace("address = \"192.0.2.1\"", "address = \"127.0.0.1\"")
            .replace("[bgp]\n", &format!("[bgp]\nlisten = \"127.0.0.1:{bgp}\"\n"));
        let text = format!("{text}\n[control]\nsocket = \"{}\"\n", socket.display());
        let config = scratch.write("margay.toml", &text);
        let log = fs::File::create(scratch.0.join("log")).unwrap();
        let mut command = margay();
        command.args(["run", "--config"]).arg(config).env("HOST_IP", HOST_IP).stderr(log);
        let _daemon = Running(command.spawn().unwrap());
        wait("the daemon", || get(port, "/liveness").map(drop).map_err(|e| e.to_string()));

        let container = &pod["spec"]["containers"][0];
        let mut paths = Vec::new();
        for kind in ["livenessProbe", "readinessProbe"] {
            let probe = &container[kind]["httpGet"];
            assert_eq!(probe["port"], "http");
            paths.push(probe["path"].as_str().unwrap().to_owned());
        }
        for endpoint in list(&monitor["spec"]["podMetricsEndpoints"]) {
            assert_eq!(endpoint["port"], "http");
            paths.push(endpoint["path"].as_str().unwrap().to_owned());
        }
        assert_eq!(paths, ["/liveness", "/readiness", "/metrics"]);
        for path in &paths {
            let answer = get(port, path).unwrap();
            // Without a neighbour it is not ready, which is a valid answer.
            let is_known = answer.starts_with("HTTP/1.1 200 ")
                || (path == "/readiness" && answer.starts_with("HTTP/1.1 503 "));
            assert!(is_known, "{path}: {answer}");
        }
        let exec = texts(&container["startupProbe"]["exec"]["command"]);
        let mut probe = margay();
        let (code, text) =
            said(&probe.args(&exec[1..]).arg("--socket").arg(&socket).output().unwrap());
        assert_eq!((code, text.as_str()), (Some(0), "alive\n"), "{exec:?}");
        // The monitor selects each pod.
        let label = &monitor["spec"]["selector"]["matchExpressions"][0];
        let value = &pod["metadata"]["labels"][label["key"].as_str().unwrap()];
        assert!(list(&label["values"]).contains(value), "{value} in {label}");
    }
}

/// `docs/src/calico.md` lists the variables of calico-node, and a wrong value is refused by name before anything
/// runs.
#[test]
fn variables_of_calico_node_are_known_and_checked() {
    let page = read(&root().join("docs/src/calico.md"));
    let daemonset = &documents(&folder("calico-node/daemonset.yaml"))[0];
    let variables = list(&daemonset["spec"]["template"]["spec"]["containers"][0]["env"]);
    assert!(!variables.is_empty());
    let check = |changed: Option<(&str, &str)>| {
        let mut command = margay();
        command.arg("check").env("NODENAME", "n").env("ETCD_ENDPOINTS", "http://127.0.0.1:2379");
        for variable in variables {
            let name = variable["name"].as_str().unwrap();
            command.env(name, variable["value"].as_str().unwrap());
        }
        said(&command.envs(changed).output().unwrap())
    };
    let (code, text) = check(None);
    assert_eq!(code, Some(0), "{text}");
    for variable in variables {
        let name = variable["name"].as_str().unwrap();
        assert!(page.contains(&format!("| `{name}` |")), "docs/src/calico.md lacks {name}");
        let (code, text) = check(Some((name, "nonsense")));
        assert_eq!(code, Some(2), "{name}: {text}");
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn rights_are_those_documented() {
    let page = read(&root().join("docs/src/kubernetes-api.md"));
    assert!(page.contains("`list` and `watch` of ten kinds, and of each Secret by name"));
    let documents = documents(&folder("rbac.yaml"));
    let of = |kind: &str| documents.iter().find(|d| d["kind"] == kind).unwrap();
    for kind in ["ClusterRole", "Role"] {
        for rule in list(&of(kind)["rules"]) {
            assert_eq!(texts(&rule["verbs"]), ["list", "watch"], "{rule}");
        }
    }
    let kinds: usize =
        list(&of("ClusterRole")["rules"]).iter().map(|rule| list(&rule["resources"]).len()).sum();
    assert_eq!(kinds, 10);
    let secrets = &of("Role")["rules"][0];
    assert_eq!(texts(&secrets["resources"]), ["secrets"]);
    assert!(!list(&secrets["resourceNames"]).is_empty(), "each Secret by name");
}

/// The mesh is disabled in a separate step, and the way back begins with enabling it.
#[test]
fn the_way_to_reflectors_and_back_is_in_steps() {
    let mesh = |step: &str| {
        let object = &documents(&folder("mesh-to-reflectors").join(step).join("mesh.yaml"))[0];
        assert_eq!(object["metadata"]["name"], "default");
        object["spec"].clone()
    };
    assert_eq!(mesh("mesh-off"), json!({"nodeToNodeMeshEnabled": false}));
    assert_eq!(mesh("mesh-on"), json!({"nodeToNodeMeshEnabled": true}));
    let peers = documents(&folder("mesh-to-reflectors/peers/peers.yaml"));
    assert!(peers.iter().all(|peer| peer["kind"] == "BGPPeer"), "{peers:?}");
    let reflector: toml::Table = read(&folder("route-reflector/margay.toml")).parse().unwrap();
    for peer in &peers {
        assert_eq!(peer["spec"]["asNumber"], reflector["bgp"]["asn"].as_integer().unwrap());
    }
    let replicas =
        objects().into_iter().find(|(_, object)| object["kind"] == "Deployment").unwrap().1;
    assert_eq!(replicas["spec"]["replicas"], peers.len());
}

#[test]
fn the_script_says_how_it_is_used() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("bash");
        command.arg(folder("changeover")).args(arguments).env("KUBECTL", "false");
        said(&command.stdin(Stdio::null()).output().unwrap())
    };
    let (code, text) = run(&["--help"]);
    assert_eq!(code, Some(0), "{text}");
    for word in ["to-margay", "to-bird", "--dry-run", "exit codes", "130"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for wrong in [&[][..], &["sideways"], &["to-margay", "--limit", "soon"], &["to-bird", "--what"]]
    {
        assert_eq!(run(wrong).0, Some(1), "{wrong:?}");
    }
    // Without a cluster nothing is started.
    let (code, text) = run(&["to-margay"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("there is no DaemonSet calico-node in kube-system"), "{text}");
}

#[test]
#[ignore = "needs shellcheck"]
fn the_script_is_clean() {
    let mut command = Command::new("shellcheck");
    let (code, text) = said(&command.arg(folder("changeover")).output().expect("shellcheck"));
    assert_eq!(code, Some(0), "{text}");
}
