//! MRT files: other people's readers find in them what margay shows, and so does margay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use interop::bird2::Bird2;
use interop::daemon::Daemon;
use interop::lab::{self, Host, Lab, run_command};
use interop::margay::{self, Control};
use interop::matrix::{self, PEER_AS, SUBJECT_AS};
use interop::require;
use interop::speaker::{Family, Kind, Origin};
use interop::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

const PORT: u16 = 1790;
/// Routes that BIRD announces besides those with communities.
const PLAIN: usize = 200;
/// `interop/bgpkit`.
const BGPKIT: &str = "/opt/interop/bgpkit/bgpkit-lines";
/// Two nodes behind a top-of-rack router.
const CLUSTER: &str = r#"
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, spec: {bgp: {ipv4Address: 10.0.0.1/24}}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n2}, spec: {bgp: {ipv4Address: 10.0.0.2/24}}}
---
{apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: a}, spec: {cidr: 10.65.1.0/26, node: n1, state: confirmed, deleted: "false"}}
---
{apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: b}, spec: {cidr: 10.65.2.0/26, node: n2, state: confirmed, deleted: "false"}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.65.0.0/16, ipipMode: Never, vxlanMode: Never}}
---
{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}}
---
{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: 10.0.1.1, asNumber: 65010, numAllowedLocalASNumbers: 1}}
"#;
/// Prints one line of JSON for each path of each prefix.
const MRTPARSE: &str = r"
import json, sys
sys.path.insert(0, '/opt/interop/mrtparse')
from mrtparse import Reader
peers = []
for record in Reader(sys.argv[1]):
    assert record.err is None, (record.err, record.data)
    data = record.data
    if 'peer_entries' in data:
        peers = data['peer_entries']
        continue
    for entry in data['rib_entries']:
        found = {}
        for attribute in entry['path_attributes']:
            (code, name), = attribute['type'].items()
            found[name] = attribute['value']
        hop = found.get('NEXT_HOP') or found['MP_REACH_NLRI']['next_hop'][0]
        path = [asn for segment in found['AS_PATH'] for asn in segment['value']]
        # The length of the record has been overwritten by that of the prefix.
        prefix = '%s/%d' % (data['prefix'], data['length'])
        large = ' '.join(found.get('LARGE_COMMUNITY', []))
        print(json.dumps([prefix, peers[entry['peer_index']]['peer_ip'], ' '.join(path), hop, large]))
";

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &[], |lab| {
        let mrtparse = "/opt/interop/mrtparse/mrtparse/__init__.py";
        require::programs(&["bgpdump", "python3", mrtparse, BGPKIT])?;
        test(lab)
    })
}

fn bird(far: &Host, host: &Host) -> Result<Bird2> {
    let origins = ["0.0.0.0/0", "198.51.100.1/32"];
    let mut config = matrix::config(far, PEER_AS, &[(host, SUBJECT_AS)], &origins);
    config.origins.extend([
        Origin::tagged("203.0.113.0/24", "65001:7", "4200000001:1:2"),
        Origin::tagged("2001:db8:1::/48", "65001:8", "4200000001:1:3"),
    ]);
    let more = (0..PLAIN).map(|n| Origin::plain(&format!("10.{}.{}.0/24", 100 + n / 100, n % 100)));
    config.origins.extend(more);
    config.neighbors.iter_mut().for_each(|n| n.families = vec![Family::V4, Family::V6]);
    Bird2::start(far, &config)
}

fn configuration(host: &Host, far: &Host, more: &str) -> String {
    format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         [[bgp.peers]]\nname = \"tor\"\naddress = \"{}\"\nport = {PORT}\nremote-asn = {PEER_AS}\n\
         import = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\nfamilies = [\"ipv4\", \"ipv6\"]\n\n\
         [[originate]]\nprefix = \"192.0.2.0/24\"\n\n\
         [[originate]]\nprefix = \"2001:db8:2::/48\"\n\n{more}\n{}",
        host.router_id(),
        far.v4(),
        margay::control_section(host)
    )
}

fn start(host: &Host, far: &Host, more: &str) -> Result<(Daemon, Control)> {
    margay::start_text(host, &configuration(host, far, more))
}

