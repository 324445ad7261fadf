//! VRFs of one margay: the same addresses and the same prefix in each, under a kernel that has VRFs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interop::daemon::Daemon;
use interop::full_kernel;
use interop::lab::{self, Host, Lab, run_command};
use interop::margay::{self, Control};
use interop::speaker::Kind;
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::Value;

/// The prefix that every neighbour announces.
const SHARED: &str = "203.0.113.0/24";
/// Slow enough for a busy machine.
const BFD: &str = "{ min-tx = 500, min-rx = 500, multiplier = 10 }";
/// In which nothing that must not happen has happened.
const QUIET: Duration = Duration::from_secs(1);

/// A VRF of the daemon: its name in margay, its table, and what only its neighbour announces.
struct Side {
    vrf: &'static str,
    table: &'static str,
    own: &'static str,
}

const DEFAULT: Side = Side { vrf: "", table: "main", own: "198.51.100.1/32" };
const BLUE: Side = Side { vrf: "blue", table: "100", own: "198.51.100.2/32" };
const RED: Side = Side { vrf: "red", table: "200", own: "198.51.100.3/32" };
const SIDES: [Side; 3] = [DEFAULT, BLUE, RED];

impl Side {
    /// The arguments of a command about it.
    fn args<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        let vrf = ["--vrf", self.vrf];
        command.iter().copied().chain(vrf.into_iter().filter(|_| !self.vrf.is_empty())).collect()
    }

    fn peer(&self) -> String {
        if self.vrf.is_empty() { "192.0.2.2".into() } else { format!("{}-192.0.2.2", self.vrf) }
    }

    fn interface(&self) -> String {
        format!("u-{}", if self.vrf.is_empty() { "main" } else { self.vrf })
    }

    /// Makes the VRF's device and puts its interface into it, which loses no IPv4 address.
    fn make(&self, host: &Host) -> Result<()> {
        let Side { vrf, table, .. } = self;
        let interface = self.interface();
        host.shell(&format!(
            "ip link add {vrf} type vrf table {table}; ip link set {vrf} up; \
             ip link set {interface} master {vrf}; ip link set {interface} up"
        ))?;
        Ok(())
    }

    /// Deletes the device. The interface would be in the default VRF then, where its neighbour has the
    /// address of another.
    fn delete(&self, host: &Host) -> Result<()> {
        let interface = self.interface();
        host.shell(&format!("ip link set {interface} down; ip link del {}", self.vrf))?;
        Ok(())
    }
}

/// What a command prints.
fn text(control: &Control, args: &[&str]) -> Result<String> {
    full_kernel::ask(control, args)
}

/// Stops margay such that routes stay. If the answer is lost, the next request finds it stopping.
fn stop(control: &Control, daemon: Daemon) -> Result<()> {
    match text(control, &["stop", "--graceful"]) {
        Err(error) if !error.to_string().contains("the daemon is stopping") => return Err(error),
        _ => drop(daemon),
    }
    Ok(())
}

fn json(control: &Control, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&text(control, &[args, &["--json"]].concat())?)?)
}

fn peer(control: &Control, name: &str) -> Result<Value> {
    let peers = json(control, &["show", "peers"])?;
    let found = peers.as_array().into_iter().flatten().find(|peer| peer["name"] == name);
    found.cloned().with_context(|| format!("no peer {name} in {peers}"))
}

fn established(control: &Control, side: &Side) -> Result<()> {
    let peer = peer(control, &side.peer())?;
    ensure!(peer["state"] == "Established", "{}", peer);
    let vrf = peer["vrf"].as_str().unwrap_or_default();
    ensure!(vrf == side.vrf, "it is in {vrf}");
    ensure!(peer["bfd"] == "Up", "BFD: {}", peer["bfd"]);
    Ok(())
}

/// A BFD session for each side, with the same addresses: how often each has failed.
fn bfd(control: &Control) -> Result<Vec<Value>> {
    let sessions = json(control, &["show", "bfd"])?;
    let sessions = sessions.as_array().context("a list")?;
    let mut failures = Vec::new();
    for side in &SIDES {
        let vrf = |session: &&Value| session["vrf"].as_str().unwrap_or_default() == side.vrf;
        let of_side = |session: &&Value| session["peers"][0] == side.peer().as_str();
        let found: Vec<&Value> = sessions.iter().filter(of_side).filter(vrf).collect();
        ensure!(found.len() == 1 && found[0]["address"] == "192.0.2.2", "{sessions:?}");
        ensure!(found[0]["state"] == "Up" && found[0]["error"].is_null(), "{found:?}");
        failures.push(found[0]["failures"].clone());
    }
    Ok(failures)
}

