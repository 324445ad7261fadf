//! The tools that read a Calico node, on a node that runs margay: Debian's `birdc` and `birdcl`;
//! and the probes, calicoctl and CalicoNodeStatus by the rules of
//! `tests/support/calico_readers.rs`, with `examples/calico-node` mounted over a root and run by
//! runit.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use interop::bird2::{ask, birdc};
use interop::calico::{Cluster, MargayNode, environment, session_name};
use interop::daemon::Daemon;
use interop::kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::binary;
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::json;

#[path = "../../tests/support/calico_readers.rs"]
mod readers;

fn run(name: &str, programs: &[&str], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let programs = [&["etcd", "etcdctl"], programs].concat();
    lab::run_margay(name, &[], &programs, test)
}

/// The standard output of a program, which must succeed.
fn printed(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The standard output of a client that must exit with 1, as BIRD 2's does when its command fails.
fn refused(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.code() == Some(1), "{command:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn text_error(text: String) -> anyhow::Error {
    anyhow::anyhow!(text)
}

/// Debian's clients parse each answer and print the lines that they print for BIRD; margay called
/// as `birdcl` prints the same as Debian's.
#[test]
#[ignore = "needs root, etcd, BIRD's clients and runit"]
fn birds_own_clients_understand_every_answer() -> Result<()> {
    run("calico-birdc", &["birdc", "birdcl"], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let (na, [v4, v6]) = MargayNode::with_bird_sockets(&a, &cluster)?;
        let _nb = MargayNode::from_environment(&b, &cluster)?;
        na.wait_session(&b)?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        let mesh = session_name("Mesh", &b);
        let own = a.file("bin").join("birdcl");
        std::fs::create_dir_all(a.file("bin"))?;
        std::os::unix::fs::symlink(binary()?, &own)?;
        let client = |program: &str, socket: &Path, command: &str| {
            let words = command.split(' ').filter(|word| !word.is_empty());
            printed(Command::new(program).arg("-s").arg(socket).args(words))
        };

        let all = format!("show protocols all {mesh}");
        let of = format!("show route protocol {mesh}");
        let to = format!("show route export {mesh}");
        let via = format!("via {} on eth0 [{mesh} ", b.v4());
        let commands: [(&str, &[&str]); 15] = [
            ("show status", &["BIRD v0.3.3+birdv1.6.8", "Router ID is 10.99.0.", "Daemon is up"]),
            ("show protocols", &["name     proto    table    state  since       info", &mesh]),
            ("show protocols all", &["Description:    Connection to BGP peer", "device1  Device"]),
            (&all, &["BGP state:          Established", "Session:          internal multihop AS4"]),
            ("show route", &["10.65.1.0/26       blackhole [static1 ", "* (200)", &via]),
            ("show route all", &["\tBGP.origin: IGP", "\tType: BGP unicast univ"]),
            ("show route for 10.65.2.9", &["10.65.2.0/26       via ", "* (100/0) [i]"]),
            ("show route for 10.65.2.9 all", &["\tBGP.local_pref: "]),
            ("show route 10.65.2.0/26", &["10.65.2.0/26 "]),
            (&of, &["10.65.2.0/26 "]),
            (&to, &["10.65.1.0/26 "]),
            ("show route count", &["routes for "]),
            ("show interfaces", &["eth0 up (index=", "MTU=1500"]),
            ("show interfaces summary", &["interface state address"]),
            ("configure", &["Reading configuration from ", "Reconfigured"]),
        ];
        for (command, wanted) in commands {
            let text = client("birdc", &v4, command)?;
            for part in wanted {
                ensure!(text.contains(part), "birdc {command}: no {part:?} in\n{text}");
            }
            // Timers and clocks advance between two answers.
            let still = |text: &str| {
                let moving = ["timer:", "time is", "since", "configuration on"];
                let lines = text.lines().filter(|line| !moving.iter().any(|m| line.contains(m)));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            for program in ["birdcl", &own.display().to_string()] {
                let same = client(program, &v4, command)?;
                ensure!(
                    still(&same) == still(&text),
                    "{program} {command}:\n{same}\nbirdc:\n{text}"
                );
                ensure!(same.starts_with("BIRD"), "the liveness probe: {same}");
            }
        }
        // The time of the last reconfiguration advances, even if nothing has changed.
        let read_at = |text: String| readers::agent(&text).last_reconfiguration;
        let before = read_at(ask(&v4, "show status", "0013")?);
        wait_until(PATIENCE, "the time of a reconfiguration", || {
            client("birdc", &v4, "configure")?;
            let after = read_at(ask(&v4, "show status", "0013")?);
            ensure!(after > before, "still {before}");
            Ok(())
        })?;
        // A route's time is when it was received, not when it is shown.
        let routes = client("birdc", &v4, "show route")?;
        holds_for(Duration::from_secs(2), "the routes' times", || {
            let again = client("birdc", &v4, "show route")?;
            ensure!(again == routes, "{again}\nbefore:\n{routes}");
            Ok(())
        })?;
        let text = client("birdc", &v6, "show protocols")?;
        ensure!(!text.contains("BGP") && text.contains("kernel1  Kernel"), "{text}");
        for (command, wanted) in [
            ("show protocols nosuch", "nosuch is not a protocol"),
            ("show route for 192.0.2.1", "Network not in table"),
            ("show ospf", "syntax error"),
        ] {
            for program in ["birdc", "birdcl", &own.display().to_string()] {
                let text =
                    refused(Command::new(program).arg("-s").arg(&v4).args(command.split(' ')))?;
                ensure!(text.ends_with(&format!("{wanted}\n")), "{program} {command}: {text}");
            }
        }
        // -r: read-only.
        for program in ["birdc", "birdcl", &own.display().to_string()] {
            let mut command = Command::new(program);
            let text = refused(command.arg("-r").arg("-s").arg(&v4).arg("configure"))?;
            ensure!(text.contains("Access restricted\n"), "{program}: {text}");
            ensure!(text.ends_with("Access denied\n"), "{program}: {text}");
        }
        second_is_refused(&a, &cluster, &v4, &v6)
    })
}

/// A session that is disabled at BIRD's socket stays down until it is enabled, whatever the plan
/// does.
#[test]
#[ignore = "needs root, etcd and BIRD's clients"]
fn sessions_are_disabled_and_enabled_at_birds_socket() -> Result<()> {
    run("calico-orders", &["birdc"], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let (na, [v4, v6]) = MargayNode::with_bird_sockets(&a, &cluster)?;
        let nb = MargayNode::from_environment(&b, &cluster)?;
        na.wait_session(&b)?;
        let mesh = session_name("Mesh", &b);
        let says = |command: &str, wanted: &str| -> Result<()> {
            let text = birdc(&v4, &format!("{command} {mesh}"))?;
            ensure!(text.contains(&format!("{mesh}: {wanted}")), "{command}: {text}");
            Ok(())
        };
        let state = |wanted: &str| -> Result<()> {
            let answer = birdc(&v4, &format!("show protocols {mesh}"))?;
            ensure!(answer.contains(&format!("{mesh} BGP      master   {wanted} ")), "{answer}");
            Ok(())
        };
        says("disable", "disabled")?;
        says("disable", "already disabled")?;
        says("restart", "already disabled")?;
        says("reload", "already disabled")?;
        // Neither the neighbour's attempts nor another plan restores it.
        kernel::wait_gone(&a, "10.65.2.0/26")?;
        cluster.put_block(&a, 6)?;
        wait_until(PATIENCE, "the plan with one more block", || {
            let routes = birdc(&v4, "show route 10.65.6.0/26")?;
            ensure!(routes.contains("blackhole"), "{routes}");
            Ok(())
        })?;
        holds_for(Duration::from_secs(7), "a session that is down", || {
            state("down")?;
            ensure!(na.session(&b)?.state == "Idle", "{:?}", na.session(&b)?);
            Ok(())
        })?;
        says("enable", "enabled")?;
        says("enable", "already enabled")?;
        na.wait_session(&b)?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        state("up")?;
        let sessions = na.sessions(&b);
        for command in ["reload", "reload in", "reload out"] {
            says(command, "reloading")?;
        }
        ensure!(na.sessions(&b) == sessions, "reloading ended the session");
        says("restart", "restarted")?;
        wait_until(PATIENCE, "another session", || {
            ensure!(na.sessions(&b) == sessions + 1, "{} sessions", na.sessions(&b));
            Ok(())
        })?;
        // The socket of the other family has other sessions, and `kernel1` is not a session.
        for (socket, command) in [(&v6, format!("disable {mesh}")), (&v4, "disable kernel1".into())]
        {
            let answer =
                refused(Command::new("birdc").arg("-s").arg(socket).args(command.split(' ')))?;
            ensure!(!answer.contains(": disabled"), "{answer}");
        }
        na.wait_session(&b)?;
        drop(nb);
        Ok(())
    })
}