fn loaded(control: &Control) -> Result<Vec<Value>> {
    wait_until(PATIENCE, "every route", || {
        let routes = control.json(&["show", "routes"])?;
        let routes = routes.as_array().context("show routes: not a list")?.clone();
        ensure!(routes.len() == PLAIN + 6, "{} routes", routes.len());
        Ok(routes)
    })
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(
        || if value.is_null() { String::new() } else { value.to_string() },
        str::to_owned,
    )
}

fn words(list: &Value) -> String {
    list.as_array()
        .map(|all| all.iter().map(text).collect::<Vec<_>>().join(" "))
        .unwrap_or_default()
}

/// Each path that margay shows as `bgpdump -m` writes it: prefix, peer, AS path, origin, next hop,
/// LOCAL_PREF, MED, communities; and large communities, which it leaves out.
fn as_bgpdump(routes: &[Value], far: &Host) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for route in routes {
        for path in route["paths"].as_array().context("no paths")? {
            let is_v6 = text(&route["prefix"]).contains(':');
            let own = path["peer"].is_null();
            let number = |key: &str| path[key].as_u64().unwrap_or(0);
            let unset = if is_v6 { "::" } else { "0.0.0.0" };
            all.insert(format!(
                "{}|{}|{}|{}|{}|{}|{}|{}|{}",
                text(&route["prefix"]),
                if own { "0.0.0.0".to_owned() } else { far.v4().to_string() },
                words(&path["as_path"]),
                text(&path["origin"]).to_uppercase(),
                path["next_hop"].as_str().unwrap_or(unset),
                number("local_pref"),
                number("med"),
                words(&path["communities"]),
                words(&path["large_communities"]),
            ));
        }
    }
    Ok(all)
}

/// What `bgpdump -m` reads from a file, in the same form without large communities.
fn bgpdump(file: &Path) -> Result<BTreeSet<String>> {
    let printed = run_command(Command::new("bgpdump").arg("-m").arg(file))?;
    printed
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            let [kind, _, _, peer, _, prefix, path, origin, hop, pref, med, communities, ..] =
                fields[..]
            else {
                bail!("{line}");
            };
            ensure!(kind == "TABLE_DUMP2", "{line}");
            let communities = communities.split_whitespace().collect::<Vec<_>>().join(" ");
            Ok(format!("{prefix}|{peer}|{path}|{origin}|{hop}|{pref}|{med}|{communities}"))
        })
        .collect()
}

/// What bgpkit-parser reads from a file, in the form of [`as_bgpdump`].
fn bgpkit(file: &Path) -> Result<BTreeSet<String>> {
    let printed = run_command(Command::new(BGPKIT).arg(file))?;
    Ok(printed.lines().map(str::to_owned).collect())
}

/// What a file has and `show routes` too: everything of a path but its state here.
fn comparable(routes: &[Value]) -> Vec<Value> {
    let keys = [
        "path_id",
        "next_hop",
        "origin",
        "as_path",
        "local_pref",
        "med",
        "communities",
        "large_communities",
        "extended_communities",
        "originator_id",
        "cluster_list",
    ];
    let path = |path: &Value| keys.iter().map(|key| path[*key].clone()).collect::<Value>();
    let paths = |route: &Value| {
        route["paths"].as_array().map(|all| all.iter().map(path).collect::<Value>())
    };
    routes.iter().map(|route| serde_json::json!([route["prefix"], paths(route)])).collect()
}

fn from_file(file: &Path, more: &[&str]) -> Result<Value> {
    let mut command = Command::new(margay::binary()?);
    command.args(["show", "routes", "--json", "--from"]).arg(file).args(more);
    let printed = run_command(&mut command)?;
    serde_json::from_str(&printed).with_context(|| format!("{more:?} printed {printed}"))
}