/// Destinations of our routes in a table of the kernel.
fn routed(host: &Host, side: &Side) -> Result<Vec<String>> {
    // The kernel refuses to list a table that has never had a route.
    let show = ["route", "show", "table", side.table, "proto", "bird"];
    let text = host.run("ip", &show).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with(char::is_whitespace));
    let first = lines.filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<String> = first.map(str::to_owned).collect();
    found.sort();
    Ok(found)
}

/// A probe finds the peer of the VRF, whose address others have too, and its interface.
fn probed(control: &Control, side: &Side) -> Result<()> {
    let answer = json(control, &side.args(&["probe", "192.0.2.2"]))?;
    ensure!(answer["peer"] == side.peer().as_str(), "{answer}");
    let steps = answer["steps"].as_array().context("steps")?;
    let route = steps.iter().find(|step| step["step"] == "route").context("a route")?;
    let on = format!("directly connected on {}", side.interface());
    ensure!(route["text"].as_str().is_some_and(|text| text.ends_with(&on)), "{answer}");
    let tcp = steps.iter().find(|step| step["step"] == "tcp").context("TCP")?;
    ensure!(tcp["result"] == "skipped", "{answer}");
    Ok(())
}

/// The routes of a side's neighbour are in its tables and nowhere else.
fn separate(host: &Host, control: &Control, side: &Side) -> Result<()> {
    established(control, side)?;
    let own = side.own.trim_end_matches("/32");
    let found = routed(host, side)?;
    ensure!(found == [own, SHARED], "table {} has {found:?}", side.table);
    let prefixes = |command: &str| -> Result<Vec<String>> {
        let routes = json(control, &side.args(&["show", command]))?;
        let routes = routes.as_array().context("a list")?.clone();
        Ok(routes.iter().map(|route| route["prefix"].as_str().unwrap_or("?").into()).collect())
    };
    ensure!(prefixes("routes")? == [side.own, SHARED], "routes: {:?}", prefixes("routes")?);
    ensure!(prefixes("fib")? == [side.own, SHARED], "fib: {:?}", prefixes("fib")?);
    let explained = text(control, &side.args(&["explain", SHARED]))?;
    ensure!(explained.contains(&side.peer()), "{explained}");
    let there = host.run("ip", &["route", "show", "table", side.table, SHARED])?;
    ensure!(there.contains(&side.interface()), "{there}");
    Ok(())
}

fn config(host: &Host) -> String {
    less_of(host, &[])
}

/// The configuration without these VRFs.
fn less_of(host: &Host, left: &[&Side]) -> String {
    let is_in = |side: &&Side| !left.iter().any(|left| left.vrf == side.vrf);
    let mut text = String::from(
        "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\nconnect-retry-time = 1\n\
         [fib]\nprotocol = 12\n",
    );
    for side in [&BLUE, &RED].into_iter().filter(is_in) {
        text += &format!("[[vrfs]]\nname = \"{}\"\n", side.vrf);
    }
    for side in SIDES.iter().filter(is_in) {
        let vrf = match side.vrf {
            "" => String::new(),
            vrf => format!("vrf = \"{vrf}\"\n"),
        };
        // What it accepts is not taken for the peer of a VRF that does not exist yet.
        let passive = side.vrf != BLUE.vrf;
        text += &format!(
            "[[bgp.peers]]\n{vrf}address = \"192.0.2.2\"\nremote-asn = 64600\nimport = \"all\"\n\
             export = \"all\"\npassive = {passive}\nbfd = {BFD}\n"
        );
    }
    text + &margay::control_section(host)
}

/// Blue imports what only red's neighbour announces, and the default VRF everything of blue.
fn leaking(host: &Host) -> String {
    let own = RED.own;
    let policy = format!(
        "[[policy]]\nname = \"reds\"\n[[policy.rules]]\nmatch.prefixes = [\"{own}\"]\nthen = \
         \"accept\"\n"
    );
    let blue = "[[vrfs]]\nname = \"blue\"\n";
    let from = |vrf: &str, policy: &str| {
        format!("import-vrf = [{{ vrf = \"{vrf}\", policy = \"{policy}\" }}]\n")
    };
    config(host)
        .replace(
            "connect-retry-time = 1\n",
            &format!("connect-retry-time = 1\n{}", from("blue", "all")),
        )
        .replace(blue, &format!("{blue}{}", from("red", "reds")))
        + &policy
}

