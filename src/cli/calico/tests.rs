//! Tests the commands on files.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// For commands that must not read live objects.
fn unread(_: Option<&Path>, _: Span) -> io::Result<Live> {
    unreachable!("--live was not given")
}

/// For commands that must not need the daemon's settings.
fn unasked(
    _: Option<&Path>,
    _: Option<&str>,
    _: &Environment,
) -> Result<Option<NodeSettings>, String> {
    unreachable!("only the doctor needs settings")
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    file
}

fn node(name: &str, address: &str) -> String {
    let spec = json!({"bgp": {"ipv4Address": address}});
    json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
           "metadata": {"name": name}, "spec": spec})
    .to_string()
}

/// A mesh of two nodes in a file, with the plan for the first.
fn mesh(folder: &TempDir) -> Input {
    let text = format!("{}\n---\n{}\n", node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24"));
    Input {
        node: Some("a".into()),
        resources: vec![write(folder, "mesh.yaml", &text)],
        live: false,
        config: None,
        env: Vec::new(),
        calico_version: None,
        endpoint_status: None,
    }
}

fn plan(input: Input, diff: Option<PathBuf>) -> Command {
    planned(input, false, diff.map(Some))
}

fn planned(input: Input, json: bool, diff: Option<Option<PathBuf>>) -> Command {
    Command::Plan {
        input,
        json,
        fail_on_problems: false,
        diff,
        all: false,
        change: ChangeArgs::default(),
        daemon: Daemon { socket: "/nonexistent/margay.sock".into() },
    }
}

fn printed_of(command: &Command) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = run(command, &b""[..], &mut out, unread, unasked).unwrap();
    (outcome, String::from_utf8(out).unwrap())
}

#[test]
fn the_effect_of_an_added_object_is_printed() {
    let folder = TempDir::new().unwrap();
    let input = mesh(&folder);
    let as_json = |input| planned(input, true, None);
    let old = write(&folder, "old.json", &printed_of(&as_json(input.clone())).1);
    let against = |input| plan(input, Some(old.clone()));
    assert_eq!(printed_of(&against(input.clone())), (Outcome::Fine, String::new()));
    let mut grown = input.clone();
    grown.resources.push(write(&folder, "c.yaml", &node("c", "10.0.0.3/24")));
    let (outcome, text) = printed_of(&against(grown));
    assert_eq!(outcome, Outcome::Differs);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        matches!(lines[..], [line] if line.starts_with("+ families ipv4 sessions Mesh_10_0_0_3: ")),
        "{text}"
    );
    // Changes within a policy are found too.
    let pool = json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "p"}, "spec": {"cidr": "10.65.0.0/16"}});
    let mut with_pool = input.clone();
    with_pool.resources.push(write(&folder, "pool.yaml", &pool.to_string()));
    let (_, text) = printed_of(&against(with_pool));
    assert!(text.contains("+ families ipv4 pools 10.65.0.0/16"), "{text}");
    assert!(text.contains("~ families ipv4 sessions Mesh_10_0_0_2 export_policy: "), "{text}");
    // A file that is not a plan is refused, not treated as an empty plan.
    for wrong in ["{", "{}", "[]"] {
        let old = write(&folder, "wrong.json", wrong);
        let command = plan(input.clone(), Some(old));
        let error = run(&command, &b""[..], &mut Vec::new(), unread, unasked).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
    }
}

/// What a datastore with these objects has, for node a.
fn live_with(resources: &[PathBuf]) -> io::Result<Live> {
    let settings = Some(Settings::from_env("a", &BTreeMap::new()));
    let mut live = Live { settings, ..Live::default() };
    load(resources)?.objects.into_iter().for_each(|object| live.snapshot.apply(object));
    Ok(live)
}

#[test]
fn objects_in_files_replace_live_ones() {
    let folder = TempDir::new().unwrap();
    let Input { resources, .. } = mesh(&folder);
    let read = |_: Option<&Path>, _: Span| {
        let mut live = live_with(&resources)?;
        live.problems.push(Problem::new("Node/x", "unreadable"));
        Ok(live)
    };
    let changed = write(&folder, "b.yaml", &node("b", "10.0.0.9/24"));
    let command =
        plan(Input { live: true, node: None, resources: vec![changed], ..mesh(&folder) }, None);
    let mut out = Vec::new();
    run(&command, &b""[..], &mut out, read, unasked).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("node a, "), "{text}");
    assert!(text.contains("session Mesh_10_0_0_9") && !text.contains("Mesh_10_0_0_2"), "{text}");
    assert!(text.contains("Node/x: unreadable"), "{text}");
}