#[test]
#[ignore = "needs root, BIRD 2, bgpdump, mrtparse and bgpkit-parser"]
fn a_dump_is_read_route_by_route_as_margay_shows_it() -> Result<()> {
    run("mrt_dump", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _bird = bird(&far, &host)?;
        let (_daemon, control) = start(&host, &far, "")?;
        let routes = loaded(&control)?;

        let (plain, packed) = (host.file("table.mrt"), host.file("table.mrt.gz"));
        let path = |file: &Path| file.to_string_lossy().into_owned();
        control.text(&["dump", "--output", &path(&plain)])?;
        control.text(&["dump", "--gzip", "--output", &path(&packed)])?;
        let shown = as_bgpdump(&routes, &far)?;
        ensure!(shown.len() == PLAIN + 6, "{shown:#?}");
        for file in [&plain, &packed] {
            let read = bgpdump(file)?;
            let without_large = shown.iter().filter_map(|line| line.rsplit_once('|'));
            let shown = without_large.map(|(line, _)| line.to_owned()).collect();
            let differ: Vec<_> = read.symmetric_difference(&shown).collect();
            ensure!(differ.is_empty(), "bgpdump of {}: {differ:#?}", file.display());
        }
        let read = bgpkit(&plain)?;
        let differ: Vec<_> = read.symmetric_difference(&shown).collect();
        ensure!(differ.is_empty(), "bgpkit-parser: {differ:#?}");
        ensure!(std::fs::metadata(&packed)?.len() < std::fs::metadata(&plain)?.len());

        let mut command = Command::new("python3");
        let printed = run_command(command.args(["-c", MRTPARSE]).arg(&plain))?;
        let read: BTreeSet<String> = printed.lines().map(mrtparse_line).collect::<Result<_>>()?;
        let shown: BTreeSet<String> = shown.iter().map(|line| short(line)).collect();
        let differ: Vec<_> = read.symmetric_difference(&shown).collect();
        ensure!(differ.is_empty(), "mrtparse: {differ:#?}");

        for file in [&plain, &packed] {
            let read = from_file(file, &[])?;
            let read = read.as_array().context("not a list")?;
            ensure!(comparable(read) == comparable(&routes), "{read:#?}\n{routes:#?}");
        }
        for (more, count) in [
            (&["--count"][..], Some(PLAIN + 6)),
            (&["--count", "--community", "65001:7"], Some(1)),
            (&["--count", "--as-path", &PEER_AS.to_string()], Some(PLAIN + 4)),
            (&["--count", "--peer", &far.v4().to_string()], Some(PLAIN + 4)),
            (&["--count", "--longer", "10.100.0.0/16"], Some(100)),
            (&["--count", "10.100.7.9"], Some(1)),
        ] {
            let answer = from_file(&plain, more)?;
            let found = answer["prefixes"].as_u64().and_then(|n| usize::try_from(n).ok());
            ensure!(found == count, "{more:?}: {answer}");
        }
        let cluster = host.write("cluster.yaml", CLUSTER)?;
        for file in [&plain, &packed] {
            let mut command = Command::new(margay::binary()?);
            command.args(["calico", "simulate", "--json", "--routes", "--resources"]).arg(&cluster);
            command.args(["--table", &format!("10.0.1.1={}", file.display())]);
            let report: Value = serde_json::from_str(&run_command(&mut command)?)?;
            let at_node = report["routes"]["n1"].as_object().context("no routes of n1")?;
            // The node has no IPv6, and both blocks besides.
            let v4 = routes.iter().filter(|route| !text(&route["prefix"]).contains(':')).count();
            ensure!(at_node.len() == v4 + 2, "{} of {v4} routes: {at_node:?}", at_node.len());
        }
        let first = from_file(&plain, &["--limit", "3"])?;
        ensure!(first.as_array().is_some_and(|all| all.len() == 3), "{first}");
        let only = host.file("v6.mrt");
        control.text(&["dump", "--family", "ipv6", "--output", &path(&only)])?;
        ensure!(bgpdump(&only)?.len() == 2, "{:?}", bgpdump(&only)?);
        Ok(())
    })
}

fn mrtparse_line(line: &str) -> Result<String> {
    let fields: Vec<String> = serde_json::from_str(line)?;
    Ok(fields.join("|"))
}

/// Prefix, peer, AS path, next hop and large communities of a line.
fn short(line: &str) -> String {
    let fields: Vec<&str> = line.split('|').collect();
    [0, 1, 2, 4, 8].map(|at| fields.get(at).copied().unwrap_or_default()).join("|")
}

/// Runs `margay dump` with more arguments.
fn dump(control: &Control, args: &[&str], out: Stdio) -> Result<Output> {
    let mut command = Command::new(margay::binary()?);
    command.arg("dump").args(args).arg("--socket").arg(control.socket());
    Ok(command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?)
}

fn expect_failure(output: &Output, text: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{:?}: {said}", output.status);
    ensure!(said.contains(text), "no \"{text}\" in: {said}");
    Ok(())
}