/// `margay check --connect` reads etcd once, so that it can be tested before BIRD is stopped.
#[test]
#[ignore = "needs root and etcd"]
fn a_check_connects_to_etcd() -> Result<()> {
    run("calico-check", &[], |lab| {
        let mut cluster = Cluster::start(lab)?;
        let a = cluster.node(lab, "a", 1)?;
        let variables = environment(&a, &cluster, "none");
        let check = || -> Result<(bool, String)> {
            let mut command = a.command(&binary()?.display().to_string());
            command.args(["check", "--connect"]).envs(variables.clone());
            let output = command.output()?;
            Ok((output.status.success(), String::from_utf8(output.stdout)?))
        };
        let (is_good, text) = check()?;
        ensure!(is_good && text.contains("etcd at http://10.99.0.1:2379: 3 objects"), "{text}");
        cluster.etcd.crash()?;
        let (is_good, text) = check()?;
        ensure!(!is_good && text.contains("10.99.0.1:2379") && text.contains("refused"), "{text}");
        Ok(())
    })
}

/// Multipath and blackhole routes learned from the kernel, in BIRD's format; and a node that has no
/// plan yet.
#[test]
#[ignore = "needs root, etcd and BIRD's clients"]
fn kernel_routes_and_a_node_without_a_plan_at_birds_socket() -> Result<()> {
    run("calico-shown", &["birdc"], |lab| {
        let mut cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        // Kernel routes inside a block of the node, as they are announced to neighbours.
        cluster.put_block(&a, 7)?;
        let [c, d] = ["10.99.0.77", "10.99.0.78"];
        a.shell(&format!(
            "ip route add 10.65.7.1/32 proto 80 nexthop via {c} nexthop via {d}
             ip route add blackhole 10.65.7.2/32 proto 80"
        ))?;
        cluster.etcd.crash()?;
        let (_na, [v4, _]) = MargayNode::with_bird_sockets(&a, &cluster)?;
        let answer = ask(&v4, "show protocols", "")?;
        ensure!(readers::sessions(&answer, "_").is_err(), "a node with no plan is ready: {answer}");
        let text = refused(Command::new("birdc").arg("-s").arg(&v4).args(["show", "protocols"]))?;
        ensure!(text.contains("etcd"), "it does not say what margay waits for: {text}");
        cluster.etcd.restart()?;
        wait_until(PATIENCE, "the first plan", || {
            ask(&v4, "show protocols", "0000").and_then(|text| {
                let sessions = readers::sessions(&text, "_").map_err(text_error)?;
                ensure!(sessions.iter().any(|s| s.name == session_name("Mesh", &b)), "{text}");
                Ok(())
            })
        })?;
        wait_until(PATIENCE, "the kernel's routes", || {
            let text = birdc(&v4, "show route 10.65.7.1/32")?;
            // Calico's readers cannot parse "multipath": each gateway has a line of its own.
            for gateway in [c, d] {
                ensure!(text.contains(&format!("via {gateway} on eth0 [kernel1 ")), "{text}");
            }
            let text = birdc(&v4, "show route 10.65.7.2/32")?;
            ensure!(text.contains("10.65.7.2/32       blackhole [kernel1 "), "{text}");
            Ok(())
        })
    })
}

