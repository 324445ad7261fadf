//! `margay calico doctor` with a real BIRD 1.6.8 in charge, or margay. It must find no change where
//! there is none, and each unsafe condition, which is created by hand, one at a time.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use interop::bird2::birdc;
use interop::calico::{
    BirdNode, Cluster, MargayNode, Scenario, Stage, WITHOUT_PASSWORD, environment, session_name,
};
use interop::doctor::{self, Verdict};
use interop::lab::{self, Host, Lab};
use interop::speaker::Kind;
use interop::wait::{PATIENCE, wait_until};
use interop::{kernel, require};
use serde_json::{Value, json};

/// Scenarios that run at once: they mostly wait for BIRD's timers.
const PARALLEL: usize = 6;

/// Scenarios whose objects leave a class of pools without an owner of its routes.
const WITHOUT_OWNER: [&str; 1] = ["mesh__restart-time__pcr-disabled"];

const PROGRAMS: &[&str] = &["etcd", "etcdctl", "python3", "nft", "setpriv", "unshare"];
/// A release whose BGP writes the routes of pools without encapsulation.
const RELEASE: &str = "v3.32.1";

#[test]
#[ignore = "needs root, BIRD 1.6 and MARGAY_SHARED"]
fn shared_data_nothing_changes_where_golden_birds_run() -> Result<()> {
    Scenario::with_golden(&require::shared()?, examine_all)
}

#[test]
#[ignore = "needs root and BIRD 1.6"]
fn own_objects_nothing_changes() -> Result<()> {
    Scenario::with_own(examine_all)
}

/// Runs the doctor on each: it must find no change, except where the objects are unsafe.
fn examine_all(mut scenarios: Vec<Scenario>) -> Result<()> {
    require::margay_as_subject()?;
    let only = std::env::var("DOCTOR_ONLY").ok();
    scenarios.retain(|s| only.as_ref().is_none_or(|only| s.name.contains(only.as_str())));
    Scenario::run_each(&scenarios, PARALLEL, |scenario, lab| {
        let Some(stage) = Stage::set_up(lab, scenario)? else {
            println!("{}: no neighbours", scenario.name);
            return Ok(());
        };
        let verdict = stage.examine_bird()?;
        println!("{}: {}", scenario.name, verdict.json["compared"]);
        let unsafe_by = |names: &[&str], parts: &[&str]| {
            let is_one = names.contains(&scenario.name.as_str());
            is_one.then(|| verdict.expect(2)?.says(parts).map(drop))
        };
        let unsafe_one =
            unsafe_by(&WITHOUT_PASSWORD, &["unsafe session", "MD5 key cannot be read"])
                .or_else(|| unsafe_by(&WITHOUT_OWNER, &["nobody writes the kernel routes"]));
        if let Some(result) = unsafe_one {
            return result;
        }
        let compared = &verdict.json["compared"];
        ensure!(compared["sessions"] != 0, "nothing was compared: {compared}");
        verdict.expect(0).map(drop)
    })
}

/// A cluster of a, which runs margay, and b and c, which run BIRD as confd configures it.
struct Mesh {
    cluster: Cluster,
    a: Host,
    b: Host,
    c: Host,
    _na: MargayNode,
    nb: BirdNode,
    _nc: BirdNode,
}

impl Mesh {
    fn start(lab: &mut Lab) -> Result<Self> {
        let cluster = Cluster::start(lab)?;
        let information = json!({"calicoVersion": RELEASE, "datastoreReady": true});
        cluster.put("clusterinformations", "ClusterInformation", "default", &information)?;
        let nodes = [("a", 1), ("b", 2), ("c", 3)];
        let [a, b, c] = nodes.map(|(name, number)| cluster.node(lab, name, number));
        let (a, b, c) = (a?, b?, c?);
        let na = MargayNode::from_environment(&a, &cluster)?;
        let nb = BirdNode::start(&b, &[&a, &c], &["10.65.2.0/26"])?;
        let nc = BirdNode::start(&c, &[&a, &b], &["10.65.3.0/26"])?;
        nb.wait_session(&a)?;
        nb.wait_session(&c)?;
        for (number, gateway) in [(1, &a), (3, &c)] {
            let prefix = format!("10.65.{number}.0/26");
            kernel::wait_gateways(&b, &prefix, &[gateway.v4().to_string()])?;
        }
        Ok(Self { cluster, a, b, c, _na: na, nb, _nc: nc })
    }