#[test]
#[ignore = "needs root, BIRD 2, bgpdump, mrtparse and bgpkit-parser"]
fn a_full_disk_or_a_closed_pipe_leaves_no_torn_file() -> Result<()> {
    run("mrt_full", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _bird = bird(&far, &host)?;
        let (_daemon, control) = start(&host, &far, "")?;
        loaded(&control)?;

        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        expect_failure(&dump(&control, &[], writer.into())?, "has closed the pipe")?;
        let full = dump(&control, &["--output", "/dev/full"], Stdio::null())?;
        expect_failure(&full, "No space left on device")?;
        ensure!(!Path::new("/dev/full").is_file(), "the device was replaced by a file");

        // A disk of one page, in a mount namespace of its own.
        let disk = host.file("disk");
        std::fs::create_dir(&disk)?;
        let script = "mount -t tmpfs -o size=4k tmpfs \"$1\" && cd \"$1\" || exit 9
            \"$2\" dump --socket \"$3\" --output table.mrt; status=$?
            ls -A; exit $status";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(&disk);
        command.arg(margay::binary()?).arg(control.socket());
        let output = command.stdin(Stdio::null()).output()?;
        expect_failure(&output, "No space left on device")?;
        expect_failure(&output, "nothing is left of the dump")?;
        let left = String::from_utf8_lossy(&output.stdout);
        ensure!(left.trim().is_empty(), "left behind: {left}");

        let missing = dump(&control, &["--vrf", "blue"], Stdio::null())?;
        expect_failure(&missing, "no VRF blue is configured")?;
        let cut = host.write("cut.mrt", "\0\0\0\0\0\x0d\0\x01\0\0\0\x09")?;
        let read = Command::new(margay::binary()?)
            .args(["show", "routes", "--from"])
            .arg(&cut)
            .output()?;
        expect_failure(&read, "it ends within record 1")
    })
}

/// The prefixes of announcements, and the changes of state, that `bgpdump -m` reads from a file of
/// messages.
fn messages(file: &Path, far: &Host) -> Result<(BTreeSet<String>, Vec<String>)> {
    let printed = run_command(Command::new("bgpdump").arg("-m").arg(file))?;
    let (mut announced, mut states) = (BTreeSet::new(), Vec::new());
    for line in printed.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [_, _, kind, peer, asn, what, more @ ..] = &fields[..] else { bail!("{line}") };
        ensure!(*peer == far.v4().to_string() && *asn == PEER_AS.to_string(), "{line}");
        match (*kind, more) {
            ("A", [path, ..]) => {
                ensure!(*path == PEER_AS.to_string(), "{line}");
                announced.insert((*what).to_owned());
            }
            ("STATE", [to, ..]) => states.push(format!("{what} {to}")),
            _ => bail!("{line}"),
        }
    }
    Ok((announced, states))
}