/// The daemon has neither these objects nor this version; the socket of the test is not even tried.
#[test]
fn a_daemon_with_other_objects_or_another_version_is_not_asked() {
    let folder = TempDir::new().unwrap();
    let Input { resources, .. } = mesh(&folder);
    let none = Input { live: true, node: None, resources: Vec::new(), ..mesh(&folder) };
    let version = Some("v3.30.0".to_owned());
    for (input, why) in [
        (Input { resources: resources.clone(), ..none.clone() }, "with --resources no daemon"),
        (Input { calico_version: version, ..none }, "with --calico-version no daemon"),
    ] {
        let read = |_: Option<&Path>, _: Span| {
            let settings = Some(Settings::from_env("a", &BTreeMap::new()));
            let mut live = Live { settings, ..Live::default() };
            load(&resources)?.objects.into_iter().for_each(|object| live.snapshot.apply(object));
            Ok(live)
        };
        let mut out = Vec::new();
        run(&planned(input, false, Some(None)), &b""[..], &mut out, read, unasked).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("not evaluated: {why}")), "{text}");
    }
}

#[test]
fn problems_of_a_forecast_cannot_be_what_fails() {
    let folder = TempDir::new().unwrap();
    let mut command = planned(mesh(&folder), false, Some(None));
    if let Command::Plan { fail_on_problems, .. } = &mut command {
        *fail_on_problems = true;
    }
    let error = run(&command, &b""[..], &mut Vec::new(), unread, unasked).unwrap_err();
    // Of a kind for which the exit code is 2.
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("--fail-on-problems is for a plan"), "{error}");
}

#[test]
fn changed_objects_are_compared_with_those_that_are_there() {
    let folder = TempDir::new().unwrap();
    let Input { resources, .. } = mesh(&folder);
    let read = |_: Option<&Path>, _: Span| live_with(&resources);
    let none = Input { live: true, node: None, resources: Vec::new(), ..mesh(&folder) };
    let forecast = |apply: &str, delete: &[&str], json| {
        let change = ChangeArgs {
            apply: vec![write(&folder, "new.yaml", apply)],
            delete: delete.iter().map(|text| (*text).to_owned()).collect(),
        };
        let command = match planned(none.clone(), json, Some(None)) {
            Command::Plan { input, json, fail_on_problems, diff, all, daemon, .. } => {
                Command::Plan { input, json, fail_on_problems, diff, all, change, daemon }
            }
            other => other,
        };
        let mut out = Vec::new();
        let outcome = run(&command, &b""[..], &mut out, read, unasked)?;
        assert_eq!(outcome, Outcome::Fine);
        io::Result::Ok(String::from_utf8(out).unwrap())
    };
    let text = forecast(&node("c", "10.0.0.3/24"), &["node/b"], false).unwrap();
    for line in [
        "change: apply Node/c, delete node/b",
        "plan: - families ipv4 sessions Mesh_10_0_0_2: ",
        "plan: + families ipv4 sessions Mesh_10_0_0_3: ",
        "peer Mesh_10_0_0_2: removed",
        "peer Mesh_10_0_0_3: added",
        "session Mesh_10_0_0_2 ends",
        "routes of peers: not evaluated: cannot reach margay at /nonexistent/margay.sock: ",
        "dry run: nothing was changed",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
    }
    let json = forecast(&node("b", "10.0.0.2/24"), &[], true).unwrap();
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&answer["dry_run"], &answer["changes"]), (&json!(true), &json!([])));
    assert_eq!(answer["forecast"]["objects"], json!(["apply Node/b"]));
    for (apply, delete, why) in [
        (node("c", "10.0.0.300/24"), &[][..], "Node/c: "),
        (node("c", "10.0.0.3/24"), &["BGPPeer/x"][..], "--delete BGPPeer/x: there is no such"),
        (node("c", "10.0.0.3/24"), &["Node/a"][..], "with this change there would be no plan"),
    ] {
        let error = forecast(&apply, delete, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(why), "{error}");
    }
}