    /// The doctor on b, with the environment that margay would have there.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = doctor::command(&self.b, arguments)?;
        command.envs(self.environment());
        Ok(command)
    }

    fn environment(&self) -> Vec<(String, String)> {
        let [v4, v6] = self.sockets();
        environment(&self.b, &self.cluster, &format!("{},{}", v4.display(), v6.display()))
    }

    fn sockets(&self) -> [PathBuf; 2] {
        [self.b.file("bird.ctl"), self.b.file("bird6.ctl")]
    }

    fn examine(&self) -> Result<Verdict> {
        doctor::examine(&mut self.command(&[])?)
    }

    /// Waits until the doctor exits with this code, as BIRD scans the kernel only every two
    /// seconds.
    fn settles(&self, code: i32) -> Result<Verdict> {
        wait_until(PATIENCE, &format!("exit code {code}"), || {
            let verdict = self.examine()?;
            verdict.expect(code)?;
            Ok(verdict)
        })
    }

    /// As [`Mesh::examine`], with b's files mounted over `/etc`, after these shell commands.
    fn examine_within(&self, words: &str) -> Result<Verdict> {
        let etc = self.b.file("etc").display().to_string();
        let mut command = self.b.command("unshare");
        command.args(["-m", "sh", "-ec"]);
        command.arg(format!("mount --bind {etc} /etc; {words} exec \"$@\""));
        let program = interop::margay::binary()?;
        command.arg("sh").arg(program).args(["calico", "doctor"]).envs(self.environment());
        doctor::examine(&mut command)
    }
}

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird16], PROGRAMS, test)
}

/// A node changes from BIRD to margay and back: the doctor finds no change, whichever is in charge.
#[test]
#[ignore = "needs root, etcd and BIRD 1.6"]
fn nothing_changes_before_and_after_the_change_over() -> Result<()> {
    run("doctor-change", |lab| {
        let mut mesh = Mesh::start(lab)?;
        let verdict = mesh.settles(0)?;
        let compared = &verdict.json["compared"];
        ensure!(*compared == json!({"sessions": 2, "prefixes": 1, "routes": 3}), "{compared}");
        ensure!(verdict.json["verdict"] == "unchanged", "{}", verdict.json);
        let who = verdict.json["in_charge"][0].as_str().context("nobody")?.to_owned();
        ensure!(who.contains("bird (pid ") && who.contains("2 of 2 sessions up"), "{who}");
        let text = lab::run_command(&mut mesh.command(&[])?)?;
        ensure!(text.ends_with("go: nothing changes\n"), "{text}");

        mesh.nb.daemon().crash()?;
        let (mut nb, _) = MargayNode::with_bird_sockets(&mesh.b, &mesh.cluster)?;
        nb.wait_session(&mesh.a)?;
        wait_until(PATIENCE, "margay in charge", || {
            let verdict = mesh.examine()?;
            verdict.expect(0)?;
            let who = verdict.json["in_charge"].to_string();
            ensure!(who.contains("margay (pid ") && who.contains("2 of 2 sessions up"), "{who}");
            Ok(())
        })?;
        nb.daemon().signal("TERM")?;
        nb.daemon().wait(PATIENCE)?;
        mesh.nb = BirdNode::start(&mesh.b, &[&mesh.a, &mesh.c], &["10.65.2.0/26"])?;
        mesh.settles(0).map(drop)
    })
}