/// The neighbour of a side, with the same address as those of the others.
fn neighbour(lab: &mut Lab, x: &Host, side: &Side, bird: bool) -> Result<(Host, Daemon)> {
    let interface = side.interface();
    let host = lab.host(if side.vrf.is_empty() { "main" } else { side.vrf })?;
    lab.wire((x, &interface), (&host, "u0"))?;
    x.run("ip", &["addr", "add", "192.0.2.1/24", "dev", &interface])?;
    host.run("ip", &["addr", "add", "192.0.2.2/24", "dev", "u0"])?;
    let own = side.own;
    if bird {
        let text = format!(
            "router id 10.0.0.2;\nprotocol device {{}}\nprotocol static {{ ipv4; route {SHARED} \
             blackhole; route {own} blackhole; }}\nprotocol bgp x {{ local as 64600; neighbor \
             192.0.2.1 as 64512; connect retry time 1; connect delay time 1; error wait time 1, 2; \
             ipv4 {{ import all; export where source = RTS_STATIC; }}; allow local as 1; bfd on; }}\nprotocol bfd {{ interface \"*\" {{ \
             min rx interval 500 ms; min tx interval 500 ms; multiplier 10; }}; }}\n"
        );
        let conf = host.write("bird.conf", &text)?.display().to_string();
        let socket = host.file("bird.ctl").display().to_string();
        let daemon = host.daemon("bird", "bird", &["-f", "-c", &conf, "-s", &socket])?;
        return Ok((host, daemon));
    }
    let text = format!(
        "[bgp]\nasn = 64600\nrouter-id = \"10.0.0.2\"\nconnect-retry-time = 1\n[fib]\nenabled = \
         false\n[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 64512\nimport = \"all\"\n\
         export = \"all\"\nbfd = {BFD}\n[[originate]]\nprefix = \"{SHARED}\"\n[[originate]]\nprefix = \
         \"{own}\"\n{}",
        margay::control_section(&host)
    );
    let (daemon, _) = margay::start_text(&host, &text)?;
    Ok((host, daemon))
}

/// A neighbour without addresses, behind an interface of blue.
fn unnumbered(lab: &mut Lab, x: &Host) -> Result<(Host, Daemon)> {
    let host = lab.host("six")?;
    lab.wire((x, "v-blue"), (&host, "v0"))?;
    x.run("ip", &["link", "set", "v-blue", "master", "blue"])?;
    let text = format!(
        "[bgp]\nasn = 64600\nrouter-id = \"10.0.0.6\"\nconnect-retry-time = 1\n[fib]\nenabled = \
         false\n[[bgp.peers]]\ninterface = \"v0\"\nrouter-advertisements = true\nremote-asn = \
         64512\nimport = \"all\"\nexport = \"all\"\nbfd = {BFD}\n{}",
        margay::control_section(&host)
    );
    let (daemon, _) = margay::start_text(&host, &text)?;
    Ok((host, daemon))
}

/// The peer by interface that [`unnumbered`] is the neighbour of, for the configuration.
fn by_interface() -> String {
    format!(
        "[[bgp.peers]]\nvrf = \"blue\"\ninterface = \"v-*\"\nrouter-advertisements = true\n\
         remote-asn = 64600\nimport = \"none\"\nexport = \"all\"\nbfd = {BFD}\n"
    )
}

/// Routes are where the imports of [`leaking`] want them, and nowhere else.
fn leaked(x: &Host, control: &Control) -> Result<()> {
    let net = |side: &Side| side.own.trim_end_matches("/32").to_owned();
    let [own, blue, red] = SIDES.each_ref().map(net);
    let tables = [
        (&DEFAULT, vec![own, blue.clone(), SHARED.to_owned()]),
        (&BLUE, vec![blue, red.clone(), SHARED.to_owned()]),
        // What blue imports is not passed on, and red imports nothing.
        (&RED, vec![red, SHARED.to_owned()]),
    ];
    for (side, wanted) in tables {
        let found = routed(x, side)?;
        ensure!(found == wanted, "table {} has {found:?}", side.table);
    }
    // The next hop is that of the VRF the route comes from.
    let route = x.run("ip", &["route", "show", "table", BLUE.table, RED.own])?;
    ensure!(route.contains("via 192.0.2.2 dev u-red"), "{route}");
    let explained = text(control, &BLUE.args(&["explain", RED.own]))?;
    ensure!(explained.contains("imported from VRF red"), "{explained}");
    // Own routes win over imported ones.
    let shared = text(control, &["explain", SHARED])?;
    ensure!(shared.contains("imported from VRF blue"), "{shared}");
    let there = x.run("ip", &["route", "show", "table", "main", SHARED])?;
    ensure!(there.contains("dev u-main"), "{there}");
    Ok(())
}