/// What a command prints about a mesh of two nodes, with the given networking backend.
fn printed(command: impl Fn(Input) -> Command, questions: &str, backend: &str) -> String {
    let folder = TempDir::new().unwrap();
    let env = vec![("CALICO_NETWORKING_BACKEND".into(), backend.into())];
    let mut out = Vec::new();
    let command = command(Input { env, ..mesh(&folder) });
    run(&command, questions.as_bytes(), &mut out, unread, unasked).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn without_bgp_the_plan_is_empty_and_decide_refuses() {
    let question =
        json!({"direction": "kernel", "route": {"prefix": "10.1.0.0/24", "source": "bgp"}});
    for (backend, speaks) in [("bird", true), ("none", false), ("vxlan", false)] {
        let command = |json| move |input| planned(input, json, None);
        let plan: Value = serde_json::from_str(&printed(command(true), "", backend)).unwrap();
        assert_eq!(plan["speaks_bgp"], speaks, "{backend}");
        let sessions = plan["families"]["ipv4"]["sessions"].as_array().unwrap();
        assert_eq!(sessions.len(), usize::from(speaks), "{backend}");
        let text = printed(command(false), "", backend);
        assert_eq!(text.contains("no BGP"), !speaks, "{text}");
        assert_eq!(text.contains("session Mesh_10_0_0_2"), speaks, "{text}");
        let decide = |input| Command::Decide { input };
        let answer = printed(decide, &question.to_string(), backend);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"].is_null(), speaks, "{answer}");
    }
}

/// `margay calico simulate` with these arguments after `--resources FILE`.
fn simulated(text: &str, more: &[&str]) -> io::Result<(Outcome, String)> {
    #[derive(clap::Parser)]
    struct Parser {
        #[command(subcommand)]
        command: Command,
    }
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "objects.yaml", text);
    let arguments = ["calico", "simulate", "--resources", file.to_str().unwrap()];
    let Parser { command } = clap::Parser::parse_from(arguments.iter().chain(more));
    let mut out = Vec::new();
    let outcome = run(&command, &b""[..], &mut out, unread, unasked)?;
    Ok((outcome, String::from_utf8(out).unwrap()))
}

#[test]
fn a_simulation_says_whether_all_is_reached() {
    let block = |node: &str, number: u8| {
        let spec = json!({"cidr": format!("10.65.{number}.0/26"), "node": node,
                          "state": "confirmed", "deleted": "false"});
        json!({"kind": "BlockAffinity", "apiVersion": "projectcalico.org/v3",
               "metadata": {"name": format!("{node}-{number}")}, "spec": spec})
        .to_string()
    };
    let pool = json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3",
                      "metadata": {"name": "pods"},
                      "spec": {"cidr": "10.65.0.0/16", "ipipMode": "Never"}});
    let objects = [
        node("a", "10.0.0.1/24"),
        node("b", "10.0.0.2/24"),
        block("a", 1),
        block("b", 2),
        pool.to_string(),
    ]
    .join("\n---\n");
    let (outcome, text) = simulated(&objects, &[]).unwrap();
    assert_eq!(outcome, Outcome::Fine, "{text}");
    assert!(text.contains("nodes reach 2 of 2 pairs"), "{text}");
    let (outcome, text) = simulated(&objects, &["--no-mesh", "--routes"]).unwrap();
    assert_eq!(outcome, Outcome::Unreached);
    assert!(text.contains("a: 1, such as 10.65.2.0/26: a has no route"), "{text}");
    let (outcome, text) = simulated(&objects, &["--delete", "node/b", "--json"]).unwrap();
    assert_eq!(outcome, Outcome::Fine, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["change"]["objects"], json!(["delete node/b"]));
    assert_eq!(report["change"]["routes_removed"], 3);
    let fault = simulated(&objects, &["--delete", "node/c"]).unwrap_err();
    assert_eq!(fault.to_string(), "--delete node/c: there is no such object");
}

#[test]
fn objects_that_cannot_be_read_are_not_simulated() {
    let fault = simulated("kind: Node\nmetadata: {name: a\n", &[]).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::InvalidInput);
    let text = fault.to_string();
    assert!(text.contains("objects.yaml: line "), "{text}");
    let fault = simulated(&node("a", "10.0.0.300/24"), &[]).unwrap_err();
    assert!(fault.to_string().starts_with("Node/a"), "{fault}");
}

#[test]
fn the_question_in_the_help_is_one() {
    let help = crate::cli::examples::DECIDE;
    let (start, end) = (help.find('{').unwrap(), help.find("}}").unwrap() + 2);
    let question: Question = serde_json::from_str(&help[start..end]).unwrap();
    assert_eq!(question.session.as_deref(), Some("Mesh_10_0_0_2"));
}