/// Each change is listed with the object that causes it.
#[test]
#[ignore = "needs root, etcd and BIRD 1.6"]
fn changes_are_listed_with_their_objects() -> Result<()> {
    run("doctor-lists", |lab| {
        let mesh = Mesh::start(lab)?;
        mesh.settles(0)?;
        let tor = json!({"peerIP": "10.99.0.77", "asNumber": 65001});
        mesh.cluster.put("bgppeers", "BGPPeer", "tor", &tor)?;
        let verdict = mesh.settles(1)?;
        verdict
            .says(&["change session Global_10_99_0_77 (BGPPeer/tor)", "is new with 10.99.0.77"])?;
        ensure!(verdict.of("change").count() == 1, "{:?}", verdict.lines);
        let text = mesh.command(&[])?.output()?;
        let text = String::from_utf8(text.stdout)?;
        ensure!(
            text.contains("; do: ") && text.contains("go, if these are meant: 1 changes"),
            "{text}"
        );
        mesh.cluster.delete("bgppeers", "tor")?;
        // As if confd were behind: BIRD has one block fewer than the objects say, and one more
        // session.
        mesh.cluster.put_block(&mesh.b, 9)?;
        mesh.cluster.delete("nodes", "c")?;
        let verdict = mesh.settles(1)?;
        verdict.says(&["change prefix 10.65.9.0/26 (a block of this node", "and would be"])?;
        verdict.says(&["change route 10.65.9.0/26", "is not in the kernel today", "blackhole"])?;
        verdict.says(&[&session_name("Mesh", &mesh.c), "no object asks for it: it ends"])?;
        ensure!(verdict.of("change").count() == 3, "{:?}", verdict.lines);
        // The example of docs/src/leaving-bird.md is from here.
        println!("{}", String::from_utf8(mesh.command(&[])?.output()?.stdout)?);
        Ok(())
    })
}

/// A chain that drops what no rule accepts, by its policy or by its last rule. Established sessions
/// stay up, and the next connection would fail.
fn firewall_policies(mesh: &Mesh) -> Result<()> {
    let b = &mesh.b;
    b.shell(
        "nft -f - << 'END'\n\
         table inet locked {\n  chain in {\n    type filter hook input priority 0; policy drop;\n    \
         ct state established,related accept\n    iif lo accept\n    ip protocol icmp accept\n    \
         tcp dport 22 accept\n    jump more\n  }\n  chain more {\n  }\n}\nEND",
    )?;
    let parts = ["unsafe host firewall", "new BGP connections", "chain in of table inet locked"];
    mesh.settles(2)?.says(&parts)?;
    b.shell("nft add rule inet locked more tcp dport 179 accept")?;
    mesh.settles(0)?;
    // Packets of a tunnel count where the tunnel exists.
    b.shell("ip link add vxlan.calico type veth peer name peer; ip link set vxlan.calico up")?;
    mesh.settles(2)?.says(&["pods' packets through VXLAN", "its policy"])?;
    b.shell("nft add rule inet locked more udp dport 4789 accept; ip link delete vxlan.calico")?;
    mesh.settles(0)?;

    b.shell("nft flush chain inet locked more; nft add rule inet locked more reject")?;
    mesh.settles(2)?.says(&["new BGP connections", "its rule \"reject\""])?;
    b.shell("nft delete table inet locked").map(drop)
}

/// Each unsafe condition is created by hand, and reported until it is undone.
#[test]
#[ignore = "needs root, etcd, BIRD 1.6, nftables and util-linux"]
fn unsafe_conditions_are_reported_until_they_are_undone() -> Result<()> {
    run("doctor-unsafe", |lab| {
        let mesh = Mesh::start(lab)?;
        mesh.settles(0)?;
        objects(&mesh)?;
        neighbours(&mesh)?;
        let b = &mesh.b;

        b.shell("echo 0 > /proc/sys/net/ipv4/ip_forward")?;
        mesh.settles(2)?.says(&["unsafe host net.ipv4.ip_forward", "no packet to a pod"])?;
        b.shell("echo 1 > /proc/sys/net/ipv4/ip_forward")?;

        b.shell(
            "nft add table inet t; nft add chain inet t c '{ type filter hook input priority 0; }'; \
             nft add rule inet t c ip saddr 192.0.2.1 tcp dport 179 drop",
        )?;
        mesh.settles(2)?.says(&["unsafe host firewall", "tcp dport 179 drop"])?;
        b.shell("nft delete table inet t")?;

        firewall_policies(&mesh)?;

        let listener = "import socket, time; s = socket.create_server(('', 179)); time.sleep(100)";
        let etcd = &mesh.cluster.etcd;
        let _speaker = etcd.host().daemon("speaker", "python3", &["-c", listener])?;
        let caller = format!(
            "import socket, time\nwhile True:\n try:\n  s = socket.create_connection(('{}', 179)); \
             time.sleep(100)\n except OSError: time.sleep(0.1)",
            etcd.host().v4()
        );
        let mut beside = b.daemon("beside", "python3", &["-c", &caller])?;
        // Its socket may be visible before the process that owns it.
        wait_until(PATIENCE, "the connection beside BIRD's", || {
            let verdict = mesh.examine()?;
            let parts = ["unsafe host port", "python3", "has a BGP connection"];
            verdict.expect(2)?.says(&parts).map(drop)
        })?;
        beside.crash()?;

        let conf = b.write("second.conf", "router id 1.1.1.1;\nprotocol device {\n}\n")?;
        let file = |name: &str| b.file(name).display().to_string();
        let (conf, ctl, pid) = (conf.display().to_string(), file("second.ctl"), file("second.pid"));
        let args = ["-f", "-c", &conf, "-s", &ctl, "-P", &pid];
        let mut second = b.daemon("second", &interop::bird16::program("bird"), &args)?;
        // Debian's BIRD listens at BGP's port as soon as it runs, if the port is free.
        wait_until(PATIENCE, "the second BIRD", || {
            mesh.examine()?
                .says(&["host processes", "bird (pid ", "not the one that answers"])
                .map(drop)
        })?;
        second.crash()?;
        mesh.settles(0).map(drop)
    })
}