/// The complete files in a folder.
fn complete(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[test]
#[ignore = "needs root, BIRD 2, bgpdump, mrtparse and bgpkit-parser"]
fn what_a_peer_sends_is_recorded_and_a_reload_completes_the_file() -> Result<()> {
    run("mrt_updates", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let folder = host.file("mrt");
        std::fs::create_dir(&folder)?;
        let mrt = format!("[mrt]\ndirectory = \"{}\"\nupdates = [\"tor\"]\n", folder.display());
        let (_daemon, control) = start(&host, &far, &mrt)?;
        let _bird = bird(&far, &host)?;
        let routes = loaded(&control)?;
        ensure!(complete(&folder)?.is_empty(), "a file has its name before it is complete");

        // Another compression is another file.
        let changed = configuration(&host, &far, &format!("{mrt}compression = \"gzip\"\n"));
        host.write("margay.toml", &changed)?;
        let told = control.text(&["reload"])?;
        ensure!(told.contains("MRT files: changed"), "{told}");
        let files = wait_until(PATIENCE, "the first file", || {
            let files = complete(&folder)?;
            ensure!(files.len() == 1, "{files:?}");
            Ok(files)
        })?;
        let first = files.first().context("no file")?;
        let (announced, states) = messages(first, &far)?;
        let from_peer = routes.iter().filter(|route| !route["paths"][0]["peer"].is_null());
        let shown: BTreeSet<String> = from_peer.map(|route| text(&route["prefix"])).collect();
        let differ: Vec<_> = announced.symmetric_difference(&shown).collect();
        ensure!(differ.is_empty(), "{differ:#?}");
        // Replayed, they are the routes that the daemon has from the peer.
        let by_prefix = |routes: &[Value]| -> BTreeMap<String, String> {
            let path = |route: &Value| {
                format!("{} {}", route["paths"][0]["as_path"], route["paths"][0]["next_hop"])
            };
            routes.iter().map(|route| (text(&route["prefix"]), path(route))).collect()
        };
        let of_daemon: Vec<Value> =
            routes.iter().filter(|route| !route["paths"][0]["peer"].is_null()).cloned().collect();
        let replayed = from_file(first, &[])?;
        let replayed = replayed.as_array().context("no list")?;
        ensure!(
            by_prefix(replayed) == by_prefix(&of_daemon),
            "{replayed:?} instead of {of_daemon:?}"
        );
        ensure!(states.last().is_some_and(|last| last.ends_with(" 6")), "{states:?}");

        control.text(&["peer", "stop", "tor"])?;
        host.write("margay.toml", &configuration(&host, &far, ""))?;
        control.text(&["reload"])?;
        let files = wait_until(PATIENCE, "the second file", || {
            let files = complete(&folder)?;
            ensure!(files.len() == 2, "{files:?}");
            Ok(files)
        })?;
        let second = files.last().context("no file")?;
        ensure!(second.extension().is_some_and(|end| end == "gz"), "{}", second.display());
        let (_, states) = messages(second, &far)?;
        ensure!(states.iter().any(|state| state == "6 1"), "{states:?}");
        let replayed = from_file(second, &[])?;
        ensure!(replayed == json!([]), "the session has ended: {replayed}");
        let problems = control.json(&["show", "status"])?["problems"].clone();
        ensure!(problems.as_array().is_some_and(Vec::is_empty), "{problems}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root, BIRD 2, bgpdump, mrtparse and bgpkit-parser"]
fn a_full_disk_costs_records_and_no_session() -> Result<()> {
    run("mrt_disk", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let folder = host.file("mrt");
        std::fs::create_dir(&folder)?;
        let mrt = format!("[mrt]\ndirectory = \"{}\"\nupdates = true\n", folder.display());
        let toml = host.write("margay.toml", &configuration(&host, &far, &mrt))?;
        // A disk that is full, in the daemon's mount namespace.
        let script = "mount -t tmpfs -o size=256k tmpfs \"$1\" || exit 9
            dd if=/dev/zero of=\"$1/filler\" bs=4k count=64 status=none; exec \"$2\" run --config \"$3\"";
        let mut command = host.command("sh");
        command.args(["-c", script, "sh"]).arg(&folder).arg(margay::binary()?).arg(toml);
        let daemon = Daemon::start(command, &host.file("margay.log"))?;
        let (daemon, control) = margay::wait_answers(&host, daemon)?;
        let _bird = bird(&far, &host)?;
        loaded(&control)?;
        control.expect_established(far.v4())?;
        wait_until(PATIENCE, "the problem", || {
            let problems = control.json(&["show", "status"])?["problems"].to_string();
            ensure!(problems.contains("No space left on device"), "{problems}");
            Ok(())
        })?;
        ensure!(control.text(&["events"])?.contains("cannot be written"), "no event");

        let inside = |script: &str| -> Result<String> {
            let pid = daemon.pid().to_string();
            let mut command = Command::new("nsenter");
            command.args(["-t", &pid, "-m", "sh", "-c", script, "sh"]).arg(&folder);
            run_command(&mut command)
        };
        inside("rm \"$1/filler\"")?;
        wait_until(PATIENCE, "records again", || {
            // Something is to be recorded: a KEEPALIVE comes every three seconds.
            let problems = control.json(&["show", "status"])?["problems"].clone();
            ensure!(problems.as_array().is_some_and(Vec::is_empty), "{problems}");
            Ok(())
        })?;
        ensure!(control.text(&["events"])?.contains("are written again"), "no event");
        control.expect_established(far.v4())?;
        let left = inside("ls -A \"$1\"")?;
        ensure!(left.trim_end().ends_with(".part") && left.lines().count() == 1, "{left}");
        Ok(())
    })
}