/// Deleting the node's own Node leaves its plan in force: its sessions are still shown in BIRD's
/// protocol, and readiness names the missing object. After a start without the Node there are no
/// sessions to show.
#[test]
#[ignore = "needs root, etcd and BIRD's clients"]
fn a_node_whose_own_object_is_deleted_keeps_its_plan_and_reports_it() -> Result<()> {
    run("calico-ownless", &["birdc"], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let (mut na, [v4, _]) = MargayNode::with_bird_sockets(&a, &cluster)?;
        let _nb = MargayNode::from_environment(&b, &cluster)?;
        na.wait_session(&b)?;
        let is_shown = || -> Result<()> {
            let answer = ask(&v4, "show protocols", "0000")?;
            let sessions = readers::sessions(&answer, "_").map_err(text_error)?;
            ensure!(sessions.iter().any(|s| s.name == session_name("Mesh", &b)), "{answer}");
            Ok(())
        };
        let is_ready =
            |na: &MargayNode| na.control.text(&["health", "--live", "--ready"]).map(drop);
        let is_unready = |na: &MargayNode| -> Result<()> {
            na.control.text(&["health", "--live"])?;
            let error = na.control.text(&["health", "--ready"]).err().context("it is ready")?;
            let says = "not ready: Node/a: the node's own object is missing";
            ensure!(format!("{error:#}").contains(says), "{error:#}");
            Ok(())
        };
        wait_until(PATIENCE, "the node to be ready", || is_ready(&na))?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        cluster.delete("nodes", "a")?;
        wait_until(PATIENCE, "the missing node to be named", || is_unready(&na))?;
        // The neighbour, for which the node does not exist any more, ends the session.
        holds_for(Duration::from_secs(2), "the session to be shown", is_shown)?;
        // There is no state file here, so that the next run has no plan.
        na.daemon().crash()?;
        na.restart()?;
        wait_until(PATIENCE, "the missing node to be named", || is_unready(&na))?;
        holds_for(Duration::from_secs(2), "no sessions to be shown", || {
            let answer = ask(&v4, "show protocols", "")?;
            ensure!(readers::sessions(&answer, "_").is_err(), "no plan, and ready: {answer}");
            is_unready(&na)
        })?;
        cluster.put_node(&a, &json!({}), &json!({}))?;
        na.wait_session(&b)?;
        wait_until(PATIENCE, "the node to be ready again", || is_shown().and(is_ready(&na)))
    })
}