fn leaks(x: &Host, control: &Control, blue: &Host) -> Result<()> {
    let file = x.file("margay.toml");
    let reload = |config: String| {
        std::fs::write(&file, config)?;
        text(control, &["reload"])
    };
    reload(leaking(x))?;
    wait_until(PATIENCE, "imported", || leaked(x, control))?;
    let socket = blue.file("bird.ctl").display().to_string();
    wait_until(PATIENCE, "announced", || {
        let shown = blue.run("birdc", &["-s", &socket, "show", "route", "for", RED.own, "all"])?;
        // From there it came over another VRF: we are the next hop.
        ensure!(shown.contains("BGP.as_path: 64512 64600"), "{shown}");
        ensure!(shown.contains("BGP.next_hop: 192.0.2.1"), "{shown}");
        Ok(())
    })?;
    holds_for(QUIET, "no loops", || leaked(x, control))?;
    // Withdrawals follow, and a VRF that goes takes its routes with it.
    RED.delete(x)?;
    wait_until(PATIENCE, "withdrawn from blue", || {
        let found = routed(x, &BLUE)?;
        let why =
            || text(control, &BLUE.args(&["explain", RED.own])).unwrap_or_else(|e| e.to_string());
        let kernel = x.run("ip", &["route", "show", "table", BLUE.table])?;
        let is_left = |prefix: &String| RED.own.starts_with(prefix.as_str());
        ensure!(!found.iter().any(is_left), "{kernel}\n{}", why());
        established(control, &BLUE)
    })?;
    RED.make(x)?;
    wait_until(PATIENCE, "imported again", || leaked(x, control))?;
    // A policy that changes, and imports that go.
    reload(leaking(x).replace("policy = \"reds\"", "policy = \"none\""))?;
    wait_until(PATIENCE, "refused by the policy", || {
        let found = routed(x, &BLUE)?;
        ensure!(found.len() == 2, "{found:?}");
        Ok(())
    })?;
    reload(leaking(x))?;
    wait_until(PATIENCE, "accepted again", || leaked(x, control))?;
    reload(config(x))?;
    wait_until(PATIENCE, "apart again", || all_separate(x, control))
}

fn all_separate(x: &Host, control: &Control) -> Result<()> {
    SIDES.iter().try_for_each(|side| separate(x, control, side))
}

fn vrfs(lab: &mut Lab) -> Result<()> {
    let x = lab.host("x")?;
    let mut neighbours = Vec::new();
    for (side, bird) in SIDES.iter().zip([false, true, false]) {
        neighbours.push(neighbour(lab, &x, side, bird)?);
    }
    let blue = &neighbours[1].0;
    // RED comes later, and is waited for.
    x.run("ip", &["link", "set", &RED.interface(), "down"])?;
    BLUE.make(&x)?;
    let (daemon, control) = margay::start_text(&x, &config(&x))?;
    wait_until(PATIENCE, "the default VRF and blue", || {
        separate(&x, &control, &DEFAULT)?;
        separate(&x, &control, &BLUE)
    })?;
    let waits = peer(&control, &RED.peer())?.to_string();
    ensure!(waits.contains("there is no VRF red"), "{waits}");
    RED.make(&x)?;
    wait_until(PATIENCE, "red beside them", || all_separate(&x, &control))?;
    holds_for(QUIET, "no leaks", || all_separate(&x, &control))?;
    SIDES.iter().try_for_each(|side| probed(&control, side))?;
    let failures = bfd(&control)?;
    holds_for(QUIET, "BFD does not mix", || {
        let now = bfd(&control)?;
        ensure!(now == failures, "{failures:?} were {now:?}");
        Ok(())
    })?;
    leaks(&x, &control, blue)?;
    let blue = json(&control, &["show", "peers", "--vrf", "blue"])?;
    ensure!(blue.as_array().is_some_and(|peers| peers.len() == 1), "{blue}");
    ensure!(text(&control, &["show", "routes", "--vrf", "green"]).is_err(), "there is no green");

    // A VRF that is deleted takes its session with it, and no other.
    BLUE.delete(&x)?;
    wait_until(PATIENCE, "blue is gone", || {
        let waits = peer(&control, &BLUE.peer())?.to_string();
        ensure!(waits.contains("there is no VRF blue"), "{waits}");
        separate(&x, &control, &RED)?;
        separate(&x, &control, &DEFAULT)
    })?;
    BLUE.make(&x)?;
    wait_until(PATIENCE, "blue is back", || all_separate(&x, &control))?;

    // A session is not bound to an interface of another VRF.
    let file = x.file("margay.toml");
    let bound = |to: &str| {
        let bound = format!("vrf = \"blue\"\nbind-interface = \"{to}\"\n");
        std::fs::write(&file, config(&x).replace("vrf = \"blue\"\n", &bound))?;
        text(&control, &["reload"])
    };
    bound("u-red")?;
    wait_until(PATIENCE, "blue is idle", || {
        let idle = peer(&control, &BLUE.peer())?.to_string();
        ensure!(idle.contains("bind-interface u-red is not in VRF blue"), "{idle}");
        separate(&x, &control, &RED)
    })?;
    // Nor is one that the neighbour opens over another interface of its VRF.
    x.shell(
        "ip link add w-blue type dummy; ip link set w-blue master blue; ip link set w-blue up",
    )?;
    bound("w-blue")?;
    let log = x.file("margay.log");
    wait_until(PATIENCE, "the neighbour's connection is refused", || {
        let log = std::fs::read_to_string(&log)?;
        let reason = "it came over another interface than the peer's bind-interface";
        ensure!(log.contains(reason), "{log}");
        Ok(())
    })?;
    bound("u-blue")?;
    wait_until(PATIENCE, "blue is bound to its own", || all_separate(&x, &control))?;

    // A neighbour found on an interface of blue.
    let six = unnumbered(lab, &x)?;
    std::fs::write(&file, config(&x) + &by_interface())?;
    text(&control, &["reload"])?;
    wait_until(PATIENCE, "the neighbour by interface", || {
        let found = peer(&control, "v-blue")?;
        ensure!(found["state"] == "Established" && found["vrf"] == "blue", "{found}");
        ensure!(found["bfd"] == "Up", "{found}");
        separate(&x, &control, &BLUE)
    })?;
    drop(six);

    restarts(&x, daemon, &control)
}