fn objects(mesh: &Mesh) -> Result<()> {
    let cluster = &mesh.cluster;
    let configure =
        |spec: &Value| cluster.put("bgpconfigurations", "BGPConfiguration", "default", spec);
    configure(&json!({"programClusterRoutes": "Disabled"}))?;
    let verdict = mesh.settles(2)?;
    verdict.says(&["unsafe datastore objects", "nobody writes the kernel routes"])?;
    verdict.says(&["unsafe route 10.65.0.0/16", "has none for 10.65.1.0/26 and 1 more"])?;
    // Felix writes them as well.
    configure(&json!({"programClusterRoutes": "Enabled"}))?;
    let written = format!("10.65.1.0/26 via {} proto 80", mesh.a.v4());
    mesh.b.shell(&format!("ip route add {written}"))?;
    mesh.settles(2)?.says(&["unsafe route 10.65.0.0/16", "both Felix and BGP", "10.65.1.0/26"])?;
    mesh.b.shell(&format!("ip route del {written}"))?;
    cluster.delete("bgpconfigurations", "default")?;
    let information = |version: &str| {
        let spec = json!({"calicoVersion": version, "datastoreReady": true});
        cluster.put("clusterinformations", "ClusterInformation", "default", &spec)
    };
    information("v9.9.9")?;
    mesh.settles(2)?.says(&["unsafe datastore objects (ClusterInformation/default)", "v9.9.9"])?;
    information(RELEASE)?;
    mesh.settles(0)?;
    configure(&json!({"nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}}}))?;
    mesh.settles(2)?.says(&["unsafe session Mesh_", "(Node/a)", "key \"mesh\" of Secret bgp"])?;
    cluster.delete("bgpconfigurations", "default")?;
    // margay on a follows the objects too.
    mesh.nb.wait_session(&mesh.a)?;
    mesh.settles(0).map(drop)
}

/// BIRD's configuration is edited by hand, and a neighbour no longer offers graceful restart.
fn neighbours(mesh: &Mesh) -> Result<()> {
    let [socket, _] = mesh.sockets();
    let conf = mesh.b.file("bird.conf");
    let written = std::fs::read_to_string(&conf)?;
    let by_hand = "protocol bgp my_tor {\n  local as 64512;\n  neighbor 10.99.0.77 as 65001;\n}\n\
                   protocol static mine {\n  route 203.0.113.0/24 blackhole;\n}\n";
    std::fs::write(&conf, format!("{written}{by_hand}"))?;
    birdc(&socket, "configure")?;
    let verdict = mesh.settles(2)?;
    verdict.says(&["unsafe session my_tor", "edited by hand"])?;
    verdict.says(&["unsafe session mine", "edited by hand"])?;
    std::fs::write(&conf, &written)?;
    birdc(&socket, "configure")?;

    // The same in the files that confd writes, and with templates mounted over the image's.
    let etc = mesh.b.file("etc");
    for folder in ["calico/confd/config", "calico/confd/templates", "service/enabled/bird"] {
        std::fs::create_dir_all(etc.join(folder))?;
    }
    std::fs::write(etc.join("service/enabled/bird/run"), "#!/bin/sh\nexec bird -R -s x\n")?;
    let verdict = mesh.examine_within("")?;
    verdict.expect(0)?.says(&["note host services", "bird are what margay replaces"])?;
    let file = etc.join("calico/confd/config/bird.cfg");
    std::fs::write(&file, format!("router id 10.0.0.1;\n{by_hand}"))?;
    let verdict = mesh.examine_within("")?;
    verdict.expect(2)?.says(&["unsafe host configuration", "bird.cfg: protocol bgp my_tor {"])?;
    std::fs::remove_file(&file)?;
    std::fs::write(etc.join("calico/confd/templates/bird.cfg.template"), "")?;
    let mount = "mount --bind /etc/service /etc/calico/confd/templates;";
    let verdict = mesh.examine_within(mount)?;
    verdict
        .expect(2)?
        .says(&["/etc/calico/confd/templates is mounted", "templates of one's own"])?;

    let (socket, conf) = (mesh.c.file("bird.ctl"), mesh.c.file("bird.conf"));
    let written = std::fs::read_to_string(&conf)?;
    let (before, after) = written.split_once("template bgp").context("no template")?;
    let forgetful = after.replacen("graceful restart;", "graceful restart no;", 1);
    std::fs::write(&conf, format!("{before}template bgp{forgetful}"))?;
    birdc(&socket, "configure")?;
    let verdict = wait_until(PATIENCE, "the session without graceful restart", || {
        let verdict = mesh.examine()?;
        verdict.says(&["does not keep our routes over a restart"])?;
        Ok(verdict)
    })?;
    verdict.expect(2)?.says(&["unsafe session", &session_name("Mesh", &mesh.c), "(Node/c)"])?;
    std::fs::write(&conf, &written)?;
    birdc(&socket, "configure")?;
    mesh.settles(0).map(drop)
}

/// What cannot be examined is reported in a line of its own, and the rest is checked.
#[test]
#[ignore = "needs root, etcd, BIRD 1.6 and util-linux"]
fn what_cannot_be_examined_is_reported_and_the_rest_is_checked() -> Result<()> {
    run("doctor-blind", |lab| {
        let mut mesh = Mesh::start(lab)?;
        mesh.settles(0)?;
        let judged = ["host services", "bird are what margay replaces"];
        let etc = mesh.b.file("etc");
        std::fs::create_dir_all(etc.join("service/enabled/bird"))?;

        // A node name that Calico does not know, and none at all.
        let ghost = doctor::examine(&mut mesh.command(&["--node", "ghost"])?)?;
        ghost.expect(2)?.says(&["unsafe datastore objects", "Node/ghost"])?;
        let nobody = mesh.examine_within("unset NODENAME;")?;
        nobody
            .expect(2)?
            .says(&["unsafe datastore settings", "NODENAME is not set"])?
            .says(&judged)?;

        // Without privileges: neither processes nor BIRD's answers can be read.
        let binary = mesh.b.file("margay").display().to_string();
        std::fs::copy(interop::margay::binary()?, &binary)?;
        mesh.b.shell(&format!("chmod 755 {binary}"))?;
        let mut command = mesh.b.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
        command.args([&binary, "calico", "doctor"]).envs(mesh.environment());
        let bound = doctor::examine(&mut command)?;
        bound.expect(2)?;
        bound.says(&["unsafe host capabilities", "this process lacks CAP_NET_ADMIN"])?;
        bound.says(&["unsafe speaker", "Permission denied"])?;

        // With etcd down, and then with BIRD down.
        mesh.cluster.etcd.crash()?;
        let half = mesh.examine_within("")?;
        half.expect(2)?.says(&["unsafe datastore etcd at ", "cannot be read"])?.says(&judged)?;
        ensure!(half.json["in_charge"].to_string().contains("2 of 2 sessions up"), "{}", half.json);
        mesh.cluster.etcd.restart()?;
        mesh.settles(0)?;
        mesh.nb.daemon().crash()?;
        let silent = mesh.examine_within("")?;
        silent.expect(2)?.says(&["unsafe speaker", "bird.ctl", "nobody can be asked"])?;
        silent.says(&judged)?;
        let listener = "import socket, time; s = socket.create_server(('', 179)); time.sleep(100)";
        let _taken = mesh.b.daemon("taken", "python3", &["-c", listener])?;
        wait_until(PATIENCE, "the port to be taken", || {
            mesh.examine()?
                .says(&["unsafe host port", "python3", "listens at BGP's port"])
                .map(drop)
        })
    })
}