/// A second margay on the first one's sockets prints one line and exits with 1; the first runs on.
fn second_is_refused(host: &Host, cluster: &Cluster, v4: &Path, v6: &Path) -> Result<()> {
    let sockets = format!("{},{}", v4.display(), v6.display());
    let mut second = host.command(&binary()?.display().to_string());
    second.arg("run").envs(environment(host, cluster, &sockets));
    second.env("MARGAY_SOCKET", host.file("second.sock"));
    let output = second.stdin(Stdio::null()).output()?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{:?}: {text}", output.status);
    let wanted = format!(
        "margay: another process is listening on {}; stop it, or set another bird-sockets\n",
        v4.display()
    );
    ensure!(text == wanted, "{text}");
    ensure!(kernel::route(host, "10.65.2.0/26")?.is_some(), "the second touched routes");
    ask(v4, "show status", "0013").map(drop)
}

/// Runs margay with a configuration file on a host, with a `/run` of its own.
fn start_with_run(host: &Host, mount: &str, name: &str, text: &str) -> Result<Daemon> {
    let path = host.write(&format!("{name}.toml"), text)?;
    let mut command = host.command("unshare");
    command.args([
        "--mount",
        "sh",
        "-ec",
        "mount -t tmpfs $1 tmpfs /run; exec \"$2\" run --config \"$3\"",
    ]);
    command.args(["sh", mount]).arg(binary()?).arg(path);
    Daemon::start(command, &host.file(&format!("{name}.log")))
}