/// Restarts with and without the VRFs.
fn restarts(x: &Host, daemon: Daemon, control: &Control) -> Result<()> {
    // A planned restart keeps the routes of all, also with sockets that hear more than their VRF.
    for protocol in ["tcp", "udp"] {
        x.run("sysctl", &["-w", &format!("net.ipv4.{protocol}_l3mdev_accept=1")])?;
    }
    stop(control, daemon)?;
    for side in &SIDES {
        let kept = routed(x, side)?;
        ensure!(kept.len() == 2, "{kept:?} in table {} after the stop", side.table);
    }
    let (daemon, control) = margay::start_text(x, &config(x))?;
    wait_until(PATIENCE, "all are back after the restart", || all_separate(x, &control))?;
    let log = std::fs::read_to_string(x.file("margay.log"))?;
    ensure!(log.contains("net.ipv4.tcp_l3mdev_accept is 1"), "{log}");
    ensure!(!log.contains("cannot listen"), "{log}");

    // With 1, what comes in a VRF that is left out counts as the default VRF's, and the neighbours there
    // have the same addresses.
    for protocol in ["tcp", "udp"] {
        x.run("sysctl", &["-w", &format!("net.ipv4.{protocol}_l3mdev_accept=0")])?;
    }

    // A reload that leaves red out ends it, and removes its routes.
    std::fs::write(x.file("margay.toml"), less_of(x, &[&RED]))?;
    text(&control, &["reload"])?;
    wait_until(PATIENCE, "red is left", || {
        let left = routed(x, &RED)?;
        ensure!(left.is_empty(), "{left:?}");
        separate(x, &control, &BLUE)?;
        separate(x, &control, &DEFAULT)
    })?;

    // So does a start without blue.
    stop(&control, daemon)?;
    ensure!(routed(x, &BLUE)?.len() == 2, "the stop keeps routes");
    let blue = less_of(x, &[&BLUE, &RED]);
    let (_daemon, control) = margay::start_text(x, &blue)?;
    wait_until(PATIENCE, "blue is left", || {
        let left = routed(x, &BLUE)?;
        ensure!(left.is_empty(), "{left:?}");
        separate(x, &control, &DEFAULT)
    })
}

#[test]
#[ignore = "needs root, BIRD 2, a full kernel (interop/setup.sh vm)"]
fn vrfs_do_not_leak_and_come_and_go() {
    let inside = || {
        run_command(Command::new("modprobe").arg("vrf"))?;
        lab::run("vrfs", &[Kind::Bird2], vrfs)
    };
    full_kernel::run("vrfs_do_not_leak_and_come_and_go", inside).unwrap();
}