/// `calico plan --live` prints the daemon's plan; with objects in files, it prints what they would
/// change before they are written, and exactly that changes when they are.
#[test]
#[ignore = "needs root, etcd and runit"]
fn a_live_plan_predicts_what_an_object_changes() -> Result<()> {
    run("calico-plan-live", &[], |lab| {
        let mut cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let na = MargayNode::from_environment(&a, &cluster)?;
        na.wait_peers(&[session_name("Mesh", &b)])?;
        let revision = || -> Result<i64> {
            let status = na.status()?;
            let revision = status["sources"][0]["revision"].as_i64();
            revision.with_context(|| format!("no revision: {status}"))
        };
        let before = revision()?;
        let live = |arguments: &[&str], wanted: i32| -> Result<String> {
            let (code, text) = na.plan_live(arguments)?;
            ensure!(code == Some(wanted), "{arguments:?}: {code:?}: {text}");
            Ok(text)
        };
        let old = a.write("old.json", &live(&["--json"], 0)?)?;
        let old = old.display().to_string();
        ensure!(live(&["--diff", &old], 0)?.is_empty(), "a plan differs from itself");
        let peer = json!({"kind": "BGPPeer", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "tor"}, "spec": {"peerIP": "10.99.0.99", "asNumber": 65001}});
        let file = a.write("tor.json", &peer.to_string())?;
        let foretold = live(&["--resources", &file.display().to_string(), "--diff", &old], 1)?;
        ensure!(foretold.lines().count() == 1, "{foretold}");
        ensure!(foretold.starts_with("+ families ipv4 sessions Global_10_99_0_99: "), "{foretold}");
        // The prediction changed nothing.
        ensure!(na.peers()?.len() == 1, "{:?}", na.peers()?);
        cluster.put("bgppeers", "BGPPeer", "tor", &peer["spec"])?;
        let wanted = [session_name("Mesh", &b), "Global_10_99_0_99".to_owned()];
        na.wait_peers(&wanted)?;
        ensure!(live(&["--diff", &old], 1)? == foretold, "the change differs from its prediction");
        ensure!(revision()? > before, "the revision stays at {before}");
        cluster.etcd.crash()?;
        let text = live(&[], 1)?;
        ensure!(text.contains("cannot be read") && text.lines().count() == 1, "{text}");
        Ok(())
    })
}

/// Without `bird-sockets` in `[calico]`, BIRD's sockets are created at calico-node's paths, with
/// their folder. A second margay on the same sockets exits; one that cannot create them logs that,
/// and routes without them.
#[test]
#[ignore = "needs root, etcd, BIRD's clients and runit"]
fn a_file_serves_birds_sockets_too() -> Result<()> {
    run("calico-tools-file", &["unshare", "nsenter"], |lab| {
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let text = |host: &Host, control: &str| -> Result<String> {
            let node = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": host.name()},
                "spec": {"bgp": {"ipv4Address": format!("{}/24", host.v4())}}});
            let key = format!("/calico/resources/v3/projectcalico.org/nodes/{}", host.name());
            let block = format!("/calico/ipam/v2/host/{}/ipv4/block/10.65.1.0-26", host.name());
            let objects = format!("{key}\t{node}\n{block}\t{{\"state\":\"confirmed\"}}\n");
            let objects = host.write("objects.txt", &objects)?;
            Ok(format!(
                "[calico]\nnode = \"{}\"\ndatastore = \"file\"\npath = \"{}\"\n\
                 endpoint-status = \"{}\"\n[control]\nsocket = \"{}\"\n",
                host.name(),
                objects.display(),
                host.file("status").display(),
                host.file(control).display(),
            ))
        };
        let first = start_with_run(&a, "-orw", "first", &text(&a, "margay.sock")?)?;
        let root = format!("/proc/{}/root/run/calico", first.pid());
        for socket in ["bird.ctl", "bird6.ctl"].map(|name| Path::new(&root).join(name)) {
            wait_until(PATIENCE, "an answer of BIRD's socket", || {
                ask(&socket, "show status", "0013").map(drop)
            })?;
        }
        let second = a.write("second.toml", &text(&a, "second.sock")?)?;
        let pid = first.pid().to_string();
        let mut command = a.command("nsenter");
        command.args(["--mount", "--target", &pid]).arg(binary()?);
        let output = command.args(["run", "--config"]).arg(second).stdin(Stdio::null()).output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "{:?}: {said}", output.status);
        let wanted = "margay: another process is listening on /var/run/calico/bird.ctl; stop it, or \
                      set another bird-sockets\n";
        ensure!(said == wanted, "{said}");

        let mut without = start_with_run(&b, "-oro", "without", &text(&b, "margay.sock")?)?;
        wait_until(PATIENCE, "the block of a node without BIRD's sockets", || {
            ensure!(without.exited()?.is_none(), "it ended: {}", without.output());
            ensure!(kernel::route(&b, "10.65.1.0/26")?.is_some(), "not there");
            Ok(())
        })?;
        let lines = without.output();
        let lines: Vec<&str> = lines.lines().filter(|line| line.contains("bird.ctl")).collect();
        ensure!(lines.len() == 1 && lines[0].contains("WARN"), "{lines:?}");
        ensure!(lines[0].contains("/var/run/calico/bird6.ctl"), "{lines:?}");
        Ok(())
    })
}

/// A root file system like calico-node's, with `examples/calico-node/rootfs` over it and runsvdir
/// as its first process, in mount and PID namespaces of its own.
struct Container {
    daemon: Daemon,
    /// The process with PID 1 inside.
    init: u32,
}

impl Container {
    fn start(host: &Host, cluster: &Cluster) -> Result<Self> {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/calico-node/rootfs");
        let dir = host.file("container");
        std::fs::create_dir_all(&dir)?;
        // As start_runit and rc.local do. overlayfs refuses layers that are part of one another, so
        // the image is copied to a file system of its own.
        let script = r#"
            mount -t tmpfs tmpfs "$1"
            cd "$1"
            cp -a "$2" image
            cp "$3" image/usr/bin/margay
            mkdir upper work root
            mount -t overlay overlay -o "lowerdir=image:/,upperdir=upper,workdir=work" root
            mount --rbind /dev root/dev
            mount -t proc proc root/proc
            mount -t tmpfs tmpfs root/run
            mkdir -p root/run/calico root/var/lib/calico root/etc/service/enabled
            echo "$NODENAME" > root/var/lib/calico/nodename
            for service in bird bird6 confd; do
                cp -a "root/etc/service/available/$service" root/etc/service/enabled/
            done
            exec chroot root runsvdir -P /etc/service/enabled
        "#;
        let mut command = host.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script, "sh"]);
        command.arg(&dir).arg(&example).arg(binary()?).env_clear();
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("NODENAME", host.name()).env("ETCD_ENDPOINTS", cluster.etcd.url());
        let daemon = Daemon::start(command, &host.file("container.log"))?;
        let init = wait_until(PATIENCE, "the container's first process", || {
            let pid = daemon.pid();
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            Ok(children.trim().parse()?)
        })?;
        Ok(Self { daemon, init })
    }

    /// The path outside of a path inside.
    fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Runs a program inside and returns what it printed.
    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let init = self.init.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &init, "-m", "-p", "-r", "-w", program]).args(args);
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        printed(&mut command)
    }

    /// The first argument of every process inside, as calicoctl's library reads it.
    fn names(&self) -> Result<Vec<(u32, String)>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path("/proc"))? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let name = line.split(|octet| *octet == 0).next().unwrap_or_default();
            names.push((pid, String::from_utf8_lossy(name).into_owned()));
        }
        Ok(names)
    }

    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.names()?.iter().any(|(_, of)| of == name))
    }

    /// calico-node's `-bird-live` and `-bird6-live`.
    fn is_live(&self) -> Result<()> {
        for service in ["confd", "bird", "bird6"] {
            let status = self.run("sv", &["status", &format!("/etc/service/enabled/{service}")])?;
            ensure!(status.starts_with("run"), "{service}: {status}");
        }
        for socket in ["/var/run/calico/bird.ctl", "/var/run/calico/bird6.ctl"] {
            let text = self.run("/bin/birdcl", &["-s", socket, "show", "status"])?;
            ensure!(text.starts_with("BIRD"), "{socket}: {text}");
        }
        Ok(())
    }

    /// calico-node's `-bird-ready` with a young nodename file: the strict rule.
    fn is_ready(&self, socket: &Path, separator: &str) -> Result<()> {
        std::fs::metadata(self.path("/var/lib/calico/nodename"))?;
        let sessions = ask(socket, "show protocols", "0000")?;
        let sessions = readers::sessions(&sessions, separator).map_err(text_error)?;
        for session in &sessions {
            let state = session.info.split(' ').next();
            ensure!(state == Some("Established"), "{session:?}");
        }
        let status = ask(socket, "show status", "0013")?;
        ensure!(!readers::is_restarting(&status).map_err(text_error)?, "{status}");
        Ok(())
    }
}

/// The drop-in of `examples/calico-node`, queried as each of Calico's tools does.
#[test]
#[ignore = "needs root, etcd, BIRD's clients and runit"]
fn a_node_with_margay_in_birds_place_looks_healthy_to_all_tools() -> Result<()> {
    run("calico-dropin", &["runsvdir", "sv", "unshare", "nsenter"], |lab| {
        let cluster = Cluster::start(lab)?;
        let (a, b) = (cluster.node(lab, "a", 1)?, cluster.node(lab, "b", 2)?);
        let spec = json!({"peerIP": "10.99.0.77", "asNumber": 64777});
        let container = Container::start(&a, &cluster)?;
        let _nb = MargayNode::from_environment(&b, &cluster)?;
        let sockets =
            ["bird.ctl", "bird6.ctl"].map(|name| container.path(&format!("/run/calico/{name}")));
        let ready = || {
            container.is_ready(&sockets[0], ".")?;
            container.is_ready(&sockets[1], ":")
        };
        wait_until(PATIENCE, "the liveness probe", || container.is_live())?;
        kernel::wait_gateways(&a, "10.65.2.0/26", &[b.v4().to_string()])?;
        wait_until(PATIENCE, "the strict readiness probe", ready)?;

        // calicoctl node status.
        for name in ["bird", "bird6"] {
            ensure!(container.has(name)?, "no process {name}: {:?}", container.names()?);
        }
        let sessions = readers::sessions(&ask(&sockets[0], "show protocols", "0000")?, ".");
        let sessions = sessions.map_err(text_error)?;
        let [session] = sessions.as_slice() else { bail!("{sessions:?}") };
        let wanted = ("Mesh", b.v4().to_string(), "up", "Established");
        let shown = (
            session.kind.as_str(),
            session.peer_ip.clone(),
            session.state.as_str(),
            session.info.as_str(),
        );
        ensure!(shown == wanted, "{session:?}");

        // CalicoNodeStatus: agent, bgp, routes, of both sockets.
        for socket in &sockets {
            let agent = readers::agent(&ask(socket, "show status", "0013")?);
            ensure!(agent.ready && agent.version == "v0.3.3+birdv1.6.8", "{agent:?}");
            ensure!(agent.router_id == a.v4().to_string(), "{agent:?}");
        }
        let details = ask(&sockets[0], &format!("show protocols all {}", session.name), "0000")?;
        let details = readers::details(&details).map_err(text_error)?;
        ensure!(details == ("Established".to_owned(), b.v4().to_string()), "{details:?}");
        let routes = readers::routes(&ask(&sockets[0], "show route", "0000")?, ".");
        let routes = routes.map_err(text_error)?;
        let block = routes.iter().find(|route| route.destination == "10.65.2.0/26");
        let block = block.with_context(|| format!("{routes:?}"))?;
        ensure!(
            block.is_fib && block.source == "NodeMesh" && block.interface == "eth0",
            "{block:?}"
        );
        readers::routes(&ask(&sockets[1], "show route", "0000")?, ":").map_err(text_error)?;

        // A peer that never comes up: not ready by the strict rule, and still live.
        cluster.put("bgppeers", "BGPPeer", "nowhere", &spec)?;
        wait_until(PATIENCE, "the session that never comes up", || {
            let answer = ask(&sockets[0], "show protocols", "0000")?;
            let sessions = readers::sessions(&answer, ".").map_err(text_error)?;
            let found = sessions.iter().find(|s| s.name == "Global_10_99_0_77");
            ensure!(found.is_some_and(|s| s.state == "start"), "{answer}");
            Ok(())
        })?;
        ensure!(ready().is_err(), "ready with a session that is not established");
        container.is_live()?;
        cluster.delete("bgppeers", "nowhere")?;
        wait_until(PATIENCE, "readiness without it", ready)?;
        survives_a_crash(&container, &ready, &a)
    })
}

/// When margay is killed, runit restarts it, and it replaces its own stale sockets.
fn survives_a_crash(
    container: &Container,
    ready: &dyn Fn() -> Result<()>,
    host: &Host,
) -> Result<()> {
    let bird = |container: &Container| -> Result<u32> {
        let names = container.names()?;
        let found = names.iter().find(|(_, name)| name == "bird").map(|(pid, _)| *pid);
        found.context("no process bird")
    };
    let before = bird(container)?;
    container.run("kill", &["-KILL", &before.to_string()])?;
    wait_until(PATIENCE, "another process bird", || {
        let after = bird(container)?;
        ensure!(after != before, "not started again");
        container.is_live()
    })?;
    ensure!(kernel::route(host, "10.65.2.0/26")?.is_some(), "the kernel lost a route");
    wait_until(PATIENCE, "readiness after a crash", ready)?;
    ensure!(!container.daemon.output().contains("panicked"), "{}", container.daemon.output());
    Ok(())
}
